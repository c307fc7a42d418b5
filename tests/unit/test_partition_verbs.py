# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users ask for: partitions made and removed, split, merged and moved; at an API server in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, NotFound, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import partitions as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.key_space_memory import Site

Object = dict[str, Any]
STAMP = "2026-01-31T12:00:00.000000Z"
LONG = 30.0  # seconds: a deadline for what takes a moment


@pytest.fixture
def api() -> Site:
    return Site()


def run(api: Site, state: str = "present", **options: Any) -> dict[str, Any]:
    return verbs.partition(api, namespace="ns", state=state, **options)


def refused(api: Site, state: str = "present", **options: Any) -> Malformed:
    before = dict(api.objects)
    with pytest.raises(Malformed) as caught:
        run(api, state, **options)
    assert api.objects == before
    return caught.value


def spans(done: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(each["start"], each["end"]) for each in done["partitions"]]


# ---------------------------------------------------------------------------------------------- the view


def test_a_view_with_a_gap_is_read_again(api: Site) -> None:
    """Between the two lists a part was split, and one of its halves again: what was read does not fit together."""
    api.part("p1", "", "n", "w-0")
    api.part("p2", "n", "", "w-0")
    results = [{"partition": "p1-1", "range": {"start": "", "end": "g"}, "primary": "w-0", "epoch": 5}]
    results += [{"partition": "p1-2", "range": {"start": "g", "end": "k"}, "primary": "w-0", "epoch": 5}]
    status = {"phase": "Committed", "results": results, "supersedes": ["p0"]}

    def race(api: Site = api) -> None:
        made = api.put(ASSIGNMENTS, "a2", {"type": "InWorkerSplit"})
        api.replace(ASSIGNMENTS, {**made, "status": status}, "status")
        there = api.get(PARTITIONS, "p1", "ns")
        api.delete(PARTITIONS, "p1", "ns", uid=there["metadata"]["uid"])
        api.part("p0", "", "k", "w-0", 3)
        api.part("p3", "k", "n", "w-0", 3)

    lists = []
    original = api.list

    def racing(resource: Resource, namespace: str | None = None, **more: Any) -> Any:
        lists.append(resource)
        if len(lists) == 2:
            race()
        return original(resource, namespace, **more)

    api.list = racing
    view = verbs.read_view(api, "ns", "default")
    assert not view.gaps and [fact.partition for fact in view.facts] == ["p1-1", "p1-2", "p3", "p2"]
    assert lists == [PARTITIONS, ASSIGNMENTS, PARTITIONS, ASSIGNMENTS]


def test_a_gap_that_is_there_is_believed(api: Site) -> None:
    api.part("p1", "", "n")
    assert verbs.read_view(api, "ns", "default").gaps == (Range("n", ""),)
    assert len([each for each in api.requests if each.startswith("list")]) == 3


def test_a_view_that_never_stands_still_is_bounded(api: Site) -> None:
    original, number = api.list, iter(range(1000))

    def moving(resource: Resource, namespace: str | None = None, **more: Any) -> Any:
        if resource == PARTITIONS:
            api.part(f"p{next(number)}", "a", "b")
        return original(resource, namespace, **more)

    api.list = moving
    assert verbs.read_view(api, "ns", "default").gaps
    assert next(number) == verbs.READS


def test_what_is_of_another_key_space_does_not_count(api: Site) -> None:
    api.part("p1")
    api.part("q1", keySpace="other")
    assert [fact.partition for fact in verbs.read_view(api, "ns", "default").facts] == ["p1"]


# ---------------------------------------------------------------------------------------------- present


def test_a_partition_is_made_once(api: Site) -> None:
    done = run(api, name="part1", start="c", end="o")
    assert done["changed"] and spans(done) == [("c", "o")]
    assert done["after"] == {"partitions": {"part1": {"start": "c", "end": "o"}}}
    made = api.listed(PARTITIONS)["part1"]
    assert made["spec"] == {"keySpace": "default", "range": {"start": "c", "end": "o"}}
    assert made["metadata"]["labels"] == {verbs.LABEL: "default"}
    api.requests.clear()
    again = run(api, name="part1", start="c", end="o")
    assert not again["changed"] and api.writes() == [] and again["after"] == {"partitions": {}}
    assert not run(api, name="part1")["changed"]


def test_check_mode_makes_nothing(api: Site) -> None:
    done = run(api, name="part1", start="c", end="o", check_mode=True)
    assert done["changed"] and done["after"]["partitions"] == {"part1": {"start": "c", "end": "o"}}
    assert api.listed(PARTITIONS) == {} and api.writes() == []


def test_what_was_split_since_is_present_still(api: Site) -> None:
    api.part("part1-1", "c", "g", "w-0", 3)
    api.part("part1-2", "g", "o", "w-0", 3)
    done = run(api, name="part1", start="c", end="o")
    assert not done["changed"] and spans(done) == [("c", "g"), ("g", "o")]


def test_a_range_that_is_taken_in_part_is_refused(api: Site) -> None:
    api.part("other", "e", "j")
    why = refused(api, name="part1", start="c", end="o")
    assert why.field == "range" and "Partition other has [e, j)" in str(why)
    why = refused(api, name="other", start="m", end="o")
    assert why.field == "name" and "has [e, j), for ever" in str(why)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "p", "start": "o", "end": "c"}, "end"),
        ({"name": "p", "start": "O"}, "start"),
        ({"name": "p", "start": "a"}, "start"),  # the least character: that is the lowest key
        ({"name": "p", "start": "abcde"}, "start"),
        ({"start": "b"}, "name"),
        ({"name": "p"}, "name"),
        ({"count": 0}, "count"),
        ({"count": 100_001}, "count"),
        ({"count": 20, "start": "aaab", "end": "aaae"}, "count"),
        ({"key_space": "other", "count": 1}, "key_space"),
    ],
)
def test_refusals_name_the_option(api: Site, options: dict[str, Any], field: str) -> None:
    assert refused(api, **options).field == field


def test_an_even_cut(api: Site) -> None:
    done = run(api, count=12)
    assert done["changed"] and len(done["partitions"]) == 12
    assert list(api.listed(PARTITIONS)) == [f"default-{number:02}" for number in range(1, 13)]
    assert not verbs.read_view(api, "ns", "default").gaps
    api.requests.clear()
    assert not run(api, count=12)["changed"] and api.writes() == []
    # and what is covered is not cut anew
    assert not run(api, count=5)["changed"] and api.writes() == []


def test_an_even_cut_that_was_interrupted_is_completed(api: Site) -> None:
    run(api, count=8, name="part")
    whole = api.listed(PARTITIONS)
    for name in ("part-3", "part-8"):
        api.delete(PARTITIONS, name, "ns")
    done = run(api, count=8, name="part")
    assert set(done["after"]["partitions"]) == {"part-3", "part-8"} and done["changed"]
    assert {n: o["spec"] for n, o in api.listed(PARTITIONS).items()} == {n: o["spec"] for n, o in whole.items()}


def test_a_create_whose_answer_is_lost_is_looked_up(api: Site) -> None:
    api.faults = ["create lost-applied"]
    done = run(api, name="part1", start="c", end="o")
    assert done["changed"] and list(api.listed(PARTITIONS)) == ["part1"]


def test_somebody_makes_another_range_of_that_name_meanwhile(api: Site) -> None:
    def race(write: str) -> None:
        api.before_write = None
        api.part("part1", "o", "q")

    api.before_write = race
    with pytest.raises(Malformed, match="somebody has just made it"):
        run(api, name="part1", start="c", end="o")


def test_present_waits_until_somebody_serves_it(api: Site) -> None:
    def assign() -> None:
        for _change in api.follow(PARTITIONS, "ns", stop=stop):
            if "part1" in api.listed(PARTITIONS):
                obj = api.get(PARTITIONS, "part1", "ns")
                obj["spec"].update(primary="w-0", epoch=1)
                api.replace(PARTITIONS, obj)
                return

    stop = threading.Event()
    thread = threading.Thread(target=assign)
    thread.start()
    try:
        done = run(api, name="part1", start="c", end="o", wait=True, wait_timeout=LONG)
    finally:
        stop.set()
        thread.join(LONG)
    assert done["partitions"][0]["primary"] == "w-0"
    api.part("part2", "o", "q")
    with pytest.raises(TimedOut, match=r"nobody serves \[o, q\)"):
        run(api, name="part2", start="o", end="q", wait=True, wait_timeout=0.2)


# ---------------------------------------------------------------------------------------------- the key space


def test_a_key_space_is_made_with_its_partitions(api: Site) -> None:
    options = {"key_length": 8, "alphabet": "0123456789abcdef", "followers": 1, "reload": None}
    planned = run(api, key_space="hex", space=options, count=4, check_mode=True)
    assert planned["changed"] and "hex" not in api.listed(KEY_SPACES)
    assert len(planned["after"]["partitions"]) == 4
    done = run(api, key_space="hex", space=options, count=4)
    spec = {"keyLength": 8, "alphabet": "0123456789abcdef", "followers": 1}
    assert done["before"] == {"key_space": None, "partitions": {}} and done["after"]["key_space"] == spec
    assert api.listed(KEY_SPACES)["hex"]["spec"] == spec
    assert not run(api, key_space="hex", space=options, count=4)["changed"]
    changed = run(api, key_space="hex", space={"fence_seconds": 1.5})
    assert changed["changed"] and api.listed(KEY_SPACES)["hex"]["spec"] == {**spec, "fenceSeconds": 1.5}
    assert changed["before"]["key_space"] == spec


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "space.key_length"),
        ({"key_length": 0}, "space.key_length"),
        ({"key_length": 4, "alphabet": "a"}, "space.alphabet"),
        ({"key_length": 4, "grace_seconds": -1}, "space.grace_seconds"),
    ],
)
def test_options_of_a_key_space_are_named(api: Site, options: dict[str, Any], field: str) -> None:
    assert refused(api, key_space="new", space=options).field == field


def test_how_keys_look_can_not_be_changed(api: Site) -> None:
    assert refused(api, space={"key_length": 5}).field == "space.key_length"
    assert "for ever" in str(refused(api, space={"alphabet": "abc"}))
    assert not run(api, space={"key_length": 4, "alphabet": "zyxwvutsrqponmlkjihgfedcba"})["changed"]


# ---------------------------------------------------------------------------------------------- absent


def test_removal(api: Site) -> None:
    api.part("part1", "c", "o")
    planned = run(api, "absent", name="part1", check_mode=True)
    assert planned["changed"] and planned["before"] == {"[c, o)": ""} and "part1" in api.listed(PARTITIONS)
    assert run(api, "absent", name="part1")["changed"] and api.listed(PARTITIONS) == {}
    assert not run(api, "absent", name="part1")["changed"]


def test_what_is_served_is_removed_only_by_force(api: Site) -> None:
    api.part("part1", "c", "o", "w-0")
    why = refused(api, "absent", name="part1")
    assert "worker w-0 serves it, and its data would be lost" in str(why)
    assert run(api, "absent", name="part1", force=True)["changed"] and api.listed(PARTITIONS) == {}


@pytest.mark.parametrize("field", ["claimedBy", "madeBy"])
def test_what_is_part_of_an_operation_is_not_removed_even_by_force(api: Site, field: str) -> None:
    api.put(ASSIGNMENTS, "a1", {"type": "New", "newParams": {"partition": "part1", "primary": "w-0"}})
    api.part("part1", "c", "o", **{field: "a1"})
    assert "part of Assignment a1" in str(refused(api, "absent", name="part1", force=True))
    api.say("a1", "Aborted")
    assert run(api, "absent", name="part1")["changed"]


def test_what_is_of_another_key_space_is_not_removed(api: Site) -> None:
    api.part("part1", "c", "o", keySpace="other")
    assert "it is of KeySpace other" in str(refused(api, "absent", name="part1"))


# ---------------------------------------------------------------------------------------------- split


def test_a_split_is_asked_for_once(api: Site) -> None:
    api.part("part1", "c", "o", "w-0")
    planned = run(api, "split", name="part1", split_key="g", check_mode=True)
    assert planned["changed"] and api.listed(ASSIGNMENTS) == {}
    assert planned["before"] == {"[c, o)": "w-0"} and planned["after"] == {"[c, g)": "w-0", "[g, o)": "w-0"}
    done = run(api, "split", name="part1", split_key="g")
    assert done["changed"] and done["assignment"]["name"] == planned["assignment"]["name"]
    (made,) = api.listed(ASSIGNMENTS).values()
    assert made["spec"] == {
        "keySpace": "default",
        "type": "InWorkerSplit",
        "splitParams": {"partition": "part1", "splitKey": "g"},
    }
    assert made["metadata"]["finalizers"] == [operations.FINALIZER]
    for more in ({"name": "part1"}, {}):
        again = run(api, "split", split_key="g", **more)
        assert not again["changed"] and again["assignment"]["name"] == made["metadata"]["name"]
    assert list(api.listed(ASSIGNMENTS)) == [made["metadata"]["name"]]


def test_a_split_that_is_done_is_not_asked_for_again(api: Site) -> None:
    api.part("part1-1", "c", "g", "w-0", 3)
    api.part("part1-2", "g", "o", "w-0", 3)
    for more in ({"name": "part1"}, {"name": "part1-2"}, {}):
        done = run(api, "split", split_key="g", **more)
        assert not done["changed"] and done["assignment"] == {} and api.listed(ASSIGNMENTS) == {}


def test_one_that_is_committed_is_waited_for(api: Site) -> None:
    """The view has its results already, but it is not over."""
    api.part("part1", "c", "o", "w-0")
    name = run(api, "split", name="part1", split_key="g")["assignment"]["name"]
    results = [
        {"partition": f"part1-{start}", "range": {"start": start, "end": end}, "primary": "w-0", "epoch": 3}
        for start, end in (("c", "g"), ("g", "o"))
    ]
    api.say(name, "Committed", results=results, supersedes=["part1"], committedAt=STAMP)
    again = run(api, "split", name="part1", split_key="g")
    assert not again["changed"] and again["assignment"]["phase"] == "Committed"
    assert [each["operation"] for each in again["partitions"]] == [name]
    seen: list[str] = []

    def tell(operation: Mapping[str, Any]) -> None:
        seen.append(operation["phase"])
        if operation["phase"] == "Committed":
            api.say(name, "Completed")

    done = run(api, "split", name="part1", split_key="g", wait=True, wait_timeout=LONG, tell=tell)
    assert seen == ["Committed", "Completed"] and done["assignment"]["phase"] == "Completed"


@pytest.mark.parametrize(
    ("options", "field", "why"),
    [
        ({"name": "part1", "split_key": "o"}, "split_key", "strictly inside of [c, o)"),
        ({"name": "part1", "split_key": "z"}, "split_key", "strictly inside of [c, o)"),
        ({"split_key": ""}, "split_key", "strictly inside"),
        ({"split_key": "b"}, "split_key", "it is in no Partition"),
        ({"split_key": "G"}, "split_key", "is not in the alphabet"),
        ({"split_key": "ggggg"}, "split_key", "at most 4 characters"),
        ({"name": "gone", "split_key": "g"}, "name", "Partition part1, [c, o), has the key"),
        ({"name": "idle", "split_key": "q"}, "name", "nobody serves it"),
    ],
)
def test_a_split_that_can_not_be_is_refused(api: Site, options: dict[str, Any], field: str, why: str) -> None:
    api.part("part1", "c", "o", "w-0")
    api.part("idle", "o", "s")
    error = refused(api, "split", **options)
    assert error.field == field and why in str(error)


def test_one_that_was_aborted_is_asked_for_anew(api: Site) -> None:
    api.part("part1", "c", "o", "w-0")
    first = run(api, "split", name="part1", split_key="g")["assignment"]["name"]
    api.say(first, "Aborting", message="worker w-0 is lost")
    assert run(api, "split", name="part1", split_key="g")["assignment"]["name"] == first
    with pytest.raises(MusterError, match="was aborted, and all is as it was: worker w-0 is lost"):
        run(
            api,
            "split",
            name="part1",
            split_key="g",
            wait=True,
            wait_timeout=LONG,
            tell=lambda seen: api.say(first, "Aborted") if seen["phase"] == "Aborting" else None,
        )
    second = run(api, "split", name="part1", split_key="g")
    assert second["changed"] and second["assignment"]["name"] == f"{first}-2"


def test_two_who_ask_for_the_same_at_once_ask_for_one(api: Site) -> None:
    api.part("part1", "c", "o", "w-0")

    def race(write: str) -> None:
        api.before_write = None
        assert run(api, "split", split_key="g")["changed"]

    api.before_write = race
    done = run(api, "split", name="part1", split_key="g")
    assert not done["changed"] and len(api.listed(ASSIGNMENTS)) == 1


def test_a_wait_in_vain_says_what_it_waits_for(api: Site) -> None:
    api.part("part1", "c", "o", "w-0")
    name = run(api, "split", name="part1", split_key="g")["assignment"]["name"]
    api.say(name, "Pending", message="Partition part1 is part of a0, which is not over")
    with pytest.raises(TimedOut, match="last seen: Pending: Partition part1 is part of a0"):
        run(api, "split", name="part1", split_key="g", wait=True, wait_timeout=0.2)


def test_an_operation_that_is_deleted_while_it_is_waited_for(api: Site) -> None:
    api.part("part1", "c", "o", "w-0")

    def vanish(seen: Mapping[str, Any]) -> None:
        obj = api.get(ASSIGNMENTS, seen["name"], "ns")
        obj["metadata"].update(finalizers=[], deletionTimestamp=STAMP)
        api.replace(ASSIGNMENTS, obj)

    with pytest.raises(MusterError, match="is gone: somebody has deleted it"):
        run(api, "split", name="part1", split_key="g", wait=True, wait_timeout=LONG, tell=vanish)


# ---------------------------------------------------------------------------------------------- merge


def seed(api: Site, *workers: str) -> None:
    bounds = ("", "e", "j", "o", "")
    for number, worker in enumerate(workers, 1):
        api.part(f"part{number}", bounds[number - 1], bounds[number], worker)


def test_a_merge_which_is_not_adjacent_names_the_gap(api: Site) -> None:
    seed(api, "w-0", "w-0", "w-0")
    error = refused(api, "merged", partitions=["part3", "part1"])
    assert error.field == "partitions"
    assert "[-, e) and [j, o) are not adjacent: [e, j) is between; name part2, too" in str(error)
    api.delete(PARTITIONS, "part2", "ns")
    assert "[e, j) is between; no Partition has it" in str(refused(api, "merged", partitions=["part3", "part1"]))


def test_a_merge_by_names_and_by_range_is_the_same(api: Site) -> None:
    seed(api, "w-0", "w-0", "w-0")
    done = run(api, "merged", partitions=["part2", "part1"])
    assert done["changed"] and done["after"] == {"[-, j)": "w-0"}
    assert done["before"] == {"[-, e)": "w-0", "[e, j)": "w-0"}
    (made,) = api.listed(ASSIGNMENTS).values()
    assert made["spec"]["mergeParams"] == {"partitions": ["part1", "part2"]}
    for same in ({"partitions": ["part1", "part2"]}, {"start": "", "end": "j"}, {"end": "j"}):
        again = run(api, "merged", **same)
        assert not again["changed"] and again["assignment"]["name"] == made["metadata"]["name"]


def test_a_merge_that_is_done(api: Site) -> None:
    seed(api, "w-0", "w-0")
    name = run(api, "merged", partitions=["part1", "part2"])["assignment"]["name"]
    for each in ("part1", "part2"):
        api.delete(PARTITIONS, each, "ns")
    api.part("part1-9", "", "j", "w-0", 3, madeBy=name)
    results = [{"partition": "part1-9", "range": {"start": "", "end": "j"}, "primary": "w-0", "epoch": 3}]
    api.say(name, "Committed", results=results, supersedes=["part1", "part2"])
    assert run(api, "merged", end="j")["assignment"]["name"] == name
    api.say(name, "Completed")
    for same in ({"partitions": ["part1", "part2"]}, {"end": "j"}):
        done = run(api, "merged", **same)
        assert not done["changed"] and done["assignment"] == {} and spans(done) == [("", "j")]


@pytest.mark.parametrize(
    ("options", "field", "why"),
    [
        ({"partitions": ["part1"]}, "partitions", "name 2 to 16"),
        ({"partitions": ["part1", "part1"]}, "partitions", "each only once"),
        ({"partitions": ["part1", "gone"]}, "partitions", "there is no such Partition"),
        ({"partitions": ["part2", "part3"]}, "partitions", "part3 is at w-1, and part2 at w-0: move it first"),
        ({"partitions": ["part3", "part4"]}, "name", "nobody serves it"),
        ({"start": "e", "end": "k"}, "range", "give bounds that are there"),
        ({"start": "k", "end": "e"}, "end", "give a bound above the start"),
        ({}, "partitions", "name those that are to be one"),
    ],
)
def test_a_merge_that_can_not_be_is_refused(api: Site, options: dict[str, Any], field: str, why: str) -> None:
    seed(api, "w-0", "w-0", "w-1", "")
    error = refused(api, "merged", **options)
    assert error.field == field and why in str(error)


def test_a_merge_of_a_range_with_a_gap_names_it(api: Site) -> None:
    seed(api, "w-0", "w-0", "w-0")
    api.delete(PARTITIONS, "part2", "ns")
    assert "[e, j) is in no Partition" in str(refused(api, "merged", start="", end="o"))


# ---------------------------------------------------------------------------------------------- move, and new


def test_a_move(api: Site) -> None:
    seed(api, "w-0")
    done = run(api, "moved", name="part1", to="w-1")
    assert done["changed"] and done["after"] == {"[-, e)": "w-1"} and done["before"] == {"[-, e)": "w-0"}
    (made,) = api.listed(ASSIGNMENTS).values()
    assert made["spec"]["moveParams"] == {"partition": "part1", "from": "w-0", "to": "w-1"}
    assert not run(api, "moved", name="part1", to="w-1")["changed"]
    assert not run(api, "moved", name="part1", to="w-0")["changed"]
    assert len(api.listed(ASSIGNMENTS)) == 1


def test_there_and_back_and_there_again_are_three(api: Site) -> None:
    seed(api, "w-0")
    names = []
    for epoch, (source, target) in enumerate((("w-0", "w-1"), ("w-1", "w-0"), ("w-0", "w-1")), 1):
        there = api.get(PARTITIONS, "part1", "ns")
        there["spec"].update(primary=source, epoch=epoch)
        api.replace(PARTITIONS, there)
        names.append(run(api, "moved", name="part1", to=target)["assignment"]["name"])
        api.say(names[-1], "Completed")
    assert len(set(names)) == 3


def test_what_nobody_serves_is_given(api: Site) -> None:
    seed(api, "", "")
    done = run(api, "moved", name="part1", to="w-1")
    (made,) = api.listed(ASSIGNMENTS).values()
    assert made["spec"]["newParams"] == {"partition": "part1", "primary": "w-1"} and done["changed"]
    # one that is part of the assigner's batch is asked for already
    pairs = [{"partition": name, "primary": "w-0"} for name in ("part2", "part3")]
    api.put(ASSIGNMENTS, "batch", {"keySpace": "default", "type": "New", "newParams": {"partitions": pairs}})
    again = run(api, "moved", name="part2", to="w-0")
    assert not again["changed"] and again["assignment"]["name"] == "batch"


def test_a_worker_that_is_not_there_is_refused(api: Site) -> None:
    seed(api, "w-0")
    api.worker("w-2", holder="")
    for worker in ("w-2", "w-9"):
        error = refused(api, "moved", name="part1", to=worker)
        assert error.field == "to" and "there are w-0, w-1" in str(error)
    api.faults = []
    assert refused(api, "moved", name="gone", to="w-1").field == "name"


def test_who_may_not_see_workers_is_let(api: Site) -> None:
    seed(api, "w-0")
    original = api.list

    def forbidding(resource: Resource, namespace: str | None = None, **more: Any) -> Any:
        if resource == LEASES:
            api.faults = ["list 403"]
        return original(resource, namespace, **more)

    api.list = forbidding
    assert run(api, "moved", name="part1", to="w-9")["changed"]
    assert verbs.look(api, "ns", "default")[0]["workers"] == []


# ---------------------------------------------------------------------------------------------- abort


def test_an_abort_deletes_what_is_not_committed(api: Site) -> None:
    seed(api, "w-0")
    name = run(api, "moved", name="part1", to="w-1")["assignment"]["name"]
    assert verbs.abort(api, "ns", name)["name"] == name
    assert api.listed(ASSIGNMENTS)[name]["metadata"]["deletionTimestamp"]
    with pytest.raises(Malformed, match="there is none of this name"):
        verbs.abort(api, "ns", "gone")
    api.say(name, "Committed")
    with pytest.raises(Malformed, match="it is Committed, which is final"):
        verbs.abort(api, "ns", name)


# ---------------------------------------------------------------------------------------------- info


def test_a_look(api: Site) -> None:
    seed(api, "w-0", "", "w-1")
    name = run(api, "moved", name="part1", to="w-1")["assignment"]["name"]
    part = api.get(PARTITIONS, "part1", "ns")
    part["spec"].update(claimedBy=name, fencedBy=name, epoch=2)
    api.replace(PARTITIONS, part)
    api.say(name, "Loading", message="worker w-1 loads part1")
    (space,) = verbs.info(api, namespace="ns", key="mmmm")["key_spaces"]
    assert (space["covered"], space["gaps"], space["unserved"]) == (False, [{"start": "o", "end": ""}], 1)
    first = space["partitions"][0]
    assert (first["fenced"], first["operation"], first["epoch"]) == (True, name, 2)
    assert space["owner"]["name"] == "part3"
    (operation,) = space["operations"]
    assert (operation["from"], operation["to"], operation["phase"]) == ("w-0", "w-1", "Loading")
    assert {each["name"]: each["partitions"] for each in space["workers"]} == {"w-0": 1, "w-1": 1}
    assert verbs.look(api, "ns", "default", "zzzz")[0]["owner"] is None


def test_a_key_that_is_none_is_refused_where_the_space_is_named(api: Site) -> None:
    with pytest.raises(Malformed, match="exactly 4 characters"):
        verbs.info(api, namespace="ns", key_space="default", key="m")
    assert verbs.info(api, namespace="ns", key="m")["key_spaces"][0]["owner"] is None


def test_the_view_of_what_is_committed_is_shown(api: Site) -> None:
    """A partition of which no object says so yet, and one that counts no more."""
    api.part("part1", "", "", "w-0", claimedBy="s1", fencedBy="s1")
    params = {"partition": "part1", "splitKey": "g"}
    api.put(ASSIGNMENTS, "s1", {"keySpace": "default", "type": "InWorkerSplit", "splitParams": params})
    results = [
        {"partition": f"part1-{number}", "range": {"start": start, "end": end}, "primary": "w-0", "epoch": 3}
        for number, start, end in ((1, "", "g"), (2, "g", ""))
    ]
    api.say("s1", "Committed", results=results, supersedes=["part1"])
    space = verbs.look(api, "ns", "default")[0]
    assert space["covered"] and space["void"] == ["part1"] and space["unserved"] == 0
    assert [(each["name"], each["phase"], each["fenced"]) for each in space["partitions"]] == [
        ("part1-1", "Ready", False),
        ("part1-2", "Ready", False),
    ]


def test_a_key_space_that_makes_no_sense_is_told(api: Site) -> None:
    api.put(KEY_SPACES, "odd", {"keyLength": "four"})
    (space,) = verbs.look(api, "ns", "odd")
    assert "spec.keyLength is 'four'" in space["error"]


def test_a_cluster_that_does_not_know_the_kind(api: Site) -> None:
    def unknown(*_args: Any, **_more: Any) -> Any:
        raise NotFound(404, "NotFound", "the server could not find the requested resource")

    api.list = unknown
    assert verbs.look(api, "ns") == []
    api.get = unknown
    with pytest.raises(Malformed, match="apply kustomize/partitions/crds first"):
        verbs.read_space(api, "ns", "default")


def test_names_of_results_and_of_requests_are_names(api: Site) -> None:
    long = "p" * 253
    api.part(long, "c", "o", "w-0")
    name = run(api, "split", name=long, split_key="g")["assignment"]["name"]
    assert len(name) < 64 and name.startswith("split-ppp")
    assert len(keyspace.result_name(long, "uid", 0)) < 64

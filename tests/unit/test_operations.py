# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of an operation on partitions, by example."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import (
    FINALIZER,
    LOST,
    MERGE,
    MOVE,
    NEW,
    SPLIT,
    UNREACHABLE,
    Ask,
    Call,
    Done,
    Inspect,
    Make,
    ReadPartitions,
    Remove,
    Replace,
    Report,
    Seen,
    Several,
    Survey,
    Wait,
    Write,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FENCED,
    FOLLOWING,
    LOADING,
    PRIMARY,
    PROXY,
    Copy,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

NOW, STAMP = 1767225600.0, "2026-01-01T00:00:00+00:00"
LATE = NOW + 1e6
SPACE = Space("default", 4)
WHOLE = Range("", "")
MOVED = {"partition": "p", "from": "w1", "to": "w2"}


def part(name: str = "p", start: str = "", end: str = "", **spec: Any) -> dict[str, Any]:
    said = {"keySpace": "default", "range": {"start": start, "end": end}, **spec}
    return {"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": said}


def make(kind: str, status: Any = None, *, going: bool = False, **params: Any) -> dict[str, Any]:
    obj = operations.make("a", "default", kind, **params)
    obj["metadata"] |= {"uid": "u", **({"deletionTimestamp": STAMP} if going else {})}
    return {**obj, "status": status} if status else obj


def step(obj: Any, *parts: Any, now: float = NOW, missing: str = "", space: Any = SPACE, **seen: Any) -> Any:
    held = {each["metadata"]["name"]: each for each in parts} | ({missing: None} if missing else {})
    return operations.next_step(obj, Seen(space, held, **seen), now, STAMP)


def reports(**copies: Any) -> dict[str, Any]:
    """By worker: what it has, or why there is no report."""
    return {
        worker: said if isinstance(said, operations.Absent) else Report({copy.partition: copy for copy in said})
        for worker, said in copies.items()
    }


def spec_of(made: Any) -> Any:
    assert isinstance(made, Replace), made
    return made.desired["spec"]


def name_of(made: Any) -> Any:
    return made.desired["metadata"]["name"]


def each_of(made: Any) -> Any:
    assert isinstance(made, Several) and len(made.steps) > 1, made
    return made.steps


def status_of(made: Any) -> Any:
    assert isinstance(made, Write) and made.subresource == "status", made
    return made.desired["status"]


MOVE_A, SPLIT_A = make(MOVE, **MOVED), make(SPLIT, partition="p", splitKey="m")
MERGE_A, NEW_A = make(MERGE, partitions=["p", "q"]), make(NEW, partition="p", primary="w1")
SERVED = part(primary="w1", epoch=1)
CLAIMED = part(primary="w1", epoch=1, claimedBy="a")
FENCED_P = part(primary="w1", epoch=2, claimedBy="a", fencedBy="a", fencedAt=STAMP)
AT_FENCE = Copy("p", WHOLE, FENCED, 1, 2, 7, "a", "u")
ARRIVED = Copy("p", WHOLE, FOLLOWING, 1, 0, 7, "a", "u", origin="w1")


# ------------------------------------------------------------------------------------------ what is asked for


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.type"),
        ({"type": "Rename"}, "spec.type"),
        ({"type": NEW}, "spec.newParams"),
        ({"type": NEW, "newParams": {"partition": "p"}}, "spec.newParams.primary"),
        ({"type": NEW, "newParams": {"partitions": [{"partition": "p", "primary": "w"}] * 2}}, "the Partitions"),
        (
            {"type": NEW, "newParams": {"partitions": [{"partition": "p", "primary": "w"}] * 201}},
            "newParams.partitions",
        ),
        ({"type": SPLIT, "splitParams": {"partition": "p"}}, "splitKey"),
        ({"type": MERGE, "mergeParams": {"partitions": ["p"]}}, "spec.mergeParams.partitions"),
        ({"type": MERGE, "mergeParams": {"partitions": ["p", "p"]}}, "the Partitions"),
        ({"type": MOVE, "moveParams": {"partition": "p", "from": "w"}}, "spec.moveParams.to"),
        ({"type": MOVE, "moveParams": {"partition": "p", "from": "w", "to": "w"}}, "spec.moveParams.to"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Malformed) as refused:
        operations.parse({"spec": spec})
    assert field in str(refused.value)
    assert operations.operands({"spec": spec}) == ()


@pytest.mark.parametrize(
    ("obj", "parts", "says"),
    [
        (MOVE_A, [part(primary="w3", epoch=1)], "worker w3 has p"),
        (MOVE_A, [part()], "nobody serves it"),
        (NEW_A, [part(primary="w2", epoch=1)], "move it"),
        (make(SPLIT, partition="p", splitKey="a"), [part(start="b", primary="w1")], "strictly inside"),
        (make(SPLIT, partition="p", splitKey="b"), [part(start="b", primary="w1")], "strictly inside"),
        (MERGE_A, [part(end="e", primary="w1"), part("q", "j", "o", primary="w1")], "[e, j) is between"),
        (MERGE_A, [part(end="e", primary="w1"), part("q", "e", primary="w2")], "move them first"),
        (MERGE_A, [part(end="e", primary="w1"), part("q", "e", keySpace="x", primary="w1")], "KeySpace x"),
    ],
)
def test_an_operation_that_cannot_be_is_aborted_with_the_reason(obj: Any, parts: list[Any], says: str) -> None:
    status = status_of(step(obj, *parts))
    assert status["phase"] == "Aborting" and says in status["message"]


def test_a_partition_that_is_not_there_aborts_and_a_missing_key_space_waits() -> None:
    assert "no such Partition" in status_of(step(MOVE_A, missing="p"))["message"]
    assert isinstance(step(MOVE_A, SERVED, space=None), Wait)
    assert step(MOVE_A) == ReadPartitions(("p",))


# ------------------------------------------------------------------------------------------ the claim


def test_the_finalizer_comes_first_and_one_that_goes_without_it_is_left() -> None:
    bare = {**MOVE_A, "metadata": {"name": "a", "uid": "u"}}
    assert step(bare).desired["metadata"]["finalizers"] == [FINALIZER]
    assert step({**bare, "metadata": {**bare["metadata"], "deletionTimestamp": STAMP}}) == Done()


LOW_Q, HIGH_P = part("q", "", "m", primary="w1", epoch=1), part("p", "m", "", primary="w1", epoch=1)
OPEN_B = {"metadata": {"name": "b"}, "status": {"phase": "Pending"}}


def held_by(obj: Any, claimant: str) -> Any:
    return {**obj, "spec": {**obj["spec"], "claimedBy": claimant}}


def test_all_partitions_are_claimed_at_once_in_the_order_of_their_ranges() -> None:
    both = step(MERGE_A, HIGH_P, LOW_Q)
    assert [(name_of(each), spec_of(each)["claimedBy"]) for each in each_of(both)] == [("q", "a"), ("p", "a")]
    assert name_of(step(MERGE_A, HIGH_P, held_by(LOW_Q, "a"))) == "p"


def test_who_waits_for_a_partition_keeps_no_claim_on_what_comes_after_it() -> None:
    """Two that claim both at the same time, and get one each, would wait for one another for ever."""
    waiting: dict[str, Any] = {"others": {"b": OPEN_B}}
    gives_way = step(MERGE_A, held_by(HIGH_P, "a"), held_by(LOW_Q, "b"), **waiting)
    assert (name_of(gives_way), spec_of(gives_way)["claimedBy"]) == ("p", "")
    assert status_of(step(MERGE_A, HIGH_P, held_by(LOW_Q, "b"), **waiting))["phase"] == "Pending"
    assert status_of(step(MERGE_A, held_by(HIGH_P, "b"), held_by(LOW_Q, "a"), **waiting))["phase"] == "Pending"


def test_what_comes_before_the_one_that_is_waited_for_is_claimed() -> None:
    claim = step(MERGE_A, held_by(HIGH_P, "b"), LOW_Q, others={"b": OPEN_B})
    assert (name_of(claim), spec_of(claim)["claimedBy"]) == ("q", "a")


@pytest.mark.parametrize("field", ["claimedBy", "madeBy"])
def test_another_one_that_is_open_is_waited_for_and_one_that_is_over_is_not(field: str) -> None:
    of = part(primary="w1", epoch=1, **{field: "b"})
    assert step(MOVE_A, of) == Inspect(("b",))
    for phase in ("Pending", "Loading", "Committed", "Aborting"):
        other = {"metadata": {"name": "b"}, "status": {"phase": phase}}
        assert status_of(step(MOVE_A, of, others={"b": other}))["phase"] == "Pending"
    for gone in (None, {"status": {"phase": "Completed"}}, {"status": {"phase": "Aborted"}}):
        assert spec_of(step(MOVE_A, of, others={"b": gone}))["claimedBy"] == "a"


def test_who_takes_over_a_void_claim_lifts_its_fence_with_a_higher_epoch() -> None:
    of = part(primary="w1", epoch=4, claimedBy="b", fencedBy="b", fencedAt=STAMP)
    spec = spec_of(step(MOVE_A, of, others={"b": None}))
    assert (spec["claimedBy"], spec["fencedBy"], spec["epoch"]) == ("a", "", 5)


def test_a_void_claim_is_released_by_who_finds_it() -> None:
    of = part(primary="w1", epoch=4, claimedBy="b", fencedBy="b")
    released = operations.void_claim(of, None)
    assert released is not None and (spec_of(released)["claimedBy"], spec_of(released)["epoch"]) == ("", 5)
    assert operations.void_claim(of, {"metadata": {"uid": "u"}, "status": {"phase": "Aborted"}}) == released
    going_on = {"metadata": {"uid": "u"}, "status": {"phase": "Loading"}}
    assert operations.void_claim(of, going_on) is None
    assert operations.void_claim(part(claimedBy="b", claimUid="u"), going_on) is None
    assert operations.void_claim(part(claimedBy="b", claimUid="of a namesake"), going_on) is not None
    assert operations.void_claim(part(), None) is None


def test_the_claim_of_one_that_was_deleted_is_not_that_of_the_next_of_its_name() -> None:
    move, left = (
        make("InterWorkerMove", **MOVED),
        part(primary="w1", epoch=4, claimedBy="a", fencedBy="a", claimUid="old"),
    )
    taken = spec_of(step(move, left))
    assert (taken["claimUid"], taken["fencedBy"], taken["epoch"]) == ("u", "", 5)
    assert step(make(MOVE, {"phase": "Aborted"}, **MOVED), left) == Done()


def test_what_is_given_anew_is_compared_with_all_that_overlap() -> None:
    own = part("p", claimedBy="a")
    assert step(NEW_A, own) == Survey(("p",))
    served = part("q", "m", "", primary="w2", epoch=3)
    assert "overlaps" in status_of(step(NEW_A, own, overlapping=(own, served)))["message"]
    first = part("o", "m", "", claimedBy="b")
    assert status_of(step(NEW_A, own, overlapping=(own, first)))["phase"] == "Aborting"
    assert status_of(step(NEW_A, own, overlapping=(own, part("q", "m", "", claimedBy="b"))))["phase"] == "Pending"
    assert step(NEW_A, own, overlapping=(own, part("q", "m", ""))) == Ask(("w1",))


def test_what_is_reloaded_must_not_have_been_followed_by_another() -> None:
    space = Space("default", 4, reload=True)
    zombie = part(primary="w9", epoch=5, claimedBy="a")
    later = part("c", "", "m", primary="w9", epoch=7)
    assert status_of(step(NEW_A, zombie, space=space, overlapping=(later,)))["phase"] == "Aborting"
    older = part("c", "", "m", primary="w9", epoch=3)
    assert isinstance(step(NEW_A, zombie, space=space, overlapping=(older,)), Ask)


# ------------------------------------------------------------------------------------------ loading and the fence


def test_the_target_is_asked_to_follow_once_and_waited_for() -> None:
    call = step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[]))
    assert isinstance(call, Call) and (call.worker, call.verb, call.body["from"]) == ("w2", "follow", {"worker": "w1"})
    refused = step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[]), tried=frozenset({call.key}))
    assert status_of(refused)["phase"] == "Loading" and status_of(refused)["move"]["toPod"] == "loading"
    loading = step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[ARRIVED._replace(role=LOADING)]))
    assert "loads p" in status_of(loading)["message"]


def test_a_copy_of_another_operation_is_not_taken_for_its_own() -> None:
    call = step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[ARRIVED._replace(uid="other")]))
    assert isinstance(call, Call) and call.verb == "follow"


def test_a_follower_of_the_very_primary_has_nothing_to_load() -> None:
    follower = ARRIVED._replace(assignment="", uid="")
    assert step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[follower])).fences
    assert isinstance(step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[follower._replace(epoch=0)])), Call)
    assert isinstance(step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[follower._replace(origin="w3")])), Call)
    committed = status_of(step(MOVE_A, FENCED_P, reports=reports(w1=[AT_FENCE], w2=[follower])))
    assert committed["results"][0]["follower"] is True


@pytest.mark.parametrize(
    ("seen", "now", "says"),
    [
        (reports(w1=[], w2=LOST), NOW, "w2 is lost"),
        (reports(w1=LOST, w2=[]), NOW, "w1 is lost, and w2 is no follower"),
    ],
)
def test_before_the_fence_it_is_aborted_when_a_worker_is_lost(seen: Any, now: float, says: str) -> None:
    assert says in status_of(step(MOVE_A, CLAIMED, reports=seen, now=now))["message"]


def test_loading_is_bounded() -> None:
    started = {**MOVE_A, "status": {"phase": "Loading", "startedAt": STAMP}}
    seen = reports(w1=[], w2=[ARRIVED._replace(role=LOADING)])
    assert isinstance(step(started, CLAIMED, reports=seen), Wait)
    assert status_of(step(started, CLAIMED, reports=seen, now=LATE))["phase"] == "Aborting"
    assert isinstance(step(started, CLAIMED, reports=reports(w1=[], w2=UNREACHABLE)), Wait)


def test_the_fence_is_written_with_a_higher_epoch_and_all_reports_are_forgotten() -> None:
    fence = step(MOVE_A, CLAIMED, reports=reports(w1=[], w2=[ARRIVED]))
    assert fence.fences and (spec_of(fence)["epoch"], spec_of(fence)["fencedBy"]) == (2, "a")
    assert spec_of(fence)["fencedAt"] == STAMP


def test_the_acknowledgement_is_of_this_very_fence_and_silence_is_none() -> None:
    for copy in (AT_FENCE._replace(role=PRIMARY), AT_FENCE._replace(fenced_epoch=1), AT_FENCE._replace(fenced_epoch=3)):
        call = step(MOVE_A, FENCED_P, reports=reports(w1=[copy], w2=[ARRIVED]))
        assert isinstance(call, Call) and (call.worker, call.verb, call.body["epoch"]) == ("w1", "fence", 2)
    assert isinstance(step(MOVE_A, FENCED_P, reports=reports(w1=UNREACHABLE, w2=[ARRIVED])), Wait)
    assert status_of(step(MOVE_A, FENCED_P, reports=reports(w1=LOST, w2=[ARRIVED])))["phase"] == "Aborting"


def test_the_target_has_all_up_to_the_fence() -> None:
    behind = reports(w1=[AT_FENCE], w2=[ARRIVED._replace(position=6)])
    assert isinstance(step(MOVE_A, FENCED_P, reports=behind), Wait)
    assert "nobody may serve" in status_of(step(MOVE_A, FENCED_P, reports=behind, now=LATE))["message"]
    status = status_of(step(MOVE_A, FENCED_P, reports=reports(w1=[AT_FENCE], w2=[ARRIVED])))
    assert status["phase"] == "Committed" and status["move"] == {
        "status": "proxying",
        "fromPod": "proxy",
        "toPod": "primary",
    }
    assert [(each["primary"], each["epoch"]) for each in status["results"]] == [("w2", 3)]


def test_a_follower_in_sync_is_called_up_and_no_other() -> None:
    of = part(primary="w1", epoch=2, claimedBy="a", fencedBy="a", fencedAt=STAMP, followers=["w2"])
    follower = ARRIVED._replace(assignment="", uid="")
    assert status_of(step(MOVE_A, of, reports=reports(w1=LOST, w2=[follower])))["phase"] == "Committed"
    for copy in (ARRIVED, follower._replace(role=LOADING)):
        assert status_of(step(MOVE_A, of, reports=reports(w1=LOST, w2=[copy])))["phase"] == "Aborting"
    alone = part(primary="w1", epoch=2, claimedBy="a", fencedBy="a", fencedAt=STAMP, followers=["w3"])
    assert status_of(step(MOVE_A, alone, reports=reports(w1=LOST, w2=[follower])))["phase"] == "Aborting"


def test_a_split_cuts_and_a_merge_joins_above_all_epochs() -> None:
    split = status_of(step(SPLIT_A, FENCED_P, reports=reports(w1=[AT_FENCE])))
    assert split["supersedes"] == ["p"] and [each["epoch"] for each in split["results"]] == [3, 3]
    assert [each["range"] for each in split["results"]] == [{"start": "", "end": "m"}, {"start": "m", "end": ""}]
    assert split["results"][0]["sources"] == [{"partition": "p", "epoch": 2}]
    low = part("p", "", "m", primary="w1", epoch=2, claimedBy="a", fencedBy="a", fencedAt=STAMP)
    high = part("q", "m", "", primary="w1", epoch=9, claimedBy="a", fencedBy="a", fencedAt=STAMP)
    copies = [AT_FENCE._replace(range=Range("", "m")), AT_FENCE._replace(partition="q", fenced_epoch=9)]
    merge = status_of(step(MERGE_A, low, high, reports=reports(w1=copies)))
    assert merge["supersedes"] == ["p", "q"]
    assert [(each["epoch"], each["range"]) for each in merge["results"]] == [(10, {"start": "", "end": ""})]


def test_who_is_to_split_prepares_first() -> None:
    copy = Copy("p", WHOLE, PRIMARY, 1)
    assert step(SPLIT_A, CLAIMED, reports=reports(w1=[copy])).verb == "prepare"
    assert step(SPLIT_A, CLAIMED, reports=reports(w1=[copy._replace(prepared="u")])).fences


# ------------------------------------------------------------------------------------------ after the commit

MOVED_STATUS = {
    "phase": "Committed",
    "committedAt": STAMP,
    "results": [{"partition": "p", "range": {"start": "", "end": ""}, "primary": "w2", "epoch": 3}],
    "supersedes": [],
}
COMMITTED_A = {**MOVE_A, "status": MOVED_STATUS}
SETTLED = part(primary="w2", epoch=3, claimedBy="a", proxy="w1")
TAKEN = Copy("p", WHOLE, PRIMARY, 3, 0, 7)


def test_a_move_is_settled_confirmed_passed_on_and_released() -> None:
    spec = spec_of(step(COMMITTED_A, FENCED_P))
    assert (spec["primary"], spec["proxy"], spec["fencedBy"], spec["claimedBy"]) == ("w2", "w1", "", "a")
    promote = step(COMMITTED_A, SETTLED, reports=reports(w2=[ARRIVED]))
    assert (promote.worker, promote.verb) == ("w2", "promote")
    proxy = step(COMMITTED_A, SETTLED, reports=reports(w1=[AT_FENCE], w2=[TAKEN]))
    assert (proxy.worker, proxy.verb, proxy.body["to"]) == ("w1", "proxy", {"worker": "w2"})
    passing = reports(w1=[AT_FENCE._replace(role=PROXY)], w2=[TAKEN])
    assert isinstance(step(COMMITTED_A, SETTLED, reports=passing), Wait)
    assert step(COMMITTED_A, SETTLED, reports=passing, now=NOW + 6).verb == "drop"
    spec = spec_of(step(COMMITTED_A, SETTLED, reports=reports(w1=[], w2=[TAKEN])))
    assert (spec["proxy"], spec["claimedBy"], spec["epoch"]) == ("", "", 3)


def test_it_is_completed_also_when_the_partition_has_gone_on() -> None:
    ready = {**part(primary="w3", epoch=9), "status": {"phase": "Ready"}}
    assert status_of(step(COMMITTED_A, ready))["phase"] == "Completed"
    assert status_of(step(COMMITTED_A, missing="p"))["move"]["fromPod"] == "disconnected"


def test_a_new_owner_that_is_lost_is_waited_for_so_long() -> None:
    lost = reports(w1=[], w2=LOST)
    assert isinstance(step(COMMITTED_A, SETTLED, reports=lost), Wait)
    assert spec_of(step(COMMITTED_A, SETTLED, reports=lost, now=LATE))["claimedBy"] == ""
    assert isinstance(step(COMMITTED_A, SETTLED, reports=reports(w1=[], w2=UNREACHABLE), now=LATE), Wait)


def test_a_split_makes_its_results_and_removes_what_it_supersedes() -> None:
    status = status_of(step(SPLIT_A, FENCED_P, reports=reports(w1=[AT_FENCE])))
    committed, names = {**SPLIT_A, "status": status}, [each["partition"] for each in status["results"]]
    assert step(committed) == ReadPartitions(tuple(sorted(["p", *names])))
    made = operations.next_step(committed, Seen(SPACE, {"p": FENCED_P, **dict.fromkeys(names)}), NOW, STAMP)
    assert [name_of(each) for each in each_of(made)] == names
    for each in each_of(made):
        assert isinstance(each, Make) and each.desired["spec"]["madeBy"] == "a" and each.desired["spec"]["epoch"] == 3
    parts = [{**part(name, epoch=3, primary="w1"), "status": {"phase": "Ready"}} for name in names]
    copies = [Copy(name, WHOLE, PRIMARY, 3) for name in names]
    removed = step(committed, FENCED_P, *parts, reports=reports(w1=copies))
    assert removed == Remove(FENCED_P)
    assert status_of(step(committed, *parts, missing="p", reports=reports(w1=copies)))["phase"] == "Completed"


# ------------------------------------------------------------------------------------------ many at once


COUNT = 100
NAMES = [f"p{number:02}" for number in range(COUNT)]
CUTS = ["", *(f"{number:02}" for number in range(1, COUNT)), ""]
MANY = make(NEW, partitions=[{"partition": name, "primary": f"w{at % 3}"} for at, name in enumerate(NAMES)])


def many(**spec: Any) -> list[Any]:
    return [part(name, CUTS[at], CUTS[at + 1], **spec) for at, name in enumerate(NAMES)]


def loaded(role: str, epoch: int = 0) -> dict[str, Any]:
    """Reports, in which each worker has what it is to have."""
    copies = [Copy(name, Range(CUTS[at], CUTS[at + 1]), role, epoch, uid="u") for at, name in enumerate(NAMES)]
    return reports(**{f"w{number}": copies[number::3] for number in range(3)})


def test_a_batch_takes_as_many_steps_as_one() -> None:
    claims = each_of(step(MANY, *many()))
    assert [name_of(each) for each in claims] == NAMES
    claimed = many(claimedBy="a")
    assert step(MANY, *claimed) == Survey(tuple(NAMES))
    surveyed: dict[str, Any] = {"overlapping": ()}
    assert step(MANY, *claimed, **surveyed) == Ask(("w0", "w1", "w2"))
    empty = reports(w0=[], w1=[], w2=[])
    calls = each_of(step(MANY, *claimed, reports=empty, **surveyed))
    assert [(each.worker, each.verb, each.body["partition"]) for each in calls] == [
        (f"w{at % 3}", "follow", name) for at, name in enumerate(NAMES)
    ]
    committed = {**MANY, "status": status_of(step(MANY, *claimed, reports=loaded(FOLLOWING), **surveyed))}
    assert committed["status"]["phase"] == "Committed"
    assert step(committed, *claimed) == Ask(("w0", "w1", "w2"))
    promotions = each_of(step(committed, *claimed, reports=loaded(FOLLOWING)))
    assert [(each.verb, each.body["partition"]) for each in promotions] == [("promote", name) for name in NAMES]
    served = loaded(PRIMARY, 1)
    assert len(each_of(step(committed, *claimed, reports=served))) == COUNT
    released = many(primary="w", epoch=1)
    assert [each.subresource for each in each_of(step(committed, *released, reports=served))] == ["status"] * COUNT


def test_one_that_is_lost_undoes_a_batch_before_the_others_are_called() -> None:
    seen = {**reports(w0=[], w1=[], w2=LOST)}
    status = status_of(step(MANY, *many(claimedBy="a"), reports=seen, overlapping=()))
    assert status["phase"] == "Aborting" and "w2 is lost" in status["message"]


def test_one_that_does_not_answer_keeps_nobody_from_the_others() -> None:
    seen = {**reports(w0=[], w1=[], w2=UNREACHABLE)}
    calls = each_of(step(MANY, *many(claimedBy="a"), reports=seen, overlapping=()))
    assert {each.worker for each in calls} == {"w0", "w1"} and len(calls) == 67


# ------------------------------------------------------------------------------------------ the way back


def test_deleting_aborts_until_it_is_committed() -> None:
    assert status_of(step(make(MOVE, going=True, **MOVED)))["phase"] == "Aborting"
    going = {**COMMITTED_A, "metadata": {**COMMITTED_A["metadata"], "deletionTimestamp": STAMP}}
    assert spec_of(step(going, FENCED_P))["primary"] == "w2"


def test_an_abort_releases_with_a_higher_epoch_and_tells_the_workers() -> None:
    aborting = {**MOVE_A, "status": {"phase": "Aborting", "message": "why"}}
    spec = spec_of(step(aborting, FENCED_P))
    assert (spec["claimedBy"], spec["fencedBy"], spec["epoch"], spec["primary"]) == ("", "", 3, "w1")
    assert spec_of(step(aborting, CLAIMED))["epoch"] == 1
    free = part(primary="w1", epoch=3)
    both = step(aborting, free, reports=reports(w1=[AT_FENCE], w2=[ARRIVED]))
    assert [(each.worker, each.verb) for each in each_of(both)] == [("w2", "drop"), ("w1", "resume")]
    resume = step(aborting, free, reports=reports(w1=[AT_FENCE], w2=[]))
    assert (resume.worker, resume.verb) == ("w1", "resume")
    status = status_of(step(aborting, free, reports=reports(w1=[], w2=[])))
    assert (status["phase"], status["message"]) == ("Aborted", "why")


def test_a_merge_with_what_nobody_serves_is_aborted_to_the_end() -> None:
    aborting = {**MERGE_A, "status": {"phase": "Aborting"}}
    assert status_of(step(aborting, part(end="m"), part("q", "m")))["phase"] == "Aborted"


@pytest.mark.parametrize("phase", ["Completed", "Aborted"])
def test_what_is_over_rests_but_for_late_claims_and_goes_when_it_is_to_go(phase: str) -> None:
    over = {**MOVE_A, "status": {"phase": phase}}
    assert step(over, SERVED) == Done()
    assert spec_of(step(over, FENCED_P))["claimedBy"] == "" and spec_of(step(over, FENCED_P))["epoch"] == 3
    going = {**over, "metadata": {**over["metadata"], "deletionTimestamp": STAMP}}
    assert step(going, SERVED).desired["metadata"]["finalizers"] == []

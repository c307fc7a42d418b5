# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reconciler between an API server in memory and workers that decide by the real functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import (
    Range,
    Space,
    even_cuts,
    overlaps,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import FINAL
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import FOLLOWING, PRIMARY
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.partition_memory import Killed, Reign, Site
from muster.dstk.reconciler import FULL_SECONDS, _overlapping
from muster.dstk.workers import Unreachable
from muster.frame.authority import Superseded

Object = dict[str, Any]


def moving() -> tuple[Site, str]:
    site = Site("w-0", "w-1")
    site.served("p", "w-0")
    site.assignment("a", "InterWorkerMove", partition="p", **{"from": "w-0", "to": "w-1"})
    return site, "a"


def splitting() -> tuple[Site, str]:
    site = Site("w-0")
    site.served("p", "w-0")
    site.assignment("a", "InWorkerSplit", partition="p", splitKey="m")
    return site, "a"


def merging() -> tuple[Site, str]:
    site = Site("w-0")
    site.served("p", "w-0", "", "m")
    site.served("q", "w-0", "m", "")
    site.assignment("a", "InWorkerMerge", partitions=["p", "q"])
    return site, "a"


def giving() -> tuple[Site, str]:
    site = Site("w-0", "w-1")
    site.partition("p", "", "m")
    site.partition("q", "m", "")
    listed = [{"partition": "p", "primary": "w-0"}, {"partition": "q", "primary": "w-1"}]
    site.assignment("a", "New", partitions=listed)
    return site, "a"


def calling_up() -> tuple[Site, str]:
    """The primary is dead, and its follower in sync."""
    site = Site("w-0", "w-1")
    site.served("p", "w-0", followers=["w-1"])
    copy = site.workers["w-0"].copies["p"]
    site.workers["w-1"].copies["p"] = copy._replace(role=FOLLOWING, origin="w-0")
    site.workers["w-0"].is_cut_off = True
    site.release("w-0")
    site.assignment("a", "InterWorkerMove", partition="p", **{"from": "w-0", "to": "w-1"})
    return site, "a"


WORLDS: dict[str, Callable[[], tuple[Site, str]]] = {
    "move": moving,
    "split": splitting,
    "merge": merging,
    "new": giving,
    "call up": calling_up,
}


def judge(site: Site, phase: str) -> None:
    """It is over; the view is exact, nothing is claimed, fenced, or left behind, and each partition served once."""
    assert phase in FINAL
    view = site.view()
    assert not view.gaps and not view.void, view
    for obj in site.listed(PARTITIONS):
        spec = obj["spec"]
        assert not spec.get("claimedBy") and not spec.get("fencedBy") and not spec.get("proxy"), spec
    alive = {name for name, worker in site.workers.items() if not worker.is_cut_off}
    for name in alive:
        site.workers[name].look()
    serving = {name: sorted(alive.intersection(who)) for name, who in site.serving().items()}
    served = {fact.partition: [fact.primary] for fact in view.facts if fact.primary in alive}
    assert {name: who for name, who in serving.items() if who} == served
    for name in alive:
        for copy in site.workers[name].copies.values():
            assert copy.role == PRIMARY or phase == "Aborted", copy


@pytest.mark.parametrize("world", WORLDS)
def test_it_is_carried_out(world: str) -> None:
    site, name = WORLDS[world]()
    assert site.go(name) == "Completed"
    judge(site, "Completed")
    assert [reason for reason, _message in site.told] == ["Committed", "Completed"]


@pytest.mark.parametrize("world", WORLDS)
def test_it_is_carried_out_by_several_threads(world: str) -> None:
    site, name = WORLDS[world]()
    assert site.go(name, site.reconciler(at_once=4)) == "Completed"
    judge(site, "Completed")


def many(count: int) -> tuple[Site, str]:
    """One Assignment that gives so many partitions to three workers."""
    site, space = Site("w-0", "w-1", "w-2"), Space("default", 4)
    pairs = []
    for number, cut in enumerate(even_cuts(space, Range("", ""), count)):
        name = f"p-{number:03}"
        site.partition(name, cut.start, cut.end)
        pairs.append({"partition": name, "primary": f"w-{number % 3}"})
    site.assignment("a", "New", partitions=pairs)
    return site, "a"


def test_a_batch_costs_what_its_partitions_cost_and_is_decided_on_no_more_often_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    effects, decisions = [], []
    real = operations.next_step

    def counted(*what: Any) -> Any:
        decisions[-1] += 1
        return real(*what)

    monkeypatch.setattr(operations, "next_step", counted)
    for count in (1, 100):
        site, name = many(count)
        decisions.append(0)
        assert site.go(name, site.reconciler(at_once=4)) == "Completed"
        judge(site, "Completed")
        effects.append(len(site.effects))
    own = 2  # that it is decided, and over
    assert effects == [own + 5, own + 5 * 100] and decisions[0] == decisions[1]


def test_what_one_of_several_threads_finds_ends_the_step_and_all_is_read_anew() -> None:
    """A Partition is written by somebody else while the others are claimed."""
    site, name = many(20)
    meddled = []

    def meddle(what: str) -> None:
        if what.startswith("replace Partition") and not meddled:
            meddled.append(what)
            obj = site.api.get(PARTITIONS, "p-019", "ns")
            obj["metadata"]["labels"]["own"] = "mark"
            site.api.replace(PARTITIONS, obj)

    site.after_effect = meddle
    assert site.go(name, site.reconciler(at_once=4)) == "Completed"
    judge(site, "Completed")
    assert meddled and site.api.get(PARTITIONS, "p-019", "ns")["metadata"]["labels"]["own"] == "mark"


def test_a_term_that_ends_within_a_step_of_several_ends_it() -> None:
    site, name = many(20)
    with pytest.raises(Superseded):
        site.reconciler(at_once=4).reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign(5))
    assert len(site.effects) < 20
    assert site.go(name) == "Completed"
    judge(site, "Completed")


def test_two_batches_of_the_same_partitions_do_not_wait_for_one_another_for_ever() -> None:
    """Each has claimed one of two, as two reconcilers may have done at the same time."""
    site, name = giving()
    pairs = site.api.get(ASSIGNMENTS, name, "ns")["spec"]["newParams"]["partitions"]
    site.assignment("b", "New", partitions=pairs)
    for partition, claimant in (("p", "b"), ("q", "a")):
        obj = site.api.get(PARTITIONS, partition, "ns")
        site.api.replace(PARTITIONS, {**obj, "spec": {**obj["spec"], "claimedBy": claimant}})
    one, other = site.reconciler(), site.reconciler()
    for _turn in range(4):
        for reconciler, each in ((one, "a"), (other, "b")):
            reconciler.reconcile(site.api.get(ASSIGNMENTS, each, "ns"), Reign())
            site.sleep(1.0)
    assert sorted((site.phase("a"), site.phase("b"))) == ["Aborted", "Completed"]
    judge(site, "Completed")


@pytest.mark.parametrize("world", ["move", "split", "merge"])
def test_what_was_written_is_at_the_new_owner(world: str) -> None:
    site, name = WORLDS[world]()
    acknowledged = []

    def write(_what: str) -> None:
        for worker in site.workers.values():
            acknowledged.extend(worker.write())

    site.after_effect = write
    site.go(name)
    assert acknowledged
    facts = site.view().facts
    last = {fact.partition: site.workers[fact.primary].copies[fact.partition].position for fact in facts}
    assert min(last.values()) >= 5 + acknowledged.count("p")


def effects_of(world: str) -> list[str]:
    site, name = WORLDS[world]()
    site.go(name)
    return site.effects


def each_point() -> list[tuple[str, int]]:
    return [(world, at) for world in WORLDS for at in range(len(effects_of(world)))]


def killed_at(site: Site, *points: int) -> None:
    """Each reconciler ends after that effect."""
    left = list(points)

    def kill(_what: str) -> None:
        if left and len(site.effects) - 1 >= left[0]:
            left.pop(0)
            raise Killed

    site.after_effect = kill


def live_on(site: Site, name: str) -> str:
    """One reconciler after the other, until it is over."""
    for _life in range(20):
        try:
            return site.go(name)
        except Killed:
            site.sleep(0.5)
    raise AssertionError("no reconciler lived to its end")


@pytest.mark.parametrize(("world", "at"), each_point())
def test_killed_after_each_effect_another_goes_on(world: str, at: int) -> None:
    site, name = WORLDS[world]()
    killed_at(site, at)
    judge(site, live_on(site, name))


@pytest.mark.parametrize("world", WORLDS)
def test_killed_at_each_pair_of_effects_another_goes_on(world: str) -> None:
    count = len(effects_of(world))
    for first in range(count):
        for second in range(first, count + 4):
            site, name = WORLDS[world]()
            killed_at(site, first, second)
            judge(site, live_on(site, name))


@pytest.mark.parametrize(("world", "at"), each_point())
def test_killed_so_that_the_budget_is_over_before_another_goes_on(world: str, at: int) -> None:
    site, name = WORLDS[world]()
    killed_at(site, at)
    for _life in range(3):
        try:
            judge(site, site.go(name))
            return
        except Killed:
            site.sleep(30.0)
            for worker in site.workers.values():
                if not worker.is_cut_off:
                    site.renew(worker.name)
    raise AssertionError("no reconciler lived to its end")


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("fault", ["lost", "lost-applied", "409"])
def test_each_write_is_lost_once(world: str, fault: str) -> None:
    writes = [what.partition(" ")[0] for what in effects_of(world)]
    kinds = [what for what in writes if what in ("create", "replace", "delete")]
    for at in range(len(kinds)):
        site, name = WORLDS[world]()
        told = [0]
        kind = kinds[at]

        def fail(_what: str, site: Site = site, told: list[int] = told, kind: str = kind, at: int = at) -> None:
            told[0] += 1
            if told[0] == at + 1:
                site.api.faults = [f"{kind} {fault}"]

        site.api.before_write = fail
        judge(site, site.go(name))
        assert not site.api.faults


def test_without_a_term_nothing_is_done() -> None:
    site, name = moving()
    for checks in range(20):
        site, name = moving()
        try:
            while site.phase(name) not in FINAL:
                obj = site.api.get(ASSIGNMENTS, name, "ns")
                site.reconciler().reconcile(obj, Reign(checks))
        except Superseded:
            pass
        assert len([what for what in site.effects]) <= checks + 3  # a hint to several goes under one
        judge(site, live_on(site, name))


def test_a_dead_target_is_given_up_and_the_source_serves_on() -> None:
    site, name = moving()
    site.workers["w-1"].is_cut_off = True
    site.release("w-1")
    assert site.go(name) == "Aborted"
    judge(site, "Aborted")
    assert site.serving() == {"p": ["w-0"]}
    assert "is lost" in site.api.get(ASSIGNMENTS, name, "ns")["status"]["message"]


def test_a_target_that_does_not_answer_is_waited_for_until_loading_is_over() -> None:
    site, name = moving()
    site.workers["w-1"].is_cut_off = True
    reconciler = site.reconciler()
    for _turn in range(30):
        site.renew("w-1")
        site.sees(reconciler._workers, "w-1")
        again = reconciler.reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign())
        assert again is not None
        site.sleep(again)
    assert site.phase(name) == "Loading"
    site.sleep(601)
    site.renew("w-1")
    assert site.go(name) == "Aborted"
    judge(site, "Aborted")


def test_a_source_that_dies_in_fencing_is_not_taken_for_fenced() -> None:
    """It is in its Lease still: nothing is concluded; over the budget it is undone, and the source serves again."""
    site, name = moving()

    def cut(what: str) -> None:
        spec = site.spec("p")
        if spec.get("fencedBy") and "Partition" in what:
            site.workers["w-0"].is_cut_off = True

    site.after_effect = cut
    assert site.go(name) == "Aborted"
    site.after_effect = lambda what: None
    site.workers["w-0"].is_cut_off = False
    judge(site, "Aborted")


def test_silence_is_no_loss_before_the_lease_and_a_second_are_over() -> None:
    site, name = calling_up()
    site.api.objects.pop(("leases", "ns", "default.w-0"))
    site.lease("w-0")  # it was not released: it is only silent
    site.find(KEY_SPACES, "default")["spec"]["fenceSeconds"] = 30  # type: ignore[index]
    reconciler = site.reconciler()
    began = site.monotonic
    decided: list[float] = []

    def note(what: str) -> None:
        if what.endswith("Committed"):
            decided.append(site.monotonic - began)

    def sleep(seconds: float) -> None:
        """The target renews its Lease meanwhile."""
        site.sleep(seconds)
        site.renew("w-1")
        site.sees(reconciler._workers, "w-1")

    site.after_effect = note
    reconciler._sleep = sleep
    while site.phase(name) not in FINAL:
        sleep(reconciler.reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign()) or 0.1)
    assert site.phase(name) == "Completed", site.find(ASSIGNMENTS, name)
    assert 7.0 <= decided[0] < 20.0


def test_a_lease_that_was_renewed_in_the_store_is_not_over_whatever_the_cache_shows() -> None:
    site = Site("w-0")
    workers = site.watch()
    site.sleep(20)
    site.renew("w-0")  # which no watch has brought
    assert workers.standing("ns", "default", "w-0").silent is not None
    assert not workers.is_lost("ns", "default", "w-0")
    assert workers.standing("ns", "default", "w-0").silent is None
    site.sleep(20)
    assert workers.is_lost("ns", "default", "w-0")


def test_a_missing_lease_says_nothing_for_its_time() -> None:
    site = Site("w-0")
    workers = site.watch()
    site.api.objects.pop(("leases", "ns", "default.w-0"))
    site.sees(workers, "w-0")
    site.sleep(6.5)
    assert not workers.is_lost("ns", "default", "w-0")
    site.sleep(1)
    assert workers.is_lost("ns", "default", "w-0")


def test_of_many_only_so_many_go_on_at_once() -> None:
    site = Site("w-0", "w-1", operations=1)
    site.served("p", "w-0", "", "m")
    site.served("q", "w-0", "m", "")
    for name, partition in (("a", "p"), ("b", "q")):
        site.assignment(name, "InterWorkerMove", partition=partition, **{"from": "w-0", "to": "w-1"})
    site.workers["w-1"].is_cut_off = True
    reconciler = site.reconciler()
    woken: list[str] = []
    reconciler.wake = woken.append

    def look(name: str) -> float | None:
        obj = site.api.get(ASSIGNMENTS, name, "ns")
        reconciler.changed(f"ns/{name}", obj)
        again = reconciler.reconcile(obj, Reign())
        reconciler.changed(f"ns/{name}", site.api.get(ASSIGNMENTS, name, "ns"))
        return again

    for name in ("a", "b"):
        reconciler.changed(f"ns/{name}", site.api.get(ASSIGNMENTS, name, "ns"))
    look("a")
    assert site.phase("a") == "Loading"
    assert look("b") == FULL_SECONDS and not site.spec("q").get("claimedBy")
    site.workers["w-1"].is_cut_off = False
    while site.phase("a") not in FINAL:
        look("a")
    assert woken and set(woken) == {"ns/b"}
    while site.phase("b") not in FINAL:
        look("b")
    judge(site, site.phase("b"))


def test_two_on_one_partition_come_one_after_the_other() -> None:
    site, _name = moving()
    site.assignment("b", "InWorkerSplit", partition="p", splitKey="m")
    site.workers["w-1"].is_cut_off = True
    reconciler = site.reconciler()
    reconciler.reconcile(site.api.get(ASSIGNMENTS, "a", "ns"), Reign())
    again = reconciler.reconcile(site.api.get(ASSIGNMENTS, "b", "ns"), Reign())
    assert again and "part of a" in site.api.get(ASSIGNMENTS, "b", "ns")["status"]["message"]
    site.workers["w-1"].is_cut_off = False
    assert site.go("a", reconciler) == "Completed"
    assert site.go("b", reconciler) == "Completed"
    judge(site, "Completed")


def test_what_is_over_is_kept_for_a_while_and_then_deleted() -> None:
    site, name = splitting()
    reconciler = site.reconciler(keep_seconds=600)
    assert site.go(name, reconciler) == "Completed"
    again = reconciler.reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign())
    assert again is not None and 60 < again <= 600
    before = len(site.api.requests)
    assert reconciler.reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign()) is not None
    assert len(site.api.requests) == before + 1  # the get of this test: what it wrote itself is no news
    site.sleep(again + 1)
    reconciler.reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign())
    obj = site.api.get(ASSIGNMENTS, name, "ns")
    assert "deletionTimestamp" in obj["metadata"]
    assert reconciler.reconcile(obj, Reign()) is None
    assert site.find(ASSIGNMENTS, name) is None


def test_deleted_before_it_is_decided_it_is_undone() -> None:
    site, name = moving()
    site.workers["w-1"].is_cut_off = True
    reconciler = site.reconciler()
    reconciler.reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign())
    site.api.delete(ASSIGNMENTS, name, "ns")
    site.workers["w-1"].is_cut_off = False
    assert reconciler.reconcile(site.api.get(ASSIGNMENTS, name, "ns"), Reign()) is None
    assert site.find(ASSIGNMENTS, name) is None
    judge(site, "Aborted")
    assert site.serving() == {"p": ["w-0"]}


def test_two_new_partitions_of_one_batch_that_overlap_are_refused() -> None:
    site = Site("w-0")
    site.partition("p", "", "n")
    site.partition("q", "m", "")
    listed = [{"partition": "p", "primary": "w-0"}, {"partition": "q", "primary": "w-0"}]
    site.assignment("a", "New", partitions=listed)
    assert site.go("a") == "Aborted"
    assert "overlaps" in site.api.get(ASSIGNMENTS, "a", "ns")["status"]["message"]
    assert site.serving() == {}


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 4), st.booleans()), max_size=8))
def test_what_overlaps_is_found_as_by_a_look_at_each_pair(cuts: list[tuple[int, int, bool]]) -> None:
    def bound(at: int) -> str:
        return "" if at in (0, 8) else str(at)

    ranges = {
        f"p{number}": Range(bound(at), bound(min(8, at + width))) for number, (at, width, _own) in enumerate(cuts)
    }
    own = {f"p{number}": ranges[f"p{number}"] for number, cut in enumerate(cuts) if cut[2]}
    listed = [
        {"metadata": {"name": name}, "spec": {"range": {"start": of.start, "end": of.end}}}
        for name, of in ranges.items()
    ]
    wanted = {
        name for name, of in ranges.items() if any(other != name and overlaps(of, at) for other, at in own.items())
    }
    assert {obj["metadata"]["name"] for obj in _overlapping(listed, own)} == wanted


def test_a_worker_that_another_answers_for_is_not_there() -> None:
    site, _name = moving()
    with pytest.raises(Unreachable):
        site.copies("w-0", "http://w-1.example")

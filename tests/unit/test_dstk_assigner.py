# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The assigner and the reconciler together, at an API server in memory, with workers that use the real functions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import FOLLOWING
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.partition_memory import Reign, Site
from muster.dstk.assigner import Index, KeySpaces

Object = dict[str, Any]
KEY = "ns/default"


class Both:
    """A key space with an assigner and a reconciler, which see what there is whenever they look."""

    def __init__(self, *workers: str, **space: Any) -> None:
        self.site = Site(*workers, **space)
        self.reconciler = self.site.reconciler()
        self.start()

    def start(self) -> None:
        """Another assigner."""
        api: Any = self.site.api
        client: Any = self.site
        self.partitions, self.assignments = Index(api, PARTITIONS, "ns"), Index(api, ASSIGNMENTS, "ns")
        self.workers = self.site.watch()
        for cache in (self.partitions.cache, self.assignments.cache, self.workers.cache):
            cache.synced.set()
        self.assigner = KeySpaces(
            api,
            self.workers,
            client,
            self.partitions,
            self.assignments,
            self.site._tell,
            clock=lambda: self.site.monotonic,
            sleep=self.site.sleep,
        )

    def cut(self, count: int) -> None:
        for number, part in enumerate(keyspace.even_cuts(Space("default", 4), Range("", ""), count)):
            self.site.partition(f"p{number}", part.start, part.end)

    def hear(self) -> None:
        """All watches bring what there is."""
        for index, resource in ((self.partitions, PARTITIONS), (self.assignments, ASSIGNMENTS)):
            there = {obj["metadata"]["name"]: obj for obj in self.site.listed(resource)}
            for name in set(index.of(KEY)) - set(there):
                index._note(f"ns/{name}", None)
            for name, obj in there.items():
                if index.of(KEY).get(name) != obj:
                    index._note(f"ns/{name}", self.site.api.get(resource, name, "ns"))
        for watch in (self.workers, self.reconciler._workers):
            for name, worker in self.site.workers.items():
                if not worker.is_cut_off:
                    self.site.renew(name)
                self.site.sees(watch, name)

    def look(self) -> float | None:
        self.hear()
        return self.assigner.reconcile(self.site.api.get(KEY_SPACES, "default", "ns"), Reign())

    def live(self, turns: int = 40) -> None:
        """Both go on until nothing changes."""
        for _turn in range(turns):
            self.look()
            for obj in self.site.listed(ASSIGNMENTS):
                if not operations.is_final(obj):
                    self.site.go(obj["metadata"]["name"], self.reconciler, turns=3)
            self.site.sleep(1.0)

    def lose(self, worker: str) -> None:
        self.site.workers[worker].is_cut_off = True
        self.site.release(worker)

    def counts(self) -> Counter[str]:
        return Counter(fact.primary for fact in self.site.view().facts)

    def status(self) -> Object:
        found: Object = self.site.api.get(KEY_SPACES, "default", "ns")["status"]
        return found

    def condition(self, kind: str) -> Object:
        (found,) = (one for one in self.status()["conditions"] if one["type"] == kind)
        return dict(found)


def test_from_nothing_all_is_served_evenly_and_the_status_says_so() -> None:
    both = Both("w-0", "w-1", "w-2")
    both.cut(7)
    both.live()
    assert sorted(both.counts().values()) == [2, 2, 3]
    told = both.status()
    shown = {name: told[name] for name in ("partitions", "unserved", "workers", "operations", "covered", "message")}
    assert shown == {"partitions": 7, "unserved": 0, "workers": 3, "operations": 0, "covered": True, "message": ""}
    assert both.condition("Served")["status"] == both.condition("Covered")["status"] == "True"
    before = len(both.site.api.requests)
    for _look in range(5):
        both.look()
    written = [what for what in both.site.api.requests[before:] if what.startswith(("replace", "create", "delete"))]
    assert set(written) <= {f"replace leases/default.w-{number}" for number in range(3)}


def test_two_assigners_ask_for_the_same_once() -> None:
    both = Both("w-0")
    both.cut(3)
    both.look()
    both.start()
    both.assigner.reconcile(both.site.api.get(KEY_SPACES, "default", "ns"), Reign())  # it has heard of nothing yet
    both.look()
    assert len(both.site.listed(ASSIGNMENTS)) == 1


def test_a_leaving_worker_is_drained() -> None:
    both = Both("w-0", "w-1")
    both.cut(4)
    both.live()
    both.site.renew("w-0", leaving="true")
    both.live()
    assert both.counts() == {"w-1": 4}
    assert both.site.workers["w-0"].copies == {}


def test_a_lost_worker_without_followers_is_told_and_comes_back() -> None:
    both = Both("w-0", "w-1", lostAfterSeconds=10)
    both.cut(2)
    both.live()
    both.lose("w-0")
    both.live(5)
    assert both.status()["unserved"] == 1 and "waited for" in both.status()["message"]
    assert not any((obj.get("status") or {}).get("phase") == "Unserved" for obj in both.site.listed(PARTITIONS))
    both.live(15)
    (given_up,) = (obj for obj in both.site.listed(PARTITIONS) if obj["status"]["phase"] == "Unserved")
    assert given_up["spec"]["primary"] == "w-0" and given_up["status"]["conditions"][0]["reason"] == "WorkerLost"
    assert both.condition("Served")["status"] == "False"
    assert [reason for reason, _message in both.site.told].count("Unserved") == 1
    both.site.workers["w-0"].is_cut_off = False
    lease = both.site.api.get(*_lease("w-0"))
    lease["spec"]["holderIdentity"] = "w-0/2"
    both.site.api.replace(_lease("w-0")[0], lease)
    both.live(5)
    assert {obj["status"]["phase"] for obj in both.site.listed(PARTITIONS)} == {"Ready"}
    assert both.site.told[-1][0] == "Served" and both.status()["unserved"] == 0


def _lease(worker: str) -> tuple[Any, str, str]:
    from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES

    return LEASES, f"default.{worker}", "ns"


def test_without_the_right_to_write_at_partitions_the_rest_is_done_all_the_same() -> None:
    both = Both("w-0", "w-1", lostAfterSeconds=1)
    both.cut(2)
    both.live()
    both.lose("w-0")
    both.site.sleep(5)
    both.look()
    both.site.sleep(5)
    both.site.api.faults = ["replace 403"]
    held = both.site.api.replace

    def fails(resource: Any, obj: Any, subresource: str = "", **further: Any) -> Any:
        if resource == PARTITIONS:
            return held(resource, obj, subresource, **further)
        faults, both.site.api.faults = both.site.api.faults, []
        try:
            return held(resource, obj, subresource, **further)
        finally:
            both.site.api.faults = faults

    both.site.api.replace = fails  # type: ignore[method-assign]
    both.look()
    assert both.site.api.faults == []
    assert both.status()["unserved"] == 1
    assert "not allowed" in both.assigner.pages()["/state"]({})[1][KEY]["trouble"]


def test_followers_are_kept_and_called_up() -> None:
    both = Both("w-0", "w-1", "w-2", followers=1, lostAfterSeconds=3)
    both.cut(3)
    both.live()
    for obj in both.site.listed(PARTITIONS):
        (follower,) = obj["spec"]["followers"]
        assert follower != obj["spec"]["primary"]
        assert both.site.workers[follower].copies[obj["metadata"]["name"]].role == FOLLOWING
    for worker in both.site.workers.values():
        worker.write()
    for worker in both.site.workers.values():
        worker.load()
    owned = {name: who[0] for name, who in both.site.serving().items()}
    positions = {name: both.site.workers[who].copies[name].position for name, who in owned.items()}
    (lost,) = (name for name, who in owned.items() if who == "w-0")
    both.lose("w-0")
    both.live()
    assert sorted(both.counts().values()) == [1, 2] and both.counts()["w-0"] == 0
    heir = both.site.spec(lost)["primary"]
    assert both.site.workers[heir].copies[lost].position >= positions[lost]
    for obj in both.site.listed(PARTITIONS):
        assert obj["spec"]["followers"] == [{"w-1": "w-2", "w-2": "w-1"}[obj["spec"]["primary"]]]


def test_followers_are_let_go_and_their_copies_with_them() -> None:
    both = Both("w-0", "w-1", followers=1)
    both.cut(2)
    both.live()
    obj = both.site.api.get(KEY_SPACES, "default", "ns")
    obj["spec"]["followers"] = 0
    both.site.api.replace(KEY_SPACES, obj)
    both.live()
    for partition in both.site.listed(PARTITIONS):
        assert not partition["spec"].get("followers")
    assert {name for worker in both.site.workers.values() for name in worker.copies} == {"p0", "p1"}
    assert sum(len(worker.copies) for worker in both.site.workers.values()) == 2


def test_a_worker_that_follows_what_it_is_to_get_is_let_go_first() -> None:
    both = Both("w-0", "w-1", followers=1)
    both.cut(2)
    both.live()
    both.site.renew("w-0", leaving="true")
    both.live()
    assert both.counts() == {"w-1": 2}
    assert not both.site.workers["w-0"].copies


def test_what_may_be_loaded_anew_begins_elsewhere_with_nothing() -> None:
    both = Both("w-0", "w-1", reload=True, lostAfterSeconds=3)
    both.cut(2)
    both.live()
    both.lose("w-0")
    both.live()
    assert both.counts() == {"w-1": 2}


def test_a_void_claim_is_released() -> None:
    both = Both("w-0")
    both.cut(1)
    both.live()
    obj = both.site.api.get(PARTITIONS, "p0", "ns")
    obj["spec"] |= {"claimedBy": "nobody", "fencedBy": "nobody", "epoch": obj["spec"]["epoch"] + 1}
    both.site.api.replace(PARTITIONS, obj)
    both.live(12)
    spec = both.site.spec("p0")
    assert (spec["claimedBy"], spec["fencedBy"], spec["epoch"]) == ("", "", obj["spec"]["epoch"] + 1)
    both.site.workers["w-0"].look()
    assert both.site.serving() == {"p0": ["w-0"]}


def test_a_partition_that_was_made_late_is_removed_and_a_mistake_is_told() -> None:
    both = Both("w-0")
    both.cut(1)
    both.live()
    epoch = both.site.spec("p0")["epoch"]
    obj = both.site.api.get(PARTITIONS, "p0", "ns")
    both.site.api.replace(PARTITIONS, {**obj, "spec": {**obj["spec"], "epoch": epoch + 5}})
    both.site.partition("late", "", "m", primary="w-0", epoch=epoch + 1, madeBy="gone")
    both.site.partition("mistake", "a", "b")
    both.live(12)
    assert {one["metadata"]["name"] for one in both.site.listed(PARTITIONS)} == {"p0", "mistake"}
    told = both.site.api.get(PARTITIONS, "mistake", "ns")["status"]
    assert told["phase"] == "Void" and "overlaps" in told["message"]
    assert "mistake" in both.status()["message"]
    both.site.api.delete(PARTITIONS, "mistake", "ns")
    both.live(3)
    assert both.status()["message"] == ""


def test_a_gap_is_told() -> None:
    both = Both("w-0")
    both.site.partition("p", "", "m")
    both.live(5)
    assert both.status()["covered"] is False and "[m, -)" in both.status()["message"]


def test_what_was_aborted_is_asked_for_again_later_each_time() -> None:
    both = Both("w-0")
    both.cut(1)
    both.site.workers["w-0"].is_cut_off = True  # it has its Lease, and does not answer
    both.look()
    (first,) = both.site.listed(ASSIGNMENTS)
    both.site.api.delete(ASSIGNMENTS, first["metadata"]["name"], "ns")
    first = both.site.api.get(ASSIGNMENTS, first["metadata"]["name"], "ns")
    first["status"] = {"phase": "Aborted", "message": "no"}
    both.site.api.replace(ASSIGNMENTS, first, "status")
    both.look()
    assert len(both.site.listed(ASSIGNMENTS)) == 1
    both.site.sleep(1.5)
    both.look()
    assert len(both.site.listed(ASSIGNMENTS)) == 2


def test_pages() -> None:
    both = Both("w-0", "w-1", lostAfterSeconds=1)
    both.cut(2)
    both.live()
    pages = both.assigner.pages()
    status, found = pages["/state"]({})
    assert status == 200 and found[KEY]["workers"]["w-0"] == {
        "partitions": 1,
        "wanted": 1,
        "leaving": False,
        "lostFor": None,
    }
    status, found = pages["/explain"]({"partition": "p0"})
    assert status == 200 and found["served"] and found["waitsFor"] is None and "as one of 1" in found["why"]
    both.lose(both.site.spec("p0")["primary"])
    both.live(5)
    status, found = pages["/explain"]({"partition": "p0"})
    assert not found["served"] and "nobody else has the data" in found["waitsFor"]
    assert pages["/explain"]({})[0] == 400 and pages["/explain"]({"partition": "x"})[0] == 404


def test_a_key_space_that_makes_no_sense_is_told() -> None:
    both = Both("w-0")
    obj = both.site.api.get(KEY_SPACES, "default", "ns")
    obj["spec"]["keyLength"] = 0
    both.site.api.replace(KEY_SPACES, obj)
    assert both.look() is None
    assert "keyLength" in both.status()["message"]


@pytest.mark.parametrize("seed", range(4))
def test_reconcilers_that_die_do_not_keep_it_from_an_even_end(seed: int) -> None:
    from ansible_collections.muster.coordination.tests.support.partition_memory import Killed

    both = Both("w-0", "w-1")
    both.cut(5)
    left = [3 + seed, 11 + 2 * seed, 29 + seed, 47]

    def kill(_what: str) -> None:
        if left and len(both.site.effects) >= left[0]:
            left.pop(0)
            raise Killed

    both.site.after_effect = kill
    for _turn in range(60):
        try:
            both.live(2)
        except Killed:
            both.reconciler = both.site.reconciler()
    assert sorted(both.counts().values()) == [2, 3] and not both.site.view().gaps
    assert not any(obj["spec"].get("claimedBy") for obj in both.site.listed(PARTITIONS))

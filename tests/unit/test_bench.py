# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's own judgement: what it counts, and that it sees what must never be."""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Gone, Listing

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import bad_network, contend, diaries, judges, planted, report, soak_report
from bench.contend import Contest, Holder, Outcome, Turn
from bench.machine import Meter
from bench.semaphore import Store
from tests.support import fault_proxy

HOLDERS = [Holder("a", "1"), Holder("b", "2")]
PERMITS = {"one": 1, "two": 2}


def turn(holder: str, fence: int, granted: float, let_go: float) -> Turn:
    return Turn(holder, fence, granted - 1, granted, let_go, let_go)


class TestSummary:
    def figures(self, turns: list[Turn], **more: Any) -> dict[str, Any]:
        contest = Contest("", {}, HOLDERS, seconds=10)
        return contend.summary(contest, Outcome(0.0, 10.0, turns, **more))

    def test_counts_what_was_granted_within_the_time(self) -> None:
        found = self.figures([turn("a", 1, -0.5, -0.1), turn("b", 2, 1, 2), turn("a", 3, 4, 5), turn("b", 4, 10, 11)])
        assert (found["cycles"], found["cycles_per_s"], found["jain"]) == (2, 0.2, 1.0)

    def test_a_handoff_lasts_from_the_call_of_release_until_another_knows(self) -> None:
        found = self.figures([turn("a", 1, 1, 2), turn("b", 2, 2.5, 3), turn("b", 3, 3.2, 3.3)])
        assert found["handoffs"] == 1, "who takes it again itself hands nothing on"
        assert found["handoff_ms"]["p50"] == 500

    def test_who_still_waits_at_the_end_has_waited(self) -> None:
        assert self.figures([turn("a", 1, 1, 2)], waiting=[("b", 2.0)])["worst_wait_s"] == 8

    def test_writes_are_requests_that_are_no_get(self) -> None:
        found = self.figures([turn("a", 1, 1, 2)], requests=Counter(GET=5, PUT=2, DELETE=1))
        assert (found["writes_per_cycle"], found["requests_per_cycle"]) == (3, 8)

    def test_two_holders_at_one_time_are_seen(self) -> None:
        assert self.figures([turn("a", 1, 1, 3), turn("b", 2, 2.9, 4)])["overlaps"] == 1

    def test_a_fence_that_does_not_grow_is_seen(self) -> None:
        assert self.figures([turn("a", 7, 1, 2), turn("b", 7, 3, 4)])["fences_not_growing"] == 1

    def test_jain(self) -> None:
        assert contend.jain([5, 5, 5, 5]) == 1
        assert contend.jain([20, 0, 0, 0]) == 0.25
        assert contend.jain([0, 0]) is None

    def test_percentiles_are_values_that_were_measured(self) -> None:
        assert contend.percentiles(list(range(1, 101))) == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
        assert contend.percentiles([]) is None


def test_a_store_has_on_disk_what_was_measured_and_measures_it_once(tmp_path: Path) -> None:
    path, ways = tmp_path / "semaphore.json", iter([{"x": 1}, {"x": 2}])
    Store(path, {}).measured("part", "8", by=lambda: next(ways))
    again = Store(path, json.loads(path.read_text()))
    assert again.measured("part", "8", by=lambda: next(ways)) == {"x": 1}
    assert again.measured("part", "32", by=lambda: next(ways)) == {"x": 2}


def test_a_meter_tells_the_busiest_of_a_group_and_what_ran_beside_it() -> None:
    meter = Meter({"group": [os.getpid(), 0]})
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    cores = meter.cores()
    assert cores["group"] == cores["group, busiest"] > 0
    assert set(cores) == {"group", "group, busiest", "others"}


class TestReport:
    def figures(self, rate: float, **more: Any) -> dict[str, Any]:
        contest = Contest("", {}, HOLDERS, seconds=10)
        requests = Counter(POST=2, DELETE=2)
        turns = [turn("a", 1, 1, 2), turn("b", 2, 2.01, 3)]
        found = contend.summary(contest, Outcome(0.0, 10.0, turns, requests=requests))
        return {**found, "cycles_per_s": rate, "cores": {}, **more}

    def found(self, **rates: float) -> dict[str, Any]:
        return {"contention": {name: {"32": self.figures(rate)} for name, rate in rates.items()}}

    def test_a_figure_is_met_or_not(self) -> None:
        found = self.found(tickets=100, annotations=19, naive=10)
        met = {target.what: target.met for target in report.targets(found)}
        assert met["tickets, 32 contenders"]
        assert not met["annotations, 32 contenders"]

    def test_half_of_the_rate_with_many_is_not_as_with_few(self) -> None:
        found = self.found(tickets=100, annotations=20, naive=10)
        found["contention"]["tickets"]["512"] = self.figures(50)
        (many,) = [target for target in report.targets(found) if target.what == "tickets, 512 contenders"]
        assert not many.met
        assert "-50%" in many.measured

    def test_a_run_that_is_not_the_median_is_judged_too(self) -> None:
        runs = {"0": self.figures(5), "1": self.figures(6, overlaps=1)}
        assert report.faults({"contention_runs": {"tickets": {"32": runs}}}) == ["tickets, 32 contenders: overlaps 1"]


class TestBeliefs:
    """What holders wrote down, against what the oracle saw."""

    def wrong(self, *beliefs: diaries.Belief) -> list[str]:
        known = {name: judges.AnnotationsJudge(name) for name in PERMITS}
        for belief in beliefs:
            known[belief.semaphore].grants.setdefault(belief.fence, (belief.holder, "permit"))
        return diaries.disbeliefs(beliefs, PERMITS, known)[0]

    def test_turns_one_after_the_other_are_right(self) -> None:
        first, second = diaries.Belief("one", "a", 1, 0, 1), diaries.Belief("one", "b", 2, 1, 2)
        assert self.wrong(first, second) == []

    def test_two_holders_of_one_permit_are_wrong(self) -> None:
        (wrong,) = self.wrong(diaries.Belief("one", "a", 1, 0, 1), diaries.Belief("one", "b", 2, 0.9, 2))
        assert wrong.startswith("S1")

    def test_two_holders_of_two_permits_are_right_and_three_wrong(self) -> None:
        pair = [diaries.Belief("two", "a", 1, 0, 3), diaries.Belief("two", "b", 2, 1, 4)]
        assert self.wrong(*pair) == []
        assert any(found.startswith("S1") for found in self.wrong(*pair, diaries.Belief("two", "c", 3, 2, 2.5)))

    def test_a_fence_given_twice_is_wrong(self) -> None:
        found = self.wrong(diaries.Belief("two", "a", 1, 0, 1), diaries.Belief("two", "b", 1, 2, 3))
        assert any(violation.startswith("S2") for violation in found)

    def test_fences_of_one_permit_grow(self) -> None:
        (wrong,) = self.wrong(diaries.Belief("one", "a", 2, 0, 1), diaries.Belief("one", "b", 1, 2, 3))
        assert wrong.startswith("S2")

    def test_a_grant_that_nobody_saw_is_wrong(self) -> None:
        known = {name: judges.AnnotationsJudge(name) for name in PERMITS}
        (wrong,) = diaries.disbeliefs([diaries.Belief("one", "a", 1, 0, 1)], PERMITS, known)[0]
        assert "never was" in wrong

    def test_who_was_killed_held_until_its_death(self, tmp_path: Path) -> None:
        diary = tmp_path / "diary"
        diary.write_text("1.5 G one a u 7\n2.0 R one a u 7\n3.0 G one b v 8\n")
        assert diaries.beliefs(diary, died=9.0) == [
            diaries.Belief("one", "a", 7, 1.5, 2.0),
            diaries.Belief("one", "b", 8, 3.0, 9.0),
        ]


class ForgetfulApi:
    """Revisions 1 to 5 of ConfigMaps; every watch is refused, because the server has forgotten its events."""

    def __init__(self) -> None:
        self.history = [{}, {"x": 1}, {"x": 2}, {"x": 2, "y": 3}, {"x": 2, "y": 3}, {"y": 3}]
        self.first = True

    def list(self, *_args: Any, at: str = "", **_options: Any) -> Listing:
        revision = int(at) if at else (1 if self.first else 5)
        self.first = False
        items = [
            {"metadata": {"name": name, "resourceVersion": str(version)}}
            for name, version in self.history[revision].items()
        ]
        return Listing(items, str(revision))

    def watch(self, *_args: Any, **_options: Any) -> Any:
        raise Gone(410, "Expired", "too old resource version")


def test_what_a_watch_missed_is_read_back_revision_by_revision() -> None:
    stop = threading.Event()
    chronicle = judges.Chronicle(ForgetfulApi(), CONFIGMAPS, "ns", "")  # type: ignore[arg-type]
    events = []
    for kind, obj in chronicle.events(stop):
        events.append((kind, obj["metadata"]["name"], obj["metadata"]["resourceVersion"]))
        if kind == "DELETED":
            break
    assert events == [
        ("ADDED", "x", "1"),
        ("MODIFIED", "x", "2"),
        ("ADDED", "y", "3"),
        ("DELETED", "x", "2"),
    ]
    assert chronicle.read_back == 3


WELL: dict[str, Any] = {
    "engine": "tickets",
    "grants": 5,
    "grants_believed": 5,
    "seconds": 60.0,
    "revisions_judged": 10,
    "revisions_read_back": 1,
    "permits": {"one": 1},
    "holders_at_a_time": 4,
    "over_grants": 0,
    "violations": [],
    "unserved_after_the_faults": [],
    "faults": {"API server killed": 1},
}


def a_run(**found: Any) -> dict[str, Any]:
    machine = dict.fromkeys(("cpu", "cores", "system", "kernel", "python", "at", "commit"), "x")
    return {"machine": machine | {"memory_gib": 1.0}, "seed": 7, "kubernetes": "v1", "engines": [{**WELL, **found}]}


@pytest.mark.parametrize("broken", ["violations", "over_grants", "unserved_after_the_faults"])
def test_a_soak_fails_on_each_fault_and_without_a_grant(broken: str) -> None:
    assert not soak_report.failed(WELL)
    assert soak_report.failed({**WELL, "grants": 0})
    assert soak_report.failed({**WELL, broken: ["something"]})


def test_appended_soaks_add_up_and_keep_every_violation(tmp_path: Path) -> None:
    soak_report.write(tmp_path, a_run(grants=100), append=True)
    soak_report.write(tmp_path, a_run(grants=1_000, violations=["S1: one too many"]), append=True)
    page = soak_report.write(tmp_path, a_run(engine="annotations"), append=True).read_text()
    assert "**1,105 grants, 1 violations.**" in page
    assert "- VIOLATION S1: one too many" in page
    assert "| tickets | 1,100 | 1 |" in page
    alone = soak_report.write(tmp_path, a_run(), append=False).read_text()
    assert "**5 grants, 0 violations.**" in alone


@pytest.mark.parametrize("engine", ["annotations", "tickets"])
def test_the_bad_network_has_every_fault_and_ends_watches_by_410(engine: str) -> None:
    dice = random.Random(1)
    seen = [bad_network.some_fault(dice, engine) for _ in range(500)]
    assert {type(planned.fault) for planned in seen} == set(get_args(fault_proxy.Fault)) - {
        fault_proxy.Stale  # a lie about the present, which no network tells
    }
    gone = [planned for planned in seen if planned.fault == fault_proxy.Answer(410, "Expired")]
    assert gone and all(planned.path == bad_network.WATCH for planned in gone)
    assert {planned.method for planned in seen} <= {"", "GET", *bad_network.WRITES[engine]}, "others meet nothing"


def test_a_planted_old_fence_is_that_of_the_turn_before() -> None:
    bug = planted.Bug(planted.OLD_FENCE)
    assert [bug.fence(0, 5), bug.fence(5, 9)] == [5, 5]
    assert planted.Bug("").fence(5, 9) == 9

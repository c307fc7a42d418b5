# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's own judgement: what it counts, and that it sees what must never be."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Gone, Listing

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import contend, judges, soak
from bench.contend import Contest, Holder, Outcome, Turn

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


class TestBeliefs:
    """What holders wrote down, against what the oracle saw."""

    def wrong(self, *beliefs: soak.Belief) -> list[str]:
        known = {name: judges.AnnotationsJudge(name) for name in PERMITS}
        for belief in beliefs:
            known[belief.semaphore].grants.setdefault(belief.fence, (belief.holder, "permit"))
        return soak.disbeliefs(beliefs, PERMITS, known)[0]

    def test_turns_one_after_the_other_are_right(self) -> None:
        first, second = soak.Belief("one", "a", 1, 0, 1), soak.Belief("one", "b", 2, 1, 2)
        assert self.wrong(first, second) == []

    def test_two_holders_of_one_permit_are_wrong(self) -> None:
        (wrong,) = self.wrong(soak.Belief("one", "a", 1, 0, 1), soak.Belief("one", "b", 2, 0.9, 2))
        assert wrong.startswith("S1")

    def test_two_holders_of_two_permits_are_right_and_three_wrong(self) -> None:
        pair = [soak.Belief("two", "a", 1, 0, 3), soak.Belief("two", "b", 2, 1, 4)]
        assert self.wrong(*pair) == []
        assert any(found.startswith("S1") for found in self.wrong(*pair, soak.Belief("two", "c", 3, 2, 2.5)))

    def test_a_fence_given_twice_is_wrong(self) -> None:
        found = self.wrong(soak.Belief("two", "a", 1, 0, 1), soak.Belief("two", "b", 1, 2, 3))
        assert any(violation.startswith("S2") for violation in found)

    def test_fences_of_one_permit_grow(self) -> None:
        (wrong,) = self.wrong(soak.Belief("one", "a", 2, 0, 1), soak.Belief("one", "b", 1, 2, 3))
        assert wrong.startswith("S2")

    def test_a_grant_that_nobody_saw_is_wrong(self) -> None:
        known = {name: judges.AnnotationsJudge(name) for name in PERMITS}
        (wrong,) = soak.disbeliefs([soak.Belief("one", "a", 1, 0, 1)], PERMITS, known)[0]
        assert "never was" in wrong

    def test_who_was_killed_held_until_its_death(self, tmp_path: Path) -> None:
        diary = tmp_path / "diary"
        diary.write_text("1.5 G one a u 7\n2.0 R one a u 7\n3.0 G one b v 8\n")
        assert soak.beliefs(diary, died=9.0) == [
            soak.Belief("one", "a", 7, 1.5, 2.0),
            soak.Belief("one", "b", 8, 3.0, 9.0),
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


@pytest.mark.parametrize("broken", ["violations", "over_grants", "unserved_after_the_faults"])
def test_a_soak_fails_on_each_fault_and_without_a_grant(broken: str) -> None:
    well: dict[str, Any] = {"grants": 5, "violations": [], "over_grants": 0, "unserved_after_the_faults": []}
    assert not soak.failed(well)
    assert soak.failed({**well, "grants": 0})
    assert soak.failed({**well, broken: ["something"]})

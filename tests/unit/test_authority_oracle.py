# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of replicas is judged: good histories pass, and each kind of bad one is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.tests.support import authority_oracle as oracle
from ansible_collections.muster.coordination.tests.support.authority_oracle import Act, Life, Size

LEASE = "ns/operator"


def line(event: str, at: int, who: str = "a", fence: int = 1, scope: str = LEASE) -> dict[str, Any]:
    return {"event": event, "at": at, "who": who, "fence": fence, "scope": scope}


def term(begin: int, end: int, who: str, fence: int, scope: str = LEASE) -> list[dict[str, Any]]:
    return [line("begin", begin, who, fence, scope), line("end", end, who, fence, scope)]


def act(at: int, who: str = "a", fence: int = 1, scope: str = LEASE) -> Act:
    return Act(scope, fence, who, at, "cloud create")


GOOD = {
    "one after the other": [Life("a", term(0, 5, "a", 1)), Life("b", term(5, 9, "b", 2))],
    "killed, and the next one took over": [Life("a", [line("begin", 0)], died=4), Life("b", term(4, 9, "b", 2))],
    "frozen, and found out when it woke": [
        Life("a", [line("begin", 0), line("end", 20)], frozen=[(5, 20)]),
        Life("b", term(10, 15, "b", 2)),
    ],
    "frozen, and killed while it was": [
        Life("a", [line("begin", 0)], died=30, frozen=[(5, 30)]),
        Life("b", term(10, 40, "b", 2)),
    ],
    "two scopes at one time": [Life("a", term(0, 9, "a", 1, "ns/t/0")), Life("b", term(0, 9, "b", 1, "ns/t/1"))],
    "paused, and had back with the same fence": [
        Life("a", [*term(0, 3, "a", 1), *term(5, 9, "a", 1)], [act(8)]),
        Life("b", term(10, 12, "b", 2), [act(11, "b", 2)]),
    ],
    "asked in time, sent a moment later": [Life("a", term(0, 5, "a", 1), [act(6)]), Life("b", term(8, 9, "b", 2))],
    "nothing": [],
}
BAD = {
    "two at one time": ("both had", [Life("a", term(0, 6, "a", 1)), Life("b", term(5, 9, "b", 2))]),
    "one within the other": ("both had", [Life("a", term(0, 9, "a", 1)), Life("b", term(2, 3, "b", 2))]),
    "a long one and two short ones": (
        "c both had",
        [Life("a", term(0, 9, "a", 1)), Life("b", term(2, 3, "b", 2)), Life("c", term(5, 6, "c", 3))],
    ),
    "the next one before the death": (
        "both had",
        [Life("a", [line("begin", 0)], died=6), Life("b", term(5, 9, "b", 2))],
    ),
    "awake too long": (
        "both had",
        [Life("a", [line("begin", 0), line("end", 20)], frozen=[(5, 12)]), Life("b", term(10, 15, "b", 2))],
    ),
    "no end of it": ("never ended", [Life("a", [line("begin", 0)])]),
    "an end of nothing": ("never began", [Life("a", [line("end", 0)])]),
    "an end before the beginning": ("before it began", [Life("a", term(5, 4, "a", 1))]),
    "begun twice": ("twice", [Life("a", [line("begin", 0), line("begin", 1), line("end", 2)])]),
    "a fence that goes back": ("after 2", [Life("a", term(0, 5, "a", 2)), Life("b", term(5, 9, "b", 1))]),
    "a fence for two": ("after 1", [Life("a", term(0, 5, "a", 1)), Life("b", term(5, 9, "b", 1))]),
    "an act with nobody's fence": ("not its own", [Life("a", term(0, 5, "a", 1), [act(3, fence=7)])]),
    "an act in no scope": ("not its own", [Life("a", [], [act(3)])]),
    "an act before the beginning": ("not its own", [Life("a", term(2, 5, "a", 1), [act(1)])]),
    "an act in the term of another": (
        "not its own",
        [Life("a", term(0, 5, "a", 1), [act(8)]), Life("b", term(7, 9, "b", 2))],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_pass(name: str) -> None:
    assert oracle.judge_authority(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_bad_histories_are_found(name: str) -> None:
    words, lives = BAD[name]
    found = oracle.judge_authority(lives)
    assert any(words in violation for violation in found), found
    assert all(violation.startswith("R2: ") for violation in found)


def test_a_span_that_was_slept_through_is_cut_out() -> None:
    whole = oracle.Interval(LEASE, 1, "a", 0, 10)
    parts = oracle.awake(whole, [(2, 4), (6, 8), (20, 30)])
    assert [(part.begin, part.end) for part in parts] == [(0, 2), (4, 6), (8, 10)]
    assert oracle.awake(whole, [(0, 10)]) == []


def test_a_line_that_was_cut_off_by_a_death_was_not_written(tmp_path: Path) -> None:
    (tmp_path / "log").write_text('{"at": 1}\n{"at"')
    assert oracle.read_lines(tmp_path / "log") == [{"at": 1}]
    assert oracle.read_lines(tmp_path / "none") == []


def test_one_machine_was_made_for_each_object_that_ran() -> None:
    assert oracle.judge_creates({"u": 1, "v": 1}, {"u"}, {"u", "v", "never made"}) == []
    assert "2 machines were made for u" in oracle.judge_creates({"u": 2}, {"u"}, {"u"})[0]
    assert "no machine was made" in oracle.judge_creates({}, {"u"}, {"u"})[0]
    assert "which never was" in oracle.judge_creates({"x": 1}, set(), set())[0]


def test_each_living_object_has_one_machine_of_its_size_and_nothing_else_has() -> None:
    small, large = Size(1, "1Gi"), Size(2, "2Gi")
    machine = {"id": "m-1", "name": "n", "uid": "u", **small._asdict()}
    assert oracle.judge_machines([machine], {"u": small}) == []
    assert "another size" in oracle.judge_machines([machine], {"u": large})[0]
    assert "orphan" in oracle.judge_machines([machine], {})[0]
    assert "2 machines" in oracle.judge_machines([machine, machine], {"u": small})[0]
    assert "0 machines" in oracle.judge_machines([], {"u": small})[0]

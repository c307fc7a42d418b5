# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of bench/swarm_storm.py: what counts as proof, what does not, and that nothing wrong is left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import swarm_storm_report as report
from bench.machine import facts

PLANTED = {"name": "hands over without waiting", "breaks": "W1", "kills": 12, "found": "W1: a ran on w0 and w1"}


def round_of(begun: int = 600, **more: Any) -> dict[str, Any]:
    totals = {"jobs run": 80, "jobs begun": begun, "workers' processes": 50, "evictions": 20, "configurations": 100}
    found = {"mode": "leader", "seed": 1, "kills": 60, "seconds": 90.0, "totals": totals, "violations": []}
    return {**found, "points": {"before config revoke": 4}, "events": {"rests": 6}, **more}


def run_of(*rounds: dict[str, Any], planted: dict[str, Any] = PLANTED) -> dict[str, Any]:
    return {"machine": facts(), "rounds": list(rounds), "planted": [planted]}


def test_no_violation_and_bugs_that_are_found_is_proof() -> None:
    assert not report.failed(run_of(round_of(), round_of(mode="shard")))


@pytest.mark.parametrize(
    "run",
    [
        run_of(),
        run_of(round_of(), round_of(violations=["W1: a ran on w0 and w1"])),
        run_of(round_of(begun=0)),
        run_of(round_of(), planted={**PLANTED, "found": ""}),
    ],
    ids=["no round", "a violation", "nothing ran", "a bug that was not found"],
)
def test_anything_else_is_not(run: dict[str, Any]) -> None:
    assert report.failed(run)


def test_runs_add_up_and_violations_are_shown(tmp_path: Path) -> None:
    path = report.write(tmp_path, [run_of(round_of())])
    assert "**60 deaths, 0 violations; jobs were begun 600 times, and none ran on two workers.**" in path.read_text()
    wrong = run_of(round_of(violations=["W1: a ran on w0 and w1"]), planted={**PLANTED, "found": ""})
    page = report.write(tmp_path, [*report.read(tmp_path), wrong]).read_text()
    assert "**120 deaths, 1 violations: jobs ran on two workers.**" in page
    assert "| before config revoke | 8 |" in page and "| rests | 12 |" in page
    assert "VIOLATION leader: W1: a ran on w0 and w1" in page
    assert "| hands over without waiting | W1 | 12 | NOT FOUND |" in page
    assert report.read(tmp_path / "none") == []

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of bench/exactly_once.py: what counts as proof, what does not, and that nothing wrong is left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import exactly_once_report as report
from bench.machine import facts


def round_of(**more: Any) -> dict[str, Any]:
    found = {"mode": "leader", "seed": 1, "kills": 100, "seconds": 60.0, "objects": 200, "creates": 200, "most": 1}
    rest = {"refused_stale": 1, "replays": 2, "violations": [], "points": {"before cloud create": 4}, "events": {}}
    return {**found, **rest, **more}


def run_of(*rounds: dict[str, Any], unguarded: int = 3) -> dict[str, Any]:
    return {
        "machine": facts(),
        "rounds": list(rounds),
        "unguarded": [{"mode": "leader", "objects": 2, "creates": unguarded}],
    }


def test_one_machine_for_each_and_doubles_without_the_guard_is_proof() -> None:
    assert not report.failed(run_of(round_of(), round_of(mode="shard")))


@pytest.mark.parametrize(
    "run",
    [
        run_of(),
        run_of(round_of(), round_of(creates=201)),
        run_of(round_of(violations=["R2: two at one time"])),
        run_of(round_of(objects=0, creates=0)),
        run_of(round_of(), unguarded=2),
    ],
    ids=["no round", "a double", "a violation", "no object", "no double without the guard"],
)
def test_anything_else_is_not(run: dict[str, Any]) -> None:
    assert report.failed(run)


def test_runs_add_up_and_violations_are_shown(tmp_path: Path) -> None:
    report.write(tmp_path, [run_of(round_of())])
    path = report.write(tmp_path, [*report.read(tmp_path), run_of(round_of(violations=["R1: 2 machines for u"]))])
    page = path.read_text()
    assert "**200 deaths, 1 violations, creates / objects = 1.000.**" in page
    assert "| before cloud create | 8 |" in page
    assert "VIOLATION leader: R1: 2 machines for u" in page
    assert report.read(tmp_path / "none") == []

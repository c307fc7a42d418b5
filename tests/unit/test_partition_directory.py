# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effective view one change at a time: always what is made of all objects at once."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from muster.dstk.directory import LiveView

BOUNDS = ["", "c", "f", "i", "l", "o"]
Object = dict[str, Any]


def partition(name: str, start: str, end: str, epoch: int) -> Object:
    spec = {"keySpace": "default", "range": {"start": start, "end": end}, "primary": f"w-{epoch % 3}", "epoch": epoch}
    return {"metadata": {"name": name}, "spec": spec}


def assignment(name: str, phase: str, results: list[Object], supersedes: list[str]) -> Object:
    listed = [{"partition": each["metadata"]["name"], **each["spec"]} for each in results]
    status = {"phase": phase, "results": listed, "supersedes": supersedes}
    return {"metadata": {"name": name}, "spec": {"keySpace": "default"}, "status": status}


def span(dice: random.Random) -> tuple[str, str]:
    low, high = sorted(dice.sample(range(len(BOUNDS) + 1), 2))
    return BOUNDS[low], BOUNDS[high] if high < len(BOUNDS) else ""


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_all_objects_make(seed: int) -> None:
    """Any objects in any order, also such as no operation would leave: no two epochs are the same."""
    dice, live = random.Random(seed), LiveView()
    partitions: dict[str, Object] = {}
    assignments: dict[str, Object] = {}
    seen = 0
    for epoch in range(1, 250):
        name = f"p{dice.randrange(8)}"
        match dice.randrange(5):
            case 0 | 1:
                partitions[name] = partition(name, *span(dice), epoch)
                live.partition(name, partitions[name])
            case 2:
                partitions.pop(name, None)
                live.partition(name, None)
            case 3:
                made = [partition(f"p{dice.randrange(8)}", *span(dice), 1000 * epoch + number) for number in range(2)]
                phase = dice.choice(("Committed", "Committed", "Completed", "Loading"))
                superseded = [f"p{dice.randrange(8)}" for _each in range(dice.randrange(3))]
                at = f"a{dice.randrange(4)}"
                assignments[at] = assignment(at, phase, made, superseded)
                live.assignment(at, assignments[at])
            case 4:
                at = f"a{dice.randrange(4)}"
                assignments.pop(at, None)
                live.assignment(at, None)
        whole = keyspace.view(partitions.values(), assignments.values())
        assert live.facts == whole.facts, epoch
        assert len(live) == len(whole.facts)
        for key in ("aaaa", "cccc", "kkkk", "zzzz"):
            assert live.owner(key) == keyspace.owner(whole, key)
        seen += len(whole.facts)
    assert seen > 250


def test_a_split_goes_over_without_a_gap() -> None:
    live = LiveView()
    live.partition("p", partition("p", "", "", 4))
    halves = [partition("p-1", "", "m", 6), partition("p-2", "m", "", 6)]
    steps = [
        lambda: live.assignment("a", assignment("a", "Committed", halves, ["p"])),
        lambda: live.partition("p-1", halves[0]),
        lambda: live.partition("p-2", halves[1]),
        lambda: live.partition("p", None),
        lambda: live.assignment("a", assignment("a", "Completed", halves, ["p"])),
    ]
    owners = []
    for step in steps:
        step()
        owners.append([fact.partition for key in ("aaaa", "nnnn") if (fact := live.owner(key))])
    assert owners == [["p-1", "p-2"]] * len(steps)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long random histories of several operations on partitions, in the world of the model; each state is judged.

They are the same on every run: HYPOTHESIS_PROFILE=search makes more of them, and longer ones.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, result_name
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import MERGE, MOVE, NEW, SPLIT
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FOLLOWING,
    PRIMARY,
    Copy,
)
from ansible_collections.muster.coordination.tests.support import partition_world as world
from ansible_collections.muster.coordination.tests.support.partition_world import Story, Worker, assignment, partition

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci")
HISTORIES, STEPS = {"search": (2000, 600), "quick": (60, 200)}.get(PROFILE, (60, 250))
WHOLE, LOW, HIGH = Range("", ""), Range("", "b"), Range("b", "")
LOW_CHILD, HIGH_CHILD = (result_name("p", "uid-split", index) for index in range(2))


def move(name: str, of: str, source: str, target: str, uid: str = "") -> str:
    return assignment(name, MOVE, uid, partition=of, **{"from": source, "to": target})


EASY = Story(
    (partition("p", "", "", primary="w1", epoch=1),),
    (assignment("split", SPLIT, partition="p", splitKey="b"),),
    (Worker("w1", (Copy("p", WHOLE, PRIMARY, 1),), serves=(("p", 1),)), Worker("w2"), Worker("w3")),
    losses=3,
    late=2,
    twice=2,
    deletions=2,
    writes=4,
    unreachable=True,
)
ONE_AFTER_THE_OTHER = replace(
    EASY,
    later=(
        move("there", LOW_CHILD, "w1", "w2"),
        move("back", LOW_CHILD, "w2", "w1"),
        assignment("merge", MERGE, partitions=[LOW_CHILD, HIGH_CHILD]),
    ),
)
SPLIT_AGAIN = replace(
    EASY,
    later=(
        assignment("again", SPLIT, partition=LOW_CHILD, splitKey="a"),
        move("other", HIGH_CHILD, "w1", "w2"),
        assignment("merge", MERGE, partitions=[LOW_CHILD, HIGH_CHILD]),
    ),
)
AT_ONCE = replace(
    EASY,
    assignments=(move("m1", "p", "w1", "w2"), move("m2", "p", "w1", "w3")),
    later=(move("m3", "p", "w2", "w1"), move("m4", "p", "w1", "w2"), move("m1", "p", "w1", "w2", "other")),
    deletions=3,
)
FRESH = replace(
    EASY,
    partitions=(partition("p", "", ""), partition("q", "b", "")),
    assignments=(
        assignment("n1", NEW, partition="p", primary="w1"),
        assignment("n2", NEW, partition="q", primary="w2"),
        assignment("n3", NEW, partition="p", primary="w1"),
    ),
    workers=(Worker("w1"), Worker("w2"), Worker("w3")),
    later=(move("m1", "p", "w1", "w2"), move("m2", "p", "w2", "w1")),
)
BATCH = replace(
    FRESH,
    partitions=(partition("p", "", "b"), partition("q", "b", "")),
    assignments=(
        assignment("n1", NEW, partitions=[{"partition": "p", "primary": "w1"}, {"partition": "q", "primary": "w2"}]),
    ),
    later=(
        move("m1", "q", "w2", "w1"),
        assignment("merge", MERGE, partitions=["p", "q"]),
        assignment("n2", NEW, partitions=[{"partition": "p", "primary": "w3"}, {"partition": "q", "primary": "w3"}]),
    ),
)
FOLLOWED = replace(
    EASY,
    partitions=(partition("p", "", "", primary="w1", epoch=2, followers=["w2"]),),
    assignments=(move("m1", "p", "w1", "w2"),),
    workers=(
        Worker("w1", (Copy("p", WHOLE, PRIMARY, 2, followers=("w2",)),), serves=(("p", 2),)),
        Worker("w2", (Copy("p", WHOLE, FOLLOWING, 1, origin="w1"),)),
        Worker("w3"),
    ),
    later=(move("m2", "p", "w1", "w2"), move("m3", "p", "w2", "w1"), move("m4", "p", "w1", "w2")),
    managed=6,
)
RELOAD = replace(
    EASY,
    later=(
        assignment("r1", NEW, partition=LOW_CHILD, primary="w2"),
        assignment("again", SPLIT, partition=LOW_CHILD, splitKey="a"),
        assignment("r2", NEW, partition=LOW_CHILD, primary="w3"),
    ),
    reload=True,
    writes=0,
)
STORIES = {
    "one after the other": ONE_AFTER_THE_OTHER,
    "split again": SPLIT_AGAIN,
    "at once": AT_ONCE,
    "fresh": FRESH,
    "batch": BATCH,
    "followed": FOLLOWED,
    "reloaded": RELOAD,
}
DULL = {"dies": 0.1, "is lost": 0.15, "is deleted": 0.1, "dies,": 0.1, "in the end": 0.15}


def weight(what: str) -> float:
    """Faults are rarer than what is to happen, so that histories get somewhere."""
    return next((share for word, share in DULL.items() if word in what), 0.5 if "late" in what else 1.0)


def history(story: Story, seed: int, steps: int = STEPS) -> list[str]:
    """What happened, up to what is wrong; empty where nothing is."""
    dice = random.Random(seed)
    state, told = world.begin(story), []
    for _count in range(dice.randint(5, steps)):
        found = list(world.moves(story, state))
        if not found:
            break
        what, state = dice.choices(found, [weight(what) for what, _state in found])[0]
        told.append(what)
        wrong = world.wrong(state)
        if wrong:
            return [*told, wrong]
    wrong = world.settled(story, state)[1]
    return [*told, wrong] if wrong else []


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_nothing_goes_wrong(story: Story) -> None:
    for seed in range(HISTORIES):
        told = history(story, seed)
        assert not told, f"seed {seed}:\n" + "\n".join(told)

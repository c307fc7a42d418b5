# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""With classes, capacities, zones and dedicated jobs a placement is as good as the best that another solver finds.

MUSTER_PLACEMENT_WORLDS says how many worlds of each sort are tried.
"""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import place
from ansible_collections.muster.coordination.tests.support import placement_oracle, placement_worlds
from ansible_collections.muster.coordination.tests.support.placement_worlds import Facts, World

WORLDS = int(os.environ.get("MUSTER_PLACEMENT_WORLDS", "800"))
PARTS = 4  # that run side by side


def of_the_others(world: World, facts: Facts) -> placement_oracle.Optimum:
    """What the placement reaches for jobs that are not dedicated."""
    homes = placement_worlds.homes(world)
    names = [job.name for job in world.jobs if not job.dedicated]
    stays = sum(name in homes and homes[name] == facts.on.get(name) for name in names)
    return placement_oracle.Optimum(
        sum(name in facts.on for name in names), sum(load**2 for load in facts.loads.values()), stays
    )


def check(world: World) -> str:
    placement = place(*world)
    facts = placement_worlds.facts(world, placement)
    caps, homes = Counter(placement_worlds.zone_caps(world)), placement_worlds.homes(world)
    jobs = {job.name: job for job in world.jobs}
    if any(job.dedicated for job in world.jobs):
        displaced = sum(
            facts.on.get(job) != worker if jobs[job].dedicated else worker in facts.reserved
            for job, worker in homes.items()
        )
        reached = placement_oracle.Matching(len(facts.reserved), displaced)
        assert reached == placement_oracle.best_matching(world.jobs, world.workers, homes, caps)
    # among equals it may be any workers that are kept for them: what follows is the best for the others
    for worker in world.workers:
        own = jobs.get(facts.reserved.get(worker.name, ""))
        if own and own.spread:
            caps[own.spread, worker.zone] -= 1
    others = [job for job in world.jobs if not job.dedicated]
    free = [worker for worker in world.workers if worker.name not in facts.reserved]
    assert of_the_others(world, facts) == placement_oracle.best(others, free, homes, caps)
    assert placement.least_moves == facts.moves
    return placement.method


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dedicated", [0.0, 0.3])
def test_no_solver_finds_a_better_one(dedicated: float, part: int) -> None:
    methods = Counter(
        check(placement_worlds.mixed(random.Random(f"{dedicated}/{number}"), dedicated=dedicated))
        for number in range(part, WORLDS, PARTS)
    )
    assert methods["flow"] > 0.7 * methods.total(), "most of these worlds are to be what they are made for"


def test_the_solver_finds_what_can_be_seen_by_eye() -> None:
    """A class that only one of two workers takes; three jobs without a class; one of them is on the full side."""
    world = placement_worlds.World(
        [placement_worlds.Job(f"g{number}", group="gpu") for number in range(3)]
        + [placement_worlds.Job(f"j{number}") for number in range(3)],
        [
            placement_worlds.Worker("both", frozenset({"", "gpu"})),
            placement_worlds.Worker("plain"),
        ],
        {"both": ["g0", "g1", "j0"], "plain": ["j1"]},
    )
    best = placement_oracle.best(world.jobs, world.workers, placement_worlds.homes(world), {})
    assert best == (6, 3**2 + 3**2, 3)  # only j0 has to go

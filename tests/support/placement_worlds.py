# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Random pools of workers with jobs and a past, and what can be said of a placement by looking at it alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Placement, Worker


class World(NamedTuple):
    jobs: list[Job]
    workers: list[Worker]
    previous: dict[str, list[str]]


def uniform(draw: random.Random, *, most_jobs: int, most_workers: int) -> World:
    """Jobs that may run everywhere; some of the past's jobs and workers are no more, and some of now are new."""
    workers = [f"w-{number}" for number in range(draw.randint(1, most_workers))]
    jobs = [f"job-{number}" for number in range(draw.randint(0, most_jobs))]
    return World([Job(job) for job in jobs], [Worker(worker) for worker in workers], _past(draw, jobs, workers))


def mixed(draw: random.Random, *, dedicated: float = 0.0, weights: Sequence[int] = (1,)) -> World:
    """Up to four classes, three zones, two spreads, and capacities from none at all to no bound."""
    groups = ["", "a", "b", "c"][: draw.randint(1, 4)]
    zones = ["x", "y", "z"][: draw.randint(1, 3)]
    spreads = {f"spread-{number}": draw.choice(groups) for number in range(draw.randint(0, 2))}
    mean = sum(weights) // len(weights)
    bounds = [None, None, None, 0, mean, 2 * mean, 3 * mean, 4 * mean]
    workers = [
        Worker(
            f"w-{number}",
            frozenset(group for group in groups if draw.random() < 0.6),
            draw.choice(bounds),
            draw.choice(zones),
        )
        for number in range(draw.randint(1, 7))
    ]
    jobs = []
    for number in range(draw.randint(0, 14)):
        spread = draw.choice(["", *spreads])
        group = spreads[spread] if spread else draw.choice(groups)
        jobs.append(Job(f"job-{number}", draw.choice(weights), group, draw.random() < dedicated, spread))
    return World(jobs, workers, _past(draw, [job.name for job in jobs], [worker.name for worker in workers]))


def _past(draw: random.Random, jobs: Sequence[str], workers: Sequence[str]) -> dict[str, list[str]]:
    """Each job was on one worker or on none, so that what moves is no matter of taste."""
    there = [worker for worker in [*workers, "gone-0", "gone-1"] if draw.random() < 0.8]
    previous: dict[str, list[str]] = {worker: [] for worker in there}
    for job in [*jobs, "deleted-0", "deleted-1"]:
        if there and draw.random() < 0.8:
            previous[draw.choice(there)].append(job)
    return previous


def shuffled(draw: random.Random, world: World) -> World:
    """The same, in another order throughout."""
    items = [(worker, draw.sample(own, len(own))) for worker, own in world.previous.items()]
    return World(
        draw.sample(world.jobs, len(world.jobs)),
        draw.sample(world.workers, len(world.workers)),
        dict(draw.sample(items, len(items))),
    )


def homes(world: World) -> dict[str, str]:
    """The worker of the pool on which a job is before the rebalance."""
    there, known = {worker.name for worker in world.workers}, {job.name for job in world.jobs}
    return {job: worker for worker, own in world.previous.items() if worker in there for job in own if job in known}


def zone_caps(world: World) -> dict[tuple[str, str], int]:
    """How many jobs of a spread a zone may have: an equal part, rounded up, of the zones that take them."""
    caps = {}
    for spread, number in Counter(job.spread for job in world.jobs if job.spread).items():
        group = next(job.group for job in world.jobs if job.spread == spread)
        zones = {worker.zone for worker in world.workers if group in worker.takes}
        caps.update({(spread, zone): (number + len(zones) - 1) // len(zones) for zone in zones})
    return caps


class Facts(NamedTuple):
    """`on` has the worker of a job; the others are counted here, not taken from the placement."""

    on: dict[str, str]
    reserved: dict[str, str]  # worker: its dedicated job
    loads: dict[str, int]  # of the others
    moves: int
    restarts: int


def facts(world: World, placement: Placement) -> Facts:
    """Counts, after it has been checked that the placement is legal and says of itself what is true."""
    jobs = {job.name: job for job in world.jobs}
    workers = {worker.name: worker for worker in world.workers}
    assert list(placement.assignment) and set(placement.assignment) == set(workers)
    placed = [(job, worker) for worker, own in placement.assignment.items() for job in own]
    assert sorted([*(job for job, _ in placed), *placement.unplaced]) == sorted(jobs), "each job is in one place"
    on = dict(placed)
    for worker, own in placement.assignment.items():
        assert list(own) == sorted(own)
        assert {jobs[job].group for job in own} <= workers[worker].takes
        bound = workers[worker].capacity
        assert bound is None or sum(jobs[job].weight for job in own) <= bound
        assert len(own) == 1 or not any(jobs[job].dedicated for job in own)
    caps = zone_caps(world)
    for (spread, zone), number in Counter((jobs[job].spread, workers[worker].zone) for job, worker in placed).items():
        assert not spread or number <= caps[spread, zone]
    reserved = {worker: own[0] for worker, own in placement.assignment.items() if own and jobs[own[0]].dedicated}
    loads = {
        worker: sum(jobs[job].weight for job in own)
        for worker, own in placement.assignment.items()
        if worker not in reserved
    }
    assert placement.imbalance == max(loads.values(), default=0) - min(loads.values(), default=0)
    moves = sum(on.get(job) != worker for job, worker in homes(world).items())
    restarts = changed(world.previous, placement.assignment)
    assert (placement.moves, placement.restarts) == (moves, restarts)
    assert placement.least_moves is None or placement.least_moves <= moves
    assert placement.least_restarts is None or placement.least_restarts <= restarts
    return Facts(on, reserved, loads, moves, restarts)


def changed(before: Mapping[str, Collection[str]], after: Mapping[str, Collection[str]]) -> int:
    """Workers that were there before, and whose set of jobs is another."""
    return sum(set(before[worker]) != set(own) for worker, own in after.items() if worker in before)

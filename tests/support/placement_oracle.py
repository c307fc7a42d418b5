# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The best placement by an independent solver (HiGHS), job by job, with nothing of how ours goes about it.

A variable for each job on each worker that may run it. Each worker has unit slots which cost 1, 3, 5, …: n slots cost n
squared, and since the cost grows the cheapest slots are used. One objective, with weights so far apart that the less
important can't outweigh the more important, and small enough to be exact in a float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker


class Optimum(NamedTuple):
    """Jobs that have a worker, the sum of the squares of the loads, and live jobs that stay."""

    placed: int
    squares: int
    stays: int


class Matching(NamedTuple):
    """Dedicated jobs that have a worker, and live jobs which had to go for that."""

    placed: int
    displaced: int


def best(
    jobs: Sequence[Job],
    workers: Sequence[Worker],
    homes: Mapping[str, str],
    caps: Mapping[tuple[str, str], int],
) -> Optimum:
    """Of jobs that weigh 1, none dedicated. `homes`: where live jobs are; `caps`: how many of a spread a zone has."""
    may = [(job, worker) for job in jobs for worker in workers if job.group in worker.takes]
    if not may:
        return Optimum(0, 0, 0)
    jobs_at = len(jobs)
    slots = [(worker, slot) for worker in workers for slot in range(jobs_at)]
    per_square = jobs_at + 1
    per_job = per_square * (jobs_at * jobs_at + 1)
    cost = [-per_job - (homes.get(job.name) == worker.name) for job, worker in may]
    cost += [per_square * (2 * slot + 1) for _, slot in slots]
    rows: list[dict[int, float]] = []
    low: list[float] = []
    high: list[float] = []

    def row(terms: dict[int, float], least: float, most: float) -> None:
        rows.append(terms)
        low.append(least)
        high.append(most)

    for job in jobs:
        row({index: 1 for index, (one, _) in enumerate(may) if one is job}, 0, 1)
    for worker in workers:
        own = {index: 1.0 for index, (_, one) in enumerate(may) if one is worker}
        taken = {len(may) + index: -1.0 for index, (one, _) in enumerate(slots) if one is worker}
        row(own | taken, 0, 0)
        row(own, 0, numpy.inf if worker.capacity is None else worker.capacity)
    zone_of = {worker.name: worker.zone for worker in workers}
    for (spread, zone), cap in caps.items():
        row({i: 1 for i, (job, w) in enumerate(may) if job.spread == spread and zone_of[w.name] == zone}, 0, cap)
    value = _solve(cost, rows, low, high)
    placed = -(value // per_job)
    rest = value + placed * per_job
    squares = -(-rest // per_square)
    return Optimum(placed, squares, squares * per_square - rest)


def best_matching(
    jobs: Sequence[Job],
    workers: Sequence[Worker],
    homes: Mapping[str, str],
    caps: Mapping[tuple[str, str], int],
) -> Matching:
    """Of the dedicated jobs: how many are placed, and the fewest live jobs, they themselves or others, that must go."""
    dedicated = [job for job in jobs if job.dedicated]
    beside = Counter(homes[job.name] for job in jobs if not job.dedicated and job.name in homes)
    may = [
        (job, worker)
        for job in dedicated
        for worker in workers
        if job.group in worker.takes and (worker.capacity is None or worker.capacity >= job.weight)
    ]
    live = sum(job.name in homes for job in dedicated)
    if not may:
        return Matching(0, live)
    per_job = len(jobs) * 2 + 1
    cost = [-per_job + beside[worker.name] - (homes.get(job.name) == worker.name) for job, worker in may]
    rows: list[dict[int, float]] = [{i: 1 for i, (one, _) in enumerate(may) if one is job} for job in dedicated]
    rows += [{i: 1 for i, (_, one) in enumerate(may) if one is worker} for worker in workers]
    high: list[float] = [1] * len(rows)
    for (spread, zone), cap in caps.items():
        rows.append({i: 1 for i, (job, worker) in enumerate(may) if (job.spread, worker.zone) == (spread, zone)})
        high.append(cap)
    value = _solve(cost, rows, [0] * len(rows), high)
    placed = (len(jobs) - value) // per_job  # from -live to the number of jobs comes on top of what was placed
    return Matching(placed, value + placed * per_job + live)


def _solve(
    cost: Sequence[float], rows: Sequence[Mapping[int, float]], low: Sequence[float], high: Sequence[float]
) -> int:
    """The least cost of whole numbers from 0 to 1."""
    matrix = lil_array((len(rows), len(cost)))
    for number, terms in enumerate(rows):
        for column, factor in terms.items():
            matrix[number, column] = factor
    found = milp(
        numpy.array(cost, dtype=float),
        constraints=LinearConstraint(matrix.tocsc(), low, high),
        integrality=numpy.ones(len(cost)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    assert found.success, found.message
    assert abs(found.fun - round(found.fun)) < 1e-3, "the weights are too far apart for a float"
    return round(found.fun)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change has cost and how good its outcome is, counted from the two assignments alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker
from bench.placement_peers import Assignment


class Counted(NamedTuple):
    """`moves`: jobs that are still on the list and leave a worker that is still there. `restarts`: workers that were
    there before, are still, and have other jobs now; of `stayed`. `imbalance`: largest load minus smallest.
    `heaviest`: the weight of one job. `unplaced`: jobs without a worker. `broken`: by how much rules are broken, in
    jobs (see `broken`).
    """

    moves: int
    restarts: int
    stayed: int
    imbalance: int
    heaviest: int
    squares: int
    unplaced: int
    broken: int


def count(jobs: Sequence[Job], workers: Sequence[Worker], previous: Assignment, now: Assignment) -> Counted:
    """Raises ValueError for an outcome that is none: a job twice, or one or a worker that is not there."""
    known = {job.name: job for job in jobs}
    where = {job: worker for worker, own in now.items() for job in own}
    if len(where) != sum(map(len, now.values())):
        raise ValueError("a job is on two workers")
    if not where.keys() <= known.keys() or not now.keys() <= {worker.name for worker in workers}:
        raise ValueError("a job or a worker that is not there")
    staying = [worker.name for worker in workers if worker.name in previous]
    loads = [sum(known[job].weight for job in now.get(worker.name, ())) for worker in workers]
    return Counted(
        moves=sum(job in known and where.get(job) != worker for worker in staying for job in previous[worker]),
        restarts=sum(set(previous[worker]) != set(now.get(worker, ())) for worker in staying),
        stayed=len(staying),
        imbalance=max(loads) - min(loads),
        heaviest=max((job.weight for job in jobs), default=0),
        squares=sum(load**2 for load in loads),
        unplaced=len(known) - len(where),
        broken=broken(known, workers, now),
    )


def broken(jobs: Mapping[str, Job], workers: Sequence[Worker], now: Assignment) -> int:
    """Jobs on a worker that does not take them, load above a capacity, jobs that a dedicated one has beside it, and
    jobs of a spread group in a zone beyond its part: of the zones that have a worker which takes them."""
    found = 0
    zones: Counter[tuple[str, str, str]] = Counter()
    for worker in workers:
        own = [jobs[name] for name in now.get(worker.name, ())]
        found += sum(job.group not in worker.takes for job in own)
        if worker.capacity is not None:
            found += max(0, sum(job.weight for job in own) - worker.capacity)
        if any(job.dedicated for job in own):
            found += len(own) - 1
        zones.update((job.spread, job.group, worker.zone) for job in own if job.spread)
    listed = Counter((job.spread, job.group) for job in jobs.values() if job.spread)
    for (spread, group, _zone), there in zones.items():
        able = {worker.zone for worker in workers if group in worker.takes}
        found += max(0, there - math.ceil(listed[spread, group] / max(1, len(able))))
    return found

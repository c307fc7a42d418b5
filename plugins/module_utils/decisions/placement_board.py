# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A placement of weighted jobs in the making: loads, room and zones, and the steps that make it more equal.

Rules
1. A step shifts one job, or exchanges two, between a fuller worker and an emptier one, so that both end strictly
   between what they had. The greatest load never grows, the least never falls, the sum of squares falls: it ends.
2. Steps begin at the fullest worker; if that is stuck, at the emptiest. If both are, nothing is gained at the ends.
3. A step costs the live jobs that it takes from home, less those that it takes back. What costs least comes first, and
   what costs anything is not done any more once the loads are even enough.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_pool import Job, Worker, Zones

NEAR: Final = 16  # workers at the other end with which jobs are exchanged; shifts go by all
EVEN: Final = 50  # no live job moves for the last fiftieth of a mean load: a restart costs more than that


class Step(NamedTuple):
    """`job` goes from `fuller` to `emptier`, and `back` the other way. The least is the best."""

    cost: int
    loss: int  # of what the sum of squares gains, halved
    job: str
    fuller: int
    emptier: int
    back: str


class Board:
    """`own` has each worker's jobs by name, `ranked` the workers by load; workers that are `apart` do not take part."""

    def __init__(
        self,
        jobs: Mapping[str, Job],
        pool: Sequence[Worker],
        apart: Collection[int],
        limits: Zones,
        kept: Iterable[Sequence[str]],
    ) -> None:
        self.jobs, self.pool, self.limits = jobs, pool, limits
        self.own = [[] if number in apart else [job for job in some if job in jobs] for number, some in enumerate(kept)]
        self.home = {job: number for number, some in enumerate(self.own) for job in some}
        self.load = [sum(jobs[job].weight for job in some) for some in self.own]
        self.ranked = sorted((self.load[number], number) for number in range(len(pool)) if number not in apart)
        weights = [job.weight for job in jobs.values()]
        self.even = min(max(weights, default=0), sum(weights) // (EVEN * max(1, len(self.ranked))))
        self.in_zone = Counter(
            (jobs[job].spread, pool[number].zone) for number, some in enumerate(self.own) for job in some
        )

    def fits(self, job: Job, worker: int, *, source: int | None = None, leaving: Job | None = None) -> bool:
        """Whether the worker may have it besides what it has; `source` has it now, and `leaving` goes there."""
        _other, takes, capacity, zone = self.pool[worker]
        if job.group not in takes:
            return False
        if capacity is not None and self.load[worker] + job.weight - (leaving.weight if leaving else 0) > capacity:
            return False
        if not job.spread or (source is not None and self.pool[source].zone == zone):
            return True
        there = self.in_zone[job.spread, zone] - (leaving is not None and leaving.spread == job.spread)
        return there < self.limits[job.spread, zone]

    def put(self, name: str, worker: int) -> None:
        self._change(name, worker, 1)
        insort(self.own[worker], name)

    def drop(self, name: str, worker: int) -> None:
        self._change(name, worker, -1)
        del self.own[worker][bisect_left(self.own[worker], name)]

    def _change(self, name: str, worker: int, sign: int) -> None:
        del self.ranked[bisect_left(self.ranked, (self.load[worker], worker))]
        self.load[worker] += sign * self.jobs[name].weight
        insort(self.ranked, (self.load[worker], worker))
        self.in_zone[self.jobs[name].spread, self.pool[worker].zone] += sign

    def step(self, budget: int | None) -> int | None:
        """Make the best step that costs no more than the budget, and tell what it cost; None where there is none."""
        if not self.ranked or self.ranked[0][0] == self.ranked[-1][0]:
            return None
        (least, emptiest), (most, fullest) = self.ranked[0], self.ranked[-1]
        if most - least <= self.even:
            budget = 0
        for search in (
            self._shifts(fullest),
            self._shifts_to(emptiest, budget),
            (step for _other, other in self.ranked[:NEAR] for step in self._exchanges(fullest, other)),
            (step for _other, other in self.ranked[-NEAR:] for step in self._exchanges(other, emptiest)),
        ):
            best = min((step for step in search if budget is None or step.cost <= budget), default=None)
            if best:
                self._make(best)
                return best.cost
        return None

    def _make(self, step: Step) -> None:
        self.drop(step.job, step.fuller)
        if step.back:
            self.drop(step.back, step.emptier)
            self.put(step.back, step.fuller)
        self.put(step.job, step.emptier)

    def _cost(self, name: str, source: int, target: int) -> int:
        home = self.home.get(name, -1)
        return (home == source) - (home == target)

    def _different(self, worker: int) -> Iterator[tuple[str, Job]]:
        """Its jobs; of those that are alike the last by name."""
        seen = set()
        for name in reversed(self.own[worker]):
            job = self.jobs[name]
            alike = (job.weight, job.group, job.spread, self.home.get(name, -1))
            if alike not in seen:
                seen.add(alike)
                yield name, job

    def _shifts(self, fuller: int) -> Iterator[Step]:
        """For each of its jobs the shift to the emptiest worker that takes it."""
        load = self.load[fuller]
        for name, job in self._different(fuller):
            for other, emptier in self.ranked:
                gap = load - other
                if gap <= job.weight:
                    break
                if self.fits(job, emptier, source=fuller):
                    gain = job.weight * (gap - job.weight)
                    yield Step(self._cost(name, fuller, emptier), -gain, name, fuller, emptier, "")
                    break

    def _shifts_to(self, emptier: int, budget: int | None) -> Iterator[Step]:
        """The shifts from the fullest worker that can give it something."""
        load = self.load[emptier]
        for other, fuller in reversed(self.ranked):
            gap, found = other - load, False
            if gap <= 1:
                return
            for name, job in self._different(fuller):
                cost = self._cost(name, fuller, emptier)
                if job.weight < gap and (budget is None or cost <= budget) and self.fits(job, emptier, source=fuller):
                    yield Step(cost, -job.weight * (gap - job.weight), name, fuller, emptier, "")
                    found = True
            if found:
                return

    def _exchanges(self, fuller: int, emptier: int) -> Iterator[Step]:
        """For each job of the fuller those that fit of the emptier with which the gap comes nearest to its half."""
        gap = self.load[fuller] - self.load[emptier]
        if gap <= 1:
            return
        others = sorted((job.weight, name) for name, job in self._different(emptier))
        for name, job in self._different(fuller):
            at = bisect_left(others, (job.weight - gap / 2, ""))
            for side in (others[at:], reversed(others[:at])):
                for weight, back in side:
                    shifted = job.weight - weight
                    if not 0 < shifted < gap:
                        break
                    if self.fits(job, emptier, source=fuller, leaving=self.jobs[back]) and self.fits(
                        self.jobs[back], fuller, source=emptier, leaving=job
                    ):
                        cost = self._cost(name, fuller, emptier) + self._cost(back, emptier, fuller)
                        yield Step(cost, -shifted * (gap - shifted), name, fuller, emptier, back)
                        break

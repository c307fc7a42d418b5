# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What no placement can better: the optimum of a change, by HiGHS, and by a formula where all are alike.

Jobs of one class and one spread group that a worker had before are alike, so that what is decided is a number of them:
`kept`, and `new` ones beside. Four programs are solved one after the other, each within the optimum of those before:
most jobs placed, least sum of squares of the loads, most jobs kept (= fewest moves), fewest restarts. The first three
are flows in a network, so that the linear program has a whole solution; the last has a yes or no for each worker.
Jobs have weight 1 here, and none is dedicated.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker
from bench.placement_peers import SOLVER, Assignment, version

PATIENCE = 60.0  # seconds for the fewest restarts; the bound that is proven by then counts
SLACK = 1e-4  # by which an optimum may be missed later on: far below 1
Kind = tuple[str, str]  # class and spread group
Sum = dict[int, int]


class Optimum(NamedTuple):
    """Bounds for one change. `proven`: some placement reaches all of them."""

    placed: int
    squares: int
    moves: int
    restarts: int
    proven: bool = True


def held(jobs: Iterable[Job], workers: Iterable[Worker], previous: Assignment) -> dict[str, list[Job]]:
    """For each worker that stays its jobs that are still on the list."""
    known = {job.name: job for job in jobs}
    staying = [worker.name for worker in workers if worker.name in previous]
    return {name: [known[job] for job in previous[name] if job in known] for name in staying}


def by_formula(jobs: Sequence[Job], workers: Sequence[Worker], previous: Assignment) -> Optimum:
    """The bounds where all jobs are alike, and all workers.

    Loads are q or q + 1. What a worker costs (moves, then restarts) depends on its own load alone, so that the r higher
    loads go where they cost least.
    """
    q, r = divmod(len(jobs), len(workers))
    moves = restarts = 0
    extra = []
    for name, there in held(jobs, workers, previous).items():
        lost = len(there) < len(previous[name])
        low, high = ((max(0, len(there) - load), int(lost or load != len(there))) for load in (q, q + 1))
        moves, restarts = moves + low[0], restarts + low[1]
        extra.append((high[0] - low[0], high[1] - low[1]))
    extra += [(0, 0)] * (len(workers) - len(extra))
    cheapest = sorted(extra)[:r]
    squares = r * (q + 1) ** 2 + (len(workers) - r) * q**2
    return Optimum(len(jobs), squares, moves + sum(m for m, _ in cheapest), restarts + sum(s for _, s in cheapest))


def by_solver(
    jobs: Sequence[Job], workers: Sequence[Worker], previous: Assignment, *, loads: range | None = None
) -> Optimum:
    """The bounds of any change without weights and dedicated jobs. `loads`: see Flow; without restarts then."""
    flow = Flow(jobs, workers, previous, loads or range(len(jobs)))
    placed = flow.most(flow.placed)
    squares = flow.least(flow.squares)
    moves = sum(map(len, held(jobs, workers, previous).values())) - flow.most(flow.kept)
    restarts, proven = flow.restarts() if loads is None else Least(0, proven=False)
    return Optimum(placed, squares, moves, restarts, proven)


class Flow:
    """The network of one change: kind of job -> worker -> slots of its load, each dearer than the one before.

    `loads`: the range in which slots are told apart. Those below it are one, which is right where no optimum leaves
    one of them empty, and there are none above. An unknown is a number, a sum the factors of its unknowns.
    """

    def __init__(self, jobs: Sequence[Job], workers: Sequence[Worker], previous: Assignment, loads: range) -> None:
        self._program, self._loads, self._previous = Program(), loads, previous
        self._alive = {
            name: Counter((job.group, job.spread) for job in there)
            for name, there in held(jobs, workers, previous).items()
        }
        self._kept: dict[str, dict[Kind, int]] = defaultdict(dict)
        self._new: dict[str, dict[Kind, int]] = defaultdict(dict)
        self.squares: Sum = {}
        supply = Counter((job.group, job.spread) for job in jobs)
        names = [worker.name for worker in workers]
        for worker in workers:
            self._add(worker, supply)
        for kind, count in supply.items():
            self._program.at_most(count, self._of(names, [kind]))
        self._spread(workers, supply)
        self.placed = self._of(names, supply)
        self.kept: Sum = {unknown: 1 for kept in self._kept.values() for unknown in kept.values()}

    def _add(self, worker: Worker, supply: Counter[Kind]) -> None:
        """The worker with its slots."""
        for kind, count in supply.items():
            if kind[0] in worker.takes:
                if alive := self._alive.get(worker.name, Counter())[kind]:
                    self._kept[worker.name][kind] = self._program.unknown(alive)
                self._new[worker.name][kind] = self._program.unknown(count)
        most = self._loads.stop if worker.capacity is None else min(self._loads.stop, worker.capacity)
        low = min(self._loads.start, most)
        slots = {self._program.unknown(low): low} if low else {}
        slots |= {self._program.unknown(1): 2 * load + 1 for load in range(low, most)}
        self.squares |= slots
        self._program.at_most(0, {**self._of([worker.name], supply), **dict.fromkeys(slots, -1)})

    def _of(self, names: Iterable[str], kinds: Iterable[Kind]) -> Sum:
        """How many jobs of these kinds these workers have."""
        kinds = list(kinds)
        there = [each[name] for name in names for each in (self._kept, self._new) if name in each]
        return {each[kind]: 1 for each in there for kind in kinds if kind in each}

    def _spread(self, workers: Sequence[Worker], supply: Counter[Kind]) -> None:
        for kind, count in supply.items():
            zones: dict[str, list[str]] = defaultdict(list)
            for worker in workers:
                if kind[0] in worker.takes:
                    zones[worker.zone].append(worker.name)
            for names in zones.values() if kind[1] else ():
                self._program.at_most(math.ceil(count / len(zones)), self._of(names, [kind]))

    def most(self, total: Sum) -> int:
        return -self.least({unknown: -factor for unknown, factor in total.items()})

    def least(self, total: Sum) -> int:
        """The least of this sum; it stays so in what is asked next."""
        found = self._program.least(total)
        if not found.proven:
            raise RuntimeError("no optimum of a linear program")
        self._program.at_most(found.value + SLACK, total)
        return found.value

    def restarts(self) -> Least:
        """The fewest."""
        changed, choices = 0, []
        for name, alive in self._alive.items():
            if sum(alive.values()) < len(self._previous[name]):
                changed += 1  # a job of it is no more
                continue
            choices.append(choice := self._program.unknown(1, whole=True))
            for kind, count in alive.items():  # all of them are kept, or it is changed
                kept = self._kept[name].get(kind)
                self._program.at_most(-count, {choice: -count} if kept is None else {choice: -count, kept: -1})
            for new in self._new[name].values():
                self._program.at_most(0, {new: 1, choice: -len(self._loads)})
        fewest = self._program.least(dict.fromkeys(choices, 1))
        return Least(changed + fewest.value, fewest.proven)


class Least(NamedTuple):
    """The least value; where it is not proven to be reached, a bound below which there is none."""

    value: int
    proven: bool


class Program:
    """A linear program that grows. Its unknowns are numbers from 0 on, and 0 or more; some are whole."""

    def __init__(self) -> None:
        version(SOLVER)
        self._numpy, self._sparse = importlib.import_module("numpy"), importlib.import_module("scipy.sparse")
        self._optimize = importlib.import_module("scipy.optimize")
        self._upper: list[int] = []
        self._whole: list[int] = []
        self._bounds: list[float] = []
        self._factors: list[float] = []
        self._at: tuple[list[int], list[int]] = ([], [])  # rows, columns

    def unknown(self, upper: int, *, whole: bool = False) -> int:
        self._upper.append(upper)
        self._whole.append(int(whole))
        return len(self._upper) - 1

    def at_most(self, bound: float, total: Sum) -> None:
        self._at[0].extend([len(self._bounds)] * len(total))
        self._at[1].extend(total)
        self._factors.extend(total.values())
        self._bounds.append(bound)

    def least(self, total: Sum) -> Least:
        if not total:
            return Least(0, True)
        costs = self._numpy.zeros(len(self._upper))
        costs[list(total)] = list(total.values())
        matrix = self._sparse.csr_array((self._factors, self._at), shape=(len(self._bounds), len(self._upper)))
        found = self._optimize.milp(
            costs,
            integrality=self._whole,
            bounds=self._optimize.Bounds(0, self._upper),
            constraints=self._optimize.LinearConstraint(matrix, ub=self._bounds),
            options={"time_limit": PATIENCE} if any(self._whole) else {},
        )
        if found.status == 0:
            return Least(round(found.fun), True)
        return Least(math.ceil((found.mip_dual_bound or 0) - SLACK), False)

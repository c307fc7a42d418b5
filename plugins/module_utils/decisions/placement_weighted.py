# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Placement of jobs that differ in weight: a good one, as the best is NP-hard to find.

Rules
1. Dedicated jobs first (`placement_reserve`). Then live jobs stay where they are, unless their worker does not take
   them, has not the capacity, or has too many of a spread in its zone.
2. Homeless jobs, the heaviest first, go to the least loaded worker that may have them. If some find no place, the
   lightest are tried first, and what places more counts; then one job elsewhere is shifted out of the way.
3. Steps make the loads more equal (`placement_board`), at the cost of no more than `churn` live jobs taken from home.
   Jobs that have just been placed are free. A rebalance that the churn cut short goes on in the next one.
4. So if nothing must move, the imbalance is never greater than it was. Where each job may run everywhere and churn has
   no bound, it is at most the weight of the lightest job on the fullest worker.

Theory: longest processing time first (Graham, 1969) is within a third of the least greatest load; shifting and
exchanging is the usual local search for what follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heapreplace
from typing import Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    placement_pool,
    placement_reserve,
    placement_why,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_board import Board
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_pool import (
    Job,
    Listed,
    Placement,
    Previous,
    Worker,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_reserve import Reserved

METHOD: Final = "weighted"
TRIES: Final = 2000  # jobs that are looked at to make room for one


def weighted_path(listed: Listed, pool: Sequence[Worker], previous: Previous, churn: int | None) -> Placement:
    """The placement; no more than `churn` live jobs leave their home for balance alone, None for no bound."""
    now = placement_pool.held(listed.names, listed.distinct, pool, previous)
    reserved = placement_reserve.reserve(listed, pool, now)
    others = {job.name: job for job in listed.jobs if not job.dedicated}
    board = Board(others, pool, reserved.job_on, reserved.limits, now.kept.values())
    _shed(board)
    left = _fill(board, others.keys() - {job for own in board.own for job in own}, churn)

    assignment = {
        worker: (reserved.job_on[number],) if number in reserved.job_on else tuple(board.own[number])
        for number, worker in enumerate(now.kept)
    }
    changed = {worker for worker, own in now.kept.items() if tuple(own) != assignment[worker]}
    unplaced = dict(reserved.unplaced) | {job: _reason(others[job], board, reserved) for job in left}
    loads = [load for load, _other in board.ranked]
    return Placement(
        assignment=assignment,
        unplaced=dict(sorted(unplaced.items())),
        method=METHOD,
        moves=sum(len(set(now.kept[worker]).difference(assignment[worker])) for worker in changed),
        least_moves=None,
        restarts=placement_pool.restarts(now, previous, assignment, changed),
        least_restarts=None,
        imbalance=max(loads, default=0) - min(loads, default=0),
    )


def _shed(board: Board) -> None:
    """Take from the workers what they may not have; of too much the lightest job that suffices, or the heaviest."""
    for number, worker in enumerate(board.pool):
        for name in [name for name in board.own[number] if board.jobs[name].group not in worker.takes]:
            board.drop(name, number)
    for (spread, zone), limit in sorted(board.limits.items()):
        there = [number for number, worker in enumerate(board.pool) if worker.zone == zone]
        while board.in_zone[spread, zone] > limit:
            # of the fullest worker that has one
            number = max(there, key=lambda one: (bool(_of_spread(board, one, spread)), board.load[one], one))
            board.drop(_of_spread(board, number, spread)[-1], number)
    for number, worker in enumerate(board.pool):
        while worker.capacity is not None and board.load[number] > worker.capacity:
            over = board.load[number] - worker.capacity
            weights = [(board.jobs[name].weight, name) for name in board.own[number]]
            enough = [one for one in weights if one[0] >= over]
            board.drop(min(enough)[1] if enough else max(weights)[1], number)


def _of_spread(board: Board, number: int, spread: str) -> list[str]:
    return [name for name in board.own[number] if board.jobs[name].spread == spread]


def _fill(board: Board, homeless: Iterable[str], churn: int | None) -> list[str]:
    """Place what is homeless and even out, as long as the one makes room for the other; what is left has no place."""
    waiting = sorted(homeless)
    budget = churn
    while True:
        left = _place(board, waiting)
        has_changed = len(left) < len(waiting)
        while (cost := board.step(budget)) is not None:
            has_changed = True
            budget = None if budget is None else budget - cost
        if not left or not has_changed:
            return left
        waiting = left


def _place(board: Board, names: Sequence[str]) -> list[str]:
    """What has no place on the board, after all that can be placed is."""
    heavy_first = sorted(names, key=lambda name: (-board.jobs[name].weight, name))
    placed, left = _place_in_order(board, heavy_first)
    if left:
        for name, number in placed:
            board.drop(name, number)
        lighter, still = _place_in_order(board, sorted(names, key=lambda name: (board.jobs[name].weight, name)))
        if len(still) >= len(left):
            for name, number in lighter:
                board.drop(name, number)
            placed, still = _place_in_order(board, heavy_first)
        left = [name for name in still if not _make_room(board, board.jobs[name])]
    return sorted(left)


def _place_in_order(board: Board, names: Iterable[str]) -> tuple[list[tuple[str, int]], list[str]]:
    """Each to the least loaded worker that may have it; where they went, and who found none."""
    # Loads only grow here, so a heap that is put right at its top when that is looked at is enough.
    heaps: dict[str, list[tuple[int, int]]] = {}
    placed, left = [], []
    for name in names:
        job = board.jobs[name]
        heap = heaps.get(job.group)
        if heap is None:
            heap = [(load, number) for load, number in board.ranked if job.group in board.pool[number].takes]
            heapify(heap)
            heaps[job.group] = heap
        while heap and heap[0][0] != board.load[heap[0][1]]:
            heapreplace(heap, (board.load[heap[0][1]], heap[0][1]))
        number = heap[0][1] if heap else None
        if number is not None and not board.fits(job, number):
            number = next((one for _other, one in board.ranked if board.fits(job, one)), None)
        if number is None:
            left.append(name)
        else:
            board.put(name, number)
            placed.append((name, number))
    return placed, left


def _make_room(board: Board, job: Job) -> bool:
    """Shift one other job to where it fits, so that this one fits in its place; whether that could be done."""
    tries = TRIES
    most_free = max((_free(board, number) for _other, number in board.ranked), default=0)
    for _other, number in board.ranked:
        if not board.fits(job._replace(weight=0), number):  # by its group and zone
            continue
        over = job.weight - _free(board, number)
        for weight, name in sorted((board.jobs[name].weight, name) for name in board.own[number]):
            if weight < over:
                continue
            if weight > most_free or not tries:
                break
            tries -= 1
            other = board.jobs[name]
            target = next(
                (to for _other, to in board.ranked if to != number and board.fits(other, to, source=number)), None
            )
            if target is not None:
                board.drop(name, number)
                board.put(name, target)
                board.put(job.name, number)
                return True
    return False


def _free(board: Board, number: int) -> int:
    capacity = board.pool[number].capacity
    return (1 << 60) if capacity is None else capacity - board.load[number]


def _reason(job: Job, board: Board, reserved: Reserved) -> str:
    takers = [number for number, worker in enumerate(board.pool) if job.group in worker.takes]
    free = [number for number in takers if number not in reserved.job_on]
    open_ = [number for number in free if board.fits(job._replace(weight=0), number)]
    return placement_why.too_heavy(
        (job.group, job.spread),
        job.weight,
        max((_free(board, number) for number in open_), default=0),
        [board.pool[number].name for number in open_],
        full=[board.pool[number].name for number in free if number not in open_],
        kept=[board.pool[number].name for number in takers if number in reserved.job_on],
    )

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which worker does which jobs: a pure function of the jobs, the workers, and who did what before.

Rules
1. A job that is dedicated comes first and has a worker for itself. Then, in this order: as many jobs as possible have a
   worker; the loads are as equal as possible; as few live jobs as possible move; few workers restart.
2. The same input gives the same bytes, in whatever order it comes and whatever the hash seed. Given its own result as
   `previous`, a placement changes nothing (but for a weighted one that its churn had cut short).
3. An overloaded worker gives up its last jobs by name; what is homeless, by name, fills the workers in natural order.
   So, from nothing, the workers have contiguous blocks of the sorted jobs.
4. Three paths. Quota (here): all jobs weigh the same and may run everywhere. N jobs on M workers are q = N // M each,
   and one more on r = N % M of them, so the only question is who has one more. Flow (`placement_flow`): classes,
   capacities, zones, dedicated jobs; exact. Weighted (`placement_weighted`): NP-hard, so a good answer, never a worse.

Theory: loads which are decreasingly minimal have the least sum of squares, and the reverse (Harvey, Ladner, Lovász and
Tamir, Semi-matchings for bipartite graphs, 2006; Frank and Murota, Decreasing minimization on M-convex sets, 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    placement_flow,
    placement_pool,
    placement_weighted,
    placement_why,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_pool import (
    Held,
    Job,
    Listed,
    Placement,
    Previous,
    Worker,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_why import explain
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

__all__ = ["Job", "Placement", "Worker", "explain", "place", "place_names"]

QUOTA = "quota"


def place(jobs: Iterable[Job], workers: Iterable[Worker], previous: Previous, *, churn: int | None = None) -> Placement:
    """The placement of these jobs on these workers.

    `previous` has for a worker the names of the jobs that it had; it may name jobs and workers that are no more.
    `churn` is the most improving moves of the weighted path, None for no bound. Raises Malformed for names that are
    empty, too long or given twice, weights below 1, capacities or a churn below 0, one spread of several groups.
    """
    if churn is not None and (not isinstance(churn, int) or churn < 0):
        raise Malformed("churn", churn, "give a whole number from 0 on, or None")
    listed = placement_pool.listed(jobs)
    pool = placement_pool.in_natural_order(workers)
    weights = {weight for weight, _other, dedicated, _more in listed.sorts if not dedicated}
    if len(weights) > 1 and pool:
        return placement_weighted.weighted_path(listed, pool, previous, churn)
    weight = weights.pop() if weights else 1
    if not _is_uniform(listed, pool):
        return placement_flow.flow_path(listed, pool, previous, weight)
    return _quota_path(listed.names, listed.distinct, pool, previous, weight)


def place_names(names: Sequence[str], workers: Iterable[str], previous: Previous) -> Placement:
    """The quota path on plain names: jobs that weigh the same, on workers that run any. Raises Malformed as `place`."""
    distinct = placement_pool.check_names("jobs", names)
    return _quota_path(names, distinct, placement_pool.in_natural_order(map(Worker, workers)), previous, 1)


def _is_uniform(listed: Listed, pool: Sequence[Worker]) -> bool:
    """Whether all jobs, which are of one weight, may run everywhere, and no capacity binds."""
    if not pool:
        return True  # nothing is placed at all
    if listed.has_dedicated or (listed.has_spread and len({worker.zone for worker in pool}) > 1):
        return False
    groups = {group for _other, group, _more, _rest in listed.sorts}
    most = max((weight for weight, _other, _more, _rest in listed.sorts), default=0) * -(
        -len(listed.names) // len(pool)
    )
    return all(worker.takes >= groups and (worker.capacity is None or worker.capacity >= most) for worker in pool)


# ---------------------------------------------------------------------------------------------------------------------
# The quota path


class Bounds(NamedTuple):
    moves: int
    restarts: int


def _quota_path(
    names: Sequence[str], distinct: set[str], pool: Sequence[Worker], previous: Previous, weight: int
) -> Placement:
    if not pool:
        return Placement({}, dict.fromkeys(sorted(names), placement_why.NO_WORKERS), QUOTA, 0, 0, 0, 0, 0)
    now = placement_pool.held(names, distinct, pool, previous)
    bounds = least(now, len(names))
    targets = quotas(now, len(names))
    moves = 0
    changed = set()
    for worker, own in now.kept.items():
        if len(own) > targets[worker]:
            given = own[targets[worker] :]
            del own[targets[worker] :]
            now.homeless.update(given)
            moves += len(given)
            changed.add(worker)
    waiting = placement_pool.by_name(now.homeless, names)
    start = 0
    for worker, own in now.kept.items():
        if len(own) < targets[worker]:
            end = start + targets[worker] - len(own)
            own += waiting[start:end]
            own.sort()
            start = end
            changed.add(worker)
    assignment = {worker: tuple(own) for worker, own in now.kept.items()}
    return Placement(
        assignment=assignment,
        unplaced={},
        method=QUOTA,
        moves=moves,
        least_moves=bounds.moves,
        restarts=placement_pool.restarts(now, previous, assignment, changed),
        least_restarts=None if now.disputed else bounds.restarts,
        imbalance=(max(targets.values()) - min(targets.values())) * weight,
    )


def quotas(now: Held, jobs: int) -> dict[str, int]:
    """How many of the jobs each worker gets: q, or q + 1 for r of them.

    One more goes first to a worker that has q + 1 and changes nothing then, next to others above q: each saves a move.
    What is left of r goes to workers that change anyway, first to the new ones, which need no restart; last to those
    that have just q.
    """
    part, extra = divmod(jobs, len(now.kept))

    def rank(worker: str) -> int:
        has = len(now.kept[worker])
        if has > part:
            return 0 if has == part + 1 and worker not in now.spoiled else 1
        if worker not in now.known:
            return 2
        return 3 if has < part or worker in now.spoiled else 4

    ranked = sorted(now.kept, key=rank)  # stable: natural order within a rank
    return {worker: part + (place < extra) for place, worker in enumerate(ranked)}


def least(now: Held, jobs: int) -> Bounds:
    """The fewest moves and the fewest restarts of any placement with q or q + 1 jobs on each worker.

    Moves: a worker that has c > q live jobs gives up c - q of them, one less if it is one of the r that have q + 1; and
    no more than r can be.
    Restarts: a worker that lost something, or has neither q nor q + 1 live jobs, changes in any case. Of those that
    have q + 1 at most r stay as they are. Of those that have q none needs to change, unless r is greater than the
    number of all others: then as many of them get one more. Both can be had at once, and with the fewest moves.
    """
    part, extra = divmod(jobs, len(now.kept))
    has = {worker: len(own) for worker, own in now.kept.items()}
    above = [count - part for count in has.values() if count > part]
    settled = [has[worker] for worker in now.known - now.spoiled]
    at_part, one_more = settled.count(part), settled.count(part + 1)
    unchanged = min(extra, one_more) + at_part - max(0, extra - (len(has) - at_part))
    return Bounds(sum(above) - min(extra, len(above)), len(now.known) - unchanged)

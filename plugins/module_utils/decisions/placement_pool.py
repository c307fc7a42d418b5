# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs, workers, who has what now, and the result of a placement: what all paths of `placement` share.

Rules
1. Workers stand in natural order of their names (`w-2` before `w-10`), jobs in the order of their names. Nothing
   depends on the order in which they come, and no set is walked through unless it is sorted first.
2. A job is live where a worker of the pool has it in `previous`; if several have, the first in natural order counts.
   A job without such a worker is homeless: it is new, or its worker is gone.
3. A move is a live job that leaves its worker. A restart is a worker of the pool that stands in `previous` and whose
   set of jobs changes, be it only by a job that is no more.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

NAME_LENGTHS: Final = range(1, 254)
NAMES_TOLD: Final = 5  # of a set of workers, in a sentence

Previous = Mapping[str, Collection[str]]
Zones = Mapping[tuple[str, str], int]  # by (spread, zone): the most jobs of that spread there


class Job(NamedTuple):
    """`group` is its class: only workers that take it run it. A `dedicated` job has its worker for itself.

    Of the n jobs with one non-empty `spread` no zone has more than n / zones, rounded up; zones are those with a worker
    that takes them. Such jobs must be of one group.
    """

    name: str
    weight: int = 1
    group: str = ""
    dedicated: bool = False
    spread: str = ""


class Worker(NamedTuple):
    """`takes` are the groups that it may run, "" those without one; `capacity` is a sum of weights, None unbounded."""

    name: str
    takes: frozenset[str] = frozenset({""})
    capacity: int | None = None
    zone: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Who does what, and what it costs to get there.

    `assignment` has each worker, in natural order, with its jobs by name; `unplaced` says for a job that is nowhere
    which workers are too few. `least_moves` and `least_restarts` are lower bounds for any placement that is as good in
    what comes before (placed, balance), None where none is known. `imbalance` is max - min of the sum of weights over
    the workers without a dedicated job.
    """

    assignment: Mapping[str, tuple[str, ...]]
    unplaced: Mapping[str, str]
    method: str
    moves: int
    least_moves: int | None
    restarts: int
    least_restarts: int | None
    imbalance: int


class Listed(NamedTuple):
    """Jobs; their names, also as a set, which a placement uses up; the (weight, group, dedicated, spread) in use."""

    jobs: Sequence[Job]
    names: Sequence[str]
    distinct: set[str]
    sorts: Collection[tuple[int, str, bool, str]]

    @property
    def has_dedicated(self) -> bool:
        return any(dedicated for _other, _more, dedicated, _rest in self.sorts)

    @property
    def has_spread(self) -> bool:
        return any(spread for _other, _more, _rest, spread in self.sorts)


class Held(NamedTuple):
    """Who has what before anything is changed.

    `kept`: each worker of the pool, in natural order, and its live jobs by name; the lists are the caller's to change.
    `homeless`: the other jobs. `known`: workers that stand in `previous`. `spoiled`: those of them that had something
    which is no more, or counts for another: they restart anyway, except that by chance they get the latter. `disputed`
    says that there is such a job.
    """

    kept: dict[str, list[str]]
    homeless: set[str]
    known: set[str]
    spoiled: set[str]
    disputed: bool


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Sorts runs of digits by their value; names that differ by leading zeros only as they are written."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if odd % 2 else part for odd, part in enumerate(parts)], name


def in_natural_order(workers: Iterable[Worker]) -> list[Worker]:
    """The workers, sorted. Raises Malformed for a bad field or a name given twice."""
    pool = list(workers)
    check_names("workers", [worker.name for worker in pool])
    for worker in pool:
        _check_worker(worker)
    return sorted(pool, key=lambda worker: natural_key(worker.name))


def listed(jobs: Iterable[Job]) -> Listed:
    """The jobs as they came. Raises Malformed for a bad field or a name given twice."""
    # few passes, and none that makes an object for each job: there may be a million
    some = jobs if isinstance(jobs, list | tuple) else list(jobs)
    names = list(map(itemgetter(0), some))
    distinct = check_names("jobs", names)
    sorts = set(map(itemgetter(1, 2, 3, 4), some))
    for weight, group, dedicated, spread in sorts:
        if not isinstance(weight, int) or weight < 1:
            raise Malformed("weight of a job", weight, "give a whole number from 1 on")
        if not isinstance(group, str) or not isinstance(spread, str) or not isinstance(dedicated, bool):
            raise Malformed("a job's (group, dedicated, spread)", (group, dedicated, spread), "give text, bool, text")
    group_of: dict[str, str] = {}
    for _other, group, _more, spread in sorted(sorts):
        if spread and group_of.setdefault(spread, group) != group:
            raise Malformed(f"group of the jobs of spread {spread}", [group_of[spread], group], "give them one group")
    return Listed(some, names, distinct, sorts)


def zone_limits(listed: Listed, pool: Sequence[Worker]) -> Zones:
    """How many jobs of a spread each zone may have, of those with a worker that takes them."""
    spreads = Counter((job.spread, job.group) for job in listed.jobs if job.spread) if listed.has_spread else {}
    groups = {group for _other, group in spreads}
    zones = {group: sorted({worker.zone for worker in pool if group in worker.takes}) for group in groups}
    return {
        (spread, zone): -(-number // len(zones[group]))
        for (spread, group), number in spreads.items()
        for zone in zones[group]
    }


def check_names(what: str, names: Sequence[str]) -> set[str]:
    """The names as a set. Raises Malformed unless these are different texts of 1 to 253 characters."""
    if not set(map(type, names)) <= {str}:
        wrong = next((name for name in names if not isinstance(name, str)), names)
        raise Malformed(f"name of one of the {what}", wrong, "give text")
    if any(length not in NAME_LENGTHS for length in set(map(len, names))):
        wrong = next(name for name in names if len(name) not in NAME_LENGTHS)
        raise Malformed(f"name of one of the {what}", wrong, f"give 1 to {NAME_LENGTHS.stop - 1} characters")
    distinct = set(names)
    if len(distinct) != len(names):
        ordered = sorted(names)
        twice = next(name for name, following in pairwise(ordered) if name == following)
        raise Malformed(what, twice, "name it once")
    return distinct


def _check_worker(worker: Worker) -> None:
    where = f"workers[{worker.name}]"
    takes = worker.takes
    if not isinstance(takes, frozenset | set) or not all(isinstance(group, str) for group in takes):
        raise Malformed(f"{where}.takes", takes, "give a set of groups")
    bound = worker.capacity
    if bound is not None and (not isinstance(bound, int) or isinstance(bound, bool) or bound < 0):
        raise Malformed(f"{where}.capacity", bound, "give a whole number from 0 on, or None")
    if not isinstance(worker.zone, str):
        raise Malformed(f"{where}.zone", worker.zone, "give text")


def held(names: Sequence[str], homeless: set[str], pool: Iterable[Worker], previous: Previous) -> Held:
    """Who has what of the jobs `names`; `homeless` are the same names, and becomes the result's."""
    kept: dict[str, list[str]] = {}
    known, spoiled, lost = set(), set(), set()
    for worker, *_other in pool:
        before = previous.get(worker)
        if before is None:
            kept[worker] = []
            continue
        known.add(worker)
        own = [job for job in before if job in homeless]
        left = len(homeless) - len(own)
        homeless.difference_update(own)
        if len(homeless) != left:  # it names a job twice
            own = list(dict.fromkeys(own))
        if len(own) != len(before) and len(own) != len(set(before)):
            spoiled.add(worker)
            lost.update(set(before).difference(own))
        own.sort()
        kept[worker] = own
    return Held(kept, homeless, known, spoiled, not lost.isdisjoint(names) if lost else False)


def restarts(now: Held, previous: Previous, assignment: Mapping[str, Sequence[str]], changed: set[str]) -> int:
    """How many workers restart; `changed` are those which gave up or got something."""
    changed = now.known & (now.spoiled | changed)
    if now.disputed:
        return sum(set(previous[worker]) != set(assignment[worker]) for worker in changed)
    return len(changed)


def by_name(jobs: set[str], names: Sequence[str]) -> list[str]:
    """The jobs, sorted. `names` has them and others: where they are many it is the cheaper start, if it is sorted."""
    few = len(jobs) * 8 < len(names)
    return sorted(jobs) if few else sorted([name for name in names if name in jobs])


def some_names(workers: Sequence[str]) -> str:
    """The first of them, for a sentence."""
    told = ", ".join(workers[:NAMES_TOLD])
    return f"{told} and {len(workers) - NAMES_TOLD} more" if len(workers) > NAMES_TOLD else told

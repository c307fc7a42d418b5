# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which partition goes to which worker: what to ask for next, of one key space.

Rules
1. A partition that nobody has ever served goes to a worker, many of them in one Assignment. What is on a worker that
   leaves goes elsewhere. Then counts are evened out: a move only from who has at least two more than who gets it.
2. How many each worker is to have says `placement`, which moves as few as it can. What is already asked for counts as
   where it goes; so the same plan comes out of what it has led to, and nothing goes back and forth.
3. What is on a lost worker stays for `lost_after_seconds`. Then a follower in sync is called up; or, where the key
   space may be loaded anew, another worker begins with nothing; or it is declared unserved until the worker is back.
4. No more Assignments are open at once than the key space allows. First come partitions that nobody has, then those of
   lost workers, then drains, then balance.
5. The name of an Assignment is a digest of what it asks for, with the epochs that were seen: two assigners that see the
   same ask once. One that was aborted is asked for again under the next name, later each time.
6. A follower is added when it has all that was acknowledged, and is held to have what comes; it is let go with a higher
   epoch. A partition is moved to no worker that follows it: loading would begin anew there, while writes wait for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations, placement
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import MAX_BATCH, MOVE, NEW
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FOLLOWING,
    LOADING,
    PRIMARY,
    Copy,
)

ASKED_BY: Final = "muster.dev/asked-by"  # label of the Assignments that the assigner makes
ME: Final = "partition-assigner"
MAX_STEM: Final = 40  # characters of a name before its digest
REST: Final = (1.0, 60.0)  # seconds after an abort until the same is asked for again: first, and at most


class Worker(NamedTuple):
    """`silent`: seconds for which it has been lost; None: it lives."""

    name: str
    is_leaving: bool = False
    silent: float | None = None

    @property
    def is_fit(self) -> bool:
        """Whether it may get more."""
        return self.silent is None and not self.is_leaving


class Part(NamedTuple):
    """A partition of the effective view. `operation`: the Assignment that is about it; `planned`: who has it then."""

    name: str
    primary: str = ""
    epoch: int = 0
    followers: tuple[str, ...] = ()
    operation: str = ""
    planned: str = ""


class Ask(NamedTuple):
    """One Assignment: of a New, Partitions and who is to serve them; of a Move, one, and who has it."""

    kind: str
    pairs: tuple[tuple[str, str], ...]
    source: str = ""


class Dismiss(NamedTuple):
    """Let a follower go, and have the epoch grow; one that is none yet is released from being waited for."""

    partition: str
    follower: str
    why: str


@dataclass(slots=True)
class Plan:
    """`why`: what is to be said of a partition, where it is not just served. `unserved`: given up for now, and why."""

    asks: list[Ask] = field(default_factory=list)
    dismissed: list[Dismiss] = field(default_factory=list)
    why: dict[str, str] = field(default_factory=dict)
    unserved: dict[str, str] = field(default_factory=dict)
    targets: dict[str, int] = field(default_factory=dict)


def plan(
    space: Space,
    parts: Iterable[Part],
    workers: Iterable[Worker],
    *,
    budget: int,
    resting: Collection[str] = (),
    alone: Collection[str] = (),
) -> Plan:
    """What to ask for, at most `budget` Assignments. `resting`: Partitions that are left alone for now, as what was
    asked for them came to nothing; `alone`: those that are asked for one by one, as a batch with them was aborted."""
    return _Planning(space, list(parts), list(workers), budget, frozenset(resting), frozenset(alone)).plan()


class _Planning:
    """One plan while it is made."""

    def __init__(
        self,
        space: Space,
        parts: list[Part],
        workers: list[Worker],
        budget: int,
        resting: frozenset[str],
        alone: frozenset[str],
    ) -> None:
        self._space, self._budget, self._resting, self._alone = space, budget, resting, alone
        self._parts = sorted(parts)
        self._workers = {worker.name: worker for worker in workers}
        self._fit = [name for name in sorted(self._workers) if self._workers[name].is_fit]
        self._held: dict[str, list[Part]] = {name: [] for name in self._fit}
        self._counts: dict[str, int] = {}
        self._new: list[Part] = []
        self._drains: list[Part] = []
        self._failovers: list[Part] = []
        self._called: dict[str, str] = {}  # of these, where to
        self._made = Plan()

    def plan(self) -> Plan:
        for part in self._parts:
            self._sort(part)
        self._count()
        self._give()
        self._call_up()
        self._drain()
        self._balance()
        return self._made

    # ------------------------------------------------------------------------------------------ who is where

    def _sort(self, part: Part) -> None:
        primary = self._workers.get(part.primary)
        place = part.planned or part.primary
        if part.operation:
            self._made.why[part.name] = f"Assignment {part.operation} is about it"
            if place in self._held:
                self._held[place].append(part)
        elif not part.primary:
            self._new.append(part)
        elif primary is None or primary.silent is not None:
            self._sort_lost(part, primary.silent if primary and primary.silent else 0.0)
        elif primary.is_leaving:
            self._drains.append(part)
        else:
            self._held[place].append(part)

    def _sort_lost(self, part: Part, silent: float) -> None:
        left = self._space.lost_after_seconds - silent
        if left > 0:
            within = f"it is waited for, for {self._space.lost_after_seconds:g} s"
            self._made.why[part.name] = f"worker {part.primary} is lost: {within}"
        elif any(follower in self._held for follower in part.followers):
            self._failovers.append(part)
        elif self._space.reload:
            self._new.append(part)
        else:
            why = f"worker {part.primary} is lost, and nobody else has the data: bring it back, with its volume"
            self._made.unserved[part.name] = self._made.why[part.name] = why

    def _count(self) -> None:
        """How many each fit worker is to have; who is called up is where its follower is, whatever else comes."""
        jobs = [part.name for part in (*self._new, *self._drains)]
        held = {name: tuple(part.name for part in own) for name, own in self._held.items()}
        for part in self._failovers:
            worker = min((name for name in part.followers if name in held), key=lambda name: (len(held[name]), name))
            held[worker] = (*held[worker], part.name)
            self._called[part.name] = worker
        jobs += [name for own in held.values() for name in own]
        placed = placement.place_names(jobs, self._fit, held)
        self._made.targets = {name: len(own) for name, own in placed.assignment.items()}
        self._counts = {name: len(own) for name, own in held.items()}

    # ------------------------------------------------------------------------------------------ what is asked for

    def _give(self) -> None:
        batch: list[tuple[str, str]] = []
        before = ""
        for part in sorted(self._new, key=lambda part: (part.primary, part.name)):
            if not self._may_go(part):
                continue
            if batch and part.primary != before:  # one lost worker that is back would abort the others' operation
                self._asks(Ask(NEW, tuple(batch)))
                batch = []
            before = part.primary
            worker = self._best(part)
            if not worker:
                self._made.why[part.name] = "there is no worker that may get it"
            elif part.name in self._alone:
                self._asks(Ask(NEW, ((part.name, worker),)))
            elif batch or self._has_budget(part.name):
                batch.append((part.name, worker))
                self._made.why[part.name] = f"it is given to worker {worker}"
            if len(batch) == MAX_BATCH:
                self._asks(Ask(NEW, tuple(batch)))
                batch = []
        if batch:
            self._asks(Ask(NEW, tuple(batch)))

    def _call_up(self) -> None:
        for part in self._failovers:
            if not self._may_go(part) or not self._has_budget(part.name):
                continue
            self._asks(Ask(MOVE, ((part.name, self._called[part.name]),), part.primary))

    def _drain(self) -> None:
        for part in self._drains:
            if not self._may_go(part) or not self._has_budget(part.name):
                continue
            worker = self._best(part, also_followers=True)
            if not worker:
                self._made.why[part.name] = f"worker {part.primary} leaves, and there is no other"
            elif worker in part.followers:
                self._made.dismissed.append(Dismiss(part.name, worker, "it is to be moved there"))
                self._made.why[part.name] = f"worker {worker} follows it no more, and gets it then"
            else:
                self._asks(Ask(MOVE, ((part.name, worker),), part.primary))

    def _balance(self) -> None:
        for worker in self._fit:
            able = [
                part
                for part in self._held[worker]
                if not part.operation and part.primary == worker and part.name not in self._resting
            ]
            while able and self._counts[worker] > self._made.targets.get(worker, 0):
                part = able.pop()
                other = self._best(part)
                if not other or self._counts[worker] - self._counts[other] < 2:
                    continue
                if not self._has_budget(part.name):
                    return
                self._counts[worker] -= 1
                self._counts[other] += 1
                self._asks(Ask(MOVE, ((part.name, other),), worker))

    # ------------------------------------------------------------------------------------------ details

    def _may_go(self, part: Part) -> bool:
        if part.name not in self._resting:
            return True
        self._made.why[part.name] = "what was asked for it last came to nothing: it is tried again in a while"
        return False

    def _best(self, part: Part, *, also_followers: bool = False) -> str:
        """The worker that lacks the most; it counts as given from now on, but not to `_balance`.

        A follower only where each other would have more than anybody is to: then somebody would have to make room.
        """
        able = [name for name in self._fit if name != part.primary and (also_followers or name not in part.followers)]
        if not able:
            return ""
        targets = self._made.targets
        most = max(targets.values(), default=0)
        excess = {name: self._counts[name] - targets.get(name, 0) for name in able}
        worker = min(able, key=lambda name: (self._counts[name] >= most, name in part.followers, excess[name], name))
        if part.primary not in self._held:  # it is on no worker that is counted
            self._counts[worker] += 1
        return worker

    def _has_budget(self, name: str) -> bool:
        if self._budget > 0:
            return True
        self._made.why[name] = f"as many operations are open as the key space allows, {self._space.operations}"
        return False

    def _asks(self, ask: Ask) -> None:
        if self._budget <= 0:
            for partition, _worker in ask.pairs:
                self._has_budget(partition)
            return
        self._budget -= 1
        self._made.asks.append(ask)
        for partition, worker in ask.pairs:
            how = f"it is moved from {ask.source} to {worker}" if ask.source else f"it is given to worker {worker}"
            self._made.why[partition] = how


# ---------------------------------------------------------------------------------------------- how it is asked for


def assignment_for(space: str, ask: Ask, epochs: Mapping[str, int], attempt: int = 0) -> dict[str, Any]:
    """The Assignment, to be created; `attempt`: how many of the same were aborted."""
    if ask.kind == NEW:
        params: dict[str, Any] = {"partitions": [{"partition": one, "primary": worker} for one, worker in ask.pairs]}
    else:
        ((partition, worker),) = ask.pairs
        params = {"partition": partition, "from": ask.source, "to": worker}
    seen = sorted((partition, worker, epochs.get(partition, 0)) for partition, worker in ask.pairs)
    digest = hashlib.sha256(json.dumps([space, ask.kind, seen, ask.source, attempt]).encode()).hexdigest()[:10]
    stem = ask.pairs[0][0][:MAX_STEM].rstrip("-.")
    word = "move" if ask.kind == MOVE else "new"
    obj = operations.make(f"{word}-{stem}-{digest}", space, ask.kind, **params)
    obj["metadata"]["labels"][ASKED_BY] = ME
    return obj


def rest_seconds(attempts: int) -> float:
    """How long after an abort the same is not asked for again."""
    first, most = REST
    return float(min(most, first * 2 ** min(max(attempts, 1) - 1, 16)))


# ---------------------------------------------------------------------------------------------- followers


class Follow(NamedTuple):
    """Have this worker load a follower's copy."""

    partition: str
    follower: str


class Enlist(NamedTuple):
    """Have the primary promise, wait until the follower has all of it, and add it to the Partition."""

    partition: str
    follower: str


class Drop(NamedTuple):
    """Have this worker remove a follower's copy that nobody wants."""

    partition: str
    follower: str


class Patience(NamedTuple):
    """A follower is on its way."""

    partition: str
    follower: str


Following = Dismiss | Follow | Enlist | Drop | Patience  # pylint: disable=unsupported-binary-operation


def follow_up(
    space: Space,
    part: Part,
    workers: Mapping[str, Worker],
    reports: Mapping[str, Mapping[str, Copy]],
    loads: Mapping[str, int],
) -> Following | None:
    """The next step towards as many followers as are wanted, of one partition that nobody else is about.

    `reports`: what each worker that answers has, by Partition; `loads`: how many partitions each follows.
    """
    primary = workers.get(part.primary)
    if part.operation or not part.primary or primary is None or primary.silent is not None:
        return None  # while the primary is lost, its followers are what is left
    gone = [name for name in part.followers if _is_useless(name, part, workers, reports)]
    if gone:
        return Dismiss(part.name, gone[0], "it has no copy any more, or is lost")
    fit = [name for name in sorted(workers) if workers[name].is_fit and name != part.primary]
    wanted = min(space.followers, len(fit))
    staying = [name for name in part.followers if name in fit]
    if len(staying) > wanted:
        return Dismiss(part.name, max(staying, key=lambda name: (loads.get(name, 0), name)), "fewer are wanted")
    if len(staying) == wanted and len(part.followers) > wanted:
        leaving = next(name for name in part.followers if name not in staying)
        return Dismiss(part.name, leaving, "it leaves")
    served = reports.get(part.primary, {}).get(part.name)
    if served is None or served.role != PRIMARY or primary.is_leaving:
        return None
    return (
        _add(part, fit, reports, loads, served) if len(staying) < wanted else _tidy(part, workers, reports, served, "")
    )


def _is_useless(
    name: str, part: Part, workers: Mapping[str, Worker], reports: Mapping[str, Mapping[str, Copy]]
) -> bool:
    worker = workers.get(name)
    if worker is None or worker.silent is not None or name == part.primary:
        return True
    if name not in reports:
        return False  # it does not answer, which says nothing
    return not is_followers(reports[name].get(part.name))


def is_followers(copy: Copy | None) -> bool:
    """Whether it is a copy that follows, and no operation's."""
    return copy is not None and copy.role in (LOADING, FOLLOWING) and not copy.uid


def _add(
    part: Part,
    fit: Sequence[str],
    reports: Mapping[str, Mapping[str, Copy]],
    loads: Mapping[str, int],
    served: Copy,
) -> Following | None:
    able = [name for name in fit if name not in part.followers and name in reports]
    able = [name for name in able if reports[name].get(part.name) is None or is_followers(reports[name][part.name])]
    if not able:
        return None

    def rank(name: str) -> tuple[bool, bool, int, str]:
        copy = reports[name].get(part.name)
        return name not in served.followers, copy is None or copy.origin != part.primary, loads.get(name, 0), name

    chosen = min(able, key=rank)
    copy = reports[chosen].get(part.name)
    if copy is None or copy.origin != part.primary or copy.epoch != part.epoch:
        return Follow(part.name, chosen)
    return Patience(part.name, chosen) if copy.role == LOADING else Enlist(part.name, chosen)


def _tidy(
    part: Part,
    workers: Mapping[str, Worker],
    reports: Mapping[str, Mapping[str, Copy]],
    served: Copy,
    added: str,
) -> Following | None:
    """Release who was promised to be waited for, and is not a follower; remove copies that nobody wants."""
    promised = sorted(set(served.followers) - {*part.followers, added})
    if promised and served.epoch == part.epoch:
        return Dismiss(part.name, promised[0], "it was never added")
    for name in sorted(reports):
        copy = reports[name].get(part.name)
        if name in (*part.followers, added) or copy is None or not is_followers(copy) or name not in workers:
            continue
        if copy.epoch >= part.epoch:
            return Dismiss(part.name, name, "it is wanted no more")
        return Drop(part.name, name)
    return None

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load generator: contenders for permits, as threads in a few processes, and what became of their turns.

A turn is claim, hold, release by one contender. Each contender is a thread that takes turn after turn. The processes
share nothing but the clock (CLOCK_MONOTONIC is one for the whole machine), so turns of different processes compare.

Hand-off: from the moment when a holder calls its release until the next one knows that it holds. It contains the
release's own request, because whoever waits does not care who spends the time.
"""

from __future__ import annotations

import gc
import importlib
import math
import multiprocessing
import random
import resource
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

from bench.machine import Meter

PREPARE_SECONDS = 180.0
LEAVE_SECONDS = 60.0
GIL_SWITCH = 0.0005  # seconds; at Python's 5 ms one busy thread would hold up a contender that was granted


class Holder(NamedTuple):
    """Who claims: the name, and the uid of its Pod."""

    name: str
    uid: str


class Turn(NamedTuple):
    """One turn; times in seconds of the machine's monotonic clock. `fence` 0: the system has none."""

    holder: str
    fence: int
    wanted: float
    granted: float
    let_go: float
    released: float


class Contender(Protocol):
    """One contender; used by one thread."""

    def acquire(self, until: float) -> int | None:
        """Claim and wait; the fence, or None when `until` (monotonic) came first."""

    def release(self) -> None:
        """Give it back."""


class System(Protocol):
    """What one process needs to contend; `requests` counts what it sent (method to number), where that is known."""

    requests: Counter[str]

    def contender(self, holder: Holder) -> Contender: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Contest:
    """What is run: `system` names a class (`module:Class`) made with `options` in each process.

    `seconds` are measured, after `warm_up` seconds which are not. `turns` None: turn after turn until the end. `switch`
    is after how many seconds a busy thread lets another one run.
    """

    system: str
    options: Mapping[str, Any]
    holders: Sequence[Holder]
    seconds: float
    warm_up: float = 3.0
    processes: int = 4
    hold: float = 0.0
    turns: int | None = None
    switch: float = GIL_SWITCH


@dataclass
class Outcome:
    """What became of a contest. `waiting` are the turns that were not granted before the end: (holder, wanted)."""

    begin: float
    end: float
    turns: list[Turn]
    waiting: list[tuple[str, float]] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    cores: dict[str, float] = field(default_factory=dict)
    notes: list[Any] = field(default_factory=list)  # what the systems noted themselves


def run(contest: Contest, servers: Mapping[str, Iterable[int]] | None = None) -> Outcome:
    """Run a contest; `servers` are groups of processes whose CPU time is to be measured beside the generator's."""
    context = multiprocessing.get_context("spawn")
    shares = [list(contest.holders[n :: contest.processes]) for n in range(contest.processes)]
    workers = []
    try:
        for share in shares:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, contest, share), daemon=True)
            process.start()
            theirs.close()
            workers.append((process, ours))
        for process, pipe in workers:
            _expect(pipe, process.pid, "ready", PREPARE_SECONDS)
        begin = time.monotonic() + 0.5
        for _process, pipe in workers:
            pipe.send(begin)
        time.sleep(max(0.0, begin + contest.warm_up - time.monotonic()))
        meter = Meter({"contenders": [process.pid or 0 for process, _pipe in workers], **(servers or {})})
        time.sleep(0 if contest.turns else contest.seconds)
        cores = {} if contest.turns else meter.cores()
        outcome = Outcome(begin + contest.warm_up, begin + contest.warm_up + contest.seconds, [], cores=cores)
        for process, pipe in workers:
            parts = _expect(pipe, process.pid, "done", contest.seconds + LEAVE_SECONDS + PREPARE_SECONDS)
            turns, waiting, requests, failures, notes = parts
            outcome.notes += notes
            outcome.turns += [Turn(*turn) for turn in turns]
            outcome.waiting += waiting
            outcome.requests.update(requests)
            outcome.failures.update(failures)
    finally:
        for process, pipe in workers:
            pipe.close()
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
    outcome.turns.sort(key=lambda turn: turn.granted)
    return outcome


def _expect(pipe: Connection, pid: int | None, word: str, seconds: float) -> Any:
    if not pipe.poll(seconds):
        raise RuntimeError(f"process {pid} of the load generator was not {word} within {seconds:g} s")
    said, parts = pipe.recv()
    if said != word:
        raise RuntimeError(f"process {pid} of the load generator failed:\n{parts}")
    return parts


# ---------------------------------------------------------------------------------------------- in a worker process


def _work(pipe: Connection, contest: Contest, holders: list[Holder]) -> None:
    sys.setswitchinterval(contest.switch)
    threading.stack_size(512 * 1024)
    allow_many_files()
    try:
        module, _, name = contest.system.partition(":")
        system: System = getattr(importlib.import_module(module), name)(**contest.options)
        contenders = [(holder, system.contender(holder)) for holder in holders]
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it while times are taken
        pipe.send(("ready", None))
        begin: float = pipe.recv()
        worker = _Worker(contest, system, begin)
        pipe.send(("done", worker.run(contenders)))
    except BaseException:
        pipe.send(("failed", traceback.format_exc()))


def allow_many_files() -> None:
    """Raise the limit of open files, as each contender may have several connections."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Worker:
    def __init__(self, contest: Contest, system: System, begin: float) -> None:
        self._contest, self._system, self._begin = contest, system, begin
        self._end = begin + contest.warm_up + contest.seconds
        self._turns: list[Turn] = []
        self._waiting: list[tuple[str, float]] = []
        self._failures: Counter[str] = Counter()

    def run(self, contenders: list[tuple[Holder, Contender]]) -> tuple[Any, ...]:
        threads = [threading.Thread(target=self._contend, args=pair, daemon=True) for pair in contenders]
        for thread in threads:
            thread.start()
        before = self._count_at(self._begin + (0 if self._contest.turns else self._contest.warm_up))
        if not self._contest.turns:
            after = self._count_at(self._end)
        leave_by = self._end + LEAVE_SECONDS
        for thread in threads:
            thread.join(max(0.0, leave_by - time.monotonic()))
        if self._contest.turns:
            after = Counter(self._system.requests)
        self._failures["stuck"] += sum(thread.is_alive() for thread in threads)
        self._system.close()
        after.subtract(before)
        turns = [tuple(turn) for turn in self._turns]
        return turns, self._waiting, +after, +self._failures, getattr(self._system, "notes", [])

    def _count_at(self, moment: float) -> Counter[str]:
        time.sleep(max(0.0, moment - time.monotonic()))
        return Counter(self._system.requests)

    def _contend(self, holder: Holder, contender: Contender) -> None:
        time.sleep(max(0.0, self._begin - time.monotonic()))
        taken = 0
        while (wanted := time.monotonic()) < self._end and taken != self._contest.turns:
            fence = self._try(contender.acquire, self._end)
            if fence is None:
                self._waiting.append((holder.name, wanted))
                continue
            granted = time.monotonic()
            taken += 1
            if self._contest.hold:
                time.sleep(self._contest.hold)
            let_go = time.monotonic()
            if not self._contest.turns:
                self._let_go(contender)
            self._turns.append(Turn(holder.name, fence, wanted, granted, let_go, time.monotonic()))

    def _let_go(self, contender: Contender) -> None:
        """Who could not let go still holds, and tries again; it is a hand-off only when it is done."""
        while self._try(contender.release, failed=True) and time.monotonic() < self._end + LEAVE_SECONDS:
            pass

    def _try(self, call: Callable[..., Any], *arguments: Any, failed: Any = None) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            self._failures[f"{call.__name__}: {type(error).__name__}"] += 1
            if sum(self._failures.values()) == 1:
                print(f"{call.__qualname__}: {error}", file=sys.stderr, flush=True)
            time.sleep(random.uniform(0.01, 0.05))
            return failed


# ---------------------------------------------------------------------------------------------- what it comes to


def summary(contest: Contest, outcome: Outcome, permits: int = 1) -> dict[str, Any]:
    """The figures of a contest: rates, hand-offs in ms, waits in s, fairness, what was sent, and every fault seen."""
    inside = [turn for turn in outcome.turns if outcome.begin <= turn.granted < outcome.end]
    seconds = outcome.end - outcome.begin
    waits = [turn.granted - turn.wanted for turn in inside]
    censored = [outcome.end - max(wanted, outcome.begin) for _name, wanted in outcome.waiting]
    counts = Counter(turn.holder for turn in inside)
    shares = [counts[holder.name] for holder in contest.holders]
    writes = sum(outcome.requests[method] for method in ("POST", "PUT", "DELETE", "PATCH"))
    handoffs = [
        later.granted - earlier.let_go
        for earlier, later in pairwise(inside)
        if later.holder != earlier.holder and later.wanted <= earlier.let_go
    ]
    found: dict[str, Any] = {
        "contenders": len(contest.holders),
        "seconds": round(seconds, 3),
        "cycles": len(inside),
        "cycles_per_s": round(len(inside) / seconds, 2),
        "handoffs": len(handoffs),
        "handoff_ms": percentiles(handoffs, 1000),
        "release_ms": percentiles([turn.released - turn.let_go for turn in inside], 1000),
        "wait_s": percentiles(waits),
        "worst_wait_s": round(max([*waits, *censored], default=0.0), 3),
        "jain": jain(shares),
        "turns_each": {"least": min(shares), "most": max(shares)},
        "requests": dict(outcome.requests),
        "writes_per_cycle": round(writes / len(inside), 2) if inside and outcome.requests else None,
        "requests_per_cycle": round(sum(outcome.requests.values()) / len(inside), 2) if inside else None,
        "failures": dict(outcome.failures),
        "cores": outcome.cores,
    }
    if permits == 1:
        found |= safety(outcome.turns)
    return found


def safety(turns: Sequence[Turn]) -> dict[str, int]:
    """Of one permit: how often somebody held before the last one let go, and how often a fence did not grow."""
    ordered = sorted(turns, key=lambda turn: turn.granted)
    pairs = list(pairwise(ordered))
    return {
        "overlaps": sum(later.granted < earlier.let_go for earlier, later in pairs),
        "fences_not_growing": sum(bool(later.fence) and later.fence <= earlier.fence for earlier, later in pairs),
    }


def percentiles(values: Sequence[float], scale: float = 1.0) -> dict[str, float] | None:
    """p50, p90, p99 and max (nearest rank) of the values times `scale`; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * scale, 3)

    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": round(ordered[-1] * scale, 3)}


def jain(shares: Sequence[float]) -> float | None:
    """Jain's index of fairness: 1 when all got the same, 1/n when one got everything (Jain, Chiu, Hawe, 1984)."""
    total, squares = sum(shares), sum(share * share for share in shares)
    return round(total * total / (len(shares) * squares), 4) if squares else None

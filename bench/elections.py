# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elections whose leader is told to end, is killed, or vanishes with its node, again and again."""

from __future__ import annotations

import math
import random
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    Api,
    NotFound,
    Object,
    Put,
    Snapshot,
)
from bench.machine import machine_seconds
from bench.terms import Line, Round, Term, fences_not_growing, figures, is_of, lines, overlaps, terms

GRACEFUL, CRASH, LOST = "graceful", "crash", "lost"
REPLICAS = 3
POLL = 0.02  # seconds between looks into a log; the moments themselves are in its lines
START_SECONDS = 90.0
T = TypeVar("T")


class Replica(Protocol):
    """One process that stands for election."""

    name: str

    def lives(self) -> bool:
        """Whether its process runs."""

    def terminate(self) -> tuple[float, float]:
        """SIGTERM, and wait for its end: the moments of both."""

    def kill(self) -> float:
        """SIGKILL: the moment."""

    def report(self) -> None:
        """Its kubelet says that it is dead, where that has to be simulated."""

    def remove(self) -> float:
        """End whatever still runs of it, and take away what is left: the moment of the end."""


class Sight(NamedTuple):
    """A watcher saw who holds a Lease ("": nobody)."""

    at: float
    holder: str


class Watcher:
    """One watch of a namespace's Leases, as anybody has it who wants to know who leads."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._sights: dict[str, list[Sight]] = defaultdict(list)
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._api, self._namespace = api, namespace
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def change(self, lease: str, holder: str, since: float) -> tuple[float | None, float]:
        """When, after `since`, the Lease was seen free (None: never), and when in the hands of `holder`."""

        def taken() -> float | None:
            return next((sight.at for sight in self._since(lease, since) if sight.holder == holder), None)

        with self._changed:
            if not self._changed.wait_for(lambda: taken() is not None, START_SECONDS):
                raise TimeoutError(f"no event shows {holder} as the holder of Lease {lease}")
            at = taken() or 0.0
            return next((s.at for s in self._since(lease, since) if not s.holder and s.at < at), None), at

    def _since(self, lease: str, since: float) -> list[Sight]:
        return [sight for sight in self._sights[lease] if sight.at >= since]

    def _watch(self) -> None:
        for change in self._api.follow(LEASES, self._namespace, stop=self._stop):
            now = time.monotonic()
            found = change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put) else []
            with self._changed:
                for lease in found:
                    self._see(lease, now)
                self._changed.notify_all()

    def _see(self, lease: Object, now: float) -> None:
        seen, holder = self._sights[lease["metadata"]["name"]], lease["spec"].get("holderIdentity") or ""
        if not seen or seen[-1].holder != holder:
            seen.append(Sight(now, holder))

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)


class Pace(NamedTuple):
    """Seconds: from the last start to the next stroke (least, most), for a new leader, until the kubelet reports."""

    settle: tuple[float, float]
    patience: float
    kubelet: float


Start = Callable[[str, str, Path], Replica]  # Lease, name of the replica, its log


class Election:
    """One Lease and its replicas, whose leader is struck; `run` is for a thread of its own."""

    def __init__(self, lease: str, log: Path, start: Start, watcher: Watcher, pace: Pace) -> None:
        self.lease, self._log, self._start, self._watcher, self._pace = lease, log, start, watcher, pace
        self._dice = random.Random(lease)
        self._replicas: dict[str, Replica] = {}
        self._deaths: dict[str, float] = {}
        self._started = 0
        self.rounds: list[Round] = []
        self.resigned = 0  # leaders and followers that ended without being asked to

    def run(self, kind: str, rounds: int) -> None:
        """Strike the leader so many times, and end all replicas."""
        try:
            while len(self.rounds) < rounds:
                self._enter()
                leader = self._until(self._leader, "a leader")
                time.sleep(self._dice.uniform(*self._pace.settle))
                if leader == self._leader():
                    self._round(kind, leader)
        finally:
            for replica in self._replicas.values():
                self._remove(replica)

    def terms(self) -> list[Term]:
        """All terms so far."""
        return terms(self._lines(), self._deaths, time.monotonic())

    def _enter(self) -> None:
        """Start what is missing, and wait until it stands for election."""
        for name in [name for name, replica in self._replicas.items() if not replica.lives()]:
            self._remove(self._replicas.pop(name))
            self.resigned += 1
        for _ in range(REPLICAS - len(self._replicas)):
            self._started += 1
            name = f"{self.lease}-{self._started}"
            self._replicas[name] = self._start(self.lease, name, self._log)
            self._until(partial(self._ready, name), f"replica {name}", START_SECONDS)

    def _remove(self, replica: Replica) -> None:
        self._deaths.setdefault(replica.name, replica.remove())

    def _round(self, kind: str, leader: str) -> None:
        replica = self._replicas.pop(next(name for name in self._replicas if is_of(leader, name)))
        asked = self._strike(kind, leader, replica)
        following = self._until(partial(self._begin, asked, leader), "the next leader")
        ended = next(term.end for term in reversed(self.terms()) if term.who == leader)
        self._remove(replica)
        if ended < asked:  # it lost its Lease in the moment before
            self.resigned += 1
            return
        free, taken = self._watcher.change(self.lease, following.who, asked)
        self.rounds.append(Round(asked, ended, following.at, free, taken))

    def _strike(self, kind: str, leader: str, replica: Replica) -> float:
        """`leader` is the identity of the process that is struck: its container may be started again, as another."""
        if kind == GRACEFUL:
            asked, self._deaths[leader] = replica.terminate()
            return asked
        asked = self._deaths[leader] = replica.kill()
        if kind == CRASH:
            time.sleep(max(0.0, asked + self._pace.kubelet - time.monotonic()))
            replica.report()
        return asked

    # ------------------------------------------------------------------------------------------ the log

    def _lines(self) -> list[Line]:
        return lines(self._log.read_text()) if self._log.exists() else []

    def _ready(self, replica: str) -> Line | None:
        return next((line for line in self._lines() if line.event == "ready" and is_of(line.who, replica)), None)

    def _begin(self, since: float, leader: str) -> Line | None:
        fresh = (line for line in self._lines() if line.event == "begin" and line.at >= since)
        return next((line for line in fresh if line.who != leader), None)

    def _leader(self) -> str | None:
        """The identity that leads now, if it is that of a replica; None while nobody does."""
        now = time.monotonic()
        leading = [term.who for term in terms(self._lines(), self._deaths, now) if term.end == now]
        return next((who for who in leading if any(is_of(who, name) for name in self._replicas)), None)

    def _until(self, found: Callable[[], T | None], what: str, seconds: float | None = None) -> T:
        deadline = time.monotonic() + (seconds or self._pace.patience)
        while time.monotonic() < deadline:
            if (value := found()) is not None:
                return value
            time.sleep(POLL)
        raise TimeoutError(f"{self.lease}: waited in vain for {what}; see {self._log}")


def contest(
    api: Api, namespace: str, place: Path, start: Start, pace: Pace, *, kind: str, rounds: int, parallel: int
) -> dict[str, Any]:
    """So many changes of leader of one kind, in so many elections at a time; their logs are left in `place`."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    watcher = Watcher(api, namespace)
    elections = [Election(f"{place.name}-{n}", place / f"{n}.jsonl", start, watcher, pace) for n in range(parallel)]
    failures: list[BaseException] = []

    def run(election: Election) -> None:
        try:
            election.run(kind, math.ceil(rounds / parallel))
        except BaseException as error:
            failures.append(error)

    begun, busy = time.monotonic(), machine_seconds()
    threads = [threading.Thread(target=run, args=(election,)) for election in elections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    watcher.close()
    for election in elections:
        with suppress(NotFound):
            api.delete(LEASES, election.lease, namespace)
    if failures:
        raise failures[0]
    led = [election.terms() for election in elections]
    return {
        **figures([each for election in elections for each in election.rounds]),
        "overlaps": sum(map(overlaps, led)),
        "fences_not_growing": sum(map(fences_not_growing, led)),
        "resigned": sum(election.resigned for election in elections),
        "elections": parallel,
        "seconds": round(seconds, 1),
        "busy_cores": round((machine_seconds() - busy) / seconds, 2),
    }

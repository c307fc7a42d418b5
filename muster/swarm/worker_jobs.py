# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The jobs that a worker has taken on: begun, ended, started again; nothing here waits, and there are no threads."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from muster.process import say
from muster.swarm.journal import Journal
from muster.swarm.worker import State, plan
from muster.swarm.worker_runners import Ended, Failed, Gone, Runner

RESTART: Final = (1.0, 30.0)  # seconds: first and largest bound of the full-jitter delay until a job is started again


@dataclass(eq=False)
class Holding:
    """One job. `due`: when, on the clock, something is to be done about it; None: nothing is."""

    job: str
    state: State = State.RUNNING
    began: float = 0.0
    failures: int = 0
    due: float | None = None


class Jobs:
    """All of them. `clock` in seconds; `dice` gives numbers from 0 to 1."""

    def __init__(
        self,
        runner: Runner,
        journal: Journal,
        stop_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        """A job that is let go has `stop_seconds` from SIGTERM to SIGKILL."""
        self._runner, self._journal, self._stop_seconds = runner, journal, stop_seconds
        self._clock, self._dice = clock, dice
        self._held: dict[str, Holding] = {}
        self._timers: list[tuple[float, int, Holding]] = []
        self._numbers = itertools.count()
        self.restarts: Counter[str] = Counter()  # by how the job had ended

    @property
    def running(self) -> frozenset[str]:
        """Those of which anything may run."""
        return frozenset(job for job, held in self._held.items() if held.state is not State.WAITING)

    @property
    def states(self) -> dict[str, State]:
        return {job: held.state for job, held in self._held.items()}

    def take(self, told: Ended | Gone | Failed) -> None:
        """Note what became of a job."""
        held = self._held[told.job]
        if isinstance(told, Ended):
            if held.state is State.RUNNING:
                self._end(held, State.CLEARING)
            return
        self._journal.end(told.job)
        if held.state is State.ENDING:
            self._forget(held)
        else:
            self._start_later(held, _result(told))

    def act(self, wanted: Collection[str]) -> None:
        """Do what is due, so as to have exactly these jobs as soon as may be."""
        step = plan(wanted, self.states)
        for job in step.end:
            self._let_go(self._held[job])
        for job in step.begin:
            self._held[job] = Holding(job)
            self._start(self._held[job])
        while self.seconds() == 0.0:
            held = heapq.heappop(self._timers)[2]
            held.due = None
            if held.state is State.WAITING:
                self._start(held)
            else:
                say(logging.WARNING, "job does not end: it is killed", job=held.job, after_seconds=self._stop_seconds)
                self._runner.signal(held.job, signal.SIGKILL)

    def seconds(self) -> float | None:
        """Until something is due; None: nothing is."""
        while self._timers and self._timers[0][2].due != self._timers[0][0]:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - self._clock()) if self._timers else None

    # ------------------------------------------------------------------------------------------ private

    def _let_go(self, held: Holding) -> None:
        if held.state is State.WAITING:
            self._forget(held)
        elif held.state is State.CLEARING:
            held.state = State.ENDING
        else:
            self._end(held, State.ENDING)

    def _forget(self, held: Holding) -> None:
        held.due = None
        del self._held[held.job]

    def _start(self, held: Holding) -> None:
        held.state, held.began = State.RUNNING, self._clock()
        self._journal.begin(held.job)
        self._runner.start(held.job)

    def _end(self, held: Holding, state: State) -> None:
        held.state = state
        self._runner.signal(held.job, signal.SIGTERM)
        self._runner.signal(held.job, signal.SIGCONT)  # else who is stopped would not hear it
        self._later(held, self._stop_seconds)

    def _start_later(self, held: Holding, result: str) -> None:
        """Full jitter, so that what brought down many does not bring them all back in one moment."""
        first, largest = RESTART
        lasted = self._clock() - held.began
        held.failures = 1 if lasted > largest else held.failures + 1
        held.state = State.WAITING
        delay = self._dice() * min(largest, first * 2 ** min(held.failures - 1, 16))
        self._later(held, delay)
        self.restarts[result] += 1
        fields = {"result": result, "lasted_seconds": round(lasted, 1), "again_seconds": round(delay, 1)}
        say(logging.WARNING, "job has ended by itself", job=held.job, **fields)

    def _later(self, held: Holding, seconds: float) -> None:
        held.due = self._clock() + seconds
        heapq.heappush(self._timers, (held.due, next(self._numbers), held))


def _result(told: Gone | Failed) -> str:
    """A word for metrics: the exit code, the signal, or why it could not be started."""
    if isinstance(told, Failed):
        return f"not started: {os.strerror(told.errno)}"
    if told.code >= 0:
        return str(told.code)
    try:
        return signal.Signals(-told.code).name
    except ValueError:  # a real-time one
        return f"signal {-told.code}"

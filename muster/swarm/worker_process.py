# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of a worker: takes what is read, has the jobs begun and ended, and says which version it runs.

What it decides stands in `worker.py`; here is what surrounds that: one loop, the pages, the metrics, the signals.
"""

from __future__ import annotations

import logging
import queue
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import prometheus_client
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.process import Answer, Route, Web, on_signals, say
from muster.swarm.journal import Journal
from muster.swarm.worker import NONE_YET, Duty, State
from muster.swarm.worker_jobs import Jobs
from muster.swarm.worker_runners import Ended, Failed, Gone, Lost, Runner, Tell
from muster.swarm.worker_sources import Outcome, Reading, Source

BUSY_SECONDS: Final = 60.0  # so long at one turn, the loop is called dead
ANNOTATE_SECONDS: Final = 1.0  # how long, at the end, an annotation under way is waited for
PREFIX: Final = "muster_swarm_worker"


class Notice(Protocol):
    """Where a version is told besides the page."""

    def tell(self, text: str | None) -> None: ...

    def settle(self, timeout: float) -> bool: ...


@dataclass(frozen=True)
class Settings:
    """How one worker runs. `seen`: the greatest version that its Pod is known to have told; see Duty."""

    name: str
    uid: str
    listen: str | None = "0.0.0.0:8390"
    stop_seconds: float = 10.0
    seen: int = NONE_YET


class Signalled(NamedTuple):
    """A signal came."""

    number: int


@dataclass(frozen=True)
class Picture:
    """What pages and metrics show: as it was after the last turn of the loop."""

    duty: Duty
    states: dict[str, State]
    restarts: Counter[str]
    trouble: str = "nothing has been read yet"
    is_ready: bool = False
    is_leaving: bool = False
    reload_seconds: float | None = None

    def config(self, settings: Settings) -> dict[str, Any]:
        return {
            "worker": settings.name,
            "uid": settings.uid,
            "version": self.duty.applied,
            "jobs": sorted(self.states),
            "wanted": self.duty.version,
            "trouble": self.trouble or None,
        }


class Worker:
    """One run, from the first reading to SIGTERM."""

    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)

    def __init__(
        self,
        settings: Settings,
        source: Source,
        runner: Callable[[Tell], Runner],
        journal: Journal,
        notice: Notice | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`runner` is called with what takes in what becomes of jobs. `clock`: in seconds."""
        self._settings, self._source, self._journal, self._notice = settings, source, journal, notice
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._runner = runner(self._inbox.put)
        self._jobs = Jobs(self._runner, journal, settings.stop_seconds, clock=clock)
        self._duty = Duty(seen=settings.seen)
        self._picture = Picture(self._duty, {}, Counter())
        self._trouble, self._is_ready, self._is_leaving = self._picture.trouble, False, False
        self._reload_began: float | None = None
        self._reload_seconds: float | None = None
        self._busy_since: float | None = None
        self._metrics = Metrics(lambda: self._picture)

    def run(self) -> int:
        """Work until a signal ends it; the process's exit status. Raises MusterError when the jobs' warden is lost."""
        on_signals(self.signals, lambda number: self._inbox.put(Signalled(number)))
        web = Web(self._settings.listen, self.routes(), self._metrics.registry) if self._settings.listen else None
        say(logging.INFO, "works", worker=self._settings.name, **({"port": web.port} if web else {}))
        self._source.start(self._inbox.put)
        try:
            while not self.is_over:
                self.turn(self._wait())
            say(logging.INFO, "all jobs have ended")
        finally:
            self._source.stop()
            self._runner.close()
            self._journal.close()
            if self._notice:
                self._notice.settle(ANNOTATE_SECONDS)
            if web:
                web.close()
        return 0

    def turn(self, happenings: list[Any]) -> None:
        """See to what has happened, and to what is due: first to what has ended, and at last to what may be said."""
        self._busy_since = time.monotonic()
        for happening in happenings:
            if isinstance(happening, Ended | Gone | Failed):
                self._jobs.take(happening)
            elif isinstance(happening, Reading):
                self._read(happening)
            elif isinstance(happening, Signalled):
                self._leave(happening.number)
            elif isinstance(happening, Lost):
                raise MusterError("the warden of the jobs was killed, and they with it: start the worker again")
        self._jobs.act(() if self._is_leaving else self._duty.jobs)
        self._settle()
        self._show()
        self._busy_since = None

    def routes(self) -> dict[tuple[str, str], Route]:
        return {
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/config"): lambda: (200, self._picture.config(self._settings)),
        }

    @property
    def is_over(self) -> bool:
        return self._picture.is_leaving and not self._picture.states

    # ------------------------------------------------------------------------------------------ the loop

    def _wait(self) -> list[Any]:
        """All that has happened, as soon as anything has; nothing, when a time has come."""
        found = []
        try:
            found.append(self._inbox.get(timeout=self._jobs.seconds()))
            while True:
                found.append(self._inbox.get_nowait())
        except queue.Empty:
            return found

    def _leave(self, number: int) -> None:
        if not self._is_leaving:
            say(logging.INFO, "ends all jobs, and itself", signal=signal.Signals(number).name)
        self._is_leaving = True

    def _read(self, reading: Reading) -> None:
        if self._is_leaving:
            return
        self._complain(reading)
        if reading.outcome is not Outcome.KNOWN or self._duty.refuses(reading.entry):
            return
        before = self._duty
        self._duty = before.take(reading.entry, self._jobs.running)
        if self._duty.wanted != before.wanted:
            self._reload_began = time.monotonic()
            after, had = self._duty.jobs, before.jobs
            counts = {"jobs": len(after), "begin": len(after - had), "end": len(had - after)}
            say(logging.INFO, "has another list", version=self._duty.version, **counts)

    def _complain(self, reading: Reading) -> None:
        """What is wrong is said once, and shown for as long as it lasts."""
        trouble = reading.why
        if self._duty.refuses(reading.entry):
            trouble = f"version {reading.entry and reading.entry.version} is older than {self._duty.seen}, which was "
            trouble += "seen before: it is not taken"
        if reading.outcome is Outcome.KNOWN:
            self._is_ready = True
        elif reading.outcome is not Outcome.AWAY:  # there may be no document yet, but none may vanish
            self._is_ready = reading.outcome is Outcome.MISSING and self._duty.seen == NONE_YET
        if trouble and trouble != self._trouble:
            say(logging.WARNING, "goes on with what it has", why=trouble)
        self._trouble = trouble

    def _settle(self) -> None:
        before = self._duty
        if not self._is_leaving:
            self._duty = before.settle(self._jobs.running)
        if self._reload_began is None or not self._duty.is_settled:
            return
        self._reload_seconds = round(time.monotonic() - self._reload_began, 3)
        self._reload_began = None
        say(logging.INFO, "runs it", version=self._duty.applied, seconds=self._reload_seconds)
        if self._notice and self._duty.applied is not None:
            self._notice.tell(f"{self._settings.uid}:{self._duty.applied}")

    def _show(self) -> None:
        self._picture = Picture(
            self._duty,
            self._jobs.states,
            self._jobs.restarts.copy(),
            self._trouble,
            self._is_ready and not self._is_leaving,
            self._is_leaving,
            self._reload_seconds,
        )

    # ------------------------------------------------------------------------------------------ pages

    def _healthz(self) -> Answer:
        began = self._busy_since
        busy = time.monotonic() - began if began else 0.0
        well = busy < BUSY_SECONDS
        return 200 if well else 503, {"alive": well, "busy_seconds": round(busy, 1)}

    def _readyz(self) -> Answer:
        picture = self._picture
        return 200 if picture.is_ready else 503, {"ready": picture.is_ready, "trouble": picture.trouble or None}


class Metrics:
    """The Prometheus metrics of one worker, worked out when somebody asks for them."""

    def __init__(self, picture: Callable[[], Picture]) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.registry.register(self)
        self._picture = picture

    def collect(self) -> Iterator[Metric]:
        picture = self._picture()
        jobs = GaugeMetricFamily(f"{PREFIX}_jobs", "Jobs taken on, by how they stand", labels=["state"])
        counts = Counter(picture.states.values())
        for state in State:
            jobs.add_metric([state.value], counts[state])
        yield jobs
        for which, version in (("wanted", picture.duty.version), ("applied", picture.duty.applied)):
            if version is not None:
                yield GaugeMetricFamily(f"{PREFIX}_version_{which}", f"Version of the list that is {which}", version)
        restarts = CounterMetricFamily(
            f"{PREFIX}_restarts", "How often jobs ended by themselves, by how", labels=["result"]
        )
        for result, count in sorted(picture.restarts.items()):
            restarts.add_metric([result], count)
        yield restarts
        if picture.reload_seconds is not None:
            text = "How long the last change of the list took until it could be said"
            yield GaugeMetricFamily(f"{PREFIX}_reload_seconds", text, picture.reload_seconds)
        yield GaugeMetricFamily(f"{PREFIX}_trouble", "1 while something is wrong", 1 if picture.trouble else 0)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Distributor sidecar: attends one or several semaphores for its Pod and tells the application what it holds.

The decisions are in `decisions/`, the loop of one semaphore in `verbs/attendance.py`, that of several in
`attending.py`; here is what surrounds them: the claim file, the pages, the metrics, the Events, and the signals.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import prometheus_client
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant, Grant
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import Sight
from muster import claim as claims
from muster.attending import NOT_READ, Chain, News
from muster.claim import Claim
from muster.pod import Annotation, Events, pod_of
from muster.process import Answer, Route, Web, on_signals, say

RELEASE_SECONDS = 5.0  # how long a release at SIGTERM may take; the Pod's end releases all the same
SILENT_SECONDS = 60.0  # how long after the latest resync the loop may be silent before it is called dead
ANSWER_SECONDS = 4.0  # how long POST /release waits until all is given back
ANNOTATION = "muster.dev/claim"  # of the Pod


@dataclass(frozen=True)
class Settings:
    """How one sidecar runs; `claimants` by the names of their semaphores, `resync` in seconds."""

    namespace: str
    claimants: Mapping[str, Claimant]
    engine: str = "annotations"
    claim_file: Path | None = None
    annotate_pod: bool = False
    release_on_term: bool = False
    listen: str | None = "127.0.0.1:8377"
    resync: tuple[float, float] = (50.0, 70.0)
    attendance: Mapping[str, Any] = field(default_factory=dict)  # more, as an Attendant takes it

    @property
    def me(self) -> Claimant:
        """Who claims; what is wanted differs from semaphore to semaphore."""
        return next(iter(self.claimants.values()))


class Signalled(NamedTuple):
    """A signal came."""

    number: int


class Asked(NamedTuple):
    """Somebody asked by HTTP to give back what is held, or to claim it again; `done` is set when that is so."""

    wanted: bool
    done: threading.Event


class Distributor:
    """One run of the sidecar, from the first claim to SIGTERM."""

    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api, self._settings = api, settings
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._chain = Chain(
            api,
            namespace=settings.namespace,
            claimants=settings.claimants,
            engine=settings.engine,
            tell=self._inbox.put,
            resync=settings.resync,
            **settings.attendance,
        )
        self._claim: Claim | None = None
        self._shown = list(self._chain.sights)
        self._asked: list[Asked] = []
        self._told_before = claims.fences_in(settings.claim_file)
        self._is_published = False  # what an earlier run left behind stays until it is known what is held
        self._metrics = Metrics(self._chain)
        self._events: Events | None = None
        self._annotation: Annotation | None = None
        self._busy_since: float | None = None
        self._status: int | None = None  # the process's exit status, once it is to end

    def run(self) -> int:
        """Attend until a signal ends it; the process's exit status."""
        settings, me = self._settings, self._settings.me
        on_signals(self.signals, lambda number: self._inbox.put(Signalled(number)))
        web = Web(settings.listen, self.routes(), self._metrics.registry) if settings.listen else None
        if me.uid:
            self._events = Events(self._api, "muster-distributor")
            if settings.annotate_pod:
                self._annotation = Annotation(self._api, settings.namespace, me.holder, me.uid, ANNOTATION)
        port = {"port": web.port} if web else {}
        say(logging.INFO, "attending", semaphore=", ".join(self._chain.where), holder=me.holder, **port)
        try:
            self._chain.act()
            while self._status is None:
                self._take(self._inbox.get())
        finally:
            self._leave()
            if web:
                web.close()
        return self._status

    def routes(self) -> dict[tuple[str, str], Route]:
        return {
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/claim"): self._get_claim,
            ("POST", "/claim"): lambda: self._ask(wanted=True),
            ("POST", "/release"): lambda: self._ask(wanted=False),
        }

    # ------------------------------------------------------------------------------------------ the loop

    def _take(self, happening: Any) -> None:
        """See to one thing that happened: the application is told first, then it is acted upon."""
        self._busy_since = time.monotonic()
        if isinstance(happening, News):
            self._chain.take(happening)
        elif isinstance(happening, Asked):
            self._want(happening)
        elif isinstance(happening, Signalled):
            self._signalled(happening.number)
        self._show()
        self._act()
        self._busy_since = None

    def _act(self) -> None:
        self._chain.act()
        for asked in [asked for asked in self._asked if asked.wanted != self._chain.is_wanted or self._is_so(asked)]:
            asked.done.set()
            self._asked.remove(asked)

    def _signalled(self, number: int) -> None:
        say(logging.INFO, "ends", signal=signal.Signals(number).name)
        self._status = 0

    def _want(self, asked: Asked) -> None:
        if self._chain.is_wanted != asked.wanted:
            say(logging.INFO, "asked to claim" if asked.wanted else "asked to release")
        self._chain.is_wanted = asked.wanted
        self._asked.append(asked)

    def _is_so(self, asked: Asked) -> bool:
        return asked.wanted or self._chain.is_free

    # ------------------------------------------------------------------------------------------ who is told

    def _show(self) -> None:
        """Tell the application, the log, the cluster and the metrics what changed."""
        chain, before = self._chain, self._claim
        grants = chain.grants
        after = Claim(self._settings.me.holder, grants) if grants else None
        is_news = _fences(after) != _fences(before) or (chain.is_known and not self._is_published)
        if is_news:
            self._publish(after)
            self._claim, self._is_published = after, True  # last: who reads it on the page may open the file at once
        for index, (seen, now) in enumerate(zip(self._shown, chain.sights, strict=True)):
            if seen is not now:
                self._report(chain.where[index], seen, now)
                self._metrics.count(chain.where[index], now)
        self._shown = list(chain.sights)
        if is_news:
            self._changed(before, after)

    def _changed(self, before: Claim | None, after: Claim | None) -> None:
        """The application was told of another claim; for who does more than tell."""

    def _publish(self, claim: Claim | None) -> None:
        path = self._settings.claim_file
        if path is not None and claim is None:
            path.unlink(missing_ok=True)
        elif path is not None and claim is not None:
            claims.write(path, claim)
        if self._annotation:
            self._annotation.tell(claim.json() if claim else None)

    def _report(self, where: str, before: Sight, after: Sight) -> None:
        old, new = before.grant, after.grant
        if _fence(old) != _fence(new):
            if old is not None and after != Sight():  # else it was given back
                self._tell("lost", "ResourceLost", f"lost {_had(old)} of {where}", warning=True)
            if new is not None:
                silent = (where, new.fence) in self._told_before
                self._tell("granted", "ResourceGranted", f"holds {_had(new)} of {where}", silent=silent)
        elif after.place is not None and before.place is None:
            self._tell("waiting", "ResourceWaiting", f"waits at place {after.place} of {where}")
        if after.trouble not in (None, before.trouble, NOT_READ.trouble):
            self._tell("trouble", "ResourceTrouble", after.trouble, warning=True)

    def _tell(self, word: str, reason: str, message: str, *, warning: bool = False, silent: bool = False) -> None:
        say(logging.WARNING if warning else logging.INFO, word, what=message)
        if self._events and not silent:
            pod = pod_of(self._settings.namespace, self._settings.me.holder, self._settings.me.uid or "")
            self._events.tell(pod, reason, message, warning=warning)

    # ------------------------------------------------------------------------------------------ the end

    def _leave(self) -> None:
        """A native sidecar ends after the application, so all is free; any other must assume it is in use."""
        if not self._settings.release_on_term:
            say(logging.INFO, f"leaving; what is held goes with {self._ends_with}")
            return
        self._publish(None)
        if self._give_all_back(RELEASE_SECONDS):
            say(logging.INFO, "left")
        else:
            held = [where for where, sight in zip(self._chain.where, self._chain.sights, strict=True) if sight.grant]
            say(logging.WARNING, f"could not release; it goes with {self._ends_with}", semaphores=held)
        if self._annotation:
            self._annotation.settle(1.0)

    @property
    def _ends_with(self) -> str:
        return "its lease" if self._settings.me.lease_seconds else "the end of the Pod"

    def _give_all_back(self, seconds: float) -> bool:
        """From the last to the first, for so long; whether all is given back."""
        deadline = time.monotonic() + seconds
        self._chain.is_wanted = False
        self._chain.act()
        while not self._chain.is_free:
            try:
                happening = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return False
            if isinstance(happening, News):
                self._chain.take(happening)
                self._chain.act()
        return True

    # ------------------------------------------------------------------------------------------ pages

    def _healthz(self) -> Answer:
        busy = self._busy_since
        silent = max(self._chain.silent(), time.monotonic() - busy if busy else 0.0)
        well = silent < self._settings.resync[1] + SILENT_SECONDS
        return 200 if well else 503, {"alive": well, "silent_seconds": round(silent, 1)}

    def _readyz(self) -> Answer:
        is_read = self._chain.sights[0].standing is not None or not self._chain.is_wanted
        return 200 if is_read else 503, {"ready": is_read, "trouble": self._trouble()}

    def _get_claim(self) -> Answer:
        state = self._state()
        return 200 if state["claimed"] else 503, state

    def _ask(self, *, wanted: bool) -> Answer:
        """202: it is under way, and goes on by itself."""
        asked = Asked(wanted, threading.Event())
        self._inbox.put(asked)
        asked.done.wait(ANSWER_SECONDS)
        state = self._state()
        return 200 if state["claimed" if wanted else "released"] else 202, state

    def _state(self) -> dict[str, Any]:
        """What the application may know; `place` and `trouble` are of the semaphore that it waits for."""
        chain, claim = self._chain, self._claim
        if claim is not None:
            return {"claimed": True, "released": False, **claim.fields()}
        sight = chain.sights[chain.first_missing]
        state = {"claimed": False, "released": not chain.is_wanted and chain.is_free}
        waits_for = chain.where[chain.first_missing] if chain.is_wanted else None
        return {**state, "waits_for": waits_for, "place": sight.place, "trouble": self._trouble()}

    def _trouble(self) -> str | None:
        return next((sight.trouble for sight in list(self._chain.sights) if sight.trouble), None)


class Metrics:
    """The Prometheus metrics of one sidecar, worked out when somebody asks for them."""

    def __init__(self, chain: Chain) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.registry.register(self)
        self._chain = chain
        self._grants = dict.fromkeys(chain.where, 0)
        self._fences: dict[str, int] = {}

    def count(self, where: str, sight: Sight) -> None:
        """Take note of a grant that was not there before."""
        fence = _fence(sight.grant)
        if fence not in (0, self._fences.get(where)):
            self._grants[where] += 1
            self._fences[where] = fence

    def collect(self) -> Iterator[Metric]:
        chain, each, one = self._chain, ["semaphore", "resource"], ["semaphore"]
        capacity = GaugeMetricFamily("muster_semaphore_capacity", "Permits there are", labels=each)
        held = GaugeMetricFamily("muster_semaphore_held", "Permits in use", labels=each)
        waiters = GaugeMetricFamily("muster_semaphore_waiters", "Holders that wait", labels=one)
        trouble = GaugeMetricFamily("muster_semaphore_trouble", "1 while something is wrong", labels=one)
        fence = GaugeMetricFamily("muster_claim_fence", "Fence of what this holder has, else 0", labels=one)
        grants = CounterMetricFamily("muster_claim_grants", "Grants that this holder had", labels=one)
        for where, sight in zip(chain.where, list(chain.sights), strict=True):
            semaphore = sight.semaphore
            if semaphore is not None:
                for resource, count in semaphore.held().items():
                    capacity.add_metric([where, resource], semaphore.capacity.get(resource, 0))
                    held.add_metric([where, resource], count)
                waiters.add_metric([where], len(semaphore.queue))
            trouble.add_metric([where], 1 if sight.trouble else 0)
            fence.add_metric([where], _fence(sight.grant))
            grants.add_metric([where], self._grants[where])
        claimed = GaugeMetricFamily(
            "muster_claim_held", "1 while this holder has all that it wants", 1 if chain.grants else 0
        )
        yield from (capacity, held, waiters, trouble, claimed, fence, grants)


def _fence(grant: Grant | None) -> int:
    return grant.fence if grant else 0


def _fences(claim: Claim | None) -> frozenset[tuple[str, int]]:
    return claim.fences if claim else frozenset()


def _had(grant: Grant) -> str:
    return f"{engine.said(grant.resources)} (fence {grant.fence})"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of a controller: it watches objects, and has each looked at when it is this replica's to do.

    Controller(api, resource=THINGS, authority=Leader(api, settings), reconcile=reconcile).run()

`reconcile` is called with a copy of the object and the term under which it may act on it; see `Reconcile`.
"""

from __future__ import annotations

import logging
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Object, Resource
from muster.frame import cache as caches
from muster.frame.authority import Authority, Superseded, Term
from muster.frame.beside import Beside
from muster.frame.cache import Cache
from muster.frame.metrics import Metrics
from muster.frame.workqueue import WorkQueue
from muster.pod import Events
from muster.process import Answer, Query, Route, Web, log, on_signals, say

SILENT_SECONDS: Final = 60.0  # so long without a turn, the authority's thread is called dead
BURST_SECONDS: Final = 0.1  # so long after a change beside, the objects that it concerns are looked at
LEAVE_SECONDS: Final = 15.0  # how long, at SIGTERM, work in flight is waited for


class Reconcile(Protocol):
    """Brings one object, and what stands for it outside, to what its spec wants. From several threads, but for each
    object from one at a time.

    Returns None when it is done, or after how many seconds it wants to look again. Whatever it raises is logged, and
    the object is looked at again after 1 to 60 s. It asks `term.check()` right before each effect.
    """

    def __call__(self, obj: Object, term: Term) -> float | None: ...


class Controller:
    """One run, from the first watch to SIGTERM."""

    signals: tuple[int, ...] = (signal.SIGTERM, signal.SIGINT)

    def __init__(
        self,
        api: Api,
        *,
        resource: Resource,
        authority: Authority,
        reconcile: Reconcile,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        beside: Sequence[Beside] = (),
        key_of: Callable[[Object], str] = caches.key_of,
        workers: int = 4,
        resync: tuple[float, float] = (300.0, 420.0),
        listen: str | None = None,
        events: Events | None = None,
        pod: Object | None = None,
        leave_seconds: float = LEAVE_SECONDS,
    ) -> None:
        """`namespace` None watches all. `key_of` says by which key the authority knows an object.

        `beside` are further watches: a change there has all objects of its namespace looked at, or the one it concerns.

        `resync` bounds, in seconds, the random time after which an object is looked at though nothing has changed.
        `events` tells at `pod`, this process's own, what it gains.
        """
        self._authority, self._reconcile, self._key_of = authority, reconcile, key_of
        self._workers, self._resync, self._listen = workers, resync, listen
        self._events, self._pod, self._leave_seconds = events, pod, leave_seconds
        self._queue = WorkQueue()
        selectors = {"label_selector": label_selector, "field_selector": field_selector}
        self.cache = Cache(api, resource, namespace, **selectors, on_change=self._changed)
        self._beside = beside
        self.vital: list[Callable[[], bool]] = []  # whether what else this process is made of lives; for /healthz
        self.told: list[Callable[[str], None]] = []  # also told the key of each change, by the cache; see Cache
        self.queries: dict[str, Callable[[Query], Answer]] = {}  # further pages, to be set before `run`
        self._metrics = Metrics(authority, self.cache, self._queue)
        self._ends: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.port: int | None = None  # of the pages, once they are served

    def run(self) -> int:
        """Work until a signal or `stop` ends it; the process's exit status."""
        on_signals(self.signals, self._ends.put)
        web = Web(self._listen, self.routes(), self.registry, self.queries) if self._listen else None
        self.port = web.port if web else None
        self._authority.start(self._gained)
        self.cache.start()
        for watch in self._beside:
            watch.start(self._changed_beside)
        for number in range(self._workers):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()
        say(logging.INFO, "watching", **({"port": self.port} if web else {}))
        number = self._ends.get()
        say(logging.INFO, "ends", signal=signal.Signals(number).name if number else "stop")
        self._leave()
        if web:
            web.close()
        return 0

    def stop(self) -> None:
        """End `run` as SIGTERM does; from any thread."""
        self._ends.put(0)

    @property
    def authority(self) -> Authority:
        return self._authority

    @property
    def registry(self) -> prometheus_client.CollectorRegistry:
        """Of its metrics; to be added to before `run`."""
        return self._metrics.registry

    def mine(self) -> list[str]:
        """The keys, as the cache has them, of the objects that this replica may act on now."""
        listed = ((key, self.cache.by_key(key)) for key in self.cache.keys())  # noqa: SIM118 no mapping
        return [key for key, obj in listed if obj and self._authority.is_mine(self._key_of(obj))]

    def routes(self) -> dict[tuple[str, str], Route]:
        return {
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/authority"): lambda: (200, self._authority.describe()),
        }

    # ------------------------------------------------------------------------------------------ the work

    def _gained(self) -> None:
        """Whatever is ours by now has to be looked at; what is not, the workers leave alone."""
        self._metrics.gains += 1
        self._queue.add_all(self.cache.keys())
        told = self._authority.describe()
        shards = told.get("shards")
        what = f"leads, with fence {told.get('fence')}" if shards is None else f"owns {len(shards)} shards"
        say(logging.INFO, what, identity=told["identity"])
        if self._events and self._pod:
            self._events.tell(self._pod, "Leading" if shards is None else "ShardsGained", what)

    def _changed(self, key: str) -> None:
        self._queue.add(key)
        for tell in self.told:
            tell(key)

    def _changed_beside(self, what: str) -> None:
        """A namespace, or one key. Changes come in bursts: they are looked at together, a moment later."""
        concerned = [what] if "/" in what else [key for key in self.cache.keys() if key.startswith(f"{what}/")]  # noqa: SIM118 no mapping
        for key in concerned:
            self._queue.add_after(key, BURST_SECONDS)

    def _work(self) -> None:
        self.cache.synced.wait()
        while (key := self._queue.get()) is not None:
            try:
                self._look_after(key)
            finally:
                self._queue.done(key)

    def _look_after(self, key: str) -> None:
        obj = self.cache.by_key(key)
        if obj is None:
            self._queue.forget(key)
            return
        began = time.monotonic()
        try:
            with self._authority.work(self._key_of(obj)) as term:
                if term is None:
                    self._queue.forget(key)
                    return
                again = self._reconcile(obj, term)
            result = "done" if again is None else "again"
            self._queue.forget(key)
            self._queue.add_after(key, random.uniform(*self._resync) if again is None else again)
        except Superseded as error:
            result = "superseded"
            say(logging.INFO, "left to whoever has it now", key=key, why=str(error))
        except Exception as error:
            result = "failed"
            self._failed(key, error)
        self._metrics.count(result, time.monotonic() - began)

    def _failed(self, key: str, error: Exception) -> None:
        delay = self._queue.retry(key)
        fields = {"key": key, "error": f"{type(error).__name__}: {error}", "again_in": round(delay, 1)}
        fields["failures"] = self._queue.failures(key)
        log.warning("failed", extra={"fields": fields}, exc_info=error if log.isEnabledFor(logging.DEBUG) else None)

    def _leave(self) -> None:
        self._queue.shut_down()
        if self._authority.leave(self._leave_seconds):
            say(logging.INFO, "left")
        else:
            say(logging.WARNING, "left with work in flight: others have to wait until this process has ended")
        self.cache.stop()
        for watch in self._beside:
            watch.stop()

    # ------------------------------------------------------------------------------------------ pages

    def _healthz(self) -> Answer:
        told: dict[str, Any] = self._authority.describe()
        silent = told.get("silent_seconds", 0.0)
        well = told.get("alive", True) and self.cache.is_alive and silent < SILENT_SECONDS
        well = well and all(is_alive() for is_alive in self.vital)
        return 200 if well else 503, {"alive": well, "silent_seconds": silent}

    def _readyz(self) -> Answer:
        """Also who only stands by is ready: it could take over."""
        beside = next((watch.trouble for watch in self._beside if watch.trouble), None)
        trouble = self._authority.describe()["trouble"] or self.cache.trouble or beside
        ready = self.cache.synced.is_set() and not trouble
        return 200 if ready else 503, {"ready": ready, "objects": len(self.cache), "trouble": trouble}

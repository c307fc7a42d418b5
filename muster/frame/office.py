# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread of an authority: it alone owns the state, takes in what watches bring, and does what is due.

Nothing that a controller's workers do can hold it up: it has an API client of its own, and waits for nobody.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Change, Resource, Trouble
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from muster.frame.authority import Recorder, Tenures
from muster.frame.following import follow
from muster.frame.keeper import Keeper, write_seconds
from muster.frame.pods import Pods
from muster.process import log, say

LONGEST: Final = 10.0  # seconds between two turns, so that a liveness probe can tell
SETTLE_SECONDS: Final = 5.0  # how long, at the end, the thread may take beyond its last write


class Settings(NamedTuple):
    """What leader and shards have in common. `name` is the controller's, and of the Lease of a leader."""

    name: str
    namespace: str
    me: Identity
    timing: Timing = Timing()
    pod_selector: str = ""  # of the replicas' Pods; empty: those that matter are watched one by one
    started: float | None = None  # see election.own_container_id


class _News(NamedTuple):
    source: str
    change: Change


class Office(ABC):
    """What `Leader` and `Shards` have in common. `keeper` keeps the Lease on which all rests."""

    def __init__(
        self, api: Api, settings: Settings, *, writes: Api | None, clock: Callable[[], float], **keeper: Any
    ) -> None:
        """`writes`: a client of which each request takes `write_seconds` at most; None makes one."""
        self._api, self._settings, self._clock = api, settings, clock
        self._writes = writes or Api(api.credentials, timeout=write_seconds(settings.timing))
        self._inbox: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._is_draining = self._is_leaving = self._may_release = self._is_free = False
        self._thread = threading.Thread(target=self._run, name=f"authority {settings.name}", daemon=True)
        self._turned = clock()
        self._changed: Callable[[], None] = lambda: None
        self._troubles: dict[str, str] = {}
        self._pods = Pods(api, settings.namespace, settings.pod_selector, self._wake)
        self._tenures = Tenures(Recorder(), clock=clock, idle=self._wake)
        self._keeper = Keeper(
            self._writes,
            namespace=settings.namespace,
            me=settings.me,
            timing=settings.timing,
            tenures=self._tenures,
            pods=self._pods,
            started=settings.started,
            regained=lambda: self._changed(),
            clock=clock,
            **keeper,
        )

    # ------------------------------------------------------------------------------------------ as an Authority

    def start(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._thread.start()

    def leave(self, timeout: float) -> bool:
        """See `Authority`. It takes at most `timeout` seconds, and what one write may take."""
        self._tenures.refuse()
        self._is_draining = True
        self._wake()
        self._may_release = self._tenures.drain(timeout)
        self._is_leaving = True
        self._wake()
        if self._thread.ident is not None:
            self._thread.join(self._keeper.timeout * 2 + SETTLE_SECONDS)
        return self._is_free

    def describe(self) -> dict[str, Any]:
        trouble = self._keeper.trouble or next(iter(list(self._troubles.values())), None) or self._pods.trouble
        return {
            "identity": str(self._keeper.me),
            "holder": self._keeper.holder,
            "has_lease": self._keeper.has,
            "seconds_left": round(max(0.0, self._tenures.left()), 3),
            "trouble": trouble,
            "alive": self._thread.is_alive(),
            "silent_seconds": round(self._clock() - self._turned, 1),
        }

    # ------------------------------------------------------------------------------------------ for who derives

    @abstractmethod
    def _begin(self) -> None:
        """Start the watches."""

    @abstractmethod
    def _take(self, source: str, change: Change) -> None:
        """Take in what a watch brought; no Trouble."""

    @abstractmethod
    def _act(self) -> None:
        """Do what is due; at most one write beside those of the keeper."""

    @abstractmethod
    def _next_at(self) -> float:
        """When `_act` has something to do without news, on the clock."""

    def _follow(self, source: str, resource: Resource, **what: Any) -> None:
        def run() -> None:
            for change in follow(self._api, resource, self._settings.namespace, self._stop, **what):
                self._inbox.put(_News(source, change))

        threading.Thread(target=run, name=f"follow {source}", daemon=True).start()

    def _wake(self) -> None:
        self._inbox.put(None)

    # ------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            self._begin()
            while not self._is_leaving:
                self._turn()
                self._absorb(max(0.0, min(self._next_at(), self._keeper.next_at()) - self._clock()))
            self._is_free = self._may_release and self._keeper.release()
        except Exception:
            log.exception("the authority has ended; nothing is worked on any more")
        finally:
            self._tenures.end_all()
            self._stop.set()
            self._pods.stop()

    def _turn(self) -> None:
        """Do what is due by what was seen."""
        self._turned = self._clock()
        if self._keeper.has or not self._is_draining:
            self._keeper.act()
        self._act()

    def _absorb(self, timeout: float) -> None:
        """Wait for news for so long, and take in all there is."""
        with suppress(queue.Empty):
            news = self._inbox.get(timeout=min(timeout, LONGEST))
            while True:
                if news is not None:
                    self._hear(*news)
                news = self._inbox.get_nowait()

    def _hear(self, source: str, change: Change) -> None:
        if isinstance(change, Trouble):
            if source not in self._troubles:
                say(logging.WARNING, "a watch is in trouble", source=source, error=str(change.error))
            self._troubles[source] = str(change.error)
            return
        self._troubles.pop(source, None)
        self._take(source, change)

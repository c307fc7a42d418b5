# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A queue of keys for the workers of a controller: it says that something is to be looked at, not what is new there.

Rules
1. A key is worked on by one worker at a time. What is added meanwhile is worked on once more afterwards.
2. A key stands in the queue once, however often it is added; of several times, the earliest counts.
3. What failed is tried again after a random delay whose bound grows with each failure in a row.

Theory: client-go's workqueue; full jitter (Brooker, 2015). `Agenda` is the pure part: time and dice are told to it.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from ansible_collections.muster.coordination.plugins.module_utils.commit import Backoff

RETRY: Final = Backoff(1.0, 60.0)  # seconds: bounds of the delay after a failure


class Agenda:
    """Which keys are to be worked on, and when. Times are seconds of one monotonic clock; not for several threads."""

    def __init__(self, backoff: Backoff = RETRY) -> None:
        self._backoff = backoff
        self._ready: dict[str, None] = {}  # in the order in which they came
        self._working: set[str] = set()
        self._again: set[str] = set()  # worked on, and added meanwhile
        self._times: dict[str, float] = {}  # of those that are to come later
        self._heap: list[tuple[float, str]] = []  # of those times; what is not in `_times` any more is skipped
        self._failures: dict[str, int] = {}

    def __len__(self) -> int:
        """How many are to be worked on now or later."""
        return len(self._ready) + len(self._times) + len(self._again - self._times.keys())

    @property
    def ready(self) -> int:
        """How many wait for a worker."""
        return len(self._ready) + len(self._again)

    @property
    def working(self) -> int:
        return len(self._working)

    def add(self, key: str) -> None:
        """Now."""
        self._times.pop(key, None)
        if key in self._working:
            self._again.add(key)
        else:
            self._ready[key] = None

    def add_at(self, key: str, at: float) -> None:
        """Then, or earlier."""
        if key in self._ready or key in self._again or self._times.get(key, at + 1) <= at:
            return
        self._times[key] = at
        heapq.heappush(self._heap, (at, key))
        if len(self._heap) > 64 + 2 * len(self._times):  # most of it is skipped
            self._heap = [(time, key) for key, time in self._times.items()]
            heapq.heapify(self._heap)

    def retry(self, key: str, now: float, dice: float) -> float:
        """After it failed; `dice` is a random number of [0, 1). Returns the delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        first, largest = self._backoff
        delay = dice * min(largest, first * 2.0 ** min(failures - 1, 32))
        self.add_at(key, now + delay)
        return delay

    def forget(self, key: str) -> None:
        """It did not fail: the next failure is the first one."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        """How often it has failed in a row."""
        return self._failures.get(key, 0)

    def take(self, now: float) -> str | None:
        """The next key, to be worked on until `done`; None while there is none."""
        while self._heap and self._heap[0][0] <= now:
            at, due = heapq.heappop(self._heap)
            if self._times.get(due) == at:
                self.add(due)
        key = next(iter(self._ready), None)
        if key is not None:
            del self._ready[key]
            self._working.add(key)
        return key

    def done(self, key: str) -> None:
        """Nobody works on it any more."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def next_at(self) -> float | None:
        """When the next of those comes that are to come later; None if there are none. It may be earlier than that."""
        return self._heap[0][0] if self._heap else None


class WorkQueue:
    """An Agenda for several threads."""

    def __init__(
        self,
        backoff: Backoff = RETRY,
        *,
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._agenda, self._clock, self._dice = Agenda(backoff), clock, dice
        self._news = threading.Condition()
        self._is_shut = False

    def __len__(self) -> int:
        with self._news:
            return len(self._agenda)

    @property
    def ready(self) -> int:
        with self._news:
            return self._agenda.ready

    @property
    def working(self) -> int:
        with self._news:
            return self._agenda.working

    def add(self, *keys: str) -> None:
        self.add_all(keys)

    def add_all(self, keys: Iterable[str]) -> None:
        with self._news:
            for key in keys:
                self._agenda.add(key)
            self._news.notify_all()

    def add_after(self, key: str, seconds: float) -> None:
        with self._news:
            self._agenda.add_at(key, self._clock() + seconds)
            self._news.notify_all()

    def retry(self, key: str) -> float:
        """It failed: again after a delay, which is returned in seconds."""
        with self._news:
            delay = self._agenda.retry(key, self._clock(), self._dice())
            self._news.notify_all()
            return delay

    def forget(self, key: str) -> None:
        with self._news:
            self._agenda.forget(key)

    def failures(self, key: str) -> int:
        with self._news:
            return self._agenda.failures(key)

    def get(self) -> str | None:
        """Wait for a key; who gets it says `done` in the end. None: the queue was shut down."""
        with self._news:
            while not self._is_shut:
                now = self._clock()
                key = self._agenda.take(now)
                if key is not None:
                    return key
                following = self._agenda.next_at()
                self._news.wait(None if following is None else max(0.001, following - now))
        return None

    def done(self, key: str) -> None:
        with self._news:
            self._agenda.done(key)
            self._news.notify_all()

    def shut_down(self) -> None:
        """Hand out no more keys. What is worked on goes on."""
        with self._news:
            self._is_shut = True
            self._news.notify_all()

    def drain(self, timeout: float) -> bool:
        """Wait for up to `timeout` seconds until nothing is worked on; whether that is so."""
        with self._news:
            return self._news.wait_for(lambda: not self._agenda.working, timeout)

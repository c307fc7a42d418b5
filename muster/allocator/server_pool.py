# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Threads in which calls that block are made, for a server whose own thread must not; a bounded number of them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class Full(Exception):
    """All threads are busy, and so many calls wait that no more may."""


class Pool:
    """At most `threads` calls at a time, and at most `waiting` beyond. Threads begin when they are needed."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._name, self._threads, self._limit = name, threads, threads + waiting
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._started = 0
        self._is_closed = False
        self.calls = 0  # that run or wait now

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have it called. Raises Full. Its place is free when it has ended, whoever still waits for it."""
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed or self.calls >= self._limit:
                raise Full(self._name)
            self.calls += 1
            if self._started < min(self.calls, self._threads):
                self._started += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._started}", daemon=True).start()
        self._jobs.put((future, call))
        return future

    def close(self) -> None:
        """Take no more calls. Those that run go on; daemon threads hold up no end of the process."""
        with self._lock:
            self._is_closed = True
            started = self._started
        for _number in range(started):
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, call = job
            try:
                if future.set_running_or_notify_cancel():
                    try:
                        result = call()
                    except BaseException as error:
                        future.set_exception(error)
                    else:
                        future.set_result(result)
                    result = None
            finally:
                with self._lock:
                    self.calls -= 1
                job = future = call = None  # type: ignore[assignment] # nothing is kept until the next

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller may act on, until when, and under which fence; and the record of that, for whoever wants proof.

An authority (`leader.py`, `shards.py`) says which keys are a process's own. Work is done inside `work(key)`, and right
before each effect the term is checked: so a process that was stopped, frozen or cut off does nothing late by itself,
and what was already on its way is refused by its fence.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

LOG_VARIABLE: Final = "MUSTER_AUTHORITY_LOG"  # path of a file to which all authorities of one host append


class Superseded(MusterError):
    """What was to be done is not this process's to do any more. Whoever has the key now sees to it."""


class Term(Protocol):
    """The right to act on one key, as it was when work on that began."""

    @property
    def scope(self) -> str:
        """What the fence counts for: `NAMESPACE/LEASE`, or `NAMESPACE/TABLE/SHARD`."""

    @property
    def fence(self) -> int:
        """Greater than that of all who had the right before; of one cluster, all fences can be compared."""

    def check(self) -> float:
        """Seconds for which it may still be used. Raises Superseded when there are none.

        To be called right before each effect, which takes at most so long.
        """


class Authority(Protocol):
    """Which keys are this process's own. For several threads."""

    def start(self, changed: Callable[[], None]) -> None:
        """Begin; `changed` is called, from any thread, when keys were gained."""

    def work(self, key: str) -> AbstractContextManager[Term | None]:
        """While inside, the key is not handed over: that waits. None: it is not this process's own."""

    def is_mine(self, key: str) -> bool: ...

    def leave(self, timeout: float) -> bool:
        """Let no more work begin, wait up to `timeout` seconds for what is in flight, and hand over by a write.

        False: work was still in flight, or the write failed; then others have to wait for the end of this process as
        the kubelet sees it, or of its Lease.
        """

    def describe(self) -> dict[str, Any]:
        """As JSON, for pages and metrics: at least `mode`, `identity`, `active` and `trouble` (None: all is well)."""


class Recorder:
    """Appends a line of JSON for each beginning and end of authority; nothing where no file is named.

    `at` is nanoseconds of CLOCK_MONOTONIC, which is one clock for all processes of a host.
    """

    def __init__(self, path: str | None = None) -> None:
        """`path` None: as the environment says."""
        path = os.environ.get(LOG_VARIABLE) if path is None else path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) if path else None

    def note(self, event: str, who: str, scope: str, fence: int, at: float) -> None:
        """`event` is begin or end, `at` in monotonic seconds."""
        if self._file is not None:
            line = {"at": round(at * 1e9), "who": who, "scope": scope, "fence": fence, "event": event}
            os.write(self._file, f"{json.dumps(line)}\n".encode())


@dataclass(eq=False)
class _Tenure:
    """One scope under one fence."""

    group: Tenures
    who: str
    scope: str
    fence: int
    is_open: bool = True  # work may begin
    has_ended: bool = False
    busy: int = 0  # how much work is in flight

    def check(self) -> float:
        left = 0.0 if self.has_ended else self.group.left()
        if left <= 0:
            raise Superseded(
                f"{self.scope}: the term with fence {self.fence} is over; whoever has the next one goes on"
            )
        return left


class Tenures:
    """All scopes that one process has, and the work in flight on each. All rest on one Lease, and end with it.

    For several threads; what begins and ends comes from one, the owner of that Lease.
    """

    def __init__(
        self,
        recorder: Recorder | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        """`idle` is called, from any thread, when the last work has ended on what was closed or has ended."""
        self._recorder, self._clock, self._idle = recorder or Recorder(), clock, idle
        self._tenures: dict[Hashable, _Tenure] = {}
        self._orphans = 0  # how much work is in flight on what has ended
        self._change = threading.Condition()
        self._until = -math.inf  # when the Lease may not be used any more, on the clock
        self._has_lapsed = False
        self._is_refusing = False

    def left(self) -> float:
        """Seconds for which the Lease may still be used; 0 or less: it may not."""
        with self._change:  # who is told that it may not comes before `extend`, which then says so
            return self._until - self._clock()

    @property
    def until(self) -> float:
        return self._until

    # ------------------------------------------------------------------------------------------ for the owner

    def extend(self, until: float) -> bool:
        """The Lease may be used until then; whether it might not be used any more before.

        If so, work was turned away that nobody has noted down: all has to be looked at anew.
        """
        with self._change:
            if self.left() <= 0:
                self.lapse()  # the renewal was in time when it began, and late when it was done
            self._until = until
            if not self._has_lapsed:
                return False
            self._has_lapsed = False
            for tenure in self._tenures.values():
                self._note("begin", tenure, self._clock())
            return True

    def lapse(self) -> bool:
        """The Lease could not be renewed in time: nothing may be done until it is. Whether that ends anything."""
        with self._change:
            if self._has_lapsed or not self._tenures:
                return False
            self._has_lapsed = True
            for tenure in self._tenures.values():
                self._note("end", tenure, min(self._clock(), self._until))
            return True

    def begin(self, name: Hashable, who: str, scope: str, fence: int) -> None:
        """`name` is how `work` will ask for it."""
        with self._change:
            tenure = self._tenures[name] = _Tenure(self, who, scope, fence)
            if not self._has_lapsed:
                self._note("begin", tenure, self._clock())

    def fence(self, name: Hashable) -> int | None:
        """The fence under which it is had; None: it is not."""
        tenure = self._tenures.get(name)
        return tenure.fence if tenure else None

    def has_orphans(self) -> bool:
        """Whether work is in flight on what has ended."""
        return self._orphans > 0

    def names(self) -> list[Any]:
        with self._change:
            return list(self._tenures)

    def close(self, name: Hashable) -> bool:
        """Let no more work begin on it; whether none is in flight."""
        with self._change:
            tenure = self._tenures[name]
            tenure.is_open = False
            return not tenure.busy

    def reopen(self, name: Hashable) -> bool:
        """Let work begin on it; whether none might before."""
        with self._change:
            tenure = self._tenures[name]
            was_closed, tenure.is_open = not tenure.is_open, True
            return was_closed

    def end(self, name: Hashable) -> None:
        with self._change:
            self._end(name)

    def end_all(self) -> None:
        with self._change:
            for name in list(self._tenures):
                self._end(name)
            self._until = -math.inf
            self._has_lapsed = False

    # ------------------------------------------------------------------------------------------ for workers

    @contextmanager
    def work(self, name: Hashable) -> Iterator[Term | None]:
        tenure = self._enter(name)
        try:
            yield tenure
        finally:
            if tenure:
                with self._change:
                    tenure.busy -= 1
                    self._orphans -= tenure.has_ended
                    self._change.notify_all()
                if not (tenure.busy or tenure.is_open):
                    self._idle()

    def has(self, name: Hashable) -> bool:
        """Whether work on it may begin."""
        tenure = self._tenures.get(name)
        return bool(tenure and tenure.is_open and not self._is_refusing and self.left() > 0)

    # ------------------------------------------------------------------------------------------ the end

    def refuse(self) -> None:
        """Let no more work begin on anything, for good."""
        with self._change:
            self._is_refusing = True

    def drain(self, timeout: float) -> bool:
        """Wait for up to `timeout` seconds until no work is in flight; whether that is so."""
        with self._change:
            return self._change.wait_for(self._is_idle, timeout)

    # ------------------------------------------------------------------------------------------ private

    def _is_idle(self) -> bool:
        return not self._orphans and not any(tenure.busy for tenure in self._tenures.values())

    def _enter(self, name: Hashable) -> _Tenure | None:
        with self._change:
            if not self.has(name):
                return None
            self._tenures[name].busy += 1
            return self._tenures[name]

    def _end(self, name: Hashable) -> None:
        tenure = self._tenures.pop(name, None)
        if tenure:
            tenure.has_ended, tenure.is_open = True, False
            self._orphans += tenure.busy
            if not self._has_lapsed:
                self._note("end", tenure, min(self._clock(), self._until))

    def _note(self, event: str, tenure: _Tenure, at: float) -> None:
        self._recorder.note(event, tenure.who, tenure.scope, tenure.fence, at)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One holder's attendance at one semaphore: claim, wait, keep and hand on, driven by watches.

The sidecar attends for the life of its Pod, a module with `wait` until it is granted. What is particular to an engine
is its `Seat`: it keeps what the watches brought, says by running its own decision on that whether anything is due, and
does it. Where nothing is due nothing is sent: a waiter writes once and then only watches.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Api,
    ApiError,
    Change,
    Recovered,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Grant, Lease, Semaphore
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import (
    Due,
    NoSemaphore,
    Seat,
    Standing,
    View,
)

OTHERS_FIRST = (0.05, 0.30)  # seconds: what concerns only others is done after a random delay, by whoever is first
RETRY = (1.0, 3.0)  # seconds until the next try of what failed or had no effect
PORTION = 0.05  # seconds: who holds waits for nothing, so it takes in the news of so long at once


@dataclass(frozen=True, slots=True)
class Sight:
    """What the holder may rely on now; `trouble` says why nothing better can be said."""

    grant: Grant | None = None
    place: int | None = None
    standing: Standing | None = None
    trouble: str | None = None

    @property
    def semaphore(self) -> Semaphore | None:
        """All of it, for people; None while it has not been read. It is made when it is asked for."""
        return self.standing.semaphore if self.standing else None


class Attendant:
    """Keeps one seat attended; `sights` is its loop. One thread uses it; `stop` may come from anywhere."""

    def __init__(
        self,
        api: Api,
        seat: Seat,
        *,
        namespace: str,
        resync: tuple[float, float] = (50.0, 70.0),
        notice: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resync` bounds, in seconds, the random time between two acts that no watch asked for.

        A lease that could not be renewed is told as lost `notice` seconds before others may take it away.
        """
        self._api, self._seat, self._namespace = api, seat, namespace
        self._lease = seat.claimant.lease_seconds
        self._resync, self._notice, self._clock = resync, notice, clock
        self._inbox: queue.SimpleQueue[tuple[str, Change | Exception] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._followed: set[str] = set()
        self._needed = frozenset(seat.sources())  # watches without which nothing can be said
        self._unread = set(self._needed)  # those of them that have not brought their first list yet
        self._troubles: dict[str, str] = {}
        self._view: View | None = None
        self.is_known = False  # whether what the claimant has was found out once
        self._leases: dict[Hashable, tuple[Lease, float]] = {}  # of others, and since when each is seen unchanged
        self._renewed = clock() - (self._lease or 0)  # when a predecessor did is not known: renew at once
        self._due: float | None = None  # when to do what concerns only others
        self._quiet_until = 0.0
        self._resync_at = 0.0
        self.turned = clock()  # when the loop last went round, on the clock: for a liveness probe

    def stop(self) -> None:
        """End `sights` soon; safe in a signal handler."""
        self._stopped.set()
        self._inbox.put(None)

    def sights(self, deadline: float | None = None) -> Iterator[Sight]:
        """Attend until stopped or until `deadline` (on the clock), yielding each time when something changed.

        Raises ApiError when a watch is refused from the start (no permission, no such namespace).
        """
        self._resync_at = self._clock() + random.uniform(*self._resync)
        shown: Sight | None = None
        try:
            while not self._stopped.is_set() and (deadline is None or self._clock() < deadline):
                sight = self._turn()
                self._follow_all()  # after the look, in which the seat may have found that it needs another watch
                if sight != shown:
                    yield sight
                    shown = sight
                self._absorb(self._next_wake(deadline))
        finally:
            self._stopped.set()

    def leave(self, timeout: float) -> bool:
        """Give back what the claimant has, and its place, within `timeout` seconds; whether it had anything.

        For the thread which uses `sights`, and after it; on what the watches showed last it is one request.
        """
        had = self._seat.leave(timeout, self._absorb_waiting)
        self._view = None
        return had

    # ------------------------------------------------------------------------------------------ look and act

    def _turn(self) -> Sight:
        """Find what is due from what was seen, do it, and say what the holder may rely on."""
        self.turned = self._clock()
        if self._unread:
            return Sight(trouble=self._trouble() or "the semaphore has not been read yet")
        try:
            self._look()
            if self._is_due():
                self._act()
                self._look()
        except (MusterError, ApiError) as error:
            if isinstance(error, NoSemaphore):
                self._view, self.is_known = None, True  # if it is only malformed the last good view stays in force
            self._quiet_until = self._clock() + random.uniform(*RETRY)
            return self._sight(str(error))
        return self._sight(self._trouble())

    def _look(self) -> None:
        self._view, self.is_known = self._seat.look(), True
        now, known = self._clock(), self._leases
        self._leases = {
            whose: known[whose] if whose in known and known[whose][0] == lease else (lease, now)
            for whose, lease in self._seat.leases().items()
        }

    def _is_due(self) -> bool:
        now = self._clock()
        if now < self._quiet_until:
            return False
        if now >= self._resync_at:
            return True
        due = self._seat.due(self._expired(), renew=self._is_renewal_due())
        if due is not Due.OTHERS:
            self._due = None
            return due is Due.MINE
        if self._due is None:
            self._due = now + random.uniform(*OTHERS_FIRST)
        return now >= self._due

    def _act(self) -> None:
        started = self._clock()
        asked_for = started < self._resync_at
        self._due = None
        changed, renewed = self._seat.act(self._expired(), renew=self._is_renewal_due(), absorb=self._absorb_waiting)
        self._resync_at = started + random.uniform(*self._resync)  # what failed is still due
        if asked_for and not changed:
            self._quiet_until = self._clock() + random.uniform(*RETRY)  # if a watch lags, its news ends this
        if renewed:
            self._renewed = started

    def _is_renewal_due(self) -> bool:
        return self._lease is not None and self._clock() >= self._renewed + self._lease / 3

    def _expired(self) -> dict[Hashable, Lease]:
        """Whose lease was seen unchanged for its time; who acts on it must find it still the same."""
        now = self._clock()
        return {whose: lease for whose, (lease, since) in self._leases.items() if now >= since + lease.seconds}

    def _sight(self, trouble: str | None) -> Sight:
        if self._view is None:
            return Sight(trouble=trouble)
        standing, grant, place, own_trouble = self._view
        trouble = trouble or own_trouble
        if grant and grant.lease and self._clock() >= self._renewed + grant.lease.seconds - self._notice:
            grant, trouble = None, trouble or "the lease ran out before it could be renewed"
        return Sight(grant, place, standing, trouble)

    # ------------------------------------------------------------------------------------------ watches and time

    def _follow_all(self) -> None:
        """Start the watches that the seat asks for; some it asks for only after a while."""
        for source, what in self._seat.sources().items():
            if source not in self._followed:
                self._followed.add(source)
                self._follow(source, **what)

    def _follow(self, source: str, **what: Any) -> None:
        """Watch from a thread of its own. A watch that is not needed, and refused, is trouble, and asked for again."""

        def run() -> None:
            while not self._stopped.is_set():
                try:
                    for change in self._api.follow(namespace=self._namespace, stop=self._stopped, **what):
                        self._inbox.put((source, change))
                    return
                except Exception as error:
                    if source in self._needed or not isinstance(error, ApiError):
                        self._inbox.put((source, error))
                        return
                    self._inbox.put((source, Trouble(error)))
                    self._stopped.wait(random.uniform(*RETRY))

        threading.Thread(target=run, name=f"follow-{source}", daemon=True).start()

    def _absorb(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for news, and take in all there is."""
        with suppress(queue.Empty):
            news = self._inbox.get(timeout=timeout)
            if news is not None:
                self._take(*news)
                if self._view and self._view.grant:
                    self._stopped.wait(PORTION)
                self._absorb_waiting()

    def _absorb_waiting(self) -> None:
        with suppress(queue.Empty):
            while (news := self._inbox.get_nowait()) is not None:
                self._take(*news)
            self._inbox.put(None)  # for the loop, which ends by it

    def _take(self, source: str, change: Change | Exception) -> None:
        if isinstance(change, Exception):
            raise change
        if isinstance(change, Trouble):
            self._troubles[source] = str(change.error)
            return
        self._troubles.pop(source, None)
        if isinstance(change, Recovered):
            self._quiet_until = 0.0
            return
        self._unread.discard(source)
        if self._seat.take(source, change):
            self._quiet_until = 0.0

    def _next_wake(self, deadline: float | None) -> float:
        """Seconds until something is due without news. What was due in the last turn was seen to in it."""
        times = [self._resync_at, self._quiet_until, *(since + lease.seconds for lease, since in self._leases.values())]
        if self._lease is not None:
            times += [self._renewed + self._lease / 3, self._renewed + self._lease - self._notice]
        if self._due is not None:
            times.append(self._due)
        wake = min((at for at in times if at > self.turned), default=self.turned + self._resync[1])
        wake = max(wake, self._quiet_until)
        return max(0.005, (wake if deadline is None else min(wake, deadline)) - self._clock())

    def _trouble(self) -> str | None:
        return next(iter(self._troubles.values()), None)

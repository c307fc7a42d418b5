# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's Lease: that it lives, where it is, that it leaves; and until when it may serve.

Rules
1. A worker may serve up to five sixths of the Lease's duration after it sent its last successful renewal, by its own
   monotonic clock, which goes on while it is frozen. Others call it lost a second after the whole duration at the
   earliest. No clock is compared with another.
2. A session is a time without a gap: when a renewal is confirmed too late, or the Lease was another's or away in
   between, a new session begins. What was read of the API server counts for the session in which it was begun.
3. A Lease that another run of this worker holds is taken when that was seen unchanged for its duration and a second; at
   once where that run had this very data directory, which one process at a time has: it has ended.
4. At the end the worker stops serving first, then the Lease is released.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    AlreadyExists,
    Api,
    Conflict,
    NotFound,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import LEAVING
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.process import say

ADDRESS: Final = "muster.dev/address"
SPACE: Final = "muster.dev/key-space"  # label
DURATION: Final = range(1, 3601)  # seconds
USABLE: Final = 5 / 6  # of the duration, after a renewal was sent
RETRY_SECONDS: Final = 0.2
OBSERVER_SECONDS: Final = 1.0  # that others wait beyond the duration

Object = dict[str, Any]


def clock() -> float:
    """Seconds on a clock that no one sets, and that also counts while the machine sleeps, where there is such a one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def lease_name(space: str, worker: str) -> str:
    return f"{space}.{worker}"


class _Session(NamedTuple):
    number: int
    deadline: float


class WorkerLease:
    """Keeps the Lease in a thread of its own. `changed` is called there when a session has begun or ended."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        space: str,
        worker: str,
        incarnation: str,
        address: str,
        *,
        duration: int = 6,
        former: str = "",
        clock: Callable[[], float] = clock,
    ) -> None:
        """`former`: the incarnation that had this data directory before. Raises Malformed."""
        if duration not in DURATION:
            raise Malformed(
                "lease seconds", duration, f"give a whole number from {DURATION.start} to {DURATION.stop - 1}"
            )
        self._api, self._namespace, self._space = api, namespace, space
        self.name, self.holder = lease_name(space, worker), f"{worker}/{incarnation}"
        self._former = f"{worker}/{former}" if former else ""
        self.address, self.duration, self._clock = address, duration, clock
        self._session = _Session(0, 0.0)
        self._lease: Object | None = None
        self._seen: tuple[Any, float] | None = None  # of another holder: what is unchanged, and since when
        self._trouble = ""
        self._wake, self._is_over, self._is_leaving = threading.Event(), False, False
        self._turn = threading.Lock()
        self.changed: Callable[[], None] = lambda: None
        self._thread: threading.Thread | None = None

    # ------------------------------------------------------------------------------------------ may it serve?

    @property
    def session(self) -> int:
        """The number of the session that holds now; 0: none does."""
        number, deadline = self._session
        return number if self._clock() < deadline else 0

    def holds(self, session: int) -> bool:
        """Whether that session goes on."""
        return session > 0 and self.session == session

    @property
    def last_session(self) -> int:
        return self._session.number

    @property
    def is_leaving(self) -> bool:
        return self._is_leaving

    # ------------------------------------------------------------------------------------------ its thread

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Tell others from now on that this worker wants to end."""
        self._is_leaving = True
        self._wake.set()

    def close(self) -> None:
        """End the session, then release the Lease; what fails is left to run out."""
        self._is_over = True
        self._wake.set()
        if self._thread:
            self._thread.join(self._api.timeout + 5)
        with self._turn:
            self._end_session()
            try:
                lease = self._lease and self._api.get(LEASES, self.name, self._namespace)
                if lease and (lease.get("spec") or {}).get("holderIdentity") == self.holder:
                    self._api.replace(LEASES, self._with(lease, holder=""))
                    say(logging.INFO, "released its Lease", lease=self.name)
            except MusterError as error:
                say(logging.WARNING, "the Lease could not be released", error=str(error))

    def _run(self) -> None:
        while not self._is_over:
            before = self.session
            with self._turn:
                fine = self.turn()
            if self.session != before:
                self.changed()
            self._wake.wait(self.duration / 4 if fine else RETRY_SECONDS)
            self._wake.clear()

    def turn(self) -> bool:
        """Take it, or renew it; whether that went well. It never raises."""
        sent = self._clock()
        try:
            lease = self._lease or self._read()
            holder = (lease.get("spec") or {}).get("holderIdentity") or ""
            if holder != self.holder:
                self._end_session()
                if not self._may_take(lease, holder):
                    self._lease = None
                    return self._complain(f"{holder} has it")
            sent = self._clock()
            self._lease = self._api.replace(LEASES, self._with(lease, holder=self.holder))
        except (NotFound, AlreadyExists, Conflict) as error:
            # somebody else wrote it, or it is away: see what it says, which ends the session unless it is still ours
            self._lease = None
            if isinstance(error, NotFound):
                self._end_session()
            return self._complain(str(error))
        except MusterError as error:  # it may have been written, or not
            self._lease = None
            return self._complain(str(error))
        self._confirmed(sent)
        return True

    def _read(self) -> Object:
        try:
            return self._api.get(LEASES, self.name, self._namespace)
        except NotFound:
            self._end_session()
            metadata = {"name": self.name, "namespace": self._namespace, "labels": {SPACE: self._space}}
            lease = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": metadata,
                "spec": {"leaseDurationSeconds": self.duration},
            }
            return self._api.create(LEASES, lease)

    def _may_take(self, lease: Object, holder: str) -> bool:
        if not holder or holder == self._former:
            return True
        spec, now = lease.get("spec") or {}, self._clock()
        beat = (lease["metadata"].get("uid"), holder, spec.get("renewTime"))
        if self._seen is None or self._seen[0] != beat:
            self._seen = beat, now
        return now - self._seen[1] >= (spec.get("leaseDurationSeconds") or self.duration) + OBSERVER_SECONDS

    def _with(self, lease: Object, *, holder: str) -> Object:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        metadata, spec = lease["metadata"], lease.get("spec") or {}
        is_new = spec.get("holderIdentity") != holder
        notes: Mapping[str, str | None] = {
            ADDRESS: self.address,
            LEAVING: "true" if self._is_leaving and holder else None,
        }
        annotations = {**(metadata.get("annotations") or {}), **notes}
        written = {
            "holderIdentity": holder,
            "leaseDurationSeconds": self.duration,
            "renewTime": now,
            "acquireTime": now if is_new and holder else spec.get("acquireTime") or now,
            "leaseTransitions": min((spec.get("leaseTransitions") or 0) + bool(is_new and holder), 2**31 - 1),
        }
        kept = {name: value for name, value in annotations.items() if value is not None}
        labels = {**(metadata.get("labels") or {}), SPACE: self._space}
        return {
            **lease,
            "metadata": {**metadata, "annotations": kept, "labels": labels},
            "spec": {**spec, **written},
        }

    def _confirmed(self, sent: float) -> None:
        number, deadline = self._session
        if self._clock() >= deadline:
            number += 1
            say(logging.INFO, "has its Lease", lease=self.name, session=number)
        elif self._trouble:
            say(logging.INFO, "renews its Lease again", lease=self.name)
        self._trouble = ""
        self._seen = None
        self._session = _Session(number, sent + self.duration * USABLE)

    def _end_session(self) -> None:
        number, deadline = self._session
        if deadline:
            say(logging.WARNING if not self._is_over else logging.INFO, "serves no more", session=number)
        self._session = _Session(number, 0.0)

    def _complain(self, why: str) -> bool:
        if why != self._trouble:
            say(logging.WARNING, "could not renew its Lease", lease=self.name, why=why)
        self._trouble = why
        return False

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Lease: taken when it may be, renewed while it is had, given up in one write. For one thread, the owner's.

What may be done is decided in `decisions/election.py`; here are the clock, the writes, and what was seen.
"""

from __future__ import annotations

import logging
import math
import random
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Final

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Api, Object
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Seen, Timing
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import leases
from muster.frame.authority import Tenures
from muster.frame.pods import Pods
from muster.process import say

AGAIN: Final = (0.1, 0.3)  # seconds until the next try of a renewal that failed
PAUSE: Final = (0.5, 1.0)  # seconds until the next try to take what was not to be had
WRITE_SECONDS: Final = 5.0  # for a write, however long the lease
FAR: Final = 60.0  # seconds: when nothing is due


def write_seconds(timing: Timing) -> float:
    """For one request, and for a write with all its tries: so that a renewal that hangs is tried again in time."""
    return min(WRITE_SECONDS, timing.lease / 4)


def new_run() -> str:
    """What tells one run of a process from all others of its Pod."""
    return secrets.token_hex(4)


class Keeper:
    """Keeps one Lease for one process; `tenures` end with it."""

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        namespace: str,
        me: Identity,
        timing: Timing,
        tenures: Tenures,
        pods: Pods,
        started: float | None,
        is_contended: bool,
        regained: Callable[[], None],
        metadata: Mapping[str, Mapping[str, str]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`api` bounds each request by `write_seconds`. `started`: see `election.own_container_id`.

        `is_contended`: others want it, too.
        `regained` is called when work may go on after it had to stop because a renewal was late.
        """
        self._regained, self._is_contended = regained, is_contended
        self._api, self._pods, self._tenures, self._clock = api, pods, tenures, clock
        self._name, self._namespace, self._metadata = name, namespace, metadata or {}
        self._timing, self._started = timing, started
        self.me = me
        self.lease: Object | None = None  # as it was last seen, or written
        self.has = False  # whether it is this process's own, as far as was seen
        self.fence = 0  # of the present term, or of the last
        self.trouble: str | None = "the Lease has not been read yet"
        self._version = -1  # what is older than this is not news
        self._seen: Seen | None = None
        self._renew_at = self._quiet_until = 0.0
        self._lost_at = -math.inf
        self._container_id = self._known_id = ""  # what the kubelet says, and what the Lease says

    @property
    def timeout(self) -> float:
        """Seconds for a write with all its tries."""
        return write_seconds(self._timing)

    @property
    def holder(self) -> str:
        """Whoever has it, as it was last seen."""
        return self._seen.term.holder if self._seen else ""

    # ------------------------------------------------------------------------------------------ what is seen

    def see(self, lease: Object | None, version: int) -> None:
        """Take in what a read or a watch shows as of this resourceVersion; None: it is not there."""
        if version < self._version:
            return
        self._version, self.lease, before, now = version, lease, self._seen, self._clock()
        try:
            self._seen = None if lease is None else election.see(before, election.parse(lease), now)
            self.trouble = None
        except MusterError as error:
            self._seen, self.trouble = None, str(error)
        if self.has and not (self._seen and election.is_mine(self._seen.term, self.me)):
            self._lost("it was taken away, or deleted")
        self._quiet_until = 0.0

    def act(self) -> None:
        """Do what is due: take it or renew it. At most one write, which takes about `timeout` at most."""
        now = self._clock()
        if self.has:
            if self._tenures.left() <= 0 and self._tenures.lapse():
                say(logging.WARNING, "stops work: the Lease could not be renewed in time", lease=self._name)
            if now >= self._renew_at or self._news_of_container():
                self._renew()
        elif now >= self._quiet_until:
            why = self._why_take(now)
            if why:
                self._take(why)

    def next_at(self) -> float:
        """When `act` has something to do without news, on the clock."""
        now = self._clock()
        if self.has:
            return min([self._renew_at, *([self._tenures.until] if self._tenures.until > now else [])])
        if self._quiet_until > now:
            return self._quiet_until
        if self._waits_for_itself(now):
            return self._lost_at + self._timing.usable
        return now + (election.expires_in(self._seen, now) if self._seen else FAR)

    def announce_leave(self) -> None:
        """Tell the others, in one write, that this replica begins nothing more."""
        if self.has and self.lease is not None:
            self._renew(is_leaving=True)

    def release(self) -> bool:
        """Give it up in one write; whether others can have it now. Work in flight must have ended before."""
        self._tenures.end_all()
        if not self.has or self.lease is None:
            return True
        self.has = False
        try:
            leases.release(self._api, self.lease, self.me, timeout=self.timeout)
            return True
        except MusterError as error:
            say(logging.WARNING, "could not release; others have to wait", lease=self._name, error=str(error))
            return False

    # ------------------------------------------------------------------------------------------ private

    def is_dead(self, seen: Seen) -> bool:
        """Whether the kubelet says that the holder has ended."""
        return election.has_ended(seen.term, self._pods.get(seen.term.uid))

    def _why_take(self, now: float) -> str:
        if self._waits_for_itself(now):
            return ""
        if self.lease is None:
            return "it is not there" if self._version >= 0 else ""
        if self._seen is None:
            return ""  # it is malformed
        return election.why_take(self._seen, self.me, now, is_dead=self.is_dead(self._seen))

    def _waits_for_itself(self, now: float) -> bool:
        """Whether what this process had begun may still have an effect: so long it must not come back."""
        return now < self._lost_at + self._timing.usable and self._tenures.has_orphans()

    def _take(self, why: str) -> None:
        began = self._clock()
        self._quiet_until = began + random.uniform(*PAUSE)
        try:
            taken = leases.take(
                self._api,
                name=self._name,
                namespace=self._namespace,
                me=self.me,
                timing=self._timing,
                over=self._seen.term if self._seen else None,
                metadata=self._metadata,
                is_contended=self._is_contended,
                timeout=self.timeout,
            )
        except MusterError as error:  # it may have been taken, and be over when that is seen
            self.trouble = str(error)
            self._begin_new_run()
            return
        if taken is None:
            self._read_again()
        else:
            self._known_id, self.has = "", True
            self._renewed(taken, began)
            say(logging.INFO, "took the Lease", lease=self._name, why=why, fence=self.fence, identity=str(self.me))

    def _read_again(self) -> None:
        """Somebody was faster, or it was only made; or a watch lags, and must not be waited for."""
        try:
            lease = self._api.get(LEASES, self._name, self._namespace)
        except MusterError as error:
            self.trouble = str(error)
            return
        self.see(lease, int(lease["metadata"]["resourceVersion"]))
        self._quiet_until = self._clock() + random.uniform(*PAUSE)

    def _renew(self, *, is_leaving: bool = False) -> None:
        assert self.lease is not None
        began, container_id = self._clock(), self._container_id
        try:
            renewed = leases.renew(
                self._api,
                self.lease,
                self.me,
                container_id=container_id,
                is_leaving=is_leaving,
                timeout=self.timeout,
            )
        except MusterError as error:
            self.trouble = str(error)
            self._renew_at = self._clock() + random.uniform(*AGAIN)
            return
        if renewed is None:
            self._lost("somebody else has it, or it was deleted")
        else:
            self._known_id = container_id
            self._renewed(renewed, began)

    def _renewed(self, lease: Object, began: float) -> None:
        """It was written, by a request that was sent after `began`."""
        self.see(lease, int(lease["metadata"]["resourceVersion"]))
        term = election.parse(lease)
        self.fence = term.fence
        self._renew_at = began + self._timing.renewal
        if self._tenures.extend(began + self._timing.usable):
            say(logging.INFO, "goes on: the Lease is renewed", lease=self._name)
            self._regained()

    def _lost(self, why: str) -> None:
        self.has, self._lost_at = False, self._clock()
        self._tenures.end_all()
        say(logging.WARNING, "lost the Lease", lease=self._name, why=why, fence=self.fence, identity=str(self.me))
        self._begin_new_run()

    def _begin_new_run(self) -> None:
        self.me = self.me._replace(run=new_run())

    def _news_of_container(self) -> bool:
        """Whether the kubelet says in which container this is, and the Lease does not say it yet."""
        if self._started is None or not self.me.container or self._container_id:
            return self._container_id != self._known_id
        pod = self._pods.get(self.me.uid)
        if pod is not None:
            self._container_id = election.own_container_id(pod, self.me.container, self._started)
        return self._container_id != self._known_id

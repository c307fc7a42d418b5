# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take, renew, release and evict a Lease: `decisions/election.py` committed to the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Api
from ansible_collections.muster.coordination.plugins.module_utils.commit import Committed, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Term, Timing

Object = dict[str, Any]


def take(
    api: Api,
    *,
    name: str,
    namespace: str,
    me: Identity,
    timing: Timing,
    over: Term | None = None,
    metadata: Mapping[str, Mapping[str, str]] | None = None,
    is_contended: bool = True,
    timeout: float,
) -> Object | None:
    """Take the Lease for `me`, if it may be taken; the Lease as `me` has it, else None.

    `over` is the term that was seen to be over. `metadata` are labels and annotations that it has to carry. A Lease
    that is not there is made; it is taken at once only where nobody else ever wants it (not `is_contended`).

    Raises TimedOut after `timeout` seconds, and what another try can't mend. It is not known then whether it was
    taken: who tries again does so with a new run, for by then this one's term may have begun, and be over.
    """
    began: list[float] = []  # when it was first tried to write that we have it

    def decide(lease: Object | None) -> tuple[Object | None, bool]:
        if began and not _may_propose_again(lease, me, time.monotonic() - began[0], timing):
            return lease, False
        if lease is None:
            return election.free(name, namespace, timing, is_doubtful=is_contended), False
        taken = election.take(lease, me, timing, _now(), over=over)
        if taken is None:
            return lease, False
        began.append(time.monotonic())
        return _labelled(taken, metadata or {}), True

    done: Committed[bool] = commit(api, LEASES, name, namespace, decide, timeout=timeout)
    if not done.verdict and done.changed and not is_contended:  # it was made, and is free
        done = commit(api, LEASES, name, namespace, decide, timeout=timeout, seen=done.after)
    return done.after if done.verdict else None


def renew(
    api: Api, lease: Object, me: Identity, *, container_id: str = "", is_leaving: bool = False, timeout: float
) -> Object | None:
    """Renew the Lease, which was `lease` when it was last seen; None where `me` does not have it any more.

    `is_leaving` tells the other replicas to reckon with this one no more; it still has what it has.
    """

    def decide(found: Object) -> Object | None:
        return election.renew(found, me, _now(), container_id, is_leaving=is_leaving)

    return _write(api, lease, decide, timeout)


def release(api: Api, lease: Object, me: Identity, *, timeout: float) -> Object | None:
    """Free the Lease, which was `lease` when it was last seen; None where `me` does not have it any more."""
    return _write(api, lease, lambda found: election.release(found, me), timeout)


def evict(api: Api, lease: Object, over: Term, *, timeout: float) -> Object | None:
    """Free a Lease whose holder's term was seen to be over; None where it is not that term any more."""
    return _write(api, lease, lambda found: election.evict(found, over), timeout)


def _may_propose_again(lease: Object | None, me: Identity, seconds: float, timing: Timing) -> bool:
    """Whether `me` can't have had it since it first tried to write that, and have lost it: an answer may be lost."""
    if lease is None:
        return False
    return election.is_mine(election.parse(lease), me) or seconds < timing.usable


def _write(api: Api, seen: Object, change: Callable[[Object], Object | None], timeout: float) -> Object | None:
    metadata = seen["metadata"]

    def decide(lease: Object | None) -> tuple[Object | None, bool]:
        changed = None if lease is None else change(lease)
        return (lease, False) if changed is None else (changed, True)

    done = commit(api, LEASES, metadata["name"], metadata["namespace"], decide, timeout=timeout, seen=seen)
    return done.after if done.verdict else None


def _labelled(lease: Object, wanted: Mapping[str, Mapping[str, str]]) -> Object:
    metadata = lease["metadata"]
    added = {field: {**(metadata.get(field) or {}), **values} for field, values in wanted.items()}
    return {**lease, "metadata": {**metadata, **added}}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

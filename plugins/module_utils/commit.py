# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way in which Muster writes to Kubernetes: read, decide, compare-and-swap, and again if somebody was faster.

A write is a full PUT that carries the resourceVersion and uid of what was read; a create is a POST whose name is the
claim; a delete carries both as preconditions. Nothing is ever merged: after a conflict the decision is made again on
what is there now. An answer that was lost is resolved by reading again, so a decision must see for itself that it was
applied (it carries the identity of whom it acts for).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    AlreadyExists,
    Api,
    ApiError,
    Conflict,
    LostAnswer,
    NotFound,
    Resource,
    ServerError,
    Throttled,
    Unreachable,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut

Verdict = TypeVar("Verdict")
Object = dict[str, Any]


class Delete:
    """What a decision returns to have the object removed."""


DELETE: Final = Delete()


class Unread:
    """What the caller has not looked at yet."""


UNREAD: Final = Unread()


class Backoff(NamedTuple):
    """Bounds of a delay with full jitter, in seconds: the first, which doubles with each failure, and the largest."""

    first: float
    largest: float


CONFLICT_BACKOFF: Final = Backoff(0.002, 0.050)  # after a 409
TROUBLE_BACKOFF: Final = Backoff(0.050, 2.0)  # after an answer that says the API server is unwell


@dataclass(frozen=True, slots=True)
class Committed(Generic[Verdict]):
    """`before` and `after` are whole objects (None: absent); `attempts` counts how often it was decided."""

    changed: bool
    before: Object | None
    after: Object | None
    verdict: Verdict
    attempts: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Clock, sleep and dice of the loop, in one place so that tests can hold them. Seconds."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    dice: Callable[[], float] = random.random


def commit(
    api: Api,
    resource: Resource,
    name: str,
    namespace: str,
    decide: Callable[[Object | None], tuple[Object | Delete | None, Verdict]],
    *,
    subresource: str = "",
    check_mode: bool = False,
    timeout: float = 10.0,
    seen: Object | Unread | None = UNREAD,
    latest: Callable[[], Object | None] = lambda: None,
    backoff: Backoff = CONFLICT_BACKOFF,
    pace: Pace = Pace(),
) -> Committed[Verdict]:
    """Bring one object to what `decide` makes of it, or find that nothing is to be done.

    `decide` gets the object as read (None: absent) and returns what it shall be (None: leave it absent; DELETE) and a
    verdict for the caller. It may read further facts: they are then newer than the object, which is what makes "this
    Pod is gone" safe to act upon. Check mode decides on the same read and writes nothing.

    `subresource` (such as status) is what a change is written to: the rest of the object stays as it is. It can neither
    be made nor deleted.

    `seen` is the object as a watch or an answer showed it last (None: absent): it saves the first read. Where it is out
    of date the write is refused; where nothing is to be done on it, or nothing can be, that is believed after a read.
    `latest` is asked for the same after a conflict and its delay; what it shows saves a read when it is newer than what
    was tried (resource versions compare as integers).

    `backoff` bounds the delay after a conflict: whoever can wait gives way to who can't.

    Raises TimedOut after `timeout` seconds, with the last obstacle; errors that another try can't mend at once.
    """
    deadline = pace.clock() + timeout
    shown = UNREAD if check_mode else seen
    attempts = conflicts = troubles = 0
    lost: Object | None = None  # what was read before a write whose answer was lost
    maybe_written = False
    while True:
        attempts += 1
        try:
            believed = not isinstance(shown, Unread)
            before = _read(api, resource, name, namespace) if isinstance(shown, Unread) else shown
            shown = UNREAD
            try:
                desired, verdict = decide(before)
            except MusterError:
                if believed:
                    continue
                raise
            if desired is before or desired == before or (before is None and isinstance(desired, Delete)):
                if believed:
                    continue
                first = lost if maybe_written else before
                return Committed(first != before, first, before, verdict, attempts)
            after = None if isinstance(desired, Delete) else desired
            if not check_mode:
                after = _write(api, resource, before, desired, subresource)
            return Committed(True, lost if maybe_written else before, after, verdict, attempts)
        except (Conflict, AlreadyExists) as error:
            obstacle: ApiError = error
            conflicts += 1
            delay = _jitter(backoff, conflicts, pace)
        except _Uncertain as uncertain:
            obstacle = uncertain.error
            if not maybe_written:
                maybe_written, lost = True, uncertain.before
            troubles += 1
            delay = max(obstacle.retry_after or 0.0, _jitter(TROUBLE_BACKOFF, troubles, pace))
        except (LostAnswer, ServerError, Throttled, Unreachable) as error:
            obstacle = error
            troubles += 1
            delay = max(error.retry_after or 0.0, _jitter(TROUBLE_BACKOFF, troubles, pace))
        if pace.clock() + delay >= deadline:
            raise TimedOut(
                f"{resource.kind} {namespace}/{name} could not be written within {timeout:g} s in {attempts} attempts",
                str(obstacle),
            ) from obstacle
        pace.sleep(delay)
        if isinstance(obstacle, (Conflict, AlreadyExists)):
            shown = _if_newer(latest(), before)


class _Uncertain(Exception):
    """A write was sent and nobody knows whether it was applied."""

    def __init__(self, before: Object | None, error: ApiError) -> None:
        super().__init__(str(error))
        self.before = before
        self.error = error


def _if_newer(obj: Object | None, tried: Object | None) -> Object | Unread:
    if obj is None or (tried is not None and _version(obj) <= _version(tried)):
        return UNREAD
    return obj


def _version(obj: Object) -> int:
    version: str = obj["metadata"]["resourceVersion"]
    return int(version) if version.isdigit() else 0


def _read(api: Api, resource: Resource, name: str, namespace: str) -> Object | None:
    try:
        return api.get(resource, name, namespace)
    except NotFound:
        return None


def _write(
    api: Api, resource: Resource, before: Object | None, desired: Object | Delete | None, subresource: str
) -> Object | None:
    if subresource and (before is None or desired is None or isinstance(desired, Delete)):
        raise ValueError(f"{subresource} can only be changed: it is made, and deleted, with its object")
    try:
        if isinstance(desired, Delete) and before is not None:
            metadata = before["metadata"]
            api.delete(
                resource,
                metadata["name"],
                metadata.get("namespace"),
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
            return None
        if desired is None or isinstance(desired, Delete):
            raise ValueError("to remove an object a decision returns DELETE, not None")
        return api.create(resource, desired) if before is None else api.replace(resource, desired, subresource)
    except NotFound as error:
        if before is None:
            raise  # the namespace is missing: trying again does not make one
        raise Conflict(error.status, error.reason, error.message) from error  # removed under our hands: read again
    except (LostAnswer, ServerError) as error:
        raise _Uncertain(before, error) from error


def _jitter(backoff: Backoff, failures: int, pace: Pace) -> float:
    """Full jitter: uniform below a bound that grows with each failure (Brooker, 2015). Seconds."""
    return pace.dice() * min(backoff.largest, backoff.first * 2.0 ** min(failures - 1, 16))

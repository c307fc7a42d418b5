# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine of the semaphore is: the same few functions, and a seat to wait in, over other objects.

`verbs/annotations.py` and `verbs/tickets.py` are the two; each is an `Engine`. What the verbs make of it is the same.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Put, Removed, Snapshot
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    Claimant,
    Grant,
    Lease,
    Resources,
    Semaphore,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

NO_RESOURCES: Final[Resources] = MappingProxyType({})
NAMED: Final = 8  # so many holders are named in a message


class NoSemaphore(MusterError):
    """The object that is the semaphore is not there."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} does not exist: create it with k8s_semaphore, or by hand")


def refuse_in_use(what: str, busy: Sequence[str], why: str = "") -> None:
    """Raise MusterError for a semaphore that is not to be removed: somebody holds or waits, or for `why`."""
    if busy:
        why = f"is in use by {', '.join(busy[:NAMED])}" + (
            f" and {len(busy) - NAMED} more" if len(busy) > NAMED else ""
        )
    if why:
        raise MusterError(f"{what} {why}: it was not removed; give force=true to remove it all the same")


def utc_now() -> str:
    """Now, as RFC 3339 with seconds: for people to read, never compared."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Holding(NamedTuple):
    """What one holder has of a semaphore: a grant, or a place in the queue (the first is 1), or neither."""

    resources: Resources = NO_RESOURCES
    fence: int | None = None
    since: str | None = None
    place: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a claim or a release: before, after, and why; `semaphore` is what stands after it.

    `warnings` are of what goes well still.
    """

    outcome: str  # held | granted | waiting | busy | released | absent
    before: Holding
    after: Holding
    semaphore: Semaphore
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Configured:
    """What became of a semaphore's `capacity` and `mode` (empty: there is none); `error`: malformed, and removed."""

    changed: bool
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    semaphore: Semaphore
    warnings: tuple[str, ...] = ()


class Due(enum.Enum):
    """Whether there is something to do, and for whose sake."""

    NOTHING = enum.auto()
    OTHERS = enum.auto()
    MINE = enum.auto()


class Standing(Protocol):
    """How a semaphore stands. Two are equal where nothing has changed, which is cheap to find out."""

    @property
    def semaphore(self) -> Semaphore:
        """For people; made when it is asked for, since most of what is seen nobody looks at."""


class View(NamedTuple):
    """What a seat sees: how the semaphore stands, what its claimant has, what is wrong though it can be read."""

    standing: Standing
    grant: Grant | None
    place: int | None
    trouble: str | None = None

    @property
    def semaphore(self) -> Semaphore:
        """How it stands, for people."""
        return self.standing.semaphore


class Acted(NamedTuple):
    """What a seat did: whether anything changed, and whether that renewed the claimant's lease."""

    changed: bool
    renewed: bool = False


class Seat(Protocol):
    """One claimant's place at one semaphore: what the watches brought, and what to do about it. Used by one thread.

    `expired` are leases seen unchanged for their time, as `leases` named them: the seat must find them the same still.
    """

    claimant: Claimant

    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """What to watch: names of the seat's own, and the arguments of `Api.follow`. More may come with time."""

    def take(self, source: str, change: Snapshot | Put | Removed) -> bool:
        """Take in what a watch brought; whether it is a reason to try again at once what failed."""

    def look(self) -> View:
        """What stands, as seen. Raises NoSemaphore; Malformed where nothing can be said that was not said before."""

    def leases(self) -> Mapping[Hashable, Lease]:
        """The leases in force, of others."""

    def due(self, expired: Mapping[Hashable, Lease], *, renew: bool) -> Due:
        """Whether the decision, made on what was seen, would change anything."""

    def act(
        self, expired: Mapping[Hashable, Lease], *, renew: bool, absorb: Callable[[], None] = lambda: None
    ) -> Acted:
        """Make the decision, and commit it. `absorb` has all taken in that the watches brought until then."""

    def leave(self, timeout: float, absorb: Callable[[], None] = lambda: None) -> bool:
        """Give back what the claimant has, and its place, within `timeout` seconds; whether it had anything."""


class Engine(Protocol):
    """Functions of a module; all raise NoSemaphore, Malformed, TimedOut and ApiError where they apply."""

    def what(self, name: str, namespace: str) -> str:
        """The object that is the semaphore, for messages."""

    def configure(
        self,
        api: Api,
        *,
        name: str,
        namespace: str,
        capacity: Resources | None,
        mode: str | None,
        present: bool,
        force: bool,
        check_mode: bool,
    ) -> Configured:
        """Create it, set its capacity and mode (None: as they are), remove it."""

    def attempt(
        self, api: Api, *, name: str, namespace: str, claimant: Claimant, enqueue: bool, check_mode: bool
    ) -> Outcome:
        """Take out the dead, then claim what is free, or (`enqueue`) a place in the queue; renew a lease in hand."""

    def withdraw(self, api: Api, *, name: str, namespace: str, claimant: Claimant) -> Outcome:
        """Give up the place in the queue, but keep what was granted meanwhile."""

    def release(
        self, api: Api, *, name: str, namespace: str, holder: str, uid: str | None, check_mode: bool, timeout: float
    ) -> Outcome:
        """Give back what the holder has, and its place; `uid` None: whoever uses the name. `timeout` in seconds."""

    def describe(self, api: Api, *, namespace: str, name: str | None) -> list[dict[str, Any]]:
        """One semaphore, or all of the namespace, as `info` shows them; only ever reads."""

    def seat(self, api: Api, *, name: str, namespace: str, claimant: Claimant) -> Seat:
        """A seat to attend."""

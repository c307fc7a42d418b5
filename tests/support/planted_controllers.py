# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs to plant in the operator's processes, to see that the harness finds them. Never planted in its own process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Trouble
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, machine, sharding
from muster.frame.authority import Tenures, Term
from muster.frame.cache import Cache, _pack
from muster.frame.leader import Leader
from muster.frame.shards import Shards
from muster.vm.cloud_client import CloudClient
from muster.vm.cloud_wire import Writer

Patch = Callable[[], None]
EVERYBODY: Final = "everybody acts"
MODES: Final = ("leader", "shard")
FREEZE, LATE_CREATE = "frozen beyond the lease", "frozen with a create in flight"  # events of a storm
KILL_CLOUD, KILL_SERVER = "cloud killed", "API server killed"
COMPACT = "history compacted and API server killed"
FAULTS: Final[Mapping[str, Any]] = {  # of the cloud, all of them at once
    "timeout_after_success": 0.03,
    "hold_seconds": 1.0,
    "error_after_success": 0.05,
    "error_before": 0.05,
    "duplicate_delivery": 0.1,
    "list_delay_seconds": 2.0,
    "rate_limit_per_second": 100.0,
    "names_not_unique": True,
}
UNGUARDED: Final = {"ignore_fences": True, "ignore_idempotency_keys": True, "names_not_unique": True}


class Bug(NamedTuple):
    """`breaks` is what must hold and then does not; `found` stands in the words of the violation that is to be found.

    `mode` and `events` of the storm, and faults of the `cloud`, with which it shows.
    """

    breaks: str
    found: str
    plant: Patch
    mode: str
    events: tuple[str, ...] = (KILL_CLOUD,)
    cloud: Mapping[str, Any] = FAULTS


def plant(name: str) -> None:
    """In this process, for good."""
    BUGS[name].plant()


# ---------------------------------------------------------------------------------------------- the guard is off


class _Always:
    """A term that is never over."""

    scope, fence = "everybody", 1

    def check(self) -> float:
        return 3600.0


@contextmanager
def _work(_authority: Any, _key: str) -> Iterator[Term | None]:
    yield _Always()


def _everybody() -> None:
    """Each replica acts on each key, with one fence for all: as if there were neither election nor shards."""
    for authority in (Leader, Shards):
        authority.work, authority.is_mine = _work, lambda *_: True  # type: ignore[method-assign,assignment]


# ---------------------------------------------------------------------------------------------- one thing is wrong


def _new_keys() -> None:
    """It never looks before it creates, and each try has a key of its own."""
    create = CloudClient.create

    def again(client: CloudClient, writer: Writer, asked: Any, key: str, **more: Any) -> Any:
        return create(client, writer, asked, f"{key}-{time.monotonic_ns()}", **more)

    def sees_nothing(answer: Mapping[str, Any]) -> machine.Found:
        found = _read_found(answer)
        return replace(found, machines=()) if time.monotonic_ns() % 2 else found

    CloudClient.create, machine.read_found = again, sees_nothing  # type: ignore[method-assign,assignment]


_read_found = machine.read_found


def _impatient() -> None:
    """It takes a Lease that was silent for a moment only."""
    why_take = election.why_take

    def soon(seen: election.Seen, me: election.Identity, now: float, *, is_dead: bool) -> str:
        is_silent = not election.is_mine(seen.term, me) and seen.unchanged(now) >= 0.3
        return "it was silent for a moment" if is_silent else why_take(seen, me, now, is_dead=is_dead)

    election.why_take, election.expires_in = soon, lambda seen, now: max(0.05, 0.3 - seen.unchanged(now))


def _no_fence() -> None:
    """What it does at the cloud carries no fence."""
    call = CloudClient._call

    def bare(client: CloudClient, method: str, path: str, writer: Any = None, *rest: Any, **more: Any) -> Any:
        return call(client, method, path, None if writer is None else Writer(None, ""), *rest, **more)

    CloudClient._call = bare  # type: ignore[method-assign,assignment]


def _nobodys_shard() -> None:
    """A third of the shards is planned for nobody."""
    plan = sharding.plan

    def with_holes(table: sharding.Table, live: Mapping[str, sharding.Member]) -> tuple[str, ...]:
        return tuple("" if shard % 3 == 0 else who for shard, who in enumerate(plan(table, live)))

    sharding.plan = with_holes


def _name_for_life() -> None:
    """The machine's name comes from the object's name alone."""
    machine.machine_name = lambda obj: f"{obj['metadata']['namespace']}-{obj['metadata']['name']}"


def _leaves_machines() -> None:
    """It lets the object go before its machine is deleted."""
    end = machine._end

    def at_once(teller: Any, found: Any) -> machine.Step:
        step = end(teller, found)
        return end(teller, machine.Found(closed=True)) if isinstance(step, machine.Delete) else step

    machine._end = at_once


def _keeps_working() -> None:
    """It lets a shard go in the table, and works on it all the same."""
    Tenures.end = lambda tenures, name: None  # type: ignore[method-assign]


def _works_on() -> None:
    """It goes on as long as it likes after its last renewal."""
    election.Timing.usable = property(lambda timing: 3600.0)  # type: ignore[method-assign,assignment]


def _deaf() -> None:
    """It hears nothing more of its objects once the connection was lost."""

    def listen(cache: Cache) -> None:
        for change in cache._api.follow(cache._resource, cache._namespace, stop=cache._stop, shrink=_pack):
            if isinstance(change, Trouble):
                break
            cache._take(change)
        cache._stop.wait()

    Cache._run = listen  # type: ignore[method-assign]


LEADER, SHARD = MODES
BUGS: Final[Mapping[str, Bug]] = {
    EVERYBODY: Bug("R1", "R1: ", _everybody, LEADER, cloud=UNGUARDED),
    "a new key for each try": Bug("R1", "R1: ", _new_keys, SHARD, cloud={**FAULTS, "error_after_success": 0.3}),
    "a Lease is taken too early": Bug("R2", "both had", _impatient, LEADER),
    "work goes on when the term is over": Bug("R2", "both had", _works_on, LEADER, (FREEZE,)),
    "no fence": Bug("R3", "R3: ", _no_fence, SHARD, (LATE_CREATE,), {}),
    "shards for nobody": Bug("R4", "in vain", _nobodys_shard, SHARD),
    "a name for life": Bug("R5", "has failed", _name_for_life, LEADER),
    "machines are left behind": Bug("R5", "is an orphan", _leaves_machines, SHARD),
    "work goes on when a shard was let go": Bug("R6", "both had", _keeps_working, SHARD),
    "deaf after a lost connection": Bug("R7", "in vain", _deaf, LEADER, (KILL_SERVER,)),
}

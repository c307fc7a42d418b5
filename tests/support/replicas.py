# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replicas of a controller in one thread, on a clock that is held, so that any order of things can be tried.

Each replica is the real authority over the real API's semantics in memory. What its thread would do, `turn` does; what
its watches would bring, `hear` brings, as late as the test wants. Work in flight is real, too: it is begun and ended.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    Change,
    Put,
    Removed,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from ansible_collections.muster.coordination.tests.support.terms import Note
from muster.frame.keeper import new_run
from muster.frame.leader import Leader
from muster.frame.office import Office, Settings
from muster.frame.shards import Shards

LEASE = 6
SHARDS = 4
KEYS = [f"team-{number}" for number in range(12)]
LATER = "2040-01-31T12:00:00Z"  # than any Lease in these tests was taken
FIRST = datetime(2026, 1, 31, 12, tzinfo=UTC)  # when the first container was started
CONTAINER = "operator"


class Replicas:
    """A cluster with Pods, in each of which a container runs the controller, or not."""

    def __init__(self, mode: str) -> None:
        self.mode, self.now = mode, 1000.0
        self.api = MemoryApi()
        self.running: dict[str, Replica] = {}
        self.ended: list[Replica] = []
        self.notes: list[Note] = []  # what all of them recorded
        self.containers = 0

    def clock(self) -> float:
        return self.now

    def start(self, pod: str) -> Replica:
        """The kubelet starts the container, and makes the Pod where it is not there; what ran in it is over."""
        assert pod not in self.running
        if ("pods", "ns", pod) not in self.api.objects:
            self.api.pod(pod)
        self.containers += 1
        started = FIRST + timedelta(minutes=self.containers)
        replica = self.running[pod] = Replica(self, pod, f"containerd://{self.containers}", started)
        return replica

    def report(self, pod: str) -> None:
        """The kubelet says what has become of the container."""
        there = self.api.objects["pods", "ns", pod]
        replica = self.running.get(pod)
        last = next((one for one in reversed(self.ended) if one.me.pod == pod), None)
        status: dict[str, Any] = {"name": CONTAINER, "containerID": "", "state": {"waiting": {}}}
        if last:
            terminated = {"containerID": last.container_id, "finishedAt": LATER}
            status = {"name": CONTAINER, "containerID": last.container_id, "state": {"terminated": terminated}}
        if replica:
            running = {"running": {"startedAt": replica.started.isoformat()}}
            last_state = {"lastState": status["state"]} if last else {}
            status = {"name": CONTAINER, "containerID": replica.container_id, "state": running, **last_state}
        self.api._store(PODS, {**there, "status": {"phase": "Running", "containerStatuses": [status]}})

    def kill(self, pod: str) -> None:
        """kill -9: its work in flight goes with it."""
        replica = self.running.pop(pod)
        self.ended.append(replica)
        replica.killed_at = self.now

    def acting(self, key: str) -> list[Replica]:
        """Who may begin work on this key, or has begun it and may go on."""
        return [one for one in self.running.values() if one.office.is_mine(key) or one.works_on(key)]

    def settle(self, seconds: float = 60.0) -> None:
        """All hear all and do what is due, for so long on the held clock; nothing is in flight."""
        for replica in self.running.values():
            replica.finish_all()
        end = self.now + seconds
        while self.now < end:
            for replica in list(self.running.values()):
                replica.hear()
                replica.turn()
            self.now += 0.5


class Replica:
    """One process."""

    def __init__(self, world: Replicas, pod: str, container_id: str, started: datetime) -> None:
        self.world, self.container_id, self.started = world, container_id, started
        self.killed_at = math.inf
        self.identities: set[str] = set()  # under which it had anything
        uid = world.api.objects["pods", "ns", pod]["metadata"]["uid"]
        self.me = Identity(pod, uid, new_run(), CONTAINER)
        settings = Settings("vm", "ns", self.me, Timing(LEASE), started=started.timestamp())
        options: dict[str, Any] = {"writes": world.api, "clock": world.clock}
        self.office: Office = (
            Leader(world.api, settings, **options)  # type: ignore[arg-type]
            if world.mode == "leader"
            else Shards(world.api, settings, Layout("stable", SHARDS), **options)  # type: ignore[arg-type]
        )
        self.office._pods.watch = lambda names: None  # type: ignore[method-assign]  # `hear` brings all
        self.office._tenures._recorder.note = self._note  # type: ignore[method-assign]
        self.flying: list[tuple[str, float, ExitStack]] = []  # keys, and until when an effect may last
        self._pods: set[str] = set()
        self._heard = len(world.api.events)
        for resource in (LEASES, CONFIGMAPS, PODS):
            there = [obj for (plural, _ns, _name), obj in world.api.objects.items() if plural == resource.plural]
            self._tell(resource.plural, Snapshot(there, str(world.api.version)))

    def hear(self, count: int = 1_000_000) -> None:
        """The next so many changes reach it."""
        news = self.world.api.events[self._heard : self._heard + count]
        self._heard += len(news)
        for _version, kind, resource, obj in news:
            self._tell(resource.plural, Removed(obj) if kind == "DELETED" else Put(obj))

    def turn(self) -> None:
        self.office._turn()

    def begin(self, key: str) -> bool:
        """Begin work on a key; whether it is its own."""
        flight = ExitStack()
        term = flight.enter_context(self.office.work(key))
        if term is not None:
            self.flying.append((key, self.world.now + term.check(), flight))
        return term is not None

    def works_on(self, key: str) -> bool:
        """Whether an effect may be in flight that was begun when the term was still good, and is bounded by it."""
        return any(on == key and self.world.now < until for on, until, _flight in self.flying)

    def finish_all(self) -> None:
        for _key, _until, flight in self.flying:
            flight.close()
        self.flying.clear()

    def ask_to_leave(self) -> None:
        """SIGTERM, as `leave` begins."""
        self.office._tenures.refuse()
        self.office._is_draining = True

    def leave(self) -> None:
        """Nothing is in flight any more: it gives all up and ends."""
        assert not self.flying
        self.office._keeper.release()
        self.world.kill(self.me.pod)

    def _note(self, event: str, who: str, scope: str, fence: int, at: float) -> None:
        self.world.notes.append(Note(event, who, scope, fence, at))
        self.identities.add(who)

    def _tell(self, plural: str, change: Change) -> None:
        if plural == "pods":
            self.office._pods._take(change, self._pods)
        elif plural == "leases":
            self.office._take("lease" if self.world.mode == "leader" else "leases", change)
        elif self.world.mode == "shard":
            self.office._take("table", change)

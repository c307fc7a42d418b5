# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills three replicas of the VirtualMachine operator at every kind of write, by turns, while all else fails too.

A kill point is a kind of write to the API server or the cloud, and whether the process dies right before it is sent or
right after it was answered. A point's bomb is set in all replicas, so whoever comes to it first dies; how its death
becomes known goes by turns, too. What a replica only writes when it begins or leaves is provoked by a SIGTERM.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from ansible_collections.muster.coordination.tests.support import authority_oracle as oracle
from ansible_collections.muster.coordination.tests.support.bombs import AFTER, BEFORE, KILL, OK, STOP, Bomb
from ansible_collections.muster.coordination.tests.support.nursery import BURIALS, RESTARTED, UNTOLD, Replica
from ansible_collections.muster.coordination.tests.support.planted_controllers import (
    COMPACT,
    FAULTS,
    FREEZE,
    KILL_CLOUD,
    KILL_SERVER,
    LATE_CREATE,
)
from ansible_collections.muster.coordination.tests.support.vm_lab import Demand, Lab, until

PODS: Final = ("operator-0", "operator-1", "operator-2")
OBJECT_WRITES: Final = (
    "finalizer add",
    "status Creating",
    "cloud find",
    "cloud create",
    "status Running",
    "status Updating",
    "cloud resize",
    "status Deleting",
    "cloud delete",
    "finalizer remove",
)
LEASE_WRITES: Final = ("lease take", "lease renew", "lease free")
WRITES: Final = {
    "leader": (*OBJECT_WRITES, *LEASE_WRITES),
    "shard": (*OBJECT_WRITES, *LEASE_WRITES, "table write"),
}
FIRST_WRITES: Final = {"leader": ("lease make",), "shard": ("lease make", "table make")}  # once for each namespace
PROVOKED: Final = {"lease take", "lease free", "table write"}
PATIENCE: Final = 10.0  # seconds until what does not come by itself is provoked
NEVER: Final = 120.0  # seconds
RECENT: Final = 20  # processes that may have acted while one was stopped


class Plane(Protocol):
    """A control plane that may be hurt."""

    def kill_server(self) -> None: ...

    def compact(self) -> int: ...


def kill_points(mode: str) -> list[Bomb]:
    """All that can come again and again."""
    return [Bomb(kind, when) for kind in WRITES[mode] for when in (BEFORE, AFTER)]


class Storm:
    """One operator's storm; `plane` None: the API server is others', too, and stays up. `faults` are the cloud's."""

    def __init__(
        self, lab: Lab, seed: int, plane: Plane | None = None, faults: Mapping[str, Any] = FAULTS, never: float = NEVER
    ) -> None:
        """`never`: seconds after which a kill point will not come any more."""
        self.lab, self.plane, self._faults, self._never = lab, plane, faults, never
        self.dice = random.Random(seed)
        self.points: Counter[str] = Counter()  # how often each kill point came
        self.events: Counter[str] = Counter()
        self.violations: list[str] = []
        self.enough = threading.Event()
        self.seconds = 0.0
        self.creates: dict[str, int] = {}  # by uid
        self.totals: dict[str, int] = {}
        self.kinds: dict[str, Callable[[], None]] = {
            FREEZE: self._freeze,
            LATE_CREATE: self._late_create,
            KILL_CLOUD: self._kill_cloud,
        }
        if plane:
            self.kinds |= {KILL_SERVER: self._kill_server, COMPACT: self._compact}
        self._burials: Iterator[str] = itertools.cycle(BURIALS)
        self._bomb: Bomb | None = None

    @property
    def kills(self) -> int:
        return self.points.total()

    def run(self, kills: int, *, names: int = 8, events: Sequence[str] = (), events_every: int = 0) -> None:
        """Go through all points by turns, until so many have come; with one of the events after each few of them."""
        began = time.monotonic()
        lab = self.lab
        lab.cloud.switch(**self._faults, seed=self.dice.randrange(2**31))
        self._first_points()
        for pod in PODS:
            if pod not in lab.nursery.replicas:
                self._start(pod)
        demand = Demand(lab, self.dice.randrange(2**32), names=names)
        turns, happenings = itertools.cycle(kill_points(lab.mode)), itertools.cycle(events or self.kinds)
        try:
            for turn in itertools.count(1):
                self._go_to(next(turns))
                if events_every and not turn % events_every:
                    self.kinds[next(happenings)]()
                if (turn >= kills and self.kills >= kills) or self.enough.is_set():
                    break
        finally:
            self._set(None)
            demand.stop()
            self.seconds = time.monotonic() - began
        self.events.update(demand.counts)
        self._calm()

    # ------------------------------------------------------------------------------------------ deaths

    def _start(self, pod: str, *, told: bool = True) -> Replica:
        self.events["processes begun"] += 1
        return self.lab.nursery.start(pod, self._bomb, told=told)

    def _set(self, bomb: Bomb | None) -> None:
        self._bomb = bomb
        for replica in self.lab.nursery.alive:
            replica.set(bomb)

    def _first_points(self) -> None:
        """What is written once only: before, and after."""
        for kind in FIRST_WRITES[self.lab.mode]:
            for when in (BEFORE, AFTER):
                self._bomb = Bomb(kind, when)
                self._die_once(self._start(PODS[0]))

    def _die_once(self, replica: Replica) -> None:
        until(lambda: not replica.is_alive, lambda: f"{self._bomb}: {replica.log()}", NEVER)
        self._bomb = None
        self._bury(replica)

    def _go_to(self, point: Bomb) -> None:
        """Set it, until somebody has died of it."""
        nth = 1 if point.kind in PROVOKED else self.dice.randint(1, 3)
        self._set(point._replace(nth=nth))
        before, began = self.points[str(point)], time.monotonic()
        patience = 1.0 if point.kind in PROVOKED else PATIENCE
        provoke_at = began + patience / 2
        while self.points[str(point)] == before and not self.enough.is_set():
            if not self._tend() and time.monotonic() > provoke_at and self._provoke():
                provoke_at = time.monotonic() + patience
            if time.monotonic() > began + self._never:
                told = f"the kill point {point} did not come within {self._never:g} s"
                self.violations.append(f"R7: waited in vain: {told}: {self.lab.told()}")
                return
            time.sleep(0.02)

    def _tend(self) -> bool:
        """Bury the dead, and bring up others in their place; whether there were any."""
        dead = self.lab.nursery.ended()
        if any((replica.exploded() or {}).get("exploded") == str(self._bomb) for replica in dead):
            self._set(None)
        for replica in dead:
            how = self._bury(replica)
            self._start(replica.pod, told=how != UNTOLD)
        return bool(dead)

    def _bury(self, replica: Replica) -> str:
        """As is its turn; one that left by itself, always as a restart that is told. Returns how."""
        end = replica.exploded()
        if end and end["how"] == KILL:
            self.points[end["exploded"]] += 1
        elif replica.process.exitcode:
            status = replica.process.exitcode
            self.violations.append(f"{replica.name} ended with status {status}:\n{replica.log()}")
        how = next(self._burials) if end else RESTARTED
        self.events[f"death {how}"] += 1
        self.lab.nursery.bury(replica, how)
        return how

    def _provoke(self) -> bool:
        """SIGTERM one that acts, once all are up: it hands over, and another begins in its place."""
        alive = self.lab.nursery.alive
        if all(replica.is_ready for replica in alive):
            self.events["left by SIGTERM"] += 1
            self.dice.choice([each for each in alive if each.has_authority] or alive).send(signal.SIGTERM)
            return True
        return False

    # ------------------------------------------------------------------------------------------ one story by itself

    def tell_late_create(self) -> dict[str, Any]:
        """R3 without a storm: how the create ended that was about to be sent when its process was stopped."""
        lab, numbers, stopped = self.lab, itertools.count(), None
        for pod in PODS:
            lab.nursery.start(pod, Bomb("cloud create", BEFORE, 1, STOP))
        while stopped is None:
            lab.create(f"late-{next(numbers)}")
            stopped = self.wait_for_stop(1.0)
        late = stopped
        self._set(None)
        until(lambda: self.is_superseded(late), lambda: f"another one to take over: {lab.told()}")
        late.go_on()
        until(lambda: bool(late_lines(late)), lambda: f"the late create: {late.log()}")
        self.violations += self.judge_late(late)
        return late_lines(late)[0]

    # ------------------------------------------------------------------------------------------ other events

    def _freeze(self) -> None:
        """One that acts is stopped until another has begun in its place, then goes on."""
        acting: list[Replica] = []

        def somebody_acts() -> bool:
            acting[:] = [replica for replica in self.lab.nursery.alive if replica.has_authority]
            return bool(acting)

        self.wait(self.lab.seconds * 5, somebody_acts)
        if acting:
            replica = self.dice.choice(acting)
            replica.stop()
            self.wait(self.lab.seconds * 5, lambda: self._is_replaced(replica))
            replica.go_on()
            self.events[FREEZE] += 1

    def _is_replaced(self, stopped: Replica) -> bool:
        """Whether another has begun in a scope of one that is stopped, or it has died."""
        scopes, since = {line["scope"] for line in stopped.terms()}, stopped.stopped_at
        return since is None or any(
            line["event"] == "begin" and line["at"] > since and line["scope"] in scopes
            for replica in self.lab.nursery.lives[-RECENT:]
            for line in replica.terms()
        )

    def _late_create(self) -> None:
        """Whoever is about to create is stopped until somebody else acts in its place: its create comes too late."""
        self._set(Bomb("cloud create", BEFORE, 1, STOP))
        stopped = self.wait_for_stop(20.0)
        self._set(None)
        if stopped:
            self.wait(self._never, lambda: self.is_superseded(stopped))
            stopped.go_on()
            self.wait(30.0, lambda: bool(late_lines(stopped)) or not stopped.is_alive)
            self.violations += self.judge_late(stopped)

    def wait_for_stop(self, seconds: float) -> Replica | None:
        """The first who has stopped itself by a bomb."""
        found: list[Replica] = []

        def has_stopped() -> bool:
            found.extend(filter(has_stopped_itself, self.lab.nursery.alive))
            return bool(found)

        self.wait(seconds, has_stopped)
        for replica in found[:1]:
            replica.stopped_at = (replica.exploded() or {})["at"]
        return found[0] if found else None

    def is_superseded(self, stopped: Replica) -> bool:
        """Whether another has acted at the cloud in the scope in which it has stopped, with a greater fence.

        Whoever else has stopped itself by then goes on.
        """
        for replica in filter(has_stopped_itself, self.lab.nursery.alive):
            replica.stopped_at = (replica.exploded() or {})["at"]
            replica.go_on()
        end = stopped.exploded() or {}
        return any(
            line.get("scope") == end["scope"] and line["fence"] > end["fence"] and line.get("outcome") == OK
            for replica in self.lab.nursery.lives[-RECENT:]
            for line in replica.record()
        )

    def judge_late(self, stopped: Replica) -> list[str]:
        """What became of what it sent when it woke; what is wrong with that."""
        self.events[LATE_CREATE] += 1
        lines = late_lines(stopped)[-1:]
        self.events.update(f"late create: {line['outcome']}" for line in lines)
        wrong = [line for line in lines if line["outcome"] == OK]
        return [f"R3: the late create of {stopped.name} was not refused: {line}" for line in wrong]

    def _kill_cloud(self) -> None:
        self.lab.cloud.kill()
        self.wait(self.dice.uniform(0.0, 1.0))
        self.lab.cloud.up()
        self.events[KILL_CLOUD] += 1

    def _kill_server(self) -> None:
        assert self.plane
        self.plane.kill_server()
        self.events[KILL_SERVER] += 1

    def _compact(self) -> None:
        """Every watch gets a 410: etcd forgets what was, and the API server has no cache after its restart."""
        assert self.plane
        self.plane.compact()
        self.plane.kill_server()
        self.events[COMPACT] += 1

    def wait(self, seconds: float, true: Callable[[], bool] = lambda: False) -> None:
        """Until it is true, or so long; the dead are tended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not true():
            self._tend()
            time.sleep(0.02)

    # ------------------------------------------------------------------------------------------ the end

    def _calm(self) -> None:
        """End the faults, and judge: when all has settled, when all is gone, and who had authority."""
        lab = self.lab
        lab.cloud.switch()
        for step in (lab.settle, lambda: self.violations.extend(lab.judge()), lab.remove_all):
            self._tended(step)
        self.violations += [wrong for wrong in lab.judge() if wrong not in self.violations]
        self.violations += oracle.judge_authority(lab.end())
        counters = lab.cloud.counters()
        self.creates = counters["creates"]
        self.totals = {key: counters[key] for key in ("made", "live", "refused_stale", "replays")}

    def _tended(self, step: Callable[[], None]) -> None:
        try:
            self._tend()
            step()
        except AssertionError as error:
            logs = "".join(f"\n{replica.name}:\n{replica.log()}" for replica in self.lab.nursery.alive)
            self.violations.append(f"R7: {error}{logs}")


def has_stopped_itself(replica: Replica) -> bool:
    """By a bomb, and nobody has taken notice yet."""
    end = replica.exploded()
    if end is None or end["how"] != STOP or replica.stopped_at is not None:
        return False
    return all(go_on < end["at"] for _stop, go_on in replica.frozen)


def late_lines(replica: Replica) -> list[dict[str, Any]]:
    """What was about to be sent when it stopped, and went out when it woke."""
    return [line for line in replica.record() if line.get("late")]

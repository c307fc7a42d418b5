# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills replicas of an operator at every kind of write, by turns; what is the same for all operators.

A kill point is a kind of write, and whether the process dies right before it is sent or right after it was answered. A
point's bomb is set in all replicas, so whoever comes to it first dies; how its death becomes known goes by turns, too.
What a replica only writes when it begins or leaves is provoked by a SIGTERM.
"""

from __future__ import annotations

import itertools
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from ansible_collections.muster.coordination.tests.support.bombs import AFTER, BEFORE, KILL, STOP, Bomb
from ansible_collections.muster.coordination.tests.support.nursery import BURIALS, RESTARTED, UNTOLD, Nursery, Replica
from ansible_collections.muster.coordination.tests.support.planted_controllers import COMPACT, FREEZE, KILL_SERVER
from ansible_collections.muster.coordination.tests.support.vm_lab import until

PODS: Final = ("operator-0", "operator-1", "operator-2")
LEASE_WRITES: Final = ("lease take", "lease renew", "lease free")
FIRST_WRITES: Final = {"leader": ("lease make",), "shard": ("lease make", "table make")}  # once for each namespace
PROVOKED: Final = frozenset({"lease take", "lease free", "table write"})
PATIENCE: Final = 10.0  # seconds until what does not come by itself is provoked
NEVER: Final = 120.0  # seconds
RECENT: Final = 20  # processes that may have acted while one was stopped


class Plane(Protocol):
    """A control plane that may be hurt."""

    def kill_server(self) -> None: ...

    def compact(self) -> int: ...


class Lab(Protocol):
    """A namespace with replicas of an operator, whose Leases last `seconds`."""

    nursery: Nursery
    seconds: int

    def told(self) -> str:
        """How it stands, for people."""


def before_and_after(kinds: Iterable[str]) -> list[Bomb]:
    """Both kill points of each kind of write."""
    return [Bomb(kind, when) for kind in kinds for when in (BEFORE, AFTER)]


class Storm:
    """One operator's storm; `plane` None: the API server is others', too, and stays up."""

    def __init__(
        self, lab: Lab, seed: int, *, plane: Plane | None, provoked: Collection[str] = PROVOKED, never: float = NEVER
    ) -> None:
        """`provoked`: kinds of writes that come only when somebody leaves; `never`: seconds after which a kill point
        will not come any more."""
        self.lab, self.plane, self._provoked, self._never = lab, plane, provoked, never
        self.dice = random.Random(seed)
        self.points: Counter[str] = Counter()  # how often each kill point came
        self.waited: Counter[str] = Counter()  # seconds for each
        self.events: Counter[str] = Counter()
        self.violations: list[str] = []
        self.enough = threading.Event()
        self.seconds = 0.0
        self.turns: Sequence[Bomb] = ()  # the kill points that come by turns; none: all that can come again and again
        self.most = 3  # of the writes of a kind, one of so many is the end of a process
        self.kinds: dict[str, Callable[[], None]] = {FREEZE: self._freeze}
        if plane:
            self.kinds |= {KILL_SERVER: self._kill_server, COMPACT: self._compact}
        self._burials: Iterator[str] = itertools.cycle(BURIALS)
        self._bomb: Bomb | None = None

    @property
    def kills(self) -> int:
        return self.points.total()

    # ------------------------------------------------------------------------------------------ deaths

    def _start(self, pod: str, *, told: bool = True) -> Replica:
        self.events["processes begun"] += 1
        return self.lab.nursery.start(pod, self._bomb, told=told)

    def _set(self, bomb: Bomb | None) -> None:
        self._bomb = bomb
        for replica in self.lab.nursery.alive:
            replica.set(bomb)

    def _first_points(self, kinds: Iterable[str]) -> None:
        """What is written once only: before, and after."""
        for point in before_and_after(kinds):
            self._bomb = point
            self._die_once(self._start(PODS[0]))

    def _die_once(self, replica: Replica) -> None:
        until(lambda: not replica.is_alive, lambda: f"{self._bomb}: {replica.log()}", NEVER)
        self._bomb = None
        self._bury(replica)

    def _go_to(self, point: Bomb) -> None:
        """Set it, until somebody has died of it."""
        nth = 1 if point.kind in self._provoked else self.dice.randint(1, self.most)
        self._set(point._replace(nth=nth))
        before, began = self.points[str(point)], time.monotonic()
        patience = 1.0 if point.kind in self._provoked else PATIENCE
        provoke_at = began + patience / 2
        while self.points[str(point)] == before and not self.enough.is_set():
            if not self._tend() and time.monotonic() > provoke_at and self._provoke():
                provoke_at = time.monotonic() + patience
                patience = min(2 * patience, PATIENCE)  # what was provoked may take its time
            if time.monotonic() > began + self._never:
                told = f"the kill point {point} did not come within {self._never:g} s"
                self.violations.append(f"R7: waited in vain: {told}: {self.lab.told()}")
                break
            time.sleep(0.02)
        self.waited[str(point)] += time.monotonic() - began

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
            self.wait(self.lab.seconds * 5, lambda: self.is_replaced(replica))
            replica.go_on()
            self.events[FREEZE] += 1

    def is_replaced(self, stopped: Replica) -> bool:
        """Whether another has begun in a scope of one that is stopped, or it has died."""
        scopes, since = {line["scope"] for line in stopped.terms()}, stopped.stopped_at
        return since is None or any(
            line["event"] == "begin" and line["at"] > since and line["scope"] in scopes
            for replica in self.lab.nursery.lives[-RECENT:]
            for line in replica.terms()
        )

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

    def wake_others(self, stopped: Replica) -> None:
        """Whoever else has stopped itself by a bomb goes on."""
        for replica in filter(has_stopped_itself, self.lab.nursery.alive):
            if replica is not stopped:
                replica.stopped_at = (replica.exploded() or {})["at"]
                replica.go_on()

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

    def _tended(self, step: Callable[[], object]) -> None:
        """Take it, once the dead are tended; where it waits in vain, that is a violation."""
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

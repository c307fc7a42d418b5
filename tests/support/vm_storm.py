# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills three replicas of the VirtualMachine operator at every kind of write, by turns, while all else fails too.

To the API server, or to the cloud; see tests/support/storm.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ansible_collections.muster.coordination.tests.support import authority_oracle as oracle
from ansible_collections.muster.coordination.tests.support import storm
from ansible_collections.muster.coordination.tests.support.bombs import BEFORE, OK, STOP, Bomb
from ansible_collections.muster.coordination.tests.support.nursery import Replica
from ansible_collections.muster.coordination.tests.support.planted_controllers import (
    FAULTS,
    FREEZE,
    KILL_CLOUD,
    LATE_CREATE,
)
from ansible_collections.muster.coordination.tests.support.storm import (
    FIRST_WRITES,
    LEASE_WRITES,
    NEVER,
    PODS,
    RECENT,
    Plane,
    late_lines,
)
from ansible_collections.muster.coordination.tests.support.vm_lab import Demand, Lab, until

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
WRITES: Final = {
    "leader": (*OBJECT_WRITES, *LEASE_WRITES),
    "shard": (*OBJECT_WRITES, *LEASE_WRITES, "table write"),
}


def kill_points(mode: str) -> list[Bomb]:
    """All that can come again and again."""
    return storm.before_and_after(WRITES[mode])


class Storm(storm.Storm):
    """One operator's storm; `plane` None: the API server is others', too, and stays up. `faults` are the cloud's."""

    lab: Lab

    def __init__(
        self, lab: Lab, seed: int, plane: Plane | None = None, faults: Mapping[str, Any] = FAULTS, never: float = NEVER
    ) -> None:
        """`never`: seconds after which a kill point will not come any more."""
        super().__init__(lab, seed, plane=plane, never=never)
        self._faults = faults
        self.creates: dict[str, int] = {}  # by uid
        self.totals: dict[str, int] = {}
        own = {LATE_CREATE: self._late_create, KILL_CLOUD: self._kill_cloud}
        self.kinds = {FREEZE: self.kinds[FREEZE], **own, **self.kinds}

    def run(self, kills: int, *, names: int = 8, events: Sequence[str] = (), events_every: int = 0) -> None:
        """Go through all points by turns, until so many have come; with one of the events after each few of them."""
        began = time.monotonic()
        lab = self.lab
        lab.cloud.switch(**self._faults, seed=self.dice.randrange(2**31))
        self._first_points(FIRST_WRITES[lab.mode])
        for pod in PODS:
            if pod not in lab.nursery.replicas:
                self._start(pod)
        demand = Demand(lab, self.dice.randrange(2**32), names=names)
        turns, happenings = itertools.cycle(self.turns or kill_points(lab.mode)), itertools.cycle(events or self.kinds)
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

    def is_superseded(self, stopped: Replica) -> bool:
        """Whether another has acted at the cloud in the scope in which it has stopped, with a greater fence.

        Whoever else has stopped itself by then goes on.
        """
        self.wake_others(stopped)
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

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills three replicas of the Swarm operator at every kind of write, by turns, while pools and jobs change.

Three Swarms: workers that report, of a StatefulSet that people scale; workers that don't, of one that the operator
scales; and a Deployment whose Pods are deleted. The operators reach the API server by a proxy that loses answers, and
gives wrong ones. Every few deaths people rest until all has converged, and what is said then has to be true. See
tests/support/storm.py for the deaths, and tests/support/swarm_lab.py for what must hold.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, ApiError, NotFound
from ansible_collections.muster.coordination.tests.support import authority_oracle as oracle
from ansible_collections.muster.coordination.tests.support import planted_swarms, storm
from ansible_collections.muster.coordination.tests.support.bombs import BEFORE, OK, STOP, Bomb
from ansible_collections.muster.coordination.tests.support.fault_proxy import (
    Answer,
    AppliedButFailed,
    CutAnswer,
    DropAnswer,
    DropRequest,
    Expired,
    FaultProxy,
)
from ansible_collections.muster.coordination.tests.support.nursery import Replica
from ansible_collections.muster.coordination.tests.support.storm import (
    FIRST_WRITES,
    LEASE_WRITES,
    NEVER,
    PODS,
    PROVOKED,
    Plane,
    late_lines,
)
from ansible_collections.muster.coordination.tests.support.swarm_lab import PATIENCE, Lab
from ansible_collections.muster.coordination.tests.support.swarm_pods import RESTART, Temper

RELOAD, SILENT, SPARE = "reload", "silent", "spare"  # the Swarms, and each one's workload and ConfigMap
CONFIG_WRITES: Final = ("config make", "config revoke", "config assign")
SWARM_WRITES: Final = (*CONFIG_WRITES, "status Converging", "status Converged", "evict", "scale", "event")
WRITES: Final = {
    "leader": (*SWARM_WRITES, *LEASE_WRITES),
    "shard": (*SWARM_WRITES, *LEASE_WRITES, "table write"),
}
SLOW: Final = Temper(notice=0.1, end=0.4, leave=1.2)  # what is not waited for is seen
LINGER: Final = 2.0  # seconds: so long the worker of a Pod may go on that is lost
LATE_WRITE: Final = "frozen with a configuration in flight"
FAULTS: Final[Sequence[tuple[Any, str, str]]] = (  # fault, method, what is in the path
    (DropAnswer(), "PUT", "/configmaps/"),
    (AppliedButFailed(), "PUT", "/configmaps/"),
    (Answer(409, "Conflict"), "PUT", "/configmaps/"),
    (DropAnswer(), "POST", "/configmaps"),
    (DropAnswer(), "PUT", "/status"),
    (Answer(409, "Conflict"), "PUT", "/status"),
    (DropAnswer(), "POST", "/eviction"),
    (Answer(500), "POST", "/eviction"),
    (DropAnswer(), "PUT", "/scale"),
    (Answer(409, "Conflict"), "PUT", "/scale"),
    (Answer(500), "GET", "/statefulsets?"),
    (CutAnswer(), "GET", "/pods?"),
    (DropRequest(), "GET", "/configmaps"),
    (Expired(), "GET", "watch=true"),
    (Expired(), "GET", "/pods?allowWatchBookmarks"),
)


def kill_points(mode: str) -> list[Bomb]:
    """All that can come again and again."""
    return storm.before_and_after(WRITES[mode])


class StormLab(Lab):
    """A lab with the three Swarms, and replicas of an operator of `mode` behind a proxy."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        directory: Path,
        mode: str,
        *,
        seconds: int = 2,
        plant: str = "",
        patience: float = PATIENCE,
        seed: int = 0,
    ) -> None:
        super().__init__(api, namespace, temper=SLOW, patience=patience, seed=seed, trace=directory / "trace")
        self.mode, self.seconds = mode, seconds
        self.proxy = FaultProxy(api.credentials)
        kubeconfig = str(self.proxy.write_kubeconfig(directory / "kubeconfig"))
        options = ("--linger-seconds", str(LINGER))
        bugs = planted_swarms.__name__
        self.nursery = self.operators(
            directory, kubeconfig, *options, mode=mode, seconds=seconds, plant=plant, bugs=bugs
        )

    def close(self) -> None:
        super().close()
        self.proxy.__exit__()


class People:
    """Who edits jobs, scales, deletes Pods and ConfigMaps; in a thread, but while it `rests`."""

    def __init__(self, lab: Lab, seed: int, pace: float) -> None:
        self._lab, self._dice, self._pace = lab, random.Random(seed), pace
        self._numbers = itertools.count()
        self.wanted = {name: self._new_jobs(count) for name, count in ((RELOAD, 11), (SILENT, 7), (SPARE, 8))}
        self.workers = {RELOAD: 3, SILENT: 3, SPARE: 3}
        self.counts: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._hand = threading.Lock()
        self._stopped = threading.Event()
        self._makes()
        self._thread = threading.Thread(target=self._run, name="people", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.ident:
            self._thread.join(60)
        if self.error:
            raise self.error

    def rests(self) -> threading.Lock:
        """To be held while nothing shall change."""
        return self._hand

    def provoke(self, kind: str) -> Callable[[], None] | None:
        """What leads to a write of this kind."""
        return {
            "config make": self._delete_configmap,
            "scale": self._ask_for_workers,
            "evict": lambda: self.edit(SILENT),
            "config revoke": lambda: self._scale(RELOAD, "StatefulSet"),
        }.get(kind)

    def edit(self, name: str) -> None:
        """Some jobs go, others come."""
        jobs = self.wanted[name]
        left = [job for job in jobs if self._dice.random() > 0.2]
        count = self._dice.randint(len(jobs) - 2, len(jobs) + 2) - len(left)
        self.wanted[name] = [*left, *self._new_jobs(count if 4 < len(left) + count < 16 else 1)]
        self._lab.jobs(f"{name}-jobs", self.wanted[name])

    def _new_jobs(self, count: int) -> list[str]:
        return [f"job-{next(self._numbers)}" for _number in range(count)]

    def _makes(self) -> None:
        lab = self._lab
        for name in self.wanted:
            lab.jobs(f"{name}-jobs", self.wanted[name])
            kind = "Deployment" if name == SPARE else "StatefulSet"
            lab.workload(name, self.workers[name], head=name, kind=kind, reports=name != SILENT)
            more: Mapping[str, Any] = {SILENT: {"replicas": 3, "maxUnavailable": 2}, SPARE: {"graceSeconds": 1}}.get(
                name, {}
            )
            selector = {"selector": {"matchLabels": {"pool": name}}}
            lab.swarm(name, workers=selector, configMap=name, jobsFrom=[{"configMap": f"{name}-jobs"}], **more)

    def _run(self) -> None:
        acts: Sequence[tuple[str, int, Callable[[], None]]] = (
            ("jobs edited", 6, lambda: self.edit(self._dice.choice(list(self.wanted)))),
            ("workload scaled", 4, lambda: self._scale(RELOAD, "StatefulSet")),
            ("Deployment scaled", 1, lambda: self._scale(SPARE, "Deployment")),
            ("workers asked for", 3, self._ask_for_workers),
            ("Pod deleted", 4, self._delete_pod),
            ("worker crashed", 2, self._crash),
            ("Pod lost", 1, self._lose_pod),
            ("ConfigMap deleted", 1, self._delete_configmap),
        )
        try:
            while not self._stopped.wait(self._dice.uniform(0.5, 1.5) * self._pace):
                ((what, _weight, act),) = self._dice.choices(acts, [weight for _what, weight, _act in acts])
                with self._hand, suppress(ApiError):  # whatever it was: another turn comes
                    act()
                    self.counts[what] += 1
        except BaseException as error:
            self.error = error

    def _scale(self, name: str, kind: str) -> None:
        self.workers[name] = self._dice.choice([number for number in range(1, 5) if number != self.workers[name]])
        self._lab.scale(name, self.workers[name], kind)

    def _ask_for_workers(self) -> None:
        """Of the Swarm whose workload the operator scales."""
        self.workers[SILENT] = self._dice.choice([number for number in range(1, 5) if number != self.workers[SILENT]])
        self._lab.edit(SILENT, replicas=self.workers[SILENT])

    def _some_worker(self, *names: str) -> str:
        found = [name for name in sorted(self._lab.containers) if name.startswith(names)]
        return self._dice.choice(found) if found else ""

    def _delete_pod(self) -> None:
        self._lab.delete_pod(self._some_worker(RELOAD, SILENT, SPARE) or "nobody")

    def _crash(self) -> None:
        container = self._lab.containers.get(self._some_worker(RELOAD, SILENT, SPARE))
        if container and container.is_ready:
            container.tell(RESTART)

    def _lose_pod(self) -> None:
        """Its worker goes on for less than what is waited for."""
        name = self._some_worker(SPARE)
        if name:
            container = self._lab.lose_pod(name)
            threading.Timer(self._dice.uniform(0.1, LINGER / 2), container.kill).start()

    def _delete_configmap(self) -> None:
        name = self._dice.choice(list(self.wanted))
        self._lab.note("ConfigMap deleted by hand", name=name)
        with suppress(NotFound):
            self._lab.api.delete(CONFIGMAPS, name, self._lab.namespace)


class Storm(storm.Storm):
    """One operator's storm; `plane` None: the API server is others', too, and stays up."""

    lab: StormLab

    def __init__(
        self, lab: StormLab, seed: int, plane: Plane | None = None, *, pace: float = 0.3, never: float = NEVER
    ) -> None:
        """`pace`: seconds between two things that people do."""
        provoked = PROVOKED | {"config make", "scale", "evict"}
        super().__init__(lab, seed, plane=plane, provoked=provoked, never=never)
        self._pace = pace
        self.totals: dict[str, int] = {}
        self.kinds = {**self.kinds, LATE_WRITE: self._late_write}

    def run(
        self,
        kills: int,
        *,
        events: Sequence[str] = (),
        events_every: int = 0,
        rest_every: int = 0,
        faults: bool = True,
    ) -> None:
        """Go through all points by turns, until so many have come; with one of the events, and a rest, after each few
        of them."""
        began, lab = time.monotonic(), self.lab
        self._first_points(FIRST_WRITES[lab.mode])
        for pod in PODS:
            if pod not in lab.nursery.replicas:
                self._start(pod)
        self.people = People(lab, self.dice.randrange(2**32), self._pace)
        self.people.start()
        turns, happenings = itertools.cycle(self.turns or kill_points(lab.mode)), itertools.cycle(events or self.kinds)
        try:
            for turn in itertools.count(1):
                if faults:
                    self._plan_fault()
                self._go_to(next(turns))
                if events_every and not turn % events_every:
                    self.kinds[next(happenings)]()
                if rest_every and not turn % rest_every:
                    self._rest()
                if (turn >= kills and self.kills >= kills) or self.enough.is_set():
                    break
        finally:
            self._set(None)
            self.people.stop()
            self.seconds = time.monotonic() - began
        self.events.update(self.people.counts)
        self._calm()

    def _provoke(self) -> bool:
        provoke = self.people.provoke(self._bomb.kind) if self._bomb else None
        if provoke is None:
            return super()._provoke()
        with self.people.rests(), suppress(ApiError):
            provoke()
            self.events["provoked"] += 1
        return True

    def _plan_fault(self) -> None:
        fault, method, path = self.dice.choice(FAULTS)
        self.lab.proxy.clear()
        self.lab.proxy.plan(fault, method=method, path=path)
        if self.dice.random() < 0.1:
            self.lab.proxy.cut()
        self.events["faults planned"] += 1

    # ------------------------------------------------------------------------------------------ a rest

    def _rest(self) -> None:
        """People rest, and nobody is killed, until all has converged: what the status says then has to be true (W4)."""
        self._set(None)
        self.lab.proxy.clear()
        with self.people.rests():
            self._tended(self._converges)
        self.events["rests"] += 1

    def _converges(self) -> None:
        for name, jobs in self.people.wanted.items():
            placed = self._wait_for(name, jobs)
            if max(placed.values()) - min(placed.values()) > 1:
                self.violations.append(f"{name} is out of balance: {placed}")

    def _wait_for(self, name: str, jobs: Sequence[str]) -> Mapping[str, int]:
        """Whoever dies meanwhile, of a bomb that had not been taken back in time, is tended."""
        lab, deadline = self.lab, time.monotonic() + self.lab.patience
        while True:
            self._tend()
            try:
                return lab.converged(name, jobs=jobs, workers=self.people.workers[name], seconds=1.0)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    # ------------------------------------------------------------------------------------------ a late write

    def _late_write(self) -> None:
        """Whoever is about to write a configuration is stopped until another has written it: that is refused then."""
        self._set(Bomb(self.dice.choice(("config revoke", "config assign")), BEFORE, 1, STOP))
        stopped = self.wait_for_stop(10.0)
        self._set(None)
        if stopped:
            self.wait(self._never, lambda: self.is_superseded(stopped))
            stopped.go_on()
            self.wait(30.0, lambda: bool(late_lines(stopped)) or not stopped.is_alive)
            lines = late_lines(stopped)[-1:]
            self.events[LATE_WRITE] += 1
            self.events.update(f"late write: {line['outcome']}" for line in lines)
            self.violations += [
                f"R3: the late write of {stopped.name} was not refused: {line}"
                for line in lines
                if line["outcome"] == OK
            ]

    def is_superseded(self, stopped: Replica) -> bool:
        """Whether another has written the same ConfigMap since it has stopped. Whoever else has stopped goes on."""
        self.wake_others(stopped)
        end = stopped.exploded() or {}
        return any(
            line.get("name") == end["name"] and line["at"] > end["at"] and line.get("outcome") == OK
            for replica in self.lab.nursery.alive
            if replica is not stopped
            for line in replica.record()
            if str(line.get("kind")).startswith("config ")
        )

    # ------------------------------------------------------------------------------------------ the end

    def _calm(self) -> None:
        """End the faults, and judge: when all has converged, who had authority, and all that workers did."""
        lab = self.lab
        lab.proxy.clear()
        self._tended(self._converges)
        self.violations += oracle.judge_authority(lab.nursery.end())
        for replica in lab.nursery.lives:
            if replica.process.exitcode > 0:
                self.violations.append(f"{replica.name} failed:\n{replica.log()}")
        self.violations += lab.judge()
        lines = [line for record in lab.records.values() for line in record.lines()]
        self.totals = {
            "jobs run": len({line.job for line in lines}),
            "jobs begun": sum(line.event == "begin" for line in lines),
            "workers' processes": len({line.run for line in lines}),
            "evictions": len(lab.evicted),
            "configurations": lab.chronicle.count,
        }

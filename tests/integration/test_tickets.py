# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everybody at once at one semaphore of tickets of a real API server; every revision is recorded and judged.

MUSTER_SOAK_SECONDS (8) is how long they race, MUSTER_SOAK_WRITERS (36) how many there are.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from collections.abc import Iterator

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, PODS, Api, ApiError, Put, Snapshot
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab, until
from ansible_collections.muster.coordination.tests.support.ticket_book import Judge

SECONDS = float(os.environ.get("MUSTER_SOAK_SECONDS", "8"))
WRITERS = int(os.environ.get("MUSTER_SOAK_WRITERS", "36"))

pytestmark = pytest.mark.integration


class Court:
    """Records every event of the semaphore's Leases as it comes, and judges the engine's answer at each revision."""

    def __init__(self, api: Api, namespace: str, name: str = "sem") -> None:
        self.judge, self.illegal = Judge(name), list[str]()
        self.granted: set[int] = set()
        self.revision = 0
        self._leases: dict[str, dict] = {}
        self._api, self._where = api, (namespace, name)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        namespace, name = self._where
        selector = f"{engine.LABEL}={name}"
        for change in self._api.follow(LEASES, namespace, label_selector=selector, stop=self._stop):
            if isinstance(change, Snapshot):
                assert not self._leases or not change.items, "the recording has a hole"
                for lease in change.items:
                    self._event("ADDED", lease)
            else:
                there = change.obj["metadata"]["name"] in self._leases
                self._event(("MODIFIED" if there else "ADDED") if isinstance(change, Put) else "DELETED", change.obj)

    def _event(self, kind: str, lease: dict) -> None:
        name = lease["metadata"]["name"]
        self._leases[name] = lease
        if kind == "DELETED":
            del self._leases[name]
        self.judge.event(kind, lease)
        book = engine.parse(self.judge.name, self._leases.values())
        answer = frozenset[int]()
        if book is not None and book.terms.is_settled:
            answer = engine.holders(book)
        elif book is not None:
            answer = engine.still_held(book, self.judge.held)
        self.illegal += [f"{lease['metadata']['resourceVersion']} {text}" for text in self.judge.violations(answer)]
        self.granted |= answer
        self.revision = int(lease["metadata"]["resourceVersion"])

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)


class Race:
    """All that run until the end, and what they tell."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.end = time.monotonic() + SECONDS
        self.told: list[tuple[int, str]] = []  # fence and holder of every grant that somebody acted upon
        self.timed_out = 0
        self.failed: list[str] = []
        self._threads: list[threading.Thread] = []

    def start(self, run, *args) -> None:
        def guarded() -> None:
            try:
                run(*args)
            except Exception as error:
                self.failed.append(f"{run.__name__}{args}: {type(error).__name__}: {error}")

        self._threads.append(threading.Thread(target=guarded, daemon=True))
        self._threads[-1].start()

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS + 60)
            assert not thread.is_alive()

    @property
    def at(self) -> dict[str, str]:
        return {"engine": "tickets", "name": self.lab.name, "namespace": self.lab.namespace}

    def over(self) -> bool:
        return time.monotonic() >= self.end

    def sidecar(self, name: str) -> None:
        """Holds for a moment, gives back, and queues again at once, as its seat does by itself."""
        claimant = Claimant(name, self.lab.pod(name), {random.choice(["gpu", "tpu", ANY]): 1})
        api = Api(self.lab.api.credentials)
        attendant = verbs.attendant(api, claimant=claimant, **self.at)
        for sight in attendant.sights(self.end):
            if sight.grant and (sight.grant.fence, name) not in self.told:
                self.told.append((sight.grant.fence, name))
                time.sleep(random.uniform(0, 0.01))
                assert verbs.leave(api, claimant=claimant, **self.at)

    def module(self, name: str) -> None:
        while not self.over():
            try:
                done = verbs.claim(self.lab.api, holder=name, lease=60, wait=True, wait_timeout=2, **self.at)
                self.told.append((done["fence"], name))
                again = verbs.claim(self.lab.api, holder=name, lease=60, **self.at)
                assert (again["changed"], again["fence"]) == (False, done["fence"])
                verbs.release(self.lab.api, holder=name, **self.at)
            except TimedOut:
                self.timed_out += 1

    def mortal(self, name: str) -> None:
        """Claims, and then its Pod is gone, or has ended and is still there."""
        for number in range(1000):
            if self.over():
                return
            pod = f"{name}-{number}"
            self.lab.pod(pod)
            try:
                done = verbs.claim(self.lab.api, holder=pod, wait=True, wait_timeout=2, **self.at)
                self.told.append((done["fence"], pod))
            except TimedOut:
                self.timed_out += 1
            if number % 2:
                self.lab.finish(pod)
            else:
                self.lab.kill(pod)

    def person(self) -> None:
        """kubectl edit, of the capacity, twice in a row now and then; and at last as it was."""
        while not self.over():
            for _edit in range(random.choice([1, 2])):
                self.edit({"gpu": random.choice([0, 1, 3]), "tpu": random.choice([1, 2])})
            time.sleep(random.uniform(0.05, 0.4))

    def edit(self, capacity: dict[str, int]) -> None:
        while True:
            own = self.lab.api.get(LEASES, self.lab.name, self.lab.namespace)
            own["metadata"]["annotations"][engine.CAPACITY] = json.dumps(capacity)
            try:
                self.lab.api.replace(LEASES, own)
                return
            except ApiError as error:
                assert error.status == 409, error


@pytest.fixture
def lab(api: Api, namespace: str) -> Iterator[Lab]:
    lab = Lab(api, namespace)
    verbs.configure(api, engine="tickets", name="sem", namespace=namespace, capacity={"gpu": 2, "tpu": 1})
    yield lab
    lab.close()


def test_everybody_at_once(lab: Lab) -> None:
    court = Court(lab.api, lab.namespace)
    race = Race(lab)
    for number in range(max(32, WRITERS) - 6):
        race.start(race.sidecar, f"web-{number}")
    for number in range(3):
        race.start(race.module, f"ci-{number}")
        race.start(race.mortal, f"job-{number}")
    race.start(race.person)
    race.finish()
    race.edit({"gpu": 1, "tpu": 1})
    last = int(lab.api.get(LEASES, lab.name, lab.namespace)["metadata"]["resourceVersion"])
    until(lambda: court.revision >= last, "the end of the recording")
    court.close()
    judge = court.judge
    print(f"{judge.revisions} revisions, {judge.granted} grants, {len(race.told)} told, {race.timed_out} timed out")
    assert race.failed == []
    assert court.illegal == []
    assert len({fence for fence, _who in race.told}) == len(race.told), "a fence was given twice"
    assert {fence for fence, _who in race.told} <= court.granted, "somebody believed in a grant that never was"
    assert judge.granted >= len(race.told) > 0
    for line in judge.fences.values():
        assert line == sorted(line)


def test_the_ticket_of_a_dead_pod_goes_and_the_next_is_served(lab: Lab) -> None:
    """One object is deleted (the garbage collector deletes the ticket); another Pod ends, and its object stays."""
    at = {"engine": "tickets", "name": "sem", "namespace": lab.namespace}
    for name in ("gone", "ended"):
        lab.pod(name)
        assert verbs.claim(lab.api, holder=name, resource="gpu", **at)["outcome"] == "granted"
    waiting = []
    for name in ("next", "last"):
        claimant = Claimant(name, lab.pod(name), {"gpu": 1})
        sights: list = []
        attendant = verbs.attendant(lab.api, claimant=claimant, **at)
        threading.Thread(target=lambda a=attendant, s=sights: [s.append(x) for x in a.sights()], daemon=True).start()
        until(lambda s=sights: s and s[-1].place, f"{name} waits")
        waiting.append((attendant, sights))
    lab.kill("gone")
    took = until(lambda: waiting[0][1][-1].grant, "the next is served")
    lab.finish("ended", "Failed")
    took_ended = until(lambda: waiting[1][1][-1].grant, "the last is served")
    print(f"{took:.3f} s after the deletion, {took_ended:.3f} s after the end")
    held = {h["holder"] for h in verbs.info(lab.api, name="sem", namespace=lab.namespace)["semaphores"][0]["holders"]}
    assert held == {"next", "last"}
    assert lab.api.get(PODS, "ended", lab.namespace)["status"]["phase"] == "Failed"
    for attendant, _sights in waiting:
        attendant.stop()


def test_a_lease_that_is_not_renewed_ends_and_one_that_is_does_not(lab: Lab) -> None:
    at = {"engine": "tickets", "name": "sem", "namespace": lab.namespace}
    first = verbs.claim(lab.api, holder="dead", resource="tpu", lease=3, **at)
    began = time.monotonic()
    second = verbs.claim(lab.api, holder="alive", resource="tpu", lease=3, wait=True, wait_timeout=30, **at)
    assert time.monotonic() - began >= 3 and second["fence"] > first["fence"]
    for _renewal in range(3):
        time.sleep(1.5)
        again = verbs.claim(lab.api, holder="alive", resource="tpu", lease=3, **at)
        assert (again["changed"], again["fence"]) == (False, second["fence"])


def test_a_malformed_capacity_is_refused_and_survives(lab: Lab) -> None:
    at = {"engine": "tickets", "name": "sem", "namespace": lab.namespace}
    Race(lab).edit({"gpu": -1})
    before = lab.api.get(LEASES, "sem", lab.namespace)
    field = r"Lease .*/sem metadata.annotations\[muster.dev/capacity\].gpu is -1: give a whole number"
    with pytest.raises(MusterError, match=field):
        verbs.claim(lab.api, holder="ci", lease=60, **at)
    with pytest.raises(MusterError, match=field):
        verbs.configure(lab.api, capacity={"gpu": 1}, **at)
    assert lab.api.get(LEASES, "sem", lab.namespace) == before
    assert "gpu is -1" in verbs.info(lab.api, namespace=lab.namespace)["semaphores"][0]["error"]


def test_both_engines_of_one_name_are_listed(lab: Lab) -> None:
    verbs.configure(lab.api, name="sem", namespace=lab.namespace, capacity={"gpu": 1})
    found = verbs.info(lab.api, namespace=lab.namespace)["semaphores"]
    assert [(one["name"], one["engine"]) for one in found] == [("sem", "annotations"), ("sem", "tickets")]

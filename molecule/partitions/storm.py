#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In a Pod of the scenario: operations on partitions, and who is struck in the middle of them.

storm.py operate JSON
    Asks for one operation, and at `moment` does `deed` to `victim`. Waits until the operation is over and all is at
    rest again. Prints JSON: what became of it, how long it took, and what is wrong; exit status 1 if anything is. It is
    given an `Asked`.

storm.py rest JSON
    Waits until all is at rest: every key is in one partition, its worker serves it, nothing goes on, nothing is left
    of what went on. With `wanted` so many partitions; with `workers` only these workers.

storm.py load
    Begins to read and write by the router, and to write down each call and its answer.

storm.py judge
    Ends that, and judges: whether what clients saw is linearizable, key by key.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    DEPLOYMENTS,
    LEASES,
    PODS,
    STATEFUL_SETS,
    Api,
    NotFound,
    Object,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Fact, Space, View

KEY_SPACES = Resource("muster.dev/v1alpha1", "keyspaces", "KeySpace")
PARTITIONS = Resource("muster.dev/v1alpha1", "partitions", "Partition")
ASSIGNMENTS = Resource("muster.dev/v1alpha1", "assignments", "Assignment")
SPACE = "default"
RECONCILER = "partition-reconciler"
FROZEN_SECONDS = 10.0  # longer than a Lease lasts
OVER_SECONDS = 60.0  # until an operation is over, whoever is struck
REST_SECONDS = 90.0  # until all is at rest after it
LOOK_SECONDS = 0.2
ANSWER_SECONDS = 3.0
TOKEN = Path("/etc/partitions/token")
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass
class Asked:
    """`kind` of the operation, one of `operations.KINDS` but New. `victim`: source, target, reconciler, or nobody.

    `moment`: loading, fencing or committed. `deed`: KILL, STOP (and later CONT), or DELETE, of the Pod, which has no time to leave.
    """

    kind: str = ""
    victim: str = ""
    moment: str = ""
    deed: str = ""
    wanted: int = 0
    workers: list[str] = field(default_factory=list)


class Site:
    """What there is, as the API server and the workers tell it."""

    def __init__(self) -> None:
        self.api, self.namespace = Api(Credentials.load({})), NAMESPACE.read_text()

    @property
    def space(self) -> Space:
        return keyspace.parse_space(self.api.get(KEY_SPACES, SPACE, self.namespace))

    def objects(self) -> tuple[list[Object], list[Object]]:
        """Partitions, then Assignments: in this order nothing that was committed is missed."""
        found = [self.api.list(kind, self.namespace).items for kind in (PARTITIONS, ASSIGNMENTS)]
        return found[0], found[1]

    def view(self) -> View:
        return keyspace.view(*self.objects())

    def reports(self) -> dict[str, Object]:
        """What each worker says that it has; only of those that answer."""
        token, found = TOKEN.read_text().strip(), {}
        selector = f"muster.dev/key-space={SPACE}"
        for lease in self.api.list(LEASES, self.namespace, label_selector=selector).items:
            if not lease["spec"].get("holderIdentity"):
                continue
            address = lease["metadata"]["annotations"]["muster.dev/address"]
            asked = urllib.request.Request(f"{address}/v1/worker", headers={"Authorization": f"Bearer {token}"})
            with suppress(OSError, ValueError), urllib.request.urlopen(asked, timeout=ANSWER_SECONDS) as answer:
                report = json.loads(answer.read())
                found[report["worker"]] = report
        return found

    def leader(self) -> str:
        """The Pod of the reconciler that leads."""
        return str(self.api.get(LEASES, RECONCILER, self.namespace)["spec"]["holderIdentity"]).partition("_")[0]

    # ------------------------------------------------------------------------------------------ at rest

    def faults(self, asked: Asked) -> list[str]:
        """What is not as it is to be when nothing goes on."""
        partitions, assignments = self.objects()
        view = keyspace.view(partitions, assignments)
        wrong = [f"nobody has {gap}" for gap in view.gaps] + [f"{name} is left" for name in view.void]
        if asked.wanted and len(view.facts) != asked.wanted:
            wrong.append(f"there are {len(view.facts)} partitions, and were to be {asked.wanted}")
        for each in assignments:
            if not operations.is_final(each):
                wrong.append(f"{each['metadata']['name']}: {each.get('status')}")
        for each in partitions:
            held = {what: each["spec"][what] for what in ("claimedBy", "fencedBy", "proxy") if each["spec"].get(what)}
            if held:
                wrong.append(f"{each['metadata']['name']} has {held}")
        return [*wrong, *self.wrong_copies(view, asked), *self.wrong_pods()]

    def wrong_copies(self, view: View, asked: Asked) -> Iterator[str]:
        reports = self.reports()
        if asked.workers and sorted(reports) != sorted(asked.workers):
            yield f"workers are {sorted(reports)}"
        shall = {(fact.primary, fact.partition, "primary", fact.epoch) for fact in view.facts}
        have = {
            (worker, copy["partition"], copy["role"], copy["epoch"])
            for worker, report in reports.items()
            for copy in report["copies"]
        }
        for worker, partition, role, epoch in sorted(shall - have):
            yield f"{worker} is not {role} of {partition} at epoch {epoch}"
        for worker, partition, role, epoch in sorted(have - shall):
            yield f"{worker} is {role} of {partition} at epoch {epoch}, and has no reason to"

    def wrong_pods(self) -> Iterator[str]:
        for kind in (DEPLOYMENTS, STATEFUL_SETS):
            for each in self.api.list(kind, self.namespace).items:
                ready = each.get("status", {}).get("readyReplicas", 0)
                if ready != each["spec"]["replicas"]:
                    yield f"{each['metadata']['name']} has {ready} ready Pods"

    def rest(self, asked: Asked) -> list[str]:
        """What is wrong, once nothing is or the time has run out."""
        deadline = time.monotonic() + REST_SECONDS
        while (wrong := self.faults(asked)) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return wrong

    # ------------------------------------------------------------------------------------------ what is asked for

    def choose(self, kind: str) -> tuple[Object, dict[str, str]]:
        """An Assignment of this kind for what there is now, and whom its victims are."""
        view, space, name = self.view(), self.space, f"storm-{time.time_ns() // 1000:x}"
        if kind == operations.SPLIT:
            fact = max(view.facts, key=lambda each: width(space, each))
            made = operations.make(
                name, SPACE, kind, partition=fact.partition, splitKey=keyspace.middle(space, fact.range)
            )
            return made, {"source": fact.primary}
        if kind == operations.MERGE:
            pairs = zip(view.facts, view.facts[1:], strict=False)
            one, other = next((one, other) for one, other in pairs if one.primary == other.primary)
            made = operations.make(name, SPACE, kind, partitions=[one.partition, other.partition])
            return made, {"source": one.primary}
        fact = view.facts[time.time_ns() % len(view.facts)]
        to = sorted(self.reports().keys() - {fact.primary})[0]
        made = operations.make(name, SPACE, kind, partition=fact.partition, **{"from": fact.primary, "to": to})
        return made, {"source": fact.primary, "target": to}

    def reaches(self, made: Object, moment: str, version: str) -> bool:
        """Wait for that moment of an operation which begins after this version; False when it has passed."""
        name, operand = made["metadata"]["name"], operations.operands(made)[0]
        kind, of = (ASSIGNMENTS, name) if moment == "committed" else (PARTITIONS, operand)
        tests: Mapping[str, Callable[[Object], bool]] = {
            "loading": lambda obj: obj["spec"].get("claimedBy") == name,
            "fencing": lambda obj: obj["spec"].get("fencedBy") == name,
            "committed": lambda obj: operations.phase_of(obj) == operations.COMMITTED,
        }
        events = self.api.watch(
            kind,
            self.namespace,
            resource_version=version,
            field_selector=f"metadata.name={of}",
            timeout=OVER_SECONDS,
        )
        return any(what != "BOOKMARK" and tests[moment](obj) for what, obj in events)

    def over(self, name: str) -> Object:
        """The status of the operation, when it is over or the time has run out."""
        deadline = time.monotonic() + OVER_SECONDS
        while True:
            found = self.api.get(ASSIGNMENTS, name, self.namespace)
            if operations.is_final(found) or time.monotonic() > deadline:
                return dict(found.get("status") or {})
            time.sleep(0.05)

    # ------------------------------------------------------------------------------------------ who is struck

    def strike(self, pod: str, deed: str) -> Callable[[], None]:
        """Returns what has to be done about it later."""
        uid = self.api.get(PODS, pod, self.namespace)["metadata"]["uid"]
        if deed == "DELETE":
            self.api.delete(PODS, pod, self.namespace)
            deed = "KILL"  # it has no time to leave
        if not send(uid, signal.Signals[f"SIG{deed}"]):
            raise LookupError(f"{pod} has no process")
        if deed != "STOP":
            return lambda: None
        thaws = threading.Timer(FROZEN_SECONDS, send, (uid, signal.SIGCONT))
        thaws.start()
        return thaws.join


def width(space: Space, fact: Fact) -> int:
    def place(bound: str, least: str) -> int:
        number = 0
        for character in bound[:3].ljust(3, least):
            number = number * len(space.alphabet) + space.alphabet.index(character)
        return number

    start, end = fact.range
    return (place(end, space.alphabet[0]) if end else len(space.alphabet) ** 3) - place(start, space.alphabet[0])


def operate(site: Site, asked: Asked) -> int:
    made, victims = site.choose(asked.kind)
    victims["reconciler"] = site.leader() if asked.victim == "reconciler" else ""
    version = site.api.list(PARTITIONS, site.namespace).resource_version
    began = time.monotonic()
    made["metadata"]["namespace"] = site.namespace
    site.api.create(ASSIGNMENTS, made)
    struck, late = False, ""
    undo: Callable[[], None] = lambda: None
    if asked.victim:
        struck = site.reaches(made, asked.moment, version)
        undo = site.strike(victims[asked.victim], asked.deed)
        late = operations.phase_of(site.api.get(ASSIGNMENTS, made["metadata"]["name"], site.namespace))
    status = site.over(made["metadata"]["name"])
    seconds = time.monotonic() - began
    undo()
    wrong = [] if status.get("phase") in operations.FINAL else [f"it is not over: {status}"]
    wrong += ["nobody was struck"] if asked.victim and not struck else []
    wrong += site.rest(asked)
    rested = time.monotonic() - began
    said = {"phase": status.get("phase"), "message": status.get("message"), "atStrike": late}
    return say(
        asked, wrong, **said, seconds=round(seconds, 2), rested=round(rested, 2), victim=victims.get(asked.victim, "")
    )


def say(asked: Asked, wrong: list[str], **more: Any) -> int:
    given = {name: value for name, value in asdict(asked).items() if value}
    print(json.dumps({"wrong": wrong[:20], "asked": given, **more}))
    return 1 if wrong else 0


# ------------------------------------------------------------------------------------------ signals


def send(uid: str, number: int) -> list[int]:
    """To the processes of this Pod; those that there were."""
    hit = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and is_of(process, uid):
            with suppress(ProcessLookupError):
                os.kill(int(process.name), number)
                hit.append(int(process.name))
    return hit


def is_of(process: Path, uid: str) -> bool:
    try:
        return f"POD_UID={uid}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False

#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In a Pod of the scenario: operations on partitions, who is struck in the middle of them, and what clients see of it.

storm.py storm JSON
    Asks for one operation after the other, and at its `moment` does its `deed` to its `victim`. Each time it waits
    until the operation is over and all is at rest again. It is given a list of `Blow`. Prints JSON: what became of
    each, and how long it took; exit status 1 if anything is wrong.

storm.py rest JSON
    Waits until all is at rest: every key is in one partition, its worker serves it, nothing goes on, nothing is left
    of what went on. It is given a `Rest`.

storm.py load
    Begins to read and write, by the router and by the client library, and to record each call with its answer.

storm.py judge
    Ends that, and judges: whether what clients saw is linearizable, key by key.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import string
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ansible_collections.muster.coordination
from ansible_collections.muster.coordination.plugins.module_utils.api import (
    DEPLOYMENTS,
    LEASES,
    PODS,
    STATEFUL_SETS,
    Api,
    Object,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Fact, Space, View
from muster.dstk.client import Client
from muster.dstk.directory import Fixed, Listed

# What proves it is not in the image: it lies beside this file, as it lies in the checkout.
ansible_collections.muster.coordination.__path__.append(str(Path(__file__).parent))
from ansible_collections.muster.coordination.tests.support import linearizability  # noqa: E402
from ansible_collections.muster.coordination.tests.support.partition_load import Load  # noqa: E402

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
STOP, JUDGED = Path("/history/stop"), Path("/history/judged.json")
PAUSE_SECONDS = 0.05  # between two operations of a client
ENOUGH = 500  # writes that have to have been acknowledged, for the judgement to be one
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass
class Blow:
    """`kind` of the operation. `victim`: source, target, or reconciler, the one that leads.

    `moment`: loading, fencing or committed. `deed`: KILL, STOP (and later CONT), or DELETE, of a Pod that has no time
    to leave.
    """

    kind: str
    victim: str
    moment: str
    deed: str


@dataclass
class Rest:
    """With so many partitions (0: any number), and these workers."""

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

    def faults(self, asked: Rest) -> list[str]:
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

    def wrong_copies(self, view: View, asked: Rest) -> Iterator[str]:
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

    def rest(self, asked: Rest) -> list[str]:
        """What is wrong, once nothing is or the time has run out."""
        deadline = time.monotonic() + REST_SECONDS
        while (wrong := self.faults(asked)) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return wrong

    # ------------------------------------------------------------------------------------------ what is asked for

    def choose(self, kind: str) -> tuple[Object, dict[str, str]]:
        """An Assignment of this kind for what there is now, and whom its victims are."""
        view, space, name = self.view(), self.space, self.new_name()
        if kind == operations.SPLIT:
            fact = max(view.facts, key=lambda each: width(space, each))
            made = operations.make(
                name, SPACE, kind, partition=fact.partition, splitKey=keyspace.middle(space, fact.range)
            )
            return made, {"source": fact.primary}
        if kind == operations.MERGE:
            one, other = self.neighbours()
            made = operations.make(name, SPACE, kind, partitions=[one.partition, other.partition])
            return made, {"source": one.primary}
        fact = view.facts[time.time_ns() % len(view.facts)]
        to = sorted(self.reports().keys() - {fact.primary})[0]
        made = operations.make(name, SPACE, kind, partition=fact.partition, **{"from": fact.primary, "to": to})
        return made, {"source": fact.primary, "target": to}

    def neighbours(self) -> tuple[Fact, Fact]:
        """Two that lie side by side, at one worker; where there are none, one is moved."""
        deadline = time.monotonic() + OVER_SECONDS
        while time.monotonic() < deadline:
            facts = self.view().facts
            for one, other in itertools.pairwise(facts):
                if one.primary == other.primary:
                    return one, other
            one, other = facts[:2]
            to = {"from": other.primary, "to": one.primary}
            made = operations.make(self.new_name(), SPACE, operations.MOVE, partition=other.partition, **to)
            self.ask(made)
            self.over(made["metadata"]["name"])
        raise LookupError("no two neighbours are at one worker")

    def new_name(self) -> str:
        return f"storm-{time.time_ns() // 1000:x}"

    def ask(self, made: Object) -> None:
        self.api.create(ASSIGNMENTS, {**made, "metadata": {**made["metadata"], "namespace": self.namespace}})

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


def storm(site: Site, blows: list[Blow]) -> int:
    done = []
    for blow in blows:
        done.append(strike_in(site, blow))
        print(json.dumps(done[-1]), file=sys.stderr, flush=True)
        if done[-1]["wrong"]:
            break
    return say([each for one in done for each in one["wrong"]], operations=done)


def strike_in(site: Site, blow: Blow) -> Object:
    """What became of one operation, and what is wrong."""
    made, victims = site.choose(blow.kind)
    name, victims["reconciler"] = made["metadata"]["name"], site.leader()
    victim = victims[blow.victim]
    version = site.api.list(PARTITIONS, site.namespace).resource_version
    began = time.monotonic()
    site.ask(made)
    was_reached = site.reaches(made, blow.moment, version)
    undo = site.strike(victim, blow.deed)
    status = site.over(name)
    seconds = time.monotonic() - began
    undo()
    wrong = [] if status.get("phase") in operations.FINAL else [f"{name} is not over: {status}"]
    wrong += [] if was_reached else [f"{name} never came to its {blow.moment}"]
    wrong += site.rest(Rest())
    rested = time.monotonic() - began
    became = {"phase": status.get("phase"), "message": status.get("message")}
    times = {"seconds": round(seconds, 2), "rest": round(rested, 2)}
    return {**asdict(blow), "pod": victim, **became, **times, "wrong": wrong}


def say(wrong: list[str], **more: Any) -> int:
    print(json.dumps({"wrong": wrong[:20], **more}))
    return 1 if wrong else 0


# ------------------------------------------------------------------------------------------ clients


def load(site: Site) -> int:
    """In a process of its own, until it is to stop; what it judges then lies in a file."""
    for file in (STOP, JUDGED):
        file.unlink(missing_ok=True)
    if os.fork():
        return say([], begun=True)
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # who has asked is not kept waiting
        os.dup2(nowhere, stream)
    router = "http://{PARTITION_ROUTER_SERVICE_HOST}:{PARTITION_ROUTER_SERVICE_PORT}".format(**os.environ)
    by_router = [Client(Fixed(router), token_file=TOKEN) for _number in range(3)]
    by_library = Client(Listed(site.api, site.namespace, SPACE), token_file=TOKEN)
    keys = [f"{letter}{other}load" for letter in string.ascii_lowercase[::3] for other in "afv"]
    for key in keys:  # what is under them is to be known
        by_library.delete(key, retry_unknown=True)
    runs = Load([*by_router, by_library], keys, 7, pause=PAUSE_SECONDS)
    runs.start()
    while not STOP.exists():
        time.sleep(LOOK_SECONDS)
    runs.stop()
    runs.read_all(by_library)
    ops = runs.ops()
    wrong = [*runs.failures, *map(str, linearizability.check(ops))]
    wrong += [] if len(runs.acknowledged) > ENOUGH else [f"only {len(runs.acknowledged)} writes were acknowledged"]
    told = {"operations": len(ops), "outcomes": dict(runs.counts), "longestSeconds": round(runs.longest, 2)}
    JUDGED.write_text(json.dumps({"wrong": wrong[:20], **told}))
    return 0


def judge() -> int:
    STOP.touch()
    deadline = time.monotonic() + REST_SECONDS
    while not JUDGED.exists():
        if time.monotonic() > deadline:
            return say(["the clients do not end"])
        time.sleep(LOOK_SECONDS)
    time.sleep(LOOK_SECONDS)
    return say(**json.loads(JUDGED.read_text()))


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


def main(arguments: list[str]) -> int:
    site = Site()
    match arguments:
        case ["storm", asked]:
            return storm(site, [Blow(**each) for each in json.loads(asked)])
        case ["rest", asked]:
            return say(site.rest(Rest(**json.loads(asked))))
        case ["load"]:
            return load(site)
        case ["judge"]:
            return judge()
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

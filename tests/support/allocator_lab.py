# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An allocator in one namespace, whose process can die after any of its writes; and what has to be true afterwards.

It runs on a real API server, or on one in memory. `Mortal` is the process's way to it: once it has died, nothing of it
is sent any more. Who plays the kubelet, and in memory also Kubernetes' own controllers, is a `Nature`.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    DEPLOYMENTS,
    PODS,
    Api,
    Conflict,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import template as templates
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    POOL,
    Caller,
    Offer,
    Refused,
    Wish,
    make_offer,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import INSTANCE, RETAINED
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import (
    DISKS,
    INSTANCES,
    RESOURCES,
    Allocator,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import TOTAL
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster.allocator.controller import Instances
from muster.allocator.sweeper import Sweeper
from muster.allocator.warm import Warm

ROOT: Final = Path(__file__).parents[2]
# seconds: a deadline for what should take far less, on a machine that may be busy
PATIENCE: Final = float(os.environ.get("MUSTER_TEST_PATIENCE", "60"))
NAME: Final = "kv"
ANN, BOB = Caller("ann@example.org"), Caller("bob@example.org")
KINDS: Final = tuple(RESOURCES.values())
UNREACHED: Final = "it has not come to"
PLAIN: Final = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: "{{.Name}}"}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: "{{.Name}}"}}
  template:
    metadata: {labels: {app: "{{.Name}}"}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 0
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: server
          image: example.org/none
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
          volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: "{{.Name}}"}}]
---
apiVersion: v1
kind: Service
metadata: {name: "{{.Name}}"}
spec: {selector: {app: "{{.Name}}"}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: "{{.Name}}"}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""

Object = dict[str, Any]


def offer(text: str = PLAIN, **said: Any) -> Offer:
    template = templates.parse(list(yaml.safe_load_all(text)), "template")
    return make_offer(**{"name": NAME, "server_name": NAME, "template": template, **said})


class Killed(BaseException):
    """The process has died: no handler of the program sees this."""


class Mortal:
    """A process's own Api; it dies right after so many of its writes (0: before the first)."""

    def __init__(self, api: Any, lives_for: int | None = None) -> None:
        self.api, self.lives_for = api, lives_for
        self.writes: list[str] = []
        self.before: Callable[[], None] | None = None  # called before each write: somebody else may step in
        self.before_read: Callable[[], None] | None = None  # the same for reads
        self._lock = threading.RLock()

    def __getattr__(self, name: str) -> Any:
        self._live()
        return getattr(self.api, name)

    def get(self, *what: Any) -> Any:
        self._live()
        if self.before_read:
            self.before_read()
        return self.api.get(*what)

    def list(self, *what: Any, **how: Any) -> Any:
        self._live()
        if self.before_read:
            self.before_read()
        return self.api.list(*what, **how)

    def create(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Any:
        if dry_run:
            self._live()
            return self.api.create(resource, obj, dry_run=True)
        return self._write(f"create {resource.plural}", lambda: self.api.create(resource, obj))

    def replace(self, resource: Resource, obj: Object, subresource: str = "", *, dry_run: bool = False) -> Any:
        what = f"replace {resource.plural}{subresource and '/'}{subresource}"
        return self._write(what, lambda: self.api.replace(resource, obj, subresource, dry_run=dry_run))

    def delete(self, resource: Resource, name: str, namespace: str | None = None, **how: Any) -> Any:
        return self._write(f"delete {resource.plural}", lambda: self.api.delete(resource, name, namespace, **how))

    def _write(self, what: str, write: Callable[[], Any]) -> Any:
        if self.before:
            self.before()
        with self._lock:
            self._live()
            self.writes.append(what)
            try:
                return write()
            finally:
                self._live()

    def _live(self) -> None:
        if self.lives_for is not None and len(self.writes) >= self.lives_for:
            raise Killed(f"after {self.writes}")


class Reign:
    """A term that lasts."""

    scope, fence = "ns/lease", 1

    def check(self) -> float:
        return 30.0


class Process:
    """An allocator's process, with a clock of its own for the sweeper; who calls it says when it does what."""

    def __init__(self, api: Any, namespace: str, offered: Offer, lives_for: int | None = None) -> None:
        self.api, self.namespace, self.clock = Mortal(api, lives_for), namespace, 0.0
        any_api: Any = self.api
        self.allocator = Allocator(any_api, namespace, offered, known=self.listed)
        self.events: list[tuple[str, str]] = []
        self.instances = Instances(any_api, self.allocator.ledgers, self._tell, clock=lambda: self.clock)
        self.sweeper = Sweeper(any_api, self.allocator.ledgers, namespace, NAME, KINDS, clock=lambda: self.clock)
        self.warm = Warm(self.allocator, self.listed)

    def listed(self) -> list[Object]:
        found: list[Object] = self.api.list(INSTANCES, self.namespace, label_selector=f"{MEMBER}={NAME}").items
        return found

    def turn(self) -> None:
        """Look after each Instance once."""
        for obj in self.listed():
            self.instances.reconcile(obj, Reign())

    def sweep(self, seconds: float = 0.0) -> list[Any]:
        """So much later."""
        self.clock += seconds
        return self.sweeper.sweep(Reign())

    def _tell(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None:
        self.events.append((about["metadata"]["name"], reason))


class Nature:
    """The kubelet, for Pods that run nowhere; on a real API server, where Kubernetes' controllers are at work."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def turn(self) -> None:
        for pod in self.api.list(PODS, self.namespace).items:
            ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            status = pod.get("status") or {}
            if pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Running":
                continue
            with suppress(Conflict, NotFound):
                told = {**status, "phase": "Running", "conditions": [ready]}
                self.api.replace(PODS, {**pod, "status": told}, "status")
        time.sleep(0.05)


class MemoryNature:
    """In memory: also the controllers of workloads, and what protects disks. No garbage is collected."""

    def __init__(self, api: MemoryApi, namespace: str = "ns") -> None:
        self.api, self.namespace = api, namespace

    def turn(self) -> None:
        for obj in self.api.list(DEPLOYMENTS, self.namespace).items:
            self._workload(obj)

    def _workload(self, obj: Object) -> None:
        count = obj["spec"].get("replicas", 1)
        status = {"replicas": count, "readyReplicas": count, "updatedReplicas": count}
        if obj.get("status") != status:
            with suppress(Conflict, NotFound):
                self.api.replace(DEPLOYMENTS, {**obj, "status": status}, "status")


class Site:
    """One namespace, and all that is true of it."""

    def __init__(self, api: Any, namespace: str, nature: Any, offered: Offer | None = None) -> None:
        self.api, self.namespace, self.nature = api, namespace, nature
        self.offer = offered or offer()
        self.disks_seen: dict[str, str] = {}  # uid -> name, of disks that may not be lost

    def process(self, lives_for: int | None = None) -> Process:
        return Process(self.api, self.namespace, self.offer, lives_for)

    # ------------------------------------------------------------------------------------------ what there is

    def instances(self) -> list[Object]:
        found: list[Object] = self.api.list(INSTANCES, self.namespace).items
        return found

    def instance(self, name: str) -> Object | None:
        with suppress(NotFound):
            found: Object = self.api.get(INSTANCES, name, self.namespace)
            return found
        return None

    def phases(self) -> dict[str, str]:
        return {obj["metadata"]["name"]: (obj.get("status") or {}).get("phase", "") for obj in self.instances()}

    def made(self, *, kept: bool = False) -> list[Object]:
        """All objects with our labels; `kept`: disks that are kept instead."""
        selector = f"{MEMBER}={NAME},{RETAINED if kept else INSTANCE}"
        kinds = (DISKS,) if kept else KINDS
        return [
            {**obj, "kind": kind.kind}
            for kind in kinds
            for obj in self.api.list(kind, self.namespace, label_selector=selector).items
        ]

    def disk(self, name: str) -> Object | None:
        with suppress(NotFound):
            found: Object = self.api.get(DISKS, name, self.namespace)
            return found
        return None

    def ledgers(self) -> dict[str, dict[str, tuple[str, str]]]:
        """By owner ("": the total): handle -> (state, uid)."""
        allocator = self.process().allocator
        found = {each.owner: each for each in allocator.ledgers.all()}
        total = allocator.ledgers.read(TOTAL)
        whole = {**found, **({"": total} if total else {})}
        return {
            owner: {name: (entry.state, entry.uid) for name, entry in each.entries.items()}
            for owner, each in whole.items()
            if each.entries
        }

    # ------------------------------------------------------------------------------------------ what is done

    def until(self, process: Process, true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Let the process, and nature, take turns until it is so."""
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"waited in vain for {what}: {json.dumps(self.told(), indent=1)}"
            with suppress(Conflict):
                process.turn()
            self.nature.turn()

    def settle(self, process: Process, *phases: str) -> None:
        """Until all Instances are in one of these phases, and nothing is on its way."""

        def is_settled() -> bool:
            there = self.instances()
            return all(_is_at_rest(obj) and obj["status"]["phase"] in phases for obj in there)

        self.until(process, is_settled, f"all to be {phases}")

    def gone(self, process: Process) -> None:
        self.until(process, lambda: not self.instances(), "all to be gone")

    def recover(self) -> Process:
        """A new process in place of one that has died; it has looked after all, and swept what was left."""
        process = self.process()
        self.settle(process, "Ready", "Suspended")
        process.sweep()
        process.sweep(61)
        process.sweep(1)  # the owner's place goes with the total's, or the next time
        self.settle(process, "Ready", "Suspended")
        return process

    def told(self) -> Any:
        return {"phases": self.phases(), "ledgers": self.ledgers()}

    # ------------------------------------------------------------------------------------------ what has to be true

    def judge(self, limit: int = 1) -> list[str]:
        """Once a process has recovered: what is wrong."""
        wrong: list[str] = []
        instances = {obj["metadata"]["name"]: obj for obj in self.instances()}
        uids = {obj["metadata"]["uid"] for obj in instances.values()}
        ledgers = self.ledgers()
        for owner, entries in ledgers.items():
            for name, (state, uid) in entries.items():
                there = instances.get(name)
                if there is None or there["metadata"]["uid"] != uid:
                    wrong.append(f"the ledger of {owner!r} has {name}, {state}, without an Instance")
            if owner not in ("", POOL) and len(entries) > limit:
                wrong.append(f"{owner} has {len(entries)} of {limit}")
        for name, obj in instances.items():
            owner = obj["spec"].get("owner")
            for ledger in [owner, ""] if owner else [POOL]:
                if name not in ledgers.get(ledger, {}):
                    wrong.append(f"{name} of {owner!r} is not in the ledger of {ledger!r}")
        owned = Counter(obj["spec"]["owner"] for obj in instances.values() if obj["spec"].get("owner"))
        wrong += [f"{owner} has {count} of {limit} instances" for owner, count in owned.items() if count > limit]
        for obj in self.made():
            owners = {each["uid"] for each in obj["metadata"].get("ownerReferences") or []}
            if not owners & uids:
                wrong.append(f"{obj['kind']} {obj['metadata']['name']} is an orphan")
        there_now = {obj["metadata"]["uid"] for obj in self.api.list(DISKS, self.namespace).items}
        wrong += [f"disk {name} is lost" for uid, name in self.disks_seen.items() if uid not in there_now]
        return wrong

    def note_disks(self) -> None:
        """Those that are there now may not be lost."""
        for obj in self.api.list(DISKS, self.namespace).items:
            self.disks_seen[obj["metadata"]["uid"]] = obj["metadata"]["name"]


def _is_at_rest(obj: Object) -> bool:
    status, spec = obj.get("status") or {}, obj["spec"]
    is_done = status.get("observedGeneration", 0) == obj["metadata"].get("generation", 0)
    is_reset = int(status.get("resets", 0)) == int(spec.get("resets", 0))
    wanted = "Suspended" if spec.get("suspended") else "Ready"
    return bool(is_done and is_reset and status.get("phase") == wanted and not obj["metadata"].get("deletionTimestamp"))


# ---------------------------------------------------------------------------------------------------------------------
# What users do, in the middle of which a process dies


class Scenario:
    """`prepare` comes before, by a process that lives; `act` is what the other one dies in; `redo` is what its user
    does when all has recovered, and what has to be true then."""

    warm = 0
    wish = Wish()

    def prepare(self, site: Site, process: Process) -> None:
        process.allocator.create(ANN, "k", self.wish)
        site.settle(process, "Ready")
        site.note_disks()

    def act(self, site: Site, process: Process) -> None:
        raise NotImplementedError

    def redo(self, site: Site, process: Process) -> None:
        self.act(site, process)


class Create(Scenario):
    def prepare(self, site: Site, process: Process) -> None:
        pass

    def act(self, site: Site, process: Process) -> None:
        process.allocator.create(ANN, "k", self.wish)
        site.settle(process, "Ready")

    def redo(self, site: Site, process: Process) -> None:
        before = set(site.phases())
        self.act(site, process)
        assert len(site.phases()) == 1 and before <= set(site.phases()), "the same request has the same instance"
        assert {obj["kind"] for obj in site.made()} >= {"Deployment", "Service", "PersistentVolumeClaim"}


class Claim(Scenario):
    warm = 1

    def prepare(self, site: Site, process: Process) -> None:
        process.warm.keep(Reign())
        site.settle(process, "Ready")
        site.note_disks()

    def act(self, site: Site, process: Process) -> None:
        made = process.allocator.create(ANN, "k", self.wish).instance
        assert made["metadata"]["name"] in site.disks_seen.values(), "there was one that was ready"
        site.settle(process, "Ready")

    def redo(self, site: Site, process: Process) -> None:
        self.act(site, process)
        process.sweep()
        site.process().warm.keep(Reign())  # the one who has just claimed would wait for more who claim
        site.settle(process, "Ready")
        owners = sorted(obj["spec"]["owner"] for obj in site.instances())
        assert owners == ["", ANN.name], "one is hers, and another one waits"


class Suspend(Scenario):
    def act(self, site: Site, process: Process) -> None:
        (name,) = site.phases()
        process.allocator.suspend(ANN, name, True)
        site.settle(process, "Suspended")
        process.allocator.suspend(ANN, name, False)
        site.settle(process, "Ready")


class Reset(Scenario):
    def prepare(self, site: Site, process: Process) -> None:
        super().prepare(site, process)
        self.before = dict(site.disks_seen)
        site.disks_seen.clear()  # they are to go

    def act(self, site: Site, process: Process) -> None:
        (name,) = site.phases()
        process.allocator.reset(ANN, name, 0)
        site.settle(process, "Ready")

    def redo(self, site: Site, process: Process) -> None:
        self.act(site, process)
        (obj,) = site.instances()
        assert obj["status"]["resets"] == 1, "the same reset, asked for again, is done once"
        (disk,) = [each for each in site.made() if each["kind"] == "PersistentVolumeClaim"]
        assert disk["metadata"]["uid"] not in self.before


class Destroy(Scenario):
    def prepare(self, site: Site, process: Process) -> None:
        super().prepare(site, process)
        if self.wish.storage == "delete":
            site.disks_seen.clear()

    def act(self, site: Site, process: Process) -> None:
        for name in site.phases():
            with suppress(Refused):
                process.allocator.destroy(ANN, name)
        site.gone(process)

    def redo(self, site: Site, process: Process) -> None:
        self.act(site, process)
        assert site.ledgers() == {}, "its place is free"
        site.until(process, lambda: not site.made(), "nothing to be left")


class Retain(Destroy):
    wish = Wish(storage="retain")

    def redo(self, site: Site, process: Process) -> None:
        super().redo(site, process)
        (disk,) = site.made(kept=True)
        assert disk["metadata"]["uid"] in site.disks_seen
        assert [each["name"] for each in process.allocator.disks(ANN)] == [disk["metadata"]["name"]]


class Attach(Scenario):
    def prepare(self, site: Site, process: Process) -> None:
        process.allocator.create(ANN, "k", Wish(storage="retain"))
        site.settle(process, "Ready")
        site.note_disks()
        process.allocator.destroy(ANN, next(iter(site.phases())))
        site.gone(process)

    def act(self, site: Site, process: Process) -> None:
        (disk,) = site.disks_seen.values()
        with suppress(Refused):
            process.allocator.create(ANN, "again", Wish(attach=disk))
        site.settle(process, "Ready")

    def redo(self, site: Site, process: Process) -> None:
        self.act(site, process)
        (obj,) = site.instances()
        (disk,) = [each for each in site.made() if each["kind"] == "PersistentVolumeClaim"]
        assert disk["metadata"]["uid"] in site.disks_seen
        assert disk["metadata"]["ownerReferences"][0]["uid"] == obj["metadata"]["uid"]


SCENARIOS: Final[dict[str, type[Scenario]]] = {
    "create": Create,
    "claim": Claim,
    "suspend": Suspend,
    "reset": Reset,
    "destroy": Destroy,
    "retain": Retain,
    "attach": Attach,
}


def writes_of(site: Site, scenario: Scenario) -> list[str]:
    """What is written where nobody dies."""
    scenario.prepare(site, site.process())
    process = site.process()
    scenario.act(site, process)
    return process.api.writes


def die(site: Site, scenario: Scenario, after: int) -> list[str]:
    """A process dies after so many writes of the scenario; another recovers, and the user asks again: what is wrong."""
    scenario.prepare(site, site.process())
    died = False
    process = site.process(after)
    try:
        scenario.act(site, process)
    except Killed:
        died = True
    wrong = [] if died else [f"{UNREACHED} {after} writes: {process.api.writes}"]
    recovered = site.recover()
    wrong += site.judge()
    scenario.redo(site, recovered)
    return wrong + site.judge()

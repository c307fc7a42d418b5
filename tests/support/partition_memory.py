# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers of partitions in memory, which decide by the real functions, at an API server in memory; nothing waits.

A worker's data is one number for each copy, its position: who loads has all that its source has when it is asked next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    keyspace,
    operations,
    partition_copy,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import View
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FENCED,
    FOLLOWING,
    LOADING,
    PRIMARY,
    PROXY,
    Copy,
    Outcome,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster.dstk.reconciler import Assignments
from muster.dstk.workers import Refused, Unreachable, Workers
from muster.frame.authority import Superseded

Object = dict[str, Any]
ADDRESS = "http://{}.example"


class Killed(BaseException):
    """The reconciler's process ends here."""


class Reign:
    """A term without an end, unless `checks` bounds it."""

    scope, fence = "ns/lease", 7

    def __init__(self, checks: int = 10**9) -> None:
        self.checks = checks

    def check(self) -> float:
        self.checks -= 1
        if self.checks < 0:
            raise Superseded("it is over")
        return 30.0


class MemoryWorker:
    """What a worker has, and what it makes of calls."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name
        self.copies: dict[str, Copy] = {}
        self.is_cut_off = False

    def apply(self, outcome: Outcome) -> None:
        if outcome.refusal:
            status = 404 if outcome.refusal == partition_copy.NOT_HERE else 409
            raise Refused(status, outcome.refusal, outcome.why)
        for name in outcome.remove:
            self.copies.pop(name, None)
        self.copies |= {copy.partition: copy for copy in outcome.write}

    def load(self) -> None:
        """Have what the source has by now."""
        for name, copy in list(self.copies.items()):
            if copy.role not in (LOADING, FOLLOWING):
                continue
            source = self.site.workers.get(copy.origin)
            if source is None or source.is_cut_off:
                continue
            theirs = source.copies.get(name)
            if theirs is not None and theirs.role in (PRIMARY, FENCED):
                self.copies[name] = copy._replace(role=FOLLOWING, position=max(copy.position, theirs.position))

    def look(self) -> None:
        """Its own read of the API server."""
        for name in list(self.copies):
            copy = self.copies.get(name)
            if copy is None:
                continue
            partition = self.site.find(PARTITIONS, name)
            by = partition_copy.assignment_to_read(copy, partition)
            assignment = self.site.find(ASSIGNMENTS, by) if by else None
            verdict = partition_copy.authority(self.copies, copy, partition, assignment, self.name)
            if isinstance(verdict, partition_copy.NeedsHeirs):
                heirs = [
                    obj
                    for obj in self.site.listed(PARTITIONS)
                    if name in {source["partition"] for source in obj["spec"].get("sources") or ()}
                ]
                verdict = partition_copy.authority(self.copies, copy, partition, assignment, self.name, heirs=heirs)
            match verdict:
                case partition_copy.Serve(served):
                    self.copies[name] = served
                case partition_copy.Take(taken, sources):
                    for source in sources:
                        self.copies.pop(source, None)
                    self.copies |= {one.partition: one for one in taken}
                case partition_copy.Pass(worker):
                    self.copies[name] = copy._replace(role=PROXY, proxy=worker)
                case partition_copy.Drop(_why):
                    self.copies.pop(name, None)

    def write(self) -> list[str]:
        """A client writes wherever it is served; to which partitions."""
        written = [name for name, copy in self.copies.items() if copy.role == PRIMARY]
        for name in written:
            self.copies[name] = self.copies[name]._replace(position=self.copies[name].position + 1)
        return written


class Site:
    """One KeySpace, its workers, and a client of these as the reconciler has one; `before_effect` and `after_effect`
    are told of each call and write of whoever is at work."""

    def __init__(self, *workers: str, **space: Any) -> None:
        self.api = MemoryApi()
        self.workers = {name: MemoryWorker(self, name) for name in workers}
        self.now = 1_800_000_000.0
        self.monotonic = 100.0
        self.told: list[tuple[str, str]] = []
        self.effects: list[str] = []
        self.lock = threading.RLock()  # of several threads one after the other calls workers, and is told of
        self.after_effect: Callable[[str], None] = lambda what: None
        self.kind(KEY_SPACES, "default", {"keyLength": 4, "graceSeconds": 0, **space})
        for name in workers:
            self.lease(name)

    # ------------------------------------------------------------------------------------------ objects

    def kind(self, resource: Any, name: str, spec: Object, **further: Any) -> Object:
        metadata = {"name": name, "namespace": "ns", "labels": {"muster.dev/key-space": "default"}, "generation": 1}
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        return self.api.create(resource, {**head, "metadata": metadata, "spec": spec, **further})

    def lease(self, worker: str, holder: str = "") -> None:
        metadata = {
            "name": f"default.{worker}",
            "namespace": "ns",
            "labels": {"muster.dev/key-space": "default"},
            "annotations": {"muster.dev/address": ADDRESS.format(worker)},
        }
        spec = {"holderIdentity": holder or f"{worker}/1", "leaseDurationSeconds": 6, "renewTime": "then"}
        head = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
        self.api.create(LEASES, {**head, "metadata": metadata, "spec": spec})

    def renew(self, worker: str, **annotations: str) -> None:
        lease = self.api.get(LEASES, f"default.{worker}", "ns")
        lease["spec"]["renewTime"] = str(self.monotonic)
        lease["metadata"]["annotations"] |= {f"muster.dev/{name}": text for name, text in annotations.items()}
        self.api.replace(LEASES, lease)

    def release(self, worker: str) -> None:
        lease = self.api.get(LEASES, f"default.{worker}", "ns")
        lease["spec"]["holderIdentity"] = ""
        self.api.replace(LEASES, lease)

    def partition(self, name: str, start: str = "", end: str = "", **spec: Any) -> Object:
        whole = {"keySpace": "default", "range": {"start": start, "end": end}, **spec}
        return self.kind(PARTITIONS, name, whole)

    def served(self, name: str, worker: str, start: str = "", end: str = "", **spec: Any) -> None:
        """A Partition that a worker has."""
        obj = self.partition(name, start, end, primary=worker, epoch=1, **spec)
        self.workers[worker].copies[name] = Copy(name, keyspace.range_of(obj), PRIMARY, 1, position=5)

    def assignment(self, name: str, kind: str, **params: Any) -> Object:
        wanted = operations.make(name, "default", kind, **params)
        wanted["metadata"] |= {"namespace": "ns", "creationTimestamp": "2027-01-15T08:00:00Z"}
        return self.api.create(ASSIGNMENTS, wanted)

    def find(self, resource: Any, name: str) -> Object | None:
        return self.api.objects.get((resource.plural, "ns", name))

    def listed(self, resource: Any) -> list[Object]:
        return [obj for (plural, _ns, _name), obj in self.api.objects.items() if plural == resource.plural]

    def spec(self, partition: str) -> Object:
        found: Object = self.api.get(PARTITIONS, partition, "ns")["spec"]
        return found

    def phase(self, assignment: str) -> str:
        return operations.phase_of(self.api.get(ASSIGNMENTS, assignment, "ns"))

    def view(self) -> View:
        return keyspace.view(self.listed(PARTITIONS), self.listed(ASSIGNMENTS))

    def serving(self) -> dict[str, list[str]]:
        """Of each partition, the workers that serve it."""
        found: dict[str, list[str]] = {}
        for worker in self.workers.values():
            for name, copy in worker.copies.items():
                if copy.role == PRIMARY:
                    found.setdefault(name, []).append(worker.name)
        return found

    # ------------------------------------------------------------------------------------------ as a WorkerClient

    def copies(
        self, worker: str, address: str, partitions: Iterable[str] = (), *, timeout: float = 1.0
    ) -> dict[str, Copy]:
        with self.lock:
            found = self._reach(worker, address)
            found.load()
            found.look()
            wanted = set(partitions)
            return {name: copy for name, copy in found.copies.items() if not wanted or name in wanted}

    def call(
        self, worker: str, address: str, verb: str, body: Mapping[str, Any], *, timeout: float = 1.0
    ) -> Copy | None:
        with self.lock:
            found = self._reach(worker, address)
            order = partition_copy.order_of(body)
            for end in ("from", "to"):
                if body.get(end):
                    assert body[end]["address"] == ADDRESS.format(body[end]["worker"])
            found.load()
            if verb in ("promote", "resume"):
                found.look()
            else:
                found.apply(getattr(partition_copy, verb)(found.copies, order))
            self.effect(f"{verb} {worker} {body['partition']}")
            return found.copies.get(body["partition"])

    def effect(self, what: str) -> None:
        with self.lock:
            self.effects.append(what)
            self.after_effect(what)

    def _reach(self, worker: str, address: str) -> MemoryWorker:
        if address != ADDRESS.format(worker) or self.workers[worker].is_cut_off:
            raise Unreachable(f"{worker} does not answer at {address!r}")
        return self.workers[worker]

    # ------------------------------------------------------------------------------------------ a reconciler

    def reconciler(self, *, at_once: int = 1, **settings: Any) -> Assignments:
        """A new process of it, that has seen all Leases; it does one thing after the other, unless told otherwise."""
        api: Any = _Told(self)
        client: Any = self
        watch = self.watch()
        return Assignments(
            api,
            watch,
            client,
            lambda _namespace, name: self.find(KEY_SPACES, name),
            self._tell,
            clock=lambda: self.monotonic,
            now=lambda: self.now,
            sleep=self.sleep,
            at_once=at_once,
            **settings,
        )

    def watch(self) -> Workers:
        """The workers as one who has just begun to watch them knows them."""
        api: Any = self.api
        workers = Workers(api, "ns", clock=lambda: self.monotonic)
        for name in self.workers:
            self.sees(workers, name)
        return workers

    def sees(self, workers: Workers, worker: str) -> None:
        """The watch brings the Lease as it is now."""
        workers._note("ns", f"default.{worker}", self.find(LEASES, f"default.{worker}"))

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.monotonic += seconds

    def _tell(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None:
        self.told.append((reason, message))

    def go(self, assignment: str, reconciler: Assignments | None = None, turns: int = 60) -> str:
        """Look after it until it is over; its phase."""
        worker = reconciler or self.reconciler()
        for _turn in range(turns):
            try:
                obj = self.api.get(ASSIGNMENTS, assignment, "ns")
            except NotFound:
                return "gone"
            again = worker.reconcile(obj, Reign())
            if again is None or self.phase(assignment) in operations.FINAL:
                return self.phase(assignment)
            self.sleep(again)
        return self.phase(assignment)


class _Told:
    """The API server, which tells of writes."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._site.api, name)
        if name not in ("create", "replace", "delete"):
            return real

        def write(resource: Any, what: Any, *rest: Any, **further: Any) -> Any:
            answer = real(resource, what, *rest, **further)
            at = what if isinstance(what, str) else what["metadata"]["name"]
            phase = "" if isinstance(what, str) else (what.get("status") or {}).get("phase", "")
            self._site.effect(f"{name} {resource.kind} {at} {phase}".rstrip())
            return answer

        return write

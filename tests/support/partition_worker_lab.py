# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real workers of partitions at a real API server, and a hand that writes what a reconciler would."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import urllib3
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    AlreadyExists,
    Api,
    Conflict,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

CRDS = Path(__file__).parents[2] / "kustomize/partitions/crds"
DEFINITIONS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", False)
PATIENCE = 120.0  # seconds: for what should take far less
TOKEN = "the-token-of-these-workers"
Object = dict[str, Any]


def install(api: Api) -> None:
    """Have the API server know the kinds."""
    for name in ("keyspaces", "partitions", "assignments"):
        definition = yaml.safe_load((CRDS / f"{name}.yaml").read_text())
        try:
            api.create(DEFINITIONS, definition)
        except AlreadyExists:  # perhaps as it was before it was changed
            with suppress(Conflict):
                there = api.get(DEFINITIONS, definition["metadata"]["name"])
                api.replace(DEFINITIONS, {**there, "spec": {**there["spec"], **definition["spec"]}})

    def is_served() -> bool:
        with suppress(NotFound):
            for resource in (KEY_SPACES, PARTITIONS, ASSIGNMENTS):
                api.list(resource)
            return True
        return False

    until(is_served, "the API server to serve the kinds of partitions", PATIENCE)


class Answer:
    """What a worker answered."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self.status, self.body, self.headers = response.status, response.data, response.headers

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def word(self) -> str:
        """Of a refusal."""
        return str(self.json()["type"]).rpartition(":")[2] if self.status >= 400 else ""


class WorkerProcess:
    """A running `muster partition-worker`, and a client of it."""

    def __init__(self, lab: Lab, name: str, *further: str, directory: str = "") -> None:
        self.lab, self.name, self.started = lab, name, len(lab.processes)
        self.data = lab.directory / (directory or name)
        self.log = lab.directory / f"{name}-{self.started}.log"
        token = lab.directory / "token"
        if not token.exists():  # others read it at any time
            token.write_text(TOKEN)
        own = ("MUSTER_", "POD_", "CONTAINER_NAME", "KUBECONFIG", "K8S_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        arguments = ["partition-worker", "run", "--name", name, "--data", str(self.data), "--listen", "127.0.0.1:0"]
        arguments += ["--kubeconfig", lab.kubeconfig, "--namespace", lab.namespace, "--token-file", str(token)]
        with self.log.open("w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, *lab.launcher, *arguments, *further],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=file,
            )
        lab.processes.append(self)
        self._pool = urllib3.PoolManager(maxsize=8, retries=False)

    # ------------------------------------------------------------------------------------------ the process

    @property
    def port(self) -> int:
        return int(self.says(r'"port": (\d+)')[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(self, words: str) -> re.Match[str]:
        """Wait until its log says this."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(words, self.log.read_text()))
            assert found or self.popen.poll() is None, f"it has ended:\n{self.log.read_text()}"
            return bool(found)

        until(look, f"the log of {self.name} to say {words}", PATIENCE)
        return found[0]

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def freeze(self) -> None:
        """Return when it stands still."""
        self.signal(signal.SIGSTOP)

        def is_stopped() -> bool:
            stat = Path(f"/proc/{self.popen.pid}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "T"

        until(is_stopped, f"{self.name} to stand still", PATIENCE)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.popen.wait()

    def end(self, seconds: float = PATIENCE) -> int:
        """SIGTERM; its exit status."""
        self.signal(signal.SIGTERM)
        return self.popen.wait(seconds)

    # ------------------------------------------------------------------------------------------ a client

    def ask(self, method: str, path: str, body: bytes | None = None, timeout: float = 30.0, **headers: str) -> Answer:
        given = {"Authorization": f"Bearer {TOKEN}", **{name.replace("_", "-"): of for name, of in headers.items()}}
        url = f"{self.url}{path}"
        return Answer(self._pool.request(method, url, body=body, headers=given, timeout=timeout))

    def put(self, key: str, value: str, **settings: Any) -> Answer:
        return self.ask("PUT", f"/v1/keys/{quote(key, safe='')}", value.encode(), **settings)

    def get(self, key: str, **settings: Any) -> Answer:
        return self.ask("GET", f"/v1/keys/{quote(key, safe='')}", **settings)

    def delete(self, key: str, **settings: Any) -> Answer:
        return self.ask("DELETE", f"/v1/keys/{quote(key, safe='')}", **settings)

    def report(self) -> Object:
        answer = self.ask("GET", "/v1/worker")
        assert answer.status == 200, answer.body
        found: Object = answer.json()
        return found

    def copies(self) -> dict[str, Object]:
        return {copy["partition"]: copy for copy in self.report()["copies"]}

    def call(self, verb: str, body: Object) -> Answer:
        return self.ask("POST", f"/v1/control/{verb}", json.dumps(body).encode())

    def has(self, partition: str, **fields: Any) -> Object:
        """Wait until its copy of a partition is so; that copy."""
        found: Object = {}

        def look() -> bool:
            found.clear()
            found.update(self.copies().get(partition) or {})
            return bool(found) and all(found.get(field) == value for field, value in fields.items())

        try:
            until(look, f"{self.name} to have {partition} as {fields}", PATIENCE)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has {found}") from None
        return found

    def lacks(self, partition: str) -> None:
        until(lambda: partition not in self.copies(), f"{self.name} to have no copy of {partition}", PATIENCE)


class Lab:
    """One KeySpace, its workers, and the hand. `launcher` is what the command `muster` is run by."""

    launcher: tuple[str, ...] = ("-m", "muster.cli")

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path, **space: Any) -> None:
        self.api, self.namespace, self.kubeconfig, self.directory = api, namespace, kubeconfig, directory
        self.processes: list[WorkerProcess] = []
        self.made = 0
        install(api)
        self.create(KEY_SPACES, "default", {"keyLength": 4, "graceSeconds": 1, **space})

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                with suppress(ProcessLookupError):
                    process.thaw()
                process.kill()
        self._let_go()

    def _let_go(self) -> None:
        """Take the finalizers off: nobody is left to do it, and the namespace would never go."""
        for obj in self.api.list(ASSIGNMENTS, self.namespace).items:
            with suppress(Conflict, NotFound):
                self.api.replace(ASSIGNMENTS, {**obj, "metadata": {**obj["metadata"], "finalizers": []}})

    def worker(self, name: str, *further: str, directory: str = "") -> WorkerProcess:
        """Begun, and serving its pages."""
        process = WorkerProcess(self, name, *further, directory=directory)
        process.says('"message": "has its Lease"')
        return process

    # ------------------------------------------------------------------------------------------ objects

    def create(self, resource: Resource, name: str, spec: Object, **metadata: Any) -> Object:
        labels = {"muster.dev/key-space": "default"}
        whole = {"name": name, "namespace": self.namespace, "labels": labels, **metadata}
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        return self.api.create(resource, {**head, "metadata": whole, "spec": spec})

    def partition(self, name: str, start: str = "", end: str = "") -> Object:
        return self.create(PARTITIONS, name, {"range": {"start": start, "end": end}})

    def assignment(self, kind: str, **params: Any) -> Object:
        self.made += 1
        wanted = operations.make(f"a{self.made}", "default", kind, **params)
        wanted["metadata"]["namespace"] = self.namespace
        return self.api.create(ASSIGNMENTS, wanted)

    def change(self, resource: Resource, name: str, change: Callable[[Object], Any], subresource: str = "") -> Object:
        while True:
            obj = self.api.get(resource, name, self.namespace)
            change(obj)
            try:
                return self.api.replace(resource, obj, subresource)
            except Conflict:
                continue

    def have(self, partition: str, **spec: Any) -> Object:
        """Write these fields of a Partition."""
        return self.change(PARTITIONS, partition, lambda obj: obj["spec"].update(spec))

    def says(self, assignment: Object, phase: str, **status: Any) -> Object:
        """Write the status of an Assignment."""
        name = assignment["metadata"]["name"]

        def change(obj: Object) -> None:
            obj["status"] = {**(obj.get("status") or {}), "phase": phase, **status}

        return self.change(ASSIGNMENTS, name, change, "status")

    def commits(self, assignment: Object, results: list[Object], supersedes: tuple[str, ...] = ()) -> Object:
        stamp = {"committedAt": "2026-01-31T12:00:00.000000Z"}
        return self.says(assignment, "Committed", results=results, supersedes=list(supersedes), **stamp)

    def lease(self, worker: str) -> Object:
        return self.api.get(LEASES, f"default.{worker}", self.namespace)

    # ------------------------------------------------------------------------------------------ a reconciler's steps

    def order(self, assignment: Object, partition: str, **further: Any) -> Object:
        """The body of a call."""
        obj = self.api.get(PARTITIONS, partition, self.namespace)
        metadata = assignment["metadata"]
        own = {"assignment": metadata["name"], "uid": metadata["uid"], "keySpace": "default", "partition": partition}
        spec = obj["spec"]
        whole = {"start": spec["range"].get("start") or "", "end": spec["range"].get("end") or ""}
        return {**own, "range": whole, "epoch": spec.get("epoch") or 0, **further}

    def claim(self, assignment: Object, *partitions: str) -> None:
        for partition in partitions:
            self.have(partition, claimedBy=assignment["metadata"]["name"])

    def new(self, worker: WorkerProcess, *partitions: str) -> None:
        """Give partitions to a worker, all the way."""
        for partition in partitions:
            assignment = self.assignment("New", partition=partition, primary=worker.name)
            self.claim(assignment, partition)
            done = worker.call("follow", self.order(assignment, partition, **{"from": None}))
            assert done.status == 200, done.body
            epoch = self.order(assignment, partition)["epoch"] + 1
            self.commits(assignment, [self.result(partition, worker, epoch)])
            self.have(partition, primary=worker.name, epoch=epoch)
            assert worker.call("promote", self.order(assignment, partition)).status == 200
            worker.has(partition, role="primary", epoch=epoch)
            self.completes(assignment, partition)

    def completes(self, assignment: Object, *partitions: str) -> None:
        for partition in partitions:
            self.have(partition, claimedBy="", proxy="")
        self.says(assignment, "Completed")

    def result(self, partition: str, worker: WorkerProcess, epoch: int, **further: Any) -> Object:
        whole = self.order({"metadata": {"name": "", "uid": ""}}, partition)["range"] if not further else {}
        return {"partition": partition, "range": whole, "primary": worker.name, "epoch": epoch, **further}

    def fence(self, assignment: Object, worker: WorkerProcess, partition: str) -> Object:
        """Written, and acknowledged by the primary; its copy."""
        name = assignment["metadata"]["name"]
        epoch = self.order(assignment, partition)["epoch"] + 1
        self.have(partition, fencedBy=name, fencedAt="2026-01-31T12:00:00.000000Z", epoch=epoch)
        done = worker.call("fence", self.order(assignment, partition))
        assert done.status == 200, done.body
        copy: Object = done.json()["copy"]
        assert copy["role"] == "fenced" and copy["fencedEpoch"] == epoch, copy
        return copy

    def move(self, partition: str, source: WorkerProcess, target: WorkerProcess, *, drop: bool = True) -> Object:
        """All the way, unless `drop` is False: then up to where the source passes requests on."""
        ends = {"from": source.name, "to": target.name}
        assignment = self.assignment("InterWorkerMove", partition=partition, **ends)
        self.claim(assignment, partition)
        peer = {"worker": source.name, "address": source.url}
        done = target.call("follow", self.order(assignment, partition, **{"from": peer}))
        assert done.status == 200, done.body
        target.has(partition, role="following")
        fenced = self.fence(assignment, source, partition)

        def has_all() -> bool:
            return bool(target.copies()[partition]["position"] >= fenced["position"])

        until(has_all, f"{target.name} to have all of {partition}", PATIENCE)
        epoch = fenced["fencedEpoch"] + 1
        self.commits(assignment, [self.result(partition, target, epoch)])
        served = {"primary": target.name, "epoch": epoch, "proxy": source.name}
        self.have(partition, **served, fencedBy="", fencedAt="", followers=[])
        assert target.call("promote", self.order(assignment, partition)).status == 200
        target.has(partition, role="primary", epoch=epoch)
        passing = self.order(assignment, partition, to={"worker": target.name, "address": target.url})
        assert source.call("proxy", passing).status == 200
        if drop:
            assert source.call("drop", self.order(assignment, partition)).status == 200
            self.completes(assignment, partition)
        return assignment

    def remake(
        self, worker: WorkerProcess, assignment: Object, sources: list[str], results: dict[str, tuple[str, str]]
    ) -> list[Object]:
        """Make other partitions (name: start and end) out of these, at their worker, all the way."""
        self.claim(assignment, *sources)
        for source in sources:
            assert worker.call("prepare", self.order(assignment, source)).status == 200
        fenced = [self.fence(assignment, worker, source) for source in sources]
        epoch = max(copy["fencedEpoch"] for copy in fenced) + 1
        taken = [{"partition": copy["partition"], "epoch": copy["fencedEpoch"]} for copy in fenced]
        listed = [
            self.result(name, worker, epoch, range={"start": start, "end": end}, sources=taken)
            for name, (start, end) in results.items()
        ]
        self.commits(assignment, listed, tuple(sources))
        for each in listed:
            spec = {field: each[field] for field in ("range", "primary", "epoch", "sources")}
            name = assignment["metadata"]["name"]
            self.create(PARTITIONS, each["partition"], {**spec, "madeBy": name})
        promoted = {**self.order(assignment, listed[0]["partition"]), "results": listed}
        assert worker.call("promote", promoted).status == 200
        made = [worker.has(name, role="primary", epoch=epoch) for name in results]
        for source in sources:
            self.api.delete(PARTITIONS, source, self.namespace)
        self.says(assignment, "Completed")
        return made


class Writer:
    """Writes keys of its own one after the other, at whichever worker has them, and remembers what was acknowledged."""

    def __init__(self, workers: list[WorkerProcess], prefix: str) -> None:
        self._workers, self._prefix = workers, prefix
        self.acknowledged: dict[str, set[str]] = {}  # by key: what it may be
        self.written = 0
        self.refused: dict[str, int] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._is_over.is_set():
            number += 1
            key, value = f"{self._prefix}{number % 50:02}", str(number)
            for worker in self._workers:
                try:
                    answer = worker.put(key, value, timeout=10.0)
                except urllib3.exceptions.HTTPError:
                    self._may_be(key, value)
                    continue
                if answer.status == 204:
                    self.acknowledged[key] = {value}
                    self.written += 1
                    break
                self.refused[answer.word] = self.refused.get(answer.word, 0) + 1
                if answer.word == "unknown":
                    self._may_be(key, value)

    def _may_be(self, key: str, value: str) -> None:
        self.acknowledged.setdefault(key, {""}).add(value)

    def writes(self, count: int = 20) -> None:
        """Wait until so many more were acknowledged."""
        before = self.written
        until(lambda: self.written >= before + count, f"{count} more writes", PATIENCE)

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()

    def check(self, worker: WorkerProcess) -> None:
        """All that was acknowledged is there."""
        assert self.acknowledged
        for key, values in self.acknowledged.items():
            answer = worker.get(key)
            found = answer.body.decode() if answer.status == 200 else "" if answer.word == "no-such-key" else None
            assert found in values, (key, values, answer.status, answer.body)

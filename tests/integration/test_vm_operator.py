# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster vm-operator` and `muster private-cloud` as real processes, at a real API server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    EVENTS,
    AlreadyExists,
    Api,
    Conflict,
    Invalid,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import machine_name
from ansible_collections.muster.coordination.plugins.module_utils.verbs.machines import VIRTUAL_MACHINES
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.vm.cloud_client import CloudClient
from muster.vm.cloud_wire import Writer

pytestmark = pytest.mark.integration

DEFINITION = Path(__file__).parents[2] / "charts/vm-operator/crds/virtualmachines.yaml"
DEFINITIONS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", False)
PATIENCE = 300.0  # seconds: for what should take far less; a retry may come after 60
SECONDS = 60.0  # for one call of the cloud
FAULTS = {
    "timeout_after_success": 0.05,
    "hold_seconds": 0.2,
    "error_after_success": 0.05,
    "error_before": 0.05,
    "duplicate_delivery": 0.3,
    "duplicate_delay_seconds": 0.3,
    "list_delay_seconds": 5,
    "rate_limit_per_second": 100,
    "names_not_unique": True,
}
Object = dict[str, Any]


class Process:
    """A running `muster …`, and its log."""

    def __init__(self, log: Path, *arguments: str) -> None:
        self._log = log
        own = ("MUSTER_", "POD_", "CONTAINER_NAME", "KUBECONFIG")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        with log.open("w") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "muster.cli", *arguments], env=environment, stdin=subprocess.DEVNULL, stderr=file
            )

    @property
    def port(self) -> int:
        return int(self.says(r'"port": (\d+)')[1])

    def says(self, words: str) -> re.Match[str]:
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(re.finditer(words, self._log.read_text()))
            assert found or self.popen.poll() is None, f"it has ended:\n{self._log.read_text()}"
            return bool(found)

        until(look, f"the log to say {words}", PATIENCE)
        return found[0]

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(PATIENCE)


class Site:
    """A namespace, a cloud, and operators of both."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path) -> None:
        self.api, self.namespace, self._kubeconfig, self._directory = api, namespace, kubeconfig, directory
        self._processes: list[Process] = []
        self._token = directory / "token"
        self._token.write_text("secret")
        self._listen = "127.0.0.1:0"
        self.start_cloud()

    def start_cloud(self) -> None:
        where = ("--listen", self._listen, "--store", str(self._directory / "cloud.db"))
        self.cloud_process = self._start("private-cloud", *where, "--token-file", str(self._token))
        self._listen = f"127.0.0.1:{self.cloud_process.port}"
        self.cloud = CloudClient(f"http://{self._listen}", self._token)

    def operator(self) -> Process:
        arguments = ["--kubeconfig", self._kubeconfig, "--namespace", self.namespace, "--lease-seconds", "3"]
        arguments += ["--watch-namespace", self.namespace, "--listen", "127.0.0.1:0"]
        arguments += ["--cloud", f"http://{self._listen}", "--cloud-token-file", str(self._token)]
        return self._start("vm-operator", "run", *arguments)

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for obj in self.api.list(VIRTUAL_MACHINES, self.namespace).items:  # or the namespace would never go
            self.change(obj["metadata"]["name"], lambda obj: obj["metadata"].pop("finalizers", None))

    def create(self, name: str, cores: int = 2) -> Object:
        metadata = {"name": name, "namespace": self.namespace}
        spec = {"cores": cores, "memory": "4Gi", "image": "debian-13"}
        kind = {"apiVersion": VIRTUAL_MACHINES.api_version, "kind": VIRTUAL_MACHINES.kind}
        return self.api.create(VIRTUAL_MACHINES, {**kind, "metadata": metadata, "spec": spec})

    def get(self, name: str) -> Object | None:
        with suppress(NotFound):
            return self.api.get(VIRTUAL_MACHINES, name, self.namespace)
        return None

    def change(self, name: str, change: Callable[[Object], Any], subresource: str = "") -> None:
        """As kubectl edit: again where somebody else was faster."""
        while (obj := self.get(name)) is not None:
            change(obj)
            with suppress(Conflict, NotFound):
                self.api.replace(VIRTUAL_MACHINES, obj, subresource)
                return

    def resize(self, name: str, cores: int) -> None:
        self.change(name, lambda obj: obj["spec"].update(cores=cores))

    def touch(self, name: str) -> None:
        """Have it looked at."""
        self.change(name, lambda obj: obj["metadata"].setdefault("annotations", {}).update(touched=os.urandom(4).hex()))

    def delete(self, name: str) -> None:
        self.api.delete(VIRTUAL_MACHINES, name, self.namespace)

    def runs(self, name: str) -> Object:
        """Wait until it is as its spec wants it; its status."""

        def look() -> bool:
            obj = self.get(name)
            status = (obj or {}).get("status", {})
            return bool(
                obj
                and status.get("phase") == "Running"
                and status["observedGeneration"] == obj["metadata"]["generation"]
            )

        self.until(look, f"{name} to run")
        return (self.get(name) or {})["status"]

    def fails(self, name: str) -> str:
        self.until(lambda: (self.get(name) or {}).get("status", {}).get("phase") == "Failed", f"{name} to fail")
        return str((self.get(name) or {})["status"]["message"])

    def goes(self, name: str) -> None:
        self.until(lambda: self.get(name) is None, f"{name} to go")

    def told(self) -> set[str]:
        """The reasons of Events about VirtualMachines."""
        about = "involvedObject.kind=VirtualMachine"
        return {event["reason"] for event in self.api.list(EVENTS, self.namespace, field_selector=about).items}

    def machines(self, **query: str) -> list[Object]:
        found: list[Object] = self.cloud.machines(timeout=SECONDS, limit=1000, **query)["machines"]
        return found

    def creates(self) -> dict[str, int]:
        found: dict[str, int] = self.cloud.counters(timeout=SECONDS)["creates"]
        return found

    def _start(self, *arguments: str) -> Process:
        process = Process(self._directory / f"{len(self._processes)}.log", *arguments)
        self._processes.append(process)
        return process

    def until(self, true: Callable[[], Any], what: str) -> None:
        try:
            until(true, what, PATIENCE)
        except AssertionError as error:
            logs = "\n".join(path.read_text()[-3000:] for path in sorted(self._directory.glob("*.log")))
            raise AssertionError(f"{error}; logs:\n{logs}") from None


@pytest.fixture(scope="module")
def definition(api: Api) -> None:
    """VirtualMachines are a kind of this API server, as they are now; they stay one, for others may use them."""
    document = yaml.safe_load(DEFINITION.read_text())
    try:
        api.create(DEFINITIONS, document)
    except AlreadyExists:
        there = api.get(DEFINITIONS, document["metadata"]["name"])
        with suppress(Conflict):  # another test does the same
            api.replace(DEFINITIONS, {**there, "spec": document["spec"]})

    def is_established() -> bool:
        status = api.get(DEFINITIONS, document["metadata"]["name"]).get("status") or {}
        conditions = status.get("conditions") or ()  # null while it is new
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    until(is_established, "the kind to be served", PATIENCE)


@pytest.fixture
def site(api: Api, definition: None, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(api, namespace, kubeconfig, tmp_path)
    yield site
    site.close()


# ------------------------------------------------------------------------------------------ the life of a machine


def test_made_resized_deleted_and_made_again_under_the_same_name(site: Site) -> None:
    operator = site.operator()
    first = site.create("web")
    status = site.runs("web")
    (machine,) = site.machines()
    assert machine["uid"] == first["metadata"]["uid"]
    assert machine["name"] == status["machine"]["name"] == machine_name(first)
    assert (machine["id"], machine["address"]) == (status["machine"]["id"], status["machine"]["address"])
    assert status["conditions"][0]["status"] == "True" and status["fence"] > 0
    assert first["spec"].items() <= machine.items()

    site.resize("web", 8)
    site.runs("web")
    assert [(each["id"], each["cores"]) for each in site.machines()] == [(machine["id"], 8)]

    site.delete("web")
    site.goes("web")
    assert site.machines() == []
    second = site.create("web")
    assert site.runs("web")["machine"]["id"] != machine["id"]
    assert site.creates() == {first["metadata"]["uid"]: 1, second["metadata"]["uid"]: 1}
    site.until(lambda: "Running" in site.told(), "an Event about it")
    assert operator.end() == 0


def test_with_all_faults_each_is_made_once_and_none_is_left(site: Site) -> None:
    site.cloud.switch(timeout=SECONDS, **FAULTS)
    site.operator()
    names = [f"vm-{number}" for number in range(6)]
    made = {name: site.create(name)["metadata"]["uid"] for name in names}
    site.resize("vm-1", 4)  # while it is being made
    site.delete("vm-2")
    for name in names[:2] + names[3:]:
        site.runs(name)
    site.goes("vm-2")
    for name in names[3:]:
        site.delete(name)
    again = site.create("vm-2")["metadata"]["uid"]
    site.runs("vm-2")
    for name in names[3:]:
        site.goes(name)
    site.cloud.switch(timeout=SECONDS)
    left = {machine["uid"]: machine["cores"] for machine in site.machines()}
    assert left == {made["vm-0"]: 2, made["vm-1"]: 4, again: 2}
    creates = site.creates()
    assert all(creates[uid] == 1 for name, uid in made.items() if name != "vm-2")
    assert creates.get(made["vm-2"], 0) <= 1 and creates[again] == 1


def test_what_happens_while_the_operator_and_the_cloud_are_down_is_made_good(site: Site) -> None:
    operator = site.operator()
    for name in ("kept", "resized", "deleted"):
        site.create(name)
    for name in ("kept", "resized", "deleted"):
        site.runs(name)
    before = {machine["uid"]: machine["id"] for machine in site.machines()}
    operator.kill()
    site.cloud_process.kill()
    site.delete("deleted")
    site.resize("resized", 16)
    site.create("new")
    site.operator()  # it finds no cloud
    site.start_cloud()
    for name in ("kept", "resized", "new"):
        site.runs(name)
    site.goes("deleted")
    after = {machine["uid"]: machine for machine in site.machines()}
    assert sorted(machine["cores"] for machine in after.values()) == [2, 2, 16]
    assert all(before[uid] == machine["id"] for uid, machine in after.items() if uid in before)
    assert set(site.creates().values()) == {1}


# ------------------------------------------------------------------------------------------ what people do


def test_a_machine_that_was_deleted_at_the_cloud_is_made_again(site: Site) -> None:
    site.operator()
    uid = site.create("web")["metadata"]["uid"]
    first = site.runs("web")["machine"]
    site.cloud.delete(Writer(), first["id"], timeout=SECONDS)
    site.touch("web")
    site.until(lambda: [each["id"] for each in site.machines()] not in ([], [first["id"]]), "another machine")
    site.until(lambda: site.runs("web")["machine"]["id"] != first["id"], "its status to say so")
    second = site.runs("web")["machine"]
    assert (second["requestId"], site.creates()) == (f"{uid}-2", {uid: 2})


def test_a_machine_of_somebody_else_is_left_alone(site: Site) -> None:
    obj = site.create("web")
    theirs = {"name": machine_name(obj), "uid": "somebody", "cores": 1, "memory": "1Gi", "image": "theirs"}
    machine = site.cloud.create(Writer(), theirs, "theirs", timeout=SECONDS)
    site.operator()
    assert f"machine {machine['id']}, of the uid somebody" in site.fails("web")
    site.delete("web")
    site.goes("web")
    assert site.machines() == [machine]


def test_a_status_that_was_edited_by_hand_is_put_right(site: Site) -> None:
    site.operator()
    uid = site.create("web")["metadata"]["uid"]
    before = site.runs("web")["machine"]
    nonsense = {"phase": "Creating", "machine": {"name": "x", "id": "m-999", "requestId": "x"}}
    site.change("web", lambda obj: obj.update(status=nonsense), "status")
    site.until(lambda: site.runs("web")["machine"] == before, "the status to be put right")
    assert site.creates() == {uid: 1}


@pytest.mark.parametrize(
    "change",
    [{"cores": 0}, {"cores": 257}, {"memory": "4G"}, {"memory": "0Gi"}, {"image": ""}, {"image": "another"}],
    ids=repr,
)
def test_the_schema_refuses_what_makes_no_sense(
    api: Api, definition: None, namespace: str, change: dict[str, Any]
) -> None:
    spec = {"cores": 2, "memory": "4Gi", "image": "debian-13"}
    obj = {"metadata": {"name": "web", "namespace": namespace}, "spec": spec}
    kind = {"apiVersion": VIRTUAL_MACHINES.api_version, "kind": VIRTUAL_MACHINES.kind}
    made = api.create(VIRTUAL_MACHINES, {**kind, **obj})
    with pytest.raises(Invalid):
        api.replace(VIRTUAL_MACHINES, {**made, "spec": {**spec, **change}})
    api.delete(VIRTUAL_MACHINES, "web", namespace)

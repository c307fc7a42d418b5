# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VirtualMachines, the private cloud and replicas of their operator, all of them real, in one namespace."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    NAMESPACES,
    AlreadyExists,
    Api,
    ApiError,
    Conflict,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.tests.support import authority_oracle as oracle
from ansible_collections.muster.coordination.tests.support.authority_oracle import Life, Size
from ansible_collections.muster.coordination.tests.support.nursery import LABELS, Nursery, insist
from cluster.kernel import die_with_parent
from muster import cli
from muster.vm.cloud_client import CloudClient

ROOT: Final = Path(__file__).parents[2]
VMS: Final = Resource("muster.dev/v1alpha1", "virtualmachines", "VirtualMachine")
DEFINITIONS: Final = Resource(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
SERVICE_ACCOUNTS: Final = Resource("v1", "serviceaccounts", "ServiceAccount")
SHARDS: Final = 12
MEMORIES: Final = ("1Gi", "2Gi", "4Gi")
RIVAL: Final = "Rival"  # type of a condition that somebody else writes
SETTLED: Final = 180.0  # seconds: a deadline for what should take far less; a retry may come after 60


def until(true: Callable[[], Any], what: Callable[[], str], seconds: float = SETTLED) -> None:
    """Wait for it; on failure say what was waited for, and how it stands."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain: {what()}")
        time.sleep(0.05)


class Cloud:
    """The process `muster private-cloud` with its store; it can be killed, and started again as it was."""

    def __init__(self, directory: Path) -> None:
        self._store, self._log = directory / "cloud.sqlite", directory / "cloud.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self.client = CloudClient(self.url)
        self._context = multiprocessing.get_context("forkserver")
        self.up()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def up(self) -> None:
        argv = ["private-cloud", "--listen", self.address, "--store", str(self._store)]
        self._process = self._context.Process(target=_serve, args=(argv, str(self._log)), daemon=True)
        self._process.start()
        until(self._answers, lambda: f"the cloud: {self._log.read_text()[-2000:] if self._log.exists() else ''}", 60)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def switch(self, **faults: Any) -> None:
        """These faults, and no others."""
        self.client.switch(timeout=30, **faults)

    def counters(self) -> dict[str, Any]:
        """Whole: `creates` of all uids."""
        whole = self.client.counters(timeout=30)
        page = whole["creates"]
        while len(page) == 10_000:
            page = self.client.counters(timeout=30, after=max(page))["creates"]
            whole["creates"].update(page)
        return whole

    def machines(self) -> list[dict[str, Any]]:
        """All that it shows, in pages."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.client.machines(timeout=30, limit=1000, after=after)
            found += page["machines"]
            after = page["after"]
            if not after:
                return found

    def _answers(self) -> bool:
        with suppress(MusterError):
            return bool(self.counters()) or True
        return False


def _serve(argv: list[str], log: str) -> None:
    die_with_parent()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(file, number)
    sys.exit(cli.main(argv))


class Lab:
    """One namespace with a cloud of its own, and an operator of `mode` whose Leases last `seconds`."""

    def __init__(
        self,
        api: Api,
        kubeconfig: str,
        namespace: str,
        directory: Path,
        mode: str,
        *,
        seconds: int = 3,
        plant: str = "",
        patience: float = SETTLED,
    ) -> None:
        """`plant`: a bug for its processes; `patience`: how long to wait until all is settled."""
        self._patience = patience
        self.api, self.namespace, self.mode, self.seconds = api, namespace, mode, seconds
        install_definition(api)
        insist(lambda: api.get(SERVICE_ACCOUNTS, "default", namespace))  # without it there are no Pods
        self.cloud = Cloud(directory)
        argv = ["vm-operator", "run", "--kubeconfig", kubeconfig, "--namespace", namespace]
        argv += ["--watch-namespace", namespace, "--cloud", self.cloud.url, "--replicas-mode", mode]
        argv += ["--lease-seconds", str(seconds), "--listen", "127.0.0.1:0", "--workers", "4"]
        argv += ["--pod-selector", ",".join(f"{key}={value}" for key, value in LABELS.items())]
        argv += ["--shards", str(SHARDS), "--shard-by", "object"] if mode == "shard" else []
        self.nursery = Nursery(api, namespace, directory, argv, plant)
        self.ledger = Ledger()

    def list(self) -> list[dict[str, Any]]:
        """All VirtualMachines, and they are noted."""
        found: list[dict[str, Any]] = insist(lambda: self.api.list(VMS, self.namespace).items)
        self.ledger.see(found)
        return found

    def create(self, name: str, cores: int = 1, memory: str = MEMORIES[0]) -> str:
        """Its uid."""
        spec = {"cores": cores, "memory": memory, "image": "debian-13"}
        obj = {"metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        made = self.api.create(VMS, {"apiVersion": VMS.api_version, "kind": VMS.kind, **obj})
        self.ledger.see([made])
        uid: str = made["metadata"]["uid"]
        return uid

    def resize(self, obj: dict[str, Any], cores: int, memory: str) -> None:
        self.api.replace(VMS, {**obj, "spec": {**obj["spec"], "cores": cores, "memory": memory}})

    def delete(self, name: str) -> None:
        self.api.delete(VMS, name, self.namespace)

    def is_settled(self) -> bool:
        """Whether all that live are Running, as they are wanted now, and nothing is going."""
        return all(is_settled(obj) for obj in self.list())

    def settle(self) -> None:
        until(self.is_settled, lambda: f"all to be Running: {self.told()}", self._patience)

    def told(self) -> str:
        """Who is not settled, for people."""
        shown = [
            {"name": metadata["name"], "going": metadata.get("deletionTimestamp"), **obj.get("status", {})}
            for obj in self.list()
            if (metadata := obj["metadata"]) and not is_settled(obj)
        ]
        return json.dumps(shown)

    def judge(self) -> list[str]:
        """Once all is settled: what is wrong with what was made, and with what there is."""
        living = {obj["metadata"]["uid"]: size_of(obj) for obj in self.list()}
        creates = self.cloud.counters()["creates"]
        wrong = oracle.judge_creates(creates, self.ledger.ran, self.ledger.uids)
        return [*wrong, *oracle.judge_machines(self.cloud.machines(), living), *self.ledger.wrong]

    def remove_all(self) -> None:
        """Delete every object, and wait until all are gone."""
        for obj in self.list():
            insist(lambda name=obj["metadata"]["name"]: self._gone(name))
        until(lambda: not self.list(), lambda: f"all to be gone: {self.told()}", self._patience)

    def end(self) -> list[Life]:
        """End the operator; what its processes wrote down. One that ended with an error is an AssertionError."""
        lives = self.nursery.end()
        for replica in self.nursery.lives:
            assert replica.process.exitcode <= 0, f"{replica.name} failed:\n{replica.log()}"
        return lives

    def close(self) -> None:
        self.nursery.close()
        self.cloud.kill()

    def _gone(self, name: str) -> None:
        with suppress(NotFound):
            self.delete(name)


class Ledger:
    """What was seen of the objects. For several threads."""

    def __init__(self) -> None:
        self.uids: set[str] = set()
        self.ran: set[str] = set()  # those that once had a machine
        self.wrong: list[str] = []
        self._owners: dict[str, str] = {}  # of machines by id

    def see(self, objects: list[dict[str, Any]]) -> None:
        for obj in objects:
            uid, status = obj["metadata"]["uid"], obj.get("status") or {}
            self.uids.add(uid)
            machine = (status.get("machine") or {}).get("id")
            if machine:
                self.ran.add(uid)
                owner = self._owners.setdefault(machine, uid)
                if owner != uid:
                    self._note(f"R5: machine {machine} of {owner} was taken for {uid}")
            if status.get("phase") == "Failed":
                self._note(f"R1: {obj['metadata']['name']} has failed: {status.get('message')}")

    def _note(self, violation: str) -> None:
        if violation not in self.wrong:
            self.wrong.append(violation)


class Demand:
    """People who create, resize, delete and make again VirtualMachines of a few names; and a rival of the operator.

    The rival writes a condition of its own into the status, so that the operator's writes meet conflicts.
    """

    def __init__(self, lab: Lab, seed: int, *, names: int = 8, pace: float = 0.15) -> None:
        self._lab, self._dice, self._pace = lab, random.Random(seed), pace
        self._names = [f"vm-{number}" for number in range(names)]
        self._stopped = threading.Event()
        self.error: BaseException | None = None
        self.counts: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="demand", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)
        if self.error:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._stopped.wait(self._pace):
                there = {obj["metadata"]["name"]: obj for obj in self._lab.list()}
                for name in self._names:
                    with suppress(ApiError):  # whatever it was: another turn comes
                        self._turn(name, there.get(name))
        except BaseException as error:
            self.error = error

    def _turn(self, name: str, obj: dict[str, Any] | None) -> None:
        lab, dice = self._lab, self._dice
        if obj is None:
            lab.create(name, dice.randint(1, 4), dice.choice(MEMORIES))
            self.counts["created"] += 1
            return
        if obj["metadata"].get("deletionTimestamp"):
            return
        chance = dice.random()
        if chance < 0.04:  # also while it is being made
            lab.delete(name)
            self.counts["deleted"] += 1
        elif is_settled(obj) and chance < 0.25:
            lab.resize(obj, dice.randint(5, 250), dice.choice(MEMORIES))
            self.counts["resized"] += 1
        elif is_settled(obj) and chance < 0.5:
            lab.delete(name)
            self.counts["deleted"] += 1
        elif chance > 0.9:
            self._rival(obj)

    def _rival(self, obj: dict[str, Any]) -> None:
        status = obj.get("status") or {}
        others = [each for each in status.get("conditions") or [] if each["type"] != RIVAL]
        word = f"n{self._dice.randrange(10**6)}"
        condition = {"type": RIVAL, "status": "True", "reason": word, "message": "", "lastTransitionTime": _now()}
        with suppress(Conflict, NotFound):
            self._lab.api.replace(VMS, {**obj, "status": {**status, "conditions": [*others, condition]}}, "status")
            self.counts["written by a rival"] += 1


def is_settled(obj: Mapping[str, Any]) -> bool:
    metadata, status = obj["metadata"], obj.get("status") or {}
    is_running = status.get("phase") == "Running" and status.get("observedGeneration") == metadata["generation"]
    return is_running and not metadata.get("deletionTimestamp")


def size_of(obj: Mapping[str, Any]) -> Size:
    return Size(obj["spec"]["cores"], obj["spec"]["memory"])


def install_definition(api: Api) -> None:
    """The chart's custom resource definition."""
    install(api, next((ROOT / "charts/vm-operator").rglob("virtualmachines.yaml")))


def install(api: Api, path: Path) -> None:
    """The custom resource definition of this file, as it is there; ready to be used."""
    definition = yaml.safe_load(path.read_text())
    try:
        api.create(DEFINITIONS, definition)
    except AlreadyExists:
        there = api.get(DEFINITIONS, definition["metadata"]["name"])
        with suppress(Conflict):  # another test does the same
            api.replace(DEFINITIONS, {**there, "spec": definition["spec"]})

    def is_established() -> bool:
        found = api.get(DEFINITIONS, definition["metadata"]["name"])
        conditions = (found.get("status") or {}).get("conditions") or []
        return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)

    until(is_established, lambda: "the custom resource definition to be established", 60)


def make_namespace(api: Api, prefix: str) -> str:
    made = api.create(NAMESPACES, {"metadata": {"generateName": f"{prefix}-"}})
    name: str = made["metadata"]["name"]
    return name


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

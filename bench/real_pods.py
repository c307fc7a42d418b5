# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Muster's election in real Pods on a real node: the kubelet itself starts, reports and ends their containers.

On the embedded cluster of level node, whose Pods share this machine's processes and files: a container is struck from
here by its pid, and its replica writes its lines into a directory of this checkout.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    AlreadyExists,
    Api,
    NotFound,
    Object,
    Resource,
)
from bench.elections import POLL, Pace, contest
from bench.holders import api_of, make_namespace
from bench.machine import CHECKOUT, Cluster, say
from bench.replicas import CONTAINER, LABEL, Absent, System

NAMESPACE = "bench-failover"
SCRIPT = CHECKOUT / "bench" / "electors" / "ours.py"
PARALLEL = 2  # elections at a time
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
GRACE_SECONDS = 20


class PodReplica:
    """A replica that is a real Pod as a Deployment makes them: a container that ends is started again."""

    def __init__(self, api: Api, command: list[str], lease: str, name: str, log: Path) -> None:
        self.name, self._api, self._container = name, api, ""
        log.parent.chmod(0o777)  # the image's user is not the one of this machine
        self._uid = api.create(PODS, pod_object(command, lease, name, log))["metadata"]["uid"]

    def lives(self) -> bool:
        return bool(self._process())

    def terminate(self) -> tuple[float, float]:
        pid, asked = self._process(), time.monotonic()
        self._api.delete(PODS, self.name, NAMESPACE, uid=self._uid)
        deadline = asked + 2 * GRACE_SECONDS
        while Path(f"/proc/{pid}").exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the process of Pod {self.name} has not ended {2 * GRACE_SECONDS} s after SIGTERM")
            time.sleep(POLL)
        return asked, time.monotonic()

    def kill(self) -> float:
        pid, asked = self._process(), time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return asked

    def report(self) -> None:
        pass  # the kubelet does

    def remove(self) -> float:
        """Also the process that took a struck one's place meanwhile: it must not lead on for its time of grace."""
        with suppress(NotFound):
            self._api.delete(PODS, self.name, NAMESPACE, uid=self._uid)
        ended = time.monotonic()
        deadline = ended + 2 * GRACE_SECONDS
        while self._is_there():
            for pid in [pid for pid, group in _groups() if self._uid in group and _is_elector(pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    ended = time.monotonic()
            if time.monotonic() > deadline:
                raise TimeoutError(f"Pod {self.name} is still there {2 * GRACE_SECONDS} s after it was deleted")
            time.sleep(10 * POLL)
        return ended

    def _is_there(self) -> bool:
        try:
            return bool(self._api.get(PODS, self.name, NAMESPACE)["metadata"]["uid"] == self._uid)
        except NotFound:
            return False

    def _process(self) -> int:
        """The pid, on this machine, of the container that the Pod was first started with; 0 when it has ended."""
        if not self._container:
            (status,) = self._api.get(PODS, self.name, NAMESPACE)["status"]["containerStatuses"]
            self._container = status["containerID"].partition("://")[2]
        return next((pid for pid, group in _groups() if self._container in group), 0)


def _is_elector(pid: int) -> bool:
    """Not the sandbox, nor what starts a container."""
    try:
        return SCRIPT.name in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False


def _groups() -> Iterator[tuple[int, str]]:
    """Each process of this machine and its cgroup, which names the container."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), (entry / "cgroup").read_text()


def pod_object(command: list[str], lease: str, name: str, log: Path) -> Object:
    """One replica; the directory of its log is that of this machine."""
    fields = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "POD_NAMESPACE": "metadata.namespace"}
    environment: list[Object] = [
        {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}} for variable, path in fields.items()
    ]
    environment += [{"name": "CONTAINER_NAME", "value": CONTAINER}, {"name": "MUSTER_AUTHORITY_LOG", "value": str(log)}]
    container = {
        "name": CONTAINER,
        "image": f"muster:{galaxy_version()}",
        "command": command,
        "env": environment,
        "volumeMounts": [{"name": "script", "mountPath": "/bench"}, {"name": "log", "mountPath": str(log.parent)}],
    }
    volumes = [
        {"name": "script", "configMap": {"name": CONTAINER}},
        {"name": "log", "hostPath": {"path": str(log.parent)}},
    ]
    spec = {
        "serviceAccountName": CONTAINER,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [container],
        "volumes": volumes,
    }
    return {"metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: lease}}, "spec": spec}


class Node:
    """A cluster with a real kubelet, our image and what a replica needs there. Raises Absent where there is none."""

    def __init__(self, name: str) -> None:
        try:
            self._cluster = Cluster(name, "node")
        except SystemExit as error:
            raise Absent(str(error)) from error
        if self._cluster.provider() != "embedded":
            raise Absent(f"its Pods are struck from the host, which only an embedded cluster allows, not {name}")
        say(f"building the image, and loading it into cluster {name}")
        environment = {**os.environ, "MUSTER_CLUSTER_NAME": name}
        done = subprocess.run(["make", "image"], cwd=CHECKOUT, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise Absent(f"the image could not be built: {done.stderr.strip()[-500:]}")
        self.api = api_of(self._cluster.kubeconfig)
        make_namespace(self.api, NAMESPACE)
        for resource, obj in _furniture():
            with suppress(AlreadyExists):
                self.api.create(resource, obj)

    def contest(self, system: System, kind: str, rounds: int, place: Path) -> dict[str, Any]:
        """So many changes of leader of one kind."""
        pace = Pace(system.settle, 4 * system.lease + 60, 0.0)
        start = partial(self._start, system._replace(program=lambda: ["python3", "/bench/ours.py"]))
        parallel = min(PARALLEL, rounds)
        return contest(self.api, NAMESPACE, place, start, pace, kind=kind, rounds=rounds, parallel=parallel)

    def _start(self, system: System, lease: str, name: str, log: Path) -> PodReplica:
        return PodReplica(self.api, system.command("", NAMESPACE, lease, name), lease, name, log)

    def down(self) -> None:
        self.api.close()
        self._cluster.down()


def _furniture() -> list[tuple[Resource, Object]]:
    """The replicas' program, and their rights: to have Leases, and to look at Pods."""
    metadata = {"name": CONTAINER, "namespace": NAMESPACE}
    rules = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
    ]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": CONTAINER}
    subject = {"kind": "ServiceAccount", "name": CONTAINER, "namespace": NAMESPACE}
    return [
        (SERVICE_ACCOUNTS, {"metadata": metadata}),
        (ROLES, {"metadata": metadata, "rules": rules}),
        (BINDINGS, {"metadata": metadata, "roleRef": role, "subjects": [subject]}),
        (CONFIGMAPS, {"metadata": metadata, "data": {"ours.py": SCRIPT.read_text()}}),
    ]


def galaxy_version() -> str:
    """The tag of our image."""
    return str(yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"])

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systems that stand for election, and their replicas as processes of this machine.

Where a system looks at Pods, each replica has a Pod object, and what a kubelet would write into its status is written
here: that its container runs, and later that it was terminated.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import PODS, Api, NotFound, Object
from bench.machine import CHECKOUT
from cluster import toolchain
from cluster.kernel import die_with_parent

CLIENT_GO = CHECKOUT / "bench" / "electors" / "client_go"
CONTAINER = "elector"
LABEL = "bench.muster.dev/election"  # of Pods: the Lease that they stand for
END_SECONDS = 30.0


class Absent(Exception):
    """The peer cannot run here; the message says what is missing."""


class System(NamedTuple):
    """One way to elect; times in seconds, as the library names them (lease, renew deadline, retry period)."""

    name: str
    label: str
    program: Callable[[], list[str]]
    lease: float
    renew: float
    retry: float
    units: str = ""  # what stands behind a number of seconds on its command line
    ours: bool = False
    parallel: int = 20  # elections at a time

    @property
    def settle(self) -> tuple[float, float]:
        """From a replica's start to the next stroke: all have looked at the Lease, and at no phase in particular.

        Who watches has looked at once, but its kubelet's times are whole seconds; the others look every `retry`
        seconds, client-go every 1 to 2.2 times that.
        """
        return (1.0, 1.0 + self.retry) if self.ours else (1.2 * self.retry, 2.2 * self.retry)

    def command(self, kubeconfig: str, namespace: str, lease: str, identity: str) -> list[str]:
        times = {"lease": self.lease} if self.ours else {"lease": self.lease, "renew": self.renew, "retry": self.retry}
        flags = {"kubeconfig": kubeconfig, "namespace": namespace, "name": lease}
        flags |= {name: f"{seconds:g}{self.units}" for name, seconds in times.items()}
        flags |= {"selector": f"{LABEL}={lease}"} if self.ours else {"identity": identity}
        return self.program() + [part for name, value in flags.items() for part in (f"--{name}", value)]


def _module(name: str) -> Callable[[], list[str]]:
    return lambda: [sys.executable, "-m", f"bench.electors.{name}"]


def client_go() -> list[str]:
    """The program with client-go's election, built when its sources changed. Raises Absent."""
    binary = CHECKOUT / "build" / "bench" / "client_go"
    sources = [CLIENT_GO / name for name in ("main.go", "go.mod", "go.sum")]
    if binary.exists() and binary.stat().st_mtime > max(source.stat().st_mtime for source in sources):
        return [str(binary)]
    if problem := toolchain.go_problem():
        raise Absent(problem)
    binary.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    command = ["go", "build", "-trimpath", "-ldflags", "-s -w", "-o", str(binary), "."]
    done = subprocess.run(command, cwd=CLIENT_GO, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise Absent(f"it could not be built: {done.stderr.strip()[-500:]}")
    return [str(binary)]


def client_go_version() -> str:
    """As in `v0.37.0`."""
    found = re.search(r"k8s\.io/client-go (v\S+)", (CLIENT_GO / "go.mod").read_text())
    assert found, "go.mod pins it"
    return found[1]


SYSTEMS = {
    system.name: system
    for system in (
        System("muster", "Muster", _module("ours"), 6, 4, 2, ours=True, parallel=3),
        System("client-go", "client-go, its defaults (15/10/2 s)", client_go, 15, 10, 2, "s"),
        System("client-go-tuned", "client-go, tuned (6/4/1 s)", client_go, 6, 4, 1, "s"),
        System("python", "official Python client, its example (17/15/5 s)", _module("official"), 17, 15, 5),
        System("python-tuned", "official Python client, tuned (6/4/1 s)", _module("official"), 6, 4, 1),
    )
}


class ProcessReplica:
    """A replica that is a process here; with a Pod object if its system is ours."""

    def __init__(self, system: System, api: Api, kubeconfig: str, namespace: str, lease: str, name: str, log: Path):
        self.name, self._api, self._namespace, self._killed = name, api, namespace, ""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MUSTER_", "POD_"))}
        environment |= {"MUSTER_AUTHORITY_LOG": str(log), "PYTHONPATH": str(CHECKOUT)}
        self._pod: Object | None = None
        if system.ours:
            self._pod = api.create(PODS, pod_object(namespace, lease, name))
            uid = self._pod["metadata"]["uid"]
            environment |= {"POD_NAME": name, "POD_UID": uid, "POD_NAMESPACE": namespace, "CONTAINER_NAME": CONTAINER}
        with log.with_suffix(".err").open("ab") as errors:
            command = system.command(kubeconfig, namespace, lease, name)
            self.process = subprocess.Popen(
                command, env=environment, stdout=errors, stderr=errors, preexec_fn=die_with_parent
            )
        self._write_status({"running": {"startedAt": _now()}})

    def lives(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> tuple[float, float]:
        asked = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(END_SECONDS)
        return asked, time.monotonic()

    def kill(self) -> float:
        asked, self._killed = time.monotonic(), _now()
        self.process.kill()
        self.process.wait()
        return asked

    def remove(self) -> float:
        ended = self.kill()
        if self._pod:
            with suppress(NotFound):
                self._api.delete(PODS, self.name, self._namespace, uid=self._pod["metadata"]["uid"])
        return ended

    def report(self) -> None:
        ended = {"exitCode": 137, "reason": "Error", "containerID": self._container_id(), "finishedAt": self._killed}
        self._write_status({"terminated": ended})

    # ------------------------------------------------------------------------------------------ what a kubelet writes

    def _container_id(self) -> str:
        return "containerd://" + hashlib.sha256(self.name.encode()).hexdigest()

    def _write_status(self, state: Object) -> None:
        if self._pod:
            known = {"name": CONTAINER, "image": "none", "imageID": "none", "ready": False, "restartCount": 0}
            container = {**known, "containerID": self._container_id(), "state": state}
            status = {"phase": "Running", "containerStatuses": [container]}
            self._pod = self._api.replace(PODS, {**self._pod, "status": status}, "status")


def _now() -> str:
    """As a kubelet writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def pod_object(namespace: str, lease: str, name: str) -> Object:
    """A Pod that no scheduler takes: there is no node here."""
    metadata = {"name": name, "namespace": namespace, "labels": {LABEL: lease}}
    spec = {"schedulerName": "none", "terminationGracePeriodSeconds": 0}
    return {"metadata": metadata, "spec": {**spec, "containers": [{"name": CONTAINER, "image": "none"}]}}

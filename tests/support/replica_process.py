# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replicas of the controller that docs/controllers.md shows, each a process of its own, on a real kube-apiserver."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS, Api, NotFound
from ansible_collections.muster.coordination.tests.support import terms
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

DOCUMENT = Path(__file__).parents[2] / "docs/controllers.md"
NAME, WANTED, SUM = "checksums", {"example.org/checksum": "wanted"}, "example.org/sha256"
CONTAINER = "operator"
PATIENCE = 90.0  # seconds


def example() -> str:
    """The program in the documentation."""
    (found,) = re.findall(r"^```python\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


class Site:
    """One namespace in which the controller runs, and all that its replicas record."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path, *options: str) -> None:
        self.api, self.namespace, self.kubeconfig, self.directory, self.options = (
            api, namespace, kubeconfig, directory, options,
        )  # fmt: skip
        self.record = directory / "record"
        self.program = directory / "checksums.py"
        self.program.write_text(example())
        self.processes: list[Process] = []

    def start(self, name: str, *options: str, kubeconfig: str = "") -> Process:
        self.processes.append(Process(self, name, kubeconfig or self.kubeconfig, [*self.options, *options]))
        return self.processes[-1]

    def pod(self, name: str) -> str:
        """A Pod that no node takes; `says` gives it a status, as a kubelet would. Returns its uid."""
        spec = {"schedulerName": "nobody", "containers": [{"name": CONTAINER, "image": "none"}]}
        spec |= {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 0}
        obj = {"metadata": {"name": name, "namespace": self.namespace, "labels": {"app": NAME}}, "spec": spec}
        return str(self.api.create(PODS, obj)["metadata"]["uid"])

    def says(self, pod: str, phase: str, container_id: str, **state: Any) -> None:
        """The kubelet's word about the Pod's container."""
        there = self.api.get(PODS, pod, self.namespace)
        status = {"name": CONTAINER, "containerID": container_id, "image": "none", "imageID": "", "ready": False}
        whole = {"phase": phase, "containerStatuses": [{**status, "restartCount": 0, "state": state}]}
        self.api.replace(PODS, {**there, "status": whole}, "status")

    def notes(self) -> list[terms.Note]:
        return terms.read(self.record)

    def acting(self, scope: str = "") -> dict[str, terms.Note]:
        """By scope, the last term that has begun and not ended, of a process that runs."""
        dead = {process.name for process in self.processes if process.has_ended}
        found: dict[str, terms.Note] = {}
        for note in sorted(self.notes(), key=lambda note: note.at):
            if note.event == "begin":
                found[note.scope] = note
            elif found.get(note.scope, note)[1:4] == note[1:4]:
                found.pop(note.scope, None)
        return {scope: note for scope, note in found.items() if note.who.partition("_")[0] not in dead}

    def leader(self, *, other_than: str = "") -> str:
        """Wait for one, whose name is returned."""

        def names() -> list[str]:
            return [name for note in self.acting().values() if (name := note.who.partition("_")[0]) != other_than]

        until(lambda: self.all_is_well() and names(), f"a leader other than {other_than!r}", PATIENCE)
        return names()[0]

    def process(self, name: str) -> Process:
        return next(process for process in self.processes if process.name == name and not process.has_ended)

    def all_is_well(self) -> bool:
        for process in self.processes:
            process.check()
        return True

    def wants(self, name: str, text: str) -> None:
        """Make a ConfigMap whose sum is wanted, or change it."""
        metadata = {"name": name, "namespace": self.namespace, "labels": WANTED}
        try:
            there = self.api.get(CONFIGMAPS, name, self.namespace)
            self.api.patch(
                CONFIGMAPS, {"metadata": {**metadata, "uid": there["metadata"]["uid"]}, "data": {"text": text}}
            )
        except NotFound:
            self.api.create(CONFIGMAPS, {"metadata": metadata, "data": {"text": text}})

    def sums(self) -> dict[str, str | None]:
        """Of each ConfigMap that wants one, what is written."""
        ((label, value),) = WANTED.items()
        listed = self.api.list(CONFIGMAPS, self.namespace, label_selector=f"{label}={value}").items
        return {one["metadata"]["name"]: (one["metadata"].get("annotations") or {}).get(SUM) for one in listed}

    def judge(self) -> dict[str, list[terms.Interval]]:
        """No two had the same at the same time, by all that was recorded."""
        killed = {process.name: process.killed_at for process in self.processes if process.killed_at}
        found = terms.intervals(self.notes(), lambda who: killed.get(who.partition("_")[0], float("inf")))
        terms.never_overlap(found)
        return found

    def close(self) -> None:
        for process in self.processes:
            process.end()


class Process:
    """One replica; in a Pod where there is one of its name."""

    def __init__(self, site: Site, name: str, kubeconfig: str, options: list[str]) -> None:
        self.name, self.killed_at = name, 0.0
        self._log = site.directory / f"{name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MUSTER_", "POD_"))}
        environment |= {"MUSTER_AUTHORITY_LOG": str(site.record), "POD_NAMESPACE": site.namespace}
        try:
            uid = site.api.get(PODS, name, site.namespace)["metadata"]["uid"]
        except NotFound:
            uid = f"no-pod-{time.monotonic_ns()}"
        environment |= {"POD_NAME": name, "POD_UID": uid}
        if not uid.startswith("no-pod"):
            environment["CONTAINER_NAME"] = CONTAINER
        command = [sys.executable, str(site.program), "--kubeconfig", kubeconfig, "--namespace", site.namespace]
        command += ["--watch-namespace", site.namespace, "--listen", "", *options]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stderr=log, stdout=log)
        self._may_end = False

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def logged(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if message in line["message"]]

    def check(self) -> None:
        assert self._may_end or not self.has_ended, f"{self.name} ended:\n{self._log.read_text()[-3000:]}"

    def send(self, number: int) -> None:
        self._may_end = self._may_end or number in (signal.SIGTERM, signal.SIGKILL)
        self._process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait(PATIENCE)
        self.killed_at = time.monotonic()

    def end(self) -> int:
        """SIGTERM, whatever state it is in; its exit status."""
        if not self.has_ended:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        return self._process.wait(PATIENCE)


def running(started: datetime | None = None) -> dict[str, Any]:
    return {"running": {"startedAt": _text(started or datetime.now(UTC))}}


def terminated(container_id: str) -> dict[str, Any]:
    """It ends in a later second than it took the Lease: one can tell only then."""
    return {"terminated": {"exitCode": 137, "containerID": container_id, "finishedAt": _text(datetime.now(UTC))}}


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")

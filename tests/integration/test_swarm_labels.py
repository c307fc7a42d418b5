# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster swarm-operator run --mode labels`: labelled workloads and a ConfigMap with jobs, and no object of a kind of
its own. And with real workers: `muster swarm-worker`, which keep journals.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, EVENTS, NAMESPACES, Api
from ansible_collections.muster.coordination.tests.support import swarm_journal
from ansible_collections.muster.coordination.tests.support.nursery import Nursery
from ansible_collections.muster.coordination.tests.support.swarm_lab import HEAD, Lab
from ansible_collections.muster.coordination.tests.support.vm_lab import make_namespace

pytestmark = pytest.mark.integration

JOBS = "swarm-jobs"
SEED = [f"stream:{number}" for number in range(27)]

MakeSite = Callable[..., tuple[Lab, Nursery]]


@pytest.fixture
def make_site(api: Api, kubeconfig: str, tmp_path: Path) -> Iterator[MakeSite]:
    """A lab, and an operator in the mode `labels` that is to be started."""
    labs: list[Lab] = []

    def make(*options: str) -> tuple[Lab, Nursery]:
        labs.append(Lab(api, make_namespace(api, "labels")))
        return labs[-1], labs[-1].operators(tmp_path, kubeconfig, "--mode", "labels", *options)

    yield make
    for lab in labs:
        for nursery in lab.nurseries:
            nursery.end()
        lab.close()
        api.delete(NAMESPACES, lab.namespace)


def settled(lab: Lab, sizes: Sequence[int], jobs: Sequence[str], head: str = HEAD) -> dict[str, frozenset[str]]:
    """Wait until the workers have so many jobs, these all together, and run them. Who has which."""

    def is_so() -> bool:
        entries = lab.entries(head)
        runs = lab.records[head].running()
        return (
            sorted(len(entry.jobs) for entry in entries.values()) == sorted(sizes)
            and {job for entry in entries.values() for job in entry.jobs} == set(jobs)
            and all(runs.get(worker, set()) == entry.jobs for worker, entry in entries.items())
        )

    lab.until(is_so, f"workers with {sizes} jobs")
    return {worker: entry.jobs for worker, entry in lab.entries(head).items()}


def test_the_swarm_that_this_one_grew_from(make_site: MakeSite) -> None:
    """27 jobs on two workers, on three, on one; an edited list; and all of that without a kind of its own."""
    lab, nursery = make_site()
    nursery.start("operator-0")
    lab.workload("swarm-worker", 2, labels={"swarm-worker": "true"})
    lab.workload("other", 1, labels={"app": "other"})
    lab.jobs(JOBS, SEED)
    first = settled(lab, [14, 13], SEED)
    assert first.keys() == {"swarm-worker-0", "swarm-worker-1"}
    assert {entry.version for entry in lab.entries().values()} == {0}
    lab.scale("swarm-worker", 3)
    second = settled(lab, [9, 9, 9], SEED)
    assert all(second[worker] < own for worker, own in first.items())
    lab.jobs(JOBS, SEED[:-1])
    third = settled(lab, [9, 9, 8], SEED[:-1])
    assert sum(second[worker] != own for worker, own in third.items()) == 1
    lab.scale("swarm-worker", 1)
    settled(lab, [26], SEED[:-1])
    lab.api.delete(CONFIGMAPS, HEAD, lab.namespace)
    settled(lab, [26], SEED[:-1])
    assert lab.judge() == []


def test_jobs_that_make_no_sense_are_told_at_their_configmap(make_site: MakeSite) -> None:
    lab, nursery = make_site()
    nursery.start("operator-0")
    lab.workload("swarm-worker", 2, labels={"swarm-worker": ""})
    lab.jobs(JOBS, SEED)
    before = settled(lab, [14, 13], SEED)
    lab.jobs(JOBS, [*SEED, SEED[0]])

    def told() -> bool:
        about = f"involvedObject.kind=ConfigMap,involvedObject.name={JOBS}"
        listed = lab.api.list(EVENTS, lab.namespace, field_selector=about).items
        return any(event["reason"] == "Refused" and SEED[0] in event["message"] for event in listed)

    lab.until(told, "an Event about it")
    assert {worker: entry.jobs for worker, entry in lab.entries().items()} == before
    lab.jobs(JOBS, SEED[:9])
    settled(lab, [5, 4], SEED[:9])


def test_labels_and_names_are_as_they_were_told(make_site: MakeSite) -> None:
    """And a Deployment will do, and workers that don't report."""
    options = ("--watched-label", "tier in (streams)", "--jobs-configmap", "theirs", "--workers-configmap", "parts")
    lab, nursery = make_site(*options)
    operator = nursery.start("operator-0")
    lab.workload("spare", 2, kind="Deployment", head="parts", labels={"tier": "streams"})
    lab.workload("mute", 1, reports=False, head="parts", labels={"tier": "streams"})
    lab.workload("unlabelled", 1, head="parts", labels={"tier": "other", "swarm-worker": "true"})
    lab.jobs(JOBS, SEED)  # another's
    lab.jobs("theirs", SEED[:12])
    placed = settled(lab, [4, 4, 4], SEED[:12], "parts")
    assert "mute-0" in placed and "unlabelled-0" not in placed
    assert lab.page(operator, "/state")[1].keys() == {f"{lab.namespace}/theirs"}
    victim = next(worker for worker in placed if worker.startswith("spare-"))
    lab.delete_pod(victim)
    lab.until(lambda: victim not in lab.entries("parts"), "its entry to go")
    after = settled(lab, [4, 4, 4], SEED[:12], "parts")
    (successor,) = after.keys() - placed.keys()
    assert after[successor] == placed[victim]
    assert lab.judge("parts") == []


# ------------------------------------------------------------------------------------------ real workers


class Processes:
    """A process `muster swarm-worker run` for each Pod, as its container would be; the Pods know their addresses."""

    def __init__(self, lab: Lab, kubeconfig: str, directory: Path) -> None:
        self._lab, self._kubeconfig, self._directory = lab, kubeconfig, directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._addresses: dict[str, str] = {}

    @property
    def journals(self) -> Path:
        return self._directory / "journals"

    def begin(self, name: str, uid: str, address: str) -> None:
        self._addresses[uid] = address
        self.journals.mkdir(exist_ok=True)
        own = ("MUSTER_", "POD_", "KUBECONFIG", "WORKERS_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        argv = ["swarm-worker", "run", "--name", name, "--uid", uid, "--configmap", HEAD, "--listen", address]
        argv += ["--kubeconfig", self._kubeconfig, "--namespace", self._lab.namespace]
        argv += ["--journal", str(self.journals / f"{name}-{uid}"), "--beat", "0.02"]
        with (self._directory / f"{name}-{uid}.log").open("wb") as log:
            command = [sys.executable, "-m", "muster.cli", *argv]
            self._running[uid] = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=log)

    def is_ready(self, uid: str) -> bool:
        return self.page(uid, "/readyz") is not None

    def page(self, uid: str, path: str) -> dict[str, Any] | None:
        with suppress(OSError), urllib.request.urlopen(f"http://{self._addresses[uid]}{path}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
        return None

    def end(self, uid: str) -> None:
        process = self._running.pop(uid, None)
        if process is None:  # its Pod was deleted before it began
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()

    def close(self) -> None:
        for uid in list(self._running):
            self._running.pop(uid).kill()


def test_with_real_workers_no_job_runs_twice(make_site: MakeSite, kubeconfig: str, tmp_path: Path) -> None:
    lab, nursery = make_site()
    processes = Processes(lab, kubeconfig, tmp_path)
    lab.programs = processes
    nursery.start("operator-0")
    jobs = SEED[:9]

    def runs(sizes: Sequence[int]) -> None:
        """Wait until so many are said to run so many."""

        def is_so() -> bool:
            entries = lab.entries()
            if sorted(len(entry.jobs) for entry in entries.values()) != sorted(sizes):
                return False
            said = {worker: processes.page(lab.pods[worker]["metadata"]["uid"], "/config") for worker in entries}
            return all((said[worker] or {}).get("version") == entry.version for worker, entry in entries.items())

        lab.until(is_so, f"workers that run {sizes}")

    try:
        lab.jobs(JOBS, jobs)
        lab.workload("swarm-worker", 2, labels={"swarm-worker": "true"})
        runs([5, 4])
        lab.scale("swarm-worker", 3)
        runs([3, 3, 3])
        lab.delete_pod("swarm-worker-1")  # it comes back, and meanwhile
        lab.scale("swarm-worker", 1)
        runs([9])
    finally:
        processes.close()
    report = swarm_journal.judge([processes.journals], jobs=jobs)
    assert report["overlaps"] == 0, json.dumps(report["overlapping"][:3])
    assert report["jobs"] == 9 and report["unreadable"] == 0
    assert report["workers"].keys() == {f"swarm-worker-{number}" for number in range(3)}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster swarm-worker` as real processes at a real API server: what an operator, and who runs it, see of it."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS, Api, NotFound, Resource
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    PART_OF,
    Entry,
    Part,
    part_name,
    render,
)
from ansible_collections.muster.coordination.tests.support.fault_proxy import FaultProxy
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab, until
from ansible_collections.muster.coordination.tests.support.swarm_journal import Line, intervals, judge, lines

pytestmark = pytest.mark.integration

HEAD = "swarm-worker-config"
APPLIED = "muster.dev/applied-version"
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")

# A job that says its pid, and ends by SIGTERM; if it is called stubborn, not before it may.
JOB = """
import os, pathlib, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
directory, job = pathlib.Path(sys.argv[1]), sys.argv[2]
(directory / f"{job}.{os.getpid()}").touch()
while not asked or job.startswith("stubborn") and not (directory / f"{job}.may-end").exists():
    time.sleep(0.01)
"""


class Process:
    """A running worker, its log and its pages."""

    def __init__(self, bench: Bench, name: str, *arguments: str, uid: str, **variables: str) -> None:
        own = ("MUSTER_", "POD_", "WORKERS_", "KUBECONFIG")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        environment |= {"KUBECONFIG": bench.kubeconfig, "MUSTER_NAMESPACE": bench.namespace}
        environment |= {"POD_NAME": name, "POD_UID": uid, "MUSTER_LISTEN": "127.0.0.1:0"}
        self.name, self.log_path = name, bench.directory / f"{len(bench.processes)}.log"
        with self.log_path.open("w") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "muster.cli", "swarm-worker", "run", *arguments],
                env={**environment, **variables},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def ask(self, path: str) -> tuple[int, Any]:
        found: list[re.Match[str]] = []
        self._until(lambda: found.extend(re.finditer(r'"port": (\d+)', self.log)) or found, "its port")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{found[0][1]}{path}", timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    @property
    def config(self) -> dict[str, Any]:
        return self.ask("/config")[1]

    def runs(self, version: int | None) -> dict[str, Any]:
        """Wait until it says this version; what it says then."""
        found: dict[str, Any] = {}

        def look() -> bool:
            found.update(self.config)
            return bool(found["version"] == version)

        self._until(look, f"version {version}")
        return found

    def sees(self, **expected: Any) -> None:
        """Wait until its page says so."""
        self._until(lambda: expected.items() <= self.config.items(), str(expected))

    def says(self, words: str) -> None:
        self._until(lambda: re.search(words, self.log), f"the log to say {words!r}")

    def tells_at_its_pod(self, true: Callable[[], bool]) -> None:
        self._until(true, "the annotation")

    def ends(self, number: int = signal.SIGTERM) -> int:
        self.popen.send_signal(number)
        try:
            return self.popen.wait(30)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended; its log:\n{self.log}") from None

    def _until(self, true: Callable[[], Any], what: str) -> None:
        def look() -> Any:
            if self.popen.poll() is not None:
                raise AssertionError(f"it ended with {self.popen.returncode} before {what}; its log:\n{self.log}")
            return true()

        try:
            until(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log}") from None


class Bench:
    """A namespace with the workers' ConfigMaps, and the workers started at it."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path) -> None:
        self.api, self.namespace, self.kubeconfig, self.directory = api, namespace, kubeconfig, directory
        self.journals, self.marks = directory / "journals", directory / "marks"
        self.journals.mkdir()
        self.marks.mkdir()
        self.processes: list[Process] = []

    def start(self, name: str, *arguments: str, uid: str = "u", **variables: str) -> Process:
        journal = ("--journal", str(self.journals / name), "--beat", "0.05")
        source = () if "--config" in arguments else ("--configmap", HEAD)
        process = Process(self, name, *source, *journal, *arguments, uid=uid, **variables)
        self.processes.append(process)
        return process

    def command(self) -> tuple[str, str]:
        """Options for jobs that are real processes."""
        script = self.directory / "job.py"
        script.write_text(JOB)
        return "--exec", f"{sys.executable} -I -S {script} {self.marks} {{job}}"

    def write(self, entries: Mapping[str, tuple[str, int]], number: int = 0) -> None:
        """The part of this number; of each worker its jobs, in one text with blanks, and the version."""
        part = Part({name: Entry(tuple(jobs.split()), version) for name, (jobs, version) in entries.items()})
        self.write_text(render(part), number)

    def write_text(self, data: Mapping[str, str], number: int = 0) -> None:
        name = part_name(HEAD, number)
        try:
            found = self.api.get(CONFIGMAPS, name, self.namespace)
        except NotFound:
            metadata = {"name": name, "namespace": self.namespace, "labels": {PART_OF: HEAD}}
            self.api.create(CONFIGMAPS, {"metadata": metadata, "data": dict(data)})
        else:
            self.api.replace(CONFIGMAPS, {**found, "data": dict(data)})

    def remove(self, number: int = 0) -> None:
        self.api.delete(CONFIGMAPS, part_name(HEAD, number), self.namespace)

    def pids(self, job: str) -> list[int]:
        """Those that the job ever had."""
        return [int(path.suffix[1:]) for path in self.marks.glob(f"{job}.[0-9]*")]

    def alive(self, job: str) -> list[int]:
        return [pid for pid in self.pids(job) if _is_alive(pid)]

    def allow_end(self, job: str) -> None:
        (self.marks / f"{job}.may-end").touch()

    def judge(self) -> dict[str, Any]:
        return judge([self.journals])

    def told(self, name: str) -> list[Line]:
        found = list(lines(self.journals / name))
        assert all(isinstance(line, Line) for line in found)
        return [line for line in found if isinstance(line, Line)]

    def begins(self, name: str) -> dict[str, int]:
        """How often each job was begun by this worker."""
        return {job: len(had) for job, had in intervals(self.told(name)).items()}


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def bench(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(api, namespace, kubeconfig, tmp_path)
    yield bench
    for process in bench.processes:
        process.popen.kill()
        process.popen.wait()


# ------------------------------------------------------------------------------------------ a change of the list


def test_a_change_is_told_only_when_what_was_let_go_has_ended(bench: Bench) -> None:
    bench.write({"w-0": ("stubborn quick kept", 1), "w-1": ("other", 7)})
    worker = bench.start("w-0", *bench.command(), "--stop-seconds", "3600")
    expected = {"worker": "w-0", "uid": "u", "version": 1, "jobs": ["kept", "quick", "stubborn"]}
    assert expected.items() <= worker.runs(1).items()
    until(lambda: all(bench.alive(job) for job in expected["jobs"]), "its jobs")

    bench.write({"w-0": ("kept new", 2)})
    worker.sees(version=1, wanted=2, jobs=["kept", "new", "stubborn"])
    until(lambda: bench.alive("new"), "the new job, which waits for nobody")
    assert bench.alive("stubborn") and not bench.alive("quick")
    bench.allow_end("stubborn")
    assert worker.runs(2)["jobs"] == ["kept", "new"]
    assert not bench.alive("stubborn") and not bench.alive("other")

    assert worker.ends() == 0
    assert not any(bench.alive(job) for job in ("kept", "new"))
    report = bench.judge()
    assert (report["overlaps"], report["unreadable"], bench.begins("w-0")["kept"]) == (0, 0, 1)
    assert all(each.is_ended for had in intervals(bench.told("w-0")).values() for each in had)


def test_a_job_that_does_not_end_is_killed(bench: Bench) -> None:
    bench.write({"w-0": ("stubborn", 1)})
    worker = bench.start("w-0", *bench.command(), "--stop-seconds", "0.2")
    worker.runs(1)
    until(lambda: bench.alive("stubborn"), "the job")
    bench.write({"w-0": ("", 2)})
    assert worker.runs(2)["jobs"] == []
    assert not bench.alive("stubborn")


def test_a_list_that_moves_into_a_further_configmap_is_never_missed(bench: Bench) -> None:
    bench.write({"w-0": ("a b", 1)})
    worker = bench.start("w-0")
    worker.runs(1)
    homes = itertools.cycle([1, 2, 0])
    for version in range(2, 20):
        bench.write({"w-0": (f"a {version}", version)}, next(homes))
        worker.runs(version)
    bench.remove(2)
    bench.write({}, 1)
    bench.write({"w-0": ("a 20", 20)})
    worker.runs(20)
    assert bench.begins("w-0")["a"] == 1


def test_who_is_in_no_list_any_more_has_no_jobs(bench: Bench) -> None:
    bench.write({"w-0": ("a", 1)})
    worker = bench.start("w-0")
    worker.runs(1)
    bench.write({"w-1": ("a", 1)})
    assert worker.runs(None)["jobs"] == []
    bench.write({"w-0": ("b", 2)})
    assert worker.runs(2)["jobs"] == ["b"]


# ------------------------------------------------------------------------------------------ killed and stopped


def test_killed_it_takes_its_jobs_with_it_and_begins_anew(bench: Bench) -> None:
    bench.write({"w-0": ("stubborn a", 1)})
    for _time in range(3):
        worker = bench.start("w-0", *bench.command())
        worker.runs(1)
        until(lambda: bench.alive("stubborn") and bench.alive("a"), "its jobs")
        worker.ends(signal.SIGKILL)
        until(lambda: not bench.alive("stubborn") and not bench.alive("a"), "the end of its jobs")
    report = bench.judge()
    assert (report["overlaps"], report["workers"]["w-0"]["restarts"]) == (0, 2)
    assert not any(each.is_ended for had in intervals(bench.told("w-0")).values() for each in had)


def test_stopped_and_continued_it_just_goes_on(bench: Bench) -> None:
    bench.write({"w-0": ("a b", 1)})
    worker = bench.start("w-0", *bench.command())
    worker.runs(1)
    until(lambda: bench.alive("a"), "its job")
    worker.popen.send_signal(signal.SIGSTOP)
    before = bench.alive("a")
    bench.write({"w-0": ("a c", 2)})
    assert bench.alive("a") == before
    worker.popen.send_signal(signal.SIGCONT)
    assert worker.runs(2)["jobs"] == ["a", "c"]
    assert bench.alive("a") == before and not bench.alive("b")
    assert bench.judge()["overlaps"] == 0


# ------------------------------------------------------------------------------------------ what it refuses


def test_an_older_version_is_not_taken(bench: Bench) -> None:
    bench.write({"w-0": ("a", 3)})
    worker = bench.start("w-0")
    worker.runs(3)
    bench.write({"w-0": ("b", 2)})
    worker.sees(trouble="version 2 is older than 3, which was seen before: it is not taken")
    assert (worker.config["version"], worker.config["jobs"]) == (3, ["a"])
    bench.write({"w-0": ("b", 4)})
    worker.runs(4)
    worker.sees(trouble=None, jobs=["b"])
    assert worker.log.count("is older than") == 1


@pytest.mark.parametrize("text", ["workloads: [", "workloads: {w-0: {jobs: [1], version: 2}}", "workloads: {w-0: 7}"])
def test_a_malformed_document_changes_nothing(bench: Bench, text: str) -> None:
    bench.write({"w-0": ("a", 1)})
    worker = bench.start("w-0")
    worker.runs(1)
    assert worker.ask("/readyz") == (200, {"ready": True, "trouble": None})
    bench.write_text({"config.yml": text})
    worker.says("goes on with what it has")
    status, page = worker.ask("/readyz")
    assert (status, page["ready"]) == (503, False)
    assert page["trouble"].startswith(f"ConfigMap {bench.namespace}/{HEAD}: config.yml")
    assert (worker.config["version"], worker.config["jobs"]) == (1, ["a"])
    bench.write({"w-0": ("b", 2)})
    worker.runs(2)
    assert worker.ask("/readyz") == (200, {"ready": True, "trouble": None})


# ------------------------------------------------------------------------------------------ without this and that


def test_without_an_operator_a_person_writes_the_list(bench: Bench) -> None:
    worker = bench.start("w-0")
    worker.sees(version=None, jobs=[], trouble=f"there is no ConfigMap {bench.namespace}/{HEAD}")
    assert worker.ask("/readyz")[0] == 200
    bench.write_text({"config.yml": "workloads:\n  w-0:\n    jobs: [a]\n"})  # versions are for operators
    worker.runs(0)
    bench.write_text({"config.yml": "workloads:\n  w-0:\n    jobs: [b]\n"})
    worker.sees(version=0, jobs=["b"])
    bench.remove()
    worker.sees(version=0, jobs=["b"], trouble=f"there is no ConfigMap {bench.namespace}/{HEAD}")
    assert worker.ask("/readyz")[0] == 503
    bench.write({"w-0": ("b", 1)})
    worker.runs(1)
    assert bench.begins("w-0") == {"a": 1, "b": 1}


def test_without_the_api_server_what_runs_runs_on(bench: Bench, tmp_path: Path) -> None:
    bench.write({"w-0": ("a", 1)})
    with FaultProxy(Credentials.load({"kubeconfig": bench.kubeconfig})) as proxy:
        worker = bench.start("w-0", KUBECONFIG=str(proxy.write_kubeconfig(tmp_path / "through-proxy")))
        worker.runs(1)
        proxy.down()
        worker.says("goes on with what it has")
        assert (worker.config["version"], worker.ask("/readyz")[0]) == (1, 200)
        bench.write({"w-0": ("b", 2)})
        proxy.up()
        worker.runs(2)
        worker.sees(trouble=None)
    assert bench.begins("w-0") == {"a": 1, "b": 1}


def test_without_the_right_to_list_it_goes_by_the_name(bench: Bench, tmp_path: Path) -> None:
    rule = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [HEAD], "verbs": ["get", "list", "watch"]}
    metadata = {"name": "by-name", "namespace": bench.namespace}
    group = "rbac.authorization.k8s.io"
    bench.api.create(ROLES, {"metadata": metadata, "rules": [rule]})
    subject = {"kind": "User", "apiGroup": group, "name": "by-name"}
    role = {"kind": "Role", "apiGroup": group, "name": "by-name"}
    bench.api.create(BINDINGS, {"metadata": metadata, "roleRef": role, "subjects": [subject]})
    document = yaml.safe_load(Path(bench.kubeconfig).read_text())
    for user in document["users"]:
        user["user"]["as"] = "by-name"
    (tmp_path / "limited").write_text(yaml.safe_dump(document))
    bench.write({"w-0": ("a", 1)})

    worker = bench.start("w-0", KUBECONFIG=str(tmp_path / "limited"))
    worker.runs(1)
    bench.write({"w-0": ("b", 2)})
    worker.runs(2)
    worker.sees(trouble=None)
    worker.says("only the ConfigMap itself is followed: others can't be listed")
    bench.write({"w-1": ("b", 2)})
    worker.runs(None)
    assert "may be in a further ConfigMap, and those can't be listed" in worker.config["trouble"]


# ------------------------------------------------------------------------------------------ told by annotation


def test_the_version_stands_at_the_pod(bench: Bench, tmp_path: Path) -> None:
    def annotation() -> str | None:
        found = bench.api.get(PODS, "w-0", bench.namespace)["metadata"].get("annotations") or {}
        return found.get(APPLIED)

    def mounted(version: int) -> None:
        path.with_suffix(".tmp").write_text(f"workloads: {{w-0: {{jobs: [a], version: {version}}}}}")
        path.with_suffix(".tmp").rename(path)

    uid, path = Lab(bench.api, bench.namespace).pod("w-0"), tmp_path / "config.yml"
    mounted(5)
    worker = bench.start("w-0", "--annotate", "--listen", "", "--config", str(path), uid=uid)
    worker.tells_at_its_pod(lambda: annotation() == f"{uid}:5")
    worker.ends(signal.SIGKILL)

    mounted(4)  # what the next container sees is old: what it was told to let go in 5 may run elsewhere
    worker = bench.start("w-0", "--annotate", "--config", str(path), uid=uid)
    worker.sees(version=None, jobs=[], trouble="version 4 is older than 5, which was seen before: it is not taken")
    mounted(6)
    worker.runs(6)
    worker.tells_at_its_pod(lambda: annotation() == f"{uid}:6")


# ------------------------------------------------------------------------------------------ many of them


class Operator:
    """Moves jobs as an operator does: revoke, wait until that is confirmed, assign."""

    def __init__(self, bench: Bench, jobs: int, workers: int) -> None:
        self.bench = bench
        self.workers = {f"w-{number}": bench.start(f"w-{number}") for number in range(workers)}
        names = list(self.workers)
        self.lists = {name: {f"job-{n}" for n in range(jobs) if n % workers == names.index(name)} for name in names}
        self.versions = dict.fromkeys(names, 1)
        self.kills = 0
        self.write()

    def write(self) -> None:
        self.bench.write({name: (" ".join(sorted(jobs)), self.versions[name]) for name, jobs in self.lists.items()})

    def confirmed(self) -> None:
        for name, worker in self.workers.items():
            found = worker.runs(self.versions[name])
            assert set(found["jobs"]) == self.lists[name], name

    def move(self, dice: random.Random) -> None:
        giver, taker = dice.sample(list(self.workers), 2)
        moved = set(dice.sample(sorted(self.lists[giver]), min(200, len(self.lists[giver]))))
        self.lists[giver] -= moved
        self.versions[giver] += 1
        self.write()
        if dice.random() < 0.5:
            self.restart(dice.choice(list(self.workers)))
        self.workers[giver].runs(self.versions[giver])
        self.lists[taker] |= moved
        self.versions[taker] += 1
        self.write()

    def restart(self, name: str) -> None:
        self.kills += 1
        self.workers[name].ends(signal.SIGKILL)
        self.workers[name] = self.bench.start(name)


def test_a_thousand_jobs_move_between_workers_that_are_killed_and_none_runs_twice(bench: Bench) -> None:
    operator, dice = Operator(bench, 1000, 3), random.Random(6)
    operator.confirmed()
    for _round in range(12):
        operator.move(dice)
    operator.confirmed()
    for worker in operator.workers.values():
        assert worker.ends() == 0
    report = bench.judge()
    assert (report["overlaps"], report["unreadable"], report["jobs"]) == (0, 0, 1000)
    restarts = sum(each["restarts"] for each in report["workers"].values())
    assert 0 < restarts <= operator.kills, "who is killed before its first job leaves no trace"

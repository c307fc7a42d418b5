# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""swarm_rebalance, swarm_info and `muster swarm` as users run them, against a real API server.

The Pods are made, and made again, by the real controller of StatefulSets. No node runs them: a thread says of each that
it is ready, and tells by its annotation the version that it was given.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    STATEFUL_SETS,
    AlreadyExists,
    Api,
    ApiError,
    Conflict,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import swarm, swarm_pool, swarm_status
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm_info, swarm_modules

pytestmark = pytest.mark.integration

Object = dict[str, Any]
ROOT = Path(__file__).parents[2]
DEFINITIONS = Resource(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
LONG = 120.0  # seconds: a deadline for what takes a moment
HUNG = "hung"  # a ConfigMap: its keys are workers that go on with what they have
HEAD = "swarm-worker-config"


class Kubelet:
    """Has every Pod of a namespace become ready, and those that report tell the version that they were given."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._stop = threading.Event()
        self._inbox: queue.SimpleQueue[str] = queue.SimpleQueue()
        for kind in (PODS, CONFIGMAPS):
            threading.Thread(target=self._follow, args=(kind,), daemon=True).start()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._inbox.put("")
        self._thread.join(30)

    def _follow(self, kind: Resource) -> None:
        for _change in self._api.follow(kind, self._namespace, stop=self._stop):
            self._inbox.put(kind.plural)

    def _run(self) -> None:
        while self._inbox.get() and not self._stop.is_set():
            with suppress(ApiError):  # the namespace may be on its way out, and who was faster is told next
                self._look()

    def _look(self) -> None:
        maps = {obj["metadata"]["name"]: obj.get("data") or {} for obj in self._list(CONFIGMAPS)}
        versions: dict[str, int] = {}
        for data in maps.values():
            with suppress(yaml.YAMLError, AttributeError, KeyError, TypeError):
                for worker, entry in yaml.safe_load(data["config.yml"])["workloads"].items():
                    versions[worker] = max(entry["version"], versions.get(worker, -1))
        for pod in self._list(PODS):
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            if not swarm_pool.read_pod(pod).is_ready:
                ready = {"type": "Ready", "status": "True"}
                told = {**(pod.get("status") or {}), "phase": "Running", "podIP": "127.0.0.9", "conditions": [ready]}
                with suppress(Conflict, NotFound):
                    self._api.replace(PODS, {**pod, "status": told}, "status")
            notes = pod["metadata"].get("annotations") or {}
            says = f"{uid}:{versions.get(name)}"
            is_told = name in versions and name not in maps.get(HUNG, {})
            if is_told and notes.get(swarm_pool.APPLIED, says) != says:
                mark = {"name": name, "namespace": self._namespace, "uid": uid}
                with suppress(Conflict, NotFound):
                    self._api.patch(PODS, {"metadata": {**mark, "annotations": {swarm_pool.APPLIED: says}}})

    def _list(self, kind: Resource) -> list[Object]:
        return self._api.list(kind, self._namespace).items


class Stage:
    """A namespace with workers."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str) -> None:
        self.api, self.namespace = api, namespace
        self.kubeconfig = str(Path(kubeconfig).resolve())
        self._running: list[subprocess.Popen[str]] = []

    def stateful_set(self, replicas: int, name: str = "w", **annotations: str) -> None:
        pod = {
            "schedulerName": "nobody",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [{"name": "worker", "image": "none"}],
        }
        notes = annotations or {swarm_pool.APPLIED: ""}
        template = {"metadata": {"labels": {"app": name}, "annotations": notes}, "spec": pod}
        spec: Object = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "serviceName": name}
        labels = {"app": name, "swarm-worker": "true"}
        metadata = {"name": name, "namespace": self.namespace, "labels": labels}
        spec |= {"podManagementPolicy": "Parallel", "template": template}
        self.api.create(STATEFUL_SETS, {"metadata": metadata, "spec": spec})

    def scale(self, replicas: int, name: str = "w") -> None:
        scale = self.api.get(STATEFUL_SETS, name, self.namespace, "scale")
        scale["spec"]["replicas"] = replicas
        self.api.replace(STATEFUL_SETS, scale, "scale")

    def ready(self, replicas: int, name: str = "w") -> None:
        """Wait until its controller says so."""
        deadline = time.monotonic() + LONG
        for _change in self.api.follow(STATEFUL_SETS, self.namespace, name=name, watch_timeout=5):
            status = self.api.get(STATEFUL_SETS, name, self.namespace).get("status") or {}
            if status.get("readyReplicas", 0) == replicas == status.get("replicas", 0):
                return
            assert time.monotonic() < deadline, status

    def configmap(self, name: str, data: dict[str, str], **annotations: str) -> None:
        metadata = {"name": name, "namespace": self.namespace, "annotations": annotations}
        self.api.create(CONFIGMAPS, {"metadata": metadata, "data": data})

    def data(self, name: str = HEAD) -> dict[str, str]:
        found: dict[str, str] = self.api.get(CONFIGMAPS, name, self.namespace)["data"]
        return found

    def rebalance(self, jobs: str, **options: Any) -> dict[str, Any]:
        return swarm_modules.rebalance(self.api, namespace=self.namespace, jobs=list(jobs), **options)

    def muster(self, *arguments: str) -> subprocess.Popen[str]:
        own = ("MUSTER_", "KUBECONFIG")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.cli", "swarm", *arguments],
            env={**environment, "KUBECONFIG": self.kubeconfig},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def says(self, *arguments: str, status: int = 0) -> str:
        """What a command says, on both outputs."""
        process = self.muster(*arguments, "-n", self.namespace)
        out, err = process.communicate(timeout=LONG)
        assert process.returncode == status, out + err
        return out + err

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.communicate()


@pytest.fixture
def stage(api: Api, namespace: str, kubeconfig: str) -> Iterator[Stage]:
    stage, kubelet = Stage(api, namespace, kubeconfig), Kubelet(api, namespace)
    yield stage
    kubelet.close()
    stage.close()


@pytest.fixture
def kind(api: Api) -> None:
    """The cluster knows Swarms."""
    definition = yaml.safe_load((ROOT / "kustomize/swarm-operator/base/swarms.yaml").read_text())
    with suppress(AlreadyExists):
        api.create(DEFINITIONS, definition)
    deadline = time.monotonic() + LONG
    for _change in api.follow(DEFINITIONS, name=definition["metadata"]["name"], watch_timeout=5):
        found = api.get(DEFINITIONS, definition["metadata"]["name"])
        if any(one["type"] == "Established" and one["status"] == "True" for one in found["status"]["conditions"]):
            return
        assert time.monotonic() < deadline, found["status"]


def test_the_modules(stage: Stage) -> None:
    stage.stateful_set(2)
    stage.stateful_set(2, "quiet", **{"muster.dev/test": "these do not report"})
    stage.configmap("quiet-config", {"config.yml": "owner: video\n", "other": "kept"}, team="video")
    stage.configmap("streams", {"jobs.yml": "jobs: [e, {name: f, weight: 1}]"})
    stage.configmap("odd-config", {"config.yml": "workloads: {w-0: [a]}"})
    values = {
        "kubeconfig": stage.kubeconfig,
        "test_namespace": stage.namespace,
        "ansible_python_interpreter": sys.executable,
    }
    playbook = Path(__file__).with_suffix(".yml")
    run = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            *("-i", "localhost,", "-c", "local", "-e", json.dumps(values), str(playbook)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"},
    )
    assert run.returncode == 0, run.stdout
    assert stage.data("odd-config") == {"config.yml": "workloads: {w-0: [a]}"}
    assert yaml.safe_load(stage.data("quiet-config")["config.yml"])["owner"] == "video"
    assert stage.data("quiet-config")["other"] == "kept"
    assert stage.api.get(CONFIGMAPS, "quiet-config", stage.namespace)["metadata"]["annotations"]["team"] == "video"


def test_a_pod_that_is_scaled_away_is_seen_to_end(stage: Stage) -> None:
    """Nobody waits for LINGER_SECONDS: the wait would be in vain."""
    stage.stateful_set(3)
    assert stage.rebalance("abcdef", wait=True, wait_timeout=LONG)["converged"]
    stage.configmap(HUNG, {"w-2": ""})

    def scale() -> None:
        for change in stage.api.follow(CONFIGMAPS, stage.namespace, name=HEAD, stop=stop, watch_timeout=5):
            if "w-2" in str(change) and "leaving" in str(change):
                stage.scale(2)
                return

    stop = threading.Event()
    scaling = threading.Thread(target=scale, daemon=True)
    scaling.start()
    # with one job less w-2 is the one that has to let go: it hangs, and then its Pod is gone
    with_two = {"capacity": 4, "linger_seconds": 3600.0, "wait_timeout": LONG, "wait": True}
    try:
        done = stage.rebalance("abcde", **with_two)
    finally:
        stop.set()
        scaling.join(30)
    assert done["converged"] and sorted(done["assignment"]) == ["w-0", "w-1"]
    assert sorted(job for entry in done["after"].values() for job in entry["jobs"]) == list("abcde")


def test_the_rights_that_the_documentation_names_are_enough(stage: Stage) -> None:
    """By an identity that has them and no others; without the right to watch."""
    stage.stateful_set(1, "quiet", **{"muster.dev/test": "it does not report"})
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "update"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": ["apps"], "resources": ["statefulsets", "deployments"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
    ]
    at = {"name": "rebalance", "namespace": stage.namespace}
    stage.api.create(ROLES, {"metadata": at, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "rebalance"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}
    stage.api.create(BINDINGS, {"metadata": at, "roleRef": reference, "subjects": [subject]})
    stage.ready(1, "quiet")
    mine = Api(Credentials.load({"kubeconfig": stage.kubeconfig, "impersonate_user": "somebody"}))
    try:
        done = swarm_modules.rebalance(
            mine,
            namespace=stage.namespace,
            jobs=["a"],
            wait=True,
            wait_timeout=LONG,
            linger_seconds=1.0,
        )
    finally:
        mine.close()
    assert done["converged"] and done["evicted"] == ["quiet-0"]


# ------------------------------------------------------------------------------------------ Swarms


class Operator:
    """As the operator: turns, and what the status tells of them."""

    def __init__(self, stage: Stage, **spec: Any) -> None:
        self._stage = stage
        metadata = {"name": "main", "namespace": stage.namespace}
        jobs = [{"name": job} for job in "abcd"]
        obj = {"apiVersion": verbs.SWARMS.api_version, "kind": "Swarm", "metadata": metadata}
        self._obj = stage.api.create(verbs.SWARMS, {**obj, "spec": {"jobs": jobs, **spec}})
        self._spec, self._memory = swarm.parse_spec(self._obj["spec"]), verbs.Memory()

    def turn(self) -> verbs.Turn:
        jobs, sources = verbs.read_jobs(self._stage.api, self._stage.namespace, self._spec)
        at = {"manager": "Swarm/main", "ask": lambda _pods: {}, "now": "2026-01-31T12:00:00Z"}
        done = verbs.turn(self._stage.api, self._stage.namespace, self._spec, jobs, self._memory, **at)
        there = self._stage.api.get(verbs.SWARMS, "main", self._stage.namespace)
        said = swarm_status.status(
            there.get("status") or {}, 1, done.step, now="2026-01-31T12:00:00Z", sources=sources, parts=done.parts
        )
        self._stage.api.replace(verbs.SWARMS, {**there, "status": said}, "status")
        return done

    def settle(self) -> None:
        deadline = time.monotonic() + LONG
        for _change in self._stage.api.follow(PODS, self._stage.namespace, watch_timeout=5):
            done = self.turn()
            while done.wrote:
                done = self.turn()
            if done.step.is_converged:
                return
            assert time.monotonic() < deadline, done.step.waits


def info(stage: Stage, **asked: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = swarm_info.info(stage.api, namespace=stage.namespace, **asked)["swarms"]
    return found


@pytest.mark.usefixtures("kind")
def test_a_swarm_told_explained_and_refused(stage: Stage) -> None:
    stage.stateful_set(2)
    operator = Operator(stage)
    operator.settle()
    (one,) = info(stage, job="c")
    assert (one["name"], one["converged"], one["error"]) == ("main", True, None)
    assert [(worker["jobs"], worker["applied"]) for worker in one["workers"]] == [(["a", "b"], 0), (["c", "d"], 0)]
    assert one["status"]["placed"] == 4 and one["explanation"]["worker"] == "w-1"
    assert "c stays on w-1" in stage.says("explain", "main", "c")
    assert json.loads(stage.says("explain", "main", "c", "-o", "json"))["state"] == "placed"
    assert "main has no job z" in stage.says("explain", "main", "z", status=1)
    assert "there is no Swarm other" in stage.says("explain", "other", "c", status=1)
    text = stage.says("status")
    assert text.startswith(f"Swarm {stage.namespace}/main  4 jobs on 2 workers, converged")
    assert text.count("Converged") == 2 and "0 moved (fewest: 0)" in text
    assert json.loads(stage.says("status", "main", "-o", "json"))[0]["workers"][1]["name"] == "w-1"
    assert "there is no Swarm other" in stage.says("status", "other", status=1)
    with pytest.raises(Exception, match="Swarm/main keeps this ConfigMap"):
        stage.rebalance("abcd")


@pytest.mark.usefixtures("kind")
def test_watch_tells_of_each_step(stage: Stage) -> None:
    stage.stateful_set(2)
    operator = Operator(stage)
    operator.settle()
    stage.configmap(HUNG, {"w-1": ""})
    process = stage.muster("status", "main", "--watch", "-o", "json", "-n", stage.namespace)
    assert process.stdout is not None
    states = (json.loads(line)["swarms"][0] for line in process.stdout)
    assert next(states)["converged"]
    stage.scale(3)
    stage.ready(3)
    operator.turn()
    while not operator.turn().step.waits:
        continue
    waiting = next(state for state in states if not state["converged"])
    assert waiting["waits_for"]["worker"] == "w-1"
    stage.api.delete(CONFIGMAPS, HUNG, stage.namespace)
    operator.settle()
    done = next(state for state in states if state["converged"])
    assert [worker["jobs"] for worker in done["workers"]] == [2, 1, 1]
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONG) == 0


def test_a_cluster_that_does_not_know_swarms(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind may be there for other tests; a version of it that never was is not."""
    monkeypatch.setattr(verbs, "SWARMS", verbs.SWARMS._replace(api_version="muster.dev/v0"))
    assert info(stage) == []
    stage.stateful_set(1)
    stage.rebalance("ab", wait=True, wait_timeout=LONG)
    assert [(one["config_map"], one["manager"], one["converged"]) for one in info(stage)] == [(HEAD, "ansible", True)]


def test_status_and_explanation_of_a_configmap_without_a_swarm(stage: Stage) -> None:
    stage.stateful_set(1)
    stage.rebalance("ab", wait=True, wait_timeout=LONG)
    text = stage.says("status")
    assert text.startswith(f"ConfigMap {stage.namespace}/{HEAD}  2 jobs on 1 worker, converged, kept by ansible")
    assert stage.says("status", HEAD).splitlines()[0] == text.splitlines()[0]
    assert "a: w-0 has it in its list" in stage.says("explain", HEAD, "a")
    assert "has no job z" in stage.says("explain", HEAD, "z", status=1)

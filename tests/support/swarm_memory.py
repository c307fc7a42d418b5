# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A pool of workers in an API server in memory, with the hand of their controllers, and workers that obey.

Nothing happens by itself but that workers which report by HTTP run, the moment they are asked, what the ConfigMap says;
`hung` ones stay where they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    PODS,
    STATEFUL_SETS,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import swarm_pool, worker_config
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

Object = dict[str, Any]
HEAD = "swarm-worker-config"
REPORTS = {swarm_pool.PORT: "8390"}


class SwarmApi(MemoryApi):
    """An API server in memory with workers in its namespace `ns`."""

    def __init__(self) -> None:
        super().__init__()
        self.hung: dict[str, int] = {}  # worker to the version that it goes on telling

    # ------------------------------------------------------------------------------------------ workloads

    def stateful_set(self, replicas: int, name: str = "w", *, made: bool = True, **of_template: Any) -> None:
        """Make it or scale it; `made`: its Pods are there, too, and ready. Of the template: annotations, labels."""
        self._workload(STATEFUL_SETS, "StatefulSet", replicas, name, of_template)
        if made:
            self.make_pods(name)

    def deployment(self, replicas: int, name: str = "d", **of_template: Any) -> None:
        """Make it or scale it; its Pods are made by `deployed`."""
        self._workload(DEPLOYMENTS, "Deployment", replicas, name, of_template)

    def _workload(self, resource: Resource, kind: str, replicas: int, name: str, template: Object) -> None:
        there = self.objects.get((resource.plural, "ns", name))
        if there is not None:
            self._store(resource, {**there, "spec": {**there["spec"], "replicas": replicas}})
            return
        labels = {"app": name, **template.get("labels", {})}
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": labels, "annotations": template.get("annotations", REPORTS)}},
        }
        metadata = {"name": name, "namespace": "ns", "labels": {"swarm-worker": "true"}}
        self.create(resource, {"apiVersion": resource.api_version, "kind": kind, "metadata": metadata, "spec": spec})

    def make_pods(self, name: str = "w", *, ready: bool = True) -> None:
        """As a StatefulSet's controller: one for each ordinal, and none beyond."""
        spec = self.objects[STATEFUL_SETS.plural, "ns", name]["spec"]
        wanted = [f"{name}-{number}" for number in range(spec["replicas"])]
        for pod in [key[2] for key in self.objects if key[0] == PODS.plural and key[2].startswith(f"{name}-")]:
            if pod not in wanted:
                self.kill(pod)
        for pod in wanted:
            if (PODS.plural, "ns", pod) not in self.objects:
                self.worker(pod, spec["template"], ready=ready)

    def deployed(self, *suffixes: str, name: str = "d", ready: bool = True) -> None:
        """As a Deployment's controller: a Pod for each of these."""
        template = self.objects[DEPLOYMENTS.plural, "ns", name]["spec"]["template"]
        for suffix in suffixes:
            self.worker(f"{name}-7d4b9c6f5-{suffix}", template, ready=ready)

    def worker(self, pod: str, template: Object, *, ready: bool = True) -> str:
        """Make the Pod, with its page where it has one; its uid."""
        self.uids += 1
        uid = f"uid-{self.uids}"
        metadata = {"name": pod, "namespace": "ns", "uid": uid, "creationTimestamp": f"2026-01-31T12:{self.uids:04}Z"}
        metadata |= {key: dict(template["metadata"].get(key, {})) for key in ("labels", "annotations")}
        self._store(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": _status(ready)})
        if swarm_pool.PORT in metadata["annotations"]:
            self.pages[pod] = lambda: {"worker": pod, "uid": self.uid(pod), "version": self.runs(pod)}
        return uid

    def ready(self, *pods: str, is_ready: bool = True) -> None:
        for pod in pods:
            self._store(PODS, {**self.objects[PODS.plural, "ns", pod], "status": _status(is_ready)})

    def annotate(self, pod: str, version: int) -> None:
        """The Pod's process tells its version in the other way."""
        there = self.objects[PODS.plural, "ns", pod]
        notes = {**there["metadata"]["annotations"], swarm_pool.APPLIED: f"{there['metadata']['uid']}:{version}"}
        self._store(PODS, {**there, "metadata": {**there["metadata"], "annotations": notes}})

    def uid(self, pod: str) -> str:
        return str(self.objects[PODS.plural, "ns", pod]["metadata"]["uid"])

    def runs(self, pod: str) -> int | None:
        """The version that a worker tells."""
        if pod in self.hung:
            return self.hung[pod]
        parts = [key[2] for key in self.objects if key[0] == CONFIGMAPS.plural and key[2].startswith(HEAD)]
        entries = [self.document(part).get("workloads", {}).get(pod) for part in parts]
        return max((entry["version"] for entry in entries if entry), default=None)

    # ------------------------------------------------------------------------------------------ jobs and ConfigMaps

    def configmap_of(self, name: str, data: Mapping[str, str], **metadata: Any) -> Object:
        """Make it, or replace what stands in it."""
        there = self.objects.get((CONFIGMAPS.plural, "ns", name))
        if there is not None:
            return self._store(CONFIGMAPS, {**there, "data": dict(data)})
        metadata = {"name": name, "namespace": "ns", **metadata}
        return self.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})

    def jobs(self, text: str, name: str = "streams") -> None:
        """A ConfigMap with jobs."""
        self.configmap_of(name, {"jobs.yml": text})

    def data(self, name: str = HEAD) -> dict[str, str]:
        return dict(self.objects[CONFIGMAPS.plural, "ns", name].get("data") or {})

    def document(self, name: str = HEAD) -> Object:
        """What `config.yml` says; empty where it is not there."""
        try:
            text = self.data(name).get(worker_config.CONFIG_KEY, "")
        except KeyError:
            return {}
        found: Object = yaml.safe_load(text) or {}
        return found

    def lists(self, name: str = HEAD) -> dict[str, str]:
        """Worker to its jobs, each a letter."""
        entries = self.document(name).get("workloads", {})
        return {worker: "".join(entry["jobs"]) for worker, entry in entries.items()}

    def versions(self, name: str = HEAD) -> dict[str, int]:
        return {worker: entry["version"] for worker, entry in self.document(name).get("workloads", {}).items()}

    def writes(self) -> list[str]:
        """All that was asked for and is no mere look."""
        return [asked for asked in self.requests if asked.split()[0] not in ("get", "list", "ask")]


class WithoutSwarms(SwarmApi):
    """A cluster that does not know the kind Swarm."""

    def list(self, resource: Resource, *args: Any, **asked: Any) -> Any:
        if resource.plural == "swarms":
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        return super().list(resource, *args, **asked)


def _status(ready: bool) -> Object:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"phase": "Running", "podIP": "10.0.0.1", "conditions": [condition]}

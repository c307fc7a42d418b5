# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swarms, their workloads, and replicas of their operator, all of them real, in one namespace; but for the kubelet.

What the workers did is judged from their journals, and what was written for them from each revision of the ConfigMaps:
- W1 no job ran on two workers at once;
- W2 no ConfigMap ever shows a job to two workers; a version grows when, and only when, the list of its worker changes;
- W3 nobody was evicted of whom it was known that he had read the newest list that there was for him;
- W4 while a Swarm is said to have converged on the lists that there are, each job runs on the worker that has it.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    PODS,
    STATEFUL_SETS,
    AlreadyExists,
    Api,
    Change,
    Conflict,
    NotFound,
    Put,
    Removed,
    Resource,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import SWARMS
from ansible_collections.muster.coordination.tests.support import swarm_journal
from ansible_collections.muster.coordination.tests.support.nursery import LABELS, Nursery, Replica, insist
from ansible_collections.muster.coordination.tests.support.swarm_pods import (
    BRISK,
    CONFIG,
    END,
    FINALIZER,
    PART_OF,
    PORT,
    REPORTS,
    Container,
    Document,
    Entry,
    Object,
    Programs,
    Record,
    Temper,
    newest,
    read,
)
from ansible_collections.muster.coordination.tests.support.vm_lab import SERVICE_ACCOUNTS, install

ROOT: Final = Path(__file__).parents[2]
DEFINITION: Final = ROOT / "kustomize/swarm-operator/base/swarms.yaml"
BUDGETS: Final = Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
KINDS: Final = {"StatefulSet": STATEFUL_SETS, "Deployment": DEPLOYMENTS}
WORKER: Final = "lab.muster.dev/worker"  # label of the Pods of workers
HEAD: Final = "swarm-worker-config"
HEAD_OF: Final = "lab.muster.dev/head"  # annotation of a Pod: the first ConfigMap of its worker
GONE: Final = frozenset({""})  # in place of the list of a worker that has no entry any more
CONNECTIONS: Final = 4
PATIENCE: Final = 300.0  # seconds: a deadline for what should take far less
SHARDS: Final = 12


class Chronicle:
    """Each revision of the workers' ConfigMaps, and what is wrong with it. Not for several threads."""

    def __init__(self) -> None:
        self.parts: dict[str, dict[str, Document]] = {}  # of each head, by name
        self.wrong: list[str] = []
        self.count = 0  # of revisions
        self.shared: set[str] = set()  # heads of which a job may be shown to two
        self.barriers: dict[tuple[str, str], tuple[int, int]] = {}  # the greatest, and since which revision it stands
        self._known: dict[tuple[str, str], Entry] = {}  # the newest entry that was ever there, by head and worker

    def put(self, obj: Object) -> None:
        head, name = obj["metadata"]["labels"][PART_OF], obj["metadata"]["name"]
        document = read(obj)
        if document.entries is None:
            return
        self.count += 1
        self.parts[head] = {**self.parts.get(head, {}), name: document}
        entries = self.entries(head)
        for worker, entry in document.entries.items():
            before = self._known.get((head, worker))
            if before and entries[worker] == entry != before and entry.version <= before.version:
                self._note(f"W2: {name} gives {worker} version {entry.version} after {before}")
            elif before and entry.version != before.version and entry.jobs == before.jobs and entry.jobs:
                self._note(f"W2: {name} gives {worker} version {entry.version} with the list of {before.version}")
            if before is None or before.version < entry.version:
                self._known[head, worker] = entry
        for worker, version in document.barriers.items():
            if version > self.barriers.get((head, worker), (-1, 0))[0]:
                self.barriers[head, worker] = (version, document.revision)
        self._note_gone(head)
        if head not in self.shared:
            self._look_for_doubles(head, name, entries)

    def removed(self, obj: Object) -> None:
        head, name = obj["metadata"]["labels"][PART_OF], obj["metadata"]["name"]
        self.parts[head] = {key: part for key, part in self.parts.get(head, {}).items() if key != name}
        self._note_gone(head)

    def entries(self, head: str) -> dict[str, Entry]:
        """All workers' entries."""
        parts = self.parts.get(head, {})
        names = sorted({name for part in parts.values() for name in part.entries or ()})
        return {name: entry for name in names if (entry := newest(parts, name))}

    def _note_gone(self, head: str) -> None:
        entries = self.entries(head)
        for (of, worker), before in self._known.items():
            if of == head and worker not in entries:
                self._known[of, worker] = before._replace(jobs=GONE)

    def _look_for_doubles(self, head: str, name: str, entries: Mapping[str, Entry]) -> None:
        owners: dict[str, str] = {}
        for worker, entry in entries.items():
            for job in entry.jobs:
                if job in owners:
                    self._note(f"W2: {name} shows {job} to {owners[job]} and {worker}")
                owners[job] = worker

    def _note(self, violation: str) -> None:
        if violation not in self.wrong:
            self.wrong.append(violation)


class Lab:
    """One namespace. All that a watch brings, and what workers do, is told to who waits by `until`."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        *,
        head: str = HEAD,
        temper: Temper = BRISK,
        patience: float = PATIENCE,
        seed: int = 0,
        trace: Path | None = None,
    ) -> None:
        """`head`: the workers' ConfigMap where a workload names no other; `trace`: where all that happens is written
        down, for whoever wants to know how it came."""
        self._trace = trace.open("a") if trace else None
        self.api, self.namespace, self.head, self.patience = api, namespace, head, patience
        self._temper, self._seed = temper, seed
        self._apis = [Api(api.credentials, timeout=api.timeout) for _number in range(CONNECTIONS)]  # of kubelets
        install(api, DEFINITION)
        insist(lambda: api.get(SERVICE_ACCOUNTS, "default", namespace))  # without it there are no Pods
        self.records: defaultdict[str, Record] = defaultdict(Record)  # by head
        self.chronicle = Chronicle()
        self.room = threading.Event()  # while it is not set, there is no node for new Pods
        self.room.set()
        self.programs: Programs | None = None  # in place of the workers here
        self.pods: dict[str, Object] = {}
        self.swarms: dict[str, Object] = {}
        self.containers: dict[str, Container] = {}  # of the Pods that are there, by name
        self.evicted: list[str] = []  # workers, in the order in which their Pods were
        self.away: Counter[str] = Counter()  # of each workload, how many Pods at most were away by an eviction
        self.ran_at_the_end: dict[str, int] = {}  # how many jobs a worker had when its Pod was deleted
        self.wrong: list[str] = []
        self.nurseries: list[Nursery] = []
        self._lives: list[Container] = []
        self._news = threading.Condition(threading.RLock())
        self._stop = threading.Event()
        for resource, selector, take in (
            (CONFIGMAPS, PART_OF, self._take_configmap),
            (PODS, WORKER, self._take_pod),
            (SWARMS, "", self._take_swarm),
        ):
            arguments = (resource, selector, take)
            threading.Thread(target=self._follow, args=arguments, name=f"lab {resource.plural}", daemon=True).start()

    def close(self) -> None:
        for nursery in self.nurseries:
            nursery.close()
        self._stop.set()
        for container in self._lives:
            container.kill()
        for container in self._lives:
            container.thread.join(30)
        for api in self._apis:
            api.close()
        for head, record in self.records.items():
            for line in record.lines():
                self.note(f"job {line.event}", head=head, **{**line._asdict(), "at": line.at})
        if self._trace:
            self._trace.close()
            self._trace = None

    # ------------------------------------------------------------------------------------------ operators

    def operators(
        self,
        directory: Path,
        kubeconfig: str,
        *options: str,
        mode: str = "leader",
        seconds: int = 2,
        plant: str = "",
        bugs: str = "",
    ) -> Nursery:
        """Replicas of the operator of this namespace, to be started; `seconds` their Leases last."""
        argv = ["swarm-operator", "run", "--kubeconfig", kubeconfig, "--namespace", self.namespace]
        argv += ["--watch-namespace", self.namespace, "--listen", "127.0.0.1:0", "--replicas-mode", mode]
        argv += ["--lease-seconds", str(seconds), "--shards", str(SHARDS), "--shard-by", "object", *options]
        argv += ["--pod-selector", ",".join(f"{key}={value}" for key, value in LABELS.items())]
        nursery = Nursery(self.api, self.namespace, directory, argv, plant, bugs)
        self.nurseries.append(nursery)
        return nursery

    # ------------------------------------------------------------------------------------------ what people do

    def jobs(self, name: str, jobs: Iterable[Any], key: str = "jobs.yml") -> None:
        """A ConfigMap with jobs, new or anew."""
        data = {key: yaml.safe_dump(list(jobs))}

        def write() -> None:
            try:
                there = self.api.get(CONFIGMAPS, name, self.namespace)
            except NotFound:
                self.api.create(CONFIGMAPS, {"metadata": self._at(name), "data": data})
            else:
                self.api.replace(CONFIGMAPS, {**there, "data": data})

        insist(write)

    def swarm(self, name: str, **spec: Any) -> None:
        kind = {"apiVersion": SWARMS.api_version, "kind": SWARMS.kind}
        insist(lambda: self._there(SWARMS, {**kind, "metadata": self._at(name), "spec": spec}))

    def edit(self, name: str, **spec: Any) -> None:
        """These fields of a Swarm's spec; None removes one."""

        def change(obj: Object) -> None:
            kept = {**obj["spec"], **spec}
            obj["spec"] = {key: value for key, value in kept.items() if value is not None}

        self.change(SWARMS, name, change)

    def workload(
        self,
        name: str,
        replicas: int,
        *,
        kind: str = "StatefulSet",
        reports: bool = True,
        head: str = "",
        labels: Mapping[str, str] | None = None,
        pod_labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> None:
        """A StatefulSet or Deployment of workers; `labels` are its own beside `pool: NAME`."""
        own = {WORKER: name, **(pod_labels or {})}
        notes = {HEAD_OF: head or self.head, **({REPORTS: str(PORT)} if reports else {})}
        notes |= annotations or {}
        spec: Object = {"schedulerName": "nobody", "terminationGracePeriodSeconds": 5}
        spec |= {"automountServiceAccountToken": False, "containers": [{"name": "worker", "image": "none"}]}
        template = {"metadata": {"labels": own, "annotations": notes, "finalizers": [FINALIZER]}, "spec": spec}
        whole: Object = {"replicas": replicas, "selector": {"matchLabels": {WORKER: name}}, "template": template}
        if kind == "StatefulSet":
            whole |= {"serviceName": name, "podManagementPolicy": "Parallel"}
        metadata = {**self._at(name), "labels": {"pool": name, **(labels or {})}}
        insist(lambda: self._there(KINDS[kind], {"metadata": metadata, "spec": whole}))

    def scale(self, name: str, replicas: int, kind: str = "StatefulSet") -> None:
        self.change(KINDS[kind], name, lambda obj: obj["spec"].update(replicas=replicas), "scale")

    def delete_pod(self, name: str) -> None:
        with suppress(NotFound):
            self.api.delete(PODS, name, self.namespace)

    def lose_pod(self, name: str) -> Container:
        """As by a deletion by force from a node that is lost: its worker works on until it is killed."""
        container = self.containers[name]
        self.note("Pod lost", name=name, uid=container.uid)
        container.is_lost = True
        insist(lambda: self.delete_pod(name))
        container.free()
        return container

    def budget(self, name: str, unavailable: int) -> None:
        """A PodDisruptionBudget of the workload of this name."""
        spec = {"selector": {"matchLabels": {WORKER: name}}, "maxUnavailable": unavailable}
        try:
            self.api.create(BUDGETS, {"metadata": self._at(name), "spec": spec})
        except AlreadyExists:
            self.change(BUDGETS, name, lambda obj: obj.update(spec=spec))

    def remove(self, name: str) -> None:
        """A Swarm, and the workloads that carry its name in the label `swarm`."""
        with suppress(NotFound):
            self.api.delete(SWARMS, name, self.namespace)
        for kind in KINDS.values():
            for obj in self.api.list(kind, self.namespace, label_selector=f"swarm={name}").items:
                self.api.delete(kind, obj["metadata"]["name"], self.namespace)

    def change(self, resource: Resource, name: str, change: Callable[[Object], Any], subresource: str = "") -> None:
        """As kubectl edit: again where somebody else was faster."""
        while True:
            obj = insist(lambda: self.api.get(resource, name, self.namespace, subresource))
            change(obj)
            with suppress(Conflict):
                self.api.replace(resource, obj, subresource)
                return

    # ------------------------------------------------------------------------------------------ what is seen

    def until(self, true: Callable[[], Any], what: Any, seconds: float = 0.0) -> None:
        """Wait for it; on failure say what was waited for (a text, or what makes one)."""
        deadline = time.monotonic() + (seconds or self.patience)
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain: {what() if callable(what) else what}: {self.told()}")
            with self._news:
                self._news.wait(0.1)  # a page, or the API server, may be asked for it, too

    def status(self, name: str) -> Object:
        return (self.swarms.get(name) or {}).get("status") or {}

    def generation(self, name: str) -> int:
        """Of a Swarm, as it is now."""
        return int(self.api.get(SWARMS, name, self.namespace)["metadata"]["generation"])

    def is_ready(self, worker: str, *, other_than: str = "") -> bool:
        """Whether its Pod is; `other_than`: the uid of one that does not count."""
        container = self.containers.get(worker)
        return container is not None and container.is_ready and container.uid != other_than

    def is_gone(self, worker: str) -> bool:
        return worker not in self.pods

    def refused_evictions(self, prefix: str = "") -> list[str]:
        """Workers whose eviction the API server did not allow."""
        lines = [line for nursery in self.nurseries for replica in nursery.lives for line in replica.record()]
        refused = [line["name"] for line in lines if line.get("kind") == "evict" and line["outcome"] == "Throttled"]
        return [name for name in refused if name.startswith(prefix)]

    def entries(self, head: str = "") -> dict[str, Entry]:
        """The workers' configuration as it is now: as a quorum knows it."""
        selector = f"{PART_OF}={head or self.head}"
        items = insist(lambda: self.api.list(CONFIGMAPS, self.namespace, label_selector=selector).items)
        parts = {obj["metadata"]["name"]: read(obj) for obj in items}
        names = {name for part in parts.values() for name in part.entries or ()}
        return {name: entry for name in names if (entry := newest(parts, name))}

    def is_quiet(self, names: Iterable[str] = ()) -> bool:
        """Whether all Pods of these workloads run, as many as are wanted, and none is going."""
        wanted = list(names)
        own = [pod for pod in list(self.pods.values()) if not wanted or pod["metadata"]["labels"][WORKER] in wanted]
        ready = [self.containers.get(pod["metadata"]["name"]) for pod in own]
        is_there = all(container and container.is_ready for container in ready)
        return is_there and not any("deletionTimestamp" in pod["metadata"] for pod in own)

    def converged(
        self, name: str, *, jobs: Iterable[str] | None = None, workers: int | None = None, seconds: float = 0.0
    ) -> dict[str, int]:
        """Wait until a Swarm has converged, on these jobs and so many workers; it is true (W4). How many each has."""
        wanted = None if jobs is None else set(jobs)
        placed: dict[str, int] = {}

        def is_so() -> bool:
            status = self.status(name)
            if not status.get("converged") or status["observedGeneration"] != self.generation(name):
                return False
            entries = self.entries(self._head_of(name))
            placed.clear()
            placed.update({worker: len(entry.jobs) for worker, entry in sorted(entries.items())})
            return (
                self._is_about(status, entries)
                and workers in (None, status.get("workers"))
                and (wanted is None or {job for entry in entries.values() for job in entry.jobs} == wanted)
            )

        self.until(is_so, f"{name} to converge", seconds)
        self.judge_converged(name)
        return placed

    def judge_converged(self, name: str) -> None:
        """W4, where the status is of the lists that there are, and no Pod is away."""
        head, status = self._head_of(name), self.status(name)
        entries = self.entries(head)
        if not (status.get("converged") and self._is_about(status, entries)):
            return
        runners = self.records[head].runners()
        for worker, entry in sorted(entries.items()):
            for job in sorted(entry.jobs):
                if runners.get(job) != [worker] and self._is_up(worker, entry):
                    self.wrong.append(f"W4: {name} has converged, {job} is {worker}'s and runs on {runners.get(job)}")

    def judge(self, head: str = "") -> list[str]:
        """All that was wrong so far, with the workers of one configuration or (empty) of all."""
        doubles = [
            f"W1: {job} ran on {first.worker} and {second.worker} for {(end - begin) / 1e6:.1f} ms"
            for of, record in self.records.items()
            if head in ("", of)
            for job, begin, end, first, second in swarm_journal.overlaps(swarm_journal.intervals(record.lines()))
        ]
        with self._news:
            return [*doubles, *(each for each in (*self.chronicle.wrong, *self.wrong) if f" {head}" in each)]

    def page(self, replica: Replica, path: str) -> tuple[int, Any]:
        """One of an operator's pages: status, and JSON or text."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{replica.port}{path}", timeout=30) as answer:
                text = answer.read().decode()
                return answer.status, text if path == "/metrics" else json.loads(text)
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def told(self) -> str:
        """How it stands, for people."""
        keys = ("converged", "observedGeneration", "workers", "unplaced", "waitsFor", "pool", "conditions")
        shown = {
            name: {"generation": obj["metadata"]["generation"], **{key: self.status(name).get(key) for key in keys}}
            for name, obj in list(self.swarms.items())
        }
        pods = {
            name: f"{'ready' if container.is_ready else 'not ready'}, told {container.loaded}, runs "
            f"{container.worker.version}{' ending' if name not in self.pods else ''}"
            for name, container in sorted(self.containers.items())
        }
        lists = {head: {name: (entry.version, len(entry.jobs)) for name, entry in self.chronicle.entries(head).items()}
                 for head in self.chronicle.parts}  # fmt: skip
        logs = [f"{each.name}:\n{each.log()}" for nursery in self.nurseries for each in nursery.alive]
        return "\n".join([json.dumps(shown), json.dumps(pods), json.dumps(lists), *logs])

    # ------------------------------------------------------------------------------------------ private

    def _at(self, name: str) -> Object:
        return {"name": name, "namespace": self.namespace}

    def _there(self, resource: Resource, obj: Object) -> None:
        with suppress(AlreadyExists):
            self.api.create(resource, obj)

    def _head_of(self, name: str) -> str:
        spec = (self.swarms.get(name) or {}).get("spec") or {}
        return str(spec.get("configMap") or HEAD)

    @staticmethod
    def _is_about(status: Object, entries: Mapping[str, Entry]) -> bool:
        """Whether a status tells of these lists."""
        told = {each["name"]: each["wanted"] for each in status.get("pool") or () if "wanted" in each}
        return told == {name: entry.version for name, entry in entries.items()}

    def _is_up(self, worker: str, entry: Entry) -> bool:
        """Whether its Pod runs, so that nothing excuses it."""
        pod, container = self.pods.get(worker), self.containers.get(worker)
        if pod is None or container is None or "deletionTimestamp" in pod["metadata"]:
            return False
        return container.is_ready and not container.worker.killed.is_set()

    def _follow(self, resource: Resource, selector: str, take: Callable[[Change], None]) -> None:
        follow = self.api.follow(resource, self.namespace, label_selector=selector, stop=self._stop)
        for change in follow:
            with self._news:
                take(change)
                self._news.notify_all()

    def note(self, what: str, **fields: Any) -> None:
        """A line of the trace."""
        if self._trace:
            self._trace.write(json.dumps({"at": time.monotonic_ns(), "what": what, **fields}) + "\n")
            self._trace.flush()

    def _take_configmap(self, change: Change) -> None:
        for obj in change.items if isinstance(change, Snapshot) else [getattr(change, "obj", None)]:
            if obj:
                data = obj.get("data") or {}
                told = {"config": data.get("config.yml"), "handover": data.get("handover.json")}
                self.note(f"ConfigMap {type(change).__name__}", name=obj["metadata"]["name"], **told)
        if isinstance(change, Snapshot):
            for obj in change.items:
                self.chronicle.put(obj)
        elif isinstance(change, Put):
            self.chronicle.put(change.obj)
        elif isinstance(change, Removed):
            self.chronicle.removed(change.obj)
        for container in self.containers.values():
            container.tell(CONFIG)

    def _take_swarm(self, change: Change) -> None:
        if isinstance(change, Snapshot):
            self.swarms = {obj["metadata"]["name"]: obj for obj in change.items}
        elif isinstance(change, Put):
            self.swarms[change.obj["metadata"]["name"]] = change.obj
        elif isinstance(change, Removed):
            self.swarms.pop(change.obj["metadata"]["name"], None)

    def _take_pod(self, change: Change) -> None:
        if isinstance(change, Snapshot):
            there = {obj["metadata"]["name"]: obj for obj in change.items}
            for name in self.pods.keys() - there.keys():
                self._gone(self.pods[name])
            for obj in there.values():
                self._seen(obj)
        elif isinstance(change, Put):
            self._seen(change.obj)
        elif isinstance(change, Removed):
            self._gone(change.obj)

    def _seen(self, obj: Object) -> None:
        metadata = obj["metadata"]
        self.pods[metadata["name"]] = obj
        container = self.containers.get(metadata["name"])
        if container is None or container.uid != metadata["uid"]:
            container = Container(
                self._apis[len(self._lives) % CONNECTIONS],
                obj,
                metadata["annotations"][HEAD_OF],
                self.records[metadata["annotations"][HEAD_OF]],
                lambda head: self.chronicle.parts.get(head, {}),
                temper=self._temper,
                room=self.room,
                seed=self._seed,
                programs=self.programs,
                news=self._tell_news,
                ending=self._judge_eviction,
            )
            self.note("Pod made", name=container.name, uid=container.uid)
            self.containers[metadata["name"]] = container
            self._lives.append(container)
        if "deletionTimestamp" in metadata and not (container.is_ending or container.is_lost):
            self.note("Pod is ending", name=container.name, uid=container.uid)
            container.tell(END)

    def _gone(self, obj: Object) -> None:
        name = obj["metadata"]["name"]
        self.note("Pod gone", name=name, uid=obj["metadata"]["uid"])
        if name in self.pods and self.pods[name]["metadata"]["uid"] == obj["metadata"]["uid"]:
            del self.pods[name]
        if name in self.containers and self.containers[name].uid == obj["metadata"]["uid"]:
            del self.containers[name]

    def _tell_news(self) -> None:
        with self._news:
            self._news.notify_all()

    def _judge_eviction(self, container: Container) -> None:
        """W3, of a Pod that is going: the API server writes down who was evicted."""
        self.ran_at_the_end[container.name] = len(self.records[container.head].running().get(container.name, ()))
        pods = {obj["metadata"]["name"]: obj for obj in insist(lambda: self.api.list(PODS, self.namespace).items)}
        if container.name not in pods or "EvictionByEvictionAPI" not in _conditions(pods[container.name]).values():
            return
        workload = pods[container.name]["metadata"]["labels"][WORKER]
        others = [obj for name, obj in pods.items() if name != container.name and _workload(obj) == workload]
        entry, loaded = self.entries(container.head).get(container.name), container.loaded
        with self._news:
            self.evicted.append(container.name)
            away = 1 + sum("True" not in _conditions(obj, "status").get("Ready", "") for obj in others)
            self.away[workload] = max(self.away[workload], away)
            version, since = self.chronicle.barriers.get((container.head, container.name), (-1, 0))
            is_known = version == loaded and container.revision > since
            if entry and loaded is not None and entry.version <= loaded and is_known:
                self.wrong.append(f"W3: {container.name} was evicted, though it had been told version {loaded}")


def _workload(pod: Object) -> str:
    return str((pod["metadata"].get("labels") or {}).get(WORKER, ""))


def _conditions(pod: Object, of: str = "reason") -> dict[str, str]:
    """By type, what they say."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return {each["type"]: str(each.get(of, "")) for each in conditions}

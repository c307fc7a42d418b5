# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One turn of a Swarm: read the configuration, then its workers, decide, write, refresh.

The order counts: what is read of Pods is newer than the configuration that it is decided with. A turn writes each part
of the configuration only as it was read; where somebody was faster nothing else is done, and the next decides anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    PODS,
    STATEFUL_SETS,
    Api,
    ApiError,
    Conflict,
    NotFound,
    Resource,
    Throttled,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    convergence,
    swarm,
    swarm_pool,
    worker_config,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Sight, Step
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Spec
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm_pool import Pod, Pool, Workload
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config, Part
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

SWARMS: Final = Resource("muster.dev/v1alpha1", "swarms", "Swarm")
MANAGER: Final = "muster.dev/swarm"  # annotation of the workers' ConfigMap: by whom it is kept
KINDS: Final = {swarm_pool.STATEFUL_SET: STATEFUL_SETS, swarm_pool.DEPLOYMENT: DEPLOYMENTS}
LINGER_SECONDS: Final = 30.0  # so long may the processes of a Pod go on that vanished by force, or unseen
SOON, LATER = 0.5, 5.0  # seconds until the next turn: somebody was faster, or is being waited for

Object = dict[str, Any]
Ask = Callable[[Sequence[Pod]], Mapping[str, int]]  # Pods that have a page; the versions they tell, by uid
HasEnded = Callable[[str], bool]  # whether the Pod with this uid, which is gone, was seen to have ended before


class Stale(Exception):
    """Somebody was faster; what was decided is of no use any more."""


class Lost(Exception):
    """A configuration is gone, and its names with it: of Pods that vanished shortly before, nobody knows. `seconds`: so
    long their processes may still run."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the ConfigMap is gone; it is made anew when no Pod can run any more of which nobody knows")
        self.seconds = seconds


@dataclass(slots=True)
class Memory:
    """What one process has seen of one Swarm, and since when, on its monotonic clock. Losing it costs time only."""

    clock: Callable[[], float] = time.monotonic
    linger_seconds: float = LINGER_SECONDS
    floor: int = worker_config.Part().floor  # the greatest version that was ever seen
    has_looked: bool = False  # whether it has ever seen who is there
    is_patient: bool = False  # whether it waits, where a configuration is gone that it has never seen (see `Lost`)
    gone_since: float | None = None  # since when it knows that
    uids: dict[str, str] = field(default_factory=dict)  # of the Pods that were there last
    vanished: dict[str, tuple[str, float]] = field(default_factory=dict)  # worker to its Pod's uid, and since when
    unconfirmed: dict[str, tuple[str, int, float]] = field(default_factory=dict)  # worker to Pod, version, since when
    vacant: dict[str, float] = field(default_factory=dict)
    coming: float | None = None
    reports: dict[str, int] = field(default_factory=dict)  # Pod uid to the greatest version that it told


class Found(NamedTuple):
    """What was read. `objects` are the ConfigMaps of the parts."""

    objects: tuple[Object, ...]
    parts: tuple[Part, ...]
    workloads: tuple[Workload, ...]
    pods: Mapping[str, Pod]

    @property
    def config(self) -> Config:
        return worker_config.join(self.parts)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn did. `again`: seconds after which to take the next, None: when something changes."""

    step: Step
    pool: Pool
    found: Found
    sights: Mapping[str, Sight]
    parts: int
    evicted: tuple[convergence.Eviction, ...] = ()
    blocked: tuple[str, ...] = ()  # workers whose eviction is not allowed now
    scaled: int | None = None
    wrote: bool = False
    again: float | None = None


def no_proof(_uid: str) -> bool:
    return False


def by_api_server(api: Api, namespace: str) -> Ask:
    """Ask Pods one after the other by way of the API server: for who is outside of the cluster."""

    def ask(pods: Sequence[Pod]) -> Mapping[str, int]:
        told = {}
        for pod in pods:
            try:
                answer = api.ask_pod(pod.name, namespace, pod.address.rpartition(":")[2], "/config")
            except ApiError:
                continue
            version = read_report(answer, pod)
            if version is not None:
                told[pod.uid] = version
        return told

    return ask


def read_report(answer: Any, pod: Pod) -> int | None:
    """The version that a worker's page tells; None where it is another Pod's, or tells none."""
    if not isinstance(answer, dict) or answer.get("uid") != pod.uid:
        return None
    version = answer.get("version")
    return version if isinstance(version, int) and not isinstance(version, bool) and version >= 0 else None


# ---------------------------------------------------------------------------------------------------------------------
# A turn


def turn(
    api: Api,
    namespace: str,
    spec: Spec,
    jobs: Sequence[Job],
    memory: Memory,
    *,
    manager: str,
    ask: Ask,
    now: str,
    history: Callable[[], int] = lambda: -1,
    has_ended: HasEnded = no_proof,
    check: Callable[[], float] = lambda: 10.0,
    check_mode: bool = False,
    refresh: bool = True,
) -> Turn:
    """Take one turn. `now` is the time for people. `history` is asked where there is no configuration: for the greatest
    version that the Swarm's status knows of, which may be behind; -1: there never was one.

    `check` is asked right before each effect for how many seconds it may take. `refresh` False: evict and scale
    nothing. Raises Malformed for what can't be understood, Stale where somebody was faster, Lost, and the API's errors.
    """
    found = read(api, namespace, spec, memory, manager, history, ask)
    config = found.config
    wanted = swarm_pool.target(spec, len(jobs), found.workloads) if refresh else None
    for pod in found.pods.values():
        version = swarm_pool.said_version(pod)
        if version is not None:
            memory.reports[pod.uid] = max(version, memory.reports.get(pod.uid, version))
    _listen(found, config, memory, ask)
    _watch_the_clock(config, found.pods, memory, has_ended)
    pool = _pool(spec, found, config, memory, wanted)
    sights = swarm_pool.sights(
        pool,
        config,
        found.pods,
        memory.reports,
        lingering=memory.vanished,
        overdue=_overdue(spec, config, found.pods, memory),
    )
    step = convergence.step(config, jobs, pool.members, sights, spec.policy, successors=pool.successors, now=now)
    parts = worker_config.split(step.config, found.parts)
    done = Turn(step, pool, found, sights, len(parts))
    if check_mode:
        return done
    if parts != found.parts or not found.objects:
        _write(api, namespace, spec, manager, found, parts, check)
        return replace(done, wrote=True, again=0.0)
    if refresh:
        evicted, blocked = _evict(api, namespace, step.evict, check)
        scaled = _scale(
            api, namespace, swarm_pool.scale_to(spec, len(jobs), found.workloads, config), found.workloads, check
        )
        done = replace(done, evicted=evicted, blocked=blocked, scaled=scaled)
    return replace(done, again=_next(done, spec, memory))


def _next(done: Turn, spec: Spec, memory: Memory) -> float | None:
    """When to look again though nothing was told: for answers of workers, and for what the clock brings."""
    waits = []
    if any(sight.lingers for sight in done.sights.values()) or done.blocked:
        waits.append(LATER)
    if done.pool.vacant or done.pool.coming:
        waits.append(min(LATER, max(SOON, spec.grace_seconds / 4)))
    asked = [since for _uid, _version, since in memory.unconfirmed.values()]
    if asked:
        waits.append(min(LATER, max(0.2, (memory.clock() - min(asked)) / 4)))  # soon at first, then ever less often
    return min(waits, default=None)


# ---------------------------------------------------------------------------------------------------------------------
# What is read


def read(
    api: Api,
    namespace: str,
    spec: Spec,
    memory: Memory,
    manager: str,
    history: Callable[[], int] = lambda: -1,
    ask: Ask = lambda pods: {},
) -> Found:
    """The configuration, and after it workloads and Pods. Raises Malformed, and Lost."""
    objects, parts = read_parts(api, namespace, spec.configmap, manager)
    workloads = read_workloads(api, namespace, spec.selector)
    config = worker_config.join(parts)
    pods = _read_pods(api, namespace, spec, workloads, config)
    highest = max((entry.version for entry in config.entries.values()), default=-1)
    memory.floor = max(memory.floor, highest, config.floor)
    if not objects:
        memory.reports.update(ask([pod for _name, pod in sorted(pods.items()) if pod.address]))
        floor = max(memory.floor, history(), *[memory.reports.get(pod.uid, -1) for pod in pods.values()])
        if floor >= 0:  # it was deleted, and workers may run what stood in it
            _await_the_unknown(memory)
            floor = max(floor, _revision(api, namespace, spec.configmap))
            lost = convergence.recovered(floor, sorted(pods.keys() | memory.vanished.keys()))
            parts = (Part(lost.entries, lost.holds, floor=lost.floor),)
    return Found(objects, parts, workloads, pods)


def _await_the_unknown(memory: Memory) -> None:
    """Raises Lost."""
    if memory.has_looked or not memory.is_patient:
        return
    now = memory.clock()
    memory.gone_since = now if memory.gone_since is None else memory.gone_since
    left = memory.gone_since + memory.linger_seconds - now
    if left > 0:
        raise Lost(left)


def _revision(api: Api, namespace: str, head: str) -> int:
    """The API server's own: greater than each version that was given, for each took a write. What else is known of them
    may be behind."""
    listed = api.list(CONFIGMAPS, namespace, label_selector=f"{worker_config.PART_OF}={head}", metadata_only=True)
    version = listed.resource_version
    return int(version) if version.isascii() and version.isdecimal() else 0


def read_parts(api: Api, namespace: str, head: str, manager: str = "") -> tuple[tuple[Object, ...], tuple[Part, ...]]:
    """The ConfigMaps of a configuration and what stands in them; an empty part where there is none. Raises Malformed.

    `manager` not empty: raises Malformed also where another one keeps it.
    """
    try:
        objects = [api.get(CONFIGMAPS, head, namespace)]
    except NotFound:
        return (), (Part(),)
    keeper = (objects[0]["metadata"].get("annotations") or {}).get(MANAGER)
    if manager and keeper and keeper != manager:
        remedy = f"{keeper} keeps this ConfigMap: name another one, or remove its annotation {MANAGER}"
        raise Malformed("configMap", f"{namespace}/{head}", remedy)
    listed = api.list(CONFIGMAPS, namespace, label_selector=f"{worker_config.PART_OF}={head}").items
    by_name = {obj["metadata"]["name"]: obj for obj in listed}
    number = 1
    while (name := worker_config.part_name(head, number)) in by_name:
        objects.append(by_name[name])
        number += 1
    return tuple(objects), tuple(map(_part, objects))


def _part(obj: Object) -> Part:
    data = obj.get("data") or {}
    where = f"ConfigMap {obj['metadata']['namespace']}/{obj['metadata']['name']}: {worker_config.CONFIG_KEY}"
    entries, extra = worker_config.parse_entries(parse_yaml(data.get(worker_config.CONFIG_KEY, ""), where), where)
    record = worker_config.parse_record(data.get(worker_config.RECORD_KEY))
    return Part(entries, record.holds, record.turn, record.floor, record.rebalance, extra, record.record_extra)


def read_workloads(api: Api, namespace: str, selector: str) -> tuple[Workload, ...]:
    """StatefulSets and Deployments of workers. Raises Malformed."""
    listed = [api.list(kind, namespace, label_selector=selector).items for kind in KINDS.values()]
    return tuple(swarm_pool.read_workload(obj) for items in listed for obj in items)


def _read_pods(
    api: Api, namespace: str, spec: Spec, workloads: Iterable[Workload], config: Config
) -> Mapping[str, Pod]:
    """The Pods of the workloads, and of all who have or may run jobs, by name."""
    pods = {}
    listed = list(workloads)
    for workload in listed:
        for obj in api.list(PODS, namespace, label_selector=workload.selector).items:
            if workload.owns(obj["metadata"]["name"]):
                pods[obj["metadata"]["name"]] = swarm_pool.read_pod(obj, spec.zone_label)
    for name in sorted(config.entries.keys() | config.holds.keys()):
        if name not in pods and not any(workload.owns(name) for workload in listed):
            try:
                pods[name] = swarm_pool.read_pod(api.get(PODS, name, namespace), spec.zone_label)
            except NotFound:
                continue
    return pods


def read_jobs(api: Api, namespace: str, spec: Spec) -> tuple[list[Job], list[dict[str, Any]]]:
    """All jobs of a Swarm, and of each ConfigMap with jobs what its status tells. Raises Malformed."""
    lists: list[tuple[str, Iterable[Job]]] = [("spec.jobs", spec.jobs)]
    sources = []
    for number, source in enumerate(spec.sources):
        where = f"ConfigMap {namespace}/{source.configmap}: {source.key}"
        try:
            obj = api.get(CONFIGMAPS, source.configmap, namespace)
        except NotFound:
            if not source.optional:
                remedy = "create it, or say optional: true"
                raise Malformed(f"spec.jobsFrom[{number}].configMap", source.configmap, remedy) from None
            continue
        text = (obj.get("data") or {}).get(source.key)
        if text is None and not source.optional:
            raise Malformed(f"spec.jobsFrom[{number}].key", source.key, f"ConfigMap {source.configmap} has no such key")
        found = swarm.parse_jobs(parse_yaml(text or "", where), where)
        lists.append((where, found))
        version = obj["metadata"]["resourceVersion"]
        sources.append({"configMap": source.configmap, "resourceVersion": version, "jobs": len(found)})
    return swarm.collect(lists), sources


# ---------------------------------------------------------------------------------------------------------------------
# What is remembered


def _listen(found: Found, config: Config, memory: Memory, ask: Ask) -> None:
    """Ask those workers of which it is not known that they run what they should."""
    silent = [
        pod
        for name, pod in sorted(found.pods.items())
        if pod.address and name in config.entries and memory.reports.get(pod.uid, -1) < config.entries[name].version
    ]
    for uid, version in (ask(silent) if silent else {}).items():
        memory.reports[uid] = max(version, memory.reports.get(uid, version))
    present = {pod.uid for pod in found.pods.values()}
    for uid in memory.reports.keys() - present:
        del memory.reports[uid]


def _watch_the_clock(config: Config, pods: Mapping[str, Pod], memory: Memory, has_ended: HasEnded) -> None:
    """Keep in mind which Pods vanished without a proof that they had ended, and who has not confirmed since when."""
    now = memory.clock()
    for name, (uid, since) in list(memory.vanished.items()):
        if has_ended(uid) or now - since > memory.linger_seconds:
            del memory.vanished[name]
    for name in config.entries.keys() | config.holds.keys() | memory.uids.keys():
        before, pod = memory.uids.get(name), pods.get(name)
        if before and (pod is None or pod.uid != before) and not has_ended(before):
            memory.vanished[name] = (before, now)
        elif pod is None and not memory.has_looked:  # it is not known how that one ended
            memory.vanished[name] = ("", now)
        if pod is None or pod.has_ended:
            memory.uids.pop(name, None)
        else:
            memory.uids[name] = pod.uid
    memory.has_looked = True
    for name in memory.vanished.keys() - config.entries.keys() - config.holds.keys():
        del memory.vanished[name]
    asked = {}
    for name, entry in config.entries.items():
        pod = pods.get(name)
        if pod and pod.reports and not pod.has_ended and memory.reports.get(pod.uid, -1) < entry.version:
            uid, version, since = memory.unconfirmed.get(name, ("", -1, now))
            asked[name] = (pod.uid, entry.version, since if (uid, version) == (pod.uid, entry.version) else now)
    memory.unconfirmed = asked


def _overdue(spec: Spec, config: Config, pods: Mapping[str, Pod], memory: Memory) -> set[str]:
    if not spec.confirm_seconds:
        return set()
    now = memory.clock()
    return {name for name, (_uid, _v, since) in memory.unconfirmed.items() if now - since > spec.confirm_seconds}


def _pool(spec: Spec, found: Found, config: Config, memory: Memory, wanted: int | None) -> Pool:
    """The pool, and since when it has places without a Pod, and Pods that are to become workers."""
    now, grace = memory.clock(), spec.grace_seconds
    expired = {name for name, since in memory.vacant.items() if now - since > grace}
    is_patient = memory.coming is None or now - memory.coming <= grace
    pool = swarm_pool.pool(
        spec, found.workloads, found.pods, config, wanted=wanted, expired=expired, is_patient=is_patient
    )
    memory.vacant = {name: memory.vacant.get(name, now) for name in pool.vacant | expired}
    replicas = sum(each.replicas if wanted is None else min(each.replicas, wanted) for each in found.workloads)
    # who lost patience for one that does not come keeps to it, or the others would go in and out
    is_awaited = pool.coming or (not is_patient and len(pool.members) < replicas)
    memory.coming = (now if memory.coming is None else memory.coming) if is_awaited else None
    return pool


# ---------------------------------------------------------------------------------------------------------------------
# What is written


def _write(
    api: Api,
    namespace: str,
    spec: Spec,
    manager: str,
    found: Found,
    parts: Sequence[Part],
    check: Callable[[], float],
) -> None:
    """What may be written now, in its order. Raises Stale where a part is not as it was read, or that was not all."""
    listed, more = worker_config.writes(parts, found.parts, len(found.objects))
    for number, part in listed:
        before = found.objects[number] if number < len(found.objects) else None
        _put(api, namespace, worker_config.part_name(spec.configmap, number), spec, manager, before, part, check())
    if more:
        raise Stale(more)


def _put(
    api: Api,
    namespace: str,
    name: str,
    spec: Spec,
    manager: str,
    before: Object | None,
    part: Part,
    timeout: float,
) -> None:
    metadata: Object = dict(before["metadata"]) if before else {"name": name, "namespace": namespace}
    labels, annotations = metadata.get("labels"), metadata.get("annotations")
    metadata["labels"] = {**(labels or {}), worker_config.PART_OF: spec.configmap}
    metadata["annotations"] = {**(annotations or {}), MANAGER: manager}
    start = before or {"apiVersion": "v1", "kind": "ConfigMap"}
    desired = {**start, "metadata": metadata, "data": {**(start.get("data") or {}), **worker_config.render(part)}}
    version = before["metadata"]["resourceVersion"] if before else None

    def decide(there: Object | None) -> tuple[Object | None, bool]:
        if there and worker_config.PART_OF not in (there["metadata"].get("labels") or {}) and name != spec.configmap:
            raise Malformed("ConfigMap", f"{namespace}/{name}", "remove or rename it: its name is needed")
        is_as_read = (there["metadata"]["resourceVersion"] if there else None) == version
        is_done = there is not None and there.get("data") == desired["data"]
        return (desired if is_as_read else there), is_as_read or is_done

    seen: Object | None = before
    if not commit(api, CONFIGMAPS, name, namespace, decide, timeout=min(timeout, 10.0), seen=seen).verdict:
        raise Stale(f"ConfigMap {namespace}/{name} was changed meanwhile")


def _evict(
    api: Api, namespace: str, evictions: Iterable[convergence.Eviction], check: Callable[[], float]
) -> tuple[tuple[convergence.Eviction, ...], tuple[str, ...]]:
    """Those that were evicted, and the workers whose eviction is not allowed now."""
    done, blocked = [], []
    for eviction in evictions:
        check()
        try:
            api.evict(eviction.worker, namespace, uid=eviction.uid)
            done.append(eviction)
        except Throttled:
            blocked.append(eviction.worker)
        except (NotFound, Conflict):
            continue  # it is gone already
    return tuple(done), tuple(blocked)


def _scale(
    api: Api,
    namespace: str,
    replicas: int | None,
    workloads: Sequence[Workload],
    check: Callable[[], float],
) -> int | None:
    if replicas is None:
        return None
    check()
    kind, name = KINDS[workloads[0].kind], workloads[0].name
    scale = api.get(kind, name, namespace, "scale")
    if scale["spec"].get("replicas", 0) != workloads[0].replicas:
        raise Stale(f"{kind.kind} {namespace}/{name} was scaled meanwhile")
    scale["spec"]["replicas"] = replicas
    try:
        api.replace(kind, scale, "scale")
    except Conflict as error:
        raise Stale(str(error)) from error
    return replicas

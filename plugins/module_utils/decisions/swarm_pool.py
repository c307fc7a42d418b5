# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who the workers of a Swarm are.

Rules
1. A StatefulSet's workers are its ordinals: a Pod that is away comes back under its name, and keeps its jobs. A new one
   becomes a worker when its Pod is ready, or at once while nobody has jobs yet.
2. A Deployment's workers are its Pods, as many as it wants replicas: those that have jobs, and in the places of Pods
   that are ending or gone new ones, each of which takes over one share as a whole: what that Pod had, or was told to
   let go for it. A place that nobody takes is kept for a grace time, and so are its jobs; then they go to the others.
3. New Pods that only enlarge the pool become workers together, when all of them are ready or the grace time is over:
   so that jobs move once.
4. Scaling down by the operator itself takes the highest ordinals, and only after their jobs have been let go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Worker
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import (
    ZONE,
    Spec,
    selector_text,
    selects,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    Config,
    jobs_of,
    natural,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

PORT: Final = "muster.dev/config-port"  # annotation of a Pod: where it tells its version by HTTP
APPLIED: Final = "muster.dev/applied-version"  # annotation of a Pod: UID:VERSION, in place of that
CAPACITY: Final = "muster.dev/capacity"  # annotation of a Pod template
STATEFUL_SET, DEPLOYMENT = "StatefulSet", "Deployment"
ENDED: Final = ("Succeeded", "Failed")  # phases

Object = Mapping[str, Any]


class Workload(NamedTuple):
    """A StatefulSet or Deployment of workers. `selector` is its own, of its Pods."""

    kind: str
    name: str
    replicas: int
    selector: str
    start: int = 0  # ordinal of a StatefulSet's first Pod
    labels: Mapping[str, str] = {}  # of the Pod template
    annotations: Mapping[str, str] = {}  # of the Pod template

    def owns(self, name: str) -> bool:
        """Whether a Pod of this name could be one of its own."""
        middle = r"-\d+" if self.kind == STATEFUL_SET else r"-[a-z0-9]+-[a-z0-9]{5}"
        return re.fullmatch(re.escape(self.name) + middle, name) is not None

    @property
    def reports(self) -> bool:
        """Whether its workers tell their version."""
        return PORT in self.annotations or APPLIED in self.annotations


class Pod(NamedTuple):
    """What matters of a Pod."""

    name: str
    uid: str
    created: str = ""
    is_ready: bool = False
    is_ending: bool = False
    has_ended: bool = False  # see `has_ended`
    zone: str = ""
    address: str = ""  # IP and port of its page, "" where it has none or is not there yet
    said: str = ""  # its annotation of the version
    reports: bool = False


@dataclass(frozen=True, slots=True)
class Pool:
    """`members` shall have jobs. `vacant` are members without a Pod, of a Deployment, whose place is kept for now."""

    members: tuple[Worker, ...] = ()
    successors: Mapping[str, str] = field(default_factory=dict)
    reports: frozenset[str] = frozenset()  # names of workers that tell their version
    vacant: frozenset[str] = frozenset()
    coming: frozenset[str] = frozenset()  # ready, and not members yet
    passing: frozenset[str] = frozenset()  # names of workers under which no other Pod will come


def read_workload(obj: Object) -> Workload:
    """Raises Malformed, which names the object, where its capacity is no number."""
    spec, template = obj["spec"], obj["spec"]["template"].get("metadata") or {}
    annotations = template.get("annotations") or {}
    text = annotations.get(CAPACITY)
    if text is not None and not (text.isascii() and text.isdigit() and int(text[:9]) > 0):
        where = f"{obj['kind']} {obj['metadata']['name']}: spec.template.metadata.annotations[{CAPACITY}]"
        raise Malformed(where, text, "give a whole number from 1")
    return Workload(
        obj["kind"],
        obj["metadata"]["name"],
        1 if spec.get("replicas") is None else spec["replicas"],
        selector_text(spec["selector"], "spec.selector"),
        (spec.get("ordinals") or {}).get("start", 0),
        template.get("labels") or {},
        annotations,
    )


def read_pod(obj: Object, zone_label: str = ZONE) -> Pod:
    metadata, status = obj["metadata"], obj.get("status") or {}
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    port, ip = annotations.get(PORT, ""), status.get("podIP") or ""
    conditions = status.get("conditions") or []
    host = f"[{ip}]" if ":" in ip else ip
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp") or "",
        is_ready=any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions),
        is_ending="deletionTimestamp" in metadata,
        has_ended=status.get("phase") in ENDED and has_ended(obj),
        zone=labels.get(zone_label, ""),
        address=f"{host}:{port}" if ip and port.isascii() and port.isdigit() else "",
        said=annotations.get(APPLIED, ""),
        reports=PORT in annotations or APPLIED in annotations,
    )


def has_ended(pod: Object) -> bool:
    """Whether the kubelet says of every container that it does not run. A phase alone may be of a node that is lost."""
    status = pod.get("status") or {}
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    return not any("running" in (each.get("state") or {}) for kind in kinds for each in status.get(kind) or [])


def said_version(pod: Pod) -> int | None:
    """The version that a Pod's annotation tells, if it is of this very Pod."""
    uid, _colon, version = pod.said.rpartition(":")
    return int(version) if uid == pod.uid and version.isascii() and version.isdigit() else None


def target(spec: Spec, jobs: int, workloads: Sequence[Workload]) -> int | None:
    """How many replicas the operator wants; None: it does not scale. Raises Malformed where it is not clear what."""
    if spec.replicas is None and spec.scaling is None:
        return None
    if len(workloads) != 1:
        names = ", ".join(f"{each.kind} {each.name}" for each in workloads) or "none"
        field_name = "spec.replicas" if spec.replicas is not None else "spec.scaling"
        raise Malformed(field_name, names, "it scales one workload: have workers.selector select exactly one")
    if spec.scaling is None:
        return spec.replicas
    return max(spec.scaling.least, min(spec.scaling.most, -(-jobs // spec.scaling.jobs_per_worker)))


def pool(
    spec: Spec,
    workloads: Sequence[Workload],
    pods: Mapping[str, Pod],
    config: Config,
    *,
    wanted: int | None = None,
    expired: Collection[str] = (),
    is_patient: bool = True,
) -> Pool:
    """Who the workers are. `pods` by name, read after `config`; `wanted` is `target`.

    `expired` are names whose Pods have been missing for the grace time. `is_patient`: the grace time of new Pods that
    are ready has not passed.
    """
    makers = {STATEFUL_SET: _ordinals, DEPLOYMENT: _places}
    is_first = not any(entry.jobs for entry in config.entries.values())
    members: list[Worker] = []
    successors: dict[str, str] = {}
    vacant: set[str] = set()
    coming: set[str] = set()
    reports: set[str] = set()
    passing: set[str] = set()
    for workload in sorted(workloads, key=lambda each: (each.kind, each.name)):
        replicas = workload.replicas if wanted is None else min(workload.replicas, wanted)
        found = makers[workload.kind](workload, replicas, pods, config, expired, is_first, is_patient)
        takes, capacity = _takes(spec, workload), _capacity(spec, workload)
        for name in found.names:
            pod = pods.get(name)
            zone = pod.zone if pod and pod.zone else config.holds[name].zone if name in config.holds else ""
            members.append(Worker(name, takes, capacity, zone))
        successors.update(found.successors)
        vacant |= found.vacant
        coming |= found.coming
        owned = {name for name in (*found.names, *config.entries) if workload.owns(name)}
        if workload.reports:
            reports |= owned
        if workload.kind == DEPLOYMENT:
            passing |= owned
    reports = {name for name in reports if name not in pods} | {name for name, pod in pods.items() if pod.reports}
    return Pool(
        tuple(members), successors, frozenset(reports), frozenset(vacant), frozenset(coming), frozenset(passing)
    )


class _Found(NamedTuple):
    names: list[str]
    successors: Mapping[str, str] = {}
    vacant: frozenset[str] = frozenset()
    coming: frozenset[str] = frozenset()


def _ordinals(
    workload: Workload,
    replicas: int,
    pods: Mapping[str, Pod],
    config: Config,
    _expired: Collection[str],
    is_first: bool,
    is_patient: bool,
) -> _Found:
    """A StatefulSet's workers."""
    names = [f"{workload.name}-{number}" for number in range(workload.start, workload.start + replicas)]
    if is_first:
        return _Found(names)
    has_part = {name for name in names if jobs_of(config, name) or _awaits(config, name)}
    ready = {name for name in names if name in pods and pods[name].is_ready and not pods[name].is_ending} - has_part
    if len(ready) + len(has_part) < len(names) and is_patient:
        return _Found([name for name in names if name in has_part], coming=frozenset(ready))
    return _Found([name for name in names if name in has_part or name in ready])


def _places(
    workload: Workload,
    replicas: int,
    pods: Mapping[str, Pod],
    config: Config,
    expired: Collection[str],
    _is_first: bool,
    is_patient: bool,
) -> _Found:
    """A Deployment's workers."""
    own = {name: pod for name, pod in pods.items() if workload.owns(name)}
    alive = sorted(
        (pod.created, natural(name), name) for name, pod in own.items() if not (pod.is_ending or pod.has_ended)
    )
    there = config.entries.keys() | config.holds.keys()
    known = [name for *_order, name in alive if name in there]
    new = [name for *_order, name in alive if name not in there and own[name].is_ready]
    free = max(0, replicas - len(known))
    shares = [name for name in sorted(config.entries, key=natural) if workload.owns(name) and name not in known]
    shares = [name for name in shares if name not in expired or name in own]
    let_go = [name for name in shares if _lets_go(config, name) and not jobs_of(config, name)]
    heirs = [name for name in known if _awaits(config, name) and not jobs_of(config, name)]
    promised = dict(zip(let_go, heirs, strict=False))
    left = [name for name in shares if name not in promised and (jobs_of(config, name) or name in let_go)]
    taken = dict(zip(left, new[:free], strict=False))
    vacant = [name for name in left if name not in taken][: free - len(taken)]
    extra = new[len(taken) : free - len(vacant)]
    coming: frozenset[str] = frozenset()
    if len(extra) < free - len(taken) - len(vacant) and is_patient:
        extra, coming = [], frozenset(extra)
    return _Found([*known, *taken.values(), *vacant, *extra], {**promised, **taken}, frozenset(vacant), coming)


def _awaits(config: Config, name: str) -> bool:
    return name in config.holds and config.holds[name].awaits


def _lets_go(config: Config, name: str) -> bool:
    return name in config.holds and bool(config.holds[name].leaving)


def _takes(spec: Spec, workload: Workload) -> frozenset[str]:
    fitting = [each for each in spec.classes if selects(each.selector, workload.labels, "spec.classes")]
    own = frozenset(each.name for each in fitting if each.exclusive)
    return own or frozenset(each.name for each in fitting) | {""}


def _capacity(spec: Spec, workload: Workload) -> int | None:
    text = workload.annotations.get(CAPACITY)
    return int(text) if text else spec.capacity


def sights(
    found: Pool,
    config: Config,
    pods: Mapping[str, Pod],
    reports: Mapping[str, int],
    *,
    lingering: Collection[str] = (),
    overdue: Collection[str] = (),
) -> dict[str, convergence.Sight]:
    """What was seen of each worker. `reports` are versions by Pod uid; `lingering` and `overdue` are names."""
    told = {}
    for name in {member.name for member in found.members} | config.entries.keys() | config.holds.keys():
        pod = pods.get(name)
        if pod is None or pod.has_ended:
            told[name] = convergence.Sight(
                reports=name in found.reports, lingers=name in lingering, comes_back=name not in found.passing
            )
            continue
        applied = said_version(pod)
        applied = reports.get(pod.uid) if applied is None else applied
        told[name] = convergence.Sight(
            pod.uid, pod.reports, applied, pod.is_ready, pod.is_ending, name in lingering, name in overdue, pod.zone,
            name not in found.passing,
        )  # fmt: skip
    return told


def scale_to(spec: Spec, jobs: int, workloads: Sequence[Workload], config: Config) -> int | None:
    """The number of replicas to be written to the workload now; None: none is. Raises as `target`."""
    wanted = target(spec, jobs, workloads)
    if wanted is None or wanted == workloads[0].replicas:
        return None
    workload = workloads[0]
    if wanted > workload.replicas or workload.kind != STATEFUL_SET:
        return wanted
    going = [
        f"{workload.name}-{number}" for number in range(workload.start + wanted, workload.start + workload.replicas)
    ]
    return wanted if all(convergence.is_drained(config, name) for name in going) else None

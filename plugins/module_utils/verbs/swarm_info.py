# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How Swarms stand: `info` looks at everything as an operator would, `told` reads what operators have told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, Forbidden, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    convergence,
    placement,
    swarm,
    swarm_pool,
    worker_config,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Sight
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Spec
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm_pool import Pod, Pool
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config, Hold
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import Ask, Found, Memory, Turn
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm_modules import asker, counted, now, snake

_ORDINAL = re.compile(r".+-\d+")  # Pods whose names come back; others are of Deployments
FACTS: Final = ("jobs", "unplaced", "imbalance", "converged", "waits_for", "config_maps")

Object = dict[str, Any]
Result = dict[str, Any]


def info(
    api: Api,
    *,
    namespace: str,
    name: str | None = None,
    config_map: str | None = None,
    job: str | None = None,
    check_mode: bool = False,
) -> Result:
    """All Swarms of a namespace and the workers' ConfigMaps of no Swarm, or one of either by its name; it only reads.

    What is malformed, or may not be read, is listed with its `error`. `job`: where it is, and why, in `explanation`.
    """
    objects = [] if config_map else swarms(api, namespace, name)
    found = [_of_swarm(api, obj, job) for obj in objects]
    if name is None:
        others = [config_map] if config_map else _others(api, namespace, {one["config_map"] for one in found})
        found += [one for other in others for one in _of_configmap(api, namespace, other, job)]
    return {"changed": False, "swarms": found}


def told(api: Api, *, namespace: str, name: str | None = None) -> list[Result]:
    """How Swarms stand by their status, or the one of that name; with numbers in place of lists of jobs.

    A ConfigMap that no Swarm stands for is looked at; one of that name, where no Swarm has it.
    """
    found = [_by_status(obj) for obj in swarms(api, namespace, name)]
    others = [name] if name and not found else []
    if name is None:
        others = _others(api, namespace, {one["config_map"] for one in found})
    return found + [_in_numbers(one) for other in others for one in _of_configmap(api, namespace, other, None)]


def swarms(api: Api, namespace: str, name: str | None = None) -> list[Object]:
    """The Swarm objects of a namespace, or the one of that name; none where the cluster does not know the kind."""
    try:
        found = api.list(verbs.SWARMS, namespace).items if name is None else [api.get(verbs.SWARMS, name, namespace)]
    except NotFound:
        return []
    return sorted(found, key=lambda obj: str(obj["metadata"]["name"]))


def _others(api: Api, namespace: str, kept: set[str]) -> list[str]:
    """Names of the workers' ConfigMaps, of several parts the first, but for those that are `kept`."""
    label = worker_config.PART_OF
    listed = api.list(CONFIGMAPS, namespace, label_selector=label, metadata_only=True).items
    heads = {str(obj["metadata"]["labels"][label]) for obj in listed}
    return sorted(heads - kept)


# ---------------------------------------------------------------------------------------------------------------------
# What is seen


def _of_swarm(api: Api, obj: Object, job: str | None) -> Result:
    """A Swarm: what its operator told, and what is seen now."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    own: Result = {
        "name": metadata["name"],
        "config_map": _target(obj),
        "manager": _manager(obj),
        "status": status,
    }
    try:
        spec = swarm.parse_spec(obj.get("spec"))
        jobs, _sources = verbs.read_jobs(api, metadata["namespace"], spec)
        turn = _turn(api, obj, spec, jobs)
    except (Malformed, Forbidden) as error:
        seen = _of_configmap(api, metadata["namespace"], own["config_map"], job)
        return {**(seen[0] if seen else _nothing(metadata["namespace"])), **own, "error": str(error)}
    step, config = turn.step, turn.found.config
    weights = {each.name: each.weight for each in jobs}
    return {
        **_nothing(metadata["namespace"]),
        **own,
        **_written(turn.found),
        "jobs": len(jobs),
        "unplaced": dict(sorted(step.placement.unplaced.items())),
        "imbalance": step.placement.imbalance,
        "converged": step.is_converged,
        "waits_for": dict(step.waits),
        "workers": [
            {
                **_stands(name, config),
                "applied": standing.applied,
                "state": standing.state,
                "load": _load(name, turn, weights),
            }
            for name, standing in step.standings.items()
        ],
        "explanation": explained(job, jobs, turn) if job in weights else None,
    }


def _load(worker: str, turn: Turn, weights: Mapping[str, int]) -> int:
    return sum(weights.get(job, 1) for job in worker_config.jobs_of(turn.found.config, worker))


def _turn(api: Api, obj: Object, spec: Spec, jobs: Sequence[Job]) -> Turn:
    """What the operator would do now. Whether a Pod that vanished may still run is what only the operator knows."""
    pool = (obj.get("status") or {}).get("pool") or ()
    namespace = obj["metadata"]["namespace"]
    return verbs.turn(
        api,
        namespace,
        spec,
        jobs,
        Memory(has_looked=True),
        manager=_manager(obj),
        ask=_or_told(asker(api, namespace), {one["name"]: one["applied"] for one in pool if "applied" in one}),
        now=now(),
        history=lambda: max((one.get("wanted", -1) for one in pool), default=-1),
        check_mode=True,
    )


def _or_told(ask: Ask, known: Mapping[str, int]) -> Ask:
    """Of workers that do not answer us, what they answered to the operator."""

    def either(pods: Sequence[Pod]) -> Mapping[str, int]:
        return {**{pod.uid: known[pod.name] for pod in pods if pod.name in known}, **ask(pods)}

    return either


def _of_configmap(api: Api, namespace: str, name: str, job: str | None) -> list[Result]:
    """What the workers were told, and what they run; an empty list where there is no such ConfigMap."""
    own: Result = {**_nothing(namespace), "config_map": name}
    try:
        found = verbs.read(api, namespace, Spec(configmap=name), Memory(), "")
    except (Malformed, Forbidden) as error:
        return [{**own, "error": str(error)}]
    if not found.objects:
        return []
    config = found.config
    pods = {worker: pod for worker, pod in found.pods.items() if worker in config.entries or worker in config.holds}
    reports = asker(api, namespace)([pod for pod in pods.values() if pod.address])
    passing = frozenset(worker for worker in {*config.entries, *config.holds} if not _ORDINAL.fullmatch(worker))
    pool = Pool(reports=frozenset(worker for worker, pod in pods.items() if pod.reports), passing=passing)
    sights = swarm_pool.sights(pool, config, pods, reports)
    workers = [_seen(worker, config, sights[worker]) for worker in sorted(sights, key=worker_config.natural)]
    assigned = {each for entry in config.entries.values() for each in entry.jobs}
    manager = (found.objects[0]["metadata"].get("annotations") or {}).get(verbs.MANAGER)
    return [
        {
            **own,
            **_written(found),
            "manager": manager,
            "jobs": len(assigned.union(*(hold.leaving for hold in config.holds.values())) - {worker_config.ANYTHING}),
            "imbalance": config.rebalance.get("imbalance"),
            "converged": all(one["state"] == convergence.CONVERGED for one in workers),
            "waits_for": {one["name"]: why for one in workers if (why := _late(one))},
            "workers": workers,
            "explanation": _whereabouts(job, config, _fact(job, config, manager)) if job else None,
        }
    ]


def _nothing(namespace: str) -> Result:
    """All that is told of a Swarm, while nothing of it is known."""
    unknown = dict.fromkeys(("name", "config_map", "manager", "status", *FACTS, "explanation", "error"))
    return {"namespace": namespace, **unknown, "rebalance": {}, "workers": []}


def _written(found: Found) -> Result:
    """What the ConfigMaps tell, whoever keeps them."""
    return {"config_maps": len(found.objects), "rebalance": _snaked(found.config.rebalance)}


def _snaked(rebalance: Mapping[str, Any]) -> Result:
    return {snake(key): value for key, value in rebalance.items() if key != "inputs"}


def _stands(name: str, config: Config) -> Result:
    """What a worker was told."""
    entry, hold = config.entries.get(name), config.holds.get(name, Hold())
    return {
        "name": name,
        "jobs": list(entry.jobs) if entry else [],
        "load": None,
        "version": entry.version if entry else None,
        "applied": None,
        "state": convergence.MISSING,
        "leaving": sorted(hold.leaving),
    }


def _seen(name: str, config: Config, sight: Sight) -> Result:
    """One worker by what is written and what is seen of it, whatever is wanted of it."""
    entry, hold = config.entries.get(name), config.holds.get(name, Hold())
    known = convergence.known(hold, sight)
    if not sight.uid:
        state = convergence.MISSING
    elif entry is None or not (hold.leaving or (known < entry.version and (sight.reports or sight.comes_back))):
        state = convergence.CONVERGED
    else:
        state = convergence.RELOADING if sight.reports else convergence.RESTARTING
    applied = None if known in (convergence.NOTHING, convergence.EVERYTHING) else known
    return {**_stands(name, config), "applied": applied, "state": state}


def _late(worker: Result) -> str:
    """Why a worker is waited for; empty where it is not."""
    if worker["state"] == convergence.CONVERGED:
        return ""
    if worker["state"] == convergence.MISSING:
        return "it has no Pod"
    if worker["leaving"]:
        return f"it has not shown that it let go {counted(len(worker['leaving']), 'job')}"
    has = "nothing yet" if worker["applied"] is None else f"version {worker['applied']}"
    return f"it has to run version {worker['version']}, and is known to run {has}"


# ---------------------------------------------------------------------------------------------------------------------
# Why a job is where it is


def explained(job: str | None, jobs: Sequence[Job], turn: Turn) -> Result:
    """Where a job is, where it is to be, and why. Raises Malformed for a job that is not there."""
    name, step = job or "", turn.step
    before = convergence.held(turn.found.config, turn.pool.successors)
    why = placement.explain(name, jobs, turn.pool.members, before, step.placement)
    at = _whereabouts(name, step.config, why)
    planned = next((worker for worker, own in step.placement.assignment.items() if name in own), None)
    is_moving = at["worker"] != planned or at["leaving"]
    concerned = {*at["leaving"], at["worker"], planned}
    return {
        **at,
        "planned": planned,
        "state": "unplaced" if planned is None else "moving" if is_moving else "placed",
        "waits_for": {worker: reason for worker, reason in step.waits.items() if worker in concerned},
    }


def _whereabouts(job: str, config: Config, why: str) -> Result:
    """Who has a job in its list, and who was told to let it go and may still run it."""
    worker = next((name for name, entry in config.entries.items() if job in entry.jobs), None)
    leaving = sorted((name for name, hold in config.holds.items() if job in hold.leaving), key=worker_config.natural)
    state = "moving" if leaving else "placed" if worker else "unplaced"
    return {
        "job": job,
        "worker": worker,
        "planned": None,
        "leaving": leaving,
        "state": state,
        "why": why,
        "waits_for": {},
    }


def _fact(job: str, config: Config, manager: str | None) -> str:
    """Where a job is, of which it is not known what was asked for it."""
    at = _whereabouts(job, config, "")
    told = [f"{at['worker']} has it in its list" if at["worker"] else "no worker has it in its list"]
    told += [f"{', '.join(at['leaving'])} had it, and may still run it"] if at["leaving"] else []
    return f"{job}: {'; '.join(told)}. Why is known to who keeps the list: {manager or 'nobody has marked it'}."


# ---------------------------------------------------------------------------------------------------------------------
# What was told


def _by_status(obj: Object) -> Result:
    status = obj.get("status") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or ()}
    failing = conditions.get("Degraded", {})
    is_paused = bool((obj.get("spec") or {}).get("paused"))
    waits_for = status.get("waitsFor")
    return {
        "name": obj["metadata"]["name"],
        "namespace": obj["metadata"]["namespace"],
        "config_map": _target(obj),
        "manager": _manager(obj),
        "jobs": status.get("jobs"),
        "unplaced": status.get("unplaced"),
        "unschedulable": {one["job"]: one["reason"] for one in status.get("unschedulable") or ()},
        "converged": status.get("converged"),
        "paused": is_paused,
        "waits_for": waits_for if isinstance(waits_for, Mapping) else None,
        "rebalance": _snaked(status.get("rebalance") or {}),
        "workers": [
            {
                "name": one["name"],
                "jobs": one["jobs"],
                "load": one["load"],
                "version": one.get("wanted"),
                "applied": one.get("applied"),
                "state": one["state"],
            }
            for one in status.get("pool") or ()
        ],
        "error": failing.get("message") if failing.get("reason") == "Refused" else None,
    }


def _in_numbers(one: Result) -> Result:
    """What was seen, as `_by_status` tells it."""
    keys = ("name", "namespace", "config_map", "manager", "jobs", "converged", "rebalance", "error")
    late = next(iter((one["waits_for"] or {}).items()), None)
    return {
        **{key: one[key] for key in keys},
        "unplaced": 0,
        "unschedulable": {},
        "paused": False,
        "waits_for": {"worker": late[0], "since": None, "reason": late[1]} if late else None,
        "workers": [
            {
                **{key: worker[key] for key in ("name", "load", "version", "applied", "state")},
                "jobs": len(worker["jobs"]),
            }
            for worker in one["workers"]
        ],
    }


def _target(obj: Object) -> str:
    return str((obj.get("spec") or {}).get("configMap") or swarm.CONFIGMAP)


def _manager(obj: Object) -> str:
    return f"{verbs.SWARMS.kind}/{obj['metadata']['name']}"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the status of a Swarm tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import jobs_of

MOST_UNSCHEDULABLE: Final = 100
MOST_TEXT: Final = 1024


def status(
    before: Mapping[str, Any],
    generation: int,
    done: convergence.Step,
    *,
    now: str,
    sources: Sequence[Mapping[str, Any]] = (),
    loads: Mapping[str, int] | None = None,
    parts: int = 1,
) -> dict[str, Any]:
    """The status of a Swarm after a step that was carried out; what we don't know of it is kept."""
    plan, config = done.placement, done.config
    first = next(iter(done.waits.items()), None)
    known = before.get("waitsFor") if isinstance(before.get("waitsFor"), Mapping) else {}
    weights = loads or {}
    said: dict[str, Any] = {
        **before,
        "observedGeneration": generation,
        "jobs": sum(map(len, plan.assignment.values())) + len(plan.unplaced),
        "placed": sum(map(len, plan.assignment.values())),
        "unplaced": len(plan.unplaced),
        "workers": len(plan.assignment),
        "converged": done.is_converged,
        "configMaps": parts,
        "pool": [
            {
                "name": name,
                "jobs": standing.jobs,
                "load": sum(weights.get(job, 1) for job in jobs_of(config, name)),
                **({} if standing.wanted is None else {"wanted": standing.wanted}),
                **({} if standing.applied is None else {"applied": standing.applied}),
                "state": standing.state,
            }
            for name, standing in done.standings.items()
        ],
        "unschedulable": [
            {"job": job, "reason": why[:MOST_TEXT]} for job, why in sorted(plan.unplaced.items())[:MOST_UNSCHEDULABLE]
        ],
        "rebalance": {key: value for key, value in config.rebalance.items() if key != "inputs"},
        "sources": [dict(source) for source in sources],
        "waitsFor": None,
    }
    if first is not None:
        worker, why = first
        since = known.get("since") if known and known.get("worker") == worker else now
        said["waitsFor"] = {"worker": worker, "since": since, "reason": why[:MOST_TEXT]}
    said["conditions"] = _conditions(before, done, now, generation)
    return {key: value for key, value in said.items() if value is not None}


def refused(before: Mapping[str, Any], generation: int, why: str, now: str) -> dict[str, Any]:
    """The status of a Swarm that can't be understood: what was assigned stays as it is."""
    said = {
        "Ready": ("False", "Refused", why),
        "Progressing": ("False", "Refused", why),
        "Degraded": ("True", "Refused", why),
    }
    return {**before, "observedGeneration": generation, "conditions": _merged(before, said, now, generation)}


def lost(before: Mapping[str, Any], generation: int, why: str, now: str) -> dict[str, Any]:
    """The status of a Swarm whose configuration is gone, and is not made anew yet: the workers go on."""
    said = {"Ready": ("False", "Recovering", why), "Progressing": ("True", "Recovering", why)}
    conditions = _merged(before, said, now, generation)
    return {**before, "observedGeneration": generation, "converged": False, "conditions": conditions}


def paused(before: Mapping[str, Any], generation: int, now: str) -> dict[str, Any]:
    """The status of a Swarm that is to be left alone."""
    said = {"Progressing": ("False", "Paused", "spec.paused is true: nothing is changed")}
    return {**before, "observedGeneration": generation, "conditions": _merged(before, said, now, generation)}


def _conditions(before: Mapping[str, Any], done: convergence.Step, now: str, generation: int) -> list[Any]:
    unplaced, waits = done.placement.unplaced, done.waits
    job, why = next(iter(sorted(unplaced.items())), ("", ""))
    worker, waiting = next(iter(waits.items()), ("", ""))
    held_up = f"{worker}: {waiting}" + (f", and {len(waits) - 1} more" if len(waits) > 1 else "")
    homeless = f"{len(unplaced)} jobs have no worker; {job}: {why}"
    said = {
        "Ready": ("True", "Converged", "each job is run by its worker")
        if not (waits or unplaced)
        else ("False", "Unschedulable", homeless)
        if not waits
        else ("False", "Converging", held_up),
        "Progressing": ("True", "Converging", held_up) if waits else ("False", "Converged", ""),
        "Degraded": ("True", "Unschedulable", homeless) if unplaced else ("False", "AllPlaced", ""),
    }
    return _merged(before, said, now, generation)


def _merged(
    before: Mapping[str, Any], said: Mapping[str, tuple[str, str, str]], now: str, generation: int
) -> list[dict[str, Any]]:
    listed = before.get("conditions") if isinstance(before.get("conditions"), list) else []
    known = {each["type"]: each for each in listed or () if isinstance(each, Mapping) and "type" in each}
    for kind, (state, reason, message) in said.items():
        old = known.get(kind, {})
        since = old.get("lastTransitionTime") if old.get("status") == state else now
        known[kind] = {
            **old,
            "type": kind,
            "status": state,
            "reason": reason,
            "message": message[:MOST_TEXT],
            "observedGeneration": generation,
            "lastTransitionTime": since or now,
        }
    return [dict(each) for each in known.values()]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a Deployment, StatefulSet or DaemonSet has come with what its spec says, read from the object alone.

The conditions are those of `kubectl rollout status`. They count Pods of the workload, not those that still end.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

Object = dict[str, Any]

SURGE_DEFAULT: Final = "25%"  # a Deployment's maxSurge and maxUnavailable


class Progress(NamedTuple):
    """Whether every Pod runs what the spec says and is available, and how far it is, in words."""

    done: bool
    said: str


def progress(workload: Object) -> Progress:
    """How far the roll-out is."""
    status = workload.get("status") or {}
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return Progress(False, "its controller has not looked at it yet")
    if workload["kind"] == "DaemonSet":
        wanted, there = status.get("desiredNumberScheduled", 0), status.get("currentNumberScheduled", 0)
        updated, available = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    else:
        wanted, there = workload["spec"].get("replicas", 1), status.get("replicas", 0)
        updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    to_update = max(0, wanted - _partition(workload))
    if updated < to_update:
        return Progress(False, f"{updated} of {to_update} Pods run what was asked for")
    if there > wanted:
        return Progress(False, f"{there - wanted} old Pods are still there")
    if available < wanted:
        return Progress(False, f"{available} of {wanted} Pods are available")
    return Progress(True, f"{to_update} of {to_update} Pods run what was asked for")


def held_up(workload: Object) -> str:
    """Why a change of the spec reaches no Pod by itself, in words; empty where it does."""
    spec = workload["spec"]
    if spec.get("paused"):
        return "it is paused: its Pods change when it is resumed (kubectl rollout resume)"
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return "its update strategy is OnDelete: a Pod changes when it is deleted"
    partition = _partition(workload)
    if partition and partition >= spec.get("replicas", 1):
        return f"its partition is {partition}: no Pod changes before that is lowered"
    return ""


def never_makes_room(workload: Object) -> bool:
    """Whether a Deployment waits for a new Pod to be available before it lets an old one go."""
    spec = workload["spec"]
    strategy = spec.get("strategy") or {}
    if workload["kind"] != "Deployment" or strategy.get("type") == "Recreate":
        return False
    limits = strategy.get("rollingUpdate") or {}
    replicas = spec.get("replicas", 1)
    if _share(limits.get("maxSurge", SURGE_DEFAULT), replicas, up=True) == 0:
        return False  # then the controller takes at least one away
    return _share(limits.get("maxUnavailable", SURGE_DEFAULT), replicas, up=False) == 0


def _partition(workload: Object) -> int:
    """How many Pods of a StatefulSet, those of the lowest ordinals, keep what they run."""
    limits = (workload["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    partition: int = limits.get("partition", 0)
    return partition


def _share(limit: Any, replicas: int, *, up: bool) -> int:
    """A number, or a percentage of the replicas, rounded as the controller rounds it."""
    if isinstance(limit, str) and limit.endswith("%"):
        hundredths = int(limit[:-1]) * replicas
        return -(-hundredths // 100) if up else hundredths // 100
    return int(limit)

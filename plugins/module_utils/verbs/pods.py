# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Pods live: those that are there and have not ended (Succeeded, Failed)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import PODS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

LIVING: Final = "status.phase!=Succeeded,status.phase!=Failed"
ENDED: Final = "status.phase!=Pending,status.phase!=Running,status.phase!=Unknown"
FEW: Final = 8  # so many are looked up one by one; more, by one list


def uid_of(api: Api, namespace: str, name: str) -> str:
    """The uid of a Pod that lives, else an empty string."""
    try:
        pod = api.get(PODS, name, namespace)
    except NotFound:
        return ""
    uid: str = pod["metadata"]["uid"]
    return "" if pod.get("status", {}).get("phase") in ("Succeeded", "Failed") else uid


def is_leaving(pod: Mapping[str, Any]) -> bool:
    """Whether it is being deleted, which nothing can undo: it may go on for its grace period, but needs nothing new."""
    return pod["metadata"].get("deletionTimestamp") is not None


def living(api: Api, namespace: str, names: Iterable[str]) -> dict[str, str]:
    """Those of these Pods that live, name to uid; asked of the API server, not of a cache."""
    names = [name for name in dict.fromkeys(names) if name]
    if len(names) > FEW:
        there = api.list(PODS, namespace, field_selector=LIVING, metadata_only=True).items
        return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in there}
    found = {name: uid_of(api, namespace, name) for name in names}
    return {name: uid for name, uid in found.items() if uid}


def is_gone(api: Api, namespace: str, name: str, uid: str | None) -> bool:
    """Whether this very Pod is gone or has ended."""
    return uid_of(api, namespace, name) != uid


def gone(namespace: str, name: str, uid: str | None) -> MusterError:
    """What a sidecar is told that outlives its Pod's object (force deletion): it must not claim again."""
    return MusterError(f"Pod {namespace}/{name} with uid {uid} does not exist any more: it can claim nothing")


def refuse_gone(api: Api, namespace: str, name: str, uid: str | None) -> None:
    """Raise `gone` where it is."""
    if is_gone(api, namespace, name, uid):
        raise gone(namespace, name, uid)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An allocator without its server, on an API server in memory: for tests of what playbooks do with it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import ApiError, Put, Snapshot
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Offer, make_offer
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import FINALIZER
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import parse
from ansible_collections.muster.coordination.plugins.module_utils.verbs import allocator as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES, publish_offer
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator_modules import (
    ClusterDoor,
    Wanted,
    settle,
)
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

PARAMETERS = {
    "colour": {"type": "string", "default": "red", "enum": ["red", "blue"]},
    "size": {"type": "integer", "default": 1, "minimum": 1, "maximum": 9},
    "loud": {"type": "boolean", "default": False},
}
TEMPLATE = [
    {"apiVersion": "muster.dev/v1alpha1", "kind": "InstanceTemplate", "spec": {"parameters": PARAMETERS}},
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "{{.Name}}"},
        "data": {"all": "{{.colour}} {{.size}} {{.loud}}"},
    },
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "{{.Name}}"},
        "spec": {"selector": {"app": "{{.Name}}"}, "ports": [{"name": "http", "port": 80}]},
    },
]


def offer(**more: Any) -> Offer:
    said: dict[str, Any] = {"max_instances_per_user": 2, "administrators": ("root",), **more}
    return make_offer(name="alloc", server_name="kv", template=parse(TEMPLATE, "template"), **said)


class Site:
    """An allocator without its server; its controller is one that has everything ready at once."""

    def __init__(self) -> None:
        self.api: Any = MemoryApi()
        self._stop = threading.Event()
        self.publish()

    def publish(self, **more: Any) -> None:
        publish_offer(self.api, "ns", offer(**more))

    def door(self, owner: str = "alice") -> ClusterDoor:
        return ClusterDoor(self.api, "ns", "alloc", owner)

    def settle(self, state: str = "present", owner: str = "alice", **wanted: Any) -> dict[str, Any]:
        seconds, check_mode = wanted.pop("seconds", None), wanted.pop("check_mode", False)
        return settle(self.door(owner), state, Wanted(**wanted), seconds, check_mode=check_mode)

    def all(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.list(INSTANCES, "ns").items
        return found

    def names(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.all()]

    def control(self, phase: Callable[[dict[str, Any]], str] | None = None) -> None:
        """Begin to say of each instance that it is as it is wanted, or what `phase` says."""

        def run() -> None:
            for change in self.api.follow(INSTANCES, "ns", stop=self._stop):
                for obj in change.items if isinstance(change, Snapshot) else [change.obj]:
                    if isinstance(change, Snapshot | Put):
                        with suppress(ApiError):
                            self._look(obj["metadata"]["name"], phase)

        threading.Thread(target=run, daemon=True).start()

    def _look(self, name: str, phase: Callable[[dict[str, Any]], str] | None) -> None:
        obj = self.api.get(INSTANCES, name, "ns")
        if obj["metadata"].get("deletionTimestamp"):
            verbs.close(verbs.Ledgers(self.api, "ns", "alloc"), obj)
            verbs.release(verbs.Ledgers(self.api, "ns", "alloc"), obj)
            self.api.replace(INSTANCES, {**obj, "metadata": {**obj["metadata"], "finalizers": []}})
        elif FINALIZER not in obj["metadata"].get("finalizers", []):
            self.api.replace(INSTANCES, {**obj, "metadata": {**obj["metadata"], "finalizers": [FINALIZER]}})
        else:
            told = phase(obj) if phase else "Suspended" if obj["spec"]["suspended"] else "Ready"
            status = {"phase": told, "message": "so it is said"}
            if obj.get("status") != status:
                self.api.replace(INSTANCES, {**obj, "status": status}, "status")

    def look(self) -> None:
        """Look after all that there is, once, until nothing is to be done."""
        version = None
        while version != self.api.version:
            version = self.api.version
            for name in self.names():
                self._look(name, None)

    def close(self) -> None:
        self._stop.set()

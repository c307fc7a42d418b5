# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key space at an API server in memory, where the test says what becomes of what was asked for."""

from __future__ import annotations

from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Resource
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    LABEL,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

Object = dict[str, Any]


class Site(MemoryApi):
    """A KeySpace of four lower-case letters, without anybody who carries anything out."""

    def __init__(self) -> None:
        super().__init__()
        self.put(KEY_SPACES, "default", {"keyLength": 4, "alphabet": "abcdefghijklmnopqrstuvwxyz"})
        for worker in ("w-0", "w-1"):
            self.worker(worker)
        self.requests.clear()

    def put(self, resource: Resource, name: str, spec: Object, **metadata: Any) -> Object:
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        return self.create(resource, {**head, "metadata": {"name": name, "namespace": "ns", **metadata}, "spec": spec})

    def worker(self, name: str, holder: str | None = None) -> None:
        spec = {"holderIdentity": f"{name}/1" if holder is None else holder, "leaseDurationSeconds": 6}
        self.put(LEASES, f"default.{name}", spec, labels={LABEL: "default"})

    def part(self, name: str, start: str = "", end: str = "", primary: str = "", epoch: int = 1, **spec: Any) -> Object:
        span = {"range": {"start": start, "end": end}}
        return self.put(PARTITIONS, name, {**span, "primary": primary, "epoch": epoch if primary else 0, **spec})

    def say(self, name: str, phase: str, **status: Any) -> None:
        obj = self.get(ASSIGNMENTS, name, "ns")
        self.replace(ASSIGNMENTS, {**obj, "status": {**obj.get("status", {}), "phase": phase, **status}}, "status")

    def listed(self, resource: Resource) -> dict[str, Object]:
        return {obj["metadata"]["name"]: obj for obj in self.list(resource, "ns").items}

    def writes(self) -> list[str]:
        return [each for each in self.requests if each.split()[0] in ("create", "replace", "delete")]

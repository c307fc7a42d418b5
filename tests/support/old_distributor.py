# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A model of the old Distributor (a Go program), to share ConfigMaps with: what it reads, decides and writes.

"Each instance runs every 50-70 s; each run starts by cleaning existing assignments (removing assignments to hosts that
no longer exist); each run then looks for free resources and, if there are any, claims one for its host." It writes a
whole-object PUT with the resourceVersion that it read. It knows two annotations, reads them as Go reads
`map[string]int` and `map[string]string`, and keeps all others as it found them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

CAPACITY = "distributor_capacity"
ASSIGNMENT = "distributor_assignment"


class GoError(ValueError):
    """json.Unmarshal would return an error: the run ends and writes nothing."""


def run(annotations: Mapping[str, str], host: str, living: Collection[str]) -> dict[str, str] | None:
    """One run on what was read: the annotations to write, or None where nothing changes. Raises GoError."""
    capacity = unmarshal(annotations.get(CAPACITY, ""), int)
    before = unmarshal(annotations.get(ASSIGNMENT, ""), str)
    assignment = {name: resource for name, resource in before.items() if name in living}
    used = list(assignment.values())
    free = [resource for resource in sorted(capacity) if used.count(resource) < capacity[resource]]
    if host not in assignment and free:
        assignment[host] = free[0]
    if assignment == before:
        return None
    return {**annotations, ASSIGNMENT: marshal(assignment)}


def run_once(api: Any, resource: Any, pods: Any, name: str, namespace: str, host: str) -> bool:
    """One run against an API: ConfigMap first, then the Pods, then one PUT. True when it wrote. Raises ApiError."""
    obj = api.get(resource, name, namespace)
    living = {pod["metadata"]["name"] for pod in api.list(pods, namespace).items}
    after = run(obj["metadata"].get("annotations") or {}, host, living)
    if after is None:
        return False
    api.replace(resource, {**obj, "metadata": {**obj["metadata"], "annotations": after}})
    return True


def unmarshal(text: str, kind: type) -> dict[str, Any]:
    """Go's json.Unmarshal into map[string]int or map[string]string: null is an empty map, and a null value is zero."""
    if not text:
        return {}  # the old program reads a missing annotation as an empty map
    try:
        value = json.loads(text)
    except ValueError as error:
        raise GoError(str(error)) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise GoError(f"cannot unmarshal {type(value).__name__} into a map")
    found = {}
    for key, entry in value.items():
        if entry is None:
            entry = kind()
        if type(entry) is not kind:
            raise GoError(f"cannot unmarshal {entry!r} into Go value of type {'int' if kind is int else 'string'}")
        found[key] = entry
    return found


def marshal(value: Mapping[str, str] | None) -> str:
    """Go's json.Marshal of a map: keys sorted, no spaces, <, > and & escaped; a nil map is null."""
    if value is None:
        return "null"
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An API server in memory, with the part of its semantics that compare-and-swap rests on, and faults by script.

It is for questions of order and of loss, which a real server won't answer on demand. What is true of Kubernetes itself
is tested on a real kube-apiserver (tests/integration).

- One counter gives every write its resourceVersion, as etcd does. PUT compares resourceVersion and uid; DELETE compares
  the preconditions given; POST refuses a name that is taken, or a namespace that is missing.
- Everything that goes in or out is copied, and every revision is remembered: a list can be asked for as of any.
- A scale is made of the object's replicas. A Pod is evicted at once, unless `guarded` names it. A page of a Pod is what
  `pages` answers for its name.
- `faults` holds one word for each request to come, consumed by the requests whose kind it names:
  "<get|list|create|replace|dry-run|delete|evict> <fault>", fault one of
  409, 429, 429:<seconds>, 500 (not applied), 500-applied, lost (not applied), lost-applied, unreachable, 403.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    AlreadyExists,
    ApiError,
    Change,
    Conflict,
    Forbidden,
    Gone,
    Listing,
    LostAnswer,
    NotFound,
    Paged,
    Put,
    Removed,
    Resource,
    ServerError,
    Snapshot,
    Throttled,
    Unreachable,
)

Object = dict[str, Any]
Key = tuple[str, str, str]


class MemoryApi:
    """As much of `api.Api` as verbs and commit use."""

    def __init__(self, namespaces: Iterable[str] = ("ns",)) -> None:
        self.objects: dict[Key, Object] = {}
        self.namespaces = set(namespaces)
        self.version = 0
        self.uids = 0
        self.faults: list[str] = []
        self.requests: list[str] = []  # "<verb> <plural>/<name>", in the order in which they came
        self.before_write: Callable[[str], None] | None = None  # told "<verb> <name>": a racing writer may step in
        self.events: list[tuple[int, str, Resource, Object]] = []  # (version, ADDED MODIFIED or DELETED, kind, object)
        self.guarded: set[str] = set()  # Pods that no PodDisruptionBudget allows to evict
        self.pages: dict[str, Callable[[], Object]] = {}
        self.compacted = -1  # lists as of this version or an older one are Gone
        self._followers: list[tuple[Callable[[Object], bool], Resource, queue.SimpleQueue[Change | None]]] = []
        self._lock = threading.RLock()

    # ------------------------------------------------------------------------------------------ as api.Api

    def get(self, resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> Object:
        applied = self._begin("get", resource, name)
        with self._lock:
            found = self.objects.get((resource.plural, namespace or "", name))
        assert applied is None
        if found is None:
            raise NotFound(404, "NotFound", f'{resource.plural} "{name}" not found')
        if subresource == "scale":
            return copy.deepcopy(
                {"metadata": found["metadata"], "spec": {"replicas": found["spec"].get("replicas", 1)}}
            )
        return copy.deepcopy(found)

    def ask_pod(self, name: str, namespace: str, port: str, path: str) -> Object:
        self._begin("ask", PODS, f"{name}:{port}{path}")
        with self._lock:
            page = self.pages.get(name)
            if page is None or (PODS.plural, namespace, name) not in self.objects:
                raise NotFound(404, "NotFound", f'pods "{name}" not found')
            return copy.deepcopy(page())

    def evict(self, name: str, namespace: str, *, uid: str) -> Object:
        lost = self._begin("evict", PODS, name)
        with self._lock:
            there = self.objects.get((PODS.plural, namespace, name))
            if there is None:
                raise NotFound(404, "NotFound", f'pods "{name}" not found')
            if there["metadata"]["uid"] != uid:
                raise Conflict(409, "Conflict", "the UID in the precondition does not match")
            if name in self.guarded:
                raise Throttled(429, "TooManyRequests", "Cannot evict pod as it would violate its disruption budget.")
            self._remove(PODS, there)
        return self._end(lost, {})

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        limit: int = 500,
        at: str = "",
    ) -> Listing:
        self._begin("list", resource, field_selector or label_selector)
        selects = _selects(field_selector, labels=label_selector)
        with self._lock:
            if not at:
                return Listing(self._matching(resource, namespace, selects), str(self.version))
            if int(at) <= self.compacted:
                raise Gone(410, "Expired", "The resourceVersion for the provided list is too old.")
            then: dict[str, Object] = {}
            for version, kind, of, obj in self.events:
                if version <= int(at) and of == resource and obj["metadata"]["namespace"] == namespace:
                    then[obj["metadata"]["name"]] = obj
                    if kind == "DELETED":
                        del then[obj["metadata"]["name"]]
            return Listing([copy.deepcopy(obj) for obj in then.values() if selects(obj)], at)

    def page(
        self, resource: Resource, namespace: str, *, label_selector: str = "", limit: int = 100, after: str = ""
    ) -> Paged:
        found = self.list(resource, namespace, label_selector=label_selector).items
        left = [obj for obj in found if obj["metadata"]["name"] > after]
        return Paged(left[:limit], left[limit - 1]["metadata"]["name"] if len(left) > limit else "")

    def create(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        name, namespace = obj["metadata"]["name"], obj["metadata"]["namespace"]
        lost = self._begin("dry-run" if dry_run else "create", resource, name)
        with self._lock:
            if namespace not in self.namespaces:
                details = {"name": namespace, "kind": "namespaces"}
                raise NotFound(404, "NotFound", f'namespaces "{namespace}" not found', details=details)
            if (resource.plural, namespace, name) in self.objects:
                raise AlreadyExists(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
            if dry_run:
                return copy.deepcopy(obj)
            self.uids += 1
            metadata = {**obj["metadata"], "uid": f"uid-{self.uids}"}
            stored = self._store(resource, {**obj, "metadata": metadata})
        return self._end(lost, stored)

    def replace(self, resource: Resource, obj: Object, subresource: str = "", *, dry_run: bool = False) -> Object:
        metadata = obj["metadata"]
        lost = self._begin("dry-run" if dry_run else "replace", resource, metadata["name"])
        with self._lock:
            there = self.objects.get((resource.plural, metadata["namespace"], metadata["name"]))
            if there is None:
                raise NotFound(404, "NotFound", f'{resource.plural} "{metadata["name"]}" not found')
            # as the server does: what the writer does not name is not compared
            if metadata.get("uid", there["metadata"]["uid"]) != there["metadata"]["uid"]:
                raise Conflict(409, "Conflict", "the UID in the precondition does not match")
            if (
                metadata.get("resourceVersion", there["metadata"]["resourceVersion"])
                != (there["metadata"]["resourceVersion"])
            ):
                raise Conflict(409, "Conflict", "the object has been modified")
            if dry_run:
                return copy.deepcopy(obj)
            after = {**obj, "metadata": {**metadata, "uid": there["metadata"]["uid"]}}
            if subresource == "scale":
                after = {**there, "spec": {**there["spec"], "replicas": obj["spec"]["replicas"]}}
            elif subresource:
                after = {**there, subresource: obj[subresource]}
            elif resource.api_version.startswith("muster.dev/"):
                after = _custom(there, after)
            if "deletionTimestamp" in after["metadata"] and not after["metadata"].get("finalizers"):
                self._remove(resource, after)
                stored = copy.deepcopy(after)
            else:
                stored = self._store(resource, after)
        return self._end(lost, stored)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "",
    ) -> Object:
        lost = self._begin("delete", resource, name)
        with self._lock:
            there = self.objects.get((resource.plural, namespace or "", name))
            if there is None:
                raise NotFound(404, "NotFound", f'{resource.plural} "{name}" not found')
            given = {"uid": uid, "resourceVersion": resource_version}
            if any(value is not None and there["metadata"][key] != value for key, value in given.items()):
                raise Conflict(409, "Conflict", "a precondition does not hold")
            if not there["metadata"].get("finalizers"):
                self._remove(resource, there)
            elif "deletionTimestamp" not in there["metadata"]:
                marked = {**there["metadata"], "deletionTimestamp": "2026-01-31T12:00:30Z"}
                self._store(resource, {**there, "metadata": marked})
        return self._end(lost, {})

    def follow(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        shrink: Callable[[Object], Object] = lambda obj: obj,
        stop: threading.Event | None = None,
        watch_timeout: float = 55.0,
    ) -> Iterator[Change]:
        selects = _selects(field_selector, name, label_selector)
        inbox: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        with self._lock:
            self._begin("list", resource, field_selector)
            inbox.put(Snapshot(list(map(shrink, self._matching(resource, namespace, selects))), str(self.version)))
            self._followers.append((selects, resource, inbox))
        while stop is None or not stop.is_set():
            try:
                change = inbox.get(timeout=0.05)
            except queue.Empty:
                continue
            if isinstance(change, (Put, Removed)):
                yield change._replace(obj=shrink(change.obj))
            elif change is not None:
                yield change

    # ------------------------------------------------------------------------------------------ for tests

    def configmap(self, name: str = "sem", namespace: str = "ns", **annotations: str) -> Object:
        """Make the ConfigMap, or set annotations as a person with kubectl would."""
        with self._lock:
            there = self.objects.get((CONFIGMAPS.plural, namespace, name))
            if there is None:
                metadata = {"name": name, "namespace": namespace, "annotations": dict(annotations)}
                return self.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
            merged = {**there["metadata"].get("annotations", {}), **annotations}
            return self._store(CONFIGMAPS, {**there, "metadata": {**there["metadata"], "annotations": merged}})

    def pod(self, name: str, namespace: str = "ns", phase: str = "Running") -> str:
        """Make a Pod, or move it to another phase; returns its uid."""
        with self._lock:
            there = self.objects.get((PODS.plural, namespace, name))
            if there is None:
                self.uids += 1
                metadata = {"name": name, "namespace": namespace, "uid": f"uid-{self.uids}"}
                there = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
            return self._store(PODS, {**there, "status": {"phase": phase}})["metadata"]["uid"]

    def terminate(self, name: str, namespace: str = "ns") -> None:
        """Delete a Pod as kubectl does: it is there for its grace period, marked."""
        with self._lock:
            there = self.objects[PODS.plural, namespace, name]
            marked = {**there["metadata"], "deletionTimestamp": "2026-01-31T12:00:30Z"}
            self._store(PODS, {**there, "metadata": marked})

    def kill(self, name: str, namespace: str = "ns") -> None:
        """Remove a Pod as a force deletion does: at once."""
        with self._lock:
            there = self.objects.pop((PODS.plural, namespace, name))
            self.version += 1
            self._tell(PODS, there, None, there)

    def lease(self, name: str, namespace: str = "ns", **annotations: str | None) -> Object:
        """Make the Lease, or set annotations of `muster.dev/` (None: remove) as a person with kubectl would."""
        with self._lock:
            there = self.objects.get((LEASES.plural, namespace, name))
            notes = {f"muster.dev/{key}": text for key, text in annotations.items()}
            if there is not None:
                notes = {**there["metadata"].get("annotations", {}), **notes}
            notes = {key: text for key, text in notes.items() if text is not None}
            if there is not None:
                return self._store(LEASES, {**there, "metadata": {**there["metadata"], "annotations": notes}})
            labels = {"muster.dev/semaphore": name}
            metadata = {"name": name, "namespace": namespace, "annotations": notes, "labels": labels}
            return self.create(LEASES, {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata})

    def collect(self, namespace: str = "ns") -> list[str]:
        """The garbage collector: delete the Leases whose Pod is gone; returns their names."""
        with self._lock:
            uids = {
                obj["metadata"]["uid"] for (plural, _ns, _name), obj in self.objects.items() if plural == PODS.plural
            }
            garbage = [
                name
                for (plural, place, name), obj in self.objects.items()
                if plural == LEASES.plural and place == namespace
                if (owners := obj["metadata"].get("ownerReferences"))
                and not any(owner["uid"] in uids for owner in owners)
            ]
            for name in garbage:
                self.delete(LEASES, name, namespace)
            return garbage

    def annotations(self, name: str = "sem", namespace: str = "ns") -> dict[str, str]:
        return dict(self.objects[CONFIGMAPS.plural, namespace, name]["metadata"].get("annotations") or {})

    # ------------------------------------------------------------------------------------------ private

    def _matching(self, resource: Resource, namespace: str | None, selects: Callable[[Object], bool]) -> list[Object]:
        return [
            copy.deepcopy(obj)
            for (plural, place, _name), obj in sorted(self.objects.items())
            if plural == resource.plural and namespace in (None, place) and selects(obj)
        ]

    def _store(self, resource: Resource, obj: Object) -> Object:
        self.version += 1
        stored = copy.deepcopy(obj)
        stored["metadata"]["resourceVersion"] = str(self.version)
        key = (resource.plural, stored["metadata"]["namespace"], stored["metadata"]["name"])
        before = self.objects.get(key)
        self.objects[key] = stored
        self._tell(resource, before, stored, stored)
        return copy.deepcopy(stored)

    def _remove(self, resource: Resource, there: Object) -> None:
        del self.objects[resource.plural, there["metadata"]["namespace"], there["metadata"]["name"]]
        self.version += 1
        gone = {**there, "metadata": {**there["metadata"], "resourceVersion": str(self.version)}}
        self._tell(resource, there, None, gone)

    def _tell(self, resource: Resource, before: Object | None, after: Object | None, shown: Object) -> None:
        kind = "DELETED" if after is None else "MODIFIED" if before else "ADDED"
        self.events.append((self.version, kind, resource, copy.deepcopy(shown)))
        for selects, followed, inbox in self._followers:
            if followed != resource:
                continue
            if after is not None and selects(after):
                inbox.put(Put(copy.deepcopy(shown)))
            elif before is not None and selects(before):
                inbox.put(Removed(copy.deepcopy(shown)))

    def _begin(self, verb: str, resource: Resource, name: str) -> ApiError | None:
        """Raise the fault that is due before the request is applied; return the one that is due after."""
        self.requests.append(f"{verb} {resource.plural}/{name}")
        if self.before_write and verb in ("create", "replace", "delete", "evict"):
            self.before_write(f"{verb} {name}")
        if not self.faults or self.faults[0].split()[0] != verb:
            return None
        fault = self.faults.pop(0).split()[1]
        error, applied = _fault(fault)
        if applied:
            return error
        raise error

    @staticmethod
    def _end(lost: ApiError | None, stored: Object) -> Object:
        if lost is not None:
            raise lost
        return stored


def _custom(there: Object, after: Object) -> Object:
    """A custom object with a status subresource: who writes the object writes no status, and a spec has generations."""
    generation = there["metadata"].get("generation", 1) + (there["spec"] != after["spec"])
    status = {"status": there["status"]} if "status" in there else {}
    kept = {key: value for key, value in after.items() if key != "status"}
    return {**kept, **status, "metadata": {**after["metadata"], "generation": generation}}


def _fault(word: str) -> tuple[ApiError, bool]:
    fault, _, seconds = word.partition(":")
    applied = fault.endswith("-applied")
    retry_after = float(seconds) if seconds else None
    kind = fault.removesuffix("-applied")
    if kind == "409":
        return Conflict(409, "Conflict", "the object has been modified"), applied
    if kind == "429":
        return Throttled(429, "TooManyRequests", "too many requests", retry_after), applied
    if kind in ("500", "503", "504"):
        return ServerError(int(kind), "InternalError", "the server is unwell", retry_after), applied
    if kind == "403":
        return Forbidden(403, "Forbidden", "not allowed"), applied
    if kind == "lost":
        return LostAnswer(0, "LostAnswer", "connection reset by peer"), applied
    if kind == "unreachable":
        return Unreachable(0, "Unreachable", "connection refused"), applied
    raise ValueError(f"no such fault: {word}")


def _selects(field_selector: str, name: str | None = None, labels: str = "") -> Callable[[Object], bool]:
    terms = [term for term in field_selector.split(",") if term]
    if name:
        terms.append(f"metadata.name={name}")
    wanted = [term for term in labels.split(",") if term]

    def selects(obj: Object) -> bool:
        metadata = obj["metadata"]
        if not all(_is_labelled(metadata.get("labels") or {}, term) for term in wanted):
            return False
        values = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "status.phase": obj.get("status", {}).get("phase", ""),
        }
        for term in terms:
            path, _, value = term.partition("=")
            if path.endswith("!"):
                if values[path[:-1]] == value:
                    return False
            elif values[path] != value:
                return False
        return True

    return selects


def _is_labelled(labels: dict[str, str], term: str) -> bool:
    """Whether `key`, `!key` or `key=value` is true of it."""
    if term.startswith("!"):
        return term[1:] not in labels
    key, _, value = term.partition("=")
    return key in labels and labels[key] == (value or labels[key])

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Instance and the objects that are made for it: what to do next.

Rules
1. One step at a time, each decided on the Instance at one version, on what the ledgers say and on the objects as they
   are. Every step can be done twice, and a crash between any two loses nothing.
2. The Instance is the record: what is made, suspended and removed is what stands in its `spec.manifest`, not what the
   template says today.
3. Nothing is made for an Instance that the ledgers do not hold under its uid. One that they do not know is removed.
4. What is there under a name of ours and is not ours is left alone: the Instance has failed, and says what it is. But
   for a disk that this owner has kept, and asks to have attached.
5. Disks come first and go last: at the end workloads are removed and waited for, then the disks, or they are kept if
   that is wanted, then the rest, then the place in the ledgers, and last the finalizer.
6. Suspended is scaled to zero; everything else stays. Reset is suspended, the disks removed and made anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, OWNER, owner_hash

FINALIZER: Final = "muster.dev/allocator"
INSTANCE: Final = "muster.dev/instance"  # label of what is made: the handle
RETAINED: Final = "muster.dev/retained-by"  # label of a disk that was kept: the owner's hash
API_VERSION, KIND = "muster.dev/v1alpha1", "Instance"
DISK: Final = "PersistentVolumeClaim"
WORKLOADS: Final = ("Deployment", "StatefulSet")
RETAIN, DELETE = "retain", "delete"
MAX_MESSAGE: Final = 1024  # characters

PENDING, CREATING, READY, SUSPENDING, SUSPENDED = "Pending", "Creating", "Ready", "Suspending", "Suspended"
RESETTING, DESTROYING, FAILED = "Resetting", "Destroying", "Failed"

Object = Mapping[str, Any]


class Key(NamedTuple):
    """Which object."""

    api_version: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


# None: it is not there
Seen = Mapping[Key, Object | None]  # pylint: disable=unsupported-binary-operation


class Look(NamedTuple):
    """Read these objects."""

    keys: tuple[Key, ...]


class Ask(NamedTuple):
    """Ask the ledgers whether they hold this Instance; confirm it where it is only reserved."""


class Close(NamedTuple):
    """Tell the ledgers that it is being destroyed."""


class Release(NamedTuple):
    """Give its place back: the total first, then the owner's ledger."""


class Write(NamedTuple):
    """Make the Instance this, by compare-and-swap."""

    desired: dict[str, Any]
    subresource: str = ""


class Make(NamedTuple):
    """Create this object."""

    obj: dict[str, Any]


class Replace(NamedTuple):
    """Make an object this, by compare-and-swap."""

    obj: dict[str, Any]


class Remove(NamedTuple):
    """Delete this object, and what it has made itself before it goes."""

    key: Key
    uid: str


class Drop(NamedTuple):
    """Delete the Instance itself: no ledger knows it."""

    uid: str


class Wait(NamedTuple):
    """Nothing, until something changes; `why` is for people."""

    why: str


class Done(NamedTuple):
    """Nothing, until something changes."""


Step = Look | Ask | Close | Release | Write | Make | Replace | Remove | Drop | Wait | Done  # pylint: disable=unsupported-binary-operation


def keys(instance: Object) -> tuple[Key, ...]:
    """All objects that are made for it, disks first, then what workloads need, then workloads."""
    return tuple(map(key_of, _ordered(instance["spec"].get("manifest") or [])))


def key_of(obj: Object) -> Key:
    return Key(obj["apiVersion"], obj["kind"], obj["metadata"]["name"])


def next_step(instance: Object, held: bool | None, seen: Seen, now: str) -> Step:
    """What to do next. `held`: what the ledgers said, None: they were not asked. `seen`: what was looked at.

    After each step: do this again with the Instance as it is then, and what the step has changed looked at anew.
    """
    looked = [key for key in keys(instance) if key not in seen]
    if instance["metadata"].get("deletionTimestamp"):
        if FINALIZER not in (instance["metadata"].get("finalizers") or []):
            return Done()
        return Look(tuple(looked)) if looked else _destroy(instance, held, seen, now)
    if held is None:
        return Ask()
    if not held:
        return Drop(instance["metadata"]["uid"])
    if FINALIZER not in (instance["metadata"].get("finalizers") or []):
        return Write(_with_finalizers(instance, [*(instance["metadata"].get("finalizers") or []), FINALIZER]))
    return Look(tuple(looked)) if looked else _keep(instance, seen, now)


# ---------------------------------------------------------------------------------------------------------------------
# While it is wanted


def _keep(instance: Object, seen: Seen, now: str) -> Step:
    spec, status = instance["spec"], instance.get("status") or {}
    is_resetting = int(status.get("resets", 0)) < int(spec.get("resets", 0))
    is_down = bool(spec.get("suspended"))
    for wanted in _ordered(spec.get("manifest") or []):
        there = seen[key_of(wanted)]
        if there is not None and not _is_ours(there, instance):
            if not _may_adopt(there, wanted, instance):
                return _says(instance, FAILED, f"{key_of(wanted)} is there and is not its own", now)
            return Replace(_adopted(there, wanted, instance))
    if is_resetting:
        return _reset(instance, seen, now)
    for wanted in _ordered(spec.get("manifest") or []):
        there = seen[key_of(wanted)]
        if there is None:
            made = _scaled(wanted, 0) if is_down and wanted["kind"] in WORKLOADS else dict(wanted)
            return Make(_owned(made, instance))
        if there["metadata"].get("deletionTimestamp"):
            return _says(instance, CREATING, f"{key_of(wanted)} is being deleted", now)
        if wanted["kind"] in WORKLOADS:
            replicas = 0 if is_down else _replicas(wanted)
            if _replicas(there) != replicas:
                return Replace(_scaled(there, replicas))
    waits = [why for key, there in seen.items() if there is not None and (why := _unfinished(key, there))]
    if is_down:
        return _says(instance, SUSPENDING if waits else SUSPENDED, waits[0] if waits else "", now)
    return _says(instance, CREATING if waits else READY, waits[0] if waits else "", now)


def _reset(instance: Object, seen: Seen, now: str) -> Step:
    """Workloads down, disks away; then it is written down as done, and all is made anew."""
    if (instance.get("status") or {}).get("phase") != RESETTING:
        return _says(instance, RESETTING, "", now)
    for key, there in seen.items():
        if key.kind in WORKLOADS and there is not None:
            if _replicas(there) != 0:
                return Replace(_scaled(there, 0))
            if why := _unfinished(key, there):
                return _says(instance, RESETTING, why, now)
    for key, there in sorted(seen.items()):
        if key.kind == DISK and there is not None:
            if there["metadata"].get("deletionTimestamp"):
                return _says(instance, RESETTING, f"{key} is being deleted", now)
            return Remove(key, there["metadata"]["uid"])
    return _says(instance, PENDING, "", now, resets=int(instance["spec"].get("resets", 0)))


def _unfinished(key: Key, there: Object) -> str:
    """What is missing of a workload; empty where nothing is."""
    if key.kind not in WORKLOADS:
        return ""
    status, wanted = there.get("status") or {}, _replicas(there)
    if status.get("observedGeneration", 0) < there["metadata"].get("generation", 0):
        return f"{key} is being looked at"
    if (status.get("replicas") or 0) > wanted:
        return f"{key} has {status['replicas']} Pods, and shall have {wanted}"
    ready = status.get("readyReplicas") or 0
    updated = status.get("updatedReplicas") or 0
    return "" if min(ready, updated) >= wanted else f"{key} has {ready} of {wanted} Pods ready"


# ---------------------------------------------------------------------------------------------------------------------
# The end


def _destroy(instance: Object, held: bool | None, seen: Seen, now: str) -> Step:
    spec, phase = instance["spec"], (instance.get("status") or {}).get("phase")
    if phase != DESTROYING:
        return _says(instance, DESTROYING, "", now)
    if held is None:
        return Close()
    ours = {key: there for key, there in seen.items() if there is not None and _is_ours(there, instance)}
    ordered = [key for key in reversed(keys(instance)) if key in ours]
    for group in (_is_workload, _is_disk, _is_neither):
        for key in filter(group, ordered):
            there = ours[key]
            if _is_disk(key) and spec.get("storage") == RETAIN:
                return Replace(_retained(there, instance))
            if not there["metadata"].get("deletionTimestamp"):
                return Remove(key, there["metadata"]["uid"])
        left = [key for key in ordered if group(key)]
        if left:
            return Wait(f"{left[0]} is being deleted")
    if held:
        return Release()
    finalizers = [each for each in instance["metadata"].get("finalizers") or [] if each != FINALIZER]
    return Write(_with_finalizers(instance, finalizers))


def _is_workload(key: Key) -> bool:
    return key.kind in WORKLOADS


def _is_disk(key: Key) -> bool:
    return key.kind == DISK


def _is_neither(key: Key) -> bool:
    return not (_is_workload(key) or _is_disk(key))


# ---------------------------------------------------------------------------------------------------------------------
# Objects


def _ordered(manifest: Iterable[Object]) -> list[Object]:
    rank = {DISK: 0, **dict.fromkeys(WORKLOADS, 2)}
    return sorted(manifest, key=lambda obj: (rank.get(obj["kind"], 1), obj["kind"], obj["metadata"]["name"]))


def _is_ours(obj: Object, instance: Object) -> bool:
    owners = obj["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == instance["metadata"]["uid"] for owner in owners)


def _may_adopt(there: Object, wanted: Object, instance: Object) -> bool:
    """A disk that this owner has kept, and wants to have here."""
    spec, metadata = instance["spec"], there["metadata"]
    is_kept = (metadata.get("labels") or {}).get(RETAINED) == owner_hash(spec.get("owner", ""))
    is_free = not (metadata.get("ownerReferences") or metadata.get("deletionTimestamp"))
    return wanted["kind"] == DISK and spec.get("attach") == metadata["name"] and is_kept and is_free


def _adopted(there: Object, wanted: Object, instance: Object) -> dict[str, Any]:
    labels = {key: value for key, value in (there["metadata"].get("labels") or {}).items() if key != RETAINED}
    labels |= wanted["metadata"].get("labels") or {}
    return _owned({**there, "metadata": {**there["metadata"], "labels": labels}}, instance)


def _retained(there: Object, instance: Object) -> dict[str, Any]:
    """A disk that outlives its Instance: nothing of ours deletes it, and its owner can have it again."""
    metadata = there["metadata"]
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != INSTANCE}
    labels[RETAINED] = owner_hash(instance["spec"].get("owner", ""))
    owners = [each for each in metadata.get("ownerReferences") or [] if each.get("uid") != instance["metadata"]["uid"]]
    return {**there, "metadata": {**metadata, "labels": labels, "ownerReferences": owners}}


def _owned(obj: Mapping[str, Any], instance: Object) -> dict[str, Any]:
    metadata = instance["metadata"]
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [owner]}}


def _replicas(workload: Object) -> int:
    replicas = (workload.get("spec") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)


def _scaled(workload: Object, replicas: int) -> dict[str, Any]:
    return {**workload, "spec": {**workload["spec"], "replicas": replicas}}


def _with_finalizers(instance: Object, finalizers: list[str]) -> dict[str, Any]:
    return {**instance, "metadata": {**instance["metadata"], "finalizers": finalizers}}


# ---------------------------------------------------------------------------------------------------------------------
# The status


def refused(instance: Object, message: str, now: str) -> Step:
    """What is said where the API server does not take a step, and only a person can mend that."""
    is_going = instance["metadata"].get("deletionTimestamp")
    return _says(instance, DESTROYING if is_going else FAILED, message, now)


def _says(instance: Object, phase: str, message: str, now: str, *, resets: int | None = None) -> Step:
    """The Instance whose status says so; Done where it does already."""
    before: dict[str, Any] = dict(instance.get("status") or {})
    status = {**before, "phase": phase, "message": message[:MAX_MESSAGE]}
    status["observedGeneration"] = instance["metadata"].get("generation", 0)
    status["objects"] = [{"apiVersion": api, "kind": kind, "name": name} for api, kind, name in keys(instance)]
    if resets is not None:
        status["resets"] = resets
    listed = before.get("conditions")
    known = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
    old: Mapping[str, Any] = next((each for each in known if each.get("type") == "Ready"), {})
    ready = "True" if phase == READY else "False"
    since = old.get("lastTransitionTime") if old.get("status") == ready else None
    condition = {**old, "type": "Ready", "status": ready, "reason": phase, "message": status["message"]}
    condition["lastTransitionTime"] = since or now
    status["conditions"] = [*(each for each in known if each.get("type") != "Ready"), condition]
    return Done() if status == before else Write({**instance, "status": status}, "status")


def labels_of(allocator: str, owner: str) -> dict[str, str]:
    """Of an Instance."""
    return {MEMBER: allocator, OWNER: owner_hash(owner)}

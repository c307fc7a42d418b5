# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One VirtualMachine and its machine at the cloud: what to do next, so that there is exactly one, and none at the end.

Rules
1. One step at a time, each decided on the object at one version and on what the cloud answered. A write to the object
   is a compare-and-swap on that version: whatever happened meanwhile is seen, and decided on, before the next step.
2. A finalizer comes before the first call, so the object can't vanish while it has a machine.
3. The intent, name and requestId, is written to the status before the machine is asked for. Both follow from the
   object's uid; so who comes after a crash asks for the same again, and an object made anew asks for another.
4. It is looked for before it is made. That look registers the fence: whoever acted before with a lesser one is refused
   from then on, however late its calls arrive. What arrives twice under one fence has one requestId, and makes one.
5. A machine that was deleted at the cloud, not by us, is made again, with the next requestId (uid, uid-2, uid-3): the
   old one is spent, so that nothing late makes it once more.
6. A machine with another uid is never adopted, resized or deleted: the object has failed, and says whose the name is.
7. At the end the name is closed before what is there is deleted: a creation still on its way makes nothing. The
   finalizer goes when a look after the deletion shows nothing.
8. A size is changed at the revision that was looked at, so a late change undoes no other. (One that arrives late after
   the spec was edited back is undone at the next look.) An image can't be changed.
9. What people edit in the status is put right from the uid and from what the cloud has.

Theory: idempotency keys and fencing (Kleppmann, Designing Data-Intensive Applications, 2017, ch. 8 and 11).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

FINALIZER: Final = "muster.dev/virtual-machine"
MAX_NAME: Final = 63  # characters of a machine's name
MAX_MESSAGE: Final = 1024  # characters
MEMORY: Final = re.compile(r"[1-9][0-9]*(Mi|Gi|Ti)")

Object = Mapping[str, Any]


# ---------------------------------------------------------------------------------------------- what is known


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the spec asks for."""

    cores: int
    memory: str
    image: str


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that the cloud has. `revision` moves with each change of it."""

    ident: str
    uid: str
    wanted: Wanted
    revision: int
    address: str


@dataclass(frozen=True, slots=True)
class Found:
    """The cloud's answer to `Find`: what lives under the name or the uid, and which requestIds are spent."""

    machines: tuple[Machine, ...] = ()
    spent: frozenset[str] = frozenset()
    closed: bool = False

    def has_spent(self, request: str) -> Found:
        """The same, when the cloud has refused this requestId since."""
        return replace(self, spent=self.spent | {request})


# ---------------------------------------------------------------------------------------------- steps


class Write(NamedTuple):
    """Make the object this, by compare-and-swap on the version that it carries."""

    desired: dict[str, Any]
    subresource: str = ""


class Find(NamedTuple):
    """Register the fence for the name, and look what is there; `close` the name for good."""

    name: str
    uid: str
    close: bool


class Create(NamedTuple):
    """Make the machine."""

    name: str
    uid: str
    wanted: Wanted
    request: str


class Resize(NamedTuple):
    """Give the machine the wanted cores and memory, if it is still at that revision."""

    ident: str
    wanted: Wanted
    revision: int


class Delete(NamedTuple):
    """Delete the machine."""

    ident: str


class Done(NamedTuple):
    """Nothing, until the object or the cloud changes."""


Call = Find | Create | Resize | Delete  # pylint: disable=unsupported-binary-operation
Step = Write | Call | Done  # pylint: disable=unsupported-binary-operation


# ---------------------------------------------------------------------------------------------- what to do next


def next_step(obj: Object, found: Found | None, fence: int, now: str) -> Step:
    """What to do next with the object; `found` is what the cloud answered since the last Create, Resize or Delete.

    `now` (RFC 3339, seconds) is for people; `fence` is told to them, too. After each step: do this again, with the
    object as it is then.
    """
    metadata = obj["metadata"]
    is_going = bool(metadata.get("deletionTimestamp"))
    finalizers = metadata.get("finalizers") or []
    if FINALIZER not in finalizers:
        return Done() if is_going else Write(_with_finalizers(obj, [*finalizers, FINALIZER]))
    teller = _Teller(obj, fence, now)
    return _end(teller, found) if is_going else _keep(teller, found)


def refused(obj: Object, message: str, fence: int, now: str) -> Step:
    """What to do when the cloud will not have what the spec asks for."""
    return _Teller(obj, fence, now).failed(message)


def _keep(teller: _Teller, found: Found | None) -> Step:
    """Have exactly one machine, as the spec wants it."""
    obj = teller.obj
    try:
        wanted = read_spec(obj)
    except Malformed as error:
        return teller.failed(str(error))
    name, uid = machine_name(obj), obj["metadata"]["uid"]
    request = _request(obj)
    if request is None:
        return teller.intends(name, uid)
    if found is None:
        return Find(name, uid, close=False)
    mine = [machine for machine in found.machines if machine.uid == uid]
    if mine:
        recorded = [machine for machine in mine if machine.ident == _recorded(obj).get("id")]
        return _shape(teller, wanted, (recorded or mine)[0], name, request, others=len(mine) - 1)
    if found.closed:
        return teller.failed(f"the name {name} is closed at the cloud, as if this were deleted: make another object")
    if found.machines:
        whose = f"machine {found.machines[0].ident}, of the uid {found.machines[0].uid}"
        return teller.failed(f"the name {name} belongs to {whose}, which is not ours: its owner has to remove it")
    if request in found.spent:
        message = f"the machine of {request} was deleted at the cloud: another is made"
        return teller.intends(name, _following(uid, request, found), message)
    return Create(name, uid, wanted, request)


def _shape(teller: _Teller, wanted: Wanted, machine: Machine, name: str, request: str, *, others: int) -> Step:
    """Have this machine be as the spec wants it, and say that it is."""
    if machine.wanted.image != wanted.image:
        return teller.failed(
            f"spec.image is {wanted.image}, and the machine has {machine.wanted.image}, which can't be changed: "
            "make another VirtualMachine"
        )
    if machine.wanted != wanted:
        return teller.says("Updating") or Resize(machine.ident, wanted, machine.revision)
    shown = {"name": name, "requestId": request, "id": machine.ident, "address": machine.address}
    message = f"{others + 1} machines have this uid; the others are deleted with it" if others else ""
    return teller.says("Running", message, machine={**_recorded(teller.obj), **shown}, observed=True) or Done()


def _end(teller: _Teller, found: Found | None) -> Step:
    """Have no machine, and let the object go."""
    obj = teller.obj
    telling = teller.says("Deleting")
    if telling:
        return telling
    name, uid = machine_name(obj), obj["metadata"]["uid"]
    if found is None or not found.closed:
        return Find(name, uid, close=True)
    for machine in found.machines:
        if machine.uid == uid:
            return Delete(machine.ident)
    return Write(_with_finalizers(obj, [name for name in obj["metadata"]["finalizers"] if name != FINALIZER]))


# ---------------------------------------------------------------------------------------------- names


def machine_name(obj: Object) -> str:
    """The name at the cloud: readable, and another one for an object that was made again under the same name."""
    metadata = obj["metadata"]
    digest = hashlib.sha256(metadata["uid"].encode()).hexdigest()[:8]
    words = f"{metadata['namespace']}-{metadata['name']}".replace(".", "-")
    return f"{words[: MAX_NAME - 9].rstrip('-')}-{digest}"


def _following(uid: str, request: str, found: Found) -> str:
    """The first requestId after this one that is not spent."""
    number = int(request.removeprefix(uid).removeprefix("-") or 1)
    return next(each for count in itertools.count(number + 1) if (each := f"{uid}-{count}") not in found.spent)


def _request(obj: Object) -> str | None:
    """The requestId of the intent; None where there is none, or one that can't be ours."""
    recorded, uid = _recorded(obj), obj["metadata"]["uid"]
    request = recorded.get("requestId")
    if recorded.get("name") != machine_name(obj) or not isinstance(request, str):
        return None
    return request if re.fullmatch(rf"{re.escape(uid)}(-[1-9][0-9]{{0,8}})?", request) else None


def _recorded(obj: Object) -> Mapping[str, Any]:
    recorded = _status(obj).get("machine")
    return recorded if isinstance(recorded, Mapping) else {}


def _status(obj: Object) -> Mapping[str, Any]:
    status = obj.get("status")
    return status if isinstance(status, Mapping) else {}


# ---------------------------------------------------------------------------------------------- what is written


@dataclass(frozen=True, slots=True)
class _Teller:
    """Writes the status of an object."""

    obj: Object
    fence: int
    now: str

    def intends(self, name: str, request: str, message: str = "") -> Step:
        """The intent. Another requestId means another machine, of which nothing is known yet."""
        kept = {key: value for key, value in _recorded(self.obj).items() if key not in ("id", "address")}
        return self.says("Creating", message, machine={**kept, "name": name, "requestId": request}) or Done()

    def failed(self, message: str) -> Step:
        return self.says("Failed", message, observed=True) or Done()

    def says(
        self, phase: str, message: str = "", *, machine: Mapping[str, Any] | None = None, observed: bool = False
    ) -> Write | None:
        """The object whose status says so; None where it does already.

        `observed`: it is about the spec of now. Who wrote it under which fence does not have to be written anew.
        """
        before = _status(self.obj)
        status: dict[str, Any] = {**before, "phase": phase, "message": message[:MAX_MESSAGE]}
        if machine is not None:
            status["machine"] = dict(machine)
        if observed:
            status["observedGeneration"] = self.obj["metadata"].get("generation", 0)
        status["conditions"] = self._conditions(before, phase, status["message"])
        if status == before:
            return None
        return Write({**self.obj, "status": {**status, "fence": self.fence}}, "status")

    def _conditions(self, before: Mapping[str, Any], phase: str, message: str) -> list[Any]:
        listed = before.get("conditions")
        known = [each for each in listed if isinstance(each, Mapping)] if isinstance(listed, list) else []
        ready = "True" if phase == "Running" else "False"
        old: Mapping[str, Any] = next((each for each in known if each.get("type") == "Ready"), {})
        since = old.get("lastTransitionTime") if old.get("status") == ready else None
        condition = {
            **old,
            "type": "Ready",
            "status": ready,
            "reason": phase,
            "message": message,
            "lastTransitionTime": since or self.now,
        }
        return [*(each for each in known if each.get("type") != "Ready"), condition]


def _with_finalizers(obj: Object, finalizers: list[str]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}


# ---------------------------------------------------------------------------------------------- the wire formats


def read_spec(obj: Object) -> Wanted:
    """Raises Malformed; a schema refuses the same earlier, where it is in force."""
    spec = obj.get("spec")
    if not isinstance(spec, Mapping):
        raise Malformed("spec", spec, "give cores, memory and image")
    cores, memory, image = spec.get("cores"), spec.get("memory"), spec.get("image")
    if not isinstance(cores, int) or isinstance(cores, bool) or not 1 <= cores <= 256:
        raise Malformed("spec.cores", cores, "give an integer from 1 to 256")
    if not isinstance(memory, str) or len(memory) > 16 or not MEMORY.fullmatch(memory):
        raise Malformed("spec.memory", memory, "give a size such as 512Mi or 4Gi")
    if not isinstance(image, str) or not 0 < len(image) <= 253:
        raise Malformed("spec.image", image, "give the name of an image, 1 to 253 characters")
    return Wanted(cores, memory, image)


def read_found(answer: Mapping[str, Any]) -> Found:
    """The cloud's answer to `Find`. Raises Malformed."""
    machines, spent, closed = answer.get("machines"), answer.get("spent"), answer.get("closed")
    if not isinstance(machines, list) or not isinstance(spent, list) or not isinstance(closed, bool):
        raise Malformed("the cloud's answer", dict(answer), "give machines and spent, two lists, and closed, a boolean")
    return Found(tuple(map(_read_machine, machines)), frozenset(map(str, spent)), closed)


def _read_machine(document: Any) -> Machine:
    try:
        wanted = Wanted(document["cores"], document["memory"], document["image"])
        known = [document[field] for field in ("id", "uid", "address")]
        revision = document["revision"]
        fine = all(isinstance(each, str) for each in known) and isinstance(revision, int)
    except (KeyError, TypeError):
        fine = False
    if not fine:
        raise Malformed("a machine of the cloud", document, "give id, uid, cores, memory, image, revision and address")
    ident, uid, address = known
    return Machine(ident, uid, wanted, revision, address)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller of Instances: does the steps of `decisions/instance.py`, one after the other.

Before each effect the term is asked whether it may still act. A conflict, a lost answer, and what is there or gone
against expectation, are met by looking again. What only a person can mend is told at the Instance, and tried again.

Two looks are saved. A place with a uid is given back only when its Instance goes, so what the ledgers said of it holds
for a while. And what was written last here is no news when it comes back, unless something else has changed since.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    AlreadyExists,
    Api,
    ApiError,
    Conflict,
    LostAnswer,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import instance as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import (
    CREATING,
    DISK,
    FAILED,
    INSTANCE,
    READY,
    RESETTING,
    SUSPENDED,
    SUSPENDING,
    WORKLOADS,
    Ask,
    Close,
    Done,
    Drop,
    Key,
    Look,
    Make,
    Release,
    Remove,
    Replace,
    Step,
    Wait,
    Write,
    key_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER
from ansible_collections.muster.coordination.plugins.module_utils.verbs import allocator as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES, resource_of
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import Ledgers
from muster.frame.authority import Term
from muster.frame.beside import Beside
from muster.frame.cache import key_of as cache_key
from muster.process import say

STEPS: Final = 160  # in one go; 32 objects are looked at, changed and looked at again
AGAIN_SECONDS: Final = 1.0  # after so many steps
GOING_SECONDS: Final = 3.0  # while something is being deleted that is watched by nobody
WAITING_SECONDS: Final = 30.0  # while workloads are on their way: changes of these are watched
REFUSED_SECONDS: Final = 60.0  # after what only a person can mend
LOST: Final = 3  # answers in one go
HELD_SECONDS: Final = 60.0  # for which the ledgers are not asked again
REMEMBERED: Final = 10_000  # Instances of which something is remembered
WATCHED: Final = (*WORKLOADS, DISK)

Object = dict[str, Any]
T = TypeVar("T")


class Tell(Protocol):
    """Writes an Event about an object."""

    def __call__(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None: ...


class _Refusal(NamedTuple):
    """Of the Instance at this generation; nothing is tried until then, on the clock."""

    generation: int
    until: float


@dataclass(slots=True)
class _Turn:
    """What is known of an Instance while it is looked after."""

    obj: Object
    held: bool | None = None
    seen: dict[Key, Object | None] = field(default_factory=dict)
    lost: int = 0  # answers

    def lose(self, error: ApiError) -> None:
        """An answer is missing. Raises the error where that goes on: another time is better then."""
        self.lost += isinstance(error, LostAnswer)
        if self.lost > LOST:
            raise error


class _Memory(Generic[T]):
    """Something of each of the last Instances, by uid. For several threads."""

    def __init__(self) -> None:
        self._known: dict[str, T] = {}
        self._lock = threading.Lock()

    def get(self, uid: str) -> T | None:
        return self._known.get(uid)

    def pop(self, uid: str) -> T | None:
        return self._known.pop(uid, None)

    def put(self, uid: str, what: T) -> None:
        with self._lock:
            self._known.pop(uid, None)
            while len(self._known) >= REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[uid] = what


class Instances:
    """Reconciles one object at a time a thread; safe for several threads with different objects."""

    def __init__(self, api: Api, ledgers: Ledgers, tell: Tell, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._ledgers, self._tell, self._clock = api, ledgers, tell, clock
        self._refusals: _Memory[_Refusal] = _Memory()
        self._held: _Memory[tuple[Any, float]] = _Memory()  # what the ledgers were asked about, and until when it holds
        self._settled: _Memory[str] = _Memory()  # the version that was written last
        self._news: set[str] = set()  # keys of Instances of which something else has changed
        self._lock = threading.Lock()

    def noticed(self, key: str) -> None:
        """Something that was made for this Instance has changed; from any thread, before it is looked at."""
        with self._lock:
            if len(self._news) >= REMEMBERED:  # of a replica that only stands by
                self._news.clear()
                self._settled = _Memory()
            self._news.add(key)

    def reconcile(self, obj: Object, term: Term) -> float | None:
        """Do what is to be done with the object; seconds after which to do it again, None: when it changes.

        Raises what the term and the API server raise; to do it again later is always right.
        """
        uid, key = obj["metadata"]["uid"], cache_key(obj)
        with self._lock:
            has_news = key in self._news
            self._news.discard(key)
        if self._settled.pop(uid) == obj["metadata"]["resourceVersion"] and not has_news:
            return _rest(obj)
        patience = self._patience(obj)
        if patience > 0:
            return patience
        turn = _Turn(obj)
        for _count in range(STEPS):
            step = decisions.next_step(turn.obj, turn.held, turn.seen, _now())
            if isinstance(step, Done):
                if turn.obj is not obj:
                    self._settled.put(uid, turn.obj["metadata"]["resourceVersion"])
                return _rest(turn.obj)
            if isinstance(step, Wait):
                return GOING_SECONDS
            if not isinstance(step, Look):
                term.check()
            try:
                goes_on = self._do(step, turn)
            except ApiError as error:
                if not _is_refusal(error, step):
                    raise
                return self._refused(turn.obj, step, error, term)
            if not goes_on:
                return None
        return AGAIN_SECONDS

    # ------------------------------------------------------------------------------------------ steps

    def _do(self, step: Step, turn: _Turn) -> bool:
        """Whether there is an Instance to go on with."""
        say(logging.DEBUG, "step", name=turn.obj["metadata"]["name"], step=_spelled(step))
        match step:
            case Look(keys):
                turn.seen |= {key: self._look(key, turn.obj) for key in keys}
            case Ask():
                return self._ask(turn)
            case Close():
                turn.held = verbs.close(self._ledgers, turn.obj)
            case Release():
                verbs.release(self._ledgers, turn.obj)
                turn.held = False
            case Write():
                return self._write(step, turn)
            case Make(obj):
                self._put(obj, turn, self._api.create)
            case Replace(obj):
                self._put(obj, turn, self._api.replace)
            case Remove(key, uid):
                self._remove(key, uid, turn)
            case Drop(uid):
                self._drop(uid, turn.obj)
                return False
        return True

    def _look(self, key: Key, instance: Object) -> Object | None:
        try:
            return self._api.get(_resource(key), key.name, instance["metadata"]["namespace"])
        except NotFound:
            return None

    def _ask(self, turn: _Turn) -> bool:
        uid, about = turn.obj["metadata"]["uid"], _asked_about(turn.obj)
        known = self._held.get(uid)
        if known and known[0] == about and self._clock() < known[1]:
            turn.held = True
            return True
        try:
            turn.held = verbs.held(self._ledgers, turn.obj)
        except (Conflict, NotFound):
            return self._look_again(turn)
        if turn.held:
            self._held.put(uid, (about, self._clock() + HELD_SECONDS))
        return True

    def _look_again(self, turn: _Turn) -> bool:
        """At the Instance; whether it is there."""
        metadata = turn.obj["metadata"]
        try:
            there = self._api.get(INSTANCES, metadata["name"], metadata["namespace"])
        except NotFound:
            return False
        turn.obj, turn.held = there, None  # what they said of one that was wanted says nothing of one that is going
        return bool(there["metadata"]["uid"] == metadata["uid"])

    def _write(self, step: Write, turn: _Turn) -> bool:
        try:
            written = self._api.replace(INSTANCES, step.desired, step.subresource)
        except (Conflict, LostAnswer, NotFound) as error:
            turn.lose(error)
            return self._look_again(turn)
        if step.subresource:
            self._tell_change(turn.obj, written)
        turn.obj = written
        return True

    def _put(self, obj: Object, turn: _Turn, put: Callable[[Resource, Object], Object]) -> None:
        """What is there then is known, or has to be looked at."""
        key = key_of(obj)
        turn.seen.pop(key)
        try:
            turn.seen[key] = put(_resource(key), obj)
        except (AlreadyExists, Conflict, LostAnswer) as error:
            turn.lose(error)
        except NotFound:
            if put == self._api.create:
                raise  # the kind, or the namespace: it will not come by looking

    def _remove(self, key: Key, uid: str, turn: _Turn) -> None:
        """A disk only as it was seen: one that is kept since then is another version."""
        there = turn.seen.pop(key)
        version = there["metadata"]["resourceVersion"] if there and key.kind == DISK else None
        propagation = "Foreground" if key.kind in WORKLOADS else ""
        namespace = turn.obj["metadata"]["namespace"]
        try:
            self._api.delete(
                _resource(key), key.name, namespace, uid=uid, resource_version=version, propagation=propagation
            )
        except (Conflict, LostAnswer, NotFound) as error:
            turn.lose(error)

    def _drop(self, uid: str, obj: Object) -> None:
        metadata = obj["metadata"]
        say(logging.WARNING, "no ledger holds it: it is removed", name=metadata["name"], uid=uid)
        try:
            self._api.delete(INSTANCES, metadata["name"], metadata["namespace"], uid=uid)
        except (Conflict, LostAnswer, NotFound):
            return  # another look shows what has become of it

    # ------------------------------------------------------------------------------------------ refusals

    def _patience(self, obj: Object) -> float:
        """Seconds for which nothing is tried, as the same was refused; 0 or less: none."""
        refusal = self._refusals.get(obj["metadata"]["uid"])
        if refusal is None or refusal.generation != obj["metadata"].get("generation", 0):
            return 0.0
        return refusal.until - self._clock()

    def _refused(self, obj: Object, step: Step, error: ApiError, term: Term) -> float:
        """Say so; nothing more is tried for a while, also where the writing of that comes back by the watch."""
        metadata, about = obj["metadata"], _about(step)
        message = f"{about}: {error.message}" if about else error.message
        say(logging.WARNING, "refused", name=metadata["name"], about=about, error=str(error))
        refusal = _Refusal(metadata.get("generation", 0), self._clock() + REFUSED_SECONDS)
        self._refusals.put(metadata["uid"], refusal)
        said = decisions.refused(obj, message, _now())
        if isinstance(said, Write):
            term.check()
            self._write(said, _Turn(obj))
        return REFUSED_SECONDS

    # ------------------------------------------------------------------------------------------ what is told

    def _tell_change(self, before: Object, after: Object) -> None:
        """An Event where the phase has changed, to one that people wait for."""
        status, known = after.get("status") or {}, before.get("status") or {}
        phase, message = status.get("phase"), status.get("message", "")
        if phase == known.get("phase"):
            return
        say(logging.INFO, "phase", name=after["metadata"]["name"], phase=phase, why=message)
        if phase == FAILED:
            self._tell(after, "Failed", message, warning=True)
        elif phase == READY:
            self._tell(after, "Ready", "all that belongs to it is there, and its Pods are ready")
        elif phase == SUSPENDED:
            self._tell(after, "Suspended", "it has no Pods; its disks stay")
        elif phase == RESETTING:
            self._tell(after, "Resetting", "its disks are removed, and made anew")


def beside(
    api: Api, namespace: str, allocator: str, kinds: Iterable[tuple[str, str]], noticed: Callable[[str], None]
) -> list[Beside]:
    """Watches of what is made for Instances and takes its time: a change there has the one Instance looked at.

    `noticed` is told its key before that.
    """

    def concerns(obj: Object) -> str | None:
        key = _instance_of(obj)
        if key is not None:
            noticed(key)
        return key

    watched = sorted((version, kind) for version, kind in kinds if kind in WATCHED)
    selector = f"{MEMBER}={allocator},{INSTANCE}"
    return [
        Beside(api, resource_of(*each), namespace, label_selector=selector, shrink=_slim, concerns=concerns)
        for each in watched
    ]


def _slim(obj: Object) -> Object:
    metadata = obj["metadata"]
    labels = {INSTANCE: (metadata.get("labels") or {}).get(INSTANCE)}
    return {"metadata": {"name": metadata["name"], "namespace": metadata.get("namespace", ""), "labels": labels}}


def _instance_of(obj: Object) -> str | None:
    """The key of the Instance for which it was made."""
    handle = (obj["metadata"].get("labels") or {}).get(INSTANCE)
    return f"{obj['metadata'].get('namespace', '')}/{handle}" if handle else None


def _asked_about(obj: Object) -> Any:
    """All by which the ledgers know it."""
    spec, metadata = obj["spec"], obj["metadata"]
    return metadata["name"], spec.get("owner"), spec.get("key"), spec.get("digest")


def _rest(obj: Object) -> float | None:
    """When to look again, though nothing changes."""
    phase = (obj.get("status") or {}).get("phase")
    if phase == FAILED:
        return REFUSED_SECONDS
    return WAITING_SECONDS if phase in (CREATING, SUSPENDING, RESETTING) else None


def _is_refusal(error: ApiError, step: Step) -> bool:
    """Whether only a person can mend it: a right, a quota, a kind that is not served, an object that is none."""
    if not isinstance(step, Look | Make | Replace | Remove):
        return False
    return error.status in (400, 403, 404, 422)


def _about(step: Step) -> str:
    match step:
        case Make(obj) | Replace(obj):
            return str(key_of(obj))
        case Remove(key, _uid):
            return str(key)
    return ""


def _spelled(step: Step) -> str:
    about = _about(step)
    return f"{type(step).__name__} {about}".rstrip()


def _resource(key: Key) -> Resource:
    return resource_of(key.api_version, key.kind)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller of KeySpaces: asks for what `decisions/assigner.py` plans, and tells how each key space stands.

It decides on what its caches show, which may be old: what it asks for is looked at once more by whoever carries it out.
What it writes itself (followers, void claims, Partitions that count no more) it reads from the store before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    AlreadyExists,
    Api,
    Conflict,
    Forbidden,
    LostAnswer,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import assigner as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.assigner import (
    ASKED_BY,
    ME,
    Dismiss,
    Drop,
    Enlist,
    Follow,
    Following,
    Part,
    Plan,
    Worker,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Space, View
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import (
    ABORTED,
    COMMITTED,
    FINAL,
    phase_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import Copy
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from muster.dstk.workers import (
    Refused,
    Unreachable,
    WorkerClient,
    Workers,
    call_seconds,
)
from muster.frame.authority import Term
from muster.frame.beside import Beside
from muster.frame.cache import Cache, key_of
from muster.process import Answer, Query, say

LOOK_SECONDS: Final = 1.0  # from one look to the next: a Lease that runs out is told by nobody
BUSY_SECONDS: Final = 0.3  # while followers are on their way
FOLLOWERS_SECONDS: Final = 10.0  # workers are asked again for what follows, though nothing has changed
FOLLOWERS_AT_ONCE: Final = 16  # steps towards followers in one look
POLLS: Final = 5  # for a follower to have what was promised, in one look
POLL_SECONDS: Final = 0.05
VOID_SECONDS: Final = 5.0  # for which a claim, or a Partition, looks void before that is looked into
LISTED: Final = 5  # names in a message

Object = dict[str, Any]


class Tell(Protocol):
    """Writes an Event about an object."""

    def __call__(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None: ...


# ---------------------------------------------------------------------------------------------- what there is


class Index(Beside):
    """All objects of a kind that are of key spaces, by key space; for several threads."""

    def __init__(self, api: Api, resource: Resource, namespace: str | None) -> None:
        super().__init__(api, resource, namespace)
        self._spaces: dict[str, dict[str, Object]] = {}  # key of a KeySpace to objects by name
        self._of: dict[str, str] = {}  # key of an object to that of its KeySpace
        self._versions: dict[str, int] = {}  # counts changes of each KeySpace
        self._lock = threading.Lock()
        self._changed: Callable[[str], None] = lambda key: None
        self.cache = Cache(api, resource, namespace, on_change=self._on_change)

    def start(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self.cache.start()

    def stop(self) -> None:
        self.cache.stop()

    @property
    def trouble(self) -> str | None:
        return self.cache.trouble

    @trouble.setter
    def trouble(self, value: str | None) -> None:
        """It is the cache's alone."""

    def version(self, space: str) -> int:
        return self._versions.get(space, 0)

    def of(self, space: str) -> dict[str, Object]:
        """By name; the objects are not to be changed."""
        with self._lock:
            return dict(self._spaces.get(space, {}))

    def put(self, obj: Object) -> None:
        """What was written just now: the watch tells it later."""
        self._note(key_of(obj), obj)

    def _on_change(self, key: str) -> None:
        space = self._note(key, self.cache.by_key(key))
        if space:
            self._changed(space)

    def _note(self, key: str, obj: Object | None) -> str:
        """The KeySpace that it is of."""
        name = key.partition("/")[2]
        with self._lock:
            if obj is None:
                space = self._of.pop(key, "")
                self._spaces.get(space, {}).pop(name, None)
            else:
                space = self._of[key] = f"{key.partition('/')[0]}/{keyspace.space_of(obj)}"
                known = self._spaces.setdefault(space, {})
                before = known.get(name)
                if before and _version(obj) < _version(before) and _uid(obj) == _uid(before):
                    return ""
                known[name] = obj
            self._versions[space] = self._versions.get(space, 0) + 1
            return space


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


class Promised(NamedTuple):
    """What the primary has promised a follower: it is added to the Partition at this version once it has all up to
    this position."""

    obj: Object
    position: int


@dataclass(slots=True)
class Known:
    """What is known of one KeySpace."""

    uid: str
    signature: Any = None  # of what was looked at last
    plan: Plan = field(default_factory=Plan)
    parts: dict[str, Part] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    open: dict[str, str] = field(default_factory=dict)  # Assignments that are not over, and their phase
    aborted: dict[str, float] = field(default_factory=dict)  # names, and since when that is known, on the clock
    resting: frozenset[str] = frozenset()  # Partitions for which nothing is asked just now
    promises: dict[tuple[str, str], Promised] = field(default_factory=dict)
    following: dict[str, str] = field(default_factory=dict)  # of Partitions, what is done about followers
    asked: float | None = None  # when workers were asked last for what follows
    void: dict[str, float] = field(default_factory=dict)  # what looks void, and since when
    trouble: str = ""
    told: str = ""  # which are declared unserved


class KeySpaces:
    """Reconciles one object at a time a thread; safe for several threads with different objects."""

    def __init__(
        self,
        api: Api,
        workers: Workers,
        client: WorkerClient,
        partitions: Index,
        assignments: Index,
        tell: Tell,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._api, self._workers, self._client, self._tell = api, workers, client, tell
        self._partitions, self._assignments = partitions, assignments
        self._clock, self._sleep = clock, sleep
        self._known: dict[str, Known] = {}
        self.mine: Callable[[], Iterable[str]] = lambda: list(self._known)

    def reconcile(self, obj: Object, term: Term) -> float | None:
        """Look at it, ask for what is to be done; seconds after which to look again.

        Raises what the term and the API server raise; to do it again later is always right.
        """
        key, uid = key_of(obj), obj["metadata"]["uid"]
        if not (self._partitions.cache.synced.is_set() and self._assignments.cache.synced.is_set()):
            return LOOK_SECONDS
        if not self._workers.cache.synced.is_set():
            return LOOK_SECONDS
        known = self._known.get(key)
        if known is None or known.uid != uid:
            known = self._known[key] = Known(uid)
        try:
            space = keyspace.parse_space(obj)
        except Malformed as error:
            known.trouble = str(error)
            self._say(obj, {**(obj.get("status") or {}), "message": str(error)[:1024]}, term)
            return None
        known.trouble = ""
        return _Look(self, key, obj, space, known, term).look()

    # ------------------------------------------------------------------------------------------ what is told

    def _say(self, obj: Object, status: Object, term: Term) -> None:
        """Write the status, where it says something new."""
        if status == (obj.get("status") or {}):
            return
        term.check()
        try:
            self._api.replace(KEY_SPACES, {**obj, "status": status}, "status")
        except (Conflict, LostAnswer, NotFound):
            return  # it has changed: it is looked at again

    # ------------------------------------------------------------------------------------------ pages

    def pages(self) -> dict[str, Callable[[Query], Answer]]:
        return {"/state": self._state, "/explain": self._explain}

    def known(self) -> dict[str, Known]:
        """What is known of those that this replica looks after."""
        mine = set(self.mine())
        return {key: known for key, known in list(self._known.items()) if key in mine}

    def _state(self, _query: Query) -> Answer:
        return 200, {key: _summary(known) for key, known in sorted(self.known().items())}

    def _explain(self, query: Query) -> Answer:
        """Why a partition is where it is, and what is to come."""
        known, wanted = self.known(), query.get("keySpace", "")
        name = query.get("partition", "")
        if not name:
            return 400, {"error": "say which: /explain?partition=NAME, and &keySpace=NAMESPACE/NAME of several"}
        for key, one in sorted(known.items()):
            if name in one.parts and wanted in ("", key):
                return 200, {"keySpace": key, **_explained(one, one.parts[name])}
        listed = ", ".join(sorted(known)) or "none yet"
        return 404, {"error": f"no key space that this replica looks after ({listed}) has a partition {name!r}"}


class _Look:
    """One look at one KeySpace."""

    def __init__(self, owner: KeySpaces, key: str, obj: Object, space: Space, known: Known, term: Term) -> None:
        self.owner, self.key, self.obj, self.space, self.known, self.term = owner, key, obj, space, known, term
        self.api, self.clock = owner._api, owner._clock
        self.namespace: str = obj["metadata"]["namespace"]

    def look(self) -> float:
        owner, known = self.owner, self.known
        partitions, assignments = owner._partitions, owner._assignments
        versions = (partitions.version(self.key), assignments.version(self.key), self.obj["metadata"]["generation"])
        workers = self._workers(known.parts.values())
        signature = (*versions, [self._standing(worker) for worker in workers.values()])
        may_rest = not known.following and not known.void and not self._asks_for_followers()
        may_rest = may_rest and known.resting == self._resting()
        if known.signature == signature and may_rest:
            return LOOK_SECONDS
        objs, asked = partitions.of(self.key), assignments.of(self.key)
        view = self._view(objs, asked)
        self._note_aborted(asked)
        known.parts = self._parts(view, objs, asked)
        workers = known.workers = self._workers(known.parts.values())
        busy = [name for name, phase in known.open.items() if phase != COMMITTED]
        known.resting = self._resting()
        known.plan = decisions.plan(
            self.space,
            known.parts.values(),
            workers.values(),
            budget=max(0, self.space.operations - len(busy)),
            resting=known.resting,
            alone=self._alone(asked),
        )
        self._ask(asked)
        self._follow(objs)
        self._clean(view, objs, asked)
        self._tell(view, objs)
        known.signature = signature
        return BUSY_SECONDS if known.following else LOOK_SECONDS

    # ------------------------------------------------------------------------------------------ what there is

    def _view(self, objs: Mapping[str, Object], asked: Mapping[str, Object]) -> View:
        """By the caches; by the store, where these show a gap that was not there before."""
        view = keyspace.view(objs.values(), asked.values())
        if view.gaps and (self.obj.get("status") or {}).get("covered"):
            return self._view_of_the_store()
        return view

    def _view_of_the_store(self) -> View:
        """Partitions first, then Assignments."""
        partitions = self._listed(PARTITIONS)
        return keyspace.view(partitions, self._listed(ASSIGNMENTS))

    def _listed(self, resource: Resource) -> list[Object]:
        items = self.api.list(resource, self.namespace).items
        return [obj for obj in items if keyspace.space_of(obj) == self.space.name]

    def _parts(self, view: View, objs: Mapping[str, Object], asked: Mapping[str, Object]) -> dict[str, Part]:
        known = self.known
        known.open = {name: phase_of(one) for name, one in asked.items() if phase_of(one) not in FINAL}
        about: dict[str, tuple[str, str]] = {}  # Partition to the operation, and who has it then
        for name in known.open:
            about |= {one: (name, to) for one, to in _targets(asked[name]).items()}
        parts = {}
        for fact in view.facts:
            spec = (objs.get(fact.partition) or {}).get("spec") or {}
            operation, planned = about.get(fact.partition, (fact.assignment or spec.get("claimedBy") or "", ""))
            followers = tuple(spec.get("followers") or ())
            parts[fact.partition] = Part(fact.partition, fact.primary, fact.epoch, followers, operation, planned)
        return parts

    def _workers(self, parts: Iterable[Part]) -> dict[str, Worker]:
        """All that have a Lease, and all that are named."""
        named = {name for part in parts for name in (part.primary, *part.followers) if name}
        names = named.union(self.owner._workers.names(self.namespace, self.space.name))
        found = {}
        for name in sorted(names):
            standing = self.owner._workers.standing(self.namespace, self.space.name, name)
            if standing.silent is not None and name not in named:
                continue  # it has ended, and nothing is left of it
            found[name] = Worker(name, standing.is_leaving, standing.silent)
        return found

    def _standing(self, worker: Worker) -> tuple[str, bool, bool, bool]:
        silent = worker.silent
        return worker.name, worker.is_leaving, silent is None, (silent or 0.0) >= self.space.lost_after_seconds

    # ------------------------------------------------------------------------------------------ what is asked for

    def _note_aborted(self, asked: Mapping[str, Object]) -> None:
        now = self.clock()
        names = {name for name, one in asked.items() if phase_of(one) == ABORTED and _is_ours(one)}
        self.known.aborted = {name: self.known.aborted.get(name, now) for name in names}

    def _resting(self) -> frozenset[str]:
        """Partitions of which something was aborted not long ago: the more often, the longer."""
        found: dict[str, list[float]] = {}
        asked = self.owner._assignments.of(self.key) if self.known.aborted else {}
        for name, since in self.known.aborted.items():
            for partition in operations.operands(asked[name]) if name in asked else ():
                found.setdefault(partition, []).append(since)
        now = self.clock()
        return frozenset(name for name, times in found.items() if now - max(times) < decisions.rest_seconds(len(times)))

    def _alone(self, asked: Mapping[str, Object]) -> frozenset[str]:
        return frozenset(name for one in self.known.aborted for name in operations.operands(asked[one]))

    def _ask(self, asked: Mapping[str, Object]) -> None:
        known = self.known
        for ask in known.plan.asks:
            epochs = {partition: known.parts[partition].epoch for partition, _worker in ask.pairs}
            attempt = 0
            while True:
                wanted = decisions.assignment_for(self.space.name, ask, epochs, attempt)
                before = asked.get(wanted["metadata"]["name"])
                if before is None or phase_of(before) != ABORTED:
                    break
                attempt += 1
            if before is not None:
                continue  # it is on its way
            wanted["metadata"]["namespace"] = self.namespace
            self.term.check()
            try:
                made = self.api.create(ASSIGNMENTS, wanted)
            except (AlreadyExists, LostAnswer):
                continue  # the watch brings it
            self.owner._assignments.put(made)
            fields = {"kind": ask.kind, "partitions": len(ask.pairs), "source": ask.source}
            say(logging.INFO, "asks", name=wanted["metadata"]["name"], **fields)

    # ------------------------------------------------------------------------------------------ followers

    def _asks_for_followers(self) -> bool:
        """Whether workers are to be asked, though nothing has changed."""
        has = self.space.followers > 0 or any(part.followers for part in self.known.parts.values())
        every = FOLLOWERS_SECONDS if has else FOLLOWERS_SECONDS * 6
        return self.known.asked is None or self.clock() - self.known.asked >= every

    def _follow(self, objs: Mapping[str, Object]) -> None:
        known = self.known
        dismissed = {step.partition: step for step in known.plan.dismissed}
        has = self.space.followers > 0 or any(part.followers for part in known.parts.values())
        if not (has or dismissed or known.following or self._asks_for_followers()):
            return
        known.asked = self.clock()
        reports = self._reports()
        loads: dict[str, int] = {}
        for name, copies in reports.items():
            loads[name] = sum(map(decisions.is_followers, copies.values()))
        done, known.following = 0, {}
        for part in known.parts.values():
            step: Following | None = dismissed.get(part.name)
            if step is None:
                step = decisions.follow_up(self.space, part, known.workers, reports, loads)
            if step is None:
                continue
            known.following[part.name] = f"{type(step).__name__.lower()} {step.follower}"
            if done < FOLLOWERS_AT_ONCE and part.name in objs:
                done += 1
                self._do(step, part, reports, loads)
        for partition, follower in list(known.promises):
            if partition not in known.following:
                known.promises.pop((partition, follower))

    def _reports(self) -> dict[str, dict[str, Copy]]:
        """What each worker has that answers."""
        found = {}
        for name, worker in self.known.workers.items():
            if worker.silent is not None:
                continue
            try:
                found[name] = self.owner._client.copies(name, self._address(name), timeout=2.0)
            except Unreachable as error:
                say(logging.INFO, "a worker does not answer", worker=name, why=str(error))
        return found

    def _address(self, worker: str) -> str:
        return self.owner._workers.address(self.namespace, self.space.name, worker)

    def _do(
        self, step: Following, part: Part, reports: Mapping[str, Mapping[str, Copy]], loads: dict[str, int]
    ) -> None:
        say(logging.DEBUG, "follower", partition=part.name, step=type(step).__name__, follower=step.follower)
        try:
            match step:
                case Dismiss():
                    self._dismiss(step, part)
                case Follow():
                    loads[step.follower] = loads.get(step.follower, 0) + 1
                    peer = {"worker": part.primary, "address": self._address(part.primary)}
                    self._call(step.follower, "follow", part, **{"from": peer})
                case Drop():
                    self._call(step.follower, "drop", part)
                case Enlist():
                    self._enlist(step, part)
        except (Refused, Unreachable) as error:
            say(logging.INFO, "a step towards a follower failed", partition=part.name, why=str(error))
        except (Conflict, LostAnswer, NotFound) as error:
            say(logging.DEBUG, "reads anew", partition=part.name, why=str(error))
            self.known.promises.pop((part.name, step.follower), None)

    def _call(self, worker: str, verb: str, part: Part, **further: Any) -> Copy | None:
        self.term.check()
        spec = self.owner._partitions.of(self.key)[part.name]["spec"]
        body: Object = {"assignment": "", "uid": "", "keySpace": self.space.name, "partition": part.name}
        bounds = keyspace.range_of({"spec": spec})
        body |= {"epoch": part.epoch, "range": {"start": bounds.start, "end": bounds.end}, **further}
        seconds = call_seconds(self.space.fence_seconds)
        return self.owner._client.call(worker, self._address(worker), verb, body, timeout=seconds)

    def _fresh(self, part: Part) -> Object | None:
        """The Partition from the store, where it is still nobody's operation's, and as it was looked at."""
        obj = self.api.get(PARTITIONS, part.name, self.namespace)
        spec = obj["spec"]
        is_same = (spec.get("primary"), spec.get("epoch"), tuple(spec.get("followers") or ())) == part[1:4]
        return obj if is_same and not spec.get("claimedBy") and not spec.get("fencedBy") else None

    def _dismiss(self, step: Dismiss, part: Part) -> None:
        obj = self._fresh(part)
        if obj is None:
            return
        worker = self.known.workers.get(step.follower)
        if worker and worker.silent is not None:  # by the store: a cache may be old
            self.owner._workers.is_lost(self.namespace, self.space.name, step.follower)
        kept = [name for name in obj["spec"].get("followers") or () if name != step.follower]
        self.term.check()
        changed = {"followers": kept, "epoch": obj["spec"]["epoch"] + 1}
        self.owner._partitions.put(self.api.replace(PARTITIONS, {**obj, "spec": {**obj["spec"], **changed}}))
        self.known.promises.pop((part.name, step.follower), None)
        say(logging.INFO, "lets a follower go", partition=part.name, follower=step.follower, why=step.why)
        self._call(part.primary, "resume", part._replace(epoch=part.epoch + 1))

    def _enlist(self, step: Enlist, part: Part) -> None:
        """The version is read before the promise: any change in between is a conflict."""
        at = part.name, step.follower
        promised = self.known.promises.get(at)
        if promised is None or promised.obj["spec"]["epoch"] != part.epoch:
            obj = self._fresh(part)
            if obj is None:
                return
            copy = self._call(part.primary, "promise", part, follower=step.follower)
            if copy is None or step.follower not in copy.followers or copy.epoch != part.epoch:
                return
            promised = self.known.promises[at] = Promised(obj, copy.position)
        for _poll in range(POLLS):
            address = self._address(step.follower)
            copy = self.owner._client.copies(step.follower, address, [part.name]).get(part.name)
            if copy is None or not decisions.is_followers(copy) or copy.origin != part.primary:
                self.known.promises.pop(at, None)
                return
            if copy.position >= promised.position:
                break
            self._sleep(POLL_SECONDS)
        else:
            return
        obj = promised.obj
        self.term.check()
        followers = sorted({*(obj["spec"].get("followers") or ()), step.follower})
        written = self.api.replace(PARTITIONS, {**obj, "spec": {**obj["spec"], "followers": followers}})
        self.known.promises.pop(at, None)
        self.owner._partitions.put(written)
        say(logging.INFO, "has a follower", partition=part.name, follower=step.follower)
        self._call(part.primary, "resume", part)

    @property
    def _sleep(self) -> Callable[[float], None]:
        return self.owner._sleep

    # ------------------------------------------------------------------------------------------ what is void

    def _clean(self, view: View, objs: Mapping[str, Object], asked: Mapping[str, Object]) -> None:
        """Release claims of Assignments that are over, and remove Partitions that count no more."""
        now, known = self.clock(), self.known
        needed = {name for one in known.open for name in _targets(asked[one])}
        void = {name for name in view.void if name in objs and _is_made(objs[name]) and name not in needed}
        claims = {name for name, obj in objs.items() if (by := obj["spec"].get("claimedBy")) and by not in known.open}
        known.void = {name: known.void.get(name, now) for name in (*void, *claims)}
        for name, since in list(known.void.items()):
            if now - since < VOID_SECONDS:
                continue
            known.void[name] = now
            try:
                self._release(name)
                if name in void:
                    self._remove(name)
            except (Conflict, LostAnswer, NotFound):
                continue  # it is looked at again
            except Forbidden as error:
                self._lacks_right(error)
                return

    def _release(self, name: str) -> None:
        obj = self.api.get(PARTITIONS, name, self.namespace)
        claimed = obj["spec"].get("claimedBy")
        if not claimed:
            return
        try:
            claimant = self.api.get(ASSIGNMENTS, claimed, self.namespace)
        except NotFound:
            claimant = None
        step = operations.void_claim(obj, claimant)
        if step is None:
            return
        self.term.check()
        self.owner._partitions.put(self.api.replace(PARTITIONS, step.desired))
        say(logging.INFO, "releases a void claim", partition=name, assignment=claimed)

    def _remove(self, name: str) -> None:
        obj = self.api.get(PARTITIONS, name, self.namespace)
        open_ones = [one for one in self._listed(ASSIGNMENTS) if phase_of(one) not in FINAL]
        needed = {each for one in open_ones for each in _targets(one)}
        if name not in self._view_of_the_store().void or name in needed or obj["spec"].get("claimedBy"):
            return
        self.term.check()
        at = obj["metadata"]
        self.api.delete(PARTITIONS, name, self.namespace, uid=at["uid"], resource_version=at["resourceVersion"])
        say(logging.INFO, "removes what counts no more", partition=name)

    # ------------------------------------------------------------------------------------------ what is told

    def _tell(self, view: View, objs: Mapping[str, Object]) -> None:
        known, plan = self.known, self.known.plan
        given_up = sorted(plan.unserved)
        nobody = [part.name for part in known.parts.values() if self._is_unserved(part)]
        hidden = [name for name in view.void if name in objs and not _is_made(objs[name])]
        try:
            for name, obj in objs.items():
                self._tell_partition(name, obj, plan.unserved, hidden)
        except Forbidden as error:  # it is told at the key space all the same
            self._lacks_right(error)
        told = ",".join(given_up)
        if told != known.told:
            known.told = told
            if given_up:
                why = plan.unserved[given_up[0]]
                self.owner._tell(self.obj, "Unserved", f"nobody serves {_listed(given_up)}: {why}", warning=True)
            else:
                self.owner._tell(self.obj, "Served", "all partitions that were given up are served again")
        lives = [worker for worker in known.workers.values() if worker.silent is None]
        covered = not view.gaps
        message = self._message(view, nobody, hidden)
        before = self.obj.get("status") or {}
        conditions = [
            _condition(before, "Covered", covered, "Gap" if view.gaps else "Whole", self._of_gaps(view)),
            _condition(before, "Served", not nobody, "Unserved" if nobody else "AllServed", _listed(nobody)),
        ]
        status = {
            **before,
            "observedGeneration": self.obj["metadata"].get("generation", 0),
            "partitions": len(view.facts),
            "unserved": len(nobody),
            "workers": len(lives),
            "operations": len(known.open),
            "covered": covered,
            "message": message[:1024],
            "conditions": conditions,
        }
        self.owner._say(self.obj, status, self.term)

    def _lacks_right(self, error: Forbidden) -> None:
        """What a person has to mend, and what keeps nothing else from being done."""
        self.known.trouble = str(error)
        say(logging.WARNING, "a right is missing", error=str(error))

    def _is_unserved(self, part: Part) -> bool:
        worker = self.known.workers.get(part.primary)
        return worker is None or worker.silent is not None

    def _of_gaps(self, view: View) -> str:
        return f"nobody has {_listed(map(str, view.gaps))}" if view.gaps else ""

    def _message(self, view: View, nobody: list[str], hidden: list[str]) -> str:
        said = [self._of_gaps(view)] if view.gaps else []
        if nobody:
            why = self.known.plan.why.get(nobody[0], "it has no worker yet")
            said.append(f"nobody serves {_listed(nobody)}: {why}")
        if hidden:
            said.append(f"{_listed(hidden)} overlap others: delete them")
        return "; ".join(said)

    def _tell_partition(self, name: str, obj: Object, unserved: Mapping[str, str], hidden: Iterable[str]) -> None:
        before = obj.get("status") or {}
        if name in unserved:
            phase, message = "Unserved", unserved[name]
        elif name in hidden:
            phase, message = "Void", "it overlaps another Partition, which counts: delete it"
        elif before.get("phase") in ("Unserved", "Void"):
            part = self.known.parts.get(name)
            if part is None or (part.primary and self._is_unserved(part)):
                return  # it is lost again, for a while
            phase, message = "Ready" if part.primary else "Pending", ""
        else:
            return
        reason = {"Unserved": "WorkerLost", "Void": "Overlap"}.get(phase, "Served")
        condition = _condition(before, "Served", phase == "Ready", reason, message)
        status = {**before, "phase": phase, "message": message[:1024], "conditions": [condition]}
        if status == before:
            return
        self.term.check()
        try:
            self.owner._partitions.put(self.api.replace(PARTITIONS, {**obj, "status": status}, "status"))
        except (Conflict, LostAnswer, NotFound):
            return  # the watch brings what has changed


# ---------------------------------------------------------------------------------------------- details


def _targets(assignment: Object) -> dict[str, str]:
    """The Partitions that it is about, and who has them then; "": who has them now."""
    try:
        asked = operations.parse(assignment)
    except Malformed:
        return {}
    targets = asked.primaries or (asked.target,) * len(asked.operands)
    found = dict(zip(asked.operands, targets, strict=True))
    return found | {fact.partition: fact.primary for fact in keyspace.results_of(assignment)}


def _is_ours(assignment: Object) -> bool:
    return (assignment["metadata"].get("labels") or {}).get(ASKED_BY) == ME


def _is_made(partition: Object) -> bool:
    """Whether it came out of an operation, or has had one: it is not just a person's mistake."""
    return bool(partition["spec"].get("epoch") or partition["spec"].get("madeBy"))


def _condition(before: Object, kind: str, holds: bool, reason: str, message: str) -> Object:
    """As it is now; with the time of before, where it held then, too."""
    known: Object = next((one for one in before.get("conditions") or () if one.get("type") == kind), {})
    status = "True" if holds else "False"
    since = known.get("lastTransitionTime") if known.get("status") == status else None
    text = "" if holds else message[:1024]
    at = since or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": kind, "status": status, "reason": reason, "message": text, "lastTransitionTime": at}


def _listed(names: Iterable[str]) -> str:
    named = list(names)
    return ", ".join(named[:LISTED]) + (f" and {len(named) - LISTED} more" if len(named) > LISTED else "")


def _summary(known: Known) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for part in known.parts.values():
        counts[part.primary] = counts.get(part.primary, 0) + 1
    return {
        "trouble": known.trouble or None,
        "partitions": len(known.parts),
        "workers": {
            name: {
                "partitions": counts.get(name, 0),
                "wanted": known.plan.targets.get(name),
                "leaving": worker.is_leaving,
                "lostFor": worker.silent if worker.silent is None else round(worker.silent, 1),
            }
            for name, worker in known.workers.items()
        },
        "operations": dict(known.open),
        "unserved": dict(known.plan.unserved),
        "waits": dict(sorted(known.plan.why.items())[:1000]),
        "followers": dict(known.following),
    }


def _explained(known: Known, part: Part) -> dict[str, Any]:
    worker = known.workers.get(part.primary)
    held = sum(1 for other in known.parts.values() if other.primary == part.primary)
    if not part.primary:
        why = "nobody has ever served it"
    else:
        wanted = known.plan.targets.get(part.primary)
        share = f", of which {wanted} would be its share" if wanted is not None else ""
        why = f"worker {part.primary} has it since epoch {part.epoch}, as one of {held}{share}"
    return {
        "partition": part.name,
        "primary": part.primary or None,
        "epoch": part.epoch,
        "followers": list(part.followers),
        "operation": part.operation or None,
        "plannedFor": part.planned or None,
        "served": worker is not None and worker.silent is None,
        "why": why,
        "waitsFor": known.plan.why.get(part.name) or known.following.get(part.name),
    }

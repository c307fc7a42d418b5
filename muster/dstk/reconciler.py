# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller of Assignments: does the steps of `decisions/operations.py`, one after the other.

Before each effect the term is asked whether it may still act. After a conflict, a lost answer, or what is there or gone
against expectation, all that was seen is forgotten, and the Assignment is read anew. What does not depend on one
another, of several steps and of several reads, is done by a few threads at the same time. Short waits, while workers
load or nobody serves, are waited here; longer ones give the thread to other Assignments.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    AlreadyExists,
    Api,
    Conflict,
    LostAnswer,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import (
    ABORTED,
    ABORTING,
    COMMITTED,
    COMPLETED,
    FINAL,
    LOST,
    PENDING,
    UNREACHABLE,
    Absent,
    Ask,
    Call,
    Done,
    Inspect,
    Make,
    ReadPartitions,
    Remove,
    Replace,
    Report,
    Seen,
    Several,
    Step,
    Survey,
    Wait,
    Write,
    phase_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import PRIMARY
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from muster.dstk.reconciler_metrics import OperationMetrics
from muster.dstk.workers import (
    Refused,
    Unreachable,
    WorkerClient,
    Workers,
    call_seconds,
)
from muster.frame.authority import Term
from muster.frame.beside import Beside
from muster.frame.cache import key_of
from muster.process import say

STEPS: Final = 4000  # in one go; most are looks at who loads, or at whether a fence is acknowledged
AT_ONCE: Final = 8  # requests at the same time, of one Assignment, where there are several to do
AGAIN_SECONDS: Final = 0.1  # after so many steps
SHORT_SECONDS: Final = 0.5  # a wait that is shorter is waited here
INSIDE_SECONDS: Final = 10.0  # of short waits in one go, while nobody serves
LOADING_SECONDS: Final = 2.0  # of waits for who loads: the thread may be wanted for others
FULL_SECONDS: Final = 2.0  # until it is looked again whether another operation may begin
TROUBLES: Final = 8  # conflicts and lost answers in one go
TROUBLE_SECONDS: Final = 0.05  # after one of these
SEEN_SECONDS: Final = 60.0  # for which what is over is kept at least, after this process has seen it so
REMEMBERED: Final = 10_000  # Assignments of which something is remembered

Object = dict[str, Any]
Key = tuple[str, str, str]
One = TypeVar("One")
Answer = TypeVar("Answer")


class Tell(Protocol):
    """Writes an Event about an object."""

    def __call__(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None: ...


class Open(NamedTuple):
    """An Assignment that is not over, as the cache has it."""

    space: str
    phase: str
    operands: tuple[str, ...]


class Board:
    """Which Assignments are not over, by the cache, and which are worked on here; for several threads."""

    def __init__(self) -> None:
        self._open: dict[str, Open] = {}  # by key
        self._busy: dict[str, str] = {}  # key to `NAMESPACE/SPACE`
        self._lock = threading.Lock()

    def put(self, key: str, obj: Object | None) -> list[str]:
        """Tell of a change; which others may go on by it."""
        with self._lock:
            before = self._open.pop(key, None)
            if obj is not None and phase_of(obj) not in FINAL:
                space = f"{key.partition('/')[0]}/{keyspace.space_of(obj)}"
                self._open[key] = Open(space, phase_of(obj), operations.operands(obj))
                return []
            return [] if before is None else self._waiting(key, before)

    def concerned(self, namespace: str, partition: str) -> list[str]:
        """Who waits for this Partition."""
        with self._lock:
            listed = self._open.items()
            return [key for key, one in listed if partition in one.operands and key.startswith(f"{namespace}/")]

    @contextmanager
    def begin(self, key: str, space: str, most: int, *, may_wait: bool) -> Iterator[bool]:
        """Whether it may begin: one of so many in its key space; while inside it counts as one."""
        with self._lock:
            decided = (PENDING, COMMITTED)
            others = {other for other, one in self._open.items() if one.space == space and one.phase not in decided}
            others |= {other for other, of in self._busy.items() if of == space}
            may = not may_wait or len(others - {key}) < most
            if may:
                self._busy[key] = space
        try:
            yield may
        finally:
            if may:
                self.rest(key)

    def rest(self, key: str) -> None:
        """It counts no more: it waits for others, or is decided."""
        with self._lock:
            self._busy.pop(key, None)

    def waiting(self, key: str) -> list[str]:
        """Who may begin, now that this one is decided."""
        with self._lock:
            one = self._open.get(key)
            return self._waiting(key, one) if one else []

    def _waiting(self, key: str, one: Open) -> list[str]:
        listed = self._open.items()
        return [other for other, of in listed if other != key and of.space == one.space and of.phase == PENDING]


@dataclass(slots=True)
class _Turn:
    """What is known of an Assignment while it is looked after."""

    obj: Object
    space: Space | None
    partitions: dict[str, Object | None] = field(default_factory=dict)
    reports: dict[str, Report | Absent] = field(default_factory=dict)
    others: dict[str, Object | None] = field(default_factory=dict)
    overlapping: tuple[Object, ...] | None = None
    tried: set[Key] = field(default_factory=set)
    waited: float = 0.0  # seconds, inside
    troubles: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)  # for what several threads learn at the same time

    @property
    def key(self) -> str:
        return key_of(self.obj)

    @property
    def namespace(self) -> str:
        return str(self.obj["metadata"]["namespace"])

    @property
    def space_name(self) -> str:
        return keyspace.space_of(self.obj)

    @property
    def names(self) -> list[str]:
        """The Partitions that it is about, and what it makes of them."""
        results = (self.obj.get("status") or {}).get("results") or ()
        return list(dict.fromkeys((*operations.operands(self.obj), *(each["partition"] for each in results))))

    def seen(self) -> Seen:
        tried = frozenset(self.tried)
        return Seen(self.space, self.partitions, self.reports, self.others, self.overlapping, tried)

    def forget(self) -> None:
        self.partitions, self.others, self.overlapping = {}, {}, None
        self.forget_reports()

    def forget_reports(self) -> None:
        self.reports, self.tried = {}, set()


@dataclass(slots=True)
class _Memory:
    """What this process remembers of an Assignment."""

    version: int = 0  # that it wrote, or read, last
    settled: str = ""  # the version at which nothing was left to do
    writes: int = 0
    fenced: float | None = None  # since when nobody serves, on the clock
    over: float | None = None  # since when it is seen to be over


class Assignments:
    """Reconciles one object at a time a thread; safe for several threads with different objects."""

    def __init__(
        self,
        api: Api,
        workers: Workers,
        client: WorkerClient,
        space_of: Callable[[str, str], Object | None],
        tell: Tell,
        *,
        keep_seconds: float = 3600.0,
        at_once: int = AT_ONCE,
        metrics: OperationMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`space_of`: the KeySpace of this namespace and name, as a cache has it. `keep_seconds`: for so long what is
        over can be looked at. `at_once`: of one Assignment so many requests are made at the same time."""
        self._api, self._workers, self._client, self._space_of, self._tell = api, workers, client, space_of, tell
        self._keep_seconds, self._metrics = keep_seconds, metrics or OperationMetrics()
        self._clock, self._now, self._sleep = clock, now, sleep
        self._memories: dict[str, _Memory] = {}  # by uid
        self._news: set[str] = set()  # keys of Assignments of which something else has changed
        self._lock = threading.Lock()
        self._at_once = at_once
        self.board = Board()
        self.wake: Callable[[str], None] = lambda key: None  # has another one looked at

    # ------------------------------------------------------------------------------------------ news

    def changed(self, key: str, obj: Object | None) -> None:
        """An Assignment has changed, by the cache; from its thread."""
        for other in self.board.put(key, obj):
            self.wake(other)

    def noticed(self, key: str) -> None:
        """Something that concerns this Assignment has changed; from any thread, before it is looked at."""
        with self._lock:
            if len(self._news) >= REMEMBERED:  # of a replica that only stands by
                self._news.clear()
                self._memories.clear()
            self._news.add(key)

    # ------------------------------------------------------------------------------------------ its work

    def reconcile(self, obj: Object, term: Term) -> float | None:
        """Do what is to be done with the Assignment; seconds after which to do it again, None: when it changes.

        Raises what the term and the API server raise; to do it again later is always right.
        """
        key, memory = key_of(obj), self._memory(obj["metadata"]["uid"])
        with self._lock:
            has_news = key in self._news
            self._news.discard(key)
        if memory.settled == obj["metadata"]["resourceVersion"] and not has_news:
            return self._retire(obj, memory, term)
        turn = _Turn(obj, self._space(obj))
        if int(obj["metadata"]["resourceVersion"]) < memory.version and not self._read(turn):
            return None  # the cache had not heard yet of what was written here
        phase, status = phase_of(turn.obj), turn.obj.get("status") or {}
        is_new = phase == PENDING and not status.get("startedAt") and "deletionTimestamp" not in obj["metadata"]
        most = turn.space.operations if turn.space else 1
        space = f"{turn.namespace}/{turn.space_name}"
        with self.board.begin(key, space, most, may_wait=is_new) as may_begin:
            if not may_begin:
                return FULL_SECONDS
            return self._go(turn, memory, term)

    def _go(self, turn: _Turn, memory: _Memory, term: Term) -> float | None:
        for _count in range(STEPS):
            now = self._now()
            step = operations.next_step(turn.obj, turn.seen(), now, _stamp(now))
            say(logging.DEBUG, "step", name=turn.obj["metadata"]["name"], step=_spelled(step))
            if isinstance(step, Done):
                memory.settled = turn.obj["metadata"]["resourceVersion"]
                return self._retire(turn.obj, memory, term)
            if isinstance(step, Wait):
                if not self._wait(step, turn):
                    return step.seconds
                continue
            try:
                self._do(step, turn, memory, term)
            except (AlreadyExists, Conflict, NotFound, LostAnswer) as error:
                say(logging.DEBUG, "reads anew", name=turn.obj["metadata"]["name"], why=str(error))
                turn.troubles += 1
                if turn.troubles > TROUBLES:
                    raise
                if turn.troubles > 1:
                    self._sleep(TROUBLE_SECONDS)
                if not self._read(turn):
                    return None
            if turn.obj["metadata"].get("deletionTimestamp") and not turn.obj["metadata"].get("finalizers"):
                self._forget(turn.obj["metadata"]["uid"])
                return None
        return AGAIN_SECONDS

    def _wait(self, step: Wait, turn: _Turn) -> bool:
        """Whether the time was waited here, and it is to be looked again."""
        longest = LOADING_SECONDS if step.seconds >= operations.LOADING_SECONDS else INSIDE_SECONDS
        if step.seconds >= SHORT_SECONDS or turn.waited + step.seconds > longest:
            return False
        turn.waited += step.seconds
        self._sleep(step.seconds)
        turn.forget_reports()
        return True

    def _read(self, turn: _Turn) -> bool:
        """Read the Assignment anew, and forget all else; whether it is there."""
        metadata = turn.obj["metadata"]
        turn.forget()
        try:
            there = self._api.get(ASSIGNMENTS, metadata["name"], metadata["namespace"])
        except NotFound:
            there = None
        if there is None or there["metadata"]["uid"] != metadata["uid"]:
            self._forget(metadata["uid"])
            return False
        turn.obj = there
        self._memory(metadata["uid"]).version = int(there["metadata"]["resourceVersion"])
        return True

    def _space(self, obj: Object) -> Space | None:
        namespace, name = obj["metadata"]["namespace"], keyspace.space_of(obj)
        try:
            return keyspace.parse_space(self._space_of(namespace, name) or self._api.get(KEY_SPACES, name, namespace))
        except NotFound:
            return None
        except Malformed as error:
            say(logging.WARNING, "a key space makes no sense", name=name, why=str(error))
            return None

    # ------------------------------------------------------------------------------------------ steps

    def _do(self, step: Step, turn: _Turn, memory: _Memory, term: Term) -> None:
        match step:
            case ReadPartitions(names):
                turn.partitions |= self._read_each(PARTITIONS, names, turn)
            case Inspect(names):
                turn.others |= self._read_each(ASSIGNMENTS, names, turn)
            case Survey(names):
                turn.overlapping = self._survey(names, turn)
            case Ask(workers):
                turn.reports |= zip(workers, self._each(lambda worker: self._ask(worker, turn), workers), strict=True)
                self._look_whether_served(turn, memory)
            case Write():
                term.check()
                memory.writes += 1
                self._write(step, turn, memory, term)
            case Several(steps):
                self._each(lambda one: self._effect(one, turn, memory, term), steps)
                self._look_whether_served(turn, memory)
            case Call() | Replace() | Make() | Remove():
                self._effect(step, turn, memory, term)
                self._look_whether_served(turn, memory)

    def _effect(self, step: Call | Replace | Make | Remove, turn: _Turn, memory: _Memory, term: Term) -> None:
        """In any thread, beside others of the same turn."""
        term.check()
        if isinstance(step, Call):
            if turn.reports.get(step.worker) is not UNREACHABLE:  # as one of the others has just found it
                self._call(step, turn)
            return
        metadata = (step.obj if isinstance(step, Remove) else step.desired)["metadata"]
        name = metadata["name"]
        with turn.lock:
            memory.writes += 1
            turn.partitions.pop(name, None)
            if isinstance(step, Replace) and step.fences:
                turn.forget_reports()
                memory.fenced = self._clock() if memory.fenced is None else memory.fenced
        match step:
            case Make(desired):
                turn.partitions[name] = self._api.create(PARTITIONS, desired)
            case Replace(desired, subresource):
                turn.partitions[name] = self._api.replace(PARTITIONS, desired, subresource)
            case Remove():
                at = {"uid": metadata["uid"], "resource_version": metadata["resourceVersion"]}
                self._api.delete(PARTITIONS, name, metadata["namespace"], **at)

    def _each(self, what: Callable[[One], Answer], of: Sequence[One]) -> list[Answer]:
        """Do this with each, several at the same time; what came of it, in the same order.

        Raises what one raised, when no thread is at work any more; what was not begun by then is left.
        """
        if self._at_once < 2 or len(of) < 2:
            return [what(one) for one in of]
        with ThreadPoolExecutor(min(self._at_once, len(of)), "beside") as pool:
            return list(pool.map(what, of))

    def _read_each(self, resource: Resource, names: Sequence[str], turn: _Turn) -> dict[str, Object | None]:
        return dict(zip(names, self._each(lambda name: self._get(resource, name, turn), names), strict=True))

    def _get(self, resource: Resource, name: str, turn: _Turn) -> Object | None:
        try:
            return self._api.get(resource, name, turn.namespace)
        except NotFound:
            return None

    def _survey(self, names: Iterable[str], turn: _Turn) -> tuple[Object, ...]:
        """Those that overlap another one than themselves, by name."""
        own = {name: keyspace.range_of(obj) for name in names if (obj := turn.partitions.get(name))}
        listed = [obj for obj in self._api.list(PARTITIONS, turn.namespace).items if _is_of(obj, turn.space_name)]
        return tuple(sorted(_overlapping(listed, own), key=lambda obj: str(obj["metadata"]["name"])))

    def _ask(self, worker: str, turn: _Turn) -> Report | Absent:
        if self._workers.is_lost(turn.namespace, turn.space_name, worker):
            return LOST
        address = self._workers.address(turn.namespace, turn.space_name, worker)
        try:
            return Report(self._client.copies(worker, address, turn.names, timeout=self._seconds(turn)))
        except Unreachable as error:
            say(logging.INFO, "a worker does not answer", worker=worker, why=str(error))
            return UNREACHABLE

    def _call(self, step: Call, turn: _Turn) -> None:
        with turn.lock:
            turn.tried.add(step.key)
        body, at = dict(step.body), (turn.namespace, turn.space_name)
        for end in ("from", "to"):
            peer = body.get(end)
            if peer:
                body[end] = {**peer, "address": self._workers.address(*at, peer["worker"])}
        address, partition = self._workers.address(*at, step.worker), body["partition"]
        try:
            copy = self._client.call(step.worker, address, step.verb, body, timeout=self._seconds(turn))
        except Refused as error:
            fields = {"worker": step.worker, "verb": step.verb, "partition": partition, "why": str(error)}
            say(logging.INFO, "a worker refuses", name=turn.obj["metadata"]["name"], **fields)
            return
        except Unreachable as error:
            say(logging.INFO, "a worker does not answer", worker=step.worker, verb=step.verb, why=str(error))
            with turn.lock:
                turn.reports[step.worker] = UNREACHABLE
            return
        with turn.lock:
            known = turn.reports.get(step.worker)
            if isinstance(known, Report):
                others = {name: one for name, one in known.copies.items() if name != partition}
                turn.reports[step.worker] = Report({**others, partition: copy} if copy else others)

    def _seconds(self, turn: _Turn) -> float:
        return call_seconds(turn.space.fence_seconds if turn.space else 5.0)

    def _write(self, step: Write, turn: _Turn, memory: _Memory, term: Term) -> None:
        before = turn.obj
        turn.obj = self._api.replace(ASSIGNMENTS, step.desired, step.subresource)
        memory.version = int(turn.obj["metadata"]["resourceVersion"])
        phase = phase_of(turn.obj)
        if not step.subresource or phase == phase_of(before):
            return
        self._tell_change(before, turn.obj, memory)
        if phase in (COMMITTED, ABORTING):
            self.board.rest(turn.key)
            for other in self.board.waiting(turn.key):
                self.wake(other)
        if phase == COMMITTED:
            self._hint(turn, term)
            self._look_whether_served(turn, memory)

    def _hint(self, turn: _Turn, term: Term) -> None:
        """It is decided, and nobody serves: have the new owner look at once. Nothing rests on that."""
        for fact in keyspace.results_of(turn.obj):
            obj = turn.partitions.get(fact.partition)
            if not fact.sources and not (obj and obj["spec"].get("fencedBy")):
                continue
            term.check()
            body = {"assignment": turn.obj["metadata"]["name"], "uid": turn.obj["metadata"]["uid"]}
            body |= {"keySpace": turn.space_name, "partition": fact.partition, "epoch": fact.epoch}
            body["range"] = {"start": fact.range.start, "end": fact.range.end}
            self._call(Call(fact.primary, "promote", body), turn)
        turn.tried.clear()

    # ------------------------------------------------------------------------------------------ what is over

    def _retire(self, obj: Object, memory: _Memory, term: Term) -> float | None:
        """Delete what has been over for long; when to look again."""
        if phase_of(obj) not in FINAL or "deletionTimestamp" in obj["metadata"]:
            return None
        if memory.over is None:
            memory.over = self._clock()
        left = max(
            _latest(obj) + self._keep_seconds - self._now(),
            memory.over + min(SEEN_SECONDS, self._keep_seconds) - self._clock(),
        )
        if left > 0:
            return left
        term.check()
        metadata = obj["metadata"]
        try:
            self._api.delete(ASSIGNMENTS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except (Conflict, LostAnswer, NotFound):
            return AGAIN_SECONDS
        say(logging.DEBUG, "what is over is deleted", name=metadata["name"])
        return None

    def _memory(self, uid: str) -> _Memory:
        with self._lock:
            memory = self._memories.get(uid)
            if memory is None:
                while len(self._memories) >= REMEMBERED:
                    self._memories.pop(next(iter(self._memories)))
                memory = self._memories[uid] = _Memory()
            return memory

    def _forget(self, uid: str) -> None:
        with self._lock:
            self._memories.pop(uid, None)

    # ------------------------------------------------------------------------------------------ what is told

    def _look_whether_served(self, turn: _Turn, memory: _Memory) -> None:
        """Note for how long nobody has served, once the new owners say that they do."""
        if memory.fenced is None or phase_of(turn.obj) != COMMITTED:
            return
        for fact in keyspace.results_of(turn.obj):
            report = turn.reports.get(fact.primary)
            copy = report.copies.get(fact.partition) if isinstance(report, Report) else None
            if copy is None or copy.role != PRIMARY or copy.epoch < fact.epoch:
                return
        self._metrics.unowned(_kind(turn.obj), self._clock() - memory.fenced)
        memory.fenced = None

    def _tell_change(self, before: Object, after: Object, memory: _Memory) -> None:
        """An Event, where people wait for it."""
        phase, message, kind = phase_of(after), (after.get("status") or {}).get("message") or "", _kind(after)
        say(logging.INFO, "phase", name=after["metadata"]["name"], kind=kind, phase=phase, why=message)
        about = f"{kind} of {_listed(operations.operands(after))}"
        if phase == COMMITTED:
            made = _listed(fact.partition for fact in keyspace.results_of(after))
            self._tell(after, "Committed", f"{about} is decided: {made}")
        elif phase == COMPLETED:
            self._metrics.ended(kind, "completed", memory.writes)
            self._tell(after, "Completed", f"{about} is over")
        elif phase == ABORTED:
            if memory.fenced is not None:
                self._metrics.unowned(kind, self._clock() - memory.fenced)
                memory.fenced = None
            self._metrics.ended(kind, "aborted", memory.writes)
            self._tell(after, "Aborted", f"{about} was undone: {message}", warning=True)


# ---------------------------------------------------------------------------------------------- watches beside it


class PartitionsBeside(Beside):
    """Partitions: who is claimed by nobody any more, or is made or removed, concerns those who wait for it."""

    def __init__(self, api: Api, namespace: str | None, assignments: Assignments) -> None:
        super().__init__(api, PARTITIONS, namespace, shrink=_slim, concerns=self._told)
        self._assignments = assignments
        self._wake: Callable[[str], None] = lambda key: None

    def start(self, changed: Callable[[str], None]) -> None:
        self._wake = self._assignments.wake = changed
        super().start(changed)

    def _told(self, obj: Object) -> str | None:
        """Those that wait are told here; it returns the one that has it, if that is known to be over."""
        metadata = obj["metadata"]
        namespace, claimed = metadata["namespace"], obj["claimedBy"]
        waiting = self._assignments.board.concerned(namespace, metadata["name"])
        for key in waiting:
            if not claimed:
                self._assignments.noticed(key)
                self._wake(key)
        key = f"{namespace}/{claimed}"
        if not claimed or key in waiting:
            return None  # it writes it itself, and goes on
        self._assignments.noticed(key)
        return key


def _slim(obj: Object) -> Object:
    metadata = obj["metadata"]
    kept = {"name": metadata["name"], "namespace": metadata.get("namespace", "")}
    return {"metadata": kept, "claimedBy": obj["spec"].get("claimedBy") or ""}


# ---------------------------------------------------------------------------------------------- details


def _is_of(obj: Object, space: str) -> bool:
    return keyspace.space_of(obj) == space


def _overlapping(listed: Iterable[Object], own: Mapping[str, Range]) -> list[Object]:
    """Those of the list that overlap one of these, but for itself; n log m, unless these overlap one another."""
    ordered = sorted(own.items(), key=lambda each: keyspace.order(each[1]))
    starts = [of.start for _name, of in ordered]
    is_plain = not any(keyspace.overlaps(one[1], other[1]) for one, other in itertools.pairwise(ordered))
    found = []
    for obj in listed:
        name, at = obj["metadata"]["name"], keyspace.range_of(obj)
        place = bisect.bisect(starts, at.start)
        beside = ordered[max(0, place - 1) : place + 1] if is_plain else ordered
        if any(other != name and keyspace.overlaps(at, of) for other, of in beside):
            found.append(obj)
    return found


def _kind(obj: Object) -> str:
    kind = obj["spec"].get("type")
    return kind if kind in operations.KINDS else "unknown"


def _listed(names: Iterable[str]) -> str:
    named = list(names)
    return ", ".join(named[:4]) + (f" and {len(named) - 4} more" if len(named) > 4 else "")


def _latest(obj: Object) -> float:
    """The last time of which the Assignment tells, in seconds since 1970."""
    status: Mapping[str, Any] = obj.get("status") or {}
    stamps = [obj["metadata"].get("creationTimestamp"), status.get("startedAt"), status.get("committedAt")]
    return max((datetime.fromisoformat(stamp).timestamp() for stamp in stamps if stamp), default=0.0)


def _spelled(step: Step) -> str:
    match step:
        case Call(worker, verb, body):
            return f"Call {worker} {verb} {body['partition']}"
        case Several(steps):
            return f"{len(steps)} at once, the first: {_spelled(steps[0])}"
        case Replace(desired) | Make(desired) | Remove(desired):
            return f"{type(step).__name__} {desired['metadata']['name']}"
        case Write():
            return f"Write {phase_of(step.desired)}"
        case Wait(seconds, why):
            return f"Wait {seconds:g}: {why}"
    return type(step).__name__


def _stamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

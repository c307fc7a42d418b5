# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Assignment, which gives, splits, merges or moves partitions: what to do next.

Rules
1. One step at a time, each decided on the Assignment at one version, on the Partitions as they were read and on what
   workers report. Every write is a compare-and-swap, so two reconcilers with old reads do no harm, and every step can
   be done twice. What does not depend on one another is one step, and is done in any order, or at the same time.
2. First each Partition is claimed: no other operation touches it until this one is over. A claim by an Assignment that
   is over, or is not there, is void. What an operation has made waits for its end. Who waits for a Partition has no
   claim on what comes after it in the order of ranges, so that no two wait for one another.
3. While the new owner loads, the old one serves. Then each Partition is fenced: the fence is written, the old owner
   acknowledges it with its last position, and nobody serves until this is decided. That is bounded in time.
4. One write of the Assignment's status decides: Committed, with the results, or Aborting. Both are final. It is
   committed only when the new owner has everything up to the fence.
5. After that it only rolls forward (or back): Partitions are written as the results say (or are released, with a
   higher epoch), the old owner passes requests on for a while, and drops its copy.
6. A worker is asked to acknowledge, and nothing is concluded from its silence, but for one case: a follower that is in
   sync may be called up when the Lease of the primary has run out after the fence was written.

Theory: fencing by epochs (Kleppmann, Designing Data-Intensive Applications, 2017, ch. 8); one atomic commit record
(Gray and Reuter, Transaction Processing, 1992). docs/proof/partitions.md has the search over these very functions.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FENCED,
    FOLLOWING,
    LOADING,
    PRIMARY,
    PROXY,
    Copy,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

API_VERSION: Final = "muster.dev/v1alpha1"
FINALIZER: Final = "muster.dev/assignment"
NEW, SPLIT, MERGE, MOVE = "New", "InWorkerSplit", "InWorkerMerge", "InterWorkerMove"
KINDS: Final = (NEW, SPLIT, MERGE, MOVE)
PENDING, STARTED, COMMITTED, COMPLETED = "Pending", "Loading", "Committed", "Completed"
ABORTING, ABORTED = "Aborting", "Aborted"
FINAL: Final = (COMPLETED, ABORTED)
MAX_BATCH: Final = 200  # Partitions of one New
MAX_MERGE: Final = 16
MAX_MESSAGE: Final = 1024  # characters
POLL_SECONDS: Final = 0.02  # while nobody serves
LOADING_SECONDS: Final = 0.2  # until a worker that loads is asked again
UNCLAIMED: Final = {"claimedBy": "", "claimUid": ""}
PATIENT_SECONDS: Final = 1.0  # until what only others can change is looked at again

Object = Mapping[str, Any]


class Absent(enum.Enum):
    """Why there is no report of a worker."""

    LOST = "lost"  # its Lease has run out, or was released, since it was asked for
    UNREACHABLE = "unreachable"  # it did not answer


LOST, UNREACHABLE = Absent.LOST, Absent.UNREACHABLE


class Report(NamedTuple):
    """What a worker says it has of this operation's partitions, by name."""

    copies: Mapping[str, Copy]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read since. A name that is not in a mapping was not read; None: it is not there.

    `overlapping`: Partitions that overlap those of a New, read after these were claimed. `tried`: calls that were made
    and are not worth repeating in this go.
    """

    space: Space | None
    partitions: Mapping[str, Object | None] = field(default_factory=dict)
    reports: Mapping[str, Report | Absent] = field(default_factory=dict)
    others: Mapping[str, Object | None] = field(default_factory=dict)
    overlapping: tuple[Object, ...] | None = None
    tried: frozenset[tuple[str, str, str]] = frozenset()


# ---------------------------------------------------------------------------------------------- steps


class ReadPartitions(NamedTuple):
    """Read these Partitions, from the store."""

    names: tuple[str, ...]


class Ask(NamedTuple):
    """Ask these workers what they have; LOST counts only by what is seen of their Leases from now on."""

    workers: tuple[str, ...]


class Inspect(NamedTuple):
    """Read these other Assignments, from the store."""

    names: tuple[str, ...]


class Survey(NamedTuple):
    """Read which Partitions of the KeySpace overlap another of these, by name, from the store."""

    names: tuple[str, ...]


class Call(NamedTuple):
    """Call this worker; `body` lacks only the addresses of `from` and `to`."""

    worker: str
    verb: str
    body: dict[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.worker, self.verb, self.body["partition"]


class Write(NamedTuple):
    """Make the Assignment this, by compare-and-swap."""

    desired: dict[str, Any]
    subresource: str = ""


class Replace(NamedTuple):
    """Make a Partition this, by compare-and-swap. `fences`: all reports are forgotten, for they are older."""

    desired: dict[str, Any]
    subresource: str = ""
    fences: bool = False


class Make(NamedTuple):
    """Create this Partition."""

    desired: dict[str, Any]


class Remove(NamedTuple):
    """Delete this Partition, if it is still at this version."""

    obj: Object


class Several(NamedTuple):
    """All of these, in any order or at the same time; that one does not come off is no reason to leave the others."""

    steps: tuple[Call | Replace | Make | Remove, ...]


class Wait(NamedTuple):
    """Nothing, for so many seconds; `why` is for people."""

    seconds: float
    why: str


class Done(NamedTuple):
    """Nothing, until something changes."""


Step = ReadPartitions | Ask | Inspect | Survey | Call | Write | Replace | Make | Remove | Several | Wait | Done  # pylint: disable=unsupported-binary-operation


# ---------------------------------------------------------------------------------------------- what is asked for


class Plan(NamedTuple):
    """What an Assignment asks for. `primaries`: of a New, who is to serve each operand."""

    kind: str
    operands: tuple[str, ...]
    primaries: tuple[str, ...] = ()
    split_key: str = ""
    source: str = ""
    target: str = ""


def parse(assignment: Object) -> Plan:
    """Raises Malformed naming the field."""
    spec = assignment.get("spec") or {}
    kind = spec.get("type")
    if kind == NEW:
        params = _params(spec, "newParams")
        listed = params.get("partitions")
        pairs = listed if isinstance(listed, list) and listed else [params]
        if len(pairs) > MAX_BATCH:
            raise Malformed("spec.newParams.partitions", len(pairs), f"give at most {MAX_BATCH}")
        names = tuple(_word(pair, "spec.newParams", "partition") for pair in pairs)
        plan = Plan(NEW, names, tuple(_word(pair, "spec.newParams", "primary") for pair in pairs))
    elif kind == SPLIT:
        params = _params(spec, "splitParams")
        split_key = _word(params, "spec.splitParams", "splitKey")
        plan = Plan(SPLIT, (_word(params, "spec.splitParams", "partition"),), split_key=split_key)
    elif kind == MERGE:
        listed = _params(spec, "mergeParams").get("partitions")
        if not isinstance(listed, list) or not 2 <= len(listed) <= MAX_MERGE or not all(map(_is_word, listed)):
            raise Malformed("spec.mergeParams.partitions", listed, f"name 2 to {MAX_MERGE} Partitions, in order")
        plan = Plan(MERGE, tuple(listed))
    elif kind == MOVE:
        params = _params(spec, "moveParams")
        words = [_word(params, "spec.moveParams", name) for name in ("partition", "from", "to")]
        plan = Plan(MOVE, (words[0],), source=words[1], target=words[2])
        if plan.source == plan.target:
            raise Malformed("spec.moveParams.to", plan.target, "name another worker than in from")
    else:
        raise Malformed("spec.type", kind, f"give one of {', '.join(KINDS)}")
    if len(set(plan.operands)) < len(plan.operands):
        raise Malformed("the Partitions", list(plan.operands), "name each only once")
    return plan


def _params(spec: Object, name: str) -> Object:
    params = spec.get(name)
    if not isinstance(params, Mapping):
        raise Malformed(f"spec.{name}", params, f"give what {spec['type']} needs")
    return params


def _word(params: Object, where: str, name: str) -> str:
    value = params.get(name) if isinstance(params, Mapping) else None
    if not _is_word(value):
        raise Malformed(f"{where}.{name}", value, "give a name of 1 to 253 characters")
    return str(value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 253


def operands(assignment: Object) -> tuple[str, ...]:
    """The Partitions that it is about; none where it can't be understood."""
    try:
        return parse(assignment).operands
    except Malformed:
        return ()


def phase_of(assignment: Object) -> str:
    return (assignment.get("status") or {}).get("phase") or PENDING


def is_final(assignment: Object | None) -> bool:
    """Whether it will do nothing more; also one that is not there."""
    return assignment is None or phase_of(assignment) in FINAL


def make(name: str, space: str, kind: str, **params: Any) -> dict[str, Any]:
    """The Assignment, to be created: `make("a1", "default", MOVE, partition="p", **{"from": "w1", "to": "w2"})`."""
    word = {NEW: "newParams", SPLIT: "splitParams", MERGE: "mergeParams", MOVE: "moveParams"}[kind]
    metadata = {"name": name, "finalizers": [FINALIZER], "labels": {"muster.dev/key-space": space}}
    spec = {"keySpace": space, "type": kind, word: params}
    return {"apiVersion": API_VERSION, "kind": "Assignment", "metadata": metadata, "spec": spec}


# ---------------------------------------------------------------------------------------------- what to do next


def next_step(assignment: Object, seen: Seen, now: float, stamp: str) -> Step:
    """What to do next. `now`: seconds since 1970, of any clock that is about right; `stamp`: the same in RFC 3339.

    After each step: do this again with the Assignment as it is then, and what the step touched read anew.
    """
    metadata = assignment["metadata"]
    finalizers = metadata.get("finalizers") or []
    if FINALIZER not in finalizers:
        going = metadata.get("deletionTimestamp")
        return Done() if going else Write(_with_finalizers(assignment, [*finalizers, FINALIZER]))
    turn = _Turn(assignment, seen, now, stamp)
    phase = phase_of(assignment)
    if phase in FINAL:
        return turn.rest()
    if phase == ABORTING:
        return turn.roll_back()
    if phase == COMMITTED:
        return turn.roll_forward()
    if metadata.get("deletionTimestamp"):
        return turn.aborts("it was deleted before it was committed")
    return turn.prepare()


def void_claim(partition: Object, claimant: Object | None) -> Replace | None:
    """Release a Partition that is claimed by an Assignment which is over, or is not there; None: the claim holds.

    `claimant`: the Assignment of the name in `claimedBy`, read after the Partition. Such a claim was written late, by
    who did not know yet; where the Assignment is gone, too, nobody else would find it, and a fence would stay for ever.
    """
    spec = partition["spec"]
    is_namesake = claimant is not None and spec.get("claimUid") not in (None, "", claimant["metadata"]["uid"])
    if not spec.get("claimedBy") or not (is_namesake or is_final(claimant)):
        return None
    return Replace(_with_spec(partition, **UNCLAIMED, **_unfenced(spec)))


@dataclass(frozen=True, slots=True)
class _Turn:
    """One look at an Assignment."""

    assignment: Object
    seen: Seen
    now: float
    stamp: str

    # ------------------------------------------------------------------------------------------ before the commit

    def prepare(self) -> Step:
        """Claim, have the new owner load, fence, commit."""
        space = self.seen.space
        if space is None:
            return Wait(PATIENT_SECONDS, f"there is no KeySpace {keyspace.space_of(self.assignment)}")
        try:
            plan = parse(self.assignment)
            unread = self._unread(plan.operands)
            if unread:
                return unread
            partitions = self._operands(plan, space)
        except Malformed as error:
            return self.aborts(str(error))
        since = [_seconds(obj["spec"].get("fencedAt")) for obj in partitions if self._is_fenced(obj)]
        if any(begun is None or self.now > begun + space.fence_seconds for begun in since):
            return self.aborts(f"it was not decided within {space.fence_seconds:g} s, in which nobody may serve")
        return (
            self._claim(partitions)
            or self._survey(plan, partitions)
            or self._load(plan, space, partitions)
            or self._fence(plan, partitions)
            or self._commit(plan, partitions)
        )

    def _operands(self, plan: Plan, space: Space) -> list[Object]:
        """The Partitions, in the order of their ranges. Raises Malformed where they are not what the plan needs."""
        partitions = []
        for name in plan.operands:
            obj = self.seen.partitions[name]
            if obj is None:
                raise Malformed("partition", name, "there is no such Partition; it may have been split or merged")
            if keyspace.space_of(obj) != space.name:
                raise Malformed("partition", name, f"it is of KeySpace {keyspace.space_of(obj)}, not {space.name}")
            partitions.append(obj)
        partitions.sort(key=lambda obj: keyspace.order(keyspace.range_of(obj)))
        _check(plan, space, partitions)
        return partitions

    def _claim(self, partitions: Sequence[Object]) -> Step | None:
        claims: list[Step] = []
        for place, obj in enumerate(partitions):
            if self._is_mine(obj):
                continue
            spec, name = obj["spec"], _name(obj)
            before = spec.get("claimedBy") or ""
            awaited = [each for each in (before, spec.get("madeBy") or "") if each and each != self._name]
            for other in awaited:
                if other not in self.seen.others:
                    return Inspect((other,))
                if not is_final(self.seen.others[other]):
                    waiting = self._queues(f"Partition {name} is part of {other}, which is not over")
                    return _together(claims) or self._let_go(partitions[place + 1 :]) or waiting
            claims.append(Replace(_with_spec(obj, claimedBy=self._name, claimUid=self._uid, **_unfenced(spec))))
        return _together(claims)

    def _let_go(self, partitions: Iterable[Object]) -> Step | None:
        """Take the claims off these that it has, with a higher epoch where they were fenced."""
        mine = [obj for obj in partitions if self._is_mine(obj)]
        return _together(Replace(_with_spec(obj, **UNCLAIMED, **_unfenced(obj["spec"]))) for obj in mine)

    def _survey(self, plan: Plan, partitions: Sequence[Object]) -> Step | None:
        """A range that is given anew must not be one that somebody serves under another name."""
        given = partitions if plan.kind == NEW else []
        if not given or (self.assignment.get("status") or {}).get("startedAt"):
            return None  # it was surveyed before that was written, and claimed before that
        if self.seen.overlapping is None:
            return Survey(tuple(_name(obj) for obj in given))
        for other in self.seen.overlapping:
            at, claimed = keyspace.range_of(other), other["spec"].get("claimedBy") or ""
            for obj in given:
                if _name(other) == _name(obj) or not keyspace.overlaps(keyspace.range_of(obj), at):
                    continue
                own = obj["spec"].get("epoch", 0)
                if own and other["spec"].get("epoch", 0) < own:
                    continue  # it counts no more
                if other["spec"].get("epoch") or (claimed and _name(other) < _name(obj)):
                    return self.aborts(f"Partition {_name(obj)} overlaps Partition {_name(other)}, {at}: delete one")
                if claimed:
                    return self._queues(f"Partition {_name(obj)} overlaps {_name(other)}")
        return None

    def _load(self, plan: Plan, space: Space, partitions: Sequence[Object]) -> Step | None:
        """Have the new owners ready; None when they are."""
        started = _seconds((self.assignment.get("status") or {}).get("startedAt"))
        is_over = started is not None and self.now > started + space.loading_seconds
        primaries = self._new_primaries(plan, partitions)
        unasked = self._unasked([*primaries, *self._old_primaries(plan, partitions)])
        if unasked:
            return unasked
        for worker in primaries:
            if self.seen.reports[worker] is LOST:
                return self.aborts(f"worker {worker} is lost")
            if is_over:
                return self.aborts(f"worker {worker} was not ready within {space.loading_seconds:g} s")
        return _together(
            self._ready(plan, obj, worker, self.seen.reports[worker])
            for obj, worker in zip(partitions, primaries, strict=True)
        )

    def _ready(self, plan: Plan, obj: Object, worker: str, report: Report | Absent) -> Step | None:
        """Have the new owner of this Partition ready; None when it is."""
        if isinstance(report, Absent):
            return self._waits(LOADING_SECONDS, f"worker {worker} does not answer")
        copy = report.copies.get(_name(obj))
        if self._is_called_up(plan, obj):
            if copy is None or copy.role != FOLLOWING or copy.uid:
                return self.aborts(f"{plan.source} is lost, and {worker} has no copy of {_name(obj)}")
            return None
        if plan.kind == MOVE and self.seen.reports.get(plan.source) is LOST:
            return self.aborts(f"{plan.source} is lost, and {worker} is no follower of {_name(obj)} in sync")
        if plan.kind in (SPLIT, MERGE):
            if copy is not None and (copy.prepared == self._uid or copy.role == FENCED):
                return None
            return self._calls(worker, "prepare", obj)
        if copy is None or (copy.uid != self._uid and not self._is_follower(plan, obj)):
            return self._calls(worker, "follow", obj, source=plan.source)
        if copy.role == LOADING:
            return self._waits(LOADING_SECONDS, f"worker {worker} loads {_name(obj)}")
        return None

    def _fence(self, plan: Plan, partitions: Sequence[Object]) -> Step | None:
        """Have nobody serve any more, and the new owner with all that was served; None when that is so."""
        served = [obj for obj in partitions if obj["spec"].get("primary")]
        fences = []
        for obj in served:
            if not self._is_fenced(obj):
                epoch = obj["spec"].get("epoch", 0) + 1
                fenced = _with_spec(obj, fencedBy=self._name, fencedAt=self.stamp, epoch=epoch)
                fences.append(Replace(fenced, fences=True))
        return (
            _together(fences)
            or self._unasked(obj["spec"]["primary"] for obj in served)
            or _together(self._acknowledged(plan, obj) for obj in served)
        )

    def _acknowledged(self, plan: Plan, obj: Object) -> Step | None:
        """Have the fence acknowledged; None when that is so, and the new owner has all."""
        worker, name = obj["spec"]["primary"], _name(obj)
        report = self.seen.reports[worker]
        if report is LOST and (plan.kind == NEW or self._is_called_up(plan, obj)):
            return None
        if report is LOST or (plan.kind == NEW and isinstance(report, Report)):
            return self.aborts(f"worker {worker}, which has {name}, is {'lost' if report is LOST else 'not lost'}")
        if isinstance(report, Absent):
            return Wait(POLL_SECONDS, f"worker {worker} does not answer")
        copy = report.copies.get(name)
        if copy is None or copy.role != FENCED or copy.fenced_epoch != obj["spec"]["epoch"]:
            return self._calls(worker, "fence", obj, pause=POLL_SECONDS)
        if plan.kind == MOVE:
            target = self.seen.reports[plan.target]
            arrived = target.copies.get(name) if isinstance(target, Report) else None
            if arrived is None or arrived.role != FOLLOWING or arrived.position < copy.position:
                return Wait(POLL_SECONDS, f"worker {plan.target} does not have all of {name} yet")
        return None

    def _commit(self, plan: Plan, partitions: Sequence[Object]) -> Step:
        results = self._results(plan, partitions)
        superseded = [_name(obj) for obj in partitions] if plan.kind in (SPLIT, MERGE) else []
        decided = {"committedAt": self.stamp, "results": results, "supersedes": superseded}
        return self._says(COMMITTED, "", _document(plan, "proxying", results), **decided)

    def _results(self, plan: Plan, partitions: Sequence[Object]) -> list[dict[str, Any]]:
        epoch = max(obj["spec"].get("epoch", 0) for obj in partitions) + 1
        whole = Range(keyspace.range_of(partitions[0]).start, keyspace.range_of(partitions[-1]).end)
        if plan.kind in (NEW, MOVE):
            primaries = self._new_primaries(plan, partitions)
            listed = []
            for obj, worker in zip(partitions, primaries, strict=True):
                own = obj["spec"].get("epoch", 0) + 1
                is_called = self._is_called_up(plan, obj) or self._is_follower(plan, obj)
                called = {"follower": True} if is_called else {}
                listed.append(_result(_name(obj), keyspace.range_of(obj), worker, own) | called)
            return listed
        ranges = [whole] if plan.kind == MERGE else _halves(whole, plan.split_key)
        primary = partitions[0]["spec"]["primary"]
        sources = [{"partition": _name(obj), "epoch": obj["spec"]["epoch"]} for obj in partitions]
        names = [keyspace.result_name(_name(partitions[0]), self._uid, index) for index in range(len(ranges))]
        return [
            {**_result(name, part, primary, epoch), "sources": sources}
            for name, part in zip(names, ranges, strict=True)
        ]

    def _new_primaries(self, plan: Plan, partitions: Sequence[Object]) -> list[str]:
        """Who is to serve each of these."""
        if plan.kind == NEW:
            wanted = dict(zip(plan.operands, plan.primaries, strict=True))
            return [wanted[_name(obj)] for obj in partitions]
        return [plan.target or obj["spec"].get("primary") or "" for obj in partitions]

    def _old_primaries(self, plan: Plan, partitions: Sequence[Object]) -> set[str]:
        return {obj["spec"]["primary"] for obj in partitions if obj["spec"].get("primary")}

    def _is_called_up(self, plan: Plan, obj: Object) -> bool:
        """Whether a follower in sync takes over from a primary that is lost."""
        is_lost = plan.kind == MOVE and self.seen.reports.get(plan.source) is LOST
        return is_lost and plan.target in (obj["spec"].get("followers") or ())

    def _is_follower(self, plan: Plan, obj: Object) -> bool:
        """Whether the target follows the very primary already, since this epoch: nothing has to be loaded once more."""
        report = self.seen.reports.get(plan.target)
        copy = report.copies.get(_name(obj)) if isinstance(report, Report) else None
        if plan.kind != MOVE or copy is None or copy.uid or copy.role not in (LOADING, FOLLOWING):
            return False
        before = obj["spec"].get("epoch", 0) - (1 if self._is_fenced(obj) else 0)
        return copy.origin == plan.source and copy.epoch >= before

    # ------------------------------------------------------------------------------------------ after it

    def roll_forward(self) -> Step:
        """Have the Partitions, and the workers, as the results say."""
        plan, status = parse(self.assignment), self.assignment["status"]
        results: list[dict[str, Any]] = status["results"]
        unread = self._unread({*plan.operands, *(each["partition"] for each in results)})
        if unread:
            return unread
        committed = _seconds(status.get("committedAt")) or 0.0
        return (
            self._settle(plan, results)
            or self._confirm(plan, results, committed)
            or self._retire(plan, results, committed)
            or self._tell(results)
            or self._says(COMPLETED, "", _document(plan, "completed", results))
        )

    def _settle(self, plan: Plan, results: Iterable[Object]) -> Step | None:
        steps: list[Step] = []
        for result in results:
            obj = self.seen.partitions[result["partition"]]
            if plan.kind in (SPLIT, MERGE) and obj is None:
                steps.append(Make(self._made(result)))
            if plan.kind != MOVE:
                continue
            if obj is not None and self._is_mine(obj) and obj["spec"].get("epoch", 0) < result["epoch"]:
                steps.append(Replace(_with_spec(obj, **_served(result), proxy=plan.source)))
        return _together(steps)

    def _made(self, result: Object) -> dict[str, Any]:
        spec = {name: result[name] for name in ("range", "primary", "epoch", "sources")}
        space = keyspace.space_of(self.assignment)
        metadata = {
            "name": result["partition"],
            "namespace": self.assignment["metadata"].get("namespace"),
            "labels": {"muster.dev/key-space": space},
        }
        whole = {"keySpace": space, **spec, "madeBy": self._name}
        return {"apiVersion": API_VERSION, "kind": "Partition", "metadata": metadata, "spec": whole}

    def _confirm(self, plan: Plan, results: Iterable[Object], committed: float) -> Step | None:
        """Wait until the new owners say that they serve; one that is lost for long is not waited for."""
        awaited = []
        for result in results:
            obj = self.seen.partitions[result["partition"]]
            if plan.kind in (NEW, MOVE) and (obj is None or not self._is_mine(obj)):
                continue  # it was confirmed, and released: by now it may be elsewhere
            awaited.append(result)
        unasked = self._unasked(result["primary"] for result in awaited)
        return unasked or _together(self._serves(result, committed) for result in awaited)

    def _serves(self, result: Object, committed: float) -> Step | None:
        space, worker = self.seen.space, result["primary"]
        report = self.seen.reports[worker]
        if report is LOST:
            if self.now > committed + (space.lost_after_seconds if space else 0.0):
                return None
            return Wait(PATIENT_SECONDS, f"worker {worker} is lost")
        if isinstance(report, Absent):
            return Wait(PATIENT_SECONDS, f"worker {worker} does not answer")
        copy = report.copies.get(result["partition"])
        if copy is not None and copy.role == PRIMARY and copy.epoch >= result["epoch"]:
            return None
        call = Call(worker, "promote", self._body(result["partition"], keyspace.range_of(result), result["epoch"]))
        return Wait(LOADING_SECONDS, f"worker {worker} takes over") if call.key in self.seen.tried else call

    def _retire(self, plan: Plan, results: Sequence[Object], committed: float) -> Step | None:
        """Have the old owner pass requests on, then let go; remove what is superseded."""
        if plan.kind in (SPLIT, MERGE):
            there = [obj for name in plan.operands if (obj := self.seen.partitions[name]) is not None]
            return _together(Remove(obj) for obj in there if self._is_mine(obj))
        steps: list[Step] = []
        for result in results:
            obj = self.seen.partitions[result["partition"]]
            if obj is None or not self._is_mine(obj):
                continue
            passing = self._pass_on(plan, result, committed) if plan.kind == MOVE else None
            steps.append(passing or Replace(_with_spec(obj, **_served(result), **UNCLAIMED, proxy="")))
        return _together(steps)

    def _pass_on(self, plan: Plan, result: Object, committed: float) -> Step | None:
        report = self.seen.reports.get(plan.source)
        if report is None:
            return Ask((plan.source,))
        copy = report.copies.get(result["partition"]) if isinstance(report, Report) else None
        if copy is None or copy.role not in (FENCED, PROXY) or copy.epoch >= result["epoch"]:
            return None  # it is away or has let go: what is left there it finds itself
        left = committed + (self.seen.space.grace_seconds if self.seen.space else 0.0) - self.now
        body = self._body(result["partition"], keyspace.range_of(result), result["epoch"])
        proxying = Call(plan.source, "proxy", {**body, "to": {"worker": plan.target}})
        if copy.role == FENCED and proxying.key not in self.seen.tried:
            return proxying
        if left > 0:
            return Wait(min(left, 60.0), f"{plan.source} passes requests on to {plan.target}")
        dropping = Call(plan.source, "drop", body)
        return None if dropping.key in self.seen.tried else dropping

    def _tell(self, results: Iterable[Object]) -> Step | None:
        steps = []
        for result in results:
            obj = self.seen.partitions[result["partition"]]
            if obj is not None and ((obj.get("status") or {}).get("phase")) != "Ready":
                steps.append(Replace({**obj, "status": {**(obj.get("status") or {}), "phase": "Ready"}}, "status"))
        return _together(steps)

    # ------------------------------------------------------------------------------------------ the way back

    def aborts(self, why: str) -> Step:
        return self._says(ABORTING, why[:MAX_MESSAGE], {})

    def roll_back(self) -> Step:
        """Release what is claimed, with a higher epoch where it was fenced; have what was loaded dropped."""
        releasing = self._release()
        if releasing:
            return releasing
        tidying = list(self._tidying())
        unasked = self._unasked(worker for worker, _verb, _obj in tidying)
        if unasked:
            return unasked
        calls = []
        for worker, verb, obj in tidying:
            report = self.seen.reports[worker]
            copy = report.copies.get(_name(obj)) if isinstance(report, Report) else None
            call = Call(worker, verb, self._body(_name(obj), keyspace.range_of(obj), obj["spec"].get("epoch", 0)))
            if copy is not None and self._is_ours(copy) and call.key not in self.seen.tried:
                calls.append(call)
        message = (self.assignment.get("status") or {}).get("message", "")
        return _together(calls) or self._says(ABORTED, message, {})

    def _release(self) -> Step | None:
        names = operands(self.assignment)
        there = (self.seen.partitions[name] for name in names)
        return self._unread(names) or self._let_go(obj for obj in there if obj is not None)

    def _tidying(self) -> Iterable[tuple[str, str, Object]]:
        """Whom to tell what, once: they find it themselves, too."""
        try:
            plan = parse(self.assignment)
        except Malformed:
            return
        partitions = [obj for name in plan.operands if (obj := self.seen.partitions[name]) is not None]
        for obj, worker in zip(partitions, self._new_primaries(plan, partitions), strict=True):
            if plan.kind in (NEW, MOVE):
                yield worker, "drop", obj
            if obj["spec"].get("primary"):
                yield obj["spec"]["primary"], "resume", obj

    def _is_ours(self, copy: Copy) -> bool:
        return self._uid in (copy.uid, copy.prepared)

    def rest(self) -> Step:
        """It is over: nothing may have its claim, also what was written late."""
        releasing = self._release()
        if releasing:
            return releasing
        if self.assignment["metadata"].get("deletionTimestamp"):
            finalizers = self.assignment["metadata"]["finalizers"]
            return Write(_with_finalizers(self.assignment, [each for each in finalizers if each != FINALIZER]))
        return Done()

    # ------------------------------------------------------------------------------------------ what is written

    @property
    def _name(self) -> str:
        return str(self.assignment["metadata"]["name"])

    @property
    def _uid(self) -> str:
        return str(self.assignment["metadata"]["uid"])

    def _is_mine(self, obj: Object) -> bool:
        """Whether it has the claim: it, and not one that was deleted and had the same name."""
        spec = obj["spec"]
        return bool(spec.get("claimedBy") == self._name and (spec.get("claimUid") or self._uid) == self._uid)

    def _is_fenced(self, obj: Object) -> bool:
        return bool(obj["spec"].get("fencedBy") == self._name and self._is_mine(obj))

    def _unread(self, names: Iterable[str]) -> Step | None:
        unread = tuple(sorted(name for name in names if name not in self.seen.partitions))
        return ReadPartitions(unread) if unread else None

    def _unasked(self, workers: Iterable[str]) -> Step | None:
        unasked = tuple(sorted({worker for worker in workers if worker not in self.seen.reports}))
        return Ask(unasked) if unasked else None

    def _calls(self, worker: str, verb: str, obj: Object, *, pause: float = LOADING_SECONDS, source: str = "") -> Step:
        """Call it, but only once in this go."""
        body = self._body(_name(obj), keyspace.range_of(obj), obj["spec"].get("epoch", 0))
        call = Call(worker, verb, {**body, "from": {"worker": source} if source else None})
        refused = f"worker {worker} refuses to {verb} {_name(obj)}"
        return self._waits(pause, refused) if call.key in self.seen.tried else call

    def _body(self, partition: str, of: Range, epoch: int) -> dict[str, Any]:
        return {
            "assignment": self._name,
            "uid": self._uid,
            "keySpace": keyspace.space_of(self.assignment),
            "partition": partition,
            "range": {"start": of.start, "end": of.end},
            "epoch": epoch,
        }

    def _queues(self, why: str) -> Step:
        """Wait for another operation; that takes no time from this one's own."""
        status = self.assignment.get("status") or {}
        if status.get("message") == why or status.get("startedAt"):
            return Wait(PATIENT_SECONDS, why)
        return self._says(PENDING, why, {})

    def _waits(self, seconds: float, why: str) -> Step:
        """Wait for a worker; before the first time, when nobody is fenced yet, say that, and since when."""
        status = self.assignment.get("status") or {}
        if seconds == POLL_SECONDS or status.get("startedAt"):
            return Wait(seconds, why)
        return self._says(STARTED, why, _document(parse(self.assignment), "loading", []), startedAt=self.stamp)

    def _says(self, phase: str, message: str, document: Object, **more: Any) -> Step:
        before = self.assignment.get("status") or {}
        status = {**before, "phase": phase, "message": message, **document, **more}
        return Write({**self.assignment, "status": status}, "status")


# ---------------------------------------------------------------------------------------------- details


def _together(steps: Iterable[Step | None]) -> Step | None:
    """All that can be done at once; else what is first in the way; None where there is nothing."""
    listed = [step for step in steps if step is not None]
    effects = tuple(step for step in listed if isinstance(step, Call | Replace | Make | Remove))
    if len(effects) > 1:
        return Several(effects)
    return next(iter((*effects, *listed)), None)


def _check(plan: Plan, space: Space, partitions: Sequence[Object]) -> None:
    """Raises Malformed where these Partitions, sorted by range, are not what the plan needs."""
    for obj in partitions:
        keyspace.check_range(space, *keyspace.range_of(obj))
    ranges = [keyspace.range_of(obj) for obj in partitions]
    primaries = [obj["spec"].get("primary") or "" for obj in partitions]
    if plan.kind == NEW:
        wanted = dict(zip(plan.operands, plan.primaries, strict=True))
        for obj, primary in zip(partitions, primaries, strict=True):
            if primary and (not space.reload or primary == wanted[_name(obj)]):
                raise Malformed("partition", _name(obj), f"worker {primary} has it: move it")
        return
    unserved = [_name(obj) for obj, primary in zip(partitions, primaries, strict=True) if not primary]
    if unserved:
        raise Malformed("partition", unserved[0], "nobody serves it: give it a worker first")
    if plan.kind == SPLIT:
        keyspace.check_split(space, ranges[0], plan.split_key)
    elif plan.kind == MERGE:
        check_merge(dict(zip(map(_name, partitions), ranges, strict=True)))
        if len(set(primaries)) > 1:
            raise Malformed(
                "partitions", list(plan.operands), f"workers {', '.join(primaries)} have them: move them first"
            )
    elif primaries[0] != plan.source:
        raise Malformed("from", plan.source, f"worker {primaries[0]} has {_name(partitions[0])}")


def check_merge(ranges: Mapping[str, Range]) -> None:
    """Raises Malformed naming the gap where these, by Partition, are not adjacent."""
    names = sorted(ranges, key=lambda name: keyspace.order(ranges[name]))
    for one, other in itertools.pairwise(names):
        if not keyspace.adjacent(ranges[one], ranges[other]):
            gap = Range(ranges[one].end, ranges[other].start)
            why = f"{ranges[one]} and {ranges[other]} are not adjacent: {gap} is between"
            raise Malformed("partitions", names, why)


def _halves(whole: Range, key: str) -> list[Range]:
    return [Range(whole.start, key), Range(key, whole.end)]


def _result(name: str, of: Range, primary: str, epoch: int) -> dict[str, Any]:
    return {"partition": name, "range": {"start": of.start, "end": of.end}, "primary": primary, "epoch": epoch}


def _served(result: Object) -> dict[str, Any]:
    """What a Partition says when another worker serves it."""
    served = {"primary": result["primary"], "epoch": result["epoch"]}
    return {**served, "followers": [], "sources": [], "fencedBy": "", "fencedAt": ""}


def _unfenced(spec: Object) -> dict[str, Any]:
    """What lifts a fence: the epoch grows, so that who was fenced may serve again, and no call of before counts."""
    return {"fencedBy": "", "fencedAt": "", "epoch": spec.get("epoch", 0) + 1} if spec.get("fencedBy") else {}


def _document(plan: Plan, stage: str, results: Sequence[Object]) -> dict[str, Any]:
    """The status in the words of the original documents: loading, following, proxying, completed."""
    new = {"loading": "loading", "proxying": "primary", "completed": "primary"}[stage]
    old = {"loading": "primary", "proxying": "proxy", "completed": "disconnected"}[stage]
    if plan.kind == NEW:
        return {"new": {"status": stage if stage == "completed" else "loading"}}
    if plan.kind == SPLIT:
        splits = {each["partition"]: new for each in results}
        return {
            "split": {"status": _in_worker(stage), "fromPart": old.replace("proxy", "disconnected"), "splits": splits}
        }
    if plan.kind == MERGE:
        merged = results[0]["partition"] if results else ""
        parts = dict.fromkeys(plan.operands, old)
        return {"merge": {"status": stage, "mergedPart": merged, "subParts": parts}}
    return {"move": {"status": stage, "fromPod": old, "toPod": new}}


def _in_worker(stage: str) -> str:
    return "following" if stage == "proxying" else stage


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _with_spec(obj: Object, **changes: Any) -> dict[str, Any]:
    return {**obj, "spec": {**obj["spec"], **changes}}


def _with_finalizers(obj: Object, finalizers: list[str]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "finalizers": finalizers}}


def _seconds(stamp: str | None) -> float | None:
    """Seconds since 1970; None where there is none, or nothing that can be read."""
    try:
        return datetime.fromisoformat(stamp).timestamp() if stamp else None
    except ValueError:
        return None

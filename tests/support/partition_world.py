# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small world of partitions: an API server, reconcilers, workers, clients, and what may go wrong between them.

All decisions are made by the functions that ship. The world adds what is around them: reads as old as may be,
calls that arrive late or twice, reconcilers that die between any two steps, workers whose session ends, Assignments
that are deleted at any moment, and budgets that are over at any moment. What one does is one step of the world.

Keys are single characters. A worker's data is the set of the writes that it has, as bits; a copy's data is what of it
is in its range. Objects are canonical JSON text, so a state is a value that can be compared and hashed.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions import partition_copy as rules
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import LOST, UNREACHABLE
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FENCED,
    FOLLOWING,
    LOADING,
    PRIMARY,
    PROXY,
    Copy,
)

Pairs = tuple[tuple[str, str], ...]
STAMP = "2026-01-01T00:00:00+00:00"
EARLY = 1767225600.0  # that, in seconds since 1970
LATE = EARLY + 1e6  # every budget is over
ALPHABET = "abcd"
SLOTS = 3  # writes of a key that can be told apart
ORDER = {"": 0, "Pending": 0, "Loading": 1, "Committed": 2, "Completed": 3, "Aborting": 2, "Aborted": 3}


def space(**said: Any) -> Space:
    return Space("default", 1, ALPHABET, **said)


@dataclass(frozen=True)
class Story:
    """What there is at first, and how often what may happen."""

    partitions: tuple[str, ...]  # objects, as text
    assignments: tuple[str, ...]
    workers: tuple[Worker, ...]
    later: tuple[str, ...] = ()  # Assignments that are made at some time, when what they are about is there
    reconcilers: int = 2
    losses: int = 0  # how often a worker's session may end, or the worker crash
    late: int = 0  # calls (and creations of Partitions) that may be on their way although nobody waits for them
    twice: int = 0  # calls that may arrive a second time
    deletions: int = 0  # of Assignments
    writes: int = 1
    unreachable: bool = False  # workers may not answer
    times: bool = True  # budgets may be over
    stale: bool = True  # a worker's read and what follows from it are two steps
    reload: bool = False
    stay_lost: tuple[str, ...] = ()  # workers that don't come back in the end
    managed: int = 0  # what who keeps followers may do
    reads: bool = True  # the reads of a reconciler are steps of their own


class Read(NamedTuple):
    """What a worker has read so far, about one copy, and the copy with which that began."""

    partition: str
    copy: Copy
    seen: str  # the Partition; empty: it is not there
    other: str | None = None  # the Assignment
    heirs: tuple[str, ...] | None = None


class Worker(NamedTuple):
    name: str
    copies: tuple[Copy, ...] = ()
    data: int = 0
    leased: bool = True
    serves: tuple[tuple[str, int], ...] = ()  # partitions and epochs, in memory
    reads: tuple[Read, ...] = ()


class Batch(NamedTuple):
    """A step of several that do not depend on one another, by what it was decided on, and which of them are done."""

    by: Actor
    now: float
    done: frozenset[int] = frozenset()
    has_failed: bool = False


class Actor(NamedTuple):
    """A reconciler in the middle of its work on one Assignment."""

    view: str
    partitions: tuple[tuple[str, str], ...] = ()
    reports: tuple[tuple[str, Any], ...] = ()
    others: tuple[tuple[str, str], ...] = ()
    overlapping: tuple[str, ...] | None = None
    tried: frozenset[Any] = frozenset()
    batch: Batch | None = None


class Sent(NamedTuple):
    """A call, or a creation, that nobody waits for."""

    worker: str
    verb: str
    body: str


class State(NamedTuple):
    partitions: tuple[tuple[str, str], ...]
    assignments: tuple[tuple[str, str], ...]
    workers: tuple[Worker, ...]
    actors: tuple[Actor | None, ...]
    sent: tuple[Sent, ...] = ()
    later: tuple[str, ...] = ()
    acked: int = 0
    pending: tuple[tuple[int, str, str, int], ...] = ()  # writes that followers have to have first
    served: tuple[int, ...] = (0,) * len(ALPHABET)  # the highest epoch at which each key was served
    manager: tuple[str, str, int] | None = None  # Partition as read, follower, position of the promise
    losses: int = 0
    twice: int = 0
    deletions: int = 0
    managed: int = 0
    wrong: str = ""


# ------------------------------------------------------------------------------------------ objects


def text(obj: Any) -> str:
    return sys.intern(json.dumps(obj, sort_keys=True))


@functools.cache
def obj_of(of: str) -> Any:
    return json.loads(of) if of else None


def partition(name: str, start: str, end: str, **spec: Any) -> str:
    said = {"keySpace": "default", "range": {"start": start, "end": end}, **spec}
    return text({"metadata": {"name": name, "uid": f"uid-{name}"}, "spec": said})


def assignment(name: str, kind: str, uid: str = "", **params: Any) -> str:
    made = operations.make(name, "default", kind, **params)
    made["metadata"]["uid"] = uid or f"uid-{name}"
    return text(made)


def name_of(of: str) -> str:
    return str(obj_of(of)["metadata"]["name"])


def phase(of: str) -> str:
    return operations.phase_of(obj_of(of))


def with_item(items: tuple[tuple[str, Any], ...], name: str, value: Any) -> tuple[tuple[str, Any], ...]:
    """Sorted pairs; None takes the item away."""
    kept = {**dict(items), name: value}
    return tuple(sorted((each for each in kept.items() if each[1] is not None), key=lambda each: each[0]))


def begin(story: Story) -> State:
    return State(
        tuple(sorted((name_of(each), each) for each in story.partitions)),
        tuple(sorted((name_of(each), each) for each in story.assignments)),
        story.workers,
        (None,) * story.reconcilers,
        later=story.later,
    )


# ------------------------------------------------------------------------------------------ keys and data


@functools.cache
def mask(of: Range) -> int:
    """The bits of all writes in a range."""
    keys = (index for index, key in enumerate(ALPHABET) if keyspace.contains(of, key))
    return sum(((1 << SLOTS) - 1) << (index * SLOTS) for index in keys)


def keys_in(of: Range) -> list[int]:
    return [index for index, key in enumerate(ALPHABET) if keyspace.contains(of, key)]


def copy_of(worker: Worker, name: str) -> Copy | None:
    return next((copy for copy in worker.copies if copy.partition == name), None)


def plain(copy: Copy) -> Copy:
    return copy._replace(position=0)


def changed(worker: Worker, write: Iterable[Copy], remove: Iterable[str] = (), clear: Iterable[Range] = ()) -> Worker:
    """One transaction of a worker."""
    copies, data, write = {copy.partition: copy for copy in worker.copies}, worker.data, tuple(write)
    for whole in clear:
        data &= ~mask(whole)
    kept = 0
    for copy in write:
        kept |= mask(copy.range)
    for name in remove:
        if name in copies:
            data &= ~(mask(copies.pop(name).range) & ~kept)
    copies |= {copy.partition: copy for copy in write}
    left = tuple(copies[name] for name in sorted(copies))
    serves = tuple(
        (name, epoch)
        for name, epoch in worker.serves
        if name in copies and copies[name].role == PRIMARY and copies[name].epoch == epoch
    )
    reads = tuple(
        read for read in worker.reads if read.partition in copies and plain(copies[read.partition]) == read.copy
    )
    return worker._replace(copies=left, data=data, serves=serves, reads=reads)


# ------------------------------------------------------------------------------------------ calls


CALLS = {
    "follow": rules.follow,
    "prepare": rules.prepare,
    "fence": rules.fence,
    "proxy": rules.proxy,
    "drop": rules.drop,
    "promise": rules.promise,
}


def arrive(worker: Worker, verb: str, body: Any) -> Worker:
    """The worker after a call; `promote` and `resume` only have it look."""
    if verb not in CALLS:
        return worker
    copies = {copy.partition: copy for copy in worker.copies}
    outcome = CALLS[verb](copies, rules.order_of(body))
    if outcome.refusal:
        return worker
    return changed(worker, outcome.write, outcome.remove, outcome.clear)


def with_worker(state: State, worker: Worker) -> State:
    return state._replace(workers=tuple(worker if each.name == worker.name else each for each in state.workers))


def worker_of(state: State, name: str) -> Worker:
    return next(each for each in state.workers if each.name == name)


# ------------------------------------------------------------------------------------------ what a worker reads


@functools.cache
def verdict_of(held: tuple[Copy, ...], read: Read, me: str) -> Any:
    copies = {copy.partition: copy for copy in held}
    heirs = None if read.heirs is None else [obj_of(each) for each in read.heirs]
    copy = copies[read.partition]
    return rules.authority(copies, copy, obj_of(read.seen), obj_of(read.other or ""), me, heirs=heirs)


@functools.cache
def applied(worker: Worker, read: Read) -> tuple[Worker, tuple[tuple[str, int], ...]] | None:
    """The worker when it has done what it may by its read, and what it serves since; None: nothing changes."""
    verdict = verdict_of(worker.copies, read, worker.name)
    served: tuple[tuple[str, int], ...] = ()
    if isinstance(verdict, rules.Serve):
        after, served = changed(worker, (verdict.copy,)), ((verdict.copy.partition, verdict.copy.epoch),)
    elif isinstance(verdict, rules.Take):
        after = changed(worker, verdict.copies, verdict.sources)
        served = tuple((copy.partition, copy.epoch) for copy in verdict.copies)
    elif isinstance(verdict, rules.Drop):
        after = changed(worker, (), (read.partition,))
    else:
        return None
    after = after._replace(serves=tuple(sorted({*after.serves, *served})))
    return None if after == worker else (after, served)


def with_served(state: State, worker: Worker, served: tuple[tuple[str, int], ...]) -> State:
    state, high, wrong = with_worker(state, worker), list(state.served), state.wrong
    for name, epoch in served:
        copy = copy_of(worker, name)
        assert copy is not None
        for key in keys_in(copy.range):
            if epoch < high[key]:
                wrong = f"P7: {worker.name} serves {ALPHABET[key]} at epoch {epoch}, after {high[key]}"
            high[key] = max(high[key], epoch)
    return state._replace(served=tuple(high), wrong=wrong) if served else state


def heirs_of(partitions: Pairs, name: str) -> tuple[str, ...]:
    """As a worker lists them: Partitions that have this one among their sources, and the Partition itself."""
    return tuple(
        of
        for other, of in partitions
        if other == name or any(each["partition"] == name for each in obj_of(of)["spec"].get("sources") or ())
    )


def reading(partitions: Pairs, assignments: Pairs, worker: Worker, read: Read) -> tuple[Read, bool]:
    """One read further; whether that was the last."""
    if read.other is None:
        name = rules.assignment_to_read(read.copy, obj_of(read.seen))
        read = read._replace(other=dict(assignments).get(name, "") if name else "")
    else:
        read = read._replace(heirs=heirs_of(partitions, read.partition))
    return read, not isinstance(verdict_of(worker.copies, read, worker.name), rules.NeedsHeirs)


@functools.cache
def looked(
    partitions: Pairs, assignments: Pairs, worker: Worker, name: str
) -> tuple[Worker, tuple[tuple[str, int], ...]] | None:
    """Read all, and do it, in one step."""
    copy = copy_of(worker, name)
    assert copy is not None
    read, is_last = Read(name, plain(copy), dict(partitions).get(name, "")), False
    while not is_last:
        read, is_last = reading(partitions, assignments, worker, read)
    return applied(worker, read)


def look(state: State, worker: Worker, name: str) -> State:
    after = looked(state.partitions, state.assignments, worker, name)
    return with_served(state, *after) if after else state


@functools.cache
def own_moves(
    partitions: Pairs, assignments: Pairs, worker: Worker, stale: bool
) -> list[tuple[str, Worker, tuple[tuple[str, int], ...]]]:
    """What a worker may do by what it reads."""
    found = []
    there, me = dict(partitions), worker.name
    for copy in worker.copies if worker.leased else ():
        name = copy.partition
        read = next((each for each in worker.reads if each.partition == name), None)
        if not stale:
            after = looked(partitions, assignments, worker, name)
            if after:
                found.append((f"{me} looks at {name}", *after))
        elif read is None:
            read, is_last = Read(name, plain(copy), there.get(name, "")), False
            if not rules.assignment_to_read(copy, obj_of(read.seen)):
                read, is_last = reading(partitions, assignments, worker, read)
            if not is_last or applied(worker, read):
                found.append((f"{me} reads Partition {name}", with_read(worker, name, read), ()))
        elif read.other is None or isinstance(verdict_of(worker.copies, read, me), rules.NeedsHeirs):
            further, is_last = reading(partitions, assignments, worker, read)
            useless = is_last and not applied(worker, further)
            found.append((f"{me} reads on about {name}", with_read(worker, name, None if useless else further), ()))
        else:
            without = with_read(worker, name, None)
            what = f"{me} acts on what it has read of {name}: {verdict_of(worker.copies, read, me)}"
            found.append((what, *(applied(without, read) or (without, ()))))
    return found


def worker_moves(story: Story, state: State, worker: Worker) -> Iterator[tuple[str, State]]:
    for what, after, served in own_moves(state.partitions, state.assignments, worker, story.stale):
        yield what, with_served(state, after, served)
    yield from loads(state, worker)
    if state.losses < story.losses and (worker.leased or worker.serves):
        lost = worker._replace(leased=False, serves=(), reads=())
        yield f"{worker.name} is lost", with_worker(state, lost)._replace(losses=state.losses + 1)
    if not worker.leased:
        yield f"{worker.name} has its Lease again", with_worker(state, worker._replace(leased=True))


def with_read(worker: Worker, name: str, read: Read | None) -> Worker:
    kept = [each for each in worker.reads if each.partition != name]
    return worker._replace(reads=tuple(sorted([*kept, *([read] if read else [])], key=lambda each: each.partition)))


def loads(state: State, worker: Worker) -> Iterator[tuple[str, State]]:
    """A copy that loads or follows gets what its origin has."""
    for copy in worker.copies:
        if copy.role not in (LOADING, FOLLOWING) or not copy.origin:
            continue
        origin = worker_of(state, copy.origin)
        source = copy_of(origin, copy.partition)
        if source is None or source.role not in (PRIMARY, FENCED, PROXY) or source.epoch < copy.epoch - 1 > 0:
            continue
        at = mask(copy.range)
        data = (worker.data & ~at) | (origin.data & at)
        loaded = copy._replace(role=FOLLOWING, position=source.position)
        if loaded != copy or data != worker.data:
            yield (
                f"{worker.name} loads {copy.partition}",
                with_worker(state, changed(worker._replace(data=data), (loaded,))),
            )


# ------------------------------------------------------------------------------------------ clients


def client_moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    written = bin(state.acked).count("1") + len(state.pending)
    for worker in state.workers:
        for name, epoch in worker.serves if written < story.writes else ():
            copy = copy_of(worker, name)
            assert copy is not None
            key = keys_in(copy.range)[0]
            taken = state.acked | sum(bit for bit, *_rest in state.pending)
            for other in state.workers:
                taken |= other.data
            free = [bit for slot in range(SLOTS) if not taken & (bit := 1 << (key * SLOTS + slot))]
            if not free:
                continue
            after = changed(worker._replace(data=worker.data | free[0]), (copy._replace(position=copy.position + 1),))
            written_so = with_worker(state, after)
            if copy.followers:
                pending = (*state.pending, (free[0], worker.name, name, epoch))
                yield f"a client writes at {worker.name}, {name}", written_so._replace(pending=pending)
            else:
                yield f"a client writes at {worker.name}, {name}", written_so._replace(acked=state.acked | free[0])
    for each in state.pending:
        bit, at, name, epoch = each
        worker = worker_of(state, at)
        copy = copy_of(worker, name)
        left = tuple(other for other in state.pending if other != each)
        if copy is None or (name, epoch) not in worker.serves:
            yield "a client gives up", state._replace(pending=left)
        elif all(has(worker_of(state, follower), name, bit) for follower in copy.followers):
            yield f"{at} acknowledges", state._replace(pending=left, acked=state.acked | bit)


def has(worker: Worker, name: str, bit: int) -> bool:
    copy = copy_of(worker, name)
    return copy is not None and copy.role == FOLLOWING and bool(worker.data & bit)


# ------------------------------------------------------------------------------------------ reconcilers


@functools.cache
def decide(actor: Actor, of: Space, now: float) -> operations.Step:
    reports = {
        worker: report if isinstance(report, operations.Absent) else operations.Report({c.partition: c for c in report})
        for worker, report in actor.reports
    }
    seen = operations.Seen(
        of,
        {name: obj_of(each) for name, each in actor.partitions},
        reports,
        {name: obj_of(each) for name, each in actor.others},
        None if actor.overlapping is None else tuple(obj_of(each) for each in actor.overlapping),
        actor.tried,
    )
    return operations.next_step(obj_of(actor.view), seen, now, STAMP)


def names_of(view: str) -> set[str]:
    """The Partitions that an Assignment is about, and makes."""
    obj = obj_of(view)
    results = (obj.get("status") or {}).get("results") or ()
    return {*operations.operands(obj), *(each["partition"] for each in results)}


def report_of(worker: Worker, view: str) -> Any:
    names = names_of(view)
    return tuple(copy for copy in worker.copies if copy.partition in names)


@dataclass(frozen=True)
class Done:
    """What became of a step: the world after it, and the actor."""

    state: State
    actor: Actor | None
    what: str


def is_idle(state: State, view: str) -> bool:
    """Whether there is nothing to do with it: it is over, and neither is it to go nor has it a claim."""
    if phase(view) not in operations.FINAL:
        return False
    name = name_of(view)
    claims = any(obj_of(of)["spec"].get("claimedBy") == name for _name, of in state.partitions)
    return not claims and not obj_of(view)["metadata"].get("deletionTimestamp")


def actor_moves(story: Story, state: State, number: int) -> Iterator[tuple[str, State]]:
    actor, who = state.actors[number], f"R{number + 1}"
    if actor is None:
        for name, view in state.assignments:
            if not is_idle(state, view):
                yield f"{who} begins with {name}", with_actor(state, number, fused(story, state, Actor(view)))
        return
    yield f"{who} dies", with_actor(state, number, None)
    for step, when, then in choices(story, actor):
        for done in outcomes(story, state, actor, step):
            after = with_actor(done.state, number, fused(story, done.state, then(done.actor)))
            yield f"{who} {done.what}{when}", after
        if is_sent(step) and len(state.sent) < story.late:
            sent = sent_of(step)
            if sent not in state.sent:
                after = with_actor(state, number, None)
                yield f"{who} sends {sent} and dies", after._replace(sent=tuple(sorted((*state.sent, sent))))
        if isinstance(step, operations.Call) and state.twice < story.twice and sent_of(step) not in state.sent:
            (done,) = outcomes(story, state, actor, step)
            after = with_actor(done.state, number, then(done.actor))
            sent = tuple(sorted((*state.sent, sent_of(step))))
            yield f"{who} {done.what}, and it will arrive again", after._replace(sent=sent, twice=state.twice + 1)


Then = Callable[[Actor | None], Actor | None]


def choices(story: Story, actor: Actor) -> Iterator[tuple[Any, str, Then]]:
    """What it may do next, and what it is about after that. Of several at once it does any that is not done yet; it may
    die before each of them, and others act between; it decides anew when all are done."""
    if actor.batch is not None:
        yield from of_batch(story, actor, actor.batch, "")
        return
    of = space(reload=story.reload)
    steps = [(decide(actor, of, EARLY), EARLY, "")]
    if story.times:
        late = decide(actor, of, LATE)
        if late != steps[0][0]:
            steps.append((late, LATE, ", in the end"))
    for step, now, when in steps:
        if isinstance(step, operations.Several):
            yield from of_batch(story, actor, Batch(actor, now), when)
        elif isinstance(step, operations.Ask | operations.ReadPartitions):
            for name in step[0]:
                yield type(step)((name,)), when, lambda after: after
        else:
            yield step, when, lambda after: after


def of_batch(story: Story, actor: Actor, batch: Batch, when: str) -> Iterator[tuple[Any, str, Then]]:
    several = decide(batch.by, space(reload=story.reload), batch.now)
    assert isinstance(several, operations.Several)
    for index, step in enumerate(several.steps):
        if index not in batch.done:
            done = batch.done | {index}
            yield step, when, functools.partial(gone_on_with, actor, batch._replace(done=done), len(several.steps))


def gone_on_with(before: Actor, batch: Batch, count: int, after: Actor | None) -> Actor | None:
    """One of several was done: it came off, or not (None), and then all is read anew when the others are done."""
    if after is None:
        after, batch = before, batch._replace(has_failed=True)
    if len(batch.done) < count:
        return after._replace(batch=batch)
    return None if batch.has_failed else after._replace(batch=None)


def fused(story: Story, state: State, actor: Actor | None) -> Actor | None:
    """Where reads are not to be steps of their own: the actor has read what it asks for."""
    while actor is not None and actor.batch is None and not story.reads:
        step = decide(actor, space(reload=story.reload), EARLY)
        if not isinstance(step, operations.ReadPartitions | operations.Inspect | operations.Survey):
            break
        (done,) = outcomes(story, state, actor, step)
        actor = done.actor
    return actor


def is_sent(step: operations.Step) -> bool:
    return isinstance(step, operations.Call | operations.Make)


def sent_of(step: Any) -> Sent:
    if isinstance(step, operations.Call):
        return Sent(step.worker, step.verb, text(step.body))
    return Sent("", "make", text(made(step.desired)))


def made(desired: Any) -> Any:
    return {**desired, "metadata": {**desired["metadata"], "uid": f"uid-{desired['metadata']['name']}"}}


def with_actor(state: State, number: int, actor: Actor | None) -> State:
    return state._replace(actors=(*state.actors[:number], actor, *state.actors[number + 1 :]))


def outcomes(story: Story, state: State, actor: Actor, step: Any) -> list[Done]:
    """What may become of a step."""
    there = dict(state.partitions)
    name = name_of(actor.view)
    if isinstance(step, operations.ReadPartitions):
        partitions = actor.partitions
        for each in step.names:
            partitions = with_item(partitions, each, there.get(each, ""))
        return [Done(state, actor._replace(partitions=partitions), f"reads {', '.join(step.names)} for {name}")]
    if isinstance(step, operations.Inspect):
        others, held = actor.others, dict(state.assignments)
        for each in step.names:
            others = with_item(others, each, held.get(each, ""))
        return [Done(state, actor._replace(others=others), f"inspects {', '.join(step.names)} for {name}")]
    if isinstance(step, operations.Survey):
        own = [keyspace.range_of(obj_of(dict(actor.partitions)[each])) for each in step.names]
        found = tuple(
            of for of in there.values() if any(keyspace.overlaps(keyspace.range_of(obj_of(of)), each) for each in own)
        )
        return [Done(state, actor._replace(overlapping=found), f"surveys for {name}")]
    if isinstance(step, operations.Ask):
        return asked(story, state, actor, step)
    if isinstance(step, operations.Call):
        return [called(state, actor, step)]
    if isinstance(step, operations.Wait):
        after = actor._replace(reports=(), tried=frozenset())
        return [Done(state, after if after != actor else None, f"waits with {name}: {step.why}")]
    if isinstance(step, operations.Done):
        return [Done(state, None, f"is done with {name}")]
    if isinstance(step, operations.Write):
        return [written(state, actor, step)]
    return [placed(state, actor, step)]


def asked(story: Story, state: State, actor: Actor, step: operations.Ask) -> list[Done]:
    what = f"asks {', '.join(step.workers)} for {name_of(actor.view)}"
    reports = actor.reports
    for each in step.workers:
        worker = worker_of(state, each)
        reports = with_item(reports, each, report_of(worker, actor.view) if worker.leased else LOST)
    answers = [Done(state, actor._replace(reports=reports), what)]
    if story.unreachable and phase(actor.view) in ("Committed", "Aborting"):
        for each in step.workers:
            silent = with_item(reports, each, UNREACHABLE)
            answers.append(Done(state, actor._replace(reports=silent), f"{what}, {each} does not answer"))
    return answers


def called(state: State, actor: Actor, step: operations.Call) -> Done:
    body = text(step.body)
    before = worker_of(state, step.worker)
    after = with_worker(state, arrive(before, step.verb, obj_of(body)))
    report = report_of(worker_of(after, step.worker), actor.view)
    reports = with_item(actor.reports, step.worker, report if before.leased else LOST)
    answered = actor._replace(reports=reports, tried=actor.tried | {step.key})
    return Done(after, answered, f"calls {step.verb} of {step.body['partition']} at {step.worker}")


def written(state: State, actor: Actor, step: operations.Write) -> Done:
    name, before = name_of(actor.view), dict(state.assignments).get(name_of(actor.view))
    if before != actor.view:
        return Done(state, None, f"writes {name}: conflict")
    desired = {**obj_of(before), "status": step.desired["status"]} if step.subresource else step.desired
    if desired["metadata"].get("deletionTimestamp") and not desired["metadata"]["finalizers"]:
        return Done(state._replace(assignments=with_item(state.assignments, name, None)), None, f"lets {name} go")
    after = text(desired)
    state = state._replace(assignments=with_item(state.assignments, name, after))
    state = state._replace(wrong=state.wrong or wrong_of_write(state, before, after))
    said = desired.get("status") or {}
    return Done(state, actor._replace(view=after), f"writes {name}: {said.get('phase')} {said.get('message')}".rstrip())


def placed(state: State, actor: Actor, step: Any) -> Done:
    """A Partition is written, made or removed."""
    there = dict(state.partitions)
    if isinstance(step, operations.Make):
        name, after = step.desired["metadata"]["name"], text(made(step.desired))
        if name in there:
            return Done(state, None, f"makes {name}: it is there")
        state = state._replace(partitions=with_item(state.partitions, name, after))
        return Done(state, actor._replace(partitions=with_item(actor.partitions, name, after)), f"makes {name}")
    name = (step.obj if isinstance(step, operations.Remove) else step.desired)["metadata"]["name"]
    seen = dict(actor.partitions)[name]
    if there.get(name) != seen:
        return Done(state, None, f"writes {name}: conflict")
    if isinstance(step, operations.Remove):
        state = state._replace(partitions=with_item(state.partitions, name, None))
        return Done(state, actor._replace(partitions=with_item(actor.partitions, name, "")), f"removes {name}")
    after = text({**obj_of(seen), "status": step.desired["status"]} if step.subresource else step.desired)
    wrong = state.wrong or wrong_of_partition(seen, after)
    state = state._replace(partitions=with_item(state.partitions, name, after), wrong=wrong)
    known = actor._replace(partitions=with_item(actor.partitions, name, after))
    if step.fences:
        known = known._replace(reports=(), tried=frozenset())
    said = obj_of(after)["spec"]
    told = " ".join(f"{field}={said.get(field)}" for field in ("epoch", "primary", "claimedBy", "fencedBy"))
    return Done(state, known, f"writes {name}: {told}")


# ------------------------------------------------------------------------------------------ what may happen


def moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    for number in range(len(state.actors)):
        if number and state.actors[number] is None and state.actors[number - 1] is None:
            continue  # they are alike: the first begins
        yield from actor_moves(story, state, number)
    for worker in state.workers:
        yield from worker_moves(story, state, worker)
    yield from client_moves(story, state)
    for sent in state.sent:
        yield f"late, {sent.verb} at {sent.worker} {obj_of(sent.body).get('assignment', '')}", late(state, sent)
    if state.deletions < story.deletions:
        for name, view in state.assignments:
            if not obj_of(view)["metadata"].get("deletionTimestamp"):
                after = deleted(view)
                gone = state._replace(
                    assignments=with_item(state.assignments, name, after), deletions=state.deletions + 1
                )
                yield f"{name} is deleted", gone
    if state.later:
        first, *rest = state.later
        there = dict(state.partitions)
        name = name_of(first)
        if all(each in there for each in operations.operands(obj_of(first))) and name not in dict(state.assignments):
            added = with_item(state.assignments, name, first)
            yield f"{name} is made", state._replace(assignments=added, later=tuple(rest))
    if story.managed:
        yield from manager_moves(story, state)


def deleted(view: str) -> str | None:
    obj = obj_of(view)
    if not obj["metadata"].get("finalizers"):
        return None
    return text({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": STAMP}})


def late(state: State, sent: Sent) -> State:
    state = state._replace(sent=tuple(each for each in state.sent if each != sent))
    if sent.verb == "make":
        name = name_of(sent.body)
        if name in dict(state.partitions):
            return state
        return state._replace(partitions=with_item(state.partitions, name, sent.body))
    return with_worker(state, arrive(worker_of(state, sent.worker), sent.verb, obj_of(sent.body)))


def manager_moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    """Who keeps followers, as it is documented: follow, promise, in sync, written; removed with a higher epoch."""
    there = dict(state.partitions)
    if state.manager:
        seen, follower, position = state.manager
        spec, name = obj_of(seen)["spec"], name_of(seen)
        copy = copy_of(worker_of(state, follower), name)
        yield "the manager dies", state._replace(manager=None)
        if there.get(name) != seen:
            return
        if copy is not None and copy.role == FOLLOWING and not copy.uid and copy.position >= position:
            added = {**spec, "followers": sorted({*spec.get("followers", []), follower})}
            after = text({**obj_of(seen), "spec": added})
            partitions = with_item(state.partitions, name, after)
            yield f"{follower} is a follower of {name}", state._replace(partitions=partitions, manager=None)
        return
    if state.managed >= story.managed:
        return
    for name, seen in state.partitions:
        spec = obj_of(seen)["spec"]
        if spec.get("claimedBy") or not spec.get("primary"):
            continue
        primary, epoch = worker_of(state, spec["primary"]), spec["epoch"]
        for worker in state.workers:
            if worker.name == primary.name:
                continue
            body = {"assignment": "", "uid": "", "partition": name, "epoch": epoch, "range": spec["range"]}
            copy = copy_of(worker, name)
            more = state._replace(managed=state.managed + 1)
            if worker.name in spec.get("followers", []):
                removed = {**spec, "followers": [], "epoch": epoch + 1}
                after = text({**obj_of(seen), "spec": removed})
                gone = more._replace(partitions=with_item(state.partitions, name, after))
                yield f"{worker.name} is no follower of {name} any more", gone
                call = Sent(worker.name, "drop", text({**body, "epoch": epoch + 1}))
                if len(state.sent) < story.late:
                    yield f"{worker.name} is none, and {call} is late", gone._replace(sent=(*state.sent, call))
            elif copy is None or copy.role not in (LOADING, FOLLOWING) or copy.uid:
                call = Sent(worker.name, "follow", text({**body, "from": {"worker": primary.name}}))
                yield f"{worker.name} is to follow {name}", late(more, call)
            elif copy.role == FOLLOWING:
                promised = with_worker(more, arrive(primary, "promise", {**body, "follower": worker.name}))
                held = copy_of(worker_of(promised, primary.name), name)
                if held and worker.name in held.followers and held.epoch == epoch:
                    yield (
                        f"{primary.name} promises {name}",
                        promised._replace(manager=(seen, worker.name, held.position)),
                    )


# ------------------------------------------------------------------------------------------ what must hold


def wrong_of_write(state: State, before: str, after: str) -> str:
    """What is wrong with a write of an Assignment; empty where nothing is."""
    one, other = obj_of(before).get("status") or {}, obj_of(after).get("status") or {}
    was, becomes = one.get("phase") or "", other.get("phase") or ""
    if one.get("phase") in operations.FINAL and one != other:
        return f"P9: {becomes} after {was}"
    if ORDER[becomes] < ORDER[was] or {was, becomes} in (
        {"Committed", "Aborted"},
        {"Aborting", "Completed"},
        {"Committed", "Aborting"},
    ):
        return f"P9: {becomes} after {was}"
    if was == "Committed" and (one["results"], one["supersedes"]) != (other["results"], other["supersedes"]):
        return "P9: results change after the commit"
    if becomes == "Committed" and was != "Committed":
        return wrong_of_commit(state, obj_of(after))
    return ""


def wrong_of_commit(state: State, obj: Any) -> str:
    """At the commit each Partition is claimed by it, and nobody serves it: P14, and half of P3."""
    plan, there = operations.parse(obj), dict(state.partitions)
    for name in plan.operands:
        held = obj_of(there.get(name, ""))
        if held is None or held["spec"].get("claimedBy") != obj["metadata"]["name"]:
            return f"P14: {obj['metadata']['name']} is committed without a claim of {name}"
        for worker in state.workers:
            if any(served == name for served, _epoch in worker.serves):
                return f"P3: {obj['metadata']['name']} is committed while {worker.name} serves {name}"
        if held["spec"].get("epoch", 0) >= max(each["epoch"] for each in obj["status"]["results"]):
            return "P4: the results' epoch is not above"
    return ""


def wrong_of_partition(before: str, after: str) -> str:
    one, other = obj_of(before)["spec"], obj_of(after)["spec"]
    if one["range"] != other["range"]:
        return "P8: a range changes"
    if other.get("epoch", 0) < one.get("epoch", 0):
        return "P4: an epoch goes back"
    return ""


@functools.cache
def view_of(partitions: tuple[tuple[str, str], ...], assignments: tuple[tuple[str, str], ...]) -> keyspace.View:
    return keyspace.view([obj_of(of) for _name, of in partitions], [obj_of(of) for _name, of in assignments])


@functools.cache
def wrong_view(partitions: tuple[tuple[str, str], ...], assignments: tuple[tuple[str, str], ...]) -> str:
    """P1 and P2: each key has one fact of the highest epoch, by a look at each key that the view knows nothing of."""
    view = view_of(partitions, assignments)
    committed = [obj_of(of) for _name, of in assignments if phase(of) == "Committed"]
    superseded = {name for each in committed for name in each["status"]["supersedes"]}
    facts: dict[tuple[str, int], Any] = {}
    for _name, of in partitions:
        fact = keyspace.fact_of(obj_of(of))
        facts[fact.partition, fact.epoch] = (fact.range, fact.primary)
    for each in committed:
        for fact in keyspace.results_of(each):
            facts[fact.partition, fact.epoch] = (fact.range, fact.primary)
    for key in ALPHABET:
        found = [
            (epoch, name, primary)
            for (name, epoch), (of, primary) in facts.items()
            if name not in superseded and keyspace.contains(of, key)
        ]
        if not found:
            return f"P1: nobody has {key}"
        top = max(found)
        if keyspace.owner(view, key) is None and not top[0]:
            continue  # nobody ever served it, and by mistake its Partition overlaps one that is served
        same = {(name, primary) for epoch, name, primary in found if epoch == top[0] and epoch}
        if len(same) > 1:
            return f"P2: {key} is of {same} at epoch {top[0]}"
        owner = keyspace.owner(view, key)
        if owner is None or (top[0] and (owner.epoch, owner.partition, owner.primary) != top):
            return f"P2: the view says {owner} of {key}, and not {top}"
    return ""


def wrong(state: State) -> str:
    """What is wrong with a state; empty where nothing is."""
    if state.wrong:
        return state.wrong
    of_view = wrong_view(state.partitions, state.assignments)
    if of_view:
        return of_view
    view = view_of(state.partitions, state.assignments)
    served = [""] * len(ALPHABET)
    for worker in state.workers:
        for name, epoch in worker.serves:
            copy = copy_of(worker, name)
            assert copy is not None and worker.leased
            at = mask(copy.range)
            if state.acked & at & ~worker.data:
                return f"P5: {worker.name} serves {name} at {epoch}, and has not all that was acknowledged"
            for key in keys_in(copy.range):
                if served[key]:
                    return f"P3: {served[key]} and {worker.name} serve {ALPHABET[key]}"
                served[key] = worker.name
                if epoch < state.served[key]:
                    return (
                        f"P7: {worker.name} serves {ALPHABET[key]} at {epoch}, and it was served at {state.served[key]}"
                    )
                owner = keyspace.owner(view, ALPHABET[key])
                if owner is None or (owner.partition, owner.primary) != (name, worker.name):
                    return f"P3: {worker.name} serves {ALPHABET[key]}, which {owner} has"
        for one, other in zip(worker.copies, worker.copies[1:], strict=False):
            if keyspace.overlaps(one.range, other.range):
                return f"P3: {worker.name} has two copies of a key"
    return ""


# ------------------------------------------------------------------------------------------ how it ends


def settled(story: Story, state: State, rounds: int = 40) -> tuple[State, str]:
    """A fair run without further faults, and what is wrong with its end."""
    state = state._replace(actors=(None,), manager=None)
    for sent in state.sent:
        state = late(state, sent)
    for worker in state.workers:
        leased = worker.name not in story.stay_lost
        state = with_worker(state, worker._replace(reads=(), leased=leased, serves=worker.serves if leased else ()))
    for count in range(rounds):
        before = state
        for name in [name for name, _view in state.assignments]:
            state = gone_on(story, state, name, EARLY if count < 6 else LATE)
        state = tidied(state)
        for worker in state.workers:
            for copy in worker.copies if worker.leased else ():
                if copy_of(worker_of(state, worker.name), copy.partition):
                    state = look(state, worker_of(state, worker.name), copy.partition)
            for _what, after in loads(state, worker_of(state, worker.name)):
                state = after
        broken = wrong(state)
        if broken:
            return state, broken
        if state == before and count > 8:
            return state, wrong_end(story, state)
    return state, "P11: it never comes to rest"


def gone_on(story: Story, state: State, name: str, now: float) -> State:
    """One reconciler looks after one Assignment, until it has to wait."""
    view = dict(state.assignments).get(name)
    actor = Actor(view) if view else None
    of = space(reload=story.reload)
    for _count in range(80):
        if actor is None:
            return state
        step = decide(actor, of, now)
        if isinstance(step, operations.Wait):
            return state
        for each in step.steps if isinstance(step, operations.Several) else (step,):
            if actor is not None:
                done = outcomes(story, state, actor, each)[0]
                state, actor = done.state, done.actor
    return state._replace(wrong="P11: a reconciler goes round and round")


def tidied(state: State) -> State:
    """Who looks after all Partitions, by reads in this order: a Partition, and the Assignment that claims it."""
    tidy = getattr(operations, "void_claim", None)
    for name, of in state.partitions:
        claimed = obj_of(of)["spec"].get("claimedBy")
        if tidy and claimed:
            step = tidy(obj_of(of), obj_of(dict(state.assignments).get(claimed, "")))
            if step is not None:
                state = state._replace(partitions=with_item(state.partitions, name, text(step.desired)))
    view = view_of(state.partitions, state.assignments)
    for name in view.void:
        spec = obj_of(dict(state.partitions).get(name, "")) or {"spec": {}}
        if spec["spec"].get("madeBy") and not spec["spec"].get("claimedBy"):
            state = state._replace(partitions=with_item(state.partitions, name, None))
    return state


def wrong_end(story: Story, state: State) -> str:
    for name, view in state.assignments:
        if phase(view) not in operations.FINAL:
            return f"P11: {name} is {phase(view)} for ever: {(obj_of(view).get('status') or {}).get('message')}"
        if obj_of(view)["metadata"].get("deletionTimestamp"):
            return f"P12: {name} does not go"
    view = view_of(state.partitions, state.assignments)
    if view.void and not any(not obj_of(of)["spec"].get("epoch") for _name, of in state.partitions):
        return f"P12: {view.void} are left"
    expected: dict[str, set[str]] = {worker.name: set() for worker in state.workers}
    for name, of in state.partitions:
        spec = obj_of(of)["spec"]
        if spec.get("claimedBy") or spec.get("fencedBy") or spec.get("proxy"):
            return f"P12: a claim, fence or proxy is left on {name}"
        primary = spec.get("primary")
        if primary:
            expected[primary].add(name)
            worker = worker_of(state, primary)
            if worker.leased and (name, spec["epoch"]) not in worker.serves:
                return f"P11: {primary} does not serve {name} at {spec['epoch']}, but {worker.serves}"
            for follower in spec.get("followers") or ():
                expected[follower].add(name)
    for worker in state.workers:
        left = {copy.partition for copy in worker.copies} - expected[worker.name]
        followers = {copy.partition for copy in worker.copies if copy.role in (LOADING, FOLLOWING) and not copy.uid}
        if left - followers and worker.leased:
            return f"P12: {worker.name} has copies of {left} left"
    return ""

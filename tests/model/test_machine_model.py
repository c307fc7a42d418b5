# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of a VirtualMachine between two operators, a person and the cloud; not a sample: all of them.

Each operator does what `decisions/machine.py` says, on the object as it was at any time before. The old one never
learns that there is a new one. A call may arrive at any time, also when its sender has given it up (or has crashed, or
its answer was lost: for the others that is the same), and also twice. The person edits, deletes and makes again, and
deletes machines behind the operators' back.

The cloud here has the rules of muster/vm/cloud_store.py; that both answer the same is tested in
tests/property/test_cloud_property.py.
"""

from __future__ import annotations

import functools
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import machine as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import (
    Call,
    Create,
    Delete,
    Done,
    Find,
    Found,
    Machine,
    Resize,
    Wanted,
    Write,
)

ENOUGH = 3_000_000  # states; more is a model that grew by mistake
LONGEST = 60  # steps in which one operator alone has to come to rest
NOW = "2026-01-31T12:00:00Z"
OLD, NEW = 0, 1  # the operators; their fences are one more


@dataclass(frozen=True)
class Story:
    """How often what may happen, and which rules the cloud keeps."""

    operators: int = 2
    edits: int = 0
    deletions: int = 1
    lives: int = 1  # objects of the same name, one after the other
    vanishings: int = 0  # machines deleted behind the operators' back
    late: int = 1  # calls that may be on their way although nobody waits for them
    twice: int = 0  # calls that arrive a second time
    fences: bool = True
    keys: bool = True
    names: bool = False


class Made(NamedTuple):
    """A machine at the cloud; dead ones stay as tombstones."""

    uid: str
    request: str
    asked: int  # cores
    cores: int
    revision: int = 1
    alive: bool = True
    vanished: bool = False  # by the person's hand


class Cloud(NamedTuple):
    machines: tuple[Made, ...] = ()
    fences: tuple[tuple[str, int], ...] = ()  # by uid, from which the name follows
    closed: frozenset[str] = frozenset()


class Operator(NamedTuple):
    view: str = ""  # the object as it was seen last; empty: it was not there
    found: Found | None = None
    waits_for: Call | None = None


class Sent(NamedTuple):
    """A call on its way; `by` is who waits for it (-1: nobody)."""

    call: Call
    fence: int
    by: int


class State(NamedTuple):
    obj: str
    cloud: Cloud
    operators: tuple[Operator, ...]
    sent: tuple[Sent, ...] = ()
    edits: int = 0
    deletions: int = 0
    lives: int = 1
    vanishings: int = 0
    twice: int = 0
    wrong: str = ""


# ------------------------------------------------------------------------------------------ the API server


def fresh(life: int) -> str:
    metadata = {"name": "vm", "namespace": "ns", "uid": f"u{life}", "generation": 1}
    return dumps({"metadata": metadata, "spec": {"cores": 1, "memory": "1Gi", "image": "i"}})


@functools.cache
def marked(text: str) -> str:
    """The object when its deletion is asked for."""
    obj = json.loads(text)
    if not obj["metadata"].get("finalizers"):
        return ""
    obj["metadata"]["deletionTimestamp"] = NOW
    return dumps(obj)


@functools.cache
def edited(text: str) -> str:
    obj = json.loads(text)
    obj["spec"]["cores"] += 1
    obj["metadata"]["generation"] += 1
    return dumps(obj)


@functools.cache
def decide(view: str, found: Found | None, fence: int) -> decisions.Step:
    return decisions.next_step(json.loads(view), found, fence, NOW)


@functools.cache
def stored(view: str, found: Found | None, fence: int) -> str:
    """What the API server has after the write that was decided so."""
    step = decide(view, found, fence)
    assert isinstance(step, Write)
    metadata = step.desired["metadata"]
    return "" if "deletionTimestamp" in metadata and not metadata["finalizers"] else dumps(step.desired)


def summary(step: Write) -> str:
    metadata, status = step.desired["metadata"], step.desired.get("status", {})
    return f"status {status}" if step.subresource else f"finalizers {metadata['finalizers']}"


@functools.cache
def read(text: str) -> Any:
    return json.loads(text)


def uid_of(text: str) -> str:
    uid: str = read(text)["metadata"]["uid"]
    return uid


def is_going(text: str) -> bool:
    return "deletionTimestamp" in read(text)["metadata"]


def dumps(obj: Any) -> str:
    return json.dumps(obj, sort_keys=True)


# ------------------------------------------------------------------------------------------ the cloud


def arrive(story: Story, cloud: Cloud, call: Call, fence: int) -> tuple[Cloud, Any]:
    """The cloud after a call, and its answer: a Found, "done", or the word of its refusal."""
    if isinstance(call, Resize | Delete):
        number = int(call.ident)
        uid = cloud.machines[number].uid
    else:
        uid = call.uid
    fences = dict(cloud.fences)
    if story.fences and fence < fences.get(uid, 0):
        return cloud, "stale fence"
    registered = cloud._replace(fences=tuple(sorted({**fences, uid: max(fence, fences.get(uid, 0))}.items())))
    if isinstance(call, Find):
        if call.close:
            registered = registered._replace(closed=registered.closed | {uid})
        return registered, look(registered, uid)
    if isinstance(call, Create):
        return create(story, cloud, registered, call)
    made = cloud.machines[number]
    if not made.alive:
        return cloud, "not there"
    if isinstance(call, Delete):
        after = made._replace(alive=False)
    elif made.revision != call.revision:
        return cloud, "changed"
    else:
        after = made._replace(cores=call.wanted.cores, revision=made.revision + 1)
    return registered._replace(machines=changed(cloud.machines, number, after)), "done"


def create(story: Story, cloud: Cloud, registered: Cloud, call: Create) -> tuple[Cloud, Any]:
    if story.fences and call.uid in cloud.closed:
        return cloud, "closed"
    replays = [made for made in cloud.machines if made.request == call.request]
    if story.keys and replays:
        if replays[0].asked != call.wanted.cores:
            return cloud, "key reused"
        return (registered, "done") if replays[0].alive else (cloud, "spent")
    if story.names and any(made.alive for made in cloud.machines if made.uid == call.uid):
        return cloud, "name taken"
    made = Made(call.uid, call.request, call.wanted.cores, call.wanted.cores)
    return registered._replace(machines=(*cloud.machines, made)), "done"


def look(cloud: Cloud, uid: str) -> Found:
    own = [(number, made) for number, made in enumerate(cloud.machines) if made.uid == uid]
    live = tuple(
        Machine(str(number), uid, Wanted(made.cores, "1Gi", "i"), made.revision, "")
        for number, made in own
        if made.alive
    )
    return Found(live, frozenset(made.request for _number, made in own if not made.alive), uid in cloud.closed)


@functools.cache
def in_order(sent: Sent) -> str:
    return repr(sent)


def changed(entries: tuple[Any, ...], index: int, entry: Any) -> tuple[Any, ...]:
    return (*entries[:index], entry, *entries[index + 1 :])


# ------------------------------------------------------------------------------------------ what may happen


def moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    for number in range(story.operators):
        yield from operator_moves(story, state, number)
    for index, sent in enumerate(state.sent):
        if sent.by < 0 or state.sent.index(sent) == index:
            yield from arrivals(story, state, index)
    yield from persons_moves(story, state)


def operator_moves(story: Story, state: State, number: int) -> Iterator[tuple[str, State]]:
    operator, who = state.operators[number], ("the old one", "the new one")[number]
    abandoned = sum(sent.by < 0 for sent in state.sent)
    if operator.waits_for is not None:
        if abandoned < story.late:
            sent = tuple(
                sorted((each._replace(by=-1) if each.by == number else each for each in state.sent), key=in_order)
            )
            yield (
                f"{who} gives up {operator.waits_for}",
                with_operator(state, number, operator.view)._replace(sent=sent),
            )
        return
    if operator != Operator(state.obj):
        yield f"{who} looks at the object", with_operator(state, number, state.obj)
    if not operator.view:
        return
    step = decide(operator.view, operator.found, number + 1)
    if isinstance(step, Write):
        after = state
        if state.obj == operator.view:
            after = state._replace(obj=stored(operator.view, operator.found, number + 1))
        same = after.obj and uid_of(after.obj) == uid_of(operator.view)
        found = operator.found if same else None
        yield f"{who} writes {summary(step)}", with_operator(after, number, after.obj if same else "", found)
    elif not isinstance(step, Done):
        sent = tuple(sorted((*state.sent, Sent(step, number + 1, number)), key=in_order))
        waits = with_operator(state, number, operator.view, operator.found, step)
        yield f"{who} calls {step}", waits._replace(sent=sent)


def arrivals(story: Story, state: State, index: int) -> Iterator[tuple[str, State]]:
    sent = state.sent[index]
    cloud, answer = arrive(story, state.cloud, sent.call, sent.fence)
    after = state._replace(cloud=cloud)
    if isinstance(sent.call, Delete) and answer == "done":
        uid = state.cloud.machines[int(sent.call.ident)].uid
        if state.obj and uid_of(state.obj) == uid and not is_going(state.obj):
            after = after._replace(wrong=f"the machine of {uid} is deleted, which is wanted")
    if state.twice < story.twice:
        again = replaced(state.sent, index, sent._replace(by=-1))
        yield (
            f"{sent} arrives, {answer}, and will again",
            answered(after._replace(twice=state.twice + 1, sent=again), sent, answer),
        )
    yield f"{sent} arrives: {answer}", answered(after._replace(sent=replaced(state.sent, index)), sent, answer)


def replaced(entries: tuple[Sent, ...], index: int, *others: Sent) -> tuple[Sent, ...]:
    return tuple(sorted((*entries[:index], *others, *entries[index + 1 :]), key=in_order))


def answered(state: State, sent: Sent, answer: Any) -> State:
    """As muster/vm/operator.py takes an answer."""
    if sent.by < 0:
        return state
    operator = state.operators[sent.by]
    found = answer if isinstance(answer, Found) else None
    if answer == "spent" and operator.found is not None and isinstance(sent.call, Create):
        found = operator.found.has_spent(sent.call.request)
    return with_operator(state, sent.by, operator.view, found)


def persons_moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    if not state.obj:
        if state.lives < story.lives:
            yield "it is made again", state._replace(obj=fresh(state.lives + 1), lives=state.lives + 1)
        return
    if not is_going(state.obj):
        if state.deletions < story.deletions:
            yield "it is deleted", state._replace(obj=marked(state.obj), deletions=state.deletions + 1)
        if state.edits < story.edits:
            yield "it is edited", state._replace(obj=edited(state.obj), edits=state.edits + 1)
    if state.vanishings < story.vanishings:
        for number, made in enumerate(state.cloud.machines):
            if made.alive:
                gone = changed(state.cloud.machines, number, made._replace(alive=False, vanished=True))
                cloud = state.cloud._replace(machines=gone)
                yield f"machine {number} vanishes", state._replace(cloud=cloud, vanishings=state.vanishings + 1)


def with_operator(state: State, number: int, view: str, found: Found | None = None, waits: Call | None = None) -> State:
    return state._replace(operators=changed(state.operators, number, Operator(view, found, waits)))


# ------------------------------------------------------------------------------------------ what must hold


def violation(state: State) -> str:
    """What is wrong with a state; empty where nothing is."""
    if state.wrong:
        return state.wrong
    machines = state.cloud.machines
    now = uid_of(state.obj) if state.obj else ""
    for uid in {made.uid for made in machines}:
        own = [made for made in machines if made.uid == uid]
        live = [made for made in own if made.alive]
        if len(live) > 1:
            return f"{uid} has {len(live)} machines"
        if len(own) > 1 + sum(made.vanished for made in own):
            return f"{uid} was made {len(own)} times"
        if live and uid != now:
            return f"{uid} is gone, and its machine is not"
    if not state.obj or is_going(state.obj):
        return ""
    obj = read(state.obj)
    status = obj.get("status", {})
    if status.get("phase") == "Running" and status["observedGeneration"] == obj["metadata"]["generation"]:
        made = machines[int(status["machine"]["id"])]
        if made.alive and made.cores != obj["spec"]["cores"]:
            return "it is said to run, but has another size"
        if not made.alive and not made.vanished:
            return "it is said to run, but was deleted"
    return ""


def stuck(story: Story, obj: str, cloud: Cloud) -> str:
    """What is wrong when the new operator goes on alone, and nothing is late; empty where it comes to rest rightly."""
    alone = replace(story, late=0, twice=0)
    state = State(obj, cloud, (Operator(), Operator(obj)))
    for _count in range(LONGEST):
        step = decide(state.operators[NEW].view, state.operators[NEW].found, NEW + 1) if state.obj else Done()
        if isinstance(step, Done):
            return rest(state)
        ((_what, state),) = list(operator_moves(alone, state, NEW))[-1:]
        if state.sent:
            ((_what, state),) = arrivals(alone, state, 0)
    return "it never comes to rest"


def rest(state: State) -> str:
    live = [made for made in state.cloud.machines if made.alive]
    if not state.obj:
        return f"it is gone, and {live} not" if live else ""
    obj = read(state.obj)
    if is_going(state.obj):
        return "it does not go"
    if obj["status"]["phase"] != "Running" or [made.cores for made in live] != [obj["spec"]["cores"]]:
        return f"it rests as {obj['status']} with {live}"
    return ""


# ------------------------------------------------------------------------------------------ the search


@dataclass
class Result:
    states: int = 0
    steps: int = 0
    rests: int = 0  # objects and clouds from which one operator went on alone
    refused: int = 0  # states in which a call is on its way that the cloud would refuse
    trace: tuple[str, ...] = ()  # a shortest way to what is wrong


def explore(story: Story, *, to_rest: bool = True) -> Result:
    """Breadth first, until something is wrong or everything was seen."""
    begin = State(fresh(1), Cloud(), (Operator(), Operator()))
    came_from: dict[State, tuple[State, str] | None] = {begin: None}
    waiting = deque([begin])
    result = Result()
    rests: dict[tuple[str, Cloud], str] = {}
    while waiting:
        state = waiting.popleft()
        result.states += 1
        assert result.states < ENOUGH
        wrong = violation(state)
        if to_rest and not wrong:
            at = (state.obj, state.cloud)
            if at not in rests:
                rests[at] = stuck(story, *at)
            wrong = rests[at]
        if wrong:
            result.trace = (*told(came_from, state), wrong)
            return result
        result.refused += any(
            isinstance(arrive(story, state.cloud, sent.call, sent.fence)[1], str)
            and arrive(story, state.cloud, sent.call, sent.fence)[1] != "done"
            for sent in state.sent
        )
        for what, after in moves(story, state):
            result.steps += 1
            if after not in came_from:
                came_from[after] = (state, what)
                waiting.append(after)
    result.rests = len(rests)
    return result


def told(came_from: dict[State, tuple[State, str] | None], at: State) -> list[str]:
    lines: list[str] = []
    while (came := came_from[at]) is not None:
        at, what = came
        lines.insert(0, what)
    return lines


# ------------------------------------------------------------------------------------------ the stories

STORIES = {
    "deleted at any moment": Story(),
    "edited": Story(edits=1, deletions=0),
    "deleted at the cloud, too": Story(vanishings=1, deletions=0),
    "calls arrive twice": Story(twice=1),
    "several calls are late": Story(late=2),
    "made again under the same name": Story(lives=2),
    "one operator, everything": Story(operators=1, lives=2, edits=1, vanishings=1, twice=1),
}
DEEP = {
    "edited and deleted": Story(edits=1),
    "deleted here and there": Story(vanishings=1),
    "late and twice": Story(late=2, twice=1),
    "made again and again": Story(lives=2, deletions=2),
    "edited, and deleted at the cloud": Story(edits=1, vanishings=1, deletions=0),
    "one operator, more of everything": Story(operators=1, edits=1, vanishings=2, late=2, twice=1),
}
if os.environ.get("MUSTER_SEARCH") == "deep":
    STORIES |= DEEP


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_nothing_wrong_can_be_reached(story: Story, record_property: Callable[[str, object], None]) -> None:
    result = explore(story)
    print(result)
    for name, count in vars(result).items():
        record_property(name, count)
    assert not result.trace, "\n".join(result.trace)
    assert result.rests and result.refused, "the story is one in which nothing happens"


@pytest.mark.parametrize(
    ("story", "says"),
    [
        # a crash, or a lost answer, after the old leader's creation was sent: the new one makes another
        (Story(fences=False, keys=False, deletions=0), "2 machines"),
        # each guard is needed, also beside the others
        (Story(keys=False, deletions=0), "2 machines"),
        (Story(fences=False), "gone, and its machine is not"),
        (Story(fences=False, names=True), "gone, and its machine is not"),
        (Story(operators=1, keys=False, deletions=0), "2 machines"),
        (Story(operators=1, fences=False), "gone, and its machine is not"),
        (Story(operators=1, keys=False, deletions=0, late=0, twice=1), "2 machines"),
    ],
    ids=repr,
)
def test_without_a_guard_the_search_finds_what_is_wrong(story: Story, says: str) -> None:
    result = explore(story, to_rest=False)
    print("\n".join(result.trace))
    assert result.trace and says in result.trace[-1]

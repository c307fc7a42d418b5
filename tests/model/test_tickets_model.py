# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of a few tickets, edits of the capacity and those who put it in force; not a sample: all of them.

At each revision of each history the answer of the engine is judged by an oracle of its own (S1, S2, S3, S5). And every
observer that can be is followed: one that starts at any revision, lags by any number and looks at any of them. What it
shows was granted at that revision, and it never takes back what it has shown of a ticket that is still there.

Those who put a capacity in force read the semaphore's Lease, may be overtaken by anything, write if it is still the
same, or die before. What held before the edit they read by the very function of the verbs, from the history.
"""

from __future__ import annotations

import functools
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Gone, Listing
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as engine
from ansible_collections.muster.coordination.plugins.module_utils.verbs import tickets as verbs
from ansible_collections.muster.coordination.tests.support.ticket_book import Judge

ENOUGH = 3_000_000  # states; more is a model that grew by mistake
Leases = dict[str, dict[str, Any]]


class History:
    """Every revision there was, as the API server would list it; the part of `Api` that the verbs read with."""

    def __init__(self, revisions: tuple[Leases, ...], forgotten: int) -> None:
        self.revisions, self.forgotten = revisions, forgotten

    def list(self, _resource: Any, _namespace: Any, *, label_selector: str, at: str = "") -> Listing:
        revision = int(at) if at else len(self.revisions) - 1
        if revision <= self.forgotten:
            raise Gone(410, "Expired", "too old")
        return Listing(list(self.revisions[revision].values()), str(revision))


@dataclass(frozen=True)
class Story:
    """`wants` of the tickets, in the order in which they are drawn; the first capacity is there from the start.

    `edits` is how often somebody may edit the capacity to another of `capacities`, `settlers` how many may try to put
    one in force; `endings`: how many Pods may end and be marked; `scrap`: how often what is in force may be removed.
    """

    wants: tuple[dict[str, int], ...]
    capacities: tuple[dict[str, int] | str, ...]
    edits: int = 2
    settlers: int = 2
    endings: int = 0
    scrap: int = 0
    forgetful: bool = False


class State(NamedTuple):
    """`places` of all tickets that were ever drawn, in order; `illegal` is what is wrong with the newest revision."""

    revisions: tuple[Leases, ...]
    places: tuple[int, ...]
    judge: Judge
    shown: frozenset[frozenset[int]]  # by any observer that can be, of what is still there
    illegal: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()  # revisions of the own Lease on which somebody is about to write
    edits: int = 0
    settlers: int = 0
    endings: int = 0
    scrap: int = 0


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    longest: int = 0  # revisions in a history
    granted: int = 0  # states in which somebody holds
    drained: int = 0  # in which more is held than there is
    unsettled: int = 0
    behind: int = 0  # in which an observer shows less than there is
    views: int = 0


def own_lease(revision: int, capacity: dict[str, int] | str) -> dict[str, Any]:
    made = engine.with_capacity(None, "sem", "ns", capacity if isinstance(capacity, dict) else {})
    return stored(made, revision, uid="own")


def stored(lease: dict[str, Any], revision: int, **more: str) -> dict[str, Any]:
    return {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(revision), **more}}


def annotated(lease: dict[str, Any], revision: int, **notes: str | None) -> dict[str, Any]:
    after = {**lease["metadata"]["annotations"], **{f"muster.dev/{key}": text for key, text in notes.items()}}
    kept = {key: text for key, text in after.items() if text is not None}
    return {**lease, "metadata": {**lease["metadata"], "annotations": kept, "resourceVersion": str(revision)}}


def ticket(number: int, revision: int, want: dict[str, int]) -> dict[str, Any]:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": f"pod-{number}", "uid": f"uid-{number}"}
    return {
        "metadata": {
            "name": f"sem.{number}",
            "uid": f"lease-{number}",
            "resourceVersion": str(revision),
            "annotations": {engine.WANT: json.dumps(want)},
            "ownerReferences": [owner],
        }
    }


# ------------------------------------------------------------------------------------------ the search


def explore(story: Story) -> Found:
    """Breadth first, so that what is found first is a shortest way to it."""
    empty = State(({},), (), Judge("sem"), frozenset([frozenset()]))
    begin = arrive(story, empty, "ADDED", own_lease(1, story.capacities[0]))
    came_from: dict[tuple[Any, ...], tuple[tuple[Any, ...], str] | None] = {key(story, begin): None}
    waiting = deque([begin])
    found = Found()
    while waiting:
        state = waiting.popleft()
        here = key(story, state)
        found.states += 1
        assert found.states < ENOUGH
        measure(state, found)
        for what, after in moves(story, state):
            found.steps += 1
            assert not after.illegal, "\n".join([*trace(came_from, here), what, *after.illegal])
            there = key(story, after)
            if there not in came_from:
                came_from[there] = (here, what)
                waiting.append(after)
    return found


def moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    """(what happens, the state after it); one revision more, but for a read."""
    leases, revision = state.revisions[-1], len(state.revisions)
    own = leases["sem"]
    number = len(state.places)
    if number < len(story.wants):
        drawn = ticket(number, revision, story.wants[number])
        yield f"ticket {number} {story.wants[number]}", arrive(story, state, "ADDED", drawn)
    for name in sorted(leases.keys() - {"sem"}):
        yield f"{name} is deleted", arrive(story, state, "DELETED", stored(leases[name], revision))
    if state.edits < story.edits:
        for capacity in story.capacities:
            text = capacity if isinstance(capacity, str) else engine.dump(capacity)
            if text != own["metadata"]["annotations"][engine.CAPACITY]:
                after = arrive(story, state, "MODIFIED", annotated(own, revision, capacity=text))
                yield f"capacity {text}", after._replace(edits=state.edits + 1)
    if state.scrap < story.scrap and engine.IN_FORCE in own["metadata"]["annotations"]:
        after = arrive(story, state, "MODIFIED", annotated(own, revision, settled=None))
        yield "settled is removed", after._replace(scrap=state.scrap + 1)
    terms = engine.read_terms(own)
    if state.endings < story.endings and not terms.error:
        for name in sorted(leases.keys() - {"sem"}):
            uid = leases[name]["metadata"]["ownerReferences"][0]["uid"]
            marked = engine.put_out(own, leases.values(), {uid})
            if marked != own:
                after = arrive(story, state, "MODIFIED", stored(marked, revision))
                yield f"{name} has ended", after._replace(endings=state.endings + 1)
    if state.settlers < story.settlers and not terms.is_settled and not terms.error:
        reads = (*state.reads, own["metadata"]["resourceVersion"])
        yield "somebody reads", state._replace(reads=reads, settlers=state.settlers + 1)
    if own["metadata"]["resourceVersion"] in state.reads:  # of several the first wins; who comes later has lost
        held = verbs.held_before(history(story, state), "sem", "ns", own)  # type: ignore[arg-type]
        after = arrive(story, state, "MODIFIED", stored(engine.put_in_force(own, held), revision))
        yield "it is put in force", after


def arrive(story: Story, state: State, kind: str, lease: dict[str, Any]) -> State:
    """One event more, judged: the answer of the engine, and what any observer shows."""
    name = lease["metadata"]["name"]
    leases = {**state.revisions[-1], name: lease}
    if kind == "DELETED":
        del leases[name]
    places = state.places
    if kind == "ADDED" and name != "sem":
        places = (*places, int(lease["metadata"]["resourceVersion"]))
    judge = state.judge.copy()
    judge.event(kind, lease)
    book = engine.parse("sem", leases.values())
    assert book is not None
    live = frozenset(ticket.place for ticket in book.tickets)
    settled = engine.holders(book) if book.terms.is_settled else None

    def sees(shown: frozenset[int]) -> frozenset[int]:
        return engine.still_held(book, shown) if settled is None else settled

    answer = sees(frozenset(judge.held))
    illegal = judge.violations(answer)
    if story.forgetful:
        illegal = [text for text in illegal if text.startswith("S3")]
    kept = {shown & live for shown in state.shown}
    looked = {sees(shown) for shown in [*kept, frozenset[int]()]}
    illegal += [
        f"S3: an observer takes back {sorted(shown - sees(shown))}" for shown in kept if not shown <= sees(shown)
    ]
    illegal += [f"an observer shows {sorted(shown - answer)} too many" for shown in looked if not shown <= answer]
    return state._replace(
        revisions=(*state.revisions, leases),
        places=places,
        judge=judge,
        shown=frozenset(kept | looked),
        illegal=tuple(illegal),
    )


def history(story: Story, state: State) -> History:
    return History(state.revisions, forgotten=len(state.revisions) - 2 if story.forgetful else -1)


def key(story: Story, state: State) -> tuple[Any, ...]:
    """All that the future depends on; places by their rank, and revisions not at all."""
    own = state.revisions[-1]["sem"]
    terms = engine.read_terms(own)
    rank = {place: number for number, place in enumerate(state.places)}
    known = story.forgetful or terms.is_settled
    before = [] if known else verbs.held_before(history(story, state), "sem", "ns", own)  # type: ignore[arg-type]
    return (
        len(state.places),
        frozenset(rank[place] for place in state.judge.live()),
        own["metadata"]["annotations"][engine.CAPACITY],
        own["metadata"]["annotations"].get(engine.IN_FORCE) and engine.dump(terms.in_force),
        frozenset((resource, sum(place <= upto for place in state.places)) for resource, upto in terms.upto.items()),
        frozenset(rank[place] for place in terms.ended),
        frozenset(rank[ticket.place] for ticket in before),
        frozenset(rank[place] for place in state.judge.held),
        frozenset((resource, rank[line[-1]]) for resource, line in state.judge.fences.items()),
        frozenset(frozenset(rank[place] for place in shown) for shown in state.shown),
        own["metadata"]["resourceVersion"] in state.reads,
        state[6:],
    )


def measure(state: State, found: Found) -> None:
    judge = state.judge
    found.longest = max(found.longest, len(state.revisions) - 1)
    found.granted += bool(judge.held)
    found.drained += any(count > judge.capacity.get(resource, 0) for resource, count in judge.used(judge.held).items())
    found.unsettled += not judge.settled
    found.views += len(state.shown)
    found.behind += any(frozenset() < shown < judge.held for shown in state.shown)


def trace(came_from: dict[tuple[Any, ...], tuple[tuple[Any, ...], str] | None], at: tuple[Any, ...]) -> list[str]:
    told: list[str] = []
    while (came := came_from[at]) is not None:
        at, what = came
        told.insert(0, what)
    return told


# ------------------------------------------------------------------------------------------ the stories

X, Y, XY = {"x": 1}, {"y": 1}, {"x": 1, "y": 1}
X2, X2Y = {"x": 2}, {"x": 2, "y": 1}

STORIES = {
    "the capacity stays": Story((X, X, X, X, X), ({"x": 2},), edits=0),
    "two resources, blocking": Story((XY, X, XY, Y, X), ({"x": 1, "y": 1, "z": 1},), edits=0),
    "counts": Story(({"x": 2}, X, {"x": 2}, X), ({"x": 3},), edits=0),
    "counts of several": Story((X2Y, X, XY, Y, X), ({"x": 3, "y": 1}, {"x": 2, "y": 1}), edits=1),
    "counts, lowered beneath one that waits": Story((X2, X2, X), ({"x": 2}, {"x": 1}, {"x": 3}), edits=2),
    "it is lowered and raised": Story((X, X, X, X), ({"x": 2}, {"x": 1}, {"x": 3}), edits=2),
    "three edits": Story((X, X, X), ({"x": 2}, {"x": 1}, {"x": 0}), edits=3),
    "two resources, lowered": Story((X, XY, Y, X), ({"x": 2, "y": 1}, {"x": 1, "y": 1}, {"x": 1, "y": 2}), edits=2),
    "a resource is taken away": Story((X, XY, Y, X), ({"x": 2, "y": 1}, {"y": 1}), edits=3),
    "nonsense in between": Story((X, X, X), ({"x": 2}, "{", {"x": 1}), edits=3),
    "what is in force is removed": Story((X, X, X), ({"x": 2}, {"x": 1}), edits=2, scrap=1),
    "Pods end": Story((X, X, X, X), ({"x": 2}, {"x": 1}), edits=1, endings=2),
    "the past is forgotten": Story((X, X, X, X), ({"x": 2}, {"x": 1}), edits=2, forgetful=True),
}


@pytest.fixture(autouse=True)
def read_once(monkeypatch):
    """Annotations are read again and again in a search; what they say does not change."""
    read = functools.cache(lambda text, name: read_json({name: text}, name))
    read_json = engine.json_object
    monkeypatch.setattr(
        engine, "json_object", lambda notes, name: dict(read(notes[name], name)) if name in notes else {}
    )


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_nothing_illegal_can_be_reached(story, record_property):
    if os.environ.get("MUSTER_SEARCH") == "deep":
        story = replace(story, wants=(*story.wants, X), settlers=story.settlers + 1)
    found = explore(story)
    print(found)
    for name, count in vars(found).items():
        record_property(name, count)
    assert found.granted and found.views
    if story.edits:
        assert found.unsettled and found.drained and found.behind

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of a few candidates for one Lease; not a sample, and without a bound on its length: all of them.

What is decided is decided by the functions that ship (`decisions/election.py`), what is kept by whoever calls them is
the model's. Nothing is in step: a candidate looks whenever it likes, so its view is as old as may be; a write is
carried out any time after it was decided, or refused, and its answer may be lost; a candidate that is not scheduled is
frozen, and keeps what it believes. Time passes in ticks, and clocks differ in speed: one makes 4 of what others make 5.

Numbers (revisions, stamps, runs) are replaced by their ranks, for only their order counts; that makes it finite. Of
what is out of date, a write or a view, only that is kept by which it could still do harm.

Safety: never may two act; each who begins to act has a fence above all before it; no run has a second term. Liveness,
from each state that can be reached: when all that live go on, somebody may act in the end.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Seen, Term, Timing

ENOUGH = 1_000_000  # states; more is a model that grew by mistake
TIMING = Timing(10)
OLD = math.ceil(TIMING.usable)
ROUNDS = 15  # after so many of everybody somebody has to have it

Run = tuple[int, int]  # a candidate, and which of its runs


class Lease(NamedTuple):
    """As it is written. Versions and stamps count by their order only."""

    uid: int
    version: int
    holder: Run | None
    fence: int | None
    renewed: int  # a stamp that no other write has
    since: int  # the second of the take, on its node's clock
    container: int | None  # the holder's: its number, -1 where only its name is known


class Life(NamedTuple):
    """One container of a candidate's Pod, as the kubelet knows it; a number below 0: it says nothing."""

    number: int
    began: int
    ended: int | None = None  # its own end
    before: int | None = None  # when the one before it ended


class Call(NamedTuple):
    """A write that is under way: `age` since it was begun, `put` as it will be written (None: decide again)."""

    kind: str
    age: int
    over: Lease | None
    put: Lease | None


class Candidate(NamedTuple):
    """`tenure`: age since it sent what it was last granted for, and the fence; `is_spent`: its run had a term."""

    alive: bool = True
    run: int = 0
    view: tuple[Lease, int] | None = None
    call: Call | None = None
    tenure: tuple[int, int] | None = None
    is_spent: bool = False
    life: Life = Life(-1, 0)
    shown: Life | None = Life(-1, 0)  # what the API server shows of the Pod; None: it was deleted by force


class State(NamedTuple):
    lease: Lease | None
    candidates: tuple[Candidate, ...]
    top: int = 0  # the greatest fence with which anybody ever acted
    second: int = 0
    late: Lease | None = None  # a write whose sender waits for it no more
    lost: int = 0  # so many answers may still be lost
    crashes: int = 0
    deletions: int = 0
    vanishings: int = 0
    releases: int = 0


@dataclass(frozen=True)
class Story:
    """How many there are, how fast their clocks go, and how often what may happen."""

    speeds: tuple[int, ...] = (4, 5)
    lost: int = 0
    crashes: int = 0
    deletions: int = 0
    vanishings: int = 0
    releases: int = 0
    late: bool = False
    pods: bool = False  # the kubelet tells of the first, which crashes; all within the time of a lease
    seconds: int = 0  # of the nodes' clocks; they pass at any time

    def begin(self) -> State:
        lease = Lease(1, 10, None, 1, 0, 0, None)  # somebody had it before, and gave it back
        lives = [Life(0 if self.pods and not number else -1, 0) for number in range(len(self.speeds))]
        people = tuple(Candidate(life=life, shown=life) for life in lives)
        return State(lease, people, 1, 0, None, self.lost, self.crashes, self.deletions, self.vanishings, self.releases)


# ------------------------------------------------------------------------------------------ what ships


def identity(run: Run) -> Identity:
    return Identity(f"p{run[0]}", f"uid{run[0]}", str(run[1]), "c")


def moment(second: int, stamp: int) -> str:
    return f"2026-01-31T12:{second // 60:02}:{second % 60:02}.{stamp:06}Z"


def as_object(lease: Lease) -> dict[str, Any]:
    notes = {} if lease.fence is None else {election.FENCE: str(lease.fence)}
    if lease.container is not None:
        notes[election.CONTAINER] = "c" if lease.container < 0 else f"c/{lease.container}"
    return {
        "metadata": {"uid": str(lease.uid), "resourceVersion": str(lease.version), "annotations": notes},
        "spec": {
            "holderIdentity": str(identity(lease.holder)) if lease.holder else "",
            "leaseDurationSeconds": TIMING.lease,
            "acquireTime": moment(lease.since, 0),
            "renewTime": moment(0, lease.renewed),
        },
    }


def as_lease(obj: dict[str, Any] | None) -> Lease | None:
    if obj is None:
        return None
    metadata, spec = obj["metadata"], obj["spec"]
    pod, _uid, run = spec["holderIdentity"].split("_") if spec["holderIdentity"] else ("", "", "")
    name, _slash, container = metadata["annotations"].get(election.CONTAINER, "").partition("/")
    return Lease(
        int(metadata["uid"]),
        int(metadata["resourceVersion"]),
        (int(pod[1:]), int(run)) if pod else None,
        int(metadata["annotations"][election.FENCE]) if election.FENCE in metadata["annotations"] else None,
        int(spec["renewTime"][20:26]),
        int(spec["acquireTime"][14:16]) * 60 + int(spec["acquireTime"][17:19]),
        None if not name else int(container or -1),
    )


@cache
def term(lease: Lease) -> Term:
    return election.parse(as_object(lease))


@cache
def take(lease: Lease, me: Run, over: Lease | None, second: int, stamp: int) -> Lease | None:
    now = moment(second, stamp)
    return as_lease(election.take(as_object(lease), identity(me), TIMING, now, over=term(over) if over else None))


@cache
def renew(lease: Lease, me: Run, container: str, stamp: int) -> Lease | None:
    return as_lease(election.renew(as_object(lease), identity(me), moment(0, stamp), container))


@cache
def release(lease: Lease, me: Run) -> Lease | None:
    return as_lease(election.release(as_object(lease), identity(me)))


@cache
def why_take(view: Lease, age: int, me: Run, shown: Life | None) -> str:
    is_dead = election.has_ended(term(view), view.holder and pod(view.holder[0], shown))
    return election.why_take(Seen(term(view), 0), identity(me), age, is_dead=is_dead)


@cache
def is_renewed(before: Lease, now: Lease) -> bool:
    return election.see(Seen(term(before), 0), term(now), 1).since == 1


@cache
def own_container_id(number: int, shown: Life | None, began: int) -> str:
    there = pod(number, shown)
    return election.own_container_id(there, "c", began + 0.4) if there else ""


def pod(number: int, life: Life | None) -> dict[str, Any] | None:
    if life is None:
        return None
    state: dict[str, Any] = {"running": {"startedAt": moment(life.began, 0)}}
    if life.ended is not None:
        state = {"terminated": {"containerID": str(life.number), "finishedAt": moment(life.ended, 0)}}
    status = {"name": "c", "containerID": str(life.number), "state": state}
    if life.before is not None:
        status["lastState"] = {
            "terminated": {"containerID": str(life.number - 1), "finishedAt": moment(life.before, 0)}
        }
    return {"metadata": {"uid": f"uid{number}"}, "status": {"phase": "Running", "containerStatuses": [status]}}


# ------------------------------------------------------------------------------------------ what may happen


def may_act(one: Candidate) -> bool:
    """Who is frozen may act until its own clock says otherwise."""
    return one.alive and one.tenure is not None and one.tenure[0] < TIMING.usable


def moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    for number, one in enumerate(state.candidates):
        if one.alive:
            yield from moves_of(story, state, number, one)
        elif one.shown is not None:  # a Pod that was deleted is not started again
            yield f"{number} is started again", put_in(state, number, started(state, one))
        if one.shown is not None and one.shown != one.life:
            yield f"the kubelet reports {number}", put_in(state, number, one._replace(shown=one.life))
        if state.vanishings and one.shown is not None and one.life.number >= 0:
            gone = put_in(state, number, one._replace(shown=None))
            yield f"the Pod of {number} is deleted by force", gone._replace(vanishings=state.vanishings - 1)
    if state.late is not None:
        yield "a late write comes", written(state, state.late)._replace(late=None)
    if state.deletions and state.lease is not None:
        yield "the Lease is deleted", stored(state, None)._replace(deletions=state.deletions - 1)
    if state.second < story.seconds:
        yield "a second passes", state._replace(second=state.second + 1)
    if not story.pods:
        yield "time passes", ticked(story, state)


def moves_of(story: Story, state: State, number: int, one: Candidate) -> Iterator[tuple[str, State]]:
    if one.call is None:
        yield f"{number} looks", looked(state, number)
    if one.call is not None:
        yield from moves_of_call(story, state, number, one, one.call)
    elif one.tenure is None:
        if state.lease is None:
            made = Lease(fresh(state, uids), fresh(state, versions), None, None, 0, 0, None)
            yield f"{number} makes the Lease", stored(state, made)
        elif one.view and reason(state, number, one):
            over = one.view[0]
            yield f"{number} takes", decided(state, number, one._replace(view=None, call=Call("take", 0, over, None)))
    else:
        if one.tenure[0] > 0 or story.pods:
            yield f"{number} renews", decided(state, number, one._replace(call=Call("renew", 0, None, None)))
        if state.releases:
            leaving = one._replace(tenure=None, call=Call("release", 0, None, None))
            yield f"{number} gives it back", decided(state, number, leaving)._replace(releases=state.releases - 1)
    if state.crashes and (one.life.number >= 0 or not story.pods):
        life = one.life._replace(ended=state.second) if story.pods else one.life
        dead = Candidate(alive=False, run=one.run, life=life, shown=one.shown)
        late = one.call.put if story.late and one.call else None
        yield f"{number} crashes", put_in(state, number, dead)._replace(crashes=state.crashes - 1, late=late)


def moves_of_call(story: Story, state: State, number: int, one: Candidate, call: Call) -> Iterator[tuple[str, State]]:
    if call.put is None:
        yield f"{number} decides again", decided(state, number, one)
        yield f"{number} gives up", put_in(state, number, failed(one))
        return
    after = written(state, call.put)
    if after.lease is state.lease:
        yield f"{number} meets a conflict", put_in(state, number, one._replace(call=call._replace(put=None)))
        return
    if call.kind == "release":
        yield f"{number} has given back", put_in(after, number, another_run(after.candidates[number]))
    else:
        yield f"{number} has written", granted(after, number, call.put)
    if state.lost:
        unheard = after.candidates[number]._replace(call=call._replace(put=None))
        yield (
            f"{number} does not hear that it has written",
            put_in(after, number, unheard)._replace(lost=state.lost - 1),
        )
    if story.late and state.late is None:
        yield f"{number} gives up what is on its way", put_in(state, number, failed(one))._replace(late=call.put)


def looked(state: State, number: int) -> State:
    one, now = state.candidates[number], state.lease
    if now is None:
        view = None
    else:
        now = now._replace(version=0, fence=now.fence and 0)
        known = one.view is not None and not is_renewed(one.view[0], now)
        view = (now, one.view[1] if known and one.view else 0)
    if one.tenure:  # whoever has it looks only whether it still has
        return put_in(state, number, one if now and now.holder == (number, one.run) else another_run(one))
    return put_in(state, number, one._replace(view=view))


def reason(state: State, number: int, one: Candidate) -> str:
    assert one.view is not None
    view, age = one.view
    shown = state.candidates[view.holder[0]].shown if view.holder else None
    return why_take(view, age, (number, one.run), shown)


def decided(state: State, number: int, one: Candidate) -> State:
    """A call reads what is there now, and decides on that; as `verbs/leases.py` does."""
    call, lease, me = one.call, state.lease, (number, one.run)
    assert call is not None
    if lease is None or (call.age >= TIMING.usable and call.kind == "take" and lease.holder != me):
        return put_in(state, number, failed(another_run(one)))
    if call.kind == "take":
        put = take(lease, me, call.over, state.second, fresh(state, stamps))
    elif call.kind == "renew":
        container = own_container_id(number, one.shown, one.life.began) if one.life.number >= 0 else ""
        put = renew(lease, me, container, fresh(state, stamps))
    else:
        put = release(lease, me)
    if put is None:
        return put_in(state, number, failed(another_run(one)))
    if put == lease:  # an earlier try was carried out
        return granted(put_in(state, number, one), number, put)
    return put_in(state, number, one._replace(call=call._replace(put=put)))


def granted(state: State, number: int, lease: Lease) -> State:
    one = state.candidates[number]
    assert one.call is not None and lease.fence is not None
    return put_in(state, number, one._replace(call=None, tenure=(one.call.age, lease.fence)))


def failed(one: Candidate) -> Candidate:
    """Whoever does not know whether it has taken goes on as another run; a renewal is tried again."""
    after = one._replace(call=None)
    return after if one.call and one.call.kind == "renew" else another_run(after)


def another_run(one: Candidate) -> Candidate:
    return one._replace(run=one.run + 1, call=None, tenure=None, is_spent=False)


def started(state: State, one: Candidate) -> Candidate:
    life = Life(one.life.number + 1, state.second, None, one.life.ended)
    return Candidate(run=one.run + 1, life=life if one.life.ended is not None else one.life, shown=one.shown)


def written(state: State, put: Lease) -> State:
    """The state after a compare-and-swap; with the very same Lease where it is refused."""
    lease = state.lease
    if lease is None or (lease.version, lease.uid) != (put.version, put.uid):
        return state
    return stored(state, put._replace(version=fresh(state, versions)))


def stored(state: State, lease: Lease | None) -> State:
    """Marks the run that loses it."""
    former, holder = state.lease and state.lease.holder, lease and lease.holder
    after = state._replace(lease=lease)
    if former and former != holder and state.candidates[former[0]].run == former[1]:
        after = put_in(after, former[0], after.candidates[former[0]]._replace(is_spent=True))
    return after


def ticked(story: Story, state: State) -> State:
    """All clocks go on, each at its speed; no age grows beyond where it makes a difference."""
    people = []
    for one, speed in zip(state.candidates, story.speeds, strict=True):
        if one.view:
            one = one._replace(view=(one.view[0], min(one.view[1] + speed, TIMING.lease)))
        if one.tenure:
            one = one._replace(tenure=(min(one.tenure[0] + speed, OLD), one.tenure[1]))
        if one.call:
            one = one._replace(call=one.call._replace(age=min(one.call.age + speed, OLD)))
        people.append(one)
    return state._replace(candidates=tuple(people))


def put_in(state: State, number: int, one: Candidate) -> State:
    people = state.candidates
    return state._replace(candidates=(*people[:number], one, *people[number + 1 :]))


# ------------------------------------------------------------------------------------------ ranks for numbers

REFUSED: Final = Lease(0, -1, None, None, 0, 0, None)  # any write that comes too late


def leases(state: State) -> list[Lease]:
    found = [state.lease, state.late]
    for one in state.candidates:
        found.append(one.view and one.view[0])
        if one.call:
            found += (one.call.over, one.call.put)
    return [lease for lease in found if lease]


def versions(state: State) -> Iterator[int]:
    yield state.top
    for lease in leases(state):
        yield lease.version
        yield lease.fence or 0
    for one in state.candidates:
        if one.tenure:
            yield one.tenure[1]


def stamps(state: State) -> Iterator[int]:
    return (lease.renewed for lease in leases(state))


def uids(state: State) -> Iterator[int]:
    return (lease.uid for lease in leases(state))


def fresh(state: State, numbers: Callable[[State], Iterator[int]]) -> int:
    return max(numbers(state), default=0) + 1


def ranks(numbers: Iterable[int], step: int = 1) -> dict[int, int]:
    return {number: rank * step for rank, number in enumerate(sorted({*numbers, 0} - {-1}))}


def canonical(state: State) -> State:
    """The same state, with the smallest numbers that stand in the same order."""
    state = outdated(state)
    there = leases(state)
    version = ranks(versions(state), 10) | {-1: -1}
    stamp, uid = ranks(lease.renewed for lease in there), ranks(lease.uid for lease in there)
    held = [lease.holder for lease in there if lease.holder]
    runs = [
        ranks([one.run, *(run for number, run in held if number == index)])
        for index, one in enumerate(state.candidates)
    ]

    def of_lease(lease: Lease | None) -> Lease | None:
        if lease is None:
            return None
        return Lease(
            uid[lease.uid],
            version[lease.version],
            lease.holder and (lease.holder[0], runs[lease.holder[0]][lease.holder[1]]),
            None if lease.fence is None else version[lease.fence],
            stamp[lease.renewed],
            lease.since if lease.holder and state.candidates[lease.holder[0]].life.number >= 0 else 0,
            lease.container,
        )

    people = []
    for index, one in enumerate(state.candidates):
        call = one.call and Call(one.call.kind, one.call.age, of_lease(one.call.over), of_lease(one.call.put))
        view = one.view and (of_lease(one.view[0]), one.view[1])
        tenure = one.tenure and (one.tenure[0], version[one.tenure[1]])
        people.append(Candidate(one.alive, runs[index][one.run], view, call, tenure, *one[5:]))  # type: ignore[arg-type]
    top, late = version[state.top], of_lease(state.late)
    return State(of_lease(state.lease), tuple(people), top, state.second, late, *state[5:])


def outdated(state: State) -> State:
    """Versions only grow, and no beat comes back: what is not of the present one is out of date for ever."""
    now = state.lease

    def of_put(put: Lease | None) -> Lease | None:
        return put if put is None or (now and (put.version, put.uid) == (now.version, now.uid)) else REFUSED

    def of_view(view: Lease | None) -> Lease | None:
        same = view and now and (view.uid, view.holder, view.renewed) == (now.uid, now.holder, now.renewed)
        if same or not view:
            return view
        return view._replace(uid=view.uid if now and view.uid == now.uid else 0, renewed=0)

    def of_over(over: Lease | None) -> Lease | None:
        same = over and now and (over.uid, over.holder, over.renewed) == (now.uid, now.holder, now.renewed)
        return over if same or not over else REFUSED

    people = []
    for one in state.candidates:
        if one.view:
            one = one._replace(view=(of_view(one.view[0]), one.view[1]))
        if one.call:
            one = one._replace(call=Call(one.call.kind, one.call.age, of_over(one.call.over), of_put(one.call.put)))
        people.append(one)
    late = of_put(state.late)
    return state._replace(candidates=tuple(people), late=None if late == REFUSED else late)


# ------------------------------------------------------------------------------------------ the search


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    terms: int = 0  # how often somebody began to act
    taken_over: int = 0  # of these while the former holder had not given it back


def judged(before: State, after: State) -> tuple[State, str]:
    """The state with its greatest fence, and what is wrong with the step."""
    acting = [number for number, one in enumerate(after.candidates) if may_act(one)]
    if len(acting) > 1:
        return after, f"candidates {acting} may act at the same time"
    for number, (was, now) in enumerate(zip(before.candidates, after.candidates, strict=True)):
        if now.tenure and (not was.tenure or was.tenure[1] != now.tenure[1]):
            if now.tenure[1] <= after.top:
                return after, f"candidate {number} acts with fence {now.tenure[1]}, and {after.top} has acted before"
            after = after._replace(top=now.tenure[1])
    holder = after.lease and after.lease.holder
    if holder and after.candidates[holder[0]].run == holder[1] and after.candidates[holder[0]].is_spent:
        return after, f"run {holder} has a second term"
    return after, ""


def explore(story: Story) -> Found:
    """Breadth first, so that what is found first is a shortest way to it."""
    begin = canonical(story.begin())
    came_from: dict[State, tuple[State, str] | None] = {begin: None}
    waiting, found, good = deque([begin]), Found(), set[State]()
    while waiting:
        state = waiting.popleft()
        found.states += 1
        assert found.states < ENOUGH
        for what, then in moves(story, state):
            found.steps += 1
            after, wrong = judged(state, then)
            assert not wrong, "\n".join([*trace(came_from, state), what, wrong])
            if after.top != state.top:
                found.terms += 1
                found.taken_over += any(one.tenure or not one.alive for one in state.candidates)
            after = canonical(after)
            if after not in came_from:
                came_from[after] = (state, what)
                waiting.append(after)
        assert ends_well(story, state, good), "\n".join([*trace(came_from, state), "and then nobody ever has it"])
    return found


def ends_well(story: Story, state: State, good: set[State]) -> bool:
    """Whether somebody may act after all who live have gone on, in turn, for a while."""
    way = []
    for _round in range(ROUNDS):
        state = canonical(state)
        if state in good or any(map(may_act, state.candidates)):
            good.update(way)
            return True
        way.append(state)
        state = went_on(story, state)
    return False


def went_on(story: Story, state: State) -> State:
    """Everybody has finished its call, looked, and done what is due; then time passes."""
    state = state._replace(lost=0, crashes=0, deletions=0, vanishings=0, releases=0)
    if not any(one.alive for one in state.candidates):
        risen = started(state, state.candidates[0])
        state = put_in(state, 0, risen._replace(shown=risen.life))
    for number in range(len(state.candidates)):
        for _step in range(4):
            one = state.candidates[number]
            if one.alive and one.call is None:
                state = looked(state, number)
            due = [
                after for what, after in moves_of(story, state, number, state.candidates[number]) if "looks" not in what
            ]
            if one.alive and due:
                state, _wrong = judged(state, due[0])
    return ticked(story, state)


def trace(came_from: dict[State, tuple[State, str] | None], at: State) -> list[str]:
    told: list[str] = ["", str(at)]
    while (came := came_from[at]) is not None:
        at, what = came
        told.insert(0, what)
    return told


# ------------------------------------------------------------------------------------------ the stories

STORIES = {
    "answers are lost": Story(lost=1),
    "it is given back": Story(releases=1),
    "they crash, and start again": Story(crashes=2),
    "the Lease is deleted": Story(deletions=1),
    "the kubelet reports": Story(crashes=1, pods=True, seconds=2),
    "a Pod is deleted by force": Story(crashes=1, vanishings=1, pods=True, seconds=1),
}
DEEP = {
    "writes come late": Story(late=True),
    "answers are lost, and it is given back": Story(lost=2, releases=1),
    "the Lease is deleted twice": Story(deletions=2, lost=1),
    "the kubelet reports twice": Story(crashes=2, vanishings=1, pods=True, seconds=2),
    "three": Story(speeds=(4, 5, 5)),
}
if os.environ.get("MUSTER_SEARCH") == "deep":
    STORIES |= DEEP


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_nothing_illegal_can_be_reached(story: Story, record_property: Callable[[str, int], None]) -> None:
    found = explore(story)
    print(found)
    for name, count in vars(found).items():
        record_property(name, count)
    assert found.terms and found.taken_over


def test_clocks_that_differ_by_more_than_is_allowed_for_are_found_out() -> None:
    with pytest.raises(AssertionError, match="may act at the same time"):
        explore(Story(speeds=(2, 5)))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of a few members and shards; not a sample, and without a bound on its length: all of them.

The table is changed by `sharding.advance` alone, and who is over is said by `election.is_over`. Of a member's Lease
only that is here what the model of elections has shown: it is taken from its holder only when the holder's own deadline
has passed (it has lapsed), or the holder is dead, or has given it back; and no run has it twice.

A member reads the table, then the Leases, then writes; in between anything may happen, and a write on what is out of
date is refused. It hears of what stands in the table whenever it looks, so any answer may be lost. A member that is
frozen does nothing; it may have lapsed then, and what it was about to write is written later.

Safety: never may two act on one shard, or by different layouts; a new owner's fence is the version that it replaced.
Liveness, from each state that can be reached: when all go on, each shard has an owner that acts, and nobody writes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, sharding
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Seen, Term
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import (
    NOBODY,
    STABLE,
    Layout,
    Member,
    Owner,
    Table,
)

ENOUGH = 1_000_000  # states; more is a model that grew by mistake
ROUNDS = 12  # after so many of everybody all has to be settled
BEFORE, NOW = 1, 2  # fences of what stands in the table, and the version that a write replaces

Run = tuple[int, int]  # a member, and which of its runs


class Stood(NamedTuple):
    """The table as it stands: by shard, the member that is wanted (-1: nobody) and the run that owns it."""

    wanted: tuple[int, ...]
    owners: tuple[Run | None, ...]


class Read(NamedTuple):
    """What a member has read of the Leases: who lives, by run, and which runs that it asked for are over."""

    live: frozenset[Run]
    over: frozenset[Run]


class One(NamedTuple):
    """A member. `has`: it may act by its own clock; `acts` on these shards (of so many), or has work there to end."""

    alive: bool = True
    run: int = 0
    has: bool = False
    leaving: bool = False
    acts: frozenset[tuple[int, int]] = frozenset()
    call: str | Read | Stood | None = None  # "table": it has read that; Read: the Leases, too early; Stood: will write


class State(NamedTuple):
    """`leases` by member: the run that has it, and whether that is leaving."""

    table: Stood | None
    leases: tuple[tuple[int, bool] | None, ...]
    members: tuple[One, ...]
    crashes: int = 0
    leaves: int = 0
    lapses: int = 0


@dataclass(frozen=True)
class Story:
    """How many shards each member wants there to be, and how often what may happen.

    `leases_first` breaks the rule: who is over is read before the table.
    """

    shards: tuple[int, ...] = (2, 2)
    crashes: int = 0
    leaves: int = 0
    lapses: int = 0
    leases_first: bool = False

    def begin(self) -> State:
        people = tuple(One() for _member in self.shards)
        return State(None, (None,) * len(people), people, self.crashes, self.leaves, self.lapses)


# ------------------------------------------------------------------------------------------ what ships


def identity(run: Run) -> str:
    return f"p{run[0]}_u_{run[1]}"


def run_of(identity: str) -> Run:
    pod, _uid, run = identity.split("_")
    return int(pod[1:]), int(run)


@cache
def as_table(stood: Stood | None) -> Table | None:
    if stood is None:
        return None
    return Table(
        Layout(STABLE, len(stood.wanted)),
        tuple(f"p{who}" if who >= 0 else NOBODY for who in stood.wanted),
        tuple(owner and Owner(identity(owner), BEFORE) for owner in stood.owners),
    )


@cache
def advance(
    stood: Stood | None, me: Run, live: frozenset[Run], over: frozenset[Run], drained: frozenset[int], story: Story
) -> tuple[Stood | None, str]:
    """What it becomes, and what is wrong with the fences."""
    members = {
        f"p{who}": Member(identity((who, run)), who, Layout(STABLE, story.shards[who])) for who, run in sorted(live)
    }
    before = as_table(stood)
    gone = {identity(run) for run in over}
    after = sharding.advance(before, members, me=identity(me), fence=NOW, over=gone, drained=drained)
    if after is before or after is None:
        return stood, ""
    wrong = ""
    kept = before.owners if before and before.layout == after.layout else (None,) * after.layout.shards
    for was, now in zip(kept, after.owners, strict=True):
        if now and now != was and now.fence != NOW:
            wrong = f"{now.identity} owns with fence {now.fence}, which does not grow"
    wanted = tuple(int(who[1:]) if who else -1 for who in after.wanted)
    return Stood(wanted, tuple(owner and run_of(owner.identity) for owner in after.owners)), wrong


@cache
def is_over(run: Run, holder: int | None) -> bool:
    term = Term("lease", "" if holder is None else identity((run[0], holder)), 6)
    return election.is_over(Seen(term, 0.0), identity(run), 0.0)


# ------------------------------------------------------------------------------------------ what may happen


def moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    for number, one in enumerate(state.members):
        lease = state.leases[number]
        if not one.alive:
            yield f"{number} is started", put_in(state, number, One(run=one.run + 1))
        else:
            yield from moves_of(story, state, number, one)
        is_done = not one.alive or lease is None or one.run != lease[0] or not one.has
        if lease and is_done:
            yield f"the Lease of {number} is taken from it", leased(state, number, None)
        if one.has and state.lapses:
            yield f"{number} lapses", put_in(state, number, one._replace(has=False))._replace(lapses=state.lapses - 1)


def moves_of(story: Story, state: State, number: int, one: One) -> Iterator[tuple[str, State]]:
    lease = state.leases[number]
    is_mine = lease is not None and lease[0] == one.run
    if one.has:
        yield from moves_at_table(story, state, number, one)
    elif is_mine:
        yield f"{number} renews", put_in(state, number, one._replace(has=True))
    elif lease is None or lease[0] != one.run:
        run = one.run + 1
        taken = leased(state, number, (run, False))
        yield f"{number} takes its Lease", put_in(taken, number, One(run=run, has=True))
    if isinstance(one.call, Stood):
        yield f"{number} writes", written(state, number, one.call)
    if one.has and state.leaves and not one.leaving:
        after = leased(state, number, (one.run, True))
        yield (
            f"{number} is leaving",
            put_in(after, number, one._replace(leaving=True))._replace(leaves=state.leaves - 1),
        )
    if one.leaving and one.has and not one.acts and not owned(state.table, (number, one.run)):
        yield f"{number} has left", put_in(leased(state, number, None), number, One(alive=False, run=one.run))
    if state.crashes:
        yield (
            f"{number} crashes",
            put_in(state, number, One(alive=False, run=one.run))._replace(crashes=state.crashes - 1),
        )


def moves_at_table(story: Story, state: State, number: int, one: One) -> Iterator[tuple[str, State]]:
    me = (number, one.run)
    acts = looked(state.table, me, one)
    if acts != one.acts:
        yield f"{number} looks", put_in(state, number, one._replace(acts=acts))
    revoked = one.acts if one.leaving else one.acts - wanted(state.table, number)
    for work in sorted(revoked):
        yield f"{number} ends its work on {work}", put_in(state, number, one._replace(acts=one.acts - {work}))
    if one.call is None and story.leases_first:
        every = frozenset((who, run) for who in range(len(state.members)) for run in range(state.members[who].run + 2))
        yield f"{number} reads the Leases", put_in(state, number, one._replace(call=read(state, every)))
    elif one.call is None:
        yield f"{number} reads the table", put_in(state, number, one._replace(call="table"))
    elif one.call == "table":
        owners = frozenset(owner for owner in (state.table.owners if state.table else ()) if owner)
        yield f"{number} reads the Leases", decided(story, state, number, read(state, owners))
    elif isinstance(one.call, Read):
        yield f"{number} reads the table", decided(story, state, number, one.call)


def owned(table: Stood | None, run: Run) -> frozenset[int]:
    return frozenset(shard for shard, owner in enumerate(table.owners) if owner == run) if table else frozenset()


def wanted(table: Stood | None, number: int) -> frozenset[tuple[int, int]]:
    if table is None:
        return frozenset()
    return frozenset((shard, len(table.wanted)) for shard, who in enumerate(table.wanted) if who == number)


def looked(table: Stood | None, me: Run, one: One) -> frozenset[tuple[int, int]]:
    """It begins on what is its own and is to stay so; what it has begun it has to end first."""
    own = frozenset((shard, len(table.wanted)) for shard in owned(table, me)) if table else frozenset()
    return one.acts if one.leaving else (own & wanted(table, me[0])) | (one.acts & own)


def read(state: State, asked: frozenset[Run]) -> Read:
    live = frozenset((who, lease[0]) for who, lease in enumerate(state.leases) if lease and not lease[1])
    holders = [lease and lease[0] for lease in state.leases]
    return Read(live, frozenset(run for run in asked if is_over(run, holders[run[0]])))


def decided(story: Story, state: State, number: int, leases: Read) -> State:
    one, me = state.members[number], (number, state.members[number].run)
    mine, working = owned(state.table, me), frozenset(shard for shard, _of in one.acts)
    if state.table and not one.leaving:
        mine = frozenset(shard for shard in mine if state.table.wanted[shard] != number)
    live = frozenset(run for run in leases.live if run != me) if one.leaving else leases.live
    after, wrong = advance(state.table, me, live, leases.over, mine - working, story)
    assert not wrong, wrong
    return put_in(state, number, one._replace(call=None if after == state.table else after))


def written(state: State, number: int, table: Stood) -> State:
    """Whoever has read what stood before will be refused, and reads again."""
    people = tuple(one._replace(call=one.call if isinstance(one.call, Read) else None) for one in state.members)
    return state._replace(
        table=table, members=(*people[:number], people[number]._replace(call=None), *people[number + 1 :])
    )


def leased(state: State, number: int, lease: tuple[int, bool] | None) -> State:
    return state._replace(leases=(*state.leases[:number], lease, *state.leases[number + 1 :]))


def put_in(state: State, number: int, one: One) -> State:
    return state._replace(members=(*state.members[:number], one, *state.members[number + 1 :]))


# ------------------------------------------------------------------------------------------ the search


def canonical(state: State) -> State:
    """The same state, with the smallest numbers for runs that stand in the same order."""
    tables = [table for table in (state.table, *(one.call for one in state.members)) if isinstance(table, Stood)]
    reads = [one.call for one in state.members if isinstance(one.call, Read)]
    owners = [owner for table in tables for owner in table.owners if owner]
    for leases in reads:
        owners += leases.live
    ranks: list[dict[int, int]] = []
    for number, one in enumerate(state.members):
        runs = {one.run, *(run for who, run in owners if who == number)}
        runs |= {lease[0] for lease in state.leases[number : number + 1] if lease}
        ranks.append({run: rank for rank, run in enumerate(sorted(runs))})

    def of_table(table: Stood) -> Stood:
        return Stood(table.wanted, tuple(owner and (owner[0], ranks[owner[0]][owner[1]]) for owner in table.owners))

    def of_call(call: str | Read | Stood | None) -> str | Read | Stood | None:
        if isinstance(call, Stood):
            return of_table(call)
        return Read(of_runs(call.live), of_runs(call.over)) if isinstance(call, Read) else call

    def of_runs(runs: frozenset[Run]) -> frozenset[Run]:
        """Runs that nobody has had yet are kept above all others."""
        found = set()
        for who, run in runs:
            newer = run - state.members[who].run
            rank = ranks[who].get(run, ranks[who][state.members[who].run] + newer if newer > 0 else None)
            if rank is not None:
                found.add((who, rank))
        return frozenset(found)

    return state._replace(
        table=state.table and of_table(state.table),
        leases=tuple(lease and (ranks[who][lease[0]], lease[1]) for who, lease in enumerate(state.leases)),
        members=tuple(
            one._replace(run=ranks[who][one.run], call=of_call(one.call)) for who, one in enumerate(state.members)
        ),
    )


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    writes: int = 0
    settled: int = 0


def wrong_in(state: State) -> str:
    """Whoever has not lapsed acts, frozen or not."""
    acting = [(number, work) for number, one in enumerate(state.members) if one.alive and one.has for work in one.acts]
    if len({work for _number, work in acting}) < len(acting) or len({of for _number, (_shard, of) in acting}) > 1:
        return f"they act at the same time: {acting}"
    return ""


def is_settled(state: State) -> bool:
    """Each shard is owned by one that acts on it."""
    if state.table is None:
        return False
    return all(
        owner
        and state.members[owner[0]].run == owner[1]
        and state.members[owner[0]].has
        and (shard, len(state.table.owners)) in state.members[owner[0]].acts
        for shard, owner in enumerate(state.table.owners)
    )


def explore(story: Story) -> Found:
    """Breadth first, so that what is found first is a shortest way to it."""
    begin = canonical(story.begin())
    came_from: dict[State, tuple[State, str] | None] = {begin: None}
    waiting, found, good = deque([begin]), Found(), set[State]()
    while waiting:
        state = waiting.popleft()
        found.states += 1
        assert found.states < ENOUGH
        found.settled += is_settled(state)
        for what, then in moves(story, state):
            found.steps += 1
            wrong = wrong_in(then)
            assert not wrong, "\n".join([*trace(came_from, state), what, wrong])
            after = canonical(then)
            if after not in came_from:
                came_from[after] = (state, what)
                waiting.append(after)
                found.writes += "writes" in what
        assert ends_well(story, state, good), "\n".join([*trace(came_from, state), "and then it never settles"])
    return found


def ends_well(story: Story, state: State, good: set[State]) -> bool:
    """Whether all is settled, and nobody writes any more, after all have gone on, in turn, for a while."""
    way = []
    for _round in range(ROUNDS):
        state = canonical(state)
        way.append(state)
        after = canonical(went_on(story, state))
        if state in good or (after == state and is_settled(state)):
            good.update(way)
            return True
        state = after
    return False


def went_on(story: Story, state: State) -> State:
    """All do what is due, one after the other; dead ones stay dead, if there is anybody else."""
    state = state._replace(crashes=0, leaves=0, lapses=0)
    if not any(one.alive and not one.leaving for one in state.members):
        state = put_in(leased(state, 0, None), 0, One(run=state.members[0].run + 1))
    for number in range(len(state.members)):
        if not state.members[number].alive and state.leases[number]:
            state = leased(state, number, None)
        for _step in range(12):
            one = state.members[number]
            due = [after for _what, after in moves_of(story, state, number, one)] if one.alive else []
            after = due[0] if due else state
            if isinstance(one.call, Stood):
                after = written(state, number, one.call)
            state = after
            if one.call in ("table", None) and after.members[number].call is None and one.call:
                break  # there was nothing to write
    return state


def trace(came_from: dict[State, tuple[State, str] | None], at: State) -> list[str]:
    told: list[str] = ["", str(at)]
    while (came := came_from[at]) is not None:
        at, what = came
        told.insert(0, what)
    return told


# ------------------------------------------------------------------------------------------ the stories

STORIES = {
    "another layout": Story(shards=(1, 2), lapses=1),
    "one leaves": Story(leaves=1),
    "one is frozen, one crashes": Story(lapses=1, crashes=1),
    "three shards": Story(shards=(3, 3), lapses=1),
    "three come": Story(shards=(2, 2, 2)),
}
DEEP = {
    "one is frozen twice": Story(lapses=2),
    "one is frozen, one leaves": Story(lapses=1, leaves=1),
    "one of three is frozen": Story(shards=(2, 2, 2), lapses=1),
    "one of three crashes": Story(shards=(2, 2, 2), crashes=1),
    "another layout, and they crash": Story(shards=(1, 2), lapses=1, crashes=2),
    "three shards, one crashes": Story(shards=(3, 3), lapses=1, crashes=1),
}
if os.environ.get("MUSTER_SEARCH") == "deep":
    STORIES |= DEEP


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_nothing_illegal_can_be_reached(story: Story, record_property: Callable[[str, int], None]) -> None:
    found = explore(story)
    print(found)
    for name, count in vars(found).items():
        record_property(name, count)
    assert found.settled and found.writes


def test_who_reads_the_leases_before_the_table_strikes_one_that_lives() -> None:
    with pytest.raises(AssertionError, match="they act at the same time"):
        explore(Story(lapses=1, leases_first=True))

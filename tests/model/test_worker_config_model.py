# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of a configuration in several ConfigMaps, and of those who write it.

What is decided is decided by the functions that ship: `worker_config.join`, `behind`, `split` and `writes`, and
`convergence.step`. A writer reads the head, then the other parts, decides, and writes one part after the other; each
write is refused where that part is not as it was read. In between anything may happen: others write, or it stops for
ever. Workers run, the moment it is written, what stands there, and say so: so nothing hides behind a slow worker.

A ConfigMap has room for two or three workers here, and jobs have long names, so that entries move.

Safety: no job stands in two lists; a version stands for one list, and never goes back; an entry vanishes only when it
was empty; nothing is written by anybody but who wrote the head last. Liveness, from each state that can be reached: all
stands where it should, no part is behind, and nobody writes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence, worker_config
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Policy, Sight
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    Config,
    Entry,
    Hold,
    Part,
)

ENOUGH = 1_000_000  # states; more is a model that grew by mistake
ROUNDS = 30  # after so many of everybody all has to be settled
LENGTH = 60  # of a job's name: it is a letter, so many times


class Stored(NamedTuple):
    """A part that can be compared: entries are (worker, jobs, version), holds (worker, leaving, awaits)."""

    entries: tuple[tuple[str, str, int], ...] = ()
    holds: tuple[tuple[str, tuple[tuple[str, int], ...], bool], ...] = ()
    turn: int = 0
    floor: int = -1
    inputs: str = ""


Parts = tuple[Stored, ...]


class Head(NamedTuple):
    """A writer that has read the head, or found that there is none."""

    wanted: int
    head: Stored | None
    is_fresh: bool = True


class Writes(NamedTuple):
    """What it has still to write: (number of the part, what, whether that part is still as it was read)."""

    which: tuple[tuple[int, Stored, bool], ...]


Stage = Head | Writes | None


class World(NamedTuple):
    """What people want: jobs, each a letter, and workers, each a digit."""

    jobs: str
    workers: str


class State(NamedTuple):
    """`last` wrote the head. `tops`: by worker, the newest entry that it ever had. `stops` may still be."""

    parts: Parts = ()
    writers: tuple[Stage, ...] = ()
    wanted: int = 0
    last: int = -1
    tops: tuple[tuple[str, str, int], ...] = ()
    stops: int = 0


@dataclass(frozen=True, eq=False)
class Story:
    """`room` is that of a ConfigMap, in bytes beyond what is reserved. The last ones break a rule each."""

    worlds: tuple[World, ...]
    room: int = 1_000
    writers: int = 2
    moves: bool = False  # whether entries move
    head_last: bool = False
    makes_full: bool = False  # a part that is not there yet is made with what is to stand in it
    leaves_nothing: bool = False  # an entry that moves leaves nothing in its old part

    def begin(self) -> State:
        return State((), (None,) * self.writers, stops=self.writers)


# ------------------------------------------------------------------------------------------ what ships


@cache
def thaw(part: Stored) -> Part:
    return Part(
        {f"w-{name}": Entry(tuple(job * LENGTH for job in jobs), version) for name, jobs, version in part.entries},
        {
            f"w-{name}": Hold({job * LENGTH: version for job, version in leaving}, awaits=awaits)
            for name, leaving, awaits in part.holds
        },
        part.turn,
        part.floor,
        {"inputs": part.inputs} if part.inputs else {},
    )


def freeze(part: Part) -> Stored:
    return Stored(
        tuple(
            (name[2:], "".join(job[0] for job in entry.jobs), entry.version)
            for name, entry in sorted(part.entries.items())
        ),
        tuple(
            (name[2:], tuple(sorted((job[0], version) for job, version in hold.leaving.items())), hold.awaits)
            for name, hold in sorted(part.holds.items())
        ),
        part.turn,
        part.floor,
        part.rebalance.get("inputs", ""),
    )


@cache
def joined(parts: Parts) -> Config:
    return worker_config.join(map(thaw, parts))


@cache
def decide(parts: Parts, versions: tuple[tuple[str, int], ...], world: World, story: Story) -> tuple[Any, bool]:
    """What is to be written, in this order, and whether all is where it should be. `versions` are what workers say."""
    before = [thaw(part) for part in parts] or [Part()]
    config = worker_config.join(before)
    members = [Worker(f"w-{name}") for name in world.workers]
    told = {f"w-{name}": version for name, version in versions}
    names = {member.name for member in members} | config.entries.keys() | config.holds.keys()
    sights = {name: Sight(f"u-{name}", True, told.get(name)) for name in names}
    step = convergence.step(config, [Job(job * LENGTH) for job in world.jobs], members, sights, Policy())
    after = worker_config.split(step.config, before)
    if list(after) == before and parts:
        return (), step.is_converged
    if story.leaves_nothing:
        newest = {name: entry.version for name, entry in step.config.entries.items()}
        after = tuple(
            replace(
                part, entries={name: entry for name, entry in part.entries.items() if entry.version == newest[name]}
            )
            for part in after
        )
    made = len(after) if story.makes_full and parts else len(parts)
    listed, _more = worker_config.writes(after, [*before, *[Part()] * (made - len(before))], made)
    if story.head_last:
        listed.reverse()
    return tuple((number, freeze(part)) for number, part in listed), False


# ------------------------------------------------------------------------------------------ what may happen


def moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    if state.wanted + 1 < len(story.worlds):
        yield f"{story.worlds[state.wanted + 1]} is wanted", state._replace(wanted=state.wanted + 1)
    for number, stage in enumerate(state.writers):
        if stage is None:
            head = state.parts[0] if state.parts else None
            yield f"{number} reads the head", at_stage(state, number, Head(state.wanted, head))
        elif isinstance(stage, Head):
            yield f"{number} reads the rest and decides", decided(story, state, number, stage)
        else:
            which, _part, is_fresh = stage.which[0]
            what = f"{number} writes part {which}"
            yield what, written(story, state, number) if is_fresh else at_stage(state, number, None)
            if state.stops:
                yield f"{number} stops", at_stage(state, number, None)._replace(stops=state.stops - 1)


def decided(story: Story, state: State, number: int, read: Head) -> State:
    parts = (read.head, *state.parts[1:]) if read.head else ()
    versions = tuple((name[2:], entry.version) for name, entry in sorted(joined(state.parts).entries.items()))
    which, _is_settled = decide(parts, versions, story.worlds[read.wanted], story)
    fresh = tuple((at, part, read.is_fresh if at == 0 else at >= len(parts) or True) for at, part in which)
    return at_stage(state, number, Writes(fresh) if fresh else None)


def written(story: Story, state: State, number: int) -> State:
    """Whoever has read that part before will be refused. One that is to be made must not be there."""
    stage = state.writers[number]
    assert isinstance(stage, Writes)
    at, part, _is_fresh = stage.which[0]
    if at > len(state.parts):
        return at_stage(state, number, None)  # it can't be: those before it have to be there
    parts = (*state.parts[:at], part, *state.parts[at + 1 :])
    left = stage.which[1:]

    def outdated(other: Stage) -> Stage:
        if isinstance(other, Head):
            return other._replace(is_fresh=other.is_fresh and at != 0)
        if isinstance(other, Writes):
            return Writes(tuple((which, what, is_fresh and which != at) for which, what, is_fresh in other.which))
        return None

    writers = tuple(
        (Writes(left) if left else None) if who == number else outdated(other)
        for who, other in enumerate(state.writers)
    )
    after = state._replace(parts=parts, writers=writers, last=number if at == 0 else state.last)
    tops = {name: (jobs, version) for name, jobs, version in state.tops}
    for name, entry in joined(parts).entries.items():
        known = tops.get(name[2:], ("", -1))
        if entry.version > known[1]:
            tops[name[2:]] = ("".join(job[0] for job in entry.jobs), entry.version)
    return after._replace(tops=tuple((name, *top) for name, top in sorted(tops.items())))


def at_stage(state: State, number: int, stage: Stage) -> State:
    return state._replace(writers=(*state.writers[:number], stage, *state.writers[number + 1 :]))


# ------------------------------------------------------------------------------------------ the search


def wrong_in(before: State, number: int | None, after: State) -> str:
    if after.parts == before.parts:
        return ""
    config, old = joined(after.parts), joined(before.parts)
    listed = [job for entry in config.entries.values() for job in entry.jobs]
    if len(listed) != len(set(listed)):
        return f"a job stands in two lists: {short(config)}"
    tops = {name: (jobs, version) for name, jobs, version in before.tops}
    for name, entry in config.entries.items():
        jobs, version = tops.get(name[2:], ("", -1))
        now = "".join(job[0] for job in entry.jobs)
        if entry.version < version or (entry.version == version and now != jobs):
            return f"{name} has {now} as version {entry.version}, and has had {jobs} as version {version}"
    for name in old.entries.keys() - config.entries.keys():
        if old.entries[name].jobs:
            return f"the entry of {name} is missing"
    if number is not None and number != after.last:
        for was, now in zip(before.parts, after.parts, strict=False):
            if was._replace(turn=0) != now._replace(turn=0):
                return "what was decided before somebody else decided is written"
    return ""


def short(config: Config) -> dict[str, str]:
    return {name: "".join(job[0] for job in entry.jobs) for name, entry in config.entries.items()}


def canonical(state: State) -> State:
    """The same state, with the smallest numbers for versions and turns that stand in the same order."""
    found = [*state.parts]
    for stage in state.writers:
        if isinstance(stage, Head) and stage.head:
            found.append(stage.head)
        elif isinstance(stage, Writes):
            found += [part for _at, part, is_fresh in stage.which if is_fresh]
    versions = {-1, *(version for _name, _jobs, version in state.tops)}
    for part in found:
        versions |= {part.floor, *(version for _name, _jobs, version in part.entries)}
        versions |= {version for _name, leaving, _awaits in part.holds for _job, version in leaving}
    rank = {version: place - 1 for place, version in enumerate(sorted(versions))}
    turn = {number: place for place, number in enumerate(sorted({part.turn for part in found}))}

    def of_part(part: Stored) -> Stored:
        return Stored(
            tuple((name, jobs, rank[version]) for name, jobs, version in part.entries),
            tuple(
                (name, tuple((job, rank[version]) for job, version in leaving), awaits)
                for name, leaving, awaits in part.holds
            ),
            turn[part.turn],
            rank[part.floor],
            part.inputs,
        )

    def of_stage(stage: Stage) -> Stage:
        if isinstance(stage, Head):
            return stage._replace(head=stage.head and of_part(stage.head))
        if isinstance(stage, Writes):  # of what will be refused only that counts
            return Writes(tuple((at, of_part(part) if fresh else Stored(), fresh) for at, part, fresh in stage.which))
        return None

    return state._replace(
        parts=tuple(map(of_part, state.parts)),
        writers=tuple(map(of_stage, state.writers)),
        tops=tuple((name, jobs, rank[version]) for name, jobs, version in state.tops),
    )


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    most_parts: int = 0
    moved: int = 0  # states in which an entry stands in two parts
    behind: int = 0  # in which a turn is not finished


def explore(story: Story) -> Found:
    """Breadth first, so that what is found first is a shortest way to it."""
    begin = story.begin()
    came_from: dict[State, tuple[State, str] | None] = {begin: None}
    waiting, found, good = deque([begin]), Found(), set[State]()
    while waiting:
        state = waiting.popleft()
        found.states += 1
        assert found.states < ENOUGH
        found.most_parts = max(found.most_parts, len(state.parts))
        listed = [name for part in state.parts for name, _jobs, _version in part.entries]
        found.moved += len(set(listed)) < len(listed)
        found.behind += bool(worker_config.behind(map(thaw, state.parts)))
        for what, then in moves(story, state):
            found.steps += 1
            wrong = wrong_in(state, int(what[0]) if what[0].isdigit() else None, then)
            assert not wrong, "\n".join([*trace(came_from, state), what, str(then.parts), wrong])
            after = canonical(then)
            if after not in came_from:
                came_from[after] = (state, what)
                waiting.append(after)
        assert ends_well(story, state, good), "\n".join([*trace(came_from, state), "and then it never settles"])
    return found


def ends_well(story: Story, state: State, good: set[State]) -> bool:
    way = []
    for _round in range(ROUNDS):
        if state in good or is_settled(story, state):
            good.update(way)
            return True
        way.append(state)
        state = canonical(went_on(story, state))
    return False


def is_settled(story: Story, state: State) -> bool:
    world = story.worlds[state.wanted]
    if not state.parts or any(state.writers):
        return False
    config = joined(state.parts)
    versions = tuple((name[2:], entry.version) for name, entry in sorted(config.entries.items()))
    which, is_done = decide(state.parts, versions, world, story)
    listed = sorted(job[0] for entry in config.entries.values() for job in entry.jobs)
    return not which and is_done and listed == sorted(world.jobs)


def went_on(story: Story, state: State) -> State:
    """All do what is due, one after the other; nobody stops."""
    state = state._replace(stops=0)
    for number in range(len(state.writers)):
        for step in range(12):
            stage = state.writers[number]
            if stage is None and step:
                break
            state = next(then for what, then in moves(story, state) if what.startswith(f"{number} "))
    return state


def trace(came_from: dict[State, tuple[State, str] | None], at: State) -> list[str]:
    told: list[str] = ["", str(at)]
    while (came := came_from[at]) is not None:
        before, what = came
        told.insert(0, what + (f"\n    {at.parts}" if at.parts != before.parts else ""))
        at = before
    return told


# ------------------------------------------------------------------------------------------ the stories


def wanting(*worlds: str) -> tuple[World, ...]:
    """`abc/01`: jobs a, b and c, and workers 0 and 1."""
    return tuple(World(jobs, workers) for jobs, _slash, workers in (one.partition("/") for one in worlds))


STORIES = {
    "a worker comes": Story(wanting("abcd/01", "abcd/012")),
    "a worker goes, and its record moves": Story(wanting("abcd/012", "abcd/01"), moves=True),
    "another comes in its place": Story(wanting("abcd/012", "abcd/013"), room=1_100),
    "three parts": Story(wanting("abcd/012", "abcd/01"), room=900, writers=1),
    "jobs come, and a worker goes": Story(wanting("abcd/0123", "abcdefgh/012"), room=1_050, writers=1, moves=True),
    "jobs come, and one of three goes": Story(wanting("abcd/012", "abcdefgh/01"), room=1_100, moves=True),
    "a worker goes and comes back": Story(wanting("abc/012", "abc/02", "abc/012"), room=1_100),
}
DEEP = {
    "three parts, two writers": Story(wanting("abcd/012", "abcd/01"), room=900),
    "three writers": Story(wanting("abcd/01", "abcd/012"), writers=3),
    "jobs come, a worker goes, two writers": Story(wanting("abcd/0123", "abcdefgh/012"), room=1_050, moves=True),
    "jobs come and go": Story(wanting("abcd/012", "abcdefgh/01", "ab/012"), room=1_100, moves=True),
    "workers come and go": Story(wanting("abcd/01", "abcd/013", "abcd/23"), room=1_100),
}
if os.environ.get("MUSTER_SEARCH") == "deep":
    STORIES |= DEEP


@pytest.fixture
def reserved() -> int:
    return worker_config._size_of_extra(Part())


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_nothing_illegal_can_be_reached(
    story: Story, reserved: int, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, int], None]
) -> None:
    monkeypatch.setattr(worker_config, "PART_BYTES", reserved + story.room)
    found = explore(story)
    print(found)
    for name, count in vars(found).items():
        record_property(name, count)
    assert found.most_parts > 1 and found.behind
    assert bool(found.moved) == story.moves


BROKEN = {
    "a part that is made with what is to stand in it may be made too late": (
        Story(wanting("abcd/012", "abcd/01"), room=1_100, makes_full=True),
        "",
        "stands in two lists|as version|decided before somebody else",
    ),
    "an entry that moves is missing until its new part is written": (
        Story(wanting("abcd/0123", "abcdefgh/012"), room=1_050, leaves_nothing=True, writers=1),
        "",
        "is missing",
    ),
    "a worker that is removed while its old entry stands elsewhere has that again": (
        Story(wanting("abcd/0123", "abcdefgh/012"), room=1_050, writers=1, moves=True),
        "_with_moved",
        "stands in two lists|as version",
    ),
    "who closes nothing lets a late write come in between": (
        Story(wanting("abcd/01", "abcd/012")),
        "behind",
        "decided before somebody else|stands in two lists",
    ),
    "who writes the head last may be refused when half is written": (
        Story(wanting("abcd/012", "abcd/01"), head_last=True),
        "",
        "stands in two lists|as version|decided before somebody else|is missing",
    ),
}


@pytest.mark.parametrize(("story", "rule", "wrong"), BROKEN.values(), ids=BROKEN.keys())
def test_without_a_rule_it_is_not_so(
    story: Story, rule: str, wrong: str, reserved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_config, "PART_BYTES", reserved + story.room)
    without = {"_with_moved": lambda wanted, *_where: wanted, "behind": lambda _parts: []}
    if rule:
        monkeypatch.setattr(worker_config, rule, without[rule])
    with pytest.raises(AssertionError, match=wrong):
        explore(story)

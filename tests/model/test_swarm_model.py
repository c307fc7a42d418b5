# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of a small Swarm; not a sample, and without a bound on its length: all of them.

`support/swarm_world.py` says what a world is, and what may happen there. People want one thing after the other (jobs,
replicas), each at any moment; how often else something goes wrong is said by the story.

Safety, at each step: no job is run for two workers, and none stands in two lists; a version grows when, and only when,
its list changes, and is never given twice; that a worker may still run a job is forgotten only when it does not; nobody
is evicted twice for one version. Liveness, from each state that can be reached: when nothing disturbs any more, each
job is run by the one worker in whose list it is, the lists are even, and nobody writes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import EVICT, FAST, Policy
from ansible_collections.muster.coordination.tests.support import swarm_world as world
from ansible_collections.muster.coordination.tests.support.swarm_world import SILENT, State, Story, World

ENOUGH = 1_000_000  # states; more is a model that grew by mistake
ROUNDS = 30  # after so many of everybody all has to be settled


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    writes: int = 0
    evictions: int = 0
    settled: int = 0


def settled(story: Story) -> State:
    """The first world, with all that is wanted there in place."""
    state = story.begin()
    for _round in range(ROUNDS):
        state = world.canonical(story, world.went_on(story, state))
    assert world.is_settled(story, state), state
    return world.canonical(story, world.undisturbed(story, state))


def explore(story: Story, begin: State | None = None) -> Found:
    """Breadth first, so that what is found first is a shortest way to it."""
    begin = begin or settled(story)
    came_from: dict[State, tuple[State, str] | None] = {begin: None}
    waiting, found, good = deque([begin]), Found(), set[State]()
    while waiting:
        state = waiting.popleft()
        found.states += 1
        assert found.states < ENOUGH
        if world.is_settled(story, state):
            found.settled += 1
            wrong = world.wrong_in_counts(story, begin, state)
            assert not wrong, "\n".join([*trace(came_from, state), wrong])
        for what, then in world.moves(story, state):
            found.steps += 1
            wrong = world.wrong_in(story, state, then)
            assert not wrong, "\n".join([*trace(came_from, state), what, wrong])
            after = world.canonical(story, then)
            if after not in came_from:
                came_from[after] = (state, what)
                waiting.append(after)
                found.writes += "writes" in what
                found.evictions += "evicts" in what
        assert ends_well(story, state, good), "\n".join([*trace(came_from, state), "and then it never settles"])
    return found


def ends_well(story: Story, state: State, good: set[State]) -> bool:
    """Whether all is settled, and nobody writes any more, after all have gone on, in turn, for a while."""
    way = []
    for _round in range(ROUNDS):
        if state in good or world.is_settled(story, state):
            good.update(way)
            return True
        way.append(state)
        state = world.canonical(story, world.went_on(story, state))
    return False


def trace(came_from: dict[State, tuple[State, str] | None], at: State) -> list[str]:
    told: list[str] = ["", str(at)]
    while (came := came_from[at]) is not None:
        at, what = came
        told.insert(0, what)
    return told


# ------------------------------------------------------------------------------------------ the stories


def wanting(*worlds: str) -> tuple[World, ...]:
    """`abc/2`: jobs a, b and c, and two replicas."""
    return tuple(World(jobs, int(replicas)) for jobs, _slash, replicas in (one.partition("/") for one in worlds))


COMES, GOES = wanting("ab/1", "ab/2"), wanting("ab/2", "ab/1")
COMES_AND_GOES = wanting("abc/2", "abc/3", "abc/2")
JOBS = wanting("abc/2", "bcd/2", "ab/2")
ROLLED = wanting("abcd/2")

STORIES = {
    "a worker comes and goes": Story("rrr", COMES_AND_GOES, operators=2),
    "one of those that know nothing of us": Story("sss", COMES_AND_GOES, operators=2),
    "one of those that read again and tell nothing": Story("hh", COMES, operators=2),
    "jobs come and go": Story("rs", JOBS, operators=2),
    "jobs and workers come and go": Story("rsr", wanting("abcd/2", "abcd/3", "bcde/2")),
    "all begins": Story("rs", wanting("/1", "ab/1", "ab/2"), restarts=1),
    "Pods are restarted": Story("ss", COMES, operators=2, restarts=1),
    "containers crash": Story("ss", COMES, operators=2, crashes=1),
    "reporters are restarted and crash": Story("rr", COMES, operators=2, restarts=1, crashes=1),
    "a Pod vanishes, and its process does not": Story("ss", COMES, operators=2, forces=1),
    "a reporter's Pod vanishes": Story("rr", wanting("ab/1", "ab/2", "ab/1"), forces=1, restarts=1),
    "some do not confirm in time": Story("rr", COMES, overdue=2, restarts=1),
    "reporters are evicted": Story("rr", COMES, Policy(refresh=EVICT), operators=2),
    "Pods are asked long after they were seen": Story("rr", COMES, operators=2, is_split=True),
    "two are evicted at a time": Story("sss", wanting("abcdef/2", "abcdef/3"), Policy(max_unavailable=2), restarts=1),
    "overlap is allowed": Story("rs", wanting("ab/1", "ab/2", "ab/1"), Policy(handover=FAST), operators=2),
    "a Deployment is rolled out": Story("rrrr", ROLLED, is_deployment=True, operators=2, rollouts=2),
    "a Deployment that tells nothing is rolled out": Story("hhhh", ROLLED, is_deployment=True, rollouts=1, restarts=1),
    "it is scaled": Story("hhhhhh", COMES_AND_GOES, is_deployment=True),
    "its places are not kept": Story(
        "rrrr", ROLLED, is_deployment=True, operators=2, restarts=1, is_expired=True, is_patient=False
    ),
    "operators see for themselves who vanished": Story("rr", COMES, operators=2, starts=0, forces=1),
    "and forget it, with a Deployment": Story("rrrr", ROLLED, is_deployment=True, operators=2, starts=1, forces=1),
    "the configuration is deleted": Story("rs", COMES, operators=2, deletions=1),
}
DEEP = {
    "one of those that read again and tell nothing, and goes": Story("hhh", COMES_AND_GOES, operators=2, restarts=1),
    "jobs come and go, and Pods are restarted": Story("sr", JOBS, operators=2, restarts=1),
    "jobs and workers come and go, Pods are restarted": Story("rsr", wanting("abcd/2", "abcd/3", "bcde/2"), restarts=1),
    "reporters are evicted, and restarted": Story("rr", COMES, Policy(refresh=EVICT), operators=2, restarts=1),
    "four workers": Story("rsrs", wanting("abcdef/2", "abcdef/4", "abcdef/3"), operators=1, restarts=1),
    "Pods are restarted twice": Story("ss", COMES, operators=2, restarts=2),
    "containers crash twice": Story("ss", COMES, operators=2, crashes=2),
    "a Pod vanishes, others are restarted": Story("ss", COMES, operators=2, forces=1, restarts=1),
    "reporters vanish, crash and are restarted": Story("rr", COMES, operators=2, forces=1, restarts=1, crashes=1),
    "two Pods vanish": Story("rs", wanting("ab/2", "ab/1", "ab/2"), forces=2),
    "some do not confirm in time, with two operators": Story("rr", COMES, operators=2, overdue=2, restarts=1),
    "those that are silent are seen long after": Story("ss", COMES, operators=2, is_split=True, restarts=1),
    "three operators": Story("rs", COMES, operators=3),
    "a Deployment is rolled out, and Pods deleted": Story(
        "rrrrr", ROLLED, is_deployment=True, operators=2, rollouts=2, restarts=1
    ),
    "a Deployment that tells nothing, with two operators": Story(
        "hhhhhh", COMES_AND_GOES, is_deployment=True, operators=2
    ),
    "a Deployment vanishes while it is scaled": Story(
        "hhhhhh", wanting("abc/2", "abc/3"), is_deployment=True, starts=1, forces=1
    ),
    "silent ones vanish, and operators see it for themselves": Story("ss", COMES, operators=2, starts=0, forces=1),
    "the configuration is deleted, and Pods are restarted": Story("ss", COMES, operators=1, deletions=1, restarts=2),
    "it is deleted twice": Story("rr", COMES, operators=2, deletions=2),
    "it is deleted, and a Pod vanishes": Story("rs", wanting("ab/2"), operators=2, deletions=1, forces=1),
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
    assert found.evictions or SILENT not in story.workers


@pytest.mark.parametrize(
    "worlds",
    [wanting("abc/2", "abc/3"), wanting("abc/3", "abc/2"), wanting("abc/3", "abcd/3"), wanting("abcd/3", "abc/3"),
     wanting("abcd/2", "abcd/4"), wanting("abcdef/4", "abcdef/2")],
    ids=["one comes", "one goes", "a job comes", "a job goes", "two come", "two go"],
)  # fmt: skip
@pytest.mark.parametrize("workers", ["rrrr", "ssss", "rsrs", "srsr"])
def test_undisturbed_those_are_restarted_whose_list_changed_and_each_once(
    workers: str, worlds: tuple[World, ...]
) -> None:
    found = explore(Story(workers, worlds, is_counting=True))
    assert found.settled > 1
    assert found.evictions or workers != "ssss"


# ------------------------------------------------------------------------------------------ what each rule is for

FORGOTTEN = "it is forgotten that . may still run|it is forgotten that w-. may still run"
BROKEN = {
    "who reads Pods before the configuration believes one that is gone": (
        Story("rr", COMES, operators=2, restarts=1, pods_first=True),
        FORGOTTEN,
    ),
    "and writes down the wrong Pod as the barrier": (
        Story("ss", COMES, operators=2, restarts=1, pods_first=True),
        "never settles",
    ),
    "a job that is assigned where it is revoked is run twice": (
        Story("rr", COMES, Policy(handover=FAST), at_once=True),
        "b is run for two workers",
    ),
    "who evicts before it has written down whom evicts twice": (
        Story("ss", COMES, operators=2, evicts_early=True),
        "is evicted twice for version",
    ),
    "a worker that says a version before the rest has ended runs what another has": (
        Story("rr", COMES, hasty_worker=True),
        FORGOTTEN,
    ),
    "a Pod that is ending runs on": (Story("rr", GOES, early_end=True), FORGOTTEN),
    "a process may outlive its Pod": (Story("rr", COMES, forces=1, blind_to_lingering=True), FORGOTTEN),
    "what an old version confirms must not be asked for again": (
        Story("rr", wanting("ab/2", "ab/1", "ab/2"), no_floor=True),
        "the version of w-1 is forgotten",
    ),
    "who writes what it has decided on something else takes back what others did": (
        Story("rr", COMES, operators=2, blind_write=True),
        "is forgotten",
    ),
    # a known limit: docs/proof/swarm.md
    "who has just started does not see that a Pod is the second of its name": (
        Story("rr", COMES, starts=1, forces=1),
        FORGOTTEN,
    ),
}


@pytest.mark.parametrize(("story", "wrong"), BROKEN.values(), ids=BROKEN.keys())
def test_without_a_rule_it_is_not_so(story: Story, wrong: str) -> None:
    with pytest.raises(AssertionError, match=wrong):
        explore(story)

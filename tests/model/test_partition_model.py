# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of operations on partitions in small worlds, not a sample (tests/support/partition_world.py).

In each state the properties hold that can be seen in a state; and from each what is durable comes to rest rightly once
nothing goes wrong any more. With MUSTER_SEARCH=deep more may go wrong in one history.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, result_name
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import MERGE, MOVE, NEW, SPLIT
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FOLLOWING,
    PRIMARY,
    Copy,
)
from ansible_collections.muster.coordination.tests.support import partition_world as world
from ansible_collections.muster.coordination.tests.support.partition_world import (
    State,
    Story,
    Worker,
    assignment,
    partition,
)

DEEP = os.environ.get("MUSTER_SEARCH") == "deep"
ENOUGH = 1_000_000 if DEEP else 7_000  # states of one story
WHOLE, LOW, HIGH = Range("", ""), Range("", "b"), Range("b", "")
MOVED = {"partition": "p", "from": "w1", "to": "w2"}


@dataclass
class Result:
    states: int = 0
    steps: int = 0
    rests: int = 0  # of these: different durable states, from each of which a fair run was made
    is_whole: bool = False  # everything was seen, and not only the shorter histories
    trace: tuple[str, ...] = ()  # a shortest way to what is wrong


def explore(story: Story, most: int = ENOUGH) -> Result:
    """Breadth first, until something is wrong, or everything was seen, or so many states; the shortest histories come
    first. From each durable state a fair run is made."""
    first = world.begin(story)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    waiting, result, rests = deque([first]), Result(), set()
    while waiting and result.states < most:
        state = waiting.popleft()
        result.states += 1
        wrong = world.wrong(state)
        durable = (state.partitions, state.assignments, state.sent, tuple(each[:3] for each in state.workers))
        if not wrong and durable not in rests:
            rests.add(durable)
            result.rests += 1
            wrong = world.settled(story, state)[1]
        if wrong:
            result.trace = (*told(came_from, state), wrong)
            return result
        for what, after in world.moves(story, state):
            result.steps += 1
            if after not in came_from:
                came_from[after] = (state, what)
                waiting.append(after)
    result.is_whole = not waiting
    return result


def told(came_from: dict[State, tuple[State, str] | None], at: State) -> list[str]:
    lines: list[str] = []
    while (came := came_from[at]) is not None:
        at, what = came
        lines.insert(0, what)
    return lines


# ------------------------------------------------------------------------------------------ the beginnings


def serves(worker: str, *parts: tuple[str, Range], epoch: int = 1, **said: object) -> Worker:
    copies = tuple(Copy(name, of, PRIMARY, epoch, **said) for name, of in parts)  # type: ignore[arg-type]
    return Worker(worker, copies, serves=tuple((name, epoch) for name, _of in parts))


ONE = (partition("p", "", "", primary="w1", epoch=1),)
TWO = (partition("p", "", "b", primary="w1", epoch=1), partition("q", "b", "", primary="w1", epoch=1))
BOTH = serves("w1", ("p", WHOLE)), Worker("w2")
SIDE_BY_SIDE = (serves("w1", ("p", LOW), ("q", HIGH)),)

MOVE_P = assignment("a", MOVE, **MOVED)
SPLIT_P = assignment("a", SPLIT, partition="p", splitKey="b")
MERGE_PQ = assignment("a", MERGE, partitions=["p", "q"])
NEW_P = assignment("a", NEW, partition="p", primary="w1")

new = Story((partition("p", "", ""),), (NEW_P,), (Worker("w1"), Worker("w2")))
split = Story(ONE, (SPLIT_P,), BOTH[:1])
merge = Story(TWO, (MERGE_PQ,), SIDE_BY_SIDE)
move = Story(ONE, (MOVE_P,), BOTH)

FRESH = partition("p", "", ""), partition("q", "b", "")
overlapping = Story(
    FRESH, (NEW_P, assignment("b", NEW, partition="q", primary="w2")), (Worker("w1"), Worker("w2")), writes=0
)
RACE = assignment("b", SPLIT, partition="p", splitKey="b")
race = Story(ONE, (MOVE_P, RACE), BOTH)

# a follower is called up; the old primary may have its Lease again at any time
FOLLOWED = (partition("p", "", "", primary="w1", epoch=2, followers=["w2"]),)
FOLLOWER = Worker("w2", (Copy("p", WHOLE, FOLLOWING, 1, origin="w1"),))
failover = Story(FOLLOWED, (MOVE_P,), (serves("w1", ("p", WHOLE), epoch=2, followers=("w2",)), FOLLOWER), losses=1)

RELOAD = assignment("a", NEW, partition="p", primary="w2")
reload = Story(ONE, (RELOAD,), BOTH, losses=1, writes=0, reload=True)

CHILD = result_name("p", "uid-a", 0)
again = Story(ONE, (SPLIT_P,), BOTH[:1], later=(assignment("b", SPLIT, partition=CHILD, splitKey="a"),))
CHILD_MOVES = assignment("b", MOVE, partition=CHILD, **{"from": "w1", "to": "w2"})
child_moves = Story(ONE, (SPLIT_P,), BOTH, later=(CHILD_MOVES,))
there_and_back = Story(
    ONE, (MOVE_P,), BOTH, later=(assignment("b", MOVE, partition="p", **{"from": "w2", "to": "w1"}),)
)
once_more = Story(ONE, (MOVE_P,), BOTH, later=(assignment("b", MOVE, **MOVED),), deletions=1)
new_again = Story(
    (partition("p", "", ""),),
    (NEW_P,),
    (Worker("w1"), Worker("w2")),
    later=(assignment("b", NEW, partition="p", primary="w1"),),
    deletions=1,
)
managed = Story(
    (partition("p", "", "", primary="w1", epoch=1),), (), BOTH, later=(MOVE_P,), losses=1, managed=3, writes=2
)
batch = Story(
    (partition("p", "", "b"), partition("q", "b", "")),
    (assignment("a", NEW, partitions=[{"partition": "p", "primary": "w1"}, {"partition": "q", "primary": "w2"}]),),
    (Worker("w1"), Worker("w2")),
    later=(assignment("b", MOVE, partition="p", **{"from": "w1", "to": "w2"}),),
)
ROLES = [{"partition": "p", "primary": "w1"}, {"partition": "q", "primary": "w2"}]
batches = Story(
    FRESH,
    (assignment("a", NEW, partitions=ROLES), assignment("b", NEW, partitions=ROLES)),
    (Worker("w1"), Worker("w2")),
)
reborn = Story(ONE, (MOVE_P,), BOTH, later=(assignment("a", MOVE, uid="other", **MOVED),), deletions=1)

quick = {"stale": False, "reads": False}  # two that act on old reads are in the others
one = {"reconcilers": 1, "reads": False}  # what it reads is old when it acts on it, and so is what a worker reads

# small enough to be seen whole, also in short
WHOLE_STORIES = {
    "new, one reconciler": replace(new, reconcilers=1),
    "new, its worker is lost, late calls": replace(new, late=1, losses=1, **one),
    "split, one reconciler": replace(split, reconcilers=1),
    "split, late calls, deleted": replace(split, late=1, deletions=1, reconcilers=1, **quick),
    "merge, one reconciler": replace(merge, **one),
    "move, one reconciler": replace(move, **one),
    "reload": replace(reload, times=False, **one),
    "a batch, and one of it is moved": replace(batch, writes=0, reconcilers=1, **quick),
}
STORIES = {
    "new, two, late calls, deleted": replace(new, late=1, deletions=1, **quick),
    "split, two": replace(split, **quick),
    "split, its worker is lost": replace(split, losses=1, **one),
    "merge, late calls": replace(merge, late=1, **one),
    "move, two": replace(move, **quick),
    "move, a worker is lost": replace(move, losses=1, **one),
    "move, late calls, deleted": replace(move, late=1, deletions=1, reconcilers=1, **quick),
    "move, calls come twice, two workers are lost": replace(move, twice=1, losses=2, **quick),
    "two new ones overlap": replace(overlapping, times=False, **quick),
    "two batches of the same partitions": replace(batches, times=False, writes=0, **quick),
    "a move and a split of one partition": replace(race, times=False, **quick),
    "a follower is called up": replace(failover, **one),
    "a follower is called up, two": replace(failover, late=1, times=False, **quick),
    "moved, deleted, and moved again": replace(once_more, late=1, times=False, reconcilers=1, **quick),
    "there and back": replace(there_and_back, late=1, unreachable=True, reconcilers=1, **quick),
    "new, deleted, and new again": replace(new_again, late=1, times=False, reconcilers=1, **quick),
    "a child is split": replace(again, late=1, times=False, writes=0, reconcilers=1, **quick),
    "a child is moved": replace(child_moves, late=1, times=False, reconcilers=1, **quick),
    "followers are kept": replace(managed, times=False, reconcilers=1, **quick),
}


def check(story: Story, record_property: Callable[[str, object], None], most: int) -> Result:
    result = explore(story, most)
    print(replace(result, trace=()))
    for name in ("states", "steps", "rests", "is_whole"):
        record_property(name, getattr(result, name))
    assert not result.trace, "\n".join(result.trace)
    return result


@pytest.mark.parametrize("story", WHOLE_STORIES.values(), ids=WHOLE_STORIES.keys())
def test_nothing_wrong_can_be_reached(story: Story, record_property: Callable[[str, object], None]) -> None:
    assert check(story, record_property, 1_000_000).is_whole


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES.keys())
def test_nothing_wrong_is_near(story: Story, record_property: Callable[[str, object], None]) -> None:
    result = check(story, record_property, ENOUGH)
    assert result.is_whole or result.states == ENOUGH

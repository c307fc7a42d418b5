# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every history of operations on partitions in small worlds: not a sample, all of them (tests/support/partition_world.py).

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

ENOUGH = 5_000_000  # states; more is a model that grew by mistake
WHOLE, LOW, HIGH = Range("", ""), Range("", "b"), Range("b", "")
MOVED = {"partition": "p", "from": "w1", "to": "w2"}


@dataclass
class Result:
    states: int = 0
    steps: int = 0
    rests: int = 0  # of these: different durable states, from each of which a fair run was made
    trace: tuple[str, ...] = ()  # a shortest way to what is wrong


def explore(story: Story, *, every: int = 1, most: int = ENOUGH, to_rest: bool = True) -> Result:
    """Breadth first, until something is wrong or everything was seen. A fair run from each `every`th durable state."""
    first = world.begin(story)
    came_from: dict[State, tuple[State, str] | None] = {first: None}
    waiting, result, rests = deque([first]), Result(), set()
    while waiting:
        state = waiting.popleft()
        result.states += 1
        assert result.states < most, "more states than there may be"
        wrong = world.wrong(state)
        durable = (state.partitions, state.assignments, state.sent, tuple(each[:3] for each in state.workers))
        if to_rest and not wrong and durable not in rests:
            rests.add(durable)
            if len(rests) % every == 0:
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
there_and_back = Story(ONE, (MOVE_P,), BOTH, later=(assignment("b", MOVE, partition="p", **{"from": "w2", "to": "w1"}),))
once_more = Story(ONE, (MOVE_P,), BOTH, later=(assignment("b", MOVE, **MOVED),), deletions=1)
new_again = Story(
    (partition("p", "", ""),), (NEW_P,), (Worker("w1"), Worker("w2")), later=(assignment("b", NEW, partition="p", primary="w1"),), deletions=1
)
managed = Story((partition("p", "", "", primary="w1", epoch=1),), (), BOTH, later=(MOVE_P,), losses=1, managed=3, writes=2)
batch = Story(
    (partition("p", "", "b"), partition("q", "b", "")),
    (assignment("a", NEW, partitions=[{"partition": "p", "primary": "w1"}, {"partition": "q", "primary": "w2"}]),),
    (Worker("w1"), Worker("w2")),
    later=(assignment("b", MOVE, partition="p", **{"from": "w1", "to": "w2"}),),
)
reborn = Story(ONE, (MOVE_P,), BOTH, later=(assignment("a", MOVE, uid="other", **MOVED),), deletions=1)

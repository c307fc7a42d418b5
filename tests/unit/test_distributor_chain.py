# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several semaphores for one claimant: the rule alone, and every interleaving of a few claimants that follow it.

The search runs the real `plan` in a small world of semaphores with queues, where claimants crash and lose what they
hold at any moment. Wherever that leads to, everybody must still be able to come to hold all that it asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import chain
from ansible_collections.muster.coordination.plugins.module_utils.decisions.chain import Plan, Stand
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

U, N, W, H = Stand.UNKNOWN, Stand.NOTHING, Stand.WAITING, Stand.HELD


@pytest.mark.parametrize(
    ("stands", "wanted", "expected"),
    [
        ([U], True, Plan(1, ())),
        ([H], True, Plan(1, ())),
        ([H], False, Plan(0, (0,))),
        ([U, U, U], True, Plan(1, ())),  # not a thing is given back before it is known what is there
        ([H, U, U], True, Plan(2, ())),
        ([H, W, N], True, Plan(2, ())),
        ([H, W, U], True, Plan(2, (2,))),  # an earlier run may hold the last
        ([H, H, H], True, Plan(3, ())),
        ([W, H, H], True, Plan(1, (2, 1))),  # the first was lost
        ([H, W, H], True, Plan(2, (2,))),
        ([W, W, N], True, Plan(1, (1,))),
        ([H, H, W], False, Plan(0, (2, 1, 0))),
        ([U, N, U], False, Plan(0, (2, 0))),
        ([N, N, N], False, Plan(0, ())),
        ([N, N, N], True, Plan(1, ())),
    ],
)
def test_the_rule(stands: list[Stand], wanted: bool, expected: Plan) -> None:
    assert chain.plan(stands, wanted=wanted) == expected


def test_the_order_is_that_of_the_names() -> None:
    assert chain.in_order(["b", "a", "c-1", "c"]) == ["a", "b", "c", "c-1"]


def test_a_semaphore_is_named_once_and_at_least_one_is() -> None:
    with pytest.raises(Malformed, match=r"'db'.*once"):
        chain.in_order(["db", "a", "db"])
    with pytest.raises(Malformed, match="at least one"):
        chain.in_order([])


# ------------------------------------------------------------------------------------------ every interleaving


class Sidecar(NamedTuple):
    """One claimant: how it believes to stand at each of its semaphores, and whether it still wants them."""

    stands: tuple[Stand, ...]
    wanted: bool = True


class World(NamedTuple):
    """Each semaphore has one permit: the queue's first holds it, the others wait. And what may still go wrong."""

    queues: tuple[tuple[int, ...], ...]
    sidecars: tuple[Sidecar, ...]
    mishaps: int


Rule = Callable[..., Plan]


def put(values: tuple, index: int, value: object) -> tuple:
    return (*values[:index], value, *values[index + 1 :])


class Search:
    """All worlds that `rule` leads to for claimants with these semaphores, each in the order in which it takes them."""

    def __init__(self, rule: Rule, wishes: Sequence[Sequence[int]], mishaps: int) -> None:
        self.rule, self.wishes = rule, wishes
        count = 1 + max(semaphore for wish in wishes for semaphore in wish)
        start = World(((),) * count, tuple(Sidecar((U,) * len(wish)) for wish in wishes), mishaps)
        self.after: dict[World, list[World]] = {}
        open_ = [start]
        while open_:
            world = open_.pop()
            if world in self.after:
                continue
            own = list(self.own_steps(world))
            self.after[world] = own
            open_ += [*own, *self.mishaps_in(world)]

    def stuck(self) -> list[World]:
        """Worlds from which the claimants' own steps lead nowhere where all had what they wanted and are gone."""
        before: dict[World, list[World]] = {}
        for world, following in self.after.items():
            for one in following:
                before.setdefault(one, []).append(world)
        fine = {world for world in self.after if all(not sidecar.wanted for sidecar in world.sidecars)}
        fine = {world for world in fine if not any(world.queues)}
        open_ = list(fine)
        while open_:
            for world in before.get(open_.pop(), ()):
                if world not in fine:
                    fine.add(world)
                    open_.append(world)
        return [world for world in self.after if world not in fine]

    def own_steps(self, world: World) -> Iterator[World]:
        for who, sidecar in enumerate(world.sidecars):
            plan = self.rule(sidecar.stands, wanted=sidecar.wanted)
            for index in range(plan.attend):
                semaphore = self.wishes[who][index]
                queue = world.queues[semaphore]
                if who not in queue:
                    queue = (*queue, who)
                stand = H if queue[0] == who else W
                if stand is not sidecar.stands[index] or queue != world.queues[semaphore]:
                    yield self._with(world, who, index, stand, queue)
            if plan.give_back:
                index = plan.give_back[0]
                queue = tuple(other for other in world.queues[self.wishes[who][index]] if other != who)
                yield self._with(world, who, index, N, queue)
            if sidecar.wanted and all(stand is H for stand in sidecar.stands):
                yield world._replace(sidecars=put(world.sidecars, who, sidecar._replace(wanted=False)))

    def mishaps_in(self, world: World) -> Iterator[World]:
        """A claimant is started again and knows nothing; or what it has somewhere is taken from it."""
        if not world.mishaps:
            return
        world = world._replace(mishaps=world.mishaps - 1)
        for who, wish in enumerate(self.wishes):
            yield world._replace(sidecars=put(world.sidecars, who, Sidecar((U,) * len(wish))))
            for semaphore in wish:
                queue = tuple(other for other in world.queues[semaphore] if other != who)
                if queue != world.queues[semaphore]:
                    yield world._replace(queues=put(world.queues, semaphore, queue))

    def _with(self, world: World, who: int, index: int, stand: Stand, queue: tuple[int, ...]) -> World:
        sidecar = world.sidecars[who]
        mine = sidecar._replace(stands=put(sidecar.stands, index, stand))
        queues = put(world.queues, self.wishes[who][index], queue)
        return World(queues, put(world.sidecars, who, mine), world.mishaps)


OVERLAPPING = [
    pytest.param([(0, 1), (0, 1)], 3, id="two share two"),
    pytest.param([(0, 1), (1, 2), (0, 2)], 1, id="a ring of three"),
    pytest.param([(0, 1, 2), (0, 2), (1, 2)], 1, id="one wants all"),
]


@pytest.mark.parametrize(("wishes", "mishaps"), OVERLAPPING)
def test_claimants_that_keep_the_order_never_deadlock(wishes, mishaps) -> None:
    search = Search(chain.plan, wishes, mishaps)
    assert len(search.after) > 100
    assert search.stuck() == []


@pytest.mark.parametrize("wishes", [[(0, 1), (1, 0)], [(0, 1), (1, 2), (2, 0)]], ids=["two", "a ring of three"])
def test_without_the_order_they_do(wishes) -> None:
    assert Search(chain.plan, wishes, 0).stuck()


def keeps_what_is_behind(stands: Sequence[Stand], *, wanted: bool = True) -> Plan:
    """A planted bug: who loses one waits for it with the others in hand."""
    plan = chain.plan(stands, wanted=wanted)
    return plan if not wanted else plan._replace(give_back=())


def asks_for_all_at_once(stands: Sequence[Stand], *, wanted: bool = True) -> Plan:
    """A planted bug."""
    return Plan(len(stands), ()) if wanted else chain.plan(stands, wanted=False)


def forgets_what_an_earlier_run_held(stands: Sequence[Stand], *, wanted: bool = True) -> Plan:
    """A planted bug: what is not known is taken for nothing."""
    plan = chain.plan(stands, wanted=wanted)
    return plan._replace(give_back=tuple(index for index in plan.give_back if stands[index] is not U))


@pytest.mark.parametrize(
    ("bug", "wishes", "mishaps"),
    [
        (asks_for_all_at_once, [(0, 1), (0, 1)], 0),
        (keeps_what_is_behind, [(0, 1), (0, 1)], 2),
        (forgets_what_an_earlier_run_held, [(0, 1), (0, 1)], 2),
    ],
)
def test_planted_bugs_are_found(bug: Rule, wishes, mishaps) -> None:
    assert Search(bug, wishes, mishaps).stuck()

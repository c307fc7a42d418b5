# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the assigner asks for: by examples, and for any world that it may find."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions import assigner
from ansible_collections.muster.coordination.plugins.module_utils.decisions.assigner import (
    Ask,
    Dismiss,
    Drop,
    Enlist,
    Follow,
    Part,
    Patience,
    Plan,
    Worker,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import MAX_BATCH, MOVE, NEW
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FOLLOWING,
    LOADING,
    PRIMARY,
    PROXY,
    Copy,
)

SPACE = Space("default", 4, lost_after_seconds=60.0)
A, B, C = Worker("a"), Worker("b"), Worker("c")


def planned(parts: Iterable[Part], *workers: Worker, space: Space = SPACE, budget: int = 4, **further: Any) -> Plan:
    return assigner.plan(space, parts, workers, budget=budget, **further)


def served(worker: str, *names: str, epoch: int = 1) -> list[Part]:
    return [Part(name, worker, epoch) for name in names]


def test_what_nobody_has_goes_evenly_to_the_workers_in_one_batch() -> None:
    plan = planned([Part(f"p{number}") for number in range(4)], A, B)
    (ask,) = plan.asks
    assert ask.kind == NEW
    assert Counter(worker for _name, worker in ask.pairs) == {"a": 2, "b": 2}
    assert plan.targets == {"a": 2, "b": 2}


def test_batches_are_bounded_and_so_is_how_many_are_open() -> None:
    parts = [Part(f"p{number:04}") for number in range(3 * MAX_BATCH + 1)]
    plan = planned(parts, A, B, budget=2)
    assert [len(ask.pairs) for ask in plan.asks] == [MAX_BATCH, MAX_BATCH]
    assert "as many operations" in plan.why[parts[-1].name]


def test_nothing_is_asked_for_what_is_even_or_nearly_so() -> None:
    assert planned([*served("a", "p", "q"), *served("b", "r")], A, B).asks == []


def test_who_has_two_more_gives_one() -> None:
    plan = planned(served("a", "p", "q", "r"), A, B)
    assert plan.asks == [Ask(MOVE, (("r", "b"),), "a")]


def test_what_is_on_its_way_counts_as_there() -> None:
    parts = [*served("a", "p", "q"), Part("r", "a", 1, (), "move-r", "b"), Part("s", "a", 1, (), "move-s", "b")]
    assert planned(parts, A, B).asks == []


def test_a_leaving_worker_is_drained_before_anything_is_evened_out() -> None:
    parts = [*served("a", "p", "q"), *served("b", "r", "s", "t", "u")]
    plan = planned(parts, Worker("a", is_leaving=True), B, C, budget=2)
    assert {(ask.pairs[0][0], ask.source) for ask in plan.asks} == {("p", "a"), ("q", "a")}
    assert {ask.pairs[0][1] for ask in plan.asks} == {"c"}


def test_a_leaving_worker_without_another_keeps_what_it_has() -> None:
    plan = planned(served("a", "p"), Worker("a", is_leaving=True))
    assert plan.asks == [] and "there is no other" in plan.why["p"]


def test_what_a_lost_worker_has_stays_for_its_time() -> None:
    plan = planned(served("a", "p"), Worker("a", silent=59.0), B)
    assert plan.asks == [] and plan.unserved == {} and "waited for" in plan.why["p"]


def test_then_a_follower_in_sync_is_has_followers() -> None:
    parts = [Part("p", "a", 3, ("b", "c")), *served("b", "q")]
    plan = planned(parts, Worker("a", silent=60.0), B, C)
    assert plan.asks == [Ask(MOVE, (("p", "c"),), "a")]


def test_a_follower_that_is_lost_too_is_not() -> None:
    plan = planned([Part("p", "a", 3, ("b",))], Worker("a", silent=60.0), Worker("b", silent=1.0), C)
    assert plan.asks == [] and list(plan.unserved) == ["p"]


def test_or_it_begins_anew_elsewhere_where_the_key_space_says_so() -> None:
    space = Space("default", 4, lost_after_seconds=60.0, reload=True)
    plan = planned(served("a", "p"), Worker("a", silent=60.0), B, space=space)
    assert plan.asks == [Ask(NEW, (("p", "b"),))]
    alone = planned(served("a", "p"), Worker("a", silent=60.0), space=space)
    assert alone.asks == [] and "no worker" in alone.why["p"]


def test_what_is_loaded_anew_shares_no_batch_with_what_is_new() -> None:
    space = Space("default", 4, lost_after_seconds=0.0, reload=True)
    plan = planned([*served("a", "p"), Part("q")], Worker("a", silent=1.0), B, space=space)
    assert [ask.pairs for ask in plan.asks] == [(("q", "b"),), (("p", "b"),)]


def test_or_it_is_declared_unserved() -> None:
    plan = planned(served("a", "p"), Worker("a", silent=60.0), B)
    assert plan.asks == [] and "nobody else has the data" in plan.unserved["p"]


def test_a_drain_goes_to_no_follower_but_lets_it_go_where_there_is_no_other() -> None:
    part = Part("p", "a", 3, ("b",))
    assert planned([part], Worker("a", is_leaving=True), B, C).asks == [Ask(MOVE, (("p", "c"),), "a")]
    plan = planned([part], Worker("a", is_leaving=True), B)
    assert plan.asks == [] and [(step.partition, step.follower) for step in plan.dismissed] == [("p", "b")]


def test_a_drain_goes_to_a_follower_rather_than_where_there_would_be_too_many() -> None:
    plan = planned([Part("new"), Part("p", "a", 3, ("c",))], Worker("a", is_leaving=True), B, C)
    assert [ask.pairs for ask in plan.asks] == [(("new", "b"),)]
    assert [(step.partition, step.follower) for step in plan.dismissed] == [("p", "c")]


def test_what_is_new_goes_where_nobody_is_called_up() -> None:
    parts = [Part("p", "a", 3, ("b",)), *(Part(f"new-{number}") for number in range(3))]
    plan = planned(parts, Worker("a", silent=100.0), B, C, budget=1)
    (ask,) = plan.asks
    assert Counter(worker for _partition, worker in ask.pairs) == {"b": 1, "c": 2}


def test_what_came_to_nothing_rests_and_is_then_asked_for_alone() -> None:
    parts = [Part("p"), Part("q"), Part("r")]
    plan = planned(parts, A, resting={"q"}, alone={"q", "r"})
    assert [ask.pairs for ask in plan.asks] == [(("r", "a"),), (("p", "a"),)]
    assert "tried again" in plan.why["q"]


def test_the_same_is_asked_for_under_the_same_name_and_again_under_the_next() -> None:
    ask = Ask(MOVE, (("p", "b"),), "a")
    one, same = (assigner.assignment_for("default", ask, {"p": 3}) for _count in range(2))
    assert one == same
    others = [
        assigner.assignment_for("default", ask, {"p": 4}),
        assigner.assignment_for("default", ask, {"p": 3}, attempt=1),
        assigner.assignment_for("default", Ask(MOVE, (("p", "c"),), "a"), {"p": 3}),
        assigner.assignment_for("other", ask, {"p": 3}),
    ]
    names = {obj["metadata"]["name"] for obj in [one, *others]}
    assert len(names) == 5
    assert one["spec"]["moveParams"] == {"partition": "p", "from": "a", "to": "b"}
    assert [assigner.rest_seconds(count) for count in (1, 2, 3, 99)] == [1.0, 2.0, 4.0, 60.0]


# ---------------------------------------------------------------------------------------------- any world


names = st.sampled_from(["a", "b", "c", "d", "e"])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[Part], list[Worker]]:
    """Parts at workers that there are, as many as come."""
    workers = [
        Worker(name, draw(st.booleans()), draw(st.sampled_from([None, None, None, 1.0, 100.0])))
        for name in sorted(draw(st.sets(names, min_size=1)))
    ]
    at = [worker.name for worker in workers]
    parts = []
    for number in range(draw(st.integers(0, 30))):
        primary = draw(st.sampled_from(["", *at]))
        others = [name for name in at if name != primary]
        followers = tuple(sorted(draw(st.sets(st.sampled_from(others), max_size=2)))) if others and primary else ()
        parts.append(Part(f"p{number:02}", primary, 3 if primary else 0, followers))
    return parts, workers


def carried_out(parts: list[Part], plan: Plan) -> list[Part]:
    """As it is when all that was asked for is over."""
    to = {name: worker for ask in plan.asks for name, worker in ask.pairs}
    gone = {(step.partition, step.follower) for step in plan.dismissed}
    done = []
    for part in parts:
        kept = tuple(name for name in part.followers if (part.name, name) not in gone)
        if part.name in to:
            done.append(part._replace(primary=to[part.name], epoch=part.epoch + 2, followers=()))
        else:
            done.append(part._replace(followers=kept))
    return done


@given(worlds(), st.integers(1, 6), st.booleans())
def test_it_comes_to_rest_evenly_with_all_served_that_can_be(
    world: tuple[list[Part], list[Worker]], budget: int, may_reload: bool
) -> None:
    parts, workers = world
    space = Space("default", 4, lost_after_seconds=60.0, reload=may_reload)
    fit = {worker.name for worker in workers if worker.is_fit}
    gone = {worker.name for worker in workers if worker.silent is not None}
    given_up = {worker.name for worker in workers if (worker.silent or 0) >= 60}
    visited: dict[str, list[str]] = {part.name: [part.primary] for part in parts}
    for _round in range(200):
        plan = assigner.plan(space, parts, workers, budget=budget)
        assert len(plan.asks) <= budget
        asked = [name for ask in plan.asks for name, _worker in ask.pairs]
        assert len(asked) == len(set(asked))
        known = {part.name: part for part in parts}
        for ask in plan.asks:
            for name, worker in ask.pairs:
                part = known[name]
                assert worker in fit and worker != part.primary
                assert ask.source in ("", part.primary)
                is_lost = part.primary in gone
                assert is_lost or worker not in part.followers
                if is_lost:
                    assert part.primary in given_up and (worker in part.followers or may_reload)
                visited[name].append(worker)
        if not plan.asks and not plan.dismissed:
            break
        parts = carried_out(parts, plan)
    else:
        raise AssertionError("it never comes to rest")
    has_followers = any(part.followers for part in world[0])
    for places in visited.values():
        assert len(places) == len(set(places)), "it never comes back"
        # It is called up where its follower is, but else goes to no follower: then somebody may have to make room.
        most = 3 if places[0] in gone or has_followers else 2
        assert len(places) <= most
    counts = Counter({name: 0 for name in fit})
    counts.update(part.primary for part in parts if part.primary in fit)
    if fit:
        assert all(part.primary in fit or part.primary in gone for part in parts)
        assert not {part.primary for part in parts} & given_up or plan.unserved
        if not has_followers:
            assert max(counts.values()) - min(counts.values()) <= 1


@given(worlds(), st.integers(1, 4))
def test_the_plan_is_the_same_whatever_the_order_and_what_is_open_changes_nothing(
    world: tuple[list[Part], list[Worker]], budget: int
) -> None:
    parts, workers = world
    plan = assigner.plan(SPACE, parts, workers, budget=budget)
    again = assigner.plan(SPACE, parts[::-1], workers[::-1], budget=budget)
    assert (again.asks, again.why) == (plan.asks, plan.why)
    whole = assigner.plan(SPACE, parts, workers, budget=1000)
    open_ones = {name: worker for ask in whole.asks for name, worker in ask.pairs}
    busy = [
        part._replace(operation="it", planned=open_ones[part.name]) if part.name in open_ones else part
        for part in parts
    ]
    assert assigner.plan(SPACE, busy, workers, budget=1000).asks == []


# ---------------------------------------------------------------------------------------------- followers


def copy(role: str, epoch: int = 3, **further: Any) -> Copy:
    return Copy("p", Range("", ""), role, epoch, **further)


ONE = Space("default", 4, followers=1)
NONE = Space("default", 4)
PART = Part("p", "a", 3)
ALL = {"a": A, "b": B, "c": C}
AT_A = {"a": {"p": copy(PRIMARY)}, "b": {}, "c": {}}


def follow_up(part: Part, space: Space = ONE, **reports: Any) -> Any:
    return assigner.follow_up(space, part, ALL, {**AT_A, **reports}, {})


def test_a_follower_loads_is_promised_and_enlisted() -> None:
    assert follow_up(PART) == Follow("p", "b")
    assert follow_up(PART, b={"p": copy(LOADING, origin="a")}) == Patience("p", "b")
    assert follow_up(PART, b={"p": copy(FOLLOWING, origin="a")}) == Enlist("p", "b")
    assert follow_up(PART, c={"p": copy(FOLLOWING, origin="a")}) == Enlist("p", "c")
    assert follow_up(PART._replace(followers=("b",)), b={"p": copy(FOLLOWING, origin="a")}) is None


def test_one_that_follows_another_or_at_an_older_epoch_is_told_anew() -> None:
    assert follow_up(PART, b={"p": copy(FOLLOWING, origin="x")}) == Follow("p", "b")
    assert follow_up(PART, b={"p": copy(FOLLOWING, 2, origin="a")}) == Follow("p", "b")


def test_who_has_a_copy_of_an_operation_becomes_no_follower() -> None:
    assert follow_up(PART, b={"p": copy(PROXY)}) == Follow("p", "c")
    assert follow_up(PART, b={"p": copy(FOLLOWING, uid="u")}) == Follow("p", "c")


def test_who_was_promised_first_is_enlisted_first() -> None:
    at = {"a": {"p": copy(PRIMARY, followers=("c",))}, "c": {"p": copy(FOLLOWING, origin="a")}}
    assert follow_up(PART, **at) == Enlist("p", "c")


def test_a_promise_that_is_needed_no_more_is_released() -> None:
    part = PART._replace(followers=("b",))
    at = {"a": {"p": copy(PRIMARY, followers=("b", "c"))}, "b": {"p": copy(FOLLOWING, origin="a")}}
    step = follow_up(part, **at)
    assert isinstance(step, Dismiss) and step.follower == "c"


@pytest.mark.parametrize("lost", [Worker("b", silent=0.0), None], ids=["lost", "unknown"])
def test_a_lost_follower_is_let_go_at_once_for_writes_wait_for_it(lost: Worker | None) -> None:
    workers = {"a": A, "c": C} | ({"b": lost} if lost else {})
    step = assigner.follow_up(ONE, PART._replace(followers=("b",)), workers, {"a": {}, "c": {}}, {})
    assert isinstance(step, Dismiss) and step.follower == "b"


def test_one_that_does_not_answer_is_not() -> None:
    reports = {"a": {"p": copy(PRIMARY)}, "c": {}}
    assert assigner.follow_up(ONE, PART._replace(followers=("b",)), ALL, reports, {}) is None


def test_one_without_a_copy_is() -> None:
    step = follow_up(PART._replace(followers=("b",)))
    assert isinstance(step, Dismiss) and step.follower == "b"


def test_nobody_is_let_go_while_the_primary_is_lost_or_something_goes_on() -> None:
    workers = {"a": Worker("a", silent=5.0), "b": Worker("b", silent=5.0)}
    part = PART._replace(followers=("b",))
    assert assigner.follow_up(ONE, part, workers, {}, {}) is None
    assert assigner.follow_up(ONE, part._replace(operation="it"), ALL, {}, {}) is None
    assert assigner.follow_up(ONE, Part("p"), ALL, {}, {}) is None


def test_fewer_are_let_go_and_their_copies_dropped() -> None:
    following = {"b": {"p": copy(FOLLOWING, origin="a")}}
    step = follow_up(PART._replace(followers=("b",)), NONE, **following)
    assert isinstance(step, Dismiss) and step.follower == "b"
    assert follow_up(PART._replace(epoch=4), NONE, a={"p": copy(PRIMARY, 4)}, **following) == Drop("p", "b")
    step = follow_up(PART, NONE, **following)  # the same epoch: a drop would be refused
    assert isinstance(step, Dismiss)


def test_a_leaving_follower_goes_when_another_is_there() -> None:
    workers = {"a": A, "b": Worker("b", is_leaving=True), "c": C}
    reports = {**AT_A, "b": {"p": copy(FOLLOWING, origin="a")}}
    assert assigner.follow_up(ONE, PART._replace(followers=("b",)), workers, reports, {}) == Follow("p", "c")
    reports["c"] = {"p": copy(FOLLOWING, origin="a")}
    step = assigner.follow_up(ONE, PART._replace(followers=("b", "c")), workers, reports, {})
    assert isinstance(step, Dismiss) and step.follower == "b"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds of any placement: balance, the bounds, that nothing changes twice, and the same bytes in any order."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions import placement as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import (
    Job,
    Worker,
    place,
    place_names,
)
from ansible_collections.muster.coordination.tests.support import placement_worlds
from ansible_collections.muster.coordination.tests.support.placement_worlds import World, facts, mixed, uniform

SEEDS = st.integers(0, 2**64 - 1).map(random.Random)
WEIGHTS = (1, 2, 3, 5, 9, 20)


def any_world(draw: random.Random) -> World:
    """Of one of the three paths."""
    if draw.random() < 0.3:
        return uniform(draw, most_jobs=40, most_workers=9)
    return mixed(draw, dedicated=draw.choice([0.0, 0.2]), weights=draw.choice([(1,), (7,), WEIGHTS]))


# ------------------------------------------------------------------------------------------------------- all paths


@given(SEEDS, st.sampled_from([None, 0, 1, 3]))
def test_it_is_legal_and_says_what_is_true(draw: random.Random, churn: int | None) -> None:
    world = any_world(draw)
    placement = place(*world, churn=churn)
    facts(world, placement)
    for job in world.jobs:
        said = decisions.explain(job.name, *world, placement)
        assert job.name in said and said.endswith(".")


@given(SEEDS)
def test_once_more_changes_nothing(draw: random.Random) -> None:
    world = any_world(draw)
    first = place(*world)
    again = place(world.jobs, world.workers, first.assignment)
    assert again.assignment == first.assignment and again.unplaced == first.unplaced
    assert (again.moves, again.restarts) == (0, 0)


@given(SEEDS)
def test_it_is_the_same_in_any_order(draw: random.Random) -> None:
    world = any_world(draw)
    assert repr(place(*placement_worlds.shuffled(draw, world))) == repr(place(*world))


def permutations(seed: int, number: int) -> str:
    """The digest of what comes of a world on each path, each given in so many orders."""
    digest = hashlib.sha256()
    jobs, workers = [Job(f"job-{number}") for number in range(60)], [Worker(f"w-{number}") for number in range(12)]
    for world in (
        World(jobs, workers, {}),
        World(jobs, workers[1:], {name: list(own) for name, own in place(jobs, workers, {}).assignment.items()}),
        uniform(random.Random(4), most_jobs=60, most_workers=9),
        mixed(random.Random(5), dedicated=0.2),
        mixed(random.Random(7), weights=WEIGHTS),
    ):
        draw = random.Random(seed)
        results = {repr(place(*placement_worlds.shuffled(draw, world))) for _ in range(number)}
        digest.update("\n".join(sorted(results)).encode())
    return digest.hexdigest()


def test_a_thousand_orders_in_processes_with_other_hash_seeds_give_the_same_bytes() -> None:
    wanted = permutations(0, 1)
    program = "import sys; from {} import permutations; print(permutations(int(sys.argv[1]), 250))".format(
        "ansible_collections.muster.coordination.tests.property.test_placement_property"
    )
    for seed in range(1, 5):
        command = [sys.executable, "-c", program, str(seed)]
        environ = {**os.environ, "PYTHONHASHSEED": str(seed * 1234567)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)
        assert done.stdout.strip() == wanted, done.stderr


# -------------------------------------------------------------------------------------------------- the quota path


class Least:
    """The bounds as the design states them, counted anew: by workers and their live jobs."""

    def __init__(self, world: World) -> None:
        homes = placement_worlds.homes(world)
        self.part, self.extra = divmod(len(world.jobs), len(world.workers))
        has = Counter(homes.values())
        self.has = {worker.name: has[worker.name] for worker in world.workers}
        self.before = {name: world.previous[name] for name in self.has if name in world.previous}

    def moves(self) -> int:
        above = [count for count in self.has.values() if count > self.part]
        return sum(count - self.part for count in above) - min(self.extra, len(above))

    def restarts(self) -> int:
        """Try each choice of who has one more: whoever has what it had, and lost nothing, need not restart."""
        least = len(self.before)
        for chosen in combinations(self.has, self.extra):
            changed = sum(
                len(own) != self.has[name] or self.has[name] != self.part + (name in chosen)
                for name, own in self.before.items()
            )
            least = min(least, changed)
        return least


def test_ten_thousand_changes_of_membership_meet_the_bounds() -> None:
    changes = 0
    for number in range(100):
        draw = random.Random(f"membership {number}")
        world = uniform(draw, most_jobs=80, most_workers=8)
        for _ in range(100):
            placement = place(*world)
            found = facts(world, placement)
            least = Least(world)
            assert placement.method == "quota" and not placement.unplaced and placement.imbalance <= 1
            assert (found.moves, found.restarts) == (least.moves(), least.restarts())
            assert (placement.least_moves, placement.least_restarts) == (found.moves, found.restarts)
            changes += 1
            world = changed(draw, world, placement.assignment)
    assert changes == 10_000


def changed(draw: random.Random, world: World, assignment: Mapping[str, Sequence[str]]) -> World:
    """Workers come, go, or are replaced by others; jobs come and go; or all of that at once."""
    workers, jobs = list(world.workers), list(world.jobs)
    what = draw.choice(["scale", "scale", "replace", "jobs", "all"])
    if what in ("scale", "all"):
        size = draw.randint(1, 10)
        workers = [Worker(f"w-{number}") for number in range(size)]
    if what in ("replace", "all"):
        workers[draw.randrange(len(workers))] = Worker(f"w-{draw.randint(10, 99)}")
        workers = list({worker.name: worker for worker in workers}.values())
    if what in ("jobs", "all"):
        jobs = [job for job in jobs if draw.random() < 0.9]
        jobs += [Job(f"job-{draw.randint(1000, 9999)}") for _ in range(draw.randint(0, 9))]
        jobs = list({job.name: job for job in jobs}.values())
    return World(jobs, workers, {worker: list(own) for worker, own in assignment.items()})


def balanced(jobs: Sequence[Job], workers: Sequence[Worker]) -> Iterator[dict[str, set[str]]]:
    """Every assignment of the jobs, job by job, whose loads differ by one at most."""
    for choice in product(range(len(workers)), repeat=len(jobs)):
        counts = [choice.count(number) for number in range(len(workers))]
        if max(counts) - min(counts) <= 1:
            own: dict[str, set[str]] = {worker.name: set() for worker in workers}
            for job, number in zip(jobs, choice, strict=True):
                own[workers[number].name].add(job.name)
            yield own


def test_no_balanced_assignment_at_all_moves_or_restarts_less() -> None:
    """The formula itself: exhaustive search, which knows nothing of q and r."""
    for number in range(600):
        world = uniform(random.Random(f"exhaustive {number}"), most_jobs=6, most_workers=3)
        homes = placement_worlds.homes(world)
        best_moves, best_restarts = len(world.jobs), len(world.workers)
        for own in balanced(world.jobs, world.workers):
            best_moves = min(best_moves, sum(job not in own[worker] for job, worker in homes.items()))
            best_restarts = min(best_restarts, placement_worlds.changed(world.previous, own))
        placement = place(*world)
        found = facts(world, placement)
        # each is the least that there is, even at the cost of the other: there is no trade between them
        assert (found.moves, found.restarts) == (best_moves, best_restarts)
        assert (placement.least_moves, placement.least_restarts) == (best_moves, best_restarts)


@given(SEEDS, st.integers(1, 8))
def test_scaling_down_moves_only_what_the_gone_workers_had(draw: random.Random, gone: int) -> None:
    world = uniform(draw, most_jobs=60, most_workers=9)
    before = place(*world).assignment
    left = world.workers[: max(1, len(world.workers) - gone)]
    after = place(world.jobs, left, before)
    assert after.moves == 0
    assert all(set(before[worker]) <= set(own) for worker, own in after.assignment.items())


@given(SEEDS)
def test_who_has_the_right_number_keeps_its_list_untouched(draw: random.Random) -> None:
    world = uniform(draw, most_jobs=60, most_workers=9)
    before = place(*world).assignment
    more = [*world.workers, Worker("w-99")]
    after = place(world.jobs, more, before).assignment
    part = len(world.jobs) // len(more)
    assert all(after[worker] == own for worker, own in before.items() if len(own) == part)


@given(st.integers(0, 60), st.integers(1, 12))
def test_from_nothing_each_worker_has_a_block_of_the_sorted_jobs(jobs: int, workers: int) -> None:
    names = [f"job-{number}" for number in range(jobs)]
    placement = place_names(names, [f"w-{number}" for number in range(workers)], {})
    assert list(placement.assignment) == [f"w-{number}" for number in range(workers)]
    assert [job for own in placement.assignment.values() for job in own] == sorted(names)
    sizes = [len(own) for own in placement.assignment.values()]
    assert sizes == sorted(sizes, reverse=True)


# --------------------------------------------------------------------------------------------------- the flow path


@given(SEEDS)
def test_where_all_may_run_everywhere_the_flow_says_what_the_quotas_say(draw: random.Random) -> None:
    """A class that nobody takes, with one job, is all that sends the rest through the flow."""
    world = uniform(draw, most_jobs=30, most_workers=7)
    plain = place(*world)
    forced = place([*world.jobs, Job("nowhere", group="none")], world.workers, world.previous)
    assert (plain.method, forced.method) == ("quota", "flow")
    assert list(forced.unplaced) == ["nowhere"]
    assert (forced.moves, forced.restarts, forced.imbalance) == (plain.moves, plain.restarts, plain.imbalance)
    assert forced.least_restarts == plain.least_restarts


@given(SEEDS)
def test_a_weight_that_all_jobs_have_changes_nothing(draw: random.Random) -> None:
    world = mixed(draw)
    workers = [
        worker._replace(capacity=None if worker.capacity is None else worker.capacity * 7 + draw.randrange(7))
        for worker in world.workers
    ]
    heavy = place([job._replace(weight=7) for job in world.jobs], workers, world.previous)
    plain = place(*world)
    assert (heavy.assignment, heavy.moves, heavy.imbalance) == (plain.assignment, plain.moves, plain.imbalance * 7)


# ----------------------------------------------------------------------------------------------- the weighted path


def weighted(draw: random.Random, most_jobs: int = 30) -> World:
    """Jobs that may run everywhere."""
    world = uniform(draw, most_jobs=most_jobs, most_workers=7)
    return world._replace(jobs=[job._replace(weight=draw.choice(WEIGHTS)) for job in world.jobs])


@given(SEEDS)
def test_with_no_bound_the_loads_differ_by_the_heaviest_job_at_most(draw: random.Random) -> None:
    world = weighted(draw)
    placement = place(*world)
    facts(world, placement)
    assert placement.imbalance <= max((job.weight for job in world.jobs), default=0)


@given(SEEDS, st.integers(0, 5))
def test_no_more_live_jobs_move_than_the_churn_allows(draw: random.Random, churn: int) -> None:
    world = weighted(draw)
    placement = place(*world, churn=churn)
    if placement.method == "weighted":
        assert facts(world, placement).moves <= churn


def settled(draw: random.Random) -> tuple[World, int]:
    """Live jobs only, each where it may be; and how unequal the loads are."""
    world = mixed(draw, weights=WEIGHTS)
    room = {worker.name: 999 if worker.capacity is None else worker.capacity for worker in world.workers}
    loads = dict.fromkeys(room, 0)
    jobs, previous = [], {name: [] for name in room}
    for job in world.jobs:
        fits = [one.name for one in world.workers if job.group in one.takes and room[one.name] >= job.weight]
        if fits:
            name = draw.choice(fits)
            jobs.append(job._replace(spread=""))
            previous[name].append(job.name)
            room[name] -= job.weight
            loads[name] += job.weight
    return World(jobs, world.workers, previous), max(loads.values()) - min(loads.values())


@given(SEEDS, st.sampled_from([None, 0, 1, 4]))
def test_what_is_legal_already_never_gets_more_unequal(draw: random.Random, churn: int | None) -> None:
    world, before = settled(draw)
    placement = place(*world, churn=churn)
    if placement.method == "weighted":
        assert placement.imbalance <= before and not placement.unplaced
        assert churn is None or placement.moves <= churn


@given(SEEDS)
def test_a_pile_on_one_worker_is_taken_apart_but_never_made_worse(draw: random.Random) -> None:
    world = weighted(draw)
    there = draw.choice(world.workers).name
    pile = {there: [job.name for job in world.jobs]}
    before = sum(job.weight for job in world.jobs)
    last = before
    for churn in (0, 1, 2, 5):
        placement = place(world.jobs, world.workers, pile, churn=churn)
        if placement.method == "weighted" and len(world.workers) > 1:
            assert placement.imbalance <= last and placement.moves <= churn
            assert churn == 0 or placement.imbalance < before
            last = placement.imbalance


@pytest.mark.parametrize("number", range(4))
def test_it_is_near_the_best_that_exhaustive_search_finds(number: int) -> None:
    """From nothing the greatest load is within the 4/3 that longest processing time first is known for."""
    for one in range(40):
        draw = random.Random(f"small {number} {one}")
        weights = [draw.choice(WEIGHTS) for _ in range(draw.randint(2, 7))]
        workers = [Worker(f"w-{index}") for index in range(draw.randint(2, 3))]
        placement = place([Job(f"j{index}", weight) for index, weight in enumerate(weights)], workers, {})
        loads = [sum(weights[int(job[1:])] for job in own) for own in placement.assignment.values()]
        best = min(
            max(sum(w for w, at in zip(weights, choice, strict=True) if at == index) for index in range(len(workers)))
            for choice in product(range(len(workers)), repeat=len(weights))
        )
        assert 3 * max(loads) <= 4 * best

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which worker does which jobs: each rule by example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import (
    Job,
    Placement,
    Worker,
    explain,
    place,
    place_names,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

# the streams of the seed's own example
STREAMS = [
    "xxrtve1", "xxrtve2", "zrtve2:new", "zrtve1:new", "zrtve0:new", "cctv0:updated", "history:new", "foo:new",
    "xxctv3:new", "cctv3:updated", "xxctv0:updated", "xxctv10:updated", "xxctv11:updated", "xxctv12:updated",
    "xxctv13:updated", "xxctv14:updated", "yxctv1:updated", "yxctv2:updated", "yxctv3:updated", "xabcn0:updated",
    "xacb01:updated", "xacb02:updated", "xacb03:updated", "xacb04:updated", "sportnews0:updated", "cars:new",
    "cars:updated",
]  # fmt: skip


def named(prefix: str, count: int, **fields: Any) -> list[Job]:
    return [Job(f"{prefix}{number}", **fields) for number in range(count)]


def pool(count: int, prefix: str = "w-", **fields: Any) -> list[Worker]:
    return [Worker(f"{prefix}{number}", **fields) for number in range(count)]


def taking(*groups: str) -> frozenset[str]:
    return frozenset(groups)


def sizes(placement: Placement) -> dict[str, int]:
    return {worker: len(own) for worker, own in placement.assignment.items()}


def cost(placement: Placement) -> tuple[int, int]:
    return placement.moves, placement.restarts


def held(**own: str) -> dict[str, list[str]]:
    """`w_0="a b"`: worker w-0 has jobs a and b."""
    return {worker.replace("_", "-"): jobs.split() for worker, jobs in own.items()}


# --------------------------------------------------------------------------------------------------- the quota path


def test_the_streams_of_the_seed_on_two_workers() -> None:
    workers = pool(2, "swarm-worker-")
    first = place([Job(f"stream:{name}") for name in STREAMS], workers, {})
    assert sizes(first) == {"swarm-worker-0": 14, "swarm-worker-1": 13}
    ordered = sorted(f"stream:{name}" for name in STREAMS)
    assert first.assignment == {"swarm-worker-0": tuple(ordered[:14]), "swarm-worker-1": tuple(ordered[14:])}
    assert (first.method, first.imbalance, first.unplaced, cost(first)) == ("quota", 1, {}, (0, 0))


def test_the_seed_scales_up_and_down() -> None:
    names = [f"stream:{name}" for name in STREAMS]
    two = place_names(names, ["w-0", "w-1"], {})
    three = place_names(names, ["w-0", "w-1", "w-2"], two.assignment)
    assert sizes(three) == {"w-0": 9, "w-1": 9, "w-2": 9}
    assert cost(three) == (5 + 4, 2), "what is above 9 moves, and the new worker needs no restart"
    assert three.assignment["w-0"] == two.assignment["w-0"][:9], "the last jobs by name are given up"
    one = place_names(names, ["w-0"], three.assignment)
    assert sizes(one) == {"w-0": 27} and cost(one) == (0, 1)


def test_a_second_run_changes_nothing() -> None:
    first = place(named("j", 10), pool(4), {})
    again = place(named("j", 10), pool(4), first.assignment)
    assert again.assignment == first.assignment and cost(again) == (0, 0)


def test_workers_stand_in_natural_order_and_jobs_in_that_of_names() -> None:
    workers = [Worker(f"w-{number}") for number in (10, 9, 2, 1)] + [Worker("w-02")]
    placement = place(named("j", 11), workers, {})
    assert list(placement.assignment) == ["w-1", "w-02", "w-2", "w-9", "w-10"]
    assert placement.assignment["w-1"] == ("j0", "j1", "j10")


def test_one_more_goes_first_to_whoever_has_it_already() -> None:
    previous = held(w_0="a b c", w_1="d e", w_2="f g")
    placement = place([Job(name) for name in "abcdefg"], pool(3), previous)
    assert sizes(placement) == {"w-0": 3, "w-1": 2, "w-2": 2} and cost(placement) == (0, 0)
    elsewhere = place([Job(name) for name in "abcdefg"], pool(3), held(w_0="a b", w_1="c d", w_2="e f g"))
    assert sizes(elsewhere) == {"w-0": 2, "w-1": 2, "w-2": 3} and cost(elsewhere) == (0, 0)


def test_one_more_goes_to_a_worker_above_rather_than_to_one_that_is_below() -> None:
    placement = place([Job(name) for name in "abcdefg"], pool(3), held(w_0="", w_1="a b c d e", w_2="f g"))
    assert sizes(placement) == {"w-0": 2, "w-1": 3, "w-2": 2}
    assert cost(placement) == (2, 2) == (placement.least_moves, placement.least_restarts)


def test_one_more_goes_to_a_new_worker_rather_than_to_one_that_would_restart() -> None:
    placement = place([Job(name) for name in "abcdefg"], pool(3), held(w_0="a b", w_1="c d"))
    assert sizes(placement) == {"w-0": 2, "w-1": 2, "w-2": 3} and cost(placement) == (0, 0)


def test_one_more_goes_to_a_worker_that_lost_a_job_which_is_no_more() -> None:
    previous = held(w_0="a b", w_1="c d deleted", w_2="e f")
    placement = place([Job(name) for name in "abcdefg"], pool(3), previous)
    assert sizes(placement) == {"w-0": 2, "w-1": 3, "w-2": 2} and cost(placement) == (0, 1)


def test_a_job_that_is_no_more_is_a_restart_even_if_nothing_else_changes() -> None:
    placement = place([Job("a"), Job("b")], pool(2), held(w_0="a gone", w_1="b"))
    assert placement.assignment == {"w-0": ("a",), "w-1": ("b",)}
    assert cost(placement) == (0, 1) and placement.least_restarts == 1


def test_a_worker_in_the_middle_goes_and_only_its_jobs_move() -> None:
    before = place(named("j", 12), pool(4), {}).assignment
    left = [worker for worker in pool(4) if worker.name != "w-1"]
    after = place(named("j", 12), left, before)
    assert all(set(before[worker.name]) < set(after.assignment[worker.name]) for worker in left)
    assert cost(after) == (0, 3), "a job whose worker is gone does not count as a move"


def test_a_job_that_two_workers_name_counts_for_the_first() -> None:
    previous = {"w-10": ["a", "b"], "w-9": ["a", "c"]}
    placement = place([Job("a"), Job("b"), Job("c")], [Worker("w-9"), Worker("w-10")], previous)
    assert placement.assignment == {"w-9": ("a", "c"), "w-10": ("b",)}
    assert cost(placement) == (0, 1) and placement.least_restarts is None


def test_a_job_that_a_worker_names_twice_counts_once() -> None:
    placement = place([Job("a"), Job("b")], pool(1), {"w-0": ["a", "a", "b"]})
    assert placement.assignment == {"w-0": ("a", "b")} and cost(placement) == (0, 0)


def test_without_workers_nothing_is_placed_and_without_jobs_nobody_has_any() -> None:
    nobody = place([Job("a"), Job("b", 3)], [], held(w_0="a"))
    assert nobody.unplaced == {"a": "there are no workers", "b": "there are no workers"}
    assert place([], pool(2), {}).assignment == {"w-0": (), "w-1": ()}


def test_fewer_jobs_than_workers() -> None:
    placement = place(named("j", 2), pool(3), held(w_2="j1"))
    assert placement.assignment == {"w-0": ("j0",), "w-1": (), "w-2": ("j1",)} and cost(placement) == (0, 0)


def test_classes_that_all_workers_take_and_capacities_that_do_not_bind_need_no_flow() -> None:
    jobs = named("a", 3, group="a") + named("b", 3, group="b", spread="s")
    placement = place(jobs, pool(2, takes=taking("a", "b", "c"), capacity=3), {})
    assert placement.method == "quota" and sizes(placement) == {"w-0": 3, "w-1": 3}


def test_jobs_of_one_weight_are_counted_and_their_load_is_told() -> None:
    placement = place(named("j", 3, weight=5), pool(2, capacity=10), {})
    assert (placement.method, sizes(placement), placement.imbalance) == ("quota", {"w-0": 2, "w-1": 1}, 5)
    tight = place(named("j", 3, weight=5), pool(2, capacity=9), {})
    assert (tight.method, sizes(tight), list(tight.unplaced)) == ("flow", {"w-0": 1, "w-1": 1}, ["j2"])


# ---------------------------------------------------------------------------------------------------- the flow path


def test_a_class_runs_only_where_it_is_taken_and_the_others_make_room() -> None:
    workers = [Worker("gpu-0", taking("", "gpu")), Worker("plain-0"), Worker("plain-1")]
    placement = place(named("g", 2, group="gpu") + named("j", 4), workers, {})
    assert placement.method == "flow"
    assert placement.assignment["gpu-0"] == ("g0", "g1") and sizes(placement) == {
        "gpu-0": 2,
        "plain-0": 2,
        "plain-1": 2,
    }


def test_loads_are_as_equal_as_the_classes_allow() -> None:
    workers = [Worker("gpu-0", taking("", "gpu")), Worker("gpu-1", taking("", "gpu")), Worker("w-0"), Worker("w-1")]
    placement = place(named("g", 7, group="gpu") + named("j", 4), workers, {})
    assert sorted(sizes(placement).values()) == [2, 2, 3, 4], "gpu jobs can't leave their two workers"


def test_a_job_on_the_way_moves_so_that_another_may_come() -> None:
    """The new gpu job has one worker; that one is as full as the other, so a plain job has to go there."""
    workers = [Worker("both", taking("", "gpu")), Worker("plain")]
    previous = held(both="j0 j1", plain="j2")
    placement = place([*named("j", 3), Job("g0", group="gpu")], workers, previous)
    assert placement.assignment == {"both": ("g0", "j0"), "plain": ("j1", "j2")}
    assert cost(placement) == (1, 2)
    assert (placement.least_moves, placement.least_restarts) == (1, 1), "the former is exact, the latter a bound"


def test_a_job_leaves_a_worker_that_does_not_take_its_class_any_more() -> None:
    workers = [Worker("w-0"), Worker("w-1", taking("", "a"))]
    placement = place([Job("x", group="a"), Job("y")], workers, held(w_0="x", w_1="y"))
    assert placement.assignment == {"w-0": ("y",), "w-1": ("x",)} and cost(placement) == (2, 2)


def test_capacities_bind_and_what_is_too_much_is_named() -> None:
    workers = [Worker(f"gpu-{number}", taking("gpu"), capacity=5) for number in range(2)] + pool(2)
    placement = place(named("g", 12, group="gpu") + named("j", 3), workers, {})
    assert sizes(placement) == {"gpu-0": 5, "gpu-1": 5, "w-0": 2, "w-1": 1}
    assert placement.unplaced == dict.fromkeys(["g8", "g9"], "class gpu: 12 jobs, and room for 10 on gpu-0, gpu-1")


def test_live_jobs_stay_where_new_ones_would_be_too_many() -> None:
    placement = place(named("j", 4), pool(1, capacity=2), held(w_0="j2 j3"))
    assert placement.assignment == {"w-0": ("j2", "j3")} and list(placement.unplaced) == ["j0", "j1"]
    again = place(named("j", 4), pool(1, capacity=2), placement.assignment)
    assert again.assignment == placement.assignment and again.unplaced == placement.unplaced


def test_a_capacity_that_was_lowered_takes_the_last_jobs() -> None:
    placement = place(named("j", 4), [Worker("w-0", capacity=1), Worker("w-1")], held(w_0="j0 j1", w_1="j2 j3"))
    assert placement.assignment == {"w-0": ("j0",), "w-1": ("j1", "j2", "j3")} and cost(placement) == (1, 2)


@pytest.mark.parametrize(
    ("jobs", "workers", "reason"),
    [
        (named("x", 1, group="a"), pool(2), "class a: no worker takes it"),
        (named("x", 1), pool(2, takes=taking("a")), "without a class: no worker takes it"),
        (
            named("x", 8),
            pool(7, capacity=1),
            "without a class: 8 jobs, and room for 7 on w-0, w-1, w-2, w-3, w-4 and 2 more",
        ),
        (
            [*named("x", 1), *named("y", 2, group="a"), *named("z", 2, group="b")],
            [Worker("w-0", taking("", "a"), 2), Worker("w-1", taking("a", "b"), 2)],
            "without a class or classes a, b: 5 jobs, and room for 4 on w-0, w-1",
        ),
        (
            [*named("d", 1, group="a", dedicated=True), *named("x", 1, group="a")],
            pool(1, takes=taking("a")),
            "class a: 1 job, and dedicated jobs have all workers that take them: w-0",
        ),
        (
            [*named("d", 1, dedicated=True), *named("x", 3)],
            pool(2, capacity=2),
            "without a class: 3 jobs, and room for 2 on w-1; kept for dedicated jobs: w-0",
        ),
        (
            named("d", 3, dedicated=True),
            pool(2),
            "dedicated jobs, without a class: 3 jobs, and 2 workers for them: w-0, w-1",
        ),
        (named("d", 1, group="a", dedicated=True), pool(2), "dedicated jobs, class a: no worker takes it"),
        (
            named("s", 4, spread="s"),
            [Worker("w-0", zone="x"), Worker("w-1", zone="y", capacity=1)],
            "without a class, spread s: 2 jobs besides 2 in zones which take no more of them, and room for 1 on w-1",
        ),
    ],
)
def test_the_reason_names_the_jobs_and_the_workers_that_are_too_few(
    jobs: Sequence[Job], workers: Sequence[Worker], reason: str
) -> None:
    assert set(place(jobs, workers, {}).unplaced.values()) == {reason}


def test_classes_that_share_no_worker_are_told_apart() -> None:
    jobs = named("x", 2, group="a") + named("y", 2, group="b")
    workers = [Worker("w-0", taking("a"), 1), Worker("w-1", taking("b"), 1)]
    assert place(jobs, workers, {}).unplaced == {
        "x1": "class a: 2 jobs, and room for 1 on w-0",
        "y1": "class b: 2 jobs, and room for 1 on w-1",
    }


# ------------------------------------------------------------------------------------------------- spread over zones


def zoned(*zones: str) -> list[Worker]:
    return [Worker(f"w-{number}", zone=zone) for number, zone in enumerate(zones)]


def zones_of(placement: Placement, workers: Iterable[Worker], jobs: Iterable[str]) -> list[str]:
    zone = {worker.name: worker.zone for worker in workers}
    wanted = set(jobs)
    return sorted(zone[worker] for worker, own in placement.assignment.items() for job in own if job in wanted)


def test_jobs_of_a_spread_are_in_different_zones() -> None:
    workers = zoned("a", "a", "b", "c")
    placement = place(named("s", 3, spread="s") + named("j", 5), workers, {})
    assert zones_of(placement, workers, ["s0", "s1", "s2"]) == ["a", "b", "c"]
    assert sorted(sizes(placement).values()) == [2, 2, 2, 2]


def test_a_spread_that_came_to_be_in_one_zone_is_taken_apart_with_one_move() -> None:
    workers = zoned("a", "b")
    placement = place(named("s", 2, spread="s"), workers, held(w_0="s0 s1", w_1=""))
    assert placement.assignment == {"w-0": ("s0",), "w-1": ("s1",)} and cost(placement) == (1, 2)


def test_only_zones_with_a_worker_that_takes_them_count() -> None:
    workers = [Worker("w-0", taking("a"), zone="x"), Worker("w-1", taking("a"), zone="y"), Worker("w-2", zone="z")]
    placement = place(named("s", 5, group="a", spread="s"), workers, {})
    assert sizes(placement) == {"w-0": 3, "w-1": 2, "w-2": 0} and not placement.unplaced


def test_a_zone_without_a_name_is_a_zone() -> None:
    workers = zoned("", "a", "a")
    placement = place(named("s", 2, spread="s") + named("j", 1), workers, {})
    assert zones_of(placement, workers, ["s0", "s1"]) == ["", "a"]


def test_dedicated_jobs_of_a_spread_are_counted_with_the_others() -> None:
    workers = zoned("a", "b", "a", "b")
    jobs = [*named("d", 1, dedicated=True, spread="s"), *named("s", 1, spread="s")]
    placement = place(jobs, workers, {})
    assert zones_of(placement, workers, ["d0", "s0"]) == ["a", "b"]


# --------------------------------------------------------------------------------------------------- dedicated jobs


def test_a_dedicated_job_has_its_worker_for_itself() -> None:
    placement = place([Job("d", dedicated=True), *named("j", 4)], pool(3), {})
    assert placement.assignment == {"w-0": ("d",), "w-1": ("j0", "j1"), "w-2": ("j2", "j3")}
    assert (placement.method, placement.imbalance) == ("flow", 0), "the reserved worker does not count as unequal"


def test_a_dedicated_job_goes_where_the_fewest_jobs_are() -> None:
    jobs = [Job("d", dedicated=True), *named("j", 5)]
    placement = place(jobs, pool(3), held(w_0="j0 j1", w_1="j2", w_2="j3 j4"))
    assert placement.assignment["w-1"] == ("d",) and placement.moves == 1


def test_a_dedicated_job_that_is_alone_stays() -> None:
    jobs = [Job("d", dedicated=True), *named("j", 4)]
    placement = place(jobs, pool(4), held(w_1="d", w_2="j0 j1", w_3="j2 j3"))
    assert placement.assignment["w-1"] == ("d",) and placement.moves == 1
    assert placement.assignment["w-0"] == ("j1",) or placement.assignment["w-0"] == ("j3",)


def test_a_job_that_becomes_dedicated_leaves_rather_than_that_all_others_do() -> None:
    jobs = [Job("d", dedicated=True), *named("j", 3)]
    placement = place(jobs, pool(2), held(w_0="d j0 j1 j2", w_1=""))
    assert placement.assignment == {"w-0": ("j0", "j1", "j2"), "w-1": ("d",)} and cost(placement) == (1, 2)


def test_more_dedicated_jobs_than_workers_leave_the_others_nothing() -> None:
    placement = place([*named("d", 3, dedicated=True), Job("j")], pool(2), held(w_0="d2", w_1="j"))
    assert placement.assignment == {"w-0": ("d2",), "w-1": ("d0",)} and list(placement.unplaced) == ["d1", "j"]


def test_a_dedicated_job_leaves_workers_that_take_more_to_those_who_need_them() -> None:
    workers = [Worker("gpu-0", taking("", "gpu")), Worker("plain-0")]
    placement = place([Job("d", dedicated=True), *named("g", 2, group="gpu")], workers, {})
    assert placement.assignment == {"gpu-0": ("g0", "g1"), "plain-0": ("d",)}


def test_dedicated_jobs_change_places_if_only_so_all_have_one() -> None:
    """d0 may run on both, and is on the only worker that takes d1."""
    workers = [Worker("both", taking("", "a")), Worker("plain")]
    jobs = [Job("d0", dedicated=True), Job("d1", group="a", dedicated=True)]
    placement = place(jobs, workers, held(both="d0"))
    assert placement.assignment == {"both": ("d1",), "plain": ("d0",)} and cost(placement) == (1, 1)


def test_a_dedicated_job_needs_the_capacity() -> None:
    workers = [Worker("w-0", capacity=2), Worker("w-1", capacity=8)]
    placement = place([Job("d", 5, dedicated=True), Job("j")], workers, {})
    assert placement.assignment == {"w-0": ("j",), "w-1": ("d",)}


def test_the_bound_of_restarts_is_not_told_where_another_worker_might_have_been_kept() -> None:
    jobs = [Job("d", dedicated=True), *named("j", 2)]
    assert place(jobs, pool(2), held(w_0="j0", w_1="j1")).least_restarts is None
    assert place(jobs, pool(2), held(w_0="d", w_1="j0 j1")).least_restarts == 0


# ---------------------------------------------------------------------------------------------------------- weights


def test_weights_are_evened_out_from_nothing() -> None:
    jobs = [Job(name, weight) for name, weight in zip("abcdef", (7, 6, 5, 4, 3, 3), strict=True)]
    placement = place(jobs, pool(2), {})
    assert placement.method == "weighted" and placement.imbalance == 0
    assert (placement.least_moves, placement.least_restarts) == (None, None)


def test_few_heavy_jobs_fill_a_new_worker_rather_than_many_light_ones() -> None:
    jobs = named("h", 4, weight=10) + named("l", 20)
    before = held(
        w_0="h0 h1 " + " ".join(f"l{n}" for n in range(10)), w_1="h2 h3 " + " ".join(f"l{n}" for n in range(10, 20))
    )
    placement = place(jobs, pool(3), before)
    assert placement.moves == 2 and placement.imbalance == 0


def test_no_churn_means_that_only_what_is_homeless_is_placed() -> None:
    jobs = [*named("h", 2, weight=10), *named("l", 2)]
    before = held(w_0="h0 h1", w_1="l0")
    placement = place(jobs, pool(2), before, churn=0)
    assert placement.assignment == {"w-0": ("h0", "h1"), "w-1": ("l0", "l1")} and placement.moves == 0
    assert place(jobs, pool(2), before, churn=1).moves == 1


def test_weighted_jobs_keep_to_classes_capacities_and_zones() -> None:
    jobs = [Job("a", 3, "a"), Job("b", 4), Job("c", 5), Job("s0", 2, spread="s"), Job("s1", 2, spread="s")]
    workers = [Worker("w-0", taking("a"), zone="x"), Worker("w-1", capacity=6, zone="x"), Worker("w-2", zone="y")]
    placement = place(jobs, workers, held(w_2="s0 s1 b c", w_0="a"))
    assert placement.assignment["w-0"] == ("a",)
    assert len({"s0", "s1"} & set(placement.assignment["w-1"])) == 1
    assert sum(jobs[[job.name for job in jobs].index(name)].weight for name in placement.assignment["w-1"]) <= 6


def test_one_job_is_shifted_so_that_another_has_a_place() -> None:
    jobs = [Job("big", 8), Job("small", 3), Job("tiny", 2)]
    workers = [Worker("w-0", capacity=9), Worker("w-1", capacity=5)]
    placement = place(jobs, workers, held(w_0="small", w_1="tiny"))
    assert not placement.unplaced
    assert placement.assignment == {"w-0": ("big",), "w-1": ("small", "tiny")} and placement.moves == 1


def test_more_light_jobs_rather_than_few_heavy_ones() -> None:
    placement = place([Job("heavy", 6), *named("light", 3, weight=2)], pool(1, capacity=6), {})
    assert placement.assignment == {"w-0": ("light0", "light1", "light2")}
    assert placement.unplaced == {"heavy": "without a class: weight 6, and room for 0 at most on w-0"}


def test_a_weighted_job_that_no_zone_takes_any_more() -> None:
    workers = [Worker("w-0", zone="x"), Worker("w-1", zone="y", capacity=0)]
    placement = place([*named("s", 3, spread="s"), Job("j", 2)], workers, {})
    assert placement.unplaced == {"s2": "without a class, spread s: weight 1, and room for 0 at most on w-1"}
    crowded = place([*named("s", 2, spread="s"), Job("d", 2, dedicated=True), Job("j", 2)], zoned("x", "y"), {})
    assert crowded.unplaced == {"s1": "without a class, spread s: the zones of w-1 take no more of this spread"}


def test_live_jobs_do_not_move_for_the_last_bit_of_balance() -> None:
    jobs = [Job(f"j{number}", 1 + number % 2) for number in range(400)]
    before = place(jobs, pool(2), {}).assignment
    after = place([*jobs, Job("new", 5)], pool(2), before)
    assert after.moves == 0 and after.imbalance <= 5


# -------------------------------------------------------------------------------------------------------------- why

WORKERS = [Worker("gpu-0", taking("", "gpu")), Worker("w-0"), Worker("w-1")]


@pytest.mark.parametrize(
    ("previous", "job", "said"),
    [
        ({"w-0": ["j0"]}, "j0", "j0 stays on w-0, which had it before."),
        ({}, "j0", "j0 is new and goes to "),
        ({"old-1": ["j0"]}, "j0", "as old-1, which had it, is gone."),
        ({"w-0": ["j0", "j1", "j2", "j3"]}, "j3", "j3 moves from w-0, which has no room for it any more, to w-1."),
        ({}, "g0", "Class gpu may run on 1 of 3 workers: gpu-0."),
        ({}, "j0", "has 2 jobs, each of the others 1 to 2."),
    ],
)
def test_why_a_job_is_where_it_is(previous: Mapping[str, list[str]], job: str, said: str) -> None:
    jobs = [*named("j", 4), Job("g0", group="gpu")]
    assert said in explain(job, jobs, WORKERS, previous, place(jobs, WORKERS, previous))


def test_why_a_job_is_nowhere_and_what_else_narrows_the_choice() -> None:
    jobs = [Job("x", group="a"), Job("d", dedicated=True), Job("s", spread="s")]
    placement = place(jobs, pool(2), {})
    assert explain("x", jobs, pool(2), {}, placement) == "x has no worker: class a: no worker takes it."
    assert "It is dedicated: no other job runs beside it." in explain("d", jobs, pool(2), {}, placement)
    assert "spread over the zones with the other jobs of s" in explain("s", jobs, pool(2), {}, placement)
    alone = place([Job("j")], pool(1), {})
    assert "it is the only worker" in explain("j", [Job("j")], pool(1), {}, alone)


def test_of_a_job_that_is_not_there_nothing_is_said() -> None:
    placement = place([Job("a")], pool(1), {})
    with pytest.raises(Malformed, match="name one of the jobs"):
        explain("b", [Job("a")], pool(1), {}, placement)
    with pytest.raises(Malformed, match="rebalance first"):
        explain("b", [Job("a"), Job("b")], pool(1), {}, placement)


# --------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("jobs", "workers", "message"),
    [
        ([Job("a"), Job("a")], [], "jobs is 'a': name it once"),
        ([Job("")], [], "give 1 to 253 characters"),
        ([Job("a" * 254)], [], "give 1 to 253 characters"),
        ([Job(7)], [], "name of one of the jobs is 7: give text"),
        ([Job("a", 0)], [], "weight of a job is 0: give a whole number from 1 on"),
        ([Job("a", "2")], [], "weight of a job is '2'"),
        ([Job("a", 1, None)], [], "give text, bool, text"),
        ([Job("a", 1, "", 1)], [], "give text, bool, text"),
        (
            [Job("a", 1, "x", False, "s"), Job("b", 1, "y", False, "s")],
            [],
            r"spread s is \['x', 'y'\]: give them one group",
        ),
        ([], [Worker("w"), Worker("w")], "workers is 'w': name it once"),
        ([], [Worker("")], "name of one of the workers"),
        ([], [Worker("w", capacity=-1)], r"workers\[w\].capacity is -1"),
        ([], [Worker("w", capacity=True)], r"workers\[w\].capacity is True"),
        ([], [Worker("w", takes="gpu")], r"workers\[w\].takes is 'gpu': give a set of groups"),
        ([], [Worker("w", zone=None)], r"workers\[w\].zone is None"),
    ],
)
def test_bad_input_is_refused_with_its_field_and_the_remedy(
    jobs: Sequence[Any], workers: Sequence[Any], message: str
) -> None:
    with pytest.raises(Malformed, match=message):
        place(jobs, workers, {})


@pytest.mark.parametrize("churn", [-1, "1"])
def test_a_churn_below_zero_is_refused(churn: Any) -> None:
    with pytest.raises(Malformed, match="churn"):
        place([], [], {}, churn=churn)


def test_jobs_and_workers_may_come_as_they_like() -> None:
    assert place(iter(named("j", 2)), iter(pool(1)), {}).assignment == {"w-0": ("j0", "j1")}
    assert place_names(("b", "a"), iter(["w-0"]), {"w-0": {"a"}}).assignment == {"w-0": ("a", "b")}

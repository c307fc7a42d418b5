# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the placement benchmark counts, that its bounds are bounds, its traces what they say, its peers at work."""

from __future__ import annotations

import itertools
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker, place

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import placement as bench
from bench import placement_child as child
from bench import placement_optimum, placement_traces
from bench import placement_report as report
from bench.placement_count import count
from bench.placement_optimum import Optimum, by_formula, by_solver
from bench.placement_peers import MODEL, OURS, PEERS, SOLVER
from bench.semaphore import Store

HAND = {"made": "by hand", "title": "t", "about": "a"}


def jobs(*names: str, **more: Any) -> list[Job]:
    return [Job(name, **more) for name in names]


def pool(*names: str, **more: Any) -> list[Worker]:
    return [Worker(name, **more) for name in names]


def solver() -> None:
    pytest.importorskip(SOLVER, reason="installed for the benchmarks only")


class TestTraces:
    def test_a_short_form_is_many_names(self) -> None:
        assert placement_traces.names("cam-{08..11}-hd") == ["cam-08-hd", "cam-09-hd", "cam-10-hd", "cam-11-hd"]
        assert placement_traces.names("stream:cctv0") == ["stream:cctv0"]

    def test_ordinals_are_numbers(self) -> None:
        assert sorted(["w-10", "w-2", "w"], key=placement_traces.ordinal) == ["w", "w-2", "w-10"]

    @pytest.mark.parametrize("name", placement_traces.GENERATED)
    def test_the_generator_makes_what_is_there(self, name: str) -> None:
        made = placement_traces.written(placement_traces.GENERATED[name]())
        assert made == (placement_traces.DIRECTORY / f"{name}.json").read_text()

    def test_all_traces_can_be_read_and_someone_is_always_there(self) -> None:
        traces = placement_traces.read_all()
        assert len(traces) > 10
        assert all(len(trace.pools) > 3 and trace.made for trace in traces)
        assert all(each.workers and each.jobs for trace in traces for each in trace.pools)

    def test_each_kind_of_placement_has_its_traces(self) -> None:
        methods = {
            trace.name: {place(each.jobs, each.workers, {}).method for each in trace.pools}
            for trace in placement_traces.read_all()
        }
        assert methods["growth"] == {"quota"}
        assert "flow" in methods["classes-churn"] and "flow" in methods["zones"]
        assert methods["weighted-streams"] == {"weighted"}

    def test_after_a_rolling_update_everybody_is_back(self) -> None:
        trace = placement_traces.read(placement_traces.DIRECTORY / "rolling-update-statefulset.json")
        first, last = (sorted(trace.pools[number].workers) for number in (0, -1))
        assert first == last and {len(each.workers) for each in trace.pools} == {11, 12}

    @pytest.mark.parametrize(
        "moment",
        [
            {"leave": ["worker-7"]},
            {"join": {"worker-0": {}}},
            {"drop": ["job-{0..2}"]},
            {"add": {"job-0": {"wait": 3}}},
            {"leaves": ["worker-0"]},
        ],
    )
    def test_a_moment_that_can_not_be_is_refused(self, moment: dict[str, Any], tmp_path: Path) -> None:
        start = {"at": "0:00", "what": "", "join": {"worker-{0..1}": {}}, "add": {"job-{0..1}": {}}}
        file = tmp_path / "bad.json"
        file.write_text(json.dumps({**HAND, "moments": [start, {"at": "0:01", "what": "", **moment}]}))
        with pytest.raises(ValueError, match=r"bad\.json"):
            placement_traces.read(file)


class TestCount:
    def test_a_move_is_a_live_job_that_leaves_a_worker_that_stays(self) -> None:
        before = {"a": ["1", "2", "ended"], "gone": ["3"]}
        found = count(jobs("1", "2", "3"), pool("a", "b"), before, {"a": ["1", "3"], "b": ["2"]})
        assert (found.moves, found.restarts, found.stayed) == (1, 1, 1)

    def test_a_job_that_has_no_worker_any_more_has_moved_too(self) -> None:
        found = count(jobs("1", "2"), pool("a"), {"a": ["1", "2"]}, {"a": ["1"]})
        assert (found.moves, found.unplaced) == (1, 1)

    def test_a_worker_whose_job_has_ended_restarts_and_one_with_the_same_jobs_does_not(self) -> None:
        before = {"a": ["1", "ended"], "b": ["2", "3"]}
        found = count(jobs("1", "2", "3"), pool("a", "b"), before, {"a": ["1"], "b": ["3", "2"]})
        assert (found.moves, found.restarts) == (0, 1)

    def test_loads_are_sums_of_weights_and_an_idle_worker_has_one_too(self) -> None:
        found = count([Job("1", 5), Job("2", 2)], pool("a", "b", "c"), {}, {"a": ["1"], "b": ["2"], "c": []})
        assert (found.imbalance, found.squares, found.heaviest) == (5, 29, 5)

    @pytest.mark.parametrize("now", [{"a": ["1"], "b": ["1"]}, {"a": ["2"]}, {"c": ["1"]}])
    def test_what_is_no_assignment_is_refused(self, now: dict[str, list[str]]) -> None:
        with pytest.raises(ValueError):
            count(jobs("1"), pool("a", "b"), {}, now)

    @pytest.mark.parametrize(
        ("listed", "workers", "by"),
        [
            (jobs("1", "2", group="gpu"), pool("a"), 2),
            (jobs("1", "2", "3"), pool("a", capacity=1), 2),
            ([Job("1", dedicated=True), *jobs("2", "3")], pool("a"), 2),
            (jobs("1", "2", "3", spread="s"), [*pool("a", zone="x"), *pool("b", zone="y")], 1),
            (jobs("1", "2", "3"), pool("a"), 0),
        ],
    )
    def test_broken_rules_are_counted_in_jobs(self, listed: list[Job], workers: list[Worker], by: int) -> None:
        assert count(listed, workers, {}, {"a": [job.name for job in listed]}).broken == by


def every(listed: list[Job], workers: list[Worker]) -> Iterator[dict[str, list[str]]]:
    """All assignments there are, jobs without a worker included."""
    for where in itertools.product([*workers, None], repeat=len(listed)):
        found: dict[str, list[str]] = {worker.name: [] for worker in workers}
        for job, worker in zip(listed, where, strict=True):
            if worker:
                found[worker.name].append(job.name)
        yield found


def best(listed: list[Job], workers: list[Worker], previous: dict[str, list[str]]) -> Optimum:
    """By looking at all of them."""
    counted = (count(listed, workers, previous, now) for now in every(listed, workers))
    orders = ((each.unplaced, each.squares, each.moves, each.restarts) for each in counted if not each.broken)
    unplaced, *others = min(orders)
    return Optimum(len(listed) - unplaced, *others)


class TestBounds:
    def test_the_formula_gives_the_best_of_all_placements(self) -> None:
        rng = random.Random(1)
        for _ in range(60):
            names = rng.sample("1234567", rng.randrange(0, 6))
            previous: dict[str, list[str]] = {worker: [] for worker in rng.sample("abcd", rng.randrange(0, 4))}
            for name in "1234567" if previous else "":
                previous[rng.choice(sorted(previous))].append(name)
            listed, workers = jobs(*names), pool(*rng.sample("abcd", rng.randrange(1, 4)))
            assert by_formula(listed, workers, previous) == best(listed, workers, previous)

    def test_the_solver_gives_the_best_of_all_placements(self) -> None:
        solver()
        rng = random.Random(2)
        for _ in range(40):
            listed = [
                Job(name, group=rng.choice(("", "gpu")), spread=rng.choice(("", "", "s")))
                for name in rng.sample("123456", rng.randrange(0, 6))
            ]
            workers = [
                Worker(name, frozenset(rng.sample(("", "gpu"), rng.randrange(1, 3))), rng.choice((None, 1, 2)), zone)
                for name, zone in rng.sample([("a", "x"), ("b", "y"), ("c", "x")], rng.randrange(1, 4))
            ]
            previous: dict[str, list[str]] = {worker: [] for worker in rng.sample("abcd", rng.randrange(1, 4))}
            for name in "123456":
                previous[rng.choice(sorted(previous))].append(name)
            assert by_solver(listed, workers, previous) == best(listed, workers, previous)

    def test_a_window_of_loads_gives_the_same(self) -> None:
        solver()
        listed, workers = jobs(*map(str, range(40))), pool("a", "b", "c")
        previous = {"a": [str(number) for number in range(30)], "b": [str(number) for number in range(30, 40)]}
        whole, window = (by_solver(listed, workers, previous, loads=loads) for loads in (None, range(12, 15)))
        assert whole[:3] == window[:3] == (40, 534, 16)

    def test_a_worse_placement_is_told_by_the_first_bound_that_it_misses(self) -> None:
        listed, workers, previous = jobs("1", "2", "3", "4"), pool("a", "b"), {"a": ["1", "2"], "b": ["3", "4"]}
        bound = by_formula(listed, workers, previous)
        missed = {}
        for name, now in {
            "swapped": {"a": ["1", "3"], "b": ["2", "4"]},
            "lopsided": {"a": ["1", "2", "3"], "b": ["4"]},
            "same": previous,
        }.items():
            found = bench._beside_bounds(count(listed, workers, previous, now), bound, 4)
            missed[name] = [key for key in ("less_placed", "less_level", "more_moves", "more_restarts") if found[key]]
        assert missed == {"swapped": ["more_moves"], "lopsided": ["less_level"], "same": []}


def peer_of_a_test(name: str) -> Any:
    """Of those that come with `make bench` only, a test that runs there."""
    return pytest.param(name, marks=() if PEERS[name].package in (MODEL, OURS, SOLVER) else pytest.mark.peers)


@pytest.mark.filterwarnings("ignore:(read|open)_text is deprecated:DeprecationWarning")  # in kafka-python
class TestPeers:
    @pytest.mark.parametrize("name", [peer_of_a_test(name) for name in PEERS])
    def test_each_places_every_job_where_it_may_run_and_then_lets_it_be(self, name: str) -> None:
        peer = PEERS[name]
        listed = [*jobs(*(f"plain-{number}" for number in range(40))), *jobs(*map(str, range(20)), group="gpu")]
        workers = [*pool("w-1", "w-2", "w-10"), *pool("w-11", "w-12", takes=frozenset({"gpu", ""}))]
        placer = peer.make()
        first = {worker: list(own) for worker, own in placer(listed, workers, {}).items()}
        found = count(listed, workers, first, placer(listed, workers, first))
        assert (found.unplaced, found.broken, found.moves, found.restarts) == (0, 0, 0, 0)

    @pytest.mark.parametrize("name", [peer_of_a_test(name) for name in ("ring", "ring-100", "rendezvous")])
    def test_a_worker_that_leaves_a_hash_moves_its_own_jobs_only(self, name: str) -> None:
        listed, workers, placer = jobs(*map(str, range(60))), pool("a", "b", "c", "d"), PEERS[name].make()
        first = {worker: list(own) for worker, own in placer(listed, workers, {}).items()}
        found = count(listed, workers[:-1], first, placer(listed, workers[:-1], first))
        assert found.unplaced == 0
        if name == "ring-100":
            assert found.imbalance <= 1 and max(map(len, first.values())) == 15
        else:
            assert found.moves == 0

    def test_the_original_cut_the_list_into_blocks(self) -> None:
        found = PEERS["blocks"].make()(jobs("c", "a", "b", "d", "e"), pool("w-10", "w-9"), {})
        assert found == {"w-9": ["a", "b"], "w-10": ["c", "d", "e"]}

    def test_a_package_that_is_not_installed_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(PEERS, "ring", PEERS["ring"]._replace(package="no-such-package"))
        assert bench.absent([OURS, "blocks", "ring"])["ring"] == "no-such-package is not installed"


class TestChild:
    def test_what_changes_at_size_is_what_it_says(self) -> None:
        case = child.CASES["classes"]
        listed, workers = case.pool()
        added, fewer = case.changed("added", listed, workers)[1], case.changed("removed", listed, workers)[1]
        edited = case.changed("edited", listed, workers)[0]
        assert (len(added), len(fewer), len(edited)) == (31, 29, 600)
        assert len(set(edited) - set(listed)) == 6
        assert case.pool() == (listed, workers) and len({job.group for job in listed}) == 6

    def test_permutations_of_what_depends_on_its_order_are_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert len(child.permutations(child.CASES["quota"], 3, seed=0)["digests"]) == 1

        def careless(listed: list[Job], workers: list[Worker], previous: Any) -> Any:
            return replace(place(listed, workers, previous), assignment={workers[0].name: (listed[0].name,)})

        monkeypatch.setattr(child, "place", careless)
        assert len(child.permutations(child.CASES["quota"], 3, seed=0)["digests"]) > 1

    def test_the_peak_is_that_of_what_comes_after(self) -> None:
        child.forget_peak()
        before = child.memory("VmHWM")
        block = bytearray(b"x") * (64 << 20)  # so large a block is never taken from what a process has already
        assert child.memory("VmHWM") - before > 60
        del block
        child.forget_peak()
        assert child.memory("VmHWM") < before + 60


class TestRun:
    def test_a_small_run_has_figures_for_every_place_of_the_page(self, tmp_path: Path) -> None:
        peers = tuple(name for name, peer in PEERS.items() if peer.package in (OURS, MODEL))
        scale = replace(
            bench.QUICK, random_plain=40, random_classes=2, seeds=1, cases=("quota",), peers=peers,
            traces=("scale-2-3-1", "zones", "weighted-streams"),
        )  # fmt: skip
        absent = bench.absent(peers)
        machine = {"cpu": "a CPU", "cores": 2, "memory_gib": 8, "kernel": "6", "system": "Debian", "python": "3.11"}
        machine |= {"packages": {}, "commit": "abc", "changed_files": 0, "at": "now", "load_1_min": 9.0}
        store = Store(tmp_path / "placement.json", {"machine": machine, "absent": absent}, bench.told)
        bench.measure(scale, (), store)
        assert report.faults(store.found) == []
        blocks = report.blocks(store.found)
        page = report.fill(report.PAGE, blocks)
        assert set(blocks) == {name for name in report.PLACES if name != "optimum" or SOLVER not in absent}
        assert report.BUSY in page and "| **Muster** |" in page
        assert store.found["random"]["plain"]["changes"] == 40
        assert store.found["speed"]["quota"]["nothing"]["moves"] == 0
        met = {target.what: target.met for target in report.targets(store.found)}
        assert met["max - min on the traces of equal jobs and workers"]
        assert not any(met[what] for what in met if what.startswith("permutations")), "four are not a thousand"

    def test_what_must_never_be_is_a_fault(self) -> None:
        bound = dict.fromkeys(("claims_wrong", "broken", "less_placed", "less_level", "more_moves", "more_restarts"), 0)
        fine = {"plain": {**bound, "more_restarts": 0}, "classes": {**bound, "more_restarts": 3}}
        assert report.faults({"random": fine}) == [], "restarts are exact on the quota path only"
        for kind, key in itertools.product(fine, bound):
            if (kind, key) != ("classes", "more_restarts"):
                assert report.faults({"random": {**fine, kind: {**bound, key: 2}}}) == [f"random, {kind}: {key} 2"]
        assert report.faults({"permutations": {"quota": {"digests": ["1", "2"]}}}) == [
            "permutations, quota: outcomes 1"
        ]

    def test_a_time_is_met_by_the_median_of_the_cpu_time(self) -> None:
        span = {"min": 0.1, "median": 0.14, "max": 0.9}
        each = {"seconds": {**span, "median": 0.4}, "cpu_seconds": span}
        late = {**each, "cpu_seconds": {**span, "median": 0.16}}
        found = {"speed": {"quota-100k": {"added": each, "removed": late, "nothing": late}}}
        assert [target.met for target in report.targets(found)] == [True, False]

    def test_another_outcome_in_another_process_is_no_figure(self) -> None:
        with pytest.raises(RuntimeError, match="another outcome"):
            bench.spans([{"seconds": 1, "moves": 3}, {"seconds": 2, "moves": 4}])
        assert bench.spans([{"seconds": 1, "moves": 3}, {"seconds": 2, "moves": 3}])["seconds"]["median"] == 1.5
        assert bench.spans([{"seconds": 1, "moves": 3}, {"over_s": 9}]) == {"runs": 2, "over_s": 9}

    def test_who_computes_too_long_is_ended_and_that_is_told(self) -> None:
        assert bench.child("change", "quota-1m", "added", patience=1) == {"over_s": 1}

    def test_the_bounds_need_no_more_than_a_pool(self) -> None:
        solver()
        assert placement_optimum.by_solver([], pool("a"), {}) == Optimum(0, 0, 0, 0)

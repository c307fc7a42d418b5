# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Moves, restarts and balance of Muster's placement beside hash rings and others, and how long it takes, in one run.

    python -m bench.placement                 the whole, about 25 minutes; writes docs/bench/placement.{json,md,png}
    python -m bench.placement --resume        goes on where an aborted run ended
    python -m bench.placement --quick         seconds, the same code, small numbers; writes build/bench/
    python -m bench.placement --part traces --trace growth --peer ring     only that; writes build/bench/

What is measured and how is told on the page itself (docs/bench/placement.md).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final, NamedTuple, TypeVar

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker, place
from bench.machine import CHECKOUT, facts, say, wait_until_quiet
from bench.placement_child import CHANGES
from bench.placement_count import Counted, count
from bench.placement_optimum import Optimum, by_formula, by_solver
from bench.placement_peers import MODEL, OURS, PEERS, SOLVER, Absent, Assignment, Peer, version
from bench.placement_traces import Pool, Trace, read_all
from bench.semaphore import Store

OUT, BUILD = CHECKOUT / "docs" / "bench", CHECKOUT / "build" / "bench"
PACKAGES = ("uhashring", "clandestined", "jump-consistent-hash", "kafka-python", SOLVER)
SPEED = ("quota-100k", "quota-1m", "classes-100k", "skewed-100k", "weighted-10k")
PERMUTED = ("quota", "classes", "weighted")
Named = TypeVar("Named", Job, Worker)
PATIENCE, LONG = 90, 600  # seconds of CPU time for one measurement in a process of its own; for HiGHS
SLOW = 10.0  # seconds of CPU time: once is enough to know


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int = 5  # of the traces: all peers in turn
    random_plain: int = 20_000  # random changes beside the formula
    random_classes: int = 2_000  # and beside HiGHS
    permutations: int = 1_000
    seeds: int = 10  # of Python's hashes, among which the permutations are divided
    repeats: int = 7  # of a change at size, each in a fresh process
    peer_repeats: int = 5
    cases: tuple[str, ...] = SPEED
    peer_cases: tuple[str, ...] = ("quota-10k",)
    optimum: tuple[tuple[str, str], ...] = (
        *(("classes-100k", change) for change in ("added", "removed", "edited")),
        *(("skewed-100k", change) for change in ("added", "removed")),
    )
    traces: tuple[str, ...] = ()
    peers: tuple[str, ...] = tuple(PEERS)


QUICK = Scale(
    rounds=1, random_plain=200, random_classes=5, permutations=4, seeds=2, repeats=1, peer_repeats=1, cases=PERMUTED,
    peer_cases=("quota",), optimum=(("classes", "added"),), traces=("scale-2-3-1", "zones", "dedicated"),
)  # fmt: skip


# ---------------------------------------------------------------------------------------------- traces


class Change(NamedTuple):
    """One change of a trace by one peer."""

    counted: Counted
    seconds: float


def replay(trace: Trace, peer: Peer) -> list[Change]:
    """The whole trace, each change from what the peer itself had before."""
    placer, changes = peer.make(), []
    previous: Assignment = {}
    for pool in trace.pools:
        jobs, workers = list(pool.jobs), list(pool.workers)
        began = time.perf_counter()
        now = placer(jobs, workers, previous)
        seconds = time.perf_counter() - began
        changes.append(Change(count(jobs, workers, previous, now), seconds))
        previous = {worker: list(own) for worker, own in now.items()}
    return changes[1:]


def summary(changes: Sequence[Change]) -> dict[str, Any]:
    """What the trace has cost in all, and how good what came out was."""
    counted = [change.counted for change in changes]
    return {
        "moves": sum(each.moves for each in counted),
        "restarts": sum(each.restarts for each in counted),
        "stayed": sum(each.stayed for each in counted),
        "imbalance_worst": max(each.imbalance for each in counted),
        "imbalance_mean": round(fmean(each.imbalance for each in counted), 2),
        "above_heaviest": sum(each.imbalance > max(1, each.heaviest) for each in counted),
        "unplaced": sum(each.unplaced for each in counted),
        "broken_worst": max(each.broken for each in counted),
    }


def beside(trace: Trace, peers: list[Peer], rounds: int) -> dict[str, Any]:
    """All peers on one trace, in turn, so often; what is counted is the same each time, what is timed is not."""
    figures: dict[str, dict[str, Any]] = {}
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for number in range(rounds):
        for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:
            changes = replay(trace, peer)
            times[peer.name].append(median(change.seconds for change in changes))
            found = summary(changes)
            if figures.setdefault(peer.name, found) != found:
                raise RuntimeError(f"{peer.name} on {trace.name}: another outcome in another round")
    for name, seconds in times.items():
        figures[name]["ms"] = round(median(seconds) * 1000, 3)
        if OURS in times:
            figures[name]["times_ours"] = round(median(map(float.__truediv__, seconds, times[OURS])), 3)
    return {name: figures[name] for name in times}


def bounds(trace: Trace) -> dict[str, Any]:
    """What the best placement of each change costs, from our own assignment before it, beside ours and its claims."""
    totals, times = Counter[str](), []
    for pool, previous in _our_chain(trace):
        jobs, workers = list(pool.jobs), list(pool.workers)
        ours = place(jobs, workers, previous)
        began = time.perf_counter()
        best = by_formula(jobs, workers, previous) if trace.is_plain else by_solver(jobs, workers, previous)
        times.append(time.perf_counter() - began)
        counted = count(jobs, workers, previous, ours.assignment)
        totals.update(_beside_bounds(counted, best, len(jobs)))
        totals["claims_wrong"] += (ours.moves, ours.restarts) != (counted.moves, counted.restarts)
    by = "formula" if trace.is_plain else SOLVER
    return {"by": by, **totals, "ms": round(median(times) * 1000, 3)}


def _our_chain(trace: Trace) -> Iterator[tuple[Pool, Assignment]]:
    """Each changed pool, with our assignment of the one before."""
    previous: Assignment = {}
    for before, after in pairwise(trace.pools):
        previous = place(before.jobs, before.workers, previous).assignment
        yield after, previous


def _beside_bounds(ours: Counted, best: Optimum, jobs: int) -> dict[str, int]:
    """What adds up over changes: the bounds, and how many changes missed one. A later one counts where all before it
    are reached, for else it bounds something else."""
    placed, level = jobs - ours.unplaced == best.placed, ours.squares == best.squares
    fewest = placed and level and ours.moves == best.moves
    return {
        "changes": 1,
        "moves": best.moves,
        "restarts": best.restarts,
        "ours_moves": ours.moves,
        "ours_restarts": ours.restarts,
        "less_placed": not placed,
        "less_level": placed and not level,
        "more_moves": placed and level and not fewest,
        "more_restarts": fewest and ours.restarts > best.restarts,
        "unproven": not best.proven,
    }


# ---------------------------------------------------------------------------------------------- random changes


class Chance:
    """A pool that changes by chance: each change flips a share of all jobs and workers that can be there."""

    def __init__(self, rng: random.Random, groups: Sequence[str] = ("",)) -> None:
        self._rng, plain = rng, len(groups) == 1
        spread = not plain and rng.random() < 0.3
        self._jobs = [
            Job(f"job-{number}", group=groups[number % len(groups)], spread="s" if spread and number % 6 == 0 else "")
            for number in range(rng.randrange(1, 150 if plain else 50))
        ]
        self._workers = [
            Worker(
                f"worker-{number}",
                frozenset(rng.sample(groups, rng.randrange(1, len(groups) + 1))),
                None if plain or rng.random() < 0.7 else rng.randrange(9),
                rng.choice("ab") if spread else "",
            )
            for number in range(rng.randrange(1, 25 if plain else 12))
        ]
        self.jobs, self.workers = self._flipped(self._jobs, [], 0.6), self._flipped(self._workers, [], 0.6)

    def change(self) -> None:
        """A little of one kind, or much of both."""
        jobs, workers = self._rng.choice(((0.02, 0.0), (0.0, 0.1), (0.05, 0.1), (0.5, 0.4)))
        self.jobs = self._flipped(self._jobs, self.jobs, jobs)
        self.workers = self._flipped(self._workers, self.workers, workers) or self._workers[:1]

    def previous(self) -> dict[str, list[str]]:
        """Who did what by chance: as lopsided as can be, some jobs nowhere."""
        names = [worker.name for worker in self.workers]
        found: dict[str, list[str]] = {name: [] for name in names}
        for job in self.jobs:
            if names and self._rng.random() < 0.9:
                found[names[int(len(names) * self._rng.random() ** 2)]].append(job.name)
        return found

    def _flipped(self, every: Sequence[Named], there: Sequence[Named], share: float) -> list[Named]:
        known = {each.name for each in there}
        return [each for each in every if (each.name in known) != (self._rng.random() < share)]


def random_changes(number: int, seed: int, groups: Sequence[str] = ("",)) -> dict[str, Any]:
    """So many random changes beside their bounds: half from a placement of ours, half from one by chance."""
    rng = random.Random(seed)
    totals: Counter[str] = Counter()
    chance = Chance(rng, groups)
    previous: Assignment = {}
    for each in range(number):
        if each % 20 == 0:
            chance = Chance(rng, groups)
        if rng.random() < 0.5:
            previous = chance.previous()
        chance.change()
        ours = place(chance.jobs, chance.workers, previous)
        best = (by_formula if len(groups) == 1 else by_solver)(chance.jobs, chance.workers, previous)
        counted = count(chance.jobs, chance.workers, previous, ours.assignment)
        totals.update(_beside_bounds(counted, best, len(chance.jobs)))
        totals["claims_wrong"] += (ours.moves, ours.restarts) != (counted.moves, counted.restarts)
        totals["broken"] += counted.broken
        previous = ours.assignment
    return dict(totals)


# ---------------------------------------------------------------------------------------------- fresh processes


def child(*arguments: str, hash_seed: str = "random", patience: int = PATIENCE) -> dict[str, Any]:
    """What bench/placement_child.py finds; `over_s` alone where it took more CPU time than that."""
    command = [sys.executable, "-m", "bench.placement_child", *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        command,
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (patience, patience)),
    )
    if done.returncode in (-signal.SIGKILL, -signal.SIGXCPU):
        return {"over_s": patience}
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"{' '.join(command[1:])} ended with {done.returncode}: {said}")
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line)
    return found


def spans(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Least, median and most of what is timed; what is counted has to be the same in all runs.

    Where one took too long, that is all there is to tell.
    """
    if over := [run for run in runs if "over_s" in run]:
        return {"runs": len(runs), **over[0]}
    measured = ("seconds", "cpu_seconds", "first_seconds", "mib_before", "mib_peak")
    counted = [{key: value for key, value in run.items() if key not in measured} for run in runs]
    if any(each != counted[0] for each in counted):
        raise RuntimeError(f"another outcome in another process: {counted}")
    both = {key: [run[key] for run in runs if key in run] for key in measured}
    return {
        "runs": len(runs),
        **{key: {"min": min(all_), "median": median(all_), "max": max(all_)} for key, all_ in both.items() if all_},
        **counted[0],
    }


def at_size(case: str, peers: Sequence[str], changes: Sequence[str], repeats: int) -> dict[str, Any]:
    """Each change of a case by each peer, in turn, each in a fresh process."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for number in range(repeats):
        for change in changes:
            for peer in peers:
                key = change if len(peers) == 1 else peer
                if any(run.get("cpu_seconds", SLOW) >= SLOW for run in runs.get(key, ())):
                    continue
                say(f"  {case}, {change}, {peer}: {number + 1} of {repeats}")
                runs.setdefault(key, []).append(child("change", case, change, "--peer", peer))
    return {key: spans(each) for key, each in runs.items()}


def permuted(case: str, number: int, seeds: int) -> dict[str, Any]:
    """The digests of all permutations, in as many processes as there are seeds."""
    digests: set[str] = set()
    for seed in range(seeds):
        found = child("permutations", case, str(number // seeds), "--seed", str(seed), hash_seed=str(seed))
        digests |= set(found["digests"])
    return {"permutations": number // seeds * seeds, "hash_seeds": seeds, "digests": sorted(digests)}


# ---------------------------------------------------------------------------------------------- the parts


def traces(scale: Scale, store: Store) -> None:
    """Every trace by every peer, and the bounds of ours."""
    for trace in chosen_traces(scale):
        peers = [PEERS[name] for name in scale.peers if name not in store.found["absent"]]
        about = {"title": trace.title, "about": trace.about, "made": trace.made, "changes": len(trace.pools) - 1}
        about |= {"plain": trace.is_plain, "jobs": _span(trace, "jobs"), "workers": _span(trace, "workers")}
        store.found.setdefault("about", {})[trace.name] = about
        store.measured("traces", trace.name, by=partial(beside, trace, peers, scale.rounds))
        bounded = not trace.is_weighted and not trace.has_dedicated  # NP-hard, and not in the program
        if OURS in scale.peers and bounded and (trace.is_plain or SOLVER not in store.found["absent"]):
            store.measured("bounds", trace.name, by=partial(bounds, trace))


def chosen_traces(scale: Scale) -> list[Trace]:
    return [trace for trace in read_all() if not scale.traces or trace.name in scale.traces]


def _span(trace: Trace, what: str) -> list[int]:
    sizes = [len(getattr(pool, what)) for pool in trace.pools]
    return [min(sizes), max(sizes)]


def random_part(scale: Scale, store: Store) -> None:
    """Random changes beside the formula and beside HiGHS."""
    store.measured("random", "plain", by=partial(random_changes, scale.random_plain, 21))
    if SOLVER not in store.found["absent"]:
        store.measured("random", "classes", by=partial(random_changes, scale.random_classes, 22, ("", "gpu", "large")))


def permutations(scale: Scale, store: Store) -> None:
    """The same bytes for any order of the input and any hash seed."""
    for case in PERMUTED:
        store.measured("permutations", case, by=partial(permuted, case, scale.permutations, scale.seeds))


def speed(scale: Scale, store: Store) -> None:
    """Ours at size."""
    for case in scale.cases:
        store.measured("speed", case, by=partial(at_size, case, (OURS,), CHANGES, scale.repeats))


def peers_at_size(scale: Scale, store: Store) -> None:
    """The others at the same size, one worker added; and HiGHS where there are classes."""
    peers = [name for name in scale.peers if name not in store.found["absent"]]
    for name, change in scale.optimum if SOLVER not in store.found["absent"] else ():
        store.measured(
            "optimum_at_size", f"{name}, {change}", by=partial(child, "optimum", name, change, patience=LONG)
        )
    for case in scale.peer_cases:
        store.measured("peers_at_size", case, by=partial(at_size, case, peers, ("added",), scale.peer_repeats))


PARTS: Final[dict[str, Callable[[Scale, Store], None]]] = {
    "traces": traces,
    "random": random_part,
    "permutations": permutations,
    "speed": speed,
    "peers": peers_at_size,
}


def measure(scale: Scale, parts: Sequence[str], store: Store) -> None:
    """The named parts (all when empty), as far as they are not in the store."""
    for part, figures in PARTS.items():
        if not parts or part in parts:
            say(f"== {part}, after {(time.monotonic() - store.begun) / 60:.1f} minutes")
            figures(scale, store)


def absent(peers: Sequence[str]) -> dict[str, str]:
    """Which peers, or the solver, are not here, and why."""
    found = {}
    for name, package in [*((name, PEERS[name].package) for name in peers), (SOLVER, SOLVER)]:
        try:
            if package not in (OURS, MODEL):
                version(package)
        except Absent as why:
            found[name] = str(why)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.placement", description=__doc__, formatter_class=form)
    parser.add_argument("--quick", action="store_true", help="small numbers, for trying it out; written to build/bench")
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="only this part; repeatable")
    parser.add_argument("--trace", action="append", default=[], help="only this trace; repeatable")
    parser.add_argument("--peer", action="append", default=[], choices=PEERS, help="only this one; repeatable")
    parser.add_argument("--resume", action="store_true", help="measure only what the JSON does not have yet")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (docs/bench or build/bench)")
    parser.add_argument("--wait", type=float, default=0, metavar="MINUTES", help="wait so long for a quiet machine")
    args = parser.parse_args(argv)
    if unknown := set(args.trace) - {trace.name for trace in read_all()}:
        parser.error(f"no such trace: {', '.join(sorted(unknown))}")
    partly = args.quick or args.part or args.trace or args.peer
    out: Path = args.out or (BUILD if partly else OUT)
    out.mkdir(parents=True, exist_ok=True)
    given: dict[str, Any] = {"traces": tuple(args.trace), "peers": tuple(args.peer)}
    scale = replace(QUICK if args.quick else Scale(), **{key: value for key, value in given.items() if value})
    quiet = wait_until_quiet(minutes=args.wait) if args.wait else None
    path = out / "placement.json"
    if args.resume and path.exists():
        found = json.loads(path.read_text())
        now = facts()
        found["machine"].setdefault("resumed", []).append({key: now[key] for key in ("at", "commit", "load_1_min")})
    else:
        found = {"machine": {**facts(PACKAGES), "was_quiet": quiet}, "absent": absent(scale.peers)}
    store = Store(path, {**found, "scale": vars(scale)}, told)
    measure(scale, args.part, store)
    store.found["machine"]["load_1_min_after"] = facts()["load_1_min"]
    store.save()
    say(f"written: {path}, after {store.found['minutes']} minutes")
    from bench import placement_report  # matplotlib takes a second and 100 MB: after the measuring

    placement_report.write(out)
    return 1 if placement_report.faults(store.found) else 0


def told(found: dict[str, Any] | None) -> str:
    """Figures in one line."""
    return json.dumps(found)


if __name__ == "__main__":
    sys.exit(main())

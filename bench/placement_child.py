# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One measurement of bench/placement.py in a process of its own; a JSON object on standard output.

python -m bench.placement_child change quota-100k added [--peer ring]      seconds and MiB of one change
python -m bench.placement_child permutations quota 100                     digests of the outcome, any order in
python -m bench.placement_child optimum classes-100k added                 the same change by HiGHS
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker, place
from bench.placement_count import count
from bench.placement_optimum import by_solver
from bench.placement_peers import OURS, PEERS

CHANGES: Final = ("added", "removed", "edited", "nothing")


class Case(NamedTuple):
    """A pool of so many jobs and workers. With classes, each worker takes three of them; `skewed`: the first class has
    most of the jobs, so that no placement is level."""

    jobs: int
    workers: int
    classes: int = 0
    skewed: bool = False
    weighted: bool = False

    def job(self, number: int, rng: random.Random) -> Job:
        share = rng.random() ** (3 if self.skewed else 1)
        group = f"class-{int(self.classes * share):02}" if self.classes else ""
        return Job(f"stream-{number:07}", int(1 + 99 * rng.random() ** 4) if self.weighted else 1, group)

    def worker(self, number: int) -> Worker:
        if not self.classes:
            return Worker(f"worker-{number}")
        taken = {number % self.classes, number * 7 % self.classes, number // self.classes % self.classes}
        return Worker(f"worker-{number}", frozenset(f"class-{each:02}" for each in taken))

    def pool(self) -> tuple[list[Job], list[Worker]]:
        rng = random.Random(1)
        return [self.job(number, rng) for number in range(self.jobs)], list(map(self.worker, range(self.workers)))

    def changed(self, change: str, jobs: list[Job], workers: list[Worker]) -> tuple[list[Job], list[Worker]]:
        """A worker more, the last worker less, one job of a hundred replaced, or nothing; lists of their own."""
        if change == "added":
            workers = [*workers, self.worker(len(workers))]
        elif change == "removed":
            workers = workers[:-1]
        elif change == "edited":
            rng = random.Random(2)
            gone = set(rng.sample(range(len(jobs)), len(jobs) // 100))
            fresh = [self.job(self.jobs + number, rng) for number in range(len(gone))]
            jobs = [job for number, job in enumerate(jobs) if number not in gone] + fresh
        return list(jobs), list(workers)


CASES: Final = {
    "quota-10k": Case(10_000, 100),
    "quota-100k": Case(100_000, 1_000),
    "quota-1m": Case(1_000_000, 2_000),
    "classes-100k": Case(100_000, 1_000, classes=20),
    "skewed-100k": Case(100_000, 1_000, classes=20, skewed=True),
    "weighted-10k": Case(10_000, 100, weighted=True),
    "quota": Case(600, 30),
    "classes": Case(600, 30, classes=6, skewed=True),
    "weighted": Case(300, 20, weighted=True),
}


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Its result, the seconds, and those of this process's CPU time."""
    began, used = time.perf_counter(), time.process_time()
    found = call()
    return found, time.perf_counter() - began, time.process_time() - used


def change(case: Case, kind: str, peer: str) -> dict[str, Any]:
    """One change after the placement from nothing, each timed; memory from the moment when all input is there."""
    jobs, workers = case.pool()
    placer = PEERS[peer].make()
    before, first, _ = timed(lambda: placer(jobs, workers, {}))
    previous = {worker: list(own) for worker, own in before.items()}
    del before
    more, others = case.changed(kind, jobs, workers)
    forget_peak()
    start = memory("VmRSS")
    after, seconds, cpu = timed(lambda: placer(more, others, previous))
    return {
        "seconds": round(seconds, 4),
        "cpu_seconds": round(cpu, 4),
        "first_seconds": round(first, 4),
        "mib_before": round(start, 1),
        "mib_peak": round(memory("VmHWM"), 1),
        **count(more, others, previous, after)._asdict(),
    }


def optimum(case: Case, kind: str) -> dict[str, Any]:
    """Fewest moves by HiGHS, and what ours has; where all jobs have a worker."""
    jobs, workers = case.pool()
    previous = place(jobs, workers, {}).assignment
    more, others = case.changed(kind, jobs, workers)
    found, _, ours = timed(lambda: place(more, others, previous))
    loads = [len(own) for own in found.assignment.values()]
    bound, _, seconds = timed(lambda: by_solver(more, others, previous, loads=range(min(loads) - 1, max(loads) + 2)))
    return {
        "unplaced": len(found.unplaced),
        "squares": sum(load**2 for load in loads),
        "moves": count(more, others, previous, found.assignment).moves,
        "cpu_seconds": round(ours, 4),
        "solver": {"placed": bound.placed, "squares": bound.squares, "moves": bound.moves},
        "solver_cpu_seconds": round(seconds, 3),
    }


def permutations(case: Case, number: int, seed: int) -> dict[str, Any]:
    """The digests of what comes out, from nothing and after a change, for shuffled input; one when all is well."""
    rng = random.Random(seed)
    jobs, workers = case.pool()
    previous = {worker: list(own) for worker, own in place(jobs, workers, {}).assignment.items()}
    more, others = case.changed("edited", *case.changed("added", jobs, workers))
    found = set()
    for _ in range(number):
        for each in (jobs, workers, more, others):
            rng.shuffle(each)
        shuffled = {
            worker: rng.sample(own, len(own)) for worker, own in rng.sample(sorted(previous.items()), len(previous))
        }
        both = (place(jobs, workers, {}), place(more, others, shuffled))
        text = json.dumps([[*map(_plain, (each.assignment.items(), each.unplaced.items()))] for each in both])
        found.add(hashlib.sha256(text.encode()).hexdigest())
    return {"digests": sorted(found)}


def _plain(pairs: Any) -> list[Any]:
    return [list(pair) for pair in pairs]


def forget_peak() -> None:
    """From now on the largest resident size is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")


def memory(field: str) -> float:
    """MiB of this process: VmRSS is resident now, VmHWM the most."""
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match
    return int(match[1]) / 1024


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.placement_child", description=__doc__, formatter_class=form)
    parser.add_argument("what", choices=("change", "permutations", "optimum"), help="what to measure")
    parser.add_argument("case", choices=CASES, help="the pool")
    parser.add_argument("argument", help="the change, or how many permutations")
    parser.add_argument("--peer", choices=PEERS, default=OURS, help="who places (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the permutations")
    args = parser.parse_args(argv)
    case = CASES[args.case]
    if args.what == "permutations":
        found = permutations(case, int(args.argument), args.seed)
    elif args.what == "optimum":
        found = optimum(case, args.argument)
    else:
        found = change(case, args.argument, args.peer)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

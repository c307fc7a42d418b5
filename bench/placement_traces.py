# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Membership traces: who is in a pool and what is to be done there, from change to change (bench/traces/*.json).

    python -m bench.placement_traces              which traces there are
    python -m bench.placement_traces --write      writes those that are generated anew: the same bytes each time

None is a recording of a cluster: some are written by hand as an operation looks from the pool, the others come from
the seeded generator below. A trace is `title`, `about`, `made` ("by hand", or by which seed) and `moments`. A moment
says what changes, in this order: `leave` (workers), `drop` (jobs), `join` (workers with their `takes`, `capacity`,
`zone`) and `add` (jobs with their `weight`, `group`, `dedicated`, `spread`). The first moment is the pool as it starts.
`camera-{08..11}` is a short form of four names.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker

DIRECTORY = Path(__file__).resolve().parent / "traces"
RANGE = re.compile(r"(.*)\{(\d+)\.\.(\d+)\}(.*)")
KEYS = {"at", "what", "leave", "drop", "join", "add"}
Named = TypeVar("Named", Job, Worker)
Moment = dict[str, Any]


class Pool(NamedTuple):
    """A pool at one moment. `at` is hours:minutes since the trace began, `what` has happened."""

    at: str
    what: str
    jobs: tuple[Job, ...]
    workers: tuple[Worker, ...]


@dataclass(frozen=True)
class Trace:
    """`pools[0]` is the start, each further one a change."""

    name: str
    title: str
    about: str
    made: str
    pools: tuple[Pool, ...]

    @cached_property
    def is_plain(self) -> bool:
        """Whether every job is like every other, and every worker, so that the quota path is taken."""
        jobs = all(job == Job(job.name) for pool in self.pools for job in pool.jobs)
        return jobs and all(worker == Worker(worker.name) for pool in self.pools for worker in pool.workers)

    @cached_property
    def is_weighted(self) -> bool:
        return any(job.weight != 1 for pool in self.pools for job in pool.jobs)

    @cached_property
    def has_dedicated(self) -> bool:
        return any(job.dedicated for pool in self.pools for job in pool.jobs)


def names(pattern: str) -> list[str]:
    """All names of a short form; a plain name is itself."""
    if not (match := RANGE.fullmatch(pattern)):
        return [pattern]
    before, first, last, after = match.groups()
    return [f"{before}{number:0{len(first)}}{after}" for number in range(int(first), int(last) + 1)]


def ordinal(name: str) -> tuple[str, int]:
    """A key that sorts worker-2 before worker-10, as the ordinals of a StatefulSet."""
    match = re.fullmatch(r"(.*?)(\d*)", name)
    assert match
    return match[1], int(match[2] or -1)


# ---------------------------------------------------------------------------------------------- reading


def read(path: Path) -> Trace:
    """One trace, with everything checked: what leaves was there, what joins was not."""
    document = json.loads(path.read_text())
    try:
        pools = tuple(_pools(document["moments"]))
        return Trace(path.stem, document["title"], document["about"], document["made"], pools)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {error!r}") from error


def read_all(directory: Path = DIRECTORY) -> list[Trace]:
    """All traces: the plain ones first, then those with classes, then the weighted ones."""
    traces = [read(path) for path in sorted(directory.glob("*.json"))]
    return sorted(traces, key=lambda trace: (not trace.is_plain, trace.has_dedicated, trace.is_weighted, trace.name))


def _pools(moments: Sequence[Moment]) -> Iterator[Pool]:
    jobs: dict[str, Job] = {}
    workers: dict[str, Worker] = {}
    for number, moment in enumerate(moments):
        if unknown := set(moment) - KEYS:
            raise ValueError(f"moment {number}: unknown {sorted(unknown)}")
        _forget(workers, moment.get("leave", ()))
        _forget(jobs, moment.get("drop", ()))
        for name, given in _each(moment.get("join", {})):
            takes = {"takes": frozenset(given["takes"])} if "takes" in given else {}
            _learn(workers, Worker(name, **{**given, **takes}))
        for name, given in _each(moment.get("add", {})):
            _learn(jobs, Job(name, **given))
        yield Pool(moment["at"], moment["what"], tuple(jobs.values()), tuple(workers.values()))


def _each(given: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((name, each) for pattern, each in given.items() for name in names(pattern))


def _learn(there: dict[str, Named], new: Named) -> None:
    if new.name in there:
        raise ValueError(f"{new.name} is there already")
    there[new.name] = new


def _forget(there: dict[str, Named], patterns: Iterable[str]) -> None:
    for name in (name for pattern in patterns for name in names(pattern)):
        del there[name]


# ---------------------------------------------------------------------------------------------- the generator


class Names:
    """Numbered names that are given out and taken back; a job's number is never given twice, a worker's is."""

    def __init__(self, kind: str, digits: int = 0) -> None:
        self.kind, self.digits, self.next = kind, digits, 0
        self.there: list[str] = []

    def join(self, count: int) -> list[str]:
        new = [f"{self.kind}-{self.next + each:0{self.digits}}" for each in range(count)]
        self.next += count
        self.there += new
        return new

    def leave(self, gone: Iterable[str]) -> list[str]:
        gone = sorted(gone, key=ordinal)
        self.there = [name for name in self.there if name not in set(gone)]
        return gone

    def shrink(self, count: int) -> list[str]:
        """The highest ordinals leave, as when a StatefulSet is scaled down, and are given out again."""
        self.next -= count
        return self.leave(self.there[len(self.there) - count :])


def growth() -> Moment:
    """No seed: one worker after the other."""
    moments = [_moment(0, "one worker has all jobs", join=["worker-0"], add=["job-{0000..0999}"])]
    moments += [_moment(number, "a worker more", join=[f"worker-{number}"]) for number in range(1, 100)]
    about = "1,000 jobs; the pool grows from one worker to a hundred, one worker a minute."
    return _trace("growth from 1 to 100, one by one", about, None, moments)


def autoscaling_day(seed: int = 11) -> Moment:
    """A load curve over 24 hours, looked at every ten minutes; up at once, down when it stays low for half an hour."""
    rng = random.Random(seed)
    jobs, workers = Names("job", 4), Names("worker")
    moments: list[Moment] = []
    wishes: list[int] = []
    for minute in range(0, 24 * 60 + 1, 10):
        level = 240 - 180 * math.cos(2 * math.pi * (minute / 60 - 4) / 24) + rng.uniform(-12, 12)
        ended = jobs.leave(rng.sample(jobs.there, len(jobs.there) // 40))
        more = round(level) - len(jobs.there)
        ended += jobs.leave(rng.sample(jobs.there, max(0, -more)))
        begun = jobs.join(max(0, more))
        wishes = [*wishes, math.ceil(len(jobs.there) / 20)][-4:]
        less = max(0, len(workers.there) - max(wishes))
        fewer, new = workers.shrink(less), workers.join(max(0, wishes[-1] - len(workers.there)))
        what = f"{len(jobs.there)} jobs, {len(workers.there)} workers"
        moments.append(_moment(minute, what, leave=fewer, drop=ended, join=new, add=begun))
    about = "Jobs come and go along the curve of a day; an autoscaler has one worker for each 20 jobs."
    return _trace("a day of autoscaling", about, seed, moments)


def random_churn(seed: int = 12) -> Moment:
    """Workers and jobs come and go by chance; any worker may leave, not the highest ordinal only."""
    rng = random.Random(seed)
    jobs, workers = Names("job", 5), Names("worker")
    moments = [_moment(0, "the start", join=workers.join(30), add=jobs.join(600))]
    for minute in range(1, 301):
        kind = rng.choice(("leave", "join", "jobs", "jobs"))
        count = rng.randrange(1, 4)
        if kind == "leave" and len(workers.there) > 20:
            changed = {"leave": workers.leave(rng.sample(workers.there, count))}
        elif kind == "join" and len(workers.there) < 40:
            changed = {"join": workers.join(count)}
        else:
            dropped = jobs.leave(rng.sample(jobs.there, rng.randrange(0, 13)))
            changed = {"drop": dropped, "add": jobs.join(rng.randrange(0, 13))}
        moments.append(_moment(minute, f"{kind} by chance", **changed))
    about = "About 30 workers and 600 jobs; in each of 300 changes some workers, or some jobs, come or go."
    return _trace("random churn", about, seed, moments)


CLASSES = {"": 120, "gpu": 60, "licensed": 40, "large": 30}
TAKES = (("",), ("",), ("", "gpu"), ("gpu", "large"), ("", "licensed"), ("licensed", "large"))


def classes_churn(seed: int = 13) -> Moment:
    """Four classes of jobs, six kinds of workers that take one or two of them."""
    rng = random.Random(seed)
    jobs = {group: Names(group or "plain", 3) for group in CLASSES}
    workers = {
        takes: Names("worker-" + "-".join(group or "plain" for group in takes)) for takes in dict.fromkeys(TAKES)
    }

    def join(number: int) -> dict[str, Moment]:
        takes = TAKES[number % len(TAKES)]
        return {name: {"takes": list(takes)} for name in workers[takes].join(1)}

    def add(group: str, count: int) -> dict[str, Moment]:
        return {name: {"group": group} if group else {} for name in _short(jobs[group].join(count))}

    pool = {name: given for number in range(18) for name, given in join(number).items()}
    start = {name: given for group, count in CLASSES.items() for name, given in add(group, count).items()}
    moments = [_moment(0, "the start", join=pool, add=start)]
    for minute in range(1, 81):
        kind, group = rng.choice(("leave", "join", "jobs")), rng.choice(sorted(CLASSES))
        there = [name for each in sorted(workers) if len(workers[each].there) > 1 for name in workers[each].there]
        changed: Moment
        if kind == "leave" and len(there) > 10:
            gone = rng.choice(there)
            changed = {"leave": next(each.leave([gone]) for each in workers.values() if gone in each.there)}
        elif kind != "jobs" and len(there) < 24:
            changed = {"join": join(rng.randrange(len(TAKES)))}
        else:
            dropped = jobs[group].leave(rng.sample(jobs[group].there, rng.randrange(0, 9)))
            changed = {"drop": dropped, "add": add(group, rng.randrange(0, 9))}
        moments.append(_moment(minute, f"{kind} by chance", **changed))
    about = "250 jobs of four classes; workers take one or two classes each; a worker, or jobs of a class, come or go."
    return _trace("classes, random churn", about, seed, moments)


WEIGHTS = {"audio": 1, "sd": 4, "hd": 12, "uhd": 40}


def weighted_streams(seed: int = 14) -> Moment:
    """Streams of four sizes."""
    rng = random.Random(seed)
    jobs, workers = {kind: Names(kind, 3) for kind in WEIGHTS}, Names("worker")

    def add(kind: str, count: int) -> dict[str, Moment]:
        return {name: {"weight": WEIGHTS[kind]} for name in _short(jobs[kind].join(count))}

    start = {name: given for kind in WEIGHTS for name, given in add(kind, 60 - WEIGHTS[kind]).items()}
    moments = [_moment(0, "the start", join=workers.join(12), add=start)]
    for minute in range(1, 101):
        move, kind = rng.choice(("leave", "join", "jobs", "jobs")), rng.choice(sorted(WEIGHTS))
        changed: Moment
        if move == "leave" and len(workers.there) > 8:
            changed = {"leave": workers.leave([rng.choice(workers.there)])}
        elif move == "join" and len(workers.there) < 16:
            changed = {"join": workers.join(1)}
        else:
            there = jobs[kind].there
            dropped = jobs[kind].leave(rng.sample(there, min(len(there), rng.randrange(0, 5))))
            changed = {"drop": dropped, "add": add(kind, rng.randrange(0, 5))}
        moments.append(_moment(minute, f"{move} by chance", **changed))
    about = "Streams of weight 1, 4, 12 and 40 on about 12 workers; a worker, or streams of one size, come or go."
    return _trace("weighted streams, random churn", about, seed, moments)


GENERATED: dict[str, Callable[[], Moment]] = {
    "growth": growth,
    "autoscaling-day": autoscaling_day,
    "random-churn": random_churn,
    "classes-churn": classes_churn,
    "weighted-streams": weighted_streams,
}


def written(document: Moment) -> str:
    """The text of a trace: a moment a line, so that a difference shows what has changed."""
    head = [f" {json.dumps(key)}: {json.dumps(document[key])}," for key in ("title", "about", "made")]
    moments = ",\n".join(f"  {json.dumps(moment)}" for moment in document["moments"])
    return "\n".join(["{", *head, ' "moments": [', moments, " ]", "}"]) + "\n"


def _trace(title: str, about: str, seed: int | None, moments: list[Moment]) -> Moment:
    made = "generated" if seed is None else f"generated, seed {seed}"
    return {"title": title, "about": about, "made": made, "moments": moments}


def _moment(minute: int, what: str, **changed: Any) -> Moment:
    """Only what changes; names in their short form."""
    moment: Moment = {"at": f"{minute // 60}:{minute % 60:02}", "what": what}
    for key in ("leave", "drop", "join", "add"):
        if given := changed.get(key):
            if key in ("join", "add") and not isinstance(given, dict):
                given = {name: {} for name in _short(given)}
            moment[key] = given
    return moment


def _short(given: Sequence[str]) -> list[str]:
    """One short form in place of many names that follow one another."""
    if len(given) < 2:
        return list(given)
    (before, first), (_, last) = ((*ordinal(name),) for name in (given[0], given[-1]))
    digits = [name.removeprefix(before) for name in (given[0], given[-1])]
    short = f"{before}{{{digits[0]}..{digits[1]}}}"
    if last - first + 1 != len(given) or names(short) != list(given):
        return list(given)
    return [short]


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.placement_traces", description=__doc__, formatter_class=form)
    parser.add_argument("--write", action="store_true", help="write the generated traces to --out")
    parser.add_argument("--out", type=Path, default=DIRECTORY, metavar="DIRECTORY", help="where to (bench/traces)")
    args = parser.parse_args(argv)
    if args.write:
        for name, make in GENERATED.items():
            (args.out / f"{name}.json").write_text(written(make()))
    for trace in read_all(args.out):
        kind = "plain" if trace.is_plain else "weighted" if trace.is_weighted else "classes"
        print(f"{trace.name:24} {kind:9} {len(trace.pools) - 1:4} changes, made {trace.made}: {trace.title}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

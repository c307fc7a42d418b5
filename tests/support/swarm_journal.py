# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges the journals of workers: no job ran on two of them at the same time. Needs nothing but Python.

swarm_journal.py PATH… [--jobs FILE] [--since NS] [--until NS] [--grace SECONDS]

Reads the files, and all files of the directories, and prints JSON. Exit status: 0 when no job ran twice, 1 when one
did, 2 when there was nothing to judge. With --jobs (one name a line) it also says for how long each of them ran
nowhere; with --since and --until at the same moment, which of them ran nowhere then.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

EVENTS = ("begin", "beat", "end")
SHOWN = 100  # of overlaps, gaps and lines that can't be read; all are counted


class Line(NamedTuple):
    """One line. `at` in nanoseconds of the clock that all workers of a machine share."""

    at: int
    worker: str
    uid: str
    run: str
    job: str
    event: str


class Interval(NamedTuple):
    """When a job ran. `is_ended`: its end was written; else its process was killed, or runs still, and `end` is the
    last that was heard of it."""

    begin: int
    end: int
    worker: str
    uid: str
    run: str
    is_ended: bool


class Overlap(NamedTuple):
    """Two processes ran the job at the same time, from `begin` to `end` at least."""

    job: str
    begin: int
    end: int
    first: Interval
    second: Interval


class Gap(NamedTuple):
    """Nobody ran the job."""

    job: str
    begin: int
    end: int


class Unreadable(NamedTuple):
    where: str
    text: str


Intervals = Mapping[str, Sequence[Interval]]  # by job, in order of their begin


# ------------------------------------------------------------------------------------------ reading


def files(paths: Iterable[Path]) -> list[Path]:
    """The files, and those of directories and of what is in them."""
    found: set[Path] = set()
    for path in paths:
        found.update(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else found.add(path)
    return sorted(found)


def lines(path: Path) -> Iterator[Line | Unreadable]:
    """All lines of a journal. One in the middle of which a process was killed can't be read; empty ones are none."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if raw.strip():
                yield _line(raw) or Unreadable(f"{path}:{number}", raw[:200].decode(errors="replace").rstrip())


def _line(raw: bytes) -> Line | None:
    try:
        found = json.loads(raw)
        line = Line(*(found[name] for name in Line._fields))
    except (ValueError, KeyError, TypeError):
        return None
    is_right = type(line.at) is int and line.event in EVENTS and all(isinstance(text, str) for text in line[1:])
    return line if is_right else None


def intervals(told: Iterable[Line]) -> dict[str, list[Interval]]:
    """When each job ran, of the lines of whole journals: those of one run in the order in which they were written."""
    found: dict[str, list[Interval]] = defaultdict(list)
    running: dict[tuple[str, str, str, str], tuple[int, int]] = {}

    def close(key: tuple[str, str, str, str], end: int, is_ended: bool) -> None:
        begin, _last = running.pop(key)
        found[key[0]].append(Interval(begin, end, *key[1:], is_ended))

    for line in told:
        key = (line.job, line.worker, line.uid, line.run)
        if line.event == "begin" and key in running:
            close(key, running[key][1], is_ended=False)
        begin = running[key][0] if key in running else line.at
        running[key] = (begin, line.at)
        if line.event == "end":
            close(key, line.at, is_ended=True)
    for key, (_begin, last) in list(running.items()):
        close(key, last, is_ended=False)
    return {job: sorted(each) for job, each in sorted(found.items())}


# ------------------------------------------------------------------------------------------ judging


def overlaps(found: Intervals) -> Iterator[Overlap]:
    """Each pair of intervals of one job that have time in common. Meeting in one instant is no overlap."""
    for job, each in found.items():
        open_ones: list[tuple[int, int]] = []  # end and number of those that may reach into the next
        for number, interval in enumerate(each):
            while open_ones and open_ones[0][0] <= interval.begin:
                heapq.heappop(open_ones)
            for _end, other in sorted(open_ones, key=lambda pair: pair[1]):
                first = each[other]
                if _overlap(first, interval):
                    yield Overlap(job, interval.begin, min(first.end, interval.end), first, interval)
            heapq.heappush(open_ones, (interval.end, number))


def _overlap(first: Interval, second: Interval) -> bool:
    return first.begin < second.end and second.begin < first.end


def owners(found: Intervals, at: int) -> dict[str, list[str]]:
    """The workers that ran each job at this moment; a job that nobody ran is not in it."""
    there = {job: [each.worker for each in had if each.begin <= at <= each.end] for job, had in found.items()}
    return {job: workers for job, workers in there.items() if workers}


def unowned(found: Intervals, jobs: Iterable[str], since: int, until: int, grace: int = 0) -> list[Gap]:
    """Where nobody ran these jobs between two moments, for longer than `grace` nanoseconds; or at one moment."""
    if since == until:
        return [Gap(job, since, since) for job in sorted(set(jobs).difference(owners(found, since)))]
    gaps = []
    for job in sorted(set(jobs)):
        free_from = since
        for interval in found.get(job, ()):
            if interval.end <= free_from:
                continue
            if interval.begin >= until:
                break
            gaps.append(Gap(job, free_from, interval.begin))
            free_from = interval.end
        gaps.append(Gap(job, free_from, until))
    return [gap for gap in gaps if gap.end - gap.begin > grace]


def workers(found: Intervals) -> dict[str, dict[str, int]]:
    """Of each worker: how many Pods it had, how often its process was started again, and its jobs' own restarts."""
    runs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    begins: dict[str, int] = defaultdict(int)
    pairs: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for job, each in found.items():
        for interval in each:
            runs[interval.worker].add((interval.uid, interval.run))
            pairs[interval.worker].add((interval.run, job))
            begins[interval.worker] += 1
    return {
        worker: {
            "pods": len({uid for uid, _run in runs[worker]}),
            "restarts": len(runs[worker]) - 1,
            "jobs": len({job for _run, job in pairs[worker]}),
            "job_restarts": begins[worker] - len(pairs[worker]),
        }
        for worker in sorted(runs)
    }


# ------------------------------------------------------------------------------------------ the report


def judge(
    paths: Iterable[Path],
    *,
    jobs: Iterable[str] | None = None,
    since: int | None = None,
    until: int | None = None,
    grace: int = 0,
) -> dict[str, Any]:
    """All that can be said; times in nanoseconds, durations in seconds."""
    unreadable: list[Unreadable] = []
    first, last, count = None, None, 0

    def readable() -> Iterator[Line]:
        nonlocal first, last, count
        for path in read:
            for line in lines(path):
                if isinstance(line, Unreadable):
                    unreadable.append(line)
                    continue
                first = line.at if first is None else min(first, line.at)
                last = line.at if last is None else max(last, line.at)
                count += 1
                yield line

    read = files(paths)
    found = intervals(readable())
    bad = list(overlaps(found))
    report: dict[str, Any] = {
        "files": len(read),
        "lines": count,
        "unreadable": len(unreadable),
        "unreadable_lines": [line._asdict() for line in unreadable[:SHOWN]],
        "jobs": len(found),
        "intervals": sum(map(len, found.values())),
        "begin": first,
        "end": last,
        "overlaps": len(bad),
        "overlapping": [_shown(overlap) for overlap in bad[:SHOWN]],
        "workers": workers(found),
    }
    if jobs is not None and first is not None and last is not None:
        since, until = first if since is None else since, last if until is None else until
        gaps = unowned(found, jobs, since, until, grace)
        report["gaps"] = len(gaps)
        report["longest_gap_seconds"] = max((_seconds(gap) for gap in gaps), default=0.0)
        report["unowned"] = [{**gap._asdict(), "seconds": _seconds(gap)} for gap in gaps[:SHOWN]]
    return report


def _shown(overlap: Overlap) -> dict[str, Any]:
    pair = {"first": overlap.first._asdict(), "second": overlap.second._asdict()}
    return {**overlap._asdict(), "seconds": _seconds(overlap), **pair}


def _seconds(span: Overlap | Gap) -> float:
    return (span.end - span.begin) / 1e9


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--jobs", type=Path, metavar="FILE", help="names of jobs that should run, one a line")
    parser.add_argument("--since", type=int, metavar="NS", help="from when on (default: the first line)")
    parser.add_argument("--until", type=int, metavar="NS", help="until when (default: the last line)")
    parser.add_argument("--grace", type=float, default=0.0, metavar="SECONDS", help="gaps up to this are none")
    args = parser.parse_args(arguments)
    missing = [str(path) for path in args.paths if not os.path.exists(path)]
    if missing:
        print(f"there is no {', '.join(missing)}", file=sys.stderr)
        return 2
    jobs = args.jobs.read_text().splitlines() if args.jobs else None
    report = judge(args.paths, jobs=jobs, since=args.since, until=args.until, grace=round(args.grace * 1e9))
    json.dump(report, sys.stdout, indent=1)
    print()
    if not report["lines"]:
        return 2
    return 1 if report["overlaps"] else 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges what replicas of a controller did. It shares no code with the product.

It reads what the processes wrote down (MUSTER_AUTHORITY_LOG, and the acts that the harness wrapped), what the harness
knows of their deaths, and what the cloud has counted and has. All times are nanoseconds of one monotonic clock.

- R2 no two intervals of authority of one scope overlap; their fences grow in the order in which they began; nothing is
  done with a fence before its interval began, nor once that of another has begun.
- R1 for each object that got a machine, one was made, and never two for any.
- R5, R6 each living object has one machine, of its own uid and size; there is no machine of anything else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

END_OF_TIME = 2**63


class Interval(NamedTuple):
    """So long somebody had authority over a scope, with this fence."""

    scope: str
    fence: int
    who: str
    begin: int
    end: int


class Act(NamedTuple):
    """A write outside the cluster that was not refused; when it was begun."""

    scope: str
    fence: int
    who: str
    at: int
    what: str


@dataclass
class Life:
    """One process: what it wrote down, and when it could do nothing.

    `died` is a moment at which it surely was dead, and nothing yet had told others so; None: it ended by itself.
    `frozen` are spans in which it was stopped; the end of one from which it never woke is its death.
    """

    name: str
    lines: Sequence[Mapping[str, Any]] = ()
    acts: Sequence[Act] = ()
    died: int | None = None
    frozen: Sequence[tuple[int, int]] = field(default_factory=list)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON lines of a file; a last one that was cut off by a death counts as not written."""
    if not path.exists():
        return []
    whole, _newline, _cut = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def intervals(life: Life) -> tuple[list[Interval], list[str]]:
    """When it had authority over what; and what is wrong with how it wrote that down."""
    found, wrong = [], []
    last = END_OF_TIME if life.died is None else life.died
    open_ones: dict[tuple[str, int, str], int] = {}
    for line in life.lines:
        key = (line["scope"], line["fence"], line["who"])
        if line["event"] == "begin":
            if key in open_ones:
                wrong.append(f"R2: {life.name} began {_told(key)} twice")
            open_ones[key] = line["at"]
        elif key in open_ones:
            begin = open_ones.pop(key)
            if line["at"] < begin:
                wrong.append(f"R2: {life.name} ended {_told(key)} before it began")
            found.append(Interval(*key, begin, min(line["at"], last)))
        else:
            wrong.append(f"R2: {life.name} ended {_told(key)}, which it never began")
    if open_ones and life.died is None:
        wrong += [f"R2: {life.name} ended by itself and never ended {_told(key)}" for key in open_ones]
    found += [Interval(*key, begin, last) for key, begin in open_ones.items()]
    return found, wrong


def awake(interval: Interval, frozen: Iterable[tuple[int, int]]) -> list[Interval]:
    """The parts of it in which the process was not stopped."""
    parts = [interval]
    for stop, go_on in frozen:
        cut = []
        for part in parts:
            if go_on <= part.begin or part.end <= stop:
                cut.append(part)
                continue
            cut += [part._replace(end=stop)] * (part.begin < stop) + [part._replace(begin=go_on)] * (go_on < part.end)
        parts = cut
    return parts


def judge_authority(lives: Iterable[Life]) -> list[str]:
    """All that must not be about who acted when; see R2."""
    active: dict[str, list[Interval]] = defaultdict(list)
    terms: dict[str, list[Interval]] = defaultdict(list)
    acts: dict[str, list[Act]] = defaultdict(list)
    wrong: list[str] = []
    for life in lives:
        own, found = intervals(life)
        wrong += found
        for interval in own:
            terms[interval.scope].append(interval)
            active[interval.scope] += awake(interval, life.frozen)
        for act in life.acts:
            acts[act.scope].append(act)
    for scope in sorted({*terms, *acts}):
        wrong += overlaps(active[scope]) + fences(terms[scope]) + outside(acts[scope], terms[scope])
    return wrong


def overlaps(found: Iterable[Interval]) -> list[str]:
    """Of one scope: two at one time."""
    wrong: list[str] = []
    latest: Interval | None = None
    for each in sorted(found, key=lambda each: (each.begin, each.end)):
        if latest is not None and each.begin < latest.end:
            both = (min(each.end, latest.end) - each.begin) / 1e6
            wrong.append(f"R2: {latest.who} and {each.who} both had {each.scope} for {both:.3f} ms")
        if latest is None or each.end > latest.end:
            latest = each
    return wrong


def fences(found: Iterable[Interval]) -> list[str]:
    """Of one scope: a fence that is not greater than the one before. A term that was paused goes on with its own."""
    ordered = sorted(found, key=lambda each: each.begin)
    return [
        f"R2: {after.scope} had the fence {after.fence} of {after.who} after {before.fence} of {before.who}"
        for before, after in pairwise(ordered)
        if (after.who, after.fence) != (before.who, before.fence) and after.fence <= before.fence
    ]


def outside(acts: Iterable[Act], found: Iterable[Interval]) -> list[str]:
    """Of one scope: what was done without authority, or with one that was another's by then.

    Between the end of a term and the next nobody is hurt: who asked in time, and sent a moment later, did no wrong.
    """
    began: dict[tuple[str, int], int] = {}
    for each in sorted(found, key=lambda each: each.begin):
        began.setdefault((each.who, each.fence), each.begin)
    following = dict(zip(began, [*list(began.values())[1:], END_OF_TIME], strict=False))
    return [
        f"R2: {act.who} did {act.what} of {act.scope} with fence {act.fence}, which was not its own then"
        for act in acts
        if not began.get((act.who, act.fence), END_OF_TIME) <= act.at < following.get((act.who, act.fence), 0)
    ]


def judge_creates(creates: Mapping[str, int], ran: Collection[str], known: Collection[str]) -> list[str]:
    """`creates` by uid as the cloud counted; `ran`: objects that once had a machine; `known`: all that ever were."""
    wrong = [f"R1: {count} machines were made for {uid}" for uid, count in creates.items() if count > 1]
    wrong += [f"R1: {uid} is Running, and no machine was made for it" for uid in ran if not creates.get(uid)]
    return wrong + [f"R6: a machine was made for {uid}, which never was" for uid in creates if uid not in known]


class Size(NamedTuple):
    cores: int
    memory: str


def judge_machines(machines: Iterable[Mapping[str, Any]], living: Mapping[str, Size]) -> list[str]:
    """What the cloud has, when all is quiet, beside the objects that live (by uid)."""
    wrong, found = [], dict.fromkeys(living, 0)
    for machine in machines:
        uid = machine["uid"]
        if uid not in living:
            wrong.append(f"R6: machine {machine['id']} ({machine['name']}) is an orphan of {uid}")
            continue
        found[uid] += 1
        if Size(machine["cores"], machine["memory"]) != living[uid]:
            wrong.append(f"R6: machine {machine['id']} of {uid} has another size than {living[uid]}")
    return wrong + [f"R6: {uid} has {count} machines" for uid, count in found.items() if count != 1]


def _told(key: tuple[str, int, str]) -> str:
    scope, fence, who = key
    return f"{scope} with fence {fence} as {who}"

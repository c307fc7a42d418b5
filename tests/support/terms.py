# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges what authorities recorded of themselves: no two had the same scope at the same time."""

from __future__ import annotations

import itertools
import json
import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple


class Note(NamedTuple):
    """One line of a record. `at` is in seconds of the monotonic clock."""

    event: str
    who: str
    scope: str
    fence: int
    at: float


class Interval(NamedTuple):
    begin: float
    end: float
    who: str
    fence: int


def read(path: Path) -> list[Note]:
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [Note(line["event"], line["who"], line["scope"], line["fence"], line["at"] / 1e9) for line in lines]


def intervals(notes: Iterable[Note], ended: Callable[[str], float] = lambda who: math.inf) -> dict[str, list[Interval]]:
    """By scope, in order. A process that finds out late notes an end that is past: so notes are paired by whose they
    are. `ended` says until when, at most, somebody had what it never noted the end of: it was killed.
    """
    had: dict[str, list[Interval]] = defaultdict(list)
    current: dict[tuple[str, str, int], float] = {}
    for note in notes:
        key = (note.scope, note.who, note.fence)
        if note.event == "begin":
            assert key not in current, f"{note} began twice"
            current[key] = note.at
        else:
            had[note.scope].append(Interval(current.pop(key), note.at, note.who, note.fence))
    for (scope, who, fence), at in current.items():
        had[scope].append(Interval(at, ended(who), who, fence))
    order = operator.attrgetter("begin", "end", "fence")
    return {scope: sorted(found, key=order) for scope, found in had.items()}


def never_overlap(found: dict[str, list[Interval]]) -> None:
    """And whoever comes later has a greater fence; the same one, where it is who was before."""
    for scope, each in found.items():
        for before, after in itertools.pairwise(each):
            assert before.end <= after.begin, f"{scope}: {before} and {after}"
            assert before.fence < after.fence or (before.fence, before.who) == (after.fence, after.who), (
                f"{scope}: {before} and {after}"
            )

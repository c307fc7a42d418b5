# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who led from when to when, and how long nobody did: read from the lines that replicas wrote. Pure.

All times are seconds of the machine's one monotonic clock, so those of different processes compare.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from bench.contend import percentiles


class Line(NamedTuple):
    """One line of a replica: it is `ready`, and leads from `begin` to `end`."""

    at: float
    who: str
    event: str
    fence: int


class Term(NamedTuple):
    """For how long a replica believed that it led; a killed one until it was killed."""

    who: str
    begin: float
    end: float
    fence: int


class Round(NamedTuple):
    """One change of leader."""

    asked: float  # SIGTERM or SIGKILL was sent
    ended: float  # the old one's authority was over
    begun: float  # the new one's authority began
    seen_free: float | None  # a watcher saw the Lease given back
    seen_taken: float  # a watcher saw the new one in the Lease


def lines(text: str) -> list[Line]:
    """The finished lines of a log, in the order of their moments."""
    found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return sorted(Line(each["at"] / 1e9, each["who"], each["event"], int(each.get("fence") or 0)) for each in found)


def is_of(who: str, replica: str) -> bool:
    """Whether an identity is that of the replica: its name, with or without a uid and a run after it."""
    return who == replica or who.startswith(f"{replica}_")


def terms(log: Iterable[Line], deaths: Mapping[str, float], now: float) -> list[Term]:
    """All terms in the order of their begin; `deaths`: when replicas had ended, by name. Who still leads, does now."""
    found: list[Term] = []
    for line in log:
        if line.event == "begin":
            died = min((at for name, at in deaths.items() if is_of(line.who, name)), default=now)
            found.append(Term(line.who, line.at, max(died, line.at), line.fence))
        elif line.event == "end":
            of_it = [number for number, term in enumerate(found) if term.who == line.who]
            if of_it:
                found[of_it[-1]] = found[of_it[-1]]._replace(end=min(found[of_it[-1]].end, line.at))
    return found


def overlaps(found: Sequence[Term]) -> int:
    """How often one began while another still led."""
    latest, count = float("-inf"), 0
    for term in found:
        count += term.begin < latest
        latest = max(latest, term.end)
    return count


def fences_not_growing(found: Sequence[Term]) -> int:
    """How often a fence was not above the one before, which was another's; who gives out none has none to grow."""
    return sum(
        after.fence <= before.fence for before, after in pairwise(found) if before.fence and after.who != before.who
    )


def figures(rounds: Sequence[Round]) -> dict[str, Any]:
    """Seconds: between the two authorities, from the signal on, and without a leader in the eyes of a watcher."""
    gaps = [each.begun - each.ended for each in rounds]
    return {
        "rounds": len(rounds),
        "gap_s": percentiles(gaps),
        "after_signal_s": percentiles([each.begun - each.asked for each in rounds]),
        "watched_s": percentiles([each.seen_taken - (each.seen_free or each.ended) for each in rounds]),
        "gaps_s": sorted(round(gap, 5) for gap in gaps),
    }

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `muster swarm` shows: a plan, how Swarms stand (once or with `--watch`), and why a job is where it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from muster.live import Found, age, fitted, listed, since
from muster.table import bar, plain

Report = Mapping[str, Any]
Lines = list[str | list[str]]  # a list in it is one that may be shortened, after its heading

BAR: Final = 20  # signs of the longest bar
MOST_MOVES: Final = 20  # that a plan lists
MOST_UNPLACED: Final = 20


# ---------------------------------------------------------------------------------------------- a plan


def plan_text(plan: Report, width: int = 0) -> str:
    """A plan as `local_cli.planned` makes it; `width` in characters, if it is not 0, is kept."""
    largest = max((one["load"] for one in plan["workers"]), default=0)
    rows = [
        (one["name"], len(one["jobs"]), one["load"], _bar(one["load"], largest), _change(one), one["version"])
        for one in plan["workers"]
    ]
    parts: Lines = [_summary(plan)]
    if rows:
        parts += ["", *listed(("WORKER", "JOBS", "LOAD", "", "CHANGE", "VERSION"), rows, width)]
    moved = [(one["job"], f"{one['from']}{' (gone)' if one['gone'] else ''}", one["to"]) for one in plan["moved"]]
    parts += ["", *_some(("JOB", "FROM", "TO"), moved, MOST_MOVES, width)] if moved else []
    parts += _unplaced(plan["unplaced"], width, MOST_UNPLACED)
    for why in plan["why"].values():
        parts += ["", plain(why)]
    return _joined(parts)


def _summary(plan: Report) -> str:
    placed = sum(len(one["jobs"]) for one in plan["workers"])
    told = [
        f"{_counted(placed, 'job')} on {_counted(len(plan['assignment']), 'worker')} ({plan['method']}):",
        f"{plan['moves']} move{_least(plan['least_moves'])},",
        f"{_counted(plan['restarts'], 'worker')} that had a list before {'gets' if plan['restarts'] == 1 else 'get'}",
        f"another{_least(plan['least_restarts'])}, imbalance {plan['imbalance']}",
    ]
    return " ".join(told)


def _least(number: int | None) -> str:
    return "" if number is None else f" (fewest: {number})"


def _change(one: Report) -> str:
    if one["gone"]:
        return "gone"
    told = [f"+{one['gets']}" if one["gets"] else "", f"-{one['loses']}" if one["loses"] else ""]
    return " ".join([*filter(None, told), *(["new"] if one["new"] else [])]) or "="


# ---------------------------------------------------------------------------------------------- how Swarms stand


def swarms_text(found: Found, width: int = 0) -> str:
    """Swarms as `verbs.swarm_info.told` tells of them."""
    now = time.time()
    return "\n\n".join(_joined(_swarm(one, width, now)) for one in found)


def _swarm(one: Report, width: int, now: float, clock: str = "") -> Lines:
    kind = "Swarm" if one["name"] else "ConfigMap"
    title = f"{kind} {one['namespace']}/{one['name'] or one['config_map']}"
    parts: Lines = [f"{title}  {_state(one)}{clock}"]
    if one["error"]:
        parts.append(f"  {plain(one['error'])}")
    workers = one["workers"]
    if workers:
        loads = [worker["jobs"] if worker["load"] is None else worker["load"] for worker in workers]
        rows = [
            (
                worker["name"],
                worker["jobs"],
                load,
                _bar(load, max(loads)),
                worker["version"],
                worker["applied"],
                worker["state"],
            )
            for worker, load in zip(workers, loads, strict=True)
        ]
        parts += listed(("WORKER", "JOBS", "LOAD", "", "WANTED", "RUNS", "STATE"), rows, width)
    if one["waits_for"]:
        waits = one["waits_for"]
        how_long = f" for {since(waits['since'], now)}" if waits.get("since") else ""
        parts += ["", f"  held up by {plain(waits['worker'])}{how_long}: {plain(waits['reason'])}"]
    if one["rebalance"]:
        parts += ["", f"  {_rebalance(one['rebalance'], now)}"]
    return [*parts, *_unplaced(one["unschedulable"], width)]


def _state(one: Report) -> str:
    if one["jobs"] is None:
        return "its operator has not told anything yet"
    told = [f"{_counted(one['jobs'], 'job')} on {_counted(len(one['workers']), 'worker')}"]
    told += [f"{one['unplaced']} unplaced"] if one["unplaced"] else []
    told += ["paused"] if one["paused"] else []
    told += ["converged" if one["converged"] else "on its way"]
    told += [f"kept by {plain(one['manager'] or 'nobody')}"] if not one["name"] else []
    return ", ".join(told)


def _rebalance(last: Report, now: float) -> str:
    when = f"{since(last['time'], now)} ago" if last.get("time") else "some time ago"
    moves = f"{last.get('moves', '?')} moved{_least(last.get('least_moves'))}"
    restarts = f"{last.get('restarts', '?')} changed{_least(last.get('least_restarts'))}"
    return plain(
        f"placed {when} ({last.get('method', '?')}): {moves}, {restarts}, imbalance {last.get('imbalance', '?')}"
    )


@dataclass
class Swarms:
    """The picture of `muster swarm status --watch`."""

    where: str
    found: Found | None = None
    at: float = 0.0  # when it was read
    key: str = "swarms"
    title: str = "Swarm "

    def take(self, found: Found, now: float) -> None:
        self.found, self.at = found, now

    def gist(self, found: Found) -> Any:
        return found

    def text(self, found: Found) -> str:
        return swarms_text(found) or f"there is no Swarm in {self.where}"

    def lines(self, width: int, height: int, now: float, trouble: str = "") -> list[str]:
        """At most `height` lines of at most `width` characters. Lists that don't fit say how many they leave out."""
        if self.found is None:
            lines = [f"muster: {plain(trouble)}" if trouble else f"reading the Swarms of {self.where} …"]
        else:
            clock = f"  {datetime.fromtimestamp(now):%H:%M:%S}"
            parts: list[Lines] = [[*_swarm(one, width, now, clock), ""] for one in self.found]
            if trouble:
                parts.insert(0, [f"seen {age(now - self.at)} ago: {plain(trouble)}", ""])
            if not self.found:
                parts.append([f"there is no Swarm in {self.where} yet; Ctrl-C ends"])
            lines = fitted(parts, height)
        return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines[:height]]


# ---------------------------------------------------------------------------------------------- why


def explanation_text(why: Report) -> str:
    """An explanation as `verbs.swarm_info` gives it."""
    lines = [why["why"]]
    if why["state"] == "moving":
        has = f"{', '.join(why['leaving'])} may still run it" if why["leaving"] else f"{why['worker']} has it now"
        lines.append(f"It is on its way: {has}.")
    lines += [f"Held up by {worker}: {reason}." for worker, reason in why["waits_for"].items()]
    return "\n".join(map(plain, lines))


# ---------------------------------------------------------------------------------------------- parts


def _bar(load: int, largest: int) -> str:
    """A bar that compares it with the largest."""
    return bar({"held": round(BAR * load / largest) if largest else 0, "free": 0}) or " "


def _unplaced(unplaced: Mapping[str, str], width: int, most: int | None = None) -> Lines:
    if not unplaced:
        return []
    headings = ("NO WORKER", "WHY")
    rows = sorted(unplaced.items())
    return ["", *(listed(headings, rows, width) if most is None else _some(headings, rows, most, width))]


def _some(headings: Sequence[str], rows: Sequence[Sequence[Any]], most: int, width: int) -> Lines:
    """The first of them, and how many more there are."""
    shown = listed(headings, rows[:most], width)
    return [*shown, f"  … and {len(rows) - most} more"] if len(rows) > most else shown


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _joined(parts: Iterable[str | list[str]]) -> str:
    lines = [line for part in parts for line in ([part] if isinstance(part, str) else part)]
    return "\n".join(lines).rstrip("\n")

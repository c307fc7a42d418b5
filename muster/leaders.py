# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `muster leaders` and `muster shards` show, once or with `--watch`; as `verbs.lease_info` returns it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import leadership
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout
from muster.live import Found, age, fitted, listed, since
from muster.table import plain

Report = Mapping[str, Any]
Alive = Callable[[Report], str]  # what is to be said of the life of a Lease's holder

HEADINGS = ("LEASE", "HOLDER", "TERM", "FENCE", "FOR")
MOVES = {
    leadership.REVOKED: "its owner ends its work on it",
    leadership.UNOWNED: "is taken next",
    leadership.ORPHANED: "its owner is gone",
}
PASSING = ("renewed", "until")  # change without there being news


# ---------------------------------------------------------------------------------------------- once


def leaders_text(leases: Found, width: int = 0) -> str:
    """The leaders, as a table; `width` in characters, if it is not 0, is kept."""
    parts = _leaders(leases, width, time.time(), "STATE", _state, everywhere=_are_several(leases))
    return _joined(parts)


def shards_text(controller: Report, width: int = 0) -> str:
    """A sharded controller, its members, and what is being handed over."""
    return _joined(_controller(controller, width, time.time(), "STATE", _state))


def key_text(controller: Report, key: str) -> str:
    """Whose a key is."""
    name = f"{controller['namespace']}/{controller['name']}"
    if not controller["layout"]:
        return plain(f"{name}: {controller['error'] or 'there is no table yet: try again when a replica runs'}")
    one = controller["shards"][Layout(**controller["layout"]).shard_of(key)]
    whose = f"owned by {one['member']} (fence {one['fence']})" if one["owner"] else "owned by nobody"
    if one["state"] in MOVES:
        whose += f", moving to {one['wanted'] or 'nobody'}: {MOVES[one['state']]}"
    return plain(f"key {key} of {name} is of shard {one['shard']}, {whose}")


def _joined(parts: Sequence[str | list[str]]) -> str:
    lines = [line for part in parts for line in ([part] if isinstance(part, str) else part)]
    return "\n".join(lines).rstrip("\n")


def _state(lease: Report) -> str:
    return str(lease["state"])


def _are_several(leases: Found) -> bool:
    return len({lease["namespace"] for lease in leases}) > 1


# ---------------------------------------------------------------------------------------------- what both draw


def _leaders(
    leases: Found, width: int, now: float, heading: str, alive: Alive, *, everywhere: bool
) -> list[str | list[str]]:
    """Lines; a list in it is one that may be shortened, after its heading."""
    if not leases:
        return []
    rows = [(*_place(lease, everywhere), *_row(lease, now), alive(lease)) for lease in leases]
    headings = (*(("NAMESPACE",) if everywhere else ()), *HEADINGS, heading)
    return [*listed(headings, rows, width), *_remarks(leases, everywhere)]


def _place(lease: Report, everywhere: bool) -> tuple[str, ...]:
    return (lease["namespace"], lease["name"]) if everywhere else (lease["name"],)


def _row(lease: Report, now: float) -> tuple[Any, ...]:
    return lease["pod"], lease["transitions"], lease["fence"], _since(lease, now)


def _since(lease: Report, now: float) -> str | None:
    return since(lease["since"], now) if lease["since"] else None


def _remarks(leases: Sequence[Report], everywhere: bool = False) -> list[str | list[str]]:
    """What is wrong, one line for each."""
    told = [("/".join(_place(one, everywhere)), one[key]) for one in leases for key in ("error", "remark") if one[key]]
    return ["", *(f"  {plain(f'{name}: {text}')}" for name, text in told)] if told else []


def _controller(
    one: Report, width: int, now: float, heading: str, alive: Alive, clock: str = ""
) -> list[str | list[str]]:
    present = [member for member in one["members"] if member["holder"] or member["owns"]]
    title = f"Shards {one['namespace']}/{one['name']}"
    parts: list[str | list[str]] = [f"{title}  {_summary(one, len(present))}{clock}"]
    if one["error"]:
        parts.append(f"  {plain(one['error'])}")
    if present:
        rows = [
            (m["pod"], m["fence"], _since(m, now), alive(m), _owned(m), leadership.ranges(m["owns"])) for m in present
        ]
        parts += listed(("MEMBER", "FENCE", "FOR", heading, "OWNS", "SHARDS"), rows, width)
    if one["handovers"]:
        parts += ["", *listed(("FROM", "TO", "STATE", "SHARDS"), _moves(one["handovers"]), width)]
    return [*parts, *_remarks(present), *_mismatches(one, present)]


def _moves(handovers: Sequence[Report]) -> list[tuple[Any, ...]]:
    """Those from one member to another in one line."""
    alike: dict[tuple[Any, ...], list[int]] = {}
    for one in handovers:
        alike.setdefault((one["from"], one["to"], one["state"]), []).append(one["shard"])
    return [(*key, leadership.ranges(shards)) for key, shards in alike.items()]


def _summary(one: Report, present: int) -> str:
    told = [_counted(present, "member")]
    if one["layout"]:
        told.insert(0, f"{one['layout']['shards']} ({one['layout']['strategy']})")
        told.append(f"{len(one['handovers'])} moving" if one["handovers"] else "settled" if one["settled"] else "")
    elif not one["error"]:
        told.append("no table yet")
    return ", ".join(filter(None, told))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _owned(member: Report) -> str:
    owns, wanted = len(member["owns"]), len(member["wanted"])
    return str(owns) if owns == wanted else f"{owns} → {wanted}"


def _mismatches(one: Report, present: Sequence[Report]) -> list[str | list[str]]:
    """What keeps a controller from being settled though nothing is handed over."""
    unserved = [shard["shard"] for shard in one["shards"] if shard["state"] == leadership.UNSERVED]
    lines: list[str | list[str]] = []
    if unserved:
        lines += ["", f"  nobody is there for {leadership.ranges(unserved)}"]
    layouts = Counter(_layout(m["layout"]) for m in present if m["layout"] and m["layout"] != one["layout"])
    if one["layout"] and layouts:
        wish = ", ".join(f"{layout} ({_counted(number, 'member')})" for layout, number in sorted(layouts.items()))
        lines += ["", f"  another layout is asked for: {wish}; it comes when nobody owns a shard any more"]
    return lines


def _layout(layout: Report) -> str:
    return f"{layout['shards']} by {layout['strategy']}"


# ---------------------------------------------------------------------------------------------- with --watch


class Pulse(NamedTuple):
    """What changes with each renewal, and since when (seconds on the picture's clock) it is seen unchanged."""

    beat: tuple[Any, ...]
    since: float


@dataclass
class Pulses:
    """Since when each Lease is seen unchanged: this, and no time that is written in it, is what others go by."""

    known: dict[tuple[str, str], Pulse] = field(default_factory=dict)

    def take(self, leases: Sequence[Report], now: float) -> None:
        before, self.known = self.known, {}
        for lease in leases:
            key, beat = _key(lease), (lease["holder"], lease["transitions"], lease["renewed"])
            old = before.get(key)
            self.known[key] = old if old and old.beat == beat else Pulse(beat, now)

    def alive(self, now: float) -> Alive:
        """What is to be said at `now`."""

        def say(lease: Report) -> str:
            if lease["state"] not in (leadership.HELD, leadership.LEAVING):
                return _state(lease)
            silent = now - self.known[_key(lease)].since
            over = ": over" if silent >= lease["seconds"] else ""
            leaving = "leaving, " if lease["state"] == leadership.LEAVING else ""
            return f"{leaving}{age(silent)} of {lease['seconds']}s{over}"

        return say


def _key(lease: Report) -> tuple[str, str]:
    return lease["namespace"], lease["name"]


def _gist(value: Any) -> Any:
    """Without what changes with each renewal."""
    if isinstance(value, Mapping):
        return {key: _gist(one) for key, one in value.items() if key not in PASSING}
    return [_gist(one) for one in value] if isinstance(value, list) else value


@dataclass
class _Picture:
    """What both have in common."""

    where: str
    found: Found | None = None
    at: float = 0.0  # when it was read
    pulses: Pulses = field(default_factory=Pulses)

    def gist(self, found: Found) -> Any:
        return _gist(found)

    def lines(self, width: int, height: int, now: float, trouble: str = "") -> list[str]:
        """At most `height` lines of at most `width` characters. Lists that don't fit say how many they leave out."""
        if self.found is None:
            lines = [f"muster: {plain(trouble)}" if trouble else f"reading {self.where} …"]
        else:
            # while nothing can be read, nobody's silence counts
            alive = self.pulses.alive(self.at if trouble else now)
            parts = self.parts(self.found, width, now, alive)
            if trouble:
                parts.insert(0, [f"seen {age(now - self.at)} ago: {plain(trouble)}", ""])
            lines = fitted(parts, height)
        return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines[:height]]

    def parts(self, found: Found, width: int, now: float, alive: Alive) -> list[Sequence[str | list[str]]]:
        raise NotImplementedError


@dataclass
class Leaders(_Picture):
    """The leaders of a namespace, or of all."""

    everywhere: bool = False
    key: str = "leases"
    title: str = "Leaders "

    def take(self, found: Found, now: float) -> None:
        self.found, self.at = found, now
        self.pulses.take(found, now)

    def text(self, found: Found) -> str:
        return leaders_text(found) or "there is no Lease"

    def parts(self, found: Found, width: int, now: float, alive: Alive) -> list[Sequence[str | list[str]]]:
        counts = Counter(lease["state"] for lease in found)
        told = ", ".join(f"{number} {state}" for state, number in sorted(counts.items())) or "there is no Lease yet"
        title = f"Leaders of {self.where}  {told}  {datetime.fromtimestamp(now):%H:%M:%S}"
        return [[title, *_leaders(found, width, now, "SILENT", alive, everywhere=self.everywhere), ""]]


@dataclass
class Shards(_Picture):
    """Sharded controllers of a namespace."""

    key: str = "controllers"
    title: str = "Shards "

    def take(self, found: Found, now: float) -> None:
        self.found, self.at = found, now
        self.pulses.take([member for one in found for member in one["members"]], now)

    def text(self, found: Found) -> str:
        return "\n\n".join(map(shards_text, found)) or "there is no sharded controller"

    def parts(self, found: Found, width: int, now: float, alive: Alive) -> list[Sequence[str | list[str]]]:
        clock = f"  {datetime.fromtimestamp(now):%H:%M:%S}"
        if not found:
            return [[f"there is no {self.where} yet; Ctrl-C ends"]]
        return [[*_controller(one, width, now, "SILENT", alive, clock), ""] for one in found]

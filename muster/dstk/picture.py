# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `muster partitions` shows: a key space as a strip, and below it workers, operations and ranges.

On the strip each worker has a letter. A partition is as wide as its share of the possible keys, but never nothing as
long as there is room for all.
"""

from __future__ import annotations

import itertools
import os
import string
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TextIO

from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import PRINTABLE, Range
from ansible_collections.muster.coordination.plugins.module_utils.verbs import partitions as verbs
from muster.live import Found, age, fitted, listed, since
from muster.table import cut, plain

Report = Mapping[str, Any]
Lines = list[str | list[str]]  # a list in it is one that may be shortened, after its heading

LETTERS: Final = string.ascii_uppercase + string.ascii_lowercase
UNSERVED, FENCED, GAP = "·", "!", " "
WIDTH: Final = 100  # characters, where it is no terminal
LEAST, INDENT = 20, "  "
COLOURS: Final = (36, 32, 35, 34, 33, 96, 92, 95, 94, 93)  # of the letters, in turns
ALARM: Final = 31  # for what nobody serves
LATE: Final = 1.0  # seconds after its end in which a Lease may still be renewed


# ---------------------------------------------------------------------------------------------- the strip


@dataclass(frozen=True, slots=True)
class Strip:
    """`cells` has one character for each column; `ticks` the bounds below it, as far as they fit."""

    cells: str
    ticks: str


def strip(space: Report, letters: Mapping[str, str], width: int) -> Strip:
    """The key space in `width` columns."""
    parts = [(each["start"], each["end"], _sign(each, letters)) for each in space["partitions"]]
    parts += [(gap["start"], gap["end"], GAP) for gap in space["gaps"]]
    parts.sort()
    alphabet = space["alphabet"]
    places = [_place(start, alphabet) for start, _end, _sign_of in parts] + [1.0]
    if len(parts) > width:
        return Strip("".join(_sampled(parts, places, width)), "")
    columns = _columns([high - low for low, high in itertools.pairwise(places)], width)
    cells = "".join(sign * number for (_start, _end, sign), number in zip(parts, columns, strict=True))
    starts = itertools.accumulate(columns, initial=0)
    return Strip(
        cells, _ticks([(at, start) for at, (start, _end, _sign_of) in zip(starts, parts, strict=False)], width)
    )


def _sign(partition: Report, letters: Mapping[str, str]) -> str:
    if partition["fenced"]:
        return FENCED
    return letters.get(partition["primary"], "?") if partition["primary"] else UNSERVED


def _place(bound: str, alphabet: str) -> float:
    """Where a bound is among all keys, 0 to 1."""
    place, share = 0.0, 1.0
    for character in bound[:12]:
        share /= len(alphabet)
        place += share * max(0, alphabet.find(character))
    return place


def _columns(shares: Sequence[float], width: int) -> list[int]:
    """Columns in proportion, at least one for each; their sum is the width."""
    spare = width - len(shares)
    total = sum(shares) or 1.0
    exact = [share / total * spare for share in shares]
    columns = [1 + int(each) for each in exact]
    most_left = sorted(range(len(shares)), key=lambda index: int(exact[index]) - exact[index])
    for index in most_left[: width - sum(columns)]:
        columns[index] += 1
    return columns


def _sampled(parts: Sequence[tuple[str, str, str]], places: Sequence[float], width: int) -> Iterable[str]:
    """Of more partitions than columns: the one in the middle of each; but what is wrong anywhere in it comes first."""
    index = 0
    for column in range(width):
        low, high = column / width, (column + 1) / width
        signs = []
        while index < len(parts) and places[index] < high:
            signs.append(parts[index][2])
            index += 1
        wrong = [sign for sign in (GAP, UNSERVED, FENCED) if sign in signs]
        signs = signs or [parts[max(0, index - 1)][2]]
        yield wrong[0] if wrong and low < 1 else signs[len(signs) // 2]


def _ticks(bounds: Sequence[tuple[int, str]], width: int) -> str:
    line = ""
    for at, bound in bounds:
        label = plain(bound) or "-"
        if at >= len(line) + (1 if line else 0) and at + 1 + len(label) <= width:
            line = f"{line.ljust(at)}╵{label}"
    return line


# ---------------------------------------------------------------------------------------------- one key space


@dataclass
class Shown:
    """The lines of one key space, and what of them is coloured."""

    parts: Lines = field(default_factory=list)
    strips: set[str] = field(default_factory=set)
    alarms: set[str] = field(default_factory=set)  # ranges that nobody serves
    letters: dict[str, str] = field(default_factory=dict)


def shown(space: Report, width: int, now: float, clock: str = "") -> Shown:
    """A key space as `verbs.partitions.look` tells it."""
    told = Shown(letters=_letters(space))
    told.parts.append(f"KeySpace {space['namespace']}/{space['name']}  {_keys(space)}{clock}")
    if space["error"]:
        told.parts.append(f"{INDENT}{plain(space['error'])}")
        return told
    told.parts.append(f"{INDENT}{_state(space)}")
    if space["message"]:
        told.parts.append(f"{INDENT}{plain(space['message'])}")
    if not space["partitions"]:
        told.parts.append(f"{INDENT}no partition yet: every key is in a gap")
    else:
        drawn = strip(space, told.letters, max(LEAST, (width or WIDTH) - 2 * len(INDENT)))
        told.strips.add(INDENT + drawn.cells.rstrip())
        told.parts += ["", INDENT + drawn.cells.rstrip(), *([INDENT + drawn.ticks] if drawn.ticks else [])]
    told.parts += _workers(space, told.letters, width, now)
    told.parts += _operations(space, width, now)
    lost = {each["name"] for each in space["workers"] if _health(each, now).startswith(("lost", "ended"))}
    told.parts += _ranges(space, told, lost, width)
    return told


def _letters(space: Report) -> dict[str, str]:
    names = [each["name"] for each in space["workers"]]
    names += sorted({each["primary"] for each in space["partitions"] if each["primary"]} - set(names))
    return {name: LETTERS[index % len(LETTERS)] for index, name in enumerate(names)}


def _state(space: Report) -> str:
    told = [_counted(len(space["partitions"]), "partition")]
    told += [f"{space['unserved']} unserved"] if space["unserved"] else []
    told.append(_counted(sum(1 for each in space["workers"] if each["incarnation"]), "worker"))
    told.append("all keys covered" if space["covered"] else _counted(len(space["gaps"]), "gap"))
    told += [_counted(len(space["operations"]), "operation")] if space["operations"] else []
    return ", ".join(told)


def _keys(space: Report) -> str:
    alphabet = space["alphabet"]
    of = "any" if alphabet == PRINTABLE else cut(alphabet, 40)
    return f"keys of {_counted(space['key_length'], 'character')}: {of}"


def _workers(space: Report, letters: Mapping[str, str], width: int, now: float) -> Lines:
    rows = [
        (f"{letters[each['name']]} {each['name']}", each["partitions"], _health(each, now), each["address"])
        for each in space["workers"]
    ]
    known = {each["name"] for each in space["workers"]}
    for name in sorted(letters.keys() - known):
        count = sum(1 for each in space["partitions"] if each["primary"] == name)
        rows.append((f"{letters[name]} {name}", count, "has no Lease", ""))
    return ["", *listed(("WORKER", "PARTITIONS", "STATE", "ADDRESS"), rows, width)] if rows else []


def _health(worker: Report, now: float) -> str:
    if not worker["incarnation"]:
        return "ended"
    try:
        silent = now - datetime.fromisoformat(worker["renewed"]).timestamp()
    except ValueError:
        return "?"
    if silent > worker["lease_seconds"] + LATE:
        return f"lost, {age(silent)}"
    return "leaving" if worker["leaving"] else "ready"


def _operations(space: Report, width: int, now: float) -> Lines:
    rows = [
        (each["name"], each["phase"], about(each), since(each["created"], now), each["message"])
        for each in space["operations"]
    ]
    return ["", *listed(("OPERATION", "PHASE", "WHAT", "FOR", "WHY"), rows, width)] if rows else []


def about(operation: Report) -> str:
    """What an operation does, in a few words."""
    names, kind = operation["partitions"], operation["type"]
    first = names[0] if names else "?"
    if kind == operations.SPLIT:
        return f"split {first} at {operation['split_key']}"
    if kind == operations.MERGE:
        return f"merge {' '.join(names)}"
    if kind == operations.MOVE:
        return f"move {first}: {operation['from']} → {operation['to']}"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"give {first}{more} to {operation['to'] or 'workers'}"


def _ranges(space: Report, told: Shown, lost: set[str], width: int) -> Lines:
    entries = [
        (each["start"], _row(each, told.letters, lost), each["primary"] in {"", *lost}) for each in space["partitions"]
    ]
    entries += [
        (gap["start"], (str(Range(gap["start"], gap["end"])), "", "", "", "gap"), True) for gap in space["gaps"]
    ]
    if not space["partitions"]:
        return []
    entries.sort(key=lambda entry: entry[0])
    heading, rows = listed(
        ("RANGE", "PARTITION", "WORKER", "EPOCH", "STATE"), [row for _at, row, _is in entries], width
    )
    told.alarms |= {line for line, (_at, _row_of, is_alarm) in zip(rows, entries, strict=True) if is_alarm}
    return ["", heading, rows]


def _row(partition: Report, letters: Mapping[str, str], lost: set[str]) -> tuple[Any, ...]:
    whole = str(Range(partition["start"], partition["end"]))
    followers, worker = partition["followers"], partition["primary"]
    worker = f"{letters[worker]} {worker}" if worker else ""
    worker += f" ({partition['proxy']} passes on)" if partition["proxy"] else ""
    worker += f" (+{len(followers)})" if followers else ""
    return whole, partition["name"], worker, partition["epoch"], standing(partition, lost)


def standing(partition: Report, lost: Collection[str] = ()) -> str:
    """How it stands, in a few words; `lost`: workers that are."""
    if partition["fenced"]:
        return f"handed over by {partition['operation'] or '?'}"
    told = "served" if partition["primary"] else "unserved"
    told = "its worker is lost" if partition["primary"] in lost else told
    if partition["operation"]:
        told += f", {partition['operation']}"
    return told + (f": {partition['message']}" if partition["message"] else "")


# ---------------------------------------------------------------------------------------------- once, and live


def spaces_text(found: Found, width: int = 0, *, colours: bool = False) -> str:
    """All key spaces, as text; `width` in characters, if it is not 0, is kept."""
    now, texts = time.time(), []
    for space in found:
        told = shown(space, width, now)
        lines = [line for part in told.parts for line in ([part] if isinstance(part, str) else part)]
        kept = [line if not width or len(line) <= width else f"{line[: width - 1]}…" for line in lines]
        texts.append("\n".join(painted(line, told) if colours else line for line in kept))
    return "\n\n".join(texts)


@dataclass
class Spaces:
    """The picture of `muster partitions list --watch`."""

    where: str
    colours: bool = False
    found: Found | None = None
    at: float = 0.0  # when it was read
    key: str = "key_spaces"
    title: str = "KeySpace "
    drawn: list[Shown] = field(default_factory=list)

    def take(self, found: Found, now: float) -> None:
        self.found, self.at = found, now

    def gist(self, found: Found) -> Any:
        """Without what a Lease changes every second or two."""
        return [{**each, "workers": [{**one, "renewed": ""} for one in each["workers"]]} for each in found]

    def text(self, found: Found) -> str:
        return spaces_text(found) or f"there is no KeySpace in {self.where}"

    def lines(self, width: int, height: int, now: float, trouble: str = "") -> list[str]:
        """At most `height` lines of at most `width` characters. Lists that don't fit say how many they leave out."""
        if self.found is None:
            lines = [f"muster: {plain(trouble)}" if trouble else f"reading the key spaces of {self.where} …"]
        else:
            clock = f"  {datetime.fromtimestamp(now):%H:%M:%S}"
            self.drawn = [shown(space, width, now, clock) for space in self.found]
            parts: list[Lines] = [[*one.parts, ""] for one in self.drawn]
            if trouble:
                parts.insert(0, [f"seen {age(now - self.at)} ago: {plain(trouble)}", ""])
            if not self.found:
                parts.append([f"there is no KeySpace in {self.where} yet; Ctrl-C ends"])
            lines = fitted(parts, height)
        return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines[:height]]

    def paint(self, line: str) -> str:
        """The line in colours, as it is written."""
        for told in self.drawn if self.colours else ():
            if (coloured := painted(line, told)) != line:
                return coloured
        return line


def painted(line: str, told: Shown) -> str:
    """A strip, or the letter of a worker, in colours; any other line as it is."""
    if line.startswith("KeySpace "):
        return f"\033[1m{line}\033[0m"
    codes = {letter: COLOURS[index % len(COLOURS)] for index, letter in enumerate(told.letters.values())}
    codes |= {UNSERVED: ALARM, FENCED: ALARM}
    if line in told.alarms:
        return f"\033[{ALARM}m{line}\033[0m"
    if line in told.strips:
        runs = ((sign, len(list(run))) for sign, run in itertools.groupby(line))
        return "".join(
            f"\033[{codes[sign]}m{sign * many}\033[0m" if sign in codes else sign * many for sign, many in runs
        )
    letter = _letter_of(line, told)
    return f"{INDENT}\033[{codes[letter]}m{letter}\033[0m{line[len(INDENT) + 1 :]}" if letter else line


def _letter_of(line: str, told: Shown) -> str:
    """The letter of the worker whose row this is; "" where it is another line."""
    words = line.split()
    is_row = len(words) > 1 and line[len(INDENT) : len(INDENT) + 2] == f"{words[0]} "
    return words[0] if is_row and told.letters.get(words[1]) == words[0] else ""


def has_colours(out: TextIO) -> bool:
    """On a terminal that is not a dumb one, unless NO_COLOR says no."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


# ---------------------------------------------------------------------------------------------- what came of it


def partition_text(partition: Report) -> str:
    """One partition, in a line for people."""
    whole = Range(partition["start"], partition["end"])
    worker = f"at {partition['primary']}" if partition["primary"] else "served by nobody"
    told = f"{partition['name']} {whole} {worker}, epoch {partition['epoch']}"
    if partition["proxy"]:
        told += f"; {partition['proxy']} passes requests on"
    if partition["fenced"] or partition["operation"]:
        told += f"; {standing(partition)}"
    return plain(told)


def done_text(done: verbs.Result) -> str:
    """What came of something that was asked for."""
    operation = done["assignment"]
    if not operation:
        heads = ["it is so already"]
    elif operation["phase"] == operations.COMPLETED:
        heads = [f"{operation['name']}: {about(operation)}: completed"]
    else:
        state = "asked for" if done["changed"] else "was asked for before"
        why = f", {operation['message']}" if operation["message"] else ""
        heads = [f"{operation['name']}: {about(operation)}: {state}, {operation['phase']}{why}"]
    return "\n".join([*map(plain, heads), *(f"{INDENT}{partition_text(each)}" for each in done["partitions"])])


def explanation_text(told: Report, now: float) -> str:
    """Why a partition is where it is, as `partitions_cli.explained` tells it."""
    lines = [partition_text(told["partition"])]
    worker, operation, by = told["worker"], told["operation"], told["assigner"]
    if worker:
        lines.append(f"worker {worker['name']} is {_health(worker, now)}")
    elif told["partition"]["primary"]:
        lines.append(f"worker {told['partition']['primary']} has no Lease: it is lost")
    for each in ([operation] if operation else []) + list(told["queued"]):
        waits = f": {each['message']}" if each["message"] else ""
        lines.append(f"{each['name']} ({about(each)}) is {each['phase']} for {since(each['created'], now)}{waits}")
    lines += [f"{each['name']} ({about(each)}) was aborted: {each['message']}" for each in told["aborted"]]
    if by:
        lines.append(f"the assigner: {by.get('why') or 'says nothing'}")
        lines += [f"the assigner plans it for worker {by['plannedFor']}"] if by.get("plannedFor") else []
        lines += [f"the assigner waits: {by['waitsFor']}"] if by.get("waitsFor") else []
    return "\n".join(map(plain, lines))


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster distributor status --watch`: a live picture in the terminal.

Watches say that something moved; only then it is read. Between two moves nothing is asked for, and only ages change.
"""

from __future__ import annotations

import json
import queue
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    Api,
    ApiError,
    Forbidden,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import said
from ansible_collections.muster.coordination.plugins.module_utils.decisions.tickets import LABEL
from muster.table import bar, plain, semaphore_text, table, wanted

BREATH = 0.1  # seconds at least between two reads, however much moves
TICK = 1.0  # seconds between two pictures while nothing moves
BARS = 30  # permits that a bar shows one by one; of more it shows the share
Look = Callable[[], list[dict[str, Any]]]


def watch(
    api: Api, namespace: str, names: Sequence[str], engine: str | None, look: Look, *, as_json: bool, out: TextIO
) -> int:
    """Show what `look` reads, whenever it has changed, until Ctrl-C or SIGTERM. Returns the exit status."""
    inbox: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
    followers = _follow(api, namespace, names, engine, inbox.put)
    show: Screen | Lines = Screen(out, namespace) if out.isatty() and not as_json else Lines(out, as_json)

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    if isinstance(show, Screen):
        signal.signal(signal.SIGWINCH, lambda *_args: inbox.put("resized"))
    try:
        with show:
            _loop(inbox, look, show, followers)
    except KeyboardInterrupt:
        pass
    return 0


def _loop(inbox: queue.SimpleQueue[str | Exception], look: Look, show: Screen | Lines, followers: int) -> None:
    """For ever: read when something moved, show what there is."""
    trouble, refused = "", []
    while True:
        moved = False
        try:
            news = inbox.get(timeout=TICK)
            while True:
                if isinstance(news, Forbidden):  # who asks for both engines may be allowed to see only one
                    refused.append(news)
                    if len(refused) == followers:
                        raise news
                elif isinstance(news, Exception):
                    raise news
                elif news.startswith("trouble "):
                    trouble = news.removeprefix("trouble ")
                else:
                    moved = moved or news == "moved"
                    trouble = "" if news == "moved" else trouble
                news = inbox.get_nowait()
        except queue.Empty:
            pass
        if moved:
            try:
                show.found(look())
                time.sleep(BREATH)
            except ApiError as error:
                trouble = str(error)
                inbox.put("moved")  # to read again
                time.sleep(TICK)
        show.draw(trouble)


def _follow(
    api: Api, namespace: str, names: Sequence[str], engine: str | None, tell: Callable[[str | Exception], None]
) -> int:
    """Start to watch, from threads; how many there are."""
    told: list[dict[str, Any]] = []
    if engine != "tickets":
        told += [{"resource": CONFIGMAPS, "name": name} for name in names or (None,)]
    if engine != "annotations":
        told += [{"resource": LEASES, "label_selector": f"{LABEL}={name}"} for name in names]
        told += [] if names else [{"resource": LEASES, "label_selector": LABEL}]

    def run(what: Mapping[str, Any]) -> None:
        try:
            for change in api.follow(namespace=namespace, metadata_only=True, **what):
                tell(f"trouble {change.error}" if isinstance(change, Trouble) else "moved")
        except Exception as error:
            tell(error)

    for what in told:
        threading.Thread(target=run, args=(what,), daemon=True).start()
    return len(told)


# ---------------------------------------------------------------------------------------------- as lines


class Lines:
    """For files and pipes: each state below the last, as text or as one line of JSON."""

    def __init__(self, out: TextIO, as_json: bool) -> None:
        self._out, self._as_json = out, as_json
        self._found: list[dict[str, Any]] | None = None
        self._trouble = ""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_args: object) -> None:
        self._out.flush()

    def found(self, found: list[dict[str, Any]]) -> None:
        if found == self._found:
            return
        self._found = found
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self._as_json:
            print(json.dumps({"time": now, "semaphores": found}), file=self._out, flush=True)
        else:
            text = "\n\n".join(map(semaphore_text, found)) or "there is no semaphore"
            print(f"{now}\n{text}\n", file=self._out, flush=True)

    def draw(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            print(f"muster: {plain(trouble)}", file=sys.stderr)
        self._trouble = trouble


# ---------------------------------------------------------------------------------------------- as a picture


class Screen:
    """For a terminal: one picture, drawn anew in its place. What was on the terminal before it stays there."""

    def __init__(self, out: TextIO, namespace: str) -> None:
        self._out = out
        self._picture = Picture(namespace)
        self._drawn: list[str] = []
        self._size = shutil.get_terminal_size()

    def __enter__(self) -> Screen:
        self._out.write("\033[?25l")  # no cursor
        return self

    def __exit__(self, *_args: object) -> None:
        self._out.write("\r\033[K\033[?25h")
        self._out.flush()

    def found(self, found: list[dict[str, Any]]) -> None:
        self._picture.take(found, time.time())

    def draw(self, trouble: str) -> None:
        size = shutil.get_terminal_size()
        lines = self._picture.lines(size.columns, size.lines - 1, time.time(), trouble)
        up = sum(max(1, -(-len(line) // size.columns)) for line in self._drawn)  # as the terminal wraps them by now
        if up >= size.lines or (self._drawn and size != self._size):
            start = "\033[H\033[2J"
        else:
            start = f"\r\033[{up}A" if up else ""
        self._out.write(start + "".join(f"{_bold(line)}\033[K\n" for line in lines) + "\033[J")
        self._out.flush()
        self._drawn, self._size = lines, size


def _bold(line: str) -> str:
    return f"\033[1m{line}\033[0m" if line.startswith("Semaphore ") else line


@dataclass
class Picture:
    """What the picture shows: what was read last, and since when each waiter is known."""

    namespace: str
    semaphores: list[dict[str, Any]] | None = None
    at: float = 0.0  # when it was read, in seconds of time.time()
    waiting: dict[Hashable, tuple[float, bool]] = field(default_factory=dict)  # first seen; whether it was there before

    def take(self, found: list[dict[str, Any]], now: float) -> None:
        before, first = self.waiting, self.semaphores is None
        keys = [_key(one, waiter) for one in found for waiter in one["waiters"]]
        self.waiting = {key: before.get(key, (now, first)) for key in keys}
        self.semaphores, self.at = found, now

    def lines(self, width: int, height: int, now: float, trouble: str = "") -> list[str]:
        """At most `height` lines of at most `width` characters. Lists that don't fit say how many they leave out."""
        if self.semaphores is None:
            lines = [f"muster: {plain(trouble)}" if trouble else f"reading the semaphores of {self.namespace} …"]
        else:
            parts = [self._parts(one, width, now) for one in self.semaphores]
            if trouble:
                parts.insert(0, [f"seen {age(now - self.at)} ago: {plain(trouble)}", ""])
            if not self.semaphores:
                parts.append([f"there is no semaphore in namespace {self.namespace} yet; Ctrl-C ends"])
            lines = _fitted(parts, height)
        return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines[:height]]

    def _parts(self, one: Mapping[str, Any], width: int, now: float) -> list[str | list[str]]:
        """The lines of one semaphore; a list in it is one that may be shortened, after its heading."""
        title = f"Semaphore {one['namespace']}/{one['name']}"
        counts = f"{len(one['holders'])} hold, {len(one['waiters'])} wait"
        parts: list[str | list[str]] = [f"{title}  {counts}  {datetime.fromtimestamp(now):%H:%M:%S}"]
        if one["error"]:
            parts.append(f"  {plain(one['error'])}")
        resources = [(r["name"], f"{r['held']} of {r['capacity']}", _bar(r)) for r in one["resources"]]
        if resources:
            parts += _listed(("", "", ""), resources, width, heading=False)
        holders = sorted(one["holders"], key=lambda holder: holder["fence"] or 0)
        if holders:
            rows = [(h["holder"], said(h["resources"]), h["fence"], f"held {_since(h['since'], now)}") for h in holders]
            parts += ["", *_listed(("HOLDER", "HAS", "FENCE", "FOR"), rows, width)]
        if one["waiters"]:
            rows = [(w["place"], w["holder"], wanted(w), self._waits(one, w, now)) for w in one["waiters"]]
            parts += ["", *_listed(("PLACE", "WAITER", "WANTS", "FOR"), rows, width)]
        return [*parts, ""]

    def _waits(self, one: Mapping[str, Any], waiter: Mapping[str, Any], now: float) -> str:
        since, was_there = self.waiting.get(_key(one, waiter), (now, True))
        return f"waits {'> ' if was_there else ''}{age(now - since)}"


def age(seconds: float) -> str:
    """`12s`, `3m12s`, `2h05m`, `4d03h`"""
    whole = max(0, int(seconds))
    for unit, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{small}"
    return f"{whole}s"


def _since(text: str | None, now: float) -> str:
    try:
        return age(now - datetime.fromisoformat(text or "").timestamp())
    except ValueError:
        return "?"


def _key(one: Mapping[str, Any], waiter: Mapping[str, Any]) -> Hashable:
    return one["name"], one["engine"], waiter["holder"], waiter["uid"]


def _bar(resource: Mapping[str, Any]) -> str:
    whole = bar(resource, BARS)
    if whole or not resource["capacity"]:
        return whole or " "
    held = min(BARS, round(BARS * resource["held"] / resource["capacity"]))
    return "■" * held + "□" * (BARS - held)


def _listed(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], width: int, *, heading: bool = True
) -> list[str | list[str]]:
    first, *others = table(headings, rows, indent="  ", width=width).split("\n")
    return [first, others] if heading else [others]


def _fitted(parts: Sequence[Sequence[str | list[str]]], height: int) -> list[str]:
    """All lines, with the lists shortened to one length for all, so that they fit into `height` if they can."""
    flat = [part for each in parts for part in each]
    lengths = [len(part) for part in flat if isinstance(part, list)]
    room = height - (len(flat) - len(lengths)) + 1  # the last line is empty: it may be lost
    most = max(lengths, default=0)
    while most and sum(length if length <= most + 1 else most + 1 for length in lengths) > room:
        most -= 1
    lines: list[str] = []
    for part in flat:
        if isinstance(part, str):
            lines.append(part)
        elif len(part) <= most + 1:
            lines += part
        else:
            lines += [*part[:most], f"  … and {len(part) - most} more"]
    return lines[:-1] if lines and not lines[-1] else lines

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`--watch`: a live picture in the terminal, of whatever a `Picture` draws.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO, runtime_checkable

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, ApiError, Forbidden, Trouble
from muster.table import plain, table

BREATH = 0.1  # seconds at least between two reads, however much moves
TICK = 1.0  # seconds between two pictures while nothing moves
Found = list[dict[str, Any]]
Look = Callable[[], Found]
Source = Mapping[str, Any]  # what to watch, as `Api.follow` takes it


class Picture(Protocol):
    """What is shown of what was read. Times are seconds since 1970, on a clock that is never set."""

    key: str  # what was read is called so in JSON
    title: str  # how lines begin that are titles

    def take(self, found: Found, now: float) -> None:
        """It was read at `now`."""

    def lines(self, width: int, height: int, now: float, trouble: str = "") -> list[str]:
        """At most `height` lines of at most `width` characters."""

    def text(self, found: Found) -> str:
        """The same for files and pipes, without what changes by itself."""

    def gist(self, found: Found) -> Any:
        """Differs where there is news for files and pipes."""


@runtime_checkable
class Painted(Protocol):
    """What a picture may have besides: colours, which don't count for the width of a line."""

    def paint(self, line: str) -> str:
        """One of its lines, with colours."""


def watch(
    api: Api,
    sources: Sequence[Source],
    look: Look,
    picture: Picture,
    *,
    as_json: bool,
    out: TextIO,
    breath: float = BREATH,
) -> int:
    """Show what `look` reads, whenever one of `sources` has changed, until Ctrl-C or SIGTERM. Returns the exit status.

    `breath` is how many seconds there are at least between two looks.
    """
    inbox: queue.SimpleQueue[str | Exception] = queue.SimpleQueue()
    _follow(api, sources, inbox.put)
    show: Screen | Lines = Screen(out, picture) if out.isatty() and not as_json else Lines(out, picture, as_json)

    def end(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    if isinstance(show, Screen):
        signal.signal(signal.SIGWINCH, lambda *_args: inbox.put("resized"))
    try:
        with show:
            _loop(inbox, look, show, len(sources), breath)
    except KeyboardInterrupt:
        pass
    return 0


def _loop(
    inbox: queue.SimpleQueue[str | Exception], look: Look, show: Screen | Lines, followers: int, breath: float
) -> None:
    """For ever: read when something moved, show what there is."""
    trouble, refused = "", []
    while True:
        moved = False
        try:
            news = inbox.get(timeout=TICK)
            while True:
                if isinstance(news, Forbidden):  # one of several may be allowed
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
        rest = breath if moved else 0.0
        if moved:
            try:
                show.found(look())
            except ApiError as error:
                trouble, rest = str(error), TICK
                inbox.put("moved")  # to read again
        show.draw(trouble)
        time.sleep(rest)


def _follow(api: Api, sources: Iterable[Source], tell: Callable[[str | Exception], None]) -> None:
    """Start to watch, from threads."""

    def run(source: Source) -> None:
        try:
            for change in api.follow(metadata_only=True, **source):
                tell(f"trouble {change.error}" if isinstance(change, Trouble) else "moved")
        except Exception as error:
            tell(error)

    for source in sources:
        threading.Thread(target=run, args=(source,), daemon=True).start()


# ---------------------------------------------------------------------------------------------- as lines


class Lines:
    """For files and pipes: each state below the last, as text or as one line of JSON."""

    def __init__(self, out: TextIO, picture: Picture, as_json: bool) -> None:
        self._out, self._picture, self._as_json = out, picture, as_json
        self._gist: Any = None
        self._trouble = ""

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_args: object) -> None:
        self._out.flush()

    def found(self, found: Found) -> None:
        gist = self._picture.gist(found)
        if gist == self._gist:
            return
        self._gist = gist
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if self._as_json:
            print(json.dumps({"time": now, self._picture.key: found}), file=self._out, flush=True)
        else:
            print(f"{now}\n{self._picture.text(found)}\n", file=self._out, flush=True)

    def draw(self, trouble: str) -> None:
        if trouble and trouble != self._trouble:
            print(f"muster: {plain(trouble)}", file=sys.stderr)
        self._trouble = trouble


# ---------------------------------------------------------------------------------------------- as a picture


class Screen:
    """For a terminal: one picture, drawn anew in its place. What was on the terminal before it stays there."""

    def __init__(self, out: TextIO, picture: Picture) -> None:
        self._out, self._picture = out, picture
        self._origin = time.time() - time.monotonic()
        self._drawn: list[str] = []
        self._size = shutil.get_terminal_size()

    def __enter__(self) -> Screen:
        self._out.write("\033[?25l")  # no cursor
        return self

    def __exit__(self, *_args: object) -> None:
        self._out.write("\r\033[K\033[?25h")
        self._out.flush()

    def found(self, found: Found) -> None:
        self._picture.take(found, self._now())

    def draw(self, trouble: str) -> None:
        size = shutil.get_terminal_size()
        lines = self._picture.lines(size.columns, size.lines - 1, self._now(), trouble)
        up = sum(max(1, -(-len(line) // size.columns)) for line in self._drawn)  # as the terminal wraps them by now
        if up >= size.lines or (self._drawn and size != self._size):
            start = "\033[H\033[2J"
        else:
            start = f"\r\033[{up}A" if up else ""
        self._out.write(start + "".join(f"{self._bold(line)}\033[K\n" for line in lines) + "\033[J")
        self._out.flush()
        self._drawn, self._size = lines, size

    def _now(self) -> float:
        return self._origin + time.monotonic()

    def _bold(self, line: str) -> str:
        if line.startswith(self._picture.title):
            return f"\033[1m{line}\033[0m"
        return self._picture.paint(line) if isinstance(self._picture, Painted) else line


# ---------------------------------------------------------------------------------------------- for pictures


def age(seconds: float) -> str:
    """`12s`, `3m12s`, `2h05m`, `4d03h`"""
    whole = max(0, int(seconds))
    for unit, size, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // part:02}{small}"
    return f"{whole}s"


def since(text: str | None, now: float) -> str:
    try:
        return age(now - datetime.fromisoformat(text or "").timestamp())
    except ValueError:
        return "?"


def listed(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], width: int, *, heading: bool = True
) -> list[str | list[str]]:
    first, *others = table(headings, rows, indent="  ", width=width).split("\n")
    return [first, others] if heading else [others]


def fitted(parts: Sequence[Sequence[str | list[str]]], height: int) -> list[str]:
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

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables for the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import said

GAP = "   "
NARROWEST = 8  # characters that a column of names keeps, however narrow the terminal is


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, indent: str = "", width: int = 0) -> str:
    """Left-aligned columns under headings, numbers to the right; empty cells as `-`.

    `width` in characters, if it is not 0, is kept by cutting the widest columns in their middle.
    """
    cells = [["-" if cell is None or cell == "" else plain(str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headings), *cells]) for column in range(len(headings))]
    numeric = [
        bool(cells) and all(row[column].isdigit() or row[column] == "-" for row in cells)
        for column in range(len(widths))
    ]
    room = width - len(indent) - len(GAP) * (len(widths) - 1)
    while width and sum(widths) > room and max(widths) > NARROWEST:
        widths[widths.index(max(widths))] -= 1

    def line(row: Sequence[str]) -> str:
        parts = (
            cut(cell, most).rjust(most) if number else cut(cell, most).ljust(most)
            for cell, most, number in zip(row, widths, numeric, strict=True)
        )
        text = (indent + GAP.join(parts)).rstrip()
        return text[:width] if width else text

    return "\n".join([line(list(headings)), *(line(row) for row in cells)])


def terminal_width(out: TextIO) -> int:
    """In characters; 0 where it is no terminal."""
    return shutil.get_terminal_size().columns if out.isatty() else 0


def plain(text: str) -> str:
    """Without what a terminal would obey: the names of resources may be any text."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def cut(text: str, most: int) -> str:
    """At most so many characters; what is cut out is in the middle, for names often differ at their end."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}"


def semaphore_text(semaphore: Mapping[str, Any]) -> str:
    """One semaphore, as `verbs.semaphore.info` returns it, as a picture of who has what and who waits."""
    title = f"Semaphore {semaphore['namespace']}/{semaphore['name']}"
    if semaphore["error"]:
        return f"{title}\n  {plain(semaphore['error'])}"
    resources = [(r["name"], r["capacity"], r["held"], r["free"], bar(r) or " ") for r in semaphore["resources"]]
    holders = [(h["holder"], said(h["resources"]), h["fence"], h["since"]) for h in semaphore["holders"]]
    waiters = [(w["place"], w["holder"], wanted(w), w["priority"]) for w in semaphore["waiters"]]
    parts = [title, table(("RESOURCE", "CAPACITY", "HELD", "FREE", ""), resources, indent="  ")]
    if holders:
        parts += ["", table(("HOLDER", "HAS", "FENCE", "SINCE"), holders, indent="  ")]
    if waiters:
        parts += ["", table(("PLACE", "WAITER", "WANTS", "PRIORITY"), waiters, indent="  ")]
    if not holders and not waiters:
        parts += ["", "  nobody holds and nobody waits"]
    return "\n".join(parts)


def wanted(waiter: Mapping[str, Any]) -> str:
    """What a waiter wants, in a word or two."""
    return "any" if waiter["want"] == "*" else said(waiter["wants"])


def bar(resource: Mapping[str, Any], widest: int = 40) -> str:
    """`■` for each permit held and `□` for each free one; nothing where they don't fit."""
    held, free = resource["held"], resource["free"]
    return "■" * held + "□" * free if held + free <= widest else ""

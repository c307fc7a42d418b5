# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, indent: str = "") -> str:
    """Left-aligned columns under headings, numbers to the right; empty cells as `-`."""
    cells = [[("-" if cell is None or cell == "" else str(cell)) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(headings), *cells]) for column in range(len(headings))]
    numeric = [
        bool(cells) and all(row[column].isdigit() or row[column] == "-" for row in cells)
        for column in range(len(widths))
    ]

    def line(row: Sequence[str]) -> str:
        parts = (c.rjust(w) if number else c.ljust(w) for c, w, number in zip(row, widths, numeric, strict=True))
        return (indent + "   ".join(parts)).rstrip()

    return "\n".join([line(list(headings)), *(line(row) for row in cells)])


def semaphore_text(semaphore: Mapping[str, Any]) -> str:
    """One semaphore, as `verbs.semaphore.info` returns it, as a picture of who has what and who waits."""
    title = f"Semaphore {semaphore['namespace']}/{semaphore['name']}"
    if semaphore["error"]:
        return f"{title}\n  {semaphore['error']}"
    resources = [(r["name"], r["capacity"], r["held"], r["free"], _bar(r)) for r in semaphore["resources"]]
    holders = [(h["holder"], h["resource"], h["fence"], h["since"]) for h in semaphore["holders"]]
    waiters = [
        (w["place"], w["holder"], "any" if w["want"] == "*" else w["want"], w["priority"]) for w in semaphore["waiters"]
    ]
    parts = [title, table(("RESOURCE", "CAPACITY", "HELD", "FREE", ""), resources, indent="  ")]
    if holders:
        parts += ["", table(("HOLDER", "HAS", "FENCE", "SINCE"), holders, indent="  ")]
    if waiters:
        parts += ["", table(("PLACE", "WAITER", "WANTS", "PRIORITY"), waiters, indent="  ")]
    if not holders and not waiters:
        parts += ["", "  nobody holds and nobody waits"]
    return "\n".join(parts)


def _bar(resource: Mapping[str, Any], widest: int = 40) -> str:
    """`■` for each permit held and `□` for each free one, where they fit."""
    held, free = resource["held"], resource["free"]
    return "■" * held + "□" * free if held + free <= widest else " "

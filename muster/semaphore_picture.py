# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `muster distributor status --watch` draws."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, LEASES
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import said
from ansible_collections.muster.coordination.plugins.module_utils.decisions.tickets import LABEL
from muster.live import Source, age, fitted, listed, since
from muster.table import bar, plain, semaphore_text, wanted

BARS = 30  # permits that a bar shows one by one; of more it shows the share


@dataclass
class Semaphores:
    """What the picture shows: what was read last, and since when each waiter is known."""

    namespace: str
    semaphores: list[dict[str, Any]] | None = None
    at: float = 0.0  # when it was read, in seconds of time.time()
    waiting: dict[Hashable, tuple[float, bool]] = field(default_factory=dict)  # first seen; whether it was there before
    key: str = "semaphores"
    title: str = "Semaphore "

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
            lines = fitted(parts, height)
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
            parts += listed(("", "", ""), resources, width, heading=False)
        holders = sorted(one["holders"], key=lambda holder: holder["fence"] or 0)
        if holders:
            rows = [(h["holder"], said(h["resources"]), h["fence"], f"held {since(h['since'], now)}") for h in holders]
            parts += ["", *listed(("HOLDER", "HAS", "FENCE", "FOR"), rows, width)]
        if one["waiters"]:
            rows = [(w["place"], w["holder"], wanted(w), self._waits(one, w, now)) for w in one["waiters"]]
            parts += ["", *listed(("PLACE", "WAITER", "WANTS", "FOR"), rows, width)]
        return [*parts, ""]

    def _waits(self, one: Mapping[str, Any], waiter: Mapping[str, Any], now: float) -> str:
        since, was_there = self.waiting.get(_key(one, waiter), (now, True))
        return f"waits {'> ' if was_there else ''}{age(now - since)}"

    def text(self, found: list[dict[str, Any]]) -> str:
        return "\n\n".join(map(semaphore_text, found)) or "there is no semaphore"

    def gist(self, found: list[dict[str, Any]]) -> Any:
        return found


def sources(namespace: str, names: Sequence[str], engine: str | None) -> list[Source]:
    """What to watch for the semaphores of these names, or all."""
    told: list[dict[str, Any]] = []
    if engine != "tickets":
        told += [{"resource": CONFIGMAPS, "name": name} for name in names or (None,)]
    if engine != "annotations":
        told += [{"resource": LEASES, "label_selector": f"{LABEL}={name}"} for name in names]
        told += [] if names else [{"resource": LEASES, "label_selector": LABEL}]
    return [{"namespace": namespace, **one} for one in told]


def _key(one: Mapping[str, Any], waiter: Mapping[str, Any]) -> Hashable:
    return one["name"], one["engine"], waiter["holder"], waiter["uid"]


def _bar(resource: Mapping[str, Any]) -> str:
    whole = bar(resource, BARS)
    if whole or not resource["capacity"]:
        return whole or " "
    held = min(BARS, round(BARS * resource["held"] / resource["capacity"]))
    return "■" * held + "□" * (BARS - held)

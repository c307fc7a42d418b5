# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of a semaphore of tickets: feed it every event of its Leases, in the order of their revisions.

It keeps who holds with code of its own, which is a state machine and no formula: after each revision it grants what may
be granted. Beside that it takes the answer of the engine for the same revision, and says where that is illegal. A
violation begins with the rule that it breaks:

S1 nobody is granted beyond the capacity asked for at that revision (a lowered capacity drains), or while that is not
   in force
S2 on each resource fences grow strictly in the order of the grants
S3 a grant ends only with its ticket: when that is deleted, or its Pod has ended
S5 nobody is granted who stands behind one that waits for the same resource; what is free is granted
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

PREFIX = "muster.dev/"


@dataclass
class Ticket:
    place: int
    want: dict[str, int]


@dataclass
class Judge:
    """`held` are places. `granted` counts them all; `fences` has, by resource, those granted, in order."""

    name: str
    capacity: dict[str, int] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    settled: bool = False
    granted: int = 0
    revisions: int = 0
    fences: dict[str, list[int]] = field(default_factory=dict)

    def event(self, kind: str, lease: Mapping[str, Any]) -> None:
        """ADDED, MODIFIED or DELETED. Afterwards ask `violations` what the engine's answer is worth."""
        self.revisions += 1
        metadata = lease["metadata"]
        notes = metadata.get("annotations") or {}
        if metadata["name"] == self.name:
            if kind == "DELETED":
                self.capacity, self.settled = {}, False
                self.held.clear()
                return
            self.ended = {int(place) for place in json.loads(notes.get(f"{PREFIX}ended", "{}"))}
            try:
                self.capacity = json.loads(notes[f"{PREFIX}capacity"])
                self.settled = json.loads(notes[f"{PREFIX}settled"])["capacity"] == self.capacity
            except (KeyError, ValueError):
                self.settled = False
        elif kind == "DELETED":
            self.tickets.pop(metadata["name"], None)
        elif metadata["name"] in self.tickets:
            pass  # renewed: its place is that of its creation
        else:
            self.tickets[metadata["name"]] = Ticket(
                int(metadata["resourceVersion"]), json.loads(notes[f"{PREFIX}want"])
            )
        self.held &= self.live()

    def copy(self) -> Judge:
        """One that may be asked about another future."""
        fences = {resource: list(line) for resource, line in self.fences.items()}
        return replace(self, tickets=dict(self.tickets), held=set(self.held), fences=fences)

    def used(self, places: Collection[int]) -> Counter[str]:
        """What these places have together, by resource."""
        used: Counter[str] = Counter()
        for place in places:
            used.update(self._want(place))
        return used

    def live(self) -> set[int]:
        return {ticket.place for ticket in self.tickets.values()} - self.ended

    def violations(self, answer: Collection[int]) -> list[str]:
        """What is illegal in `answer`, the places which the engine says hold at this revision."""
        answer = set(answer)
        found = [f"S3: {sorted(self.held - answer)} lost what they held"] * bool(self.held - answer)
        found += [f"S3: {sorted(answer - self.live())} hold without a ticket"] * bool(answer - self.live())
        new = answer - self.held
        if new and not self.settled:
            found.append(f"S1: {sorted(new)} granted while the capacity asked for is not in force")
        found += self._beyond_capacity(answer, new) + self._out_of_order(answer, new)
        for place in sorted(new):
            self.granted += 1
            for resource in self._want(place):
                line = self.fences.setdefault(resource, [])
                if line and line[-1] >= place:
                    found.append(f"S2: fence {place} of {resource} was granted after {line[-1]}")
                line.append(place)
        self.held = answer & self.live()
        return found

    def _want(self, place: int) -> dict[str, int]:
        return next((ticket.want for ticket in self.tickets.values() if ticket.place == place), {})

    def _beyond_capacity(self, answer: set[int], new: set[int]) -> list[str]:
        used = self.used(answer)
        grown = {resource for place in new for resource in self._want(place)}
        return [
            f"S1: {used[resource]} of {resource} held, {self.capacity.get(resource, 0)} there, {sorted(new)} came"
            for resource in sorted(grown)
            if used[resource] > self.capacity.get(resource, 0)
        ]

    def _out_of_order(self, answer: set[int], new: set[int]) -> list[str]:
        found = []
        free = Counter(self.capacity)
        free.subtract(self.used(answer))
        before: set[str] = set()  # wanted by those who wait, up to here
        for place in sorted(self.live()):
            want = self._want(place)
            if place in answer:
                if place in new and before & set(want):
                    found.append(f"S5: {place} was granted, others wait for {sorted(before & set(want))} before it")
                continue
            if self.settled and not before & set(want) and all(free[r] >= n for r, n in want.items()):
                found.append(f"S5: {place} waits although {want} is free")
            before |= set(want)
        return found

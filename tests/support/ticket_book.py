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
S3 a grant ends only with its ticket: when that is deleted, or its Pod has ended; or with the semaphore's own Lease, and
   then it may come back with it
S5 nobody is granted who stands behind one that waits for the same resource; what is free is granted
S7 (`spoiled`) whoever writes what is ours writes nothing else, and nothing at all where it makes no sense

What makes no sense (no count of resources, by this reading) is no ticket.
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
    removed: bool = False  # the semaphore's own Lease was deleted once
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
                self.capacity, self.settled, self.removed = {}, False, True
                self.held.clear()
                return
            self.settled = False
            try:
                self.ended = {int(place) for place in json.loads(notes.get(f"{PREFIX}ended", "{}"))}
                self.capacity = _counts(notes[f"{PREFIX}capacity"])
                self.settled = json.loads(notes[f"{PREFIX}settled"])["capacity"] == self.capacity
            except (KeyError, ValueError, TypeError):
                pass
        elif kind == "DELETED":
            self.tickets.pop(metadata["name"], None)
        else:
            self._ticket(lease)
        self.held &= self.live()

    def _ticket(self, lease: Mapping[str, Any]) -> None:
        name, revision = lease["metadata"]["name"], int(lease["metadata"]["resourceVersion"])
        known = self.tickets.pop(name, None)
        want = _want_of(lease)
        if want:  # one that was renewed has the place of its creation; one that was edited by hand goes to the end
            self.tickets[name] = known if known and _is_renewed(lease) else Ticket(revision, want)

    def place(self, name: str) -> int | None:
        """Of the ticket of this name."""
        return self.tickets[name].place if name in self.tickets else None

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
                if place in line and self.removed:
                    continue  # the semaphore's own Lease was away meanwhile, and the claim is still there
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


def spoiled(name: str, before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    """S7: what is wrong in the step from one version of a Lease of the semaphore `name` to the next.

    On its own Lease the machines write who held and who ended, and only people (and the module, as a person's hand)
    the rest; on a ticket the machines write its place together with its renewal.
    """
    if before is None:
        return []
    own = after["metadata"]["name"] == name
    ours = {f"{PREFIX}settled", f"{PREFIX}ended"} if own else {f"{PREFIX}place"}
    old, new = _notes(before), _notes(after)
    written = sorted(key for key in ours if old.get(key) != new.get(key))
    if not written:
        return []
    found = []
    others = sorted(key for key in {*old, *new} - ours if old.get(key) != new.get(key))
    if others:
        found.append(f"S7: {written} of {after['metadata']['name']} were written, and with them {others}")
    for part in ("labels", "ownerReferences"):
        if before["metadata"].get(part) != after["metadata"].get(part):
            found.append(f"S7: {written} of {after['metadata']['name']} were written, and the {part} changed")
    if before["metadata"]["uid"] == after["metadata"]["uid"] and any(
        not _is_object(old.get(key, "{}")) for key in old if key in ours or key == f"{PREFIX}capacity"
    ):
        found.append(f"S7: {written} of {after['metadata']['name']} were written although something there is malformed")
    return found


def _want_of(lease: Mapping[str, Any]) -> dict[str, int]:
    """Empty where the ticket makes no sense: no count of resources, or neither a Pod nor a lease that could end it."""
    owners = [owner for owner in lease["metadata"].get("ownerReferences") or () if owner.get("kind") == "Pod"]
    if not owners and lease.get("spec", {}).get("leaseDurationSeconds") is None:
        return {}
    try:
        want = _counts(_notes(lease)[f"{PREFIX}want"])
    except (KeyError, ValueError):
        return {}
    return {} if 0 in want.values() else want


def _is_renewed(lease: Mapping[str, Any]) -> bool:
    try:
        return json.loads(_notes(lease)[f"{PREFIX}place"])["uid"] == lease["metadata"]["uid"]
    except (KeyError, ValueError, TypeError):
        return False


def _notes(lease: Mapping[str, Any]) -> dict[str, str]:
    return lease["metadata"].get("annotations") or {}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _counts(text: str) -> dict[str, int]:
    """Raises ValueError for anything but an object of whole numbers."""
    counts = json.loads(text)
    if not isinstance(counts, dict) or any(type(count) is not int or count < 0 for count in counts.values()):
        raise ValueError(text)
    return counts

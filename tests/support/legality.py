# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of a semaphore's history: may this document follow that one?

It reads the raw annotations with code of its own and knows nothing of ours, so that a mistake is not made twice. Each
step is judged in time proportional to the document (the queue is compared with what was granted in the step), a
history therefore in O(n). A violation begins with the rule that it breaks:

S1 no grant beyond the capacity (a lowered capacity drains: what is held may stay)
S2 numbers grow strictly: a new fence or place is higher than any number ever seen; a grant keeps its fence
S3 no lost update: one write takes out the dead and, beside them, lets one holder come or one go or one change; a
   write that was decided on an older revision would undo the one in between, and is seen by that
S5 first come, first served within a priority; nobody overtakes a higher priority, except by age; who waits for several
   resources keeps them from those behind it; and what is free and wanted is granted, all of a want or nothing
S6 what we write in mode v2 no old Distributor can read (in v1, old writers mixed in, it is S1 with such writers)
S7 what is malformed, unknown or foreign stays as it is
(S4, no grant survives its holder for long, is about time.)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

CAPACITY, ASSIGNMENT, STATE = "distributor_capacity", "distributor_assignment", "distributor_state"
OURS = (CAPACITY, ASSIGNMENT, STATE)
SENTINEL = {"mode": "v2"}  # under the empty name
ANY = "*"
AGEING = 64
Identity = tuple[str, "str | None"]


class Unreadable(ValueError):
    """An annotation that nobody may interpret."""


@dataclass
class Document:
    capacity: dict[str, int]
    assignment: dict[str, dict[str, int]]  # without the sentinel
    state: dict[str, Any]
    recorded: dict[str, dict[str, Any]]
    queue: dict[str, dict[str, Any]]
    mode: str
    marked: bool  # with the sentinel

    def held(self) -> Counter[str]:
        held: Counter[str] = Counter()
        for resources in self.assignment.values():
            held.update(resources)
        return held

    def grants(self) -> dict[str, dict[str, Any]]:
        """Who holds, as the assignment says; with identity and fence only where the state agrees."""
        return {
            name: entry
            if (entry := self.recorded.get(name, {})).get("resources") == resources
            else {"uid": None, "resources": resources, "fence": 0}
            for name, resources in self.assignment.items()
        }

    def waiting(self) -> dict[str, dict[str, Any]]:
        """Who waits; whom an old Distributor has served since does not."""
        return {name: entry for name, entry in self.queue.items() if name not in self.assignment}

    def identities(self) -> set[Identity]:
        return {(name, entry["uid"]) for name, entry in [*self.grants().items(), *self.waiting().items()]}

    def numbers(self) -> list[int]:
        fences = [entry["fence"] for entry in self.recorded.values()]
        return [self.state.get("epoch", 0), *fences, *(entry["seq"] for entry in self.queue.values())]


def read(annotations: Mapping[str, str]) -> Document:
    """Raises Unreadable."""
    capacity, assignment, state = (_json(annotations, key) for key in OURS)
    if any(type(count) is not int or not 0 <= count < 2**31 for count in capacity.values()):
        raise Unreadable(CAPACITY)
    if state and (state.get("version") != 1 or state.get("mode", "v1") not in ("v1", "v2")):
        raise Unreadable(STATE)
    marked = isinstance(assignment.get(""), dict)
    if marked and assignment.pop("") != SENTINEL:
        raise Unreadable(ASSIGNMENT)
    mode = "v2" if marked else state.get("mode", "v1")
    assigned = {name: _assigned(value, mode) for name, value in assignment.items()}
    try:
        recorded = {
            name: {"uid": None, "fence": 0, "since": "", **entry} for name, entry in state.get("grants", {}).items()
        }
        queue = {entry["holder"]: {"uid": None, "priority": 0, **entry} for entry in state.get("queue", [])}
        well = len(queue) == len(state.get("queue", [])) and all(
            type(number) is int for number in [state.get("epoch", 0), *(entry["seq"] for entry in queue.values())]
        )
    except (AttributeError, TypeError, KeyError) as error:
        raise Unreadable(STATE) from error
    if not well:
        raise Unreadable(STATE)
    return Document(capacity, assigned, state, recorded, queue, mode, marked)


def _assigned(value: Any, mode: str) -> dict[str, int]:
    if mode == "v1" and type(value) is str:
        return {value: 1}
    if mode == "v1" or not isinstance(value, dict) or not value:
        raise Unreadable(ASSIGNMENT)
    if any(type(count) is not int or not 0 < count < 2**31 for count in value.values()):
        raise Unreadable(ASSIGNMENT)
    return value


@dataclass
class History:
    """Judges revisions in their order. `dead` may grow meanwhile: identities which others may take out; those

    `leaving`, whose Pods are being deleted, they may take out of the queue.
    """

    dead: set[Identity] = field(default_factory=set)
    leaving: set[Identity] = field(default_factory=set)
    priorities: dict[str, int] = field(default_factory=dict)  # of those who claim, by name; others have 0
    highest: int = 0
    last: dict[str, str] | None = None
    revisions: int = 0
    grants: dict[int, tuple[str, str]] = field(default_factory=dict)  # fence: (holder, what), of every grant seen

    def step(self, annotations: Mapping[str, str]) -> list[str]:
        found = []
        if self.last is not None:
            told = {"dead": self.dead, "leaving": self.leaving, "priorities": self.priorities}
            found = violations(self.last, annotations, above=self.highest, **told)
        self.last = dict(annotations)
        self.revisions += 1
        try:
            document = read(annotations)
        except Unreadable:
            return found
        self.highest = max([self.highest, *document.numbers()])
        for name, entry in document.grants().items():
            if entry["fence"]:
                has = ", ".join(r if n == 1 else f"{n} of {r}" for r, n in sorted(document.assignment[name].items()))
                if self.grants.setdefault(entry["fence"], (name, has)) != (name, has):
                    found.append(f"S2: fence {entry['fence']} was {self.grants[entry['fence']]}, now {name}'s")
        return found


def violations(
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    dead: Collection[Identity] = (),
    leaving: Collection[Identity] = (),
    above: int = 0,
    priorities: Mapping[str, int] | None = None,
) -> list[str]:
    """What is illegal in the step from one document to the next; an empty list if nothing is.

    `dead` are the identities that may be taken out (uid None: by name), those `leaving` out of the queue only; `above`
    is the highest number seen so far; `priorities` of those who came in this step, by name.
    """
    if {k: v for k, v in before.items() if k not in OURS} != {k: v for k, v in after.items() if k not in OURS}:
        return ["S7: a foreign annotation was changed"]
    changed = [key for key in OURS if before.get(key) != after.get(key)]
    try:
        old, new = read(before), read(after)
    except Unreadable as error:
        return [f"S7: {error} is malformed, and {changed} were written"] if len(changed) > 1 else []
    found = _capacity_kept(old, new)
    if STATE not in changed:
        return found + _by_others(old, new)
    if STATE not in after:
        return found + (["S3: state and assignment were lost together"] if len(changed) > 1 else [])
    above = max([above, *old.numbers()])
    found += _well_formed(new)
    return found or [
        *_numbers(old, new, above),
        *_one_at_a_time(old, new, {*dead, *(set(leaving) - {(name, e["uid"]) for name, e in old.grants().items()})}),
        *_in_order(old, new, priorities or {}),
        *_preserved(old, new),
    ]


def _capacity_kept(old: Document, new: Document) -> list[str]:
    before, now = old.held(), new.held()
    return [
        f"S1: {resource} {now[resource]} held of {new.capacity.get(resource, 0)}, {before[resource]} before"
        for resource in now
        if now[resource] > before[resource] and now[resource] > new.capacity.get(resource, 0)
    ]


def _by_others(old: Document, new: Document) -> list[str]:
    """A person, or an old Distributor, which takes out the dead and adds itself."""
    moved = [name for name in old.assignment if new.assignment.get(name, old.assignment[name]) != old.assignment[name]]
    came = sorted(set(new.assignment) - set(old.assignment))
    return [f"S3: {moved} were moved without a fence"] * bool(moved) + [f"S3: {came} came at once"] * (len(came) > 1)


def _well_formed(new: Document) -> list[str]:
    found = []
    if {name: entry["resources"] for name, entry in new.recorded.items()} != new.assignment:
        found.append("S3: state and assignment were written with different grants")
    if new.marked != (new.state.get("mode") == "v2"):
        found.append(f"S6: mode {new.state.get('mode')} {'with' if new.marked else 'without'} the sentinel")
    if set(new.queue) & set(new.assignment):
        found.append(f"S5: {sorted(set(new.queue) & set(new.assignment))} hold and wait")
    numbers = [entry["fence"] for entry in new.recorded.values()] + [entry["seq"] for entry in new.queue.values()]
    if len(set(numbers)) < len(numbers) or min(numbers, default=1) < 1 or max(numbers, default=0) > new.state["epoch"]:
        found.append(f"S2: numbers {sorted(numbers)} are not unique, 1 to epoch {new.state['epoch']}")
    return found


def _numbers(old: Document, new: Document, above: int) -> list[str]:
    found = []
    if new.state["epoch"] < old.state.get("epoch", 0):
        found.append(f"S2: epoch went back from {old.state['epoch']} to {new.state['epoch']}")
    held = old.grants()
    for name, entry in new.recorded.items():
        was = held.get(name)
        if was is not None and was["uid"] == entry["uid"] and was["fence"]:
            kept = {"resources": was["resources"], "fence": was["fence"], "since": was.get("since")}
            if kept != {key: entry.get(key) for key in kept}:
                found.append(f"S2: {name}'s grant was {kept} and is {entry}")
        elif entry["fence"] <= above:
            found.append(f"S2: {name}'s new fence {entry['fence']} is not above {above}")
    waited = old.waiting()
    for name, entry in new.queue.items():
        was = waited.get(name)
        same = was is not None and (was["uid"], was["want"]) == (entry["uid"], entry["want"])
        if same and was is not None and was["seq"] != entry["seq"]:
            found.append(f"S5: {name} waited at {was['seq']} and now at {entry['seq']}")
        if not same and entry["seq"] <= above:
            found.append(f"S2: {name}'s new place {entry['seq']} is not above {above}")
    return found


def _one_at_a_time(old: Document, new: Document, dead: Collection[Identity]) -> list[str]:
    before, now = old.identities(), new.identities()
    names = {name for name, _uid in now}
    adopted = {name for name, uid in before if uid is None and name in names}
    dead_names = {name for name, _uid in dead}
    left = sorted(
        (name, uid or "")
        for name, uid in before - now
        if not ((name, uid) in dead or (uid is None and (name in dead_names or name in adopted)))
    )
    came = sorted((name, uid or "") for name, uid in now - before if name not in adopted)
    if len(left) + len(came) > 1:
        return [f"S3: one write let {came} come and {left}, who are not known to be dead, go"]
    return []


def _in_order(old: Document, new: Document, priorities: Mapping[str, int]) -> list[str]:
    found = []
    waited, held, epoch = old.waiting(), old.grants(), new.state["epoch"]
    stayed = [entry for name, entry in new.queue.items() if name in waited and waited[name]["seq"] == entry["seq"]]
    for name, entry in new.recorded.items():
        was = held.get(name)
        if was is not None and (was["uid"] is None or was["uid"] == entry["uid"]):
            continue  # not granted in this step
        got = entry["resources"]
        place = waited.get(name)
        if place is not None and place["uid"] != entry["uid"]:
            place = None
        seq = place["seq"] if place else epoch
        priority = priorities.get(name, place["priority"] if place else 0)
        is_wanted = place is None or got == place["want"] or (ANY in place["want"] and list(got.values()) == [1])
        if not is_wanted and name not in priorities:
            found.append(f"S5: {name} wanted {place and place['want']} and got {got}")
        for other in stayed:
            if not got.keys() & other["want"].keys() and ANY not in other["want"]:
                continue
            older = other["seq"] < seq and other["priority"] >= priority
            aged = priority + (epoch - seq) // AGEING
            above = aged < other["priority"] + (old.state.get("epoch", 0) - other["seq"]) // AGEING
            if older or above:
                found.append(f"S5: {name} ({priority}, {seq}) got {got} before {other['holder']} ({other})")
    return found + [f"S5: {entry['holder']} waits for {entry['want']}, which is free" for entry in waiting_in_vain(new)]


def waiting_in_vain(document: Document) -> list[dict[str, Any]]:
    """Who waits although all it wants is free and nobody may keep that for itself.

    One whose want does not fit keeps all it wants from those behind it, and they what they want from those behind them.
    So of all who are joined by what they want, one that fits is judged where each of them fits, or where each that
    wants the same stands behind it at any age: it came later, with no higher priority.
    """
    free = {resource: count - document.held()[resource] for resource, count in document.capacity.items()}
    certain = [entry for entry in document.queue.values() if ANY not in entry["want"]]
    wanted = {resource for entry in certain for resource in entry["want"]}
    spare = any(count > 0 for resource, count in free.items() if resource not in wanted)
    in_vain = [entry for entry in document.queue.values() if ANY in entry["want"] and spare]
    for entry in certain:
        if not _fits(entry, free):
            continue
        rivals = [other for other in certain if other is not entry and other["want"].keys() & entry["want"].keys()]
        first = all(o["seq"] > entry["seq"] and o["priority"] <= entry["priority"] for o in rivals)
        if first or all(_fits(other, free) for other in _joined(entry, certain)):
            in_vain.append(entry)
    return in_vain


def _fits(entry: Mapping[str, Any], free: Mapping[str, int]) -> bool:
    return all(free.get(resource, 0) >= count for resource, count in entry["want"].items())


def _joined(entry: Mapping[str, Any], certain: Collection[dict[str, Any]]) -> list[dict[str, Any]]:
    reached = set(entry["want"])
    while more := {r for other in certain if reached & other["want"].keys() for r in other["want"]} - reached:
        reached |= more
    return [other for other in certain if reached & other["want"].keys()]


def _preserved(old: Document, new: Document) -> list[str]:
    known = {"version", "mode", "epoch", "grants", "queue"}
    found = []
    if _without(old.state, known) != _without(new.state, known):
        found.append("S7: unknown keys of the state were changed")
    entries = {"uid", "resources", "fence", "since", "expires", "holder", "want", "priority", "seq"}
    was = {**old.grants(), **old.waiting()}
    for name, entry in [*new.recorded.items(), *new.queue.items()]:
        before = was.get(name)
        if before is None or before["uid"] != entry["uid"]:
            continue
        same_wait = "seq" not in entry or "seq" not in before or before["seq"] == entry["seq"]
        if same_wait and _without(before, entries) != _without(entry, entries):
            found.append(f"S7: unknown keys of {name}'s entry were changed")
    return found


def _without(entry: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key not in known}


def _json(annotations: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        value = json.loads(annotations.get(key, "{}"))
    except ValueError as error:
        raise Unreadable(key) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Unreadable(key)
    return value

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs to plant in the engine tickets, each a mistake that a hurried change makes, and who has to catch it."""

from __future__ import annotations

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

DECISIONS = "plugins/module_utils/decisions/tickets.py"
VERBS = "plugins/module_utils/verbs/tickets.py"

UNIT, PROPERTY, MODEL = "tickets unit", "tickets property", "tickets model"

MUTANTS = (
    Mutant(
        "a ticket holds without the capacity check",
        "S1",
        DECISIONS,
        ((" and all(free.get(resource, 0) >= n for resource, n in want.items())", ""),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "what a ticket takes is not subtracted",
        "S1",
        DECISIONS,
        (("free[resource] = free.get(resource, 0) - count", "free[resource] = free.get(resource, 0)"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "an edit is settled as of the last edit, not the first",
        "S1",
        VERBS,
        (
            (
                "        if book is None or book.terms.is_settled:\n            answers",
                "        if True:\n            answers",
            ),
        ),
        (MODEL,),
    ),
    Mutant(
        "new ones are granted while the capacity asked for is not in force",
        "S1",
        DECISIONS,
        (
            (
                "return self.asked is not None and self.in_force is not None and "
                "dict(self.asked) == dict(self.in_force)",
                "return self.asked is not None and self.in_force is not None",
            ),
        ),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "what we wrote counts before the watch brings it",
        "S1",
        VERBS,
        (
            (
                '            self._wrote = max(self._wrote, int(written["metadata"]["resourceVersion"]))\n',
                "            self._keep(written)\n"
                '            self._revision = int(written["metadata"]["resourceVersion"])\n',
            ),
        ),
        (PROPERTY,),
    ),
    Mutant(
        "a copy keeps the place of its original",
        "S2",
        DECISIONS,
        (('    if not record or record.get("uid") != lease["metadata"].get("uid"):\n', "    if not record:\n"),),
    ),
    Mutant(
        "a renewal moves the place",
        "S2",
        DECISIONS,
        (('{"revision": _place(lease),', '{"revision": _revision(lease),'),),
    ),
    Mutant(
        "a lowered capacity revokes",
        "S3",
        DECISIONS,
        ((" or all(ticket.place <= book.terms.upto.get(resource, -1) for resource in want)", ""),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "a settled capacity keeps everybody up to the last place of any resource",
        "S1",
        DECISIONS,
        (("upto[resource] = max(upto.get(resource, 0), ticket.place)", "upto[resource] = 10**9"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "the ticket of a Pod that has ended goes on holding",
        "S4",
        DECISIONS,
        (("        if ticket.place in terms.ended:\n            continue\n", ""),),
        (UNIT, MODEL),
    ),
    Mutant(
        "nobody looks whether those who hold have ended",
        "S4",
        VERBS,
        (
            (
                "        if gone := dead(self._api, self._namespace, self._doubtful()):",
                "        if gone := set[str]():",
            ),
            ("            gone = self._dead_before_me()", "            gone = set[str]()"),
        ),
        (UNIT,),
    ),
    Mutant(
        "what the garbage collector does not do nobody does",
        "S4",
        VERBS,
        (("            gone = self._dead_before_me()", "            gone = set[str]()"),),
        (UNIT,),
    ),
    Mutant(
        "only the first in the queue looks after who holds, and nobody after the first",
        "S4",
        VERBS,
        (("if waiting and not dead(self._api, self._namespace, waiting[-1:])", "if waiting"),),
        (UNIT,),
    ),
    Mutant(
        "who waits for two resources does not hold them back",
        "S5",
        DECISIONS,
        (("waited_for.isdisjoint(want) and ", ""),),
        (UNIT, MODEL),
    ),
    Mutant(
        "who holds several permits is counted as one",
        "S1",
        DECISIONS,
        (("free[resource] = free.get(resource, 0) - count", "free[resource] = free.get(resource, 0) - 1"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "a ticket holds when a part of what it wants is free",
        "S1",
        DECISIONS,
        (("and all(free.get(resource, 0) >= n for", "and any(free.get(resource, 0) >= n for"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "a ticket for more than there is is drawn",
        "S5",
        DECISIONS,
        (("        refuse_beyond(book.terms.capacity, want, CAPACITY)\n", "        pass\n"),),
    ),
    Mutant(
        "one that waits keeps its ticket although its Pod is being deleted",
        "S5",
        VERBS,
        (("        ticket = self._now.book.find(self._mine) if self._leaving else None\n", "        ticket = None\n"),),
    ),
    Mutant(
        "one that holds tears up its ticket when its Pod begins to be deleted",
        "S4",
        VERBS,
        (
            (
                " and not self._now.holds(self._mine) and ticket.place not in self._torn",
                " and ticket.place not in self._torn",
            ),
        ),
    ),
    Mutant(
        "places are compared as text",
        "S5",
        DECISIONS,
        (("key=lambda ticket: (ticket.place, ticket.beat)", "key=lambda ticket: (str(ticket.place), ticket.beat)"),),
        (PROPERTY,),
    ),
    Mutant(
        "what is malformed is overwritten",
        "S7",
        DECISIONS,
        (("    if terms.error is not None:\n        raise terms.error\n    return terms", "    return terms"),),
    ),
    Mutant(
        "unknown annotations are dropped",
        "S7",
        DECISIONS,
        (('{**(metadata.get("annotations") or {}), **annotations}', "{**annotations}"),),
    ),
    Mutant(
        "one malformed ticket stops all",
        "S7",
        DECISIONS,
        (
            (
                "        return Malformed(f\"Lease {metadata['name']} {error.field}\", error.value, error.remedy)",
                "        raise",
            ),
        ),
    ),
)

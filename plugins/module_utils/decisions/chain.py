# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several semaphores for one claimant, taken one after the other, so that claimants can't deadlock each other.

Rules
1. All claimants take semaphores in one order, that of the names. The next is asked for when all before it are held.
2. Who waits for one has nothing of those behind it. What it does have there, because it lost the one that it waits for
   or because it was started again, it gives back, from the last to the first.
3. While it is not known whether one is held, nothing behind it is asked for and nothing is given back.

Theory: ordered acquisition (Havender, 1968). A cycle of waiters would need one that holds a later semaphore and waits
for an earlier one, and by rule 2 there is none. That those in front are held while the next is waited for is the price.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed


class Stand(enum.Enum):
    """How the claimant stands at one semaphore."""

    UNKNOWN = enum.auto()  # not looked at yet: an earlier run may hold it, or wait
    NOTHING = enum.auto()  # neither holds nor waits
    WAITING = enum.auto()  # has asked, and does not hold
    HELD = enum.auto()


class Plan(NamedTuple):
    """What follows: ask for the first `attend` semaphores (and keep them), give back these others, in this order."""

    attend: int
    give_back: tuple[int, ...]


def plan(stands: Sequence[Stand], *, wanted: bool = True) -> Plan:
    """What to do at semaphores in the order of their names; `wanted` False gives all back."""
    if not wanted:
        return Plan(0, _had(stands, 0))
    held = held_in_front(stands)
    if held < len(stands) and stands[held] is Stand.UNKNOWN:
        return Plan(held + 1, ())
    return Plan(min(held + 1, len(stands)), _had(stands, held + 1))


def held_in_front(stands: Sequence[Stand]) -> int:
    """How many are held before the first that is not."""
    return next((index for index, stand in enumerate(stands) if stand is not Stand.HELD), len(stands))


def in_order(names: Iterable[str]) -> list[str]:
    """The names in the order in which everybody takes them. Raises Malformed for none, or one given twice."""
    ordered = sorted(names)
    if not ordered:
        raise Malformed("semaphores", "", "name at least one semaphore")
    for name, following in pairwise(ordered):
        if name == following:
            raise Malformed("semaphore", name, "name it once, with all that is wanted of it: NAME:RESOURCE,RESOURCE=2")
    return ordered


def _had(stands: Sequence[Stand], start: int) -> tuple[int, ...]:
    return tuple(index for index in reversed(range(start, len(stands))) if stands[index] is not Stand.NOTHING)

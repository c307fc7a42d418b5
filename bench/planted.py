# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs to plant in the holders of a soak, to see that its judges find them. Never planted in the judges' process."""

from __future__ import annotations

from typing import Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as annotations_engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as tickets_engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Semaphore
from ansible_collections.muster.coordination.plugins.module_utils.decisions.tickets import Book

NO_CAPACITY_CHECK: Final = "no-capacity-check"
OLD_FENCE: Final = "old-fence"
WORKS_ON: Final = "works-after-release"
BUGS: Final = {
    NO_CAPACITY_CHECK: "what is held already is not counted when something is granted",
    OLD_FENCE: "a holder works with the fence of its turn before",
    WORKS_ON: "a holder goes on working for a moment after it has released",
}


class Bug:
    """The bug of this name; an empty name is none."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.works_on = name == WORKS_ON

    def fence(self, before: int, given: int) -> int:
        """The fence that a holder works with, of the one of its turn before (0: none) and the one that it was given."""
        return before or given if self._name == OLD_FENCE else given

    def plant(self) -> None:
        """In this process, for good."""
        if self._name == NO_CAPACITY_CHECK:
            annotations_engine.Semaphore.free = _all_of_it  # type: ignore[assignment,method-assign]
            tickets_engine.holders = _everybody


def _all_of_it(semaphore: Semaphore) -> dict[str, int]:
    return dict(semaphore.capacity)


def _everybody(book: Book) -> frozenset[int]:
    return frozenset(ticket.place for ticket in book.tickets)

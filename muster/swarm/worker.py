# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker has to do about its list of jobs, and what it may say of it: pure, without I/O, clock or threads.

Rules
1. A version stands for a list. The greatest that was seen counts; an older one is a stale read and is never taken.
2. A job that is not in the list has to end. One that is in the list begins at once: who had it before has let it go
   before it was written here.
3. A version is said only when every job that is not in its list has ended, with all of its processes; until then the
   version before. Somebody else is given those jobs as soon as it is said, and it can't be taken back.
4. What can't be read (the API server is away, the document is malformed or gone) changes nothing: what runs runs on.
   Only a document that can be read and does not name the worker says that it has no jobs.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Entry

NONE_YET: Final = -1  # a version


class State(enum.Enum):
    """How a job stands that the worker has taken on."""

    RUNNING = "running"
    CLEARING = "clearing"  # it has ended by itself, and what it left behind is being ended
    WAITING = "waiting"  # nothing of it is left; it will be started again
    ENDING = "ending"  # it was let go, and is being ended


class Step(NamedTuple):
    """Jobs to end and jobs to begin, sorted."""

    end: tuple[str, ...] = ()
    begin: tuple[str, ...] = ()


def plan(wanted: Collection[str], held: Mapping[str, State]) -> Step:
    """What is to be done now. A job that is wanted again while it is ending begins anew when it has ended."""
    end = (job for job, state in held.items() if job not in wanted and state is not State.ENDING)
    return Step(tuple(sorted(end)), tuple(sorted(job for job in wanted if job not in held)))


@dataclass(frozen=True, slots=True)
class Duty:
    """The entry that was taken last (None: there is none), the greatest version seen, and the one that may be said."""

    wanted: Entry | None = None
    seen: int = NONE_YET
    applied: int | None = None

    @property
    def jobs(self) -> frozenset[str]:
        return frozenset(self.wanted.jobs) if self.wanted else frozenset()

    @property
    def version(self) -> int | None:
        return self.wanted.version if self.wanted else None

    @property
    def is_settled(self) -> bool:
        """Whether all that was let go has ended."""
        return self.applied == self.version

    def refuses(self, entry: Entry | None) -> bool:
        return entry is not None and entry.version < self.seen

    def take(self, entry: Entry | None, running: Collection[str]) -> Duty:
        """The duty after this was read; `running` are the jobs of which anything may run still."""
        if self.refuses(entry):
            return self
        seen = max(self.seen, entry.version) if entry else self.seen
        applied = self.applied
        if entry and entry.version == applied:  # if somebody changed the list by hand, it has to be applied anew
            applied = None
        return Duty(entry, seen, applied).settle(running)

    def settle(self, running: Collection[str]) -> Duty:
        """The duty when only these are left."""
        if self.is_settled or not self.jobs.issuperset(running):
            return self
        return Duty(self.wanted, self.seen, self.version)

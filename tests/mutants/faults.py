# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs that only a real API server, real Pods or real processes show, and the fault that has to show each."""

from __future__ import annotations

from ansible_collections.muster.coordination.tests.mutants import semaphore, tickets
from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

API = "plugins/module_utils/api.py"
FAULTS, MIXED = "tests/integration/test_faults.py", "tests/integration/test_faults_mixed.py"


def planted(name: str, breaks: str, file: str, old: str, new: str, *shown_by: str) -> Mutant:
    return Mutant(name, breaks, file, ((old, new),), shown_by)


def again(mutants: tuple[Mutant, ...], name: str, *shown_by: str) -> Mutant:
    """One that other suites catch, too."""
    return next(mutant for mutant in mutants if mutant.name == name)._replace(caught_by=shown_by)


MUTANTS = (
    # annotations
    again(semaphore.MUTANTS, "one permit too many", "capacity_that_goes annotations"),
    again(semaphore.MUTANTS, "fences begin anew when the object is made again", "made_again annotations"),
    again(semaphore.MUTANTS, "a lost answer is a failure", "answer_is_lost annotations"),
    again(semaphore.MUTANTS, "the cache is believed about who is dead", "cache_that_lags annotations"),
    again(semaphore.MUTANTS, "an ended Pod counts as alive", "pod_that_has_ended annotations"),
    again(semaphore.MUTANTS, "last come, first served", "name_that_comes_back annotations"),
    again(semaphore.MUTANTS, "malformed is empty", "what_is_malformed annotations"),
    again(semaphore.MUTANTS, "unknown keys of the state are dropped", "not_ours annotations"),
    planted(
        "what a Pod that is gone has left is left to others",
        "S4",
        semaphore.ANNOTATIONS,
        "write(*at, lambda before: decisions.release(before, name, uid, now=utc_now()))\n            raise",
        "raise",
        "deleted_by_force annotations",
    ),
    planted(
        "whoever is asked about is dead",
        "S4",
        semaphore.ANNOTATIONS,
        "there = {name: uid for name, uid in alive.items() if name in found or name not in dict(doubtful)}",
        "there: dict[str, str] = {}",
        "cache_that_lags annotations",
    ),
    planted(
        "foreign annotations are dropped",
        "S7",
        semaphore.ENGINE,
        "    new = {**old, **render(after)}\n",
        "    new = {CAPACITY: old[CAPACITY], **render(after)}\n",
        "not_ours annotations",
    ),
    planted(
        "too much is sent all the same",
        "S7",
        semaphore.ENGINE,
        "if size > MAX_ANNOTATIONS and size > annotation_bytes(old):",
        "if size < 0:",
        "object_that_is_full annotations",
    ),
    again(semaphore.MUTANTS, "the state is believed where the assignment differs", "mixed annotations"),
    # tickets
    again(tickets.MUTANTS, "a ticket holds without the capacity check", "capacity_that_goes tickets"),
    again(tickets.MUTANTS, "what we wrote counts before the watch brings it", "cache_that_lags tickets"),
    again(tickets.MUTANTS, "a renewal moves the place", "clock_that_steps tickets"),
    again(tickets.MUTANTS, "a lowered capacity revokes", "capacity_that_goes tickets"),
    again(tickets.MUTANTS, "nobody looks whether those who hold have ended", "pod_that_has_ended tickets"),
    again(tickets.MUTANTS, "what is malformed is overwritten", "what_is_malformed tickets"),
    again(tickets.MUTANTS, "unknown annotations are dropped", "not_ours tickets"),
    again(tickets.MUTANTS, "one malformed ticket stops all", "mixed tickets"),
    planted(
        "last drawn, first served",
        "S5",
        tickets.DECISIONS,
        "key=lambda ticket: (ticket.place, ticket.beat)",
        "key=lambda ticket: (-ticket.place, ticket.beat)",
        "name_that_comes_back tickets",
    ),
    planted(
        "a new process draws a new ticket",
        "S3",
        tickets.DECISIONS,
        '    return f"{semaphore}.{claimant.uid or',
        '    import os\n\n    return f"{semaphore}.{os.getpid()}.{claimant.uid or',
        "sidecar_that_is_killed tickets",
    ),
    planted(
        "a late watch begins with the next news",
        "S4",
        semaphore.ATTENDANCE,
        "                sight = self._turn()\n                self._follow_all()",
        "                self._follow_all()\n                sight = self._turn()",
        "pod_that_has_ended tickets",
    ),
    # the loop of both
    planted(
        "a version that is forgotten is asked for again",
        "S4",
        API,
        '            except Gone:\n                version = ""\n',
        "            except Gone:\n",
        "forgotten annotations",
        "forgotten tickets",
    ),
    planted(
        "nobody looks where no watch asks",
        "S4",
        semaphore.ATTENDANCE,
        "        if now >= self._resync_at:\n            return True\n",
        "",
        "stalls annotations",
        "stalls tickets",
    ),
    planted(
        "leases are counted on the wall clock",
        "S4",
        semaphore.ATTENDANCE,
        "clock: Callable[[], float] = time.monotonic,",
        "clock: Callable[[], float] = time.time,",
        "clock_that_steps annotations",
        "clock_that_steps tickets",
    ),
    planted(
        "a permission that is taken ends the loop",
        "S4",
        API,
        "if not settled and _is_mistake(error):",
        "if _is_mistake(error):",
        "permission_that_is_taken annotations",
        "permission_that_is_taken tickets",
    ),
    planted(
        "a watch that was cut begins with what is there now",
        "S4",
        API,
        "                failures += 1\n                troubled = True\n",
        '                failures += 1\n                troubled = True\n                version = version and "0"\n'
        "                stop.wait(3600)\n",
        "dropped annotations",
        "dropped tickets",
    ),
    planted(
        "a conflict is a failure",
        "S3",
        semaphore.COMMIT,
        "        except (Conflict, AlreadyExists) as error:\n",
        "        except (Conflict, AlreadyExists) as error:\n            raise ValueError(str(error)) from error\n",
        "storm annotations",
        "storm tickets",
    ),
)


def suite_of(words: str) -> list[str]:
    """The pytest arguments for `FAULT ENGINE`."""
    fault, engine = words.split()
    return [MIXED, "-k", engine] if fault == "mixed" else [FAULTS, "-k", f"{fault} and {engine}"]


SUITES = {words: suite_of(words) for mutant in MUTANTS for words in mutant.caught_by}

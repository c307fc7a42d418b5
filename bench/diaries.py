# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holders of a soak, what they believe to hold, and what is wrong with that.

A holder writes each beginning and end of a turn at once into its process's diary, a file that outlives a SIGKILL:
`TIME G|R SEMAPHORE HOLDER UID FENCE`, one line and one write each; times of the machine's one monotonic clock.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import ApiError
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from bench.contend import GIL_SWITCH, Holder, allow_many_files
from bench.contenders import Requests, Sidecar, Sidecars
from bench.judges import Judge
from bench.planted import Bug
from cluster.kernel import die_with_parent

HOLD_SECONDS = 0.004  # a turn lasts a random time up to this


@dataclass(frozen=True)
class Place:
    """Who attends what."""

    holder: Holder
    semaphore: str


def attend(
    pipe: Connection,
    kubeconfig: Mapping[str, Any],
    namespace: str,
    engine: str,
    places: Sequence[Place],
    diary: str,
    bug: str,
) -> None:
    """A process of holders: each takes turn after turn in the product's own loop, until the pipe says something."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the soak, which then ends this one
    allow_many_files()
    sys.setswitchinterval(GIL_SWITCH)
    planted = Bug(bug)
    planted.plant()
    stopped = threading.Event()
    file = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(word: str, place: Place, fence: int) -> None:
        holder = place.holder
        line = f"{time.monotonic():.6f} {word} {place.semaphore} {holder.name} {holder.uid} {fence}\n"
        os.write(file, line.encode())

    def take_turns(place: Place) -> None:
        system, fence = Sidecars(kubeconfig, namespace, place.semaphore, engine), 0
        while not stopped.is_set():
            sidecar = Sidecar(system, place.holder, Requests(), after=fence)
            try:
                while not stopped.is_set() and (got := sidecar.acquire(time.monotonic() + 3600)) is not None:
                    shown, fence = planted.fence(fence, got), got
                    note("G", place, shown)
                    time.sleep(random.uniform(0, HOLD_SECONDS))
                    if not planted.works_on:
                        note("R", place, shown)
                    _insist(sidecar.release)
                    if planted.works_on:
                        time.sleep(HOLD_SECONDS)
                        note("R", place, shown)
            except (MusterError, ApiError) as error:  # as a Pod's restart policy would: begin anew
                print(f"{place.holder.name} begins anew: {error}", file=sys.stderr, flush=True)
                time.sleep(1.0)
            sidecar.attendant.stop()

    for place in places:
        threading.Thread(target=take_turns, args=(place,), daemon=True).start()
    with suppress(EOFError):
        pipe.recv()
    stopped.set()
    time.sleep(0.5)
    os._exit(0)  # what still waits for a grant is not waited for


def _insist(release: Callable[[], None]) -> None:
    """Release until it is done; who can't reach the API server still has to."""
    while True:
        try:
            return release()
        except (MusterError, ApiError):
            time.sleep(random.uniform(0.05, 0.3))


# ---------------------------------------------------------------------------------------------- what was believed


@dataclass(frozen=True)
class Belief:
    """A holder believed to hold from `begin` to `end` (monotonic seconds)."""

    semaphore: str
    holder: str
    fence: int
    begin: float
    end: float


def beliefs(diary: Path, died: float) -> list[Belief]:
    """What the holders of one process believed; a turn that it did not end lasted until it `died`."""
    done: list[Belief] = []
    held: dict[tuple[str, str], tuple[float, int]] = {}
    whole = diary.read_text().rpartition("\n")[0] if diary.exists() else ""  # the last line may be being written
    for line in whole.splitlines():
        at, word, semaphore, holder, _uid, fence = line.split()
        if word == "G":
            held[semaphore, holder] = (float(at), int(fence))
        else:
            begin, given = held.pop((semaphore, holder))
            done.append(Belief(semaphore, holder, given, begin, float(at)))
    return done + [Belief(semaphore, holder, fence, at, died) for (semaphore, holder), (at, fence) in held.items()]


def disbeliefs(
    believed: Sequence[Belief], permits: Mapping[str, int], judges: Mapping[str, Judge]
) -> tuple[list[str], int]:
    """What is wrong with what the holders believed, and the largest number of over-grants at one moment."""
    wrong, worst = [], 0
    moments = [(b.begin, 1, b) for b in believed] + [(b.end, 0, b) for b in believed]
    now: Counter[str] = Counter()
    for at, begins, belief in sorted(moments, key=lambda moment: moment[:2]):
        now[belief.semaphore] += 1 if begins else -1
        over = now[belief.semaphore] - permits[belief.semaphore]
        if begins and over > 0:
            worst = max(worst, over)
            wrong.append(f"S1: at {at:.6f} {belief.semaphore} had {over} holders too many: {belief}")
    fences: dict[tuple[str, int], str] = {}
    latest: dict[tuple[str, str], int] = {}
    for belief in sorted(believed, key=lambda b: b.begin):
        owner = fences.setdefault((belief.semaphore, belief.fence), belief.holder)
        seen = judges[belief.semaphore].grants.get(belief.fence)
        if owner != belief.holder:
            wrong.append(f"S2: fence {belief.fence} of {belief.semaphore} was {owner}'s and {belief.holder}'s")
        if seen is None or seen[0] != belief.holder:
            wrong.append(f"a grant that never was: {belief}, seen was {seen}")
        whose = belief.semaphore if permits[belief.semaphore] == 1 else belief.holder
        if latest.get((belief.semaphore, whose), 0) >= belief.fence:
            wrong.append(f"S2: {belief} after fence {latest[belief.semaphore, whose]}")
        latest[belief.semaphore, whose] = belief.fence
    return wrong, worst

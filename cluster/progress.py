# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the user sees while something takes long: one line a step, with the seconds running on a terminal."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

QUIET_SECONDS = 30.0


def duration(seconds: float) -> str:
    """`45 s`, `15 minutes`: one unit, rounded."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def note(text: str) -> None:
    """One line for the user, on standard error: standard output belongs to the answer."""
    print(text, file=sys.stderr, flush=True)


class Steps:
    """`[3/9] kube-apiserver … built in 312 s`, on standard error."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.terminal = sys.stderr.isatty()

    @contextlib.contextmanager
    def step(self, name: str, verb: str) -> Iterator[None]:
        """Announce a step, keep telling that it runs, and say how long it took."""
        self.done += 1
        head, begun, finished = f"[{self.done}/{self.total}] {name} …", time.monotonic(), threading.Event()

        def tick() -> None:
            while not finished.wait(1.0 if self.terminal else QUIET_SECONDS):
                elapsed = f"{head} {time.monotonic() - begun:.0f} s"
                if self.terminal:
                    print(f"\r{elapsed}", end="", file=sys.stderr, flush=True)
                else:
                    note(elapsed)

        ticker = threading.Thread(target=tick, daemon=True)
        if self.terminal:
            print(head, end="", file=sys.stderr, flush=True)
        ticker.start()
        outcome = "failed after"
        try:
            yield
            outcome = f"{verb} in"
        finally:
            finished.set()
            ticker.join()
            start = "\r" if self.terminal else ""
            note(f"{start}{head} {outcome} {time.monotonic() - begun:.0f} s")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `muster` on a machine whose clocks are wrong: stepped_clock.py MONOTONIC_DAYS muster's arguments…

Python's `time` and `datetime` are replaced before anything of ours is imported. Each SIGUSR1 puts the wall clock a day
forward, each SIGUSR2 a day back. The monotonic clock, which cannot step, is so many days apart from the others' for
good, as on another machine. TLS goes by the real clock.
"""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
import time

DAY = 86400.0


class _Clock:
    """The wall clock of this process: the real one, and what it was stepped."""

    def __init__(self) -> None:
        self._real, self._offset = time.time, 0.0

    def time(self) -> float:
        return self._real() + self._offset

    def step(self, seconds: float) -> None:
        self._offset += seconds
        line = {"time": _now(), "message": "stepped", "seconds": self._offset}
        os.write(2, f"{json.dumps(line)}\n".encode())


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _set_up(monotonic_days: int) -> None:
    clock, monotonic = _Clock(), time.monotonic

    class SteppedDatetime(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> SteppedDatetime:
            return cls.fromtimestamp(clock.time(), tz)

    time.time, time.time_ns = clock.time, lambda: int(clock.time() * 1e9)
    time.monotonic = lambda: monotonic() + monotonic_days * DAY
    datetime.datetime = SteppedDatetime  # type: ignore[misc]
    signal.signal(signal.SIGUSR1, lambda *_: clock.step(DAY))
    signal.signal(signal.SIGUSR2, lambda *_: clock.step(-DAY))


def main() -> int:
    _set_up(int(sys.argv[1]))
    from muster.cli import main as muster

    return muster(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())

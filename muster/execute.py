# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster distributor exec`: runs a command while a claim is held, and only while it is held.

It is the sidecar with a command for an application. Nothing is given back before the command's whole process group has
ended; who ends, and in which order, stands in `guard.py`.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from muster.claim import Claim
from muster.distributor import Distributor, Settings
from muster.process import say

LOST = 4  # exit status when the claim was lost before the command had ended
NOTHING_FREE = 3  # and when nothing came free in time
NOT_EXECUTABLE, NOT_FOUND = 126, 127  # as a shell has them
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # while it waits these end it


class Report(NamedTuple):
    """A line from the guard: a word, and a number where it has one; the word is empty when all has ended."""

    word: str
    number: int = 0


class Late(NamedTuple):
    """A time has passed; `what` names which."""

    what: str


class Command:
    """A command in a process group of its own, behind a guard which kills that group if this process is killed."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], tell: Callable[[Report], object]
    ) -> None:
        """`tell` takes Reports, from another thread."""
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        self._tell = tell
        self._group = 0
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(control), str(status)]
        self._guard = subprocess.Popen(
            [*guard, *command], env=dict(environment), pass_fds=(control, status), process_group=0
        )
        os.close(control)
        os.close(status)
        threading.Thread(target=self._listen, name="command", daemon=True).start()

    def signal(self, number: int) -> None:
        """Signal the whole process group."""
        with suppress(BrokenPipeError):  # it has ended
            os.write(self._control, bytes([number]))

    def _listen(self) -> None:
        with open(self._status, encoding="ascii") as lines:
            for line in lines:
                word, _, number = line.strip().partition(" ")
                if word == "started":
                    self._group = int(number)
                self._tell(Report(word, int(number or 0)))
        if self._guard.wait() and self._group:  # somebody killed the guard
            with suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)
        self._tell(Report(""))


class Execution(Distributor):
    """One run of a command, from the first claim until everything is given back."""

    signals = (*ENDING, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(
        self, api: Api, settings: Settings, command: Sequence[str], *, grace: float, wait_timeout: float | None = None
    ) -> None:
        """`grace` and `wait_timeout` in seconds; None waits for ever."""
        super().__init__(api, settings)
        self._argv, self._grace, self._wait_timeout = list(command), grace, wait_timeout
        self._command: Command | None = None
        self._code = 128 + signal.SIGKILL  # of a command whose end nobody saw
        self._is_lost = self._is_ending = False

    def run(self) -> int:
        if self._wait_timeout is not None:
            self._later(self._wait_timeout, "wait")
        return super().run()

    # ------------------------------------------------------------------------------------------ private

    def _take(self, happening: Any) -> None:
        if isinstance(happening, Report):
            self._reported(happening)
        elif isinstance(happening, Late):
            self._late(happening.what)
        super()._take(happening)

    def _act(self) -> None:
        if self._command is None:  # while it runs nothing is given back, whatever was lost
            super()._act()

    def _changed(self, before: Claim | None, after: Claim | None) -> None:
        if self._status is not None:
            return
        if self._command is None and after is not None:
            say(logging.INFO, "starts", command=self._argv[0])
            environment = {**os.environ, **after.environment()}
            self._command = Command(self._argv, environment, self._inbox.put)
        elif self._command is not None and before is not None and not self._is_lost:
            self._is_lost = True
            say(logging.ERROR, "the claim was lost: the command has to end", grace_seconds=self._grace)
            self._end_group()

    def _signalled(self, number: int) -> None:
        if self._command is not None:
            self._command.signal(number)
        elif number in ENDING:
            say(logging.INFO, "waits no longer", signal=signal.Signals(number).name)
            self._status = 128 + number

    def _reported(self, report: Report) -> None:
        if report.word == "failed":
            self._code = NOT_FOUND if report.number == errno.ENOENT else NOT_EXECUTABLE
            say(logging.ERROR, "the command can't be started", command=self._argv[0], why=os.strerror(report.number))
        elif report.word == "resumed":
            say(logging.WARNING, "a command that holds a claim can't be suspended: it goes on")
        elif report.word == "ended":
            self._code = report.number if report.number >= 0 else 128 - report.number
            self._end_group()  # what it left behind in its process group
        elif not report.word:
            say(logging.INFO, "ended", status=self._code)
            self._status = LOST if self._is_lost else self._code

    def _end_group(self) -> None:
        if self._command is not None and not self._is_ending:
            self._is_ending = True
            self._command.signal(signal.SIGTERM)
            self._later(self._grace, "grace")

    def _late(self, what: str) -> None:
        if what == "wait" and self._command is None:
            say(logging.ERROR, "waited in vain", seconds=self._wait_timeout)
            self._status = NOTHING_FREE
        elif what == "grace" and self._command is not None:
            self._command.signal(signal.SIGKILL)

    def _later(self, seconds: float, what: str) -> None:
        timer = threading.Timer(seconds, self._inbox.put, (Late(what),))
        timer.daemon = True
        timer.start()

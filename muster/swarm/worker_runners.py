# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What it is to run a job: a command of the user's, or nothing at all, so that only the distribution can be seen."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

JOB = "{job}"  # stands for the job's name in a command


@dataclass(frozen=True)
class Ended:
    """A job's command has ended by itself or by a signal, and other processes of its group have not. `code`: as of
    Popen, negative for a signal."""

    job: str
    code: int


@dataclass(frozen=True)
class Gone:
    """Nothing of the job is left."""

    job: str
    code: int


@dataclass(frozen=True)
class Failed:
    """The command could not be started."""

    job: str
    errno: int


@dataclass(frozen=True)
class Lost:
    """The warden is gone, and the jobs with it."""


Tell = Callable[[Any], object]


class Runner(Protocol):
    """Starts jobs and signals them; tells what became of each: at last Gone or Failed, after each start once."""

    def start(self, job: str) -> None: ...

    def signal(self, job: str, number: int) -> None: ...

    def close(self) -> None: ...


class Nothing:
    """A job that has no work: it runs until it is signalled."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._running: set[str] = set()

    def start(self, job: str) -> None:
        self._running.add(job)

    def signal(self, job: str, number: int) -> None:
        if number == signal.SIGTERM and job in self._running:
            self._running.remove(job)
            self._tell(Gone(job, 0))

    def close(self) -> None:
        """There is nothing to close."""


class Commands:
    """A command for each job, behind a warden; `tell` is called from another thread."""

    def __init__(self, command: Sequence[str], tell: Tell) -> None:
        """`command`: as `parse_command` gives it."""
        self._command, self._tell = list(command), tell
        self._pids: dict[str, int] = {}
        self._is_closed = False
        control, self._control = os.pipe()
        self._status, status = os.pipe()
        self._warden = subprocess.Popen(
            [sys.executable, "-P", "-m", "muster.swarm.worker_warden", str(control), str(status)],
            stdin=subprocess.DEVNULL,
            pass_fds=(control, status),
            process_group=0,
        )
        os.close(control)
        os.close(status)
        threading.Thread(target=self._listen, name="warden", daemon=True).start()

    def start(self, job: str) -> None:
        self._order("start", job, [argument.replace(JOB, job) for argument in self._command])

    def signal(self, job: str, number: int) -> None:
        """Signal the job's whole process group."""
        self._order("signal", job, number)

    def close(self) -> None:
        """The warden kills what is left, and ends."""
        self._is_closed = True
        os.close(self._control)
        self._warden.wait()

    def _order(self, *words: Any) -> None:
        line = json.dumps(words).encode() + b"\n"
        with suppress(BrokenPipeError):  # the warden is gone, which is told
            while line:
                line = line[os.write(self._control, line) :]

    def _listen(self) -> None:
        with open(self._status, encoding="ascii") as lines:
            for line in lines:
                word, job, number = json.loads(line)
                if word == "started":
                    self._pids[job] = number
                elif word == "ended":
                    self._tell(Ended(job, number))
                elif word == "gone":
                    del self._pids[job]
                    self._tell(Gone(job, number))
                elif word == "failed":
                    self._tell(Failed(job, number))
        for pid in self._pids.values():  # the warden was killed: the kernel ended the commands, but not their children
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        if not self._is_closed:
            self._tell(Lost())


def parse_command(text: str) -> list[str]:
    """A command's words, as a shell would split them; nothing else of a shell is in it. Raises Malformed."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Malformed("--exec", text, f"close the quotation ({str(error).lower()})") from None
    if not words:
        raise Malformed("--exec", text, "give a command, for example 'consume --stream {job}'")
    return words

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands between a worker and the commands of its jobs, so that none of them outlives the worker.

python -m muster.swarm.worker_warden CONTROL STATUS

A process of its own, for the reasons of `muster/guard.py`, and one for all jobs: it starts each in a process group of
its own and sees the end of the whole group. It has one thread, so it may do between fork and exec what others may not.

CONTROL: a pipe with JSON lines: `["start", JOB, [COMMAND, …]]`, `["signal", JOB, NUMBER]` for the job's whole group.
Its end means that the worker is gone, however that ended: all groups are killed.
STATUS: a pipe with JSON lines: `["started", JOB, PID]`, `["failed", JOB, ERRNO]`, `["ended", JOB, CODE]` when the
command itself has ended (CODE as Popen.returncode) and others of its group have not, `["gone", JOB, CODE]` when nobody
of the group is left.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from muster.guard import LOOK_SECONDS, OURS, PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl, send

READ_BYTES = 1 << 16


@dataclass
class Group:
    """The process group of a job. `code`: how the command itself ended; None while it runs."""

    command: subprocess.Popen[bytes]
    code: int | None = None

    @property
    def number(self) -> int:
        return self.command.pid


class Warden:
    """Has the groups of all jobs until none is left and nobody can ask for more."""

    def __init__(self, control: int, tell: Callable[..., None]) -> None:
        self._control, self._tell = control, tell
        self._groups: dict[str, Group] = {}
        self._jobs: dict[int, str] = {}  # by pid of their commands
        self._worker = os.getppid()
        self._is_alone = False
        self._orders = b""
        self._woken, wake = os.pipe()
        for end in (self._woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # SIGCHLD ends a select
        signal.signal(signal.SIGCHLD, _nothing)

    def run(self) -> None:
        while self._groups or not self._is_alone:
            sources = [self._woken] if self._is_alone else [self._woken, self._control]
            ready, _, _ = select.select(sources, [], [], LOOK_SECONDS if self._is_looking() else None)
            if self._control in ready:
                self._obey()
            if self._woken in ready:
                os.read(self._woken, READ_BYTES)
            self._reap()
            self._look()

    def _is_looking(self) -> bool:
        """The kernel tells when a command ends, but not when the rest of its group does."""
        return self._is_alone or any(group.code is not None for group in self._groups.values())

    def _obey(self) -> None:
        data = os.read(self._control, READ_BYTES)
        self._is_alone = not data
        *lines, self._orders = (self._orders + data).split(b"\n")
        for line in lines:
            if os.getppid() != self._worker:  # it wants nothing to be begun any more
                self._is_alone = True
                return
            word, job, what = json.loads(line)
            if word == "start":
                self._start(job, what)
            elif job in self._groups:
                send(self._groups[job].number, what)

    def _start(self, job: str, command: list[str]) -> None:
        try:
            started = subprocess.Popen(
                command,
                env={**os.environ, "JOB": job},
                process_group=0,
                preexec_fn=partial(_die_with, os.getpid()),
            )
        except (OSError, ValueError) as error:  # the latter: a NUL character in an argument
            self._tell("failed", job, getattr(error, "errno", None) or errno.EINVAL)
            return
        self._groups[job] = Group(started)
        self._jobs[started.pid] = job
        self._tell("started", job, started.pid)

    def _reap(self) -> None:
        """The commands, and what they left behind: that is given to a subreaper."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                pid, raw = ended
                job = self._jobs.pop(pid, None)
                if job is not None:
                    group = self._groups[job]
                    group.code = group.command.returncode = os.waitstatus_to_exitcode(raw)
                    if send(pid, 0):
                        self._tell("ended", job, group.code)

    def _look(self) -> None:
        for job, group in list(self._groups.items()):
            if self._is_alone:
                send(group.number, signal.SIGKILL)
            if group.code is not None and not send(group.number, 0):
                del self._groups[job]
                self._tell("gone", job, group.code)


def _die_with(warden: int) -> None:
    """Between fork and exec. Who kills the warden and the worker in the same moment ends the command too."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != warden:
        os._exit(128 + signal.SIGKILL)


def _nothing(_number: int, _frame: Any) -> None:
    """A handler, where ignoring would be inherited by the commands."""


def main() -> None:
    control, status = int(sys.argv[1]), int(sys.argv[2])
    for pipe in (control, status):
        os.set_inheritable(pipe, False)
    for number in OURS:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _nothing)
    prctl(PR_SET_CHILD_SUBREAPER, 1)

    def tell(*words: Any) -> None:
        line = json.dumps(words).encode() + b"\n"
        with suppress(BrokenPipeError):  # the worker is gone, and CONTROL says so too
            while line:
                line = line[os.write(status, line) :]

    Warden(control, tell).run()


if __name__ == "__main__":
    main()

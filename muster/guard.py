# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands between `muster distributor exec` and its command, so that the command never outlives it.

guard.py CONTROL STATUS COMMAND…

It is a process of its own, in a process group of its own, because nothing else sees the end of all of a killed exec's
command: a parent-death signal reaches only one process, and who kills exec with its group would kill a helper too.
It needs only the standard library, and runs as `python -I -S`, to be small and quick.

CONTROL: a pipe. Each byte that comes is a signal for the command's process group; its end means that exec is gone, and
that the group has to be killed.
STATUS: a pipe, to which it says `started PID` before the command begins, `failed ERRNO` where it can't, `resumed`,
`ended EXITCODE` (as Popen.returncode), each in a line. Its end means that the whole process group has ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
LOOK_SECONDS = 0.05  # between two looks whether the group has ended, once the command itself has
PYTHONS_OWN = (signal.SIGPIPE, signal.SIGXFSZ)  # Python ignores these; a command must not
OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTOU)


def main() -> None:
    control, status = int(sys.argv[1]), int(sys.argv[2])
    for pipe in (control, status):
        os.set_inheritable(pipe, False)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in OURS}
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # what the command leaves behind is ours to reap
    terminal = controls_terminal()

    def say(text: str) -> None:
        with suppress(BrokenPipeError):  # exec is gone, and CONTROL says so too
            os.write(status, f"{text}\n".encode())

    pid, error = start(sys.argv[3:], before, terminal, say)
    if error:
        say(f"failed {error}")
        return
    threading.Thread(target=obey, args=(control, pid), daemon=True).start()
    say(f"ended {wait(pid, terminal, say)}")
    if terminal:
        os.tcsetpgrp(0, os.getpgid(os.getppid()))
    while not has_ended(pid):
        time.sleep(LOOK_SECONDS)


def start(
    command: list[str], handlers: dict[signal.Signals, Any], terminal: bool, say: Callable[[str], None]
) -> tuple[int, int]:
    """Start it in a process group of its own, in the foreground if exec is; its pid, and errno where it can't be."""
    failed, tell = os.pipe()  # closed by the exec
    guard = os.getpid()
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        if terminal:
            os.tcsetpgrp(0, os.getpid())
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(128 + signal.SIGKILL)
        say(f"started {os.getpid()}")  # exec has to know the group before anybody can be in it
        for number in PYTHONS_OWN:
            signal.signal(number, signal.SIG_DFL)
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_IGN if handler is signal.SIG_IGN else signal.SIG_DFL)
        try:
            os.execvp(command[0], command)
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        os._exit(127)
    os.close(tell)
    failure = int(os.read(failed, 16) or 0)
    os.close(failed)
    if failure:
        os.waitpid(pid, 0)
    return pid, failure


def obey(control: int, pid: int) -> None:
    """Hand on the signals that come; kill the group when nothing can come any more."""
    while number := os.read(control, 1):
        send(pid, number[0])
    send(pid, signal.SIGKILL)


def wait(pid: int, terminal: bool, say: Callable[[str], None]) -> int:
    """Until the command itself has ended; its exit code. Reaps whatever else ends meanwhile."""
    while True:
        ended, raw = os.waitpid(-1, os.WUNTRACED)
        if ended != pid:
            continue
        if not os.WIFSTOPPED(raw):
            return os.waitstatus_to_exitcode(raw)
        if terminal and os.WSTOPSIG(raw) == signal.SIGTSTP:  # Ctrl-Z: nobody could bring it back to the foreground
            send(pid, signal.SIGCONT)
            say("resumed")


def has_ended(group: int) -> bool:
    """Whether nobody of the process group is left."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return not send(group, 0)


def send(group: int, number: int) -> bool:
    """Signal the group; whether there was anybody."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # all who are left run as somebody else (setuid)
        return True
    return True


def controls_terminal() -> bool:
    """Whether standard input is a terminal, and exec is in its foreground."""
    try:
        return os.tcgetpgrp(0) == os.getpgid(os.getppid())
    except OSError:
        return False


def prctl(option: int, value: int) -> None:
    """Only Linux has it. Elsewhere a command outlives exec if that and the guard are killed in the same moment."""
    if sys.platform == "linux":
        LIBC.prctl(option, value, 0, 0, 0)


LIBC = ctypes.CDLL(None)

if __name__ == "__main__":
    main()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard of `muster distributor exec` alone, as a process; with exec it is in tests/integration."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from muster import guard


def lines_of(*command: str) -> list[str]:
    """What a guard says of the command, until all who could say something are gone."""
    control, keep = os.pipe()
    read, status = os.pipe()
    argv = [sys.executable, "-I", "-S", guard.__file__, str(control), str(status), *command]
    process = subprocess.Popen(argv, pass_fds=(control, status), process_group=0)
    os.close(control)
    os.close(status)
    with open(read, encoding="ascii") as lines:
        said = lines.read().splitlines()
    process.wait(30)
    os.close(keep)
    return said


def test_a_command_is_known_before_it_begins() -> None:
    """Nobody could end what it leaves behind otherwise, if its guard is killed in this moment."""
    for _ in range(20):
        (said,) = lines_of("/bin/sh", "-c", "kill -KILL $PPID")
        assert said.startswith("started ")


@pytest.mark.parametrize(
    ("command", "said"), [(["true"], "ended 0"), (["sh", "-c", "exit 3"], "ended 3"), (["./nothing"], "failed 2")]
)
def test_it_says_how_the_command_ended(command: list[str], said: str) -> None:
    started, ended = lines_of(*command)
    assert started.startswith("started ")
    assert ended == said

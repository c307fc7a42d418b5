# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The supervisor itself, with small programs for components."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from cluster import kernel
from cluster.config import Component
from cluster.spec import CONTROL_PLANE, make

REPOSITORY = Path(__file__).parents[2]
SECONDS = 20.0


def until(true: Callable[[], Any], what: str) -> Any:
    """Wait for a condition, up to a generous deadline."""
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {what}"
        time.sleep(0.02)
    return found


class Running:
    """A supervisor of two components: `first` listens on a socket, `second` comes after it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "logs").mkdir()
        (directory / "spec.json").write_text(make("test", CONTROL_PLANE, str(directory)).dump())
        address = directory / "first.sock"
        listen = f"import os,socket,time;p={str(address)!r};os.path.exists(p) and os.unlink(p);"
        listen += "s=socket.socket(socket.AF_UNIX);s.bind(p);s.listen(99);print('listening',flush=True);time.sleep(600)"
        rows = [
            Component("first", (sys.executable, "-c", listen), (), f"unix:{address}"),
            Component("second", ("sleep", "600"), ("first",), f"unix:{address}"),
        ]
        (directory / "components.json").write_text(json.dumps([asdict(row) for row in rows]))

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cluster.supervisor", str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        assert self.process.stdin and self.process.stdout
        assert int(self.process.stdout.readline()) == self.process.pid

    def go(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.close()

    def rows(self) -> dict[str, dict[str, Any]]:
        try:
            return {row["name"]: row for row in json.loads((self.directory / "running.json").read_text())}
        except OSError:
            return {}

    def ready(self) -> dict[str, dict[str, Any]] | None:
        rows = self.rows()
        return rows if rows and all(row["ready"] for row in rows.values()) else None


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    found = Running(tmp_path)
    found.start()
    yield found
    found.process.kill()
    found.process.wait()
    assert found.process.stdout
    found.process.stdout.close()


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_goes_no_further_when_nobody_recorded_it(running: Running) -> None:
    assert running.process.stdin
    running.process.stdin.close()
    assert running.process.wait(SECONDS) == 1
    assert not running.rows()


def test_later_component_waits_for_the_earlier_to_be_ready(running: Running) -> None:
    running.go()
    until(running.ready, "both ready")
    log = running.directory / "logs" / "first.log"
    children = kernel.children(running.process.pid)
    second = running.rows()["second"]["pid"]
    assert children[second] == second  # no pid namespace at this level
    assert log.read_text() == "listening\n"
    assert kernel.Process.of(running.rows()["first"]["pid"]).started <= kernel.Process.of(second).started


def test_killed_component_is_started_again_and_the_other_left_alone(running: Running) -> None:
    running.go()
    before = until(running.ready, "both ready")
    os.kill(before["first"]["pid"], signal.SIGKILL)
    until(lambda: running.rows()["first"]["restarts"] == 1, "the restart")
    after = until(running.ready, "both ready again")
    assert after["first"]["pid"] != before["first"]["pid"]
    assert after["first"]["last_exit"] == -signal.SIGKILL
    assert after["second"] == before["second"]


def test_component_without_its_program_is_tried_again_and_the_others_live(running: Running) -> None:
    rows = json.loads((running.directory / "components.json").read_text())
    late = running.directory / "late"
    rows[1]["argv"] = [str(late), "600"]
    (running.directory / "components.json").write_text(json.dumps(rows))
    running.process.kill()
    running.process.wait()
    running.start()
    running.go()
    until(lambda: running.rows().get("second", {}).get("last_exit") == -1, "the failed start")
    late.symlink_to("/bin/sleep")
    first = until(running.ready, "both ready")["first"]
    assert first["restarts"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(running: Running, number: signal.Signals) -> None:
    running.go()
    pids = [row["pid"] for row in until(running.ready, "both ready").values()]
    running.process.send_signal(number)
    assert running.process.wait(SECONDS) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
    until(lambda: gone(pids), f"the end of {pids}")

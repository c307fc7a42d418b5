# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real sidecar process, `muster distributor run`, to be stopped, killed and have its clock stepped.

What it believes is read from the file that it writes for its application. Its clocks are those of `stepped_clock`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.tests.support import stepped_clock
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab, until


class SidecarProcess:
    """One holder; `uid` empty with a `lease` (seconds)."""

    def __init__(
        self,
        lab: Lab,
        kubeconfig: str,
        directory: Path,
        name: str,
        uid: str = "",
        *,
        lease: int | None = None,
        monotonic_days: int = 0,
    ) -> None:
        self._file, self._log = directory / f"{name}.json", directory / f"{name}.log"
        command = [sys.executable, stepped_clock.__file__, str(monotonic_days), "distributor", "run"]
        command += ["--kubeconfig", kubeconfig, "--namespace", lab.namespace, "--holder", name, "--holder-uid", uid]
        command += ["--configmap", lab.name, "--engine", lab.engine, "--claim-file", str(self._file), "--listen", ""]
        command += ["--release-on-term", *(("--lease", str(lease)) if lease else ())]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MUSTER_", "POD_"))}
        self._name = name
        with self._log.open("a") as log:
            self._process = subprocess.Popen(command, env=environment, stderr=log)

    @property
    def fence(self) -> int | None:
        """What its application is told that it holds."""
        try:
            return int(json.loads(self._file.read_text())["fence"])
        except FileNotFoundError:
            return None

    def holds(self) -> float:
        return self._until(lambda: self.fence, "a claim file")

    def loses(self, fence: int) -> float:
        """It does not claim any more to hold with this fence."""
        return self._until(lambda: self.fence != fence, f"the end of its claim with fence {fence}")

    def waits(self) -> float:
        return self._until(lambda: self.logged("waiting"), "it to wait")

    def logged(self, message: str) -> list[dict[str, Any]]:
        """The lines of its log with this message."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if message in line["message"]]

    def step(self, days: int) -> None:
        """Put its wall clock so many days forward, or back."""
        for _day in range(abs(days)):
            steps = len(self.logged("stepped"))
            self.send(signal.SIGUSR1 if days > 0 else signal.SIGUSR2)
            self._until(lambda steps=steps: len(self.logged("stepped")) > steps, "its clock to step")

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def end(self) -> None:
        """SIGTERM, whatever state it is in."""
        if self._process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _until(self, true: Any, what: str) -> float:
        try:
            return until(lambda: self._process.poll() is not None or true(), f"{what} of {self._name}")
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self._log.read_text()[-2000:]}") from None
        finally:
            assert self._process.poll() is None, f"{self._name} ended:\n{self._log.read_text()[-2000:]}"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the acts of the demo are played with: commands that a user could have typed, shown and run."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut

SIGNAL = Path(__file__).parent / "signal.yaml.j2"


class Stage:
    """One namespace; what takes longer than `timeout` seconds is given up."""

    def __init__(self, namespace: str, timeout: float) -> None:
        self.namespace, self.timeout = namespace, timeout
        self.acted = time.monotonic()  # when the last command began

    def kubectl(self, *arguments: str, refused: bool = False) -> str:
        print(f"  $ kubectl -n {self.namespace} {shlex.join(arguments)}", flush=True)
        return self.kubectl_quietly(*arguments, refused=refused)

    def kubectl_quietly(self, *arguments: str, given: str | None = None, refused: bool = False) -> str:
        return self.command(["kubectl", "--namespace", self.namespace, *arguments], given=given, refused=refused)

    @contextmanager
    def killed(self, victim: dict[str, Any]) -> Iterator[None]:
        """SIGKILL for Muster's process in this Pod; what did it is removed afterwards."""
        print(f"  $ kubectl apply -f {SIGNAL.parent.name}/{SIGNAL.name}   # SIGKILL for {victim['metadata']['name']}")
        self.kubectl_quietly("apply", "-f", "-", given=jinja2.Template(SIGNAL.read_text()).render(victim=victim))
        try:
            yield
        finally:
            self.kubectl_quietly("delete", "pod", "signal", "--ignore-not-found", "--wait=false")

    def command(
        self, command: list[str], *, given: str | None = None, refused: bool = False, seconds: float | None = None
    ) -> str:
        """Run a program and return what it says; `refused`: it has to fail. `seconds`: at most (default: an act's)."""
        self.acted = time.monotonic()
        text, seconds = shlex.join(command), seconds or self.timeout
        try:
            done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise TimedOut(f"waited {seconds:g} s for `{text}`") from None
        if refused and done.returncode == 0:
            raise MusterError(f"`{text}` passed, and should have been refused: this is a bug")
        if not refused and done.returncode != 0:
            raise MusterError(f"`{text}` failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stderr.strip() if refused else done.stdout.strip()


def heading(text: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}▌ {text}{plain}", flush=True)


def environment() -> list[str]:
    """What a new shell needs to run the commands that follow."""
    lines = [f"export KUBECONFIG={os.environ['KUBECONFIG']}"] if os.environ.get("KUBECONFIG") else []
    places = [Path(found).parent for tool in ("kubectl", "muster") if (found := shutil.which(tool))]
    own = [str(place) for place in dict.fromkeys(places) if place not in (Path("/usr/bin"), Path("/usr/local/bin"))]
    return [*lines, *([f"export PATH={':'.join(own)}:$PATH"] if own else [])]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one recorded process of an embedded cluster: it starts the components, restarts them, and when it ends all ends.

At node level it is process 1 of its own pid, mount, network, cgroup, ipc and uts namespaces: when it ends, however it
ends, the kernel ends every process in them and with those the mounts, links and nft tables. At control-plane level
each component asked the kernel to be killed with it. Run by `up` as `python -m cluster.supervisor <directory>`:
it prints its pid, and goes on when a line comes back, so that nothing ever runs unrecorded.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

from cluster import ClusterError, kernel, nodespace
from cluster.spec import Spec

RESTART_SECONDS, RESTART_MAX_SECONDS, STABLE_SECONDS = 0.5, 8.0, 10.0
TICK_SECONDS, PROBE_SECONDS, IDLE_SECONDS = 0.1, 1.0, 3600.0
WAKE = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclass
class Child:
    """One component and what has become of it. Times are monotonic seconds."""

    name: str
    argv: list[str]
    after: list[str]
    probe: str
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    not_before: float = 0.0
    delay: float = RESTART_SECONDS
    restarts: int = 0
    ready: bool = False
    was_ready: bool = False
    last_exit: int | None = None


@dataclass
class Supervisor:
    """Starts each child when what it comes after has been ready once, and again when it died."""

    directory: Path
    children: list[Child]
    pdeathsig: bool
    changed: bool = field(default=True)

    def run(self) -> None:
        """Loop until SIGTERM; blocks in the kernel while all is well."""
        signal.pthread_sigmask(signal.SIG_BLOCK, WAKE)  # a blocked signal is kept even for process 1
        while True:
            pending = self.start_due() + self.probe()
            if self.changed:
                self.report()
            caught = signal.sigtimedwait(WAKE, TICK_SECONDS if pending else IDLE_SECONDS)
            if caught is not None and caught.si_signo not in (signal.SIGCHLD, signal.SIGHUP):
                return
            self.reap()

    def start_due(self) -> int:
        """Start what may start; returns how many still wait."""
        waiting = 0
        once_ready = {child.name for child in self.children if child.was_ready}
        for child in self.children:
            if child.process is None:
                if time.monotonic() < child.not_before or not once_ready.issuperset(child.after):
                    waiting += 1
                    continue
                try:
                    self.start(child)
                except OSError as error:  # its program or the disk is gone: that may pass, and the others live on
                    print(error, flush=True)
                    self.plan(child, -1)
                    waiting += 1
        return waiting

    def start(self, child: Child) -> None:
        me = os.getpid()
        child.started, child.ready = time.monotonic(), False

        def prepare() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            if self.pdeathsig:
                kernel.die_with_parent()
                if os.getppid() != me:  # it ended before the kernel was asked
                    os._exit(1)

        with open(self.directory / "logs" / f"{child.name}.log", "ab") as log:
            child.process = subprocess.Popen(
                child.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
                preexec_fn=prepare,
            )
        self.changed = True

    def probe(self) -> int:
        """Ask those which are not ready; returns how many are still not."""
        missing = 0
        for child in self.children:
            if child.process is not None and not child.ready:
                child.ready = answers(child.probe)
                child.was_ready = child.was_ready or child.ready
                self.changed = self.changed or child.ready
                missing += not child.ready
        return missing

    def reap(self) -> None:
        """Collect every dead child, also the orphans that process 1 inherits; plan the restart of components."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self.children:
                if child.process is not None and child.process.pid == pid:
                    self.bury(child, os.waitstatus_to_exitcode(status))

    def bury(self, child: Child, code: int) -> None:
        assert child.process is not None
        child.process.returncode = code  # reaped here: Popen must not wait for a pid which may be reused
        self.plan(child, code)

    def plan(self, child: Child, code: int) -> None:
        """Have the child started again: soon when it had run well, later and later when it had not."""
        now = time.monotonic()
        stable = now - child.started >= STABLE_SECONDS
        child.delay = RESTART_SECONDS if stable else min(child.delay * 2, RESTART_MAX_SECONDS)
        child.not_before = now + child.delay
        child.process, child.ready, child.last_exit = None, False, code
        child.restarts += 1
        self.changed = True
        print(f"{child.name} ended with {code}; starts again in {child.delay:g} s", flush=True)

    def report(self) -> None:
        """Tell `status` what runs (running.json); pids are those of this pid namespace."""
        rows = [
            {
                "name": child.name,
                "pid": child.process.pid if child.process else None,
                "ready": child.ready,
                "restarts": child.restarts,
                "last_exit": child.last_exit,
            }
            for child in self.children
        ]
        temporary = self.directory / "running.new"
        with contextlib.suppress(OSError):  # a full disk must not end the cluster; told again at the next change
            temporary.write_text(json.dumps(rows))
            temporary.replace(self.directory / "running.json")
        self.changed = False

    def stop(self) -> None:
        """SIGKILL all children and wait for them: the data ends with the cluster, there is nothing to save."""
        for child in self.children:
            if child.process is not None:
                os.kill(child.process.pid, signal.SIGKILL)
        for child in self.children:
            if child.process is not None:
                child.process.wait()


def answers(probe: str) -> bool:
    """Whether the address answers; nothing secret is sent, so certificates are not verified here."""
    try:
        if probe.startswith("unix:"):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PROBE_SECONDS)
                client.connect(probe.removeprefix("unix:"))
            return True
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        with opener.open(probe, timeout=PROBE_SECONDS) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):
        return False


def main() -> None:
    directory = Path(sys.argv[1])
    spec = Spec.parse((directory / "spec.json").read_text())
    children = [Child(**row) for row in json.loads((directory / "components.json").read_text())]
    if spec.node:
        nodespace.enter_cgroup(spec.host_name)
        nodespace.leave_host()
        pid = os.fork()
        if pid:
            print(pid, flush=True)
            os._exit(0)
    else:
        print(os.getpid(), flush=True)
    if not sys.stdin.readline():  # `up` ended before it recorded the pid
        sys.exit(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if spec.node:
        programs = {Path(child.argv[0]).parent for child in children}
        nodespace.furnish(spec, [Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1], *programs])
    supervisor = Supervisor(directory, children, pdeathsig=not spec.node)
    supervisor.run()
    if not spec.node:  # at node level the kernel ends everything with this process
        supervisor.stop()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ClusterError) as error:
        remedy = "; level node needs root and a machine that allows new namespaces and mounts (no plain container)"
        sys.exit(f"error: {error}{remedy if isinstance(error, PermissionError) else ''}")

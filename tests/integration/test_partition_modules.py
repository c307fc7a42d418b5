# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8s_partition, k8s_partition_info and `muster partitions` as users run them: a real API server, real workers."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.verbs import partitions as verbs
from ansible_collections.muster.coordination.tests.support.partition_site import Site
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

pytestmark = pytest.mark.integration

LONG = 120.0  # seconds: a deadline for what takes a moment


@pytest.fixture
def site(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(api, namespace, str(Path(kubeconfig).resolve()), tmp_path, graceSeconds=0.3)
    for name in ("pod1", "pod2"):
        made.worker(name)
    made.reconciler()
    yield made
    made.close()


def environment(site: Site) -> dict[str, str]:
    own = ("MUSTER_", "KUBECONFIG", "K8S_", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return {**kept, "KUBECONFIG": site.kubeconfig, "MUSTER_NAMESPACE": site.namespace, "TERM": "xterm"}


def muster(site: Site, *arguments: str, status: int = 0) -> str:
    """What a command says, on both outputs."""
    command = [sys.executable, "-m", "muster.cli", "partitions", *arguments]
    done = subprocess.run(command, env=environment(site), capture_output=True, text=True, timeout=LONG, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_modules(site: Site) -> None:
    values = {
        "kubeconfig": site.kubeconfig,
        "test_namespace": site.namespace,
        "ansible_python_interpreter": sys.executable,
    }
    playbook = Path(__file__).with_suffix(".yml")
    run = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            *("-i", "localhost,", "-c", "local", "-e", json.dumps(values), str(playbook)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"},
    )
    assert run.returncode == 0, run.stdout
    assert site.is_quiet()


def test_the_commands(site: Site) -> None:
    site.partition("part1")
    assert "give part1 to pod1: completed" in muster(site, "new", "part1", "pod1")
    assert "split part1 at e: completed" in muster(site, "split", "part1", "--at", "e")
    first, second = (each["name"] for each in json.loads(muster(site, "list", "-o", "json"))[0]["partitions"])
    assert f"move {second}: pod1 → pod2: completed" in muster(site, "move", second, "pod2")
    assert f"{second} [e, -) at pod2" in muster(site, "who", "kkkk")
    assert f"{second} is at pod2, and {first} at pod1: move it first" in muster(site, "merge", first, second, status=1)
    assert "completed" in muster(site, "move", second, "pod1")
    assert "completed" in muster(site, "merge", first, second)
    assert "it is so already" in muster(site, "merge", "--from", "", "--to", "")
    said = muster(site, "list")
    assert "1 partition, 2 workers, all keys covered" in said and re.search(r"\[-, -\) +\S+ +A pod1 +\d+ +served", said)
    assert site.is_exact() and site.is_quiet()


def test_it_is_watched_in_a_terminal(site: Site) -> None:
    """What changes is drawn, in colours, and Ctrl-C ends it."""
    for name, start, end in (("part1", "", "n"), ("part2", "n", "")):
        site.partition(name, start, end)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    command = [sys.executable, "-m", "muster.cli", "partitions", "list", "--watch"]
    process = subprocess.Popen(command, env=environment(site), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.set_blocking(ours, False)
    drawn = bytearray()

    def shows(pattern: str) -> bool:
        try:
            while more := os.read(ours, 65536):
                drawn.extend(more)
        except (BlockingIOError, OSError):
            pass
        return re.search(pattern, drawn.decode(errors="replace")) is not None

    try:
        until(lambda: shows("2 unserved"), "two that nobody serves", LONG)
        until(lambda: shows("\x1b\\[31m·+"), "them in red", LONG)
        verbs.partition(site.api, namespace=site.namespace, state="moved", name="part1", to="pod2", wait=True)
        until(lambda: shows(r"\[-, n\) +part1 +B pod2 +1 +served"), "its worker", LONG)
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 0
        assert shows("\x1b\\[\\?25h")
    finally:
        process.kill()
        process.wait()
        os.close(ours)

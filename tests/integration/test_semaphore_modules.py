# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules as a user runs them: through Ansible, against a real API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab, until

pytestmark = pytest.mark.integration
ANSIBLE = Path(sys.executable).parent


@pytest.fixture
def lab(api: Api, namespace: str) -> Iterator[Lab]:
    lab = Lab(api, namespace)
    yield lab
    lab.close()


def start(command: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [ANSIBLE / command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"},
    )


def descendants(pid: int) -> list[int]:
    """The process and all that it started, in whatever session: Ansible gives its workers sessions of their own."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [pid, *(one for child in children for one in descendants(child))]


def test_create_again_change_check_diff_wait_absent_absent_again(lab: Lab, kubeconfig: str, tmp_path: Path) -> None:
    values = {
        "ansible_async_dir": str(tmp_path),  # its default is told from HOME by one side, from the user by the other
        "kubeconfig": str(Path(kubeconfig).resolve()),
        "test_namespace": lab.namespace,
        "pod_uid": lab.pod("web-0"),
        "ansible_python_interpreter": sys.executable,
    }
    playbook = Path(__file__).with_suffix(".yml")
    run = start("ansible-playbook", "-i", "localhost,", "-c", "local", "-e", json.dumps(values), str(playbook))
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output


def test_a_task_that_is_killed_while_it_waits_leaves_a_place_that_expires(lab: Lab, kubeconfig: str) -> None:
    lab.semaphore({"gpu": 1})
    holder = lab.sidecar("a")
    holder.holds()
    options = {
        "name": lab.name,
        "namespace": lab.namespace,
        "holder": "ci-1",
        "lease": 3,
        "wait": True,
        "kubeconfig": str(Path(kubeconfig).resolve()),
    }
    task = start(
        "ansible",
        "localhost",
        "-m",
        "muster.coordination.k8s_semaphore_claim",
        "-a",
        json.dumps(options),
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    )
    until(lambda: lab.seen().place("ci-1") == 1, "the task to stand in the queue", seconds=60)
    for process in descendants(task.pid):
        os.kill(process, signal.SIGKILL)
    task.communicate(timeout=30)
    other = lab.sidecar("b")
    other.waits()
    until(lambda: lab.seen().place("ci-1") is None, "the place to expire")
    until(lambda: other.sight.place == 1, "the one behind to see that it is first")
    assert holder.fence is not None

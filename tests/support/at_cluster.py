# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For tests on the cluster that KUBECONFIG names: programs, logins by a token, and waiting."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials

REMEDY = "run `scripts/on.sh node pytest tests/e2e`"


def run(*command: str, given: str | None = None) -> str:
    """Run a program and return what it says; its failure is the test's."""
    done = attempt(*command, given=given)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def attempt(*command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    assert shutil.which(command[0]), f"{command[0]} must be on PATH: {REMEDY}"
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=300, check=False)


def administrator() -> Api:
    return Api(Credentials.load({"kubeconfig": kubeconfig()}))


def account(namespace: str, name: str) -> Api:
    """A ServiceAccount, by a token that is bound to nothing."""
    token = run("kubectl", "--namespace", namespace, "create", "token", name).strip()
    document = copy.deepcopy(yaml.safe_load(Path(kubeconfig()).read_text()))
    for user in document["users"]:
        user["user"] = {"token": token}
    return Api(Credentials.load({"kubeconfig": document}))


def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG", "")
    assert path, f"KUBECONFIG must name the cluster: {REMEDY}"
    return path


def until(
    what: str, true: Callable[[], bool], state: Callable[[], object] = lambda: "", seconds: float = 120.0
) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s until {what}; last seen: {state()}"
        time.sleep(0.2)

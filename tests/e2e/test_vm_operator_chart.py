# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Helm release of the chart vm-operator does on a cluster, from install to uninstall.

Needs a cluster of level node with the image (`make image`), and helm and kubectl on PATH
(`scripts/on.sh node pytest tests/e2e`). What is missing fails the test; nothing is left out.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from ansible_collections.muster.coordination.tests.support.at_cluster import attempt, run, until

CHART = Path(__file__).resolve().parents[2] / "charts" / "vm-operator"
MACHINE = {
    "apiVersion": "muster.dev/v1alpha1",
    "kind": "VirtualMachine",
    "metadata": {"name": "first"},
    "spec": {"cores": 2, "memory": "4Gi", "image": "debian-13"},
}


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"e2e-vm-release-{os.getpid()}"
    run("kubectl", "create", "namespace", name)
    yield name
    let_go = ("patch", "virtualmachine", "first", "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    attempt("kubectl", "--namespace", name, *let_go)  # there is one if the test broke off
    attempt("helm", "uninstall", "vm", "--namespace", name, "--ignore-not-found", "--wait")
    run("kubectl", "delete", "namespace", name, "--timeout=120s")


def test_release(namespace: str) -> None:
    values: dict[str, Any] = {"fullnameOverride": "vm", "watchNamespace": namespace, "replicas": 2}

    def kubectl(*arguments: str, given: str | None = None) -> str:
        return run("kubectl", "--namespace", namespace, *arguments, given=given).strip()

    def helm(verb: str, **changes: Any) -> CompletedProcess[str]:
        given = json.dumps({**values, **changes})
        where = ("--namespace", namespace, "--values", "-", "--wait", "--timeout=120s")
        return attempt("helm", verb, "vm", str(CHART), *where, given=given)

    def machine() -> dict[str, Any]:
        return dict(json.loads(kubectl("get", "virtualmachine", "first", "--output=json")))

    def token() -> str:
        return kubectl("get", "secret", "vm-cloud", "--output=jsonpath={.data.token}")

    installed = helm("install")
    assert installed.returncode == 0, installed.stderr
    assert base64.b64decode(token()).decode() not in installed.stdout + installed.stderr

    kubectl("apply", "-f", "-", given=json.dumps(MACHINE))
    until("the machine runs", lambda: machine().get("status", {}).get("phase") == "Running", machine)

    # An upgrade keeps the token, and the machine.
    before, made = token(), machine()["status"]["machine"]
    upgraded = helm("upgrade", workers=2)
    assert upgraded.returncode == 0, upgraded.stderr
    assert token() == before
    assert machine()["status"]["machine"] == made

    # Replicas of two ways to divide the work would not see each other.
    refused = helm("upgrade", replicasMode="shard")
    assert refused.returncode != 0
    assert "2 Pods run with `leader`" in refused.stderr

    kubectl("delete", "virtualmachine", "first", "--timeout=120s")
    uninstalled = attempt("helm", "uninstall", "vm", "--namespace", namespace, "--wait", "--timeout=120s")
    assert uninstalled.returncode == 0, uninstalled.stderr
    left = kubectl("get", "statefulset,service,secret,role,rolebinding,networkpolicy,pdb", "--output=name")
    assert left == ""

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a Helm release of the chart does on a cluster, with each engine; and a chart that takes the sidecar from it.

Needs a cluster of level node with the image (`make image`), and helm and kubectl on PATH
(`scripts/on.sh node pytest tests/e2e`). What is missing fails the test; nothing is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
CHART = CHECKOUT / "charts" / "distributor"
EXAMPLE = Path("examples") / "render"
SECONDS = 120.0


def run(*command: str, given: str | None = None) -> str:
    """Run a program and return what it says; its failure is the test's."""
    done = attempt(*command, given=given)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def attempt(*command: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    assert shutil.which(command[0]), f"{command[0]} must be on PATH: run `scripts/on.sh node pytest tests/e2e`"
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=300, check=False)


def status(namespace: str, engine: str, name: str) -> dict[str, Any]:
    """The semaphore as `muster distributor status` has it."""
    where = ("--namespace", namespace, "--engine", engine, "--configmap", name)
    shown = run(sys.executable, "-m", "muster.cli", "distributor", "status", *where, "--output", "json")
    (found,) = json.loads(shown)
    return dict(found)


def until(what: str, true: Callable[[], bool], state: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited {SECONDS:.0f} s until {what}; last seen: {state()}"
        time.sleep(0.5)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    assert os.environ.get("KUBECONFIG"), "KUBECONFIG must name the cluster: run `scripts/on.sh node pytest tests/e2e`"
    name = f"e2e-{request.node.originalname.removeprefix('test_').replace('_', '-')}"[:40].rstrip("-")
    name += f"-{os.getpid()}"
    run("kubectl", "create", "namespace", name)
    yield name
    attempt("helm", "uninstall", "render", "--namespace", name, "--ignore-not-found", "--wait")
    run("kubectl", "delete", "namespace", name, "--timeout=120s")
    kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings"
    left = run("kubectl", "get", kinds, f"--selector=muster.dev/namespace={name}", "--output=name")
    assert left == "", "helm uninstall left a policy in the cluster"


@pytest.mark.parametrize("engine", ["annotations", "tickets"])
def test_release(namespace: str, engine: str) -> None:
    values: dict[str, Any] = {
        "semaphore": {"engine": engine, "capacity": {"blue": 2, "green": 1}},
        "workload": {"replicas": 5},
    }

    def helm(verb: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        given = json.dumps({**values, **changes})
        where = ("--namespace", namespace, "--values", "-", "--wait", "--timeout=120s")
        return attempt("helm", verb, "render", str(CHART), *where, given=given)

    def seen() -> dict[str, Any]:
        return status(namespace, engine, "render-distributor")

    def at_rest() -> bool:
        return (len(seen()["holders"]), len(seen()["waiters"])) == (3, 2)

    installed = helm("install")
    assert installed.returncode == 0, installed.stderr
    until("three hold and two wait", at_rest, seen)

    # A lower capacity drains, and an upgrade that says nothing new leaves who holds alone.
    held = seen()["holders"]
    values["semaphore"]["capacity"] = {"blue": 1, "green": 1}
    for _ in range(2):
        upgraded = helm("upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        until("the capacity is lowered", lambda: seen()["resources"][0]["capacity"] == 1, seen)
        assert seen()["holders"] == held

    run("helm", "test", "render", "--namespace", namespace, "--timeout=120s")

    other = {"annotations": "tickets", "tickets": "annotations"}[engine]
    refused = helm("upgrade", semaphore={**values["semaphore"], "engine": other})
    assert refused.returncode != 0
    assert f"5 Pods run with {engine}" in refused.stderr


def test_a_chart_of_ones_own_takes_the_sidecar_from_this_one(namespace: str, tmp_path: Path) -> None:
    """The example, as it is delivered: three Pods that want two of four GPUs each, and start when they have them."""
    chart = tmp_path / "distributor"
    shutil.copytree(CHART, chart)
    run("helm", "dependency", "update", str(chart / EXAMPLE))
    run("helm", "install", "render", str(chart / EXAMPLE), "--namespace", namespace)

    def seen() -> dict[str, Any]:
        return status(namespace, "tickets", "gpus")

    until("two hold and one waits", lambda: (len(seen()["holders"]), len(seen()["waiters"])) == (2, 1), seen)
    assert [holder["resources"] for holder in seen()["holders"]] == [{"gpu": 2}, {"gpu": 2}]

    def said() -> dict[str, str]:
        pods = {holder["holder"]: holder["fence"] for holder in seen()["holders"]}
        logs = {pod: attempt("kubectl", "--namespace", namespace, "logs", pod, "-c", "render").stdout for pod in pods}
        return {pod: logs[pod] for pod, fence in pods.items() if f"rendering with fence {fence}" in logs[pod]}

    until("the two that hold have started, and know their fence", lambda: len(said()) == 2, said)
    waiter = seen()["waiters"][0]["holder"]
    jsonpath = "jsonpath={.status.initContainerStatuses[0].started} {.status.containerStatuses[0].state}"
    state = run("kubectl", "--namespace", namespace, "get", "pod", waiter, f"--output={jsonpath}")
    assert state.startswith("false"), "the one that waits was let in"
    assert "PodInitializing" in state

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real embedded clusters: up, up again, faults, two side by side, down; and that nothing stays behind.

`-m "cluster and not node"` is the control-plane level (no root), `-m "cluster and node"` the node level.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import hostlink, nodespace
from cluster.config import SANDBOX_IMAGE
from cluster.kernel import Process
from cluster.spec import CONTROL_PLANE, NODE, host_name

pytestmark = pytest.mark.cluster
REPOSITORY = Path(__file__).parents[2]
SECONDS = 90.0
SYSCTLS = {name: Path("/proc/sys", name).read_text().strip() for name in nodespace.KUBELET_SYSCTLS}


def until(true: Callable[[], Any], state: Callable[[], Any]) -> Any:
    """Wait for a condition; when it does not come, show the state."""
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {state()}"
        time.sleep(0.1)
    return found


class Cluster:
    """The command line on one cluster, in a state directory of its own."""

    def __init__(self, base: Path, name: str, level: str) -> None:
        self.name, self.level, self.base, self.directory = name, level, base, base / name
        self.environment = {**os.environ, "MUSTER_CLUSTER": "embedded", "MUSTER_CLUSTER_DIR": str(base)}
        self.environment.pop("MUSTER_CLUSTER_NAME", None)

    def command(self, verb: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cluster", verb, "--name", self.name, "--level", self.level, *arguments]

    def run(self, verb: str, *arguments: str) -> str:
        done = subprocess.run(
            self.command(verb, *arguments), cwd=REPOSITORY, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{verb}: {done.stdout}{done.stderr}"
        return done.stdout

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            self.command("status", "-o", "json"),
            cwd=REPOSITORY,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        rows: list[dict[str, Any]] = json.loads(done.stdout)
        return rows[0] if rows else {"state": "none", "components": []}

    def pids(self) -> dict[str, int]:
        return {row["name"]: row["pid"] for row in self.status()["components"]}

    def kubectl(self, *arguments: str, text: str = "") -> str:
        kubectl = subprocess.run(
            [sys.executable, "-m", "cluster", "tool", "kubectl"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        done = subprocess.run(
            [kubectl, "--kubeconfig", str(self.directory / "kubeconfig"), *arguments],
            input=text,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


def traces(base: Path) -> list[str]:
    """All that clusters below `base` have on this machine: processes, mounts, cgroups, links, routes, files."""
    found = [str(path) for path in base.iterdir()]
    for process in Path("/proc").iterdir():
        if process.name.isdecimal() and process.name != str(os.getpid()):
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(base) in command:
                found.append(f"process {process.name} {command}")
    found += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(base) in line]
    for name in ("one", "two"):
        host = host_name(str(base / name))
        found += nodespace.leftover_cgroups(host)
        found += [str(link) for link in Path("/sys/class/net").iterdir() if link.name == host]
    return found


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Cluster, Cluster]]:
    """Two names of the level that the test gives; whatever the test does, both are down afterwards."""
    found = Cluster(tmp_path, "one", request.param), Cluster(tmp_path, "two", request.param)
    yield found
    for cluster in found:
        cluster.run("down")


@pytest.mark.parametrize("pair", [CONTROL_PLANE, pytest.param(NODE, marks=pytest.mark.node)], indirect=True)
def test_two_clusters_from_up_to_down(pair: tuple[Cluster, Cluster]) -> None:
    one, two = pair
    routes = hostlink.routes()

    # An `up` that is killed on its way is repeated, and a third one changes nothing.
    interrupted = subprocess.Popen(
        one.command("up"), cwd=REPOSITORY, env=one.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until((one.directory / "supervisor.json").exists, lambda: list(one.base.iterdir()))
    interrupted.kill()
    interrupted.wait()
    one.run("up")
    before = one.pids()
    one.run("up")
    assert one.pids() == before
    assert one.status()["state"] == "running"

    # Another beside it: both answer, with nothing shared.
    two.run("up")
    assert one.status()["server"] != two.status()["server"]
    one.kubectl("create", "configmap", "mark", "--from-literal=in=one")
    assert "mark" not in two.kubectl("get", "configmaps", "-o", "name")

    # A killed API server comes back, with what was written; the others never stopped.
    one.run("kill", "kube-apiserver")
    until(lambda: one.pids().get("kube-apiserver") not in (None, before["kube-apiserver"]), one.status)
    until(lambda: one.status()["state"] == "running", one.status)
    assert one.kubectl("get", "configmap", "mark", "-o", "jsonpath={.data.in}") == "one"
    assert {**one.pids(), "kube-apiserver": 0} == {**before, "kube-apiserver": 0}

    # The one process is killed: nothing of the cluster runs on, and `up` begins anew.
    supervisor = Process.load(one.directory / "supervisor.json")
    assert supervisor
    pids = one.pids()
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()), lambda: pids)
    assert one.status()["state"] == "ended"
    one.run("up")
    assert "mark" not in one.kubectl("get", "configmaps", "-o", "name")
    assert two.status()["state"] == "running"

    if one.level == NODE:
        pods_run(one)

    one.run("down")
    two.run("down")
    assert traces(one.base) == []
    assert not set(hostlink.routes()) - set(routes)  # those of other clusters may go meanwhile


POD = f"""
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: sidecar
    image: {SANDBOX_IMAGE}
    restartPolicy: Always
    command: [sh, -c, "trap 'exit 0' TERM; while :; do sleep 1; done"]
  containers:
  - name: web
    image: {SANDBOX_IMAGE}
    command: [sh, -c, "echo started; mkdir /tmp/w; hostname > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"]
    securityContext: {{runAsUser: 65532, runAsNonRoot: true}}
    resources: {{limits: {{memory: 32Mi}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""


def fetch(url: str, **options: Any) -> str:
    """GET without any proxy; empty when it does not answer."""
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=options.pop("context", None))]
    request = urllib.request.Request(url, headers=options)
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=5) as response:
            body: bytes = response.read()
            return body.decode().strip()
    except OSError:
        return ""


def pods_run(one: Cluster) -> None:
    """A Pod with a native sidecar runs; it is reached by Pod and Service address; logs, exec; it reaches the API."""
    one.kubectl("apply", "-f", "-", text=POD)
    one.kubectl("wait", "pod/web", "--for=condition=Ready", f"--timeout={SECONDS:.0f}s")
    pod = one.kubectl("get", "pod", "web", "-o", "jsonpath={.status.podIP}")
    service = one.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
    assert fetch(f"http://{pod}:8080/") == "web"
    until(lambda: fetch(f"http://{service}/") == "web", lambda: one.kubectl("get", "endpointslices", "-o", "yaml"))
    assert one.kubectl("logs", "web", "-c", "web") == "started"
    assert one.kubectl("exec", "web", "-c", "web", "--", "wget", "-qO-", f"http://{service}/") == "web"
    # The API server by its Service address, as Pods see it: name in the certificate, authority and token of a Pod.
    mount = "/var/run/secrets/kubernetes.io/serviceaccount"
    authority, token = (
        one.kubectl("exec", "web", "-c", "web", "--", "cat", f"{mount}/{f}") for f in ("ca.crt", "token")
    )
    address = one.kubectl("exec", "web", "-c", "web", "--", "sh", "-c", "echo $KUBERNETES_SERVICE_HOST")
    context = ssl.create_default_context(cadata=authority)
    reviews = f"https://{address}/apis/authorization.k8s.io/v1"  # refused without a valid token
    assert fetch(reviews, context=context) == ""
    assert "selfsubjectaccessreviews" in fetch(reviews, context=context, Authorization=f"Bearer {token}")
    one.kubectl("exec", "web", "-c", "web", "--", "sh", "-c", f"nc -w 5 {address} 443 < /dev/null")
    # What a kubelet sets on its host was not set on this one.
    shown = {name: Path("/proc/sys", name).read_text().strip() for name in nodespace.KUBELET_SYSCTLS}
    assert shown == SYSCTLS
    # A restarted kubelet and containerd leave the Pod running.
    before = one.kubectl("get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
    one.run("kill", "containerd")
    one.run("kill", "kubelet")
    until(lambda: one.status()["state"] == "running" and restarted(one), one.status)
    assert one.kubectl("get", "pod", "web", "-o", "jsonpath={.status.containerStatuses[0].containerID}") == before
    assert fetch(f"http://{pod}:8080/") == "web"


def restarted(one: Cluster) -> bool:
    rows = {row["name"]: row for row in one.status()["components"]}
    return all(rows[name]["restarts"] and rows[name]["ready"] for name in ("containerd", "kubelet"))


@pytest.mark.parametrize("pair", [CONTROL_PLANE], indirect=True)
def test_levels_do_not_change_and_kubeconfig_is_private(pair: tuple[Cluster, Cluster]) -> None:
    one, _ = pair
    one.run("up", "--audit")
    other_level = [sys.executable, "-m", "cluster", "up", "--name", "one", "--level", NODE]
    refused = subprocess.run(other_level, cwd=REPOSITORY, env=one.environment, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "runs at level control-plane, and a level cannot be changed" in refused.stderr
    kubeconfig = one.directory / "kubeconfig"
    assert kubeconfig.stat().st_mode & 0o077 == 0
    assert f"export KUBECONFIG={kubeconfig}" in one.run("env")
    assert yaml.safe_load(kubeconfig.read_text())["current-context"] == "one"
    one.kubectl("create", "configmap", "audited")
    log = one.directory / "logs" / "audit.log"
    until(lambda: "configmaps/audited" in log.read_text() or '"audited"' in log.read_text(), log.read_text)

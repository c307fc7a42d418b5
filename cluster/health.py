# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an embedded cluster is doing: asked of its directory, its processes and its API server. Changes nothing."""

from __future__ import annotations

import json
import ssl
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from cluster import ClusterError, config, kernel
from cluster.kernel import Process
from cluster.spec import Spec

IMAGE_LOADED = "image.loaded"  # a file in the state directory: the sandbox image is in containerd


def load_spec(directory: Path) -> Spec | None:
    """The cluster recorded in `directory`, or None when there is none (or one of an unknown version)."""
    try:
        return Spec.parse((directory / "spec.json").read_text())
    except (OSError, ValueError, TypeError, KeyError):
        return None


def recorded(directory: Path) -> bool:
    return (directory / "spec.json").exists()


def supervisor(directory: Path) -> Process | None:
    """The running supervisor, or None."""
    process = Process.load(directory / "supervisor.json")
    return process if process and process.alive() else None


def waiting_for(spec: Spec) -> str:
    """The first thing that is not ready yet; empty when all is."""
    rows = running(spec)
    if not rows:
        return "supervisor"
    ready = {row["name"] for row in rows if row["ready"]}
    for row in rows:
        if row["name"] not in ready:
            return str(row["name"])
    if spec.node and not (spec.path / IMAGE_LOADED).exists():
        return "containerd"
    if api(spec, "/api/v1/namespaces/default/serviceaccounts/default") is None:
        return "kube-controller-manager"
    return "kubelet" if spec.node and not _node_ready(spec) else ""


def _node_ready(spec: Spec) -> bool:
    node = api(spec, f"/api/v1/nodes/{spec.name}")
    if node is None or node["spec"].get("taints"):
        return False
    conditions = {c["type"]: c["status"] for c in node.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True"


def api(spec: Spec, path: str) -> dict[str, Any] | None:
    """GET from the API server as administrator; None when it does not answer 200."""
    pki = spec.path / "pki"
    try:
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        handlers = (urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
        with urllib.request.build_opener(*handlers).open(spec.server + path, timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except (OSError, HTTPException, ValueError):
        return None


def running(spec: Spec) -> list[dict[str, Any]]:
    """What the supervisor last wrote: name, pid (in its namespace), ready, restarts, last_exit."""
    try:
        rows: list[dict[str, Any]] = json.loads((spec.path / "running.json").read_text())
        return rows
    except (OSError, ValueError):
        return []


def tail(spec: Spec, component: str, lines: int = 15) -> str:
    """The end of a component's log."""
    try:
        return "\n".join((spec.path / "logs" / f"{component}.log").read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return f"(no log of {component})"


def containerd_address(spec: Spec) -> str:
    """The node's containerd socket as seen from the host. Raises ClusterError when it does not run."""
    process = supervisor(spec.path)
    if not process or not spec.node:
        state = f"at level {spec.level}" if process else "down"
        raise ClusterError(f"cluster {spec.name} runs no containers: it is {state}")
    return f"/proc/{process.pid}/root{config.CONTAINERD_SOCKET}"


def status(directory: Path) -> dict[str, Any] | None:
    """State (running, starting, ended), addresses, and components with pid, memory, restarts; None: no cluster."""
    spec = load_spec(directory)
    if spec is None:
        return None
    process = supervisor(directory)
    pids = kernel.children(process.pid) if process else {}
    rows = []
    for row in running(spec) if process else []:
        pid = pids.get(row["pid"])
        rows.append({**row, "pid": pid, "resident_bytes": kernel.resident_bytes(pid) if pid else 0})
    found: dict[str, Any] = {
        "name": spec.name,
        "provider": "embedded",
        "level": spec.level,
        "state": ("starting" if waiting_for(spec) else "running") if process else "ended",
        "kubeconfig": str(directory / "kubeconfig"),
        "server": spec.server,
        "logs": str(directory / "logs"),
        "supervisor_pid": process.pid if process else None,
        "components": rows,
    }
    if spec.node:
        found |= {"pod_cidr": spec.pod_cidr, "service_cidr": spec.service_cidr}
        found |= {"containerd": containerd_address(spec) if process else None}
    return found

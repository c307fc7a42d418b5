# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The user's own cluster, chosen on purpose with MUSTER_CLUSTER=existing: asked whether it answers, never changed."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from cluster import ClusterError

SECONDS = 15


def check(kubectl: str) -> None:
    """Raises ClusterError when the cluster of KUBECONFIG does not answer."""
    problem = _problem(kubectl)
    if problem:
        raise ClusterError(
            f"the cluster of KUBECONFIG={os.environ.get('KUBECONFIG', '')} does not answer: {problem}. "
            "Check it with: kubectl cluster-info"
        )


def _problem(kubectl: str) -> str:
    command = [kubectl, "get", "--raw", "/readyz", f"--request-timeout={SECONDS}s"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {2 * SECONDS} s"
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()


def status(kubectl: str) -> dict[str, Any]:
    problem = _problem(kubectl)
    found: dict[str, Any] = {
        "name": "existing",
        "provider": "existing",
        "state": "unreachable" if problem else "running",
    }
    found["kubeconfig"] = os.environ.get("KUBECONFIG", "")
    return found | ({"problem": problem} if problem else {})

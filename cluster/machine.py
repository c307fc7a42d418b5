# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The facts that `choose` decides on, asked of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from cluster import packages, toolchain
from cluster.choose import Facts
from cluster.config import CONTROL_PLANE_TOOLS, NODE_TOOLS
from cluster.spec import NODE


def tools(level: str) -> list[str]:
    """Programs which a level needs built."""
    return [*CONTROL_PLANE_TOOLS, *(NODE_TOOLS if level == NODE else ())]


def facts(level: str) -> Facts:
    unbuilt = tuple(toolchain.missing(tools(level)))
    return Facts(
        kubeconfig=os.environ.get("KUBECONFIG", ""),
        docker_problem=_docker_problem(),
        kind_installed=shutil.which("kind") is not None,
        linux=sys.platform == "linux",
        root=os.geteuid() == 0,
        can_install=shutil.which("apt-get") is not None,
        unbuilt=unbuilt,
        go_problem=toolchain.go_problem() if unbuilt else "",
        packages=tuple(packages.missing()),
    )


def _docker_problem() -> str:
    if not shutil.which("docker"):
        return "docker is not on the PATH. Install Docker and start its daemon."
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True, timeout=10
        )
    except subprocess.TimeoutExpired:
        return "the Docker daemon did not answer within 10 s. Restart it."
    if done.returncode == 0:
        return ""
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"the Docker daemon does not answer ({reason}). Start it, and let your user talk to it."

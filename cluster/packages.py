# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian packages of a node: which are missing here, and their installation when we may."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from cluster import ClusterError
from cluster.progress import Steps

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CNI_DIRECTORIES = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
# package: what of it a node needs (iptables: for hostPort, by the portmap plugin)
NODE_PACKAGES = {
    "runc": "runc",
    "containernetworking-plugins": "cni:ptp",
    "nftables": "nft",
    "iptables": "iptables",
    "iproute2": "ip",
    "busybox-static": "busybox",
}


def find(program: str) -> str:
    """Path of a program or (`cni:name`) of a network plugin, also in the sbin directories; empty when missing."""
    if program.startswith("cni:"):
        plugin = program.removeprefix("cni:")
        return next((f"{d}/{plugin}" for d in CNI_DIRECTORIES if Path(d, plugin).exists()), "")
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}") or ""


def missing(look: Callable[[str], str] = find) -> list[str]:
    """Packages of a node which are not here."""
    return [package for package, program in NODE_PACKAGES.items() if not look(program)]


def install() -> None:
    """Install what is missing with apt-get. Raises ClusterError with what to do by hand."""
    wanted = missing()
    if not wanted:
        return
    by_hand = f"install {' '.join(wanted)} (the names are Debian's) with your package manager"
    if not shutil.which("apt-get"):
        raise ClusterError(f"missing on this machine: {', '.join(wanted)}; {by_hand}")
    if os.geteuid() != 0:
        raise ClusterError(
            f"missing on this machine: {', '.join(wanted)}; run: sudo apt-get install {' '.join(wanted)}"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *wanted]
    with Steps(1).step(f"Debian packages {' '.join(wanted)}", "installed"):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:  # a fresh image has no package lists
            subprocess.run(["apt-get", "update", "-q"], env=environment, capture_output=True)
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0 or missing():
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise ClusterError(f"apt-get could not install {' '.join(missing() or wanted)}:\n{tail}\n{by_hand}")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of a node's network: one veth pair, and one route to its Pods and Services."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from cluster import ClusterError
from cluster.spec import Spec


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def routes() -> list[str]:
    """Networks which the host routes already (IPv4, CIDR notation), the default route left out."""
    rows = json.loads(_ip("-4", "-json", "route", "show", "table", "all") or "[]")
    return sorted({row["dst"] for row in rows if row["dst"] != "default" and row.get("type", "unicast") == "unicast"})


def connect(spec: Spec, pid: int) -> None:
    """Link the host with the network namespace of process `pid`; the kernel removes it with that namespace."""
    _ip("link", "add", spec.host_name, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
    _ip("address", "add", f"{spec.host_address}/30", "dev", spec.host_name)
    _ip("link", "set", spec.host_name, "up")
    _ip("route", "add", spec.block, "via", spec.address, "dev", spec.host_name)


def disconnect(link: str) -> None:
    """Remove the link when it is still there (a namespace is torn down a moment after its last process)."""
    if Path("/sys/class/net", link).exists():
        subprocess.run(["ip", "link", "delete", link], capture_output=True)

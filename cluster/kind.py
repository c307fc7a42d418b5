# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The same verbs on kind: nodes in Docker containers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from cluster import ClusterError

READY = "180s"
MARK = "kind"  # a file in the state directory which says whose cluster this is


def _kind(*arguments: str, show: bool = False) -> str:
    """Run kind; with `show` its progress goes to the user. Raises ClusterError."""
    command = ["kind", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=None if show else subprocess.PIPE, text=True)
    if done.returncode != 0:
        reason = (done.stderr or "").strip() or "see above"
        raise ClusterError(f"{' '.join(command)} failed: {reason}")
    return done.stdout


def recorded(directory: Path) -> bool:
    return (directory / MARK).exists()


def exists(name: str) -> bool:
    return name in _kind("get", "clusters").split()


def up(name: str, directory: Path) -> None:
    """Have a kind cluster `name` and its kubeconfig in `directory`."""
    kubeconfig = str(directory / "kubeconfig")
    if exists(name) and not recorded(directory):
        raise ClusterError(
            f"a kind cluster {name} exists which was not made here: choose another name (--name), "
            f"or remove it first: kind delete cluster --name {name}"
        )
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    (directory / MARK).touch()
    if exists(name):
        _kind("export", "kubeconfig", "--name", name, "--kubeconfig", kubeconfig)
    else:
        _kind("create", "cluster", "--name", name, "--kubeconfig", kubeconfig, "--wait", READY, show=True)


def down(name: str, directory: Path) -> None:
    if exists(name):
        _kind("delete", "cluster", "--name", name, "--kubeconfig", str(directory / "kubeconfig"))
    shutil.rmtree(directory)


def load(name: str, archive: Path) -> None:
    _kind("load", "image-archive", str(archive), "--name", name)


def status(name: str, directory: Path) -> dict[str, Any]:
    state = "running" if exists(name) else "ended"
    return {"name": name, "provider": "kind", "state": state, "kubeconfig": str(directory / "kubeconfig")}


def kill(name: str, component: str) -> None:
    """SIGKILL a component in the node's container; its kubelet or systemd starts it again."""
    done = subprocess.run(
        ["docker", "exec", f"{name}-control-plane", "pkill", "-KILL", "-x", component[:15]],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise ClusterError(f"no process {component!r} in the node of kind cluster {name} {done.stderr.strip()}".strip())

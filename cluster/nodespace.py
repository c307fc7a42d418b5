# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's own world: cgroup, namespaces, mounts, link. Called by the supervisor, before any component starts."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import ClusterError, kernel
from cluster.spec import Spec

# What a kubelet sets when it finds other values. They are the host's, for good: it is shown these and sets nothing.
KUBELET_SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy: where, of which kind (cgroup or cgroup2), with which controllers (v1)."""

    path: str
    kind: str
    options: str


def hierarchies(mountinfo: str) -> list[Hierarchy]:
    """The cgroup mounts in the text of /proc/<pid>/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()[:3]
        if kind in ("cgroup", "cgroup2"):
            kept = ",".join(o for o in options.split(",") if (o not in ("rw", "ro") and "=" not in o) or "name=" in o)
            found.append(Hierarchy(left.split()[4], kind, kept if kind == "cgroup" else ""))
    return found


def _mounted() -> list[Hierarchy]:
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def enter_cgroup(name: str) -> None:
    """Move the caller into cgroup `name`, made below the root of every hierarchy."""
    for hierarchy in _mounted():
        root = Path(hierarchy.path)
        group = root / name
        group.mkdir(exist_ok=True)
        if hierarchy.kind == "cgroup2":
            _delegate(root)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # v1: empty in a new group, and a task may not enter then
            if hierarchy.kind == "cgroup" and (group / setting).exists():
                (group / setting).write_text((root / setting).read_text())
        (group / "cgroup.procs").write_text("0")


def _delegate(group: Path) -> None:
    """cgroup v2: let children of `group` use all its controllers, as far as the kernel allows."""
    for controller in (group / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def remove_cgroup(name: str) -> bool:
    """Remove cgroup `name` and all below it from every hierarchy; False when something in it still runs."""
    return all([_remove_tree(Path(h.path) / name) for h in _mounted()])


def _remove_tree(group: Path) -> bool:
    for directory, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def leftover_cgroups(name: str) -> list[str]:
    """Directories of cgroup `name` which still exist."""
    return [str(Path(h.path) / name) for h in _mounted() if (Path(h.path) / name).exists()]


def leave_host() -> None:
    """New namespaces for the caller; the next child is process 1. Raises OSError without root."""
    kernel.unshare(
        kernel.CLONE_NEWNS
        | kernel.CLONE_NEWPID
        | kernel.CLONE_NEWNET
        | kernel.CLONE_NEWCGROUP
        | kernel.CLONE_NEWIPC
        | kernel.CLONE_NEWUTS
    )


def furnish(spec: Spec, needed: list[Path]) -> None:
    """Mounts, host name and network of the node, seen by nobody else; `needed` stay visible wherever they lie."""
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
    _show_sysctls(spec.path / "sysctl")
    with _kept([spec.path, *needed]) as keep:
        for kind in ("lib", "log"):
            backing = spec.path / "var" / kind
            backing.mkdir(parents=True, exist_ok=True)
            kernel.mount(str(backing), f"/var/{kind}", flags=kernel.MS_BIND)
        kernel.mount("tmpfs", "/run", "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755")
        keep(("/var/lib", "/var/log", "/run"))
    _mount_cgroups()
    socket.sethostname(spec.name)
    _network(spec)


@contextlib.contextmanager
def _kept(paths: list[Path]) -> Iterator[Callable[[tuple[str, ...]], None]]:
    """Handles on `paths`, so that those which a mount then hides can be shown again at their place."""
    handles = {path.resolve(): os.open(path, os.O_PATH) for path in paths}

    def keep(hidden: tuple[str, ...]) -> None:
        for path, handle in handles.items():
            if any(path.is_relative_to(h) for h in hidden) and not path.exists():
                path.mkdir(parents=True)
                kernel.mount(f"/proc/self/fd/{handle}", str(path), flags=kernel.MS_BIND | kernel.MS_REC)

    try:
        yield keep
    finally:
        for handle in handles.values():
            os.close(handle)


def _show_sysctls(directory: Path) -> None:
    for name, value in KUBELET_SYSCTLS.items():
        shown = directory / name.replace("/", ".")
        shown.parent.mkdir(exist_ok=True)
        shown.write_text(f"{value}\n")
        kernel.mount(str(shown), f"/proc/sys/{name}", flags=kernel.MS_BIND)


def _mount_cgroups() -> None:
    """Mount every hierarchy again: from the new cgroup namespace its root is the cluster's own cgroup."""
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    mounted = _mounted()
    kernel.mount("tmpfs", "/sys/fs/cgroup", "tmpfs", flags, "mode=755")  # the same one twice on a place is refused
    for hierarchy in mounted:
        Path(hierarchy.path).mkdir(exist_ok=True)
        kernel.mount("cgroup", hierarchy.path, hierarchy.kind, flags, hierarchy.options)
        if hierarchy.kind == "cgroup2":  # no processes beside children there: move into a leaf of our own
            leaf = Path(hierarchy.path, "system")
            leaf.mkdir(exist_ok=True)
            (leaf / "cgroup.procs").write_text("0")


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _network(spec: Spec) -> None:
    _ip("link", "set", "lo", "up")
    _ip("address", "add", f"{spec.address}/30", "dev", "eth0")
    _ip("link", "set", "eth0", "up")
    _ip("route", "add", "default", "via", spec.host_address)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that a figure was measured on: what it is, how busy it was, and which process used its time."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


def facts(packages: Iterable[str] = ()) -> dict[str, Any]:
    """CPU, cores, memory in GiB, kernel, Python, versions of the named packages that are installed, and the load."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "packages": {name: found for name in packages if (found := _version(name))},
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def sentence(found: Mapping[str, Any]) -> str:
    """The same in one line for people."""
    return (
        f"{found['cores']} cores ({found['cpu']}), {found['memory_gib']:.0f} GiB, {found['system']}, "
        f"Linux {found['kernel']}, Python {found['python']}"
    )


def wait_until_quiet(load: float = 1.5, minutes: float = 15.0) -> bool:
    """Wait until the 1-minute load average is below `load`, for `minutes` at most; False when it never was."""
    deadline = time.monotonic() + minutes * 60
    while (now := os.getloadavg()[0]) >= load:
        if time.monotonic() >= deadline:
            return False
        say(f"load {now:.2f}: waiting for the machine to be quiet (below {load})")
        time.sleep(15)
    return True


def cpu_seconds(pid: int) -> float:
    """CPU time that the process and those of its children that have ended used; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_seconds() -> float:
    """CPU time that the whole machine was busy since it started, all cores together."""
    first, _rest = Path("/proc/stat").read_text().split("\n", 1)
    user, nice, system, _idle, _waits, hard, soft = map(int, first.split()[1:8])
    return (user + nice + system + hard + soft) / TICKS


def resident(pid: int) -> dict[str, float]:
    """MiB of a process: resident, and of that its own (not shared with another process)."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        fields[name.rstrip(":")] = int(value) / 1024
    return {"resident": fields["Rss"], "own": fields["Private_Clean"] + fields["Private_Dirty"]}


class Meter:
    """CPU use between two moments: of named groups of processes, and of the whole machine."""

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        self._groups = {name: list(pids) for name, pids in groups.items()}
        self._begun = time.monotonic()
        self._before, self._machine = self._read(), machine_seconds()

    def cores(self) -> dict[str, float]:
        """Cores in use since the meter was made (1.0: one core all the time), by group.

        `NAME, busiest` is the one process of a group of several that used most; `others` is what no group used.
        """
        elapsed = time.monotonic() - self._begun
        used = {
            name: [(now - before) / elapsed for now, before in zip(seconds, self._before[name], strict=True)]
            for name, seconds in self._read().items()
        }
        cores = {name: sum(each) for name, each in used.items()}
        others = (machine_seconds() - self._machine) / elapsed - sum(cores.values())
        busiest = {f"{name}, busiest": max(each) for name, each in used.items() if len(each) > 1}
        return {name: round(found, 3) for name, found in {**cores, **busiest, "others": others}.items()}

    def _read(self) -> dict[str, list[float]]:
        return {name: [cpu_seconds(pid) for pid in pids] for name, pids in self._groups.items()}


class Cluster:
    """The cluster of its own name that benchmarks use; started when it does not run."""

    def __init__(self, name: str, level: str = "control-plane") -> None:
        self.name, self.level = name, level
        self._run("up", "--level", level, "--name", name)
        self.kubeconfig = str(self._status()["kubeconfig"])

    def pids(self) -> dict[str, int]:
        """Its components' process ids, by name."""
        return {row["name"]: row["pid"] for row in self._status()["components"] if row["pid"]}

    def provider(self) -> str:
        """What kind of cluster it is: embedded, kind or existing."""
        return str(self._status()["provider"])

    def version(self) -> str:
        """As in `v1.37.0`."""
        from cluster import toolchain

        return toolchain.pinned("kubernetes", "k8s.io/kubernetes")

    def kill(self, component: str) -> None:
        """SIGKILL one component; it is started again."""
        self._run("kill", "--level", self.level, "--name", self.name, component)

    def down(self) -> None:
        """Remove it and all that it has."""
        self._run("down", "--level", self.level, "--name", self.name)

    def _status(self) -> dict[str, Any]:
        rows: list[dict[str, Any]] = json.loads(self._run("status", "--name", self.name, "-o", "json"))
        return rows[0]

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "cluster", *arguments]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"error: {' '.join(command[1:])} failed:\n{done.stderr.strip() or done.stdout.strip()}")
        return done.stdout


def say(text: str) -> None:
    """Progress, on standard error, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return platform.system()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True)
    return done.stdout.strip()

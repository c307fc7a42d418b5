# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Binaries built with Go from the pinned modules in tools/, once: later starts find them and never call Go."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster import ClusterError
from cluster.progress import Steps, duration, note

MODULES = Path(__file__).parent / "tools"
GO_FLOOR = (1, 26)
GO_REMEDY = (
    "Install Go 1.26 or newer from your distribution or from the Go project, and put `go` on the PATH. "
    "With Go 1.21 or newer, GOTOOLCHAIN=auto fetches the right one by itself."
)


@dataclass(frozen=True)
class Tool:
    """One binary: the module directory, the package, and the seconds its first build takes on two cores."""

    module: str
    package: str
    seconds: int


_K8S = "k8s.io/kubernetes/cmd/"
_CONTAINERD = "github.com/containerd/containerd/v2/cmd/"
TOOLS = {
    "etcd": Tool("kubernetes", "go.etcd.io/etcd/server/v3", 20),
    "kube-apiserver": Tool("kubernetes", f"{_K8S}kube-apiserver", 340),
    "kube-controller-manager": Tool("kubernetes", f"{_K8S}kube-controller-manager", 110),
    "kube-scheduler": Tool("kubernetes", f"{_K8S}kube-scheduler", 15),
    "kubectl": Tool("kubernetes", f"{_K8S}kubectl", 25),
    "kubelet": Tool("kubernetes", f"{_K8S}kubelet", 50),
    "kube-proxy": Tool("kubernetes", f"{_K8S}kube-proxy", 20),
    "containerd": Tool("containerd", f"{_CONTAINERD}containerd", 50),
    "containerd-shim-runc-v2": Tool("containerd", f"{_CONTAINERD}containerd-shim-runc-v2", 2),
    "ctr": Tool("containerd", f"{_CONTAINERD}ctr", 5),
    "helm": Tool("helm", "helm.sh/helm/v3/cmd/helm", 80),
}

# What the first tool of a module costs beside, for code that its tools share (seconds on two cores).
SHARED_SECONDS = {"kubernetes": 40, "containerd": 60, "helm": 0}


def cache_directory() -> Path:
    """MUSTER_CACHE, or muster below the user's cache directory."""
    chosen = os.environ.get("MUSTER_CACHE")
    return (
        Path(chosen).absolute()
        if chosen
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "muster")
    )


def pinned(module: str, dependency: str) -> str:
    """The version of `dependency` in a module's go.mod, as in `v1.37.0`."""
    found = re.search(rf"^\s*{re.escape(dependency)} (v\S+)", (MODULES / module / "go.mod").read_text(), re.MULTILINE)
    if not found:
        raise ClusterError(f"{MODULES / module / 'go.mod'} does not require {dependency}")
    return found[1]


def ldflags(module: str) -> str:
    """Linker flags: no symbols, and the version that the binary then reports."""
    if module == "kubernetes":
        version = pinned(module, "k8s.io/kubernetes")
        major, minor = version.removeprefix("v").split(".")[:2]
        base = "k8s.io/component-base/version"
        return f"-s -w -X {base}.gitVersion={version} -X {base}.gitMajor={major} -X {base}.gitMinor={minor}"
    if module == "containerd":
        version = pinned(module, "github.com/containerd/containerd/v2")
        return f"-s -w -X github.com/containerd/containerd/v2/version.Version={version}"
    return f"-s -w -X helm.sh/helm/v3/internal/version.version={pinned(module, 'helm.sh/helm/v3')}"


def key(module: str) -> str:
    """What a module's binaries depend on: its go.mod and go.sum, the flags, the machine."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / module / name).read_bytes())
    digest.update(f"{ldflags(module)} {platform.system()} {platform.machine()}".encode())
    return digest.hexdigest()[:12]


def path(tool: str) -> Path:
    """Where the binary lies in the cache, built or not."""
    module = TOOLS[tool].module
    return cache_directory() / "bin" / f"{module}-{key(module)}" / tool


def missing(tools: Iterable[str]) -> list[str]:
    """Those which still have to be built."""
    return [tool for tool in tools if not path(tool).exists()]


def go_problem() -> str:
    """Why Go cannot build here, with the remedy; empty when it can."""
    go = shutil.which("go")
    if not go:
        return f"Go is not on the PATH. {GO_REMEDY}"
    done = subprocess.run([go, "env", "GOVERSION", "GOTOOLCHAIN"], capture_output=True, text=True, cwd="/")
    found = re.match(r"go(\d+)\.(\d+)", done.stdout)
    if not found:
        return f"`go env GOVERSION` failed: {(done.stderr or done.stdout).strip()}. {GO_REMEDY}"
    version = (int(found[1]), int(found[2]))
    if version >= GO_FLOOR or (version >= (1, 21) and done.stdout.split()[1:] != ["local"]):
        return ""
    return f"Go {version[0]}.{version[1]} is too old. {GO_REMEDY}"


def build(tools: Iterable[str]) -> dict[str, str]:
    """Build what is missing, showing progress, and return the path of each tool. Raises ClusterError."""
    wanted = list(tools)
    if missing(wanted):
        with _lock(cache_directory()):
            _build_missing(missing(wanted), len(wanted))  # another process may have built them meanwhile
    return {tool: str(path(tool)) for tool in wanted}


def _build_missing(tools: list[str], of: int) -> None:
    if not tools:
        return
    if problem := go_problem():
        raise ClusterError(f"{', '.join(tools)} must be built, but {problem}")
    cores = os.cpu_count() or 1
    modules = {TOOLS[tool].module for tool in tools}
    shared = sum(SHARED_SECONDS[m] for m in modules if not (cache_directory() / "bin" / f"{m}-{key(m)}").exists())
    estimate = (shared + sum(TOOLS[tool].seconds for tool in tools)) * 2 / cores
    steps = Steps(len(tools))
    note(
        f"first build of {len(tools)} of {of} programs from source, about {duration(estimate)} on "
        f"{cores} core{'s' * (cores > 1)}; kept in {cache_directory()}, later starts take seconds"
    )
    for tool in tools:
        with steps.step(tool, "built"):
            _build_one(tool)


def _build_one(name: str) -> None:
    tool, target = TOOLS[name], path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{name}.{os.getpid()}")
    command = ["go", "build", "-trimpath", "-ldflags", ldflags(tool.module), "-o", str(unfinished), tool.package]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
    try:
        done = subprocess.run(
            command,
            cwd=MODULES / tool.module,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode != 0:
            raise ClusterError(
                f"building {name} failed:\n{done.stdout.strip()}\nin {MODULES / tool.module}: {' '.join(command)}"
            )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """One build at a time for each cache: a second `up` waits for the first and then finds everything."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another build uses {directory}: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

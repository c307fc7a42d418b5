# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded cluster: up, down, load, kill. All it has is one recorded process and one directory."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from cluster import ClusterError, config, hostlink, image, kernel, machine, nodespace, packages, toolchain
from cluster.health import IMAGE_LOADED, containerd_address, load_spec, recorded, running, supervisor, tail, waiting_for
from cluster.kernel import Process
from cluster.progress import Steps
from cluster.spec import NODE, Spec, host_name, make

READY_SECONDS, END_SECONDS, POLL_SECONDS = 240.0, 15.0, 0.1
REPOSITORY = Path(__file__).parents[1]


def up(name: str, level: str, directory: Path, audit: bool) -> Spec:
    """Have the cluster run and be ready. Returns at once when it is. Raises ClusterError."""
    if supervisor(directory):
        spec = _same(load_spec(directory), name, level, audit)
        _wait_ready(spec, Steps(1))
        return spec
    prepare(level)
    with _locked(directory.parent):
        if supervisor(directory):  # another `up` was first
            spec = _same(load_spec(directory), name, level, audit)
        else:
            clear(directory)
            spec = _create(name, level, directory, audit)
    _wait_ready(spec, Steps(1))
    return spec


def prepare(level: str) -> None:
    """Install packages and build programs which the level needs."""
    if level == NODE:
        packages.install()
    toolchain.build(machine.tools(level))


def _same(spec: Spec | None, name: str, level: str, audit: bool) -> Spec:
    """The running cluster, when it is what was asked for."""
    if spec is None:
        raise ClusterError(
            f"cluster {name} runs but its record cannot be read; remove it: python -m cluster down --name {name}"
        )
    if spec.level != level:
        raise ClusterError(
            f"cluster {name} runs at level {spec.level}, and a level cannot be changed. Give the other one a name "
            f"of its own (--name), or remove this one first: python -m cluster down --name {name}"
        )
    if audit and not spec.audit:
        raise ClusterError(
            f"cluster {name} runs without an audit log. Remove it first: python -m cluster down --name {name}"
        )
    return spec


def _create(name: str, level: str, directory: Path, audit: bool) -> Spec:
    from cluster import pki  # costs 0.1 s, which a no-op does not pay

    subnet = os.environ.get("MUSTER_CLUSTER_SUBNET", "")
    taken = hostlink.routes() if level == NODE else []
    spec = make(name, level, str(directory), audit=audit, subnet=subnet, taken=taken, port_free=_port_free)
    directory.mkdir(parents=True, mode=0o700)
    (directory / "spec.json").write_text(spec.dump())
    (directory / "logs").mkdir()
    pki.write(spec, directory / "pki")
    host = _host(level, directory)
    config.write(spec, host)
    rows = [asdict(component) for component in config.components(spec, host)]
    (directory / "components.json").write_text(json.dumps(rows, indent=2))
    _write_kubeconfig(spec)
    _start(spec)
    return spec


def _host(level: str, directory: Path) -> config.Host:
    binaries = {tool: str(toolchain.path(tool)) for tool in machine.tools(level)}
    if level != NODE:
        return config.Host(binaries)
    binaries["runc"] = packages.find("runc")
    plugins = str(Path(packages.find("cni:ptp")).parent)
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True).stdout.strip()
    snapshotter = "native" if kind == "overlayfs" else "overlayfs"  # an overlay's upper layer may not be an overlay
    open_files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 1_000_000)
    return config.Host(binaries, plugins, snapshotter, open_files)


def _port_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_kubeconfig(spec: Spec) -> None:
    def inline(file: str) -> str:
        return base64.b64encode((spec.path / "pki" / file).read_bytes()).decode()

    content = {"ca": inline("ca.crt"), "cert": inline("admin.crt"), "key": inline("admin.key")}
    with open(os.open(spec.path / "kubeconfig", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(config.kubeconfig(spec, "admin", inline=content))


def _start(spec: Spec) -> None:
    """Start the supervisor, record it, link it with the host, and only then let it go on."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{os.environ.get('PATH', '')}:{packages.SYSTEM_PATH}",
    }
    with open(spec.path / "logs" / "supervisor.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.supervisor", spec.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd="/",
            env=environment,
            start_new_session=True,
            text=True,
        )
    assert process.stdin and process.stdout
    with process.stdin, process.stdout:
        answer = process.stdout.readline().strip()
        if not answer.isdecimal():
            raise ClusterError(f"the supervisor did not start:\n{tail(spec, 'supervisor')}")
        pid = int(answer)
        Process.of(pid).save(spec.path / "supervisor.json")
        if spec.node:
            process.wait()  # the one that made the namespaces; `pid` is its child
            hostlink.connect(spec, pid)
        process.stdin.write("go\n")


def _wait_ready(spec: Spec, steps: Steps) -> None:
    """Wait until every component is ready and Pods can be created. Raises ClusterError saying what is not."""
    if not waiting_for(spec):
        return
    deadline = time.monotonic() + READY_SECONDS
    with steps.step(f"cluster {spec.name} ({spec.level})", "ready"):
        while waiting := waiting_for(spec):
            if spec.node and _image_due(spec):
                _load_sandbox(spec)
            if not supervisor(spec.path):
                raise ClusterError(f"cluster {spec.name} ended while it started:\n{tail(spec, 'supervisor')}")
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"cluster {spec.name}: {waiting} not ready after {READY_SECONDS:.0f} s. "
                    f"Logs: {spec.path / 'logs'}\n{tail(spec, waiting)}"
                )
            time.sleep(POLL_SECONDS)


def _image_due(spec: Spec) -> bool:
    ready = {row["name"] for row in running(spec) if row["ready"]}
    return "containerd" in ready and not (spec.path / IMAGE_LOADED).exists()


def _load_sandbox(spec: Spec) -> None:
    archive = spec.path / "sandbox.tar"
    image.write(archive, config.SANDBOX_IMAGE, packages.find("busybox"))
    load(spec, archive)
    archive.unlink()
    (spec.path / IMAGE_LOADED).touch()


def load(spec: Spec, archive: Path) -> str:
    """Import a docker or OCI archive; returns what ctr says. Raises ClusterError."""
    command = [
        str(toolchain.path("ctr")),
        "--address",
        containerd_address(spec),
        "--namespace",
        "k8s.io",
        "images",
        "import",
    ]
    done = subprocess.run([*command, str(archive)], capture_output=True, text=True)
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()[-1:]  # deprecation warnings go before it
        raise ClusterError(f"importing {archive} failed: {' '.join(reason) or f'exit code {done.returncode}'}")
    return done.stdout.strip()


def down(directory: Path) -> bool:
    """End the cluster and remove all it had; False when there was none. Raises ClusterError when it cannot."""
    if not directory.exists():
        return False
    with _locked(directory.parent):
        process = supervisor(directory)
        if process and not process.end(((signal.SIGTERM, END_SECONDS), (signal.SIGKILL, END_SECONDS))):
            raise ClusterError(f"process {process.pid} is cluster {directory}, and did not end on SIGKILL")
        clear(directory)
    return True


def clear(directory: Path) -> None:
    """Remove what a cluster whose process is gone has left: cgroups, link, directory. Raises ClusterError."""
    if not directory.exists():
        return
    if not recorded(directory) and any(directory.iterdir()):
        raise ClusterError(
            f"{directory} is not the state of a cluster: move it away, or set MUSTER_CLUSTER_DIR or --name"
        )
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if below := [m for m in mounts if Path(m).is_relative_to(directory)]:
        raise ClusterError(f"{directory} cannot be removed while {below[0]} is mounted: umount {below[0]}")
    name = host_name(str(directory))
    hostlink.disconnect(name)
    deadline = time.monotonic() + END_SECONDS
    while not nodespace.remove_cgroup(name):
        if time.monotonic() > deadline:
            raise ClusterError(f"still in use: {', '.join(nodespace.leftover_cgroups(name))}")
        time.sleep(POLL_SECONDS)
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "spec.json":  # last, so that an interrupted removal is known and repeated
            entry.unlink()
    (directory / "spec.json").unlink(missing_ok=True)
    directory.rmdir()


def kill(spec: Spec, component: str) -> int:
    """SIGKILL one component and return the pid it had. Raises ClusterError when it does not run."""
    process = supervisor(spec.path)
    names = [row["name"] for row in running(spec)]
    if not process:
        raise ClusterError(f"cluster {spec.name} does not run")
    if component == "supervisor":
        process.end(((signal.SIGKILL, END_SECONDS),))
        return process.pid
    if component not in names:
        raise ClusterError(f"no component {component!r}; there are: {', '.join([*names, 'supervisor'])}")
    inner = next(row["pid"] for row in running(spec) if row["name"] == component)
    pid = kernel.children(process.pid).get(inner)
    if pid is None:
        raise ClusterError(f"{component} does not run now, the supervisor starts it again:\n{tail(spec, component)}")
    os.kill(pid, signal.SIGKILL)
    return pid


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One change at a time among the clusters of one directory; released by the kernel, whatever happens."""
    directory.mkdir(parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

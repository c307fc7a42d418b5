# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holders that come, die and idle: cold start of many, take-over after a death, and what a sidecar costs."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    NAMESPACES,
    PODS,
    AlreadyExists,
    Api,
    NotFound,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from bench.contend import Contest, Holder, percentiles, run
from bench.contenders import RESOURCE, Sidecars
from bench.machine import cpu_seconds, resident
from cluster.kernel import die_with_parent
from tests.support.fault_proxy import FaultProxy

SETTLE_SECONDS = 10.0


def api_of(kubeconfig: str) -> Api:
    return Api(Credentials.load({"kubeconfig": kubeconfig}), timeout=30.0, user_agent="muster-bench")


def make_namespace(api: Api, name: str) -> None:
    try:
        api.create(NAMESPACES, {"metadata": {"name": name}})
    except AlreadyExists:
        return
    time.sleep(1.0)  # its service account and root certificate are made meanwhile


def make_pod(api: Api, namespace: str, name: str) -> Holder:
    """A Pod object that no scheduler takes: there are no nodes here, and a holder need not run to be one."""
    spec = {"schedulerName": "none", "terminationGracePeriodSeconds": 0}
    container = {"name": "holder", "image": "none"}
    pod = {"metadata": {"name": name, "namespace": namespace}, "spec": {**spec, "containers": [container]}}
    try:
        made = api.create(PODS, pod)
    except AlreadyExists:
        made = api.get(PODS, name, namespace)
    return Holder(name, made["metadata"]["uid"])


def make_pods(api: Api, namespace: str, count: int) -> list[Holder]:
    """Pods `holder-000` and so on; those that are there already are taken."""
    return [make_pod(api, namespace, f"holder-{number:03}") for number in range(count)]


def make_semaphore(api: Api, namespace: str, name: str, engine: str, permits: int) -> None:
    """A new semaphore of that engine with so many permits of one resource; one of that name is removed first."""
    remove_semaphore(api, namespace, name, engine)
    verbs.configure(api, engine=engine, name=name, namespace=namespace, capacity={RESOURCE: permits})


def remove_semaphore(api: Api, namespace: str, name: str, engine: str) -> None:
    """The semaphore, and all claims on it."""
    verbs.configure(api, engine=engine, name=name, namespace=namespace, state="absent", force=True)


# ---------------------------------------------------------------------------------------------- cold start


def cold_start(kubeconfig: str, namespace: str, name: str, engine: str, holders: Sequence[Holder]) -> dict[str, Any]:
    """All holders start at one moment, each with connections of its own, and there is a permit for each."""
    options = {"kubeconfig": kubeconfig, "namespace": namespace, "name": name, "engine": engine}
    # all are busy at once: with short turns of the interpreter they would only wake each other
    how: dict[str, Any] = {"processes": 8, "switch": 0.005}
    contest = Contest("bench.contenders:Sidecars", options, holders, seconds=60.0, warm_up=0.0, turns=1, **how)
    outcome = run(contest)
    sent = [sum(note["requests"].values()) for note in outcome.notes]
    kinds: Counter[str] = sum((Counter(note["requests"]) for note in outcome.notes), Counter())
    return {
        "holders": len(holders),
        "claimed": len(outcome.turns),
        "seconds_until_all": round(max(turn.granted for turn in outcome.turns) - outcome.begin, 2),
        "seconds_each": percentiles([note["seconds"] for note in outcome.notes]),
        "requests_each": percentiles(sent),
        "requests_by_method_each": {method: round(count / len(holders), 2) for method, count in kinds.items()},
        "failures": dict(outcome.failures),
    }


# ---------------------------------------------------------------------------------------------- take-over


class _Ring:
    """A few holders of which one holds and the others wait, all alive in this process as threads."""

    def __init__(self, system: Sidecars) -> None:
        self._system = system
        self.grants: queue.Queue[tuple[str, int, float]] = queue.Queue()
        self._alive: dict[str, Any] = {}

    def enter(self, holder: Holder) -> None:
        """The holder attends until it dies, and says when it knows that it holds."""
        sidecar = self._system.contender(holder)
        self._alive[holder.name] = sidecar.attendant

        def attend() -> None:
            fence = sidecar.acquire(time.monotonic() + 3600)
            if fence is not None:
                self.grants.put((holder.name, fence, time.monotonic()))

        threading.Thread(target=attend, daemon=True).start()

    def die(self, name: str) -> None:
        """As by SIGKILL: it does nothing any more, and gives nothing back."""
        self._alive.pop(name).stop()


def take_over(kubeconfig: str, namespace: str, name: str, engine: str, rounds: int, ring: int = 4) -> dict[str, Any]:
    """From the call that deletes the holder's Pod object to the moment when the next one knows that it holds."""
    api = api_of(kubeconfig)
    system = Sidecars(kubeconfig, namespace, name, engine)
    place = _Ring(system)
    holders = {f"mortal-{n}": make_pod(api, namespace, f"mortal-{n}") for n in range(ring)}
    for holder in holders.values():
        place.enter(holder)
    current, fence, _at = place.grants.get(timeout=30)
    times, fences = [], [fence]
    for _ in range(rounds):
        time.sleep(0.25)  # so that those who came last wait, too
        place.die(current)
        begun = time.monotonic()
        api.delete(PODS, current, namespace, uid=holders[current].uid)
        following, fence, at = place.grants.get(timeout=60)
        times.append(at - begun)
        fences.append(fence)
        holders[current] = _pod_anew(api, namespace, current)
        place.enter(holders[current])
        current = following
    system.close()
    for holder in holders.values():
        api.delete(PODS, holder.name, namespace)
    api.close()
    return {
        "rounds": len(times),
        "seconds": percentiles(times),
        "fences_not_growing": sum(b <= a for a, b in pairwise(fences)),
    }


def _pod_anew(api: Api, namespace: str, name: str) -> Holder:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            api.get(PODS, name, namespace)
        except NotFound:
            return make_pod(api, namespace, name)
        time.sleep(0.01)
    raise TimeoutError(f"Pod {namespace}/{name} was not removed within 30 s")


# ---------------------------------------------------------------------------------------------- what a sidecar costs


class Idlers:
    """Three real `muster distributor run` processes at one semaphore that have nothing to do.

    The first holds, the second waits, and the third waits behind a proxy that counts its requests.
    """

    def __init__(self, kubeconfig: str, namespace: str, flags: Sequence[str], holders: Sequence[Holder]) -> None:
        self._kubeconfig, self._namespace, self._flags = kubeconfig, namespace, flags
        self._holders = holders[:3]
        self._proxy = FaultProxy(Credentials.load({"kubeconfig": kubeconfig}))
        self._directory = tempfile.TemporaryDirectory()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._begun = 0.0
        self._cpu: list[float] = []
        self._sent = 0

    def start(self) -> None:
        counted = str(self._proxy.write_kubeconfig(Path(self._directory.name, "kubeconfig")))
        for holder, config in zip(self._holders, (self._kubeconfig, self._kubeconfig, counted), strict=True):
            self._processes.append(_sidecar(config, self._namespace, self._flags, holder))
            time.sleep(2.0)

    def begin(self) -> None:
        """From now on it is measured."""
        self._begun, self._sent = time.monotonic(), len(self._proxy.seen)
        self._cpu = [cpu_seconds(process.pid) for process in self._processes]

    def figures(self) -> dict[str, Any]:
        """Memory in MiB, CPU seconds and requests a minute, since `begin`."""
        if dead := [process.args for process in self._processes if process.poll() is not None]:
            raise RuntimeError(f"a sidecar ended by itself: {dead}")
        seconds, pairs = time.monotonic() - self._begun, zip(self._processes, self._cpu, strict=True)
        used = [cpu_seconds(process.pid) - before for process, before in pairs]
        passed = Counter(_kind(seen.method, seen.path) for seen in self._proxy.seen[self._sent :])
        roles = ("holds", "waits")
        return {
            "seconds": round(seconds, 1),
            "memory_mib": {
                role: {kind: round(size, 1) for kind, size in resident(process.pid).items()}
                for role, process in zip(roles, self._processes, strict=False)
            },
            "cpu_seconds_per_minute": {
                role: round(cpu * 60 / seconds, 3) for role, cpu in zip(roles, used, strict=False)
            },
            "requests_per_minute": round(sum(passed.values()) * 60 / seconds, 2),
            "requests": dict(passed),
        }

    def end(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(15)
        self._proxy.__exit__()
        self._directory.cleanup()


def _sidecar(kubeconfig: str, namespace: str, flags: Sequence[str], holder: Holder) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "muster.cli", "distributor", "run", "--namespace", namespace, *flags]
    command += ["--kubeconfig", kubeconfig, "--holder", holder.name, "--holder-uid", holder.uid]
    command += ["--listen", "127.0.0.1:0", "--release-on-term"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MUSTER_", "POD_"))}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)


def _kind(method: str, path: str) -> str:
    plural = path.partition("?")[0].rstrip("/").split("/")
    name = next((part for part in plural if part in ("configmaps", "leases", "pods", "events")), "other")
    return f"{'WATCH' if 'watch=' in path else method} {name}"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings up replicas of a controller as real processes, quickly, and lets them die as Pods on real nodes do.

A server that has imported everything forks them (multiprocessing's forkserver); each is a process of its own, with the
environment of its Pod. The Pods exist as objects only, so the nursery plays the kubelet: it says in their status which
container runs, and which has terminated; or, as from a node that is lost, nothing.
"""

from __future__ import annotations

import importlib
import itertools
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    PODS,
    AlreadyExists,
    Api,
    ApiError,
    NotFound,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import TimedOut
from ansible_collections.muster.coordination.tests.support import bombs, planted_controllers
from ansible_collections.muster.coordination.tests.support.authority_oracle import Act, Life, read_lines
from ansible_collections.muster.coordination.tests.support.bombs import OK, Bomb, Explosives
from cluster.kernel import die_with_parent
from muster import cli

CONTAINER: Final = "operator"
LABELS: Final = {"app": "replicas"}
# How a container's end becomes known, if at all, and what comes in its place (the first two: in the same Pod).
RESTARTED = "restarted"  # the kubelet tells, and starts it again
UNTOLD = "restarted, untold"  # it starts it again before it tells
REPLACED = "replaced"  # the Pod has failed; another one of the same name takes its place
LOST = "lost"  # the node is: nobody tells anything; the Pod is deleted by force, and made again
BURIALS: Final = (RESTARTED, UNTOLD, REPLACED, RESTARTED, UNTOLD, LOST)  # by turns; who is lost is waited for
PRELOADED: Final = ("muster.frame.options", "muster.vm.cloud", "muster.vm.operator")  # imported by commands that run
BACK = 120.0  # seconds for an API server to come back, on a machine that may be busy


@dataclass
class Replica:
    """One process. `died`: see authority_oracle.Life."""

    pod: str
    uid: str
    container_id: str
    process: Any
    orders: Connection
    files: Path  # without an ending
    began: float  # Unix seconds
    died: int | None = None
    frozen: list[tuple[int, int]] = field(default_factory=list)
    stopped_at: int | None = None

    @property
    def name(self) -> str:
        return self.files.name

    @property
    def is_alive(self) -> bool:
        return bool(self.process.is_alive())

    def set(self, bomb: Bomb | None) -> None:
        """This bomb in place of the one that was set; nothing where the process has died."""
        try:
            self.orders.send(bomb)
        except OSError:
            return

    def record(self) -> list[dict[str, Any]]:
        return read_lines(self.files.with_suffix(".acts"))

    def terms(self) -> list[dict[str, Any]]:
        """What authority it wrote down."""
        return read_lines(self.files.with_suffix(".authority"))

    @property
    def has_authority(self) -> bool:
        """Over anything, by what it wrote down last."""
        return any(line["event"] == "begin" for line in self.terms()[-1:])

    def exploded(self) -> dict[str, Any] | None:
        """The line of its last bomb."""
        return next((line for line in reversed(self.record()) if "exploded" in line), None)

    @property
    def is_ready(self) -> bool:
        """Whether it has come so far that it leaves when it is asked to."""
        return '"watching"' in self._log()

    @property
    def port(self) -> int | None:
        """Of its pages, once it serves them."""
        found = re.search(r'"port": (\d+)', self._log())
        return int(found[1]) if found else None

    def log(self) -> str:
        """The end of it."""
        return self._log()[-3000:]

    def _log(self) -> str:
        path = self.files.with_suffix(".log")
        return path.read_text(errors="replace") if path.exists() else ""

    def send(self, number: int) -> None:
        if self.is_alive:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self.process.join()
        self.note_death()

    def stop(self) -> None:
        """Freeze it."""
        self.stopped_at = time.monotonic_ns()
        self.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.send(signal.SIGCONT)
        if self.stopped_at is not None:
            self.frozen.append((self.stopped_at, time.monotonic_ns()))
            self.stopped_at = None

    def note_death(self) -> None:
        """Once it is dead, and before anybody is told."""
        end = self.exploded()
        if end and end["how"] == bombs.KILL:
            self.died = end["at"]
        elif self.process.exitcode < 0:
            self.died = time.monotonic_ns()
        if self.stopped_at is not None:
            self.frozen.append((self.stopped_at, self.died or time.monotonic_ns()))
            self.stopped_at = None

    def life(self) -> Life:
        """For the oracle, once it is dead."""
        acts, lines = self.record(), self.terms()
        who = {(line["scope"], line["fence"]): line["who"] for line in lines}
        done = [
            Act(*term, who.get(term, "nobody"), line["at"], line["kind"])
            for line in acts
            if line.get("outcome") == OK and (term := (line.get("scope"), line.get("fence")))[0]
        ]
        return Life(self.name, lines, done, self.died, self.frozen)


class Nursery:
    """All replicas of one controller in one namespace; not for several threads. `plant` is a bug in each of them, one
    that the module `bugs` knows."""

    def __init__(
        self,
        api: Api,
        namespace: str,
        directory: Path,
        argv: Sequence[str],
        plant: str = "",
        bugs: str = planted_controllers.__name__,
    ) -> None:
        self._api, self._namespace, self._directory = api, namespace, directory
        self._argv, self._plant, self._bugs = list(argv), plant, bugs
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            [__name__, *(module for module, _what in cli.SYSTEMS.values()), *PRELOADED]
        )
        self._numbers = itertools.count(1)
        self.replicas: dict[str, Replica] = {}  # by Pod; the last one of each
        self.lives: list[Replica] = []

    @property
    def alive(self) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica.is_alive]

    def start(self, pod: str, bomb: Bomb | None = None, *, told: bool = True) -> Replica:
        """A process in the Pod of this name, which is made if it is not there. `told`: by the kubelet, at once."""
        uid = self._make_pod(pod)
        self._wait_for_another_second(uid)
        number = next(self._numbers)
        files = self._directory / f"{pod}-{number}"
        container_id = f"containerd://{number:064x}"
        environ = {
            "POD_NAME": pod,
            "POD_UID": uid,
            "POD_NAMESPACE": self._namespace,
            "CONTAINER_NAME": CONTAINER,
            "MUSTER_AUTHORITY_LOG": str(files.with_suffix(".authority")),
        }
        ours, theirs = self._context.Pipe()
        parts = (self._argv, environ, str(files), theirs, bomb, self._plant, self._bugs)
        process = self._context.Process(target=live, args=parts, daemon=True)
        process.start()
        theirs.close()
        replica = Replica(pod, uid, container_id, process, ours, files, time.time())
        self.replicas[pod] = replica
        self.lives.append(replica)
        if told:
            self.tell_running(replica)
        return replica

    def ended(self) -> list[Replica]:
        """Those that have died and are not buried yet; their deaths are noted."""
        found = [replica for replica in self.replicas.values() if not replica.is_alive]
        for replica in found:
            if replica.died is None:
                replica.note_death()
        return found

    def bury(self, replica: Replica, how: str) -> None:
        """What the cluster does about a process that has died, before the next one starts (see BURIALS)."""
        del self.replicas[replica.pod]
        if how == RESTARTED:
            self._tell_terminated(replica)
        elif how in (REPLACED, LOST):
            if how == REPLACED:
                self._tell_terminated(replica, phase="Failed")
            insist(lambda: self._delete_pod(replica))

    def tell_running(self, replica: Replica) -> None:
        """The kubelet reports that it runs, and that the one before it in the Pod has terminated."""
        former = [each for each in self.lives if each.uid == replica.uid and each is not replica]
        state = {"running": {"startedAt": _second(time.time())}}
        status: dict[str, Any] = {"state": state, "containerID": replica.container_id}
        if former:
            status["lastState"] = {"terminated": _terminated(former[-1])}
        self._tell(replica, "Running", status)

    def end(self) -> list[Life]:
        """SIGTERM to all, SIGKILL to whom that does not end; the lives of all."""
        for replica in self.alive:
            replica.go_on()
            replica.send(signal.SIGTERM)
        deadline = time.monotonic() + 60
        for replica in self.alive:
            replica.process.join(max(0.1, deadline - time.monotonic()))
            if replica.is_alive:
                replica.kill()
        self.ended()
        return [replica.life() for replica in self.lives]

    def close(self) -> None:
        """Kill whatever is left."""
        for replica in self.lives:
            if replica.is_alive:
                replica.kill()

    # ------------------------------------------------------------------------------------------ the kubelet

    def _tell_terminated(self, replica: Replica, phase: str = "Running") -> None:
        status = {"state": {"terminated": _terminated(replica)}, "containerID": replica.container_id}
        self._tell(replica, phase, status)

    def _tell(self, replica: Replica, phase: str, container: Mapping[str, Any]) -> None:
        known = {"name": CONTAINER, "image": "none", "imageID": "", "ready": True, "restartCount": 0}

        def write() -> None:
            pod = self._pod(replica)
            if pod:
                told = {**(pod.get("status") or {}), "phase": phase, "containerStatuses": [{**known, **container}]}
                self._api.replace(PODS, {**pod, "status": told}, "status")

        insist(write)

    def _make_pod(self, name: str) -> str:
        containers = [{"name": CONTAINER, "image": "none"}]
        spec = {"schedulerName": "nobody", "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False}
        pod = {
            "metadata": {"name": name, "namespace": self._namespace, "labels": LABELS},
            "spec": {**spec, "containers": containers},
        }

        def make() -> dict[str, Any]:
            try:
                return self._api.create(PODS, pod)
            except AlreadyExists:
                return self._api.get(PODS, name, self._namespace)

        uid: str = insist(make)["metadata"]["uid"]
        return uid

    def _wait_for_another_second(self, uid: str) -> None:
        """A kubelet looks once a second, so two containers of a Pod never began in the same one."""
        former = [each.began for each in self.lives if each.uid == uid]
        while former and int(time.time()) <= int(former[-1]):
            time.sleep(0.02)

    def _delete_pod(self, replica: Replica) -> None:
        if self._pod(replica):
            with suppress(NotFound):
                self._api.delete(PODS, replica.pod, self._namespace, uid=replica.uid)

    def _pod(self, replica: Replica) -> dict[str, Any] | None:
        """Its Pod, while it is there."""
        with suppress(NotFound):
            pod = self._api.get(PODS, replica.pod, self._namespace)
            return pod if pod["metadata"]["uid"] == replica.uid else None
        return None


def insist(call: Callable[[], Any], seconds: float = BACK) -> Any:
    """Until it works: the API server may be away, and somebody may have been faster."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except (ApiError, TimedOut):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def live(
    argv: list[str],
    environ: Mapping[str, str],
    files: str,
    orders: Connection,
    bomb: Bomb | None,
    plant: str,
    bugs: str,
) -> None:
    """The child: the command `muster` with this environment, under watch."""
    die_with_parent()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MUSTER_", "POD_"))}
    os.environ.clear()
    os.environ.update({**kept, **environ})
    log = os.open(f"{files}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(log, number)
    explosives = Explosives(Path(f"{files}.acts"))
    explosives.set(bomb)
    if plant:
        importlib.import_module(bugs).plant(plant)
    bombs.build_in(explosives, orders)
    sys.exit(cli.main(argv))


def _terminated(replica: Replica) -> dict[str, Any]:
    """Its end is rounded up: here a process often dies in the second in which it took a Lease."""
    ended = {"startedAt": _second(replica.began), "finishedAt": _second(time.time() + 1)}
    return {**ended, "exitCode": 137, "containerID": replica.container_id}


def _second(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

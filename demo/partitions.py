# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's sixth part: a key space that is split and moved while it is written to, and no write is lost."""

from __future__ import annotations

import base64
import shlex
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import PODS, Api, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Fact, owner
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import read_view
from demo.stage import Stage, heading

Object = dict[str, Any]
NAMESPACE = "partitions"  # the role's own
EXAMPLE = Path(__file__).resolve().parents[1] / "kustomize" / "partitions" / "overlays" / "example"
SPACE = "default"
SECRETS = Resource("v1", "secrets", "Secret")
KINDS = ("assignments", "partitions", "keyspaces")
KEYS = tuple(f"{letter}{'demo':a<7}" for letter in "abcdefghijklmnopqrstuvwxyz"[::2])
HOT = "hotstuff"  # of part-2
ANSWER_SECONDS = 10.0


@dataclass
class Writes:
    """What a client has written, one key after the other, and for how long it had to wait."""

    address: str
    headers: dict[str, str]
    acknowledged: dict[str, int] = field(default_factory=dict)
    count: int = 0
    refused: int = 0
    longest: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            for key in (*KEYS, HOT):
                number += 1
                self._put(key, number)

    def _put(self, key: str, number: int) -> None:
        """Until it is acknowledged: the same value twice is as good as once."""
        began = time.monotonic()
        while not self.stop.is_set():
            with suppress(OSError), self._ask(key, b"%d" % number):
                self.acknowledged[key] = number
                self.count += 1
                self.longest = max(self.longest, time.monotonic() - began)
                return
            self.refused += 1
            time.sleep(0.02)

    def get(self, key: str) -> int:
        try:
            with self._ask(key) as answer:
                return int(answer.read())
        except urllib.error.URLError as error:
            raise MusterError(f"the router does not give {key}: {error}") from None

    def _ask(self, key: str, value: bytes | None = None) -> Any:
        method, where = "GET" if value is None else "PUT", f"http://{self.address}/v1/keys/{key}"
        request = urllib.request.Request(where, value, self.headers, method=method)
        return urllib.request.urlopen(request, timeout=ANSWER_SECONDS)


class Ranges(Stage):
    """The acts, in the namespace where playbooks/site.yml has put workers, router, assigner and reconciler."""

    def __init__(self, api: Api, timeout: float) -> None:
        super().__init__(NAMESPACE, timeout)
        self._api = api

    def run(self) -> None:
        heading("A key space in four ranges, each served by one worker: an assigner says which")
        print(f"  $ kubectl apply -k {'/'.join(EXAMPLE.parts[-4:])}", flush=True)
        self.kubectl_quietly("apply", "-k", str(EXAMPLE))
        try:
            self._until("each range is served", lambda: self._is_served(4))
            self._show()
            with self._forwarded("partition-router", 80) as address, writing(address, self._token()) as writes:
                self._split(writes)
                self._move(writes)
                self._lose_a_worker(writes)
                self._judge(writes)
        finally:
            self._leave()

    # ------------------------------------------------------------------------------------------ the acts

    def _split(self, writes: Writes) -> None:
        heading("One range is hot: it is split, while all keys are written, one after the other")
        self._muster(writes, "split", "part-2", "--at", "j")
        self._until("five ranges are served", lambda: self._is_served(5))
        self._show()

    def _move(self, writes: Writes) -> None:
        heading("The hot half goes to another worker: first its data, then, in one write, the right to serve it")
        hot = self._owner(HOT)
        others = sorted(set(self._workers()) - {hot.primary})
        self._muster(writes, "move", hot.partition, others[0])
        self._until("it is there", lambda: self._owner(HOT).primary == others[0])
        self._show()

    def _lose_a_worker(self, writes: Writes) -> None:
        heading("Its worker is killed (kill -9): it comes back with what it had, and serves what it still owns")
        victim, epoch = self._owner(HOT).primary, self._owner(HOT).epoch
        before = self._workers()[victim]
        writes.longest, count = 0.0, writes.count
        with self.killed(before):
            self._until(f"{victim} was started again", lambda: restarts(self._workers()[victim]) > restarts(before))
            self._until("clients go on", lambda: writes.count > count + 2 * len(KEYS))
        now = self._owner(HOT)
        if (now.primary, now.epoch) != (victim, epoch):
            raise MusterError(f"{victim} had it at epoch {epoch}, and now it is {now}: this is a bug")
        print(f"  {writes.count} writes until now; the longest waited {writes.longest:.2f} s for it to be back.")

    def _judge(self, writes: Writes) -> None:
        heading("Is each key what it was said to be?")
        writes.stop.set()
        for key in (*KEYS, HOT):
            found = writes.get(key)
            if found < writes.acknowledged[key]:
                raise MusterError(f"{key} was {writes.acknowledged[key]}, and is {found}: this is a bug")
        print(
            f"  {len(KEYS) + 1} keys, {writes.count} acknowledged writes, none lost; {writes.refused} were tried again."
        )

    # ------------------------------------------------------------------------------------------ what is typed

    def _muster(self, writes: Writes, *arguments: str) -> None:
        """A command of `muster partitions`, and how long writes had to wait meanwhile."""
        writes.longest, count = 0.0, writes.count
        typed = ["partitions", *arguments, "-n", self.namespace]
        print(f"  $ muster {shlex.join(typed)}", flush=True)
        said = self.command([sys.executable, "-m", "muster.cli", *typed])
        print(textwrap.indent(said, "  "))
        seconds = time.monotonic() - self.acted
        print(f"  {seconds:7.2f} s; {writes.count - count} writes meanwhile, the longest of {writes.longest:.2f} s")

    def _show(self) -> None:
        typed = ["partitions", "list", "-n", self.namespace]
        print(f"  $ muster {shlex.join(typed)}")
        print(f"\n{textwrap.indent(self.command([sys.executable, '-m', 'muster.cli', *typed]), '  ')}", flush=True)

    @contextmanager
    def _forwarded(self, service: str, port: int) -> Iterator[str]:
        """The address on this machine at which the Service answers."""
        typed = ["kubectl", "--namespace", self.namespace, "port-forward", f"service/{service}", f":{port}"]
        with subprocess.Popen(typed, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as forwards:
            try:
                line = forwards.stdout.readline() if forwards.stdout else ""
                if not line.startswith("Forwarding from "):
                    raise MusterError(
                        f"there is no Service {self.namespace}/{service} that answers: "
                        "run `ansible-playbook playbooks/partitions.yml` first"
                    )
                threading.Thread(target=forwards.stdout.read if forwards.stdout else print, daemon=True).start()
                yield line.removeprefix("Forwarding from ").split()[0]
            finally:
                forwards.terminate()

    def _token(self) -> str:
        """What router and workers ask of clients."""
        secret = self._api.get(SECRETS, "partitions", self.namespace)
        return base64.b64decode(secret["data"]["token"]).decode().strip()

    def _leave(self) -> None:
        """Whatever has happened, nothing of the key space stays."""
        wait = f"--timeout={self.timeout:.0f}s"
        for kind in KINDS:
            self.kubectl_quietly("delete", kind, "--all", wait)

    # ------------------------------------------------------------------------------------------ what is seen

    def _facts(self) -> tuple[Fact, ...]:
        return read_view(self._api, self.namespace, SPACE).facts

    def _is_served(self, wanted: int) -> bool:
        facts = self._facts()
        return len(facts) == wanted and all(fact.primary and not fact.assignment for fact in facts)

    def _owner(self, key: str) -> Fact:
        found = owner(read_view(self._api, self.namespace, SPACE), key)
        if found is None:
            raise MusterError(f"nobody has {key}: this is a bug")
        return found

    def _workers(self) -> dict[str, Object]:
        selector = "app.kubernetes.io/name=partitions,app.kubernetes.io/component=worker"
        return {
            pod["metadata"]["name"]: pod for pod in self._api.list(PODS, self.namespace, label_selector=selector).items
        }

    def _until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.timeout
        while not true():
            if time.monotonic() > deadline:
                raise TimedOut(f"waited {self.timeout:g} s until {what}")
            time.sleep(0.1)


@contextmanager
def writing(address: str, token: str) -> Iterator[Writes]:
    """A client that writes all the time."""
    writes = Writes(address, {"Authorization": f"Bearer {token}"})
    thread = threading.Thread(target=writes.run, daemon=True)
    thread.start()
    try:
        yield writes
    finally:
        writes.stop.set()
        thread.join(ANSWER_SECONDS)


def restarts(pod: Object) -> int:
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", []))

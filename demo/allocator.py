# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's fifth part: two users have a service with a disk of their own, and neither sees the other's."""

from __future__ import annotations

import secrets
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2

from ansible_collections.muster.coordination.plugins.module_utils.api import PODS, Api, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import INSTANCE
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, OWNER, owner_hash
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES
from demo.stage import Stage, heading
from muster.table import table

Object = dict[str, Any]
NAME = "allocator"  # the role's own, of allocator, Service and namespace
PEOPLE = "allocator-demo"  # namespace of the users, who have no rights in it nor elsewhere
AUDIENCE = "muster-allocator"
USERS = ("ann", "bob")
TEMPLATE = Path(__file__).with_name("disks.yaml.j2")
NODES = Resource("v1", "nodes", "Node", namespaced=False)
VOLUMES = Resource("v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLASSES = Resource("storage.k8s.io/v1", "storageclasses", "StorageClass", namespaced=False)
DEFAULT = "storageclass.kubernetes.io/is-default-class"
OURS = "disks"  # label of the volumes that are made here
QUOTA, NOT_THERE = 3, 4  # how `allocator` ends then


class Allocations(Stage):
    """The acts, in the namespace where playbooks/site.yml has put the allocator."""

    def __init__(self, api: Api, timeout: float) -> None:
        super().__init__(NAME, timeout)
        self._api = api
        self._options: dict[str, list[str]] = {}  # of the command, by user

    def run(self) -> None:
        heading("A store with a disk for each user, from a template: who asks has one, and nobody has two")
        try:
            with tempfile.TemporaryDirectory() as directory, self._forwarded(NAME, 8400) as address:
                self._see_to_disks()
                self._come(Path(directory), address)
                mine = self._create()
                self._ask_for_too_much(mine)
                self._lose_the_pod(mine)
                self._suspend(mine)
                self._destroy(mine)
        finally:
            self._leave()

    # ------------------------------------------------------------------------------------------ the acts

    def _create(self) -> str:
        """The name of the first user's."""
        names = [self._allocator(user, "create", "--param", "memory=128Mi", "--wait") for user in USERS]
        print(f"\n{self._picture()}\n")
        print("  They asked over HTTP, each with a token of their own. In the cluster they have no rights at all.")
        return names[0]

    def _ask_for_too_much(self, mine: str) -> None:
        heading("Ann wants a second one, and Bob wants Ann's: he is told what he would be told if there were none")
        self._allocator("ann", "create", ends=QUOTA)
        foreign = self._allocator("bob", "get", mine, ends=NOT_THERE)
        missing = self._allocator("bob", "get", f"{mine[:-10]}0123456789", ends=NOT_THERE)
        if foreign != missing:
            raise MusterError(f"of a foreign one he is told {foreign!r}, of a missing one {missing!r}: this is a bug")

    def _lose_the_pod(self, mine: str) -> None:
        heading("Ann writes something, and her Pod is killed: another comes, and has what she wrote")
        self._curl(mine, "blue")
        pods = self._pods(mine)
        self.kubectl("delete", "pod", *pods, "--grace-period=0", "--force")
        self._until("another Pod is ready", lambda: not pods.keys() & self._pods(mine).keys() and self._is_ready(mine))
        print(f"  {time.monotonic() - self.acted:7.2f} s  another Pod is ready", flush=True)
        self._expect(mine, "blue")

    def _suspend(self, mine: str) -> None:
        heading("Ann does not need it over night: suspended it has no Pod, and resumed all that it had")
        self._allocator("ann", "suspend", mine, "--wait")
        print(f"\n{self._picture()}\n")
        self._allocator("ann", "resume", mine, "--wait")
        self._expect(mine, "blue")

    def _destroy(self, mine: str) -> None:
        heading("She destroys it, and keeps the disk; a new one has it again")
        self._allocator("ann", "destroy", mine, "--keep-disk", "--wait")
        again = self._allocator("ann", "create", "--attach", mine, "--wait")
        self._expect(again, "blue")
        print(f"\n{self._picture()}\n")
        for user in USERS:
            for name in self._quietly(user, "list", "--output", "name").split():
                self._allocator(user, "destroy", name, "--wait")
        left = self._instances() or self._disks()
        if left:
            raise MusterError(f"of what was destroyed there is {[each['metadata']['name'] for each in left]}")
        print("  Nothing is left of either: neither Pods nor disks, and both places are free again.")

    # ------------------------------------------------------------------------------------------ users

    def _come(self, directory: Path, address: str) -> None:
        """Two service accounts, each with a token for the allocator, in a file."""
        self.command(["kubectl", "create", "namespace", PEOPLE])
        for user in USERS:
            self.command(["kubectl", "--namespace", PEOPLE, "create", "serviceaccount", user])
            typed = ["kubectl", "--namespace", PEOPLE, "create", "token", user, "--audience", AUDIENCE]
            file = directory / user
            file.write_text(self.command(typed))
            self._options[user] = ["--allocator", f"http://{address}", "--token-file", str(file)]

    def _allocator(self, user: str, *arguments: str, ends: int = 0) -> str:
        """The command as that user types it, and what it says; `ends`: with this exit status."""
        print(f"  {user} $ allocator {shlex.join(arguments)}", flush=True)
        said = self._quietly(user, *arguments, ends=ends)
        print(f"  {time.monotonic() - self.acted:7.2f} s  {said or 'done'}", flush=True)
        return said

    def _quietly(self, user: str, *arguments: str, ends: int = 0) -> str:
        self.acted = time.monotonic()
        typed = [sys.executable, "-m", "muster.allocator.client_cli", *self._options[user], *arguments]
        try:
            done = subprocess.run(typed, capture_output=True, text=True, timeout=self.timeout, check=False)
        except subprocess.TimeoutExpired:
            raise TimedOut(f"waited {self.timeout:g} s for `allocator {shlex.join(arguments)}`") from None
        if done.returncode != ends:
            said = done.stderr.strip() or done.stdout.strip()
            raise MusterError(f"`allocator {shlex.join(arguments)}` ended with {done.returncode}, not {ends}: {said}")
        return done.stderr.strip() if ends else done.stdout.strip()

    def _leave(self) -> None:
        """Whatever has happened, nothing of these users stays."""
        selector = f"{OWNER} in ({','.join(map(owner_hash, map(account, USERS)))})"
        wait = f"--timeout={self.timeout:.0f}s"
        self.kubectl_quietly("delete", "instances", "--selector", selector, wait)
        for disk in self._disks():
            self.kubectl_quietly("delete", "pvc", disk["metadata"]["name"], wait)
        self.command(["kubectl", "delete", "namespace", PEOPLE, "--ignore-not-found", wait])
        for volume in self._volumes("Released"):
            self._api.delete(VOLUMES, volume["metadata"]["name"])

    # ------------------------------------------------------------------------------------------ what they wrote

    def _curl(self, name: str, value: str | None = None) -> str:
        """Write or read it, by the Service of the instance."""
        with self._forwarded(name, 80) as address:
            given = "" if value is None else f" -X PUT --data-binary {value}"
            print(f"  ann $ curl {address}/v1/colour{given}", flush=True)
            method, content = ("GET", None) if value is None else ("PUT", value.encode())
            asked = urllib.request.Request(f"http://{address}/v1/colour", content, method=method)
            try:
                with urllib.request.urlopen(asked, timeout=self.timeout) as answer:
                    return str(answer.read().decode())
            except urllib.error.URLError as error:
                raise MusterError(f"{name} does not answer: {error}") from None

    def _expect(self, name: str, value: str) -> None:
        found = self._curl(name)
        if found != value:
            raise MusterError(f"{value!r} was written, and {found!r} is there: this is a bug")
        print(f"             {found}", flush=True)

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
                        "run `ansible-playbook playbooks/allocator.yml` first"
                    )
                yield line.removeprefix("Forwarding from ").split()[0]
            finally:
                forwards.terminate()

    # ------------------------------------------------------------------------------------------ disks

    def _see_to_disks(self) -> None:
        """Where no provisioner makes them, as in the embedded cluster: some, on one node."""
        classes = self._api.list(CLASSES).items
        if any((each["metadata"].get("annotations") or {}).get(DEFAULT) == "true" for each in classes):
            return
        if len(self._volumes("Available")) >= len(USERS):
            return
        node = next(each for each in self._api.list(NODES).items if not each["spec"].get("taints"))
        name = f"demo-{secrets.token_hex(3)}"
        pods = self._api.list(PODS, self.namespace, label_selector=f"app.kubernetes.io/name={NAME}").items
        disks = {
            "name": name,
            "namespace": self.namespace,
            "node": node["metadata"]["name"],
            "storage_class": "",
            "number": 2 * len(USERS),
        }
        image = pods[0]["spec"]["containers"][0]["image"]
        self.kubectl_quietly(
            "apply", "-f", "-", given=jinja2.Template(TEMPLATE.read_text()).render(disks=disks, image=image)
        )
        done = ("wait", "--for=jsonpath={.status.phase}=Succeeded", f"pod/{name}-disks")
        self.kubectl_quietly(*done, f"--timeout={self.timeout:.0f}s")
        self.kubectl_quietly("delete", "pod", f"{name}-disks")
        print(f"  This cluster makes no disks itself: {disks['number']} were made, on one node.")

    def _volumes(self, phase: str) -> list[Object]:
        """Those that were made here, for no class, and are at this."""
        made = [
            each
            for each in self._api.list(VOLUMES, label_selector=OURS).items
            if not each["spec"].get("storageClassName")
        ]
        return [each for each in made if each["status"].get("phase") == phase]

    def _disks(self) -> list[Object]:
        """Those of these users, also kept ones."""
        found = self._api.list(DISKS, self.namespace, label_selector=f"{MEMBER}={NAME}").items
        owners = set(map(account, USERS))
        return [disk for disk in found if (disk["metadata"].get("annotations") or {}).get(OWNER) in owners]

    # ------------------------------------------------------------------------------------------ what is seen

    def _picture(self) -> str:
        rows = []
        for each in self._instances():
            name, spec = each["metadata"]["name"], each["spec"]
            pods = ", ".join(f"{pod} {phase}" for pod, phase in self._pods(name).items())
            disk = next(obj["metadata"]["name"] for obj in spec["manifest"] if obj["kind"] == "PersistentVolumeClaim")
            rows.append((name, spec["owner"].rpartition(":")[2], each.get("status", {}).get("phase"), pods, disk))
        return table(("INSTANCE", "WHOSE", "PHASE", "POD", "DISK"), rows, indent="  ")

    def _instances(self) -> list[Object]:
        found = self._api.list(INSTANCES, self.namespace, label_selector=f"{MEMBER}={NAME}").items
        return [each for each in found if each["spec"].get("owner") in map(account, USERS)]

    def _pods(self, name: str) -> dict[str, str]:
        """Those of an instance, and their phases."""
        found = self._api.list(PODS, self.namespace, label_selector=f"{INSTANCE}={name}").items
        return {
            pod["metadata"]["name"]: pod["status"].get("phase", "")
            for pod in found
            if "deletionTimestamp" not in pod["metadata"]
        }

    def _is_ready(self, name: str) -> bool:
        found = self._api.list(PODS, self.namespace, label_selector=f"{INSTANCE}={name}").items
        states = [state for pod in found for state in pod["status"].get("containerStatuses", [])]
        return bool(states) and all(state["ready"] for state in states)

    def _until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.timeout
        while not true():
            if time.monotonic() > deadline:
                raise TimedOut(f"waited {self.timeout:g} s until {what}")
            time.sleep(0.1)


def account(user: str) -> str:
    """As the API server knows the user."""
    return f"system:serviceaccount:{PEOPLE}:{user}"

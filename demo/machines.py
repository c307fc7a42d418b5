# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's third part: three replicas of an operator of which one leads, and what it makes is made once."""

from __future__ import annotations

import json
import queue
import threading
import time
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, PODS, Api, Put, Resource, Snapshot
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from demo.stage import Stage, heading
from muster.table import table

Object = dict[str, Any]
MACHINES = Resource("muster.dev/v1alpha1", "virtualmachines", "VirtualMachine")
NAME = "vm-operator"  # the role's own, of operator, Lease and namespace
WANTED = Path(__file__).with_name("machines.yaml")
COUNTERS = """
import urllib.request as web
token = open("/etc/muster/cloud/token").read().strip()
asked = web.Request("http://127.0.0.1:8300/v1/counters", headers={"Authorization": "Bearer " + token})
print(web.urlopen(asked).read().decode())
"""


class Machines(Stage):
    """The acts, in the namespace where playbooks/site.yml has put the operator."""

    def __init__(self, api: Api, timeout: float) -> None:
        super().__init__(NAME, timeout)
        self._api = api
        self._leaders: queue.Queue[tuple[float, Object]] = queue.Queue()

    def run(self) -> None:
        heading("Machines of a private cloud, made by an operator with three replicas: one leads, the others stand by")
        threading.Thread(target=self._follow, daemon=True).start()
        try:
            leader = self._until_led(other_than="")
            self.kubectl("apply", "-f", f"{WANTED.parent.name}/{WANTED.name}")
            self._until_running(3)
            print(f"\n{self._picture(leader)}")
            self._lose_the_leader(leader)
        finally:
            self.kubectl_quietly("delete", "virtualmachines", "--all", f"--timeout={self.timeout:.0f}s")

    def _lose_the_leader(self, leader: Object) -> None:
        heading(
            "The leader is killed (kill -9) while more is asked of it: another leads, and each machine is made once"
        )
        victim = self._api.get(PODS, pod_of(leader), self.namespace)
        more = WANTED.read_text().replace("name: machine-", "name: later-")
        with self.killed(victim):
            self.kubectl_quietly("apply", "-f", "-", given=more)
            leader = self._until_led(other_than=leader["spec"]["holderIdentity"])
            self._until_running(6)
        print(f"\n{self._picture(leader)}")
        made = json.loads(self.kubectl_quietly("exec", f"{NAME}-cloud-0", "--", "python3", "-c", COUNTERS))
        asked = [machine["metadata"]["uid"] for machine in self._machines()]
        if any(made["creates"].get(uid) != 1 for uid in asked):
            raise MusterError(f"the cloud made {made['creates']} for {asked}: this is a bug")
        print(f"\n  {len(asked)} machines were asked for, and {len(asked)} were made; who comes back late is refused.")

    # ------------------------------------------------------------------------------------------ what is seen

    def _machines(self) -> list[Object]:
        return self._api.list(MACHINES, self.namespace).items

    def _picture(self, leader: Object) -> str:
        pods = self._api.list(PODS, self.namespace, label_selector="app.kubernetes.io/component=operator").items
        first = []
        for pod in pods:
            name = pod["metadata"]["name"]
            leads = name == pod_of(leader)
            restarts = sum(status["restartCount"] for status in pod["status"].get("containerStatuses", []))
            first.append(
                (
                    name,
                    pod["status"].get("phase"),
                    restarts,
                    "leads" if leads else None,
                    fence_of(leader) if leads else None,
                )
            )
        second = [
            (vm["metadata"]["name"], vm["status"]["phase"], vm["status"]["machine"]["id"], vm["status"]["fence"])
            for vm in sorted(self._machines(), key=lambda vm: vm["metadata"]["creationTimestamp"])
        ]
        return "\n\n".join((
            table(("REPLICA", "STATUS", "RESTARTS", "", "FENCE"), first, indent="  "),
            table(("MACHINE", "PHASE", "AT THE CLOUD", "BY FENCE"), second, indent="  "),
        ))  # fmt: skip

    def _until_running(self, count: int) -> None:
        deadline = time.monotonic() + self.timeout
        while True:
            phases = [vm.get("status", {}).get("phase") for vm in self._machines()]
            if phases.count("Running") == len(phases) == count:
                print(f"  {time.monotonic() - self.acted:7.2f} s  {count} machines run", flush=True)
                return
            if time.monotonic() > deadline:
                raise TimedOut(f"waited {self.timeout:g} s until {count} machines run; now: {phases}")
            time.sleep(0.1)

    def _until_led(self, *, other_than: str) -> Object:
        """Wait for a leader, with an identity that is not this one, and say when it came."""
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                at, lease = self._leaders.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimedOut(
                    f"waited {self.timeout:g} s for somebody else than {other_than or 'nobody'} to lead"
                ) from None
            if lease["spec"].get("holderIdentity") not in (None, "", other_than):
                print(f"  {at - self.acted:7.2f} s  {pod_of(lease)} leads  fence {fence_of(lease)}", flush=True)
                return lease

    def _follow(self) -> None:
        for change in self._api.follow(LEASES, self.namespace, name=NAME):
            now = time.monotonic()
            found = change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put) else []
            for lease in found:
                self._leaders.put((now, lease))


def pod_of(lease: Object) -> str:
    return str(lease["spec"]["holderIdentity"]).partition("_")[0]


def fence_of(lease: Object) -> str:
    return str(lease["metadata"]["annotations"]["muster.dev/fence"])

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who leads and who has which shards, as users ask: by module and by command, on a real API server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, LEASES, Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, members
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout, Owner, Table, dump
from ansible_collections.muster.coordination.plugins.module_utils.verbs import leases
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab

pytestmark = pytest.mark.integration

Object = dict[str, Any]
LONGEST = 180.0  # seconds for a command
MOMENT = "2026-01-31T12:00:00.000000Z"


class Stage:
    """A namespace with what there is to look at."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str) -> None:
        self.api, self.namespace = api, namespace
        self.kubeconfig = str(Path(kubeconfig).resolve())
        self.uids: dict[str, str] = {}
        self._lab = Lab(api, namespace)
        self._running: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def me(self, pod: str) -> Identity:
        if pod not in self.uids:
            self.uids[pod] = self._lab.pod(pod)
        return Identity(pod, self.uids[pod], "1a2b3c4d", "app")

    def lead(self, name: str, pod: str, **more: Any) -> Object:
        """Have the process of a Pod take a Lease."""
        at = {"name": name, "namespace": self.namespace, "timing": Timing(), "is_contended": False, "timeout": 60}
        taken = leases.take(self.api, me=self.me(pod), **at, **more)
        assert taken is not None
        return taken

    def free(self, lease: Object) -> None:
        term = election.parse(lease)
        assert leases.evict(self.api, lease, term, timeout=60) is not None

    def by_client_go(self) -> None:
        metadata = {"name": "kube-controller-manager", "namespace": self.namespace, "labels": {"tier": "one"}}
        spec = {
            "acquireTime": "2026-01-31T09:00:00.000000Z",
            "holderIdentity": "node-1_4ad7d1a9-5c4a-4c33-a3a1-1d2c9f2f6a55",
            "leaseDurationSeconds": 15,
            "leaseTransitions": 7,
            "renewTime": MOMENT,
        }
        self.api.create(LEASES, {**self._kind(LEASES), "metadata": metadata, "spec": spec})

    def heartbeat(self) -> None:
        """As an API server has one: of an identity that nobody elects."""
        metadata = {"name": "apiserver-x2x7q", "namespace": self.namespace}
        spec = {"holderIdentity": "apiserver-x2x7q_1", "leaseDurationSeconds": 3600, "renewTime": MOMENT}
        self.api.create(LEASES, {**self._kind(LEASES), "metadata": metadata, "spec": spec})

    def sharded(self, name: str, *shards: tuple[str | None, str]) -> None:
        """A controller with a table of (owner, who is wanted); those who are wanted are members."""
        layout = Layout(shards=len(shards))
        for pod in sorted({wanted for _owner, wanted in shards}):
            self.lead(members.lease_name(name, pod), pod, metadata=members.marks(name, layout))
        owners = tuple(
            None if who is None else Owner(str(self.me(who)), 100 + shard)
            for shard, (who, _wanted) in enumerate(shards)
        )
        table = Table(layout, tuple(wanted for _owner, wanted in shards), owners)
        labels = {members.MEMBER_OF: name}
        metadata = {"name": members.table_name(name), "namespace": self.namespace, "labels": labels}
        data = {members.TABLE_KEY: dump(table)}
        self.api.create(CONFIGMAPS, {**self._kind(CONFIGMAPS), "metadata": metadata, "data": data})

    def muster(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command; it is killed when it runs for too long, so that nobody reads from it for ever."""
        own = ("MUSTER_", "KUBECONFIG")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.cli", *arguments],
            env={**environment, "KUBECONFIG": self.kubeconfig, "MUSTER_NAMESPACE": self.namespace},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(LONGEST, process.kill)
        timer.start()
        self._running.append((process, timer))
        return process

    def close(self) -> None:
        for process, timer in self._running:
            timer.cancel()
            process.kill()
            process.communicate()

    def says(self, *arguments: str, status: int = 0) -> str:
        """What a command says, on both outputs."""
        process = self.muster(*arguments)
        out, err = process.communicate()
        assert process.returncode == status, out + err
        return out + err

    @staticmethod
    def _kind(resource: Any) -> Object:
        return {"apiVersion": resource.api_version, "kind": resource.kind}


@pytest.fixture
def stage(api: Api, namespace: str, kubeconfig: str) -> Iterator[Stage]:
    stage = Stage(api, namespace, kubeconfig)
    yield stage
    stage.close()


def handing_over(stage: Stage) -> None:
    stage.sharded("sharded", ("web-0", "web-0"), ("web-0", "web-1"), (None, "web-1"), ("web-9", "web-1"))


def test_the_module(stage: Stage) -> None:
    leader = stage.lead("operator", "web-0")
    odd = stage.lead("odd", "web-0")
    odd["metadata"]["annotations"][election.FENCE] = "forty-one"
    stage.api.replace(LEASES, odd)
    stage.by_client_go()
    handing_over(stage)
    values = {
        "kubeconfig": stage.kubeconfig,
        "test_namespace": stage.namespace,
        "pod_uid": stage.uids["web-0"],
        "holder": leader["spec"]["holderIdentity"],
        "fence": leader["metadata"]["annotations"][election.FENCE],
        "ansible_python_interpreter": sys.executable,
    }
    playbook = Path(__file__).with_suffix(".yml")
    run = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            *("-i", "localhost,", "-c", "local", "-e", json.dumps(values), str(playbook)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"},
    )
    assert run.returncode == 0, run.stdout


def test_leaders_of_a_namespace_and_of_all(stage: Stage) -> None:
    stage.lead("operator", "web-0")
    stage.free(stage.lead("idle", "web-0"))
    stage.by_client_go()
    stage.heartbeat()
    lines = stage.says("leaders").splitlines()
    assert [line.split()[0] for line in lines] == ["LEASE", "idle", "kube-controller-manager", "operator"]
    assert lines[1].endswith("free") and "node-1" in lines[2] and "web-0" in lines[3]
    assert "apiserver-x2x7q" in stage.says("leaders", "apiserver-x2x7q")
    assert "operator" not in stage.says("leaders", "--selector", "tier=one")
    found = json.loads(stage.says("leaders", "--all-namespaces", "-o", "json"))
    own = [lease["name"] for lease in found if lease["namespace"] == stage.namespace]
    assert own == ["idle", "kube-controller-manager", "operator"]
    assert not any(lease["namespace"] == "kube-node-lease" for lease in found)


def test_what_is_not_there_or_malformed_ends_in_1(stage: Stage) -> None:
    assert "there is no Lease of an election" in stage.says("leaders", status=1)
    assert "there is no Lease nothing" in stage.says("leaders", "nothing", status=1)
    assert "there is no sharded controller nothing" in stage.says("shards", "nothing", status=1)
    odd = stage.lead("odd", "web-0")
    odd["metadata"]["annotations"][election.FENCE] = "forty-one"
    stage.api.replace(LEASES, odd)
    assert "odd: metadata.annotations[muster.dev/fence] is 'forty-one'" in stage.says("leaders", "odd", status=1)


def test_shards_and_whose_a_key_is(stage: Stage) -> None:
    handing_over(stage)
    text = stage.says("shards", "sharded")
    assert "4 (stable), 2 members, 3 moving" in text
    assert ["web-0", "web-1", "revoked", "1"] in [line.split() for line in text.splitlines()]
    assert text.splitlines()[0] == stage.says("shards").splitlines()[0]
    key = next(key for key in map(str, range(100)) if Layout(shards=4).shard_of(key) == 0)
    assert f"key {key} of {stage.namespace}/sharded is of shard 0, owned by web-0 (fence 100)" in stage.says(
        "shards", "sharded", "--key", key
    )


def test_watch_tells_of_each_change_of_hands(stage: Stage) -> None:
    """Driven by watches, also for Leases that are made while it looks on; a renewal alone is no news."""
    process = stage.muster("leaders", "operator", "--watch", "-o", "json")
    assert process.stdout is not None
    states = (json.loads(line)["leases"] for line in process.stdout)
    assert next(states) == []
    first = stage.lead("operator", "web-0")
    assert next(state for state in states if state[0]["pod"])[0]["pod"] == "web-0"
    assert leases.renew(stage.api, first, stage.me("web-0"), timeout=60) is not None
    assert leases.release(stage.api, first, stage.me("web-0"), timeout=60) is not None
    assert next(states)[0]["state"] == "free"
    process.send_signal(signal.SIGTERM)
    assert process.wait(LONGEST) == 0


def test_watch_tells_of_each_step_of_a_hand_over(stage: Stage) -> None:
    process = stage.muster("shards", "sharded", "--watch", "-o", "json")
    assert process.stdout is not None
    states = (json.loads(line)["controllers"] for line in process.stdout)
    assert next(states) == []
    handing_over(stage)
    assert next(state[0]["handovers"] for state in states if state and state[0]["shards"])
    process.send_signal(signal.SIGINT)
    assert process.wait(LONGEST) == 0

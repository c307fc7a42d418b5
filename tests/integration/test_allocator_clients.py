# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `allocator` and the modules as users run them: on a real allocator, on a real API server.

What is allocated has a disk, a ConfigMap and a Service, which need no node to be ready.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, NotFound, Resource
from ansible_collections.muster.coordination.plugins.module_utils.client.allocator import (
    AllocatorClient,
    KubernetesToken,
    Put,
    Snapshot,
    Unauthenticated,
    token_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import KeyReused, QuotaSpent
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator_modules import (
    ClusterDoor,
    Wanted,
    settle,
)
from ansible_collections.muster.coordination.tests.support.allocator_site import LONG, AllocatorSite
from ansible_collections.muster.coordination.tests.support.fault_proxy import (
    Answer,
    AppliedButFailed,
    CutAnswer,
    DropAnswer,
    DropRequest,
    FaultProxy,
    Stall,
)

pytestmark = pytest.mark.integration

ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
TEMPLATE = """
apiVersion: muster.dev/v1alpha1
kind: InstanceTemplate
spec:
  version: "1"
  parameters:
    colour: {type: string, default: red, enum: [red, blue]}
    size: {type: integer, default: 1, minimum: 1, maximum: 9}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: "{{.Name}}"}
spec: {accessModes: [ReadWriteOnce]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{.Name}}"}
data: {look: "{{.colour}} {{.size}}"}
---
apiVersion: v1
kind: Service
metadata: {name: "{{.Name}}"}
spec:
  selector: {app: "{{.Name}}"}
  ports: [{name: http, port: 80}]
"""
LIMITS = ("--max-instances-per-user", "3", "--max-instances", "10", "--server-disk-size", "1Gi")


class Users(NamedTuple):
    """Tokens."""

    alice: str
    bob: str
    root: str


class Stage(NamedTuple):
    site: AllocatorSite
    users: Users


@pytest.fixture
def stage(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Stage]:
    root = f"system:serviceaccount:{namespace}:root"
    site = AllocatorSite(api, kubeconfig, namespace, TEMPLATE, tmp_path, "--global-admins", root, *LIMITS)
    try:
        for name in Users._fields:
            site.account(name)
        yield Stage(site, Users(*map(site.token, Users._fields)))
    finally:
        for each in api.list(INSTANCES, namespace).items:  # or the namespace would wait for a controller for ever
            api.patch(INSTANCES, {"metadata": {**_which(each), "finalizers": None}})
        site.close()


def _which(obj: dict[str, Any]) -> dict[str, Any]:
    return {key: obj["metadata"][key] for key in ("name", "namespace", "uid")}


# ------------------------------------------------------------------------------------------ the command


def test_a_life_at_a_terminal(stage: Stage) -> None:
    site, users = stage
    created = site.says(users.alice, "create", "--param", "colour=blue", "--wait")
    name = created.strip()
    assert created == f"{name}\n" and name.startswith("kv-")
    assert site.api.get(CONFIGMAPS, name, site.namespace)["data"] == {"look": "blue 1"}
    told = json.loads(site.says(users.alice, "get", name, "-o", "json"))
    assert (told["phase"], told["parameters"]) == ("Ready", {"colour": "blue", "size": 1})
    assert told["endpoints"] == [{"service": name, "port": 80, "name": "http"}]
    assert site.says(users.alice, "list", "-o", "name") == created
    assert "alice, and have 1 of at most 3" in site.says(users.alice, "offer")

    site.says(users.alice, "suspend", name, "--wait")
    assert json.loads(site.says(users.alice, "get", name, "-o", "json"))["phase"] == "Suspended"
    site.says(users.alice, "resume", name, "--wait")
    disk = site.api.get(DISKS, name, site.namespace)["metadata"]["uid"]
    site.says(users.alice, "reset", name, "--wait")
    assert site.api.get(DISKS, name, site.namespace)["metadata"]["uid"] != disk

    site.says(users.alice, "destroy", name, "--keep-disk", "--wait")
    assert site.says(users.alice, "list") == "no instances\n"
    assert site.says(users.alice, "disks", "-o", "name") == f"{name}\n"
    again = site.says(users.alice, "create", "--attach", name, "--wait").strip()
    attached = json.loads(site.says(users.alice, "get", again, "-o", "json"))
    assert (attached["attach"], attached["phase"]) == (name, "Ready")
    site.says(users.alice, "destroy", again, "--keep-disk", "--wait")
    site.says(users.alice, "disks", "remove", name)
    assert site.says(users.alice, "disks") == "no disks that you have kept\n"


def test_nobody_sees_what_is_anothers_and_who_may_see_it_does(stage: Stage) -> None:
    site, users = stage
    bob = f"user:system:serviceaccount:{site.namespace}:bob"
    own = site.says(users.alice, "create").strip()
    shared = site.says(users.alice, "create", "--share-with", bob, "--wait").strip()
    missing = site.says(users.bob, "get", "kv-0000000000", status=4)
    assert site.says(users.bob, "get", own, status=4) == missing == site.says(users.bob, "destroy", own, status=4)
    assert site.says(users.bob, "list", "-o", "name") == f"{shared}\n"
    site.says(users.bob, "suspend", shared, "--wait")
    assert "ask its owner" in site.says(users.bob, "destroy", shared, status=1)
    assert "you see yours" in site.says(users.bob, "list", "--all", "--watch", status=1)
    assert "your instances" in site.says(users.bob, "list", "--all", status=1)
    assert sorted(site.says(users.root, "list", "--all", "-o", "name").split()) == sorted([own, shared])
    site.says(users.root, "destroy", own, "--wait")
    assert site.says(users.alice, "list", "-o", "name") == f"{shared}\n"


def test_refusals_at_a_terminal(stage: Stage) -> None:
    site, users = stage
    wrong = site.token("alice", "https://other.example.com")
    assert "renew the token" in site.says(wrong, "list", status=1)
    assert wrong not in site.says(wrong, "create", status=1)
    for _number in range(3):
        site.says(users.alice, "create")
    assert "3 of at most 3" in site.says(users.alice, "create", status=3)
    assert "at most 9" in site.says(users.alice, "create", "--param", "size=10", status=1)


def test_a_watch_sees_what_happens(stage: Stage) -> None:
    site, users = stage
    process = site.command(users.alice, "list", "--watch", "-o", "json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["instances"] == []
    name = site.says(users.alice, "create").strip()
    seen: list[str] = []
    for line in process.stdout:
        seen += [each["phase"] for each in json.loads(line)["instances"] if each["name"] == name]
        if seen[-1:] == ["Ready"]:
            break
    process.terminate()
    assert process.wait(LONG) == 0 and seen[-1] == "Ready"


# ------------------------------------------------------------------------------------------ the client


def test_a_creation_outlives_the_server(stage: Stage) -> None:
    """The server is killed between two answers; who asks goes on, and has one instance for each key."""
    site, users = stage
    client = site.client(users.alice)
    changes = client.watch(deadline=time.monotonic() + LONG)
    assert next(changes) == Snapshot([])
    made: list[Any] = []
    site.kill()
    asking = threading.Thread(target=lambda: made.append(client.create("one", {})))
    asking.start()
    site.start()
    asking.join(LONG)
    assert made, "it was not made"  # by its first question, or, where that had no answer in time, by a later one
    assert client.create("one", {}).instance["name"] == made[0].instance["name"]
    assert len(client.listed()) == 1
    for change in changes:  # the watch goes on by itself
        names = [each["name"] for each in change.items] if isinstance(change, Snapshot) else []
        if isinstance(change, Put):
            names = [change.instance["name"]]
        if made[0].instance["name"] in names:
            break
    else:
        raise AssertionError("the watch never told of it")
    client.close()


FAULTS = [DropRequest(), DropAnswer(), CutAnswer(), AppliedButFailed(502), Answer(503, retry_after=1), Stall()]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_creation_over_a_bad_network_makes_one(stage: Stage, fault: Any) -> None:
    site, users = stage
    with FaultProxy(Credentials(site.url, source="this test")) as proxy:
        proxy.plan(fault, method="POST", path="/v1/instances", times=2)
        client = AllocatorClient(proxy.url, token_of(users.alice, "the token"), timeout=3)
        made = client.create("one", {"parameters": {"size": 2}})
        assert proxy.pending == 0 and proxy.count("POST") >= 3
        client.close()
    assert [each["name"] for each in site.client(users.alice).listed()] == [made.instance["name"]]
    assert site.client(users.alice).offer()["used"] == 1


def test_parallel_creations_stop_at_the_limit(stage: Stage) -> None:
    site, users = stage
    client = site.client(users.alice)
    made, refused = [], []

    def create(number: int) -> None:
        try:
            client.create(f"k-{number}", {})
            made.append(f"k-{number}")
        except QuotaSpent as error:
            refused.append((error.members["limit"], error.members["scope"]))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(made) == 3 and refused == [(3, "owner")] * 9
    assert len(client.listed()) == 3
    assert not client.create(made[0], {}).is_new
    with pytest.raises(KeyReused):
        client.create(made[0], {"parameters": {"size": 9}})


def test_the_tokens_of_kubernetes_are_of_another_audience(stage: Stage) -> None:
    """A login for the API server is none for an allocator that has an audience of its own."""
    site, _users = stage
    login = {"host": "https://127.0.0.1:1", "api_key": site.token("alice", "")}
    client = site.client("x")
    client._token = KubernetesToken(Credentials.load(login, {}))
    with pytest.raises(Unauthenticated):
        client.listed()


# ------------------------------------------------------------------------------------------ straight in the cluster


def test_the_two_doors_are_one_allocator(stage: Stage) -> None:
    site, users = stage
    alice = f"system:serviceaccount:{site.namespace}:alice"
    client, door = site.client(users.alice), ClusterDoor(site.api, site.namespace, site.name, alice)
    first = settle(client, "present", Wanted("ci", parameters={"size": "3"}), LONG)
    second = settle(door, "present", Wanted("ci", parameters={"size": 3}), LONG)
    assert first["changed"] and not second["changed"] and first["instance"] == second["instance"]
    third = settle(door, "suspended", Wanted("night", access={"users": ["carol"]}), LONG)
    assert third["instance"]["phase"] == "Suspended"
    assert not settle(client, "suspended", Wanted("night"), LONG)["changed"]
    door.create("more", {})
    with pytest.raises(QuotaSpent):
        client.create("yet-more", {})
    assert client.offer() == {**door.offer(), "caller": client.offer()["caller"]}
    assert settle(client, "absent", Wanted("night"), LONG)["changed"]
    assert not settle(door, "absent", Wanted("night"), LONG)["changed"]
    client.close()


def test_the_rights_that_the_documentation_names_are_enough(stage: Stage) -> None:
    """By an identity that has them and no others."""
    site, _users = stage
    kinds = ["configmaps", "persistentvolumeclaims", "services"]
    rules = [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create", "update"]},
        {
            "apiGroups": ["muster.dev"],
            "resources": ["instances"],
            "verbs": ["get", "list", "watch", "create", "update", "delete"],
        },
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": kinds, "verbs": ["create"]},
    ]
    at = {"name": "playbook", "namespace": site.namespace}
    site.api.create(ROLES, {"metadata": at, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "playbook"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}
    site.api.create(BINDINGS, {"metadata": at, "roleRef": reference, "subjects": [subject]})
    mine = Api(Credentials.load({"kubeconfig": site.kubeconfig, "impersonate_user": "somebody"}))
    door = ClusterDoor(mine, site.namespace, site.name)
    for state in ("present", "suspended", "present", "absent"):
        told = settle(door, state, Wanted("ci", parameters={"size": 2}), LONG)
        assert told["changed"], state
        if state != "absent":
            assert told["instance"]["owner"] == "somebody"
    assert door.listed() == [] and door.disks() == []
    door.close()


# ------------------------------------------------------------------------------------------ the modules


def test_the_modules(stage: Stage) -> None:
    site, users = stage
    values = {
        "kubeconfig": site.kubeconfig,
        "test_namespace": site.namespace,
        "test_url": site.url,
        "test_token": users.alice,
        "ansible_python_interpreter": sys.executable,
    }
    run = subprocess.run(
        [
            Path(sys.executable).parent / "ansible-playbook",
            *("-i", "localhost,", "-c", "local", "-e", json.dumps(values), str(Path(__file__).with_suffix(".yml"))),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false"},
    )
    assert run.returncode == 0, run.stdout
    assert users.alice not in run.stdout
    with pytest.raises(NotFound):
        site.api.get(CONFIGMAPS, "kv-none", site.namespace)
    assert site.api.list(INSTANCES, site.namespace).items == []

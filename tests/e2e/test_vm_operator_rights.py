# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chart vm-operator lets its operator do, tried on a real API server with a token of the operator's account.

Each attempt is one request. One that must be refused has to be refused by RBAC; and an administrator makes the same
attempt, which has to pass: so that one which fails for another reason proves nothing here.

There are two places: a leader that cares for all namespaces, and shards that care for one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    STATEFUL_SETS,
    Api,
    Resource,
)
from ansible_collections.muster.coordination.tests.support import rights
from ansible_collections.muster.coordination.tests.support.at_cluster import account, administrator, run, until
from ansible_collections.muster.coordination.tests.support.rights import (
    ACCOUNTS,
    BINDING,
    BINDINGS,
    CLUSTER_ROLES,
    DEFINITIONS,
    NODES,
    ROLES,
    SECRETS,
    Attempt,
    Object,
    assert_lacks_the_right,
    assert_people_may,
    deletes,
    each,
    gets,
    makes,
    may,
    patches,
    reads,
    tells,
    updates,
)

CHART = Path(__file__).resolve().parents[2] / "charts" / "vm-operator"
MACHINES = Resource("muster.dev/v1alpha1", "virtualmachines", "VirtualMachine")
NAME = "vm-operator"
SPEC = {"cores": 1, "memory": "1Gi", "image": "debian-13"}


@dataclass
class Place(rights.Place):
    """The chart in a namespace, without a Pod; a second namespace; and what there is of others in both."""

    mode: str
    operator: Api

    @property
    def lease(self) -> str:
        """The Lease that a replica writes."""
        return NAME if self.mode == "leader" else f"{NAME}-{NAME}-0"

    def fill(self) -> None:
        """What attempts are made at, and may have been deleted by one."""
        for namespace in (self.namespace, self.elsewhere):
            self.renew(LEASES, self.lease, namespace, spec={})
            self.renew(LEASES, "foreign", namespace, spec={"holderIdentity": "somebody"})
            self.renew(CONFIGMAPS, "foreign", namespace, data={"key": "value"})
            self.renew(SECRETS, "foreign", namespace)
            self.renew(MACHINES, "machine", namespace, spec=SPEC)
            self.renew(PODS, "idle", namespace, spec=pod_spec())
        self.renew(CONFIGMAPS, f"{NAME}-shards", self.namespace, data={"table": ""})
        for ordinal in (9, 10):  # the last replica that the chart's maxReplicas allows, and the one after it
            self.renew(LEASES, f"{NAME}-{NAME}-{ordinal}", self.namespace, spec={})


def pod_spec() -> Object:
    """Of a Pod that nothing schedules."""
    return {"schedulerName": "nobody", "containers": [{"name": "idle", "image": "muster"}]}


def make_place(mode: str, watched: str) -> Iterator[Place]:
    """`watched`: its own namespace, or all (empty)."""
    admin = administrator()
    namespace, elsewhere = f"e2e-vm-{mode}-{os.getpid()}", f"e2e-vm-{mode}-{os.getpid()}-b"
    for name in (namespace, elsewhere):
        admin.create(NAMESPACES, {"metadata": {"name": name}})
    values = {
        "fullnameOverride": NAME,
        "replicasMode": mode,
        "replicas": 0,
        "watchNamespace": namespace if watched else "",
        "cloud": {"enabled": False, "url": "http://127.0.0.1:9"},
    }
    run("helm", "install", "vm", str(CHART), "--namespace", namespace, "--values", "-", given=json.dumps(values))
    place = Place(namespace, elsewhere, admin, mode, account(namespace, NAME))
    place.fill()
    until("its rights are known", lambda: may(place, place.operator, reads(PODS)) is None)
    try:
        yield place
    finally:
        run("helm", "uninstall", "vm", "--namespace", namespace)
        run("kubectl", "delete", "namespace", namespace, elsewhere, "--timeout=120s")
        place.operator.close()
        admin.close()


@pytest.fixture(scope="module")
def leader() -> Iterator[Place]:
    yield from make_place("leader", watched="")


@pytest.fixture(scope="module")
def shards() -> Iterator[Place]:
    yield from make_place("shard", watched="its own")


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


# ------------------------------------------------------------------------------------------------ attempts


def own(place: Place) -> str:
    return place.lease


def takes_finalizer(place: Place, api: Api) -> object:
    machine = place.admin.get(MACHINES, "machine", place.namespace)
    machine["metadata"]["labels"] = {"touched": str(machine["metadata"]["generation"])}
    return api.replace(MACHINES, machine)


ALLOWED: dict[str, Attempt] = {
    "read its Lease": gets(LEASES, own),
    "renew its Lease": updates(LEASES, own, spec={"holderIdentity": "somebody"}),
    "make a Lease": makes(LEASES, spec={}),
    "see its Pods": reads(PODS),
    "write an Event": tells("VirtualMachine", "machine"),
    "see the machines": reads(MACHINES),
    "put its finalizer on a machine": takes_finalizer,
    "say what a machine is at": updates(MACHINES, "machine", subresource="status", status={"phase": "Creating"}),
}
ALLOWED_TO_LEADER: dict[str, Attempt] = {
    "see the machines of all namespaces": reads(MACHINES, everywhere=True),
    "say what a machine elsewhere is at": updates(
        MACHINES, "machine", subresource="status", elsewhere=True, status={"phase": "Creating"}
    ),
    "write an Event elsewhere": tells("VirtualMachine", "machine", elsewhere=True),
}
ALLOWED_TO_SHARDS: dict[str, Attempt] = {
    "see the others' Leases": reads(LEASES),
    "read the table": gets(CONFIGMAPS, f"{NAME}-shards"),
    "write the table": updates(CONFIGMAPS, f"{NAME}-shards", data={"table": "{}"}),
    "make the table": makes(CONFIGMAPS),
    "renew the Lease of the last replica that there may be": updates(LEASES, f"{NAME}-{NAME}-9", spec={}),
}
DENIED: dict[str, Attempt] = {
    # ---- what coordinates the replicas, and nothing else of the kind
    "write the Lease of somebody else": updates(LEASES, "foreign", spec={}),
    "delete its Lease": deletes(LEASES, own),
    "delete the Lease of somebody else": deletes(LEASES, "foreign"),
    "make a Lease elsewhere": makes(LEASES, elsewhere=True, spec={}),
    "write a Lease elsewhere": updates(LEASES, own, elsewhere=True, spec={}),
    "read a ConfigMap": gets(CONFIGMAPS, "foreign"),
    "list the ConfigMaps": reads(CONFIGMAPS),
    "write a ConfigMap": updates(CONFIGMAPS, "foreign", data={}),
    "delete the table": deletes(CONFIGMAPS, f"{NAME}-shards"),
    # ---- machines are asked for by others
    "make a machine": makes(MACHINES, spec=SPEC),
    "delete a machine": deletes(MACHINES, "machine"),
    "patch a machine": patches(MACHINES, "machine"),
    # ---- and nothing else at all
    "read a Secret": gets(SECRETS, "foreign"),
    "list the Secrets": reads(SECRETS),
    "delete a Pod": deletes(PODS, "idle"),
    "make a Pod": makes(PODS, spec=pod_spec()),
    "see the Pods elsewhere": reads(PODS, elsewhere=True),
    "list the Events": reads(EVENTS),
    "change its own workload": patches(STATEFUL_SETS, NAME),
    "see its own account": gets(ACCOUNTS, NAME),
    "change its own rights": patches(ROLES, NAME),
    "give rights": makes(BINDINGS, **BINDING),
    "see the definition of a machine": gets(DEFINITIONS, "virtualmachines.muster.dev"),
    "see the nodes": reads(NODES),
    "see the namespaces": reads(NAMESPACES),
    "see what others may": reads(CLUSTER_ROLES),
}
DENIED_TO_LEADER: dict[str, Attempt] = {
    "see the Leases of others": reads(LEASES),
    "read the Lease of somebody else": gets(LEASES, "foreign"),
    "make a ConfigMap": makes(CONFIGMAPS),
    "read a table of shards": gets(CONFIGMAPS, f"{NAME}-shards"),
}
DENIED_TO_SHARDS: dict[str, Attempt] = {
    "renew the Lease of one more": updates(LEASES, f"{NAME}-{NAME}-10", spec={}),
    "see the machines of all namespaces": reads(MACHINES, everywhere=True),
    "see the machines elsewhere": reads(MACHINES, elsewhere=True),
    "say what a machine elsewhere is at": updates(
        MACHINES, "machine", subresource="status", elsewhere=True, status={"phase": "Creating"}
    ),
    "write an Event elsewhere": tells("VirtualMachine", "machine", elsewhere=True),
}


@pytest.mark.parametrize(
    ("place", "attempt"), each(ALLOWED, leader=ALLOWED_TO_LEADER, shards=ALLOWED_TO_SHARDS), indirect=["place"]
)
def test_what_it_needs_it_may(place: Place, attempt: Attempt) -> None:
    assert may(place, place.operator, attempt) is None


@pytest.mark.parametrize(
    ("place", "attempt"), each(DENIED, leader=DENIED_TO_LEADER, shards=DENIED_TO_SHARDS), indirect=["place"]
)
def test_nothing_else_it_may(place: Place, attempt: Attempt) -> None:
    assert_lacks_the_right(place, place.operator, attempt)


@pytest.mark.parametrize(
    ("role", "allowed", "denied"),
    [
        ("view", reads(MACHINES), makes(MACHINES, spec=SPEC)),
        (
            "edit",
            makes(MACHINES, spec=SPEC),
            updates(MACHINES, "machine", subresource="status", status={"phase": "Failed"}),
        ),
    ],
)
def test_people_with_the_usual_roles_may_ask_for_machines(
    leader: Place, role: str, allowed: Attempt, denied: Attempt
) -> None:
    assert_people_may(leader, role, allowed, denied)

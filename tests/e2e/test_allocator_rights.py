# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chart allocator lets its server do, and users, tried on a real API server with tokens of their accounts.

Each attempt is one request. One that must be refused has to be refused by RBAC; and an administrator makes the same
attempt, which has to pass: so that one which fails for another reason proves nothing here.

There are two places: one with all kinds that a template may make by default, and one with Deployments alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    Api,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES, resource_of
from ansible_collections.muster.coordination.tests.support import rights
from ansible_collections.muster.coordination.tests.support.at_cluster import account, administrator, run, until
from ansible_collections.muster.coordination.tests.support.rights import (
    ACCOUNTS,
    BINDING,
    BINDINGS,
    CLUSTER_ROLES,
    DEFINITIONS,
    NODES,
    REPLICA_SETS,
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

CHART = Path(__file__).resolve().parents[2] / "charts" / "allocator"
DEPLOYMENTS = resource_of("apps/v1", "Deployment")
STATEFUL_SETS = resource_of("apps/v1", "StatefulSet")
SERVICES = resource_of("v1", "Service")
POLICIES = resource_of("networking.k8s.io/v1", "NetworkPolicy")
BUDGETS = resource_of("policy/v1", "PodDisruptionBudget")
JOBS = Resource("batch/v1", "jobs", "Job")
VOLUMES = Resource("v1", "persistentvolumes", "PersistentVolume", namespaced=False)
TOKEN_REVIEWS = Resource("authentication.k8s.io/v1", "tokenreviews", "TokenReview", namespaced=False)
ACCESS_REVIEWS = Resource("authorization.k8s.io/v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)
NAME = "allocator"

POD_SPEC: Object = {"schedulerName": "nobody", "containers": [{"name": "idle", "image": "muster"}]}
LABELS = {"app": "idle"}
WORKLOAD: Object = {
    "replicas": 0,
    "selector": {"matchLabels": LABELS},
    "template": {"metadata": {"labels": LABELS}, "spec": POD_SPEC},
}
DISK: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
SERVICE: Object = {"selector": LABELS, "ports": [{"port": 80}]}
BUDGET: Object = {"maxUnavailable": 1, "selector": {"matchLabels": LABELS}}
MANIFEST = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "new"}}]
INSTANCE: Object = {"owner": "ann", "key": "k", "digest": "d", "template": "t", "manifest": MANIFEST}


@dataclass
class Place(rights.Place):
    """The chart in a namespace, without a Pod; a second namespace; and what there is of others in both."""

    server: Api
    person: Api

    def fill(self) -> None:
        """What attempts are made at, and may have been deleted by one."""
        for namespace in (self.namespace, self.elsewhere):
            self.renew(LEASES, NAME, namespace, spec={})
            self.renew(LEASES, "there", namespace, spec={"holderIdentity": "somebody"})
            self.renew(CONFIGMAPS, "there", namespace, data={"key": "value"})
            self.renew(SECRETS, "there", namespace)
            self.renew(INSTANCES, "there", namespace, spec=INSTANCE)
            self.renew(PODS, "there", namespace, spec=POD_SPEC)
            self.renew(DISKS, "there", namespace, spec=DISK)
            self.renew(DEPLOYMENTS, "there", namespace, spec=WORKLOAD)
            self.renew(STATEFUL_SETS, "there", namespace, spec={**WORKLOAD, "serviceName": "there"})
            self.renew(SERVICES, "there", namespace, spec=SERVICE)
            self.renew(POLICIES, "there", namespace, spec={"podSelector": {}})
            self.renew(BUDGETS, "there", namespace, spec=BUDGET)


def make_place(mode: str, **values: Any) -> Iterator[Place]:
    admin = administrator()
    namespace, elsewhere = f"e2e-allocator-{mode}-{os.getpid()}", f"e2e-allocator-{mode}-{os.getpid()}-b"
    for name in (namespace, elsewhere):
        admin.create(NAMESPACES, {"metadata": {"name": name}})
    given = json.dumps({"fullnameOverride": NAME, "replicas": 0, **values})
    run("helm", "install", NAME, str(CHART), "--namespace", namespace, "--values", "-", given=given)
    admin.create(ACCOUNTS, {"metadata": {"name": "ann", "namespace": elsewhere}})
    place = Place(namespace, elsewhere, admin, account(namespace, NAME), account(elsewhere, "ann"))
    place.fill()
    until("its rights are known", lambda: may(place, place.server, reads(PODS)) is None)
    try:
        yield place
    finally:
        run("helm", "uninstall", NAME, "--namespace", namespace)
        run("kubectl", "delete", "namespace", namespace, elsewhere, "--timeout=120s")
        for api in (place.server, place.person, admin):
            api.close()


@pytest.fixture(scope="module")
def usual() -> Iterator[Place]:
    yield from make_place("usual")


@pytest.fixture(scope="module")
def narrow() -> Iterator[Place]:
    yield from make_place("narrow", allowedKinds=["apps/v1/Deployment"], rbac={"tokenReview": False})


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


# ------------------------------------------------------------------------------------------------ attempts


def follows(resource: Resource, name: str = "") -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        field = f"metadata.name={name}" if name else ""
        version = place.admin.list(resource, place.namespace).resource_version
        return list(api.watch(resource, place.namespace, resource_version=version, field_selector=field, timeout=1.0))

    return attempt


def marks(resource: Resource, name: str = "there") -> Attempt:
    """An update that changes a label only."""

    def attempt(place: Place, api: Api) -> object:
        found = place.admin.get(resource, name, place.namespace)
        labels = {**(found["metadata"].get("labels") or {}), "touched": found["metadata"]["resourceVersion"]}
        return api.replace(resource, {**found, "metadata": {**found["metadata"], "labels": labels}})

    return attempt


def asks(resource: Resource, **spec: Any) -> Attempt:
    """A review, which is answered and not kept."""

    def attempt(_place: Place, api: Api) -> object:
        kind = {"apiVersion": resource.api_version, "kind": resource.kind}
        return api.create(resource, {**kind, "metadata": {}, "spec": spec})

    return attempt


STATUS: Object = {"status": {"phase": "Ready"}}
ASKED = {"user": "ann", "resourceAttributes": {"verb": "get", "resource": "pods"}}

ALLOWED: dict[str, Attempt] = {
    "read its Lease": gets(LEASES, NAME),
    "follow its Lease": follows(LEASES, NAME),
    "renew its Lease": updates(LEASES, NAME, spec={"holderIdentity": "somebody"}),
    "make a Lease": makes(LEASES, spec={}),
    "see its Pods": reads(PODS),
    "follow its Pods": follows(PODS),
    "write an Event": tells("Instance", "there"),
    "read Events": reads(EVENTS),
    "see the instances": reads(INSTANCES),
    "follow the instances": follows(INSTANCES),
    "make an instance": makes(INSTANCES, spec=INSTANCE),
    "change an instance": marks(INSTANCES),
    "delete an instance": deletes(INSTANCES),
    "say how an instance stands": updates(INSTANCES, subresource="status", **STATUS),
    "see the ledgers": reads(CONFIGMAPS),
    "read a ledger": gets(CONFIGMAPS),
    "make a ledger": makes(CONFIGMAPS),
    "write a ledger": updates(CONFIGMAPS, data={"ledger.json": "{}"}),
    "see Deployments": reads(DEPLOYMENTS),
    "follow Deployments": follows(DEPLOYMENTS),
    "make a Deployment": makes(DEPLOYMENTS, spec=WORKLOAD),
    "scale a Deployment": marks(DEPLOYMENTS),
    "delete a Deployment": deletes(DEPLOYMENTS),
    "see kept disks": reads(DISKS),
    "read a kept disk": gets(DISKS),
    "delete a kept disk": deletes(DISKS),
}
ALLOWED_USUALLY: dict[str, Attempt] = {
    "ask whose a token is": asks(TOKEN_REVIEWS, token="nobody's"),
    "make a StatefulSet": makes(STATEFUL_SETS, spec={**WORKLOAD, "serviceName": "new"}),
    "scale a StatefulSet": marks(STATEFUL_SETS),
    "delete a StatefulSet": deletes(STATEFUL_SETS),
    "follow StatefulSets": follows(STATEFUL_SETS),
    "make a disk": makes(DISKS, spec=DISK),
    "keep a disk": marks(DISKS),
    "follow disks": follows(DISKS),
    "make a Service": makes(SERVICES, spec=SERVICE),
    "see Services": reads(SERVICES),
    "delete a Service": deletes(SERVICES),
    "make a NetworkPolicy": makes(POLICIES, spec={"podSelector": {}}),
    "delete a NetworkPolicy": deletes(POLICIES),
    "make a PodDisruptionBudget": makes(BUDGETS, spec=BUDGET),
    "delete a PodDisruptionBudget": deletes(BUDGETS),
    "delete a ConfigMap of a template": deletes(CONFIGMAPS),
}
DENIED: dict[str, Attempt] = {
    # ---- what coordinates the replicas, and nothing else of the kind
    "see the Leases of others": reads(LEASES),
    "write the Lease of somebody else": updates(LEASES, spec={}),
    "delete its Lease": deletes(LEASES, NAME),
    "make a Lease elsewhere": makes(LEASES, elsewhere=True, spec={}),
    # ---- nothing of another namespace
    "see the instances elsewhere": reads(INSTANCES, elsewhere=True),
    "see the instances of all namespaces": reads(INSTANCES, everywhere=True),
    "make an instance elsewhere": makes(INSTANCES, elsewhere=True, spec=INSTANCE),
    "read a ConfigMap elsewhere": gets(CONFIGMAPS, elsewhere=True),
    "make a Deployment elsewhere": makes(DEPLOYMENTS, elsewhere=True, spec=WORKLOAD),
    "delete a disk elsewhere": deletes(DISKS, elsewhere=True),
    "see the Pods elsewhere": reads(PODS, elsewhere=True),
    "write an Event elsewhere": tells("Instance", "there", elsewhere=True),
    # ---- of what is in its own, only as it is used
    "patch an instance": patches(INSTANCES),
    "patch a Deployment": patches(DEPLOYMENTS),
    "make a Pod": makes(PODS, spec=POD_SPEC),
    "delete a Pod": deletes(PODS),
    "make a Job": makes(JOBS, spec={"template": {"spec": {**POD_SPEC, "restartPolicy": "Never"}}}),
    "see the ReplicaSets": reads(REPLICA_SETS),
    # ---- no Secrets, no identities, no rights
    "read a Secret": gets(SECRETS),
    "list the Secrets": reads(SECRETS),
    "make a Secret": makes(SECRETS),
    "see its own account": gets(ACCOUNTS, NAME),
    "make an account": makes(ACCOUNTS),
    "change its own rights": patches(ROLES, NAME),
    "give rights": makes(BINDINGS, **BINDING),
    "see what others may": reads(CLUSTER_ROLES),
    "ask what others may": asks(ACCESS_REVIEWS, **ASKED),
    # ---- and of the cluster nothing else
    "see the nodes": reads(NODES),
    "see the namespaces": reads(NAMESPACES),
    "see the volumes": reads(VOLUMES),
    "see the definition of an instance": gets(DEFINITIONS, "instances.muster.dev"),
}
DENIED_USUALLY: dict[str, Attempt] = {
    "change a Service": marks(SERVICES),
    "follow Services": follows(SERVICES),
    "change a NetworkPolicy": marks(POLICIES),
}
DENIED_NARROWLY: dict[str, Attempt] = {
    "ask whose a token is": asks(TOKEN_REVIEWS, token="nobody's"),
    "make a StatefulSet": makes(STATEFUL_SETS, spec={**WORKLOAD, "serviceName": "new"}),
    "make a disk": makes(DISKS, spec=DISK),
    "change a disk": marks(DISKS),
    "make a Service": makes(SERVICES, spec=SERVICE),
    "see Services": reads(SERVICES),
    "delete a ConfigMap": deletes(CONFIGMAPS),
}
PERSON_DENIED: dict[str, Attempt] = {
    "see the instances": reads(INSTANCES),
    "make an instance": makes(INSTANCES, spec=INSTANCE),
    "read the ledgers": reads(CONFIGMAPS),
    "see the Pods": reads(PODS),
    "make an instance in her own namespace": makes(INSTANCES, elsewhere=True, spec=INSTANCE),
}


@pytest.mark.parametrize(("place", "attempt"), each(ALLOWED, usual=ALLOWED_USUALLY, narrow={}), indirect=["place"])
def test_what_the_server_needs_it_may(place: Place, attempt: Attempt) -> None:
    assert may(place, place.server, attempt) is None


@pytest.mark.parametrize(
    ("place", "attempt"), each(DENIED, usual=DENIED_USUALLY, narrow=DENIED_NARROWLY), indirect=["place"]
)
def test_nothing_else_it_may(place: Place, attempt: Attempt) -> None:
    assert_lacks_the_right(place, place.server, attempt)


@pytest.mark.parametrize("attempt", PERSON_DENIED.values(), ids=PERSON_DENIED)
def test_users_have_no_rights_and_need_none(usual: Place, attempt: Attempt) -> None:
    assert_lacks_the_right(usual, usual.person, attempt)


@pytest.mark.parametrize("role", ["view", "edit"])
def test_people_with_the_usual_role_may_look_at_instances_and_not_more(usual: Place, role: str) -> None:
    assert_people_may(usual, role, reads(INSTANCES), makes(INSTANCES, spec=INSTANCE))

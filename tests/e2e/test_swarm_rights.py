# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kustomize/ lets the operator of Swarms and its workers do, tried on a real API server with their tokens.

Each attempt is one request. One that must be refused has to be refused by RBAC; and an administrator makes the same
attempt, which has to pass: so that one which fails for another reason proves nothing here.

There are three places: a leader that looks after all namespaces, shards that look after their own, and labels.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    STATEFUL_SETS,
    AlreadyExists,
    Api,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import SWARMS
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
    is_gone,
    makes,
    may,
    patches,
    reads,
    tells,
    updates,
)

KUSTOMIZE = Path(__file__).resolve().parents[2] / "kustomize"
NAME, WORKER, CONFIG = "swarm-operator", "swarm-worker", "swarm-worker-config"
TREES = {
    "cluster": ["overlays/cluster"],
    "shards": ["overlays/namespaced", "components/shards"],
    "labels": ["overlays/labels"],
}


@dataclass
class Place(rights.Place):
    """Operator and worker in a namespace, without a Pod; a second namespace; and what there is of others in both."""

    kind: str
    operator: Api
    worker: Api

    @property
    def lease(self) -> str:
        """The Lease that a replica writes."""
        return f"{NAME}-{NAME}-0" if self.kind == "shards" else NAME

    def fill(self) -> None:
        """What attempts are made at, and may have been deleted by one."""
        for namespace in (self.namespace, self.elsewhere):
            self.renew(LEASES, self.lease, namespace, spec={})
            self.renew(LEASES, "foreign", namespace, spec={"holderIdentity": "somebody"})
            for name in ("foreign", CONFIG, f"{CONFIG}-1", f"{CONFIG}-15", f"{CONFIG}-16"):
                self.renew(CONFIGMAPS, name, namespace, data={"key": "value"})
            self.renew(SECRETS, "foreign", namespace)
            self.renew(SWARMS, "swarm", namespace, spec={})
            self.renew(PODS, "idle", namespace, spec=pod_spec())
            for kind in (STATEFUL_SETS, DEPLOYMENTS):
                self.renew(kind, "pool", namespace, spec=workload_spec())
        self.renew(CONFIGMAPS, f"{NAME}-shards", self.namespace, data={"table": ""})
        for ordinal in (9, 10):  # the last replica that the Role names a Lease of, and the one after it
            self.renew(LEASES, f"{NAME}-{NAME}-{ordinal}", self.namespace, spec={})


def pod_spec() -> Object:
    """Of a Pod that nothing schedules, and that the restricted Pod Security Standard lets pass."""
    container = {
        "name": "idle",
        "image": "muster",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return {"schedulerName": "nobody", "containers": [container], "securityContext": security}


def workload_spec() -> Object:
    labels = {"app": "pool"}
    template = {"metadata": {"labels": labels}, "spec": pod_spec()}
    return {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}


def make_place(kind: str, directory: Path) -> Iterator[Place]:
    admin = administrator()
    namespace, elsewhere = f"e2e-swarm-{kind}-{os.getpid()}", f"e2e-swarm-{kind}-{os.getpid()}-b"
    for name in (namespace, elsewhere):
        with suppress(AlreadyExists):
            admin.create(NAMESPACES, {"metadata": {"name": name}})
    run("kubectl", "apply", "-f", str(KUSTOMIZE / "swarm-operator/base/swarms.yaml"))
    run("kubectl", "wait", "--for=condition=Established", "crd/swarms.muster.dev")
    operator = write(directory, "operator", namespace, [f"{NAME}/{part}" for part in TREES[kind]], NAME)
    worker = write(directory, "worker", namespace, [f"{WORKER}/base", f"{WORKER}/components/one-configmap"], WORKER)
    for what in (operator, worker):
        run("kubectl", "apply", "-k", str(what))
    place = Place(namespace, elsewhere, admin, kind, account(namespace, NAME), account(namespace, WORKER))
    place.fill()
    until("the operator's rights are known", lambda: may(place, place.operator, reads(PODS)) is None)
    until("the worker's rights are known", lambda: may(place, place.worker, reads(CONFIGMAPS, named=CONFIG)) is None)
    try:
        yield place
    finally:
        for right in ("clusterrolebinding", "clusterrole"):
            run("kubectl", "delete", right, f"{NAME}.{namespace}", "--ignore-not-found")
        run("kubectl", "delete", "namespace", namespace, elsewhere, "--timeout=120s")
        for api in (place.operator, place.worker, admin):
            api.close()


def write(directory: Path, name: str, namespace: str, parts: list[str], workload: str) -> Path:
    """A kustomization that has no Pod, and no definition of Swarms: that stays on the cluster."""
    made = (directory / name).resolve()
    made.mkdir()
    resource, *components = (os.path.relpath(KUSTOMIZE / part, made) for part in parts)
    rename = json.dumps([{"op": "replace", "path": "/metadata/name", "value": f"{NAME}.{namespace}"}])
    few = json.dumps([{"op": "replace", "path": "/spec/replicas", "value": 0}])
    rights = "app.kubernetes.io/component=rights"
    document = {
        "namespace": namespace,
        "resources": [resource],
        "components": components,
        "patches": [
            {"target": {"kind": "StatefulSet", "name": workload}, "patch": few},
            {
                "target": {"kind": "ClusterRole(Binding)?", "labelSelector": rights},
                "patch": rename,
                "options": {"allowNameChange": True},
            },
        ],
    }
    (made / "kustomization.yaml").write_text(json.dumps(document))
    return made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from make_place("cluster", tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from make_place("shards", tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from make_place("labels", tmp_path_factory.mktemp("labels"))


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(request.param)
    return found


# ------------------------------------------------------------------------------------------------ attempts


def own(place: Place) -> str:
    return place.lease


def evicts(*, elsewhere: bool = False) -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        namespace = place.elsewhere if elsewhere else place.namespace
        pod = place.admin.get(PODS, "idle", namespace)
        api.evict("idle", namespace, uid=pod["metadata"]["uid"])
        until("the Pod is gone", lambda: is_gone(place.admin, PODS, "idle", namespace, pod["metadata"]["uid"]))
        return place.fill()

    return attempt


STATUS: Object = {"status": {"converged": False}}
DATA: Object = {"data": {"config.yml": "workloads: {}"}}

ALLOWED: dict[str, Attempt] = {
    "read its Lease": gets(LEASES, own),
    "renew its Lease": updates(LEASES, own, spec={"holderIdentity": "somebody"}),
    "make a Lease": makes(LEASES, spec={}),
    "write an Event": tells("Swarm", "swarm"),
    "see the workers": reads(PODS),
    "see their StatefulSets": reads(STATEFUL_SETS),
    "see their Deployments": reads(DEPLOYMENTS),
    "evict a worker": evicts(),
    "read jobs": gets(CONFIGMAPS, "foreign"),
    "see the ConfigMaps": reads(CONFIGMAPS),
    "make the workers' ConfigMap": makes(CONFIGMAPS),
    "write the workers' ConfigMap": updates(CONFIGMAPS, CONFIG, **DATA),
    "write the last one of them": updates(CONFIGMAPS, f"{CONFIG}-15", **DATA),
}
ALLOWED_WITH_SWARMS: dict[str, Attempt] = {
    "see the Swarms": reads(SWARMS),
    "say how a Swarm stands": updates(SWARMS, "swarm", subresource="status", **STATUS),
    "write a ConfigMap that a Swarm may name": updates(CONFIGMAPS, "foreign", **DATA),
    "see how a StatefulSet is scaled": gets(STATEFUL_SETS, "pool", subresource="scale"),
    "scale a StatefulSet": updates(STATEFUL_SETS, "pool", subresource="scale", spec={"replicas": 0}),
    "scale a Deployment": updates(DEPLOYMENTS, "pool", subresource="scale", spec={"replicas": 0}),
}
ALLOWED_TO_CLUSTER: dict[str, Attempt] = {
    **ALLOWED_WITH_SWARMS,
    "see the Swarms of all namespaces": reads(SWARMS, everywhere=True),
    "see the Pods of all namespaces": reads(PODS, everywhere=True),
    "say how a Swarm elsewhere stands": updates(SWARMS, "swarm", subresource="status", elsewhere=True, **STATUS),
    "write the workers' ConfigMap elsewhere": updates(CONFIGMAPS, CONFIG, elsewhere=True, **DATA),
    "evict a worker elsewhere": evicts(elsewhere=True),
    "write an Event elsewhere": tells("Swarm", "swarm", elsewhere=True),
}
ALLOWED_TO_SHARDS: dict[str, Attempt] = {
    **ALLOWED_WITH_SWARMS,
    "see the others' Leases": reads(LEASES),
    "write the table": updates(CONFIGMAPS, f"{NAME}-shards", data={"table": "{}"}),
    "renew the Lease of the last replica that there may be": updates(LEASES, f"{NAME}-{NAME}-9", spec={}),
}
DENIED: dict[str, Attempt] = {
    # ---- what coordinates the replicas, and nothing else of the kind
    "write the Lease of somebody else": updates(LEASES, "foreign", spec={}),
    "delete its Lease": deletes(LEASES, own),
    "make a Lease elsewhere": makes(LEASES, elsewhere=True, spec={}),
    # ---- Swarms are asked for by others, and workers are somebody else's
    "make a Swarm": makes(SWARMS, spec={}),
    "change a Swarm": updates(SWARMS, "swarm", spec={"paused": True}),
    "patch a Swarm": patches(SWARMS, "swarm"),
    "delete a Swarm": deletes(SWARMS, "swarm"),
    "delete a ConfigMap": deletes(CONFIGMAPS, CONFIG),
    "change a StatefulSet": patches(STATEFUL_SETS, "pool"),
    "change a Deployment": patches(DEPLOYMENTS, "pool"),
    "delete a StatefulSet": deletes(STATEFUL_SETS, "pool"),
    "delete a Pod although a budget is against it": deletes(PODS, "idle"),
    "change a Pod": patches(PODS, "idle"),
    "make a Pod": makes(PODS, spec=pod_spec()),
    # ---- and nothing else at all
    "read a Secret": gets(SECRETS, "foreign"),
    "list the Secrets": reads(SECRETS),
    "see the ReplicaSets": reads(REPLICA_SETS),
    "list the Events": reads(EVENTS),
    "see its own account": gets(ACCOUNTS, NAME),
    "change its own rights": patches(ROLES, NAME),
    "give rights": makes(BINDINGS, **BINDING),
    "see the definition of a Swarm": gets(DEFINITIONS, "swarms.muster.dev"),
    "see the nodes": reads(NODES),
    "see the namespaces": reads(NAMESPACES),
    "see what others may": reads(CLUSTER_ROLES),
}
DENIED_TO_CLUSTER: dict[str, Attempt] = {
    "see the Leases of others": reads(LEASES),
    "read the Lease of somebody else": gets(LEASES, "foreign"),
    "write a Lease elsewhere": updates(LEASES, own, elsewhere=True, spec={}),
}
DENIED_ELSEWHERE: dict[str, Attempt] = {
    "see the Swarms of all namespaces": reads(SWARMS, everywhere=True),
    "see the Pods elsewhere": reads(PODS, elsewhere=True),
    "see the ConfigMaps elsewhere": reads(CONFIGMAPS, elsewhere=True),
    "write the workers' ConfigMap elsewhere": updates(CONFIGMAPS, CONFIG, elsewhere=True, **DATA),
    "evict a worker elsewhere": evicts(elsewhere=True),
    "write an Event elsewhere": tells("Swarm", "swarm", elsewhere=True),
}
DENIED_TO_SHARDS: dict[str, Attempt] = {
    **DENIED_ELSEWHERE,
    "renew the Lease of one more": updates(LEASES, f"{NAME}-{NAME}-10", spec={}),
}
DENIED_TO_LABELS: dict[str, Attempt] = {
    **DENIED_ELSEWHERE,
    "see the Swarms": reads(SWARMS),
    "say how a Swarm stands": updates(SWARMS, "swarm", subresource="status", **STATUS),
    "write another ConfigMap": updates(CONFIGMAPS, "foreign", **DATA),
    "write one ConfigMap more": updates(CONFIGMAPS, f"{CONFIG}-16", **DATA),
    "scale a StatefulSet": updates(STATEFUL_SETS, "pool", subresource="scale", spec={"replicas": 0}),
}
WORKER_DENIED: dict[str, Attempt] = {
    "see the other ConfigMaps": reads(CONFIGMAPS),
    "read another ConfigMap": gets(CONFIGMAPS, "foreign"),
    "write its ConfigMap": updates(CONFIGMAPS, CONFIG, **DATA),
    "make a ConfigMap": makes(CONFIGMAPS),
    "read its ConfigMap elsewhere": gets(CONFIGMAPS, CONFIG, elsewhere=True),
    "read a Secret": gets(SECRETS, "foreign"),
    "see the Pods": reads(PODS),
    "see the Swarms": reads(SWARMS),
}


@pytest.mark.parametrize(
    ("place", "attempt"),
    each(ALLOWED, cluster=ALLOWED_TO_CLUSTER, shards=ALLOWED_TO_SHARDS, labels={}),
    indirect=["place"],
)
def test_what_the_operator_needs_it_may(place: Place, attempt: Attempt) -> None:
    assert may(place, place.operator, attempt) is None


@pytest.mark.parametrize(
    ("place", "attempt"),
    each(DENIED, cluster=DENIED_TO_CLUSTER, shards=DENIED_TO_SHARDS, labels=DENIED_TO_LABELS),
    indirect=["place"],
)
def test_nothing_else_it_may(place: Place, attempt: Attempt) -> None:
    assert_lacks_the_right(place, place.operator, attempt)


@pytest.mark.parametrize("attempt", [gets(CONFIGMAPS, CONFIG), reads(CONFIGMAPS, named=CONFIG)], ids=["read", "follow"])
def test_a_worker_may_read_its_configmap(labels: Place, attempt: Attempt) -> None:
    assert may(labels, labels.worker, attempt) is None


@pytest.mark.parametrize("attempt", WORKER_DENIED.values(), ids=WORKER_DENIED)
def test_a_worker_may_nothing_else(labels: Place, attempt: Attempt) -> None:
    assert_lacks_the_right(labels, labels.worker, attempt)


@pytest.mark.parametrize(
    ("role", "allowed", "denied"),
    [
        ("view", reads(SWARMS), makes(SWARMS, spec={})),
        ("edit", makes(SWARMS, spec={}), updates(SWARMS, "swarm", subresource="status", **STATUS)),
    ],
)
def test_people_with_the_usual_roles_may_ask_for_swarms(
    cluster: Place, role: str, allowed: Attempt, denied: Attempt
) -> None:
    assert_people_may(cluster, role, allowed, denied)

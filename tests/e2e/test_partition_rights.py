# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kustomize/partitions lets each process do, tried on a real API server with its token.

Each attempt is one request. One that must be refused has to be refused by RBAC; and an administrator makes the same
attempt, which has to pass: so that one which fails for another reason proves nothing here. That there is nothing else
beside what is tried, the API server says itself: it lists all rules of an account.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
    STATEFUL_SETS,
    AlreadyExists,
    Api,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support import rights
from ansible_collections.muster.coordination.tests.support.at_cluster import account, administrator, run, until
from ansible_collections.muster.coordination.tests.support.rights import (
    ACCOUNTS,
    BINDING,
    BINDINGS,
    SECRETS,
    Attempt,
    Object,
    assert_lacks_the_right,
    assert_people_may,
    deletes,
    document,
    gets,
    may,
    patches,
    reads,
    space,
    tells,
)

KUSTOMIZE = Path(__file__).resolve().parents[2] / "kustomize" / "partitions"
KINDS = (KEY_SPACES, PARTITIONS, ASSIGNMENTS)
CLAIMS = Resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
REVIEWS = Resource("authorization.k8s.io/v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", namespaced=False)
PROCESSES = ("worker", "router", "reconciler", "assigner")
OWN, OTHER = "default.partition-worker-0", "default.partition-worker-99"  # Leases of workers, and one that is too much
MOVE = {"type": "InterWorkerMove", "moveParams": {"partition": "part", "from": "a", "to": "b"}}
SPECS: dict[Resource, Object] = {
    KEY_SPACES: {"keyLength": 8, "alphabet": "0123456789abcdef"},
    PARTITIONS: {"range": {"start": "", "end": "8"}},
    ASSIGNMENTS: MOVE,
}
STATUS: dict[Resource, Object] = {
    KEY_SPACES: {"message": "tried"},
    PARTITIONS: {"message": "tried"},
    ASSIGNMENTS: {"phase": "Pending", "message": "tried"},
}


@dataclass
class Place(rights.Place):
    """All of it in a namespace, without a Pod; a second namespace; and what there is of others in both."""

    accounts: dict[str, Api]

    def fill(self) -> None:
        """What attempts are made at, and may have been deleted by one."""
        for namespace in (self.namespace, self.elsewhere):
            for kind in KINDS:
                self.renew(kind, NAMES[kind], namespace, spec=SPECS[kind])
            for lease in (OWN, OTHER, "partition-reconciler", "partition-assigner", "foreign"):
                self.renew(LEASES, lease, namespace, spec={"holderIdentity": "somebody"})
            self.renew(SECRETS, "partitions", namespace)
            self.renew(CONFIGMAPS, "foreign", namespace)

    def name_of(self, resource: Resource) -> str:
        return NAMES[resource]


NAMES = {KEY_SPACES: "default", PARTITIONS: "part", ASSIGNMENTS: "asked"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield from make_place("deployment", tmp_path_factory.mktemp("tree"), PROCESSES)


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The reconcilers are beside the workers, and have their account."""
    yield from make_place("sidecar", tmp_path_factory.mktemp("tree"), ("worker", "router", "assigner"))


def make_place(kind: str, directory: Path, processes: Sequence[str]) -> Iterator[Place]:
    admin = administrator()
    namespace, elsewhere = f"e2e-partitions-{kind}-{os.getpid()}", f"e2e-partitions-{kind}-{os.getpid()}-b"
    for name in (namespace, elsewhere):
        with suppress(AlreadyExists):
            admin.create(NAMESPACES, {"metadata": {"name": name}})
    run("kubectl", "apply", "-k", str(KUSTOMIZE / "crds"))
    definitions = [f"crd/{kind.plural}.muster.dev" for kind in KINDS]
    run("kubectl", "wait", "--for=condition=Established", *definitions)
    run("kubectl", "apply", "-k", str(write(directory, namespace, ["components/sidecar"] * (kind == "sidecar"))))
    run("kubectl", "--namespace", namespace, "create", "serviceaccount", "nobody")
    accounts = {name: account(namespace, f"partition-{name}") for name in processes}
    place = Place(namespace, elsewhere, admin, {**accounts, "nobody": account(namespace, "nobody")})
    place.fill()
    for name in processes:
        until(
            f"the rights of the {name} are known",
            lambda name=name: may(place, accounts[name], reads(PARTITIONS)) is None,
        )
    try:
        yield place
    finally:
        admin.replace(ASSIGNMENTS, without_finalizers(admin.get(ASSIGNMENTS, NAMES[ASSIGNMENTS], namespace)))
        run("kubectl", "delete", "namespace", namespace, elsewhere, "--timeout=120s")
        for api in (admin, *place.accounts.values()):
            api.close()


def without_finalizers(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "finalizers": []}}


def write(directory: Path, namespace: str, components: Sequence[str]) -> Path:
    """The kustomization in this namespace, with no Pod."""
    made = directory.resolve()
    none = json.dumps([{"op": "replace", "path": "/spec/replicas", "value": 0}])
    wanted = {
        "namespace": namespace,
        "resources": [os.path.relpath(KUSTOMIZE / "base", made)],
        "components": [os.path.relpath(KUSTOMIZE / component, made) for component in components],
        "patches": [{"target": {"kind": "Deployment|StatefulSet"}, "patch": none}],
    }
    (made / "kustomization.yaml").write_text(json.dumps(wanted))
    return made


# ------------------------------------------------------------------------------------------------ attempts


def follows(resource: Resource) -> Attempt:
    """List and watch: the first thing that comes after the list."""

    def attempt(place: Place, api: Api) -> object:
        version = api.list(resource, place.namespace).resource_version
        place.admin.patch(resource, touched(place.admin.get(resource, NAMES[resource], place.namespace), version))
        return next(api.watch(resource, place.namespace, resource_version=version))

    return attempt


def touched(obj: Object, value: str) -> Object:
    kept = {field: obj["metadata"][field] for field in ("name", "namespace", "uid")}
    return {"metadata": {**kept, "annotations": {"touched": value}}}


def makes(resource: Resource, name: str = "new", *, elsewhere: bool = False, **content: Any) -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        namespace = space(place, resource, elsewhere)
        api.create(resource, document(resource, name, namespace, content or {"spec": SPECS.get(resource, {})}))
        return place.admin.delete(resource, name, namespace)

    return attempt


def updates(
    resource: Resource, name: str = "", *, status: bool = False, elsewhere: bool = False, **content: Any
) -> Attempt:
    """Write the object with this content, or with an annotation."""

    def attempt(place: Place, api: Api) -> object:
        found = place.admin.get(resource, name or NAMES[resource], space(place, resource, elsewhere))
        if status:
            return api.replace(resource, {**found, "status": STATUS[resource]}, "status")
        return api.replace(resource, {**found, **(content or {"metadata": {**found["metadata"], "annotations": {}}})})

    return attempt


HOLDER = {"spec": {"holderIdentity": "me"}}
READ: dict[str, Attempt] = {
    **{f"read a {kind.kind}": gets(kind) for kind in KINDS},
    "list the Partitions": reads(PARTITIONS),
    "read the Lease of a worker": gets(LEASES, OWN),
}
ROUTE: dict[str, Attempt] = {
    "follow the Partitions": follows(PARTITIONS),
    "follow the Assignments": follows(ASSIGNMENTS),
    "find the workers": reads(LEASES),
}
FOLLOW: dict[str, Attempt] = {**ROUTE, "follow the key spaces": follows(KEY_SPACES)}
ALLOWED: dict[str, dict[str, Attempt]] = {
    "worker": {
        **READ,
        "make its Lease": makes(LEASES),
        "renew its Lease": updates(LEASES, OWN, **HOLDER),
    },
    "router": ROUTE,
    "reconciler": {
        **READ,
        **FOLLOW,
        "make a Partition": makes(PARTITIONS),
        "fence a Partition": updates(PARTITIONS),
        "remove a Partition": deletes(PARTITIONS),
        "say how a Partition stands": updates(PARTITIONS, status=True),
        "hold an Assignment by a finalizer": updates(ASSIGNMENTS),
        "delete an Assignment that is over": deletes(ASSIGNMENTS),
        "commit an Assignment": updates(ASSIGNMENTS, status=True),
        "lead": updates(LEASES, "partition-reconciler", **HOLDER),
        "make a Lease": makes(LEASES),
        "see the Pods": reads(PODS),
        "write an Event": tells("Assignment", "asked"),
    },
    "assigner": {
        **READ,
        **FOLLOW,
        "say how a key space stands": updates(KEY_SPACES, status=True),
        "write the followers of a Partition": updates(PARTITIONS),
        "ask for an operation": makes(ASSIGNMENTS),
        "lead": updates(LEASES, "partition-assigner", **HOLDER),
        "make a Lease": makes(LEASES),
        "see the Pods": reads(PODS),
        "write an Event": tells("Assignment", "asked"),
    },
}
NOBODY: dict[str, Attempt] = {
    # ---- what is asked for by people
    "make a key space": makes(KEY_SPACES),
    "change a key space": updates(KEY_SPACES),
    "delete a key space": deletes(KEY_SPACES),
    "patch a Partition": patches(PARTITIONS),
    "patch an Assignment": patches(ASSIGNMENTS),
    "write a Partition elsewhere": updates(PARTITIONS, elsewhere=True),
    "make a Partition elsewhere": makes(PARTITIONS, elsewhere=True),
    **{f"list each {kind.kind} elsewhere": reads(kind, elsewhere=True) for kind in KINDS},
    # ---- Leases
    "write the Lease of somebody else": updates(LEASES, "foreign", **HOLDER),
    "write the Lease of one worker more": updates(LEASES, OTHER, **HOLDER),
    "write a Lease elsewhere": updates(LEASES, OWN, elsewhere=True, **HOLDER),
    "make a Lease elsewhere": makes(LEASES, elsewhere=True),
    "delete a Lease": deletes(LEASES, OWN),
    # ---- and nothing else at all
    "read the token of the workers": gets(SECRETS, "partitions"),
    "list the Secrets": reads(SECRETS),
    "see the ConfigMaps": reads(CONFIGMAPS),
    "see the volumes": reads(CLAIMS),
    "see the StatefulSets": reads(STATEFUL_SETS),
    "see the Pods elsewhere": reads(PODS, elsewhere=True),
    "list the Events": reads(EVENTS),
    "see its account": reads(ACCOUNTS),
    "give rights": makes(BINDINGS, **BINDING),
}
ONLY_RECONCILER: dict[str, Attempt] = {
    "make a Partition": makes(PARTITIONS),
    "remove a Partition": deletes(PARTITIONS),
    "commit an Assignment": updates(ASSIGNMENTS, status=True),
    "say how a Partition stands": updates(PARTITIONS, status=True),
    "change an Assignment": updates(ASSIGNMENTS),
    "delete an Assignment": deletes(ASSIGNMENTS),
    "lead the reconcilers": updates(LEASES, "partition-reconciler", **HOLDER),
}
ONLY_ASSIGNER: dict[str, Attempt] = {
    "ask for an operation": makes(ASSIGNMENTS),
    "say how a key space stands": updates(KEY_SPACES, status=True),
    "lead the assigners": updates(LEASES, "partition-assigner", **HOLDER),
}
ONLY_WORKER: dict[str, Attempt] = {"renew the Lease of a worker": updates(LEASES, OWN, **HOLDER)}
ONLY_FOLLOWERS: dict[str, Attempt] = {  # a worker looks at what concerns it, and at nothing else
    "list the Assignments": reads(ASSIGNMENTS),
    "list the key spaces": reads(KEY_SPACES),
    "list the Leases": reads(LEASES),
    "follow the Partitions": follows(PARTITIONS),
}
NO_CONTROLLER: dict[str, Attempt] = {
    "see the Pods": reads(PODS),
    "write an Event": tells("Assignment", "asked"),
    "write a Partition": updates(PARTITIONS),
}
DENIED: dict[str, dict[str, Attempt]] = {
    "worker": {**NOBODY, **ONLY_RECONCILER, **ONLY_ASSIGNER, **NO_CONTROLLER, **ONLY_FOLLOWERS},
    "router": {
        **NOBODY,
        **ONLY_RECONCILER,
        **ONLY_ASSIGNER,
        **ONLY_WORKER,
        **NO_CONTROLLER,
        "see the key spaces": reads(KEY_SPACES),
        "make a Lease": makes(LEASES),
    },
    "reconciler": {**NOBODY, **ONLY_ASSIGNER, **ONLY_WORKER},
    "assigner": {**NOBODY, **ONLY_RECONCILER, **ONLY_WORKER},
}


def of_each(attempts: dict[str, dict[str, Attempt]]) -> list[Any]:
    return [
        pytest.param(process, attempt, id=f"{process}: {what}")
        for process, those in attempts.items()
        for what, attempt in those.items()
    ]


@pytest.mark.parametrize(("process", "attempt"), of_each(ALLOWED))
def test_what_a_process_needs_it_may(place: Place, process: str, attempt: Attempt) -> None:
    assert may(place, place.accounts[process], attempt) is None


@pytest.mark.parametrize(("process", "attempt"), of_each(DENIED))
def test_nothing_else_it_may(place: Place, process: str, attempt: Attempt) -> None:
    assert_lacks_the_right(place, place.accounts[process], attempt)


# ------------------------------------------------------------------------------------------------ all rules

Rule = tuple[str, str, str]  # verb, resource, name ("": any)
FOLLOWED = ("get", "list", "watch")


def rules(verbs: tuple[str, ...], *resources: str, names: tuple[str, ...] = ("",)) -> set[Rule]:
    return {(verb, resource, name) for verb in verbs for resource in resources for name in names}


OBJECTS, LEASE = ("keyspaces", "partitions", "assignments"), "leases"
WORKERS = tuple(f"default.partition-worker-{number}" for number in range(32))
LEADS = rules(FOLLOWED, *OBJECTS, LEASE, "pods") | rules(("create",), LEASE, "events")
RULES: dict[str, set[Rule]] = {
    "worker": rules(("get",), *OBJECTS, LEASE)
    | rules(("list",), "partitions")
    | rules(("create",), LEASE)
    | rules(("update",), LEASE, names=WORKERS),
    "router": rules(("list", "watch"), "partitions", "assignments", LEASE),
    "reconciler": LEADS
    | rules(("create", "update", "delete"), "partitions")
    | rules(("update", "delete"), "assignments")
    | rules(("update",), "assignments/status", "partitions/status")
    | rules(("update",), LEASE, names=("partition-reconciler",)),
    "assigner": LEADS
    | rules(("create",), "assignments")
    | rules(("update",), "partitions", "keyspaces/status")
    | rules(("update",), LEASE, names=("partition-assigner",)),
}


@pytest.mark.parametrize("process", PROCESSES)
def test_these_are_all_its_rights(place: Place, process: str) -> None:
    """As the API server lists them, beside those that every account has."""
    assert listed(place, process) - listed(place, "nobody") == RULES[process]


def test_beside_a_worker_a_reconciler_has_no_more(sidecar: Place) -> None:
    """But what coordinates so many of them, by name."""
    names = tuple(f"partition-reconciler-partition-worker-{number}" for number in range(32))
    whole = RULES["worker"] | RULES["reconciler"] - rules(("update",), LEASE, names=("partition-reconciler",))
    whole |= rules(("update",), LEASE, names=names) | rules(("create",), "configmaps")
    whole |= rules(("update", *FOLLOWED), "configmaps", names=("partition-reconciler-shards",))
    assert listed(sidecar, "worker") - listed(sidecar, "nobody") == whole
    assert listed(sidecar, "assigner") - listed(sidecar, "nobody") == RULES["assigner"]


def listed(place: Place, process: str) -> set[Rule]:
    review = place.accounts[process].create(REVIEWS, {"spec": {"namespace": place.namespace}})
    return {
        (verb, resource, name)
        for rule in review["status"]["resourceRules"]
        for verb in rule["verbs"]
        for resource in rule.get("resources", ())
        for name in rule.get("resourceNames") or ("",)
    }


# ------------------------------------------------------------------------------------------------ people


@pytest.mark.parametrize(
    ("role", "allowed", "denied"),
    [
        ("view", reads(PARTITIONS), makes(KEY_SPACES)),
        ("edit", makes(ASSIGNMENTS), updates(PARTITIONS)),
    ],
)
def test_people_with_the_usual_roles_may_ask(place: Place, role: str, allowed: Attempt, denied: Attempt) -> None:
    assert_people_may(place, role, allowed, denied)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Role and admission policy of a semaphore of tickets refuse, tried on a real API server with tokens of real Pods.

Each attempt is one request, of one of four: a Pod of the chart's ServiceAccount (`sidecar`), a Pod whose ServiceAccount
may do anything with Leases (`strong`, so that only the policy can refuse it), a Pod of one that is exempt, an
administrator. An attempt that must be refused has to be refused by the cause that is named beside it; and where the
policy is not, each attempt that it refuses has to pass: so that one which fails for another reason proves nothing here.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    NAMESPACES,
    PODS,
    Api,
    ApiError,
    Forbidden,
    Invalid,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant

Object = dict[str, Any]
CHART = Path(__file__).resolve().parents[2] / "charts" / "distributor"
POLICIES = Resource(
    "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
SECRETS = Resource("v1", "secrets", "Secret")
ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
SEMAPHORE, SPARE = "render", "spare"
VALUES = {
    "fullnameOverride": "render",
    "workload": {"enabled": False},
    "semaphore": {"engine": "tickets", "name": SEMAPHORE, "capacity": {"gpu": 1}},
    "semaphores": [{"name": SPARE, "create": False}],
    "sidecar": {"annotatePod": True},
    "admissionPolicy": {"exempt": ["exempt"]},
    "tests": {"enabled": False},
}
# A second release, of another semaphore, for Pods whose ServiceAccount is their own.
OTHER = {
    "fullnameOverride": "other",
    "semaphore": {"engine": "tickets", "name": "other", "create": False},
    "semaphores": [],
    "sidecar": {},
    "serviceAccount": {"create": False, "name": "strong"},
}
SECONDS = 60.0  # for what the cluster does by itself


# ------------------------------------------------------------------------------------------------ the place


@dataclass
class Place:
    """A namespace with the chart in it, Pods a and b of the sidecars' account, and one Pod of each other account."""

    namespace: str
    admin: Api
    kubeconfig: Object
    pods: dict[str, Object]
    apis: dict[str, Api]

    def claimant(self, name: str, lease: int | None = None) -> Claimant:
        return Claimant(name, self.pods[name]["metadata"]["uid"], {"gpu": 1}, lease_seconds=lease)

    def ticket(self, claimant: Claimant, semaphore: str = SEMAPHORE) -> Object:
        """The Lease that the engine would create."""
        book = tickets.Book(tickets.Terms({"gpu": 1}, {"gpu": 1}, {}))
        return tickets.draw(book, semaphore, self.namespace, claimant)

    def draw(self, claimant: Claimant) -> Object:
        """Draw it as an administrator."""
        return self.admin.create(LEASES, self.ticket(claimant))

    def semaphore(self) -> Object:
        return self.admin.get(LEASES, SEMAPHORE, self.namespace)

    def tidy(self) -> None:
        """As it was at first: the semaphore, no ticket, one Lease of somebody else."""
        for lease in self.admin.list(LEASES, self.namespace).items:
            with suppress(NotFound):
                if lease["metadata"].pop("finalizers", None):
                    self.admin.replace(LEASES, lease)
                self.admin.delete(LEASES, lease["metadata"]["name"], self.namespace)
        self.admin.create(LEASES, tickets.with_capacity(None, SEMAPHORE, self.namespace, {"gpu": 1}))
        self.admin.create(LEASES, plain_lease("leader", self.namespace))


def plain_lease(name: str, namespace: str) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"holderIdentity": "somebody"}}


def pod(name: str, account: str, namespace: str) -> Object:
    """A Pod which nothing schedules: its token is as real as that of one that runs."""
    container = {"name": "idle", "image": "muster"}
    spec = {"serviceAccountName": account, "schedulerName": "nobody", "containers": [container]}
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


def make_place(namespace: str, *, policy: bool) -> Place:
    path = os.environ.get("KUBECONFIG", "")
    assert path, "KUBECONFIG must name the cluster: run `scripts/on.sh node pytest tests/e2e`"
    admin = Api(Credentials.load({"kubeconfig": path}))
    values = {**VALUES, "admissionPolicy": {**VALUES["admissionPolicy"], "enabled": policy}}  # type: ignore[dict-item]
    admin.create(NAMESPACES, {"metadata": {"name": namespace}})
    helm("install", "render", str(CHART), "--namespace", namespace, "--values", "-", given=json.dumps(values))
    for account in ("strong", "exempt"):
        admin.create(ACCOUNTS, {"metadata": {"name": account, "namespace": namespace}})
    other = {**values, **OTHER}
    helm("install", "other", str(CHART), "--namespace", namespace, "--values", "-", given=json.dumps(other))
    everything = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}]
    admin.create(ROLES, {"metadata": {"name": "leases", "namespace": namespace}, "rules": everything})
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": namespace} for name in ("strong", "exempt")]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leases"}
    admin.create(
        BINDINGS, {"metadata": {"name": "leases", "namespace": namespace}, "roleRef": role, "subjects": subjects}
    )
    for obj in ({"data": {"key": "value"}}, {}):
        metadata = {"name": "foreign", "namespace": namespace}
        admin.create(CONFIGMAPS if obj else SECRETS, {"metadata": metadata, **obj})
    accounts = {"a": "render", "b": "render", "strong": "strong", "exempt": "exempt"}
    pods = {name: admin.create(PODS, pod(name, account, namespace)) for name, account in accounts.items()}
    kubeconfig = yaml.safe_load(Path(path).read_text())
    place = Place(namespace, admin, kubeconfig, pods, {"administrator": admin})
    for name, account in accounts.items():
        place.apis[name] = as_token(place, token(namespace, account, pods[name]))
    place.apis["unbound"] = as_token(place, token(namespace, "render", None))
    return place


def as_token(place: Place, bearer: str) -> Api:
    document = copy.deepcopy(place.kubeconfig)
    for user in document["users"]:
        user["user"] = {"token": bearer}
    return Api(Credentials.load({"kubeconfig": document}))


def token(namespace: str, account: str, bound_to: Object | None) -> str:
    arguments = ["--namespace", namespace, "create", "token", account]
    if bound_to:
        metadata = bound_to["metadata"]
        arguments += ["--bound-object-kind=Pod", f"--bound-object-name={metadata['name']}"]
    return run("kubectl", *arguments).strip()


def helm(*arguments: str, given: str | None = None) -> str:
    return run("helm", *arguments, given=given)


def run(*command: str, given: str | None = None) -> str:
    assert shutil.which(command[0]), f"{command[0]} must be on PATH: run `scripts/on.sh node pytest tests/e2e`"
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def until(what: str, true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, f"waited {SECONDS:.0f} s until {what}"
        time.sleep(0.2)


def remove(place: Place) -> None:
    """See that the namespace, tickets and all, can be removed while the policy stands; then remove what is left."""
    place.tidy()
    for name in ("a", "b"):
        place.draw(place.claimant(name))
    place.admin.delete(NAMESPACES, place.namespace)
    until(f"namespace {place.namespace} is gone", lambda: not there(place.admin, NAMESPACES, place.namespace, None))
    kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings"
    run("kubectl", "delete", kinds, f"--selector=muster.dev/namespace={place.namespace}")
    for api in place.apis.values():
        api.close()


def there(api: Api, resource: Resource, name: str, namespace: str | None) -> bool:
    try:
        api.get(resource, name, namespace)
    except NotFound:
        return False
    return True


@pytest.fixture(scope="module")
def guarded() -> Iterator[Place]:
    """With the policy, in force."""
    place = make_place(f"e2e-guarded-{os.getpid()}", policy=True)

    def is_refused() -> bool:
        try:
            place.apis["unbound"].create(LEASES, plain_lease("canary", place.namespace))
        except Invalid:
            return True
        place.admin.delete(LEASES, "canary", place.namespace)
        return False

    try:
        until("the policy is in force", is_refused)
        yield place
    finally:
        remove(place)


@pytest.fixture(scope="module")
def open_place() -> Iterator[Place]:
    """Without it: the planted hole."""
    place = make_place(f"e2e-open-{os.getpid()}", policy=False)
    try:
        yield place
    finally:
        remove(place)


# ------------------------------------------------------------------------------------------------ attempts

Attempt = Callable[[Place, Api], object]


def draws(**changes: Any) -> Attempt:
    """A Pod draws the ticket that the engine would, but for these fields (a path with dots)."""

    def attempt(place: Place, api: Api) -> object:
        name = next(name for name, known in place.apis.items() if known is api)
        lease = place.ticket(place.claimant(name if name in place.pods else "a"))
        for field, value in changes.items():
            put(lease, field.split("__"), value(place) if callable(value) else value)
        return api.create(LEASES, lease)

    return attempt


def updates(of: str, **changes: Any) -> Attempt:
    """Somebody changes these fields of a Pod's ticket, the lease `crashed`, the semaphore or the plain Lease."""

    def attempt(place: Place, api: Api) -> object:
        if of in place.pods:
            lease = place.draw(place.claimant(of))
        elif of == "crashed":
            lease = place.draw(Claimant("crashed", None, {"gpu": 1}, lease_seconds=3))
        else:
            lease = place.admin.get(LEASES, of, place.namespace)
        for field, value in changes.items():
            put(lease, field.split("__"), value(place) if callable(value) else value)
        return api.replace(LEASES, lease)

    return attempt


def deletes(of: str) -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        name = of
        if of in place.pods:
            name = place.draw(place.claimant(of))["metadata"]["name"]
        elif of == "crashed":
            name = place.draw(Claimant("crashed", None, {"gpu": 1}, lease_seconds=3))["metadata"]["name"]
        return api.delete(LEASES, name, place.namespace)

    return attempt


def renews(of: str) -> Attempt:
    """Twice: the first time the place is written down, the second time it is kept."""

    def attempt(place: Place, api: Api) -> object:
        claimant = place.claimant(of, 30) if of in place.pods else Claimant(of, None, {"gpu": 1}, lease_seconds=30)
        lease = place.draw(claimant)
        for _ in range(2):
            lease = api.replace(LEASES, tickets.renewed(lease, claimant, now="2026-01-01T00:00:00.000000Z"))
        return lease

    return attempt


def put(lease: Object, path: list[str], value: Any) -> None:
    """Set a field; None removes it. A path's `annotation` or `label` stands for one of muster.dev."""
    names = {"annotation": "annotations", "label": "labels"}
    if len(path) > 1 and path[-2] in names:
        path = [*path[:-2], names[path[-2]], f"muster.dev/{path[-1]}"]
    inner = lease
    for step in path[:-1]:
        inner = inner.setdefault(step, {})
    if value is None:
        inner.pop(path[-1], None)
    else:
        inner[path[-1]] = value


def owners(*names: str) -> Callable[[Place], list[Object]]:
    def found(place: Place) -> list[Object]:
        return [
            {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": place.pods[name]["metadata"]["uid"]}
            for name in names
        ]

    return found


def name_of(pod_name: str, semaphore: str = SEMAPHORE) -> Callable[[Place], str]:
    return lambda place: f"{semaphore}.{place.pods[pod_name]['metadata']['uid']}"


def annotates(of: str, **changes: Any) -> Attempt:
    """A sidecar patches a Pod: the annotation that it may set, and these fields beside it."""

    def attempt(place: Place, api: Api) -> object:
        patch: Object = {"metadata": {"annotations": {"muster.dev/claim": "{}"}}}
        for field, value in changes.items():
            put(patch, field.split("__"), value)
        return patched(place, api, of, patch)

    return attempt


def patched(place: Place, api: Api, name: str, patch: Object) -> str:
    """By kubectl, with the same token."""
    document = copy.deepcopy(place.kubeconfig)
    bearer = dict(api.credentials.headers())["Authorization"].removeprefix("Bearer ")
    for user in document["users"]:
        user["user"] = {"token": bearer}
    path = Path(tempfile.mkstemp(suffix=".kubeconfig")[1])
    try:
        path.write_text(json.dumps(document))
        login = ("--kubeconfig", str(path), "--namespace", place.namespace)
        command = ("kubectl", *login, "patch", "pod", name, "--type=merge", f"--patch={json.dumps(patch)}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    finally:
        path.unlink()
    if done.returncode != 0:
        raise Refused(done.stderr)
    return done.stdout


class Refused(Exception):
    """What kubectl said."""


def asks(verb: str, resource: Resource, name: str = "", **obj: Any) -> Attempt:
    """One plain request."""

    def attempt(place: Place, api: Api) -> object:
        namespace = place.namespace if resource.namespaced else None
        if verb == "list":
            return api.list(resource, namespace)
        if verb == "get":
            return api.get(resource, name, namespace)
        if verb == "delete":
            return api.delete(resource, name, namespace)
        if verb == "update":
            return api.replace(resource, {**place.admin.get(resource, name, namespace), **obj})
        return api.create(resource, {"metadata": {"name": name, "namespace": place.namespace}, **obj})

    return attempt


def puts_in_force(place: Place, api: Api) -> object:
    own = place.semaphore()
    own["metadata"]["annotations"]["muster.dev/capacity"] = '{"gpu":2}'
    return api.replace(LEASES, tickets.put_in_force(place.admin.replace(LEASES, own), []))


def puts_out(place: Place, api: Api) -> object:
    lease = place.draw(place.claimant("b"))
    dead = {place.pods["b"]["metadata"]["uid"]}
    return api.replace(LEASES, tickets.put_out(place.semaphore(), [place.semaphore(), lease], dead))


def sets_capacity(place: Place, api: Api) -> object:
    return api.replace(LEASES, tickets.with_capacity(place.semaphore(), SEMAPHORE, place.namespace, {"gpu": 7}))


def draws_with_a_lease(place: Place, api: Api) -> object:
    return api.create(LEASES, place.ticket(Claimant("nightly", None, {"gpu": 1}, lease_seconds=60)))


def orphaned(place: Place, api: Api) -> object:
    """A Pod goes with --cascade=orphan; then anybody's sidecar takes its void ticket out."""
    made = place.admin.create(PODS, pod("leaver", "render", place.namespace))["metadata"]
    lease = place.draw(Claimant("leaver", made["uid"], {"gpu": 1}))["metadata"]["name"]
    run("kubectl", "--namespace", place.namespace, "delete", "pod", "leaver", "--cascade=orphan", "--wait=false")
    until("the orphaned Pod is gone", lambda: not there(place.admin, PODS, "leaver", place.namespace))
    until("its ticket is orphaned", lambda: "ownerReferences" not in _metadata(place, lease))
    return api.delete(LEASES, lease, place.namespace)


def collected(place: Place, api: Api) -> object:
    """A Pod goes; the garbage collector deletes its ticket."""
    made = place.admin.create(PODS, pod("leaver", "render", place.namespace))["metadata"]
    lease = place.draw(Claimant("leaver", made["uid"], {"gpu": 1}))["metadata"]["name"]
    api.delete(PODS, "leaver", place.namespace)
    return until("its ticket is collected", lambda: not there(place.admin, LEASES, lease, place.namespace))


def deleted_in_the_foreground(place: Place, api: Api) -> object:
    """The garbage collector takes its finalizer off the ticket, which is an update."""
    lease = place.draw(place.claimant("b"))["metadata"]["name"]
    run("kubectl", "--namespace", place.namespace, "delete", "lease", lease, "--cascade=foreground", "--wait=false")
    return until("the ticket is gone", lambda: not there(place.admin, LEASES, lease, place.namespace))


def _metadata(place: Place, lease: str) -> Object:
    found: Object = place.admin.get(LEASES, lease, place.namespace)["metadata"]
    return found


FALSE_PLACE = '{"revision":1,"uid":"00000000-0000-0000-0000-000000000000"}'


def earlier(place: Place) -> str:
    """The place of somebody who came before, for the ticket of Pod b."""
    lease = place.admin.get(LEASES, name_of("b")(place), place.namespace)
    return json.dumps({"revision": 1, "uid": lease["metadata"]["uid"]}, separators=(",", ":"))


# Who, what, and the words in the refusal that only this cause has. Where the policy is not, each of these passes.
BY_POLICY: dict[str, tuple[str, Attempt, str]] = {
    # ---- a sidecar claims for itself
    "draw for another Pod": (
        "a",
        draws(metadata__ownerReferences=owners("b")),
        "metadata.ownerReferences: a Pod may draw",
    ),
    "draw for itself and another": ("a", draws(metadata__ownerReferences=owners("a", "b")), "the one owner has to be"),
    "draw for nobody, with a lease": (
        "a",
        draws(metadata__ownerReferences=None, spec__leaseDurationSeconds=60),
        "not []",
    ),
    "draw a second ticket": ("a", draws(metadata__name=f"{SEMAPHORE}.second"), "metadata.name: the ticket of Pod a"),
    "draw under the name of another's ticket": ("a", draws(metadata__name=name_of("b")), "metadata.name: the ticket"),
    "draw as another holder": ("a", draws(spec__holderIdentity="b"), "spec.holderIdentity: has to be"),
    "draw with a place": (
        "a",
        draws(metadata__annotation__place=FALSE_PLACE),
        "metadata.annotations[muster.dev/place]",
    ),
    "draw with a token of no Pod": ("unbound", draws(), "userInfo.extra: this token"),
    "make a Lease of another kind": (
        "a",
        draws(metadata__name="election", metadata__label__semaphore=None),
        "metadata.labels: Lease election",
    ),
    "make a ticket of a semaphore that is not its own": (
        "a",
        draws(metadata__label__semaphore="elsewhere"),
        "is none of the semaphores",
    ),
    "delete a Lease of another kind": ("a", deletes("leader"), "metadata.labels: Lease leader"),
    "strong: delete a Lease of another kind": ("strong", deletes("leader"), "of no semaphore"),
    "delete another's ticket": ("a", deletes("b"), "Pod a may not delete it"),
    # ---- and leaves the semaphore alone
    "delete the semaphore": ("a", deletes(SEMAPHORE), "is the semaphore itself"),
    "make a semaphore": (
        "a",
        draws(metadata__name=SPARE, metadata__label__semaphore=SPARE),
        "is the semaphore itself",
    ),
    "raise the capacity": (
        "a",
        updates(SEMAPHORE, metadata__annotation__capacity='{"gpu":9}'),
        "not muster.dev/capacity",
    ),
    "raise it together with what it may change": (
        "a",
        updates(SEMAPHORE, metadata__annotation__capacity='{"gpu":9}', metadata__annotation__settled="{}"),
        "not muster.dev/capacity",
    ),
    "remove the capacity": ("a", updates(SEMAPHORE, metadata__annotation__capacity=None), "not muster.dev/capacity"),
    "own the semaphore": ("a", updates(SEMAPHORE, metadata__ownerReferences=owners("a")), "have to stay as they are"),
    "label the semaphore": ("a", updates(SEMAPHORE, metadata__labels__more="x"), "have to stay as they are"),
    "unlabel the semaphore": ("a", updates(SEMAPHORE, metadata__label__semaphore=None), "have to stay as they are"),
    "hold the semaphore by a finalizer": (
        "a",
        updates(SEMAPHORE, metadata__finalizers=["muster.dev/x"]),
        "have to stay as they are",
    ),
    "write into the semaphore's spec": ("a", updates(SEMAPHORE, spec__holderIdentity="a"), "have to stay as they are"),
    "annotate another Pod": ("a", annotates("b"), "may annotate the Pod that asks"),
    "change the image of its Pod": (
        "a",
        annotates("a", spec={"containers": [{"name": "idle", "image": "other"}]}),
        "and nothing else of it",
    ),
    "label its Pod": ("a", annotates("a", metadata__labels={"app": "other"}), "and nothing else of it"),
    "annotate its Pod otherwise": (
        "a",
        annotates("a", metadata__annotations={"muster.dev/claim": "{}", "other": "x"}),
        "and nothing else of it",
    ),
    # ---- a Pod that has every right on Leases is still no other Pod
    "strong: draw for another": ("strong", draws(metadata__ownerReferences=owners("b")), "the one owner has to be"),
    "strong: delete another's ticket": ("strong", deletes("b"), "Pod strong may not delete it"),
    "strong: renew another's ticket": ("strong", renews("b"), "Pod strong may not change it"),
    "strong: renew the lease of somebody who is no Pod": ("strong", renews("nightly"), "Pod strong may not change it"),
    "strong: raise the capacity": (
        "strong",
        updates(SEMAPHORE, metadata__annotation__capacity='{"gpu":9}'),
        "not muster.dev/capacity",
    ),
    "strong: delete the semaphore": ("strong", deletes(SEMAPHORE), "is the semaphore itself"),
    "strong: make its own ticket another's": (
        "strong",
        updates("strong", metadata__ownerReferences=owners("a")),
        "the owner of ticket",
    ),
    "strong: want more": (
        "strong",
        updates("strong", metadata__annotation__want='{"gpu":2}'),
        "wants can not be changed",
    ),
    # ---- and nobody at all changes what others rely on
    "change what another wants": (
        "administrator",
        updates("b", metadata__annotation__want='{"gpu":2}'),
        "metadata.annotations[muster.dev/want]",
    ),
    "let it take any": ("administrator", updates("b", metadata__annotation__any="true"), "[muster.dev/any]"),
    "change the owner": ("administrator", updates("b", metadata__ownerReferences=owners("a")), "the owner of ticket"),
    "change the holder": ("administrator", updates("b", spec__holderIdentity="a"), "the holder of ticket"),
    "take it out of the queue": (
        "administrator",
        updates("b", metadata__label__semaphore=None),
        "metadata.labels[muster.dev/semaphore]",
    ),
    "move it to another semaphore": (
        "administrator",
        updates("b", metadata__label__semaphore=SPARE),
        "metadata.labels[muster.dev/semaphore]",
    ),
    "make an old Lease a ticket": (
        "administrator",
        updates("leader", metadata__label__semaphore=SEMAPHORE, metadata__annotation__want='{"gpu":1}'),
        "metadata.labels[muster.dev/semaphore]",
    ),
    "give it an earlier place": (
        "administrator",
        updates("b", metadata__annotation__place=earlier),
        "metadata.annotations[muster.dev/place]",
    ),
    "update it and lose its place": ("administrator", updates("b", metadata__labels__more="x"), "would lose its place"),
    "a lease without an end": (
        "administrator",
        draws(metadata__ownerReferences=None),
        "needs a Pod that owns it, or a lease",
    ),
    "a lease of a second": ("administrator", draws(spec__leaseDurationSeconds=1), "a lease of 3 to 604800 seconds"),
    "a lease that loses its end": (
        "administrator",
        updates("crashed", spec__leaseDurationSeconds=None),
        "needs a Pod that owns it, or a lease",
    ),
}

# What a sidecar may not by its Role, policy or not.
BY_ROLE: dict[str, Attempt] = {
    "list Secrets": asks("list", SECRETS),
    "get a Secret": asks("get", SECRETS, "foreign"),
    "get a ConfigMap": asks("get", CONFIGMAPS, "foreign"),
    "list ConfigMaps": asks("list", CONFIGMAPS),
    "change a ConfigMap": asks("update", CONFIGMAPS, "foreign", data={}),
    "delete a Pod": asks("delete", PODS, "b"),
    "create a Pod": asks("create", PODS, "new", spec={"containers": [{"name": "idle", "image": "muster"}]}),
    "change its own ticket": updates("a", metadata__annotation__want='{"gpu":2}'),
    "change another's ticket": updates("b", metadata__annotation__want='{"gpu":2}'),
    "change a Lease of another kind": updates("leader", spec__holderIdentity="a"),
    "give itself rights": asks("create", ROLES, "more", rules=[]),
    "change its Role": asks("update", ROLES, "render", rules=[]),
    "list the namespaces": asks("list", NAMESPACES),
    "remove the policy": asks("delete", POLICIES, "render.tickets.default"),
}

ALLOWED: dict[str, tuple[str, Attempt]] = {
    "draw its ticket": ("a", draws()),
    "draw one of the other semaphore": (
        "a",
        draws(metadata__name=name_of("a", SPARE), metadata__label__semaphore=SPARE),
    ),
    "tear it up": ("a", deletes("a")),
    "take out a lease that ran out": ("a", deletes("crashed")),
    "put a capacity in force": ("a", puts_in_force),
    "mark the ticket of a Pod that has ended": ("a", puts_out),
    "annotate its Pod": ("a", annotates("a")),
    "read all Leases": ("a", asks("list", LEASES)),
    "read the Pods": ("a", asks("list", PODS)),
    "strong: renew its own ticket": ("strong", renews("strong")),
    "strong: draw one of the other release": (
        "strong",
        draws(metadata__name=name_of("strong", "other"), metadata__label__semaphore="other"),
    ),
    "strong: make a Lease of another kind": ("strong", draws(metadata__name="mine", metadata__label__semaphore=None)),
    "strong: write a Lease of another kind": ("strong", updates("leader", spec__holderIdentity="strong")),
    "exempt: set the capacity": ("exempt", sets_capacity),
    "exempt: claim for a job that is no Pod": ("exempt", draws_with_a_lease),
    "administrator: set the capacity": ("administrator", sets_capacity),
    "administrator: claim for a Pod": ("administrator", draws()),
    "administrator: claim for a job": ("administrator", draws_with_a_lease),
    "administrator: renew a lease": ("administrator", renews("nightly")),
    "administrator: delete a ticket": ("administrator", deletes("b")),
    "administrator: delete the semaphore": ("administrator", deletes(SEMAPHORE)),
    "garbage collector: the ticket of a Pod that is gone": ("administrator", collected),
    "garbage collector: orphans": ("a", orphaned),
    "garbage collector: foreground deletion": ("administrator", deleted_in_the_foreground),
}


def try_it(place: Place, who: str, attempt: Attempt) -> Exception | None:
    """The refusal, if it is one."""
    place.tidy()
    try:
        attempt(place, place.apis[who])
    except (ApiError, Refused) as refusal:
        return refusal
    return None


@pytest.mark.parametrize("what", BY_POLICY)
def test_the_policy_refuses(guarded: Place, what: str) -> None:
    who, attempt, words = BY_POLICY[what]
    refusal = try_it(guarded, who, attempt)
    assert refusal is not None, "it passed"
    assert "ValidatingAdmissionPolicy" in str(refusal)
    assert words in str(refusal)
    assert isinstance(refusal, Invalid | Refused)  # 422


@pytest.mark.parametrize("what", BY_POLICY)
def test_without_the_policy_it_would_pass(open_place: Place, what: str) -> None:
    who, attempt, _words = BY_POLICY[what]
    assert try_it(open_place, who, attempt) is None


@pytest.mark.parametrize("what", BY_ROLE)
def test_the_role_refuses(guarded: Place, what: str) -> None:
    refusal = try_it(guarded, "a", BY_ROLE[what])
    assert isinstance(refusal, Forbidden)  # 403
    assert "cannot" in str(refusal)


@pytest.mark.parametrize("what", ALLOWED)
def test_the_policy_lets_pass(guarded: Place, what: str) -> None:
    who, attempt = ALLOWED[what]
    assert try_it(guarded, who, attempt) is None


def test_the_api_server_finds_nothing_wrong_with_the_policies(guarded: Place) -> None:
    for name in ("render.tickets", "render.pods", "other.tickets"):
        path = f"{name}.{guarded.namespace}"
        until(f"{path} is checked", lambda path=path: "typeChecking" in guarded.admin.get(POLICIES, path)["status"])  # type: ignore[misc]
        assert guarded.admin.get(POLICIES, path)["status"]["typeChecking"] == {}

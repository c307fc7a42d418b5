# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an account may do, tried on a real API server with its token.

Each attempt is one request. One that must be refused has to be refused by RBAC; and an administrator makes the same
attempt, which has to pass: so that one which fails for another reason proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    EVENTS,
    AlreadyExists,
    Api,
    Forbidden,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.tests.support.at_cluster import account, until

Object = dict[str, Any]
Attempt = Callable[[Any, Api], object]  # at a Place, with somebody's login
Name = str | Callable[[Any], str]  # of an object, or what tells it of a Place; "": the one that is there

DEFINITIONS = Resource(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
NODES = Resource("v1", "nodes", "Node", namespaced=False)
SECRETS = Resource("v1", "secrets", "Secret")
ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
REPLICA_SETS = Resource("apps/v1", "replicasets", "ReplicaSet")
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", namespaced=False)
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole"}
BINDING = {"roleRef": {**ROLE, "name": "view"}, "subjects": []}


@dataclass
class Place:
    """What is tried, in a namespace, without a Pod; a second namespace; and what there is of others in both."""

    namespace: str
    elsewhere: str
    admin: Api

    def fill(self) -> None:
        """Make what attempts are made at, and may have been deleted by one."""
        raise NotImplementedError

    def name_of(self, _resource: Resource) -> str:
        """Of the object that is there."""
        return "there"

    def renew(self, resource: Resource, name: str, namespace: str, **content: Any) -> None:
        with suppress(AlreadyExists):
            self.admin.create(resource, document(resource, name, namespace, content))


def document(resource: Resource, name: str, namespace: str | None, content: Object) -> Object:
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    return {**kind, "metadata": {"name": name, "namespace": namespace}, **content}


# ------------------------------------------------------------------------------------------------ attempts


def gets(resource: Resource, name: Name = "", *, subresource: str = "", elsewhere: bool = False) -> Attempt:
    return lambda place, api: api.get(resource, *at(place, resource, name, elsewhere), subresource)


def reads(resource: Resource, *, named: str = "", elsewhere: bool = False, everywhere: bool = False) -> Attempt:
    """`named`: only this one, as who follows one object does."""
    field = f"metadata.name={named}" if named else ""
    return lambda place, api: api.list(
        resource, None if everywhere else space(place, resource, elsewhere), field_selector=field
    )


def makes(resource: Resource, *, elsewhere: bool = False, **content: Any) -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        namespace = space(place, resource, elsewhere)
        api.create(resource, document(resource, "new", namespace, content))
        return place.admin.delete(resource, "new", namespace)

    return attempt


def updates(
    resource: Resource, name: Name = "", *, subresource: str = "", elsewhere: bool = False, **content: Any
) -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        found = place.admin.get(resource, *at(place, resource, name, elsewhere), subresource)
        return api.replace(resource, {**found, **content}, subresource)

    return attempt


def patches(resource: Resource, name: Name = "") -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        found = place.admin.get(resource, *at(place, resource, name))["metadata"]
        kept = {field: found[field] for field in ("name", "namespace", "uid")}
        return api.patch(resource, {"metadata": {**kept, "labels": {"a": "b"}}})

    return attempt


def deletes(resource: Resource, name: Name = "", *, elsewhere: bool = False) -> Attempt:
    def attempt(place: Place, api: Api) -> object:
        called, namespace = at(place, resource, name, elsewhere)
        uid = place.admin.get(resource, called, namespace)["metadata"]["uid"]
        api.delete(resource, called, namespace)
        until("it is gone", lambda: is_gone(place.admin, resource, called, namespace, uid))
        return place.fill()

    return attempt


def is_gone(admin: Api, resource: Resource, name: str, namespace: str | None, uid: str) -> bool:
    try:
        return bool(admin.get(resource, name, namespace)["metadata"]["uid"] != uid)
    except NotFound:
        return True


def tells(kind: str, name: str, *, elsewhere: bool = False) -> Attempt:
    """An Event of this object."""

    def attempt(place: Place, api: Api) -> object:
        namespace = space(place, EVENTS, elsewhere)
        about = {"involvedObject": {"kind": kind, "name": name, "namespace": namespace}}
        metadata = {"generateName": f"{name}.", "namespace": namespace}
        return api.create(EVENTS, {"metadata": metadata, **about, "reason": "Tried", "type": "Normal"})

    return attempt


def at(place: Place, resource: Resource, name: Name, elsewhere: bool = False) -> tuple[str, str | None]:
    """Name and namespace."""
    called = name if isinstance(name, str) else name(place)
    return called or place.name_of(resource), space(place, resource, elsewhere)


def space(place: Place, resource: Resource, elsewhere: bool) -> str | None:
    return (place.elsewhere if elsewhere else place.namespace) if resource.namespaced else None


# ------------------------------------------------------------------------------------------------ verdicts


def may(place: Place, api: Api, attempt: Attempt) -> Exception | None:
    """The refusal by RBAC, if it is one."""
    try:
        attempt(place, api)
    except Forbidden as refusal:
        return refusal
    return None


def assert_lacks_the_right(place: Place, api: Api, attempt: Attempt) -> None:
    refusal = may(place, api, attempt)
    assert refusal is not None, "it passed"
    assert "cannot" in str(refusal)
    assert may(place, place.admin, attempt) is None  # it is the rights that it lacks


def assert_people_may(place: Place, role: str, allowed: Attempt, denied: Attempt) -> None:
    """With a role that each cluster has."""
    place.admin.create(ACCOUNTS, {"metadata": {"name": role, "namespace": place.namespace}})
    subject = {"kind": "ServiceAccount", "name": role, "namespace": place.namespace}
    metadata = {"name": role, "namespace": place.namespace}
    place.admin.create(BINDINGS, {"metadata": metadata, "roleRef": {**ROLE, "name": role}, "subjects": [subject]})
    person = account(place.namespace, role)
    until(f"the role {role} has its rights", lambda: may(place, person, allowed) is None)
    assert may(place, person, denied) is not None
    person.close()


def each(common: dict[str, Attempt], **more: dict[str, Attempt]) -> list[Any]:
    """Parameters: a place, and an attempt that is made there; `more` by place."""
    return [
        pytest.param(place, attempt, id=f"{place}: {what}")
        for place, added in more.items()
        for what, attempt in {**common, **added}.items()
    ]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who leads, and who has which shards: `decisions/leadership.py` on what is read from the API server."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    Api,
    Forbidden,
    NotFound,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import leadership, members, tickets
from ansible_collections.muster.coordination.plugins.module_utils.decisions.leadership import PodSight

Object = dict[str, Any]
Result = dict[str, Any]
Pods = dict[tuple[str, str], PodSight]

LONGEST_LABEL: Final = 63  # characters: what has a longer name has no members
ELECTIONS: Final = f"!{tickets.LABEL},!{members.MEMBER_OF}"  # neither tickets of a semaphore nor members' Leases
OUTSIDE_NODES: Final = "metadata.namespace!=kube-node-lease"  # nodes' heartbeats, of all namespaces the most numerous


def info(
    api: Api, *, namespace: str, name: str | None = None, label_selector: str | None = None, check_mode: bool = False
) -> Result:
    """The Leases of elections and the sharded controllers of a namespace, or those of one name; only ever reads.

    What is malformed is listed with its `error`. Needs `get` and `list` of Leases and ConfigMaps, and `get` of
    Pods; without the latter two it says what it does not know.
    """
    selector = label_selector or ""
    return {
        "changed": False,
        "leases": leaders(api, namespace=namespace, name=name, label_selector=selector),
        "controllers": shards(api, namespace=namespace, name=name, label_selector=selector),
    }


def leaders(api: Api, *, namespace: str | None, name: str | None = None, label_selector: str = "") -> list[Result]:
    """Who has the Leases of a namespace (None: of all namespaces), or the one of that name."""
    if name is not None:
        leases = _there(api, name, namespace or "")
    else:
        selector = ",".join(part for part in (label_selector, ELECTIONS) if part)
        leases = api.list(LEASES, namespace, label_selector=selector, field_selector=where(namespace)).items
    pods = _pods(api, leases)
    return [leadership.lease_report(lease, pods.get(_place(lease))) for lease in sorted(leases, key=_key)]


def shards(api: Api, *, namespace: str, name: str | None = None, label_selector: str = "") -> list[Result]:
    """The sharded controllers of a namespace, or the one of that name.

    With a label selector, those of which a Lease that it selects is a member's.
    """
    names = [name] if name is not None else _controllers(api, namespace, label_selector)
    tables = {one: _table(api, one, namespace) for one in names if len(one) <= LONGEST_LABEL}
    selector = f"{members.MEMBER_OF}={name}" if name else members.MEMBER_OF
    listed = api.list(LEASES, namespace, label_selector=selector).items if tables else []  # read after the tables
    pods = _pods(api, listed)
    found = []
    for one, (table, trouble) in tables.items():
        leases = [lease for lease in listed if lease["metadata"]["labels"][members.MEMBER_OF] == one]
        if leases or table is not None:
            sights = {pod: sight for (_namespace, pod), sight in pods.items()}
            found.append(leadership.shards_report(one, namespace, table, leases, sights, trouble))
    return found


def where(namespace: str | None) -> str:
    """The field selector for a look at Leases: of all namespaces, that of the nodes' heartbeats is left out."""
    return "" if namespace else OUTSIDE_NODES


def _there(api: Api, name: str, namespace: str) -> list[Object]:
    try:
        return [api.get(LEASES, name, namespace)]
    except NotFound:
        return []


def _controllers(api: Api, namespace: str, label_selector: str) -> list[str]:
    selector = ",".join(part for part in (label_selector, members.MEMBER_OF) if part)
    listed = api.list(LEASES, namespace, label_selector=selector, metadata_only=True).items
    if not label_selector:
        with suppress(Forbidden):  # it is to find those that have no members left
            listed += api.list(CONFIGMAPS, namespace, label_selector=members.MEMBER_OF, metadata_only=True).items
    return sorted({obj["metadata"]["labels"][members.MEMBER_OF] for obj in listed})


def _table(api: Api, name: str, namespace: str) -> tuple[str | None, str | None]:
    """The table as it is written, if there is one, and why that is not known."""
    try:
        configmap = api.get(CONFIGMAPS, members.table_name(name), namespace)
    except NotFound:
        return None, None
    except Forbidden as error:
        return None, str(error)
    return (configmap.get("data") or {}).get(members.TABLE_KEY), None


def _pods(api: Api, leases: Iterable[Object]) -> Pods:
    """The Pods of those holders that run in one, read after the Leases."""
    return {place: _sight(api, *place) for place in dict.fromkeys(map(_place, filter(leadership.has_pod, leases)))}


def _sight(api: Api, namespace: str, pod: str) -> PodSight:
    try:
        return PodSight(api.get(PODS, pod, namespace))
    except NotFound:
        return PodSight(None)
    except Forbidden as error:
        return PodSight(None, str(error))


def _place(lease: Object) -> tuple[str, str]:
    return lease["metadata"]["namespace"], leadership.pod_of(lease)


def _key(lease: Object) -> tuple[str, str]:
    return lease["metadata"]["namespace"], lease["metadata"]["name"]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change the table of shards: `decisions/sharding.py` committed to the API server."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, LEASES, Api
from ansible_collections.muster.coordination.plugins.module_utils.commit import commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import members, sharding
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Owner, Table
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

Object = dict[str, Any]
Leases = Mapping[str, Object]  # by their names


def read(configmap: Object | None) -> Table | None:
    """The table that a ConfigMap holds; None where there is none. Raises Malformed."""
    return sharding.parse(((configmap or {}).get("data") or {}).get(members.TABLE_KEY))


def advance(
    api: Api,
    *,
    controller: str,
    namespace: str,
    me: str,
    drained: Collection[int],
    is_over: Callable[[Owner, Leases], bool],
    timeout: float,
) -> Object | None:
    """Do to the table all that `me` (an identity) may do now; the ConfigMap as it is then, None where there is none.

    `is_over` says of an owner whether its term is over, by Leases that were read after the table. `drained` are shards
    on which `me` has ended its work. Raises TimedOut after `timeout` seconds, Malformed, and what only a person mends.
    """

    def decide(configmap: Object | None) -> tuple[Object | None, None]:
        table = read(configmap)
        found = api.list(LEASES, namespace, label_selector=f"{members.MEMBER_OF}={controller}").items
        leases = {lease["metadata"]["name"]: lease for lease in found}
        desired = step(table, leases, me=me, fence=_version(configmap), drained=drained, is_over=is_over)
        if desired is None or desired is table:
            return configmap, None
        return _written(configmap or _new(controller, namespace), desired), None

    return commit(api, CONFIGMAPS, members.table_name(controller), namespace, decide, timeout=timeout).after


def step(
    table: Table | None,
    leases: Leases,
    *,
    me: str,
    fence: int,
    drained: Collection[int],
    is_over: Callable[[Owner, Leases], bool],
) -> Table | None:
    """What `me` may make of the table by these Leases; the same object where that is nothing."""
    owners = {owner for owner in (table.owners if table else ()) if owner}
    over = {owner.identity for owner in owners if is_over(owner, leases)}
    live = members.by_name(lease for lease in leases.values() if _is_sound(lease))
    return sharding.advance(table, live, me=me, fence=fence, over=over, drained=drained)


def _is_sound(lease: Object) -> bool:
    """Whoever has a Lease that is malformed does not act by it, and must not hold up all others."""
    try:
        members.member(lease)
    except Malformed:
        return False
    return True


def _new(controller: str, namespace: str) -> Object:
    name = members.table_name(controller)
    labels = {members.MEMBER_OF: controller}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
    }


def _written(configmap: Object, table: Table) -> Object:
    return {**configmap, "data": {**(configmap.get("data") or {}), members.TABLE_KEY: sharding.dump(table)}}


def _version(configmap: Object | None) -> int:
    return int(configmap["metadata"]["resourceVersion"]) if configmap else 0

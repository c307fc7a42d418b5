# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The objects of a sharded controller: a Lease for each member, and the ConfigMap that holds the table of shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, sharding
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout, Member
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

MEMBER_OF: Final = "muster.dev/shards"  # label of a member's Lease: the controller's name
LAYOUT: Final = "muster.dev/layout"  # annotation of a member's Lease: the layout by which this replica would go
TABLE_KEY: Final = "table"  # in the ConfigMap's data

Object = Mapping[str, Any]


def table_name(controller: str) -> str:
    """Of the ConfigMap."""
    return f"{controller}-shards"


def lease_name(controller: str, pod: str) -> str:
    """Of a member's Lease."""
    return f"{controller}-{pod}"


def marks(controller: str, layout: Layout) -> dict[str, dict[str, str]]:
    """The metadata that makes a Lease a member's."""
    written = json.dumps(layout._asdict(), separators=(",", ":"), sort_keys=True)
    return {"labels": {MEMBER_OF: controller}, "annotations": {LAYOUT: written}}


def layout_of(lease: Object) -> Layout:
    """The layout by which a member would go. Raises Malformed."""
    where = f"metadata.annotations[{LAYOUT}]"
    text = (lease["metadata"].get("annotations") or {}).get(LAYOUT)
    try:
        return sharding.parse_layout(json.loads(text or "null"), where)
    except (ValueError, RecursionError):  # the latter: brackets without end
        raise Malformed(where, text, 'give {"strategy": "stable", "shards": 64}') from None


def member(lease: Object) -> Member | None:
    """The member whose Lease it is; None where it is free, or its holder is leaving. Raises Malformed."""
    term = election.parse(lease)
    if not term.holder or term.is_leaving:
        return None
    return Member(term.holder, term.fence, layout_of(lease), sharding.ordinal_of(term.pod))


def by_name(leases: Iterable[Object]) -> dict[str, Member]:
    """The members of these Leases by their names, as `sharding.advance` takes them. Raises Malformed."""
    found = [one for one in map(member, leases) if one]
    return {one.identity.partition("_")[0]: one for one in found}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Leases of a sharded controller's members: what is written is what is read."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, members
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout, Member
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

NOW = "2026-01-31T12:00:00.000000Z"
STABLE = Layout()


def lease(pod: str, layout: Layout | str = STABLE) -> dict[str, Any]:
    """A member's Lease as its member took it."""
    me = Identity(pod, f"uid-{pod}", "1a2b3c4d", "vm")
    made = election.free(members.lease_name("vm", pod), "ns", Timing(), is_doubtful=False)
    made["metadata"]["resourceVersion"] = "41"
    taken = election.take(made, me, Timing(), NOW, over=None)
    assert taken is not None
    marks = members.marks("vm", layout if isinstance(layout, Layout) else STABLE)
    if isinstance(layout, str):
        marks["annotations"][members.LAYOUT] = layout
    notes = {**taken["metadata"]["annotations"], **marks["annotations"]}
    return {**taken, "metadata": {**taken["metadata"], "labels": marks["labels"], "annotations": notes}}


def test_what_a_member_marks_is_what_it_is_read_as() -> None:
    layout = Layout("pod-num", 3)
    assert members.member(lease("vm-2", layout)) == Member("vm-2_uid-vm-2_1a2b3c4d", 41, layout, 2)
    assert members.member(lease("vm-x7k2p")) == Member("vm-x7k2p_uid-vm-x7k2p_1a2b3c4d", 41, Layout(), None)


def test_who_is_leaving_and_a_free_lease_are_no_members() -> None:
    there = lease("vm-0")
    term = election.parse(there)
    free = election.evict(there, term)
    assert free is not None and members.member(free) is None
    leaving = election.renew(there, Identity("vm-0", "uid-vm-0", "1a2b3c4d", "vm"), NOW, is_leaving=True)
    assert leaving is not None and members.member(leaving) is None
    assert members.by_name([free, lease("vm-1")]).keys() == {"vm-1"}


@pytest.mark.parametrize(
    "text", ["", "64", "{", '{"strategy": "stable"}', '{"strategy": "x", "shards": 1}', "[" * 10**5]
)
def test_a_layout_that_makes_no_sense_is_refused_by_name(text: str) -> None:
    with pytest.raises(Malformed, match=r"metadata\.annotations\[muster\.dev/layout\]"):
        members.member(lease("vm-0", text))


def test_a_lease_without_a_layout_is_refused() -> None:
    there = lease("vm-0")
    del there["metadata"]["annotations"][members.LAYOUT]
    with pytest.raises(Malformed, match="is None: give"):
        members.member(there)

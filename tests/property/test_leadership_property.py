# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever stands in Leases and tables, something is said of it, and it adds up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import event, given

from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    election,
    leadership,
    members,
    sharding,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.leadership import PodSight
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout, Owner, Table

Object = dict[str, Any]
NOW = "2026-01-31T12:00:00.000000Z"

ODD = st.sampled_from(
    ["", "0", "41", "-1", "x", "9" * 30, "²", "{", "[" * 2000, "null", "true", "/", "vm/", "a/b/c", "_", "__"]
)
LAYOUTS = st.builds(Layout, st.sampled_from(sharding.STRATEGIES), st.integers(1, 9))
NAMES = [f"vm-{n}" for n in range(4)]
TIMES = st.sampled_from([NOW, "", "soon", "2026-01-31T12:00:00Z", "9999-12-31T23:59:59.999999Z"])


@st.composite
def leases(draw: st.DrawFn) -> Object:
    """Of anybody: as the API server lets its typed fields be, with annotations of any text."""
    notes = draw(
        st.dictionaries(st.sampled_from([election.FENCE, election.CONTAINER, election.LEAVING, members.LAYOUT]), ODD)
    )
    spec = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "holderIdentity": st.one_of(st.none(), ODD, st.sampled_from([f"{name}_u_1" for name in NAMES])),
                "leaseDurationSeconds": st.one_of(st.none(), st.integers(1, 2**31 - 1)),
                "acquireTime": st.one_of(st.none(), TIMES),
                "renewTime": st.one_of(st.none(), TIMES),
                "leaseTransitions": st.one_of(st.none(), st.integers(0, 2**31 - 1)),
            },
        )
    )
    name = draw(st.sampled_from(NAMES))
    metadata = {"name": f"op-{name}", "namespace": "ns", "annotations": notes or None}
    return {"metadata": metadata, **draw(st.sampled_from([{}, {"spec": None}, {"spec": spec}]))}


def sights() -> st.SearchStrategy[PodSight | None]:
    pods = st.sampled_from(
        [
            {"metadata": {"uid": "u"}},
            {"metadata": {"uid": "u"}, "status": {"phase": "Failed"}},
            {"metadata": {"uid": "other"}, "status": {"phase": "Running", "containerStatuses": [{"name": "vm"}]}},
        ]
    )
    return st.one_of(st.none(), st.builds(PodSight, st.one_of(st.none(), pods), st.sampled_from(["", "403"])))


@st.composite
def tables(draw: st.DrawFn) -> str | None:
    layout = draw(LAYOUTS)
    owner = st.one_of(
        st.none(), st.builds(Owner, st.sampled_from([f"{name}_u_1" for name in NAMES]), st.integers(1, 99))
    )
    wanted = draw(st.lists(st.sampled_from(["", *NAMES]), min_size=layout.shards, max_size=layout.shards))
    owners = draw(st.lists(owner, min_size=layout.shards, max_size=layout.shards))
    return draw(st.one_of(st.just(sharding.dump(Table(layout, tuple(wanted), tuple(owners)))), st.none(), ODD))


@given(leases(), sights())
def test_a_lease_has_one_state_and_what_goes_with_it(lease: Object, sight: PodSight | None) -> None:
    told = leadership.lease_report(lease, sight)
    json.dumps(told)
    event(told["state"])
    is_free = told["state"] == leadership.FREE
    assert is_free == (told["holder"] is None) == (told["ends_within"] is None)
    assert is_free <= (told["since"] is None and told["until"] is None)
    assert (told["error"] is None) or told["fence"] is None
    assert told["ends_within"] in (None, 0, told["seconds"])


@given(tables(), st.lists(leases(), max_size=4, unique_by=lambda lease: lease["metadata"]["name"]), sights())
def test_shards_add_up(text: str | None, theirs: Sequence[Object], sight: PodSight | None) -> None:
    seen = {name: sight for name in NAMES if sight}
    told = leadership.shards_report("op", "ns", text, theirs, seen)
    json.dumps(told)
    event(f"settled {told['settled']}, error {bool(told['error'])}")
    shards = told["shards"]
    assert len(shards) == (told["layout"]["shards"] if told["layout"] else 0) == sum(told["counts"].values())
    apart = {one["shard"] for one in shards if one["state"] in (leadership.OWNED, leadership.UNSERVED)}
    assert {one["shard"] for one in told["handovers"]} == {one["shard"] for one in shards} - apart
    assert told["settled"] <= (not told["handovers"])
    for member in told["members"]:
        for shard in member["owns"]:
            assert shards[shard]["owner"] == member["holder"]
            assert (shards[shard]["state"] == leadership.ORPHANED) <= (member["state"] == leadership.ENDED)


@given(st.integers(1, 4), st.integers(1, 16), st.data())
def test_a_table_is_settled_when_all_have_done_what_they_may(replicas: int, shards: int, data: st.DataObject) -> None:
    layout = Layout("stable", shards)
    theirs = []
    for n in range(replicas):
        me = Identity(f"vm-{n}", "u", "1", "vm")
        free = election.free(members.lease_name("op", me.pod), "ns", Timing(), is_doubtful=False)
        free["metadata"]["resourceVersion"] = str(n + 1)
        taken = election.take(free, me, Timing(), NOW, over=None)
        assert taken is not None
        marks = members.marks("op", layout)
        taken["metadata"]["annotations"].update(marks["annotations"])
        theirs.append(taken)
    live = members.by_name(theirs)
    table = sharding.advance(None, live, me="vm-0_u_1", fence=1)
    todo = set(live)
    fence = 10
    while todo:
        assert table is not None
        told = leadership.shards_report("op", "ns", sharding.dump(table), theirs, {})
        assert told["counts"][leadership.UNOWNED] == sum(owner is None for owner in table.owners)
        who = data.draw(st.sampled_from(sorted(todo)))
        todo.remove(who)
        fence += 1
        table = sharding.advance(table, live, me=live[who].identity, fence=fence)
    assert table is not None
    told = leadership.shards_report("op", "ns", sharding.dump(table), theirs, {})
    assert told["settled"] and told["counts"][leadership.OWNED] == shards
    assert sorted(shard for one in told["members"] for shard in one["owns"]) == list(range(shards))
    assert all(one["owns"] == one["wanted"] for one in told["members"])

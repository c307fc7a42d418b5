# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds of any table of shards, any members and any keys, at random."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions import sharding
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import (
    NOBODY,
    POD_NUM,
    STABLE,
    Layout,
    Member,
    Owner,
    Table,
)

SHARDS = st.one_of(st.integers(1, 12), st.integers(1, 1024))
NAMES = st.sampled_from([f"op-{number}" for number in range(12)])
MEMBERS = st.lists(NAMES, unique=True, max_size=9)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


def live(names: list[str], layout: Layout) -> dict[str, Member]:
    return {
        name: Member(f"{name}_u_1", fence, layout, sharding.ordinal_of(name)) for fence, name in enumerate(names, 1)
    }


@st.composite
def tables(draw: Any, shards: st.SearchStrategy[int] = SHARDS) -> Table:
    """Whatever may stand there: wanted are members, those who were, or nobody; owners anybody."""
    layout = Layout(STABLE, draw(shards))
    wanted = draw(st.lists(st.one_of(NAMES, st.just(NOBODY)), min_size=1, max_size=20))
    owner = st.one_of(st.none(), st.builds(Owner, NAMES.map(lambda name: f"{name}_u_1"), st.integers(1, 2**63)))
    owners = draw(st.lists(owner, min_size=1, max_size=20))

    def spread(some: list[Any]) -> tuple[Any, ...]:
        return tuple(some[shard * 7919 % len(some)] for shard in range(layout.shards))

    known = ("version", "layout", "wanted", "owners")
    extra = draw(st.dictionaries(st.text(max_size=9).filter(lambda key: key not in known), JSON, max_size=2))
    return Table(layout, spread(wanted), spread(owners), extra)


def settle(table: Table | None, members: dict[str, Member]) -> Table:
    """Everybody does what it may do, lets go at once, and nobody who is not there lives."""
    version = 2**64
    for _round in range(4):
        for name, member in members.items():
            version += 1
            owners = {owner.identity for owner in table.owners if owner} if table else set()
            over = owners - {one.identity for one in members.values()}
            drained = table.revoked_from(f"{name}_u_1") if table else ()
            table = sharding.advance(table, members, me=member.identity, fence=version, over=over, drained=drained)
    assert table is not None
    return table


@given(tables(), MEMBERS.filter(bool))
def test_a_plan_is_balanced_and_moves_as_little_as_that_allows(table: Table, names: list[str]) -> None:
    wanted = sharding.plan(table, live(names, table.layout))
    has = Counter(wanted)
    assert set(has) <= set(names)
    assert max(has.values()) - min(has[name] for name in names) <= 1
    before = sorted((table.wanted.count(name) for name in names), reverse=True)
    part, extra = divmod(len(wanted), len(names))
    # Any balanced plan leaves a member at most its part, and `extra` members one more: best those who have most.
    can_stay = sum(min(count, part + (rank < extra)) for rank, count in enumerate(before))
    moved = sum(was != now for was, now in zip(table.wanted, wanted, strict=True))
    assert moved == len(wanted) - can_stay


@given(tables(), MEMBERS, st.randoms(use_true_random=False))
def test_a_plan_is_the_same_in_any_order_and_once_more(table: Table, names: list[str], random: Any) -> None:
    members = live(names, table.layout)
    wanted = sharding.plan(table, members)
    shuffled = list(members.items())
    random.shuffle(shuffled)
    assert sharding.plan(table, dict(shuffled)) == wanted
    again = Table(table.layout, wanted, table.owners, table.extra)
    assert sharding.plan(again, members) == wanted


@given(st.one_of(st.none(), tables()), MEMBERS.filter(bool), SHARDS, st.lists(st.text(max_size=8)))
def test_each_key_has_one_owner_who_lives_once_all_is_settled(
    table: Table | None, names: list[str], shards: int, keys: list[str]
) -> None:
    layout = Layout(STABLE, shards)
    members = live(names, layout)
    after = settle(table, members)
    assert after.layout == layout and after.is_settled
    identities = {member.identity for member in members.values()}
    for key in keys:
        owner = after.owners[layout.shard_of(key)]
        assert owner is not None and owner.identity in identities
    assert all(owner and owner.identity in identities for owner in after.owners)
    has = Counter(owner.member for owner in after.owners if owner)
    assert max(has.values()) - min(has[name] for name in names) <= 1
    for member in members.values():
        asked = {"me": member.identity, "fence": 2**65, "drained": after.revoked_from(member.identity)}
        assert sharding.advance(after, members, **asked) is after, "what is settled is not written again"


@given(st.integers(1, 40), st.lists(st.text(max_size=8), min_size=1))
def test_by_number_each_key_has_the_owner_that_the_seed_gave_it(replicas: int, keys: list[str]) -> None:
    layout = Layout(POD_NUM, replicas)
    members = live([f"op-{number}" for number in range(replicas)], layout)
    after = settle(None, members)
    for key in keys:
        owner = after.owners[layout.shard_of(key)]
        assert owner is not None and owner.member == f"op-{sum(map(ord, key)) % replicas}"


@given(tables(st.integers(1, 12)), MEMBERS, NAMES, st.sets(st.integers(0, 11)), st.sets(NAMES), st.sampled_from([4, 9]))
def test_one_step_changes_owners_only_as_it_may(
    table: Table, names: list[str], me: str, drained: set[int], gone: set[str], shards: int
) -> None:
    """Nobody is overwritten: a shard is let go by its owner, or when that is over; it is taken when nobody has it."""
    mine, over, fence = f"{me}_u_1", {f"{name}_u_1" for name in gone}, 2**64
    members = live(names, Layout(STABLE, shards))
    after = sharding.advance(table, members, me=mine, fence=fence, over=over, drained=drained)
    assert after is not None and after.extra == table.extra
    if after.layout != table.layout:
        assert all(
            owner is None or owner.identity in over or (owner.identity == mine and shard in drained)
            for shard, owner in enumerate(table.owners)
        )
        assert all(owner in (None, Owner(mine, fence)) for owner in after.owners)
        return
    for shard, (was, now) in enumerate(zip(table.owners, after.owners, strict=True)):
        may_go = was is None or was.identity in over or (was.identity == mine and shard in drained)
        assert now == was or may_go
        if now != was and now is not None:
            assert now == Owner(mine, fence) and after.wanted[shard] == me and me in members


@given(tables())
def test_what_is_written_is_what_is_read_with_all_that_is_not_ours(table: Table) -> None:
    text = sharding.dump(table)
    assert sharding.parse(text) == table
    document = json.loads(text)
    assert {key: document[key] for key in table.extra} == table.extra
    assert sharding.dump(table) == text


@given(st.text(max_size=8), st.integers(1, 1024))
def test_a_key_has_a_shard_of_either_strategy(key: str, shards: int) -> None:
    assert Layout(STABLE, shards).shard_of(key) in range(shards)
    assert Layout(POD_NUM, shards).shard_of(key) in range(shards)

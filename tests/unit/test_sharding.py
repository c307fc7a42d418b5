# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which replica owns which keys: each rule by example."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

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
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

FOUR = Layout(STABLE, 4)
THREE_BY_NUMBER = Layout(POD_NUM, 3)


def member(name: str, fence: int = 1, layout: Layout = FOUR, run: int = 1) -> Member:
    return Member(f"{name}_uid-{name}_{run}", fence, layout, sharding.ordinal_of(name))


def live(*names: str, layout: Layout = FOUR) -> dict[str, Member]:
    return {name: member(name, fence, layout) for fence, name in enumerate(names, 1)}


def me(name: str, run: int = 1) -> str:
    return member(name, run=run).identity


def step(
    table: Table | None, who: str, members: Mapping[str, Member], fence: int = 100, **done: Iterable[Any]
) -> Table | None:
    return sharding.advance(table, members, me=me(who), fence=fence, **done)  # type: ignore[arg-type]


def settled(*names: str, layout: Layout = FOUR) -> Table:
    """A table with these members, each of whom has taken its shards, with fences from 10 on."""
    members = live(*names, layout=layout)
    table = sharding.advance(None, members, me=me(names[0]), fence=0)
    for fence, name in enumerate(names, 10):
        table = step(table, name, members, fence)
    assert table is not None and table.is_settled
    return table


def owners(table: Table | None) -> list[str]:
    assert table is not None
    return [owner.member if owner else NOBODY for owner in table.owners]


# ------------------------------------------------------------------------------------------ rule 1: keys and shards


def test_a_key_has_its_shard_wherever_and_whenever_it_is_asked() -> None:
    known = {"default": 61, "kube-system": 1, "team-a": 52, "": 20, "größe": 63}
    assert {key: Layout().shard_of(key) for key in known} == known


def test_keys_are_spread_evenly_over_the_shards() -> None:
    found = Counter(Layout(STABLE, 8).shard_of(f"namespace-{number}") for number in range(8000))
    assert set(found) == set(range(8)) and max(found.values()) < 1.15 * 1000


def test_a_key_that_utf_8_can_not_say_has_a_shard_too() -> None:
    assert Layout(STABLE, 8).shard_of("\ud800") in range(8)


def test_the_seeds_numbers_are_kept() -> None:
    assert Layout(POD_NUM, 3).shard_of("default") == sum(map(ord, "default")) % 3 == 741 % 3
    assert Layout(POD_NUM, 1).shard_of("anything") == 0


def test_the_seeds_faults_are_kept_too_anagrams_collide() -> None:
    anagrams = ("team-ab", "team-ba", "meat-ab", "beta-am")
    for replicas in range(1, 30):
        assert len({Layout(POD_NUM, replicas).shard_of(key) for key in anagrams}) == 1
    assert len({Layout(STABLE, 1024).shard_of(key) for key in anagrams}) == len(anagrams)


def test_the_seeds_faults_are_kept_too_another_number_of_replicas_moves_nearly_all_keys() -> None:
    keys = [f"namespace-{number:04}" for number in range(1000)]
    moved = sum(Layout(POD_NUM, 4).shard_of(key) != Layout(POD_NUM, 5).shard_of(key) for key in keys)
    assert moved > 700
    assert all(Layout().shard_of(key) == Layout().shard_of(key) for key in keys)  # stable: shards move, keys don't


@pytest.mark.parametrize(
    ("pod", "number"),
    [
        ("op-0", 0),
        ("op-12", 12),
        ("a-b-3", 3),
        ("op", None),
        ("op-7d9f-x2k4p", None),
        ("op-1a", None),
        (f"op-{10**9}", None),
    ],
)
def test_the_number_of_a_pod_is_at_the_end_of_its_name(pod: str, number: int | None) -> None:
    assert sharding.ordinal_of(pod) == number


# ------------------------------------------------------------------------------------------ rule 2: the plan


def test_each_gets_its_part() -> None:
    assert Counter(owners(settled("a", "b"))) == {"a": 2, "b": 2}
    assert sorted(Counter(owners(settled("a", "b", "c"))).values()) == [1, 1, 2]
    assert sorted(Counter(owners(settled(*"abcdef"))).values()) == [1, 1, 1, 1]


def test_who_comes_gets_its_part_from_those_who_have_most_and_nothing_else_moves() -> None:
    before = settled("a", "b")
    after = sharding.plan(before, live("a", "b", "c"))
    moved = [shard for shard in range(4) if before.wanted[shard] != after[shard]]
    assert len(moved) == 1 and after[moved[0]] == "c"


def test_what_one_had_who_is_gone_goes_to_the_others_and_nothing_else_moves() -> None:
    before = settled("a", "b", "c")
    after = sharding.plan(before, live("a", "b"))
    assert all(after[shard] == who for shard, who in enumerate(before.wanted) if who != "c")
    assert Counter(after) == {"a": 2, "b": 2}


def test_by_number_each_pod_has_its_own_shard_and_who_is_away_is_not_replaced() -> None:
    table = settled("op-2", "op-0", "op-1", layout=THREE_BY_NUMBER)
    assert owners(table) == ["op-0", "op-1", "op-2"]
    assert sharding.plan(table, live("op-0", "op-2", layout=THREE_BY_NUMBER)) == ("op-0", NOBODY, "op-2")
    assert sharding.plan(table, live("op-7d9f-x2k4p", layout=THREE_BY_NUMBER)) == (NOBODY,) * 3


def test_nothing_is_planned_while_nobody_lives() -> None:
    table = settled("a", "b")
    assert step(table, "a", {}) is table
    assert step(None, "a", {}) is None


# ------------------------------------------------------------------------------------------ rule 3: hand-over


def test_a_table_is_made_first_and_owned_afterwards() -> None:
    made = step(None, "a", live("a"), 0)
    assert made is not None and set(made.wanted) == {"a"} and owners(made) == [NOBODY] * 4
    assert step(made, "a", live("a"), 7) == replace(made, owners=(Owner(me("a"), 7),) * 4)


def test_revoke_acknowledge_assign() -> None:
    both = live("a", "b")
    table = step(settled("a"), "b", both)  # b comes, and asks for its part
    assert table is not None
    moving = table.revoked_from(me("a"))
    assert len(moving) == 2 and owners(table) == ["a"] * 4  # revoked, and not taken
    assert step(table, "b", both) is table and step(table, "a", both) is table
    let_go = step(table, "a", both, drained=moving)
    assert let_go is not None and {shard for shard, who in enumerate(owners(let_go)) if not who} == moving
    assigned = step(let_go, "b", both, 55)
    assert assigned is not None and assigned.owned_by(me("b")) == dict.fromkeys(moving, 55) and assigned.is_settled


def test_what_is_drained_of_some_is_let_go_of_some() -> None:
    both = live("a", "b")
    table = step(settled("a"), "b", both)
    assert table is not None
    one = min(table.revoked_from(me("a")))
    after = step(table, "a", both, drained={one})
    assert after is not None and owners(after).count(NOBODY) == 1 and after.owners[one] is None


def test_nobody_lets_go_what_another_owns() -> None:
    both = live("a", "b")
    table = step(settled("a"), "b", both)
    assert step(table, "b", both, drained=range(4)) is table


def test_what_was_drained_and_is_wanted_again_is_taken_again_with_a_new_fence() -> None:
    table = settled("a")
    again = step(table, "a", live("a"), 77, drained={2})
    assert again is not None
    assert again.owned_by(me("a")) == {0: 10, 1: 10, 2: 77, 3: 10}


def test_who_leaves_lets_go_what_is_drained_and_takes_nothing() -> None:
    table = settled("a", "b")
    after = step(table, "a", live("b"), drained=table.owned_by(me("a")))
    assert after is not None and set(after.wanted) == {"b"} and me("a") not in map(_identity, after.owners)
    alone = step(settled("a"), "a", {}, drained=range(4))
    assert alone is not None and owners(alone) == [NOBODY] * 4 and set(alone.wanted) == {"a"}


def test_a_former_run_takes_nothing_for_its_name() -> None:
    table = sharding.advance(None, live("a"), me=me("a"), fence=0)
    assert sharding.advance(table, {"a": member("a", run=2)}, me=me("a", run=1), fence=9) is table


def _identity(owner: Owner | None) -> str:
    return owner.identity if owner else ""


# ------------------------------------------------------------------------------------------ rule 4: who is over


def test_whoever_is_over_is_struck_from_the_table_by_anybody() -> None:
    table = settled("a", "b")
    after = step(table, "b", live("b"), 50, over={me("a")})
    assert after is not None and owners(after) == ["b"] * 4
    kept = {shard: fence for shard, fence in after.owned_by(me("b")).items() if fence != 50}
    assert kept == table.owned_by(me("b"))


def test_who_does_not_live_and_is_not_over_keeps_what_it_has() -> None:
    table = settled("a", "b")
    after = step(table, "b", live("b"), 50)
    assert after is not None and set(after.wanted) == {"b"}
    assert owners(after) == owners(table)


def test_the_next_run_takes_its_part_only_when_the_former_is_over() -> None:
    table, again = settled("a"), {"a": member("a", run=2)}
    assert sharding.advance(table, again, me=me("a", run=2), fence=50) is table
    taken = sharding.advance(table, again, me=me("a", run=2), fence=50, over={me("a")})
    assert taken is not None and taken.owned_by(me("a", run=2)) == dict.fromkeys(range(4), 50)


# ------------------------------------------------------------------------------------------ rule 5: fences


def test_a_shards_fence_grows_from_owner_to_owner() -> None:
    table = settled("a")
    fences = [table.owned_by(me("a"))]
    for version, (gone, who) in enumerate([("a", "b"), ("b", "a"), ("a", "b")], 20):
        table = step(table, who, live(who), version, over={me(gone)})
        assert table is not None
        fences.append(table.owned_by(me(who)))
    for before, after in pairwise(fences):
        assert after.keys() == before.keys() and all(after[shard] > before[shard] for shard in before)


# ------------------------------------------------------------------------------------------ rule 6: layouts

EIGHT = Layout(STABLE, 8)


def test_another_layout_waits_until_all_have_let_go() -> None:
    both = {"a": member("a", 1, FOUR), "b": member("b", 2, EIGHT)}  # b is the newer one
    table = step(settled("a"), "b", both)
    assert table is not None
    assert (table.layout, set(table.wanted), owners(table)) == (FOUR, {NOBODY}, ["a"] * 4)
    assert table.revoked_from(me("a")) == set(range(4))
    some = step(table, "a", both, drained={0, 1, 2})
    assert some is not None and some.layout == FOUR and step(some, "b", both) is some
    last = step(some, "a", both, 66, drained={3})
    assert last is not None and last.layout == EIGHT and Counter(last.wanted) == {"a": 4, "b": 4}
    assert last.owned_by(me("a")) == {shard: 66 for shard, who in enumerate(last.wanted) if who == "a"}
    done = step(last, "b", both, 67)
    assert done is not None and done.is_settled


def test_everybody_goes_by_the_newest_members_layout_in_whatever_order_they_are_named() -> None:
    members = {"b": member("b", 9, EIGHT), "a": member("a", 3, FOUR), "c": member("c", 7, FOUR)}
    for order in (members, dict(reversed(members.items()))):
        made = step(None, "a", order)
        assert made is not None and made.layout == EIGHT


def test_what_is_not_ours_survives_another_layout() -> None:
    table = replace(sharding.empty(FOUR), extra={"note": [1]})
    after = step(table, "a", live("a", layout=EIGHT))
    assert after is not None and (after.layout, after.extra) == (EIGHT, {"note": [1]})


# ------------------------------------------------------------------------------------------ as it is written


def document(**changes: Any) -> str:
    known: dict[str, Any] = {
        "version": 1,
        "layout": {"strategy": "stable", "shards": 2},
        "wanted": ["a", ""],
        "owners": [["a_u_1", 5], None],
    }
    return json.dumps({**known, **changes})


def test_what_is_written_is_what_is_read() -> None:
    table = settled("a", "b", "c")
    assert sharding.parse(sharding.dump(table)) == table
    assert sharding.parse(None) is None


def test_what_is_not_ours_is_kept() -> None:
    table = sharding.parse(document(note={"by": "hand"}, zeta=None))
    assert table is not None and json.loads(sharding.dump(table)) == json.loads(
        document(note={"by": "hand"}, zeta=None)
    )


def test_a_table_of_1024_shards_with_long_names_fits_an_object() -> None:
    identity = f"{'p' * 253}_{'u' * 36}_{'r' * 8}"
    table = Table(Layout(STABLE, 1024), ("p" * 253,) * 1024, (Owner(identity, 2**63),) * 1024)
    assert len(sharding.dump(table)) < 700_000  # of 1 MiB


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "data.table"),
        ("{", "data.table"),
        ("[" * 10**5, "data.table"),
        ("[]", "data.table.version"),
        ("null", "data.table.version"),
        (document(version=2), "data.table.version"),
        (document(version="1"), "data.table.version"),
        (document(layout=None), "data.table.layout"),
        (document(layout={"strategy": "best", "shards": 2}), "data.table.layout.strategy"),
        (document(layout={"strategy": "stable"}), "data.table.layout.shards"),
        (document(layout={"strategy": "stable", "shards": 0}), "data.table.layout.shards"),
        (document(layout={"strategy": "stable", "shards": 1025}), "data.table.layout.shards"),
        (document(layout={"strategy": "stable", "shards": True}), "data.table.layout.shards"),
        (document(layout={"strategy": "stable", "shards": 2.0}), "data.table.layout.shards"),
        (document(wanted=["a"]), "data.table.wanted"),
        (document(wanted=None), "data.table.wanted"),
        (document(wanted={"0": "a", "1": "b"}), "data.table.wanted"),
        (document(wanted=["a", None]), "data.table.wanted[1]"),
        (document(owners=[None]), "data.table.owners"),
        (document(owners=[None, "a_u_1"]), "data.table.owners[1]"),
        (document(owners=[None, ["", 5]]), "data.table.owners[1]"),
        (document(owners=[None, ["a_u_1", 0]]), "data.table.owners[1]"),
        (document(owners=[None, ["a_u_1", True]]), "data.table.owners[1]"),
        (document(owners=[None, ["a_u_1", "5"]]), "data.table.owners[1]"),
        (document(owners=[None, ["a_u_1", 5, 6]]), "data.table.owners[1]"),
        (document(owners=[None, []]), "data.table.owners[1]"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(text: str, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        sharding.parse(text)
    assert caught.value.field == field

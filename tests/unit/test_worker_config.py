# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workers' configuration as it is read, divided into parts, and written."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.muster.coordination.plugins.module_utils.decisions import worker_config as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    Config,
    Entry,
    Hold,
    Known,
    Part,
)
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

SEED = """\
workloads:
  swarm-worker-0:
    jobs:
      - stream:xxrtve1
      - stream:zrtve2:new
    version: 0
  swarm-worker-1:
    jobs:
      - stream:xxctv13:updated
    version: 3
"""


def read(part: Part) -> Part:
    """What comes back of what is written."""
    data = decisions.render(part)
    entries, extra = decisions.parse_entries(parse_yaml(data[decisions.CONFIG_KEY], "config.yml"))
    return replace(decisions.parse_record(data[decisions.RECORD_KEY]), entries=entries, extra=extra)


def test_the_wire_format_is_the_seeds() -> None:
    entries = {
        "swarm-worker-0": Entry(("stream:xxrtve1", "stream:zrtve2:new")),
        "swarm-worker-1": Entry(("stream:xxctv13:updated",), 3),
    }
    assert decisions.render(Part(entries))[decisions.CONFIG_KEY] == SEED
    assert decisions.parse_entries(parse_yaml(SEED, "config.yml")) == (entries, {})


def test_a_placeholder_has_no_workers() -> None:
    assert decisions.render(Part())[decisions.CONFIG_KEY] == "workloads: {}\n"
    for text in ("", "workloads: {}", "workloads:", "{}"):
        assert decisions.parse_entries(parse_yaml(text, "config.yml")) == ({}, {})


def test_workers_stand_in_the_order_of_their_numbers() -> None:
    text = decisions.render(Part({f"w-{number}": Entry() for number in (10, 2, 1)}))[decisions.CONFIG_KEY]
    assert [line.strip() for line in text.splitlines() if line.startswith("  w-")] == ["w-1:", "w-2:", "w-10:"]


NAMES = some.text(some.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20).filter(
    lambda name: name != "*" and not decisions._UNPRINTABLE.search(name)
)
VALUES = some.recursive(some.none() | some.booleans() | some.integers() | NAMES, lambda of: some.lists(of, max_size=3))
KEYS = NAMES.filter(lambda name: name not in ("jobs", "version", "workloads", "leaving", "applied", "barrier", "zone"))
ENTRIES = some.builds(
    Entry,
    some.lists(NAMES, unique=True, max_size=4).map(tuple),
    some.integers(0, 99),
    some.dictionaries(KEYS, VALUES, max_size=2),
)
KNOWN = some.none() | some.builds(Known, NAMES, some.integers(0, 9))
HOLDS = some.builds(
    Hold,
    some.dictionaries(NAMES, some.integers(0, 9), max_size=3),
    KNOWN,
    KNOWN,
    some.just("") | NAMES,
    some.dictionaries(KEYS, VALUES, max_size=1),
    some.booleans(),
)
PARTS = some.builds(
    Part,
    some.dictionaries(NAMES, ENTRIES, max_size=4),
    some.dictionaries(NAMES, HOLDS, max_size=4),
    some.integers(0, 9),
    some.integers(-1, 9),
    some.fixed_dictionaries({"inputs": NAMES}) | some.just({}),
    some.dictionaries(KEYS, VALUES, max_size=2),
    some.dictionaries(
        KEYS.filter(lambda key: key not in ("turn", "floor", "rebalance", "workers")), VALUES, max_size=2
    ),
)


@given(PARTS)
def test_what_is_written_is_read_again(part: Part) -> None:
    assert read(part) == part


@given(PARTS)
def test_no_worker_takes_more_bytes_than_it_is_counted_for(part: Part) -> None:
    counted = sum(
        decisions._size(name, part.entries.get(name), part.holds.get(name))
        for name in part.entries.keys() | part.holds.keys()
    )
    written = sum(len(text.encode()) for text in decisions.render(part).values())
    extra = decisions._size_of_extra(part)
    assert written <= counted + extra


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("- a", "config.yml"),
        ("workloads: [a]", "config.yml: workloads"),
        ("workloads: {w: [a]}", "config.yml: workloads.w"),
        ("workloads: {1: {jobs: []}}", "config.yml: workloads"),
        ("workloads: {w: {jobs: a}}", "config.yml: workloads.w.jobs"),
        ("workloads: {w: {jobs: [yes]}}", "config.yml: workloads.w.jobs[0]"),
        ("workloads: {w: {jobs: [a, a]}}", "config.yml: workloads.w.jobs"),
        ("workloads: {w: {jobs: ['*']}}", "config.yml: workloads.w.jobs[0]"),
        ("workloads: {w: {version: -1}}", "config.yml: workloads.w.version"),
        ("workloads: {w: {version: 1.0}}", "config.yml: workloads.w.version"),
        ("workloads: {w: {", "config.yml"),
        ("&a [*a]", "config.yml"),
    ],
)
def test_what_is_malformed_is_named(text: str, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        decisions.parse_entries(parse_yaml(text, "config.yml"))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"version": 2}', '{"version": 1, "turn": -1}', '{"version": 1, "workers": []}', "[" * 100_000,
     '{"version": 1, "workers": {"w": {"leaving": {"a": "1"}}}}',
     '{"version": 1, "workers": {"w": {"barrier": ["u"]}}}'],
)  # fmt: skip
def test_a_record_that_is_malformed_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        decisions.parse_record(text)


# ------------------------------------------------------------------------------------------ several parts


def big(jobs: int, version: int = 0) -> Entry:
    return Entry(tuple(f"{number:06}-{'x' * 200}" for number in range(jobs)), version)


def test_what_fits_stays_in_one_part() -> None:
    before = (Part(),)
    after = decisions.split(Config({"a": Entry(("j",))}), before)
    assert after == (Part({"a": Entry(("j",))}, turn=1),)


def test_nothing_new_is_no_turn() -> None:
    before = decisions.split(Config({"a": Entry(("j",)), "b": Entry()}, {"b": Hold(zone="z")}), ())
    assert decisions.split(decisions.join(before), before) == before


def test_a_part_that_is_full_makes_another_and_nothing_else_moves() -> None:
    three = {name: big(1_300) for name in "abc"}
    before = decisions.split(Config(three), ())
    assert [sorted(part.entries) for part in before] == [["a", "b", "c"]]
    after = decisions.split(Config({**three, "d": big(1_300)}), before)
    assert [sorted(part.entries) for part in after] == [["a", "b", "c"], ["d"]]
    grown = decisions.split(Config({**three, "d": big(1_300), "a": big(2_000, 1)}), after)
    assert [sorted(part.entries) for part in grown] == [["a", "b", "c"], ["a", "d"]]
    assert (grown[0].entries["a"], grown[1].entries["a"].version) == (after[0].entries["a"], 1)
    tidied = decisions.split(decisions.join(grown), grown)
    assert [sorted(part.entries) for part in tidied] == [["b", "c"], ["a", "d"]]
    assert {part.turn for part in tidied} == {4}
    for part in tidied:
        assert sum(len(text.encode()) for text in decisions.render(part).values()) <= 1_000_000


def test_a_list_that_no_part_holds_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(
        Malformed, match=r"list of 5000.*more workers: 5000 jobs of one worker take 1,0\d\d,\d\d\d bytes"
    ):
        decisions.split(Config({"a": big(5_000)}), ())


def test_an_entry_that_stands_in_two_parts_counts_by_its_version() -> None:
    """Its writer died between the two."""
    parts = (
        Part({"a": Entry(("old",), 3)}, {"a": Hold({"j": 3})}),
        Part({"a": Entry(("new",), 4)}, {"a": Hold({"k": 4})}),
    )
    joined = decisions.join(parts)
    assert joined.entries == {"a": Entry(("new",), 4)}
    assert joined.holds["a"].leaving == {"j": 3, "k": 4}
    healed = decisions.split(joined, parts)
    assert [sorted(part.entries) for part in healed] == [[], ["a"]]
    assert decisions.join(healed) == joined


def test_a_part_that_is_behind_is_closed_first() -> None:
    parts = (Part(turn=4), Part(turn=3), Part(turn=4))
    assert decisions.behind(parts) == [1]
    assert decisions.behind([parts[0], decisions.closed(parts[1], 4), parts[2]]) == []


def test_a_worker_is_not_removed_while_what_it_was_stands_in_another_part() -> None:
    """The head is written first, and what it was would be found alone."""
    parts = (
        Part({"a": Entry((), 5)}, {"a": Hold({"j": 5})}, turn=7),
        Part({"a": Entry(("j",), 4), "b": Entry(("k",), 0)}, turn=7),
    )
    without = Config({"b": Entry(("k",), 0)}, floor=5)
    tidied = decisions.split(without, parts)
    assert [dict(part.entries) for part in tidied] == [{"a": Entry((), 5)}, {"b": Entry(("k",), 0)}]
    assert [sorted(part.entries) for part in decisions.split(without, tidied)] == [[], ["b"]]


def test_a_part_that_is_not_there_yet_is_made_empty_before_the_turn() -> None:
    """Whoever is late finds that it is there, and is refused: there is nothing else to compare with."""
    three = {name: big(1_300) for name in "abc"}
    before = (Part(three, turn=4),)
    wanted = decisions.split(Config({**three, "d": big(1_300)}), before)
    listed, more = decisions.writes(wanted, before, 1)
    assert listed == [(1, Part(turn=4))] and "had to be made" in more
    made = (*before, Part(turn=4))
    again = decisions.split(Config({**three, "d": big(1_300)}), made)
    assert again == wanted
    assert decisions.writes(again, made, 2) == ([(0, again[0]), (1, again[1])], "")


def test_the_head_is_made_before_any_other_part() -> None:
    wanted = decisions.split(Config({name: big(1_300) for name in "abcd"}), ())
    listed, more = decisions.writes(wanted, [Part()], 0)
    assert listed == [(0, wanted[0])] and more
    assert decisions.writes(wanted[:1], [Part()], 0) == (listed, "")


def test_names_of_parts() -> None:
    assert [decisions.part_name("swarm-worker-config", number) for number in (0, 1)] == [
        "swarm-worker-config",
        "swarm-worker-config-1",
    ]

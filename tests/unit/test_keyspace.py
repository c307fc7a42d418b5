# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, ranges and the effective view, by example."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

SPACE = Space("default", 3, "abc")


def partition(name: str, start: str, end: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"range": {"start": start, "end": end}, **spec}}


def committed(name: str, results: list[dict[str, Any]], supersedes: tuple[str, ...] = ()) -> dict[str, Any]:
    status = {"phase": "Committed", "results": results, "supersedes": list(supersedes)}
    return {"metadata": {"name": name}, "status": status}


def result(name: str, start: str, end: str, primary: str, epoch: int) -> dict[str, Any]:
    return {"partition": name, "range": {"start": start, "end": end}, "primary": primary, "epoch": epoch}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.keyLength"),
        ({"keyLength": 0}, "spec.keyLength"),
        ({"keyLength": 65}, "spec.keyLength"),
        ({"keyLength": True}, "spec.keyLength"),
        ({"keyLength": 2.5}, "spec.keyLength"),
        ({"keyLength": 4, "alphabet": "a"}, "spec.alphabet"),
        ({"keyLength": 4, "alphabet": "a b"}, "spec.alphabet"),
        ({"keyLength": 4, "alphabet": 7}, "spec.alphabet"),
        ({"keyLength": 4, "fenceSeconds": 0}, "spec.fenceSeconds"),
        ({"keyLength": 4, "graceSeconds": -1}, "spec.graceSeconds"),
        ({"keyLength": 4, "followers": 4}, "spec.followers"),
        ({"keyLength": 4, "operations": "many"}, "spec.operations"),
    ],
)
def test_a_key_space_that_makes_no_sense_is_refused_by_its_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Malformed) as refused:
        keyspace.parse_space({"metadata": {"name": "s"}, "spec": spec})
    assert field in str(refused.value)


def test_what_a_key_space_does_not_say_has_a_default() -> None:
    space = keyspace.parse_space({"metadata": {"name": "s"}, "spec": {"keyLength": 2, "alphabet": "cab"}})
    assert space == Space("s", 2, "abc")
    assert len(keyspace.parse_space({"metadata": {"name": "s"}, "spec": {"keyLength": 2}}).alphabet) == 94


@pytest.mark.parametrize("key", ["ab", "abcc", "abd", ""])
def test_a_key_of_another_length_or_alphabet_is_refused(key: str) -> None:
    with pytest.raises(Malformed):
        keyspace.check_key(SPACE, key)


@pytest.mark.parametrize(
    ("start", "end"), [("b", "a"), ("b", "b"), ("", "a"), ("ba", ""), ("abcc", ""), ("d", ""), ("", "ca")]
)
def test_a_range_without_keys_or_with_two_spellings_is_refused(start: str, end: str) -> None:
    with pytest.raises(Malformed):
        keyspace.check_range(SPACE, start, end)


@pytest.mark.parametrize("key", ["", "b", "a", "c", "cb", "bba"])
def test_a_split_that_does_not_cut_strictly_inside_is_refused(key: str) -> None:
    with pytest.raises(Malformed):
        keyspace.check_split(SPACE, Range("b", "c"), key)
    assert keyspace.check_split(SPACE, Range("b", "c"), "bb") == "bb"


def test_ranges_are_closed_at_the_start_and_open_at_the_end() -> None:
    assert keyspace.contains(Range("b", "c"), "b") and not keyspace.contains(Range("b", "c"), "c")
    assert keyspace.contains(Range("b", ""), "ccc") and keyspace.contains(Range("", ""), "aaa")
    assert not keyspace.overlaps(Range("", "b"), Range("b", "")) and keyspace.overlaps(Range("", "bb"), Range("b", ""))
    assert keyspace.adjacent(Range("", "b"), Range("b", "")) and not keyspace.adjacent(Range("b", ""), Range("", "b"))
    assert keyspace.covers([Range("", "b"), Range("b", "")], Range("", ""))
    assert not keyspace.covers([Range("", "b"), Range("bb", "")], Range("", ""))


def test_the_view_is_what_is_there_and_what_is_committed() -> None:
    parts = [partition("p", "", "b", primary="w1", epoch=2), partition("q", "b", "", primary="w2", epoch=1)]
    moved = committed("a", [result("p", "", "b", "w3", 3)])
    view = keyspace.view(parts, [moved])
    assert [(fact.partition, fact.primary, fact.assignment) for fact in view.facts] == [
        ("p", "w3", "a"),
        ("q", "w2", ""),
    ]
    assert not view.gaps and not view.void
    assert keyspace.owner(view, "abc") == view.facts[0] and keyspace.owner(view, "bbb") == view.facts[1]


def test_what_is_not_committed_is_not_in_the_view() -> None:
    open_one = {**committed("a", [result("p", "", "", "w3", 3)]), "status": {"phase": "Loading"}}
    assert keyspace.view([partition("p", "", "", primary="w1", epoch=2)], [open_one]).facts[0].primary == "w1"


def test_what_is_superseded_does_not_count_although_it_is_there() -> None:
    split = committed("a", [result("c", "", "b", "w1", 3), result("d", "b", "", "w1", 3)], ("p",))
    view = keyspace.view([partition("p", "", "", primary="w1", epoch=2)], [split])
    assert [fact.partition for fact in view.facts] == ["c", "d"] and view.void == ("p",)


def test_of_facts_that_overlap_the_higher_epoch_holds_and_gaps_are_told() -> None:
    late = partition("c", "", "b", primary="w1", epoch=3)
    view = keyspace.view([late, partition("d", "", "ab", primary="w1", epoch=5)], [])
    assert [fact.partition for fact in view.facts] == ["d"] and view.void == ("c",)
    assert view.gaps == (Range("ab", ""),)
    assert keyspace.owner(view, "abc") is None
    assert keyspace.view([], []).gaps == (Range("", ""),)


def test_cuts_are_even_short_and_refused_where_there_is_no_room() -> None:
    space = Space("s", 8)
    cuts = keyspace.even_cuts(space, Range("", ""), 4)
    assert keyspace.covers(cuts, Range("", "")) and all(len(cut.end) == 1 for cut in cuts[:-1])
    assert keyspace.middle(SPACE, Range("b", "c")) == "bbb"[: len(keyspace.middle(SPACE, Range("b", "c")))]
    with pytest.raises(Malformed):
        keyspace.even_cuts(SPACE, Range("aab", "aac"), 2)
    with pytest.raises(Malformed):
        keyspace.even_cuts(SPACE, Range("", ""), 0)


def test_names_of_results_are_stable_and_do_not_grow() -> None:
    name = keyspace.result_name("p", "uid", 0)
    assert name == keyspace.result_name("p", "uid", 0) and name != keyspace.result_name("p", "uid", 1)
    assert len(keyspace.result_name(name, "other", 0)) == len(name)
    assert len(keyspace.result_name("p" * 253, "uid", 0)) <= 63

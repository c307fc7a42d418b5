# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The effective view, owners and cuts, against an oracle that looks at each key of a small key space."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

SPACE = Space("s", 3, "abc")
KEYS = ["".join(each) for each in itertools.product(SPACE.alphabet, repeat=SPACE.key_length)]
BOUNDS = sorted({key.rstrip("a") for key in KEYS})
ranges = st.tuples(st.sampled_from(BOUNDS), st.sampled_from([*BOUNDS[1:], ""])).filter(
    lambda pair: not pair[1] or pair[0] < pair[1]
)


def document(name: str, of: tuple[str, str], epoch: int) -> dict[str, Any]:
    return {"partition": name, "range": {"start": of[0], "end": of[1]}, "primary": f"w-{name}", "epoch": epoch}


@st.composite
def worlds(draw: Any) -> tuple[list[Any], list[Any]]:
    """Partitions and Assignments with epochs that differ, as those have of which one comes from the other."""
    epochs = draw(st.permutations(range(1, 13)))
    names = iter(f"p{number}" for number in range(20))
    partitions = []
    for epoch in epochs[: draw(st.integers(0, 5))]:
        said = document(next(names), draw(ranges), epoch)
        partitions.append({"metadata": {"name": said.pop("partition")}, "spec": said})
    assignments = []
    for number, epoch in enumerate(epochs[5 : 5 + draw(st.integers(0, 3))]):
        held = [obj["metadata"]["name"] for obj in partitions]
        superseded = draw(st.lists(st.sampled_from(held), max_size=2, unique=True)) if held else []
        phase = draw(st.sampled_from(["Committed", "Loading", "Aborting", "Completed"]))
        status = {"phase": phase, "results": [document(next(names), draw(ranges), epoch)], "supersedes": superseded}
        spec = {"mergeParams": {"partitions": superseded}}
        assignments.append({"metadata": {"name": f"a{number}"}, "spec": spec, "status": status})
    return partitions, assignments


def naive(partitions: list[Any], assignments: list[Any], key: str) -> str | None:
    """Who has the key when whole facts are taken by falling epoch, unless they overlap one that was taken."""
    committed = [each["status"] for each in assignments if each["status"]["phase"] == "Committed"]
    gone = {name for status in committed for name in status["supersedes"]}
    facts = [(obj["metadata"]["name"], obj["spec"]) for obj in partitions]
    facts += [(each["partition"], each) for status in committed for each in status["results"]]
    taken: dict[str, str] = {}
    for name, said in sorted(facts, key=lambda fact: -fact[1]["epoch"]):
        at, to = said["range"]["start"], said["range"]["end"]
        own = [other for other in KEYS if at <= other and (not to or other < to)]
        if name not in gone and not any(other in taken for other in own):
            taken |= dict.fromkeys(own, name)
    return taken.get(key)


@given(worlds())
def test_the_view_says_of_each_key_what_the_oracle_says(world: tuple[list[Any], list[Any]]) -> None:
    view = keyspace.view(*world)
    for key in KEYS:
        owner = keyspace.owner(view, key)
        assert (owner.partition if owner else None) == naive(*world, key)
        in_gaps = any(keyspace.contains(gap, key) for gap in view.gaps)
        assert in_gaps == (owner is None)


@given(worlds())
def test_facts_and_gaps_cover_all_without_overlap(world: tuple[list[Any], list[Any]]) -> None:
    view = keyspace.view(*world)
    parts = sorted([*(fact.range for fact in view.facts), *view.gaps], key=keyspace.order)
    assert keyspace.covers(parts, Range("", ""))
    assert not {fact.partition for fact in view.facts} & set(view.void)
    assert {obj["metadata"]["name"] for obj in world[0]} <= {fact.partition for fact in view.facts} | set(view.void)


@given(ranges, ranges)
def test_two_ranges_overlap_when_a_key_is_in_both(one: tuple[str, str], other: tuple[str, str]) -> None:
    both = [key for key in KEYS if keyspace.contains(Range(*one), key) and keyspace.contains(Range(*other), key)]
    assert keyspace.overlaps(Range(*one), Range(*other)) == bool(both)


@given(ranges, st.integers(1, 30))
def test_cuts_cover_the_range_and_are_even(of: tuple[str, str], count: int) -> None:
    whole = keyspace.check_range(SPACE, *of)
    held = [key for key in KEYS if keyspace.contains(whole, key)]
    try:
        cuts = keyspace.even_cuts(SPACE, whole, count)
    except Malformed:
        assert len(held) < count
        return
    assert len(cuts) == count and keyspace.covers(cuts, whole)
    sizes = [sum(keyspace.contains(cut, key) for key in held) for cut in cuts]
    assert max(sizes) - min(sizes) <= 1
    for cut in cuts:
        assert keyspace.check_range(SPACE, *cut) == cut


@given(ranges, st.sampled_from(BOUNDS))
def test_a_split_key_is_taken_when_both_halves_have_keys(of: tuple[str, str], key: str) -> None:
    whole = Range(*of)
    held = [other for other in KEYS if keyspace.contains(whole, other)]
    both = 0 < sum(other < key for other in held) < len(held)
    try:
        keyspace.check_split(SPACE, whole, key)
    except Malformed:
        assert not both
    else:
        assert both


@given(st.text("abcdefz-.", min_size=1, max_size=80), st.uuids(), st.integers(0, 200))
def test_names_of_results_can_be_names(stem: str, uid: Any, index: int) -> None:
    name = keyspace.result_name(stem, str(uid), index)
    assert len(name) <= 63 and name == keyspace.result_name(stem, str(uid), index)
    assert name[-9] == "-" and not name[:-9].endswith(("-", "."))
    assert len(keyspace.result_name(name, "next", index)) <= len(name)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine tickets by example: who holds, what is drawn, what is malformed, what is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant, view
from ansible_collections.muster.coordination.plugins.module_utils.decisions.tickets import Book, Terms, Ticket
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

NS = "ns"


def own(capacity: dict[str, int] | str, *, at: int = 10, settled: dict[str, int] | None = None, **upto: int) -> dict:
    """The semaphore's Lease as edited by hand; `settled` is what is in force (default: the same)."""
    made = engine.with_capacity(None, "sem", NS, capacity if settled is None else settled)
    notes = made["metadata"]["annotations"]
    notes[engine.CAPACITY] = capacity if isinstance(capacity, str) else json.dumps(capacity)
    notes[engine.IN_FORCE] = json.dumps(json.loads(notes[engine.IN_FORCE]) | {"upto": upto})
    return {**made, "metadata": {**made["metadata"], "uid": "own", "resourceVersion": str(at)}}


def ticket(place: int, *, at: int | None = None, holder: str = "", lease: int | None = None, **want: int) -> dict:
    """A ticket drawn at `place` for `want` and, with `at`, updated since."""
    who = holder or f"pod-{place}"
    claimant = Claimant(who, "" if lease else f"uid-{place}", {"x": 1}, lease_seconds=lease)
    drawn = engine.draw(Book(Terms({"x": 1}, {"x": 1}, {})), "sem", NS, claimant)
    notes = {**drawn["metadata"]["annotations"], engine.WANT: json.dumps(want or {"x": 1})}
    if at is not None:
        notes[engine.PLACE] = json.dumps({"revision": place, "uid": f"lease-{place}"})
    fixed = {"uid": f"lease-{place}", "resourceVersion": str(at or place), "annotations": notes}
    return {**drawn, "metadata": {**drawn["metadata"], **fixed}}


def book(*leases: dict[str, Any]) -> Book:
    found = engine.parse("sem", leases)
    assert found is not None
    return found


def held(*leases: dict[str, Any]) -> list[int]:
    return sorted(engine.holders(book(*leases)))


def annotate(lease: dict[str, Any], **annotations: str) -> dict[str, Any]:
    notes = {**lease["metadata"]["annotations"], **{f"muster.dev/{key}": text for key, text in annotations.items()}}
    return {**lease, "metadata": {**lease["metadata"], "annotations": notes}}


# ------------------------------------------------------------------------------------------ who holds


def test_the_first_hold_in_the_order_of_their_creation():
    assert held(ticket(30), ticket(20), own({"x": 2}), ticket(40)) == [20, 30]
    assert held(own({"x": 0}), ticket(20)) == []


def test_a_ticket_that_was_renewed_keeps_its_place():
    assert held(own({"x": 1}), ticket(20, at=99, lease=60), ticket(30)) == [20]


def test_the_place_of_a_copy_does_not_count():
    """A ticket restored from a backup, or made from the text of another, stands where it was created."""
    copy = annotate(ticket(50), place=json.dumps({"revision": 20, "uid": "lease-20"}))
    assert held(own({"x": 1}), copy, ticket(30)) == [30]


def test_who_waits_holds_back_all_it_wants_and_nothing_else():
    leases = [own({"x": 1, "y": 1, "z": 1}), ticket(20, x=1), ticket(30, x=1, y=1), ticket(40, y=1), ticket(50, z=1)]
    assert held(*leases) == [20, 50]
    assert held(leases[0], *leases[2:]) == [30, 50]


def test_counts_are_taken_all_or_none():
    assert held(own({"x": 3}), ticket(20, x=2), ticket(30, x=2), ticket(40, x=1)) == [20]


def test_a_resource_that_nobody_declares_is_waited_for_without_harm():
    assert held(own({"x": 1}), ticket(20, gone=1), ticket(30, x=1)) == [30]


@pytest.mark.parametrize("left", [20, 30])
def test_a_lowered_capacity_drains(left):
    """Two hold of what is one now: whoever leaves, nobody else comes until both have."""
    leases = [own({"x": 1}, x=30), ticket(20), ticket(30), ticket(40)]
    assert held(*leases) == [20, 30]
    staying = [lease for lease in leases if lease["metadata"]["resourceVersion"] != str(left)]
    assert held(*staying) == [50 - left]
    assert held(leases[0], leases[3]) == [40]


def test_a_name_used_again_is_not_kept():
    again = {**ticket(99), "metadata": {**ticket(20)["metadata"], "resourceVersion": "99", "uid": "lease-99"}}
    assert held(own({"x": 1}, x=30), again, ticket(30), ticket(40)) == [30]


def test_while_a_capacity_is_not_in_force_nobody_new_holds():
    found = book(own({"x": 3}, settled={"x": 1}), ticket(20), ticket(30))
    assert not found.terms.is_settled
    assert engine.still_held(found, {20, 15}) == {20}


def test_putting_a_capacity_in_force_names_the_last_place_of_those_who_held():
    before = book(own({"x": 2, "y": 1}), ticket(20), ticket(30), ticket(35, y=1), ticket(40))
    keepers = [t for t in before.tickets if t.place in engine.holders(before)]
    edited = own({"x": 1}, at=50, settled={"x": 2, "y": 1})
    after = engine.put_in_force(edited, keepers)
    terms = engine.read_terms(after)
    assert terms.is_settled and terms.upto == {"x": 30, "y": 35}
    assert held(after, ticket(20), ticket(30), ticket(35, y=1), ticket(40)) == [20, 30, 35]


def test_what_others_wrote_beside_it_is_kept():
    mine = annotate(own({"x": 2}, settled={"x": 1}), note="theirs")
    record = json.loads(mine["metadata"]["annotations"][engine.IN_FORCE]) | {"later": [1]}
    mine = annotate(mine, settled=json.dumps(record))
    mine["metadata"]["labels"]["app"] = "theirs"
    mine["spec"]["strategy"] = "theirs"
    after = engine.put_in_force(mine, [])
    notes = after["metadata"]["annotations"]
    assert notes["muster.dev/note"] == "theirs" and json.loads(notes[engine.IN_FORCE])["later"] == [1]
    assert after["metadata"]["labels"] == {engine.LABEL: "sem", "app": "theirs"}
    assert after["spec"] == {"strategy": "theirs"}
    changed = engine.with_capacity(after, "sem", NS, {"x": 5})
    assert changed["metadata"]["annotations"] == {**notes, engine.CAPACITY: '{"x":5}'}


def test_the_ticket_of_a_pod_that_has_ended_holds_nothing():
    leases = [ticket(20), ticket(30)]
    before = own({"x": 1})
    after = engine.put_out(before, leases, {"uid-20"})
    assert held(after, *leases) == [30]
    assert engine.read_terms(after).ended == {20: "pod-20"}
    assert engine.put_out(after, leases, {"uid-20"}) == after, "nothing new: no write"
    assert engine.read_terms(engine.put_out(after, leases[1:], set())).ended == {}, "it is forgotten with its ticket"


# ------------------------------------------------------------------------------------------ drawing


def test_a_ticket_of_a_pod_is_owned_by_it():
    drawn = engine.draw(book(own({"x": 1})), "sem", NS, Claimant("web-0", "u-1", {"x": 1}))
    assert drawn["metadata"] == {
        "name": "sem.u-1",
        "namespace": NS,
        "labels": {engine.LABEL: "sem"},
        "annotations": {engine.WANT: '{"x":1}'},
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "web-0", "uid": "u-1"}],
    }
    assert drawn["spec"] == {"holderIdentity": "web-0"}


def test_a_ticket_of_another_holder_has_a_lease_and_one_name():
    names = set()
    for holder in ("ci-1", "CI 1/ü", "x" * 253):
        drawn = engine.draw(book(own({"x": 1})), "sem", NS, Claimant(holder, "", {"x": 1}, lease_seconds=60))
        assert drawn["spec"] == {"holderIdentity": holder, "leaseDurationSeconds": 60}
        assert "ownerReferences" not in drawn["metadata"]
        names.add(drawn["metadata"]["name"])
    assert len(names) == 3 and all(len(name) == len("sem.") + 32 for name in names)


def test_any_one_resource_is_the_one_with_most_left():
    claimant = Claimant("web-0", "u-1", {ANY: 1})

    def chosen(*leases: dict[str, Any]) -> dict[str, int]:
        drawn = engine.draw(book(*leases), "sem", NS, claimant)
        assert drawn["metadata"]["annotations"][engine.ANY_ONE] == "true"
        return json.loads(drawn["metadata"]["annotations"][engine.WANT])

    assert chosen(own({"x": 2, "y": 3})) == {"y": 1}
    assert chosen(own({"x": 2, "y": 3}), ticket(20, y=1), ticket(30, y=1)) == {"x": 1}
    assert chosen(own({"x": 1, "y": 10, "z": 0}), ticket(20, x=1), ticket(30, y=10), ticket(40, y=1)) == {"x": 1}
    assert chosen(own({"x": 1, "y": 10}), ticket(20, x=1), ticket(25, x=1), ticket(30, y=10), ticket(40, y=1)) == {
        "y": 1
    }, "one waits for each, and y comes free more often"


def test_those_who_draw_at_once_do_not_all_choose_the_same():
    seen = book(own({f"gpu-{number}": 1 for number in range(8)}))
    chosen = {engine.draw(seen, "sem", NS, Claimant(f"w-{n}", f"u-{n}", {ANY: 1}))["metadata"]["annotations"][
        engine.WANT
    ] for n in range(50)}  # fmt: skip
    assert len(chosen) == 8


def test_who_would_take_any_moves_to_what_came_free_in_order():
    def waiting(place: int) -> dict[str, Any]:
        return annotate(ticket(place, x=1), any="true")

    crowded = [own({"x": 1, "y": 2}), ticket(20, x=1), waiting(30), waiting(40), ticket(50, x=1), waiting(60)]
    assert engine.moves(book(*crowded)) == {30: "y", 40: "y"}
    assert engine.moves(book(*crowded, ticket(70, y=1))) == {30: "y"}
    assert engine.moves(book(*crowded, ticket(70, y=2), ticket(80, y=1))) == {}
    assert engine.moves(book(crowded[0], waiting(30))) == {}, "it holds"
    assert engine.moves(book(own({"x": 1, "y": 2}, settled={"x": 1}), *crowded[1:])) == {}, "not in force yet"


def test_one_who_draws_leaves_what_is_spare_to_those_who_wait_for_any():
    crowded = [own({"x": 1, "y": 1}), ticket(20, x=1), annotate(ticket(30, x=1), any="true")]
    drawn = engine.draw(book(*crowded), "sem", NS, Claimant("w", "u", {ANY: 1}))
    assert json.loads(drawn["metadata"]["annotations"][engine.WANT]) == {"x": 1}


@pytest.mark.parametrize(
    ("claimant", "field", "remedy"),
    [
        (Claimant("w", "u", {"z": 1}), "resource", "name one that muster.dev/capacity declares (x, y), or declare it"),
        (Claimant("w", "u", {"x": 1}, priority=3), "priority", "use the engine annotations"),
    ],
)
def test_what_can_not_be_drawn_says_what_to_do(claimant, field, remedy):
    with pytest.raises(Malformed) as caught:
        engine.draw(book(own({"x": 1, "y": 1})), "sem", NS, claimant)
    assert caught.value.field == field and remedy in str(caught.value)


def test_any_of_nothing_says_what_to_do():
    with pytest.raises(Malformed, match=r"metadata.annotations\[muster.dev/capacity\] is {}: declare a resource there"):
        engine.draw(book(own({})), "sem", NS, Claimant("w", "u", {ANY: 1}))


def test_a_renewal_moves_the_revision_and_nothing_else():
    claimant = Claimant("ci", "", {"x": 1}, lease_seconds=90)
    drawn = annotate(ticket(20, holder="ci", lease=60), note="theirs")
    drawn["spec"]["strategy"] = "theirs"
    once = engine.renewed(drawn, claimant, now="t1")
    stored = {**once, "metadata": {**once["metadata"], "resourceVersion": "77"}}
    twice = engine.renewed(stored, claimant, now="t2")
    stored = {**twice, "metadata": {**twice["metadata"], "resourceVersion": "99"}}
    read = engine.read_ticket(stored)
    assert isinstance(read, Ticket)
    assert (read.place, read.beat, read.lease_seconds) == (20, 99, 90)
    assert stored["metadata"]["annotations"]["muster.dev/note"] == "theirs"
    assert stored["spec"]["strategy"] == "theirs"


# ------------------------------------------------------------------------------------------ malformed, foreign


def without(lease: dict[str, Any], *path: str) -> dict[str, Any]:
    found = json.loads(json.dumps(lease))
    inner = found
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return found


@pytest.mark.parametrize(
    ("broken", "trouble"),
    [
        (annotate(ticket(20), want="{"), "Lease sem.uid-20 metadata.annotations[muster.dev/want] is '{'"),
        (annotate(ticket(20), want="{}"), "name 1 to 16 resources"),
        (annotate(ticket(20), want='{"x": 0}'), "a whole number from 1 to"),
        (annotate(ticket(20), want='{"x": -1}'), "give a whole number from 0"),
        (annotate(ticket(20), want='{"x": true}'), "give a whole number from 0"),
        (annotate(ticket(20), want='{"*": 1}'), "not '*'"),
        (without(ticket(20), "metadata", "annotations"), "name 1 to 16 resources"),
        (without(ticket(20), "metadata", "ownerReferences"), "nothing else ends it"),
        (annotate(ticket(20), place='{"revision": 21, "uid": "lease-20"}'), "revision is 21: give a whole number"),
        (annotate(ticket(20), place='{"uid": "lease-20"}'), "muster.dev/place].revision is None"),
        (annotate(ticket(20), place="20"), "muster.dev/place] is 20: give a JSON object"),
        (ticket(20, lease=60) | {"spec": {"leaseDurationSeconds": 2}}, "spec.leaseDurationSeconds is 2"),
    ],
)
def test_a_ticket_that_makes_no_sense_is_told_and_stops_nobody(broken, trouble):
    found = book(own({"x": 1}), broken, ticket(30))
    assert engine.holders(found) == {30}
    assert len(found.troubles) == 1 and trouble in found.troubles[0]


def test_a_place_that_two_have_is_the_first_ones():
    forged = {**ticket(40), "metadata": {**ticket(40)["metadata"], "name": "sem.forged"}}
    forged = annotate(forged, place=json.dumps({"revision": 20, "uid": "lease-40"}))
    found = book(own({"x": 1}), forged, ticket(20))
    assert [t.name for t in found.tickets] == ["sem.uid-20"]
    assert "Lease sem.forged metadata.annotations[muster.dev/place] is 20: remove the Lease" in found.troubles[0]


def test_a_ticket_that_is_being_deleted_holds_nothing():
    leaving = ticket(20)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert held(own({"x": 1}), leaving, ticket(30)) == [30]


@pytest.mark.parametrize(
    ("broken", "field"),
    [
        (annotate(own({"x": 1}), capacity="{"), "metadata.annotations[muster.dev/capacity]"),
        (annotate(own({"x": 1}), capacity='{"x": -1}'), "metadata.annotations[muster.dev/capacity].x"),
        (annotate(own({"x": 1}), capacity='{"x": "1"}'), "metadata.annotations[muster.dev/capacity].x"),
        (annotate(own({"x": 1}), settled="[]"), "metadata.annotations[muster.dev/settled]"),
        (annotate(own({"x": 1}), settled='{"version": 2}'), "metadata.annotations[muster.dev/settled].version"),
        (annotate(own({"x": 1}), settled='{"version": 1, "capacity": {"x": 1}, "upto": 1}'), "settled].upto"),
        (annotate(own({"x": 1}), ended='{"x": "pod"}'), "metadata.annotations[muster.dev/ended]"),
    ],
)
def test_what_makes_no_sense_is_refused_and_never_overwritten(broken, field):
    terms = engine.read_terms(broken)
    assert not terms.is_settled and terms.error is not None and field in terms.error.field
    for write in (
        lambda: engine.put_in_force(broken, []),
        lambda: engine.put_out(broken, [], {"uid-20"}),
        lambda: engine.with_capacity(broken, "sem", NS, {"x": 9}),
    ):
        with pytest.raises(Malformed) as caught:
            write()
        assert caught.value == terms.error or str(caught.value) == str(terms.error)


def test_a_lease_of_somebody_else_is_not_made_a_semaphore():
    election = {"metadata": {"name": "controller", "namespace": NS}, "spec": {"holderIdentity": "a"}}
    with pytest.raises(Malformed, match="name is 'controller': choose another name, or label the Lease"):
        engine.with_capacity(election, "controller", NS, {"x": 1})


@pytest.mark.parametrize("name", ["", "x" * 64])
def test_a_name_that_is_no_label_is_refused(name):
    with pytest.raises(Malformed, match="1 to 63 characters"):
        engine.with_capacity(None, name, NS, {"x": 1})


def test_versions_that_are_no_numbers_are_refused():
    odd = {**ticket(20), "metadata": {**ticket(20)["metadata"], "resourceVersion": "abc"}}
    assert "use the engine annotations" in book(own({"x": 1}), odd).troubles[0]


def test_a_semaphore_made_by_hand_is_in_force_when_it_was_put_in_force():
    made = without(own({"x": 1}), "metadata", "annotations", engine.IN_FORCE)
    found = book(made, ticket(20))
    assert not found.terms.is_settled and engine.holders(found) == frozenset()
    assert held(engine.put_in_force(made, []), ticket(20)) == [20]


def test_an_empty_capacity_is_not_in_force_by_itself():
    """Its annotations were all removed by hand: who held must not lose it by that."""
    assert not book(without(own({}), "metadata", "annotations")).terms.is_settled


# ------------------------------------------------------------------------------------------ for people


def test_it_is_shown_as_any_semaphore_is():
    any_one = annotate(ticket(40, x=1), any="true")
    found = book(own({"x": 1}), ticket(20), ticket(30, lease=60, holder="ci", x=2), any_one)
    assert view(engine.standing(found, engine.holders(found))) == {
        "resources": [{"name": "x", "capacity": 1, "held": 1, "free": 0}],
        "holders": [
            {"holder": "pod-20", "resource": "x", "resources": {"x": 1}, "fence": 20}
            | {"since": "", "uid": "uid-20", "lease": None},
        ],
        "waiters": [
            {"place": 1, "holder": "ci", "want": None, "wants": {"x": 2}} | {"priority": 0, "uid": "", "lease": 60},
            {"place": 2, "holder": "pod-40", "want": "*", "wants": {"*": 1}}
            | {"priority": 0, "uid": "uid-40", "lease": None},
        ],
    }


def test_two_pods_of_one_name_are_told_apart():
    found = book(own({"x": 2}), ticket(20, holder="web-0"), ticket(30, holder="web-0"))
    assert sorted(engine.standing(found, {20}).grants) == ["web-0 (uid-20)"]
    assert engine.standing(found, {20}).queue[0].holder == "web-0 (uid-30)"

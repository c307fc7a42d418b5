# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of the semaphore, one example each, on the pure functions."""

from __future__ import annotations

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    ANY,
    Claimant,
    Grant,
    Lease,
    Semaphore,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

NOW = "2026-01-31T12:00:00Z"


def who(
    name: str,
    *,
    want: str | dict[str, int] = ANY,
    uid: str | None = None,
    priority: int = 0,
    lease: int | None = None,
) -> Claimant:
    wants = {want: 1} if isinstance(want, str) else want
    return Claimant(name, f"{name}-uid" if uid is None else uid, wants, priority, lease)


def claimed(semaphore: Semaphore, *claimants: Claimant) -> Semaphore:
    for claimant in claimants:
        semaphore = engine.claim(semaphore, claimant, now=NOW, enqueue=True).semaphore
    return semaphore


def holders(semaphore: Semaphore) -> dict[str, str]:
    return {name: next(iter(grant.resources)) for name, grant in sorted(semaphore.grants.items())}


def queue(semaphore: Semaphore) -> list[str]:
    return [waiter.holder for waiter in semaphore.order()]


# ------------------------------------------------------------------------------------------ claim


def test_a_free_permit_is_granted_with_a_fence():
    decision = engine.claim(Semaphore({"gpu": 1}, epoch=10), who("a"), now=NOW, enqueue=False)
    assert decision.outcome == "granted"
    grant = decision.semaphore.grants["a"]
    assert (grant.uid, grant.resources, grant.since) == ("a-uid", {"gpu": 1}, NOW)
    assert 10 < grant.fence == decision.semaphore.epoch


def test_claiming_again_changes_nothing_and_keeps_the_fence():
    once = claimed(Semaphore({"gpu": 2}), who("a"))
    again = engine.claim(once, who("a"), now="later", enqueue=True)
    assert again.outcome == "held"
    assert again.semaphore is once


def test_any_resource_means_the_one_with_most_left():
    assert holders(claimed(Semaphore({"gpu": 1, "tpu": 3, "zpu": 3}), who("a"))) == {"a": "tpu"}


def test_nothing_free_is_busy_and_changes_nothing_or_a_place_in_the_queue():
    full = claimed(Semaphore({"gpu": 1}), who("a"))
    busy = engine.claim(full, who("b"), now=NOW, enqueue=False)
    assert (busy.outcome, busy.semaphore) == ("busy", full)
    assert "a (fence" in busy.reasons[0] and "gpu 1 of 1" in busy.reasons[0]
    waiting = engine.claim(full, who("b"), now=NOW, enqueue=True)
    assert waiting.outcome == "waiting"
    assert queue(waiting.semaphore) == ["b"]
    assert waiting.semaphore.place("b") == 1 and waiting.semaphore.place("a") is None


def test_a_waiter_that_asks_again_keeps_its_place():
    before = claimed(Semaphore({"gpu": 1}), who("a"), who("b"), who("c"))
    again = engine.claim(before, who("b"), now=NOW, enqueue=True)
    assert again.semaphore == before


def test_a_waiter_that_wants_something_else_goes_to_the_end():
    before = claimed(Semaphore({"gpu": 1, "tpu": 0}), who("a"), who("b", want="gpu"), who("c"))
    after = engine.claim(before, who("b", want="tpu"), now=NOW, enqueue=True).semaphore
    assert queue(after) == ["c", "b"]
    assert after.epoch > before.epoch


def test_nobody_barges_past_those_who_wait():
    full = claimed(Semaphore({"gpu": 1}), who("a"), who("b"))
    by_hand = Semaphore({"gpu": 2}, full.grants, full.queue, full.epoch)  # one was added with kubectl edit
    late = engine.claim(by_hand, who("c"), now=NOW, enqueue=True)
    assert holders(late.semaphore) == {"a": "gpu", "b": "gpu"}
    assert late.outcome == "waiting"


def test_a_busy_answer_does_not_keep_what_is_free_from_those_who_wait():
    full = claimed(Semaphore({"gpu": 1}), who("a"), who("b"))
    by_hand = Semaphore({"gpu": 2}, full.grants, full.queue, full.epoch)
    assert engine.claim(by_hand, who("c"), now=NOW, enqueue=False).outcome == "busy"


def test_a_waiter_for_one_resource_does_not_hold_up_those_who_want_another():
    full = claimed(Semaphore({"gpu": 1, "tpu": 1}), who("a", want="gpu"), who("b", want="gpu"))
    assert holders(claimed(full, who("c", want="tpu"))) == {"a": "gpu", "c": "tpu"}


def test_an_unknown_resource_is_refused_with_the_known_ones():
    with pytest.raises(Malformed, match=r"resource is 'cpu'.*distributor_capacity.*\(gpu, tpu\)"):
        engine.claim(Semaphore({"gpu": 1, "tpu": 1}), who("a", want="cpu"), now=NOW, enqueue=True)


def test_a_second_resource_is_refused_with_what_is_held():
    held = claimed(Semaphore({"gpu": 1, "tpu": 1}), who("a", want="gpu"))
    with pytest.raises(MusterError, match=r"a holds gpu.*asks for tpu.*release it first"):
        engine.claim(held, who("a", want="tpu"), now=NOW, enqueue=True)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("holder", {"holder": ""}),
        ("holder", {"holder": "x" * 254}),
        ("priority", {"priority": 1001}),
        ("lease", {"lease_seconds": 2}),
        ("lease", {"lease_seconds": 604801}),
        ("want", {"want": {}}),
        ("want", {"want": {"gpu": 0}}),
        ("want", {"want": {"gpu": 2**31}}),
        ("want", {"want": {"gpu": True}}),
        ("want", {"want": {"gpu": "2"}}),
        ("want", {"want": {"": 1}}),
        ("want", {"want": {"x" * 254: 1}}),
        ("want", {"want": {ANY: 2}}),
        ("want", {"want": {ANY: 1, "gpu": 1}}),
        ("want", {"want": {f"r{number}": 1 for number in range(17)}}),
    ],
)
def test_a_claim_that_makes_no_sense_is_refused_by_name(field, wrong):
    with pytest.raises(Malformed) as refused:
        Claimant(**{"holder": "a", "uid": "u", "want": {"gpu": 1}, **wrong})
    assert refused.value.field == field


# ------------------------------------------------------------------------------------------ several resources


def several(*claimants: Claimant, **capacity: int) -> Semaphore:
    return claimed(Semaphore(capacity, mode=engine.V2), *claimants)


def has(semaphore: Semaphore) -> dict[str, dict[str, int]]:
    return {name: dict(grant.resources) for name, grant in sorted(semaphore.grants.items())}


def test_a_claim_of_several_resources_gets_all_of_them_or_waits_for_all_of_them():
    semaphore = several(who("a", want={"gpu": 2, "tpu": 1}), who("b", want={"gpu": 2, "tpu": 1}), gpu=4, tpu=1)
    assert has(semaphore) == {"a": {"gpu": 2, "tpu": 1}}
    assert semaphore.free() == {"gpu": 2, "tpu": 0}
    assert has(engine.release(semaphore, "a", "a-uid", now=NOW).semaphore) == {"b": {"gpu": 2, "tpu": 1}}


def test_what_one_who_waits_wants_is_kept_from_those_behind_it_and_nothing_else():
    before = several(who("a", want="gpu"), who("big", want={"gpu": 2, "tpu": 1}), gpu=2, tpu=1, zpu=1)
    after = claimed(before, who("b", want="gpu"), who("c", want="tpu"), who("d", want="zpu"), who("e"))
    assert has(after) == {"a": {"gpu": 1}, "d": {"zpu": 1}}
    assert queue(after) == ["big", "b", "c", "e"]
    assert has(engine.release(after, "a", "a-uid", now=NOW).semaphore) == {"big": {"gpu": 2, "tpu": 1}, "d": {"zpu": 1}}


def test_several_that_stand_behind_are_served_in_one_step_when_the_large_one_leaves():
    before = several(who("a", want="gpu"), who("big", want={"gpu": 3}), gpu=3)
    before = claimed(before, who("b", want={"gpu": 2}), who("c", want="gpu"))
    assert has(engine.release(before, "big", "big-uid", now=NOW).semaphore) == {"a": {"gpu": 1}, "b": {"gpu": 2}}


def test_a_large_claim_grows_old_like_any_other():
    before = several(who("a", want={"gpu": 2}), who("big", want={"gpu": 2}), gpu=2)
    for number in range(engine.AGEING + 1):
        before = claimed(before, who(f"b{number}", want="gpu", priority=1))
    order = queue(before)
    assert order.index("b0") < order.index("big") < order.index(f"b{engine.AGEING}")


def test_more_than_one_permit_needs_mode_v2_and_says_so():
    for want in ({"gpu": 2}, {"gpu": 1, "tpu": 1}):
        with pytest.raises(MusterError, match=r"in mode v1 .*set mode v2 with k8s_semaphore; no old Distributor"):
            engine.claim(Semaphore({"gpu": 2, "tpu": 1}), who("a", want=want), now=NOW, enqueue=True)


def test_more_than_there_is_is_refused_when_it_is_asked_for():
    before = several(who("a", want="gpu"), gpu=2, tpu=0)
    with pytest.raises(Malformed, match=r"is 'gpu=3': ask for no more than the capacity, which is 2 \(distrib"):
        claimed(before, who("b", want={"gpu": 3}))
    with pytest.raises(Malformed, match=r"resource is 'tpu=1'.* which is 0"):
        claimed(before, who("b", want={"gpu": 1, "tpu": 1}))
    assert queue(claimed(before, who("b", want="tpu"))) == ["b"], "out of service: it waits, and harms nobody"


def test_one_who_waits_goes_on_waiting_when_the_capacity_is_lowered_under_it():
    before = several(who("a", want={"gpu": 2}), who("b", want={"gpu": 2}), gpu=2)
    lowered = engine.with_capacity(before, {"gpu": 1}, now=NOW)
    again = engine.claim(lowered, who("b", want={"gpu": 2}), now=NOW, enqueue=True)
    assert (again.outcome, again.semaphore) == ("waiting", lowered)
    assert engine.out_of_reach(lowered.capacity, {"gpu": 2}) == (
        "waits for 2 of gpu while the capacity is 1 of gpu: until that is raised"
    )
    assert engine.out_of_reach({}, {"gone": 1}) and not engine.out_of_reach({"gpu": 2}, {"gpu": 2})
    raised = engine.with_capacity(engine.release(lowered, "a", "a-uid", now=NOW).semaphore, {"gpu": 2}, now=NOW)
    assert has(raised) == {"b": {"gpu": 2}}


def test_who_has_one_thing_and_asks_for_another_is_told_what_it_has():
    held = several(who("a", want={"gpu": 2}), gpu=2)
    assert engine.claim(held, who("a"), now=NOW, enqueue=True).outcome == "held", "it is content with what it has"
    with pytest.raises(MusterError, match=r"a holds 2 of gpu \(fence 2\) and asks for gpu: a holder has one claim"):
        claimed(held, who("a", want="gpu"))


def test_the_mode_is_changed_while_nobody_has_more_than_it_can_say():
    plain = claimed(Semaphore({"gpu": 1}), who("a"), who("b", want="gpu"))
    assert engine.with_mode(plain, engine.V1) is plain
    assert engine.with_mode(engine.with_mode(plain, engine.V2), engine.V1) == plain
    waits = several(who("a", want="gpu"), who("b", want={"gpu": 2}), gpu=2)
    for more in (several(who("b", want={"gpu": 2}), gpu=2), waits):
        with pytest.raises(MusterError, match=r"more for b \(2 of gpu\): let them leave first, or keep mode v2"):
            engine.with_mode(more, engine.V1)


@pytest.mark.parametrize(
    ("items", "want"),
    [
        ([], {ANY: 1}),
        (["*"], {ANY: 1}),
        (["gpu"], {"gpu": 1}),
        (["gpu=3", "db"], {"gpu": 3, "db": 1}),
        (["a=b"], {"a=b": 1}),
        (["a=b=2"], {"a=b": 2}),
        (["a="], {"a=": 1}),
        (["a=٣"], {"a=٣": 1}),
        (["gpu=2147483647"], {"gpu": 2147483647}),
    ],
)
def test_a_want_is_read_from_texts(items, want):
    assert engine.parse_want(items) == want


@pytest.mark.parametrize(
    "items",
    [
        *(["gpu", "gpu"], ["gpu=1", "gpu=2"], ["gpu=0"], ["gpu=2147483648"], [f"gpu={'9' * 5000}"], ["=3"], [""]),
        *(["*=2"], ["*", "gpu"], ["x" * 254], [f"r{number}" for number in range(17)]),
    ],
)
def test_a_want_that_makes_no_sense_names_the_resource(items):
    with pytest.raises(Malformed) as refused:
        engine.parse_want(items)
    assert refused.value.field == "resource"


def test_resources_are_said_in_words():
    assert engine.said({"gpu": 2, "licence": 1}) == "2 of gpu, licence"
    assert engine.said({ANY: 1}) == "any resource"


# ------------------------------------------------------------------------------------------ release and hand-off


def test_release_and_the_grant_to_the_head_of_the_queue_are_one_step():
    before = claimed(Semaphore({"gpu": 1}), who("a"), who("b"), who("c"))
    after = engine.release(before, "a", "a-uid", now=NOW).semaphore
    assert holders(after) == {"b": "gpu"}
    assert queue(after) == ["c"]
    assert after.grants["b"].fence > before.grants["a"].fence


def test_one_step_grants_all_that_fits():
    before = claimed(Semaphore({"gpu": 0}), *(who(f"w{n}") for n in range(5)))
    after = engine.with_capacity(before, {"gpu": 3}, now=NOW)
    assert holders(after) == {"w0": "gpu", "w1": "gpu", "w2": "gpu"}
    assert [after.grants[f"w{n}"].fence for n in range(3)] == sorted(after.grants[f"w{n}"].fence for n in range(3))
    assert queue(after) == ["w3", "w4"]


def test_releasing_what_one_does_not_have_changes_nothing():
    before = claimed(Semaphore({"gpu": 1}), who("a"))
    for name, uid in (("b", "b-uid"), ("a", "another-uid")):
        decision = engine.release(before, name, uid, now=NOW)
        assert (decision.outcome, decision.semaphore) == ("absent", before)


def test_releasing_without_a_uid_goes_by_the_name():
    assert holders(engine.release(claimed(Semaphore({"gpu": 1}), who("a")), "a", None, now=NOW).semaphore) == {}


def test_a_waiter_that_leaves_keeps_what_it_was_granted_meanwhile():
    served = claimed(Semaphore({"gpu": 1}), who("a"))
    assert engine.release(served, "a", "a-uid", now=NOW, keep_grant=True).semaphore is served
    waiting = claimed(served, who("b"))
    assert queue(engine.release(waiting, "b", "b-uid", now=NOW, keep_grant=True).semaphore) == []


# ------------------------------------------------------------------------------------------ order


def test_higher_priority_first_and_first_come_first_served_within_one():
    before = claimed(
        Semaphore({"gpu": 0}), who("low", priority=-1), who("b"), who("a"), who("high", priority=5), who("c")
    )
    assert queue(before) == ["high", "b", "a", "c", "low"]


def test_age_beats_priority_at_last():
    old = claimed(Semaphore({"gpu": 0}), who("old"))
    young = claimed(old, who("young", priority=1))
    assert queue(young) == ["young", "old"]
    later = Semaphore(young.capacity, young.grants, young.queue, young.epoch + engine.AGEING - 1)
    # the old one is a number ahead, so it gains its point one number earlier, and then the earlier place decides
    assert queue(later) == ["old", "young"]


def test_a_priority_can_be_changed_while_waiting():
    before = claimed(Semaphore({"gpu": 0}), who("a"), who("b"))
    assert queue(claimed(before, who("b", priority=7))) == ["b", "a"]


# ------------------------------------------------------------------------------------------ capacity


def test_lowered_capacity_revokes_nobody_and_drains():
    full = claimed(Semaphore({"gpu": 3}), who("a"), who("b"), who("c"), who("d"))
    lowered = engine.with_capacity(full, {"gpu": 1}, now=NOW)
    assert holders(lowered) == {"a": "gpu", "b": "gpu", "c": "gpu"}
    assert lowered.free() == {"gpu": -2}
    drained = engine.release(lowered, "a", "a-uid", now=NOW).semaphore
    drained = engine.release(drained, "b", "b-uid", now=NOW).semaphore
    assert holders(drained) == {"c": "gpu"}
    assert holders(engine.release(drained, "c", "c-uid", now=NOW).semaphore) == {"d": "gpu"}


def test_a_resource_that_is_no_longer_declared_drains_too():
    full = claimed(Semaphore({"gpu": 1}), who("a"), who("b"))
    gone = engine.with_capacity(full, {"tpu": 0}, now=NOW)
    assert holders(gone) == {"a": "gpu"}
    assert holders(engine.release(gone, "a", "a-uid", now=NOW).semaphore) == {}


def test_the_same_capacity_changes_nothing():
    before = claimed(Semaphore({"gpu": 1}), who("a"))
    assert engine.with_capacity(before, {"gpu": 1}, now=NOW) is before


# ------------------------------------------------------------------------------------------ who is dead


def test_the_dead_are_taken_out_and_their_permits_handed_on():
    before = claimed(Semaphore({"gpu": 1}), who("a"), who("b"), who("c"))
    after = engine.reap(before, {("a", "a-uid"), ("b", "b-uid")}, now=NOW).semaphore
    assert holders(after) == {"c": "gpu"}
    assert queue(after) == []


def test_a_recycled_name_is_another_holder_with_another_fence():
    before = claimed(Semaphore({"gpu": 1}), who("web-0", uid="first"))
    assert engine.suspects(before, {"web-0": "second"}) == [("web-0", "first")]
    with pytest.raises(MusterError, match="used by another holder"):
        engine.claim(before, who("web-0", uid="second"), now=NOW, enqueue=True)
    reaped = engine.reap(before, {("web-0", "first")}, now=NOW).semaphore
    after = claimed(reaped, who("web-0", uid="second"))
    assert after.grants["web-0"].fence > before.grants["web-0"].fence
    assert engine.reap(after, {("web-0", "first")}, now=NOW).semaphore == after


def test_the_living_and_those_with_a_lease_are_not_suspected():
    semaphore = claimed(Semaphore({"gpu": 2}), who("pod"), who("ci", uid="", lease=60), who("waits"))
    assert engine.suspects(semaphore, {"pod": "pod-uid", "waits": "waits-uid"}) == []
    assert set(engine.suspects(semaphore, {})) == {("pod", "pod-uid"), ("waits", "waits-uid")}


def test_whom_an_old_distributor_wrote_is_judged_by_name():
    semaphore = Semaphore({"gpu": 2}, {"old": Grant(None, {"gpu": 1})})
    assert engine.suspects(semaphore, {"old": "any uid"}) == []
    assert engine.suspects(semaphore, {}) == [("old", None)]
    assert holders(engine.reap(semaphore, {("old", None)}, now=NOW).semaphore) == {}


def test_those_whose_pod_is_being_deleted_keep_what_they_have_and_wait_no_more():
    before = claimed(Semaphore({"gpu": 1}), who("a"), who("b"), who("c"))
    after = engine.reap(before, {("a", "a-uid")}, leaving={("b", "b-uid"), ("c", "another")}, now=NOW).semaphore
    assert holders(after) == {"c": "gpu"}
    assert engine.reap(after, (), leaving={("c", "c-uid")}, now=NOW).semaphore == after


# ------------------------------------------------------------------------------------------ leases


def test_a_lease_is_renewed_by_a_beat_and_by_its_own_holder_only():
    before = claimed(Semaphore({"gpu": 1}), who("ci", uid="", lease=60), who("waits", uid="", lease=30))
    assert engine.leases(before) == {("ci", ""): Lease(60), ("waits", ""): Lease(30)}
    after = engine.renew(engine.renew(before, "ci", ""), "waits", "")
    assert engine.leases(after) == {("ci", ""): Lease(60, 1), ("waits", ""): Lease(30, 1)}
    assert engine.renew(before, "ci", "another") == before
    assert after.grants["ci"].fence == before.grants["ci"].fence


def test_a_claim_with_another_lease_takes_its_length():
    before = claimed(Semaphore({"gpu": 1}), who("ci", uid="", lease=60), who("waits", uid="", lease=60))
    after = claimed(before, who("ci", uid="", lease=600), who("waits", uid="", lease=30))
    assert after.grants["ci"].lease.seconds == 600
    assert after.grants["ci"].fence == before.grants["ci"].fence
    assert after.queue[0].lease.seconds == 30
    assert queue(after) == queue(before)


def test_a_waiter_takes_its_lease_along_into_the_grant():
    before = claimed(Semaphore({"gpu": 1}), who("a"), who("ci", uid="", lease=60))
    assert engine.release(before, "a", "a-uid", now=NOW).semaphore.grants["ci"].lease == Lease(60)


# ------------------------------------------------------------------------------------------ beside an old Distributor


def test_what_an_old_distributor_assigned_to_ones_name_is_taken_over_with_a_fence_of_its_own():
    numbered = engine.settle(Semaphore({"gpu": 2}, {"a": Grant(None, {"gpu": 1})}, epoch=3), now=NOW)
    assert numbered.grants["a"].fence == 4
    other = claimed(numbered, who("b"))
    adopted = engine.claim(other, who("a"), now=NOW, enqueue=True)
    assert adopted.outcome == "granted"
    assert adopted.semaphore.grants["a"].uid == "a-uid"
    # the number given while nobody knew whose it was may be that of a Pod which is gone: never told again
    assert adopted.semaphore.grants["a"].fence > other.grants["b"].fence


def test_one_whom_it_served_in_the_queue_waits_no_more():
    waiting = claimed(Semaphore({"gpu": 1}), who("a"), who("b"))
    annotations = {
        **engine.render(waiting),
        engine.CAPACITY: '{"gpu": 2}',
        engine.ASSIGNMENT: '{"a": "gpu", "b": "gpu"}',
    }
    seen = engine.parse(annotations)
    assert queue(seen) == []
    assert (seen.grants["b"].uid, seen.grants["b"].fence) == (None, 0)
    assert seen.grants["a"] == waiting.grants["a"]


def test_a_run_writes_down_at_once_whom_it_took_out():
    """Else the name comes back by an old Distributor's hand, and is taken for the one that is gone."""
    held = claimed(Semaphore({"gpu": 1}), who("web-0", uid="first"))
    taken_out = engine.parse({**engine.render(held), engine.CAPACITY: '{"gpu": 1}', engine.ASSIGNMENT: "{}"})
    put_right = engine.reap(taken_out, set(), now=NOW).semaphore
    assert put_right != taken_out
    annotations = {**engine.render(put_right), engine.CAPACITY: '{"gpu": 1}', engine.ASSIGNMENT: '{"web-0": "gpu"}'}
    back = engine.parse(annotations)
    assert (back.grants["web-0"].uid, back.grants["web-0"].fence) == (None, 0)
    assert engine.suspects(back, {"web-0": "second"}) == []


def test_a_run_numbers_what_has_no_fence_and_hands_on_what_is_free_even_if_nobody_died():
    waiting = claimed(Semaphore({"gpu": 1}), who("a"), who("b"))
    by_hand = engine.parse({**engine.render(waiting), engine.CAPACITY: '{"gpu": 2}'})
    assert holders(engine.reap(by_hand, set(), now=NOW).semaphore) == {"a": "gpu", "b": "gpu"}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A seat of tickets, driven by hand: the watch brings what the test says, when it says so."""

from __future__ import annotations

import json

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, PODS, Put, Removed, Snapshot
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant, Resources
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import pods
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs import tickets as on_tickets
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import Due, NoSemaphore
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

AT = {"name": "sem", "namespace": "ns"}
TICKETS = {"engine": "tickets", **AT}
ANY_ONE = {ANY: 1}


class Hand:
    """One seat and its watch."""

    def __init__(self, api: MemoryApi, name: str, *, lease: int | None = None, want: Resources = ANY_ONE) -> None:
        self.api = api
        claimant = Claimant(name, "" if lease else api.pod(name), want, lease_seconds=lease)
        self.seat = on_tickets.seat(api, **AT, claimant=claimant)
        self.relist()

    def relist(self) -> Hand:
        self.seat.take("leases", Snapshot(*self.api.list(LEASES, "ns", label_selector=on_tickets.selector("sem"))))
        return self

    def watch(self) -> Hand:
        """All that is new, in its order."""
        for version, kind, resource, obj in self.api.events:
            if resource == LEASES and version > self.seat._revision:
                self.seat.take("leases", Removed(obj) if kind == "DELETED" else Put(obj))
        if "pods" in self.seat.sources():
            self.seat.take("pods", Snapshot(self.api.list(PODS, "ns", field_selector=pods.ENDED).items, ""))
        if own := self.seat.sources().get("own pod"):
            mine = self.api.list(PODS, "ns", field_selector=f"metadata.name={own['name']}").items
            self.seat.take("own pod", Snapshot(mine, ""))
        return self

    def look(self):
        return self.watch().seat.look()

    def due(self, renew: bool = False, **expired) -> Due:
        return self.seat.due(expired, renew=renew)

    def act(self, renew: bool = False, **expired):
        return self.seat.act(expired, renew=renew)

    def attend(self):
        """Look and act until nothing is due."""
        for _turn in range(10):
            view = self.look()
            if self.due() is Due.NOTHING:
                return view
            self.act()
        raise AssertionError("it finds something to do for ever")


@pytest.fixture
def api() -> MemoryApi:
    api = MemoryApi()
    verbs.configure(api, capacity={"gpu": 1}, **TICKETS)
    return api


def writes(api: MemoryApi) -> list[str]:
    return [request for request in api.requests if request.split()[0] in ("create", "replace", "delete")]


def test_a_claim_is_one_create_and_a_release_one_delete_and_nobody_writes_for_a_grant(api):
    hands = [Hand(api, name) for name in "abc"]
    for hand in hands:
        hand.attend()
    del api.requests[:]
    assert [hand.attend().place for hand in hands] == [None, 1, 2]
    assert verbs.leave(api, claimant=hands[0].seat.claimant, **TICKETS)
    assert [hand.look().grant is not None for hand in hands[1:]] == [True, False]
    assert [hand.due() for hand in hands[1:]] == [Due.NOTHING, Due.NOTHING]
    assert writes(api) == [f"delete leases/sem.{hands[0].seat.claimant.uid}"]


def test_what_it_wrote_counts_only_when_the_watch_brings_it(api):
    """Somebody else may have drawn before it, and the watch is late."""
    late, other = Hand(api, "late"), Hand(api, "other")
    late.seat.look()
    other.attend()
    assert late.due() is Due.MINE
    late.act()
    assert late.seat.look().grant is None
    assert late.due() is Due.NOTHING, "it does not draw twice"
    assert late.look().place == 1


def test_a_sidecar_that_starts_again_finds_its_ticket(api):
    hand = Hand(api, "a")
    fence = hand.attend().grant.fence
    again = on_tickets.seat(api, **AT, claimant=hand.seat.claimant)
    again.take("leases", Snapshot(*api.list(LEASES, "ns", label_selector=on_tickets.selector("sem"))))
    assert again.look().grant.fence == fence
    assert again.due({}, renew=False) is Due.NOTHING


def test_a_list_that_is_older_than_what_was_seen_is_no_news(api):
    hand = Hand(api, "a")
    old = Snapshot(*api.list(LEASES, "ns", label_selector=on_tickets.selector("sem")))
    grant = hand.attend().grant
    assert not hand.seat.take("leases", old)
    assert hand.seat.look().grant == grant


def test_the_resync_brings_what_a_silent_watch_did_not(api):
    holder, waiter = Hand(api, "a"), Hand(api, "b")
    holder.attend()
    waiter.attend()
    verbs.leave(api, claimant=holder.seat.claimant, **TICKETS)
    assert waiter.seat.look().grant is None
    waiter.act()
    assert waiter.seat.look().grant


def test_the_resync_of_the_first_in_the_queue_does_what_the_garbage_collector_did_not(api):
    hands = [Hand(api, name) for name in "abc"]
    for hand in hands:
        hand.attend()
    del api.objects["pods", "ns", "a"]
    assert not hands[2].act().changed and hands[2].look().place == 2, "the second leaves it to the first"
    assert hands[1].due() is Due.NOTHING
    assert hands[1].act().changed
    assert hands[1].look().grant and hands[2].look().place == 1


def test_the_first_in_the_queue_that_lives_looks_after_all_the_dead_before_it(api):
    hands = [Hand(api, name) for name in "abcde"]
    for hand in hands:
        hand.attend()
    for name in "abc":
        del api.objects["pods", "ns", name]
    assert not hands[4].act().changed, "the one before it lives, and will see to it"
    assert hands[3].act().changed
    assert hands[3].look().grant and hands[4].look().place == 1


def test_a_pod_that_has_ended_claims_nothing_though_its_ticket_is_there(api):
    ended = Hand(api, "a")
    ended.attend()
    api.objects["pods", "ns", "a"]["status"] = {"phase": "Succeeded"}
    on_tickets.put_out(api, "sem", "ns", {ended.seat.claimant.uid})
    for check_mode in (True, False):
        with pytest.raises(MusterError, match="it can claim nothing"):
            on_tickets.attempt(api, **AT, claimant=ended.seat.claimant, enqueue=True, check_mode=check_mode)
    del api.objects["pods", "ns", "a"]
    again = Hand(api, "a")  # a Pod made again under the name is another one
    assert on_tickets.attempt(api, **AT, claimant=again.seat.claimant, enqueue=True, check_mode=False).after.fence


def test_whoever_holds_goes_on_holding_while_a_capacity_is_put_in_force(api):
    verbs.configure(api, capacity={"gpu": 2}, **TICKETS)
    hands = [Hand(api, name) for name in "abc"]
    for hand in hands:
        hand.attend()
    hands = [hand for hand in hands if hand.watch()]
    held = [hand.look().grant.fence for hand in hands[:2]]
    api.lease("sem", capacity='{"gpu": 1}')
    verbs.leave(api, claimant=hands[0].seat.claimant, **TICKETS)
    assert [hand.look().grant is not None for hand in hands] == [False, True, False]
    assert hands[1].due() is Due.MINE, "the first in the queue puts it in force"
    assert hands[2].due() is Due.OTHERS
    hands[1].act()
    assert hands[1].look().grant.fence == held[1]
    assert hands[2].look().place == 1
    assert json.loads(api.objects["leases", "ns", "sem"]["metadata"]["annotations"][engine.IN_FORCE])["capacity"] == {
        "gpu": 1
    }


def test_one_that_starts_while_a_capacity_is_not_in_force_shows_nothing_yet(api):
    holder = Hand(api, "a")
    holder.attend()
    api.lease("sem", capacity='{"gpu": 3}')
    late = Hand(api, "b")
    assert late.look().semaphore.grants == {}
    assert late.attend().grant and set(late.look().semaphore.grants) == {"a", "b"}


def test_a_capacity_that_makes_no_sense_is_told_and_who_holds_goes_on(api):
    hand = Hand(api, "a")
    grant = hand.attend().grant
    api.lease("sem", capacity="{")
    view = hand.look()
    assert view.grant == grant and "Lease ns/sem metadata.annotations[muster.dev/capacity]" in view.trouble
    assert hand.due(renew=True) is Due.NOTHING
    verbs.leave(api, claimant=hand.seat.claimant, **TICKETS)
    assert hand.look().grant is None
    api.lease("sem", capacity='{"gpu": 1}')
    assert hand.attend().grant.fence > grant.fence


def test_the_past_that_etcd_has_forgotten_revokes_nobody(api):
    verbs.configure(api, capacity={"gpu": 2}, **TICKETS)
    hands = [Hand(api, name) for name in "ab"]
    for hand in hands:
        hand.attend()
    api.lease("sem", capacity='{"gpu": 1}')
    api.compacted = api.version
    assert all(hand.attend().grant for hand in hands)


def test_a_semaphore_that_is_gone_is_told_and_one_made_again_starts_anew(api):
    hand = Hand(api, "a")
    hand.attend()
    api.delete(LEASES, "sem", "ns")
    with pytest.raises(NoSemaphore, match="Lease ns/sem does not exist"):
        hand.look()
    assert hand.due() is Due.NOTHING
    verbs.configure(api, capacity={"gpu": 1}, **TICKETS)
    assert hand.attend().grant


def test_who_takes_any_moves_to_what_came_free(api):
    verbs.configure(api, capacity={"gpu": 1, "tpu": 1}, **TICKETS)
    hands = {name: Hand(api, name) for name in "abcd"}
    for hand in hands.values():
        hand.attend()
    waiting = [name for name, hand in hands.items() if hand.look().place]
    assert len(waiting) == 2
    for name in hands.keys() - set(waiting):
        verbs.leave(api, claimant=hands[name].seat.claimant, **TICKETS)
    assert all(hands[name].attend().grant for name in waiting)


def test_a_pod_that_has_ended_holds_nothing_although_its_ticket_is_there(api):
    holder, waiter = Hand(api, "a"), Hand(api, "b")
    holder.attend()
    waiter.attend()
    api.pod("a", phase="Failed")
    assert waiter.look().grant is None
    assert waiter.due() is Due.OTHERS
    waiter.act()
    assert waiter.look().grant
    assert holder.look().grant is None, "it is out for itself, too"
    api.kill("a")
    assert api.collect() == [f"sem.{holder.seat.claimant.uid}"]


def test_that_a_pod_has_ended_is_asked_and_not_believed(api):
    """A watch of Pods that brings an old story must not cost anybody a grant."""
    holder, waiter = Hand(api, "a"), Hand(api, "b")
    holder.attend()
    waiter.attend()
    story = {"metadata": {"name": "a", "uid": holder.seat.claimant.uid}}
    waiter.seat.take("pods", Put(story))
    waiter.seat.look()
    before = api.version
    waiter.act()
    assert api.version == before


def test_a_pod_that_outlives_its_object_draws_nothing(api):
    hand = Hand(api, "a")
    hand.attend()
    api.kill("a")
    api.collect()
    hand.look()
    before = api.version
    assert hand.due() is Due.MINE
    with pytest.raises(MusterError, match="does not exist any more: it can claim nothing"):
        hand.act()
    assert api.version == before


def test_one_that_waits_tears_up_its_ticket_when_its_pod_is_being_deleted(api):
    hands = [Hand(api, name) for name in "abc"]
    for hand in hands:
        hand.attend()
    api.terminate("b")
    api.terminate("a")
    assert hands[0].attend().grant, "who holds keeps it for its grace period"
    assert hands[1].attend().place is None
    assert hands[1].due() is Due.NOTHING, "it draws no other"
    assert hands[2].look().place == 1
    assert len(hands[2].look().semaphore.queue) == 1


def test_one_that_waited_and_holds_keeps_it_while_its_pod_is_being_deleted(api):
    first, hand = Hand(api, "a"), Hand(api, "b")
    first.attend()
    hand.attend()
    verbs.leave(api, claimant=first.seat.claimant, **TICKETS)
    fence = hand.attend().grant.fence
    api.terminate("b")
    before = writes(api)
    assert hand.attend().grant.fence == fence and hand.due() is Due.NOTHING
    assert writes(api) == before


def test_that_the_pod_of_a_former_name_was_deleted_is_no_news(api):
    hand, other = Hand(api, "a"), Hand(api, "b")
    hand.attend()
    other.attend()
    other.seat.take("own pod", Put({"metadata": {"name": "b", "uid": "former", "deletionTimestamp": "then"}}))
    assert other.look().place == 1 and other.due() is Due.NOTHING


def test_a_ticket_for_several_resources_holds_all_of_them_or_none(api):
    verbs.configure(api, capacity={"gpu": 3, "tpu": 1}, **TICKETS)
    wants = {"a": {"gpu": 2}, "b": {"gpu": 2, "tpu": 1}, "c": {"tpu": 1}, "d": {"gpu": 1}}
    hands = {name: Hand(api, name, want=want) for name, want in wants.items()}
    for hand in hands.values():
        hand.attend()
    assert {name: hand.look().place for name, hand in hands.items()} == {"a": None, "b": 1, "c": 2, "d": 3}
    verbs.leave(api, claimant=hands["a"].seat.claimant, **TICKETS)
    assert {name: hand.look().grant and dict(hand.look().grant.resources) for name, hand in hands.items()} == {
        "a": None,
        "b": {"gpu": 2, "tpu": 1},
        "c": None,
        "d": {"gpu": 1},
    }


def test_more_than_there_is_is_refused_and_nothing_is_sent_and_a_lowered_capacity_is_told(api):
    hand = Hand(api, "a", want={"gpu": 2})
    hand.look()
    before = len(writes(api))
    with pytest.raises(
        MusterError, match=r"is 'gpu=2': ask for no more than the capacity, which is 1 \(muster.dev/cap"
    ):
        hand.act()
    assert len(writes(api)) == before
    verbs.configure(api, capacity={"gpu": 2}, **TICKETS)
    assert hand.attend().grant
    waits = Hand(api, "b", want={"gpu": 2})
    assert waits.attend().trouble is None
    verbs.configure(api, capacity={"gpu": 1}, **TICKETS)
    assert "waits for 2 of gpu while the capacity is 1 of gpu" in waits.attend().trouble
    assert hand.attend().trouble is None


def test_what_is_seen_is_put_into_words_only_when_asked_and_equal_where_nothing_changed(api, monkeypatch):
    hand = Hand(api, "a")
    hand.attend()
    made = []
    standing = engine.standing
    monkeypatch.setattr(engine, "standing", lambda *given: made.append(given) or standing(*given))
    first, again = hand.look(), hand.look()
    assert first == again and made == []
    assert set(first.semaphore.grants) == set(first.standing.semaphore.grants) == {"a"} and len(made) == 1
    Hand(api, "b").attend()
    assert hand.look() != first


def test_a_lease_is_renewed_and_keeps_its_place_and_fence(api):
    hand = Hand(api, "ci", lease=60)
    fence = hand.attend().grant.fence
    assert hand.due(renew=True) is Due.MINE
    assert hand.act(renew=True) == (True, True)
    grant = hand.look().grant
    assert grant.fence == fence and grant.lease.beat > fence


def test_a_lease_that_ran_out_is_taken_away_unless_it_was_renewed_meanwhile(api):
    holder, waiter = Hand(api, "ci", lease=60), Hand(api, "b")
    holder.attend()
    waiter.attend()
    ((name, lease),) = waiter.seat.leases().items()
    holder.act(renew=True)
    assert waiter.act(**{name: lease}) == (False, False), "it was renewed; the watch is late"
    waiter.look()
    assert waiter.due(**{name: lease}) is Due.NOTHING
    ((name, lease),) = waiter.seat.leases().items()
    assert waiter.due(**{name: lease}) is Due.OTHERS
    assert waiter.act(**{name: lease}).changed
    assert waiter.look().grant


def test_a_malformed_ticket_of_another_is_told_and_stops_nobody(api):
    api.lease("sem.theirs", want="{")
    theirs = api.objects["leases", "ns", "sem.theirs"]
    theirs["metadata"]["labels"] = {engine.LABEL: "sem"}
    api._store(LEASES, theirs)
    hand = Hand(api, "a")
    view = hand.attend()
    assert view.grant and "Lease sem.theirs metadata.annotations[muster.dev/want]" in view.trouble


def test_an_answer_that_was_lost_is_found_by_reading(api):
    hand = Hand(api, "a")
    hand.look()
    api.faults = ["create lost-applied"]
    hand.act()
    assert hand.look().grant
    api.faults = ["delete lost-applied"]
    verbs.leave(api, claimant=hand.seat.claimant, **TICKETS)
    assert hand.look().grant is None


# ------------------------------------------------------------------------------------------ the verbs


def test_claim_again_release_release_again(api):
    first = verbs.claim(api, holder="ci", lease=60, **TICKETS)
    again = verbs.claim(api, holder="ci", lease=60, **TICKETS)
    assert (first["changed"], first["outcome"], first["resource"]) == (True, "granted", "gpu")
    assert (again["changed"], again["outcome"], again["fence"]) == (False, "held", first["fence"])
    with pytest.raises(MusterError, match="gpu is not free for other: in use: gpu 1 of 1; held by ci"):
        verbs.claim(api, holder="other", lease=60, resource="gpu", **TICKETS)
    assert len(api.objects) == 2, "who is not served and does not wait leaves nothing behind"
    assert verbs.release(api, holder="ci", **TICKETS)["changed"]
    assert verbs.release(api, holder="ci", **TICKETS)["outcome"] == "absent"
    assert verbs.claim(api, holder="ci", lease=60, **TICKETS)["fence"] > first["fence"]


def test_a_holder_of_one_resource_can_not_claim_another(api):
    verbs.configure(api, capacity={"gpu": 1, "tpu": 1}, **TICKETS)
    verbs.claim(api, holder="ci", lease=60, resource="gpu", **TICKETS)
    with pytest.raises(MusterError, match=r"ci holds gpu \(fence \d+\) and asks for tpu"):
        verbs.claim(api, holder="ci", lease=60, resource="tpu", **TICKETS)


def test_a_wait_in_vain_gives_its_ticket_back(api):
    verbs.claim(api, holder="ci", lease=60, **TICKETS)
    with pytest.raises(MusterError, match=r"waited 0.2 s for Lease ns/sem in vain; last seen: in use: gpu 1 of 1"):
        verbs.claim(api, holder="b", lease=60, wait=True, wait_timeout=0.2, **TICKETS)
    assert len(api.objects) == 2


def test_check_mode_writes_nothing(api):
    version = api.version
    assert verbs.claim(api, holder="ci", lease=60, check_mode=True, **TICKETS)["resource"] == "gpu"
    assert verbs.configure(api, capacity={"gpu": 5}, check_mode=True, **TICKETS)["changed"]
    assert verbs.configure(api, state="absent", check_mode=True, **TICKETS)["changed"]
    assert api.version == version


def test_a_semaphore_in_use_is_removed_by_force_only_and_its_tickets_go_with_it(api):
    verbs.claim(api, holder="ci", lease=60, **TICKETS)
    with pytest.raises(MusterError, match="Lease ns/sem is in use by ci: it was not removed; give force=true"):
        verbs.configure(api, state="absent", **TICKETS)
    assert verbs.configure(api, state="absent", force=True, **TICKETS)["changed"]
    assert api.objects == {}
    assert not verbs.configure(api, state="absent", **TICKETS)["changed"]


def test_a_lowered_capacity_says_what_drains(api):
    verbs.configure(api, capacity={"gpu": 2}, **TICKETS)
    for name in "ab":
        verbs.claim(api, holder=name, lease=60, **TICKETS)
    done = verbs.configure(api, capacity={"gpu": 1}, **TICKETS)
    assert done["reasons"] == ["gpu drains: 1 more held than there are permits"]
    assert not verbs.configure(api, capacity={"gpu": 1}, **TICKETS)["changed"]


def test_the_capacity_is_shown_as_it_is_before_it_is_put_in_force_and_nothing_is_written(api):
    verbs.configure(api, capacity={"gpu": 2}, **TICKETS)
    for name in "ab":
        verbs.claim(api, holder=name, lease=60, **TICKETS)
    api.lease("sem", capacity='{"gpu": 1}')
    version = api.version
    (shown,) = verbs.info(api, namespace="ns")["semaphores"]
    assert [holder["holder"] for holder in shown["holders"]] == ["a", "b"] and shown["engine"] == "tickets"
    assert shown["resources"] == [{"name": "gpu", "capacity": 1, "held": 2, "free": 0}]
    assert api.version == version


def test_several_resources_are_claimed_shown_and_given_back(api):
    verbs.configure(api, capacity={"gpu": 2, "tpu": 1}, **TICKETS)
    told = verbs.claim(api, holder="ci", lease=60, resources={"gpu": 2, "tpu": 1}, check_mode=True, **TICKETS)
    made = verbs.claim(api, holder="ci", lease=60, resources={"gpu": "2", "tpu": 1}, **TICKETS)
    assert told["resources"] == made["resources"] == {"gpu": 2, "tpu": 1} and made["resource"] is None
    assert made["reasons"] == ["2 of gpu, tpu were free"]
    (shown,) = verbs.info(api, namespace="ns")["semaphores"]
    assert (shown["mode"], shown["holders"][0]["resources"]) == (None, {"gpu": 2, "tpu": 1})
    with pytest.raises(MusterError, match=r"2 of gpu is not free for b: in use: gpu 2 of 2; held by ci"):
        verbs.claim(api, holder="b", lease=60, resources={"gpu": 2}, **TICKETS)
    assert verbs.release(api, holder="ci", **TICKETS)["before"]["resources"] == {"gpu": 2, "tpu": 1}


def test_tickets_know_no_modes_and_say_so(api):
    with pytest.raises(
        MusterError, match="mode is 'v2': leave it out: with the engine tickets any claim may have several"
    ):
        verbs.configure(api, mode="v2", **TICKETS)


def test_an_engine_that_does_not_exist_is_refused(api):
    with pytest.raises(MusterError, match="engine is 'redis': give one of annotations, tickets"):
        verbs.info(api, namespace="ns", engine="redis")

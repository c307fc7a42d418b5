# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attendance, driven by hand: a clock that stands still, and news that comes when the test says so."""

from __future__ import annotations

import threading
from types import MappingProxyType

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    LostAnswer,
    Put,
    Removed,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import CONFLICT_BACKOFF
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant, Identity
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.plugins.module_utils.verbs import attendance, pods
from ansible_collections.muster.coordination.plugins.module_utils.verbs.annotations import GIVE_WAY
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import Attendant, Sight
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

CAPACITY = engine.CAPACITY


class Hand:
    """Turns one Attendant's loop by hand. Seconds."""

    def __init__(
        self,
        api: MemoryApi,
        name: str,
        *,
        uid: str = "",
        lease: int | None = None,
        want: engine.Resources = MappingProxyType({ANY: 1}),
        name_of: str = "sem",
    ):
        self.api, self.now, self.name_of = api, 1000.0, name_of
        claimant = Claimant(name, uid, want, lease_seconds=lease)
        self.seat = on_annotations.seat(api, name=name_of, namespace="ns", claimant=claimant)
        self.attendant = Attendant(api, self.seat, namespace="ns", clock=lambda: self.now)
        self.turns = 0
        self.attendant._resync_at = self.now + 60

    def look(self) -> Hand:
        """Both watches bring what there is now."""
        objects = self.api.list(CONFIGMAPS, "ns", field_selector=f"metadata.name={self.name_of}").items
        living = self.api.list(PODS, "ns", field_selector=pods.LIVING).items
        self.attendant._take("object", Snapshot(objects, str(self.api.version)))
        self.attendant._take("pods", Snapshot(living, str(self.api.version)))
        return self

    def turn(self) -> Sight:
        self.turns += 1
        return self.attendant._turn()

    def live(self, seconds: float, *, look: bool = True) -> Sight:
        """Go round as the loop would for this long, sleeping as it asks for."""
        end = self.now + seconds
        while self.now < end:
            if look:
                seen = self.seat._object
                there = self.api.objects.get((CONFIGMAPS.plural, "ns", "sem"))
                if there is not None and (seen is None or seen["metadata"] != there["metadata"]):
                    self.look()
            sight = self.turn()
            self.now = min(end, self.now + self.attendant._next_wake(None))
        return sight


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


def semaphore(api: MemoryApi) -> engine.Semaphore:
    return engine.parse(api.annotations())


def claim(api: MemoryApi, name: str, uid: str, lease: int | None = None) -> None:
    on_annotations.write(
        api, "sem", "ns", lambda s: engine.claim(s, Claimant(name, uid, {ANY: 1}, 0, lease), now="", enqueue=True)
    )


def writes(api: MemoryApi) -> int:
    return sum(request.startswith("replace") for request in api.requests)


# ------------------------------------------------------------------------------------------ who is dead


def dead(api: MemoryApi, seen: dict[str, str] | None = None) -> set[Identity]:
    return on_annotations.dead_pods(api, "ns", seen)(semaphore(api))


def test_dead_are_those_whose_pod_is_gone_has_ended_or_was_made_again(api):
    api.configmap(**{CAPACITY: '{"gpu": 9}'})
    uids = {name: api.pod(name) for name in ("lives", "gone", "ended", "again")}
    for name, uid in uids.items():
        claim(api, name, uid)
    claim(api, "ci", "", lease=60)
    api.kill("gone")
    api.pod("ended", phase="Succeeded")
    api.kill("again")
    api.pod("again")
    expected = {(name, uids[name]) for name in ("gone", "ended", "again")}
    assert dead(api) == expected
    assert dead(api, {"lives": uids["lives"], "again": "another"}) == expected


@pytest.mark.parametrize("others", [0, 20], ids=["looked up one by one", "by one list"])
def test_a_host_of_an_old_distributor_that_is_gone_is_dead(api, others):
    names = [f"old-{number}" for number in range(others)]
    for name in [*names, "there"]:
        api.pod(name)
    assignment = ",".join(f'"{name}":"gpu"' for name in [*names, "there", "gone"])
    api.configmap(**{CAPACITY: '{"gpu": 50}', engine.ASSIGNMENT: f"{{{assignment}}}"})
    assert dead(api) == {("gone", None)}


def test_pods_are_looked_at_after_the_semaphore(api):
    """A Pod that was born, and claimed, after a look at the Pods is not dead for not having been seen."""
    api.configmap(**{CAPACITY: '{"gpu": 9}'})
    asked = []
    on_annotations.write(
        api, "sem", "ns", lambda s: engine.Decision(s, "x"), dead=lambda s: asked.append(list(api.requests)) or set()
    )
    assert asked == [["create configmaps/sem", "get configmaps/sem"]]


# ------------------------------------------------------------------------------------------ the loop


def test_a_waiter_writes_once_and_then_only_watches(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hands = [Hand(api, name, uid=api.pod(name)) for name in ("a", "b", "c", "d")]
    for hand in hands:
        hand.look().turn()
    before = writes(api)
    for _ in range(5):
        for hand in hands:
            hand.look().live(5)
    assert writes(api) == before
    assert [waiter.holder for waiter in semaphore(api).queue] == ["b", "c", "d"]


def test_newcomers_give_way_to_those_in_line_after_a_conflict(api, monkeypatch):
    """Or those who hand on would win one write in so many as there are newcomers."""
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    used = []
    commit = on_annotations.commit
    monkeypatch.setattr(on_annotations, "commit", lambda *at, **o: used.append(o["backoff"]) or commit(*at, **o))
    first, second = (Hand(api, name, uid=api.pod(name)) for name in ("a", "b"))
    first.look().turn()
    second.look().turn()
    api.requests.clear()
    first.seat.leave(1)
    first.look().turn()
    assert used == [GIVE_WAY, GIVE_WAY, CONFLICT_BACKOFF, GIVE_WAY]


def test_a_claim_and_a_release_are_one_request_each_on_what_the_watch_showed(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder = Hand(api, "a", uid=api.pod("a")).look()
    api.requests.clear()
    holder.turn()
    assert holder.attendant.leave(timeout=1)
    assert api.requests == ["replace configmaps/sem"] * 2
    assert not semaphore(api).grants


def test_a_release_that_somebody_forestalled_goes_by_what_the_watch_brought_meanwhile(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder, waiter = (Hand(api, name, uid=api.pod(name)).look() for name in ("a", "b"))
    holder.turn()
    waiter.look().turn()
    now = api.objects[CONFIGMAPS.plural, "ns", "sem"]
    api.before_write = lambda _what: holder.attendant._inbox.put(("object", Put(now)))
    api.requests.clear()
    assert holder.attendant.leave(timeout=1)
    assert api.requests == ["replace configmaps/sem"] * 2
    assert list(semaphore(api).grants) == ["b"]


def test_who_holds_takes_in_the_news_of_a_while_at_once(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder = Hand(api, "a", uid=api.pod("a")).look()
    holder.turn()
    obj, came = api.objects[CONFIGMAPS.plural, "ns", "sem"], threading.Event()
    holder.attendant._inbox.put(("object", Put(obj)))
    holder.attendant._stopped.wait = lambda _seconds: holder.attendant._inbox.put(("pods", Put(obj))) or came.set()
    holder.attendant._absorb(3600)
    assert came.is_set()
    assert holder.attendant._inbox.empty()
    came.clear()
    holder.attendant.leave(timeout=1)
    holder.attendant._inbox.put(("object", Put(obj)))
    holder.attendant._absorb(3600)
    assert not came.is_set(), "who waits, or wants to, looks at once"


def test_a_stop_in_the_middle_of_a_release_still_ends_the_loop(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder = Hand(api, "a", uid=api.pod("a")).look()
    holder.turn()
    holder.attendant.stop()
    holder.attendant.leave(timeout=1)
    holder.attendant._absorb(3600)  # does not wait


def test_an_idle_loop_sleeps(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder, waiter = (Hand(api, name, uid=api.pod(name)) for name in ("a", "b"))
    for hand in (holder, waiter):
        hand.look().live(600)
        assert hand.turns < 30


def test_before_the_first_list_it_sleeps_too(api):
    hand = Hand(api, "a", uid="u")
    hand.attendant._take("object", Trouble(LostAnswer(0, "LostAnswer", "connection refused")))
    sight = hand.live(3600, look=False)
    assert "connection refused" in sight.trouble
    assert hand.turns < 100


def test_an_unreachable_api_server_does_not_make_it_spin(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hand = Hand(api, "a", uid=api.pod("a")).look()
    api.faults = ["get lost"] * 100000
    api.get, get = lambda *args: (_ for _ in ()).throw(LostAnswer(0, "LostAnswer", "reset")), api.get
    attendance_commit = on_annotations.commit
    try:
        on_annotations.commit = lambda *args, **kwargs: args[0].get(*args[1:4])
        sight = hand.live(120, look=False)
    finally:
        on_annotations.commit, api.get = attendance_commit, get
    assert "reset" in sight.trouble
    assert hand.turns < 300


def test_a_name_in_use_and_a_missing_semaphore_do_not_make_it_spin(api):
    hand = Hand(api, "a", uid=api.pod("a")).look()
    assert "does not exist" in hand.live(300).trouble
    assert hand.turns < 500
    assert writes(api) == 0


def test_unrelated_pods_do_not_make_it_try_again(api):
    """Each Pod of the namespace changes all the time; what failed is tried again in its own time."""
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    uid = api.pod("a")
    hand = Hand(api, "a", uid=uid).look()
    other = api.pod("other")
    api.kill("a")
    hand.look().turn()
    before = len(api.requests)
    for _ in range(50):
        pod = {"metadata": {"name": "other", "uid": other, "resourceVersion": "9"}}
        hand.attendant._take("pods", Put(pod))
        hand.turn()
    assert len(api.requests) - before <= 2


def test_a_pod_that_outlives_its_object_claims_nothing(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    uid = api.pod("a")
    hand = Hand(api, "a", uid=uid).look()
    assert hand.turn().grant is not None
    api.kill("a")
    claim_before = api.pod("b")
    on_annotations.write(
        api,
        "sem",
        "ns",
        lambda s: engine.claim(s, Claimant("b", claim_before, {ANY: 1}), now="", enqueue=True),
        dead=on_annotations.dead_pods(api, "ns"),
    )
    sight = hand.look().live(30)
    assert sight.grant is None
    assert "does not exist any more" in sight.trouble
    assert list(semaphore(api).grants) == ["b"] and semaphore(api).queue == ()


def test_a_pod_that_outlives_its_object_gives_back_what_it_has_when_nobody_else_is_there(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hand = Hand(api, "a", uid=api.pod("a")).look()
    assert hand.turn().grant is not None
    api.kill("a")
    hand.look().turn()
    assert semaphore(api).grants == {}
    sight = hand.look().live(30)
    assert sight.grant is None
    assert "does not exist any more" in sight.trouble
    assert semaphore(api).grants == {}


def test_a_cache_of_pods_that_lags_makes_nobody_give_back(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hand = Hand(api, "a", uid=api.pod("a")).look()
    fence = hand.turn().grant.fence
    hand.attendant._take("pods", Snapshot([], "0"))
    assert hand.live(30, look=False).grant.fence == fence
    assert semaphore(api).grants["a"].fence == fence


def test_a_watch_that_the_seat_asks_for_after_a_look_begins_at_once(api, monkeypatch):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    attendant = Hand(api, "a", uid=api.pod("a")).look().attendant
    followed, honest = [], dict(attendant._seat.sources())

    def sources():
        return {**honest, "late": {}} if attendant._view else honest

    monkeypatch.setattr(attendant._seat, "sources", sources)
    monkeypatch.setattr(attendant, "_follow", lambda source, **_what: followed.append(source))
    next(attendant.sights())
    assert followed == ["object", "pods", "late"]


def test_the_death_of_a_holder_is_acted_upon_by_the_next_in_the_queue_at_once(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    a, b, c = (Hand(api, name, uid=api.pod(name)) for name in "abc")
    for hand in (a, b, c):
        hand.look().turn()
    api.kill("a")
    c.look().turn()
    assert "a" in semaphore(api).grants  # it concerns only others: after a short random delay, if nobody did it
    assert b.look().turn().grant is not None
    assert c.live(1).place == 1


def test_others_do_it_when_the_next_in_the_queue_does_not(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    a, b, c = (Hand(api, name, uid=api.pod(name)) for name in "abc")
    for hand in (a, b, c):
        hand.look().turn()
    api.kill("a")
    c.look().live(attendance.OTHERS_FIRST[1] + 0.01)
    assert list(semaphore(api).grants) == ["b"]


def test_news_that_come_late_are_not_news(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    old = api.get(CONFIGMAPS, "sem", "ns")
    hand = Hand(api, "a", uid=api.pod("a")).look()
    assert hand.turn().grant is not None
    before = writes(api)
    hand.attendant._take("object", Put(old))
    assert hand.turn().grant is not None
    assert writes(api) == before


def test_news_of_a_predecessor_of_the_same_name_are_not_news(api):
    old = api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hand = Hand(api, "a", uid=api.pod("a")).look()
    api.delete(CONFIGMAPS, "sem", "ns")
    removed = {**old, "metadata": {**old["metadata"], "resourceVersion": str(api.version)}}
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    assert hand.turn().grant is not None  # it read and wrote the new one
    for late in (Put(old), Removed(removed)):
        hand.attendant._take("object", late)
        sight = hand.turn()
        assert (sight.grant is not None, sight.trouble) == (True, None)


def test_a_semaphore_removed_and_made_again_is_claimed_again(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hand = Hand(api, "a", uid=api.pod("a")).look()
    first = hand.turn().grant
    api.delete(CONFIGMAPS, "sem", "ns")
    sight = hand.look().turn()
    assert sight.grant is None and "does not exist" in sight.trouble
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    assert hand.look().turn().grant.fence > first.fence


def test_a_malformed_semaphore_is_left_alone_and_the_holder_goes_on(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hand = Hand(api, "a", uid=api.pod("a")).look()
    held = hand.turn().grant
    good = api.annotations()[engine.STATE]
    before = writes(api)
    api.configmap(**{engine.STATE: "{"})
    sight = hand.look().live(200)
    assert sight.grant == held
    assert "distributor_state" in sight.trouble
    assert writes(api) == before
    api.configmap(**{engine.STATE: good})
    assert hand.look().turn() == Sight(held, None, on_annotations.Seen(semaphore(api)), None)


def test_a_resource_that_is_no_longer_declared_is_told_and_costs_nothing(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    claimant = Claimant("a", api.pod("a"), {"cpu": 1})
    hand = Hand(api, "a").look()
    hand.seat.claimant = claimant
    before = len(api.requests)
    assert "name one that distributor_capacity declares (gpu)" in hand.live(40, look=False).trouble
    assert len(api.requests) == before


def test_the_semaphore_is_read_again_only_when_it_has_changed(api, monkeypatch):
    """Each Pod of the namespace changes all the time."""
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    hand = Hand(api, "a", uid=api.pod("a")).look()
    hand.turn()
    held = hand.turn()
    read, times = on_annotations.read, []
    monkeypatch.setattr(on_annotations, "read", lambda obj: times.append(obj) or read(obj))
    for _ in range(5):
        other = api.pod("other")
        hand.attendant._take("pods", Put({"metadata": {"name": "other", "uid": other, "resourceVersion": "9"}}))
        assert hand.look().turn() == held
    assert times == []
    claim(api, "other", other)
    times.clear()
    assert hand.look().turn().semaphore.place("other") == 1
    assert len(times) == 1


# ------------------------------------------------------------------------------------------ Pods that are being deleted


def test_one_that_waits_leaves_the_queue_when_its_pod_is_being_deleted(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    a, b, c = (Hand(api, name, uid=api.pod(name)) for name in "abc")
    for hand in (a, b, c):
        hand.look().turn()
    api.terminate("b")
    sight = b.look().turn()
    assert (sight.grant, sight.place, sight.trouble) == (None, None, None)
    before = writes(api)
    assert b.look().live(40).place is None
    assert writes(api) == before, "it asks for nothing more"
    a.seat.leave(1)
    assert c.look().turn().grant is not None


def test_who_leaves_hands_on_past_those_that_are_leaving_too(api):
    """As when a Deployment is made smaller: the Pods that wait are deleted together with the one that holds."""
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    a, b, c = (Hand(api, name, uid=api.pod(name)) for name in "abc")
    for hand in (a, b, c):
        hand.look().turn()
    for name in "ab":
        api.terminate(name)
    a.look()
    before = writes(api)
    assert a.seat.leave(1)
    assert writes(api) == before + 1
    assert c.look().turn().grant is not None and not semaphore(api).queue
    assert not a.seat.leave(1)


def test_one_that_holds_keeps_it_while_its_pod_is_being_deleted(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    a, b = (Hand(api, name, uid=api.pod(name)) for name in "ab")
    for hand in (a, b):
        hand.look().turn()
    api.terminate("a")
    before = writes(api)
    assert a.look().live(40).grant is not None
    assert b.look().live(40).place == 1
    assert writes(api) == before


def test_others_take_it_out_of_the_queue_when_it_does_not_itself(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    a, b, c = (Hand(api, name, uid=api.pod(name)) for name in "abc")
    for hand in (a, b, c):
        hand.look().turn()
    api.terminate("b")
    assert c.look().turn().place == 2, "it concerns only others: after a short random delay"
    c.live(attendance.OTHERS_FIRST[1] + 0.01)
    assert [waiter.holder for waiter in semaphore(api).queue] == ["c"]


def test_news_of_a_pod_that_is_being_deleted_are_news_once(api):
    seat = Hand(api, "a", uid="u").seat
    pod = {"metadata": {"name": "b", "uid": "u-b", "resourceVersion": "5"}}
    leaving = {"metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-31T12:00:00Z"}}
    assert [seat.take("pods", Put(obj)) for obj in (pod, pod, leaving, leaving)] == [True, False, True, False]
    assert seat.take("pods", Removed(leaving)) and not seat._leaving and not seat._pods


# ------------------------------------------------------------------------------------------ several resources


def test_a_capacity_lowered_under_one_that_waits_is_told(api):
    api.configmap(**engine.begin({"gpu": 2}, engine.V2))
    hands = [Hand(api, name, uid=api.pod(name), want={"gpu": 2}) for name in "ab"]
    for hand in hands:
        hand.look().turn()
    assert hands[1].look().turn().trouble is None
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    sight = hands[1].look().live(100)
    assert (sight.place, sight.trouble) == (
        1,
        "waits for 2 of gpu while the capacity is 1 of gpu: until that is raised",
    )
    assert hands[0].look().turn().trouble is None
    assert hands[1].turns < 20


def test_who_asks_for_more_than_there_is_or_than_the_mode_says_is_told_and_sends_nothing(api):
    for capacity, mode, trouble in (
        ({"gpu": 2}, engine.V1, "set mode v2 with k8s_semaphore"),
        ({"gpu": 1}, engine.V2, "resource is 'gpu=2': ask for no more than the capacity, which is 1"),
    ):
        api.configmap(mode, **engine.begin(capacity, mode))
        hand = Hand(api, "a", uid="u", want={"gpu": 2}, name_of=mode).look()
        before = len(api.requests)
        assert trouble in hand.live(40, look=False).trouble
        assert len(api.requests) == before


# ------------------------------------------------------------------------------------------ leases


def test_a_lease_is_renewed_within_its_time_whatever_else_the_holder_does(api):
    """A write for the sake of others is no renewal."""
    api.configmap(**{CAPACITY: '{"gpu": 9}'})
    ci = Hand(api, "ci", lease=60).look()
    assert ci.turn().grant is not None
    seen, since = None, ci.now
    for number in range(30):
        name = f"pod-{number}"
        claim(api, name, api.pod(name))
        api.kill(name)
        ci.look().live(7)
        assert name not in semaphore(api).grants
        lease = semaphore(api).grants["ci"].lease
        if lease != seen:
            seen, since = lease, ci.now
        assert ci.now - since < 40, "unrenewed for two thirds of its time"


def test_a_process_that_starts_again_renews_at_once(api):
    """It does not know when its predecessor renewed last."""
    api.configmap(**{CAPACITY: '{"gpu": 9}'})
    Hand(api, "ci", lease=60).look().turn()
    beat = semaphore(api).grants["ci"].lease.beat
    again = Hand(api, "ci", lease=60).look()
    assert again.live(1).grant is not None
    assert semaphore(api).grants["ci"].lease.beat > beat


def test_a_lease_that_stands_still_is_taken_away_after_its_time_and_not_before(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    claim(api, "ci", "", lease=60)
    waiter = Hand(api, "b", uid=api.pod("b")).look()
    assert waiter.live(59).grant is None
    assert waiter.live(2).grant is not None
    assert waiter.turns < 20


def test_a_lease_that_moves_is_not_taken_away(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder = Hand(api, "ci", lease=30).look()
    waiter = Hand(api, "b", uid=api.pod("b")).look()
    for _ in range(20):
        holder.now = waiter.now
        assert holder.look().live(10).grant is not None
        assert waiter.look().live(10).grant is None


def test_an_observer_that_was_frozen_takes_nobody_away(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder = Hand(api, "ci", lease=30).look()
    holder.turn()
    waiter = Hand(api, "b", uid=api.pod("b")).look()
    waiter.turn()
    holder.now += 20
    holder.look().turn()  # renewed, while the other sees nothing
    waiter.now += 3600
    assert waiter.turn().grant is None  # it asks what is there before it takes away
    assert "ci" in semaphore(api).grants


def test_a_holder_that_could_not_renew_says_so_before_others_take_it_away(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder = Hand(api, "ci", lease=30).look()
    assert holder.turn().grant is not None
    holder.now += 30
    api.faults = ["replace 403"]
    sight = holder.turn()
    assert sight.grant is None
    assert sight.trouble


def test_a_holder_whose_lease_was_removed_by_hand_does_not_spin(api):
    api.configmap(**{CAPACITY: '{"gpu": 1}'})
    holder = Hand(api, "ci", lease=30).look()
    holder.turn()
    api.configmap(**{engine.STATE: api.annotations()[engine.STATE].replace('"expires"', '"was"')})
    holder.look().live(120)
    assert holder.turns < 60
    assert semaphore(api).grants["ci"].lease is not None

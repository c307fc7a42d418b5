# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a Lease, and who may take it: each rule by example."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import (
    CONTAINER,
    FENCE,
    LEAVING,
    Identity,
    Seen,
    Term,
    Timing,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

TIMING = Timing(6)
ANN = Identity("op-0", "uid-a", "00000001", "operator")
ANN_AGAIN = ANN._replace(run="00000002")
BEN = Identity("op-1", "uid-b", "00000001", "operator")
NOON = "2026-01-31T12:00:00.250000Z"
LATER = "2026-01-31T12:00:02.250000Z"
ANN_ID = "containerd://aaa"


def stored(lease: dict[str, Any] | None, version: int, uid: str = "lease-1") -> dict[str, Any]:
    """As the API server gives it back."""
    assert lease is not None
    return {**lease, "metadata": {**lease["metadata"], "resourceVersion": str(version), "uid": uid}}


def free(version: int = 10) -> dict[str, Any]:
    return stored(election.free("op", "ns", TIMING, is_doubtful=False), version)


def held(by: Identity = ANN, version: int = 11, container_id: str = "") -> dict[str, Any]:
    """Taken by a write that replaced the resourceVersion before."""
    lease = stored(election.take(free(version - 1), by, TIMING, NOON, over=None), version)
    return stored(election.renew(lease, by, NOON, container_id), version) if container_id else lease


def seen(lease: dict[str, Any], since: float = 0.0) -> Seen:
    return Seen(election.parse(lease), since)


def why(lease: dict[str, Any], me: Identity, after: float = 0.0, *, is_dead: bool = False) -> str:
    return election.why_take(seen(lease), me, after, is_dead=is_dead)


def pod(
    phase: str = "Running",
    *,
    uid: str = ANN.uid,
    name: str = ANN.container,
    state: dict[str, Any] | None = None,
    last: dict[str, Any] | None = None,
    kind: str = "containerStatuses",
) -> dict[str, Any]:
    """The Pod of Ann, with one container's status."""
    status = {"name": name, "state": state or {}, "lastState": last or {}}
    running = (state or {}).get("running")
    if running:
        status["containerID"] = running.pop("containerID")
    return {"metadata": {"name": ANN.pod, "uid": uid}, "status": {"phase": phase, kind: [status]}}


def running(container_id: str = ANN_ID, at: str = "2026-01-31T11:59:00Z") -> dict[str, Any]:
    return {"running": {"startedAt": at, "containerID": container_id}}


def terminated(container_id: str = ANN_ID, at: str = "2026-01-31T12:00:01Z") -> dict[str, Any]:
    return {"terminated": {"containerID": container_id, "exitCode": 137, "finishedAt": at}}


# ------------------------------------------------------------------------------------------ what it says


def test_what_is_written_is_what_is_read() -> None:
    term = election.parse(held(container_id=ANN_ID))
    assert (term.holder, term.pod, term.uid) == ("op-0_uid-a_00000001", "op-0", "uid-a")
    assert (term.seconds, term.fence, term.transitions, term.since, term.renewed) == (6, 10, 1, NOON, NOON)
    assert (term.container, term.container_id) == ("operator", ANN_ID)


def test_a_lease_that_client_go_wrote_is_understood() -> None:
    lease = {
        "metadata": {"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "70"},
        "spec": {
            "holderIdentity": "op-0_3fd1a6c2-0f0e-4c35-9d2f-000000000000",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-31T11:00:00.000000Z",
            "renewTime": NOON,
            "leaseTransitions": 3,
        },
    }
    term = election.parse(lease)
    assert (term.pod, term.seconds, term.transitions, term.fence, term.container_id) == ("op-0", 15, 3, 0, "")
    assert why(lease, BEN, 14.9) == ""
    assert why(lease, BEN, 15.0) == "op-0 has not renewed it for 15 s"
    assert not election.has_ended(term, pod("Failed", state=terminated()))  # its uid is not the Pod's
    taken = election.take(lease, BEN, TIMING, LATER, over=term)
    assert taken is not None
    assert (taken["spec"]["leaseTransitions"], taken["metadata"]["annotations"][FENCE]) == (4, "70")


def test_a_lease_that_client_go_gave_back_is_taken_after_its_second() -> None:
    lease = {
        "metadata": {"name": "op", "namespace": "ns", "uid": "u", "resourceVersion": "70"},
        "spec": {"holderIdentity": "", "leaseDurationSeconds": 1, "leaseTransitions": 3, "renewTime": NOON},
    }
    assert (why(lease, BEN, 0.9), why(lease, BEN, 1.0)) == ("", "it is still free")


def test_a_lease_made_by_hand_may_lack_everything() -> None:
    term = election.parse({"metadata": {"name": "op", "uid": "u"}})
    assert term == Term("u", "", Timing().lease, is_doubtful=True)
    assert election.parse({"metadata": {"name": "op"}, "spec": {"holderIdentity": None}}).holder == ""


@pytest.mark.parametrize("fence", ["", "-1", "1.5", "ten", "٣", "1" * 21, " 7"])
def test_a_fence_that_is_no_number_is_refused_by_name_and_never_overwritten(fence: str) -> None:
    lease = held()
    lease["metadata"]["annotations"][FENCE] = fence
    for act in (
        lambda: election.parse(lease),
        lambda: election.take(lease, BEN, TIMING, LATER, over=None),
        lambda: election.renew(lease, ANN, LATER),
        lambda: election.release(lease, ANN),
        lambda: election.evict(lease, election.parse(held())),
    ):
        with pytest.raises(Malformed, match=r"metadata\.annotations\[muster\.dev/fence\]"):
            act()


@pytest.mark.parametrize("seconds", [0, -1, 3601, 1.5, "6"])
def test_a_lease_lasts_a_second_to_an_hour(seconds: Any) -> None:
    with pytest.raises(Malformed, match="lease seconds"):
        Timing(seconds)


@pytest.mark.parametrize("seconds", [1, 2, 6, 15, 3600])
def test_the_holder_stops_well_before_others_begin_and_renews_in_time(seconds: int) -> None:
    timing = Timing(seconds)
    assert 2 * timing.renewal <= timing.usable + 1e-9
    assert timing.usable * 1.4 < timing.lease  # so much may clocks differ in speed


def test_what_is_not_ours_stays_as_it_is() -> None:
    lease = free()
    lease["metadata"] |= {"labels": {"team": "x"}, "finalizers": ["a/b"], "ownerReferences": [{"uid": "o"}]}
    lease["metadata"]["annotations"]["note"] = "keep"
    lease["spec"] |= {"preferredHolder": "nobody", "strategy": "unknown"}
    before = copy.deepcopy(lease)
    for change in (
        lambda one: election.take(one, ANN, TIMING, NOON, over=None),
        lambda one: election.renew(one, ANN, LATER, ANN_ID, is_leaving=True),
        lambda one: election.release(one, ANN),
        lambda one: election.take(one, BEN, TIMING, LATER, over=None),
        lambda one: election.evict(one, election.parse(one)),
    ):
        untouched = copy.deepcopy(lease)
        after = change(lease)
        assert lease == untouched, "what is given is not changed in place"
        lease = stored(after, 20)
        for field in ("labels", "finalizers", "ownerReferences"):
            assert lease["metadata"][field] == before["metadata"][field]
        assert lease["metadata"]["annotations"]["note"] == "keep"
        assert (lease["spec"]["preferredHolder"], lease["spec"]["strategy"]) == ("nobody", "unknown")


# ------------------------------------------------------------------------------------------ rule 1: fences


def test_a_fence_is_the_version_that_the_take_replaced() -> None:
    assert election.parse(held(version=42)).fence == 41


def test_fences_grow_from_term_to_term_and_when_the_lease_is_made_again() -> None:
    first = held(ANN, 11)
    given_back = stored(election.release(first, ANN), 12)
    second = stored(election.take(given_back, BEN, TIMING, LATER, over=None), 13)
    made_again = free(20)  # at a later revision of the same store, with nothing of the former
    third = stored(election.take(made_again, ANN_AGAIN, TIMING, LATER, over=None), 21)
    fences = [election.parse(lease).fence for lease in (first, second, third)]
    assert fences == sorted(set(fences)) == [10, 12, 20]


def test_a_fence_grows_even_where_the_store_begins_anew() -> None:
    lease = free(5)  # restored from a backup into another cluster: its versions are smaller
    lease["metadata"]["annotations"][FENCE] = "900"
    assert election.parse(stored(election.take(lease, ANN, TIMING, NOON, over=None), 6)).fence == 901


def test_giving_back_and_evicting_keep_the_fence_and_forget_the_container() -> None:
    lease = held(container_id=ANN_ID)
    for after in (election.release(lease, ANN), election.evict(lease, election.parse(lease))):
        assert after is not None
        assert after["metadata"]["annotations"] == {FENCE: "10"}
        assert after["spec"] == {**lease["spec"], "holderIdentity": ""}


def test_the_count_of_transitions_stays_an_int32() -> None:
    lease = free()
    lease["spec"]["leaseTransitions"] = election.MAX_TRANSITIONS
    taken = election.take(lease, ANN, TIMING, NOON, over=None)
    assert taken is not None and taken["spec"]["leaseTransitions"] == 2**31 - 1


# ------------------------------------------------------------------------------------------ rule 2: who may take it


def test_what_is_free_may_be_taken() -> None:
    assert why(free(), ANN) == "it is free"
    assert election.take(free(), ANN, TIMING, NOON, over=None) is not None


def test_what_is_held_may_not_be_taken() -> None:
    assert why(held(), BEN, 5.9) == ""
    assert election.take(held(), BEN, TIMING, LATER, over=None) is None


def test_whoever_has_it_has_it_already() -> None:
    assert why(held(), ANN, 100.0) == ""
    assert election.take(held(), ANN, TIMING, LATER, over=None) == held()


def test_what_was_seen_unchanged_for_its_whole_time_may_be_taken() -> None:
    lease = held()
    assert why(lease, BEN, 6.0) == "op-0 has not renewed it for 6 s"
    taken = stored(election.take(lease, BEN, TIMING, LATER, over=election.parse(lease)), 12)
    assert election.parse(taken).holder == str(BEN)


def test_the_time_is_that_of_its_holder_not_of_the_observer() -> None:
    lease = stored(election.take(free(), ANN, Timing(30), NOON, over=None), 11)
    assert why(lease, BEN, 29.9) == "" and why(lease, BEN, 30.0)


def test_a_take_needs_exactly_the_term_that_was_seen_to_be_over() -> None:
    lease = held()
    over = election.parse(lease)
    renewed = stored(election.renew(lease, ANN, LATER), 12)
    again = held(ANN_AGAIN)
    made_again = {**lease, "metadata": {**lease["metadata"], "uid": "lease-2"}}
    for now in (renewed, again, made_again):
        assert election.take(now, BEN, TIMING, LATER, over=over) is None
        assert election.evict(now, over) is None


def test_what_is_written_beside_the_beat_is_no_renewal() -> None:
    lease = held()
    annotated = copy.deepcopy(lease)
    annotated["metadata"]["annotations"] |= {"note": "by hand", CONTAINER: f"operator/{ANN_ID}"}
    first = election.see(None, election.parse(lease), 0.0)
    assert election.see(first, election.parse(stored(annotated, 99)), 4.0).since == 0.0
    assert election.take(stored(annotated, 99), BEN, TIMING, LATER, over=first.term) is not None


def test_the_next_run_of_the_same_container_takes_over_at_once() -> None:
    assert why(held(), ANN_AGAIN) == "its holder was the former run of this container"
    assert election.take(held(), ANN_AGAIN, TIMING, LATER, over=None) is not None


@pytest.mark.parametrize(
    "other",
    [
        ANN_AGAIN._replace(container="sidecar"),
        ANN_AGAIN._replace(uid="uid-c"),  # a Pod that was made again under its name
        ANN_AGAIN._replace(pod="op-2"),
        ANN_AGAIN._replace(container=""),
    ],
)
def test_nobody_else_is_its_successor(other: Identity) -> None:
    assert why(held(), other) == ""
    assert election.take(held(), other, TIMING, LATER, over=None) is None


def test_without_a_pod_there_is_no_successor() -> None:
    host = Identity("laptop", "f00d", "00000001")
    again = host._replace(run="00000002")
    assert why(held(host), again) == ""
    assert CONTAINER not in held(host)["metadata"]["annotations"]


# ------------------------------------------------------------------------------------------ rule 2: made anew


def test_a_lease_that_was_made_anew_may_have_been_deleted_from_under_its_holder() -> None:
    anew = stored(election.free("op", "ns", TIMING), 30, uid="lease-2")
    assert (why(anew, BEN, 5.9), why(anew, BEN, 6.0)) == ("", "it is still free")
    assert election.expires_in(seen(anew), 1.0) == 5.0
    assert election.take(anew, BEN, TIMING, LATER, over=None) is None
    assert election.take(anew, BEN, TIMING, LATER, over=election.parse(held())) is None
    taken = election.take(anew, BEN, TIMING, LATER, over=election.parse(anew))
    assert taken is not None and taken["metadata"]["annotations"][FENCE] == "30"


@pytest.mark.parametrize("after", [election.release(held(), ANN), election.evict(held(), election.parse(held()))])
def test_what_was_given_back_or_evicted_is_not_in_doubt(after: dict[str, Any]) -> None:
    assert why(stored(after, 12), BEN) == "it is free"


def test_what_client_go_had_is_not_in_doubt_once_it_was_evicted() -> None:
    lease = {"metadata": {"name": "op", "uid": "u", "resourceVersion": "7"}, "spec": {"holderIdentity": "x_y"}}
    freed = stored(election.evict(lease, election.parse(lease)), 8)
    assert why(freed, BEN) == "it is free"


# ------------------------------------------------------------------------------------------ rule 3: clocks


def test_a_term_is_counted_from_when_it_was_first_seen_and_each_renewal_begins_anew() -> None:
    lease = held()
    first = election.see(None, election.parse(lease), 100.0)
    assert election.see(first, election.parse(lease), 103.0) == first
    renewed = election.see(first, election.parse(stored(election.renew(lease, ANN, LATER), 12)), 103.0)
    assert renewed.since == 103.0
    assert (election.expires_in(renewed, 105.0), election.expires_in(renewed, 200.0)) == (4.0, 0.0)


def test_no_clock_is_compared_with_another() -> None:
    lease = held()
    lease["spec"] |= {"renewTime": "1999-01-01T00:00:00.000000Z", "acquireTime": "2099-01-01T00:00:00.000000Z"}
    assert why(lease, BEN, 5.9) == ""


# ------------------------------------------------------------------------------------------ rule 4: proof of death


TERM = election.parse(held(container_id=ANN_ID))

DEAD = {
    "its container has terminated": pod(state=terminated()),
    "another one runs since": pod(state=running("containerd://bbb"), last=terminated()),
    "it waits for another one": pod(state={"waiting": {"reason": "CrashLoopBackOff"}}, last=terminated()),
    "it is an init container with restarts": pod(state=terminated(), kind="initContainerStatuses"),
    "its Pod has succeeded": pod("Succeeded", state=terminated("containerd://of-whatever-run")),
    "its Pod has failed": pod("Failed", state=terminated()),
    "it was evicted, and where its container is is not known": pod(
        "Failed", state={"terminated": {"exitCode": 137, "finishedAt": None, "reason": "ContainerStatusUnknown"}}
    ),
}
MAY_LIVE = {
    "the Pod was never seen, or has vanished": None,
    "it runs": pod(state=running()),
    "another one is shown to run: that may be from before": pod(state=running("containerd://bbb")),
    "another one is shown to have terminated": pod(state=terminated("containerd://bbb")),
    "the one before it has terminated": pod(state=running(), last=terminated("containerd://before")),
    "it is called by a name of another container": pod(name="sidecar", state=terminated()),
    "the Pod of the same name is another one": pod("Failed", uid="uid-z", state=terminated()),
    "the garbage collector of Pods calls it Failed, its node is lost": pod("Failed", state=running()),
    "it failed before anything was said of containers": {"metadata": {"uid": ANN.uid}, "status": {"phase": "Failed"}},
    "the id is its own, and the end before its take": pod(state=running(), last=terminated(at="2026-01-31T11:59:59Z")),
    "the end is in the second of its take": pod(state=running(), last=terminated(at="2026-01-31T12:00:00Z")),
    "nobody knows when it ended": pod(state={"terminated": {"containerID": ANN_ID, "finishedAt": None}}),
    "nothing is said yet": {"metadata": {"uid": ANN.uid}},
    "it waits for its first": pod("Pending", state={"waiting": {}}),
}


@pytest.mark.parametrize("shown", DEAD.values(), ids=DEAD.keys())
def test_it_has_ended(shown: dict[str, Any]) -> None:
    assert election.has_ended(TERM, shown)
    assert why(held(), BEN, is_dead=True) == "op-0 has ended"


@pytest.mark.parametrize("shown", MAY_LIVE.values(), ids=MAY_LIVE.keys())
def test_it_may_live(shown: dict[str, Any] | None) -> None:
    assert not election.has_ended(TERM, shown)


def test_without_its_id_a_container_that_terminated_is_no_proof() -> None:
    term = election.parse(held())
    assert (term.container, term.container_id) == ("operator", "")
    assert not election.has_ended(term, pod(state=terminated()))
    assert not election.has_ended(term, pod(state=terminated("")))


def test_whose_container_is_not_named_has_ended_with_all_of_its_pod() -> None:
    term = election.parse(held(ANN._replace(container="")))
    ended = pod("Succeeded", state=terminated())
    assert election.has_ended(term, ended)
    ended["status"]["containerStatuses"].append({"name": "other", "state": {"running": {}}})
    assert not election.has_ended(term, ended)


def test_an_acquire_time_that_makes_no_sense_proves_nothing() -> None:
    lease = held(container_id=ANN_ID)
    lease["spec"]["acquireTime"] = "yesterday"
    assert not election.has_ended(election.parse(lease), pod(state=terminated()))


STARTED = 1769860860.4  # 2026-01-31T12:01:00.4Z

OWN = {
    "it runs since then": (running(at="2026-01-31T12:01:00Z"), ANN_ID),
    "the runtime was slow to say so": (running(at="2026-01-31T12:01:03Z"), ANN_ID),
    "the status is from before the restart": (running("containerd://old", "2026-01-31T12:00:59Z"), ""),
    "the status says that the former has ended": (terminated("containerd://old"), ""),
    "it waits": ({"waiting": {"reason": "ContainerCreating"}}, ""),
    "no time is said": ({"running": {"containerID": ANN_ID}}, ""),
    "the time makes no sense": (running(at="soon"), ""),
}


@pytest.mark.parametrize(("state", "container_id"), OWN.values(), ids=OWN.keys())
def test_the_own_container_is_the_one_that_began_when_the_process_did(state: dict[str, Any], container_id: str) -> None:
    assert election.own_container_id(pod(state=copy.deepcopy(state)), "operator", STARTED) == container_id
    assert election.own_container_id(pod(state=copy.deepcopy(state)), "another", STARTED) == ""


def test_a_former_container_of_the_same_second_is_mistaken_for_the_own_and_its_end_proves_nothing() -> None:
    old = running("containerd://old", "2026-01-31T12:01:00Z")
    mistaken = election.own_container_id(pod(state=old), "operator", STARTED)
    assert mistaken == "containerd://old"  # it began at 12:01:00.1 and crashed; the status has not heard of us
    lease = stored(election.take(free(), ANN, TIMING, "2026-01-31T12:01:00.800000Z", over=None), 11)
    lease = stored(election.renew(lease, ANN, "2026-01-31T12:01:02.800000Z", mistaken), 12)
    ended = terminated(mistaken, "2026-01-31T12:01:00Z")
    assert not election.has_ended(election.parse(lease), pod(state=running(), last=ended))


def test_a_container_of_the_pod_may_have_no_status_yet() -> None:
    assert election.own_container_id({"metadata": {"uid": ANN.uid}}, "operator", STARTED) == ""


# ------------------------------------------------------------------------------------------ rule 5: it is over for good


def over(lease: dict[str, Any] | None, after: float = 0.0, identity: Identity = ANN) -> bool:
    term = election.missing(TIMING) if lease is None else election.parse(lease)
    return election.is_over(Seen(term, 0.0), str(identity), after)


def test_a_term_is_over_when_its_lease_is_free_or_of_another_run() -> None:
    assert over(stored(election.release(held(), ANN), 12))
    assert over(held(ANN_AGAIN)) and over(held(BEN))
    assert not over(held())


def test_silence_alone_ends_no_term() -> None:
    assert not over(held(), 1000.0)


def test_a_lease_that_is_missing_or_made_anew_ends_a_term_after_its_whole_time() -> None:
    anew = stored(election.free("op", "ns", TIMING), 30)
    for lease in (None, anew):
        assert (over(lease, 5.9), over(lease, 6.0)) == (False, True)


def test_a_lease_that_is_missing_is_seen_to_be_so_since_the_first_look() -> None:
    first = election.see(None, election.missing(TIMING), 3.0)
    assert election.see(first, election.missing(TIMING), 9.0) == first
    assert election.see(first, election.parse(held()), 9.0).since == 9.0


# ------------------------------------------------------------------------------------------ what is written


def test_a_renewal_changes_the_time_and_nothing_else() -> None:
    lease = held()
    renewed = election.renew(lease, ANN, LATER)
    assert renewed == {**lease, "spec": {**lease["spec"], "renewTime": LATER}}


def test_a_renewal_says_which_container_it_is_once_that_is_known_and_keeps_it() -> None:
    lease = stored(election.renew(held(), ANN, LATER, ANN_ID), 12)
    assert lease["metadata"]["annotations"][CONTAINER] == f"operator/{ANN_ID}"
    assert election.parse(stored(election.renew(lease, ANN, LATER), 13)).container_id == ANN_ID


def test_who_is_leaving_says_so_until_it_has_gone() -> None:
    lease = stored(election.renew(held(), ANN, LATER, is_leaving=True), 12)
    assert election.parse(lease).is_leaving
    assert election.parse(stored(election.renew(lease, ANN, LATER), 13)).is_leaving
    for after in (election.release(lease, ANN), election.take(lease, ANN_AGAIN, TIMING, LATER, over=None)):
        assert after is not None and LEAVING not in after["metadata"]["annotations"]


@pytest.mark.parametrize("other", [BEN, ANN_AGAIN])
def test_nobody_renews_or_gives_back_what_another_run_has(other: Identity) -> None:
    assert election.renew(held(), other, LATER) is None
    assert election.release(held(), other) is None
    assert election.renew(free(), other, LATER) is None
    assert election.release(free(), other) is None


def test_what_is_free_is_not_evicted() -> None:
    assert election.evict(free(), election.parse(free())) is None


def test_a_new_holder_says_its_own_container_and_time() -> None:
    lease = stored(election.release(held(container_id=ANN_ID), ANN), 12)
    taken = stored(election.take(lease, BEN, Timing(15), LATER, over=None), 13)
    assert taken["metadata"]["annotations"] == {FENCE: "12", CONTAINER: "operator"}
    assert taken["spec"] == {
        "holderIdentity": str(BEN),
        "leaseDurationSeconds": 15,
        "acquireTime": LATER,
        "renewTime": LATER,
        "leaseTransitions": 2,
    }

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's Lease, on a clock that is stepped: it serves only while nobody can call it lost."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster.dstk.worker_lease import OBSERVER_SECONDS, WorkerLease

NAME = "default.w-0"


class World:
    """An API server, a clock, and workers that use both."""

    def __init__(self) -> None:
        self.api, self.now = MemoryApi(), 1000.0
        self.api.timeout = 1.0  # type: ignore[attr-defined]

    def lease(self, incarnation: str = "one", former: str = "", duration: int = 6) -> WorkerLease:
        where: Any = (self.api, "ns", "default", "w-0", incarnation, "http://127.0.0.1:1")
        return WorkerLease(*where, duration=duration, former=former, clock=lambda: self.now)

    def takes(self, seconds: float) -> None:
        """The next write takes so long until it is applied."""

        def delay(_what: str) -> None:
            self.now += seconds
            self.api.before_write = None

        self.api.before_write = delay

    @property
    def written(self) -> dict[str, Any]:
        return self.api.get(LEASES, NAME, "ns")


@pytest.fixture
def world() -> World:
    return World()


def test_it_takes_and_renews_and_says_who_and_where_it_is(world: World) -> None:
    lease = world.lease()
    assert lease.session == 0 and lease.turn() and lease.session == 1
    written = world.written
    assert written["spec"]["holderIdentity"] == "w-0/one" and written["spec"]["leaseDurationSeconds"] == 6
    assert written["metadata"]["annotations"] == {"muster.dev/address": "http://127.0.0.1:1"}
    assert written["metadata"]["labels"] == {"muster.dev/key-space": "default"}
    for _turn in range(5):
        world.now += 4.9
        assert lease.holds(1) and lease.turn()
    assert lease.session == 1 and world.written["spec"]["renewTime"] != written["spec"]["renewTime"]


def test_it_serves_up_to_five_sixths_after_the_renewal_was_sent(world: World) -> None:
    lease = world.lease()
    lease.turn()
    world.takes(2.0)
    assert lease.turn()
    world.now += 2.99  # 4.99 since it was sent
    assert lease.holds(1)
    world.now += 0.02
    assert lease.session == 0 and not lease.holds(1) and not lease.holds(0)


def test_a_renewal_that_is_confirmed_too_late_begins_another_session(world: World) -> None:
    lease = world.lease()
    lease.turn()
    world.now += 4.0
    world.takes(1.5)
    assert lease.turn() and lease.session == 2 and not lease.holds(1)


def test_frozen_in_a_renewal_it_has_no_session_when_it_goes_on(world: World) -> None:
    lease = world.lease()
    lease.turn()
    world.takes(60.0)
    assert lease.turn()
    assert lease.session == 0
    assert lease.turn() and lease.session not in (0, 1)


@pytest.mark.parametrize("fault", ["lost", "lost-applied", "500", "unreachable", "409"])
def test_a_renewal_that_fails_is_tried_again_in_the_same_session(world: World, fault: str) -> None:
    lease = world.lease()
    lease.turn()
    world.now += 1.5
    world.api.faults = [f"replace {fault}"]
    assert not lease.turn() and lease.holds(1)
    world.now += 0.2
    assert lease.turn() and lease.holds(1)


def test_a_lease_that_was_deleted_ends_the_session(world: World) -> None:
    lease = world.lease()
    lease.turn()
    world.api.delete(LEASES, NAME, "ns")
    assert not lease.turn() and lease.session == 0
    assert lease.turn() and lease.session == 2 and world.written["spec"]["holderIdentity"] == "w-0/one"


def test_a_lease_that_another_has_ends_the_session(world: World) -> None:
    lease = world.lease()
    lease.turn()
    taken = world.written
    taken["spec"]["holderIdentity"] = "w-0/other"
    world.api.replace(LEASES, taken)
    assert not lease.turn() and lease.holds(1), "it has not heard of it yet"
    assert not lease.turn() and lease.session == 0


def test_what_another_run_holds_is_waited_for(world: World) -> None:
    world.lease("one").turn()
    two = world.lease("two")
    for _turn in range(70):
        assert not two.turn()
        world.now += 0.1
    assert two.turn() and two.session == 1


def test_what_another_run_renews_is_not_taken(world: World) -> None:
    one, two = world.lease("one"), world.lease("two")
    for _turn in range(20):
        assert one.turn() and not two.turn()
        world.now += 4.0
    assert two.session == 0


def test_what_the_former_run_of_this_directory_holds_is_taken_at_once(world: World) -> None:
    world.lease("one").turn()
    two = world.lease("two", former="one")
    assert two.turn() and two.session == 1 and world.written["spec"]["leaseTransitions"] == 2


def test_it_says_that_it_leaves_and_frees_the_lease_at_the_end(world: World) -> None:
    lease = world.lease()
    lease.turn()
    lease.leave()
    lease.turn()
    assert world.written["metadata"]["annotations"]["muster.dev/leaving"] == "true" and lease.holds(1)
    lease.close()
    written = world.written
    assert lease.session == 0 and written["spec"]["holderIdentity"] == ""
    assert "muster.dev/leaving" not in written["metadata"]["annotations"]
    assert world.lease("two").turn()


def test_it_frees_no_lease_that_another_has(world: World) -> None:
    lease = world.lease()
    lease.turn()
    world.now += 60
    assert world.lease("two", former="one").turn()
    lease.close()
    assert world.written["spec"]["holderIdentity"] == "w-0/two"


def test_its_thread_tells_when_a_session_begins(world: World) -> None:
    import threading

    lease, changed = world.lease(), threading.Event()
    lease.changed = changed.set
    lease.start()
    assert changed.wait(60) and lease.session == 1
    lease.close()
    assert lease.session == 0


@pytest.mark.parametrize("duration", [0, -1, 3601])
def test_a_duration_that_makes_no_sense_is_refused(world: World, duration: int) -> None:
    with pytest.raises(Malformed, match="lease seconds"):
        world.lease(duration=duration)


class Observer:
    """Calls the worker lost as all others do: by what it has seen unchanged, on its own clock."""

    def __init__(self, world: World) -> None:
        self._world, self._beat, self._since = world, None, world.now

    def sees_lost(self) -> bool:
        beat: Any
        try:
            lease = self._world.written
            beat = (lease["metadata"]["uid"], lease["spec"].get("holderIdentity"), lease["spec"].get("renewTime"))
        except NotFound:
            beat = ()
        if beat != self._beat:
            self._beat, self._since = beat, self._world.now
        return self._world.now - self._since >= 6 + OBSERVER_SECONDS


STEPS = st.one_of(
    st.tuples(st.just("passes"), st.sampled_from([0.1, 0.9, 1.5, 2.5, 4.9, 5.1, 6.5])),
    st.tuples(st.just("takes"), st.sampled_from([0.1, 1.0, 3.0, 4.95, 5.05, 7.5])),
    st.tuples(st.just("fails"), st.sampled_from(["lost", "lost-applied", "500", "409"])),
    st.tuples(st.just("turns"), st.integers(0, 1)),
)


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(steps=st.lists(STEPS, max_size=40))
def test_who_is_called_lost_serves_nothing_and_two_never_serve_at_once(steps: list[tuple[str, Any]]) -> None:
    world = World()
    leases = [world.lease("one"), world.lease("two")]
    observer = Observer(world)
    last = [0, 0]
    for word, what in steps:
        if word == "passes":
            for _part in range(10):  # the observer looks all the time
                world.now += what / 10
                lost = observer.sees_lost()
                assert not (lost and any(lease.session for lease in leases))
        elif word == "takes":
            world.takes(what)
        elif word == "fails":
            world.api.faults = [f"replace {what}"]
        else:
            leases[what].turn()
            world.api.before_write = None
            observer.sees_lost()
        sessions = [lease.session for lease in leases]
        assert sum(1 for session in sessions if session) <= 1
        for index, session in enumerate(sessions):
            assert session == 0 or session >= last[index]
            last[index] = max(last[index], session)

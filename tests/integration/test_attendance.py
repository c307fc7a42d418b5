# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attendants at a real API server: who gets what when holders leave, die, come back, freeze, or the network fails.

How long each thing took is reported (run pytest with -rP, or see the properties in the JUnit report); only generous
deadlines are asserted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.tests.support.fault_proxy import (
    Answer,
    AppliedButFailed,
    DropAnswer,
    DropRequest,
    FaultProxy,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Attending, Lab, Recorder, until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab(api: Api, namespace: str) -> Iterator[Lab]:
    lab = Lab(api, namespace)
    yield lab
    lab.close()


@pytest.fixture
def took(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Reports a time."""

    def report(what: str, seconds: float) -> None:
        record_property(what, f"{seconds * 1000:.0f} ms")
        print(f"{what}: {seconds * 1000:.0f} ms")

    return report


def three(lab: Lab, capacity: int = 1, **options) -> list[Attending]:
    """Sidecars a, b, c: with one permit a holds it, b is first in the queue, c second."""
    lab.semaphore({"gpu": capacity})
    there = [lab.sidecar("a", **options)]
    there[0].holds()
    for name, place in (("b", 1), ("c", 2)):
        there.append(lab.sidecar(name, **options))
        there[-1].waits(place)
    return there


# ------------------------------------------------------------------------------------------ who is next


def test_a_permit_given_back_goes_to_the_next_in_one_write(lab: Lab, took) -> None:
    a, b, c = three(lab)
    first = a.fence
    a.stop()
    before = lab.annotations()[engine.STATE]
    lab.release("a", a.claimant.uid)
    took("hand-off after release", b.holds())
    assert b.fence > first
    c.waits(1)
    state = lab.annotations()[engine.STATE]
    assert state != before
    time.sleep(1.5)  # longer than anybody's random delay: nobody has anything more to write
    assert lab.annotations()[engine.STATE] == state


def test_a_pod_that_is_deleted_loses_its_permit_to_the_next(lab: Lab, took) -> None:
    a, b, c = three(lab)
    first = a.fence
    a.stop()
    lab.kill("a")
    took("hand-off after deletion", b.holds())
    assert b.fence > first
    lab.kill("b")
    b.stop()
    took("hand-off after deletion, with nobody else about", c.holds())


def test_a_pod_that_has_ended_is_dead_as_a_holder_and_in_the_queue(lab: Lab, took) -> None:
    a, b, c = three(lab)
    b.stop()
    lab.finish("b", "Failed")
    took("waiter reaped after its end", until(lambda: lab.seen().place("b") is None, "b to leave the queue"))
    a.stop()
    lab.finish("a")
    took("hand-off after the end", c.holds())


def test_a_name_that_comes_back_is_a_new_holder_at_the_end_of_the_queue(lab: Lab) -> None:
    a, b, c = three(lab)
    first = a.fence
    a.stop()
    lab.kill("a")
    again = lab.sidecar("a")
    b.holds()
    again.waits(2)
    until(lambda: c.sight.place == 1, "c to see that it is first")
    lab.kill("b")
    b.stop()
    c.holds()
    lab.kill("c")
    c.stop()
    again.holds()
    assert again.fence > first


def test_a_process_that_outlives_its_pod_is_told_and_gets_nothing_more(lab: Lab) -> None:
    a, b, c = three(lab)
    lab.kill("a")
    b.holds()
    a.says("does not exist any more")
    assert a.fence is None
    lab.kill("b")
    c.holds()
    b.says("does not exist any more")
    lab.kill("c")
    time.sleep(2)
    assert [a.fence, b.fence] == [None, None]
    assert set(lab.seen().grants) <= {"c"}
    assert lab.seen().queue == ()


# ------------------------------------------------------------------------------------------ the object


def test_capacity_edited_by_hand_takes_effect_at_once_and_revokes_nobody(lab: Lab, took) -> None:
    a, b, c = three(lab)
    lab.annotate(**{engine.CAPACITY: '{"gpu": 3}'})
    took("grant after a raise", max(b.holds(), c.holds()))
    fences = (a.fence, b.fence, c.fence)
    lab.annotate(**{engine.CAPACITY: '{"gpu": 0}'})
    d = lab.sidecar("d")
    d.waits(1)
    assert (a.fence, b.fence, c.fence) == fences
    lab.annotate(**{engine.CAPACITY: '{"gpu": 2}'})
    lab.kill("a")
    until(lambda: "a" not in lab.seen().grants, "a to be reaped")
    time.sleep(1)
    assert d.fence is None, "granted while what is held still drains"
    lab.kill("b")
    d.holds()


def test_a_semaphore_that_is_removed_and_made_again_is_claimed_again_with_higher_fences(lab: Lab) -> None:
    a, _b, _c = three(lab)
    first = a.fence
    lab.api.delete(CONFIGMAPS, lab.name, lab.namespace)
    a.says("does not exist")
    assert a.fence is None
    lab.semaphore({"gpu": 2})
    until(lambda: sum(bool(one.fence) for one in lab.attending) == 2, "two of three to hold again")
    assert all(one.fence > first for one in lab.attending if one.fence)


def test_malformed_content_is_left_alone_and_all_goes_on_when_it_is_mended(lab: Lab) -> None:
    a, b, _c = three(lab)
    state, held = lab.annotations()[engine.STATE], a.fence
    lab.annotate(**{engine.STATE: "{"})
    a.says("distributor_state")
    b.says("distributor_state")
    assert a.fence == held
    lab.kill("a")
    time.sleep(2)
    assert lab.annotations()[engine.STATE] == "{"
    lab.annotate(**{engine.STATE: state})
    b.holds()


# ------------------------------------------------------------------------------------------ leases


def test_a_lease_is_kept_while_it_is_renewed_and_lost_when_its_holder_freezes(lab: Lab, took) -> None:
    lab.semaphore({"gpu": 1})
    ci = lab.attend("ci", lease=3)
    ci.holds()
    b = lab.sidecar("b")
    b.waits(1)
    time.sleep(8)
    assert ci.fence and not b.fence
    first = ci.fence
    ci.stop()  # gives nothing back: as kill -9
    seconds = b.holds()
    took("lease of 3 s taken away", seconds)
    assert seconds > 1.5, "taken away sooner than the lease allows"
    assert b.fence > first


# ------------------------------------------------------------------------------------------ a bad network


@pytest.fixture
def proxy(kubeconfig: str) -> Iterator[FaultProxy]:
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        yield proxy


FAULTS = {
    "answer lost": DropAnswer(),
    "request lost": DropRequest(),
    "500, not applied": Answer(500),
    "500, applied": AppliedButFailed(500),
    "504, applied": AppliedButFailed(504, "Timeout"),
    "409": Answer(409, "Conflict"),
    "429": Answer(429, "TooManyRequests", retry_after=1),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_claim_whose_write_meets_a_fault_is_made_once(lab: Lab, proxy: FaultProxy, fault) -> None:
    lab.semaphore({"gpu": 2})
    recorder = Recorder(lab.api, lab.name, lab.namespace)
    proxy.plan(fault, method="PUT", path="/configmaps/")
    a = lab.sidecar("a", api=Api(proxy.credentials()))
    a.holds()
    proxy.plan(fault, method="GET", path="/configmaps/sem")
    proxy.plan(fault, method="PUT", path="/configmaps/")
    b = lab.sidecar("b", api=Api(proxy.credentials()))
    b.holds()
    history = recorder.finish()
    assert recorder.illegal == []
    assert sorted(history.grants) == sorted([a.fence, b.fence])


def test_watches_that_are_cut_and_a_server_that_is_gone_for_a_while(lab: Lab, proxy: FaultProxy, took) -> None:
    lab.semaphore({"gpu": 1})
    a = lab.sidecar("a")
    a.holds()
    b = lab.sidecar("b", api=Api(proxy.credentials()))
    b.waits(1)
    for _ in range(5):
        proxy.cut()
        time.sleep(0.1)
    proxy.down()
    b.says("no connection")
    a.stop()
    lab.kill("a")
    time.sleep(1)
    assert b.fence is None
    proxy.up()
    took("grant after the way is back", b.holds())


def test_a_wire_that_is_silent_is_noticed(lab: Lab, proxy: FaultProxy, took) -> None:
    """Nothing is closed and nothing comes: the watch notices by its time-out, the resync on its own."""
    lab.semaphore({"gpu": 1})
    a = lab.sidecar("a")
    a.holds()
    b = lab.sidecar("b", api=Api(proxy.credentials(), timeout=2))
    b.waits(1)
    proxy.freeze()
    b.attendant._resync_at = 0  # not to wait for a minute
    a.stop()
    lab.kill("a")
    time.sleep(3)
    assert b.fence is None
    proxy.thaw()
    took("grant after a freeze", b.holds(seconds=90))


def test_the_api_server_is_killed_while_all_claim(lab: Lab, kubeconfig: str, took) -> None:
    """Embedded: SIGKILL, and its supervisor starts it again. Elsewhere the way to it is closed for some seconds."""
    a, b, c = three(lab)
    recorder = Recorder(lab.api, lab.name, lab.namespace)
    fence = a.fence
    state = Path(kubeconfig).resolve().parent
    if not (state / "supervisor.json").exists():
        pytest.fail(
            "killing the API server needs the embedded cluster: unset KUBECONFIG, and run make test-integration"
        )
    kill = [sys.executable, "-m", "cluster", "kill", "--level", "control-plane", "--name", state.name, "kube-apiserver"]
    subprocess.run(kill, cwd=ROOT, check=True, capture_output=True)
    began = time.monotonic()
    late = None
    while late is None:
        try:
            late = lab.sidecar("late")
        except Exception:
            assert time.monotonic() - began < 60
            time.sleep(0.1)
    took("API server back", time.monotonic() - began)
    took("place in the queue after that", late.waits())
    assert (a.fence, b.sight.place, c.sight.place) == (fence, 1, 2)
    lab.kill("a")
    took("hand-off after that", b.holds())
    assert recorder.finish().revisions > 1
    assert recorder.illegal == []

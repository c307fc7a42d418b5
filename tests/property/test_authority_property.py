# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any history of a controller's replicas: nobody acts on what another may act on, and all is acted on in the end."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import event, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ansible_collections.muster.coordination.plugins.module_utils import commit
from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES
from ansible_collections.muster.coordination.plugins.module_utils.verbs import leases, tables
from ansible_collections.muster.coordination.tests.support import terms
from ansible_collections.muster.coordination.tests.support.replicas import KEYS, LEASE, Replicas


@pytest.fixture(autouse=True, scope="module")
def no_delay() -> Iterator[None]:
    """What waits before it tries again does so at once: the others' time is held meanwhile anyway."""
    at_once = functools.partial(commit.commit, pace=commit.Pace(sleep=lambda _seconds: None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "commit", at_once)
        patch.setattr(tables, "commit", at_once)
        yield


PODS = ("vm-0", "vm-1", "vm-2")
POD = st.sampled_from(PODS)
FAULTS = st.sampled_from(
    ["replace lost-applied", "replace 409", "replace 500-applied", "get 500", "create lost-applied", "list 500"]
)


class AnyHistory(RuleBasedStateMachine):
    """Replicas that hear late, stand still, die, are started again and leave; and a hand that deletes Leases."""

    mode = "leader"

    def __init__(self) -> None:
        super().__init__()
        self.world = Replicas(self.mode)
        self.leaving: set[str] = set()

    @initialize(pods=st.sets(POD, min_size=1))
    def some_run_already(self, pods: set[str]) -> None:
        for pod in sorted(pods):
            self.world.start(pod)
            self.world.report(pod)
        self.world.settle(2 * LEASE)

    @rule(still=st.none() | POD, rounds=st.integers(1, 16), step=st.sampled_from([0.1, 0.5, 1.0]))
    def time_passes(self, still: str | None, rounds: int, step: float) -> None:
        """All hear all and do what is due, but one may stand still, or be cut off."""
        for _round in range(rounds):
            for pod, replica in list(self.world.running.items()):
                if pod != still:
                    replica.hear()
                    replica.turn()
                    self.nobody_acts_on_what_another_may_act_on()
            self.world.now += step

    @rule(pod=POD, count=st.integers(0, 5))
    def one_is_late(self, pod: str, count: int) -> None:
        """It does what is due by what it has heard, which is not all."""
        if pod in self.world.running:
            self.world.running[pod].hear(count)
            self.world.running[pod].turn()

    @rule(first=POD, then=POD)
    def one_is_faster_than_another(self, first: str, then: str) -> None:
        """`first` does all that it can between a read and a write of `then`."""
        world = self.world
        if first == then or not {first, then} <= world.running.keys():
            return

        def step_in(_what: str) -> None:
            world.api.before_write = None
            world.running[first].hear()
            world.running[first].turn()

        world.api.before_write = step_in
        world.running[then].hear()
        world.running[then].turn()
        world.api.before_write = None

    @rule(fault=FAULTS)
    def a_request_goes_wrong(self, fault: str) -> None:
        self.world.api.faults.append(fault)

    @rule()
    def work_begins(self) -> None:
        if any([replica.begin(key) for replica in self.world.running.values() for key in KEYS]):
            event("work in flight")

    @rule(pod=POD)
    def work_ends(self, pod: str) -> None:
        if pod in self.world.running:
            self.world.running[pod].finish_all()

    @precondition(lambda self: len(self.world.running) < len(PODS))
    @rule()
    def one_is_started(self) -> None:
        pod = next(pod for pod in PODS if pod not in self.world.running)
        self.leaving.discard(pod)
        self.world.start(pod)

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), is_reported=st.booleans())
    def one_dies(self, data: st.DataObject, is_reported: bool) -> None:
        pod = data.draw(st.sampled_from(sorted(self.world.running)))
        self.world.kill(pod)
        if is_reported:
            self.world.report(pod)

    @rule(pod=POD)
    def kubelet_reports(self, pod: str) -> None:
        if ("pods", "ns", pod) in self.world.api.objects:
            self.world.report(pod)

    @precondition(lambda self: self.world.running.keys() - self.leaving)
    @rule(data=st.data())
    def sigterm(self, data: st.DataObject) -> None:
        pod = data.draw(st.sampled_from(sorted(self.world.running.keys() - self.leaving)))
        self.leaving.add(pod)
        self.world.running[pod].ask_to_leave()

    @precondition(lambda self: any(not self.world.running[pod].flying for pod in self.leaving & {*self.world.running}))
    @rule(data=st.data())
    def one_leaves(self, data: st.DataObject) -> None:
        ready = sorted(pod for pod in self.leaving & {*self.world.running} if not self.world.running[pod].flying)
        self.world.running[data.draw(st.sampled_from(ready))].leave()
        event("left")

    @precondition(lambda self: any(plural == "leases" for plural, _ns, _name in self.world.api.objects))
    @rule(data=st.data())
    def a_hand_deletes_a_lease(self, data: st.DataObject) -> None:
        names = sorted(name for plural, _ns, name in self.world.api.objects if plural == "leases")
        self.world.api.faults.clear()
        self.world.api.delete(LEASES, data.draw(st.sampled_from(names)), "ns")

    @invariant()
    def nobody_acts_on_what_another_may_act_on(self) -> None:
        for key in KEYS:
            acting = self.world.acting(key)
            assert len(acting) <= 1, f"{key}: {[str(one.office._keeper.me) for one in acting]}"

    def teardown(self) -> None:
        """Terms never overlapped; and with all trouble over, each key is somebody's."""
        self.world.api.faults.clear()
        for pod in self.leaving & self.world.running.keys():
            self.world.running[pod].finish_all()
            self.world.running[pod].leave()
        if not self.world.running:
            self.world.start(PODS[0])
        self.world.settle(5 * LEASE)
        for key in KEYS:
            assert len(self.world.acting(key)) == 1, f"{key} is nobody's: {self.describe()}"
        self.terms_never_overlapped()

    def terms_never_overlapped(self) -> None:
        killed = {who: one for one in self.world.ended for who in one.identities}

        def ended(who: str) -> float:
            one = killed.get(who)
            return math.inf if one is None else min(one.killed_at, one.office._tenures.until)

        terms.never_overlap(terms.intervals(self.world.notes, ended))

    def describe(self) -> list[object]:
        return [replica.office.describe() for replica in self.world.running.values()]


class AnyHistoryOfShards(AnyHistory):
    mode = "shard"


EXAMPLES = settings(max_examples=100, stateful_step_count=40)
TestLeader = AnyHistory.TestCase
TestLeader.settings = EXAMPLES
TestShards = AnyHistoryOfShards.TestCase
TestShards.settings = EXAMPLES

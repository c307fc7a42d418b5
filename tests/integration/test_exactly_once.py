# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three replicas of the VirtualMachine operator make each machine once, whatever dies, freezes or fails meanwhile.

Real processes, a real API server, a real private cloud with its faults switched on. The long form of the same is
`python -m bench.exactly_once`. What must hold (R1 to R7), and the judge: tests/support/authority_oracle.py.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.tests.support import authority_oracle as oracle
from ansible_collections.muster.coordination.tests.support.control_plane import ControlPlane
from ansible_collections.muster.coordination.tests.support.forms import IS_LONG, one_of_each_pair
from ansible_collections.muster.coordination.tests.support.nursery import REPLACED
from ansible_collections.muster.coordination.tests.support.planted_controllers import (
    COMPACT,
    EVERYBODY,
    KILL_CLOUD,
    LATE_CREATE,
    MODES,
    UNGUARDED,
)
from ansible_collections.muster.coordination.tests.support.vm_lab import Lab, make_namespace, until
from ansible_collections.muster.coordination.tests.support.vm_storm import PODS, Storm, kill_points

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("a control plane of its own")]


@pytest.fixture(scope="module")
def own_api(control_plane: ControlPlane) -> Iterator[Api]:
    api = Api(Credentials.load({"kubeconfig": control_plane.kubeconfig}), timeout=30.0)
    yield api
    api.close()


REFUSED = "StaleFence"  # by the cloud
EVENTS = (LATE_CREATE, KILL_CLOUD, COMPACT)  # the long form has all

MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(own_api: Api, control_plane: ControlPlane, tmp_path: Path) -> Iterator[MakeLab]:
    labs: list[Lab] = []

    def make(mode: str, **options: object) -> Lab:
        directory = tmp_path / str(len(labs))
        directory.mkdir()
        namespace = make_namespace(own_api, f"once-{mode}")
        labs.append(Lab(own_api, control_plane.kubeconfig, namespace, directory, mode, **options))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()
        own_api.delete(NAMESPACES, lab.namespace)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_every_kind_of_write(
    make_lab: MakeLab, control_plane: ControlPlane, mode: str, record_property: Callable[[str, object], None]
) -> None:
    """R1, R2, R5, R7: each kill point once, while objects come, change, go and come again.

    In the short form one mode has the deaths before a write that the other has after it.
    """
    points = one_of_each_pair(kill_points(mode), MODES.index(mode))
    storm = Storm(make_lab(mode), seed=1, plane=control_plane)
    storm.turns = points
    storm.run(len(points), names=6, events=EVENTS, events_every=len(points) // len(EVENTS))
    record_property("kills", storm.kills)
    print(f"{mode}: {storm.kills} kills in {storm.seconds:.0f} s, {dict(storm.events)}, {storm.totals}")
    assert storm.violations == []
    assert storm.points.keys() >= set(map(str, points)), "a kill point did not come"
    assert storm.totals["made"] > 0 and max(storm.creates.values()) == 1
    assert storm.totals["live"] == 0


@pytest.mark.parametrize("mode", MODES)
def test_a_create_in_flight_of_a_frozen_replica_is_refused(make_lab: MakeLab, mode: str) -> None:
    """R3: stopped between its last look at its term and its create; awake again when another one has taken over."""
    lab = make_lab(mode)
    assert Storm(lab, seed=2).tell_late_create()["outcome"] == REFUSED
    assert lab.cloud.counters()["refused_stale"] >= 1
    lab.settle()
    assert lab.judge() == []
    assert oracle.judge_authority(lab.end()) == []


@pytest.mark.parametrize("mode", MODES)
def test_replicas_come_and_go_while_objects_are_made(make_lab: MakeLab, mode: str) -> None:
    """R4, R6: 1, 3, 1 replicas; none double, none an orphan, none stuck."""
    lab = make_lab(mode)
    lab.nursery.start(PODS[0])
    objects = 200 if IS_LONG else 100

    def running(count: int) -> None:
        until(lambda: bool(lab.list()) and len(lab.ledger.ran) >= count, lambda: f"{count} to run: {lab.told()}")

    for number in range(objects):
        lab.create(f"vm-{number}")
        if number == 20:
            running(5)
            for pod in PODS[1:]:
                lab.nursery.start(pod)
    running(objects // 2)
    for replica in lab.nursery.alive[:2]:
        replica.send(signal.SIGTERM)
        until(lambda replica=replica: not replica.is_alive, lambda replica=replica: replica.log(), 60)
        lab.nursery.ended()
        lab.nursery.bury(replica, REPLACED)
    lab.settle()
    assert lab.judge() == []
    assert len(lab.ledger.ran) == objects
    lab.remove_all()
    assert lab.judge() == []
    assert oracle.judge_authority(lab.end()) == []


@pytest.mark.parametrize("mode", MODES)
def test_without_the_guard_the_same_makes_doubles(make_lab: MakeLab, mode: str) -> None:
    """The harness sees what the guard prevents: all replicas act, the cloud looks at no key, name and fence."""
    lab = make_lab(mode, plant=EVERYBODY)
    lab.cloud.switch(**UNGUARDED)
    for pod in PODS:
        lab.nursery.start(pod)
    numbers = itertools.count()

    def doubles() -> list[str]:
        lab.create(f"vm-{next(numbers)}")
        lab.list()
        return [wrong for wrong in lab.judge() if "machines were made for" in wrong]

    until(doubles, lambda: f"a double: {lab.cloud.counters()}")
    counters = lab.cloud.counters()
    assert counters["made"] > len(counters["creates"]), "creates / objects > 1"

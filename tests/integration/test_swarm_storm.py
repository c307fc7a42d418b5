# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three replicas of the Swarm operator die at every kind of write, and no job ever runs on two workers.

Real processes and a real API server, behind a proxy that loses answers. The long form of the same is `python -m
bench.swarm_storm`. What must hold, and the judges: tests/support/swarm_lab.py and authority_oracle.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES, Api
from ansible_collections.muster.coordination.tests.support.forms import one_of_each_pair
from ansible_collections.muster.coordination.tests.support.planted_controllers import FREEZE, MODES
from ansible_collections.muster.coordination.tests.support.swarm_storm import (
    LATE_WRITE,
    Storm,
    StormLab,
    kill_points,
)
from ansible_collections.muster.coordination.tests.support.vm_lab import make_namespace

pytestmark = pytest.mark.integration

MakeLab = Callable[..., StormLab]


@pytest.fixture
def make_lab(api: Api, tmp_path: Path) -> Iterator[MakeLab]:
    labs: list[StormLab] = []

    def make(mode: str, **options: object) -> StormLab:
        directory = tmp_path / str(len(labs))
        directory.mkdir()
        labs.append(StormLab(api, make_namespace(api, f"swarm-{mode}"), directory, mode, **options))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()
        api.delete(NAMESPACES, lab.namespace)


@pytest.mark.parametrize("mode", MODES)
def test_killed_at_every_kind_of_write(
    make_lab: MakeLab, mode: str, record_property: Callable[[str, object], None]
) -> None:
    """In the short form one mode has the deaths before a write that the other has after it."""
    points = one_of_each_pair(kill_points(mode), MODES.index(mode))
    storm = Storm(make_lab(mode, seed=1), seed=1)
    storm.turns = points
    storm.most = 1
    storm.run(len(points), events=(FREEZE, LATE_WRITE), events_every=len(points) // 2, rest_every=len(points) // 2)
    record_property("kills", storm.kills)
    print(f"{mode}: {storm.kills} kills in {storm.seconds:.0f} s, {dict(storm.events)}, {storm.totals}")
    assert storm.violations == []
    assert storm.points.keys() >= set(map(str, points)), "a kill point did not come"
    assert storm.totals["evictions"] > 0 and storm.totals["jobs run"] > 26


def test_the_same_storm_finds_an_operator_that_does_not_wait(make_lab: MakeLab) -> None:
    found: list[str] = []
    for seed in range(10):  # overlaps last as long as a worker takes to read: most storms have some
        storm = Storm(make_lab("leader", plant="hands over without waiting"), seed)
        storm.run(4)
        found += [wrong for wrong in storm.violations if wrong.startswith("W1: ")]
        if found:
            break
    assert found

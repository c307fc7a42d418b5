# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs that are planted in an operator's replicas are found by the storm of test_exactly_once.py, in its short form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.tests.support.control_plane import ControlPlane
from ansible_collections.muster.coordination.tests.support.planted_controllers import BUGS, LATE_CREATE
from ansible_collections.muster.coordination.tests.support.vm_lab import Lab, make_namespace
from ansible_collections.muster.coordination.tests.support.vm_storm import Storm

pytestmark = pytest.mark.xdist_group("a control plane of its own")

KILLS, EVENT_EVERY = 6, 3
PATIENCE = 20.0  # seconds in which what a bug prevents is waited for


@pytest.fixture(scope="module")
def own_api(control_plane: ControlPlane) -> Iterator[Api]:
    api = Api(Credentials.load({"kubeconfig": control_plane.kubeconfig}), timeout=30.0)
    yield api
    api.close()


@pytest.mark.integration
@pytest.mark.parametrize("name", BUGS)
def test_it_is_found(name: str, own_api: Api, control_plane: ControlPlane, tmp_path: Path, record_property) -> None:
    bug = BUGS[name]
    namespace = make_namespace(own_api, "planted")
    lab = Lab(own_api, control_plane.kubeconfig, namespace, tmp_path, bug.mode, plant=name, patience=PATIENCE)
    storm = Storm(lab, seed=3, plane=control_plane, faults=bug.cloud, never=PATIENCE)
    try:
        if bug.events == (LATE_CREATE,):
            storm.tell_late_create()
        else:
            storm.run(KILLS, names=6, events=bug.events, events_every=EVENT_EVERY)
    finally:
        lab.close()
        own_api.delete(NAMESPACES, namespace)
    found = [violation for violation in storm.violations if bug.found in violation]
    assert found, f"{name} ({bug.breaks}) was not found; what was: {storm.violations}"
    record_property("found", found[0])
    print(f"{bug.breaks} | {name} | {found[0][:200]}")

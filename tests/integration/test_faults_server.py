# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An API server that is killed, and a history that is compacted: on a control plane of its own, since both hurt others.

Both engines live through it at once. All is recorded and judged as in test_faults.py; what nobody heard because there
was no API server is read back from its history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    NAMESPACES,
    PODS,
    Api,
    Gone,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support.control_plane import ControlPlane
from ansible_collections.muster.coordination.tests.support.docket import Docket
from ansible_collections.muster.coordination.tests.support.replica_process import Site
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Attending, Lab, until

ENGINES = ("annotations", "tickets")
SERVICE_ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
BACK = 90.0  # seconds for an API server to come back, on a machine that may be busy

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("a control plane of its own")]


@pytest.fixture(scope="module")
def own_api(control_plane: ControlPlane) -> Iterator[Api]:
    api = Api(Credentials.load({"kubeconfig": control_plane.kubeconfig}))
    yield api
    api.close()


@pytest.fixture
def labs(own_api: Api) -> Iterator[list[Lab]]:
    """One of each engine, in a namespace of its own."""
    labs = []
    for engine_name in ENGINES:
        made = own_api.create(NAMESPACES, {"metadata": {"generateName": f"faults-{engine_name}-"}})
        labs.append(Lab(own_api, made["metadata"]["name"], engine_name=engine_name))
        insist(lambda: own_api.get(SERVICE_ACCOUNTS, "default", labs[-1].namespace))  # without it there are no Pods
    yield labs
    for lab in labs:
        lab.close()


@pytest.fixture
def dockets(labs: list[Lab]) -> Iterator[list[Docket]]:
    dockets = [Docket(lab.api, lab.namespace, lab.name, lab.engine) for lab in labs]
    yield dockets
    for docket in dockets:
        docket.close()


@pytest.fixture
def took(record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    def report(what: str, seconds: float) -> None:
        record_property(what, f"{seconds * 1000:.0f} ms")
        print(f"{what}: {seconds * 1000:.0f} ms")

    return report


def line_up(lab: Lab) -> list[Attending]:
    lab.semaphore({"gpu": 1})
    there = [lab.sidecar("a")]
    there[0].holds()
    for name, place in (("b", 1), ("c", 2)):
        there.append(lab.sidecar(name))
        there[-1].waits(place)
    return there


def insist(call: Callable[[], object]) -> float:
    """Until it works; returns after how many seconds."""

    def works() -> bool:
        try:
            call()
        except Exception:
            return False
        return True

    return until(works, "the API server to come back", BACK)


def test_the_api_server_is_killed_while_claims_move(
    control_plane: ControlPlane, labs: list[Lab], dockets: list[Docket], took
) -> None:
    """Killed, and killed again; the first thing that it does then is a hand-off, while all come back to it at once."""
    lines = [line_up(lab) for lab in labs]
    fences = [line[0].fence for line in lines]
    control_plane.kill_server()
    took("API server back", insist(lambda: [lab.pod("late") for lab in labs if lab.gone("late")]))
    late = [lab.attend("late", lab.api.get(PODS, "late", lab.namespace)["metadata"]["uid"]) for lab in labs]
    for lab, (a, b, c), d, fence in zip(labs, lines, late, fences, strict=True):
        took(f"{lab.engine}: place in the queue after that", d.waits(3, BACK))
        assert (a.fence, b.sight.place, c.sight.place) == (fence, 1, 2)
    control_plane.kill_server()
    for lab in labs:
        took("Pod deleted by the first answer of a new server", insist(lambda lab=lab: lab.gone("a") or lab.kill("a")))
    began = time.monotonic()
    for lab, (_a, b, _c) in zip(labs, lines, strict=True):
        b.holds(BACK)
        took(f"{lab.engine}: hand-off by a server that has just begun", time.monotonic() - began)
    for lab, docket, (a, b, _c), fence in zip(labs, dockets, lines, fences, strict=True):
        a.loses(BACK)
        assert b.fence > fence
        verdict = lab.judge(docket)
        print(f"{lab.engine}: {verdict.revisions} revisions, {verdict.read_back} read back")
        assert {name for name, _uid in verdict.holding} == {"b"}


def test_a_history_that_is_compacted_under_all(
    control_plane: ControlPlane, labs: list[Lab], dockets: list[Docket], took
) -> None:
    """etcd forgets what was, and the API server that is started anew has no cache: every watch gets a real 410.

    With tickets, a capacity was lowered by hand just before, and what held then can't be read any more.
    """
    lines = [line_up(lab) for lab in labs]
    for lab, (_a, b, _c) in zip(labs, lines, strict=True):
        lab.ask_for({"gpu": 2})
        b.holds()
        for attending in lab.attending:
            attending.stop()  # nobody looks after what comes now
        lab.ask_for({"gpu": 1})
    for docket in dockets:
        docket.catch_up()
    newest = control_plane.compact()
    watches = [docket.opened for docket in dockets]
    control_plane.kill_server()
    tickets = labs[ENGINES.index("tickets")]
    took("API server back", insist(lambda: tickets.api.get(NAMESPACES, "default")))
    with pytest.raises(Gone):
        tickets.api.list(LEASES, tickets.namespace, at=str(newest - 1))
    for docket, before in zip(dockets, watches, strict=True):  # the records have missed nothing, and go on
        until(lambda d=docket, b=before: all(map(int.__gt__, d.opened, b)), "the record to go on", BACK)
    for lab in labs:
        again = {name: lab.attend(name, _uid_of(lab, name)) for name in "abc"}
        again["a"].holds(BACK)
        again["b"].holds(BACK)
        again["c"].waits(1, BACK)
        with pytest.raises(Exception, match=r"is not free|in use"):
            verbs.claim(lab.api, holder="ci", lease=60, **lab.at)
        lab.kill("a")
        until(lambda again=again: again["a"].fence is None, "a to lose")
        time.sleep(1)
        assert again["c"].fence is None, "granted while what is held still drains"
        lab.kill("b")
        took(f"{lab.engine}: hand-off after it has drained", again["c"].holds())
    for lab, docket in zip(labs, dockets, strict=True):
        verdict = lab.judge(docket)
        assert {name for name, _uid in verdict.holding} == {"c"}


@pytest.mark.parametrize("mode", ["leader", "shard"])
def test_replicas_of_a_controller_outlive_both(
    control_plane: ControlPlane, own_api: Api, tmp_path: Path, mode: str
) -> None:
    """The API server is killed, comes back without a history, and each key is one replica's all the time."""
    made = own_api.create(NAMESPACES, {"metadata": {"generateName": "faults-replicas-"}})["metadata"]["name"]
    site = Site(own_api, made, control_plane.kubeconfig, tmp_path, "--replicas-mode", mode, "--lease-seconds", "4")
    try:
        for name in ("a", "b"):
            site.start(name)
        site.wants("before", "x")
        until(lambda: site.all_is_well() and all(site.sums().values()), "the first sum", BACK)
        control_plane.compact()
        control_plane("kill", "kube-apiserver")
        insist(lambda: site.wants("after", "y"))
        insist(lambda: site.wants("before", "y"))
        until(lambda: site.all_is_well() and len({*site.sums().values()} - {None}) == 1, "the sums afterwards", BACK)
        site.judge()
    finally:
        site.close()


def _uid_of(lab: Lab, name: str) -> str:
    return lab.api.get(PODS, name, lab.namespace)["metadata"]["uid"]

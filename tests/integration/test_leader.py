# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A leader and those who stand by, as processes on a real kube-apiserver; no two lead at the same time.

With a lease of an hour nobody can take over by waiting: who does has a release or a proof of death.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, AlreadyExists, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.tests.support.fault_proxy import Answer, DropAnswer, FaultProxy
from ansible_collections.muster.coordination.tests.support.replica_process import (
    NAME,
    PATIENCE,
    Site,
    running,
    terminated,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

pytestmark = pytest.mark.integration

SHORT = ("--lease-seconds", "4")
HOUR = ("--lease-seconds", "3600")
Make = Callable[..., Site]


@pytest.fixture
def make(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Make]:
    made: list[Site] = []

    def site(*options: str) -> Site:
        made.append(Site(api, namespace, kubeconfig, tmp_path, *options))
        return made[-1]

    yield site
    for one in made:
        one.close()


def free_lease(site: Site) -> None:
    """As somebody left it who gave it back: with a lease of an hour, a new one would be had only after that."""
    lease = election.free(NAME, site.namespace, election.Timing(), is_doubtful=False)
    site.api.create(LEASES, lease)


def test_one_leads_and_the_next_goes_on_when_it_is_killed(make: Make) -> None:
    site = make(*SHORT)
    for name in ("a", "b", "c"):
        site.start(name)
    site.wants("one", "x")
    first = site.leader()
    until(lambda: all(site.sums().values()), "the sum", PATIENCE)
    site.process(first).kill()
    site.wants("one", "y")
    site.wants("two", "y")
    second = site.leader(other_than=first)
    until(lambda: len(site.sums()) == 2 and len({*site.sums().values()}) == 1, "the sums", PATIENCE)
    (intervals,) = site.judge().values()
    assert [interval.who.partition("_")[0] for interval in intervals][-1] == second


def test_who_is_told_to_end_hands_over_by_one_write(make: Make) -> None:
    site = make(*HOUR)
    free_lease(site)
    for name in ("a", "b", "c"):
        site.start(name)
    for _round in range(2):
        first = site.leader()
        assert site.process(first).end() == 0
        site.leader(other_than=first)
    site.judge()


@pytest.mark.parametrize("options", [(), ("--pod-selector", f"app={NAME}")], ids=["one by one", "by a selector"])
def test_the_kubelets_word_is_proof(make: Make, options: tuple[str, ...]) -> None:
    site = make(*HOUR, *options)
    free_lease(site)
    for name in ("a", "b"):
        site.pod(name)
        site.start(name)
        site.says(name, "Running", f"containerd://{name}", **running())
    first = site.leader()
    until(lambda: f"containerd://{first}" in container(site), "the Lease to name its container", PATIENCE)
    site.process(first).kill()
    taken = election.parse(site.api.get(LEASES, NAME, site.namespace)).since
    until(lambda: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) > taken[:19], "the next second")
    site.says(first, "Running", f"containerd://{first}", **terminated(f"containerd://{first}"))
    second = site.leader(other_than=first)
    site.judge()
    assert second != first


def container(site: Site) -> str:
    lease = site.api.get(LEASES, NAME, site.namespace)
    return str((lease["metadata"].get("annotations") or {}).get(election.CONTAINER, ""))


def test_the_next_run_of_the_same_container_takes_over_from_the_one_before(make: Make) -> None:
    site = make(*HOUR)
    free_lease(site)
    site.pod("a")
    site.start("a")
    assert site.leader() == "a"
    site.process("a").kill()
    begun = len(site.notes())
    site.start("a")
    until(lambda: site.all_is_well() and len(site.notes()) > begun, "the next run to lead", PATIENCE)
    first, second = (note for note in site.notes() if note.event == "begin")
    assert first.who != second.who and first.fence < second.fence


def test_a_leader_that_is_frozen_beyond_its_lease_leads_no_more(make: Make) -> None:
    site = make(*SHORT)
    for name in ("a", "b"):
        site.start(name)
    first = site.leader()
    site.process(first).send(signal.SIGSTOP)
    second = site.leader(other_than=first)
    site.process(first).send(signal.SIGCONT)
    until(lambda: site.process(first).logged("lost the Lease"), "it to notice", PATIENCE)
    site.wants("one", "x")
    until(lambda: all(site.sums().values()), "the sum", PATIENCE)
    assert second != first
    site.judge()


def test_a_lease_that_is_deleted_and_made_again_is_had_by_one_at_a_time(make: Make) -> None:
    site = make(*SHORT)
    for name in ("a", "b", "c"):
        site.start(name)
    site.leader()
    before = max(note.fence for note in site.notes())
    site.api.delete(LEASES, NAME, site.namespace)
    until(lambda: max(note.fence for note in site.notes()) > before, "a new term", PATIENCE)
    site.leader()
    site.api.delete(LEASES, NAME, site.namespace)
    with suppress(AlreadyExists):  # by a replica that was faster
        site.api.create(LEASES, election.free(NAME, site.namespace, election.Timing(4)))
    before = max(note.fence for note in site.notes())
    until(lambda: max(note.fence for note in site.notes()) > before, "a new term", PATIENCE)
    site.judge()


def test_lost_answers_and_conflicts_cost_nobody_the_lease_for_long(make: Make, kubeconfig: str, tmp_path: Path) -> None:
    site = make(*SHORT)
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        through = tmp_path / "proxy.kubeconfig"
        proxy.write_kubeconfig(through)
        for name in ("a", "b"):
            site.start(name, kubeconfig=str(through))
        site.leader()
        for fault in (DropAnswer(), Answer(409, "Conflict"), DropAnswer(), Answer(500)):
            proxy.plan(fault, method="PUT", path=f"/leases/{NAME}")
            until(lambda: not proxy.pending, "the fault", PATIENCE)
        proxy.cut()
        site.wants("one", "x")
        until(lambda: all(site.sums().values()), "the sum", PATIENCE)
        site.leader()
        site.judge()
        site.close()

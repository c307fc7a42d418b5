# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-assigner` and `muster partition-reconciler` as real processes, with real workers."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import KEY_SPACES, PARTITIONS
from ansible_collections.muster.coordination.tests.support.partition_site import ControllerProcess, Site
from ansible_collections.muster.coordination.tests.support.partition_worker_lab import (
    PATIENCE,
    Writer,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

pytestmark = pytest.mark.integration
BRISK = ("--lease-seconds", "1")

Make = Callable[..., Site]


@pytest.fixture
def make(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Make]:
    made: list[Site] = []

    def one(**space: Any) -> Site:
        settings = {"graceSeconds": 0.3, "lostAfterSeconds": 1, **space}
        made.append(Site(api, namespace, kubeconfig, tmp_path, **settings))
        return made[-1]

    yield one
    for site in made:
        site.close()


def cut(site: Site, count: int) -> None:
    for number, part in enumerate(keyspace.even_cuts(Space("default", 4), Range("", ""), count)):
        site.partition(f"p{number}", part.start, part.end)


def counts(site: Site) -> Counter[str]:
    return Counter(site.owners().values())


def is_spread(site: Site, **wanted: int) -> None:
    def is_so() -> bool:
        return counts(site) == Counter({name.replace("_", "-"): count for name, count in wanted.items()})

    until(lambda: is_so() and site.is_quiet(), f"the partitions to be spread as {wanted}", PATIENCE)


def status(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.api.get(KEY_SPACES, "default", site.namespace).get("status") or {}
    return found


def page(controller: ControllerProcess, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{controller.port}{path}", timeout=30) as answer:
        return json.load(answer)


def test_partitions_are_given_out_evened_out_and_drained(make: Make) -> None:
    site = make()
    site.reconciler()
    assigner = site.assigner()
    one = site.worker("w-0")
    cut(site, 4)
    is_spread(site, w_0=4)
    until(lambda: status(site).get("unserved") == 0, "the status to say so", PATIENCE)
    told = status(site)
    assert (told["partitions"], told["workers"], told["covered"]) == (4, 1, True), told
    two = site.worker("w-1")
    is_spread(site, w_0=2, w_1=2)
    explained = page(assigner, "/explain?partition=p0")
    assert explained["primary"] in ("w-0", "w-1") and "has it since epoch" in explained["why"], explained
    assert page(assigner, "/state")[f"{site.namespace}/default"]["partitions"] == 4
    writer = Writer([one, two], "aa")
    writer.writes()
    assert one.end() == 0  # it waits until it has nothing
    writer.writes()
    writer.stop()
    is_spread(site, w_1=4)
    writer.check(two)
    assert not site.is_exact().gaps


def test_a_follower_takes_over_from_a_worker_that_is_lost(make: Make) -> None:
    site = make(followers=1)
    site.reconciler()
    site.assigner()
    workers = {name: site.worker(name, *BRISK) for name in ("w-0", "w-1", "w-2")}
    cut(site, 1)

    def followers() -> list[str]:
        found: list[str] = site.api.get(PARTITIONS, "p0", site.namespace)["spec"].get("followers") or []
        return found

    until(lambda: followers() and site.is_quiet(), "a follower", PATIENCE)
    primary = site.owners()["p0"]
    writer = Writer(list(workers.values()), "aa")
    writer.writes()
    workers[primary].kill()
    until(lambda: site.owners()["p0"] != primary, "the follower to take over", PATIENCE)
    writer.writes()
    writer.stop()
    heir = site.owners()["p0"]
    writer.check(workers[heir])
    until(lambda: followers() and site.is_quiet(), "another follower", PATIENCE)
    assert set(followers()) == set(workers) - {primary, heir}


def test_without_a_follower_it_is_declared_unserved_until_the_worker_is_back(make: Make) -> None:
    site = make()
    site.reconciler()
    site.assigner()
    one = site.worker("w-0", *BRISK)
    cut(site, 2)
    is_spread(site, w_0=2)
    assert one.put("aaaa", "x").status == 204
    one.kill()
    site.worker("w-1", *BRISK)

    def phases() -> set[str]:
        return {(obj.get("status") or {}).get("phase") for obj in site.api.list(PARTITIONS, site.namespace).items}

    until(lambda: phases() == {"Unserved"}, "both to be declared unserved", PATIENCE)
    assert status(site)["unserved"] == 2 and "lost" in status(site)["message"], status(site)
    assert counts(site) == {"w-0": 2}
    again = site.worker("w-0", *BRISK)
    until(lambda: phases() == {"Ready"}, "both to be served again", PATIENCE)
    is_spread(site, w_0=1, w_1=1)
    assert again.get("aaaa").body == b"x" or again.get("aaaa").word == "not-mine"

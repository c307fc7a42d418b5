# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-reconciler` as a real process with real workers, at a real API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.tests.support.partition_site import Site
from ansible_collections.muster.coordination.tests.support.partition_worker_lab import Writer

pytestmark = pytest.mark.integration


@pytest.fixture
def site(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(api, namespace, kubeconfig, tmp_path, graceSeconds=0.5)
    yield made
    made.close()


def test_a_batch_a_split_a_merge_and_a_move_under_writes(site: Site) -> None:
    one, two = site.worker("w-0"), site.worker("w-1")
    site.reconciler()
    site.partition("p", "", "n")
    site.partition("q", "n", "")
    site.ends(site.new_batch([("p", "w-0"), ("q", "w-1")]))
    assert site.owners() == {"p": "w-0", "q": "w-1"}
    writer = Writer([one, two], "aa")
    writer.writes()
    split = site.ends(site.assignment("InWorkerSplit", partition="p", splitKey="aa25"))
    halves = [each["partition"] for each in split["status"]["results"]]
    writer.writes()
    site.is_exact()
    merge = site.ends(site.assignment("InWorkerMerge", partitions=halves))
    (merged,) = (each["partition"] for each in merge["status"]["results"])
    writer.writes()
    site.ends(site.assignment("InterWorkerMove", partition=merged, **{"from": "w-0", "to": "w-1"}))
    writer.writes()
    writer.stop()
    writer.check(two)
    assert {fact.primary for fact in site.is_exact().facts} == {"w-1"}
    assert site.is_quiet()
    assert one.copies() == {}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-worker` as real processes, at a real API server: what it serves while partitions change hands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.tests.support.partition_worker_lab import Lab, Writer

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(api, namespace, kubeconfig, tmp_path)
    yield made
    made.close()


def test_a_new_partition_is_served_and_no_other(lab: Lab) -> None:
    one = lab.worker("w-0")
    lab.partition("p", "a", "n")
    assert one.put("aaaa", "x").word == "not-mine"
    lab.new(one, "p")
    done = one.put("aaaa", "x")
    assert (done.status, done.headers["Muster-Partition"], done.headers["Muster-Epoch"]) == (204, "p", "1")
    assert one.get("aaaa").body == b"x"
    assert one.get("aaab").word == "no-such-key"
    assert one.put("nnnn", "x").word == "not-mine"
    assert one.put("aaa", "x").word == "malformed"
    assert one.get("aaaa", Muster_Epoch="7").word == "stale"
    assert one.delete("aaaa").status == 204
    assert one.get("aaaa").word == "no-such-key"


def test_a_move_under_writes_loses_nothing_and_proxies(lab: Lab) -> None:
    one, two = lab.worker("w-0"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    writer = Writer([one, two], "aa")
    writer.writes()
    moved = lab.move("p", one, two, drop=False)
    writer.writes()
    writer.stop()
    assert one.put("aaaa", "by way of the old one").headers["Muster-Worker"] == "w-1"
    assert one.get("aaaa").body == b"by way of the old one"
    assert two.get("aaaa").body == b"by way of the old one"
    writer.check(one)
    lab.completes(moved, "p")
    one.lacks("p")  # nobody told it to drop its copy
    writer.check(two)
    refusal = one.put("aaaa", "x")
    assert (refusal.status, refusal.word) == (421, "not-mine")

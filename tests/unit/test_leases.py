# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take, renew, release and evict, on an API server in memory that fails by script."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Term, Timing
from ansible_collections.muster.coordination.plugins.module_utils.errors import TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import leases
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

TIMING = Timing(6)
ANN, BEN = Identity("op-0", "uid-a", "1", "operator"), Identity("op-1", "uid-b", "1", "operator")
AT: dict[str, Any] = {"name": "op", "namespace": "ns", "timing": TIMING, "timeout": 30.0}
ANSWERS = ["lost", "lost-applied", "500", "500-applied", "409"]


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


@pytest.fixture
def held(api: MemoryApi) -> dict[str, Any]:
    """Taken by Ann."""
    lease = leases.take(api, me=ANN, is_contended=False, **AT)
    assert lease is not None
    return lease


def there(api: MemoryApi) -> Term:
    return election.parse(api.get(LEASES, "op", "ns"))


def test_a_lease_that_nobody_else_wants_is_made_and_then_had(api: MemoryApi, held: dict[str, Any]) -> None:
    assert there(api).holder == str(ANN)
    assert there(api).fence == 1  # the version of the free one
    assert [request.split()[0] for request in api.requests[:3]] == ["get", "create", "replace"]


def test_a_lease_that_others_may_want_is_made_and_had_once_it_was_seen_long_enough(api: MemoryApi) -> None:
    assert leases.take(api, me=ANN, **AT) is None
    assert leases.take(api, me=ANN, **AT) is None
    assert leases.take(api, me=ANN, over=there(api), **AT) is not None


def test_what_another_has_is_not_taken(api: MemoryApi, held: dict[str, Any]) -> None:
    before = api.version
    assert leases.take(api, me=BEN, **AT) is None
    assert api.version == before
    assert leases.take(api, me=BEN, over=there(api), **AT) is not None


def test_labels_and_annotations_are_added_to_those_that_are_there(api: MemoryApi) -> None:
    api.lease("op", fence="0", note="keep")
    wanted = {"labels": {"muster.dev/shards": "op"}, "annotations": {"muster.dev/layout": "{}"}}
    taken = leases.take(api, me=ANN, metadata=wanted, **AT)
    assert taken is not None
    assert taken["metadata"]["labels"] == {"muster.dev/semaphore": "op", "muster.dev/shards": "op"}
    assert {"muster.dev/note", "muster.dev/layout"} <= taken["metadata"]["annotations"].keys()


@pytest.mark.parametrize("fault", ANSWERS)
def test_each_is_done_once_whatever_becomes_of_the_answer(api: MemoryApi, fault: str) -> None:
    api.faults = [f"create {fault}", f"replace {fault}"]
    lease = leases.take(api, me=ANN, is_contended=False, **AT)
    assert lease is not None and there(api).transitions == 1
    api.faults = [f"replace {fault}"]
    renewed = leases.renew(api, lease, ANN, container_id="containerd://a", timeout=30)
    assert renewed is not None and there(api).container_id == "containerd://a"
    api.faults = [f"replace {fault}"]
    leases.release(api, renewed, ANN, timeout=30)
    assert there(api).holder == "" and there(api).fence == 1
    lease = leases.take(api, me=BEN, **AT)
    assert lease is not None
    api.faults = [f"replace {fault}"]
    leases.evict(api, lease, election.parse(lease), timeout=30)
    assert there(api).holder == "" and there(api).transitions == 2


def test_what_is_out_of_date_is_read_again(api: MemoryApi, held: dict[str, Any]) -> None:
    api.lease("op", note="somebody writes beside us")
    renewed = leases.renew(api, held, ANN, is_leaving=True, timeout=5)
    assert renewed is not None and there(api).is_leaving
    assert renewed["metadata"]["annotations"]["muster.dev/note"]


def test_whoever_lost_it_is_told_so(api: MemoryApi, held: dict[str, Any]) -> None:
    assert leases.take(api, me=BEN, over=there(api), **AT) is not None
    for lost in (
        leases.renew(api, held, ANN, timeout=5),
        leases.release(api, held, ANN, timeout=5),
        leases.evict(api, held, election.parse(held), timeout=5),
    ):
        assert lost is None
    api.delete(LEASES, "op", "ns")
    assert leases.renew(api, held, ANN, timeout=5) is None


def test_a_take_that_fails_says_so(api: MemoryApi) -> None:
    api.faults = ["get 500"] * 100
    with pytest.raises(TimedOut):
        leases.take(api, me=ANN, **{**AT, "timeout": 0.01})


@pytest.mark.parametrize(("seconds", "again"), [(3.9, True), (4.1, False)])
def test_a_run_whose_term_may_have_begun_and_be_over_gets_no_second_one(
    api: MemoryApi, monkeypatch: pytest.MonkeyPatch, seconds: float, again: bool
) -> None:
    """Its take is carried out, and the answer lost for so long; meanwhile others evict it."""
    api.lease("op", fence="0")
    clock = [100.0]
    monkeypatch.setattr(leases.time, "monotonic", lambda: clock[0])

    def evicted(write: str) -> None:
        clock[0] += seconds
        api.before_write = None
        taken = leases.take(api, me=ANN, **AT)  # the first write, as it were carried out
        assert taken is not None
        leases.evict(api, taken, election.parse(taken), timeout=5)

    api.before_write = evicted
    assert (leases.take(api, me=ANN, **AT) is not None) is again


def test_a_run_whose_lease_was_deleted_meanwhile_makes_none(api: MemoryApi) -> None:
    api.lease("op", fence="0")

    def deleted(write: str) -> None:
        api.before_write = None
        api.delete(LEASES, "op", "ns")

    api.before_write = deleted
    assert leases.take(api, me=ANN, is_contended=False, **AT) is None
    assert not api.objects

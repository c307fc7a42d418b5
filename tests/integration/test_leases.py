# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Lease on a real API server: many want it, answers are lost, and it is deleted under their hands."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Term, Timing
from ansible_collections.muster.coordination.plugins.module_utils.verbs import leases
from ansible_collections.muster.coordination.tests.support.fault_proxy import (
    Answer,
    AppliedButFailed,
    DropAnswer,
    DropRequest,
    FaultProxy,
)

pytestmark = pytest.mark.integration

TIMING = Timing(60)  # longer than any pause of a busy machine
ANN, BEN = Identity("op-0", "uid-a", "1", "operator"), Identity("op-1", "uid-b", "1", "operator")
FAULTS = [DropAnswer(), DropRequest(), AppliedButFailed(500), Answer(500), Answer(409, "Conflict")]
PATIENCE = 60.0


@pytest.fixture
def proxy(kubeconfig: str) -> Iterator[FaultProxy]:
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        yield proxy


def take(api: Api, namespace: str, me: Identity, **options: Any) -> dict[str, Any] | None:
    wanted = {"timing": TIMING, "is_contended": False, "timeout": PATIENCE, **options}
    return leases.take(api, name="op", namespace=namespace, me=me, **wanted)


def there(api: Api, namespace: str) -> Term:
    return election.parse(api.get(LEASES, "op", namespace))


def test_of_many_who_want_it_one_has_it_in_each_term_and_fences_grow(api: Api, namespace: str) -> None:
    """Eight threads take it as often as they can; whoever has it renews it once and gives it back."""
    each, lock = 4, threading.Lock()
    begun: list[tuple[int, str]] = []  # (fence, who) in the order in which they had it
    having: set[str] = set()
    wrong: list[object] = []

    def work(name: str) -> None:
        try:
            for run in range(each):
                me = Identity(name, f"uid-{name}", str(run), "operator")
                lease = None
                while lease is None:
                    lease = take(api, namespace, me)
                with lock:
                    if having:
                        wrong.append(f"{name} has it beside {having}")
                    having.add(name)
                    begun.append((election.parse(lease).fence, str(me)))
                lease = leases.renew(api, lease, me, timeout=PATIENCE)
                with lock:
                    having.discard(name)
                if lease is None or leases.release(api, lease, me, timeout=PATIENCE) is None:
                    wrong.append(f"{name} lost it")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(f"op-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    fences = [fence for fence, _who in begun]
    assert len(set(fences)) == len(fences) == 8 * each
    assert fences == sorted(fences)
    assert len({who for _fence, who in begun}) == 8 * each
    assert there(api, namespace).transitions == 8 * each


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_each_write_is_done_once_whatever_becomes_of_its_answer(
    api: Api, namespace: str, proxy: FaultProxy, fault: Any
) -> None:
    through = Api(proxy.credentials())
    proxy.plan(fault, method="POST", path="/leases")
    proxy.plan(fault, method="PUT", path="/leases/op")
    lease = take(through, namespace, ANN)
    assert lease is not None and proxy.pending == 0
    assert (there(api, namespace).holder, there(api, namespace).transitions) == (str(ANN), 1)
    proxy.plan(fault, method="PUT", path="/leases/op")
    renewed = leases.renew(through, lease, ANN, container_id="containerd://a", timeout=PATIENCE)
    assert renewed is not None and proxy.pending == 0
    assert there(api, namespace).container_id == "containerd://a"
    assert there(api, namespace).beat == election.parse(renewed).beat
    proxy.plan(fault, method="PUT", path="/leases/op")
    leases.release(through, renewed, ANN, timeout=PATIENCE)
    assert proxy.pending == 0 and there(api, namespace).holder == ""
    assert there(api, namespace).fence == election.parse(lease).fence


def test_who_has_not_renewed_is_evicted_and_who_has_is_not(api: Api, namespace: str) -> None:
    lease = take(api, namespace, ANN)
    assert lease is not None
    silent = election.parse(lease)
    renewed = leases.renew(api, lease, ANN, timeout=PATIENCE)
    assert renewed is not None
    assert leases.evict(api, lease, silent, timeout=PATIENCE) is None
    assert take(api, namespace, BEN, over=silent) is None
    assert leases.evict(api, renewed, election.parse(renewed), timeout=PATIENCE) is not None
    assert leases.renew(api, renewed, ANN, timeout=PATIENCE) is None
    assert take(api, namespace, BEN) is not None


def test_a_lease_that_is_deleted_and_made_again_has_a_greater_fence_and_waits_for_its_time(
    api: Api, namespace: str
) -> None:
    first = take(api, namespace, ANN)
    assert first is not None
    api.delete(LEASES, "op", namespace)
    assert leases.renew(api, first, ANN, timeout=PATIENCE) is None
    for _try in range(2):
        assert take(api, namespace, BEN, is_contended=True) is None  # Ann may not have heard of it
    anew = there(api, namespace)
    assert (anew.holder, anew.is_doubtful) == ("", True)
    second = take(api, namespace, BEN, is_contended=True, over=anew)
    assert second is not None
    assert election.parse(second).fence > election.parse(first).fence
    assert leases.renew(api, first, ANN, timeout=PATIENCE) is None
    assert leases.release(api, first, ANN, timeout=PATIENCE) is None
    assert there(api, namespace).holder == str(BEN)


def test_what_others_have_written_into_it_is_kept(api: Api, namespace: str) -> None:
    metadata = {"name": "op", "namespace": namespace, "labels": {"team": "x"}, "annotations": {"note": "keep"}}
    spec = {"holderIdentity": "other_uid", "leaseDurationSeconds": 15, "leaseTransitions": 3}
    made = api.create(LEASES, {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": metadata, "spec": spec})
    marks = {"labels": {"muster.dev/shards": "op"}}
    lease = take(api, namespace, ANN, over=election.parse(made), metadata=marks)
    assert lease is not None
    leases.release(api, lease, ANN, timeout=PATIENCE)
    found = api.get(LEASES, "op", namespace)
    assert found["metadata"]["labels"] == {"team": "x", "muster.dev/shards": "op"}
    assert found["metadata"]["annotations"]["note"] == "keep"
    assert found["spec"]["leaseTransitions"] == 4

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commit loop where the answers are those of a real API server, and the faults happen on the wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.commit import DELETE, commit
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.errors import TimedOut
from ansible_collections.muster.coordination.tests.support.fault_proxy import (
    Answer,
    AppliedButFailed,
    DropAnswer,
    DropRequest,
    FaultProxy,
)

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(kubeconfig: str) -> Iterator[FaultProxy]:
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        yield proxy


def count_up(who: str, namespace: str):
    """One more for `who`; whether it was applied is seen by the number that was read before."""
    wanted: dict[str, int] = {}

    def decide(obj: dict[str, Any] | None) -> tuple[dict[str, Any], int]:
        data = (obj or {}).get("data") or {}
        now = int(data.get(who, 0))
        target = wanted.setdefault("target", now + 1)
        if now >= target:
            return obj, now
        if obj is None:
            metadata = {"name": "counter", "namespace": namespace}
            return {"metadata": metadata, "data": {who: str(target)}}, target
        return {**obj, "data": {**data, who: str(target)}}, target

    return decide


def counted(api: Api, namespace: str) -> dict[str, str]:
    return api.get(CONFIGMAPS, "counter", namespace)["data"]


@pytest.mark.parametrize(
    "fault", [DropAnswer(), DropRequest(), AppliedButFailed(500), Answer(503), Answer(409, "Conflict")]
)
def test_each_of_create_change_and_delete_is_done_once(api: Api, namespace: str, proxy: FaultProxy, fault) -> None:
    through = Api(proxy.credentials())
    proxy.plan(fault, method="POST", path="/configmaps")
    made = commit(through, CONFIGMAPS, "counter", namespace, count_up("a", namespace))
    assert (made.changed, made.before, counted(api, namespace)) == (True, None, {"a": "1"})
    proxy.plan(fault, method="PUT", path="/configmaps/counter")
    changed = commit(through, CONFIGMAPS, "counter", namespace, count_up("a", namespace))
    assert (changed.changed, changed.before["data"], counted(api, namespace)) == (True, {"a": "1"}, {"a": "2"})
    proxy.plan(fault, method="DELETE", path="/configmaps/counter")
    assert commit(through, CONFIGMAPS, "counter", namespace, lambda obj: (DELETE, None)).changed
    with pytest.raises(NotFound):
        counted(api, namespace)


def test_nobody_loses_a_number_when_many_count_at_once(api: Api, namespace: str) -> None:
    each, names = 10, [f"w{number}" for number in range(8)]
    failed: list[Exception] = []

    def work(name: str) -> None:
        try:
            for _ in range(each):
                commit(api, CONFIGMAPS, "counter", namespace, count_up(name, namespace), timeout=60)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert counted(api, namespace) == dict.fromkeys(names, str(each))


def test_an_object_made_again_meanwhile_is_not_overwritten(api: Api, namespace: str) -> None:
    commit(api, CONFIGMAPS, "counter", namespace, count_up("a", namespace))
    decide, seen = count_up("b", namespace), []

    def slow(obj):
        seen.append(obj)
        if len(seen) == 1:
            api.delete(CONFIGMAPS, "counter", namespace)
            api.create(CONFIGMAPS, {"metadata": {"name": "counter", "namespace": namespace}, "data": {"new": "1"}})
        return decide(obj)

    done = commit(api, CONFIGMAPS, "counter", namespace, slow)
    assert done.attempts == 2
    assert counted(api, namespace) == {"new": "1", "b": "1"}


def test_a_missing_namespace_and_a_server_that_only_says_later(api: Api, namespace: str, proxy: FaultProxy) -> None:
    with pytest.raises(NotFound, match="kubectl create namespace no-such-namespace"):
        commit(api, CONFIGMAPS, "counter", "no-such-namespace", count_up("a", "no-such-namespace"))
    proxy.plan(Answer(429, "TooManyRequests", retry_after=1), method="POST", times=100)
    with pytest.raises(TimedOut, match=r"could not be written within 3 s"):
        commit(Api(proxy.credentials()), CONFIGMAPS, "counter", namespace, count_up("a", namespace), timeout=3)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ledgers in ConfigMaps: many changes in one write, and each asker hears of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS
from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import (
    Full,
    Ledger,
    Request,
    Reserved,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import TOTAL, Ledgers
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


def ledgers(api: MemoryApi) -> Ledgers:
    return Ledgers(api, "ns", "kv")  # type: ignore[arg-type]


def reserve(of: Ledgers, number: int, limit: int, owner: str = "ann") -> Any:
    request = Request(owner, f"k{number}", "d", f"kv-{number}")
    return of.change(owner, lambda ledger: decisions.reserve(ledger, request, limit))


def test_an_owner_has_a_ledger_of_its_own_with_its_labels(api: MemoryApi) -> None:
    of = ledgers(api)
    assert of.read("ann") is None
    assert isinstance(reserve(of, 1, 1), Reserved)
    obj = api.get(CONFIGMAPS, decisions.ledger_name("kv", "ann"), "ns")
    assert obj["metadata"]["labels"] == {"muster.dev/allocator": "kv", "muster.dev/owner": decisions.owner_hash("ann")}
    found = of.read("ann")
    assert found is not None and found.owner == "ann" and list(found.entries) == ["kv-1"]
    assert of.all() == [found]
    assert of.read("bob") is None


def test_what_is_refused_writes_nothing(api: MemoryApi) -> None:
    of = ledgers(api)
    reserve(of, 1, 1)
    before = api.get(CONFIGMAPS, of.name("ann"), "ns")
    assert reserve(of, 2, 1) == Full(1, 1)
    assert api.get(CONFIGMAPS, of.name("ann"), "ns") == before


def test_of_many_at_one_moment_no_more_succeed_than_there_are_places(api: MemoryApi) -> None:
    of, other = ledgers(api), ledgers(api)
    barrier = threading.Barrier(32)

    def one(number: int) -> Any:
        barrier.wait()
        return reserve(of if number % 2 else other, number, 5)

    with ThreadPoolExecutor(32) as pool:
        verdicts = list(pool.map(one, range(32)))
    assert sum(isinstance(verdict, Reserved) for verdict in verdicts) == 5
    found = of.read("ann")
    assert found is not None and len(found.entries) == 5


def test_who_comes_during_a_write_goes_into_the_next_one_together(api: MemoryApi) -> None:
    of = ledgers(api)
    entered, go_on = threading.Event(), threading.Event()

    def slow(ledger: Ledger | None) -> tuple[Ledger | None, str]:
        entered.set()
        go_on.wait()
        return ledger, "slow"

    with ThreadPoolExecutor(16) as pool:
        first = pool.submit(of.change, "ann", slow)
        entered.wait()
        others = [pool.submit(reserve, of, number, 100) for number in range(12)]
        while len(of._waiting.get(of.name("ann"), ())) < 12:
            threading.Event().wait(0.001)
        go_on.set()
        assert first.result() == "slow"
        assert all(isinstance(other.result(), Reserved) for other in others)
    assert of.writes == 2


def test_an_error_is_everybodys_in_the_group_and_the_next_goes_on(api: MemoryApi) -> None:
    of = ledgers(api)
    api.create(CONFIGMAPS, {"metadata": {"name": of.name(TOTAL), "namespace": "ns"}, "data": {decisions.KEY: "{"}})
    for _time in range(2):
        with pytest.raises(Malformed, match="put the JSON right"):
            of.change(TOTAL, lambda ledger: (ledger, None))
    assert api.get(CONFIGMAPS, of.name(TOTAL), "ns")["data"] == {decisions.KEY: "{"}, "it is never overwritten"
    assert isinstance(reserve(of, 1, 1), Reserved)


def test_what_else_stands_in_the_configmap_is_kept(api: MemoryApi) -> None:
    of = ledgers(api)
    metadata = {"name": of.name("ann"), "namespace": "ns", "labels": {"theirs": "x"}}
    api.create(CONFIGMAPS, {"metadata": metadata, "data": {"note": "mine"}})
    reserve(of, 1, 1)
    obj = api.get(CONFIGMAPS, of.name("ann"), "ns")
    assert obj["data"]["note"] == "mine" and obj["metadata"]["labels"]["theirs"] == "x"

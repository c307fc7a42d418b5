# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The private cloud's store has the rules of the cloud in tests/model/test_machine_model.py: the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
from hypothesis import event, given

from ansible_collections.muster.coordination.plugins.module_utils.decisions import machine as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import (
    Call,
    Create,
    Delete,
    Find,
    Found,
    Machine,
    Resize,
    Wanted,
)
from ansible_collections.muster.coordination.tests.model import test_machine_model as model
from muster.vm.cloud_store import Guards, Store
from muster.vm.cloud_wire import Refusal, Writer

uids = st.sampled_from(("u1", "u2"))
wanted = st.builds(Wanted, st.integers(1, 2), st.just("1Gi"), st.just("i"))
idents = st.integers(0, 4).map(str)
calls = st.one_of(
    st.builds(Find, st.just(""), uids, st.booleans()),
    st.builds(lambda uid, size, count: Create("", uid, size, f"{uid}-{count}"), uids, wanted, st.integers(1, 3)),
    st.builds(Resize, idents, wanted, st.integers(1, 3)),
    st.builds(Delete, idents),
)


@contextmanager
def store() -> Iterator[Store]:
    """In memory; what is on the disk when is tested with the process."""
    store = Store(Path(":memory:"))
    yield store
    store.close()


def told(store: Store, call: Call, fence: int) -> Any:
    """The store's answer, in the model's words. The name follows from the uid; the model numbers machines from 0."""
    writer = Writer(fence, f"scope-{fence}")
    try:
        match call:
            case Find():
                return as_model(decisions.read_found(store.find(writer, call.uid, call.uid, close=call.close)))
            case Create():
                size = {"cores": call.wanted.cores, "memory": call.wanted.memory, "image": call.wanted.image}
                store.create(writer, {"name": call.uid, "uid": call.uid, **size}, call.request)
            case Resize():
                at = call.wanted
                store.resize(writer, number(call.ident), at.cores, at.memory, call.revision)
            case Delete():
                store.delete(writer, number(call.ident))
    except Refusal as refusal:
        return refusal.error
    return "done"


def number(ident: str) -> str:
    return f"m-{int(ident) + 1}"


def as_model(found: Found) -> Found:
    machines = (
        Machine(str(int(each.ident.removeprefix("m-")) - 1), each.uid, each.wanted, each.revision, "")
        for each in found.machines
    )
    return Found(tuple(machines), found.spent, found.closed)


@given(
    st.lists(st.tuples(calls, st.integers(1, 3)), max_size=25),
    st.builds(Guards, st.booleans(), st.booleans(), st.booleans()),
)
def test_the_store_answers_as_the_model_does(history: list[tuple[Call, int]], guards: Guards) -> None:
    story = model.Story(fences=guards.fences, keys=guards.keys, names=guards.names)
    cloud = model.Cloud()
    with store() as real:
        real.guards = guards
        for call, fence in history:
            if isinstance(call, Resize | Delete) and int(call.ident) >= len(cloud.machines):
                assert told(real, call, fence) == "not there"
                continue
            cloud, expected = model.arrive(story, cloud, call, fence)
            answer = told(real, call, fence)
            assert answer == expected, (call, fence)
            event(f"{type(call).__name__}: {'found' if isinstance(answer, Found) else answer}")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own loop under any order of faults, crashes, take-overs and what people do.

The API server is in memory, the cloud's store is the real one, and in between is a courier who loses answers, delivers
late and twice, and in whose hands the operator crashes. Old operators go on with their fences, and with old views.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ansible_collections.muster.coordination.plugins.module_utils.api import ApiError
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import machine_name
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs.machines import VIRTUAL_MACHINES
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster.vm.cloud_store import Guards, Store
from muster.vm.cloud_wire import RateLimited, Refusal, Unsure, Writer
from muster.vm.operator import VirtualMachines

NAMES = ("a", "b")
FATES = ("lost before", "lost", "late", "twice", "twice, late", "limited", "crash before", "crash")
Object = dict[str, Any]


class Crash(BaseException):
    """The process ends here."""


class Courier:
    """In place of a CloudClient; `fates` say what becomes of the next calls ("": nothing unusual)."""

    def __init__(self, store: Store, late: list[Callable[[], Any]]) -> None:
        self._store, self._late = store, late
        self.fates: list[str] = []

    def find(self, writer: Writer, name: str, uid: str, *, close: bool, timeout: float) -> Object:
        return self._bring(lambda: self._store.find(writer, name, uid, close=close))

    def create(self, writer: Writer, asked: Object, key: str, *, timeout: float) -> Object:
        return self._bring(lambda: self._store.create(writer, asked, key)[0])

    def resize(self, writer: Writer, ident: str, cores: int, memory: str, *, revision: int, timeout: float) -> Object:
        return self._bring(lambda: self._store.resize(writer, ident, cores, memory, revision))

    def delete(self, writer: Writer, ident: str, *, timeout: float) -> None:
        self._bring(lambda: self._store.delete(writer, ident))

    def _bring(self, call: Callable[[], Any]) -> Any:
        fate = self.fates.pop(0) if self.fates else ""
        if fate == "limited":
            raise RateLimited("too many requests", retry_after=1)
        if fate == "crash before":
            raise Crash
        if fate == "late" or fate == "twice, late":
            self._late.append(call)
        if fate in ("late", "lost before"):
            raise Unsure(fate)
        answer = call()
        if fate == "twice":
            answer = call()
        if fate == "lost":
            raise Unsure(fate)
        if fate == "crash":
            raise Crash
        return answer


class Reign:
    """A term that never learns that it is over."""

    def __init__(self, fence: int) -> None:
        self.fence, self.scope = fence, f"ns/lease-{fence}"

    def check(self) -> float:
        return 3.0


class World(RuleBasedStateMachine):
    guards = Guards(names=False)

    def __init__(self) -> None:
        super().__init__()
        self.api = MemoryApi()
        self.store = Store(Path(":memory:"))
        self.store.guards = self.guards
        self.late: list[Callable[[], Any]] = []
        self.couriers: list[Courier] = []
        self.operators: list[VirtualMachines] = []
        self.views: dict[str, list[Object]] = {name: [] for name in NAMES}  # every version there was
        self.vanished: dict[str, int] = {}
        self.take_over()

    def take_over(self) -> None:
        self.couriers.append(Courier(self.store, self.late))
        cloud: Any = self.couriers[-1]
        api: Any = self.api
        self.operators.append(VirtualMachines(api, cloud, lambda *_about, **_warning: None))

    @initialize()
    def begin(self) -> None:
        self.create("a")

    # ------------------------------------------------------------------------------------------ people

    @rule(name=st.sampled_from(NAMES))
    def create(self, name: str) -> None:
        if self.there(name) is None:
            kind = {"apiVersion": VIRTUAL_MACHINES.api_version, "kind": VIRTUAL_MACHINES.kind}
            spec = {"cores": 1, "memory": "1Gi", "image": "i"}
            metadata = {"name": name, "namespace": "ns", "generation": 1}
            self.api.create(VIRTUAL_MACHINES, {**kind, "metadata": metadata, "spec": spec})
        self.look(name)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if self.there(name):
            self.api.delete(VIRTUAL_MACHINES, name, "ns")
        self.look(name)

    @rule(name=st.sampled_from(NAMES), cores=st.integers(1, 3))
    def edit(self, name: str, cores: int) -> None:
        obj = self.there(name)
        if obj:
            self.api.replace(VIRTUAL_MACHINES, {**obj, "spec": {**obj["spec"], "cores": cores}})
        self.look(name)

    @rule(name=st.sampled_from(NAMES), status=st.sampled_from([{}, {"machine": {}}, {"phase": "Running"}]))
    def meddle(self, name: str, status: Object) -> None:
        obj = self.there(name)
        if obj:
            self.api.replace(VIRTUAL_MACHINES, {**obj, "status": status}, "status")
        self.look(name)

    @rule()
    def vanish(self) -> None:
        for machine in self.store.page(limit=1):
            self.store.delete(Writer(), machine["id"])
            self.vanished[machine["uid"]] = self.vanished.get(machine["uid"], 0) + 1

    # ------------------------------------------------------------------------------------------ operators

    @rule()
    def another_takes_over(self) -> None:
        if len(self.operators) < 4:
            self.take_over()

    @rule(
        who=st.integers(0, 3),
        name=st.sampled_from(NAMES),
        age=st.integers(0, 3),
        fates=st.lists(st.sampled_from(("", *FATES)), max_size=6),
        write=st.sampled_from(("", "", "replace lost-applied", "replace lost", "replace 409")),
    )
    def reconcile(self, who: int, name: str, age: int, fates: list[str], write: str) -> None:
        """The newest, or one who was followed by others long ago; on the object as it was some versions ago."""
        who = len(self.operators) - 1 - who % len(self.operators)
        self.look(name)
        if not self.views[name]:
            return
        view = self.views[name][-1 - age % len(self.views[name])]
        self.couriers[who].fates = list(fates)
        self.api.faults = [write] if write else []
        try:
            self.operators[who].reconcile(view, Reign(who + 1))
        except MusterError:
            pass
        except Crash:  # another process, which remembers nothing, with the fence that it had: as bad as can be
            cloud: Any = self.couriers[who]
            api: Any = self.api
            self.operators[who] = VirtualMachines(api, cloud, lambda *_about, **_warning: None)
        self.couriers[who].fates, self.api.faults = [], []
        self.look(name)

    @rule(index=st.integers(0, 20))
    def arrives_late(self, index: int) -> None:
        if self.late:
            with suppress(Refusal):
                self.late.pop(index % len(self.late))()

    # ------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def one_machine_for_each_and_none_for_who_is_gone(self) -> None:
        present = {obj["metadata"]["uid"] for name in NAMES if (obj := self.there(name))}
        live = [machine["uid"] for machine in self.store.page(limit=1000)]
        assert len(live) == len(set(live)), "two machines of one uid"
        assert set(live) <= present, "a machine whose object is gone"
        for uid, made in self.store.counters()["creates"].items():
            assert made <= 1 + self.vanished.get(uid, 0), f"{uid} was made {made} times"

    def teardown(self) -> None:
        try:
            self.come_to_rest()
        finally:
            self.store.close()

    def come_to_rest(self) -> None:
        """The newest goes on alone: all is as it should be, and stays so when everything late has arrived."""
        self.one_machine_for_each_and_none_for_who_is_gone()
        for name in NAMES:
            for _time in range(3):
                obj = self.there(name)
                if obj:
                    self.operators[-1].reconcile(obj, Reign(len(self.operators)))
        while self.late:
            self.arrives_late(0)
        self.one_machine_for_each_and_none_for_who_is_gone()
        wanted = {}
        for name in NAMES:
            obj = self.there(name)
            if obj:
                assert obj["status"]["phase"] == "Running" and "deletionTimestamp" not in obj["metadata"]
                wanted[machine_name(obj)] = obj["status"]["machine"]["id"]
        assert {machine["name"]: machine["id"] for machine in self.store.page(limit=1000)} == wanted

    def there(self, name: str) -> Object | None:
        try:
            return self.api.get(VIRTUAL_MACHINES, name, "ns")
        except ApiError:
            return None

    def look(self, name: str) -> None:
        obj = self.there(name)
        if obj and (not self.views[name] or self.views[name][-1] != obj):
            self.views[name].append(obj)


TestOperator = World.TestCase


@pytest.mark.parametrize(
    ("guards", "says"),
    [
        (Guards(fences=False, names=False), "a machine whose object is gone"),
        (Guards(keys=False, names=False), "two machines|made 2 times"),
    ],
    ids=["without fences", "without keys"],
)
def test_without_a_guard_it_is_found(guards: Guards, says: str) -> None:
    class Unguarded(World):
        pass

    Unguarded.guards = guards
    with pytest.raises(AssertionError, match=says):
        run_state_machine_as_test(Unguarded, settings=settings(settings.get_profile("quick"), max_examples=10_000))

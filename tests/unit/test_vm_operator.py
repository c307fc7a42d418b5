# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's loop between an API server in memory and a real cloud: what it asks, what it does with refusals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Forbidden
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import (
    FINALIZER,
    Write,
    machine_name,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs import machines
from ansible_collections.muster.coordination.plugins.module_utils.verbs.machines import VIRTUAL_MACHINES
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from ansible_collections.muster.coordination.tests.unit.test_cloud import Site
from muster import cli
from muster.frame.authority import Superseded
from muster.vm.cloud_wire import StaleFence, Unsure, Writer
from muster.vm.operator import STEPS, VirtualMachines

Object = dict[str, Any]


class Reign:
    """A term; after so many checks it is over."""

    def __init__(self, fence: int = 7, checks: int = 1000) -> None:
        self.fence, self.scope, self.checks = fence, "ns/lease", checks

    def check(self) -> float:
        self.checks -= 1
        if self.checks < 0:
            raise Superseded("it is over")
        return 30.0


class Bench:
    """One object, its operator, and what happens between it, the API server and the cloud."""

    def __init__(self, site: Site) -> None:
        self.api, self.site = MemoryApi(), site
        self.told: list[tuple[str, str, bool]] = []
        self.start()

    def start(self) -> None:
        api: Any = self.api
        self.operator = VirtualMachines(api, self.site.client, self.tell)

    def tell(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None:
        assert about["metadata"]["uid"] and about["kind"] == "VirtualMachine"
        self.told.append((reason, message, warning))

    def create(self, **spec: Any) -> Object:
        kind = {"apiVersion": VIRTUAL_MACHINES.api_version, "kind": VIRTUAL_MACHINES.kind}
        whole = {"cores": 2, "memory": "4Gi", "image": "debian-13", **spec}
        metadata = {"name": "web", "namespace": "ns", "generation": 1}
        return self.api.create(VIRTUAL_MACHINES, {**kind, "metadata": metadata, "spec": whole})

    @property
    def obj(self) -> Object:
        return self.api.get(VIRTUAL_MACHINES, "web", "ns")

    @property
    def phase(self) -> str | None:
        return self.obj.get("status", {}).get("phase")

    def edit(self, **spec: Any) -> None:
        obj = self.obj
        self.api.replace(VIRTUAL_MACHINES, {**obj, "spec": {**obj["spec"], **spec}})

    def reconcile(self, term: Reign | None = None, obj: Object | None = None) -> float | None:
        return self.operator.reconcile(obj or self.obj, term or Reign())

    def calls(self) -> int:
        """How often the cloud was called."""
        samples = self.site.server.metrics.calls.collect()[0].samples
        return int(sum(s.value for s in samples if s.name.endswith("_total") and "/v1/" in s.labels["page"]))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    site = Site(tmp_path / "cloud.db")
    yield Bench(site)
    site.stop()


def test_a_life_and_what_is_told_of_it(bench: Bench) -> None:
    bench.create()
    assert bench.reconcile() is None
    assert (bench.phase, bench.site.listed()) == ("Running", ["m-1"])
    bench.edit(cores=4)
    bench.reconcile()
    assert bench.site.client.get("m-1", timeout=30)["cores"] == 4
    assert bench.told == [("Running", "machine m-1 is as the spec wants it", False)] * 2
    bench.api.delete(VIRTUAL_MACHINES, "web", "ns")
    bench.reconcile()
    assert (bench.api.objects, bench.site.listed()) == ({}, [])


def test_what_it_wrote_itself_is_no_news_once(bench: Bench) -> None:
    bench.create()
    bench.reconcile()
    before = bench.calls()
    bench.reconcile()  # the watch brings back what was written
    assert bench.calls() == before
    bench.reconcile()  # the resync
    assert bench.calls() == before + 1


@pytest.mark.parametrize("was_applied", [False, True], ids=["an old view", "a lost answer"])
def test_what_others_wrote_between_the_look_and_the_write_is_news(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, was_applied: bool
) -> None:
    """A machine that is deleted after it was found, and the object touched: that is no write of the operator's own."""
    bench.create()
    with pytest.raises(Superseded):
        bench.reconcile(Reign(checks=4))
    old = bench.obj
    assert (bench.phase, bench.site.listed()) == ("Creating", ["m-1"])
    if not was_applied:
        bench.reconcile()
    read = bench.api.get

    def meanwhile(*what: Any) -> Object:
        """Whoever has just failed to write reads again; before that, this happens."""
        monkeypatch.undo()
        bench.site.delete("m-1", Writer())
        obj = bench.obj
        bench.api.replace(VIRTUAL_MACHINES, {**obj, "metadata": {**obj["metadata"], "annotations": {"touched": "1"}}})
        return read(*what)

    monkeypatch.setattr(bench.api, "get", meanwhile)
    bench.api.faults = ["replace lost-applied"] if was_applied else []
    bench.reconcile(obj=old)
    bench.reconcile()  # the watch brings what was touched
    assert (bench.phase, bench.site.listed()) == ("Running", ["m-2"])


def test_without_a_term_nothing_is_done(bench: Bench) -> None:
    """Each number of checks ends it before another effect; whoever comes next goes on from there."""
    bench.create()
    seen = set()
    for checks in range(7):
        with pytest.raises(Superseded):
            bench.reconcile(Reign(7 + checks, checks=1 if checks else 0))
        seen.add((bench.phase, len(bench.site.listed())))
        bench.start()
    assert seen == {(None, 0), ("Creating", 0)}, "one effect at a time, and a look each time before"
    with pytest.raises(Superseded):
        bench.reconcile(Reign(99, checks=2))
    assert (bench.phase, bench.site.listed()) == ("Creating", ["m-1"])
    bench.reconcile(Reign(100))
    assert (bench.phase, bench.site.listed()) == ("Running", ["m-1"])


def test_who_comes_too_late_is_refused(bench: Bench) -> None:
    obj = bench.create()
    obj["metadata"]["finalizers"] = [FINALIZER]
    bench.api.replace(VIRTUAL_MACHINES, obj)
    bench.site.find(Writer(9, "ns/lease"), machine_name(obj), obj["metadata"]["uid"])
    with pytest.raises(StaleFence):
        bench.reconcile(Reign(8))
    assert bench.site.listed() == []


def test_too_many_requests_are_made_later(bench: Bench) -> None:
    bench.create()
    bench.site.faults(rate_limit_per_second=0.1)
    assert 1 <= (bench.reconcile() or 0) <= 60
    assert bench.phase == "Creating"


def test_a_lost_answer_is_looked_into(bench: Bench) -> None:
    bench.create()
    bench.site.faults(error_after_success=1)
    for _find in range(2):
        with pytest.raises(Unsure):
            bench.reconcile()
    bench.site.faults()
    bench.reconcile()
    assert (bench.phase, bench.site.counters()["made"]) == ("Running", 1)


def test_what_the_cloud_will_not_have_is_told_once(bench: Bench) -> None:
    bench.create(image="nonsense\n")  # the cloud wants printable characters
    assert bench.reconcile() is None
    assert bench.phase == "Failed" and "image is" in bench.obj["status"]["message"]
    assert [(reason, warning) for reason, _message, warning in bench.told] == [("Failed", True)]
    bench.start()
    version = bench.api.version
    bench.reconcile()
    assert bench.api.version == version, "there is nothing new to say"


def test_a_spec_that_is_put_right_meanwhile_is_not_called_wrong(bench: Bench) -> None:
    bench.create(image="nonsense\n")

    def put_right(request: str) -> None:
        if bench.phase == "Creating" and request.startswith("replace"):
            bench.api.before_write = None
            bench.edit(image="debian-13")

    bench.api.before_write = put_right
    assert bench.reconcile() is None
    assert (bench.phase, bench.site.listed()) == ("Running", ["m-1"])
    assert [reason for reason, _message, _warning in bench.told] == ["Running"]


def test_a_spent_key_and_a_closed_name(bench: Bench) -> None:
    obj = bench.create()
    bench.reconcile()
    bench.site.delete("m-1", Writer())
    bench.start()
    bench.reconcile()
    assert bench.obj["status"]["machine"]["requestId"] == f"{obj['metadata']['uid']}-2"
    bench.site.delete("m-2", Writer())
    bench.site.find(Writer(), machine_name(obj), obj["metadata"]["uid"], close=True)
    bench.start()
    bench.reconcile()
    assert bench.phase == "Failed" and "closed" in bench.obj["status"]["message"]


def test_an_old_view_does_no_harm(bench: Bench) -> None:
    old = bench.create()
    bench.reconcile()
    bench.api.delete(VIRTUAL_MACHINES, "web", "ns")
    bench.reconcile()
    bench.start()
    bench.reconcile(obj=old)
    again = bench.create()
    bench.reconcile(obj=old)
    bench.reconcile()
    assert [machine["uid"] for machine in bench.site.client.machines(timeout=30)["machines"]] == [
        again["metadata"]["uid"]
    ]


def test_a_cloud_that_never_does_what_it_says_is_not_asked_for_ever(bench: Bench, monkeypatch: Any) -> None:
    bench.create()
    asked = []
    monkeypatch.setattr(bench.site.client, "create", lambda *_given, **_more: asked.append(1))
    assert (bench.reconcile() or 0) > 0
    assert 0 < len(asked) <= STEPS


# ------------------------------------------------------------------------------------------ writes to the object


@pytest.mark.parametrize("fault", ["replace 409", "replace lost", "replace lost-applied", "replace 500-applied"])
def test_a_write_that_went_wrong_is_looked_into(bench: Bench, fault: str) -> None:
    obj = bench.create()
    bench.api.faults = [fault]
    api: Any = bench.api
    step = Write({**obj, "status": {"phase": "Creating"}}, "status")
    written = machines.write(api, step, timeout=30)
    assert written and written.obj == bench.obj and written.obj["status"] == {"phase": "Creating"}
    assert written.is_own == (not fault.endswith("-applied")), "who reads again can't know who was there meanwhile"


def test_who_was_overtaken_gets_what_is_there(bench: Bench) -> None:
    obj = bench.create()
    bench.edit(cores=8)
    api: Any = bench.api
    step = Write({**obj, "status": {"phase": "Creating"}}, "status")
    written = machines.write(api, step, timeout=30)
    assert written and not written.is_own
    assert written.obj == bench.obj and "status" not in written.obj and written.obj["spec"]["cores"] == 8


def test_an_object_that_is_gone_or_another_is_not_written(bench: Bench) -> None:
    obj = bench.create()
    bench.api.delete(VIRTUAL_MACHINES, "web", "ns")
    api: Any = bench.api
    step = Write({**obj, "status": {"phase": "Creating"}}, "status")
    assert machines.write(api, step, timeout=30) is None
    bench.create()
    assert machines.write(api, step, timeout=30) is None
    assert "status" not in bench.obj


def test_what_the_api_server_will_not_have_is_told(bench: Bench) -> None:
    bench.create()
    bench.api.faults = ["replace 403"]
    with pytest.raises(Forbidden):
        bench.reconcile()


# ------------------------------------------------------------------------------------------ the commands


def test_the_options_of_the_commands() -> None:
    environ = {"MUSTER_CLOUD": "http://cloud:1", "MUSTER_CLOUD_TOKEN_FILE": "/token", "MUSTER_CLOUD_STORE": "/store"}
    operator = cli.build_parser(environ, ["vm-operator"]).parse_args(["vm-operator", "run"])
    assert (operator.cloud, operator.cloud_token_file) == ("http://cloud:1", Path("/token"))
    assert (operator.lease_name, operator.replicas_mode) == ("vm-operator", "leader")
    cloud = cli.build_parser(environ, ["private-cloud"]).parse_args(["private-cloud", "--listen", "0.0.0.0:1"])
    assert (cloud.store, cloud.token_file, cloud.listen) == (Path("/store"), Path("/token"), "0.0.0.0:1")


def test_a_store_that_can_not_be_opened_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("muster.process.on_signals", lambda *_given: None)
    monkeypatch.setattr("muster.process.set_up_logs", lambda *_given: None)
    assert cli.main(["private-cloud", "--store", str(tmp_path / "none" / "cloud.db")]) == 1
    assert "store is" in capsys.readouterr().err


def test_a_cloud_that_makes_no_sense_is_told(capsys, monkeypatch) -> None:
    monkeypatch.setattr("muster.process.set_up_logs", lambda *_given: None)
    assert cli.main(["vm-operator", "run", "--cloud", "cloud:8300"]) == 1
    assert "cloud is 'cloud:8300'" in capsys.readouterr().err

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller of Instances, the sweeper and the warm pool, at an API server in memory."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    AlreadyExists,
    Conflict,
    Invalid,
    Resource,
    ServerError,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as ledgers_
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    POOL,
    KeyBusy,
    QuotaSpent,
    Wish,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import FINALIZER, INSTANCE
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import Ledger, Request
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import TOTAL
from ansible_collections.muster.coordination.tests.support.allocator_lab import (
    ANN,
    BOB,
    SCENARIOS,
    Killed,
    MemoryNature,
    Process,
    Reign,
    Scenario,
    Site,
    die,
    offer,
    writes_of,
)
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster.allocator import controller, warm
from muster.frame.authority import Superseded

Object = dict[str, Any]


def site(**said: Any) -> Site:
    api = MemoryApi()
    return Site(api, "ns", MemoryNature(api), offer(**{"warm": 0, **said}))


# ------------------------------------------------------------------------------------------ a process that dies


def fresh(name: str) -> tuple[Site, Scenario]:
    scenario = SCENARIOS[name]()
    return site(warm=scenario.warm, max_instances=5), scenario


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_any_write_another_process_puts_all_right(name: str) -> None:
    writes = writes_of(*fresh(name))
    assert len(writes) >= 4, writes
    for after in range(len(writes)):
        wrong = die(*fresh(name), after)
        assert not wrong, f"{name}, dead after {after} writes ({writes[:after][-1:]}): {wrong}"


def test_what_is_written_for_one_creation_is_little() -> None:
    """Two places, the Instance, the two confirmed; the finalizer, three objects, and the status twice."""
    writes = writes_of(*fresh("create"))
    assert len(writes) <= 13, writes


def test_a_claim_takes_six_writes_of_the_server() -> None:
    where, scenario = fresh("claim")
    scenario.prepare(where, where.process())
    process = where.process()
    process.allocator.create(ANN, "k", Wish())
    assert len(process.api.writes) <= 6, process.api.writes


# ------------------------------------------------------------------------------------------ the controller


class Ended(Reign):
    """A term with so many checks left."""

    def __init__(self, checks: int) -> None:
        self.checks = checks

    def check(self) -> float:
        self.checks -= 1
        if self.checks < 0:
            raise Superseded("it is over")
        return 30.0


def ready(where: Site, **wish: Any) -> tuple[Process, str]:
    process = where.process()
    made = process.allocator.create(ANN, "k", Wish(**wish))
    where.settle(process, "Ready")
    return process, made.instance["metadata"]["name"]


def reconcile(where: Site, process: Process, name: str, term: Reign | None = None) -> float | None:
    obj = where.instance(name)
    assert obj is not None
    return process.instances.reconcile(obj, term or Reign())


def test_a_life_and_what_is_told_of_it() -> None:
    where = site()
    process, name = ready(where)
    assert process.events == [(name, "Ready")]
    assert reconcile(where, process, name) is None, "it is looked at again when it changes"
    process.allocator.suspend(ANN, name, True)
    where.settle(process, "Suspended")
    assert where.api.get(DEPLOYMENTS, name, "ns")["spec"]["replicas"] == 0
    process.allocator.suspend(ANN, name, False)
    where.settle(process, "Ready")
    process.allocator.reset(ANN, name)
    where.settle(process, "Ready")
    process.allocator.destroy(ANN, name)
    where.gone(process)
    told = ["Ready", "Suspended", "Ready", "Resetting", "Ready"]
    assert [reason for _name, reason in process.events] == told
    assert (where.made(), where.ledgers()) == ([], {})


def test_without_a_term_nothing_is_done() -> None:
    """Each number of checks ends it before one more effect; whoever comes next goes on from there."""
    where = site()
    where.process().allocator.create(ANN, "k", Wish())
    (name,) = where.phases()
    for _turn in range(40):
        before = where.api.version
        with pytest.raises(Superseded):
            reconcile(where, where.process(), name, Ended(0))
        assert where.api.version == before
        try:
            reconcile(where, where.process(), name, Ended(1))
        except Superseded:
            assert where.api.version <= before + 2, "one effect; the ledgers are asked by one step, and confirm"
        else:
            break
    where.nature.turn()
    with pytest.raises(Superseded):
        reconcile(where, where.process(), name, Ended(0))
    where.settle(where.process(), "Ready")


def test_an_instance_that_no_ledger_holds_is_removed_and_makes_nothing() -> None:
    where = site()
    process, name = ready(where)
    there = where.instance(name)
    assert there is not None
    forged = {**there, "metadata": {"name": "kv-forged", "namespace": "ns", "labels": there["metadata"]["labels"]}}
    forged["spec"] = {
        **there["spec"],
        "key": "other",
        "manifest": [
            {**obj, "metadata": {**obj["metadata"], "name": "kv-forged"}} for obj in there["spec"]["manifest"]
        ],
    }
    where.api.create(INSTANCES, {key: of for key, of in forged.items() if key != "status"})
    where.until(process, lambda: where.instance("kv-forged") is None, "it to be gone")
    assert {obj["metadata"]["name"] for obj in where.made()} == {name}
    assert where.judge() == []


def test_what_is_there_and_is_anothers_is_left_alone() -> None:
    where = site()
    process = where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    foreign = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "ns"}}
    where.api.create(DISKS, foreign)
    assert reconcile(where, process, name) == controller.REFUSED_SECONDS
    assert where.phases() == {name: "Failed"}
    assert process.events == [(name, "Failed")]
    assert reconcile(where, process, name) == controller.REFUSED_SECONDS
    assert process.events == [(name, "Failed")], "it is told once"
    where.api.delete(DISKS, name, "ns")
    where.settle(process, "Ready")


def stubborn(api: Any, error: Exception, plural: str) -> None:
    """Refuse to make objects of this kind, until `api.create` is put back."""
    create = api.create

    def refuse(resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        if resource.plural == plural and not dry_run:
            raise error
        made: Object = create(resource, obj, dry_run=dry_run)
        return made

    api.create = refuse


def test_what_only_a_person_can_mend_is_said_and_tried_again_later() -> None:
    where = site()
    process = where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    stubborn(where.api, Invalid(422, "Invalid", "spec.template: no such thing"), "deployments")
    assert reconcile(where, process, name) == controller.REFUSED_SECONDS
    there = where.instance(name)
    assert there is not None
    assert there["status"]["phase"] == "Failed"
    assert there["status"]["message"] == f"Deployment {name}: spec.template: no such thing"
    before = where.api.version
    process.clock += 20
    again = reconcile(where, process, name)
    assert again == controller.REFUSED_SECONDS - 20, "its own writing brings it back, and nothing is tried"
    assert where.api.version == before
    del where.api.create
    process.clock += 41
    where.settle(process, "Ready")


def test_a_destruction_that_is_refused_goes_on_when_it_is_mended() -> None:
    where = site()
    process, name = ready(where)
    delete = where.api.delete

    def refuse(resource: Resource, *args: Any, **how: Any) -> Object:
        if resource == DISKS:
            raise Invalid(403, "Forbidden", "no right to delete it")
        gone: Object = delete(resource, *args, **how)
        return gone

    where.api.delete = refuse
    process.allocator.destroy(ANN, name)
    assert reconcile(where, process, name) == controller.REFUSED_SECONDS
    there = where.instance(name)
    assert there is not None
    assert (there["status"]["phase"], FINALIZER in there["metadata"]["finalizers"]) == ("Destroying", True)
    assert "no right" in there["status"]["message"]
    assert where.ledgers()[ANN.name][name][0] == ledgers_.CLOSING, "its place is not free"
    where.api.delete = delete
    process.clock += 61
    where.gone(process)


@pytest.mark.parametrize("fault", ["409", "lost", "lost-applied"])
@pytest.mark.parametrize("verb", ["create", "replace", "delete"])
def test_conflicts_and_lost_answers_are_met_by_looking_again(verb: str, fault: str) -> None:
    where = site()
    process = where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    where.api.faults = [f"{verb} {fault}"] * 2
    where.settle(process, "Ready")
    where.api.faults = [f"{verb} {fault}"] * 2
    process.allocator.reset(ANN, name)
    where.settle(process, "Ready")
    where.api.delete(INSTANCES, name, "ns") if verb != "delete" else None
    where.api.faults = [f"{verb} {fault}"] * 2
    process.allocator.destroy(ANN, name) if verb == "create" else where.api.faults.clear()
    if where.instance(name) and verb == "delete":
        process.allocator.destroy(ANN, name)
    where.gone(process)
    assert (where.made(), where.ledgers()) == ([], {})


def test_answers_that_are_lost_again_and_again_end_the_turn() -> None:
    where = site()
    process = where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    where.api.faults = ["create lost"] * 20
    with pytest.raises(Exception, match="connection reset"):
        reconcile(where, process, name)
    assert len(where.api.faults) == 20 - controller.LOST - 1


def test_a_server_that_is_unwell_is_left_to_the_queue() -> None:
    where = site()
    process = where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    where.api.faults = ["create 500"]
    with pytest.raises(ServerError):
        reconcile(where, process, name)
    assert where.phases()[name] != "Failed"
    where.settle(process, "Ready")


def test_a_disk_that_was_kept_meanwhile_is_not_deleted() -> None:
    """The one who wants to delete it has read it before: its version says so."""
    where = site()
    process, name = ready(where)
    process.allocator.destroy(ANN, name)
    disk = where.api.get(DISKS, name, "ns")

    def keep() -> None:
        if process.api.writes[-1:] != ["delete deployments"] or where.disk(name) != disk:
            return
        labels = {key: of for key, of in disk["metadata"]["labels"].items() if key != INSTANCE}
        kept = {**disk["metadata"], "labels": {**labels, "muster.dev/retained-by": "x"}, "ownerReferences": []}
        where.api.replace(DISKS, {**disk, "metadata": kept})

    process.api.before = keep
    where.gone(process)
    assert where.disk(name) is not None


def test_which_instance_a_change_beside_concerns() -> None:
    noticed: list[str] = []
    any_api: Any = MemoryApi()
    kinds = [("apps/v1", "Deployment"), ("v1", "Service")]
    (watch,) = controller.beside(any_api, "ns", "kv", kinds, noticed.append)
    obj = {"metadata": {"name": "kv-1-db", "namespace": "ns", "labels": {INSTANCE: "kv-1"}}, "spec": {"big": 1}}
    assert watch._concerns(controller._slim(obj)) == "ns/kv-1"
    assert "spec" not in controller._slim(obj)
    assert watch._concerns(controller._slim({"metadata": {"name": "x", "namespace": "ns"}})) is None
    assert noticed == ["ns/kv-1"], "it is told before the Instance is looked at"


def asked(where: Site, process: Process, name: str) -> list[str]:
    """What of the cluster is looked at when it is reconciled."""
    obj = where.instance(name)
    assert obj is not None
    where.api.requests.clear()
    process.instances.reconcile(obj, Reign())
    return [each.split("/")[0] for each in where.api.requests]


def test_what_it_wrote_itself_is_no_news_once() -> None:
    where = site()
    process = where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    reconcile(where, process, name)
    assert where.phases() == {name: "Creating"} or where.phases() == {name: "Ready"}
    assert asked(where, process, name) == [], "the watch brings back what was written"
    assert asked(where, process, name) != [], "the next time it is looked at"


def test_what_has_changed_beside_is_news_whatever_came_back_before() -> None:
    where = site()
    process = where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    reconcile(where, process, name)
    process.instances.noticed(f"ns/{name}")
    where.nature.turn()
    assert asked(where, process, name) != []
    where.settle(process, "Ready")


def test_the_ledgers_are_asked_once_a_minute() -> None:
    where = site()
    process, name = ready(where)
    reconcile(where, process, name)
    assert "get configmaps" not in asked(where, process, name)
    process.clock += 61
    assert asked(where, process, name).count("get configmaps") == 2


def test_of_an_instance_that_is_claimed_the_ledgers_are_asked_anew() -> None:
    where = site(warm=1)
    process = where.process()
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    with pytest.raises(Killed):
        where.process(3).allocator.create(ANN, "k", Wish())
    process.turn()
    (name,) = where.phases()
    assert where.ledgers()[ANN.name][name][0] == ledgers_.HELD, "it has confirmed what its owner could not"


def test_a_workload_that_has_taken_the_name_meanwhile_stays() -> None:
    where = site()
    process, name = ready(where)
    process.allocator.destroy(ANN, name)
    foreign = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "ns"}}

    def step_in() -> None:
        if where.ledgers()[ANN.name][name][0] == where.ledgers()[""][name][0] == ledgers_.CLOSING:
            process.api.before = None
            where.api.delete(DEPLOYMENTS, name, "ns")
            where.api.create(DEPLOYMENTS, {**foreign, "spec": {"replicas": 1}})

    process.api.before = step_in
    where.gone(process)
    assert process.api.before is None
    assert "ownerReferences" not in where.api.get(DEPLOYMENTS, name, "ns")["metadata"]


def test_one_that_is_destroyed_while_it_is_made_is_said_to_the_ledgers() -> None:
    where = site()
    process, other = where.process(), where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    states: list[str] = []

    def step_in() -> None:
        if process.api.writes[-1:] == ["create services"] and not states:
            states.append("destroyed")
            other.allocator.destroy(ANN, name)
        elif states and where.api.requests[-1:] == [f"get deployments/{name}"]:  # about to be deleted, or made
            states.append(where.ledgers()[ANN.name][name][0])

    process.api.before = step_in
    where.gone(process)
    assert states[0] == "destroyed" and ledgers_.CLOSING in states, "it is not made any more, and then removed"
    assert (where.made(), where.ledgers()) == ([], {})


# ------------------------------------------------------------------------------------------ the sweeper


def reserve(where: Site, process: Process, owner: str, name: str) -> None:
    request = Request(owner if owner != TOTAL else "", "hash", "d", name)
    process.allocator.ledgers.change(owner, lambda ledger: ledgers_.reserve(ledger, request, 9))


def test_a_reservation_is_left_to_its_asker_for_a_minute() -> None:
    where = site()
    process = where.process()
    reserve(where, process, ANN.name, "kv-1")
    reserve(where, process, TOTAL, "kv-1")
    assert process.sweep() == []
    assert process.sweep(59) == []
    assert len(process.sweep(1)) == 2
    assert where.ledgers() == {}


def test_a_reservation_that_has_changed_begins_its_minute_anew() -> None:
    where = site()
    process = where.process()
    reserve(where, process, ANN.name, "kv-1")
    assert process.sweep() == []
    process.allocator.ledgers.change(ANN.name, lambda ledger: (ledgers_.release(ledger, "kv-1"), None))
    request = Request(ANN.name, "another", "d", "kv-1")
    process.allocator.ledgers.change(ANN.name, lambda ledger: ledgers_.reserve(ledger, request, 9))
    assert process.sweep(60) == []
    assert len(process.sweep(60)) == 1


def test_a_place_that_another_request_has_by_now_stays() -> None:
    """Under the same name: what was looked at is the entry, not the name."""
    where = site()
    process = where.process()
    reserve(where, process, ANN.name, "kv-1")
    process.sweep()

    def step_in() -> None:
        if process.api.api.requests[-1:] == ["list instances/muster.dev/allocator=kv"]:
            process.api.before_read = None
            ledgers = where.process().allocator.ledgers
            ledgers.change(ANN.name, lambda ledger: (ledgers_.release(ledger, "kv-1"), None))
            request = Request(ANN.name, "another", "d", "kv-1")
            ledgers.change(ANN.name, lambda ledger: ledgers_.reserve(ledger, request, 9))

    where.api.requests.clear()
    process.api.before_read = step_in
    assert process.sweep(61) == [] and process.api.before_read is None
    assert "kv-1" in where.ledgers()[ANN.name]


def test_of_a_request_that_wakes_after_its_place_was_given_up_nothing_is_made() -> None:
    """It goes on with an Instance that no ledger holds; who asks again gets one."""
    where = site()
    slow, other = where.process(), where.process()
    other.sweep()

    def sleep() -> None:
        if "create instances" not in slow.api.writes and len(slow.api.writes) == 2:
            slow.api.before = None
            other.sweep()
            assert len(other.sweep(61)) == 2
            assert where.ledgers() == {}

    slow.api.before = sleep
    with pytest.raises(Exception, match="ask again"):
        slow.allocator.create(ANN, "k", Wish())
    assert where.ledgers() == {} and len(where.instances()) == 1
    where.gone(other)
    assert where.made() == []
    made = slow.allocator.create(ANN, "k", Wish())
    where.settle(other, "Ready")
    assert made.is_new and where.judge() == []


@pytest.mark.parametrize("reads", range(10))
def test_the_sweeper_never_takes_what_came_to_be_while_it_looked(reads: int) -> None:
    """Whatever it has read by then, an instance that is made before its next read keeps all that it has."""
    where = site(max_instances=5, max_instances_per_user=5)
    process, other = where.process(), where.process()
    other.allocator.create(ANN, "first", Wish())
    where.settle(other, "Ready")
    left = [reads]

    def make_one() -> None:
        left[0] -= 1
        if left[0] == -1:
            made = other.allocator.create(ANN, "k", Wish())
            other.instances.reconcile(made.instance, Reign())

    process.api.before_read = make_one
    assert process.sweep() == []
    assert left[0] < 0, "it reads so often"
    process.api.before_read = None
    assert process.sweep(1) == []
    where.settle(other, "Ready")
    assert where.judge(limit=5) == []


def strip(where: Site, name: str) -> None:
    """As a person who forces an Instance away: its finalizer goes first."""
    obj = where.instance(name)
    assert obj is not None
    where.api.replace(INSTANCES, {**obj, "metadata": {**obj["metadata"], "finalizers": []}})
    where.api.delete(INSTANCES, name, "ns")


def test_what_is_left_of_an_instance_that_was_forced_away_goes_and_then_its_place() -> None:
    where = site()
    process, name = ready(where)
    strip(where, name)
    done = process.sweep()
    assert [type(each).__name__ for each in done] == ["Delete"] * 3
    assert where.made() == [] and name in where.ledgers()[ANN.name]
    assert len(process.sweep()) == 2
    assert where.ledgers() == {}


def test_a_disk_that_was_kept_and_what_is_anothers_is_never_touched() -> None:
    where = site()
    process, name = ready(where, storage="retain")
    process.allocator.destroy(ANN, name)
    where.gone(process)
    where.note_disks()
    labels = {"muster.dev/allocator": "kv", INSTANCE: "kv-9"}
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "gone", "controller": True}
    gone = {"apiVersion": "muster.dev/v1alpha1", "kind": "Instance", "name": "kv-9", "uid": "gone"}
    for number, (has, owners) in enumerate([({}, [gone]), (labels, []), (labels, [owner]), (labels, [gone, owner])]):
        metadata = {"name": f"other-{number}", "namespace": "ns", "labels": has, "ownerReferences": owners}
        where.api.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    done = process.sweep() + process.sweep(61) + process.sweep(61)
    assert [each.key.name for each in done] == ["other-3"], "its one owner among Instances is gone"
    assert where.judge() == ["ConfigMap other-1 is an orphan", "ConfigMap other-2 is an orphan"]
    assert where.disk(name) is not None


def test_a_disk_that_is_kept_while_it_is_swept_stays() -> None:
    where = site()
    process, name = ready(where, storage="retain")
    strip(where, name)
    disk = where.api.get(DISKS, name, "ns")

    def keep() -> None:
        if where.api.requests[-1:] == [f"get persistentvolumeclaims/{name}"] and where.disk(name) == disk:
            labels = {key: of for key, of in disk["metadata"]["labels"].items() if key != INSTANCE}
            kept = {**disk["metadata"], "labels": {**labels, "muster.dev/retained-by": "x"}, "ownerReferences": []}
            where.api.replace(DISKS, {**disk, "metadata": kept})

    process.api.before = keep
    process.sweep()
    there = where.disk(name)
    assert there is not None and there["metadata"]["ownerReferences"] == []


def test_a_place_in_the_pool_goes_when_its_instance_has_an_owner() -> None:
    where = site(warm=1)
    process = where.process()
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    (name,) = where.phases()
    claimer = where.process(3)  # the owner's place, the total's, and the claim itself
    with pytest.raises(Killed):
        claimer.allocator.create(ANN, "k", Wish())
    assert (where.instance(name) or {})["spec"]["owner"] == ANN.name
    assert name in where.ledgers()[POOL]
    process.sweep()
    assert POOL not in where.ledgers()
    where.settle(process, "Ready")
    assert where.judge() == []


def test_a_ledger_that_can_not_be_read_has_nothing_given_back() -> None:
    where = site()
    process = where.process()
    reserve(where, process, ANN.name, "kv-1")
    metadata = {
        "name": "kv-ledger-x",
        "namespace": "ns",
        "labels": {"muster.dev/allocator": "kv", "muster.dev/owner": "x"},
    }
    where.api.create(CONFIGMAPS, {"metadata": metadata, "data": {"ledger.json": "{"}})
    for _round in range(2):
        with pytest.raises(Malformed):
            process.sweep(61)
    assert process.allocator.ledgers.read(ANN.name) == Ledger(
        ANN.name, {"kv-1": ledgers_.Entry("kv-1", "hash", "d")}, {}
    )


# ------------------------------------------------------------------------------------------ the warm pool


def test_the_pool_is_filled_and_never_too_full() -> None:
    where = site(warm=2)
    first, second = where.process(), where.process()
    second.warm = type(second.warm)(second.allocator, lambda: [])  # it sees nothing of what there is
    first.warm.keep(Reign())
    second.warm.keep(Reign())
    where.settle(first, "Ready")
    assert len(where.phases()) == 2
    first.warm.keep(Reign())
    assert len(where.phases()) == 2


def test_one_that_is_claimed_is_replaced_when_no_more_are_claimed() -> None:
    where = site(warm=1)
    process = where.process()
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    (name,) = where.phases()
    made = process.allocator.create(ANN, "k", Wish())
    assert made.instance["metadata"]["name"] == name
    process.allocator.seconds_since_claim = lambda: warm.BURST_SECONDS / 2  # type: ignore[method-assign]
    process.warm.keep(Reign())
    assert len(where.phases()) == 1
    process.allocator.seconds_since_claim = lambda: warm.BURST_SECONDS  # type: ignore[method-assign]
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    assert len(where.phases()) == 2 and where.judge() == []


def test_of_an_older_template_those_are_replaced_that_nobody_has() -> None:
    where = site(warm=1, max_instances_per_user=2)
    process = where.process()
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    where.process().allocator.create(ANN, "k", Wish())
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    text = offer().template
    process.allocator.offer = offer(warm=1)
    newer = type(text)(text.documents, text.parameters, "2", "another")
    process.allocator.offer = type(process.allocator.offer)(
        **{
            field: getattr(process.allocator.offer, field)
            for field in process.allocator.offer.__dataclass_fields__
            if field != "template"
        },
        template=newer,
    )
    for _round in range(3):
        process.warm.keep(Reign())
        process.turn()
        where.nature.turn()
        process.turn()
    where.settle(process, "Ready")
    digests = {obj["spec"]["owner"]: obj["spec"]["template"] for obj in where.instances()}
    assert digests == {ANN.name: text.digest, "": "another"}
    assert where.judge(limit=2) == []


def test_one_that_is_claimed_while_it_is_to_go_stays() -> None:
    where = site(warm=1)
    process, other = where.process(), where.process()
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    listed = process.listed()
    other.allocator.create(ANN, "k", Wish())
    process.warm = type(process.warm)(process.allocator, lambda: listed)
    process.allocator.offer = offer(warm=0)
    process.warm.keep(Reign())
    assert not (where.instances()[0]["metadata"]).get("deletionTimestamp")


def test_what_is_too_much_in_the_pool_goes() -> None:
    where = site(warm=2)
    process = where.process()
    process.warm.keep(Reign())
    where.settle(process, "Ready")
    process.allocator.offer = offer(warm=0)
    process.warm.keep(Reign())
    where.gone(process)
    assert (where.ledgers(), where.made()) == ({}, [])


def test_limits_hold_also_for_those_that_are_reserved_only() -> None:
    where = site(max_instances=1)
    with pytest.raises(Killed):
        where.process(2).allocator.create(ANN, "k", Wish())
    process = where.process()
    with pytest.raises(QuotaSpent):
        process.allocator.create(BOB, "k", Wish())
    process.sweep()
    process.sweep(61)
    assert process.allocator.create(BOB, "k", Wish()).is_new


def test_a_key_whose_instance_is_going_is_busy() -> None:
    where = site()
    process, name = ready(where)
    process.allocator.destroy(ANN, name)
    with pytest.raises(KeyBusy):
        process.allocator.create(ANN, "k", Wish())
    where.gone(process)
    assert process.allocator.create(ANN, "k", Wish()).is_new


def test_who_makes_what_another_has_just_made_finds_it() -> None:
    where = site()
    process, other = where.process(), where.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]

    def step_in() -> None:
        if process.api.writes[-1:] == ["replace instances"]:  # its finalizer is there, and objects come next
            process.api.before = None
            reconcile(where, other, name)

    process.api.before = step_in
    try:
        reconcile(where, process, name)
    except (AlreadyExists, Conflict) as error:
        raise AssertionError("it was to look again") from error
    where.settle(process, "Ready")
    assert where.judge() == []

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be done next with a VirtualMachine, rule by rule."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import (
    FINALIZER,
    Create,
    Delete,
    Done,
    Find,
    Found,
    Machine,
    Resize,
    Step,
    Wanted,
    Write,
    machine_name,
    next_step,
    read_found,
    refused,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

UID = "2c1f3a50-0000-4000-8000-000000000001"
WANTED = Wanted(2, "4Gi", "debian-13")
NAME = "ns-web-0a535eed"  # the end is from the uid
NOW = "2026-01-31T12:00:00Z"
LATER = "2026-01-31T13:00:00Z"


def vm(status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    whole = {"name": "web", "namespace": "ns", "uid": UID, "generation": 1, "finalizers": [FINALIZER], **metadata}
    spec = {"cores": 2, "memory": "4Gi", "image": "debian-13"}
    kind = {"apiVersion": "muster.dev/v1alpha1", "kind": "VirtualMachine"}
    return {**kind, "metadata": whole, "spec": spec, **({"status": status} if status else {})}


def machine(ident: str = "m-1", uid: str = UID, wanted: Wanted = WANTED, revision: int = 1) -> Machine:
    return Machine(ident, uid, wanted, revision, "10.0.0.1")


def step(obj: dict[str, Any], found: Found | None = None, fence: int = 7, now: str = NOW) -> Step:
    before = copy.deepcopy(obj)
    decided = next_step(obj, found, fence, now)
    assert obj == before, "the decision changed what it was given"
    return decided


def written(decided: Step, subresource: str = "status") -> dict[str, Any]:
    assert isinstance(decided, Write) and decided.subresource == subresource
    return decided.desired


def creating(**metadata: Any) -> dict[str, Any]:
    """The object with its intent."""
    return written(step(vm(**metadata)))


def running(found: Found | None = None, **metadata: Any) -> dict[str, Any]:
    return written(step(creating(**metadata), found or Found((machine(),))))


def going(obj: dict[str, Any]) -> dict[str, Any]:
    """The object when its deletion was asked for, and that is told."""
    return written(step({**obj, "metadata": {**obj["metadata"], "deletionTimestamp": NOW}}))


def failure(decided: Step) -> str:
    status = written(decided)["status"]
    assert (status["phase"], status["observedGeneration"]) == ("Failed", 1)
    return status["message"]


# ------------------------------------------------------------------------------------------ to have one


def test_from_nothing_to_a_machine_one_step_after_the_other() -> None:
    obj = written(step(vm(finalizers=["somebody/else"])), "")
    assert obj["metadata"]["finalizers"] == ["somebody/else", FINALIZER]
    obj = written(step(obj))
    assert obj["status"] == {
        "phase": "Creating",
        "message": "",
        "machine": {"name": NAME, "requestId": UID},
        "fence": 7,
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "Creating", "message": "", "lastTransitionTime": NOW}
        ],
    }
    assert step(obj) == Find(NAME, UID, close=False)
    assert step(obj, Found()) == Create(NAME, UID, WANTED, UID)
    obj = written(step(obj, Found((machine(),)), now=LATER))
    assert obj["status"] == {
        "phase": "Running",
        "message": "",
        "machine": {"name": NAME, "requestId": UID, "id": "m-1", "address": "10.0.0.1"},
        "fence": 7,
        "observedGeneration": 1,
        "conditions": [
            {"type": "Ready", "status": "True", "reason": "Running", "message": "", "lastTransitionTime": LATER}
        ],
    }
    assert step(obj) == Find(NAME, UID, close=False)
    assert step(obj, Found((machine(),)), fence=9, now=LATER) == Done()


def test_a_machine_that_is_there_already_is_not_made_again() -> None:
    assert running()["status"]["machine"]["id"] == "m-1"


def test_another_size_is_changed_at_the_revision_that_was_seen() -> None:
    found = Found((machine(wanted=Wanted(1, "4Gi", "debian-13"), revision=3),))
    obj = running()
    obj["metadata"]["generation"] = 2
    obj = written(step(obj, found))
    assert (obj["status"]["phase"], obj["status"]["observedGeneration"]) == ("Updating", 1)
    assert step(obj, found) == Resize("m-1", WANTED, 3)
    obj = written(step(obj, Found((machine(revision=4),))))
    assert (obj["status"]["phase"], obj["status"]["observedGeneration"]) == ("Running", 2)


def test_an_edit_while_it_is_made_is_seen_by_the_next_look() -> None:
    obj = creating()
    obj["spec"]["cores"] = 4
    found = Found((machine(),))
    assert written(step(obj, found))["status"]["phase"] == "Updating"
    assert step(written(step(obj, found)), found) == Resize("m-1", Wanted(4, "4Gi", "debian-13"), 1)


def test_another_image_is_refused() -> None:
    obj = running()
    obj["spec"]["image"] = "debian-14"
    assert "spec.image is debian-14, and the machine has debian-13" in failure(step(obj, Found((machine(),))))


def test_a_machine_that_was_deleted_at_the_cloud_is_made_again_with_another_request() -> None:
    obj = written(step(running(), Found(spent=frozenset({UID}))))
    assert obj["status"]["phase"] == "Creating" and "deleted at the cloud" in obj["status"]["message"]
    assert obj["status"]["machine"] == {"name": NAME, "requestId": f"{UID}-2"}
    assert step(obj, Found(spent=frozenset({UID}))) == Create(NAME, UID, WANTED, f"{UID}-2")
    spent = Found(spent=frozenset({UID})).has_spent(f"{UID}-2").has_spent(f"{UID}-3")
    assert written(step(obj, spent))["status"]["machine"]["requestId"] == f"{UID}-4"


def test_a_machine_of_another_uid_is_left_alone() -> None:
    for obj in (creating(), running()):
        message = failure(step(obj, Found((machine("m-9", "another uid"),))))
        assert "machine m-9, of the uid another uid" in message
    assert step(written(step(creating(), Found((machine("m-9", "x"),)))), Found((machine("m-9", "x"),))) == Done()
    both = Found((machine("m-9", "another uid"), machine()))
    assert running(both)["status"]["machine"]["id"] == "m-1"
    assert written(step(going(running()), Found(both.machines[:1], closed=True)), "")["metadata"]["finalizers"] == []


def test_of_several_the_known_one_counts_and_people_are_told() -> None:
    several = Found((machine(), machine("m-2")))
    obj = written(step(running(Found((machine("m-2"),))), several))
    assert obj["status"]["machine"]["id"] == "m-2"
    assert "2 machines have this uid" in obj["status"]["message"]


def test_a_closed_name_is_a_failure() -> None:
    assert "closed" in failure(step(creating(), Found(closed=True)))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cores", 0),
        ("cores", 257),
        ("cores", True),
        ("cores", "2"),
        ("memory", "4"),
        ("memory", "0Gi"),
        ("memory", None),
        ("image", ""),
        ("image", "x" * 254),
    ],
)
def test_a_spec_that_makes_no_sense_is_told_and_never_sent(field: str, value: Any) -> None:
    obj = running()
    obj["spec"][field] = value
    assert f"spec.{field} is {value!r}"[:60] in failure(step(obj))
    assert step(written(step(obj))) == Done()
    obj["spec"] = None
    assert "give cores, memory and image" in failure(step(obj))


def test_what_the_cloud_will_not_have_is_told() -> None:
    obj = written(refused(creating(), "no such image", 7, NOW))
    assert obj["status"]["phase"] == "Failed" and obj["status"]["message"] == "no such image"
    assert refused(obj, "no such image", 8, LATER) == Done()
    assert written(refused(creating(), "x" * 5000, 7, NOW))["status"]["message"] == "x" * 1024


# ------------------------------------------------------------------------------------------ to have none


def test_the_name_is_closed_the_machine_deleted_and_a_look_confirms_it() -> None:
    obj = going(running())
    assert obj["status"]["phase"] == "Deleting"
    assert step(obj) == Find(NAME, UID, close=True)
    assert step(obj, Found((machine(),))) == Find(NAME, UID, close=True), "that look was before the name was closed"
    assert step(obj, Found((machine(),), closed=True)) == Delete("m-1")
    assert written(step(obj, Found(closed=True)), "")["metadata"]["finalizers"] == []


def test_all_machines_of_the_uid_go() -> None:
    found = Found((machine("m-9", "another uid"), machine("m-1"), machine("m-2")), closed=True)
    assert step(going(running()), found) == Delete("m-1")


@pytest.mark.parametrize("obj", [vm(), creating()], ids=["before the intent", "before the machine"])
def test_an_object_that_is_deleted_early_goes_the_same_way(obj: dict[str, Any]) -> None:
    assert step(going(obj)) == Find(NAME, UID, close=True)


def test_only_our_finalizer_goes() -> None:
    obj = going(running(finalizers=["a/b", FINALIZER, "c/d"]))
    obj = written(step(obj, Found(closed=True)), "")
    assert obj["metadata"]["finalizers"] == ["a/b", "c/d"]
    assert step(obj) == Done()


def test_a_spec_that_makes_no_sense_does_not_keep_it() -> None:
    obj = running()
    obj["spec"] = {}
    assert step(going(obj)) == Find(NAME, UID, close=True)


def test_without_our_finalizer_an_object_that_goes_is_left_alone() -> None:
    assert step(vm(finalizers=[], deletionTimestamp=NOW)) == Done()
    assert step(vm(finalizers=["a/b"], deletionTimestamp=NOW)) == Done()


# ------------------------------------------------------------------------------------------ what people do


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        {"machine": None},
        {"machine": {"name": NAME}},
        {"machine": {"name": "another", "requestId": UID}},
        {"machine": {"name": NAME, "requestId": "another uid"}},
        {"machine": {"name": NAME, "requestId": f"{UID}-0"}},
        {"machine": {"name": NAME, "requestId": f"{UID}-x"}},
        {"machine": {"name": NAME, "requestId": 5}},
        {"machine": "nonsense", "conditions": "nonsense", "phase": 5},
    ],
)
def test_a_status_that_was_edited_by_hand_is_put_right(broken: Any) -> None:
    obj = {**running(), "status": broken}
    obj = written(step(obj))
    assert obj["status"]["machine"] == {"name": NAME, "requestId": UID}
    healed = written(step(obj, Found((machine(),))))["status"]
    assert (healed["phase"], healed["machine"]["id"], healed["observedGeneration"]) == ("Running", "m-1", 1)


def test_a_phase_that_was_edited_by_hand_is_put_right() -> None:
    obj = running()
    obj["status"]["phase"] = "Failed"
    assert written(step(obj, Found((machine(),))))["status"]["phase"] == "Running"


def test_what_others_have_in_the_status_is_kept() -> None:
    obj = running()
    obj["status"] = {
        **obj["status"],
        "phase": "",
        "theirs": 1,
        "machine": {**obj["status"]["machine"], "theirs": 2},
        "conditions": [{"type": "Theirs"}, *obj["status"]["conditions"]],
    }
    status = written(step(obj, Found((machine(),)), now=LATER))["status"]
    assert (status["theirs"], status["machine"]["theirs"]) == (1, 2)
    assert [condition["type"] for condition in status["conditions"]] == ["Theirs", "Ready"]
    assert status["conditions"][1]["lastTransitionTime"] == NOW, "it was ready before, and still is"


# ------------------------------------------------------------------------------------------ names and the wire


def test_names_are_short_readable_and_never_used_again() -> None:
    assert machine_name(vm()) == NAME
    assert machine_name(vm(uid="another")) != NAME
    name = machine_name(vm(name="a.b-" + "x" * 200))
    assert name.startswith("ns-a-b-xxx") and len(name) == 63
    name = machine_name(vm(name="x" * 50 + ".y" * 50))
    assert "--" not in name and len(name) <= 63


def test_an_answer_of_the_cloud() -> None:
    document = {"id": "m-1", "name": NAME, "uid": UID, "cores": 2, "memory": "4Gi", "image": "debian-13"}
    whole = {**document, "revision": 1, "address": "10.0.0.1", "created": 1.0}
    answer = {"machines": [whole], "spent": ["a"], "closed": True}
    assert read_found(answer) == Found((machine(),), frozenset({"a"}), True)
    for broken in ({}, {**answer, "machines": [document]}, {**answer, "machines": ["m-1"]}, {**answer, "closed": 1}):
        with pytest.raises(Malformed):
            read_found(broken)

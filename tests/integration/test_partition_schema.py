# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a real API server lets nobody write to KeySpaces, Partitions and Assignments, and what it says then."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Invalid, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.vm_lab import install

pytestmark = pytest.mark.integration

CRDS = Path(__file__).parents[2] / "kustomize/partitions/crds"
STAMP = "2026-01-31T12:00:00.000001Z"
RESULT = {"partition": "p", "range": {"start": "", "end": ""}, "primary": "w", "epoch": 1}
Object = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def kinds(api: Api) -> None:
    for name in ("keyspaces", "partitions", "assignments"):
        install(api, CRDS / f"{name}.yaml")


class Shelf:
    """Objects of one namespace."""

    def __init__(self, api: Api, namespace: str) -> None:
        self.api, self.namespace = api, namespace

    def make(self, resource: Resource, name: str, spec: Object) -> Object:
        metadata = {"name": name, "namespace": self.namespace}
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}
        return self.api.create(resource, obj)

    def change(self, resource: Resource, obj: Object, change: Callable[[Object], Any]) -> Object:
        changed = copy.deepcopy(obj)
        change(changed)
        return self.api.replace(resource, changed)

    def tell(self, obj: Object, **status: Any) -> Object:
        """Write the whole status of an Assignment."""
        return self.api.replace(ASSIGNMENTS, {**obj, "status": status}, "status")

    def refuses(self, why: str, call: Callable[[], Any]) -> None:
        with pytest.raises(Invalid) as caught:
            call()
        assert why in str(caught.value)


@pytest.fixture
def shelf(api: Api, namespace: str) -> Shelf:
    return Shelf(api, namespace)


# ---------------------------------------------------------------------------------------------- KeySpace


def test_a_key_space_has_the_defaults_of_the_decisions(shelf: Shelf) -> None:
    made = shelf.make(KEY_SPACES, "default", {"keyLength": 8})
    bare = {"metadata": {"name": "default"}, "spec": {"keyLength": 8}}
    assert keyspace.parse_space(made) == keyspace.parse_space(bare)
    assert made["spec"]["alphabet"] == keyspace.PRINTABLE


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, "spec.keyLength: Required value"),
        ({"keyLength": 0}, "should be greater than or equal to 1"),
        ({"keyLength": 65}, "should be less than or equal to 64"),
        ({"keyLength": 1, "alphabet": "a"}, "should be at least 2 chars long"),
        ({"keyLength": 1, "alphabet": "aba"}, "name each character of the alphabet only once"),
        ({"keyLength": 1, "alphabet": "a b"}, "should match"),
        ({"keyLength": 1, "alphabet": "aä"}, "should match"),
        ({"keyLength": 1, "fenceSeconds": 0}, "give at least 0.1 seconds"),
        ({"keyLength": 1, "graceSeconds": -1}, "should be greater than or equal to 0"),
        ({"keyLength": 1, "followers": 4}, "should be less than or equal to 3"),
        ({"keyLength": 1, "operations": 0}, "should be greater than or equal to 1"),
    ],
)
def test_a_key_space_that_makes_no_sense_is_refused(shelf: Shelf, spec: Object, why: str) -> None:
    shelf.refuses(why, lambda: shelf.make(KEY_SPACES, "default", spec))


def test_the_name_of_a_key_space_is_a_label(shelf: Shelf) -> None:
    for name in ("a.b", "a" * 64):
        shelf.refuses(
            "at most 63 characters and no dot", lambda name=name: shelf.make(KEY_SPACES, name, {"keyLength": 1})
        )
    assert shelf.make(KEY_SPACES, "a" * 63, {"keyLength": 1})


def test_how_keys_look_is_for_ever_and_the_rest_is_not(shelf: Shelf) -> None:
    made = shelf.make(KEY_SPACES, "default", {"keyLength": 4, "alphabet": "abcdef"})
    shelf.refuses("length of keys", lambda: shelf.change(KEY_SPACES, made, lambda o: o["spec"].update(keyLength=5)))
    shelf.refuses("alphabet can't", lambda: shelf.change(KEY_SPACES, made, lambda o: o["spec"].update(alphabet="ab")))
    shelf.refuses("alphabet can't", lambda: shelf.change(KEY_SPACES, made, lambda o: o["spec"].pop("alphabet")))
    changed = shelf.change(KEY_SPACES, made, lambda obj: obj["spec"].update(fenceSeconds=0.5, followers=1))
    assert changed["spec"]["fenceSeconds"] == 0.5


# ---------------------------------------------------------------------------------------------- Partition


def test_a_partition_needs_a_range_only(shelf: Shelf) -> None:
    made = shelf.make(PARTITIONS, "part1", {"range": {"start": "a", "end": "o"}})
    fact = keyspace.fact_of(made)
    assert fact == keyspace.Fact("part1", keyspace.Range("a", "o"), "", 0)
    assert keyspace.space_of(made) == "default" and made["spec"]["claimedBy"] == made["spec"]["fencedBy"] == ""
    assert keyspace.range_of(shelf.make(PARTITIONS, "all", {"range": {}})) == ("", "")
    assert keyspace.range_of(shelf.make(PARTITIONS, "above", {"range": {"start": "o"}})) == ("o", "")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, "spec.range: Required value"),
        ({"range": {"start": "o", "end": "a"}}, "start has to be below end"),
        ({"range": {"start": "a", "end": "a"}}, "start has to be below end"),
        ({"range": {"start": "a" * 65}}, "may not be more than 64"),
        ({"range": {"start": "a b"}}, "give characters from ! to ~ only"),
        ({"range": {"end": "ä"}}, "give characters from ! to ~ only"),
        ({"range": {}, "keySpace": "No"}, "should match"),
        ({"range": {}, "epoch": -1}, "should be greater than or equal to 0"),
        ({"range": {}, "fencedBy": "a1"}, "fenced only by the Assignment that has claimed it"),
        ({"range": {}, "fencedAt": "soon"}, "give a time as RFC 3339"),
        ({"range": {}, "followers": ["w", "w"]}, "Duplicate value"),
    ],
)
def test_a_partition_that_makes_no_sense_is_refused(shelf: Shelf, spec: Object, why: str) -> None:
    shelf.refuses(why, lambda: shelf.make(PARTITIONS, "part1", spec))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"range": {"start": "a", "end": "p"}}, "range of a Partition can't be changed"),
        ({"keySpace": "other"}, "key space of a Partition can't be changed"),
        ({"epoch": 2}, "the epoch never goes back"),
        ({"primary": "w-1"}, "the primary changes only with a higher epoch"),
        ({"fencedBy": "a1", "claimedBy": "a1"}, "put up and taken down only with a higher epoch"),
        ({"fencedBy": "a2", "claimedBy": "a1", "epoch": 4}, "only by the Assignment that has claimed it"),
        ({"followers": ["w-2"]}, "a follower is let go only with a higher epoch"),
        ({"followers": []}, "a follower is let go only with a higher epoch"),
    ],
)
def test_what_never_happens_to_a_partition(shelf: Shelf, changes: Object, why: str) -> None:
    spec = {"range": {"start": "a", "end": "o"}, "primary": "w-0", "epoch": 3, "followers": ["w-1", "w-2"]}
    made = shelf.make(PARTITIONS, "part1", spec)
    shelf.refuses(why, lambda: shelf.change(PARTITIONS, made, lambda obj: obj["spec"].update(changes)))


def test_who_replaces_a_partition_with_its_first_document_is_told(shelf: Shelf) -> None:
    spec = {"range": {"start": "a", "end": "o"}}
    made = shelf.make(PARTITIONS, "part1", {**spec, "primary": "w-0", "epoch": 3})
    shelf.refuses("keep what it has written", lambda: shelf.api.replace(PARTITIONS, {**made, "spec": spec}))


def test_what_the_reconciler_does_to_a_partition(shelf: Shelf) -> None:
    """A claim, a fence, a hand-over, and the end of the claim."""
    obj = shelf.make(PARTITIONS, "part1", {"range": {"start": "a", "end": "o"}, "primary": "w-0", "epoch": 3})
    for changes in (
        {"claimedBy": "a1"},
        {"fencedBy": "a1", "fencedAt": STAMP, "epoch": 4},
        {"fencedBy": "", "fencedAt": "", "epoch": 5, "primary": "w-1", "proxy": "w-0", "followers": [], "sources": []},
        {"proxy": "", "claimedBy": ""},
        {"followers": ["w-2"]},
    ):
        obj = shelf.change(PARTITIONS, obj, lambda each, changes=changes: each["spec"].update(changes))
    assert keyspace.fact_of(obj)._replace(sources=()) == keyspace.Fact("part1", keyspace.Range("a", "o"), "w-1", 5)


# ---------------------------------------------------------------------------------------------- Assignment


NEW = {"type": "New", "newParams": {"partition": "p", "primary": "w"}}
MOVE = {"type": "InterWorkerMove", "moveParams": {"partition": "p", "from": "w-0", "to": "w-1"}}


@pytest.mark.parametrize(
    "spec",
    [
        NEW,
        {"type": "New", "newParams": {"partitions": [{"partition": f"p-{n}", "primary": "w"} for n in range(200)]}},
        {"type": "InWorkerSplit", "splitParams": {"partition": "p", "splitKey": "g"}},
        {"type": "InWorkerMerge", "mergeParams": {"partitions": [f"p-{number}" for number in range(16)]}},
        MOVE,
    ],
)
def test_an_assignment_that_is_let_in_can_be_understood(shelf: Shelf, spec: Object) -> None:
    made = shelf.make(ASSIGNMENTS, "a1", spec)
    assert operations.parse(made).kind == spec["type"] and made["spec"]["keySpace"] == "default"


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"type": "Drop"}, "Unsupported value"),
        ({"newParams": {"partition": "p", "primary": "w"}}, "spec.type: Required value"),
        ({"type": "New"}, "type New needs newParams"),
        ({"type": "InWorkerSplit"}, "type InWorkerSplit needs splitParams"),
        ({"type": "InWorkerMerge"}, "type InWorkerMerge needs mergeParams"),
        ({"type": "InterWorkerMove"}, "type InterWorkerMove needs moveParams"),
        ({**NEW, "moveParams": MOVE["moveParams"]}, "type InterWorkerMove needs moveParams, and no other type"),
        ({"type": "New", "newParams": {"partition": "p"}}, "give partition and primary"),
        ({"type": "New", "newParams": {"partitions": []}}, "should have at least 1 items"),
        (
            {"type": "New", "newParams": {"partitions": [{"partition": f"{n}", "primary": "w"} for n in range(201)]}},
            "must have at most 200 items",
        ),
        (
            {"type": "New", "newParams": {"partitions": [{"partition": "p", "primary": "w"}] * 2}},
            "Duplicate value",
        ),
        (
            {"type": "New", "newParams": {**NEW["newParams"], "partitions": [NEW["newParams"]]}},
            "and not both",
        ),
        ({"type": "InWorkerSplit", "splitParams": {"partition": "p", "splitKey": ""}}, "at least 1 chars"),
        ({"type": "InWorkerSplit", "splitParams": {"partition": "p", "splitKey": "a b"}}, "from ! to ~ only"),
        ({"type": "InWorkerMerge", "mergeParams": {"partitions": ["p"]}}, "should have at least 2 items"),
        ({"type": "InWorkerMerge", "mergeParams": {"partitions": ["p", "p"]}}, "Duplicate value"),
        ({"type": "InterWorkerMove", "moveParams": {"partition": "p", "from": "w", "to": "w"}}, "name another worker"),
    ],
)
def test_an_assignment_that_makes_no_sense_is_refused(shelf: Shelf, spec: Object, why: str) -> None:
    shelf.refuses(why, lambda: shelf.make(ASSIGNMENTS, "a1", spec))


def test_what_was_asked_for_can_not_be_changed(shelf: Shelf) -> None:
    made = shelf.make(ASSIGNMENTS, "a1", MOVE)
    shelf.refuses(
        "what an Assignment asks for can't be changed",
        lambda: shelf.change(ASSIGNMENTS, made, lambda obj: obj["spec"]["moveParams"].update(to="w-2")),
    )


STATUSES: dict[str, Object] = {
    "": {},
    "Pending": {"phase": "Pending", "message": "Partition p is part of a0, which is not over"},
    "Loading": {"phase": "Loading", "startedAt": STAMP},
    "Committed": {"phase": "Committed", "committedAt": STAMP, "results": [RESULT], "supersedes": ["o"]},
    "Completed": {"phase": "Completed", "committedAt": STAMP, "results": [RESULT], "supersedes": ["o"]},
    "Aborting": {"phase": "Aborting", "message": "why"},
    "Aborted": {"phase": "Aborted", "message": "why"},
}
WAYS = {
    "": ("Pending", "Loading", "Committed", "Aborting"),
    "Pending": ("Pending", "Loading", "Committed", "Aborting"),
    "Loading": ("Loading", "Committed", "Aborting"),
    "Committed": ("Committed", "Completed"),
    "Completed": ("Completed",),
    "Aborting": ("Aborting", "Aborted"),
    "Aborted": ("Aborted",),
}
PATHS = {
    "": (),
    "Pending": ("Pending",),
    "Loading": ("Loading",),
    "Committed": ("Committed",),
    "Completed": ("Committed", "Completed"),
    "Aborting": ("Aborting",),
    "Aborted": ("Aborting", "Aborted"),
}


@pytest.mark.parametrize("before", WAYS)
def test_a_phase_only_advances(shelf: Shelf, before: str) -> None:
    for after, status in STATUSES.items():
        obj = shelf.make(ASSIGNMENTS, f"a-{after.lower() or 'none'}", MOVE)
        for phase in PATHS[before]:
            obj = shelf.tell(obj, **STATUSES[phase])
        if after in WAYS[before]:
            assert shelf.tell(obj, **status)["status"]["phase"] == after
        elif before:
            shelf.refuses("phase", lambda obj=obj, status=status: shelf.tell(obj, **status))


def test_a_phase_can_not_be_taken_away_and_come_again(shelf: Shelf) -> None:
    obj = shelf.tell(shelf.make(ASSIGNMENTS, "a1", MOVE), **STATUSES["Aborting"])
    shelf.refuses("can't be taken away", lambda: shelf.api.replace(ASSIGNMENTS, _without_status(obj), "status"))
    shelf.refuses("can't be taken away", lambda: shelf.tell(obj, message="none"))


def test_what_is_committed_is_final(shelf: Shelf) -> None:
    obj = shelf.tell(shelf.make(ASSIGNMENTS, "a1", MOVE), **STATUSES["Committed"])
    for changes, why in (
        ({"results": [{**RESULT, "epoch": 2}]}, "results can't be changed"),
        ({"results": [RESULT, RESULT]}, "results can't be changed"),
        ({"supersedes": []}, "what is superseded can't be changed"),
        ({"supersedes": ["o", "p"]}, "what is superseded can't be changed"),
        ({"committedAt": "2026-01-31T12:00:01Z"}, "time of the commit can't be changed"),
    ):
        for phase in ("Committed", "Completed"):
            shelf.refuses(why, lambda c=changes, p=phase: shelf.tell(obj, **{**STATUSES[p], **c}))
    told = shelf.tell(obj, **STATUSES["Committed"], move={"status": "proxying", "fromPod": "proxy", "toPod": "primary"})
    assert keyspace.view([], [told]).facts[0].primary == "w"


def test_results_come_with_the_commit(shelf: Shelf) -> None:
    obj = shelf.make(ASSIGNMENTS, "a1", MOVE)
    come = "come with the phase Committed, in one write"
    shelf.refuses(come, lambda: shelf.tell(obj, phase="Loading", results=[RESULT]))
    shelf.refuses(come, lambda: shelf.tell(obj, phase="Aborting", supersedes=["p"]))
    shelf.refuses("says results and committedAt", lambda: shelf.tell(obj, phase="Committed", committedAt=STAMP))
    shelf.refuses("says results and committedAt", lambda: shelf.tell(obj, phase="Committed", results=[RESULT]))
    wrong = {**RESULT, "range": {"start": "b", "end": "a"}}
    shelf.refuses("start has to be below end", lambda: shelf.tell(obj, **{**STATUSES["Committed"], "results": [wrong]}))


def test_the_largest_batch_can_be_committed_and_completed(shelf: Shelf) -> None:
    """The rules have a price, and the server a limit for it."""
    names = [f"{'p' * 240}-{number:04}" for number in range(200)]
    spec = {"type": "New", "newParams": {"partitions": [{"partition": name, "primary": "w" * 253} for name in names]}}
    results = [
        {
            "partition": name,
            "range": {"start": f"{number:064}", "end": f"{number + 1:064}"},
            "primary": "w" * 253,
            "epoch": 1,
            "sources": [{"partition": "s" * 253, "epoch": 1}] * 16,
        }
        for number, name in enumerate(names)
    ]
    obj = shelf.make(ASSIGNMENTS, "a1", spec)
    for phase in ("Committed", "Completed"):
        obj = shelf.tell(obj, **{**STATUSES[phase], "results": results})
    assert len(obj["status"]["results"]) == 200


def _without_status(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key != "status"}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One Instance and its objects: what is done next, in a small world that does it."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import instance as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import (
    Ask,
    Close,
    Done,
    Drop,
    Key,
    Look,
    Make,
    Release,
    Remove,
    Replace,
    Step,
    Wait,
    Write,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import owner_hash

Object = dict[str, Any]
DISK: Object = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "kv-1"}, "spec": {}}
SERVICE: Object = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kv-1"}, "spec": {}}
WORKLOAD: Object = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "kv-1"},
    "spec": {"replicas": 2},
}
MANIFEST = [WORKLOAD, SERVICE, DISK]
AT = "2026-01-01T00:00:00Z"


class World:
    """An API server, a ledger and the controllers of workloads; as much of them as an Instance meets."""

    def __init__(self, **spec: Any) -> None:
        self.numbers = itertools.count(1)
        self.objects: dict[Key, Object] = {}
        self.held = "reserved"
        self.log: list[str] = []
        self.wiped = 0
        self.instance: Object | None = {
            "metadata": {"name": "kv-1", "namespace": "ns", "uid": "i", "generation": 1},
            "spec": {"owner": "ann", "manifest": copy.deepcopy(MANIFEST), "storage": "delete", **spec},
        }

    def run(self, *, crash_after: int | None = None) -> None:
        """Steps until nothing is left to do; a crash forgets what was read, and goes on from the start."""
        held: bool | None = None
        seen: dict[Key, Object | None] = {}
        for count in range(200):
            if self.instance is None:
                return
            if count == crash_after:
                held, seen = None, {}
            step = decisions.next_step(copy.deepcopy(self.instance), held, seen, AT)
            if isinstance(step, Done | Wait):
                if not self.controllers():
                    return
                held, seen = None, {}
                continue
            held, seen = self.do(step, held, seen)
        raise AssertionError(f"no end: {self.log[-12:]}")

    def do(self, step: Step, held: bool | None, seen: dict[Key, Object | None]) -> tuple[bool | None, Any]:
        assert self.instance is not None
        match step:
            case Look(keys):
                return held, {**seen, **{key: copy.deepcopy(self.objects.get(key)) for key in keys}}
            case Ask():
                self.held = "held" if self.held == "reserved" else self.held
                return self.held != "none", seen
            case Close():
                self.held = "closing" if self.held != "none" else "none"
                return self.held != "none", seen
            case Release():
                self.log.append("release")
                self.held = "none"
                return False, seen
            case Drop():
                self.log.append("drop")
                self.delete_instance()
                return None, {}
            case Write(desired, _subresource):
                self.instance = copy.deepcopy(desired)
                self.let_go()
                return held, seen
            case Make(obj):
                key = decisions.key_of(obj)
                assert key not in self.objects, "it would be refused"
                self.log.append(f"make {key}")
                self.put(obj)
            case Replace(obj):
                key = decisions.key_of(obj)
                assert self.objects[key]["metadata"]["uid"] == obj["metadata"]["uid"]
                self.log.append(f"replace {key}")
                generation = self.objects[key]["metadata"]["generation"] + 1
                self.objects[key] = copy.deepcopy(obj)
                self.objects[key]["metadata"]["generation"] = generation
            case Remove(key, uid):
                assert self.objects[key]["metadata"]["uid"] == uid
                self.log.append(f"remove {key}")
                self.objects[key]["metadata"]["deletionTimestamp"] = AT
            case _:
                raise AssertionError(step)
        return held, {name: there for name, there in seen.items() if name != key}

    def put(self, obj: Object, uid: str = "") -> None:
        made = copy.deepcopy(obj)
        made["metadata"] |= {"uid": uid or f"o{next(self.numbers)}", "generation": 1}
        self.objects[decisions.key_of(made)] = made

    def controllers(self) -> bool:
        """What others do meanwhile; whether that was anything."""
        before = copy.deepcopy(self.objects)
        for key, there in list(self.objects.items()):
            if there["metadata"].get("deletionTimestamp"):
                self.wiped += key.kind == decisions.DISK
                del self.objects[key]
            elif key.kind in decisions.WORKLOADS:
                count = there["spec"].get("replicas", 1)
                generation = there["metadata"]["generation"]
                there["status"] = {
                    "observedGeneration": generation,
                    "replicas": count,
                    "readyReplicas": count,
                    "updatedReplicas": count,
                }
        return self.objects != before

    def delete_instance(self) -> None:
        assert self.instance is not None
        self.instance["metadata"]["deletionTimestamp"] = AT
        self.let_go()

    def let_go(self) -> None:
        metadata = (self.instance or {"metadata": {}})["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            self.instance = None

    @property
    def status(self) -> Object:
        assert self.instance is not None
        return self.instance["status"]

    def change(self, **spec: Any) -> None:
        assert self.instance is not None
        self.instance["spec"] |= spec
        self.instance["metadata"]["generation"] += 1

    def replicas(self) -> int:
        return int(self.objects[decisions.key_of(WORKLOAD)]["spec"]["replicas"])


def running(**spec: Any) -> World:
    world = World(**spec)
    world.run()
    return world


def test_disks_are_made_first_and_it_is_ready_when_its_pods_are() -> None:
    world = running()
    assert world.log == ["make PersistentVolumeClaim kv-1", "make Service kv-1", "make Deployment kv-1"]
    assert world.status["phase"] == "Ready"
    assert [each["kind"] for each in world.status["objects"]] == ["PersistentVolumeClaim", "Service", "Deployment"]
    assert all(there["metadata"]["ownerReferences"][0]["uid"] == "i" for there in world.objects.values())


def test_nothing_is_made_for_an_instance_that_no_ledger_holds() -> None:
    world = World()
    world.held = "none"
    world.run()
    assert world.instance is None
    assert world.log == ["drop"]


def test_suspended_is_scaled_to_zero_and_comes_back() -> None:
    world = running()
    world.change(suspended=True)
    world.run()
    assert (world.status["phase"], world.replicas(), len(world.objects)) == ("Suspended", 0, 3)
    world.change(suspended=False)
    world.run()
    assert (world.status["phase"], world.replicas()) == ("Ready", 2)


def test_created_suspended_never_runs() -> None:
    world = running(suspended=True)
    assert (world.status["phase"], world.replicas()) == ("Suspended", 0)
    assert "replace Deployment kv-1" not in world.log


def test_reset_wipes_the_disk_once_while_nothing_uses_it() -> None:
    world = running()
    disk = world.objects[decisions.key_of(DISK)]["metadata"]["uid"]
    world.log.clear()
    world.change(resets=1)
    world.run()
    assert world.log == [
        "replace Deployment kv-1",
        "remove PersistentVolumeClaim kv-1",
        "make PersistentVolumeClaim kv-1",
        "replace Deployment kv-1",
    ]
    assert world.objects[decisions.key_of(DISK)]["metadata"]["uid"] != disk
    assert (world.status["phase"], world.status["resets"], world.wiped) == ("Ready", 1, 1)


def test_a_reset_of_a_suspended_instance_leaves_it_suspended() -> None:
    world = running(suspended=True)
    world.change(resets=2)
    world.run()
    assert (world.status["phase"], world.replicas(), world.wiped) == ("Suspended", 0, 1)


def test_at_the_end_workloads_go_first_and_the_place_last() -> None:
    world = running()
    world.log.clear()
    world.delete_instance()
    world.run()
    assert world.log == [
        "remove Deployment kv-1",
        "remove PersistentVolumeClaim kv-1",
        "remove Service kv-1",
        "release",
    ]
    assert world.instance is None and world.objects == {} and world.held == "none"


def test_a_disk_that_is_to_be_kept_outlives_it_and_can_be_attached_again() -> None:
    world = running(storage="retain")
    world.delete_instance()
    world.run()
    assert world.instance is None
    (disk,) = world.objects.values()
    assert disk["metadata"]["ownerReferences"] == []
    assert disk["metadata"]["labels"] == {decisions.RETAINED: owner_hash("ann")}
    again = World(attach="kv-1")
    again.objects = {decisions.key_of(disk): disk}
    again.run()
    assert again.status["phase"] == "Ready"
    assert again.objects[decisions.key_of(DISK)]["metadata"]["uid"] == disk["metadata"]["uid"]
    assert decisions.RETAINED not in again.objects[decisions.key_of(DISK)]["metadata"]["labels"]


@pytest.mark.parametrize("whose", ["somebody's", "another owner's", "not asked for"])
def test_what_is_not_its_own_is_left_alone(whose: str) -> None:
    label = owner_hash("bob") if whose == "another owner's" else owner_hash("ann")
    foreign: Object = {**DISK, "metadata": {"name": "kv-1", "labels": {decisions.RETAINED: label}}}
    if whose == "somebody's":
        foreign["metadata"] = {"name": "kv-1", "ownerReferences": [{"uid": "other"}]}
    world = World(**({} if whose == "not asked for" else {"attach": "kv-1"}))
    world.put(foreign, "theirs")
    before = copy.deepcopy(world.objects)
    world.run()
    assert world.status["phase"] == "Failed"
    assert world.status["message"] == "PersistentVolumeClaim kv-1 is there and is not its own"
    assert world.objects == before
    world.delete_instance()
    world.run()
    assert world.instance is None and world.objects == before


def test_what_vanishes_is_made_again_from_the_record() -> None:
    world = running()
    del world.objects[decisions.key_of(SERVICE)]
    world.run()
    assert decisions.key_of(SERVICE) in world.objects and world.status["phase"] == "Ready"


@pytest.mark.parametrize("crash_after", range(40))
@pytest.mark.parametrize("story", ["made", "suspended", "reset", "destroyed", "retained"])
def test_a_crash_between_any_two_steps_changes_nothing_of_the_end(story: str, crash_after: int) -> None:
    world = World(storage="retain" if story == "retained" else "delete")
    world.run(crash_after=crash_after if story == "made" else None)
    if story == "suspended":
        world.change(suspended=True)
    elif story == "reset":
        world.change(resets=1)
    elif story in ("destroyed", "retained"):
        world.delete_instance()
    world.run(crash_after=crash_after)
    if story in ("destroyed", "retained"):
        assert world.instance is None and world.held == "none"
        assert [key.kind for key in world.objects] == ([decisions.DISK] if story == "retained" else [])
    else:
        assert world.status["phase"] == ("Suspended" if story == "suspended" else "Ready")
        assert world.wiped == (story == "reset")
    assert world.log.count("make Deployment kv-1") == 1


def test_done_is_done() -> None:
    world = running()
    assert world.instance is not None
    seen = {key: copy.deepcopy(there) for key, there in world.objects.items()}
    assert decisions.next_step(world.instance, True, seen, "2027-01-01T00:00:00Z") == Done()

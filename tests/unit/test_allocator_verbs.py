# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances are created, found, shared and destroyed: on an API server in memory, with a crash at every request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LostAnswer
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    POOL,
    Busy,
    Caller,
    KeyBusy,
    KeyReused,
    NotAdministrator,
    NotOwner,
    NotThere,
    Offer,
    QuotaSpent,
    Refused,
    RefusedByCluster,
    Wish,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import FINALIZER, RETAINED
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import (
    HELD,
    MEMBER,
    owner_hash,
    release,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import Access, parse
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import allocator as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES, Allocator
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import TOTAL
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

ANN, BOB, EVE = Caller("ann"), Caller("bob", ("team",)), Caller("eve", ("admins",))
DISK = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "{{.Name}}"}, "spec": {}}
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{.Name}}"}, "data": {"size": "{{.Size}}"}}
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "{{.Name}}"},
    "spec": {"ports": [{"port": 80, "name": "http"}], "selector": {"app": "{{.Name}}"}},
}
DECLARATION = {
    "apiVersion": "muster.dev/v1alpha1",
    "kind": "InstanceTemplate",
    "spec": {"parameters": {"Size": {"type": "integer", "default": 1, "minimum": 1, "maximum": 9}}},
}


def offer(**said: Any) -> Offer:
    template = parse([DECLARATION, DISK, CONFIG, SERVICE], "template")
    return decisions.make_offer(
        name="kv", server_name="kv", template=template, administrators=("group:admins",), **said
    )


def allocator(api: MemoryApi, **said: Any) -> Allocator:
    return Allocator(api, "ns", offer(**said))  # type: ignore[arg-type]


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


def instances(api: MemoryApi) -> list[dict[str, Any]]:
    return api.list(INSTANCES, "ns").items


def entries(of: Allocator, owner: str) -> dict[str, str]:
    """Handle to state."""
    ledger = of.ledgers.read(owner)
    return {name: entry.state for name, entry in ledger.entries.items()} if ledger else {}


# ------------------------------------------------------------------------------------------ creation


def test_what_is_created_is_held_by_its_owner_and_by_the_total(api: MemoryApi) -> None:
    of = allocator(api)
    instance, is_new = of.create(ANN, "k", Wish({"Size": 3}))
    name = instance["metadata"]["name"]
    assert is_new and name.startswith("kv-")
    assert entries(of, "ann") == entries(of, TOTAL) == {name: HELD}
    view = decisions.view(of.get(ANN, name))
    assert (view["owner"], view["phase"], view["parameters"]) == ("ann", "Pending", {"Size": 3})
    assert view["endpoints"] == [{"service": name, "port": 80, "name": "http"}]
    assert instance["spec"]["manifest"][1]["data"] == {"size": "3"}


def test_who_asks_again_finds_the_same_also_after_the_template_has_changed(api: MemoryApi) -> None:
    name = allocator(api).create(ANN, "k", Wish({"Size": 3})).instance["metadata"]["name"]
    api.faults = []
    later = Allocator(api, "ns", decisions.make_offer(name="kv", server_name="kv", template=parse([DISK], "t")))  # type: ignore[arg-type]
    instance, is_new = later.create(ANN, "k", Wish({"Size": 3}))
    assert not is_new and instance["metadata"]["name"] == name and len(instances(api)) == 1


def test_a_key_belongs_to_one_wish_and_to_one_owner(api: MemoryApi) -> None:
    of = allocator(api)
    first = of.create(ANN, "k", Wish({"Size": 3})).instance
    with pytest.raises(KeyReused):
        of.create(ANN, "k", Wish({"Size": 4}))
    other = of.create(BOB, "k", Wish({"Size": 4})).instance
    assert other["metadata"]["name"] != first["metadata"]["name"]


def test_limits_are_told_with_what_is_used(api: MemoryApi) -> None:
    of = allocator(api, max_instances_per_user=1, max_instances=2)
    of.create(ANN, "1", Wish())
    with pytest.raises(QuotaSpent) as caught:
        of.create(ANN, "2", Wish())
    assert caught.value.members == {"limit": 1, "used": 1, "scope": "owner"}
    of.create(BOB, "1", Wish())
    with pytest.raises(QuotaSpent) as caught:
        of.create(EVE, "1", Wish())
    assert caught.value.members == {"limit": 2, "used": 2, "scope": "global"}
    assert entries(of, "eve") == {}, "nothing stays reserved"


def test_of_many_at_one_moment_exactly_as_many_get_one_as_there_are_places(api: MemoryApi) -> None:
    of, start = allocator(api, max_instances_per_user=2, max_instances=5), threading.Barrier(24)

    def ask(number: int) -> str:
        start.wait()
        try:
            return str(of.create(Caller(f"u{number % 4}"), f"k{number}", Wish()).instance["metadata"]["name"])
        except QuotaSpent as error:
            return str(error.members["scope"])

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(24)))
    made = [answer for answer in answers if answer.startswith("kv-")]
    assert len(set(made)) == len(made) == len(instances(api)) == 5
    assert max(sum(entry["spec"]["owner"] == f"u{user}" for entry in instances(api)) for user in range(4)) <= 2
    assert set(entries(of, TOTAL)) == set(made)


def test_in_check_mode_nothing_is_written(api: MemoryApi) -> None:
    of = allocator(api)
    assert of.create(ANN, "k", Wish(), dry_run=True).is_new
    assert not api.objects
    of.create(ANN, "k", Wish())
    assert not of.create(ANN, "k", Wish(), dry_run=True).is_new
    with pytest.raises(QuotaSpent):
        of.create(ANN, "other", Wish(), dry_run=True)


def test_what_the_cluster_would_not_take_reserves_nothing(api: MemoryApi) -> None:
    of = allocator(api)
    api.faults = ["dry-run 403"]
    with pytest.raises(RefusedByCluster, match="PersistentVolumeClaim kv-"):
        of.create(ANN, "k", Wish())
    assert not api.objects


def test_a_bad_parameter_is_named_and_reserves_nothing(api: MemoryApi) -> None:
    for parameters, field in (({"Size": 10}, "parameters.Size"), ({"Colour": "red"}, "Colour")):
        with pytest.raises(Malformed) as caught:
            allocator(api).create(ANN, "k", Wish(parameters))
        assert field in str(caught.value)
    assert not api.objects


def test_the_key_of_what_is_being_destroyed_is_busy(api: MemoryApi) -> None:
    of = allocator(api)
    name = of.create(ANN, "k", Wish()).instance["metadata"]["name"]
    api.objects["instances", "ns", name]["metadata"]["finalizers"] = [FINALIZER]
    of.destroy(ANN, name)
    with pytest.raises(KeyBusy):
        of.create(ANN, "k", Wish())
    api.delete(INSTANCES, name, "ns")
    of.ledgers.change("ann", lambda ledger: (ledger, None))
    with pytest.raises(KeyBusy):
        of.create(ANN, "k", Wish())


# ------------------------------------------------------------------------------------------ crashes


class Crash(BaseException):
    """The process is gone."""


def crashing(api: MemoryApi, work: Callable[[Allocator], Any], number: int, *, applied: bool, **said: Any) -> bool:
    """Do the work in a process that dies at its n-th write, or right after it; whether it came so far."""
    count = 0
    of = allocator(api, **said)
    begin = api._begin

    def counted(verb: str, resource: Any, name: str) -> Any:
        nonlocal count
        if verb in ("create", "replace", "delete"):
            count += 1
            if count == number and not applied:
                raise Crash
            if count == number + 1 and applied:
                raise Crash
        return begin(verb, resource, name)

    api._begin = counted  # type: ignore[method-assign]
    try:
        work(of)
        return count < number + applied
    except Crash:
        return False
    finally:
        api._begin = begin  # type: ignore[method-assign]


@pytest.mark.parametrize("warm", [0, 1])
def test_whoever_dies_anywhere_finds_one_instance_when_it_asks_again(warm: int) -> None:
    for number in range(1, 12):
        for applied in (False, True):
            api = MemoryApi()
            said = {"warm": warm, "max_instances_per_user": 1, "max_instances": 1}
            if warm:
                ready(api, allocator(api, **said).make_warm())
            done = crashing(api, lambda of: of.create(ANN, "k", Wish()), number, applied=applied, **said)
            of = allocator(api, **said)
            name = of.create(ANN, "k", Wish()).instance["metadata"]["name"]
            assert [each["metadata"]["name"] for each in instances(api)] == [name]
            assert entries(of, "ann") == entries(of, TOTAL) == {name: HELD}
            with pytest.raises(QuotaSpent):
                of.create(ANN, "other", Wish())
            if done and not applied:
                assert number > (6 if warm else 5)
                return
    raise AssertionError("it never came to its end")


def test_a_lost_answer_at_any_write_makes_no_second_one() -> None:
    for verb in ("create", "replace"):
        for word in ("lost", "lost-applied", "500", "500-applied"):
            api = MemoryApi()
            of = allocator(api)
            api.faults = [f"{verb} {word}"]
            for _attempt in range(3):
                try:
                    of.create(ANN, "k", Wish())
                    break
                except (LostAnswer, Refused):
                    continue
            assert len(instances(api)) == 1


def test_what_an_earlier_wish_has_left_is_not_given_for_another(api: MemoryApi) -> None:
    crashing(api, lambda of: of.create(ANN, "k", Wish({"Size": 3})), 3, applied=True)
    of = allocator(api)
    (left,) = instances(api)
    for owner in (TOTAL, "ann"):  # as the sweeper does, for nobody has come back
        of.ledgers.change(owner, lambda ledger: (release(ledger, left["metadata"]["name"]), None))
    with pytest.raises(Busy, match="earlier request"):
        of.create(ANN, "k", Wish({"Size": 4}))
    assert not verbs.held(of.ledgers, left)


# ------------------------------------------------------------------------------------------ the warm pool


def ready(api: MemoryApi, instance: dict[str, Any] | None) -> str:
    assert instance is not None
    name = str(instance["metadata"]["name"])
    there = api.get(INSTANCES, name, "ns")
    api.replace(INSTANCES, {**there, "status": {"phase": "Ready"}}, "status")
    return name


def test_one_of_the_pool_becomes_the_callers_in_six_writes(api: MemoryApi) -> None:
    of = allocator(api, warm=1)
    name = ready(api, of.make_warm())
    assert of.make_warm() is None, "there are enough"
    of.create(BOB, "k", Wish({"Size": 2}))  # its parameters are no defaults, so it is made
    assert entries(of, POOL) == {name: HELD}
    before = api.version
    instance, is_new = of.create(ANN, "k", Wish(access=Access(("bob",))))
    assert is_new and instance["metadata"]["name"] == name
    assert api.version - before == 6
    assert entries(of, POOL) == {} and entries(of, "ann") == {name: HELD} and name in entries(of, TOTAL)
    assert instance["spec"]["owner"] == "ann" and instance["metadata"]["labels"]["muster.dev/owner"] == owner_hash(
        "ann"
    )
    assert of.get(BOB, name)["metadata"]["name"] == name
    assert not of.create(ANN, "k", Wish(access=Access(("bob",)))).is_new


def test_nobody_but_administrators_sees_what_waits(api: MemoryApi) -> None:
    of = allocator(api, warm=1)
    name = ready(api, of.make_warm())
    with pytest.raises(NotThere):
        of.get(ANN, name)
    assert of.get(EVE, name)
    with pytest.raises(NotThere):
        of.get(Caller(""), name)
    api.objects["instances", "ns", name]["spec"]["access"] = {"users": ["ann"], "groups": ["team"]}
    for caller in (ANN, BOB):
        with pytest.raises(NotThere):
            of.get(caller, name)


def test_two_never_claim_the_same(api: MemoryApi) -> None:
    of, start = allocator(api, warm=3, max_instances=100), threading.Barrier(8)
    for _number in range(3):
        ready(api, of.make_warm())

    def ask(number: int) -> str:
        start.wait()
        return str(of.create(Caller(f"u{number}"), "k", Wish()).instance["metadata"]["name"])

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(ask, range(8)))
    assert len(set(names)) == len(instances(api)) == 8
    assert entries(of, POOL) == {}


# ------------------------------------------------------------------------------------------ who may


def test_a_foreign_instance_is_as_one_that_is_not_there(api: MemoryApi) -> None:
    of = allocator(api)
    name = of.create(ANN, "k", Wish()).instance["metadata"]["name"]
    for act in (
        lambda name: of.get(BOB, name),
        lambda name: of.destroy(BOB, name),
        lambda name: of.suspend(BOB, name, True),
        lambda name: of.reset(BOB, name),
        lambda name: of.events(BOB, name),
    ):
        told = []
        for which in (name, "kv-0000000000", "../x", ""):
            with pytest.raises(NotThere) as caught:
                act(which)
            told.append((str(caught.value), caught.value.members))
        assert len(set(map(str, told))) == 1
    assert of.listed(BOB).items == []
    assert of.get(EVE, name) and of.listed(EVE, everything=True).items


def test_whom_it_is_shared_with_may_suspend_but_not_destroy(api: MemoryApi) -> None:
    of = allocator(api)
    name = of.create(ANN, "k", Wish(access=Access((), ("team",)))).instance["metadata"]["name"]
    assert of.suspend(BOB, name, True)["spec"]["suspended"]
    assert [each["metadata"]["name"] for each in of.listed(BOB).items] == [name]
    for act in (lambda: of.destroy(BOB, name), lambda: of.reset(BOB, name)):
        with pytest.raises(NotOwner, match="ann"):
            act()
    with pytest.raises(NotAdministrator):
        of.listed(BOB, everything=True)


def test_lists_come_in_pages(api: MemoryApi) -> None:
    of = allocator(api, max_instances_per_user=9, max_instances=9)
    names = sorted(of.create(ANN, f"k{number}", Wish()).instance["metadata"]["name"] for number in range(5))
    found, after = [], ""
    for _page in range(3):
        page = of.listed(ANN, limit=2, after=after)
        found += [each["metadata"]["name"] for each in page.items]
        after = page.next
    assert found == names and after == ""


def test_a_reset_that_is_repeated_resets_once(api: MemoryApi) -> None:
    of = allocator(api)
    name = of.create(ANN, "k", Wish()).instance["metadata"]["name"]
    for _time in range(2):
        assert of.reset(ANN, name, 0)["spec"]["resets"] == 1
    assert of.reset(ANN, name)["spec"]["resets"] == 2
    with pytest.raises(Busy):
        of.reset(ANN, name, 0)
    api.faults = ["replace lost-applied"]
    assert of.reset(ANN, name)["spec"]["resets"] == 3


# ------------------------------------------------------------------------------------------ disks


def kept(api: MemoryApi, name: str, owner: str) -> None:
    labels = {MEMBER: "kv", RETAINED: owner_hash(owner)}
    disk = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "ns"}}
    disk["metadata"]["labels"] = labels  # type: ignore[index]
    api.create(DISKS, disk)


def test_a_kept_disk_is_its_owners_alone(api: MemoryApi) -> None:
    of = allocator(api, max_instances_per_user=5)
    kept(api, "kv-old", "ann")
    assert [disk["name"] for disk in of.disks(ANN)] == ["kv-old"] and of.disks(BOB) == []
    with pytest.raises(Malformed, match="attach"):
        of.create(BOB, "k", Wish(attach="kv-old"))
    assert entries(of, "bob") == {}
    with pytest.raises(NotThere):
        of.remove_disk(BOB, "kv-old")
    instance = of.create(ANN, "k", Wish(attach="kv-old")).instance
    assert instance["spec"]["manifest"][0]["metadata"]["name"] == "kv-old"
    of.remove_disk(ANN, "kv-old")
    with pytest.raises(NotThere):
        of.remove_disk(ANN, "kv-old")


# ------------------------------------------------------------------------------------------ for the controller


def test_what_no_ledger_holds_is_not_held_and_what_was_held_is_entered_again(api: MemoryApi) -> None:
    of = allocator(api)
    instance = of.create(ANN, "k", Wish()).instance
    name = instance["metadata"]["name"]
    assert verbs.held(of.ledgers, instance)
    for configmap in (of.ledgers.name("ann"), of.ledgers.name(TOTAL)):
        del api.objects["configmaps", "ns", configmap]
    of = allocator(api)
    assert not verbs.held(of.ledgers, instance)
    there = api.get(INSTANCES, name, "ns")
    there["metadata"]["finalizers"] = [FINALIZER]
    there = api.replace(INSTANCES, there)
    assert verbs.held(of.ledgers, there), "it was held once: a ledger was lost"
    assert entries(of, "ann") == entries(of, TOTAL) == {name: HELD}


def test_a_reservation_is_confirmed_for_its_own_request_only(api: MemoryApi) -> None:
    of = allocator(api)
    crashing(api, lambda of: of.create(ANN, "k", Wish()), 3, applied=True)
    (instance,) = instances(api)
    assert set(entries(of, "ann").values()) == {"reserved"}
    other = {**instance, "spec": {**instance["spec"], "digest": "0" * 16}}
    api.objects["instances", "ns", instance["metadata"]["name"]]["spec"]["digest"] = "0" * 16
    assert not verbs.held(of.ledgers, other)
    api.objects["instances", "ns", instance["metadata"]["name"]]["spec"]["digest"] = instance["spec"]["digest"]
    assert verbs.held(of.ledgers, instance)
    assert set(entries(of, "ann").values()) == {HELD}


def test_places_are_given_back_once_it_is_gone(api: MemoryApi) -> None:
    of = allocator(api)
    instance = of.create(ANN, "k", Wish()).instance
    assert verbs.close(of.ledgers, instance)
    assert set(entries(of, "ann").values()) == {"closing"}
    verbs.release(of.ledgers, instance)
    assert not verbs.close(of.ledgers, instance)
    assert entries(of, "ann") == entries(of, TOTAL) == {}


# ------------------------------------------------------------------------------------------ the offer


def test_an_offer_is_read_as_it_was_published(api: MemoryApi) -> None:
    published = offer(warm=2)
    verbs.publish_offer(api, "ns", published)  # type: ignore[arg-type]
    version = api.version
    verbs.publish_offer(api, "ns", published)  # type: ignore[arg-type]
    assert api.version == version
    assert verbs.read_offer(api, "ns", "kv") == published  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({"size": 1}, "size"),
        ({"parameters": []}, "parameters"),
        ({"access": {"user": []}}, "access.user"),
        ({"access": {"users": "bob"}}, "access.users"),
        ({"access": {"groups": [1]}}, "access.groups[0]"),
        ({"storage": "burn"}, "storage"),
        ({"attach": 1}, "attach"),
    ],
)
def test_a_bad_wish_is_named(body: Any, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        decisions.parse_wish(body)
    assert caught.value.field == field

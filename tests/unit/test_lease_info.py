# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which Leases are looked at, in which order, and what is said where something may not be read."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    Forbidden,
    Listing,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, members
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout, Owner, Table, dump
from ansible_collections.muster.coordination.plugins.module_utils.verbs import lease_info, leases
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

TIMING = Timing()


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi(("ns", "other", "kube-node-lease"))


def lead(api: Any, name: str, pod: str = "vm-0", namespace: str = "ns", uid: str | None = None, **more: Any) -> str:
    """Take a Lease; the identity that has it."""
    me = Identity(pod, api.pod(pod, namespace) if uid is None else uid, "1a2b3c4d", "" if uid == "" else "vm")
    taken = leases.take(
        api, name=name, namespace=namespace, me=me, timing=TIMING, is_contended=False, timeout=5, **more
    )
    assert taken is not None
    return str(me)


def join(api: Any, controller: str, pod: str, shards: int = 2) -> str:
    marks = members.marks(controller, Layout(shards=shards))
    return lead(api, members.lease_name(controller, pod), pod, metadata=marks)


def tabulate(api: MemoryApi, controller: str, *shards: tuple[str, str]) -> None:
    """Of (owner's identity, who is wanted)."""
    owners = tuple(Owner(owner, 100) for owner, _wanted in shards)
    text = dump(Table(Layout(shards=len(shards)), tuple(wanted for _owner, wanted in shards), owners))
    labels = {members.MEMBER_OF: controller}
    metadata = {"name": members.table_name(controller), "namespace": "ns", "labels": labels}
    api.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"table": text}})


def info(api: Any, **asked: Any) -> dict[str, Any]:
    found = lease_info.info(api, namespace="ns", **asked)
    assert found.pop("changed") is False
    return found


def names(found: list[dict[str, Any]]) -> list[str]:
    return [one["name"] for one in found]


def test_all_of_the_namespace_but_for_tickets(api: MemoryApi) -> None:
    lead(api, "b")
    lead(api, "a", "vm-1")
    lead(api, "elsewhere", namespace="other")
    api.lease("sem")
    join(api, "vm", "vm-0")
    found = info(api)
    assert names(found["leases"]) == ["a", "b"]
    assert names(found["controllers"]) == ["vm"]


def test_the_one_of_that_name_be_it_lease_or_controller_or_both(api: MemoryApi) -> None:
    lead(api, "vm")
    lead(api, "a")
    join(api, "vm", "vm-0")
    join(api, "b", "b-0")
    assert [names(part) for part in info(api, name="vm").values()] == [["vm"], ["vm"]]
    assert [names(part) for part in info(api, name="a").values()] == [["a"], []]
    assert [names(part) for part in info(api, name="b").values()] == [[], ["b"]]
    assert info(api, name="nothing") == {"leases": [], "controllers": []}
    api.requests.clear()
    assert info(api, name="long" * 16) == {"leases": [], "controllers": []}
    assert api.requests == [f"get leases/{'long' * 16}"]  # no label can be that: the API server would refuse to list


def test_a_label_selector_never_hides_a_member(api: MemoryApi) -> None:
    marked = members.marks("vm", Layout(shards=2))
    marked["labels"] = {**marked["labels"], "tier": "one"}
    first = lead(api, "vm-vm-0", "vm-0", metadata=marked)
    second = join(api, "vm", "vm-1")
    join(api, "other", "other-0")
    lead(api, "a", metadata={"labels": {"tier": "one"}})
    lead(api, "b", metadata={"labels": {"tier": "two"}})
    tabulate(api, "vm", (first, "vm-0"), (second, "vm-1"))
    found = info(api, label_selector="tier=one")
    assert names(found["leases"]) == ["a"]
    assert names(found["controllers"]) == ["vm"]
    assert found["controllers"][0]["settled"] and len(found["controllers"][0]["members"]) == 2


def test_a_controller_without_members_is_found_by_its_table(api: MemoryApi) -> None:
    tabulate(api, "vm", ("vm-0_u_1a2b3c4d", "vm-0"))
    for asked in ({}, {"name": "vm"}):
        assert info(api, **asked)["controllers"][0]["counts"]["orphaned"] == 1
    assert info(api, label_selector="tier=one")["controllers"] == []


def test_members_are_read_after_the_table_and_pods_after_them(api: MemoryApi) -> None:
    who = join(api, "vm", "vm-0")
    tabulate(api, "vm", (who, "vm-0"))
    api.requests.clear()
    lease_info.shards(api, namespace="ns", name="vm")
    assert api.requests == ["get configmaps/vm-shards", "list leases/muster.dev/shards=vm", "get pods/vm-0"]


def test_a_pod_is_asked_for_once_and_only_where_a_holder_runs_in_one(api: MemoryApi) -> None:
    lead(api, "a")
    lead(api, "b")
    lead(api, "ci", "laptop", uid="")
    free = api.get(LEASES, "b", "ns")
    assert leases.evict(api, free, election.parse(free), timeout=5)
    api.requests.clear()
    assert names(info(api)["leases"]) == ["a", "b", "ci"]
    assert [asked for asked in api.requests if asked.startswith("get pods/")] == ["get pods/vm-0"]


def test_a_pod_that_has_ended(api: MemoryApi) -> None:
    lead(api, "a")
    end = {"containerID": "cri://1", "finishedAt": "2100-01-01T00:00:00Z"}
    there = api.get(PODS, "vm-0", "ns")
    there["status"] = {"phase": "Failed", "containerStatuses": [{"name": "vm", "state": {"terminated": end}}]}
    api.replace(PODS, there)
    assert info(api)["leases"][0]["state"] == "ended"
    api.kill("vm-0")
    assert info(api)["leases"][0]["state"] == "held"


def test_what_may_not_be_read_is_said(api: MemoryApi) -> None:
    who = join(api, "vm", "vm-0")
    tabulate(api, "vm", (who, "vm-0"))
    api.faults = ["get 403"]
    (controller,) = lease_info.shards(api, namespace="ns", name="vm")
    assert "not allowed" in controller["error"] and len(controller["members"]) == 1
    lead(api, "a", uid="u")
    api.faults = ["get 403"]
    (leader,) = lease_info.leaders(api, namespace="ns")
    assert leader["state"] == "held" and "not allowed" in leader["remark"]


def test_who_may_not_list_tables_finds_those_who_have_members() -> None:
    class Secretive(MemoryApi):
        def list(self, resource: Resource, *args: Any, **asked: Any) -> Listing:
            if resource == CONFIGMAPS:
                raise Forbidden(403, "Forbidden", "not allowed")
            return super().list(resource, *args, **asked)

    api = Secretive()
    who = join(api, "vm", "vm-0")
    tabulate(api, "vm", (who, "vm-0"))
    tabulate(api, "other", ("other-0_u_1a2b3c4d", "other-0"))
    assert names(info(api)["controllers"]) == ["vm"]


def test_all_namespaces_but_the_nodes(api: MemoryApi) -> None:
    lead(api, "a")
    lead(api, "a", namespace="other")
    lead(api, "node-1", namespace="kube-node-lease", uid="")
    found = lease_info.leaders(api, namespace=None)
    assert [(one["namespace"], one["name"]) for one in found] == [("ns", "a"), ("other", "a")]

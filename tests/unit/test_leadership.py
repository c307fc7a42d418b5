# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said of Leases and tables: no more than what can be known from one look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, leadership, members
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.leadership import PodSight
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout, Owner, Table, dump

NOW = "2026-01-31T12:00:00.000000Z"
CLIENT_GO = {
    "metadata": {"name": "kube-controller-manager", "namespace": "kube-system", "uid": "l-1", "resourceVersion": "9"},
    "spec": {
        "acquireTime": "2026-01-31T09:00:00.000000Z",
        "holderIdentity": "node-1_4ad7d1a9-5c4a-4c33-a3a1-1d2c9f2f6a55",
        "leaseDurationSeconds": 15,
        "leaseTransitions": 7,
        "renewTime": "2026-01-31T12:00:00.000000Z",
    },
}


def held(name: str, pod: str, run: str = "1a2b3c4d", container_id: str = "cri://1", version: int = 41) -> dict:
    """A Lease as a process in a Pod took it, once it knows its container."""
    me = Identity(pod, f"uid-{pod}", run, "vm")
    free = election.free(name, "ns", Timing(), is_doubtful=False)
    free["metadata"].update(uid=f"lease-{name}", resourceVersion=str(version))
    taken = election.take(free, me, Timing(), NOW, over=None)
    assert taken is not None
    renewed = election.renew(taken, me, NOW, container_id)
    assert renewed is not None
    return renewed


def freed(lease: dict) -> dict:
    free = election.evict(lease, election.parse(lease))
    assert free is not None
    return free


def member(pod: str, layout: Layout | None = None, **more: Any) -> dict:
    lease = held(members.lease_name("vm", pod), pod, **more)
    marks = members.marks("vm", layout or Layout(shards=4))
    lease["metadata"]["labels"] = marks["labels"]
    lease["metadata"]["annotations"].update(marks["annotations"])
    return lease


def pod(name: str, uid: str = "", **status: Any) -> dict:
    return {"metadata": {"name": name, "uid": uid or f"uid-{name}"}, "status": {"phase": "Running", **status}}


def terminated(name: str, container_id: str, uid: str = "", phase: str = "Running") -> dict:
    end = {"containerID": container_id, "finishedAt": "2026-01-31T12:00:09Z"}
    return pod(name, uid, phase=phase, containerStatuses=[{"name": "vm", "state": {"terminated": end}}])


def identity(name: str, run: str = "1a2b3c4d") -> str:
    return f"{name}_uid-{name}_{run}"


def table(*shards: tuple[str | None, str], layout: Layout | None = None) -> str:
    """Of (owner's name or identity, who is wanted)."""
    owners = tuple(
        None if who is None else Owner(who if "_" in who else identity(who), 100 + n)
        for n, (who, _w) in enumerate(shards)
    )
    return dump(Table(layout or Layout(shards=len(shards)), tuple(wanted for _o, wanted in shards), owners))


# ------------------------------------------------------------------------------------------ one Lease


def test_a_leader_of_ours() -> None:
    assert leadership.lease_report(held("op", "vm-0"), PodSight(pod("vm-0"))) == {
        "name": "op",
        "namespace": "ns",
        "state": "held",
        "holder": "vm-0_uid-vm-0_1a2b3c4d",
        "pod": "vm-0",
        "pod_uid": "uid-vm-0",
        "container": "vm",
        "container_id": "cri://1",
        "fence": 41,
        "since": NOW,
        "renewed": NOW,
        "seconds": 6,
        "until": "2026-01-31T12:00:06.000000Z",
        "ends_within": 6,
        "transitions": 1,
        "remark": None,
        "error": None,
    }


def test_a_leader_by_client_go() -> None:
    told = leadership.lease_report(CLIENT_GO, PodSight(pod("node-1", "another")))
    assert (told["state"], told["pod"], told["seconds"], told["transitions"]) == ("held", "node-1", 15, 7)
    assert (told["fence"], told["pod_uid"], told["container"], told["remark"], told["error"]) == (None,) * 5
    assert told["until"] == "2026-01-31T12:00:15.000000Z"
    assert not leadership.has_pod(CLIENT_GO)


def test_a_free_lease_tells_only_of_its_last_fence() -> None:
    told = leadership.lease_report(freed(held("op", "vm-0")))
    assert (told["state"], told["fence"], told["transitions"]) == ("free", 41, 1)
    empty = ("holder", "pod", "pod_uid", "container", "container_id", "since", "renewed", "until", "ends_within")
    assert [told[field] for field in empty] == [None] * len(empty)


def test_a_lease_with_nothing_in_it_is_free_and_nobody_is_known_to_have_had_it() -> None:
    told = leadership.lease_report({"metadata": {"name": "op", "namespace": "ns"}})
    assert (told["state"], told["fence"], told["transitions"], told["error"]) == ("free", None, 0, None)
    assert "when it has stayed free for 6 s" in told["remark"]
    assert leadership.lease_report(freed(held("op", "vm-0")))["remark"] is None


def test_what_client_go_gave_back_is_free() -> None:
    spec = {**CLIENT_GO["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
    told = leadership.lease_report({**CLIENT_GO, "spec": spec})
    assert (told["state"], told["remark"], told["since"], told["seconds"]) == ("free", None, None, 1)


def test_who_is_leaving_has_it_still() -> None:
    me = Identity("vm-0", "uid-vm-0", "1a2b3c4d", "vm")
    lease = election.renew(held("op", "vm-0"), me, NOW, is_leaving=True)
    assert lease is not None
    told = leadership.lease_report(lease, PodSight(pod("vm-0")))
    assert (told["state"], told["ends_within"], told["holder"]) == ("leaving", 6, str(me))


@pytest.mark.parametrize(
    ("seen", "state", "says"),
    [
        (PodSight(pod("vm-0")), "held", None),
        (PodSight(terminated("vm-0", "cri://0", phase="Failed")), "ended", "vm-0 has ended"),
        (PodSight(pod("vm-0", phase="Failed")), "held", None),
        (PodSight(terminated("vm-0", "cri://1")), "ended", "vm-0 has ended"),
        (PodSight(terminated("vm-0", "cri://0")), "held", None),
        (PodSight(None), "held", "no proof"),
        (PodSight(terminated("vm-0", "cri://1", "other", "Failed")), "held", "another one"),
        (PodSight(None, "403 Forbidden"), "held", "not known: 403 Forbidden"),
        (None, "held", None),
    ],
)
def test_only_the_kubelet_proves_an_end(seen: PodSight | None, state: str, says: str | None) -> None:
    told = leadership.lease_report(held("op", "vm-0"), seen)
    assert (told["state"], told["ends_within"]) == (state, {"held": 6, "ended": 0}[state])
    assert told["remark"] is None if says is None else says in told["remark"]


@pytest.mark.parametrize("fence", ["", "-1", "x", "1.5", "9" * 30])
def test_a_malformed_fence_is_told_beside_what_can_be_read(fence: str) -> None:
    lease = held("op", "vm-0")
    lease["metadata"]["annotations"][election.FENCE] = fence
    told = leadership.lease_report(lease)
    assert (told["holder"], told["fence"], told["container"]) == (identity("vm-0"), None, "vm")
    assert "muster.dev/fence" in told["error"] and "give a whole number" in told["error"]


@pytest.mark.parametrize("renewed", ["soon", "9999-12-31T23:59:59.000000Z"])
def test_a_renewal_that_is_no_time_to_reckon_with_has_no_end(renewed: str) -> None:
    lease = held("op", "vm-0")
    lease["spec"]["renewTime"] = renewed
    assert leadership.lease_report(lease)["until"] is None


# ------------------------------------------------------------------------------------------ shards


def report(text: str | None, *leases: dict, sights: Mapping[str, PodSight] | None = None) -> dict[str, Any]:
    return leadership.shards_report("vm", "ns", text, leases, sights or {})


def test_settled() -> None:
    told = report(table(("vm-0", "vm-0"), ("vm-1", "vm-1"), ("vm-1", "vm-1")), member("vm-1"), member("vm-0"))
    assert told["settled"] and told["handovers"] == [] and told["error"] is None
    assert told["counts"] == {"owned": 3, "revoked": 0, "orphaned": 0, "free": 0, "nobody": 0}
    assert told["layout"] == {"strategy": "stable", "shards": 3}
    assert [(m["pod"], m["ordinal"], m["owns"], m["wanted"]) for m in told["members"]] == [
        ("vm-0", 0, [0], [0]),
        ("vm-1", 1, [1, 2], [1, 2]),
    ]
    assert told["shards"][1] == {
        "shard": 1,
        "member": "vm-1",
        "owner": identity("vm-1"),
        "fence": 101,
        "wanted": "vm-1",
        "state": "owned",
    }


def test_each_step_of_a_hand_over() -> None:
    told = report(
        table(("vm-0", "vm-0"), ("vm-0", "vm-1"), (None, "vm-1"), ("vm-9", "vm-1"), (None, "")),
        member("vm-0"),
        member("vm-1"),
    )
    assert [one["state"] for one in told["shards"]] == ["owned", "revoked", "free", "orphaned", "nobody"]
    assert told["handovers"] == [
        {"shard": 1, "from": "vm-0", "to": "vm-1", "state": "revoked"},
        {"shard": 2, "from": None, "to": "vm-1", "state": "free"},
        {"shard": 3, "from": "vm-9", "to": "vm-1", "state": "orphaned"},
    ]
    assert not told["settled"]


def test_a_member_that_runs_anew_has_not_the_shards_of_its_former_run() -> None:
    told = report(table(("vm-0", "vm-0")), member("vm-0", run="ffffffff"))
    assert told["shards"][0]["state"] == "orphaned"
    assert (told["members"][0]["owns"], told["members"][0]["wanted"]) == ([], [0])


def test_a_member_that_has_ended_owns_nothing_any_more() -> None:
    sights = {"vm-0": PodSight(terminated("vm-0", "cri://1"))}
    told = report(table(("vm-0", "vm-0")), member("vm-0"), sights=sights)
    assert (told["members"][0]["state"], told["shards"][0]["state"]) == ("ended", "orphaned")


def test_a_member_that_is_leaving_owns_what_it_owns() -> None:
    lease = member("vm-0")
    lease["metadata"]["annotations"][election.LEAVING] = "true"
    told = report(table(("vm-0", "vm-1")), lease, member("vm-1"))
    assert (told["members"][0]["state"], told["shards"][0]["state"]) == ("leaving", "revoked")


def test_drained_for_another_layout() -> None:
    told = report(table(("vm-0", ""), (None, "")), member("vm-0", Layout("pod-num", 1)))
    assert [one["state"] for one in told["shards"]] == ["revoked", "nobody"]
    assert told["members"][0]["layout"] == {"strategy": "pod-num", "shards": 1}
    assert not told["settled"]


def test_no_table_yet() -> None:
    told = report(None, member("vm-0"))
    assert (told["layout"], told["shards"], told["settled"], told["error"]) == (None, [], False, None)
    assert len(told["members"]) == 1


def test_a_table_that_is_malformed_is_told_and_the_members_all_the_same() -> None:
    told = report('{"version": 2}', member("vm-0"))
    assert "data.table.version is 2" in told["error"]
    assert (told["layout"], told["shards"], len(told["members"])) == (None, [], 1)


def test_a_member_with_a_malformed_layout_is_told() -> None:
    lease = member("vm-0")
    lease["metadata"]["annotations"][members.LAYOUT] = "64"
    told = report(table(("vm-0", "vm-0")), lease)
    assert "muster.dev/layout" in told["members"][0]["error"] and told["members"][0]["layout"] is None
    assert told["settled"]


def test_members_are_in_the_order_of_their_numbers() -> None:
    told = report(None, *(member(f"vm-{n}") for n in (10, 9, 1)), member("vm-x2x7q"))
    assert [m["pod"] for m in told["members"]] == ["vm-1", "vm-9", "vm-10", "vm-x2x7q"]


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([0, 1], "0-1"), ([5, 1, 2, 3, 9, 8], "1-3,5,8-9")]
)
def test_ranges(numbers: list[int], text: str) -> None:
    assert leadership.ranges(numbers) == text

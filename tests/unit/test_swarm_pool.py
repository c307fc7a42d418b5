# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who the workers of a Swarm are, by example."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import swarm_pool
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Class, Scaling, Spec
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm_pool import (
    APPLIED,
    CAPACITY,
    DEPLOYMENT,
    PORT,
    STATEFUL_SET,
    Pod,
    Pool,
    Workload,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config, Entry, Hold
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

NOTHING, PLAIN = Config(), Spec()


def stateful(replicas: int, name: str = "w", **more: Any) -> Workload:
    return Workload(STATEFUL_SET, name, replicas, f"app={name}", **more)


def deployment(replicas: int, name: str = "d", **more: Any) -> Workload:
    return Workload(DEPLOYMENT, name, replicas, f"app={name}", **more)


def ready(*names: str) -> dict[str, Pod]:
    """Pods in the order in which they were made."""
    return {name: Pod(name, f"uid-{name}", f"{order:03}", is_ready=True) for order, name in enumerate(names)}


def having(**jobs: str) -> Config:
    """A configuration; `d_1` stands for the Pod `d-7d4b9c6f5-00001`."""
    return Config({pod_name(name): Entry(tuple(own), 1) for name, own in jobs.items()})


def pod_name(short: str) -> str:
    workload, _bar, number = short.partition("_")
    return f"{workload}-7d4b9c6f5-{number:0>5}" if workload == "d" else f"{workload}-{number}"


def pods_of(text: str) -> dict[str, Pod]:
    return ready(*map(pod_name, text.split()))


def names(pool: Pool) -> str:
    """The members, as they were written above."""
    return " ".join(short(member.name) for member in pool.members)


def short(name: str) -> str:
    workload, *_hash, number = name.split("-")
    return f"{workload}_{int(number)}"


def pool(
    workloads: Workload | list[Workload],
    pods: dict[str, Pod],
    config: Config = NOTHING,
    spec: Spec = PLAIN,
    **more: Any,
) -> Pool:
    return swarm_pool.pool(spec, workloads if isinstance(workloads, list) else [workloads], pods, config, **more)


# ------------------------------------------------------------------------------------------ StatefulSets


def test_at_first_every_ordinal_is_a_worker_whether_its_pod_is_there_or_not() -> None:
    assert names(pool(stateful(3), {})) == "w_0 w_1 w_2"
    assert names(pool(stateful(2, start=5), {})) == "w_5 w_6"


def test_a_pod_that_is_away_keeps_its_place() -> None:
    assert names(pool(stateful(2), pods_of("w_0"), having(w_0="a", w_1="b"))) == "w_0 w_1"


def test_new_ones_become_workers_when_all_of_them_are_ready() -> None:
    config = having(w_0="ab", w_1="cd")
    one = pool(stateful(4), pods_of("w_0 w_1 w_2"), config)
    assert names(one) == "w_0 w_1" and one.coming == {"w-2"}
    assert names(pool(stateful(4), pods_of("w_0 w_1 w_2 w_3"), config)) == "w_0 w_1 w_2 w_3"


def test_those_that_came_are_not_kept_waiting_for_ever_by_one_that_does_not() -> None:
    found = pool(stateful(4), pods_of("w_0 w_1 w_2"), having(w_0="ab", w_1="cd"), is_patient=False)
    assert names(found) == "w_0 w_1 w_2"


def test_a_new_one_for_which_jobs_are_on_their_way_stays_a_worker_when_its_pod_is_not_ready_for_a_moment() -> None:
    config = Config({"w-0": Entry(("a",), 1)}, {"w-1": Hold(awaits=True)})
    pods = {**pods_of("w_0"), "w-1": Pod("w-1", "u")}
    assert names(pool(stateful(2), pods, config)) == "w_0 w_1"


def test_those_that_are_scaled_away_are_the_highest_ordinals() -> None:
    assert names(pool(stateful(1), pods_of("w_0 w_1"), having(w_0="a", w_1="b"))) == "w_0"


def test_the_operator_takes_those_first_that_it_is_going_to_scale_away() -> None:
    assert names(pool(stateful(3), pods_of("w_0 w_1 w_2"), having(w_0="a", w_1="b", w_2="c"), wanted=2)) == "w_0 w_1"


# ------------------------------------------------------------------------------------------ Deployments


def test_a_deployments_workers_are_its_pods() -> None:
    assert names(pool(deployment(2), pods_of("d_1 d_2 x_3"))) == "d_1 d_2"


def test_of_more_pods_than_replicas_those_that_have_jobs_are_workers() -> None:
    assert names(pool(deployment(2), pods_of("d_3 d_1 d_2"), having(d_1="ab", d_2="cd"))) == "d_1 d_2"


def test_a_pod_that_ends_leaves_its_share_to_the_next_that_is_ready() -> None:
    pods = pods_of("d_1 d_2 d_3")
    pods[pod_name("d_1")] = pods[pod_name("d_1")]._replace(is_ending=True)
    found = pool(deployment(2), pods, having(d_1="ab", d_2="cd"))
    assert names(found) == "d_2 d_3"
    assert found.successors == {pod_name("d_1"): pod_name("d_3")}


def test_a_place_is_kept_until_its_successor_is_ready() -> None:
    pods = pods_of("d_2 d_3")
    pods[pod_name("d_3")] = pods[pod_name("d_3")]._replace(is_ready=False)
    found = pool(deployment(2), pods, having(d_1="ab", d_2="cd"))
    assert names(found) == "d_2 d_1" and found.vacant == {pod_name("d_1")}


def test_a_place_is_given_up_after_the_grace_time() -> None:
    found = pool(deployment(2), pods_of("d_2"), having(d_1="ab", d_2="cd"), expired=[pod_name("d_1")])
    assert names(found) == "d_2" and not found.vacant


def test_a_share_that_was_let_go_for_its_successor_is_still_his() -> None:
    """Two Pods are replaced at once, and one of the new ones is ready."""
    config = Config(
        {pod_name("d_1"): Entry((), 2), pod_name("d_2"): Entry(("c", "d"), 1)},
        {pod_name("d_1"): Hold({"a": 2, "b": 2}), pod_name("d_8"): Hold(awaits=True)},
    )
    found = pool(deployment(2), pods_of("d_8"), config)
    assert names(found) == "d_8 d_2", "one place is kept for who is still to come, and it is not that of d_1"
    assert found.successors == {pod_name("d_1"): pod_name("d_8")} and found.vacant == {pod_name("d_2")}
    other = Config(config.entries, {pod_name("d_1"): Hold({"a": 2, "b": 2})})
    found = pool(deployment(2), pods_of("d_8"), other)
    assert found.successors == {pod_name("d_1"): pod_name("d_8")} and found.vacant == {pod_name("d_2")}


def test_a_new_one_for_which_jobs_are_on_their_way_is_nobodys_successor() -> None:
    config = Config({pod_name("d_1"): Entry(("a",), 2), pod_name("d_2"): Entry(("c",), 1)},
                    {pod_name("d_1"): Hold({"b": 2}), pod_name("d_3"): Hold(awaits=True)})  # fmt: skip
    found = pool(deployment(3), pods_of("d_2 d_3"), config)
    assert names(found) == "d_2 d_3 d_1" and not found.successors and found.vacant == {pod_name("d_1")}


def test_a_rollout_that_scales_down_gives_nobody_the_share_of_the_pod_that_goes() -> None:
    pods = pods_of("d_1 d_2")
    pods[pod_name("d_2")] = pods[pod_name("d_2")]._replace(is_ending=True)
    found = pool(deployment(1), pods, having(d_1="ab", d_2="cd"))
    assert names(found) == "d_1" and not found.successors and not found.vacant


def test_new_pods_that_only_enlarge_the_pool_come_together() -> None:
    config = having(d_1="abcd")
    pods = pods_of("d_1 d_2 d_3")
    pods[pod_name("d_3")] = pods[pod_name("d_3")]._replace(is_ready=False)
    found = pool(deployment(3), pods, config)
    assert names(found) == "d_1" and found.coming == {pod_name("d_2")}
    assert names(pool(deployment(3), pods, config, is_patient=False)) == "d_1 d_2"
    assert names(pool(deployment(3), pods_of("d_1 d_2 d_3"), config)) == "d_1 d_2 d_3"


def test_a_pod_that_has_ended_is_no_worker() -> None:
    pods = pods_of("d_1 d_2")
    pods[pod_name("d_2")] = pods[pod_name("d_2")]._replace(has_ended=True)
    assert names(pool(deployment(2), pods, is_patient=False)) == "d_1"


def test_stateful_sets_and_deployments_are_one_pool() -> None:
    assert names(pool([stateful(1), deployment(1)], pods_of("d_1 w_0"))) == "d_1 w_0"


def test_the_names_of_anothers_pods_are_not_taken_for_ones_own() -> None:
    assert stateful(1).owns("w-10") and not stateful(1).owns("w-x-1") and not stateful(1).owns("w-1-x")
    assert (
        deployment(1).owns("d-7d4b9c6f5-abcde")
        and not deployment(1).owns("d-1")
        and not deployment(1).owns("xd-7-abcde")
    )


# ------------------------------------------------------------------------------------------ classes, capacity, zones


def test_a_worker_takes_the_classes_whose_labels_its_template_has() -> None:
    spec = Spec(
        classes=(
            Class("gpu", {"matchLabels": {"gpu": "yes"}}, exclusive=True),
            Class("disk", {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}),
        )
    )

    def takes(**labels: str) -> set[str]:
        return set(pool(stateful(1, labels=labels), {}, spec=spec).members[0].takes)

    assert takes() == {""}
    assert takes(disk="ssd") == {"", "disk"}
    assert takes(gpu="yes") == {"gpu"}
    assert takes(gpu="yes", disk="ssd") == {"gpu"}


def test_the_capacity_of_a_template_counts_more_than_that_of_the_swarm() -> None:
    spec = Spec(capacity=9)
    workloads = [stateful(1), stateful(1, name="x", annotations={CAPACITY: "3"})]
    assert [member.capacity for member in pool(workloads, {}, spec=spec).members] == [9, 3]


def test_the_zone_is_the_pods_or_where_it_was_seen_last() -> None:
    config = Config({"w-0": Entry(("a",)), "w-1": Entry(("b",))}, {"w-0": Hold(zone="z1"), "w-1": Hold(zone="z2")})
    pods = {"w-0": Pod("w-0", "u", zone="z9", is_ready=True)}
    assert [member.zone for member in pool(stateful(2), pods, config).members] == ["z9", "z2"]


# ------------------------------------------------------------------------------------------ what was seen


def test_whether_a_worker_reports_is_said_by_its_pod_and_where_it_has_none_by_its_workload() -> None:
    workload = stateful(2, annotations={PORT: "8390"})
    pods = {"w-0": Pod("w-0", "u", is_ready=True)}
    assert pool(workload, pods).reports == {"w-1"}, "the Pod of w-0 was made before the annotation"


def test_what_a_worker_is_seen_to_run_is_what_its_pod_has_told() -> None:
    pods = {
        "w-0": Pod("w-0", "u0", is_ready=True, reports=True),
        "w-1": Pod("w-1", "u1", is_ready=True, reports=True, said="u1:7"),
        "w-2": Pod("w-2", "u2", is_ready=True, reports=True, said="u-of-another:7"),
    }
    found = pool(stateful(3), pods)
    sights = swarm_pool.sights(found, Config(), pods, {"u0": 3}, lingering=["w-2"], overdue=["w-1"])
    assert {name: sight.applied for name, sight in sights.items()} == {"w-0": 3, "w-1": 7, "w-2": None}
    assert sights["w-2"].lingers and sights["w-1"].is_overdue


def test_a_pod_that_has_ended_counts_as_gone() -> None:
    pods = {"w-0": Pod("w-0", "u0", has_ended=True)}
    sight = swarm_pool.sights(pool(stateful(1), pods), Config(), pods, {})["w-0"]
    assert sight.uid == "" and not sight.lingers


def test_a_worker_that_is_only_in_the_configuration_is_seen_too() -> None:
    config = having(w_0="a", w_7="b")
    pods = pods_of("w_0 w_7")
    sights = swarm_pool.sights(pool(stateful(1), pods, config), config, pods, {})
    assert sorted(sights) == ["w-0", "w-7"]


def test_under_a_deployments_name_no_other_pod_comes() -> None:
    config = having(d_1="a", d_2="b", w_0="c")
    pods = pods_of("d_1 w_0")
    found = pool([deployment(2), stateful(1)], pods, config)
    sights = swarm_pool.sights(found, config, pods, {})
    assert {short(name): sight.comes_back for name, sight in sights.items()} == {
        "d_1": False,
        "d_2": False,
        "w_0": True,
    }


# ------------------------------------------------------------------------------------------ scaling


def test_how_many_replicas_are_wanted() -> None:
    one = [stateful(3)]
    assert swarm_pool.target(Spec(), 10, one) is None
    assert swarm_pool.target(Spec(replicas=0), 10, one) == 0
    by_jobs = Spec(scaling=Scaling(4, 1, 5))
    assert [swarm_pool.target(by_jobs, jobs, one) for jobs in (0, 4, 5, 100)] == [1, 1, 2, 5]


@pytest.mark.parametrize("workloads", [[], [stateful(1), deployment(1)]])
def test_who_scales_has_to_know_what(workloads: list[Workload]) -> None:
    with pytest.raises(Malformed, match=r"spec\.replicas is .*: it scales one workload"):
        swarm_pool.target(Spec(replicas=3), 1, workloads)
    with pytest.raises(Malformed, match=r"spec\.scaling is "):
        swarm_pool.target(Spec(scaling=Scaling(1, 1, 1)), 1, workloads)


def test_it_scales_up_at_once_and_down_when_the_last_have_let_go() -> None:
    config = having(w_0="a", w_1="b", w_2="c")
    assert swarm_pool.scale_to(Spec(replicas=4), 3, [stateful(3)], config) == 4
    assert swarm_pool.scale_to(Spec(replicas=3), 3, [stateful(3)], config) is None
    assert swarm_pool.scale_to(Spec(replicas=1), 3, [stateful(3)], config) is None
    told = Config({"w-0": Entry(("a", "b", "c")), "w-1": Entry((), 2)}, {"w-1": Hold({"b": 2})})
    assert swarm_pool.scale_to(Spec(replicas=1), 3, [stateful(3)], told) is None
    assert swarm_pool.scale_to(Spec(replicas=1), 3, [stateful(3)], Config({"w-0": Entry(("a", "b", "c"))})) == 1
    assert swarm_pool.scale_to(Spec(replicas=1), 3, [deployment(3)], config) == 1, "it can't be said which ones go"


# ------------------------------------------------------------------------------------------ as the API has them


def workload_object(**spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"app": "w"}, "annotations": {PORT: "8390"}}}
    whole = {"selector": {"matchLabels": {"app": "w"}}, "template": template, **spec}
    return {"kind": "StatefulSet", "metadata": {"name": "w"}, "spec": whole}


def test_a_workload_is_read() -> None:
    read = swarm_pool.read_workload(workload_object(replicas=0, ordinals={"start": 4}))
    assert read == Workload("StatefulSet", "w", 0, "app=w", 4, {"app": "w"}, {PORT: "8390"})
    assert read.reports
    assert swarm_pool.read_workload(workload_object(template={})).replicas == 1


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "two", "٣"])
def test_a_capacity_that_is_no_number_is_refused_with_the_objects_name(text: str) -> None:
    obj = workload_object(template={"metadata": {"annotations": {CAPACITY: text}}})
    with pytest.raises(Malformed, match=r"StatefulSet w: spec\.template.*give a whole number from 1"):
        swarm_pool.read_workload(obj)


def pod_object(status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    known = {"name": "w-0", "uid": "u", "creationTimestamp": "2026-01-31T12:00:00Z"}
    return {"metadata": {**known, **metadata}, "status": status or {}}


READY = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.7", "phase": "Running"}


def test_a_pod_is_read() -> None:
    labels = {"topology.kubernetes.io/zone": "z1", "rack": "r2"}
    notes = {PORT: "8390", APPLIED: "u:4"}
    read = swarm_pool.read_pod(pod_object(READY, labels=labels, annotations=notes))
    assert read == Pod(
        "w-0", "u", "2026-01-31T12:00:00Z", True, zone="z1", address="10.0.0.7:8390", said="u:4", reports=True
    )
    assert swarm_pool.said_version(read) == 4
    assert swarm_pool.read_pod(pod_object(labels=labels), "rack").zone == "r2"
    assert swarm_pool.read_pod(pod_object(deletionTimestamp="2026-01-31T12:00:00Z")).is_ending


@pytest.mark.parametrize(
    ("ip", "port", "address"),
    [
        ("10.0.0.7", "8390", "10.0.0.7:8390"),
        ("fd00::7", "8390", "[fd00::7]:8390"),
        ("", "8390", ""),
        ("10.0.0.7", "http", ""),
    ],
)
def test_the_address_of_a_pods_page(ip: str, port: str, address: str) -> None:
    assert swarm_pool.read_pod(pod_object({"podIP": ip}, annotations={PORT: port})).address == address


@pytest.mark.parametrize(
    ("phase", "states", "has_ended"),
    [
        ("Running", ["running"], False),
        ("Failed", ["terminated"], True),
        ("Succeeded", ["terminated", "terminated"], True),
        ("Failed", ["terminated", "running"], False),  # of a node that is lost: the phase was written by somebody else
        ("Failed", [], True),
        ("Running", ["terminated"], False),
    ],
)
def test_a_phase_alone_is_no_end(phase: str, states: list[str], has_ended: bool) -> None:
    status = {"phase": phase, "containerStatuses": [{"state": {state: {}}} for state in states]}
    assert swarm_pool.read_pod(pod_object(status)).has_ended is has_ended


@pytest.mark.parametrize("said", ["", "u", "u:", "u:x", ":3", "other:3", "u:-1"])
def test_a_version_that_is_another_pods_or_none_is_not_believed(said: str) -> None:
    assert swarm_pool.said_version(Pod("w-0", "u", said=said)) is None

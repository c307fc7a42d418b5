# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster swarm-operator` as a real process, at a real API server: what people see of it, by example.

The Pods are those of real StatefulSets and Deployments; their kubelet and their workers are the lab's. Each test has a
workload, a Swarm and a ConfigMap of its own name, in one namespace with one operator. That operators may die at any
moment is the part of test_swarm_storm.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, EVENTS, NAMESPACES, Api
from ansible_collections.muster.coordination.tests.support.nursery import Replica
from ansible_collections.muster.coordination.tests.support.swarm_lab import HEAD, Lab
from ansible_collections.muster.coordination.tests.support.swarm_pods import DEAF
from ansible_collections.muster.coordination.tests.support.vm_lab import make_namespace

pytestmark = pytest.mark.integration


class Site(Lab):
    """A lab with one operator."""

    operator: Replica

    def logged(self, words: str) -> bool:
        return words in self.operator.files.with_suffix(".log").read_text()


@pytest.fixture(scope="module")
def site(api: Api, kubeconfig: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    namespace = make_namespace(api, "swarm")
    site = Site(api, namespace)
    nursery = site.operators(tmp_path_factory.mktemp("operators"), kubeconfig)
    site.operator = nursery.start("operator-0")
    try:
        yield site
        nursery.end()
        assert site.operator.process.exitcode == 0, site.operator.log()
    finally:
        site.close()
        api.delete(NAMESPACES, namespace)


class Pool:
    """A workload, the Swarm that places jobs on its Pods, and a ConfigMap with the jobs, all of one name."""

    def __init__(self, site: Site, name: str) -> None:
        self.site, self.name = site, name

    def workers(self, replicas: int, name: str = "", **workload: Any) -> None:
        labels = {"swarm": self.name, **workload.pop("labels", {})}
        self.site.workload(name or self.name, replicas, head=self.name, labels=labels, **workload)

    def swarm(self, **spec: Any) -> None:
        selector = {"selector": {"matchLabels": {"swarm": self.name}}}
        source = {} if "jobs" in spec else {"jobsFrom": [{"configMap": f"{self.name}-jobs"}]}
        self.site.swarm(self.name, **{"workers": selector, "configMap": self.name, **source, **spec})

    def jobs(self, jobs: Iterable[Any]) -> None:
        self.site.jobs(f"{self.name}-jobs", jobs)

    def edit(self, **spec: Any) -> None:
        self.site.edit(self.name, **spec)

    def converged(self, jobs: Iterable[str] | None = None, workers: int | None = None) -> dict[str, int]:
        return self.site.converged(self.name, jobs=jobs, workers=workers)

    @property
    def status(self) -> dict[str, Any]:
        return self.site.status(self.name)

    def condition(self, kind: str) -> dict[str, Any]:
        found = [each for each in self.status.get("conditions") or [] if each["type"] == kind]
        return found[0] if found else {}

    def lists(self) -> dict[str, frozenset[str]]:
        return {worker: entry.jobs for worker, entry in self.site.entries(self.name).items()}

    def versions(self) -> dict[str, int]:
        return {worker: entry.version for worker, entry in self.site.entries(self.name).items()}

    def evicted(self) -> list[str]:
        return [worker for worker in self.site.evicted if worker.startswith(f"{self.name}-")]

    def events(self) -> dict[str, str]:
        """Reasons and messages of the Events about the Swarm."""
        about = f"involvedObject.kind=Swarm,involvedObject.name={self.name}"
        listed = self.site.api.list(EVENTS, self.site.namespace, field_selector=about).items
        return {event["reason"]: event["message"] for event in listed}

    def until(self, true: Callable[[], Any], what: str) -> None:
        self.site.until(true, what)

    def page(self, path: str, **query: str) -> tuple[int, Any]:
        asked = {"swarm": f"{self.site.namespace}/{self.name}", **query}
        return self.site.page(self.site.operator, f"{path}?{'&'.join(f'{key}={each}' for key, each in asked.items())}")

    def refused(self, words: str) -> None:
        """Wait until its condition says so."""
        self.until(lambda: words in self.condition("Degraded").get("message", ""), f"a refusal with {words}")
        assert [self.condition(kind)["status"] for kind in ("Ready", "Degraded")] == ["False", "True"]


@pytest.fixture
def pool(site: Site, request: pytest.FixtureRequest) -> Iterator[Pool]:
    name = request.node.name.removeprefix("test_").partition("[")[0].replace("_", "-")[:30].strip("-")
    pool = Pool(site, name)
    yield pool
    site.remove(name)


def names(count: int, prefix: str = "stream:") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


# ------------------------------------------------------------------------------------------ jobs and workers


def test_27_jobs_on_two_workers_then_three_then_one(pool: Pool) -> None:
    jobs, name = names(27), pool.name
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    assert pool.converged(jobs, 2) == {f"{name}-0": 14, f"{name}-1": 13}
    assert set(pool.versions().values()) == {0}
    before = pool.lists()
    pool.site.scale(name, 3)
    assert pool.converged(jobs, 3) == {f"{name}-{number}": 9 for number in range(3)}
    assert all(pool.lists()[worker] < before[worker] for worker in before), "jobs go to the new one only"
    rebalance = pool.status["rebalance"]
    assert rebalance["moves"] == rebalance["leastMoves"] == 9
    assert rebalance["restarts"] == rebalance["leastRestarts"] == 2
    pool.site.scale(name, 1)
    assert pool.converged(jobs, 1) == {f"{name}-0": 27}
    assert pool.evicted() == [] and pool.condition("Ready")["status"] == "True"
    pool.until(lambda: {"Rebalanced", "Converged"} <= pool.events().keys(), "Events about it")
    assert pool.site.judge(pool.name) == []


def test_edited_jobs_touch_only_the_workers_that_they_must(pool: Pool) -> None:
    jobs, name = names(12), pool.name
    pool.jobs(jobs)
    pool.workers(4)
    pool.swarm()
    pool.converged(jobs, 4)
    before = pool.lists()
    begun = {line.run for line in pool.site.records[name].lines()}
    gone = min(before[f"{name}-2"])
    pool.jobs([job for job in jobs if job != gone])
    pool.converged(set(jobs) - {gone}, 4)
    assert pool.versions() == {f"{name}-{number}": int(number == 2) for number in range(4)}
    pool.jobs([*(job for job in jobs if job != gone), "one more", "and another"])
    pool.converged((set(jobs) - {gone}) | {"one more", "and another"}, 4)
    assert pool.versions() == {f"{name}-{number}": 2 * (number == 2) for number in range(4)}, "it has changed anyway"
    kept = {worker: before[worker] & after for worker, after in pool.lists().items()}
    lines = pool.site.records[name].lines()
    ended = {(line.worker, line.job) for line in lines if line.event == "end"}
    assert ended == {(f"{name}-2", gone)}, "nobody ends what it keeps"
    assert sum(map(len, kept.values())) == 11
    assert {line.run for line in lines} == begun


def test_a_pod_that_comes_back_keeps_its_jobs(pool: Pool) -> None:
    """A StatefulSet's; also while others are on their way."""
    jobs, name = names(8), pool.name
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged(jobs, 2)
    before, uid = pool.site.entries(name), pool.site.containers[f"{name}-0"].uid
    pool.site.delete_pod(f"{name}-0")
    pool.until(lambda: pool.site.is_ready(f"{name}-0", other_than=uid), "another Pod of the same name")
    assert pool.converged(jobs, 2) == {f"{name}-0": 4, f"{name}-1": 4}
    assert pool.site.entries(name) == before


def test_a_deployments_successor_takes_over_the_whole_share(pool: Pool) -> None:
    """And while there is none, its place is kept for `graceSeconds`; then the others have its jobs."""
    jobs = names(9)
    pool.jobs(jobs)
    pool.workers(3, kind="Deployment")
    pool.swarm(graceSeconds=600)
    pool.converged(jobs, 3)
    before = pool.lists()
    victim = min(before)
    pool.site.delete_pod(victim)
    pool.until(lambda: victim not in pool.lists(), "its entry to go")
    pool.converged(jobs, 3)
    after = pool.lists()
    (successor,) = after.keys() - before.keys()
    assert after == {**{each: before[each] for each in after.keys() & before.keys()}, successor: before[victim]}
    pool.edit(graceSeconds=1)
    pool.site.room.clear()  # no node for another Pod
    pool.site.delete_pod(successor)
    assert sorted(pool.converged(jobs, 2).values()) == [4, 5]
    assert all(after[worker] < own for worker, own in pool.lists().items())
    pool.site.room.set()
    assert sorted(pool.converged(jobs, 3).values()) == [3, 3, 3]
    assert pool.site.judge(pool.name) == []


# ------------------------------------------------------------------------------------------ workers that don't report


def test_silent_workers_are_restarted_only_where_their_list_changed(pool: Pool) -> None:
    """One at a time, as `maxUnavailable` says; others keep their Pods."""
    jobs, name = names(12), pool.name
    pool.jobs(jobs)
    pool.workers(4, reports=False)
    pool.swarm()
    pool.converged(jobs, 4)
    assert pool.site.away[name] <= 1
    uids, evictions = {worker: each.uid for worker, each in pool.site.containers.items()}, len(pool.evicted())
    changed = {f"{name}-1", f"{name}-3"}
    lists = pool.lists()
    dropped = {min(lists[worker]) for worker in changed}
    pool.jobs(sorted(set(jobs) - dropped))
    pool.converged(set(jobs) - dropped, 4)
    assert sorted(pool.evicted()[evictions:]) == sorted(changed)
    own = {worker: each for worker, each in pool.site.containers.items() if worker in lists}
    assert {worker for worker, each in own.items() if each.uid != uids[worker]} == changed
    assert pool.site.away[name] <= 1
    pool.until(lambda: "WorkerEvicted" in pool.events(), "an Event about it")
    assert pool.site.judge(pool.name) == []


def test_a_disruption_budget_is_honoured(pool: Pool) -> None:
    jobs, name = names(6), pool.name
    pool.jobs(jobs)
    pool.workers(3, reports=False)
    pool.swarm(maxUnavailable=3)
    pool.converged(jobs, 3)
    pool.site.budget(name, 0)
    before = pool.evicted()
    pool.jobs(jobs[1:])
    pool.until(lambda: pool.site.refused_evictions(f"{name}-"), "an eviction to be refused")
    (worker,) = {worker for worker, own in pool.lists().items() if len(own) == 1}
    pool.until(lambda: pool.status.get("waitsFor", {}).get("worker") == worker, "its status to name the worker")
    assert pool.evicted() == before
    pool.site.budget(name, 1)
    pool.converged(jobs[1:], 3)
    assert pool.evicted() == [*before, worker]


def test_a_worker_that_never_confirms_is_restarted(pool: Pool) -> None:
    jobs, name = names(6), pool.name
    pool.jobs(jobs)
    pool.workers(2, annotations={DEAF: "true"})
    pool.swarm(confirmSeconds=1)
    pool.converged(jobs, 2)
    before = pool.evicted()
    worker = next(worker for worker, own in pool.lists().items() if jobs[0] in own)
    pool.jobs(jobs[1:])
    pool.until(lambda: pool.status.get("waitsFor", {}).get("worker") == worker, "its status to name the worker")
    pool.converged(jobs[1:], 2)
    assert pool.evicted() == [*before, worker]
    assert worker.startswith(name)


def test_with_refresh_reload_nobody_is_evicted(pool: Pool) -> None:
    """Though they don't report: that is for workers which are restarted by somebody else."""
    jobs, name = names(4), pool.name
    pool.jobs(jobs)
    pool.workers(2, reports=False)
    pool.swarm(refresh="reload")
    pool.until(lambda: sorted(map(len, pool.lists().values())) == [2, 2], "all to be placed")
    pool.until(lambda: pool.status.get("waitsFor"), "the status to tell that it waits")
    assert pool.evicted() == []
    assert name in pool.status["waitsFor"]["worker"]


# ------------------------------------------------------------------------------------------ it scales the pool


def test_it_scales_the_pool_and_drains_who_is_to_go(pool: Pool) -> None:
    jobs, name = names(12), pool.name
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm(replicas=4)
    assert pool.converged(jobs, 4) == {f"{name}-{number}": 3 for number in range(4)}
    pool.edit(replicas=2)
    pool.until(lambda: pool.site.is_gone(f"{name}-2") and pool.site.is_gone(f"{name}-3"), "two Pods to go")
    assert pool.converged(jobs, 2) == {f"{name}-0": 6, f"{name}-1": 6}
    assert {worker: pool.site.ran_at_the_end[worker] for worker in (f"{name}-2", f"{name}-3")} == {
        f"{name}-2": 0,
        f"{name}-3": 0,
    }, "they had let go of all before they went"
    pool.edit(replicas=None, scaling={"jobsPerWorker": 4, "min": 1, "max": 5})
    assert sorted(pool.converged(jobs, 3).values()) == [4, 4, 4]
    pool.jobs([*jobs, *names(20, "more:")])
    assert sorted(pool.converged([*jobs, *names(20, "more:")], 5).values()) == [6, 6, 6, 7, 7], "32 / 4, but 5 at most"
    pool.jobs(jobs[:2])
    assert pool.converged(jobs[:2], 1) == {f"{name}-0": 2}
    pool.until(lambda: "Scaled" in pool.events(), "an Event about it")
    assert pool.site.judge(pool.name) == []


def test_it_scales_one_workload_only(pool: Pool) -> None:
    pool.jobs(names(3))
    pool.workers(1)
    pool.workers(1, f"{pool.name}-b")
    pool.swarm(replicas=4)
    pool.refused("have workers.selector select exactly one")
    assert pool.lists() == {}


# ------------------------------------------------------------------------------------------ hands in the ConfigMap


def test_a_configmap_that_was_deleted_is_had_again_without_an_overlap(pool: Pool) -> None:
    jobs = names(9)
    pool.jobs(jobs)
    pool.workers(3)
    pool.swarm()
    pool.converged(jobs, 3)
    pool.jobs(jobs[:-1])
    pool.converged(jobs[:-1], 3)
    before = pool.versions()
    pool.site.api.delete(CONFIGMAPS, pool.name, pool.site.namespace)
    pool.until(lambda: min(pool.versions().values(), default=0) > max(before.values()), "it to be there again")
    pool.converged(jobs[:-1], 3)
    assert pool.site.judge(pool.name) == []


def test_what_nobody_can_read_is_named_and_left_alone(pool: Pool) -> None:
    jobs = names(4)
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged(jobs, 2)
    good = pool.site.api.get(CONFIGMAPS, pool.name, pool.site.namespace)["data"]
    for text, words in (
        ("workloads: [", "config.yml"),
        (f"workloads: {{{pool.name}-0: {{jobs: [a, a], version: 3}}}}", "name each job once"),
    ):
        pool.site.change(CONFIGMAPS, pool.name, lambda obj, text=text: obj["data"].update({"config.yml": text}))
        pool.refused(words)
        assert pool.site.api.get(CONFIGMAPS, pool.name, pool.site.namespace)["data"]["config.yml"] == text
    pool.until(lambda: "Refused" in pool.events(), "an Event about it")
    pool.site.change(CONFIGMAPS, pool.name, lambda obj: obj.update(data=good))
    pool.until(lambda: pool.condition("Degraded")["status"] == "False", "it to be well again")
    pool.converged(jobs, 2)


def test_a_list_that_was_edited_by_hand_is_put_right(pool: Pool) -> None:
    """What was added is believed to be run, until the worker says a version without it."""
    jobs = names(4)
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged(jobs, 2)
    text = pool.site.api.get(CONFIGMAPS, pool.name, pool.site.namespace)["data"]["config.yml"]
    edited = text.replace("    jobs:\n", "    jobs:\n      - by-hand\n", 1)
    pool.site.change(CONFIGMAPS, pool.name, lambda obj: obj["data"].update({"config.yml": edited}))
    pool.until(lambda: not any("by-hand" in own for own in pool.lists().values()), "it to be taken out")
    pool.converged(jobs, 2)


def test_jobs_that_make_no_sense_are_named_and_nothing_changes(pool: Pool) -> None:
    jobs = names(4)
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged(jobs, 2)
    before = pool.lists()
    pool.jobs([*jobs, jobs[0]])
    pool.refused("name each job once")
    pool.jobs([*jobs, {"name": "x", "wieght": 2}])
    pool.refused("wieght")
    assert pool.lists() == before
    pool.jobs([*jobs, "new"])
    pool.converged([*jobs, "new"], 2)


def test_a_configmap_belongs_to_one_swarm(pool: Pool) -> None:
    jobs, rival = names(4), Pool(pool.site, f"{pool.name}-too")
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged(jobs, 2)
    before = pool.lists()
    rival.jobs(["theirs"])
    rival.workers(1)
    rival.swarm(configMap=pool.name)
    rival.refused(f"Swarm/{pool.name} keeps this ConfigMap")
    assert pool.lists() == before
    rival.edit(configMap=rival.name)
    rival.converged(["theirs"], 1)
    pool.site.remove(rival.name)


def test_while_it_is_paused_nothing_changes(pool: Pool) -> None:
    jobs, name = names(6), pool.name
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged(jobs, 2)
    before = pool.lists()
    pool.edit(paused=True)
    pool.until(lambda: pool.condition("Progressing").get("reason") == "Paused", "the status to say so")
    pool.jobs(jobs[:3])
    pool.site.scale(name, 3)
    pool.until(lambda: pool.site.is_ready(f"{name}-2"), "the third Pod")
    pool.edit(graceSeconds=31)
    generation = pool.site.generation(name)
    pool.until(lambda: pool.status["observedGeneration"] == generation, "the operator to look once more")
    assert pool.lists() == before
    pool.edit(paused=None)
    assert sorted(pool.converged(jobs[:3], 3).values()) == [1, 1, 1]


# ------------------------------------------------------------------------------------------ not every worker fits


def test_classes_capacity_and_dedicated_jobs_and_who_has_no_worker(pool: Pool) -> None:
    name = pool.name
    plain = names(6)
    encoders = [{"name": job, "class": "gpu"} for job in names(4, "gpu:")]
    pool.jobs([*plain, *encoders, {"name": "vip", "dedicated": True}])
    pool.workers(3)
    pool.workers(1, f"{name}-gpu", pod_labels={"gpu": "yes"}, annotations={"muster.dev/capacity": "3"})
    classes = [{"name": "gpu", "workers": {"matchLabels": {"gpu": "yes"}}, "exclusive": True}]
    pool.swarm(classes=classes)
    pool.until(lambda: pool.status.get("unplaced") == 1, "one job to find no place")
    pool.until(lambda: pool.status.get("converged"), "all others to be placed")
    lists = pool.lists()
    assert {"vip"} in lists.values()
    assert sorted(len(own) for own in lists.values()) == [1, 3, 3, 3]
    gpu = lists[f"{name}-gpu-0"]
    assert gpu < {job["name"] for job in encoders}
    (left,) = {job["name"] for job in encoders} - gpu
    (unschedulable,) = pool.status["unschedulable"]
    assert unschedulable["job"] == left and f"{name}-gpu-0" in unschedulable["reason"]
    assert left in pool.condition("Degraded")["message"]
    pool.until(lambda: left in pool.events().get("Unschedulable", ""), "an Event about it")
    pool.site.scale(f"{name}-gpu", 2)
    pool.converged([*plain, *(job["name"] for job in encoders), "vip"], 5)
    assert pool.status["unschedulable"] == [] and pool.condition("Degraded")["status"] == "False"


def test_weights_are_balanced(pool: Pool) -> None:
    jobs = [{"name": f"job-{weight}", "weight": weight} for weight in (8, 7, 6, 5, 4)]
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged([job["name"] for job in jobs], 2)
    loads = {each["name"]: each["load"] for each in pool.status["pool"]}
    assert sum(loads.values()) == 30 and max(loads.values()) - min(loads.values()) <= 8
    assert pool.status["rebalance"]["method"] == "weighted"


def test_more_than_a_configmap_holds_is_split_over_several(pool: Pool) -> None:
    """1.4 MiB of names. That as few as can be move, and that none is ever shown twice, holds over all parts."""
    jobs, name = [f"{'x' * 240}{number:06}" for number in range(6000)], pool.name
    for number in range(2):
        pool.site.jobs(f"{name}-jobs-{number}", jobs[number::2])
    pool.workers(3)
    pool.swarm(jobsFrom=[{"configMap": f"{name}-jobs-{number}"} for number in range(2)])
    assert sorted(pool.converged(jobs, 3).values()) == [2000, 2000, 2000]
    assert pool.status["configMaps"] == len(pool.site.chronicle.parts[name]) == 3
    pool.site.scale(name, 4)
    assert sorted(pool.converged(jobs, 4).values()) == [1500] * 4
    rebalance = pool.status["rebalance"]
    assert rebalance["moves"] == rebalance["leastMoves"] == 1500
    assert pool.site.judge(pool.name) == []


# ------------------------------------------------------------------------------------------ pages


def test_the_pages_tell_how_it_stands_and_why(pool: Pool) -> None:
    jobs, name = names(5), pool.name
    pool.jobs(jobs)
    pool.workers(2)
    pool.swarm()
    pool.converged(jobs, 2)
    key = f"{pool.site.namespace}/{name}"
    state = pool.site.page(pool.site.operator, "/state")[1][key]
    assert (state["converged"], state["jobs"], state["trouble"], state["waitsFor"]) == (True, 5, None, {})
    workers = pool.page("/workers")[1]
    assert {worker: each["jobs"] for worker, each in workers.items()} == {
        worker: sorted(own) for worker, own in pool.lists().items()
    }
    assert {each["state"] for each in workers.values()} == {"Converged"}
    status, told = pool.page("/explain", job=jobs[0])
    assert status == 200 and (told["state"], told["worker"]) == ("placed", told["planned"])
    assert jobs[0] in told["why"] and jobs[0] in pool.lists()[told["worker"]]
    assert pool.page("/explain", job="nonsense")[0] == 404
    status, told = pool.site.page(pool.site.operator, "/workers?swarm=nonsense")
    assert status == 404 and key in told["error"]
    metrics = pool.site.page(pool.site.operator, "/metrics")[1]
    labels = f'{{namespace="{pool.site.namespace}",swarm="{name}"}}'
    for metric, value in (
        ("jobs", 5),
        ("workers", 2),
        ("unplaced", 0),
        ("waits", 0),
        ("converged", 1),
        ("imbalance", 1),
    ):
        assert f"muster_swarm_{metric}{labels} {float(value)}" in metrics
    pool.jobs([*jobs, jobs[0]])
    pool.refused("name each job once")
    assert f"muster_swarm_trouble{labels} 1.0" in pool.site.page(pool.site.operator, "/metrics")[1]
    assert "name each job once" in pool.site.page(pool.site.operator, "/state")[1][key]["trouble"]


def test_a_worker_that_holds_others_up_is_explained(pool: Pool) -> None:
    jobs, name = names(6), pool.name
    pool.jobs(jobs)
    pool.workers(2, annotations={DEAF: "true"})
    pool.swarm(confirmSeconds=0)
    pool.converged(jobs, 2)
    pool.site.scale(name, 3)
    pool.until(lambda: len(pool.status.get("pool") or ()) == 3 and pool.status.get("waitsFor"), "two to be waited for")
    moving = {
        job: told
        for job in jobs
        if (told := pool.page("/explain", job=job)[1])["state"] == "moving"
    }  # fmt: skip
    assert len(moving) == 2
    for told in moving.values():
        assert told["planned"] == f"{name}-2" and told["worker"] is None
        (leaving,) = told["leaving"]
        assert "has not shown that it let go" in told["waitsFor"][leaving]
    worker = pool.status["waitsFor"]["worker"]
    assert pool.page("/workers")[1][worker]["state"] == "Reloading"
    pool.edit(handover="fast")
    pool.until(lambda: len(pool.lists().get(f"{name}-2", ())) == 2, "its jobs to be given to it at once")


# ------------------------------------------------------------------------------------------ several replicas


@pytest.mark.parametrize("mode", ["leader", "shard"])
def test_of_three_replicas_each_swarm_has_one(api: Api, kubeconfig: str, tmp_path: Path, mode: str) -> None:
    """And when it dies, another one goes on."""
    namespace = make_namespace(api, f"swarm-{mode}")
    lab = Lab(api, namespace)
    nursery = lab.operators(tmp_path, kubeconfig, mode=mode)
    swarms = [f"s{number}" for number in range(6)]

    def looked_after() -> dict[str, list[str]]:
        """Replicas by Swarm, of those that have it now."""
        found: dict[str, list[str]] = {}
        for replica in nursery.alive:
            for key in lab.page(replica, "/state")[1]:
                found.setdefault(key.partition("/")[2], []).append(replica.pod)
        return found

    try:
        for number in range(3):
            nursery.start(f"operator-{number}")
        lab.workload("pool", 2, head=HEAD)
        lab.until(lambda: all(replica.port for replica in nursery.alive), "three replicas")
        for name in swarms:
            workers = {"selector": {"matchLabels": {"pool": name}}}
            lab.workload(name, 2, head=name)
            lab.swarm(name, workers=workers, configMap=name, jobs=[{"name": job} for job in names(6)])
        for name in swarms:
            assert lab.converged(name, workers=2) == {f"{name}-0": 3, f"{name}-1": 3}
        lab.until(lambda: sorted(looked_after()) == swarms, "each to be looked after")
        parts = looked_after()
        assert all(len(each) == 1 for each in parts.values())
        acting = [lab.page(replica, "/authority")[1]["active"] for replica in nursery.alive]
        assert acting.count(True) == {"leader": 1, "shard": 3}[mode]
        victim = nursery.replicas[parts[swarms[0]][0]]
        theirs = [name for name, each in parts.items() if victim.pod in each]
        victim.kill()
        nursery.bury(victim, "restarted")
        for name in theirs:
            lab.scale(name, 3)
        for name in theirs:
            assert lab.converged(name, workers=3) == {f"{name}-{number}": 2 for number in range(3)}
        assert lab.judge() == []
    finally:
        nursery.end()
        lab.close()
        api.delete(NAMESPACES, namespace)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Swarm operator between an API server in memory and workers that obey: what it tells, remembers and shows."""

from __future__ import annotations

import argparse
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import prometheus_client
import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm_pool import Pod
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import SWARMS
from ansible_collections.muster.coordination.tests.support.swarm_memory import HEAD, SwarmApi
from muster.frame.authority import Superseded
from muster.swarm import asking, operator_cli
from muster.swarm.asking import Asker
from muster.swarm.operator import Ends, Swarms, of_swarm, slim_pod
from muster.swarm.operator_metrics import SwarmMetrics

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
    """One Swarm, its workers, and an operator."""

    def __init__(self, **spec: Any) -> None:
        self.api = SwarmApi()
        self.told: list[tuple[str, str, bool]] = []
        self.ends = Ends()
        self.start()
        kind = {"apiVersion": SWARMS.api_version, "kind": SWARMS.kind}
        metadata = {"name": "main", "namespace": "ns", "generation": 1}
        jobs = [{"name": name} for name in "abcd"]
        self.api.create(SWARMS, {**kind, "metadata": metadata, "spec": {"jobs": jobs, **spec}})

    def start(self, **settings: float) -> None:
        """Another process of it."""
        api: Any = self.api
        ask = verbs.by_api_server(api, "ns")
        self.swarms = Swarms(api, of_swarm, ask, self.ends, self.tell, has_status=True, **settings)

    def tell(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None:
        assert about["metadata"]["uid"] and about["kind"] == "Swarm"
        self.told.append((reason, message, warning))

    @property
    def obj(self) -> Object:
        return self.api.get(SWARMS, "main", "ns")

    @property
    def status(self) -> Object:
        found: Object = self.obj.get("status") or {}
        return found

    def condition(self, kind: str) -> Object:
        return next(each for each in self.status["conditions"] if each["type"] == kind)

    def edit(self, **spec: Any) -> None:
        obj = self.obj
        self.api.replace(SWARMS, {**obj, "spec": {**obj["spec"], **spec}})

    def reconcile(self, term: Reign | None = None, obj: Object | None = None) -> float | None:
        return self.swarms.reconcile(obj or self.obj, term or Reign())

    def settle(self, term: Reign | None = None) -> float | None:
        """Until it wants to look again at no certain time, or at a later one."""
        for _turn in range(20):
            again = self.reconcile(term)
            if again is None or again >= 1:
                return again
        raise AssertionError("it goes on")

    def page(self, path: str, **query: str) -> tuple[int, Any]:
        status, body = self.swarms.pages()[path](query)
        return status, json.loads(json.dumps(body))


def reasons(bench: Bench) -> list[str]:
    return [reason for reason, _message, _warning in bench.told]


# ------------------------------------------------------------------------------------------ what it tells


def test_a_life_and_what_is_told_of_it() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    bench.settle()
    assert bench.api.lists() == {"w-0": "ab", "w-1": "cd"}
    assert bench.status["converged"] and bench.condition("Ready")["status"] == "True"
    assert reasons(bench) == ["Rebalanced", "Converged"]
    assert bench.told[0][1] == "4 jobs on 2 workers: 0 move, 0 workers that were there before change"
    bench.api.stateful_set(3)
    bench.settle()
    assert reasons(bench)[2:] == ["Rebalanced", "Converged"] and "1 move" in bench.told[2][1]
    assert bench.swarms.known()["ns/main"].moves == 1


def test_what_it_wrote_itself_is_no_news() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    bench.settle()
    bench.api.requests.clear()
    assert bench.reconcile() is None
    assert bench.api.writes() == []


def test_who_has_no_worker_is_told_once() -> None:
    bench = Bench(capacity=1)
    bench.api.stateful_set(3)
    bench.settle()
    bench.settle()
    (warning,) = [message for _reason, message, is_warning in bench.told if is_warning]
    assert warning.startswith("1 jobs have no worker; d: ")
    assert bench.condition("Degraded")["reason"] == "Unschedulable"
    bench.edit(capacity=2)
    bench.settle()
    assert bench.condition("Degraded")["status"] == "False"
    bench.edit(capacity=1)
    bench.settle()
    assert reasons(bench).count("Unschedulable") == 2, "it is news again"


def test_what_makes_no_sense_is_refused_and_told_once() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    bench.settle()
    before = bench.api.lists()
    bench.edit(jobsFrom=[{"configMap": "missing"}])
    assert bench.reconcile() is None and bench.reconcile() is None
    assert reasons(bench).count("Refused") == 1
    assert "missing" in bench.condition("Degraded")["message"]
    assert bench.api.lists() == before and bench.swarms.known()["ns/main"].trouble
    bench.api.jobs("[e]", "missing")
    bench.settle()
    assert "".join(sorted("".join(bench.api.lists().values()))) == "abcde"
    assert bench.condition("Degraded")["status"] == "False" and not bench.swarms.known()["ns/main"].trouble


def test_while_it_is_paused_only_the_status_says_so() -> None:
    bench = Bench(paused=True)
    bench.api.stateful_set(2)
    assert bench.reconcile() is None
    assert bench.api.lists() == {} and bench.condition("Progressing")["reason"] == "Paused"
    bench.api.requests.clear()
    bench.reconcile()
    assert bench.api.writes() == []


def test_an_eviction_is_told_and_counted() -> None:
    bench = Bench(maxUnavailable=2)
    bench.api.stateful_set(2, annotations={})
    bench.settle()
    assert reasons(bench).count("WorkerEvicted") == bench.swarms.known()["ns/main"].evictions == 2


def test_a_status_that_is_newer_than_what_was_looked_at_is_left_alone() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    old = bench.obj
    bench.edit(capacity=9)
    bench.api.replace(
        SWARMS, {**bench.obj, "status": {"observedGeneration": bench.obj["metadata"]["generation"]}}, "status"
    )
    bench.reconcile(obj=old)
    assert "conditions" not in bench.status


# ------------------------------------------------------------------------------------------ what it remembers


def test_without_a_term_nothing_is_done() -> None:
    """Each number of checks ends it before another effect; whoever comes next goes on from there."""
    bench = Bench()
    bench.api.stateful_set(2)
    seen = []
    for fence, checks in enumerate((0, 1, 1)):
        with pytest.raises(Superseded):
            bench.reconcile(Reign(fence, checks))
        seen.append((sorted(bench.status), bool(bench.api.lists())))
        bench.start()
    assert seen == [([], False), (["configMaps"], False), (["configMaps"], True)], "one effect after the other"
    bench.settle(Reign(20))
    assert bench.status["converged"]


def test_that_a_configuration_is_made_is_written_down_before_it_is() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    with pytest.raises(Superseded):
        bench.reconcile(Reign(checks=1))
    assert bench.status == {"configMaps": 1} and bench.api.lists() == {}
    bench.start()
    bench.reconcile(Reign(8))
    assert bench.api.lists() == {"w-0": "", "w-1": ""}, "for all that is known they run something"
    bench.settle(Reign(8))
    assert bench.api.lists() == {"w-0": "ab", "w-1": "cd"}


def test_a_configuration_that_was_deleted_before_the_status_told_of_it_is_not_begun_anew() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    with pytest.raises(Superseded):
        bench.reconcile(Reign(checks=2))  # the mark, and the ConfigMap
    assert bench.api.versions() == {"w-0": 0, "w-1": 0} and bench.status == {"configMaps": 1}
    bench.api.hung = {"w-0": 0, "w-1": 0}
    bench.api.delete(CONFIGMAPS, HEAD, "ns")
    bench.start()
    bench.reconcile(Reign(8))
    assert bench.api.lists() == {"w-0": "", "w-1": ""} and min(bench.api.versions().values()) > 0


def test_who_finds_no_configuration_where_there_was_one_waits_and_says_so() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    bench.settle()
    bench.api.delete(CONFIGMAPS, HEAD, "ns")
    bench.start(linger_seconds=600)
    assert bench.reconcile(Reign(8)) == verbs.LATER
    assert bench.api.lists() == {}
    ready, progressing = (bench.condition(kind) for kind in ("Ready", "Progressing"))
    assert (ready["reason"], progressing["status"], bench.status["converged"]) == ("Recovering", "True", False)
    bench.api.requests.clear()
    bench.reconcile(Reign(8))
    assert bench.api.writes() == [], "it is said once"


def test_a_refused_swarm_has_made_no_configuration() -> None:
    """So when it gets one of its own, that is the first."""
    bench = Bench()
    bench.api.stateful_set(2)
    theirs = {"labels": {"muster.dev/worker-config": HEAD}, "annotations": {verbs.MANAGER: "Swarm/another"}}
    bench.api.configmap_of(HEAD, {"config.yml": "workloads: {}"}, **theirs)
    bench.reconcile()
    assert "Swarm/another keeps this ConfigMap" in bench.condition("Degraded")["message"]
    assert "configMaps" not in bench.status
    bench.edit(configMap="ours")
    bench.reconcile()
    assert bench.api.versions("ours") == {"w-0": 0, "w-1": 0}


def test_under_another_fence_it_remembers_nothing_of_the_time_before() -> None:
    """In between another one looked after it: a Pod may have come and vanished, unseen."""
    bench = Bench()
    bench.api.stateful_set(2)
    bench.settle(Reign(7))
    memory = bench.swarms.known()["ns/main"].memory
    bench.reconcile(Reign(7))
    assert bench.swarms.known()["ns/main"].memory is memory
    bench.reconcile(Reign(9))
    assert bench.swarms.known()["ns/main"].memory is not memory


def test_another_swarm_of_the_same_name_is_another_one() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    bench.settle()
    before = bench.swarms.known()["ns/main"]
    obj = bench.obj
    bench.api.delete(SWARMS, "main", "ns")
    bench.api.create(SWARMS, {**obj, "metadata": {"name": "main", "namespace": "ns", "generation": 1}, "status": {}})
    bench.settle()
    assert bench.swarms.known()["ns/main"] is not before
    assert bench.api.lists() == {"w-0": "ab", "w-1": "cd"}


def test_how_long_a_pod_may_linger_is_as_it_was_told() -> None:
    api: Any = SwarmApi()
    swarms = Swarms(api, of_swarm, lambda pods: {}, Ends(), lambda *_, **__: None, has_status=False, linger_seconds=3.5)
    obj = {
        "apiVersion": SWARMS.api_version,
        "kind": "Swarm",
        "metadata": {"name": "main", "namespace": "ns", "uid": "u"},
        "spec": {"jobs": [{"name": "a"}]},
    }
    swarms.reconcile(obj, Reign())
    assert swarms.known()["ns/main"].memory.linger_seconds == 3.5


@pytest.mark.parametrize(
    ("status", "is_known"),
    [
        ({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0}}}]}, True),
        ({"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {}}}]}, False),
        ({"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"running": {}}}]}, False),
        (
            {
                "containerStatuses": [{"state": {"terminated": {"exitCode": 0}}}],
                "initContainerStatuses": [{"state": {"running": {}}}],
            },
            False,
        ),
        ({}, True),
    ],
)
def test_what_proves_that_a_pod_has_ended(status: Object, is_known: bool) -> None:
    ends = Ends()
    ends.removed(slim_pod({"metadata": {"name": "w", "namespace": "ns", "uid": "u"}, "status": status}))
    assert ends("u") is is_known
    assert ends("another") is False


def test_only_so_many_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.swarm.operator.REMEMBERED", 2)
    ends = Ends()
    for uid in ("1", "2", "3"):
        ends.removed(slim_pod({"metadata": {"name": "w", "namespace": "ns", "uid": uid}}))
    assert [ends(uid) for uid in ("1", "2", "3")] == [False, True, True]


# ------------------------------------------------------------------------------------------ pages and metrics


def test_the_pages_show_what_this_replica_looks_after() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    assert bench.page("/state") == (200, {})
    bench.settle()
    state = bench.page("/state")[1]["ns/main"]
    assert (state["converged"], state["jobs"], state["waitsFor"], state["configMaps"]) == (True, 4, {}, 1)
    assert bench.page("/workers")[1]["w-0"]["jobs"] == ["a", "b"], "of one alone the name may be left out"
    assert bench.page("/workers", swarm="ns/main")[1]["w-1"]["applied"] == 0
    status, told = bench.page("/workers", swarm="ns/other")
    assert status == 404 and "ns/main" in told["error"]
    bench.swarms.mine = lambda: []
    assert bench.page("/state") == (200, {}) and "none yet" in bench.page("/workers")[1]["error"]
    bench.swarms.mine = bench.swarms.there = lambda: ["ns/main"]
    assert bench.page("/state")[1].keys() == {"ns/main"}
    bench.swarms.there = lambda: []
    bench.swarms.known()
    bench.swarms.there = lambda: ["ns/main"]
    assert bench.page("/state") == (200, {}), "it was forgotten"


def test_each_job_is_explained() -> None:
    bench = Bench()
    bench.api.stateful_set(2)
    bench.settle()
    placed = bench.page("/explain", job="a")[1]
    assert (placed["state"], placed["worker"], placed["planned"], placed["leaving"]) == ("placed", "w-0", "w-0", [])
    bench.api.hung = {"w-0": 0, "w-1": 0}
    bench.api.stateful_set(3)
    for _turn in range(3):
        bench.reconcile()
    moving = {job: told for job in "abcd" if (told := bench.page("/explain", job=job)[1])["state"] == "moving"}
    ((job, told),) = moving.items()
    assert told["planned"] == "w-2" and told["worker"] is None and set(told["leaving"]) == {"w-1"}
    assert "has not shown that it let go" in told["waitsFor"]["w-1"]
    assert job in told["why"]
    bench.edit(capacity=1)
    bench.reconcile()
    unplaced = [told for job in "abcd" if (told := bench.page("/explain", job=job)[1])["state"] == "unplaced"]
    assert len(unplaced) == 1 and unplaced[0]["planned"] is None
    assert bench.page("/explain", job="z")[0] == 404
    assert bench.page("/explain")[0] == 404


def test_the_metrics_are_worked_out_when_they_are_asked_for() -> None:
    bench = Bench(capacity=1)
    bench.api.stateful_set(3)
    registry = prometheus_client.CollectorRegistry()
    registry.register(SwarmMetrics(bench.swarms.known))

    def metric(name: str) -> float | None:
        return registry.get_sample_value(f"muster_swarm_{name}", {"namespace": "ns", "swarm": "main"})

    assert metric("jobs") is None
    bench.settle()
    names = (
        "jobs",
        "unplaced",
        "workers",
        "waits",
        "imbalance",
        "converged",
        "trouble",
        "moves_total",
        "evictions_total",
    )
    assert {name: metric(name) for name in names} == {
        "jobs": 4,
        "unplaced": 1,
        "workers": 3,
        "waits": 0,
        "imbalance": 0,
        "converged": 1,
        "trouble": 0,
        "moves_total": 0,
        "evictions_total": 0,
    }
    bench.edit(jobsFrom=[{"configMap": "missing"}])
    bench.reconcile()
    assert metric("trouble") == 1


# ------------------------------------------------------------------------------------------ asking workers


@pytest.fixture
def page() -> Iterator[Callable[[int, bytes], Pod]]:
    """A worker's page that answers this status and body; a Pod with its address."""
    servers = []

    def serve(status: int, body: bytes) -> Pod:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/config"
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return Pod("w-0", "u", address=f"127.0.0.1:{server.server_address[1]}")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def told(**report: Any) -> bytes:
    return json.dumps({"worker": "w-0", "uid": "u", "version": 3, **report}).encode()


@pytest.mark.parametrize(
    ("status", "body", "version"),
    [
        (200, told(), {"u": 3}),
        (200, told(version=0), {"u": 0}),
        (200, told(version=None), {}),
        (200, told(version="3"), {}),
        (200, told(version=True), {}),
        (200, told(version=-1), {}),
        (200, told(uid="another"), {}),
        (200, b"[]", {}),
        (200, b"no JSON", {}),
        (500, told(), {}),
        (302, told(), {}),
    ],
)
def test_only_a_whole_answer_of_that_very_pod_counts(
    page: Callable[[int, bytes], Pod], status: int, body: bytes, version: dict[str, int]
) -> None:
    assert Asker()([page(status, body)]) == version


def test_one_that_does_not_answer_takes_no_answer_from_the_others(page: Callable[[int, bytes], Pod]) -> None:
    away = Pod("w-1", "v", address="127.0.0.1:1")
    assert Asker()([away, page(200, told()), away._replace(address="nonsense")]) == {"u": 3}


def test_an_answer_without_end_is_not_read(page: Callable[[int, bytes], Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    body = told()
    monkeypatch.setattr(asking, "LONGEST", len(body))
    assert Asker()([page(200, body)]) == {"u": 3}
    monkeypatch.setattr(asking, "LONGEST", len(body) - 1)
    assert Asker()([page(200, body)]) == {}


# ------------------------------------------------------------------------------------------ the command


def parsed(*arguments: str, **environ: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    operator_cli.add(parser.add_subparsers(), environ)
    return parser.parse_args(["swarm-operator", "run", *arguments])


def test_options_and_variables() -> None:
    args = parsed()
    assert (args.mode, args.watched_label, args.jobs_configmap) == ("swarms", "swarm-worker", "swarm-jobs")
    assert (args.workers_configmap, args.linger_seconds, args.lease_name) == (
        "swarm-worker-config",
        30.0,
        "swarm-operator",
    )
    args = parsed(
        MUSTER_SWARM_MODE="labels",
        WATCHED_LABEL="tier=stream",
        WORKERS_CONFIGMAP_NAME="theirs",
        MUSTER_JOBS_CONFIGMAP="streams",
        MUSTER_LINGER_SECONDS="90",
    )
    assert (args.mode, args.watched_label, args.jobs_configmap) == ("labels", "tier=stream", "streams")
    assert (args.workers_configmap, args.linger_seconds) == ("theirs", 90.0)


def test_a_time_that_makes_no_sense_is_refused() -> None:
    api: Any = SwarmApi()
    with pytest.raises(Malformed, match="linger-seconds"):
        operator_cli.made(parsed("--linger-seconds", "-1"), api, "ns")


def test_with_labels_the_jobs_configmap_stands_for_a_swarm() -> None:
    args = parsed(WATCHED_LABEL="tier=stream", WORKERS_CONFIGMAP_NAME="theirs")
    spec = operator_cli._labelled(args)({"metadata": {"name": "swarm-jobs"}})
    assert (spec.selector, spec.configmap) == ("tier=stream", "theirs")
    assert [(source.configmap, source.key) for source in spec.sources] == [("swarm-jobs", "jobs.yml")]


def test_a_pod_is_kept_as_its_end_only() -> None:
    pod = {"metadata": {"name": "w", "namespace": "ns", "uid": "u", "labels": {"a": "b"}}, "spec": {"x": 1}}
    state = {"running": {"startedAt": "now"}}
    whole = {**pod, "status": {"phase": "Running", "containerStatuses": [{"name": "c", "image": "i", "state": state}]}}
    assert slim_pod(whole) == {
        "metadata": {"namespace": "ns", "name": "w", "uid": "u"},
        "status": {
            "initContainerStatuses": [],
            "containerStatuses": [{"state": state}],
            "ephemeralContainerStatuses": [],
        },
    }

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What swarm_rebalance and swarm_info do and tell, on an API server in memory."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    STATEFUL_SETS,
    Forbidden,
    ServerError,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import worker_config
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm_info, swarm_modules
from ansible_collections.muster.coordination.tests.support.swarm_memory import HEAD, SwarmApi, WithoutSwarms

SILENT: dict[str, str] = {}  # annotations of workers that do not report
LONG = 60.0  # seconds: a deadline for what takes a moment


@pytest.fixture
def api() -> SwarmApi:
    return SwarmApi()


def rebalance(api: Any, jobs: Any = "abcd", **options: Any) -> dict[str, Any]:
    listed = list(jobs) if isinstance(jobs, str) else jobs
    return swarm_modules.rebalance(api, namespace="ns", jobs=listed, **options)


def at_rest(api: SwarmApi, replicas: int = 2) -> None:
    """Workers that run four jobs."""
    api.stateful_set(replicas)
    assert rebalance(api)["converged"]
    api.requests.clear()


def told(jobs: str, version: int | None) -> dict[str, Any]:
    return {"jobs": list(jobs), "version": version}


NUMBERS = ("moves", "least_moves", "restarts", "least_restarts", "imbalance", "method", "assignment", "unplaced")


# ------------------------------------------------------------------------------------------ rebalance


def test_check_mode_shows_the_plan_and_writes_nothing(api: SwarmApi) -> None:
    at_rest(api)
    api.stateful_set(3)
    api.requests.clear()
    planned = rebalance(api, check_mode=True)
    assert api.writes() == []
    assert planned["changed"] and not planned["converged"]
    assert planned["before"] == {"w-0": told("ab", 0), "w-1": told("cd", 0)}
    assert planned["after"] == {"w-0": told("ab", 0), "w-1": told("c", None), "w-2": told("d", None)}
    done = rebalance(api)
    assert {name: planned[name] for name in NUMBERS} == {name: done[name] for name in NUMBERS}
    assert (done["moves"], done["least_moves"], done["restarts"], done["least_restarts"]) == (1, 1, 1, 1)
    assert done["before"] == planned["before"]
    assert done["after"] == {"w-0": told("ab", 0), "w-1": told("c", 1), "w-2": told("d", 0)}


def test_more_workers_than_jobs(api: SwarmApi) -> None:
    api.stateful_set(2)
    planned = rebalance(api, "a", check_mode=True)
    assert planned["after"] == {"w-0": told("a", None)} and planned["assignment"] == {"w-0": ["a"], "w-1": []}
    assert rebalance(api, "a")["after"] == {"w-0": told("a", 0)}


def test_of_a_configmap_that_was_deleted_nothing_stood_before(api: SwarmApi) -> None:
    at_rest(api)
    api.hung = {"w-0": 0, "w-1": 0}
    api.delete(CONFIGMAPS, HEAD, "ns")
    done = rebalance(api)
    assert done["before"] == {} and done["changed"] and set(done["waits_for"]) == {"w-0", "w-1"}


def test_a_second_run_changes_nothing(api: SwarmApi) -> None:
    api.stateful_set(2)
    first = rebalance(api)
    assert first["changed"] and first["converged"] and first["before"] == {}
    before = api.objects[CONFIGMAPS.plural, "ns", HEAD]
    for more in ({}, {"check_mode": True}, {"wait": True, "wait_timeout": LONG}):
        again = rebalance(api, **more)
        assert not again["changed"] and again["converged"] and again["moves"] == 0
        assert again["before"] == again["after"] == first["after"]
    assert api.objects[CONFIGMAPS.plural, "ns", HEAD] == before


def test_without_wait_what_can_be_done_at_once_is_done(api: SwarmApi) -> None:
    at_rest(api)
    api.hung = {"w-1": 0}
    api.stateful_set(3)
    begun = rebalance(api)
    assert begun["changed"] and not begun["converged"] and "w-1" in begun["waits_for"] and begun["moves"] == 1
    assert begun["after"] == {"w-0": told("ab", 0), "w-1": told("c", 1)}
    assert begun["assignment"] == {"w-0": ["a", "b"], "w-1": ["c"], "w-2": ["d"]}
    again = rebalance(api)
    assert not again["changed"] and not again["converged"] and again["moves"] == 1
    api.hung = {}
    done = rebalance(api)
    assert done["changed"] and done["converged"] and done["after"]["w-2"] == told("d", 0)


def test_with_wait_it_is_carried_out_to_the_end(api: SwarmApi) -> None:
    at_rest(api)
    api.stateful_set(3)
    page, asked = api.pages["w-1"], []

    def slow() -> dict[str, Any]:
        asked.append(1)
        return {**page(), "version": 0} if len(asked) < 4 else page()

    api.pages["w-1"] = slow
    done = rebalance(api, wait=True, wait_timeout=LONG)
    assert done["changed"] and done["converged"] and done["waits_for"] == {} and len(asked) >= 4
    assert api.lists() == {"w-0": "ab", "w-1": "c", "w-2": "d"}


def test_a_wait_in_vain_says_who_holds_it_up(api: SwarmApi) -> None:
    at_rest(api)
    api.hung = {"w-1": 0}
    api.stateful_set(1, "a")  # it waits, too, and holds up nobody
    with pytest.raises(TimedOut) as late:
        rebalance(api, wait=True, wait_timeout=0.3)
    assert f"waited 0.3 s for the workers of ConfigMap ns/{HEAD} in vain" in str(late.value)
    assert "last seen: w-1 for " in str(late.value) and "it has not shown that it let go" in str(late.value)
    assert api.lists() == {"w-0": "ab", "w-1": "c"}, "what was done stays"
    api.hung = {}
    assert rebalance(api, wait=True, wait_timeout=LONG)["after"]["a-0"] == told("d", 0)


class Restarting(SwarmApi):
    """The StatefulSet's controller makes an evicted Pod anew at once."""

    def evict(self, name: str, namespace: str, *, uid: str) -> dict[str, Any]:
        done = super().evict(name, namespace, uid=uid)
        self.make_pods()
        return done


def test_workers_that_do_not_report_are_evicted_if_their_list_changes(api: SwarmApi) -> None:
    api = Restarting()
    api.stateful_set(3, annotations=SILENT)
    first = rebalance(api, "abc", wait=True, wait_timeout=LONG)
    assert first["evicted"] == ["w-0", "w-1", "w-2"]
    uids = {name: api.uid(name) for name in ("w-0", "w-1", "w-2")}
    done = rebalance(api, "abcd", wait=True, wait_timeout=LONG)
    assert done["evicted"] == ["w-0"] and done["restarts"] == 1 and done["converged"]
    assert [name for name, uid in uids.items() if api.uid(name) != uid] == ["w-0"]
    assert not rebalance(api, "abcd", wait=True, wait_timeout=LONG)["changed"]


def test_with_refresh_none_it_is_told_who_has_to_be_restarted(api: SwarmApi) -> None:
    api.stateful_set(1, annotations=SILENT)
    done = rebalance(api, refresh="none")
    assert done["evicted"] == [] and not done["converged"]
    assert "w-0 has to be restarted, which is left to you" in done["reasons"]
    assert not rebalance(api, refresh="none", check_mode=True)["changed"]
    api.kill("w-0")
    api.make_pods()
    assert rebalance(api, refresh="none")["converged"]


def test_who_may_not_be_evicted_now_is_told(api: SwarmApi) -> None:
    api.stateful_set(1, annotations=SILENT)
    api.guarded = {"w-0"}
    done = rebalance(api)
    assert done["evicted"] == [] and "w-0 may not be evicted now" in done["reasons"]
    assert rebalance(api, check_mode=True)["changed"], "it would be tried again"


def test_a_pod_that_vanished_is_trusted_to_have_ended_after_linger_seconds(api: SwarmApi) -> None:
    at_rest(api)
    api.stateful_set(1)
    waiting = rebalance(api)
    assert "may still run" in waiting["waits_for"]["w-1"]
    done = rebalance(api, linger_seconds=0)
    assert done["converged"] and api.lists() == {"w-0": "abcd"}


def test_a_pod_that_is_seen_to_end_is_not_waited_for(api: SwarmApi) -> None:
    """Without the proof that a watch brings it would take LINGER_SECONDS, and time out."""
    at_rest(api)
    api.hung = {"w-1": 0}
    page = api.pages["w-1"]

    def end() -> dict[str, Any]:
        answer = page()
        if not api.lists()["w-1"]:
            api.kill("w-1")
        return answer

    api.stateful_set(1, made=False)
    api.pages["w-1"] = end
    done = rebalance(api, wait=True, wait_timeout=verbs.LINGER_SECONDS / 2)
    assert done["converged"] and api.lists() == {"w-0": "abcd"}


def test_a_pool_that_changes_meanwhile_is_counted_in(api: SwarmApi) -> None:
    at_rest(api)
    api.hung = {"w-1": 0}
    api.stateful_set(3)
    page = api.pages["w-1"]

    def grow() -> dict[str, Any]:
        api.pages["w-1"] = page
        api.hung.clear()
        api.stateful_set(4)
        return {**page(), "version": 0}

    api.pages["w-1"] = grow
    done = rebalance(api, wait=True, wait_timeout=LONG)
    assert done["moves"] >= 2 and len(done["assignment"]) == 4 and done["converged"]


def test_replicas_that_are_no_workers_yet_are_told(api: SwarmApi) -> None:
    at_rest(api)
    api.stateful_set(3, made=False)
    done = rebalance(api)
    assert done["converged"] and not done["changed"]
    assert any("StatefulSet w: 1 of 3 replicas are no workers yet" in reason for reason in done["reasons"])


def test_jobs_without_a_worker_are_a_warning(api: SwarmApi) -> None:
    api.stateful_set(0)
    done = rebalance(api)
    assert done["unplaced"] == dict.fromkeys("abcd", "there are no workers")
    assert done["warnings"] == ["without a worker: 4 jobs; a: there are no workers"]


def test_who_waits_goes_on_when_the_server_is_well_again_and_who_does_not_fails(api: SwarmApi) -> None:
    api.stateful_set(2)
    api.faults = ["list 500"]
    with pytest.raises(ServerError):
        rebalance(api)
    page = api.pages["w-0"]

    def unwell() -> dict[str, Any]:
        api.pages["w-0"] = page
        api.faults = ["get 500", "list 503"]
        return {}

    api.pages["w-0"] = unwell
    assert rebalance(api, wait=True, wait_timeout=LONG)["converged"]


def test_who_may_not_watch_looks_from_time_to_time(api: SwarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unseen(Restarting):
        def follow(self, *_args: Any, **_asked: Any) -> Any:
            raise Forbidden(403, "Forbidden", "not allowed to watch")
            yield

    monkeypatch.setattr(swarm_modules, "BLIND", 0.05)
    monkeypatch.setattr(swarm_modules, "RESYNC", LONG * 10)
    blind = Unseen()
    blind.stateful_set(1, annotations=SILENT)
    done = rebalance(blind, wait=True, wait_timeout=LONG, linger_seconds=-1)
    assert done["converged"] and done["evicted"] == ["w-0"]


# ------------------------------------------------------------------------------------------ what is refused


def test_a_configmap_that_a_swarm_keeps_is_refused(api: SwarmApi) -> None:
    api.stateful_set(2)
    api.configmap_of(HEAD, {"config.yml": "workloads: {}"}, annotations={verbs.MANAGER: "Swarm/main"})
    api.requests.clear()
    for check_mode in (False, True):
        with pytest.raises(Malformed, match=f"^name is 'ns/{HEAD}': Swarm/main keeps this ConfigMap"):
            rebalance(api, check_mode=check_mode)
    assert api.writes() == []


def test_one_that_nobody_keeps_is_taken_over_with_all_that_stands_in_it(api: SwarmApi) -> None:
    api.stateful_set(2)
    text = "owner: video\nworkloads: {w-0: {jobs: [a, b], version: 3, note: mine}, w-1: {jobs: [c, d], version: 5}}"
    api.configmap_of(HEAD, {"config.yml": text, "other": "kept"})
    done = rebalance(api, "abcde")
    assert done["moves"] == 0 and done["after"] == {"w-0": told("abe", 4), "w-1": told("cd", 5)}
    assert api.document()["owner"] == "video" and api.document()["workloads"]["w-0"]["note"] == "mine"
    assert api.data()["other"] == "kept"
    assert api.get(CONFIGMAPS, HEAD, "ns")["metadata"]["annotations"] == {verbs.MANAGER: "ansible"}


def test_what_is_malformed_is_never_overwritten(api: SwarmApi) -> None:
    api.stateful_set(2)
    api.configmap_of(HEAD, {"config.yml": "workloads: {w-0: {jobs: [a, 1], version: 0}}"})
    before = api.data()
    for more in ({}, {"check_mode": True}, {"wait": True, "wait_timeout": LONG}):
        with pytest.raises(Malformed, match=r"config.yml: workloads.w-0.jobs"):
            rebalance(api, **more)
    assert api.data() == before


@pytest.mark.parametrize("selector", ["swarm-worker=nothing", "", " "])
def test_a_selector_that_selects_nothing_takes_nothing_away(api: SwarmApi, selector: str) -> None:
    at_rest(api)
    with pytest.raises(Malformed, match=r"^selector is "):
        rebalance(api, selector=selector)
    assert api.lists() == {"w-0": "ab", "w-1": "cd"}


def test_no_jobs_are_taken_from_workers_that_are_no_more(api: SwarmApi) -> None:
    at_rest(api)
    api.objects.pop((STATEFUL_SETS.plural, "ns", "w"))
    assert rebalance(api, [])["changed"]
    assert "".join(api.lists().values()) == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"jobs": ["a", {"name": "b", "weight": 0}]}, r"^jobs\[1\].weight is 0: "),
        ({"jobs": ["a", "a"]}, "^jobs is 'a': name each job once"),
        ({"jobs": [7]}, r"^jobs\[0\] is 7: "),
        ({"max_unavailable": 0}, "^max_unavailable is 0: "),
        ({"capacity": 0}, "^capacity is 0: "),
        ({"handover": "slow"}, "^handover is 'slow': give one of safe, fast"),
        ({"classes": [{"name": "gpu"}]}, r"^classes\[0\].workers is None: "),
        ({"jobs_from": [{"config_map": "none"}]}, r"^jobs_from\[0\].configMap is 'none': create it"),
        ({"jobs_from": [{"config_map": "streams"}]}, "ns/streams: jobs.yml is 'a': name each job once: .* in jobs$"),
    ],
)
def test_errors_name_the_option(api: SwarmApi, options: dict[str, Any], told: str) -> None:
    api.stateful_set(1)
    api.jobs("[a, b]")
    with pytest.raises(Malformed, match=told):
        rebalance(api, options.pop("jobs", ["a"]), **options)
    assert HEAD not in [name for _plural, _ns, name in api.objects]


def test_numbers_that_a_template_made_text_of_are_numbers(api: SwarmApi) -> None:
    (job,) = swarm_modules._spec("c", "a=b", [{"name": "a", "weight": "3", "dedicated": "False"}], None).jobs
    assert (job.weight, job.dedicated) == (3, False)


def test_jobs_of_configmaps_and_options_that_are_not_given(api: SwarmApi) -> None:
    api.stateful_set(1)
    api.jobs("[b, c]")
    sources = [{"config_map": "streams", "key": None, "optional": None}, {"config_map": "no", "optional": True}]
    done = rebalance(api, ["a"], jobs_from=sources, churn=None, capacity=None, classes=None)
    assert done["assignment"] == {"w-0": ["a", "b", "c"]}


# ------------------------------------------------------------------------------------------ info


def info(api: Any, **asked: Any) -> list[dict[str, Any]]:
    found = swarm_info.info(api, namespace="ns", **asked)
    assert found.pop("changed") is False
    return list(found["swarms"])


def swarm(api: SwarmApi, name: str = "main", status: dict[str, Any] | None = None, **spec: Any) -> None:
    metadata = {"name": name, "namespace": "ns", "generation": 1}
    obj = {"apiVersion": "muster.dev/v1alpha1", "kind": "Swarm", "metadata": metadata}
    api.create(
        verbs.SWARMS, {**obj, "spec": {"jobs": [{"name": job} for job in "abcd"], **spec}, "status": status or {}}
    )


def kept_by_swarm(api: SwarmApi, **more: Any) -> None:
    """A Swarm whose operator has done its work."""
    at_rest(api)
    swarm(api, **more)
    there = api.objects[CONFIGMAPS.plural, "ns", HEAD]
    there["metadata"]["annotations"][verbs.MANAGER] = "Swarm/main"


def test_a_swarm_as_it_stands(api: SwarmApi) -> None:
    kept_by_swarm(api, status={"jobs": 4})
    api.requests.clear()
    (one,) = info(api)
    assert api.writes() == []
    assert (one["name"], one["config_map"], one["manager"], one["status"]) == ("main", HEAD, "Swarm/main", {"jobs": 4})
    assert (one["jobs"], one["unplaced"], one["imbalance"], one["converged"]) == (4, {}, 0, True)
    assert one["workers"] == [
        {
            "name": name,
            "jobs": list(jobs),
            "load": 2,
            "version": 0,
            "applied": 0,
            "state": "Converged",
            "leaving": [],
        }
        for name, jobs in (("w-0", "ab"), ("w-1", "cd"))
    ]
    assert one["rebalance"]["least_moves"] == 0 and "inputs" not in one["rebalance"]
    assert one["error"] is None and one["explanation"] is None and one["waits_for"] == {}
    assert info(api, name="main") == [one] and info(api, name="other") == []


def test_a_swarm_that_is_on_its_way(api: SwarmApi) -> None:
    kept_by_swarm(api)
    api.hung = {"w-1": 0}
    api.stateful_set(3)
    api.objects[CONFIGMAPS.plural, "ns", HEAD]["metadata"]["annotations"][verbs.MANAGER] = "ansible"
    rebalance(api)
    api.objects[CONFIGMAPS.plural, "ns", HEAD]["metadata"]["annotations"][verbs.MANAGER] = "Swarm/main"
    (one,) = info(api, job="d")
    assert not one["converged"] and "w-1" in one["waits_for"]
    assert [(each["state"], each["leaving"]) for each in one["workers"]] == [
        ("Converged", []),
        ("Reloading", ["d"]),
        ("Converged", []),
    ]
    why = one["explanation"]
    assert (why["worker"], why["planned"], why["leaving"], why["state"]) == (None, "w-2", ["w-1"], "moving")
    assert "d moves from w-1" in why["why"] and set(why["waits_for"]) == {"w-1", "w-2"}
    assert info(api, job="a")[0]["explanation"]["state"] == "placed"
    assert info(api, job="z")[0]["explanation"] is None


def test_a_worker_that_is_no_member_any_more_is_leaving(api: SwarmApi) -> None:
    kept_by_swarm(api)
    api.hung = {"w-1": 0}
    api.stateful_set(1, made=False)
    api.requests.clear()
    (one,) = info(api)
    assert [each["state"] for each in one["workers"]] == ["Converged", "Leaving"]
    assert api.writes() == [], "though there is something to be written"


def test_whether_a_pod_that_is_gone_may_run_on_is_what_only_the_operator_knows(api: SwarmApi) -> None:
    kept_by_swarm(api)
    api.stateful_set(1)
    text = "workloads: {w-0: {jobs: [a, b], version: 0}, w-1: {jobs: [], version: 1}}"
    record = '{"version": 1, "workers": {"w-1": {"leaving": {"c": 1, "d": 1}}}}'
    api.configmap_of(HEAD, {"config.yml": text, "handover.json": record})
    assert "may still run" not in str(info(api)[0]["waits_for"])


def test_what_the_operator_was_answered_counts_where_we_get_no_answer(api: SwarmApi) -> None:
    pool = [{"name": name, "wanted": 0, "applied": 0} for name in ("w-0", "w-1")]
    kept_by_swarm(api, status={"pool": pool})
    api.pages.clear()
    assert info(api)[0]["converged"]
    assert not info(api, config_map=HEAD)[0]["converged"]


def test_a_swarm_that_can_not_be_understood_is_shown_with_what_its_workers_were_told(api: SwarmApi) -> None:
    kept_by_swarm(api, capacity=0)
    (one,) = info(api)
    assert "spec.capacity is 0" in one["error"] and one["manager"] == "Swarm/main"
    assert [each["name"] for each in one["workers"]] == ["w-0", "w-1"] and one["config_maps"] == 1


def test_a_configmap_that_another_one_keeps_is_the_error_of_the_swarm(api: SwarmApi) -> None:
    at_rest(api)
    swarm(api)
    (one,) = info(api)
    assert "ansible keeps this ConfigMap" in one["error"]


def test_a_configuration_of_no_swarm(api: SwarmApi) -> None:
    at_rest(api)
    (one,) = info(api, job="c")
    assert (one["name"], one["status"], one["unplaced"]) == (None, None, None)
    assert (one["config_map"], one["manager"], one["jobs"], one["converged"]) == (HEAD, "ansible", 4, True)
    assert (one["explanation"]["worker"], one["explanation"]["state"]) == ("w-1", "placed")
    assert one["workers"][0]["applied"] == 0 and one["workers"][0]["load"] is None
    assert info(api, config_map=HEAD, job="c") == [one]
    assert info(api, config_map="nothing") == []


def test_workers_that_are_not_there_or_not_restarted_yet(api: SwarmApi) -> None:
    api.stateful_set(2, annotations=SILENT)
    rebalance(api, refresh="none")
    api.kill("w-1")
    (one,) = info(api)
    assert [each["state"] for each in one["workers"]] == ["Restarting", "Missing"]
    why = {"w-0": "it has to run version 0, and is known to run nothing yet", "w-1": "it has no Pod"}
    assert one["waits_for"] == why and not one["converged"]


def test_a_deployments_pod_that_does_not_report_is_not_waited_for(api: SwarmApi) -> None:
    """It is not restarted to read its list, for it would come back as another; so nobody ever knows that it has."""
    api.deployment(1, annotations=SILENT)
    api.deployed("aaaaa")
    assert rebalance(api)["converged"]
    assert [(one["converged"], one["workers"][0]["applied"]) for one in info(api)] == [(True, None)]


def test_parts_of_a_configuration_are_no_configurations(api: SwarmApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_config, "PART_BYTES", 2600)
    api.stateful_set(4)
    rebalance(api, "abcdefgh")
    (one,) = info(api)
    assert one["config_maps"] == 2 and len(one["workers"]) == 4


def test_a_cluster_that_does_not_know_the_kind_has_configurations_all_the_same() -> None:
    api = WithoutSwarms()
    at_rest(api)
    assert [one["config_map"] for one in info(api)] == [HEAD]
    assert swarm_info.told(api, namespace="ns")[0]["config_map"] == HEAD


def test_what_is_malformed_or_may_not_be_read_is_listed_beside_the_healthy(api: SwarmApi) -> None:
    at_rest(api)
    marks = {"labels": {worker_config.PART_OF: "odd"}}
    api.configmap_of("odd", {"config.yml": "workloads: 7"}, **marks)
    odd, healthy = info(api)
    assert "ns/odd: config.yml: workloads" in odd["error"] and healthy["error"] is None

    class Secretive(SwarmApi):
        def list(self, resource: Any, *args: Any, **asked: Any) -> Any:
            if resource == PODS:
                raise Forbidden(403, "Forbidden", "not allowed")
            return super().list(resource, *args, **asked)

    secretive = Secretive()
    secretive.objects = api.objects
    assert "not allowed" in info(secretive, config_map=HEAD)[0]["error"]


def test_a_configuration_that_was_lost_may_be_anything(api: SwarmApi) -> None:
    kept_by_swarm(api, status={"pool": [{"name": "w-0", "wanted": 4}, {"name": "w-1", "wanted": 2}]})
    api.delete(CONFIGMAPS, HEAD, "ns")
    (one,) = info(api, job="a")
    assert one["config_maps"] == 0 and not one["converged"]
    assert one["explanation"]["worker"] is None


# ------------------------------------------------------------------------------------------ as it was told


STATUS = {
    "jobs": 5,
    "unplaced": 1,
    "converged": False,
    "pool": [{"name": "w-0", "jobs": 4, "load": 6, "wanted": 3, "applied": 2, "state": "Reloading"}],
    "unschedulable": [{"job": "e", "reason": "there is no room"}],
    "rebalance": {"time": "2026-01-31T12:00:00Z", "moves": 1, "leastMoves": 1},
    "waitsFor": {"worker": "w-0", "since": "2026-01-31T12:00:00Z", "reason": "it does not answer"},
}


def test_what_operators_told(api: SwarmApi) -> None:
    swarm(api, status=STATUS)
    swarm(api, "new", paused=True)
    (main, new) = swarm_info.told(api, namespace="ns")
    assert main["workers"][0]["version"] == 3 and main["rebalance"]["least_moves"] == 1
    assert main["unschedulable"] == {"e": "there is no room"} and main["waits_for"] == STATUS["waitsFor"]
    assert new["paused"] and new["workers"] == [] and new["jobs"] is None
    refused = {"type": "Degraded", "status": "True", "reason": "Refused", "message": "spec.capacity is 0"}
    swarm(api, "odd", status={"conditions": [refused]})
    assert swarm_info.told(api, namespace="ns", name="odd")[0]["error"] == "spec.capacity is 0"


def test_a_configuration_of_no_swarm_is_told_in_the_same_form(api: SwarmApi) -> None:
    at_rest(api)
    (one,) = swarm_info.told(api, namespace="ns")
    swarm(api, status=STATUS)
    (main,) = swarm_info.told(api, namespace="ns", name="main")
    assert one.keys() == main.keys() and one["workers"][0].keys() == main["workers"][0].keys()
    assert one["workers"][0]["jobs"] == 2 and one["waits_for"] is None
    assert swarm_info.told(api, namespace="ns", name=HEAD) == [one]

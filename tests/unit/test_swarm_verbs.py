# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The turns of a Swarm, one by one: what is read in which order, what is written, and who is faster."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    STATEFUL_SETS,
    Forbidden,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import swarm, worker_config
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import Lost, Memory, Stale, Turn
from ansible_collections.muster.coordination.tests.support.swarm_memory import HEAD, SwarmApi

SILENT: dict[str, str] = {}  # annotations of workers that know nothing of the operator


class Operator:
    """One operator of one Swarm, on a clock that stands still until it is set forward."""

    def __init__(self, api: Any, jobs: str = "abcd", manager: str = "Swarm/main", **spec: Any) -> None:
        self.api, self.manager, self.spec = api, manager, swarm.parse_spec({"jobs": list(jobs), **spec})
        self.now = 1000.0
        self.memory = Memory(clock=lambda: self.now)
        self.ask: verbs.Ask = verbs.by_api_server(api, "ns")

    def turn(self, **more: Any) -> Turn:
        jobs, _sources = verbs.read_jobs(self.api, "ns", self.spec)
        at = {"manager": self.manager, "ask": self.ask, "now": "2026-01-31T12:00:00Z"}
        return verbs.turn(self.api, "ns", self.spec, jobs, self.memory, **at, **more)

    def jobs(self, jobs: str) -> None:
        self.spec = replace(self.spec, jobs=tuple(swarm.parse_jobs(list(jobs), "jobs")))

    def settle(self) -> Turn:
        """Until a turn has nothing to write."""
        for _turn in range(10):
            turn = self.turn()
            if not turn.wrote:
                return turn
        raise AssertionError("it goes on writing")


@pytest.fixture
def api() -> SwarmApi:
    return SwarmApi()


def at_rest(api: SwarmApi, replicas: int = 2) -> Operator:
    """Workers that run four jobs, and the operator that has seen to it."""
    api.stateful_set(replicas)
    operator = Operator(api)
    assert operator.settle().step.is_converged
    api.requests.clear()
    return operator


# ------------------------------------------------------------------------------------------ what is written


def test_the_first_turn_assigns_all_and_the_second_asks_and_is_done(api: SwarmApi) -> None:
    api.stateful_set(2)
    operator = Operator(api)
    first = operator.turn()
    assert first.wrote and first.again == 0.0
    assert api.lists() == {"w-0": "ab", "w-1": "cd"} and api.versions() == {"w-0": 0, "w-1": 0}
    metadata = api.get(CONFIGMAPS, HEAD, "ns")["metadata"]
    assert metadata["annotations"] == {verbs.MANAGER: "Swarm/main"}
    assert metadata["labels"] == {worker_config.PART_OF: HEAD}
    second = operator.turn()
    assert not second.wrote and second.step.is_converged and second.again is None
    assert api.writes() == ["create statefulsets/w", f"create configmaps/{HEAD}"]


def test_pods_are_read_after_the_configuration_and_asked_after_they_were_read(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.memory.reports.clear()
    operator.turn()
    assert api.requests == [
        f"get configmaps/{HEAD}",
        f"list configmaps/{worker_config.PART_OF}={HEAD}",
        "list statefulsets/swarm-worker=true",
        "list deployments/swarm-worker=true",
        "list pods/app=w",
        "ask pods/w-0:8390/config",
        "ask pods/w-1:8390/config",
    ]


def test_who_is_known_to_run_what_it_should_is_not_asked_again(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.turn()
    assert not [asked for asked in api.requests if asked.startswith("ask")]


def test_a_job_is_taken_back_confirmed_and_only_then_given_on(api: SwarmApi) -> None:
    operator = at_rest(api)
    api.hung = {"w-0": 0, "w-1": 0}
    api.stateful_set(3)
    assert operator.turn().wrote
    assert api.lists() == {"w-0": "ab", "w-1": "c"} and api.versions()["w-1"] == 1
    waiting = operator.turn()
    assert not waiting.wrote and "w-1" in waiting.step.waits and waiting.again == 0.2
    operator.now += 4.0
    assert operator.turn().again == 1.0, "asked ever less often"
    api.hung = {}
    assert operator.settle().step.is_converged
    assert api.lists() == {"w-0": "ab", "w-1": "c", "w-2": "d"} and api.versions()["w-0"] == 0


def test_in_check_mode_nothing_is_written_and_the_numbers_are_the_same(api: SwarmApi) -> None:
    operator = at_rest(api)
    api.stateful_set(3)
    api.requests.clear()
    planned = operator.turn(check_mode=True)
    assert api.writes() == [] and not planned.wrote
    done = operator.turn()
    assert (planned.step.placement, planned.step.config) == (done.step.placement, done.step.config)


# ------------------------------------------------------------------------------------------ what is not understood


def test_a_configmap_that_somebody_else_keeps_is_refused(api: SwarmApi) -> None:
    at_rest(api)
    with pytest.raises(Malformed, match="Swarm/main keeps this ConfigMap: name another one, or remove its annotation"):
        Operator(api, "abcde", manager="ansible").turn()
    assert api.writes() == []


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"config.yml": "workloads: [w-0]"}, f"ns/{HEAD}: config.yml: workloads"),
        ({"config.yml": "workloads: {w-0: {jobs: 7, version: 0}}"}, "workloads.w-0"),
        ({"config.yml": "workloads: {"}, "give valid YAML"),
        ({"config.yml": "workloads: {}", "handover.json": "[]"}, "handover.json"),
    ],
)
def test_what_is_malformed_is_never_overwritten(api: SwarmApi, data: dict[str, str], told: str) -> None:
    api.stateful_set(2)
    api.configmap_of(HEAD, data)
    api.requests.clear()
    with pytest.raises(Malformed) as refused:
        Operator(api).turn()
    assert told in str(refused.value)
    assert api.writes() == [] and api.data() == data


def test_what_is_unknown_is_kept(api: SwarmApi) -> None:
    api.stateful_set(3)
    text = "owner: video\nworkloads: {w-0: {jobs: [a, b, c], version: 4, note: {by: hand}}}\n"
    api.configmap_of(HEAD, {"config.yml": text, "other": "kept"}, annotations={"team": "video"}, labels={"tier": "one"})
    operator = Operator(api)
    operator.settle()
    assert api.document()["owner"] == "video"
    assert api.document()["workloads"]["w-0"]["note"] == {"by": "hand"}
    assert api.data()["other"] == "kept"
    metadata = api.get(CONFIGMAPS, HEAD, "ns")["metadata"]
    assert metadata["annotations"]["team"] == "video" and metadata["labels"]["tier"] == "one"
    record = json.loads(api.data()["handover.json"])
    api.configmap_of(HEAD, {**api.data(), "handover.json": json.dumps({**record, "later": [1]})})
    operator.jobs("abcdefg")
    assert operator.turn().wrote
    assert json.loads(api.data()["handover.json"])["later"] == [1]


# ------------------------------------------------------------------------------------------ who is faster


def test_who_was_slower_has_done_nothing(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.jobs("abcdef")

    def edit(told: str) -> None:
        api.before_write = None
        api.configmap_of(HEAD, {**api.data(), "other": "faster"})

    api.before_write = edit
    with pytest.raises(Stale, match="was changed meanwhile"):
        operator.turn()
    assert api.lists() == {"w-0": "ab", "w-1": "cd"}
    operator.settle()
    assert api.data()["other"] == "faster" and len(api.lists()["w-0"]) == 3


def test_two_that_make_the_configmap_at_once(api: SwarmApi) -> None:
    api.stateful_set(2)
    one, other, same = Operator(api), Operator(api, "abcde"), Operator(api, "abcde")

    def race(told: str) -> None:
        api.before_write = None
        assert other.turn().wrote

    api.before_write = race
    with pytest.raises(Stale):
        one.turn()
    assert api.lists() == {"w-0": "abc", "w-1": "de"}
    api.delete(CONFIGMAPS, HEAD, "ns")
    api.hung = {"w-0": -1, "w-1": -1}  # no version: they tell none
    api.before_write = race
    assert same.turn().wrote, "the very same decision: it is done"


def test_an_answer_that_is_lost_is_found_to_have_been_written(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.jobs("abcdef")
    api.faults = ["replace lost-applied"]
    assert operator.turn().wrote
    assert api.versions() == {"w-0": 1, "w-1": 1}
    assert operator.settle().step.is_converged and api.versions() == {"w-0": 1, "w-1": 1}


# ------------------------------------------------------------------------------------------ who does not report


def test_who_does_not_report_is_evicted_after_its_pod_was_written_down(api: SwarmApi) -> None:
    api.stateful_set(2, annotations=SILENT)
    operator = Operator(api)
    before = api.uid("w-0")
    assert operator.turn().wrote and operator.turn().wrote
    assert json.loads(api.data()["handover.json"])["workers"]["w-0"]["barrier"] == [before, 0]
    third = operator.turn()
    assert [(each.worker, each.uid) for each in third.evicted] == [("w-0", before)], "one at a time"
    assert operator.turn().evicted == ()
    api.make_pods()
    assert [each.worker for each in operator.turn().evicted] == ["w-1"]
    api.make_pods()
    assert operator.settle().step.waits.keys() == {"w-0", "w-1"}, "nobody saw that the old Pods had ended"
    assert operator.turn(has_ended=lambda _uid: True).step.is_converged


def test_an_eviction_that_is_not_allowed_now_is_tried_again(api: SwarmApi) -> None:
    api.stateful_set(1, annotations=SILENT)
    operator = Operator(api)
    operator.turn()
    operator.turn()
    api.guarded = {"w-0"}
    turn = operator.turn()
    assert turn.blocked == ("w-0",) and turn.evicted == () and turn.again == verbs.LATER
    api.guarded = set()
    assert [each.worker for each in operator.turn().evicted] == ["w-0"]


def test_a_pod_that_went_by_itself_needs_no_eviction(api: SwarmApi) -> None:
    api.stateful_set(1, annotations=SILENT)
    operator = Operator(api)
    operator.turn()
    operator.turn()
    api.before_write = lambda told: api.kill("w-0") if told.startswith("evict") else None
    assert operator.turn().evicted == ()


def test_without_refresh_nobody_is_evicted(api: SwarmApi) -> None:
    api.stateful_set(1, annotations=SILENT)
    operator = Operator(api)
    for _turn in range(4):
        turn = operator.turn(refresh=False)
    assert turn.evicted == () and [each.worker for each in turn.step.evict] == ["w-0"]
    assert not [asked for asked in api.requests if asked.startswith("evict")]


def test_who_may_evict_no_longer_is_asked_right_before(api: SwarmApi) -> None:
    api.stateful_set(1, annotations=SILENT)
    operator = Operator(api)
    operator.turn()
    operator.turn()

    def lost() -> float:
        raise Stale("no leader any more")

    with pytest.raises(Stale, match="no leader"):
        operator.turn(check=lost)
    assert not [asked for asked in api.requests if asked.startswith("evict")]


def test_who_has_not_confirmed_for_long_is_evicted(api: SwarmApi) -> None:
    operator = at_rest(api)
    api.hung = {"w-1": 0}
    operator.jobs("abc")
    operator.turn()
    operator.turn()
    operator.now += 59
    assert operator.turn().evicted == ()
    operator.now += 2
    assert operator.turn().wrote, "the Pod is written down"
    assert [each.worker for each in operator.turn().evicted] == ["w-1"]
    operator.spec = replace(operator.spec, confirm_seconds=0)
    api.make_pods()
    operator.now += 600
    assert operator.turn().evicted == ()


def test_the_annotation_of_a_pod_is_as_good_as_an_answer(api: SwarmApi) -> None:
    api.stateful_set(1, annotations={"muster.dev/applied-version": ""})
    operator = Operator(api)
    assert not operator.settle().step.is_converged
    api.annotate("w-0", 0)
    assert operator.turn().step.is_converged
    api.kill("w-0")
    api.make_pods()
    assert not operator.settle().step.is_converged, "what its predecessor told is not its own"


@pytest.mark.parametrize("answer", [[], {"uid": "x", "version": 0}, {"version": 0}, {"uid": "", "version": True}])
def test_an_odd_answer_is_none(api: SwarmApi, answer: Any) -> None:
    api.stateful_set(1)
    operator = Operator(api)
    uid = api.uid("w-0")
    told = {**answer, "uid": uid} if isinstance(answer, dict) and answer.get("uid") == "" else answer
    api.pages["w-0"] = lambda: told
    assert "does not answer" in operator.settle().step.waits["w-0"]


# ------------------------------------------------------------------------------------------ who is gone


def test_a_pod_that_vanished_may_run_on_for_a_while(api: SwarmApi) -> None:
    operator = at_rest(api)
    api.stateful_set(1)
    assert operator.turn().wrote
    assert api.lists() == {"w-0": "ab", "w-1": ""}
    waiting = operator.turn()
    assert "may still run" in waiting.step.waits["w-1"] and waiting.again == verbs.LATER
    operator.now += verbs.LINGER_SECONDS + 1
    operator.settle()
    assert api.lists() == {"w-0": "abcd"}


def test_a_pod_that_was_seen_to_end_may_not(api: SwarmApi) -> None:
    operator = at_rest(api)
    gone = api.uid("w-1")
    api.stateful_set(1)
    revoked = operator.turn(has_ended=lambda uid: uid == gone)
    assert revoked.wrote and not revoked.sights["w-1"].lingers
    assert operator.turn(has_ended=lambda uid: uid == gone).wrote
    assert api.lists() == {"w-0": "abcd"}


def test_who_has_just_started_does_not_know_how_a_pod_ended(api: SwarmApi) -> None:
    at_rest(api)
    api.stateful_set(1)
    successor = Operator(api)
    successor.turn()
    assert "may still run" in successor.turn().step.waits["w-1"]
    successor.now += verbs.LINGER_SECONDS + 1
    assert successor.turn().wrote


def test_who_looks_late_for_the_first_time_does_not_know_it_either(api: SwarmApi) -> None:
    at_rest(api)
    successor = Operator(api)
    successor.now += verbs.LINGER_SECONDS + 1
    api.stateful_set(1)
    successor.turn()
    assert "may still run" in successor.turn().step.waits["w-1"]


def test_a_configuration_that_was_deleted_is_had_again_from_workers_that_run_nothing(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.jobs("abcdef")
    assert operator.settle().step.is_converged and api.versions()["w-0"] == 1
    api.hung = {"w-0": 1, "w-1": 1}
    api.delete(CONFIGMAPS, HEAD, "ns")
    assert operator.turn().wrote
    assert api.lists() == {"w-0": "", "w-1": ""} and min(api.versions().values()) > 1
    assert not operator.turn().wrote
    api.hung = {}
    assert operator.settle().step.is_converged
    assert "".join(api.lists().values()) == "abcdef"


def test_who_has_only_just_started_goes_by_the_status_and_by_what_workers_run(api: SwarmApi) -> None:
    api.stateful_set(2)
    Operator(api).turn(history=lambda: 6)
    assert api.lists() == {"w-0": "", "w-1": ""} and min(api.versions().values()) > 6


def test_who_knows_of_no_configuration_asks_the_workers_before_it_makes_one(api: SwarmApi) -> None:
    """It was deleted while nobody was there, and no status tells of it."""
    at_rest(api)
    api.hung = {"w-0": 0, "w-1": 0}
    api.delete(CONFIGMAPS, HEAD, "ns")
    operator = Operator(api, "abcdef")
    operator.turn()
    assert api.lists() == {"w-0": "", "w-1": ""}
    assert not operator.turn().wrote
    api.hung = {}
    assert operator.settle().step.is_converged


def test_a_version_that_nobody_has_heard_of_was_not_given_either(api: SwarmApi) -> None:
    """A turn's own write, deleted before it was read again: a worker that tells of it has confirmed nothing."""
    operator = at_rest(api)
    operator.jobs("abcdef")
    assert operator.turn().wrote and operator.memory.floor == 0
    api.hung = {"w-0": 1, "w-1": 1}
    api.delete(CONFIGMAPS, HEAD, "ns")
    operator.turn()
    assert not operator.turn().wrote, "version 1 is not what they have to run"


def test_who_has_never_seen_the_configuration_that_is_gone_waits_for_pods_of_which_nobody_knows(api: SwarmApi) -> None:
    at_rest(api)
    api.kill("w-1")  # by force: its process goes on
    api.delete(CONFIGMAPS, HEAD, "ns")
    operator = Operator(api)
    operator.memory.is_patient = True
    for passed in (0, verbs.LINGER_SECONDS - 1):
        operator.now += passed
        with pytest.raises(Lost) as lost:
            operator.turn(history=lambda: 0)
        assert api.lists() == {} and lost.value.seconds == verbs.LINGER_SECONDS - passed
    operator.now += 1
    operator.turn(history=lambda: 0)
    assert api.lists() == {"w-0": "ab"}


def test_a_pod_that_vanished_is_remembered_without_a_configuration(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.jobs("abcdef")
    api.kill("w-1")
    api.stateful_set(1, made=False)
    operator.turn()
    api.delete(CONFIGMAPS, HEAD, "ns")
    operator.turn()
    for _turn in range(3):
        last = operator.turn()
    assert "may still run" in last.step.waits["w-1"] and api.lists()["w-0"] == ""
    operator.now += verbs.LINGER_SECONDS + 1
    assert operator.settle().step.is_converged and api.lists() == {"w-0": "abcdef"}


# ------------------------------------------------------------------------------------------ several ConfigMaps


def test_a_turn_that_somebody_has_not_finished_is_closed_first(api: SwarmApi) -> None:
    api.stateful_set(2)
    record = {"version": 1, "floor": -1, "workers": {}}
    marks = {"labels": {worker_config.PART_OF: HEAD}}
    for name, turn, worker, job in ((HEAD, 3, "w-0", "a"), (f"{HEAD}-1", 2, "w-1", "b")):
        text = f"workloads: {{{worker}: {{jobs: [{job}], version: 0}}}}"
        api.configmap_of(name, {"config.yml": text, "handover.json": json.dumps({**record, "turn": turn})}, **marks)
    operator = Operator(api, "abc")
    with pytest.raises(Stale, match="a turn had to be closed"):
        operator.turn()
    assert api.lists() == {"w-0": "a"} and api.lists(f"{HEAD}-1") == {"w-1": "b"}
    assert json.loads(api.data(f"{HEAD}-1")["handover.json"])["turn"] == 3
    assert operator.settle().step.is_converged
    assert sorted("".join(api.lists().values()) + "".join(api.lists(f"{HEAD}-1").values())) == ["a", "b", "c"]


def test_more_than_one_configmap_holds_goes_into_several_the_head_first(
    api: SwarmApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_config, "PART_BYTES", 2600)
    api.stateful_set(4)
    operator = Operator(api, "abcdefgh")
    with pytest.raises(Stale, match="the head has to be there first"):
        operator.turn()
    with pytest.raises(Stale, match="another part had to be made"):
        operator.turn()
    turn = operator.settle()
    assert turn.step.is_converged and turn.parts > 1
    made = [worker_config.part_name(HEAD, number) for number in range(turn.parts)]
    asked = [asked for asked in api.writes() if "configmaps" in asked]
    assert asked == [f"create configmaps/{name}" for name in made] + [f"replace configmaps/{name}" for name in made]
    everything = [worker for name in made for worker in api.lists(name)]
    assert sorted(everything) == ["w-0", "w-1", "w-2", "w-3"]


def test_a_name_that_is_needed_for_a_part_and_taken_is_left_alone(
    api: SwarmApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_config, "PART_BYTES", 2600)
    api.configmap_of(f"{HEAD}-1", {"config.yml": "somebody: else"})
    api.stateful_set(4)
    operator = Operator(api, "abcdefgh")
    with pytest.raises(Stale, match="the head has to be there first"):
        operator.turn()
    with pytest.raises(Malformed, match="remove or rename it: its name is needed"):
        operator.turn()
    assert api.data(f"{HEAD}-1") == {"config.yml": "somebody: else"}


# ------------------------------------------------------------------------------------------ who the workers are


def test_workers_of_a_stateful_set_that_grows_come_together(api: SwarmApi) -> None:
    operator = at_rest(api)
    api.stateful_set(4, made=False)
    api.make_pods(ready=False)
    assert not operator.turn().wrote
    api.ready("w-2")
    waiting = operator.turn()
    assert not waiting.wrote and waiting.pool.coming == {"w-2"} and waiting.again == verbs.LATER
    operator.now += operator.spec.grace_seconds + 1
    assert operator.settle().step.is_converged
    assert api.versions() == {"w-0": 0, "w-1": 1, "w-2": 0}, "moved once, and not back and forth"
    api.ready("w-3")
    assert operator.settle().step.is_converged
    assert {len(jobs) for jobs in api.lists().values()} == {1} and operator.memory.coming is None


def test_the_share_of_a_deployments_pod_goes_to_its_successor(api: SwarmApi) -> None:
    api.deployment(2)
    api.deployed("aaaaa", "bbbbb")
    operator = Operator(api)
    assert operator.settle().step.is_converged
    before = api.lists()
    gone, stays = (f"d-7d4b9c6f5-{suffix}" for suffix in ("aaaaa", "bbbbb"))
    uid = api.uid(gone)
    api.kill(gone)
    ended = {"has_ended": lambda seen: seen == uid}
    vacant = operator.turn(**ended)
    assert vacant.pool.vacant == {gone} and not vacant.wrote
    api.deployed("ccccc")
    for _turn in range(3):
        operator.turn(**ended)
    assert api.lists() == {"d-7d4b9c6f5-ccccc": before[gone], stays: before[stays]}


def test_a_place_that_nobody_takes_is_given_up_after_the_grace_time(api: SwarmApi) -> None:
    api.deployment(2)
    api.deployed("aaaaa", "bbbbb")
    operator = Operator(api)
    operator.settle()
    api.kill("d-7d4b9c6f5-aaaaa")
    assert operator.settle().pool.vacant
    operator.now += operator.spec.grace_seconds + 1
    operator.settle()
    assert api.lists() == {"d-7d4b9c6f5-bbbbb": "abcd"}


def test_a_worker_that_no_workload_owns_any_more_is_looked_for_by_its_name(api: SwarmApi) -> None:
    operator = at_rest(api)
    api.stateful_set(1, name="v")
    there = api.objects.pop((STATEFUL_SETS.plural, "ns", "w"))
    assert operator.turn().wrote
    assert "get pods/w-0" in api.requests and there
    api.hung = {"w-0": 0}
    waiting = operator.settle()
    assert "w-0" in waiting.step.waits and api.lists()["v-0"] == "cd"


def test_a_stateful_set_is_scaled_down_after_its_last_workers_were_drained(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.spec = replace(operator.spec, replicas=1)
    api.hung = {"w-1": 0}
    operator.turn()
    assert operator.turn().scaled is None
    assert api.objects[STATEFUL_SETS.plural, "ns", "w"]["spec"]["replicas"] == 2
    api.hung = {}
    assert operator.settle().scaled == 1
    assert api.objects[STATEFUL_SETS.plural, "ns", "w"]["spec"]["replicas"] == 1
    assert api.lists() == {"w-0": "abcd"}


def test_it_grows_with_the_number_of_jobs(api: SwarmApi) -> None:
    operator = at_rest(api)
    scaling = {"jobsPerWorker": 2, "min": 1, "max": 3}
    operator.spec = replace(operator.spec, scaling=swarm.parse_spec({"scaling": scaling}).scaling)
    operator.jobs("abcdefgh")
    assert operator.settle().scaled == 3


def test_who_scales_by_hand_at_the_same_time_is_not_overruled(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.spec = replace(operator.spec, replicas=3)
    api.requests.clear()

    class Slow(SwarmApi):
        def get(self, resource: Any, name: str, namespace: str | None = None, subresource: str = "") -> Any:
            if subresource == "scale":
                api.stateful_set(5, made=False)
            return api.get(resource, name, namespace, subresource)

        def __getattribute__(self, asked: str) -> Any:
            return super().__getattribute__(asked) if asked in ("get", "__class__") else getattr(api, asked)

    operator.api = Slow()
    with pytest.raises(Stale, match="was scaled meanwhile"):
        operator.settle()
    assert api.objects[STATEFUL_SETS.plural, "ns", "w"]["spec"]["replicas"] == 5


# ------------------------------------------------------------------------------------------ jobs


def test_jobs_of_the_spec_and_of_several_configmaps(api: SwarmApi) -> None:
    api.jobs("[a, {name: b, weight: 3}]")
    api.jobs("jobs: [c]", "more")
    sources = [{"configMap": "streams"}, {"configMap": "more"}, {"configMap": "none", "optional": True}]
    jobs, told = verbs.read_jobs(api, "ns", swarm.parse_spec({"jobs": ["d"], "jobsFrom": sources}))
    assert [(job.name, job.weight) for job in jobs] == [("d", 1), ("a", 1), ("b", 3), ("c", 1)]
    assert [(source["configMap"], source["jobs"]) for source in told] == [("streams", 2), ("more", 1)]
    assert all(source["resourceVersion"] for source in told)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"jobsFrom": [{"configMap": "none"}]}, r"spec.jobsFrom\[0\].configMap is 'none': create it"),
        ({"jobsFrom": [{"configMap": "streams", "key": "x"}]}, "ConfigMap streams has no such key"),
        ({"jobs": ["b"], "jobsFrom": [{"configMap": "streams"}]}, "is 'b': name each job once"),
        ({"jobsFrom": [{"configMap": "odd"}]}, r"ns/odd: jobs.yml\[1\].weight is 0"),
    ],
)
def test_jobs_that_are_not_there_or_there_twice(api: SwarmApi, spec: dict[str, Any], told: str) -> None:
    api.jobs("[a, b]")
    api.jobs("[a, {name: b, weight: 0}]", "odd")
    with pytest.raises(Malformed, match=told):
        verbs.read_jobs(api, "ns", swarm.parse_spec(spec))


def test_what_may_not_be_read_is_said_and_nothing_is_done(api: SwarmApi) -> None:
    operator = at_rest(api)
    operator.jobs("abcdef")
    api.faults = ["list 403"]
    with pytest.raises(Forbidden):
        operator.turn()
    assert api.writes() == []


def test_deployments_and_stateful_sets_make_one_pool(api: SwarmApi) -> None:
    api.stateful_set(1)
    api.deployment(1)
    api.deployed("aaaaa")
    assert Operator(api).settle().step.is_converged
    assert api.lists() == {"d-7d4b9c6f5-aaaaa": "ab", "w-0": "cd"}
    assert api.objects[DEPLOYMENTS.plural, "ns", "d"]

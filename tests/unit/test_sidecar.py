# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar in somebody else's workload: what is written, what is refused, how far a roll-out is, in examples."""

from __future__ import annotations

import copy
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import rollout, sidecar
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sidecar import RECORD, attached, detached
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import sidecar as verbs
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

Object = dict[str, Any]
HERE = {"kind": "Deployment", "name": "web", "namespace": "ns"}
WISH = {"image": "muster:1", "semaphore": "sem"}
DEPLOYMENTS = verbs.KINDS["Deployment"]


def workload(**spec: Any) -> Object:
    pod = {
        "initContainers": [{"name": "prepare", "image": "example.org/prepare"}],
        "containers": [{"name": "app", "image": "example.org/app"}, {"name": "log", "image": "example.org/log"}],
        "volumes": [{"name": "data", "emptyDir": {}}],
    }
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod}
    metadata = {"name": "web", "namespace": "ns", "annotations": {"own": "note"}}
    spec = {"replicas": 3, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def pod_of(obj: Object) -> Object:
    spec: Object = obj["spec"]["template"]["spec"]
    return spec


def mine(obj: Object) -> Object:
    return next(one for one in pod_of(obj)["initContainers"] if one["name"] == "muster-distributor")


def variables(obj: Object) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in mine(obj)["env"]}


@pytest.fixture
def api() -> MemoryApi:
    api = MemoryApi()
    api.create(DEPLOYMENTS, workload())
    return api


def ensure(api: MemoryApi, **wishes: Any) -> Object:
    return verbs.ensure(api, **{**HERE, **({} if wishes.get("state") == "absent" else WISH), **wishes})


def stored(api: MemoryApi) -> Object:
    return api.get(DEPLOYMENTS, "web", "ns")


def written(api: MemoryApi) -> list[str]:
    return [one for one in api.requests if one.split()[0] in ("replace", "create", "delete")]


# ------------------------------------------------------------------------------------------ what is written


def test_the_sidecar_is_a_native_one_and_comes_last():
    inits = pod_of(attached(workload(), verbs.wanted(**WISH)))["initContainers"]
    assert [one["name"] for one in inits] == ["prepare", "muster-distributor"]
    assert inits[1]["restartPolicy"] == "Always"


def test_only_the_sidecar_has_the_token_and_it_has_few_rights():
    there = attached(workload(), verbs.wanted(**WISH))
    mounts = {
        one["name"]: [m["name"] for m in one.get("volumeMounts", ())] for one in sidecar._containers(pod_of(there))
    }
    assert mounts == {
        "prepare": [],
        "muster-distributor": ["muster-claim", "muster-token"],
        "app": ["muster-claim"],
        "log": ["muster-claim"],
    }
    assert "automountServiceAccountToken" not in pod_of(there)
    security = mine(there)["securityContext"]
    assert security["runAsNonRoot"] and security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"]
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({"semaphore": "sem"}, "sem"),
        ({"semaphore": "sem", "resource": "gpu"}, "sem:gpu=1"),
        ({"semaphore": "sem", "resources": {"gpu": 2, "db": "1"}}, "sem:db=1,gpu=2"),
        ({"semaphore": "sem", "resource": "a=5"}, "sem:a=5=1"),
        ({"semaphores": [{"name": "two", "resources": {"x": 1}}, {"name": "one", "resources": None}]}, "one two:x=1"),
    ],
)
def test_what_is_wanted_is_told_as_the_command_line_reads_it(wish, told):
    assert variables(attached(workload(), verbs.wanted(image="muster:1", **wish)))["MUSTER_CONFIGMAP"] == told


def test_the_gate_is_the_probe_that_waits_for_ever():
    for gate, path in ((True, "/claim"), (False, "/readyz")):
        probe = mine(attached(workload(), verbs.wanted(**WISH, gate=gate)))["startupProbe"]
        assert probe["httpGet"]["path"] == path
        assert (probe["failureThreshold"] * probe["periodSeconds"] > 50 * 365 * 86400) == gate


def test_settings_reach_the_process():
    wish = {"engine": "tickets", "port": 9000, "claim_file": "/claims/c.env", "annotate_pod": True}
    there = attached(workload(), verbs.wanted(**WISH, **wish, release_on_term=False, env=[{"name": "X", "value": "1"}]))
    told = variables(there)
    assert told["MUSTER_ENGINE"] == "tickets"
    assert told["MUSTER_LISTEN"] == "0.0.0.0:9000"
    assert (told["MUSTER_CLAIM_FILE"], told["MUSTER_ANNOTATE_POD"]) == ("/claims/c.env", "true")
    assert (told["MUSTER_RELEASE_ON_TERM"], told["X"]) == ("false", "1")
    assert told["POD_UID"]["fieldRef"]["fieldPath"] == "metadata.uid"
    assert {"name": "MUSTER_CLAIM_FILE", "value": "/claims/c.env"} in pod_of(there)["containers"][0]["env"]


def test_it_is_put_right_where_it_is_when_the_user_has_put_others_behind_it():
    there = attached(workload(), verbs.wanted(**WISH))
    pod_of(there)["initContainers"].append({"name": "later", "image": "example.org/later"})
    mine(there)["image"] = "muster:old"
    names = [one["name"] for one in pod_of(attached(there, verbs.wanted(**WISH)))["initContainers"]]
    assert names == ["prepare", "muster-distributor", "later"]


def test_a_container_that_is_no_longer_named_is_no_longer_told():
    all_of_them = attached(workload(), verbs.wanted(**WISH))
    one = attached(all_of_them, verbs.wanted(**WISH, containers=["log"]))
    assert pod_of(one)["containers"][0] == pod_of(workload())["containers"][0]
    assert sidecar.told(one) == ("log",)
    assert detached(one) == workload()


def test_an_init_container_of_the_users_may_be_told():
    there = attached(workload(), verbs.wanted(**WISH, containers=["prepare", "app"]))
    assert sidecar.told(there) == ("prepare", "app")
    assert detached(there) == workload()


def test_the_users_hands_on_our_token_are_put_right():
    there = attached(workload(), verbs.wanted(**WISH))
    taken = copy.deepcopy(there)
    pod_of(taken)["containers"][1]["volumeMounts"].append({"name": "muster-token", "mountPath": "/token"})
    assert attached(taken, verbs.wanted(**WISH)) == there
    assert detached(taken) == workload()


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"image": ""}, "image is '': give the image"),
        ({"image": " muster"}, "image is ' muster'"),
        ({"semaphore": None}, "name at least one semaphore"),
        ({"semaphore": "Upper"}, "semaphore is 'Upper'"),
        ({"semaphore": "a b"}, "semaphore is 'a b'"),
        ({"resource": "a,b"}, "resources of sem is 'a,b': give names without commas"),
        ({"resources": {"gpu": 0}}, "resources of sem is {'gpu': 0}"),
        ({"resources": {}}, "resources of sem is {}: name 1 to 16"),
        ({"priority": 1001}, "priority is 1001"),
        ({"priority": 1, "engine": "tickets"}, "give engine=annotations"),
        ({"port": 0}, "port is 0"),
        ({"claim_file": "claim.json"}, "claim_file is 'claim.json': give an absolute path"),
        ({"claim_file": "/claim.json"}, "in a directory"),
        ({"claim_file": "//run/claim.json"}, "give an absolute path"),
        ({"claim_file": "/run/../claim.json"}, "give an absolute path"),
        ({"claim_file": "/run/a:b/claim.json"}, "give an absolute path"),
        ({"claim_file": "/run/muster/claim"}, "let it end in .json"),
        ({"env": [{"name": "POD_UID", "value": "1"}]}, "env is {'name': 'POD_UID'"),
        ({"env": [{"value": "1"}]}, "give each a name"),
        ({"semaphores": [{"name": "sem"}]}, "semaphores is 'sem': name each once"),
        ({"containers": ["web"]}, "containers is 'web': the Pods have no such container, but prepare, app, log"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_the_remedy(wish, said):
    with pytest.raises(Malformed, match=re.escape(said)):
        attached(workload(), verbs.wanted(**{**WISH, **wish}))


@pytest.mark.parametrize(
    ("container", "said"),
    [
        ({"name": "muster-distributor"}, "containers[].name is 'muster-distributor'"),
        (
            {"ports": [{"containerPort": 8377}]},
            "containers[app].ports[].containerPort is 8377: give the sidecar another",
        ),
        ({"ports": [{"containerPort": 80, "name": "muster"}]}, "containers[app].ports[].name is 'muster'"),
        ({"env": [{"name": "MUSTER_CLAIM_FILE", "value": "/x"}]}, "containers[app].env[MUSTER_CLAIM_FILE] is '/x'"),
        ({"volumeMounts": [{"name": "data", "mountPath": "/run/muster/"}]}, "mountPath is '/run/muster/'"),
        ({"volumeMounts": [{"name": "data", "mountPath": "/run/muster/in"}]}, "mountPath is '/run/muster/in'"),
    ],
)
def test_what_the_user_uses_is_refused_by_name(container, said):
    theirs = workload()
    pod_of(theirs)["containers"][0].update(container)
    before = copy.deepcopy(theirs)
    with pytest.raises(Malformed, match=re.escape(said)):
        attached(theirs, verbs.wanted(**WISH))
    assert detached(theirs) == theirs == before


def test_a_volume_of_that_name_is_refused_also_when_it_comes_from_a_claim_template():
    pod = workload()
    pod_of(pod)["volumes"][0]["name"] = "muster-claim"
    claimed = workload(volumeClaimTemplates=[{"metadata": {"name": "muster-token"}}])
    for theirs, name in ((pod, "muster-claim"), (claimed, "muster-token")):
        with pytest.raises(Malformed, match=f"volumes.*{name}"):
            attached(theirs, verbs.wanted(**WISH))


def test_a_path_or_variable_of_a_container_that_is_not_told_is_fine():
    theirs = workload()
    mount = {"name": "data", "mountPath": "/run/muster"}
    pod_of(theirs)["containers"][1].update(env=[{"name": "MUSTER_CLAIM_FILE"}], volumeMounts=[mount])
    there = attached(theirs, verbs.wanted(**WISH, containers=["app"]))
    assert pod_of(there)["containers"][1] == pod_of(theirs)["containers"][1]
    assert detached(there) == theirs


# ------------------------------------------------------------------------------------------ the verb


def test_attach_again_change_detach_again(api):
    was = stored(api)
    made = ensure(api)
    assert (made["changed"], made["before"], made["containers"]) == (True, {}, ["app", "log"])
    assert made["reasons"] == ["the sidecar was added, and told to app, log"]
    assert made["service_account"] == "default"
    api.requests.clear()
    again = ensure(api)
    assert (again["changed"], again["reasons"], again["before"]) == (False, [], again["after"])
    assert api.requests == ["get deployments/web"]
    changed = ensure(api, gate=True)
    assert (changed["changed"], changed["reasons"]) == (True, ["the sidecar was brought up to date"])
    assert changed["before"]["initContainer"]["startupProbe"] != changed["after"]["initContainer"]["startupProbe"]
    gone = ensure(api, state="absent")
    assert (gone["changed"], gone["after"], gone["reasons"]) == (True, {}, ["the sidecar was taken out"])
    assert ensure(api, state="absent")["changed"] is False
    now = stored(api)
    assert (now["spec"], now["metadata"]["annotations"]) == (was["spec"], was["metadata"]["annotations"])


def test_what_somebody_else_changed_is_put_right_and_told_in_the_diff(api):
    made = ensure(api)
    theirs = stored(api)
    mine(theirs)["image"] = "evil:1"
    api.replace(DEPLOYMENTS, theirs)
    mended = ensure(api)
    assert mended["reasons"] == ["what somebody else changed in the sidecar was put right"]
    assert mended["before"]["initContainer"]["image"] == "evil:1"
    assert mended["after"] == made["after"]


def test_check_mode_says_the_same_and_writes_nothing(api):
    for wishes in ({}, {"state": "absent"}):
        if wishes:
            ensure(api)
        before, version = stored(api), api.version
        told = ensure(api, **wishes, check_mode=True, wait=True)
        assert (stored(api), api.version) == (before, version)
        assert told["changed"] is True
        assert {**ensure(api, **wishes)} == told


def test_a_workload_that_is_not_there(api):
    with pytest.raises(MusterError, match="Deployment ns/gone does not exist: deploy it first"):
        ensure(api, name="gone")
    absent = ensure(api, name="gone", state="absent")
    assert (absent["changed"], absent["service_account"]) == (False, None)
    with pytest.raises(Malformed, match="kind is 'Job': give one of Deployment, StatefulSet, DaemonSet"):
        ensure(api, kind="Job")


@pytest.mark.parametrize(
    "faults",
    [["replace 409"], ["dry-run 409"], ["dry-run 500", "replace 409"], ["replace lost"], ["replace lost-applied"]],
)
def test_it_is_decided_anew_when_somebody_was_faster_or_an_answer_is_lost(api, faults):
    api.faults = list(faults)
    assert ensure(api)["changed"] is True
    assert api.faults == []
    assert len(written(api)) == 1 + sum(fault in ("replace 409", "replace lost") for fault in faults) + 1  # and create
    assert ensure(api)["changed"] is False


def test_what_a_racing_writer_changes_is_kept(api):
    def race(request: str) -> None:
        if request == "replace web":
            api.before_write = None
            theirs = stored(api)
            pod_of(theirs)["containers"][0]["image"] = "example.org/app:next"
            api.replace(DEPLOYMENTS, theirs)

    api.before_write = race
    ensure(api)
    assert pod_of(stored(api))["containers"][0]["image"] == "example.org/app:next"
    assert mine(stored(api))


class Changing(MemoryApi):
    """An API server that makes something else of what is written."""

    def replace(self, resource: Any, obj: Object, subresource: str = "", *, dry_run: bool = False) -> Object:
        return super().replace(resource, self.change(copy.deepcopy(obj)), subresource, dry_run=dry_run)

    def change(self, obj: Object) -> Object:
        raise NotImplementedError


def test_a_server_without_native_sidecars_is_found_out_before_anything_is_written():
    class Old(Changing):
        def change(self, obj: Object) -> Object:
            for one in pod_of(obj)["initContainers"]:
                one.pop("restartPolicy", None)
            return obj

    api = Old()
    api.create(DEPLOYMENTS, workload())
    for check_mode in (True, False):
        with pytest.raises(MusterError, match=r"1\.29 or later"):
            ensure(api, check_mode=check_mode)
    assert written(api) == ["create deployments/web"]


def test_a_default_that_we_do_not_know_is_no_change():
    class New(Changing):
        def change(self, obj: Object) -> Object:
            for one in pod_of(obj).get("initContainers", ()):
                one["invented"] = "later"
            return obj

    api = New()
    api.create(DEPLOYMENTS, workload())
    assert ensure(api)["changed"] is True
    writes = len(written(api))
    for check_mode in (True, False):
        again = ensure(api, check_mode=check_mode)
        assert (again["changed"], again["before"]) == (False, again["after"])
    assert len(written(api)) == writes


# ------------------------------------------------------------------------------------------ the roll-out


def rolled(kind: str, spec: Object, **status: int) -> Object:
    status = {"observedGeneration": 2, **status}
    return {"kind": kind, "metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status}


DONE = {"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}
DAEMONS = {"desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2, "currentNumberScheduled": 2}
HALF = {"updateStrategy": {"rollingUpdate": {"partition": 2}}, "replicas": 3}


@pytest.mark.parametrize(
    ("kind", "spec", "status", "said"),
    [
        ("Deployment", {"replicas": 3}, DONE, None),
        ("Deployment", {"replicas": 0}, {}, None),
        ("Deployment", {"replicas": 3}, {**DONE, "observedGeneration": 1}, "not looked at it"),
        ("Deployment", {"replicas": 3}, {**DONE, "updatedReplicas": 1}, "1 of 3 Pods run"),
        ("Deployment", {"replicas": 3}, {**DONE, "replicas": 4}, "1 old Pods are still"),
        ("Deployment", {"replicas": 3}, {**DONE, "availableReplicas": 2}, "2 of 3 Pods are available"),
        ("StatefulSet", {"replicas": 3}, DONE, None),
        ("StatefulSet", {"replicas": 3}, {**DONE, "updatedReplicas": 2}, "2 of 3 Pods run"),
        ("StatefulSet", HALF, {**DONE, "updatedReplicas": 1}, None),
        ("StatefulSet", HALF, {**DONE, "updatedReplicas": 0}, "0 of 1 Pods run"),
        ("StatefulSet", HALF, {**DONE, "updatedReplicas": 1, "availableReplicas": 1}, "1 of 3 Pods are available"),
        ("DaemonSet", {}, DAEMONS, None),
        ("DaemonSet", {}, {**DAEMONS, "updatedNumberScheduled": 1}, "1 of 2 Pods run"),
        ("DaemonSet", {}, {**DAEMONS, "numberAvailable": 0}, "0 of 2 Pods are available"),
    ],
)
def test_how_far_a_roll_out_is(kind, spec, status, said):
    done, words = rollout.progress(rolled(kind, spec, **status))
    assert done == (said is None)
    assert said is None or said in words


@pytest.mark.parametrize(
    ("kind", "spec", "stuck"),
    [
        ("Deployment", {"replicas": 3}, True),  # 25% of 3 is none
        ("Deployment", {"replicas": 4}, False),
        ("Deployment", {"replicas": 1, "strategy": {"type": "Recreate"}}, False),
        ("Deployment", {"replicas": 3, "strategy": {"rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}}, False),
        ("Deployment", {"replicas": 9, "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": "10%"}}}, True),
        ("Deployment", {"replicas": 9, "strategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}}, False),
        ("StatefulSet", {"replicas": 3}, False),
    ],
)
def test_a_roll_out_that_may_wait_for_itself_is_warned_of(kind, spec, stuck):
    assert rollout.never_makes_room({"kind": kind, "spec": spec}) == stuck


def test_a_warning_only_with_the_gate(api):
    assert ensure(api)["warnings"] == []
    assert "a roll-out gets stuck" in ensure(api, gate=True)["warnings"][0]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"paused": True}, "it is paused"),
        ({"updateStrategy": {"type": "OnDelete"}}, "OnDelete"),
        ({"updateStrategy": {"rollingUpdate": {"partition": 3}}}, "its partition is 3"),
    ],
)
def test_a_workload_that_does_not_roll_out_by_itself_is_warned_of_and_not_waited_for(spec, said):
    api = MemoryApi()
    api.create(DEPLOYMENTS, workload(**spec))
    done = ensure(api, wait=True, wait_timeout=3600)
    assert done["changed"] is True
    assert said in done["warnings"][0]
    assert ensure(api)["warnings"] == []


def status(api: MemoryApi, **fields: int) -> None:
    api.replace(DEPLOYMENTS, {**stored(api), "status": fields})


def when_watched(api: MemoryApi, act: Callable[..., Any], *args: Any, **fields: int) -> None:
    """Do it in a thread of its own, once somebody follows the API."""

    def run() -> None:
        while not api._followers:
            time.sleep(0.001)
        act(*args, **fields)

    threading.Thread(target=run, daemon=True).start()


def test_wait_ends_when_the_last_pod_is_there(api):
    status(api, replicas=3, updatedReplicas=2, availableReplicas=3)
    when_watched(api, status, api, **DONE)
    assert ensure(api, wait=True, wait_timeout=60)["changed"] is True


def test_wait_in_vain_says_what_was_seen_last(api):
    status(api, replicas=3, updatedReplicas=1, availableReplicas=3)
    with pytest.raises(
        TimedOut, match=r"not all of its Pods after 0\.1 s \(wait_timeout\); last seen: 1 of 3 Pods run"
    ):
        ensure(api, wait=True, wait_timeout=0.1)
    with pytest.raises(TimedOut, match="with gate=true a Pod starts when it holds"):
        ensure(api, wait=True, wait_timeout=0.1, gate=True)
    assert mine(stored(api)), "the workload was changed all the same"


def test_wait_ends_when_the_workload_is_removed(api):
    when_watched(api, api.delete, DEPLOYMENTS, "web", "ns")
    with pytest.raises(MusterError, match="was removed while"):
        ensure(api, wait=True, wait_timeout=60)


def test_the_record_says_where_and_no_more():
    record = sidecar.recorded(attached(workload(), verbs.wanted(**WISH)))
    assert record is not None
    assert record.containers == ("app", "log")
    assert RECORD not in detached(attached(workload(), verbs.wanted(**WISH)))["metadata"]["annotations"]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar in workloads of others on a real API server, with its defaults, its validation and its controllers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sidecar import CLAIM_FILE, CONTAINER, RECORD
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import sidecar as verbs
from ansible_collections.muster.coordination.tests.support.fault_proxy import Delay, FaultProxy, Stall
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

pytestmark = pytest.mark.integration
Object = dict[str, Any]

POD: Object = {
    "initContainers": [{"name": "prepare", "image": "example.org/prepare", "command": ["prepare"]}],
    "containers": [
        {
            "name": "app",
            "image": "example.org/app:1",
            "env": [{"name": "FILE", "value": "$(DIRECTORY)/x"}, {"name": "EMPTY", "value": ""}],
            "ports": [{"containerPort": 80}],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
        },
        {"name": "log", "image": "example.org/log"},
    ],
    "volumes": [{"name": "data", "emptyDir": {}}],
}
MORE: dict[str, Object] = {
    "Deployment": {"replicas": 0},
    "StatefulSet": {"replicas": 0, "serviceName": "web"},
    "DaemonSet": {},
}
WISH: Object = {"image": "muster:0.1.0", "semaphore": "sem"}


class Workload:
    """Somebody's workload named web, and what is done to it."""

    def __init__(self, api: Api, namespace: str, kind: str) -> None:
        self.api, self.namespace, self.kind = api, namespace, kind
        labels = {"app": "web"}
        template = {"metadata": {"labels": labels}, "spec": POD}
        spec = {"selector": {"matchLabels": labels}, "template": template, **MORE[kind]}
        metadata = {"name": "web", "namespace": namespace, "annotations": {"own": "note"}}
        api.create(verbs.KINDS[kind], {"metadata": metadata, "spec": spec})

    def read(self) -> Object:
        return self.api.get(verbs.KINDS[self.kind], "web", self.namespace)

    def told(self) -> str:
        """All that a person wrote into it, byte for byte."""
        obj = self.read()
        theirs = ("deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation")  # the server counts
        notes = {k: v for k, v in obj["metadata"]["annotations"].items() if k not in theirs}
        return json.dumps([obj["spec"], notes])

    def edit(self, change: Any) -> None:
        while True:
            obj = self.read()
            change(obj["spec"]["template"]["spec"])
            try:
                self.api.replace(verbs.KINDS[self.kind], obj)
                return
            except ApiError as error:  # a controller was faster
                assert error.status == 409, error

    def ensure(self, **wish: Any) -> Object:
        settings = {} if wish.get("state") == "absent" else WISH
        return verbs.ensure(self.api, kind=self.kind, name="web", namespace=self.namespace, **{**settings, **wish})


@pytest.fixture(params=list(MORE))
def workload(request: pytest.FixtureRequest, api: Api, namespace: str) -> Workload:
    return Workload(api, namespace, request.param)


@pytest.fixture
def deployment(api: Api, namespace: str) -> Workload:
    return Workload(api, namespace, "Deployment")


def mine(spec: Object) -> Object:
    return next(one for one in spec["initContainers"] if one["name"] == CONTAINER)


def test_attached_again_changed_taken_out_and_it_is_what_it_was(workload: Workload) -> None:
    was = workload.told()
    told = workload.ensure(check_mode=True)
    assert workload.told() == was
    made = workload.ensure(wait=True)
    assert told["changed"] is made["changed"] is True
    assert told["after"] == made["after"], "check mode knows what the server makes of it"

    version = workload.read()["metadata"]["resourceVersion"]
    for check_mode in (True, False):
        again = workload.ensure(check_mode=check_mode)
        assert (again["changed"], again["before"], again["reasons"]) == (False, made["after"], [])
    changed = workload.ensure(gate=True, claim_file="/claims/c.env", containers=["app"])
    assert changed["changed"] is True and version != workload.read()["metadata"]["resourceVersion"]
    assert workload.ensure(gate=True, claim_file="/claims/c.env", containers=["app"])["changed"] is False

    assert workload.ensure(state="absent", wait=True)["changed"] is True
    assert workload.told() == was
    assert workload.ensure(state="absent")["changed"] is False


def test_nothing_is_written_and_nothing_asked_for_twice_when_nothing_changes(
    deployment: Workload, kubeconfig: str
) -> None:
    deployment.ensure(wait=True)
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        deployment.api = Api(proxy.credentials())
        assert deployment.ensure()["changed"] is False
        assert [seen.method for seen in proxy.seen] == ["GET"]


def test_what_the_server_writes_in_its_own_way_is_no_change(deployment: Workload) -> None:
    """0.05 cores it calls 50m, 1024Mi 1Gi, and an empty value it leaves out: only the server can know."""
    wish = {
        "compute": {"requests": {"cpu": "0.05", "memory": "1024Mi"}, "limits": {}},
        "env": [
            {"name": "EMPTY", "value": ""},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
    }
    assert deployment.ensure(**wish, wait=True)["changed"] is True
    generation = deployment.read()["metadata"]["generation"]
    for check_mode in (True, False):
        again = deployment.ensure(**wish, check_mode=check_mode)
        assert (again["changed"], again["before"]) == (False, again["after"])
    assert deployment.read()["metadata"]["generation"] == generation


def test_what_the_user_changes_stays_and_what_he_changes_of_ours_is_put_right(workload: Workload) -> None:
    made = workload.ensure(wait=True)

    def theirs(spec: Object) -> None:
        spec["initContainers"].append({"name": "later", "image": "example.org/later"})
        spec["containers"].insert(0, {"name": "new", "image": "example.org/new"})
        spec["containers"][1]["env"].append({"name": "MORE", "value": "1"})
        spec["volumes"].insert(0, {"name": "more", "emptyDir": {}})

    workload.edit(theirs)
    assert workload.ensure()["containers"] == ["new", "app", "log"]

    def of_ours(spec: Object) -> None:
        mine(spec).update(image="example.org/else", command=["sleep"], livenessProbe=None)
        spec["containers"][1]["volumeMounts"] = [
            m for m in spec["containers"][1]["volumeMounts"] if m["name"] == "data"
        ]

    workload.edit(of_ours)
    mended = workload.ensure()
    assert mended["reasons"] == ["what somebody else changed in the sidecar was put right"]
    assert mended["before"]["initContainer"]["command"] == ["sleep"]
    assert mended["after"]["initContainer"] == made["after"]["initContainer"]

    workload.ensure(state="absent")
    left = workload.read()["spec"]["template"]["spec"]
    assert [one["name"] for one in left["initContainers"]] == ["prepare", "later"]
    assert [one["name"] for one in left["containers"]] == ["new", "app", "log"]
    assert [one["name"] for one in left["containers"][1]["env"]] == ["FILE", "EMPTY", "MORE"]
    assert [one["name"] for one in left["volumes"]] == ["more", "data"]
    assert RECORD not in workload.read()["metadata"]["annotations"]


def test_what_is_not_fine_is_said_in_check_mode_already(deployment: Workload) -> None:
    was = deployment.told()
    with pytest.raises(Malformed, match="give the sidecar another `port`"):
        deployment.ensure(port=80, check_mode=True)
    with pytest.raises(ApiError, match="quantities must match"):
        deployment.ensure(compute={"limits": {"memory": "plenty"}}, check_mode=True)
    with pytest.raises(MusterError, match=r"Deployment .*/else does not exist: deploy it first"):
        verbs.ensure(deployment.api, kind="Deployment", name="else", namespace=deployment.namespace, **WISH)
    assert deployment.told() == was


@pytest.mark.parametrize("way", ["--server-side=false", "--server-side"])
def test_who_applies_his_own_manifest_again_leaves_the_sidecar(
    api: Api, namespace: str, kubeconfig: str, way: str
) -> None:
    def apply(image: str) -> None:
        manifest = json.loads(json.dumps(POD).replace("example.org/app:1", image))
        template = {"metadata": {"labels": {"app": "web"}}, "spec": manifest}
        spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template}
        text = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
        command = ["kubectl", "--kubeconfig", kubeconfig, "--namespace", namespace, "apply", way, "-f", "-"]
        done = subprocess.run(command, input=json.dumps(text), text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    apply("example.org/app:1")
    options = {"kind": "Deployment", "name": "web", "namespace": namespace, **WISH}
    assert verbs.ensure(api, **options, wait=True)["changed"] is True
    apply("example.org/app:2")
    assert verbs.ensure(api, **options)["changed"] is False
    spec = api.get(verbs.KINDS["Deployment"], "web", namespace)["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == "example.org/app:2"
    assert mine(spec)


# ---------------------------------------------------------------------------------------------- killed


CALL = """
import json, sys
from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.verbs import sidecar
kubeconfig, options = sys.argv[1:]
sidecar.ensure(Api(Credentials.load({"kubeconfig": kubeconfig}), timeout=600), **json.loads(options))
"""


@pytest.fixture
def proxy(kubeconfig: str) -> Iterator[FaultProxy]:
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        yield proxy


@pytest.mark.parametrize("state", ["present", "absent"])
@pytest.mark.parametrize("path", ["?dryRun=All", "/web"], ids=["asking", "writing"])
@pytest.mark.parametrize("fault", [Delay(3600), Stall()], ids=["before it", "after it"])
def test_killed_at_a_write_it_is_there_or_it_is_not(
    deployment: Workload, proxy: FaultProxy, tmp_path: Path, state: str, path: str, fault: Delay | Stall
) -> None:
    was = deployment.told()
    if state == "absent":
        deployment.ensure(wait=True)
    before = deployment.told()
    if path == "/web":  # let the question pass: the write is the second PUT
        proxy.plan(Delay(0), method="PUT", path="?dryRun=All")
    proxy.plan(fault, method="PUT", path=path)
    options = {"kind": "Deployment", "name": "web", "namespace": deployment.namespace, "state": state, **WISH}
    if state == "absent":
        options = {key: value for key, value in options.items() if key not in WISH}
    process = subprocess.Popen(
        [sys.executable, "-c", CALL, str(proxy.write_kubeconfig(tmp_path / "kubeconfig")), json.dumps(options)]
    )
    try:

        def reached() -> bool:
            return any(seen.fault == fault and seen.carried_out == (fault == Stall()) for seen in proxy.seen)

        until(reached, "the request at which it is killed")
    finally:
        process.kill()
        process.wait(30)
    written = path == "/web" and fault == Stall()
    assert (deployment.told() != before) == written

    again = deployment.ensure(state=state, wait=True)
    assert again["changed"] is not written
    if state == "absent":
        assert deployment.told() == was
    else:
        spec = deployment.read()["spec"]["template"]["spec"]
        assert {v["name"] for c in spec["containers"] for v in c["env"]} >= {CLAIM_FILE}
        deployment.ensure(state="absent", wait=True)
        assert deployment.told() == was

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role that attaches the sidecar to a workload: killed after each of its writes, it goes on where it was."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, Resource
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import sidecar
from ansible_collections.muster.coordination.plugins.module_utils.verbs import sidecar as verbs
from ansible_collections.muster.coordination.tests.integration.test_semaphore_modules import descendants, start
from ansible_collections.muster.coordination.tests.support.fault_proxy import Delay, FaultProxy, Stall
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

pytestmark = pytest.mark.integration
Object = dict[str, Any]

DEPLOYMENTS = verbs.KINDS["Deployment"]
ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")
POLICIES = Resource(
    "admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False
)
# Every write of a first run, and of the run that takes all of it away, in their order.
FIRST = [("POST", "/configmaps"), ("POST", "/roles"), ("POST", "/rolebindings"), ("PUT", "/deployments/web")]
LAST = [("PUT", "/deployments/web"), ("DELETE", "/rolebindings"), ("DELETE", "/roles"), ("DELETE", "/configmaps")]
SECONDS = 300.0


@pytest.fixture
def proxy(kubeconfig: str) -> Iterator[FaultProxy]:
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        yield proxy


class Playbook:
    """Runs the role through the proxy."""

    def __init__(self, namespace: str, proxy: FaultProxy, directory: Path) -> None:
        self.proxy, self.directory = proxy, directory
        self.kubeconfig = str(proxy.write_kubeconfig(directory / "kubeconfig"))
        self.playbook = directory / "play.yml"
        play = {"hosts": "localhost", "gather_facts": False, "roles": ["muster.coordination.distributor"]}
        login = {
            f"group/{group}.k8s": {"kubeconfig": self.kubeconfig}
            for group in ("kubernetes.core", "muster.coordination")
        }
        self.playbook.write_text(json.dumps([{**play, "module_defaults": login}]))
        self.variables = {
            "ansible_python_interpreter": sys.executable,
            "distributor_namespace": namespace,
            "distributor_semaphore": "hardware",
            "distributor_capacity": {"gpu": 1},
            "distributor_attach": [{"name": "web", "resource": "gpu"}],
        }

    def start(self, **variables: Any) -> subprocess.Popen[str]:
        extra = json.dumps({**self.variables, **variables})
        return start("ansible-playbook", "-i", "localhost,", "-c", "local", "-e", extra, str(self.playbook))

    def changes(self, **variables: Any) -> int:
        run = self.start(**variables)
        output, _ = run.communicate(timeout=SECONDS)
        assert run.returncode == 0, output
        return int(re.findall(r"changed=(\d+)", output)[-1])

    def killed_after(self, method: str, path: str, **variables: Any) -> list[tuple[str, str]]:
        """Run until this write was carried out, and kill it all; returns the writes that there were."""
        self.proxy.clear()
        self.proxy.plan(Delay(0), method=method, path="?dryRun=All", times=9)
        self.proxy.plan(Stall(), method=method, path=path)
        asked = len(self.proxy.seen)
        run = self.start(**variables)
        try:
            until(
                lambda: any(seen.carried_out and seen.fault == Stall() for seen in self.proxy.seen[asked:]),
                path,
                SECONDS,
            )
        finally:
            for process in descendants(run.pid):
                os.kill(process, signal.SIGKILL)
            run.communicate(timeout=30)
        return writes(self.proxy, asked)


def writes(proxy: FaultProxy, since: int) -> list[tuple[str, str]]:
    """Method and kind of every write; without questions, and without the patches by which kubernetes.core compares."""
    seen = [one for one in proxy.seen[since:] if one.method not in ("GET", "PATCH") and "dryRun" not in one.path]
    return [(one.method, re.sub(r".*/namespaces/[^/]+", "", one.path)) for one in seen]


def test_killed_after_each_write_the_next_run_goes_on(
    api: Api, namespace: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    spec = {"serviceAccountName": "painter", "containers": [{"name": "app", "image": "example.org/app"}]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": spec}
    metadata = {"name": "web", "namespace": namespace}
    selector = {"matchLabels": {"app": "web"}}
    made = {"metadata": metadata, "spec": {"replicas": 0, "selector": selector, "template": template}}
    was = api.create(DEPLOYMENTS, made)["spec"]
    role = Playbook(namespace, proxy, tmp_path)

    for done, (method, path) in enumerate(FIRST):
        assert [w for w in role.killed_after(method, path) if w not in FIRST[:done]] == [(method, path)]
    assert role.changes() == 0, "the run that was killed last had nothing left to do"

    workload = api.get(DEPLOYMENTS, "web", namespace)
    assert sidecar.told(workload) == ("app",)
    (binding,) = api.list(BINDINGS, namespace).items
    assert [(one["kind"], one["name"]) for one in binding["subjects"]] == [("ServiceAccount", "painter")]
    (allowed,) = api.list(ROLES, namespace).items
    assert allowed["metadata"]["name"] == binding["roleRef"]["name"] == "deployment-web-hardware"

    for method, path in LAST:
        role.killed_after(method, path, distributor_state="absent")
    assert role.changes(distributor_state="absent") == 0
    assert api.get(DEPLOYMENTS, "web", namespace)["spec"] == was
    for kind in (ROLES, BINDINGS):
        assert api.list(kind, namespace).items == []
    assert [one["metadata"]["name"] for one in api.list(CONFIGMAPS, namespace).items] == ["kube-root-ca.crt"]


def test_what_was_allowed_for_another_semaphore_is_taken_back(
    api: Api, namespace: str, proxy: FaultProxy, tmp_path: Path
) -> None:
    containers = [{"name": "app", "image": "example.org/app"}]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    api.create(DEPLOYMENTS, {"metadata": {"name": "web", "namespace": namespace}, "spec": spec})
    role = Playbook(namespace, proxy, tmp_path)
    several = [{"name": "hardware", "resources": {"gpu": 1}}, {"name": "licences"}]
    assert role.changes(distributor_attach=[{"name": "web", "semaphores": several, "engine": "tickets"}]) > 0
    names = {one["metadata"]["name"] for one in api.list(ROLES, namespace).items}
    assert names == {"deployment-web-hardware-licences"}
    assert role.changes() > 0
    assert {one["metadata"]["name"] for one in api.list(ROLES, namespace).items} == {"deployment-web-hardware"}
    assert {one["metadata"]["name"] for one in api.list(BINDINGS, namespace).items} == {"deployment-web-hardware"}
    assert [one for one in api.list(POLICIES).items if namespace in one["metadata"]["name"]] == []

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chart promises however it is used: few rights, no token for the app, wrong values refused by name."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets

CHART = Path(__file__).resolve().parents[2] / "charts" / "distributor"
VERSIONS = yaml.safe_load((CHART / "Chart.yaml").read_text())
WAYS: list[dict[str, Any]] = [
    {},
    {"workload": {"kind": "StatefulSet"}},
    {"sidecar": {"gate": True, "resource": "blue", "claimFile": "claim.env"}},
    {"semaphore": {"engine": "tickets", "wants": {"blue": 2}}, "sidecar": {"annotatePod": True}},
    {"app": {"image": {"repository": "example.org/app", "tag": "1"}, "command": ["run"]}, "tests": {"enabled": False}},
]


def render(values: dict[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    helm = shutil.which("helm")
    assert helm, "helm must be on PATH: run `scripts/on.sh node pytest tests/e2e`"
    command = [helm, "template", "demo", str(CHART), "--namespace", "apart", "--values", "-", *arguments]
    return subprocess.run(command, input=json.dumps(values), capture_output=True, text=True, check=False)


def objects(values: dict[str, Any]) -> dict[str, Any]:
    done = render(values)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    namespaced = [document for document in found if not document["kind"].startswith("ValidatingAdmissionPolicy")]
    assert {document["metadata"]["namespace"] for document in namespaced} == {"apart"}
    return {document["kind"]: document for document in found if document["kind"] != "Pod"}


def many(values: dict[str, Any], kind: str) -> dict[str, Any]:
    """All objects of one kind, by name."""
    found = yaml.safe_load_all(render(values).stdout)
    return {document["metadata"]["name"]: document for document in found if document and document["kind"] == kind}


def environment(values: dict[str, Any]) -> dict[str, str]:
    """What the sidecar is told by values, not by the Pod."""
    (sidecar,) = pod(values)["initContainers"]
    return {variable["name"]: variable["value"] for variable in sidecar["env"] if "value" in variable}


def pod(values: dict[str, Any]) -> dict[str, Any]:
    kind = values.get("workload", {}).get("kind", "Deployment")
    spec: dict[str, Any] = objects(values)[kind]["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("values", WAYS)
def test_pods_are_restricted_and_only_the_sidecar_has_the_token(values: dict[str, Any]) -> None:
    spec = pod(values)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (sidecar,), (app,) = spec["initContainers"], spec["containers"]
    assert sidecar["restartPolicy"] == "Always"
    for container in (sidecar, app):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {name: {mount["name"] for mount in c["volumeMounts"]} for name, c in (("sidecar", sidecar), ("app", app))}
    assert mounts == {"sidecar": {"muster-claim", "muster-token"}, "app": {"muster-claim"}}


def rules(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: rule[key] for key in rule if key != "apiGroups"} for rule in objects(values)["Role"]["rules"]]


def test_with_annotations_the_role_allows_the_configmaps_of_the_semaphores_and_no_more() -> None:
    configmaps = {"resources": ["configmaps"], "verbs": ["get", "list", "watch", "update"]}
    others = [
        {"resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"resources": ["events"], "verbs": ["create"]},
    ]
    one = {"semaphore": {"name": "hardware"}}
    assert rules(one) == [{**configmaps, "resourceNames": ["hardware"]}, *others]
    two = {**one, "semaphores": [{"name": "licences"}]}
    assert rules(two) == [{**configmaps, "resourceNames": ["hardware", "licences"]}, *others]


def test_with_tickets_the_role_allows_tickets_and_updates_of_the_semaphores_alone() -> None:
    values = {"semaphore": {"engine": "tickets", "name": "hardware"}, "semaphores": [{"name": "licences"}]}
    assert rules(values) == [
        {"resources": ["leases"], "verbs": ["get", "list", "watch", "create", "delete"]},
        {"resources": ["leases"], "resourceNames": ["hardware", "licences"], "verbs": ["update"]},
        {"resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"resources": ["events"], "verbs": ["create"]},
    ]


def test_who_is_to_annotate_its_pod_may_patch_pods() -> None:
    assert {"resources": ["pods"], "verbs": ["get", "list", "watch", "patch"]} in rules(
        {"sidecar": {"annotatePod": True}}
    )


def test_the_configmap_says_nothing_but_the_capacity() -> None:
    semaphore = objects({"semaphore": {"capacity": {"blue": 5, "green": 0}}})["ConfigMap"]
    assert {key: json.loads(value) for key, value in semaphore["metadata"]["annotations"].items()} == {
        "distributor_capacity": {"blue": 5, "green": 0}
    }
    assert "data" not in semaphore
    assert "ConfigMap" not in objects({"semaphore": {"create": False}})


def test_the_lease_is_the_engines_own_without_what_belongs_to_the_sidecars() -> None:
    """An upgrade would put the chart's `muster.dev/settled` over theirs, and revoke what drains."""
    capacity = {"blue": 5, "green": 1000000}
    made = tickets.with_capacity(None, "hardware", "apart", capacity)
    lease = objects({"semaphore": {"engine": "tickets", "name": "hardware", "capacity": capacity}})["Lease"]
    notes = made["metadata"]["annotations"]
    assert lease["metadata"]["annotations"] == {key: notes[key] for key in notes if key != tickets.IN_FORCE}
    assert made["metadata"]["labels"].items() <= lease["metadata"]["labels"].items()
    assert (lease["apiVersion"], lease["kind"], lease["spec"]) == (made["apiVersion"], made["kind"], made["spec"])
    assert "Lease" not in objects({"semaphore": {"engine": "tickets", "create": False}})


def test_each_semaphore_is_created_unless_it_is_there() -> None:
    values = {
        "semaphore": {"name": "a"},
        "semaphores": [{"name": "b", "capacity": {"x": 1}}, {"name": "c", "create": False}],
    }
    assert set(many(values, "ConfigMap")) == {"a", "b"}
    assert set(many({**values, "semaphore": {"name": "a", "engine": "tickets"}}, "Lease")) == {"a", "b"}


def test_the_sidecar_is_told_engine_semaphores_and_wants() -> None:
    assert environment({})["MUSTER_ENGINE"] == "annotations"
    assert environment({})["MUSTER_CONFIGMAP"] == "demo-distributor"
    values = {
        "semaphore": {"engine": "tickets", "name": "a", "capacity": {"gpu": 2, "db": 1}, "wants": {"gpu": 2, "db": 1}},
        "semaphores": [{"name": "b", "create": False, "wants": {"seat": 1000000}}, {"name": "c", "create": False}],
        "sidecar": {"resource": "x=2,y", "annotatePod": True},
    }
    told = environment(values)
    assert told["MUSTER_ENGINE"] == "tickets"
    assert told["MUSTER_CONFIGMAP"] == "a:db=1,gpu=2 b:seat=1000000 c"
    assert told["MUSTER_RESOURCE"] == "x=2,y"
    assert told["MUSTER_ANNOTATE_POD"] == "true"


def test_the_policies_are_bound_to_the_namespace_and_only_there_for_what_needs_them() -> None:
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    both = {"semaphore": {"engine": "tickets"}, "sidecar": {"annotatePod": True}}
    names = {"demo-distributor.tickets.apart", "demo-distributor.pods.apart"}
    for kind in kinds:
        assert set(many(both, kind)) == names
        assert not many({}, kind)
        assert not many({**both, "admissionPolicy": {"enabled": False}}, kind)
    for binding in many(both, kinds[1]).values():
        selector = binding["spec"]["matchResources"]["namespaceSelector"]
        assert selector == {"matchLabels": {"kubernetes.io/metadata.name": "apart"}}
        assert binding["spec"]["validationActions"] == ["Deny"]
    assert {policy["spec"]["failurePolicy"] for policy in many(both, kinds[0]).values()} == {"Fail"}


def test_the_gate_waits_for_the_claim_for_ever() -> None:
    (sidecar,) = pod({"sidecar": {"gate": True}})["initContainers"]
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/claim"
    assert sidecar["startupProbe"]["failureThreshold"] * sidecar["startupProbe"]["periodSeconds"] > 50 * 365 * 86400


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"sidecr": {}}, "sidecr"),
        ({"semaphore": {"capacity": {"blue": -1}}}, "/semaphore/capacity/blue"),
        ({"semaphore": {"capacity": {"blue": "two"}}}, "/semaphore/capacity/blue"),
        ({"workload": {"kind": "DaemonSet"}}, "/workload/kind"),
        ({"workload": {"replicas": 1.5}}, "/workload/replicas"),
        ({"sidecar": {"priority": 1001}}, "/sidecar/priority"),
        ({"sidecar": {"claimFile": "claim.txt"}}, "/sidecar/claimFile"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
        ({"semaphore": {"engine": "redis"}}, "/semaphore/engine"),
        ({"semaphore": {"wants": {"blue": 0}}}, "/semaphore/wants/blue"),
        ({"semaphore": {"engine": "tickets", "wants": {"a,b": 1}}}, "/semaphore/wants"),
        ({"semaphore": {"engine": "tickets", "wants": {"blue": 3}}}, "wants.blue is 3 and capacity.blue is 2"),
        ({"semaphore": {"engine": "tickets", "wants": {"red": 1}}}, "wants.red is 1 and capacity.red is 0"),
        ({"semaphore": {"wants": {"blue": 2}}}, "set semaphore.engine=tickets"),
        ({"semaphore": {"mode": "v2"}}, "let Ansible's k8s_semaphore"),
        ({"semaphore": {"mode": "v1", "create": False, "wants": {"a": 1, "b": 1}}}, "in mode v1"),
        ({"semaphore": {"engine": "tickets", "mode": "v2"}}, "tickets have no modes"),
        ({"semaphore": {"engine": "tickets", "name": "a" * 64}}, "63 characters"),
        ({"semaphore": {"engine": "tickets"}, "sidecar": {"priority": 5}}, "sidecar.priority is 5"),
        ({"semaphore": {"name": "a"}, "semaphores": [{"name": "a"}]}, "give each a name of its own"),
        ({"semaphores": [{"capacity": {"a": 1}}]}, "/semaphores/0"),
        ({"semaphores": [{"name": "a", "want": {}}]}, "/semaphores/0"),
        (
            {"semaphore": {"engine": "tickets"}, "admissionPolicy": {"exempt": ["demo-distributor"]}},
            "admissionPolicy.exempt",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], named: str) -> None:
    done = render(values)
    assert done.returncode != 0
    assert named in done.stderr


def test_a_cluster_without_native_sidecars_is_refused() -> None:
    done = render({}, "--kube-version", "1.28.0", "--api-versions", "v1/Pod")
    assert done.returncode != 0
    assert "needs 1.29 or later" in done.stderr


def test_a_cluster_without_admission_policies_is_refused_unless_they_are_left_out() -> None:
    values = {"semaphore": {"engine": "tickets"}}
    old = ("--kube-version", "1.29.0", "--api-versions", "v1/Pod")
    done = render(values, *old)
    assert done.returncode != 0
    assert "admissionPolicy.enabled=false" in done.stderr
    assert render({**values, "admissionPolicy": {"enabled": False}}, *old).returncode == 0
    assert render({}, *old).returncode == 0


def test_chart_and_image_have_the_version_of_the_collection() -> None:
    galaxy = yaml.safe_load((CHART.parents[1] / "galaxy.yml").read_text())
    assert {VERSIONS["version"], VERSIONS["appVersion"]} == {galaxy["version"]}

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

CHART = Path(__file__).resolve().parents[2] / "charts" / "distributor"
VERSIONS = yaml.safe_load((CHART / "Chart.yaml").read_text())
WAYS: list[dict[str, Any]] = [
    {},
    {"workload": {"kind": "StatefulSet"}},
    {"sidecar": {"gate": True, "resource": "blue", "claimFile": "claim.env"}},
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
    assert {found["metadata"]["namespace"] for found in found} == {"apart"}
    return {document["kind"]: document for document in found if document["kind"] != "Pod"}


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
    assert mounts == {"sidecar": {"claim", "token"}, "app": {"claim"}}


def test_the_role_allows_one_configmap_and_no_more() -> None:
    rules = objects({"semaphore": {"name": "hardware"}})["Role"]["rules"]
    configmaps = {
        "resources": ["configmaps"],
        "resourceNames": ["hardware"],
        "verbs": ["get", "list", "watch", "update"],
    }
    assert [{key: rule[key] for key in rule if key != "apiGroups"} for rule in rules] == [
        configmaps,
        {"resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"resources": ["events"], "verbs": ["create"]},
    ]


def test_the_configmap_says_nothing_but_the_capacity() -> None:
    semaphore = objects({"semaphore": {"capacity": {"blue": 5, "green": 0}}})["ConfigMap"]
    assert {key: json.loads(value) for key, value in semaphore["metadata"]["annotations"].items()} == {
        "distributor_capacity": {"blue": 5, "green": 0}
    }
    assert "data" not in semaphore
    assert "ConfigMap" not in objects({"semaphore": {"create": False}})


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


def test_chart_and_image_have_the_version_of_the_collection() -> None:
    galaxy = yaml.safe_load((CHART.parents[1] / "galaxy.yml").read_text())
    assert {VERSIONS["version"], VERSIONS["appVersion"]} == {galaxy["version"]}

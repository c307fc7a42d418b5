# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in kustomize/, as `kubectl kustomize` renders it and a real API server takes it; and what a Swarm may be.

Needs a cluster of level node with the image (`make image`), and kubectl on PATH
(`scripts/on.sh node pytest tests/e2e`). What is missing fails the test; nothing is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.decisions import swarm, swarm_status
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import (
    CONVERGED,
    RELOADING,
    Standing,
    Step,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Placement
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config, Entry
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.at_cluster import attempt, run, until
from ansible_collections.muster.coordination.tests.support.kustomizations import (
    CHECKOUT,
    VERSION,
    Object,
    assert_the_api_server_takes,
    create_pod,
    objects,
    parts_of,
    render,
    restricted_namespace,
)

OPERATOR, WORKER = CHECKOUT / "kustomize" / "swarm-operator", CHECKOUT / "kustomize" / "swarm-worker"
WORKER_NAME, CONFIG = "swarm-worker", "swarm-worker-config"
NOW = "2026-01-01T00:00:00Z"

# What a user may apply, and further components on top of it.
TREES: dict[str, tuple[Path, ...]] = {
    "cluster": (OPERATOR / "overlays/cluster",),
    "namespaced": (OPERATOR / "overlays/namespaced",),
    "labels": (OPERATOR / "overlays/labels",),
    "dev": (OPERATOR / "overlays/dev",),
    "shards": (OPERATOR / "overlays/namespaced", OPERATOR / "components/shards"),
    "example": (WORKER / "overlays/example",),
    "one ConfigMap": (WORKER / "overlays/example", WORKER / "components/one-configmap"),
    "mounted": (WORKER / "overlays/example", WORKER / "components/mounted"),
}


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace that admits nothing but what the restricted Pod Security Standard allows; Swarms are defined."""
    with restricted_namespace("swarm") as name:
        run("kubectl", "apply", "-f", str(OPERATOR / "base/swarms.yaml"))
        run("kubectl", "wait", "--for=condition=Established", "crd/swarms.muster.dev")
        yield name


# ------------------------------------------------------------------------------------------------ what is rendered


def test_every_part_is_tried_here() -> None:
    """Nothing is shipped that no tree of this file renders."""
    shipped = {path.parent for path in CHECKOUT.glob("kustomize/swarm-*/**/kustomization.yaml")}
    assert shipped == parts_of(TREES.values())


@pytest.mark.parametrize("tree", TREES)
def test_the_api_server_takes_it(tree: str, tmp_path: Path, namespace: str) -> None:
    assert_the_api_server_takes(render(tmp_path, TREES[tree], namespace), namespace)


@pytest.mark.parametrize("tree", TREES)
def test_its_pods_are_restricted(tree: str, tmp_path: Path, namespace: str) -> None:
    templates = [
        found["spec"]["template"] for found in objects(render(tmp_path, TREES[tree], namespace)) if is_workload(found)
    ]
    assert templates
    for template in templates:
        [container] = template["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["imagePullPolicy"] == "IfNotPresent"
        assert container["image"] == f"muster:{'dev' if tree == 'dev' else VERSION}"
        assert container["resources"]["limits"]["memory"]
        assert create_pod(template, namespace).returncode == 0


def test_pods_that_are_not_would_be_refused(tmp_path: Path, namespace: str) -> None:
    template = next(found for found in objects(render(tmp_path, TREES["example"], namespace)) if is_workload(found))
    template = template["spec"]["template"]
    del template["spec"]["securityContext"]["seccompProfile"]
    assert "violates PodSecurity" in create_pod(template, namespace).stderr


@pytest.mark.parametrize(
    ("tree", "token", "roles"), [("namespaced", True, 2), ("example", True, 1), ("mounted", False, 0)]
)
def test_only_who_talks_to_the_api_server_has_a_token(
    tree: str, token: bool, roles: int, tmp_path: Path, namespace: str
) -> None:
    found = objects(render(tmp_path, TREES[tree], namespace))
    [workload] = filter(is_workload, found)
    assert workload["spec"]["template"]["spec"]["automountServiceAccountToken"] is token
    assert not any(each["automountServiceAccountToken"] for each in found if each["kind"] == "ServiceAccount")
    assert len([each for each in found if each["kind"] == "Role"]) == roles


def test_labels_need_no_definition(tmp_path: Path, namespace: str) -> None:
    """Who has no rights in the cluster can have this one."""
    found = objects(render(tmp_path, TREES["labels"], namespace))
    assert {each["metadata"]["namespace"] for each in found} == {namespace}
    [jobs] = [each for each in found if each["kind"] == "ConfigMap"]
    assert jobs["metadata"]["name"] == "swarm-jobs"  # where the operator looks for it
    assert swarm.parse_jobs(yaml.safe_load(jobs["data"]["jobs.yml"]), "jobs.yml")


def test_labels_are_enough(tmp_path: Path, namespace: str) -> None:
    """On real Pods, with the least rights that are offered: jobs in a ConfigMap, and workers that carry a label."""

    def kubectl(*arguments: str, given: str | None = None) -> str:
        return run("kubectl", "--namespace", namespace, *arguments, given=given)

    def lists() -> dict[str, Object]:
        found = json.loads(kubectl("get", "configmaps", "--output=json", "--field-selector=metadata.name=" + CONFIG))
        config = yaml.safe_load(found["items"][0]["data"]["config.yml"]) if found["items"] else {}
        return dict(config.get("workloads") or {})

    def versions() -> list[int]:
        """What the workers say that they run."""
        pages = [f"/api/v1/namespaces/{namespace}/pods/{WORKER_NAME}-{number}:8390/proxy/config" for number in (0, 1)]
        return [json.loads(run("kubectl", "get", "--raw", page))["version"] for page in pages]

    kubectl("apply", "-f", "-", given=render(tmp_path, TREES["labels"], namespace))
    worker = [each for each in objects(render(tmp_path, TREES["one ConfigMap"], namespace)) if each["kind"] != "Swarm"]
    kubectl("apply", "-f", "-", given=yaml.safe_dump_all(worker))
    kubectl("rollout", "status", "--timeout=120s", f"statefulset/{WORKER_NAME}")
    until("7 jobs have a worker", lambda: sum(len(each["jobs"]) for each in lists().values()) == 7, lists)
    until("the workers run them", lambda: versions() == [0, 0], versions)

    jobs = json.loads(kubectl("get", "configmap", "swarm-jobs", "--output=json"))
    jobs["data"]["jobs.yml"] += "  - one more\n"
    kubectl("replace", "-f", "-", given=json.dumps(jobs))
    until("one worker has it, and runs it", lambda: sorted(versions()) == [0, 1], versions)
    assert [each["version"] for each in lists().values() if "one more" in each["jobs"]] == [1]


def is_workload(found: Object) -> bool:
    return found["kind"] in ("StatefulSet", "Deployment")


# ------------------------------------------------------------------------------------------------ the kind Swarm

SELECTOR = {"selector": {"matchLabels": {"app": "consumer"}}}
ACCEPTED: dict[str, Object] = {
    "nothing": {},
    "jobs": {"jobs": [{"name": "a"}, {"name": "b", "weight": 7, "dedicated": True, "spread": "s"}]},
    "the longest name": {"jobs": [{"name": "ä" * 253}]},
    "jobs of ConfigMaps": {"jobsFrom": [{"configMap": "a"}, {"configMap": "b", "key": "k", "optional": True}]},
    "a class": {"jobs": [{"name": "a", "class": "gpu"}], "classes": [{"name": "gpu", "workers": SELECTOR["selector"]}]},
    "workers": {"workers": SELECTOR},
    "an expression": {
        "workers": {"selector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"},
        ]}}
    },
    "all numbers": {
        "capacity": 3, "maxUnavailable": 2, "confirmSeconds": 0, "graceSeconds": 0, "churn": 0, "replicas": 0,
    },
    "all words": {"handover": "fast", "refresh": "evict", "zoneLabel": "rack", "configMap": "mine", "paused": True},
    "scaling": {"scaling": {"jobsPerWorker": 10, "min": 1, "max": 1}},
}  # fmt: skip
# Each with a word of the message.
REFUSED: dict[str, tuple[Object, str]] = {
    "replicas and scaling": ({"replicas": 1, "scaling": {"jobsPerWorker": 1, "min": 0, "max": 1}}, "exclude"),
    "min over max": ({"scaling": {"jobsPerWorker": 1, "min": 3, "max": 2}}, "min is greater than max"),
    "scaling without a bound": ({"scaling": {"jobsPerWorker": 1, "min": 3}}, "spec.scaling.max"),
    "an empty name": ({"jobs": [{"name": ""}]}, "spec.jobs[0].name"),
    "a long name": ({"jobs": [{"name": "a" * 254}]}, "spec.jobs[0].name"),
    "no name": ({"jobs": [{"weight": 1}]}, "spec.jobs[0].name"),
    "no weight": ({"jobs": [{"name": "a", "weight": 0}]}, "spec.jobs[0].weight"),
    "a great weight": ({"jobs": [{"name": "a", "weight": 1_000_001}]}, "spec.jobs[0].weight"),
    "a half weight": ({"jobs": [{"name": "a", "weight": 0.5}]}, "spec.jobs[0].weight"),
    "an unknown key of a job": ({"jobs": [{"name": "a", "wight": 2}]}, 'unknown field "spec.jobs[0].wight"'),
    "an empty selector": ({"workers": {"selector": {"matchLabels": {}}}}, "every workload"),
    "an empty class": ({"classes": [{"name": "a", "workers": {}}]}, "every workload"),
    "a class without workers": ({"classes": [{"name": "a"}]}, "spec.classes[0].workers"),
    "In without values": (
        {"workers": {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}}, "In and NotIn take values",
    ),
    "an unknown operator": (
        {"workers": {"selector": {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}}}, "operator",
    ),
    "no capacity": ({"capacity": 0}, "spec.capacity"),
    "an unknown handover": ({"handover": "soon"}, "spec.handover"),
    "an unknown refresh": ({"refresh": "never"}, "spec.refresh"),
    "negative seconds": ({"confirmSeconds": -1}, "spec.confirmSeconds"),
    "nobody may be away": ({"maxUnavailable": 0}, "spec.maxUnavailable"),
    "a ConfigMap without a name": ({"jobsFrom": [{"key": "a"}]}, "spec.jobsFrom[0].configMap"),
}  # fmt: skip
# These the operator sees elsewhere than in `parse_spec`: among all jobs, or not at all.
REFUSED_BY_SCHEMA: dict[str, tuple[Object, str]] = {
    "an unknown class": ({"jobs": [{"name": "a", "class": "gpu"}]}, "declare it in classes"),
    "another class": (
        {"jobs": [{"name": "a", "class": "g"}], "classes": [{"name": "gpu", "workers": SELECTOR["selector"]}]},
        "declare it in classes",
    ),
    "a double name": ({"jobs": [{"name": "a"}, {"name": "a"}]}, "Duplicate value"),
    "an unknown key": ({"workrs": SELECTOR}, 'unknown field "spec.workrs"'),
    "a name that fits no label": ({"configMap": "a" * 64}, "spec.configMap"),
}  # fmt: skip


def create_swarm(namespace: str, spec: Object) -> Any:
    made = {"apiVersion": "muster.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "tried"}, "spec": spec}
    create = ("kubectl", "--namespace", namespace, "create", "--dry-run=server", "--validate=strict", "--output=json")
    return attempt(*create, "-f", "-", given=json.dumps(made))


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_good_swarm_is_accepted(what: str, namespace: str) -> None:
    """And its defaults are those that the operator takes where there is no schema."""
    created = create_swarm(namespace, ACCEPTED[what])
    assert created.returncode == 0, created.stderr
    spec = json.loads(created.stdout)["spec"]
    assert swarm.parse_spec(spec) == swarm.parse_spec(ACCEPTED[what])


@pytest.mark.parametrize("what", [*REFUSED, *REFUSED_BY_SCHEMA])
def test_a_bad_swarm_is_refused(what: str, namespace: str) -> None:
    spec, message = {**REFUSED, **REFUSED_BY_SCHEMA}[what]
    refused = create_swarm(namespace, spec)
    assert refused.returncode != 0, refused.stdout
    assert message in refused.stderr
    if what in REFUSED:
        with pytest.raises(Malformed):
            swarm.parse_spec(spec)


def test_the_longest_list_is_accepted(namespace: str) -> None:
    """The rule about classes costs no more than an API server allows: each of 10,000 jobs is of the last of 32."""
    names = [f"class-{number:057}" for number in range(32)]
    spec = {
        "classes": [{"name": name, "workers": SELECTOR["selector"]} for name in names],
        "jobs": [{"name": f"stream:{number}", "class": names[-1]} for number in range(10_000)],
    }
    created = create_swarm(namespace, spec)
    assert created.returncode == 0, created.stderr
    spec["jobs"].append({"name": "one more"})
    assert "must have at most 10000 items" in create_swarm(namespace, spec).stderr


def test_every_field_is_explained(namespace: str) -> None:
    definition = yaml.safe_load((OPERATOR / "base/swarms.yaml").read_text())
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert unexplained(schema, "spec") == []
    said = run("kubectl", "explain", "swarms.spec.scaling.jobsPerWorker")
    assert "as many Pods as it takes" in said


def unexplained(schema: Object, where: str) -> list[str]:
    inside = {**schema.get("properties", {}), **schema.get("items", {}).get("properties", {})}
    found = [name for name, each in inside.items() if not each.get("description")]
    deeper = [path for name, each in inside.items() for path in unexplained(each, f"{where}.{name}")]
    return [f"{where}.{name}" for name in found] + deeper


def status() -> Object:
    """With all that there can be in it, as the operator writes it."""
    rebalance = {"inputs": "0", "time": NOW, "method": "quota", "moves": 1, "leastMoves": 1, "restarts": 2}
    config = Config(
        {"worker-0": Entry(("a",), 3), "worker-1": Entry(("b",), 0)},
        rebalance={**rebalance, "leastRestarts": 2, "imbalance": 0},
    )
    placement = Placement(
        {"worker-0": ("a",), "worker-1": ("b",)}, {"c": "no worker takes gpu"}, "quota", 1, 1, 2, 2, 0
    )
    standings = {"worker-0": Standing(1, 3, 3, CONVERGED), "worker-1": Standing(1, 1, 0, RELOADING)}
    step = Step(config, placement, (), standings, {"worker-1": "it runs version 0, and is to run 1"})
    sources = [{"configMap": "jobs", "resourceVersion": "12", "jobs": 2}]
    return swarm_status.status({}, 1, step, now=NOW, sources=sources, loads={"a": 5})


def test_the_status_is_kept_whole(namespace: str) -> None:
    """Nothing of what the operator says is dropped by the schema."""
    swarm_of = ("kubectl", "--namespace", namespace)
    made = {"apiVersion": "muster.dev/v1alpha1", "kind": "Swarm", "metadata": {"name": "kept"}, "spec": {}}
    run(*swarm_of, "create", "-f", "-", given=json.dumps(made))
    made["status"] = status()
    replace = (*swarm_of, "replace", "--subresource=status", "--validate=strict", "--output=json", "-f", "-")
    assert json.loads(run(*replace, given=json.dumps(made)))["status"] == status()
    shown = run(*swarm_of, "get", "swm", "kept", "--no-headers", "--output=wide").split()
    assert shown[:-1] == ["kept", "2", "3", "1", "1", "2", "False", "worker-1"]


def test_a_category_has_all_kinds(namespace: str) -> None:
    assert "swarms" in run("kubectl", "api-resources", "--categories=muster", "--output=name")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in kustomize/partitions, as `kubectl kustomize` renders it and a real API server takes it.

Needs a cluster of level node, and kubectl on PATH (`scripts/on.sh node pytest tests/e2e`). What is missing fails the
test; nothing is left out. What its processes may do is tried in test_partition_rights.py, and that they work by
molecule/partitions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.tests.support.at_cluster import attempt, run

Object = dict[str, Any]
CHECKOUT = Path(__file__).resolve().parents[2]
TREE = CHECKOUT / "kustomize" / "partitions"
VERSION = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
RESTRICTED = {f"pod-security.kubernetes.io/{what}": "restricted" for what in ("enforce", "warn")}
KINDS = ("keyspaces", "partitions", "assignments")

# What a user may apply, and further components on top of it.
TREES: dict[str, tuple[Path, ...]] = {
    "namespaced": (TREE / "overlays/namespaced",),
    "sidecar": (TREE / "overlays/namespaced", TREE / "components/sidecar"),
    "ephemeral": (TREE / "overlays/namespaced", TREE / "components/ephemeral"),
    "ephemeral sidecar": (TREE / "overlays/namespaced", TREE / "components/sidecar", TREE / "components/ephemeral"),
    "example": (TREE / "overlays/example",),
}
WITH_PODS = [tree for tree in TREES if tree != "example"]


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    """A namespace that admits nothing but what the restricted Pod Security Standard allows; the kinds are defined."""
    name = f"e2e-partitions-kustomize-{os.getpid()}"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    run("kubectl", "apply", "-f", "-", given=json.dumps(made))
    run("kubectl", "apply", "-k", str(TREE / "crds"))
    run("kubectl", "wait", "--for=condition=Established", *(f"crd/{kind}.muster.dev" for kind in KINDS))
    yield name
    run("kubectl", "delete", "namespace", name, "--timeout=120s")


def render(directory: Path, tree: str, namespace: str) -> str:
    """What stands in the tree, in this namespace: as somebody's own overlay would have it."""
    directory = directory.resolve()
    resource, *components = (os.path.relpath(path, directory) for path in TREES[tree])
    wanted = {"namespace": namespace, "resources": [resource], "components": components}
    (directory / "kustomization.yaml").write_text(json.dumps(wanted))
    return run("kubectl", "kustomize", str(directory))


def objects(text: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(text) if found]


def templates(found: list[Object]) -> dict[str, Object]:
    """The Pod templates, by workload."""
    kinds = ("StatefulSet", "Deployment")
    return {each["metadata"]["name"]: each["spec"]["template"] for each in found if each["kind"] in kinds}


def test_every_part_is_tried_here() -> None:
    """Nothing is shipped that no tree of this file renders."""
    pending = [part for parts in TREES.values() for part in parts]
    used = set(pending)
    while pending:
        here = pending.pop()
        kustomization = yaml.safe_load((here / "kustomization.yaml").read_text())
        named = [*kustomization.get("resources", []), *kustomization.get("components", [])]
        found = {path for name in named if (path := (here / name).resolve()).is_dir()}
        pending += found - used
        used |= found
    assert {path.parent for path in TREE.glob("**/kustomization.yaml")} == used


@pytest.mark.parametrize("tree", TREES)
def test_the_api_server_takes_it(tree: str, tmp_path: Path, namespace: str) -> None:
    rendered = render(tmp_path, tree, namespace)
    apply = ("kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    run(*apply, "-f", "-", given=rendered)
    # Nothing is written elsewhere: what is in no namespace belongs to the whole cluster.
    assert {at["namespace"] for found in objects(rendered) if "namespace" in (at := found["metadata"])} == {namespace}


@pytest.mark.parametrize("tree", WITH_PODS)
def test_its_pods_are_restricted(tree: str, tmp_path: Path, namespace: str) -> None:
    for template in templates(objects(render(tmp_path, tree, namespace))).values():
        for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["imagePullPolicy"] == "IfNotPresent"
            assert container["image"] == f"muster:{VERSION}"
            assert container["resources"]["limits"]["memory"]
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        created = create_pod(template, namespace)
        assert created.returncode == 0, created.stderr


@pytest.mark.parametrize("tree", WITH_PODS)
def test_who_reconciles_is_there_once(tree: str, tmp_path: Path, namespace: str) -> None:
    found = objects(render(tmp_path, tree, namespace))
    where = {
        workload
        for workload, template in templates(found).items()
        for container in template["spec"]["containers"] + template["spec"].get("initContainers", [])
        if "partition-reconciler" in container["args"]
    }
    assert where == {"partition-worker" if "sidecar" in tree else "partition-reconciler"}
    # And each account is used, each right is bound, each budget has Pods.
    accounts = {template["spec"]["serviceAccountName"] for template in templates(found).values()}
    assert {each["metadata"]["name"] for each in found if each["kind"] == "ServiceAccount"} == accounts
    subjects = {each["subjects"][0]["name"] for each in found if each["kind"] == "RoleBinding"}
    assert subjects == accounts
    labels = [template["metadata"]["labels"] for template in templates(found).values()]
    for each in found:
        if each["kind"] in ("PodDisruptionBudget", "Service"):
            selector = each["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            assert any(wanted.items() <= pod.items() for pod in labels), each["metadata"]["name"]


def test_a_worker_keeps_what_it_has(tmp_path: Path, namespace: str) -> None:
    """Unless it is asked for otherwise."""
    for tree, claims in (("namespaced", 1), ("ephemeral", 0)):
        (directory := tmp_path / tree).mkdir()
        found = objects(render(directory, tree, namespace))
        [workers] = [each["spec"] for each in found if each["kind"] == "StatefulSet"]
        assert len(workers.get("volumeClaimTemplates", [])) == claims
        [mount] = [
            each for each in workers["template"]["spec"]["containers"][0]["volumeMounts"] if not each.get("readOnly")
        ]
        volumes = [
            *workers["template"]["spec"]["volumes"],
            *(each["metadata"] for each in workers.get("volumeClaimTemplates", [])),
        ]
        assert mount["name"] in {each["name"] for each in volumes}


def create_pod(template: Object, namespace: str) -> Any:
    """As the workload's controller would; nothing is kept."""
    volumes = [each for each in template["spec"].get("volumes", [])]
    named = {each["name"] for each in volumes}
    mounts = {mount["name"] for each in template["spec"]["containers"] for mount in each.get("volumeMounts", [])}
    claims = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in sorted(mounts - named)]
    spec = {**template["spec"], "serviceAccountName": "default", "volumes": [*volumes, *claims]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
    create = ("kubectl", "--namespace", namespace, "create", "--dry-run=server", "-f", "-")
    return attempt(*create, given=json.dumps(pod))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in kustomize/partitions, as `kubectl kustomize` renders it and a real API server takes it.

Needs a cluster of level node, and kubectl on PATH (`scripts/on.sh node pytest tests/e2e`). What is missing fails the
test; nothing is left out. What its processes may do is tried in test_partition_rights.py, and that they work by
molecule/partitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.support.at_cluster import run
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

TREE = CHECKOUT / "kustomize" / "partitions"
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
    with restricted_namespace("partitions") as name:
        run("kubectl", "apply", "-k", str(TREE / "crds"))
        run("kubectl", "wait", "--for=condition=Established", *(f"crd/{kind}.muster.dev" for kind in KINDS))
        yield name


def templates(found: list[Object]) -> dict[str, Object]:
    """The Pod templates, by workload."""
    kinds = ("StatefulSet", "Deployment")
    return {each["metadata"]["name"]: each["spec"]["template"] for each in found if each["kind"] in kinds}


def test_every_part_is_tried_here() -> None:
    """Nothing is shipped that no tree of this file renders."""
    assert {path.parent for path in TREE.glob("**/kustomization.yaml")} == parts_of(TREES.values())


@pytest.mark.parametrize("tree", TREES)
def test_the_api_server_takes_it(tree: str, tmp_path: Path, namespace: str) -> None:
    assert_the_api_server_takes(render(tmp_path, TREES[tree], namespace), namespace)


@pytest.mark.parametrize("tree", WITH_PODS)
def test_its_pods_are_restricted(tree: str, tmp_path: Path, namespace: str) -> None:
    for template in templates(objects(render(tmp_path, TREES[tree], namespace))).values():
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
    found = objects(render(tmp_path, TREES[tree], namespace))
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
        found = objects(render(directory, TREES[tree], namespace))
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

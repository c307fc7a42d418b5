# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in kustomize/, as a user's own overlay has it, and a namespace where it is tried."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.muster.coordination.tests.support.at_cluster import attempt, run

Object = dict[str, Any]
CHECKOUT = Path(__file__).resolve().parents[2]
VERSION = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
RESTRICTED = {f"pod-security.kubernetes.io/{what}": "restricted" for what in ("enforce", "warn")}


@contextmanager
def restricted_namespace(what: str) -> Iterator[str]:
    """One that admits nothing but what the restricted Pod Security Standard allows."""
    name = f"e2e-{what}-kustomize-{os.getpid()}"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    run("kubectl", "apply", "-f", "-", given=json.dumps(made))
    yield name
    run("kubectl", "delete", "namespace", name, "--timeout=120s")


def render(directory: Path, tree: Sequence[Path], namespace: str) -> str:
    """What stands in the tree (what may be applied, and components on top of it), in this namespace."""
    directory = directory.resolve()
    resource, *components = (os.path.relpath(path, directory) for path in tree)
    wanted = {"namespace": namespace, "resources": [resource], "components": components}
    (directory / "kustomization.yaml").write_text(json.dumps(wanted))
    return run("kubectl", "kustomize", str(directory))


def objects(text: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(text) if found]


def parts_of(trees: Iterable[Sequence[Path]]) -> set[Path]:
    """The directories that these trees render."""
    pending = [part for parts in trees for part in parts]
    used = set(pending)
    while pending:
        here = pending.pop()
        kustomization = yaml.safe_load((here / "kustomization.yaml").read_text())
        named = [*kustomization.get("resources", []), *kustomization.get("components", [])]
        found = {path for name in named if (path := (here / name).resolve()).is_dir()}
        pending += found - used
        used |= found
    return used


def assert_the_api_server_takes(rendered: str, namespace: str) -> None:
    apply = ("kubectl", "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict")
    run(*apply, "-f", "-", given=rendered)
    # Nothing is written elsewhere: what is in no namespace belongs to the whole cluster.
    assert {at["namespace"] for found in objects(rendered) if "namespace" in (at := found["metadata"])} == {namespace}


def create_pod(template: Object, namespace: str) -> subprocess.CompletedProcess[str]:
    """As the workload's controller would; nothing is kept."""
    volumes = [each for each in template["spec"].get("volumes", [])]
    named = {each["name"] for each in volumes}
    mounts = {mount["name"] for each in template["spec"]["containers"] for mount in each.get("volumeMounts", [])}
    claims = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in sorted(mounts - named)]
    spec = {**template["spec"], "serviceAccountName": "default", "volumes": [*volumes, *claims]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
    create = ("kubectl", "--namespace", namespace, "create", "--dry-run=server", "-f", "-")
    return attempt(*create, given=json.dumps(pod))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The wheel works alone, in an environment of its own, with nothing but what requirements/image.lock pins."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
VERSION = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())["version"]
WHEEL = CHECKOUT / "dist" / f"muster_coordination-{VERSION}-py3-none-any.whl"
UTILS = "ansible_collections.muster.coordination.plugins.module_utils"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment as the image's: the locked dependencies and the wheel, nothing resolved."""
    root = tmp_path_factory.mktemp("wheel") / "venv"
    subprocess.run([sys.executable, "-m", "venv", root], check=True)
    pip = [root / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--require-hashes", "--requirement", CHECKOUT / "requirements/image.lock"], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", WHEEL], check=True)
    return root


def run(environment: Path, *command: str) -> str:
    """Standard output of a program of the environment, run where the checkout is not in sight."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MUSTER", "KUBE", "K8S"))}
    done = subprocess.run(
        [environment / "bin" / command[0], *command[1:]], cwd=environment, env=clean, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_what_is_declared_is_all_that_is_needed(environment: Path) -> None:
    """`pip check` compares the wheel's stated dependencies with what image.lock brought."""
    assert "No broken requirements" in run(environment, "python", "-m", "pip", "check")


def test_the_command_answers(environment: Path) -> None:
    assert "distributor" in run(environment, "muster", "--help")
    for verb in ("run", "once", "status"):
        assert "--configmap" in run(environment, "muster", "distributor", verb, "--help")


def test_every_file_of_it_imports(environment: Path) -> None:
    """But what is for Ansible, which the image does not hold."""
    for_ansible = re.compile(r"/(modules|doc_fragments)/|/ansible_face\.py$")
    with zipfile.ZipFile(WHEEL) as archive:
        files = [name for name in archive.namelist() if name.endswith(".py") and not for_ansible.search(name)]
    modules = [name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in files]
    assert f"{UTILS}.decisions.semaphore" in modules
    assert "muster.cli" in modules
    program = "import importlib, json, sys; [importlib.import_module(name) for name in json.loads(sys.argv[1])]"
    run(environment, "python", "-c", program, json.dumps(modules))


# Nothing listens at port 9 of loopback: the command must get as far as trying, with nothing but these imports.
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: nowhere
clusters: [{name: nowhere, cluster: {server: "https://127.0.0.1:9"}}]
users: [{name: someone, user: {token: secret}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: someone}}]
"""
STATUS = """
import contextlib, json, sys
from muster.cli import main
sys.argv = ["muster", "distributor", "status", "--kubeconfig", sys.argv[1]]
with contextlib.suppress(SystemExit):
    main()
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_a_process_never_imports_the_official_client(environment: Path, tmp_path: Path) -> None:
    """It costs 49 MB a sidecar; only unusual logins from outside of a cluster may ask for it."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    loaded = json.loads(run(environment, "python", "-c", STATUS, str(kubeconfig)).splitlines()[-1])
    assert "urllib3" in loaded
    assert "kubernetes" not in loaded
    assert "ansible" not in loaded


def test_it_holds_the_collection_where_ansible_looks() -> None:
    root = "ansible_collections/muster/coordination/"
    with zipfile.ZipFile(WHEEL) as archive:
        names = set(archive.namelist())
    held = {name.removeprefix(root) for name in names if name.startswith(root)}
    assert held >= {
        "galaxy.yml", "LICENSE", "meta/runtime.yml", "plugins/modules/k8s_semaphore.py", "playbooks/site.yml",
        "roles/distributor/meta/argument_specs.yml", "charts/distributor/Chart.yaml", "roles/chart/tasks/render.yml",
        "roles/vm_operator/meta/argument_specs.yml", "charts/vm-operator/crds/virtualmachines.yaml",
        "roles/allocator/meta/argument_specs.yml", "charts/allocator/crds/instances.yaml",
        "roles/swarm_operator/meta/argument_specs.yml", "kustomize/swarm-operator/base/kustomization.yaml",
        "roles/partitions/meta/argument_specs.yml", "kustomize/partitions/crds/partitions.yaml",
    }  # fmt: skip
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    tops = {name.split("/")[0] for name in names}
    assert tops == {"ansible_collections", "muster", f"muster_coordination-{VERSION}.dist-info"}

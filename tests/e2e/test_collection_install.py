# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user has who installed the tarball: the playbook by its full name, from a terminal and as an AWX job.

Needs dist/*.tar.gz (`make build`), a cluster of level node with the image (`make image`), and helm and kubectl on PATH
(`scripts/on.sh node pytest tests/e2e`). What is missing fails the test; nothing is left out.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_runner  # type: ignore[import-untyped]
import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
GALAXY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())
TARBALL = CHECKOUT / "dist" / f"muster-coordination-{GALAXY['version']}.tar.gz"
PLAYBOOK = "muster.coordination.site"
LOGIN = re.compile(r"^(KUBECONFIG|K8S_AUTH_.*|KUBERNETES_.*)$")
SECONDS = 900  # for one run of a playbook, at most


def run(*command: str, cwd: Path, env: dict[str, str], seconds: float = SECONDS) -> str:
    """Run a program and return all it said; its failure is the test's."""
    done = subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    path = os.environ.get("KUBECONFIG")
    assert path, "KUBECONFIG must name the cluster: run `scripts/on.sh node pytest tests/e2e`, or `make test-installed`"
    for tool in ("helm", "kubectl"):
        assert shutil.which(tool), f"{tool} must be on PATH: run `scripts/on.sh node pytest tests/e2e`"
    return path


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home without a kubeconfig, without collections, and outside of the checkout."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def environment(home: Path) -> dict[str, str]:
    """The user's shell: nothing in it leads to the checkout or to a cluster."""
    kept = {key: value for key, value in os.environ.items() if not LOGIN.match(key) and not key.startswith("ANSIBLE_")}
    return {**kept, "HOME": str(home), "ANSIBLE_NOCOLOR": "1", "PYTHONPATH": ""}


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """An empty tree of collections, and the tarball installed into it."""
    tree = tmp_path_factory.mktemp("collections")
    assert TARBALL.exists(), f"{TARBALL} is missing: run `make build`"
    # --force: the development environment has a link to the checkout, which would do as "already installed".
    install = ("ansible-galaxy", "collection", "install", "--force", "--offline", "--collections-path", str(tree))
    run(*install, str(TARBALL), cwd=tree, env={**environment, "ANSIBLE_COLLECTIONS_PATH": str(tree)})
    return tree


@pytest.fixture
def namespace(request: pytest.FixtureRequest, kubeconfig: str, environment: dict[str, str]) -> Iterator[str]:
    """The name of a namespace that is not there, and is not there afterwards."""
    name = f"e2e-{request.node.name.removeprefix('test_').replace('_', '-')}-{os.getpid()}"[:63].rstrip("-")
    yield name
    delete = ("kubectl", "delete", "namespace", name, "--ignore-not-found", "--timeout=120s")
    run(*delete, cwd=CHECKOUT, env={**environment, "KUBECONFIG": kubeconfig})


def test_the_playbook_by_its_full_name(
    collections: Path, environment: dict[str, str], kubeconfig: str, namespace: str, home: Path
) -> None:
    env = {**environment, "KUBECONFIG": kubeconfig, "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    variables = {
        "distributor_namespace": namespace,
        "vm_operator_namespace": namespace,
        "vm_operator_watch_namespace": namespace,
        "vm_operator_replicas": 1,
        "swarm_operator_namespace": namespace,
        "swarm_operator_watch_namespace": namespace,
        "swarm_operator_replicas": 1,
        "allocator_namespace": namespace,
        "allocator_replicas": 1,
        "partitions_namespace": namespace,
        "partitions_storage": "",
        "partitions_workers": 1,
        "partitions_routers": 1,
    }
    play = ("ansible-playbook", "-vvv", "--diff", PLAYBOOK, "--extra-vars", json.dumps(variables))

    first = run(*play, cwd=home, env=env)
    assert_all_code_is_of(collections, first)
    assert recap(first)["changed"] > 0

    # What was made once is shown to nobody, however much is asked for.
    kept = (
        "kubectl",
        "--namespace",
        namespace,
        "get",
        "secret",
        "vm-operator-cloud",
        "--output=jsonpath={.data.token}",
    )
    token = run(*kept, cwd=home, env=env)
    assert len(base64.b64decode(token)) == 48
    assert token not in first
    assert base64.b64decode(token).decode() not in first

    second = run(*play, cwd=home, env=env)
    assert recap(second)["changed"] == 0
    assert run(*kept, cwd=home, env=env) == token

    held = semaphore(namespace, env)
    assert len(held["holders"]) == 3
    assert len(held["waiters"]) == 2

    roles = ("distributor", "vm_operator", "swarm_operator", "allocator", "partitions")
    absent = {f"{role}_state": "absent" for role in roles} | {"partitions_remove_namespace": "true"}
    gone = json.dumps({**variables, **absent})
    removed = run("ansible-playbook", "-vvv", PLAYBOOK, "--extra-vars", gone, cwd=home, env=env)
    assert_all_code_is_of(collections, removed)
    found = ("kubectl", "get", "namespace", namespace, "--ignore-not-found", "--output=name")
    assert run(*found, cwd=home, env=env) == ""


def test_as_an_awx_job(
    collections: Path, environment: dict[str, str], kubeconfig: str, namespace: str, tmp_path: Path
) -> None:
    """ansible-runner is AWX's engine: a private data directory with project, inventory, survey and credential.

    This credential is for one namespace: what installs definitions, which are the cluster's, is left out by its tag.
    """
    login = service_account(namespace, {**environment, "KUBECONFIG": kubeconfig}, tmp_path)
    job = tmp_path / "job"
    for directory in ("project", "inventory", "env"):
        (job / directory).mkdir(parents=True)
    (job / "project" / "site.yml").write_text(f"- import_playbook: {PLAYBOOK}\n")
    local = "ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'"  # as AWX's own demo
    (job / "inventory" / "hosts").write_text(f"localhost {local}\n")
    # A survey gives text.
    survey = {"distributor_namespace": namespace, "distributor_replicas": "2", "distributor_capacity": '{"blue": 1}'}
    (job / "env" / "extravars").write_text(json.dumps(survey))
    variables = {**login, "ANSIBLE_COLLECTIONS_PATH": str(collections), "HOME": environment["HOME"]}
    (job / "env" / "envvars").write_text(json.dumps(variables))
    (job / "env" / "settings").write_text(json.dumps({"job_timeout": SECONDS}))

    first = awx_job(job, environment)
    assert_all_code_is_of(collections, first.stdout.read())
    assert first.stats["changed"] != {}

    second = awx_job(job, environment)
    assert second.stats["changed"] == {}

    held = semaphore(namespace, {**environment, "KUBECONFIG": kubeconfig})
    assert len(held["holders"]) == 1
    assert len(held["waiters"]) == 1


# ---------------------------------------------------------------------------------------------------------------------


def awx_job(job: Path, environment: dict[str, str]) -> ansible_runner.Runner:
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment)
    try:
        done = ansible_runner.run(
            private_data_dir=str(job),
            playbook="site.yml",
            skip_tags="vm_operator,swarm_operator,allocator,partitions",
            quiet=True,
            verbosity=3,
        )
    finally:
        os.environ.clear()
        os.environ.update(saved)
    assert done.status == "successful", done.stdout.read()
    return done


def service_account(namespace: str, env: dict[str, str], directory: Path) -> dict[str, str]:
    """What AWX's credential "OpenShift or Kubernetes API Bearer Token" puts into the environment of a job."""

    def kubectl(*arguments: str) -> str:
        return run("kubectl", *arguments, cwd=directory, env=env).strip()

    kubectl("create", "namespace", namespace)
    kubectl("--namespace", namespace, "create", "serviceaccount", "awx")
    may = ("--clusterrole=admin", f"--serviceaccount={namespace}:awx")  # of this namespace, and of nothing else
    kubectl("--namespace", namespace, "create", "rolebinding", "awx", *may)
    view = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    cluster = view["clusters"][0]["cluster"]
    authority = directory / "ca.crt"
    authority.write_text(
        kubectl("--namespace", namespace, "get", "configmap", "kube-root-ca.crt", "--output=jsonpath={.data.ca\\.crt}")
    )
    return {
        "K8S_AUTH_HOST": cluster["server"],
        "K8S_AUTH_API_KEY": kubectl("--namespace", namespace, "create", "token", "awx"),
        "K8S_AUTH_VERIFY_SSL": "True",
        "K8S_AUTH_SSL_CA_CERT": str(authority),
    }


def semaphore(namespace: str, env: dict[str, str]) -> dict[str, Any]:
    status = (sys.executable, "-m", "muster.cli", "distributor", "status", "--namespace", namespace, "--output", "json")
    found = json.loads(run(*status, cwd=CHECKOUT, env=env))
    assert len(found) == 1
    return dict(found[0])


def recap(output: str) -> dict[str, int]:
    line = re.search(r"^localhost\s+: (.*)$", output, re.MULTILINE)
    assert line, output
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", line[1])}


def assert_all_code_is_of(collections: Path, output: str) -> None:
    """Every task and every module of ours that -vvv names lies in the installed tree, and there are some."""
    ours = re.findall(
        r"(?:task path:|Using module file) (\S*muster/coordination\S*)", re.sub(r"\x1b\[[0-9;]*m", "", output)
    )
    assert any("/plugins/modules/k8s_semaphore.py" in path for path in ours), "the module did not run"
    assert any("/roles/distributor/tasks/" in path for path in ours), "the role did not run"
    assert [path for path in ours if not path.startswith(f"{collections}/")] == []
    assert str(CHECKOUT) not in "".join(ours)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tarball holds what Ansible needs and nothing of the workshop. `make test-packaging` builds it first."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
GALAXY = yaml.safe_load((CHECKOUT / "galaxy.yml").read_text())

# A new name here must be a thing that a user of the collection needs; else it belongs into build_ignore of galaxy.yml.
WANTED = {
    "CHANGELOG.rst", "FILES.json", "LICENSE", "MANIFEST.json", "README.md", "requirements.txt", "requirements.yml",
    "changelogs", "charts", "kustomize", "docs", "meta", "playbooks", "plugins", "roles", "tests",
}  # fmt: skip
WANTED_TESTS = {"tests/config.yml", "tests/sanity"}
NEEDED = {
    "LICENSE", "README.md", "CHANGELOG.rst", "meta/runtime.yml", "meta/execution-environment.yml", "requirements.txt",
    "plugins/module_utils/decisions/semaphore.py", "plugins/modules/k8s_semaphore.py", "playbooks/site.yml",
    "roles/distributor/meta/argument_specs.yml", "charts/distributor/Chart.yaml",
    "roles/chart/meta/argument_specs.yml", "roles/vm_operator/meta/argument_specs.yml", "playbooks/vm_operator.yml",
    "charts/vm-operator/Chart.yaml", "charts/vm-operator/crds/virtualmachines.yaml",
    "roles/allocator/meta/argument_specs.yml", "playbooks/allocator.yml", "charts/allocator/crds/instances.yaml",
    "roles/swarm_operator/meta/argument_specs.yml", "kustomize/swarm-operator/base/kustomization.yaml",
    "playbooks/swarm_operator.yml", "plugins/modules/swarm_rebalance.py",
    "roles/partitions/meta/argument_specs.yml", "kustomize/partitions/base/kustomization.yaml",
    "kustomize/partitions/crds/partitions.yaml", "playbooks/partitions.yml", "plugins/modules/k8s_partition.py",
}  # fmt: skip


@pytest.fixture(scope="module")
def names() -> set[str]:
    tarball = CHECKOUT / "dist" / f"muster-coordination-{GALAXY['version']}.tar.gz"
    with tarfile.open(tarball) as archive:
        return {member.name for member in archive.getmembers()}


def test_it_holds_only_what_a_user_needs(names: set[str]) -> None:
    assert {name.split("/")[0] for name in names} <= WANTED
    inside_tests = {"/".join(name.split("/")[:2]) for name in names if name.startswith("tests/")}
    assert inside_tests <= WANTED_TESTS


def test_it_holds_what_a_user_needs(names: set[str]) -> None:
    assert names >= NEEDED


def test_it_holds_nothing_made_by_a_tool(names: set[str]) -> None:
    junk = re.compile(
        r"__pycache__|\.pyc$|\.(pytest|mypy|ruff)_cache|\.venv|\.cluster|(^|/)\.git|~$|\.(orig|rej|swp|retry)$"
    )
    assert [name for name in names if junk.search(name)] == []


def test_every_module_is_in_the_action_group() -> None:
    """`module_defaults: group/muster.coordination.k8s` reaches only what meta/runtime.yml lists."""
    listed = yaml.safe_load((CHECKOUT / "meta/runtime.yml").read_text())["action_groups"]["k8s"]
    assert sorted(listed) == sorted(path.stem for path in CHECKOUT.glob("plugins/modules/*.py"))


def test_dependencies_are_stated_alike() -> None:
    """galaxy.yml is for those who install the collection, requirements.yml for those who work in a checkout."""
    requirements = yaml.safe_load((CHECKOUT / "requirements.yml").read_text())["collections"]
    assert {entry["name"]: entry["version"] for entry in requirements} == GALAXY["dependencies"]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planted bugs; those that need a cluster take it from the integration tests.

With MUSTER_MUTANTS=first each is tried with the first suite that is said to catch it; else with all of them.
"""

import os

import pytest

from ansible_collections.muster.coordination.tests.integration.conftest import control_plane, kubeconfig

__all__ = ["control_plane", "kubeconfig"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mutants: plants a bug in a copy of the tree, and expects it to be caught")
    config.addinivalue_line("markers", "integration: needs a kube-apiserver, as an administrator of it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("MUSTER_MUTANTS") != "first":
        return
    wanted = {item: _is_wanted(getattr(item, "callspec", None)) for item in items}
    config.hook.pytest_deselected(items=[item for item in items if not wanted[item]])
    items[:] = [item for item in items if wanted[item]]


def _is_wanted(callspec) -> bool:
    params = callspec.params if callspec else {}
    return "mutant" not in params or params["suite"] == params["mutant"].caught_by[0]

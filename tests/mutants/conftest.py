# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planted bugs; those that need a cluster take it from the integration tests."""

import pytest

from ansible_collections.muster.coordination.tests.integration.conftest import control_plane, kubeconfig

__all__ = ["control_plane", "kubeconfig"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "mutants: plants a bug in a copy of the tree, and expects it to be caught")
    config.addinivalue_line("markers", "integration: needs a kube-apiserver, as an administrator of it")

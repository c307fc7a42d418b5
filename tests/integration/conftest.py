# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real kube-apiserver for these tests, and an ephemeral namespace in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.tests.support.control_plane import ControlPlane

EMBEDDED = Path(__file__).parents[2] / ".cluster/muster-cp/kubeconfig"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "integration: needs a kube-apiserver, as an administrator of it")
    # Tests begun by nohup, or in the background of a shell, would hand on what is ignored to the programs they try out.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kubeconfig() -> str:
    """Path of the kubeconfig: MUSTER_TEST_KUBECONFIG, else KUBECONFIG, else the embedded control plane."""
    path = os.environ.get("MUSTER_TEST_KUBECONFIG") or os.environ.get("KUBECONFIG") or str(EMBEDDED)
    if not os.path.exists(path):
        pytest.fail(f"{path} does not exist; start a control plane (make test-integration) or set KUBECONFIG")
    return path


@pytest.fixture(scope="session")
def api(kubeconfig: str) -> Iterator[Api]:
    """The cluster as an administrator."""
    api = Api(Credentials.load({"kubeconfig": kubeconfig}))
    yield api
    api.close()


@pytest.fixture
def namespace(api: Api) -> Iterator[str]:
    """An empty namespace, removed afterwards."""
    name = api.create(NAMESPACES, {"metadata": {"generateName": "muster-test-"}})["metadata"]["name"]
    yield name
    api.delete(NAMESPACES, name)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own; tests that use it are all of the xdist group "a control plane of its own"."""
    plane = ControlPlane(tmp_path_factory.mktemp("cluster"))
    try:
        plane("up")
        yield plane
    finally:
        plane("down")

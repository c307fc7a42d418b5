# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cluster is chosen, and what a person reads when none can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster import ClusterError
from cluster.choose import Facts, choose
from cluster.spec import CONTROL_PLANE, NODE

DOCKER = "docker is not on the PATH. Install Docker and start its daemon."
GO = "Go is not on the PATH. Install Go 1.26 or newer."
EVERYTHING = Facts(kubeconfig="/home/a/.kube/config", kind_installed=True)
NOTHING = Facts(
    docker_problem=DOCKER,
    root=False,
    can_install=False,
    unbuilt=("etcd",),
    go_problem=GO,
    packages=("runc", "nftables"),
)


def test_kind_comes_before_embedded() -> None:
    assert choose("", EVERYTHING, NODE) == "kind"


def test_embedded_when_docker_does_not_answer() -> None:
    assert choose("", replace(EVERYTHING, docker_problem=DOCKER), NODE) == "embedded"


def test_embedded_when_kind_is_not_installed() -> None:
    assert choose("", replace(EVERYTHING, kind_installed=False), NODE) == "embedded"


def test_existing_only_on_purpose() -> None:
    only_kubeconfig = replace(NOTHING, kubeconfig="/home/a/.kube/config")
    with pytest.raises(ClusterError, match="set MUSTER_CLUSTER=existing to use the cluster of KUBECONFIG"):
        choose("", only_kubeconfig, NODE)
    assert choose("existing", only_kubeconfig, NODE) == "existing"


@pytest.mark.parametrize("provider", ["existing", "kind", "embedded"])
def test_override_wins_over_the_order(provider: str) -> None:
    assert choose(provider, EVERYTHING, NODE) == provider


def test_unknown_override_names_the_choices() -> None:
    with pytest.raises(ClusterError, match="'minikube' is none of existing, kind, embedded"):
        choose("minikube", EVERYTHING, NODE)


def test_override_that_cannot_be_used_says_why_and_does_not_fall_back() -> None:
    with pytest.raises(ClusterError) as raised:
        choose("kind", replace(EVERYTHING, docker_problem=DOCKER), NODE)
    assert DOCKER in str(raised.value)
    assert "embedded" not in str(raised.value)


def test_message_names_every_missing_thing_with_its_remedy() -> None:
    with pytest.raises(ClusterError) as raised:
        choose("", NOTHING, NODE)
    message = str(raised.value)
    for part in ("KUBECONFIG", DOCKER, "go install sigs.k8s.io/kind", "sudo", "apt-get install runc nftables", GO):
        assert part in message


def test_control_plane_needs_neither_root_nor_packages() -> None:
    assert choose("", replace(NOTHING, unbuilt=()), CONTROL_PLANE) == "embedded"


def test_go_is_not_needed_when_all_is_built() -> None:
    assert choose("embedded", Facts(go_problem=GO, docker_problem=DOCKER), NODE) == "embedded"


def test_root_with_apt_installs_packages_itself() -> None:
    assert choose("embedded", Facts(packages=("runc",)), NODE) == "embedded"
    with pytest.raises(ClusterError, match="missing packages: runc"):
        choose("embedded", Facts(packages=("runc",), can_install=False), NODE)


def test_other_systems_are_sent_to_kind() -> None:
    with pytest.raises(ClusterError, match="Linux only"):
        choose("embedded", Facts(linux=False), CONTROL_PLANE)

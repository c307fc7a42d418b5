# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is rendered for the components: the flags and settings which others rely on."""

from __future__ import annotations

import json
import tomllib
from collections import defaultdict

import pytest
import yaml

from cluster import config
from cluster.spec import CONTROL_PLANE, NODE, Spec, make

HOST = config.Host(defaultdict(lambda: "/bin/tool"), cni_plugins="/opt/cni/bin", snapshotter="native", open_files=2048)


def flags(spec: Spec, component: str) -> dict[str, str]:
    found = next(c for c in config.components(spec, HOST) if c.name == component)
    return dict(flag.removeprefix("--").split("=", 1) for flag in found.argv[1:])


@pytest.fixture
def control_plane() -> Spec:
    return make("cp", CONTROL_PLANE, "/state/cp")


@pytest.fixture
def node() -> Spec:
    return make("one", NODE, "/state/one")


def test_control_plane_listens_on_loopback_alone(control_plane: Spec) -> None:
    assert flags(control_plane, "kube-apiserver")["bind-address"] == "127.0.0.1"
    assert flags(control_plane, "kube-controller-manager")["bind-address"] == "127.0.0.1"
    assert flags(control_plane, "kube-scheduler")["bind-address"] == "127.0.0.1"
    urls = [value for flag, value in flags(control_plane, "etcd").items() if flag.endswith("-urls")]
    assert urls and all("//127.0.0.1:" in url for url in urls)


def test_two_control_planes_share_no_port(control_plane: Spec) -> None:
    taken = set(control_plane.ports.all())
    other = make("other", CONTROL_PLANE, "/state/cp", port_free=lambda port: port not in taken)
    used = {c.probe for c in config.components(control_plane, HOST)}
    assert not used & {c.probe for c in config.components(other, HOST)}


@pytest.mark.parametrize("level", [CONTROL_PLANE, NODE])
def test_every_component_comes_after_ones_that_exist_and_come_first(level: str) -> None:
    seen: set[str] = set()
    for component in config.components(make("a", level, "/a"), HOST):
        assert seen.issuperset(component.after)
        seen.add(component.name)


def test_etcd_asks_for_certificates(node: Spec) -> None:
    assert flags(node, "etcd")["client-cert-auth"] == "true"
    assert flags(node, "etcd")["listen-client-urls"].startswith("https://")


def test_apiserver_authorizes_nodes_and_reaches_kubelets(node: Spec) -> None:
    found = flags(node, "kube-apiserver")
    assert found["authorization-mode"] == "Node,RBAC"
    assert found["kubelet-certificate-authority"] == "/state/one/pki/ca.crt"
    assert found["advertise-address"] == node.address
    assert found["service-cluster-ip-range"] == node.service_cidr


def test_audit_log_only_when_asked(node: Spec) -> None:
    assert "audit-log-path" not in flags(node, "kube-apiserver")
    audited = make("one", NODE, "/state/one", audit=True)
    assert flags(audited, "kube-apiserver")["audit-log-path"] == "/state/one/logs/audit.log"
    assert "conf/audit.yaml" in config.files(audited, HOST)


def test_kubelet_never_evicts_or_deletes_loaded_images(node: Spec) -> None:
    kubelet = yaml.safe_load(config.files(node, HOST)["conf/kubelet.yaml"])
    assert kubelet["imageGCHighThresholdPercent"] == 100
    assert set(kubelet["evictionHard"].values()) == {"0%"}
    assert kubelet["authentication"]["anonymous"]["enabled"] is False
    assert kubelet["maxOpenFiles"] == 2048


def test_containerd_configuration_is_toml_with_the_sandbox_pinned(node: Spec) -> None:
    plugins = tomllib.loads(config.files(node, HOST)["conf/containerd.toml"])["plugins"]
    assert plugins["io.containerd.cri.v1.images"]["pinned_images"]["sandbox"] == config.SANDBOX_IMAGE
    assert plugins["io.containerd.cri.v1.images"]["snapshotter"] == "native"
    runtime = plugins["io.containerd.cri.v1.runtime"]
    assert runtime["restrict_oom_score_adj"] is True
    assert runtime["cni"] == {"bin_dirs": ["/opt/cni/bin"], "conf_dir": "/state/one/conf/cni"}


def test_pods_get_addresses_that_the_host_routes(node: Spec) -> None:
    cni = json.loads(config.files(node, HOST)["conf/cni/10-muster.conflist"])
    assert cni["plugins"][0]["ipam"]["ranges"] == [[{"subnet": node.pod_cidr}]]


def test_kubeconfig_names_the_cluster_and_its_server(node: Spec) -> None:
    inline = {"ca": "Y2E=", "cert": "Y3J0", "key": "a2V5"}
    found = yaml.safe_load(config.kubeconfig(node, "admin", inline=inline))
    assert found["current-context"] == "one"
    assert found["clusters"][0]["cluster"] == {"server": node.server, "certificate-authority-data": "Y2E="}
    assert found["users"][0]["user"] == {"client-certificate-data": "Y3J0", "client-key-data": "a2V5"}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs in an embedded cluster: command lines and configuration files, rendered from one Spec. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cluster.spec import Spec

SANDBOX_IMAGE = "muster.dev/busybox:1"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"  # inside the node's own mount namespace

CONTROL_PLANE_TOOLS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NODE_TOOLS = ("containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy")


@dataclass(frozen=True)
class Component:
    """One supervised process.

    `after` names the components which must be ready before its first start. `probe` tells when it is ready itself:
    `http://…`, `https://…` (answers 200) or `unix:/path` (accepts a connection).
    """

    name: str
    argv: tuple[str, ...]
    after: tuple[str, ...]
    probe: str


@dataclass(frozen=True)
class Host:
    """What rendering must know of the machine: where programs lie, what the kernel allows."""

    binaries: dict[str, str]
    cni_plugins: str = "/usr/lib/cni"
    snapshotter: str = "overlayfs"
    open_files: int = 1_000_000


def components(spec: Spec, host: Host) -> list[Component]:
    """Every process of this level, in the order of their start."""
    found = [_etcd(spec, host), _apiserver(spec, host), _controller_manager(spec, host), _scheduler(spec, host)]
    return found + (_node_components(spec, host) if spec.node else [])


def files(spec: Spec, host: Host) -> dict[str, str]:
    """Configuration files: path relative to the state directory to content. Certificates must exist already there."""
    found = {f"conf/{user}.kubeconfig": kubeconfig(spec, user) for user in ("controller-manager", "scheduler")}
    if spec.audit:
        found["conf/audit.yaml"] = yaml.safe_dump(AUDIT_POLICY)
    if spec.node:
        found |= {f"conf/{user}.kubeconfig": kubeconfig(spec, user) for user in ("kubelet", "kube-proxy")}
        found["conf/kubelet.yaml"] = yaml.safe_dump(_kubelet_config(spec, host))
        found["conf/kube-proxy.yaml"] = yaml.safe_dump(_kube_proxy_config(spec))
        found["conf/containerd.toml"] = _containerd_config(spec, host)
        found["conf/cni/10-muster.conflist"] = json.dumps(_cni_config(spec), indent=2)
        found["conf/resolv.conf"] = "# No cluster DNS: with no nameserver here a lookup fails at once, not after 5 s.\n"
    return found


def kubeconfig(spec: Spec, user: str, *, inline: dict[str, str] | None = None) -> str:
    """A kubeconfig of `user` (a file name in pki/).

    Certificates are named by path, or inline when `inline` gives ca, cert and key in base64.
    """
    pki = f"{spec.directory}/pki"
    if inline:
        authority = {"certificate-authority-data": inline["ca"]}
        identity = {"client-certificate-data": inline["cert"], "client-key-data": inline["key"]}
    else:
        authority = {"certificate-authority": f"{pki}/ca.crt"}
        identity = {"client-certificate": f"{pki}/{user}.crt", "client-key": f"{pki}/{user}.key"}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": spec.name,
            "clusters": [{"name": spec.name, "cluster": {"server": spec.server, **authority}}],
            "users": [{"name": f"{spec.name}-{user}", "user": identity}],
            "contexts": [{"name": spec.name, "context": {"cluster": spec.name, "user": f"{spec.name}-{user}"}}],
        },
        sort_keys=False,
    )


AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def _flags(**values: object) -> tuple[str, ...]:
    return tuple(f"--{name.replace('_', '-')}={_text(value)}" for name, value in values.items())


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _etcd(spec: Spec, host: Host) -> Component:
    pki, ports = f"{spec.directory}/pki", spec.ports
    client, peer = f"https://127.0.0.1:{ports.etcd}", f"http://127.0.0.1:{ports.etcd_peer}"
    flags = _flags(
        name=spec.name,
        data_dir=f"{spec.directory}/etcd",
        listen_client_urls=client,
        advertise_client_urls=client,
        listen_peer_urls=peer,
        initial_advertise_peer_urls=peer,
        initial_cluster=f"{spec.name}={peer}",
        listen_metrics_urls=f"http://127.0.0.1:{ports.etcd_metrics}",
        client_cert_auth=True,
        trusted_ca_file=f"{pki}/etcd-ca.crt",
        cert_file=f"{pki}/etcd.crt",
        key_file=f"{pki}/etcd.key",
        unsafe_no_fsync=True,  # the data ends with the cluster; never for one that must outlive a crash
        log_level="warn",
    )
    probe = f"http://127.0.0.1:{ports.etcd_metrics}/readyz"
    return Component("etcd", (host.binaries["etcd"], *flags), (), probe)


def _apiserver(spec: Spec, host: Host) -> Component:
    pki = f"{spec.directory}/pki"
    flags = _flags(
        advertise_address=spec.address,
        bind_address="0.0.0.0" if spec.node else "127.0.0.1",
        secure_port=spec.ports.apiserver,
        etcd_servers=f"https://127.0.0.1:{spec.ports.etcd}",
        etcd_cafile=f"{pki}/etcd-ca.crt",
        etcd_certfile=f"{pki}/etcd-client.crt",
        etcd_keyfile=f"{pki}/etcd-client.key",
        client_ca_file=f"{pki}/ca.crt",
        tls_cert_file=f"{pki}/apiserver.crt",
        tls_private_key_file=f"{pki}/apiserver.key",
        service_account_issuer="https://kubernetes.default.svc.cluster.local",
        service_account_key_file=f"{pki}/service-account.pub",
        service_account_signing_key_file=f"{pki}/service-account.key",
        service_cluster_ip_range=spec.service_cidr,
        requestheader_client_ca_file=f"{pki}/front-proxy-ca.crt",
        requestheader_allowed_names="front-proxy-client",
        requestheader_username_headers="X-Remote-User",
        requestheader_group_headers="X-Remote-Group",
        requestheader_extra_headers_prefix="X-Remote-Extra-",
        proxy_client_cert_file=f"{pki}/front-proxy-client.crt",
        proxy_client_key_file=f"{pki}/front-proxy-client.key",
        authorization_mode="Node,RBAC",
        enable_admission_plugins="NodeRestriction",
        allow_privileged=True,
    )
    if spec.node:
        flags += _flags(
            kubelet_client_certificate=f"{pki}/apiserver-kubelet-client.crt",
            kubelet_client_key=f"{pki}/apiserver-kubelet-client.key",
            kubelet_certificate_authority=f"{pki}/ca.crt",
            kubelet_preferred_address_types="InternalIP",
        )
    else:
        flags += _flags(endpoint_reconciler_type="none")  # an Endpoints object may not hold a loopback address
    if spec.audit:
        log = f"{spec.directory}/logs/audit.log"
        flags += _flags(audit_policy_file=f"{spec.directory}/conf/audit.yaml", audit_log_path=log)
    probe = f"https://127.0.0.1:{spec.ports.apiserver}/readyz"
    return Component("kube-apiserver", (host.binaries["kube-apiserver"], *flags), ("etcd",), probe)


def _client_flags(spec: Spec, user: str) -> tuple[str, ...]:
    path = f"{spec.directory}/conf/{user}.kubeconfig"
    return _flags(
        kubeconfig=path,
        authentication_kubeconfig=path,
        authorization_kubeconfig=path,
        bind_address="127.0.0.1",
        leader_elect=False,  # one of each: a lock would only delay the restart after a fault
    )


def _controller_manager(spec: Spec, host: Host) -> Component:
    pki = f"{spec.directory}/pki"
    flags = _client_flags(spec, "controller-manager") + _flags(
        secure_port=spec.ports.controller_manager,
        use_service_account_credentials=True,
        kube_api_qps=100,  # at the default 20 it takes 5 s to start its thirty controllers
        kube_api_burst=200,
        service_account_private_key_file=f"{pki}/service-account.key",
        root_ca_file=f"{pki}/ca.crt",
        cluster_signing_cert_file=f"{pki}/ca.crt",
        cluster_signing_key_file=f"{pki}/ca.key",
    )
    if spec.node:
        flags += _flags(
            allocate_node_cidrs=True,
            cluster_cidr=spec.pod_cidr,
            node_cidr_mask_size=spec.pod_cidr.split("/")[1],
        )
    probe = f"https://127.0.0.1:{spec.ports.controller_manager}/healthz"
    name = "kube-controller-manager"
    return Component(name, (host.binaries[name], *flags), ("kube-apiserver",), probe)


def _scheduler(spec: Spec, host: Host) -> Component:
    flags = _client_flags(spec, "scheduler") + _flags(secure_port=spec.ports.scheduler)
    probe = f"https://127.0.0.1:{spec.ports.scheduler}/healthz"
    return Component("kube-scheduler", (host.binaries["kube-scheduler"], *flags), ("kube-apiserver",), probe)


def _node_components(spec: Spec, host: Host) -> list[Component]:
    conf, binaries = f"{spec.directory}/conf", host.binaries
    containerd = (binaries["containerd"], "--config", f"{conf}/containerd.toml")
    kubelet = (
        binaries["kubelet"],
        *_flags(
            config=f"{conf}/kubelet.yaml",
            kubeconfig=f"{conf}/kubelet.kubeconfig",
            hostname_override=spec.name,
            node_ip=spec.address,
        ),
    )
    proxy = (binaries["kube-proxy"], *_flags(config=f"{conf}/kube-proxy.yaml", hostname_override=spec.name))
    return [
        Component("containerd", containerd, (), f"unix:{CONTAINERD_SOCKET}"),
        Component("kubelet", kubelet, ("kube-apiserver", "containerd"), "http://127.0.0.1:10248/healthz"),
        # Its /livez, not /healthz: the latter waits for the node's own object, and for the first rules.
        Component("kube-proxy", proxy, ("kube-apiserver",), "http://127.0.0.1:10256/livez"),
    ]


def _kubelet_config(spec: Spec, host: Host) -> dict[str, Any]:
    pki = f"{spec.directory}/pki"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
        "resolvConf": f"{spec.directory}/conf/resolv.conf",
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": [],
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "maxPods": 500,
        "maxOpenFiles": host.open_files,
        "oomScoreAdj": 0,  # a lower one needs CAP_SYS_RESOURCE
        # Images were loaded, no registry has them: a full disk must neither evict Pods nor delete images.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
    }


def _kube_proxy_config(spec: Spec) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": spec.pod_cidr,
        "clientConnection": {"kubeconfig": f"{spec.directory}/conf/kube-proxy.kubeconfig"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": 0,
        # The host's conntrack limits are the host's: leave them alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _containerd_config(spec: Spec, host: Host) -> str:
    """Root, state and socket stay containerd's defaults: the node sees its own /var/lib and /run."""
    text = json.dumps  # a JSON string is a valid TOML basic string
    return f"""\
version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.snapshotter.v1.erofs"]

[plugins.'io.containerd.cri.v1.images']
  snapshotter = {text(host.snapshotter)}

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = {text(SANDBOX_IMAGE)}

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = [{text(host.cni_plugins)}]
  conf_dir = {text(spec.directory + "/conf/cni")}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  runtime_path = {text(host.binaries["containerd-shim-runc-v2"])}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = {text(host.binaries["runc"])}
  SystemdCgroup = false
"""


def _cni_config(spec: Spec) -> dict[str, Any]:
    """Routed links, not a bridge: two Pods of one Service then meet at the node, without the br_netfilter module."""
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": spec.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/cni-ipam",
    }
    return {
        "cniVersion": "1.0.0",
        "name": "muster",
        "plugins": [
            {"type": "ptp", "ipMasq": False, "ipam": ipam},
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def write(spec: Spec, host: Host) -> None:
    """Write what `files` renders below the state directory."""
    for name, content in files(spec, host).items():
        path = Path(spec.directory, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods that pass `restricted`, and everything by which one can fall short of it or of `baseline`.

Whether it does is said beside each; and a real API server is asked, too (tests/integration/test_template_policy.py).
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

Object = dict[str, Any]
FINE, RESTRICTED, BASELINE = "fine", "not restricted", "not even baseline"

_CONTEXT = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "{{.Name}}", "annotations": {"note": "x"}},
    "spec": {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "initContainers": [{"name": "first", "image": "example.org/i", "securityContext": copy.deepcopy(_CONTEXT)}],
        "containers": [
            {"name": "one", "image": "example.org/i", "securityContext": copy.deepcopy(_CONTEXT)},
            {"name": "two", "image": "example.org/i", "securityContext": copy.deepcopy(_CONTEXT)},
        ],
        "volumes": [{"name": "data", "emptyDir": {}}],
    },
}


class Change(NamedTuple):
    """What is set at a path of the Pod (None: it is taken out), what the standard says to that, and at which field."""

    path: str
    value: Any
    verdict: str
    field: str = ""

    def __str__(self) -> str:
        return f"{self.path} = {self.value!r}"


def changed(*changes: Change) -> Object:
    pod = copy.deepcopy(POD)
    for change in changes:
        put(pod, change.path, change.value)
    return pod


def put(value: Any, path: str, wanted: Any) -> None:
    """Set what stands at `spec.containers.0.image`; what is missing on the way is made."""
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in way:
        if isinstance(value, dict) and value.get(step) is None:
            value[step] = {}
        value = value[step]
    if wanted is None:
        value.pop(last, None)
    else:
        value[last] = copy.deepcopy(wanted)


def _everywhere(field: str, value: Any, verdict: str, below: str = "") -> tuple[Change, ...]:
    """In the Pod's own security context, an init container's and a container's."""
    places = ("spec", "spec.initContainers.0", "spec.containers.1")
    return tuple(Change(f"{at}.securityContext.{field}", value, verdict, below) for at in places)


def _in_containers(field: str, value: Any, verdict: str, below: str = "") -> tuple[Change, ...]:
    return tuple(Change(f"spec.{at}.{field}", value, verdict, below) for at in ("initContainers.0", "containers.1"))


def _volume(source: Object, verdict: str) -> Change:
    (kind,) = source
    return Change("spec.volumes", [{"name": "data", **source}], verdict, f"spec.volumes[0].{kind}" * (verdict != FINE))


_HANDLER = {"path": "/", "port": 80}
CHANGES: tuple[Change, ...] = (
    # host namespaces, ports and paths
    *(Change(f"spec.{key}", True, BASELINE) for key in ("hostNetwork", "hostPID", "hostIPC")),
    *(Change(f"spec.{key}", False, FINE) for key in ("hostNetwork", "hostPID", "hostIPC")),
    *_in_containers("ports", [{"containerPort": 80, "hostPort": 80}], BASELINE, "ports[0].hostPort"),
    *_in_containers("ports", [{"containerPort": 80, "hostPort": 0}], FINE),
    *_in_containers("ports", [{"containerPort": 80}], FINE),
    _volume({"hostPath": {"path": "/"}}, BASELINE),
    # privileges
    *_in_containers("securityContext.privileged", False, FINE),
    *_in_containers("securityContext.allowPrivilegeEscalation", None, RESTRICTED),
    *_in_containers("securityContext.allowPrivilegeEscalation", True, RESTRICTED),
    *_in_containers("securityContext.procMount", "Default", FINE),
    # capabilities
    *_in_containers("securityContext.capabilities", None, RESTRICTED, "securityContext.capabilities.drop"),
    *_in_containers("securityContext.capabilities.drop", None, RESTRICTED),
    *_in_containers("securityContext.capabilities.drop", [], RESTRICTED),
    *_in_containers("securityContext.capabilities.drop", ["KILL"], RESTRICTED),
    *_in_containers("securityContext.capabilities.drop", ["all"], RESTRICTED),
    *_in_containers("securityContext.capabilities.drop", ["CAP_ALL"], RESTRICTED),
    *_in_containers("securityContext.capabilities.drop", ["KILL", "ALL"], FINE),
    *_in_containers("securityContext.capabilities.add", [], FINE),
    *_in_containers("securityContext.capabilities.add", ["NET_BIND_SERVICE"], FINE),
    *_in_containers("securityContext.capabilities.add", ["CHOWN"], RESTRICTED, "securityContext.capabilities.add[0]"),
    *_in_containers("securityContext.capabilities.add", ["MKNOD"], RESTRICTED, "securityContext.capabilities.add[0]"),
    *_in_containers(
        "securityContext.capabilities.add", ["CHOWN", "NET_ADMIN"], BASELINE, "securityContext.capabilities.add[1]"
    ),
    *_in_containers("securityContext.capabilities.add", ["ALL"], BASELINE, "securityContext.capabilities.add[0]"),
    *_in_containers("securityContext.capabilities.add", ["NET_RAW"], BASELINE, "securityContext.capabilities.add[0]"),
    *_in_containers(
        "securityContext.capabilities.add", ["CAP_CHOWN"], BASELINE, "securityContext.capabilities.add[0]"
    ),
    # users
    Change("spec.securityContext.runAsNonRoot", None, RESTRICTED, "spec.containers[0].securityContext.runAsNonRoot"),
    Change("spec.securityContext.runAsNonRoot", False, RESTRICTED),
    Change("spec.securityContext", None, RESTRICTED, "spec.containers[0].securityContext.runAsNonRoot"),
    *_in_containers("securityContext.runAsNonRoot", False, RESTRICTED),
    *_in_containers("securityContext.runAsNonRoot", True, FINE),
    *_everywhere("runAsUser", 0, RESTRICTED),
    *_everywhere("runAsUser", 65532, FINE),
    *_everywhere("runAsGroup", 0, FINE),
    Change("spec.securityContext.fsGroup", 0, FINE),
    Change("spec.securityContext.supplementalGroups", [0], FINE),
    # seccomp, AppArmor, SELinux
    *_everywhere("seccompProfile.type", "Unconfined", BASELINE),
    *_everywhere("seccompProfile", {"type": "Localhost", "localhostProfile": "x.json"}, FINE),
    *_in_containers("securityContext.seccompProfile", {"type": "RuntimeDefault"}, FINE),
    Change(
        "spec.securityContext.seccompProfile", None, RESTRICTED,
        "spec.containers[0].securityContext.seccompProfile.type",
    ),
    *_everywhere("appArmorProfile.type", "Unconfined", BASELINE),
    *_everywhere("appArmorProfile.type", "RuntimeDefault", FINE),
    *_everywhere("appArmorProfile", {"type": "Localhost", "localhostProfile": "x"}, FINE),
    *_everywhere("seLinuxOptions", {}, FINE),
    *_everywhere("seLinuxOptions.level", "s0:c1,c2", FINE),
    *(
        change
        for kind in ("container_t", "container_init_t", "container_kvm_t", "container_engine_t")
        for change in _everywhere("seLinuxOptions.type", kind, FINE)
    ),
    *_everywhere("seLinuxOptions.type", "spc_t", BASELINE),
    *_everywhere("seLinuxOptions.user", "system_u", BASELINE),
    *_everywhere("seLinuxOptions.role", "system_r", BASELINE),
    # sysctls
    *(
        Change("spec.securityContext.sysctls", [{"name": name, "value": "1"}], FINE)
        for name in (
            "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
            "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
            "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
            "net.ipv4.tcp_syncookies",
        )
    ),
    *(
        Change("spec.securityContext.sysctls", [{"name": "net.ipv4.tcp_syncookies", "value": "1"}, {"name": name,
               "value": "1"}], BASELINE, "spec.securityContext.sysctls[1].name")
        for name in ("kernel.msgmax", "net.core.somaxconn", "net.ipv4.tcp_syncookie")
    ),
    # probes and hooks
    *(
        change
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        for how in ("httpGet", "tcpSocket")
        for change in (
            Change(f"spec.containers.1.{probe}.{how}", {**_HANDLER, "host": "10.0.0.1"} if how == "httpGet" else
                   {"port": 80, "host": "10.0.0.1"}, BASELINE, f"spec.containers[1].{probe}.{how}.host"),
            Change(f"spec.containers.1.{probe}.{how}", _HANDLER if how == "httpGet" else {"port": 80}, FINE),
        )
    ),
    *(
        change
        for hook in ("postStart", "preStop")
        for change in (
            Change(f"spec.containers.1.lifecycle.{hook}.httpGet", {**_HANDLER, "host": "127.0.0.1"}, BASELINE,
                   f"spec.containers[1].lifecycle.{hook}.httpGet.host"),
            Change(f"spec.containers.1.lifecycle.{hook}.httpGet", _HANDLER, FINE),
            Change(f"spec.containers.1.lifecycle.{hook}.exec", {"command": ["true"]}, FINE),
        )
    ),
    # volumes
    *(
        _volume(source, FINE)
        for source in (
            {"configMap": {"name": "x"}}, {"secret": {"secretName": "x"}}, {"emptyDir": {"medium": "Memory"}},
            {"downwardAPI": {"items": []}}, {"projected": {"sources": []}}, {"csi": {"driver": "x.example.org"}},
            {"persistentVolumeClaim": {"claimName": "x"}},
            {"ephemeral": {"volumeClaimTemplate": {"spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}}},
        )
    ),
    *(
        _volume(source, RESTRICTED)
        for source in (
            {"nfs": {"server": "x", "path": "/"}}, {"gcePersistentDisk": {"pdName": "x"}},
            {"awsElasticBlockStore": {"volumeID": "x"}}, {"gitRepo": {"repository": "x"}},
            {"iscsi": {"targetPortal": "1.2.3.4", "iqn": "iqn.2001-04.com.example:x", "lun": 0}},
            {"cephfs": {"monitors": ["x"]}}, {"rbd": {"monitors": ["x"], "image": "x"}},
            {"fc": {"targetWWNs": ["x"], "lun": 0}}, {"azureFile": {"secretName": "x", "shareName": "x"}},
            {"flexVolume": {"driver": "x/y"}}, {"glusterfs": {"endpoints": "x", "path": "x"}},
        )
    ),
    Change("spec.volumes", [{"name": "data"}], FINE),
    # AppArmor, as it was said before it had a field
    *(
        Change("metadata.annotations", {f"container.apparmor.security.beta.kubernetes.io/{name}": profile}, verdict,
               f'metadata.annotations["container.apparmor.security.beta.kubernetes.io/{name}"]' * (verdict != FINE))
        for name in ("one", "first")
        for profile, verdict in (("runtime/default", FINE), ("localhost/x", FINE), ("unconfined", BASELINE))
    ),
    # a Pod that says nothing
    Change("spec", {"containers": [{"name": "one", "image": "i"}]}, RESTRICTED),
)  # fmt: skip

# What the API server takes for a mistake of another kind before it asks about security; the verdict is the standard's.
NEVER_ASKED: tuple[Change, ...] = (
    *_in_containers("securityContext.privileged", True, BASELINE),  # with allowPrivilegeEscalation: false
    *_in_containers("securityContext.procMount", "Unmasked", BASELINE),
    *_everywhere("windowsOptions.hostProcess", True, BASELINE),
    *_everywhere("windowsOptions.hostProcess", False, FINE),
    *(
        Change(f"spec.containers.1.lifecycle.{hook}.tcpSocket", {"port": 80, "host": "x"}, BASELINE,
               f"spec.containers[1].lifecycle.{hook}.tcpSocket.host")
        for hook in ("postStart", "preStop")
    ),
    *_in_containers("securityContext.privileged", "no", BASELINE),
    *_in_containers("securityContext.privileged", 0, BASELINE),
    *_in_containers("securityContext.allowPrivilegeEscalation", 0, RESTRICTED),
    *_in_containers("securityContext.runAsNonRoot", 1, RESTRICTED),
    *_in_containers("securityContext.capabilities.drop", "ALL", RESTRICTED),
    *_in_containers("securityContext.capabilities.add", "ALL", BASELINE),
    *_in_containers("securityContext", "x", BASELINE),
    Change("spec.securityContext", [], BASELINE),
    *_everywhere("runAsUser", "0", RESTRICTED),
    *_everywhere("runAsUser", True, RESTRICTED),
    Change("spec.hostNetwork", "true", BASELINE),
    Change("spec.hostNetwork", 1, BASELINE),
)  # fmt: skip

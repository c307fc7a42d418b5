# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a template may make: kinds, Pod Security, and what its Pods may refer to.

Rules
1. A kind that is not on the list, with its apiVersion, is refused.
2. Every Pod template passes `restricted` of the Pod Security Standards, or `baseline` where the administrator says so.
   That is checked without a cluster, field by field, so that each error names one; values that have no meaning there
   are refused, too. Where the standard is laxer for Pods of user namespaces, this is not.
3. Pods refer only to ConfigMaps and disks that the template makes, or that the administrator names: in the same
   namespace are the ledgers, and the disks of others. Secrets and service accounts are those that are named, no others;
   who has none of these has no token of the API server either.
4. The record of an instance is complete: what makes disks that stand in no document (volumeClaimTemplates) is refused.
5. The template is checked when it is read, the objects once more when they are rendered: a value that a user gives is
   then seen where it stands. What is checked here is written out in a template; a placeholder there is refused.
6. Text that a user gives is no part of a shell's script.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/, as of Kubernetes 1.34.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import DISK
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import (
    POD_TEMPLATES,
    Path,
    Template,
    look,
    placeholders,
    spell,
    title,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import Parameter
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

RESTRICTED, BASELINE = "restricted", "baseline"
LEVELS: Final = (RESTRICTED, BASELINE)
KINDS: Final = frozenset({
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("v1", "ConfigMap"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Service"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
})  # fmt: skip
MAX_REPLICAS: Final = 100

_APP_ARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"  # annotations of a Pod, one for each container
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_VOLUMES: Final = (  # that restricted allows
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
)  # fmt: skip
_CAPABILITIES: Final = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
_SYSCTLS: Final = (
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range", "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
)  # fmt: skip
_SELINUX: Final = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_SECCOMP: Final = ("RuntimeDefault", "Localhost")
_PROBES: Final = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle.postStart", "lifecycle.preStop")
_SHELLS: Final = re.compile(r"(?:.*/)?(?:a|ba|da|k|mk|z)?sh")
_SHELL_OPTION: Final = re.compile(r"-[a-zA-Z]*c[a-zA-Z]*")
_SAFE_NAMES: Final = frozenset({"Name", "OwnerHash", "Version"})  # without a character that means something to a shell

Object = Mapping[str, Any]
Found = tuple[Path, Any]


class Policy(NamedTuple):
    """What is permitted. Names are those of objects that are there already, in the instances' namespace."""

    pod_security: str = RESTRICTED
    kinds: frozenset[tuple[str, str]] = KINDS
    service_accounts: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    config_maps: frozenset[str] = frozenset()
    disks: frozenset[str] = frozenset()
    max_replicas: int = MAX_REPLICAS


class Violation(NamedTuple):
    """`field` begins with the object: `Deployment {{.Name}}: spec.replicas`."""

    field: str
    value: Any
    remedy: str


def check_template(template: Template, policy: Policy) -> None:
    """Raises Malformed with the first violation, and how many more there are."""
    _raise(violations(template.documents, policy, template.parameters))


def check_objects(objects: Sequence[Object], policy: Policy) -> None:
    """The same for what was rendered. Raises Malformed."""
    _raise(violations(objects, policy))


def _raise(found: Sequence[Violation]) -> None:
    if found:
        field, value, remedy = found[0]
        others = f" ({len(found) - 1} more, the next at {found[1].field})" if len(found) > 1 else ""
        raise Malformed(field, value, f"{remedy}{others}")


def violations(
    objects: Sequence[Object], policy: Policy, parameters: Mapping[str, Parameter] | None = None
) -> list[Violation]:
    """All of them. `parameters`: of a template; None: these are rendered objects, in which {{ is only text."""
    own = {kind: {obj["metadata"]["name"] for obj in objects if obj["kind"] == kind} for kind in ("ConfigMap", DISK)}
    permitted = _Permitted(
        policy.service_accounts, policy.secrets, policy.config_maps | own["ConfigMap"], policy.disks | own[DISK]
    )
    found: dict[str, Violation] = {}  # by field: restricted says some of what baseline has said
    for obj in objects:
        for path, value, remedy in _of_object(obj, policy, permitted, parameters):
            field = f"{title(obj)}: {spell(path)}"
            found.setdefault(field, Violation(field, value, remedy))
    return list(found.values())


def parse_kinds(text: str, where: str) -> frozenset[tuple[str, str]]:
    """Of `apps/v1/Deployment,v1/Service`. Raises Malformed."""
    kinds = set()
    for each in filter(None, (part.strip() for part in text.split(","))):
        version, _other, kind = each.rpartition("/")
        if not re.fullmatch(r"([a-z0-9.-]+/)?v[0-9][a-z0-9]*", version) or not kind.isalnum():
            raise Malformed(where, each, "give apiVersion/Kind, such as apps/v1/Deployment or v1/Service")
        kinds.add((version, kind))
    if not kinds:
        raise Malformed(where, text, "give at least one kind")
    return frozenset(kinds)


# ---------------------------------------------------------------------------------------------------------------------
# One object


class _Permitted(NamedTuple):
    """Names that Pods may refer to."""

    service_accounts: frozenset[str]
    secrets: frozenset[str]
    config_maps: frozenset[str]
    disks: frozenset[str]


class _Broken(NamedTuple):
    path: Path
    value: Any
    remedy: str


def _of_object(
    obj: Object, policy: Policy, permitted: _Permitted, parameters: Mapping[str, Parameter] | None
) -> Iterator[_Broken]:
    version, kind = obj["apiVersion"], obj["kind"]
    if (version, kind) not in policy.kinds:
        known = ", ".join(sorted(f"{version}/{kind}" for version, kind in policy.kinds))
        yield _Broken(("kind",), f"{version}/{kind}", f"leave it out; permitted are {known}")
        return
    yield from _of_kind(obj, policy, permitted, is_template=parameters is not None)
    if kind in POD_TEMPLATES:
        path = POD_TEMPLATES[kind]
        shapeless = list(_shapeless(obj))
        pod = look(obj, (*path, "spec"))
        of_pod = () if shapeless else _of_pod(obj, pod, policy, permitted, parameters)
        yield from shapeless
        yield from (broken._replace(path=(*path, *broken.path)) for broken in of_pod)


def _of_kind(obj: Object, policy: Policy, permitted: _Permitted, *, is_template: bool) -> Iterator[_Broken]:
    match obj["kind"]:
        case "Deployment" | "StatefulSet" | "ReplicaSet" | "ReplicationController":
            yield from _of_workload(obj, policy, is_template=is_template)
        case "Service":
            for path, value in find(obj, "spec.type"):
                if value not in (None, "ClusterIP", "NodePort", "LoadBalancer"):
                    yield _Broken(path, value, "give ClusterIP, NodePort or LoadBalancer, written out")
            for key in ("externalIPs", "externalName"):
                for path, value in find(obj, f"spec.{key}"):
                    if value:
                        yield _Broken(path, value, "leave it out: a Service leads to the instance's own Pods")
        case "PersistentVolumeClaim":
            yield from _of_disk(look(obj, ("spec",)), ("spec",), permitted, is_template=is_template)


def _of_workload(obj: Object, policy: Policy, *, is_template: bool) -> Iterator[_Broken]:
    replicas = look(obj, ("spec", "replicas"))
    is_open = is_template and isinstance(replicas, str) and placeholders(replicas)  # it is seen when it is rendered
    is_number = isinstance(replicas, int) and not isinstance(replicas, bool)
    if replicas is not None and not is_open and not (is_number and 0 <= replicas <= policy.max_replicas):
        yield _Broken(("spec", "replicas"), replicas, f"give a whole number from 0 to {policy.max_replicas}")
    claims = look(obj, ("spec", "volumeClaimTemplates"))
    if claims:
        remedy = f"give a {DISK} as a document, and mount it: disks that stand nowhere are neither removed nor kept"
        yield _Broken(("spec", "volumeClaimTemplates"), claims, remedy)


def _of_disk(spec: Any, path: Path, permitted: _Permitted, *, is_template: bool) -> Iterator[_Broken]:
    """What a claim takes from others: a volume by name, or the content of another claim."""
    volume = look(spec, ("volumeName",))
    if volume is not None and (not isinstance(volume, str) or (is_template and placeholders(volume))):
        yield _Broken((*path, "volumeName"), volume, "write the name out, or leave it out: it may be another's disk")
    for key in ("dataSource", "dataSourceRef"):
        source = look(spec, (key,))
        if source is None:
            continue
        name, kind = look(source, ("name",)), look(source, ("kind",))
        is_fine = isinstance(source, Mapping) and isinstance(name, str) and isinstance(kind, str)
        if is_fine and kind == DISK:
            is_fine = name in permitted.disks
        elif is_fine and is_template:
            is_fine = not placeholders(name) and not placeholders(kind)
        if not is_fine:
            yield _Broken((*path, key), source, "let it be a disk that is permitted by its name, written out")
        elif source.get("namespace") is not None:
            yield _Broken((*path, key, "namespace"), source["namespace"], "leave it out: it is another's")


# ---------------------------------------------------------------------------------------------------------------------
# Finding fields


def find(value: Any, fields: str, path: Path = ()) -> Iterator[Found]:
    """What stands at `securityContext.sysctls.*.name`, and where; * is each item of a list.

    None where a key is missing; nothing where a list is. What is no mapping, or no list, where there has to be one, is
    given as it is: no check takes it for right.
    """
    step, _other, rest = fields.partition(".")
    if step != "*":
        if value is not None and not isinstance(value, Mapping):
            yield path, value
            return
        below, path = (value or {}).get(step), (*path, step)
        if rest:
            yield from find(below, rest, path)
        else:
            yield path, below
    elif value is not None:
        if not isinstance(value, list):
            yield path, value
            return
        for number, item in enumerate(value):
            if rest:
                yield from find(item, rest, (*path, number))
            else:
                yield (*path, number), item


def _each(fields: str, pod: Any) -> Iterator[Found]:
    """Fields of the Pod, or of each of its containers: `each.securityContext.privileged`."""
    if not fields.startswith("each."):
        yield from find(pod, fields)
        return
    for group in _CONTAINERS:
        yield from find(pod, f"{group}.*.{fields.removeprefix('each.')}")


def _shapeless(obj: Object) -> Iterator[_Broken]:
    """What has not the shape of a Pod template, so that nothing can be said about it."""
    path = POD_TEMPLATES[obj["kind"]]
    for key in ("metadata", "spec"):
        for at, value in find(obj, ".".join((*path, key))):
            if not isinstance(value, Mapping) and not (key == "metadata" and value is None):
                yield _Broken(at, value, "give a mapping")
    pod = look(obj, (*path, "spec"))
    if not isinstance(pod, Mapping):
        return
    if not pod.get("containers"):
        yield _Broken((*path, "spec", "containers"), pod.get("containers"), "give at least one container")
    for key in (*_CONTAINERS, "volumes", "imagePullSecrets"):
        yield from _no_list(pod.get(key), (*path, "spec", key))
    for group in _CONTAINERS:
        containers = pod.get(group)
        for number, container in enumerate(containers if isinstance(containers, list) else []):
            for key in ("env", "envFrom", "ports"):
                if isinstance(container, Mapping):
                    yield from _no_list(container.get(key), (*path, "spec", group, number, key))


def _no_list(value: Any, path: Path) -> Iterator[_Broken]:
    if value is None:
        return
    if not isinstance(value, list):
        yield _Broken(path, value, "give a list")
        return
    for number, item in enumerate(value):
        if not isinstance(item, Mapping):
            yield _Broken((*path, number), item, "give a mapping")


# ---------------------------------------------------------------------------------------------------------------------
# Pods


def _of_pod(
    obj: Object, pod: Object, policy: Policy, permitted: _Permitted, parameters: Mapping[str, Parameter] | None
) -> Iterator[_Broken]:
    yield from _security(obj, pod, policy.pod_security)
    checks = [_references(pod, permitted, is_template=parameters is not None)]
    if parameters is not None:
        checks.append(_scripts(pod, parameters))
    for path, value, remedy in itertools.chain.from_iterable(checks):
        yield _Broken(("spec", *path), value, remedy)


def pod_security(obj: Object, level: str) -> list[Violation]:
    """What is not as this level of the Pod Security Standards has it, in an object with a Pod template, or a Pod."""
    path = POD_TEMPLATES[obj["kind"]]
    found = list(_shapeless(obj))
    if not found:
        of_pod = _security(obj, look(obj, (*path, "spec")), level)
        found = [broken._replace(path=(*path, *broken.path)) for broken in of_pod]
    return [Violation(f"{title(obj)}: {spell(at)}", value, remedy) for at, value, remedy in found]


def _security(obj: Object, pod: Object, level: str) -> Iterator[_Broken]:
    if level not in LEVELS:
        raise Malformed("pod-security", level, f"give one of {', '.join(LEVELS)}")
    checks = [_by_table(pod, _BASELINE), _volumes_of_hosts(pod)]
    if level == RESTRICTED:
        checks += [_by_table(pod, _RESTRICTED), _inherited(pod), _volume_types(pod)]
        if look(pod, ("os", "name")) != "windows":  # as the standard has it
            checks.append(_of_linux(pod))
    yield from _app_armor(obj)
    for path, value, remedy in itertools.chain.from_iterable(checks):
        yield _Broken(("spec", *path), value, remedy)


class _Control(NamedTuple):
    """`fields` must be `fine`; else there is the remedy."""

    fields: tuple[str, ...]
    fine: Callable[[Any], bool]
    remedy: str


def _among(*allowed: Any) -> Callable[[Any], bool]:
    """Equal, and of the same type: 0 is not false."""
    return lambda value: any(type(value) is type(each) and value == each for each in allowed)


def _is_no_root(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value != 0)


def _both(field: str) -> tuple[str, ...]:
    """Of the Pod, and of each container."""
    return (f"securityContext.{field}", f"each.securityContext.{field}")


_BASELINE: Final = (
    _Control(_both("windowsOptions.hostProcess"), _among(None, False), "leave it out"),
    _Control(("hostNetwork", "hostPID", "hostIPC"), _among(None, False), "leave it out"),
    _Control(("each.securityContext.privileged",), _among(None, False), "leave it out"),
    _Control(
        ("each.securityContext.capabilities.add.*",), _among(*_CAPABILITIES),
        f"leave it out; there may be {', '.join(_CAPABILITIES)}",
    ),
    _Control(("each.ports.*.hostPort",), _among(None, 0), "leave it out: a Service has ports"),
    _Control(
        tuple(f"each.{probe}.{how}.host" for probe in _PROBES for how in ("httpGet", "tcpSocket")),
        _among(None, ""), "leave it out: it asks the Pod itself",
    ),
    _Control(_both("appArmorProfile.type"), _among(None, *_SECCOMP), "give RuntimeDefault or Localhost"),
    _Control(
        _both("seLinuxOptions.type"), _among(None, *_SELINUX), f"leave it out, or give one of {', '.join(_SELINUX[1:])}"
    ),
    _Control((*_both("seLinuxOptions.user"), *_both("seLinuxOptions.role")), _among(None, ""), "leave it out"),
    _Control(("each.securityContext.procMount",), _among(None, "Default"), "leave it out"),
    _Control(_both("seccompProfile.type"), _among(None, *_SECCOMP), "give RuntimeDefault or Localhost"),
    _Control(
        ("securityContext.sysctls.*.name",), _among(*_SYSCTLS), f"leave it out; there may be {', '.join(_SYSCTLS)}"
    ),
)  # fmt: skip
_RESTRICTED: Final = (
    _Control(_both("runAsUser"), _is_no_root, "give the number of a user other than root, or leave it out"),
)


def _by_table(pod: Object, controls: Sequence[_Control]) -> Iterator[_Broken]:
    for fields, fine, remedy in controls:
        for field in fields:
            for path, value in _each(field, pod):
                if not fine(value):
                    yield _Broken(path, value, remedy)


def _app_armor(obj: Object) -> Iterator[_Broken]:
    """The annotations in which AppArmor profiles were named before they had a field."""
    annotations = look(obj, (*POD_TEMPLATES[obj["kind"]], "metadata", "annotations"))
    for key, value in annotations.items() if isinstance(annotations, Mapping) else ():
        is_fine = isinstance(value, str) and (value in ("", "runtime/default") or value.startswith("localhost/"))
        if key.startswith(_APP_ARMOR) and not is_fine:
            yield _Broken(("metadata", "annotations", key), value, "give runtime/default, or leave it out")


def _volumes_of_hosts(pod: Object) -> Iterator[_Broken]:
    for path, value in find(pod, "volumes.*.hostPath"):
        if value is not None:
            yield _Broken(path, value, f"mount a {DISK} or an emptyDir: nothing of a node is shared")


def _volume_types(pod: Object) -> Iterator[_Broken]:
    for number, volume in enumerate(pod.get("volumes") or []):
        for key in sorted(volume.keys() - {"name", "hostPath", *_VOLUMES}):
            if volume[key] is not None:
                remedy = f"mount something else: {', '.join(_VOLUMES)}"
                yield _Broken(("volumes", number, key), volume[key], remedy)


def _inherited(pod: Object) -> Iterator[_Broken]:
    """runAsNonRoot: said by the Pod, or by each container; and never said to be otherwise."""
    yield from _said(pod, "runAsNonRoot", _among(True), "write runAsNonRoot: true, here or for the whole Pod")


def _of_linux(pod: Object) -> Iterator[_Broken]:
    remedy = "write type: RuntimeDefault, here or for the whole Pod"
    yield from _said(pod, "seccompProfile.type", _among(*_SECCOMP), remedy)
    for path, value in _each("each.securityContext.allowPrivilegeEscalation", pod):
        if value is not False:
            yield _Broken(path, value, "write allowPrivilegeEscalation: false")
    for path, value in _each("each.securityContext.capabilities.drop", pod):
        if not isinstance(value, list) or "ALL" not in value:
            yield _Broken(path, value, "write drop: [ALL]")
    for path, value in _each("each.securityContext.capabilities.add.*", pod):
        if value != "NET_BIND_SERVICE":
            yield _Broken(path, value, "leave it out; NET_BIND_SERVICE may be added")


def _said(pod: Object, field: str, fine: Callable[[Any], bool], remedy: str) -> Iterator[_Broken]:
    """What a Pod says holds for each container that says nothing."""
    ((path, of_pod),) = find(pod, f"securityContext.{field}")
    if of_pod is not None and not fine(of_pod):
        yield _Broken(path, of_pod, remedy)
    for path, value in _each(f"each.securityContext.{field}", pod):
        if not fine(of_pod if value is None else value):
            yield _Broken(path, value, remedy)


# ---------------------------------------------------------------------------------------------------------------------
# What Pods refer to

_CONFIG_MAPS: Final = (
    "volumes.*.configMap.name", "volumes.*.projected.sources.*.configMap.name",
    "each.env.*.valueFrom.configMapKeyRef.name", "each.envFrom.*.configMapRef.name",
)  # fmt: skip
_SECRETS: Final = (
    "volumes.*.secret.secretName", "volumes.*.projected.sources.*.secret.name",
    "each.env.*.valueFrom.secretKeyRef.name", "each.envFrom.*.secretRef.name", "imagePullSecrets.*.name",
    "volumes.*.csi.nodePublishSecretRef.name", "volumes.*.azureFile.secretName", "volumes.*.cephfs.secretRef.name",
    "volumes.*.cinder.secretRef.name", "volumes.*.flexVolume.secretRef.name", "volumes.*.iscsi.secretRef.name",
    "volumes.*.rbd.secretRef.name", "volumes.*.scaleIO.secretRef.name", "volumes.*.storageos.secretRef.name",
)  # fmt: skip
_DISKS: Final = ("volumes.*.persistentVolumeClaim.claimName",)


def _references(pod: Object, permitted: _Permitted, *, is_template: bool) -> Iterator[_Broken]:
    named = (
        (_CONFIG_MAPS, permitted.config_maps, "give a ConfigMap of the template, or one that is permitted"),
        (_SECRETS, permitted.secrets, "leave it out: no Secret of this name is permitted"),
        (_DISKS, permitted.disks, f"give a {DISK} of the template, or one that is permitted"),
    )  # fmt: skip
    for fields, names, remedy in named:
        for field in fields:
            for path, value in _each(field, pod):
                is_there = value is not None or look_up(pod, path[:-1]) is not None
                if is_there and not (isinstance(value, str) and value in names):
                    yield _Broken(path, value, remedy)
    yield from _accounts(pod, permitted.service_accounts)
    for number, volume in enumerate(pod.get("volumes") or []):
        claim = ("ephemeral", "volumeClaimTemplate", "spec")
        if look(volume, claim) is not None:
            yield from _of_disk(look(volume, claim), ("volumes", number, *claim), permitted, is_template=is_template)


def look_up(value: Any, path: Path) -> Any:
    """What stands at a path that `find` gave."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _accounts(pod: Object, names: frozenset[str]) -> Iterator[_Broken]:
    """Which service account, and that there is a token only of one that was permitted."""
    given = [(key, pod[key]) for key in ("serviceAccountName", "serviceAccount") if pod.get(key) not in (None, "")]
    for key, name in given:
        if not (isinstance(name, str) and name in names):
            yield _Broken((key,), name, "leave it out: no service account of this name is permitted")
    automount = pod.get("automountServiceAccountToken")
    if automount is not False and not (given and automount in (None, True)):
        remedy = "write automountServiceAccountToken: false"
        yield _Broken(("automountServiceAccountToken",), automount, remedy)
    for path, value in find(pod, "volumes.*.projected.sources.*.serviceAccountToken"):
        if value is not None and not given:
            yield _Broken(path, value, "leave it out: tokens are only for a service account that is permitted")


# ---------------------------------------------------------------------------------------------------------------------
# Scripts


def _scripts(pod: Object, parameters: Mapping[str, Parameter]) -> Iterator[_Broken]:
    """Placeholders in what a shell is given to run: a value with a quote or a semicolon is a command there."""
    for group in _CONTAINERS:
        for number, container in enumerate(pod.get(group) or []):
            at = (group, number)
            words = [*_words(container, (*at, "command")), *_words(container, (*at, "args"))]
            yield from _script(words, parameters)
            for probe in _PROBES:
                exec_path = (*probe.split("."), "exec", "command")
                yield from _script(_words(container, (*at, *exec_path)), parameters)


def _words(container: Any, path: Path) -> list[tuple[Path, str]]:
    listed = look(container, path[2:])
    return [((*path, number), word) for number, word in enumerate(listed)] if isinstance(listed, list) else []


def _script(words: Sequence[tuple[Path, Any]], parameters: Mapping[str, Parameter]) -> Iterator[_Broken]:
    texts = [word if isinstance(word, str) else "" for _other, word in words]
    shells = [number for number, text in enumerate(texts) if _SHELLS.fullmatch(text)]
    if not shells:
        return
    options = [number for number, text in enumerate(texts) if number > shells[0] and _SHELL_OPTION.fullmatch(text)]
    for number in options[:1]:
        path, script = words[number + 1] if number + 1 < len(words) else ((), "")
        for name in placeholders(script) if isinstance(script, str) else ():
            if name not in _SAFE_NAMES and (name not in parameters or parameters[name].is_free_text):
                remedy = f'give {name} to the container as a variable, and write "$VARIABLE" in the script'
                yield _Broken(path, script, remedy)

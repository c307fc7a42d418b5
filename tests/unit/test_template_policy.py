# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What templates may make: kinds, Pod Security field by field, references, scripts."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import template as templates
from ansible_collections.muster.coordination.plugins.module_utils.decisions import template_policy as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import Facts
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import (
    BASELINE,
    RESTRICTED,
    Policy,
    check_objects,
    check_template,
    find,
    parse_kinds,
    pod_security,
    violations,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support import pod_specs
from ansible_collections.muster.coordination.tests.support.pod_specs import FINE, POD, Change, changed, put

Object = dict[str, Any]
AT = "spec.template.spec"


def deployment(*changes: tuple[str, Any], kind: str = "Deployment") -> Object:
    """Of a Pod template that passes, with other values at paths below it."""
    pod = copy.deepcopy(POD)
    for path, value in changes:
        put(pod, path, value)
    template = {"metadata": {"labels": {"app": "x"}, **pod["metadata"]}, "spec": pod["spec"]}
    del template["metadata"]["name"]
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "{{.Name}}"}, "spec": {"template": template}}


def thing(kind: str, version: str = "v1", **more: Any) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "{{.Name}}"}, **more}


DEFAULT = Policy()


def fields(*objects: Object, policy: Policy = DEFAULT, parameters: Any = None) -> list[str]:
    """Of all violations, without the name of the object."""
    return [found.field.partition(": ")[2] for found in violations(objects, policy, parameters)]


# ------------------------------------------------------------------------------------------ kinds


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1", "ConfigMap"), ("v1", "Service"), ("v1", "PersistentVolumeClaim"),
        ("networking.k8s.io/v1", "NetworkPolicy"), ("policy/v1", "PodDisruptionBudget"),
    ],
)  # fmt: skip
def test_kinds_that_are_permitted(version: str, kind: str) -> None:
    assert fields(thing(kind, version)) == []


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("v1", "Secret"), ("v1", "ServiceAccount"), ("v1", "Pod"), ("v1", "Namespace"), ("batch/v1", "Job"),
        ("batch/v1", "CronJob"), ("apps/v1", "DaemonSet"), ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"), ("muster.dev/v1alpha1", "Instance"), ("v1", "Deployment"),
        ("extensions/v1beta1", "Deployment"), ("apps/v1", "Service"), ("v2", "Service"), ("v1", "service"),
        ("apps/v1", "ReplicaSet"), ("networking.k8s.io/v1", "Ingress"), ("v1", "Endpoints"), ("v1", "PersistentVolume"),
    ],
)  # fmt: skip
def test_kinds_that_are_not(version: str, kind: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_objects([thing(kind, version)], Policy())
    assert caught.value.field == f"{kind} {{{{.Name}}}}: kind" and caught.value.value == f"{version}/{kind}"
    assert "permitted are apps/v1/Deployment, apps/v1/StatefulSet, networking" in caught.value.remedy


def test_kinds_that_an_administrator_permits() -> None:
    policy = Policy(kinds=parse_kinds("v1/Secret, batch/v1/Job", "--allowed-kinds"))
    assert fields(thing("Secret"), policy=policy) == []
    assert fields(thing("Service"), policy=policy) == ["kind"]
    job = {**deployment(("spec.hostPID", True)), "apiVersion": "batch/v1", "kind": "Job"}
    assert fields(job, policy=policy) == [f"{AT}.hostPID"]


@pytest.mark.parametrize(
    "text", ["", " , ", "Deployment", "apps/Deployment", "v1/", "v1/x y", "/v1/X", "Apps/v1/X", "v1/X/"]
)
def test_kinds_that_are_none(text: str) -> None:
    with pytest.raises(Malformed, match=r"^--allowed-kinds is"):
        parse_kinds(text, "--allowed-kinds")


def test_kinds_with_their_versions() -> None:
    assert parse_kinds("apps/v1/Deployment,v1/Service,muster.dev/v1alpha1/Swarm", "x") == {
        ("apps/v1", "Deployment"), ("v1", "Service"), ("muster.dev/v1alpha1", "Swarm"),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ Pod Security


def test_a_pod_that_passes() -> None:
    assert fields(deployment()) == fields(deployment(kind="StatefulSet")) == []
    assert pod_security(POD, RESTRICTED) == pod_security(POD, BASELINE) == []


@pytest.mark.parametrize("change", [*pod_specs.CHANGES, *pod_specs.NEVER_ASKED], ids=str)
def test_what_the_standard_says(change: Change) -> None:
    pod = changed(change)
    assert bool(pod_security(pod, BASELINE)) == (change.verdict == pod_specs.BASELINE)
    assert bool(pod_security(pod, RESTRICTED)) == (change.verdict != FINE)


@pytest.mark.parametrize(
    "change", [each for each in (*pod_specs.CHANGES, *pod_specs.NEVER_ASKED) if each.verdict != FINE], ids=str
)
def test_the_field_is_named(change: Change) -> None:
    """Where the change was made, or below; or where it is said that it shows."""
    found = pod_security(changed(change), BASELINE if change.verdict == pod_specs.BASELINE else RESTRICTED)
    expected = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in change.path.split(".")).lstrip(".")
    if change.field:
        container = expected.rpartition("].")
        expected = change.field if change.field.startswith(("spec", "meta")) else f"{container[0]}].{change.field}"
    assert [each.field for each in found if each.field.startswith(f"Pod {{{{.Name}}}}: {expected}")], found
    assert all(each.remedy for each in found)


def test_the_message_names_field_value_and_remedy() -> None:
    workload = deployment(("spec.containers.1.securityContext.runAsNonRoot", False))
    with pytest.raises(Malformed) as caught:
        check_objects([workload], Policy())
    assert str(caught.value) == (
        "Deployment {{.Name}}: spec.template.spec.containers[1].securityContext.runAsNonRoot is False: "
        "write runAsNonRoot: true, here or for the whole Pod"
    )
    check_objects([workload], Policy(pod_security=BASELINE))


def test_how_many_more_there_are() -> None:
    workload = deployment(("spec.hostPID", True), ("spec.hostIPC", True), ("spec.hostNetwork", True))
    with pytest.raises(
        Malformed, match=rf"hostNetwork is True: .*\(2 more, the next at Deployment .*: {AT}\.hostPID\)"
    ):
        check_objects([workload], Policy())
    assert fields(workload) == [f"{AT}.hostNetwork", f"{AT}.hostPID", f"{AT}.hostIPC"]


def test_what_both_levels_say_is_said_once() -> None:
    found = fields(deployment(("spec.securityContext.seccompProfile.type", "Unconfined")))
    assert len(found) == len(set(found)) and f"{AT}.securityContext.seccompProfile.type" in found


@pytest.mark.parametrize("group", ["containers", "initContainers", "ephemeralContainers"])
def test_each_kind_of_container_counts(group: str) -> None:
    bare = {"name": "x", "image": "i"}
    found = fields(deployment((f"spec.{group}", [bare])))
    assert found == [
        f"{AT}.{group}[0].securityContext.allowPrivilegeEscalation",
        f"{AT}.{group}[0].securityContext.capabilities.drop",
    ]


def test_windows_has_no_capabilities() -> None:
    bare = {"name": "x", "image": "i"}
    pod = {"os": {"name": "windows"}, "securityContext": {"runAsNonRoot": True}, "containers": [bare]}
    assert pod_security({**POD, "spec": pod}, RESTRICTED) == []
    assert len(pod_security({**POD, "spec": {**pod, "os": {"name": "linux"}}}, RESTRICTED)) == 3
    assert pod_security({**POD, "spec": {**pod, "securityContext": {}}}, RESTRICTED)


def test_a_user_namespace_changes_nothing() -> None:
    assert fields(deployment(("spec.hostUsers", False), ("spec.containers.0.securityContext.procMount", "Unmasked")))


def test_a_placeholder_is_no_value_of_security() -> None:
    workload = deployment(
        ("spec.containers.0.securityContext.privileged", "{{.p}}"), ("spec.securityContext.runAsUser", "{{.uid}}")
    )
    assert fields(workload) == [f"{AT}.containers[0].securityContext.privileged", f"{AT}.securityContext.runAsUser"]


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("spec", None, "spec"), ("spec", "x", "spec"), ("spec", {}, "spec.containers"),
        ("spec.containers", [], "spec.containers"), ("spec.containers", {}, "spec.containers"),
        ("spec.containers", "x", "spec.containers"), ("spec.containers.0", "x", "spec.containers[0]"),
        ("spec.volumes", {}, "spec.volumes"), ("spec.volumes.0", [], "spec.volumes[0]"),
        ("spec.initContainers.0.env", {"A": "1"}, "spec.initContainers[0].env"),
        ("spec.containers.1.ports.0", 80, "spec.containers[1].ports[0]"),
        ("spec.imagePullSecrets", "x", "spec.imagePullSecrets"), ("metadata", "x", "metadata"),
    ],
)  # fmt: skip
def test_what_has_no_shape_is_refused(path: str, value: Any, field: str) -> None:
    workload = deployment()
    if path.endswith("ports.0"):
        put(workload, "spec.template.spec.containers.1.ports", [{}])
    if value is None:
        workload["spec"]["template"]["spec"] = None
    else:
        put(workload, f"spec.template.{path}", value)
    assert f"spec.template.{field}" in fields(workload)


@pytest.mark.parametrize(
    ("spec", "field"), [(None, "spec.template.spec"), ("x", "spec"), ({"template": 1}, "spec.template")]
)
def test_a_workload_without_pods_is_refused(spec: Any, field: str) -> None:
    assert field in fields({**deployment(), "spec": spec})


# ------------------------------------------------------------------------------------------ what Pods refer to

PLACES = {
    "ConfigMap": {
        "spec.volumes.0.configMap": {"name": "X"},
        "spec.volumes.0.projected.sources": [{"configMap": {"name": "X"}}],
        "spec.containers.1.env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "X", "key": "a"}}}],
        "spec.initContainers.0.envFrom": [{"configMapRef": {"name": "X"}}],
    },
    "Secret": {
        "spec.volumes.0.secret": {"secretName": "X"},
        "spec.volumes.0.projected.sources": [{"secret": {"name": "X"}}],
        "spec.initContainers.0.env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "X", "key": "a"}}}],
        "spec.containers.0.envFrom": [{"secretRef": {"name": "X"}}],
        "spec.imagePullSecrets": [{"name": "X"}],
        "spec.volumes.0.csi": {"driver": "d", "nodePublishSecretRef": {"name": "X"}},
    },
    "PersistentVolumeClaim": {"spec.volumes.0.persistentVolumeClaim": {"claimName": "X"}},
}
ALL_PLACES = [(kind, path, value) for kind, places in PLACES.items() for path, value in places.items()]


def refers(path: str, value: Any, name: str) -> Object:
    """A workload that refers to this name there."""

    def named(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: named(of) for key, of in part.items()}
        return [named(item) for item in part] if isinstance(part, list) else name if part == "X" else part

    workload = deployment()
    pod = {"spec": workload["spec"]["template"]["spec"]}
    pod["spec"]["volumes"] = [{"name": "data"}]
    put(pod, path, named(value))
    return workload


@pytest.mark.parametrize(("kind", "path", "value"), ALL_PLACES)
def test_references_go_to_what_is_permitted(kind: str, path: str, value: Any) -> None:
    permits = {"ConfigMap": "config_maps", "Secret": "secrets", "PersistentVolumeClaim": "disks"}
    (field,) = fields(refers(path, value, "theirs"))
    assert field.endswith(("ame", "Name")) and field.startswith(f"{AT}.{path.split('.')[1]}")
    assert fields(refers(path, value, "theirs"), policy=Policy(**{permits[kind]: frozenset({"theirs"})})) == []
    for other in permits.keys() - {kind}:
        assert fields(refers(path, value, "theirs"), policy=Policy(**{permits[other]: frozenset({"theirs"})})) == [
            field
        ]


@pytest.mark.parametrize(("kind", "path", "value"), [each for each in ALL_PLACES if each[0] != "Secret"])
def test_references_go_to_what_the_template_makes(kind: str, path: str, value: Any) -> None:
    own = thing(kind)
    assert fields(own, refers(path, value, "{{.Name}}")) == []
    assert len(fields(own, refers(path, value, "{{.Name}}-other"))) == 1
    assert len(fields(own, refers(path, value, "{{.choice}}"), parameters={})) == 1
    other = thing("ConfigMap" if kind != "ConfigMap" else "PersistentVolumeClaim")
    assert len(fields(other, refers(path, value, "{{.Name}}"))) == 1


def test_secrets_are_never_the_templates_own() -> None:
    policy = Policy(kinds=Policy().kinds | {("v1", "Secret")})
    for path, value in PLACES["Secret"].items():
        assert len(fields(thing("Secret"), refers(path, value, "{{.Name}}"), policy=policy)) == 1


@pytest.mark.parametrize("value", [{}, {"name": None}, {"name": ["x"]}, "x", ["x"], 1])
def test_a_reference_to_nothing_is_refused(value: Any) -> None:
    policy = Policy(config_maps=frozenset({"theirs"}))
    assert fields(refers("spec.containers.0.envFrom", [{"configMapRef": value}], ""), policy=policy)


def test_other_variables_refer_to_nothing() -> None:
    variables = [
        {"name": "A", "value": "1"},
        {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "C", "valueFrom": None},
    ]
    assert fields(deployment(("spec.containers.0.env", variables), ("spec.containers.0.envFrom", []))) == []


@pytest.mark.parametrize(
    ("account", "names", "found"),
    [
        ({"automountServiceAccountToken": False}, (), []),
        ({"automountServiceAccountToken": None}, (), ["automountServiceAccountToken"]),
        ({"automountServiceAccountToken": True}, (), ["automountServiceAccountToken"]),
        ({"automountServiceAccountToken": 0}, (), ["automountServiceAccountToken"]),
        ({"serviceAccountName": "default"}, (), ["serviceAccountName"]),
        ({"serviceAccountName": "x"}, ("y",), ["serviceAccountName"]),
        ({"serviceAccountName": "x"}, ("x",), []),
        ({"serviceAccountName": "x", "automountServiceAccountToken": None}, ("x",), []),
        ({"serviceAccountName": "x", "automountServiceAccountToken": True}, ("x",), []),
        ({"serviceAccountName": "x", "automountServiceAccountToken": "yes"}, ("x",), ["automountServiceAccountToken"]),
        ({"serviceAccountName": "", "automountServiceAccountToken": None}, ("",), ["automountServiceAccountToken"]),
        ({"serviceAccountName": "x", "serviceAccount": "y"}, ("x",), ["serviceAccount"]),
        ({"serviceAccount": "y"}, (), ["serviceAccount"]),
        ({"serviceAccountName": "{{.Name}}"}, (), ["serviceAccountName"]),
        ({"serviceAccountName": ["x"]}, ("x",), ["serviceAccountName"]),
    ],
)
def test_service_accounts_and_their_tokens(account: Object, names: tuple[str, ...], found: list[str]) -> None:
    workload = deployment(*((f"spec.{key}", value) for key, value in account.items()))
    assert fields(workload, policy=Policy(service_accounts=frozenset(names))) == [f"{AT}.{each}" for each in found]


def test_a_token_in_a_volume_is_a_token() -> None:
    token = {"serviceAccountToken": {"path": "t", "audience": "x"}}
    volumes = ("spec.volumes", [{"name": "t", "projected": {"sources": [token]}}])
    assert fields(deployment(volumes)) == [f"{AT}.volumes[0].projected.sources[0].serviceAccountToken"]
    account = ("spec.serviceAccountName", "x")
    assert fields(deployment(volumes, account), policy=Policy(service_accounts=frozenset({"x"}))) == []


# ------------------------------------------------------------------------------------------ other kinds


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, ""), ({"type": "ClusterIP"}, ""), ({"type": "NodePort"}, ""), ({"type": "LoadBalancer"}, ""),
        ({"externalIPs": []}, ""), ({"type": "ExternalName", "externalName": "x.example.org"}, "type"),
        ({"type": "{{.kind}}"}, "type"), ({"externalIPs": ["1.2.3.4"]}, "externalIPs"),
        ({"externalIPs": "{{.ips}}"}, "externalIPs"), ({"externalName": "x"}, "externalName"),
    ],
)  # fmt: skip
def test_a_service_leads_to_its_own_pods(spec: Object, field: str) -> None:
    assert fields(thing("Service", spec=spec))[:1] == ([f"spec.{field}"] if field else [])


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, ""), ({"volumeName": "pv-1"}, ""), ({"volumeName": "{{.pv}}"}, "volumeName"),
        ({"volumeName": 1}, "volumeName"),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "theirs"}}, "dataSource"),
        ({"dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "theirs"}}, "dataSourceRef"),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "{{.Name}}"}}, ""),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "permitted"}}, ""),
        ({"dataSource": {"kind": "VolumeSnapshot", "name": "golden"}}, ""),
        ({"dataSource": {"kind": "VolumeSnapshot", "name": "{{.which}}"}}, "dataSource"),
        ({"dataSource": {"kind": "{{.kind}}", "name": 1}}, "dataSource"), ({"dataSource": "x"}, "dataSource"),
        ({"dataSourceRef": {"kind": "VolumeSnapshot", "name": "a", "namespace": "b"}}, "dataSourceRef.namespace"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["document", "ephemeral volume"])
def test_a_disk_is_filled_from_nobodys(spec: Object, field: str, where: str) -> None:
    policy = Policy(disks=frozenset({"permitted"}))
    if where == "document":
        found, at = fields(thing("PersistentVolumeClaim", spec=spec), policy=policy, parameters={}), "spec"
    else:
        volume = {"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
        workload = deployment(("spec.volumes", [volume]))
        found = fields(thing("PersistentVolumeClaim"), workload, policy=policy, parameters={})
        at = f"{AT}.volumes[0].ephemeral.volumeClaimTemplate.spec"
    assert found == ([f"{at}.{field}"] if field else [])


@pytest.mark.parametrize(
    ("replicas", "is_fine"),
    [(None, True), (0, True), (100, True), (101, False), (-1, False), ("2", False), (True, False)],
)
def test_replicas_have_a_bound(replicas: Any, is_fine: bool) -> None:
    workload = deployment()
    workload["spec"]["replicas"] = replicas
    assert fields(workload) == fields(workload, parameters={}) == ([] if is_fine else ["spec.replicas"])
    assert fields(workload, policy=Policy(max_replicas=1000)) == (
        [] if is_fine or replicas == 101 else ["spec.replicas"]
    )


def test_replicas_that_are_chosen_are_bounded_when_they_are() -> None:
    workload = deployment()
    workload["spec"]["replicas"] = "{{.replicas}}"
    assert fields(workload, parameters={}) == []
    assert fields(workload) == ["spec.replicas"]


def test_disks_stand_in_documents() -> None:
    workload = deployment(kind="StatefulSet")
    workload["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}}]
    assert fields(workload) == ["spec.volumeClaimTemplates"]
    workload["spec"]["volumeClaimTemplates"] = []
    assert fields(workload) == []


# ------------------------------------------------------------------------------------------ scripts


@pytest.mark.parametrize(
    ("command", "args", "field"),
    [
        (["sh", "-c", "echo {{.text}}"], None, "command[2]"),
        (["/bin/bash", "-euc", "echo {{.text}}"], None, "command[2]"),
        (["bash", "-o", "pipefail", "-c", "x {{.text}}"], None, "command[4]"),
        (["env", "A=1", "sh", "-lc", "x {{.text}}"], None, "command[4]"),
        (["sh", "-c"], ["x {{.text}}"], "args[0]"),
        (["dash"], ["-c", "x {{.text}}"], "args[1]"),
        (None, ["ash", "-c", "{{.text}}"], "args[2]"),
        (["sh", "-c", "x {{.AccessList}}"], None, "command[2]"),
        (["sh", "-c", "x {{.CreatorInfo}}"], None, "command[2]"),
        (["sh", "-c", "x {{.MountName}}"], None, "command[2]"),
        (["sh", "-c", "x {{.Name}} {{.OwnerHash}} {{.Version}}"], None, ""),
        (["sh", "-c", "x {{.count}} {{.choice}} {{.is_on}}"], None, ""),
        (["sh", "-c", 'x "$TEXT"', "{{.text}}"], None, ""),
        (["sh", "{{.text}}"], None, ""),
        (["notes", "-c", "{{.text}}"], None, ""),
        (["notes", "--title={{.text}}"], ["{{.text}}"], ""),
        (["sh", "-c"], None, ""),
        (["sh", "--rcfile", "{{.text}}"], None, ""),
        ("sh -c {{.text}}", None, ""),
    ],
)
def test_a_users_text_is_no_part_of_a_script(command: Any, args: Any, field: str) -> None:
    schemas = {"text": {"type": "string", "pattern": "^x"}, "count": {"type": "integer"}, "is_on": {"type": "boolean"},
               "choice": {"type": "string", "enum": ["a"]}}  # fmt: skip
    parameters = templates.parse_parameters(schemas, "p")
    workload = deployment(("spec.containers.1.command", command), ("spec.containers.1.args", args))
    expected = [f"{AT}.containers[1].{field}"] if field else []
    assert fields(workload, parameters=parameters) == expected
    assert fields(workload) == []  # rendered: there are no placeholders in it
    for way in ("livenessProbe", "lifecycle.preStop"):
        probed = deployment((f"spec.initContainers.0.{way}.exec.command", command))
        found = fields(probed, parameters=parameters)
        assert found == ([f"{AT}.initContainers[0].{way}.exec.{field}"] if field.startswith("command") else [])


# ------------------------------------------------------------------------------------------ template and objects


def test_a_value_is_seen_where_it_stands() -> None:
    """What a template leaves to its user passes there, and is judged once it was chosen."""
    declaration = {
        "apiVersion": "muster.dev/v1alpha1", "kind": "InstanceTemplate",
        "spec": {"parameters": {"replicas": {"type": "integer"}, "text": {"type": "string", "default": ""}}},
    }  # fmt: skip
    workload = deployment(("spec.containers.0.args", ["{{.text}}"]))
    workload["spec"]["replicas"] = "{{.replicas}}"
    template = templates.parse([declaration, workload], "t")
    check_template(template, Policy())
    facts = Facts("notes-0123456789", "alice", "0")
    check_objects(templates.render(template, facts, {"replicas": 3, "text": "{{.text}} sh -c"}), Policy())
    with pytest.raises(Malformed, match=r"^Deployment notes-0123456789: spec\.replicas is 101: .*from 0 to 100"):
        check_objects(templates.render(template, facts, {"replicas": 101}), Policy())


def test_what_is_owned_passes_still() -> None:
    claim = thing("PersistentVolumeClaim")
    volumes = ("spec.volumes", [{"name": "a", "persistentVolumeClaim": {"claimName": "{{ Name }}"}}])
    template = templates.parse([claim, deployment(volumes)], "t")
    check_template(template, Policy())
    objects = templates.render(template, Facts("notes-0123456789", "alice", "0"), {})
    for attach in ("", "kept"):
        owned = templates.own(objects, handle="notes-0123456789", namespace="n", allocator="a", attach=attach)
        check_objects(owned, Policy())


@pytest.mark.parametrize(
    ("value", "pattern", "found"),
    [
        ({"a": {"b": 1}}, "a.b", [("a.b", 1)]),
        ({"a": {}}, "a.b", [("a.b", None)]),
        ({}, "a.b", [("a.b", None)]),
        (None, "a.b", [("a.b", None)]),
        ({"a": "x"}, "a.b", [("a", "x")]),
        ({"a": [{"b": 1}, {}, "x"]}, "a.*.b", [("a[0].b", 1), ("a[1].b", None), ("a[2]", "x")]),
        ({"a": [1, 2]}, "a.*", [("a[0]", 1), ("a[1]", 2)]),
        ({"a": None}, "a.*.b", []),
        ({"a": {"b": 1}}, "a.*.b", [("a", {"b": 1})]),
    ],
)
def test_fields_are_found(value: Any, pattern: str, found: list[tuple[str, Any]]) -> None:
    assert [(templates.spell(path), there) for path, there in find(value, pattern)] == found


def test_levels_are_two() -> None:
    assert decisions.LEVELS == (RESTRICTED, BASELINE) and Policy().pod_security == RESTRICTED
    for level in ("", "Restricted", "privileged"):
        with pytest.raises(Malformed, match=r"^pod-security is .*give one of restricted, baseline"):
            check_objects([deployment()], Policy(pod_security=level))

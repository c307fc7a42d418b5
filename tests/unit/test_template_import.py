# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old JSON templates as today's: the seed's own example from end to end, and each rule by example."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import template as templates
from ansible_collections.muster.coordination.plugins.module_utils.decisions import template_import as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import Access, Facts
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_import import import_template
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import (
    Policy,
    check_objects,
    check_template,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

SEED = r"""{
  "apiVersion": "extensions/v1beta1",
  "kind": "Deployment",
  "metadata": {
    "name": "{{.Name}}",
    "annotations": {
      "v.io/creator-info": {{.CreatorInfo}}
    }
  },
  "spec": {
    "template": {
      "metadata": {
        "labels": {
          "application": "{{.Name}}"
        }
      },
      "spec": {
        "containers": [
          {
            "name": "syncbased",
            "image": "b.gcr.io/vanadium-docker-images/syncbased:latest"
            "command": [
              "syncbased",
              "--name={{.MountName}}",
              "--root-dir=/data/root",
              "--v23.permissions.literal={\"Admin\":{{.AccessList}}}"
            ],
            "volumeMounts": [ { "name": "data-disk", "mountPath": "/data" } ]
          }
        ],
        "volumes": [
          { "name": "data-disk", "gcePersistentDisk": { "pdName": "{{.Name}}", "fsType": "ext4" } }
        ]
      }
    }
  }
}
"""
HANDLE = "syncbased-0123456789"
FACTS = Facts(HANDLE, 'al"ice', "2bd806c97f0e00af", Access(("bob",), ("devs",)), "users/alice/syncbased-0123456789")
DEPLOYMENT: dict[str, Any] = {
    "apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": {"name": "{{.Name}}"},
    "spec": {"template": {"metadata": {"labels": {"app": "{{.Name}}"}}, "spec": {"containers": [{"name": "a"}]}}},
}  # fmt: skip


def changed(*path: str | int, to: Any) -> str:
    """The text of a Deployment in which something else stands at the path."""
    document = copy.deepcopy(DEPLOYMENT)
    value: Any = document
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = to
    return json.dumps(document)


def imported(text: str, **options: Any) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """By kind; and the notes."""
    documents, notes = import_template(text, "t", **options)
    return {document["kind"]: document for document in documents}, [str(note) for note in notes]


# ------------------------------------------------------------------------------------------ the seed's example


def test_the_seeds_example_lacks_a_comma() -> None:
    with pytest.raises(Malformed) as caught:
        import_template(SEED, "syncbased-deployment.json-template")
    assert str(caught.value) == (
        "syncbased-deployment.json-template: line 21, column 72 is "
        '\'"image": "b.gcr.io/vanadium-docker-images/syncbased:latest"\': '
        'put a comma after the value of "image", or have it repaired.'
    )


def test_what_was_done_to_the_seeds_example() -> None:
    _, notes = imported(SEED, repair=True)
    pod = "Deployment {{.Name}}: spec.template.spec"
    filled = "filled in: nothing was said, and restricted Pod Security asks for it"
    assert notes == [
        'line 21, column 72: comma put after the value of "image"',
        "line 7, column 28: {{.CreatorInfo}} was outside quotes: it is text now",
        "Deployment {{.Name}}: apiVersion: extensions/v1beta1 is no more: it is apps/v1",
        "Deployment {{.Name}}: spec.selector: the labels of the Pod template: it was the default, and has to be said "
        "now",
        f"{pod}.automountServiceAccountToken: false {filled}",
        f'{pod}.securityContext.seccompProfile: {{"type": "RuntimeDefault"}} {filled}',
        f"{pod}.securityContext.runAsNonRoot: true {filled}. If its image runs as root, add runAsUser, and fsGroup for "
        "its disk",
        f"{pod}.containers[0].securityContext.allowPrivilegeEscalation: false {filled}",
        f'{pod}.containers[0].securityContext.capabilities.drop: ["ALL"] {filled}',
        f"{pod}.volumes[0].gcePersistentDisk: mounts the PersistentVolumeClaim {{{{.Name}}}}, whose size is the "
        "server's default; fsType left out: its StorageClass decides",
    ]


def test_the_seeds_example_from_end_to_end() -> None:
    documents, _ = import_template(SEED, "t", repair=True)
    template = templates.parse(documents, "t")
    check_template(template, Policy())
    assert templates.needs_owner(template)
    objects = templates.render(template, FACTS, {})
    check_objects(objects, Policy())
    disk, deployment = templates.own(
        objects, handle=HANDLE, namespace="inst", allocator="syncbase-allocator", owner='al"ice', instance_uid="u-1"
    )
    assert (disk["kind"], disk["metadata"]["name"]) == ("PersistentVolumeClaim", HANDLE)
    assert disk["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50G"}}}
    assert (deployment["apiVersion"], deployment["metadata"]["name"]) == ("apps/v1", HANDLE)
    assert json.loads(deployment["metadata"]["annotations"]["v.io/creator-info"])["owner"] == 'al"ice'
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels["application"] == HANDLE
    pod = deployment["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "data-disk", "persistentVolumeClaim": {"claimName": HANDLE}}]
    name, literal = pod["containers"][0]["command"][1], pod["containers"][0]["command"][3]
    assert name == "--name=users/alice/syncbased-0123456789"
    permissions = json.loads(literal.removeprefix("--v23.permissions.literal="))
    assert permissions == {"Admin": {"In": ['al"ice', "bob"], "Groups": ["devs"]}}


# ------------------------------------------------------------------------------------------ commas


@pytest.mark.parametrize(
    ("text", "spots", "value"),
    [
        ('{"a": 1 "b": 2}', ["line 1, column 8"], {"a": 1, "b": 2}),
        ('{"a": 1\n\n  "b": 2}', ["line 1, column 8"], {"a": 1, "b": 2}),
        ('{"a": [1 2], "b": "x" "c": {} "d": null}', [
            "line 1, column 9", "line 1, column 22", "line 1, column 30",
        ], {"a": [1, 2], "b": "x", "c": {}, "d": None}),
        ('{"a": ["x" "y" {"b": true} [1] false -1]}', [
            "line 1, column 11", "line 1, column 15", "line 1, column 27", "line 1, column 31", "line 1, column 37",
        ], {"a": ["x", "y", {"b": True}, [1], False, -1]}),
        ('{"a": [1, 2,], "b": 3, }', ["line 1, column 12", "line 1, column 22"], {"a": [1, 2], "b": 3}),
        ('{"a": {{.X}} "b": {{.Y}}}', ["line 1, column 13"], {"a": "{{.X}}", "b": "{{.Y}}"}),
        ('{"a": "x"\r\n"b": "é" "c": 1}', ["line 1, column 10", "line 2, column 9"], {"a": "x", "b": "é", "c": 1}),
    ],
)  # fmt: skip
def test_commas(text: str, spots: list[str], value: dict[str, Any]) -> None:
    whole = f'{{"kind": "X", "metadata": {{"name": "n"}}, "x":\n{text}}}'
    lines = [spot.replace(f"line {number}", f"line {number + 1}") for spot in spots for number in (1, 2)
             if f"line {number}," in spot]  # fmt: skip
    with pytest.raises(Malformed) as caught:
        import_template(whole, "t")
    assert caught.value.field == f"t: {lines[0]}"
    assert [spot in caught.value.remedy for spot in lines[1:]] == [True] * (len(lines) - 1)
    found, notes = imported(whole, repair=True)
    assert found["X"]["x"] == value
    assert [note.partition(": ")[0] for note in notes if "comma" in note] == lines


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", "t", "give a template"),
        (" \n ", "t", "give a template"),
        ("{", "t: line 1, column 1", "close it by }"),
        ('{\n "a": [1,\n 2', "t: line 2, column 7", "close it by ]"),
        ('{"a": 1', "t: line 1, column 1", "close it by }"),
        ('{"a": 1]', "t: line 1, column 8", "put a comma or } after the value"),
        ('{"a": 1; "b": 2}', "t: line 1, column 8", "put a comma or } after the value"),
        ("[1 . 2]", "t: line 1, column 4", "put a comma or ] after item 1"),
        ('{"a": 1,, "b": 2}', "t: line 1, column 9", 'give a key in "'),
        ('{"a" 1}', "t: line 1, column 6", 'put a colon after "a"'),
        ("{a: 1}", "t: line 1, column 2", 'give a key in "'),
        ('{{{.Name}}: 1}', "t: line 1, column 1", "only placeholders"),
        ('{"a": 1, {{.Name}}: 1}', "t: line 1, column 10", "write the key out"),
        ('{"a": 1, "a": 2}', "t: line 1, column 10", "write each key once"),
        ('{"a": }', "t: line 1, column 7", "give a value"),
        ('{"a": , "b": 1}', "t: line 1, column 7", "give a value before the comma"),
        ('{"a":', "t: line 1, column 6", "the text ends here"),
        ("{\"a\": 'x'}", "t: line 1, column 7", 'text stands in "'),
        ('{"a": yes}', "t: line 1, column 7", 'text stands in "'),
        ('{"a": 01}', "t: line 1, column 7", "give a value"),
        ('{"a": 1x}', "t: line 1, column 7", "give a value"),
        ('{"a": 1.2.3}', "t: line 1, column 7", "give a value"),
        ('{"a": ' + "1" * 5000 + "}", "t: line 1, column 7", "give a value"),
        ('{"a": // x\n 1}', "t: line 1, column 7", "leave comments out"),
        ('{"a": # x\n 1}', "t: line 1, column 7", "leave comments out"),
        ('{"a": "x\n"}', "t: line 1, column 7", "close the text"),
        ('{"a": "x', "t: line 1, column 7", "close the text"),
        ('{"a": "\\x"}', "t: line 1, column 7", "as JSON has it"),
        ('{"a": "\\u12"}', "t: line 1, column 7", "as JSON has it"),
        ('{"a": {{.X | y}}}', "t: line 1, column 7", "only placeholders"),
        ('{"a": {{if .X}}1{{end}}}', "t: line 1, column 7", "only placeholders"),
        ('{"a": {{.X}', "t: line 1, column 7", "only placeholders"),
        ('{"a": trueish}', "t: line 1, column 11", "put a comma or }"),
        ("[" * 65, "t: line 1, column 65", "64 deep"),
        ("[" * 100_000, "t: line 1, column 65", "64 deep"),
        ("[" + "1," * 20_000 + "1]", "t: line 1, column 40000", "20,000 values"),
        ("[1]", "t: document 1", "give an object with metadata.name"),
        ('{"kind": "X"}', "t: document 1", "give an object with metadata.name"),
        ('{"metadata": {"name": "x"}}', "t: document 1: kind", "give a kind"),
        ("x" * 300_000, "t", "262144 bytes"),
        ('{"a": "x"} x', "t: line 1, column 12", "give a value"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_named_by_its_place(text: str, place: str, said: str) -> None:
    for repair in (False, True):
        with pytest.raises(Malformed) as caught:
            import_template(text, "t", repair=repair)
        assert caught.value.field == place and said in caught.value.remedy
        assert len(str(caught.value)) < 1000


def test_what_is_json_is_read_as_json() -> None:
    value = {"a": [1, -2.5e3, 0, True, False, None, 'é\u2028"\\\n😀', {}, [], {"": [[]]}]}
    for indent in (None, 2):
        for ascii_only in (True, False):
            text = json.dumps({**DEPLOYMENT, "x": value}, indent=indent, ensure_ascii=ascii_only)
            assert imported(text)[0]["Deployment"]["x"] == value


def test_several_documents() -> None:
    other = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "{{.Name}}"}})
    for between in ("", "\n", "\n---\n"):
        found, _ = imported(f"{json.dumps(DEPLOYMENT)}{between}{other}")
        assert list(found) == ["Deployment", "Service"]


# ------------------------------------------------------------------------------------------ placeholders


def test_placeholders_outside_quotes_become_text() -> None:
    found, notes = imported('{"kind": "X", "metadata": {"name": {{.Name}}}, "a": [{{ .B }}, {{C}}]}')
    assert (found["X"]["metadata"]["name"], found["X"]["a"]) == ("{{.Name}}", ["{{ .B }}", "{{C}}"])
    assert notes == [
        "line 1, column 36: {{.Name}} was outside quotes: it is text now",
        "line 1, column 54: {{ .B }} was outside quotes: it is text now",
        "line 1, column 64: {{C}} was outside quotes: it is text now",
    ]


def test_placeholders_within_quotes_stay() -> None:
    found, notes = imported('{"kind": "X", "metadata": {"name": "{{.Name}}"}, "a": "x\\"{{.B}}\\""}')
    assert found["X"]["a"] == 'x"{{.B}}"' and notes == []


# ------------------------------------------------------------------------------------------ versions and selectors


@pytest.mark.parametrize(
    ("version", "kind", "now"),
    [
        ("extensions/v1beta1", "Deployment", "apps/v1"),
        ("apps/v1beta1", "StatefulSet", "apps/v1"),
        ("apps/v1beta2", "DaemonSet", "apps/v1"),
        ("extensions/v1beta1", "NetworkPolicy", "networking.k8s.io/v1"),
        ("policy/v1beta1", "PodDisruptionBudget", "policy/v1"),
        ("apps/v1", "Deployment", "apps/v1"),
        ("v1", "Service", "v1"),
        ("extensions/v1beta1", "Ingress", "extensions/v1beta1"),
    ],
)
def test_versions(version: str, kind: str, now: str) -> None:
    text = json.dumps({"apiVersion": version, "kind": kind, "metadata": {"name": "{{.Name}}"}})
    found, notes = imported(text)
    assert found[kind]["apiVersion"] == now
    assert notes == ([] if now == version else [f"{kind} {{{{.Name}}}}: apiVersion: {version} is no more: it is {now}"])


def test_a_selector_is_the_labels_of_the_pods() -> None:
    found, _ = imported(json.dumps(DEPLOYMENT))
    spec = found["Deployment"]["spec"]
    assert spec["selector"] == {"matchLabels": {"app": "{{.Name}}"}}
    assert spec["selector"]["matchLabels"] is not spec["template"]["metadata"]["labels"]


def test_a_selector_that_is_there_stays() -> None:
    selector = {"matchLabels": {"app": "x"}, "matchExpressions": []}
    found, notes = imported(changed("spec", "selector", to=selector))
    assert found["Deployment"]["spec"]["selector"] == selector and not any("selector" in note for note in notes)


@pytest.mark.parametrize("metadata", [{}, {"labels": {}}, {"labels": None}])
def test_pods_without_labels_get_one_to_select_by(metadata: dict[str, Any]) -> None:
    found, notes = imported(changed("spec", "template", "metadata", to=metadata))
    spec = found["Deployment"]["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == {"app": "{{.Name}}"}
    assert any("there were none to select by" in note for note in notes)


def test_what_is_no_more_is_left_out() -> None:
    found, notes = imported(changed("spec", "rollbackTo", to={"revision": 1}))
    assert "rollbackTo" not in found["Deployment"]["spec"]
    assert "Deployment {{.Name}}: spec.rollbackTo: left out: it is no more" in notes


# ------------------------------------------------------------------------------------------ disks


@pytest.mark.parametrize(
    ("source", "disk", "claim"),
    [
        ("gcePersistentDisk", {"pdName": "{{.Name}}"}, {"claimName": "{{.Name}}"}),
        (
            "gcePersistentDisk",
            {"pdName": "{{.Name}}-a", "readOnly": True},
            {"claimName": "{{.Name}}-a", "readOnly": True},
        ),
        ("gcePersistentDisk", {"pdName": "{{.Name}}", "readOnly": False}, {"claimName": "{{.Name}}"}),
        ("awsElasticBlockStore", {"volumeID": "{{.Name}}", "fsType": "ext4"}, {"claimName": "{{.Name}}"}),
    ],
)  # fmt: skip
def test_the_disk_of_a_cloud_becomes_a_claim(source: str, disk: dict[str, Any], claim: dict[str, Any]) -> None:
    volumes = [{"name": "tmp", "emptyDir": {}}, {"name": "data", source: disk}]
    found, notes = imported(changed("spec", "template", "spec", "volumes", to=volumes))
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "tmp", "emptyDir": {}}, {"name": "data", "persistentVolumeClaim": claim}]
    assert found["PersistentVolumeClaim"] == {
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": claim["claimName"]},
        "spec": {"accessModes": ["ReadWriteOnce"]},
    }  # fmt: skip
    assert [note for note in notes if f"volumes[1].{source}: mounts the PersistentVolumeClaim" in note]


def test_a_disk_that_is_mounted_twice_is_one() -> None:
    disk = {"pdName": "{{.Name}}"}
    volumes = [{"name": name, "gcePersistentDisk": disk} for name in "ab"]
    documents, notes = import_template(changed("spec", "template", "spec", "volumes", to=volumes), "t")
    assert [document["kind"] for document in documents] == ["PersistentVolumeClaim", "Deployment"]
    assert sum("mounts the PersistentVolumeClaim" in str(note) for note in notes) == 2


def test_a_claim_that_is_there_is_not_made_again() -> None:
    claim = json.dumps({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "{{.Name}}"}})
    volumes = [{"name": "a", "gcePersistentDisk": {"pdName": "{{.Name}}"}}]
    documents, _ = import_template(claim + changed("spec", "template", "spec", "volumes", to=volumes), "t")
    assert [document["kind"] for document in documents] == ["PersistentVolumeClaim", "Deployment"]


@pytest.mark.parametrize("name", ["shared", "x-{{.Name}}", "{{.OwnerHash}}", None, 1, "{{.Name}}x"])
def test_a_disk_that_is_there_already_is_no_instances_own(name: Any) -> None:
    volumes = [{"name": "a", "gcePersistentDisk": {"pdName": name}}]
    with pytest.raises(Malformed) as caught:
        import_template(changed("spec", "template", "spec", "volumes", to=volumes), "t")
    field = "t: Deployment {{.Name}}: spec.template.spec.volumes[0].gcePersistentDisk.pdName"
    assert caught.value.field == field and "begin with {{.Name}}" in caught.value.remedy


# ------------------------------------------------------------------------------------------ Pod Security


def test_what_is_said_stays() -> None:
    pod = {
        "automountServiceAccountToken": True,
        "securityContext": {"runAsNonRoot": False, "seccompProfile": {"type": "Unconfined"}},
        "containers": [
            {"name": "a", "securityContext": {"allowPrivilegeEscalation": True, "capabilities": {"drop": ["KILL"]}}}
        ],
    }
    found, notes = imported(changed("spec", "template", "spec", to=pod))
    assert found["Deployment"]["spec"]["template"]["spec"] == pod
    assert not any(decisions.HARDENED in note for note in notes)


def test_what_is_filled_in_is_noted_one_by_one() -> None:
    pod = {"initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b", "securityContext": {}}]}
    found, notes = imported(changed("spec", "template", "spec", to=pod))
    filled = found["Deployment"]["spec"]["template"]["spec"]
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert [each["securityContext"] for each in (*filled["initContainers"], *filled["containers"])] == [context] * 3
    assert sum(decisions.HARDENED in note for note in notes) == 3 + 2 * 3
    check_template(templates.parse(list(found.values()), "t"), Policy())


def test_a_service_account_may_have_its_token() -> None:
    pod = {"serviceAccountName": "x", "containers": [{"name": "a"}]}
    found, _ = imported(changed("spec", "template", "spec", to=pod))
    assert "automountServiceAccountToken" not in found["Deployment"]["spec"]["template"]["spec"]


def test_nothing_is_filled_in_if_that_is_not_wanted() -> None:
    found, notes = imported(json.dumps(DEPLOYMENT), harden=False)
    pod = found["Deployment"]["spec"]["template"]["spec"]
    assert pod == {"containers": [{"name": "a"}]} and not any(decisions.HARDENED in note for note in notes)


@pytest.mark.parametrize(
    "path", [("spec",), ("spec", "template"), ("spec", "template", "spec"), ("spec", "template", "spec", "containers")]
)
@pytest.mark.parametrize("value", [None, 1, "x", [], {}, [1], {"containers": 1, "volumes": "x"}])
def test_what_has_no_shape_is_left_to_the_policy(path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(Malformed, match=r"(^|: )Deployment {{.Name}}: spec"):
        documents, _ = import_template(changed(*path, to=value), "t")
        check_template(templates.parse(documents, "t"), Policy())

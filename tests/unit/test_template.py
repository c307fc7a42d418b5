# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates: each rule by example, and every value of the corpus."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import template as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_DOCUMENTS,
    MAX_NODES,
    Access,
    Facts,
    Template,
)
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml_all
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.injections import (
    CORPUS,
    expanded,
    is_refused,
    put_in,
    shape,
)

HANDLE = "notes-0123456789"
FACTS = Facts(HANDLE, "alice", "2bd806c97f0e00af", Access(("carol", "bob"), ("devs",)), "users/alice/notes")
TEXT = """
apiVersion: muster.dev/v1alpha1
kind: InstanceTemplate
spec:
  version: "1.2"
  parameters:
    replicas: {type: integer, default: 1, minimum: 0, maximum: 3}
    ratio: {type: number, default: 0.5}
    verbose: {type: boolean, default: false}
    title: {type: string, default: ""}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: "{{.Name}}"}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{.Name}}-config"}
data:
  title: "{{ title }}"
  replicas: "{{ replicas }}"
  acl.json: '{"Admin":{{.AccessList}}}'
  template: 'of {{"{{"}} ours }}'
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: "{{ Name }}"
  labels: {version: "{{.Version}}"}
  annotations:
    creator: "{{.CreatorInfo}}"
    replicas: "{{.replicas}}"
spec:
  replicas: "{{ replicas }}"
  minReadySeconds: 5
  selector: {matchLabels: {app: notes}}
  template:
    metadata: {labels: {app: notes}}
    spec:
      containers:
        - name: notes
          image: example.org/notes
          command: [notes, "--title={{ title }}", "--mount", "{{.MountName}}", "$(HOME)/{{ title }}"]
          args: ["{{ ratio }}", "--owner={{.OwnerHash}}"]
          env: [{name: VERBOSE, value: "{{ verbose }}"}, {name: TITLE, value: "{{ title }}"}]
          stdin: "{{ verbose }}"
          ratio: "{{ ratio }}"
      volumes: [{name: data, persistentVolumeClaim: {claimName: "{{.Name}}"}}]
---
apiVersion: v1
kind: Service
metadata: {name: "{{.Name}}"}
spec: {selector: {app: notes}, ports: [{port: 80}]}
"""

Object = dict[str, Any]


def parsed(text: str = TEXT) -> Template:
    return decisions.parse(parse_yaml_all(text, "t.yml"), "t.yml")


def rendered(text: str = TEXT, facts: Facts = FACTS, **parameters: Any) -> dict[str, Object]:
    """By kind."""
    return {obj["kind"]: obj for obj in decisions.render(parsed(text), facts, parameters)}


def thing(**more: Any) -> Object:
    """The least that is an object of a template."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{.Name}}"}, **more}


def container_of(obj: Object) -> Object:
    container: Object = obj["spec"]["template"]["spec"]["containers"][0]
    return container


# ------------------------------------------------------------------------------------------ reading


def test_what_is_read() -> None:
    template = parsed()
    assert [document["kind"] for document in template.documents] == [
        "PersistentVolumeClaim", "ConfigMap", "Deployment", "Service",
    ]  # fmt: skip
    assert template.version == "1.2"
    assert list(template.parameters) == ["replicas", "ratio", "verbose", "title"]
    assert decisions.used(template) == {
        "Name", "AccessList", "CreatorInfo", "MountName", "OwnerHash", "Version",
        "replicas", "ratio", "verbose", "title",
    }  # fmt: skip


def test_the_same_template_has_the_same_digest_in_any_spelling() -> None:
    other = TEXT.replace("{{ title }}", "{{.title}}").replace("{{.Name}}", "{{   .Name }}")
    assert other != TEXT and parsed(other).digest == parsed().digest
    assert json.dumps(parsed().documents).count("{{ ") == 0


@pytest.mark.parametrize(("old", "new"), [("port: 80", "port: 81"), ("maximum: 3", "maximum: 4"), ('"1.2"', '"1.3"')])
def test_another_template_has_another_digest(old: str, new: str) -> None:
    assert TEXT.count(old) == 1
    assert parsed(TEXT.replace(old, new)).digest != parsed().digest


def test_without_a_version_it_is_the_digest() -> None:
    template = decisions.parse([thing()], "t")
    assert template.version == template.digest and len(template.digest) == 16


def test_what_was_given_is_not_shared() -> None:
    shared = {"a": "1"}
    given = [thing(data=shared), {**thing(data=shared), "metadata": {"name": "{{.Name}}-2"}}]
    before = copy.deepcopy(given)
    template = decisions.parse(given, "t")
    first, second = decisions.render(template, FACTS, {})
    first["data"]["a"] = "2"
    assert second["data"] == {"a": "1"} and given == before and template.documents[0]["data"] == {"a": "1"}


@pytest.mark.parametrize(
    ("document", "field", "said"),
    [
        ("text", "t: document 1", "give an object"),
        ([], "t: document 1", "give an object"),
        (thing(apiVersion=None), "t: document 1: apiVersion", "write it out"),
        (thing(kind="{{.Name}}"), "t: document 1: kind", "write it out"),
        (thing(kind="List", items=[]), "t: document 1: kind", "each of its items"),
        (thing(metadata="x"), "t: document 1: metadata.name", "begins with {{.Name}}"),
        (thing(metadata={"name": 1}), "t: document 1: metadata.name", "begins with {{.Name}}"),
        (thing(metadata={"name": "notes"}), "t: ConfigMap notes: metadata.name", "begin with {{.Name}}-"),
        (thing(metadata={"name": "x-{{.Name}}"}), "t: ConfigMap x-{{.Name}}: metadata.name", "begin with"),
        (thing(metadata={"name": "{{.Name}}x"}), "t: ConfigMap {{.Name}}x: metadata.name", "begin with"),
        (thing(metadata={"name": "{{.OwnerHash}}"}), "t: ConfigMap {{.OwnerHash}}: metadata.name", "begin with"),
        (thing(data={"a": "{{.Nme}}"}), "t: ConfigMap {{.Name}}: data.a", "declare the parameter Nme"),
        (thing(data={"a": "{{.name}}"}), "t: ConfigMap {{.Name}}: data.a", "declare the parameter name"),
        (thing(data={"a": "{{.Name"}), "t: ConfigMap {{.Name}}: data.a", "write placeholders as"),
        (thing(data={"a": "{{.Name | html}}"}), "t: ConfigMap {{.Name}}: data.a", "write placeholders as"),
        (thing(data={"a": "{{- .Name -}}"}), "t: ConfigMap {{.Name}}: data.a", "write placeholders as"),
        (thing(data={"a": "{{.Name}}{{end}}"}), "t: ConfigMap {{.Name}}: data.a", "declare the parameter end"),
        (thing(data={"a": "{{{{.Name}}"}), "t: ConfigMap {{.Name}}: data.a", "write placeholders as"),
        (thing(data={"{{.Name}}": "a"}), "t: document 1: data", "write the key out"),
        (thing(data={"{{": "a"}), "t: document 1: data", "write the key out"),
        (thing(data={1: "a"}), "t: document 1: data", "quote it"),
        (thing(data={True: "a"}), "t: document 1: data", "quote it"),
        (thing(data={"a\0": "a"}), "t: document 1: data", "leave NUL out"),
        (thing(data={"a": "b\0"}), "t: document 1: data.a", "leave NUL out"),
        (thing(data={"a.b/c": "\ud800"}), 't: document 1: data["a.b/c"]', "lone surrogates"),
        (thing(data={"a": [1, {"b": float("nan")}]}), "t: document 1: data.a[1].b", "quote what is to be text"),
        (thing(data={"a": float("inf")}), "t: document 1: data.a", "quote what is to be text"),
        (thing(data={"a": b"x"}), "t: document 1: data.a", "quote what is to be text"),
        (thing(data={"a": {1, 2}}), "t: document 1: data.a", "quote what is to be text"),
        (thing(data={"a": 2**63}), "t: document 1: data.a", "64 bits"),
        (thing(data={"a": 1 << 40_000}), "t: document 1: data.a", "64 bits"),
    ],
)  # fmt: skip
def test_what_is_malformed_is_named(document: Any, field: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        decisions.parse([document], "t")
    assert caught.value.field == field and said in caught.value.remedy


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"apiVersion": "v1"}, "apiVersion", "give muster.dev/v1alpha1"),
        ({"status": {}}, "status", "leave it out"),
        ({"spec": "x"}, "spec", "version and parameters"),
        ({"spec": {"params": {}}}, "spec.params", "leave it out"),
        ({"spec": {"version": 1.2}}, "spec.version", "in quotes"),
        ({"spec": {"version": "a b"}}, "spec.version", "can be a label"),
        ({"spec": {"version": "x" * 64}}, "spec.version", "can be a label"),
        ({"spec": {"version": None}}, "spec.version", "can be a label"),
        ({"spec": {"parameters": []}}, "spec.parameters", "a mapping"),
        ({"spec": {"parameters": {"Name": {"type": "string"}}}}, "spec.parameters", "another name"),
    ],
)
def test_a_declaration_that_is_malformed_is_named(change: Object, field: str, said: str) -> None:
    declaration = {"apiVersion": "muster.dev/v1alpha1", "kind": "InstanceTemplate", **change}
    with pytest.raises(Malformed) as caught:
        decisions.parse([declaration, thing()], "t")
    assert caught.value.field == f"t: InstanceTemplate: {field}" and said in caught.value.remedy


@pytest.mark.parametrize("documents", [[], [None], [None, None]])
def test_no_document_is_refused(documents: list[Any]) -> None:
    with pytest.raises(Malformed, match="0 documents"):
        decisions.parse(documents, "t")


def test_there_is_an_object_and_one_declaration() -> None:
    declaration = {"apiVersion": "muster.dev/v1alpha1", "kind": "InstanceTemplate"}
    for documents in ([declaration], [declaration, declaration, thing()]):
        with pytest.raises(Malformed, match="at least one object, and at most one InstanceTemplate"):
            decisions.parse(documents, "t")
    assert decisions.parse([None, declaration, None, thing()], "t").parameters == {}


@pytest.mark.parametrize("group", ["apps/v1", "apps/v1beta1"])
def test_an_object_stands_once(group: str) -> None:
    twice = [thing(apiVersion="apps/v1"), thing(apiVersion=group)]
    with pytest.raises(Malformed, match=r"t: ConfigMap {{.Name}}: metadata.name is .*a name of its own"):
        decisions.parse(twice, "t")
    assert decisions.parse([thing(apiVersion="v1"), thing(apiVersion=group)], "t").documents


# ------------------------------------------------------------------------------------------ what only the server says


@pytest.mark.parametrize("key", decisions.RESERVED)
def test_whose_it_is_is_not_said_by_a_template(key: str) -> None:
    with pytest.raises(Malformed, match=rf"metadata\.{key} is 'x': leave it out: the server sets"):
        decisions.parse([thing(metadata={"name": "{{.Name}}", key: "x"})], "t")


def test_what_is_null_says_nothing() -> None:
    metadata = {"name": "{{.Name}}", "creationTimestamp": None, "namespace": None, "labels": None}
    assert decisions.parse([thing(metadata=metadata)], "t").documents


@pytest.mark.parametrize("group", ["labels", "annotations"])
@pytest.mark.parametrize("key", decisions.OURS)
@pytest.mark.parametrize("at", ["metadata", "spec.template.metadata"])
def test_marks_of_the_server_are_refused(group: str, key: str, at: str) -> None:
    marks = {group: {"app": "x", key: "mallory"}}
    workload = {**thing(kind="Deployment"), "spec": {"template": {"metadata": marks}}}
    if at == "metadata":
        workload = thing(kind="Deployment", metadata={"name": "{{.Name}}", **marks})
    with pytest.raises(Malformed) as caught:
        decisions.parse([workload], "t")
    assert caught.value.field == f't: Deployment {{{{.Name}}}}: {at}.{group}["{key}"]'
    assert caught.value.value == "mallory"


def test_labels_that_are_none_are_refused() -> None:
    with pytest.raises(Malformed, match=r"metadata\.labels is 'x': give a mapping"):
        decisions.parse([thing(metadata={"name": "{{.Name}}", "labels": "x"})], "t")


# ------------------------------------------------------------------------------------------ bounds


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def test_depth_has_a_bound() -> None:
    assert decisions.parse([thing(data=nested(MAX_DEPTH - 1))], "t").documents
    with pytest.raises(Malformed, match=r"t: document 1: data\[0\]\[0\]\[0\]… is 'too deep'"):
        decisions.parse([thing(data=nested(MAX_DEPTH))], "t")


def test_a_value_within_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Malformed, match="too deep"):
        decisions.parse([thing(data=loop)], "t")


def test_values_have_a_bound_and_what_is_shared_counts_each_time() -> None:
    few = len(("document", "apiVersion", "kind", "metadata", "name", "data"))
    assert decisions.parse([thing(data=[1] * (MAX_NODES - few))], "t").documents
    with pytest.raises(Malformed, match="more than 20,000 values"):
        decisions.parse([thing(data=[1] * (MAX_NODES - few + 1))], "t")
    laughs: Any = "lol"
    for _ in range(30):
        laughs = [laughs] * 10
    with pytest.raises(Malformed, match="more than 20,000 values"):
        decisions.parse([thing(data=laughs)], "t")


def test_size_has_a_bound() -> None:
    little = len(json.dumps([thing(data={"a": ""})], separators=(",", ":")))
    assert decisions.parse([thing(data={"a": "x" * (MAX_BYTES - little)})], "t").documents
    with pytest.raises(Malformed, match=rf"t is '{MAX_BYTES + 1} bytes'"):
        decisions.parse([thing(data={"a": "x" * (MAX_BYTES - little + 1)})], "t")


def test_documents_have_a_bound() -> None:
    many = [thing(metadata={"name": f"{{{{.Name}}}}-{number}"}) for number in range(MAX_DOCUMENTS + 1)]
    assert decisions.parse(many[:-1], "t").documents
    with pytest.raises(Malformed, match="33 documents"):
        decisions.parse(many, "t")


def test_what_is_put_in_has_a_bound() -> None:
    schemas = {"parameters": {"a": {"type": "string"}}}
    declaration = {"apiVersion": "muster.dev/v1alpha1", "kind": "InstanceTemplate", "spec": schemas}
    template = decisions.parse([declaration, thing(data={"a": "{{.a}}" * 200})], "t")
    (found,) = decisions.render(template, FACTS, {"a": "x" * 2600})
    assert len(found["data"]["a"]) == 200 * 2600
    for value in ("x" * 2700, '"' * 1400):  # a quote is two bytes of JSON
        with pytest.raises(Malformed, match="its values may have"):
            decisions.render(template, FACTS, {"a": value})


# ------------------------------------------------------------------------------------------ rendering


def test_what_is_put_in() -> None:
    found = rendered(replicas=2, ratio=0.25, verbose=True, title="a b")
    assert [obj["metadata"]["name"] for obj in found.values()] == [HANDLE, f"{HANDLE}-config", HANDLE, HANDLE]
    deployment = found["Deployment"]
    assert deployment["spec"]["replicas"] == 2 and deployment["metadata"]["labels"] == {"version": "1.2"}
    container = container_of(deployment)
    assert container["command"] == ["notes", "--title=a b", "--mount", "users/alice/notes", "$(HOME)/a b"]
    assert container["args"] == ["0.25", "--owner=2bd806c97f0e00af"]
    assert (container["stdin"], container["ratio"]) == (True, 0.25)
    assert [variable["value"] for variable in container["env"]] == ["true", "a b"]
    assert found["ConfigMap"]["data"]["template"] == "of {{ ours }}"
    assert deployment["spec"]["minReadySeconds"] == 5


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("{{{.Name}}}", f"{{{HANDLE}}}"), ("{{{.Name}}{", f"{{{HANDLE}{{"), ("{{.Name}}{{.Name}}", HANDLE * 2),
        ("}}{{.Name}}", f"}}}}{HANDLE}"), ('{{"{{"}}{{"{{"}}', "{{{{"), ('{{"{{"}}.Name}}', "{{.Name}}"),
        ("{ {", "{ {"),
    ],
)  # fmt: skip
def test_braces_beside_placeholders(text: str, written: str) -> None:
    (found,) = decisions.render(decisions.parse([thing(data={"a": text})], "t"), FACTS, {})
    assert found["data"]["a"] == written


def test_what_kubernetes_has_as_text_becomes_text() -> None:
    found = rendered(replicas=2)
    assert found["ConfigMap"]["data"]["replicas"] == "2"
    assert found["Deployment"]["metadata"]["annotations"]["replicas"] == "2"
    assert found["Deployment"]["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("path", "is_text"),
    [
        (("data", "a"), True),
        (("spec", "data", "a"), False),
        (("spec", "selector", "app"), True),
        (("spec", "selector", "matchLabels", "app"), True),
        (("spec", "template", "metadata", "labels", "a"), True),
        (("spec", "replicas"), False),
        (("spec", "ports", 0, "port"), False),
        (("spec", "template", "spec", "nodeSelector", "a"), True),
        (("spec", "template", "spec", "containers", 0, "args", 1), True),
        (("spec", "template", "spec", "containers", 0, "env", 1, "value"), True),
        (("spec", "template", "spec", "containers", 0, "env", 1, "name"), False),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "exec", "command", 0), True),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "httpGet", "port"), False),
        (("spec", "template", "spec", "containers", 0, "livenessProbe", "httpGet", "httpHeaders", 0, "value"), True),
        (("spec", "template", "spec", "containers", 0, "securityContext", "runAsUser"), False),
    ],
)
def test_where_there_is_only_text(path: decisions.Path, is_text: bool) -> None:
    assert decisions.is_text(path) == is_text


def test_access_list_and_creator_info_are_json_in_any_text() -> None:
    facts = FACTS._replace(owner='al"ice\n', created_by="root", created="2026-05-01T00:00:00Z")
    found = rendered(facts=facts)
    listed = json.loads(found["ConfigMap"]["data"]["acl.json"])
    assert listed == {"Admin": {"In": ['al"ice\n', "bob", "carol"], "Groups": ["devs"]}}
    info = json.loads(found["Deployment"]["metadata"]["annotations"]["creator"])
    assert info == {"owner": 'al"ice\n', "createdBy": "root", "created": "2026-05-01T00:00:00Z"}


def test_the_owner_stands_once_and_first() -> None:
    listed = json.loads(decisions.access_list("zoe", Access(("bob", "zoe", "bob", "adam"), ("x", "a", "x"))))
    assert listed == {"In": ["zoe", "adam", "bob"], "Groups": ["a", "x"]}


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        (FACTS._replace(name="Notes"), "name"),
        (FACTS._replace(name="notes-"), "name"),
        (FACTS._replace(owner="a\0"), "owner"),
        (FACTS._replace(owner="a" * 4097), "owner"),
        (FACTS._replace(mount_name="\udc00"), "mountName"),
        (FACTS._replace(created_by="\0"), "createdBy"),
        (FACTS._replace(access=Access(("bob", "\0"))), "access.users[1]"),
        (FACTS._replace(access=Access((), ("\ud800",))), "access.groups[0]"),
        (FACTS._replace(access=Access(tuple(f"user-{number:04}" for number in range(400)))), "access"),
    ],
)
def test_facts_that_can_not_be_said_are_refused(facts: Facts, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        rendered(facts=facts)
    assert caught.value.field == field


def test_parameters_are_checked_once_more() -> None:
    for given in ({"replicas": "2"}, {"replicas": 4}, {"unknown": 1}):
        with pytest.raises(Malformed, match=r"^parameters"):
            rendered(**given)
    checked = decisions.check_parameters(parsed(), {"replicas": 3})
    assert checked == {"replicas": 3, "ratio": 0.5, "verbose": False, "title": ""}
    assert decisions.check_parameters(parsed(), checked) == checked


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("{{.Name}} {{.Version}}", False),
        *((f"{{{{.{name}}}}}", True) for name in ("AccessList", "CreatorInfo", "OwnerHash", "MountName")),
    ],
)
def test_what_needs_an_owner(text: str, needs: bool) -> None:
    assert decisions.needs_owner(decisions.parse([thing(data={"a": ["x", text]})], "t")) == needs


def test_parameters_need_somebody_who_chooses() -> None:
    spec = {"parameters": {"a": {"type": "string", "default": "x"}}}
    declaration = {"apiVersion": "muster.dev/v1alpha1", "kind": "InstanceTemplate", "spec": spec}
    assert decisions.needs_owner(decisions.parse([declaration, thing()], "t"))


# ------------------------------------------------------------------------------------------ $( ) of Kubernetes


@pytest.mark.parametrize(
    ("text", "value", "written"),
    [
        ("{{.title}}", "$(SECRET)", "$$(SECRET)"),
        ("a {{.title}} $(HOME)", "$", "a $$ $(HOME)"),
        ("${{.title}}", "(SECRET)", "$$(SECRET)"),
        ("$${{.title}}", "(SECRET)", "$$(SECRET)"),
        ("$$${{.title}}", "(SECRET)", "$$$$(SECRET)"),
        ("{{.title}}(SECRET)", "$", "$$(SECRET)"),
        ("{{.title}}{{.title}}", "$", "$$$$"),
        ("$(HOME)/{{.title}}", "x", "$(HOME)/x"),
        ("cost: 5$", "x", "cost: 5$"),
        ('${{"{{"}}', "x", "$${{"),
    ],
)
def test_a_value_is_no_variable(text: str, value: str, written: str) -> None:
    old = "$(HOME)/{{ title }}"
    assert TEXT.count(old) == 1
    found = container_of(rendered(TEXT.replace(f'"{old}"', f"'{text}'"), title=value)["Deployment"])["command"][-1]
    assert found == written
    as_given = text.replace("{{.title}}", "\1").replace('{{"{{"}}', "{{")
    marked = expanded(as_given, {"HOME": "/home", "SECRET": "told"}).replace("\1", value)
    assert expanded(found, {"HOME": "/home", "SECRET": "told"}) == marked


@pytest.mark.parametrize("text", ["$({{.title}})", "$(A{{.title}}", "$(A)$({{.title}})", "$$$({{.title}})"])
def test_a_placeholder_names_no_variable(text: str) -> None:
    with pytest.raises(Malformed, match=r"command\[4\] is .*name of the variable out"):
        parsed(TEXT.replace("$(HOME)/{{ title }}", text))


@pytest.mark.parametrize(
    "text", ["$$({{.title}})", "$(A){{.title}}", "({{.title}})", "{{.title}}$(A", "$ ({{.title}})"]
)
def test_what_is_no_variable_is_none(text: str) -> None:
    assert parsed(TEXT.replace("$(HOME)/{{ title }}", text))


# ------------------------------------------------------------------------------------------ A5: the corpus


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) >= 500 and len(set(CORPUS.values())) == len(CORPUS)
    assert 50 < sum(map(is_refused, CORPUS.values())) < 100
    assert max(map(len, CORPUS.values())) == 1024 * 1024


TEMPLATE = parsed()
PLAIN = decisions.render(TEMPLATE, FACTS, {"title": "x"})


def test_put_in_by_the_oracle() -> None:
    """Where the value is plain, the product and the oracle agree on every text of the template."""
    assert shape(PLAIN[1]) == shape(TEMPLATE.documents[1])
    assert PLAIN[1]["data"]["title"] == put_in(TEMPLATE.documents[1]["data"]["title"], {"title": "x"})


@pytest.mark.parametrize("name", CORPUS)
def test_any_value_stays_a_value(name: str) -> None:
    value = CORPUS[name]
    if is_refused(value):
        with pytest.raises(Malformed) as caught:
            decisions.render(TEMPLATE, FACTS, {"title": value})
        assert caught.value.field == "parameters.title" and len(str(caught.value)) < 1000
        return
    found = decisions.render(TEMPLATE, FACTS, {"title": value})
    assert shape(found) == shape(PLAIN)
    assert json.loads(json.dumps(found)) == found and json.dumps(found, ensure_ascii=False).encode()
    assert found[1]["data"]["title"] == value
    container = container_of(found[2])
    texts = [*container["command"], container["env"][1]["value"]]
    expected = ["notes", f"--title={value}", "--mount", "users/alice/notes", f"/home/{value}", value]
    assert [expanded(text, {"HOME": "/home", "SECRET": "told", "A": "told"}) for text in texts] == expected
    without = [{**document, "data": None, "spec": None} for document in found]
    assert without == [{**document, "data": None, "spec": None} for document in PLAIN]


@pytest.mark.parametrize("name", CORPUS)
def test_any_user_is_a_name_in_valid_json(name: str) -> None:
    user = CORPUS[name]
    facts = FACTS._replace(owner=user, access=Access((f"{user[:9]}x",), (user[:9],)), mount_name=user, created_by=user)
    try:
        found = decisions.render(TEMPLATE, facts, {})
    except Malformed as error:
        assert is_refused(user) or len(json.dumps(user)) > 3500, error
        assert error.field in ("owner", "access")
        return
    assert not is_refused(user)
    assert shape(found) == shape(PLAIN)
    assert json.loads(found[1]["data"]["acl.json"])["Admin"]["In"][0] == user
    info = json.loads(found[2]["metadata"]["annotations"]["creator"])
    assert (info.get("owner", ""), info.get("createdBy", "")) == (user, user)
    assert expanded(container_of(found[2])["command"][3], {"SECRET": "told", "A": "told"}) == user


# ------------------------------------------------------------------------------------------ whose they are


def owned(objects: list[Object] | None = None, **more: Any) -> dict[str, Object]:
    """By kind."""
    objects = decisions.render(TEMPLATE, FACTS, {}) if objects is None else objects
    made = decisions.own(objects, **{**{"handle": HANDLE, "namespace": "inst", "allocator": "notes"}, **more})
    return {obj["kind"]: obj for obj in made}


def test_the_servers_marks() -> None:
    found = owned(owner="alice", instance_uid="u-1")
    for obj in found.values():
        metadata = obj["metadata"]
        assert metadata["namespace"] == "inst"
        assert (
            metadata["labels"] | {"muster.dev/allocator": "notes", "muster.dev/instance": HANDLE} == metadata["labels"]
        )
        assert metadata["annotations"]["muster.dev/owner"] == "alice"
        assert metadata["ownerReferences"] == [{
            "apiVersion": "muster.dev/v1alpha1", "kind": "Instance", "name": HANDLE, "uid": "u-1", "controller": True,
            "blockOwnerDeletion": True,
        }]  # fmt: skip
    assert found["Deployment"]["metadata"]["labels"]["version"] == "1.2"
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert labels == {"app": "notes", "muster.dev/allocator": "notes", "muster.dev/instance": HANDLE}


def test_nobodys_yet() -> None:
    for obj in owned().values():
        assert "ownerReferences" not in obj["metadata"]
        assert "muster.dev/owner" not in (obj["metadata"].get("annotations") or {})


def test_done_twice_it_comes_to_the_same() -> None:
    once = owned(owner="alice", storage_class="fast")
    assert owned(list(once.values()), owner="alice", storage_class="fast") == once
    later = owned(list(once.values()), owner="alice", instance_uid="u-1", storage_class="fast")
    assert later == owned(owner="alice", instance_uid="u-1", storage_class="fast")


def test_what_was_rendered_is_left_as_it_is() -> None:
    objects = decisions.render(TEMPLATE, FACTS, {})
    before = copy.deepcopy(objects)
    owned(objects, owner="alice", instance_uid="u", attach="kept")
    assert objects == before


def test_whatever_an_object_said_the_server_says_the_last_word() -> None:
    said = {
        "name": HANDLE, "namespace": "kube-system", "finalizers": ["x/y"], "ownerReferences": [{"uid": "other"}],
        "labels": {"muster.dev/instance": "other", "muster.dev/allocator": "other", "kept": "yes"},
        "annotations": {"muster.dev/owner": "mallory"}, "uid": "1", "resourceVersion": "2", "generateName": "x",
    }  # fmt: skip
    (found,) = owned([thing(metadata=said)], owner="alice").values()
    assert found["metadata"] == {
        "name": HANDLE, "namespace": "inst",
        "labels": {"muster.dev/instance": HANDLE, "muster.dev/allocator": "notes", "kept": "yes"},
        "annotations": {"muster.dev/owner": "alice"},
    }  # fmt: skip


def test_selectors_select_the_instance_only() -> None:
    found = owned()
    mine = {"app": "notes", "muster.dev/instance": HANDLE}
    assert found["Service"]["spec"]["selector"] == mine
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == mine


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("NetworkPolicy", {"podSelector": {}}, {"podSelector": {"matchLabels": {"muster.dev/instance": HANDLE}}}),
        ("PodDisruptionBudget", {}, {"selector": {"matchLabels": {"muster.dev/instance": HANDLE}}}),
        ("Service", {"ports": []}, {"ports": []}),
        ("Service", {"selector": {}}, {"selector": {}}),
    ],
)
def test_selectors_of_other_kinds(kind: str, spec: Object, expected: Object) -> None:
    (found,) = owned([thing(kind=kind, metadata={"name": HANDLE}, spec=spec)]).values()
    assert found["spec"] == expected


@pytest.mark.parametrize(
    ("kind", "name", "is_fine"),
    [
        ("ConfigMap", HANDLE, True),
        ("ConfigMap", f"{HANDLE}-a", True),
        ("ConfigMap", f"{HANDLE}a", False),
        ("ConfigMap", "notes-ledger-0123456789abcdef", False),
        ("ConfigMap", f"x-{HANDLE}", False),
        ("ConfigMap", f"{HANDLE}-", False),
        ("ConfigMap", f"{HANDLE}-A", False),
        ("ConfigMap", f"{HANDLE}-a.b", False),
        ("ConfigMap", f"{HANDLE}-a\n", False),
        ("ConfigMap", f"{HANDLE}-{'a' * (63 - len(HANDLE) - 1)}", True),
        ("ConfigMap", f"{HANDLE}-{'a' * (64 - len(HANDLE) - 1)}", False),
        ("StatefulSet", f"{HANDLE}-{'a' * (52 - len(HANDLE) - 1)}", True),
        ("StatefulSet", f"{HANDLE}-{'a' * (53 - len(HANDLE) - 1)}", False),
    ],
)
def test_names_are_the_instances_own(kind: str, name: str, is_fine: bool) -> None:
    obj = thing(kind=kind, metadata={"name": name})
    if is_fine:
        assert owned([obj])[kind]["metadata"]["name"] == name
    else:
        with pytest.raises(Malformed, match=rf"^{kind}: metadata.name is"):
            owned([obj])


def test_two_that_became_one_are_refused() -> None:
    with pytest.raises(Malformed, match="a name of its own"):
        owned([thing(metadata={"name": HANDLE}), thing(metadata={"name": HANDLE})])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            None,
            {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "7Gi"}}, "storageClassName": "s"},
        ),
        (
            {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x"},
            {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "x"},
        ),
        (
            {"accessModes": ["ReadWriteOncePod"], "resources": {"limits": {"storage": "9Gi"}}},
            {"accessModes": ["ReadWriteOncePod"], "storageClassName": "s",
             "resources": {"limits": {"storage": "9Gi"}, "requests": {"storage": "7Gi"}}},
        ),
    ],
)  # fmt: skip
def test_a_disk_is_filled_in(spec: Object | None, expected: Object) -> None:
    claim = thing(kind="PersistentVolumeClaim", metadata={"name": HANDLE}, spec=spec)
    (found,) = owned([claim], disk_size="7Gi", storage_class="s").values()
    assert found["spec"] == expected


def test_a_disk_without_a_class_has_none() -> None:
    found = owned()["PersistentVolumeClaim"]["spec"]
    assert found == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50G"}}}


@pytest.mark.parametrize(
    ("spec", "field"),
    [("x", "spec"), ({"resources": []}, "spec.resources"), ({"resources": {"requests": 1}}, "spec.resources.requests")],
)
def test_what_is_no_mapping_is_named(spec: Any, field: str) -> None:
    with pytest.raises(Malformed, match=rf"^PersistentVolumeClaim {HANDLE}: {field} is"):
        owned([thing(kind="PersistentVolumeClaim", metadata={"name": HANDLE}, spec=spec)])


def test_a_disk_that_was_kept_takes_the_place_of_the_only_one() -> None:
    found = owned(attach="notes-old")
    assert found["PersistentVolumeClaim"]["metadata"]["name"] == "notes-old"
    volumes = found["Deployment"]["spec"]["template"]["spec"]["volumes"]
    assert volumes == [{"name": "data", "persistentVolumeClaim": {"claimName": "notes-old"}}]
    assert found["Deployment"]["metadata"]["name"] == HANDLE
    assert owned(list(found.values()), attach="notes-old") == found


@pytest.mark.parametrize("disks", [0, 2])
def test_there_is_one_disk_to_attach(disks: int) -> None:
    claims = [thing(kind="PersistentVolumeClaim", metadata={"name": f"{HANDLE}-{number}"}) for number in range(disks)]
    with pytest.raises(Malformed, match=rf"attach is 'notes-old': .*has {disks} disks"):
        owned(claims, attach="notes-old")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50GB", "50G"), ("50G", "50G"), ("50Gi", "50Gi"), ("50GiB", "50Gi"), ("1", "1"), ("512MiB", "512Mi"),
        ("5KB", "5k"), ("5kB", "5k"), ("5Ki", "5Ki"), ("5ki", "5Ki"), ("2T", "2T"), ("10B", "10"),
    ],
)  # fmt: skip
def test_sizes(text: str, size: str) -> None:
    assert decisions.parse_size(text, "--server-disk-size") == size


@pytest.mark.parametrize("text", ["", "0", "-1", "50 GB", "GB", "1.5G", "50X", "1i", "01G", "9" * 16, "1G\n", "50Gii"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(Malformed, match=r"^--server-disk-size is"):
        decisions.parse_size(text, "--server-disk-size")


# ------------------------------------------------------------------------------------------ paths


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("spec", "containers", 0, "image"), "spec.containers[0].image"),
        (("metadata", "annotations", "v.io/creator-info"), 'metadata.annotations["v.io/creator-info"]'),
        (("data", "é\n"), 'data["é\\n"]'),
        (("a", 0, 1), "a[0][1]"),
    ],
)
def test_paths_are_as_people_write_them(path: decisions.Path, text: str) -> None:
    assert decisions.spell(path) == text

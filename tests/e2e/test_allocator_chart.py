# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chart allocator promises however it is used, and what a Helm release of it does on a cluster.

Needs a cluster of level node with the image (`make image`), and helm and kubectl on PATH
(`scripts/on.sh node pytest tests/e2e`). What is missing fails the test; nothing is left out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.decisions import template as templates
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Wish, make, make_offer
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_import import import_template
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import (
    KINDS,
    Policy,
    check_template,
    parse_kinds,
    pod_security,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.at_cluster import attempt, run, until

CHART = Path(__file__).resolve().parents[2] / "charts" / "allocator"
EXAMPLE = CHART / "examples" / "key-value.yaml"
OLD = CHART / "examples" / "syncbase.json-template"
VERSIONS = yaml.safe_load((CHART / "Chart.yaml").read_text())
# One disk-less Pod that only sleeps: what Helm does is tried here, not what the example does.
SLEEPER = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "{{.Name}}"},
    "spec": {
        "selector": {"matchLabels": {"app": "{{.Name}}"}},
        "template": {
            "metadata": {"labels": {"app": "{{.Name}}"}},
            "spec": {
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "sleeper",
                        "image": f"muster:{VERSIONS['appVersion']}",
                        "command": ["sleep", "1000000"],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    }
                ],
            },
        },
    },
}


def render(values: dict[str, Any], *arguments: str) -> CompletedProcess[str]:
    return attempt(
        "helm", "template", "demo", str(CHART), "--namespace", "apart", "--values", "-", *arguments,
        given=json.dumps(values),
    )  # fmt: skip


def objects(values: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """All of them, by kind and name."""
    done = render(values)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.safe_load_all(done.stdout) if document]
    namespaced = [document for document in found if not document["kind"].startswith("Cluster")]
    assert {document["metadata"]["namespace"] for document in namespaced} == {"apart"}
    return {(document["kind"], document["metadata"]["name"]): document for document in found}


def arguments(values: dict[str, Any]) -> list[str]:
    server = objects(values)["StatefulSet", "demo-allocator"]["spec"]["template"]["spec"]["containers"][0]
    given: list[str] = server["args"]
    return given


def template_of(values: dict[str, Any]) -> str:
    text: str = objects(values)["ConfigMap", "demo-allocator-template"]["data"]["template.yaml"]
    return text


# ------------------------------------------------------------------------------------------------ the chart


@pytest.mark.parametrize("values", [{}, {"tls": {"secret": "certificate"}, "template": "kind: Deployment"}])
def test_its_pods_are_restricted_and_their_root_is_read_only(values: dict[str, Any]) -> None:
    made = objects(values)
    for which in (("StatefulSet", "demo-allocator"), ("Pod", "demo-allocator-test")):
        assert pod_security(made[which], "restricted") == []
        pod = made[which]["spec"] if which[0] == "Pod" else made[which]["spec"]["template"]["spec"]
        assert [each["securityContext"]["readOnlyRootFilesystem"] for each in pod["containers"]] == [True]
        assert "hostPath" not in json.dumps(pod)


def test_the_cluster_is_asked_for_nothing_but_whose_a_token_is() -> None:
    roles = [made for (kind, _name), made in objects({}).items() if kind == "ClusterRole"]
    rules = {role["metadata"]["name"]: role["rules"] for role in roles}
    assert rules == {
        "demo-allocator.apart": [
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
        ],
        "demo-allocator.apart.view": [
            {"apiGroups": ["muster.dev"], "resources": ["instances"], "verbs": ["get", "list", "watch"]}
        ],
    }
    bindings = [made for (kind, _name), made in objects({}).items() if kind == "ClusterRoleBinding"]
    assert [binding["roleRef"]["name"] for binding in bindings] == ["demo-allocator.apart"]
    without = objects({"rbac": {"tokenReview": False, "aggregate": False}})
    assert not [name for kind, name in without if kind.startswith("Cluster")]


def test_the_role_follows_the_kinds_that_a_template_may_make() -> None:
    kinds = ["apps/v1/Deployment", "networking.k8s.io/v1/Ingress", "networking.k8s.io/v1/NetworkPolicy"]
    rules = objects({"allowedKinds": kinds})["Role", "demo-allocator"]["rules"]
    made = {rule["apiGroups"][0]: rule["resources"] for rule in rules if rule["verbs"][-2:] == ["create", "delete"]}
    assert made == {"apps": ["deployments"], "networking.k8s.io": ["ingresses", "networkpolicies"]}
    changed = [rule["resources"] for rule in rules if rule["verbs"] == ["watch", "update"]]
    assert changed == [["deployments"]]
    assert f"--allowed-kinds={','.join(kinds)}" in arguments({"allowedKinds": kinds})


def test_by_default_it_allows_what_the_program_allows() -> None:
    (given,) = [each for each in arguments({}) if each.startswith("--allowed-kinds=")]
    assert parse_kinds(given.partition("=")[2], "allowedKinds") == KINDS


def test_it_is_reached_at_one_port_from_where_values_say() -> None:
    policy = objects({})["NetworkPolicy", "demo-allocator"]["spec"]
    assert policy["ingress"] == [{"ports": [{"port": "users", "protocol": "TCP"}]}]
    assert [sorted(each["port"] for each in rule["ports"]) for rule in policy["egress"]] == [[443, 6443], [53, 53]]
    peer = {"namespaceSelector": {"matchLabels": {"team": "blue"}}}
    where = [{"ipBlock": {"cidr": "192.0.2.1/32"}}]
    policy = objects({"networkPolicy": {"from": [peer], "apiServer": where}})["NetworkPolicy", "demo-allocator"]["spec"]
    first, test = policy["ingress"][0]["from"]
    assert first == peer
    assert test["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"
    assert policy["egress"][0]["to"] == where
    assert ("NetworkPolicy", "demo-allocator") not in objects({"networkPolicy": {"enabled": False}})


def test_with_a_certificate_all_that_asks_it_does_so_by_tls() -> None:
    made = objects({"tls": {"secret": "certificate"}})
    pod = made["StatefulSet", "demo-allocator"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["readinessProbe"]["httpGet"]["scheme"] == "HTTPS"
    assert {"--tls-cert=/etc/muster/tls/tls.crt", "--tls-key=/etc/muster/tls/tls.key"} <= set(
        pod["containers"][0]["args"]
    )
    assert made["Service", "demo-allocator"]["spec"]["ports"][0]["name"] == "https"
    asked = made["Pod", "demo-allocator-test"]["spec"]["containers"][0]["args"]
    assert "--allocator=https://$(DEMO_ALLOCATOR_SERVICE_HOST):8400" in asked


def test_a_template_comes_through_to_the_byte_and_another_one_restarts_the_pods() -> None:
    text = 'kind: "{{.Name}}"\n# {{ include "none" . }} \t\n\'$(X)\': |\n   indented\n\n'
    assert template_of({"template": text}) == text
    rollouts = {
        json.dumps(objects({"template": each})["StatefulSet", "demo-allocator"]["spec"]["template"]["metadata"])
        for each in (text, text + "\n")
    }
    assert len(rollouts) == 2


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"limit": {}}, "limit"),
        ({"limits": {"perUser": -1}}, "/limits/perUser"),
        ({"limits": {"perUser": 11}}, "limits.perUser is 11 and limits.total is 10"),
        ({"serverName": "Key"}, "/serverName"),
        ({"serverName": "a" * 41}, "/serverName"),
        ({"disk": {"size": "large"}}, "/disk/size"),
        ({"podSecurity": "privileged"}, "/podSecurity"),
        ({"allowedKinds": ["Deployment"]}, "/allowedKinds/0"),
        ({"allowedKinds": []}, "/allowedKinds"),
        ({"allowed": {"secrets": ["a,b"]}}, "/allowed/secrets/0"),
        ({"administrators": ["ann,bob"]}, "/administrators/0"),
        ({"warm": 1}, "warm"),
        ({"warm": 11, "template": "x"}, "warm is 11 and limits.total is 10"),
        ({"service": {"type": "ExternalName"}}, "/service/type"),
        ({"networkPolicy": {"from": {}}}, "/networkPolicy/from"),
        ({"template": "x" * 262145}, "/template"),
        ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], named: str) -> None:
    done = render(values)
    assert done.returncode != 0
    assert named in done.stderr


def test_chart_and_image_have_the_version_of_the_collection() -> None:
    galaxy = yaml.safe_load((CHART.parents[1] / "galaxy.yml").read_text())
    assert {VERSIONS["version"], VERSIONS["appVersion"]} == {galaxy["version"]}


# ------------------------------------------------------------------------------------------------ the examples


def test_the_example_is_sound_and_has_the_image_of_the_release() -> None:
    text = template_of({"image": {"repository": "example.org/muster", "tag": "2"}})
    assert text.replace("image: example.org/muster:2\n", f"image: muster:{VERSIONS['appVersion']}\n") == (
        EXAMPLE.read_text()
    )
    template = templates.parse(list(yaml.safe_load_all(text)), "key-value.yaml")
    check_template(template, Policy())
    offer = make_offer(name="demo", server_name="key-value", template=template, disk_size="1Gi")
    made = make(offer, "apart", "ann", "key-value-0123456789", "key", Wish({"graceSeconds": 3}), "2026-01-01T00:00:00Z")
    manifest = {obj["kind"]: obj for obj in made["spec"]["manifest"]}
    assert set(manifest) == {"PersistentVolumeClaim", "Deployment", "Service", "NetworkPolicy"}
    assert pod_security(manifest["Deployment"], "restricted") == []
    pod = manifest["Deployment"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "example.org/muster:2"
    assert pod["terminationGracePeriodSeconds"] == 3
    assert manifest["PersistentVolumeClaim"]["spec"]["resources"]["requests"]["storage"] == "1Gi"


def test_the_old_example_is_told_where_its_comma_is_missing_and_is_sound_when_it_is_repaired() -> None:
    with pytest.raises(Malformed, match=r'line 21, column 52.*put a comma after the value of "image"'):
        import_template(OLD.read_text(), OLD.name)
    documents, notes = import_template(OLD.read_text(), OLD.name, repair=True)
    check_template(templates.parse(documents, OLD.name), Policy())
    assert [document["kind"] for document in documents] == ["PersistentVolumeClaim", "Deployment"]
    assert str(notes[0]) == 'line 21, column 52: comma put after the value of "image"'


# ------------------------------------------------------------------------------------------------ a release


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"e2e-allocator-release-{os.getpid()}"
    run("kubectl", "create", "namespace", name)
    yield name
    attempt("helm", "uninstall", "demo", "--namespace", name, "--ignore-not-found", "--wait")
    let_go = ("patch", "instances", "--all", "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    attempt("kubectl", "--namespace", name, *let_go)  # there are some if the test broke off
    run("kubectl", "delete", "namespace", name, "--timeout=120s")


def test_release(namespace: str) -> None:
    values: dict[str, Any] = {"fullnameOverride": "allocator", "template": json.dumps(SLEEPER), "serverName": "nap"}

    def kubectl(*arguments: str) -> str:
        return run("kubectl", "--namespace", namespace, *arguments).strip()

    def helm(verb: str, **changes: Any) -> CompletedProcess[str]:
        given = json.dumps({**values, **changes})
        where = ("--namespace", namespace, "--values", "-", "--wait", "--timeout=120s")
        return attempt("helm", verb, "demo", str(CHART), *where, given=given)

    def ask(*arguments: str) -> CompletedProcess[str]:
        """As the first replica, with the token that the API server has given it, which is for no allocator."""
        pod = ("exec", "allocator-0", "--", "allocator", "--allocator=http://127.0.0.1:8400")
        where = ("--token-file=/var/run/secrets/kubernetes.io/serviceaccount/token", *arguments)
        return attempt("kubectl", "--namespace", namespace, *pod, *where)

    installed = helm("install")
    assert installed.returncode == 0, installed.stderr
    assert "kubectl -n" in installed.stdout  # the notes
    run("helm", "test", "demo", "--namespace", namespace, "--timeout=120s")

    refused = ask("create")
    assert refused.returncode != 0
    assert "audience" in refused.stderr

    # With the API server's own audience every token passes, so also that one.
    upgraded = helm("upgrade", audience="")
    assert upgraded.returncode == 0, upgraded.stderr
    created = ask("create", "--wait")
    assert created.returncode == 0, created.stderr
    name = created.stdout.strip()
    assert name.startswith("nap-")

    # An upgrade to another template leaves alone what there is.
    before = kubectl("get", "deployment", name, "--output=jsonpath={.metadata.uid} {.metadata.generation}")
    other = json.dumps(SLEEPER).replace("1000000", "2000000")
    upgraded = helm("upgrade", audience="", template=other)
    assert upgraded.returncode == 0, upgraded.stderr
    assert kubectl("get", "deployment", name, "--output=jsonpath={.metadata.uid} {.metadata.generation}") == before

    # A template that is wrong stops the rollout; the other replica goes on with the last good one.
    wrong = json.dumps(SLEEPER).replace('"runAsNonRoot": true', '"runAsNonRoot": false')
    given = json.dumps({**values, "audience": "", "template": wrong})
    run("helm", "upgrade", "demo", str(CHART), "--namespace", namespace, "--values", "-", given=given)
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    until("it is refused", lambda: "CrashLoop" in kubectl("get", "pod", "allocator-1", f"--output={waiting}"))
    assert "runAsNonRoot" in kubectl("logs", "allocator-1", "--previous")
    assert ask("list").stdout.count(name) == 1
    assert helm("upgrade", audience="").returncode == 0

    assert ask("destroy", name, "--wait").returncode == 0
    assert kubectl("get", "deployments,instances", "--output=name") == ""
    uninstalled = attempt("helm", "uninstall", "demo", "--namespace", namespace, "--wait", "--timeout=120s")
    assert uninstalled.returncode == 0, uninstalled.stderr
    kinds = "statefulset,service,secret,role,rolebinding,networkpolicy,pdb,serviceaccount"
    left = kubectl("get", kinds, "--selector=app.kubernetes.io/part-of=muster", "--output=name")
    assert left == ""

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster allocatord`: its options, what it makes of a template's file, and when it offers another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, NotFound, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    Offer,
    RefusedByCluster,
    make_offer,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import Template, parse
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import KINDS, Policy
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import (
    RESOURCES,
    Allocator,
    read_offer,
)
from ansible_collections.muster.coordination.tests.support.allocator_lab import PLAIN, ROOT
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster import cli
from muster.allocator import offering, server_cli
from muster.allocator.offering import Offering, read_template, sample, sample_values

EXAMPLES = ROOT / "charts/allocator/examples"
OLD = EXAMPLES / "syncbase.json-template"
DECLARED = """\
apiVersion: muster.dev/v1alpha1
kind: InstanceTemplate
spec:
  parameters:
    size: {type: integer, minimum: 3}
    word: {type: string, minLength: 2, maxLength: 5}
    host: {type: string, pattern: '[a-z]+\\.example\\.org'}
    colour: {type: string, enum: [red, blue]}
    odd: {type: boolean}
    rest: {type: string, default: x}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: "{{.Name}}"}
data: {all: "{{size}} {{word}} {{host}} {{colour}} {{odd}} {{rest}}"}
"""


# ------------------------------------------------------------------------------------------ reading


def test_the_form_says_whether_it_is_an_old_template() -> None:
    read = read_template(OLD.read_text(), "old", repair=True)
    assert {obj["kind"] for obj in read.template.documents} == {"Deployment", "PersistentVolumeClaim"}
    assert any("comma put" in str(note) for note in read.notes)
    with pytest.raises(Malformed, match=r"line 21, column \d+.*put a comma"):
        read_template(OLD.read_text(), "old")
    plain = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{.Name}}"}})
    assert read_template(plain, "new").notes == ()
    assert read_template(PLAIN, "new").template.digest == parse(list(yaml.safe_load_all(PLAIN)), "new").digest


def test_it_can_be_said_that_it_is_an_old_one() -> None:
    workload = {"containers": [{"name": "a", "image": "b"}]}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "{{.Name}}"}}
    text = json.dumps({**deployment, "spec": {"template": {"spec": workload}}})
    assert read_template(text, "x").notes == ()
    assert read_template(text, "x", imports=True).notes, "what restricted Pod Security asks for is filled in"


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "template.yaml"
    if content:
        path.write_bytes(content)
    with pytest.raises(Malformed, match="deployment-template"):
        offering.read_file(path)


def test_a_sample_has_a_value_for_each_parameter() -> None:
    template = read_template(DECLARED, "template").template
    values = sample_values(template)
    assert values is not None
    assert values == {"size": 3, "word": "aa", "host": "a.example.org", "colour": "red", "odd": False}
    assert sample_values(template, {"size": 7})["size"] == 7  # type: ignore[index]
    strict = read_template(DECLARED.replace("[a-z]+\\.example\\.org", "[0-9]{7}-[a-f]{3}"), "template").template
    assert sample_values(strict) is None, "it is not to be guessed"
    assert sample(made(strict), "ns") is None


def made(template: Template, **said: Any) -> Offer:
    return make_offer(**{"name": "kv", "server_name": "kv", "template": template, **said})


# ------------------------------------------------------------------------------------------ offering


class Stage:
    """A template's file, and what is made of it."""

    def __init__(self, directory: Path, text: str = PLAIN) -> None:
        self.api, self.path = MemoryApi(), directory / "template.yaml"
        self.path.write_text(text)

    def offering(self) -> Offering:
        api: Any = self.api
        return Offering(lambda offer: Allocator(api, "ns", offer), self.path, made)

    def refuse(self, offering: Offering) -> None:
        def check(_objects: Any) -> None:
            raise RefusedByCluster("Deployment kv-1: spec.replicas: too many")

        offering.allocator.check_with_cluster = check  # type: ignore[method-assign]

    def published(self) -> str:
        api: Any = self.api
        return read_offer(api, "ns", "kv").template.digest


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_what_is_offered_is_tried_and_published(stage: Stage) -> None:
    offering = stage.offering()
    assert stage.api.objects == {}
    offering.begin()
    tried = [request for request in stage.api.requests if request.startswith("dry-run")]
    assert len(tried) == 3
    assert stage.published() == offering.allocator.offer.template.digest
    assert list(stage.api.objects) == [("configmaps", "ns", "kv-offer")]


def test_what_the_cluster_would_not_take_is_not_offered(stage: Stage) -> None:
    offering = stage.offering()
    stage.refuse(offering)
    with pytest.raises(RefusedByCluster, match=r"template\.yaml: Deployment kv-1: spec\.replicas"):
        offering.begin()
    with pytest.raises(NotFound):
        stage.published()


def test_what_was_offered_before_is_offered_again(stage: Stage) -> None:
    """A quota that is used up keeps no replica from starting."""
    stage.offering().begin()
    again = stage.offering()
    stage.refuse(again)
    again.begin()
    assert stage.published() == again.allocator.offer.template.digest


def test_another_template_is_offered_when_the_file_changes(stage: Stage) -> None:
    offering = stage.offering()
    offering.begin()
    before = stage.published()
    assert not offering.look(), "nothing has changed"
    stage.path.write_text(
        PLAIN
        + "---\n"
        + DECLARED.partition("---\n")[2]
        .replace("{{size}} {{word}} {{host}}", "1")
        .replace("{{colour}} {{odd}} {{rest}}", "2")
        .replace('name: "{{.Name}}"', 'name: "{{.Name}}-more"')
    )
    assert offering.look()
    assert stage.published() == offering.allocator.offer.template.digest != before
    assert not offering.look()


@pytest.mark.parametrize(
    "wrong", ["", "kind: [", "kind: Pod", PLAIN.replace("runAsNonRoot: true", "runAsNonRoot: false")]
)
def test_a_wrong_one_is_not_offered_and_the_one_before_stays(stage: Stage, wrong: str) -> None:
    offering = stage.offering()
    offering.begin()
    before = stage.published()
    stage.path.write_text(wrong)
    assert not offering.look() and not offering.look()
    assert offering.refusals == 1, "it is told once"
    assert stage.published() == offering.allocator.offer.template.digest == before
    stage.path.write_text(PLAIN.replace("port: 80", "port: 81"))
    assert offering.look()


def test_one_that_the_cluster_refuses_later_is_not_offered(stage: Stage) -> None:
    offering = stage.offering()
    offering.begin()
    before = stage.published()
    stage.refuse(offering)
    stage.path.write_text(PLAIN.replace("port: 80", "port: 81"))
    assert not offering.look()
    assert stage.published() == before
    stage.path.unlink()
    assert not offering.look(), "not there for a moment"


def test_kinds_that_were_added_are_named_as_the_server_names_them(stage: Stage) -> None:
    asked = []

    def get(resource: Resource, name: str, *_more: Any) -> Any:
        asked.append((resource.api_version, name))
        listed = {"kind": "Gateway", "name": "gateways", "namespaced": True}
        parts = [{**listed, "name": "gateways/status"}, listed]
        return {"resources": [*parts, {"kind": "GatewayClass", "name": "gatewayclasses", "namespaced": False}]}

    api: Any = stage.api
    api.get = get
    template = parse(list(yaml.safe_load_all(PLAIN)), "template")
    version = "gateway.networking.k8s.io/v1"
    try:
        offering.learn_kinds(api, made(template, policy=Policy(kinds=KINDS | {(version, "Gateway")})))
        assert RESOURCES[version, "Gateway"] == Resource(version, "gateways", "Gateway")
        assert asked == [(version, "")]
        for kind, why in (("GatewayClass", "of no namespace"), ("Other", "does not serve")):
            with pytest.raises(Malformed, match=why):
                offering.learn_kinds(api, made(template, policy=Policy(kinds=KINDS | {(version, kind)})))
    finally:
        RESOURCES.pop((version, "Gateway"), None)
    assert CONFIGMAPS in RESOURCES.values()


# ------------------------------------------------------------------------------------------ the command


def run(*argv: str) -> int:
    return cli.main(["allocatord", *argv])


def test_check_shows_what_one_user_would_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(EXAMPLES / "key-value.yaml"), "--user", "ann", "--namespace", "there") == 0
    shown = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {obj["metadata"]["namespace"] for obj in shown} == {"there"}
    assert {obj["metadata"]["annotations"]["muster.dev/owner"] for obj in shown} == {"ann"}


def test_check_tells_what_an_import_changes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(OLD), "--repair", "-o", "json") == 0
    told = capsys.readouterr()
    assert "comma put after" in told.err and "apps/v1" in told.err
    assert {obj["kind"] for obj in json.loads(told.out)} == {"Deployment", "PersistentVolumeClaim"}
    assert run("check", str(OLD)) == 1
    assert "line 21" in capsys.readouterr().err


def test_check_names_the_field_that_the_policy_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(PLAIN.replace("runAsNonRoot: true", "runAsNonRoot: false"))
    assert run("check", str(path)) == 1
    assert "spec.template.spec.securityContext.runAsNonRoot" in capsys.readouterr().err
    assert run("check", str(path), "--pod-security", "baseline") == 0
    assert run("check", str(path), "--pod-security", "baseline", "--allowed-kinds", "v1/Service") == 1
    assert "Deployment" in capsys.readouterr().err


def test_check_takes_parameters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(DECLARED)
    assert run("check", str(path), "--param", "size=9", "--param", "odd=true", "-o", "json") == 0
    (config,) = json.loads(capsys.readouterr().out)
    assert config["data"]["all"] == "9 aa a.example.org red true x"
    assert run("check", str(path), "--param", "size=1") == 1
    assert "parameters.size" in capsys.readouterr().err
    for wrong in ("size", "other=1"):
        assert run("check", str(path), "--param", wrong) == 2
    path.write_text(DECLARED.replace("[a-z]+\\.example\\.org", "[0-9]{7}-[a-f]{3}"))
    assert run("check", str(path)) == 2
    assert "--param" in capsys.readouterr().err


def parsed(*argv: str, **environ: str) -> Any:
    return cli.build_parser(environ, ["allocatord"]).parse_args(["allocatord", "run", *argv])


def test_options_and_their_environment() -> None:
    args = parsed("--deployment-template", "x.yaml")
    assert (args.users_listen, args.listen) == ("0.0.0.0:8400", "127.0.0.1:8378")
    assert (args.shard_by, args.max_instances, args.max_instances_per_user, args.warm) == ("object", 10, 1, 0)
    args = parsed("--listen", "127.0.0.1:1", "--health-listen", "127.0.0.1:2", "--import", "--no-repair")
    assert (args.users_listen, args.listen, args.imports, args.repair) == ("127.0.0.1:1", "127.0.0.1:2", True, False)
    args = parsed(
        MUSTER_ALLOCATOR_LISTEN="127.0.0.1:3",
        MUSTER_HEALTH_LISTEN="127.0.0.1:4",
        MUSTER_LISTEN="127.0.0.1:5",
        MUSTER_ALLOCATOR_WARM="4",
        MUSTER_ALLOCATOR_REPAIR="true",
        MUSTER_SHARD_BY="namespace",
    )
    assert (args.users_listen, args.listen) == ("127.0.0.1:3", "127.0.0.1:4")
    assert (args.warm, args.repair, args.shard_by) == (4, True, "namespace")


def test_an_offer_is_what_the_options_say() -> None:
    args = parsed(
        *("--name", "db", "--max-instances", "30", "--global-admins", "root, group:ops", "--storage-class", "fast"),
        *("--allowed-secrets", "tls,pull", "--mount-prefix", "there/", "--server-disk-size", "8Gi"),
    )
    offer = server_cli._maker(args)(parse(list(yaml.safe_load_all(PLAIN)), "template"))
    assert (offer.name, offer.server_name, offer.max_instances) == ("db", "db", 30)
    assert offer.administrators == ("root", "group:ops") and offer.policy.secrets == {"tls", "pull"}
    assert (offer.storage_class, offer.mount_prefix, offer.disk_size) == ("fast", "there/", "8Gi")
    with pytest.raises(Malformed, match="server-disk-size"):
        server_cli._maker(parsed("--server-disk-size", "much"))(offer.template)


@pytest.mark.parametrize("argv", [(), ("--deployment-template", "x", "--tls-cert", "y")])
def test_what_does_not_go_together_is_wrong_usage(argv: tuple[str, ...]) -> None:
    assert run("run", *argv) == 2

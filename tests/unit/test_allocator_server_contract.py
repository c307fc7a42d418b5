# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document says what the server does: all of it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import parse
from ansible_collections.muster.coordination.tests.support.allocator_contract import contract
from ansible_collections.muster.coordination.tests.support.allocator_server import Service
from muster.allocator import openapi, server_wire
from muster.allocator.server_routes import ROUTES
from muster.http.wire import dump

CONFIG_ONLY = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{.Name}}"}}


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def schema(document: Any, name: str) -> Any:
    """A schema with all that it refers to, as a document of its own."""
    text = json.dumps({"$ref": f"#/$defs/{name}", "$defs": document["components"]["schemas"]})
    return json.loads(text.replace("#/components/schemas/", "#/$defs/"))


def test_the_server_keeps_to_its_document(service: Service, tmp_path: Path) -> None:
    service.ann("POST", "/v1/instances", {}, key="one")
    done = contract(service.ann, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def test_what_is_described_is_what_is_served(service: Service) -> None:
    document = service.ann("GET", "/openapi.json", token="").json()
    described = {(method.upper(), path) for path, of in document["paths"].items() for method in of}
    pages = {("GET", path) for path in ("/healthz", "/readyz", "/metrics", "/openapi.json")}
    assert described == {(route.method, route.path) for route in ROUTES} | pages
    assert document == json.loads(dump(openapi.document(service.offer)))


def test_each_word_of_a_refusal_is_described() -> None:
    described = {word for words in openapi.STATUS_WORDS.values() for word in words}
    assert described == set(server_wire.WORDS)
    for word, (status, _title) in server_wire.WORDS.items():
        assert word in openapi.STATUS_WORDS[str(status)]


def test_examples_are_what_they_are_examples_of() -> None:
    document = openapi.document()
    jsonschema.validate(openapi.EXAMPLE, schema(document, "Instance"))
    jsonschema.validate(openapi.QUOTA, schema(document, "Problem"))
    for path in document["paths"].values():
        for operation in path.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                jsonschema.validate(content["example"], schema(document, content["schema"]["$ref"].split("/")[-1]))


def test_only_open_pages_need_no_token() -> None:
    document = openapi.document()
    assert document["security"] == [{"token": []}]
    of = {path: each.get("security") for path, methods in document["paths"].items() for each in methods.values()}
    assert {path for path, security in of.items() if security == []} == {
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
    }
    assert all(security in ([], None) for security in of.values())


def test_parameters_are_those_of_the_template(service: Service) -> None:
    wish = openapi.document(service.offer)["components"]["schemas"]["Wish"]
    parameters = wish["properties"]["parameters"]
    assert parameters["properties"]["Size"] == {"type": "integer", "default": 1, "minimum": 1, "maximum": 9}
    assert parameters["additionalProperties"] is False
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"parameters": {"Size": 10}}, wish)


def test_with_another_template_it_is_another_document(service: Service) -> None:
    before = service.ann("GET", "/openapi.json").body
    service.allocator.offer = replace(service.offer, template=parse([CONFIG_ONLY], "template"))
    after = service.ann("GET", "/openapi.json")
    wish = after.json()["components"]["schemas"]["Wish"]
    assert after.body != before and wish["properties"]["parameters"]["properties"] == {}


def test_each_line_of_a_watch_is_what_the_document_says(service: Service) -> None:
    lines = schema(service.ann("GET", "/openapi.json").json(), "WatchEvent")
    name = service.ann("POST", "/v1/instances", {}, key="one").json()["name"]
    service.tell(name)
    with service.ann.watching() as watched:
        found = [next(watched), next(watched)]
        service.remove(name)
        found.append(next(watched))
        service.server._soon(service.server._ends.set)
        found += list(watched)
    assert [line["type"] for line in found[:3]] == ["ADDED", "BOOKMARK", "DELETED"] and len(found) == 4
    for line in found:
        jsonschema.validate(line, lines)


def test_an_answer_that_the_document_does_not_know_is_found(service: Service, tmp_path: Path) -> None:
    """The check itself: with a server that says something else, it fails."""
    view = service.allocator.offer_for
    service.allocator.offer_for = lambda caller: {**view(caller), "limit": "many"}  # type: ignore[method-assign]
    done = contract(service.ann, tmp_path, "--include-path", "/v1/offer", examples=3)
    assert done.returncode == 1 and "limit" in done.stdout, done.stdout[-3000:]

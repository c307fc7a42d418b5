# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the OpenAPI documents of our servers are made of, alike in all of them, and what they all refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"  # RFC 9457

# what any of them refuses, by word: the status that it mostly has, and a title
COMMON_WORDS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "The request can't be understood"),  # 417 of an Expect
    "unauthenticated": (401, "Nobody knows who asks"),
    "method": (405, "The page is not there for this method"),
    "timeout": (408, "The request did not come in time"),
    "too-large": (413, "The request is too large"),  # 414 of a URL, 431 of headers
    "internal": (500, "The server failed"),
    "overloaded": (503, "Too much is going on"),
}

Schema = dict[str, Any]


def operation(
    name: str,
    tag: str,
    summary: str,
    answers: Schema,
    refusals: Iterable[str],
    *,
    description: str = "",
    parameters: list[Schema] | None = None,
    body: Schema | None = None,
) -> Schema:
    """One operation; `refusals` are the statuses of responses that the document describes once for all."""
    refused = {status: {"$ref": f"#/components/responses/{status}"} for status in sorted(set(refusals))}
    told = {"description": description, "parameters": parameters, "requestBody": body}
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        **{key: value for key, value in told.items() if value},
        "responses": {**answers, **refused},
    }


def query(name: str, schema: Schema, text: str) -> Schema:
    """A parameter in the query."""
    return {"name": name, "in": "query", "description": text, "schema": schema}


def json_of(schema: str, text: str, example: Schema | None = None) -> Schema:
    """An answer in JSON, of a schema that the document has."""
    content: Schema = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
    if example is not None:
        content["example"] = example
    return {"description": text, "content": {JSON: content}}


def refusal(
    status: str, words: Mapping[str, str], prefix: str, headers: Mapping[str, str], example: Schema | None = None
) -> Schema:
    """A response that refuses. `words`: each type, without its prefix, and what is said of it; `headers` by status."""
    types = {"properties": {"type": {"enum": [prefix + word for word in words]}, "status": {"const": int(status)}}}
    content: Schema = {"schema": {"allOf": [{"$ref": "#/components/schemas/Problem"}, types]}}
    if example is not None:
        content["example"] = example
    told: Schema = {"description": "; ".join(words.values()), "content": {PROBLEM: content}}
    if header := headers.get(status):
        told["headers"] = {header: {"$ref": f"#/components/headers/{header}"}}
    return told

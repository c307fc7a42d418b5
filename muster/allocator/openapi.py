# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of the allocator's server, as an OpenAPI 3.1 document. The tests hold it against the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Offer
from muster.allocator.openapi_schemas import Schema, schemas
from muster.allocator.server_wire import LINES, TYPE, WORDS
from muster.openapi import JSON, json_of, operation, query, refusal

VERSION: Final = "1.0.0"  # of the interface
OF_ALL: Final = ("400", "401", "408", "414", "431", "500", "503")  # what any page may answer, that needs a token
STATUS_WORDS: Final[Mapping[str, tuple[str, ...]]] = {  # the words of a problem that a status may have
    "400": ("malformed",),
    "401": ("unauthenticated",),
    "403": ("quota", "not-administrator", "not-owner"),
    "404": ("not-found",),
    "405": ("method",),
    "408": ("timeout",),
    "409": ("key-busy", "conflict"),
    "413": ("too-large",),
    "414": ("too-large",),
    "415": ("unsupported",),
    "417": ("malformed",),
    "422": ("key-reused", "refused-by-cluster"),
    "429": ("throttled",),
    "431": ("too-large",),
    "500": ("internal",),
    "503": ("overloaded", "unavailable"),
}
EXAMPLE: Final[Schema] = {
    "name": "notes-3f9a1c07be",
    "owner": "system:serviceaccount:team-a:ci",
    "access": {"users": ["alice"], "groups": []},
    "key": "9f86d081884c7d65",
    "phase": "Ready",
    "message": "",
    "created": "2026-01-31T12:00:00Z",
    "parameters": {"greeting": "hello"},
    "storage": "delete",
    "suspended": False,
    "resets": 0,
    "attach": "",
    "template": "0f1e2d3c4b5a6978",
    "objects": [{"kind": "Deployment", "name": "notes-3f9a1c07be"}],
    "endpoints": [{"service": "notes-3f9a1c07be", "port": 8080, "name": "http"}],
}
QUOTA: Final[Schema] = {
    "type": f"{TYPE}quota",
    "title": WORDS["quota"][1],
    "status": 403,
    "detail": "you have 1 of at most 1 instances: destroy one, or ask an administrator for more",
    "limit": 1,
    "used": 1,
    "scope": "owner",
}


def document(offer: Offer | None = None) -> Schema:
    """The document; with an offer, the parameters of a creation are those of its template."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Muster allocator",
            "version": VERSION,
            "summary": "Instances of a service, each its user's own",
            "description": "Users create, list, suspend, reset and destroy instances of what an administrator "
            "describes by a template. Refusals are problem documents (RFC 9457); programs tell them apart by `type`.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "tags": [{"name": "instances"}, {"name": "disks"}, {"name": "offer"}, {"name": "process"}],
        "paths": {**_instances(), **_one(), **_rest(), **_process()},
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token that the cluster's API server accepts (TokenReview), made for this "
                    "allocator's audience.",
                }
            },
            "parameters": {"name": _name("instance")},
            "headers": {
                "Location": {"description": "The path of the instance", "schema": {"type": "string"}},
                "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}},
                "WWW-Authenticate": {"schema": {"type": "string"}},
            },
            "responses": {status: _refusal(status, words) for status, words in STATUS_WORDS.items()},
            "schemas": schemas(offer),
        },
    }


# ---------------------------------------------------------------------------------------------------------------------
# Paths


def _instances() -> Schema:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "required": True,
        "description": "The same value with each repetition of a request: it has one instance, however often sent.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": decisions.MAX_KEY,
            "pattern": "^[!-~]([ -~]*[!-~])?$",
        },
        "example": "0d4b1c56-1f0b-4a58-9c3a-0b6f3f1f5d1e",
    }
    location = {"Location": {"$ref": "#/components/headers/Location"}}
    made = {
        "200": json_of("Instance", "The instance that this key has; with dryRun, what would be made", EXAMPLE),
        "201": json_of("Instance", "A new instance", EXAMPLE) | {"headers": location},
    }
    watch_note = (
        "With `watch=true` the answer does not end: a line of JSON for each change (`WatchEvent`). First ADDED for all "
        "that there is, then a BOOKMARK, then what changes, and a BOOKMARK every 15 s. A line that is a problem "
        "document is the last: list again."
    )
    items = {**json_of("InstanceList", "Instances, by name", {"items": [EXAMPLE], "continue": ""})}
    items["content"][LINES] = {"schema": {"$ref": "#/components/schemas/WatchEvent"}}
    return {
        "/v1/instances": {
            "get": _operation(
                "listInstances",
                "instances",
                "One's own instances, and those that others share",
                {"200": items},
                "403",
                "429",
                description=watch_note,
                parameters=[
                    query(
                        "limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 100}, "How many, at most"
                    ),
                    query(
                        "continue",
                        {"type": "string", "maxLength": 4096, "pattern": "^[!-~]*$"},
                        "What the page before said",
                    ),
                    query("all", {"type": "boolean", "default": False}, "Everybody's, for administrators"),
                    query("watch", {"type": "boolean", "default": False}, "Changes as they come"),
                ],
            ),
            "post": _operation(
                "createInstance",
                "instances",
                "An instance of one's own",
                made,
                "403",
                "409",
                "413",
                "415",
                "417",
                "422",
                parameters=[
                    key,
                    query("dryRun", {"type": "boolean", "default": False}, "Only say what would be made"),
                ],
                body=_body("Wish", {"parameters": {}, "access": {"users": ["alice"]}, "storage": "delete"}),
            ),
        }
    }


def _one() -> Schema:
    at, one = "/v1/instances/{name}", [{"$ref": "#/components/parameters/name"}]
    accepted = {"202": json_of("Instance", "It will be done", EXAMPLE)}
    storage = query(
        "storage", {"enum": list(decisions.STORAGE)}, "What becomes of its disks; as it was created if left out"
    )
    changes = ("404", "409", "413", "415", "417")

    def verb(name: str, summary: str, body: Schema, *further: str) -> Schema:
        operation = _operation(
            f"{name}Instance", "instances", summary, accepted, *changes, *further, parameters=one, body=body
        )
        return {"post": operation}

    return {
        at: {
            "get": _operation(
                "getInstance", "instances", "One instance",
                {"200": json_of("Instance", "The instance", EXAMPLE)}, "404",
                parameters=one,
            ),
            "delete": _operation(
                "destroyInstance", "instances", "Have it destroyed", accepted, "403", "404", "409",
                parameters=[*one, storage],
            ),
        },
        f"{at}:suspend": verb("suspend", "Take its Pods away; its disks stay", _body("Nothing", {})),
        f"{at}:resume": verb("resume", "Give its Pods back", _body("Nothing", {})),
        f"{at}:reset": verb("reset", "Empty its disks", _body("Reset", {"resets": 0}), "403"),
        f"{at}/events": {
            "get": _operation(
                "listEvents", "instances", "What the cluster says of it, the newest first",
                {"200": json_of("EventList", "At most 100", {"items": []})}, "404", parameters=one,
            )
        },
    }  # fmt: skip


def _rest() -> Schema:
    disk = {"name": "notes-3f9a1c07be", "size": "1Gi", "created": "2026-01-31T12:00:00Z"}
    return {
        "/v1/offer": {
            "get": _operation("getOffer", "offer", "What one can have", {"200": json_of("Offer", "The offer")})
        },
        "/v1/disks": {
            "get": _operation(
                "listDisks", "disks", "The disks that one has kept",
                {"200": json_of("DiskList", "Disks that can be attached", {"items": [disk]})},
            )
        },
        "/v1/disks/{name}": {
            "delete": _operation(
                "removeDisk", "disks", "Delete a disk that one has kept",
                {"202": json_of("Nothing", "It will be done", {})}, "404", "409", parameters=[_name("disk")],
            )
        },
    }  # fmt: skip


def _process() -> Schema:
    """Pages without a token."""
    ready = json_of("Fine", "It is", {"ok": True})
    metrics = {"description": "Prometheus metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
    described = {"description": "This document", "content": {JSON: {"schema": {"type": "object"}}}}

    def page(name: str, summary: str, answer: Schema, *further: str) -> Schema:
        operation = _operation(name, "process", summary, {"200": answer}, *further)
        del operation["responses"]["401"]
        return {"get": {**operation, "security": []}}

    return {
        "/healthz": page("isHealthy", "Whether the process serves", ready),
        "/readyz": page("isReady", "Whether it knows the instances", ready),
        "/metrics": page("getMetrics", "Figures for Prometheus", metrics),
        "/openapi.json": page("getDocument", "This document", described),
    }


def _operation(name: str, tag: str, summary: str, answers: Schema, *refusals: str, **more: Any) -> Schema:
    return operation(name, tag, summary, answers, (*OF_ALL, *refusals), **more)


def _name(of: str) -> Schema:
    # what has no such form is answered as what isn't there
    schema = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
    return {"name": "name", "in": "path", "required": True, "description": f"The {of}'s name", "schema": schema}


def _body(schema: str, example: Schema) -> Schema:
    content = {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}
    return {"required": False, "description": "64 KiB at most, 16 deep, not compressed", "content": {JSON: content}}


def _refusal(status: str, words: tuple[str, ...]) -> Schema:
    said = {word: WORDS[word][1] for word in words}
    headers = {"401": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
    return refusal(status, said, TYPE, headers, QUOTA if status == "403" else None)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker of partitions has to do over HTTP, as an OpenAPI 3.1 document: any program that does so can be one.

The tests hold it against the reference worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import MAX_KEY_LENGTH
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import ROLES
from muster.openapi import COMMON_WORDS, Schema, json_of, operation, query, refusal

VERSION: Final = "1.0.0"  # of the contract
TYPE: Final = "urn:muster:partitions:"
MAX_VALUE: Final = 64 * 1024  # bytes
MAX_KEY: Final = MAX_KEY_LENGTH  # characters
MAX_NAME: Final = 253  # characters
MAX_NUMBER: Final = 2**62


# by word: the status, and a title
WORDS: Final[Mapping[str, tuple[int, str]]] = {
    **COMMON_WORDS,
    "not-found": (404, "There is no such page"),
    "not-here": (404, "There is no such copy here"),
    "no-such-key": (404, "There is nothing under this key"),
    "stale": (409, "Something newer has been seen"),
    "busy": (409, "What is here stands in the way"),
    "trimmed": (410, "That part of the log is gone: load anew"),
    "not-mine": (421, "Another worker has this key"),
    "unserved": (503, "Nobody may serve this at the moment"),
    "unknown": (504, "Nobody knows what becomes of this write"),
}
STATUS_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    **{
        str(status): tuple(word for word, (of, _title) in WORDS.items() if of == status)
        for status in sorted({status for status, _title in WORDS.values()})
    },
    **{"414": ("too-large",), "417": ("malformed",), "431": ("too-large",)},
}
OF_ALL: Final = ("400", "401", "408", "413", "414", "431", "500", "503")  # what any page may answer, that needs a token
VERBS: Final[Mapping[str, str]] = {
    "follow": "Have a copy that loads from another worker (`from`), and follows its log; where `from` is null, have an "
    "empty copy. A copy that no operation asked for (`assignment` and `uid` empty) is a follower's.",
    "prepare": "Be ready for a split or a merge of it; the copy says so in `prepared`.",
    "fence": "Serve it no more. Answer when nothing more can be written to it, with its last position. Afterwards it "
    "may be served again only by an own read that says so, at an epoch above this one.",
    "promote": "A hint: have a look at the API server, you may be the one who serves it now.",
    "resume": "A hint: have a look at the API server, an operation was aborted.",
    "proxy": "Pass requests on to the worker that has it now (`to`).",
    "drop": "Have no copy of it any more.",
    "promise": "From now on, at this epoch, acknowledge no write that `follower` does not have.",
}
COPY: Final[Schema] = {
    "partition": "p-0",
    "range": {"start": "a", "end": "m"},
    "role": "primary",
    "epoch": 3,
    "fencedEpoch": 2,
    "position": 1042,
    "assignment": "",
    "uid": "",
    "prepared": "",
    "origin": "",
    "proxy": "",
    "followers": ["worker-1"],
    "load": {"keys": 12, "bytes": 480, "reads": 7, "writes": 42},
}
ORDER: Final[Schema] = {
    "assignment": "move-1",
    "uid": "0b0e7a2c-8a5f-4b6e-9a3e-0c7d1d2f3a4b",
    "keySpace": "default",
    "partition": "p-0",
    "range": {"start": "a", "end": "m"},
    "epoch": 3,
    "from": {"worker": "worker-0", "address": "http://10.0.0.1:8500"},
}
MISDIRECTED: Final[Schema] = {
    "type": f"{TYPE}not-mine",
    "title": WORDS["not-mine"][1],
    "status": 421,
    "detail": "worker worker-1 has it",
    "partition": "p-0",
    "primary": "worker-1",
    "address": "http://10.0.0.2:8500",
}


def document() -> Schema:
    """The document."""
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Worker of partitions",
            "version": VERSION,
            "summary": "What a program does that serves ranges of keys",
            "description": "A worker has copies of partitions, and serves those that its own reads of the Kubernetes "
            "API server give to it: the Partition first, then the Assignment that claims it. Calls are hints: they can "
            "take the right to serve away, but never give it. A call whose epoch is below the copy's is refused, and "
            "one that comes twice changes nothing. What was answered is durable. Refusals are problem documents (RFC "
            "9457); programs tell them apart by `type`.",
            "license": {"name": "GPL-3.0-or-later", "identifier": "GPL-3.0-or-later"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {}],
        "tags": [{"name": "keys"}, {"name": "control"}, {"name": "replication"}, {"name": "process"}],
        "paths": {**_keys(), **_control(), **_replication(), **_process()},
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Where the workers have a token."}
            },
            "headers": {
                "Retry-After": {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}},
                "WWW-Authenticate": {"schema": {"type": "string"}},
                "Muster-Partition": {"description": "Which has the key, percent-encoded", "schema": {"type": "string"}},
                "Muster-Epoch": {"description": "At which epoch", "schema": {"type": "integer", "minimum": 0}},
                "Muster-Worker": {"description": "Who answers", "schema": {"type": "string"}},
            },
            "responses": {status: _refusal(status, words) for status, words in STATUS_WORDS.items()},
            "schemas": schemas(),
        },
    }


# ---------------------------------------------------------------------------------------------- paths


def _keys() -> Schema:
    epoch: Schema = {
        "name": "Muster-Epoch",
        "in": "header",
        "description": "The highest epoch that the client has seen for this key. A worker that has a lower one, also "
        "after a look at the API server, answers 409.",
        "schema": {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER},
    }
    key: Schema = {
        "name": "key",
        "in": "path",
        "required": True,
        "description": "As many characters as the KeySpace says, out of its alphabet; percent-encoded",
        "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[!-~]+$"},
    }
    bound: Schema = {"type": "string", "maxLength": MAX_KEY, "default": ""}
    refusals = ("404", "409", "421")
    value = {"application/octet-stream": {"schema": {"type": "string", "format": "binary", "maxLength": MAX_VALUE}}}
    done: Schema = {"204": {"description": "It is durable", "headers": _told()}}
    listing = "The keys of one partition: of that in which `start`, or `after`, is. At its end (`next` is null, and "
    listing += "`range.end` is not empty) go on at `range.end`, where another worker may be the one to ask."
    one = [key, epoch]
    return {
        "/v1/keys/{key}": {
            "get": _operation(
                "getKey",
                "keys",
                "What is under a key",
                {"200": {"description": "The value", "headers": _told(), "content": value}},
                *refusals,
                parameters=one,
            ),
            "put": _operation(
                "putKey",
                "keys",
                "Put a value under a key",
                done,
                *refusals,
                "417",
                "504",
                parameters=one,
                body={"required": False, "description": "The value", "content": {"*/*": {}}},
            ),
            "delete": _operation(
                "deleteKey",
                "keys",
                "Have nothing under a key (any more)",
                done,
                *refusals,
                "504",
                parameters=one,
            ),
        },
        "/v1/keys": {
            "get": _operation(
                "listKeys",
                "keys",
                "Keys and values in order",
                {"200": {**json_of("Items", "A page, as it was at one moment"), "headers": _told()}},
                *refusals,
                description=listing,
                parameters=[
                    query("start", bound, "The first key"),
                    query("end", bound, "The key before which to stop; empty: at the end of the partition"),
                    query("after", bound, "The last key of the page before"),
                    query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000}, "How many"),
                    epoch,
                ],
            )
        },
    }


def _control() -> Schema:
    verb = {
        "name": "verb",
        "in": "path",
        "required": True,
        "description": "\n".join(f"- {name}: {text}" for name, text in VERBS.items()),
        "schema": {"enum": list(VERBS)},
    }
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}, "example": ORDER}}
    return {
        "/v1/worker": {
            "get": _operation(
                "getWorker",
                "control",
                "What the worker has, and how it is",
                {"200": json_of("Worker", "The worker")},
                parameters=[query("partition", {"type": "string", "maxLength": 253}, "Only of this one")],
            )
        },
        "/v1/control/{verb}": {
            "post": _operation(
                "callWorker",
                "control",
                "Do a step of an operation",
                {"200": json_of("Done", "It is done, or was before")},
                "404",
                "409",
                "417",
                parameters=[verb],
                body={"required": True, "content": content},
            )
        },
    }


def _replication() -> Schema:
    partition = {
        "name": "partition",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
    }
    follower = query("follower", {"type": "string", "maxLength": MAX_NAME, "default": ""}, "Who asks")
    number: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER, "default": 0}
    return {
        "/v1/replication/{partition}/snapshot": {
            "get": _operation(
                "getSnapshot",
                "replication",
                "A page of a partition's data",
                {"200": json_of("Snapshot", "A page")},
                "404",
                description="Pages are of different moments. The log makes them exact, from the `position` of the "
                "first page on, when it was replayed up to the `position` of the last.",
                parameters=[
                    partition,
                    query(
                        "after", {"type": "string", "maxLength": MAX_NAME, "default": ""}, "`next` of the page before"
                    ),
                    query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000}, "How many"),
                    follower,
                ],
            )
        },
        "/v1/replication/{partition}/log": {
            "get": _operation(
                "getLog",
                "replication",
                "What has changed since",
                {"200": json_of("Log", "Changes in order, none left out")},
                "404",
                "410",
                description="Who asks acknowledges all up to `after`: it is on its disk. Who does not say `epoch` is "
                "told to load anew. The answer is held until there is something new, but not longer than `wait`.",
                parameters=[
                    partition,
                    query("after", number, "The position up to which it is known"),
                    follower,
                    query("epoch", number, "That of the last answer, or of the snapshot"),
                    query("wait", {"type": "number", "minimum": 0, "maximum": 30, "default": 0}, "Seconds"),
                ],
            )
        },
    }


def _process() -> Schema:
    """Pages without a token."""
    fine = json_of("Fine", "It is")
    metrics = {"description": "Prometheus metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}
    described = {"description": "This document", "content": {"application/json": {"schema": {"type": "object"}}}}

    def page(name: str, summary: str, answer: Schema) -> Schema:
        operation = _operation(name, "process", summary, {"200": answer})
        del operation["responses"]["401"]
        return {"get": {**operation, "security": []}}

    return {
        "/healthz": page("isHealthy", "Whether the process works", fine),
        "/readyz": page("isReady", "Whether it has its Lease, and knows what it may serve", fine),
        "/metrics": page("getMetrics", "Figures for Prometheus", metrics),
        "/openapi.json": page("getDocument", "This document", described),
    }


def _operation(name: str, tag: str, summary: str, answers: Schema, *refusals: str, **more: Any) -> Schema:
    return operation(name, tag, summary, answers, (*OF_ALL, *refusals), **more)


def _told() -> Schema:
    names = ("Muster-Partition", "Muster-Epoch", "Muster-Worker")
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _refusal(status: str, words: tuple[str, ...]) -> Schema:
    said = {word: WORDS[word][1] for word in words}
    headers = {"401": "WWW-Authenticate", "503": "Retry-After"}
    return refusal(status, said, TYPE, headers, MISDIRECTED if status == "421" else None)


# ---------------------------------------------------------------------------------------------- schemas


def schemas() -> dict[str, Schema]:
    """What answers and bodies are."""
    text: Schema = {"type": "string"}
    name: Schema = {"type": "string", "maxLength": 253}
    number: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER}
    peer = {"type": ["object", "null"], "properties": {"worker": name, "address": text}, "required": ["worker"]}
    base64: Schema = {"type": "string", "contentEncoding": "base64"}
    whole = {"$ref": "#/components/schemas/Range"}
    entry = {"type": "array", "description": "Key, and value in base64", "minItems": 2, "maxItems": 2, "items": text}
    told = "Position, key, and value in base64; null: the key is gone"
    parts: Schema = {"type": ["integer", "string", "null"]}
    change = {"type": "array", "description": told, "minItems": 3, "maxItems": 3, "items": parts}
    words = {field: name for field in ("assignment", "uid", "prepared", "origin", "proxy")}
    numbers = dict.fromkeys(("epoch", "fencedEpoch", "position"), number)
    load = _object(dict.fromkeys(("keys", "bytes", "reads", "writes"), number))
    copy = {
        "partition": name,
        "range": whole,
        "role": {"enum": list(ROLES)},
        **numbers,
        **words,
        "followers": {"type": "array", "items": name, "description": "Who has to have a write, to be acknowledged"},
        "load": load,
    }
    order = {
        "assignment": name,
        "uid": name,
        "keySpace": name,
        "partition": {**name, "minLength": 1},
        "range": whole,
        "epoch": number,
        "from": peer,
        "to": peer,
        "results": {"type": "array", "items": {"type": "object"}},
        "follower": name,
    }
    worker = {
        "worker": name,
        "keySpace": name,
        "incarnation": {**text, "description": "Another one for each run of the process"},
        "session": {**number, "description": "Of its Lease; 0: it has none, and serves nothing"},
        "leaseValid": {"type": "boolean"},
        "leaving": {"type": "boolean"},
        "copies": {"type": "array", "items": {"$ref": "#/components/schemas/Copy"}},
    }
    items = {"type": "array", "items": _object({"key": text, "value": base64})}
    following = {"type": ["string", "null"]}
    page = {"items": items, "next": following, "partition": name, "range": whole, "epoch": number}
    log = {"entries": {"type": "array", "items": change}, "position": number, "epoch": number}
    snapshot = {"position": number, "epoch": number, "entries": {"type": "array", "items": entry}, "next": following}
    problem = {
        "type": text,
        "title": text,
        "status": {"type": "integer"},
        "detail": text,
        "field": text,
        "partition": name,
        "primary": name,
        "address": text,
        "epoch": number,
    }
    return {
        "Range": _object({"start": text, "end": {**text, "description": "Empty: above all keys"}}),
        "Copy": _object(copy, optional=("load",)),
        "Order": _object(order, optional=[field for field in order if field != "partition"], closed=False),
        "Done": _object({"copy": {"anyOf": [{"$ref": "#/components/schemas/Copy"}, {"type": "null"}]}}),
        "Worker": _object(worker),
        "Items": _object(page),
        "Snapshot": _object(snapshot),
        "Log": _object({**log, "role": {"enum": list(ROLES)}}),
        "Fine": _object({"ok": {"const": True}}),
        "Problem": _object(problem, optional=("field", "partition", "primary", "address", "epoch")),
    }


def _object(properties: Schema, *, optional: Any = (), closed: bool = True) -> Schema:
    required = [name for name in properties if name not in optional]
    schema: Schema = {"type": "object", "properties": properties, "required": required}
    return {**schema, "additionalProperties": False} if closed else schema

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that go over the allocator's interface, as JSON Schemas for openapi.py."""

from __future__ import annotations

from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Offer
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import (
    MAX_PARAMETERS,
    MAX_VALUE,
)
from muster.allocator.server_wire import TYPE, WORDS

Schema = dict[str, Any]

PHASES: Final = (
    "Pending", "Creating", "Ready", "Suspending", "Suspended", "Resuming", "Resetting", "Destroying", "Failed",
)  # fmt: skip


def schemas(offer: Offer | None) -> Schema:
    text, flag, count = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
    scalars = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
    named = _object(kind=text, name=text)
    endpoint = _object(service=text, port={"type": ["integer", "string", "null"]}, name=text)
    access = {"users": _list(text), "groups": _list(text)}
    instance = _object(
        name=text,
        owner={"type": "string", "description": "A user, as the API server knows them"},
        access=_object(**access),
        key={"type": "string", "description": "A hash of the Idempotency-Key that it was made by"},
        phase={"enum": list(PHASES)},
        message={"type": "string", "description": "What it waits for, or why it failed"},
        created=text,
        parameters=scalars,
        storage={"enum": list(decisions.STORAGE)},
        suspended=flag,
        resets={**count, "description": "How often it was reset"},
        attach=text,
        template={"type": "string", "description": "The digest of the template that it was made by"},
        objects=_list(named),
        endpoints=_list(endpoint),
    )
    event = _object(time=text, type=text, reason=text, message=text, object=text, count=count)
    disk = _object(name=text, size=text, created=text)
    disk["properties"]["instance"] = text
    return {
        "Instance": instance,
        "InstanceList": _object(items=_list(_ref("Instance")), **{"continue": text}),
        "WatchEvent": {
            "oneOf": [
                _object(type={"enum": ["ADDED", "MODIFIED", "DELETED"]}, instance=_ref("Instance")),
                _object(type={"const": "BOOKMARK"}, instance={"type": "null"}),
                _ref("Problem"),
            ]
        },
        "Wish": _wish(offer),
        "Reset": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"resets": {**count, "maximum": 2**31 - 2, "description": "The number that was seen"}},
        },
        "Nothing": {"type": "object", "additionalProperties": False},
        "Fine": _object(ok=flag),
        "Event": event,
        "EventList": _object(items={**_list(_ref("Event")), "maxItems": 100}),
        "Disk": disk,
        "DiskList": _object(items=_list(_ref("Disk"))),
        "Offer": _object(
            name=text,
            template=_object(digest=text, version=text, kinds=_list(text)),
            parameters={"type": "object", "additionalProperties": {"type": "object"}},
            limit={**count, "description": "Instances of one user, at most"},
            used=count,
            global_limit={**count, "description": "Instances of all users, at most"},
            has_disk=flag,
            caller=_object(name=text, groups=_list(text), is_administrator=flag),
        ),
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": {"enum": sorted(TYPE + word for word in WORDS)},
                "title": text,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": text,
                "field": {"type": "string", "description": "Which value is malformed"},
                "limit": count,
                "used": count,
                "scope": {"enum": ["owner", "global"]},
            },
        },
    }


def _wish(offer: Offer | None) -> Schema:
    names = {
        "type": "array",
        "maxItems": decisions.MAX_SHARED,
        "items": {"type": "string", "minLength": 1, "maxLength": decisions.MAX_NAME // 4, "pattern": r"^[^\u0000]+$"},
    }
    value = {"type": ["string", "number", "boolean"], "maxLength": MAX_VALUE}
    parameters: Schema = {"type": "object", "maxProperties": MAX_PARAMETERS, "additionalProperties": value}
    if offer:
        declared = offer.template.parameters
        needed = [name for name, parameter in declared.items() if parameter.default is None]
        schemas = {name: decisions.schema_of(parameter) for name, parameter in declared.items()}
        parameters = {"type": "object", "additionalProperties": False, "properties": schemas, "required": needed}
    access = {"type": "object", "additionalProperties": False, "properties": {"users": names, "groups": names}}
    attach = {"type": "string", "maxLength": 253, "description": "A disk that was kept"}
    storage = {"enum": list(decisions.STORAGE), "description": "What becomes of its disks when it is destroyed"}
    properties = {"parameters": parameters, "access": access, "storage": storage, "attach": attach}
    wish: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    if parameters.get("required"):
        wish["required"] = ["parameters"]
    return wish


def _object(**properties: Schema) -> Schema:
    """All of them are there. More may be, in a later version."""
    return {"type": "object", "required": list(properties), "properties": dict(properties)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}

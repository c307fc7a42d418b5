# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a template lets its users choose: parameters, each with a small part of JSON Schema.

Rules
1. A parameter is a scalar: string, integer, number or boolean. There are no others, so a value has no structure.
2. A keyword that we don't know, or that says nothing about the type, is refused by its name: a schema that is only half
   understood would let in what it was written to keep out.
3. A value that can't be in a Kubernetes object is refused, never changed into another one: NUL, half a surrogate pair,
   more than 4 KiB, a number beyond 64 bits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_pattern import (
    Pattern,
    compile_pattern,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

STRING, INTEGER, NUMBER, BOOLEAN = "string", "integer", "number", "boolean"
TYPES: Final = (STRING, INTEGER, NUMBER, BOOLEAN)
BUILT_IN: Final = ("Name", "AccessList", "MountName", "CreatorInfo", "OwnerHash", "Version")  # names of every template
KEYWORDS: Final[Mapping[str, tuple[str, ...]]] = {  # and the types that each is for
    "type": TYPES,
    "default": TYPES,
    "enum": TYPES,
    "description": TYPES,
    "minimum": (INTEGER, NUMBER),
    "maximum": (INTEGER, NUMBER),
    "minLength": (STRING,),
    "maxLength": (STRING,),
    "pattern": (STRING,),
}
MAX_PARAMETERS: Final = 64
MAX_CHOICES: Final = 256  # of an enum
MAX_VALUE: Final = 4096  # bytes of a value, in UTF-8
WHOLE: Final = range(-(2**63), 2**63)

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_ALLOWED: Final = {
    STRING: "give text",
    INTEGER: "give a whole number, without quotes",
    NUMBER: "give a number, without quotes",
    BOOLEAN: "give true or false, without quotes",
}

Scalar = str | int | float | bool  # pylint: disable=unsupported-binary-operation


class Parameter(NamedTuple):
    """What a user may say. `default` None: there is none, and a value has to be given. Lengths are in characters."""

    name: str
    type: str = STRING
    default: Scalar | None = None
    enum: tuple[Scalar, ...] = ()
    minimum: int | float | None = None
    maximum: int | float | None = None
    min_length: int = 0
    max_length: int | None = None
    pattern: Pattern | None = None
    description: str = ""

    @property
    def is_free_text(self) -> bool:
        """Whether a user decides on its characters."""
        return self.type == STRING and not self.enum


# ---------------------------------------------------------------------------------------------------------------------
# Values


def check_values(parameters: Mapping[str, Parameter], given: Any, where: str = "parameters") -> dict[str, Scalar]:
    """The value of each parameter, defaults filled in. Raises Malformed with the field `where.NAME`."""
    if not isinstance(given, Mapping):
        raise Malformed(where, given, "give a mapping from names to values")
    known = ", ".join(sorted(parameters)) or "none at all"
    for name in given:
        if name not in parameters:
            raise Malformed(where, name, f"leave it out: the template has the parameters {known}")
    values = {}
    for name, parameter in parameters.items():
        field = f"{where}.{name}"
        if name in given:
            values[name] = check_value(parameter, given[name], field)
        elif parameter.default is not None:
            values[name] = parameter.default
        else:
            raise Malformed(field, None, f"{_ALLOWED[parameter.type]}: the template has no default for it")
    return values


def check_value(parameter: Parameter, value: Any, where: str) -> Scalar:
    """The value, if it may be the parameter's. Raises Malformed."""
    checked = _check_type(parameter.type, value, where)
    if parameter.enum and checked not in parameter.enum:
        raise Malformed(where, value, f"give one of {', '.join(map(spell_value, parameter.enum))}")
    if isinstance(checked, str):
        _check_text(parameter, checked, where)
    else:
        if parameter.minimum is not None and checked < parameter.minimum:
            raise Malformed(where, value, f"give at least {parameter.minimum}")
        if parameter.maximum is not None and checked > parameter.maximum:
            raise Malformed(where, value, f"give at most {parameter.maximum}")
    return checked


def _check_type(wanted: str, value: Any, where: str) -> Scalar:
    match wanted, value:
        case "string", str():
            return check_text(value, where)
        case "boolean", bool():
            return value
        case ("integer", int()) | ("number", int()) if not isinstance(value, bool):
            return check_whole(value, where)
        case "number", float():
            if not math.isfinite(value):
                raise Malformed(where, value, "give a finite number")
            return value
    raise Malformed(where, value, _ALLOWED[wanted])


def _check_text(parameter: Parameter, text: str, where: str) -> None:
    if len(text) < parameter.min_length:
        raise Malformed(where, text, f"give at least {parameter.min_length} characters")
    if parameter.max_length is not None and len(text) > parameter.max_length:
        raise Malformed(where, text, f"give at most {parameter.max_length} characters")
    if parameter.pattern and not parameter.pattern.matches(text):
        raise Malformed(where, text, f"give text that matches {parameter.pattern.text}")


def check_text(text: str, where: str, limit: int = MAX_VALUE) -> str:
    """The text, if it can be in a Kubernetes object. Raises Malformed."""
    if len(text) > limit:  # before it is looked at
        raise Malformed(where, f"{text[:50]}… ({len(text)} characters)", f"give at most {limit} bytes of UTF-8")
    if "\0" in text:
        raise Malformed(where, text, "leave NUL out: no program can be given it")
    if _SURROGATE.search(text):
        raise Malformed(where, text, "leave lone surrogates out: UTF-8 has no form for them")
    if len(text.encode()) > limit:
        raise Malformed(where, text, f"give at most {limit} bytes of UTF-8")
    return text


def check_whole(number: int, where: str) -> int:
    """The number, if it has at most 64 bits, as a Kubernetes object's have. Raises Malformed."""
    if number not in WHOLE:  # Python spells no number of more than 4,300 digits
        raise Malformed(where, f"a number of {number.bit_length()} bits", "give a number of at most 64 bits")
    return number


def from_text(parameter: Parameter, text: str, where: str) -> Scalar:
    """The value that was meant by what stands on a command line, or in a form. Raises Malformed."""
    match parameter.type, text:
        case "boolean", "true" | "false":
            return text == "true"
        case "integer", _other if re.fullmatch(r"-?[0-9]{1,19}", text):
            return check_value(parameter, int(text), where)
        case "number", _other if re.fullmatch(r"-?[0-9]{1,19}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?", text):
            return check_value(parameter, json.loads(_without_zeros(text)), where)
    return check_value(parameter, text, where)


def spell_value(value: Scalar) -> str:
    """A value as text: as JSON has it, but for text itself."""
    return value if isinstance(value, str) else json.dumps(value)


def _without_zeros(text: str) -> str:
    """JSON has no leading zeros."""
    return re.sub(r"^(-?)0+(?=[0-9])", r"\1", text)


# ---------------------------------------------------------------------------------------------------------------------
# Declarations


def parse_parameters(value: Any, where: str) -> dict[str, Parameter]:
    """Of a mapping from names to schemas; None: there are none. Raises Malformed."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Malformed(where, value, "give a mapping from names to schemas")
    if len(value) > MAX_PARAMETERS:
        raise Malformed(where, f"a mapping of {len(value)}", f"give at most {MAX_PARAMETERS} parameters")
    return {name: _parse_parameter(name, schema, where) for name, schema in value.items()}


def _parse_parameter(name: Any, schema: Any, where: str) -> Parameter:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Malformed(where, name, "name parameters by letters, digits and _, at most 63, a letter first")
    if name in BUILT_IN:
        raise Malformed(where, name, f"take another name: each template has {', '.join(BUILT_IN)}")
    where = f"{where}.{name}"
    if not isinstance(schema, Mapping):
        raise Malformed(where, schema, "give a mapping such as {type: string, maxLength: 63}")
    kind = schema.get("type")
    if kind not in TYPES:
        raise Malformed(f"{where}.type", kind, f"give one of {', '.join(TYPES)}")
    for keyword in schema:
        if keyword not in KEYWORDS:
            raise Malformed(f"{where}.{keyword}", schema[keyword], f"leave it out: there are {', '.join(KEYWORDS)}")
        if kind not in KEYWORDS[keyword]:
            fitting = " and ".join(KEYWORDS[keyword])
            raise Malformed(f"{where}.{keyword}", schema[keyword], f"leave it out: it is for {fitting}, not for {kind}")
    return _with_default(_bounded(name, str(kind), schema, where), schema, where)


def _bounded(name: str, kind: str, schema: Mapping[str, Any], where: str) -> Parameter:
    """The parameter, without its default."""
    description = schema.get("description", "")
    if not isinstance(description, str):
        raise Malformed(f"{where}.description", description, "give text")
    minimum, maximum = (_bound(kind, schema, key, where) for key in ("minimum", "maximum"))
    if minimum is not None and maximum is not None and minimum > maximum:
        raise Malformed(f"{where}.maximum", maximum, f"give at least the minimum, {minimum}")
    least, most = (_length(schema, key, where) for key in ("minLength", "maxLength"))
    if least is not None and most is not None and least > most:
        raise Malformed(f"{where}.maxLength", most, f"give at least minLength, {least}")
    pattern = compile_pattern(schema["pattern"], f"{where}.pattern") if "pattern" in schema else None
    return Parameter(
        name,
        kind,
        enum=_choices(kind, schema["enum"], f"{where}.enum") if "enum" in schema else (),
        minimum=minimum,
        maximum=maximum,
        min_length=least or 0,
        max_length=most,
        pattern=pattern,
        description=check_text(description, f"{where}.description"),
    )


def _with_default(parameter: Parameter, schema: Mapping[str, Any], where: str) -> Parameter:
    for number, choice in enumerate(parameter.enum):
        check_value(parameter, choice, f"{where}.enum[{number}]")
    if "default" not in schema:
        return parameter
    return parameter._replace(default=check_value(parameter, schema["default"], f"{where}.default"))


def _bound(kind: str, schema: Mapping[str, Any], key: str, where: str) -> int | float | None:
    if key not in schema:
        return None
    bound = _check_type(kind, schema[key], f"{where}.{key}")
    if not isinstance(bound, int | float):
        raise AssertionError("by KEYWORDS no other type has bounds")
    return bound


def _length(schema: Mapping[str, Any], key: str, where: str) -> int | None:
    if key not in schema:
        return None
    length = schema[key]
    if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= MAX_VALUE:
        raise Malformed(f"{where}.{key}", length, f"give a whole number from 0 to {MAX_VALUE}")
    return length


def _choices(kind: str, value: Any, where: str) -> tuple[Scalar, ...]:
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MAX_CHOICES:
        raise Malformed(where, value, f"give a list of 1 to {MAX_CHOICES} values")
    choices = tuple(_check_type(kind, each, f"{where}[{number}]") for number, each in enumerate(value))
    if len(set(choices)) < len(choices):
        raise Malformed(where, value, "name each value once")
    return choices

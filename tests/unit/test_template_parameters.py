# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters of templates and their patterns: what is declared, what may be given, what is refused by which name."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import template_parameters as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_pattern import (
    MAX_STATES,
    compile_pattern,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed


def declared(**schema: Any) -> decisions.Parameter:
    return decisions.parse_parameters({"a": schema}, "parameters")["a"]


def given(value: Any, **schema: Any) -> Any:
    return decisions.check_values({"a": declared(**schema)}, {"a": value})["a"]


# ------------------------------------------------------------------------------------------ declarations


def test_what_is_declared() -> None:
    found = declared(type="string", default="x", minLength=1, maxLength=2, pattern="^x", description="what it is")
    assert (found.default, found.min_length, found.max_length, found.description) == ("x", 1, 2, "what it is")
    assert found.pattern is not None and found.pattern.text == "^x"
    number = declared(type="number", minimum=0, maximum=1.5, enum=[0, 1.5], default=0)
    assert (number.minimum, number.maximum, number.enum, number.default) == (0, 1.5, (0, 1.5), 0)
    assert declared(type="boolean") == decisions.Parameter("a", "boolean")
    assert decisions.parse_parameters(None, "x") == decisions.parse_parameters({}, "x") == {}


@pytest.mark.parametrize(
    ("schema", "field", "said"),
    [
        ({}, "a.type", "give one of string, integer, number, boolean"),
        ({"type": "array"}, "a.type", "give one of"),
        ({"type": ["string"]}, "a.type", "give one of"),
        ("string", "a", "give a mapping"),
        ({"type": "string", "format": "uri"}, "a.format", "leave it out: there are type, default, enum"),
        ({"type": "string", "minimum": 1}, "a.minimum", "it is for integer and number, not for string"),
        ({"type": "integer", "maxLength": 1}, "a.maxLength", "it is for string, not for integer"),
        ({"type": "boolean", "pattern": "x"}, "a.pattern", "it is for string, not for boolean"),
        ({"type": "integer", "minimum": "1"}, "a.minimum", "give a whole number"),
        ({"type": "integer", "minimum": 1.5}, "a.minimum", "give a whole number"),
        ({"type": "integer", "minimum": True}, "a.minimum", "give a whole number"),
        ({"type": "integer", "minimum": None}, "a.minimum", "give a whole number"),
        ({"type": "number", "maximum": float("nan")}, "a.maximum", "finite"),
        ({"type": "integer", "minimum": 2, "maximum": 1}, "a.maximum", "at least the minimum, 2"),
        ({"type": "string", "minLength": 2, "maxLength": 1}, "a.maxLength", "at least minLength, 2"),
        ({"type": "string", "maxLength": -1}, "a.maxLength", "from 0 to 4096"),
        ({"type": "string", "maxLength": 4097}, "a.maxLength", "from 0 to 4096"),
        ({"type": "string", "minLength": True}, "a.minLength", "from 0 to 4096"),
        ({"type": "string", "minLength": "1"}, "a.minLength", "from 0 to 4096"),
        ({"type": "string", "pattern": "("}, "a.pattern", "close the group"),
        ({"type": "string", "pattern": 1}, "a.pattern", "give a regular expression"),
        ({"type": "string", "description": 1}, "a.description", "give text"),
        ({"type": "string", "description": "\0"}, "a.description", "leave NUL out"),
        ({"type": "string", "enum": []}, "a.enum", "1 to 256"),
        ({"type": "string", "enum": None}, "a.enum", "1 to 256"),
        ({"type": "string", "enum": "ab"}, "a.enum", "1 to 256"),
        ({"type": "string", "enum": ["a", "a"]}, "a.enum", "each value once"),
        ({"type": "string", "enum": ["a", 1]}, "a.enum[1]", "give text"),
        ({"type": "integer", "enum": [1, 2], "maximum": 1}, "a.enum[1]", "at most 1"),
        ({"type": "string", "enum": ["a", "b\0"]}, "a.enum[1]", "leave NUL out"),
        ({"type": "string", "default": None}, "a.default", "give text"),
        ({"type": "string", "default": 1}, "a.default", "give text"),
        ({"type": "integer", "default": 3, "maximum": 2}, "a.default", "at most 2"),
        ({"type": "string", "default": "c", "enum": ["a"]}, "a.default", "give one of a"),
        ({"type": "string", "default": "", "minLength": 1}, "a.default", "at least 1"),
        ({"type": "string", "default": "x", "pattern": "^y"}, "a.default", "matches ^y"),
    ],
)
def test_a_schema_that_is_malformed_is_named(schema: Any, field: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        decisions.parse_parameters({"a": schema}, "p")
    assert caught.value.field == f"p.{field}" and said in caught.value.remedy


@pytest.mark.parametrize("name", ["", "1a", "a-b", "a.b", "a b", "{{a}}", "é", "x" * 64, 1, None, "a\n"])
def test_a_name_that_is_none(name: Any) -> None:
    with pytest.raises(Malformed, match=r"^p is .*letters, digits and _"):
        decisions.parse_parameters({name: {"type": "string"}}, "p")


@pytest.mark.parametrize("name", decisions.BUILT_IN)
def test_a_name_that_is_taken(name: str) -> None:
    with pytest.raises(Malformed, match=f"^p is '{name}': take another name"):
        decisions.parse_parameters({name: {"type": "string"}}, "p")


def test_there_are_not_too_many() -> None:
    many = {f"a{number}": {"type": "string"} for number in range(65)}
    with pytest.raises(Malformed, match="at most 64 parameters"):
        decisions.parse_parameters(many, "p")
    many.popitem()
    assert len(decisions.parse_parameters(many, "p")) == 64


# ------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, ""),
        ({"type": "string"}, "é" * 2048),
        ({"type": "string", "maxLength": 2}, "é😀"),
        ({"type": "string", "enum": ["a", "b"]}, "b"),
        ({"type": "string", "pattern": "b$"}, "ab"),
        ({"type": "integer"}, -(2**63)),
        ({"type": "integer"}, 2**63 - 1),
        ({"type": "integer", "minimum": 1, "maximum": 1}, 1),
        ({"type": "number"}, 1),
        ({"type": "number"}, 1.5),
        ({"type": "number", "enum": [1.5, 2]}, 2),
        ({"type": "boolean"}, True),
        ({"type": "boolean", "enum": [False]}, False),
    ],
)
def test_what_may_be_given(schema: Any, value: Any) -> None:
    found = given(value, **schema)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "string"}, 1, "give text"),
        ({"type": "string"}, None, "give text"),
        ({"type": "string"}, ["a"], "give text"),
        ({"type": "string"}, {"a": "b"}, "give text"),
        ({"type": "string"}, "a" * 4097, "at most 4096 bytes"),
        ({"type": "string"}, "é" * 2049, "at most 4096 bytes"),
        ({"type": "string"}, "a\0", "leave NUL out"),
        ({"type": "string"}, "\ud83d", "lone surrogates"),
        ({"type": "string", "enum": ["a", "b"]}, "c", "give one of a, b"),
        ({"type": "string", "minLength": 2}, "é", "at least 2 characters"),
        ({"type": "string", "maxLength": 2}, "abc", "at most 2 characters"),
        ({"type": "string", "pattern": "^[a-z]+$"}, "ab\n", "matches ^[a-z]+$"),
        ({"type": "integer"}, "1", "give a whole number, without quotes"),
        ({"type": "integer"}, 1.0, "give a whole number"),
        ({"type": "integer"}, True, "give a whole number"),
        ({"type": "integer"}, 2**63, "64 bits"),
        pytest.param({"type": "integer"}, 1 << 100_000, "64 bits", id="a number that Python does not spell"),
        ({"type": "integer", "minimum": 1}, 0, "at least 1"),
        ({"type": "integer", "maximum": 1}, 2, "at most 1"),
        ({"type": "integer", "enum": [0, 1]}, 2, "give one of 0, 1"),
        ({"type": "number"}, "1.5", "give a number"),
        ({"type": "number"}, False, "give a number"),
        ({"type": "number"}, float("inf"), "finite"),
        ({"type": "number"}, float("nan"), "finite"),
        ({"type": "number", "maximum": 1.5}, 1.6, "at most 1.5"),
        ({"type": "boolean"}, 1, "give true or false"),
        ({"type": "boolean"}, "true", "give true or false, without quotes"),
        ({"type": "boolean", "enum": [False]}, True, "give one of false"),
    ],
)
def test_what_may_not_be_given(schema: Any, value: Any, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        given(value, **schema)
    assert caught.value.field == "parameters.a" and said in caught.value.remedy


def test_a_missing_value_is_the_default_or_asked_for() -> None:
    assert decisions.check_values({"a": declared(type="integer", default=0)}, {}) == {"a": 0}
    with pytest.raises(Malformed, match=r"^parameters\.a is None: give a whole number.*no default"):
        decisions.check_values({"a": declared(type="integer")}, {})


@pytest.mark.parametrize("name", ["b", "A", "Name", "a ", 1, None])
def test_an_unknown_parameter_is_named(name: Any) -> None:
    with pytest.raises(Malformed, match=r"^parameters is .*leave it out: the template has the parameters a$") as caught:
        decisions.check_values({"a": declared(type="string")}, {"a": "x", name: "y"})
    assert caught.value.value == name


@pytest.mark.parametrize("value", [None, [], "a", 1])
def test_parameters_are_a_mapping(value: Any) -> None:
    with pytest.raises(Malformed, match=r"^parameters is .*give a mapping"):
        decisions.check_values({}, value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", "1", "1"), ("string", "", ""), ("string", "true", "true"), ("integer", "1", 1), ("integer", "0", 0),
        ("integer", "-07", -7), ("number", "1", 1), ("number", "1.5", 1.5), ("number", "-01.50", -1.5),
        ("number", "1e3", 1000.0), ("number", "00", 0), ("boolean", "true", True), ("boolean", "false", False),
    ],
)  # fmt: skip
def test_text_of_a_command_line(kind: str, text: str, value: Any) -> None:
    found = decisions.from_text(declared(type=kind), text, "--param a")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("integer", ""), ("integer", "1.0"), ("integer", "1_0"), ("integer", "+1"), ("integer", "0x1"),
        ("integer", " 1"),
        ("integer", "9" * 19), ("integer", "9" * 5000), ("integer", "\u0661"), ("number", "1e999"), ("number", "nan"),
        ("number", "."), ("number", "1."), ("number", "Infinity"), ("boolean", "True"), ("boolean", "1"),
        ("boolean", "yes"), ("string", "\0"),
    ],
)  # fmt: skip
def test_text_that_means_nothing(kind: str, text: str) -> None:
    with pytest.raises(Malformed, match=r"^--param a is"):
        decisions.from_text(declared(type=kind), text, "--param a")


@pytest.mark.parametrize(("value", "text"), [("a", "a"), (1, "1"), (1.0, "1.0"), (True, "true"), (False, "false")])
def test_values_as_text(value: Any, text: str) -> None:
    assert decisions.spell_value(value) == text


# ------------------------------------------------------------------------------------------ patterns


@pytest.mark.parametrize(
    ("pattern", "fits", "misses"),
    [
        ("", ["", "a"], []),
        ("a", ["a", "xax"], ["", "b"]),
        ("^a$", ["a"], ["", "aa", "a\n", "\na"]),
        ("^a|b$", ["ax", "xb"], ["xa", "bx"]),
        ("^(a|b)$", ["a", "b"], ["ab", ""]),
        ("^(?:a|b|)$", ["a", "b", ""], ["ab"]),
        ("^a*$", ["", "aaa"], ["ab"]),
        ("^a+$", ["a", "aaa"], [""]),
        ("^a?$", ["", "a"], ["aa"]),
        ("^a{2}$", ["aa"], ["a", "aaa"]),
        ("^a{2,}$", ["aa", "aaaa"], ["a"]),
        ("^a{1,2}$", ["a", "aa"], ["", "aaa"]),
        ("^a{0}b$", ["b"], ["ab"]),
        ("^(ab){2}c*?$", ["abab", "ababcc"], ["ab"]),
        ("^(a*)*$", ["", "aaa"], ["b"]),
        ("^(a?){3}$", ["", "aaa"], ["aaaa"]),
        ("^[a-c]$", ["a", "c"], ["d", "-", ""]),
        ("^[^a-c]$", ["d", "\n", "😀"], ["a", ""]),
        ("^[-a]$", ["-", "a"], ["b"]),
        ("^[a-]$", ["-", "a"], ["b"]),
        (r"^[a\-c]$", ["-", "a", "c"], ["b"]),
        (r"^[\]\\^]$", ["]", "\\", "^"], ["a"]),
        (r"^[\d_]+$", ["0_9"], ["a", "٣"]),
        (r"^\w+$", ["aZ_0"], ["é", "-", ""]),
        (r"^\W$", ["é", "-"], ["a"]),
        (r"^\s$", [" ", "\t", "\n", "\u2028", "\ufeff", "\u00a0"], ["a", "\u200b"]),
        (r"^\S\D$", ["ab"], ["a1", " b"]),
        ("^.$", ["a", "😀", "\u0085"], ["", "\n", "\r", "\u2028", "ab"]),
        (r"^\t\n\v\f\r$", ["\t\n\v\f\r"], []),
        (r"^\x41\u00e9$", ["Aé"], ["aé"]),
        (r"^\.\*\+\?\(\)\[\]\{\}\|\^\$\\\/\-$", [".*+?()[]{}|^$\\/-"], []),
        ("é", ["café"], ["cafe\u0301"]),
        ("a^b", [], ["ab", "a\nb"]),
        ("a$b", [], ["ab", "a\nb"]),
        ("(^a|b)c", ["ac", "xbc"], ["xac"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], misses: list[str]) -> None:
    compiled = compile_pattern(pattern, "p")
    assert [value for value in fits if not compiled.matches(value)] == []
    assert [value for value in misses if compiled.matches(value)] == []


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(", "close the group by )"),
        (")", "close no group that is not open"),
        ("a)b", "close no group that is not open"),
        ("(?=a)", "leave lookaround, names and flags out"),
        ("(?!a)", "leave lookaround, names and flags out"),
        ("(?<=a)", "leave lookaround, names and flags out"),
        ("(?<n>a)", "leave lookaround, names and flags out"),
        ("(?i)a", "leave lookaround, names and flags out"),
        (r"(a)\1", r"leave \1 out"),
        (r"\b", r"leave \b out"),
        (r"\k", r"leave \k out"),
        (r"\p{L}", r"leave \p out"),
        (r"\A", r"leave \A out"),
        ("\\", "leave \\ out"),
        ("*a", "say what is to be repeated"),
        ("a|*", "say what is to be repeated"),
        ("{1}", "say what is to be repeated"),
        ("^*", "repeat neither ^ nor $"),
        ("a**", "put what is repeated twice into a group"),
        ("a{1}{2}", "put what is repeated twice into a group"),
        ("a{", "write {2}, {2,} or {2,5}"),
        ("a{x}", "write {2}, {2,} or {2,5}"),
        ("a{1", "close the count by }"),
        ("a{1,x}", "close the count by }"),
        ("a{2,1}", "the smaller count first"),
        ("a{12345}", f"count to at most {MAX_STATES}"),
        ("a}", r"write \}"),
        ("a]", r"write \]"),
        ("[", "close the class by ]"),
        ("[a", "close the class by ]"),
        ("[]", "at least one character"),
        ("[^]", "at least one character"),
        ("[b-a]", "the smaller end first"),
        (r"[a-\d]", "write ranges such as a-z"),
        (r"[\W]", "not into brackets"),
        (r"\x4", "write 2 hexadecimal digits"),
        (r"\u00g0", "write 4 hexadecimal digits"),
        ("a" * 257, "at most 256 characters"),
        ("a{401}", f"more than {MAX_STATES} parts"),
        ("(a{100}){100}", f"more than {MAX_STATES} parts"),
        ("((((a{9999}){9999}){9999}){9999}){9999}", f"more than {MAX_STATES} parts"),
        ("(" * 30 + ")" * 30, "at most 20 groups"),
    ],
)
def test_a_pattern_that_is_malformed_is_named(pattern: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        compile_pattern(pattern, "a.pattern")
    assert caught.value.field == "a.pattern" and said in caught.value.remedy


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "^(a*)*b$", "^a*a*a*a*a*a*a*a*b$", "^(.{0,30}){0,6}b$"])
def test_no_value_keeps_it_busy(pattern: str) -> None:
    """The work is counted: so many sets of states are made, not more than the value has characters."""
    compiled = compile_pattern(pattern, "p")
    made = []
    closure = type(compiled)._closure

    class Counted(type(compiled)):  # type: ignore[misc]
        def _closure(self, *arguments: Any, **more: Any) -> frozenset[int]:
            found: frozenset[int] = closure(self, *arguments, **more)
            made.append(len(found))
            return found

    counted = Counted(compiled.text, compiled.states, compiled.bounds)
    assert not counted.matches("a" * 4096 + "!")
    assert len(made) < 500 and max(made) <= len(compiled.states)

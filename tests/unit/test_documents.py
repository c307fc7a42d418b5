# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML and JSON as plain values: what is read, and what is refused before it takes memory, or the process."""

from __future__ import annotations

import resource
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.documents import (
    LIMIT,
    MAX_DEPTH,
    MAX_NODES,
    MAX_TEXT,
    parse_yaml,
    parse_yaml_all,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{one}: &{one} [{','.join([f'*{before}'] * 9)}]\n" for before, one in pairwise(LETTERS)
)
MERGES = "a: &a {x: 1, y: 2}\n" + "".join(
    f"{one}: &{one} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n" for before, one in pairwise(LETTERS)
)
DEEP = {
    "lists": "[" * 100_000,
    "mappings": "{a: " * 50_000,
    "block lists": "- " * 100_000,
    "keys": "? " * 100_000,
    "JSON": '{"a":' * 50_000,
}
BOTH = pytest.mark.parametrize("parse", [parse_yaml, parse_yaml_all])
Parse = Callable[[str, str], Any]


@pytest.mark.parametrize(
    ("text", "documents"),
    [
        ("", []),
        ("# nothing\n", []),
        ("a: 1", [{"a": 1}]),
        ("---\na: 1\n---\n---\n- b\n...\n", [{"a": 1}, None, ["b"]]),
        ("{a: 1}", [{"a": 1}]),
        ('{"a":\t1}', [{"a": 1}]),
        ('{"a": "\\ud83d\\ude00"}', [{"a": "😀"}]),
        ('["{{.Name}}"]', [["{{.Name}}"]]),
        ("a: &x {b: 1}\nc: *x\nd: *x", [{"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1}}]),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", [{"a": {"b": 1}, "c": {"b": 1, "d": 2}}]),
        ("a: {b: 1}\nc: {b: 1}", [{"a": {"b": 1}, "c": {"b": 1}}]),
        ("- &a [b]\n- *a", [[["b"], ["b"]]]),
    ],
)
def test_what_is_read(text: str, documents: list[Any]) -> None:
    assert parse_yaml_all(text, "t.yml") == documents


def test_one_document() -> None:
    assert parse_yaml("", "x") is None
    assert parse_yaml("a: 1\na: 2", "x") == {"a": 2}  # as it was before there were several
    with pytest.raises(Malformed, match="x is '2 documents': give one YAML document"):
        parse_yaml("a\n---\nb", "x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: {{.Name}}", r'a placeholder stands in quotes: "{{.Name}}" \(line 1, column 8\)'),
        ('{"a": {{.CreatorInfo}}}', "a placeholder stands in quotes"),
        ("? [a]\n: b", "give text as the key"),
        ("a: 1\nb: 2\na: 3", r"'a': write each key once \(line 3, column 1\)"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c': write each key once"),
        ("&a [*a]", "let an alias stand for what is complete"),
        ("a: &x 1\n---\nb: *x", "let an alias stand for what is complete"),
        ("a: &x 1\nb: &x 2", "found duplicate anchor"),
        ("a: *nobody", "let an alias stand for what is complete"),
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: !mine x", "could not determine a constructor"),
        ("a: 2026-99-99", "month must be in"),
        ("a: [", "give valid YAML"),
        ("a: \x01", "give valid YAML"),
        ("[1" + "0" * 5000 + "]", "give valid JSON"),
        (LAUGHS, "more than 20,000 values"),
        (MERGES, "more than 20,000 values"),
        ("[" + "1," * MAX_NODES + "1]", "20,000 values"),
        ("- 1\n" * MAX_NODES, "20,000 values"),
        ("x" * (MAX_TEXT + 1), "at most 262,144 characters"),
        ("[" + " " * MAX_TEXT + "]", "at most 262,144 characters"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(Malformed, match=said) as caught:
        parse_yaml_all(text, "t.yml")
    assert caught.value.field == "t.yml" and len(str(caught.value)) < 1000


@BOTH
@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_depth_ends_no_process(text: str, parse: Parse) -> None:
    """libyaml would take the machine's stack: 100,000 brackets were a segmentation fault."""
    with pytest.raises(Malformed, match=r"deep|text as the key|262,144"):
        parse(text, "x")


@BOTH
@pytest.mark.parametrize("template", ["{open}x{close}", "a: &a {open}x{close}\nb: [*a]"])
def test_the_bound_of_depth(template: str, parse: Parse) -> None:
    """Lists within lists; in the second, those of an alias stand one deeper."""
    levels = MAX_DEPTH - 1 if template.startswith("{") else MAX_DEPTH - 3
    assert parse(template.format(open="[" * levels, close="]" * levels), "x")
    with pytest.raises(Malformed, match=f"nest values at most {MAX_DEPTH} deep"):
        parse(template.format(open="[" * (levels + 1), close="]" * (levels + 1)), "x")


def test_the_bound_of_depth_is_that_of_json() -> None:
    text = "[" * (MAX_DEPTH - 1) + "1" + "]" * (MAX_DEPTH - 1)
    assert parse_yaml_all(text, "x") == [parse_yaml(text, "x")]
    with pytest.raises(Malformed, match=f"nest values at most {MAX_DEPTH} deep"):
        parse_yaml_all(f"[{text}]", "x")


@BOTH
@pytest.mark.parametrize("text", [LAUGHS, MERGES], ids=["aliases", "merges"])
def test_aliases_are_counted_before_they_are_anything(text: str, parse: Parse) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Malformed, match="values"):
        parse(text, "x")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB; they stand for 10**24 values


def test_what_is_long_is_read_where_it_is_one_document() -> None:
    text = "- a\n" * (2 * MAX_NODES)
    assert len(parse_yaml(text, "x")) == 2 * MAX_NODES
    with pytest.raises(Malformed, match="at most 4,194,304 characters"):
        parse_yaml(" " * LIMIT + "a", "x")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any template, any value: the tree keeps its shape, each text is what the oracle says, and errors are ours."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import jsonschema
import yaml
from hypothesis import assume, event, given

from ansible_collections.muster.coordination.plugins.module_utils.decisions import template as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import Access, Facts
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_import import import_template
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import parse_parameters
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_pattern import compile_pattern
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import (
    KINDS,
    LEVELS,
    Policy,
    pod_security,
    violations,
)
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml_all
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.injections import (
    expanded,
    is_refused,
    put_in,
    shape,
)
from ansible_collections.muster.coordination.tests.support.pod_specs import CHANGES, NEVER_ASKED, changed

HANDLE = "notes-0123456789"
FACTS = Facts(HANDLE, "alice", "2bd806c97f0e00af", Access(("bob",)), "users/alice")
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
VARIABLES = {"HOME": "/home", "SECRET": "told", "A": "told"}
SCHEMAS = {
    "free": {"type": "string"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "is_on": {"type": "boolean"},
}
DECLARATION = {"apiVersion": "muster.dev/v1alpha1", "kind": "InstanceTemplate", "spec": {"parameters": SCHEMAS}}

SIGNS = st.sampled_from(
    ["$", "(", ")", "$(A)", "(A)", "$$", "{", "}", "{{.Name}}", '"', "\\", "\n", "a", "é", "😀", ": ", "- "]
)
ANY_TEXT = st.one_of(st.text(max_size=20), st.lists(SIGNS, max_size=8).map("".join))
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), ANY_TEXT)
PLAIN = st.one_of(st.text("ab$() \"'\\:\n-é", max_size=6), st.sampled_from(["$", "$$", "$(A)", "$("]))
HOLES = st.just("free") | st.sampled_from(["count", "ratio", "is_on", "Name", "OwnerHash", "Version", "MountName"])
TEXTS = st.lists(st.one_of(PLAIN, HOLES.map(lambda name: f"{{{{.{name}}}}}")), max_size=4).map("".join)
KEYS = st.text("abcdefg./-", min_size=1, max_size=5)
TREES = st.recursive(
    st.one_of(TEXTS, st.integers(0, 9), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=12,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=8), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=15,
)


@st.composite
def objects(draw: st.DrawFn) -> dict[str, Any]:
    """An object with text in all the places that are special, and a tree anywhere else."""
    container = {
        "name": "a",
        "command": draw(st.lists(TEXTS, max_size=3)),
        "env": [{"name": "A", "value": draw(TEXTS)}],
        "stdin": draw(TEXTS),
        "volumeMounts": [{"name": "a", "subPathExpr": draw(TEXTS)}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "{{.Name}}", "labels": {"a": draw(TEXTS)}, "annotations": {"b": draw(TEXTS)}},
        "spec": {"template": {"spec": {"containers": [container]}}, "replicas": draw(TEXTS), "rest": draw(TREES)},
    }


VALUES = st.fixed_dictionaries({
    "free": st.one_of(ANY_TEXT, st.sampled_from(["(A)", "$(A)", "$", "A)", "$$(A)"])),
    "count": st.integers(-(2**63), 2**63 - 1),
    "ratio": st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-9, 9)),
    "is_on": st.booleans(),
})  # fmt: skip


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(value, dict | list):
        for key, of in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(of, (*path, key))
    else:
        yield path, value


# ------------------------------------------------------------------------------------------ rendering


@given(objects(), VALUES)
def test_each_text_is_what_the_oracle_says(obj: dict[str, Any], values: dict[str, Any]) -> None:
    try:
        template = decisions.parse([DECLARATION, obj], "t")
    except Malformed as error:
        assert "no placeholder may be within $( )" in str(error)
        event("a placeholder within $( )")
        return
    assume(not is_refused(values["free"]))
    (found,) = decisions.render(template, FACTS, values)
    texts = {
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()},
        "Name": HANDLE, "OwnerHash": FACTS.owner_hash, "MountName": FACTS.mount_name, "Version": template.version,
    }  # fmt: skip
    assert [path for path, _ in leaves(found)] == [path for path, _ in leaves(obj)]
    for (path, before), (_, after) in zip(leaves(obj), leaves(found), strict=True):
        alone = before[3:-2] if isinstance(before, str) and before in [f"{{{{.{name}}}}}" for name in values] else ""
        if decisions.is_expanded(path):
            marked = expanded(put_in(before, dict.fromkeys(texts, "\0")), VARIABLES)
            assert expanded(after, VARIABLES) == fill(marked, before, texts)
        elif alone and alone != "free" and not decisions.is_text(path):
            assert after == values[alone] and type(after) is type(values[alone])
        elif isinstance(before, str):
            assert after == put_in(before, texts)
        else:
            assert after == before and type(after) is type(before)
    assert json.loads(json.dumps(found)) == found


def fill(marked: str, before: str, texts: dict[str, str]) -> str:
    """Each mark replaced by the value of the placeholder that stood there, in order."""
    names = re.findall(r"\{\{\.(\w+)\}\}", before)
    pieces = marked.split("\0")
    assert len(pieces) == len(names) + 1
    return pieces[0] + "".join(texts[name] + piece for name, piece in zip(names, pieces[1:], strict=True))


@given(objects(), st.one_of(SCALARS, JSON, st.binary(max_size=3), st.text(st.characters(), max_size=5)))
def test_whatever_is_given_is_rendered_or_refused(obj: dict[str, Any], given_value: Any) -> None:
    try:
        template = decisions.parse([DECLARATION, obj], "t")
        plain = decisions.render(template, FACTS, {"free": "x", "count": 0, "ratio": 0.5, "is_on": True})
    except Malformed:
        return
    for name in SCHEMAS:
        values = {"free": "x", "count": 0, "ratio": 0.5, "is_on": True, name: given_value}
        try:
            found = decisions.render(template, FACTS, values)
        except Malformed as error:
            assert error.field == f"parameters.{name}"
            continue
        assert kinds(shape(found)) == kinds(shape(plain))


def kinds(value: Any) -> Any:
    """A shape in which whole numbers are numbers: a parameter of the type number may be either."""
    if isinstance(value, dict):
        return {key: kinds(of) for key, of in value.items()}
    return [kinds(item) for item in value] if isinstance(value, list) else float if value is int else value


@given(st.text(st.characters(), max_size=30), st.lists(st.text(max_size=9), max_size=3))
def test_access_is_valid_json_wherever_it_stands(owner: str, users: list[str]) -> None:
    text = '--literal={"Admin":{{.AccessList}},"Info":{{.CreatorInfo}}}'
    container = {"args": [text], "env": [{"name": "A", "value": text}]}
    obj = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "{{.Name}}", "annotations": {"a": text}},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }  # fmt: skip
    template = decisions.parse([obj], "t")
    try:
        (found,) = decisions.render(template, FACTS._replace(owner=owner, access=Access(tuple(users))), {})
    except Malformed:
        assert is_refused(owner) or any(map(is_refused, users))
        return
    pod = found["spec"]["template"]["spec"]["containers"][0]
    for said in (found["metadata"]["annotations"]["a"], pod["args"][0], pod["env"][0]["value"]):
        for seen in (said, expanded(said, VARIABLES)):
            document = json.loads(seen.removeprefix("--literal="))
            assert document.keys() == {"Admin", "Info"}
    document = json.loads(expanded(pod["args"][0], VARIABLES).removeprefix("--literal="))
    assert document["Admin"]["In"] == [owner, *sorted(set(users) - {owner})]
    assert document["Info"].get("owner", "") == owner


# ------------------------------------------------------------------------------------------ reading


@given(st.lists(st.one_of(JSON, objects()), max_size=3))
def test_any_documents_are_read_or_refused(documents: list[Any]) -> None:
    before = copy.deepcopy(documents)
    try:
        template = decisions.parse(documents, "t")
    except Malformed as error:
        assert error.field.startswith("t")
    else:
        assert [shape(each) for each in template.documents] == [shape(each) for each in documents if each is not None]
    assert documents == before


@given(objects(), st.randoms(use_true_random=False))
def test_the_order_of_keys_and_the_language_do_not_matter(obj: dict[str, Any], dice: Any) -> None:
    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            items = list(value.items())
            dice.shuffle(items)
            return {key: shuffled(of) for key, of in items}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    try:
        digest = decisions.parse([DECLARATION, obj], "t").digest
    except Malformed:
        return
    assert decisions.parse([shuffled(DECLARATION), shuffled(obj)], "t").digest == digest
    assert decisions.parse(parse_yaml_all(yaml.dump_all([DECLARATION, obj], Dumper=DUMPER), "t"), "t").digest == digest
    assert decisions.parse([DECLARATION, *parse_yaml_all(json.dumps(obj), "t")], "t").digest == digest


KEYWORDS = st.sampled_from(["type", "default", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "x"])
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "array", None])


TYPED = st.builds(lambda kind, schema: {**schema, "type": kind}, TYPES, st.dictionaries(KEYWORDS, SCALARS, max_size=3))
NAMES = st.one_of(st.just("a"), st.text(max_size=3))


@given(st.dictionaries(NAMES, st.one_of(JSON, TYPED), max_size=2), SCALARS)
def test_any_schema_is_read_or_refused(schemas: Any, value: Any) -> None:
    try:
        parameters = parse_parameters(schemas, "p")
    except Malformed as error:
        assert error.field.startswith("p")
        return
    event(f"{len(parameters)} schemas are fine")
    for parameter in parameters.values():
        try:
            assert decisions.check_values({"a": parameter}, {"a": value})["a"] == value
        except Malformed as error:
            assert error.field == "parameters.a"


# ------------------------------------------------------------------------------------------ patterns


def pattern(depth: int) -> st.SearchStrategy[str]:
    """Patterns that mean the same to Python."""
    atoms = st.sampled_from(
        ["a", "b", "c", "-", "[ab]", "[^a]", "[a-c]", "[-a]", r"\d", r"\w", r"\W", r"\.", r"\x61", "[^b-c]"]
    )
    if depth == 0:
        return atoms
    inner = pattern(depth - 1)
    groups = st.one_of(inner.map(lambda one: f"({one})"), inner.map(lambda one: f"(?:{one})"))
    counts = st.sampled_from(["", "", "*", "+", "?", "*?", "{2}", "{1,}", "{0,2}", "{0}", "+?", "{1,2}?"])
    pieces = st.builds(lambda one, count: one + count, st.one_of(atoms, groups), counts)
    anchored = st.one_of(pieces, pieces, st.sampled_from(["^", "$"]))
    rows = st.lists(anchored, max_size=3).map("".join)
    return st.lists(rows, min_size=1, max_size=3).map("|".join)


@given(pattern(2), st.lists(st.text("abc-1.\n ", max_size=6), min_size=1, max_size=5))
def test_patterns_match_as_pythons_do(text: str, values: list[str]) -> None:
    try:
        compiled = compile_pattern(text, "p")
    except Malformed as error:
        assert "parts" in str(error)
        return
    python = re.compile(text.replace("$", r"\Z"), re.ASCII)
    for value in values:
        assert compiled.matches(value) == (python.search(value) is not None), (text, value)


@given(st.one_of(st.text("ab(|)*+?{},1^$[]-\\dDx\n.", max_size=12), st.text(max_size=12)), st.text("ab1\n", max_size=5))
def test_any_pattern_is_read_or_refused(text: str, value: str) -> None:
    try:
        compiled = compile_pattern(text, "p")
    except Malformed as error:
        assert error.field == "p"
    else:
        assert compiled.matches(value) in (True, False)


# ------------------------------------------------------------------------------------------ schemas

SHORT = st.text("abc-1. é", max_size=4)
SMALL = st.integers(-3, 3)
FRACTIONS = st.sampled_from([-1.5, -1, 0, 0.5, 1, 1.0, 2.5])
LENGTHS = st.integers(0, 3)
SENSIBLE = st.one_of(
    st.fixed_dictionaries({"type": st.just("string")}, optional={
        "minLength": LENGTHS, "maxLength": LENGTHS, "pattern": pattern(1), "default": SHORT,
        "enum": st.lists(SHORT, min_size=1, max_size=3, unique=True),
    }),
    st.fixed_dictionaries({"type": st.just("integer")}, optional={
        "minimum": SMALL, "maximum": SMALL, "default": SMALL,
        "enum": st.lists(SMALL, min_size=1, max_size=3, unique=True),
    }),
    st.fixed_dictionaries({"type": st.just("number")}, optional={
        "minimum": FRACTIONS, "maximum": FRACTIONS, "enum": st.lists(FRACTIONS, min_size=1, max_size=3, unique=True),
    }),
    st.fixed_dictionaries({"type": st.just("boolean")}, optional={
        "default": st.booleans(), "enum": st.lists(st.booleans(), min_size=1, max_size=2, unique=True),
    }),
)  # fmt: skip
GIVEN = st.one_of(SHORT, SMALL, FRACTIONS, st.booleans(), st.none(), st.just([]), st.just({}))


@given(SENSIBLE, st.lists(GIVEN, min_size=1, max_size=8))
def test_schemas_mean_what_they_mean_to_others(schema: dict[str, Any], values: list[Any]) -> None:
    judge = jsonschema.Draft202012Validator(schema)
    try:
        (parameter,) = parse_parameters({"a": schema}, "p").values()
    except Malformed as error:
        event("refused")
        assert error.field in ("p.a.maximum", "p.a.maxLength") or not all(
            judge.is_valid(value)
            for value in [*schema.get("enum", []), *([schema["default"]] if "default" in schema else [])]
        )
        return
    assert parameter.default is None or judge.is_valid(parameter.default)
    for value in values:
        try:
            decisions.check_values({"a": parameter}, {"a": value})
            is_fine = True
        except Malformed:
            is_fine = False
        is_whole = schema["type"] == "integer" and isinstance(value, float)  # 1.0 is no whole number here
        assert is_fine == (judge.is_valid(value) and not is_whole)


# ------------------------------------------------------------------------------------------ import


def commas(text: str) -> list[int]:
    """Where commas of JSON stand that are no part of a text."""
    places, inside, place = [], False, 0
    while place < len(text):
        if inside and text[place] == "\\":
            place += 1
        elif text[place] == '"':
            inside = not inside
        elif text[place] == "," and not inside:
            places.append(place)
        place += 1
    return places


@given(JSON, st.data(), st.sampled_from([None, 2]))
def test_commas_that_were_lost_are_found(tree: Any, data: st.DataObject, indent: int | None) -> None:
    document = {"kind": "X", "metadata": {"name": "n"}, "tree": tree}
    text = json.dumps(document, indent=indent)
    lost = data.draw(st.sets(st.sampled_from(commas(text))))
    torn = "".join(" " if place in lost else character for place, character in enumerate(text))
    (found,), notes = import_template(torn, "t", repair=True)
    assert found == document
    assert len(notes) == len(lost)
    spots = [f"line {text.count(chr(10), 0, place) + 1}, column {place - text.rfind(chr(10), 0, place)}"
             for place in sorted(lost)]  # fmt: skip
    assert [note.place for note in notes] == spots
    if lost:
        try:
            import_template(torn, "t")
        except Malformed as error:
            assert error.field == f"t: {spots[0]}"
        else:
            raise AssertionError("it was repaired without being asked for")


TOKENS = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"a"', '"b"', "1", "-", "true", "null", "{{.Name}}", "{{", "}}", "\n", '"', "\\"]
)


@given(st.one_of(st.text(max_size=40), st.lists(TOKENS, max_size=25).map("".join)))
def test_any_text_is_imported_or_refused(text: str) -> None:
    for repair in (False, True):
        try:
            documents, notes = import_template(text, "t", repair=repair)
        except Malformed as error:
            assert error.field.startswith("t")
        else:
            assert documents and all(note.place and note.text for note in notes)


# ------------------------------------------------------------------------------------------ policy and owner


@given(st.lists(st.sampled_from([*CHANGES, *NEVER_ASKED]), max_size=4), st.sampled_from(LEVELS))
def test_a_change_more_never_makes_up_for_another(changes: list[Any], level: str) -> None:
    """Unless it is made at the same place, or takes away what the other has changed."""
    apart = [
        one for number, one in enumerate(changes)
        if not any(one.path.startswith(other.path) or other.path.startswith(one.path) for other in changes[:number])
        and one.path not in ("spec", "spec.securityContext")
    ]  # fmt: skip
    try:
        pod = changed(*apart)
    except (TypeError, AttributeError):
        return  # one has put text where the other wants a mapping
    each_alone = [bool(pod_security(changed(one), level)) for one in apart]
    assert bool(pod_security(pod, level)) == any(each_alone)


@given(st.sampled_from(sorted(KINDS)), JSON, st.sampled_from(["spec", "spec.template", "spec.template.spec"]))
def test_any_object_is_judged(kind: tuple[str, str], tree: Any, at: str) -> None:
    obj: dict[str, Any] = {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "{{.Name}}"}}
    there = obj
    for step in at.split(".")[:-1]:
        there = there.setdefault(step, {})
    there[at.rpartition(".")[2]] = tree
    for parameters in (None, {}):
        found = violations([obj], Policy(), parameters)
        assert all(each.field.startswith(f"{kind[1]} {{{{.Name}}}}: ") for each in found)
        assert found or kind[1] not in ("Deployment", "StatefulSet")


@given(objects(), VALUES, st.booleans())
def test_what_is_owned_is_owned_for_good(obj: dict[str, Any], values: dict[str, Any], is_there: bool) -> None:
    assume(not is_refused(values["free"]))
    try:
        rendered = decisions.render(decisions.parse([DECLARATION, obj], "t"), FACTS, values)
    except Malformed:
        return
    uid = "u-1" if is_there else None
    marks: dict[str, Any] = {"handle": HANDLE, "namespace": "n", "allocator": "a", "owner": "alice"}
    once = decisions.own(rendered, **marks, instance_uid=uid)
    assert decisions.own(once, **marks, instance_uid=uid) == once
    metadata = once[0]["metadata"]
    assert metadata["labels"].items() >= {"muster.dev/instance": HANDLE, "muster.dev/allocator": "a"}.items()
    assert metadata["namespace"] == "n" and metadata["annotations"]["muster.dev/owner"] == "alice"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML and JSON text that people write, as plain values. Who decides on those is `decisions`, which know no YAML.

What is parsed is counted first, event by event: libyaml builds values by recursion, without a bound, and a text of
100,000 brackets ends the process; aliases make a few lines into more values than a machine can hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.credentials import MissingLibrary
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

LIMIT: Final = 4 * 1024 * 1024  # characters, a ConfigMap holds a quarter of that; and values, which only aliases reach
MAX_DEPTH: Final = 64  # values within values
MAX_TEXT: Final = 256 * 1024  # characters of several documents
MAX_NODES: Final = 20_000  # values of several documents, each alias counted as what it stands for


def parse_yaml(text: str, where: str) -> Any:
    """The value of one YAML document; None of an empty text. `where` names it in errors. Raises Malformed."""
    documents = _load(text, where, LIMIT, _Counter(where, LIMIT))
    if len(documents) > 1:
        raise Malformed(where, f"{len(documents)} documents", "give one YAML document")
    return documents[0] if documents else None


def parse_yaml_all(text: str, where: str) -> list[Any]:
    """The values of YAML documents, or of one JSON text; None of an empty one. Raises Malformed.

    At most 256 Ki characters, 20,000 values and 64 values within each other. A key that stands twice is refused.
    """
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [_load_json(text, where)]
        except json.JSONDecodeError:
            pass  # it may be YAML all the same; and if not, YAML's message is as good
    return _load(text, where, MAX_TEXT, _Counter(where, MAX_NODES, checks_keys=True))


def _load(text: str, where: str, limit: int, counter: _Counter) -> list[Any]:
    try:
        import yaml
    except ImportError:
        raise MissingLibrary("PyYAML", "to read YAML documents") from None
    if len(text) > limit:
        raise Malformed(where, text, f"give at most {limit:,} characters")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        counter.count(yaml.parse(text, Loader=loader))
        return list(yaml.load_all(text, Loader=loader))
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2026-99-99
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise Malformed(where, text, f"give valid YAML ({said})") from None


def _load_json(text: str, where: str) -> Any:
    """JSON is YAML, but for tabs and for what is beyond 16 bits; so JSON is read as such."""

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _other in pairs]
            twice = next(key for number, key in enumerate(keys) if key in keys[:number])
            raise Malformed(where, twice, "write each key once")
        return found

    if len(text) > MAX_TEXT:
        raise Malformed(where, text, f"give at most {MAX_TEXT:,} characters")
    try:
        value = json.loads(text, object_pairs_hook=collect)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise Malformed(where, text, f"nest values at most {MAX_DEPTH} deep") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise Malformed(where, text, f"give valid JSON ({error})") from None
    level, nodes, depth = [value], 0, 0
    while level:  # one level after the other
        nodes, depth = nodes + len(level), depth + 1
        if depth > MAX_DEPTH:
            raise Malformed(where, text, f"nest values at most {MAX_DEPTH} deep")
        below = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in below for item in items]
    if nodes > MAX_NODES:
        raise Malformed(where, text, f"give at most {MAX_NODES:,} values")
    return value


class _Size(NamedTuple):
    """Of a value, with all that is in it."""

    nodes: int = 1
    height: int = 1


class _Open:
    """A list or mapping that is being read. `place` is the number of what comes next; keys are the even ones."""

    def __init__(self, anchor: str | None, *, is_mapping: bool) -> None:
        self.anchor, self.is_mapping = anchor, is_mapping
        self.place, self.nodes, self.height = 0, 1, 1
        self.keys: set[str] = set()

    def take(self, size: _Size) -> None:
        self.place += 1
        self.nodes += size.nodes
        self.height = max(self.height, size.height + 1)


class _Counter:
    """Counts what events of YAML would make, before it is made: at most `limit` values, and text once as a key."""

    def __init__(self, where: str, limit: int, *, checks_keys: bool = False) -> None:
        self._where, self._limit, self._checks_keys = where, limit, checks_keys
        self._sizes: dict[str, _Size] = {}  # of what has an anchor
        self._open: list[_Open] = []
        self._nodes = 0

    def count(self, events: Iterable[Any]) -> None:
        """Raises Malformed at the first event that is too much."""
        for event in events:
            match type(event).__name__:
                case "DocumentStartEvent":
                    self._sizes.clear()
                case "MappingStartEvent" | "SequenceStartEvent" as kind:
                    self._check_key(event, None)
                    self._open.append(_Open(event.anchor, is_mapping=kind.startswith("M")))
                    self._check(event, len(self._open), 1)
                case "MappingEndEvent" | "SequenceEndEvent":
                    done = self._open.pop()
                    self._take(done.anchor, _Size(done.nodes, done.height))
                case "ScalarEvent":
                    self._check_key(event, event.value)
                    self._check(event, len(self._open) + 1, 1)
                    self._take(event.anchor, _Size())
                case "AliasEvent":
                    size = self._sizes.get(event.anchor)
                    if size is None:
                        remedy = "let an alias stand for what is complete before it"
                        raise self._wrong(event, f"*{event.anchor}", remedy)
                    self._check(event, len(self._open) + size.height, size.nodes)
                    self._take(None, size)

    def _take(self, anchor: str | None, size: _Size) -> None:
        if anchor is not None:
            self._sizes[anchor] = size
        if self._open:
            self._open[-1].take(size)

    def _check(self, event: Any, depth: int, nodes: int) -> None:
        self._nodes += nodes
        if depth > MAX_DEPTH:
            raise self._wrong(event, "too deep", f"nest values at most {MAX_DEPTH} deep")
        if self._nodes > self._limit:
            said = f"more than {self._limit:,} values"
            raise self._wrong(event, said, "give fewer; each alias counts as what it stands for")

    def _check_key(self, event: Any, text: str | None) -> None:
        """`text` None: it is no scalar."""
        inner = self._open[-1] if self._open else None
        if not self._checks_keys or inner is None or not inner.is_mapping or inner.place % 2:
            return
        if text is None:
            remedy = 'give text as the key; in YAML a placeholder stands in quotes: "{{.Name}}"'
            raise self._wrong(event, "a list or mapping", remedy)
        if text in inner.keys:
            raise self._wrong(event, text, "write each key once")
        inner.keys.add(text)

    def _wrong(self, event: Any, value: object, remedy: str) -> Malformed:
        mark = event.start_mark
        return Malformed(self._where, value, f"{remedy} (line {mark.line + 1}, column {mark.column + 1})")

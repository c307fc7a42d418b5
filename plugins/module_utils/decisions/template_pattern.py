# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Regular expressions of a template's parameters, matched in time linear in the value.

An administrator writes the pattern, anybody the value. A matcher that backtracks, as Python's does, can be kept busy
for hours by a value of 40 characters, where the pattern is such as (a+)+$. So patterns are a subset of JSON Schema's
(ECMA-262, with the u flag), which an automaton decides: characters, `.`, classes, groups, `|`, `* + ?`, `{m,n}`, `^`
and `$`. What needs backtracking (references, lookaround) is refused by its name. As in JSON Schema, a match may be
anywhere in the value: who means the whole value writes ^ and $, and $ is its very end, also after a newline.

Theory: Thompson, Regular Expression Search Algorithm (1968): all states that a match could be in, one character at a
time. Sets of states that were met before are remembered, which makes a deterministic automaton where it is needed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

MAX_PATTERN: Final = 256  # characters
MAX_STATES: Final = 400  # of the automaton, with counted repetitions written out
MAX_DEPTH: Final = 20  # groups within groups

Range = tuple[int, int]

_DIGITS: Final[tuple[Range, ...]] = ((0x30, 0x39),)
_WORD: Final[tuple[Range, ...]] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final[tuple[Range, ...]] = (
    (0x09, 0x0D), (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029), (0x202F, 0x202F),
    (0x205F, 0x205F), (0x3000, 0x3000), (0xFEFF, 0xFEFF),
)  # fmt: skip
_CLASSES: Final = {"d": _DIGITS, "w": _WORD, "s": _SPACE}
_CONTROLS: Final = {"t": 0x09, "n": 0x0A, "v": 0x0B, "f": 0x0C, "r": 0x0D}
_PUNCTUATION: Final = frozenset("^$\\.*+?()[]{}|/-")
_LINE_ENDS: Final[tuple[Range, ...]] = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))


class Chars(NamedTuple):
    """One character out of these, or out of all others."""

    ranges: tuple[Range, ...]
    is_negated: bool = False

    @property
    def is_single(self) -> bool:
        return len(self.ranges) == 1 and self.ranges[0][0] == self.ranges[0][1] and not self.is_negated

    def has(self, code: int) -> bool:
        return any(first <= code <= last for first, last in self.ranges) != self.is_negated


class Start(NamedTuple):
    """The beginning of the value."""


class End(NamedTuple):
    """The end of the value."""


class Sequence(NamedTuple):
    parts: tuple[Node, ...]


class Choice(NamedTuple):
    parts: tuple[Node, ...]


class Repeat(NamedTuple):
    """`most` None: without bound."""

    part: Node
    least: int
    most: int | None


Node = Chars | Start | End | Sequence | Choice | Repeat  # pylint: disable=unsupported-binary-operation


class State(NamedTuple):
    """Goes on to `following` if what it is allows it: one character, a place in the value, or nothing at all."""

    test: Chars | Start | End | None
    following: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern and its automaton; the last state is the match. Characters between two `bounds` are alike to it."""

    text: str
    states: tuple[State, ...] = field(repr=False, compare=False)
    bounds: tuple[int, ...] = field(repr=False, compare=False)

    def matches(self, value: str) -> bool:
        """Whether it matches anywhere in the value; in at most len(value) times len(states) steps."""
        goal, last = len(self.states) - 1, len(value) - 1
        reached = self._closure([0], is_start=True, is_end=not value)
        known: dict[tuple[frozenset[int], int], frozenset[int]] = {}
        for place, character in enumerate(value):
            if goal in reached:
                return True
            kind = bisect_right(self.bounds, ord(character))
            after = known.get((reached, kind)) if place < last else None
            if after is None:
                moved = self._moved(reached, ord(character))
                after = self._closure(moved, is_start=False, is_end=place == last)
                if place < last:
                    known[reached, kind] = after
            reached = after
        return goal in reached

    def _moved(self, reached: Iterable[int], code: int) -> set[int]:
        """Where this character leads to; a match may begin after it, too."""
        moved = {0}
        for number in reached:
            test, following = self.states[number]
            if isinstance(test, Chars) and test.has(code):
                moved.update(following)
        return moved

    def _closure(self, begin: Iterable[int], *, is_start: bool, is_end: bool) -> frozenset[int]:
        """All states that can be reached from these without a character."""
        reached = set(begin)
        left = list(reached)
        while left:
            test, following = self.states[left.pop()]
            is_open = test is None or (isinstance(test, Start) and is_start) or (isinstance(test, End) and is_end)
            for number in following if is_open else ():
                if number not in reached:
                    reached.add(number)
                    left.append(number)
        return frozenset(reached)


def compile_pattern(text: object, where: str) -> Pattern:
    """Raises Malformed with the reason, in whose field stands `where`."""
    if not isinstance(text, str):
        raise Malformed(where, text, "give a regular expression, as text")
    if len(text) > MAX_PATTERN:
        raise Malformed(where, text, f"give at most {MAX_PATTERN} characters")
    reader = _Reader(text, where)
    node = reader.choice(0)
    if reader.place < len(text):
        raise reader.wrong("close no group that is not open, or write \\)")
    if _size(node) > MAX_STATES:
        raise Malformed(where, text, f"write smaller counts: with them written out it has more than {MAX_STATES} parts")
    states: list[State] = []
    _add(node, states)
    ranges = (each for state in states if isinstance(state.test, Chars) for each in state.test.ranges)
    bounds = {bound for first, last in ranges for bound in (first, last + 1)}
    return Pattern(text, (*states, State(None, ())), tuple(sorted(bounds)))


# ---------------------------------------------------------------------------------------------------------------------
# The automaton


def _size(node: Node) -> int:
    """How many states it will have; counted before they are made."""
    match node:
        case Sequence(parts):
            return sum(map(_size, parts))
        case Choice(parts):
            return sum(map(_size, parts)) + 2 * len(parts)
        case Repeat(part, least, most):
            size = _size(part)
            return least * size + (size + 2 if most is None else (most - least) * (size + 1))
    return 1


def _add(node: Node, states: list[State]) -> None:
    """Append the states of a node, which begin at the next free number and go on to the one after them."""
    match node:
        case Sequence(parts):
            for part in parts:
                _add(part, states)
        case Choice(parts):
            _add_choice(parts, states)
        case Repeat(part, least, most):
            for _other in range(least):
                _add(part, states)
            if most is None:
                _add_loop(part, states)
            else:
                _add_optional(part, most - least, states)
        case _other:
            states.append(State(node, (len(states) + 1,)))


def _add_choice(parts: tuple[Node, ...], states: list[State]) -> None:
    ends = []
    for part in parts[:-1]:
        fork = len(states)
        states.append(State(None, ()))
        _add(part, states)
        ends.append(len(states))
        states.append(State(None, ()))
        states[fork] = State(None, (fork + 1, len(states)))
    _add(parts[-1], states)
    for end in ends:
        states[end] = State(None, (len(states),))


def _add_loop(part: Node, states: list[State]) -> None:
    fork = len(states)
    states.append(State(None, ()))
    _add(part, states)
    states.append(State(None, (fork,)))
    states[fork] = State(None, (fork + 1, len(states)))


def _add_optional(part: Node, times: int, states: list[State]) -> None:
    """Each of them may be the last."""
    forks = []
    for _other in range(times):
        forks.append(len(states))
        states.append(State(None, ()))
        _add(part, states)
    for fork in forks:
        states[fork] = State(None, (fork + 1, len(states)))


# ---------------------------------------------------------------------------------------------------------------------
# Reading


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.place = text, where, 0

    def wrong(self, remedy: str) -> Malformed:
        return Malformed(self.where, self.text, f"{remedy} (at character {self.place + 1})")

    def ahead(self) -> str:
        """The next character; empty at the end."""
        return self.text[self.place : self.place + 1]

    def take(self, wanted: str) -> bool:
        """Go past this, if it comes next."""
        is_next = self.text.startswith(wanted, self.place)
        self.place += len(wanted) * is_next
        return is_next

    def choice(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise self.wrong(f"put at most {MAX_DEPTH} groups into one another")
        parts = [self.sequence(depth)]
        while self.take("|"):
            parts.append(self.sequence(depth))
        return Choice(tuple(parts)) if len(parts) > 1 else parts[0]

    def sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self.ahead() not in ("", "|", ")"):
            parts.append(self.repeated(self.atom(depth)))
        return Sequence(tuple(parts))

    def atom(self, depth: int) -> Node:
        character = self.ahead()
        if character in "*+?{":
            raise self.wrong(f"say what is to be repeated, or write \\{character}")
        if character in "]}":
            raise self.wrong(f"write \\{character}")
        self.place += 1
        match character:
            case "^":
                return Start()
            case "$":
                return End()
            case ".":
                return Chars(_LINE_ENDS, is_negated=True)
            case "[":
                return self.klass()
            case "(":
                return self.group(depth)
            case "\\":
                return self.escape()
        return _single(ord(character))

    def group(self, depth: int) -> Node:
        if self.take("?") and not self.take(":"):
            raise self.wrong("leave lookaround, names and flags out: groups are (…) and (?:…)")
        node = self.choice(depth + 1)
        if not self.take(")"):
            raise self.wrong("close the group by )")
        return node

    def repeated(self, node: Node) -> Node:
        least, most = 0, None
        if self.take("+"):
            least = 1
        elif self.take("?"):
            most = 1
        elif self.take("{"):
            least, most = self.counts()
        elif not self.take("*"):
            return node
        if isinstance(node, Start | End):
            raise self.wrong("repeat neither ^ nor $")
        self.take("?")  # least or most of it: whether there is a match is the same
        if self.ahead() in ("*", "+", "?", "{"):
            raise self.wrong("put what is repeated twice into a group")
        return Repeat(node, least, most)

    def counts(self) -> tuple[int, int | None]:
        least = self.number()
        if least is None:
            raise self.wrong("write {2}, {2,} or {2,5}, or \\{")
        most: int | None = least
        if self.take(","):
            most = self.number()
        if not self.take("}"):
            raise self.wrong("close the count by }")
        if most is not None and most < least:
            raise self.wrong("write the smaller count first")
        return least, most

    def number(self) -> int | None:
        begin = self.place
        while self.ahead() in tuple("0123456789"):
            self.place += 1
        digits = self.text[begin : self.place]
        if len(digits) > 4:
            raise self.wrong(f"count to at most {MAX_STATES}")
        return int(digits) if digits else None

    def klass(self) -> Chars:
        """What stands in brackets."""
        is_negated, ranges = self.take("^"), list[Range]()
        while not self.take("]"):
            first = self.member()
            if self.ahead() != "-" or self.text[self.place + 1 : self.place + 2] == "]":
                ranges.extend(first.ranges)
                continue
            self.place += 1
            last = self.member()
            if not (first.is_single and last.is_single) or last.ranges[0] < first.ranges[0]:
                raise self.wrong("write ranges such as a-z, the smaller end first; a dash itself is \\-")
            ranges.append((first.ranges[0][0], last.ranges[0][0]))
        if not ranges:
            raise self.wrong("put at least one character between [ and ]")
        return Chars(tuple(ranges), is_negated)

    def member(self) -> Chars:
        character = self.ahead()
        if not character:
            raise self.wrong("close the class by ]")
        self.place += 1
        if character != "\\":
            return _single(ord(character))
        found = self.escape()
        if found.is_negated:
            raise self.wrong("put \\D, \\S and \\W not into brackets")
        return found

    def escape(self) -> Chars:
        character = self.ahead()
        self.place += 1
        if character.lower() in _CLASSES and character:
            return Chars(_CLASSES[character.lower()], is_negated=character.isupper())
        if character in _CONTROLS:
            return _single(_CONTROLS[character])
        if character in ("x", "u"):
            return _single(self.hexadecimal(2 if character == "x" else 4))
        if character in _PUNCTUATION and character:
            return _single(ord(character))
        self.place -= 1
        known = r"\d \w \s \D \W \S \t \n \v \f \r \xHH \uHHHH"
        raise self.wrong(f"leave \\{character} out: there are {known}, and what would mean something else without \\")

    def hexadecimal(self, length: int) -> int:
        digits = self.text[self.place : self.place + length]
        if len(digits) < length or not all(each in "0123456789abcdefABCDEF" for each in digits):
            raise self.wrong(f"write {length} hexadecimal digits")
        self.place += length
        return int(digits, 16)


def _single(code: int) -> Chars:
    return Chars(((code, code),))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A key space that is cut into ranges: which there are, who owns a key, and where to cut.

Rules
1. A key is a string of exactly `key_length` characters of the alphabet. Characters are ASCII and compare by their code.
2. A range [start, end) has what is not below its start and below its end. A bound may be shorter than a key: it stands
   for the first key that begins with it. Start "" is the lowest key; end "" is above all keys.
3. A fact is a Partition, or the result of a committed Assignment that may not stand in a Partition yet. The effective
   view is every fact that no committed Assignment has superseded. Of facts that overlap the one of the higher epoch
   holds: epochs grow with each operation, along the whole lineage of a range, so history never hides the present.
4. Partitions are read first, Assignments after them. Facts only grow, so that shows what was true at some moment in
   between, or a gap. Who sees a gap reads again before believing it.

Source: range partitions as in Bigtable (Chang et al., OSDI 2006), with the view's one commit point instead of a log.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

DEFAULT_SPACE: Final = "default"
PRINTABLE: Final = "".join(map(chr, range(0x21, 0x7F)))  # all ASCII characters that can be seen
MAX_KEY_LENGTH: Final = 64  # characters
ABOVE: Final = "\x7f"  # is above every character that a bound may have
COMMITTED: Final = "Committed"
DIGEST: Final = re.compile(r"-[0-9a-f]{8}$")
MAX_STEM: Final = 54  # characters of a result's name before its digest
ROOM: Final = 16  # cuts are as short as leaves so many places between two of them

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Space:
    """What a KeySpace says. Seconds bound: fence, how long nobody serves; grace, how long the old owner proxies;
    loading, how long a target loads; lost_after, until a worker that does not come back is given up."""

    name: str
    key_length: int
    alphabet: str = PRINTABLE
    fence_seconds: float = 5.0
    grace_seconds: float = 5.0
    loading_seconds: float = 600.0
    lost_after_seconds: float = 60.0
    followers: int = 0
    reload: bool = False
    operations: int = 4


class Range(NamedTuple):
    """[start, end); "" as end is above all keys."""

    start: str
    end: str

    def __str__(self) -> str:
        return f"[{self.start or '-'}, {self.end or '-'})"


class Source(NamedTuple):
    """Copies of this Partition, fenced at this epoch, can become another one."""

    partition: str
    epoch: int


class Fact(NamedTuple):
    """A range that is served, or ought to be. `assignment`: whose result it is, where no Partition says it yet.

    `follower`: a follower of the lost primary was called up.
    """

    partition: str
    range: Range
    primary: str
    epoch: int
    proxy: str = ""
    sources: tuple[Source, ...] = ()
    assignment: str = ""
    follower: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """Who serves what. `facts` are sorted and do not overlap; `void` are Partitions that count no more."""

    facts: tuple[Fact, ...]
    void: tuple[str, ...]
    gaps: tuple[Range, ...]


# ---------------------------------------------------------------------------------------------- the documents


def parse_space(obj: Object) -> Space:
    """What a KeySpace says, defaults filled in. Raises Malformed."""
    spec, name = obj.get("spec") or {}, obj["metadata"]["name"]
    alphabet = spec.get("alphabet") or PRINTABLE
    if not isinstance(alphabet, str) or len(set(alphabet)) < 2 or set(alphabet) - set(PRINTABLE):
        raise Malformed("spec.alphabet", alphabet, "give 2 to 94 different characters from ! to ~")
    return Space(
        name,
        int(_number(spec, "keyLength", None, 1, MAX_KEY_LENGTH, int)),
        "".join(sorted(set(alphabet))),
        _number(spec, "fenceSeconds", 5.0, 0.1, 60),
        _number(spec, "graceSeconds", 5.0, 0, 3600),
        _number(spec, "loadingSeconds", 600.0, 1, 86_400),
        _number(spec, "lostAfterSeconds", 60.0, 0, 86_400),
        int(_number(spec, "followers", 0, 0, 3, int)),
        bool(spec.get("reload", False)),
        int(_number(spec, "operations", 4, 1, 1000, int)),
    )


def _number(spec: Object, field: str, default: float | None, least: float, most: float, kind: type = float) -> float:
    value = spec.get(field, default)
    fine = isinstance(value, int) if kind is int else isinstance(value, int | float)
    if not fine or isinstance(value, bool) or value is None or not least <= value <= most:
        what = "an integer" if kind is int else "a number"
        raise Malformed(f"spec.{field}", value, f"give {what} from {least:g} to {most:g}")
    return float(value)


def space_of(obj: Object) -> str:
    """The name of the KeySpace that a Partition or an Assignment is of."""
    return (obj.get("spec") or {}).get("keySpace") or DEFAULT_SPACE


def range_of(obj: Object) -> Range:
    """The range of a Partition, or of a result."""
    bounds = (obj.get("spec") or obj).get("range") or {}
    return Range(bounds.get("start") or "", bounds.get("end") or "")


def fact_of(partition: Object) -> Fact:
    """What a Partition says."""
    spec = partition["spec"]
    return Fact(
        partition["metadata"]["name"],
        range_of(partition),
        spec.get("primary") or "",
        spec.get("epoch") or 0,
        spec.get("proxy") or "",
        _sources(spec),
    )


def results_of(assignment: Object) -> tuple[Fact, ...]:
    """What an Assignment has committed, or nothing."""
    name = assignment["metadata"]["name"]
    return tuple(
        Fact(
            each["partition"],
            range_of(each),
            each.get("primary") or "",
            each.get("epoch") or 0,
            each.get("proxy") or "",
            _sources(each),
            name,
            bool(each.get("follower")),
        )
        for each in (assignment.get("status") or {}).get("results") or ()
    )


def _sources(document: Object) -> tuple[Source, ...]:
    return tuple(Source(each["partition"], each["epoch"]) for each in document.get("sources") or ())


# ---------------------------------------------------------------------------------------------- keys and ranges


def check_key(space: Space, key: str) -> str:
    """The key. Raises Malformed where it is not one of this space."""
    if len(key) != space.key_length:
        raise Malformed("key", key, f"give exactly {space.key_length} characters, as KeySpace {space.name} wants")
    return _check_characters(space, "key", key)


def check_range(space: Space, start: str, end: str) -> Range:
    """The range. Raises Malformed where there can be no key in it, or its bounds are none of this space."""
    _check_bound(space, "start", start)
    _check_bound(space, "end", end)
    if end and start >= end:
        raise Malformed("end", end, f'give a bound above the start, {start!r}, or "", which is above all keys')
    return Range(start, end)


def check_split(space: Space, whole: Range, key: str) -> str:
    """The split key. Raises Malformed where it does not cut the range into two that can both have keys."""
    _check_bound(space, "splitKey", key)
    if not key or not contains(whole, key) or key == whole.start:
        raise Malformed("splitKey", key, f"give a key strictly inside of {whole}")
    return key


def _check_bound(space: Space, field: str, bound: str) -> None:
    if len(bound) > space.key_length:
        remedy = f"give at most {space.key_length} characters, as KeySpace {space.name} wants"
        raise Malformed(field, bound, remedy)
    _check_characters(space, field, bound)
    least = space.alphabet[0]
    if bound.endswith(least):
        shorter = bound.rstrip(least)
        raise Malformed(field, bound, f"give {shorter!r}: {least!r} is the least character, so it is the same bound")


def _check_characters(space: Space, field: str, text: str) -> str:
    for character in text:
        if character not in space.alphabet:
            raise Malformed(field, text, f"{character!r} is not in the alphabet of KeySpace {space.name}")
    return text


def contains(whole: Range, key: str) -> bool:
    """Whether a key, or the first key of a bound, is in the range."""
    return whole.start <= key and (not whole.end or key < whole.end)


def overlaps(one: Range, other: Range) -> bool:
    """Whether there may be a key in both."""
    return (not one.end or other.start < one.end) and (not other.end or one.start < other.end)


def adjacent(one: Range, other: Range) -> bool:
    """Whether the other begins where this one ends."""
    return bool(one.end) and one.end == other.start


def covers(ranges: Sequence[Range], whole: Range) -> bool:
    """Whether these, in order, are exactly the whole."""
    if not ranges or ranges[0].start != whole.start or ranges[-1].end != whole.end:
        return False
    return all(adjacent(one, other) for one, other in itertools.pairwise(ranges))


def order(of: Range) -> tuple[str, str]:
    """Sorts ranges by where they begin."""
    return of.start, of.end or ABOVE


# ---------------------------------------------------------------------------------------------- the effective view


def view(partitions: Iterable[Object], assignments: Iterable[Object]) -> View:
    """Who serves what, of one KeySpace; n log n for n Partitions."""
    committed = [each for each in assignments if (each.get("status") or {}).get("phase") == COMMITTED]
    superseded = {name for each in committed for name in each["status"].get("supersedes") or ()}
    facts: dict[str, Fact] = {}
    void = []
    results = (fact for each in committed for fact in results_of(each))
    for fact in (*map(fact_of, partitions), *results):
        if fact.partition in superseded:
            void.append(fact.partition)
        elif fact.partition not in facts or facts[fact.partition].epoch < fact.epoch:
            facts[fact.partition] = fact
    kept, hidden = _without_overlaps(facts.values())
    return View(tuple(kept), tuple(sorted({*void, *hidden})), tuple(_gaps(kept)))


def _without_overlaps(facts: Iterable[Fact]) -> tuple[list[Fact], list[str]]:
    """Those that hold, sorted by range, and the names of those that a higher epoch hides."""
    ordered = sorted(facts, key=lambda fact: order(fact.range))
    if not any(overlaps(one.range, other.range) for one, other in itertools.pairwise(ordered)):
        return ordered, []
    kept: list[Fact] = []
    hidden: list[str] = []
    for fact in sorted(ordered, key=lambda fact: (-fact.epoch, fact.partition)):
        at = bisect.bisect(kept, order(fact.range), key=lambda fact: order(fact.range))
        beside = kept[max(0, at - 1) : at + 1]
        if any(overlaps(fact.range, other.range) for other in beside):
            hidden.append(fact.partition)
        else:
            kept.insert(at, fact)
    return kept, hidden


def _gaps(facts: Sequence[Fact]) -> Iterable[Range]:
    """What is between the facts, the first and the last bound of them included."""
    reached = ""
    for fact in facts:
        if fact.range.start > reached:
            yield Range(reached, fact.range.start)
        if not fact.range.end:
            return
        reached = fact.range.end
    yield Range(reached, "")


def owner(of: View, key: str) -> Fact | None:
    """The fact that has the key; None where it is in a gap."""
    at = bisect.bisect(of.facts, key, key=lambda fact: fact.range.start) - 1
    return of.facts[at] if at >= 0 and contains(of.facts[at].range, key) else None


# ---------------------------------------------------------------------------------------------- where to cut


def even_cuts(space: Space, whole: Range, count: int) -> list[Range]:
    """The range in `count` parts of nearly the same number of possible keys, with bounds as short as that allows.

    Raises Malformed where it has fewer keys than that.
    """
    if count < 1:
        raise Malformed("count", count, "give at least 1")
    for length in range(1, space.key_length + 1):
        low, high = _position(space, whole.start, length), _position(space, whole.end, length, is_end=True)
        if high - low >= count * ROOM or length == space.key_length:
            break
    if high - low < count:
        raise Malformed("count", count, f"{whole} has only {high - low} keys: give at most so many")
    cuts = [_bound(space, low + (high - low) * number // count, length) for number in range(1, count)]
    return [Range(one, other) for one, other in zip([whole.start, *cuts], [*cuts, whole.end], strict=True)]


def middle(space: Space, whole: Range) -> str:
    """Where to cut it in two. Raises Malformed where it has one key only."""
    return even_cuts(space, whole, 2)[0].end


def _position(space: Space, bound: str, length: int, *, is_end: bool = False) -> int:
    """The number of strings of this length that are below the bound."""
    base = len(space.alphabet)
    if is_end and not bound:
        return int(base**length)
    position = 0
    for character in bound[:length].ljust(length, space.alphabet[0]):
        position = position * base + space.alphabet.index(character)
    return position + (1 if len(bound) > length and not is_end else 0)


def _bound(space: Space, position: int, length: int) -> str:
    characters = []
    for _count in range(length):
        position, digit = divmod(position, len(space.alphabet))
        characters.append(space.alphabet[digit])
    return "".join(reversed(characters)).rstrip(space.alphabet[0])


def result_name(stem: str, uid: str, index: int) -> str:
    """The name of what an operation makes out of `stem`: the same for the same Assignment, and no other's."""
    digest = hashlib.sha256(f"{uid}/{index}".encode()).hexdigest()[:8]
    return f"{DIGEST.sub('', stem)[:MAX_STEM].rstrip('-.')}-{digest}"

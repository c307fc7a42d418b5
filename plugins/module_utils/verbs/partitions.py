# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key spaces and their partitions, as a user asks for them: make and remove, split, merge and move, and a look at all.

Nothing here changes who serves what. That is asked for by an Assignment, which the reconciler carries out; its name is
made of what is asked for and of the Partitions as they are, so that asking again is the same Assignment. What is so
already is not asked for.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    Api,
    Forbidden,
    NotFound,
    Put,
    Removed,
    Resource,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import DELETE, Delete, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Fact, Range, Space, View
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut

KEY_SPACES: Final = Resource("muster.dev/v1alpha1", "keyspaces", "KeySpace")
PARTITIONS: Final = Resource("muster.dev/v1alpha1", "partitions", "Partition")
ASSIGNMENTS: Final = Resource("muster.dev/v1alpha1", "assignments", "Assignment")
LABEL: Final = "muster.dev/key-space"
ADDRESS: Final = "muster.dev/address"  # annotations of a worker's Lease
LEAVING: Final = "muster.dev/leaving"
READY: Final = "Ready"
READS: Final = 5  # of a view with a gap
AT_A_TIME: Final = 8  # Partitions that are made at once
MANY: Final = 100_000  # Partitions that one call makes at most
MAX_STEM: Final = 40  # characters of a Partition's name in that of an Assignment
WORDS: Final = {
    operations.NEW: "new",
    operations.SPLIT: "split",
    operations.MERGE: "merge",
    operations.MOVE: "move",
}
PRESENT, ABSENT, SPLIT, MERGED, MOVED = "present", "absent", "split", "merged", "moved"
FOR_EVER: Final = ("keyLength", "alphabet")  # what a KeySpace never changes
OPTION_OF: Final = {"splitKey": "split_key", "from": "name"}  # where decisions call an option something else

Object = dict[str, Any]
Result = dict[str, Any]
Tell = Callable[[Result], None]  # is told how an operation stands, whenever that changes


# ---------------------------------------------------------------------------------------------- reading


class Known(NamedTuple):
    """One KeySpace as it was read. `partitions` are objects by name."""

    space: Space
    partitions: Mapping[str, Object]
    assignments: tuple[Object, ...]
    view: View


def read_view(api: Api, namespace: str, key_space: str) -> View:
    """Who serves what; see `read_parts`."""
    return read_parts(api, namespace, key_space)[2]


def read_parts(api: Api, namespace: str, key_space: str) -> tuple[list[Object], list[Object], View]:
    """Partitions, then Assignments, and the view that they make.

    A view with a gap may be made of Partitions that were split, and split again, while it was read. So it is read again
    until Partitions are as they were: then it is what was true in between. After `READS` times it is believed as it is.
    """
    partitions = _of_space(api.list(PARTITIONS, namespace).items, key_space)
    for attempt in range(READS):
        assignments = _of_space(api.list(ASSIGNMENTS, namespace).items, key_space)
        view = keyspace.view(partitions, assignments)
        if not view.gaps or attempt == READS - 1:
            break
        before, partitions = partitions, _of_space(api.list(PARTITIONS, namespace).items, key_space)
        if _versions(before) == _versions(partitions):
            break
    return partitions, assignments, view


def read_space(api: Api, namespace: str, key_space: str) -> Space:
    """Raises Malformed where there is none, or it can't be understood."""
    try:
        return keyspace.parse_space(api.get(KEY_SPACES, key_space, namespace))
    except NotFound as error:
        raise Malformed("key_space", key_space, _missing(namespace, error)) from None


def _missing(namespace: str, error: NotFound) -> str:
    if error.details:
        return (
            f"there is no such KeySpace in namespace {namespace}: make it (k8s_partition with space), or name another"
        )
    return "the cluster does not know the kind KeySpace: apply kustomize/partitions/crds first"


def read(api: Api, namespace: str, key_space: str) -> Known:
    """All of one KeySpace. Raises Malformed."""
    return _known(api, namespace, read_space(api, namespace, key_space))


def _known(api: Api, namespace: str, space: Space) -> Known:
    partitions, assignments, view = read_parts(api, namespace, space.name)
    return Known(space, {each["metadata"]["name"]: each for each in partitions}, tuple(assignments), view)


def _of_space(objects: Iterable[Object], key_space: str) -> list[Object]:
    """By what they say themselves: who makes a Partition by hand need not label it."""
    return [each for each in objects if keyspace.space_of(each) == key_space]


def _versions(objects: Iterable[Object]) -> set[tuple[str, str]]:
    return {(each["metadata"]["uid"], each["metadata"]["resourceVersion"]) for each in objects}


# ---------------------------------------------------------------------------------------------- the module


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a task says beside the state. None: it says nothing of it."""

    name: str | None = None
    start: str | None = None
    end: str | None = None
    count: int | None = None
    split_key: str | None = None
    partitions: Sequence[str] | None = None
    to: str | None = None
    force: bool = False


def partition(
    api: Api,
    *,
    namespace: str,
    key_space: str = keyspace.DEFAULT_SPACE,
    state: str = PRESENT,
    space: Mapping[str, Any] | None = None,
    wait: bool = False,
    wait_timeout: float = 300.0,
    check_mode: bool = False,
    tell: Tell = lambda _operation: None,
    **wanted: Any,
) -> Result:
    """Have partitions, have none, or have them split, merged or moved; `wanted` are the fields of `Wanted`.

    Raises Malformed naming the option, MusterError where what was asked for was aborted, TimedOut when the wait was in
    vain: what was asked for stays, and goes on.
    """
    deadline = time.monotonic() + wait_timeout
    wish = Wanted(**wanted)
    with told_by_option():
        if state == PRESENT:
            return _present(api, namespace, key_space, space, wish, deadline if wait else None, check_mode)
        known = read(api, namespace, key_space)
        if state == ABSENT:
            return remove(api, namespace, known, wish.name or "", force=wish.force, check_mode=check_mode)
        request = _REQUESTS[state](known, wish)
        if request.target:
            check_worker(api, namespace, known, request.target)
        return carry_out(api, namespace, known, request, deadline if wait else None, check_mode, tell)


@contextmanager
def told_by_option() -> Iterator[None]:
    """Name in errors the options of a user, and not the fields of documents."""
    try:
        yield
    except Malformed as error:
        field = OPTION_OF.get(error.field, error.field)
        raise Malformed(field, error.value, error.remedy) from None


# ---------------------------------------------------------------------------------------------- present


def _present(
    api: Api,
    namespace: str,
    key_space: str,
    options: Mapping[str, Any] | None,
    wish: Wanted,
    deadline: float | None,
    check_mode: bool,
) -> Result:
    space_before, space_after = None, None
    if options is None:
        space = read_space(api, namespace, key_space)
    else:
        space_before, space_after = have_space(api, namespace, key_space, options, check_mode=check_mode)
        space = keyspace.parse_space({"metadata": {"name": key_space}, "spec": space_after})
    known = _known(api, namespace, space)
    wanted = _wanted_ranges(known, wish)
    missing = check_missing(known, wanted)
    made = {} if check_mode else make(api, namespace, key_space, missing)
    if deadline is not None and not check_mode and wanted:
        await_served(api, namespace, key_space, wanted, deadline)
    if not check_mode and (missing or deadline is not None):
        known = _known(api, namespace, space)
    wholes = list(wanted.values())
    there = [fact for fact in known.view.facts if any(keyspace.overlaps(fact.range, whole) for whole in wholes)]
    spec = {"key_space": space_after} if options is not None else {}
    shown = {name: {"start": whole.start, "end": whole.end} for name, whole in missing.items()}
    return {
        "changed": space_before != space_after or bool(missing if check_mode else made),
        "assignment": {},
        "partitions": _told(there, known),
        "before": {**({"key_space": space_before} if options is not None else {}), "partitions": {}},
        "after": {**spec, "partitions": shown},
    }


def have_space(
    api: Api, namespace: str, name: str, options: Mapping[str, Any], *, check_mode: bool = False
) -> tuple[Object | None, Object]:
    """Make the KeySpace, or change what of it can be; options in snake case, None where not given.

    Returns its spec before and after. Raises Malformed.
    """
    given = {_camel(option): value for option, value in options.items() if value is not None}

    def decide(before: Object | None) -> tuple[Object | Delete | None, None]:
        spec = {**(before or {}).get("spec", {}), **given}
        parsed = keyspace.parse_space({"metadata": {"name": name}, "spec": spec})
        if before is None:
            return _object(KEY_SPACES, namespace, name, spec), None
        there = keyspace.parse_space(before)
        for field, one, other in (
            ("keyLength", there.key_length, parsed.key_length),
            ("alphabet", there.alphabet, parsed.alphabet),
        ):
            if one != other:
                remedy = f"KeySpace {name} has {one!r}, for ever: give that, or make another KeySpace"
                raise Malformed(f"space.{_snake(field)}", given.get(field), remedy)
        kept = {field: before["spec"][field] for field in FOR_EVER if field in before["spec"]}
        return ({**before, "spec": {**spec, **kept}} if parsed != there else before), None

    try:
        done = commit(api, KEY_SPACES, name, namespace, decide, check_mode=check_mode)
    except Malformed as error:
        field = re.sub(r"^spec\.", "space.", error.field)
        raise Malformed(_snake(field), error.value, error.remedy) from None
    return (done.before or {}).get("spec"), (done.after or {})["spec"]


def _wanted_ranges(known: Known, wish: Wanted) -> dict[str, Range]:
    """The ranges that a task wants, by the names of their Partitions. Raises Malformed."""
    space, name = known.space, wish.name
    is_bare = wish.start is None and wish.end is None
    if wish.count is None and is_bare:
        if not name:
            return {}
        there = known.partitions.get(name)
        if there is None:
            raise Malformed("name", name, "there is no such Partition: give start and end to have it made")
        return {name: keyspace.range_of(there)}
    whole = keyspace.check_range(space, wish.start or "", wish.end or "")
    if wish.count is None:
        if not name:
            raise Malformed("name", name, "name the Partition, or give a count")
        return {name: whole}
    if not 1 <= wish.count <= MANY:
        raise Malformed("count", wish.count, f"give 1 to {MANY:,}")
    width, stem = len(str(wish.count)), name or space.name
    cuts = keyspace.even_cuts(space, whole, wish.count)
    return {f"{stem}-{number:0{width}}": cut for number, cut in enumerate(cuts, 1)}


def check_missing(known: Known, wanted: Mapping[str, Range]) -> dict[str, Range]:
    """Those of the ranges that nothing covers yet.

    What is covered stays as it is: it may have been split, merged or renamed by that since. Raises Malformed where a
    name has another range, or a range is covered in part only.
    """
    missing: dict[str, Range] = {}
    for name, whole in wanted.items():
        beside = _overlapping(known.view.facts, whole)
        if name in known.partitions and keyspace.range_of(known.partitions[name]) != whole:
            has = keyspace.range_of(known.partitions[name])
            if not _is_covered(beside, whole):
                remedy = f"that Partition has {has}, for ever, and {whole} is wanted: give another name"
                raise Malformed("name", name, remedy)
        elif name not in known.partitions and not beside:
            missing[name] = whole
        elif name not in known.partitions and not _is_covered(beside, whole):
            one = beside[0]
            remedy = f"Partition {one.partition} has {one.range}: give a range beside it, or one that is all taken"
            raise Malformed("range", str(whole), remedy)
    return missing


def _overlapping(facts: Sequence[Fact], whole: Range) -> list[Fact]:
    """Facts are sorted and do not overlap: those in question lie side by side."""
    at = max(0, bisect.bisect(facts, whole.start, key=lambda fact: fact.range.start) - 1)
    found = []
    for index in range(at, len(facts)):  # a slice would copy all the rest, for each range anew
        fact = facts[index]
        if whole.end and fact.range.start >= whole.end:
            break
        if keyspace.overlaps(fact.range, whole):
            found.append(fact)
    return found


def _is_covered(facts: Sequence[Fact], whole: Range) -> bool:
    if not facts or facts[0].range.start > whole.start:
        return False
    for one, other in itertools.pairwise(facts):
        if not keyspace.adjacent(one.range, other.range):
            return False
    last = facts[-1].range.end
    return not last or (bool(whole.end) and whole.end <= last)


def make(api: Api, namespace: str, key_space: str, wanted: Mapping[str, Range]) -> dict[str, Object]:
    """Create these Partitions; the ones that were new. Raises Malformed where a name has another range by now."""

    def one(item: tuple[str, Range]) -> Object | None:
        name, whole = item
        spec = {"keySpace": key_space, "range": {"start": whole.start, "end": whole.end}}
        obj = _object(PARTITIONS, namespace, name, spec, key_space)

        def decide(before: Object | None) -> tuple[Object | Delete | None, None]:
            if before is not None and (keyspace.range_of(before), keyspace.space_of(before)) != (whole, key_space):
                raise Malformed("name", name, f"somebody has just made it as {keyspace.range_of(before)}: look again")
            return before or obj, None

        done = commit(api, PARTITIONS, name, namespace, decide, seen=None)
        return done.after if done.changed else None

    if len(wanted) <= 1:
        made = list(map(one, wanted.items()))
    else:
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            made = list(pool.map(one, wanted.items()))
    return {obj["metadata"]["name"]: obj for obj in made if obj}


def await_served(api: Api, namespace: str, key_space: str, wanted: Mapping[str, Range], deadline: float) -> None:
    """Wait until somebody serves all of these ranges. Raises TimedOut."""
    left = ""
    with _until(deadline) as stop:
        for change in api.follow(PARTITIONS, namespace, stop=stop):
            if not isinstance(change, (Snapshot, Put, Removed)):
                continue
            view = read_view(api, namespace, key_space)
            found = {whole: _overlapping(view.facts, whole) for whole in wanted.values()}
            waits = [
                whole
                for whole, facts in found.items()
                if not _is_covered(facts, whole) or not all(fact.primary for fact in facts)
            ]
            if not waits:
                return
            left = f"nobody serves {waits[0]}{f', and {len(waits) - 1} more' if len(waits) > 1 else ''}"
    raise TimedOut(f"waited for the partitions of KeySpace {namespace}/{key_space} in vain", left)


# ---------------------------------------------------------------------------------------------- absent


def remove(
    api: Api, namespace: str, known: Known, name: str, *, force: bool = False, check_mode: bool = False
) -> Result:
    """Delete a Partition. Raises Malformed while it is part of an operation, and while it is served, unless `force`."""

    def decide(before: Object | None) -> tuple[Object | Delete | None, Object | None]:
        if before is None:
            return None, None
        spec = before["spec"]
        if keyspace.space_of(before) != known.space.name:
            raise Malformed("name", name, f"it is of KeySpace {keyspace.space_of(before)}, not {known.space.name}")
        for other in (spec.get("claimedBy"), spec.get("madeBy")):
            if other and any(each["metadata"]["name"] == other and _is_open(each) for each in known.assignments):
                raise Malformed("name", name, f"it is part of Assignment {other}, which is not over: wait for its end")
        if spec.get("primary") and not force:
            remedy = f"worker {spec['primary']} serves it, and its data would be lost: merge it, or say force"
            raise Malformed("name", name, remedy)
        return DELETE, before

    done = commit(api, PARTITIONS, name, namespace, decide, check_mode=check_mode)
    before = done.before if done.changed else None
    shown = _shown([keyspace.fact_of(before)]) if before else {}
    return {"changed": done.changed, "assignment": {}, "partitions": [], "before": shown, "after": {}}


# ---------------------------------------------------------------------------------------------- what is asked for


class Request(NamedTuple):
    """An operation. `params` None: nothing is to be done; `before` and `after`: ranges, and who has them."""

    kind: str
    params: Mapping[str, Any] | None
    before: tuple[Fact, ...]
    after: tuple[tuple[Range, str], ...] = ()
    same: Callable[[operations.Plan], bool] = lambda _plan: False
    target: str = ""  # a worker that has to be there


def want_split(known: Known, name: str | None, key: str) -> Request:
    """Have a range begin at the key, in the Partition of that name, or in whichever has it. Raises Malformed."""
    fact = keyspace.owner(known.view, keyspace.check_split(known.space, Range("", ""), key))
    if name and (fact is None or fact.partition != name):
        _check_split_of(known, name, key)
    if fact is None:
        raise Malformed("splitKey", key, "it is in no Partition")

    def same(plan: operations.Plan) -> bool:
        return plan.kind == operations.SPLIT and plan.split_key == key and name in (None, *plan.operands)

    if fact.range.start == key:
        return Request(operations.SPLIT, None, (fact,), same=same)
    keyspace.check_split(known.space, fact.range, key)
    _check_served([fact])
    halves = ((Range(fact.range.start, key), fact.primary), (Range(key, fact.range.end), fact.primary))
    return Request(operations.SPLIT, {"partition": fact.partition, "splitKey": key}, (fact,), halves, same)


def _check_split_of(known: Known, name: str, key: str) -> None:
    """The key is in another Partition than the one that is named: fine, if that was split there. Raises Malformed."""
    there = next((fact for fact in known.view.facts if fact.partition == name), None)
    if there is not None:
        keyspace.check_split(known.space, there.range, key)
    elif not any(fact.range.start == key for fact in known.view.facts):
        fact = keyspace.owner(known.view, key)
        where = f"Partition {fact.partition}, {fact.range}, has the key" if fact else "nobody has the key"
        raise Malformed("name", name, f"there is no such Partition; {where}")


def want_merge(known: Known, names: Sequence[str] | None, whole: Range | None) -> Request:
    """Have one Partition in place of these, or of all that are in the range. Raises Malformed, which names a gap."""
    by_name = {fact.partition: fact for fact in known.view.facts}
    if names:
        return _merge_of(known, by_name, names)
    if whole is None:
        raise Malformed("partitions", names, "name those that are to be one, or give start and end")
    keyspace.check_range(known.space, *whole)
    facts = _overlapping(known.view.facts, whole)
    if not _is_covered(facts, whole):
        gap = next((gap for gap in known.view.gaps if keyspace.overlaps(gap, whole)), whole)
        raise Malformed("range", str(whole), f"{gap} is in no Partition")
    if facts[0].range.start != whole.start or facts[-1].range.end != whole.end:
        is_in = " and ".join(f"{fact.partition} {fact.range}" for fact in facts)
        raise Malformed("range", str(whole), f"give bounds that are there, or split there first: it is in {is_in}")
    if len(facts) == 1:
        names_of = _merged_from(known, facts[0])
        return Request(operations.MERGE, None, tuple(facts), same=lambda plan: plan.operands == names_of)
    return _merge_of(known, by_name, [fact.partition for fact in facts])


def _merged_from(known: Known, fact: Fact) -> tuple[str, ...]:
    """The operands of the operation that is just making this, if there is one."""
    for each in known.assignments:
        if _is_open(each) and fact.partition in {result.partition for result in keyspace.results_of(each)}:
            return operations.operands(each)
    return ()


def _merge_of(known: Known, by_name: Mapping[str, Fact], names: Sequence[str]) -> Request:
    def same(plan: operations.Plan) -> bool:
        return plan.kind == operations.MERGE and set(plan.operands) == set(names)

    if len(set(names)) < len(names) or not 2 <= len(names) <= operations.MAX_MERGE:
        raise Malformed("partitions", list(names), f"name 2 to {operations.MAX_MERGE}, each only once")
    missing = [name for name in names if name not in by_name]
    if missing:
        done = _done_before(known, same)
        if done is not None:
            return Request(operations.MERGE, None, done, same=same)
        raise Malformed("partitions", missing[0], "there is no such Partition; it may have been split or merged")
    facts = sorted((by_name[name] for name in names), key=lambda fact: keyspace.order(fact.range))
    _check_adjacent(known, facts)
    _check_served(facts)
    elsewhere = [fact for fact in facts if fact.primary != facts[0].primary]
    if elsewhere:
        one = elsewhere[0]
        remedy = f"{one.partition} is at {one.primary}, and {facts[0].partition} at {facts[0].primary}: move it first"
        raise Malformed("partitions", list(names), remedy)
    whole = Range(facts[0].range.start, facts[-1].range.end)
    params = {"partitions": [fact.partition for fact in facts]}
    return Request(operations.MERGE, params, tuple(facts), ((whole, facts[0].primary),), same)


def _check_adjacent(known: Known, facts: Sequence[Fact]) -> None:
    """Raises Malformed naming the gap, and what is in it."""
    try:
        operations.check_merge({fact.partition: fact.range for fact in facts})
    except Malformed as error:
        for one, other in itertools.pairwise(facts):
            if not keyspace.adjacent(one.range, other.range):
                gap = Range(one.range.end, other.range.start)
                between = [fact.partition for fact in _overlapping(known.view.facts, gap)]
                named = f"name {', '.join(between)}, too" if between else "no Partition has it"
                raise Malformed("partitions", [fact.partition for fact in facts], f"{error.remedy}; {named}") from None
        raise


def _done_before(known: Known, same: Callable[[operations.Plan], bool]) -> tuple[Fact, ...] | None:
    """What came of an Assignment that asked for the same, if that is still so."""
    there = {fact.partition: fact for fact in known.view.facts}
    for each in known.assignments:
        results = keyspace.results_of(each)
        if _plans(each, same) and results and all(fact.partition in there for fact in results):
            return tuple(there[fact.partition] for fact in results)
    return None


def want_move(known: Known, name: str | None, to: str | None) -> Request:
    """Have that worker serve the Partition; where nobody ever has, this is a New. Raises Malformed."""
    if not to:
        raise Malformed("to", to, "name the worker that is to serve it")
    fact = next((fact for fact in known.view.facts if fact.partition == name), None)
    if fact is None:
        raise Malformed("name", name, "there is no such Partition; it may have been split or merged")

    def same(plan: operations.Plan) -> bool:
        if plan.kind == operations.NEW:
            return (fact.partition, to) in zip(plan.operands, plan.primaries, strict=True)
        return plan.kind == operations.MOVE and plan.operands == (name,) and plan.target == to

    after = ((fact.range, to),)
    if fact.primary == to:
        return Request(operations.MOVE, None, (fact,), same=same)
    if not fact.primary:
        return Request(operations.NEW, {"partition": name, "primary": to}, (fact,), after, same, to)
    params = {"partition": name, "from": fact.primary, "to": to}
    return Request(operations.MOVE, params, (fact,), after, same, to)


def _check_served(facts: Iterable[Fact]) -> None:
    for fact in facts:
        if not fact.primary:
            raise Malformed("name", fact.partition, "nobody serves it: move it to a worker first")


def check_worker(api: Api, namespace: str, known: Known, worker: str) -> None:
    """Raises Malformed where there is no such worker; who may not look does not know."""
    try:
        workers = read_workers(api, namespace, known.space.name)
    except Forbidden:
        return
    there = sorted(each["name"] for each in workers if each["incarnation"])
    if worker not in there:
        listed = ", ".join(there[:10]) + (", …" if len(there) > 10 else "")
        raise Malformed("to", worker, f"no such worker is there; there {'are' if there else 'is'} {listed or 'none'}")


def _split_request(known: Known, wish: Wanted) -> Request:
    return want_split(known, wish.name, wish.split_key or "")


def _merge_request(known: Known, wish: Wanted) -> Request:
    is_bare = wish.start is None and wish.end is None
    return want_merge(known, wish.partitions, None if is_bare else Range(wish.start or "", wish.end or ""))


def _move_request(known: Known, wish: Wanted) -> Request:
    return want_move(known, wish.name, wish.to)


_REQUESTS: Final[dict[str, Callable[[Known, Wanted], Request]]] = {
    SPLIT: _split_request,
    MERGED: _merge_request,
    MOVED: _move_request,
}


# ---------------------------------------------------------------------------------------------- asking


def carry_out(
    api: Api,
    namespace: str,
    known: Known,
    request: Request,
    deadline: float | None,
    check_mode: bool = False,
    tell: Tell = lambda _operation: None,
) -> Result:
    """Ask for it, unless it is so or was asked for, and wait for its end where there is a deadline."""
    asked, is_new = ask(api, namespace, known, request, check_mode=check_mode)
    before = _shown(request.before)
    after = {str(whole): primary for whole, primary in request.after} if is_new else before
    if asked is not None and deadline is not None and not check_mode:
        asked = await_end(api, namespace, asked["metadata"]["name"], deadline, tell)
    if asked is not None and not check_mode:
        known = _known(api, namespace, known.space)
    spans = [whole for whole, _primary in request.after] or [fact.range for fact in request.before]
    there = [fact for fact in known.view.facts if any(keyspace.overlaps(fact.range, whole) for whole in spans)]
    return {
        "changed": is_new,
        "assignment": told_of(asked) if asked else {},
        "partitions": _told(there, known),
        "before": before,
        "after": after,
    }


def ask(
    api: Api, namespace: str, known: Known, request: Request, *, check_mode: bool = False
) -> tuple[Object | None, bool]:
    """The Assignment that does it, and whether it is new; None where it is so already.

    One that was asked for in the same words, and is not over, is that; one that was aborted is asked for anew.
    """
    for each in known.assignments:
        if _is_open(each) and _plans(each, request.same):
            return each, False
    if request.params is None:
        return None, False
    spec = operations.make("", known.space.name, request.kind, **request.params)["spec"]
    base = assignment_name(spec, [known.partitions.get(fact.partition) for fact in request.before], request.before)
    attempt = 1
    while True:
        name = base if attempt == 1 else f"{base}-{attempt}"
        made = operations.make(name, known.space.name, request.kind, **request.params)
        made["metadata"]["namespace"] = namespace
        done = commit(api, ASSIGNMENTS, name, namespace, _unless_there(made), check_mode=check_mode)
        if not done.verdict:
            return done.after, done.changed
        attempt += 1


def _unless_there(made: Object) -> Callable[[Object | None], tuple[Object | Delete | None, bool]]:
    """Create it where there is none; the verdict is whether there is one that was aborted."""

    def decide(before: Object | None) -> tuple[Object | Delete | None, bool]:
        return before or made, before is not None and operations.phase_of(before) == operations.ABORTED

    return decide


def assignment_name(spec: Object, partitions: Iterable[Object | None], facts: Sequence[Fact]) -> str:
    """The same for the same operation on the same Partitions, at the same epochs."""
    stands = [
        [fact.partition, fact.epoch, obj["metadata"].get("uid") if obj else ""]
        for fact, obj in zip(facts, partitions, strict=True)
    ]
    digest = hashlib.sha256(json.dumps([spec, stands], sort_keys=True).encode()).hexdigest()[:8]
    stem = facts[0].partition[:MAX_STEM].rstrip("-.")
    return f"{WORDS[spec['type']]}-{stem}-{digest}"


def await_end(api: Api, namespace: str, name: str, deadline: float, tell: Tell = lambda _operation: None) -> Object:
    """Wait until it is over; `tell` is told of each state on the way. Raises MusterError where it was aborted."""
    began, last = time.monotonic(), "nothing was heard of it"
    with _until(deadline) as stop:
        for change in api.follow(ASSIGNMENTS, namespace, name=name, stop=stop):
            if isinstance(change, Removed) or (isinstance(change, Snapshot) and not change.items):
                raise MusterError(f"Assignment {name} is gone: somebody has deleted it")
            if not isinstance(change, (Snapshot, Put)):
                continue
            obj = change.items[0] if isinstance(change, Snapshot) else change.obj
            operation = told_of(obj)
            tell(operation)
            last = f"{operation['phase']}{operation['message'] and ': '}{operation['message']}"
            if operation["phase"] == operations.ABORTED:
                raise MusterError(f"Assignment {name} was aborted, and all is as it was: {operation['message']}")
            if operation["phase"] == operations.COMPLETED:
                return obj
    raise TimedOut(f"waited {time.monotonic() - began:.0f} s for Assignment {name} to be completed in vain", last)


def abort(api: Api, namespace: str, name: str) -> Result:
    """Have an operation undone, if it is not committed yet. Raises Malformed."""
    try:
        obj = api.get(ASSIGNMENTS, name, namespace)
        phase = operations.phase_of(obj)
        if phase in (operations.COMMITTED, operations.COMPLETED):
            raise Malformed("assignment", name, f"it is {phase}, which is final: ask for the way back in place of it")
        if phase != operations.ABORTED:
            api.delete(ASSIGNMENTS, name, namespace, uid=obj["metadata"]["uid"])
    except NotFound:
        raise Malformed("assignment", name, f"there is none of this name in namespace {namespace}") from None
    return told_of(obj)


@contextmanager
def _until(deadline: float) -> Iterator[threading.Event]:
    """An event that is set at the deadline, on the monotonic clock."""
    stop = threading.Event()
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), stop.set)
    timer.daemon = True
    timer.start()
    try:
        yield stop
    finally:
        timer.cancel()
        stop.set()


# ---------------------------------------------------------------------------------------------- info


def info(
    api: Api,
    *,
    namespace: str,
    key_space: str | None = None,
    key: str | None = None,
    check_mode: bool = False,
) -> Result:
    """The key spaces of a namespace, or the one of that name, and what goes on in them; and who has the key.

    Raises Malformed where the key is none of the space that is named; of several, it is looked for where it can be.
    """
    return {"changed": False, "key_spaces": look(api, namespace, key_space, key)}


def look(api: Api, namespace: str, key_space: str | None = None, key: str | None = None) -> list[Result]:
    """As `info` tells it."""
    try:
        spaces = api.list(KEY_SPACES, namespace).items
    except NotFound:
        return []  # the cluster does not know the kind
    named = [each for each in spaces if key_space in (None, each["metadata"]["name"])]
    return [_look(api, namespace, each, key, strict=key_space is not None) for each in named]


def _look(api: Api, namespace: str, obj: Object, key: str | None, *, strict: bool) -> Result:
    name, status = obj["metadata"]["name"], obj.get("status") or {}
    partitions, assignments, view = read_parts(api, namespace, name)
    try:
        space, error = keyspace.parse_space(obj), None
    except Malformed as malformed:
        space, error = Space(name, 1), str(malformed)
    known = Known(space, {each["metadata"]["name"]: each for each in partitions}, tuple(assignments), view)
    counts: dict[str, int] = {}
    for fact in view.facts:
        counts[fact.primary] = counts.get(fact.primary, 0) + 1
    try:
        workers = read_workers(api, namespace, name)
    except Forbidden:
        workers = []
    return {
        "name": name,
        "namespace": namespace,
        "key_length": space.key_length,
        "alphabet": space.alphabet,
        "covered": not view.gaps,
        "gaps": [{"start": gap.start, "end": gap.end} for gap in view.gaps],
        "unserved": counts.get("", 0),
        "partitions": _told(view.facts, known),
        "void": list(view.void),
        "operations": [told_of(each) for each in assignments if _is_open(each)],
        "aborted": [told_of(each) for each in assignments if operations.phase_of(each) == operations.ABORTED][-5:],
        "workers": [{**each, "partitions": counts.get(each["name"], 0)} for each in workers],
        "owner": None if key is None or error else _owner(known, key, strict=strict),
        "message": status.get("message") or "",
        "error": error,
    }


def _owner(known: Known, key: str, *, strict: bool) -> Result | None:
    try:
        fact = keyspace.owner(known.view, keyspace.check_key(known.space, key))
    except Malformed:
        if strict:
            raise
        return None
    return _told([fact], known)[0] if fact else None


def read_workers(api: Api, namespace: str, key_space: str) -> list[Result]:
    """The workers of a key space by their Leases, sorted by name. `incarnation` is "" where it was released."""
    found = []
    for lease in api.list(LEASES, namespace, label_selector=f"{LABEL}={key_space}").items:
        name = lease["metadata"]["name"].removeprefix(f"{key_space}.")
        spec, notes = lease.get("spec") or {}, lease["metadata"].get("annotations") or {}
        found.append(
            {
                "name": name,
                "address": notes.get(ADDRESS) or "",
                "leaving": notes.get(LEAVING) == "true",
                "incarnation": (spec.get("holderIdentity") or "").removeprefix(f"{name}/"),
                "renewed": spec.get("renewTime") or "",
                "lease_seconds": spec.get("leaseDurationSeconds") or 0,
            }
        )
    return sorted(found, key=lambda each: each["name"])


# ---------------------------------------------------------------------------------------------- what is told


def told_of(assignment: Object) -> Result:
    """An Assignment, as users are told of it."""
    status, spec = assignment.get("status") or {}, assignment.get("spec") or {}
    try:
        plan = operations.parse(assignment)
    except Malformed:
        plan = operations.Plan(str(spec.get("type") or ""), ())
    targets = sorted(set(plan.primaries)) if plan.kind == operations.NEW else [plan.target] if plan.target else []
    return {
        "name": assignment["metadata"]["name"],
        "type": plan.kind,
        "phase": operations.phase_of(assignment),
        "message": status.get("message") or "",
        "partitions": list(plan.operands),
        "split_key": plan.split_key,
        "from": plan.source,
        "to": targets[0] if len(targets) == 1 else "",
        "created": assignment["metadata"].get("creationTimestamp") or "",
        "committed": status.get("committedAt") or "",
        "results": [
            {
                "name": fact.partition,
                "start": fact.range.start,
                "end": fact.range.end,
                "primary": fact.primary,
                "epoch": fact.epoch,
            }
            for fact in keyspace.results_of(assignment)
        ],
    }


def _told(facts: Iterable[Fact], known: Known) -> list[Result]:
    """Ranges of the effective view, each with what its Partition says beside."""
    going = {each["metadata"]["name"] for each in known.assignments if _is_open(each)}
    return [_told_one(fact, known, going) for fact in facts]


def _told_one(fact: Fact, known: Known, going: set[str]) -> Result:
    obj = known.partitions.get(fact.partition) or {}
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    concerned = (fact.assignment, spec.get("claimedBy"), spec.get("madeBy"))
    fenced = "" if fact.assignment else spec.get("fencedBy") or ""
    return {
        "name": fact.partition,
        "start": fact.range.start,
        "end": fact.range.end,
        "primary": fact.primary,
        "proxy": fact.proxy or spec.get("proxy") or "",
        "epoch": fact.epoch,
        "followers": list(spec.get("followers") or ()),
        "operation": next((name for name in concerned if name in going), ""),
        "fenced": bool(fenced),
        "phase": status.get("phase") or (READY if fact.assignment else ""),
        "message": status.get("message") or "",
    }


def _shown(facts: Iterable[Fact]) -> Result:
    """For a diff: ranges, and who has them."""
    return {str(fact.range): fact.primary for fact in facts}


def _plans(assignment: Object, same: Callable[[operations.Plan], bool]) -> bool:
    try:
        return same(operations.parse(assignment))
    except Malformed:
        return False


def _is_open(assignment: Object) -> bool:
    return not operations.is_final(assignment)


def _object(resource: Resource, namespace: str, name: str, spec: Object, key_space: str = "") -> Object:
    metadata: Object = {"name": name, "namespace": namespace}
    if key_space:
        metadata["labels"] = {LABEL: key_space}
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "spec": spec}


def _camel(option: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), option)


def _snake(field: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", field)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's copies of partitions: what a call makes of them, and what the worker may do by its own read.

Rules
1. A call is a hint. It can take authority away (`fence`), prepare and tidy up; it can't give authority. What a call
   changes is durable before it is answered. A call whose epoch is below the copy's is stale, and refused.
2. Authority comes from the worker's own read of the API server: the Partition first, then the Assignment that claims
   it, both from the store and not from a cache. It has to name the worker, at an epoch above the one at which the copy
   was fenced and not below the copy's; and the worker has to have the data, for a copy is never made by authority.
3. A read counts for the session of the worker's Lease in which it was begun. When the Lease could not be renewed in
   time, the session is over, and with it all authority.
4. A fence is acknowledged with the copy's position when nothing more can be written to it. So who takes over knows what
   it has to have.
5. What a split or a merge makes comes out of the fenced copies of its sources, all in one transaction.
6. Copies that nobody wants any more are dropped by the worker's own look, whether or not somebody has told it to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Fact, Range, overlaps
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

LOADING, FOLLOWING, PRIMARY, FENCED, PROXY = "loading", "following", "primary", "fenced", "proxy"
ROLES: Final = (LOADING, FOLLOWING, PRIMARY, FENCED, PROXY)
COMMITTED, COMPLETED, ABORTING, ABORTED = "Committed", "Completed", "Aborting", "Aborted"
STALE, BUSY, NOT_HERE = "stale", "busy", "not-here"

Object = Mapping[str, Any]


class Copy(NamedTuple):
    """One partition's data at one worker. `position` is of its log: of the last change that is durable here.

    `epoch`: the highest at which this copy had authority, or was made. `fenced_epoch`: the highest at which it was
    fenced. `assignment`, `uid`: the operation that made, prepared or fenced it last; both empty at a follower's copy,
    which no operation made. `origin`: the worker that it loads from. `proxy`: the worker that requests are passed to.
    `followers`: who has to have a change before it is acknowledged.
    """

    partition: str
    range: Range
    role: str
    epoch: int = 0
    fenced_epoch: int = 0
    position: int = 0
    assignment: str = ""
    uid: str = ""
    prepared: str = ""
    origin: str = ""
    proxy: str = ""
    followers: tuple[str, ...] = ()


Copies = Mapping[str, Copy]


class Outcome(NamedTuple):
    """What becomes of the copies; all of it is one transaction.

    `write`: copies as they are from now on. `clear`: ranges whose data goes. `remove`: copies that end; their data goes
    too, unless a copy that is written has that range.
    """

    write: tuple[Copy, ...] = ()
    remove: tuple[str, ...] = ()
    clear: tuple[Range, ...] = ()
    refusal: str = ""
    why: str = ""


def to_json(copy: Copy) -> dict[str, Any]:
    """As a worker reports it."""
    return {
        "partition": copy.partition,
        "range": {"start": copy.range.start, "end": copy.range.end},
        "role": copy.role,
        "epoch": copy.epoch,
        "fencedEpoch": copy.fenced_epoch,
        "position": copy.position,
        "assignment": copy.assignment,
        "uid": copy.uid,
        "prepared": copy.prepared,
        "origin": copy.origin,
        "proxy": copy.proxy,
        "followers": list(copy.followers),
    }


def from_json(document: Any) -> Copy:
    """What a worker reported. Raises Malformed."""
    try:
        words = [document.get(field, "") for field in ("assignment", "uid", "prepared", "origin", "proxy")]
        numbers = [document[field] for field in ("epoch", "fencedEpoch", "position")]
        copy = Copy(
            document["partition"],
            keyspace.range_of(document),
            document["role"],
            *(*numbers, *words, tuple(document.get("followers") or ())),
        )
        fine = copy.role in ROLES and isinstance(copy.partition, str)
        fine = fine and all(isinstance(number, int) and number >= 0 for number in numbers)
        fine = fine and all(isinstance(word, str) for word in (*words, *copy.followers))
    except (AttributeError, KeyError, TypeError):
        fine = False
    if not fine:
        raise Malformed("a copy of a worker", document, "give partition, range, role, epoch, fencedEpoch and position")
    return copy


# ---------------------------------------------------------------------------------------------- calls


def order_of(body: Any) -> dict[str, Any]:
    """The body of a call, with all its fields and of the right kinds. Raises Malformed naming the field."""
    if not isinstance(body, Mapping):
        raise Malformed("the body", body, "give a JSON object")
    order = {field: body.get(field) or "" for field in ("assignment", "uid", "partition", "follower")}
    for field, value in order.items():
        if not isinstance(value, str) or len(value) > 253:
            raise Malformed(field, value, "give a name of at most 253 characters")
    if not order["partition"]:
        raise Malformed("partition", order["partition"], "name the partition")
    epoch = body.get("epoch", 0)
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
        raise Malformed("epoch", epoch, "give an integer of at least 0")
    for field in ("from", "to"):
        peer = body.get(field)
        if peer is not None and not (isinstance(peer, Mapping) and isinstance(peer.get("worker"), str)):
            raise Malformed(field, peer, 'give {"worker": NAME, "address": URL}, or null')
    bounds = body.get("range") or {}
    if not isinstance(bounds, Mapping) or not all(isinstance(each, str) for each in bounds.values()):
        raise Malformed("range", bounds, 'give {"start": BOUND, "end": BOUND}')
    peers = {field: (body.get(field) or {}).get("worker", "") for field in ("from", "to")}
    return {**order, **peers, "epoch": epoch, "range": keyspace.range_of({"range": bounds})}


def follow(copies: Copies, order: Object) -> Outcome:
    """Have a copy that loads from another worker; from none: an empty one, of a partition that nobody ever served."""
    name, whole, source = order["partition"], order["range"], order["from"]
    copy = copies.get(name)
    is_mine = copy is not None and (copy.assignment, copy.uid) == (order["assignment"], order["uid"])
    is_same = is_mine and copy.role in (LOADING, FOLLOWING) and copy.origin == source if copy else False
    if copy and is_same and (copy.uid or order["epoch"] <= copy.epoch):
        return Outcome()  # a follower begins anew at a higher epoch: its log may be one that was not gone on with
    if copy and copy.epoch >= order["epoch"]:
        return _refuse(STALE, f"the copy has epoch {copy.epoch}")  # of another operation, which may be decided by now
    in_the_way = [each for each in copies.values() if overlaps(each.range, whole) and not _gives_way(each, name)]
    if in_the_way:
        return _refuse(BUSY, f"{in_the_way[0].partition} is {in_the_way[0].role} here")
    role = LOADING if source else FOLLOWING
    made = Copy(name, whole, role, order["epoch"], 0, 0, order["assignment"], order["uid"], origin=source)
    return Outcome((made,), clear=(whole,))


def _gives_way(copy: Copy, name: str) -> bool:
    """A copy which never had data of its own gives way to a new one of the same partition."""
    return copy.partition == name and copy.role in (LOADING, FOLLOWING)


def prepare(copies: Copies, order: Object) -> Outcome:
    """Be ready for a split or merge of it: nothing has to be loaded, the data is here."""
    copy = copies.get(order["partition"])
    if copy is None or copy.role != PRIMARY:
        return _refuse(NOT_HERE, "it is not served here")
    if order["epoch"] < copy.epoch:
        return _refuse(STALE, f"the copy has epoch {copy.epoch}")
    if copy.prepared == order["uid"]:
        return Outcome()
    return Outcome((copy._replace(prepared=order["uid"]),))


def fence(copies: Copies, order: Object) -> Outcome:
    """Serve it no more, until an own read says otherwise at a higher epoch."""
    copy, epoch = copies.get(order["partition"]), order["epoch"]
    if copy is None or copy.role not in (PRIMARY, FENCED):
        return _refuse(NOT_HERE, "it is not served here")
    if epoch <= copy.epoch or epoch < copy.fenced_epoch:
        return _refuse(STALE, f"the copy has epoch {copy.epoch}, and was fenced at {copy.fenced_epoch}")
    if epoch == copy.fenced_epoch:
        return Outcome()
    fenced = copy._replace(role=FENCED, fenced_epoch=epoch, assignment=order["assignment"], uid=order["uid"])
    return Outcome((fenced._replace(proxy=""),))


def proxy(copies: Copies, order: Object) -> Outcome:
    """Pass requests to the worker that has it now."""
    copy = copies.get(order["partition"])
    if copy is None or copy.role not in (FENCED, PROXY):
        return _refuse(NOT_HERE, "it is not fenced here")
    if order["epoch"] <= max(copy.epoch, copy.fenced_epoch):
        return _refuse(STALE, f"the copy was fenced at {copy.fenced_epoch}")
    if copy.role == PROXY and copy.proxy == order["to"]:
        return Outcome()
    return Outcome((copy._replace(role=PROXY, proxy=order["to"]),))


def drop(copies: Copies, order: Object) -> Outcome:
    """Have no copy: of what an aborted operation was loading, or of what another worker has by now."""
    copy = copies.get(order["partition"])
    if copy is None:
        return Outcome()
    if copy.role in (LOADING, FOLLOWING):
        mine = (copy.assignment, copy.uid) == (order["assignment"], order["uid"])
        mine = mine and (bool(copy.uid) or order["epoch"] > copy.epoch)  # it may have become a follower once more
        return Outcome(remove=(copy.partition,)) if mine else _refuse(STALE, f"it is of {copy.assignment or 'nobody'}")
    if copy.role == PRIMARY:
        return _refuse(BUSY, "it is served here")
    if order["epoch"] <= max(copy.epoch, copy.fenced_epoch):
        return _refuse(STALE, f"the copy was fenced at {copy.fenced_epoch}")
    return Outcome(remove=(copy.partition,))


def promise(copies: Copies, order: Object) -> Outcome:
    """From now on acknowledge nothing that this follower does not have; it holds for this epoch."""
    copy, follower = copies.get(order["partition"]), order["follower"]
    if copy is None or copy.role != PRIMARY:
        return _refuse(NOT_HERE, "it is not served here")
    if order["epoch"] != copy.epoch:
        return _refuse(STALE, f"the copy has epoch {copy.epoch}")
    if not follower:
        raise Malformed("follower", follower, "name the worker that follows")
    if follower in copy.followers:
        return Outcome()
    return Outcome((copy._replace(followers=tuple(sorted({*copy.followers, follower}))),))


def _refuse(word: str, why: str) -> Outcome:
    return Outcome(refusal=word, why=why)


# ---------------------------------------------------------------------------------------------- authority


class Wait(NamedTuple):
    """Not now: nobody may serve it, or what was read does not fit together; look again soon."""

    why: str


class Serve(NamedTuple):
    """Serve it: this is the copy as it is from now on."""

    copy: Copy


class Take(NamedTuple):
    """Serve what a split or a merge has made out of copies that are here; these end."""

    copies: tuple[Copy, ...]
    sources: tuple[str, ...]


class Pass(NamedTuple):
    """Another worker has it; keep the copy for now, and pass requests on."""

    worker: str


class Drop(NamedTuple):
    """Nobody wants this copy."""

    why: str


class NeedsHeirs(NamedTuple):
    """Read which Partitions came out of it, and ask again."""


Verdict = Wait | Serve | Take | Pass | Drop | NeedsHeirs  # pylint: disable=unsupported-binary-operation


def assignment_to_read(copy: Copy, partition: Object | None) -> str:
    """The Assignment to read after the Partition; "" for none."""
    claimed: str = ((partition or {}).get("spec") or {}).get("claimedBy") or ""
    return claimed or (copy.assignment if partition is None or copy.role != PRIMARY else "")


def authority(
    copies: Copies,
    copy: Copy,
    partition: Object | None,
    assignment: Object | None,
    me: str,
    *,
    heirs: Iterable[Object] | None = None,
) -> Verdict:
    """What this worker may do with its copy, by what it has read: the Partition, then `assignment_to_read` of it.

    `heirs`: Partitions of the key space that have this one among their sources, and this one itself, read after both;
    None: they were not read. They are asked for (`NeedsHeirs`) where the Partition is gone, and no committed Assignment
    says why.

    A verdict counts only while the copy (but for its position) is the one with which the reads began.
    """
    committed = keyspace.results_of(assignment) if assignment and _phase(assignment) == COMMITTED else ()
    if copy.role in (LOADING, FOLLOWING):
        return _of_a_target(copy, partition, assignment, committed, me)
    made = [fact for fact in committed if copy.partition in {source.partition for source in fact.sources}]
    if made:
        return _of_a_source(copies, copy, made, me)
    named = next((each for each in committed if each.partition == copy.partition), None)
    if partition is None:
        if named and named.sources and named.primary == me:
            return _serve(copy, named.epoch, (), me)  # its Partition is not made yet
        if _is_open(assignment):
            return Wait(f"{copy.assignment} is not decided")
        return NeedsHeirs() if heirs is None else _of_heirs(copies, copy, list(heirs), me)
    spec, fact, known = partition["spec"], keyspace.fact_of(partition), max(copy.epoch, copy.fenced_epoch)
    if named and spec.get("claimedBy") == named.assignment:
        return _serve(copy, named.epoch, (), me) if named.primary == me else _elsewhere(copy, named)
    if spec.get("fencedBy"):
        return Wait(f"it is fenced by {spec['fencedBy']}")
    if fact.primary == me:
        return _serve(copy, fact.epoch, tuple(spec.get("followers") or ()), me)
    if not fact.primary and not fact.epoch and (not spec.get("claimedBy") or _is_open(assignment)):
        return Drop("the Partition was made anew, and nobody has served it")
    if fact.epoch < known:
        return Wait(f"the Partition has epoch {fact.epoch}, and the copy {known}")
    return _elsewhere(copy, fact) if spec.get("claimedBy") else Drop(f"{fact.primary or 'nobody'} has it")


def _of_a_target(
    copy: Copy, partition: Object | None, assignment: Object | None, committed: tuple[Fact, ...], me: str
) -> Verdict:
    """A copy that loads or follows: it is served when its own Assignment is committed, or when it is a follower's and
    has been called up; it goes with the Assignment that it was made for."""
    if partition is None:
        return Drop("the Partition is gone")
    spec, fact = partition["spec"], keyspace.fact_of(partition)
    named = next((each for each in committed if each.partition == copy.partition), None)
    is_own = assignment is not None and assignment["metadata"]["uid"] == copy.uid
    is_claimed = named is not None and spec.get("claimedBy") == named.assignment and named.primary == me
    if named and is_claimed and (is_own or (named.follower and not copy.uid)):
        return _serve(copy, named.epoch, (), me) if copy.role == FOLLOWING else Wait("it is still loading")
    if is_own and _phase(assignment) in (ABORTING, ABORTED):
        return Drop(f"{copy.assignment} was aborted")
    if fact.primary == me and not spec.get("fencedBy") and copy.role == FOLLOWING:
        # it was called up, and that was completed, while this worker was away: no operation is towards the primary
        return _serve(copy, fact.epoch, (), me)
    if not copy.uid:
        return Wait("it follows") if fact.primary else Drop("nobody serves it: there is nothing to follow")
    if spec.get("claimedBy") != copy.assignment:
        return Drop(f"{copy.assignment} is over")
    # where it was not there: the Partition was read before, and may have become this worker's since
    return Wait(f"{copy.assignment} is not decided" if is_own else f"{copy.assignment} is gone: look again")


def _of_a_source(copies: Copies, copy: Copy, made: list[Fact], me: str) -> Verdict:
    """A copy that has been split or merged: the results that are to be served here come out of it."""
    mine = [fact for fact in made if fact.primary == me]
    if not mine:
        return Drop(f"{made[0].primary or 'nobody'} has what came out of it")
    sources = {source for fact in mine for source in fact.sources}
    for source in sources:
        held = copies.get(source.partition)
        if held is None or held.role != FENCED or held.fenced_epoch != source.epoch:
            return Wait(f"there is no copy of {source.partition} here that was fenced at {source.epoch}")
    position = max(copies[source.partition].position for source in sources)
    taken = tuple(
        Copy(fact.partition, fact.range, PRIMARY, fact.epoch, position=position, assignment=fact.assignment)
        for fact in mine
    )
    return Take(taken, tuple(sorted(source.partition for source in sources)))


def _of_heirs(copies: Copies, copy: Copy, heirs: list[Object], me: str) -> Verdict:
    """The operation was completed without this worker, which was lost: what came out of it says what holds now."""
    if any(heir["metadata"]["name"] == copy.partition for heir in heirs):
        return Wait("its Partition was made just now")
    if not heirs:
        return Drop("the Partition is gone")
    fenced = [heir for heir in heirs if heir["spec"].get("fencedBy")]
    if fenced:
        return Wait(f"{fenced[0]['metadata']['name']} is fenced by {fenced[0]['spec']['fencedBy']}")
    return _of_a_source(copies, copy, list(map(keyspace.fact_of, heirs)), me)


def _serve(copy: Copy, epoch: int, followers: tuple[str, ...], me: str) -> Verdict:
    if epoch <= copy.fenced_epoch or epoch < copy.epoch:
        return Wait(f"{me} has it at epoch {epoch}, and was fenced at {copy.fenced_epoch}")
    kept = set(copy.followers) if epoch == copy.epoch and copy.role == PRIMARY else set()
    known = tuple(sorted({*followers, *kept}))
    served = copy._replace(role=PRIMARY, epoch=epoch, followers=known, origin="", proxy="")
    return Serve(served if epoch == copy.epoch else served._replace(prepared="", assignment="", uid=""))


def _elsewhere(copy: Copy, fact: Fact) -> Verdict:
    if fact.epoch < max(copy.epoch, copy.fenced_epoch):
        return Wait(f"what was read is older than the copy of {copy.partition}")
    return Pass(fact.primary) if fact.primary else Wait("nobody serves it")


def _is_open(assignment: Object | None) -> bool:
    return assignment is not None and _phase(assignment) not in (COMMITTED, COMPLETED, ABORTED)


def _phase(assignment: Object | None) -> str:
    return ((assignment or {}).get("status") or {}).get("phase") or ""

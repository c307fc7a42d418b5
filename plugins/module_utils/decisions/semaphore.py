# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The distributed semaphore in three annotations of one ConfigMap, as a pure state machine.

Rules
1. Whatever affects a transition is in the `Semaphore` or in the arguments; nothing here reads a clock or the cluster.
2. `distributor_assignment` says who holds what, because an old Distributor writes nothing else; `distributor_state`
   adds identity, fences and the queue. Where the two differ, the assignment wins.
3. A transition that changes anything ends with `settle`: what is free goes to the queue, in order, in the same write.
4. Nobody is revoked: capacity below what is held drains. What is malformed is refused and never overwritten.
5. Numbers (`epoch`) are handed out once, growing: a waiter's place and a grant's fence come from the same counter.
6. In mode v1 a holder has one permit of one resource, which an old Distributor can read. Mode v2 has counts of several,
   all or none; there the assignment is written so that an old Distributor fails to read it, and so never claims.

Theory: a FIFO queue with direct hand-off, so that a waiter writes once and then only watches (the idea of the queue
locks of Mellor-Crummey and Scott, 1991); fences are the sequencers of Chubby (Burrows, 2006); a large request is kept
from starving by holding back, for those behind it, the resources it waits for (conservative backfilling).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

CAPACITY = "distributor_capacity"
ASSIGNMENT = "distributor_assignment"
STATE = "distributor_state"
VERSION = 1
V1 = "v1"  # one permit of one resource a holder, visible to an old Distributor
V2 = "v2"  # counts of several resources; no old Distributor may share the ConfigMap
MODES = (V1, V2)
SENTINEL = ""  # in the assignment of mode v2, where an old Distributor can read names only: no holder has this name
ANY = "*"  # the want of a holder that takes any one resource, as in the seed
AGEING = 64  # a waiter gains one priority for so many numbers handed out behind it
MAX_ANNOTATIONS = 256 * 1024  # bytes; the API server's limit on all annotations of an object
ROOM = "spread the holders over several ConfigMaps, or use the engine tickets"
NUMBERS = 8192  # one write hands out fewer: each but one is in the document then, and so many entries don't fit
MAX_COUNT = 2**31 - 1
MAX_WANTS = 16  # resources in one claim
MAX_NAME = 253  # characters; the limit of a Pod's name
LEASE_SECONDS = range(3, 7 * 24 * 3600 + 1)
PRIORITIES = range(-1000, 1001)

Resources = Mapping[str, int]
Identity = tuple[str, "str | None"]  # holder name, Pod uid; None: written by an old Distributor, which knows no uid


@dataclass(frozen=True, slots=True)
class Lease:
    """How a holder that is not a Pod stays alive: `beat` must change within each `seconds`, as observers see it."""

    seconds: int
    beat: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Grant:
    """What one holder has. `fence` grows strictly; 0 means not numbered yet (an old Distributor wrote the grant)."""

    uid: str | None
    resources: Resources
    fence: int = 0
    since: str = ""
    lease: Lease | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Waiter:
    """A place in the queue; `seq` comes from the same counter as the fences."""

    holder: str
    uid: str | None
    want: Resources
    priority: int
    seq: int
    lease: Lease | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who asks, and for what. `want` maps 1 to 16 resource names to counts from 1; `{ANY: 1}` is any one resource."""

    holder: str
    uid: str | None
    want: Resources
    priority: int = 0
    lease_seconds: int | None = None

    def __post_init__(self) -> None:
        if not self.holder or len(self.holder) > MAX_NAME:
            raise Malformed("holder", self.holder, f"give a name of 1 to {MAX_NAME} characters")
        if self.priority not in PRIORITIES:
            raise Malformed("priority", self.priority, f"give a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}")
        if self.lease_seconds is not None and self.lease_seconds not in LEASE_SECONDS:
            raise Malformed(
                "lease", self.lease_seconds, f"give whole seconds from {LEASE_SECONDS[0]} to {LEASE_SECONDS[-1]}"
            )
        check_want(self.want, "want")

    @property
    def identity(self) -> Identity:
        return self.holder, self.uid


@dataclass(frozen=True, slots=True)
class Semaphore:
    """One document: what there is, who holds it, who waits. `epoch` is the last number handed out.

    `behind`: the state does not say what the assignment says, for another program changed that. `settle` writes it anew
    at once: if the same name came back into the assignment, it would be taken for the identity in the state.
    """

    capacity: Resources
    grants: Mapping[str, Grant] = field(default_factory=dict)
    queue: tuple[Waiter, ...] = ()
    epoch: int = 0
    extra: Mapping[str, Any] = field(default_factory=dict)
    behind: bool = False
    mode: str = V1

    def held(self) -> dict[str, int]:
        """Permits in use, by resource; resources without capacity included."""
        used = dict.fromkeys(self.capacity, 0)
        for grant in self.grants.values():
            for resource, count in grant.resources.items():
                used[resource] = used.get(resource, 0) + count
        return used

    def free(self) -> dict[str, int]:
        """Permits left, by resource; negative while a lowered capacity drains."""
        return {resource: self.capacity.get(resource, 0) - used for resource, used in self.held().items()}

    def order(self) -> list[Waiter]:
        """The queue as it will be served: by priority (ageing included), then first come."""
        return sorted(self.queue, key=lambda w: (-(w.priority + (self.epoch - w.seq) // AGEING), w.seq))

    def place(self, holder: str) -> int | None:
        """Place in the queue, the first is 1; None for one who does not wait."""
        names = [waiter.holder for waiter in self.order()]
        return names.index(holder) + 1 if holder in names else None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a transition made of the document, and why, in words for a person."""

    semaphore: Semaphore
    outcome: str  # held | granted | waiting | busy | released | absent
    reasons: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------- transitions


def claim(before: Semaphore, claimant: Claimant, *, now: str, enqueue: bool) -> Decision:
    """Give the claimant what it wants, or a place in the queue (`enqueue`), or say that it is busy.

    Who holds already keeps its grant and its fence; who waits already keeps its place. `now` is an RFC 3339 time for
    people to read. Raises MusterError where the claim cannot make sense: a resource nobody declared or more than there
    is of it, more than the mode can say, another grant in hand, a name that another identity still uses (reap it first
    if that one is dead).
    """
    name = claimant.holder
    _refuse_beyond_mode(before, claimant)
    grant = before.grants.get(name)
    if grant is not None:
        return _claim_again(before, grant, claimant, now)
    waiting = next((w for w in before.queue if w.holder == name), None)
    _refuse_other_identity(name, claimant.uid, waiting)
    lease = _lease_for(claimant, waiting.lease if waiting else None)
    if waiting is None or waiting.want != claimant.want:
        refuse_beyond(before.capacity, claimant.want, CAPACITY)
        epoch, extra = before.epoch + 1, waiting.extra if waiting else {}
        mine = Waiter(name, claimant.uid, dict(claimant.want), claimant.priority, epoch, lease, extra)
        queue = (*(w for w in before.queue if w.holder != name), mine)
    else:  # in its old place, so that asking again is no change
        epoch, mine = before.epoch, replace(waiting, priority=claimant.priority, lease=lease)
        queue = tuple(mine if w.holder == name else w for w in before.queue)
    after = settle(replace(before, queue=queue, epoch=epoch), now=now)
    if name in after.grants:
        return Decision(after, "granted", (was_free(after.grants[name].resources),))
    reasons = (f"{said(claimant.want)} is not free for {name}: {describe_holders(before, claimant.want)}",)
    if enqueue or waiting is not None:
        return Decision(after, "waiting", reasons)
    return Decision(before, "busy", reasons)


def release(before: Semaphore, holder: str, uid: str | None, *, now: str, keep_grant: bool = False) -> Decision:
    """Take the holder out, its grant and its place in the queue; `uid` None means whichever identity has the name.

    `keep_grant` gives up the place in the queue only: a waiter that leaves keeps what it was granted meanwhile.
    """

    def mine(entry_uid: str | None) -> bool:
        return uid is None or entry_uid is None or entry_uid == uid

    grants = {n: g for n, g in before.grants.items() if keep_grant or n != holder or not mine(g.uid)}
    queue = tuple(w for w in before.queue if w.holder != holder or not mine(w.uid))
    return _removed(before, grants, queue, now, f"{holder} left")


def reap(before: Semaphore, dead: Iterable[Identity], *, leaving: Collection[Identity] = (), now: str) -> Decision:
    """Take out the dead, by name AND uid: a Pod that was made again under the same name is somebody else.

    Those `leaving` live, but their Pods are being deleted: they keep what they hold and wait no more. With nobody dead
    it still settles: what others changed by hand or by an old program is put in order.
    """
    gone = frozenset(dead)
    grants = {name: grant for name, grant in before.grants.items() if (name, grant.uid) not in gone}
    queue = tuple(w for w in before.queue if (w.holder, w.uid) not in gone and (w.holder, w.uid) not in leaving)
    done = _removed(before, grants, queue, now, "dead holders were taken out")
    return replace(done, semaphore=settle(done.semaphore, now=now))


def renew(before: Semaphore, holder: str, uid: str | None) -> Semaphore:
    """Move the holder's lease on by one beat, so that observers see that it lives; no lease, no change."""

    def on(lease: Lease | None, entry_uid: str | None) -> Lease | None:
        return replace(lease, beat=lease.beat + 1) if lease and entry_uid == uid else lease

    grants = {n: replace(g, lease=on(g.lease, g.uid)) if n == holder else g for n, g in before.grants.items()}
    queue = tuple(replace(w, lease=on(w.lease, w.uid)) if w.holder == holder else w for w in before.queue)
    return replace(before, grants=grants, queue=queue)


def settle(before: Semaphore, *, now: str) -> Semaphore:
    """Hand what is free to the queue, in order, all that fits; and number the grants which have no fence yet.

    A waiter which does not fit holds back the resources that it wants, so nobody behind it takes them: a large request
    is not starved by small ones.
    """
    epoch = before.epoch
    grants = dict(before.grants)
    for name in sorted(name for name, grant in grants.items() if not grant.fence):
        epoch += 1
        grants[name] = replace(grants[name], fence=epoch, since=grants[name].since or now)
    free = before.free()
    held_back: set[str] = set()
    served: set[str] = set()
    for waiter in before.order():
        take = _fitting(waiter.want, {r: n for r, n in free.items() if r not in held_back})
        if take is None:
            held_back.update(waiter.want)
            continue
        epoch += 1
        for resource, count in take.items():
            free[resource] -= count
        grants[waiter.holder] = Grant(waiter.uid, take, epoch, now, waiter.lease, waiter.extra)
        served.add(waiter.holder)
    queue = tuple(w for w in before.queue if w.holder not in served)
    after = replace(before, grants=grants, queue=queue, epoch=epoch, behind=False)
    return after if after != before else before


def with_capacity(before: Semaphore, capacity: Resources, *, now: str) -> Semaphore:
    """The same semaphore with another capacity; what a raise sets free goes to the queue at once."""
    if dict(before.capacity) == dict(capacity):
        return before
    return settle(replace(before, capacity=dict(capacity)), now=now)


def with_mode(before: Semaphore, mode: str) -> Semaphore:
    """The same semaphore in another mode. Raises MusterError where somebody has, or waits for, what v1 can't say."""
    if mode == before.mode:
        return before
    wishes = [(name, grant.resources) for name, grant in sorted(before.grants.items())]
    wishes += [(waiter.holder, waiter.want) for waiter in before.queue]
    beyond = [f"{name} ({said(resources)})" for name, resources in wishes if single(resources) is None]
    if mode == V1 and beyond:
        raise MusterError(
            f"mode {V1} has one permit of one resource for a holder, and there is more for {_some(beyond)}: "
            f"let them leave first, or keep mode {V2}"
        )
    return replace(before, mode=mode)


# ---------------------------------------------------------------------------------------------- what is wanted


def single(resources: Resources) -> str | None:
    """The name of the resource (or ANY) where it is one with count 1, all that mode v1 can say; else None."""
    name, count = next(iter(resources.items()), (None, 0))
    return name if len(resources) == 1 and count == 1 else None


def check_want(want: Resources, where: str) -> None:
    """Raise Malformed, naming `where`, unless it is 1 to 16 resources with counts of 1 to 2^31 - 1, or `{ANY: 1}`."""
    if not 1 <= len(want) <= MAX_WANTS:
        raise Malformed(where, dict(want), f"name 1 to {MAX_WANTS} resources")
    for resource, count in want.items():
        if not isinstance(resource, str) or not 0 < len(resource) <= MAX_NAME:
            raise Malformed(where, {resource: count}, f"name each resource with 1 to {MAX_NAME} characters")
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MAX_COUNT:
            raise Malformed(where, {resource: count}, f"give each a whole number from 1 to {MAX_COUNT}")
    if ANY in want and want != {ANY: 1}:
        raise Malformed(where, dict(want), f"let {ANY!r}, which is any one resource, stand alone and with count 1")


def parse_want(items: Sequence[str]) -> dict[str, int]:
    """A want told as texts `NAME` or `NAME=COUNT`; none at all is any one resource. Raises Malformed for `resource`.

    A count is what follows the last `=` where that is digits only; any other `=` belongs to the name.
    """
    want: dict[str, int] = {}
    for item in items:
        name, equals, digits = item.rpartition("=")
        if not (equals and digits.isdecimal() and digits.isascii()):
            name, digits = item, "1"
        if name in want:
            raise Malformed("resource", item, f"name each resource once, as NAME=COUNT; {name!r} was named before")
        want[name] = int(digits) if len(digits) <= len(str(MAX_COUNT)) else MAX_COUNT + 1
    want = want or {ANY: 1}
    check_want(want, "resource")
    return want


def refuse_beyond(capacity: Resources, want: Resources, declared: str) -> None:
    """Raise Malformed for a want that can't be served: a resource that `declared` does not name, or more than there is.

    Who wants only what is out of service, which is declared with 0, may wait: it holds nobody up.
    """
    unknown = sorted(set(want) - {ANY} - set(capacity))
    if unknown:
        known = ", ".join(sorted(capacity)) or "none"
        raise Malformed("resource", unknown[0], f"name one that {declared} declares ({known}), or declare it there")
    short = _short(capacity, want)
    if short and any(capacity.get(resource) for resource in want):
        name = min(short)
        remedy = f"ask for no more than the capacity, which is {short[name]} ({declared}), or raise that first"
        raise Malformed("resource", f"{name}={want[name]}", remedy)


def out_of_reach(capacity: Resources, want: Resources) -> str | None:
    """Why one who waits can't be served under this capacity, in words; None where it can."""
    short = ", ".join(f"{count} of {resource}" for resource, count in sorted(_short(capacity, want).items()))
    return f"waits for {said(want)} while the capacity is {short}: until that is raised" if short else None


def _short(capacity: Resources, want: Resources) -> dict[str, int]:
    """Of which resources there are fewer than wanted, and how many there are."""
    return {r: capacity.get(r, 0) for r, count in want.items() if r != ANY and capacity.get(r, 0) < count}


# ---------------------------------------------------------------------------------------------- who is dead


def suspects(semaphore: Semaphore, living: Mapping[str, str]) -> list[Identity]:
    """The identities that must have a Pod and have none in `living` (Pod name to uid): to be confirmed, then reaped.

    Holders with a lease need no Pod. A grant of an old Distributor has no uid and can only be judged by its name.
    """
    entries = [(name, grant.uid, grant.lease) for name, grant in semaphore.grants.items()]
    entries += [(waiter.holder, waiter.uid, waiter.lease) for waiter in semaphore.queue]
    return [
        (name, uid)
        for name, uid, lease in entries
        if lease is None and (name not in living or uid not in (None, living[name]))
    ]


def leases(semaphore: Semaphore) -> dict[Identity, Lease]:
    """The leases in force: an observer which has seen one unchanged for its `seconds` may reap the identity."""
    found: dict[Identity, Lease] = {(n, g.uid): g.lease for n, g in semaphore.grants.items() if g.lease}
    found.update({(w.holder, w.uid): w.lease for w in semaphore.queue if w.lease})
    return found


# ---------------------------------------------------------------------------------------------- the wire format


def parse(annotations: Mapping[str, str], revision: int = 0) -> Semaphore:
    """Read the three annotations. Raises Malformed, naming the annotation and the remedy.

    `revision` is the object's resourceVersion: without a state the counter starts at NUMBERS times that, so that fences
    go on growing when a ConfigMap is deleted and made again, or when its state annotation is lost.
    """
    capacity = parse_capacity(json_object(annotations, CAPACITY))
    assignment = json_object(annotations, ASSIGNMENT)
    state = json_object(annotations, STATE)
    mode = _read_mode(assignment, state)
    epoch = count_of(state.get("epoch", NUMBERS * revision), where_in(STATE, "epoch"), bound=2**63)
    recorded = {
        name: _read_grant(entry, where_in(STATE, "grants", name), mode)
        for name, entry in json_map(state.get("grants", {}), where_in(STATE, "grants")).items()
    }
    marked = isinstance(assignment.get(SENTINEL), dict)
    if marked:
        del assignment[SENTINEL]
    grants = {}
    for name, value in assignment.items():
        resources = _read_assigned(value, where_in(ASSIGNMENT, name), mode)
        known = recorded.get(name)
        grants[name] = known if known and known.resources == resources else Grant(None, resources)
    queue = tuple(
        _read_waiter(entry, where_in(STATE, f"queue[{index}]"), mode)
        for index, entry in enumerate(_list(state.get("queue", []), where_in(STATE, "queue")))
    )
    names = [waiter.holder for waiter in queue]
    if len(set(names)) != len(names):
        raise Malformed(where_in(STATE, "queue"), names, "let each holder wait once")
    extra = {k: v for k, v in state.items() if k not in ("version", "mode", "epoch", "grants", "queue")}
    # A waiter whom an old Distributor served meanwhile has its grant and waits no more.
    waiting = tuple(waiter for waiter in queue if waiter.holder not in grants)
    behind = recorded != grants or waiting != queue or (mode == V2) != marked or state.get("mode", mode) != mode
    numbers = [grant.fence for grant in grants.values()] + [waiter.seq for waiter in queue]
    return Semaphore(capacity, grants, waiting, max([epoch, *numbers]), extra, behind, mode)


def parse_capacity(value: object, where: str = f"metadata.annotations[{CAPACITY}]") -> dict[str, int]:
    """Resource names to counts, each 0 to 2^31 - 1. Raises Malformed."""
    capacity = {}
    for resource, count in json_map(value, where).items():
        if not resource or len(resource) > MAX_NAME or resource == ANY:
            raise Malformed(f"{where} resource", resource, f"name it with 1 to {MAX_NAME} characters, not {ANY!r}")
        capacity[resource] = count_of(count, f"{where}.{resource}")
    return capacity


def begin(capacity: Resources, mode: str) -> dict[str, str]:
    """The annotations of a new semaphore; without a state, so that its numbers begin above those of a predecessor."""
    marked = {ASSIGNMENT: dump({SENTINEL: {"mode": V2}})} if mode == V2 else {}
    return {CAPACITY: dump(dict(capacity)), **marked}


def render(semaphore: Semaphore) -> dict[str, str]:
    """The annotations `distributor_assignment` and `distributor_state`, compact JSON; capacity is the user's own."""
    held = sorted((name, grant.resources) for name, grant in semaphore.grants.items())
    assignment: dict[str, Any] = {name: next(iter(resources)) for name, resources in held}
    if semaphore.mode == V2:
        assignment = {SENTINEL: {"mode": V2}} | {name: dict(resources) for name, resources in held}
    state = {
        **semaphore.extra,
        "version": VERSION,
        "mode": semaphore.mode,
        "epoch": semaphore.epoch,
        "grants": {name: _write_grant(grant) for name, grant in sorted(semaphore.grants.items())},
        "queue": [_write_waiter(waiter) for waiter in semaphore.queue],
    }
    return {ASSIGNMENT: dump(assignment), STATE: dump(state)}


def annotate(obj: Mapping[str, Any], before: Semaphore, after: Semaphore) -> dict[str, Any]:
    """The object with `after` in its annotations; all else, and an unchanged annotation's own spelling, is kept.

    Raises MusterError where the API server would refuse the annotations for their size.
    """
    metadata = obj.get("metadata", {})
    old = metadata.get("annotations") or {}
    if after == before:
        return dict(obj)
    new = {**old, **render(after)}
    if dict(after.capacity) != dict(before.capacity):
        new[CAPACITY] = dump(after.capacity)
    size = annotation_bytes(new)
    if size > MAX_ANNOTATIONS and size > annotation_bytes(old):
        need = f"{size} bytes for {len(after.grants)} grants and {len(after.queue)} waiters"
        raise MusterError(
            f"the annotations of ConfigMap {metadata.get('name')} would need {need}; "
            f"Kubernetes allows {MAX_ANNOTATIONS}: {ROOM}"
        )
    return {**obj, "metadata": {**metadata, "annotations": new}}


def crowded(obj: Mapping[str, Any]) -> list[str]:
    """A warning where the annotations of the object fill more than half of what Kubernetes allows."""
    size = annotation_bytes(obj["metadata"].get("annotations") or {})
    if size <= MAX_ANNOTATIONS // 2:
        return []
    part = f"{size} of the {MAX_ANNOTATIONS} bytes that Kubernetes allows"
    return [f"the annotations of ConfigMap {obj['metadata'].get('name')} fill {part}: {ROOM}"]


def annotation_bytes(annotations: Mapping[str, str]) -> int:
    """The size that the API server counts: keys and values, in UTF-8."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())


def dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# ---------------------------------------------------------------------------------------------- for people


def describe_holders(semaphore: Semaphore, want: Resources) -> str:
    """Who stands in the way of `want`, in one line of bounded length."""
    wanted = set(want) - {ANY} or set(semaphore.capacity)
    holders = [f"{n} (fence {g.fence})" for n, g in sorted(semaphore.grants.items()) if wanted & set(g.resources)]
    ahead = [waiter.holder for waiter in semaphore.order()]
    held = semaphore.held()
    parts = [
        f"{resource} {held.get(resource, 0)} of {semaphore.capacity.get(resource, 0)}" for resource in sorted(wanted)
    ]
    text = f"in use: {_some(parts) or 'no resource is declared'}"
    text += f"; held by {_some(holders)}" if holders else ""
    return text + (f"; queue: {_some(ahead)}" if ahead else "")


def view(semaphore: Semaphore) -> dict[str, Any]:
    """The document as plain lists for people, modules and JSON; waiters in the order in which they will be served."""
    held, free = semaphore.held(), semaphore.free()
    return {
        "resources": [
            {"name": name, "capacity": semaphore.capacity.get(name, 0), "held": held[name], "free": max(0, free[name])}
            for name in sorted(held)
        ],
        "holders": [
            {
                "holder": name,
                "resource": single(grant.resources),
                "resources": dict(grant.resources),
                "fence": grant.fence or None,
                "since": grant.since,
            }
            | {"uid": grant.uid, "lease": grant.lease.seconds if grant.lease else None}
            for name, grant in sorted(semaphore.grants.items())
        ],
        "waiters": [
            {"place": place, "holder": waiter.holder, "want": single(waiter.want), "wants": dict(waiter.want)}
            | {"priority": waiter.priority, "uid": waiter.uid}
            | {"lease": waiter.lease.seconds if waiter.lease else None}
            for place, waiter in enumerate(semaphore.order(), start=1)
        ],
    }


# ---------------------------------------------------------------------------------------------- private


def _claim_again(before: Semaphore, grant: Grant, claimant: Claimant, now: str) -> Decision:
    name = claimant.holder
    if grant.uid is not None and grant.uid != claimant.uid:
        _refuse_other_identity(name, claimant.uid, grant)
    if ANY not in claimant.want and dict(grant.resources) != dict(claimant.want):
        raise MusterError(
            f"{name} holds {said(grant.resources)} (fence {grant.fence}) and asks for {said(claimant.want)}: "
            "a holder has one claim; release it first"
        )
    mine = replace(grant, uid=claimant.uid, lease=_lease_for(claimant, grant.lease))
    if mine == grant:
        return Decision(before, "held", (f"{name} holds {said(grant.resources)} already",))
    if grant.uid is None:
        mine = replace(mine, fence=0)  # a new one: the old may be that of another Pod of this name, which is gone
    after = settle(replace(before, grants={**before.grants, name: mine}), now=now)
    if grant.uid is not None:
        return Decision(after, "held", (f"{name} holds {said(grant.resources)} with another lease now",))
    return Decision(after, "granted", (f"{name} takes over what an old Distributor assigned to its name",))


def _lease_for(claimant: Claimant, current: Lease | None) -> Lease | None:
    """The lease in hand if it has the length that the claimant asks for, else a new one."""
    if not claimant.lease_seconds:
        return None
    if current and current.seconds == claimant.lease_seconds:
        return current
    return Lease(claimant.lease_seconds, current.beat + 1 if current else 0)


def _refuse_other_identity(name: str, uid: str | None, entry: Grant | Waiter | None) -> None:
    if entry is not None and entry.uid != uid:
        raise MusterError(
            f"the name {name} is used by another holder (uid {entry.uid or 'none'}, not {uid or 'none'}): "
            "it goes when that one ends or is released"
        )


def _refuse_beyond_mode(semaphore: Semaphore, claimant: Claimant) -> None:
    if semaphore.mode == V1 and single(claimant.want) is None:
        raise MusterError(
            f"{claimant.holder} asks for {said(claimant.want)}, and in mode {V1} a holder has one permit of one "
            f"resource: set mode {V2} with k8s_semaphore; no old Distributor can share the ConfigMap then"
        )


def _removed(
    before: Semaphore, grants: Mapping[str, Grant], queue: tuple[Waiter, ...], now: str, reason: str
) -> Decision:
    if len(grants) == len(before.grants) and len(queue) == len(before.queue):
        return Decision(before, "absent")
    return Decision(settle(replace(before, grants=grants, queue=queue), now=now), "released", (reason,))


def _fitting(want: Resources, free: Resources) -> Resources | None:
    """What to take for `want`: itself if it fits, for ANY the resource with most left (ties by name), or None."""
    if ANY in want:
        best = min(free, key=lambda resource: (-free[resource], resource), default=None)
        return {best: 1} if best is not None and free[best] > 0 else None
    return dict(want) if all(free.get(resource, 0) >= count for resource, count in want.items()) else None


def said(resources: Resources) -> str:
    """Resources in words."""
    return ", ".join("any resource" if r == ANY else r if n == 1 else f"{n} of {r}" for r, n in resources.items())


def was_free(resources: Resources) -> str:
    """Why they were granted, in words."""
    return f"{said(resources)} {'was' if single(resources) else 'were'} free"


def _some(items: list[str], most: int = 8) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def where_in(*path: str) -> str:
    """Where something stands in an annotation, for messages: its name, and the keys that lead to it."""
    return f"metadata.annotations[{path[0]}]" + "".join(f".{part}" for part in path[1:])


def json_object(annotations: Mapping[str, str], key: str) -> dict[str, Any]:
    """The JSON object in an annotation, empty where that is missing. Raises Malformed."""
    text = annotations.get(key)
    if text is None:
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
        dump(value).encode()  # half a surrogate pair can be read, but never be written
    except (ValueError, RecursionError):
        raise Malformed(where_in(key), text, "put right its JSON by hand (kubectl edit); nothing was changed") from None
    return {} if value is None else json_map(value, where_in(key))  # Go writes null for an empty map


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def json_map(value: object, where: str) -> dict[str, Any]:
    """The value, if it is a JSON object. Raises Malformed."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise Malformed(where, value, "give a JSON object")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed(where, value, "give a JSON list")
    return value


def count_of(value: object, where: str, bound: int = MAX_COUNT) -> int:
    """The value, if it is a whole number from 0 to `bound`. Raises Malformed."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= bound:
        raise Malformed(where, value, f"give a whole number from 0 to {bound}")
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise Malformed(where, value, "give a JSON string")
    return value


def _read_mode(assignment: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """v2 where state or sentinel says so: what is read as v2 is read by nobody who must not.

    The sentinel alone is a semaphore that was just made, or has lost its state.
    """
    mode = state.get("mode", V1)
    if state and (state.get("version") != VERSION or mode not in MODES):
        found = {"version": state.get("version"), "mode": mode}
        known = f"version {VERSION}, modes {' and '.join(MODES)}"
        raise Malformed(where_in(STATE), found, f"this Muster knows {known}; use the newer one")
    sentinel = assignment.get(SENTINEL)
    if isinstance(sentinel, dict) and sentinel != {"mode": V2}:
        remedy = f'this Muster knows {{"mode": "{V2}"}} there; use the newer one'
        raise Malformed(where_in(ASSIGNMENT, repr(SENTINEL)), sentinel, remedy)
    return V2 if isinstance(sentinel, dict) else mode


def _read_assigned(value: object, where: str, mode: str) -> dict[str, int]:
    """What the assignment gives to one holder. Raises Malformed."""
    if mode == V1:
        if not isinstance(value, str):
            raise Malformed(where, value, "give the name of one resource, as a JSON string")
        return {value: 1}
    if isinstance(value, str):
        raise Malformed(where, value, f"give {dump({value: 1})}: this is mode {V2}, which no old Distributor can share")
    return _read_resources(value, where, mode)


def _read_resources(value: object, where: str, mode: str) -> dict[str, int]:
    resources = {name: count_of(count, f"{where}.{name}") for name, count in json_map(value, where).items()}
    if mode == V1 and single(resources) is None:
        raise Malformed(where, value, f"mode {V1} has one resource with count 1 for a holder")
    if not resources or 0 in resources.values():
        raise Malformed(where, value, "name one resource or more, each with its count from 1")
    return resources


def _read_lease(value: object, where: str) -> Lease | None:
    if value is None:
        return None
    entry = dict(json_map(value, where))
    seconds = count_of(entry.pop("seconds", None), f"{where}.seconds")
    if seconds not in LEASE_SECONDS:
        raise Malformed(f"{where}.seconds", seconds, f"give {LEASE_SECONDS[0]} to {LEASE_SECONDS[-1]}")
    return Lease(seconds, count_of(entry.pop("beat", 0), f"{where}.beat", bound=2**63), entry)


def _read_uid(value: object, where: str) -> str | None:
    return None if value is None else _text(value, where)


def _read_grant(value: object, where: str, mode: str) -> Grant:
    entry = dict(json_map(value, where))
    return Grant(
        uid=_read_uid(entry.pop("uid", None), f"{where}.uid"),
        resources=_read_resources(entry.pop("resources", {}), f"{where}.resources", mode),
        fence=count_of(entry.pop("fence", 0), f"{where}.fence", bound=2**63),
        since=_text(entry.pop("since", ""), f"{where}.since"),
        lease=_read_lease(entry.pop("expires", None), f"{where}.expires"),
        extra=entry,
    )


def _write_grant(grant: Grant) -> dict[str, Any]:
    entry = {**grant.extra, "uid": grant.uid, "resources": dict(grant.resources), "fence": grant.fence}
    return {**entry, "since": grant.since, **_write_lease(grant.lease)}


def _read_waiter(value: object, where: str, mode: str) -> Waiter:
    entry = dict(json_map(value, where))
    want = _read_resources(entry.pop("want", {}), f"{where}.want", mode)
    check_want(want, f"{where}.want")
    priority = entry.pop("priority", 0)
    if not isinstance(priority, int) or isinstance(priority, bool) or priority not in PRIORITIES:
        raise Malformed(f"{where}.priority", priority, f"give {PRIORITIES[0]} to {PRIORITIES[-1]}")
    return Waiter(
        holder=_text(entry.pop("holder", None), f"{where}.holder"),
        uid=_read_uid(entry.pop("uid", None), f"{where}.uid"),
        want=want,
        priority=priority,
        seq=count_of(entry.pop("seq", None), f"{where}.seq", bound=2**63),
        lease=_read_lease(entry.pop("expires", None), f"{where}.expires"),
        extra=entry,
    )


def _write_waiter(waiter: Waiter) -> dict[str, Any]:
    entry = {**waiter.extra, "holder": waiter.holder, "uid": waiter.uid, "want": dict(waiter.want)}
    return {**entry, "priority": waiter.priority, "seq": waiter.seq, **_write_lease(waiter.lease)}


def _write_lease(lease: Lease | None) -> dict[str, Any]:
    return {"expires": {**lease.extra, "seconds": lease.seconds, "beat": lease.beat}} if lease else {}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The semaphore without a hot object: one Lease a claim, and who holds is computed, not written (engine `tickets`).

Rules
1. A ticket's place is the revision at which it was created. etcd gives out each revision once, so places are a total
   order; the place is the fence, too.
2. Who holds is a function of the Leases at one revision: in order, a ticket holds if it fits and nobody before it waits
   for any of what it wants. Whoever has seen the same revisions computes the same; nobody writes to be granted.
3. So on each resource those who hold stand before those who wait, and a grant is final once seen: neither a ticket
   behind nor a departure nor a higher capacity can take it away.
4. Lowering the capacity revokes nobody. The capacity in force is written beside the one asked for, with the last place
   that held on each resource when it was asked for; while the two differ nobody new is granted (`still_held`).
5. "Any one resource" is chosen when the ticket is drawn: chosen later it would not be final. Who waits, and could have
   another at once, draws anew (`moves`).
6. A ticket that makes no sense, or is being deleted, or whose Pod has ended, holds nothing and keeps nobody waiting.

Theory: first come, first served with tickets, as in Lamport's bakery (1974), with numbers that can't tie; rule 3 is
what makes it safe to act on an old view: time can only add to what it grants.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    ANY,
    LEASE_SECONDS,
    Claimant,
    Grant,
    Lease,
    Resources,
    Semaphore,
    Waiter,
    check_want,
    count_of,
    dump,
    json_map,
    json_object,
    parse_capacity,
    refuse_beyond,
    where_in,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

LABEL: Final = "muster.dev/semaphore"  # on every Lease of a semaphore: its name
CAPACITY: Final = "muster.dev/capacity"  # on the semaphore's own Lease: JSON, resource to count; anybody may edit it
IN_FORCE: Final = "muster.dev/settled"  # beside it, ours: JSON, the capacity in force and since which places
ENDED: Final = "muster.dev/ended"  # beside it, ours: JSON, places of tickets whose Pod has ended but is still there
WANT: Final = "muster.dev/want"  # on a ticket: JSON, resource to count
ANY_ONE: Final = "muster.dev/any"  # on a ticket which would take any one resource: "true"
PLACE: Final = "muster.dev/place"  # on a ticket that was updated: JSON, the revision of its creation, and its uid
VERSION: Final = 1
MAX_LABEL: Final = 63  # characters; the limit of a label's value

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ticket:
    """One claim. `place` is its creation revision; `beat` its latest revision, which a renewal moves."""

    name: str
    lease_uid: str  # of the Lease
    holder: str
    uid: str  # of the Pod that owns it; empty for a holder with a lease
    want: Resources
    place: int
    beat: int
    since: str = ""
    lease_seconds: int | None = None
    any_one: bool = False

    @property
    def wish(self) -> Resources:
        """What was asked for when it was drawn."""
        return {ANY: 1} if self.any_one else self.want


@dataclass(frozen=True, slots=True)
class Terms:
    """The semaphore's own Lease. `asked` is None where it is malformed (`error`), `in_force` where nothing is yet.

    `upto` is, by resource, the last place that held when `in_force` was asked for: who stands no later goes on holding.
    `ended` are places, with their holders, whose Pod has ended although the Pod object, and so the ticket, is there.
    """

    asked: Resources | None
    in_force: Resources | None
    upto: Mapping[str, int]
    ended: Mapping[int, str] = field(default_factory=dict)
    error: Malformed | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the capacity asked for is in force; while it is not, nobody new is granted."""
        return self.asked is not None and self.in_force is not None and dict(self.asked) == dict(self.in_force)

    @property
    def capacity(self) -> Resources:
        """The one asked for, or the last that made sense."""
        return (self.in_force or {}) if self.asked is None else self.asked


@dataclass(frozen=True, slots=True)
class Book:
    """All Leases of one semaphore at one revision: its terms, and the live tickets in order."""

    terms: Terms
    tickets: tuple[Ticket, ...] = ()
    troubles: tuple[str, ...] = ()

    def find(self, name: str) -> Ticket | None:
        return next((ticket for ticket in self.tickets if ticket.name == name), None)


# ---------------------------------------------------------------------------------------------- who holds


def holders(book: Book) -> frozenset[int]:
    """The places that hold under the capacity in force. Only meaningful while it is the one asked for."""
    free = dict(book.terms.in_force or {})
    waited_for: set[str] = set()
    kept = max(book.terms.upto.values(), default=-1)
    held = []
    for ticket in book.tickets:
        want = ticket.want
        if ticket.place > kept and waited_for.issuperset(free):
            break  # whatever there is, somebody before it waits for it
        fits = waited_for.isdisjoint(want) and all(free.get(resource, 0) >= n for resource, n in want.items())
        if fits or all(ticket.place <= book.terms.upto.get(resource, -1) for resource in want):
            held.append(ticket.place)
            for resource, count in want.items():
                free[resource] = free.get(resource, 0) - count
        else:
            waited_for.update(want)
    return frozenset(held)


def still_held(book: Book, before: Collection[int]) -> frozenset[int]:
    """Who holds while a capacity is asked for that is not in force: who held `before`, as far as they are there."""
    return frozenset(ticket.place for ticket in book.tickets if ticket.place in before)


def last_places(held: Iterable[Ticket]) -> dict[str, int]:
    """By resource, the last place of those who hold it: on each, whoever stands no later holds."""
    upto: dict[str, int] = {}
    for ticket in held:
        for resource in ticket.want:
            upto[resource] = max(upto.get(resource, 0), ticket.place)
    return upto


def put_in_force(own: Object, held: Iterable[Ticket]) -> dict[str, Any]:
    """The semaphore's own Lease with the capacity it asks for in force. `held`: who held just before it was asked for.

    Raises Malformed where an annotation of it makes no sense: it is not overwritten.
    """
    terms = _sound(own)
    record = _record(own["metadata"].get("annotations") or {})
    record.update(version=VERSION, capacity=dict(terms.capacity), upto=last_places(held))
    return _annotated(own, {IN_FORCE: dump(record)})


def put_out(own: Object, leases: Iterable[Object], dead: Collection[str]) -> dict[str, Any]:
    """The own Lease with the tickets of `dead` Pods (uids) marked as ended; marks of tickets that are gone are removed.

    `leases`: all of the semaphore, read after `own`. Raises Malformed as `put_in_force` does.
    """
    before = _sound(own).ended
    there = {ticket.place: ticket for ticket in map(read_ticket, leases) if isinstance(ticket, Ticket)}
    ended = {place: ticket.holder for place, ticket in there.items() if place in before or ticket.uid in dead}
    if ended.keys() == before.keys():
        return dict(own)
    return _annotated(own, {ENDED: dump({str(place): ended[place] for place in sorted(ended)})})


# ---------------------------------------------------------------------------------------------- drawing a ticket


def ticket_name(semaphore: str, claimant: Claimant) -> str:
    """The name is the claim: one for each Pod uid, or for each name of a holder with a lease."""
    return f"{semaphore}.{claimant.uid or hashlib.sha256(claimant.holder.encode()).hexdigest()[:32]}"


def draw(book: Book, semaphore: str, namespace: str, claimant: Claimant) -> dict[str, Any]:
    """The Lease to create for a claim. Raises Malformed for what nobody declared, or more of it than there is."""
    if claimant.priority:
        remedy = "leave it out, since tickets are served in order of arrival; or use the engine annotations"
        raise Malformed("priority", claimant.priority, remedy)
    any_one = ANY in claimant.want
    want = {_choose(book, claimant): 1} if any_one else dict(claimant.want)
    if not any_one:
        refuse_beyond(book.terms.capacity, want, CAPACITY)
    metadata: dict[str, Any] = {
        "name": ticket_name(semaphore, claimant),
        "namespace": namespace,
        "labels": {LABEL: semaphore},
        "annotations": {WANT: dump(want), **({ANY_ONE: "true"} if any_one else {})},
    }
    if claimant.uid:
        owner = {"apiVersion": "v1", "kind": "Pod", "name": claimant.holder, "uid": claimant.uid}
        metadata["ownerReferences"] = [owner]
    spec: dict[str, Any] = {"holderIdentity": claimant.holder}
    if claimant.lease_seconds:
        spec["leaseDurationSeconds"] = claimant.lease_seconds
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def moves(book: Book) -> dict[int, str]:
    """Which waiting tickets should be drawn anew, by place, and for which resource.

    Each that would take any one resource, in order, as long as there is one that nobody else wants. It goes to the end
    of that queue, which is empty: so nobody is overtaken. Holds for the capacity in force; settled terms only.
    """
    waiting = [ticket for ticket in book.tickets if ticket.any_one]
    if not waiting or not book.terms.is_settled:
        return {}
    held, spare = holders(book), _spare(book)
    moved: dict[int, str] = {}
    for ticket in waiting:
        others = [resource for resource, left in spare.items() if left > 0 and resource not in ticket.want]
        if ticket.place not in held and others:
            best = max(others, key=lambda resource: (spare[resource], resource))
            moved[ticket.place] = best
            spare[best] -= 1
            for resource in ticket.want.keys() & spare.keys():
                spare[resource] += 1
    return moved


def is_for(ticket: Ticket, claimant: Claimant, *, holds: bool) -> bool:
    """Whether the claimant's ticket is for what it wants: who takes any one resource is content with what it has."""
    return dict(ticket.wish) == dict(claimant.want) or (holds and ANY in claimant.want)


def renewed(lease: Object, claimant: Claimant, *, now: str) -> dict[str, Any]:
    """The ticket with its lease renewed: any update does, for observers look at the revision. It keeps its place.

    `now` is an RFC 3339 time with microseconds, for people to read.
    """
    place = {"revision": _place(lease), "uid": lease["metadata"]["uid"]}
    spec = {**(lease.get("spec") or {}), "renewTime": now, "leaseDurationSeconds": claimant.lease_seconds}
    return {**_annotated(lease, {PLACE: dump(place)}), "spec": spec}


# ---------------------------------------------------------------------------------------------- the semaphore's Lease


def with_capacity(own: Object | None, name: str, namespace: str, capacity: Resources | None) -> dict[str, Any]:
    """The semaphore's own Lease, made or asking for this capacity (None: as it is).

    A new one is in force from the start, for nobody holds yet. Raises Malformed for a Lease that is no semaphore's.
    """
    if own is not None:
        if (own["metadata"].get("labels") or {}).get(LABEL) != name:
            remedy = f"choose another name, or label the Lease {LABEL}={name} if it is to be a semaphore"
            raise Malformed("name", name, remedy)
        asked = dict(_sound(own).capacity)
        return dict(own) if capacity is None or asked == dict(capacity) else _annotated(own, {CAPACITY: dump(capacity)})
    if not 0 < len(name) <= MAX_LABEL:
        raise Malformed("name", name, f"name a semaphore of tickets with 1 to {MAX_LABEL} characters: it is a label")
    record = {"version": VERSION, "capacity": dict(capacity or {}), "upto": {}}
    annotations = {CAPACITY: dump(dict(capacity or {})), IN_FORCE: dump(record)}
    metadata = {"name": name, "namespace": namespace, "labels": {LABEL: name}, "annotations": annotations}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}


# ---------------------------------------------------------------------------------------------- for people


def standing(book: Book, held: Collection[int]) -> Semaphore:
    """The same as a `Semaphore`, for people: who holds, and who waits in order; fences and numbers are places.

    Two identities of one name, of which one is about to be collected, are told apart by their uid.
    """
    names = Counter(ticket.holder for ticket in book.tickets)
    grants: dict[str, Grant] = {}
    queue: list[Waiter] = []
    for ticket in book.tickets:
        shown = ticket.holder if names[ticket.holder] == 1 else f"{ticket.holder} ({ticket.uid or 'lease'})"
        lease = Lease(ticket.lease_seconds, ticket.beat) if ticket.lease_seconds else None
        if ticket.place in held:
            grants[shown] = Grant(ticket.uid, ticket.want, ticket.place, ticket.since, lease)
        else:
            queue.append(Waiter(shown, ticket.uid, ticket.wish, 0, ticket.place, lease))
    return Semaphore(book.terms.capacity, grants, tuple(queue), max((t.place for t in book.tickets), default=0))


# ---------------------------------------------------------------------------------------------- the wire format


def parse(name: str, leases: Iterable[Object]) -> Book | None:
    """Read the Leases of the semaphore `name`; None when its own is not among them."""
    own: Terms | None = None
    entries = []
    for lease in leases:
        if lease["metadata"]["name"] == name:
            own = read_terms(lease)
        else:
            entries.append(read_ticket(lease))
    return None if own is None else bind(own, entries)


def bind(terms: Terms, entries: Iterable[Ticket | Malformed | None]) -> Book:
    """A book of what `read_terms` and `read_ticket` read, in any order."""
    tickets = [entry for entry in entries if isinstance(entry, Ticket)]
    troubles = [str(entry) for entry in entries if isinstance(entry, Malformed)]
    live: dict[int, Ticket] = {}
    for ticket in sorted(tickets, key=lambda ticket: (ticket.place, ticket.beat)):
        if ticket.place in terms.ended:
            continue
        if live.setdefault(ticket.place, ticket) is not ticket:  # forged, for a revision is given once
            remedy = f"remove the Lease, for {live[ticket.place].name} has that place"
            troubles.append(str(Malformed(f"Lease {ticket.name} {where_in(PLACE)}", ticket.place, remedy)))
    return Book(terms, tuple(live.values()), tuple(sorted(troubles)))


def read_terms(own: Object) -> Terms:
    """The semaphore's own Lease; what makes no sense in it is told by `error`."""
    annotations = own["metadata"].get("annotations") or {}
    asked: Resources | None = None
    in_force: Resources | None = None
    upto: dict[str, int] = {}
    ended: dict[int, str] = {}
    error = None
    try:
        if record := _record(annotations):
            in_force = parse_capacity(record.get("capacity"), f"{where_in(IN_FORCE)}.capacity")
            upto = _revisions(record.get("upto"), f"{where_in(IN_FORCE)}.upto")
        ended = _ended(annotations)
        asked = parse_capacity(json_object(annotations, CAPACITY), where_in(CAPACITY))
    except Malformed as malformed:
        error = malformed
    return Terms(asked, in_force, upto, ended, error)


def read_ticket(lease: Object) -> Ticket | Malformed | None:
    """A ticket; None for one that is being deleted, and what is wrong with it where it makes no sense."""
    metadata = lease["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    try:
        return _ticket(lease)
    except Malformed as error:
        return Malformed(f"Lease {metadata['name']} {error.field}", error.value, error.remedy)


# ---------------------------------------------------------------------------------------------- private


def _spare(book: Book) -> dict[str, int]:
    """What would be left of each resource if all who wait were served too; negative where they can't be."""
    spare = dict(book.terms.capacity)
    for ticket in book.tickets:
        for resource, count in ticket.want.items():
            if resource in spare:
                spare[resource] -= count
    return spare


def _choose(book: Book, claimant: Claimant) -> str:
    """The resource with most left; if none has any, the one whose queue is shortest for its capacity.

    What one who waits is about to move to is left to it. Ties are broken by a hash of holder and resource, so that many
    who draw at once don't all choose the same.
    """
    capacity, spare, promised = book.terms.capacity, _spare(book), moves(book)
    for resource in promised.values():
        spare[resource] -= 1

    def rank(resource: str) -> tuple[bool, float, str]:
        left = float(spare[resource])
        if left <= 0:
            left = left / capacity[resource] if capacity[resource] else float("-inf")
        lot = f"{claimant.holder}\n{claimant.uid or ''}\n{resource}"
        return left > 0 or resource not in promised.values(), left, hashlib.sha256(lot.encode()).hexdigest()

    if not capacity:
        raise Malformed(where_in(CAPACITY), {}, "declare a resource there")
    return max(capacity, key=rank)


def _ticket(lease: Object) -> Ticket:
    metadata, spec = lease["metadata"], lease.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    want = parse_capacity(json_object(annotations, WANT), where_in(WANT))
    check_want(want, where_in(WANT))
    seconds = spec.get("leaseDurationSeconds")
    if seconds is not None and seconds not in LEASE_SECONDS:
        remedy = f"give whole seconds from {LEASE_SECONDS[0]} to {LEASE_SECONDS[-1]}"
        raise Malformed("spec.leaseDurationSeconds", seconds, remedy)
    uid = next((o["uid"] for o in metadata.get("ownerReferences") or () if o.get("kind") == "Pod"), "")
    if not uid and seconds is None:
        remedy = "give the Pod that claims, or spec.leaseDurationSeconds; or delete the Lease, for nothing else ends it"
        raise Malformed("metadata.ownerReferences", metadata.get("ownerReferences"), remedy)
    return Ticket(
        name=metadata["name"],
        lease_uid=metadata.get("uid", ""),
        holder=spec.get("holderIdentity") or metadata["name"],
        uid=uid,
        want=want,
        place=_place(lease),
        beat=_revision(lease),
        since=metadata.get("creationTimestamp") or "",
        lease_seconds=seconds,
        any_one=annotations.get(ANY_ONE) == "true" and list(want.values()) == [1],
    )


def _place(lease: Object) -> int:
    """The revision of its creation. What another object's was, or a copy's, does not count: the uid says whose."""
    record = json_object(lease["metadata"].get("annotations") or {}, PLACE)
    if not record or record.get("uid") != lease["metadata"].get("uid"):
        return _revision(lease)
    return count_of(record.get("revision"), f"{where_in(PLACE)}.revision", bound=_revision(lease))


def _revision(lease: Object) -> int:
    version = str(lease["metadata"].get("resourceVersion", ""))
    if not version.isdecimal():
        remedy = "use the engine annotations: tickets need an API server whose versions are whole numbers (etcd)"
        raise Malformed("metadata.resourceVersion", version, remedy)
    return int(version)


def _record(annotations: Mapping[str, str]) -> dict[str, Any]:
    record = json_object(annotations, IN_FORCE)
    if record and record.get("version") != VERSION:
        remedy = f"this Muster knows version {VERSION}; use the newer one"
        raise Malformed(f"{where_in(IN_FORCE)}.version", record.get("version"), remedy)
    return record


def _ended(annotations: Mapping[str, str]) -> dict[int, str]:
    ended = json_object(annotations, ENDED)
    wrong = [place for place, holder in ended.items() if not (place.isdecimal() and isinstance(holder, str))]
    if wrong:
        raise Malformed(where_in(ENDED), ended, "give a JSON object of places and holders' names, or remove it")
    return {int(place): holder for place, holder in ended.items()}


def _revisions(value: object, where: str) -> dict[str, int]:
    return {name: count_of(n, f"{where}.{name}", bound=2**63) for name, n in json_map(value, where).items()}


def _annotated(obj: Object, annotations: Mapping[str, str]) -> dict[str, Any]:
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "annotations": {**(metadata.get("annotations") or {}), **annotations}}}


def _sound(own: Object) -> Terms:
    terms = read_terms(own)
    if terms.error is not None:
        raise terms.error
    return terms

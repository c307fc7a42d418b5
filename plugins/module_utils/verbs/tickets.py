# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine `tickets`: one Lease a claim; the decisions are in `decisions/tickets.py`.

Nobody writes to be granted, so there is no hot object: a claim is one create, a release is one delete, and the garbage
collector deletes the ticket of a Pod that is gone. Only what is rare is a compare-and-swap, on the semaphore's own
Lease: putting an edited capacity in force, and marking the ticket of a Pod that has ended but is still there.

Who holds is only ever computed on a whole prefix of the history: on a list, or on what one watch brought, in order.
What we wrote ourselves counts when the watch brings it back, for others may have written before it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    PODS,
    Api,
    Conflict,
    Gone,
    LostAnswer,
    NotFound,
    Put,
    Removed,
    ServerError,
    Snapshot,
    Throttled,
    Unreachable,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import DELETE, Delete, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as shown
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    Claimant,
    Grant,
    Lease,
    Resources,
    Semaphore,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.tickets import Book, Terms, Ticket
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import pods
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import (
    Acted,
    Configured,
    Due,
    Holding,
    NoSemaphore,
    Outcome,
    View,
    refuse_in_use,
)

Object = dict[str, Any]
EDITS = 8  # so many edits of the capacity under our hands are followed before it is called restless
WRITE_SECONDS = 10.0  # how long one write may be tried again


def what(name: str, namespace: str) -> str:
    """The object that is the semaphore, for messages."""
    return f"Lease {namespace}/{name}"


def selector(name: str) -> str:
    """The labels of all Leases of the semaphore."""
    return f"{decisions.LABEL}={name}"


# ---------------------------------------------------------------------------------------------- what stands


@dataclass(frozen=True)
class Look:
    """All Leases of a semaphore at one revision, and the places that hold at it."""

    book: Book
    held: frozenset[int]

    @cached_property
    def semaphore(self) -> Semaphore:
        """For people: it takes several times as long as all that the decision needs."""
        return decisions.standing(self.book, self.held)

    def holds(self, name: str) -> bool:
        ticket = self.book.find(name)
        return ticket is not None and ticket.place in self.held

    def holding(self, name: str) -> Holding:
        """What the ticket of this name has; nothing where there is none."""
        ticket = self.book.find(name)
        if ticket is None:
            return Holding()
        if ticket.place in self.held:
            return Holding(ticket.want, ticket.place, ticket.since)
        waiting = [other.place for other in self.book.tickets if other.place not in self.held]
        return Holding(place=waiting.index(ticket.place) + 1)

    def without(self, *, names: Collection[str] = (), uids: Collection[str] = ()) -> Look:
        """What would stand without these tickets."""
        return self._having(tuple(t for t in self.book.tickets if t.name not in names and t.uid not in uids))

    def in_force(self) -> Look:
        """What would stand if the capacity that is asked for was put in force now."""
        if self.book.terms.is_settled:
            return self
        upto = decisions.last_places(ticket for ticket in self.book.tickets if ticket.place in self.held)
        book = replace(self.book, terms=replace(self.book.terms, in_force=self.book.terms.asked, upto=upto))
        return Look(book, decisions.holders(book))

    def foresee(self, name: str, namespace: str, claimant: Claimant) -> Look:
        """What would stand if the claimant drew a ticket now, at a place that is only a guess."""
        drawn = decisions.draw(self.book, name, namespace, claimant)
        known = [*self.book.terms.upto.values(), *(ticket.place for ticket in self.book.tickets)]
        guess = max(known, default=0) + 1
        ticket = decisions.read_ticket({**drawn, "metadata": {**drawn["metadata"], "resourceVersion": str(guess)}})
        return self._having((*self.book.tickets, ticket)) if isinstance(ticket, Ticket) else self

    def _having(self, tickets: tuple[Ticket, ...]) -> Look:
        book = replace(self.book, tickets=tickets)
        is_settled = book.terms.is_settled
        return Look(book, decisions.holders(book) if is_settled else decisions.still_held(book, self.held))


NOTHING = Look(Book(Terms({}, {}, {})), frozenset())


def look(api: Api, name: str, namespace: str) -> Look:
    """The semaphore as it is now; only reads. Raises NoSemaphore, and Malformed where its own Lease makes no sense."""
    return see(api, name, namespace, api.list(LEASES, namespace, label_selector=selector(name)).items)


def see(api: Api, name: str, namespace: str, leases: Sequence[Object]) -> Look:
    """The same of Leases that were read; asks for older ones where a capacity is not in force yet."""
    book = decisions.parse(name, leases)
    if book is None:
        raise NoSemaphore(what(name, namespace))
    _refuse_malformed(book.terms, name, namespace)
    if book.terms.is_settled:
        return Look(book, decisions.holders(book))
    before = {ticket.place for ticket in held_before(api, name, namespace, _own(name, leases))}
    return Look(book, decisions.still_held(book, before))


def held_before(
    api: Api, name: str, namespace: str, own: Object, answers: dict[str, list[Ticket]] | None = None
) -> list[Ticket]:
    """The tickets that held just before the capacity of `own` was edited, and edited again, until somebody reacts.

    It reads the revision before the edit, which etcd keeps for five minutes. Where that is forgotten, it takes what
    held at the oldest revision that is known: then whoever came to fit since the edit is kept, too. `answers`, by the
    version of `own`, keep who tries again from walking the same edits again: more may come than it can walk.
    """
    answers = {} if answers is None else answers
    walked: list[str] = []
    known: Book | None = None
    while (version := own["metadata"]["resourceVersion"]) not in answers:
        walked.append(version)
        try:
            leases = api.list(LEASES, namespace, label_selector=selector(name), at=str(int(version) - 1)).items
        except Gone:
            leases = [] if known else api.list(LEASES, namespace, label_selector=selector(name)).items
            answers[version] = _held(known or decisions.parse(name, leases))
            break
        book = decisions.parse(name, leases)
        if book is None or book.terms.is_settled:
            answers[version] = _held(book)
            break
        known, own = book, _own(name, leases)
    answers.update(dict.fromkeys(walked, answers[version]))
    return answers[version]


def put_in_force(api: Api, name: str, namespace: str) -> Object | None:
    """Put the capacity in force that the semaphore's Lease asks for; returns that Lease."""
    answers: dict[str, list[Ticket]] = {}

    def decide(own: Object | None) -> tuple[Object, None]:
        if own is None:
            raise NoSemaphore(what(name, namespace))
        terms = decisions.read_terms(own)
        _refuse_malformed(terms, name, namespace)
        if terms.is_settled:
            return own, None
        return decisions.put_in_force(own, held_before(api, name, namespace, own, answers)), None

    return commit(api, LEASES, name, namespace, decide, timeout=WRITE_SECONDS).after


def settled(api: Api, name: str, namespace: str) -> Look:
    """The semaphore as it is now, after the capacity that is asked for was put in force."""
    for _edit in range(EDITS):
        there = look(api, name, namespace)
        if there.book.terms.is_settled:
            return there
        put_in_force(api, name, namespace)
    raise MusterError(f"{what(name, namespace)} is edited again and again: let its capacity rest, and try again")


# ---------------------------------------------------------------------------------------------- the dead


def dead(api: Api, namespace: str, tickets: Collection[Ticket]) -> set[str]:
    """The uids of those whose Pod is gone, or has ended; asked of the API server, not of a cache."""
    owned = {ticket.uid: ticket.holder for ticket in tickets if ticket.uid}
    alive = set(pods.living(api, namespace, set(owned.values())).values()) if owned else set()
    return owned.keys() - alive


def put_out(api: Api, name: str, namespace: str, uids: Collection[str]) -> Object | None:
    """Mark the tickets of dead Pods, by uid, as ended; returns the semaphore's Lease."""

    def decide(own: Object | None) -> tuple[Object, None]:
        if own is None:
            raise NoSemaphore(what(name, namespace))
        there = api.list(LEASES, namespace, label_selector=selector(name)).items
        return decisions.put_out(own, there, uids), None

    return commit(api, LEASES, name, namespace, decide, timeout=WRITE_SECONDS).after


# ---------------------------------------------------------------------------------------------- tickets


def draw(api: Api, name: str, namespace: str, claimant: Claimant, book: Book) -> Object | None:
    """Draw the claimant's ticket, or find the one that it has; returns that."""
    ticket = decisions.draw(book, name, namespace, claimant)

    def decide(there: Object | None) -> tuple[Object, None]:
        if there is None:
            return ticket, None
        found = decisions.read_ticket(there)
        if isinstance(found, Malformed):
            raise found
        if found is None:
            raise MusterError(
                f"Lease {namespace}/{there['metadata']['name']} is being deleted: try again when it is gone"
            )
        return there, None

    name = ticket["metadata"]["name"]
    return commit(api, LEASES, name, namespace, decide, timeout=WRITE_SECONDS, seen=None).after


def delete_ticket(api: Api, ticket: str, namespace: str, *, timeout: float = WRITE_SECONDS) -> bool:
    """Delete a ticket by its name, which only its holder uses; whether it was there. `timeout` in seconds."""
    try:
        api.delete(LEASES, ticket, namespace)
        return True
    except NotFound:
        return False
    except (LostAnswer, ServerError, Throttled, Unreachable):  # whether it was applied is found by reading
        return commit(api, LEASES, ticket, namespace, lambda _there: (DELETE, None), timeout=timeout).changed


def renew_ticket(api: Api, ticket: str, namespace: str, claimant: Claimant) -> Object | None:
    """Renew the claimant's lease; None when it has no ticket any more."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def decide(there: Object | None) -> tuple[Object | None, None]:
        return (None if there is None else decisions.renewed(there, claimant, now=now)), None

    return commit(api, LEASES, ticket, namespace, decide, timeout=WRITE_SECONDS).after


# ---------------------------------------------------------------------------------------------- as an Engine


def configure(
    api: Api,
    *,
    name: str,
    namespace: str,
    capacity: Resources | None,
    mode: str | None,
    present: bool,
    force: bool,
    check_mode: bool,
) -> Configured:
    """Create the semaphore's Lease, set its capacity, or remove it; by force, with the tickets that there are."""
    if mode is not None:
        raise Malformed("mode", mode, "leave it out: with the engine tickets any claim may have several resources")

    def there(own: Object | None) -> tuple[Object, None]:
        try:
            return decisions.with_capacity(own, name, namespace, capacity), None
        except Malformed as error:
            raise _here(error, name, namespace) from error

    def gone(own: Object | None) -> tuple[Delete, None]:
        if own is not None and not force:
            now = look(api, name, namespace)
            now = now.without(uids=dead(api, namespace, now.book.tickets))
            refuse_in_use(what(name, namespace), [ticket.holder for ticket in now.book.tickets])
        return DELETE, None

    done = commit(api, LEASES, name, namespace, there if present else gone, check_mode=check_mode)
    if not present:
        tickets = [] if check_mode else api.list(LEASES, namespace, label_selector=selector(name)).items
        for ticket in tickets:
            delete_ticket(api, ticket["metadata"]["name"], namespace)
        return Configured(done.changed, _capacity(done.before), {}, Semaphore({}))
    if check_mode:
        held = look(api, name, namespace).semaphore if done.before else Semaphore({})
        semaphore = replace(held, capacity=_capacity(done.after)["capacity"])
    else:
        semaphore = settled(api, name, namespace).semaphore
    return Configured(done.changed, _capacity(done.before), _capacity(done.after), semaphore)


def attempt(api: Api, *, name: str, namespace: str, claimant: Claimant, enqueue: bool, check_mode: bool) -> Outcome:
    """Draw a ticket and see whether it holds; without `enqueue` none that does not is drawn, or kept.

    Only where nothing is free are the Pods of those who hold looked at. Raises MusterError for a Pod that has ended.
    """
    mine = decisions.ticket_name(name, claimant)
    first = now = look(api, name, namespace).in_force() if check_mode else settled(api, name, namespace)
    if claimant.uid and claimant.holder in now.book.terms.ended.values():
        pods.refuse_gone(api, namespace, claimant.holder, claimant.uid)
    would = _would(now, name, namespace, claimant)
    if not would.holds(mine):
        gone = dead(api, namespace, [ticket for ticket in now.book.tickets if ticket.place in now.held])
        if gone and check_mode:
            now = now.without(uids=gone)
        elif gone:
            put_out(api, name, namespace, gone)
            now = settled(api, name, namespace)
        would = _would(now, name, namespace, claimant)
    waited = now.book.find(mine) is not None
    if would is now:
        if claimant.lease_seconds and not check_mode:
            renew_ticket(api, mine, namespace, claimant)
    elif not check_mode and (would.holds(mine) or enqueue or waited):
        if waited:  # for something else
            delete_ticket(api, mine, namespace)
        draw(api, name, namespace, claimant, now.without(names={mine}).book)
        would = settled(api, name, namespace)
        if not (would.holds(mine) or enqueue or waited):  # somebody was faster
            delete_ticket(api, mine, namespace)
    return _judge(claimant, mine, first, would, enqueue=enqueue or waited, guessed=check_mode and would is not now)


def withdraw(api: Api, *, name: str, namespace: str, claimant: Claimant) -> Outcome:
    """Give up the place in the queue, but keep what was granted meanwhile."""
    mine = decisions.ticket_name(name, claimant)
    now = settled(api, name, namespace)
    has = now.holding(mine)
    if has == Holding() or now.holds(mine):
        return Outcome("held" if now.holds(mine) else "absent", has, has, now.semaphore)
    delete_ticket(api, mine, namespace)
    return Outcome("released", has, Holding(), now.without(names={mine}).semaphore, (f"{claimant.holder} left",))


def release(
    api: Api, *, name: str, namespace: str, holder: str, uid: str | None, check_mode: bool, timeout: float
) -> Outcome:
    """Tear up the holder's tickets; `uid` None: whoever uses the name."""
    leases = api.list(LEASES, namespace, label_selector=selector(name)).items
    try:
        now = see(api, name, namespace, leases)
    except (NoSemaphore, Malformed):  # gives back all the same
        now = NOTHING
    leaving = [lease["metadata"]["name"] for lease in leases if _is_of(lease, name, holder, uid)]
    before = next((now.holding(ticket) for ticket in leaving if now.book.find(ticket)), Holding())
    if not check_mode:
        for ticket in leaving:
            delete_ticket(api, ticket, namespace, timeout=timeout)
    after = now.without(names=leaving).semaphore
    if not leaving:
        return Outcome("absent", before, before, after)
    return Outcome("released", before, Holding(), after, (f"{holder} left",))


def describe(api: Api, *, namespace: str, name: str | None) -> list[dict[str, Any]]:
    """One semaphore, or all of the namespace, as `info` shows them; only reads."""
    listed = api.list(LEASES, namespace, label_selector=selector(name) if name else decisions.LABEL).items
    groups: dict[str, list[Object]] = {}
    for lease in listed:
        groups.setdefault(lease["metadata"]["labels"][decisions.LABEL], []).append(lease)
    found = []
    for one, leases in groups.items():
        known = {"name": one, "namespace": namespace, "engine": "tickets", "mode": None}
        with suppress(NoSemaphore):
            try:
                there = see(api, one, namespace, leases)
                error = "; ".join(there.book.troubles) or None
                found.append({**known, **shown.view(there.semaphore), "error": error})
            except Malformed as malformed:
                found.append({**known, "resources": [], "holders": [], "waiters": [], "error": str(malformed)})
    return found


def seat(api: Api, *, name: str, namespace: str, claimant: Claimant) -> TicketSeat:
    """A seat to attend."""
    return TicketSeat(api, name, namespace, claimant)


class TicketSeat:
    """A claimant's ticket at one semaphore, and what the watch of all its Leases has brought so far."""

    def __init__(self, api: Api, name: str, namespace: str, claimant: Claimant) -> None:
        self.claimant = claimant
        self._api, self._name, self._namespace = api, name, namespace
        self._mine = decisions.ticket_name(name, claimant)
        self._revision = 0  # up to where the watch has brought everything
        self._wrote = 0  # up to where it has to come before it shows what we wrote
        self._uid = ""  # of the semaphore's own Lease
        self._terms: Terms | None = None
        self._entries: dict[str, Ticket | Malformed | None] = {}
        self._now = NOTHING
        self._ended: set[str] = set()  # uids of Pods that have ended and are still there
        self._torn: set[int] = set()  # places of tickets that we deleted, until the watch shows it
        self._had_one = self._waited = False
        self._leaving = False  # our own Pod is being deleted: it may keep what it has, and asks for nothing more

    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """All Leases of the semaphore; who has to wait wants to know which Pods have ended, and when its own is to."""
        found: dict[str, dict[str, Any]] = {"leases": {"resource": LEASES, "label_selector": selector(self._name)}}
        if self._waited:
            found["pods"] = {"resource": PODS, "field_selector": pods.ENDED, "metadata_only": True}
        if self._waited and self.claimant.uid:
            found["own pod"] = {"resource": PODS, "name": self.claimant.holder, "metadata_only": True}
        return found

    def take(self, source: str, change: Snapshot | Put | Removed) -> bool:
        """Take in what a watch brought, in its order; what is not newer than what was seen is no news."""
        if source == "pods":
            return self._take_pods(change)
        if source == "own pod":
            return self._take_own_pod(change)
        version = change.resource_version if isinstance(change, Snapshot) else change.obj["metadata"]["resourceVersion"]
        if int(version) < self._revision + (0 if isinstance(change, Snapshot) else 1):
            return False
        self._revision = int(version)
        if isinstance(change, Snapshot):
            self._terms, self._entries = None, {}
            for lease in change.items:
                self._keep(lease)
        elif isinstance(change, Put):
            self._keep(change.obj)
        elif change.obj["metadata"]["name"] == self._name:
            self._terms = None
        else:
            self._entries.pop(change.obj["metadata"]["name"], None)
        return True

    def look(self) -> View:
        """What stands, as seen. While the capacity asked for is not in force, whoever held goes on holding."""
        before, terms = self._now.held, self._terms
        if terms is None:
            self._now = NOTHING
            raise NoSemaphore(what(self._name, self._namespace))
        book = decisions.bind(terms, self._entries.values())
        self._now = now = Look(
            book, decisions.holders(book) if terms.is_settled else decisions.still_held(book, before)
        )
        grant, ticket = None, book.find(self._mine)
        if ticket is not None and now.holds(self._mine):
            lease = Lease(ticket.lease_seconds, ticket.beat) if ticket.lease_seconds else None
            grant = Grant(ticket.uid, ticket.want, ticket.place, ticket.since, lease)
        place = now.holding(self._mine).place
        self._had_one = self._had_one or ticket is not None
        self._waited = self._waited or place is not None
        return View(now, grant, place, self._trouble(ticket))

    def leases(self) -> Mapping[Hashable, Lease]:
        """Those of others, by the names of their tickets."""
        tickets = self._now.book.tickets
        return {t.name: Lease(t.lease_seconds, t.beat) for t in tickets if t.lease_seconds and t.name != self._mine}

    def due(self, expired: Mapping[Hashable, Lease], *, renew: bool) -> Due:
        """Nothing until the watch shows what we wrote, and nothing while the semaphore makes no sense."""
        terms, tickets = self._now.book.terms, self._now.book.tickets
        if self._terms is None or terms.error or self._revision < self._wrote:
            return Due.NOTHING
        if self._wants_to_draw() or self._wants_to_leave() or (renew and self._mine in self._entries):
            return Due.MINE
        if not terms.is_settled:  # the first in the queue sees to it, the others when it does not
            return Due.MINE if tickets and tickets[0].name == self._mine else Due.OTHERS
        return Due.OTHERS if self._stale(expired) or self._doubtful() else Due.NOTHING

    def act(
        self, expired: Mapping[Hashable, Lease], *, renew: bool, absorb: Callable[[], None] = lambda: None
    ) -> Acted:
        """Do what is due; where nothing is, see that the watch, and the garbage collector, have done everything."""
        at, changed, renewed = (self._api, self._name, self._namespace), False, False
        if self.due(expired, renew=renew) is Due.NOTHING:
            self.take("leases", Snapshot(*self._api.list(LEASES, self._namespace, label_selector=selector(self._name))))
            gone = self._dead_before_me()
            return Acted(self._note(put_out(*at, gone)) if gone else False)
        if not self._now.book.terms.is_settled:
            changed = self._note(put_in_force(*at))
        if self._wants_to_leave():
            changed = self._leave()
        elif self._wants_to_draw():
            changed = renewed = self._draw()
        elif renew and self._mine in self._entries:
            renewed = self._note(renew_ticket(self._api, self._mine, self._namespace, self.claimant))
        if gone := dead(self._api, self._namespace, self._doubtful()):
            changed = self._note(put_out(*at, gone))
        for ticket in self._stale(expired):
            changed = self._expire(ticket) or changed
        return Acted(changed or renewed, renewed)

    def leave(self, timeout: float, absorb: Callable[[], None] = lambda: None) -> bool:
        """Tear up the ticket; whether there was one."""
        return delete_ticket(self._api, self._mine, self._namespace, timeout=timeout)

    # ------------------------------------------------------------------------------------------ private

    def _take_pods(self, change: Snapshot | Put | Removed) -> bool:
        before = set(self._ended)
        if isinstance(change, Snapshot):
            self._ended = {pod["metadata"]["uid"] for pod in change.items}
        elif isinstance(change, Put):
            self._ended.add(change.obj["metadata"]["uid"])
        else:
            self._ended.discard(change.obj["metadata"]["uid"])
        return self._ended != before

    def _take_own_pod(self, change: Snapshot | Put | Removed) -> bool:
        there = change.items if isinstance(change, Snapshot) else [change.obj]
        before, uid = self._leaving, self.claimant.uid
        self._leaving = before or any(pod["metadata"]["uid"] == uid and pods.is_leaving(pod) for pod in there)
        return self._leaving != before

    def _keep(self, lease: Object) -> None:
        metadata = lease["metadata"]
        if metadata["name"] != self._name:
            self._entries[metadata["name"]] = decisions.read_ticket(lease)
            return
        self._terms = decisions.read_terms(lease)
        if metadata["uid"] != self._uid:  # another one: whoever held of the former holds nothing of it yet
            self._uid, self._now = metadata["uid"], NOTHING

    def _wants_to_draw(self) -> bool:
        """There is no ticket, or one that waits where it need not."""
        ticket = self._now.book.find(self._mine)
        if self._leaving:
            return False
        if ticket is None:
            return self._mine not in self._entries
        if self._now.holds(self._mine):
            return False
        return not decisions.is_for(ticket, self.claimant, holds=False) or (
            ticket.any_one and ticket.place in decisions.moves(self._now.book)
        )

    def _wants_to_leave(self) -> bool:
        """It waits, and its Pod is being deleted: whoever is behind it would get nothing before that has ended."""
        ticket = self._now.book.find(self._mine) if self._leaving else None
        return ticket is not None and not self._now.holds(self._mine) and ticket.place not in self._torn

    def _leave(self) -> bool:
        if ticket := self._now.book.find(self._mine):
            self._torn.add(ticket.place)
        return delete_ticket(self._api, self._mine, self._namespace)

    def _draw(self) -> bool:
        if self._mine in self._entries:
            delete_ticket(self._api, self._mine, self._namespace)
        elif self._had_one and self.claimant.uid and not self.claimant.lease_seconds:
            pods.refuse_gone(self._api, self._namespace, self.claimant.holder, self.claimant.uid)
        book = self._now.without(names={self._mine}).book
        return self._note(draw(self._api, self._name, self._namespace, self.claimant, book))

    def _note(self, written: Object | None) -> bool:
        if written is not None:
            self._wrote = max(self._wrote, int(written["metadata"]["resourceVersion"]))
        return written is not None

    def _dead_before_me(self) -> set[str]:
        """Uids of those whose Pod has ended, among those who hold and who wait before this one.

        Each in the queue looks after the one before it, which is one question; the first that lives, after all others.
        """
        tickets, held = self._now.book.tickets, self._now.held
        me = self._now.book.find(self._mine)
        if me is None or me.place in held:
            return set()
        waiting = [ticket for ticket in tickets if ticket.place not in held and ticket.place < me.place]
        if waiting and not dead(self._api, self._namespace, waiting[-1:]):
            return set()
        return dead(self._api, self._namespace, [ticket for ticket in tickets if ticket.place in held] + waiting)

    def _doubtful(self) -> list[Ticket]:
        """Those who hold although their Pod was seen to have ended."""
        now = self._now
        return [ticket for ticket in now.book.tickets if ticket.uid in self._ended and ticket.place in now.held]

    def _stale(self, expired: Mapping[Hashable, Lease]) -> list[Ticket]:
        """Those whose lease ran out and is still the one that did."""
        return [
            ticket
            for ticket in self._now.book.tickets
            if ticket.lease_seconds
            and ticket.place not in self._torn
            and expired.get(ticket.name) == Lease(ticket.lease_seconds, ticket.beat)
        ]

    def _expire(self, ticket: Ticket) -> bool:
        """Delete it, if nobody has renewed it since it was seen."""
        try:
            self._api.delete(
                LEASES, ticket.name, self._namespace, uid=ticket.lease_uid, resource_version=str(ticket.beat)
            )
        except (NotFound, Conflict):
            return False
        self._torn.add(ticket.place)
        return True

    def _trouble(self, ticket: Ticket | None) -> str | None:
        book = self._now.book
        if book.terms.error:
            return str(_here(book.terms.error, self._name, self._namespace))
        holds = self._now.holds(self._mine)
        if ticket is not None and holds and not decisions.is_for(ticket, self.claimant, holds=True):
            return str(_other_in_hand(ticket, self.claimant))
        short = None if ticket is None or holds else shown.out_of_reach(book.terms.capacity, ticket.wish)
        return short or next(iter(book.troubles), None)


# ---------------------------------------------------------------------------------------------- private


def _held(book: Book | None) -> list[Ticket]:
    """Those of a settled book that hold."""
    held = decisions.holders(book) if book else frozenset[int]()
    return [ticket for ticket in book.tickets if ticket.place in held] if book else []


def _own(name: str, leases: Sequence[Object]) -> Object:
    return next(lease for lease in leases if lease["metadata"]["name"] == name)


def _is_of(lease: Object, name: str, holder: str, uid: str | None) -> bool:
    """Whether the Lease is a ticket of the holder, be it well-formed or not."""
    if lease["metadata"]["name"] == name or (lease.get("spec") or {}).get("holderIdentity") != holder:
        return False
    owners = {owner["uid"] for owner in lease["metadata"].get("ownerReferences") or ()}
    return uid is None or uid in (owners or {""})


def _would(now: Look, name: str, namespace: str, claimant: Claimant) -> Look:
    """What would stand with the claimant's ticket; `now` itself if that is there and is for what it wants."""
    mine = decisions.ticket_name(name, claimant)
    ticket = now.book.find(mine)
    if ticket is not None and decisions.is_for(ticket, claimant, holds=now.holds(mine)):
        return now
    if ticket is not None and now.holds(mine):
        raise _other_in_hand(ticket, claimant)
    return now.without(names={mine}).foresee(name, namespace, claimant)


def _judge(claimant: Claimant, mine: str, first: Look, after: Look, *, enqueue: bool, guessed: bool) -> Outcome:
    before, has = first.holding(mine), after.holding(mine)
    if after.holds(mine):
        if first.holds(mine):
            why = f"{claimant.holder} holds {shown.said(has.resources)} already"
            return Outcome("held", before, has, after.semaphore, (why,))
        if guessed:
            has = Holding(has.resources)
        return Outcome("granted", before, has, after.semaphore, (shown.was_free(has.resources),))
    others = after.without(names={mine}).semaphore
    why = f"{shown.said(claimant.want)} is not free for {claimant.holder}: "
    reasons = (why + shown.describe_holders(others, claimant.want),)
    if enqueue:
        return Outcome("waiting", before, has, after.semaphore, reasons)
    return Outcome("busy", before, Holding(), others, reasons)


def _other_in_hand(ticket: Ticket, claimant: Claimant) -> MusterError:
    return MusterError(
        f"{claimant.holder} holds {shown.said(ticket.want)} (fence {ticket.place}) and asks for "
        f"{shown.said(claimant.want)}: a holder has one claim; release it first"
    )


def _capacity(own: Object | None) -> dict[str, Any]:
    if own is None:
        return {}
    terms = decisions.read_terms(own)
    return {"error": str(terms.error)} if terms.error else {"capacity": dict(terms.capacity)}


def _here(error: Malformed, name: str, namespace: str) -> Malformed:
    return Malformed(f"{what(name, namespace)} {error.field}", error.value, error.remedy)


def _refuse_malformed(terms: Terms, name: str, namespace: str) -> None:
    if terms.error is not None:
        raise _here(terms.error, name, namespace)

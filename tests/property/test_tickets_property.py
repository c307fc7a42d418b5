# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any history of one semaphore of tickets, made by the real verbs and seats and by hand, judged by an oracle."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
from hypothesis import event, given, note, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Put, Removed, Snapshot
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant
from ansible_collections.muster.coordination.plugins.module_utils.decisions.tickets import Book, Terms, Ticket
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import tickets as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import Due, NoSemaphore
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from ansible_collections.muster.coordination.tests.support.ticket_book import Judge

# ------------------------------------------------------------------------------------------ a grant is final

COUNTS = st.dictionaries(st.sampled_from("xyz"), st.integers(1, 3), min_size=1)
CAPACITIES = st.fixed_dictionaries({}, optional={name: st.integers(0, 5) for name in "xyz"})


def ticket(place: int, want: dict[str, int]) -> Ticket:
    return Ticket(f"sem.{place}", f"l-{place}", f"pod-{place}", f"u-{place}", want, place, place)


@given(
    capacity=CAPACITIES,
    wants=st.lists(COUNTS, max_size=9),
    gone=st.sets(st.integers(0, 8)),
    later=st.lists(COUNTS, max_size=3),
    more=CAPACITIES,
)
def test_neither_later_tickets_nor_departures_nor_a_raise_take_a_grant_away(capacity, wants, gone, later, more):
    book = Book(Terms(capacity, capacity, {}), tuple(ticket(n, want) for n, want in enumerate(wants)))
    held = engine.holders(book)
    staying = [ticket(n, want) for n, want in enumerate([*wants, *later]) if n >= len(wants) or n not in gone]
    raised = {name: capacity.get(name, 0) + more.get(name, 0) for name in {*capacity, *more}}
    for now in (capacity, raised):
        after = engine.holders(Book(Terms(now, now, {}), tuple(staying)))
        assert held - gone <= after
        used = {name: sum(t.want.get(name, 0) for t in staying if t.place in after) for name in "xyz"}
        assert all(used[name] <= now.get(name, 0) for name in "xyz")
    event(f"{len(held)} of {len(wants)} hold")


@given(first=CAPACITIES, second=CAPACITIES, wants=st.lists(COUNTS, max_size=9), gone=st.sets(st.integers(0, 8)))
def test_no_change_of_the_capacity_takes_a_grant_away(first, second, wants, gone):
    """And what is kept for that is not more than who held, whoever leaves afterwards."""
    tickets = tuple(ticket(n + 1, want) for n, want in enumerate(wants))
    before = Book(Terms(first, first, {}), tickets)
    held = engine.holders(before)
    own = engine.with_capacity(engine.with_capacity(None, "sem", "ns", first), "sem", "ns", second)
    terms = engine.read_terms(engine.put_in_force(own, [t for t in tickets if t.place in held]))
    assert terms.is_settled
    staying = tuple(t for t in tickets if t.place not in gone)
    after = engine.holders(Book(terms, staying))
    assert held - gone <= after
    free = dict(second)
    for t in staying:
        if t.place in after:
            free.update({name: free.get(name, 0) - count for name, count in t.want.items()})
    assert all(free[name] >= 0 for t in staying if t.place in after - held for name in t.want)


@given(
    capacity=st.fixed_dictionaries({"x": st.integers(2, 4), "y": st.integers(1, 3)}),
    ahead=st.lists(st.sampled_from([{"x": 1}, {"y": 1}, {"x": 1, "y": 1}]), max_size=6),
    large=st.sampled_from([{"x": 2}, {"x": 2, "y": 1}]),
    crowd=st.lists(st.sampled_from([{"x": 1}, {"y": 1}, {"x": 1, "y": 1}, {"x": 2}]), max_size=9),
)
def test_a_large_claim_is_served_when_those_ahead_of_it_have_left_whoever_comes_meanwhile(
    capacity, ahead, large, crowd
):
    tickets = tuple(ticket(n, want) for n, want in enumerate([*ahead, large, *crowd]))
    for left in range(len(ahead) + 1):
        held = engine.holders(Book(Terms(capacity, capacity, {}), tickets[left:]))
        used = {name: sum(t.want.get(name, 0) for t in tickets if t.place in held) for name in capacity}
        assert all(used[name] <= capacity[name] for name in capacity)
    assert len(ahead) in held


# ------------------------------------------------------------------------------------------ whole histories

PODS = st.integers(0, 3)
RESOURCES = st.sampled_from([{"x": 1}, {"y": 1}, {ANY: 1}, {ANY: 1}, {"x": 2}, {"x": 1, "y": 1}, {"x": 2, "y": 1}])
EDITS = st.sampled_from([{"x": 1}, {"x": 2, "y": 1}, {"x": 3, "y": 2}, {"x": 1, "y": 1}, {"x": 0, "y": 2}, {}, "{"])


class Histories(RuleBasedStateMachine):
    """Pods with sidecars (seats, fed with the events as late as you like), modules, a person, the garbage collector."""

    @initialize(capacity=EDITS.filter(lambda capacity: capacity != "{"))
    def begin(self, capacity: dict[str, int]) -> None:
        self.api = MemoryApi()
        self.judge, self.seen = Judge("sem"), 0
        self.truth: list[tuple[int, frozenset[int]]] = [(0, frozenset())]
        self.pods: dict[str, str] = {}
        self.seats: dict[str, verbs.TicketSeat] = {}
        self.shown: dict[str, frozenset[int]] = {}
        self.ends = 0
        self.configure(capacity)

    @property
    def at(self) -> dict[str, str]:
        return {"name": "sem", "namespace": "ns"}

    @property
    def broken(self) -> bool:
        return self.api.objects[LEASES.plural, "ns", "sem"]["metadata"]["annotations"][engine.CAPACITY] == "{"

    def places(self) -> set[int]:
        """Of all tickets that are there."""
        book = engine.parse("sem", self.api.list(LEASES, "ns", label_selector=verbs.selector("sem")).items)
        assert book is not None
        return {ticket.place for ticket in book.tickets}

    def claimant(self, number: int, want: dict[str, int]) -> Claimant:
        name = f"pod-{number}"
        if name not in self.pods:
            if (verbs.PODS.plural, "ns", name) in self.api.objects:  # it has ended; another comes after it
                self.judge_all()
                self.api.kill(name)
            self.pods[name] = self.api.pod(name)
        return Claimant(name, self.pods[name], want)

    # ------------------------------------------------------------------------------------------ what can happen

    @rule(number=PODS, want=RESOURCES, enqueue=st.booleans(), check_mode=st.booleans())
    def claim(self, number: int, want: dict[str, int], enqueue: bool, check_mode: bool) -> None:
        self.attempt(self.claimant(number, want), enqueue, check_mode)

    @rule(number=st.integers(0, 1), want=RESOURCES, enqueue=st.booleans())
    def claim_with_a_lease(self, number: int, want: dict[str, int], enqueue: bool) -> None:
        self.attempt(Claimant(f"ci-{number}", "", want, lease_seconds=60), enqueue, False)

    def attempt(self, claimant: Claimant, enqueue: bool, check_mode: bool) -> None:
        version = self.api.version
        try:
            done = verbs.attempt(self.api, **self.at, claimant=claimant, enqueue=enqueue, check_mode=check_mode)
        except MusterError as error:
            event(type(error).__name__)
            return
        if check_mode:
            assert self.api.version == version
            real = verbs.attempt(self.api, **self.at, claimant=claimant, enqueue=enqueue, check_mode=False)
            assert (done.outcome, done.before) == (real.outcome, real.before)
            assert done.after.resources == real.after.resources
            done = real
        self.judge_all()
        holds = done.outcome in ("held", "granted")
        assert holds == (done.after.fence is not None)
        assert not holds or done.after.fence in self.judge.held
        mine = self.api.objects.get((LEASES.plural, "ns", engine.ticket_name("sem", claimant)))
        assert (mine is None) == (done.outcome == "busy")
        event(done.outcome)

    @rule(number=PODS, by_uid=st.booleans())
    def release(self, number: int, by_uid: bool) -> None:
        uid = self.pods.get(f"pod-{number}") if by_uid else None
        verbs.release(self.api, **self.at, holder=f"pod-{number}", uid=uid, check_mode=False, timeout=1)

    @rule(number=PODS)
    def withdraw(self, number: int) -> None:
        if f"pod-{number}" in self.pods and not self.broken:
            held = set(self.judge.held)
            verbs.withdraw(self.api, **self.at, claimant=self.claimant(number, {"x": 1}))
            self.judge_all()
            assert held <= self.judge.held

    @rule(capacity=EDITS)
    def edit(self, capacity: Any) -> None:
        self.api.lease("sem", capacity=capacity if isinstance(capacity, str) else json.dumps(capacity))

    @rule(capacity=EDITS.filter(lambda capacity: capacity != "{"))
    def configure(self, capacity: dict[str, int]) -> None:
        settings = {"capacity": capacity, "mode": None, "present": True, "force": False, "check_mode": False}
        broken, version = bool(self.api.version) and self.broken, self.api.version
        try:
            verbs.configure(self.api, **self.at, **settings)
            assert not broken
        except Malformed:
            assert broken and self.api.version == version

    @rule(number=PODS, how=st.sampled_from(["Succeeded", "Failed", "gone"]))
    def end(self, number: int, how: str) -> None:
        name = f"pod-{number}"
        if self.pods.pop(name, None) is None:
            return
        if how == "gone":
            self.api.kill(name)
        else:
            self.api.pod(name, phase=how)
            self.ends += 1
            if self.ends % 2:  # its object goes at last, and another of that name comes
                self.judge_all()
                self.api.kill(name)

    @rule(number=PODS)
    def pod_is_deleted_and_has_its_grace_period(self, number: int) -> None:
        if f"pod-{number}" in self.pods:
            self.api.terminate(f"pod-{number}")

    @rule()
    def collect(self) -> None:
        self.api.collect()

    @rule(number=PODS, want=RESOURCES)
    def start_a_sidecar(self, number: int, want: dict[str, int]) -> None:
        claimant = self.claimant(number, want)
        seat = verbs.seat(self.api, **self.at, claimant=claimant)
        seat.take("leases", Snapshot(*self.api.list(LEASES, "ns", label_selector=verbs.selector("sem"))))
        self.seats[claimant.holder], self.shown[claimant.holder] = seat, frozenset()

    @precondition(lambda self: self.seats)
    @rule(data=st.data(), news=st.integers(0, 6), acts=st.booleans(), relist=st.booleans(), late=st.booleans())
    def attend(self, data: st.DataObject, news: int, acts: bool, relist: bool, late: bool) -> None:
        """The watches bring some of what is new, and the sidecar looks; it may act on what it sees."""
        holder = data.draw(st.sampled_from(sorted(self.seats)))
        seat = self.seats[holder]
        if relist:
            seat.take("leases", Snapshot(*self.api.list(LEASES, "ns", label_selector=verbs.selector("sem"))))
        else:
            new = [entry for entry in self.api.events if entry[2] == LEASES and entry[0] > seat._revision]
            for _version, kind, _resource, obj in new[: 99 if news == 6 else news]:
                seat.take("leases", Removed(obj) if kind == "DELETED" else Put(obj))
        if "pods" in seat.sources():
            seat.take("pods", Snapshot(self.api.list(verbs.PODS, "ns", field_selector=verbs.pods.ENDED).items, ""))
        if own := seat.sources().get("own pod"):
            only = f"metadata.name={own['name']}"
            seat.take("own pod", Snapshot(self.api.list(verbs.PODS, "ns", field_selector=only).items, ""))
        self.look(holder)
        expired = {name: lease for name, lease in seat.leases().items() if late}
        due = seat.due(expired, renew=late)
        if acts and (due is not Due.NOTHING or late):
            try:
                held = set(self.judge.held)
                seat.act(expired, renew=late)
                if leaving := seat._leaving:
                    mine = seat._now.book.find(seat._mine)
                    assert mine is None or mine.place not in held or mine.place in self.places(), "it gave up a grant"
                event(f"acted: {due}, leaving: {leaving}")
            except MusterError as error:
                event(f"act: {type(error).__name__}")
            self.look(holder)

    # ------------------------------------------------------------------------------------------ what must hold

    def look(self, holder: str) -> None:
        self.judge_all()
        seat = self.seats[holder]
        try:
            view = seat.look()
        except NoSemaphore:
            return
        truth = next(held for version, held in reversed(self.truth) if version <= seat._revision)
        shown = seat._now.held
        assert shown <= truth, "it shows what was not granted at that revision"
        there = {ticket.place for ticket in seat._now.book.tickets}
        assert self.shown[holder] & there <= shown, "it takes back what it has shown"
        self.shown[holder] = shown
        if view.grant:
            assert view.grant.fence in truth and view.place is None

    @invariant()
    def judge_all(self) -> None:
        events, self.seen = self.api.events[self.seen :], len(self.api.events)
        for version, kind, resource, obj in events:
            if resource != LEASES:
                continue
            self.judge.event(kind, obj)
            book = engine.parse("sem", self.api.list(LEASES, "ns", at=str(version)).items)
            assert book is not None
            settled = book.terms.is_settled
            answer = engine.holders(book) if settled else engine.still_held(book, self.judge.held)
            note(f"{version} {kind} {obj['metadata']['name']} {obj['metadata'].get('annotations')}: {sorted(answer)}")
            assert self.judge.violations(answer) == []
            self.truth.append((version, answer))

    def teardown(self) -> None:
        """Once everybody has looked, the semaphore is in force, the dead hold nothing, and nothing stands idle."""
        if not hasattr(self, "api") or self.broken:
            return
        self.api.collect()
        for name, uid in self.pods.items():
            for want in ({"x": 1}, {"y": 1}, {ANY: 1}):
                claimant = Claimant(name, uid, want)
                if engine.ticket_name("sem", claimant) in {n for _p, _ns, n in self.api.objects}:
                    seat = verbs.seat(self.api, **self.at, claimant=claimant)
                    self.seats[name] = seat
        for _round in range(4):
            for seat in self.seats.values():
                if self.pods.get(seat.claimant.holder) != seat.claimant.uid:
                    continue
                seat.take("leases", Snapshot(*self.api.list(LEASES, "ns", label_selector=verbs.selector("sem"))))
                ended = self.api.list(verbs.PODS, "ns", field_selector=verbs.pods.ENDED).items
                seat.take("pods", Snapshot(ended, ""))
                seat.look()
                if seat.due({}, renew=False) is not Due.NOTHING:
                    try:
                        seat.act({}, renew=False)
                    except MusterError as error:
                        event(f"at last: {type(error).__name__}")
        self.judge_all()
        if not self.seats:
            return
        there = verbs.settled(self.api, "sem", "ns")
        self.judge_all()
        waiting = [t for t in there.book.tickets if t.place not in there.held]
        alive = set(self.pods.values()) | {""}
        if any(t.uid in alive and t.name in {seat._mine for seat in self.seats.values()} for t in waiting):
            assert all(t.uid in alive for t in there.book.tickets if t.place in there.held), "the dead hold"


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=200, stateful_step_count=40)

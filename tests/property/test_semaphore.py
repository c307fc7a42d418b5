# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any history of one ConfigMap, written by us, by old Distributors and by hand, judged by an independent oracle."""

from __future__ import annotations

import json
import string

import hypothesis.strategies as st
import pytest
from hypothesis import event, given, note, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    ANY,
    ASSIGNMENT,
    CAPACITY,
    STATE,
    V1,
    V2,
    Claimant,
    Grant,
    Lease,
    Semaphore,
    Waiter,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.tests.support import legality, old_distributor

NAMES = st.sampled_from([f"pod-{number}" for number in range(4)])
LEASED = st.sampled_from(["ci-1", "ci-2"])
ONE = [{"gpu": 1}, {"tpu": 1}, {ANY: 1}, {ANY: 1}]
WANTS = st.sampled_from([*ONE, {"gpu": 2}, {"gpu": 1, "tpu": 1}, {"gpu": 2, "tpu": 1}, {"tpu": 2}])
COUNTS = st.sampled_from([1, 0, 2, 3])
MODES = st.sampled_from([V1, V2])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


class Histories(RuleBasedStateMachine):
    """One ConfigMap, its Pods, and everybody who may write to it; each rule is one revision at most."""

    @initialize(gpu=COUNTS, tpu=COUNTS, mode=MODES)
    def begin(self, gpu: int, tpu: int, mode: str) -> None:
        self.annotations = {**engine.begin({"gpu": gpu, "tpu": tpu}, mode), "foreign": "kept"}
        self.revision = 100
        self.pods = {"pod-0": "uid-a", "pod-1": "uid-b", "pod-2": "uid-c"}
        self.made = 0
        self.leaving: set[engine.Identity] = set()  # whose Pods are being deleted
        self.broken: dict[str, str | None] = {}
        self.history = legality.History()
        assert self.history.step(self.annotations) == []

    # ------------------------------------------------------------------------------------------ who writes

    def record(self, annotations: dict[str, str], **priorities: int) -> None:
        if annotations == self.annotations:
            return
        self.revision += 1
        self.annotations = annotations
        self.history.priorities = {name.replace("_", "-"): value for name, value in priorities.items()}
        illegal = self.history.step(annotations)
        note(f"{self.revision}: {annotations}")
        assert illegal == []

    def write(self, transition, expired=(), reap: bool = True, **priorities: int) -> engine.Decision | None:
        """As verbs.attendance.write: read, confirm the dead, one transition, one write (configure does not reap)."""
        self.history.dead, self.history.leaving = {*self.without_pod(), *expired}, self.leaving
        obj = {"metadata": {"name": "sem", "annotations": self.annotations}}
        try:
            before = engine.parse(self.annotations, self.revision)
            dead = {*engine.suspects(before, self.pods), *expired}
            reaped = engine.reap(before, dead, leaving=self.leaving, now="now").semaphore
            decision = transition(reaped if reap else before)
            after = engine.annotate(obj, before, decision.semaphore)
        except Malformed as error:
            assert self.broken or error.field == "resource", error
            event("malformed" if self.broken else "unknown resource")
            return None
        except MusterError as error:
            event(str(error).split(" ")[1])
            return None
        assert not self.broken, "a malformed document was written to"
        assert engine.parse(after["metadata"]["annotations"], self.revision) == decision.semaphore
        assert not reap or not {(w.holder, w.uid) for w in decision.semaphore.queue} & self.leaving
        kept = {name for name, grant in before.grants.items() if (name, grant.uid) in self.leaving - dead}
        assert not reap or decision.outcome == "released" or kept <= decision.semaphore.grants.keys()
        event(decision.outcome)
        self.record(after["metadata"]["annotations"], **priorities)
        return decision

    def without_pod(self) -> set[tuple[str, str | None]]:
        """Who needs a Pod and has none, as the oracle reads the document."""
        try:
            document = legality.read(self.annotations)
        except legality.Unreadable:
            return set()
        return {
            (name, entry["uid"])
            for name, entry in [*document.grants().items(), *document.waiting().items()]
            if not entry.get("expires") and (name not in self.pods or entry["uid"] not in (None, self.pods[name]))
        }

    def sayable(self, name: str, want: engine.Resources) -> engine.Resources:
        """In v1 most ask for what can be said there, or too little would happen; a few don't know better."""
        if name == "pod-0" or self.broken or legality.read(self.annotations).mode == V2:
            return want
        return {next(iter(want)): 1}

    # ------------------------------------------------------------------------------------------ Pods

    @rule(name=NAMES)
    def pod_is_made_or_made_again(self, name: str) -> None:
        self.made += 1
        self.pods[name] = f"uid-{self.made}"

    @rule(name=NAMES)
    def pod_ends(self, name: str) -> None:
        self.pods.pop(name, None)

    @rule(name=NAMES)
    def pod_is_deleted_and_has_its_grace_period(self, name: str) -> None:
        if name in self.pods and not self.leaving & set(self.pods.items()):  # one at a time, or nobody is left to claim
            self.leaving.add((name, self.pods[name]))

    # ------------------------------------------------------------------------------------------ ours

    @rule(name=NAMES, want=WANTS, priority=st.sampled_from([0, 0, 0, 1, -5]), enqueue=st.booleans())
    def sidecar_of_any_kind_claims(self, name: str, want: engine.Resources, priority: int, enqueue: bool) -> None:
        self.sidecar_claims(name, want, priority, enqueue)

    def sidecar_claims(self, name: str, want: engine.Resources, priority: int, enqueue: bool) -> None:
        if name not in self.pods or (name, self.pods[name]) in self.leaving:
            return
        claimant = Claimant(name, self.pods[name], self.sayable(name, want), priority)
        decision = self.write(
            lambda seen: engine.claim(seen, claimant, now="now", enqueue=enqueue), **{name.replace("-", "_"): priority}
        )
        if decision is None:
            return
        again = engine.claim(decision.semaphore, claimant, now="later", enqueue=enqueue)
        assert again.semaphore == decision.semaphore, "asking again is no change"
        assert decision.semaphore.mode == V2 or engine.single(claimant.want)
        for waiter in decision.semaphore.queue:
            seconds = waiter.lease.seconds if waiter.lease else None
            same = Claimant(waiter.holder, waiter.uid, waiter.want, waiter.priority, seconds)
            asked = engine.claim(decision.semaphore, same, now="later", enqueue=True)
            assert asked.semaphore == decision.semaphore, "a waiter writes once"
        grant = decision.semaphore.grants.get(name)
        assert (decision.outcome in ("granted", "held")) == (grant is not None and grant.uid == claimant.uid)

    @rule(number=st.integers(0, 2))
    def sidecar_claims_anything(self, number: int) -> None:
        self.sidecar_claims(f"pod-{number}", {ANY: 1}, 0, True)

    @rule(name=LEASED, want=WANTS, seconds=st.sampled_from([3, 60]))
    def job_claims_or_renews(self, name: str, want: engine.Resources, seconds: int) -> None:
        claimant = Claimant(name, "", self.sayable(name, want), 0, seconds)
        self.write(
            lambda seen: engine.claim(engine.renew(seen, name, ""), claimant, now="now", enqueue=True),
            **{name.replace("-", "_"): 0},
        )

    @rule(name=NAMES | LEASED, mine=st.booleans(), keep_grant=st.booleans())
    def holder_leaves(self, name: str, mine: bool, keep_grant: bool) -> None:
        uid = self.pods.get(name, "") if mine else None
        before = legality.read(self.annotations).grants() if not self.broken else {}
        decision = self.write(lambda seen: engine.release(seen, name, uid, now="now", keep_grant=keep_grant))
        if decision is not None and not keep_grant and uid is None:
            assert name not in decision.semaphore.grants and decision.semaphore.place(name) is None
        if decision is not None and keep_grant and name in before and before[name]["uid"] in self.pods.values():
            assert name in decision.semaphore.grants

    @rule(name=LEASED)
    def lease_expires(self, name: str) -> None:
        self.write(lambda seen: engine.Decision(seen, "looked"), expired={(name, "")})

    @rule()
    def somebody_looks(self) -> None:
        decision = self.write(lambda seen: engine.Decision(seen, "looked"))
        if decision is not None:
            assert self.without_pod() == set()

    @rule(gpu=COUNTS)
    def capacity_is_set(self, gpu: int) -> None:
        def change(seen: engine.Semaphore) -> engine.Decision:
            return engine.Decision(engine.with_capacity(seen, {"gpu": gpu, "tpu": 1}, now="now"), "set")

        self.write(change, reap=False)

    @rule(mode=MODES)
    def mode_is_set(self, mode: str) -> None:
        """It is refused, or nobody loses anything by it."""
        before = None if self.broken else legality.read(self.annotations).assignment
        decision = self.write(lambda seen: engine.Decision(engine.with_mode(seen, mode), "mode"))
        if decision is not None and before is not None:
            gone = {name for name, _uid in self.history.dead}
            now = legality.read(self.annotations)
            assert (now.mode == V2) == now.marked == (mode == V2)
            assert all(now.assignment.get(name) == what for name, what in before.items() if name not in gone)

    # ------------------------------------------------------------------------------------------ others

    @rule(name=NAMES)
    def old_distributor_runs(self, name: str) -> None:
        if name not in self.pods:
            return
        if not self.broken and legality.read(self.annotations).mode == V2:
            with pytest.raises(old_distributor.GoError):
                old_distributor.run(self.annotations, name, self.pods)
            return
        try:
            after = old_distributor.run(self.annotations, name, self.pods)
        except old_distributor.GoError:
            return
        if after is not None:
            self.record(after)

    @rule(gpu=COUNTS, tpu=st.none() | COUNTS)
    def capacity_is_edited(self, gpu: int, tpu: int | None) -> None:
        if CAPACITY not in self.broken:
            capacity = {"gpu": gpu} if tpu is None else {"gpu": gpu, "tpu": tpu}
            self.record({**self.annotations, CAPACITY: json.dumps(capacity, indent=1)})

    @precondition(lambda self: not self.broken)
    @rule(key=st.sampled_from([CAPACITY, ASSIGNMENT, STATE]), text=st.sampled_from(["{", "[]", "7", '"', '{"a":{}}']))
    def an_annotation_is_broken(self, key: str, text: str) -> None:
        self.broken = {key: self.annotations.get(key)}
        self.record({**self.annotations, key: text})

    @precondition(lambda self: self.broken)
    @rule()
    def it_is_mended(self) -> None:
        annotations = {**self.annotations, **self.broken}
        self.broken = {}
        self.record({key: text for key, text in annotations.items() if text is not None})

    @precondition(lambda self: not self.broken and STATE in self.annotations)
    @rule(where=st.sampled_from(["state", "grants", "queue"]), value=JSON)
    def a_later_version_adds_what_we_do_not_know(self, where: str, value: object) -> None:
        state = json.loads(self.annotations[STATE])
        entries = {"grants": list(state.get("grants", {}).values()), "queue": state.get("queue", [])}
        for place in entries.get(where, [state])[:1]:
            place["unknown"] = value
            self.annotations = {**self.annotations, STATE: json.dumps(state)}
            self.history.last = dict(self.annotations)
            self.revision += 1

    @precondition(lambda self: not self.broken)
    @rule()
    def the_state_is_lost(self) -> None:
        self.record({key: value for key, value in self.annotations.items() if key != STATE})

    # ------------------------------------------------------------------------------------------ always

    @invariant()
    def numbers_are_never_ahead_of_the_revisions(self) -> None:
        """So that a ConfigMap which is made again starts above all that was ever handed out."""
        assert self.history.highest <= engine.NUMBERS * self.revision


TestHistories = Histories.TestCase


@given(st.dictionaries(st.sampled_from([CAPACITY, ASSIGNMENT, STATE]), st.text(max_size=20) | JSON.map(json.dumps)))
def test_whatever_the_annotations_hold_it_is_read_or_refused(annotations):
    try:
        semaphore = engine.parse(annotations)
    except Malformed:
        return
    assert engine.parse({**annotations, **engine.render(semaphore)}).grants == semaphore.grants
    legality.read(annotations)  # what we read, the oracle reads


@given(
    mode=MODES,
    capacity=st.fixed_dictionaries({"gpu": st.integers(1, 3), "tpu": st.integers(1, 2)}),
    steps=st.lists(st.tuples(NAMES, WANTS | st.none()), min_size=4, max_size=14),
)
def test_whatever_is_claimed_and_given_back_is_legal(mode, capacity, steps):
    """The histories above have all that can happen; here is more of what happens most."""
    obj = {"metadata": {"name": "sem", "annotations": engine.begin(capacity, mode)}}
    history = legality.History()
    history.step(obj["metadata"]["annotations"])
    for name, want in steps:
        before = engine.parse(obj["metadata"]["annotations"])
        try:
            if want is None:
                decision = engine.release(before, name, name, now="")
            else:
                decision = engine.claim(before, Claimant(name, name, want), now="", enqueue=True)
        except MusterError:
            continue
        obj = engine.annotate(obj, before, decision.semaphore)
        history.priorities = {name: 0}  # it may want something else from now on
        assert history.step(obj["metadata"]["annotations"]) == []


# ------------------------------------------------------------------------------------------ the wire format of v2

HOLDERS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
NUMBERS = st.integers(1, 2**40)
EXTRA = st.dictionaries(st.sampled_from(["later", "note"]), JSON, max_size=1)
WANTED = st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda name: name != ANY), st.integers(1, 2**31 - 1))
SEVERAL = WANTED.filter(lambda want: 0 < len(want) <= engine.MAX_WANTS)
LEASES = st.none() | st.builds(Lease, st.sampled_from([3, 60]), st.integers(0, 9), EXTRA)
UIDS = st.none() | st.text(max_size=4)
GRANTS = st.builds(Grant, UIDS, SEVERAL, NUMBERS, st.text(max_size=3), LEASES, EXTRA)
WAITERS = st.builds(
    Waiter, HOLDERS, UIDS, SEVERAL | st.just({ANY: 1}), st.integers(-1000, 1000), NUMBERS, LEASES, EXTRA
)


@settings(max_examples=100)
@given(
    capacity=st.dictionaries(st.sampled_from(["gpu", "tpu"]), st.integers(0, 9)),
    grants=st.dictionaries(HOLDERS, GRANTS, max_size=5),
    queue=st.lists(WAITERS, max_size=5, unique_by=lambda waiter: waiter.holder),
    extra=EXTRA,
)
def test_what_is_written_in_v2_is_read_back_and_no_old_distributor_reads_it(capacity, grants, queue, extra):
    waiting = tuple(waiter for waiter in queue if waiter.holder not in grants)
    semaphore = Semaphore(capacity, grants, waiting, 2**40, extra, mode=V2)
    annotations = {CAPACITY: json.dumps(capacity), **engine.render(semaphore)}
    assert engine.parse(annotations) == semaphore
    legality.read(annotations)
    with pytest.raises(old_distributor.GoError):
        old_distributor.run(annotations, "old", [*grants, "old"])
    if all(engine.single(entry.resources) for entry in grants.values()) and all(
        engine.single(waiter.want) for waiter in waiting
    ):
        plain = engine.with_mode(semaphore, V1)
        assert engine.parse({**annotations, **engine.render(plain)}) == plain
        old_distributor.run({**annotations, **engine.render(plain)}, "old", grants)


# ------------------------------------------------------------------------------------------ order

SMALL = st.sampled_from([{"gpu": 1}, {"tpu": 1}, {ANY: 1}, {"gpu": 1, "tpu": 1}])


@given(
    capacity=st.fixed_dictionaries({"gpu": st.integers(2, 4), "tpu": st.integers(1, 3)}),
    ahead=st.lists(SMALL, max_size=6),
    large=st.sampled_from([{"gpu": 2}, {"gpu": 2, "tpu": 1}]),
    crowd=st.lists(SMALL, max_size=12),
    turns=st.lists(st.booleans(), max_size=18),
)
def test_a_large_claim_is_served_when_those_ahead_of_it_have_left_whoever_comes_meanwhile(
    capacity, ahead, large, crowd, turns
):
    def arrive(name: str, want: engine.Resources) -> None:
        nonlocal semaphore
        semaphore = engine.claim(semaphore, Claimant(name, name, want), now="", enqueue=True).semaphore
        used = {r: sum(grant.resources.get(r, 0) for grant in semaphore.grants.values()) for r in capacity}
        assert all(used[resource] <= capacity[resource] for resource in capacity)

    semaphore = Semaphore(capacity, mode=V2)
    for number, want in enumerate(ahead):
        arrive(f"ahead-{number}", want)
    arrive("large", large)
    leaving, coming = [f"ahead-{number}" for number in range(len(ahead))], list(crowd)
    for turn in [*turns, *(True for _ in leaving)]:
        if turn and leaving:
            semaphore = engine.release(semaphore, name := leaving.pop(0), name, now="").semaphore
        elif coming:
            arrive(f"crowd-{len(coming)}", coming.pop())
    assert semaphore.grants["large"].resources == large


@given(st.integers(1, 6), st.integers(0, 6), st.permutations([f"w{number}" for number in range(8)]))
def test_all_who_wait_are_served_in_the_order_in_which_they_came(capacity, released, names):
    semaphore = engine.Semaphore({"gpu": capacity})
    for name in names:
        semaphore = engine.claim(semaphore, Claimant(name, name, {ANY: 1}), now="", enqueue=True).semaphore
    served = names[:capacity]
    for name in names[: min(released, len(names))]:
        if name in semaphore.grants:
            semaphore = engine.release(semaphore, name, name, now="").semaphore
            served = names[: len(served) + 1]
    assert [waiter.holder for waiter in semaphore.order()] == names[len(served) :]

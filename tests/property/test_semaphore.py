# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Any history of one ConfigMap, written by us, by old Distributors and by hand, judged by an independent oracle."""

from __future__ import annotations

import json

import hypothesis.strategies as st
from hypothesis import event, given, note
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    ANY,
    ASSIGNMENT,
    CAPACITY,
    STATE,
    Claimant,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.tests.support import legality, old_distributor

NAMES = st.sampled_from([f"pod-{number}" for number in range(4)])
LEASED = st.sampled_from(["ci-1", "ci-2"])
RESOURCES = ["gpu", "tpu"]
WANTS = st.sampled_from([*RESOURCES, ANY, ANY])
COUNTS = st.sampled_from([1, 0, 2])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


class Histories(RuleBasedStateMachine):
    """One ConfigMap, its Pods, and everybody who may write to it; each rule is one revision at most."""

    @initialize(gpu=COUNTS, tpu=COUNTS)
    def begin(self, gpu: int, tpu: int) -> None:
        self.annotations = {CAPACITY: json.dumps({"gpu": gpu, "tpu": tpu}), "foreign": "kept"}
        self.revision = 100
        self.pods = {"pod-0": "uid-a", "pod-1": "uid-b", "pod-2": "uid-c"}
        self.made = 0
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
        self.history.dead = {*self.without_pod(), *expired}
        obj = {"metadata": {"name": "sem", "annotations": self.annotations}}
        try:
            before = engine.parse(self.annotations, self.revision)
            dead = {*engine.suspects(before, self.pods), *expired}
            decision = transition(engine.reap(before, dead, now="now").semaphore if reap else before)
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

    # ------------------------------------------------------------------------------------------ Pods

    @rule(name=NAMES)
    def pod_is_made_or_made_again(self, name: str) -> None:
        self.made += 1
        self.pods[name] = f"uid-{self.made}"

    @rule(name=NAMES)
    def pod_ends(self, name: str) -> None:
        self.pods.pop(name, None)

    # ------------------------------------------------------------------------------------------ ours

    @rule(name=NAMES, want=WANTS, priority=st.sampled_from([0, 0, 0, 1, -5]), enqueue=st.booleans())
    def sidecar_of_any_kind_claims(self, name: str, want: str, priority: int, enqueue: bool) -> None:
        self.sidecar_claims(name, want, priority, enqueue)

    def sidecar_claims(self, name: str, want: str, priority: int, enqueue: bool) -> None:
        if name not in self.pods:
            return
        claimant = Claimant(name, self.pods[name], {want: 1}, priority)
        decision = self.write(
            lambda seen: engine.claim(seen, claimant, now="now", enqueue=enqueue), **{name.replace("-", "_"): priority}
        )
        if decision is None:
            return
        again = engine.claim(decision.semaphore, claimant, now="later", enqueue=enqueue)
        assert again.semaphore == decision.semaphore, "asking again is no change"
        for waiter in decision.semaphore.queue:
            if set(waiter.want) <= {ANY, *decision.semaphore.capacity}:
                seconds = waiter.lease.seconds if waiter.lease else None
                same = Claimant(waiter.holder, waiter.uid, waiter.want, waiter.priority, seconds)
                asked = engine.claim(decision.semaphore, same, now="later", enqueue=True)
                assert asked.semaphore == decision.semaphore, "a waiter writes once"
        grant = decision.semaphore.grants.get(name)
        assert (decision.outcome in ("granted", "held")) == (grant is not None and grant.uid == claimant.uid)

    @rule(number=st.integers(0, 2))
    def sidecar_claims_anything(self, number: int) -> None:
        self.sidecar_claims(f"pod-{number}", ANY, 0, True)

    @rule(name=LEASED, want=WANTS, seconds=st.sampled_from([3, 60]))
    def job_claims_or_renews(self, name: str, want: str, seconds: int) -> None:
        claimant = Claimant(name, "", {want: 1}, 0, seconds)
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

    # ------------------------------------------------------------------------------------------ others

    @rule(name=NAMES)
    def old_distributor_runs(self, name: str) -> None:
        if name not in self.pods:
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

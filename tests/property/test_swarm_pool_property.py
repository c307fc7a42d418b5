# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools, specs, selectors and statuses at random."""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    convergence,
    swarm,
    swarm_pool,
    swarm_status,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Policy, Step
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Class, Spec
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm_pool import (
    CAPACITY,
    DEPLOYMENT,
    PORT,
    STATEFUL_SET,
    Pod,
    Pool,
    Workload,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config, Entry, Hold
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

# ------------------------------------------------------------------------------------------ any pool

KEYS_OF_LABELS = st.sampled_from(["gpu", "disk", "tier"])
LABELS = st.dictionaries(KEYS_OF_LABELS, st.sampled_from(["a", "b", ""]), max_size=3)
VALUES = st.lists(st.sampled_from(["a", "b", "", "c"]), min_size=1, max_size=3)
TERMS = st.one_of(
    st.fixed_dictionaries({"key": KEYS_OF_LABELS, "operator": st.sampled_from(["In", "NotIn"]), "values": VALUES}),
    st.fixed_dictionaries({"key": KEYS_OF_LABELS, "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
)
SELECTORS = st.fixed_dictionaries({}, optional={"matchLabels": LABELS, "matchExpressions": st.lists(TERMS, max_size=3)})
CLASSES = st.lists(st.builds(Class, st.sampled_from(["x", "y"]), SELECTORS, st.booleans()), max_size=3)
STATEFUL, DEPLOYED = "vw", "de"  # names of workloads
POD_NAMES = (
    *(f"{name}-{number}" for name in STATEFUL for number in range(6)),
    *(f"{name}-5d4-0000{number}" for name in DEPLOYED for number in range(6)),
    "another",
)


class Found(NamedTuple):
    spec: Spec
    workloads: list[Workload]
    pods: dict[str, Pod]
    config: Config
    wanted: int | None
    expired: list[str]
    is_patient: bool

    def pool(self) -> Pool:
        options = {"wanted": self.wanted, "expired": self.expired, "is_patient": self.is_patient}
        return swarm_pool.pool(self.spec, self.workloads, self.pods, self.config, **options)  # type: ignore[arg-type]


@st.composite
def pools(draw: Any) -> Found:
    """Whatever may be found: Pods of all states, records of workers that are no more."""
    names = st.lists(st.sampled_from(POD_NAMES), unique=True)
    notes = st.fixed_dictionaries({}, optional={CAPACITY: st.sampled_from(["1", "7"]), PORT: st.just("8390")})
    workloads = []
    for name in draw(st.lists(st.sampled_from(STATEFUL + DEPLOYED), unique=True, max_size=3)):
        kind, start = (STATEFUL_SET, draw(st.integers(0, 2))) if name in STATEFUL else (DEPLOYMENT, 0)
        replicas = draw(st.integers(0, 4))
        workloads.append(Workload(kind, name, replicas, f"app={name}", start, draw(LABELS), draw(notes)))
    pods = {}
    for name in draw(names):
        is_ready, is_ending, has_ended = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
        pods[name] = Pod(name, f"u-{name}", draw(st.sampled_from("abc")), is_ready, is_ending, has_ended)
    entries = {name: Entry((f"j-{name}",) if draw(st.booleans()) else (), 1) for name in draw(names)}
    holds = {}
    for name in draw(names):
        leaving = {f"k-{name}": 1} if name in entries and draw(st.booleans()) else {}
        holds[name] = Hold(leaving, awaits=draw(st.booleans()), zone=draw(st.sampled_from(["", "z"])))
    return Found(
        Spec(classes=tuple(draw(CLASSES)), capacity=draw(st.none() | st.just(5))),
        workloads,
        pods,
        Config(entries, holds),
        draw(st.none() | st.integers(0, 4)),
        draw(names),
        draw(st.booleans()),
    )


@given(pools())
def test_members_are_those_who_are_there_and_no_more_than_are_wanted(found: Found) -> None:
    pool, entries = found.pool(), found.config.entries
    names = [member.name for member in pool.members]
    assert len(names) == len(set(names))
    assert all(any(workload.owns(name) for workload in found.workloads) for name in names)
    for workload in found.workloads:
        replicas = workload.replicas if found.wanted is None else min(workload.replicas, found.wanted)
        own = {name for name in names if workload.owns(name)}
        if workload.kind == STATEFUL_SET:
            ordinals = {f"{workload.name}-{number}" for number in range(workload.start, workload.start + replicas)}
            assert own <= ordinals
            assert {name for name in ordinals if name in entries and entries[name].jobs} <= own
            continue
        there = {name: pod for name, pod in found.pods.items() if workload.owns(name)}
        alive = {name for name, pod in there.items() if not pod.is_ending and not pod.has_ended}
        kept = {name for name in alive if name in entries or name in found.config.holds}
        assert kept <= own, "who has a record and is alive stays"
        assert len(own) <= max(replicas, len(kept))
        assert all(there[name].is_ready for name in (own & alive) - kept)


@given(pools())
def test_a_share_has_one_successor_and_a_place_is_kept_only_while_it_is_free(found: Found) -> None:
    pool = found.pool()
    names = {member.name for member in pool.members}
    assert len(set(pool.successors.values())) == len(pool.successors)
    assert not names & pool.successors.keys() and set(pool.successors.values()) <= names
    for name in pool.successors.keys() | pool.vacant:
        entry, hold = found.config.entries[name], found.config.holds.get(name, Hold())
        assert entry.jobs or hold.leaving, "there is a share to be kept"
        pod = found.pods.get(name)
        assert pod is None or pod.is_ending or pod.has_ended
        assert name not in found.expired or pod is not None
    assert pool.vacant <= names and not pool.coming & names
    assert all(found.pods[name].is_ready for name in pool.coming)
    assert found.is_patient or not pool.coming


@given(pools(), st.randoms(use_true_random=False))
def test_a_pool_is_the_same_in_any_order(found: Found, random: Any) -> None:
    workloads, pods = list(found.workloads), list(found.pods.items())
    entries, holds = list(found.config.entries.items()), list(found.config.holds.items())
    for some in (workloads, pods, entries, holds):
        random.shuffle(some)
    other = found._replace(workloads=workloads, pods=dict(pods), config=Config(dict(entries), dict(holds)))
    assert other.pool() == found.pool()


@given(pools())
def test_what_a_worker_takes_and_holds_is_said_by_its_workload(found: Found) -> None:
    pool = found.pool()
    for member in pool.members:
        workload = next(each for each in found.workloads if each.owns(member.name))
        fitting = [each for each in found.spec.classes if reference(each.selector, workload.labels)]
        only = {each.name for each in fitting if each.exclusive}
        assert member.takes == (only or {each.name for each in fitting} | {""})
        own = workload.annotations.get(CAPACITY)
        assert member.capacity == (int(own) if own else found.spec.capacity)


@given(pools())
def test_of_each_worker_that_counts_it_is_told_what_was_seen(found: Found) -> None:
    pool = found.pool()
    told = swarm_pool.sights(pool, found.config, found.pods, {}, lingering=found.expired)
    names = {member.name for member in pool.members}
    assert told.keys() == names | found.config.entries.keys() | found.config.holds.keys()
    for name, sight in told.items():
        pod = found.pods.get(name)
        assert sight.uid == (pod.uid if pod and not pod.has_ended else "")
        assert sight.lingers == (name in found.expired)
        if name in names:
            assert sight.comes_back == (name[0] in STATEFUL)


# ------------------------------------------------------------------------------------------ a Deployment's rollout


class Rollout:
    """A Deployment whose workers report at once, with its controller's hand, and its operator's."""

    def __init__(self, replicas: int, jobs: int) -> None:
        self.workload = Workload(DEPLOYMENT, "d", replicas, "app=d", annotations={PORT: "8390"})
        self.jobs = [Job(f"j{number:02}") for number in range(jobs)]
        self.pods: dict[str, Pod] = {}
        self.config = Config()
        self.made = 0
        self.lists: dict[str, list[tuple[str, ...]]] = {}  # by worker, each list that it ever had
        self.step: Step | None = None

    def make(self) -> None:
        name = f"d-5d4-{self.made:05}"
        self.pods[name] = Pod(name, f"u{self.made}", f"{self.made:05}", reports=True)
        self.made += 1

    def of(self, **what: bool) -> list[str]:
        return [
            name for name, pod in self.pods.items() if all(getattr(pod, key) == is_so for key, is_so in what.items())
        ]

    def mark(self, name: str, **what: bool) -> None:
        self.pods[name] = self.pods[name]._replace(**what)

    def turn(self) -> bool:
        """One of the operator's; whether it wrote."""
        entries = self.config.entries
        told = {pod.uid: entries[name].version for name, pod in self.pods.items() if name in entries}
        pool = swarm_pool.pool(Spec(), [self.workload], self.pods, self.config)
        sights = swarm_pool.sights(pool, self.config, self.pods, told)
        step = convergence.step(self.config, self.jobs, pool.members, sights, Policy(), successors=pool.successors)
        wrote = step.config is not self.config
        self.step, self.config = step, step.config
        for name, entry in self.config.entries.items():
            known = self.lists.setdefault(name, [])
            if entry.jobs and (not known or known[-1] != entry.jobs):
                known.append(entry.jobs)
        return wrote

    def settle(self) -> None:
        for _turn in range(20):
            if not self.turn():
                return
        raise AssertionError("it goes on writing")

    def due(self, old: list[str], surge: int, away: int) -> list[tuple[str, str]]:
        """What may happen next: a turn, or what the Deployment's controller does with its Pods. `surge`: how many it
        may have more than it wants; `away`: how many of those may be not ready."""
        replicas = self.workload.replicas
        new = [name for name in self.pods if name not in old]
        acts = [("turn", "")]
        if len(self.of(is_ending=False)) < replicas + surge and len(new) < replicas:
            acts.append(("make", ""))
        acts += [("ready", name) for name in new if not self.pods[name].is_ready]
        if len(self.of(is_ready=True, is_ending=False)) > replicas - away:
            acts += [("end", name) for name in self.of(is_ending=False) if name in old][:1]
        return acts + [("gone", name) for name in self.of(is_ending=True)]

    def act(self, what: str, name: str) -> None:
        if what == "turn":
            self.turn()
        elif what == "make":
            self.make()
        elif what == "ready":
            self.mark(name, is_ready=True)
        elif what == "end":
            self.mark(name, is_ending=True)
        else:
            del self.pods[name]


@given(
    st.integers(1, 5),
    st.integers(0, 12),
    st.tuples(st.integers(0, 3), st.integers(0, 2)).filter(any),
    st.lists(st.integers(0, 10**6), min_size=10, max_size=60),
)
def test_when_a_deployment_is_rolled_out_each_share_goes_as_a_whole_to_one_successor(
    replicas: int, jobs: int, bounds: tuple[int, int], choices: list[int]
) -> None:
    pool = Rollout(replicas, jobs)
    for _pod in range(replicas):
        pool.make()
    for name in list(pool.pods):
        pool.mark(name, is_ready=True)
    pool.settle()
    old = list(pool.pods)
    shares = sorted(entry.jobs for entry in pool.config.entries.values() if entry.jobs)
    pool.lists.clear()
    for choice in choices:
        possible = pool.due(old, *bounds)
        pool.act(*possible[choice % len(possible)])
    while len(possible := pool.due(old, *bounds)) > 1:
        pool.act(*possible[1])
        pool.settle()
    pool.settle()
    assert pool.step is not None and pool.step.is_converged, pool.step.waits
    assert sorted(entry.jobs for entry in pool.config.entries.values() if entry.jobs) == shares
    assert not {name for name in pool.config.entries if name in old}
    for name, lists in pool.lists.items():
        assert len(lists) <= 1, f"{name} has had {lists}"


# ------------------------------------------------------------------------------------------ selectors


def reference(selector: Any, labels: Any) -> bool:
    """As the API's own documentation says it, term by term."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if key not in labels or labels[key] != value:
            return False
    for term in selector.get("matchExpressions") or []:
        key, operator, values = term["key"], term["operator"], term.get("values")
        if operator == "In" and (key not in labels or labels[key] not in values):
            return False
        if operator == "NotIn" and key in labels and labels[key] in values:
            return False
        if operator == "Exists" and key not in labels:
            return False
        if operator == "DoesNotExist" and key in labels:
            return False
    return True


def by_text(text: str, labels: dict[str, str]) -> bool:
    """What a selector of the API's lists selects."""
    return all(part_fits(part, labels) for part in re.findall(r"[^,(]+(?:\([^)]*\))?", text))


def part_fits(part: str, labels: dict[str, str]) -> bool:
    if found := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", part):
        key, operator, values = found.groups()
        is_in = labels.get(key) in values.split(",")
        return is_in if operator == "in" else not is_in
    if part.startswith("!"):
        return part[1:] not in labels
    key, equals, value = part.partition("=")
    return labels.get(key) == value if equals else key in labels


@given(SELECTORS, LABELS)
def test_a_selector_selects_what_it_says_in_both_forms(selector: Any, labels: dict[str, str]) -> None:
    fits = reference(selector, labels)
    assert swarm.selects(selector, labels, "here") is fits
    assert by_text(swarm.selector_text(selector, "here"), labels) is fits


# ------------------------------------------------------------------------------------------ specs

SCALARS = st.none() | st.booleans() | st.integers(-3, 10**7) | st.floats(allow_nan=False) | st.text(max_size=6)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)
FULL: dict[str, Any] = {
    "jobs": ["a", {"name": "b", "weight": 3, "class": "x", "dedicated": False, "spread": "s"}],
    "jobsFrom": [{"configMap": "streams", "key": "jobs.yml", "optional": True}],
    "workers": {
        "selector": {
            "matchLabels": {"app": "w"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["gold"]}],
        }
    },
    "configMap": "lists",
    "classes": [{"name": "x", "workers": {"matchLabels": {"gpu": "yes"}}, "exclusive": True}],
    "capacity": 7,
    "zoneLabel": "rack",
    "handover": "safe",
    "refresh": "auto",
    "maxUnavailable": 1,
    "confirmSeconds": 60,
    "graceSeconds": 30,
    "churn": 3,
    "scaling": {"jobsPerWorker": 4, "min": 1, "max": 9},
    "replicas": None,
    "paused": False,
}


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Of all that can be replaced in it."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, of in inside for place in places(of, (*here, key)))]


@st.composite
def spoilt(draw: Any) -> Any:
    """A good spec in which something is replaced, or gone."""
    whole = copy.deepcopy({"spec": FULL})
    for _time in range(draw(st.integers(0, 2))):
        *way, last = draw(st.sampled_from(places(whole)[1:]))
        into: Any = whole
        for key in way:
            into = into[key]
        if way and isinstance(into, dict) and draw(st.booleans()):
            del into[last]
        else:
            into[last] = draw(JSON)
    return whole["spec"]


def check_spec(value: Any) -> None:
    """It is understood, or refused by its name, with what it is and a remedy."""
    before = copy.deepcopy(value)
    try:
        spec = swarm.parse_spec(value)
    except Malformed as error:
        assert error.field.startswith("spec") and error.remedy
        assert str(error).startswith(f"{error.field} is ") and len(str(error)) < 1000
    else:
        assert isinstance(spec, Spec)
        assert spec.policy.handover in convergence.HANDOVERS and spec.policy.refresh in convergence.REFRESHES
        assert spec.policy.max_unavailable >= 1 and (spec.capacity is None or spec.capacity >= 1)
        assert all(1 <= job.weight <= 1_000_000 and 1 <= len(job.name) <= 253 for job in spec.jobs)
    assert value == before, "it is only read"


@given(spoilt())
def test_a_spec_with_a_mistake_is_understood_or_refused_by_its_name(value: Any) -> None:
    check_spec(value)


@given(JSON | st.dictionaries(st.sampled_from(sorted(FULL)), JSON, max_size=4))
def test_anything_is_a_spec_or_refused_by_its_name(value: Any) -> None:
    check_spec(value)


@given(JSON)
def test_anything_is_a_list_of_jobs_or_refused_by_its_name(value: Any) -> None:
    try:
        jobs = swarm.parse_jobs(value, "file")
    except Malformed as error:
        assert error.field.startswith("file") and error.remedy
    else:
        assert all(isinstance(job, Job) for job in jobs)


# ------------------------------------------------------------------------------------------ statuses

OURS = {"observedGeneration", "jobs", "placed", "unplaced", "workers", "converged", "configMaps", "pool",
        "unschedulable", "rebalance", "sources", "waitsFor", "conditions"}  # fmt: skip
BEFORE = st.dictionaries(st.text(max_size=4) | st.sampled_from(sorted(OURS)), JSON)


@st.composite
def steps(draw: Any) -> Step:
    found = draw(pools())
    pool = found.pool()
    told = {pod.uid: draw(st.integers(0, 2)) for pod in found.pods.values()}
    sights = swarm_pool.sights(pool, found.config, found.pods, told, lingering=found.expired[:1])
    jobs = [Job(f"j{number}") for number in range(draw(st.integers(0, 9)))]
    return convergence.step(found.config, jobs, pool.members, sights, Policy(), successors=pool.successors, now="now")


@given(BEFORE, steps(), st.integers(0, 3))
def test_a_status_of_itself_and_the_same_step_is_the_same(before: Any, step: Step, generation: int) -> None:
    kept = copy.deepcopy(before)
    said = swarm_status.status(before, generation, step, now="then")
    assert before == kept
    assert swarm_status.status(said, generation, step, now="later") == said
    theirs = {key: value for key, value in before.items() if key not in OURS and value is not None}
    assert {key: value for key, value in said.items() if key not in OURS} == theirs
    assert said["converged"] is (not step.waits) and ("waitsFor" in said) is bool(step.waits)
    kinds = {each["type"]: each["status"] for each in said["conditions"]}
    assert (kinds["Ready"] == "True") is (not step.waits and not step.placement.unplaced)
    assert (kinds["Degraded"] == "True") is bool(step.placement.unplaced)
    for again in (swarm_status.refused(said, generation, "why", "x"), swarm_status.paused(said, generation, "x")):
        assert again["pool"] == said["pool"]

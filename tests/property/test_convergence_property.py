# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How workers get from the jobs that they have to those of the placement: of larger pools, at random.

`tests/model/test_swarm_model.py` tries every history of small ones; here are long histories of the same world with more
workers and jobs, and changes that nothing disturbs, for which the fewest moves and restarts are known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import (
    AUTO,
    EVICT,
    FAST,
    RELOAD,
    SAFE,
    Policy,
    Sight,
    Step,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    ANYTHING,
    Config,
    Entry,
    Hold,
    Known,
)
from ansible_collections.muster.coordination.tests.support import swarm_world as world
from ansible_collections.muster.coordination.tests.support.swarm_world import State, Story, World

ROUNDS = 60  # after so many of everybody all has to be settled
TURNS = 500  # more than any change here takes

# ------------------------------------------------------------------------------------------ long histories

COUNTS = st.integers(0, 3)


@st.composite
def stories(draw: Any) -> Story:
    is_deployment = draw(st.booleans())
    count = 8 if is_deployment else draw(st.integers(1, 4))
    kinds = st.sampled_from("rh" if is_deployment else "rsh")
    workers = draw(kinds) * count if is_deployment else "".join(draw(kinds) for _worker in range(count))
    most = 3 if is_deployment else count
    jobs = st.sets(st.sampled_from("abcdefgh"), min_size=2) | st.just(set())
    worlds = st.builds(World, jobs.map(lambda jobs: "".join(sorted(jobs))), st.integers(1, most) | st.just(0))
    starts = draw(st.none() | st.integers(0, 2))
    forces = draw(COUNTS) if starts is None else 0  # a limit: see docs/proof/swarm.md
    return Story(
        workers,
        tuple(draw(st.lists(worlds, min_size=2, max_size=4))),
        Policy(SAFE, draw(st.sampled_from([AUTO, EVICT])), draw(st.integers(1, 3))),
        operators=draw(st.integers(1, 3)),
        restarts=draw(COUNTS),
        crashes=draw(COUNTS),
        forces=forces,
        overdue=0 if is_deployment else draw(COUNTS),
        starts=starts,
        deletions=draw(st.integers(0, 1)) if starts is None else 0,
        is_split=draw(st.booleans()),
        is_patient=draw(st.booleans()),
        is_deployment=is_deployment,
        rollouts=draw(st.integers(0, 2)),
        is_expired=draw(st.booleans()),
    )


@given(stories(), st.lists(st.integers(0, 10**6), min_size=60, max_size=120))
def test_nothing_illegal_happens_in_a_long_history_and_it_ends_well(story: Story, choices: list[int]) -> None:
    state = story.begin()
    told: list[str] = []
    for choice in choices:
        possible = list(world.moves(story, state))
        what, then = possible[choice % len(possible)]
        told.append(what)
        wrong = world.wrong_in(story, state, then)
        assert not wrong, [*told, wrong]
        state = world.canonical(story, then)
    assume(not story.is_deployment or state.made <= len(story.workers) // 2)  # there are Pods to come
    assert ends_well(story, state), told


def ends_well(story: Story, state: State) -> bool:
    for _round in range(ROUNDS):
        if world.is_settled(story, state):
            return True
        state = world.canonical(story, world.went_on(story, state))
    return False


# ------------------------------------------------------------------------------------------ what nothing disturbs


class Change(NamedTuple):
    """Workers with their jobs, and who is silent; and which jobs and workers there are to be."""

    before: dict[str, str]
    silent: frozenset[str]
    jobs: str
    workers: tuple[str, ...]


NAMES = tuple(f"w-{number}" for number in range(7))
LETTERS = "abcdefghijklmnopqrst"


@st.composite
def changes(draw: Any) -> Change:
    """From an even placement, whoever has what, to any other jobs and workers."""
    workers = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    jobs = draw(st.permutations(LETTERS[: draw(st.integers(4, 14) | st.integers(0, 4))]))
    part, extra = divmod(len(jobs), len(workers))
    before, start = {}, 0
    for place, name in enumerate(workers):
        end = start + part + (place < extra)
        before[name] = "".join(sorted(jobs[start:end]))
        start = end
    silent = draw(st.sampled_from([(), NAMES]) | st.sets(st.sampled_from(NAMES)))
    after = draw(st.sets(st.sampled_from(sorted(jobs))) | st.just(set(jobs)) if jobs else st.just(set()))
    new = draw(st.sets(st.sampled_from(LETTERS[14:])))
    there = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    return Change(before, frozenset(silent), "".join(sorted(after | new)), tuple(there))


class Pool:
    """Workers that do what they are told, one at a time."""

    def __init__(self, change: Change, policy: Policy) -> None:
        self.change, self.policy = change, policy
        self.uids = dict.fromkeys({*change.before, *change.workers}, 1)
        self.told = dict.fromkeys(change.before, 0)
        self.evicted = dict.fromkeys(self.uids, 0)
        self.away: set[str] = set()  # whose Pods are not ready yet
        entries = {name: Entry(tuple(jobs), 0) for name, jobs in change.before.items()}
        holds = {name: Hold(applied=Known(f"{name}/1", 0)) for name in entries if name in change.silent}
        self.config = Config(entries, holds)

    def step(self) -> Step:
        sights = {}
        for name in {*self.config.entries, *self.config.holds, *self.change.workers}:
            reports = name not in self.change.silent
            told, is_ready = self.told.get(name) if reports else None, name not in self.away
            sights[name] = Sight(f"{name}/{self.uids[name]}", reports, told, is_ready)
        workers = [Worker(name) for name in self.change.workers]
        return convergence.step(self.config, [Job(job) for job in self.change.jobs], workers, sights, self.policy)

    def due(self, step: Step) -> list[tuple[str, str]]:
        """Who could do something now, and what."""
        late = [
            (name, "tell")
            for name, entry in sorted(self.config.entries.items())
            if name not in self.change.silent and self.told.get(name) != entry.version
        ]
        ready = [(name, "become ready") for name in sorted(self.away)]
        return [(eviction.worker, "be evicted") for eviction in step.evict] + late + ready

    def obey(self, name: str, what: str) -> None:
        if what == "be evicted":
            self.uids[name] += 1
            self.evicted[name] += 1
            self.away.add(name)
        elif what == "become ready":
            self.away.remove(name)
        else:
            self.told[name] = self.config.entries[name].version


@given(changes(), st.lists(st.integers(0, 10**6), min_size=20, max_size=40), st.integers(1, 3))
def test_undisturbed_it_costs_what_the_first_placement_said(change: Change, order: list[int], away: int) -> None:
    pool = Pool(change, Policy(max_unavailable=away))
    summary: dict[str, Any] = {}
    picks = iter(order)
    for _turn in range(TURNS):
        step = pool.step()
        if step.config is not pool.config:
            pool.config = step.config
            listed = [job for entry in pool.config.entries.values() for job in entry.jobs]
            assert len(listed) == len(set(listed))
            summary = summary or dict(pool.config.rebalance)
            continue
        members = set(change.workers)
        going = {eviction.worker for eviction in step.evict} | pool.away
        assert len(going & members) <= away, "no more are away than may be"
        due = pool.due(step)
        if not due:
            break
        pool.obey(*due[next(picks, 0) % len(due)])
    assert step.is_converged, step.waits
    after = {name: "".join(entry.jobs) for name, entry in pool.config.entries.items()}
    assert sorted("".join(after.values())) == sorted(change.jobs)
    loads = [len(after.get(name, "")) for name in change.workers]
    assert max(loads) - min(loads) <= 1

    there = [name for name in change.before if name in change.workers]
    changed = [name for name in there if after.get(name, "") != change.before[name]]
    was = {job: name for name in there for job in change.before[name]}
    moves = sum(job in was and was[job] != name for name, jobs in after.items() for job in jobs)
    assert (summary.get("moves", 0), summary.get("restarts", 0)) == (moves, len(changed))
    assert [name for name in there if name in after and pool.config.entries[name].version] == changed
    for name, count in pool.evicted.items():
        had, has = set(change.before.get(name, "")), set(after.get(name, ""))
        is_both = bool(had - has) and bool(has - had)  # it has to let go before it can have
        assert count <= (had != has) + is_both, (name, count)
        assert count or name not in change.silent or had == has or name not in after


# ------------------------------------------------------------------------------------------ any step at all

JOB_NAMES = st.sampled_from("abcdefgh")
VERSIONS = st.integers(0, 5)
UIDS = st.sampled_from(["u", "v"])
KNOWN = st.none() | st.builds(Known, UIDS, st.integers(-1, 5))
LISTS = st.sets(JOB_NAMES, max_size=4).map(lambda jobs: tuple(sorted(jobs)))
ENTRIES = st.builds(Entry, LISTS, VERSIONS, st.just({}))
HOLDS = st.builds(Hold, st.dictionaries(JOB_NAMES | st.just(ANYTHING), VERSIONS, max_size=3), KNOWN, KNOWN,
                  st.sampled_from(["", "z"]), st.just({}), st.booleans())  # fmt: skip
CONFIGS = st.builds(
    Config,
    st.dictionaries(st.sampled_from(NAMES), ENTRIES),
    st.dictionaries(st.sampled_from(NAMES), HOLDS),
    st.integers(-1, 9),
    st.just({}),
)
SIGHTS = st.builds(Sight, st.just("") | UIDS, st.booleans(), st.none() | VERSIONS, st.booleans(), st.booleans(),
                   st.booleans(), st.booleans(), st.sampled_from(["", "z"]), st.booleans())  # fmt: skip
POLICIES = st.builds(Policy, st.sampled_from([SAFE, FAST]), st.sampled_from([AUTO, EVICT, RELOAD]), st.integers(1, 3),
                     st.none())  # fmt: skip


class Situation(NamedTuple):
    config: Config
    jobs: str
    workers: list[str]
    sights: dict[str, Sight]
    policy: Policy

    def step(self) -> Step:
        jobs, workers = [Job(job) for job in self.jobs], [Worker(name) for name in self.workers]
        return convergence.step(self.config, jobs, workers, self.sights, self.policy)

    def known(self, name: str) -> int:
        return convergence.known(self.config.holds.get(name, Hold()), self.sights.get(name, Sight()))


@st.composite
def situations(draw: Any) -> Situation:
    """Whatever may stand there; but no job in two lists, and none to be let go that is in the list."""
    config = draw(CONFIGS)
    taken: set[str] = set()
    entries = {}
    for name, entry in config.entries.items():
        entries[name] = entry._replace(jobs=tuple(job for job in entry.jobs if job not in taken))
        taken.update(entry.jobs)
    holds = {}
    for name, hold in config.holds.items():
        jobs, version = entries.get(name, Entry(version=9))[:2]
        leaving = {job: min(since, version) for job, since in hold.leaving.items() if job not in jobs}
        holds[name] = hold._replace(leaving=leaving)
    return Situation(
        replace(config, entries=entries, holds=holds),
        "".join(sorted(draw(st.sets(JOB_NAMES)))),
        draw(st.lists(st.sampled_from(NAMES), unique=True)),
        draw(st.dictionaries(st.sampled_from(NAMES), SIGHTS)),
        draw(POLICIES),
    )


@given(situations())
def test_one_step_changes_only_what_it_may(situation: Situation) -> None:
    before, after = situation.config, situation.step().config
    for name in before.entries.keys() | after.entries.keys():
        old, new = before.entries.get(name), after.entries.get(name)
        if new is None:
            assert old is not None and not old.jobs and after.floor >= old.version
        elif old is None:
            assert new.version == before.floor + 1
        else:
            assert new.version == old.version + (set(new.jobs) != set(old.jobs))
    assert after.floor >= before.floor
    for name, hold in before.holds.items():
        for job, version in hold.leaving.items():
            is_still = after.holds.get(name, Hold()).leaving.get(job, -1) >= version
            is_back = job in after.entries.get(name, Entry()).jobs
            assert is_still or is_back or situation.known(name) >= version


@given(situations())
def test_nobody_is_given_what_another_may_run(situation: Situation) -> None:
    before, after = situation.config, situation.step().config
    may_run = {(name, job) for name, entry in before.entries.items() for job in entry.jobs}
    for name, hold in before.holds.items():
        may_run |= {(name, job) for job, version in hold.leaving.items() if situation.known(name) < version}
    for name, entry in after.entries.items():
        for job in set(entry.jobs).difference(before.entries.get(name, Entry()).jobs):
            others = {who for who, what in may_run if what in (job, ANYTHING) and who != name}
            assert not others or situation.policy.handover == FAST


@given(situations())
def test_who_is_evicted_was_written_down_and_is_still_there(situation: Situation) -> None:
    config, workers, sights = situation.config, situation.workers, situation.sights
    evicted = situation.step().evict
    seen = {name: sights.get(name, Sight()) for name in workers}
    present = [name for name, sight in seen.items() if sight.uid and sight.is_ready and not sight.is_ending]
    for worker, uid in evicted:
        assert sights[worker].uid == uid and not sights[worker].is_ending
        assert config.holds[worker].barrier == Known(uid, config.entries[worker].version)
    missing = len(workers) - len(present)
    away = missing + sum(eviction.worker in present for eviction in evicted)
    assert away <= max(situation.policy.max_unavailable, missing)


@given(situations(), st.randoms(use_true_random=False))
def test_it_is_the_same_in_any_order(situation: Situation, random: Any) -> None:
    def shuffled(some: Any) -> list[Any]:
        listed = list(some)
        random.shuffle(listed)
        return listed

    config = situation.config
    entries, holds = dict(shuffled(config.entries.items())), dict(shuffled(config.holds.items()))
    other = Situation(
        replace(config, entries=entries, holds=holds),
        "".join(shuffled(situation.jobs)),
        shuffled(situation.workers),
        dict(shuffled(situation.sights.items())),
        situation.policy,
    )
    done, again = situation.step(), other.step()
    assert (again.config, again.evict, again.standings) == (done.config, done.evict, done.standings)
    assert list(again.waits.items()) == list(done.waits.items())


@given(situations())
def test_it_comes_to_rest_when_nothing_is_seen_to_change(situation: Situation) -> None:
    """Nobody may go on writing because of what he himself has written."""
    for _turn in range(20):
        after = situation.step().config
        if after is situation.config:
            return
        situation = situation._replace(config=after)
    raise AssertionError(situation.config)

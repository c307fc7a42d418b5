# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Swarm in the small: the configuration as it is stored, operators, Pods and their processes, step by step.

What is decided is decided by the functions that ship: `swarm_pool.pool`, `swarm_pool.sights`, `convergence.step`. The
rest is the world's: an operator reads the configuration, looks at the Pods, asks them, writes if nobody was faster, and
where nothing is to be written it evicts; between any two of these anything may happen, so whoever is frozen thaws with
a view as old as may be. An operator that crashes before it writes leaves what there would be without its turn; so only
that it stops between two evictions is a move of its own.

A process runs the jobs of a list from the moment at which it has read that (it may begin them any time then) until it
has ended them. A Pod that vanishes by force leaves its process behind, and that an operator is told of it is what
`Sight.lingers` is for. Numbers (uids, versions) are replaced by their ranks, for only their order counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence, swarm_pool
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import SAFE, Policy
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Spec
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm_pool import (
    DEPLOYMENT,
    PORT,
    STATEFUL_SET,
    Workload,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    Config,
    Entry,
    Hold,
    Known,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs

NONE: frozenset[str] = frozenset()
GONE = 0  # a uid: of a Pod that nobody knows any more
REPORTER, SILENT, HOT = "r", "s", "h"  # workers: tells its version; reads at its start only; reads again, tells nothing


class Cfg(NamedTuple):
    """A configuration that can be compared: entries are (worker, jobs, version), holds (worker, leaving, applied,
    barrier, awaits)."""

    entries: tuple[tuple[str, str, int], ...] = ()
    holds: tuple[tuple[Any, ...], ...] = ()
    floor: int = -1
    inputs: str = ""


class Pod(NamedTuple):
    """A Pod and its process. `told`: the greatest version that it ever told; `version`: of the list that it has read
    last; it runs `wants`, and `ends` until it has ended them."""

    uid: int
    is_ending: bool = False
    has_read: bool = False
    told: int = -1
    version: int = -1
    wants: frozenset[str] = NONE
    ends: frozenset[str] = NONE


class Memory(NamedTuple):
    """What an operator keeps in mind (`verbs.Memory`): if it has ever looked, which Pods it saw last, who vanished."""

    has_looked: bool = False
    uids: tuple[tuple[str, int], ...] = ()
    vanished: tuple[tuple[str, int], ...] = ()


class World(NamedTuple):
    """What people want: jobs, each a letter, and so many replicas."""

    jobs: str
    replicas: int


class Looked(NamedTuple):
    """An operator that has read the configuration (None: there is none). `is_fresh`: nobody has written since."""

    cfg: Cfg | None
    wanted: int  # which world it has read
    is_fresh: bool = True


class Saw(NamedTuple):
    """It has looked at the Pods as well: (uid, is ready, is ending) of each."""

    cfg: Cfg | None
    wanted: int
    is_fresh: bool
    replicas: int
    pods: tuple[tuple[int, bool, bool] | None, ...]
    lingering: frozenset[int]


class Writes(NamedTuple):
    cfg: Cfg


class Evicts(NamedTuple):
    """(worker, uid, version for whose sake) of each."""

    who: tuple[tuple[int, int, int], ...]


class Early(NamedTuple):
    """It has looked at the Pods, and asked them, before it reads the configuration."""

    wanted: int
    pods: tuple[tuple[int, bool, bool] | None, ...]
    lingering: frozenset[int]
    told: tuple[int, ...]


Stage = Looked | Saw | Writes | Evicts | Early | None


class State(NamedTuple):
    """`lingering`: (worker, uid, what its process runs) of Pods that vanished. `evicted`: by worker, the version for
    which its Pod was evicted last. `made`: how many Pods a Deployment has made. `wrong`: what must not be in an
    eviction. The rest: how often what may still happen."""

    cfg: Cfg | None
    pods: tuple[Pod | None, ...]
    operators: tuple[Stage, ...]
    lingering: tuple[tuple[int, int, frozenset[str]], ...] = ()
    memories: tuple[Memory, ...] = ()  # of the operators; empty: they are told at once who vanished
    wanted: int = 0
    evicted: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()  # evictions of each worker, where they are counted
    made: int = 0
    wrong: str = ""
    restarts: int = 0
    crashes: int = 0
    forces: int = 0
    overdue: int = 0
    rollouts: int = 0
    starts: int = 0
    deletions: int = 0


@dataclass(frozen=True, eq=False)
class Story:
    """`workers`: a letter for each, what it can do. `worlds`: what people want, one after the other.

    The last ones break a rule each, to show that it is necessary.
    """

    workers: str
    worlds: tuple[World, ...]
    policy: Policy = field(default_factory=Policy)
    operators: int = 1
    restarts: int = 0  # Pods that are deleted by others, and come back
    crashes: int = 0  # containers that are started again in the same Pod
    forces: int = 0  # Pods that are deleted by force: the process goes on
    overdue: int = 0  # how often who has not confirmed is called overdue
    starts: int | None = None  # operators that forget what they have seen; None: they are told all
    deletions: int = 0  # of the configuration, by hand
    is_split: bool = False  # Pods are looked at, and asked later; else at one moment
    is_patient: bool = True
    is_counting: bool = False
    is_deployment: bool = False  # else a StatefulSet; there are so many Pods as there are workers, one after the other
    rollouts: int = 0  # Pods of a Deployment that are made beside the others, to take the place of one
    is_expired: bool = False  # the grace time of a place that nobody takes is over at once
    pods_first: bool = False  # looks at the Pods before it reads the configuration
    evicts_early: bool = False  # evicts before it has written down whom
    blind_write: bool = False  # writes whatever was written meanwhile
    blind_to_lingering: bool = False
    hasty_worker: bool = False  # tells a version before the rest has ended
    early_end: bool = False  # takes a Pod that is ending for one that is gone
    no_floor: bool = False  # begins anew with version 0 for a worker that was removed
    at_once: bool = False  # assigns in the same step in which it revokes, as with handover: fast

    @cached_property
    def names(self) -> tuple[str, ...]:
        if self.is_deployment:
            return tuple(f"d-a-0000{number}" for number in range(len(self.workers)))
        return tuple(f"w-{number}" for number in range(len(self.workers)))

    def begin(self) -> State:
        count = len(self.workers)
        return State(
            Cfg(),
            (None,) * count,
            (None,) * self.operators,
            evicted=(-1,) * count,
            counts=(0,) * count if self.is_counting else (),
            restarts=self.restarts,
            crashes=self.crashes,
            forces=self.forces,
            overdue=self.overdue,
            rollouts=self.rollouts,
            memories=() if self.starts is None else (Memory(),) * self.operators,
            starts=self.starts or 0,
            deletions=self.deletions,
        )


# ------------------------------------------------------------------------------------------ what ships


def freeze(config: Config) -> Cfg:
    entries = tuple((name, "".join(entry.jobs), entry.version) for name, entry in sorted(config.entries.items()))
    holds = tuple(
        (name, tuple(sorted(hold.leaving.items())), _number(hold.applied), _number(hold.barrier), hold.awaits)
        for name, hold in sorted(config.holds.items())
    )
    return Cfg(entries, holds, config.floor, config.rebalance.get("inputs", ""))


def _number(known: Known | None) -> tuple[int, int] | None:
    return known and (int(known.uid.partition("/")[2] or GONE), known.version)


@cache
def thaw(cfg: Cfg) -> Config:
    return Config(
        {name: Entry(tuple(jobs), version) for name, jobs, version in cfg.entries},
        {
            name: Hold(dict(leaving), applied and Known(f"{name}/{applied[0]}", applied[1]),
                       barrier and Known(f"{name}/{barrier[0]}", barrier[1]), awaits=awaits)
            for name, leaving, applied, barrier, awaits in cfg.holds
        },
        cfg.floor,
        {"inputs": cfg.inputs} if cfg.inputs else {},
    )  # fmt: skip


class Decision(NamedTuple):
    cfg: Cfg
    evict: tuple[tuple[int, int, int], ...]
    is_converged: bool
    step: convergence.Step


@cache
def decide(
    cfg: Cfg,
    jobs: str,
    replicas: int,
    seen: tuple[tuple[int, bool, bool, int] | None, ...],
    lingering: frozenset[int],
    overdue: bool,
    story: Story,
) -> Decision:
    """What an operator makes of what it has read; of Pods that is (uid, is ready, is ending, version told)."""
    names = story.names
    config = thaw(cfg)
    annotations = {PORT: "8390"} if story.workers[0] == REPORTER else {}
    kind, name = (DEPLOYMENT, "d") if story.is_deployment else (STATEFUL_SET, "w")
    workload = Workload(kind, name, replicas, "", annotations=annotations)
    pods = {
        names[number]: swarm_pool.Pod(
            names[number],
            f"{names[number]}/{pod[0]}",
            f"{number:03}",
            pod[1],
            pod[2],
            reports=story.workers[number] == REPORTER,
        )
        for number, pod in enumerate(seen)
        if pod and not (story.early_end and pod[2])
    }
    told = {f"{name}/{pod[0]}": pod[3] for name, pod in zip(names, seen, strict=True) if pod and pod[3] >= 0}
    spec = Spec(policy=story.policy)
    expired = set(names) - pods.keys() if story.is_expired else ()
    pool = swarm_pool.pool(spec, [workload], pods, config, expired=expired, is_patient=story.is_patient)
    waiting = {
        name
        for name, pod in pods.items()
        if overdue and pod.reports and name in config.entries
        and told.get(pod.uid, -1) < config.entries[name].version
    }  # fmt: skip
    sights = swarm_pool.sights(
        pool, config, pods, told, lingering=[names[number] for number in lingering], overdue=waiting
    )
    listed = [Job(job) for job in jobs]
    step = convergence.step(config, listed, pool.members, sights, story.policy, successors=pool.successors)
    evicting = step
    if story.evicts_early:
        evicting = convergence.step(step.config, listed, pool.members, sights, story.policy, successors=pool.successors)
    evict = tuple(
        (names.index(each.worker), int(each.uid.partition("/")[2]), evicting.config.entries[each.worker].version)
        for each in evicting.evict
    )
    after = cfg if step.config is config else freeze(step.config)
    if story.no_floor:
        after = after._replace(floor=-1)
    return Decision(after, evict, step.is_converged and not pool.vacant and not pool.coming, step)


# ------------------------------------------------------------------------------------------ what may happen


def moves(story: Story, state: State) -> Iterator[tuple[str, State]]:
    if state.wanted + 1 < len(story.worlds):
        yield f"{story.worlds[state.wanted + 1]} is wanted", state._replace(wanted=state.wanted + 1)
    if state.deletions and state.cfg:
        after = written(story, state, -1, None)
        yield "the configuration is deleted", after._replace(deletions=state.deletions - 1)
    for number, stage in enumerate(state.operators):
        yield from moves_of_operator(story, state, number, stage)
    for number in range(len(state.pods)):
        yield from moves_of_worker(story, state, number)
    for number, memory in enumerate(state.memories):
        if state.starts:
            anew = at_stage(state, number, None)._replace(starts=state.starts - 1)
            yield f"{number} is started anew", anew._replace(memories=put(state.memories, number, Memory()))
        later = waited(state, memory)
        if later != memory:
            yield f"{number} has waited for long", state._replace(memories=put(state.memories, number, later))
    for place, (number, _uid, _runs) in enumerate(state.lingering):
        left = state.lingering[:place] + state.lingering[place + 1 :]
        yield f"what was left of {number} ends", state._replace(lingering=left)


def moves_of_operator(story: Story, state: State, number: int, stage: Stage) -> Iterator[tuple[str, State]]:
    if stage is None:
        if story.pods_first:
            pods, lingering = look(story, state)
            told = tuple(pod.told if pod else -1 for pod in state.pods)
            yield f"{number} looks at the Pods", at_stage(state, number, Early(state.wanted, pods, lingering, told))
        else:
            yield f"{number} reads the configuration", at_stage(state, number, Looked(state.cfg, state.wanted))
    elif isinstance(stage, Looked):
        pods, lingering = look(story, state)
        saw = Saw(*stage, state.wanted, pods, lingering)
        if story.is_split:
            yield f"{number} looks at the Pods", at_stage(state, number, saw)
        else:
            yield from decided(story, state, number, saw, "looks at the Pods, asks them and decides")
    elif isinstance(stage, Saw):
        yield from decided(story, state, number, stage, "asks the Pods and decides")
    elif isinstance(stage, Writes):
        yield f"{number} writes", written(story, state, number, stage.cfg)
    elif isinstance(stage, Evicts):
        for place, who in enumerate(stage.who):
            left = stage.who[:place] + stage.who[place + 1 :]
            after = at_stage(state, number, Evicts(left) if left else None)
            yield f"{number} evicts {who[0]}", evicted(after, *who)
        yield f"{number} stops", at_stage(state, number, None)
    else:
        saw = Saw(state.cfg, stage.wanted, True, stage.wanted, stage.pods, stage.lingering)
        yield from decided(story, state, number, saw, "reads the configuration and decides", stage.told)


def look(story: Story, state: State) -> tuple[tuple[tuple[int, bool, bool] | None, ...], frozenset[int]]:
    pods = tuple(pod and (pod.uid, pod.has_read, pod.is_ending) for pod in state.pods)
    return pods, NONE if story.blind_to_lingering else frozenset(number for number, _uid, _runs in state.lingering)


def decided(
    story: Story, state: State, number: int, saw: Saw, how: str, told: tuple[int, ...] | None = None
) -> Iterator[tuple[str, State]]:
    """A Pod that is gone, or another one of its name, does not answer; what it has told is remembered with its uid."""
    answers = told or tuple(
        pod.told if pod and seen and pod.uid == seen[0] else -1 for pod, seen in zip(state.pods, saw.pods, strict=True)
    )
    pods = tuple(seen and (*seen, answer) for seen, answer in zip(saw.pods, answers, strict=True))
    lingering = saw.lingering
    if state.memories:
        memory, lingering = kept_in_mind(story, state, state.memories[number], saw)
        state = state._replace(memories=put(state.memories, number, memory))
    jobs, replicas = story.worlds[saw.wanted].jobs, story.worlds[saw.replicas].replicas
    for overdue in (False, True) if state.overdue else (False,):
        cfg = saw.cfg or recovered(story, state, pods, lingering)
        done = decide(cfg, jobs, replicas, pods, lingering, overdue, story)
        after = state._replace(overdue=state.overdue - 1) if overdue else state
        what = f"{number} {how}" + (", and calls those overdue who have not confirmed" if overdue else "")
        if done.cfg != saw.cfg and story.evicts_early:
            for who in done.evict:
                after = evicted(after, *who)
        if done.cfg != saw.cfg:
            is_in_time = saw.is_fresh or story.blind_write
            yield what, at_stage(after, number, Writes(done.cfg) if is_in_time else None)
        else:
            yield what, at_stage(after, number, Evicts(done.evict) if done.evict else None)


def kept_in_mind(story: Story, state: State, memory: Memory, saw: Saw) -> tuple[Memory, frozenset[int]]:
    """What the shell makes of what it sees, and of whom it says that they linger. That a Pod has ended as it should is
    known to it."""
    there = frozenset((story.names[number], uid) for number, uid, _runs in state.lingering)
    seen = tuple(zip(story.names, saw.pods, strict=True))
    after, lingering = _kept_in_mind(memory, saw.cfg, seen, there)
    return after, frozenset(story.names.index(name) for name in lingering)


@cache
def _kept_in_mind(
    memory: Memory,
    cfg: Cfg,
    seen: tuple[tuple[str, tuple[int, bool, bool] | None], ...],
    there: frozenset[tuple[str, int]],
) -> tuple[Memory, frozenset[str]]:
    kept = verbs.Memory(clock=lambda: 0.0, has_looked=memory.has_looked)
    kept.uids = {name: f"{name}/{uid}" for name, uid in memory.uids}
    kept.vanished = {name: (f"{name}/{uid}" if uid else "", 0.0) for name, uid in memory.vanished}
    config = thaw(cfg)
    pods = {name: swarm_pool.Pod(name, f"{name}/{pod[0]}") for name, pod in seen if pod}

    def has_ended(uid: str) -> bool:
        name, _slash, number = uid.partition("/")
        return bool(uid) and (name, int(number)) not in there

    verbs._watch_the_clock(config, pods, kept, has_ended)
    after = Memory(
        kept.has_looked,
        tuple(sorted((name, int(uid.partition("/")[2])) for name, uid in kept.uids.items())),
        tuple(sorted((name, int(uid.partition("/")[2] or GONE)) for name, (uid, _since) in kept.vanished.items())),
    )
    return after, frozenset(kept.vanished)


def waited(state: State, memory: Memory) -> Memory:
    """So long that of what vanished before nothing runs any more: it has to have ended before."""
    lingering = {number for number, _uid, _runs in state.lingering}
    if lingering:
        return memory
    return memory._replace(vanished=())


def recovered(
    story: Story, state: State, pods: tuple[tuple[int, bool, bool, int] | None, ...], lingering: frozenset[int]
) -> Cfg:
    """In place of one that was deleted: versions that nobody had, for all that are or may be there."""
    there = [name for number, name in enumerate(story.names) if pods[number] or number in lingering]
    return freeze(convergence.recovered(max(versions_of(state)), there))


def written(story: Story, state: State, number: int, cfg: Cfg | None) -> State:
    """Whoever has read what stood before will be refused."""

    def outdated(stage: Stage) -> Stage:
        if isinstance(stage, Writes):
            return stage if story.blind_write else None
        return stage._replace(is_fresh=False) if isinstance(stage, Looked | Saw) else stage

    operators = tuple(None if who == number else outdated(stage) for who, stage in enumerate(state.operators))
    return state._replace(cfg=cfg, operators=operators)


def evicted(state: State, worker: int, uid: int, version: int) -> State:
    """It does nothing where that very Pod is gone, or going."""
    pod = state.pods[worker]
    if pod is None or pod.uid != uid or pod.is_ending:
        return state
    after = with_pod(state, worker, pod._replace(is_ending=True))
    counts = tuple(count + (who == worker) for who, count in enumerate(state.counts))
    wrong = f"{worker} is evicted twice for version {version}" if state.evicted[worker] == version else ""
    return after._replace(evicted=put(state.evicted, worker, version), counts=counts, wrong=wrong)


def moves_of_worker(story: Story, state: State, number: int) -> Iterator[tuple[str, State]]:
    pod, replicas = state.pods[number], story.worlds[state.wanted].replicas
    if pod is None:
        if is_due(story, state, number, replicas):
            uid = 1 + max((GONE, *uids_of(state, number), *uids_written(state, story.names[number])))
            made = with_pod(state, number, Pod(uid))
            yield f"the Pod of {number} is made", made._replace(made=number + 1) if story.is_deployment else made
        elif story.is_deployment and state.rollouts and number == state.made:
            made = with_pod(state, number, Pod(1))._replace(made=number + 1, rollouts=state.rollouts - 1)
            yield f"the Pod of {number} is made beside the others", made
        return
    if pod.is_ending:
        yield f"the Pod of {number} has ended", with_pod(state, number, None)
    elif is_too_many(story, state, number, replicas):
        yield f"the Pod of {number} is to go", with_pod(state, number, pod._replace(is_ending=True))
    elif state.restarts:
        after = with_pod(state, number, pod._replace(is_ending=True))
        yield f"the Pod of {number} is deleted", after._replace(restarts=state.restarts - 1)
    is_reporter = story.workers[number] == REPORTER
    reads = reading(story, state.cfg, story.names[number], pod, is_reporter)
    if reads != pod and (not pod.has_read or story.workers[number] != SILENT):
        yield f"{number} reads its list", with_pod(state, number, reads)
    if pod.ends:
        after = pod._replace(ends=NONE, told=max(pod.told, pod.version))
        yield f"{number} has ended the rest", with_pod(state, number, after)
    if state.crashes and pod.has_read:
        fresh = Pod(pod.uid, pod.is_ending, told=pod.told)
        yield f"the container of {number} crashes", with_pod(state, number, fresh)._replace(crashes=state.crashes - 1)
    if state.forces and pod.wants | pod.ends:
        left = (*state.lingering, (number, pod.uid, pod.wants | pod.ends))
        after = with_pod(state, number, None)._replace(lingering=left, forces=state.forces - 1)
        yield f"the Pod of {number} vanishes, its process does not", after


def is_due(story: Story, state: State, number: int, replicas: int) -> bool:
    if not story.is_deployment:
        return number < replicas
    return number == state.made and sum(1 for pod in state.pods if pod and not pod.is_ending) < replicas


def is_too_many(story: Story, state: State, number: int, replicas: int) -> bool:
    """A StatefulSet has its highest ordinals deleted; a Deployment that is rolled out its oldest Pods, when there are
    enough that are ready."""
    if not story.is_deployment:
        return number >= replicas
    ready = [who for who, pod in enumerate(state.pods) if pod and pod.has_read and not pod.is_ending]
    return len(ready) > replicas and number == ready[0]


def reading(story: Story, cfg: Cfg | None, name: str, pod: Pod, is_reporter: bool) -> Pod:
    """It has read what stands there now. What it runs beside its new list has to end."""
    if cfg is None:
        return pod
    jobs, version = next(((frozenset(jobs), version) for who, jobs, version in cfg.entries if who == name), (NONE, -1))
    if not is_reporter:
        version = -1
    ends = (pod.wants | pod.ends) - jobs
    told = pod.told if ends and not story.hasty_worker else max(pod.told, version)
    return pod._replace(has_read=True, version=version, wants=jobs, ends=ends, told=told)


def at_stage(state: State, number: int, stage: Stage) -> State:
    return state._replace(operators=put(state.operators, number, stage))


def with_pod(state: State, number: int, pod: Pod | None) -> State:
    return state._replace(pods=put(state.pods, number, pod))


def put(some: tuple[Any, ...], number: int, value: Any) -> tuple[Any, ...]:
    return (*some[:number], value, *some[number + 1 :])


def uids_of(state: State, number: int) -> Iterator[int]:
    """Of the Pods of one worker that anybody still knows."""
    pod = state.pods[number]
    if pod:
        yield pod.uid
    for stage in state.operators:
        if isinstance(stage, Saw | Early) and (seen := stage.pods[number]):
            yield seen[0]
        elif isinstance(stage, Evicts):
            yield from (uid for who, uid, _version in stage.who if who == number)
    yield from (uid for who, uid, _runs in state.lingering if who == number)


def uids_written(state: State, name: str) -> Iterator[int]:
    for memory in state.memories:
        yield from (uid for who, uid in (*memory.uids, *memory.vanished) if who == name)
    for cfg in cfgs_of(state):
        for who, _leaving, *known, _awaits in cfg.holds:
            if who == name:
                yield from (one[0] for one in known if one)


def cfgs_of(state: State) -> list[Cfg]:
    found = [state.cfg, *(stage.cfg for stage in state.operators if isinstance(stage, Looked | Saw | Writes))]
    return [cfg for cfg in found if cfg]


def versions_of(state: State) -> set[int]:
    """All that anybody knows of, and -1."""
    versions = {-1}
    for cfg in cfgs_of(state):
        versions.add(cfg.floor)
        versions.update(version for _name, _jobs, version in cfg.entries)
        for _name, leaving, applied, barrier, _awaits in cfg.holds:
            versions.update(version for _job, version in leaving)
            versions.update(known[1] for known in (applied, barrier) if known)
    for stage in state.operators:
        if isinstance(stage, Evicts):
            versions.update(version for _who, _uid, version in stage.who)
        elif isinstance(stage, Early):
            versions.update(stage.told)
    for pod in state.pods:
        if pod:
            versions.update((pod.told, pod.version))
    return versions


# ------------------------------------------------------------------------------------------ ranks for numbers


def canonical(story: Story, state: State) -> State:
    """The same state, with the smallest numbers that stand in the same order, and operators in one order."""
    cfgs = cfgs_of(state)
    pending = [who for stage in state.operators if isinstance(stage, Evicts) for who in stage.who]
    current = {(name, version) for cfg in cfgs for name, _jobs, version in cfg.entries}
    current |= {(story.names[who], version) for who, _uid, version in pending}
    last = tuple(
        version if (name, version) in current else -1 for name, version in zip(story.names, state.evicted, strict=True)
    )
    rank = {version: number - 1 for number, version in enumerate(sorted(versions_of(state)))}
    uids = {
        name: {uid: 1 + number for number, uid in enumerate(sorted(set(uids_of(state, who))))}
        for who, name in enumerate(story.names)
    }
    by_number = [uids[name] for name in story.names]

    def of_known(name: str, known: tuple[int, int] | None) -> tuple[int, int] | None:
        return known and (uids[name].get(known[0], GONE), rank[known[1]])

    def of_cfg(cfg: Cfg | None) -> Cfg | None:
        return cfg and Cfg(
            tuple((name, jobs, rank[version]) for name, jobs, version in cfg.entries),
            tuple(
                (name, tuple((job, rank[version]) for job, version in leaving), of_known(name, applied),
                 of_known(name, barrier), awaits)
                for name, leaving, applied, barrier, awaits in cfg.holds
            ),
            rank[cfg.floor],
            cfg.inputs,
        )  # fmt: skip

    def of_seen(pods: tuple[tuple[int, bool, bool] | None, ...]) -> tuple[tuple[int, bool, bool] | None, ...]:
        return tuple(seen and (of[seen[0]], *seen[1:]) for of, seen in zip(by_number, pods, strict=True))

    def of_stage(stage: Stage) -> Stage:
        if isinstance(stage, Looked | Writes):
            return stage._replace(cfg=of_cfg(stage.cfg))
        if isinstance(stage, Saw):
            return stage._replace(cfg=of_cfg(stage.cfg), pods=of_seen(stage.pods))
        if isinstance(stage, Evicts):
            return Evicts(tuple((who, by_number[who][uid], rank[version]) for who, uid, version in stage.who))
        if isinstance(stage, Early):
            return stage._replace(pods=of_seen(stage.pods), told=tuple(rank[version] for version in stage.told))
        return None

    def of_memory(memory: Memory | None) -> Memory | None:
        return memory and memory._replace(
            uids=tuple((name, uids[name].get(uid, GONE)) for name, uid in memory.uids),
            vanished=tuple((name, uids[name].get(uid, GONE)) for name, uid in memory.vanished),
        )

    memories = state.memories or (None,) * len(state.operators)
    operators = [(of_stage(stage), of_memory(memory)) for stage, memory in zip(state.operators, memories, strict=True)]
    operators.sort(key=lambda one: (type(one[0]).__name__, hash(one)))
    return state._replace(
        cfg=of_cfg(state.cfg),
        pods=tuple(
            pod and pod._replace(uid=of[pod.uid], told=rank[pod.told], version=rank[pod.version])
            for of, pod in zip(by_number, state.pods, strict=True)
        ),
        operators=tuple(stage for stage, _memory in operators),
        memories=tuple(memory for _stage, memory in operators if memory),
        lingering=tuple(
            sorted(((who, by_number[who][uid], runs) for who, uid, runs in state.lingering), key=lambda one: one[:2])
        ),
        evicted=tuple(rank[version] for version in last),
    )


# ------------------------------------------------------------------------------------------ what has to hold


def running(state: State) -> Iterator[tuple[int, str]]:
    """(worker, job) of all processes, of Pods that vanished, too."""
    for number, pod in enumerate(state.pods):
        for job in pod.wants | pod.ends if pod else NONE:
            yield number, job
    for number, _uid, runs in state.lingering:
        for job in runs:
            yield number, job


def wrong_in(story: Story, before: State, after: State) -> str:
    """What is wrong with a step."""
    if after.wrong:
        return after.wrong
    if story.policy.handover == SAFE or story.at_once:
        owner: dict[str, int] = {}
        for number, job in running(after):
            if owner.setdefault(job, number) != number:
                return f"{job} is run for two workers: {owner[job]} and {number}"
    if after.cfg is before.cfg or before.cfg is None or after.cfg is None:
        return ""
    return wrong_in_write(story, before.cfg, after.cfg, set(running(after)))


def wrong_in_write(story: Story, before: Cfg, after: Cfg, runs: set[tuple[int, str]]) -> str:
    old = {name: (jobs, version) for name, jobs, version in before.entries}
    new = {name: (jobs, version) for name, jobs, version in after.entries}
    listed = [job for jobs, _version in new.values() for job in jobs]
    if story.policy.handover == SAFE and len(listed) != len(set(listed)):
        return f"a job stands in two lists: {new}"
    for name in old.keys() | new.keys():
        if name not in new:
            if after.floor < old[name][1]:
                return f"the version of {name} is forgotten"
        elif name not in old:
            if new[name][1] <= before.floor:
                return f"{name} begins with a version that is not new"
        elif new[name] != old[name] and (new[name][0] == old[name][0] or new[name][1] <= old[name][1]):
            return f"the version of {name} does not grow when, and only when, its list changes"
    left = {(name, job) for name, leaving, *_more in after.holds for job, _version in leaving}
    for name, leaving, *_more in before.holds:
        for job, _version in leaving:
            number = story.names.index(name)
            has_it = job in new.get(name, ("", 0))[0]
            if (name, job) not in left and not has_it and (number, job) in runs:
                return f"it is forgotten that {name} may still run {job}"
    return ""


def wrong_in_counts(story: Story, begin: State, state: State) -> str:
    """Of a settled state that nothing disturbed: who is silent is evicted once if its list changed, and else never."""
    if not story.is_counting or begin.wanted == state.wanted or begin.cfg is None or state.cfg is None:
        return ""
    before = {name: jobs for name, jobs, _version in begin.cfg.entries}
    after = {name: jobs for name, jobs, _version in state.cfg.entries}
    for number, name in enumerate(story.names):
        if name not in after:
            continue  # it was scaled away
        due = story.workers[number] == SILENT and before.get(name, "") != after[name]
        if state.counts[number] != due:
            return f"{name} had {before.get(name)} and has {after[name]}, and was evicted {state.counts[number]} times"
    return ""


def is_settled(story: Story, state: State) -> bool:
    """Each job is run by the one worker in whose list it is, the lists are even, and nobody has anything to write."""
    world = story.worlds[state.wanted]
    if state.cfg is None:
        return False
    listed = sorted(job for _name, jobs, _version in state.cfg.entries for job in jobs)
    runs = sorted(job for _number, job in running(state))
    want = sorted(world.jobs) if world.replicas else []
    if state.lingering or not listed == runs == want or any(pod and pod.ends for pod in state.pods):
        return False
    if any(pod is None and is_due(story, state, number, world.replicas) for number, pod in enumerate(state.pods)):
        return False
    counts = [len(pod.wants) for pod in state.pods if pod]
    if counts and max(counts) - min(counts) > 1:
        return False
    pods, lingering = look(story, state)
    seen = tuple(one and (*one, pod.told if pod else -1) for one, pod in zip(pods, state.pods, strict=True))
    done = decide(state.cfg, world.jobs, world.replicas, seen, lingering, False, story)
    return done.is_converged and done.cfg == state.cfg and not done.evict


def undisturbed(story: Story, state: State) -> State:
    """As it is, with all before it that may still happen in this story."""
    now = story.begin()
    return now._replace(cfg=state.cfg, pods=state.pods, made=state.made, wanted=state.wanted, memories=state.memories)


def went_on(story: Story, state: State) -> State:
    """Nothing disturbs any more; all do what is due, one after the other."""
    state = state._replace(restarts=0, crashes=0, forces=0, overdue=0, rollouts=0, starts=0, deletions=0, lingering=())
    state = state._replace(memories=tuple(waited(state, memory) for memory in state.memories))
    for number in range(len(state.pods)):
        for _step in range(4):
            due = next(moves_of_worker(story, state, number), None)
            state = due[1] if due else state
    for number in range(len(state.operators)):
        for _step in range(8):
            is_idle = state.operators[number] is None
            due = next(moves_of_operator(story, state, number, state.operators[number]))
            state = due[1]
            if not is_idle and state.operators[number] is None:
                break
    return state

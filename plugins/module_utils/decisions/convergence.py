# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the workers get from the jobs that they have to those of the placement, so that no job runs on two of them.

Rules
1. Revoke, confirm, assign: a job leaves its worker's list first, and is remembered as `leaving` in the same write. It
   is given to another worker only when nobody else has it in a list, and nobody may still run it.
2. A worker may run what it was told to let go until it is known to run a version in which that is gone, or no Pod of
   its name is there. What it reports of itself is such knowledge. Of a worker that does not report, we know: any Pod
   that was made after a version had been written has read that version. So after the write the Pod that is there then
   is written down (the barrier), and only then it is evicted; each other Pod of that name is a later one.
3. What was seen of Pods was seen after the configuration was read. Which Pod is there, and what a version says, are
   facts that stay true, so it does no harm to act on them late: the write is refused if anything came in between.
4. The placement is made on what workers have and what they were told to let go, taken together; and a worker that has
   got a part of its new jobs counts as one that changes anyway. So nobody is changed but those whom the first placement
   changes, also when another operator goes on after the first has crashed.
5. A worker that has to be restarted for each change waits until it can have all of its new jobs at once. One whose Pod
   does not come back under its name is restarted only to make it let go: what is new to it it has to read by itself.
6. Moves that only improve the balance of weights are planned once for each change of jobs or workers: the digest of
   those is written down with the first of them, and from then on only what is on its way is carried out.

Theory: cooperative rebalancing (Kafka, KIP-429); the barrier is the argument of a happens-before by one total order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import placement
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Placement
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    ANYTHING,
    Config,
    Entry,
    Hold,
    Known,
    natural,
)

EVERYTHING: Final = 2**63  # a version: nothing runs that could be older
NOTHING: Final = -1  # a version: nobody knows

SAFE: Final = "safe"
FAST: Final = "fast"
HANDOVERS: Final = (SAFE, FAST)
AUTO: Final = "auto"
RELOAD: Final = "reload"
EVICT: Final = "evict"
REFRESHES: Final = (AUTO, RELOAD, EVICT)

CONVERGED, RELOADING, RESTARTING, MISSING, LEAVING = "Converged", "Reloading", "Restarting", "Missing", "Leaving"


class Policy(NamedTuple):
    """`handover` and `refresh`: see the Swarm's spec. `max_unavailable`: how many members may be away by eviction."""

    handover: str = SAFE
    refresh: str = AUTO
    max_unavailable: int = 1
    churn: int | None = None


class Sight(NamedTuple):
    """What was seen of one worker, after the configuration was read.

    `uid` is of its Pod ("": there is none); `reports`: it tells its version; `applied`: that version, None where it did
    not answer or has none; `is_ending`: the Pod is being deleted; `lingers`: an earlier Pod of this name vanished, and
    nobody has shown that its processes have ended; `is_overdue`: it has been asked for long enough; `comes_back`: if it
    is evicted, another Pod comes under its name.
    """

    uid: str = ""
    reports: bool = False
    applied: int | None = None
    is_ready: bool = True
    is_ending: bool = False
    lingers: bool = False
    is_overdue: bool = False
    zone: str = ""
    comes_back: bool = True


class Eviction(NamedTuple):
    worker: str
    uid: str


class Standing(NamedTuple):
    """One worker, for people: the version that it is to run, that it is known to run, and how it stands."""

    jobs: int
    wanted: int | None
    applied: int | None
    state: str


@dataclass(frozen=True, slots=True)
class Step:
    """`config` is the configuration to be written (the very same, where nothing is); `evict` what is to be evicted now,
    if the configuration stands as it was read. `standings` by worker; `waits` by worker: why it is not converged,
    first those for which others wait."""

    config: Config
    placement: Placement
    evict: tuple[Eviction, ...]
    standings: Mapping[str, Standing]
    waits: Mapping[str, str]

    @property
    def is_converged(self) -> bool:
        return not self.waits


def step(
    config: Config,
    jobs: Sequence[Job],
    members: Sequence[placement.Worker],
    sights: Mapping[str, Sight],
    policy: Policy,
    *,
    successors: Mapping[str, str] | None = None,
    now: str = "",
) -> Step:
    """All that may be done now. Pure: the same again for the same arguments, in any order.

    `members` are the workers that shall have jobs; `sights` tells of each of them, and of every other worker that the
    configuration names. `successors` says which new worker takes over the share of one that is no more. `now` is the
    time for people that is written down with a rebalance.
    """
    seen = _absorb(config, sights)
    inputs = _digest(jobs, members)
    is_new = inputs != config.rebalance.get("inputs")
    churn = policy.churn if is_new or policy.churn is None else _on_their_way(seen)
    before = held(seen, successors or {}, goes_on=not is_new)
    plan = placement.place(jobs, members, before, churn=churn)
    after = _carry_out(seen, plan, sights, policy)
    after = _remember(config, after, sights, policy)
    if is_new:
        after = replace(after, rebalance=_summary(inputs, plan, now))
    names = sorted({*sights, *config.entries}, key=natural)
    evictions = _evictions(config, {member.name for member in members}, names, sights, policy)
    standings = {name: _standing(name, after, plan, sights, policy) for name in names}
    others_wait_for = sorted(names, key=lambda name: not after.holds.get(name, Hold()).leaving)
    waits = {name: why for name in others_wait_for if (why := _why(name, after, plan, sights, policy))}
    return Step(config if after == config else after, plan, evictions, standings, waits)


def recovered(floor: int, present: Iterable[str]) -> Config:
    """In place of a configuration that is gone: nobody knows what the present workers run, so each has to confirm that
    it runs nothing. `floor` is at least each version that was ever given."""
    names = list(present)
    entries = {name: Entry((), floor + 1) for name in names}
    return Config(entries, {name: Hold({ANYTHING: floor + 1}) for name in names}, floor)


def _digest(jobs: Iterable[Job], members: Iterable[placement.Worker]) -> str:
    """Of what a placement is made for, but for who has what."""
    hashed = hashlib.sha256()
    for job in sorted(jobs):
        hashed.update(repr(tuple(job)).encode("utf-8", "surrogatepass"))
    for name, takes, *bounds in sorted(members, key=lambda member: member.name):
        hashed.update(repr((name, sorted(takes), *bounds)).encode("utf-8", "surrogatepass"))
    return hashed.hexdigest()[:16]


def _summary(inputs: str, plan: Placement, now: str) -> dict[str, Any]:
    """The proof numbers of a placement, as they were before any of it was carried out."""
    numbers = {
        "moves": plan.moves,
        "leastMoves": plan.least_moves,
        "restarts": plan.restarts,
        "leastRestarts": plan.least_restarts,
        "imbalance": plan.imbalance,
    }
    known_numbers = {key: value for key, value in numbers.items() if value is not None}
    return {"inputs": inputs, "time": now, "method": plan.method, **known_numbers}


def _on_their_way(config: Config) -> int:
    assigned = {job for entry in config.entries.values() for job in entry.jobs}
    return len({job for hold in config.holds.values() for job in hold.leaving} - assigned)


def is_drained(config: Config, worker: str) -> bool:
    """Whether it has no jobs and runs none that it once had."""
    entry, hold = config.entries.get(worker, Entry()), config.holds.get(worker, Hold())
    return not entry.jobs and not hold.leaving


def known(hold: Hold, sight: Sight) -> int:
    """The version that every process of this worker runs at least."""
    if sight.lingers:
        return NOTHING
    if not sight.uid:
        return EVERYTHING
    if sight.reports:
        return NOTHING if sight.applied is None else sight.applied
    applied = hold.applied.version if hold.applied and hold.applied.uid == sight.uid else NOTHING
    barrier = hold.barrier.version if hold.barrier and hold.barrier.uid != sight.uid else NOTHING
    return max(applied, barrier)


def held(config: Config, successors: Mapping[str, str], *, goes_on: bool = False) -> dict[str, set[str]]:
    """The jobs that each worker has or was told to let go, as `place` wants to know them.

    `goes_on`: for the same jobs and workers as before. Then who awaits more has also one that is no job: that is how
    `place` is told that this worker changes anyway.
    """
    assigned = {job for entry in config.entries.values() for job in entry.jobs}
    found: dict[str, set[str]] = {}
    for name in config.entries.keys() | config.holds.keys():
        entry, hold = config.entries.get(name, Entry()), config.holds.get(name, Hold())
        still = {job for job in hold.leaving if job not in assigned and job != ANYTHING}
        if name not in config.entries and not still:
            continue  # nothing has been given to it yet
        found.setdefault(successors.get(name, name), set()).update(entry.jobs, still)
        if hold.awaits and goes_on:
            found[successors.get(name, name)].add(ANYTHING)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The parts of a step


def _absorb(config: Config, sights: Mapping[str, Sight]) -> Config:
    """Forget what is known to have been let go, and workers of which nothing is left."""
    holds = {}
    for name, hold in config.holds.items():
        at_least = known(hold, sights.get(name, Sight()))
        leaving = {job: version for job, version in hold.leaving.items() if version > at_least}
        holds[name] = hold if len(leaving) == len(hold.leaving) else hold._replace(leaving=leaving)
    return replace(config, holds=holds)


def _carry_out(config: Config, plan: Placement, sights: Mapping[str, Sight], policy: Policy) -> Config:
    """Revoke what the plan gives to others, assign what nobody else may run, remove workers that are no more."""
    may_run = _who_may_run(config)
    entries: dict[str, Entry] = {}
    holds = dict(config.holds)
    floor = config.floor
    for name in sorted({*config.entries, *plan.assignment}):
        entry, hold = config.entries.get(name), holds.get(name, Hold())
        wanted = plan.assignment.get(name)
        has = frozenset(entry.jobs) if entry else frozenset()
        shall = frozenset(wanted or ())
        free = shall - has
        if policy.handover == SAFE:
            free = frozenset(
                job for job in free if not (may_run.get(job, _NOBODY) | may_run.get(ANYTHING, _NOBODY)) - {name}
            )
        dropped = has - shall
        if not dropped and _waits_for_more(shall - has - free, may_run, name, sights, policy):
            free = frozenset()
        if dropped or free:
            version = entry.version + 1 if entry else config.floor + 1
            entry = Entry(tuple(sorted((has & shall) | free)), version, entry.extra if entry else {})
            leaving = {job: at for job, at in hold.leaving.items() if job not in free}
            hold = hold._replace(leaving={**leaving, **dict.fromkeys(dropped, version)})
        hold = hold._replace(awaits=not shall.issubset(entry.jobs if entry else ()))
        if wanted is None and not hold.leaving and entry is not None:
            floor = max(floor, entry.version)
            holds.pop(name, None)
            continue
        if entry is not None:
            entries[name] = entry
        if not hold.is_empty:
            holds[name] = hold
        else:
            holds.pop(name, None)
    gone = [
        name for name, hold in holds.items() if name not in entries and name not in plan.assignment and not hold.leaving
    ]
    for name in gone:
        del holds[name]
    return Config(entries, holds, floor, config.rebalance)


_NOBODY: Final[frozenset[str]] = frozenset()


def _who_may_run(config: Config) -> dict[str, frozenset[str]]:
    """The workers that have a job in their list, or may still run it; under ANYTHING those of which nobody knows."""
    found: dict[str, set[str]] = {}
    for name, entry in config.entries.items():
        for job in entry.jobs:
            found.setdefault(job, set()).add(name)
    for name, hold in config.holds.items():
        for job in hold.leaving:
            found.setdefault(job, set()).add(name)
    return {job: frozenset(names) for job, names in found.items()}


def _waits_for_more(
    missing: Collection[str],
    may_run: Mapping[str, frozenset[str]],
    name: str,
    sights: Mapping[str, Sight],
    policy: Policy,
) -> bool:
    """Whether a worker that is restarted for each change will soon be able to have more than it could have now."""
    if not _learns_by_restart(sights.get(name, Sight()), policy):
        return False
    others = frozenset().union(*(may_run.get(job, _NOBODY) for job in missing), may_run.get(ANYTHING, _NOBODY)) - {name}
    return bool(missing) and not any(sights.get(other, Sight()).is_overdue for other in others)


def _is_restarted(sight: Sight, policy: Policy) -> bool:
    """Whether this worker lets go by being restarted."""
    return policy.refresh == EVICT or (policy.refresh == AUTO and not sight.reports)


def _learns_by_restart(sight: Sight, policy: Policy) -> bool:
    """Whether it learns by that of what is new to it, too."""
    return sight.comes_back and _is_restarted(sight, policy)


def _is_to_be_restarted(sight: Sight, hold: Hold, policy: Policy) -> bool:
    is_stuck = sight.is_overdue and sight.reports
    return is_stuck or (_is_restarted(sight, policy) and (sight.comes_back or bool(hold.leaving)))


def _version_counts(sight: Sight) -> bool:
    """Whether it can ever be known that this worker has read what is new to it."""
    return sight.comes_back or sight.reports


def _remember(before: Config, after: Config, sights: Mapping[str, Sight], policy: Policy) -> Config:
    """Write down, of workers whose list stays as it was read, which Pod is to go; and where each was seen."""
    holds = dict(after.holds)
    for name, entry in after.entries.items():
        sight, hold = sights.get(name, Sight()), holds.get(name, Hold())
        if sight.zone:
            hold = hold._replace(zone=sight.zone)
        is_news = hold.barrier is None or hold.barrier.version < entry.version
        is_settled = before.entries.get(name) == entry
        if is_settled and is_news and not sight.lingers and _is_to_be_restarted(sight, hold, policy):
            at_least = known(hold, sight)
            if at_least < entry.version or not sight.uid:
                applied = Known(sight.uid, at_least) if sight.uid and at_least > NOTHING else None
                hold = hold._replace(applied=applied, barrier=Known(sight.uid, entry.version))
        if hold != holds.get(name, Hold()):
            holds[name] = hold
    return replace(after, holds=holds)


def _evictions(
    config: Config, members: Collection[str], names: Iterable[str], sights: Mapping[str, Sight], policy: Policy
) -> tuple[Eviction, ...]:
    """Whose Pod has to go, as many as may be away; those first on which others wait."""
    away = {name for name in members if not _is_available(sights.get(name, Sight()))}
    room = policy.max_unavailable - len(away)
    due = []
    for name in names:
        sight, hold, entry = sights.get(name, Sight()), config.holds.get(name, Hold()), config.entries.get(name)
        if entry is None or not sight.uid or sight.is_ending or not _is_to_be_restarted(sight, hold, policy):
            continue
        if known(hold, sight) < entry.version and hold.barrier == Known(sight.uid, entry.version):
            due.append((not hold.leaving, natural(name), Eviction(name, sight.uid)))
    chosen = []
    for _last, _key, eviction in sorted(due):
        if eviction.worker in members and eviction.worker not in away:
            if room <= 0:
                continue
            room -= 1
        chosen.append(eviction)
    return tuple(chosen)


def _is_available(sight: Sight) -> bool:
    return bool(sight.uid) and sight.is_ready and not sight.is_ending


# ---------------------------------------------------------------------------------------------------------------------
# For people


def _standing(name: str, config: Config, plan: Placement, sights: Mapping[str, Sight], policy: Policy) -> Standing:
    sight, entry, hold = sights.get(name, Sight()), config.entries.get(name), config.holds.get(name, Hold())
    at_least = known(hold, sight)
    applied = None if at_least in (NOTHING, EVERYTHING) else at_least
    if entry is None:
        return Standing(0, None, applied, CONVERGED if sight.uid else MISSING)
    if name not in plan.assignment:
        state = LEAVING
    elif not sight.uid:
        state = MISSING
    elif (at_least >= entry.version or not _version_counts(sight)) and not hold.leaving:
        state = CONVERGED
    else:
        state = RESTARTING if _is_to_be_restarted(sight, hold, policy) else RELOADING
    return Standing(len(entry.jobs), entry.version, applied, state)


def _why(name: str, config: Config, plan: Placement, sights: Mapping[str, Sight], policy: Policy) -> str:
    """Why this worker is not where it should be; empty where it is."""
    sight, entry, hold = sights.get(name, Sight()), config.entries.get(name), config.holds.get(name, Hold())
    jobs = entry.jobs if entry else ()
    if sight.lingers:
        return "its Pod vanished, and its processes may still run"
    if hold.leaving:
        count = "all that it may run" if ANYTHING in hold.leaving else f"{len(hold.leaving)} jobs"
        return f"it has not shown that it let go {count}{_how(sight)}"
    if entry is not None and name not in plan.assignment:
        return "its last jobs are being taken back"
    if not sight.uid and jobs:
        return f"it has {len(jobs)} jobs, and no Pod"
    if entry is not None and sight.uid and _version_counts(sight) and known(hold, sight) < entry.version:
        has = "nothing yet" if known(hold, sight) == NOTHING else f"version {known(hold, sight)}"
        return f"it has to run version {entry.version}, and is known to run {has}{_how(sight)}"
    if set(jobs) != set(plan.assignment.get(name, ())):
        return f"{len(set(plan.assignment[name]) - set(jobs))} jobs are on their way to it"
    return ""


def _how(sight: Sight) -> str:
    if sight.is_ending:
        return "; its Pod is ending"
    if sight.reports and sight.applied is None:
        return "; it does not answer"
    return ""

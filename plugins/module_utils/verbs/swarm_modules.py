# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Swarms without an operator: `rebalance` takes the turns of `verbs/swarm.py` for as long as it is called.

Without `wait` it does what can be done at once: it takes turns until one has nothing to write. With `wait` it goes on,
driven by watches, until every worker runs its jobs. `info` is in `verbs/swarm_info.py`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    PODS,
    STATEFUL_SETS,
    Api,
    LostAnswer,
    Removed,
    Resource,
    ServerError,
    Throttled,
    Trouble,
    Unreachable,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    convergence,
    swarm,
    swarm_pool,
    worker_config,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Placement
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Spec
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import Ask, Memory, Stale, Turn

MANAGER: Final = "ansible"  # how a ConfigMap is marked that `rebalance` keeps
NONE: Final = "none"  # in place of one of convergence.REFRESHES: somebody else restarts what has to be restarted
AT_ONCE: Final = 30.0  # seconds without wait: for what can be done at once, and for who is faster each time
BREATH: Final = 0.1  # seconds after news: more of it may follow at once
BLIND: Final = 5.0  # seconds between two looks where a watch is not allowed, or in trouble
RESYNC: Final = 60.0  # seconds between two looks though nothing was told
AT_A_TIME: Final = 8  # workers that are asked at once
UNWELL: Final = (LostAnswer, ServerError, Throttled, TimedOut, Unreachable)  # who waits tries again

Result = dict[str, Any]


# ---------------------------------------------------------------------------------------------------------------------
# Rebalance


def rebalance(
    api: Api,
    *,
    namespace: str,
    name: str = swarm.CONFIGMAP,
    jobs: Sequence[Any] | None = None,
    jobs_from: Sequence[Mapping[str, Any]] | None = None,
    selector: str = swarm.SELECTOR,
    refresh: str = convergence.AUTO,
    linger_seconds: float = verbs.LINGER_SECONDS,
    wait: bool = False,
    wait_timeout: float = 300.0,
    check_mode: bool = False,
    **options: Any,
) -> Result:
    """Bring the workers' ConfigMap `name` to the placement of these jobs, as a Swarm's operator would.

    `options` are further fields of a Swarm's spec, in snake case, and None where they are not given. `jobs` are as in
    the spec; `jobs_from` have `config_map`, `key` and `optional`. `selector` is the text of a label selector of
    StatefulSets and Deployments. `linger_seconds`: for so long a Pod that vanished may still run.
    Raises Malformed for what can't be understood and for a ConfigMap that somebody else keeps, TimedOut when the wait
    was in vain: what was done until then stays, and the next call goes on with it.
    """
    with _told_by_option():
        spec = _spec(name, selector, jobs, jobs_from, refresh=refresh, **options)
        listed, _sources = verbs.read_jobs(api, namespace, spec)
        _check_selector(api, namespace, selector, len(listed))
        run = _Run(api, namespace, spec, listed, refresh != NONE, linger_seconds)
        if check_mode:
            return run.foreseen(run.take(check_mode=True), wait)
        with _News(api, namespace, name, watching=wait) as news:
            return run.done(_carry_out(run, news, wait, wait_timeout))


def _spec(
    name: str,
    selector: str,
    jobs: Sequence[Any] | None,
    jobs_from: Sequence[Mapping[str, Any]] | None,
    **options: Any,
) -> Spec:
    sources = [
        {"configMap": source.get("config_map"), "key": source.get("key"), "optional": bool(source.get("optional"))}
        for source in jobs_from or ()
    ]
    if options.get("refresh") == NONE:
        options["refresh"] = convergence.AUTO
    fields = {_camel(option): value for option, value in options.items() if value is not None}
    fields.update(jobs=[_plain(job) for job in jobs or ()], jobsFrom=sources, configMap=name)
    return replace(swarm.parse_spec(fields), selector=selector)


def _plain(job: Any) -> Any:
    """A template may have made text of its number and its boolean."""
    if not isinstance(job, Mapping):
        return job
    weight, dedicated = job.get("weight"), job.get("dedicated")
    told = dict(job)
    if isinstance(weight, str) and weight.isascii() and weight.isdigit():
        told["weight"] = int(weight)
    if isinstance(dedicated, str) and dedicated.lower() in ("true", "false"):
        told["dedicated"] = dedicated.lower() == "true"
    return told


@contextmanager
def _told_by_option() -> Iterator[None]:
    """Name in errors the options, and not the fields of a Swarm's spec."""
    try:
        yield
    except Malformed as error:
        found = re.fullmatch(r"(?:spec\.)?(configMap|(?<=spec\.)\w+)(.*)", error.field)
        option = error.field if found is None else f"{'name' if found[1] == 'configMap' else snake(found[1])}{found[2]}"
        raise Malformed(option, error.value, error.remedy.replace("spec.", "")) from None


def _camel(option: str) -> str:
    return re.sub("_([a-z])", lambda found: found[1].upper(), option)


def snake(field: str) -> str:
    return re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", field)


def _check_selector(api: Api, namespace: str, selector: str, jobs: int) -> None:
    """A mistyped selector must not take all jobs from all workers."""
    if not selector.strip():
        raise Malformed("selector", selector, "give labels of the workers' StatefulSets or Deployments")
    if jobs and not verbs.read_workloads(api, namespace, selector):
        remedy = f"no StatefulSet or Deployment of namespace {namespace} has these labels; label the workers' ones"
        raise Malformed("selector", selector, f"{remedy}, or give no jobs")


class _Run:
    """The turns of one rebalance, and what came of them."""

    def __init__(
        self, api: Api, namespace: str, spec: Spec, jobs: Sequence[Job], refresh: bool, linger_seconds: float
    ) -> None:
        self._api, self._namespace, self._spec, self._jobs, self._refresh = api, namespace, spec, jobs, refresh
        self._memory, self._linger_seconds = Memory(linger_seconds=linger_seconds), linger_seconds
        self._ask = asker(api, namespace)
        self._first: Turn | None = None
        self._plans: list[Placement] = []  # one for each change of jobs or workers
        self._inputs: Any = None
        self._evicted: list[str] = []
        self._wrote = False
        self._waiting: dict[str, tuple[str, float]] = {}  # worker to why, and since when

    def take(
        self, has_ended: verbs.HasEnded = verbs.no_proof, deadline: float | None = None, *, check_mode: bool = False
    ) -> Turn:
        """Take a turn. Raises as `verbs.turn`."""
        turn = verbs.turn(
            self._api,
            self._namespace,
            self._spec,
            self._jobs,
            self._memory,
            manager=MANAGER,
            ask=self._ask,
            now=now(),
            has_ended=has_ended,
            check=lambda: 10.0 if deadline is None else min(10.0, max(1.0, deadline - time.monotonic())),
            check_mode=check_mode,
            refresh=self._refresh,
        )
        self._first = self._first or turn
        self._wrote |= turn.wrote
        self._evicted += [eviction.worker for eviction in turn.evicted]
        inputs = turn.step.config.rebalance.get("inputs")
        if inputs != self._inputs or not self._plans:
            self._inputs = inputs
            self._plans.append(turn.step.placement)
        moment = time.monotonic()
        holds = turn.step.config.holds
        self._waiting = {  # first those for whom others wait
            worker: (turn.step.waits[worker], self._waiting.get(worker, ("", moment))[1])
            for worker in sorted(turn.step.waits, key=lambda name: name not in holds or not holds[name].leaving)
        }
        return turn

    def is_settled(self, turn: Turn) -> bool:
        """Whether nobody is waited for, nor Pods that are about to become workers."""
        return turn.step.is_converged and not turn.pool.coming

    def trusts(self, turn: Turn) -> bool:
        """Whether somebody is taken to run on who is not to be, from the next turn on."""
        return self._linger_seconds <= 0 and any(sight.lingers for sight in turn.sights.values())

    def held_up(self) -> str:
        """Who is waited for, for how long and why."""
        if not self._waiting:
            return "new workers are not ready"
        worker, (why, since) = next(iter(self._waiting.items()))
        more = f", and {len(self._waiting) - 1} more" if len(self._waiting) > 1 else ""
        return f"{worker} for {time.monotonic() - since:.0f} s: {why}{more}"

    # ------------------------------------------------------------------------------------------ what came of it

    def foreseen(self, turn: Turn, wait: bool) -> Result:
        """What the turn would lead to."""
        step, found = turn.step, turn.found
        stands = {name: set(entry.jobs) for name, entry in found.config.entries.items()}
        shall = {name: set(jobs) for name, jobs in step.placement.assignment.items()}
        is_apart = any(stands.get(name, set()) != shall.get(name, set()) for name in {*stands, *shall})
        is_written = step.config != found.config or not found.objects
        evicts = self._refresh and bool(step.evict)
        told = self._told(turn, planned(found.config, step.placement))
        changed = is_written or evicts or (wait and is_apart)
        return {**told, "changed": changed, "converged": told["converged"] and not changed}

    def done(self, turn: Turn) -> Result:
        """What the last turn left."""
        told = self._told(turn, lists(turn.step.config))
        return {**told, "changed": self._wrote or bool(self._evicted)}

    def _told(self, turn: Turn, after: Mapping[str, Any]) -> Result:
        last = self._plans[-1]
        first = self._first or turn
        unplaced = dict(sorted(last.unplaced.items()))
        return {
            "before": lists(first.found.config) if first.found.objects else {},
            "after": after,
            "moves": sum(plan.moves for plan in self._plans),
            "least_moves": _sum([plan.least_moves for plan in self._plans]),
            "restarts": sum(plan.restarts for plan in self._plans),
            "least_restarts": _sum([plan.least_restarts for plan in self._plans]),
            "imbalance": last.imbalance,
            "method": last.method,
            "assignment": {name: list(jobs) for name, jobs in last.assignment.items()},
            "unplaced": unplaced,
            "evicted": self._evicted,
            "converged": self.is_settled(turn),
            "waits_for": dict(turn.step.waits),
            "reasons": [*self._counts(), *self._remarks(turn)],
            "warnings": [
                f"without a worker: {counted(len(unplaced), 'job')}; {job}: {why}"
                for job, why in list(unplaced.items())[:1]
            ],
        }

    def _counts(self) -> list[str]:
        moves, restarts = sum(plan.moves for plan in self._plans), sum(plan.restarts for plan in self._plans)
        placed = sum(map(len, self._plans[-1].assignment.values()))
        return [
            f"{counted(placed, 'job')} on {counted(len(self._plans[-1].assignment), 'worker')}: "
            f"{moves} move, {restarts} of the workers that were there change"
        ]

    def _remarks(self, turn: Turn) -> list[str]:
        """What else there is to know: who is not there yet, who may not be evicted, who has to be."""
        told = [
            f"{kind} {name}: {missing} of {replicas} replicas are no workers yet, for their Pods are not ready"
            for kind, name, replicas, missing in _not_yet(turn)
        ]
        told += [f"{worker} may not be evicted now" for worker in turn.blocked]
        if not self._refresh:
            told += [f"{each.worker} has to be restarted, which is left to you" for each in turn.step.evict]
        return told


def _carry_out(run: _Run, news: _News, wait: bool, wait_timeout: float) -> Turn:
    """Take turns until nothing can be done at once or, to `wait`, until there is nothing to be done any more."""
    deadline = time.monotonic() + (wait_timeout if wait else AT_ONCE)
    held_up = ""
    while True:
        pause: float | None = verbs.SOON
        try:
            turn = run.take(news.has_ended, deadline)
            if (turn.wrote or run.trusts(turn)) and time.monotonic() < deadline:
                continue
            if not wait or run.is_settled(turn):
                return turn
            held_up, pause = run.held_up(), turn.again
        except Stale as error:
            held_up = str(error)
        except UNWELL as error:
            if not wait:
                raise
            held_up = str(error)
        left = deadline - time.monotonic()
        if left <= 0:
            seconds = wait_timeout if wait else AT_ONCE
            raise TimedOut(f"waited {seconds:g} s for the workers of ConfigMap {news.where} in vain", held_up)
        news.wait(min(left, RESYNC if pause is None else pause))


class _News:
    """Watches what a turn reads: the next is taken when something has changed. It only sleeps if not `watching`."""

    def __init__(self, api: Api, namespace: str, name: str, *, watching: bool) -> None:
        self._api, self._namespace, self._watching = api, namespace, watching
        self.where, self._name = f"{namespace}/{name}", name
        self._changed, self._stop = threading.Event(), threading.Event()
        self._blind: set[str] = set()  # kinds of which nothing is told
        self._ended: set[str] = set()  # uids of Pods that were seen to have ended before they were gone

    def __enter__(self) -> _News:
        kinds: dict[Resource, Any] = {CONFIGMAPS: {"name": self._name}, PODS: {}, STATEFUL_SETS: {}, DEPLOYMENTS: {}}
        for kind, which in kinds.items() if self._watching else ():
            threading.Thread(target=self._follow, args=(kind, which), daemon=True).start()
        return self

    def __exit__(self, *_args: object) -> None:
        self._stop.set()

    def has_ended(self, uid: str) -> bool:
        return uid in self._ended

    def wait(self, seconds: float) -> None:
        """Until something has changed, or for so many seconds."""
        if self._changed.wait(min(seconds, BLIND) if self._blind else seconds):
            self._stop.wait(BREATH)
        self._changed.clear()

    def _follow(self, kind: Resource, which: Mapping[str, Any]) -> None:
        try:
            for change in self._api.follow(kind, self._namespace, stop=self._stop, **which):
                if isinstance(change, Trouble):
                    self._blind.add(kind.plural)
                    continue
                if isinstance(change, Removed) and kind == PODS and swarm_pool.has_ended(change.obj):
                    self._ended.add(change.obj["metadata"]["uid"])
                self._blind.discard(kind.plural)
                self._changed.set()
        except MusterError:  # it may not be watched; the turns say what may not be read
            self._blind.add(kind.plural)


def lists(config: Config) -> Result:
    """What each worker is told: its jobs, and their version."""
    names = sorted(config.entries, key=worker_config.natural)
    return {name: {"jobs": list(config.entries[name].jobs), "version": config.entries[name].version} for name in names}


def planned(config: Config, plan: Placement) -> Result:
    """What each worker is told once a plan has been carried out; a version that grows is not known yet, so None."""
    told = {}
    for name, jobs in plan.assignment.items():
        entry = config.entries.get(name)
        if jobs or entry:
            stays = entry is not None and set(entry.jobs) == set(jobs)
            told[name] = {"jobs": list(jobs), "version": entry.version if entry and stays else None}
    return told


def _not_yet(turn: Turn) -> Iterator[tuple[str, str, int, int]]:
    """Kind, name and replicas of workloads, and how many of those are no workers."""
    for workload in turn.found.workloads:
        missing = workload.replicas - sum(workload.owns(member.name) for member in turn.pool.members)
        if missing > 0:
            yield workload.kind, workload.name, workload.replicas, missing


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def asker(api: Api, namespace: str) -> Ask:
    """Asks workers by way of the API server, several at a time."""
    ask = verbs.by_api_server(api, namespace)

    def ask_all(pods: Sequence[swarm_pool.Pod]) -> Mapping[str, int]:
        with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="ask") as threads:
            answers = threads.map(ask, [[pod] for pod in pods])
            return {uid: version for answer in answers for uid, version in answer.items()}

    return ask_all

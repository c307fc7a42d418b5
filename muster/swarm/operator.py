# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator of Swarms: takes one turn after the other (`verbs/swarm.py`), and tells what came of it."""

from __future__ import annotations

import collections
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Object
from ansible_collections.muster.coordination.plugins.module_utils.commit import commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    swarm,
    swarm_pool,
    swarm_status,
    worker_config,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Spec
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm_info
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import Ask, Lost, Memory, Stale, Turn
from muster.frame.authority import Term
from muster.frame.cache import key_of
from muster.process import Answer, Query, say

WRITE_SECONDS: Final = 10.0  # for one write
REMEMBERED: Final = 5000  # Pods that are gone, whose end may be the proof that nothing runs
CHANGED_SECONDS: Final = 0.2  # after a turn in which somebody was faster


class Tell(Protocol):
    """Writes an Event about an object."""

    def __call__(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None: ...


class Read(Protocol):
    """What is asked for by the object that stands for a Swarm. Raises Malformed."""

    def __call__(self, obj: Object, /) -> Spec: ...


@dataclass(slots=True)
class Known:
    """What is known of one Swarm, by its object."""

    uid: str
    fence: int  # under which it was looked after; another one was at it, perhaps, before there was a greater one
    memory: Memory
    jobs: Sequence[Job] = ()
    turn: Turn | None = None
    trouble: str = ""
    moves: int = 0
    evictions: int = 0
    told: str = ""  # the message of the last warning


class Ends:
    """Which Pods were seen to have ended before they were gone; for several threads."""

    def __init__(self) -> None:
        self._seen: collections.OrderedDict[str, bool] = collections.OrderedDict()
        self._lock = threading.Lock()

    def removed(self, pod: Object) -> None:
        with self._lock:
            self._seen[pod["metadata"]["uid"]] = swarm_pool.has_ended(pod)
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)

    def __call__(self, uid: str) -> bool:
        with self._lock:
            return self._seen.get(uid, False)


def slim_pod(pod: Object) -> Object:
    """What `Ends` needs of a Pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    kinds = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
    states = {kind: [{"state": each.get("state")} for each in status.get(kind) or []] for kind in kinds}
    return {"metadata": {key: metadata.get(key) for key in ("namespace", "name", "uid")}, "status": states}


class Swarms:
    """Reconciles one object at a time a thread; safe for several threads with different objects."""

    def __init__(
        self,
        api: Api,
        read: Read,
        ask: Ask,
        ends: Ends,
        tell: Tell,
        *,
        has_status: bool,
        linger_seconds: float = verbs.LINGER_SECONDS,
    ) -> None:
        """`read` makes a Spec of an object; `has_status`: what came of it is written to the object's status.

        `linger_seconds`: for so long the processes of a Pod may go on that vanished, and nobody has seen it end.
        """
        self._api, self._read, self._ask, self._ends, self._tell = api, read, ask, ends, tell
        self._has_status, self._linger_seconds = has_status, linger_seconds
        self._known: dict[str, Known] = {}
        self.there: Callable[[], Iterable[str]] = lambda: list(self._known)  # the keys of those that there are
        self.mine: Callable[[], Iterable[str]] = self.there  # and of those that are this replica's to look after

    def reconcile(self, obj: Object, term: Term) -> float | None:
        """Take a turn; seconds after which to take the next, None: when something changes."""
        key, uid = key_of(obj), obj["metadata"]["uid"]
        known = self._known.get(key)
        if known is None or (known.uid, known.fence) != (uid, term.fence):
            known = self._known[key] = Known(uid, term.fence, Memory(linger_seconds=self._linger_seconds))
        before: Mapping[str, Any] = obj.get("status") or {}
        generation = obj["metadata"].get("generation", 0)
        try:
            spec = self._read(obj)
            if spec.is_paused:
                known.trouble = ""
                self._say_status(obj, swarm_status.paused(before, generation, _now()), term)
                return None
            again = self._turn(obj, spec, known, term)
        except Stale as error:
            say(logging.INFO, "somebody was faster", swarm=key, why=str(error))
            return CHANGED_SECONDS
        except Lost as error:
            say(logging.INFO, "waits", swarm=key, why=str(error), seconds=round(error.seconds, 1))
            self._say_status(obj, swarm_status.lost(before, generation, str(error), _now()), term)
            return min(error.seconds, verbs.LATER)
        except Malformed as error:
            known.trouble = str(error)
            self._say_status(obj, swarm_status.refused(before, generation, str(error), _now()), term)
            self._warn(obj, known, "Refused", str(error))
            return None
        known.trouble = ""
        return again

    def known(self) -> dict[str, Known]:
        """What is known of those that this replica looks after; those that are not there are forgotten."""
        for key in self._known.keys() - set(self.there()):
            self._known.pop(key, None)
        mine = set(self.mine())
        return {key: known for key, known in list(self._known.items()) if key in mine}

    def _turn(self, obj: Object, spec: Spec, known: Known, term: Term) -> float | None:
        namespace, before = obj["metadata"]["namespace"], obj.get("status") or {}
        known.memory.is_patient = "pool" in before  # else it was the first one, if it was made at all
        jobs, sources = verbs.read_jobs(self._api, namespace, spec)
        turn = verbs.turn(
            self._api,
            namespace,
            spec,
            jobs,
            known.memory,
            manager=f"{obj['kind']}/{obj['metadata']['name']}",
            ask=self._ask,
            now=_now(),
            history=lambda: self._history(obj, term),
            has_ended=self._ends,
            check=term.check,
        )
        earlier, known.jobs, known.turn = known.turn, jobs, turn
        self._tell_turn(obj, known, earlier, turn)
        said = swarm_status.status(
            before,
            obj["metadata"].get("generation", 0),
            turn.step,
            now=_now(),
            sources=sources,
            loads={job.name: job.weight for job in jobs},
            parts=turn.parts,
        )
        self._say_status(obj, said, term)
        return turn.again

    def _history(self, obj: Object, term: Term) -> int:
        """The greatest version that the status tells of; -1 only before any configuration was made.

        That one is about to be made is written down first: if it is deleted, whoever comes next knows that there was
        one. Raises Stale where the object is not there any more.
        """
        status = obj.get("status") or {}
        if not self._has_status:
            return -1
        if "configMaps" in status:
            return max((each.get("wanted", 0) for each in status.get("pool") or ()), default=0)
        metadata = obj["metadata"]

        def decide(there: Object | None) -> tuple[Object | None, bool]:
            if there is None or there["metadata"]["uid"] != metadata["uid"]:
                raise Stale("it is not there any more")
            known = there.get("status") or {}
            return {**there, "status": {"configMaps": 1, **known}}, "configMaps" in known

        timeout = min(term.check(), WRITE_SECONDS)
        name, namespace = metadata["name"], metadata["namespace"]
        done = commit(self._api, verbs.SWARMS, name, namespace, decide, subresource="status", timeout=timeout)
        return 0 if done.verdict else -1

    # ------------------------------------------------------------------------------------------ what is told

    def _say_status(self, obj: Object, status: Mapping[str, Any], term: Term) -> None:
        """Write it where it says something new, and where the object is still as it was looked at."""
        if not self._has_status or status == (obj.get("status") or {}):
            return
        metadata = obj["metadata"]

        def decide(there: Object | None) -> tuple[Object | None, None]:
            at = there["metadata"] if there else {}
            is_it = at.get("uid") == metadata["uid"] and at.get("generation", 0) <= metadata.get("generation", 0)
            return ({**there, "status": dict(status)} if there and is_it else there), None

        timeout = min(term.check(), WRITE_SECONDS)
        name, namespace = metadata["name"], metadata["namespace"]
        commit(self._api, verbs.SWARMS, name, namespace, decide, subresource="status", timeout=timeout, seen=obj)

    def _tell_turn(self, obj: Object, known: Known, earlier: Turn | None, turn: Turn) -> None:
        key, plan = key_of(obj), turn.step.placement
        inputs = turn.found.config.rebalance.get("inputs")
        if turn.wrote and turn.step.config.rebalance.get("inputs") != inputs:
            known.moves += plan.moves
            message = (
                f"{sum(map(len, plan.assignment.values()))} jobs on {len(plan.assignment)} workers: {plan.moves} move, "
            )
            message += f"{plan.restarts} workers that were there before change"
            self._tell(obj, "Rebalanced", message)
            say(logging.INFO, "rebalances", swarm=key, moves=plan.moves, restarts=plan.restarts, method=plan.method)
        for eviction in turn.evicted:
            known.evictions += 1
            self._tell(obj, "WorkerEvicted", f"{eviction.worker} is restarted: its list of jobs has changed")
            say(logging.INFO, "evicts", swarm=key, worker=eviction.worker, uid=eviction.uid)
        for worker in turn.blocked:
            say(logging.INFO, "an eviction is not allowed now", swarm=key, worker=worker)
        if turn.scaled is not None:
            self._tell(obj, "Scaled", f"{turn.found.workloads[0].name} is scaled to {turn.scaled}")
            say(logging.INFO, "scales", swarm=key, replicas=turn.scaled)
        if earlier and not earlier.step.is_converged and turn.step.is_converged:
            self._tell(obj, "Converged", "every worker runs its jobs")
            say(logging.INFO, "converged", swarm=key)
        if plan.unplaced:
            job, why = min(plan.unplaced.items())
            self._warn(obj, known, "Unschedulable", f"{len(plan.unplaced)} jobs have no worker; {job}: {why}")
        else:
            known.told = ""

    def _warn(self, obj: Object, known: Known, reason: str, message: str) -> None:
        if known.told != message:
            known.told = message
            self._tell(obj, reason, message, warning=True)
            say(logging.WARNING, reason.lower(), swarm=key_of(obj), why=message)

    # ------------------------------------------------------------------------------------------ pages

    def pages(self) -> dict[str, Any]:
        return {"/state": self._state, "/workers": self._workers, "/explain": self._explain}

    def _state(self, query: Query) -> Answer:
        """All Swarms that this replica looks after."""
        return 200, {key: _summary(known) for key, known in sorted(self.known().items())}

    def _workers(self, query: Query) -> Answer:
        key, known = self._named(query)
        if known is None or known.turn is None:
            return self._missing(key)
        config = known.turn.step.config
        return 200, {
            name: {
                **standing._asdict(),
                "jobs": list(worker_config.jobs_of(config, name)),
                "waitsFor": known.turn.step.waits.get(name),
            }
            for name, standing in known.turn.step.standings.items()
        }

    def _explain(self, query: Query) -> Answer:
        key, known = self._named(query)
        if known is None or known.turn is None:
            return self._missing(key)
        try:
            told = swarm_info.explained(query.get("job"), known.jobs, known.turn)
            return 200, {"waitsFor": told.pop("waits_for"), **told}
        except Malformed as error:
            return 404, {"error": str(error)}

    def _named(self, query: Query) -> tuple[str, Known | None]:
        """The Swarm that is asked for; of one alone the name may be left out."""
        key = query.get("swarm", "")
        known = self.known()
        if not key and len(known) == 1:
            key = next(iter(known))
        return key, known.get(key)

    def _missing(self, key: str) -> Answer:
        listed = ", ".join(sorted(self.known())) or "none yet"
        return 404, {"error": f"swarm is {key!r}: give one that this replica looks after, as NAMESPACE/NAME: {listed}"}


def _summary(known: Known) -> dict[str, Any]:
    if known.turn is None:
        return {"trouble": known.trouble or None}
    step = known.turn.step
    return {
        "trouble": known.trouble or None,
        "converged": step.is_converged,
        "jobs": len(known.jobs),
        "unplaced": dict(step.placement.unplaced),
        "workers": {name: standing._asdict() for name, standing in step.standings.items()},
        "waitsFor": dict(step.waits),
        "rebalance": dict(step.config.rebalance),
        "configMaps": known.turn.parts,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def of_swarm(obj: Object) -> Spec:
    """What a Swarm asks for. Raises Malformed."""
    return swarm.parse_spec(obj.get("spec"))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One holder's attendance at one semaphore: claim, wait, keep and hand on, driven by watches.

The sidecar attends for the life of its Pod, a module with `wait` until it is granted. Both write through `write`:
read the ConfigMap, learn which of its holders are dead, take those out, do what was asked, one compare-and-swap.

What is to be done is found by running the very transition on what the watches brought: where it would change nothing,
nothing is sent. A waiter therefore writes once and then only watches.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    Api,
    ApiError,
    Change,
    NotFound,
    Put,
    Recovered,
    Removed,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import Committed, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    Claimant,
    Decision,
    Grant,
    Identity,
    Lease,
    Semaphore,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

LIVING_PODS = "status.phase!=Succeeded,status.phase!=Failed"
FEW = 8  # so many suspects are looked up one by one; more, by one list
OTHERS_FIRST = (0.05, 0.30)  # seconds: what concerns only others is done after a random delay, by whoever is first
RETRY = (1.0, 3.0)  # seconds until the next try of what failed or had no effect

Transition = Callable[[Semaphore], Decision]
Dead = Callable[[Semaphore], "set[Identity]"]


class NoSemaphore(MusterError):
    """The ConfigMap is not there."""

    def __init__(self, namespace: str, name: str) -> None:
        super().__init__(f"ConfigMap {namespace}/{name} does not exist: create it with k8s_semaphore, or by hand")


def utc_now() -> str:
    """Now, as RFC 3339 with seconds: for people to read, never compared."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(obj: Mapping[str, Any]) -> Semaphore:
    """The semaphore in a ConfigMap. Raises Malformed, naming the ConfigMap too."""
    metadata = obj["metadata"]
    version = str(metadata.get("resourceVersion", ""))
    try:
        return engine.parse(metadata.get("annotations") or {}, int(version) if version.isdigit() else 0)
    except Malformed as error:
        where = f"ConfigMap {metadata.get('namespace')}/{metadata.get('name')} {error.field}"
        raise Malformed(where, error.value, error.remedy) from error


def nobody(_semaphore: Semaphore) -> set[Identity]:
    """For writes which leave the dead to others."""
    return set()


def write(
    api: Api,
    name: str,
    namespace: str,
    transition: Transition,
    *,
    dead: Dead = nobody,
    check_mode: bool = False,
    timeout: float = 10.0,
) -> Committed[Decision]:
    """Take out the dead and make one transition, in one compare-and-swap.

    `dead` is asked after the ConfigMap was read: whom it finds gone by then was not alive when it was read. Raises
    NoSemaphore, Malformed, TimedOut, ApiError, and what the transition raises.
    """

    def decide(obj: dict[str, Any] | None) -> tuple[dict[str, Any], Decision]:
        if obj is None:
            raise NoSemaphore(namespace, name)
        before = read(obj)
        decision = transition(engine.reap(before, dead(before), now=utc_now()).semaphore)
        return engine.annotate(obj, before, decision.semaphore), decision

    return commit(api, CONFIGMAPS, name, namespace, decide, check_mode=check_mode, timeout=timeout)


def dead_pods(api: Api, namespace: str, seen: Mapping[str, str] | None = None) -> Dead:
    """Finds the identities whose Pod is gone, has ended or was made again, by asking the API server, not a cache.

    `seen` (Pod name to uid, from a watch) only saves questions: whom it shows alive is not asked for. Nor is, after a
    conflict, whom the last try found alive: the time between reading and writing decides who wins a race.
    """
    alive = dict(seen or {})

    def find(semaphore: Semaphore) -> set[Identity]:
        doubtful = engine.suspects(semaphore, alive)
        if len(doubtful) > FEW:
            there = api.list(PODS, namespace, field_selector=LIVING_PODS, metadata_only=True)
            found = {_name(pod): _uid(pod) for pod in there.items}
        else:
            found = {name: pod_uid(api, namespace, name) for name, _uid_ in doubtful}
        alive.update({name: uid for name, uid in found.items() if uid})
        gone = {name for name, _uid_ in doubtful if not found.get(name)}
        return set(engine.suspects(semaphore, {n: u for n, u in alive.items() if n not in gone})) & set(doubtful)

    return find


def pod_uid(api: Api, namespace: str, name: str) -> str:
    """The uid of a Pod which is there and has not ended, else an empty string."""
    try:
        pod = api.get(PODS, name, namespace)
    except NotFound:
        return ""
    return "" if pod.get("status", {}).get("phase") in ("Succeeded", "Failed") else _uid(pod)


@dataclass(frozen=True, slots=True)
class Sight:
    """What the holder may rely on now; `trouble` says why nothing better can be said."""

    grant: Grant | None = None
    place: int | None = None
    semaphore: Semaphore | None = None
    trouble: str | None = None


class Attendant:
    """Keeps one claimant attended; `sights` is its loop. One thread uses it; `stop` may come from anywhere."""

    def __init__(
        self,
        api: Api,
        *,
        name: str,
        namespace: str,
        claimant: Claimant,
        resync: tuple[float, float] = (50.0, 70.0),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resync` bounds, in seconds, the random time between two looks at the ConfigMap that no watch asked for."""
        self._api, self._name, self._namespace, self._me = (api, name, namespace, claimant)
        self._resync, self._clock = resync, clock
        self._inbox: queue.SimpleQueue[tuple[str, Change | Exception] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._object: dict[str, Any] | None = None
        self._seen: Semaphore | None = None
        self._pods: dict[str, str] = {}
        self._read: set[str] = set()  # which of the two watches have brought their first list
        self._troubles: dict[str, str] = {}
        self._leases: dict[Identity, tuple[Lease, float]] = {}  # since when a lease is seen unchanged
        self._renewed = clock() - (claimant.lease_seconds or 0)  # when a predecessor did is not known: renew at once
        self._due: float | None = None  # when to do what concerns only others
        self._quiet_until = 0.0
        self._resync_at = 0.0
        self.turned = clock()  # when the loop last went round, on the clock: for a liveness probe

    def stop(self) -> None:
        """End `sights` soon; safe in a signal handler."""
        self._stopped.set()
        self._inbox.put(None)

    def sights(self, deadline: float | None = None) -> Iterator[Sight]:
        """Attend until stopped or until `deadline` (on the clock), yielding each time when something changed.

        Raises ApiError when a watch is refused from the start (no permission, no such namespace).
        """
        self._follow("object", resource=CONFIGMAPS, name=self._name)
        self._follow("pods", resource=PODS, field_selector=LIVING_PODS, metadata_only=True)
        self._resync_at = self._clock() + random.uniform(*self._resync)
        shown: Sight | None = None
        try:
            while not self._stopped.is_set() and (deadline is None or self._clock() < deadline):
                sight = self._turn()
                if sight != shown:
                    yield sight
                    shown = sight
                self._absorb(self._next_wake(deadline))
        finally:
            self._stopped.set()

    # ------------------------------------------------------------------------------------------ look and act

    def _turn(self) -> Sight:
        """Find what is due from what was seen, do it, and say what the holder may rely on."""
        self.turned = self._clock()
        if self._read != {"object", "pods"}:
            return Sight(trouble=self._trouble() or "the semaphore has not been read yet")
        try:
            if self._object is None:
                self._seen = None
                raise NoSemaphore(self._namespace, self._name)
            self._seen = read(self._object)  # where it is malformed the last good one stays: nobody can write there
            self._observe_leases(self._seen)
            if self._is_due(self._seen):
                self._seen = self._act()
        except (MusterError, ApiError) as error:
            self._quiet_until = self._clock() + random.uniform(*RETRY)
            return self._sight(str(error))
        return self._sight(self._trouble())

    def _is_due(self, seen: Semaphore) -> bool:
        now = self._clock()
        if now < self._quiet_until:
            return False
        if now >= self._resync_at:
            return True
        wanted = self._step(engine.reap(seen, self._suspects(seen), now=utc_now()).semaphore).semaphore
        if wanted == seen:
            self._due = None
            return False
        if _part_of(wanted, self._me.holder) != _part_of(seen, self._me.holder):
            return True
        if self._due is None:
            self._due = now + random.uniform(*OTHERS_FIRST)
        return now >= self._due

    def _act(self) -> Semaphore:
        started = self._clock()
        asked_for = started < self._resync_at
        self._due = None
        self._resync_at = started + random.uniform(*self._resync)
        self._check_own_pod()
        done = write(self._api, self._name, self._namespace, self._step, dead=self._dead)
        if asked_for and not done.changed:
            self._quiet_until = self._clock() + random.uniform(*RETRY)  # if a watch lags, its news ends this
        before = engine.leases(read(done.before)) if done.before else {}
        after = engine.leases(done.verdict.semaphore)
        if after.get(self._me.identity) != before.get(self._me.identity):  # a write for others' sake renews nothing
            self._renewed = started
        self._object = done.after
        return done.verdict.semaphore

    def _step(self, before: Semaphore) -> Decision:
        if self._me.lease_seconds and self._clock() >= self._renewed + self._me.lease_seconds / 3:
            before = engine.renew(before, *self._me.identity)
        return engine.claim(before, self._me, now=utc_now(), enqueue=True)

    def _check_own_pod(self) -> None:
        """A sidecar may outlive its Pod's object (force deletion): it must not claim again what was taken from it."""
        name, uid = self._me.identity
        if self._me.lease_seconds or self._pods.get(name) == uid:
            return
        if pod_uid(self._api, self._namespace, name) != uid:
            raise MusterError(
                f"Pod {self._namespace}/{name} with uid {uid} does not exist any more: it can claim nothing"
            )

    # ------------------------------------------------------------------------------------------ who is dead

    def _suspects(self, semaphore: Semaphore) -> set[Identity]:
        return (set(engine.suspects(semaphore, self._pods)) | self._expired(semaphore)) - {self._me.identity}

    def _dead(self, semaphore: Semaphore) -> set[Identity]:
        gone = dead_pods(self._api, self._namespace, self._pods)(semaphore)
        return (gone | self._expired(semaphore)) - {self._me.identity}

    def _observe_leases(self, semaphore: Semaphore) -> None:
        now, current = self._clock(), engine.leases(semaphore)
        known = self._leases
        self._leases = {
            identity: known[identity] if identity in known and known[identity][0] == lease else (lease, now)
            for identity, lease in current.items()
        }

    def _expired(self, semaphore: Semaphore) -> set[Identity]:
        """Whose lease was seen unchanged for its time, and is still that same lease in `semaphore`."""
        now, current = self._clock(), engine.leases(semaphore)
        return {
            i for i, (lease, since) in self._leases.items() if current.get(i) == lease and now >= since + lease.seconds
        }

    # ------------------------------------------------------------------------------------------ watches and time

    def _follow(self, source: str, **what: Any) -> None:
        def run() -> None:
            try:
                for change in self._api.follow(namespace=self._namespace, stop=self._stopped, **what):
                    self._inbox.put((source, change))
            except Exception as error:
                self._inbox.put((source, error))

        threading.Thread(target=run, name=f"follow-{source}", daemon=True).start()

    def _absorb(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for news, and take in all there is."""
        try:
            news = self._inbox.get(timeout=timeout)
            while news is not None:
                self._take(*news)
                news = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _take(self, source: str, change: Change | Exception) -> None:
        if isinstance(change, Exception):
            raise change
        if isinstance(change, Trouble):
            self._troubles[source] = str(change.error)
            return
        self._troubles.pop(source, None)
        if isinstance(change, Put) and source == "pods" and self._pods.get(_name(change.obj)) == _uid(change.obj):
            return  # it lives on: no reason to try at once what failed
        self._quiet_until = 0.0
        if isinstance(change, Recovered):
            return
        self._read.add(source)
        if source == "pods":
            if isinstance(change, Snapshot):
                self._pods = {_name(pod): _uid(pod) for pod in change.items}
            elif isinstance(change, Put):
                self._pods[_name(change.obj)] = _uid(change.obj)
            elif self._pods.get(_name(change.obj)) == _uid(change.obj):
                del self._pods[_name(change.obj)]
        elif isinstance(change, Snapshot):
            self._take_object(change.items[0] if change.items else None, change.resource_version)
        else:
            obj = None if isinstance(change, Removed) else change.obj
            self._take_object(obj, change.obj["metadata"]["resourceVersion"])

    def _take_object(self, obj: dict[str, Any] | None, version: str) -> None:
        """Ignores what a watch brings late, after a write of our own (resource versions compare as integers)."""
        known = self._object["metadata"]["resourceVersion"] if self._object else ""
        if not (version.isdigit() and known.isdigit() and int(version) < int(known)):
            self._object = obj

    def _next_wake(self, deadline: float | None) -> float:
        """Seconds until something is due without news. What was due in the last turn was seen to in it."""
        times = [self._resync_at, self._quiet_until, *(since + lease.seconds for lease, since in self._leases.values())]
        if self._me.lease_seconds:
            times.append(self._renewed + self._me.lease_seconds / 3)
        if self._due is not None:
            times.append(self._due)
        wake = min((at for at in times if at > self.turned), default=self.turned + self._resync[1])
        wake = max(wake, self._quiet_until)
        return max(0.005, (wake if deadline is None else min(wake, deadline)) - self._clock())

    def _trouble(self) -> str | None:
        return next(iter(self._troubles.values()), None)

    def _sight(self, trouble: str | None) -> Sight:
        seen, me = self._seen, self._me
        if seen is None:
            return Sight(trouble=trouble)
        grant = seen.grants.get(me.holder)
        if grant is not None and (grant.uid != me.uid or not grant.fence):
            grant = None
        if grant and grant.lease and self._clock() >= self._renewed + grant.lease.seconds:
            grant, trouble = None, trouble or "the lease ran out before it could be renewed"
        return Sight(grant, seen.place(me.holder), seen, trouble)


def _part_of(semaphore: Semaphore, holder: str) -> tuple[object, ...]:
    return semaphore.grants.get(holder), *(waiter for waiter in semaphore.queue if waiter.holder == holder)


def _name(obj: Mapping[str, Any]) -> str:
    return obj["metadata"]["name"]


def _uid(obj: Mapping[str, Any]) -> str:
    return obj["metadata"]["uid"]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The engine `annotations`: the semaphore is one ConfigMap; the decisions are in `decisions/semaphore.py`.

All writes go through `write`: read the ConfigMap, learn which of its holders are dead, take those out, do what was
asked, one compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    Api,
    NotFound,
    Put,
    Removed,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import (
    CONFLICT_BACKOFF,
    DELETE,
    UNREAD,
    Backoff,
    Committed,
    Delete,
    commit,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    Claimant,
    Decision,
    Identity,
    Lease,
    Resources,
    Semaphore,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import pods
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import (
    Acted,
    Configured,
    Due,
    Holding,
    NoSemaphore,
    Outcome,
    View,
    refuse_in_use,
    utc_now,
)

# For who is not in line yet. A crowd of them gives way, or those who hand on would win one write in so many as there
# are newcomers, and nobody would get on. Longer, and the few in line would hand on among themselves, past the crowd.
GIVE_WAY = Backoff(0.08, 1.0)

Transition = Callable[[Semaphore], Decision]
Dead = Callable[[Semaphore], "set[Identity]"]
Object = dict[str, Any]


def what(name: str, namespace: str) -> str:
    """The object that is the semaphore, for messages."""
    return f"ConfigMap {namespace}/{name}"


def read(obj: Mapping[str, Any]) -> Semaphore:
    """The semaphore in a ConfigMap. Raises Malformed, naming the ConfigMap too."""
    metadata = obj["metadata"]
    version = str(metadata.get("resourceVersion", ""))
    try:
        return decisions.parse(metadata.get("annotations") or {}, int(version) if version.isdigit() else 0)
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
    leaving: Collection[Identity] = (),
    check_mode: bool = False,
    timeout: float = 10.0,
    backoff: Backoff = CONFLICT_BACKOFF,
    watched: Callable[[], Object | None] = lambda: None,
) -> Committed[Decision]:
    """Take out the dead and make one transition, in one compare-and-swap.

    `watched` shows the ConfigMap as a watch brought it last; it saves reading it. `dead` is asked after that was read:
    whom it finds gone by then was not alive when it was read. Those `leaving`, whose Pods are being deleted, wait no
    more. Raises NoSemaphore, Malformed, TimedOut, ApiError, and what the transition raises.
    """

    def decide(obj: dict[str, Any] | None) -> tuple[dict[str, Any], Decision]:
        if obj is None:
            raise NoSemaphore(what(name, namespace))
        before = read(obj)
        decision = transition(decisions.reap(before, dead(before), leaving=leaving, now=utc_now()).semaphore)
        return decisions.annotate(obj, before, decision.semaphore), decision

    return commit(
        api,
        CONFIGMAPS,
        name,
        namespace,
        decide,
        check_mode=check_mode,
        timeout=timeout,
        seen=watched() or UNREAD,
        latest=watched,
        backoff=backoff,
    )


def dead_pods(api: Api, namespace: str, seen: Mapping[str, str] | None = None) -> Dead:
    """Finds the identities whose Pod is gone, has ended or was made again, by asking the API server, not a cache.

    `seen` (Pod name to uid, from a watch) only saves questions: whom it shows alive is not asked for. Nor is, after a
    conflict, whom the last try found alive: the time between reading and writing decides who wins a race.
    """
    alive = dict(seen or {})

    def find(semaphore: Semaphore) -> set[Identity]:
        doubtful = decisions.suspects(semaphore, alive)
        found = pods.living(api, namespace, [name for name, _uid in doubtful])
        alive.update(found)
        there = {name: uid for name, uid in alive.items() if name in found or name not in dict(doubtful)}
        return set(decisions.suspects(semaphore, there)) & set(doubtful)

    return find


# ---------------------------------------------------------------------------------------------- as an Engine


def configure(
    api: Api,
    *,
    name: str,
    namespace: str,
    capacity: Resources | None,
    mode: str | None,
    present: bool,
    force: bool,
    check_mode: bool,
) -> Configured:
    """Create the ConfigMap, set its capacity and mode, or remove it; by force also with data, or in use."""

    def living(seen: Semaphore) -> Semaphore:
        return decisions.reap(seen, dead_pods(api, namespace)(seen), now=utc_now()).semaphore

    def there(obj: Object | None) -> tuple[Object | Delete | None, None]:
        if obj is None:
            annotations = decisions.begin(capacity or {}, mode or decisions.V1)
            metadata = {"name": name, "namespace": namespace, "annotations": annotations}
            return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, None
        before = after = read(obj)
        if mode not in (None, before.mode):
            after = decisions.with_mode(living(before), mode or before.mode)
        if capacity is not None:
            after = decisions.with_capacity(after, capacity, now=utc_now())
        return decisions.annotate(obj, before, after), None

    def gone(obj: Object | None) -> tuple[Object | Delete | None, None]:
        if obj is not None and not force:
            before = living(read(obj))
            data = "has data of its own" if obj.get("data") or obj.get("binaryData") else ""
            busy = [*sorted(before.grants), *(waiter.holder for waiter in before.queue)]
            refuse_in_use(what(name, namespace), busy, data)
        return DELETE, None

    done = commit(api, CONFIGMAPS, name, namespace, there if present else gone, check_mode=check_mode)
    now = _semaphore(done.after)
    return Configured(done.changed, _settings(done.before), _settings(done.after), now, _warnings(done.after))


def attempt(api: Api, *, name: str, namespace: str, claimant: Claimant, enqueue: bool, check_mode: bool) -> Outcome:
    """One run of the seed's loop: take out the dead, then claim what is free; a lease in hand is renewed."""

    def ask(before: Semaphore) -> Decision:
        renewed = decisions.renew(before, *claimant.identity)
        return decisions.claim(renewed, claimant, now=utc_now(), enqueue=enqueue)

    backoff = GIVE_WAY if enqueue else CONFLICT_BACKOFF
    done = write(api, name, namespace, ask, dead=dead_pods(api, namespace), check_mode=check_mode, backoff=backoff)
    return _outcome(done, claimant.holder)


def withdraw(api: Api, *, name: str, namespace: str, claimant: Claimant) -> Outcome:
    """Give up the place in the queue, but keep what was granted meanwhile."""

    def leave(before: Semaphore) -> Decision:
        return decisions.release(before, *claimant.identity, now=utc_now(), keep_grant=True)

    done = _outcome(write(api, name, namespace, leave), claimant.holder)
    grant = done.semaphore.grants.get(claimant.holder)
    mine = grant is not None and grant.uid == claimant.uid
    return done if mine else Outcome(done.outcome, done.before, Holding(), done.semaphore, done.reasons)


def release(
    api: Api, *, name: str, namespace: str, holder: str, uid: str | None, check_mode: bool, timeout: float
) -> Outcome:
    """Give back what the holder has, and its place; `uid` None: whoever uses the name. `timeout` in seconds."""

    def leave(before: Semaphore) -> Decision:
        return decisions.release(before, holder, uid, now=utc_now())

    try:
        return _outcome(write(api, name, namespace, leave, check_mode=check_mode, timeout=timeout), holder)
    except NoSemaphore:
        return Outcome("absent", Holding(), Holding(), Semaphore({}))


def describe(api: Api, *, namespace: str, name: str | None) -> list[dict[str, Any]]:
    """One semaphore, or all of the namespace, as `info` shows them; only reads."""
    if name is None:
        objects = api.list(CONFIGMAPS, namespace).items
        objects = [obj for obj in objects if decisions.CAPACITY in (obj["metadata"].get("annotations") or {})]
    else:
        try:
            objects = [api.get(CONFIGMAPS, name, namespace)]
        except NotFound:
            objects = []
    return [describe_object(obj) for obj in objects]


def describe_object(obj: Mapping[str, Any]) -> dict[str, Any]:
    """One ConfigMap as `info` shows it."""
    metadata = obj["metadata"]
    known = {"name": metadata["name"], "namespace": metadata["namespace"], "engine": "annotations"}
    try:
        seen = read(obj)
    except Malformed as error:
        return {**known, "mode": None, "resources": [], "holders": [], "waiters": [], "error": str(error)}
    return {**known, "mode": seen.mode, **decisions.view(seen), "error": None}


def seat(api: Api, *, name: str, namespace: str, claimant: Claimant) -> AnnotationSeat:
    """A seat to attend."""
    return AnnotationSeat(api, name, namespace, claimant)


class Seen(NamedTuple):
    """How the semaphore stands: as it was read."""

    semaphore: Semaphore


class AnnotationSeat:
    """A claimant's place in the ConfigMap. What is to be done is found by running the very transition on what was seen:

    where it would change nothing, nothing is sent.
    """

    def __init__(self, api: Api, name: str, namespace: str, claimant: Claimant) -> None:
        self.claimant = claimant
        self._api, self._name, self._namespace = api, name, namespace
        self._object: Object | None = None
        self._seen = Semaphore({})
        self._read = ("", "")  # uid and resourceVersion of the ConfigMap that `_seen` was read from
        self._pods: dict[str, str] = {}
        self._leaving: set[Identity] = set()  # those of them that are being deleted

    def sources(self) -> Mapping[str, Mapping[str, Any]]:
        """The ConfigMap, and the living Pods of the namespace."""
        return {
            "object": {"resource": CONFIGMAPS, "name": self._name},
            "pods": {"resource": PODS, "field_selector": pods.LIVING, "metadata_only": True},
        }

    def take(self, source: str, change: Snapshot | Put | Removed) -> bool:
        """Take in what a watch brought. That a Pod lives on is no reason to try at once what failed."""
        if source == "pods":
            return self._take_pods(change)
        if isinstance(change, Snapshot):
            self._take_object(change.items[0] if change.items else None, change.resource_version)
        else:
            obj = None if isinstance(change, Removed) else change.obj
            self._take_object(obj, change.obj["metadata"]["resourceVersion"])
        return True

    def look(self) -> View:
        """What stands, as seen. Raises Malformed: nobody can write there, so what stood before stands still."""
        if self._object is None:
            raise NoSemaphore(what(self._name, self._namespace))
        version = self._object["metadata"]["uid"], self._object["metadata"]["resourceVersion"]
        if version != self._read:  # else it is only the Pods that changed
            self._seen, self._read = read(self._object), version
        grant = self._seen.grants.get(self.claimant.holder)
        if grant is not None and (grant.uid != self.claimant.uid or not grant.fence):
            grant = None
        place = self._seen.place(self.claimant.holder)
        trouble = None if place is None else decisions.out_of_reach(self._seen.capacity, self.claimant.want)
        return View(Seen(self._seen), grant, place, trouble)

    def leases(self) -> Mapping[Hashable, Lease]:
        """Those of others, by identity."""
        me = self.claimant.identity
        return {identity: lease for identity, lease in decisions.leases(self._seen).items() if identity != me}

    def due(self, expired: Mapping[Hashable, Lease], *, renew: bool) -> Due:
        """Whether the transition would change anything, and whether that is my part of it."""
        seen, me = self._seen, self.claimant
        suspects = set(decisions.suspects(seen, self._pods)) | _still(seen, expired)
        if me.identity in suspects:
            return Due.MINE  # its Pod is gone, it seems, and nobody else may be there to take it out
        reaped = decisions.reap(seen, suspects, leaving=self._leaving, now=utc_now()).semaphore
        wanted = self._step(reaped, renew).semaphore
        if wanted == seen:
            return Due.NOTHING
        return Due.MINE if _part_of(wanted, me.holder) != _part_of(seen, me.holder) else Due.OTHERS

    def act(
        self, expired: Mapping[Hashable, Lease], *, renew: bool, absorb: Callable[[], None] = lambda: None
    ) -> Acted:
        """Make the transition, on what was seen, or else on what is there now."""
        name, uid = me = self.claimant.identity
        at = (self._api, self._name, self._namespace)
        is_doubtful = not self.claimant.lease_seconds and self._pods.get(name) != uid
        if is_doubtful and pods.is_gone(self._api, self._namespace, name, uid):
            write(*at, lambda before: decisions.release(before, name, uid, now=utc_now()))
            raise pods.gone(self._namespace, name, uid)
        gone = dead_pods(self._api, self._namespace, self._pods)

        def dead(found: Semaphore) -> set[Identity]:
            return (gone(found) | _still(found, expired)) - {me}

        in_line = name in self._seen.grants or self._seen.place(name) is not None
        backoff = CONFLICT_BACKOFF if in_line else GIVE_WAY
        how: dict[str, Any] = {
            "dead": dead,
            "leaving": self._leaving,
            "backoff": backoff,
            "watched": self._watched(absorb),
        }
        done = write(*at, lambda before: self._step(before, renew), **how)
        before = decisions.leases(read(done.before)) if done.before else {}
        after = decisions.leases(done.verdict.semaphore)
        self._object = done.after
        return Acted(done.changed, after.get(me) != before.get(me))  # a write for others' sake renews nothing

    def leave(self, timeout: float, absorb: Callable[[], None] = lambda: None) -> bool:
        """Give back what it has, and its place; whether it had anything. Nothing is handed to who is leaving, too."""
        name, uid = me = self.claimant.identity

        def left(before: Semaphore) -> Decision:
            return decisions.release(before, name, uid or "", now=utc_now())

        at, watched = (self._api, self._name, self._namespace), self._watched(absorb)
        try:
            done = write(*at, left, leaving=self._leaving - {me}, timeout=timeout, watched=watched)
        except NoSemaphore:
            return False
        self._object = done.after
        return done.verdict.outcome == "released"

    # ------------------------------------------------------------------------------------------ private

    def _watched(self, absorb: Callable[[], None]) -> Callable[[], Object | None]:
        def watched() -> Object | None:
            absorb()
            return self._object

        return watched

    def _step(self, before: Semaphore, renew: bool) -> Decision:
        if renew:
            before = decisions.renew(before, *self.claimant.identity)
        if self.claimant.identity in self._leaving:  # it may keep what it has, and asks for nothing more
            return Decision(before, "held" if self.claimant.holder in before.grants else "absent")
        return decisions.claim(before, self.claimant, now=utc_now(), enqueue=True)

    def _take_pods(self, change: Snapshot | Put | Removed) -> bool:
        if isinstance(change, Snapshot):
            there = {(pod["metadata"]["name"], pod["metadata"]["uid"]): pod for pod in change.items}
            self._pods = dict(there.keys())
            self._leaving = {identity for identity, pod in there.items() if pods.is_leaving(pod)}
            return True
        name, uid = identity = change.obj["metadata"]["name"], change.obj["metadata"]["uid"]
        is_known, is_leaving = self._pods.get(name) == uid, pods.is_leaving(change.obj)
        if isinstance(change, Put):
            is_news = not is_known or is_leaving != (identity in self._leaving)
            self._pods[name] = uid
            if is_leaving:
                self._leaving.add(identity)
            return is_news
        self._leaving.discard(identity)
        if is_known:
            del self._pods[name]
        return True

    def _take_object(self, obj: Object | None, version: str) -> None:
        """Ignores what a watch brings late, after a write of our own (resource versions compare as integers)."""
        known = self._object["metadata"]["resourceVersion"] if self._object else ""
        if not (version.isdigit() and known.isdigit() and int(version) < int(known)):
            self._object = obj


# ---------------------------------------------------------------------------------------------- private


def _still(semaphore: Semaphore, expired: Mapping[Hashable, Lease]) -> set[Identity]:
    """Whose lease ran out and is still the one that did."""
    return {identity for identity, lease in decisions.leases(semaphore).items() if expired.get(identity) == lease}


def _part_of(semaphore: Semaphore, holder: str) -> tuple[object, ...]:
    return semaphore.grants.get(holder), *(waiter for waiter in semaphore.queue if waiter.holder == holder)


def _outcome(done: Committed[Decision], holder: str) -> Outcome:
    decision = done.verdict
    before, after = _holding(_semaphore(done.before), holder), _holding(decision.semaphore, holder)
    return Outcome(decision.outcome, before, after, decision.semaphore, decision.reasons, _warnings(done.after))


def _holding(semaphore: Semaphore, holder: str) -> Holding:
    grant, place = semaphore.grants.get(holder), semaphore.place(holder)
    if grant is None:
        return Holding(place=place)
    return Holding(grant.resources, grant.fence or None, grant.since, place)


def _semaphore(obj: Mapping[str, Any] | None) -> Semaphore:
    return Semaphore({}) if obj is None else read(obj)


def _settings(obj: Mapping[str, Any] | None) -> dict[str, Any]:
    if obj is None:
        return {}
    try:
        seen = read(obj)
    except Malformed as error:  # removed by force
        return {"error": str(error)}
    return {"capacity": dict(seen.capacity), "mode": seen.mode}


def _warnings(obj: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple(decisions.crowded(obj)) if obj else ()

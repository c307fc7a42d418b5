# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who contends on a Kubernetes API server: the seed's loop, both engines, and nobody (the server's own ceiling).

`Naive`, `Annotations` and `Tickets` (bench/on_tickets.py) share one watch for all contenders of a process, so that at
512 contenders the figures tell what the engine asks of the API server, and not what 512 watches ask of a machine of two
cores. They write through the product's own verbs. `Sidecars` is the product's whole loop: every contender has its own
connections and watches, as a sidecar in a Pod has.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    Api,
    Conflict,
    Put,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import CONFLICT_BACKOFF, Backoff
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as annotations_engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import Sight
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import utc_now
from bench.contend import Holder
from tests.support import old_distributor

CONFLICT_JITTER = (0.002, 0.050)  # seconds: full jitter after a 409, as our own commit loop has
RESOURCE = "permit"


class Requests:
    """Counts what Apis send. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: Counter[str] = Counter()

    def add(self, method: str) -> None:
        with self._lock:
            self._sent[method] += 1

    @property
    def sent(self) -> Counter[str]:
        with self._lock:
            return Counter(self._sent)


class CountingApi(Api):
    """The product's client; each request, also one that fails, is counted by its method."""

    def __init__(self, kubeconfig: str | Mapping[str, Any], requests: Requests) -> None:
        super().__init__(Credentials.load({"kubeconfig": kubeconfig}), timeout=30.0, user_agent="muster-bench")
        send = self._wire.open

        def counted(method: str, *args: Any, **kwargs: Any) -> Any:
            requests.add(method)
            return send(method, *args, **kwargs)

        self._wire.open = counted  # type: ignore[method-assign]


class OnKubernetes:
    """What the contenders of one process share."""

    def __init__(self, kubeconfig: str | Mapping[str, Any], namespace: str, name: str) -> None:
        """`kubeconfig` is a path, or the content of one."""
        self.kubeconfig, self.namespace, self.name = kubeconfig, namespace, name
        self._counted = Requests()
        self._apis: list[Api] = []
        self.stop = threading.Event()

    @property
    def requests(self) -> Counter[str]:
        return self._counted.sent

    def api(self, requests: Requests | None = None) -> Api:
        """A client with connections of its own."""
        api = CountingApi(self.kubeconfig, requests or self._counted)
        self._apis.append(api)
        return api

    def follow(self, take: Callable[[Any], None], **what: Any) -> None:
        """Watch from a thread of its own; returns when the first list was taken in."""
        ready = threading.Event()
        api = self.api()

        def run() -> None:
            for change in api.follow(namespace=self.namespace, stop=self.stop, **what):
                take(change)
                ready.set()

        threading.Thread(target=run, name="watch", daemon=True).start()
        if not ready.wait(30):
            raise TimeoutError(f"the watch of {what} brought nothing within 30 s")

    def close(self) -> None:
        self.stop.set()
        for api in self._apis:
            api.close()


class Doors:
    """Where the waiting contenders of one process stand: each behind a door of its own, opened when it is granted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._doors: dict[str, tuple[threading.Event, int]] = {}
        self._granted: Mapping[str, int] = {}

    def wait(self, holder: str, above: int, until: float) -> int | None:
        """Wait for a grant with a fence above `above` (older news may still be on its way); its fence, or None."""
        door = threading.Event()
        with self._lock:
            if self._granted.get(holder, 0) > above:
                return self._granted[holder]
            self._doors[holder] = (door, above)
        door.wait(max(0.0, until - time.monotonic()))
        with self._lock:
            del self._doors[holder]
            fence = self._granted.get(holder, 0)
        return fence if fence > above else None

    def show(self, granted: Mapping[str, int]) -> None:
        """Take in who holds now, with fences, and open the doors of those."""
        with self._lock:
            self._granted = granted
            for holder, fence in granted.items():
                door, above = self._doors.get(holder, (None, 0))
                if door and fence > above:
                    door.set()


# ---------------------------------------------------------------------------------------------- the seed's loop


class Naive(OnKubernetes):
    """The seed's loop with watch and jitter: whoever sees a free permit waits a moment, reads, and tries to take it.

    Kinder to it than the seed: a run is started by a watch, not by a clock, and it never lists Pods, for nobody dies
    here. `jitter` bounds the random delay before a run, in seconds. `look_again` makes the best of it: a run does not
    begin when the watch has shown meanwhile that the permit is taken.
    """

    def __init__(
        self, kubeconfig: str, namespace: str, name: str, hosts: list[str], jitter: float, look_again: bool = False
    ) -> None:
        super().__init__(kubeconfig, namespace, name)
        self.hosts, self.jitter, self.look_again = frozenset(hosts), jitter, look_again
        self._news = threading.Condition()
        self._seen: dict[str, str] = {}
        self.follow(self._take, resource=CONFIGMAPS, name=name)

    def contender(self, holder: Holder) -> _NaiveContender:
        return _NaiveContender(self, holder.name)

    def _take(self, change: Any) -> None:
        objects = change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put) else []
        for obj in objects:
            with self._news:
                self._seen = obj["metadata"]["annotations"]
                self._news.notify_all()

    def looks_free(self, host: str) -> bool:
        return old_distributor.run(self._seen, host, self.hosts) is not None

    def wait_free(self, host: str, until: float) -> bool:
        with self._news:
            return self._news.wait_for(lambda: self.looks_free(host), max(0.0, until - time.monotonic()))


class _NaiveContender:
    def __init__(self, system: Naive, host: str) -> None:
        self._system, self._host, self._api = system, host, system.api()

    def acquire(self, until: float) -> int | None:
        system, host, failures = self._system, self._host, 0
        while time.monotonic() < until:
            if not system.wait_free(host, until):
                continue
            time.sleep(random.uniform(0, system.jitter))
            if system.look_again and not system.looks_free(host):
                continue
            try:
                obj = self._api.get(CONFIGMAPS, system.name, system.namespace)
                after = old_distributor.run(obj["metadata"]["annotations"], host, system.hosts)
                if after is None:
                    continue
                self._api.replace(CONFIGMAPS, _annotated(obj, after))
                return 0
            except Conflict:
                failures += 1
                _back_off(failures)
        return None

    def release(self) -> None:
        failures = 0
        while True:
            obj = self._api.get(CONFIGMAPS, self._system.name, self._system.namespace)
            annotations = obj["metadata"]["annotations"]
            assignment = old_distributor.unmarshal(annotations.get(old_distributor.ASSIGNMENT, ""), str)
            assignment.pop(self._host, None)
            after = {**annotations, old_distributor.ASSIGNMENT: old_distributor.marshal(assignment)}
            try:
                self._api.replace(CONFIGMAPS, _annotated(obj, after))
                return
            except Conflict:
                failures += 1
                _back_off(failures)


def _annotated(obj: dict[str, Any], annotations: dict[str, str]) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def _back_off(failures: int) -> None:
    first, largest = CONFLICT_JITTER
    time.sleep(random.random() * min(largest, first * 2 ** min(failures - 1, 16)))


# ---------------------------------------------------------------------------------------------- annotations


class Annotations(OnKubernetes):
    """The annotations engine: the product's decision and commit; one watch a process."""

    def __init__(self, kubeconfig: str, namespace: str, name: str) -> None:
        super().__init__(kubeconfig, namespace, name)
        self.doors = Doors()
        self.latest: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self.follow(self._take, resource=CONFIGMAPS, name=name)

    def contender(self, holder: Holder) -> _AnnotationsContender:
        return _AnnotationsContender(self, holder)

    def keep(self, obj: dict[str, Any]) -> None:
        """Of what a watch or an answer to a write shows, the newest."""
        with self._lock:
            if self.latest is None or _version(obj) > _version(self.latest):
                self.latest = obj

    def _take(self, change: Any) -> None:
        objects = change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put) else []
        for obj in objects:
            self.keep(obj)
            grants = on_annotations.read(obj).grants
            self.doors.show({name: grant.fence for name, grant in grants.items()})


def _version(obj: Mapping[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


class _AnnotationsContender:
    def __init__(self, system: Annotations, holder: Holder) -> None:
        self._system, self._api = system, system.api()
        self._me = Claimant(holder.name, holder.uid, {ANY: 1})
        self._fence = 0

    def acquire(self, until: float) -> int | None:
        def ask(before: annotations_engine.Semaphore) -> annotations_engine.Decision:
            return annotations_engine.claim(before, self._me, now=utc_now(), enqueue=True)

        grant = self._write(ask, on_annotations.GIVE_WAY).verdict.semaphore.grants.get(self._me.holder)
        fence = grant.fence if grant else self._system.doors.wait(self._me.holder, self._fence, until)
        self._fence = fence or self._fence
        return fence

    def release(self) -> None:
        def leave(before: annotations_engine.Semaphore) -> annotations_engine.Decision:
            return annotations_engine.release(before, *self._me.identity, now=utc_now())

        self._write(leave, CONFLICT_BACKOFF)

    def _write(self, transition: Any, backoff: Backoff) -> Any:
        system, at = self._system, (self._api, self._system.name, self._system.namespace)
        done = on_annotations.write(*at, transition, timeout=30.0, backoff=backoff, watched=lambda: system.latest)
        if done.after is not None:
            system.keep(done.after)
        return done


# ---------------------------------------------------------------------------------------------- the server's ceiling


class Pairs(OnKubernetes):
    """Create and delete a Lease of one's own, over and over: what the API server can do at all."""

    def contender(self, holder: Holder) -> _Pair:
        return _Pair(self, holder.name)


class _Pair:
    def __init__(self, system: Pairs, name: str) -> None:
        self._system, self._name, self._api = system, name, system.api()

    def acquire(self, until: float) -> int | None:
        metadata = {"name": f"{self._system.name}.{self._name}", "namespace": self._system.namespace}
        lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        made = self._api.create(LEASES, {**lease, "spec": {"holderIdentity": self._name}})
        return int(made["metadata"]["resourceVersion"])

    def release(self) -> None:
        self._api.delete(LEASES, f"{self._system.name}.{self._name}", self._system.namespace)


# ---------------------------------------------------------------------------------------------- the product's loop


class Sidecars(OnKubernetes):
    """Every contender is what a sidecar is: the whole loop, with connections and watches of its own.

    `notes` has for each contender the seconds from its first call to its first grant, and what it had sent by then.
    """

    def __init__(self, kubeconfig: str | Mapping[str, Any], namespace: str, name: str, engine: str) -> None:
        super().__init__(kubeconfig, namespace, name)
        self.engine = engine
        self.notes: list[dict[str, Any]] = []
        self._each: list[Requests] = []

    @property
    def requests(self) -> Counter[str]:
        return sum((requests.sent for requests in self._each), Counter())

    def contender(self, holder: Holder) -> Sidecar:
        requests = Requests()
        self._each.append(requests)
        return Sidecar(self, holder, requests)

    def close(self) -> None:
        self.stop.set()  # the contenders stop by themselves at their deadline; closing takes the rest


class Sidecar:
    """One holder. `after` is the fence of its last turn, when it has had one before."""

    def __init__(self, system: Sidecars, holder: Holder, requests: Requests, after: int = 0) -> None:
        self._system, self._requests = system, requests
        self._api = system.api(requests)
        self._me = Claimant(holder.name, holder.uid, {ANY: 1})
        at = {"name": system.name, "namespace": system.namespace}
        self.attendant = verbs.attendant(self._api, engine=system.engine, claimant=self._me, **at)
        self._sights: Iterator[Sight] | None = None
        self._fence = after

    def acquire(self, until: float) -> int | None:
        begun = time.monotonic()
        first = self._sights is None
        self._sights = self._sights or self.attendant.sights(until)
        for sight in self._sights:
            if sight.grant and sight.grant.fence > self._fence:
                self._fence = sight.grant.fence
                if first:
                    sent = dict(self._requests.sent)
                    self._system.notes.append({"seconds": time.monotonic() - begun, "requests": sent})
                return self._fence
        return None

    def release(self) -> None:
        self.attendant.leave(timeout=30.0)

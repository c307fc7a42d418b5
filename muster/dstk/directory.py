# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has a key, and where: the effective view, kept; read when it is asked for, or followed by watches.

What is found may be out of date. That does no harm: a worker serves only what its own reads give to it, and says so
where it is not the one. Then the caller asks for a newer one.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Api, Object
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Fact, Range, View
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ADDRESS,
    ASSIGNMENTS,
    LABEL,
    PARTITIONS,
    read_view,
)
from muster.frame.cache import Cache

PAUSE: Final = 0.1  # seconds from one read of all to the next, however many ask
PATIENCE: Final = 15.0  # seconds in which a read of all is waited for


class Place(NamedTuple):
    """Who has a key. `address` "": nobody knows where it is, or `worker` "": nobody has it."""

    partition: str
    range: Range
    worker: str
    epoch: int
    address: str


class Directory(Protocol):
    """For several threads."""

    def find(self, key: str) -> Place | None:
        """Who has it, by what is known; None where no Partition has it. Raises MusterError."""

    def refresh(self, seen: float, deadline: float) -> float:
        """Know what was so after `seen`, on the monotonic clock; when what is known now was read."""


class Fixed:
    """One address for all keys: of a router, which finds the worker itself."""

    def __init__(self, address: str) -> None:
        self._place = Place("", Range("", ""), "", 0, address.rstrip("/"))

    def find(self, key: str) -> Place | None:
        return self._place

    def refresh(self, seen: float, deadline: float) -> float:
        return seen


# ---------------------------------------------------------------------------------------------- read when asked for


class Listed:
    """The whole view, read anew when somebody asks; of several who ask at once one reads for all."""

    def __init__(self, api: Api, namespace: str, space: str) -> None:
        self._api, self._namespace, self._space = api, namespace, space
        self._known: tuple[View, Mapping[str, str]] = (View((), (), ()), {})
        self._read = 0.0  # when the last read began
        self._turn = threading.Lock()
        self.reads = 0

    def find(self, key: str) -> Place | None:
        if not self._read:
            self.refresh(0.0, time.monotonic() + PATIENCE)
        view, addresses = self._known
        fact = keyspace.owner(view, key)
        return None if fact is None else _place(fact, addresses.get(fact.primary, ""))

    def refresh(self, seen: float, deadline: float) -> float:
        if not self._turn.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return self._read
        try:
            if self._read > seen:
                return self._read  # somebody has just done it
            time.sleep(max(0.0, min(self._read + PAUSE, deadline) - time.monotonic()))
            began = time.monotonic()
            view = read_view(self._api, self._namespace, self._space)
            leases = self._api.list(LEASES, self._namespace, label_selector=f"{LABEL}={self._space}").items
            self._known = view, dict(filter(None, (_address(lease, self._space) for lease in leases)))
            self._read = began
            self.reads += 1
            return began
        finally:
            self._turn.release()


def _place(fact: Fact, address: str) -> Place:
    return Place(fact.partition, fact.range, fact.primary, fact.epoch, address)


def _address(lease: Object, space: str) -> tuple[str, str] | None:
    """The worker's name, and where it is; None where it is not up."""
    head = f"{space}."
    name = lease["metadata"]["name"]
    address = (lease["metadata"].get("annotations") or {}).get(ADDRESS) or ""
    if not name.startswith(head) or not address or not (lease.get("spec") or {}).get("holderIdentity"):
        return None
    return name[len(head) :], address.rstrip("/")


# ---------------------------------------------------------------------------------------------- one change at a time


class LiveView:
    """The effective view as objects come and go; each change costs what it touches, not what there is.

    It is always what `keyspace.view` makes of the objects that it was told. For one thread.
    """

    def __init__(self) -> None:
        self._facts: list[Fact] = []  # that hold, by where they begin; none overlaps another
        self._hidden: dict[str, Fact] = {}  # that a higher epoch hides, by Partition
        self._of: dict[str, dict[str, Fact]] = {}  # by Partition, and by the Assignment that says so ("": itself)
        self._results: dict[str, tuple[Fact, ...]] = {}  # by committed Assignment
        self._supersedes: dict[str, tuple[str, ...]] = {}
        self._superseded = Counter[str]()
        self._shown: dict[str, Fact] = {}  # what counts of each Partition, hidden or not

    def __len__(self) -> int:
        return len(self._facts)

    @property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(self._facts)

    def owner(self, key: str) -> Fact | None:
        at = bisect.bisect(self._facts, key, key=lambda fact: fact.range.start) - 1
        return self._facts[at] if at >= 0 and keyspace.contains(self._facts[at].range, key) else None

    def partition(self, name: str, obj: Object | None) -> None:
        """A Partition is this from now on; None: it is gone."""
        self._say(name, "", keyspace.fact_of(obj) if obj else None)
        self._settle({name})

    def assignment(self, name: str, obj: Object | None) -> None:
        """An Assignment is this from now on; None: it is gone."""
        is_committed = obj is not None and (obj.get("status") or {}).get("phase") == keyspace.COMMITTED
        results = keyspace.results_of(obj) if obj is not None and is_committed else ()
        supersedes = tuple(obj["status"].get("supersedes") or ()) if obj is not None and is_committed else ()
        before, touched = self._results.pop(name, ()), set[str]()
        if (before, self._supersedes.get(name, ())) == (results, supersedes):
            if results:
                self._results[name] = results
            return
        for fact in before:
            self._say(fact.partition, name, None)
            touched.add(fact.partition)
        for fact in results:
            self._say(fact.partition, name, fact)
            touched.add(fact.partition)
        dropped = self._supersedes.pop(name, ())
        self._superseded.subtract(dropped)
        self._superseded.update(supersedes)
        self._superseded += Counter()  # those of which nothing is left
        if results:
            self._results[name] = results
        if supersedes:
            self._supersedes[name] = supersedes
        self._settle({*touched, *supersedes, *dropped})

    def _say(self, partition: str, who: str, fact: Fact | None) -> None:
        said = self._of.setdefault(partition, {})
        if fact is None:
            said.pop(who, None)
        else:
            said[who] = fact
        if not said:
            del self._of[partition]

    def _settle(self, names: Iterable[str]) -> None:
        """Decide anew what holds where one of these is, or was."""
        windows: list[Range] = []
        for name in names:
            before = self._shown.pop(name, None)
            after = self._counts(name)
            if before == after:
                if after:
                    self._shown[name] = after
                continue
            if before:
                windows.append(before.range)
                self._take_out(before)
            if after:
                windows.append(after.range)
                self._shown[name] = after
                self._hidden[name] = after  # until it is shown to hold
        if windows:
            self._redo(windows)

    def _counts(self, name: str) -> Fact | None:
        said = self._of.get(name)
        if not said or self._superseded[name] > 0:
            return None
        return max(said.values(), key=lambda fact: (fact.epoch, not fact.assignment))

    def _take_out(self, fact: Fact) -> None:
        if self._hidden.pop(fact.partition, None):
            return
        at = bisect.bisect_left(self._facts, keyspace.order(fact.range), key=lambda each: keyspace.order(each.range))
        if at < len(self._facts) and self._facts[at].partition == fact.partition:
            del self._facts[at]

    def _redo(self, windows: list[Range]) -> None:
        """All that overlaps these, and what overlaps that, and so on: decided together, and apart from all else."""
        found: dict[str, Fact] = {}
        while windows:
            window = windows.pop()
            near = [fact for fact in self._hidden.values() if keyspace.overlaps(fact.range, window)]
            for fact in (*near, *self._within(window)):
                if fact.partition not in found:
                    found[fact.partition] = fact
                    windows.append(fact.range)
        for fact in found.values():
            self._take_out(fact)
        holding: list[Fact] = []
        for fact in sorted(found.values(), key=lambda fact: (-fact.epoch, fact.partition)):
            if any(keyspace.overlaps(fact.range, other.range) for other in holding):
                self._hidden[fact.partition] = fact
            else:
                holding.append(fact)
                bisect.insort(self._facts, fact, key=lambda each: keyspace.order(each.range))

    def _within(self, window: Range) -> list[Fact]:
        """Those that hold and overlap it."""
        low = max(0, bisect.bisect(self._facts, window.start, key=lambda fact: fact.range.start) - 1)
        high = bisect.bisect_left(self._facts, window.end, key=lambda fact: fact.range.start) if window.end else None
        return [fact for fact in self._facts[low:high] if keyspace.overlaps(fact.range, window)]


# ---------------------------------------------------------------------------------------------- followed by watches


class Watched:
    """The view as watches tell it; `changed` is called after each change, from a thread that it must not hold up."""

    def __init__(self, api: Api, namespace: str, space: str) -> None:
        self._space = space
        self.changed: Callable[[], None] = lambda: None
        self._view, self._lock = LiveView(), threading.Lock()
        self._addresses: dict[str, str] = {}
        self._news = threading.Condition()
        self._told = time.monotonic()
        label = f"{LABEL}={space}"
        self._partitions = Cache(api, PARTITIONS, namespace, on_change=self._partition)
        self._assignments = Cache(api, ASSIGNMENTS, namespace, on_change=self._assignment)
        self._leases = Cache(api, LEASES, namespace, label_selector=label, on_change=self._lease)
        self._caches = (self._partitions, self._assignments, self._leases)

    def start(self) -> None:
        for cache in self._caches:
            cache.start()

    def stop(self) -> None:
        for cache in self._caches:
            cache.stop()

    @property
    def is_ready(self) -> bool:
        return all(cache.synced.is_set() for cache in self._caches)

    @property
    def is_alive(self) -> bool:
        return all(cache.is_alive for cache in self._caches)

    @property
    def trouble(self) -> str | None:
        """Why it may be out of date."""
        return next((cache.trouble for cache in self._caches if cache.trouble), None)

    @property
    def sizes(self) -> tuple[int, int]:
        """How many facts there are, and how many workers that have an address."""
        with self._lock:
            return len(self._view), len(self._addresses)

    def find(self, key: str) -> Place | None:
        with self._lock:
            fact = self._view.owner(key)
            return None if fact is None else _place(fact, self._addresses.get(fact.primary, ""))

    def refresh(self, seen: float, deadline: float) -> float:
        """Wait until a change has come that was told after `seen`, or for a moment."""
        with self._news:
            self._news.wait_for(lambda: self._told > seen, max(0.0, min(PAUSE, deadline - time.monotonic())))
            return self._told

    def _partition(self, key: str) -> None:
        obj = self._mine(self._partitions.by_key(key))
        with self._lock:
            self._view.partition(key.rpartition("/")[2], obj)
        self._tell()

    def _assignment(self, key: str) -> None:
        obj = self._mine(self._assignments.by_key(key))
        with self._lock:
            self._view.assignment(key.rpartition("/")[2], obj)
        self._tell()

    def _lease(self, key: str) -> None:
        lease = self._leases.by_key(key)
        worker = key.rpartition("/")[2].removeprefix(f"{self._space}.")
        address = _address(lease, self._space) if lease else None
        with self._lock:
            before = self._addresses.pop(worker, "")
            if address:
                self._addresses[worker] = address[1]
        if before != (address[1] if address else ""):
            self._tell()

    def _mine(self, obj: dict[str, Any] | None) -> dict[str, Any] | None:
        return obj if obj is not None and keyspace.space_of(obj) == self._space else None

    def _tell(self) -> None:
        with self._news:
            self._told = time.monotonic()
            self._news.notify_all()
        self.changed()

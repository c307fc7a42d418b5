# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who else could place jobs on workers: packages as they are, models of a few lines, and an optimum by HiGHS.

A placer is called once for each change with all jobs, all workers and its own assignment before; it may keep what its
package keeps (a hash ring). None but ours and HiGHS's knows of capacities, zones, weights or dedicated jobs; of classes
each is told in the way that its kind allows: a ring, or a list, of the workers that take the class.

The ring with bounded loads follows Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads" (2018).
"""

from __future__ import annotations

import hashlib
import importlib
import math
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import metadata
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker, place
from bench.placement_traces import ordinal

Assignment = Mapping[str, Sequence[str]]
Placer = Callable[[Sequence[Job], Sequence[Worker], Assignment], Assignment]
OURS: Final = "muster"
MODEL: Final = "model"
SOLVER: Final = "scipy"  # its milp is HiGHS


class Absent(Exception):
    """A peer that can't be measured here; the message says why."""


class Peer(NamedTuple):
    """`package` is the distribution that does the work; MODEL: a few lines here. `make` gives a new placer."""

    name: str
    label: str
    package: str
    make: Callable[[], Placer]

    def version(self) -> str:
        """Its package's; Absent where that is not installed."""
        if self.package in (OURS, MODEL):
            return ""
        return version(self.package)


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise Absent(f"{package} is not installed") from error


def takers(workers: Iterable[Worker]) -> dict[str, list[str]]:
    """For each class the names of the workers that take it, by ordinal."""
    found: dict[str, list[str]] = defaultdict(list)
    for worker in sorted(workers, key=lambda each: ordinal(each.name)):
        for group in worker.takes:
            found[group].append(worker.name)
    return found


def by_class(jobs: Iterable[Job]) -> dict[str, list[str]]:
    """For each class the names of its jobs, sorted."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, group in sorted((job.name, job.group) for job in jobs):
        found[group].append(name)
    return found


def empty(workers: Iterable[Worker]) -> dict[str, list[str]]:
    return {worker.name: [] for worker in workers}


# ---------------------------------------------------------------------------------------------- models


def ours() -> Placer:
    return lambda jobs, workers, previous: place(jobs, workers, previous).assignment


def blocks() -> Placer:
    """What the original of this operator did: the sorted list, cut into as many blocks as there are workers."""

    def placed(jobs: Sequence[Job], workers: Sequence[Worker], _previous: Assignment) -> Assignment:
        found, able = empty(workers), takers(workers)
        for group, there in by_class(jobs).items():
            on = able.get(group, [])
            for number, worker in enumerate(on):
                found[worker] += there[len(there) * number // len(on) : len(there) * (number + 1) // len(on)]
        return found

    return placed


def round_robin() -> Placer:
    """The sorted list is dealt out."""

    def placed(jobs: Sequence[Job], workers: Sequence[Worker], _previous: Assignment) -> Assignment:
        found, able = empty(workers), takers(workers)
        for group, there in by_class(jobs).items():
            on = able.get(group, [])
            for number, worker in enumerate(on):
                found[worker] += there[number :: len(on)]
        return found

    return placed


# ---------------------------------------------------------------------------------------------- packages


class Rings:
    """uhashring's ring for each class, with its defaults (160 points a worker, MD5); it changes as the pool does."""

    def __init__(self) -> None:
        self._new = importlib.import_module("uhashring").HashRing
        self._rings: dict[str, Any] = {}

    def of(self, workers: Iterable[Worker]) -> dict[str, Any]:
        able = takers(workers)
        for group, names in able.items():
            if group not in self._rings:
                self._rings[group] = self._new(names)
            ring, wanted = self._rings[group], set(names)
            there = set(ring.get_nodes())
            for name in sorted(there - wanted):
                ring.remove_node(name)
            for name in sorted(wanted - there):
                ring.add_node(name)
        return {group: self._rings[group] for group in able}


def ring() -> Placer:
    rings = Rings()

    def placed(jobs: Sequence[Job], workers: Sequence[Worker], _previous: Assignment) -> Assignment:
        found, there = empty(workers), rings.of(workers)
        for job in jobs:
            if one := there.get(job.group):
                found[one.get_node(job.name)].append(job.name)
        return found

    return placed


def bounded_ring(factor: float) -> Placer:
    """uhashring's points and hash; a job whose worker is full goes on to the next point.

    A worker is full at `factor` times the average of its class, rounded up.
    """
    rings = Rings()

    def placed(jobs: Sequence[Job], workers: Sequence[Worker], _previous: Assignment) -> Assignment:
        found, there, able = empty(workers), rings.of(workers), takers(workers)
        for group, names in by_class(jobs).items():
            if not able.get(group):
                continue
            points = there[group].get_points()
            keys = [point for point, _name in points]
            bound, load = math.ceil(factor * len(names) / len(able[group])), Counter[str]()
            for name in names:
                at = bisect(keys, there[group].get_key(name)) % len(keys)
                while load[points[at][1]] >= bound:
                    at = (at + 1) % len(keys)
                load[points[at][1]] += 1
                found[points[at][1]].append(name)
        return found

    return placed


def rendezvous() -> Placer:
    """clandestined: the worker with the highest hash of both names (MurmurHash3) has the job."""
    new = importlib.import_module("clandestined").RendezvousHash

    def placed(jobs: Sequence[Job], workers: Sequence[Worker], _previous: Assignment) -> Assignment:
        found = empty(workers)
        able = {group: new(list(names)) for group, names in takers(workers).items()}
        for job in jobs:
            if one := able.get(job.group):
                found[one.find_node(job.name)].append(job.name)
        return found

    return placed


def jump() -> Placer:
    """jump-consistent-hash over the workers by ordinal. Its buckets are numbers: only the last may leave unnoticed."""
    bucket = importlib.import_module("jump").hash

    def placed(jobs: Sequence[Job], workers: Sequence[Worker], _previous: Assignment) -> Assignment:
        found, able = empty(workers), takers(workers)
        for job in jobs:
            if on := able.get(job.group):
                key = int.from_bytes(hashlib.blake2b(job.name.encode(), digest_size=8).digest())
                found[on[bucket(key, len(on))]].append(job.name)
        return found

    return placed


class Sticky:
    """kafka-python's sticky assignor: a class is a topic, a job a partition, a worker a consumer with its old share."""

    def __init__(self) -> None:
        module = importlib.import_module("kafka.coordinator.assignors.sticky.sticky_assignor")
        self._assignor, self._data = module.StickyPartitionAssignor(), module.StickyAssignorUserData
        self._subscription = module.ConsumerProtocolSubscription
        self._numbers: dict[str, int] = {}

    def __call__(self, jobs: Sequence[Job], workers: Sequence[Worker], previous: Assignment) -> Assignment:
        by_number, topics, topic_of = {}, defaultdict(set), {}
        for job in jobs:
            number = self._numbers.setdefault(job.name, len(self._numbers))
            by_number[number], topic_of[job.name] = job.name, job.group or "-"
            topics[job.group or "-"].add(number)
        members = [self._member(worker, topics, topic_of, previous.get(worker.name, ())) for worker in workers]
        found = self._assignor.assign(_Cluster(topics), members)
        return {
            worker: [by_number[number] for _topic, numbers in given.assigned_partitions for number in numbers]
            for worker, given in found.items()
        }

    def _member(
        self, worker: Worker, topics: Mapping[str, set[int]], topic_of: Mapping[str, str], held: Sequence[str]
    ) -> _Member:
        share: dict[str, list[int]] = defaultdict(list)
        for name in held:
            if name in topic_of:
                share[topic_of[name]].append(self._numbers[name])
        takes = sorted({group or "-" for group in worker.takes} & set(topics))
        return _Member(worker.name, self._subscription(0, takes, self._data(list(share.items()), 1)))


class _Cluster(NamedTuple):
    partitions: Mapping[str, set[int]]

    def topics(self) -> list[str]:
        return sorted(self.partitions)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.partitions.get(topic)


class _Member(NamedTuple):
    member_id: str
    metadata: Any


PEERS: Final[dict[str, Peer]] = {
    peer.name: peer
    for peer in (
        Peer(OURS, "Muster", OURS, ours),
        Peer("blocks", "contiguous blocks (the original)", MODEL, blocks),
        Peer("round-robin", "round robin", MODEL, round_robin),
        Peer("jump", "jump hash", "jump-consistent-hash", jump),
        Peer("ring", "hash ring", "uhashring", ring),
        Peer("ring-125", "hash ring, loads ≤ 1.25 of average", "uhashring", partial(bounded_ring, 1.25)),
        Peer("ring-100", "hash ring, loads ≤ average", "uhashring", partial(bounded_ring, 1.0)),
        Peer("rendezvous", "rendezvous hash", "clandestined", rendezvous),
        Peer("sticky", "Kafka's sticky assignor", "kafka-python", Sticky),
    )
}

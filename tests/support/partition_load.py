# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load on keys, and a record of what each client saw of it, for linearizability.py to judge.

Every client is a thread that does one operation after the other. Every written value is unique. An operation that
certainly did not happen is left out, as is a get that saw nothing; of a write without an answer the outcome is open.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from ansible_collections.muster.coordination.tests.support.linearizability import DELETE, GET, PUT, Op, Value
from muster.dstk.client import NoSuchKey, Unknown, Unserved

SHARES: Final = (("put", 45), ("get", 45), ("delete", 6), ("scan", 4))
PADDING: Final = 64  # bytes of a value, about


class Keys(Protocol):
    """What is needed of a client."""

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, value: bytes) -> None: ...
    def delete(self, key: str) -> None: ...
    def scan(self, start: str = "", end: str = "") -> Iterator[tuple[str, bytes]]: ...


class Load:
    """Clients at work, from `start` to `stop`."""

    def __init__(
        self,
        clients: Sequence[Keys],
        keys: Sequence[str],
        seed: int,
        *,
        pause: float = 0.0,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`pause`: mean seconds between two operations of a client. `keys` have nothing under them yet."""
        self._clients, self.keys, self._pause, self._clock = clients, sorted(keys), pause, clock
        self._dice = [random.Random(seed + number) for number in range(len(clients))]
        self._records: list[list[Op]] = [[] for _client in clients]
        self.counts = Counter[str]()  # by kind and outcome
        self.failures: list[str] = []  # what a client may never see
        self.acknowledged: list[int] = []  # when a write was
        self.longest = 0.0  # seconds of the operation that took longest
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"load {number}", daemon=True)
            for number in range(len(clients))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float = 120.0) -> None:
        """Begin nothing more, and wait until what was begun is over."""
        self._is_over.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                self.failures.append(f"{thread.name} does not end")

    def ops(self) -> list[Op]:
        """All that has been seen."""
        return [op for record in self._records for op in record]

    def read_all(self, client: Keys) -> None:
        """Read every key once more, as one more client, who insists: what was acknowledged has to be there."""
        record: list[Op] = []
        for key in self.keys:
            called = self._clock()
            value = _got(client, key)
            record.append(Op(key, GET, value, called, self._clock(), "last"))
        self._records.append(record)

    # ------------------------------------------------------------------------------------------ a client

    def _run(self, number: int) -> None:
        dice, client, serial = self._dice[number], self._clients[number], 0
        kinds = [kind for kind, share in SHARES for _each in range(share)]
        while not self._is_over.is_set():
            serial += 1
            kind = dice.choice(kinds)
            began = self._clock()
            try:
                if kind == "scan":
                    self._scan(number, client, dice)
                else:
                    self._one(number, client, kind, dice.choice(self.keys), f"{number}.{serial}.{'x' * PADDING}")
            except Exception as error:  # a client may see nothing but what the library promises
                self.failures.append(f"client {number}: {kind} raised {error!r}")
            self.longest = max(self.longest, (self._clock() - began) / 1e9)
            if self._pause:
                self._is_over.wait(dice.expovariate(1 / self._pause))

    def _one(self, number: int, client: Keys, kind: str, key: str, value: str) -> None:
        who, called = f"client-{number}", self._clock()
        written: Value = value if kind == "put" else None
        try:
            if kind == "get":
                found = _got(client, key)
                self._note(number, Op(key, GET, found, called, self._clock(), who), "ok")
                return
            if kind == "put":
                client.put(key, value.encode())
            else:
                client.delete(key)
        except Unserved:
            self.counts[f"{kind} unserved"] += 1
            return
        except Unknown:
            self._note(number, Op(key, PUT if kind == "put" else DELETE, written, called, None, who), "unknown")
            return
        returned = self._clock()
        self.acknowledged.append(returned)
        self._note(number, Op(key, PUT if kind == "put" else DELETE, written, called, returned, who), "ok")

    def _scan(self, number: int, client: Keys, dice: random.Random) -> None:
        """Each key in the range is read once, some time between the first page and the last."""
        start, end = sorted(dice.sample(range(len(self.keys)), 2))
        first, last, called = self.keys[start], self.keys[end], self._clock()
        try:
            found = dict(client.scan(first, last))
        except Unserved:
            self.counts["scan unserved"] += 1
            return
        returned = self._clock()
        unknown = set(found) - set(self.keys[start:end])
        if unknown or list(found) != sorted(found):
            self.failures.append(f"a scan of [{first}, {last}) has {sorted(unknown)}, or keys out of order")
        self.counts["scan ok"] += 1
        for key in self.keys[start:end]:
            value = found[key].decode() if key in found else None
            self._records[number].append(Op(key, GET, value, called, returned, f"client-{number} scan"))

    def _note(self, number: int, op: Op, outcome: str) -> None:
        self._records[number].append(op)
        self.counts[f"{op.kind} {outcome}"] += 1


def _got(client: Keys, key: str) -> Value:
    try:
        return client.get(key).decode()
    except NoSuchKey:
        return None


def longest_gap(moments: Sequence[int], begin: int, end: int) -> float:
    """Seconds, from `begin` to `end`, for which nothing was acknowledged at a stretch; all in nanoseconds."""
    inside = [begin, *sorted(each for each in moments if begin < each < end), end]
    return max(later - earlier for earlier, later in itertools.pairwise(inside)) / 1e9

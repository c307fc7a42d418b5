# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operation on partitions costs: for how long nothing can be written, how long it takes, how much it writes.

    python -m bench.partitions               the whole, about 15 minutes; writes docs/bench/partitions.{json,md,png}
    python -m bench.partitions --quick       a minute, the same code, few rounds; writes build/bench/
    python -m bench.partitions --resume      measures what the JSON does not have yet

Two workers and a reconciler are real processes at a real kube-apiserver. Probes, threads of this process, write one key
each, one write after the other, by the client library. Of an operation the longest time is taken for which any of the
probes of its partitions had no acknowledged write, from when it was asked for until it was over. The same is measured
while nothing is done, for as long as an operation takes: what a probe sees anyway on this machine.

Beside it, in the same run, a handover as one would write it by hand: a lock in etcd, then a copy, then the new owner
(bench/partition_naive.py). A part of its own is one Assignment that gives many partitions (bench/partition_batches.py).
What is measured and how is told on the page (docs/bench/partitions.md).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES
from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.tests.support.partition_judge import Chronicle
from ansible_collections.muster.coordination.tests.support.partition_load import longest_gap
from ansible_collections.muster.coordination.tests.support.partition_site import Site
from bench import partition_batches, partition_naive
from bench.contend import percentiles
from bench.holders import api_of
from bench.machine import CHECKOUT, Cluster, facts, say, wait_until_quiet
from bench.semaphore import Store
from muster.dstk.client import Client
from muster.dstk.directory import Watched

OUT, BUILD = CHECKOUT / "docs" / "bench", CHECKOUT / "build" / "bench"
PACKAGES = ("aiohttp", "urllib3")
GRACE = 0.3  # seconds: KeySpace.spec.graceSeconds
CUT = "mm"
PROBES = ("aaaa", "dddd", "pppp", "tttt")  # two on either side of the cut
VALUE = 64 * 1024  # bytes of one value of the large partition
MIB = 1024 * 1024
PATIENCE = 120.0


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    rounds: int = 50  # of split, move, move back, merge
    moves: int = 50  # of the large partition
    large: int = 10 * MIB  # bytes
    naive: int = 20  # handovers by hand
    batches: tuple[tuple[int, int], ...] = ((1, 10), (10, 5), (100, 3), (200, 3))  # partitions of one New, how often


QUICK = Scale(3, 3, 2 * MIB, 2, ((1, 2), (10, 1), (100, 1)))


class Probes:
    """Threads that write one key each, over and over, and when each write was acknowledged."""

    def __init__(self, put: Callable[[str, bytes], None], keys: Sequence[str]) -> None:
        self.acknowledged: dict[str, list[int]] = {key: [] for key in keys}
        self.failures: list[str] = []
        self._put, self._is_over = put, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(key,), daemon=True) for key in keys]
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE
        while not all(self.acknowledged.values()) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self, key: str) -> None:
        for number in itertools.count():
            if self._is_over.is_set():
                return
            try:
                self._put(key, str(number).encode())
                self.acknowledged[key].append(time.monotonic_ns())
            except MusterError as error:
                self.failures.append(f"{key}: {error}")
            self._is_over.wait(0.002)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def gap(self, keys: Sequence[str], begin: int, end: int) -> float:
        """Milliseconds: the longest for which one of these had no acknowledged write. Also what straddles the ends."""
        found = []
        for key in keys:
            moments = self.acknowledged[key]
            before = max((each for each in moments if each <= begin), default=begin)
            after = min((each for each in moments if each >= end), default=time.monotonic_ns())
            found.append(longest_gap(moments, before, after))
        return max(found) * 1000


class Bench:
    """One run of everything on one control plane."""

    def __init__(self, kubeconfig: str, scale: Scale) -> None:
        self.kubeconfig, self.scale = kubeconfig, scale
        self.api = api_of(kubeconfig)

    @contextmanager
    def site(self) -> Iterator[Measured]:
        with tempfile.TemporaryDirectory() as directory:
            namespace = self.api.create(NAMESPACES, {"metadata": {"generateName": "bench-partitions-"}})
            made = Measured(self.api, self.kubeconfig, namespace["metadata"]["name"], Path(directory))
            try:
                yield made
            finally:
                made.close()
                self.api.delete(NAMESPACES, made.site.namespace)

    def operations(self) -> dict[str, Any]:
        """Split, move, move back, merge, again and again, with few keys."""
        with self.site() as measured:
            probes = Probes(measured.put, PROBES)
            for _round in range(self.scale.rounds):
                whole = measured.primary_of(PROBES[0])[0]
                measured.idle(probes, PROBES)
                measured.operation(probes, PROBES, operations.SPLIT, partition=whole, splitKey=CUT)
                upper, here = measured.primary_of(PROBES[2])
                there = "w-1" if here == "w-0" else "w-0"
                for one, other in ((here, there), (there, here)):
                    ends = {"from": one, "to": other}
                    measured.operation(probes, PROBES[2:], operations.MOVE, partition=upper, **ends)
                parts = [measured.primary_of(key)[0] for key in (PROBES[0], PROBES[2])]
                measured.operation(probes, PROBES, operations.MERGE, partitions=parts)
            probes.stop()
            return measured.figures(probes)

    def large(self) -> dict[str, Any]:
        """Moves of one large partition, to and fro."""
        with self.site() as measured:
            for number in range(self.scale.large // VALUE):
                measured.put(f"h{number:03}", bytes(VALUE))
            probes = Probes(measured.put, PROBES)
            for _round in range(self.scale.moves):
                name, here = measured.primary_of(PROBES[0])
                there = "w-1" if here == "w-0" else "w-0"
                measured.operation(probes, PROBES, operations.MOVE, partition=name, **{"from": here, "to": there})
            probes.stop()
            return {**measured.figures(probes), "bytes": self.scale.large}

    def naive(self) -> dict[str, Any]:
        """The same partition, handed over by hand: lock, copy, unlock."""
        with partition_naive.site(self.scale.large, VALUE) as site:
            probes = Probes(site.put, PROBES)
            gaps, taken = [], []
            for _round in range(self.scale.naive):
                begin = time.monotonic_ns()
                site.hand_over()
                end = time.monotonic_ns()
                time.sleep(0.3)
                gaps.append(probes.gap(PROBES, begin, end))
                taken.append((end - begin) / 1e6)
            probes.stop()
            return {
                "etcd": site.version,
                "bytes": self.scale.large,
                "failures": probes.failures[:5],
                "move": {
                    "count": len(gaps),
                    "gap_ms": percentiles(gaps),
                    "gaps_ms": gaps,
                    "seconds_ms": percentiles(taken),
                },
            }

    def batches(self) -> dict[str, Any]:
        """One Assignment that gives many partitions."""
        sizes = partition_batches.measure(self.api, self.kubeconfig, dict(self.scale.batches))
        return {"machine": facts(PACKAGES), "sizes": sizes}


class Measured:
    """A site with two workers and one reconciler, one Partition, and a client."""

    def __init__(self, api: Any, kubeconfig: str, namespace: str, directory: Path) -> None:
        self.site = Site(api, namespace, kubeconfig, directory, graceSeconds=GRACE)
        for name in ("w-0", "w-1"):
            self.site.worker(name)
        self.site.reconciler()
        self.site.partition("p")
        self.site.ends(self.site.new_batch([("p", "w-0")]))
        self.chronicle = Chronicle(api, namespace)
        self.watched = Watched(api, namespace, "default")
        self.watched.start()
        self.client = Client(self.watched, token_file=directory / "token")
        self._found: dict[str, list[dict[str, Any]]] = {}

    def close(self) -> None:
        self.watched.stop()
        self.chronicle.close()
        self.site.close()

    def put(self, key: str, value: bytes) -> None:
        self.client.put(key, value)

    def primary_of(self, key: str) -> tuple[str, str]:
        """The Partition of a key, and who serves it."""
        from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace

        fact = keyspace.owner(self.site.view(), key)
        if fact is None:
            raise SystemExit(f"error: nobody has {key}")
        return fact.partition, fact.primary

    def idle(self, probes: Probes, keys: Sequence[str]) -> None:
        """Nothing, for as long as an operation may take."""
        begin = time.monotonic_ns()
        time.sleep(1.0)
        end = time.monotonic_ns()
        time.sleep(0.05)
        self._found.setdefault("nothing", []).append({"gap": probes.gap(keys, begin, end)})

    def operation(self, probes: Probes, keys: Sequence[str], kind: str, **params: Any) -> None:
        begun, begin = time.monotonic(), time.monotonic_ns()
        made = self.site.assignment(kind, **params)
        name = made["metadata"]["name"]
        committed = ended = 0.0
        while not ended:
            phase = operations.phase_of(self.chronicle.now("Assignment").get(name, made))
            now = time.monotonic() - begun
            if phase in (operations.COMMITTED, operations.COMPLETED) and not committed:
                committed = now
            if phase in operations.FINAL:
                ended = now
            if now > PATIENCE:
                raise SystemExit(f"error: {kind} is not over after {PATIENCE:g} s")
            time.sleep(0.002)
        end = time.monotonic_ns()
        time.sleep(0.1)
        writes = [
            event
            for event in self.chronicle.events()
            if event.revision >= int(made["metadata"]["resourceVersion"]) and not event.listed
        ]
        figures = {"gap": probes.gap(keys, begin, end), "committed": committed * 1000, "seconds": ended * 1000}
        there = self.chronicle.now("Assignment")[name]
        if operations.phase_of(there) != operations.COMPLETED:
            self._found.setdefault("aborted", []).append({"gap": figures["gap"]})
            say(f"{kind} was aborted: {there['status'].get('message')}")
            return
        self._found.setdefault(kind, []).append({**figures, "writes": len(writes)})

    def figures(self, probes: Probes) -> dict[str, Any]:
        found: dict[str, Any] = {"failures": probes.failures[:5], "aborted": len(self._found.pop("aborted", ()))}
        for kind, listed in self._found.items():
            found[kind] = {
                "count": len(listed),
                "gap_ms": percentiles([each["gap"] for each in listed]),
                "gaps_ms": [round(each["gap"], 2) for each in listed],
            }
            if "writes" in listed[0]:
                found[kind]["committed_ms"] = percentiles([each["committed"] for each in listed])
                found[kind]["seconds_ms"] = percentiles([each["seconds"] for each in listed])
                found[kind]["writes"] = {
                    "mean": round(sum(each["writes"] for each in listed) / len(listed), 2),
                    "most": max(each["writes"] for each in listed),
                }
        return found


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "operations": Bench.operations,
    "large": Bench.large,
    "naive": Bench.naive,
    "batches": Bench.batches,
}


def told(found: dict[str, Any]) -> str:
    """Figures in one line, without the single ones."""
    shown = {
        kind: {name: value for name, value in of.items() if name != "gaps_ms"} if isinstance(of, dict) else of
        for kind, of in found.items()
    }
    return json.dumps(shown)


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.partitions", description=__doc__, formatter_class=form)
    parser.add_argument("--name", default="bench", help="the control-plane cluster to measure on (default: bench)")
    parser.add_argument("--kubeconfig", help="an API server that runs, in place of that")
    parser.add_argument("--quick", action="store_true", help="few rounds, for trying it out; written to build/bench")
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="only this part; repeatable")
    parser.add_argument("--rounds", type=int, help="rounds of split, move, move, merge (default: 50)")
    parser.add_argument("--resume", action="store_true", help="measure only what the JSON does not have yet")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (docs/bench or build/bench)")
    parser.add_argument("--wait", type=float, default=0, metavar="MINUTES", help="wait so long for a quiet machine")
    args = parser.parse_args(argv)
    out: Path = args.out or (BUILD if args.quick or args.part else OUT)
    out.mkdir(parents=True, exist_ok=True)
    scale = QUICK if args.quick else Scale()
    scale = replace(scale, rounds=args.rounds or scale.rounds)
    quiet = wait_until_quiet(minutes=args.wait) if args.wait else None
    kubeconfig, version = args.kubeconfig, "of its own"
    if not kubeconfig:
        cluster = Cluster(args.name)
        kubeconfig, version = cluster.kubeconfig, cluster.version()
    else:
        from cluster import toolchain

        version = toolchain.pinned("kubernetes", "k8s.io/kubernetes")
    found: dict[str, Any] = {"machine": {**facts(PACKAGES), "was_quiet": quiet}, "kubernetes": version}
    path = out / "partitions.json"
    if args.resume and path.exists():
        found = json.loads(path.read_text())
    store = Store(path, {**found, "scale": vars(scale)}, told)
    bench = Bench(kubeconfig, scale)
    for part, measure in PARTS.items():
        if not args.part or part in args.part:
            store.measured(part, by=partial(measure, bench))
    store.found["machine"]["load_1_min_after"] = facts()["load_1_min"]
    store.save()
    bench.api.close()
    from bench import partitions_report  # matplotlib takes a second and 100 MB: after the measuring

    partitions_report.write(out)
    return 1 if partitions_report.faults(store.found) else 0


if __name__ == "__main__":
    sys.exit(main())

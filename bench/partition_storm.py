# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long evidence that partitions split, merge and move under load without losing a write.

    python -m bench.partition_storm --minutes 10       writes docs/proof/soak-partitions.{md,json}
    python -m bench.partition_storm --quick            about a minute; writes build/proof
    python -m bench.partition_storm --quick --plant BUG        passes only when the planted bug is found
    python -m bench.partition_storm --append --minutes 10      what was seen is added to the report

Workers, two reconcilers, two assigners and a router are real processes at a real API server. Clients read, write,
delete and scan through the library and through the router, while Partitions are split, merged and moved at random,
several at a time, and some operations are deleted in the middle. Meanwhile workers, reconcilers, assigners and the
router are killed (SIGKILL) and started again, or frozen for a while (SIGSTOP), some of them beyond their Lease.

What is checked:
- at every API revision that two watches saw, the effective view has no gap and no overlap, no epoch goes back, of a
  Partition or of a key, no range changes, and phases only advance (tests/support/partition_judge.py);
- what all clients saw, and a last read of all keys, fits some order for every key: no acknowledged write was lost
  (tests/support/linearizability.py);
- when the faults have ended, every operation comes to its end in bounded time, and nothing is left behind: no claim, no
  fence, no superseded Partition, no copy that nobody wants.

A round is so many minutes in a namespace of its own; in every other one each Partition has a follower, and workers that
are lost are replaced. TERM or Ctrl-C ends the round early, and it is judged all the same.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Fact, View
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support import linearizability, planted_partitions
from ansible_collections.muster.coordination.tests.support.control_plane import ControlPlane
from ansible_collections.muster.coordination.tests.support.nursery import insist
from ansible_collections.muster.coordination.tests.support.partition_judge import Chronicle, Judge
from ansible_collections.muster.coordination.tests.support.partition_load import Load
from ansible_collections.muster.coordination.tests.support.partition_site import Site
from ansible_collections.muster.coordination.tests.support.partition_worker_lab import WorkerProcess
from ansible_collections.muster.coordination.tests.support.planted_partitions import BUGS
from bench import partition_storm_report as report
from bench.contend import percentiles
from bench.holders import api_of
from bench.machine import CHECKOUT, facts, say
from muster.dstk.client import Client
from muster.dstk.directory import Directory, Fixed, Listed, Watched

OUT, BUILD = CHECKOUT / "docs" / "proof", CHECKOUT / "build" / "proof"
WORKERS = ("w-0", "w-1", "w-2", "w-3")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
KEYS, CLIENTS = 48, 9  # a third of the clients by each way
FIRST = 6  # Partitions in the beginning
FEW, MANY = 4, 16  # Partitions: below, they are split; above, merged
AT_ONCE = 4  # operations
LEASE = ("--lease-seconds", "3", "--sweep-seconds", "2")
PAUSE = 0.02  # seconds between two operations of a client, about
FAULT_SECONDS = (1.0, 4.0)  # from one fault to the next
ROUND_MINUTES = 5.0
CALM_SECONDS = 120.0  # in which all has to come to its end, once the faults have ended
PLANTED_CALM_SECONDS = 15.0  # with a bug in it, it may never come to that
PROGRESS_SECONDS = 15.0


class Storm:
    """One round in a namespace of its own."""

    def __init__(self, api: Any, kubeconfig: str, directory: Path, seed: int, *, followers: int = 0, plant: str = ""):
        self.api, self.directory, self.seed = api, directory, seed
        self.dice = random.Random(seed)
        self.namespace = insist(lambda: api.create(NAMESPACES, {"metadata": {"generateName": "partition-storm-"}}))[
            "metadata"
        ]["name"]
        self.enough = threading.Event()
        self.faults, self.violations = Counter[str](), list[str]()
        self.seconds = 0.0
        space = {"graceSeconds": 0.5, "lostAfterSeconds": 2, "operations": 8, "followers": followers}
        self.site = Site(api, self.namespace, kubeconfig, directory, **space)
        if plant:
            self.site.launcher = ("-m", planted_partitions.__name__, plant)
        self._calm_seconds = PLANTED_CALM_SECONDS if plant else CALM_SECONDS
        self._asked: dict[str, float] = {}
        self._taken: dict[str, list[float]] = {}
        self._ending = threading.Event()
        self._watched: list[Watched] = []

    # ------------------------------------------------------------------------------------------ up and down

    def up(self) -> None:
        site = self.site
        self.workers: dict[str, WorkerProcess] = {}
        for name in WORKERS:
            self.workers[name] = WorkerProcess(site, name, *LEASE)
        for worker in self.workers.values():
            worker.says('"message": "has its Lease"')
        shards = ("--replicas-mode", "shard", "--shard-by", "object", "--workers", "8")
        starts: dict[str, Callable[[], Any]] = {
            "reconciler-0": lambda: site.reconciler(*shards),
            "reconciler-1": lambda: site.reconciler(*shards),
            "assigner-0": site.assigner,
            "assigner-1": site.assigner,
            "router": lambda: site.router(*((f"--listen=127.0.0.1:{self.port}",) if self.port else ())),
        }
        self.port = 0
        self.starts, self.others = starts, {name: start() for name, start in starts.items()}
        self.port = self.others["router"].port
        letters = keyspace.Space("default", 4, LETTERS)
        whole = keyspace.Range("", "")
        for number, part in enumerate(keyspace.even_cuts(letters, whole, FIRST)):
            insist(partial(site.partition, f"p{number}", part.start, part.end))
        self.keys = sorted({"".join(self.dice.choices(LETTERS, k=4)) for _each in range(KEYS)})
        self._wait(lambda: self._is_whole(), "all partitions to be served", CALM_SECONDS)
        self.chronicle = Chronicle(self.api, self.namespace)
        self.judge = Judge(self.keys, since=int(self.api.list(PARTITIONS, self.namespace).resource_version))
        self._wait(lambda: self.chronicle.lists >= 2, "the watches", 60)
        token = self.directory / "token"
        ways: list[Callable[[], Directory]] = [self._listed, self._watching, self._by_router]
        clients = [Client(ways[number % len(ways)](), token_file=token) for number in range(CLIENTS)]
        self.last = Client(self._listed(), token_file=token, timeout=self._calm_seconds)
        self.load = Load(clients, self.keys, self.seed, pause=PAUSE)

    def _listed(self) -> Directory:
        return Listed(self.api, self.namespace, "default")

    def _watching(self) -> Directory:
        watched = Watched(self.api, self.namespace, "default")
        watched.start()
        self._watched.append(watched)
        return watched

    def _by_router(self) -> Directory:
        return Fixed(f"http://127.0.0.1:{self.port}")

    def close(self) -> None:
        for watched in self._watched:
            watched.stop()
        self.site.close()
        with suppress(AttributeError):
            self.chronicle.close()
        insist(lambda: self.api.delete(NAMESPACES, self.namespace))

    def run(self, minutes: float, operations_wanted: int) -> None:
        """Storm, calm, judge."""
        self.up()
        began = time.monotonic()
        self.load.start()
        works = (self._ask, self._hurt)
        threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        told = began
        while time.monotonic() < began + minutes * 60 and not self.enough.is_set():
            if operations_wanted and self.completed >= operations_wanted:
                break
            if time.monotonic() > told + PROGRESS_SECONDS:
                told = time.monotonic()
                say(f"{self.completed} operations, {sum(self.load.counts.values()):,} of clients, {dict(self.faults)}")
            self.enough.wait(0.2)
        self._ending.set()
        for thread in threads:
            thread.join(60)
        self.seconds = time.monotonic() - began
        self._calm()
        self.load.stop()
        self._judge()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            self.violations.append(f"the storm failed:\n{traceback.format_exc()}")

    @property
    def completed(self) -> int:
        """Operations that have come to their end, without New and what was aborted."""
        return sum(self.ended.values())

    @property
    def ended(self) -> Counter[str]:
        """By type."""
        there = self.chronicle.now("Assignment").values()
        done = [obj for obj in there if operations.phase_of(obj) == operations.COMPLETED]
        return Counter(obj["spec"]["type"] for obj in done if obj["spec"]["type"] != operations.NEW)

    # ------------------------------------------------------------------------------------------ operations

    def _ask(self) -> None:
        """Have so many operations go on at once, of what the view has now."""
        while not self._ending.wait(0.05):
            there = self.chronicle.now("Assignment")
            open_ones = {name for name, obj in there.items() if not operations.is_final(obj)}
            for name in [name for name, at in self._asked.items() if name not in there and _is_old(at)]:
                del self._asked[name]  # it was deleted, and is gone
            mine = [name for name in self._asked if name in open_ones or name not in there]
            for name in [name for name in self._asked if name in there and name not in open_ones]:
                self._taken.setdefault(there[name]["spec"]["type"], []).append(time.monotonic() - self._asked.pop(name))
            if len(mine) >= AT_ONCE:
                continue
            view = keyspace.view(self.chronicle.now("Partition").values(), there.values())
            busy = {name for each in open_ones for name in operations.operands(there[each])}
            if self.dice.random() < 0.1:
                busy = set()  # two may want the same
            wanted = self._choose(view, busy)
            if wanted is None:
                continue
            kind, params = wanted
            with suppress(MusterError):
                made = self.site.assignment(kind, **params)
                self._asked[made["metadata"]["name"]] = time.monotonic()
                if self.dice.random() < 0.05:
                    self.faults["operation deleted"] += 1
                    threading.Timer(self.dice.uniform(0, 0.5), self._delete, (made["metadata"]["name"],)).start()

    def _delete(self, name: str) -> None:
        with suppress(MusterError):
            self.api.delete(ASSIGNMENTS, name, self.namespace)

    def _choose(self, view: View, busy: set[str]) -> tuple[str, dict[str, Any]] | None:
        free = [fact for fact in view.facts if fact.primary and fact.partition not in busy]
        pairs = [
            (one, other)
            for one, other in itertools.pairwise(view.facts)
            if one in free and other in free and one.primary == other.primary
        ]
        weights = {
            operations.SPLIT: 0 if len(view.facts) >= MANY or not free else 3,
            operations.MERGE: 0 if len(view.facts) <= FEW or not pairs else 4,
            operations.MOVE: 3 if free else 0,
        }
        if not any(weights.values()):
            return None
        kind = self.dice.choices(list(weights), list(weights.values()))[0]
        if kind == operations.MERGE:
            return kind, {"partitions": [fact.partition for fact in self.dice.choice(pairs)]}
        if kind == operations.SPLIT:
            return self._split(self.dice.choice(free))
        fact, target = self._to_move(view, free)
        return kind, {"partition": fact.partition, "from": fact.primary, "to": target}

    def _split(self, fact: Fact) -> tuple[str, dict[str, Any]] | None:
        """At one of the keys, so that both halves have some."""
        inside = [key.rstrip("!") for key in self.keys if fact.range.start < key and keyspace.contains(fact.range, key)]
        if not inside:
            return None
        return operations.SPLIT, {"partition": fact.partition, "splitKey": self.dice.choice(inside)}

    def _to_move(self, view: View, free: Sequence[Fact]) -> tuple[Fact, str]:
        """Often to where its neighbour is, so that they can be merged."""
        fact = self.dice.choice(free)
        others = [name for name in WORKERS if name != fact.primary]
        beside = [
            each.primary
            for one, other in itertools.pairwise(view.facts)
            for each, it in ((one, other), (other, one))
            if it == fact and each.primary in others
        ]
        return fact, self.dice.choice(beside if beside and self.dice.random() < 0.6 else others)

    # ------------------------------------------------------------------------------------------ faults

    def _hurt(self) -> None:
        while not self._ending.wait(self.dice.uniform(*FAULT_SECONDS)):
            kinds = (self._kill_worker, self._freeze_worker, self._kill, self._freeze)
            self.dice.choices(kinds, (4, 3, 3, 2))[0]()
        self._ending.set()

    def _kill_worker(self) -> None:
        name = self.dice.choice(WORKERS)
        self.faults["worker killed"] += 1
        self.workers[name].kill()
        self._ending.wait(self.dice.choice((0.0, 0.3, 1.0, 5.0)))
        self.workers[name] = WorkerProcess(self.site, name, *LEASE)

    def _freeze_worker(self) -> None:
        self._freezes("worker", self.workers[self.dice.choice(WORKERS)].popen.pid)

    def _kill(self) -> None:
        name = self.dice.choice([name for name in self.others if name[-1] != "0" or self.dice.random() < 0.7])
        self.faults[f"{name.partition('-')[0]} killed"] += 1
        self.others[name].kill()
        self._ending.wait(self.dice.choice((0.0, 0.5, 3.0)))
        self.others[name] = self.starts[name]()

    def _freeze(self) -> None:
        name = self.dice.choice([name for name in self.others if name != "router"])
        self._freezes(name.partition("-")[0], self.others[name].popen.pid)

    def _freezes(self, what: str, pid: int) -> None:
        """Some of them beyond their Lease, which is 2 or 3 s."""
        self.faults[f"{what} frozen"] += 1
        os.kill(pid, signal.SIGSTOP)
        try:
            self._ending.wait(self.dice.choice((0.2, 0.5, 1.0, 2.0, 4.0, 6.0)))
        finally:
            os.kill(pid, signal.SIGCONT)

    # ------------------------------------------------------------------------------------------ the end

    def _calm(self) -> None:
        """With everybody up, all comes to its end, and nothing is left behind."""
        began = time.monotonic()
        for name, worker in self.workers.items():
            if worker.popen.poll() is not None:
                self.violations.append(f"worker {name} has ended by itself:\n{worker.log.read_text()[-2000:]}")
        for name, other in self.others.items():
            if other.popen.poll() is not None:
                self.violations.append(f"{name} has ended by itself:\n{other.log.read_text()[-2000:]}")
        for true, what in (
            (self.site.is_quiet, "P11: every operation to come to its end"),
            (self._is_whole, "P12: nothing to be left behind"),
        ):
            try:
                self._wait(true, what, self._calm_seconds)
            except AssertionError as error:
                self.violations.append(str(error))
        self.calm = time.monotonic() - began

    def _is_whole(self) -> bool:
        """All is served, by copies that are just those that there should be."""
        view = self.site.view()
        self.left = ""
        if view.gaps or view.void or any(not fact.primary for fact in view.facts):
            self.left = f"the view is {view}"
            return False
        objects = {obj["metadata"]["name"]: obj["spec"] for obj in self.api.list(PARTITIONS, self.namespace).items}
        for name, spec in objects.items():
            if spec.get("claimedBy") or spec.get("fencedBy") or spec.get("proxy"):
                self.left = f"{name} is {spec}"
                return False
        for name, worker in self.workers.items():
            try:
                copies = worker.copies()
            except (AssertionError, Exception) as error:
                self.left = f"{name} does not say what it has: {error!r}"
                return False
            for partition, copy in copies.items():
                spec = objects.get(partition, {})
                is_primary = spec.get("primary") == name and copy["role"] == "primary"
                is_primary = is_primary and copy["epoch"] == spec["epoch"]
                if not is_primary and name not in (spec.get("followers") or ()):
                    self.left = f"{name} has {copy}; the Partition is {spec}"
                    return False
            lacking = [each for each, spec in objects.items() if spec.get("primary") == name and each not in copies]
            if lacking:
                self.left = f"{name} has no copy of {lacking}"
                return False
        return True

    def _judge(self) -> None:
        try:
            self.load.read_all(self.last)
        except MusterError as error:
            self.violations.append(f"P11: a key is not served: {error}")
        self.judge.see(self.chronicle.events())
        self.violations += self.judge.violations
        self.violations += self.load.failures[:20]
        self.violations += [f"P5: {violation}" for violation in linearizability.check(self.load.ops())]

    def _wait(self, true: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            with suppress(NotFound, MusterError):
                if true():
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: waited {seconds:g} s in vain: {getattr(self, 'left', '')}{self._open()}")
            time.sleep(0.1)

    def _open(self) -> str:
        there = self.api.list(ASSIGNMENTS, self.namespace).items
        return " ".join(
            f"\n{obj['metadata']['name']}: {json.dumps(obj['spec'])} {json.dumps(obj.get('status'))}"
            for obj in there
            if not operations.is_final(obj)
        )[:4000]

    def found(self) -> dict[str, Any]:
        """What is to be told."""
        by_type = Counter(f"{kind} {phase}" for kind, phase in self.judge.operations.values())
        return {
            "seed": self.seed,
            "followers": self.site.api.get(KEY_SPACES, "default", self.namespace)["spec"].get("followers", 0),
            "seconds": round(self.seconds, 1),
            "calm_seconds": round(getattr(self, "calm", 0.0), 1),
            "operations": dict(sorted(by_type.items())),
            "completed": self.completed,
            "operation_seconds": {kind: percentiles(sorted(taken)) for kind, taken in sorted(self._taken.items())},
            "clients": dict(sorted(self.load.counts.items())),
            "longest_seconds": round(self.load.longest, 2),
            "ops_judged": len(self.load.ops()),
            "keys": len(self.keys),
            "revisions": self.judge.revisions,
            "relists": self.chronicle.lists - 2,
            "faults": dict(sorted(self.faults.items())),
            "violations": self.violations,
        }


def _is_old(asked: float) -> bool:
    """Whether the watch must have told of it by now."""
    return time.monotonic() - asked > 10


def round_of(api: Any, kubeconfig: str, directory: Path, enough: threading.Event, minutes: float, **what: Any) -> Any:
    """One round; what was seen."""
    directory.mkdir()
    wanted = what.pop("operations", 0)
    storm = Storm(api, kubeconfig, directory, **what)
    storm.enough = enough
    try:
        storm.run(minutes, wanted)
    except Exception:
        storm.violations.append(f"the round failed:\n{traceback.format_exc()}")
    try:
        return storm.found()
    finally:
        storm.close()


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.partition_storm", description=__doc__, formatter_class=form)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all rounds together (default: 10)")
    parser.add_argument("--operations", type=int, default=0, help="end a round after so many (default: by time only)")
    parser.add_argument("--followers", type=int, choices=(0, 1), help="in all rounds (default: by turns)")
    parser.add_argument("--quick", action="store_true", help="one round of a minute; written to build/proof")
    parser.add_argument("--append", action="store_true", help="add to the report that is there, do not begin a new one")
    parser.add_argument("--plant", choices=tuple(BUGS), help="plant this bug; passes only when it is found")
    parser.add_argument("--kubeconfig", help="an API server that runs (default: one of its own)")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (docs/proof or build/proof)")
    parser.add_argument("--keep", action="store_true", help="leave what the processes wrote down")
    parser.add_argument("--seed", type=int, help="(default: another each time; it is in the report)")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    minutes = 1.0 if args.quick or args.plant else args.minutes
    out = args.out or (BUILD if args.quick or args.plant else OUT)
    run: dict[str, Any] = {"machine": facts(("aiohttp", "urllib3")), "rounds": []}
    before = report.read(out) if args.append else []
    directory = Path(tempfile.mkdtemp(prefix="muster-storm-"))
    say(f"seed {seed}; the processes' files are in {directory}")
    plane = None if args.kubeconfig else ControlPlane(directory, "partitions")
    if plane:
        plane("up")
    api = api_of(args.kubeconfig or (plane.kubeconfig if plane else ""))
    enough = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: enough.set())
    try:
        rounds = max(1, round(minutes / ROUND_MINUTES))
        for turn in range(rounds):
            if enough.is_set():
                break
            followers = args.followers if args.followers is not None else (turn + args.quick) % 2
            what = {"seed": seed + turn, "followers": followers, "plant": args.plant or ""}
            what["operations"] = args.operations
            kubeconfig = args.kubeconfig or (plane.kubeconfig if plane else "")
            found = round_of(api, kubeconfig, directory / f"round-{turn}", enough, minutes / rounds, **what)
            run["rounds"].append(found)
            run["machine"]["load_1_min_after"] = facts()["load_1_min"]
            for violation in found["violations"]:
                print(f"VIOLATION, seed {found['seed']}: {violation}", flush=True)
            if not args.plant:
                page = report.write(out, [*before, run])  # after each round: what there is stays
                say(f"{found['completed']} operations, {len(found['violations'])} violations in this round; {page}")
    finally:
        api.close()
        if plane:
            plane("down")
        if not args.keep:
            shutil.rmtree(directory, ignore_errors=True)
    if args.plant:
        told = [text for found in run["rounds"] for text in found["violations"]]
        is_found = any(words in text for text in told for words in BUGS[args.plant].found)
        print(f"planted {args.plant} ({BUGS[args.plant].breaks}): {'found' if is_found else 'NOT FOUND'}")
        return 0 if is_found else 1
    return 1 if report.failed(run) else 0


if __name__ == "__main__":
    sys.exit(main())

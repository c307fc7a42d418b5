# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long evidence that the semaphore is safe: very many grants while everything around it fails.

    python -m bench.soak                             both engines, 100,000 grants each or 60 minutes; writes docs/proof
    python -m bench.soak --grants 1500 --minutes 1   the same faults and checks, short; writes build/soak
    python -m bench.soak --append --engine tickets   one more run; what it saw is added to the report that is there
    python -m bench.soak --minutes 0.3 --plant BUG   the judges judged: passes only when the planted bug is found

TERM or Ctrl-C ends the faults early; everything is judged and written all the same.

Holders are real processes which attend small semaphores through a proxy of their own, take turn after turn, and write
down what they believe, at once, in a file that outlives them. Meanwhile
- the proxies answer with 409 in bursts, 410, 429, 500, 500 after the write was applied; reset connections before and
  after the request was carried out, and in the middle of an answer; stall writes and watches, delay, cut every
  connection, and go silent;
- holder processes are killed (SIGKILL): their Pods are deleted, and made again under the same names; others are
  stopped for a while (SIGSTOP);
- the API server is killed, and started again.

What is checked, for every grant:
- every revision that was written is judged by an oracle which shares no code with the product (tests/support); those
  missed while the API server was away are fetched from its history;
- at no moment do more holders believe to hold than there are permits (their own files, one clock);
- every grant that somebody believed in is one that the oracle saw, with this fence, for this holder; fences are given
  once, and grow for each semaphore in the order in which they were given;
- when the faults end, everybody is served again.
"""

from __future__ import annotations

import argparse
import multiprocessing
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    NAMESPACES,
    PODS,
    ApiError,
    Conflict,
    NotFound,
)
from bench import soak_report
from bench.bad_network import fail_at_random
from bench.contend import allow_many_files, percentiles
from bench.diaries import Belief, Place, attend, beliefs, disbeliefs
from bench.holders import api_of, make_namespace, make_pod, make_semaphore, remove_semaphore
from bench.judges import Chronicle, Judge, judge_of
from bench.machine import CHECKOUT, Cluster, facts, say
from bench.planted import BUGS
from bench.semaphore import ENGINES

OUT = CHECKOUT / "docs" / "proof"
PERMITS = (1, 1, 1, 1, 1, 2, 2, 3)  # of the semaphores; each is attended by HOLDERS of every process
PROCESSES, HOLDERS = 4, 1
PROGRESS_SECONDS = 10.0
CALM_SECONDS = 120.0  # after the faults, everybody must be served again within this time; a resync is after 70 s
AWAY_SECONDS = 180.0  # the API server is back within this time after it was killed, also on a machine that is busy
ENOUGH_VIOLATIONS = 20
# mean number of grants between two events of a kind; a process of holders comes back after a second, the API server
# after three
KILL_EVERY, STOP_EVERY, SERVER_KILL_EVERY = 600, 1000, 5000


@dataclass
class Team:
    """One process of holders with its network, which its kubeconfig leads through."""

    number: int
    network: Any
    kubeconfig: Mapping[str, Any]
    network_pipe: Connection
    process: Any = None
    pipe: Connection | None = None
    places: list[Place] = field(default_factory=list)
    diary: Path = Path()
    lives: int = 0


class Soak:
    """One engine's soak on a running cluster. `bug` is planted in the holders; `enough` ends the faults early."""

    def __init__(self, cluster: Cluster, engine: str, directory: Path, seed: int, bug: str = "") -> None:
        self.cluster, self.engine, self.directory, self.bug = cluster, engine, directory, bug
        self.enough = threading.Event()
        self.namespace = f"soak-{engine}"
        self.dice = random.Random(seed)
        self.kind = judge_of(engine)
        self.api, self.watcher = api_of(cluster.kubeconfig), api_of(cluster.kubeconfig)
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.believed: list[Belief] = []
        self.permits = {f"semaphore-{n}": count for n, count in enumerate(PERMITS)}
        self.judges: dict[str, Judge] = {name: self.kind(name) for name in self.permits}
        self._lock = threading.Lock()  # of the judges
        self._stop = threading.Event()
        self._context = multiprocessing.get_context("spawn")

    def run(self, grants: int, minutes: float) -> dict[str, Any]:
        """Soak until so many grants were given, or for so long; then calm, and the last checks."""
        begun = time.monotonic()
        make_namespace(self.api, self.namespace)
        for name, permits in self.permits.items():
            make_semaphore(self.api, self.namespace, name, self.engine, permits)
        self.chronicle = Chronicle(self.watcher, self.kind.resource, self.namespace, self.kind.selector)
        judging = threading.Thread(target=self._judge, daemon=True)
        judging.start()
        teams = [self._team(number) for number in range(PROCESSES)]
        for team in teams:
            self._bring_up(team)
        with self._failures_told():
            self._storm(teams, grants, begun + minutes * 60, begun)
        stormed = time.monotonic() - begun
        unserved = self._calm(teams)
        self._end(teams)
        with self._failures_told():
            self._judge_the_rest(judging)
        say(f"{self.engine}: comparing {len(self.believed):,} turns of the diaries with what the oracle saw")
        wrong, worst = disbeliefs(self.believed, self.permits, self.judges)
        return {
            "engine": self.engine,
            "grants": self.grants(),
            "grants_believed": len(self.believed),
            "seconds": round(stormed, 1),
            "revisions_judged": sum(judge.revisions for judge in self.judges.values()),
            "revisions_read_back": self.chronicle.read_back,
            "permits": dict(self.permits),
            "holders_at_a_time": PROCESSES * HOLDERS * len(self.permits),
            "over_grants": worst,
            "violations": [*self.violations, *wrong],
            "unserved_after_the_faults": unserved,
            "hold_ms": percentiles([b.end - b.begin for b in self.believed], 1000),
            "faults": dict(sorted(self.counts.items())),
        }

    def grants(self) -> int:
        with self._lock:
            return sum(len(judge.grants) for judge in self.judges.values())

    # ------------------------------------------------------------------------------------------ private

    @contextmanager
    def _failures_told(self) -> Iterator[None]:
        """What the holders wrote down is judged all the same."""
        try:
            yield
        except (Exception, SystemExit):
            self.violations.append(f"the soak failed:\n{traceback.format_exc()}")

    def _judge(self) -> None:
        try:
            for kind, obj in self.chronicle.events(self._stop):
                name = self.kind.belongs(obj)
                if name in self.judges:
                    with self._lock:
                        version = obj["metadata"]["resourceVersion"]
                        found = self.judges[name].see(kind, obj)
                        self.violations += [f"{name}, revision {version}: {violation}" for violation in found]
        except BaseException:
            self.violations.append(f"the judge failed:\n{traceback.format_exc()}")
            raise

    def _team(self, number: int) -> Team:
        ours, theirs = self._context.Pipe()
        seed = self.dice.randrange(2**32)
        parts = (theirs, self.cluster.kubeconfig, self.engine, seed)
        network = self._context.Process(target=fail_at_random, args=parts, daemon=True)
        network.start()
        return Team(number, network, ours.recv(), ours)

    def _bring_up(self, team: Team) -> None:
        """A new process, with new Pods under the old names."""
        names = [(f"holder-{team.number}-{n}-{k}", s) for n, s in enumerate(self.permits) for k in range(HOLDERS)]
        team.places = [Place(self._insist_on(make_pod, self.api, self.namespace, name), s) for name, s in names]
        team.lives += 1
        team.diary = self.directory / f"{self.engine}-{team.number}-{team.lives}"
        team.pipe, theirs = self._context.Pipe()
        parts = (theirs, team.kubeconfig, self.namespace, self.engine, team.places, str(team.diary), self.bug)
        team.process = self._context.Process(target=attend, args=parts, daemon=True)
        team.process.start()

    def _kill(self, team: Team) -> None:
        team.process.kill()
        team.process.join()
        self.believed += beliefs(team.diary, time.monotonic())
        self.counts["holders killed"] += len(team.places)
        with self._lock:
            for place in team.places:
                self.judges[place.semaphore].bury(*place.holder)
        for place in team.places:
            name, uid = place.holder
            self._insist_on(self._remove_pod, name, uid)
        self._bring_up(team)

    def _suspend(self, team: Team) -> None:
        """As when a machine sleeps: nothing of the process runs, and what it holds stays held."""
        os.kill(team.process.pid, signal.SIGSTOP)
        time.sleep(self.dice.uniform(0.1, 1.0))
        os.kill(team.process.pid, signal.SIGCONT)
        self.counts["holders stopped for a while"] += len(team.places)

    def _kill_server(self, _team: Team) -> None:
        self.cluster.kill("kube-apiserver")
        self.counts["API server killed"] += 1

    def _remove_pod(self, name: str, uid: str) -> None:
        try:
            self.api.delete(PODS, name, self.namespace, uid=uid)
        except (NotFound, Conflict):
            return

    def _insist_on(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The API server may be away: it comes back."""
        deadline = time.monotonic() + AWAY_SECONDS
        while True:
            try:
                return call(*arguments)
            except ApiError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _storm(self, teams: Sequence[Team], grants: int, deadline: float, begun: float) -> None:
        """Kill and stop at random; the first of each kind surely comes, however short the soak or slow the machine."""
        kinds = {self._kill: KILL_EVERY, self._suspend: STOP_EVERY, self._kill_server: SERVER_KILL_EVERY}
        due: dict[Callable[[Team], None], float] = {act: min(every, grants / 4) for act, every in kinds.items()}
        first, come = begun + (deadline - begun) / 3, set()
        shown, last, before = time.monotonic(), 0, begun
        while (given := self.grants()) < grants or not self.counts["API server killed"]:
            now = time.monotonic()
            if now >= deadline or self.enough.is_set() or len(self.violations) > ENOUGH_VIOLATIONS:
                break
            for act, every in kinds.items():
                if given >= due[act] or (now >= first and act not in come):
                    act(self.dice.choice(teams))
                    come.add(act)
                    due[act] = given + self.dice.expovariate(1 / every)
            if now - shown >= PROGRESS_SECONDS:
                rate = (given - last) / (now - before)
                say(f"{self.engine}: {given:,} grants ({rate:.0f}/s), {self._told()}")
                shown, last, before = now, given, now
            time.sleep(0.1)

    def _told(self) -> str:
        with self._lock:
            revisions = sum(judge.revisions for judge in self.judges.values())
        killed = f"{self.counts['holders killed']} holders and {self.counts['API server killed']} API servers killed"
        return f"{revisions:,} revisions judged, {killed}, {len(self.violations)} violations"

    def _calm(self, teams: Sequence[Team]) -> list[str]:
        """End the faults; who was not served within CALM_SECONDS from then on."""
        for team in teams:
            team.network_pipe.send("calm")
        with self._failures_told():
            self._insist_on(self._judged_all)  # the API server is there
        since = time.monotonic()
        waiting = {place.holder.name for team in teams for place in team.places}
        while waiting and time.monotonic() < since + CALM_SECONDS:
            time.sleep(0.5)
            for team in teams:
                served = [b for b in beliefs(team.diary, time.monotonic()) if b.begin > since]
                waiting -= {belief.holder for belief in served}
        say(f"{self.engine}: faults ended; {len(waiting)} not served {time.monotonic() - since:.1f} s later")
        if waiting:
            with self._failures_told():
                self._tell_what_stands({p.semaphore for team in teams for p in team.places if p.holder.name in waiting})
        return sorted(waiting)

    def _tell_what_stands(self, semaphores: set[str]) -> None:
        alive = {pod["metadata"]["uid"] for pod in self.api.list(PODS, self.namespace, metadata_only=True).items}
        for obj in self.api.list(self.kind.resource, self.namespace, label_selector=self.kind.selector).items:
            if self.kind.belongs(obj) in semaphores:
                metadata = obj["metadata"]
                orphaned = any(owner["uid"] not in alive for owner in metadata.get("ownerReferences") or ())
                say(f"  stands: {metadata['name']}{', its Pod is gone' if orphaned else ''}: {metadata['annotations']}")

    def _end(self, teams: Sequence[Team]) -> None:
        for team in teams:
            assert team.pipe is not None
            team.pipe.send("stop")
        for team in teams:
            team.process.join(30)
            if team.process.is_alive():
                team.process.kill()
                team.process.join()
            self.believed += beliefs(team.diary, time.monotonic())
            team.network_pipe.send("stop")
            self.counts.update(team.network_pipe.recv())
            team.network.join(10)

    def _judge_the_rest(self, judging: threading.Thread) -> None:
        """Wait until the judge has come to the last revision; then remove everything."""
        deadline = time.monotonic() + AWAY_SECONDS
        while not (done := self._insist_on(self._judged_all)) and judging.is_alive() and time.monotonic() < deadline:
            time.sleep(0.2)
        if not done:
            self.violations.append(f"the judge did not come to the last revision within {AWAY_SECONDS:g} s")
        self._stop.set()
        judging.join(30)
        for name in self.permits:
            self._insist_on(remove_semaphore, self.api, self.namespace, name, self.engine)
        self._insist_on(self.api.delete, NAMESPACES, self.namespace)
        self.api.close()
        self.watcher.close()

    def _judged_all(self) -> bool:
        listing = self.api.list(self.kind.resource, self.namespace, label_selector=self.kind.selector)
        return self.chronicle.is_at(listing.items)


def soak(
    cluster: Cluster, args: argparse.Namespace, seed: int, ended: threading.Event, bug: str = ""
) -> list[dict[str, Any]]:
    """One engine after the other; what was found, and what is wrong with it on standard output."""
    directory, done = Path(tempfile.mkdtemp(prefix="muster-soak-")), []
    for engine in ENGINES if args.engine == "both" else (args.engine,):
        if ended.is_set():
            break
        say(f"{engine}: {args.grants:,} grants or {args.minutes:g} minutes; seed {seed}; diaries in {directory}")
        one = Soak(cluster, engine, directory, seed, bug)
        one.enough = ended
        done.append(found := one.run(args.grants, args.minutes))
        wrong = soak_report.wrong(found)
        say(f"{engine}: {found['grants']:,} grants in {found['seconds']:.0f} s; {len(wrong)} violations")
        for violation in [] if bug else wrong[:ENOUGH_VIOLATIONS]:
            print(f"VIOLATION {engine}: {violation}", flush=True)
    if not args.keep:
        shutil.rmtree(directory, ignore_errors=True)
    return done


def plant(cluster: Cluster, args: argparse.Namespace, seed: int, ended: threading.Event) -> int:
    """Soak with each of the bugs; how often nobody saw too many holders (S1) or an old fence (S2)."""
    missed = 0
    for bug in args.plant:
        for found in soak(cluster, args, seed, ended, bug):
            wrong = [violation for violation in found["violations"] if "S1" in violation or "S2" in violation]
            print(f"planted {bug}, {found['engine']}: {wrong[0] if wrong else 'MISSED'}", flush=True)
            missed += not wrong
    return missed


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    bugs = "\n".join(f"  {name:<20} {what}" for name, what in BUGS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, epilog=f"bugs to plant:\n{bugs}", formatter_class=form
    )
    parser.add_argument("--grants", type=int, default=100_000, help="grants of each engine (default: 100,000)")
    parser.add_argument("--minutes", type=float, default=60, help="at most so long for each engine (default: 60)")
    parser.add_argument("--engine", choices=(*ENGINES, "both"), default="both", help="(default: both)")
    parser.add_argument("--name", default="soak", help="the control-plane cluster to soak (default: soak)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster and the holders' diaries")
    parser.add_argument("--append", action="store_true", help="add to the report that is there, do not begin a new one")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (build/soak or docs/proof)")
    parser.add_argument("--seed", type=int, help="of the faults' times (default: another each time; it is printed)")
    parser.add_argument(
        "--plant",
        choices=BUGS,
        action="append",
        metavar="BUG",
        help="soak with this bug instead; repeatable; no report",
    )
    args = parser.parse_args(argv)
    out: Path = args.out or (OUT if args.grants >= 100_000 else CHECKOUT / "build" / "soak")
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    allow_many_files()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    run: dict[str, Any] = {"machine": facts(), "seed": seed}
    cluster = Cluster(args.name)
    run["kubernetes"] = cluster.version()
    try:
        if args.plant:
            return 1 if plant(cluster, args, seed, ended) or ended.is_set() else 0
        run["engines"] = soak(cluster, args, seed, ended)
    finally:
        if not args.keep:
            cluster.down()
    say(f"written: {soak_report.write(out, run, append=args.append)}")
    return 1 if any(map(soak_report.failed, run["engines"])) or not run["engines"] else 0


if __name__ == "__main__":
    sys.exit(main())

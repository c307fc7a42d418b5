# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long evidence that the semaphore is safe: very many grants while everything around it fails.

    python -m bench.soak                             both engines, 100,000 grants each or 60 minutes; writes docs/proof
    python -m bench.soak --grants 1500 --minutes 2   the same faults and checks, short; writes build/soak

Holders are real processes which attend small semaphores through a proxy of their own, take turn after turn, and write
down what they believe, at once, in a file that outlives them. Meanwhile
- the proxies answer with 409 in bursts, 429, 500, 500 after the write was applied; reset connections before and after
  the request was carried out, and in the middle of an answer; stall, delay, cut every connection, and go silent;
- holder processes are killed (SIGKILL): their Pods are deleted, and made again under the same names;
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
import http.client
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    NAMESPACES,
    PODS,
    ApiError,
    Conflict,
    NotFound,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.tls import ssl_context
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from bench.contend import GIL_SWITCH, Holder, allow_many_files, percentiles
from bench.contenders import Requests, Sidecar, Sidecars
from bench.holders import api_of, make_namespace, make_pod, make_semaphore, remove_semaphore
from bench.judges import Chronicle, Judge, judge_of
from bench.machine import CHECKOUT, Cluster, facts, say, sentence
from bench.semaphore import ENGINES
from cluster.kernel import die_with_parent
from tests.support import fault_proxy
from tests.support.fault_proxy import FaultProxy

OUT = CHECKOUT / "docs" / "proof"
PERMITS = (1, 1, 1, 1, 1, 2, 2, 3)  # of the semaphores; each is attended by HOLDERS of every process
PROCESSES, HOLDERS = 4, 1
PROGRESS_SECONDS = 10.0
CALM_SECONDS = 60.0  # after the faults, everybody must be served again within this time
# mean seconds between two events of a kind; the times between are exponential, as of independent causes
FAULT_EVERY, CUT_EVERY, SILENCE_EVERY = 0.6, 20.0, 60.0
KILL_EVERY, SERVER_KILL_EVERY = 12.0, 90.0


# ---------------------------------------------------------------------------------------------- the bad network


class KeptProxy(FaultProxy):
    """A FaultProxy that keeps its connections to the API server, since a new one for each request costs most."""

    def up(self) -> None:
        super().up()
        assert self._server is not None
        self._server.RequestHandlerClass = _KeptHandler


class _KeptHandler(fault_proxy._Handler):
    _kept: _Kept | None = None

    def _connect(self) -> http.client.HTTPConnection:
        if self._kept is None:
            credentials = self.server.proxy._upstream
            parts = urlsplit(credentials.server)
            self._kept = _Kept(parts.hostname or "", parts.port, context=ssl_context(credentials.tls()))
        return self._kept


class _Kept(http.client.HTTPSConnection):
    """Stays open after an answer that was read to its end."""

    answer: http.client.HTTPResponse | None = None

    def getresponse(self) -> http.client.HTTPResponse:
        self.answer = super().getresponse()
        return self.answer

    def close(self) -> None:
        if self.answer is None or not self.answer.isclosed() or self.answer.will_close:
            super().close()


def some_fault(dice: random.Random) -> tuple[fault_proxy.Fault, str, int]:
    """A fault, the method that it meets, and how many times it does."""
    write = dice.choice(("PUT", "POST", "DELETE"))
    faults: list[tuple[fault_proxy.Fault, str, int]] = [
        (fault_proxy.Answer(409, "Conflict"), "PUT", dice.randint(1, 12)),
        (fault_proxy.Answer(429, "TooManyRequests", 1), "", 1),
        (fault_proxy.Answer(500), "", dice.randint(1, 3)),
        (fault_proxy.AppliedButFailed(), write, 1),
        (fault_proxy.DropAnswer(), write, dice.randint(1, 2)),
        (fault_proxy.DropRequest(), write, 1),
        (fault_proxy.CutAnswer(dice.randint(0, 400)), "", 1),
        (fault_proxy.Stall(0.5), write, 1),
        (fault_proxy.Delay(dice.uniform(0.01, 0.3)), write, 1),
    ]
    return dice.choices(faults, weights=[3, 1, 2, 3, 4, 2, 2, 0.3, 2])[0]


def _network(pipe: Connection, kubeconfig: str, seed: int) -> None:
    """One process's network: a proxy that fails at random until it is told `calm`, and ends with `stop`."""
    die_with_parent()
    allow_many_files()
    dice = random.Random(seed)
    counts: Counter[str] = Counter()
    with KeptProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        pipe.send(proxy.url)
        kinds = {"fault": FAULT_EVERY, "cut": CUT_EVERY, "silence": SILENCE_EVERY}
        due = {kind: time.monotonic() + dice.expovariate(1 / every) for kind, every in kinds.items()}
        calm = False
        while True:
            if pipe.poll(0.02):
                if pipe.recv() == "stop":
                    break
                calm = True
                proxy.clear()
                proxy.thaw()
            for kind, every in kinds.items():
                if not calm and time.monotonic() >= due[kind]:
                    due[kind] = time.monotonic() + dice.expovariate(1 / every)
                    _break(proxy, kind, dice, counts)
            with proxy._lock:
                counts.update(_name_of(seen.fault) for seen in proxy.seen)
                proxy.seen.clear()
        pipe.send(counts)


def _break(proxy: FaultProxy, kind: str, dice: random.Random, counts: Counter[str]) -> None:
    if kind == "fault":
        if proxy.pending < 20:  # what finds no request to meet does not pile up
            fault, method, times = some_fault(dice)
            proxy.plan(fault, method=method, times=times)
        return
    counts["every connection cut" if kind == "cut" else "silence"] += 1
    if kind == "cut":
        proxy.cut()
    else:
        proxy.freeze()
        time.sleep(dice.uniform(0.2, 2.0))
        proxy.thaw()


def _name_of(fault: fault_proxy.Fault | None) -> str:
    if isinstance(fault, fault_proxy.Answer):
        return f"{fault.status} instead of carrying out"
    names = {
        fault_proxy.AppliedButFailed: "500 after it was applied",
        fault_proxy.DropAnswer: "answer lost",
        fault_proxy.DropRequest: "request lost",
        fault_proxy.CutAnswer: "answer cut short",
        fault_proxy.Stall: "stalled, then reset",
        fault_proxy.Delay: "delayed",
    }
    return names[type(fault)] if fault else "requests that passed"


# ---------------------------------------------------------------------------------------------- the holders


@dataclass(frozen=True)
class Place:
    """Who attends what."""

    holder: Holder
    semaphore: str


def _attend(
    pipe: Connection, kubeconfig: Mapping[str, Any], namespace: str, engine: str, places: Sequence[Place], diary: str
) -> None:
    """A process of holders: each takes turn after turn, and writes down `time G|R semaphore holder uid fence`."""
    die_with_parent()
    allow_many_files()
    sys.setswitchinterval(GIL_SWITCH)
    stopped = threading.Event()
    file = os.open(diary, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(word: str, place: Place, fence: int) -> None:
        holder = place.holder
        line = f"{time.monotonic():.6f} {word} {place.semaphore} {holder.name} {holder.uid} {fence}\n"
        os.write(file, line.encode())  # one write of one line: whole, even if we are killed

    def take_turns(place: Place) -> None:
        system, fence = Sidecars(kubeconfig, namespace, place.semaphore, engine), 0
        while not stopped.is_set():
            sidecar = Sidecar(system, place.holder, Requests(), after=fence)
            try:
                while not stopped.is_set() and (got := sidecar.acquire(time.monotonic() + 3600)) is not None:
                    fence = got
                    note("G", place, fence)
                    time.sleep(random.uniform(0, 0.004))
                    note("R", place, fence)
                    _insist(sidecar.release)
            except (MusterError, ApiError) as error:  # as a Pod's restart policy would: begin anew
                print(f"{place.holder.name} begins anew: {error}", file=sys.stderr, flush=True)
                time.sleep(1.0)
            sidecar.attendant.stop()

    for place in places:
        threading.Thread(target=take_turns, args=(place,), daemon=True).start()
    with suppress(EOFError):
        pipe.recv()
    stopped.set()
    time.sleep(0.5)
    os._exit(0)  # what still waits for a grant is not waited for


def _insist(release: Callable[[], None]) -> None:
    """Release until it is done; who can't reach the API server still has to."""
    while True:
        try:
            return release()
        except (MusterError, ApiError):
            time.sleep(random.uniform(0.05, 0.3))


@dataclass
class Team:
    """One process of holders with its network. `ends` are the moments when a process of it was dead."""

    number: int
    network: Any
    url: str
    network_pipe: Connection
    process: Any = None
    pipe: Connection | None = None
    places: list[Place] = field(default_factory=list)
    diary: Path = Path()
    lives: int = 0


@dataclass(frozen=True)
class Belief:
    """A holder believed to hold from `begin` to `end` (monotonic seconds)."""

    semaphore: str
    holder: str
    fence: int
    begin: float
    end: float


def beliefs(diary: Path, died: float) -> list[Belief]:
    """What the holders of one process believed; a turn that it did not end lasted until it `died`."""
    done: list[Belief] = []
    held: dict[tuple[str, str], tuple[float, int]] = {}
    for line in diary.read_text().splitlines() if diary.exists() else []:
        at, word, semaphore, holder, _uid, fence = line.split()
        if word == "G":
            held[semaphore, holder] = (float(at), int(fence))
        else:
            begin, given = held.pop((semaphore, holder))
            done.append(Belief(semaphore, holder, given, begin, float(at)))
    return done + [Belief(semaphore, holder, fence, at, died) for (semaphore, holder), (at, fence) in held.items()]


def disbeliefs(
    believed: Sequence[Belief], permits: Mapping[str, int], judges: Mapping[str, Judge]
) -> tuple[list[str], int]:
    """What is wrong with what the holders believed, and the largest number of over-grants at one moment."""
    wrong, worst = [], 0
    moments = [(b.begin, 1, b) for b in believed] + [(b.end, 0, b) for b in believed]
    now: Counter[str] = Counter()
    for at, begins, belief in sorted(moments, key=lambda moment: moment[:2]):
        now[belief.semaphore] += 1 if begins else -1
        over = now[belief.semaphore] - permits[belief.semaphore]
        if begins and over > 0:
            worst = max(worst, over)
            wrong.append(f"S1: at {at:.6f} {belief.semaphore} had {over} holders too many: {belief}")
    fences: dict[tuple[str, int], str] = {}
    latest: dict[tuple[str, str], int] = {}
    for belief in sorted(believed, key=lambda b: b.begin):
        owner = fences.setdefault((belief.semaphore, belief.fence), belief.holder)
        seen = judges[belief.semaphore].grants.get(belief.fence)
        if owner != belief.holder:
            wrong.append(f"S2: fence {belief.fence} of {belief.semaphore} was {owner}'s and {belief.holder}'s")
        if seen is None or seen[0] != belief.holder:
            wrong.append(f"a grant that never was: {belief}, seen was {seen}")
        whose = belief.semaphore if permits[belief.semaphore] == 1 else belief.holder
        if latest.get((belief.semaphore, whose), 0) >= belief.fence:
            wrong.append(f"S2: {belief} after fence {latest[belief.semaphore, whose]}")
        latest[belief.semaphore, whose] = belief.fence
    return wrong, worst


# ---------------------------------------------------------------------------------------------- the soak


class Soak:
    """One engine's soak on a running cluster."""

    def __init__(self, cluster: Cluster, engine: str, directory: Path, seed: int) -> None:
        self.cluster, self.engine, self.directory = cluster, engine, directory
        self.namespace = f"soak-{engine}"
        self.dice = random.Random(seed)
        self.kind = judge_of(engine)
        self.api = api_of(cluster.kubeconfig)
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
        watcher = api_of(self.cluster.kubeconfig)
        self.chronicle = Chronicle(watcher, self.kind.resource, self.namespace, self.kind.selector)
        judging = threading.Thread(target=self._judge, daemon=True)
        judging.start()
        teams = [self._team(number) for number in range(PROCESSES)]
        for team in teams:
            self._bring_up(team)
        self._storm(teams, grants, begun + minutes * 60, begun)
        stormed = time.monotonic() - begun
        unserved = self._calm(teams)
        self._end(teams, judging)
        wrong, worst = disbeliefs(self.believed, self.permits, self.judges)
        served = sum(len(judge.grants) for judge in self.judges.values())
        return {
            "engine": self.engine,
            "grants": served,
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
        network = self._context.Process(target=_network, args=(theirs, self.cluster.kubeconfig, seed), daemon=True)
        network.start()
        return Team(number, network, ours.recv(), ours)

    def _bring_up(self, team: Team) -> None:
        """A new process, with new Pods under the old names."""
        names = [(f"holder-{team.number}-{n}-{k}", s) for n, s in enumerate(self.permits) for k in range(HOLDERS)]
        team.places = [Place(self._insist_on(make_pod, self.api, self.namespace, name), s) for name, s in names]
        team.lives += 1
        team.diary = self.directory / f"{self.engine}-{team.number}-{team.lives}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "faulty", "cluster": {"server": team.url}}],
            "users": [{"name": "faulty", "user": {}}],
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty", "user": "faulty"}}],
            "current-context": "faulty",
        }
        team.pipe, theirs = self._context.Pipe()
        parts = (theirs, config, self.namespace, self.engine, team.places, str(team.diary))
        team.process = self._context.Process(target=_attend, args=parts, daemon=True)
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

    def _remove_pod(self, name: str, uid: str) -> None:
        try:
            self.api.delete(PODS, name, self.namespace, uid=uid)
        except (NotFound, Conflict):
            return

    def _insist_on(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The API server may be away: it comes back."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return call(*arguments)
            except ApiError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _storm(self, teams: Sequence[Team], grants: int, deadline: float, begun: float) -> None:
        kinds = {"kill": KILL_EVERY, "server": min(SERVER_KILL_EVERY, (deadline - begun) / 3)}
        due = {kind: time.monotonic() + self.dice.expovariate(1 / every) for kind, every in kinds.items()}
        due["server"] = begun + kinds["server"]  # the first one surely comes, however short the soak
        shown, last, before = time.monotonic(), 0, begun
        while (given := self.grants()) < grants or not self.counts["API server killed"]:
            now = time.monotonic()
            if now >= deadline or len(self.violations) > 20:
                break
            if now >= due["kill"]:
                team = self.dice.choice(teams)
                self._kill(team)
                self._bring_up(team)
                due["kill"] = time.monotonic() + self.dice.expovariate(1 / KILL_EVERY)
            if now >= due["server"]:
                self.cluster.kill("kube-apiserver")
                self.counts["API server killed"] += 1
                due["server"] = time.monotonic() + self.dice.uniform(0.7, 1.3) * kinds["server"]
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
        since = time.monotonic()
        for team in teams:
            team.network_pipe.send("calm")
        waiting = {place.holder.name for team in teams for place in team.places}
        while waiting and time.monotonic() < since + CALM_SECONDS:
            time.sleep(0.5)
            for team in teams:
                served = [b for b in beliefs(team.diary, time.monotonic()) if b.begin > since]
                waiting -= {belief.holder for belief in served}
        say(f"{self.engine}: faults ended; {len(waiting)} not served {time.monotonic() - since:.1f} s later")
        return sorted(waiting)

    def _end(self, teams: Sequence[Team], judging: threading.Thread) -> None:
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
        deadline = time.monotonic() + 60
        while not (done := self._judged_all()) and judging.is_alive() and time.monotonic() < deadline:
            time.sleep(0.2)
        if not done:
            self.violations.append("the judge did not come to the last revision within 60 s")
        self._stop.set()
        judging.join(30)
        for name in self.permits:
            remove_semaphore(self.api, self.namespace, name, self.engine)
        self.api.delete(NAMESPACES, self.namespace)
        self.api.close()

    def _judged_all(self) -> bool:
        listing = self.api.list(self.kind.resource, self.namespace, label_selector=self.kind.selector)
        return self.chronicle.is_at(listing.items)


# ---------------------------------------------------------------------------------------------- the report


def failed(found: Mapping[str, Any]) -> bool:
    """Whether anything that must not be was seen, or nothing was proven."""
    return bool(
        found["violations"] or found["unserved_after_the_faults"] or found["over_grants"] or not found["grants"]
    )


def page(report: Mapping[str, Any]) -> str:
    """The report for people."""
    machine = report["machine"]
    head = ["engine", "grants", "over-grants", "fences twice or not growing", "other violations", "not served after it"]
    head += ["revisions judged (read back)", "minutes"]
    lines = [
        "# Soak of the semaphore: every grant under faults",
        "",
        "Holders in real processes take turn after turn on small semaphores, each process through a network of its own",
        "that fails; processes are killed and come back as new Pods of the same names; the API server is killed.",
        "Every revision is judged by an oracle that shares no code with the product; revisions which nobody could see",
        "while the API server was away are read back from its history. What the holders themselves believed is",
        "compared on one clock. How, in full: `python -m bench.soak --help`.",
        "",
        f"Measured at {machine['at']} on {sentence(machine)}; kube-apiserver {report['kubernetes']}; "
        f"commit {machine['commit']}.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
    ]
    for found in report["engines"]:
        fences = sum("S2" in violation for violation in found["violations"])
        over = sum("S1" in violation for violation in found["violations"])
        cells = (
            found["engine"],
            f"{found['grants']:,}",
            max(over, found["over_grants"]),
            fences,
            len(found["violations"]) - fences - over,
            len(found["unserved_after_the_faults"]),
            f"{found['revisions_judged']:,} ({found['revisions_read_back']:,})",
            f"{found['seconds'] / 60:.0f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    for found in report["engines"]:
        lines += ["", f"## Faults that the engine {found['engine']} met", "", "| what | how often |", "|---|---|"]
        lines += [f"| {what} | {count:,} |" for what, count in sorted(found["faults"].items(), key=lambda i: -i[1])]
        permits = ", ".join(map(str, found["permits"].values()))
        lines += [
            "",
            f"{found['holders_at_a_time']} holders at a time, {len(found['permits'])} semaphores of {permits} permits.",
        ]
        lines += [f"- VIOLATION {violation}" for violation in found["violations"][:50]]
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__, formatter_class=form)
    parser.add_argument("--grants", type=int, default=100_000, help="grants of each engine (default: 100,000)")
    parser.add_argument("--minutes", type=float, default=60, help="at most so long for each engine (default: 60)")
    parser.add_argument("--engine", choices=(*ENGINES, "both"), default="both", help="(default: both)")
    parser.add_argument("--name", default="soak", help="the control-plane cluster to soak (default: soak)")
    parser.add_argument("--keep", action="store_true", help="leave the cluster and the holders' diaries")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (build/soak or docs/proof)")
    parser.add_argument("--seed", type=int, help="of the faults' times (default: another each time; it is printed)")
    args = parser.parse_args(argv)
    engines = ENGINES if args.engine == "both" else (args.engine,)
    whole = args.engine == "both" and args.grants >= 100_000
    out: Path = args.out or (OUT if whole else CHECKOUT / "build" / "soak")
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    allow_many_files()
    report: dict[str, Any] = {"machine": facts(), "seed": seed, "engines": []}
    directory = Path(tempfile.mkdtemp(prefix="muster-soak-"))
    cluster = Cluster(args.name)
    report["kubernetes"] = cluster.version()
    try:
        for engine in engines:
            say(f"{engine}: {args.grants:,} grants or {args.minutes:g} minutes; seed {seed}; diaries in {directory}")
            report["engines"].append(found := Soak(cluster, engine, directory, seed).run(args.grants, args.minutes))
            given, wrong = found["grants"], len(found["violations"])
            say(f"{engine}: {given:,} grants in {found['seconds']:.0f} s; {wrong} violations")
            for violation in found["violations"][:20]:
                print(f"VIOLATION {engine}: {violation}")
            for holder in found["unserved_after_the_faults"]:
                print(f"VIOLATION {engine}: {holder} was not served within {CALM_SECONDS:g} s after the faults")
    finally:
        if not args.keep:
            cluster.down()
            shutil.rmtree(directory, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    (out / "soak-semaphore.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "soak-semaphore.md").write_text(page(report))
    say(f"written: {out / 'soak-semaphore.md'}")
    return 1 if any(map(failed, report["engines"])) else 0


if __name__ == "__main__":
    sys.exit(main())

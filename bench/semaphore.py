# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The semaphore's figures, in one run on a real kube-apiserver, side by side with its peers.

    python -m bench.semaphore                the whole, about 20 minutes; writes docs/bench/semaphore*.{json,md,png}
    python -m bench.semaphore --resume       goes on where an aborted run ended, or with more --sizes
    python -m bench.semaphore --quick        a few minutes, the same code, small numbers; writes build/bench/

Each contest is in the JSON as soon as it is over, and all its turns are in build/bench/raw, one line each.

What is measured and how is told on the page itself (docs/bench/semaphore.md).
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Removed
from bench import holders as living
from bench.contend import Contest, Holder, Outcome, Turn, allow_many_files, percentiles, run, summary
from bench.machine import CHECKOUT, Cluster, facts, say, wait_until_quiet
from bench.peers import PEERS, Absent, Peer, Server

ENGINES = ("annotations", "tickets")
NAMESPACE, SMALL_NAMESPACE = "bench", "bench-small"
OUT = CHECKOUT / "docs" / "bench"
PACKAGES = ("urllib3", "kazoo", "redis", "ansible-core", "kubernetes")


@dataclass(frozen=True)
class Scale:
    """How much is measured; times in seconds."""

    sizes: tuple[int, ...] = (8, 32, 128, 512)
    own_watch_sizes: tuple[int, ...] = (8, 32, 128)
    seconds: float = 10.0
    warm_up: float = 3.0
    repeats: int = 3  # of the contests that the design's figures are about: 32 contenders
    cold: int = 200
    rounds: int = 100
    idle: float = 70.0  # a watch is opened anew, and a sidecar looks unasked, once in it
    lag_rounds: int = 200


QUICK = Scale((8, 32), (8,), 4.0, 2.0, 1, 20, 10, 20.0, 50)


class Store:
    """The figures as they grow: what was measured is on disk at once, and is not measured again."""

    def __init__(self, path: Path, found: dict[str, Any], tell: Callable[[dict[str, Any]], str] | None = None) -> None:
        self.path, self.found, self._tell = path, found, tell or told
        self.begun = time.monotonic() - 60 * found.get("minutes", 0)

    def measured(self, *keys: str, by: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figures under these keys, measured now unless they are there."""
        place = self.found
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if keys[-1] not in place:
            place[keys[-1]] = by()
            say(f"{', '.join(keys)}: {self._tell(place[keys[-1]])}")
            self.save()
        figures: dict[str, Any] = place[keys[-1]]
        return figures

    def save(self) -> None:
        self.found["minutes"] = round((time.monotonic() - self.begun) / 60, 1)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.found, indent=1) + "\n")
        new.replace(self.path)


class Bench:
    """One run of everything on one cluster."""

    def __init__(self, cluster: Cluster, scale: Scale, raw: Path) -> None:
        self.cluster, self.scale, self.raw = cluster, scale, raw
        self.api = living.api_of(cluster.kubeconfig)
        for namespace in (NAMESPACE, SMALL_NAMESPACE):
            living.make_namespace(self.api, namespace)
        self.pods: list[Holder] = []
        self._made = 0

    def servers(self) -> dict[str, list[int]]:
        return {name: [pid] for name, pid in self.cluster.pids().items()}

    def semaphore(self, engine: str, permits: int) -> str:
        """A new one, empty, with so many permits; its name."""
        self._made += 1
        name = f"{engine}-{self._made}"
        living.make_semaphore(self.api, NAMESPACE, name, engine, permits)
        return name

    def forget(self, engine: str, name: str) -> None:
        living.remove_semaphore(self.api, NAMESPACE, name, engine)

    def contest(self, system: str, on: str, size: int, **more: Any) -> dict[str, Any]:
        """One contest of `size` contenders for one permit of a new semaphore of the engine `on`."""
        name = self.semaphore(on, 1)
        options = {"kubeconfig": self.cluster.kubeconfig, "namespace": NAMESPACE, "name": name, **more}
        in_line = size / (16 if on == "annotations" else 64)  # seconds until everybody is
        contest = Contest(system, options, self.pods[:size], self.scale.seconds, self.scale.warm_up + in_line)
        found = summary(contest, self.run(f"{name}-{system}-{size}", contest, self.servers()))
        self.forget(on, name)
        return found

    def run(self, name: str, contest: Contest, servers: dict[str, list[int]]) -> Outcome:
        """Run a contest and keep all its turns."""
        outcome = run(contest, servers)
        self.raw.mkdir(parents=True, exist_ok=True)
        with gzip.open(self.raw / f"{name.replace(':', '.')}.csv.gz", "wt", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Turn._fields)
            writer.writerows(outcome.turns)
        return outcome

    # ------------------------------------------------------------------------------------------ the parts

    def ceiling(self, clients: int) -> dict[str, Any]:
        """Pairs of create and delete by so many clients at once, nobody waiting for anybody."""
        options = {"kubeconfig": self.cluster.kubeconfig, "namespace": NAMESPACE, "name": f"pair-{clients}"}
        contest = Contest(
            "bench.contenders:Pairs", options, self.pods[:clients], self.scale.seconds, processes=min(4, clients)
        )
        outcome = self.run(f"pairs-{clients}", contest, self.servers())
        found = summary(contest, outcome, permits=clients)
        found["create_ms"] = percentiles([turn.granted - turn.wanted for turn in outcome.turns], 1000)
        found["delete_ms"] = percentiles([turn.released - turn.let_go for turn in outcome.turns], 1000)
        return {
            key: found[key] for key in ("contenders", "cycles_per_s", "create_ms", "delete_ms", "cores", "failures")
        }

    def watch_lag(self) -> dict[str, Any]:
        """How long after the answer to a delete the same process sees it in a watch; one client, nothing else."""
        removals: queue.SimpleQueue[float] = queue.SimpleQueue()
        ready, stop, watcher = threading.Event(), threading.Event(), living.api_of(self.cluster.kubeconfig)

        def watch() -> None:
            for change in watcher.follow(LEASES, NAMESPACE, stop=stop):
                ready.set()
                if isinstance(change, Removed):
                    removals.put(time.monotonic())

        threading.Thread(target=watch, daemon=True).start()
        ready.wait(30)
        lags: list[float] = []
        for _ in range(self.scale.lag_rounds):
            metadata = {"name": "lag", "namespace": NAMESPACE}
            self.api.create(LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
            self.api.delete(LEASES, "lag", NAMESPACE)
            answered = time.monotonic()
            lags.append(removals.get(timeout=30) - answered)
        stop.set()
        watcher.close()
        return {"rounds": len(lags), "after_delete_answered_ms": percentiles(lags, 1000)}

    def naive(self, size: int, tuned: bool) -> dict[str, Any]:
        hosts = [holder.name for holder in self.pods[:size]]
        jitter = 0.005 * size if tuned else 0.05
        figures = self.contest(
            "bench.contenders:Naive", "annotations", size, hosts=hosts, jitter=jitter, look_again=tuned
        )
        return {"jitter": jitter, **figures}

    def peer(self, peer: Peer, server: Server, size: int) -> dict[str, Any]:
        """One contest on a raw server of another system."""
        warm_up = self.scale.warm_up + size / 64
        contest = Contest(peer.system, server.options, self.pods[:size], self.scale.seconds, warm_up)
        return summary(contest, self.run(f"{peer.name}-{size}", contest, {"server": [server.pid]}))


def told(found: dict[str, Any]) -> str:
    """Figures in one line; of a contest, those that matter."""
    if "handoff_ms" not in found:
        return json.dumps(found)
    handoff = found["handoff_ms"] or {"p50": float("nan"), "p99": float("nan")}
    text = f"{found['cycles_per_s']:.1f} cycles/s, hand-off {handoff['p50']:.1f} / {handoff['p99']:.1f} ms"
    text += f", {found['writes_per_cycle']} writes a cycle"
    text += f", worst wait {found['worst_wait_s']:.1f} s, Jain {found['jain']}"
    wrong = {key: found.get(key) for key in ("overlaps", "fences_not_growing", "failures") if found.get(key)}
    return text + (f"  WRONG: {wrong}" if wrong else "")


SYSTEMS: dict[str, Callable[[Bench, int], dict[str, Any]]] = {
    "naive": lambda bench, size: bench.naive(size, tuned=False),
    "naive-tuned": lambda bench, size: bench.naive(size, tuned=True),
    "annotations": lambda bench, size: bench.contest("bench.contenders:Annotations", "annotations", size),
    "tickets": lambda bench, size: bench.contest("bench.on_tickets:Tickets", "tickets", size),
}


def measure(cluster: Cluster, scale: Scale, parts: set[str], store: Store, raw: Path) -> None:
    """Measure the named parts (all when empty), as far as they are not in the store."""
    bench = Bench(cluster, scale, raw)
    say(f"Pods for {max(*scale.sizes, scale.cold)} holders")
    bench.pods = living.make_pods(bench.api, NAMESPACE, max(*scale.sizes, scale.cold))
    for part, figures in PARTS.items():
        if not parts or part in parts:
            say(f"== {part}, after {(time.monotonic() - store.begun) / 60:.1f} minutes")
            figures(bench, store)
    bench.api.close()


def sidecar(bench: Bench, store: Store) -> None:
    """What is idle disturbs nobody: both engines, in a namespace without other Pods and in that of the contenders."""
    store.measured("sidecar", by=partial(idle, bench))


def idle(bench: Bench) -> dict[str, dict[str, Any]]:
    """By engine and by the number of other Pods in the namespace."""
    few = living.make_pods(bench.api, SMALL_NAMESPACE, 3)
    idlers: dict[tuple[str, str], living.Idlers] = {}
    try:
        for engine in ENGINES:
            for namespace, pods in ((SMALL_NAMESPACE, few), (NAMESPACE, bench.pods)):
                living.make_semaphore(bench.api, namespace, f"idle-{engine}", engine, 1)
                flags = ["--engine", engine, "--configmap", f"idle-{engine}"]
                one = living.Idlers(bench.cluster.kubeconfig, namespace, flags, pods)
                idlers[engine, str(len(pods) - len(few))] = one
                one.start()
        time.sleep(living.SETTLE_SECONDS)
        for one in idlers.values():
            one.begin()
        time.sleep(bench.scale.idle)
        found: dict[str, dict[str, Any]] = {engine: {} for engine in ENGINES}
        for (engine, others), one in idlers.items():
            found[engine][others] = one.figures()
        return found
    finally:
        for one in idlers.values():
            one.end()
        for engine in ENGINES:
            for namespace in (SMALL_NAMESPACE, NAMESPACE):
                living.remove_semaphore(bench.api, namespace, f"idle-{engine}", engine)


def ceiling(bench: Bench, store: Store) -> None:
    """What the API server can do at all."""
    for clients in (1, 16):
        store.measured("ceiling", str(clients), by=partial(bench.ceiling, clients))
    store.measured("ceiling", "watch_lag", by=bench.watch_lag)


def contention(bench: Bench, store: Store) -> None:
    """Every system at every size; the size of the design's figures several times in turn, the median run is kept."""
    for size in bench.scale.sizes:
        for number in range(bench.scale.repeats if size == 32 else 1):
            for system, contest in SYSTEMS.items():
                if number == 0 or system != "naive-tuned":  # no figure of the design is about that one
                    run_of = partial(contest, bench, size)
                    store.measured("contention_runs", system, str(size), str(number), by=run_of)
        for system in SYSTEMS:
            runs = list(store.found["contention_runs"][system][str(size)].values())
            ordered = sorted(runs, key=lambda figures: figures["cycles_per_s"])
            rates = [figures["cycles_per_s"] for figures in runs]
            median = {**ordered[len(ordered) // 2], "runs": rates}
            store.found.setdefault("contention", {}).setdefault(system, {})[str(size)] = median


def own_watches(bench: Bench, store: Store) -> None:
    """The product's whole loop in every contender, with watches of its own."""
    for engine in ENGINES:
        for size in bench.scale.own_watch_sizes:
            contest = partial(bench.contest, "bench.contenders:Sidecars", engine, size, engine=engine)
            store.measured("own_watches", engine, str(size), by=contest)


def peers(bench: Bench, store: Store) -> None:
    """Every peer at every size, or why it is absent."""
    for peer in PEERS:
        try:
            with peer.serve() as server:
                store.measured("peers", peer.name, "about", by=partial(dict, how=peer.how, version=server.version))
                for size in bench.scale.sizes:
                    store.measured("peers", peer.name, str(size), by=partial(bench.peer, peer, server, size))
        except Absent as absent:
            store.measured("peers", peer.name, "about", by=partial(dict, how=peer.how, absent=str(absent)))


def cold_start(bench: Bench, store: Store) -> None:
    """All at one moment, and a permit for each."""
    for engine in ENGINES:
        store.measured("cold_start", engine, by=partial(_cold, bench, engine))


def _cold(bench: Bench, engine: str) -> dict[str, Any]:
    name = bench.semaphore(engine, bench.scale.cold)
    found = living.cold_start(bench.cluster.kubeconfig, NAMESPACE, name, engine, bench.pods[: bench.scale.cold])
    bench.forget(engine, name)
    return found


def take_over(bench: Bench, store: Store) -> None:
    """The next one in line, after a death."""
    for engine in ENGINES:
        store.measured("take_over", engine, by=partial(_over, bench, engine))


def _over(bench: Bench, engine: str) -> dict[str, Any]:
    name = bench.semaphore(engine, 1)
    found = living.take_over(bench.cluster.kubeconfig, NAMESPACE, name, engine, bench.scale.rounds)
    bench.forget(engine, name)
    return found


PARTS: dict[str, Callable[[Bench, Store], None]] = {
    "ceiling": ceiling,
    "contention": contention,
    "cold_start": cold_start,
    "take_over": take_over,
    "peers": peers,
    "sidecar": sidecar,
    "own_watches": own_watches,
}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.semaphore", description=__doc__, formatter_class=form)
    parser.add_argument("--name", default="bench", help="the control-plane cluster to measure on (default: bench)")
    parser.add_argument("--quick", action="store_true", help="small numbers, for trying it out; written to build/bench")
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="only this part; repeatable")
    parser.add_argument("--resume", action="store_true", help="measure only what the JSON does not have yet")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (docs/bench or build/bench)")
    parser.add_argument("--sizes", type=_numbers, metavar="N,N,…", help="contenders (default: 8,32,128,512)")
    parser.add_argument("--seconds", type=float, help="how long each contest is measured (default: 10)")
    parser.add_argument("--repeats", type=int, help="how often those of 32 contenders are run (default: 3)")
    parser.add_argument("--wait", type=float, default=0, metavar="MINUTES", help="wait so long for a quiet machine")
    args = parser.parse_args(argv)
    build = CHECKOUT / "build" / "bench"
    out: Path = args.out or (build if args.quick or args.part else OUT)
    out.mkdir(parents=True, exist_ok=True)
    chosen = {"sizes": args.sizes, "seconds": args.seconds, "repeats": args.repeats}
    scale = replace(QUICK if args.quick else Scale(), **{key: value for key, value in chosen.items() if value})
    allow_many_files()
    quiet = wait_until_quiet(minutes=args.wait) if args.wait else None
    cluster = Cluster(args.name)
    found: dict[str, Any] = {"machine": {**facts(PACKAGES), "was_quiet": quiet}, "kubernetes": cluster.version()}
    path = out / "semaphore.json"
    if args.resume and path.exists():
        found = json.loads(path.read_text())
    store = Store(path, {**found, "scale": vars(scale)})
    measure(cluster, scale, set(args.part), store, build / "raw")
    store.found["machine"]["load_1_min_after"] = facts()["load_1_min"]
    store.save()
    say(f"written: {path}, after {store.found['minutes']} minutes")
    from bench import report  # matplotlib takes a second and 100 MB: after the measuring

    report.write(out)
    return 1 if report.faults(store.found) else 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The semaphore's figures, in one run on a real kube-apiserver, side by side with its peers.

    python -m bench.semaphore                the whole, about 25 minutes; writes docs/bench/semaphore.{json,md,*.svg}
    python -m bench.semaphore --quick        a few minutes, the same code, small numbers; writes build/bench/

What is measured and how is told on the page itself (docs/bench/semaphore.md).
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Removed
from bench import holders as living
from bench.contend import Contest, Holder, allow_many_files, percentiles, run, summary
from bench.machine import CHECKOUT, Cluster, facts, say, wait_until_quiet
from bench.peers import PEERS, Absent

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
    repeats: int = 3  # of the contest that the design's figures are about: 32 contenders
    cold: int = 200
    rounds: int = 100
    idle: float = 120.0
    lag_rounds: int = 200


QUICK = Scale((8, 32), (8,), 4.0, 2.0, 1, 20, 10, 20.0, 50)


class Bench:
    """One run of everything on one cluster."""

    def __init__(self, cluster: Cluster, scale: Scale) -> None:
        self.cluster, self.scale = cluster, scale
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
        contest = Contest(system, options, self.pods[:size], self.scale.seconds, self.warm(size))
        found = summary(contest, run(contest, self.servers()))
        self.forget(on, name)
        return found

    def warm(self, size: int) -> float:
        """With many contenders it takes longer until everybody is in line."""
        return self.scale.warm_up + size / 16

    # ------------------------------------------------------------------------------------------ the parts

    def ceiling(self, clients: int) -> dict[str, Any]:
        """Pairs of create and delete by so many clients at once, nobody waiting for anybody."""
        options = {"kubeconfig": self.cluster.kubeconfig, "namespace": NAMESPACE, "name": f"pair-{clients}"}
        contest = Contest(
            "bench.contenders:Pairs", options, self.pods[:clients], self.scale.seconds, processes=min(4, clients)
        )
        outcome = run(contest, self.servers())
        found = summary(contest, outcome, permits=clients)
        found["create_ms"] = percentiles([turn.granted - turn.wanted for turn in outcome.turns], 1000)
        found["delete_ms"] = percentiles([turn.released - turn.let_go for turn in outcome.turns], 1000)
        return {
            key: found[key] for key in ("contenders", "cycles_per_s", "create_ms", "delete_ms", "cores", "failures")
        }

    def watch_lag(self) -> dict[str, Any]:
        """How long after the answer to a delete the same process sees it in a watch; one client, nothing else."""
        removals: queue.SimpleQueue[float] = queue.SimpleQueue()
        stop, watcher = threading.Event(), living.api_of(self.cluster.kubeconfig)

        def watch() -> None:
            for change in watcher.follow(LEASES, NAMESPACE, stop=stop):
                if isinstance(change, Removed):
                    removals.put(time.monotonic())

        threading.Thread(target=watch, daemon=True).start()
        time.sleep(1.0)
        lags: list[float] = []
        for _ in range(self.scale.lag_rounds):
            metadata = {"name": "lag", "namespace": NAMESPACE}
            self.api.create(LEASES, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata})
            self.api.delete(LEASES, "lag", NAMESPACE)
            answered = time.monotonic()
            lags.append(removals.get(timeout=10) - answered)
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

    def peer(self, peer: Any, sizes: Sequence[int]) -> dict[str, Any]:
        """One peer at every size, or why it is absent."""
        try:
            with peer.serve() as server:
                found: dict[str, Any] = {"how": peer.how, "version": server.version, "sizes": {}}
                for size in sizes:
                    contest = Contest(
                        peer.system,
                        server.options,
                        self.pods[:size],
                        self.scale.seconds,
                        self.scale.warm_up + size / 64,
                    )
                    found["sizes"][str(size)] = summary(contest, run(contest, {"server": [server.pid]}))
                    say(f"{peer.name}, {size}: {told(found['sizes'][str(size)])}")
                return found
        except Absent as absent:
            say(f"{peer.name} is absent: {absent}")
            return {"how": peer.how, "absent": str(absent)}


def told(found: dict[str, Any]) -> str:
    """A contest in one line."""
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


def measure(cluster: Cluster, scale: Scale, parts: set[str], save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Measure the named parts (all when empty) and return everything as plain data; `save` gets it after each part."""
    found: dict[str, Any] = {"machine": facts(PACKAGES), "kubernetes": cluster.version(), "scale": vars(scale)}
    bench = Bench(cluster, scale)
    say(f"Pods for {max(*scale.sizes, scale.cold)} holders")
    bench.pods = living.make_pods(bench.api, NAMESPACE, max(*scale.sizes, scale.cold))
    for part, figures in _parts(bench, scale):
        if not parts or part in parts:
            say(f"== {part}")
            found[part] = figures()
            save(found)
    found["machine"]["load_1_min_after"] = facts()["load_1_min"]
    bench.api.close()
    return found


def _parts(bench: Bench, scale: Scale) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "sidecar", lambda: {engine: idle(bench, engine, scale) for engine in ENGINES}
    yield "ceiling", lambda: {"1": bench.ceiling(1), "16": bench.ceiling(16), "watch_lag": bench.watch_lag()}
    yield "contention", lambda: contention(bench, scale)
    yield "own_watches", lambda: own_watches(bench, scale)
    yield "peers", lambda: {peer.name: bench.peer(peer, scale.sizes) for peer in PEERS}
    yield "cold_start", lambda: {engine: cold(bench, engine, scale) for engine in ENGINES}
    yield "take_over", lambda: {engine: over(bench, engine, scale) for engine in ENGINES}


def contention(bench: Bench, scale: Scale) -> dict[str, Any]:
    """Every system at every size; the size of the design's figures several times in turn, the median run is kept."""
    found: dict[str, Any] = {system: {} for system in SYSTEMS}
    for size in scale.sizes:
        runs: dict[str, list[dict[str, Any]]] = {system: [] for system in SYSTEMS}
        for _ in range(scale.repeats if size == 32 else 1):
            for system, contest in SYSTEMS.items():
                figures = contest(bench, size)
                say(f"{system}, {size}: {told(figures)}")
                runs[system].append(figures)
        for system, figures_of in runs.items():
            ordered = sorted(figures_of, key=lambda figures: figures["cycles_per_s"])
            median = ordered[len(ordered) // 2]
            found[system][str(size)] = {**median, "runs": [figures["cycles_per_s"] for figures in figures_of]}
    return found


def own_watches(bench: Bench, scale: Scale) -> dict[str, Any]:
    """The product's whole loop in every contender, with watches of its own."""
    found: dict[str, Any] = {engine: {} for engine in ENGINES}
    for engine in ENGINES:
        for size in scale.own_watch_sizes:
            found[engine][str(size)] = bench.contest("bench.contenders:Sidecars", engine, size, engine=engine)
            say(f"sidecars, {engine}, {size}: {told(found[engine][str(size)])}")
    return found


def cold(bench: Bench, engine: str, scale: Scale) -> dict[str, Any]:
    name = bench.semaphore(engine, scale.cold)
    found = living.cold_start(bench.cluster.kubeconfig, NAMESPACE, name, engine, bench.pods[: scale.cold])
    say(f"{engine}: {found}")
    bench.forget(engine, name)
    return found


def over(bench: Bench, engine: str, scale: Scale) -> dict[str, Any]:
    name = bench.semaphore(engine, 1)
    found = living.take_over(bench.cluster.kubeconfig, NAMESPACE, name, engine, scale.rounds)
    say(f"{engine}: {found}")
    bench.forget(engine, name)
    return found


def idle(bench: Bench, engine: str, scale: Scale) -> dict[str, Any]:
    """In a namespace with few Pods; and for some seconds in the one with all the contenders' Pods."""
    few = living.make_pods(bench.api, SMALL_NAMESPACE, 8)
    found = {}
    for namespace, pods, seconds in ((SMALL_NAMESPACE, few, scale.idle), (NAMESPACE, bench.pods, 10.0)):
        living.make_semaphore(bench.api, namespace, "idle", engine, 1)
        flags = ["--engine", engine, "--configmap", "idle"]
        figures = living.idle_sidecar(bench.cluster.kubeconfig, namespace, flags, pods, seconds)
        say(f"{engine}, {len(pods)} Pods: {figures}")
        living.remove_semaphore(bench.api, namespace, "idle", engine)
        found[str(len(pods))] = figures
    return {
        **found[str(len(few))],
        "pods": len(few),
        "memory_mib_by_pods": {pods: f["memory_mib"] for pods, f in found.items()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.semaphore", description=__doc__, formatter_class=form)
    parser.add_argument("--name", default="bench", help="the control-plane cluster to measure on (default: bench)")
    parser.add_argument("--quick", action="store_true", help="small numbers, for trying it out; written to build/bench")
    parser.add_argument("--part", action="append", default=[], metavar="PART", help="only this part; repeatable")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (default: docs/bench)")
    parser.add_argument("--wait", type=float, default=0, metavar="MINUTES", help="wait so long for a quiet machine")
    args = parser.parse_args(argv)
    out: Path = args.out or (CHECKOUT / "build" / "bench" if args.quick or args.part else OUT)
    allow_many_files()
    quiet = wait_until_quiet(minutes=args.wait) if args.wait else None
    cluster = Cluster(args.name)
    begun = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)

    def save(found: dict[str, Any]) -> None:
        found["minutes"] = round((time.monotonic() - begun) / 60, 1)
        (out / "semaphore.json").write_text(json.dumps(found, indent=1) + "\n")

    found = measure(cluster, QUICK if args.quick else Scale(), set(args.part), save)
    found["machine"]["was_quiet"] = quiet
    save(found)
    say(f"written: {out / 'semaphore.json'}, after {found['minutes']} minutes")
    from bench import report  # matplotlib takes a second and 100 MB: after the measuring

    report.write(out)
    return 1 if report.faults(found) else 0


if __name__ == "__main__":
    sys.exit(main())

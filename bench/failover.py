# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long nobody leads: Muster's election beside those of client-go and of the official Python client, in one run.

    python -m bench.failover                 the whole, about 25 minutes; writes docs/bench/failover.{json,md,png}
    python -m bench.failover --resume        goes on where an aborted run ended
    python -m bench.failover --quick         two minutes, the same code, small numbers; writes build/bench/
    python -m bench.failover --part graceful --system muster        only that; writes build/bench/

What is measured and how is told on the page itself (docs/bench/failover.md). What each replica wrote is left in
build/bench/failover.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import real_pods
from bench.elections import CRASH, GRACEFUL, LOST, REPLICAS, Pace, contest
from bench.holders import api_of, make_namespace
from bench.machine import CHECKOUT, Cluster, cpu_seconds, facts, resident, say, wait_until_quiet
from bench.replicas import SYSTEMS, Absent, ProcessReplica, System, client_go_version
from bench.semaphore import Store
from bench.terms import lines
from tests.support.fault_proxy import FaultProxy

NAMESPACE, NODE = "bench-failover", "bench-node"
OUT, BUILD = CHECKOUT / "docs" / "bench", CHECKOUT / "build" / "bench"
PACKAGES = ("urllib3", "kubernetes")
WRITES = ("POST", "PUT", "PATCH", "DELETE")
IDLE_SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Scale:
    """How much is measured; times in seconds."""

    rounds: int = 100
    lost_rounds: int = 24
    idle: float = 120.0
    kubelet: float = 1.0  # from a container's death until its kubelet says so: it looks once a second, so at worst
    pod_rounds: int = 100
    systems: tuple[str, ...] = tuple(SYSTEMS)


QUICK = Scale(8, 3, 15.0, 1.0, 0, ("muster", "client-go", "client-go-tuned", "python-tuned"))


class Bench:
    """One run of everything on one control plane."""

    def __init__(self, cluster: Cluster, scale: Scale) -> None:
        self.kubeconfig, self.scale = cluster.kubeconfig, scale
        self.api = api_of(cluster.kubeconfig)
        make_namespace(self.api, NAMESPACE)
        self.systems = [SYSTEMS[name] for name in scale.systems]

    def start(self, system: System, kubeconfig: str, lease: str, name: str, log: Path) -> ProcessReplica:
        return ProcessReplica(system, self.api, kubeconfig, NAMESPACE, lease, name, log)

    def contest(self, system: System, kind: str) -> dict[str, Any]:
        """So many changes of leader of one kind."""
        pace = Pace(system.settle, 4 * system.lease + 60, self.scale.kubelet if system.ours else 0.0)
        start = partial(self.start, system, self.kubeconfig)
        place = BUILD / "failover" / f"{system.name}-{kind}"
        rounds = self.scale.lost_rounds if kind == LOST else self.scale.rounds
        parallel = min(system.parallel, rounds)
        return contest(self.api, NAMESPACE, place, start, pace, kind=kind, rounds=rounds, parallel=parallel)

    def idle(self) -> dict[str, Any]:
        """What an election costs when nothing happens: all systems side by side, each behind a proxy that counts."""
        with ExitStack() as stack:
            idlers = {system.name: stack.enter_context(self._idlers(system)) for system in self.systems}
            time.sleep(IDLE_SETTLE_SECONDS)
            for one in idlers.values():
                one.begin()
            time.sleep(self.scale.idle)
            return {name: one.figures() for name, one in idlers.items()}

    @contextmanager
    def _idlers(self, system: System) -> Iterator[Idlers]:
        with tempfile.TemporaryDirectory() as directory, FaultProxy(self.api.credentials) as proxy:
            kubeconfig, log = str(proxy.write_kubeconfig(Path(directory, "kubeconfig"))), Path(directory, "log")
            names = [f"{system.name}-idle-{number}" for number in range(REPLICAS)]
            replicas = [self.start(system, kubeconfig, f"{system.name}-idle", name, log) for name in names]
            try:
                yield Idlers(proxy, replicas, log)
            finally:
                for one in replicas:
                    one.remove()


class Idlers:
    """The replicas of one system at one Lease, of which one leads and nobody is struck."""

    def __init__(self, proxy: FaultProxy, replicas: Sequence[ProcessReplica], log: Path) -> None:
        self._proxy, self._pids, self._log = proxy, [replica.process.pid for replica in replicas], log
        self._begun, self._sent, self._used = 0.0, 0, 0.0

    def begin(self) -> None:
        """From now on it is measured."""
        if not any(line.event == "begin" for line in lines(self._log.read_text())):
            raise RuntimeError(f"nobody leads after {IDLE_SETTLE_SECONDS:.0f} s: {self._log.read_text()}")
        self._begun, self._sent, self._used = time.monotonic(), len(self._proxy.seen), self._cpu()

    def figures(self) -> dict[str, Any]:
        """Requests and CPU seconds for each replica and minute, and MiB of the largest."""
        seconds, used = time.monotonic() - self._begun, self._cpu() - self._used
        seen = Counter("WATCH" if "watch=" in each.path else each.method for each in self._proxy.seen[self._sent :])
        share = 60 / seconds / len(self._pids)
        return {
            "seconds": round(seconds, 1),
            "writes": round(sum(seen[method] for method in WRITES) * share, 2),
            "reads": round((seen["GET"] + seen["WATCH"]) * share, 2),
            "requests": dict(seen),
            "cpu_s": round(used * share, 3),
            "resident_mib": round(max(resident(pid)["resident"] for pid in self._pids), 1),
        }

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, self._pids))


# ---------------------------------------------------------------------------------------------- the parts


def strike(kind: str, bench: Bench, store: Store) -> None:
    """Every system in turn. A peer knows nothing of Pods: a lost node is to it what a crash is, which was measured."""
    for system in bench.systems:
        if kind == LOST and not system.ours:
            continue
        store.measured(kind, system.name, by=partial(bench.contest, system, kind))


def idle(bench: Bench, store: Store) -> None:
    """All systems at one time."""
    store.measured("idle", by=bench.idle)


def pods(bench: Bench, store: Store) -> None:
    """Ours in real Pods, on a cluster for that alone; what it needs is asked of this machine first."""
    rounds = {CRASH: bench.scale.pod_rounds, GRACEFUL: bench.scale.pod_rounds // 2}
    if not all(rounds.values()) or set(rounds) <= set(store.found.get("pods", {})):
        return
    (system,) = [system for system in SYSTEMS.values() if system.ours]
    try:
        node = real_pods.Node(NODE)
    except Absent as absent:
        store.found.setdefault("absent", {})["pods"] = str(absent)
        return
    for kind, number in rounds.items():
        place = BUILD / "failover" / f"pods-{kind}"
        store.measured("pods", kind, by=partial(node.contest, system, kind, number, place))
    node.down()


def told(found: dict[str, Any]) -> str:
    """Figures in one line; of a contest without the single rounds."""
    return json.dumps({key: value for key, value in found.items() if key != "gaps_s"})


PARTS: dict[str, Callable[[Bench, Store], None]] = {
    **{kind: partial(strike, kind) for kind in (GRACEFUL, CRASH, LOST)},
    "idle": idle,
    "pods": pods,
}


def measure(cluster: Cluster, scale: Scale, parts: set[str], store: Store) -> None:
    """Measure the named parts (all when empty), as far as they are not in the store."""
    bench = Bench(cluster, scale)
    for system in tuple(bench.systems):
        try:
            system.program()  # what has to be built is, before anything is measured
        except Absent as absent:
            store.found.setdefault("absent", {})[system.name] = str(absent)
            bench.systems.remove(system)
    for part, figures in PARTS.items():
        if not parts or part in parts:
            say(f"== {part}, after {(time.monotonic() - store.begun) / 60:.1f} minutes")
            figures(bench, store)
    bench.api.close()


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__, formatter_class=form)
    parser.add_argument("--name", default="bench", help="the control-plane cluster to measure on (default: bench)")
    parser.add_argument("--quick", action="store_true", help="small numbers, for trying it out; written to build/bench")
    parser.add_argument("--part", action="append", default=[], choices=PARTS, help="only this part; repeatable")
    parser.add_argument("--system", action="append", default=[], choices=SYSTEMS, help="only this one; repeatable")
    parser.add_argument("--resume", action="store_true", help="measure only what the JSON does not have yet")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="where to write (docs/bench or build/bench)")
    parser.add_argument("--rounds", type=int, help="changes of leader of each kind (default: 100)")
    parser.add_argument("--wait", type=float, default=0, metavar="MINUTES", help="wait so long for a quiet machine")
    args = parser.parse_args(argv)
    out: Path = args.out or (BUILD if args.quick or args.part or args.system else OUT)
    out.mkdir(parents=True, exist_ok=True)
    chosen = {"rounds": args.rounds, "pod_rounds": args.rounds, "systems": tuple(args.system)}
    scale = replace(QUICK if args.quick else Scale(), **{key: value for key, value in chosen.items() if value})
    quiet = wait_until_quiet(minutes=args.wait) if args.wait else None
    cluster = Cluster(args.name)
    found: dict[str, Any] = {"machine": {**facts(PACKAGES), "was_quiet": quiet}, "kubernetes": cluster.version()}
    found["client_go"] = client_go_version()
    path = out / "failover.json"
    if args.resume and path.exists():
        found = json.loads(path.read_text())
        now = facts()
        found["machine"].setdefault("resumed", []).append({key: now[key] for key in ("at", "commit", "load_1_min")})
    store = Store(path, {**found, "scale": vars(scale)}, told)
    measure(cluster, scale, set(args.part), store)
    store.found["machine"]["load_1_min_after"] = facts()["load_1_min"]
    store.save()
    say(f"written: {path}, after {store.found['minutes']} minutes")
    from bench import failover_report  # matplotlib takes a second and 100 MB: after the measuring

    failover_report.write(out)
    return 1 if failover_report.faults(store.found) else 0


if __name__ == "__main__":
    sys.exit(main())

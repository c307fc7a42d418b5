# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cache of many custom objects costs: ours beside the official client's informer, in one run.

    python -m bench.cache [--objects 100000]       writes docs/bench/cache.json and the table in docs/bench/cache.md
    python -m bench.cache --objects 5000 --out build/bench

Each cache is a process of its own and lists all VirtualMachines of one namespace of a real kube-apiserver: once
directly, for time and memory; once through a proxy which cuts the watch, and then says that its version is too old.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import AlreadyExists, Api, Resource
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from bench.cached import GROUP, PLURAL, VERSION
from bench.holders import api_of, make_namespace
from bench.machine import CHECKOUT, Cluster, facts, say, sentence
from tests.support.fault_proxy import Expired, FaultProxy

NAMESPACE = "bench-cache"
OUT = CHECKOUT / "docs" / "bench"
SYSTEMS = ("muster", "official")
CRDS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
MACHINES = Resource(f"{GROUP}/{VERSION}", PLURAL, "VirtualMachine")
PATIENCE = 900.0  # seconds for a list
SETTLED = 5.0  # seconds without a request: it has come to rest


class Measured:
    """One process of bench/cached.py."""

    def __init__(self, which: str, kubeconfig: str) -> None:
        command = [sys.executable, "-m", "bench.cached", which, kubeconfig, NAMESPACE]
        self._process = subprocess.Popen(
            command, cwd=CHECKOUT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.empty = self._read()["empty"]
        self.first = self._read()

    def now(self) -> dict[str, Any]:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("error: a cache ended before it had all objects")
        found: dict[str, Any] = json.loads(line)
        return found


def machine(number: int) -> dict[str, Any]:
    """As long as the operator's own are, with what the API server adds."""
    spec = {"cores": 4, "memory": "8Gi", "image": "registry.example.org/images/service:2026.1"}
    return {
        "apiVersion": MACHINES.api_version,
        "kind": MACHINES.kind,
        "metadata": {"name": f"machine-{number:06}", "namespace": NAMESPACE, "labels": {"team": f"team-{number % 50}"}},
        "spec": spec,
    }


def fill(api: Api, count: int) -> None:
    """Have at least so many VirtualMachines; those that are there stay."""
    (crd,) = yaml.safe_load_all((CHECKOUT / "charts/vm-operator/crds/virtualmachines.yaml").read_text())
    try:
        api.create(CRDS, crd)
        time.sleep(3.0)  # until it is served
    except AlreadyExists:
        pass
    make_namespace(api, NAMESPACE)
    there = {one["metadata"]["name"] for one in api.list(MACHINES, NAMESPACE, metadata_only=True).items}
    missing = [obj for obj in map(machine, range(count)) if obj["metadata"]["name"] not in there]
    say(f"{len(there)} objects are there, {len(missing)} are made")
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda obj: api.create(MACHINES, obj), missing))


def direct(which: str, kubeconfig: str) -> dict[str, Any]:
    cache = Measured(which, kubeconfig)
    cache.end()
    first, empty = cache.first, cache.empty
    return {**first, "own_cpu_seconds": round(first["cpu_seconds"] - empty["cpu_seconds"], 3)}


def disturbed(which: str, kubeconfig: str, directory: Path) -> dict[str, Any]:
    """Its watch is cut; then it is told, twice, that its version is too old: the official client asks again once.

    How often it lists, and what listing again costs, each time.
    """
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        cache = Measured(which, str(proxy.write_kubeconfig(directory / "proxy.kubeconfig")))

        def lists() -> int:
            others = ("watch=", "continue=")  # a list in pages is one
            return sum(f"/{PLURAL}" in seen.path and not any(o in seen.path for o in others) for seen in proxy.seen)

        rest(lambda: len(proxy.seen))
        before = lists()
        proxy.cut()
        rest(lambda: len(proxy.seen))
        after_cut, cpu = lists() - before, cache.now()["cpu_seconds"]
        proxy.plan(Expired(), path="watch=", times=2)
        proxy.cut()
        rest(lambda: len(proxy.seen))
        now, again = cache.now(), lists() - before - after_cut
        cache.end()
        return {
            "lists_after_a_cut": after_cut,
            "lists_after_410": again,
            "cpu_seconds_to_list_again": round((now["cpu_seconds"] - cpu) / again, 3) if again else None,
            "peak_mib_after_that": now["peak_mib"],
            "objects": now["objects"],
        }


def rest(count: Callable[[], int]) -> None:
    """Wait until nothing has come for a while."""
    deadline, seen, since = time.monotonic() + PATIENCE, count(), time.monotonic()
    while time.monotonic() < min(deadline, since + SETTLED):
        time.sleep(0.2)
        if count() != seen:
            seen, since = count(), time.monotonic()


def table(found: dict[str, Any]) -> str:
    rows = [
        ("seconds until it has all", "direct", "seconds"),
        ("seconds of CPU for that", "direct", "own_cpu_seconds"),
        ("MiB resident then", "direct", "resident_mib"),
        ("MiB at most", "direct", "peak_mib"),
        ("lists after the watch was cut", "disturbed", "lists_after_a_cut"),
        ("seconds of CPU to list again after a 410", "disturbed", "cpu_seconds_to_list_again"),
        ("MiB at most then", "disturbed", "peak_mib_after_that"),
    ]
    lines = [f"| {found['objects']:,} VirtualMachines | Muster | official client |", "|---|---|---|"]
    lines += [
        f"| {text} | " + " | ".join(str(found[one][part][key]) for one in SYSTEMS) + " |" for text, part, key in rows
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.cache", description=__doc__, formatter_class=form)
    parser.add_argument("--objects", type=int, default=100_000, metavar="N", help="how many (default: 100000)")
    parser.add_argument("--kubeconfig", help="measure on this cluster (default: one of its own, bench)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIRECTORY", help="where to write (docs/bench)")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    kubeconfig = args.kubeconfig or Cluster("bench").kubeconfig
    found: dict[str, Any] = {"machine": facts(("urllib3", "kubernetes")), "objects": args.objects}
    fill(api_of(kubeconfig), args.objects)
    for which in SYSTEMS:
        found[which] = {"direct": direct(which, kubeconfig)}
        say(f"{which}: {found[which]['direct']}")
        found[which]["disturbed"] = disturbed(which, kubeconfig, args.out)
        say(f"{which}: {found[which]['disturbed']}")
    (args.out / "proxy.kubeconfig").unlink(missing_ok=True)
    (args.out / "cache.json").write_text(json.dumps(found, indent=1) + "\n")
    heading = "<!-- made by python -m bench.cache -->\n# What a cache of many custom objects costs\n"
    how = f"Measured on {sentence(found['machine'])}; one process each, one after the other."
    (args.out / "cache.md").write_text(f"{heading}\n{how}\n\n{table(found)}\n")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())

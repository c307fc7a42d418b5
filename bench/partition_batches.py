# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one Assignment costs that gives many partitions to three workers, by how many they are.

A part of bench/partitions.py. Three workers and a reconciler are real processes at a real kube-apiserver, in a
namespace of their own for each round. Time is taken from when the Assignment is made until a watch tells that it is
decided, and that it is over; CPU time in between. Requests about Partitions and Assignments are those that the API
server counts, of all processes together: whoever else uses them on the same server is counted with them.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES, Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, Space
from ansible_collections.muster.coordination.tests.support.partition_judge import Chronicle
from ansible_collections.muster.coordination.tests.support.partition_site import Site
from bench.allocator import EXPOSED, LABEL, WRITES, exposed_by
from bench.machine import cpu_seconds, say

WORKERS = ("w-0", "w-1", "w-2")
KINDS = ("partitions", "assignments")
PATIENCE = 600.0  # seconds
Figures = dict[str, Any]


def requests(api: Api) -> Counter[str]:
    """Requests about Partitions and Assignments that the API server has answered so far: `reads` and `writes`."""
    found = Counter[str]()
    for match in EXPOSED.finditer(exposed_by(api)):
        labels = dict(LABEL.findall(match["labels"]))
        if labels.get("group") == "muster.dev" and labels.get("resource") in KINDS and labels.get("verb") != "WATCH":
            found["writes" if labels["verb"] in WRITES else "reads"] += int(float(match["count"]))
    return found


class Batch:
    """A site of three workers, one reconciler, and so many Partitions that nobody has."""

    def __init__(self, api: Api, site: Site, size: int) -> None:
        self.api, self.site, self.size = api, site, size
        space = Space("default", 4, keyspace.PRINTABLE)
        workers = {name: site.worker(name) for name in WORKERS}
        reconciler = site.reconciler()
        self.pids = {"reconciler": [reconciler.popen.pid], "workers": [each.popen.pid for each in workers.values()]}
        _port = reconciler.port  # it works
        self.pairs = []
        for number, cut in enumerate(keyspace.even_cuts(space, Range("", ""), size)):
            site.partition(f"p-{number:03}", cut.start, cut.end)
            self.pairs.append((f"p-{number:03}", WORKERS[number % len(WORKERS)]))
        self.chronicle = Chronicle(api, site.namespace)

    def measure(self) -> Figures:
        """Give all of them."""
        time.sleep(2.0)  # what was begun has come to rest
        before, cpu, begun = requests(self.api), self._cpu(), time.monotonic()
        name = self.site.new_batch(self.pairs)["metadata"]["name"]
        committed, ended = (self._reached(name, phases) - begun for phases in PHASES)
        cpu = {who: round(now - cpu[who], 2) for who, now in self._cpu().items()}
        counted = requests(self.api) - before
        wrong = [fact for fact in self.site.view().facts if not fact.primary]
        if wrong:
            raise SystemExit(f"error: nobody has {wrong[0].partition}")
        return {"committed": round(committed, 3), "seconds": round(ended, 3), "cpu": cpu, **counted}

    def _cpu(self) -> dict[str, float]:
        return {who: sum(map(cpu_seconds, pids)) for who, pids in self.pids.items()}

    def _reached(self, name: str, phases: tuple[str, ...]) -> float:
        deadline = time.monotonic() + PATIENCE
        while operations.phase_of(self.chronicle.now("Assignment").get(name, {})) not in phases:
            if time.monotonic() > deadline:
                raise SystemExit(f"error: a batch of {self.size} is not over after {PATIENCE:g} s")
            time.sleep(0.002)
        return time.monotonic()


PHASES = (operations.COMMITTED, *operations.FINAL), operations.FINAL


@contextmanager
def batch(api: Api, kubeconfig: str, size: int) -> Iterator[Batch]:
    with tempfile.TemporaryDirectory() as directory:
        namespace = api.create(NAMESPACES, {"metadata": {"generateName": "bench-partitions-"}})["metadata"]["name"]
        site = Site(api, namespace, kubeconfig, Path(directory))
        try:
            made = Batch(api, site, size)
            try:
                yield made
            finally:
                made.chronicle.close()
        finally:
            site.close()
            api.delete(NAMESPACES, namespace)


def measure(api: Api, kubeconfig: str, rounds: dict[int, int], tell: Callable[[str], None] = say) -> Figures:
    """By size: the rounds, in the order of their time."""
    found: Figures = {}
    for size, times in rounds.items():
        listed = []
        for _round in range(times):
            with batch(api, kubeconfig, size) as made:
                listed.append(made.measure())
            tell(f"batch of {size}: {listed[-1]}")
        found[str(size)] = sorted(listed, key=lambda each: float(each["seconds"]))
    return found

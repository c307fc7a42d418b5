# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Prometheus metrics of a controller, worked out when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import prometheus_client
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from muster.frame.authority import Authority
from muster.frame.cache import Cache
from muster.frame.workqueue import WorkQueue

PREFIX: Final = "muster_controller"
SECONDS: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RESULTS: Final = ("done", "again", "failed", "superseded")


class Metrics:
    """`results` and `seconds` are told by the workers; all else is read from what it is of."""

    def __init__(self, authority: Authority, cache: Cache, queue: WorkQueue) -> None:
        self._authority, self._cache, self._queue = authority, cache, queue
        self.registry = prometheus_client.CollectorRegistry()
        self.registry.register(self)
        self._results = prometheus_client.Counter(
            f"{PREFIX}_reconciles", "Objects looked at, by how that ended", ["result"], registry=self.registry
        )
        for result in RESULTS:
            self._results.labels(result)
        self._seconds = prometheus_client.Histogram(
            f"{PREFIX}_reconcile_seconds", "How long that took", buckets=SECONDS, registry=self.registry
        )
        self.gains = 0  # how often keys were gained

    def count(self, result: str, seconds: float) -> None:
        self._results.labels(result).inc()
        self._seconds.observe(seconds)

    def collect(self) -> Iterator[Metric]:
        told = self._authority.describe()
        yield _gauge("active", "1 while this replica may act", 1 if told["active"] else 0)
        yield _gauge("fence", "Fence of the leader's term, else 0", told.get("fence") or 0)
        yield _gauge("shards", "Shards that this replica owns", len(told.get("shards") or ()))
        yield _gauge("lease_seconds_left", "How long the Lease may still be used", told.get("seconds_left") or 0)
        yield CounterMetricFamily(f"{PREFIX}_gains", "How often this replica gained keys", self.gains)
        depth = GaugeMetricFamily(f"{PREFIX}_queue", "Keys in the queue", labels=["state"])
        ready, working = self._queue.ready, self._queue.working
        for state, count in (("ready", ready), ("working", working), ("later", max(0, len(self._queue) - ready))):
            depth.add_metric([state], count)
        yield depth
        yield _gauge("cache_objects", "Objects in the cache", len(self._cache))
        yield _gauge("cache_bytes", "Their length", self._cache.size)
        yield CounterMetricFamily(f"{PREFIX}_cache_lists", "How often all objects were listed", self._cache.lists)
        trouble = GaugeMetricFamily(f"{PREFIX}_trouble", "1 while something is wrong", labels=["source"])
        trouble.add_metric(["authority"], 1 if told["trouble"] else 0)
        trouble.add_metric(["cache"], 1 if self._cache.trouble else 0)
        yield trouble


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value)

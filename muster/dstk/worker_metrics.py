# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Prometheus metrics of a worker of partitions. No label has a value that a client chooses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import prometheus_client
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import ROLES

if TYPE_CHECKING:
    from muster.dstk.worker import Worker

PREFIX: Final = "muster_partition_worker"
SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """`count` is told of each request; all else is read from what it is of when somebody asks."""

    def __init__(
        self, worker: Worker, registry: prometheus_client.CollectorRegistry, connections: Callable[[], int]
    ) -> None:
        self._worker, self._connections = worker, connections
        labels = ["method", "route", "status"]
        self._requests = prometheus_client.Counter(
            f"{PREFIX}_requests", "Requests that were answered", labels, registry=registry
        )
        self._seconds = prometheus_client.Histogram(
            f"{PREFIX}_request_seconds", "How long answers took", labels[:2], buckets=SECONDS, registry=registry
        )
        registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def collect(self) -> Iterator[Metric]:
        worker = self._worker
        copies = GaugeMetricFamily(f"{PREFIX}_copies", "Copies of partitions, by role", labels=["role"])
        counts = Counter(copy.role for copy in worker.store.copies.values())
        for role in ROLES:
            copies.add_metric([role], counts[role])
        yield copies
        held = list(worker.store.held.values())
        served = [copy for copy in list(worker.store.copies.values()) if worker.grant_of(copy)]
        gauges: dict[str, tuple[str, float]] = {
            "served": ("Partitions that are served", len(served)),
            "keys": ("Keys in all copies", sum(each.keys for each in held)),
            "bytes": ("Bytes of keys and values in all copies", sum(each.bytes for each in held)),
            "lease_valid": ("1 while the Lease allows to serve", 1 if worker.lease.session else 0),
            "leaving": ("1 after SIGTERM", 1 if worker.lease.is_leaving else 0),
            "held_requests": ("Requests that wait for their partition to be served", worker.held),
            "connections": ("Connections that are open", self._connections()),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value)
        counters: dict[str, tuple[str, float]] = {
            "sessions": ("Sessions of the Lease that have begun", worker.lease.last_session),
            "looks": ("Looks at a copy by reading the API server", worker.looks),
            "forwarded": ("Requests passed on to another worker", worker.forwarded),
            "unknown": ("Writes of which nobody knows what becomes", worker.unknown),
            "transactions": ("Transactions of the store", worker.store.groups),
            "changes": ("Changes in these transactions", worker.store.changes),
        }
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value)

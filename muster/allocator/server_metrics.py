# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Prometheus metrics of the allocator's server. No label has a value that a client chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import prometheus_client
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX: Final = "muster_allocator"
SECONDS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """`count` is told of each request; all else is read from what it is of when somebody asks.

    `gauges` and `counters` are numbers by name, the latter ending in no _total; `reviews` counts by result.
    """

    def __init__(
        self,
        registry: prometheus_client.CollectorRegistry,
        gauges: Mapping[str, tuple[str, Callable[[], float]]],
        counters: Mapping[str, tuple[str, Callable[[], float]]],
        reviews: Mapping[str, int],
    ) -> None:
        self.registry = registry
        self._gauges, self._counters, self._reviews = gauges, counters, reviews
        self._requests = prometheus_client.Counter(
            f"{PREFIX}_requests", "Requests that were answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = prometheus_client.Histogram(
            f"{PREFIX}_request_seconds",
            "How long an answer took to be there; of a watch, to begin",
            ["method", "route"],
            buckets=SECONDS,
            registry=registry,
        )
        registry.register(self)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def close(self) -> None:
        """Take it out of the registry, which may outlive the server."""
        for each in (self, self._requests, self._seconds):
            self.registry.unregister(each)

    def collect(self) -> Iterator[Metric]:
        for name, (text, value) in self._gauges.items():
            yield GaugeMetricFamily(f"{PREFIX}_{name}", text, value())
        for name, (text, value) in self._counters.items():
            yield CounterMetricFamily(f"{PREFIX}_{name}", text, value())
        reviews = CounterMetricFamily(
            f"{PREFIX}_token_reviews", "Tokens looked at, by how that ended", labels=["result"]
        )
        for result, number in sorted(self._reviews.items()):
            reviews.add_metric([result], number)
        yield reviews

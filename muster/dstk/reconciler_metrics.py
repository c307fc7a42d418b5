# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Prometheus metrics of operations on partitions."""

from __future__ import annotations

from typing import Final

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.decisions.operations import KINDS

PREFIX: Final = "muster_partitions"
SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
WRITES: Final = (4, 6, 8, 10, 15, 20, 50, 100, 500, 1000)
OUTCOMES: Final = ("completed", "aborted")


class OperationMetrics:
    """What this replica has done; `registry` None: shown nowhere."""

    def __init__(self, registry: prometheus_client.CollectorRegistry | None = None) -> None:
        self._ended = prometheus_client.Counter(
            f"{PREFIX}_operations",
            "Operations that are over, by what became of them",
            ["kind", "outcome"],
            registry=None,
        )
        self._unowned = prometheus_client.Histogram(
            f"{PREFIX}_unowned_seconds",
            "For how long an operation had nobody serve",
            ["kind"],
            buckets=SECONDS,
            registry=None,
        )
        self._writes = prometheus_client.Histogram(
            f"{PREFIX}_operation_writes",
            "Writes to the API server of one operation",
            ["kind"],
            buckets=WRITES,
            registry=None,
        )
        for kind in KINDS:
            for outcome in OUTCOMES:
                self._ended.labels(kind, outcome)
            self._unowned.labels(kind)
            self._writes.labels(kind)
        if registry is not None:
            self.show(registry)

    def show(self, registry: prometheus_client.CollectorRegistry) -> None:
        for metric in (self._ended, self._unowned, self._writes):
            registry.register(metric)

    def ended(self, kind: str, outcome: str, writes: int) -> None:
        self._ended.labels(kind, outcome).inc()
        self._writes.labels(kind).observe(writes)

    def unowned(self, kind: str, seconds: float) -> None:
        self._unowned.labels(kind).observe(seconds)

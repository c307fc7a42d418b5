# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Prometheus metrics of Swarms, worked out when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from muster.swarm.operator import Known

LABELS: Final = ["namespace", "swarm"]


class SwarmMetrics:
    """Of all Swarms that this replica looks after."""

    def __init__(self, known: Callable[[], Mapping[str, Known]]) -> None:
        self._known = known

    def collect(self) -> Iterator[Metric]:
        gauges = {
            name: GaugeMetricFamily(f"muster_swarm_{name}", text, labels=LABELS)
            for name, text in (
                ("jobs", "Jobs"),
                ("unplaced", "Jobs that have no worker"),
                ("workers", "Workers"),
                ("waits", "Workers that do not run their jobs yet, or may still run those of others"),
                ("imbalance", "Greatest load of a worker less the smallest"),
                ("converged", "1 while each worker runs its jobs"),
                ("trouble", "1 while what is asked for can't be understood"),
            )
        }
        moves = CounterMetricFamily("muster_swarm_moves", "Jobs that were moved", labels=LABELS)
        evictions = CounterMetricFamily("muster_swarm_evictions", "Workers that were restarted", labels=LABELS)
        for key, known in sorted(dict(self._known()).items()):
            at = key.split("/", 1)
            gauges["trouble"].add_metric(at, 1 if known.trouble else 0)
            moves.add_metric(at, known.moves)
            evictions.add_metric(at, known.evictions)
            if known.turn is None:
                continue
            step = known.turn.step
            for name, value in (
                ("jobs", len(known.jobs)),
                ("unplaced", len(step.placement.unplaced)),
                ("workers", len(step.placement.assignment)),
                ("waits", len(step.waits)),
                ("imbalance", step.placement.imbalance),
                ("converged", 1 if step.is_converged else 0),
            ):
                gauges[name].add_metric(at, value)
        yield from gauges.values()
        yield moves
        yield evictions

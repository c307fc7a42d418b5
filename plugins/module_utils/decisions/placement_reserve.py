# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which workers the dedicated jobs have for themselves.

Rules
1. As many dedicated jobs as possible have a worker. Then as few live jobs as possible are displaced: the jobs that were
   on such a worker, and a dedicated job that leaves its own. So a job that is alone on its worker stays.
2. Then workers that take few of the other jobs' classes are preferred, and then the first in natural order.

Theory: a cheapest matching, as a flow of kinds (class, spread, weight) to workers, since jobs of one kind are
interchangeable but for where they are. How the choice among equals bears on the jobs that are not dedicated is not
weighed in full: which workers to leave to them is a choice of sets, and hard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import placement_pool, placement_why
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_network import Network, Port
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_pool import (
    Held,
    Job,
    Listed,
    Worker,
    Zones,
)


class Reserved(NamedTuple):
    """`job_on`: the dedicated job of a worker, by the worker's number. `limits`: what zones may have besides.

    `is_settled` says that each of the jobs was alone where it is now: then there is no other choice as good.
    """

    job_on: Mapping[int, str]
    unplaced: Mapping[str, str]
    limits: Zones
    is_settled: bool


class _Kind(NamedTuple):
    group: str
    spread: str
    weight: int


def reserve(listed: Listed, pool: Sequence[Worker], now: Held) -> Reserved:
    """The workers of the dedicated jobs."""
    limits = placement_pool.zone_limits(listed, pool)
    if not listed.has_dedicated:
        return Reserved({}, {}, limits, True)
    dedicated = _kinds(listed.jobs)
    supply = sorted(Counter(dedicated.values()).items())
    ports, hubs = _ports(supply, pool, limits)
    port_of = {(supply[port.kind][0], bin_): number for number, port in enumerate(ports) for bin_ in hubs[port.hub]}
    own = [[job for job in kept if job in dedicated] for kept in now.kept.values()]
    stays = [
        Counter(port_of[dedicated[job], bin_] for job in here if (dedicated[job], bin_) in port_of)
        for bin_, here in enumerate(own)
    ]
    groups = {group for _other, group, is_dedicated, _more in listed.sorts if not is_dedicated}
    step = len(pool) * (len(groups) + 1)  # so that no sum of preferences outweighs one displaced job
    toll = [
        step * (len(kept) - len(here)) + len(groups & worker.takes)
        for kept, here, worker in zip(now.kept.values(), own, pool, strict=True)
    ]
    network = Network(
        [number for _other, number in supply], ports, hubs, [1] * len(pool), stays=stays, fare=step, toll=toll
    )
    network.run()
    chosen = {bin_: supply[ports[next(iter(flow))].kind][0] for bin_, flow in enumerate(network.flow) if flow}
    job_on = _named(chosen, dedicated, own)
    left = dict(limits)
    for bin_, kind in chosen.items():
        if kind.spread:
            left[kind.spread, pool[bin_].zone] -= 1
    placed = set(job_on.values())
    reasons = _reasons(network, supply, pool) if len(placed) < len(dedicated) else {}
    unplaced = {job: reasons[kind] for job, kind in dedicated.items() if job not in placed}
    kept = list(now.kept.values())
    return Reserved(job_on, unplaced, left, all(kept[bin_] == [job] for bin_, job in job_on.items()))


def _kinds(jobs: Sequence[Job]) -> dict[str, _Kind]:
    """The kinds of the dedicated jobs. Those of one spread are one, by the heaviest: a zone counts them together."""
    dedicated = [job for job in jobs if job.dedicated]
    heaviest: dict[str, int] = {}
    for job in dedicated:
        heaviest[job.spread] = max(job.weight, heaviest.get(job.spread, 0))
    return {
        job.name: _Kind(job.group, job.spread, heaviest[job.spread] if job.spread else job.weight) for job in dedicated
    }


def _ports(
    supply: Sequence[tuple[_Kind, int]], pool: Sequence[Worker], limits: Zones
) -> tuple[list[Port], list[list[int]]]:
    """For each kind a port, or one for each zone; each with a hub of its own."""
    ports: list[Port] = []
    hubs: list[list[int]] = []
    for number, (kind, jobs) in enumerate(supply):
        bins = [
            bin_
            for bin_, worker in enumerate(pool)
            if kind.group in worker.takes and (worker.capacity is None or worker.capacity >= kind.weight)
        ]
        for zone in sorted({pool[bin_].zone for bin_ in bins}) if kind.spread else [""]:
            ports.append(Port(number, len(hubs), limits[kind.spread, zone] if kind.spread else jobs))
            hubs.append([bin_ for bin_ in bins if not kind.spread or pool[bin_].zone == zone])
    return ports, hubs


def _named(chosen: Mapping[int, _Kind], dedicated: Mapping[str, _Kind], own: Sequence[Sequence[str]]) -> dict[int, str]:
    """Which job of the kind: the first that is there already, else the first by name that has no worker yet."""
    job_on: dict[int, str] = {}
    for bin_, kind in chosen.items():
        here = next((job for job in own[bin_] if dedicated[job] == kind), None)
        if here is not None:
            job_on[bin_] = here
    waiting: dict[_Kind, list[str]] = {}
    for job in sorted(dedicated.keys() - set(job_on.values()), reverse=True):
        waiting.setdefault(dedicated[job], []).append(job)
    return {bin_: job_on[bin_] if bin_ in job_on else waiting[kind].pop() for bin_, kind in chosen.items()}


def _reasons(network: Network, supply: Sequence[tuple[_Kind, int]], pool: Sequence[Worker]) -> dict[_Kind, str]:
    kinds, ports, _other = network.cut()
    reach: dict[int, list[int]] = {kind: [] for kind in kinds}
    for port in ports:
        kind, hub, _limit = network.ports[port]
        if kind in reach:
            reach[kind] += network.hubs[hub]
    full = {kind: 0 for kind in kinds}
    for port in set(range(len(network.ports))).difference(ports):
        kind = network.ports[port].kind
        if kind in full:
            full[kind] += network.through[port]
    reasons = {}
    for some, bins in placement_why.connected(reach):
        elsewhere = sum(full[kind] for kind in some)
        why = placement_why.no_worker_left(
            [supply[kind][0][:2] for kind in some],
            sum(supply[kind][1] for kind in some) - elsewhere,
            [pool[bin_].name for bin_ in bins],
            elsewhere,
        )
        reasons.update({supply[kind][0]: why for kind in some})
    return reasons

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exact placement where not every worker may run every job: classes, capacities, zones, dedicated jobs.

Rules
1. Dedicated jobs first, each with a worker for itself (`placement_reserve`). Those workers are out of it then.
2. How many jobs each worker has is settled by classes and capacities alone (`placement_levels`): as many as possible,
   and as equal as possible. Blocks have nothing to do with one another from there on.
3. Of all placements with those loads one with the fewest moves is taken: a cheapest flow in which a job that stays
   costs nothing and any other 1, begun with what stays. What is left to choose goes to workers that change anyway.
4. Jobs that nothing tells apart flow as a number (`placement_kinds`); names come last.

Theory: with unit jobs all this is a convex flow, so exact and polynomial. The fewest restarts are a fixed-charge
problem, which is NP-hard: a lower bound of them is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    placement_kinds,
    placement_levels,
    placement_pool,
    placement_reserve,
    placement_why,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_kinds import Kinds
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_levels import Block, Pool
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_network import NEVER, Network
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_pool import (
    Listed,
    Placement,
    Previous,
    Worker,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_reserve import Reserved

METHOD = "flow"


class Side(NamedTuple):
    """A worker before anything is changed: its live jobs; how many it may run, by port; for how many it has room.

    It is calm if it does not restart as long as it keeps what it has.
    """

    own: list[str]
    has: Mapping[int, int]
    capacity: int
    is_calm: bool


def flow_path(listed: Listed, pool: Sequence[Worker], previous: Previous, weight: int) -> Placement:
    """The placement of jobs that are all of this weight, but for dedicated ones."""
    now = placement_pool.held(listed.names, listed.distinct, pool, previous)
    reserved = placement_reserve.reserve(listed, pool, now)
    kinds = placement_kinds.kinds(listed, pool, reserved.job_on, reserved.limits)
    sides = [
        Side(
            own,
            kinds.runnable(number, own),
            NEVER if worker.capacity is None else worker.capacity // weight,
            worker.name in now.known and worker.name not in now.spoiled,
        )
        for number, (worker, own) in enumerate(zip(pool, now.kept.values(), strict=True))
    ]
    hopeless, blocks = placement_levels.blocks(kinds.demands, _pool(kinds, sides))
    found = [*blocks, *hopeless]
    wanted: list[Mapping[int, int]] = [{} for _other in pool]
    unchanged = sum(_settle(block, kinds, sides, wanted) for block in found)
    unchanged += _calm_outside(found, kinds, sides, reserved)
    changes = _apply(kinds, sides, wanted, reserved, now.homeless)
    assignment = {worker: tuple(own) for worker, own in now.kept.items()}
    reasons = {kind: why for block in hopeless for kind, why in _reasons(block, kinds, pool, sides, reserved).items()}
    unplaced = {job: reasons[kind] for kind, some in changes.left.items() for job in some} | dict(reserved.unplaced)
    loads = [len(own) for number, own in enumerate(now.kept.values()) if number not in reserved.job_on]
    restarts = placement_pool.restarts(now, previous, assignment, {pool[number].name for number in changes.changed})
    return Placement(
        assignment=assignment,
        unplaced=dict(sorted(unplaced.items())),
        method=METHOD,
        moves=changes.moves,
        least_moves=changes.moves,
        restarts=restarts,
        least_restarts=None if now.disputed or not reserved.is_settled else len(now.known) - unchanged,
        imbalance=(max(loads, default=0) - min(loads, default=0)) * weight,
    )


def _calm_outside(blocks: Sequence[Block], kinds: Kinds, sides: Sequence[Side], reserved: Reserved) -> int:
    """How many workers without a block need no restart: they had nothing, or a dedicated job that stays."""
    inside = {type_ for block in blocks for type_ in block.types}
    return sum(
        side.is_calm and side.own == ([reserved.job_on[number]] if number in reserved.job_on else [])
        for number, side in enumerate(sides)
        if kinds.type_of.get(number) not in inside
    )


def _pool(kinds: Kinds, sides: Sequence[Side]) -> Pool:
    capacities = [sorted(Counter(sides[worker].capacity for worker in type_.workers).items()) for type_ in kinds.types]
    start: list[Counter[int]] = [Counter() for _other in kinds.types]
    for worker, type_ in kinds.type_of.items():
        start[type_].update(sides[worker].has)
    return Pool(kinds.ports, kinds.hubs, capacities, start)


# ---------------------------------------------------------------------------------------------------------------------
# How many each worker has of what


def _settle(block: Block, kinds: Kinds, sides: Sequence[Side], wanted: list[Mapping[int, int]]) -> int:
    """Writes to `wanted` how many jobs each of the block's workers has, by port; at most how many need no restart."""
    bins = sorted(worker for type_ in block.types for worker in kinds.types[type_].workers)
    chosen = placement_levels.ports_of(block.demands)
    local = {port: index for index, port in enumerate(chosen)}
    stays = [{local[port]: jobs for port, jobs in sides[worker].has.items() if port in local} for worker in bins]
    loads = [sum(own.values()) for own in stays]
    over = [load - min(sides[worker].capacity, block.level) for worker, load in zip(bins, loads, strict=True)]
    spare = [int(sides[worker].capacity > block.level) for worker in bins]
    calm = [
        sides[worker].is_calm and load == len(sides[worker].own) and 0 <= more <= extra
        for worker, load, more, extra in zip(bins, loads, over, spare, strict=True)
    ]
    ranked = sorted(range(len(bins)), key=calm.__getitem__)  # what is left to choose goes to those that change anyway
    inside = {hub: set(kinds.hubs[hub]) for hub in {kinds.ports[port].hub for port in chosen}}
    network = placement_levels.assemble(
        block.demands,
        bins,
        kinds.ports,
        lambda hub: [bins[bin_] for bin_ in ranked if kinds.type_of[bins[bin_]] in inside[hub]],
        [load - more for load, more in zip(loads, over, strict=True)],
        stays=stays,
        spare=spare,
        shared=block.shared,
        fare=1,
    )
    _load(network, over, calm)
    network.run()
    for worker, flow in zip(bins, network.flow, strict=True):
        wanted[worker] = {chosen[port]: jobs for port, jobs in flow.items()}
    at_level = sum(is_calm and extra and not more for is_calm, extra, more in zip(calm, spare, over, strict=True))
    one_more = sum(is_calm and more == 1 for is_calm, more in zip(calm, over, strict=True))
    pressed = max(0, block.shared - (sum(spare) - at_level))  # as in placement.least
    return sum(calm) - one_more + min(one_more, block.shared) - pressed


def _load(network: Network, over: Sequence[int], calm: Sequence[bool]) -> None:
    """Begin with what is there, as far as ports, kinds and bins have room.

    Which jobs an overfull bin begins without is no decision, as the flow may put them back at no cost; near is fast.
    """
    flows = [dict(own) for own in network.stays]
    over = list(over)
    _trim_ports(network, flows, over)
    has_one_more = [bin_ for bin_, more in enumerate(over) if more > 0 and network.spare[bin_]]
    has_one_more.sort(key=lambda bin_: not (calm[bin_] and over[bin_] == 1))
    drawn = set(has_one_more[: network.shared])
    # how many jobs the bins behind a hub wait for: what gets there directly is given up first
    pull = [sum(-over[bin_] for bin_ in hub if over[bin_] < 0) for hub in network.hubs]
    for bin_, flow in enumerate(flows):
        surplus = over[bin_] - (bin_ in drawn)
        if surplus > 0:
            for port in sorted(flow, key=lambda port: (-pull[network.ports[port].hub], port)):
                given = min(surplus, flow[port])
                flow[port] -= given
                surplus -= given
        first = bin_ in drawn
        for port, jobs in flow.items():
            if jobs:
                network.load(bin_, port, jobs, int(first))
                first = False


def _trim_ports(network: Network, flows: Sequence[dict[int, int]], over: list[int]) -> None:
    """Takes out what is too much for a port or a kind, first where a bin is too full."""
    total: Counter[int] = Counter()
    for flow in flows:
        total.update(flow)
    left = list(network.left)
    excess = {}
    for port, jobs in sorted(total.items()):
        kind, _other, limit = network.ports[port]
        fits = min(jobs, limit, left[kind])
        left[kind] -= fits
        if fits < jobs:
            excess[port] = jobs - fits
    if not excess:
        return
    for bin_ in sorted(range(len(flows)), key=lambda bin_: (-over[bin_], bin_)):
        for port, jobs in flows[bin_].items():
            taken = min(jobs, excess.get(port, 0))
            if taken:
                flows[bin_][port] -= taken
                excess[port] -= taken
                over[bin_] -= taken


# ---------------------------------------------------------------------------------------------------------------------
# Names


class _Changes(NamedTuple):
    moves: int
    changed: set[int]  # workers, by number
    left: Mapping[int, Sequence[str]]  # jobs that are nowhere, by kind


def _apply(
    kinds: Kinds, sides: Sequence[Side], wanted: Sequence[Mapping[int, int]], reserved: Reserved, homeless: set[str]
) -> _Changes:
    """Gives the workers their jobs, in `own` of their sides."""
    moves, changed = 0, set()
    for number, (side, want) in enumerate(zip(sides, wanted, strict=True)):
        if number in reserved.job_on:
            kept, given = [reserved.job_on[number]], [job for job in side.own if job != reserved.job_on[number]]
        elif want == side.has and len(side.own) == sum(want.values()):
            continue
        else:
            kept, given = _parted(kinds, side, want)
        if kept != side.own:
            changed.add(number)
        moves += len(given)
        homeless.update(given)
        side.own[:] = kept
    waiting: dict[int, list[str]] = {}
    for job in homeless:
        if job in kinds.kind_of:
            waiting.setdefault(kinds.kind_of[job], []).append(job)
    for some in waiting.values():
        some.sort(reverse=True)
    for number, (side, want) in enumerate(zip(sides, wanted, strict=True)):
        for port in sorted(want):
            some = waiting.get(kinds.ports[port].kind, [])
            missing = want[port] - side.has.get(port, 0)
            if missing > 0:
                side.own.extend(reversed(some[-missing:]))
                del some[-missing:]
                changed.add(number)
        side.own.sort()
    return _Changes(moves, changed, waiting)


def _parted(kinds: Kinds, side: Side, want: Mapping[int, int]) -> tuple[list[str], list[str]]:
    """The jobs that stay and those that go: the last of each kind."""
    room = {kinds.ports[port].kind: min(jobs, side.has.get(port, 0)) for port, jobs in want.items()}
    kept, given = [], []
    for job in side.own:
        kind = kinds.kind_of.get(job, -1)  # of a dedicated one: none
        if room.get(kind):
            room[kind] -= 1
            kept.append(job)
        else:
            given.append(job)
    return kept, given


def _reasons(
    block: Block, kinds: Kinds, pool: Sequence[Worker], sides: Sequence[Side], reserved: Reserved
) -> dict[int, str]:
    """Of a hopeless block, by kind: which jobs are too many, and which workers too few."""
    labels = [label for demand in block.demands for label in kinds.labels[demand.kind]]
    workers = sorted(worker for type_ in block.types for worker in kinds.types[type_].workers)
    groups = {group for group, _other in labels}
    why = placement_why.shortage(
        labels,
        sum(demand.jobs for demand in block.demands),
        sum(sides[worker].capacity for worker in workers),
        [pool[worker].name for worker in workers],
        elsewhere=sum(kinds.demands[demand.kind].jobs - demand.jobs for demand in block.demands),
        kept=[pool[worker].name for worker in sorted(reserved.job_on) if groups & pool[worker].takes],
    )
    return {demand.kind: why for demand in block.demands}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many jobs each worker has when as many as possible have one, and the loads are as equal as possible.

Rules
1. Only the kinds of jobs and the types of workers count here, not who had what: the answer is about all placements
   that are as good as can be in both, and a later stage picks among them.
2. It is a list of blocks. A kind's jobs flow in the block that it is in, and each worker of a block has `level` jobs or
   one more, or its capacity where that is less. A zone of a spread kind that is full may be in another block than its
   kind: there it is a demand of its own, which is to be met exactly.
3. A hopeless block has kinds that are too many for all the workers which take them; those have their capacity.
4. Blocks are as small as they can be: what has no worker in common, be it through others, is apart.

Theory: decomposition by minimum cuts (Groenevelt, 1991; Fujishige, 1980). Fill all workers to their mean level. Is a
worker not full, those that can be reached from what is left have more in any best placement, and the others have no
more: each side is solved alone. The dual is a price for each worker, its level, and a kind goes to the cheapest only:
that is complementary slackness, and it says that any flow within the blocks is as good as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_network import (
    NEVER,
    Network,
    Port,
)


class Demand(NamedTuple):
    """So many jobs of one kind, and the ports that they may take, by number."""

    kind: int
    jobs: int
    ports: tuple[int, ...]


class Block(NamedTuple):
    """`shared` of its workers have one more than `level`; NEVER as the level: all have their capacity."""

    demands: tuple[Demand, ...]
    types: tuple[int, ...]
    level: int
    shared: int


class Pool(NamedTuple):
    """Ports by number; hubs as lists of types; a type by its workers' capacities, as (capacity, workers), NEVER: none.

    `start` is a flow to begin with, by type and port, which saves time if it is near.
    """

    ports: Sequence[Port]
    hubs: Sequence[Sequence[int]]
    capacities: Sequence[Sequence[tuple[int, int]]]
    start: Sequence[Mapping[int, int]]

    def room(self, type_: int, level: int) -> int:
        """What its workers have together, each filled to the level or its capacity."""
        return sum(min(capacity, level) * workers for capacity, workers in self.capacities[type_])


def ports_of(demands: Sequence[Demand]) -> list[int]:
    """The numbers of their ports; where they stand are the numbers in `assemble`."""
    return [port for demand in demands for port in demand.ports]


def assemble(
    demands: Sequence[Demand],
    bins: Sequence[int],
    ports: Sequence[Port],
    hub_bins: Callable[[int], Sequence[int]],
    need: Sequence[int],
    **more: Any,
) -> Network:
    """A network of these demands and bins only; all are numbered anew, as they stand."""
    at = {bin_: index for index, bin_ in enumerate(bins)}
    hubs = {hub: index for index, hub in enumerate(dict.fromkeys(ports[port].hub for port in ports_of(demands)))}
    local = [
        Port(index, hubs[ports[port].hub], min(ports[port].limit, demand.jobs))
        for index, demand in enumerate(demands)
        for port in demand.ports
    ]
    inside = [[at[bin_] for bin_ in hub_bins(hub) if bin_ in at] for hub in hubs]
    return Network([demand.jobs for demand in demands], local, inside, need, **more)


def blocks(demands: Sequence[Demand], pool: Pool) -> tuple[list[Block], list[Block]]:
    """The hopeless blocks, and the others."""
    hopeless: list[Block] = []
    waiting: list[_Part] = []
    for part in _apart(demands, range(len(pool.capacities)), pool):
        total = sum(demand.jobs for demand in part[0])
        network = _filled(*part, pool, [min(total, pool.room(type_, NEVER)) for type_ in part[1]])
        high, low = _split(*part, pool, network) if any(network.left) else (None, part)
        hopeless += [Block(*one, NEVER, 0) for one in _apart(*high, pool)] if high else []
        waiting += _apart(*low, pool)
    found: list[Block] = []
    while waiting:
        part = waiting.pop()
        level = _level(*part, pool)
        shared = sum(demand.jobs for demand in part[0]) - sum(pool.room(type_, level) for type_ in part[1])
        sides = _sides(*part, pool, level)
        if sides:
            waiting += [one for side in sides for one in _apart(*side, pool)]
        else:
            found.append(Block(*part, level, shared))
    return hopeless, found


_Part = tuple[tuple[Demand, ...], tuple[int, ...]]


def _apart(demands: Sequence[Demand], types: Sequence[int], pool: Pool) -> list[_Part]:
    """What has no type in common is solved apart; types that nothing is for are dropped."""
    leader = {type_: type_ for type_ in types}

    def find(type_: int) -> int:
        while leader[type_] != type_:
            leader[type_] = type_ = leader[leader[type_]]
        return type_

    behind = {}
    for hub in dict.fromkeys(pool.ports[port].hub for port in ports_of(demands)):
        behind[hub] = [type_ for type_ in pool.hubs[hub] if type_ in leader]
    firsts = [[some[0] for port in demand.ports if (some := behind[pool.ports[port].hub])] for demand in demands]
    for some in (*behind.values(), *firsts):
        for type_ in some[1:]:
            leader[find(type_)] = find(some[0])
    parts: dict[int, tuple[list[Demand], list[int]]] = {}
    for number, (demand, own) in enumerate(zip(demands, firsts, strict=True)):
        parts.setdefault(find(own[0]) if own else -1 - number, ([], []))[0].append(demand)
    for type_ in types:
        if find(type_) in parts:
            parts[find(type_)][1].append(type_)
    return [(tuple(some), tuple(own)) for some, own in parts.values()]


def _sides(demands: Sequence[Demand], types: Sequence[int], pool: Pool, level: int) -> tuple[_Part, _Part] | None:
    """Those that must have more than this level and the others; or who must have more than one more; None: nobody."""
    need = [pool.room(type_, level) for type_ in types]
    network = _filled(demands, types, pool, need)
    if not any(network.room):
        network.raise_room([pool.room(type_, level + 1) - room for type_, room in zip(types, need, strict=True)])
        network.run()
        if not any(network.left):
            return None
    return _split(demands, types, pool, network)


def _level(demands: Sequence[Demand], types: Sequence[int], pool: Pool) -> int:
    """The greatest level to which the jobs could fill all these workers, if each could run any."""
    total = sum(demand.jobs for demand in demands)
    low, high = 0, total + 1
    while high - low > 1:
        middle = (low + high) // 2
        if sum(pool.room(type_, middle) for type_ in types) <= total:
            low = middle
        else:
            high = middle
    return low


def _filled(demands: Sequence[Demand], types: Sequence[int], pool: Pool, need: Sequence[int]) -> Network:
    """The network with a greatest flow."""
    network = assemble(demands, types, pool.ports, pool.hubs.__getitem__, need)
    local = {port: index for index, port in enumerate(ports_of(demands))}
    for index, type_ in enumerate(types):
        for port, jobs in pool.start[type_].items():
            if port in local:
                kind, _other, limit = network.ports[local[port]]
                fits = min(jobs, network.room[index], network.left[kind], limit - network.through[local[port]])
                if fits:
                    network.load(index, local[port], fits)
    network.run()
    return network


def _split(demands: Sequence[Demand], types: Sequence[int], pool: Pool, network: Network) -> tuple[_Part, _Part]:
    """The two sides of the minimum cut: what is left could reach the one, and not the other."""
    kinds, ports, bins = (set(nodes) for nodes in network.cut())
    chosen = ports_of(demands)
    reached = {chosen[port] for port in ports}
    high, low = [], []
    for kind, demand in enumerate(demands):
        inside = tuple(port for port in demand.ports if port in reached)
        outside = tuple(port for port in demand.ports if port not in reached)
        if kind in kinds:
            full = [
                Demand(demand.kind, pool.ports[port].limit, (port,)) for port in outside
            ]  # not reached: no more go there
            high.append(Demand(demand.kind, demand.jobs - sum(one.jobs for one in full), inside))
            low += full
        else:
            low.append(Demand(demand.kind, demand.jobs, outside))
    return (
        (tuple(high), tuple(type_ for index, type_ in enumerate(types) if index in bins)),
        (tuple(low), tuple(type_ for index, type_ in enumerate(types) if index not in bins)),
    )

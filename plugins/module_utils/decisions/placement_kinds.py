# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs that nothing tells apart as kinds, workers that take the same as types: what `placement_flow` reckons with.

Rules
1. The jobs of a spread are a kind, with a port for each zone. Of the others those are a kind which the same workers
   take, be they of several groups.
2. A hub is a set of types: all that take a kind, or those in one zone.
3. All go by number: kinds in the order of (group, spread), types in that of what they take, workers in natural order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_levels import Demand
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_network import Port
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_pool import Listed, Worker, Zones

Label = tuple[str, str]  # group, spread


class Type(NamedTuple):
    takes: frozenset[str]  # of the groups in use
    zone: str  # "" where no kind is spread
    workers: tuple[int, ...]


class Kinds(NamedTuple):
    """`labels` by kind; `port_at` by kind and zone, the zone of what is not spread being ""; `type_of` by worker."""

    kind_of: Mapping[str, int]
    labels: Sequence[Sequence[Label]]
    demands: Sequence[Demand]
    ports: Sequence[Port]
    port_at: Mapping[tuple[int, str], int]
    hubs: Sequence[Sequence[int]]
    types: Sequence[Type]
    type_of: Mapping[int, int]

    def runnable(self, worker: int, own: Collection[str]) -> dict[int, int]:
        """How many of these jobs the worker may run, by port."""
        if worker not in self.type_of:
            return {}
        takes, zone, _other = self.types[self.type_of[worker]]
        found = {}
        for kind, jobs in Counter(map(self.kind_of.get, own)).items():
            if kind is not None:
                group, spread = self.labels[kind][0]
                if group in takes:
                    found[self.port_at[kind, zone if spread else ""]] = jobs
        return found


def kinds(listed: Listed, pool: Sequence[Worker], apart: Collection[int], limits: Zones) -> Kinds:
    """Of the jobs that are not dedicated, on the workers whose numbers are not `apart`; `limits` by (spread, zone)."""
    jobs = [job for job in listed.jobs if not job.dedicated] if listed.has_dedicated else listed.jobs
    key_of = itemgetter(2, 4) if listed.has_spread else itemgetter(2)  # no pair for each job if the group says it all
    counted = Counter(map(key_of, jobs))
    label_at = {key: key if listed.has_spread else (key, "") for key in counted}
    counts = sorted((label_at[key], count) for key, count in counted.items())
    types, takers = _types({label for label, _other in counts}, pool, apart)
    number: dict[Label | tuple[int, ...], int] = {}
    labels: list[list[Label]] = []
    supply: list[int] = []
    for label, count in counts:
        kind = number.setdefault(label if label[1] else takers[label[0]], len(labels))
        if kind == len(labels):
            labels.append([])
            supply.append(0)
        labels[kind].append(label)
        supply[kind] += count
    ports, port_at, hubs = _ports(labels, supply, types, takers, limits)
    ports_of: list[list[int]] = [[] for _other in labels]
    for index, port in enumerate(ports):
        ports_of[port.kind].append(index)
    kind_at = {label: kind for kind, some in enumerate(labels) for label in some}
    kind_of_key = {key: kind_at[label] for key, label in label_at.items()}
    return Kinds(
        kind_of=dict(zip(map(itemgetter(0), jobs), map(kind_of_key.__getitem__, map(key_of, jobs)), strict=True)),
        labels=labels,
        demands=[
            Demand(kind, count, tuple(own)) for kind, (count, own) in enumerate(zip(supply, ports_of, strict=True))
        ],
        ports=ports,
        port_at=port_at,
        hubs=hubs,
        types=types,
        type_of={worker: index for index, type_ in enumerate(types) for worker in type_.workers},
    )


def _types(
    labels: Collection[Label], pool: Sequence[Worker], apart: Collection[int]
) -> tuple[list[Type], dict[str, tuple[int, ...]]]:
    """The types, and for each group the numbers of those that take it."""
    groups = {group for group, _other in labels}
    has_zones = any(spread for _other, spread in labels)
    members: dict[tuple[frozenset[str], str], list[int]] = {}
    for worker, (_other, takes, _more, zone) in enumerate(pool):
        if worker not in apart:
            members.setdefault((frozenset(takes & groups), zone if has_zones else ""), []).append(worker)
    ordered = sorted(members, key=lambda key: (sorted(key[0]), key[1]))
    types = [Type(*key, tuple(members[key])) for key in ordered]
    return types, {
        group: tuple(index for index, type_ in enumerate(types) if group in type_.takes) for group in sorted(groups)
    }


def _ports(
    labels: Sequence[Sequence[Label]],
    supply: Sequence[int],
    types: Sequence[Type],
    takers: Mapping[str, tuple[int, ...]],
    limits: Zones,
) -> tuple[list[Port], dict[tuple[int, str], int], list[tuple[int, ...]]]:
    """Ports, their numbers by kind and zone, and hubs."""
    zoned: dict[str, dict[str, list[int]]] = {}
    for group, some in takers.items():
        for index in some:
            zoned.setdefault(group, {}).setdefault(types[index].zone, []).append(index)
    hubs: dict[tuple[int, ...], int] = {}
    ports: list[Port] = []
    port_at: dict[tuple[int, str], int] = {}
    for kind, ((group, spread), *_other) in enumerate(labels):
        parts = {zone: tuple(some) for zone, some in sorted(zoned.get(group, {}).items())} if spread else {}
        if not spread and takers[group]:
            parts[""] = takers[group]
        for zone, hub in parts.items():
            port_at[kind, zone] = len(ports)
            limit = limits[spread, zone] if spread else supply[kind]
            ports.append(Port(kind, hubs.setdefault(hub, len(hubs)), limit))
    return ports, port_at, list(hubs)

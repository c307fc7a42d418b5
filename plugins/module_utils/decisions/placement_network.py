# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cheapest flow of jobs into bins: the one solver behind all stages of `placement_flow`.

Rules
1. Jobs that nothing tells apart are one kind, and flow as a number. A kind sends its jobs through its ports, which have
   limits (a zone of a spread kind); a port leads to a hub, which leads to its bins (workers, or workers of one type).
2. In a bin the first `stays` jobs of a port cost nothing, the others `fare` each; a bin's `toll` comes on top.
3. A bin takes `need` jobs. What it may have beyond that, `spare`, it draws from a number that all bins share.
4. As many jobs as possible flow, at the least cost. What is loaded before `run` must cost nothing.

Theory: successive shortest paths with potentials, all paths of one length at once (primal-dual; Ahuja, Magnanti and
Orlin, Network Flows, 1993, 9.7 and 9.8), by layers as in Dinic's algorithm. Start and costs are such that a change
of membership takes a few rounds. Hubs keep a round linear in hubs x bins, whatever the number of kinds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

NEVER: Final = 1 << 60  # farther and more than anything


class Port(NamedTuple):
    """Of a kind; at most `limit` of its jobs flow through it to the bins of `hub`."""

    kind: int
    hub: int
    limit: int


class Network:
    """`left` by kind, `through` by port, `flow` by bin and port, and `room` by bin tell the state."""

    def __init__(
        self,
        supply: Sequence[int],
        ports: Sequence[Port],
        hubs: Sequence[Sequence[int]],
        need: Sequence[int],
        *,
        stays: Sequence[Mapping[int, int]] | None = None,
        spare: Sequence[int] | None = None,
        shared: int = 0,
        fare: int = 0,
        toll: Sequence[int] | None = None,
    ) -> None:
        bins = len(need)
        self.left = list(supply)
        self.ports, self.hubs = ports, hubs
        self.through = [0] * len(ports)
        self.room = list(need)
        self.stays: Sequence[Mapping[int, int]] = stays or [{}] * bins
        self.flow: list[dict[int, int]] = [{} for _other in need]
        self.spare = list(spare) if spare else [0] * bins
        self.drawn = [0] * bins  # of spare
        self.shared = shared
        self._fare = fare
        self._toll = toll or [0] * bins
        self._ports_of: list[list[int]] = [[] for _other in supply]
        for port, (kind, _other, _more) in enumerate(ports):
            self._ports_of[kind].append(port)
        # stays that are not taken: bins by port, in a dict for its order
        self._open: list[dict[int, None]] = [{} for _other in ports]
        for bin_, own in enumerate(self.stays):
            for port in own:
                self._open[port][bin_] = None
        # nodes are numbered: kinds, ports, hubs, bins, the shared number, the sink
        self._port = len(supply)
        self._hub = self._port + len(ports)
        self._bin = self._hub + len(hubs)
        self._pot = self._bin + bins
        self._sink = self._pot + 1
        self._price = [0] * (self._sink + 1)

    def load(self, bin_: int, port: int, jobs: int, drawn: int = 0) -> None:
        """Begin with this flow, `drawn` of it on the bin's spare; no more than stays there."""
        self.left[self.ports[port].kind] -= jobs
        self.through[port] += jobs
        self.room[bin_] -= jobs - drawn
        self.drawn[bin_] += drawn
        self.shared -= drawn
        self._add(bin_, port, jobs)

    def raise_room(self, more: Sequence[int]) -> None:
        """The bins take so many more."""
        self.room = [room + extra for room, extra in zip(self.room, more, strict=True)]

    def run(self) -> None:
        while any(self.left) and (self.shared or any(self.room)):
            distance, layer, onward = self._search()
            if distance[self._sink] == NEVER:
                return
            farthest = distance[self._sink]
            self._price = [price + min(far, farthest) for price, far in zip(self._price, distance, strict=True)]
            self._augment(layer, onward)

    def cut(self) -> tuple[list[int], list[int], list[int]]:
        """After `run`: kinds, ports and bins that what is left could still reach; its bins are full.

        It is the least of all minimum cuts, so it does not depend on which of the greatest flows was found.
        """
        distance, _other, _more = self._search()

        def reached(start: int, end: int) -> list[int]:
            return [node - start for node in range(start, end) if distance[node] < NEVER]

        return reached(0, self._port), reached(self._port, self._hub), reached(self._bin, self._pot)

    # ----------------------------------------------------------------------------------------- the residual network

    def _arcs(self, node: int) -> Iterator[tuple[int, int]]:
        """Where one more job may go from here, and what that costs."""
        if node >= self._pot:
            if node == self._pot:
                if self.shared:
                    yield self._sink, 0
                yield from ((self._bin + bin_, 0) for bin_, drawn in enumerate(self.drawn) if drawn)
        elif node >= self._bin:
            bin_ = node - self._bin
            if self.room[bin_]:
                yield self._sink, self._toll[bin_]
            if self.drawn[bin_] < self.spare[bin_]:
                yield self._pot, 0
            stays, fare = self.stays[bin_], self._fare
            for port, jobs in self.flow[bin_].items():
                yield self._port + port, -fare if jobs > stays.get(port, 0) else 0
        elif node >= self._hub:
            first = self._bin
            yield from ((first + bin_, 0) for bin_ in self.hubs[node - self._hub])
        elif node >= self._port:
            port = node - self._port
            yield from ((self._bin + bin_, 0) for bin_ in self._open[port])
            yield self._hub + self.ports[port].hub, self._fare
            if self.through[port]:
                yield self.ports[port].kind, 0
        else:
            for port in self._ports_of[node]:
                if self.through[port] < self.ports[port].limit:
                    yield self._port + port, 0

    def _room(self, node: int, to: int) -> tuple[int, int]:
        """How many jobs the arc takes, and what each costs."""
        if node == self._pot:
            return (self.shared if to == self._sink else self.drawn[to - self._bin]), 0
        if node >= self._bin:
            bin_ = node - self._bin
            if to == self._sink:
                return self.room[bin_], self._toll[bin_]
            if to == self._pot:
                return self.spare[bin_] - self.drawn[bin_], 0
            jobs, stays = self.flow[bin_].get(to - self._port, 0), self.stays[bin_].get(to - self._port, 0)
            return (jobs - stays, -self._fare) if jobs > stays else (jobs, 0)
        if node >= self._hub:
            return NEVER, 0
        if node >= self._port:
            port = node - self._port
            if to >= self._bin:
                bin_ = to - self._bin
                return self.stays[bin_].get(port, 0) - self.flow[bin_].get(port, 0), 0
            return (NEVER, self._fare) if to >= self._hub else (self.through[port], 0)
        port = to - self._port
        return self.ports[port].limit - self.through[port], 0

    # ------------------------------------------------------------------------------------------------- one round

    def _search(self) -> tuple[list[int], list[int], list[list[int]]]:
        """Distances from what is left, by prices; layers within them; onward arcs which may lie on a shortest path."""
        price, sink = self._price, self._sink
        distance, layer = [NEVER] * (sink + 1), [0] * (sink + 1)
        onward: list[list[int]] = [[] for _other in distance]
        done = bytearray(sink + 1)
        sources = [kind for kind, left in enumerate(self.left) if left]
        for kind in sources:
            distance[kind] = 0
        waiting, lengths = {0: sources}, [0]
        while lengths and lengths[0] <= distance[sink]:
            length = heapq.heappop(lengths)
            queue = waiting.pop(length)
            for node in queue:  # it grows meanwhile
                if done[node] or distance[node] != length or (length == distance[sink] and layer[node] >= layer[sink]):
                    continue
                done[node] = 1
                here, next_layer, out = length + price[node], layer[node] + 1, onward[node]
                for to, cost in self._arcs(node):
                    far = here + cost - price[to]
                    if far < distance[to]:
                        distance[to], layer[to] = far, next_layer
                        out.append(to)
                        if far == length:
                            queue.append(to)
                        elif far in waiting:
                            waiting[far].append(to)
                        else:
                            waiting[far] = [to]
                            heapq.heappush(lengths, far)
                    elif far == distance[to] and layer[to] == next_layer:
                        out.append(to)
        return distance, layer, onward

    def _augment(self, layer: Sequence[int], onward: Sequence[list[int]]) -> None:
        """Fill the shortest paths, depth first, until each has a full arc."""
        for out in onward:
            out.reverse()  # taken from the end: in the order in which they were found
        price, sink = self._price, self._sink
        for kind, left in enumerate(self.left):
            path = [kind] if left else []
            while path:
                node = path[-1]
                out = onward[node]
                while out:
                    to = out[-1]
                    if layer[to] == layer[node] + 1:
                        room, cost = self._room(node, to)
                        if room and cost + price[node] == price[to]:
                            break
                    out.pop()
                else:
                    path.pop()
                    if path:
                        onward[path[-1]].pop()
                    continue
                path.append(to)
                if to == sink:
                    self._push(path)
                    path = [kind] if self.left[kind] else []

    def _push(self, path: Sequence[int]) -> None:
        """As much as fits; a job goes from a port to a bin directly where it stays, else by the hub."""
        arcs = list(pairwise(path))
        jobs = min(self.left[path[0]], *(self._room(node, to)[0] for node, to in arcs))
        self.left[path[0]] -= jobs
        came_from = path[0]
        for node, to in arcs:
            if to >= self._bin and node == self._pot:
                if to == self._sink:
                    self.shared -= jobs
                else:
                    self.drawn[to - self._bin] -= jobs
            elif node >= self._bin:
                if to == self._sink:
                    self.room[node - self._bin] -= jobs
                elif to == self._pot:
                    self.drawn[node - self._bin] += jobs
                else:
                    self._add(node - self._bin, to - self._port, -jobs)
            elif node >= self._hub:
                self._add(to - self._bin, came_from - self._port, jobs)
            elif node >= self._port:
                if to >= self._bin:
                    self._add(to - self._bin, node - self._port, jobs)
                elif to < self._port:
                    self.through[node - self._port] -= jobs
            else:
                self.through[to - self._port] += jobs
            came_from = node

    def _add(self, bin_: int, port: int, jobs: int) -> None:
        flow = self.flow[bin_]
        total = flow.get(port, 0) + jobs
        if total:
            flow[port] = total
        else:
            del flow[port]
        stays = self.stays[bin_].get(port, 0)
        if total < stays:
            self._open[port][bin_] = None
        elif stays:
            self._open[port].pop(bin_, None)

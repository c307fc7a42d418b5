# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one embedded cluster is: name, level, addresses, ports, places. Pure; all else is derived from it."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster import ClusterError

CONTROL_PLANE, NODE = "control-plane", "node"
LEVELS = (CONTROL_PLANE, NODE)
DEFAULT_NAMES = {CONTROL_PLANE: "muster-cp", NODE: "muster"}
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")

# 256 blocks of 4,096 addresses; in each: pods /21, services /22, the link to the host in the last /30.
BLOCKS = ipaddress.ip_network("10.160.0.0/12")
BLOCK_PREFIX = 20
# Below the ephemeral range (from 32768), so that no outgoing connection takes the port of a restarting server.
PORT_BASE, PORT_STEP, PORT_SLOTS = 20000, 10, 1000


@dataclass(frozen=True)
class Ports:
    """TCP ports of the control plane."""

    apiserver: int = 6443
    etcd: int = 2379
    etcd_peer: int = 2380
    etcd_metrics: int = 2381
    controller_manager: int = 10257
    scheduler: int = 10259

    def all(self) -> list[int]:
        return list(asdict(self).values())


@dataclass(frozen=True)
class Spec:
    """One embedded cluster. `directory` is absolute and is its identity; `block` is an IPv4 /20."""

    name: str
    level: str
    directory: str
    block: str
    ports: Ports
    audit: bool = False

    @property
    def path(self) -> Path:
        return Path(self.directory)

    @property
    def node(self) -> bool:
        return self.level == NODE

    @property
    def pod_cidr(self) -> str:
        return str(next(ipaddress.ip_network(self.block).subnets(new_prefix=21)))

    @property
    def service_cidr(self) -> str:
        return str(list(ipaddress.ip_network(self.block).subnets(new_prefix=22))[2])

    @property
    def service_ip(self) -> str:
        """The ClusterIP of the API server: by rule the first address of the service range."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def host_address(self) -> str:
        """The host's end of the link (node level)."""
        return str(ipaddress.ip_network(self.block)[-3])

    @property
    def address(self) -> str:
        """Where the servers are reached from the host."""
        return str(ipaddress.ip_network(self.block)[-2]) if self.node else "127.0.0.1"

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.ports.apiserver}"

    @property
    def host_name(self) -> str:
        return host_name(self.directory)

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def parse(cls, text: str) -> Spec:
        """The inverse of `dump`. Raises ValueError or TypeError when the text is not of this version."""
        fields = json.loads(text)
        return cls(**{**fields, "ports": Ports(**fields["ports"])})


def identity(directory: str) -> str:
    """Eight hex digits which differ for each state directory: two checkouts may both run a `muster`."""
    return hashlib.sha256(directory.encode()).hexdigest()[:8]


def host_name(directory: str) -> str:
    """The name of a cluster's cgroup, and of the host's end of its link (15 characters, the kernel's limit)."""
    return f"muster-{identity(directory)}"


def check_name(name: str) -> str:
    """The name, when it is fit for a node name. Raises ClusterError which says what is."""
    if not NAME.fullmatch(name):
        raise ClusterError(
            f"cluster name {name!r} is not valid: use at most 40 lower case letters, digits and '-', "
            "beginning and ending with a letter or digit"
        )
    return name


def make(
    name: str,
    level: str,
    directory: str,
    *,
    audit: bool = False,
    subnet: str = "",
    taken: Iterable[str] = (),
    port_free: Callable[[int], bool] = lambda port: True,
) -> Spec:
    """Derive a cluster from its name.

    `subnet` is an IPv4 /20 which overrides the derived block; `taken` are networks in CIDR notation which it must
    not overlap (the host's routes); `port_free` says whether a loopback port may be used (control-plane level).
    Raises ClusterError when nothing is free.
    """
    start = int(identity(directory), 16)
    block = _block(start, subnet, [ipaddress.IPv4Network(n, strict=False) for n in taken] if level == NODE else [])
    ports = Ports() if level == NODE else _ports(start, port_free)
    return Spec(check_name(name), level, directory, block, ports, audit)


def _block(start: int, subnet: str, taken: list[ipaddress.IPv4Network]) -> str:
    if subnet:
        try:
            wanted = ipaddress.IPv4Network(subnet)
        except ValueError as error:
            raise ClusterError(f"MUSTER_CLUSTER_SUBNET={subnet!r} is not an IPv4 network: {error}") from None
        if wanted.prefixlen != BLOCK_PREFIX:
            raise ClusterError(f"MUSTER_CLUSTER_SUBNET={subnet} must be a /{BLOCK_PREFIX}, for example 10.160.16.0/20")
        candidates = [wanted]
    else:
        blocks = [ipaddress.IPv4Network(b) for b in BLOCKS.subnets(new_prefix=BLOCK_PREFIX)]
        candidates = [blocks[(start + i) % len(blocks)] for i in range(len(blocks))]
    for block in candidates:
        if not any(block.overlaps(other) for other in taken):
            return str(block)
    raise ClusterError(
        f"no free subnet: {subnet or BLOCKS} overlaps the host's routes ({', '.join(map(str, taken))}). "
        "Set MUSTER_CLUSTER_SUBNET to a private /20 which nothing else here uses, for example 10.99.16.0/20"
    )


def _ports(start: int, port_free: Callable[[int], bool]) -> Ports:
    for i in range(PORT_SLOTS):
        base = PORT_BASE + PORT_STEP * ((start + i) % PORT_SLOTS)
        ports = Ports(*(base + offset for offset in range(6)))
        if all(map(port_free, ports.all())):
            return ports
    raise ClusterError(f"no free ports on 127.0.0.1 between {PORT_BASE} and {PORT_BASE + PORT_STEP * PORT_SLOTS}")

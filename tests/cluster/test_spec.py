# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names, addresses and ports of clusters: derived, stable, and apart from one another."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import ClusterError
from cluster.spec import BLOCKS, CONTROL_PLANE, NODE, Spec, host_name, make

DIRECTORIES = st.text("abcdefghij/-", min_size=1, max_size=40).map(lambda text: f"/{text}")


@given(DIRECTORIES)
def test_parts_of_the_block_do_not_overlap(directory: str) -> None:
    spec = make("a", NODE, directory)
    block, pods, services = (ip_network(n) for n in (spec.block, spec.pod_cidr, spec.service_cidr))
    assert block.subnet_of(BLOCKS)  # type: ignore[arg-type]
    link = ip_network(f"{spec.address}/30", strict=False)
    assert ip_address(spec.host_address) in link
    assert ip_address(spec.service_ip) in services
    parts = [pods, services, link]
    assert all(part.subnet_of(block) for part in parts)  # type: ignore[arg-type]
    assert not any(a.overlaps(b) for i, a in enumerate(parts) for b in parts[i + 1 :])


@given(DIRECTORIES)
def test_block_avoids_what_the_host_routes(directory: str) -> None:
    first = make("a", NODE, directory)
    second = make("a", NODE, directory, taken=[first.block, "10.160.0.0/13"])
    assert not ip_network(second.block).overlaps(ip_network(first.block))
    assert not ip_network(second.block).overlaps(ip_network("10.160.0.0/13"))


def test_no_free_block_says_what_is_in_the_way() -> None:
    with pytest.raises(ClusterError, match=r"10\.0\.0\.0/8.*Set MUSTER_CLUSTER_SUBNET"):
        make("a", NODE, "/a", taken=["10.0.0.0/8"])


def test_chosen_subnet_is_used_and_checked() -> None:
    assert make("a", NODE, "/a", subnet="10.99.16.0/20").block == "10.99.16.0/20"
    with pytest.raises(ClusterError, match="overlaps the host's routes"):
        make("a", NODE, "/a", subnet="10.99.16.0/20", taken=["10.99.0.0/16"])
    for wrong in ("10.99.16.0/24", "10.99.17.0/20", "fd00::/20", "x"):
        with pytest.raises(ClusterError, match="MUSTER_CLUSTER_SUBNET"):
            make("a", NODE, "/a", subnet=wrong)


def test_ports_step_aside_together_and_stay_below_the_ephemeral_range() -> None:
    first = make("a", CONTROL_PLANE, "/a").ports
    second = make("a", CONTROL_PLANE, "/a", port_free=lambda port: port != first.scheduler).ports
    assert not set(first.all()) & set(second.all())
    assert max(first.all() + second.all()) < 32768
    assert len(set(first.all())) == 6
    with pytest.raises(ClusterError, match="no free ports"):
        make("a", CONTROL_PLANE, "/a", port_free=lambda port: False)


def test_control_plane_is_reached_on_loopback_only() -> None:
    spec = make("a", CONTROL_PLANE, "/a", taken=["10.0.0.0/8"])
    assert spec.server == f"https://127.0.0.1:{spec.ports.apiserver}"


def test_same_name_in_two_checkouts_has_its_own_traces_on_the_host() -> None:
    names = {host_name("/one/.cluster/muster"), host_name("/two/.cluster/muster")}
    assert len(names) == 2
    assert max(map(len, names)) <= 15  # the kernel's limit for a link


@pytest.mark.parametrize("name", ["", "Muster", "a_b", "-a", "a-", "a" * 41, "../x"])
def test_names_unfit_for_a_node_are_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="is not valid: use"):
        make(name, NODE, "/a")


def test_record_survives_a_round_trip() -> None:
    spec = make("a", CONTROL_PLANE, "/a", audit=True)
    assert Spec.parse(spec.dump()) == spec

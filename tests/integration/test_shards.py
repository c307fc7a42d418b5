# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replicas that share keys by shards, as processes on a real kube-apiserver: 1 -> 3 -> 1, killed and told to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, LEASES, Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import members
from ansible_collections.muster.coordination.plugins.module_utils.verbs import tables
from ansible_collections.muster.coordination.tests.support.replica_process import NAME, PATIENCE, Site
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

pytestmark = pytest.mark.integration

SHARDS = 12
OPTIONS = ("--replicas-mode", "shard", "--shards", str(SHARDS), "--shard-by", "object", "--lease-seconds", "4")
OBJECTS = 40


@pytest.fixture
def make(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def site(*options: str) -> Site:
        made.append(Site(api, namespace, kubeconfig, tmp_path, *options))
        return made[-1]

    yield site
    for one in made:
        one.close()


def settled(site: Site, *names: str, shards: int = SHARDS) -> Counter[str]:
    """Wait until each shard is owned by one of these, by the table and by what they recorded; how many each has."""

    def owners() -> Counter[str]:
        table = tables.read(site.api.get(CONFIGMAPS, members.table_name(NAME), site.namespace))
        if not table or not table.is_settled:
            return Counter()
        acting = {note.scope: note for note in site.acting().values()}
        believed = Counter(note.who.partition("_")[0] for note in acting.values())
        written = Counter(owner.member for owner in table.owners if owner)
        return written if believed == written and written.total() == shards and {*written} <= {*names} else Counter()

    until(lambda: site.all_is_well() and there(site) and {*owners()} == {*names}, f"{names} to share", PATIENCE)
    return owners()


def there(site: Site) -> bool:
    listed = site.api.list(CONFIGMAPS, site.namespace, field_selector=f"metadata.name={members.table_name(NAME)}")
    return bool(listed.items)


def all_are_looked_after(site: Site, text: str) -> None:
    """Each object that is changed now is seen to by whoever owns it."""
    for number in range(OBJECTS):
        site.wants(f"thing-{number}", text)
    first = dict(site.sums())
    until(lambda: all(site.sums().values()), "all sums", PATIENCE)
    until(lambda: len({*site.sums().values()}) == 1, f"the sums of {text} everywhere, after {first}", PATIENCE)


def test_replicas_come_and_go_and_each_key_has_one_owner(make: Callable[..., Site]) -> None:
    site = make(*OPTIONS)
    site.start("a")
    assert settled(site, "a") == {"a": SHARDS}
    all_are_looked_after(site, "one replica")
    for name in ("b", "c"):
        site.start(name)
    assert settled(site, "a", "b", "c") == {"a": 4, "b": 4, "c": 4}
    all_are_looked_after(site, "three replicas")
    for name in ("a", "b"):
        site.process(name).send(15)
    assert settled(site, "c") == {"c": SHARDS}
    all_are_looked_after(site, "one again")
    assert len(site.judge()) == SHARDS


def test_the_shards_of_one_that_is_killed_go_to_the_others(make: Callable[..., Site]) -> None:
    site = make(*OPTIONS)
    for name in ("a", "b", "c"):
        site.start(name)
    settled(site, "a", "b", "c")
    site.process("b").kill()
    assert settled(site, "a", "c") == {"a": 6, "c": 6}
    all_are_looked_after(site, "two are left")
    site.judge()


def test_a_member_whose_lease_is_deleted_comes_back_with_other_fences(make: Callable[..., Site]) -> None:
    site = make(*OPTIONS)
    for name in ("a", "b"):
        site.start(name)
    settled(site, "a", "b")
    begun = sum(note.event == "begin" for note in site.notes())
    site.api.delete(LEASES, members.lease_name(NAME, "a"), site.namespace)
    until(lambda: sum(note.event == "begin" for note in site.notes()) >= begun + SHARDS // 2, "new terms", PATIENCE)
    settled(site, "a", "b")
    site.judge()


def test_as_the_seed_did_it_by_the_number_of_the_pod(make: Callable[..., Site]) -> None:
    options = ["--shard-strategy", "pod-num", "--replicas", "2", "--shard-by", "namespace"]
    site = make(*OPTIONS, *options)
    for name in ("vm-0", "vm-1"):
        site.start(name)
    settled(site, "vm-0", "vm-1", shards=2)
    expected = f"vm-{sum(map(ord, site.namespace)) % 2}"
    site.wants("one", "x")
    until(lambda: all(site.sums().values()), "the sum", PATIENCE)
    table = tables.read(site.api.get(CONFIGMAPS, members.table_name(NAME), site.namespace))
    assert table is not None
    owner = table.owners[table.layout.shard_of(site.namespace)]
    assert owner is not None and owner.member == expected
    site.judge()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Histories of several users, processes, sweepers and deaths, at random: limits hold, and nothing is left behind.

Whatever somebody does, others step in before any of its writes, and do all that they want to do there. So orders come
up that no schedule of a real machine would show in years.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.api import DEPLOYMENTS, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator_sweep as sweep
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import POOL, Refused, Wish
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator_sweep import (
    Free,
    Known,
    Place,
    Sight,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import INSTANCE
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import (
    CLOSING,
    HELD,
    RESERVED,
    Entry,
    Ledger,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES
from ansible_collections.muster.coordination.tests.support.allocator_lab import (
    ANN,
    BOB,
    Killed,
    MemoryNature,
    Process,
    Reign,
    Site,
    offer,
)
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

PER_USER, TOTAL_LIMIT, WARM = 2, 3, 1
KEYS = ("k1", "k2", "k3")
DEPTH = 2  # so deep do others step in into one another


class History:
    """One of them, by a seed."""

    def __init__(self, seed: int, *, warm: int) -> None:
        self.dice = random.Random(seed)
        self.api = MemoryApi()
        settings = {"max_instances": TOTAL_LIMIT, "max_instances_per_user": PER_USER, "warm": warm}
        self.site = Site(self.api, "ns", MemoryNature(self.api), offer(**settings))
        self.depth = 0
        self.did: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.clock = 0.0
        self.sweeping: Process | None = None
        self.is_sweeping = False

    def run(self, actions: int) -> None:
        for _number in range(actions):
            self.one()

    def one(self) -> None:
        """Somebody does something, and perhaps dies of it."""
        lives = self.dice.randrange(1, 12) if self.dice.random() < 0.3 else None
        process = self.site.process(lives)
        process.api.before = self.between
        what = self.dice.choice(("create", "create", "destroy", "turn", "turn", "sweep", "warm", "suspend", "reset"))
        self.depth += 1
        try:
            getattr(self, what)(process)
            self.did[what] += 1
        except (Refused, ApiError) as error:
            self.did[type(error).__name__] += 1
        except Killed:
            self.did["died"] += 1
        finally:
            self.depth -= 1

    def between(self) -> None:
        """Right before a write: others step in."""
        self.judge_limits()
        if self.depth < DEPTH and self.dice.random() < 0.25:
            self.one()

    # ------------------------------------------------------------------------------------------ what is done

    def create(self, process: Process) -> None:
        who = self.dice.choice((ANN, BOB))
        storage = self.dice.choice(("delete", "delete", "retain"))
        kept = [each["name"] for each in process.allocator.disks(who)]
        attach = self.dice.choice(kept) if kept and self.dice.random() < 0.5 else ""
        wish = Wish(storage=storage, attach=attach)
        process.allocator.create(who, self.dice.choice(KEYS), wish)

    def some(self, process: Process) -> tuple[Any, str] | None:
        mine = [(obj["spec"]["owner"], obj["metadata"]["name"]) for obj in process.listed() if obj["spec"]["owner"]]
        if not mine:
            return None
        owner, name = self.dice.choice(mine)
        return (ANN if owner == ANN.name else BOB), name

    def destroy(self, process: Process) -> None:
        if found := self.some(process):
            process.allocator.destroy(*found, self.dice.choice((None, "retain", "delete")))

    def suspend(self, process: Process) -> None:
        if found := self.some(process):
            process.allocator.suspend(*found, self.dice.random() < 0.5)

    def reset(self, process: Process) -> None:
        if found := self.some(process):
            process.allocator.reset(*found)

    def turn(self, process: Process) -> None:
        with suppress(StopIteration):
            process.turn()
        self.site.nature.turn()

    def sweep(self, process: Process) -> None:
        """By one that lives longer than the others, so that it has seen reservations before."""
        if self.is_sweeping:
            return  # it is one thread
        if self.sweeping is None:
            self.sweeping = process
        self.clock += self.dice.choice((1, 30, 61))
        self.sweeping.clock = self.clock
        self.is_sweeping = True
        try:
            self.sweeping.sweeper.sweep(Reign())
        except Killed:
            self.sweeping = None
            raise
        finally:
            self.is_sweeping = False

    def warm(self, process: Process) -> None:
        process.warm.keep(Reign())

    # ------------------------------------------------------------------------------------------ what has to be true

    def judge_limits(self) -> None:
        """At any moment: nobody has workloads of more instances than are allowed, nor have all together."""
        owners = {obj["metadata"]["uid"]: obj["spec"].get("owner") for obj in self.api.list(INSTANCES, "ns").items}
        having = Counter(
            owners.get(obj["metadata"]["ownerReferences"][0]["uid"]) or ""
            for obj in self.api.list(DEPLOYMENTS, "ns").items
        )
        for owner, count in having.items():
            if owner and count > PER_USER:
                self.wrong.append(f"{owner} has workloads of {count} instances")
        if sum(count for owner, count in having.items() if owner) > TOTAL_LIMIT:
            self.wrong.append(f"there are workloads of {having}")

    def end(self) -> list[str]:
        """All goes quiet, and is swept: what is wrong."""
        emptied = {obj["spec"].get("attach") for obj in self.site.instances() if obj["spec"].get("resets")}
        kept = {
            obj["metadata"]["uid"]: obj["metadata"]["name"]
            for obj in self.api.list(DISKS, "ns").items
            if "muster.dev/retained-by" in obj["metadata"]["labels"] and obj["metadata"]["name"] not in emptied
        }
        process = self.site.process()
        for _round in range(4):
            self.site.until(process, lambda: self.is_quiet(process), "quiet")
            process.sweep(61)
        wrong = self.wrong + self.site.judge(limit=PER_USER)
        there = {obj["metadata"]["uid"] for obj in self.api.list(DISKS, "ns").items}
        return wrong + [f"the kept disk {name} is lost" for uid, name in kept.items() if uid not in there]

    def is_quiet(self, process: Process) -> bool:
        """Whether turns change nothing any more."""
        before = self.api.version
        with suppress(ApiError):
            process.turn()
        self.site.nature.turn()
        return self.api.version == before


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # a seed can't shrink
@given(st.integers(0, 2**32), st.sampled_from((0, WARM)))
def test_limits_hold_and_nothing_is_left_whatever_happens(seed: int, warm: int) -> None:
    history = History(seed, warm=warm)
    history.run(30)
    assert history.end() == [], history.did


# ------------------------------------------------------------------------------------------ the sweeper's decisions

NAMES = ("kv-1", "kv-2")
OWNERS = ("ann", "bob", POOL)
ENTRIES = st.builds(
    lambda name, state, uid, key: Entry(name, key, "d", state, "" if state == RESERVED else uid),
    st.sampled_from(NAMES),
    st.sampled_from((RESERVED, HELD, CLOSING)),
    st.sampled_from(("u1", "u2")),
    st.sampled_from(("k1", "k2")),
)
LEDGERS = st.lists(ENTRIES, max_size=2).map(lambda entries: {entry.handle: entry for entry in entries})
KNOWN = st.builds(Known, st.sampled_from(("u1", "u2")), st.sampled_from(("", "ann", "bob")))


def made(name: str, uid: str, *, kept: bool = False) -> Any:
    owner = {"apiVersion": "muster.dev/v1alpha1", "kind": "Instance", "name": name, "uid": uid}
    labels = {"muster.dev/allocator": "kv", **({"muster.dev/retained-by": "x"} if kept else {INSTANCE: name})}
    metadata = {"name": name, "uid": f"of {uid}", "labels": labels, "ownerReferences": [] if kept else [owner]}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata}


SIGHTS = st.builds(
    lambda total, ledgers, instances, objects: Sight(
        Ledger("", total),
        tuple(Ledger(owner, entries) for owner, entries in ledgers.items()),
        tuple(made(*each) for each in objects),
        instances,
    ),
    LEDGERS,
    st.dictionaries(st.sampled_from(OWNERS), LEDGERS, max_size=3),
    st.dictionaries(st.sampled_from(NAMES), KNOWN, max_size=2),
    st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(("u1", "u2"))), max_size=3),
)


@settings(max_examples=400, deadline=None)
@given(SIGHTS, st.floats(0, 200), st.floats(0, 200))
def test_what_is_swept_belongs_to_nobody(sight: Sight, first: float, later: float) -> None:
    _found, since = sweep.findings(sight, {}, first, POOL)
    found, still = sweep.findings(sight, since, first + later, POOL)
    uids = {known.uid for known in sight.instances.values()}
    left = {uid for obj in sight.objects for _name, uid in sweep.owners(obj)}
    assert still == since, "nothing has changed"
    freed = [each.place for each in found if isinstance(each, Free)]
    for place in freed:
        assert not sweep.belongs(place, sight.instances, POOL)
        if not place.entry.uid:
            assert later >= sweep.PATIENCE_SECONDS
        elif place.entry.uid not in uids:
            assert place.entry.uid not in left, "something is there still that was made for it"
    for each in found:
        if not isinstance(each, Free):
            assert each.owner not in uids
    total = [place for place in freed if not place.owner]
    assert freed[: len(total)] == total, "the total's place goes first"
    for place in total:
        others = [
            Place(ledger.owner, ledger.entries[place.entry.handle])
            for ledger in sight.ledgers
            if place.entry.handle in ledger.entries and ledger.owner != POOL
        ]
        assert all(other in freed for other in others), "nobody else has a place of this name then"


def test_a_place_is_found_again_by_all_that_is_in_it() -> None:
    entry = Entry("kv-1", "k", "d")
    place = Place("ann", entry)
    assert {place: 1.0}[Place("ann", Entry("kv-1", "k", "d"))] == 1.0
    assert Place("ann", entry._replace(since="later")) != place
    with pytest.raises(TypeError):
        hash(entry)  # as it is in itself, for it has a mapping

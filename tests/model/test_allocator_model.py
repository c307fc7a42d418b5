# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every interleaving of requests of those who create, claim, destroy and sweep, with deaths: limits are exact, and
nothing is left over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from unittest import mock

import pytest

from ansible_collections.muster.coordination.plugins.module_utils import commit as committing
from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as ledger_decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    POOL,
    Caller,
    Offer,
    Refused,
    Wish,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import FINALIZER, INSTANCE
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import parse
from ansible_collections.muster.coordination.plugins.module_utils.verbs import allocator as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs import ledgers as ledger_verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES, Allocator
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import TOTAL, Ledgers
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from ansible_collections.muster.coordination.tests.support.replayed import Search
from muster.allocator.controller import Instances
from muster.allocator.sweeper import Sweeper

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{.Name}}"}, "data": {}}
ANN, BOB = "ann", "bob"


class Always:
    """A term that does not end."""

    scope, fence = "ns/kv", 1

    def check(self) -> float:
        return 60.0


TERM = Always()


def offer(**said: Any) -> Offer:
    return decisions.make_offer(name="kv", server_name="kv", template=parse([CONFIG], "template"), **said)


def handle(key: str, owner: str = ANN) -> str:
    return ledger_decisions.handle("kv", owner, key)


class Everything:
    """A set that has all."""

    def __contains__(self, _item: object) -> bool:
        return True


def allocator(api: Any, of: Offer) -> Allocator:
    made = Allocator(api, "ns", of)
    made._proven = Everything()  # type: ignore[assignment]  # the cluster takes a ConfigMap
    return made


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    """The shell without clock, sleep and dice."""
    pace = committing.Pace(clock=lambda: 0.0, sleep=lambda _seconds: None, dice=lambda: 0.0)
    commit = committing.commit

    def paced(*args: Any, **kwargs: Any) -> Any:
        return commit(*args, **{**kwargs, "pace": pace})

    with (
        mock.patch.object(verbs, "commit", paced),
        mock.patch.object(ledger_verbs, "commit", paced),
        mock.patch.object(verbs, "_now", lambda: "now"),
        mock.patch.object(verbs.random, "shuffle", lambda names: None),
    ):
        yield


# ------------------------------------------------------------------------------------------ actors


def creates(owner: str, key: str, of: Offer) -> Callable[[Any], str]:
    def act(api: Any) -> str:
        try:
            return str(allocator(api, of).create(Caller(owner), key, Wish()).instance["metadata"]["name"])
        except Refused as error:
            return error.word

    return act


def destroys(owner: str, key: str, of: Offer) -> Callable[[Any], str]:
    name = handle(key, owner)

    def act(api: Any) -> str:
        try:
            allocator(api, of).destroy(Caller(owner), name)
        except Refused as error:
            return error.word
        return "destroyed"

    return act


def controls(api: Any) -> str:
    """Looks after all there is, once."""
    controller = Instances(api, Ledgers(api, "ns", "kv"), lambda *_args, **_fields: None)
    for instance in api.list(INSTANCES, "ns").items:
        with suppress(ApiError):
            controller.reconcile(instance, TERM)
    return "done"


class Old:
    """All was seen a long time ago: the worst that a sweeper may believe."""

    def get(self, _place: object, _default: float) -> float:
        return -1000.0


def sweeps(api: Any) -> str:
    sweeper = Sweeper(api, Ledgers(api, "ns", "kv"), "ns", "kv", [CONFIGMAPS], clock=lambda: 0.0)
    sweeper._since = Old()  # type: ignore[assignment]
    sweeper.sweep(TERM)
    return "done"


# ------------------------------------------------------------------------------------------ what must hold


def holders(api: MemoryApi, owner: str) -> dict[str, str]:
    """Handle to uid, of what the ledger holds."""
    ledger = Ledgers(api, "ns", "kv").read(owner)  # type: ignore[arg-type]
    return {name: entry.uid for name, entry in ledger.entries.items()} if ledger else {}


def check(api: MemoryApi, of: Offer) -> None:
    """In every state."""
    total = holders(api, TOTAL)
    assert len(total) <= of.max_instances
    there = {each["metadata"]["uid"]: each for each in api.list(INSTANCES, "ns").items}
    made = [
        obj for (plural, _ns, _name), obj in api.objects.items() if INSTANCE in (obj["metadata"].get("labels") or {})
    ]
    by_owner: dict[str, set[str]] = {}
    for obj in made:
        (reference,) = obj["metadata"]["ownerReferences"]
        instance = there.get(reference["uid"])
        if instance is None:
            continue  # what collects garbage, or the sweeper, is on its way
        owner, name = instance["spec"]["owner"], instance["metadata"]["name"]
        if FINALIZER not in instance["metadata"].get("finalizers", []):
            continue  # claimed just now; if its place was given up, it is removed
        by_owner.setdefault(owner, set()).add(name)
        if owner:
            assert holders(api, owner).get(name) == total.get(name) == reference["uid"], "made, and not counted"
        else:
            assert name in holders(api, POOL) or name in total
    for owner, names in by_owner.items():
        assert len(names) <= (of.max_instances_per_user if owner else max(of.warm, 1)), "more than there may be"


def recover(api: MemoryApi) -> None:
    """What a controller and a sweeper make of it in the end."""
    for _round in range(4):
        controls(api)
        sweeps(api)
    controls(api)


def check_recovered(api: MemoryApi, of: Offer, outcomes: dict[str, str]) -> None:
    check(api, of)
    names = {each["metadata"]["name"]: each for each in api.list(INSTANCES, "ns").items}
    total = holders(api, TOTAL)
    owned = {name: each["metadata"]["uid"] for name, each in names.items() if each["spec"]["owner"]}
    assert total == owned, "the total is what there is"
    for owner in (ANN, BOB):
        mine = {name: uid for name, uid in owned.items() if names[name]["spec"]["owner"] == owner}
        assert holders(api, owner) == mine, "a ledger is what its owner has"
    waiting = {name: each["metadata"]["uid"] for name, each in names.items() if not each["spec"]["owner"]}
    assert holders(api, POOL) == waiting
    made = {
        obj["metadata"]["labels"][INSTANCE]
        for obj in api.objects.values()
        if INSTANCE in (obj["metadata"].get("labels") or {})
    }
    assert made == set(names), "each has its objects, and there are no others"
    answered = {outcome for outcome in outcomes.values() if outcome.startswith("kv-")}
    if "destroyed" not in outcomes.values():
        assert answered <= set(names), "what was answered is there"


def explore(begin: MemoryApi, of: Offer, actors: dict[str, Callable[[Any], str]], *, deaths: int = 0) -> dict[str, int]:
    """Judge each state, and each end after recovery; how often it ended how."""
    search, ends, judged = Search(actors, deaths=deaths), Counter[str](), set()
    for state, is_end in search.states(begin):
        if state.world.gist not in judged:
            judged.add(state.world.gist)
            check(state.world.api(), of)
        if is_end:
            outcomes = search.outcomes(state)
            ends[", ".join(f"{name} {outcomes.get(name, 'dead')}" for name in search.names)] += 1
            which = (state.world.gist, *sorted(outcomes.values()))
            if which not in judged:
                judged.add(which)
                api = state.world.api()
                recover(api)
                check_recovered(api, of, outcomes)
    return ends


def claims(places: int) -> None:
    of = offer(warm=1, max_instances=places)
    begin = MemoryApi()
    assert allocator(begin, of).make_warm()
    controls(begin)
    explore(begin, of, {"ann": creates(ANN, "1", of), "bob": creates(BOB, "1", of)}, deaths=1)


def test_two_wishes_and_one_place() -> None:
    of = offer()
    ends = explore(MemoryApi(), of, {"first": creates(ANN, "1", of), "second": creates(ANN, "2", of)}, deaths=1)
    assert {"first quota, second dead", "first dead, second quota"} < ends.keys()


def test_one_wish_twice() -> None:
    of = offer()
    first, other = creates(ANN, "1", of), creates(ANN, "1", of)
    ends = explore(MemoryApi(), of, {"first": first, "other": other}, deaths=1)
    name = handle("1")
    assert ends.keys() == {f"first {name}, other {name}", f"first {name}, other dead", f"first dead, other {name}"}


def test_two_owners_and_one_place_in_all() -> None:
    of = offer(max_instances=1)
    explore(MemoryApi(), of, {"ann": creates(ANN, "1", of), "bob": creates(BOB, "1", of)}, deaths=1)


def test_a_wish_and_a_sweeper_that_believes_the_worst() -> None:
    of = offer()
    ends = explore(MemoryApi(), of, {"ann": creates(ANN, "1", of), "sweeper": sweeps}, deaths=1)
    assert "ann conflict, sweeper done" in ends, "what is swept from under it, it says"


def test_it_is_destroyed_and_wished_for_again() -> None:
    of = offer()
    begin = MemoryApi()
    allocator(begin, of).create(Caller(ANN), "1", Wish())
    controls(begin)
    actors = {"ann": creates(ANN, "1", of), "destroyer": destroys(ANN, "1", of), "controller": controls}
    ends = explore(begin, of, actors, deaths=1)
    assert any("key-busy" in end for end in ends)


def test_two_claims_and_one_place() -> None:
    claims(places=1)


if os.environ.get("MUSTER_SEARCH") == "deep":

    def test_one_wish_twice_and_a_sweeper() -> None:
        of = offer()
        actors = {"first": creates(ANN, "1", of), "other": creates(ANN, "1", of), "sweeper": sweeps}
        explore(MemoryApi(), of, actors)

    def test_a_wish_a_controller_and_a_sweeper() -> None:
        of = offer()
        explore(MemoryApi(), of, {"ann": creates(ANN, "1", of), "controller": controls, "sweeper": sweeps})

    def test_two_claims_and_one_that_waits() -> None:
        claims(places=2)

    def test_a_claim_a_controller_and_a_sweeper() -> None:
        of = offer(warm=1)
        begin = MemoryApi()
        assert allocator(begin, of).make_warm()
        controls(begin)
        explore(begin, of, {"ann": creates(ANN, "1", of), "controller": controls, "sweeper": sweeps})

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every order in which a few writers, deaths and rebirths can meet at one semaphore; not a sample: all of them.

Safety, at each write of the ConfigMap: it is legal after the one before (the oracle: S1, S2, S3, S5, S7), and what it
takes out is dead or takes itself out. Liveness, from each state that can be reached: once everybody alive has had one
look, nothing that is free is waited for, and nobody who is dead has anything (S4 without its second).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support import legality, old_distributor
from ansible_collections.muster.coordination.tests.support.interleave import (
    CONFIGMAPS,
    PODS,
    Actor,
    ReplayedApi,
    Replayer,
    World,
    annotations,
    carry_out,
    still,
)

ENOUGH = 2_000_000  # states; more is a model that grew by mistake
ANY_ONE = {ANY: 1}
REFUSED = ("Malformed", "MusterError")  # it asked for more than there is, or more than the mode can say


# ------------------------------------------------------------------------------------------ who takes part


def sidecar(
    name: str,
    uid: str,
    seen: Mapping[str, str] | None = None,
    *,
    want: engine.Resources = ANY_ONE,
    then_release: bool = False,
    leaving: Collection[engine.Identity] = (),
) -> Actor:
    """What a seat of verbs.annotations writes: one turn on whatever is read, its (stale) cache of Pods in `seen`."""
    me = Claimant(name, uid, want)

    def run(api: ReplayedApi) -> str:
        try:
            done = on_annotations.write(
                api,
                "sem",
                "ns",
                lambda before: engine.claim(before, me, now="now", enqueue=True),
                dead=lambda found: on_annotations.dead_pods(api, "ns", seen)(found) - {me.identity},
                leaving=leaving,
            )
            if then_release:
                on_annotations.write(api, "sem", "ns", lambda before: engine.release(before, name, uid, now="now"))
                return "released"
        except MusterError as error:
            return type(error).__name__
        return done.verdict.outcome

    return run


def module(name: str, *, then_release: bool = True) -> Actor:
    """k8s_semaphore_claim with a lease and without wait, and k8s_semaphore_claim state=absent."""
    me = Claimant(name, "", {ANY: 1}, 0, 60)

    def run(api: ReplayedApi) -> str:
        outcome = verbs.attempt(api, name="sem", namespace="ns", claimant=me).outcome
        if then_release and outcome == "granted":
            on_annotations.write(api, "sem", "ns", lambda before: engine.release(before, name, None, now="now"))
        return outcome

    return run


def old(host: str) -> Actor:
    """One run of the old Distributor; a conflict ends it, until the next run in a minute."""

    def run(api: ReplayedApi) -> str:
        try:
            return str(old_distributor.run_once(api, CONFIGMAPS, PODS, "sem", "ns", host))
        except Exception as error:
            return type(error).__name__

    return run


def person(*capacities: str) -> Actor:
    """kubectl edit of the capacity, to one after the other."""

    def run(api: ReplayedApi) -> str:
        try:
            for capacity in capacities:
                obj = api.get(CONFIGMAPS, "sem", "ns")
                obj["metadata"]["annotations"][engine.CAPACITY] = capacity
                api.replace(CONFIGMAPS, obj)
        except MusterError as error:
            return type(error).__name__
        return "edited"

    return run


def switch(mode: str) -> Actor:
    """k8s_semaphore with this mode."""

    def run(api: ReplayedApi) -> str:
        settings = {"capacity": None, "present": True, "force": False, "check_mode": False}
        try:
            done = on_annotations.configure(api, name="sem", namespace="ns", mode=mode, **settings)
        except MusterError as error:
            return type(error).__name__
        return str(done.after["mode"])

    return run


@dataclass
class Story:
    """The beginning, who takes part, and which Pods may die and be made again, each once, at any moment."""

    world: World
    actors: dict[str, Actor]
    mortal: tuple[str, ...] = ()
    reborn: tuple[str, ...] = ()
    attended: Callable[[World], dict[str, Actor]] = field(default=lambda world: {})  # who looks, for liveness
    needs: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # whose Pod must be there before it starts
    leaving: tuple[
        engine.Identity, ...
    ] = ()  # whose Pods are being deleted: they wait no more, and keep what they have
    told_the_truth: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # as whom it has what it was told


class State(NamedTuple):
    world: World
    at: tuple[int, ...]  # where each actor is, in the order of their names: Replayer's numbers
    died: tuple[str, ...]
    born: tuple[str, ...]


@dataclass
class Found:
    states: int = 0
    steps: int = 0
    writes: int = 0
    ends: int = 0
    outcomes: set[tuple[str, str]] = field(default_factory=set)


# ------------------------------------------------------------------------------------------ the search


def explore(story: Story) -> Found:
    """Breadth first, so that what is found first is a shortest way to it."""
    replayer = Replayer(story.actors)
    names = sorted(story.actors)
    begins = tuple(replayer.begin(name) for name in names)
    begin = State(story.world, begins, (), ())
    legal: dict[object, list[str]] = {}
    came_from: dict[State, tuple[State, str] | None] = {begin: None}
    waiting = deque([begin])
    found = Found()
    lively = Liveness(story)
    while waiting:
        state = waiting.popleft()
        found.states += 1
        assert found.states < ENOUGH
        moves = list(_moves(story, replayer, names, begins, state))
        found.steps += len(moves)
        if not moves:
            found.ends += 1
        for what, after in moves:
            if after.world.version != state.world.version:
                found.writes += 1
            if after.world.annotations != state.world.annotations:
                step = (state.world.annotations, after.world.annotations, state.world.pods, state.died, what)
                if step not in legal:
                    legal[step] = _illegal(story, state, after.world, what)
                illegal = legal[step]
            else:
                illegal = []
            assert not illegal, _told(came_from, state, what, illegal)
            lie = _lie(story, replayer, names, state, after)
            assert not lie, _told(came_from, state, what, [lie])
            if after not in came_from:
                came_from[after] = (state, what)
                waiting.append(after)
        stuck = lively.stuck(state.world)
        assert not stuck, _told(came_from, state, "and then everybody looks", stuck)
        for name, at in zip(names, state.at, strict=True):
            stage = replayer.stage(at)
            if stage.request is None:
                found.outcomes.add((name, stage.outcome))
    return found


def _moves(story: Story, replayer: Replayer, names: list[str], begins: tuple[int, ...], state: State):
    for index, name in enumerate(names):
        stage = replayer.stage(state.at[index])
        if stage.request is None:
            continue
        if state.at[index] == begins[index] and not _may_start(story, name, state.world):
            continue
        for world, answer in carry_out(state.world, stage.request):
            now = replayer.answered(state.at[index], answer)
            said = stage.request.verb + (f" {answer.error}" if answer.error else "")
            yield f"{name}: {said}", state._replace(world=world, at=(*state.at[:index], now, *state.at[index + 1 :]))
    pods = state.world.living()
    for pod in story.mortal:
        if pod in pods and pod not in state.died:
            fewer = tuple(entry for entry in state.world.pods if entry[0] != pod)
            yield f"Pod {pod} dies", state._replace(world=replace(state.world, pods=fewer), died=(*state.died, pod))
    for pod in story.reborn:
        if pod not in pods and pod not in state.born:
            more = tuple(sorted((*state.world.pods, (pod, f"{pod}-again"))))
            yield f"Pod {pod} is made", state._replace(world=replace(state.world, pods=more), born=(*state.born, pod))


def _lie(story: Story, replayer: Replayer, names: list[str], before: State, after: State) -> str:
    """Whoever was told that it holds, or has left, when that is not so (nobody else takes it in these stories)."""
    for name, was, now in zip(names, before.at, after.at, strict=True):
        if was == now or name not in story.told_the_truth:
            continue
        outcome = replayer.stage(now).outcome
        has = story.told_the_truth[name] in {
            (holder, entry["uid"]) for holder, entry in legality.read(after.world.document()).grants().items()
        }
        if (outcome in ("granted", "held") and not has) or (outcome == "released" and has):
            return f"S3: {name} was told {outcome}, and {'has' if has else 'has not'}"
    return ""


def _may_start(story: Story, actor: str, world: World) -> bool:
    """A process does not run before its Pod is made; it may well go on after that is gone."""
    return actor not in story.needs or story.needs[actor] in world.pods


def _illegal(story: Story, state: State, after: World, what: str) -> list[str]:
    before = state.world
    living = before.living()
    identities = legality.read(before.document()).identities()
    dead = {(name, uid) for name, uid in identities if name not in living or uid not in (None, living[name])}
    # an old Distributor knows names only: what its host held before it died is judged by that, even if it came back
    dead |= {(name, uid) for name, uid in identities if uid is None and name in state.died}
    leased = {(name, uid) for name, uid in dead if name.startswith("ci")}
    may = {"dead": dead - leased, "leaving": story.leaving}
    illegal = legality.violations(before.document(), after.document(), **may)
    if not what.startswith("old"):
        actor = what.split(":")[0]
        gone = identities - legality.read(after.document()).identities()
        gone -= {(name, uid) for name, uid in story.leaving if name not in legality.read(before.document()).assignment}
        for name, uid in gone - dead | leased & gone:
            adopted = uid is None and name in legality.read(after.document()).assignment
            if uid is not None and not actor.startswith(name) and not adopted:
                illegal.append(f"S4: {actor} took out {name} ({uid}), which lives")
    return illegal


def _told(came_from, state: State, what: str, illegal: list[str]) -> str:
    """The way from the beginning to what went wrong."""
    way = [what]
    at: State = state
    while (step := came_from[at]) is not None:
        at, did = step
        way.append(did)
    document = "\n  ".join(f"{key}: {value}" for key, value in state.world.annotations)
    return "\n".join(["", *illegal, *(f"  {step}" for step in reversed(way)), f"  before that:\n  {document}"])


class Liveness:
    """Everybody alive looks once, then once more, one after the other: then nothing is left to do."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._known: dict[tuple[object, ...], list[str]] = {}

    def stuck(self, world: World) -> list[str]:
        key = (world.annotations, world.pods)
        if key not in self._known:
            self._known[key] = self._look(world)
        return self._known[key]

    def _look(self, world: World) -> list[str]:
        world = replace(world, lost=0)
        attended = self.story.attended(world)
        for _round in range(2):
            told = {}
            for name, actor in attended.items():
                world, told[name] = _alone(actor, world)
        if not attended:
            return []
        document, living = legality.read(world.document()), world.living()
        stuck = [
            f"S4: {name} ({uid}) is dead and has something for ever"
            for name, uid in document.identities()
            if not name.startswith("ci") and (name not in living or uid not in (None, living[name]))
        ]
        waits = {(name, entry["uid"]) for name, entry in document.waiting().items()}
        stuck += [
            f"S5: {name} waits, whose Pod is being deleted" for name, uid in self.story.leaving if (name, uid) in waits
        ]
        for entry in legality.waiting_in_vain(document):
            stuck.append(f"{entry['holder']} waits for ever for what is free: {entry['want']}")
        for name in attended:
            refused = told[name] in REFUSED
            if not refused and name not in document.assignment and name not in document.waiting():
                stuck.append(f"{name} asked, and neither has nor waits")
        return stuck


def _alone(actor: Actor, world: World) -> tuple[World, str]:
    """The world after the actor has run with nobody beside it, and what it said."""
    replayer = Replayer({"it": actor})
    at = replayer.begin("it")
    while (request := replayer.stage(at).request) is not None:
        world, answer = next(carry_out(world, request))
        at = replayer.answered(at, answer)
    return world, replayer.stage(at).outcome


# ------------------------------------------------------------------------------------------ the stories


def beginning(capacity: int | dict[str, int], *pods: str, lost: int = 0, **more: object) -> World:
    document = {engine.CAPACITY: {"gpu": capacity} if isinstance(capacity, int) else capacity, **more}
    return World(annotations(**document), 10, tuple(sorted((pod, f"{pod}-1") for pod in pods)), 0, lost)


def attended_by_sidecars(world: World) -> dict[str, Actor]:
    return {name: sidecar(name, uid) for name, uid in world.pods if not name.startswith("old")}


def held_by(name: str, capacity: int, *claimants: Claimant) -> dict[str, str]:
    """The annotations after `name`'s Pod and then these have claimed."""
    semaphore = engine.Semaphore({"gpu": capacity}, epoch=20)
    for one in (Claimant(name, f"{name}-1", {ANY: 1}), *claimants):
        semaphore = engine.claim(semaphore, one, now="now", enqueue=True).semaphore
    return engine.render(semaphore)


STALE = {"a": "a-1", "b": "b-1"}

SENTINEL = {engine.ASSIGNMENT: {"": {"mode": "v2"}}}
PAIR, BOTH, GPU = {"gpu": 2}, {"gpu": 1, "tpu": 1}, {"gpu": 1}


def attended_with(**wants: engine.Resources) -> Callable[[World], dict[str, Actor]]:
    return lambda world: {name: sidecar(name, uid, want=wants[name]) for name, uid in world.pods if name in wants}


STORIES = {
    "three sidecars meet at one permit and hand it on": Story(
        beginning(1, "a", "b", "c"),
        {
            "a": sidecar("a", "a-1", then_release=True),
            "b": sidecar("b", "b-1", then_release=True),
            "c": sidecar("c", "c-1"),
        },
        attended=attended_by_sidecars,
    ),
    "a holder dies and its name is made again, while others reap and claim with stale eyes": Story(
        beginning(1, "a", "b", "c", **held_by("a", 1)),
        {
            "a": sidecar("a", "a-1"),  # its process outlives its Pod
            "a2": sidecar("a", "a-again", STALE),
            "b": sidecar("b", "b-1", STALE, then_release=True),
            "c": sidecar("c", "c-1", {}),
        },
        mortal=("a",),
        reborn=("a",),
        attended=attended_by_sidecars,
        needs={"a2": ("a", "a-again")},
    ),
    "a Pod is born, claims, and is not taken for dead by those who look meanwhile": Story(
        beginning(2, "b", **held_by("b", 2)),
        {
            "a": sidecar("a", "a-again"),
            "b": sidecar("b", "b-1", {"b": "b-1"}, then_release=True),
            "ci": module("ci"),
        },
        mortal=("b",),
        reborn=("a",),
        attended=attended_by_sidecars,
        needs={"a": ("a", "a-again")},
    ),
    "answers are lost": Story(
        beginning(1, "a", "b", lost=2),
        {"a": sidecar("a", "a-1", then_release=True), "b": sidecar("b", "b-1")},
        attended=attended_by_sidecars,
        told_the_truth={"a": ("a", "a-1"), "b": ("b", "b-1")},
    ),
    "answers are lost while a holder dies": Story(
        beginning(1, "a", "b", "c", lost=1, **held_by("a", 1)),
        {"b": sidecar("b", "b-1", then_release=True), "c": sidecar("c", "c-1", STALE)},
        mortal=("a", "b"),
        attended=attended_by_sidecars,
    ),
    "an old Distributor barges in, and its host dies and comes back": Story(
        beginning(1, "a", "old", **held_by("a", 1)),
        {"a": sidecar("a", "a-1", then_release=True), "old": old("old"), "old again": old("old"), "ci": module("ci")},
        mortal=("old",),
        reborn=("old",),
        attended=attended_by_sidecars,
    ),
    "two old Distributors and a sidecar whose Pod is recycled": Story(
        beginning(1, "a", "old"),
        {"a": sidecar("a", "a-1"), "a2": sidecar("a", "a-again"), "old": old("old"), "old at a": old("a")},
        mortal=("a",),
        reborn=("a",),
        attended=attended_by_sidecars,
        needs={"a2": ("a", "a-again"), "old at a": ("a", "a-again")},
    ),
    "capacity goes down and up under everybody's hands": Story(
        beginning(1, "a", "b", **held_by("a", 1)),
        {
            "a": sidecar("a", "a-1", then_release=True),
            "b": sidecar("b", "b-1"),
            "ci": module("ci", then_release=False),
            "person": person('{"gpu": 0}', '{"gpu": 2}'),
        },
        attended=attended_by_sidecars,
    ),
    "several resources: a pair, one of each, and one that could slip past both": Story(
        beginning({"gpu": 2, "tpu": 1}, "a", "b", "c", **SENTINEL),
        {
            "a": sidecar("a", "a-1", want=PAIR, then_release=True),
            "b": sidecar("b", "b-1", want=BOTH, then_release=True),
            "c": sidecar("c", "c-1", want=GPU),
        },
        attended=attended_with(a=PAIR, b=BOTH, c=GPU),
    ),
    "several resources, while a holder dies, and the capacity goes down and up": Story(
        beginning({"gpu": 2, "tpu": 1}, "a", "b", **SENTINEL),
        {
            "a": sidecar("a", "a-1", want=PAIR),
            "b": sidecar("b", "b-1", want=BOTH, then_release=True),
            "person": person('{"gpu": 1, "tpu": 1}', '{"gpu": 3, "tpu": 1}'),
        },
        mortal=("a",),
        attended=attended_with(a=PAIR, b=BOTH),
    ),
    "somebody switches to v2 and back between sidecars and an old Distributor, which then can't read it": Story(
        beginning(2, "a", "b", "old"),
        {
            "b": sidecar("b", "b-1", want=PAIR),
            "old": old("old"),
            "old again": old("old"),
            "v2": switch("v2"),
            "v1": switch("v1"),
        },
        attended=attended_with(a=ANY_ONE, b=PAIR),
    ),
    "one that waits is being deleted: who hands on with eyes on its Pod passes it over": Story(
        beginning(1, "a", "b", "c", **held_by("a", 1, Claimant("b", "b-1", ANY_ONE))),
        {
            "a": sidecar("a", "a-1", {"b": "b-1"}, then_release=True),
            "c": sidecar("c", "c-1", leaving={("b", "b-1")}),
        },
        leaving=(("b", "b-1"),),
        attended=lambda world: {
            name: sidecar(name, uid, leaving={("b", "b-1")}) for name, uid in world.pods if name != "b"
        },
    ),
    "a module claims and leaves between sidecars": Story(
        beginning(1, "a", "b"),
        {"a": sidecar("a", "a-1", then_release=True), "b": sidecar("b", "b-1"), "ci": module("ci")},
        mortal=("b",),
        attended=attended_by_sidecars,
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_every_interleaving(name, capsys):
    began = time.monotonic()
    with still():
        found = explore(STORIES[name])
    with capsys.disabled():
        seconds = time.monotonic() - began
        print(f"\n{name}: {found.states} states, {found.steps} steps, {found.writes} writes, {seconds:.1f} s", end=" ")
    assert found.ends > 0 and found.writes > 0

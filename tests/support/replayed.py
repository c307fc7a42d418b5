# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every interleaving of the API requests of a few actors over any objects, by replay: `interleave.py` for all kinds.

The world is a MemoryApi. An actor is a function of an Api, and of nothing else: it is run from its start with the
answers that it has had, up to the next request; that one is carried out whenever the search wants. So the code that
runs is the code that ships, and its state is the list of its answers. An actor may die at any request.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import ApiError
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

REQUESTS = ("get", "list", "create", "replace", "delete")


class Request(NamedTuple):
    verb: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]


class Answer(NamedTuple):
    """`told` is what came back, or the error; `gist` is the same for comparing."""

    gist: str
    told: Any


class Pause(BaseException):
    """The actor has sent a request that has no answer yet."""

    def __init__(self, request: Request) -> None:
        self.request = request


class ReplayedApi:
    """Hands an actor its answers one after the other, and stops it at the first request without one."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = iter(answers)

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        if verb not in REQUESTS:
            raise AttributeError(verb)

        def ask(*arguments: Any, **options: Any) -> Any:
            answer = next(self._answers, None)
            if answer is None:
                raise Pause(Request(verb, arguments, options))
            if isinstance(answer.told, ApiError):
                raise answer.told
            return answer.told

        return ask


Actor = Callable[[Any], str]


class Stage(NamedTuple):
    """Where an actor is: at a request, or at its end with a word for what became of it."""

    request: Request | None
    outcome: str = ""


_NUMBERS: dict[str, int] = {}  # of an object as it stands in a world
_KNOWN: dict[int, tuple[Any, int]] = {}  # by id; worlds share what did not change, and objects are never changed


def _number_of(obj: Any) -> int:
    known = _KNOWN.get(id(obj))
    if known is None:
        number = _NUMBERS.setdefault(json.dumps(obj, sort_keys=True), len(_NUMBERS))
        known = _KNOWN[id(obj)] = (obj, number)
    return known[1]


class World:
    """Objects, and the counters by which new ones are told from old ones. Never changed once it is there."""

    def __init__(self, objects: Mapping[Any, Any], version: int, uids: int) -> None:
        self.objects, self.version, self.uids = objects, version, uids
        self.gist = (uids, frozenset(map(_number_of, objects.values())))

    @classmethod
    def of(cls, api: MemoryApi) -> World:
        return cls(dict(api.objects), api.version, api.uids)

    def api(self) -> MemoryApi:
        api = MemoryApi()
        api.objects, api.version, api.uids = dict(self.objects), self.version, self.uids
        return api


@dataclass(frozen=True)
class State:
    """`at` has for each actor the number of its stage; -1: it is dead."""

    world: World
    at: tuple[int, ...]
    deaths: int

    @property
    def gist(self) -> tuple[Any, ...]:
        return (self.world.gist, self.at, self.deaths)


class Search:
    """All that can come of these actors, of whom so many may die."""

    def __init__(self, actors: Mapping[str, Actor], *, deaths: int = 0) -> None:
        self.names, self._actors, self._deaths = tuple(actors), tuple(actors.values()), deaths
        self._stages: list[Stage] = []
        self._answers: list[tuple[int, tuple[Answer, ...]]] = []
        self._numbers: dict[tuple[int, int, str], int] = {}

    def outcomes(self, state: State) -> dict[str, str]:
        """Of those who came to their end."""
        ended = {name: self._stages[at] for name, at in zip(self.names, state.at, strict=True) if at >= 0}
        return {name: stage.outcome for name, stage in ended.items() if stage.request is None}

    def states(self, begin: MemoryApi, limit: int = 1_000_000) -> Iterator[tuple[State, bool]]:
        """Each state once, and whether it is an end. Fails beyond `limit` of them."""
        first = State(
            World.of(begin), tuple(self._number(-1 - number, number, None) for number in range(len(self.names))), 0
        )
        seen, left = {first.gist}, [first]
        while left:
            state = left.pop()
            following = list(self._following(state))
            yield state, not following
            for each in following:
                if each.gist not in seen:
                    seen.add(each.gist)
                    left.append(each)
            assert len(seen) <= limit, f"more than {limit} states"

    def _following(self, state: State) -> Iterator[State]:
        for number, at in enumerate(state.at):
            request = self._stages[at].request if at >= 0 else None
            if request is None:
                continue
            world, answer = _carried_out(state.world, request)
            yield replace(state, world=world, at=_with(state.at, number, self._number(at, number, answer)))
            if state.deaths < self._deaths:
                yield replace(state, at=_with(state.at, number, -1), deaths=state.deaths + 1)

    def _number(self, at: int, actor: int, answer: Answer | None) -> int:
        """Of the stage that this answer leads to from that one."""
        key = (at, actor, answer.gist if answer else "")
        if key not in self._numbers:
            answers = (*self._answers[at][1], answer) if answer else ()
            try:
                stage = Stage(None, self._actors[actor](ReplayedApi(answers)))
            except Pause as pause:
                stage = Stage(pause.request)
            self._numbers[key] = len(self._stages)
            self._stages.append(stage)
            self._answers.append((actor, answers))
        return self._numbers[key]


def _carried_out(world: World, request: Request) -> tuple[World, Answer]:
    api = world.api()
    try:
        told = getattr(api, request.verb)(*request.arguments, **request.options)
    except ApiError as error:
        return world, Answer(f"{type(error).__name__} {error.message}", error)
    after = World.of(api) if api.version != world.version else world
    return after, Answer(json.dumps(told, sort_keys=True, default=str), told)


def _with(at: tuple[int, ...], number: int, value: int) -> tuple[int, ...]:
    return (*at[:number], value, *at[number + 1 :])

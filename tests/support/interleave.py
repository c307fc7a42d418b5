# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every interleaving of the API requests of a few actors, over the real code, by replay.

An actor is a plain function of an Api. It is run until it sends a request, and stopped there; that request is carried
out whenever the search wants, and the function is run again from its start with all answers so far, up to its next
request. So its state is the list of its answers, the code that runs is the code that ships (verbs, commit, decisions),
and a step of the search is one request of one actor: what a real scheduler, a real network and a slow machine can do.

The world is one ConfigMap and the Pods of one namespace. Actors must be functions of the answers alone (no clock, no
dice): `still` takes those out of the shell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from unittest import mock

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    ApiError,
    Conflict,
    Listing,
    LostAnswer,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import Pace, commit
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations

Annotations = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class World:
    """`version` counts the writes of the ConfigMap and is its resourceVersion; `lost` answers may still be lost."""

    annotations: Annotations
    version: int
    pods: tuple[tuple[str, str], ...]  # (name, uid), sorted
    made: int  # Pods made so far: the next uid
    lost: int = 0

    def document(self) -> dict[str, str]:
        return dict(self.annotations)

    def living(self) -> dict[str, str]:
        return dict(self.pods)


class Request(NamedTuple):
    verb: str  # get | pods | pod | put
    name: str = ""
    version: int = 0
    annotations: Annotations = ()


class Answer(NamedTuple):
    """What one request brought: an error's name, or the part of the world that it read."""

    error: str = ""
    version: int = 0
    annotations: Annotations = ()
    pods: tuple[tuple[str, str], ...] = ()


class Pause(BaseException):
    """The actor has sent a request that has no answer yet."""

    def __init__(self, request: Request) -> None:
        self.request = request


class ReplayedApi:
    """Hands an actor its answers one after the other, and stops it at the first request without one."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = iter(answers)

    def _ask(self, request: Request) -> Answer:
        answer = next(self._answers, None)
        if answer is None:
            raise Pause(request)
        if answer.error:
            raise _ERRORS[answer.error]
        return answer

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> dict[str, Any]:
        if resource is PODS:
            pods = dict(self._ask(Request("pod", name)).pods)
            if name not in pods:
                raise _ERRORS["NotFound"]
            return {"metadata": {"name": name, "uid": pods[name]}, "status": {"phase": "Running"}}
        answer = self._ask(Request("get"))
        return _configmap(answer.annotations, answer.version)

    def list(self, resource: Resource, namespace: str | None = None, **_selection: Any) -> Listing:
        pods = self._ask(Request("pods")).pods
        return Listing([{"metadata": {"name": name, "uid": uid}} for name, uid in pods], "")

    def replace(self, resource: Resource, obj: dict[str, Any], subresource: str = "") -> dict[str, Any]:
        metadata = obj["metadata"]
        annotations = tuple(sorted(metadata["annotations"].items()))
        # a writer that names no version is one that overwrites whatever is there
        version = int(metadata.get("resourceVersion") or 0)
        answer = self._ask(Request("put", "", version, annotations))
        return _configmap(annotations, answer.version)


_ERRORS: dict[str, ApiError] = {
    "Conflict": Conflict(409, "Conflict", "the object has been modified"),
    "NotFound": NotFound(404, "NotFound", "not found"),
    "LostAnswer": LostAnswer(0, "LostAnswer", "connection reset by peer"),
}


def _configmap(annotations: Annotations, version: int) -> dict[str, Any]:
    metadata = {"name": "sem", "namespace": "ns", "uid": "the uid", "resourceVersion": str(version)}
    return {"kind": "ConfigMap", "metadata": {**metadata, "annotations": dict(annotations)}}


Actor = Callable[[ReplayedApi], str]


class Stage(NamedTuple):
    """Where an actor is: at a request, or at its end with a word for what became of it."""

    request: Request | None
    outcome: str = ""


class Replayer:
    """Runs actors from their start; the same answers lead to the same stage, so each is run once.

    Lists of answers are kept as a tree and named by numbers, for states are compared and hashed all the time.
    """

    def __init__(self, actors: dict[str, Actor]) -> None:
        self._actors = actors
        self._answers: list[tuple[str, tuple[Answer, ...]]] = []
        self._stages: list[Stage] = []
        self._numbers: dict[tuple[int | str, Answer | None], int] = {}

    def begin(self, actor: str) -> int:
        return self._number((actor, None), actor, ())

    def answered(self, at: int, answer: Answer) -> int:
        actor, answers = self._answers[at]
        return self._number((at, answer), actor, (*answers, answer))

    def stage(self, at: int) -> Stage:
        return self._stages[at]

    def _number(self, key: tuple[int | str, Answer | None], actor: str, answers: tuple[Answer, ...]) -> int:
        if key not in self._numbers:
            try:
                stage = Stage(None, self._actors[actor](ReplayedApi(answers)))
            except Pause as pause:
                stage = Stage(pause.request)
            self._numbers[key] = len(self._stages)
            self._stages.append(stage)
            self._answers.append((actor, answers))
        return self._numbers[key]


def carry_out(world: World, request: Request) -> Iterator[tuple[World, Answer]]:
    """What may come of a request: the answer of now, and as often as the world allows, a lost one."""
    if request.verb == "get":
        yield world, Answer(version=world.version, annotations=world.annotations)
    elif request.verb == "pods":
        yield world, Answer(pods=world.pods)
    elif request.verb == "pod":
        yield world, Answer(pods=tuple(pod for pod in world.pods if pod[0] == request.name))
    elif request.version not in (0, world.version):
        yield world, Answer(error="Conflict")
    else:
        after = replace(world, annotations=request.annotations, version=world.version + 1)
        yield after, Answer(version=after.version)
        if world.lost:
            yield replace(after, lost=world.lost - 1), Answer(error="LostAnswer")
            yield replace(world, lost=world.lost - 1), Answer(error="LostAnswer")


@contextmanager
def still() -> Iterator[None]:
    """The shell without clock, sleep and dice."""
    pace = Pace(clock=lambda: 0.0, sleep=lambda _seconds: None, dice=lambda: 0.0)

    def paced(*args: Any, **kwargs: Any) -> Any:
        return commit(*args, **{**kwargs, "pace": pace})

    with (
        mock.patch.object(on_annotations, "commit", paced),
        mock.patch.object(on_annotations, "utc_now", lambda: "now"),
    ):
        yield


def annotations(**given: Any) -> Annotations:
    return tuple(sorted((key, value if isinstance(value, str) else json.dumps(value)) for key, value in given.items()))


__all__ = ["CONFIGMAPS", "PODS", "Answer", "ReplayedApi", "Replayer", "Request", "Stage", "World", "annotations"]

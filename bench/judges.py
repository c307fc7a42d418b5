# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges of a soak: every revision of every semaphore in a namespace, in order, none left out, each given to an oracle.

The oracles are those of the tests (tests/support): they share no code with the product. They are told here who died.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    Api,
    ApiError,
    Gone,
    Resource,
)
from tests.support import legality

Object = dict[str, Any]
Event = tuple[str, Object]  # ADDED, MODIFIED or DELETED, and the object


class Chronicle:
    """Every change of the objects of a kind in a namespace since it was made, in order, without a gap.

    What a watch missed (the API server was away, and forgot) is read back from its history, revision by revision.
    """

    def __init__(self, api: Api, resource: Resource, namespace: str, label_selector: str) -> None:
        self._api, self._resource, self._namespace, self._selector = api, resource, namespace, label_selector
        listing = api.list(resource, namespace, label_selector=label_selector)
        self._there: dict[str, Object] = {name_of(obj): obj for obj in listing.items}
        self.version = int(listing.resource_version)
        self.read_back = 0  # revisions that were read back from the history

    def events(self, stop: threading.Event) -> Iterator[Event]:
        """First what was there from the start, as ADDED; then every change, until `stop` is set."""
        yield from [("ADDED", obj) for obj in self._there.values()]
        while not stop.is_set():
            try:
                yield from self._watch(stop)
            except Gone:
                yield from self._walk()
            except ApiError:
                time.sleep(0.1)

    def is_at(self, items: list[Object]) -> bool:
        """Whether it has come to where the objects are just these."""
        return {name_of(obj): obj["metadata"]["resourceVersion"] for obj in items} == {
            name: obj["metadata"]["resourceVersion"] for name, obj in self._there.copy().items()
        }

    def _watch(self, stop: threading.Event) -> Iterator[Event]:
        events = self._api.watch(
            self._resource,
            self._namespace,
            resource_version=str(self.version),
            label_selector=self._selector,
            timeout=10.0,
        )
        for kind, obj in events:
            version = int(obj["metadata"]["resourceVersion"])
            if kind != "BOOKMARK":
                if version <= self.version:
                    raise AssertionError(f"revision {version} of {name_of(obj)} came after {self.version}")
                self._keep(kind, obj)
                yield kind, obj
            self.version = version
            if stop.is_set():
                return

    def _walk(self) -> Iterator[Event]:
        """From revision to revision up to now. Raises ApiError to be called again, from where it came to."""
        now = int(self._api.list(self._resource, self._namespace).resource_version)
        while self.version < now:
            at = str(self.version + 1)
            listing = self._api.list(self._resource, self._namespace, label_selector=self._selector, at=at)
            there = {name_of(obj): obj for obj in listing.items}
            for kind, obj in list(_changes(self._there, there)):
                self._keep(kind, obj)
                self.read_back += 1
                yield kind, obj
            self.version += 1

    def _keep(self, kind: str, obj: Object) -> None:
        if kind == "DELETED":
            self._there.pop(name_of(obj), None)
        else:
            self._there[name_of(obj)] = obj


def _changes(before: Mapping[str, Object], after: Mapping[str, Object]) -> Iterator[Event]:
    for name in before.keys() - after.keys():
        yield "DELETED", before[name]
    for name, obj in after.items():
        if name not in before:
            yield "ADDED", obj
        elif obj["metadata"]["resourceVersion"] != before[name]["metadata"]["resourceVersion"]:
            yield "MODIFIED", obj


def name_of(obj: Object) -> str:
    return str(obj["metadata"]["name"])


class Judge(Protocol):
    """The judge of one semaphore. `grants` maps each fence that was ever given to its holder and resource."""

    grants: dict[int, tuple[str, str]]
    revisions: int

    def bury(self, holder: str, uid: str) -> None:
        """This one is dead: it may be taken out."""

    def see(self, kind: str, obj: Object) -> list[str]:
        """Take in one revision; what is illegal in it."""


class AnnotationsJudge:
    """Of a semaphore in the annotations of a ConfigMap."""

    resource, selector = CONFIGMAPS, ""

    def __init__(self, name: str) -> None:
        self._history = legality.History()

    @staticmethod
    def belongs(obj: Object) -> str:
        return name_of(obj)

    @property
    def grants(self) -> dict[int, tuple[str, str]]:
        return self._history.grants

    @property
    def revisions(self) -> int:
        return self._history.revisions

    def bury(self, holder: str, uid: str) -> None:
        self._history.dead.add((holder, uid))

    def see(self, kind: str, obj: Object) -> list[str]:
        if kind == "DELETED":
            return [f"the ConfigMap {name_of(obj)} was deleted"]
        return self._history.step(obj["metadata"].get("annotations") or {})


def judge_of(engine: str) -> Any:
    """The class that judges semaphores of that engine."""
    if engine == "annotations":
        return AnnotationsJudge
    from bench.on_tickets import TicketsJudge

    return TicketsJudge

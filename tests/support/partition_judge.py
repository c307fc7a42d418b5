# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every revision of Partitions and Assignments, as watches tell them; and whether each makes a view that may be.

One etcd counts the revisions of both kinds, so what two watches have told is one history when it is sorted by them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Api,
    Put,
    Removed,
    Resource,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace, operations
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import ASSIGNMENTS, PARTITIONS

ADVANCES: Final = {
    "Pending": ("Loading", "Committed", "Aborting"),
    "Loading": ("Committed", "Aborting"),
    "Committed": ("Completed",),
    "Aborting": ("Aborted",),
}
MOST: Final = 20  # violations that are told

Object = Mapping[str, Any]


class Event(NamedTuple):
    """What was so as of a revision; `obj` None: it is gone. `listed`: it may have been so before."""

    revision: int
    kind: str
    name: str
    obj: Object | None
    listed: bool = False


class Chronicle:
    """Two watches, and all that they tell."""

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._stop = threading.Event()
        self._streams: dict[str, list[Event]] = {"Partition": [], "Assignment": []}
        self._there: dict[str, dict[str, Object]] = {"Partition": {}, "Assignment": {}}
        self.lists = 0
        self._threads = [
            threading.Thread(target=self._follow, args=(resource,), daemon=True)
            for resource in (PARTITIONS, ASSIGNMENTS)
        ]
        for thread in self._threads:
            thread.start()

    def now(self, kind: str) -> dict[str, Object]:
        """Objects by name, as the watch has told them so far."""
        return dict(self._there[kind])

    def has_seen(self, kind: str, revision: int) -> bool:
        stream = self._streams[kind]
        return bool(stream) and stream[-1].revision >= revision

    def events(self) -> list[Event]:
        """All so far, in the order of their revisions."""
        return sorted((event for stream in self._streams.values() for event in list(stream)), key=lambda each: each[0])

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def _follow(self, resource: Resource) -> None:
        for change in self._api.follow(resource, self._namespace, stop=self._stop):
            if isinstance(change, Snapshot):
                self.lists += 1
                self._replace(resource.kind, change)
            elif isinstance(change, Put | Removed):
                obj = change.obj
                event = (int(obj["metadata"]["resourceVersion"]), resource.kind, obj["metadata"]["name"])
                self._note(Event(*event, None if isinstance(change, Removed) else obj))
            elif isinstance(change, Trouble):
                continue

    def _replace(self, kind: str, snapshot: Snapshot) -> None:
        revision = int(snapshot.resource_version)
        after = {obj["metadata"]["name"]: obj for obj in snapshot.items}
        for name in {*self._there[kind], *after}:
            self._note(Event(revision, kind, name, after.get(name), True))

    def _note(self, event: Event) -> None:
        there = self._there[event.kind]
        if event.obj is None:
            there.pop(event.name, None)
        else:
            there[event.name] = event.obj
        self._streams[event.kind].append(event)


@dataclass
class Judge:
    """Goes through a history, revision by revision. From `since` on all keys have to be in the view."""

    keys: Sequence[str]
    since: int = 0
    revisions: int = 0
    violations: list[str] = field(default_factory=list)
    operations: dict[str, tuple[str, str]] = field(default_factory=dict)  # by name: type and phase
    _there: dict[str, dict[str, Object]] = field(default_factory=lambda: {"Partition": {}, "Assignment": {}})
    _epochs: dict[str, int] = field(default_factory=dict)  # of each key, as the view has it
    _superseded: set[str] = field(default_factory=set)

    def see(self, events: Iterable[Event]) -> None:
        """Judge these, which are sorted."""
        for revision, group in itertools.groupby(events, key=lambda event: event.revision):
            for event in group:
                self._take(event)
            if revision >= self.since:
                self._look(revision)

    def _take(self, event: Event) -> None:
        there = self._there[event.kind]
        before = there.get(event.name)
        if event.obj is None:
            there.pop(event.name, None)
            return
        there[event.name] = event.obj
        is_same = before is not None and before["metadata"]["uid"] == event.obj["metadata"]["uid"]
        if event.kind == "Partition":
            if is_same and before and (before["spec"].get("epoch") or 0) > (event.obj["spec"].get("epoch") or 0):
                self._wrong(event.revision, f"P4: the epoch of {event.name} has gone back")
            if is_same and before and keyspace.range_of(before) != keyspace.range_of(event.obj):
                self._wrong(event.revision, f"P8: the range of {event.name} has changed")
            return
        phase, earlier = (
            operations.phase_of(event.obj),
            operations.phase_of(before) if is_same and before else "Pending",
        )
        if not event.listed and phase != earlier and phase not in ADVANCES.get(earlier, ()):
            self._wrong(event.revision, f"P9: {event.name} went from {earlier} to {phase}")
        self.operations[event.name] = event.obj["spec"]["type"], phase
        self._superseded.update((event.obj.get("status") or {}).get("supersedes") or ())

    def _look(self, revision: int) -> None:
        self.revisions += 1
        view = keyspace.view(self._there["Partition"].values(), self._there["Assignment"].values())
        if view.gaps:
            self._wrong(revision, f"P1: a gap: {', '.join(map(str, view.gaps))}")
        for one, other in itertools.pairwise(view.facts):
            if keyspace.overlaps(one.range, other.range):
                self._wrong(revision, f"P2: {one.partition} and {other.partition} overlap")
        for name in view.void:
            if name not in self._superseded:
                self._wrong(revision, f"P2: {name} is hidden, and no operation has superseded it")
        for key in self.keys:
            fact = keyspace.owner(view, key)
            if fact is None:
                continue
            if fact.epoch < self._epochs.get(key, 0):
                self._wrong(
                    revision, f"P4: the epoch of {key} in the view went from {self._epochs[key]} to {fact.epoch}"
                )
            self._epochs[key] = fact.epoch

    def _wrong(self, revision: int, what: str) -> None:
        if len(self.violations) < MOST:
            self.violations.append(f"revision {revision}: {what}")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of one semaphore of either engine on a real API server, and the judgement on it.

Every revision of the semaphore's objects and of the Pods of its namespace is heard by watches; what a watch missed
(410, an API server that was started anew) is read back revision by revision. All are put into one order by revision,
which is etcd's, and judged in that order by the oracles of tests/support, which share no code with the product:

S1 S2 S3 S5 S7  by `legality` (annotations) and `ticket_book` (tickets)
S4              nobody dead holds at the end; and nobody who lives is ever taken out by others: a grant ends only when
                its Pod was gone or had ended before, or when the test said that the holder may go (`may_go`)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    Api,
    ApiError,
    Gone,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as engine
from ansible_collections.muster.coordination.tests.support import legality, ticket_book

PATIENCE = 60.0  # seconds until the record has to have come to where the cluster is
ENDED = ("Succeeded", "Failed")
Object = dict[str, Any]
Identity = tuple[str, "str | None"]  # name, uid; None: written by an old Distributor


class Change(NamedTuple):
    """ADDED, MODIFIED or DELETED at a revision; `at` is when it was heard of, in monotonic seconds."""

    revision: int
    kind: str
    obj: Object
    at: float


class Chronicle:
    """Every change of some objects, in order and without a gap, heard by a thread of its own until `close`."""

    def __init__(self, api: Api, resource: Resource, namespace: str, **selection: str) -> None:
        self._api = Api(api.credentials, timeout=30.0)
        self._resource, self._namespace, self._selection = resource, namespace, selection
        listing = self._api.list(resource, namespace, **selection)
        self._there = {obj["metadata"]["name"]: obj for obj in listing.items}
        self._version = int(listing.resource_version)
        self.read_back = 0
        self.opened = 0  # how many watches have begun where the one before had come to
        self.changes = [
            Change(int(obj["metadata"]["resourceVersion"]), "ADDED", obj, time.monotonic()) for obj in listing.items
        ]
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until it has heard all that is there now; raises AssertionError where it can't."""
        deadline = time.monotonic() + PATIENCE
        while self._now() != (heard := self._versions(self._there.copy().values())):
            assert self._thread.is_alive(), f"the record of {self._resource.plural} broke off"
            assert time.monotonic() < deadline, f"the record of {self._resource.plural} stopped at {heard}"
            time.sleep(0.05)

    def close(self) -> None:
        self._closed.set()
        self._api.close()
        self._thread.join(10)

    def _now(self) -> dict[str, str] | None:
        """What is there, by version; None while the API server is away."""
        try:
            return self._versions(self._api.list(self._resource, self._namespace, **self._selection).items)
        except ApiError:
            return None

    @staticmethod
    def _versions(objects: Iterable[Object]) -> dict[str, str]:
        return {obj["metadata"]["name"]: obj["metadata"]["resourceVersion"] for obj in objects}

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                self._watch()
            except Gone:
                self._walk()
            except ApiError:
                time.sleep(0.05)

    def _watch(self) -> None:
        version = str(self._version)
        where = {"resource_version": version, "timeout": 20.0, **self._selection}
        events = self._api.watch(self._resource, self._namespace, **where)
        self.opened += 1
        for kind, obj in events:
            self._version = int(obj["metadata"]["resourceVersion"])
            if kind != "BOOKMARK":
                self._keep(kind, obj)

    def _walk(self) -> None:
        """From revision to revision up to now; an API server that is still unwell is asked again by `_run`."""
        try:
            now = int(self._api.list(self._resource, self._namespace, **self._selection).resource_version)
            while self._version < now:
                at = str(self._version + 1)
                items = self._api.list(self._resource, self._namespace, **self._selection, at=at).items
                there = {obj["metadata"]["name"]: obj for obj in items}
                self._version += 1
                for kind, obj in list(_differences(self._there, there)):
                    self.read_back += 1
                    self._keep(kind, obj)
        except Gone:  # etcd has forgotten it, too
            listing = self._api.list(self._resource, self._namespace, **self._selection)
            if self._versions(listing.items) != self._versions(self._there.values()):
                raise  # the thread ends, and `wait` says so
            self._version = int(listing.resource_version)
        except ApiError:
            time.sleep(0.05)

    def _keep(self, kind: str, obj: Object) -> None:
        self.changes.append(Change(self._version, kind, obj, time.monotonic()))
        if kind == "DELETED":
            self._there.pop(obj["metadata"]["name"], None)
        else:
            self._there[obj["metadata"]["name"]] = obj


def _differences(before: Mapping[str, Object], after: Mapping[str, Object]) -> Iterable[tuple[str, Object]]:
    yield from (("DELETED", before[name]) for name in before.keys() - after.keys())
    for name, obj in after.items():
        if name not in before:
            yield "ADDED", obj
        elif obj["metadata"]["resourceVersion"] != before[name]["metadata"]["resourceVersion"]:
            yield "MODIFIED", obj


# ---------------------------------------------------------------------------------------------- the judgement


@dataclass
class Verdict:
    """`grants` maps each fence that was ever given to its holder and what it got; `holding` is who holds at the end.

    `survived` are the seconds for which grants outlived their holders, as the record heard of both.
    """

    violations: list[str] = field(default_factory=list)
    grants: dict[int, tuple[str, str]] = field(default_factory=dict)
    holding: dict[Identity, int] = field(default_factory=dict)
    survived: list[float] = field(default_factory=list)
    revisions: int = 0
    read_back: int = 0


class Docket:
    """Records until `close`; `verdict` judges what was recorded."""

    def __init__(self, api: Api, namespace: str, name: str, engine_name: str) -> None:
        self._name, self._engine = name, engine_name
        self._may_go: set[str] = set()
        self.by_hand: set[int] = set()  # revisions that a person wrote, who may do what no machine may
        if engine_name == "annotations":
            semaphore = Chronicle(api, CONFIGMAPS, namespace, field_selector=f"metadata.name={name}")
        else:
            semaphore = Chronicle(api, LEASES, namespace, label_selector=f"{ticket_book.PREFIX}semaphore={name}")
        self._semaphore, self._pods = semaphore, Chronicle(api, PODS, namespace)

    def may_go(self, *holders: str) -> None:
        """These leave by themselves, or are not Pods and may be taken out: their grants may end while they live."""
        self._may_go.update(holders)

    def close(self) -> None:
        self._semaphore.close()
        self._pods.close()

    def catch_up(self) -> None:
        """Wait until all was heard that has happened so far."""
        self._semaphore.wait()
        self._pods.wait()

    @property
    def opened(self) -> tuple[int, int]:
        """How many watches have begun, of the semaphore and of the Pods: each where the one before had come to."""
        return self._semaphore.opened, self._pods.opened

    def verdict(self, *, strict: bool = True) -> Verdict:
        """Wait until all was heard, and judge it all; not `strict`: the dead may hold yet, for nobody was to look."""
        self.catch_up()
        granted_at: dict[Identity, float] = {}
        reader: _Reader = (
            _Annotations(self.by_hand) if self._engine == "annotations" else _Tickets(self._name, self.by_hand)
        )
        verdict, deaths = Verdict(read_back=self._semaphore.read_back + self._pods.read_back), _Deaths()
        marked = [(change.revision, 0, change) for change in self._pods.changes]
        marked += [(change.revision, 1, change) for change in self._semaphore.changes]
        for _revision, is_semaphore, change in sorted(marked, key=lambda entry: entry[:2]):
            if not is_semaphore:
                deaths.see(change)
                continue
            before = dict(reader.held)
            verdict.revisions += 1
            found = reader.see(change, deaths)
            for identity in reader.held.keys() - before.keys():
                granted_at[identity] = change.at
            for identity in before.keys() - reader.held.keys():
                found += self._ended(identity, reader, deaths, verdict, (granted_at[identity], change.at))
            verdict.violations += [f"revision {change.revision}: {violation}" for violation in found]
        verdict.grants, verdict.holding = reader.grants, reader.held
        late = [identity for identity in reader.held if strict and deaths.of(identity) is not None]
        verdict.violations += [f"S4: {identity} is dead and holds" for identity in late]
        return verdict

    def _ended(
        self, identity: Identity, reader: _Reader, deaths: _Deaths, verdict: Verdict, held: tuple[float, float]
    ) -> list[str]:
        died = deaths.of(identity)
        if died is not None:
            verdict.survived.append(max(0.0, held[1] - max(died, held[0])))
            return []
        name, uid = identity
        same_name = any(other == name for other, _uid in reader.held)
        adopted = same_name and (uid is None or (name, None) in reader.held)  # or its state was lost by hand
        if adopted or name in self._may_go or reader.is_removed:
            return []
        return [f"S4: {identity} was taken out although it lives and did not leave"]


class _Deaths:
    """Which identities were gone or had ended, and when that was heard; `living` are the names of the Pods that run."""

    def __init__(self) -> None:
        self.dead: set[Identity] = set()
        self.living: set[str] = set()
        self._at: dict[Identity, float] = {}

    def see(self, change: Change) -> None:
        metadata = change.obj["metadata"]
        if change.kind == "DELETED" or change.obj.get("status", {}).get("phase") in ENDED:
            identity = (metadata["name"], metadata["uid"])
            self.dead.add(identity)
            self.living.discard(metadata["name"])
            self._at.setdefault(identity, change.at)
        else:
            self.living.add(metadata["name"])

    def of(self, identity: Identity) -> float | None:
        """When it died; of a holder without a uid, when the last Pod of its name did."""
        name, uid = identity
        if uid is not None:
            return self._at.get(identity)
        return max((at for (other, _uid), at in self._at.items() if other == name), default=None)


class _Reader(Protocol):
    """Reads the revisions of one engine: `held` is who holds at the last, `grants` who was ever granted."""

    held: dict[Identity, int]
    grants: dict[int, tuple[str, str]]
    is_removed: bool

    def see(self, change: Change, deaths: _Deaths) -> list[str]: ...


class _Annotations:
    def __init__(self, by_hand: set[int]) -> None:
        self._history, self._by_hand = legality.History(), by_hand
        self.held: dict[Identity, int] = {}
        self.is_removed = False

    @property
    def grants(self) -> dict[int, tuple[str, str]]:
        return self._history.grants

    def see(self, change: Change, deaths: _Deaths) -> list[str]:
        # Whoever lost its uid, with the state, is known by its name only: without a Pod it is dead, lease or not.
        nameless = {(name, None) for name, uid in self.held if uid is None and name not in deaths.living}
        self._history.dead = deaths.dead | nameless
        self.is_removed = change.kind == "DELETED"
        if self.is_removed:
            self._history.last, self.held = None, {}
            return []
        annotations = change.obj["metadata"].get("annotations") or {}
        if change.revision in self._by_hand and self._history.last is not None:
            self._history.last = dict(annotations)  # a person may; what follows is judged
        found = self._history.step(annotations)
        try:
            grants = legality.read(annotations).grants()
        except legality.Unreadable:
            return found  # who held, holds: nobody can write there
        self.held = {(name, entry["uid"]): entry["fence"] for name, entry in grants.items()}
        return found


class _Tickets:
    """The answer of the engine for the Leases at a revision is judged by the oracle for that revision."""

    def __init__(self, name: str, by_hand: set[int]) -> None:
        self._name, self._by_hand, self._judge = name, by_hand, ticket_book.Judge(name)
        self._leases: dict[str, Object] = {}
        self.held: dict[Identity, int] = {}
        self.grants: dict[int, tuple[str, str]] = {}
        self.is_removed = False

    def see(self, change: Change, deaths: _Deaths) -> list[str]:
        name, found = change.obj["metadata"]["name"], []
        is_deleted = change.kind == "DELETED" or bool(change.obj["metadata"].get("deletionTimestamp"))
        if not is_deleted:
            if change.revision not in self._by_hand:
                found = ticket_book.spoiled(self._name, self._leases.get(name), change.obj)
            self._leases[name] = change.obj
        self._judge.event("DELETED" if is_deleted else change.kind, change.obj)
        if is_deleted:
            self._leases.pop(name, None)
        self.is_removed = self._name not in self._leases
        held = self._answer()
        found += self._judge.violations(held)
        self.held = {}
        for lease in self._leases.values():
            if (place := self._judge.place(lease["metadata"]["name"])) in held:
                owners = lease["metadata"].get("ownerReferences") or [{"uid": ""}]
                holder = lease["spec"].get("holderIdentity") or lease["metadata"]["name"]
                self.held[holder, owners[0]["uid"]] = place
                self.grants.setdefault(place, (holder, lease["metadata"]["annotations"][f"{ticket_book.PREFIX}want"]))
        return found

    def _answer(self) -> frozenset[int]:
        book = engine.parse(self._name, self._leases.values())
        if book is None:
            return frozenset()
        return engine.holders(book) if book.terms.is_settled else engine.still_held(book, self._judge.held)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tickets engine in the benchmark and in the soak: contenders that share a watch, and the judge of its history."""

from __future__ import annotations

from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    Put,
    Removed,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant
from ansible_collections.muster.coordination.plugins.module_utils.verbs import tickets
from bench.contend import Holder
from bench.contenders import RESOURCE, Doors, OnKubernetes
from bench.judges import Object, name_of
from tests.support import ticket_book


class Tickets(OnKubernetes):
    """The tickets engine: one create, one delete, and the product's decision on one watch a process."""

    def __init__(self, kubeconfig: str, namespace: str, name: str) -> None:
        super().__init__(kubeconfig, namespace, name)
        self.doors = Doors()
        self.book: engine.Book | None = None
        self._terms: engine.Terms | None = None
        self._entries: dict[str, Any] = {}
        self.follow(self._take, resource=LEASES, label_selector=f"{engine.LABEL}={name}")

    def contender(self, holder: Holder) -> _TicketsContender:
        return _TicketsContender(self, holder)

    def _take(self, change: Any) -> None:
        if isinstance(change, Snapshot):
            self._entries.clear()
            for lease in change.items:
                self._keep(lease)
        elif isinstance(change, Put):
            self._keep(change.obj)
        elif isinstance(change, Removed):
            self._entries.pop(change.obj["metadata"]["name"], None)
        else:
            return
        if self._terms is not None:
            self.book = engine.bind(self._terms, self._entries.values())
            held = engine.holders(self.book)
            self.doors.show({ticket.holder: ticket.place for ticket in self.book.tickets if ticket.place in held})

    def _keep(self, lease: dict[str, Any]) -> None:
        if lease["metadata"]["name"] == self.name:
            self._terms = engine.read_terms(lease)
        else:
            self._entries[lease["metadata"]["name"]] = engine.read_ticket(lease)


class _TicketsContender:
    def __init__(self, system: Tickets, holder: Holder) -> None:
        self._system, self._api = system, system.api()
        self._me = Claimant(holder.name, holder.uid, {RESOURCE: 1})
        self._ticket = engine.ticket_name(system.name, self._me)

    def acquire(self, until: float) -> int | None:
        system = self._system
        assert system.book is not None
        drawn = tickets.draw(self._api, system.name, system.namespace, self._me, system.book)
        assert drawn is not None
        return system.doors.wait(self._me.holder, int(drawn["metadata"]["resourceVersion"]) - 1, until)

    def release(self) -> None:
        tickets.delete_ticket(self._api, self._ticket, self._system.namespace)


class TicketsJudge:
    """Of a semaphore of tickets: the oracle judges what the engine answers for every revision."""

    resource, selector = LEASES, engine.LABEL

    def __init__(self, name: str) -> None:
        self._name = name
        self._oracle = ticket_book.Judge(name)
        self._terms: engine.Terms | None = None
        self._entries: dict[str, Any] = {}
        self.grants: dict[int, tuple[str, str]] = {}

    @staticmethod
    def belongs(obj: Object) -> str:
        return str(obj["metadata"]["labels"][engine.LABEL])

    @property
    def revisions(self) -> int:
        return self._oracle.revisions

    def bury(self, holder: str, uid: str) -> None:
        """Its ticket goes with its Pod, by the garbage collector."""

    def see(self, kind: str, obj: Object) -> list[str]:
        if name_of(obj) == self._name:
            self._terms = engine.read_terms(obj)
        elif kind == "DELETED":
            self._entries.pop(name_of(obj), None)
        else:
            self._entries[name_of(obj)] = engine.read_ticket(obj)
        if kind != "DELETED" and obj["metadata"].get("deletionTimestamp"):
            return []  # the garbage collector's first step; the ticket goes in the second
        self._oracle.event(kind, obj)
        if self._terms is None:
            return []
        book = engine.bind(self._terms, self._entries.values())
        held = engine.holders(book)
        for ticket in book.tickets:
            if ticket.place in held:
                self.grants.setdefault(ticket.place, (ticket.holder, next(iter(ticket.want))))
        return self._oracle.violations(held)

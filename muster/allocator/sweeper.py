# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives back places that nobody uses, and removes objects that nobody owns; see `decisions/allocator_sweep.py`.

Each finding is looked into once more right before it is acted upon, by a read of the Instance that is newer than all
that was found; and what is changed or deleted is so only as it was seen.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Api,
    ApiError,
    Conflict,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator_sweep as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as ledgers_
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import POOL
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator_sweep import (
    Delete,
    Finding,
    Free,
    Known,
    Place,
    Sight,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import INSTANCE, WORKLOADS
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, Ledger
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import TOTAL, Ledgers
from muster.frame.authority import Authority, Superseded, Term
from muster.process import log, say

SWEEP_SECONDS: Final = 30.0  # between two sweeps
MOST: Final = 200  # findings that one sweep acts upon; the next goes on
SHORTEST_SECONDS: Final = 0.5  # between two rounds, also of one that is woken

Object = dict[str, Any]


class Sweeper:
    """Of one allocator; for one thread."""

    def __init__(
        self,
        api: Api,
        ledgers: Ledgers,
        namespace: str,
        allocator: str,
        kinds: Iterable[Resource],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`kinds` are those that instances may be made of."""
        self._api, self._ledgers, self._namespace, self._allocator = api, ledgers, namespace, allocator
        self._kinds = {(kind.api_version, kind.kind): kind for kind in kinds}
        self._clock = clock
        self._since: decisions.Since = {}

    def sweep(self, term: Term) -> list[Finding]:
        """Look once; what was done. Raises what the term and the API server raise, and Malformed for a broken ledger:
        then nothing is given back, for nobody knows who has what.
        """
        sight = self._look()
        found, self._since = decisions.findings(sight, self._since, self._clock(), POOL)
        done = []
        for finding in found[:MOST]:
            term.check()
            if self._free(finding.place) if isinstance(finding, Free) else self._delete(finding):
                done.append(finding)
                say(logging.INFO, "swept", **_told(finding))
        return done

    # ------------------------------------------------------------------------------------------ looking

    def _look(self) -> Sight:
        """In the order that makes it sound: first what Instances are looked for, then these."""
        total = self._ledgers.read(TOTAL)
        ledgers = tuple(self._ledgers.all())
        objects = tuple(obj for kind in self._kinds.values() for obj in self._made(kind))
        selector = f"{MEMBER}={self._allocator}"
        instances = self._api.list(INSTANCES, self._namespace, label_selector=selector).items
        return Sight(total, ledgers, objects, {obj["metadata"]["name"]: _known(obj) for obj in instances})

    def _made(self, kind: Resource) -> list[Object]:
        selector = f"{MEMBER}={self._allocator},{INSTANCE}"
        found = self._api.list(kind, self._namespace, label_selector=selector, metadata_only=True).items
        # a list of metadata alone names its own kind
        whole = [{**obj, "apiVersion": kind.api_version, "kind": kind.kind} for obj in found]
        return [obj for obj in whole if decisions.is_made(obj, self._allocator)]

    def _instance(self, name: str) -> dict[str, Known]:
        """By its name, as the API server has it now."""
        try:
            return {name: _known(self._api.get(INSTANCES, name, self._namespace))}
        except NotFound:
            return {}

    # ------------------------------------------------------------------------------------------ doing

    def _free(self, place: Place) -> bool:
        """Take an entry out, if it is the same still."""
        entry = place.entry
        if decisions.belongs(place, self._instance(entry.handle), POOL):
            return False

        def change(ledger: Ledger | None) -> tuple[Ledger | None, bool]:
            if ledger is None or ledger.entries.get(entry.handle) != entry:
                return ledger, False
            return ledgers_.release(ledger, entry.handle, entry.uid), True

        return self._ledgers.change(place.owner or TOTAL, change)

    def _delete(self, finding: Delete) -> bool:
        """Delete an object, if it is the same still, to the version: a disk that is kept since then is another one."""
        known = self._instance(finding.instance).get(finding.instance)
        if known is not None and known.uid == finding.owner:
            return False
        key, kind = finding.key, self._kinds[finding.key.api_version, finding.key.kind]
        try:
            there = self._api.get(kind, key.name, self._namespace)
            is_it = there["metadata"]["uid"] == finding.uid and decisions.is_made(there, self._allocator)
            if not is_it or [uid for _name, uid in decisions.owners(there)] != [finding.owner]:
                return False
            self._api.delete(
                kind,
                key.name,
                self._namespace,
                uid=finding.uid,
                resource_version=there["metadata"]["resourceVersion"],
                propagation="Foreground" if key.kind in WORKLOADS else "",
            )
        except (Conflict, NotFound):
            return False
        return True


def _known(instance: Object) -> Known:
    return Known(instance["metadata"]["uid"], instance["spec"].get("owner", ""))


def _told(finding: Finding) -> dict[str, str]:
    if isinstance(finding, Delete):
        return {"deleted": str(finding.key), "instance": finding.instance}
    owner, entry = finding.place
    return {"freed": entry.handle, "state": entry.state, "owner": owner or "the total"}


class Round:
    """Something that one of all replicas does again and again: whoever has the authority over this key."""

    def __init__(
        self, name: str, authority: Authority, key: str, turn: Callable[[Term], object], seconds: float
    ) -> None:
        self._name, self._authority, self._key, self._turn, self._seconds = name, authority, key, turn, seconds
        self._woken, self._stop = threading.Event(), threading.Event()
        self.failures = 0

    def start(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def wake(self) -> None:
        """Have the next turn soon; from any thread."""
        self._woken.set()

    def stop(self) -> None:
        self._stop.set()
        self._woken.set()

    def once(self) -> bool:
        """Take a turn, if it is ours to take; whether it was."""
        with self._authority.work(self._key) as term:
            if term is None:
                return False
            self._turn(term)
        return True

    def _run(self) -> None:
        while not self._stop.is_set():
            self._woken.clear()
            try:
                self.once()
            except Superseded as error:
                say(logging.INFO, "left to whoever has it now", round=self._name, why=str(error))
            except (ApiError, MusterError) as error:
                self.failures += 1
                say(logging.WARNING, "failed", round=self._name, error=f"{type(error).__name__}: {error}")
            except Exception as error:
                self.failures += 1
                log.exception("failed", extra={"fields": {"round": self._name, "error": repr(error)}})
            self._stop.wait(SHORTEST_SECONDS)
            self._woken.wait(self._seconds)

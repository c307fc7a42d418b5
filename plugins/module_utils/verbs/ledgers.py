# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change the ledgers of an allocator: `decisions/ledger.py` committed to the API server, many changes in one write.

Theory: group commit (DeWitt et al., 1984): who comes while a write is under way waits for it, and all who have come by
then go into the next one together. So the rate of creations is not bound by the rate of writes to one object.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.commit import UNREAD, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import Ledger

Verdict = TypeVar("Verdict")
Object = dict[str, Any]

REMEMBERED: Final = 1000  # ledgers, as they were written last
SECONDS: Final = 15.0  # for one write, with what it takes to get through
TOTAL: Final = ""  # in place of an owner


class _Asked(Generic[Verdict]):
    """One change, and what came of it."""

    def __init__(self, change: Callable[[Ledger | None], tuple[Ledger | None, Verdict]]) -> None:
        self.change = change
        self.verdict: Any = None
        self.error: BaseException | None = None
        self.is_done = False


class _Known(NamedTuple):
    """A ConfigMap, and what it says: a long one is not read anew for each write."""

    obj: Object
    ledger: Ledger


class Ledgers:
    """All ledgers of one allocator. For several threads."""

    def __init__(self, api: Api, namespace: str, allocator: str, *, timeout: float = SECONDS) -> None:
        self.api, self._namespace, self._allocator, self._timeout = api, namespace, allocator, timeout
        self._waiting: dict[str, list[_Asked[Any]]] = {}  # by the name of the ConfigMap
        self._busy: set[str] = set()
        self._latest: OrderedDict[str, _Known] = OrderedDict()  # as they were after our last writes
        self._news = threading.Condition()
        self.writes = 0  # commits that were asked for, each of one change or more

    def read(self, owner: str) -> Ledger | None:
        """An owner's ledger, or the TOTAL, as the API server has it. Raises Malformed."""
        try:
            return _read(self.api.get(CONFIGMAPS, self.name(owner), self._namespace))
        except NotFound:
            return None

    def remembered(self, owner: str) -> Ledger | None:
        """As this process has written it last; None where it has not. Others may have written since."""
        with self._news:
            known = self._latest.get(self.name(owner))
            return known.ledger if known else None

    def all(self) -> list[Ledger]:
        """Every owner's. Raises Malformed."""
        label = f"{decisions.MEMBER}={self._allocator},{decisions.OWNER}"
        found = [_read(obj) for obj in self.api.list(CONFIGMAPS, self._namespace, label_selector=label).items]
        return [each for each in found if each]

    def name(self, owner: str) -> str:
        """Of the ConfigMap."""
        return decisions.ledger_name(self._allocator, owner) if owner else decisions.total_name(self._allocator)

    def change(self, owner: str, change: Callable[[Ledger | None], tuple[Ledger | None, Verdict]]) -> Verdict:
        """Do this to the ledger as it stands, and return the change's verdict, once it is written.

        The change may be asked for several times, on other ledgers; it writes nothing itself. Raises TimedOut,
        Malformed, and what only a person mends; then it may have been written all the same.
        """
        mine: _Asked[Verdict] = _Asked(change)
        name = self.name(owner)
        with self._news:
            self._waiting.setdefault(name, []).append(mine)
            self._news.wait_for(lambda: mine.is_done or name not in self._busy)
            if mine.is_done:
                return _answer(mine)
            self._busy.add(name)
            group = self._waiting.pop(name)
        try:
            self._write(name, owner, group)
        except BaseException as error:
            for each in group:
                each.error = error
        finally:
            with self._news:
                for each in group:
                    each.is_done = True
                self._busy.discard(name)
                self._news.notify_all()
        return _answer(mine)

    def _write(self, name: str, owner: str, group: list[_Asked[Any]]) -> None:
        self.writes += 1

        with self._news:
            known = self._latest.pop(name, None)
        after: Ledger | None = None

        def decide(there: Object | None) -> tuple[Object | None, list[Any]]:
            nonlocal after
            before = after = known.ledger if known and there is known.obj else _read(there)
            verdicts = []
            for each in group:
                after, verdict = each.change(after)
                verdicts.append(verdict)
            if after is None or after == before:
                return there, verdicts
            return self._written(there, name, owner, after), verdicts

        seen = known.obj if known else UNREAD
        done = commit(self.api, CONFIGMAPS, name, self._namespace, decide, timeout=self._timeout, seen=seen)
        verdicts = done.verdict
        with self._news:
            if done.after is not None and after is not None:
                self._latest[name] = _Known(done.after, after)
            while len(self._latest) > REMEMBERED:
                self._latest.popitem(last=False)
        for each, verdict in zip(group, verdicts, strict=True):
            each.verdict = verdict

    def _written(self, there: Object | None, name: str, owner: str, ledger: Ledger) -> Object:
        labels = {decisions.MEMBER: self._allocator}
        if owner:
            labels[decisions.OWNER] = decisions.owner_hash(owner)
        start = there or {"apiVersion": "v1", "kind": "ConfigMap"}
        metadata: Object = dict(there["metadata"]) if there else {"name": name, "namespace": self._namespace}
        known = metadata.get("labels")
        metadata["labels"] = {**(known or {}), **labels}
        return {
            **start,
            "metadata": metadata,
            "data": {**(start.get("data") or {}), decisions.KEY: decisions.dump(ledger)},
        }


def _read(configmap: Object | None) -> Ledger | None:
    return decisions.parse(((configmap or {}).get("data") or {}).get(decisions.KEY))


def _answer(asked: _Asked[Verdict]) -> Verdict:
    if asked.error is not None:
        raise asked.error
    verdict: Verdict = asked.verdict
    return verdict

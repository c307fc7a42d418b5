# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authority over a part of the keys for each replica: the shards that it owns in the controller's table.

How a table changes is decided in `decisions/sharding.py`. Each replica is a member by a Lease of its own, which it
renews and on which all its shards rest; it has what the table says that it owns, ends its work on what it is not wanted
for any more, and then lets that go.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    Api,
    Change,
    Object,
    Put,
    Removed,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, members, sharding
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Seen
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout, Table
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import leases, tables
from muster.frame.authority import Term
from muster.frame.office import Office, Settings
from muster.process import say

UNUSED_SECONDS: Final = 300.0  # so long after it was freed, a Lease is removed whose member has not come back
STABLE: Final = Layout()
PAUSE: Final = 0.5  # seconds until the next try of a write that failed


class Shards(Office):
    """See `Authority`."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        layout: Layout = STABLE,
        *,
        writes: Api | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`layout` is the one by which this replica would go; all go by that of the newest, once all have let go."""
        name, pod = settings.name, settings.me.pod
        self._own = members.lease_name(name, pod)
        marks = members.marks(name, layout)
        super().__init__(api, settings, writes=writes, clock=clock, name=self._own, metadata=marks, is_contended=False)
        self._scope = f"{settings.namespace}/{members.table_name(name)}"
        self._leases: dict[str, Object] = {}  # of all members, as they were last seen, by name
        self._seen: dict[str, Seen] = {}  # their terms; also of Leases that are missing
        self._versions: dict[str, int] = {}  # of each Lease: what is older is not news
        self._table: Table | None = None
        self._table_version, self._table_uid = -1, ""
        self._quiet_until = 0.0
        self._has_announced = False

    # ------------------------------------------------------------------------------------------ as an Authority

    def work(self, key: str) -> AbstractContextManager[Term | None]:
        return self._tenures.work(self._name_of(key))

    def is_mine(self, key: str) -> bool:
        return self._tenures.has(self._name_of(key))

    def describe(self) -> dict[str, Any]:
        table, owned = self._table, sorted(shard for _layout, shard in self._tenures.names())
        return {
            "mode": "shard",
            "active": bool(owned) and self._tenures.left() > 0,
            "shards": owned,
            "layout": table.layout._asdict() if table else None,
            "settled": table is not None and table.is_settled,
            **super().describe(),
        }

    def _name_of(self, key: str) -> tuple[Layout, int] | None:
        """How the tenure is called on which the key rests: of another layout the same number is another shard."""
        table = self._table
        return (table.layout, table.layout.shard_of(key)) if table else None

    # ------------------------------------------------------------------------------------------ what is seen

    def _begin(self) -> None:
        name = self._settings.name
        self._follow("leases", LEASES, label_selector=f"{members.MEMBER_OF}={name}")
        self._follow("table", CONFIGMAPS, name=members.table_name(name))

    def _take(self, source: str, change: Change) -> None:
        self._quiet_until = 0.0
        see = self._see_lease if source == "leases" else self._see_table
        match change:
            case Snapshot(items, version):
                there = {item["metadata"]["name"]: item for item in items}
                known = {self._own, *self._leases} if source == "leases" else {members.table_name(self._settings.name)}
                for name in {*known, *there}:
                    see(name, there.get(name), int(version))
            case Put(obj):
                see(obj["metadata"]["name"], obj, int(obj["metadata"]["resourceVersion"]))
            case Removed(obj):
                see(obj["metadata"]["name"], None, int(obj["metadata"]["resourceVersion"]))

    def _see_lease(self, name: str, lease: Object | None, version: int) -> None:
        if version < self._versions.get(name, -1):
            return
        self._versions[name] = version
        if name == self._own:
            self._keeper.see(lease, version)
        if lease is None:
            self._leases.pop(name, None)
        else:
            self._leases[name] = lease
        self._look_at(name)

    def _look_at(self, name: str) -> Seen:
        """The term of a member's Lease, and since when it is seen unchanged; also of one that is missing."""
        self._seen[name] = self._as_seen(name, self._leases.get(name))
        return self._seen[name]

    def _as_seen(self, name: str, lease: Object | None) -> Seen:
        term = election.missing(self._settings.timing)
        with suppress(Malformed):  # its holder has stopped, or will when its time is over
            term = election.parse(lease) if lease else term
        return election.see(self._seen.get(name), term, self._clock())

    def _see_table(self, _name: str, configmap: Object | None, version: int) -> None:
        if version < self._table_version:
            return
        self._table_version = version
        uid = configmap["metadata"]["uid"] if configmap else ""
        if self._table_uid and uid != self._table_uid:
            say(logging.WARNING, "the table of shards was deleted: stops all work", table=self._scope)
            for name in self._tenures.names():
                self._tenures.end(name)
        self._table_uid = uid
        try:
            self._table = tables.read(configmap)
            self._troubles.pop("the table", None)
        except MusterError as error:
            self._table = None
            self._troubles["the table"] = str(error)

    # ------------------------------------------------------------------------------------------ what is done

    def _act(self) -> None:
        if self._is_draining and not self._has_announced:
            self._has_announced = True
            self._keeper.announce_leave()
        for name in self._seen.keys() - self._leases.keys() - self._owners():
            del self._seen[name]
            self._versions.pop(name, None)
        self._pods.watch([seen.term.pod for seen in self._seen.values()])
        drained = self._adopt()
        if self._keeper.has and self._clock() >= self._quiet_until and self._one_write(drained):
            self._wake()  # to see what else there is, after the keeper had its turn

    def _adopt(self) -> list[int]:
        """Have what the table says that is ours; end work on what is not. Returns the shards that may be let go."""
        table, keeper, tenures = self._table, self._keeper, self._tenures
        me = str(keeper.me)
        owned = table.owned_by(me) if table and keeper.has else {}
        revoked = table.revoked_from(me) if table and keeper.has else frozenset()
        for name in tenures.names():
            if table is None or name[0] != table.layout or owned.get(name[1]) != tenures.fence(name):
                tenures.end(name)
        drained, gained = [], False
        for shard, fence in owned.items():
            assert table is not None
            name = (table.layout, shard)
            has = tenures.fence(name) is not None
            if shard in revoked:
                if not has or tenures.close(name):
                    tenures.end(name)
                    drained.append(shard)
            elif has:
                gained = tenures.reopen(name) or gained  # what it was asked for meanwhile was turned away
            elif tenures.left() > 0:
                tenures.begin(name, me, f"{self._scope}/{shard}", fence)
                gained = True
        if gained:
            self._changed()
        return drained

    def _one_write(self, drained: list[int]) -> bool:
        """Evict one whose term is over; or bring the table forward; or clean up. Whether anything was due."""
        try:
            was_due = self._evict_one() or self._advance(drained) or self._remove_one()
            self._troubles.pop("a write", None)
            return was_due
        except MusterError as error:
            self._troubles["a write"] = str(error)
            self._quiet_until = self._clock() + PAUSE
            return False

    def _evict_one(self) -> bool:
        now = self._clock()
        for name, lease in self._leases.items():
            seen = self._seen[name]
            if name == self._own or not seen.term.holder:
                continue
            if self._keeper.is_dead(seen) or seen.unchanged(now) >= seen.term.seconds:
                say(logging.INFO, "takes a replica out: it has ended, or is silent", identity=seen.term.holder)
                freed = leases.evict(self._writes, lease, seen.term, timeout=self._keeper.timeout)
                found = freed or self._writes.get(LEASES, name, self._settings.namespace)
                self._see_lease(name, found, int(found["metadata"]["resourceVersion"]))
                return True
        return False

    def _advance(self, drained: list[int]) -> bool:
        if self._table_version < 0:
            return False  # it has not been read yet
        me = str(self._keeper.me)
        seen = tables.step(
            self._table, self._leases, me=me, fence=self._table_version, drained=drained, is_over=self._is_over
        )
        if seen is self._table:
            return False
        written = tables.advance(
            self._writes,
            controller=self._settings.name,
            namespace=self._settings.namespace,
            me=me,
            drained=drained,
            is_over=self._is_over,
            timeout=self._keeper.timeout,
        )
        before = self._table_version
        if written:
            self._see_table("", written, int(written["metadata"]["resourceVersion"]))
        if self._table_version == before:  # nothing was to be done by what is there: a watch will say why
            self._quiet_until = self._clock() + PAUSE
        return True

    def _is_over(self, owner: sharding.Owner, found: tables.Leases) -> bool:
        """Whether an owner's term is over, by Leases that were read just now."""
        name = members.lease_name(self._settings.name, owner.member)
        if name not in found and name not in self._seen:
            self._look_at(name)  # from now on it is seen to be missing
        return election.is_over(self._as_seen(name, found.get(name)), owner.identity, self._clock())

    def _remove_one(self) -> bool:
        """Delete a Lease that was given back long ago: its member has another name by now."""
        now = self._clock()
        for name, lease in self._leases.items():
            seen = self._seen[name]
            is_free = not seen.term.holder and name not in self._owners()
            if name != self._own and is_free and seen.unchanged(now) >= UNUSED_SECONDS:
                metadata = lease["metadata"]
                self._writes.delete(
                    LEASES,
                    name,
                    self._settings.namespace,
                    uid=metadata["uid"],
                    resource_version=metadata["resourceVersion"],
                )
                return True
        return False

    def _owners(self) -> set[str]:
        """The names of the Leases of all who own a shard."""
        owners = self._table.owners if self._table else ()
        return {members.lease_name(self._settings.name, owner.member) for owner in owners if owner}

    def _next_at(self) -> float:
        return min(self._times(self._clock()), default=math.inf)

    def _times(self, now: float) -> Iterable[float]:
        """When something may be due without news."""
        if self._quiet_until > now:
            yield self._quiet_until
            return
        for seen in self._seen.values():
            for seconds in (seen.term.seconds, UNUSED_SECONDS):
                if seen.since + seconds > now:
                    yield seen.since + seconds

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authority over all keys for one replica, the leader: whoever has the controller's Lease."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    LEASES,
    Api,
    Change,
    Put,
    Removed,
    Snapshot,
)
from muster.frame.authority import Term
from muster.frame.office import Office, Settings

ALL: Final = "all keys"


class Leader(Office):
    """See `Authority`."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        *,
        writes: Api | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(api, settings, writes=writes, clock=clock, name=settings.name, is_contended=True)
        self._scope = f"{settings.namespace}/{settings.name}"

    def work(self, key: str) -> AbstractContextManager[Term | None]:
        return self._tenures.work(ALL)

    def is_mine(self, key: str) -> bool:
        return self._tenures.has(ALL)

    def describe(self) -> dict[str, Any]:
        leads = self._tenures.has(ALL)
        return {"mode": "leader", "active": leads, "fence": self._tenures.fence(ALL), **super().describe()}

    def _begin(self) -> None:
        self._follow("lease", LEASES, name=self._settings.name)

    def _take(self, source: str, change: Change) -> None:
        match change:
            case Snapshot(items, version):
                self._keeper.see(items[0] if items else None, int(version))
            case Put(lease):
                self._keeper.see(lease, int(lease["metadata"]["resourceVersion"]))
            case Removed(lease):
                self._keeper.see(None, int(lease["metadata"]["resourceVersion"]))

    def _act(self) -> None:
        keeper = self._keeper
        self._pods.watch([keeper.me.pod if keeper.me.container else "", keeper.holder.partition("_")[0]])
        if keeper.has and self._tenures.left() > 0 and self._tenures.fence(ALL) != keeper.fence:
            self._tenures.begin(ALL, str(keeper.me), self._scope, keeper.fence)
            self._changed()

    def _next_at(self) -> float:
        return math.inf

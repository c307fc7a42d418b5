# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps instances ready that have no owner yet. The pool's own ledger bounds them, whoever else does this too."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import Conflict, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import can_wait
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import READY
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES, Allocator
from muster.frame.authority import Term
from muster.process import say

BURST_SECONDS: Final = 1.0  # without a claim, before the pool is filled up again
WARM_SECONDS: Final = 2.0  # between two looks, where nothing has one looked earlier

Object = dict[str, Any]


class Warm:
    """The warm pool of one allocator; for one thread."""

    def __init__(self, allocator: Allocator, instances: Callable[[], Iterable[Object]]) -> None:
        """`instances` are all of this allocator, as a watch has them."""
        self._allocator, self._instances = allocator, instances

    def keep(self, term: Term) -> None:
        """Make what is missing, and remove what is not wanted any more, or would be made otherwise today.

        What somebody claims meanwhile is another version of the Instance, and stays. While many claim, they go first.
        """
        if self._allocator.seconds_since_claim() < BURST_SECONDS:
            return
        offer = self._allocator.offer
        wanted = offer.warm if can_wait(offer.template) else 0
        free = [obj for obj in self._instances() if not obj["spec"].get("owner") and not _is_going(obj)]
        old = [obj for obj in free if obj["spec"].get("template") != offer.template.digest]
        current = sorted((obj for obj in free if obj not in old), key=_merit)
        for obj in [*old, *current[wanted:]]:
            term.check()
            self._remove(obj)
        for _number in range(wanted - len(current)):
            term.check()
            if self._allocator.make_warm() is None:
                return  # those that go have their places still

    def _remove(self, obj: Object) -> None:
        metadata = obj["metadata"]
        try:
            self._allocator.api.delete(
                INSTANCES,
                metadata["name"],
                metadata["namespace"],
                uid=metadata["uid"],
                resource_version=metadata["resourceVersion"],
            )
        except (Conflict, NotFound):
            return
        say(logging.INFO, "not kept warm any more", name=metadata["name"])


def _is_going(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def _merit(obj: Object) -> tuple[bool, str]:
    """Those that are ready come first, then the older ones."""
    is_ready = (obj.get("status") or {}).get("phase") == READY
    return not is_ready, obj["metadata"].get("creationTimestamp", "")

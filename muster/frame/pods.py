# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kubelet says of the Pods that hold Leases, as proof that a holder's process has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    PODS,
    Api,
    Change,
    Object,
    Put,
    Removed,
    Snapshot,
    Trouble,
)
from muster.frame.following import follow
from muster.process import say

REMEMBERED: Final = 100  # of the Pods that are gone, so many: their last state may be the proof


class Pods:
    """Pods of one namespace by their uids. For several threads.

    With a label selector all that it selects are watched, else those whose names are asked for, each by itself.
    """

    def __init__(self, api: Api, namespace: str, selector: str, changed: Callable[[], None]) -> None:
        """`changed` is called, from any thread, after what `get` returns has changed."""
        self._api, self._namespace, self._selector, self._changed = api, namespace, selector, changed
        self._present: dict[str, Object] = {}
        self._gone: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._watched: dict[str, threading.Event] = {}  # by name, or by "" for all, and how to end it
        self.trouble: str | None = None

    def watch(self, names: Iterable[str]) -> None:
        """Watch these Pods, and no others."""
        wanted = {""} if self._selector else {name for name in names if name}
        for name in self._watched.keys() - wanted:
            self._watched.pop(name).set()
        for name in wanted - self._watched.keys():
            stop = self._watched[name] = threading.Event()
            threading.Thread(target=self._run, args=(name, stop), name=f"pod {name}", daemon=True).start()

    def get(self, uid: str) -> Object | None:
        """The Pod as it was last seen, also when it has gone since; its `metadata` and `status` only."""
        with self._lock:
            return self._present.get(uid) or self._gone.get(uid)

    def stop(self) -> None:
        for stop in self._watched.values():
            stop.set()

    # ------------------------------------------------------------------------------------------ private

    def _run(self, name: str, stop: threading.Event) -> None:
        what: dict[str, Any] = {"name": name} if name else {"label_selector": self._selector}
        mine: set[str] = set()
        for change in follow(self._api, PODS, self._namespace, stop, shrink=_slim, **what):
            if isinstance(change, Trouble):
                if self.trouble is None:
                    say(logging.WARNING, "Pods can't be watched: a crash is noticed later", error=str(change.error))
                self.trouble = str(change.error)
                continue
            self.trouble = None
            with self._lock:
                self._take(change, mine)
            self._changed()
        with self._lock:
            self._leave(mine)

    def _take(self, change: Change, mine: set[str]) -> None:
        """`mine` are the uids that this watch has shown."""
        if isinstance(change, Snapshot):
            there = {pod["metadata"]["uid"]: pod for pod in change.items}
            self._leave(mine - there.keys())
            self._present.update(there)
            mine.clear()
            mine.update(there)
        elif isinstance(change, (Put, Removed)):
            uid = change.obj["metadata"]["uid"]
            self._present[uid] = change.obj
            mine.add(uid)
            if isinstance(change, Removed):
                self._leave({uid})
                mine.discard(uid)

    def _leave(self, uids: Iterable[str]) -> None:
        for uid in list(uids):
            if uid in self._present:
                self._gone[uid] = self._present.pop(uid)
        while len(self._gone) > REMEMBERED:
            del self._gone[next(iter(self._gone))]


def _slim(pod: Object) -> Object:
    """What proof of death needs; a Pod may be long, and a controller may have many replicas."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    return {
        "metadata": {key: metadata.get(key) for key in ("name", "uid", "resourceVersion")},
        "status": {key: status.get(key) for key in ("phase", "containerStatuses", "initContainerStatuses")},
    }

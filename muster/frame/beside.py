# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects of another kind, of which a change concerns the controller's own: one, or all of that namespace."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Api,
    Change,
    Object,
    Put,
    Removed,
    Resource,
    Snapshot,
    Trouble,
)
from muster.frame.following import follow
from muster.process import say


class Beside:
    """A watch that keeps nothing: who is told of a change reads what there is.

    `removed` is told the last state of each object that goes, from the watch's own thread, before the change is told.
    """

    def __init__(
        self,
        api: Api,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        shrink: Callable[[Object], Object] | None = None,
        removed: Callable[[Object], None] = lambda obj: None,
        concerns: Callable[[Object], str | None] | None = None,
    ) -> None:
        """`namespace` None: all. `shrink` says what of an object matters to `removed`, and to `concerns`.

        `concerns` names the one object that a change concerns, by its key (None: none); without it, it is all of its
        namespace.
        """
        self._api, self._resource, self._namespace = api, resource, namespace
        self._selector, self._shrink, self._removed = label_selector, shrink or _slim, removed
        self._concerns: Callable[[Object], str | None] = concerns or _namespace_of
        self._stop = threading.Event()
        self.trouble: str | None = None

    def start(self, changed: Callable[[str], None]) -> None:
        """`changed` is told the namespace, or the key of what is concerned."""
        name = f"beside {self._resource.plural}"
        threading.Thread(target=self._run, args=(changed,), name=name, daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self, changed: Callable[[str], None]) -> None:
        what = {"label_selector": self._selector, "shrink": self._shrink}
        for change in follow(self._api, self._resource, self._namespace, self._stop, **what):
            for concerned in self._take(change):
                changed(concerned)

    def _take(self, change: Change) -> set[str]:
        if isinstance(change, Trouble):
            if self.trouble is None:
                say(logging.WARNING, "a watch is in trouble", kind=self._resource.kind, error=str(change.error))
            self.trouble = str(change.error)
            return set()
        self.trouble = None
        if isinstance(change, Removed):
            self._removed(change.obj)
        found = (
            change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put | Removed) else []
        )
        return {concerned for obj in found if (concerned := self._concerns(obj)) is not None}


def _namespace_of(obj: Object) -> str:
    return str(obj["metadata"].get("namespace", ""))


def _slim(obj: Object) -> Object:
    return {"metadata": {"namespace": obj["metadata"].get("namespace", "")}}

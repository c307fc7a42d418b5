# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All objects of one kind, kept as the API server's list and watch tell them; made for up to 100,000.

What a caller can rely on:
- Each object is kept as compact JSON without managedFields, and never as parsed: its memory is about its length, which
  `size` sums up. Also while a list comes in, only one page of it is parsed.
- Who reads gets a copy of its own, to change as it likes.
- Of all that changed, `on_change` is told the key, after it can be read here; also of what was deleted unwatched.
- It may be older than what was just written. Who decides on it writes by compare-and-swap, so that is found out.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Api,
    Change,
    Object,
    Recovered,
    Removed,
    Resource,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.frame.following import follow
from muster.process import say


class _Entry(NamedTuple):
    version: str
    packed: bytes


def key_of(obj: Object) -> str:
    """`NAMESPACE/NAME`, or `NAME` where the kind has no namespaces."""
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return f"{namespace}/{metadata['name']}" if namespace else str(metadata["name"])


class Cache:
    """Objects of one kind, of one namespace or (None) of all. For several threads."""

    def __init__(
        self,
        api: Api,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        on_change: Callable[[str], None] = lambda key: None,
    ) -> None:
        """`on_change` is told keys from the cache's own thread, which it must not hold up."""
        self._api, self._resource, self._namespace = api, resource, namespace
        self._selectors: dict[str, Any] = {"label_selector": label_selector, "field_selector": field_selector}
        self._on_change = on_change
        self._entries: dict[str, _Entry] = {}  # replaced as a whole or entry by entry, and only by its thread
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"cache {resource.plural}", daemon=True)
        self.synced = threading.Event()  # the first list is complete
        self.size = 0  # bytes of all objects as they are kept
        self.lists = 0  # how often all was listed
        self.trouble: str | None = None  # why it may be out of date

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Follow no more; what there is can still be read."""
        self._stop.set()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, namespace: str | None, name: str) -> Object | None:
        """A copy of the object, None where there is none."""
        return self.by_key(f"{namespace}/{name}" if namespace else name)

    def by_key(self, key: str) -> Object | None:
        """The same by its key (see `key_of`)."""
        entry = self._entries.get(key)
        return None if entry is None else json.loads(entry.packed)

    def keys(self) -> list[str]:
        return list(self._entries)

    def items(self) -> Iterator[Object]:
        """Copies of all objects, each parsed when it is its turn."""
        for entry in list(self._entries.values()):
            yield json.loads(entry.packed)

    # ------------------------------------------------------------------------------------------ private

    def _run(self) -> None:
        for change in follow(self._api, self._resource, self._namespace, self._stop, shrink=_pack, **self._selectors):
            self._take(change)
            del change  # it may be a long list, and the next may be long in coming

    def _take(self, change: Change) -> None:
        if isinstance(change, Trouble):
            self._troubled(change.error)
            return
        self.trouble = None
        if isinstance(change, Snapshot):
            self._replace(change.items)
        elif not isinstance(change, Recovered):
            self._put(change.obj, is_removed=isinstance(change, Removed))

    def _replace(self, items: Iterable[Object]) -> None:
        before = self._entries
        after = {item["key"]: _Entry(item["version"], item["packed"]) for item in items}
        for key, entry in before.items():
            if key in after and after[key].version == entry.version:
                after[key] = entry
        self._entries = after
        self.size = sum(len(entry.packed) for entry in after.values())
        self.lists += 1
        self.synced.set()
        for key in [*after, *(key for key in before if key not in after)]:
            if before.get(key) is not after.get(key):
                self._on_change(key)

    def _put(self, item: Object, *, is_removed: bool) -> None:
        key = item["key"]
        before = self._entries.pop(key, None) if is_removed else self._entries.get(key)
        self.size -= len(before.packed) if before else 0
        if not is_removed:
            self._entries[key] = _Entry(item["version"], item["packed"])
            self.size += len(item["packed"])
        self._on_change(key)

    def _troubled(self, error: MusterError) -> None:
        if self.trouble is None:
            say(logging.WARNING, "the cache may be out of date", kind=self._resource.kind, error=str(error))
        self.trouble = str(error)


def _pack(obj: Object) -> Object:
    """What the cache needs of an object, and the object as compact JSON without managedFields."""
    metadata = obj["metadata"]
    metadata.pop("managedFields", None)
    packed = json.dumps(obj, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return {"key": sys.intern(key_of(obj)), "version": metadata["resourceVersion"], "packed": packed}

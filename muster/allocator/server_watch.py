# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who watches instances, and what each is told: what they may see, and no more.

Rules
1. A watcher is told ADDED when it may see an instance from now on, MODIFIED when what it sees of it has changed, and
   DELETED when it may not any more, or it is gone; the same whether it was made, shared, taken back or removed.
2. With DELETED comes what the watcher saw last. It learns nothing of what happened since.
3. A watcher that reads too slowly is ended: it has missed something, so it has to begin anew.

All of it runs in the server's thread, but for `changed`.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller, Offer
from muster.http.wire import Problem, dump, later

QUEUED: Final = 500  # changes that a watcher may be behind
WATCHERS: Final = 512
WATCHERS_PER_CALLER: Final = 16

ADDED, MODIFIED, DELETED, BOOKMARK = "ADDED", "MODIFIED", "DELETED", "BOOKMARK"

Object = Mapping[str, Any]


class _State(NamedTuple):
    """What is kept of an instance: who may see it, and what they see, as JSON."""

    uid: str
    instance: Object
    view: bytes


class Watcher:
    """One who watches. `is_everything`: as an administrator, also what is neither theirs nor shared with them."""

    def __init__(self, caller: Caller, is_everything: bool) -> None:
        self.caller, self.is_everything = caller, is_everything
        self.seen: set[str] = set()  # keys of what they know of
        self.news = asyncio.Event()
        self.end: Problem | None = None  # why they are told nothing more
        self._lines: deque[bytes] = deque()

    def tell(self, line: bytes) -> None:
        if len(self._lines) >= QUEUED:
            self.finish(later("overloaded", "you read too slowly, and have missed something: list again"))
            return
        self._lines.append(line)
        self.news.set()

    def finish(self, why: Problem) -> None:
        self.end = self.end or why
        self._lines.clear()
        self.news.set()

    def take(self) -> list[bytes]:
        """What came since."""
        lines = list(self._lines)
        self._lines.clear()
        self.news.clear()
        return lines


class Hub:
    """All who watch, and all instances as they know them."""

    def __init__(self, offer: Offer, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """`call_soon` has something called in the server's thread, from any."""
        self._offer, self._call_soon = offer, call_soon
        self._of_nobody = replace(offer, administrators=())
        self._states: dict[str, _State] = {}
        self._watchers: set[Watcher] = set()
        self._lock = threading.Lock()
        self._changes: dict[str, Object | None] = {}  # not yet taken into account
        self._touched: set[str] | None = None  # keys that changed while all were read
        self.slow = 0  # watchers that were ended because they read too slowly

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    def changed(self, key: str, obj: Object | None) -> None:
        """An instance is this from now on; None: it is gone. From any thread; it never waits."""
        with self._lock:
            is_first = not self._changes
            self._changes[key] = obj
        if is_first:
            self._call_soon(self._take)

    def begin_fill(self) -> None:
        """What there is will be read, to be told by `fill`."""
        self._touched = set()

    def fill(self, instances: Iterable[tuple[str, Object]]) -> None:
        """These were there since `begin_fill`. What was told by `changed` since then is newer."""
        self._take()
        touched, self._touched = self._touched or set(), None
        for key, obj in instances:
            if key not in touched and key not in self._states:
                self._put(key, obj)

    def join(self, watcher: Watcher) -> list[bytes]:
        """Have this one told what changes, and return what there is now. Raises Problem."""
        same = sum(each.caller.name == watcher.caller.name for each in self._watchers)
        if len(self._watchers) >= WATCHERS:
            raise later("overloaded", "too many are watching", 15)
        if same >= WATCHERS_PER_CALLER:
            raise later("throttled", f"you watch {same} times at once already: end one", 15)
        self._take()
        there = {key: state for key, state in self._states.items() if self._sees(watcher, state)}
        watcher.seen = set(there)
        self._watchers.add(watcher)
        return [event(ADDED, state.view) for _key, state in sorted(there.items())]

    def leave(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)
        self.slow += watcher.end is not None and watcher.end.word == "overloaded"

    def is_now(self, watcher: Watcher, caller: Caller) -> None:
        """The watcher's groups are these now: it may see more than before, or less."""
        if caller == watcher.caller:
            return
        watcher.caller = caller
        for key, state in list(self._states.items()):
            self._tell(watcher, key, state, state)

    def finish(self, why: Problem) -> None:
        """End all."""
        for watcher in self._watchers:
            watcher.finish(why)

    # ------------------------------------------------------------------------------------------ private

    def _take(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, {}
        for key, obj in changes.items():
            if self._touched is not None:
                self._touched.add(key)
            self._put(key, obj)

    def _put(self, key: str, obj: Object | None) -> None:
        before, after = self._states.get(key), None if obj is None else _state(obj)
        if before and after and before.uid != after.uid:  # another of the same name
            self._put(key, None)
            before = None
        for watcher in list(self._watchers):
            self._tell(watcher, key, before, after)
        if after:
            self._states[key] = after
        else:
            self._states.pop(key, None)

    def _tell(self, watcher: Watcher, key: str, before: _State | None, after: _State | None) -> None:
        sees = after is not None and self._sees(watcher, after)
        if key in watcher.seen:
            if not sees:
                watcher.seen.discard(key)
                if before:
                    watcher.tell(event(DELETED, before.view))
            elif after and before and after.view != before.view:
                watcher.tell(event(MODIFIED, after.view))
        elif sees and after:
            watcher.seen.add(key)
            watcher.tell(event(ADDED, after.view))

    def _sees(self, watcher: Watcher, state: _State) -> bool:
        offer = self._offer if watcher.is_everything else self._of_nobody
        return decisions.may_see(offer, watcher.caller, state.instance)


def event(kind: str, view: bytes) -> bytes:
    """A line of the watch; `view` is JSON."""
    return b'{"type":"%s","instance":%s}\n' % (kind.encode(), view)


def bookmark() -> bytes:
    return event(BOOKMARK, b"null")


def _state(obj: Object) -> _State:
    metadata, spec = obj["metadata"], obj["spec"]
    named = {"spec": {"owner": spec.get("owner"), "access": spec.get("access")}}
    return _State(metadata.get("uid", ""), named, dump(decisions.view(obj)).rstrip())

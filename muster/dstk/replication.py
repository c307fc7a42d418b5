# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a copy gets what another worker has: a snapshot in pages, then its log, asked for again and again.

Rules
1. The snapshot is fuzzy: pages are of different moments. The log is replayed from the position at which the first page
   began; at the position that was reached when the last page was read, at the latest, the copy is exact. Only then it
   is one that follows.
2. Each request for the log says up to where this follower has it on its disk: that is its acknowledgement. There is no
   other, so a lost answer loses nothing.
3. Who can't go on where it stopped (the log was trimmed, or goes on under an epoch before that position) loads anew.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote

import aiohttp

from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FOLLOWING,
    LOADING,
    Copies,
    Copy,
    Outcome,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.dstk.store import Change, Entry, Load, Operation, Replay, Store
from muster.process import say

PAGE: Final = 1000  # entries of one answer
PAGE_BYTES: Final = 1024 * 1024
POLL_SECONDS: Final = 10.0  # for which the other worker holds a request until there is something new
ANSWER_SECONDS: Final = 20.0
ACTIVE_SECONDS: Final = 60.0  # a follower that has not asked for so long counts no more for the log
BACKOFF: Final = (0.05, 2.0)  # seconds
MOVING_BACKOFF: Final = 0.2  # seconds at most, where an operation waits for this copy, perhaps while nobody serves

Object = Mapping[str, Any]


class Failed(MusterError):
    """The other worker did not answer as it should."""


class Anew(MusterError):
    """It can't go on from where this copy is."""


class Acks:
    """Up to where followers have each log. For several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._of: dict[str, dict[str, tuple[int, float]]] = {}

    def loads(self, partition: str, follower: str, position: int) -> None:
        """It has begun to load: it will need the log from there on."""
        self._of.setdefault(partition, {})[follower] = (-1 - position, self._clock())

    def polled(self, partition: str, follower: str, position: int) -> None:
        """It has everything up to there on its disk."""
        self._of.setdefault(partition, {})[follower] = (position, self._clock())

    def acknowledged(self, partition: str, followers: tuple[str, ...]) -> int | None:
        """Up to where all of these have it; None: without any, there is no bound. -1: one has not asked yet."""
        if not followers:
            return None
        known = self._of.get(partition, {})
        return max(-1, min(known.get(follower, (-1, 0.0))[0] for follower in followers))

    def floor(self, partition: str) -> int | None:
        """From where on the log is needed by anyone who has asked of late."""
        since = self._clock() - ACTIVE_SECONDS
        of = list(self._of.get(partition, {}).values())
        active = [-1 - position if position < 0 else position for position, at in of if at >= since]
        return min(active) if active else None

    def forget(self, partition: str) -> None:
        """From now on only what is asked from now on counts: the copy is another."""
        self._of.pop(partition, None)


class Host(Protocol):
    """What a follower needs of the worker around it."""

    name: str
    store: Store

    async def address(self, worker: str, *, anew: bool = False) -> str: ...
    async def do(self, operation: Operation) -> Any: ...
    def headers(self) -> dict[str, str]: ...
    def look(self, partition: str) -> None: ...


class Followers:
    """A task for each copy that loads or follows. All in the loop's thread."""

    def __init__(self, host: Host, session: aiohttp.ClientSession, wait_seconds: float = POLL_SECONDS) -> None:
        self._host, self._session, self._wait = host, session, wait_seconds
        self._tasks: dict[str, tuple[Copy, asyncio.Task[None]]] = {}

    def settle(self) -> None:
        """Have exactly those that the copies ask for."""
        copies = self._host.store.copies
        wanted = {
            name: _identity(copy) for name, copy in copies.items() if copy.origin and copy.role in (LOADING, FOLLOWING)
        }
        for name, (identity, task) in list(self._tasks.items()):
            if wanted.get(name) != identity or task.done():
                task.cancel()
                del self._tasks[name]
        for name, identity in wanted.items():
            if name not in self._tasks:
                task = asyncio.get_running_loop().create_task(self._follow(name, identity))
                self._tasks[name] = identity, task

    async def close(self) -> None:
        tasks = [task for _of, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, name: str, identity: Copy) -> None:
        failures = 0
        while True:
            try:
                copy = self._host.store.copies.get(name)
                if copy is None or _identity(copy) != identity:
                    return
                if copy.role == LOADING:
                    await self._load(copy)
                else:
                    await self._go_on(copy)
                failures = 0
            except Anew as error:
                say(logging.INFO, "loads anew", partition=name, why=str(error))
                await self._host.do(Change(lambda copies: _again(copies, name, identity)))
            except (MusterError, aiohttp.ClientError, TimeoutError, OSError) as error:
                failures += 1
                if failures in (1, 100):
                    say(logging.INFO, "can't follow", partition=name, origin=identity.origin, why=_words(error))
                most = MOVING_BACKOFF if identity.uid else BACKOFF[1]
                await asyncio.sleep(random.random() * min(most, BACKOFF[0] * 2 ** min(failures, 10)))
                if failures % 5 == 0:
                    await self._find_anew(identity.origin)
                    self._host.look(name)
            except KeyError:  # the copy has ended while it was asked for
                await asyncio.sleep(BACKOFF[0])

    async def _find_anew(self, worker: str) -> None:
        try:
            await self._host.address(worker, anew=True)
        except MusterError:
            return

    async def _load(self, copy: Copy) -> None:
        """Take the snapshot, and the log up to where that is exact."""
        began, after = -1, ""
        while True:
            query = {"after": after, "limit": str(PAGE), "follower": self._host.name}
            page = await self._ask(copy, "snapshot", query)
            position, epoch = _number(page, "position"), _number(page, "epoch")
            entries = [(_text(key), _bytes(value) or b"") for key, value in _pairs(page, 2)]
            if not await self._host.do(Load(copy, entries, is_first=began < 0)):
                return
            began, reached = position if began < 0 else began, position
            if page.get("next") is None:
                break
            after = _text(page["next"])
        at, begins = began, True
        while begins or at < reached:
            log = await self._log(copy, at, epoch, 0.0) if at < reached else {"entries": [], "epoch": epoch}
            entries_ = _entries(log)
            epoch = _number(log, "epoch")
            ends = at + len(entries_) >= reached
            role = FOLLOWING if ends else LOADING
            if not entries_ and not ends:
                raise Failed("the log ends before the position that it had")
            if not await self._host.do(Replay(copy, at, entries_, epoch, begins, role)):
                return
            at, begins = at + len(entries_), False
        say(logging.INFO, "follows", partition=copy.partition, origin=copy.origin, position=at)

    async def _go_on(self, copy: Copy) -> None:
        store = self._host.store
        log = await self._log(copy, copy.position, store.followed(copy.partition), self._wait)
        entries = _entries(log)
        epoch = _number(log, "epoch")
        if entries or epoch > store.followed(copy.partition):
            await self._host.do(Replay(copy, copy.position, entries, epoch))

    async def _log(self, copy: Copy, after: int, epoch: int, wait: float) -> Object:
        query = {"after": str(after), "follower": self._host.name, "epoch": str(epoch), "wait": f"{wait:g}"}
        return await self._ask(copy, "log", query)

    async def _ask(self, copy: Copy, page: str, query: Mapping[str, str]) -> Object:
        address = await self._host.address(copy.origin)
        url = f"{address}/v1/replication/{quote(copy.partition, safe='')}/{page}"
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        headers = self._host.headers()
        async with self._session.get(
            url, params=query, headers=headers, timeout=timeout, allow_redirects=False
        ) as answer:
            if answer.status == 410:
                raise Anew(f"{copy.origin} does not have its log any more")
            if answer.status != 200:
                raise Failed(f"{copy.origin} answered {answer.status}")
            try:
                document = await answer.json()
            except ValueError:
                document = None
        if not isinstance(document, dict):
            raise Failed(f"{copy.origin} answered something else than JSON")
        return document


def _identity(copy: Copy) -> Copy:
    """What makes it another copy, for whoever fills it."""
    return copy._replace(position=0, epoch=0, role="", followers=(), prepared="", proxy="")


def _again(copies: Copies, name: str, identity: Copy) -> Outcome | None:
    copy = copies.get(name)
    if copy is None or _identity(copy) != identity or copy.role not in (LOADING, FOLLOWING):
        return None
    return Outcome((copy._replace(role=LOADING, position=0),), clear=(copy.range,))


def _entries(log: Object) -> list[Entry]:
    return [Entry(_count(position), _text(key), _bytes(value)) for position, key, value in _pairs(log, 3)]


def _pairs(document: Object, width: int) -> list[Any]:
    listed = document.get("entries")
    if not isinstance(listed, list) or not all(isinstance(each, list) and len(each) == width for each in listed):
        raise Failed("entries are not as they should be")
    return listed


def _number(document: Object, name: str) -> int:
    return _count(document.get(name))


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Failed(f"{value!r} is no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Failed(f"{value!r} is no text")
    return value


def _bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Failed("a value is no base64") from error


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__

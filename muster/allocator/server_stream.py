# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches over HTTP: each line of a `Hub` to whom it is for, as long as their token stands for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final

from aiohttp.web import BaseRequest, StreamResponse

from ansible_collections.muster.coordination.plugins.module_utils.api import Object
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller, Offer
from muster.allocator.auth import Unauthenticated, bearer
from muster.allocator.server_problems import problem_of, where
from muster.allocator.server_routes import Watch
from muster.allocator.server_watch import Hub, Watcher, bookmark
from muster.allocator.server_wire import LINES, PROFILE
from muster.frame.cache import key_of
from muster.http.connections import Connection, in_time
from muster.http.wire import dump, later
from muster.process import say

BOOKMARK_SECONDS: Final = 15.0
PIECE: Final = 64 * 1024  # bytes of a watch's beginning that are sent at once


class Streams:
    """All watches of a server. In its thread."""

    def __init__(
        self,
        hub: Hub,
        offer: Offer,
        *,
        authenticate: Callable[[str], Awaitable[Caller]],
        instances: Callable[[], list[Object]],
        is_ready: Callable[[], bool],
        read: Callable[[Callable[[], Any]], Future[Any]],
        bookmark_seconds: float,
    ) -> None:
        """`read` has something called in another thread."""
        self.hub, self._offer = hub, offer
        self._authenticate, self._instances, self._is_ready, self._read = authenticate, instances, is_ready, read
        self._bookmark_seconds = bookmark_seconds
        self._fill = asyncio.Lock()
        self._is_filled = False

    async def serve(self, request: BaseRequest, asked: Watch, tell: Callable[[], None]) -> StreamResponse:
        await self._filled()
        token, watcher = bearer(request.headers.getall("Authorization", [])), Watcher(asked.caller, asked.is_everything)
        lines = self.hub.join(watcher)
        connection = request.protocol
        assert isinstance(connection, Connection)
        connection.on_lost = watcher.news.set
        response = StreamResponse(headers={**PROFILE.headers, "Content-Type": LINES})
        response.force_close()
        try:
            await in_time(request, response.prepare(request))
            tell()
            await self._write(request, response, [*lines, bookmark()])
            del lines
            await self._follow(request, response, watcher, token)
        except ConnectionError:
            pass  # it has gone
        except Exception as error:  # the answer has begun: it can only be broken off
            say(logging.WARNING, "a watch failed", where=where(error))
            if request.transport is not None:
                request.transport.abort()
        finally:
            connection.on_lost = None
            self.hub.leave(watcher)
        with suppress(ConnectionError):
            await in_time(request, response.write_eof())
        return response

    async def _follow(self, request: BaseRequest, response: StreamResponse, watcher: Watcher, token: str) -> None:
        """Tell what changes until the client is gone, or has to begin anew; review the token with each bookmark."""
        due = _now() + self._bookmark_seconds
        while request.transport is not None and not request.transport.is_closing():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await watcher.news.wait()
            if _now() >= due:
                due = _now() + self._bookmark_seconds
                await self._review(watcher, token)
                lines = [*watcher.take(), bookmark()]
            else:
                lines = watcher.take()
            if watcher.end:
                await self._write(request, response, [dump(PROFILE.document(watcher.end))])
                return
            await self._write(request, response, lines)

    async def _review(self, watcher: Watcher, token: str) -> None:
        try:
            caller = await self._authenticate(token)
            if watcher.is_everything and not self._offer.is_administrator(caller):
                raise Unauthenticated("the token stands for no administrator any more")
            self.hub.is_now(watcher, caller)
        except Exception as error:
            watcher.finish(problem_of(error))

    async def _write(self, request: BaseRequest, response: StreamResponse, lines: list[bytes]) -> None:
        piece = bytearray()
        for number, line in enumerate(lines):
            piece += line
            if len(piece) >= PIECE or number == len(lines) - 1:
                await in_time(request, response.write(bytes(piece)))
                piece.clear()

    async def _filled(self) -> None:
        """See to it that all instances are known. Raises Problem where that can't be yet."""
        async with self._fill:
            if self._is_filled:
                return
            if not self._is_ready():
                raise later("unavailable", "the instances are not known yet")
            self.hub.begin_fill()
            found = await asyncio.wrap_future(self._read(self._known))
            self.hub.fill(found)
            self._is_filled = True

    def _known(self) -> list[tuple[str, Object]]:
        return [(key_of(each), each) for each in self._instances()]


def _now() -> float:
    return asyncio.get_running_loop().time()

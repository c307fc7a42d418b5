# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of a server, and what each may cost: how many there are, how long they may be silent, how much comes
before a request is whole. What is no HTTP is refused by a problem document, too, and stands in no log.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import http_exceptions
from aiohttp.web import BaseRequest, Response, StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.http.wire import Problem, Profile, later
from muster.process import parse_address, say

BACKLOG: Final = 1024  # connections that wait to be accepted
LINGER_SECONDS: Final = 2.0  # for which the rest of a body that was refused is taken, so that the refusal arrives
WRITE_SECONDS: Final = 30.0  # in which a piece of an answer has to be taken
STUCK_MILLISECONDS: Final = 30_000  # nothing of what was sent arrives: the kernel hangs up
MAX_LINE: Final = 8190  # bytes of a URL
MAX_FIELD: Final = 8191  # bytes of a header; not MAX_LINE, so that one tells from a refusal which it was
MAX_HEADERS: Final = 64
MAX_HEAD: Final = 32 * 1024  # bytes before a request is whole, but for its body
BUFFER: Final = 16 * 1024  # bytes of a body that are read ahead

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]
_quiet = logging.getLogger("muster.http")  # aiohttp's own words repeat what was sent
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Connections(Server):
    """Makes a `Connection` of each that is accepted. `handler` answers its requests, and raises nothing."""

    def __init__(self, handler: Handler, profile: Profile, refused: Callable[[BaseRequest, int], None]) -> None:
        """`refused` is told of what can't be understood as HTTP, and the status of the answer."""
        super().__init__(cast(Any, handler), loop=asyncio.get_running_loop())
        self.profile, self.refused = profile, refused
        self.turned_away = 0
        self._listener: asyncio.Server | None = None

    @property
    def open(self) -> int:
        return len(self._connections)

    async def serve(self, sock: socket.socket, **tls: Any) -> None:
        """From now on; `tls` as create_server takes it."""
        self._listener = await self._loop.create_server(self, sock=sock, **tls)

    async def leave(self, seconds: float) -> None:
        """Take no more requests, and wait for those in flight, but not longer than so."""
        if self._listener:
            self._listener.close()
        self.pre_shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds + 2):
                await self.shutdown(seconds)

    def __call__(self) -> RequestHandler:
        return Connection(
            self,
            loop=self._loop,
            keepalive_timeout=self.profile.silent_seconds,
            logger=cast(Any, _quiet),
            access_log=cast(Any, None),
            max_line_size=MAX_LINE,
            max_field_size=MAX_FIELD,
            max_headers=MAX_HEADERS,
            lingering_time=LINGER_SECONDS,
            read_bufsize=BUFFER,
            auto_decompress=False,
        )


class Connection(RequestHandler):
    """One connection. `on_lost` is called when it is gone."""

    __slots__ = ("_connections", "_head", "on_lost")

    def __init__(self, connections: Connections, **settings: Any) -> None:
        super().__init__(connections, **settings)
        self._connections = connections
        self._head = 0  # bytes that came since a request was waited for
        self.on_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._connections.open >= self._connections.profile.connections:
            self._connections.turned_away += 1
            self._force_close = True
            self._hang_up(cast(asyncio.Transport, transport), later("overloaded", "there are too many connections", 5))
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.on_lost:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        if self._force_close:
            return
        is_waiting, before = self._waiter is not None and not self._waiter.done(), self._request_count
        super().data_received(data)
        if not is_waiting or self._request_count != before:
            self._head = 0
            return
        self._head += len(data)
        if self._head > MAX_HEAD and self.transport is not None:
            detail = f"the headers are too long: send {MAX_HEAD} bytes at most"
            self._hang_up(self.transport, Problem("too-large", detail, status=431))
            self.force_close()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """aiohttp's own answer would repeat, and its log would keep, what was sent."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        answer = self._connections.profile.refusal(_problem(exc))
        self._connections.refused(request, answer.status)
        return self._connections.profile.response(answer)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        say(logging.WARNING, "a connection failed", error=type(error).__name__)

    def _hang_up(self, transport: asyncio.Transport, problem: Problem) -> None:
        """Say why, as far as it gets through, and end the connection."""
        profile = self._connections.profile
        answer = profile.refusal(problem)
        headers = {**profile.headers, "Content-Type": answer.content_type, **answer.headers, "Connection": "close"}
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in {**headers, "Content-Length": len(answer.body)}.items()]
        transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body)
        transport.close()


def _problem(exc: BaseException | None) -> Problem:
    if isinstance(exc, http_exceptions.LineTooLong):
        if exc.args[1] == MAX_LINE:
            return Problem("too-large", f"the URL is too long: send {MAX_LINE} bytes at most", status=414, closes=True)
        return Problem("too-large", f"a header is longer than {MAX_FIELD} bytes", status=431, closes=True)
    if isinstance(exc, http_exceptions.HttpProcessingError):
        if "Too many headers" in exc.message:
            return Problem("too-large", f"there are more than {MAX_HEADERS} headers", status=431, closes=True)
        return Problem("malformed", "that is no request of HTTP/1.1", closes=True)
    return Problem("internal", "the server failed; its log says why", closes=True)


def listen(address: str) -> socket.socket:
    """A socket that listens at HOST:PORT. Raises Malformed."""
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Malformed("listen", address, f"choose an address that is free here ({error.strerror})") from error
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # those that are accepted have it from this one
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_MILLISECONDS)
    return sock


async def send(request: BaseRequest, response: Response) -> Response:
    """The whole of it."""
    await in_time(request, response.prepare(request))
    await in_time(request, response.write_eof())
    return response


async def in_time(request: BaseRequest, sending: Awaitable[object]) -> None:
    """Have it sent; a client that does not take it is hung up on."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await sending
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not read") from None

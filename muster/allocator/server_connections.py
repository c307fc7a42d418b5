# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections of the server, and what each may cost: how many there are, how long they may be silent, how much comes
before a request is whole. What is no HTTP is refused by a problem document, too, and stands in no log.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import http_exceptions
from aiohttp.web import BaseRequest, StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from muster.allocator.server_wire import SAFETY, Answer, Problem, later, refusal
from muster.process import say

CONNECTIONS: Final = 1024  # at a time
SILENT_SECONDS: Final = 30.0  # for a request's line and headers, and between requests
LINGER_SECONDS: Final = 2.0  # for which the rest of a body that was refused is taken, so that the refusal arrives
WRITE_SECONDS: Final = 30.0  # in which a piece of an answer has to be taken
STUCK_MILLISECONDS: Final = 30_000  # nothing of what was sent arrives: the kernel hangs up
MAX_LINE: Final = 8190  # bytes of a URL
MAX_FIELD: Final = 8191  # bytes of a header; not MAX_LINE, so that one tells from a refusal which it was
MAX_HEADERS: Final = 64
MAX_HEAD: Final = 32 * 1024  # bytes before a request is whole, but for its body
BUFFER: Final = 16 * 1024  # bytes of a body that are read ahead

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]
_quiet = logging.getLogger("muster.allocator.http")  # aiohttp's own words repeat what was sent
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Connections(Server):
    """Makes a `Connection` of each that is accepted. `handler` answers its requests, and raises nothing."""

    def __init__(self, handler: Handler, refused: Callable[[BaseRequest, Problem], StreamResponse]) -> None:
        """`refused` makes the answer to what can't be understood as HTTP."""
        super().__init__(cast(Any, handler), loop=asyncio.get_running_loop())
        self.refused = refused
        self.turned_away = 0

    @property
    def open(self) -> int:
        return len(self._connections)

    def __call__(self) -> RequestHandler:
        return Connection(
            self,
            loop=self._loop,
            keepalive_timeout=SILENT_SECONDS,
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
        if self._connections.open >= CONNECTIONS:
            self._connections.turned_away += 1
            self._force_close = True
            _hang_up(cast(asyncio.Transport, transport), later("overloaded", "there are too many connections", 5))
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
            _hang_up(self.transport, Problem("too-large", detail, status=431))
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
        response = self._connections.refused(request, _problem(exc))
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        error = kw.get("exc_info")
        say(logging.WARNING, "a connection failed", error=type(error).__name__)


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


def _hang_up(transport: asyncio.Transport, problem: Problem) -> None:
    """Say why, as far as it gets through, and end the connection."""
    transport.write(raw(refusal(problem)))
    transport.close()


def raw(answer: Answer) -> bytes:
    """An answer as bytes, for where there is no request."""
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        f"Content-Type: {answer.content_type}",
        "Connection: close",
    ]
    lines += [f"Content-Length: {len(answer.body)}", "Cache-Control: no-store"]
    lines += [f"{name}: {value}" for name, value in {**SAFETY, **answer.headers}.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, port), family=family, backlog=CONNECTIONS)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # those that are accepted have it from this one
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_MILLISECONDS)
    return sock


async def in_time(request: BaseRequest, sending: Awaitable[object]) -> None:
    """Have it sent; a client that does not take it is hung up on."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await sending
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client does not read") from None

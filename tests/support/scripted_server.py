# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An API conversation as a script: an HTTP server on loopback that answers each request with the next line of it.

    with ScriptedServer(say(200, {...}), say(409, status("Conflict")), reset) as server:
        ...
    assert server.requests[1].method == "PUT"

A request that the script does not foresee is answered 501, and leaving the `with` fails; so does a script that was not
played to its end.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials


class Request(NamedTuple):
    """One request as it arrived; `path` with its query."""

    method: str
    path: str
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Exchange:
    """What a line of the script may do with a request."""

    def __init__(self, handler: _Handler, request: Request, ended: threading.Event) -> None:
        self._handler = handler
        self.request = request
        self.ended = ended

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self._handler.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()
        self._handler.wfile.write(body)

    def begin_stream(self) -> None:
        self._handler.send_response(200)
        self._handler.send_header("Transfer-Encoding", "chunked")
        self._handler.send_header("Connection", "close")  # which it is afterwards: nobody shall race with that
        self._handler.end_headers()

    def chunk(self, data: bytes) -> None:
        self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self._handler.wfile.write(b"0\r\n\r\n")

    def raw(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.close_connection = True

    def close(self) -> None:
        self._handler.close_connection = True

    def reset(self) -> None:
        self._handler.close_connection = True
        linger = struct.pack("ii", 1, 0)
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


Line = Callable[[Exchange], None]


def say(status: int, document: Any = None, **headers: str) -> Line:
    """Answer with this JSON document (or these bytes)."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return lambda exchange: exchange.answer(status, body, **headers)


def status(reason: str, message: str = "as the script says", **more: Any) -> dict[str, Any]:
    """A Status document, as the API server sends one with a bad answer."""
    return {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "message": message, **more}


def reset(exchange: Exchange) -> None:
    """Reset the connection instead of answering."""
    exchange.reset()


def hang(exchange: Exchange) -> None:
    """Say nothing for as long as the test runs."""
    exchange.ended.wait()
    exchange.reset()


def stream(*parts: bytes | dict[str, Any] | Line, end: bool = True) -> Line:
    """A watch: events (dicts, one line each), raw bytes (one chunk each), or lines such as `hang` and `reset`."""

    def play(exchange: Exchange) -> None:
        exchange.begin_stream()
        for part in parts:
            if callable(part):
                return part(exchange)
            exchange.chunk(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n")
        if end:
            exchange.end_stream()
        exchange.close()

    return play


class ScriptedServer:
    """Plays the script on `url`; `requests` is what came."""

    def __init__(self, *script: Line) -> None:
        self._script = list(script)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.requests: list[Request] = []
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        if kind is None:
            assert not self._script, f"{len(self._script)} lines of the script were never played"
            assert not self.unforeseen, f"not in the script: {self.unforeseen}"

    @property
    def unforeseen(self) -> list[str]:
        return [f"{r.method} {r.path}" for r in self.requests[self._foreseen :]]

    _foreseen = 0

    def credentials(self, **options: Any) -> Credentials:
        """Credentials for this server; `api_key` is `secret-token` unless said otherwise."""
        return Credentials.load({"host": self.url, "api_key": "secret-token", **options}, {})

    def extend(self, *script: Line) -> None:
        """Go on with these lines."""
        with self._lock:
            self._script += script

    def _next(self, request: Request) -> Line:
        with self._lock:
            self.requests.append(request)
            if not self._script:
                return say(501, status("NotImplemented", "not in the script"))
            self._foreseen += 1
            return self._script.pop(0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, scripted: ScriptedServer) -> None:
        self.scripted = scripted
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hangs up is part of many scripts

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without a FIN, so that a reset is one


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, self.path, self.headers, body)
        with suppress(ConnectionError):
            self.server.scripted._next(request)(Exchange(self, request, self.server.scripted._ended))

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

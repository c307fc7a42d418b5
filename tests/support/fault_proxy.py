# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A bad network on loopback: an HTTP proxy in front of a real API server that fails on command.

It speaks plain HTTP to the client, so that it can tell one request from another, and logs in to the API server with
the credentials that it was given (whatever the client sends along, a token or an impersonation, goes through too).

    with FaultProxy(Credentials.load({"kubeconfig": path})) as proxy:
        api = Api(proxy.credentials())
        proxy.plan(DropAnswer(), method="PUT", path="/configmaps/")  # the next PUT is applied, and its answer lost
        ...
        proxy.cut()                                                  # reset whatever is open, watches too

Faults of single requests are planned (`plan`); those of the whole wire are switched (`cut`, `freeze`, `down`).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ansible_collections.muster.coordination.plugins.module_utils.client.tls import ssl_context
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
POLL = 0.02  # seconds between looks at the switches while a stream is silent


@dataclass(frozen=True)
class Answer:
    """The request never reaches the API server: it is answered with this status."""

    status: int
    reason: str = "InternalError"
    retry_after: int | None = None


@dataclass(frozen=True)
class AppliedButFailed:
    """The request is carried out; the client is told this status instead of the answer."""

    status: int = 500
    reason: str = "InternalError"


@dataclass(frozen=True)
class DropAnswer:
    """The request is carried out; the connection is reset instead of the answer."""


@dataclass(frozen=True)
class DropRequest:
    """The connection is reset, and the API server never sees the request."""


@dataclass(frozen=True)
class CutAnswer:
    """The request is carried out; the connection is reset after so many bytes of the answer's body."""

    after: int = 10


@dataclass(frozen=True)
class Stall:
    """The request is carried out, and then nothing comes for so many seconds (then the connection is reset)."""

    seconds: float = 3600.0


@dataclass(frozen=True)
class Delay:
    """The request waits for so many seconds, and is then carried out as if nothing had been."""

    seconds: float


@dataclass(frozen=True)
class Expired:
    """A watch is answered, and all that it says is that its version is too old (410), as after a compaction."""


@dataclass(frozen=True)
class Stale:
    """The request is not passed on: it gets the answer that the first one of the same path had since `remember`."""


Fault = Answer | AppliedButFailed | DropAnswer | DropRequest | CutAnswer | Stall | Delay | Expired | Stale


@dataclass
class _Plan:
    fault: Fault
    method: str
    path: str
    times: int


@dataclass
class Seen:
    """One request as it passed, and the fault that befell it (None: it was let through)."""

    method: str
    path: str
    fault: Fault | None
    at: float = field(default_factory=time.monotonic)
    carried_out: bool = False  # the API server has answered


class FaultProxy:
    """`url` is where clients connect; `seen` lists every request in the order of arrival."""

    def __init__(self, upstream: Credentials, port: int = 0) -> None:
        self._upstream = upstream
        self._context = ssl_context(upstream.tls()) if upstream.server.startswith("https") else None
        self._lock = threading.Lock()
        self._plans: list[_Plan] = []
        self._open: set[socket.socket] = set()
        self._frozen: str | None = None  # what stands in the paths that nothing comes from
        self._memory: dict[str, bytes] | None = None
        self._forgotten = 0
        self._stopped = threading.Event()
        self.seen: list[Seen] = []
        self._port = port
        self._server: _Server | None = None
        self.up()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self.thaw()
        self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def credentials(self, **options: Any) -> Credentials:
        """Credentials that lead through this proxy."""
        return Credentials.load({"kubeconfig": self.kubeconfig_content(), **options}, {})

    def kubeconfig_content(self) -> dict[str, Any]:
        """A kubeconfig that leads through this proxy, for processes that take one."""
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "faulty", "cluster": {"server": self.url}}],
            "users": [{"name": "faulty", "user": {}}],
            "contexts": [{"name": "faulty", "context": {"cluster": "faulty", "user": "faulty"}}],
            "current-context": "faulty",
        }

    def write_kubeconfig(self, path: Path) -> Path:
        """The same as a file."""
        path.write_text(json.dumps(self.kubeconfig_content()))
        return path

    # -- faults of single requests --------------------------------------------------------------------------------

    def plan(self, fault: Fault, *, method: str = "", path: str = "", times: int = 1) -> None:
        """The next `times` requests with this method and with `path` in their path and query meet `fault`."""
        with self._lock:
            self._plans.append(_Plan(fault, method, path, times))

    def clear(self) -> None:
        """Forget all plans."""
        with self._lock:
            self._plans.clear()

    @property
    def pending(self) -> int:
        """How many planned faults have not happened yet."""
        with self._lock:
            return sum(plan.times for plan in self._plans)

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests came so far."""
        with self._lock:
            return sum(1 for seen in self.seen if seen.method.startswith(method) and path in seen.path)

    def _arrived(self, method: str, path: str) -> Seen:
        with self._lock:
            found = next((p for p in self._plans if p.method in ("", method) and p.path in path), None)
            if found:
                found.times -= 1
                if not found.times:
                    self._plans.remove(found)
            self.seen.append(Seen(method, path, found.fault if found else None))
            return self.seen[-1]

    # -- faults of the wire ---------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset every open connection."""
        with self._lock:
            for sock in self._open:
                _reset(sock)

    def freeze(self, path: str = "") -> None:
        """From now on no byte passes to any client, and no connection is closed: a silent, blackholed network.

        With `path` only of requests which have that in their path and query, such as watch=true.
        """
        self._frozen = path

    def thaw(self) -> None:
        """End of `freeze`."""
        self._frozen = None

    def remember(self) -> None:
        """From now on keep the first answer to each GET that is no watch, for `Stale`."""
        self._memory = {}

    def forget(self, before: int) -> None:
        """From now on a watch from an older revision than this hears of nothing but 410, as after a compaction."""
        self._forgotten = before

    def _has_forgotten(self, path: str) -> bool:
        query = parse_qs(urlsplit(path).query)
        return "watch" in query and int(query["resourceVersion"][0]) < self._forgotten

    def _passes(self, path: str) -> bool:
        frozen = self._frozen
        return frozen is None or frozen not in path

    def down(self) -> None:
        """Refuse connections, and reset the open ones: the API server is gone."""
        server, self._server = self._server, None
        if server:
            server.shutdown()
            server.server_close()
        self.cut()

    def up(self) -> None:
        """End of `down`, on the same port."""
        if self._server is None:
            self._server = _Server(("127.0.0.1", self._port), self)
            self._port = self._server.server_address[1]
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(address, _Handler)

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without a FIN, so that a reset is one

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are what this is for


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        with self.server.proxy._lock:
            self.server.proxy._open.add(self.connection)

    def finish(self) -> None:
        with self.server.proxy._lock:
            self.server.proxy._open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = self.server.proxy._arrived(self.command, self.path)
        fault = seen.fault
        if isinstance(fault, DropRequest):
            return self._hang_up()
        if isinstance(fault, Answer):
            return self._status(fault.status, fault.reason, fault.retry_after)
        if isinstance(fault, Expired) or self.server.proxy._has_forgotten(self.path):
            return self._expired()
        old = (self.server.proxy._memory or {}).get(self._key())
        if isinstance(fault, Stale) and old is not None:
            return self._body(200, old)
        if isinstance(fault, Delay):
            time.sleep(fault.seconds)
        upstream = self._connect()
        try:
            self._pass_on(upstream, body)
            answer = upstream.getresponse()
            seen.carried_out = True
            if isinstance(fault, AppliedButFailed):
                return self._status(fault.status, fault.reason)
            if isinstance(fault, DropAnswer):
                return self._hang_up()
            if isinstance(fault, Stall):
                self._wait(fault.seconds, lambda: False)
                return self._hang_up()
            self._relay(answer, fault.after if isinstance(fault, CutAnswer) else None)
        finally:
            upstream.close()

    do_POST = do_PUT = do_DELETE = do_PATCH = do_GET

    def _connect(self) -> http.client.HTTPConnection:
        credentials = self.server.proxy._upstream
        parts = urlsplit(credentials.server)
        assert parts.hostname
        if parts.scheme == "http":
            return http.client.HTTPConnection(parts.hostname, parts.port)
        return http.client.HTTPSConnection(parts.hostname, parts.port, context=self.server.proxy._context)

    def _pass_on(self, upstream: http.client.HTTPConnection, body: bytes) -> None:
        upstream.putrequest(self.command, self.path, skip_accept_encoding=True)
        own = [] if self.headers.get("Authorization") else self.server.proxy._upstream.headers()
        for name, value in [*own, *self.headers.items()]:
            if name.lower() not in HOP_BY_HOP:
                upstream.putheader(name, value)
        if body:
            upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body or None)

    def _relay(self, answer: http.client.HTTPResponse, limit: int | None) -> None:
        proxy = self.server.proxy
        self._wait(None, lambda: proxy._passes(self.path))
        if self.command == "GET" and answer.status == 200 and proxy._memory is not None and "watch=" not in self.path:
            body = answer.read()
            proxy._memory.setdefault(self._key(), body)
            return self._body(200, body)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        passed = 0
        while chunk := answer.read1(65536):
            self._wait(None, lambda: proxy._passes(self.path))
            if limit is not None and passed + len(chunk) > limit:
                chunk = chunk[: limit - passed]
                self._chunk(chunk)
                return self._hang_up()
            passed += len(chunk)
            self._chunk(chunk)
        self._wait(None, lambda: proxy._passes(self.path))
        self.wfile.write(b"0\r\n\r\n")

    def _key(self) -> str:
        return f"{self.path} {self.headers.get('Accept')}"

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _status(self, status: int, reason: str, retry_after: int | None = None) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self._body(status, json.dumps(_said(status, reason)).encode(), headers)

    def _expired(self) -> None:
        event = {"type": "ERROR", "object": _said(410, "Expired")}
        self._body(200, json.dumps(event).encode() + b"\n")

    def _body(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        _reset(self.connection)

    def _wait(self, seconds: float | None, until: Callable[[], bool]) -> None:
        deadline = None if seconds is None else time.monotonic() + seconds
        while not until() and not self.server.proxy._stopped.is_set():
            if deadline is not None and time.monotonic() >= deadline:
                return
            time.sleep(POLL)


def _said(status: int, reason: str) -> dict[str, Any]:
    document = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": status, "reason": reason}
    return {**document, "message": "injected by the fault proxy"}


def _reset(sock: socket.socket) -> None:
    """Close with RST, as a router or a crash would; a reader blocked in it is woken."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        os.close(sock.detach())  # close() would wait for the files made of the socket

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every long-running process of Muster has: structured logs, signals, pages over HTTP.

Kept small on purpose: a sidecar runs in every Pod of its user.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

log = logging.getLogger("muster")

Answer = tuple[int, Any]  # HTTP status, and what is sent as JSON
Route = Callable[[], Answer]
Query = Mapping[str, str]  # of a request: the last value of each key
BODY_LIMIT = 64 * 1024  # bytes of a request that are read, and not looked at
LINGER_SECONDS = 2.0  # for which the rest of what was refused is taken, so that the refusal arrives


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields given as `extra={"fields": {...}}`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """The same for people: `12:00:00 info  message key=value`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in getattr(record, "fields", {}).items())
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        text = f"{at} {record.levelname.lower():7} {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def set_up_logs(form: str, verbose: bool) -> None:
    """Log to standard error as `json` or `text`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    log.handlers[:] = [handler]
    log.setLevel(logging.DEBUG if verbose else logging.INFO)
    log.propagate = False


def say(level: int, message: str, **fields: Any) -> None:
    """Log one line with fields."""
    log.log(level, message, extra={"fields": fields})


def on_signals(numbers: Iterable[int], call: Callable[[int], None]) -> None:
    """These signals call `call` with their number; it must be safe in a signal handler.

    What whoever started us wants to be ignored (nohup, a job in the background) stays so, but not SIGTERM.
    """
    for number in numbers:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda received, _frame: call(received))


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`; port 0 takes a free one. Raises Malformed."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise Malformed("listen", text, "give ADDRESS:PORT, for example 127.0.0.1:8377")
    return host.strip("[]"), int(port)


class Web:
    """`/metrics` of `registry`, and `routes` (method and path to function) as JSON, served from threads of its own.

    `queries` are paths to functions of what is asked after the question mark, for GET. What is not a GET changes
    something, and is only taken from this host (in a Pod: from its own containers).
    """

    def __init__(
        self,
        address: str,
        routes: Mapping[tuple[str, str], Route],
        registry: prometheus_client.CollectorRegistry,
        queries: Mapping[str, Callable[[Query], Answer]] | None = None,
    ) -> None:
        asked = queries or {}
        known = {("GET", "/metrics"), *routes, *(("GET", path) for path in asked)}

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds for a client to send its request

            def answer(self) -> None:
                method = "GET" if self.command == "HEAD" else self.command
                path, _mark, query = self.path.partition("?")
                self.skip_body()
                if (method, path) not in known:
                    self.refuse(path)
                elif path == "/metrics":
                    text = prometheus_client.generate_latest(registry)
                    self.send(200, text, prometheus_client.CONTENT_TYPE_LATEST)
                elif method != "GET" and not self.is_from_here():
                    self.send_json(403, {"error": f"{method} {path} is only taken from this host, and from no browser"})
                elif path in asked:
                    self.send_json(*asked[path](dict(parse_qsl(query, max_num_fields=16))))
                else:
                    self.send_json(*routes[method, path]())

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

            def refuse(self, path: str) -> None:
                methods = sorted(method for method, of in known if of == path)
                if methods:
                    allow = ", ".join(methods)
                    self.send_json(405, {"error": f"{path} is there for {allow}"}, Allow=allow)
                else:
                    pages = sorted(f"{method} {of}" for method, of in known)
                    self.send_json(404, {"error": f"no such page; there are {', '.join(pages)}"})

            def is_from_here(self) -> bool:
                """A page of some website, shown on this host, could post here, too: browsers say their Origin."""
                return is_loopback(self.client_address[0]) and "Origin" not in self.headers

            def skip_body(self) -> None:
                length = self.headers.get("Content-Length") or ""
                if length.isascii() and length.isdecimal():
                    self.rfile.read(min(int(length[:9]), BODY_LIMIT))

            def send_json(self, status: int, body: Any, **headers: str) -> None:
                self.send(status, json.dumps(body).encode() + b"\n", "application/json", **headers)

            def send(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                say(logging.DEBUG, format % args, client=self.client_address[0])

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            address_family = _family(parse_address(address)[0])

        try:
            self._server = Server(parse_address(address), Handler)
        except OSError as error:
            raise Malformed("listen", address, f"choose an address that is free here ({error.strerror})") from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="web", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class BoundedServer(ThreadingHTTPServer):
    """A thread for each of at most so many connections; what comes beyond is hung up on."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler], connections: int) -> None:
        self.address_family = _family(address[0])
        self._room = threading.BoundedSemaphore(connections)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Take what is still coming before it is closed: what nobody reads would reset it, and lose the answer."""
        with suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            end = time.monotonic() + LINGER_SECONDS
            while (left := end - time.monotonic()) > 0:
                request.settimeout(left)
                if not request.recv(64 * 1024):
                    break
        self.close_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client went away; its log, not a stack, says why."""
        say(logging.DEBUG, "connection lost", client=client_address[0], error=repr(sys.exc_info()[1]))


def is_loopback(address: str) -> bool:
    """Whether a client's address is one of this host's own (127.0.0.0/8, ::1, also as ::ffff:127.0.0.1)."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET

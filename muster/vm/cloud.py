# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A private cloud to try operators on: machines over HTTP and JSON, and faults that can be switched on.

    GET    /v1/machines?name=&uid=&after=&limit=    a page of those there are; may be out of date
    POST   /v1/machines                             make one: name, uid, cores, memory, image
    GET    /v1/machines/ID                          one, as it is now
    PUT    /v1/machines/ID                          resize it: cores, memory
    DELETE /v1/machines/ID
    PUT    /v1/fences/NAME                          register a fence for a name, and see what is there: uid, close
    GET    /v1/counters?after=&limit=               what happened so far
    GET    /v1/faults, PUT /v1/faults               see cloud_faults.py
    GET    /healthz, /metrics                       need no token

Headers of a request: Authorization: Bearer TOKEN; Fence and Fence-Scope with a write of an operator; Idempotency-Key
with a POST; If-Match (a revision) with a resize. A refusal is one of cloud_wire.py.
"""

from __future__ import annotations

import hmac
import json
import logging
import math
import re
import select
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.http import strict_json
from muster.process import BoundedServer, parse_address, say
from muster.vm.cloud_pages import ROUTES, Answer, Cloud, Request, Route
from muster.vm.cloud_store import Store
from muster.vm.cloud_wire import (
    NotAllowed,
    NotThere,
    NotUnderstood,
    RateLimited,
    Refusal,
    TooLarge,
    WrongMethod,
)

BODY_LIMIT: Final = 16 * 1024  # bytes
IDLE_SECONDS: Final = 60  # a silent connection is closed
CONNECTIONS: Final = 512  # at a time; what comes beyond is hung up on
CLOSING_SECONDS: Final = 0.1  # how long closing may take to be noticed


class CloudServer:
    """The cloud at an address, served from threads of its own. `token_file` is read for each request."""

    def __init__(self, address: str, store: Store, token_file: Path | None = None) -> None:
        self.cloud = cloud = Cloud(store)
        self.metrics = metrics = _Metrics(store)

        class Handler(_Handler):
            pass

        Handler.cloud, Handler.metrics, Handler.token_file = cloud, metrics, token_file
        try:
            self._server = BoundedServer(parse_address(address), Handler, CONNECTIONS)
        except OSError as error:
            raise Malformed("listen", address, f"choose an address that is free here ({error.strerror})") from error
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(CLOSING_SECONDS,), name="cloud", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Metrics:
    def __init__(self, store: Store) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.calls = prometheus_client.Counter(
            "muster_cloud_calls", "Requests that were answered", ["method", "page", "status"], registry=self.registry
        )
        for name, text in (
            ("made", "Machines that were ever made"),
            ("live", "Machines that there are"),
            ("refused_stale", "Writes refused for a stale fence"),
            ("replays", "Creations answered with the machine that their Idempotency-Key had made"),
        ):
            gauge = prometheus_client.Gauge(f"muster_cloud_{name}", text, registry=self.registry)
            gauge.set_function(lambda name=name: store.totals()[name])  # type: ignore[misc]


class _Unanswered(Exception):
    """The fault timeout_after_success: nothing is said."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "muster-private-cloud"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer goes out in one piece

    cloud: Cloud
    metrics: _Metrics
    token_file: Path | None

    def answer(self) -> None:
        self.page = "other"
        retry_after: float | None = None
        try:
            status, body = self.act()
        except Refusal as refusal:
            status, body = refusal.status, {"error": refusal.error, "message": refusal.message, **refusal.fields}
            retry_after = refusal.retry_after if isinstance(refusal, RateLimited) else None
        except _Unanswered:
            self.close_connection = True
            self.count("none")
            return
        except Exception:  # whatever it is: the client has to be told, and the others served
            logging.getLogger("muster").exception("request failed")
            status, body = 500, {"error": "internal", "message": "the cloud failed; its log says why"}
        self.count(str(status))
        self.send(status, body, retry_after)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def act(self) -> Answer:
        content = self.content()
        url = urlsplit(self.path)
        if url.path == "/healthz":
            self.cloud.store.setting("faults")
            return 200, {"ok": True}
        if url.path == "/metrics":
            return 200, prometheus_client.generate_latest(self.metrics.registry)
        self.check_token()
        (_method, self.page, call, faulty), words = self.route(url.path)
        document = self.document(content)
        request = Request(words, dict(parse_qsl(url.query)), self.headers, document)
        if not faulty:
            return call(self.cloud, request)
        return self.under_faults(call, request, f"{self.command} {url.path} {document.get('name', '')}")

    def under_faults(self, call: Callable[[Cloud, Request], Answer], request: Request, what: str) -> Answer:
        """Do it, with what goes wrong before, meanwhile and afterwards. `what` tells it from other requests."""
        cloud, faults = self.cloud, self.cloud.faults
        wait = cloud.bucket.take()
        if wait:
            raise RateLimited("too many requests", retry_after=math.ceil(wait))
        if cloud.dice.falls("error_before", what, faults.error_before):
            return 500, {"error": "fault", "message": "error_before: nothing was done"}
        twice = cloud.dice.falls("duplicate_delivery", what, faults.duplicate_delivery)
        status, body = call(cloud, request)
        if twice and faults.duplicate_delay_seconds:
            late = threading.Timer(faults.duplicate_delay_seconds, _again, (call, cloud, request))
            late.daemon = True
            late.start()
        elif twice:
            status, body = call(cloud, request)
        if cloud.dice.falls("timeout_after_success", what, faults.timeout_after_success):
            self.hold(faults.hold_seconds)
            raise _Unanswered
        if cloud.dice.falls("error_after_success", what, faults.error_after_success):
            return 500, {"error": "fault", "message": "error_after_success: it was done"}
        return status, body

    def hold(self, seconds: float) -> None:
        """Wait so long, or until the client goes away."""
        select.select([self.connection], [], [], seconds)

    def route(self, path: str) -> tuple[Route, tuple[str, ...]]:
        allowed = []
        for route in ROUTES:
            method, pattern, _call, _faulty = route
            match = re.fullmatch(pattern.replace("{}", "([^/]+)"), path)
            if match and method == self.command:
                return route, tuple(map(unquote, match.groups()))
            if match:
                allowed.append(method)
        if allowed:
            raise WrongMethod(f"{path} is there for {', '.join(allowed)}", allow=allowed)
        raise NotThere(f"there is no page {path}; there are {', '.join(f'{r[0]} {r[1]}' for r in ROUTES)}")

    def check_token(self) -> None:
        if self.token_file is None:
            return
        given = self.headers.get("Authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self.token_file.read_bytes().strip()):
            raise NotAllowed("the token is missing or wrong: send the header Authorization: Bearer TOKEN")

    def content(self) -> bytes:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            self.close_connection = True
            raise NotUnderstood(f"Content-Length is {length[:20]!r}: say how many bytes the body has")
        if len(length) > 9 or int(length) > BODY_LIMIT:
            self.close_connection = True
            raise TooLarge(f"the body has {length[:20]} bytes: send {BODY_LIMIT} at most")
        return self.rfile.read(int(length))

    def document(self, content: bytes) -> dict[str, Any]:
        if not content:
            return {}
        try:
            document = strict_json.parse(content)
        except strict_json.NotJson as error:
            raise NotUnderstood(str(error)) from None
        if not isinstance(document, dict):
            raise NotUnderstood("the body is not a JSON object")
        return document

    def send(self, status: int, body: Any, retry_after: float | None) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(body, bytes) else "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        if status == NotAllowed.status:
            self.send_header("WWW-Authenticate", "Bearer")
        if retry_after is not None:
            self.send_header("Retry-After", f"{retry_after:g}")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def count(self, status: str) -> None:
        self.metrics.calls.labels(self.command, self.page, status).inc()

    def log_message(self, format: str, *args: Any) -> None:
        say(logging.DEBUG, format % args, client=self.client_address[0])


def _again(call: Callable[[Cloud, Request], Answer], cloud: Cloud, request: Request) -> None:
    """The second delivery, which nobody waits for."""
    try:
        call(cloud, request)
    except Refusal as refusal:
        say(logging.INFO, "a late second delivery was refused", error=str(refusal))

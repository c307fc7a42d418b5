# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every long-running process of Muster has: structured logs, signals, health and metrics over HTTP, Events.

Kept small on purpose: a sidecar runs in every Pod of its user.
"""

from __future__ import annotations

import json
import logging
import queue
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.api import EVENTS, Api, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

log = logging.getLogger("muster")

Answer = tuple[int, Any]  # HTTP status, and what is sent as JSON
Route = Callable[[], Answer]


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


def on_signals(stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT call `stop`, which must be safe in a signal handler."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_args: stop())


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT`; port 0 takes a free one. Raises Malformed."""
    host, separator, port = text.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise Malformed("listen", text, "give ADDRESS:PORT, for example 127.0.0.1:8377")
    return host.strip("[]"), int(port)


class Web:
    """`/metrics` of `registry`, and `routes` (path to function) as JSON, served from threads of its own."""

    def __init__(self, address: str, routes: dict[str, Route], registry: prometheus_client.CollectorRegistry) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # seconds for a client to send its request

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._send(200, prometheus_client.CONTENT_TYPE_LATEST, prometheus_client.generate_latest(registry))
                    return
                route = routes.get(path)
                known = ["/metrics", *routes]
                status, body = route() if route else (404, {"error": f"no such page; there are {', '.join(known)}"})
                self._send(status, "application/json", json.dumps(body).encode() + b"\n")

            def _send(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
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


def _family(host: str) -> Any:
    import socket

    return socket.AF_INET6 if ":" in host else socket.AF_INET


class Events:
    """Writes Kubernetes Events about one Pod from a thread of its own; what can't be written is logged and dropped."""

    BACKLOG = 32  # Events that may wait while the API server is away

    def __init__(self, api: Api, namespace: str, pod: str, uid: str) -> None:
        self._api = api
        self._about = {"apiVersion": "v1", "kind": "Pod", "name": pod, "namespace": namespace, "uid": uid}
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(self.BACKLOG)
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """`reason` is one CamelCase word for machines; `message` is for people (1,024 characters at most)."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self._about['name'][:200]}-", "namespace": self._about["namespace"]},
            "involvedObject": self._about,
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": "muster-distributor"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            say(logging.WARNING, "event dropped: too many wait for the API server", reason=reason)

    def _run(self) -> None:
        while True:
            event = self._waiting.get()
            try:
                self._api.create(EVENTS, event)
            except ApiError as error:
                say(logging.WARNING, "event could not be written", reason=event["reason"], error=str(error))

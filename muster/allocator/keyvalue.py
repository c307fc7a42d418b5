# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example service of the allocator: keys and values on a disk, over HTTP. What it answered survives SIGKILL.

    PUT    /v1/KEY                          keep the body as its value: 201 new, 200 replaced
    GET    /v1/KEY                          the value, as it was sent
    DELETE /v1/KEY                          204
    GET    /v1?prefix=&after=&limit=        keys and sizes, in the order of the keys' bytes
    GET    /healthz, /readyz, /metrics

A key is 1 to 512 bytes of UTF-8, percent-encoded, without control characters; it may have slashes. A value has at most
1 MiB. A refusal is {"error": a word, "message": for people}. Each change is one transaction that is on the disk before
it is answered (write-ahead log, synchronous FULL). There is no authentication: who may reach it may do everything.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.process import BoundedServer, parse_address, say

VALUE_LIMIT: Final = 1024 * 1024  # bytes
KEY_LIMIT: Final = 512  # bytes of UTF-8
PAGE_LIMIT: Final = 1000  # keys
IDLE_SECONDS: Final = 60  # a silent connection is closed
LOCK_SECONDS: Final = 5.0  # how long another process may still have the file
CONNECTIONS: Final = 256  # at a time; what comes beyond is hung up on
CLOSING_SECONDS: Final = 0.1  # how long closing may take to be noticed

SCHEMA: Final = "CREATE TABLE IF NOT EXISTS pairs (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL)"


class Refusal(Exception):
    """Nothing was changed. `error` is for programs."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status, self.error, self.message = status, error, message


class Store:
    """The pairs, in one SQLite file. Safe for several threads; one process at a time has the file."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._is_open = True
        try:
            self._db = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute(SCHEMA)
        except sqlite3.Error as error:
            remedy = f"give a file that can be written and that no other process has open ({error})"
            raise Malformed("--store", str(path), remedy) from error

    def close(self) -> None:
        with self._lock:
            self._is_open = False
            self._db.close()

    def put(self, key: bytes, value: bytes) -> bool:
        """Keep it; whether the key is new. On the disk when this returns."""
        with self._transaction():
            is_new = self._db.execute("SELECT 1 FROM pairs WHERE key = ?", (key,)).fetchone() is None
            self._db.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", (key, value))
            return is_new

    def get(self, key: bytes) -> bytes | None:
        with self._reading():
            row = self._db.execute("SELECT value FROM pairs WHERE key = ?", (key,)).fetchone()
            return None if row is None else row[0]

    def delete(self, key: bytes) -> bool:
        """Forget it; whether it was there."""
        with self._transaction():
            return self._db.execute("DELETE FROM pairs WHERE key = ?", (key,)).rowcount > 0

    def page(self, prefix: bytes = b"", after: bytes = b"", limit: int = 100) -> list[tuple[bytes, int]]:
        """At most `limit` keys that begin with `prefix` and come after `after`, and the sizes of their values."""
        end = _end(prefix)
        with self._reading():
            rows = self._db.execute(
                "SELECT key, length(value) FROM pairs WHERE key >= ?1 AND key > ?2 AND (?3 IS NULL OR key < ?3)"
                " ORDER BY key LIMIT ?4",
                (prefix, after, end, limit),
            )
            return rows.fetchall()

    def size(self) -> tuple[int, int]:
        """How many keys there are, and how many bytes their values have."""
        with self._reading():
            row: tuple[int, int] = self._db.execute(
                "SELECT COUNT(*), COALESCE(SUM(length(value)), 0) FROM pairs"
            ).fetchone()
            return row

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            self._check()
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; on the disk when it is over."""
        with self._lock:
            self._check()
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield
                self._db.execute("COMMIT")
            except BaseException as error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                    raise Refusal(507, "disk full", "no room is left on the disk: delete what is not needed") from error
                raise

    def _check(self) -> None:
        if not self._is_open:
            raise Refusal(503, "ending", "this process ends: ask again in a moment")


def _end(prefix: bytes) -> bytes | None:
    """The first key after all that begin with `prefix`; None: there is none."""
    rest = prefix.rstrip(b"\xff")
    return rest[:-1] + bytes([rest[-1] + 1]) if rest else None


# ---------------------------------------------------------------------------------------------------------------------
# Over HTTP


class KeyValueServer:
    """The store at an address, served from threads of its own."""

    def __init__(self, address: str, store: Store) -> None:
        class Handler(_Handler):
            pass

        self._traffic = Handler.traffic = _Traffic()
        Handler.store, Handler.metrics = store, _Metrics(store)
        try:
            self._server = BoundedServer(parse_address(address), Handler, CONNECTIONS)
        except OSError as error:
            raise Malformed("--listen", address, f"choose an address that is free here ({error.strerror})") from error
        self.port: int = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, args=(CLOSING_SECONDS,), name="key-value", daemon=True
        ).start()

    def close(self, seconds: float = 10.0) -> None:
        """Take no more requests, and let those that were begun end, for at most so many seconds."""
        self._traffic.end()
        self._server.shutdown()
        self._server.server_close()
        self._traffic.wait(seconds)


class _Traffic:
    """The requests that are being answered."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._going = 0
        self.is_ending = False

    def begin(self) -> None:
        with self._news:
            self._going += 1

    def done(self) -> None:
        with self._news:
            self._going -= 1
            self._news.notify_all()

    def end(self) -> None:
        self.is_ending = True

    def wait(self, seconds: float) -> None:
        with self._news:
            self._news.wait_for(lambda: not self._going, seconds)


class _Metrics:
    def __init__(self, store: Store) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self.calls = prometheus_client.Counter(
            "muster_key_value_calls", "Requests that were answered", ["method", "status"], registry=self.registry
        )
        self.seconds = prometheus_client.Histogram(
            "muster_key_value_seconds", "How long a request took", ["method"], registry=self.registry
        )
        for place, (name, text) in enumerate((("keys", "Keys that there are"), ("bytes", "Bytes of all values"))):
            gauge = prometheus_client.Gauge(f"muster_key_value_{name}", text, registry=self.registry)
            gauge.set_function(lambda place=place: store.size()[place])  # type: ignore[misc]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "muster-key-value"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer goes out in one piece

    store: ClassVar[Store]
    metrics: ClassVar[_Metrics]
    traffic: ClassVar[_Traffic]

    def handle_one_request(self) -> None:
        self.is_begun = False
        try:
            super().handle_one_request()
        finally:
            if self.is_begun:
                self.traffic.done()

    def parse_request(self) -> bool:
        """Its first line has come, so it has begun: from here on the end of the process waits for it."""
        self.traffic.begin()
        self.is_begun = True
        return super().parse_request()

    def answer(self) -> None:
        began = time.monotonic()
        try:
            status, body = self.act()
        except Refusal as refusal:
            status, body = refusal.status, {"error": refusal.error, "message": refusal.message}
        except Exception:  # whatever it is: the client has to be told, and the others served
            logging.getLogger("muster").exception("request failed")
            status, body = 500, {"error": "internal", "message": "the service failed; its log says why"}
        self.metrics.calls.labels(self.command, str(status)).inc()
        self.metrics.seconds.labels(self.command).observe(time.monotonic() - began)
        self.send(status, body)

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = do_PATCH = do_OPTIONS = answer

    def act(self) -> tuple[int, Any]:
        content = self.content()
        path, _mark, query = self.path.partition("?")
        if path.startswith("/v1/"):
            return self.pair(_key(path.removeprefix("/v1/")), content)
        pages = {"/v1": self.page, "/healthz": self.healthy, "/readyz": self.ready, "/metrics": self.numbers}
        if path not in pages:
            raise Refusal(404, "no such page", f"there are /v1/KEY, {', '.join(pages)}")
        self.check_method("GET", "HEAD")
        try:
            asked = dict(parse_qsl(query, max_num_fields=16, encoding="utf-8", errors="strict"))
        except ValueError:
            raise Refusal(400, "not understood", "after the question mark: give prefix, after and limit") from None
        return pages[path](asked)

    def pair(self, key: bytes, content: bytes) -> tuple[int, Any]:
        self.check_method("GET", "HEAD", "PUT", "DELETE")
        if self.command == "PUT":
            is_new = self.store.put(key, content)
            return (201 if is_new else 200), {"key": key.decode(), "size": len(content)}
        if self.command == "DELETE":
            if self.store.delete(key):
                return 204, None
        elif (value := self.store.get(key)) is not None:
            return 200, value
        raise Refusal(404, "no such key", f"there is no key {key.decode()!r}")

    def page(self, query: Mapping[str, str]) -> tuple[int, Any]:
        text = query.get("limit", "100")
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= PAGE_LIMIT):
            raise Refusal(400, "not understood", f"limit is {text[:40]!r}: give a whole number, 1 to {PAGE_LIMIT}")
        limit = int(text[:9])
        found = self.store.page(query.get("prefix", "").encode(), query.get("after", "").encode(), limit + 1)
        items = [{"key": key.decode(), "size": size} for key, size in found[:limit]]
        return 200, {"items": items, "continue": items[-1]["key"] if len(found) > limit else ""}

    def healthy(self, _query: Mapping[str, str]) -> tuple[int, Any]:
        return 200, {"ok": True}

    def ready(self, _query: Mapping[str, str]) -> tuple[int, Any]:
        self.store.get(b"")
        if self.traffic.is_ending:
            raise Refusal(503, "ending", "this process ends")
        return 200, {"ok": True}

    def numbers(self, _query: Mapping[str, str]) -> tuple[int, Any]:
        return 200, prometheus_client.generate_latest(self.metrics.registry)

    def check_method(self, *allowed: str) -> None:
        if self.command not in allowed:
            raise Refusal(405, "wrong method", f"this page is there for {', '.join(allowed)}")

    def content(self) -> bytes:
        """The body, which has to say how long it is."""
        length = self.headers.get("Content-Length", "0" if self.command != "PUT" else "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            self.close_connection = True
            raise Refusal(411, "length required", f"Content-Length is {length[:20]!r}: say how many bytes the body has")
        if len(length) > 9 or int(length) > VALUE_LIMIT:
            self.close_connection = True
            raise Refusal(413, "too large", f"the body has {length[:20]} bytes: send {VALUE_LIMIT} at most")
        content = self.rfile.read(int(length))
        if len(content) < int(length):
            self.close_connection = True
            raise Refusal(400, "not understood", "the body ended before its Content-Length")
        return content

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()  # or the client would wait for it
        return going_on

    def send(self, status: int, body: Any) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode() + b"\n"
        is_text = self.path.partition("?")[0] == "/metrics"
        raw = "text/plain" if is_text else "application/octet-stream"
        kind = raw if isinstance(body, bytes) else "application/json"
        self.close_connection = self.close_connection or self.traffic.is_ending
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("X-Content-Type-Options", "nosniff")  # a value is whatever somebody has sent
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        if status == 405:
            self.send_header("Allow", "GET, HEAD, PUT, DELETE" if self.path.startswith("/v1/") else "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        say(logging.DEBUG, format % args, client=self.client_address[0])


def _key(path: str) -> bytes:
    """A key out of what stands after /v1/."""
    key = unquote_to_bytes(path)
    try:
        text = key.decode()
    except UnicodeDecodeError:
        raise Refusal(400, "not understood", "the key is not UTF-8: percent-encode UTF-8") from None
    if not 0 < len(key) <= KEY_LIMIT or any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        remedy = f"give 1 to {KEY_LIMIT} bytes of UTF-8 without control characters"
        raise Refusal(400, "not understood", f"the key is {text[:60]!r}, {len(key)} bytes: {remedy}")
    return key

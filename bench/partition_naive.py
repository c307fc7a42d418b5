# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peer: a partition handed over as one would write it by hand, with a lock in etcd.

Who owns it stands in one key of etcd. To hand it over, the key is emptied (the lock), the old owner is told to stop,
the new one copies everything from it over HTTP, and is written into the key. Nobody serves meanwhile. Both owners are
processes with SQLite (WAL, synchronous=FULL) behind an HTTP server, as the reference worker has; a write at who is not
the owner is refused, and the client looks at etcd again, and tries again every 5 ms. Nothing here survives the death of
anybody: that is what the peer saves.
"""

from __future__ import annotations

import base64
import json
import multiprocessing
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import urllib3

from bench.peers import serve_etcd
from cluster.kernel import die_with_parent

KEY = base64.b64encode(b"owner").decode()
PAGE = 512 * 1024  # bytes of one answer of a copy, about
RETRY_SECONDS = 0.005
PATIENCE = 60.0


def serve(path: str, pipe: Any) -> None:
    """One owner, in a process of its own; tells its port."""
    die_with_parent()
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
    lock, owns = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self, status: int, body: bytes = b"") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def content(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_PUT(self) -> None:
            value = self.content()
            with lock:
                if owns.is_set():
                    db.execute("INSERT OR REPLACE INTO data VALUES (?, ?)", (self.path[1:], value))
            self.answer(204 if owns.is_set() else 421)

        def do_GET(self) -> None:
            size, found = 0, []
            for key, value in db.execute("SELECT key, value FROM data WHERE key > ? ORDER BY key", (self.path[1:],)):
                found.append([key, base64.b64encode(value).decode()])
                size += len(value)
                if size >= PAGE:
                    break
            self.answer(200, json.dumps(found).encode())

        def do_POST(self) -> None:
            """`/own`, `/stop`, or `/copy` with the address to copy from."""
            body = self.content().decode()
            if self.path == "/copy":
                _copy(db, body)
            with lock:
                if self.path == "/own":
                    owns.set()
                elif self.path == "/stop":
                    owns.clear()
            self.answer(204)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing is logged."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    pipe.send(server.server_address[1])
    server.serve_forever()


def _copy(db: sqlite3.Connection, source: str) -> None:
    pool, after = urllib3.PoolManager(), ""
    db.execute("DELETE FROM data")
    while page := json.loads(pool.request("GET", f"{source}/{after}").data):
        db.execute("BEGIN")
        db.executemany("INSERT INTO data VALUES (?, ?)", ((key, base64.b64decode(value)) for key, value in page))
        db.execute("COMMIT")
        after = page[-1][0]


class Site:
    """Two owners, etcd, and a client."""

    def __init__(self, directory: Path, etcd: str, version: str) -> None:
        self.version, self._etcd = version, etcd
        self._pool = urllib3.PoolManager(maxsize=16, retries=False)
        context = multiprocessing.get_context("spawn")
        self._processes, self._addresses = [], []
        for number in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(str(directory / f"{number}.sqlite"), theirs), daemon=True)
            process.start()
            self._processes.append(process)
            self._addresses.append(f"http://127.0.0.1:{ours.recv()}")
        self._owner = 0
        self._known = self._addresses[0]
        self._tell(0, "own")
        self._write(self._addresses[0])

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def put(self, key: str, value: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            known = self._known
            if known and self._pool.request("PUT", f"{known}/{key}", body=value).status == 204:
                return
            time.sleep(RETRY_SECONDS)
            self._known = self._read()
        raise SystemExit(f"error: nobody owns it after {PATIENCE:g} s")

    def hand_over(self) -> None:
        other = 1 - self._owner
        self._write("")
        self._tell(self._owner, "stop")
        self._tell(other, "copy", self._addresses[self._owner])
        self._tell(other, "own")
        self._write(self._addresses[other])
        self._owner = other

    def _tell(self, number: int, what: str, body: str = "") -> None:
        answer = self._pool.request("POST", f"{self._addresses[number]}/{what}", body=body, timeout=PATIENCE)
        if answer.status != 204:
            raise SystemExit(f"error: an owner answers {answer.status} to {what}")

    def _write(self, owner: str) -> None:
        self._call("kv/put", {"key": KEY, "value": base64.b64encode(owner.encode()).decode()})

    def _read(self) -> str:
        found = self._call("kv/range", {"key": KEY}).get("kvs") or [{}]
        return base64.b64decode(found[0].get("value", "")).decode()

    def _call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._pool.request("POST", f"{self._etcd}/v3/{path}", body=json.dumps(body))
        if answer.status != 200:
            raise SystemExit(f"error: etcd answers {answer.status}: {answer.data[:200]!r}")
        found: dict[str, Any] = json.loads(answer.data)
        return found


@contextmanager
def site(size: int, value: int) -> Iterator[Site]:
    """With so many bytes in values of this size. Raises peers.Absent where there is no etcd."""
    with tempfile.TemporaryDirectory() as directory, serve_etcd() as server:
        made = Site(Path(directory), server.options["url"], server.version)
        try:
            for number in range(size // value):
                made.put(f"h{number:03}", bytes(value))
            yield made
        finally:
            made.close()

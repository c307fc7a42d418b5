# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example service of the allocator as its users see it: over HTTP, on loopback, with a store on disk."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.allocator import keyvalue
from muster.allocator.keyvalue import KEY_LIMIT, VALUE_LIMIT, KeyValueServer, Refusal, Store

SECONDS = 30.0  # an answer takes far less
KILLS, CLIENTS, EACH = 3, 4, 10


class Site:
    """A service that can be started again, and one connection to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self) -> None:
        self.store = Store(self.path)
        self.server = KeyValueServer("127.0.0.1:0", self.store)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=SECONDS)

    def stop(self) -> None:
        self.connection.close()
        self.server.close()
        self.store.close()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        self.connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def told(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        status, content = self.ask(method, path, body)
        return status, json.loads(content)

    def keys(self, query: str = "") -> list[str]:
        return [item["key"] for item in self.told("GET", f"/v1?{query}")[1]["items"]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "store.db")
    yield site
    site.stop()


def test_a_value_is_kept_replaced_and_forgotten(site: Site) -> None:
    assert site.told("PUT", "/v1/colour", b"blue") == (201, {"key": "colour", "size": 4})
    assert site.told("PUT", "/v1/colour", b"") == (200, {"key": "colour", "size": 0})
    assert site.ask("GET", "/v1/colour") == (200, b"")
    assert site.told("PUT", "/v1/colour", b"\x00\xff") == (200, {"key": "colour", "size": 2})
    site.stop()
    site.start()
    assert site.ask("GET", "/v1/colour") == (200, b"\x00\xff")
    assert site.ask("HEAD", "/v1/colour") == (200, b"")
    assert site.ask("DELETE", "/v1/colour") == (204, b"")
    assert site.told("DELETE", "/v1/colour")[0] == 404
    assert site.told("GET", "/v1/colour")[1]["error"] == "no such key"


@pytest.mark.parametrize("key", ["a", "a/b", "ä", "a b", "?#&%", "x" * KEY_LIMIT, "☃" * (KEY_LIMIT // 3), "'; DROP"])
def test_any_text_is_a_key(site: Site, key: str) -> None:
    assert site.told("PUT", f"/v1/{quote(key)}", b"1") == (201, {"key": key, "size": 1})
    assert site.ask("GET", f"/v1/{quote(key, safe='')}") == (200, b"1")
    assert site.keys() == [key]


@pytest.mark.parametrize("path", ["", "%FF", "%00", "a%0Ab", "x" * (KEY_LIMIT + 1), quote("☃" * (KEY_LIMIT // 3 + 1))])
def test_what_is_no_key_is_refused(site: Site, path: str) -> None:
    status, told = site.told("PUT", f"/v1/{path}", b"1")
    assert (status, told["error"]) == (400, "not understood")
    assert site.keys() == []


def test_pages_are_in_order_and_whole(site: Site) -> None:
    names = ["a", "a/1", "a/2", "a0", "b", "ÿ", "\U0010ffff"]
    for name in reversed(names):
        site.ask("PUT", f"/v1/{quote(name)}", b"xyz")
    assert site.keys() == names
    assert site.keys("prefix=a%2F") == ["a/1", "a/2"]
    assert site.keys(f"prefix={quote(names[-1])}") == names[-1:]
    first = site.told("GET", "/v1?limit=2&prefix=a")[1]
    assert first == {"items": [{"key": "a", "size": 3}, {"key": "a/1", "size": 3}], "continue": "a/1"}
    assert site.told("GET", "/v1?limit=2&prefix=a&after=a%2F1")[1]["continue"] == ""
    assert site.keys("prefix=a&after=a%2F1&limit=2") == ["a/2", "a0"]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "limit=99999999999", "prefix=%FF"])
def test_a_senseless_query_is_refused(site: Site, query: str) -> None:
    assert site.told("GET", f"/v1?{query}")[0] == 400


def test_a_value_of_one_mebibyte_and_no_more(site: Site) -> None:
    whole = os.urandom(VALUE_LIMIT)
    assert site.told("PUT", "/v1/large", whole)[0] == 201
    assert site.ask("GET", "/v1/large") == (200, whole)
    status, told = site.told("PUT", "/v1/larger", whole + b"x")
    assert (status, told["error"]) == (413, "too large")
    assert site.keys() == ["large"]


def test_a_refusal_arrives_while_the_body_is_still_sent(site: Site) -> None:
    part = bytes(64 * 1024)
    with socket.create_connection(("127.0.0.1", site.server.port), SECONDS) as client:
        client.sendall(b"PUT /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n" + part)
        for _ in range(5):
            time.sleep(0.02)
            client.sendall(part)
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_a_client_may_wait_until_it_is_asked_for_the_body(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.server.port), SECONDS) as client:
        client.sendall(b"PUT /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")
        client.sendall(b"1")
        assert client.recv(1000).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/a", 405),
        ("PATCH", "/v1/a", 405),
        ("PUT", "/v1", 405),
        ("GET", "/", 404),
        ("GET", "//[/v1/a", 404),
        ("GET", "/v2/a", 404),
    ],
)
def test_what_is_not_there(site: Site, method: str, path: str, status: int) -> None:
    assert site.told(method, path, b"x")[0] == status


def test_a_body_has_to_say_how_long_it_is(site: Site) -> None:
    for header in ("Transfer-Encoding: chunked", "Content-Length: x", "Accept: */*"):
        with socket.create_connection(("127.0.0.1", site.server.port), SECONDS) as client:
            client.sendall(f"PUT /v1/a HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 411 ")


def test_pages_for_machines(site: Site) -> None:
    site.ask("PUT", "/v1/a", b"abc")
    assert site.told("GET", "/healthz") == (200, {"ok": True})
    assert site.told("GET", "/readyz") == (200, {"ok": True})
    numbers = site.ask("GET", "/metrics")[1].decode()
    assert "muster_key_value_keys 1.0" in numbers and "muster_key_value_bytes 3.0" in numbers
    assert 'muster_key_value_calls_total{method="PUT",status="201"} 1.0' in numbers


def test_who_comes_too_late_is_told_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "store.db")
    store.close()
    with pytest.raises(Refusal, match="ends") as refused:
        store.put(b"a", b"1")
    assert refused.value.status == 503


def test_a_full_disk_is_said_and_nothing_is_lost(site: Site) -> None:
    site.ask("PUT", "/v1/a", b"kept")
    pages = site.store._db.execute("PRAGMA page_count").fetchone()[0]
    site.store._db.execute(f"PRAGMA max_page_count = {pages + 1}")
    status, told = site.told("PUT", "/v1/b", os.urandom(VALUE_LIMIT))
    assert (status, told["error"]) == (507, "disk full")
    assert site.ask("GET", "/v1/a") == (200, b"kept")
    assert site.keys() == ["a"]


def test_what_is_answered_is_on_the_disk(site: Site) -> None:
    """No kill of a process can tell; the end of a machine would."""
    told = [site.store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert told == ["wal", 2]


def test_one_process_has_the_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.allocator.keyvalue.LOCK_SECONDS", 0.01)
    with pytest.raises(Malformed, match="--store"):
        Store(site.path)


def test_an_address_or_a_file_that_can_not_be_had(site: Site, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="--listen"):
        KeyValueServer(f"127.0.0.1:{site.server.port}", site.store)
    with pytest.raises(Malformed, match="--store"):
        Store(tmp_path / "nowhere" / "store.db")


# ------------------------------------------------------------------------------------------ as a process


def run(path: Path) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", PROGRAM, "run", "--store", str(path), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    return process, json.loads(process.stderr.readline())["port"]


PROGRAM = """
import argparse, sys
from muster.allocator import keyvalue_cli
parser = argparse.ArgumentParser()
keyvalue_cli.add(parser.add_subparsers(), {})
args = parser.parse_args(["key-value", *sys.argv[1:]])
sys.exit(args.call(args))
"""


def test_what_was_answered_survives_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    answered: dict[str, bytes] = {}  # key: the value that was answered last
    begun: dict[str, bytes | None] = {}  # key: what was asked for and not answered; None: to forget it
    lock = threading.Lock()

    def work(port: int, who: int, round: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        try:
            for count in range(100_000):
                key, value = f"{who}-{count % 7}", f"{round} {count}".encode()
                delete = count % 5 == 4 and key in answered
                begun[key] = None if delete else value
                connection.request("DELETE" if delete else "PUT", f"/v1/{key}", None if delete else value)
                answer = connection.getresponse()
                answer.read()
                assert answer.status in (200, 201, 204)
                with lock:
                    if delete:
                        del answered[key]
                    else:
                        answered[key] = value
                    del begun[key]
                    done[0] += 1
        except (OSError, http.client.HTTPException):
            pass  # it was killed

    for round in range(KILLS):
        process, port = run(path)
        done = [0]
        clients = [threading.Thread(target=work, args=(port, who, round)) for who in range(CLIENTS)]
        for client in clients:
            client.start()
        until(lambda done=done: done[0] >= CLIENTS * EACH, "answers", 60)
        process.kill()
        process.communicate()
        for client in clients:
            client.join()
        store = Store(path)
        for key in {*answered, *begun}:
            allowed = [answered.get(key), begun[key]] if key in begun else [answered.get(key)]
            found = store.get(key.encode())
            assert found in allowed, f"{key}: {found!r}, and not one of {allowed}"
            if found is None:
                answered.pop(key, None)
            else:
                answered[key] = found
        begun.clear()
        assert {key.decode() for key, _size in store.page(limit=1000)} == answered.keys()
        store.close()


def is_closed(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), SECONDS).close()
    except OSError:
        return True
    return False


def test_a_request_has_begun_before_its_body_is_asked_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, told = keyvalue._Handler.handle_expect_100, threading.Event()

    def and_then_pause(handler: keyvalue._Handler) -> bool:
        going_on = go_on(handler)
        told.set()
        time.sleep(0.3)
        return going_on

    monkeypatch.setattr(keyvalue._Handler, "handle_expect_100", and_then_pause)
    with socket.create_connection(("127.0.0.1", site.server.port), SECONDS) as client:
        client.sendall(b"PUT /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n12")
        assert told.wait(SECONDS)
        site.server.close()
        site.store.close()
        assert b"HTTP/1.1 201 " in client.recv(1000) + client.recv(1000)


def test_sigterm_lets_what_was_begun_end(tmp_path: Path) -> None:
    process, port = run(tmp_path / "store.db")
    assert process.stderr is not None
    with socket.create_connection(("127.0.0.1", port), SECONDS) as client:
        client.sendall(b"PUT /v1/a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n1")
        assert client.recv(100).startswith(b"HTTP/1.1 100 ")  # so it was begun
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stderr.readline())["message"] == "ends"
        until(lambda: is_closed(port), "the port to be closed", SECONDS)
        client.sendall(b"2")
        assert client.recv(1000).startswith(b"HTTP/1.1 201 ")
    assert process.wait(SECONDS) == 0
    process.stderr.close()
    store = Store(tmp_path / "store.db")
    assert store.get(b"a") == b"12"
    store.close()

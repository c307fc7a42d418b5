# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client library against workers that answer by a script: what is asked again, where, and what a caller is told."""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.tests.support.scripted_server import Exchange, ScriptedServer
from muster.dstk.client import Client, NoSuchKey, Refused, Unknown, Unserved
from muster.dstk.directory import Place

Line = Callable[[Exchange], None]


def done(status: int = 204, body: bytes = b"", **headers: str) -> Line:
    given = {"Muster_Partition": "p", "Muster_Epoch": "3", **headers}
    return lambda exchange: exchange.answer(status, body, **given)


def refuses(status: int, word: str, **members: Any) -> Line:
    document = {"type": f"urn:muster:partitions:{word}", "title": "no", "status": status, "detail": "why", **members}
    return lambda exchange: exchange.answer(status, json.dumps(document).encode())


def loses(exchange: Exchange) -> None:
    """The request has come, and the connection breaks."""
    exchange.reset()


def items(*keys: str, following: str | None = None, end: str = "") -> Line:
    listed = [{"key": key, "value": base64.b64encode(key.upper().encode()).decode()} for key in keys]
    document = {"items": listed, "next": following, "partition": "p", "range": {"start": "", "end": end}, "epoch": 3}
    return done(200, json.dumps(document).encode())


class Known:
    """A directory that knows what the test says, each time one more when it is asked for something newer."""

    def __init__(self, *addresses: str, epoch: int = 1) -> None:
        self.addresses, self.refreshed, self.epoch = list(addresses), 0, epoch

    def find(self, key: str) -> Place | None:
        address = self.addresses[min(self.refreshed, len(self.addresses) - 1)]
        return Place("p", Range("", ""), "w-0", self.epoch, address) if address != "gap" else None

    def refresh(self, seen: float, deadline: float) -> float:
        self.refreshed += 1
        return time.monotonic()


@pytest.fixture
def closed() -> Iterator[str]:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{free.getsockname()[1]}"


def client(*addresses: str, **settings: Any) -> Client:
    return Client(Known(*addresses), timeout=settings.pop("timeout", 20.0), **settings)


def test_values_come_and_go() -> None:
    script = (done(), done(200, b"\x00value"), done(), refuses(404, "no-such-key"))
    with ScriptedServer(*script) as server:
        asks = client(server.url)
        asks.put("a/ %", b"\x00value")
        assert asks.get("a/ %") == b"\x00value"
        asks.delete("a/ %")
        with pytest.raises(NoSuchKey, match="a/ %"):
            asks.get("a/ %")
    assert [request.method for request in server.requests] == ["PUT", "GET", "DELETE", "GET"]
    assert {request.path for request in server.requests} == {"/v1/keys/a%2F%20%25"}
    assert server.requests[0].body == b"\x00value"
    epochs = [request.headers["Muster-Epoch"] for request in server.requests]
    assert epochs == ["1", "3", "3", "3"]  # what was seen goes along


def test_who_has_it_is_asked_when_that_is_told() -> None:
    with ScriptedServer(done()) as right:
        hint = refuses(421, "not-mine", primary="w-1", address=right.url)
        with ScriptedServer(hint) as wrong:
            client(wrong.url).put("k", b"v")
    assert len(right.requests) == 1


@pytest.mark.parametrize(
    "refusal", [refuses(421, "not-mine"), refuses(409, "stale"), refuses(503, "unserved"), refuses(503, "overloaded")]
)
def test_a_write_that_was_refused_is_sent_again_where_it_is_now(refusal: Line) -> None:
    with ScriptedServer(done()) as right, ScriptedServer(refusal) as wrong:
        asks = client(wrong.url, right.url)
        asks.put("k", b"v")
    assert len(right.requests) == 1


def test_a_write_that_reached_nobody_is_sent_again(closed: str) -> None:
    with ScriptedServer(done()) as server:
        client(closed, "gap", "", server.url).put("k", b"v")
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [loses, refuses(504, "unknown"), refuses(500, "internal")])
def test_a_write_whose_answer_was_lost_is_not_repeated(answer: Line) -> None:
    with ScriptedServer(answer) as server, pytest.raises(Unknown, match="nobody knows"):
        client(server.url).put("k", b"v")
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [loses, refuses(504, "unknown")])
def test_unless_the_caller_says_so(answer: Line) -> None:
    with ScriptedServer(answer, done(), answer, done()) as server:
        asks = client(server.url)
        asks.put("k", b"v", retry_unknown=True)
        asks.delete("k", retry_unknown=True)
    assert len(server.requests) == 4


def test_a_repeated_write_that_is_never_answered_stays_unknown(closed: str) -> None:
    with ScriptedServer(loses) as server, pytest.raises(Unknown):
        client(server.url, closed, timeout=0.3).put("k", b"v", retry_unknown=True)
    assert len(server.requests) == 1


def test_a_read_is_repeated() -> None:
    with ScriptedServer(loses, refuses(504, "unserved"), done(200, b"v")) as server:
        assert client(server.url).get("k") == b"v"
    assert len(server.requests) == 3


@pytest.mark.parametrize("address", ["gap", "", "closed"])
def test_what_nobody_serves_is_told_at_the_deadline(address: str, closed: str) -> None:
    began = time.monotonic()
    with pytest.raises(Unserved, match="not served"):
        client(closed if address == "closed" else address, timeout=0.2).put("k", b"v")
    assert time.monotonic() >= began + 0.2  # not before it


def test_what_will_not_go_better_is_told_at_once() -> None:
    with ScriptedServer(
        refuses(401, "unauthenticated"), refuses(400, "malformed"), refuses(413, "too-large")
    ) as server:
        asks = client(server.url)
        for kind in (Refused, Malformed, MusterError):
            with pytest.raises(kind):
                asks.put("k", b"v")


def test_the_token_goes_along(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    with ScriptedServer(done(200, b"v")) as server:
        client(server.url, token_file=token).get("k")
    assert server.requests[0].headers["Authorization"] == "Bearer secret"


def test_a_scan_goes_on_behind_the_last_key_whatever_becomes_of_partitions() -> None:
    script = (
        items("a", "b", following="b"),  # there is more
        refuses(421, "not-mine"),  # split in between
        items("c", end="d"),  # the end of what is there now
        items(end="m"),  # a partition without keys
        loses,
        items("n", "o", end="t"),  # the end of what was asked for is in there
    )
    with ScriptedServer(*script) as server:
        found = list(client(server.url).scan("a", "p"))
    assert found == [(key, key.upper().encode()) for key in "abcno"]
    asked = [parse_qs(urlsplit(request.path).query, keep_blank_values=True) for request in server.requests]
    begins = [(query["start"][0], query["after"][0]) for query in asked]
    assert begins == [("a", ""), ("a", "b"), ("a", "b"), ("d", ""), ("m", ""), ("m", "")]

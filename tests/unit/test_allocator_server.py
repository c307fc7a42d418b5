# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allocator's server over real sockets: each page, each refusal, each bound."""

from __future__ import annotations

import gzip
import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import prometheus_client
import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import LostAnswer, Throttled
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller, Wish
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import Allocator, Created
from ansible_collections.muster.coordination.tests.support.allocator_server import (
    Client,
    Reply,
    Service,
    offer,
    until,
)
from muster.allocator import server, server_routes, server_wire
from muster.allocator.auth import NotReviewed
from muster.allocator.server import Server
from muster.http import connections, wire

CREATE = b"POST /v1/instances HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nIdempotency-Key: k\r\n"
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def created(client: Client, key: str = "k", **body: Any) -> str:
    reply = client("POST", "/v1/instances", body, key=key)
    assert reply.status == 201, reply.body
    return reply.json()["name"]


# ------------------------------------------------------------------------------------------ what is asked for


def test_an_instance_is_created_once_for_its_key(service: Service) -> None:
    new, again = (service.ann("POST", "/v1/instances", {"parameters": {"Size": 2}}, key="k") for _ in range(2))
    assert (new.status, again.status) == (201, 200)
    assert new.json() == again.json() and new.json()["parameters"]["Size"] == 2
    assert new.headers["location"] == again.headers["location"] == f"/v1/instances/{new.json()['name']}"
    assert service.ann("GET", new.headers["location"]).json() == new.json()
    assert service.ann("POST", "/v1/instances", {}, key="k").word == "key-reused"


def test_no_body_is_a_wish_without_wishes(service: Service) -> None:
    assert service.ann("POST", "/v1/instances", key="k").status == 201
    assert service.ann("POST", "/v1/instances", {}, key="k").status == 200


def test_a_whole_number_is_one_however_it_is_written(service: Service) -> None:
    for text in (b"6", b"6.0", b"0.6e1"):
        made = service.ann("POST", "/v1/instances", b'{"parameters":{"Size":' + text + b"}}", key="k")
        assert made.status < 300 and made.json()["parameters"]["Size"] == 6
    assert service.ann("POST", "/v1/instances", {"parameters": {"Size": 6.5}}, key="l").word == "malformed"


def test_a_dry_run_makes_nothing(service: Service) -> None:
    would = service.ann("POST", "/v1/instances?dryRun=true", {}, key="k")
    assert would.status == 200 and "location" not in would.headers
    assert would.json()["name"] and service.ann("GET", "/v1/instances").json()["items"] == []


def test_a_quota_is_told_with_its_numbers() -> None:
    service = Service(of=offer(max_instances_per_user=1))
    created(service.ann)
    refused = service.ann("POST", "/v1/instances", {}, key="other")
    assert (refused.status, refused.word) == (403, "quota")
    assert {key: refused.json()[key] for key in ("limit", "used", "scope")} == {"limit": 1, "used": 1, "scope": "owner"}
    service.close()


def test_what_is_offered_is_told(service: Service) -> None:
    told = service.eve("GET", "/v1/offer").json()
    assert (told["name"], told["limit"], told["used"], told["has_disk"]) == ("kv", 100, 0, True)
    assert told["caller"] == {"name": "eve", "groups": ["admins"], "is_administrator": True}


def test_lists_go_page_by_page_and_show_what_is_ones_own_or_shared(service: Service) -> None:
    names = sorted(created(service.ann, f"k{number}") for number in range(3))
    shared = created(service.bob, access={"users": ["ann"]})
    created(service.bob, "hidden")
    first = service.ann("GET", "/v1/instances?limit=2").json()
    second = service.ann("GET", f"/v1/instances?limit=2&continue={first['continue']}").json()
    assert sorted(each["name"] for each in first["items"] + second["items"]) == sorted([*names, shared])
    assert second["continue"] == ""


def test_everybodys_are_for_administrators(service: Service) -> None:
    created(service.ann)
    assert service.bob("GET", "/v1/instances?all=true").word == "not-administrator"
    assert service.bob("GET", "/v1/instances?all=true&watch=true").word == "not-administrator"
    assert len(service.eve("GET", "/v1/instances?all=true").json()["items"]) == 1
    assert service.eve("GET", "/v1/instances").json()["items"] == []


def test_an_instance_is_suspended_resumed_reset_and_destroyed(service: Service) -> None:
    at = f"/v1/instances/{created(service.ann)}"
    assert service.ann("POST", f"{at}:suspend").json()["suspended"] is True
    assert service.ann("POST", f"{at}%3Aresume", {}).json()["suspended"] is False
    assert [service.ann("POST", f"{at}:reset", {"resets": 0}).json()["resets"] for _ in range(2)] == [1, 1]
    assert service.ann("POST", f"{at}:reset", {"resets": 7}).word == "conflict"
    assert service.ann("GET", f"{at}/events").json() == {"items": []}
    going = service.ann("DELETE", f"{at}?storage=retain")
    assert (going.status, going.json()["phase"], going.json()["storage"]) == (202, "Destroying", "retain")


def test_whom_it_is_shared_with_may_not_destroy_it(service: Service) -> None:
    at = f"/v1/instances/{created(service.ann, access={'users': ['bob']})}"
    assert service.bob("POST", f"{at}:suspend").status == 202
    assert {service.bob("DELETE", at).word, service.bob("POST", f"{at}:reset").word} == {"not-owner"}


def test_disks_are_listed_and_removed(service: Service) -> None:
    assert service.ann("GET", "/v1/disks").json() == {"items": []}
    assert service.ann("DELETE", "/v1/disks/none").word == "not-found"


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("method", "path", "body", "word"),
    [
        ("GET", "/v1/instances?limit=0", None, "malformed"),
        ("GET", "/v1/instances?limit=501", None, "malformed"),
        ("GET", "/v1/instances?limit=%D9%A3", None, "malformed"),
        ("GET", "/v1/instances?limit=1&limit=2", None, "malformed"),
        ("GET", "/v1/instances?nothing=1", None, "malformed"),
        ("GET", "/v1/instances?all=yes", None, "malformed"),
        ("GET", "/v1/instances?&&", None, "malformed"),
        ("GET", "/v1/instances?limit=%FF", None, "malformed"),
        ("GET", "/v1/instances?watch=true&limit=3", None, "malformed"),
        ("GET", "/v1/instances?continue=%00", None, "malformed"),
        ("GET", f"/v1/instances?continue={'a' * 5000}", None, "malformed"),
        ("GET", "/v1/instances?" + "&".join(f"a{n}=1" for n in range(50)), None, "malformed"),
        ("GET", "/v1/offer?x=1", None, "malformed"),
        ("GET", "/v1/instances", {}, "malformed"),
        ("DELETE", "/v1/instances/x", {}, "malformed"),
        ("DELETE", "/v1/instances/x?storage=keep", None, "malformed"),
        ("POST", "/v1/instances", {"surprise": 1}, "malformed"),
        ("POST", "/v1/instances", {"access": {"owners": []}}, "malformed"),
        ("POST", "/v1/instances", {"storage": "keep"}, "malformed"),
        ("POST", "/v1/instances", {"parameters": {"Size": 10}}, "malformed"),
        ("POST", "/v1/instances", [], "malformed"),
        ("POST", "/v1/instances", {"attach": None}, "malformed"),
        ("POST", "/v1/instances", {"parameters": []}, "malformed"),
        ("POST", "/v1/instances", {"access": None}, "malformed"),
        ("POST", "/v1/instances", {"access": {"users": {}}}, "malformed"),
        ("POST", "/v1/instances", {"access": {"groups": None}}, "malformed"),
        ("POST", "/v1/instances/x:suspend", {"now": True}, "malformed"),
        ("POST", "/v1/instances/x:reset", {"resets": True}, "malformed"),
        ("POST", "/v1/instances/x:reset", {"resets": -1}, "malformed"),
        ("POST", "/v1/instances/x:explode", None, "not-found"),
        ("GET", "/v1/instances/", None, "not-found"),
        ("GET", "/v1/instances/a/b", None, "not-found"),
        ("GET", "/v1%2Finstances", None, "not-found"),
        ("GET", "/v1/instances/..%2F..%2Fmetrics", None, "not-found"),
        ("GET", "/v1/instances/A_b", None, "not-found"),
        ("GET", f"/v1/instances/{'a' * 300}", None, "not-found"),
        ("GET", "/v2/instances", None, "not-found"),
        ("GET", "/app.py", None, "not-found"),
        ("GET", "/../server.py", None, "not-found"),
        ("PUT", "/v1/instances/x", {}, "method"),
        ("PATCH", "/v1/instances", {}, "method"),
        ("OPTIONS", "/v1/instances", None, "method"),
        ("TRACE", "/v1/instances", None, "method"),
        ("POST", "/metrics", None, "method"),
        ("POST", "/", {}, "method"),
    ],
)
def test_what_can_not_be_is_refused(service: Service, method: str, path: str, body: Any, word: str) -> None:
    refused = service.ann(method, path, body, key="k")
    assert refused.word == word, refused.body
    assert ("allow" in refused.headers) == (word == "method")
    assert refused.headers["cache-control"] == "no-store"


def test_a_refusal_names_the_member(service: Service) -> None:
    refused = service.ann("POST", "/v1/instances", {"parameters": {"Size": 10}}, key="k").json()
    assert refused["field"] == "parameters.Size" and "at most 9" in refused["detail"]


@pytest.mark.parametrize("keys", [[], ["a", "a"], [""], ["\xe9"], ["a" * 129], [" "]])
def test_a_creation_has_one_key(service: Service, keys: list[str]) -> None:
    lines = "".join(f"Idempotency-Key: {key}\r\n" for key in keys)
    text = f"POST /v1/instances HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n{lines}Content-Length: 0\r\n\r\n"
    assert service.ann.raw(text.encode()).word == "malformed"
    assert not service.instances()


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic YTpi", "ann", "Bearer eve, Bearer ann", "Bearer nobody", "Bearer a b"]
)
def test_who_is_not_known_is_refused_and_told_how_to_ask(service: Service, value: str) -> None:
    refused = service.ann("GET", "/v1/instances", token="", headers={"Authorization": value})
    assert (refused.status, refused.word) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_two_tokens_are_none(service: Service) -> None:
    text = b"GET /v1/offer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nAuthorization: Bearer eve\r\n\r\n"
    assert service.ann.raw(text).status in (400, 401)


def test_every_route_but_the_open_pages_asks_who_it_is(service: Service) -> None:
    for route in server_routes.ROUTES:
        reply = service.ann(route.method, route.path.replace("{name}", "x"), token="")
        assert reply.word == "unauthenticated", route
    for page in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert service.ann("GET", page, token="").status == 200


def test_when_nobody_can_say_who_it_is_nobody_is_let_in(service: Service) -> None:
    service.tokens.error = NotReviewed("the API server can't be asked")
    refused = service.ann("GET", "/v1/instances")
    assert (refused.status, refused.word, refused.headers["retry-after"]) == (503, "unavailable", "1")


# ------------------------------------------------------------------------------------------ bodies


def sent(service: Service, content: bytes, *headers: bytes) -> Reply:
    lines = b"".join(line + b"\r\n" for line in headers)
    return service.ann.raw(CREATE + JSON + lines + b"Content-Length: %d\r\n\r\n" % len(content) + content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'\xef\xbb\xbf{"storage":"delete"}', "not JSON"),
        (b'{"storage":"delete","storage":"retain"}', "twice"),
        (b'{"parameters":{"Size":NaN}}', "NaN"),
        (b'{"parameters":{"Size":-Infinity}}', "Infinity"),
        (b'{"parameters":{"Size":1e999}}', "1e999"),
        (b'{"parameters":{"Size":' + b"9" * 5000 + b"}}", "too large"),
        (b'{"attach":"\\ud800"}', "surrogate"),
        (b"[" * 17 + b"]" * 17, "16 deep"),
        (b'{"a":' * 17 + b"1" + b"}" * 17, "16 deep"),
        (b"[" * 60_000, "16 deep"),
        (b"a: &a [x]\nb: [*a, *a]\n", "not JSON"),
        (b'"' + b'\\"' * 26_000, "not JSON"),
    ],
)
def test_json_is_taken_by_the_letter(service: Service, content: bytes, words: str) -> None:
    began = time.process_time()
    refused = sent(service, content)
    assert refused.word == "malformed" and words in refused.json()["detail"]
    assert time.process_time() - began < 2, "a body of 64 KiB costs seconds"


def test_brackets_in_strings_are_no_depth(service: Service) -> None:
    assert sent(service, json.dumps({"parameters": {"Words": '[{"\\' * 40}}).encode()).status == 201


def test_a_depth_of_16_is_read_and_64_kib_are_taken(service: Service) -> None:
    assert "surprise" in sent(service, b'{"surprise":' + b"[" * 15 + b"]" * 15 + b"}").json()["detail"]
    assert sent(service, b"{}".ljust(server_wire.MAX_BODY)).status == 201


def test_more_than_64_kib_are_not_read(service: Service) -> None:
    said = CREATE + JSON + b"Content-Length: 65537\r\n\r\n"  # and nothing comes
    assert service.ann.raw(said).word == "too-large"
    huge = CREATE + JSON + b"Content-Length: 99999999999999999999\r\n\r\n"
    assert service.ann.raw(huge).word in ("too-large", "malformed")


def test_a_body_in_chunks_has_the_same_bounds(service: Service) -> None:
    begin = CREATE + JSON + b"Transfer-Encoding: chunked\r\n\r\n"
    assert service.ann.raw(begin + b"2\r\n{}\r\n0\r\n\r\n").status == 201
    chunk = b"2000\r\n" + b" " * 0x2000 + b"\r\n"
    assert service.ann.raw(begin, *[chunk] * 9).word == "too-large"
    assert service.ann.raw(begin + b"x\r\n").word == "malformed"


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_what_is_compressed_is_not_opened(service: Service, coding: bytes) -> None:
    refused = sent(service, gzip.compress(b" " * 1_000_000), b"Content-Encoding: " + coding)
    assert (refused.status, refused.word) == (415, "unsupported")


@pytest.mark.parametrize("kind", ["text/plain", "application/yaml", "application/json; charset=utf-16", "x"])
def test_what_is_not_called_json_is_not_read_as_json(service: Service, kind: str) -> None:
    assert service.ann("POST", "/v1/instances", {}, key="k", headers={"Content-Type": kind}).word == "unsupported"


def test_a_body_that_does_not_come_is_waited_for_a_while_only(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "BODY_SECONDS", 0.2)
    refused = service.ann.raw(CREATE + JSON + b"Content-Length: 9\r\n\r\n{")
    assert (refused.status, refused.word) == (408, "timeout")


def test_who_waits_to_be_told_to_send_is_told(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.server.port), timeout=10) as sock:
        sock.sendall(CREATE + JSON + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(b"{}")
        assert sock.recv(100).startswith(b"HTTP/1.1 201 ")
    assert sent(service, b"{}", b"Expect: a miracle").status == 417


def test_after_a_refusal_with_its_body_unread_the_next_request_is_not_read_from_it(service: Service) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    begin = b"POST /v1/instances HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    with socket.create_connection(("127.0.0.1", service.server.port), timeout=10) as sock:
        sock.sendall(begin + smuggled + b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = b"".join(iter(lambda: sock.recv(65536), b""))
    assert found.count(b"HTTP/1.1 ") == 2 and b"muster_allocator_requests" not in found


def test_a_length_and_chunks_together_are_refused(service: Service) -> None:
    both = CREATE + JSON + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert service.ann.raw(both).word == "malformed"


# ------------------------------------------------------------------------------------------ lines, headers, connections


@pytest.mark.parametrize(
    ("text", "status", "word"),
    [
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "too-large"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431, "too-large"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(99)) + b"\r\n", 431, "too-large"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: %s\r\n" % (n, b"a" * 7000) for n in range(9)), 431, "too-large"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed"),
        (b"NONSENSE / HTTP/1.1\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nAuthorization: Bearer s3cret\x00\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/1.1\r\nbad header: Bearer s3cret\r\n\r\n", 400, "malformed"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed"),
    ],
)
def test_what_is_no_request_is_refused_in_the_same_form_and_logged_without_it(
    service: Service, text: bytes, status: int, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    refused = service.ann.raw(text)
    assert (refused.status, refused.word) == (status, word)
    assert b"s3cret" not in refused.body and refused.headers["x-content-type-options"] == "nosniff"
    assert not [record for record in caplog.records if "s3cret" in repr(record.__dict__)]


def test_connect_is_no_method_here(service: Service) -> None:
    assert service.ann.raw(b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n").status in (400, 404, 405)


def test_no_more_connections_than_there_may_be(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Any = service.server._connections
    monkeypatch.setattr(kept, "profile", kept.profile._replace(connections=3))
    idle = [socket.create_connection(("127.0.0.1", service.server.port)) for _ in range(3)]
    until("they are open", lambda: service.server._connections.open == 3)
    refused = service.ann("GET", "/healthz")
    assert (refused.status, refused.word) == (503, "overloaded")
    idle.pop().close()
    until("one is gone", lambda: service.server._connections.open == 2)
    assert service.ann("GET", "/healthz").status == 200
    assert service.metric("muster_allocator_connections_refused_total") == 1
    for each in idle:
        each.close()


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_who_sends_no_whole_request_is_hung_up_on(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(server, "PROFILE", server_wire.PROFILE._replace(silent_seconds=0.3))
    service = Service()
    with socket.create_connection(("127.0.0.1", service.server.port), timeout=10) as sock:
        sock.sendall(begun)
        assert sock.recv(100) == b""
    service.close()


def test_who_does_not_read_the_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    service = Service()
    names = [created(service.ann, f"k{n}", parameters={"Words": "x" * 200}) for n in range(100)]
    request = b"GET /v1/instances?limit=500 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\n"
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", service.server.port))
        sock.sendall(request * 100)
        until("it is hung up on", lambda: service.server._connections.open == 0)
    assert names and service.ann("GET", "/healthz").status == 200
    service.close()


# ------------------------------------------------------------------------------------------ much at a time


class Slow(Allocator):
    """Creates nothing until it may, and counts."""

    def __init__(self, **said: Any) -> None:
        super().__init__(None, "ns", offer(**said))  # type: ignore[arg-type]
        self.may, self.lock, self.at_once, self.most = threading.Event(), threading.Lock(), 0, 0
        self.patience = 10.0  # seconds

    def __enter__(self) -> None:
        """In the end all may, also where a test has failed."""

    def __exit__(self, *_error: object) -> None:
        self.may.set()

    def create(self, caller: Caller, key: str, wish: Wish, *, dry_run: bool = False) -> Created:
        with self.lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.may.wait(self.patience)
        with self.lock:
            self.at_once -= 1
        metadata = {"name": "kv-1", "uid": key}
        return Created({"metadata": metadata, "spec": {"owner": caller.name}}, True)


def test_256_creations_at_a_time_pass() -> None:
    allocator = Slow()
    service = Service(allocator=allocator)
    allocator.patience = service.ann.timeout = 60.0
    with ThreadPoolExecutor(256) as pool, allocator:
        replies = [pool.submit(service.ann, "POST", "/v1/instances", {}, key=f"k{n}") for n in range(256)]
        until("all have come", lambda: service.metric("muster_allocator_calls") == 256)
        allocator.may.set()
        assert {reply.result().status for reply in replies} == {201}
    assert allocator.most == server.THREADS
    service.close()


def test_more_than_may_wait_are_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "THREADS", 2)
    monkeypatch.setattr(server, "WAITING", 3)
    allocator = Slow()
    service = Service(allocator=allocator)
    with ThreadPoolExecutor(5) as pool, allocator:
        replies = [pool.submit(service.ann, "POST", "/v1/instances", {}, key=f"k{n}") for n in range(5)]
        until("all places are taken", lambda: service.metric("muster_allocator_calls") == 5)
        refused = service.ann("POST", "/v1/instances", {}, key="beyond")
        assert (refused.status, refused.word, refused.headers["retry-after"]) == (503, "overloaded", "1")
        assert service.ann("GET", "/healthz").status == 200 == service.ann("GET", "/metrics").status
        allocator.may.set()
        assert {reply.result().status for reply in replies} == {201} and allocator.most == 2
    assert service.ann("POST", "/v1/instances", {}, key="later").status == 201
    service.close()


def test_a_place_is_taken_until_the_call_ends_whoever_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "THREADS", 1)
    monkeypatch.setattr(server, "WAITING", 0)
    allocator = Slow()
    service = Service(allocator=allocator)
    with socket.create_connection(("127.0.0.1", service.server.port)) as sock:
        sock.sendall(CREATE + b"Content-Length: 0\r\n\r\n")
        until("it has begun", lambda: allocator.at_once == 1)
    until("the client is gone", lambda: all(not each.connected for each in service.server._connections.connections))
    assert service.ann("POST", "/v1/instances", {}, key="k2").word == "overloaded"
    allocator.may.set()
    until("the place is free", lambda: service.ann("POST", "/v1/instances", {}, key="k3").status == 201)
    service.close()


@pytest.mark.parametrize(
    ("error", "status", "word", "after"),
    [
        (LostAnswer(0, "LostAnswer", "s3cret"), 503, "unavailable", "1"),
        (Throttled(429, "TooManyRequests", "s3cret", 7.0), 503, "unavailable", "7"),
        (Malformed("ledger.json: entries.x", "s3cret of another", "put it right"), 503, "unavailable", "1"),
        (ValueError("s3cret"), 500, "internal", None),
        (Malformed("attach", "x", "give another"), 400, "malformed", None),
    ],
)
def test_what_goes_wrong_is_told_without_what_is_none_of_their_business(
    error: Exception, status: int, word: str, after: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Slow):
        def get(self, caller: Caller, name: str) -> Any:
            raise error

    service = Service(allocator=Broken())
    refused = service.ann("GET", "/v1/instances/x")
    assert (refused.status, refused.word, refused.headers.get("retry-after")) == (status, word, after)
    assert b"s3cret" not in refused.body
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert bool(warned) == (status >= 500)
    service.close()


# ------------------------------------------------------------------------------------------ headers, pages, figures


def test_every_answer_has_the_headers_that_keep_browsers_safe(service: Service) -> None:
    replies = [
        service.ann("GET", "/v1/offer"),
        service.ann("GET", "/nothing"),
        service.ann("GET", "/v1/offer", token=""),
        service.ann("GET", "/"),
        service.ann("GET", "/metrics"),
        service.ann.raw(b"NONSENSE\r\n\r\n"),
    ]
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy, reply
        assert "unsafe" not in policy and reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["server"] == "muster-allocator" and "access-control-allow-origin" not in reply.headers
    assert all(replies[number].headers["cache-control"] == "no-store" for number in (0, 1, 2, 4, 5))


def test_the_page_is_served_with_a_tag(service: Service) -> None:
    page = service.ann("GET", "/", token="")
    assert page.status == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    again = service.ann("GET", "/", token="", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", page.headers["etag"])
    assert service.ann("GET", "/", headers={"If-None-Match": '"other"'}).status == 200
    assert service.ann("GET", "/app.js").headers["content-type"].startswith("text/javascript")
    assert service.ann("GET", "/style.css").headers["content-type"].startswith("text/css")


def test_head_says_what_get_would_without_its_body(service: Service) -> None:
    for path in ("/", "/v1/offer", "/v1/instances?watch=true", "/healthz"):
        reply = service.ann("HEAD", path)
        assert (reply.status, reply.body) == (200, b""), path
    assert service.ann("HEAD", "/v1/instances/x").status == 404


def test_readiness_is_what_it_is_told() -> None:
    ready: list[bool] = []
    service = Service(is_ready=lambda: bool(ready))
    assert service.ann("GET", "/readyz").word == "unavailable" == service.ann("GET", "/v1/instances?watch=1").word
    assert service.ann("GET", "/healthz").status == 200
    ready.append(True)
    assert service.ann("GET", "/readyz").status == 200
    service.close()


def test_requests_are_counted_by_route_and_no_label_is_a_clients(service: Service) -> None:
    name = created(service.ann)
    service.ann("GET", f"/v1/instances/{name}")
    service.ann("GET", "/v1/instances/other")
    service.ann("GET", "/made/up")
    count = "muster_allocator_requests_total"
    assert service.metric(count, method="GET", route="/v1/instances/{name}", status="200") == 1
    assert service.metric(count, method="GET", route="/v1/instances/{name}", status="404") == 1
    assert service.metric(count, method="GET", route="other", status="404") == 1
    text = service.ann("GET", "/metrics").body.decode()
    assert "made/up" not in text and name not in text and "ann" not in text


def test_one_line_a_request_at_debug_and_no_more(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "muster")
    service.ann("GET", "/v1/offer?token=s3cret", headers={"X-Other": "s3cret"})
    service.ann("POST", "/v1/instances", {"parameters": {"Words": "s3cret"}}, key="s3cret")
    lines = [record for record in caplog.records if record.getMessage() == "request"]
    assert [(line.levelno, line.fields["status"]) for line in lines] == [(logging.DEBUG, 400), (logging.DEBUG, 201)]
    assert lines[1].fields["caller"] == "ann"
    assert "s3cret" not in repr([record.__dict__ for record in caplog.records])


def test_several_requests_go_over_one_connection(service: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.server.port, timeout=10)
    for _number in range(3):
        connection.request("GET", "/v1/offer", headers={"Authorization": "Bearer ann"})
        assert connection.getresponse().read()
    connection.close()
    assert service.server._connections.requests_count == 3


def test_an_address_that_is_taken_is_named(service: Service) -> None:
    registry = prometheus_client.CollectorRegistry()
    with pytest.raises(Malformed, match="listen"):
        Server(f"127.0.0.1:{service.server.port}", service.allocator, service.tokens, list, registry=registry)


def test_after_it_was_closed_nobody_listens_and_what_was_asked_is_answered() -> None:
    allocator = Slow()
    service = Service(allocator=allocator)
    with ThreadPoolExecutor(1) as pool, allocator:
        reply = pool.submit(service.ann, "POST", "/v1/instances", {}, key="k")
        until("it has begun", lambda: allocator.at_once == 1)
        closing = threading.Thread(target=service.server.close)
        closing.start()
        until("nobody listens", lambda: _refuses(service.server.port))
        allocator.may.set()
        assert reply.result().status == 201
        closing.join(20)
    assert not service.server.is_alive
    service.server.changed("ns/x", None)  # nothing comes of it


def _refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False

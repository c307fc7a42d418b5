# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router between clients and workers that answer by a script."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client
import pytest
import urllib3

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range
from ansible_collections.muster.coordination.tests.support.scripted_server import Exchange, ScriptedServer
from muster.dstk import router as routing
from muster.dstk.directory import Place
from muster.dstk.router import Router, document

Line = Callable[[Exchange], None]
TOKEN = "secret"


def done(status: int = 204, body: bytes = b"", **headers: str) -> Line:
    given = {"Muster_Partition": "p", "Muster_Epoch": "3", "Muster_Worker": "w-0", **headers}
    return lambda exchange: exchange.answer(status, body, **given)


def refuses(status: int, word: str, **members: Any) -> Line:
    document = {"type": f"urn:muster:partitions:{word}", "title": "no", "status": status, "detail": "why", **members}
    return lambda exchange: exchange.answer(status, json.dumps(document).encode())


def loses(exchange: Exchange) -> None:
    exchange.reset()


class Known:
    """A directory of what the test says."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.asked = 0
        self.is_ready = self.is_alive = True
        self.trouble: str | None = None
        self.sizes = (1, 1)

    def find(self, key: str) -> Place | None:
        self.asked += 1
        address = self.addresses[min(self.asked, len(self.addresses)) - 1]
        return Place("p", Range("", ""), "w-0", 2, address)


class Running:
    """A router in a thread of its own, and a client of it."""

    def __init__(self) -> None:
        self.known = Known()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.router = asyncio.run_coroutine_threadsafe(self._make(), self._loop).result(30)
        self.port = asyncio.run_coroutine_threadsafe(self.router.start("127.0.0.1:0"), self._loop).result(30)
        self._pool = urllib3.PoolManager(retries=False)

    async def _make(self) -> Router:
        return Router(self.known, lambda: TOKEN, prometheus_client.CollectorRegistry())  # type: ignore[arg-type]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.router.stop(1), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def ask(self, method: str, path: str, body: bytes | None = None, token: str = TOKEN, **headers: str) -> Any:
        given = {"Authorization": f"Bearer {token}", **{name.replace("_", "-"): of for name, of in headers.items()}}
        url = f"http://127.0.0.1:{self.port}{path}"
        return self._pool.request(method, url, body=body, headers=given, timeout=30.0)


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.close()


def word(answer: Any) -> str:
    return str(json.loads(answer.data)["type"]).rpartition(":")[2]


def test_requests_go_to_who_has_the_key(running: Running) -> None:
    script = (done(), done(200, b"value"), refuses(404, "no-such-key"), done())
    with ScriptedServer(*script) as worker:
        running.known.addresses = [worker.url]
        assert running.ask("PUT", "/v1/keys/a%2Fb", b"value", Muster_Epoch="9").status == 204
        answer = running.ask("GET", "/v1/keys/a%2Fb")
        assert (answer.status, answer.data) == (200, b"value")
        assert (answer.headers["Muster-Partition"], answer.headers["Muster-Epoch"]) == ("p", "3")
        assert answer.headers["Muster-Worker"] == "w-0"
        missing = running.ask("GET", "/v1/keys/a%2Fb")
        assert (missing.status, word(missing)) == (404, "no-such-key")
        assert running.ask("DELETE", "/v1/keys/a%2Fb").status == 204
    assert [request.path for request in worker.requests] == ["/v1/keys/a%2Fb"] * 4
    assert [request.headers["Muster-Epoch"] for request in worker.requests] == ["9", "2", "2", "2"]
    assert worker.requests[0].body == b"value"
    assert {request.headers["Authorization"] for request in worker.requests} == {"Bearer secret"}


def test_what_did_not_happen_is_asked_again_where_it_is_now(running: Running) -> None:
    with ScriptedServer(done(), done()) as right, ScriptedServer(refuses(409, "stale")) as stale:
        hint = refuses(421, "not-mine", address=right.url)
        with ScriptedServer(hint, refuses(503, "unserved")) as wrong:
            running.known.addresses = [wrong.url]
            assert running.ask("PUT", "/v1/keys/k", b"v").status == 204
            running.known.asked = 0
            running.known.addresses = [wrong.url, "", stale.url, right.url]
            assert running.ask("PUT", "/v1/keys/k", b"v").status == 204
    assert [len(server.requests) for server in (right, stale, wrong)] == [2, 1, 2]
    metrics = running.ask("GET", "/metrics").data.decode()
    for reason in ("not-mine", "unserved", "stale", "no answer"):
        assert f'muster_partition_router_retries_total{{reason="{reason}"}} 1.0' in metrics
    assert 'muster_partition_router_requests_total{method="PUT",route="/v1/keys/{key}",status="204"} 2.0' in metrics


@pytest.mark.parametrize("line", [loses, refuses(504, "unknown")])
def test_a_write_whose_answer_was_lost_is_told_and_not_repeated(running: Running, line: Line) -> None:
    with ScriptedServer(line) as worker:
        running.known.addresses = [worker.url]
        answer = running.ask("PUT", "/v1/keys/k", b"v")
    assert (answer.status, word(answer)) == (504, "unknown")
    assert len(worker.requests) == 1


def test_a_read_is_repeated(running: Running) -> None:
    with ScriptedServer(loses, done(200, b"v")) as worker:
        running.known.addresses = [worker.url]
        assert running.ask("GET", "/v1/keys/k").data == b"v"


def test_what_nobody_serves_is_told_at_the_deadline(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "DEADLINE", 0.1)
    running.known.addresses = [""]
    answer = running.ask("PUT", "/v1/keys/k", b"v")
    assert (answer.status, word(answer)) == (503, "unserved")
    assert answer.headers["Retry-After"]


def test_a_page_of_a_scan_goes_through_whole(running: Running) -> None:
    body = json.dumps({"items": [{"key": "k", "value": "A" * 1_000_000}], "next": None}).encode()
    with ScriptedServer(done(200, body)) as worker:
        running.known.addresses = [worker.url]
        answer = running.ask("GET", "/v1/keys?start=a&end=b&after=&limit=5")
        assert (answer.status, answer.data) == (200, body)
    assert worker.requests[0].path == "/v1/keys?start=a&end=b&after=&limit=5"


def test_a_page_that_breaks_off_is_not_taken_for_whole(running: Running) -> None:
    def breaks(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 100)

    with ScriptedServer(breaks) as worker:
        running.known.addresses = [worker.url]
        with pytest.raises(urllib3.exceptions.HTTPError):
            running.ask("GET", "/v1/keys?start=a")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/keys/k", 405),
        ("PUT", "/v1/keys", 405),
        ("GET", "/v1/worker", 404),
        ("POST", "/v1/control/fence", 404),
        ("GET", "/v1/keys/%ff", 400),
        ("GET", "/v1/keys?start=a&start=b", 400),
        ("GET", "/v1/keys?what=a", 400),
        ("GET", f"/v1/keys?start={'a' * 65}", 400),
        ("GET", f"/v1/keys/{'a' * 65}", 404),
    ],
)
def test_what_makes_no_sense_reaches_no_worker(running: Running, method: str, path: str, status: int) -> None:
    assert running.ask(method, path).status == status
    assert running.known.asked == 0


def test_values_are_bounded_and_a_token_is_needed(running: Running) -> None:
    assert running.ask("PUT", "/v1/keys/k", b"x" * (64 * 1024 + 1)).status == 413
    refused = running.ask("GET", "/v1/keys/k", token="wrong")
    assert (refused.status, word(refused)) == (401, "unauthenticated")
    assert running.known.asked == 0


def test_too_many_at_a_time_are_refused(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "IN_FLIGHT", 0)
    answer = running.ask("GET", "/v1/keys/k")
    assert (answer.status, word(answer)) == (503, "overloaded")


def test_it_says_how_it_is(running: Running) -> None:
    assert running.ask("GET", "/healthz", token="").status == 200
    assert running.ask("GET", "/readyz", token="").status == 200
    running.known.is_ready = running.known.is_alive = False
    assert running.ask("GET", "/healthz").status == 503
    assert running.ask("GET", "/readyz").status == 503
    described = json.loads(running.ask("GET", "/openapi.json").data)
    assert described == document()
    assert set(described["paths"]) == {
        *("/v1/keys", "/v1/keys/{key}", "/healthz", "/readyz", "/metrics", "/openapi.json"),
    }

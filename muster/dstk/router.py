# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The router: the same `/v1/keys` as a worker's, for all keys of a KeySpace, in front of all its workers.

It keeps nothing but what its watches tell, so there may be any number of them. A request is passed to who has the key,
and again when it certainly did not happen, until its deadline; of a write without an answer nobody knows what became,
and that is what the client is told (504 `unknown`). What comes in is bounded, and so is what waits; a scan's page goes
through piece by piece, as fast as the client takes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import aiohttp
import prometheus_client
from aiohttp.web import BaseRequest, StreamResponse
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from yarl import URL

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.dstk import openapi
from muster.dstk.client import CONNECT_SECONDS, EPOCH, PARTITION, WORKER, Fate, fate_of, pause, problem
from muster.dstk.directory import Place, Watched
from muster.dstk.openapi import MAX_KEY, MAX_VALUE
from muster.dstk.worker_http import authenticate, epoch_of, match_path, once, profile, queries_of, scan_of
from muster.http.connections import Connections, in_time, listen, send
from muster.http.wire import Answer, Problem, answer, not_for, read_body
from muster.process import say

IN_FLIGHT: Final = 1024  # requests at a time; what comes beyond is refused
DEADLINE: Final = 20.0  # seconds for a request with all its tries
ATTEMPT_SECONDS: Final = 15.0  # for a worker to begin its answer
PIECE: Final = 64 * 1024  # bytes of a page of a scan that are on their way at a time
LEAVE_SECONDS: Final = 5.0  # for requests in flight, at the end
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
PASSED: Final = (PARTITION, EPOCH, WORKER)  # headers that come from the worker
PREFIX: Final = "muster_partition_router"
PROFILE: Final = profile("muster-partition-router")


class Asked(NamedTuple):
    """A request for keys. `key` says who has to answer it: of a scan, where its page begins."""

    method: str
    route: str
    key: str
    path: str  # with its query, as it came
    epoch: int
    body: bytes | None

    @property
    def is_write(self) -> bool:
        return self.method in ("PUT", "DELETE")


class Router:
    """Made and used in the loop's thread; `directory` tells of its changes by `changed`."""

    def __init__(self, directory: Watched, token: Any, registry: prometheus_client.CollectorRegistry) -> None:
        """`token()` is what clients have to send, and what workers are sent; empty: none. Raises MusterError."""
        self._directory, self._token, self._registry = directory, token, registry
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] = self._loop.create_future()
        self._in_flight = 0
        self._retries = Counter[str]()
        self._connections: Connections | None = None
        self._requests = prometheus_client.Counter(
            f"{PREFIX}_requests", "Requests that were answered", ["method", "route", "status"], registry=registry
        )
        self._seconds = prometheus_client.Histogram(
            f"{PREFIX}_request_seconds", "How long they took", ["method", "route"], buckets=SECONDS, registry=registry
        )
        registry.register(self)

    async def start(self, address: str) -> int:
        """Serve from now on; the port. Raises Malformed."""
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        sock = listen(address)
        self._connections = Connections(self._handle, PROFILE, self._refused)
        await self._connections.serve(sock)
        return int(sock.getsockname()[1])

    async def stop(self, seconds: float = LEAVE_SECONDS) -> None:
        """Take no more requests, and wait for those in flight, but not longer than so."""
        if self._connections:
            await self._connections.leave(seconds)
            await self._session.close()

    def changed(self) -> None:
        """The directory has changed; from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        before, self._news = self._news, self._loop.create_future()
        before.set_result(None)

    # ------------------------------------------------------------------------------------------ a request

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        """Answer it, whatever happens."""
        began, route, method = time.monotonic(), "other", request.method
        method = method if method in ("GET", "HEAD", "PUT", "DELETE") else "other"
        try:
            route, key = _route(request)
            if key is None:
                whole: Answer | StreamResponse = self._page(route)
            else:
                authenticate(request, self._token())
                async with self._room():
                    whole = await self._keys(request, route, key)
        except Problem as error:
            whole = PROFILE.refusal(error)
        except MusterError as error:
            whole = PROFILE.refusal(Problem("unserved", str(error)))  # its token can't be read
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            say(logging.WARNING, "a request failed", route=route, error=repr(error))
            whole = PROFILE.refusal(Problem("internal", "the server failed; its log says why", closes=True))
        self._count(method, route, whole.status, began)
        return await send(request, PROFILE.response(whole)) if isinstance(whole, Answer) else whole

    def _refused(self, _request: BaseRequest, status: int) -> None:
        self._count("other", "other", status, time.monotonic())

    def _count(self, method: str, route: str, status: int, began: float) -> None:
        seconds = time.monotonic() - began
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
        say(logging.DEBUG, "request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))

    @asynccontextmanager
    async def _room(self) -> AsyncIterator[None]:
        if self._in_flight >= IN_FLIGHT:
            raise Problem("overloaded", "too many requests are on their way", closes=True)
        self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1

    async def _keys(self, request: BaseRequest, route: str, key: str) -> Answer | StreamResponse:
        body = await read_body(request, MAX_VALUE if request.method == "PUT" else 0)
        method = "GET" if request.method == "HEAD" else request.method
        asked = Asked(method, route, key, request.raw_path, epoch_of(request) or 0, body if method == "PUT" else None)
        deadline = self._loop.time() + DEADLINE
        why, hint, attempt = "it was not asked for", "", 0
        while True:
            place, news = self._directory.find(asked.key), self._news
            address = hint or (place.address if place else "")
            if address:
                fate, answer = await self._pass(request, asked, address, place, deadline)
                if fate in (Fate.DONE, Fate.ABSENT, Fate.WRONG) or isinstance(answer, StreamResponse):
                    return answer
                if fate is Fate.MAYBE and asked.is_write:
                    detail = "the write was sent, and its answer was lost: nobody knows what becomes of it"
                    raise Problem("unknown", detail)
                word, detail, other = problem(answer.body)
                why = detail or f"status {answer.status}"
                self._retries[word or "no answer"] += 1
                hint = other if fate is Fate.ELSEWHERE and other and other != address and not hint else ""
                if hint:
                    continue  # who has it was told
            else:
                why = "no Partition has it" if place is None else f"worker {place.worker or 'nobody'} is not up"
                self._retries["no address"] += 1
            left = deadline - self._loop.time()
            if left <= 0:
                raise Problem("unserved", f"it was not served within {DEADLINE:g} s: {why}")
            await asyncio.wait((news,), timeout=min(left, pause(attempt)))
            attempt += 1

    async def _pass(
        self, request: BaseRequest, asked: Asked, address: str, place: Place | None, deadline: float
    ) -> tuple[Fate, Answer | Any]:
        """To the worker at this address; what that makes of the request, and the answer, sent already if it is long."""
        headers = {EPOCH: str(max(asked.epoch, place.epoch if place else 0))}
        if token := self._token():
            headers["Authorization"] = f"Bearer {token}"
        seconds = max(0.05, min(ATTEMPT_SECONDS, deadline - self._loop.time()))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=seconds)
        try:
            url = URL(f"{address}{asked.path}", encoded=True)
            async with self._session.request(
                asked.method,
                url,
                data=asked.body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                middlewares=(once,),
            ) as response:
                kept = {name: response.headers[name] for name in PASSED if name in response.headers}
                kind = response.headers.get("Content-Type", "application/octet-stream")
                if response.status == HTTPStatus.OK and asked.route == "/v1/keys":
                    return Fate.DONE, await _stream(request, response, {**kept, "Content-Type": kind})
                content = await response.read()
                word = problem(content)[0] if response.status >= 400 else ""
                return fate_of(response.status, word), Answer(response.status, content, kind, kept)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return Fate.NOT_NOW, Answer(503, b"")
        except _Broken:
            raise ConnectionResetError("the worker's answer broke off") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            say(logging.DEBUG, "a worker did not answer", address=address, error=type(error).__name__)
            return Fate.MAYBE, Answer(504, b"")

    # ------------------------------------------------------------------------------------------ pages without a token

    def _page(self, route: str) -> Answer:
        match route:
            case "/healthz":
                if not self._directory.is_alive:
                    raise Problem("unserved", "a watch has ended")
                return answer({"ok": True})
            case "/readyz":
                if not self._directory.is_ready:
                    raise Problem("unserved", "the partitions are not known yet")
                return answer({"ok": True})
            case "/metrics":
                text = prometheus_client.generate_latest(self._registry)
                return Answer(200, text, prometheus_client.CONTENT_TYPE_LATEST)
        return answer(document())

    def collect(self) -> Any:
        """What prometheus_client asks for."""
        facts, workers = self._directory.sizes
        gauges = {
            "partitions": ("Partitions in the view", facts),
            "workers": ("Workers whose address is known", workers),
            "in_flight": ("Requests on their way", self._in_flight),
            "connections": ("Connections that are open", self._connections.open if self._connections else 0),
            "out_of_date": (
                "Whether a watch is broken, so that the view may be old",
                int(bool(self._directory.trouble)),
            ),
        }
        metrics: list[Metric] = [GaugeMetricFamily(f"{PREFIX}_{name}", *what) for name, what in gauges.items()]
        retries = CounterMetricFamily(f"{PREFIX}_retries", "Tries that were repeated, by why", labels=["reason"])
        for word, number in sorted(self._retries.items()):
            retries.add_metric([word if word in openapi.WORDS else "no answer"], number)
        return [*metrics, retries]


class _Broken(Exception):
    """An answer of which the client has had a part."""


def document() -> dict[str, Any]:
    """What a router serves, as an OpenAPI document: a worker's, without what is between workers and reconcilers."""
    whole = openapi.document()
    known = ("/v1/keys", "/v1/keys/{key}", "/healthz", "/readyz", "/metrics", "/openapi.json")
    info = {**whole["info"], "title": "Router of partitions", "summary": "All keys of a key space"}
    return {**whole, "info": info, "paths": {name: page for name, page in whole["paths"].items() if name in known}}


def _route(request: BaseRequest) -> tuple[str, str | None]:
    """The route, and the key that says who has to answer; None: the router itself. Raises Problem."""
    path = request.raw_path.partition("?")[0]
    method = "GET" if request.method == "HEAD" else request.method
    if path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        return path, _allow(method, ("GET",), None)
    if path == "/v1/keys":
        query = scan_of(request)
        return path, _allow(method, ("GET",), query.get("after") or query.get("start", ""))
    names = match_path("/v1/keys/{key}", path.split("/"))
    if names is None or len(names[0]) > MAX_KEY:
        raise Problem("not-found", "there is no such page: /openapi.json says which there are", closes=True)
    queries_of(request)
    return "/v1/keys/{key}", _allow(method, ("GET", "PUT", "DELETE"), names[0])


def _allow(method: str, allowed: tuple[str, ...], key: str | None) -> str | None:
    if method not in allowed:
        raise not_for(("HEAD", *allowed), closes=True)
    return key


async def _stream(request: BaseRequest, source: aiohttp.ClientResponse, headers: Mapping[str, str]) -> StreamResponse:
    """Pass an answer on, a piece at a time. Raises _Broken where it ends too early."""
    response = StreamResponse(status=200, headers={**PROFILE.headers, **headers})
    if source.content_length is not None:
        response.content_length = source.content_length
    await in_time(request, response.prepare(request))
    if request.method == "HEAD":
        return response
    try:
        async for piece in source.content.iter_chunked(PIECE):
            await in_time(request, response.write(piece))
    except (aiohttp.ClientError, TimeoutError) as error:
        if request.transport is not None:
            request.transport.abort()
        raise _Broken from error
    await in_time(request, response.write_eof())
    return response

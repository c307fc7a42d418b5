# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allocator's HTTP server: who asks is found out, what is asked is done by an Allocator, refusals say why.

It runs in a thread of its own. What blocks is done in others, of which there is a bounded number; when they are all
busy, and enough waits, the answer is 503. Each bound is a constant here, in server_wire.py, in server_watch.py
or in muster/http.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import prometheus_client
from aiohttp.web import BaseRequest, StreamResponse

from ansible_collections.muster.coordination.plugins.module_utils.api import Object
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller, Offer
from muster.allocator import openapi, server_page
from muster.allocator.auth import bearer
from muster.allocator.server_metrics import Metrics
from muster.allocator.server_pool import Pool
from muster.allocator.server_problems import problem_of, where, words
from muster.allocator.server_routes import ROUTES, Allocates, Asked, Watch
from muster.allocator.server_stream import BOOKMARK_SECONDS, Streams
from muster.allocator.server_tls import LOOK_SECONDS, Certificate
from muster.allocator.server_watch import Hub
from muster.allocator.server_wire import LINES, PROFILE, read_nothing
from muster.http.connections import Connections, listen, send
from muster.http.wire import Answer, Problem, answer, dump, later, not_for
from muster.process import say

THREADS: Final = 128  # calls of the Allocator at a time
WAITING: Final = 256  # and how many more may wait
REVIEWS: Final = (32, 512)  # the same, of tokens
LEAVE_SECONDS: Final = 10.0  # for requests in flight, when the server ends

T = TypeVar("T")
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Reviews(Protocol):
    """What is needed of auth.py's Reviewer."""

    @property
    def results(self) -> Mapping[str, int]: ...
    def review(self, token: str) -> Caller: ...
    def remembered(self, token: str) -> Caller | None: ...


class Server:
    """Serves from the moment that it is made; raises Malformed where it can't."""

    def __init__(
        self,
        address: str,
        allocator: Allocates,
        reviewer: Reviews,
        instances: Callable[[], list[Object]],
        *,
        registry: prometheus_client.CollectorRegistry,
        tls: tuple[str | Path, str | Path] | None = None,
        is_ready: Callable[[], bool] = lambda: True,
        bookmark_seconds: float = BOOKMARK_SECONDS,
    ) -> None:
        """`instances` gives all Instances as they are known now; it is called once, when `is_ready` first says so.

        From then on `changed` says what happens to them. `tls` are files: a certificate's chain, and its key.
        """
        self._allocator, self._reviewer, self._instances, self._is_ready = allocator, reviewer, instances, is_ready
        self._bookmark_seconds, self._leave_seconds = bookmark_seconds, LEAVE_SECONDS
        self._certificate = Certificate(*tls) if tls else None
        strict = {"Strict-Transport-Security": "max-age=31536000"} if tls else {}
        self._profile = PROFILE._replace(headers={**PROFILE.headers, **strict})
        self._calls, self._reviews = Pool("call", THREADS, WAITING), Pool("review", *REVIEWS)
        self._aside = Pool("aside", 2, 64)
        self._pages = self._open_pages()
        self._sock = listen(address)
        self.port: int = self._sock.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._hub = Hub(allocator.offer, self._soon)
        self._connections: Connections | None = None
        self._document: tuple[Offer, bytes] | None = None
        self._metrics = self._count(registry)
        self._began, self._ends = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="allocator http", daemon=True)
        self._thread.start()
        self._began.wait()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def changed(self, key: str, obj: Object | None) -> None:
        """An Instance is this from now on; None: it is gone. `key` is NAMESPACE/NAME. From any thread; never waits."""
        self._hub.changed(key, obj)

    def close(self, seconds: float = LEAVE_SECONDS) -> None:
        """Take no more requests, end all watches, and wait for what is in flight, but not longer than so."""
        self._leave_seconds = seconds
        self._soon(self._ends.set)
        self._thread.join(seconds + 5)
        for pool in (self._calls, self._reviews, self._aside):
            pool.close()
        self._metrics.close()

    # ------------------------------------------------------------------------------------------ its thread

    def _soon(self, call: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(call)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(_failed_aside)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._began.set()
            self._loop.close()

    async def _serve(self) -> None:
        self._streams = Streams(
            self._hub,
            self._allocator.offer,
            authenticate=self._authenticate,
            instances=self._instances,
            is_ready=self._is_ready,
            read=self._aside.submit,
            bookmark_seconds=self._bookmark_seconds,
        )
        self._connections = connections = Connections(self._handle, self._profile, self._refused)
        tls = {"ssl": self._certificate.context, "ssl_handshake_timeout": 10.0} if self._certificate else {}
        await connections.serve(self._sock, **tls)
        looking = self._loop.create_task(self._look()) if self._certificate else None
        self._began.set()
        await self._ends.wait()
        if looking:
            looking.cancel()
        self._hub.finish(later("unavailable", "this server ends: list again, at another"))
        await connections.leave(self._leave_seconds)

    async def _look(self) -> None:
        while self._certificate:
            await asyncio.sleep(LOOK_SECONDS)
            self._certificate.refresh()

    # ------------------------------------------------------------------------------------------ a request

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        """Answer it, whatever happens."""
        began = time.monotonic()
        method = request.method if request.method in _METHODS else "other"
        told = {"method": method, "route": "other", "client": request.remote}
        try:
            outcome = await self._outcome(request, told)
            if isinstance(outcome, Watch) and request.method != "HEAD":
                return await self._streams.serve(request, outcome, lambda: self._tell(told, HTTPStatus.OK, began))
            if isinstance(outcome, Watch):
                outcome = Answer(200, b"", LINES)
        except Exception as error:
            problem = problem_of(error)
            outcome = self._profile.refusal(problem)
            if outcome.status >= 500 and not isinstance(error, Problem):
                told["error"] = words(error)
            if problem.word == "internal":
                say(logging.WARNING, "a request failed", route=told["route"], where=where(error))
        self._tell(told, outcome.status, began)
        return await send(request, self._profile.response(outcome))

    async def _outcome(self, request: BaseRequest, told: dict[str, Any]) -> Answer | Watch:
        path = request.rel_url.raw_path.replace("%3A", ":").replace("%3a", ":")
        method = "GET" if request.method == "HEAD" else request.method
        if path in self._pages:
            told["route"] = path
            if method != "GET":
                raise not_for(("GET", "HEAD"), closes=method == "CONNECT")
            await read_nothing(request)
            return await self._pages[path](request)
        allowed = []
        for route in ROUTES:
            match = route.pattern.fullmatch(path)
            if match and route.method == method:
                told["route"] = route.path
                caller = told["caller"] = await self._authenticate(bearer(request.headers.getall("Authorization", [])))
                name = match[1] if match.groups() else ""
                return await route.page(Asked(request, caller, name, self._allocator, self._call))
            if match:
                told["route"] = route.path
                allowed += ["GET", "HEAD"] if route.method == "GET" else [route.method]
        if allowed:
            raise not_for(allowed, closes=method == "CONNECT")
        raise Problem("not-found", "there is no such page: /openapi.json says which there are")

    async def _call(self, what: Callable[[], T]) -> T:
        return await asyncio.wrap_future(self._calls.submit(what))

    async def _authenticate(self, token: str) -> Caller:
        caller = self._reviewer.remembered(token)
        if caller is None:
            caller = await asyncio.wrap_future(self._reviews.submit(lambda: self._reviewer.review(token)))
        return caller

    def _refused(self, request: BaseRequest, status: int) -> None:
        """What is no HTTP was answered so."""
        self._tell({"method": "other", "route": "other", "client": request.remote}, status, time.monotonic())

    def _tell(self, told: Mapping[str, Any], status: int, began: float) -> None:
        """One line, and a number. Nothing of the request's headers, its query or its body stands in it."""
        seconds = time.monotonic() - began
        self._metrics.count(told["method"], told["route"], status, seconds)
        caller = told.get("caller")
        fields = {**told, "caller": caller.name} if caller else told
        level = logging.WARNING if status >= 500 else logging.DEBUG
        say(level, "request", **fields, status=int(status), ms=round(seconds * 1000, 1))

    # ------------------------------------------------------------------------------------------ pages without a token

    def _open_pages(self) -> dict[str, Callable[[BaseRequest], Any]]:
        files = server_page.files()

        async def healthz(_request: BaseRequest) -> Answer:
            return answer({"ok": True})

        async def readyz(_request: BaseRequest) -> Answer:
            if not self._is_ready():
                raise later("unavailable", "the instances are not known yet")
            return answer({"ok": True})

        async def metrics(_request: BaseRequest) -> Answer:
            collect = self._aside.submit(lambda: prometheus_client.generate_latest(self._metrics.registry))
            return Answer(200, await asyncio.wrap_future(collect), prometheus_client.CONTENT_TYPE_LATEST)

        async def described(_request: BaseRequest) -> Answer:
            return Answer(200, self._described())

        def serves(file: server_page.File) -> Callable[[BaseRequest], Any]:
            async def page(request: BaseRequest) -> Answer:
                headers = {"ETag": file.etag, "Cache-Control": "no-cache"}
                wanted = {each.value for each in request.if_none_match or ()}
                is_there = bool(wanted & {"*", file.etag.strip('"')})
                return Answer(304 if is_there else 200, b"" if is_there else file.content, file.content_type, headers)

            return page

        own = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics, "/openapi.json": described}
        return {**{path: serves(file) for path, file in files.items()}, **own}

    def _described(self) -> bytes:
        """The OpenAPI document; of another template it is another."""
        offer = self._allocator.offer
        if self._document is None or self._document[0] is not offer:
            self._document = offer, dump(openapi.document(offer))
        return self._document[1]

    def _count(self, registry: prometheus_client.CollectorRegistry) -> Metrics:
        return Metrics(
            registry,
            gauges={
                "watchers": ("Watches that are open", lambda: self._hub.watchers),
                "connections": (
                    "Connections that are open",
                    lambda: self._connections.open if self._connections else 0,
                ),
                "calls": ("Calls that run or wait for a thread", lambda: self._calls.calls),
            },
            counters={
                "watches_ended_slow": ("Watches ended because the client read too slowly", lambda: self._hub.slow),
                "connections_refused": (
                    "Connections refused as too many",
                    lambda: self._connections.turned_away if self._connections else 0,
                ),
            },
            reviews=self._reviewer.results,
        )


# ---------------------------------------------------------------------------------------------------------------------


def _failed_aside(_loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
    """What goes wrong with nobody waiting for it: a handshake, a connection that breaks. Its words may repeat data."""
    error = context.get("exception")
    say(logging.DEBUG, "a connection broke", error=type(error).__name__ if error else str(context.get("message"))[:100])

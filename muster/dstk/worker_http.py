# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's pages: the contract that openapi.py describes."""

from __future__ import annotations

import base64
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote

import aiohttp
import prometheus_client
from aiohttp.web import BaseRequest, StreamResponse
from yarl import URL

from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import FENCED, PRIMARY, PROXY
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.dstk import openapi
from muster.dstk.openapi import MAX_KEY, MAX_VALUE, TYPE, WORDS
from muster.dstk.replication import PAGE, PAGE_BYTES
from muster.dstk.store import Trimmed
from muster.dstk.worker import VERBS, Elsewhere, Refusal, Worker
from muster.dstk.worker_metrics import Metrics
from muster.http import wire
from muster.http.connections import Connections, listen, send
from muster.http.wire import Answer, Problem, Profile, answer, not_for, parse, queries, read_body
from muster.process import say

MAX_BODY: Final = 256 * 1024  # bytes of a call
MAX_WAIT: Final = 30.0  # seconds that a request for the log may be held
MAX_LOG: Final = 1000  # entries of one answer
FORWARD_SECONDS: Final = 15.0
LEAVE_SECONDS: Final = 5.0  # for requests in flight, at the end
OCTETS: Final = "application/octet-stream"

PARTITION, EPOCH, WORKER = "Muster-Partition", "Muster-Epoch", "Muster-Worker"
FORWARDED: Final = "Muster-Forwarded"


def profile(server: str, **headers: str) -> Profile:
    """Of a worker, or a router."""
    whole = {**wire.SAFETY, "Server": server, **headers}
    return Profile(TYPE, WORDS, whole, connections=2048, silent_seconds=60.0)


class Asked(NamedTuple):
    """A request, and the parts of its path that are names."""

    request: BaseRequest
    names: tuple[str, ...]


Page = Callable[[Asked], Awaitable[Answer]]


class Pages:
    """The server. Made and used in the loop's thread."""

    def __init__(self, worker: Worker, registry: prometheus_client.CollectorRegistry) -> None:
        self._worker = worker
        self._registry = registry
        self._metrics = Metrics(worker, registry, lambda: self._connections.open if self._connections else 0)
        self._connections: Connections | None = None
        self._profile = profile("muster-partition-worker", **{WORKER: worker.name})
        self._routes: dict[tuple[str, str], Page] = {
            ("GET", "/v1/worker"): self._report,
            ("POST", "/v1/control/{verb}"): self._control,
            ("GET", "/v1/replication/{partition}/snapshot"): self._snapshot,
            ("GET", "/v1/replication/{partition}/log"): self._log,
            ("GET", "/v1/keys"): self._scan,
            ("GET", "/v1/keys/{key}"): self._get,
            ("PUT", "/v1/keys/{key}"): self._put,
            ("DELETE", "/v1/keys/{key}"): self._delete,
            ("GET", "/healthz"): self._healthz,
            ("GET", "/readyz"): self._readyz,
            ("GET", "/metrics"): self._figures,
            ("GET", "/openapi.json"): self._document,
        }

    async def start(self, address: str) -> int:
        """Serve from now on; the port. Raises Malformed."""
        sock = listen(address)
        self._connections = Connections(self._handle, self._profile, self._refused)
        await self._connections.serve(sock)
        return int(sock.getsockname()[1])

    async def stop(self, seconds: float = LEAVE_SECONDS) -> None:
        """Take no more requests, and wait for those in flight, but not longer than so."""
        if self._connections:
            await self._connections.leave(seconds)

    # ------------------------------------------------------------------------------------------ a request

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        """Answer it, whatever happens."""
        began, route = time.monotonic(), "other"
        try:
            route, names, page = self._find(request)
            if route.startswith("/v1/"):
                authenticate(request, self._worker.token())
            whole = await page(Asked(request, names))
        except Exception as error:
            whole = self._profile.refusal(_problem(error, route))
        method = request.method if request.method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
        self._tell(method, route, whole.status, began)
        return await send(request, self._profile.response(whole))

    def _refused(self, _request: BaseRequest, status: int) -> None:
        self._tell("other", "other", status, time.monotonic())

    def _tell(self, method: str, route: str, status: int, began: float) -> None:
        seconds = time.monotonic() - began
        self._metrics.count(method, route, status, seconds)
        say(logging.DEBUG, "request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))

    def _find(self, request: BaseRequest) -> tuple[str, tuple[str, ...], Page]:
        path = request.raw_path.partition("?")[0].partition("#")[0]
        parts = path.split("/")
        method = "GET" if request.method == "HEAD" else request.method
        allowed = []
        for (of, route), page in self._routes.items():
            names = match_path(route, parts)
            if names is not None and of == method:
                return route, names, page
            if names is not None:
                allowed += ["GET", "HEAD"] if of == "GET" else [of]
        if allowed:
            raise not_for(sorted(allowed), closes=True)
        raise Problem("not-found", "there is no such page: /openapi.json says which there are", closes=True)

    # ------------------------------------------------------------------------------------------ reconcilers

    async def _report(self, asked: Asked) -> Answer:
        return answer(self._worker.report(queries_of(asked.request, "partition").get("partition", "")))

    async def _control(self, asked: Asked) -> Answer:
        verb = asked.names[0]
        if verb not in VERBS:
            raise Problem("not-found", f"there is no such call: there are {', '.join(VERBS)}", closes=True)
        queries_of(asked.request)
        copy = await self._worker.control(verb, parse(await read_body(asked.request, MAX_BODY)))
        return answer({"copy": self._worker.shown(copy) if copy else None})

    # ------------------------------------------------------------------------------------------ followers

    def _source(self, partition: str) -> None:
        """Raise Problem where this copy is nothing to load from: what is in it may be older, or never have been."""
        copy = self._worker.store.copies.get(partition)
        if copy is None or copy.role not in (PRIMARY, FENCED, PROXY):
            raise Problem("not-here", f"worker {self._worker.name} has no copy of it to load from")
        if copy.role == PRIMARY and not self._worker.grant_of(copy):
            self._worker.look(partition)
            raise Problem("unserved", "it is not known whether this copy is the one that counts")

    async def _snapshot(self, asked: Asked) -> Answer:
        worker, partition = self._worker, asked.names[0]
        query = queries_of(asked.request, "after", "limit", "follower")
        limit = _whole(query, "limit", PAGE, 1, PAGE)
        self._source(partition)
        after, follower = query.get("after", ""), query.get("follower", "")
        if follower and not after:
            worker.acks.loads(partition, follower, worker.store.copies[partition].position)
        page = await worker.read(lambda: worker.store.snapshot(partition, after, limit, PAGE_BYTES))
        self._source(partition)
        entries = [[key, base64.b64encode(value).decode()] for key, value in page.entries]
        document = {"position": page.position, "epoch": page.epoch, "entries": entries, "next": page.following}
        return answer(document)

    async def _log(self, asked: Asked) -> Answer:
        worker, partition = self._worker, asked.names[0]
        query = queries_of(asked.request, "after", "follower", "epoch", "wait")
        after, epoch = _whole(query, "after", 0, 0, 2**62), _whole(query, "epoch", 0, 0, 2**62)
        until = time.monotonic() + _seconds(query, "wait", 0.0, MAX_WAIT)
        is_known = False
        while True:
            self._source(partition)
            log = worker.store.log(partition, after, epoch, MAX_LOG, PAGE_BYTES)
            if query.get("follower") and not is_known:
                worker.acknowledge(partition, query["follower"], after)
                is_known = True
            left = until - time.monotonic()
            if log.entries or left <= 0 or log.epoch > epoch:
                break
            await worker.moved(partition, left)
        entries = [
            [position, key, None if value is None else base64.b64encode(value).decode()]
            for position, key, value in log.entries
        ]
        return answer({"entries": entries, "position": log.position, "epoch": log.epoch, "role": log.role})

    # ------------------------------------------------------------------------------------------ clients

    async def _get(self, asked: Asked) -> Answer:
        key, seen = self._worker.check(asked.names[0]), epoch_of(asked.request)
        queries_of(asked.request)
        found = await self._worker.get(key, seen)
        if isinstance(found, Elsewhere):
            return await self._forward(asked.request, found, None)
        copy, value = found
        if value is None:
            members = {"epoch": copy.epoch}
            raise Problem("no-such-key", "there is nothing under this key", headers=_headers(copy), members=members)
        return Answer(200, value, OCTETS, _headers(copy))

    async def _put(self, asked: Asked) -> Answer:
        return await self._write(asked, await read_body(asked.request, MAX_VALUE))

    async def _delete(self, asked: Asked) -> Answer:
        await read_body(asked.request, 0)
        return await self._write(asked, None)

    async def _write(self, asked: Asked, value: bytes | None) -> Answer:
        key, seen = self._worker.check(asked.names[0]), epoch_of(asked.request)
        queries_of(asked.request)
        written = await self._worker.put(key, value, seen)
        if isinstance(written, Elsewhere):
            return await self._forward(asked.request, written, value)
        return Answer(204, b"", headers=_headers(written))

    async def _scan(self, asked: Asked) -> Answer:
        query = scan_of(asked.request)
        start, end, after = query.get("start", ""), query.get("end", ""), query.get("after", "")
        limit = _whole(query, "limit", PAGE, 1, PAGE)
        found = await self._worker.scan(after, start, end, limit, epoch_of(asked.request))
        if isinstance(found, Elsewhere):
            return await self._forward(asked.request, found, None)
        copy, page = found
        items = [{"key": key, "value": base64.b64encode(value).decode()} for key, value in page.entries]
        whole = {"start": copy.range.start, "end": copy.range.end}
        document = {"items": items, "next": page.following, "partition": copy.partition, "range": whole}
        return answer({**document, "epoch": copy.epoch}, 200, **_headers(copy))

    async def _forward(self, request: BaseRequest, to: Elsewhere, body: bytes | None) -> Answer:
        """Pass it on to who has it, once."""
        worker, partition = self._worker, to.copy.partition
        try:
            address = await worker.address(to.worker)
        except MusterError:
            address = ""
        members = {"partition": partition, "primary": to.worker, **({"address": address} if address else {})}
        if request.headers.get(FORWARDED) or not address:
            raise Problem("not-mine", f"worker {to.worker} has it", members=members)
        seen = max(epoch_of(request) or 0, to.copy.epoch, to.copy.fenced_epoch)
        headers = {**worker.headers(), FORWARDED: "1", EPOCH: str(seen)}
        is_write = request.method in ("PUT", "DELETE")
        timeout = aiohttp.ClientTimeout(total=FORWARD_SECONDS, sock_connect=2.0)
        worker.forwarded += 1
        try:
            url = URL(f"{address}{request.raw_path}", encoded=True)
            async with worker.session.request(
                request.method,
                url,
                data=body,
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                middlewares=(once,),
            ) as response:
                content = await response.read()
                kept = (PARTITION, EPOCH, WORKER, "Retry-After")
                passed = {name: response.headers[name] for name in kept if name in response.headers}
                return Answer(response.status, content, response.headers.get("Content-Type", OCTETS), passed)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            with suppress(MusterError):
                await worker.address(to.worker, anew=True)
            detail = f"worker {to.worker}, which has it, can't be reached"
            raise Problem("unserved", detail, members=members) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = f"worker {to.worker} did not answer"
            raise Problem("unknown" if is_write else "unserved", detail, members=members) from error

    # ------------------------------------------------------------------------------------------ pages without a token

    async def _healthz(self, _asked: Asked) -> Answer:
        if self._worker.failed.is_set():
            raise Problem("unserved", self._worker.store.failure)
        return answer({"ok": True})

    async def _readyz(self, _asked: Asked) -> Answer:
        if not self._worker.is_ready:
            raise Problem("unserved", "it has no Lease, has not looked at all that it has, or leaves")
        return answer({"ok": True})

    async def _figures(self, _asked: Asked) -> Answer:
        text = prometheus_client.generate_latest(self._registry)
        return Answer(200, text, prometheus_client.CONTENT_TYPE_LATEST)

    async def _document(self, _asked: Asked) -> Answer:
        return answer(openapi.document())


# ---------------------------------------------------------------------------------------------- passing on


class NoAnswer(aiohttp.ClientError):
    """The connection broke; the request may have been carried out."""


async def once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keeps aiohttp from sending a PUT or DELETE a second time, by itself, when its answer was lost.

    The first may still be carried out: after the second, and over what somebody else has written since.
    """
    try:
        return await handler(request)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):  # it was not sent
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise NoAnswer(type(error).__name__) from error


# ---------------------------------------------------------------------------------------------- what comes in


def authenticate(request: BaseRequest, token: str) -> None:
    """Raises Problem where the client has not this token; empty: it needs none."""
    scheme, _space, sent = request.headers.get("Authorization", "").partition(" ")
    given = sent.strip().encode("utf-8", "surrogateescape")  # whatever bytes came
    if token and not (scheme.lower() == "bearer" and hmac.compare_digest(given, token.encode())):
        challenge = {"WWW-Authenticate": 'Bearer realm="muster-partitions"'}
        raise Problem("unauthenticated", "send the bearer token of these workers", headers=challenge, closes=True)


def match_path(route: str, parts: list[str]) -> tuple[str, ...] | None:
    """The names in a path of this form. Raises Problem where they are not UTF-8."""
    wanted = route.split("/")
    if len(wanted) != len(parts) or any(one != part for one, part in zip(wanted, parts, strict=True) if one[:1] != "{"):
        return None
    found = [part for one, part in zip(wanted, parts, strict=True) if one[:1] == "{"]
    if not all(found):
        return None
    try:
        return tuple(unquote(part, errors="strict") for part in found)
    except UnicodeDecodeError:
        raise Problem("malformed", "the path is not UTF-8 behind its percent signs", closes=True) from None


def queries_of(request: BaseRequest, *known: str) -> dict[str, str]:
    """What stands after the question mark. Raises Problem for what isn't known, stands there twice, or is too long."""
    found = queries(request, known)
    for name, value in found.items():
        if len(value) > openapi.MAX_NAME:
            raise Problem("malformed", f"{name} is longer than {openapi.MAX_NAME} characters")
    return found


def scan_of(request: BaseRequest) -> dict[str, str]:
    """The same, of a request for keys in order."""
    query = queries_of(request, "start", "end", "after", "limit")
    for name in ("start", "end", "after"):
        if len(query.get(name, "")) > MAX_KEY:
            raise Problem("malformed", f"{name} is longer than a key can be: give {MAX_KEY} at most")
    return query


def _whole(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and least <= int(text) <= most):
        raise Problem("malformed", f"{name} is {text[:100]!r}: give a whole number from {least} to {most}")
    return int(text)


def _seconds(query: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = query.get(name, str(default))
    fine = text.isascii() and text.replace(".", "", 1).isdecimal() and len(text) < 20
    if not fine or float(text) > most:
        raise Problem("malformed", f"{name} is {text[:100]!r}: give seconds from 0 to {most:g}")
    return float(text)


def epoch_of(request: BaseRequest) -> int | None:
    """The highest epoch that the client has seen for this key; None: it does not say."""
    text = request.headers.get(EPOCH)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Problem("malformed", f"{EPOCH} is {text[:100]!r}: give a whole number")
    return int(text)


# ---------------------------------------------------------------------------------------------- what goes out


def _problem(error: Exception, route: str) -> Problem:
    """What the client is told of it."""
    match error:
        case Problem():
            return error
        case Refusal():
            return Problem(error.word, str(error), members=error.members)
        case Trimmed():
            return Problem("trimmed", str(error))
        case KeyError():
            return Problem("not-here", "there is no copy of it here")
        case Malformed() if error.field != "token file":
            return Problem("malformed", str(error), members={"field": error.field})
        case MusterError():
            say(logging.WARNING, "a request failed", route=route, error=str(error))
            return Problem("unserved", str(error))
    say(logging.WARNING, "a request failed", route=route, error=repr(error))
    return Problem("internal", "the server failed; its log says why", closes=True)


def _headers(copy: Any) -> dict[str, str]:
    return {PARTITION: quote(copy.partition, safe=""), EPOCH: str(copy.epoch)}

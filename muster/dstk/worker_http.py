# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker's pages: the contract that openapi.py describes. What comes in is looked at strictly, and bounded.

Refusals are RFC 9457 documents of type `urn:muster:partitions:WORD`; see WORDS.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final, NamedTuple, cast
from urllib.parse import parse_qsl, quote, unquote

import aiohttp
import prometheus_client
from aiohttp.web import BaseRequest, Response, StreamResponse
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server
from yarl import URL

from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import FENCED, PRIMARY, PROXY
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.allocator.server_connections import in_time, listen
from muster.dstk import openapi
from muster.dstk.openapi import MAX_VALUE, TYPE, WORDS
from muster.dstk.replication import PAGE, PAGE_BYTES
from muster.dstk.store import Trimmed
from muster.dstk.worker import VERBS, Elsewhere, Refusal, Worker
from muster.dstk.worker_metrics import Metrics
from muster.openapi import PROBLEM
from muster.process import parse_address, say

CONNECTIONS: Final = 2048
MAX_BODY: Final = 256 * 1024  # bytes of a call
MAX_WAIT: Final = 30.0  # seconds that a request for the log may be held
MAX_LOG: Final = 1000  # entries of one answer
BODY_SECONDS: Final = 10.0  # in which a body has to come
SILENT_SECONDS: Final = 60.0  # between two requests of a connection
FORWARD_SECONDS: Final = 15.0
LEAVE_SECONDS: Final = 5.0  # for requests in flight, at the end
OCTETS: Final = "application/octet-stream"
JSON: Final = "application/json"

PARTITION, EPOCH, WORKER = "Muster-Partition", "Muster-Epoch", "Muster-Worker"
FORWARDED: Final = "Muster-Forwarded"

_quiet = logging.getLogger("muster.dstk.http")  # aiohttp's own words repeat what was sent
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    closes: bool = False


class Problem(Exception):
    """A refusal, as it goes over the wire. `closes`: what is on the connection was not read."""

    def __init__(
        self, word: str, detail: str, *, headers: Mapping[str, str] | None = None, closes: bool = False, **members: Any
    ) -> None:
        super().__init__(detail)
        self.word, self.closes, self.members = word, closes, members
        self.headers = dict(headers or {})
        if WORDS[word][0] == 503:
            self.headers.setdefault("Retry-After", "1")

    @property
    def answer(self) -> Answer:
        status, title = WORDS[self.word]
        own = {"type": f"{TYPE}{self.word}", "title": title, "status": status, "detail": str(self)}
        return Answer(status, _dump({**self.members, **own}), PROBLEM, self.headers, self.closes)


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
        self._server: asyncio.Server | None = None
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
        try:
            sock = listen(*parse_address(address))
        except OSError as error:
            raise Malformed("listen", address, f"choose an address that is free here ({error.strerror})") from error
        self._connections = Connections(self._handle)
        self._server = await asyncio.get_running_loop().create_server(self._connections, sock=sock)
        return int(sock.getsockname()[1])

    async def stop(self, seconds: float = LEAVE_SECONDS) -> None:
        """Take no more requests, and wait for those in flight, but not longer than so."""
        if self._server and self._connections:
            self._server.close()
            self._connections.pre_shutdown()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds + 1):
                    await self._connections.shutdown(seconds)

    # ------------------------------------------------------------------------------------------ a request

    async def _handle(self, request: BaseRequest) -> StreamResponse:
        """Answer it, whatever happens."""
        began, route = time.monotonic(), "other"
        try:
            route, names, page = self._find(request)
            if route.startswith("/v1/"):
                self._authenticate(request)
            answer = await page(Asked(request, names))
        except Exception as error:
            answer = _problem(error, route).answer
        method = request.method if request.method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
        seconds = time.monotonic() - began
        self._metrics.count(method, route, answer.status, seconds)
        say(logging.DEBUG, "request", method=method, route=route, status=answer.status, ms=round(seconds * 1000, 1))
        headers = {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Server": "muster-partition-worker",
        }
        headers |= {WORKER: self._worker.name, "Content-Type": answer.content_type, **answer.headers}
        body = None if answer.status == HTTPStatus.NO_CONTENT else answer.body
        if body is None:
            del headers["Content-Type"]
        response = Response(status=answer.status, body=body, headers=headers)
        if answer.closes:
            response.force_close()
        await in_time(request, response.prepare(request))
        await in_time(request, response.write_eof())
        return response

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
            allow = ", ".join(sorted(allowed))
            raise Problem("method", f"that page is there for {allow}", headers={"Allow": allow}, closes=True)
        raise Problem("not-found", "there is no such page: /openapi.json says which there are", closes=True)

    def _authenticate(self, request: BaseRequest) -> None:
        wanted = self._worker.token()
        if not wanted:
            return
        scheme, _space, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), wanted.encode()):
            return
        challenge = {"WWW-Authenticate": 'Bearer realm="muster-partitions"'}
        raise Problem("unauthenticated", "send the bearer token of these workers", headers=challenge, closes=True)

    # ------------------------------------------------------------------------------------------ reconcilers

    async def _report(self, asked: Asked) -> Answer:
        return to_json(self._worker.report(queries_of(asked.request, "partition").get("partition", "")))

    async def _control(self, asked: Asked) -> Answer:
        verb = asked.names[0]
        if verb not in VERBS:
            raise Problem("not-found", f"there is no such call: there are {', '.join(VERBS)}", closes=True)
        queries_of(asked.request)
        copy = await self._worker.control(verb, _parse(await body_of(asked.request, MAX_BODY)))
        return to_json({"copy": self._worker.shown(copy) if copy else None})

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
        return to_json(document)

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
        return to_json({"entries": entries, "position": log.position, "epoch": log.epoch, "role": log.role})

    # ------------------------------------------------------------------------------------------ clients

    async def _get(self, asked: Asked) -> Answer:
        key, seen = self._worker.check(asked.names[0]), epoch_of(asked.request)
        queries_of(asked.request)
        found = await self._worker.get(key, seen)
        if isinstance(found, Elsewhere):
            return await self._forward(asked.request, found, None)
        copy, value = found
        if value is None:
            raise Problem("no-such-key", "there is nothing under this key", headers=_headers(copy), epoch=copy.epoch)
        return Answer(200, value, OCTETS, _headers(copy))

    async def _put(self, asked: Asked) -> Answer:
        return await self._write(asked, await body_of(asked.request, MAX_VALUE))

    async def _delete(self, asked: Asked) -> Answer:
        await body_of(asked.request, 0)
        return await self._write(asked, None)

    async def _write(self, asked: Asked, value: bytes | None) -> Answer:
        key, seen = self._worker.check(asked.names[0]), epoch_of(asked.request)
        queries_of(asked.request)
        written = await self._worker.put(key, value, seen)
        if isinstance(written, Elsewhere):
            return await self._forward(asked.request, written, value)
        return Answer(204, b"", headers=_headers(written))

    async def _scan(self, asked: Asked) -> Answer:
        query = queries_of(asked.request, "start", "end", "after", "limit")
        for name in ("start", "end", "after"):
            if len(query.get(name, "")) > openapi.MAX_KEY:
                raise Problem("malformed", f"{name} is longer than a key can be: give {openapi.MAX_KEY} at most")
        start, end, after = query.get("start", ""), query.get("end", ""), query.get("after", "")
        limit = _whole(query, "limit", PAGE, 1, PAGE)
        found = await self._worker.scan(after, start, end, limit, epoch_of(asked.request))
        if isinstance(found, Elsewhere):
            return await self._forward(asked.request, found, None)
        copy, page = found
        items = [{"key": key, "value": base64.b64encode(value).decode()} for key, value in page.entries]
        whole = {"start": copy.range.start, "end": copy.range.end}
        document = {"items": items, "next": page.following, "partition": copy.partition, "range": whole}
        return to_json({**document, "epoch": copy.epoch}, **_headers(copy))

    async def _forward(self, request: BaseRequest, to: Elsewhere, body: bytes | None) -> Answer:
        """Pass it on to who has it, once."""
        worker, partition = self._worker, to.copy.partition
        try:
            address = await worker.address(to.worker)
        except MusterError:
            address = ""
        members: dict[str, Any] = {"primary": to.worker, **({"address": address} if address else {})}
        if request.headers.get(FORWARDED) or not address:
            raise Problem("not-mine", f"worker {to.worker} has it", partition=partition, **members)
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
            ) as answer:
                content = await answer.read()
                kept = (PARTITION, EPOCH, WORKER, "Retry-After")
                passed = {name: answer.headers[name] for name in kept if name in answer.headers}
                return Answer(answer.status, content, answer.headers.get("Content-Type", OCTETS), passed)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            with suppress(MusterError):
                await worker.address(to.worker, anew=True)
            detail = f"worker {to.worker}, which has it, can't be reached"
            raise Problem("unserved", detail, partition=partition, **members) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            detail = f"worker {to.worker} did not answer"
            raise Problem("unknown" if is_write else "unserved", detail, partition=partition, **members) from error

    # ------------------------------------------------------------------------------------------ pages without a token

    async def _healthz(self, _asked: Asked) -> Answer:
        if self._worker.failed.is_set():
            raise Problem("unserved", self._worker.store.failure)
        return to_json({"ok": True})

    async def _readyz(self, _asked: Asked) -> Answer:
        if not self._worker.is_ready:
            raise Problem("unserved", "it has no Lease, has not looked at all that it has, or leaves")
        return to_json({"ok": True})

    async def _figures(self, _asked: Asked) -> Answer:
        text = prometheus_client.generate_latest(self._registry)
        return Answer(200, text, prometheus_client.CONTENT_TYPE_LATEST)

    async def _document(self, _asked: Asked) -> Answer:
        return to_json(openapi.document())


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
    """What stands after the question mark. Raises Problem for what isn't known, or stands there twice."""
    text, found = request.raw_path.partition("?")[2], {}
    try:
        fields = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=16)
    except ValueError:
        if text:
            raise Problem("malformed", "what stands after the question mark is not NAME=VALUE&…, in UTF-8") from None
        return {}
    for name, value in fields:
        if name not in known or name in found:
            raise Problem(
                "malformed", f"leave {name[:100]!r} out: the URL has each of {', '.join(known) or 'none'} once"
            )
        if len(value) > openapi.MAX_NAME:
            raise Problem("malformed", f"{name} is longer than {openapi.MAX_NAME} characters")
        found[name] = value
    return found


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


async def body_of(request: BaseRequest, most: int) -> bytes:
    """The body. Raises Problem."""
    if not request.body_exists:
        return b""
    length = request.content_length
    if length is not None and length > most:
        raise Problem("too-large", f"the body has {length} bytes: send {most} at most", closes=True)
    expected = request.headers.get("Expect", "")
    if expected.lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer
    elif expected:
        raise Problem("malformed", "the only Expect that is known is 100-continue", closes=True)
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                content += chunk
                if len(content) > most:
                    raise Problem("too-large", f"the body is too long: send {most} bytes at most", closes=True)
    except TimeoutError:
        raise Problem("timeout", f"the body did not come within {BODY_SECONDS:g} s", closes=True) from None
    except Problem:
        raise
    except Exception:  # whatever a parser says of bytes that are no body
        raise Problem("malformed", "the body ends too early, or its parts are not what they say", closes=True) from None
    return bytes(content)


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Problem("malformed", "the body is not JSON, in UTF-8") from None


# ---------------------------------------------------------------------------------------------- what goes out


def _problem(error: Exception, route: str) -> Problem:
    """What the client is told of it."""
    match error:
        case Problem():
            return error
        case Refusal():
            return Problem(error.word, str(error), **error.members)
        case Trimmed():
            return Problem("trimmed", str(error))
        case KeyError():
            return Problem("not-here", "there is no copy of it here")
        case Malformed() if error.field != "token file":
            return Problem("malformed", str(error), field=error.field)
        case MusterError():
            say(logging.WARNING, "a request failed", route=route, error=str(error))
            return Problem("unserved", str(error))
    say(logging.WARNING, "a request failed", route=route, error=repr(error))
    return Problem("internal", "the worker failed; its log says why", closes=True)


def _headers(copy: Any) -> dict[str, str]:
    return {PARTITION: quote(copy.partition, safe=""), EPOCH: str(copy.epoch)}


def to_json(document: Any, **headers: str) -> Answer:
    return Answer(200, _dump(document), headers=headers)


def _dump(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


class Connections(Server):
    """Makes a `_Connection` of each that is accepted."""

    def __init__(self, handler: Callable[[BaseRequest], Awaitable[StreamResponse]]) -> None:
        super().__init__(cast(Any, handler), loop=asyncio.get_running_loop())

    @property
    def open(self) -> int:
        return len(self._connections)

    def __call__(self) -> RequestHandler:
        return _Connection(
            self,
            loop=self._loop,
            keepalive_timeout=SILENT_SECONDS,
            logger=cast(Any, _quiet),
            access_log=cast(Any, None),
            max_headers=64,
            lingering_time=2.0,
            auto_decompress=False,
        )


class _Connection(RequestHandler):
    """One connection; hung up on where there are too many."""

    __slots__ = ("_all",)

    def __init__(self, connections: Connections, **settings: Any) -> None:
        super().__init__(connections, **settings)
        self._all = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._all.open >= CONNECTIONS:
            self._force_close = True
            cast(asyncio.Transport, transport).write(_raw(Problem("overloaded", "there are too many connections")))
            transport.close()
            return
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._force_close:
            super().data_received(data)

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> StreamResponse:
        """aiohttp's own answer would repeat what was sent."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        word = "malformed" if status < 500 else "internal"
        answer = Problem(word, "that is no request of HTTP/1.1, or it is too long").answer
        response = Response(status=answer.status, body=answer.body, headers={"Content-Type": PROBLEM})
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        say(logging.DEBUG, "a connection failed", error=type(kw.get("exc_info")).__name__)


def _raw(problem: Problem) -> bytes:
    """An answer as bytes, for where there is no request."""
    answer = problem.answer
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", f"Content-Type: {PROBLEM}"]
    lines += ["Connection: close", f"Content-Length: {len(answer.body)}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body

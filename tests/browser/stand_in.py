# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in of the allocator's HTTP interface, for states of its page that are hard to reach with the real one.

It serves the page's real files with the real server's policy, keeps instances in memory, and does what a test tells it
to: refuse, break off, wait, hang up. Loopback only; what it keeps is bounded by the test that uses it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web

from muster.allocator.server_page import files
from muster.allocator.server_wire import SAFETY

CHECKOUT = Path(__file__).parents[2]
TOKENS = {"alices-token": "alice", "bobs-token": "bob", "roots-token": "root"}
DIGEST = "sha256:" + "5c" * 32
MAX_INSTANCES = 2000

PARAMETERS: dict[str, Any] = {
    "size": {
        "type": "string",
        "enum": ["small", "medium", "large"],
        "default": "small",
        "description": "How much it gets",
    },
    "workers": {"type": "integer", "minimum": 1, "maximum": 16, "default": 2},
    "ratio": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
    "title": {
        "type": "string",
        "minLength": 2,
        "maxLength": 20,
        "pattern": "^[a-z ]+$",
        "description": "Shown to users",
    },
    "notes": {"type": "string", "maxLength": 2000, "default": ""},
    "tracing": {"type": "boolean", "default": False, "description": "Log each request"},
}


class Seen(NamedTuple):
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


class Refusal(NamedTuple):
    status: int
    document: Mapping[str, Any] | None  # None: a page of something between, which is no problem document
    headers: Mapping[str, str] = {}


class BreakOff(NamedTuple):
    """An answer that breaks off after some bytes: without any, a browser would ask again by itself. `is_done`: what was
    asked for was done all the same.
    """

    is_done: bool


class Wait(NamedTuple):
    """The answer comes when this is set."""

    until: threading.Event


Planned = Refusal | BreakOff | Wait


def refusal(status: int, word: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any) -> Refusal:
    document = {"type": f"urn:muster:allocator:{word}", "title": "No", "status": status, "detail": detail, **members}
    return Refusal(status, document, headers or {})


def instance(name: str, owner: str = "alice", phase: str = "Ready", **members: Any) -> dict[str, Any]:
    return {
        "name": name,
        "owner": owner,
        "access": {"users": [], "groups": []},
        "phase": phase,
        "message": "",
        "created": "2026-03-01T12:00:00Z",
        "parameters": {},
        "storage": "delete",
        "suspended": False,
        "resets": 0,
        "attach": "",
        "template": DIGEST,
        "objects": [
            {"kind": kind, "name": name} for kind in ("PersistentVolumeClaim", "Service", "Deployment")
        ],
        "endpoints": [{"service": name, "port": 8149, "name": "syncbase"}],
        **members,
    }  # fmt: skip


class StandIn:
    """The interface at a free port of loopback, in a thread of its own. Its methods are for the test's thread."""

    def __init__(self) -> None:
        self.instances: dict[str, dict[str, Any]] = {}
        self.disks: list[dict[str, Any]] = []
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.parameters = copy.deepcopy(PARAMETERS)
        self.limit, self.has_disk, self.digest = 3, True, DIGEST
        self.tokens = dict(TOKENS)
        self.seen: list[Seen] = []
        self._plans: dict[tuple[str, str], list[Planned]] = {}
        self._keys: dict[str, str] = {}
        self._watches: dict[asyncio.Queue[bytes | None], tuple[str, bool]] = {}
        self._loop = asyncio.new_event_loop()
        self._files = files()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stand-in", daemon=True)
        self._thread.start()
        assert self._ready.wait(20), "the stand-in does not start"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def close(self) -> None:
        self.hang_up()
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)

    # -- what a test tells it -----------------------------------------------------------------------------------------

    def plan(self, method: str, path: str, *what: Planned) -> None:
        """The next requests of this kind meet this; those after them are answered."""
        self._call(lambda: self._plans.setdefault((method, path), []).extend(what))

    def put(self, changed: Mapping[str, Any]) -> None:
        """An instance is this now, and whoever watches is told."""
        self._call(lambda: self._put(dict(changed)))

    def drop(self, name: str, *, tell: bool = True) -> None:
        self._call(lambda: self._drop(name, tell))

    def bookmark(self) -> None:
        self._call(lambda: self._tell("BOOKMARK", None))

    def hang_up(self) -> None:
        """End all watches."""

        def end() -> None:
            for queue in self._watches:
                queue.put_nowait(None)

        self._call(end)

    @property
    def watches(self) -> int:
        return len(self._watches)

    def asked(self, method: str, path: str) -> list[Seen]:
        return [each for each in self.seen if (each.method, each.path.partition("?")[0]) == (method, path)]

    # -- the server ---------------------------------------------------------------------------------------------------

    def _call(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        application = web.Application(client_max_size=64 * 1024)
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = runner.addresses[0][1]
        self._ready.set()
        await self._ended.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in self._files:
            file = self._files[path]
            return web.Response(body=file.content, headers={**SAFETY, "Content-Type": file.content_type})
        body = json.loads(await request.text() or "null")
        self.seen.append(Seen(request.method, request.path_qs, dict(request.headers), body))
        caller = self.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if caller is None:
            return _refused(refusal(401, "unauthenticated", "the token has expired, or is made for another audience"))
        plans = self._plans.get((request.method, path), [])
        match plans.pop(0) if plans else None:
            case Refusal() as planned:
                return _refused(planned)
            case BreakOff(is_done):
                if is_done:
                    await self._act(request, path, caller, body)
                assert request.transport
                request.transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
                )
                request.transport.close()
                return web.Response()
            case Wait(until):
                await asyncio.get_running_loop().run_in_executor(None, until.wait, 20)
        return await self._act(request, path, caller, body)

    async def _act(self, request: web.Request, path: str, caller: str, body: Any) -> web.StreamResponse:
        name, _colon, verb = path.removeprefix("/v1/instances/").partition(":")
        match request.method, path.split("/")[1:]:
            case "GET", ["v1", "offer"]:
                return _json(self._offer(caller))
            case "GET", ["v1", "instances"]:
                return await self._watch(request, caller)
            case "POST", ["v1", "instances"]:
                return self._create(request.headers["Idempotency-Key"], caller, body)
            case "GET", ["v1", "disks"]:
                return _json({"items": self.disks})
            case "DELETE", ["v1", "disks", disk]:
                self.disks = [each for each in self.disks if each["name"] != disk]
                return _json({}, 202)
            case "GET", ["v1", "instances", name, "events"]:
                return _json({"items": self.events.get(name, [])})
        there = self.instances.get(name)
        if there is None:
            return _refused(refusal(404, "not-found", "you have no such instance"))
        match request.method, verb:
            case "DELETE", "":
                there = {**there, "phase": "Destroying", "storage": request.query.get("storage", there["storage"])}
            case "POST", "suspend" | "resume":
                there = {**there, "suspended": verb == "suspend", "phase": f"{verb.capitalize().removesuffix('e')}ing"}
            case "POST", "reset":
                there = {**there, "resets": body["resets"] + 1, "phase": "Resetting"}
        self._put(there)
        return _json(there, 202)

    def _offer(self, caller: str) -> dict[str, Any]:
        return {
            "name": "syncbase-allocator",
            "template": {
                "digest": self.digest,
                "version": "7",
                "kinds": ["Deployment", "PersistentVolumeClaim", "Service"],
            },
            "parameters": self.parameters,
            "limit": self.limit,
            "used": sum(each["owner"] == caller for each in self.instances.values()),
            "global_limit": 10,
            "has_disk": self.has_disk,
            "caller": {"name": caller, "groups": ["team"], "is_administrator": caller == "root"},
        }

    def _create(self, key: str, caller: str, body: Any) -> web.Response:
        is_new = key not in self._keys
        if is_new:
            self._keys[key] = f"syncbased-{len(self._keys) + 1:010x}"
            made = instance(self._keys[key], caller, "Pending", created="2026-03-02T12:00:00Z")
            self._put({**made, **{each: body[each] for each in ("parameters", "access", "storage") if each in body}})
        return _json(self.instances[self._keys[key]], 201 if is_new else 200)

    async def _watch(self, request: web.Request, caller: str) -> web.StreamResponse:
        everything = request.query.get("all") == "true"
        answer = web.StreamResponse(headers={**SAFETY, "Content-Type": "application/x-ndjson"})
        await answer.prepare(request)
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for each in self.instances.values():
            if self._sees(caller, everything, each):
                queue.put_nowait(_line("ADDED", each))
        queue.put_nowait(_line("BOOKMARK", None))
        self._watches[queue] = (caller, everything)
        try:
            while (line := await queue.get()) is not None:
                await answer.write(line)
        except ConnectionError:
            pass  # the page has gone
        finally:
            del self._watches[queue]
        with suppress(ConnectionError):
            await answer.write_eof()
        return answer

    def _sees(self, caller: str, everything: bool, each: Mapping[str, Any]) -> bool:
        return everything or each["owner"] == caller or caller in each["access"]["users"]

    def _put(self, changed: dict[str, Any]) -> None:
        assert len(self.instances) < MAX_INSTANCES
        kind = "MODIFIED" if changed["name"] in self.instances else "ADDED"
        self.instances[changed["name"]] = changed
        self._tell(kind, changed)

    def _drop(self, name: str, tell: bool) -> None:
        gone = self.instances.pop(name)
        if tell:
            self._tell("DELETED", gone)

    def _tell(self, kind: str, about: Mapping[str, Any] | None) -> None:
        for queue, (caller, everything) in self._watches.items():
            if about is None or self._sees(caller, everything, about):
                queue.put_nowait(_line(kind, about))


def _line(kind: str, about: Mapping[str, Any] | None) -> bytes:
    return json.dumps({"type": kind, "instance": about}, ensure_ascii=False).encode() + b"\n"


def _json(document: Any, status: int = 200) -> web.Response:
    return web.json_response(document, status=status, headers=SAFETY)


def _refused(planned: Refusal) -> web.Response:
    headers = {**SAFETY, **planned.headers}
    if planned.document is None:
        return web.Response(
            status=planned.status, text="<h1>Bad Gateway</h1>", content_type="text/html", headers=headers
        )
    text = json.dumps(planned.document)
    return web.Response(status=planned.status, text=text, content_type="application/problem+json", headers=headers)


@contextmanager
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    try:
        yield server
    finally:
        server.close()

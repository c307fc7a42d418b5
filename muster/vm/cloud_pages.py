# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the pages of the private cloud do, and what they take; without HTTP."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.process import say
from muster.vm.cloud_faults import Bucket, Dice, Faults
from muster.vm.cloud_store import Guards, Store
from muster.vm.cloud_wire import NotUnderstood, Writer

PAGE_LIMIT: Final = 1000  # machines in one answer
TEXT: Final = re.compile(r"[!-~](?:[ -~]{0,251}[!-~])?")  # a name, uid, image, key or scope: 1 to 253, printable
MEMORY: Final = re.compile(r"[1-9][0-9]{0,12}(Mi|Gi|Ti)")


class Request(NamedTuple):
    """What a handler needs of one; `words` are what the path holds in place of {}."""

    words: tuple[str, ...]
    query: dict[str, str]
    headers: Any
    body: dict[str, Any]

    @property
    def writer(self) -> Writer:
        fence = self.headers.get("Fence")
        if fence is None:
            return Writer()
        return Writer(_integer("Fence", fence, 0, 2**63 - 1), _text("Fence-Scope", self.headers.get("Fence-Scope")))

    def number(self, name: str, default: int, largest: int) -> int:
        return _integer(name, self.query.get(name, default), 1, largest)


Answer = tuple[int, Any]  # HTTP status, and what is sent as JSON (None: nothing)


class Cloud:
    """A store behind pages, with faults."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.switch(Faults.parse(store.setting("faults") or {}))

    def switch(self, faults: Faults) -> None:
        """These faults from now on."""
        self.faults, self.dice = faults, Dice(faults.seed)
        self.bucket = Bucket(faults.rate_limit_per_second)
        self.store.guards = Guards(
            fences=not faults.ignore_fences, keys=not faults.ignore_idempotency_keys, names=not faults.names_not_unique
        )

    def machines(self, request: Request) -> Answer:
        query, limit = request.query, request.number("limit", 100, PAGE_LIMIT)
        machines = self.store.page(
            name=query.get("name", ""),
            uid=query.get("uid", ""),
            after=query.get("after", ""),
            limit=limit,
            ago=self.faults.list_delay_seconds,
        )
        return 200, {"machines": machines, "after": machines[-1]["id"] if len(machines) == limit else ""}

    def create(self, request: Request) -> Answer:
        body = request.body
        asked = {field: _text(field, body.get(field)) for field in ("name", "uid", "image")}
        key = request.headers.get("Idempotency-Key")
        machine, made = self.store.create(
            request.writer, {**asked, **_size(body)}, None if key is None else _text("Idempotency-Key", key)
        )
        return (201 if made else 200), machine

    def machine(self, request: Request) -> Answer:
        return 200, self.store.get(request.words[0])

    def resize(self, request: Request) -> Answer:
        revision = request.headers.get("If-Match")
        at = None if revision is None else _integer("If-Match", revision, 1, 2**63 - 1)
        return 200, self.store.resize(request.writer, request.words[0], **_size(request.body), revision=at)

    def delete(self, request: Request) -> Answer:
        self.store.delete(request.writer, request.words[0])
        return 204, None

    def find(self, request: Request) -> Answer:
        uid, close = _text("uid", request.body.get("uid")), request.body.get("close", False)
        if not isinstance(close, bool):
            raise NotUnderstood(f"close is {close!r}: give true or false")
        return 200, self.store.find(request.writer, _text("name", request.words[0]), uid, close=close)

    def counters(self, request: Request) -> Answer:
        return 200, self.store.counters(
            after=request.query.get("after", ""), limit=request.number("limit", 10_000, 10_000)
        )

    def see_faults(self, _request: Request) -> Answer:
        return 200, self.faults.document()

    def set_faults(self, request: Request) -> Answer:
        try:
            faults = Faults.parse(request.body)
        except Malformed as error:
            raise NotUnderstood(str(error)) from error
        self.store.keep("faults", faults.document())
        self.switch(faults)
        say(logging.INFO, "faults are switched", **faults.document())
        return 200, faults.document()


Route = tuple[str, str, Callable[[Cloud, Request], Answer], bool]
ROUTES: Final[tuple[Route, ...]] = (  # method, path, what it does, whether faults strike there
    ("GET", "/v1/machines", Cloud.machines, True),
    ("POST", "/v1/machines", Cloud.create, True),
    ("GET", "/v1/machines/{}", Cloud.machine, True),
    ("PUT", "/v1/machines/{}", Cloud.resize, True),
    ("DELETE", "/v1/machines/{}", Cloud.delete, True),
    ("PUT", "/v1/fences/{}", Cloud.find, True),
    ("GET", "/v1/counters", Cloud.counters, False),
    ("GET", "/v1/faults", Cloud.see_faults, False),
    ("PUT", "/v1/faults", Cloud.set_faults, False),
)


def _size(body: dict[str, Any]) -> dict[str, Any]:
    memory = body.get("memory")
    if not isinstance(memory, str) or not MEMORY.fullmatch(memory):
        raise NotUnderstood(f"memory is {memory!r}: give a size such as 512Mi or 4Gi")
    cores = body.get("cores")
    if type(cores) is not int or not 1 <= cores <= 256:
        raise NotUnderstood(f"cores is {cores!r}: give an integer from 1 to 256")
    return {"cores": cores, "memory": memory}


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not TEXT.fullmatch(value):
        raise NotUnderstood(f"{name} is {str(value)[:300]!r}: give 1 to 253 printable ASCII characters")
    return value


def _integer(name: str, value: Any, least: int, most: int) -> int:
    text = str(value)
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and least <= int(text) <= most):
        raise NotUnderstood(f"{name} is {text[:40]!r}: give an integer from {least} to {most}")
    return int(text)

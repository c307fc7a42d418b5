# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of the allocator's interface, each from a request to an answer. What is done is the `Allocator`'s."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

from aiohttp.web import BaseRequest

from ansible_collections.muster.coordination.plugins.module_utils.api import ApiError, Object
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller, Offer, Wish
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import Created, Page
from muster.allocator.server_wire import flag, read_json, read_nothing
from muster.http.wire import Answer, Problem, answer, queries

T = TypeVar("T")

MAX_LISTED: Final = 500
MAX_RESETS: Final = 2**31 - 1

_CONTINUE: Final = re.compile(r"[!-~]{0,4096}")  # where a page begins
# what a creation's members are; whether their values may be so, decisions.parse_wish says
_WISH: Final[Mapping[str, type]] = {"parameters": dict, "access": dict, "storage": str, "attach": str}
_KINDS: Final[Mapping[type, str]] = {dict: "an object", list: "a list", str: "text"}
_ACCESS: Final[Mapping[str, type]] = {"users": list, "groups": list}


class Allocates(Protocol):
    """What is needed of verbs/allocator.py's Allocator."""

    @property
    def offer(self) -> Offer: ...
    def offer_for(self, caller: Caller) -> Object: ...
    def create(self, caller: Caller, key: str, wish: Wish, *, dry_run: bool = False) -> Created: ...
    def get(self, caller: Caller, name: str) -> Object: ...
    def listed(self, caller: Caller, *, limit: int = 100, after: str = "", everything: bool = False) -> Page: ...
    def destroy(self, caller: Caller, name: str, storage: str | None = None) -> Object: ...
    def suspend(self, caller: Caller, name: str, suspended: bool) -> Object: ...
    def reset(self, caller: Caller, name: str, seen: int | None = None) -> Object: ...
    def events(self, caller: Caller, name: str) -> list[Object]: ...
    def disks(self, caller: Caller) -> list[Object]: ...
    def remove_disk(self, caller: Caller, name: str) -> None: ...


class Watch(NamedTuple):
    """In place of an answer: changes as they come."""

    caller: Caller
    is_everything: bool


class Asked(NamedTuple):
    """A request of somebody who is known. `call` has something done where it may block."""

    request: BaseRequest
    caller: Caller
    name: str
    allocator: Allocates
    call: Callable[[Callable[[], Any]], Awaitable[Any]]

    async def does(self, what: Callable[[], T]) -> T:
        result: T = await self.call(what)
        return result


Page_ = Callable[[Asked], Awaitable[Answer | Watch]]


class Route(NamedTuple):
    """`path` as the OpenAPI document has it."""

    method: str
    path: str
    page: Page_

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.escape(self.path).replace(r"\{name\}", "([^/:]+)"))


def _shown(instance: Mapping[str, Any], status: int = 200, **headers: str) -> Answer:
    return answer(decisions.view(instance), status, **headers)


async def _offer(asked: Asked) -> Answer:
    queries(asked.request, ())
    await read_nothing(asked.request)
    return answer(await asked.does(lambda: asked.allocator.offer_for(asked.caller)))


async def _create(asked: Asked) -> Answer:
    is_dry = flag(queries(asked.request, ("dryRun",)), "dryRun")
    keys = asked.request.headers.getall("Idempotency-Key", [])
    if len(keys) != 1:
        raise Problem("malformed", "give the header Idempotency-Key once: the same value with each repetition")
    key = decisions.check_key(keys[0])
    body = await read_json(asked.request)
    wish = decisions.parse_wish(body)
    _check_types(body, _WISH, "")
    _check_types(body.get("access", {}), _ACCESS, "access.")
    made = await asked.does(lambda: asked.allocator.create(asked.caller, key, wish, dry_run=is_dry))
    if is_dry:
        return _shown(made.instance)
    location = f"/v1/instances/{quote(made.instance['metadata']['name'])}"
    return _shown(made.instance, 201 if made.is_new else 200, Location=location)


async def _list(asked: Asked) -> Answer | Watch:
    given = queries(asked.request, ("limit", "continue", "all", "watch"))
    await read_nothing(asked.request)
    everything, after = flag(given, "all"), given.get("continue", "")
    if flag(given, "watch"):
        if everything and not asked.allocator.offer.is_administrator(asked.caller):
            raise decisions.NotAdministrator("leave all out: you see yours, and what is shared with you")
        if "limit" in given or "continue" in given:
            raise Problem("malformed", "a watch tells of all instances: leave limit and continue out")
        return Watch(asked.caller, everything)
    limit = given.get("limit", "100")
    if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= MAX_LISTED:
        raise Problem("malformed", f"limit is {limit[:100]!r}: give a whole number from 1 to {MAX_LISTED}")
    if not _CONTINUE.fullmatch(after):
        raise Problem("malformed", "continue is not what the page before said: give that")
    try:
        page = await asked.does(
            lambda: asked.allocator.listed(asked.caller, limit=int(limit), after=after, everything=everything)
        )
    except ApiError as error:
        if error.status == 400 and after:
            raise Problem("malformed", "continue is not what the page before said: give that") from None
        raise
    return answer({"items": [decisions.view(each) for each in page.items], "continue": page.next})


async def _get(asked: Asked) -> Answer:
    queries(asked.request, ())
    await read_nothing(asked.request)
    return _shown(await asked.does(lambda: asked.allocator.get(asked.caller, asked.name)))


async def _destroy(asked: Asked) -> Answer:
    storage = queries(asked.request, ("storage",)).get("storage")
    await read_nothing(asked.request)
    if storage is not None and storage not in decisions.STORAGE:
        raise Problem("malformed", f"storage is {storage[:100]!r}: give delete or retain")
    return _shown(await asked.does(lambda: asked.allocator.destroy(asked.caller, asked.name, storage)), 202)


def _suspend(suspended: bool) -> Page_:
    async def page(asked: Asked) -> Answer:
        queries(asked.request, ())
        _members(await read_json(asked.request))
        return _shown(await asked.does(lambda: asked.allocator.suspend(asked.caller, asked.name, suspended)), 202)

    return page


async def _reset(asked: Asked) -> Answer:
    queries(asked.request, ())
    seen = _members(await read_json(asked.request), "resets").get("resets")
    if seen is not None and (not isinstance(seen, int) or isinstance(seen, bool) or not 0 <= seen < MAX_RESETS):
        raise Problem("malformed", "resets is not the number that the instance had: give that, or leave it out")
    return _shown(await asked.does(lambda: asked.allocator.reset(asked.caller, asked.name, seen)), 202)


async def _events(asked: Asked) -> Answer:
    queries(asked.request, ())
    await read_nothing(asked.request)
    return answer({"items": await asked.does(lambda: asked.allocator.events(asked.caller, asked.name))})


async def _disks(asked: Asked) -> Answer:
    queries(asked.request, ())
    await read_nothing(asked.request)
    return answer({"items": await asked.does(lambda: asked.allocator.disks(asked.caller))})


async def _remove_disk(asked: Asked) -> Answer:
    queries(asked.request, ())
    await read_nothing(asked.request)
    await asked.does(lambda: asked.allocator.remove_disk(asked.caller, asked.name))
    return answer({}, 202)


def _check_types(given: Mapping[str, Any], types: Mapping[str, type], where: str) -> None:
    """A member that is null, or empty of another type, is no way to leave it out."""
    for name, value in given.items():
        if not isinstance(value, types[name]):
            wanted = _KINDS[types[name]]
            raise Problem("malformed", f"{where}{name} has to be {wanted}: or leave it out")


def _members(body: Any, *known: str) -> Mapping[str, Any]:
    if not isinstance(body, dict):
        raise Problem("malformed", "the body is no JSON object: send one, or none")
    for name in body:
        if name not in known:
            raise Problem("malformed", f"leave {name[:100]!r} out of the body: it has {', '.join(known) or 'nothing'}")
    return body


ROUTES: Final = (
    Route("GET", "/v1/offer", _offer),
    Route("GET", "/v1/instances", _list),
    Route("POST", "/v1/instances", _create),
    Route("GET", "/v1/instances/{name}", _get),
    Route("DELETE", "/v1/instances/{name}", _destroy),
    Route("POST", "/v1/instances/{name}:suspend", _suspend(True)),
    Route("POST", "/v1/instances/{name}:resume", _suspend(False)),
    Route("POST", "/v1/instances/{name}:reset", _reset),
    Route("GET", "/v1/instances/{name}/events", _events),
    Route("GET", "/v1/disks", _disks),
    Route("DELETE", "/v1/disks/{name}", _remove_disk),
)

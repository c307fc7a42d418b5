# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the allocator's server has of its own on the wire: words of refusals, headers, and how a body is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from aiohttp.web import BaseRequest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import REFUSALS
from muster.http import wire
from muster.http.wire import Problem, Profile, parse, read_body
from muster.openapi import COMMON_WORDS, JSON

MAX_BODY: Final = 64 * 1024  # bytes
LINES: Final = "application/x-ndjson"
TYPE: Final = "urn:muster:allocator:"

# what may be refused, by word: the status that it mostly has, and a title
WORDS: Final[Mapping[str, tuple[int, str]]] = {
    **{word: (refusal.status, refusal.title) for word, refusal in REFUSALS.items()},
    **COMMON_WORDS,
    "unsupported": (415, "The body is not plain JSON"),
    "throttled": (429, "Too much at a time"),
    "unavailable": (503, "The cluster can't be asked"),
}

SAFETY: Final[Mapping[str, str]] = {  # headers of every answer
    **wire.SAFETY,
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Server": "muster-allocator",
}
PROFILE: Final = Profile(TYPE, WORDS, SAFETY, connections=1024, silent_seconds=30.0)


def flag(asked: Mapping[str, str], name: str) -> bool:
    """A yes or no of `queries`. Raises Problem."""
    value = asked.get(name, "false")
    if value not in ("true", "1", "false", "0"):
        raise Problem("malformed", f"{name} is {value[:100]!r}: give true or false")
    return value in ("true", "1")


async def read_nothing(request: BaseRequest) -> None:
    """Raises Problem where there is a body, and nobody asked for one."""
    if request.body_exists:
        raise Problem("malformed", f"a {request.method} here has no body: send none", closes=True)


async def read_json(request: BaseRequest) -> Any:
    """The body, parsed; {} where there is none. Raises Problem."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity" and request.body_exists:
        raise Problem("unsupported", "the body is compressed: send it as it is", closes=True)
    content = await read_body(request, MAX_BODY)
    if not content:
        return {}
    if request.content_type.lower() != JSON or (request.charset or "utf-8").lower() != "utf-8":
        raise Problem("unsupported", f"the body is no JSON by its Content-Type: send it as {JSON}, in UTF-8")
    return parse(content)

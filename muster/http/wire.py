# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes in, looked at strictly and in bounded memory, and what goes out: answers, and refusals.

Refusals are RFC 9457 documents; of which types they are is in a server's `Profile`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from aiohttp.web import BaseRequest, Response

from muster.http import strict_json
from muster.openapi import JSON, PROBLEM

MAX_QUERY_FIELDS: Final = 16
BODY_SECONDS: Final = 10.0  # in which a body has to come
SAFETY: Final[Mapping[str, str]] = {  # headers of every answer
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


class Problem(Exception):
    """A refusal, as it goes over the wire."""

    def __init__(
        self,
        word: str,
        detail: str,
        *,
        status: int = 0,
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """`status`: where it is not that of the word. `closes`: what is on the connection was not read."""
        super().__init__(detail)
        self.word, self.detail, self.status, self.closes = word, detail, status, closes
        self.headers, self.members = dict(headers or {}), dict(members or {})


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    closes: bool = False


class Profile(NamedTuple):
    """What differs from server to server."""

    prefix: str  # of a problem's type, before its word
    words: Mapping[str, tuple[int, str]]  # of problems: the status that each mostly has, and a title
    headers: Mapping[str, str]  # of every answer
    connections: int  # at a time
    silent_seconds: float  # for a request's line and headers, and between requests

    def document(self, problem: Problem) -> dict[str, Any]:
        status, title = self.words[problem.word]
        own = {"type": f"{self.prefix}{problem.word}", "title": title, "status": problem.status or status}
        own["detail"] = problem.detail
        return {**own, **problem.members, **own}

    def refusal(self, problem: Problem) -> Answer:
        document = self.document(problem)
        status: int = document["status"]
        later = {"Retry-After": "1"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
        return Answer(status, dump(document), PROBLEM, {**later, **problem.headers}, problem.closes)

    def response(self, whole: Answer) -> Response:
        is_empty = whole.status == HTTPStatus.NO_CONTENT
        headers = {**self.headers, **({} if is_empty else {"Content-Type": whole.content_type}), **whole.headers}
        response = Response(status=whole.status, body=None if is_empty else whole.body, headers=headers)
        if whole.closes:
            response.force_close()
        return response


def answer(document: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, dump(document), headers=headers)


def dump(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def later(word: str, detail: str, seconds: int = 1) -> Problem:
    """A refusal of what may go well later."""
    return Problem(word, detail, headers={"Retry-After": str(seconds)})


def not_for(allowed: Iterable[str], *, closes: bool) -> Problem:
    """A refusal of a page's method."""
    allow = ", ".join(allowed)
    return Problem("method", f"that page is there for {allow}", headers={"Allow": allow}, closes=closes)


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


def queries(request: BaseRequest, known: Iterable[str]) -> dict[str, str]:
    """What stands after the question mark. Raises Problem for what isn't known, or stands there twice."""
    text, names, found = request.rel_url.raw_query_string, sorted(known), {}
    if not text:
        return {}
    try:
        fields = parse_qsl(
            text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS
        )
    except ValueError:
        raise Problem("malformed", "what stands after the question mark is not NAME=VALUE&…, in UTF-8") from None
    for name, value in fields:
        if name not in names:
            raise Problem("malformed", f"leave {name[:100]!r} out of the URL: it has {', '.join(names) or 'none'}")
        if name in found:
            raise Problem("malformed", f"{name} stands twice in the URL: give it once")
        found[name] = value
    return found


async def read_body(request: BaseRequest, most: int) -> bytes:
    """The body; empty where there is none. Raises Problem, also where it has more bytes than so."""
    if not request.body_exists:
        return b""
    length = request.content_length
    if length is not None and length > most:
        raise Problem("too-large", f"the body has {length} bytes: send {most} at most", closes=True)
    await _expect(request)
    return await _content(request, most)


async def _expect(request: BaseRequest) -> None:
    """A client that waits for it is told to send the body."""
    expected = request.headers.get("Expect", "")
    if expected.lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer
    elif expected:
        raise Problem("malformed", "the only Expect that is known is 100-continue", status=417, closes=True)


async def _content(request: BaseRequest, most: int) -> bytes:
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


def parse(content: bytes) -> Any:
    """JSON, by the letter. Raises Problem."""
    try:
        return strict_json.parse(content)
    except strict_json.NotJson as error:
        raise Problem("malformed", str(error)) from None

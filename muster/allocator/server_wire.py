# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What comes in, looked at strictly and in bounded memory, and what goes out: answers, and refusals.

Refusals are RFC 9457 documents of type `urn:muster:allocator:WORD`; see WORDS.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from aiohttp.web import BaseRequest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import REFUSALS, Refused

MAX_BODY: Final = 64 * 1024  # bytes
MAX_DEPTH: Final = 16  # brackets in brackets
MAX_QUERY_FIELDS: Final = 16
BODY_SECONDS: Final = 10.0  # in which a body has to come
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
LINES: Final = "application/x-ndjson"
TYPE: Final = "urn:muster:allocator:"

# what this server itself refuses, by word: the status that it mostly has, and a title
OWN_WORDS: Final[Mapping[str, tuple[int, str]]] = {
    "malformed": (400, "The request can't be understood"),
    "unauthenticated": (401, "Nobody knows who asks"),
    "method": (405, "The page is not there for this method"),
    "timeout": (408, "The request did not come in time"),
    "too-large": (413, "The request is too large"),  # 414 of a URL, 431 of headers
    "unsupported": (415, "The body is not plain JSON"),
    "throttled": (429, "Too much at a time"),
    "internal": (500, "The server failed"),
    "overloaded": (503, "Too much is going on"),
    "unavailable": (503, "The cluster can't be asked"),
}
WORDS: Final[Mapping[str, tuple[int, str]]] = {
    **{word: (refusal.status, refusal.title) for word, refusal in REFUSALS.items()},
    **OWN_WORDS,
}

SAFETY: Final[Mapping[str, str]] = {  # headers of every answer
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Server": "muster-allocator",
}

_EXACT: Final = 2**53  # whole numbers below it are exact as floats
# a string (one without an end: up to the end of the text), or a bracket
_STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class Problem(Exception):
    """A refusal, as it goes over the wire."""

    def __init__(
        self,
        word: str,
        detail: str,
        *,
        status: int = 0,
        title: str = "",
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """`closes`: the connection can't be used further, because what is on it was not read."""
        super().__init__(detail)
        self.word, self.detail, self.closes = word, detail, closes
        self.status = status or WORDS[word][0]
        self.title = title or WORDS[word][1]
        self.members = dict(members or {})
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, refused: Refused) -> Problem:
        return cls(refused.word, str(refused), status=refused.status, title=refused.title, members=refused.members)

    @property
    def document(self) -> dict[str, Any]:
        own = {"type": f"{TYPE}{self.word}", "title": self.title, "status": self.status, "detail": self.detail}
        return {**own, **{name: value for name, value in self.members.items() if name not in own}}


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = {}
    closes: bool = False


def answer(document: Any, status: int = 200, **headers: str) -> Answer:
    return Answer(status, dump(document), headers=headers)


def refusal(problem: Problem) -> Answer:
    return Answer(problem.status, dump(problem.document), PROBLEM, problem.headers, problem.closes)


def dump(document: Any) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def later(word: str, detail: str, seconds: int = 1) -> Problem:
    """A refusal of what may go well later."""
    return Problem(word, detail, headers={"Retry-After": str(seconds)})


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
    if not request.body_exists:
        return {}
    headers = request.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported", "the body is compressed: send it as it is", closes=True)
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise Problem("too-large", f"the body has {length} bytes: send {MAX_BODY} at most", closes=True)
    await _expect(request)
    content = await _content(request)
    if not content:
        return {}
    if request.content_type.lower() != JSON or (request.charset or "utf-8").lower() != "utf-8":
        raise Problem("unsupported", f"the body is no JSON by its Content-Type: send it as {JSON}, in UTF-8")
    return parse(content)


async def _expect(request: BaseRequest) -> None:
    """A client that waits for it is told to send the body."""
    expected = request.headers.get("Expect", "")
    if expected.lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # it is no part of the answer
    elif expected:
        raise Problem("malformed", "the only Expect that is known is 100-continue", status=417, closes=True)


async def _content(request: BaseRequest) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                content += chunk
                if len(content) > MAX_BODY:
                    raise Problem("too-large", f"the body is too long: send {MAX_BODY} bytes at most", closes=True)
    except TimeoutError:
        raise Problem("timeout", f"the body did not come within {BODY_SECONDS:g} s", closes=True) from None
    except Problem:
        raise
    except Exception:  # whatever a parser says of bytes that are no body
        raise Problem("malformed", "the body ends too early, or its parts are not what they say", closes=True) from None
    return bytes(content)


def parse(content: bytes) -> Any:
    """JSON, by the letter: no key twice, no NaN, nothing that has no form in UTF-8. Raises Problem."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem("malformed", f"the body is not UTF-8: byte {error.start}") from None
    _check_depth(text)
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_float=_number, parse_constant=_number)
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem("malformed", f"the body is not JSON: {error.msg} at {where}") from None
    except UnicodeEncodeError:
        raise Problem("malformed", "the body has half a surrogate pair: UTF-8 has no form for it") from None
    except (ValueError, RecursionError):  # a number of too many digits
        raise Problem("malformed", "the body has a number that is too large") from None
    return document


def _check_depth(text: str) -> None:
    """Before it is parsed: a parser goes as deep as it is led."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        first = found[0][0]
        depth += 1 if first in "[{" else -1 if first in "]}" else 0
        if depth > MAX_DEPTH:
            raise Problem("malformed", f"the body has brackets in brackets, more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise Problem("malformed", f"the body has {key[:100]!r} twice in one object: which one counts?")
        found[key] = value
    return found


def _number(text: str) -> float:
    """JSON tells no 6.0 from 6: a whole number is one however it is written."""
    number = float(text)
    if not math.isfinite(number):
        raise Problem("malformed", f"the body has {text[:20]}: JSON has no such number, or not as large a one")
    return int(number) if number.is_integer() and abs(number) < _EXACT else number

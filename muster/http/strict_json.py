# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON that comes from outside, read by the letter and in bounded depth."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final

MAX_DEPTH: Final = 16  # brackets in brackets

_EXACT: Final = 2**53  # whole numbers below it are exact as floats
# a string (one without an end: up to the end of the text), or a bracket
_STRING_OR_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class NotJson(ValueError):
    """What is wrong with a body."""


def parse(content: bytes) -> Any:
    """JSON, by the letter: no key twice, no NaN, nothing that has no form in UTF-8. Raises NotJson."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotJson(f"the body is not UTF-8: byte {error.start}") from None
    _check_depth(text)
    try:
        document = json.loads(text, object_pairs_hook=_object, parse_float=_number, parse_constant=_number)
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise NotJson(f"the body is not JSON: {error.msg} at {where}") from None
    except UnicodeEncodeError:
        raise NotJson("the body has half a surrogate pair: UTF-8 has no form for it") from None
    except NotJson:
        raise
    except ValueError:  # a number of too many digits
        raise NotJson("the body has a number that is too large") from None
    return document


def _check_depth(text: str) -> None:
    """Before it is parsed: a parser goes as deep as it is led."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        first = found[0][0]
        depth += 1 if first in "[{" else -1 if first in "]}" else 0
        if depth > MAX_DEPTH:
            raise NotJson(f"the body has brackets in brackets, more than {MAX_DEPTH} deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise NotJson(f"the body has {key[:100]!r} twice in one object: which one counts?")
        found[key] = value
    return found


def _number(text: str) -> float:
    """JSON tells no 6.0 from 6: a whole number is one however it is written."""
    number = float(text)
    if not math.isfinite(number):
        raise NotJson(f"the body has {text[:20]}: JSON has no such number, or not as large a one")
    return int(number) if number.is_integer() and abs(number) < _EXACT else number

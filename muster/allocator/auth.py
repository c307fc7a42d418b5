# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a bearer token stands for: the API server is asked (TokenReview), and what it said holds for a few seconds.

What a caller can rely on:
- A token is accepted only for the audience that was asked for, and only when the API server has said so.
- It is kept as its SHA-256 only, and stands in no message, no log line and no metric.
- `seconds` after the API server refuses a token at the latest, it is refused here: they count from when it was asked.
  (It remembers tokens itself, for some ten seconds.)
- Who asks for a token at the same time waits for one review. Refusals are kept shorter, and apart: whoever sends tokens
  without end drives out none that are good.
"""

from __future__ import annotations

import hashlib
import logging
import re
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, LostAnswer, Object, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import POOL, Caller
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.process import say

TOKEN_REVIEWS: Final = Resource("authentication.k8s.io/v1", "tokenreviews", "TokenReview", namespaced=False)
SECONDS: Final = 10.0  # for which a review holds
REFUSED_SECONDS: Final = 2.0  # the same, of a token that was refused
KEPT: Final = 4096  # tokens, at most
REFUSED_KEPT: Final = 1024
MAX_TOKEN: Final = 8192  # characters
RESULTS: Final = ("accepted", "refused", "failed", "remembered")

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750


class Unauthenticated(MusterError):
    """The token stands for nobody here. The message says why, without it."""


class NotReviewed(MusterError):
    """The API server could not be asked, so nobody knows whom the token stands for."""


class _Review(NamedTuple):
    until: float
    caller: Caller | None  # None: it was refused
    why: str = ""


class Reviewer:
    """Reviews tokens. For several threads."""

    def __init__(
        self,
        api: Api,
        audience: str = "",
        seconds: float = SECONDS,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`audience` is whom a token has to be made for; "" is the API server's own default."""
        self._api, self._audience, self._seconds, self._clock = api, audience, seconds, clock
        self._lock = threading.Lock()
        self._accepted: OrderedDict[bytes, _Review] = OrderedDict()  # the one that was used last is the last
        self._refused: OrderedDict[bytes, _Review] = OrderedDict()
        self._asking: dict[bytes, Future[_Review]] = {}
        self.results: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))

    def review(self, token: str) -> Caller:
        """Whom it stands for. Raises Unauthenticated, NotReviewed."""
        if not 0 < len(token) <= MAX_TOKEN or not _TOKEN.fullmatch(token):
            raise Unauthenticated("that is no bearer token")
        digest = _digest(token)
        with self._lock:
            review = self._remembered(digest)
            asked = self._asking.get(digest)
            is_mine = review is None and asked is None
            if is_mine:
                asked = self._asking[digest] = Future()
        if review is not None:
            return _answer(review)
        assert asked is not None
        if is_mine:
            self._ask(token, digest, asked)
        return _answer(asked.result())

    def remembered(self, token: str) -> Caller | None:
        """Whom it stands for, as far as that is known without asking; None: `review` it. Never waits."""
        with self._lock:
            review = self._remembered(_digest(token))
        return review.caller if review else None

    # ------------------------------------------------------------------------------------------ private

    def _remembered(self, digest: bytes) -> _Review | None:
        for kept in (self._accepted, self._refused):
            review = kept.get(digest)
            if review is None:
                continue
            if self._clock() < review.until:
                kept.move_to_end(digest)
                self.results["remembered"] += 1
                return review
            del kept[digest]
        return None

    def _ask(self, token: str, digest: bytes, asked: Future[_Review]) -> None:
        began = self._clock()
        try:
            review = self._read(self._send(token), began)
        except BaseException as error:
            with self._lock:
                self.results["failed"] += 1
                del self._asking[digest]
            asked.set_exception(error)
            return
        with self._lock:
            self.results["accepted" if review.caller else "refused"] += 1
            kept, bound = (self._accepted, KEPT) if review.caller else (self._refused, REFUSED_KEPT)
            kept[digest] = review
            while len(kept) > bound:
                kept.popitem(last=False)
            del self._asking[digest]
        asked.set_result(review)

    def _send(self, token: str) -> Object:
        spec: Object = {"token": token}
        if self._audience:
            spec["audiences"] = [self._audience]
        question = {"apiVersion": TOKEN_REVIEWS.api_version, "kind": TOKEN_REVIEWS.kind, "metadata": {}, "spec": spec}
        try:
            return self._asked(question).get("status") or {}
        except Exception as error:
            # not its text: nobody knows what stands between us and the API server, and what that repeats
            fields = {"error": type(error).__name__, "status": getattr(error, "status", 0)}
            say(logging.WARNING, "tokens can't be reviewed", **fields, remedy="may it create tokenreviews?")
            raise NotReviewed("the API server can't be asked whom the token stands for") from None

    def _asked(self, question: Object) -> Object:
        """A review changes nothing: where its answer was lost, with a connection that was idle, it is asked again."""
        with suppress(LostAnswer):
            return self._api.create(TOKEN_REVIEWS, question)
        return self._api.create(TOKEN_REVIEWS, question)

    def _read(self, status: Object, began: float) -> _Review:
        user = status.get("user") or {}
        name = user.get("username")
        why = ""
        if status.get("authenticated") is not True:
            why = "the API server does not accept the token: it may have expired, or be made for another audience"
        elif self._audience and self._audience not in (status.get("audiences") or []):
            why = "the token is made for another audience"  # or whoever reviews it does not look at audiences
        elif not isinstance(name, str) or not name or name == POOL:
            why = "the token stands for nobody who could have something here"
        if why:
            return _Review(began + min(self._seconds, REFUSED_SECONDS), None, why)
        groups = tuple(sorted({str(group) for group in user.get("groups") or []}))
        return _Review(began + self._seconds, Caller(str(name), groups))


def bearer(headers: Sequence[str]) -> str:
    """The token of a request, by all its headers Authorization. Raises Unauthenticated."""
    if not headers:
        raise Unauthenticated("send the header Authorization: Bearer TOKEN")
    scheme, _space, token = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not token.strip(" "):
        raise Unauthenticated("send one header Authorization, of the form Bearer TOKEN")
    return token.strip(" ")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _answer(review: _Review) -> Caller:
    if review.caller is None:
        raise Unauthenticated(review.why)
    return review.caller

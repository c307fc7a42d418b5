# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of a KeySpace, from wherever they are: the client library.

    client = Client(Listed(api, "default", "users"))
    client.put("some-key", b"value"); client.get("some-key"); client.delete("some-key")
    for key, value in client.scan("a", "b"): ...

Rules
1. Who has a key is known from the directory, which may be out of date: who is asked in error says so, and often who has
   it. Then that one is asked, or the directory is asked for something newer.
2. A request is tried until its deadline, with pauses that are random up to a bound that doubles (full jitter).
3. A write is sent again only when it certainly did not happen: nobody was reached, or a worker has refused it. When it
   was sent, and the answer was lost, nobody knows: that is `Unknown`, unless the caller says that it may happen twice.
   It then may also happen late: after its call has returned, and over what somebody else has written since.
4. The highest epoch seen of a partition goes along, so that a worker which has been overtaken does not answer.

Full jitter: Brooker, Exponential backoff and jitter, 2015.
"""

from __future__ import annotations

import base64
import enum
import json
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, urlencode

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NameResolutionError, NewConnectionError

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.dstk.directory import Directory, Place
from muster.dstk.workers import read_token

EPOCH, PARTITION, WORKER = "Muster-Epoch", "Muster-Partition", "Muster-Worker"
DEADLINE: Final = 30.0  # seconds for a call
CONNECT_SECONDS: Final = 2.0
ATTEMPT_SECONDS: Final = 25.0  # for one answer: a worker holds a request while its partition changes hands
PAUSES: Final = (0.02, 1.0)  # seconds: the first bound of a pause, and the largest
TOKEN_SECONDS: Final = 5.0  # for which a token is kept
EPOCHS: Final = 4096  # partitions whose epoch is remembered
PAGE: Final = 1000  # keys of one answer of a scan


class NoSuchKey(MusterError):
    """There is nothing under this key."""


class Unserved(MusterError):
    """Nobody served the key before the deadline. A write certainly did not happen."""


class Unknown(MusterError):
    """A write was sent, and the answer was lost: it has happened, will still happen, or never will."""


class Refused(MusterError):
    """A worker refuses what will not go better by asking again: a wrong token, a page that is not there."""


class Fate(enum.Enum):
    """What an answer, or its absence, says of a request."""

    DONE = "done"
    ABSENT = "absent"  # there is no such key
    ELSEWHERE = "elsewhere"  # it did not happen: another worker has it
    NOT_NOW = "not now"  # it did not happen: ask again
    MAYBE = "maybe"  # nobody knows whether it happened
    WRONG = "wrong"  # it did not happen, and never will


def fate_of(status: int, word: str) -> Fate:
    """Of a worker's answer, by its status and the last word of its problem's type."""
    if status in (200, 204):
        return Fate.DONE
    if status == 404 and word == "no-such-key":
        return Fate.ABSENT
    if status in (409, 421):
        return Fate.ELSEWHERE
    if status == 503:
        return Fate.NOT_NOW
    if status == 408 or status >= 500:
        return Fate.MAYBE
    return Fate.WRONG


def fate_of_error(error: Exception) -> Fate:
    """Of what urllib3 raised: only where no connection came about nothing was sent."""
    cause = getattr(error, "reason", error)
    is_unsent = isinstance(cause, NewConnectionError | ConnectTimeoutError | NameResolutionError)
    return Fate.NOT_NOW if is_unsent else Fate.MAYBE


def pause(attempt: int) -> float:
    """Seconds to wait before try number `attempt` + 1."""
    least, most = PAUSES
    return random.uniform(0, min(most, least * 2 ** min(attempt, 16)))


class Answer(NamedTuple):
    """A worker's. `word`: the last one of a problem's type."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    word: str = ""
    detail: str = ""
    address: str = ""  # where a worker says that the key is


class Page(NamedTuple):
    """A part of a scan: keys with values, and where the part ends; `following` None: it is over."""

    items: list[tuple[str, bytes]]
    following: tuple[str, str] | None  # (start, after) of the next page


class Client:
    """For several threads. All calls raise MusterError; see the classes above."""

    def __init__(
        self,
        directory: Directory,
        *,
        token_file: Path | None = None,
        timeout: float = DEADLINE,
        connections: int = 16,
        attempt_seconds: float = ATTEMPT_SECONDS,
    ) -> None:
        """`timeout`: seconds for one call with all its tries. So many `connections` to a worker are kept."""
        self._directory, self._timeout, self._attempt_seconds = directory, timeout, attempt_seconds
        self._token_file = token_file
        self._token = ("", 0.0)
        self._pools = urllib3.PoolManager(num_pools=256, maxsize=connections, retries=False)
        self._epochs: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()
        self.attempts = 0

    def close(self) -> None:
        self._pools.clear()

    def get(self, key: str, *, timeout: float | None = None) -> bytes:
        """What is under the key. Raises NoSuchKey, Unserved."""
        return self._ask("GET", key, None, f"/v1/keys/{quote(key, safe='')}", timeout, True).body

    def put(self, key: str, value: bytes, *, retry_unknown: bool = False, timeout: float | None = None) -> None:
        """Have this value under the key; it is durable then. Raises Unserved, Unknown."""
        self._ask("PUT", key, value, f"/v1/keys/{quote(key, safe='')}", timeout, retry_unknown)

    def delete(self, key: str, *, retry_unknown: bool = False, timeout: float | None = None) -> None:
        """Have nothing under the key (any more). Raises Unserved, Unknown."""
        self._ask("DELETE", key, None, f"/v1/keys/{quote(key, safe='')}", timeout, retry_unknown)

    def scan(self, start: str = "", end: str = "", *, timeout: float | None = None) -> Iterator[tuple[str, bytes]]:
        """Keys from `start` up to `end`, with values, in order; each page is of one moment. `timeout`: for a page.

        It goes on behind the last key, whatever has become of the partitions in between. Raises Unserved.
        """
        following: tuple[str, str] | None = (start, "")
        while following:
            page = self.page(*following, end, timeout=timeout)
            yield from page.items
            following = page.following

    def page(self, start: str, after: str, end: str, *, limit: int = PAGE, timeout: float | None = None) -> Page:
        """One page of a scan: what one worker has of one partition, behind `after`. Raises Unserved."""
        query = urlencode({"start": start, "end": end, "after": after, "limit": limit})
        answer = self._ask("GET", after or start, None, f"/v1/keys?{query}", timeout, True)
        return parse_page(answer.body, start, end)

    # ------------------------------------------------------------------------------------------ private

    def _ask(
        self, method: str, key: str, body: bytes | None, path: str, timeout: float | None, may_repeat: bool
    ) -> Answer:
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        why, hint, attempt, is_open = "it was not asked for", "", 0, False
        while True:
            began = time.monotonic()
            place = self._find(key)
            address = hint or (place.address if place else "")
            if address:
                answer, fate = self._send(method, address, path, body, place, deadline)
                if fate is Fate.DONE:
                    self._learn(answer)
                    return answer
                if fate is Fate.ABSENT:
                    self._learn(answer)
                    raise NoSuchKey(f"there is nothing under {key!r}")
                if fate is Fate.WRONG:
                    raise _wrong(answer, key)
                why = f"{answer.status or 'no answer'}: {answer.detail}"
                if fate is Fate.MAYBE and not may_repeat:
                    raise Unknown(f"nobody knows whether {method} of {key!r} has happened or will: {why}")
                is_open = is_open or (fate is Fate.MAYBE and method != "GET")
                is_new = bool(answer.address) and answer.address != hint
                hint = answer.address if fate is Fate.ELSEWHERE and is_new and not hint else ""
                if hint:
                    continue  # who has it was told
            else:
                why = "no Partition has it" if place is None else f"worker {place.worker or 'nobody'} is not up"
            left = deadline - time.monotonic()
            if left <= 0 and is_open:
                raise Unknown(f"nobody knows whether {method} of {key!r} has happened or will: {why}")
            if left <= 0:
                raise Unserved(f"{key!r} was not served within the deadline: {why}")
            time.sleep(min(left, pause(attempt)))
            attempt += 1
            self._refresh(began, deadline)

    def _find(self, key: str) -> Place | None:
        try:
            return self._directory.find(key)
        except Malformed:
            raise
        except MusterError:  # the API server may be away: what is known goes on being used
            return None

    def _refresh(self, seen: float, deadline: float) -> None:
        try:
            self._directory.refresh(seen, deadline)
        except MusterError:
            return

    def _send(
        self, method: str, address: str, path: str, body: bytes | None, place: Place | None, deadline: float
    ) -> tuple[Answer, Fate]:
        self.attempts += 1
        seconds = max(0.05, min(self._attempt_seconds, deadline - time.monotonic()))
        try:
            answer = self._pools.request(
                method,
                address + path,
                body=body,
                headers=self._headers(place),
                timeout=urllib3.Timeout(connect=min(CONNECT_SECONDS, seconds), read=seconds),
                retries=False,
                redirect=False,
            )
        except (HTTPError, OSError) as error:
            return Answer(0, b"", {}, detail=f"{type(error).__name__} of {address}"), fate_of_error(error)
        word, detail, other = problem(answer.data) if answer.status >= 400 else ("", "", "")
        found = Answer(answer.status, answer.data, answer.headers, word, detail, other)
        return found, fate_of(answer.status, word)

    def _headers(self, place: Place | None) -> dict[str, str]:
        headers = {}
        if place is not None:
            headers[EPOCH] = str(max(place.epoch, self._epochs.get(place.partition, 0)))
        if self._token_file is not None:
            token, read = self._token
            if time.monotonic() - read > TOKEN_SECONDS or not token:
                token = read_token(self._token_file)
                self._token = token, time.monotonic()
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _learn(self, answer: Answer) -> None:
        partition, epoch = unquote(answer.headers.get(PARTITION, "")), answer.headers.get(EPOCH, "")
        if not partition or not epoch.isdecimal():
            return
        with self._lock:
            self._epochs[partition] = max(int(epoch), self._epochs.get(partition, 0))
            self._epochs.move_to_end(partition)
            if len(self._epochs) > EPOCHS:
                self._epochs.popitem(last=False)


def problem(body: bytes) -> tuple[str, str, str]:
    """Of a problem document: the last word of its type, its detail, and an address, if it names one."""
    try:
        document = json.loads(body)
        word = str(document.get("type", "")).rpartition(":")[2]
        address = str(document.get("address") or "").rstrip("/")
        return word, str(document.get("detail", ""))[:500], address if address.startswith("http") else ""
    except (ValueError, AttributeError):
        return "", body[:200].decode("utf-8", "replace"), ""


def parse_page(body: bytes, start: str, end: str) -> Page:
    """A page of a scan from `start` to `end`. Raises Malformed."""
    try:
        document = json.loads(body)
        items = [(each["key"], base64.b64decode(each["value"])) for each in document["items"]]
        following, bound = document["next"], document["range"]["end"]
    except (ValueError, KeyError, TypeError) as error:
        raise Malformed("a page of keys", body[:200], "see the worker's /openapi.json") from error
    if following is not None:
        return Page(items, (start, items[-1][0] if items else following))
    return Page(items, None if not bound or (end and bound >= end) else (bound, ""))


def _wrong(answer: Answer, key: str) -> MusterError:
    if answer.status == 400:
        return Malformed("key", key, answer.detail or "see the KeySpace")
    return Refused(f"{answer.status} {answer.word}: {answer.detail}")

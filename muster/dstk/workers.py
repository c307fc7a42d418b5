# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others know of the workers of key spaces: their Leases; and a client of what a worker serves.

A worker is lost for who watches its Lease when that was released, or has not changed for its duration and a second on
the watcher's own monotonic clock; also when it is missing for so long. What a cache shows may be old, and a worker that
renews would look silent then: so `is_lost` asks the store, once the cache says that it may be so.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import urllib3

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES, Api, NotFound, Object
from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Seen, Term, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import Copy, from_json
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.dstk.worker_lease import ADDRESS, SPACE, lease_name
from muster.frame.beside import Beside
from muster.frame.cache import Cache

OBSERVER_SECONDS: Final = 1.0  # that a Lease has to be unchanged beyond its duration
ANSWER_LIMIT: Final = 64 * 1024 * 1024  # bytes: a worker may have thousands of copies
CALL_SECONDS: Final = 2.0  # for one call, where the fence's budget leaves so much


class Unreachable(MusterError):
    """Nobody knows whether the worker has got the call."""


class Refused(MusterError):
    """The worker has got the call, and will not do it; `word` says why."""

    def __init__(self, status: int, word: str, detail: str) -> None:
        super().__init__(f"{status} {word}: {detail}")
        self.status, self.word = status, word


class Standing(NamedTuple):
    """What is known of a worker. `silent`: seconds for which it has been lost, as the cache has it; None: it lives."""

    name: str
    address: str
    is_leaving: bool
    silent: float | None


class Known(NamedTuple):
    """A Lease as it was seen last."""

    seen: Seen
    address: str
    over_since: float | None  # on the clock

    @property
    def is_there(self) -> bool:
        return bool(self.seen.term.lease_uid)


# ---------------------------------------------------------------------------------------------- their Leases


class Workers(Beside):
    """The Leases of all workers of one namespace, or (None) of all. For several threads.

    As a watch beside a controller's, it tells what `concerns` makes of the key of a Lease that has changed in anything
    but its time.
    """

    def __init__(
        self,
        api: Api,
        namespace: str | None = None,
        *,
        concerned: Callable[[str, str, str], Iterable[str]] = lambda namespace, space, worker: (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`concerned` says which keys of the controller's objects a worker's change concerns."""
        super().__init__(api, LEASES, namespace)
        self._clock, self._concerned = clock, concerned
        self._known: dict[tuple[str, str], Known] = {}  # by namespace and name of the Lease
        self._lock = threading.Lock()
        self._changed: Callable[[str], None] = lambda key: None
        self.cache = Cache(api, LEASES, namespace, label_selector=SPACE, on_change=self._on_change)

    def start(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self.cache.start()

    def stop(self) -> None:
        self.cache.stop()

    @property
    def trouble(self) -> str | None:
        return self.cache.trouble

    @trouble.setter
    def trouble(self, value: str | None) -> None:
        """It is the cache's alone."""

    # ------------------------------------------------------------------------------------------ what is known

    def names(self, namespace: str, space: str) -> list[str]:
        """All workers of a key space that have a Lease, or had one since this process began."""
        head = f"{space}."
        with self._lock:
            found = [name for at, name in self._known if at == namespace and name.startswith(head)]
        return sorted(name[len(head) :] for name in found)

    def standing(self, namespace: str, space: str, worker: str) -> Standing:
        """What the cache says of it."""
        now = self._clock()
        with self._lock:
            known = self._look(namespace, lease_name(space, worker), now)
            term = known.seen.term
            silent = None if known.over_since is None else now - known.over_since
            return Standing(worker, known.address, term.is_leaving, silent)

    def address(self, namespace: str, space: str, worker: str) -> str:
        """Where it is; "" where it has not said so."""
        return self.standing(namespace, space, worker).address

    def is_lost(self, namespace: str, space: str, worker: str) -> bool:
        """Whether its Lease is over now, by the store. Raises what the API server says."""
        if self.standing(namespace, space, worker).silent is None:
            return False
        name = lease_name(space, worker)
        try:
            self._note(namespace, name, self._api.get(LEASES, name, namespace))
        except NotFound:
            self._note(namespace, name, None)
        return self.standing(namespace, space, worker).silent is not None

    def forget(self, namespace: str, space: str, worker: str) -> None:
        """One without a Lease, that nothing names any more."""
        key = namespace, lease_name(space, worker)
        with self._lock:
            if key in self._known and not self._known[key].is_there:
                del self._known[key]

    # ------------------------------------------------------------------------------------------ private

    def _on_change(self, key: str) -> None:
        namespace, _slash, name = key.partition("/")
        before = self._known.get((namespace, name))
        after = self._note(namespace, name, self.cache.by_key(key))
        if before is None or _matters(before) != _matters(after):
            space, _dot, worker = name.partition(".")
            for concerned in self._concerned(namespace, space, worker):
                self._changed(concerned)

    def _note(self, namespace: str, name: str, lease: Object | None) -> Known:
        now = self._clock()
        with self._lock:
            before = self._known.get((namespace, name))
            address = ((lease or {}).get("metadata") or {}).get("annotations", {}).get(ADDRESS)
            seconds = before.seen.term.seconds if before else Timing().lease
            term = _term(lease) if lease else election.missing(Timing(seconds))
            seen = election.see(before.seen if before else None, term, now)
            known = Known(seen, address or (before.address if before else ""), before.over_since if before else None)
            self._known[namespace, name] = known
            return self._look(namespace, name, now)

    def _look(self, namespace: str, name: str, now: float) -> Known:
        """As it is now; with the lock held."""
        known = self._known.get((namespace, name))
        if known is None:
            known = Known(Seen(election.missing(Timing()), now), "", None)
        over = _is_over(known.seen, now)
        since = known.over_since if known.over_since is not None else now
        known = self._known[namespace, name] = known._replace(over_since=since if over else None)
        return known


def _term(lease: Object) -> Term:
    try:
        return election.parse(lease)
    except Malformed:  # somebody has written a fence that is none; workers have none at all
        kept = {name: text for name, text in lease["metadata"]["annotations"].items() if name != election.FENCE}
        return election.parse({**lease, "metadata": {**lease["metadata"], "annotations": kept}})


def _is_over(seen: Seen, now: float) -> bool:
    """A Lease that was held, and is free, was given back by its holder; one that nobody has held says nothing."""
    term = seen.term
    if term.lease_uid and not term.holder and term.renewed:
        return True
    return seen.unchanged(now) >= term.seconds + OBSERVER_SECONDS


def _matters(known: Known) -> tuple[Any, ...]:
    term = known.seen.term
    return term.lease_uid, term.holder, term.is_leaving, known.address, known.over_since is None


# ---------------------------------------------------------------------------------------------- what they serve


class WorkerClient:
    """Calls workers; safe for several threads. `token_file` is read for each call, where one is given."""

    def __init__(self, token_file: Path | None = None, *, connections: int = 8) -> None:
        self._token_file = token_file
        self._pools = urllib3.PoolManager(num_pools=256, maxsize=connections, retries=False)

    def copies(
        self, worker: str, address: str, partitions: Iterable[str] = (), *, timeout: float = CALL_SECONDS
    ) -> dict[str, Copy]:
        """What it has of these partitions, or of all. Raises Unreachable, also where another worker answers."""
        wanted = set(partitions)
        query = f"?{urlencode({'partition': next(iter(wanted))})}" if len(wanted) == 1 else ""  # it takes one
        status, document = self._request("GET", address, f"/v1/worker{query}", None, timeout)
        if status != 200 or not isinstance(document, dict) or document.get("worker") != worker:
            raise Unreachable(f"{worker} at {address or 'no address'} answers {status}, or is another worker")
        try:
            found = [from_json(each) for each in document["copies"]]
        except (KeyError, TypeError, Malformed) as error:
            raise Unreachable(f"{worker} does not say what it has: {error}") from error
        return {copy.partition: copy for copy in found if not wanted or copy.partition in wanted}

    def call(
        self, worker: str, address: str, verb: str, body: Mapping[str, Any], *, timeout: float = CALL_SECONDS
    ) -> Copy | None:
        """Have it do this; its copy after that, None: it has none. Raises Refused and Unreachable."""
        status, document = self._request("POST", address, f"/v1/control/{verb}", body, timeout)
        if status in (400, 404, 409):
            told = document if isinstance(document, dict) else {}
            word = str(told.get("type", "")).rpartition(":")[2] or str(told.get("title", "refused"))
            raise Refused(status, word, str(told.get("detail", "")))
        if status != 200 or not isinstance(document, dict):
            raise Unreachable(f"{worker} answers {status} to {verb}")
        try:
            return from_json(document["copy"]) if document.get("copy") else None
        except Malformed as error:
            raise Unreachable(f"{worker} answers {verb} with what is no copy: {error}") from error

    def close(self) -> None:
        self._pools.clear()

    def _request(
        self, method: str, address: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> tuple[int, Any]:
        if not address.startswith(("http://", "https://")):
            raise Unreachable(f"a worker has the address {address!r}, which is none")
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token_file is not None:
            headers["Authorization"] = f"Bearer {read_token(self._token_file)}"
        deadline = time.monotonic() + timeout
        try:
            answer = self._pools.request(
                method,
                address.rstrip("/") + path,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            content = _content(answer, deadline)
            return answer.status, json.loads(content) if content else None
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise Unreachable(f"{method} {path.partition('?')[0]} at {address}: {error}") from error


def _content(answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    content = bytearray()
    for chunk in answer.stream(65536):
        content += chunk
        if len(content) > ANSWER_LIMIT or time.monotonic() > deadline:
            answer.close()
            raise urllib3.exceptions.HTTPError("the answer is too long, or did not end in time")
    answer.release_conn()
    return bytes(content)


def read_token(path: Path) -> str:
    """Raises Malformed."""
    try:
        return path.read_text().strip()
    except (OSError, ValueError) as error:
        raise Malformed("token-file", str(path), f"give a file that can be read ({error})") from error


def call_seconds(fence_seconds: float) -> float:
    """How long one call may take, so that several fit into the time in which nobody serves."""
    return min(CALL_SECONDS, max(0.2, fence_seconds / 3))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A light client of the Kubernetes API: JSON in and out over urllib3.

What a caller can rely on:
- A request goes out once. A read may be sent again when its connection was lost or the server said "later"; a write
  never: `Unreachable` says that it was not sent, `LostAnswer` that nobody knows whether it was applied.
- A read is a quorum read. A full PUT and a delete carry what they were decided on (resourceVersion, uid).
- `follow` is a list and a watch for ever: it outlives disconnects, silence, compaction (410) and API server restarts.
- Sizes and times are bounded: see the constants here and in client/wire.py.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode

from ansible_collections.muster.coordination.plugins.module_utils.client.answers import (
    CONFIGMAPS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    NAMESPACES,
    PODS,
    SELF_SUBJECT_REVIEWS,
    STATEFUL_SETS,
    AlreadyExists,
    ApiError,
    Asked,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    LostAnswer,
    NotFound,
    Object,
    Resource,
    ServerError,
    Throttled,
    Unauthorized,
    Unreachable,
    status_error,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.wire import Interrupts, Wire, lines
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials, CredentialsError
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

if TYPE_CHECKING:
    import socket

    from urllib3.response import BaseHTTPResponse

    from ansible_collections.muster.coordination.plugins.module_utils.client.wire import Answer

STALL_SECONDS: Final = 5.0  # a watch is silent for its time-out plus this: it hangs
BACKOFF: Final = (0.05, 5.0)  # seconds: first and largest bound of the full-jitter delay of follow
RELISTS: Final = 2  # a paged list that expires this often is asked for in one piece

__all__ = [
    "CONFIGMAPS",
    "DEPLOYMENTS",
    "EVENTS",
    "LEASES",
    "NAMESPACES",
    "PODS",
    "SELF_SUBJECT_REVIEWS",
    "STATEFUL_SETS",
    "AlreadyExists",
    "Api",
    "ApiError",
    "Change",
    "Conflict",
    "Credentials",
    "Forbidden",
    "Gone",
    "Invalid",
    "Listing",
    "LostAnswer",
    "NotFound",
    "Object",
    "Paged",
    "Put",
    "Recovered",
    "Removed",
    "Resource",
    "ServerError",
    "Snapshot",
    "Throttled",
    "Trouble",
    "Unauthorized",
    "Unreachable",
]


class Listing(NamedTuple):
    """All items of a list, and the version at which it was whole (a watch goes on from there)."""

    items: list[Object]
    resource_version: str


class Paged(NamedTuple):
    """A part of a list; `following` says where the next begins, and is empty at the end."""

    items: list[Object]
    following: str


class Snapshot(NamedTuple):
    """Everything that there is now; what is not in it is gone."""

    items: list[Object]
    resource_version: str


class Put(NamedTuple):
    """An object was created or changed."""

    obj: Object


class Removed(NamedTuple):
    """An object was deleted; `obj` is its last state."""

    obj: Object


class Trouble(NamedTuple):
    """The connection is bad for now; what was told before may be out of date. Follow goes on by itself."""

    error: MusterError


class Recovered(NamedTuple):
    """The connection stands again after Trouble, and nothing was missed."""


Change = Snapshot | Put | Removed | Trouble | Recovered  # pylint: disable=unsupported-binary-operation
Shrink = Callable[[Object], Object]


# ---------------------------------------------------------------------------------------------------------------------
# The client


class Api:
    """A client of one API server; safe for several threads.

    `timeout` bounds one request in seconds, connecting, waiting and reading together; a watch has its own. So many
    `connections` are kept open between requests; further ones are closed after theirs.
    """

    def __init__(
        self, credentials: Credentials, *, timeout: float = 10.0, user_agent: str = "muster", connections: int = 4
    ) -> None:
        self.credentials = credentials
        self.timeout = timeout
        self._wire = Wire(credentials, user_agent, connections)
        self._interrupts = Interrupts()
        self._closed = threading.Event()

    @property
    def namespace(self) -> str | None:
        """The namespace that the credentials name, if they name one."""
        return self.credentials.namespace

    def get(self, resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> Object:
        """One object, as the quorum knows it. Raises NotFound."""
        return self._read(Asked("get", resource, namespace, name, subresource))

    def ask_pod(self, name: str, namespace: str, port: str, path: str) -> Object:
        """GET a page of a Pod, a JSON object, by way of the API server. Raises what went wrong on either way."""
        asked = Asked("get", PODS, namespace, f"{name}:{port}", "proxy")
        return self._exchange("GET", asked, f"{asked.path()}{path}", time.monotonic() + self.timeout)

    def page(
        self, resource: Resource, namespace: str, *, label_selector: str = "", limit: int = 100, after: str = ""
    ) -> Paged:
        """At most `limit` objects, from where the last page ended: `after` is its `following`.

        Raises Gone when the server has forgotten that list (it keeps five minutes).
        """
        query = {**_selection(label_selector, ""), "limit": str(limit), **({"continue": after} if after else {})}
        document = self._read(Asked("list", resource, namespace), query)
        items = [
            {"apiVersion": resource.api_version, "kind": resource.kind, **item} for item in document.get("items") or ()
        ]
        return Paged(items, document["metadata"].get("continue") or "")

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        limit: int = 500,
        at: str = "",
    ) -> Listing:
        """All objects of a kind (namespace None: of all namespaces), fetched in pages of `limit`.

        `metadata_only` fetches PartialObjectMetadata, without spec and status. `at` is the version of which exactly the
        list shall be, not the newest; raises Gone when the server has forgotten it (etcd keeps five minutes).
        """
        query = _selection(label_selector, field_selector)
        asked = Asked("list", resource, namespace)
        if at:
            return self._pages(asked, query, metadata_only, limit, at)
        return self._list(asked, query, metadata_only, limit)

    def _list(
        self,
        asked: Asked,
        query: Mapping[str, str],
        metadata_only: bool,
        limit: int = 500,
        shrink: Shrink | None = None,
    ) -> Listing:
        for attempt in range(RELISTS + 1):
            try:
                return self._pages(asked, query, metadata_only, limit if attempt < RELISTS else 0, shrink=shrink)
            except Gone:
                if attempt == RELISTS:
                    raise
        raise AssertionError("unreachable")

    def _pages(
        self,
        asked: Asked,
        query: Mapping[str, str],
        metadata_only: bool,
        limit: int,
        at: str = "",
        shrink: Shrink | None = None,
    ) -> Listing:
        items: list[Object] = []
        following = ""
        exactly = {"resourceVersion": at, "resourceVersionMatch": "Exact" if at else ""}
        while True:
            page = {**query, "limit": str(limit or ""), "continue": following, **({} if following else exactly)}
            wanted = {name: value for name, value in page.items() if value}
            document = self._read(asked, wanted, _accept("List") if metadata_only else "")
            for item in document.get("items") or ():
                item.setdefault("apiVersion", asked.resource.api_version)
                item.setdefault("kind", asked.resource.kind)
                items.append(shrink(item) if shrink else item)
            following = document["metadata"].get("continue") or ""
            if not following:
                return Listing(items, document["metadata"].get("resourceVersion", ""))

    def create(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        """POST; the deterministic name is the claim. Raises AlreadyExists; NotFound when the namespace is missing.

        `dry_run`: the server decides as if, and answers what it would have stored.
        """
        namespace = obj["metadata"].get("namespace") if resource.namespaced else None
        if resource.namespaced and not namespace:
            raise ValueError(f"a {resource.kind} to be created has to carry metadata.namespace")
        asked = Asked("create", resource, namespace, obj.get("metadata", {}).get("name", ""))
        return self._write("POST", asked, obj, asked.collection() + ("?dryRun=All" if dry_run else ""))

    def replace(self, resource: Resource, obj: Object, subresource: str = "", *, dry_run: bool = False) -> Object:
        """PUT of the whole object, if it is still the one that was read. Raises Conflict, NotFound.

        `dry_run`: the server decides as if, and answers what it would have stored.
        """
        metadata = obj["metadata"]
        for field in ("name", "resourceVersion", "uid"):
            if not metadata.get(field):
                raise ValueError(f"a {resource.kind} to be replaced has to carry metadata.{field} as it was read")
        asked = Asked("update", resource, metadata.get("namespace"), metadata["name"], subresource)
        return self._write("PUT", asked, obj, f"{asked.path()}?dryRun=All" if dry_run else "")

    def patch(self, resource: Resource, changes: Object) -> Object:
        """JSON merge patch of only what `changes` holds, if the object is still the one of that metadata.uid.

        For fields that have one writer: it is a compare-and-swap only with metadata.resourceVersion, too. Raises
        Conflict (another uid), NotFound.
        """
        metadata = changes["metadata"]
        for field in ("name", "uid"):
            if not metadata.get(field):
                raise ValueError(f"a patch of a {resource.kind} has to carry metadata.{field} as it was read")
        try:
            return self._write("PATCH", Asked("patch", resource, metadata.get("namespace"), metadata["name"]), changes)
        except Invalid as error:
            if "metadata.uid" not in error.message:
                raise
            raise Conflict(409, "Conflict", f"there is another one of this name, not {metadata['uid']}") from error

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str = "",
    ) -> Object:
        """DELETE, if uid and resourceVersion are still these. Raises NotFound, Conflict.

        `propagation`: what becomes of what it owns (Foreground: that goes first), where it is not the server's default.
        """
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if propagation:
            options["propagationPolicy"] = propagation
        options["preconditions"] = {field: value for field, value in preconditions.items() if value}
        return self._write("DELETE", Asked("delete", resource, namespace, name), options)

    def evict(self, name: str, namespace: str, *, uid: str) -> Object:
        """Have a Pod deleted, if it is still this one and its PodDisruptionBudgets allow it.

        Raises Throttled where they do not allow it now, NotFound, Conflict (another uid).
        """
        eviction: Object = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        }
        return self._write("POST", Asked("create", PODS, namespace, name, "eviction"), eviction)

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        timeout: float = 55.0,
    ) -> Iterator[tuple[str, Object]]:
        """(type, object) of every change after `resource_version`, until the server ends it after `timeout` seconds.

        Types: ADDED, MODIFIED, DELETED, BOOKMARK (only its resourceVersion counts). Raises Gone, LostAnswer, …
        """
        asked = Asked("watch", resource, namespace)
        query = _selection(label_selector, field_selector)
        response, sock = self._open_watch(asked, query, resource_version, metadata_only, timeout)
        return self._events(response, sock, asked, None)

    def follow(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        shrink: Shrink | None = None,
        stop: threading.Event | None = None,
        watch_timeout: float = 55.0,
    ) -> Iterator[Change]:
        """List, then watch, for ever: a Snapshot, then Put and Removed; a new Snapshot whenever the thread was lost.

        Ends only when `stop` is set (within a fraction of a second, also in the middle of a read) or the Api is closed.
        A vanished peer is noticed after 25 s (TCP keep-alive), a silent one `watch_timeout` + 5 s after it fell silent.
        Raises what only the user can mend (Unauthorized, Forbidden, an unknown kind, a bad selector, credentials), and
        only until the first watch stands; all else, and these afterwards, is told as Trouble and tried again after
        0.05 to 5 s (full jitter), until Recovered.
        `shrink` makes of each object, as it comes, what is told in its place: a long list is never there as a whole.
        """
        selector = ",".join(part for part in (field_selector, f"metadata.name={name}" if name else "") if part)
        query = _selection(label_selector, selector)
        stop = stop or self._closed
        listed = Asked("list", resource, namespace, name or "")
        watched = listed._replace(verb="watch")
        version, settled, troubled, failures = "", False, False, 0
        while not (stop.is_set() or self._closed.is_set()):
            began = time.monotonic()
            try:
                if not version:
                    with self._interrupts.guard(stop):
                        listing = self._list(listed, query, metadata_only, shrink=shrink)
                    version = listing.resource_version
                    yield Snapshot(*listing)
                    del listing  # it may be long, and the watch lasts
                with self._interrupts.guard(stop):
                    response, sock = self._open_watch(watched, query, version, metadata_only, watch_timeout)
                settled = True
                if troubled:
                    troubled = False
                    yield Recovered()
                for kind, obj in self._events(response, sock, watched, stop):
                    failures = 0
                    version = obj["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        told = shrink(obj) if shrink else obj
                        yield Removed(told) if kind == "DELETED" else Put(told)
                failures = 0 if time.monotonic() - began >= 1.0 else failures + 1  # a server that hangs up at once
            except Gone:
                version = ""
                failures += 1
            except (ApiError, CredentialsError) as error:
                if stop.is_set() or self._closed.is_set():
                    return
                if not settled and _is_mistake(error):
                    raise
                failures += 1
                troubled = True
                yield Trouble(error)
            if failures:
                stop.wait(random.random() * min(BACKOFF[1], BACKOFF[0] * 2 ** min(failures - 1, 16)))

    def close(self) -> None:
        """Close the connections; every follow of this client ends."""
        self._closed.set()
        self._interrupts.shut_all()
        self._wire.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _read(self, asked: Asked, query: Mapping[str, str] | None = None, accept: str = "") -> Object:
        """GET, repeated within the time-out when a connection was lost or the server said "later"."""
        deadline = time.monotonic() + self.timeout
        path = (asked.path() if query is None else asked.collection()) + (f"?{urlencode(query)}" if query else "")
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._exchange("GET", asked, path, deadline, accept=accept)
            except LostAnswer:
                if attempt > 1 or time.monotonic() >= deadline:
                    raise
            except Throttled as error:
                delay = error.retry_after or 1.0
                if time.monotonic() + delay >= deadline:
                    raise
                time.sleep(delay)

    def _write(self, method: str, asked: Asked, body: Object, path: str = "") -> Object:
        deadline = time.monotonic() + self.timeout
        return self._exchange(method, asked, path or asked.path(), deadline, body=json.dumps(body).encode())

    def _exchange(
        self, method: str, asked: Asked, path: str, deadline: float, *, body: bytes | None = None, accept: str = ""
    ) -> Object:
        read_timeout = max(0.1, deadline - time.monotonic())
        response, _sock = self._wire.open(method, asked, path, read_timeout, body=body, accept=accept)
        content = self._wire.content(response, asked, deadline)
        try:
            document = json.loads(content, object_hook=_slim if accept else None)
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
        error = LostAnswer if method != "GET" else ApiError  # a write: something else answered in the server's place
        status = 0 if method != "GET" else response.status
        raise error(
            status,
            "NotJSON",
            f"{len(content)} bytes that are not a JSON object",
            asked=asked,
            remedy=f"Is {self.credentials.server} an API server, and no proxy or login page in between?",
        )

    # -- watching -----------------------------------------------------------------------------------------------------

    def _open_watch(
        self, asked: Asked, query: Mapping[str, str], version: str, metadata_only: bool, timeout: float
    ) -> Answer:
        seconds = max(1, round(timeout))
        whole = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        path = f"{asked.collection()}?{urlencode(whole)}"
        return self._wire.open("GET", asked, path, seconds + STALL_SECONDS, accept=_accept() if metadata_only else "")

    def _events(
        self, response: BaseHTTPResponse, sock: socket.socket | None, asked: Asked, stop: threading.Event | None
    ) -> Iterator[tuple[str, Object]]:
        """The events of an open watch. Ends when the server ends it or `stop` is set."""
        from urllib3.exceptions import HTTPError

        stop = stop or self._closed
        try:
            with self._interrupts.guard(stop, sock):
                for line in lines(response):
                    if stop.is_set() or self._closed.is_set():
                        return
                    kind, obj = _event(line)
                    if kind == "ERROR":
                        raise status_error(obj.get("code", 500), obj, asked, self.credentials)
                    yield kind, obj
        except (HTTPError, OSError) as error:
            if not (stop.is_set() or self._closed.is_set()):
                raise self._wire.no_answer(error, asked, sent=True) from error
        except ValueError as error:
            message = f"the watch sent something else than events: {error}"
            raise LostAnswer(0, "Garbled", message, asked=asked) from error
        finally:
            response.close()


def _event(line: bytes) -> tuple[str, Object]:
    """Type and object of one line of a watch. Raises ValueError."""
    event = json.loads(line)
    try:
        kind, obj = event["type"], event["object"]
        if kind != "ERROR" and not obj["metadata"]["resourceVersion"]:
            raise ValueError("an object without a version")
        return kind, {**obj}
    except (KeyError, TypeError) as error:
        raise ValueError(f"no event: {error!r}") from error


def _selection(label_selector: str, field_selector: str) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value}


def _accept(suffix: str = "") -> str:
    return f"application/json;as=PartialObjectMetadata{suffix};g=meta.k8s.io;v=v1"


def _slim(obj: Object) -> Object:
    """Most of the metadata is who wrote which field: dropped while it is parsed, or a long list would cost memory."""
    obj.pop("managedFields", None)
    return obj


def _is_mistake(error: MusterError) -> bool:
    """Is it something that only the user can mend?"""
    if not isinstance(error, ApiError):
        return True  # credentials
    return 300 <= error.status < 500 and error.status not in (408, 410, 429)

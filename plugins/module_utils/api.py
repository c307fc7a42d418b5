# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A light client of the Kubernetes API: JSON in and out over urllib3.

What a caller can rely on:
- A request goes out once. A read may be sent again when its connection was lost or the server said "later"; a write
  never: `Unreachable` says that it was not sent, `LostAnswer` that nobody knows whether it was applied.
- A read is a quorum read. A full PUT and a delete carry what they were decided on (resourceVersion, uid).
- `follow` is a list and a watch for ever: it outlives disconnects, silence, compaction (410) and API server restarts.
- Sizes and times are bounded: see the constants.
"""

from __future__ import annotations

import functools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from ansible_collections.muster.coordination.plugins.module_utils.credentials import (
    Credentials,
    CredentialsError,
    MissingLibrary,
    Tls,
    ssl_context,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

Object = dict[str, Any]
Headers = list[tuple[str, str]]

ANSWER_LIMIT: Final = 64 * 1024 * 1024  # bytes of one answer; a larger one is an error
LINE_LIMIT: Final = 16 * 1024 * 1024  # bytes of one watch event; etcd refuses objects far below this
CONNECT_SECONDS: Final = 5.0
STALL_SECONDS: Final = 5.0  # a watch is silent for its time-out plus this: it hangs
KEEPALIVE: Final = (10, 5, 3)  # idle s, interval s, probes: a peer that vanished is noticed within 25 s
BACKOFF: Final = (0.05, 5.0)  # seconds: first and largest bound of the full-jitter delay of follow
RELISTS: Final = 2  # a paged list that expires this often is asked for in one piece


class Resource(NamedTuple):
    """A kind of object, as the API's paths name it."""

    api_version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """The API group as RBAC names it; "" is the core group."""
        return self.api_version.rpartition("/")[0]


CONFIGMAPS: Final = Resource("v1", "configmaps", "ConfigMap")
PODS: Final = Resource("v1", "pods", "Pod")
EVENTS: Final = Resource("v1", "events", "Event")
NAMESPACES: Final = Resource("v1", "namespaces", "Namespace", namespaced=False)
LEASES: Final = Resource("coordination.k8s.io/v1", "leases", "Lease")
SELF_SUBJECT_REVIEWS: Final = Resource("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", False)


class Listing(NamedTuple):
    """All items of a list, and the version at which it was whole (a watch goes on from there)."""

    items: list[Object]
    resource_version: str


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


Change = Snapshot | Put | Removed | Trouble


# ---------------------------------------------------------------------------------------------------------------------
# Errors


class ApiError(MusterError):
    """The API server, or the way to it, said no.

    `status` is the HTTP status (0: there was no answer), `reason` the API's one-word reason, `message` the server's own
    words, `retry_after` the seconds that it asked for (None: it did not), `details` its machine-readable part.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after: float | None = None,
        *,
        asked: Asked | None = None,
        remedy: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        answer = f"{status} {reason}" if status else reason
        text = f"{asked}: {answer}: {message}" if asked else f"{answer}: {message}"
        super().__init__(f"{text.rstrip('.')}. {remedy}" if remedy else text)
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.remedy = remedy
        self.details = dict(details or {})


class NotFound(ApiError):
    """404: the object, its namespace, or the whole kind does not exist."""


class Conflict(ApiError):
    """409: somebody wrote first, or a precondition does not hold."""


class AlreadyExists(ApiError):
    """409: an object of this name is there already."""


class Gone(ApiError):
    """410: that version is no longer known; list again."""


class Forbidden(ApiError):
    """403: RBAC (or admission) does not allow it."""


class Unauthorized(ApiError):
    """401: the server does not know who we are."""


class Invalid(ApiError):
    """422: the object breaks its schema."""


class Throttled(ApiError):
    """429: later; see `retry_after`."""


class ServerError(ApiError):
    """5xx: after a write it may or may not have been applied."""


class Unreachable(ApiError):
    """Nothing was sent: safe to repeat."""


class LostAnswer(ApiError):
    """It was sent and no complete answer came: it may or may not have been applied."""


_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: Throttled,
}
_REASONS: Final[Mapping[int, str]] = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    503: "ServiceUnavailable",
}


class Asked(NamedTuple):
    """One request, in the words of RBAC; what an error message begins with."""

    verb: str
    resource: Resource
    namespace: str | None = None
    name: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        where = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.verb} {self.rbac_resource} {where}".rstrip()

    @property
    def rbac_resource(self) -> str:
        return f"{self.resource.plural}/{self.subresource}" if self.subresource else self.resource.plural

    def path(self) -> str:
        version = self.resource.api_version
        parts = ["api" if "/" not in version else "apis", *version.split("/")]
        if self.resource.namespaced and self.namespace:
            parts += ["namespaces", self.namespace]
        parts += [part for part in (self.resource.plural, self.name, self.subresource) if part]
        for part in parts:
            if part in (".", "..") or "/" in part or "%" in part:
                raise Malformed(f"the name of {self.resource.kind}", part, "it can't be a path segment of the API")
        return "/" + "/".join(quote(part, safe=":") for part in parts)


def _remedy(status: int, asked: Asked, details: Mapping[str, Any], message: str, credentials: Credentials) -> str:
    """What the user can do about it, where that is known."""
    kind, plural, namespace = asked.resource.kind, asked.rbac_resource, asked.namespace
    if status == 401:
        return f"The credentials come from {credentials.source}: renew them, or name others"
    if status == 403:
        scope = f"in namespace {namespace}, by a Role and a RoleBinding" if namespace else "by a ClusterRole"
        group = asked.resource.group or '""'
        return f"Allow the verb {asked.verb} on {plural} (apiGroup {group}) {scope}; identity: {credentials.source}"
    if status == 404 and details.get("kind") == "namespaces":
        return f"Create the namespace first: kubectl create namespace {details.get('name')}"
    if status == 404 and not details.get("name"):
        return f"This server does not serve {kind} in {asked.resource.api_version}: is its CRD installed?"
    if status == 400 and "HTTP request to an HTTPS server" in message:
        return "The server's URL has to begin with https://"
    if 300 <= status < 400:
        return f"Redirects are not followed: is {credentials.server} really an API server?"
    return ""


def _failure(response: BaseHTTPResponse, body: bytes, asked: Asked, credentials: Credentials) -> ApiError:
    """The error that an answer with a bad status stands for."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Status":
        document = {"message": body[:500].decode("utf-8", "replace").strip() or "(no message)"}
    after = response.headers.get("Retry-After", "")
    return _status_error(response.status, document, asked, credentials, float(after) if after.isdigit() else None)


def _status_error(
    code: int, document: Object, asked: Asked, credentials: Credentials, retry_after: float | None = None
) -> ApiError:
    reason = str(document.get("reason") or _REASONS.get(code) or "Error")
    details = document.get("details") or {}
    message = str(document.get("message") or "(no message)")
    error = AlreadyExists if reason == "AlreadyExists" else _BY_STATUS.get(code)
    if error is None:
        error = ServerError if code >= 500 else ApiError
    if retry_after is None and details.get("retryAfterSeconds"):
        retry_after = float(details["retryAfterSeconds"])
    remedy = _remedy(code, asked, details, message, credentials)
    return error(code, reason, message, retry_after, asked=asked, remedy=remedy, details=details)


# ---------------------------------------------------------------------------------------------------------------------
# The wire


class _Here(threading.local):
    """How far this thread's request has come."""

    sent: bool = False
    sock: socket.socket | None = None


_here = _Here()


@functools.cache
def _noting_pools() -> dict[str, type]:
    """urllib3's pools, whose connections note when a request begins to be sent, and over which socket."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class NotingHTTP(HTTPConnection):
        def request(self, *args: Any, **kwargs: Any) -> None:
            _here.sent = True
            super().request(*args, **kwargs)
            _here.sock = self.sock

    class NotingHTTPS(HTTPSConnection):
        def request(self, *args: Any, **kwargs: Any) -> None:
            _here.sent = True
            super().request(*args, **kwargs)
            _here.sock = self.sock

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls = NotingHTTP

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls = NotingHTTPS

    return {"http": HTTPPool, "https": HTTPSPool}


def _connection_pools(credentials: Credentials, tls: Tls) -> Any:
    """A urllib3 PoolManager that speaks to one API server with one TLS identity."""
    import urllib3
    from urllib3.connection import HTTPConnection

    idle, interval, probes = KEEPALIVE
    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPINTVL", interval), ("TCP_KEEPCNT", probes)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    settings: dict[str, Any] = {"num_pools": 1, "maxsize": 4, "retries": False, "socket_options": options}
    if credentials.server.startswith("https:"):
        settings["ssl_context"] = ssl_context(tls)
        if tls.server_name:
            settings["server_hostname"] = tls.server_name
        if not tls.verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user has decided
    if not credentials.proxy:
        pools: Any = urllib3.PoolManager(**settings)
    elif credentials.proxy.startswith("socks"):
        try:
            from urllib3.contrib.socks import SOCKSProxyManager
        except ImportError:
            raise MissingLibrary("PySocks", "for a SOCKS proxy") from None
        return SOCKSProxyManager(credentials.proxy, **settings)
    else:
        headers = urllib3.make_headers(**credentials.proxy_headers)
        pools = urllib3.ProxyManager(credentials.proxy, proxy_headers=headers, **settings)
    pools.pool_classes_by_scheme = _noting_pools()
    return pools


class _Interrupts:
    """Shuts sockets when a stop event is set, so that nobody has to poll it while blocked in a read.

    One sleeping thread a stop event, which ends by itself when nobody has read under that event for a while.
    """

    IDLE_SECONDS: Final = 30.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[threading.Event, set[socket.socket]] = {}

    @contextmanager
    def guard(self, stop: threading.Event, sock: socket.socket | None) -> Iterator[None]:
        """While the body runs, `stop` shuts `sock`."""
        if sock is None:
            yield
            return
        with self._lock:
            if stop not in self._sockets:
                self._sockets[stop] = set()
                threading.Thread(target=self._wait, args=(stop,), name="muster-stop", daemon=True).start()
            self._sockets[stop].add(sock)
        try:
            if stop.is_set():
                _shut(sock)
            yield
        finally:
            with self._lock:
                self._sockets.get(stop, set()).discard(sock)

    def _wait(self, stop: threading.Event) -> None:
        while not stop.wait(self.IDLE_SECONDS):
            with self._lock:
                if not self._sockets[stop]:
                    del self._sockets[stop]
                    return
        with self._lock:
            for sock in self._sockets.pop(stop):
                _shut(sock)


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's: it would pull TLS away under the reader


def _lines(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The lines of a streamed answer as they come. A last line without its end is not one."""
    rest = bytearray()
    amount = 65536 if getattr(response, "chunked", False) else 1  # unchunked: read(n) would wait for n bytes
    for chunk in response.stream(amount):
        begin = len(rest)
        rest += chunk
        if rest.find(b"\n", begin) >= 0:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            yield from (line for line in whole if line.strip())
        if len(rest) > LINE_LIMIT:
            raise ValueError(f"a watch event is longer than {LINE_LIMIT} bytes")


# ---------------------------------------------------------------------------------------------------------------------
# The client


class Api:
    """A client of one API server; safe for several threads.

    `timeout` bounds one request in seconds, connecting, waiting and reading together; a watch has its own.
    """

    def __init__(self, credentials: Credentials, *, timeout: float = 10.0, user_agent: str = "muster") -> None:
        try:
            import urllib3  # noqa: F401
        except ImportError:
            raise MissingLibrary("urllib3", "to talk to Kubernetes") from None
        self.credentials = credentials
        self.timeout = timeout
        self._user_agent = user_agent
        self._lock = threading.Lock()
        self._pools: Any = None
        self._tls: Tls | None = None
        self._interrupts = _Interrupts()
        self._closed = threading.Event()

    @property
    def namespace(self) -> str | None:
        """The namespace that the credentials name, if they name one."""
        return self.credentials.namespace

    def get(self, resource: Resource, name: str, namespace: str | None = None) -> Object:
        """One object, as the quorum knows it. Raises NotFound."""
        return self._read(Asked("get", resource, namespace, name))

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        limit: int = 500,
    ) -> Listing:
        """All objects of a kind (namespace None: of all namespaces), fetched in pages of `limit`.

        `metadata_only` fetches PartialObjectMetadata, without spec and status.
        """
        asked = Asked("list", resource, namespace)
        query = _selection(label_selector, field_selector)
        for attempt in range(RELISTS + 1):
            try:
                return self._pages(asked, query, metadata_only, limit if attempt < RELISTS else 0)
            except Gone:
                if attempt == RELISTS:
                    raise
        raise AssertionError("unreachable")

    def _pages(self, asked: Asked, query: dict[str, str], metadata_only: bool, limit: int) -> Listing:
        items: list[Object] = []
        following = ""
        while True:
            page = {**query, "limit": str(limit or ""), "continue": following}
            wanted = {name: value for name, value in page.items() if value}
            document = self._read(asked, wanted, _accept("List") if metadata_only else "")
            for item in document.get("items") or ():
                item.setdefault("apiVersion", asked.resource.api_version)
                item.setdefault("kind", asked.resource.kind)
                items.append(item)
            following = document["metadata"].get("continue") or ""
            if not following:
                return Listing(items, document["metadata"].get("resourceVersion", ""))

    def create(self, resource: Resource, obj: Object) -> Object:
        """POST; the deterministic name is the claim. Raises AlreadyExists; NotFound when the namespace is missing."""
        namespace = obj["metadata"].get("namespace") if resource.namespaced else None
        if resource.namespaced and not namespace:
            raise ValueError(f"a {resource.kind} to be created has to carry metadata.namespace")
        asked = Asked("create", resource, namespace, obj.get("metadata", {}).get("name", ""))
        return self._write("POST", asked, obj, asked._replace(name="").path())

    def replace(self, resource: Resource, obj: Object, subresource: str = "") -> Object:
        """PUT of the whole object, if it is still the one that was read. Raises Conflict, NotFound."""
        metadata = obj["metadata"]
        for field in ("name", "resourceVersion", "uid"):
            if not metadata.get(field):
                raise ValueError(f"a {resource.kind} to be replaced has to carry metadata.{field} as it was read")
        asked = Asked("update", resource, metadata.get("namespace"), metadata["name"], subresource)
        return self._write("PUT", asked, obj)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """DELETE, if uid and resourceVersion are still these. Raises NotFound, Conflict."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        options["preconditions"] = {field: value for field, value in preconditions.items() if value}
        return self._write("DELETE", Asked("delete", resource, namespace, name), options)

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
        stop: threading.Event | None = None,
        watch_timeout: float = 55.0,
    ) -> Iterator[Change]:
        """List, then watch, for ever: a Snapshot, then Put and Removed; a new Snapshot whenever the thread was lost.

        Ends only when `stop` is set (within a fraction of a second, also in the middle of a read) or the Api is closed.
        A vanished peer is noticed after 25 s (TCP keep-alive), a silent one `watch_timeout` + 5 s after it fell silent.
        Raises what only the user can mend (Unauthorized, Forbidden, an unknown kind, a bad selector, credentials), and
        only until the first watch stands; all else, and these afterwards, is told as Trouble and tried again after
        0.05 to 5 s (full jitter).
        """
        selector = ",".join(part for part in (field_selector, f"metadata.name={name}" if name else "") if part)
        query = _selection(label_selector, selector)
        stop = stop or self._closed
        version, settled, failures = "", False, 0
        while not (stop.is_set() or self._closed.is_set()):
            began = time.monotonic()
            try:
                if not version:
                    listing = self.list(
                        resource,
                        namespace,
                        label_selector=label_selector,
                        field_selector=selector,
                        metadata_only=metadata_only,
                    )
                    version = listing.resource_version
                    yield Snapshot(*listing)
                asked = Asked("watch", resource, namespace, name or "")
                response, sock = self._open_watch(asked, query, version, metadata_only, watch_timeout)
                settled = True
                for kind, obj in self._events(response, sock, asked, stop):
                    failures = 0
                    version = obj["metadata"]["resourceVersion"]
                    if kind != "BOOKMARK":
                        yield Removed(obj) if kind == "DELETED" else Put(obj)
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
                yield Trouble(error)
            if failures:
                stop.wait(random.random() * min(BACKOFF[1], BACKOFF[0] * 2 ** min(failures - 1, 16)))

    def close(self) -> None:
        """Close the connections; every follow of this client ends."""
        self._closed.set()
        with self._lock:
            if self._pools is not None:
                self._pools.clear()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _read(self, asked: Asked, query: Mapping[str, str] | None = None, accept: str = "") -> Object:
        """GET, repeated within the time-out when a connection was lost or the server said "later"."""
        deadline = time.monotonic() + self.timeout
        path = asked.path() + (f"?{urlencode(query)}" if query else "")
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
        response, _sock = self._open(method, asked, path, read_timeout, body=body, accept=accept)
        content = self._content(response, asked, deadline)
        try:
            document = json.loads(content)
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

    def _open(
        self, method: str, asked: Asked, path: str, timeout: float, *, body: bytes | None = None, accept: str = ""
    ) -> tuple[BaseHTTPResponse, socket.socket | None]:
        """Send a request and return the good answer, its body unread. After a 401 once more, if credentials changed."""
        for attempt in (1, 2):
            identity = self.credentials.headers()
            response, sock = self._send(method, asked, path, timeout, body, accept, identity)
            if response.status < 300:
                return response, sock
            try:
                content = self._content(response, asked, time.monotonic() + timeout)
            except LostAnswer:
                content = b""  # the status says enough
            authorization = dict(identity).get("Authorization")
            if response.status == 401 and attempt == 1 and self.credentials.refused(authorization):
                continue
            raise _failure(response, content, asked, self.credentials)
        raise AssertionError("unreachable")

    def _send(
        self,
        method: str,
        asked: Asked,
        path: str,
        timeout: float,
        body: bytes | None,
        accept: str,
        identity: Headers,
    ) -> tuple[BaseHTTPResponse, socket.socket | None]:
        from urllib3 import Timeout
        from urllib3._collections import HTTPHeaderDict
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        headers = HTTPHeaderDict({"Accept": accept or "application/json", "User-Agent": self._user_agent})
        if body is not None:
            headers["Content-Type"] = "application/json"
        for name, value in identity:
            headers.add(name, value)
        _here.sent, _here.sock = False, None
        try:
            response = self._transport().urlopen(
                method,
                self.credentials.server + path,
                body=body,
                headers=headers,
                timeout=Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            return response, _here.sock
        except (HTTPError, OSError) as error:
            sent = _here.sent and not isinstance(error, NewConnectionError | ConnectTimeoutError)
            raise self._no_answer(error, asked, sent) from error
        finally:
            _here.sock = None

    def _transport(self) -> Any:
        """The connections for the TLS identity of now; new ones when a certificate was replaced."""
        tls = self.credentials.tls()
        with self._lock:
            if self._pools is None or tls != self._tls:
                self._pools, self._tls = _connection_pools(self.credentials, tls), tls
            return self._pools

    def _content(self, response: BaseHTTPResponse, asked: Asked, deadline: float) -> bytes:
        from urllib3.exceptions import HTTPError

        content = bytearray()
        try:
            for chunk in response.stream(65536):
                content += chunk
                if len(content) > ANSWER_LIMIT:
                    raise LostAnswer(0, "TooLarge", f"the answer is larger than {ANSWER_LIMIT} bytes", asked=asked)
                if time.monotonic() > deadline:
                    raise LostAnswer(0, "Timeout", "the answer did not end in time", asked=asked)
        except (HTTPError, OSError) as error:
            raise self._no_answer(error, asked, sent=True) from error
        except LostAnswer:
            response.close()
            raise
        response.release_conn()
        return bytes(content)

    def _no_answer(self, error: Exception, asked: Asked, sent: bool) -> ApiError:
        """What a broken connection means: nothing was sent, or nobody knows."""
        via = f" through the proxy {_without_password(self.credentials.proxy)}" if self.credentials.proxy else ""
        where = f"{self.credentials.server}{via}"
        if sent:
            return LostAnswer(0, "LostAnswer", f"the connection to {where} was lost: {_words(error)}", asked=asked)
        remedy = _connection_remedy(error, self.credentials)
        return Unreachable(0, "Unreachable", f"no connection to {where}: {_words(error)}", asked=asked, remedy=remedy)

    # -- watching -----------------------------------------------------------------------------------------------------

    def _open_watch(
        self, asked: Asked, query: Mapping[str, str], version: str, metadata_only: bool, timeout: float
    ) -> tuple[BaseHTTPResponse, socket.socket | None]:
        seconds = max(1, round(timeout))
        whole = {
            **query,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(seconds),
        }
        path = f"{asked._replace(name='').path()}?{urlencode(whole)}"
        return self._open("GET", asked, path, seconds + STALL_SECONDS, accept=_accept() if metadata_only else "")

    def _events(
        self, response: BaseHTTPResponse, sock: socket.socket | None, asked: Asked, stop: threading.Event | None
    ) -> Iterator[tuple[str, Object]]:
        """The events of an open watch. Ends when the server ends it or `stop` is set."""
        from urllib3.exceptions import HTTPError

        stop = stop or self._closed
        try:
            with self._interrupts.guard(stop, sock), self._interrupts.guard(self._closed, sock):
                for line in _lines(response):
                    if stop.is_set() or self._closed.is_set():
                        return
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _status_error(event["object"].get("code", 500), event["object"], asked, self.credentials)
                    yield event["type"], event["object"]
        except (HTTPError, OSError) as error:
            if not (stop.is_set() or self._closed.is_set()):
                raise self._no_answer(error, asked, sent=True) from error
        except (ValueError, KeyError, TypeError) as error:
            message = f"the watch sent something else than events: {error}"
            raise LostAnswer(0, "Garbled", message, asked=asked) from error
        finally:
            response.close()


def _selection(label_selector: str, field_selector: str) -> dict[str, str]:
    selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in selectors.items() if value}


def _accept(suffix: str = "") -> str:
    return f"application/json;as=PartialObjectMetadata{suffix};g=meta.k8s.io;v=v1"


def _is_mistake(error: MusterError) -> bool:
    """Is it something that only the user can mend?"""
    if not isinstance(error, ApiError):
        return True  # credentials
    return 300 <= error.status < 500 and error.status not in (408, 410, 429)


def _words(error: BaseException) -> str:
    """The innermost cause in words, without urllib3's object addresses."""
    import ssl

    inner: BaseException = error
    while True:
        arguments = [argument for argument in inner.args if isinstance(argument, BaseException)]
        following = arguments[0] if arguments else inner.__cause__
        if following is None or following is inner:
            break
        inner = following
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {inner.verify_message}"
    text = (isinstance(inner, OSError) and inner.strerror) or str(inner).rpartition(">: ")[2] or type(inner).__name__
    return text.strip()


def _connection_remedy(error: BaseException, credentials: Credentials) -> str:
    words = _words(error)
    if "certificate verify failed" in words:
        if "ostname" in words or "IP address" in words:
            return "The server's certificate is for another name: connect by that name, or set tls-server-name"
        return "Name the cluster's CA by ca_cert (certificate-authority in a kubeconfig)"
    if "refused" in words:
        return f"Is the API server running, and is this its address? It comes from {credentials.source}"
    if "WRONG_VERSION_NUMBER" in words or "record layer" in words:
        return "That port does not speak TLS: should the URL begin with http://?"
    if "Tunnel connection failed" in words or "proxy" in words.lower():
        return "Check the options proxy, proxy_headers and no_proxy"
    if "Name or service not known" in words or "resolve" in words:
        return "That name is not known here: check the host, or DNS"
    return ""


def _without_password(url: str | None) -> str:
    """A proxy's URL as it may be shown."""
    scheme, _, rest = (url or "").partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections: urllib3's pools, how far a request had come when it failed, and how a blocked read is ended."""

from __future__ import annotations

import functools
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.client.answers import (
    ApiError,
    Asked,
    LostAnswer,
    Unreachable,
    failure,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.kubeconfig import MissingLibrary
from ansible_collections.muster.coordination.plugins.module_utils.client.tls import Tls, ssl_context

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials

    # its body unread; the socket over which it comes
    Answer = tuple[BaseHTTPResponse, socket.socket | None]  # pylint: disable=unsupported-binary-operation
    Headers = list[tuple[str, str]]

ANSWER_LIMIT: Final = 64 * 1024 * 1024  # bytes of one answer; a larger one is an error
LINE_LIMIT: Final = 16 * 1024 * 1024  # bytes of one watch event; etcd refuses objects far below this
CONNECT_SECONDS: Final = 5.0
KEEPALIVE: Final = (10, 5, 3)  # idle s, interval s, probes: a peer that vanished is noticed within 25 s


class _Here(threading.local):
    """How far this thread's request has come."""

    sent: bool = False
    sock: socket.socket | None = None
    hold: Callable[[socket.socket], None] | None = None  # to be told of the socket
    stop: threading.Event | None = None  # once it is set, no request begins

    def request_sent(self, sock: socket.socket) -> None:
        self.sock = sock
        if self.hold:
            self.hold(sock)


_here = _Here()


@functools.cache
def noting_pools() -> dict[str, type]:
    """urllib3's pools, whose connections note when a request begins to be sent, and over which socket."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class NotingHTTP(HTTPConnection):
        def request(self, *args: Any, **kwargs: Any) -> None:
            _here.sent = True
            super().request(*args, **kwargs)
            _here.request_sent(self.sock)

    class NotingHTTPS(HTTPSConnection):
        def request(self, *args: Any, **kwargs: Any) -> None:
            _here.sent = True
            super().request(*args, **kwargs)
            _here.request_sent(self.sock)

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls = NotingHTTP

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls = NotingHTTPS

    return {"http": HTTPPool, "https": HTTPSPool}


def last_socket() -> socket.socket | None:
    """Over which this thread's last request went, if it went by one of `noting_pools`."""
    return _here.sock


def _connection_pools(credentials: Credentials, tls: Tls, connections: int) -> Any:
    """A urllib3 PoolManager that speaks to one API server with one TLS identity."""
    import urllib3
    from urllib3.connection import HTTPConnection

    idle, interval, probes = KEEPALIVE
    options = [*HTTPConnection.default_socket_options, (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPINTVL", interval), ("TCP_KEEPCNT", probes)):
        if hasattr(socket, name):
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    settings: dict[str, Any] = {"num_pools": 1, "maxsize": connections, "retries": False, "socket_options": options}
    if credentials.server.startswith("https:"):
        settings["ssl_context"] = context = ssl_context(tls)
        if getattr(urllib3, "__version__", "2").startswith("1."):
            context.check_hostname = False  # it compares the name by itself, and with this on refuses addresses
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
    pools.pool_classes_by_scheme = noting_pools()
    return pools


class Interrupts:
    """Shuts sockets when a stop event is set, so that nobody has to poll it while blocked in a read.

    One sleeping thread a stop event, which ends by itself when nobody has read under that event for a while.
    """

    IDLE_SECONDS: Final = 30.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: dict[threading.Event, set[socket.socket]] = {}

    @contextmanager
    def guard(self, stop: threading.Event, sock: socket.socket | None = None) -> Iterator[None]:
        """While the body runs, `stop` shuts `sock`; None: ends this thread's requests, and lets it begin no more."""
        held: list[socket.socket] = []

        def hold(sock: socket.socket) -> None:
            held.append(sock)
            self._add(stop, sock)

        if sock:
            hold(sock)
        else:
            _here.hold, _here.stop = hold, stop
        try:
            yield
        finally:
            if not sock:
                _here.hold, _here.stop = None, None
            with self._lock:
                self._sockets.get(stop, set()).difference_update(held)

    def shut_all(self) -> None:
        """End every read that is guarded now."""
        with self._lock:
            for sockets in self._sockets.values():
                _shut(sockets)

    def _add(self, stop: threading.Event, sock: socket.socket) -> None:
        with self._lock:
            if stop not in self._sockets:
                self._sockets[stop] = set()
                threading.Thread(target=self._wait, args=(stop,), name="muster-stop", daemon=True).start()
            self._sockets[stop].add(sock)
        if stop.is_set():
            _shut([sock])

    def _wait(self, stop: threading.Event) -> None:
        while not stop.wait(self.IDLE_SECONDS):
            with self._lock:
                if not self._sockets[stop]:
                    del self._sockets[stop]
                    return
        with self._lock:
            _shut(self._sockets.pop(stop))


def _shut(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not SSLSocket's: it pulls TLS away under the reader


def lines(response: BaseHTTPResponse) -> Iterator[bytes]:
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


class Wire:
    """Requests to one API server, each sent once, and what becomes of them. Safe for several threads."""

    def __init__(self, credentials: Credentials, user_agent: str, connections: int) -> None:
        try:
            import urllib3  # noqa: F401
        except ImportError:
            raise MissingLibrary("urllib3", "to talk to Kubernetes") from None
        self.credentials = credentials
        self._user_agent, self._connections = user_agent, connections
        self._lock = threading.Lock()
        self._pools: Any = None
        self._tls: Tls | None = None

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            if self._pools is not None:
                self._pools.clear()

    def open(
        self, method: str, asked: Asked, path: str, timeout: float, *, body: bytes | None = None, accept: str = ""
    ) -> Answer:
        """Send a request and return the good answer, its body unread. After a 401 once more, if credentials changed."""
        for attempt in (1, 2):
            identity = self.credentials.headers()
            response, sock = self._send(method, asked, path, timeout, body, accept, identity)
            if response.status < 300:
                return response, sock
            try:
                content = self.content(response, asked, time.monotonic() + timeout)
            except LostAnswer:
                content = b""  # the status says enough
            authorization = dict(identity).get("Authorization")
            if response.status == 401 and attempt == 1 and self.credentials.refused(authorization):
                continue
            raise failure(response, content, asked, self.credentials)
        raise AssertionError("unreachable")

    def content(self, response: BaseHTTPResponse, asked: Asked, deadline: float) -> bytes:
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
            raise self.no_answer(error, asked, sent=True) from error
        except LostAnswer:
            response.close()
            raise
        response.release_conn()
        return bytes(content)

    def no_answer(self, error: Exception, asked: Asked, sent: bool) -> ApiError:
        """What a broken connection means: nothing was sent, or nobody knows."""
        via = f" through the proxy {_without_password(self.credentials.proxy)}" if self.credentials.proxy else ""
        where = f"{self.credentials.server}{via}"
        if sent:
            return LostAnswer(0, "LostAnswer", f"the connection to {where} was lost: {words_of(error)}", asked=asked)
        remedy = _connection_remedy(error, self.credentials)
        return Unreachable(0, "Unreachable", f"no connection to {where}: {words_of(error)}", asked=asked, remedy=remedy)

    def _send(
        self,
        method: str,
        asked: Asked,
        path: str,
        timeout: float,
        body: bytes | None,
        accept: str,
        identity: Headers,
    ) -> Answer:
        from urllib3 import Timeout
        from urllib3._collections import HTTPHeaderDict
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        headers = HTTPHeaderDict({"Accept": accept or "application/json", "User-Agent": self._user_agent})
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        for name, value in identity:
            headers.add(name, value)
        if _here.stop and _here.stop.is_set():
            raise Unreachable(0, "Stopped", "asked to stop", asked=asked)
        _here.sent, _here.sock = False, None
        try:
            response = self._transport().request(
                method,
                self.credentials.server + path,
                body=body,
                headers=headers,
                timeout=Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout),
                preload_content=False,
                enforce_content_length=True,  # urllib3 1.26 does not by itself
                redirect=False,
                retries=False,
            )
            return response, _here.sock
        except (HTTPError, OSError) as error:
            sent = _here.sent and not isinstance(error, NewConnectionError | ConnectTimeoutError)
            raise self.no_answer(error, asked, sent) from error
        finally:
            _here.sock = None

    def _transport(self) -> Any:
        """The connections for the TLS identity of now; new ones when a certificate was replaced."""
        tls = self.credentials.tls()
        with self._lock:
            if self._pools is None or tls != self._tls:
                self._pools, self._tls = _connection_pools(self.credentials, tls, self._connections), tls
            return self._pools


def words_of(error: BaseException) -> str:
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
    words = words_of(error)
    if ("ostname" in words and "match" in words) or "IP address mismatch" in words:
        return "The server's certificate is for another name: connect by that name, or set tls-server-name"
    if "certificate verify failed" in words:
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
    scheme, _dummy, rest = (url or "").partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of an allocator: its HTTP interface as calls, its problem documents as the refusals that they stand for.

What a caller can rely on:
- A read is sent again when its connection was lost or the server said "later", for at most `patience` seconds.
- A creation is sent again, too, always with the same key, so that it makes one instance however often it arrives.
- Nothing else is sent twice: `NoAnswer` says of each whether it may have been done.
- `watch` is for ever: it outlives disconnects, silence and servers that are replaced.
- Tokens are in no message, and follow no redirect. The one of a kubeconfig goes over TLS, or to this host, only; that
  of a Pod also to a Service of its cluster.
"""

from __future__ import annotations

import ipaddress
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlencode, urlsplit

from ansible_collections.muster.coordination.plugins.module_utils.client.identities import Fixed, TokenFile, bearer
from ansible_collections.muster.coordination.plugins.module_utils.client.kubeconfig import (
    CredentialsError,
    MissingLibrary,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.tls import Pem, Tls, ssl_context
from ansible_collections.muster.coordination.plugins.module_utils.client.wire import (
    Interrupts,
    last_socket,
    lines,
    noting_pools,
    words_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    REFUSALS,
    Busy,
    NotThere,
    Refused,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

    from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials

TYPE: Final = "urn:muster:allocator:"  # a problem's type is this and its word
ANSWER_LIMIT: Final = 64 * 1024 * 1024  # bytes
CONNECT_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 40.0  # a watch says something every 15 s, or hangs
PAUSES: Final = (0.1, 5.0)  # seconds: first and largest bound of the full-jitter delay between two tries
PAGE: Final = 500  # instances
LOOK_SECONDS: Final = 1.0  # between two looks at an instance of which no watch tells

Instance = dict[str, Any]
Document = dict[str, Any]


class Unauthenticated(Refused):
    """The allocator does not know who asks."""

    word, status, title = "unauthenticated", 401, "Nobody knows who asks"


class Later(Refused):
    """Nothing was done; `retry_after` seconds from now it may go well."""

    word, status, title = "unavailable", 503, "It may go well later"
    retry_after: float = 1.0


class Misunderstood(Refused):
    """The request makes no sense to the allocator."""

    word, status, title = "malformed", 400, "The request can't be understood"


class NoAnswer(MusterError):
    """There is no answer. `is_sent`: what was asked for may have been done."""

    is_sent: bool = True


class NoAllocator(MusterError):
    """What answers is none, or can't be trusted to be the one that is meant: to ask again would not help."""


class Created(NamedTuple):
    """`is_new`: made by this call, or by one that was lost; not found from an earlier one."""

    instance: Instance
    is_new: bool


class Snapshot(NamedTuple):
    """All instances that there are; what is not among them is gone."""

    items: list[Instance]


class Put(NamedTuple):
    """An instance is new, or has changed."""

    instance: Instance


class Removed(NamedTuple):
    """An instance is gone; its last state."""

    instance: Instance


class Trouble(NamedTuple):
    """The connection is bad for now, and what was told before may be out of date. Watch goes on by itself."""

    error: MusterError


Change = Snapshot | Put | Removed | Trouble  # pylint: disable=unsupported-binary-operation


class Token(Protocol):
    """Where the Authorization header comes from; `Fixed` and `TokenFile` of identities.py are such."""

    def authorization(self) -> str | None:
        """The header's value now."""

    def refused(self, authorization: str | None) -> bool:
        """The server refused this value: look again. True if there is something new to try."""


class KubernetesToken:
    """The bearer token with which one logs in to Kubernetes."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def authorization(self) -> str | None:
        value = dict(self._credentials.headers()).get("Authorization")
        if not value or not value.startswith("Bearer "):
            raise CredentialsError(
                f"{self.source} logs in without a bearer token, which is all that an allocator understands: "
                "give one (kubectl create token SERVICEACCOUNT makes one)"
            )
        return value

    def refused(self, authorization: str | None) -> bool:
        return self._credentials.refused(authorization)

    @property
    def source(self) -> str:
        return self._credentials.source

    @property
    def is_of_pod(self) -> bool:
        """Whether it is in use within the cluster."""
        return self.source == "the service account of this Pod"


def token_of(text: str, what: str) -> Token:
    """A token that never changes; `what` names it in errors. Raises CredentialsError."""
    return Fixed(bearer(text, what))


def token_in(path: str) -> Token:
    """A token in a file, which is read again every minute, and when it is refused."""
    return TokenFile(path)


def tls_of(ca_file: str | None, *, verify: bool = True) -> Tls:
    """Whom to trust: who issued the certificates of a file, or else whom this machine trusts."""
    return Tls(verify=verify, ca=Pem(path=ca_file).current() if ca_file else None)


def parse_url(text: str, where: str) -> str:
    """A URL of an allocator, without a slash at its end. Raises Malformed with the field `where`."""
    try:
        parts = urlsplit(text)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits or not text.isascii() or any(character.isspace() for character in text):
        raise Malformed(where, text, "give a URL, for example https://allocator.example.com or http://127.0.0.1:8400")
    if "@" in parts.netloc:
        raise Malformed(where, f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}", "leave the password out")
    if parts.query or parts.fragment:
        raise Malformed(where, text, "leave out what begins with ? or #")
    return text.rstrip("/")


def is_loopback(url: str) -> bool:
    """Whether it leads to this very host."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"  # and not a name that only begins like an address


def is_private(url: str, *, in_pod: bool) -> bool:
    """Whether nobody outside reads what is sent there: over TLS, to this host, or from a Pod to a Service by name."""
    host = urlsplit(url).hostname or ""
    is_service = "." not in host or host.endswith((".svc", ".svc.cluster.local"))
    return url.startswith("https:") or is_loopback(url) or (in_pod and is_service and ":" not in host)


# ---------------------------------------------------------------------------------------------------------------------
# The client


class AllocatorClient:
    """Of one allocator, for one user. Safe for several threads, but that each watch is for one.

    `timeout` bounds one exchange in seconds, `patience` all tries of a call together.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        tls: Tls = Tls(),  # noqa: B008  (immutable)
        timeout: float = 15.0,
        patience: float = 60.0,
        user_agent: str = "muster",
        tell: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """`tell` is told why something is tried again. Raises Malformed, CredentialsError."""
        self.url = parse_url(url, "the allocator's URL")
        if isinstance(token, KubernetesToken) and not is_private(url, in_pod=token.is_of_pod):
            raise CredentialsError(
                f"the token of {token.source} is not sent to {self.url}, where everybody on the way could read it: "
                "use https://, or give a token for this allocator only"
            )
        self._token, self._tell = token, tell
        self.timeout, self.patience = timeout, patience
        self._headers = {"Accept": "application/json", "User-Agent": user_agent}
        self._pools = _pools(self.url, tls)
        self._interrupts = Interrupts()

    def close(self) -> None:
        self._pools.clear()

    # -- calls --------------------------------------------------------------------------------------------------------

    def offer(self) -> Document:
        """What this user can have, and has."""
        return self._read("/v1/offer")

    def create(self, key: str, wish: Mapping[str, Any], *, dry_run: bool = False) -> Created:
        """An instance for this key: a new one, or the one that it has. `dry_run`: what would be made, if it could."""
        path = "/v1/instances" + ("?dryRun=true" if dry_run else "")
        tries = [False]  # whether one was sent that may have been done

        def send() -> tuple[int, Document]:
            try:
                return self._exchange("POST", path, dict(wish), **{"Idempotency-Key": key})
            except NoAnswer as error:
                tries[0] = tries[0] or error.is_sent
                raise

        status, instance = self._patiently(send)
        return Created(instance, status == 201 or (tries[0] and not dry_run))

    def get(self, name: str) -> Instance:
        """Raises NotThere."""
        return self._read(_path(name))

    def listed(self, *, everything: bool = False) -> list[Instance]:
        """This user's instances and those that are shared with it; `everything`: all, for administrators."""
        found: list[Instance] = []
        following = ""
        while True:
            asked = {"limit": str(PAGE), "continue": following, "all": "true" if everything else ""}
            page = self._read(f"/v1/instances?{urlencode({key: text for key, text in asked.items() if text})}")
            found += _items(page)
            following = page.get("continue") or ""
            if not following:
                return found

    def destroy(self, name: str, storage: str | None = None) -> Instance:
        """It is gone some time later. `storage`, delete or retain: what becomes of its disks. Raises NotThere."""
        return self._exchange("DELETE", _path(name) + (f"?storage={storage}" if storage else ""))[1]

    def suspend(self, name: str, suspended: bool) -> Instance:
        """Have its Pods taken away, or given back."""
        return self._exchange("POST", f"{_path(name)}:{'suspend' if suspended else 'resume'}", {})[1]

    def reset(self, name: str, seen: int) -> Instance:
        """Have its disks emptied. `seen` is how many resets it had when this was decided: so it is done once."""
        return self._patiently(lambda: self._exchange("POST", f"{_path(name)}:reset", {"resets": seen}))[1]

    def events(self, name: str) -> list[Document]:
        """What the cluster has to say about it, the newest first."""
        return _items(self._read(f"{_path(name)}/events"))

    def disks(self) -> list[Document]:
        """The disks that this user has kept."""
        return _items(self._read("/v1/disks"))

    def remove_disk(self, name: str) -> None:
        """Raises NotThere."""
        self._exchange("DELETE", f"/v1/disks/{_segment(name)}")

    # -- watching -----------------------------------------------------------------------------------------------------

    def watch(self, *, deadline: float | None = None, everything: bool = False) -> Iterator[Change]:
        """A Snapshot, then Put and Removed; a new Snapshot after each loss of the connection, which Trouble tells.

        For ever, or until `deadline` on the monotonic clock. `everything` is as in `listed`. Raises what only a person
        can mend, and that only until the first Snapshot.
        """
        settled, failures = False, 0
        while deadline is None or time.monotonic() < deadline:
            try:
                for change in self._watch_once(deadline, everything):
                    settled, failures = True, 0
                    yield change
                failures += 1  # a server that hangs up at once
            except MusterError as error:
                if not settled and not isinstance(error, Later | NoAnswer):
                    raise
                failures += 1
                yield Trouble(error)
            left = _pause(failures)
            time.sleep(left if deadline is None else max(0.0, min(left, deadline - time.monotonic())))

    def follow(self, name: str, deadline: float) -> Iterator[Instance | None]:
        """One instance as it changes, and None when it is gone; until `deadline` on the monotonic clock."""
        for change in self.watch(deadline=deadline):
            if isinstance(change, Snapshot):
                found = next((each for each in change.items if each["name"] == name), None)
                if found is None and (found := self._look(name)) is not None:
                    yield found
                    yield from self._follow_by_looking(name, deadline)
                    return
                yield found
            elif isinstance(change, Put | Removed) and change.instance["name"] == name:
                yield change.instance if isinstance(change, Put) else None

    def _follow_by_looking(self, name: str, deadline: float) -> Iterator[Instance | None]:
        """Of somebody else's, which an administrator may see, no watch tells; nor yet of one that is just made."""
        while time.monotonic() < deadline:
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
            yield self._look(name)

    def _look(self, name: str) -> Instance | None:
        try:
            return self.get(name)
        except NotThere:
            return None

    def _watch_once(self, deadline: float | None, everything: bool) -> Iterator[Change]:
        from urllib3.exceptions import HTTPError

        path = "/v1/instances?watch=true" + ("&all=true" if everything else "")
        left = SILENCE_SECONDS if deadline is None else max(0.1, deadline - time.monotonic())
        response = self._open("GET", path, None, {}, min(SILENCE_SECONDS, left))
        stop = threading.Event()  # at the deadline, in the middle of a read
        timer = threading.Timer(left, stop.set)
        timer.daemon = True
        if deadline is not None:
            timer.start()
        first: dict[str, Instance] | None = {}
        try:
            with self._interrupts.guard(stop, last_socket()):
                for line in lines(response):
                    kind, instance = _event(line)
                    if first is None:
                        if instance is not None:
                            yield Removed(instance) if kind == "DELETED" else Put(instance)
                    elif instance is None:
                        found, first = list(first.values()), None
                        yield Snapshot(found)
                    elif kind == "DELETED":
                        first.pop(instance["name"], None)
                    else:
                        first[instance["name"]] = instance
        except (HTTPError, OSError) as error:
            if not stop.is_set():
                raise NoAnswer(f"the connection to {self.url} was lost: {words_of(error)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise NoAnswer(f"{self.url} sent something else than changes of instances: {error!r}"[:300]) from error
        finally:
            timer.cancel()
            stop.set()
            response.close()

    # -- exchanges ----------------------------------------------------------------------------------------------------

    def _read(self, path: str) -> Document:
        return self._patiently(lambda: self._exchange("GET", path))[1]

    def _patiently(self, send: Callable[[], tuple[int, Document]]) -> tuple[int, Document]:
        """Send it until there is an answer, or `patience` is at its end."""
        deadline, failures = time.monotonic() + self.patience, 0
        while True:
            try:
                return send()
            except (NoAnswer, Later, Busy) as error:
                failures += 1
                pause = _pause(failures)
                if isinstance(error, Later):
                    pause += error.retry_after
                if time.monotonic() + pause >= deadline:
                    raise
                self._tell(str(error))
                time.sleep(pause)

    def _exchange(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Document]:
        """Send it once; status and document of the good answer."""
        deadline = time.monotonic() + self.timeout
        response = self._open(method, path, body, headers, self.timeout)
        content = self._content(response, deadline)
        return response.status, self._document(content)

    def _open(self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout: float) -> BaseHTTPResponse:
        """The good answer, its body unread. After a 401 once more, if there is another token by now."""
        from urllib3 import Timeout
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError

        sent = {**self._headers, **headers}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            sent["Content-Type"] = "application/json"
        for attempt in (1, 2):
            authorization = self._token.authorization()
            if authorization:
                sent["Authorization"] = authorization
            try:
                response: BaseHTTPResponse = self._pools.request(
                    method,
                    self.url + path,
                    body=content,
                    headers=sent,
                    timeout=Timeout(connect=min(CONNECT_SECONDS, timeout), read=timeout),
                    preload_content=False,
                    enforce_content_length=True,
                    redirect=False,
                    retries=False,
                )
            except (HTTPError, OSError) as error:
                raise self._no_answer(
                    error, not isinstance(error, NewConnectionError | ConnectTimeoutError | SSLError)
                ) from error
            if response.status < 300:
                return response
            refusal = self._refusal(response, self._content(response, time.monotonic() + timeout))
            again = isinstance(refusal, Unauthenticated) and attempt == 1 and self._token.refused(authorization)
            if not again:
                raise refusal
        raise AssertionError("unreachable")

    def _content(self, response: BaseHTTPResponse, deadline: float) -> bytes:
        from urllib3.exceptions import HTTPError

        content = bytearray()
        try:
            for chunk in response.stream(65536):
                content += chunk
                if len(content) > ANSWER_LIMIT or time.monotonic() > deadline:
                    response.close()
                    raise NoAnswer(f"the answer of {self.url} is too long, or did not end in time")
        except (HTTPError, OSError) as error:
            raise self._no_answer(error, True) from error
        response.release_conn()
        return bytes(content)

    def _document(self, content: bytes) -> Document:
        try:
            document = json.loads(content) if content else {}
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
        raise self._not_an_allocator(f"{len(content)} bytes that are no JSON object")

    def _refusal(self, response: BaseHTTPResponse, content: bytes) -> MusterError:
        """What a bad answer stands for."""
        try:
            problem = json.loads(content)
        except ValueError:
            problem = None
        kind = problem.get("type") if isinstance(problem, dict) else None
        after = response.headers.get("Retry-After", "")
        retry_after = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None
        if isinstance(kind, str) and kind.startswith(TYPE):
            return refusal_of(problem, response.status, retry_after)
        if response.status in (429, 502, 503, 504):  # of something in between
            return _later(f"{self.url} answered {response.status}", {}, retry_after)
        if 300 <= response.status < 400:
            return self._not_an_allocator(f"a redirect ({response.status}), which is not followed")
        return self._not_an_allocator(f"{response.status} without saying why")

    def _not_an_allocator(self, what: str) -> NoAllocator:
        return NoAllocator(f"{self.url} answered {what}: is that the URL of an allocator, and no proxy in between?")

    def _no_answer(self, error: Exception, is_sent: bool) -> MusterError:
        said = words_of(error)
        if is_sent:
            return NoAnswer(f"the connection to {self.url} was lost: {said}")
        if "certificate" in said or "match" in said:
            remedy = "name the CA of the allocator's certificate, and the allocator as the certificate does"
            return NoAllocator(f"{self.url} is not trusted: {said}; {remedy}")
        if "WRONG_VERSION_NUMBER" in said or "record layer" in said:
            return NoAllocator(f"{self.url} does not speak TLS: should the URL begin with http://?")
        remedy = "is the allocator running, and is this its URL?"
        if "resolve" in said or "not known" in said:
            remedy = "that name is not known here: check the host, or DNS"
        told = NoAnswer(f"no connection to {self.url}: {said}; {remedy}")
        told.is_sent = False
        return told


def refusal_of(problem: Mapping[str, Any], status: int, retry_after: float | None = None) -> Refused:
    """The refusal that a problem document (RFC 9457) of an allocator stands for."""
    word = str(problem.get("type")).removeprefix(TYPE)
    detail = str(problem.get("detail") or problem.get("title") or f"refused with {status}")
    members = {key: value for key, value in problem.items() if key not in ("type", "title", "status", "detail")}
    if status in (429, 503) or word in ("throttled", "overloaded", "unavailable"):
        return _later(detail, members, retry_after)
    if status == 401:
        return Unauthenticated(f"{detail}: renew the token, or give one that is meant for this allocator", **members)
    kind = REFUSALS.get(word, Misunderstood)
    made = kind.__new__(kind)  # in the server's words, whatever ours would be
    Refused.__init__(made, detail, **members)
    return made


def _later(detail: str, members: Mapping[str, Any], retry_after: float | None) -> Later:
    later = Later(detail, **members)
    later.retry_after = 1.0 if retry_after is None else min(60.0, retry_after)
    return later


def _event(line: bytes) -> tuple[str, Instance | None]:
    """Type and instance of one line of a watch. Raises ValueError, KeyError, TypeError."""
    event = json.loads(line)
    kind, instance = event["type"], event["instance"]
    if kind == "BOOKMARK":
        return kind, None
    if kind not in ("ADDED", "MODIFIED", "DELETED") or not isinstance(instance["name"], str):
        raise ValueError(f"the type {kind!r}")
    return kind, instance


def _items(document: Document) -> list[Any]:
    items = document.get("items")
    if not isinstance(items, list):
        raise NoAllocator("the answer has no items: is that the URL of an allocator?")
    return items


def _pause(failures: int) -> float:
    """Seconds, 0.05 to 5, more of them the more often it has failed."""
    first, largest = PAUSES
    return random.uniform(0.5, 1.0) * min(largest, first * 2 ** min(failures - 1, 16))


def _path(name: str) -> str:
    return f"/v1/instances/{_segment(name)}"


def _segment(name: str) -> str:
    if name in ("", ".", ".."):
        raise Malformed("the name", name, "give the name of an instance or disk, as a list shows it")
    return quote(name, safe="")


def _pools(url: str, tls: Tls) -> Any:
    """Connections to one allocator; through the proxy that the environment names, if it is not this host."""
    try:
        import urllib3
    except ImportError:
        raise MissingLibrary("urllib3", "to talk to an allocator") from None
    from urllib.request import getproxies, proxy_bypass

    settings: dict[str, Any] = {"num_pools": 2, "maxsize": 4, "retries": False}
    parts = urlsplit(url)
    if parts.scheme == "https":
        settings["ssl_context"] = context = ssl_context(tls)
        if getattr(urllib3, "__version__", "2").startswith("1."):
            context.check_hostname = False  # it compares the name by itself, and with this on refuses addresses
        if not tls.verify:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the user has decided
    proxy = getproxies().get(parts.scheme)
    if not proxy or is_loopback(url) or proxy_bypass(parts.netloc):
        pools: Any = urllib3.PoolManager(**settings)
    elif proxy.startswith(("http://", "https://")):
        pools = urllib3.ProxyManager(proxy, **settings)
    else:
        raise CredentialsError(f"the proxy for {parts.scheme}:// is not a URL such as http://proxy.example:3128")
    pools.pool_classes_by_scheme = noting_pools()
    return pools

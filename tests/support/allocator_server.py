# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For tests of the allocator's server: clients that say exactly what they are told to, and a server over MemoryApi."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.api import Object
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller, Offer
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import parse
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES, Allocator
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster.allocator.auth import Unauthenticated
from muster.allocator.server import Server

NAMESPACE = "ns"
SILENCE = 8.0  # seconds for something to come; less than there are between two bookmarks
DECLARATION = {
    "apiVersion": "muster.dev/v1alpha1",
    "kind": "InstanceTemplate",
    "spec": {
        "version": "3",
        "parameters": {
            "Size": {"type": "integer", "default": 1, "minimum": 1, "maximum": 9},
            "Words": {"type": "string", "default": "none", "maxLength": 200},
        },
    },
}
DISK = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "{{.Name}}"}}
DISK["spec"] = {"accessModes": ["ReadWriteOnce"]}
CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{.Name}}"}}
CONFIG["data"] = {"size": "{{.Size}}", "words": "{{.Words}}"}
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "{{.Name}}"}}
SERVICE["spec"] = {"ports": [{"port": 80, "name": "http"}], "selector": {"app": "{{.Name}}"}}


def offer(**said: Any) -> Offer:
    """Of a disk, a ConfigMap and a Service; group admins administers it."""
    template = parse([DECLARATION, DISK, CONFIG, SERVICE], "template")
    known: dict[str, Any] = {"max_instances": 1000, "max_instances_per_user": 100, "administrators": ("group:admins",)}
    return decisions.make_offer(name="kv", server_name="kv", template=template, **{**known, **said})


class Reply(NamedTuple):
    """An answer; the last value of each header, by its name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def word(self) -> str:
        """Of a problem document, which it has to be."""
        assert self.headers["content-type"] == "application/problem+json", self
        document = self.json()
        assert document["status"] == self.status and document["title"] and document["detail"], document
        return document["type"].removeprefix("urn:muster:allocator:")


class Client:
    """Of the server at a port of this host, for whom `token` stands."""

    def __init__(self, port: int, token: str = "", context: ssl.SSLContext | None = None) -> None:
        self.port, self.token, self.context = port, token, context
        self.timeout = SILENCE

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request, on a connection of its own; a `body` that is no bytes is sent as JSON."""
        sent: dict[str, str] = {}
        token = self.token if token is None else token
        if token:
            sent["Authorization"] = f"Bearer {token}"
        if key:
            sent["Idempotency-Key"] = key
        if body is not None:
            sent["Content-Type"] = "application/json"
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        with closing(self._connection()) as connection:
            connection.request(method, path, body, {**sent, **(headers or {})})
            return _reply(connection.getresponse())

    def raw(self, *pieces: bytes) -> Reply:
        """What is answered to these bytes, whatever they are."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout) as sock:
            for piece in pieces:
                sock.sendall(piece)
            response = http.client.HTTPResponse(sock)
            response.begin()
            return _reply(response)

    @contextmanager
    def watching(self, query: str = "watch=true", token: str | None = None) -> Iterator[Iterator[Any]]:
        """The lines of a watch, parsed. It fails where nothing comes for a while."""
        with closing(self._connection()) as connection:
            bearer = {"Authorization": f"Bearer {self.token if token is None else token}"}
            connection.request("GET", f"/v1/instances?{query}", None, bearer)
            with closing(connection.getresponse()) as response:
                assert response.status == 200, response.read()
                yield (json.loads(line) for line in response)

    def _connection(self) -> http.client.HTTPConnection:
        if self.context:
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=self.timeout, context=self.context)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout)


def _reply(response: http.client.HTTPResponse) -> Reply:
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


class Tokens:
    """In place of a Reviewer: who each token stands for."""

    def __init__(self, **callers: Caller) -> None:
        self.callers: dict[str, Caller] = dict(callers)
        self.results: Counter[str] = Counter()
        self.error: Exception | None = None

    def review(self, token: str) -> Caller:
        if self.error:
            raise self.error
        if token not in self.callers:
            raise Unauthenticated("nobody knows this token")
        return self.callers[token]

    def remembered(self, token: str) -> Caller | None:
        return None


class Service:
    """A server over MemoryApi, whose changes it is told of. Ann and Bob are users, Eve administers."""

    def __init__(self, *, of: Offer | None = None, **said: Any) -> None:
        self.api = MemoryApi([NAMESPACE])
        self.offer = of or offer()
        self.allocator = Allocator(self.api, NAMESPACE, self.offer)  # type: ignore[arg-type]
        people = {"ann": Caller("ann"), "bob": Caller("bob", ("team",)), "eve": Caller("eve", ("admins",))}
        self.tokens = Tokens(**people)
        self.registry = prometheus_client.CollectorRegistry()
        said = {"registry": self.registry, **said}
        allocator = said.pop("allocator", self.allocator)
        self.server = Server("127.0.0.1:0", allocator, self.tokens, self.instances, **said)
        self.ann, self.bob, self.eve = (Client(self.server.port, name) for name in people)

    def instances(self) -> list[Object]:
        return self.api.list(INSTANCES, NAMESPACE).items

    def tell(self, name: str) -> None:
        """What the cache would do when the watch brings a change."""
        there = [each for each in self.instances() if each["metadata"]["name"] == name]
        self.server.changed(f"{NAMESPACE}/{name}", there[0] if there else None)

    def change(self, name: str, change: Callable[[Object], Object]) -> None:
        there = self.api.get(INSTANCES, name, NAMESPACE)
        self.api.replace(INSTANCES, change(there))
        self.tell(name)

    def share(self, name: str, *users: str) -> None:
        self.change(name, lambda obj: {**obj, "spec": {**obj["spec"], "access": {"users": list(users), "groups": []}}})

    def remove(self, name: str) -> None:
        self.api.delete(INSTANCES, name, NAMESPACE)
        self.tell(name)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels or None) or 0.0

    def close(self) -> None:
        self.server.close(1.0)


def until(what: str, is_true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what no event tells of."""
    deadline = time.monotonic() + seconds
    ticks = threading.Event()
    while not is_true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s until {what}"
        ticks.wait(0.02)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of a process, and what it tells at its Pod."""

from __future__ import annotations

import json
import queue
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Conflict,
    Forbidden,
    LostAnswer,
    NotFound,
    Object,
)
from muster import process
from muster.pod import Annotation
from muster.process import Web

PATIENCE = 10.0  # seconds


@pytest.fixture
def posted() -> list[str]:
    return []


@pytest.fixture
def web(posted: list[str]) -> Iterator[Web]:
    routes = {
        ("GET", "/claim"): lambda: (200, {"claimed": True}),
        ("POST", "/claim"): lambda: posted.append("claim") or (202, {}),
        ("POST", "/release"): lambda: posted.append("release") or (200, {}),
    }
    web = Web("127.0.0.1:0", routes, prometheus_client.CollectorRegistry())
    yield web
    web.close()


def ask(web: Web, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    url = f"http://127.0.0.1:{web.port}{path}"
    try:
        request = urllib.request.Request(url, method=method, data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), error.headers


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("0.0.0.0", False),
    ],
)
def test_which_clients_are_of_this_host(address: str, own: bool) -> None:
    assert process.is_loopback(address) is own


def test_a_post_from_this_host_is_taken_with_and_without_a_body(web: Web, posted: list[str]) -> None:
    assert ask(web, "POST", "/release")[0] == 200
    assert ask(web, "POST", "/claim?now", b"x" * 10_000)[0] == 202
    assert posted == ["release", "claim"]


def test_a_post_from_elsewhere_is_refused_and_a_get_is_not(web: Web, posted, monkeypatch) -> None:
    monkeypatch.setattr(process, "is_loopback", lambda address: False)
    status, said, _headers = ask(web, "POST", "/release")
    assert status == 403 and "this host" in said["error"]
    assert ask(web, "GET", "/claim")[0] == 200
    assert posted == []


def test_a_post_from_a_browser_is_refused(web: Web, posted: list[str]) -> None:
    assert ask(web, "POST", "/release", Origin="http://127.0.0.1")[0] == 403
    assert posted == []


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", "/release", "POST"), ("PUT", "/claim", "GET, POST"), ("POST", "/metrics", "GET")],
)
def test_a_wrong_method_says_which_is_right(web: Web, method: str, path: str, allow: str) -> None:
    status, _said, headers = ask(web, method, path)
    assert (status, headers["Allow"]) == (405, allow)


@pytest.mark.parametrize("length", ["-5", "x", "9" * 40, "\u00b2"])
def test_a_senseless_length_holds_nobody_up(web: Web, length: str) -> None:
    with socket.create_connection(("127.0.0.1", web.port), timeout=PATIENCE) as connection:
        connection.sendall(f"POST /release HTTP/1.0\r\nContent-Length: {length}\r\n\r\n".encode("latin-1"))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100).startswith(b"HTTP/1.0 200")


# ------------------------------------------------------------------------------------------ the annotation


class Pods:
    """Takes patches; answers each with what the script says (None: applied)."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.patches: queue.Queue[str | None] = queue.Queue()

    def patch(self, _resource: object, changes: Object) -> Object:
        assert changes["metadata"]["uid"] == "u-1"
        self.patches.put(changes["metadata"]["annotations"]["muster.dev/claim"])
        answer = self.script.pop(0) if self.script else None
        if answer:
            raise answer
        return {}


def annotation(pods: Pods, monkeypatch: pytest.MonkeyPatch, retry: float = 0.01) -> Annotation:
    monkeypatch.setattr(Annotation, "RETRY", (retry, retry))
    return Annotation(pods, "ns", "a", "u-1", "muster.dev/claim")  # type: ignore[arg-type]


def test_what_fails_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = Pods(LostAnswer(0, "LostAnswer", "reset"), Forbidden(403, "Forbidden", "no"))
    told = annotation(pods, monkeypatch)
    told.tell("1")
    assert told.settle(PATIENCE)
    assert [pods.patches.get_nowait() for _try in range(3)] == ["1", "1", "1"]


def test_what_is_newer_does_not_wait_for_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = Pods(LostAnswer(0, "LostAnswer", "reset"))
    told = annotation(pods, monkeypatch, retry=3600)
    told.tell("1")
    assert pods.patches.get(timeout=PATIENCE) == "1"
    told.tell(None)
    assert told.settle(PATIENCE)
    assert pods.patches.get_nowait() is None


@pytest.mark.parametrize("gone", [NotFound(404, "NotFound", "x"), Conflict(409, "Conflict", "x")])
def test_a_pod_that_is_gone_is_told_nothing_more(monkeypatch: pytest.MonkeyPatch, gone: Exception) -> None:
    pods = Pods(gone)
    told = annotation(pods, monkeypatch)
    told.tell("1")
    assert told.settle(PATIENCE)
    told.tell("2")
    assert told.settle(PATIENCE)
    assert pods.patches.qsize() == 1

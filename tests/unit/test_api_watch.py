# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watching and following, against scripted conversations: what a bad network does, and what the consumer then sees."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils import api as api_module
from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    Api,
    ApiError,
    Change,
    Forbidden,
    Gone,
    LostAnswer,
    Put,
    Recovered,
    Removed,
    ServerError,
    Snapshot,
    Trouble,
    Unauthorized,
)
from ansible_collections.muster.coordination.plugins.module_utils.client import wire
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials, CredentialsError
from ansible_collections.muster.coordination.tests.support.scripted_server import (
    Exchange,
    Line,
    ScriptedServer,
    hang,
    reset,
    say,
    status,
    stream,
)


@pytest.fixture(autouse=True)
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "BACKOFF", (0.0, 0.0))


def obj(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def event(kind: str, name: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": obj(name, version)}


def listing(version: int, *items: dict[str, Any]) -> Line:
    return say(200, {"metadata": {"resourceVersion": str(version)}, "items": list(items)})


def watched_versions(server: ScriptedServer) -> list[str]:
    queries = (parse_qs(urlsplit(request.path).query) for request in server.requests)
    return [query["resourceVersion"][0] for query in queries if "watch" in query]


def told(changes: Iterator[Change], count: int) -> list[str]:
    """The next changes in words: `snapshot 5: a b`, `put a 6`, `removed a 7`, `trouble LostAnswer`, `recovered`."""
    words = []
    for _, change in zip(range(count), changes, strict=False):
        match change:
            case Snapshot(items, version):
                words.append(f"snapshot {version}: {' '.join(item['metadata']['name'] for item in items)}".rstrip())
            case Put(seen) | Removed(seen):
                what = type(change).__name__.lower()
                words.append(f"{what} {seen['metadata']['name']} {seen['metadata']['resourceVersion']}")
            case Trouble(error):
                words.append(f"trouble {type(error).__name__}")
            case Recovered():
                words.append("recovered")
    return words


# -- one watch --------------------------------------------------------------------------------------------------------


def test_a_watch_passes_everything_through_and_ends_with_the_server() -> None:
    events = [event("ADDED", "a", 6), event("MODIFIED", "a", 7), event("BOOKMARK", "", 8), event("DELETED", "a", 9)]
    with ScriptedServer(stream(*events)) as server:
        watch = Api(server.credentials()).watch(PODS, "team", resource_version="5")
        assert list(watch) == [(one["type"], one["object"]) for one in events]


@given(data=st.data())
def test_an_event_may_come_in_any_pieces(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(min_size=1, max_size=20), max_size=6))
    events = [event("ADDED", name, 6 + index) for index, name in enumerate(names)]
    text = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in events)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=10)))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    seen = list(wire.lines(_Pieces([piece for piece in pieces if piece])))  # type: ignore[arg-type]
    assert [json.loads(line) for line in seen] == events


class _Pieces:
    """An answer whose body comes in these chunks."""

    chunked = True

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def stream(self, amount: int) -> Iterator[bytes]:
        yield from self._pieces


def test_events_come_at_once_from_a_server_that_does_not_chunk() -> None:
    release = threading.Event()

    def unchunked(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(event("ADDED", "a", 6)).encode() + b"\n")
        release.wait(30)

    with ScriptedServer(unchunked) as server:
        watch = Api(server.credentials()).watch(PODS, "team", resource_version="5")
        assert next(watch)[0] == "ADDED"  # while the connection is still open
        release.set()
        assert list(watch) == []


def test_410_is_gone_as_a_status_and_as_an_event() -> None:
    late = {"type": "ERROR", "object": status("Expired", "too old resource version", code=410)}
    with ScriptedServer(say(410, status("Expired")), stream(late)) as server:
        api = Api(server.credentials())
        for _ in range(2):
            with pytest.raises(Gone):
                list(api.watch(PODS, "team", resource_version="5"))


def test_an_error_event_is_an_error() -> None:
    broken = {"type": "ERROR", "object": status("InternalError", "etcd is unwell", code=500)}
    with ScriptedServer(stream(broken)) as server, pytest.raises(ServerError, match="etcd is unwell"):
        list(Api(server.credentials()).watch(PODS, "team", resource_version="5"))


@pytest.mark.parametrize(
    "rubbish", [b"<html>\n", b'{"type": "ADDED"}\n', b"[1]\n", b'{"type": "ERROR", "object": 1}\n', b"\xff\xfe\n"]
)
def test_rubbish_is_a_lost_answer(rubbish: bytes) -> None:
    with ScriptedServer(stream(rubbish)) as server, pytest.raises(LostAnswer, match="something else than events"):
        list(Api(server.credentials()).watch(PODS, "team", resource_version="5"))


def test_an_event_without_bounds_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LINE_LIMIT", 1000)
    with ScriptedServer(stream(b"x" * 2000)) as server, pytest.raises(LostAnswer, match="longer than 1000 bytes"):
        list(Api(server.credentials()).watch(PODS, "team", resource_version="5"))


def test_half_an_event_is_none() -> None:
    with ScriptedServer(stream(event("ADDED", "a", 6), b'{"type": "ADD')) as server:
        assert len(list(Api(server.credentials()).watch(PODS, "team", resource_version="5"))) == 1


def test_a_silent_watch_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "STALL_SECONDS", 0.2)
    with ScriptedServer(stream(event("ADDED", "a", 6), hang)) as server:
        watch = Api(server.credentials()).watch(PODS, "team", resource_version="5", timeout=1)
        next(watch)
        with pytest.raises(LostAnswer, match="timed out"):
            next(watch)


# -- following --------------------------------------------------------------------------------------------------------


def test_follow_tells_what_is_and_then_what_changes() -> None:
    events = (event("ADDED", "b", 6), event("MODIFIED", "b", 7), event("BOOKMARK", "", 8), event("DELETED", "a", 9))
    with ScriptedServer(listing(5, obj("a", 3)), stream(*events, hang)) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team", name="a", label_selector="app=x")
        assert told(changes, 4) == ["snapshot 5: a", "put b 6", "put b 7", "removed a 9"]
        changes.close()
    for request in server.requests:
        query = parse_qs(urlsplit(request.path).query)
        assert (query["fieldSelector"], query["labelSelector"]) == (["metadata.name=a"], ["app=x"])


def test_follow_shrinks_each_object_as_it_comes() -> None:
    def shrink(obj: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {**obj["metadata"], "name": obj["metadata"]["name"] * 2}}

    events = (event("ADDED", "b", 6), event("BOOKMARK", "", 8), event("DELETED", "a", 9))
    with ScriptedServer(listing(5, obj("a", 3)), stream(*events, hang)) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team", shrink=shrink)
        assert told(changes, 3) == ["snapshot 5: aa", "put bb 6", "removed aa 9"]
        changes.close()


def test_follow_goes_on_where_a_watch_ended() -> None:
    script = (
        listing(5),
        stream(event("ADDED", "a", 6)),  # ended by the server, as it does after timeoutSeconds
        stream(event("BOOKMARK", "", 20)),
        stream(event("ADDED", "b", 21), end=False),  # cut
        stream(event("ADDED", "c", 22), hang),
    )
    with ScriptedServer(*script) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team")
        assert told(changes, 6) == ["snapshot 5:", "put a 6", "put b 21", "trouble LostAnswer", "recovered", "put c 22"]
        changes.close()
    assert watched_versions(server) == ["5", "6", "20", "21"]


@pytest.mark.parametrize(
    "line",
    [
        reset,
        say(500, status("InternalError")),
        say(503, status("ServiceUnavailable")),
        say(429, status("TooManyRequests")),
        say(403, status("Forbidden")),  # once it has worked, this passes: RBAC is being changed, or just starting
        say(401, status("Unauthorized")),
        stream(b"rubbish\n"),
    ],
)
def test_follow_outlives_trouble(line: Line) -> None:
    script = (listing(5), stream(event("ADDED", "a", 6)), line, line, stream(event("ADDED", "b", 7), hang))
    with ScriptedServer(*script) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team")
        words = [word for word in told(changes, 6) if word != "recovered"]
        assert words[:2] == ["snapshot 5:", "put a 6"]
        assert {word.split()[0] for word in words[2:-1]} == {"trouble"}
        more = words[-1:] if words[-1].startswith("put") else told(changes, 1)
        assert more == ["put b 7"]
        changes.close()


@pytest.mark.parametrize(
    "gone",
    [
        say(410, status("Expired")),
        stream({"type": "ERROR", "object": status("Expired", code=410)}),
    ],
)
def test_follow_lists_again_when_its_version_is_gone(gone: Line) -> None:
    script = (listing(5, obj("a", 5)), gone, listing(50, obj("b", 40)), stream(event("MODIFIED", "b", 51), hang))
    with ScriptedServer(*script) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team")
        assert told(changes, 3) == ["snapshot 5: a", "snapshot 50: b", "put b 51"]
        changes.close()


def test_follow_notices_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_module, "STALL_SECONDS", 0.2)
    script = (listing(5), stream(event("ADDED", "a", 6), hang), stream(event("ADDED", "b", 7), hang))
    with ScriptedServer(*script) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team", watch_timeout=1)
        assert told(changes, 5) == ["snapshot 5:", "put a 6", "trouble LostAnswer", "recovered", "put b 7"]
        changes.close()


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [(401, "Unauthorized", Unauthorized), (403, "Forbidden", Forbidden), (400, "BadRequest", ApiError)],
)
def test_a_mistake_of_the_user_is_raised_at_once(code: int, reason: str, error: type[ApiError]) -> None:
    no = say(code, status(reason))
    with ScriptedServer(no, listing(5), no) as server:
        with pytest.raises(error):
            next(Api(server.credentials()).follow(CONFIGMAPS, "team"))
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team")
        assert told(changes, 1) == ["snapshot 5:"]
        with pytest.raises(error):
            next(changes)  # it may list and not watch: a mistake too


def test_an_unknown_kind_is_raised_at_once() -> None:
    with ScriptedServer(say(404, b"404 page not found")) as server, pytest.raises(ApiError, match="CRD installed"):
        next(Api(server.credentials()).follow(CONFIGMAPS, "team"))


def test_an_api_server_that_is_not_there_yet_is_waited_for() -> None:
    with ScriptedServer(reset, reset, say(503, status("ServiceUnavailable")), listing(5), stream(hang)) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team")
        assert told(changes, 4) == ["trouble LostAnswer", "trouble ServerError", "snapshot 5:", "recovered"]
        changes.close()


def test_lost_credentials_are_a_mistake_first_and_trouble_later(tmp_path: Any) -> None:
    token = tmp_path / "token"
    user = {"name": "u", "user": {"tokenFile": str(token)}}

    def lose(exchange: Exchange) -> None:
        token.unlink()
        say(401, status("Unauthorized"))(exchange)

    with ScriptedServer(listing(5), stream(), lose) as server:
        kubeconfig = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [user],
        }
        with pytest.raises(CredentialsError, match="token file"):
            next(Api(Credentials.load({"kubeconfig": kubeconfig}, {})).follow(CONFIGMAPS, "team"))
        token.write_text("t")
        changes = Api(Credentials.load({"kubeconfig": kubeconfig}, {})).follow(CONFIGMAPS, "team")
        assert told(changes, 2) == ["snapshot 5:", "trouble CredentialsError"]
        changes.close()


# -- stopping ---------------------------------------------------------------------------------------------------------


def _follow_in_a_thread(api: Api, stop: threading.Event | None, seen: threading.Event) -> threading.Thread:
    def work() -> None:
        for _ in api.follow(CONFIGMAPS, "team", stop=stop):
            seen.set()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("script", [(listing(5), stream(hang)), (listing(5), hang), (hang,)])
def test_stop_ends_a_blocked_read(script: tuple[Line, ...]) -> None:
    stop, seen = threading.Event(), threading.Event()
    with ScriptedServer(*script) as server:
        thread = _follow_in_a_thread(Api(server.credentials(), timeout=3600.0), stop, seen)
        _until(lambda: len(server.requests) == len(script))
        stop.set()
        thread.join(30)  # the read itself would take an hour
        assert not thread.is_alive()


def test_close_ends_a_blocked_read() -> None:
    with ScriptedServer(listing(5), stream(hang)) as server:
        api = Api(server.credentials(), timeout=3600.0)
        thread = _follow_in_a_thread(api, None, threading.Event())
        _until(lambda: len(server.requests) == 2)
        api.close()
        thread.join(30)
        assert not thread.is_alive()


def test_a_stopped_follow_does_not_ask() -> None:
    stop = threading.Event()
    stop.set()
    with ScriptedServer() as server:
        assert list(Api(server.credentials()).follow(CONFIGMAPS, "team", stop=stop)) == []


def test_the_thread_behind_stop_ends_when_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire.Interrupts, "IDLE_SECONDS", 0.05)
    others = set(threading.enumerate())
    with ScriptedServer(listing(5), stream(event("ADDED", "a", 6), hang)) as server:
        changes = Api(server.credentials()).follow(CONFIGMAPS, "team", stop=threading.Event())
        told(changes, 2)
        (behind,) = (t for t in set(threading.enumerate()) - others if t.name == "muster-stop")
        changes.close()
        behind.join(30)
        assert not behind.is_alive()


def _until(condition: Any) -> None:
    waiting = threading.Event()
    for _ in range(3000):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError("it did not happen within 30 s")


def test_requests_of_others_are_not_stopped() -> None:
    """While a follow is suspended between two changes, its thread asks for something else: stop is not for that."""
    stop = threading.Event()
    with ScriptedServer(listing(5), stream(event("ADDED", "a", 6), hang), say(200, obj("a", 6))) as server:
        api = Api(server.credentials())
        changes = api.follow(CONFIGMAPS, "team", stop=stop)
        told(changes, 2)
        stop.set()
        assert api.get(CONFIGMAPS, "a", "team") == obj("a", 6)
        assert told(changes, 1) == []

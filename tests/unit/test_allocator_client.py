# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client of an allocator: what it sends how often, and what it makes of answers and of none."""

from __future__ import annotations

import json
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.muster.coordination.plugins.module_utils.client import allocator as clients
from ansible_collections.muster.coordination.plugins.module_utils.client.allocator import (
    AllocatorClient,
    KubernetesToken,
    Later,
    Misunderstood,
    NoAllocator,
    NoAnswer,
    Put,
    Removed,
    Snapshot,
    Trouble,
    Unauthenticated,
    is_private,
    parse_url,
    tls_of,
    token_in,
    token_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import (
    Credentials,
    CredentialsError,
    Tls,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    REFUSALS,
    Busy,
    KeyReused,
    NotThere,
    QuotaSpent,
    Refused,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.scripted_server import (
    Exchange,
    Line,
    ScriptedServer,
    hang,
    reset,
    say,
    stream,
)

SECRET = "very-secret"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PAUSES", (0.001, 0.002))
    monkeypatch.setattr(clients, "LOOK_SECONDS", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def client_of(server: ScriptedServer, **options: Any) -> AllocatorClient:
    return AllocatorClient(server.url, options.pop("token", token_of(SECRET, "the token")), **options)


def instance(name: str = "a", **more: Any) -> dict[str, Any]:
    return {"name": name, "phase": "Ready", **more}


def problem(word: str, status: int, detail: str = "as the script says", **more: Any) -> Line:
    document = {"type": f"urn:muster:allocator:{word}", "title": "t", "status": status, "detail": detail, **more}
    return say(status, document, Content_Type="application/problem+json", **({} if status < 429 else RETRY))


RETRY = {"Retry_After": "0"}


def half(exchange: Exchange) -> None:
    """An answer that breaks off."""
    exchange.raw(b'HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{"name": ')


# ------------------------------------------------------------------------------------------ what is sent


def test_each_call_is_what_the_interface_says() -> None:
    answers = [say(200, {"items": []}), say(200, {"items": [], "continue": ""}), say(200, {}), say(200, {})]
    with ScriptedServer(*answers, *(say(202, instance()) for _number in range(7)), say(200, {"items": []})) as server:
        client = client_of(server)
        client.disks()
        client.listed()
        client.get("a b/../c")
        client.offer()
        client.destroy("a")
        client.destroy("a", "retain")
        client.suspend("a", True)
        client.suspend("a", False)
        client.reset("a", 3)
        client.remove_disk("d")
        client.create("k", {"storage": "retain"}, dry_run=True)
        client.events("a")
    asked = [f"{request.method} {request.path}" for request in server.requests]
    assert asked == [
        "GET /v1/disks",
        "GET /v1/instances?limit=500",
        "GET /v1/instances/a%20b%2F..%2Fc",
        "GET /v1/offer",
        "DELETE /v1/instances/a",
        "DELETE /v1/instances/a?storage=retain",
        "POST /v1/instances/a:suspend",
        "POST /v1/instances/a:resume",
        "POST /v1/instances/a:reset",
        "DELETE /v1/disks/d",
        "POST /v1/instances?dryRun=true",
        "GET /v1/instances/a/events",
    ]
    assert server.requests[8].json() == {"resets": 3}
    assert server.requests[10].json() == {"storage": "retain"}
    assert server.requests[10].headers["Idempotency-Key"] == "k"
    assert server.requests[10].headers["Content-Type"] == "application/json"
    assert {request.headers["Authorization"] for request in server.requests} == {f"Bearer {SECRET}"}


def test_a_list_is_read_to_its_end() -> None:
    pages = [say(200, {"items": [instance("a")], "continue": "t&k"}), say(200, {"items": [instance("b")]})]
    with ScriptedServer(*pages) as server:
        assert [each["name"] for each in client_of(server).listed(everything=True)] == ["a", "b"]
    assert server.requests[1].path == "/v1/instances?limit=500&continue=t%26k&all=true"


@pytest.mark.parametrize("trouble", [reset, problem("overloaded", 503), problem("throttled", 429), say(502, b"bad")])
def test_a_read_is_sent_again(trouble: Line) -> None:
    told: list[str] = []
    with ScriptedServer(trouble, trouble, say(200, instance())) as server:
        assert client_of(server, tell=told.append).get("a") == instance()
    assert len(told) == 2


def test_a_creation_is_sent_again_with_its_key_and_no_other() -> None:
    troubles = [
        reset,
        problem("unavailable", 503),
        problem("conflict", 409),
        half,
        say(200, instance()),
    ]
    with ScriptedServer(*troubles) as server:
        made = client_of(server).create("k-1", {"parameters": {"size": 3}})
    assert made == (instance(), True)
    assert {request.headers["Idempotency-Key"] for request in server.requests} == {"k-1"}
    assert {request.body for request in server.requests} == {server.requests[0].body}


def test_whether_it_is_new_is_what_the_answer_says() -> None:
    with ScriptedServer(
        say(201, instance()), say(200, instance()), problem("unavailable", 503), say(200, {})
    ) as server:
        client = client_of(server)
        assert client.create("k", {}).is_new
        assert not client.create("k", {}).is_new
        assert not client.create("k", {}).is_new  # the first try was refused, and made nothing


@pytest.mark.parametrize("call", ["destroy", "suspend", "remove_disk"])
def test_nothing_else_is_sent_twice(call: str) -> None:
    arguments = ("a", True) if call == "suspend" else ("a",)
    for trouble, error in ((reset, NoAnswer), (problem("unavailable", 503), Later)):
        with ScriptedServer(trouble) as server, pytest.raises(error):
            getattr(client_of(server), call)(*arguments)


def test_patience_ends() -> None:
    with ScriptedServer(problem("overloaded", 503, "too much")) as server, pytest.raises(Later, match="too much"):
        client_of(server, patience=0.0).get("a")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NoAnswer, match=r"no connection to .*refused.*is the allocator running") as raised:
        AllocatorClient(f"http://127.0.0.1:{port}", token_of("t", "t"), patience=0).listed()
    assert not raised.value.is_sent


def test_a_silent_server_is_given_up() -> None:
    with ScriptedServer(hang) as server, pytest.raises(NoAnswer) as raised:
        client_of(server, timeout=0.2).destroy("a")
    assert raised.value.is_sent


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("kind", REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_comes_out_as_it_went_in(kind: type[Refused]) -> None:
    line = problem(kind.word, kind.status, "in these words", limit=1)
    with ScriptedServer(line) as server, pytest.raises(kind, match=r"^in these words$") as raised:
        client_of(server, patience=0).get("a")
    assert type(raised.value) is kind and raised.value.members == {"limit": 1}


def test_members_of_a_quota() -> None:
    line = problem("quota", 403, limit=3, used=3, scope="owner")
    with ScriptedServer(line) as server, pytest.raises(QuotaSpent) as raised:
        client_of(server).create("k", {})
    assert raised.value.members == {"limit": 3, "used": 3, "scope": "owner"}


@pytest.mark.parametrize(("word", "status"), [("malformed", 400), ("too-large", 413), ("of-tomorrow", 418)])
def test_what_is_not_known_is_told_all_the_same(word: str, status: int) -> None:
    line = problem(word, status, "parameters.size is 3")
    with ScriptedServer(line) as server, pytest.raises(Misunderstood, match=r"parameters\.size is 3"):
        client_of(server).create("k", {})


def test_a_key_of_another_request_is_no_reason_to_try_again() -> None:
    with ScriptedServer(problem("key-reused", 422)) as server, pytest.raises(KeyReused):
        client_of(server).create("k", {})


@pytest.mark.parametrize(
    "line", [say(404, b"<html>"), say(302, b"", Location="http://127.0.0.1:1/"), say(200, b"<html>"), say(200, [])]
)
def test_what_is_no_allocator_is_named(line: Line) -> None:
    with ScriptedServer(line) as server, pytest.raises(NoAllocator, match=f"{server.url}.*is that the URL"):
        client_of(server).get("a")


# ------------------------------------------------------------------------------------------ tokens


def test_a_new_token_is_read_when_the_old_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("old\n")

    def renew(exchange: Exchange) -> None:
        path.write_text("new\n")
        problem("unauthenticated", 401)(exchange)

    with ScriptedServer(renew, say(200, instance()), problem("unauthenticated", 401, "unknown")) as server:
        client = client_of(server, token=token_in(str(path)))
        assert client.get("a") == instance()
        with pytest.raises(Unauthenticated, match="unknown: renew the token"):
            client.get("a")
    assert [request.headers["Authorization"] for request in server.requests] == [
        "Bearer old",
        "Bearer new",
        "Bearer new",
    ]


def test_a_token_is_in_no_message(tmp_path: Path) -> None:
    with ScriptedServer(reset, problem("unauthenticated", 401), say(404, b"x")) as server:
        client = client_of(server, patience=0)
        for _number in range(3):
            with pytest.raises(Exception) as raised:
                client.get("a")
            assert SECRET not in str(raised.value) + repr(raised.value.__cause__)
    assert SECRET not in repr(vars(client))


def kubernetes(host: str = "https://10.0.0.1", **options: Any) -> KubernetesToken:
    return KubernetesToken(Credentials.load({"host": host, **options}, {}))


def test_the_token_of_kubernetes_is_not_sent_in_the_clear() -> None:
    token = kubernetes(api_key=SECRET)
    with pytest.raises(CredentialsError, match=r"not sent to http://allocator\.example\.com.*https"):
        AllocatorClient("http://allocator.example.com", token)
    AllocatorClient("https://allocator.example.com", token)
    with ScriptedServer(say(200, instance())) as server:
        client_of(server, token=token).get("a")
    assert server.requests[0].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("url", "outside", "in_pod"),
    [
        ("https://allocator.example.com", True, True),
        ("http://127.0.0.1:8400", True, True),
        ("http://[::1]:8400", True, True),
        ("http://localhost", True, True),
        ("http://allocator:8400", False, True),
        ("http://allocator.team.svc:8400", False, True),
        ("http://allocator.team.svc.cluster.local", False, True),
        ("http://allocator.example.com", False, False),
        ("http://127.0.0.1.example.com", False, False),
        ("http://10.0.0.9", False, False),
        ("http://[fd00::1]", False, False),
    ],
)
def test_where_a_token_of_kubernetes_may_go(url: str, outside: bool, in_pod: bool) -> None:
    assert (is_private(url, in_pod=False), is_private(url, in_pod=True)) == (outside, in_pod)


def test_a_login_without_a_token_is_said() -> None:
    token = kubernetes(username="u", password="p")
    with ScriptedServer() as server, pytest.raises(CredentialsError, match="without a bearer token"):
        client_of(server, token=token).get("a")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("allocator", "give a URL"),
        ("ftp://a", "give a URL"),
        ("http://", "give a URL"),
        ("http://a:99999", "give a URL"),
        ("http://a b", "give a URL"),
        ("http://u:p@a", "leave the password out"),
        ("http://a/?x=1", "leave out"),
    ],
)
def test_what_is_no_url_is_refused(url: str, says: str) -> None:
    with pytest.raises(Malformed, match=f"^--allocator is .*{says}") as raised:
        parse_url(url, "--allocator")
    assert "u:p" not in str(raised.value)


def test_a_url_may_have_a_path() -> None:
    with ScriptedServer(say(200, instance())) as server:
        AllocatorClient(f"{server.url}/team/", token_of("t", "t")).get("a")
    assert server.requests[0].path == "/team/v1/instances/a"


# ------------------------------------------------------------------------------------------ TLS


def certificate(directory: Path, address: str) -> Path:
    """A self-signed one for that address, with its key."""
    now = datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "allocator")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    text = made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, form, plain)
    path = directory / f"{address}.pem"
    path.write_bytes(text)
    return path


def over_tls(server: ScriptedServer, path: Path) -> str:
    """Have the server speak TLS from now on; its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    return server.url.replace("http:", "https:")


def test_whom_the_ca_file_names_is_trusted_and_nobody_else(tmp_path: Path) -> None:
    path, token = certificate(tmp_path, "127.0.0.1"), token_of("t", "t")
    with ScriptedServer(say(200, instance()), say(200, instance())) as server:
        url = over_tls(server, path)
        assert AllocatorClient(url, token, tls=tls_of(str(path))).get("a") == instance()
        assert AllocatorClient(url, token, tls=tls_of(None, verify=False)).get("a") == instance()
        other = certificate(tmp_path, "127.0.0.2")
        for tls in (Tls(), tls_of(None), tls_of(str(other))):
            with pytest.raises(NoAllocator, match=r"is not trusted: certificate verify failed.*name the CA"):
                AllocatorClient(url, token, tls=tls).get("a")


def test_a_certificate_for_another_address_is_not_trusted(tmp_path: Path) -> None:
    path = certificate(tmp_path, "10.0.0.1")
    with ScriptedServer() as server, pytest.raises(NoAllocator, match="is not trusted"):
        AllocatorClient(over_tls(server, path), token_of("t", "t"), tls=tls_of(str(path))).get("a")


def test_who_does_not_speak_tls_is_said() -> None:
    with ScriptedServer() as server, pytest.raises(NoAllocator, match="should the URL begin with http://"):
        AllocatorClient(server.url.replace("http:", "https:"), token_of("t", "t"), timeout=5).get("a")


# ------------------------------------------------------------------------------------------ watching


def event(kind: str, name: str = "", **more: Any) -> dict[str, Any]:
    return {"type": kind, "instance": instance(name, **more) if name else None}


def taken(changes: Any, number: int) -> list[Any]:
    """Kinds and contents: as tuples, a Put and a Removed of the same would be equal."""
    return [(type(change), *change) for change in (next(changes) for _number in range(number))]


def test_a_watch_goes_on_where_its_server_is_replaced() -> None:
    first = [event("ADDED", "a"), event("ADDED", "b"), event("BOOKMARK"), event("MODIFIED", "a", phase="Suspended")]
    second = [event("ADDED", "a"), event("BOOKMARK"), event("BOOKMARK"), event("DELETED", "a")]
    with ScriptedServer(stream(*first), problem("overloaded", 503), reset, stream(*second, hang)) as server:
        changes = client_of(server).watch()
        assert taken(changes, 2) == [
            (Snapshot, [instance("a"), instance("b")]),
            (Put, instance("a", phase="Suspended")),
        ]
        assert [kind for kind, *_content in taken(changes, 2)] == [Trouble, Trouble]
        assert taken(changes, 2) == [(Snapshot, [instance("a")]), (Removed, instance("a"))]


@pytest.mark.parametrize("line", [b"[]\n", b"{}\n", b'{"type": "NEWS", "instance": {"name": "a"}}\n', b"x\n"])
def test_what_is_no_event_is_trouble(line: bytes) -> None:
    with ScriptedServer(stream(line), stream(event("BOOKMARK"), hang)) as server:
        assert [kind for kind, *_content in taken(client_of(server).watch(), 2)] == [Trouble, Snapshot]


def test_what_only_a_person_mends_ends_a_watch_that_never_stood() -> None:
    with ScriptedServer(problem("unauthenticated", 401)) as server, pytest.raises(Unauthenticated):
        next(client_of(server).watch())


def test_a_watch_ends_at_its_deadline_whatever_is_said_meanwhile() -> None:
    def chatter(exchange: Exchange) -> None:
        while not exchange.ended.wait(0.05):
            exchange.chunk(json.dumps(event("BOOKMARK")).encode() + b"\n")

    for rest in (hang, chatter):
        with ScriptedServer(stream(event("BOOKMARK"), rest)) as server:
            assert list(client_of(server).watch(deadline=time.monotonic() + 2)) == [Snapshot([])]


def test_one_instance_is_followed_to_its_end() -> None:
    events = [event("ADDED", "a"), event("ADDED", "b"), event("BOOKMARK"), event("DELETED", "b"), event("DELETED", "a")]
    with ScriptedServer(stream(*events, hang)) as server:
        followed = client_of(server).follow("a", time.monotonic() + 60)
        assert [next(followed), next(followed)] == [instance("a"), None]


def test_what_no_watch_tells_of_is_looked_at() -> None:
    lines = [stream(event("BOOKMARK"), hang), say(200, instance("a", phase="Creating")), say(200, instance("a"))]
    with ScriptedServer(*lines, problem("not-found", 404)) as server:
        followed = client_of(server).follow("a", time.monotonic() + 60)
        assert next(followed) == instance("a", phase="Creating")
        assert next(followed) == instance("a")
        assert next(followed) is None


def test_what_is_gone_when_it_is_followed_is_told() -> None:
    with ScriptedServer(stream(event("BOOKMARK"), hang), problem("not-found", 404)) as server:
        assert next(client_of(server).follow("a", time.monotonic() + 60)) is None


def test_refusals_of_a_missing_instance_and_of_one_that_changes() -> None:
    with ScriptedServer(problem("not-found", 404), problem("conflict", 409)) as server:
        client = client_of(server, patience=0)
        with pytest.raises(NotThere):
            client.get("a")
        with pytest.raises(Busy):
            client.suspend("a", True)

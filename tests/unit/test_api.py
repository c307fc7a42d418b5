# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and answers of the API client, against scripted conversations."""

from __future__ import annotations

import socket
import threading
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ansible_collections.muster.coordination.plugins.module_utils import api as api_module
from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    NAMESPACES,
    PODS,
    AlreadyExists,
    Api,
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    LostAnswer,
    NotFound,
    Resource,
    ServerError,
    Throttled,
    Unauthorized,
    Unreachable,
)
from ansible_collections.muster.coordination.plugins.module_utils.client import wire
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.scripted_server import (
    Exchange,
    ScriptedServer,
    hang,
    reset,
    say,
    status,
    stream,
)

READ = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "x", "namespace": "team", "uid": "u-1", "resourceVersion": "7"},
}


def client(server: ScriptedServer, **options: Any) -> Api:
    return Api(server.credentials(**options), timeout=5.0)


def page(*names: str, version: str = "10", following: str = "") -> dict[str, Any]:
    metadata = {"resourceVersion": version, **({"continue": following} if following else {})}
    return {"kind": "List", "metadata": metadata, "items": [{"metadata": {"name": name}} for name in names]}


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_a_read_asks_the_quorum() -> None:
    with ScriptedServer(say(200, READ)) as server:
        assert client(server).get(CONFIGMAPS, "x", "team") == READ
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", "/api/v1/namespaces/team/configmaps/x")  # no resourceVersion
    assert request.headers["Authorization"] == "Bearer secret-token"
    assert request.headers["User-Agent"].startswith("muster")


@pytest.mark.parametrize(
    ("resource", "namespace", "path"),
    [
        (CONFIGMAPS, "team", "/api/v1/namespaces/team/configmaps/x"),
        (NAMESPACES, None, "/api/v1/namespaces/x"),
        (LEASES, "team", "/apis/coordination.k8s.io/v1/namespaces/team/leases/x"),
        (
            Resource("muster.dev/v1alpha1", "swarms", "Swarm"),
            "team",
            "/apis/muster.dev/v1alpha1/namespaces/team/swarms/x",
        ),
    ],
)
def test_paths(resource: Resource, namespace: str | None, path: str) -> None:
    with ScriptedServer(say(200, READ)) as server:
        client(server).get(resource, "x", namespace)
    assert server.requests[0].path == path


def test_a_servers_url_may_have_a_path() -> None:
    with ScriptedServer(say(200, READ)) as server:
        Api(Credentials.load({"host": server.url + "/k8s/clusters/c-1/", "api_key": "t"}, {})).get(NAMESPACES, "x")
    assert server.requests[0].path == "/k8s/clusters/c-1/api/v1/namespaces/x"


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../secrets/x", "a%2Fb"])
def test_a_name_cannot_lead_elsewhere(name: str) -> None:
    with ScriptedServer() as server:
        for ask in (lambda: client(server).get(CONFIGMAPS, name, "team"), lambda: client(server).list(PODS, name)):
            with pytest.raises(Malformed, match=r"ConfigMap|Pod"):
                ask()


def test_a_replace_is_a_full_put_of_what_was_read() -> None:
    with ScriptedServer(say(200, READ), say(200, READ)) as server:
        client(server).replace(CONFIGMAPS, READ)
        client(server).replace(CONFIGMAPS, READ, "status")
    first, second = server.requests
    assert (first.method, first.path, first.json()) == ("PUT", "/api/v1/namespaces/team/configmaps/x", READ)
    assert second.path.endswith("/configmaps/x/status")
    assert first.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("field", ["resourceVersion", "uid", "name"])
def test_a_replace_without_its_precondition_is_not_sent(field: str) -> None:
    metadata = {name: value for name, value in READ["metadata"].items() if name != field}  # type: ignore[attr-defined]
    with ScriptedServer() as server, pytest.raises(ValueError, match=field):
        client(server).replace(CONFIGMAPS, {**READ, "metadata": metadata})


def test_a_patch_sends_what_it_was_given_and_the_uid_it_is_for() -> None:
    changes = {"metadata": {"name": "x", "namespace": "team", "uid": "u-1", "annotations": {"a": "1", "b": None}}}
    with ScriptedServer(say(200, READ)) as server:
        assert client(server).patch(PODS, changes) == READ
    (request,) = server.requests
    assert (request.method, request.path, request.json()) == ("PATCH", "/api/v1/namespaces/team/pods/x", changes)
    assert request.headers["Content-Type"] == "application/merge-patch+json"


@pytest.mark.parametrize("field", ["name", "uid"])
def test_a_patch_without_its_precondition_is_not_sent(field: str) -> None:
    metadata = {name: value for name, value in {"name": "x", "uid": "u-1"}.items() if name != field}
    with ScriptedServer() as server, pytest.raises(ValueError, match=field):
        client(server).patch(PODS, {"metadata": metadata})


def test_a_patch_of_a_name_that_somebody_else_uses_now_is_a_conflict() -> None:
    """The server calls it invalid: a uid is immutable."""
    changes = {"metadata": {"name": "x", "namespace": "team", "uid": "u-1"}}
    taken, other = (status("Invalid", f"{field}: field is immutable") for field in ("metadata.uid", "spec.nodeName"))
    with ScriptedServer(say(422, taken), say(422, other)) as server:
        with pytest.raises(Conflict, match="another one of this name, not u-1"):
            client(server).patch(PODS, changes)
        with pytest.raises(Invalid, match=r"spec\.nodeName"):
            client(server).patch(PODS, changes)


def test_a_list_of_metadata_only_leaves_out_who_wrote_which_field() -> None:
    listed = {**page("a", "b"), "items": [{"metadata": {"name": "a", "managedFields": [{"manager": "kubelet"}]}}]}
    with ScriptedServer(say(200, listed), say(200, listed)) as server:
        (only,) = client(server).list(PODS, "team", metadata_only=True).items
        (whole,) = client(server).list(PODS, "team").items
    assert "managedFields" not in only["metadata"] and "managedFields" in whole["metadata"]


def test_a_create_posts_to_the_collection() -> None:
    with ScriptedServer(say(201, READ)) as server:
        client(server).create(CONFIGMAPS, {"metadata": {"name": "x", "namespace": "team"}})
        with pytest.raises(ValueError, match=r"metadata\.namespace"):
            client(server).create(CONFIGMAPS, {"metadata": {"name": "x"}})
    assert (server.requests[0].method, server.requests[0].path) == ("POST", "/api/v1/namespaces/team/configmaps")


def test_a_delete_carries_preconditions() -> None:
    with ScriptedServer(say(200, status("")), say(200, status(""))) as server:
        client(server).delete(CONFIGMAPS, "x", "team", uid="u-1", resource_version="7")
        client(server).delete(CONFIGMAPS, "x", "team")
    assert server.requests[0].json()["preconditions"] == {"uid": "u-1", "resourceVersion": "7"}
    assert server.requests[1].json()["preconditions"] == {}


def test_impersonation_sends_every_group_in_its_own_header() -> None:
    with ScriptedServer(say(200, READ)) as server:
        client(server, impersonate_user="ann", impersonate_groups=["a", "b, c"]).get(NAMESPACES, "x")
    headers = server.requests[0].headers
    assert headers["Impersonate-User"] == "ann"
    assert headers.get_all("Impersonate-Group") == ["a", "b, c"]


# -- lists ------------------------------------------------------------------------------------------------------------


def test_a_list_is_whole_and_typed() -> None:
    pages = (say(200, page("a", "b", following="next")), say(200, page("c")))
    with ScriptedServer(*pages) as server:
        listing = client(server).list(
            CONFIGMAPS, "team", label_selector="app=x", field_selector="metadata.name=a", limit=2
        )
    assert [item["metadata"]["name"] for item in listing.items] == ["a", "b", "c"]
    assert listing.resource_version == "10"
    assert {item["kind"] for item in listing.items} == {"ConfigMap"}
    first, second = (parse_qs(urlsplit(request.path).query) for request in server.requests)
    assert first == {"limit": ["2"], "labelSelector": ["app=x"], "fieldSelector": ["metadata.name=a"]}
    assert second == {**first, "continue": ["next"]}


def test_a_list_that_expires_in_the_middle_begins_again() -> None:
    gone = say(410, status("Expired"))
    script = (say(200, page("old", following="n")), gone, say(200, page("new", version="11")))
    with ScriptedServer(*script) as server:
        assert client(server).list(CONFIGMAPS) == ([*_named("new")], "11")


def test_a_list_that_expires_again_and_again_is_asked_for_in_one_piece() -> None:
    gone = say(410, status("Expired"))
    first = say(200, page("old", following="n"))
    with ScriptedServer(first, gone, first, gone, say(200, page("a", "b"))) as server:
        assert len(client(server).list(CONFIGMAPS).items) == 2
    assert "limit" not in server.requests[-1].path


def test_metadata_only_asks_for_partial_objects() -> None:
    with ScriptedServer(say(200, page("a"))) as server:
        client(server).list(PODS, "team", metadata_only=True)
    assert "as=PartialObjectMetadataList" in server.requests[0].headers["Accept"]


def _named(*names: str) -> list[dict[str, Any]]:
    return [{"metadata": {"name": name}, "apiVersion": "v1", "kind": "ConfigMap"} for name in names]


# -- what is answered -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "error"),
    [
        (400, "BadRequest", ApiError),
        (401, "Unauthorized", Unauthorized),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (410, "Gone", Gone),
        (413, "RequestEntityTooLarge", ApiError),
        (422, "Invalid", Invalid),
        (429, "TooManyRequests", Throttled),
        (500, "InternalError", ServerError),
        (503, "ServiceUnavailable", ServerError),
        (504, "Timeout", ServerError),
    ],
)
def test_a_bad_status_is_an_error_of_its_kind(code: int, reason: str, error: type[ApiError]) -> None:
    words = r"^update configmaps team/x: .*what the server says"
    script = say(code, status(reason, "what the server says"))
    with ScriptedServer(script) as server, pytest.raises(ApiError, match=words) as caught:
        client(server).replace(CONFIGMAPS, READ)
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.reason) == (code, reason)
    assert caught.value.message == "what the server says"


@pytest.mark.parametrize(
    ("code", "document", "remedy"),
    [
        (401, status("Unauthorized"), "the connection options: renew them"),
        (403, status("Forbidden"), r"Allow the verb update on configmaps \(apiGroup \"\"\) in namespace team"),
        (404, status("NotFound", details={"kind": "namespaces", "name": "team"}), "kubectl create namespace team"),
        (404, b"404 page not found\n", "does not serve ConfigMap in v1"),
        (400, b"Client sent an HTTP request to an HTTPS server.\n", "begin with https://"),
        (302, b"", "Redirects are not followed"),
    ],
)
def test_an_error_names_the_remedy(code: int, document: Any, remedy: str) -> None:
    script = say(code, document, Location="/elsewhere")
    with ScriptedServer(script) as server, pytest.raises(ApiError, match=remedy):
        client(server).replace(CONFIGMAPS, READ)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [({"Retry_After": "3"}, {}, 3.0), ({}, {"retryAfterSeconds": 4}, 4.0), ({}, {}, None)],
)
def test_retry_after(headers: dict[str, str], details: dict[str, Any], seconds: float | None) -> None:
    script = say(429, status("TooManyRequests", details=details), **headers)
    with ScriptedServer(script) as server, pytest.raises(Throttled) as caught:
        client(server).replace(CONFIGMAPS, READ)
    assert caught.value.retry_after == seconds


def test_a_read_waits_when_it_is_told_to() -> None:
    with ScriptedServer(say(429, status("TooManyRequests"), Retry_After="1"), say(200, READ)) as server:
        assert client(server).get(CONFIGMAPS, "x", "team") == READ


def test_a_read_does_not_wait_beyond_its_time() -> None:
    with ScriptedServer(say(429, status("TooManyRequests"), Retry_After="3600")) as server, pytest.raises(Throttled):
        client(server).get(CONFIGMAPS, "x", "team")


def test_what_is_not_json_is_refused() -> None:
    login = say(200, b"<html>please log in</html>")
    with ScriptedServer(login, login) as server:
        with pytest.raises(ApiError, match="proxy or login page") as caught:
            client(server).get(CONFIGMAPS, "x", "team")
        assert not isinstance(caught.value, LostAnswer)
        with pytest.raises(LostAnswer):  # whatever answered there: nobody knows what became of the write
            client(server).replace(CONFIGMAPS, READ)


def test_an_answer_without_bounds_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "ANSWER_LIMIT", 1000)
    big = say(200, {"data": "x" * 2000})
    with ScriptedServer(big) as server, pytest.raises(LostAnswer, match="larger than 1000 bytes"):
        client(server).replace(CONFIGMAPS, READ)


# -- broken connections -----------------------------------------------------------------------------------------------


def test_refused_means_that_nothing_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    api = Api(Credentials.load({"host": f"http://127.0.0.1:{port}", "api_key": "t"}, {}))
    with pytest.raises(Unreachable, match=r"Connection refused\. Is the API server running"):
        api.replace(CONFIGMAPS, READ)


def test_an_unknown_host_means_that_nothing_was_sent() -> None:
    api = Api(Credentials.load({"host": "http://no-such-host.invalid:6443", "api_key": "t"}, {}))
    with pytest.raises(Unreachable, match=r"no-such-host\.invalid"):
        api.replace(CONFIGMAPS, READ)


def test_a_server_that_does_not_speak_tls_means_that_nothing_was_sent() -> None:
    with ScriptedServer() as server:
        url = server.url.replace("http:", "https:")
        api = Api(Credentials.load({"host": url, "api_key": "t", "validate_certs": False}, {}))
        with pytest.raises(Unreachable):
            api.replace(CONFIGMAPS, READ)


def _cut_in_the_body(exchange: Exchange) -> None:
    exchange.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"kind": ')


def _cut_in_the_chunks(exchange: Exchange) -> None:
    exchange.begin_stream()
    exchange.chunk(b'{"kind": ')
    exchange.close()


def _close_without_a_word(exchange: Exchange) -> None:
    exchange.close()


@pytest.mark.parametrize("line", [reset, _close_without_a_word, _cut_in_the_body, _cut_in_the_chunks])
def test_a_write_without_an_answer_is_ambiguous_and_is_not_repeated(line: Any) -> None:
    with ScriptedServer(line) as server, pytest.raises(LostAnswer, match=r"update configmaps team/x: .* was lost"):
        client(server).replace(CONFIGMAPS, READ)
    assert len(server.requests) == 1


def test_a_write_that_is_not_answered_in_time_is_ambiguous() -> None:
    with ScriptedServer(hang) as server, pytest.raises(LostAnswer, match="timed out"):
        Api(server.credentials(), timeout=0.3).replace(CONFIGMAPS, READ)


def test_an_answer_that_trickles_is_cut_at_the_time_out() -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.begin_stream()
        while not exchange.ended.wait(0.02):
            exchange.chunk(b" ")

    with ScriptedServer(trickle) as server, pytest.raises(LostAnswer, match="did not end in time"):
        Api(server.credentials(), timeout=0.5).replace(CONFIGMAPS, READ)


@pytest.mark.parametrize("line", [reset, _cut_in_the_body])
def test_a_read_is_repeated_once(line: Any) -> None:
    with ScriptedServer(line, say(200, READ), line, line) as server:
        assert client(server).get(CONFIGMAPS, "x", "team") == READ
        with pytest.raises(LostAnswer):
            client(server).get(CONFIGMAPS, "x", "team")


def test_an_idle_connection_that_the_server_closed_is_replaced_before_a_write() -> None:
    def answer_and_close(exchange: Exchange) -> None:
        exchange.answer(200, b"{}")  # without announcing it
        exchange.close()
        closed.set()

    closed = threading.Event()
    with ScriptedServer(answer_and_close, say(200, READ)) as server:
        api = client(server)
        api.get(CONFIGMAPS, "x", "team")
        assert closed.wait(10)
        _until_dropped(api)
        assert api.replace(CONFIGMAPS, READ) == READ


def _until_dropped(api: Api) -> None:
    """Wait until the idle connection's end has arrived here."""
    import select

    (key,) = api._wire._pools.pools.keys()
    pool = api._wire._pools.pools[key]
    (connection,) = (entry for entry in pool.pool.queue if entry)
    readable, _, _ = select.select([connection.sock], [], [], 10)
    assert readable


# -- credentials that change ------------------------------------------------------------------------------------------


def test_a_token_file_is_read_again_after_a_401(tmp_path: Any) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"tokenFile": str(token)}}],
    }

    def renew(exchange: Exchange) -> None:
        token.write_text("new\n")
        say(401, status("Unauthorized"))(exchange)

    with ScriptedServer(say(200, READ), renew, say(200, READ), say(401, status("Unauthorized"))) as server:
        cluster = [{"name": "c", "cluster": {"server": server.url}}]
        api = Api(Credentials.load({"kubeconfig": {**kubeconfig, "clusters": cluster}}, {}))
        api.get(CONFIGMAPS, "x", "team")
        api.replace(CONFIGMAPS, READ)  # a 401 was not applied: it may be sent again
        with pytest.raises(Unauthorized):
            api.get(CONFIGMAPS, "x", "team")  # nothing new to try
    sent = [request.headers["Authorization"] for request in server.requests]
    assert sent == ["Bearer old", "Bearer old", "Bearer new", "Bearer new"]


def test_a_fixed_token_is_not_tried_twice() -> None:
    with ScriptedServer(say(401, status("Unauthorized"))) as server, pytest.raises(Unauthorized):
        client(server).get(CONFIGMAPS, "x", "team")


def test_connections_are_made_anew_when_a_certificate_was_replaced(tmp_path: Any) -> None:
    """The old ones keep their identity: a request after the change must not go over one of them."""
    ca = tmp_path / "ca"
    ca.write_text("old")
    with ScriptedServer(*[say(200, READ)] * 3) as server:
        api = client(server, ca_cert=str(ca))
        api.get(CONFIGMAPS, "x", "team")
        first = api._wire._pools
        api.get(CONFIGMAPS, "x", "team")
        assert api._wire._pools is first
        (tmp_path / "new").write_text("newer")
        (tmp_path / "new").rename(ca)
        api.get(CONFIGMAPS, "x", "team")
        assert api._wire._pools is not first


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_no_error_shows_a_secret() -> None:
    refusals = (say(401, status("Unauthorized")), say(403, status("Forbidden")), reset, reset, say(500, b"no"))
    with ScriptedServer(*refusals) as server:
        api = client(server, api_key="very-secret")
        texts = [repr(api.credentials), repr(api.credentials.tls()), str(vars(api))]
        for _ in range(4):
            with pytest.raises(ApiError) as caught:
                api.get(CONFIGMAPS, "x", "team")
            texts += [str(caught.value), repr(caught.value), str(vars(caught.value))]
    assert not [text for text in texts if "very-secret" in text]


# -- threads ----------------------------------------------------------------------------------------------------------


def test_threads_share_one_client() -> None:
    with ScriptedServer(*[say(200, READ)] * 80) as server:
        api = client(server)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for _ in range(10):
                    assert api.get(CONFIGMAPS, "x", "team") == READ
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert not failures


def test_a_missing_urllib3_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "urllib3", None)
    with ScriptedServer() as server, pytest.raises(api_module.CredentialsError, match="pip install urllib3"):
        client(server)


def test_a_watch_is_not_a_list() -> None:
    with ScriptedServer(stream()) as server:
        assert list(client(server).watch(PODS, "team", resource_version="5", label_selector="a=b", timeout=9)) == []
    query = parse_qs(urlsplit(server.requests[0].path).query)
    assert query == {
        "watch": ["true"],
        "allowWatchBookmarks": ["true"],
        "resourceVersion": ["5"],
        "timeoutSeconds": ["9"],
        "labelSelector": ["a=b"],
    }

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The private cloud as its clients see it: over HTTP, on loopback, with a store on disk."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.vm.cloud import CloudServer
from muster.vm.cloud_client import CloudClient
from muster.vm.cloud_store import Store
from muster.vm.cloud_wire import (
    Changed,
    Closed,
    KeyReused,
    NameTaken,
    NotAllowed,
    NotThere,
    NotUnderstood,
    RateLimited,
    Refusal,
    Spent,
    StaleFence,
    Unsure,
    Writer,
)

SECONDS = 30.0  # a call takes far less
ASKED = {"name": "one", "uid": "u-1", "cores": 2, "memory": "4Gi", "image": "debian-13"}
OLD, NEW = Writer(5, "ns/lease"), Writer(9, "ns/lease")


class Site:
    """A cloud that can be started again, and a client of it."""

    def __init__(self, path: Path, token_file: Path | None = None) -> None:
        self.path, self.token_file = path, token_file
        self.start()

    def start(self) -> None:
        self.store = Store(self.path)
        self.server = CloudServer("127.0.0.1:0", self.store, self.token_file)
        self.client = self.another(self.token_file)

    def another(self, token_file: Path | None = None) -> CloudClient:
        return CloudClient(f"http://127.0.0.1:{self.server.port}", token_file)

    def stop(self) -> None:
        self.client.close()
        self.server.close()
        self.store.close()

    def create(self, writer: Writer = OLD, key: str = "k-1", **changes: Any) -> dict[str, Any]:
        return self.client.create(writer, {**ASKED, **changes}, key, timeout=SECONDS)

    def find(self, writer: Writer = OLD, name: str = "one", uid: str = "u-1", **more: Any) -> dict[str, Any]:
        return self.client.find(writer, name, uid, timeout=SECONDS, **more)

    def resize(self, ident: str, revision: int, writer: Writer = OLD, cores: int = 4) -> dict[str, Any]:
        return self.client.resize(writer, ident, cores, "8Gi", revision=revision, timeout=SECONDS)

    def delete(self, ident: str, writer: Writer = OLD) -> None:
        self.client.delete(writer, ident, timeout=SECONDS)

    def listed(self, **query: Any) -> list[str]:
        return [machine["id"] for machine in self.client.machines(timeout=SECONDS, **query)["machines"]]

    def counters(self) -> dict[str, Any]:
        return self.client.counters(timeout=SECONDS)

    def faults(self, **faults: Any) -> None:
        self.client.switch(timeout=SECONDS, **faults)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "cloud.db")
    yield site
    site.stop()


# ------------------------------------------------------------------------------------------ without faults


def test_a_machine_is_made_found_resized_and_deleted(site: Site) -> None:
    assert site.find() == {"name": "one", "fence": 5, "closed": False, "machines": [], "spent": []}
    made = site.create()
    assert {**ASKED, "id": "m-1", "revision": 1, "request": "k-1", "address": "10.0.0.1"}.items() <= made.items()
    assert site.find()["machines"] == [made] == [site.client.get("m-1", timeout=SECONDS)]
    resized = site.resize("m-1", revision=1)
    assert (resized["cores"], resized["memory"], resized["revision"]) == (4, "8Gi", 2)
    site.delete("m-1")
    assert site.find() == {"name": "one", "fence": 5, "closed": False, "machines": [], "spent": ["k-1"]}
    assert site.listed() == []
    with pytest.raises(NotThere):
        site.client.get("m-1", timeout=SECONDS)
    with pytest.raises(NotThere):
        site.delete("m-1")
    with pytest.raises(NotThere):
        site.resize("m-1", revision=2)


def test_a_key_makes_one_machine_and_is_spent_with_it(site: Site) -> None:
    assert site.create()["id"] == site.create()["id"] == "m-1"
    with pytest.raises(KeyReused):
        site.create(cores=4)
    assert site.counters() == {"creates": {"u-1": 1}, "made": 1, "live": 1, "refused_stale": 0, "replays": 1}
    site.delete("m-1")
    with pytest.raises(Spent):
        site.create()
    assert site.create(key="k-2")["id"] == "m-2"
    assert site.counters()["creates"] == {"u-1": 2}


def test_a_name_belongs_to_one_living_machine(site: Site) -> None:
    site.create()
    with pytest.raises(NameTaken) as refused:
        site.create(key="k-2", uid="u-2")
    assert refused.value.fields == {"uid": "u-1"}
    site.delete("m-1")
    assert site.create(key="k-2", uid="u-2")["uid"] == "u-2"


def test_an_older_fence_is_refused_wherever_it_writes(site: Site) -> None:
    site.create()
    site.find(NEW)
    late: list[Callable[[], Any]] = [
        lambda: site.create(OLD, key="k-2"),
        lambda: site.create(OLD, key="k-2", name="other"),  # the same scope
        lambda: site.create(Writer(5, "another"), key="k-2"),  # the same name
        lambda: site.create(OLD),  # not even a replay
        lambda: site.resize("m-1", revision=1, writer=OLD),
        lambda: site.delete("m-1", OLD),
        lambda: site.find(OLD),
    ]
    for call in late:
        with pytest.raises(StaleFence) as refused:
            call()
        assert refused.value.fields == {"seen": 9}
    assert site.counters()["refused_stale"] == len(late)
    site.delete("m-1", NEW)
    with pytest.raises(StaleFence):  # the tombstone keeps it
        site.delete("m-1", OLD)


def test_a_person_is_not_ordered_among_the_operators(site: Site) -> None:
    site.create(NEW)
    site.delete("m-1", Writer())
    assert site.find(NEW)["spent"] == ["k-1"]


def test_a_closed_name_stays_closed(site: Site) -> None:
    assert site.find(close=True)["closed"]
    with pytest.raises(Closed):
        site.create()
    assert site.find()["closed"]
    assert site.listed() == []


def test_a_resize_that_comes_late_does_not_undo_another(site: Site) -> None:
    site.create()
    site.resize("m-1", revision=1, cores=8)
    with pytest.raises(Changed) as refused:
        site.resize("m-1", revision=1, cores=4)
    assert refused.value.fields == {"revision": 2}


def test_what_is_there_is_told_in_pages(site: Site) -> None:
    for number in range(5):
        site.create(name=f"n-{number}", key=f"k-{number}", uid=f"u-{number % 2}")
    page = site.client.machines(timeout=SECONDS, limit=2)
    assert [machine["id"] for machine in page["machines"]] == ["m-1", "m-2"]
    assert site.listed(limit=2, after=page["after"]) == ["m-3", "m-4"]
    assert site.client.machines(timeout=SECONDS, limit=2, after="m-4")["after"] == ""
    assert site.listed(uid="u-1") == ["m-2", "m-4"]
    assert site.listed(name="n-4") == ["m-5"]
    assert site.client.counters(timeout=SECONDS, after="u-0")["creates"] == {"u-1": 2}


def test_a_restart_keeps_everything(site: Site) -> None:
    site.faults(seed=7, list_delay_seconds=0.5)
    site.create()
    site.create(key="k-2", name="two")
    site.delete("m-2")
    site.find(NEW, close=True)
    before = site.counters(), site.find(NEW), site.find(NEW, "two")
    site.stop()
    site.start()
    assert (site.counters(), site.find(NEW), site.find(NEW, "two")) == before
    assert site.server.cloud.faults.list_delay_seconds == 0.5
    with pytest.raises(StaleFence):
        site.create(OLD)
    assert site.create(NEW, key="k-3", name="three")["id"] == "m-3"


def test_a_store_has_one_owner(site: Site) -> None:
    with pytest.raises(Malformed, match="no other private cloud"):
        Store(site.path)


# ------------------------------------------------------------------------------------------ faults


def test_done_but_never_answered(site: Site) -> None:
    site.faults(timeout_after_success=1, hold_seconds=3600)
    with pytest.raises(Unsure):
        site.client.create(OLD, ASKED, "k-1", timeout=0.2)
    site.faults(timeout_after_success=1, hold_seconds=0)
    with pytest.raises(Unsure):
        site.create()
    site.faults()
    assert site.counters()["creates"] == {"u-1": 1}


def test_an_error_after_and_an_error_before(site: Site) -> None:
    site.faults(error_before=1)
    with pytest.raises(Unsure, match="nothing was done"):
        site.create()
    assert site.counters()["creates"] == {}
    site.faults(error_after_success=1)
    with pytest.raises(Unsure, match="it was done"):
        site.create()
    assert site.counters()["creates"] == {"u-1": 1}


@pytest.mark.parametrize(("guarded", "made"), [(True, 1), (False, 2)])
def test_a_second_delivery(site: Site, guarded: bool, made: int) -> None:
    site.faults(duplicate_delivery=1, ignore_idempotency_keys=not guarded, names_not_unique=True)
    assert site.create()["id"] == ("m-1" if guarded else "m-2")
    assert site.counters()["creates"] == {"u-1": made}


def test_a_second_delivery_that_comes_late(site: Site) -> None:
    site.faults(duplicate_delivery=1, duplicate_delay_seconds=0.05, ignore_idempotency_keys=True, names_not_unique=True)
    site.create()
    until(lambda: site.counters()["creates"] == {"u-1": 2}, "the second delivery", SECONDS)


def test_a_list_that_is_out_of_date(site: Site) -> None:
    site.create()
    site.faults(list_delay_seconds=3600)
    assert site.listed() == []
    assert len(site.find()["machines"]) == 1
    site.faults()
    assert site.listed() == ["m-1"]


def test_too_many_requests(site: Site) -> None:
    site.faults(rate_limit_per_second=0.01)
    site.find()
    with pytest.raises(RateLimited) as refused:
        site.find()
    assert 60 >= refused.value.retry_after > 30
    request = urllib.request.Request(f"http://127.0.0.1:{site.server.port}/v1/machines")
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request, timeout=SECONDS)
    assert int(answer.value.headers["Retry-After"]) > 30
    site.faults()
    site.find()


def test_guards_that_are_switched_off(site: Site) -> None:
    site.find(NEW, close=True)
    site.faults(ignore_fences=True, ignore_idempotency_keys=True, names_not_unique=True)
    assert site.create(OLD)["id"] == "m-1"
    assert site.create(OLD)["id"] == "m-2"
    site.faults()
    with pytest.raises(StaleFence):
        site.create(OLD)


def test_faults_strike_the_same_on_every_run(site: Site) -> None:
    def strikes() -> list[bool]:
        site.faults(error_before=0.5, seed=3)
        told = []
        for _request in range(40):
            try:
                site.find()
                told.append(False)
            except Unsure:
                told.append(True)
        return told

    first = strikes()
    assert first == strikes()
    assert 5 < sum(first) < 35


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"error_before": 2}, "faults.error_before is 2"),
        ({"error_before": True}, "faults.error_before is True"),
        ({"names_not_unique": 1}, "true or false"),
        ({"list_delay_seconds": -1}, "0 to 3600"),
        ({"seed": 0.5}, "an integer"),
        ({"eror_before": 1}, "error_before, "),
    ],
)
def test_faults_that_make_no_sense(site: Site, faults: dict[str, Any], says: str) -> None:
    with pytest.raises(NotUnderstood, match=says):
        site.faults(**faults)
    assert site.server.cloud.faults.document() == type(site.server.cloud.faults)().document()


# ------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cores": 0}, "cores is 0"),
        ({"cores": True}, "cores is True"),
        ({"cores": "2"}, "cores is '2'"),
        ({"memory": "4"}, "memory is '4'"),
        ({"memory": "0Gi"}, "memory is '0Gi'"),
        ({"name": ""}, "name is ''"),
        ({"name": "x" * 254}, "1 to 253"),
        ({"uid": None}, "uid is 'None'"),
        ({"image": "a\nb"}, "image is"),
    ],
)
def test_a_machine_that_makes_no_sense(site: Site, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(NotUnderstood, match=says):
        site.create(**changes)
    assert site.counters()["made"] == 0


@pytest.mark.parametrize(
    "writer",
    [Writer(-1, "s"), Writer(2**63, "s"), Writer(1, ""), Writer(1, "x" * 254)],
    ids=["low", "high", "no", "long"],
)
def test_a_writer_who_makes_no_sense(site: Site, writer: Writer) -> None:
    with pytest.raises(NotUnderstood):
        site.create(writer)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v2", b"", 404),
        ("DELETE", "/v1/machines", b"", 405),
        ("GET", "/v1/machines/x", b"", 404),
        ("GET", "/v1/machines/m-%C2%B2", b"", 404),
        ("GET", "/v1/machines?limit=1001", b"", 400),
        ("GET", "/v1/machines?after=x", b"", 404),
        ("POST", "/v1/machines", b"{", 400),
        ("POST", "/v1/machines", b"[]", 400),
        ("POST", "/v1/machines", b"[" * 10_000, 400),
        ("POST", "/v1/machines", b" " * 20_000, 413),
        ("PUT", "/v1/fences/%0A", b'{"uid": "u"}', 400),
        ("PUT", "/v1/fences/n", b'{"uid": "u", "close": 1}', 400),
    ],
)
def test_a_request_that_makes_no_sense(site: Site, method: str, path: str, body: bytes, status: int) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{site.server.port}{path}", method=method, data=body or None)
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request, timeout=SECONDS)
    assert answer.value.code == status
    said = json.loads(answer.value.read())
    assert said["error"] and said["message"]
    site.find()


@pytest.mark.parametrize("length", ["-5", "x", "9" * 40, "20000"])
def test_a_length_that_makes_no_sense_holds_nobody_up(site: Site, length: str) -> None:
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=SECONDS) as connection:
        connection.sendall(f"POST /v1/machines HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
        assert connection.recv(100).split()[1] in (b"400", b"413")


def test_too_many_connections_are_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.vm.cloud.CONNECTIONS", 1)
    site = Site(tmp_path / "cloud.db")
    try:
        site.find()  # its connection is kept open
        with socket.create_connection(("127.0.0.1", site.server.port), timeout=SECONDS) as another:
            assert another.recv(1) == b""
        site.find()
        site.client.close()
        until(lambda: reached(site.another()), "room for another", SECONDS)
    finally:
        site.stop()


def reached(client: CloudClient) -> bool:
    try:
        client.machines(timeout=SECONDS)
        return True
    except Unsure:
        return False
    finally:
        client.close()


def test_only_who_knows_the_token_is_answered(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    site = Site(tmp_path / "cloud.db", token)
    try:
        site.find()
        with pytest.raises(NotAllowed) as refused:
            site.another().machines(timeout=SECONDS)
        assert "secret" not in str(refused.value)
        wrong = tmp_path / "wrong"
        wrong.write_text("guess")
        with pytest.raises(NotAllowed):
            site.another(wrong).machines(timeout=SECONDS)
        token.write_text("turned")  # both read it again
        site.find()
        with pytest.raises(Malformed, match="cloud-token-file"):
            site.another(tmp_path / "none").machines(timeout=SECONDS)
    finally:
        site.stop()


def test_pages_that_need_no_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    site = Site(tmp_path / "cloud.db", token)
    try:
        site.create()
        base = f"http://127.0.0.1:{site.server.port}"
        assert json.loads(urllib.request.urlopen(f"{base}/healthz", timeout=SECONDS).read()) == {"ok": True}
        metrics = urllib.request.urlopen(f"{base}/metrics", timeout=SECONDS).read().decode()
        assert "muster_cloud_live 1.0" in metrics
        assert 'muster_cloud_calls_total{method="POST",page="/v1/machines",status="201"} 1.0' in metrics
    finally:
        site.stop()


# ------------------------------------------------------------------------------------------ the client


def test_a_cloud_that_is_not_there(site: Site) -> None:
    client = site.another()
    site.server.close()
    with pytest.raises(Unsure):
        client.find(OLD, "one", "u-1", timeout=SECONDS)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"id":',
        b'HTTP/1.1 404 Not Found\r\nContent-Length: 15\r\n\r\n{"error": "404"}',
        b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n",
        b"",
    ],
    ids=["no JSON", "half", "another server", "redirect", "hung up"],
)
def test_an_answer_that_says_nothing(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = CloudClient(f"http://127.0.0.1:{server.getsockname()[1]}")

        def serve() -> None:
            connection, _address = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(Unsure):
            client.delete(OLD, "m-1", timeout=SECONDS)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8300", "ftp://cloud", "http://"])
def test_a_url_that_makes_no_sense(url: str) -> None:
    with pytest.raises(Malformed, match="http://127"):
        CloudClient(url)


def test_every_refusal_has_its_own_word() -> None:
    assert len({each.error for each in Refusal.__subclasses__()}) == len(Refusal.__subclasses__())

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document says what the reference worker does: all of it, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import prometheus_client
import pytest

from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.dstk import openapi
from muster.dstk.worker import VERBS, Settings, Worker
from muster.dstk.worker_http import Pages
from muster.dstk.worker_lease import WorkerLease
from muster.openapi import PROBLEM

TOKEN = "the-token"
SETTINGS = """\
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "404", "409", "410", "413", "421", "503"]
negative_data_rejection.expected-statuses = ["400", "401", "404", "405", "409", "413", "414", "5xx"]
"""


class Served:
    """A worker in this process, over MemoryApi, in a thread of its own; p is its, f follows nobody that is there."""

    def __init__(self, directory: Path) -> None:
        self.api = MemoryApi()
        self.api.timeout = 1.0  # type: ignore[attr-defined]
        self.token = directory / "token"
        self.token.write_text(f"{TOKEN}\n")
        spec = {"keyLength": 1, "fenceSeconds": 0.2, "alphabet": "abcdefghijklmnopqrstuvwxyz"}
        self.create(KEY_SPACES, "default", spec)
        self.create(PARTITIONS, "p", {"range": {"start": "", "end": "n"}, "primary": "w-0", "epoch": 1})
        self.create(PARTITIONS, "f", {"range": {"start": "n", "end": ""}, "primary": "w-9", "epoch": 1})
        self._directory, self._began = directory, threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._began.wait(60)
        order = {"assignment": "a1", "uid": "u1", "partition": "p", "range": {"start": "", "end": "n"}, "epoch": 0}
        self.create(ASSIGNMENTS, "a1", {}, uid="u1")
        assert self.ask("POST", "/v1/control/follow", {**order, "from": None})[0] == 200
        until(lambda: self.copy("p")["role"] == "primary", "p to be served")

    def create(self, resource: Any, name: str, spec: Any, **metadata: Any) -> None:
        whole = {"name": name, "namespace": "ns", "labels": {"muster.dev/key-space": "default"}}
        made = self.api.create(resource, {"kind": resource.kind, "metadata": whole, "spec": spec})
        key = (resource.plural, "ns", name)
        self.api.objects[key]["metadata"].update(metadata)
        assert made

    async def _serve(self) -> None:
        def lease(former: str) -> WorkerLease:
            where: Any = (self.api, "ns", "default", "w-0", "run", "http://127.0.0.1:1")
            return WorkerLease(*where, former=former)

        self._loop, self._ends = asyncio.get_running_loop(), asyncio.Event()
        settings = Settings("w-0", "default", "ns", "run", self.token)
        api: Any = self.api
        self.worker = Worker(settings, api, self._directory / "data", lease)
        self.pages = pages = Pages(self.worker, prometheus_client.CollectorRegistry())
        self.port = await pages.start("127.0.0.1:0")
        await self.worker.start()
        self._began.set()
        await self._ends.wait()
        await self.worker.stop()
        await pages.stop(0.1)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._ends.set)
        self._thread.join(60)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, body (parsed where it is JSON) and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {
            "Authorization": f"Bearer {TOKEN}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, content, {name: value for name, value in given.items() if value})
        answer = connection.getresponse()
        found = answer.read()
        connection.close()
        is_json = "json" in (answer.getheader("Content-Type") or "")
        return answer.status, json.loads(found) if is_json else found, dict(answer.getheaders())

    def word(self, *asked: Any, **headers: str) -> str:
        """Of a refusal, which has the status of that word, and is as the document says."""
        status, document, given = self.ask(*asked, **headers)
        assert given["Content-Type"] == PROBLEM, document
        jsonschema.validate(document, schema("Problem"))
        word: str = document["type"].removeprefix(openapi.TYPE)
        assert openapi.WORDS[word][0] == status == document["status"]
        return word

    def copy(self, name: str) -> Any:
        copies = self.ask("GET", f"/v1/worker?partition={name}")[1]["copies"]
        return copies[0] if copies else {"role": ""}


def schema(name: str) -> Any:
    """A schema with all that it refers to, as a document of its own."""
    text = json.dumps({"$ref": f"#/$defs/{name}", "$defs": openapi.schemas()})
    return json.loads(text.replace("#/components/schemas/", "#/$defs/"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    made.close()


def test_the_worker_keeps_to_its_document(served: Served, tmp_path: Path) -> None:
    """What it allows is taken, what it does not is refused, and each answer is as it says."""
    for key in "abc":
        assert served.ask("PUT", f"/v1/keys/{key}", b"x")[0] == 204
    document = served.ask("GET", "/openapi.json", Authorization="")[1]
    del document["paths"]["/v1/control/{verb}"]  # they would take its partition away; see below
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    command = [sys.executable, "-m", "schemathesis.cli", "run", "openapi.json"]
    command += ["--url", f"http://127.0.0.1:{served.port}", "--header", f"Authorization: Bearer {TOKEN}"]
    command += ["--generation-deterministic", "--checks", "all", "--exclude-checks", "ignored_auth"]
    command += ["--max-examples", "15", "--phases", "examples,coverage,fuzzing", "--request-timeout", "40"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1000:]


def test_what_is_described_is_what_is_served(served: Served) -> None:
    status, document, _headers = served.ask("GET", "/openapi.json", Authorization="")
    assert status == 200 and document == json.loads(json.dumps(openapi.document()))
    described = {(method.upper(), path) for path, of in document["paths"].items() for method in of}
    pages = Pages(served.worker, prometheus_client.CollectorRegistry())
    assert described == set(pages._routes)
    assert set(openapi.VERBS) == set(VERBS)


def test_each_answer_is_as_its_schema_says(served: Served) -> None:
    served.ask("PUT", "/v1/keys/a", b"\x00\xff")
    served.ask("PUT", "/v1/keys/b", b"x")
    served.ask("DELETE", "/v1/keys/b")
    log = served.ask("GET", "/v1/replication/p/log?after=0&follower=w-1&epoch=1&wait=0")[1]
    snapshot = served.ask("GET", "/v1/replication/p/snapshot?follower=w-1&limit=1")[1]
    items = served.ask("GET", "/v1/keys?start=a")[1]
    for name, document in (
        ("Worker", served.ask("GET", "/v1/worker")[1]),
        ("Log", log),
        ("Snapshot", snapshot),
        ("Items", items),
        ("Fine", served.ask("GET", "/healthz", Authorization="")[1]),
    ):
        jsonschema.validate(document, schema(name))
    value = base64.b64encode(b"\x00\xff").decode()
    assert [entry[1:] for entry in log["entries"]] == [
        ["a", value],
        ["b", base64.b64encode(b"x").decode()],
        ["b", None],
    ]
    assert snapshot["entries"] == [["a", value]] and snapshot["position"] == 3 and snapshot["next"] is None
    assert items["items"] == [{"key": "a", "value": value}] and items["range"] == {"start": "", "end": "n"}


def test_examples_are_what_they_are_examples_of() -> None:
    jsonschema.validate(openapi.COPY, schema("Copy"))
    jsonschema.validate(openapi.ORDER, schema("Order"))
    jsonschema.validate(openapi.MISDIRECTED, schema("Problem"))


def test_only_pages_of_the_process_need_no_token(served: Served) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert served.ask("GET", path, Authorization="")[0] == 200
    for method, path in (("GET", "/v1/worker"), ("PUT", "/v1/keys/a"), ("POST", "/v1/control/fence")):
        for token in ("", "Bearer", "Bearer other", "Bearer \xff", f"Basic {TOKEN}"):
            assert served.word(method, path, Authorization=token) == "unauthenticated"
    served.token.write_text("another")
    os.utime(served.token, (1, 1))
    assert served.word("GET", "/v1/worker") == "unauthenticated"
    assert served.ask("GET", "/v1/worker", Authorization="Bearer another")[0] == 200


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (("GET", "/v1/keys/ab"), "malformed"),
        (("GET", "/v1/keys/%C3%28"), "malformed"),
        (("GET", "/v1/keys/A"), "malformed"),
        (("GET", "/v1/keys/a?x=1"), "malformed"),
        (("GET", "/v1/keys/z"), "not-mine"),
        (("GET", "/v1/keys/a/b"), "not-found"),
        (("GET", "/v1/keys?limit=0"), "malformed"),
        (("GET", "/v1/keys?limit=1&limit=2"), "malformed"),
        (("PATCH", "/v1/keys/a"), "method"),
        (("PUT", "/v1/keys/a", b"x" * (openapi.MAX_VALUE + 1)), "too-large"),
        (("DELETE", "/v1/keys/a", b"x"), "too-large"),
        (("GET", "/v1/replication/q/log"), "not-here"),
        (("GET", "/v1/replication/p/log?after=99"), "trimmed"),
        (("GET", "/v1/replication/p/log?wait=31"), "malformed"),
        (("POST", "/v1/control/destroy", {"partition": "p"}), "not-found"),
        (("POST", "/v1/control/fence", b"{"), "malformed"),
        (("POST", "/v1/control/fence", b'{"partition": "p", "epoch": 9, "epoch": 2}'), "malformed"),
        (("POST", "/v1/control/fence", b"[" * 99 + b"]" * 99), "malformed"),
        (("POST", "/v1/control/fence", []), "malformed"),
        (("POST", "/v1/control/fence", {"partition": "p", "epoch": -1}), "malformed"),
        (("POST", "/v1/control/fence", {"partition": "p", "epoch": 9, "keySpace": "other"}), "malformed"),
        (("POST", "/v1/control/fence", {"partition": "p", "epoch": 1}), "stale"),
        (("POST", "/v1/control/fence", {"partition": "q", "epoch": 9}), "not-here"),
        (("POST", "/v1/control/drop", {"partition": "p", "epoch": 9}), "busy"),
        (("POST", "/v1/control/follow", {"partition": "q", "epoch": 9, "from": {"worker": 1}}), "malformed"),
        (
            (
                "POST",
                "/v1/control/follow",
                {"partition": "q", "epoch": 9, "from": {"worker": "w", "address": "file:///x"}},
            ),
            "malformed",
        ),
        (("POST", "/v1/control/promise", {"partition": "p", "epoch": 1}), "malformed"),
        (("POST", "/v1/control/promise", {"partition": "p", "epoch": 2, "follower": "w-1"}), "stale"),
    ],
)
def test_refusals_say_what_is_wrong_and_change_nothing(served: Served, asked: tuple[Any, ...], word: str) -> None:
    before = served.copy("p")
    assert served.word(*asked) == word
    after = served.copy("p")
    assert {**before, "load": {}} == {**after, "load": {}} and served.ask("PUT", "/v1/keys/a", b"x")[0] == 204


def test_the_largest_value_is_taken_and_any_byte_of_it_kept(served: Served) -> None:
    value = bytes(range(256)) * (openapi.MAX_VALUE // 256)
    assert served.ask("PUT", "/v1/keys/a", value)[0] == 204
    assert served.ask("GET", "/v1/keys/%61")[1] == value
    assert served.ask("PUT", "/v1/keys/a", b"")[0] == 204 and served.ask("GET", "/v1/keys/a")[1] == b""


def test_nothing_is_served_without_a_lease_and_what_waits_is_bounded(served: Served) -> None:
    """The Lease is another's: the session ends, also for what was granted in it."""
    assert served.ask("GET", "/readyz")[0] == 200

    def write(obj: Any) -> None:
        obj["spec"]["holderIdentity"] = "w-0/other"

    lease = served.api.objects["leases", "ns", "default.w-0"]
    write(lease)
    lease["metadata"]["resourceVersion"] = "0"
    until(lambda: served.worker.lease.session == 0, "the session to end")
    assert served.word("GET", "/v1/keys/a") == served.word("PUT", "/v1/keys/a", b"x") == "unserved"
    assert served.ask("GET", "/readyz")[0] == 503
    assert served.word("GET", "/v1/replication/p/snapshot") == "unserved"
    assert served.ask("GET", "/v1/worker")[1]["leaseValid"] is False
    object.__setattr__(served.worker.settings, "held", 0)
    assert "too many" in served.ask("GET", "/v1/keys/a")[1]["detail"]


def test_a_right_that_is_lost_while_a_write_goes_to_the_disk_makes_it_unknown(served: Served) -> None:
    """And what is lost before it is written, refused: nothing of it is there."""
    store = served.worker.store
    real: Callable[..., Any] = store._take_over

    def loses(group: Any) -> None:
        served.worker.lease.holds = lambda session: False  # type: ignore[method-assign]
        real(group)

    store._take_over = loses  # type: ignore[method-assign]
    assert served.word("PUT", "/v1/keys/a", b"x") == "unknown"
    store._take_over = real  # type: ignore[method-assign]
    del served.worker.lease.holds  # type: ignore[method-assign]
    until(lambda: served.ask("GET", "/v1/keys/a")[0] == 200, "it to be served again")
    assert served.ask("GET", "/v1/keys/a")[1] == b"x"


def test_a_read_whose_right_is_lost_while_it_is_read_is_not_answered(served: Served) -> None:
    assert served.ask("PUT", "/v1/keys/a", b"x")[0] == 204
    store = served.worker.store
    real = store.get

    def loses(partition: str, key: str) -> Any:
        got = real(partition, key)
        served.worker.grants.clear()
        key_ = ("partitions", "ns", "p")
        served.api.objects[key_]["spec"] |= {"fencedBy": "a2", "claimedBy": "a2", "epoch": 2}
        return got

    store.get = loses  # type: ignore[method-assign]
    assert served.word("GET", "/v1/keys/a") == "unserved"


def test_what_is_no_request_is_refused_in_the_same_form_and_counted(served: Served) -> None:
    status, document, headers = served.ask("GET", "/healthz", X="a" * 9000)
    assert (status, document["type"]) == (431, f"{openapi.TYPE}too-large") and headers["Muster-Worker"] == "w-0"
    assert b'method="other",route="other",status="431"} 1.0' in served.ask("GET", "/metrics")[1]


def test_connections_beyond_the_bound_are_hung_up_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    connections: Any = served.pages._connections
    monkeypatch.setattr(connections, "profile", connections.profile._replace(connections=0))
    assert served.word("GET", "/healthz") == "overloaded"


def test_its_metrics_tell_what_it_has(served: Served) -> None:
    served.ask("PUT", "/v1/keys/a", b"x")
    text = served.ask("GET", "/metrics")[1].decode()
    for line in (
        'muster_partition_worker_copies{role="primary"} 1.0',
        "muster_partition_worker_served 1.0",
        "muster_partition_worker_keys 1.0",
        "muster_partition_worker_lease_valid 1.0",
        'muster_partition_worker_requests_total{method="PUT",route="/v1/keys/{key}",status="204"} 1.0',
    ):
        assert line in text

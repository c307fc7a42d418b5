# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an allocator has to withstand: B looks for what is A's, tokens look for a way out, bodies want memory.

`muster allocatord run` is a process of its own here, at a real API server.
"""

from __future__ import annotations

import gzip
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Object, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import RETAINED
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, owner_hash
from ansible_collections.muster.coordination.tests.integration.test_allocator_controller import forget
from ansible_collections.muster.coordination.tests.integration.test_allocator_server import (
    ACCOUNTS,
    AUDIENCE,
    Site,
    heard,
    token_of,
)
from ansible_collections.muster.coordination.tests.integration.test_vm_operator import Process
from ansible_collections.muster.coordination.tests.support.allocator_lab import PLAIN, ROOT
from ansible_collections.muster.coordination.tests.support.allocator_server import Client, Reply, until
from ansible_collections.muster.coordination.tests.support.vm_lab import install

pytestmark = pytest.mark.integration

DISKS = Resource("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
MEGABYTES = 96  # by which the process may grow, whatever comes
OF_A_MOMENT = ("date",)  # headers that are another each time


@pytest.fixture(scope="module", autouse=True)
def definition(api: Api) -> None:
    install(api, ROOT / "charts/allocator/crds/instances.yaml")


@pytest.fixture
def site(api: Api, namespace: str, kubeconfig: str) -> Iterator[Site]:
    made = Site(api, namespace, os.path.abspath(kubeconfig))
    yield made
    made.close()


class Daemon:
    """The process, all that it logs, and clients for whom tokens of ServiceAccounts stand."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path) -> None:
        self.api, self.namespace, self._kubeconfig = api, namespace, kubeconfig
        for name in ("alice", "bob"):
            api.create(ACCOUNTS, {"metadata": {"name": name, "namespace": namespace}})
        template = directory / "template.yaml"
        template.write_text(PLAIN)
        self.log = directory / "log"
        arguments = ["--kubeconfig", kubeconfig, "--namespace", namespace, "--name", "kv", "--audience", AUDIENCE]
        arguments += ["--deployment-template", str(template), "--listen", "127.0.0.1:0", "--lease-name", "kv"]
        arguments += ["--health-listen", "127.0.0.1:0", "--verbose"]
        self.process = Process(self.log, "allocatord", "run", *arguments)
        self.port = int(self.process.says(r'"users_port": (\d+)')[1])
        self.anybody = Client(self.port)
        until("it is ready", lambda: self.anybody("GET", "/readyz").status == 200, 60)

    def token(self, name: str, *more: str, audience: str = AUDIENCE) -> str:
        return token_of(self._kubeconfig, self.namespace, name, *more, audience=audience)

    def memory(self, which: str = "VmRSS") -> float:
        """Megabytes: VmRSS of now, VmHWM at most so far."""
        text = Path(f"/proc/{self.process.popen.pid}/status").read_text()
        found = re.search(rf"{which}:\s+(\d+) kB", text)
        assert found, text
        return int(found[1]) / 1024

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.process.popen.pid}/task"))


@pytest.fixture
def daemon(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(api, namespace, os.path.abspath(kubeconfig), tmp_path)
    yield made
    made.process.kill()
    forget(api, namespace)


# ------------------------------------------------------------------------------------------ A4: what is another's


def seen(reply: Reply) -> tuple[int, Mapping[str, str], bytes]:
    """All that a client has of an answer."""
    return reply.status, {key: value for key, value in reply.headers.items() if key not in OF_A_MOMENT}, reply.body


REQUESTS = (
    ("GET", "/v1/instances/{}", None),
    ("HEAD", "/v1/instances/{}", None),
    ("DELETE", "/v1/instances/{}", None),
    ("DELETE", "/v1/instances/{}?storage=retain", None),
    ("DELETE", "/v1/instances/{}?storage=delete", None),
    ("POST", "/v1/instances/{}:suspend", None),
    ("POST", "/v1/instances/{}:suspend", {}),
    ("POST", "/v1/instances/{}:resume", None),
    ("POST", "/v1/instances/{}:reset", None),
    ("POST", "/v1/instances/{}:reset", {"resets": 0}),
    ("POST", "/v1/instances/{}:reset", {"resets": 99}),
    ("GET", "/v1/instances/{}/events", None),
    ("PUT", "/v1/instances/{}", {}),
    ("PATCH", "/v1/instances/{}", {}),
    ("POST", "/v1/instances/{}", {}),
    ("DELETE", "/v1/disks/{}", None),
    ("GET", "/v1/disks/{}", None),
)


def differences(client: Client, theirs: str, missing: str) -> list[str]:
    """Requests that answer otherwise for what is another's than for what is not there."""
    found = []
    for method, path, body in REQUESTS:
        one, other = (seen(client(method, path.format(name), body)) for name in (theirs, missing))
        if one != other or one[0] not in (404, 405):
            found.append(f"{method} {path}: {one} or {other}")
    return found


def keep_disk(site: Site, name: str, user: str) -> None:
    """A disk that this user has kept."""
    labels = {MEMBER: site.offer.name, RETAINED: owner_hash(site.user(user))}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    metadata = {"name": name, "namespace": site.namespace, "labels": labels}
    site.api.create(DISKS, {"metadata": metadata, "spec": spec})


def test_a_stranger_can_not_tell_what_is_anothers_from_what_is_not_there(site: Site) -> None:
    name = site.alice("POST", "/v1/instances", {}, key="k").json()["name"]
    keep_disk(site, name, "alice")
    before = site.api.get(Resource("muster.dev/v1alpha1", "instances", "Instance"), name, site.namespace)
    missing = name[:-4] + "0000"
    assert differences(site.bob, name, missing) == []
    after = site.api.get(Resource("muster.dev/v1alpha1", "instances", "Instance"), name, site.namespace)
    assert before == after
    assert [each["name"] for each in site.alice("GET", "/v1/disks").json()["items"]] == [name]


def test_what_is_anothers_is_in_no_list_no_watch_and_no_figure(site: Site) -> None:
    with site.bob.watching() as lines:
        heard(lines, "BOOKMARK")
        name = site.alice("POST", "/v1/instances", {}, key="k").json()["name"]
        keep_disk(site, "kept-by-alice", "alice")
        until("it is known", lambda: site.cache.get(site.namespace, name) is not None)
        texts = [
            site.bob("GET", path).body.decode() for path in ("/v1/instances", "/v1/disks", "/v1/offer", "/metrics")
        ]
        heard(lines, "BOOKMARK")
        heard(lines, "BOOKMARK")
    assert not [text for text in texts if name in text or "alice" in text]
    assert site.bob("GET", "/v1/instances?all=true").word == "not-administrator"


def test_a_key_of_another_guesses_nothing(site: Site) -> None:
    names = {client("POST", "/v1/instances", {}, key="the same").json()["name"] for client in (site.alice, site.bob)}
    assert len(names) == 2
    assert [each["owner"] for each in site.bob("GET", "/v1/instances").json()["items"]] == [site.user("bob")]


def test_a_disk_of_another_is_attached_to_nothing(site: Site) -> None:
    keep_disk(site, "kv-alices", "alice")
    refused = [site.bob("POST", "/v1/instances", {"attach": name}, key="k") for name in ("kv-alices", "kv-missing")]
    bodies = [reply.body.replace(b"kv-alices", b"X").replace(b"kv-missing", b"X") for reply in refused]
    assert refused[0].status == refused[1].status == 400 and bodies[0] == bodies[1]


def test_only_who_administers_sees_everything(site: Site) -> None:
    name = site.alice("POST", "/v1/instances", {}, key="k").json()["name"]
    assert [each["name"] for each in site.root("GET", "/v1/instances?all=true").json()["items"]] == [name]
    assert site.root("GET", f"/v1/instances/{name}").status == 200


@pytest.mark.parametrize("bug", ["forbidden", "echoes", "adds"])
def test_the_check_of_strangers_finds_a_server_that_tells(
    site: Site, bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: what is another's is answered otherwise."""
    from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import NotOwner, NotThere

    name = site.alice("POST", "/v1/instances", {}, key="k").json()["name"]
    right = site.allocator.get

    def get(caller: Any, wanted: str) -> Object:
        try:
            return right(caller, wanted)
        except NotThere:
            if bug == "echoes":
                raise NotThere(f"instance {wanted}") from None
            if bug == "forbidden" and wanted == name:
                raise NotOwner("it is another's") from None
            if bug == "adds" and wanted == name:
                raise NotThere(seen=True) from None
            raise

    monkeypatch.setattr(site.allocator, "get", get)
    assert differences(site.bob, name, name[:-4] + "0000")


# ------------------------------------------------------------------------------------------ A6: tokens


def traces(token: str) -> set[str]:
    """What would be enough to find it by: each part of it that is long, but for the header, which all have."""
    return {token, *(part[:40] for part in token.split(".")[1:] if len(part) >= 20)}


def test_no_token_is_in_what_is_logged_counted_or_answered(daemon: Daemon) -> None:
    good, other, gone = daemon.token("alice"), daemon.token("bob", audience="other.test"), daemon.token("bob")
    made_up = [f"made.up{'x' * 40}", f"sec\x7fret{'y' * 40}", "Z" * 8500]
    answers: list[Reply] = []
    client = Client(daemon.port, good)
    answers += [client("GET", "/v1/offer"), client("POST", "/v1/instances", {}, key="k")]
    answers += [client("GET", "/v1/instances", token=token) for token in (other, made_up[0])]
    daemon.api.delete(ACCOUNTS, "bob", daemon.namespace)
    answers.append(client("GET", "/v1/instances", token=gone))
    for token in (good, *made_up):
        encoded = token.encode()
        for text in (
            b"GET /v1/offer HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + encoded + b"\x00\r\n\r\n",
            b"GET /v1/offer HTTP/1.1\r\nHost: x\r\nAuthorization Bearer " + encoded + b"\r\n\r\n",
            b"GET /v1/offer?token=" + encoded + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /" + encoded + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + encoded + b"\r\n\r\n",
            b"Bearer " + encoded + b"\r\n\r\n",
            b"POST /v1/instances HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + encoded + b"\r\n\r\n",
            b"POST /v1/instances/" + encoded + b":reset HTTP/1.1\r\nHost: x\r\nCookie: " + encoded + b"\r\n\r\n",
        ):
            with suppress(OSError):
                answers.append(client.raw(text))
    answers += [client("GET", "/metrics"), client("GET", "/openapi.json")]
    assert {401, 400, 200, 201} <= {answer.status for answer in answers}
    with client.watching() as lines:
        heard(lines, "BOOKMARK")
    daemon.process.end()
    said = [daemon.log.read_text(), *(f"{answer.headers}{answer.body!r}" for answer in answers)]
    assert '"route": "/v1/offer"' in said[0], "nothing was logged"
    for token in (good, other, gone, *made_up):
        for trace in traces(token):
            assert not [text for text in said if trace in text], f"{trace[:12]}… was said"


# ------------------------------------------------------------------------------------------ A7: memory


HEAD = "POST /v1/instances HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nIdempotency-Key: k\r\n{}\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)
)


def bombs() -> list[tuple[str, bytes, set[int]]]:
    """Headers, a body, and the statuses that are right."""
    json_type = "Content-Type: application/json\r\n"

    def of(body: bytes, headers: str = json_type) -> tuple[str, bytes]:
        return f"{headers}Content-Length: {len(body)}\r\n", body

    packed = gzip.compress(b'{"a":"' + b"x" * 20_000_000 + b'"}')
    return [
        (*of(b"[" * 65_536), {400}),
        (*of(b'{"a":' * 13_000), {400}),
        (*of(b"[[" * 8 + b"]]" * 8), {400}),
        (*of(b'{"parameters":' + b'{"a":1,' * 9_000), {400}),
        (*of(b'"' + b'\\"' * 32_000), {400}),
        (*of(b'{"a":' + b"9" * 65_000 + b"}"), {400}),
        (*of(b'{"\\ud800":1}'), {400}),
        (*of(LAUGHS.encode()), {400}),
        (*of(LAUGHS.encode(), "Content-Type: application/yaml\r\n"), {415}),
        (*of(packed, f"{json_type}Content-Encoding: gzip\r\n"), {415}),
        (f"{json_type}Content-Length: 10000000000\r\n", b"x" * 1_000_000, {413}),
        (
            f"{json_type}Transfer-Encoding: chunked\r\n",
            b"FFFF\r\n" + b" " * 0xFFFF + b"\r\n" + b"FFFF\r\n" + b" " * 9,
            {413},
        ),
        (f"{json_type}Transfer-Encoding: chunked\r\n", b"1\r\n \r\n" * 70_000, {413}),
        (f"{json_type}Transfer-Encoding: gzip, chunked\r\n", b"5\r\nabcde\r\n0\r\n\r\n", {400, 415}),
        (f"{json_type}Content-Length: 2\r\n" + "X: y\r\n" * 70, b"{}", {431}),
        (f"{json_type}Content-Length: 2\r\nX: " + "y" * 9_000 + "\r\n", b"{}", {431}),
    ]


def throw(port: int, token: str, headers: str, body: bytes) -> int:
    """The status; 0 where the connection was cut while it was being sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        with suppress(OSError):
            sock.sendall(HEAD.format(token, headers).encode() + body)
        found = b""
        with suppress(OSError):
            while b"\r\n" not in found and (more := sock.recv(4096)):
                found += more
    return int(found.split()[1]) if found else 0


def test_no_body_makes_the_process_grow(daemon: Daemon) -> None:
    token = daemon.token("alice")
    Client(daemon.port, token)("GET", "/v1/offer")
    thrown = bombs() * 8
    with ThreadPoolExecutor(16) as pool:
        warm = list(pool.map(lambda bomb: throw(daemon.port, token, bomb[0], bomb[1]), bombs()))
        before = daemon.memory("VmHWM")
        statuses = list(pool.map(lambda bomb: throw(daemon.port, token, bomb[0], bomb[1]), thrown))
    wrong = [
        (got, right) for got, (_headers, _body, right) in zip(statuses, thrown, strict=True) if got not in right | {0}
    ]
    assert not wrong and len([each for each in statuses if each]) > len(statuses) * 0.8, (wrong, warm)
    grown = daemon.memory("VmHWM") - before
    print(f"A7 bodies: {len(thrown)} thrown, {before:.0f} MB before, {grown:.1f} MB more at most")
    assert grown < MEGABYTES
    assert Client(daemon.port, token)("POST", "/v1/instances", {}, key="k").status == 201


def test_no_connection_makes_the_process_grow(daemon: Daemon) -> None:
    token = daemon.token("alice")
    client = Client(daemon.port, token)
    assert client("GET", "/v1/offer").status == 200
    before, threads = daemon.memory(), daemon.threads()
    head = HEAD.format(token, "X: " + "y" * 8_000 + "\r\nY: " + "y" * 8_000 + "\r\nZ: " + "y" * 8_000)[:-2].encode()
    endless = HEAD.format(token, "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n").encode()
    with ExitStack() as stack:
        for begun in (head, endless + b"FFFFFFF\r\n" + b" " * 60_000):
            for _number in range(300):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port), timeout=30))
                sock.sendall(begun)
        time.sleep(1.0)  # nothing tells that it has read all this
        grown = daemon.memory() - before
        print(f"A7 connections: 600 with a head or a body begun, {before:.0f} MB before, {grown:.1f} MB more")
        assert grown < MEGABYTES and daemon.threads() == threads
        assert client("GET", "/v1/offer").status == 200
    until("they are forgotten", lambda: _connections(client) < 5)


def test_no_more_threads_than_there_may_be(daemon: Daemon) -> None:
    client = Client(daemon.port, daemon.token("alice"))
    with ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(client, "GET", "/v1/instances") for _number in range(600)]
        statuses = {each.result().status for each in asked}
    assert statuses <= {200, 503} and 200 in statuses
    assert daemon.threads() < 128 + 32 + 40


def _connections(client: Client) -> float:
    found = re.search(r"^muster_allocator_connections (\S+)$", client("GET", "/metrics").body.decode(), re.MULTILINE)
    assert found
    return float(found[1])

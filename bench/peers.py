# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers: locks on raw servers of other systems, each with the lock that its own users use, at its defaults.

etcd: the lock service of the server (`v3lock`), by its JSON gateway, one lease a contender. Redis: `redis.lock.Lock`, a
polled key with a time-out. ZooKeeper: `kazoo.recipe.lock.Lock`, one session a contender. Servers listen on loopback
only, keep their data in a temporary directory, write it without fsync as the API server's etcd does here, and are ended
by the pid that was started.
"""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from bench.contend import Holder
from bench.contenders import Requests
from cluster import toolchain
from cluster.kernel import die_with_parent

START_SECONDS = 30.0
SESSION_SECONDS = 120  # leases and sessions outlive a run, so that none ends in the middle of it


class Absent(Exception):
    """The peer is not installed here; the message says what is missing."""


class Server(NamedTuple):
    """A running server: its version, its pid, and the options of the class that contends on it."""

    version: str
    pid: int
    options: dict[str, Any]


class Peer(NamedTuple):
    """How to run a peer, and the class (`module:Class`) that contends on it."""

    name: str
    how: str
    system: str
    serve: Callable[[], Any]


@contextmanager
def _running(command: list[str], port: int, directory: str) -> Iterator[subprocess.Popen[bytes]]:
    log = Path(directory, "log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=directory, stdout=output, stderr=subprocess.STDOUT, preexec_fn=die_with_parent
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _accepts(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# ---------------------------------------------------------------------------------------------- etcd


@contextmanager
def serve_etcd() -> Iterator[Server]:
    binary = toolchain.path("etcd")
    if not binary.exists():
        raise Absent("etcd is not built: python -m cluster install --level control-plane")
    port, peer_port = _free_port(), _free_port()
    url, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    with tempfile.TemporaryDirectory() as directory:
        command = [
            str(binary),
            f"--data-dir={directory}/data",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]
        with _running(command, port, directory) as process:
            version = toolchain.pinned("kubernetes", "go.etcd.io/etcd/server/v3")
            yield Server(version, process.pid, {"url": url})


class Etcd:
    """One process's contenders on etcd."""

    def __init__(self, url: str) -> None:
        self.url, self._counted = url, Requests()

    @property
    def requests(self) -> Counter[str]:
        return self._counted.sent

    def contender(self, holder: Holder) -> _EtcdLock:
        return _EtcdLock(self.url, self._counted)

    def close(self) -> None:
        pass


class _EtcdLock:
    def __init__(self, url: str, requests: Requests) -> None:
        import urllib3

        self._pool = urllib3.connectionpool.connection_from_url(url, maxsize=1, retries=False)
        self._requests = requests
        self._lease = self._call("lease/grant", {"TTL": SESSION_SECONDS}, 10.0)["ID"]
        self._key = ""

    def acquire(self, until: float) -> int | None:
        from urllib3.exceptions import HTTPError

        try:
            name = base64.b64encode(b"bench").decode()
            answer = self._call("lock/lock", {"name": name, "lease": self._lease}, max(0.001, until - time.monotonic()))
        except HTTPError:  # the time was up
            return None
        self._key = answer["key"]
        return int(answer["header"]["revision"])

    def release(self) -> None:
        self._call("lock/unlock", {"key": self._key}, 10.0)

    def _call(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        self._requests.add("POST")
        response = self._pool.urlopen("POST", f"/v3/{path}", body=json.dumps(body), timeout=timeout)
        if response.status != 200:
            raise RuntimeError(f"etcd answered {path} with {response.status}: {response.data[:200]!r}")
        return dict(json.loads(response.data))


# ---------------------------------------------------------------------------------------------- Redis


@contextmanager
def serve_redis() -> Iterator[Server]:
    binary = shutil.which("redis-server")
    if not binary:
        raise Absent("redis-server is not on PATH (Debian package redis-server)")
    _require("redis")
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with _running([*command, "--maxclients", "4000"], port, directory) as process:
            words = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.split()
            version = next(word.removeprefix("v=") for word in words if word.startswith("v="))
            yield Server(version, process.pid, {"port": port})


class Redis:
    """One process's contenders on Redis."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.requests: Counter[str] = Counter()  # stays empty: what a lock sends is its library's affair

    def contender(self, holder: Holder) -> _RedisLock:
        return _RedisLock(self._port)

    def close(self) -> None:
        pass


class _RedisLock:
    def __init__(self, port: int) -> None:
        import redis

        self._lock = redis.Redis(port=port).lock("bench", timeout=SESSION_SECONDS)

    def acquire(self, until: float) -> int | None:
        left = until - time.monotonic()
        return 0 if left > 0 and self._lock.acquire(blocking_timeout=left) else None

    def release(self) -> None:
        self._lock.release()


# ---------------------------------------------------------------------------------------------- ZooKeeper


@contextmanager
def serve_zookeeper() -> Iterator[Server]:
    java, jars = shutil.which("java"), Path("/usr/share/java/zookeeper.jar")
    if not java or not jars.exists():
        raise Absent("ZooKeeper is not installed (Debian package zookeeper, and a Java runtime)")
    _require("kazoo")
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        settings = {
            "dataDir": f"{directory}/data",
            "clientPort": port,
            "clientPortAddress": "127.0.0.1",
            "maxClientCnxns": 0,
            "tickTime": 2000,
            "maxSessionTimeout": SESSION_SECONDS * 1000,
            "admin.enableServer": "false",
            "forceSync": "no",
        }
        Path(directory, "zoo.cfg").write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        options = ["-Xmx512m", "-Dzookeeper.forceSync=no", "-cp", f"{directory}:/usr/share/java/*"]
        with _running([java, *options, main, f"{directory}/zoo.cfg"], port, directory) as process:
            versions = [path.stem.removeprefix("zookeeper-") for path in jars.parent.glob("zookeeper-[0-9]*.jar")]
            version = versions[0] if versions else "unknown"
            yield Server(version, process.pid, {"port": port})


class ZooKeeper:
    """One process's contenders on ZooKeeper."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.requests: Counter[str] = Counter()  # stays empty: what a lock sends is its library's affair
        self._clients: list[Any] = []

    def contender(self, holder: Holder) -> _KazooLock:
        from kazoo.client import KazooClient

        client = KazooClient(f"127.0.0.1:{self._port}", timeout=SESSION_SECONDS)
        client.start(30)
        self._clients.append(client)
        return _KazooLock(client, holder.name)

    def close(self) -> None:
        for client in self._clients:
            client.stop()


class _KazooLock:
    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._lock = client.Lock("/bench", name)

    def acquire(self, until: float) -> int | None:
        from kazoo.exceptions import LockTimeout

        left = until - time.monotonic()
        try:
            if left <= 0 or not self._lock.acquire(timeout=left):
                return None
        except LockTimeout:
            return None
        return int(self._lock.node.rpartition("__")[2]) + 1  # the sequence number of the lock's own node

    def release(self) -> None:
        self._lock.release()


def _require(package: str) -> None:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        raise Absent(f"the Python package {package} is not installed (requirements/bench.lock)") from None


PEERS = (
    Peer("etcd", "etcd's own lock service, by its JSON gateway", "bench.peers:Etcd", serve_etcd),
    Peer("zookeeper", "kazoo's Lock", "bench.peers:ZooKeeper", serve_zookeeper),
    Peer("redis", "redis-py's Lock: polled every 0.1 s, no fence, no order", "bench.peers:Redis", serve_redis),
)

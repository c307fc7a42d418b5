# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is built into the child processes of a nursery: a record of what they write, and bombs in these places.

A bomb kills or stops the whole process right before or right after its n-th write of a kind, to the API server or to
the cloud. The product knows nothing of this: two methods are wrapped, through which all writes go.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.vm.cloud_client import CloudClient

BEFORE, AFTER = "before", "after"
KILL, STOP = "kill", "stop"
OK = "ok"
WORKERS = "muster.dev/worker-config"  # label of the ConfigMaps with the workers' configuration: the first one's name


class Bomb(NamedTuple):
    """Where a process ends (or stops); `nth` counts from the moment when the bomb is set."""

    kind: str
    when: str
    nth: int = 1
    how: str = KILL

    def __str__(self) -> str:
        return f"{self.when} {self.kind}"


def kind_of_write(method: str, plural: str, subresource: str, body: Mapping[str, Any]) -> str:
    """What a write to the API server is about, in the words in which a kill point is named."""
    spec, metadata, status = body.get("spec") or {}, body.get("metadata") or {}, body.get("status") or {}
    match plural, method:
        case "leases", "POST":
            return "lease make"
        case "leases", "PUT":
            if not spec.get("holderIdentity"):
                return "lease free"
            return "lease take" if spec.get("acquireTime") == spec.get("renewTime") else "lease renew"
        case "configmaps", _ if WORKERS in (metadata.get("labels") or {}):
            return kind_of_config(method, body)
        case "configmaps", "POST":
            return "table make"
        case "configmaps", "PUT":
            return "table write"
        case "swarms", "PUT":
            reasons = [each.get("reason") for each in status.get("conditions") or [] if each.get("type") == "Ready"]
            return f"status {reasons[0] if reasons else None}"
        case "statefulsets" | "deployments", "PUT" if subresource == "scale":
            return "scale"
        case "pods", "POST" if subresource == "eviction":
            return "evict"
        case "virtualmachines", "PUT":
            if subresource:
                return f"status {status.get('phase')}"
            return "finalizer add" if metadata.get("finalizers") else "finalizer remove"
        case "events", _:
            return "event"
    return f"{method} {plural}"


def kind_of_config(method: str, body: Mapping[str, Any]) -> str:
    """A write of the workers' configuration: the first, one with jobs that are being let go, or any other."""
    metadata, data = body["metadata"], body.get("data") or {}
    if metadata["labels"][WORKERS] != metadata["name"]:
        return "part make" if method == "POST" else "part write"
    if method == "POST":
        return "config make"
    workers = json.loads(data.get("handover.json") or "{}").get("workers", {})
    return "config revoke" if any(each.get("leaving") for each in workers.values()) else "config assign"


def kind_of_call(method: str, path: str) -> str:
    """The same for a call of the cloud."""
    if path.startswith("/v1/fences/"):
        return "cloud find"
    return {"POST": "cloud create", "PUT": "cloud resize", "DELETE": "cloud delete"}.get(method, "cloud read")


class Explosives:
    """The bomb of this process, and its record in a file. For several threads."""

    def __init__(self, record: Path) -> None:
        self._bomb: Bomb | None = None
        self._left = 0
        self._lock = threading.Lock()
        self._file = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def set(self, bomb: Bomb | None) -> None:
        """This bomb, and no other."""
        with self._lock:
            self._bomb, self._left = bomb, bomb.nth if bomb else 0

    def around(self, kind: str, call: Callable[[], Any], **fields: Any) -> Any:
        """Do it, and write down how it went, with the fields; or die. What had to wait for its bomb is `late`."""
        late = {"late": True} if self._pass(kind, BEFORE, fields) else {}
        at, outcome = time.monotonic_ns(), OK
        try:
            return call()
        except MusterError as error:
            outcome = type(error).__name__
            raise
        finally:
            self._write(kind=kind, at=at, outcome=outcome, **late, **fields)
            self._pass(kind, AFTER, fields)

    def _pass(self, kind: str, when: str, fields: Mapping[str, Any]) -> bool:
        """Whether it was stopped here, and goes on."""
        with self._lock:
            bomb = self._bomb
            if bomb is None or (bomb.kind, bomb.when) != (kind, when):
                return False
            self._left -= 1
            if self._left:
                return False
            self._bomb = None
            self._write(exploded=str(bomb), how=bomb.how, at=time.monotonic_ns(), **fields)
            if bomb.how == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # stops all threads, and this one right here
        return True

    def _write(self, **line: Any) -> None:
        os.write(self._file, json.dumps(line).encode() + b"\n")


def build_in(explosives: Explosives, orders: Connection) -> None:
    """Wrap what writes, and obey: each order is a Bomb, or None for no bomb."""
    write, call = Api._write, CloudClient._call

    def watched_write(api: Api, method: str, asked: Any, body: Any, path: str = "") -> Any:
        kind = kind_of_write(method, asked.resource.plural, asked.subresource, body)
        return explosives.around(kind, lambda: write(api, method, asked, body, path), name=asked.name)

    def watched_call(
        client: CloudClient, method: str, path: str, writer: Any = None, *rest: Any, **more: Any
    ) -> dict[str, Any]:
        fields = {} if writer is None else {"scope": writer.scope, "fence": writer.fence}
        doing: dict[str, Any] = explosives.around(
            kind_of_call(method, path), lambda: call(client, method, path, writer, *rest, **more), **fields
        )
        return doing

    Api._write, CloudClient._call = watched_write, watched_call  # type: ignore[method-assign,assignment]

    def obey() -> None:
        while True:
            try:
                explosives.set(orders.recv())
            except (EOFError, OSError):
                return

    threading.Thread(target=obey, name="orders", daemon=True).start()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The private cloud is killed in the middle of its work: what it answered is there afterwards, and nothing twice."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.vm.cloud_client import CloudClient
from muster.vm.cloud_store import Store
from muster.vm.cloud_wire import Writer

KILLS, CLIENTS, EACH = 3, 4, 8
SERVE = """
import sys, threading
from pathlib import Path
from muster.vm.cloud import CloudServer
from muster.vm.cloud_store import Store
print(CloudServer("127.0.0.1:0", Store(Path(sys.argv[1]))).port, flush=True)
threading.Event().wait()
"""


def test_what_was_answered_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    made: dict[str, str] = {}  # key: id, as they were answered
    going: set[str] = set()  # whose deletion was begun
    gone: set[str] = set()  # whose deletion was answered

    def work(port: int, run: int, number: int) -> None:
        client = CloudClient(f"http://127.0.0.1:{port}")
        writer = Writer(run + 1, f"scope-{number}")
        try:
            for count in range(10_000):
                key = f"{run}-{number}-{count}"
                asked = {"name": key, "uid": key, "cores": 1, "memory": "1Gi", "image": "i"}
                made[key] = client.create(writer, asked, key, timeout=30)["id"]
                if count % 3 == 0:
                    going.add(key)
                    client.delete(writer, made[key], timeout=30)
                    gone.add(key)
        except MusterError:
            pass  # it was killed

    for run in range(KILLS):
        process = subprocess.Popen([sys.executable, "-c", SERVE, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port, before = int(process.stdout.readline()), len(made)
        clients = [threading.Thread(target=work, args=(port, run, number)) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        until(lambda before=before: len(made) >= before + CLIENTS * EACH, "answers", 60)
        process.kill()
        process.wait()
        process.stdout.close()
        for client in clients:
            client.join()

        store = Store(path)
        assert set(store.counters()["creates"].values()) == {1}
        assert made.keys() <= store.counters()["creates"].keys()
        live = {machine["request"]: machine["id"] for machine in store.page(limit=1_000_000)}
        kept = made.keys() - going
        assert {key: live[key] for key in kept} == {key: made[key] for key in kept}
        assert not gone & live.keys()
        store.close()

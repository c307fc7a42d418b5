# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A control plane of a test's own, for what would hurt others: its API server is killed, its history is compacted."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class ControlPlane:
    """One of the embedded ones, named `name`, with all its files in `directory`."""

    def __init__(self, directory: Path, name: str = "faults") -> None:
        self._environment = {**os.environ, "MUSTER_CLUSTER": "embedded", "MUSTER_CLUSTER_DIR": str(directory)}
        self._environment.pop("KUBECONFIG", None)
        self._name = name
        self.directory = directory / name

    def __call__(self, verb: str, *arguments: str) -> str:
        """`python -m cluster VERB`; its output."""
        command = [sys.executable, "-m", "cluster", verb, "--level", "control-plane", "--name", self._name, *arguments]
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command[2:]}:\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def kubeconfig(self) -> str:
        return str(self.directory / "kubeconfig")

    def kill_server(self) -> None:
        """SIGKILL the API server; it is started again."""
        self("kill", "kube-apiserver")

    def etcd(self, call: str, **body: object) -> dict[str, Any]:
        """One call of etcd's own API, with the API server's certificate."""
        pki, spec = self.directory / "pki", json.loads((self.directory / "spec.json").read_text())
        context = ssl.create_default_context(cafile=str(pki / "etcd-ca.crt"))
        context.load_cert_chain(pki / "etcd-client.crt", pki / "etcd-client.key")
        connection = http.client.HTTPSConnection("127.0.0.1", spec["ports"]["etcd"], context=context, timeout=30)
        connection.request("POST", f"/v3/{call}", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, text
        found: dict[str, Any] = json.loads(text)
        return found

    def compact(self) -> int:
        """Have etcd forget all revisions before the newest, which is returned."""
        newest = int(self.etcd("kv/range", key=b64encode(b"x").decode())["header"]["revision"])
        self.etcd("kv/compaction", revision=str(newest), physical=True)
        return newest

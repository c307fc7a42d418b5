# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An allocator as a real process on a real API server, and users with real tokens: for tests of its clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import AlreadyExists, Api, Resource
from ansible_collections.muster.coordination.plugins.module_utils.client.allocator import AllocatorClient, token_of
from ansible_collections.muster.coordination.plugins.module_utils.client.answers import Asked

ROOT = Path(__file__).parents[2]
AUDIENCE = "muster-allocator"
LONG = 120.0  # seconds: a deadline for what takes a moment
DEFINITIONS = Resource(
    "apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
RUN = """
import argparse, os, sys
from muster.allocator import server_cli
parser = argparse.ArgumentParser()
server_cli.add(parser.add_subparsers(), os.environ)
args = parser.parse_args(["allocatord", *sys.argv[1:]])
sys.exit(args.call(args))
"""


class AllocatorSite:
    """`allocatord` in a namespace, served at `url`; it is `name`."""

    def __init__(
        self, api: Api, kubeconfig: str, namespace: str, template: str, directory: Path, *options: str
    ) -> None:
        self.api, self.namespace, self.name = api, namespace, "alloc"
        self.kubeconfig = str(Path(kubeconfig).resolve())
        self._template = directory / "template.yaml"
        self._template.write_text(template)
        self._options = options
        self._listen = "127.0.0.1:0"
        self._running: list[subprocess.Popen[str]] = []
        define(api)
        self.start()

    def start(self) -> None:
        """Or start again, at the same port."""
        command = [
            *(sys.executable, "-c", RUN, "run", "--name", self.name, "--server-name", "kv"),
            *("--deployment-template", str(self._template), "--audience", AUDIENCE, "--namespace", self.namespace),
            *("--listen", self._listen, "--health-listen", "127.0.0.1:0", *self._options),
        ]
        own = ("MUSTER_", "KUBECONFIG", "POD_")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self._process = subprocess.Popen(
            command, env={**environ, "KUBECONFIG": self.kubeconfig}, stderr=subprocess.PIPE, text=True
        )
        self._running.append(self._process)
        assert self._process.stderr is not None
        lines = []
        for line in self._process.stderr:
            lines.append(line)
            if "users_port" in line:
                port = json.loads(line)["users_port"]
                break
        else:
            raise AssertionError("".join(lines))
        self._listen = f"127.0.0.1:{port}"
        self.url = f"http://{self._listen}"
        threading.Thread(target=self._process.stderr.read, daemon=True).start()  # so that it is never full

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def account(self, name: str) -> str:
        """Make a ServiceAccount; the name of the user that it is."""
        self.api.create(ACCOUNTS, {"metadata": {"name": name, "namespace": self.namespace}})
        return f"system:serviceaccount:{self.namespace}:{name}"

    def token(self, name: str, audience: str = AUDIENCE) -> str:
        """A token of a ServiceAccount."""
        asked = Asked("create", Resource("v1", "serviceaccounts", "TokenRequest"), self.namespace, name, "token")
        spec = {"audiences": [audience] if audience else []}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token: str = self.api._write("POST", asked, request)["status"]["token"]
        return token

    def client(self, token: str) -> AllocatorClient:
        return AllocatorClient(self.url, token_of(token, "the token"))

    def command(self, token: str, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """The command `allocator`, of the user with that token."""
        known = {name: value for name, value in os.environ.items() if not name.startswith(("MUSTER_", "KUBECONFIG"))}
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.allocator.client_cli", *arguments],
            env={**known, "ALLOCATOR": self.url, "ALLOCATOR_TOKEN": token, **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def says(self, token: str, *arguments: str, status: int = 0, **environ: str) -> str:
        """What the command says on standard output; on standard error, too, where it is to fail."""
        process = self.command(token, *arguments, **environ)
        out, err = process.communicate(timeout=LONG)
        assert process.returncode == status, f"{arguments}: {process.returncode}\n{out}{err}"
        return out if status == 0 else out + err

    def close(self) -> None:
        for process in self._running:
            process.kill()
            process.wait()


def define(api: Api) -> None:
    """Have the cluster know Instances."""
    definition: Mapping[str, Any] = yaml.safe_load((ROOT / "charts/allocator/crds/instances.yaml").read_text())
    with suppress(AlreadyExists):
        api.create(DEFINITIONS, dict(definition))
    name, deadline = definition["metadata"]["name"], time.monotonic() + LONG
    for _change in api.follow(DEFINITIONS, name=name, watch_timeout=5):
        found = (api.get(DEFINITIONS, name).get("status") or {}).get("conditions") or []
        if any(one["type"] == "Established" and one["status"] == "True" for one in found):
            return
        assert time.monotonic() < deadline, found

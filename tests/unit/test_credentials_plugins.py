# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Logins by a program (exec plugins) and by the official client (auth providers)."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api
from ansible_collections.muster.coordination.plugins.module_utils.client import identities
from ansible_collections.muster.coordination.plugins.module_utils.credentials import (
    Credentials,
    CredentialsError,
    MissingLibrary,
)
from ansible_collections.muster.coordination.tests.support.scripted_server import ScriptedServer, say, status

V1 = "client.authentication.k8s.io/v1"
V1BETA1 = "client.authentication.k8s.io/v1beta1"
SERVER = "https://10.0.0.1:6443"

# Writes what it was given to seen.json, counts its runs, and prints the answer that lies beside it.
PROGRAM = """
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "runs"), "a") as runs:
    runs.write("x")
seen = {
    "args": sys.argv[1:],
    "info": json.loads(os.environ["KUBERNETES_EXEC_INFO"]),
    "secret": os.environ.get("PLUGIN_SECRET"),
    "inherited": os.environ.get("INHERITED"),
    "stdin": sys.stdin.read(),
}
with open(os.path.join(here, "seen.json"), "w") as file:
    json.dump(seen, file)
sys.stderr.write("the plugin complains about " + str(os.environ.get("PLUGIN_SECRET")))
with open(os.path.join(here, "answer")) as file:
    sys.stdout.write(file.read())
sys.exit(int(os.environ.get("PLUGIN_EXIT", "0")))
"""


class Plugin:
    """A plugin in its own directory; `answer` says what it prints next."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "plugin.py").write_text(PROGRAM)
        (directory / "runs").write_text("")
        self.answer(token="t-1")

    def answer(self, version: str = V1, **credential: Any) -> None:
        document = {"apiVersion": version, "kind": "ExecCredential", "status": credential}
        self.print(json.dumps(document))

    def print(self, text: str) -> None:
        (self.directory / "answer").write_text(text)

    @property
    def runs(self) -> int:
        return len((self.directory / "runs").read_text())

    @property
    def seen(self) -> Any:
        return json.loads((self.directory / "seen.json").read_text())

    def load(self, server: str = SERVER, cluster: dict[str, Any] | None = None, **spec: Any) -> Credentials:
        plugin = {
            "apiVersion": V1,
            "command": sys.executable,
            "args": [str(self.directory / "plugin.py"), "login"],
            "interactiveMode": "Never",
            **spec,
        }
        return Credentials.load({"kubeconfig": kubeconfig(server, {"exec": plugin}, cluster)}, {"INHERITED": "yes"})


def kubeconfig(server: str, user: dict[str, Any], cluster: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def in_seconds(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


# -- exec plugins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [V1, V1BETA1])
def test_a_plugin_gives_a_token_once(plugin: Plugin, version: str) -> None:
    plugin.answer(version, token="t-1", expirationTimestamp=in_seconds(3600))
    credentials = plugin.load(apiVersion=version, env=[{"name": "PLUGIN_SECRET", "value": "s3cret"}])
    for _ in range(3):
        assert credentials.headers() == [("Authorization", "Bearer t-1")]
        credentials.tls()
    assert plugin.runs == 1
    assert plugin.seen == {
        "args": ["login"],
        "info": {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}},
        "secret": "s3cret",
        "inherited": "yes",
        "stdin": "",
    }


def test_a_plugin_is_told_of_the_cluster_if_it_asks(plugin: Plugin) -> None:
    ca = base64.b64encode(b"CA").decode()
    cluster = {
        "certificate-authority-data": ca,
        "tls-server-name": "kubernetes",
        "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}],
    }
    plugin.load(cluster=cluster, provideClusterInfo=True).headers()
    assert plugin.seen["info"]["spec"]["cluster"] == {
        "server": SERVER,
        "tls-server-name": "kubernetes",
        "certificate-authority-data": ca,
        "config": {"audience": "x"},
    }


def test_an_expired_credential_is_asked_for_again(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin.answer(token="t-1", expirationTimestamp=in_seconds(100))
    credentials = plugin.load()
    assert credentials.headers()[0][1] == "Bearer t-1"
    plugin.answer(token="t-2")
    now = time.time()
    monkeypatch.setattr(identities.time, "time", lambda: now + 99)
    assert credentials.headers()[0][1] == "Bearer t-1"
    monkeypatch.setattr(identities.time, "time", lambda: now + 101)
    assert credentials.headers()[0][1] == "Bearer t-2"


def test_a_401_asks_the_plugin_again_and_the_request_goes_on(plugin: Plugin) -> None:
    def renew(exchange: Any) -> None:
        plugin.answer(token="t-2")
        say(401, status("Unauthorized"))(exchange)

    with ScriptedServer(renew, say(200, {"metadata": {}})) as server:
        Api(plugin.load(server.url)).get(CONFIGMAPS, "x", "team")
    assert [request.headers["Authorization"] for request in server.requests] == ["Bearer t-1", "Bearer t-2"]


def test_a_401_that_another_thread_has_dealt_with_runs_nothing(plugin: Plugin) -> None:
    credentials = plugin.load()
    credentials.headers()
    plugin.answer(token="t-2")
    assert credentials.refused("Bearer t-1")
    credentials.headers()
    assert credentials.refused("Bearer t-1")  # the other thread, late
    credentials.headers()
    assert plugin.runs == 2


def test_threads_share_one_run(plugin: Plugin) -> None:
    credentials = plugin.load()
    threads = [threading.Thread(target=credentials.headers) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert plugin.runs == 1


def test_a_plugin_may_give_a_certificate(plugin: Plugin) -> None:
    plugin.answer(clientCertificateData="CERT", clientKeyData="KEY")
    credentials = plugin.load()
    tls = credentials.tls()
    assert credentials.headers() == []
    assert tls.cert and tls.key
    assert (tls.cert.text, tls.key.text) == ("CERT", "KEY")
    plugin.answer(clientCertificateData="CERT-2", clientKeyData="KEY-2")
    assert credentials.refused(None)
    assert credentials.tls() != tls  # new connections are needed


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("", "did not print an ExecCredential"),
        ("very-secret", "did not print an ExecCredential"),
        ('{"apiVersion": "x", "token": "very-secret"}', "did not print an ExecCredential"),
        ('{"apiVersion": "x", "status": {"token": "very-secret"}}', "answered in 'x', not in 'client.auth"),
        (json.dumps({"apiVersion": V1, "status": {}}), "neither a token nor a client certificate"),
        (json.dumps({"apiVersion": V1, "status": {"clientKeyData": "very-secret"}}), "neither a token nor"),
        (
            json.dumps({"apiVersion": V1, "status": {"token": "very-secret", "expirationTimestamp": "soon"}}),
            "expirationTimestamp 'soon': RFC 3339",
        ),
        (json.dumps({"apiVersion": V1, "status": {"token": "very-secret\nX: y"}}), "line break"),
    ],
)
def test_a_senseless_answer_is_named_unseen(plugin: Plugin, answer: str, words: str) -> None:
    plugin.print(answer)
    with pytest.raises(CredentialsError, match=words) as caught:
        plugin.load().headers()
    assert "very-secret" not in str(caught.value)


def test_a_plugin_that_fails_is_heard_but_for_its_secrets(plugin: Plugin) -> None:
    env = [{"name": "PLUGIN_EXIT", "value": "3"}, {"name": "PLUGIN_SECRET", "value": "very-secret"}]
    with pytest.raises(CredentialsError, match=r"failed with exit code 3: the plugin complains about \*\*\*$"):
        plugin.load(env=env).headers()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"command": "no-such-program"}, "can't be started: No such file.*install it"),
        ({"command": "no-such-program", "installHint": "Run setup."}, r"can't be started: .* Run setup\."),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "v1alpha1.*v1 and /v1beta1 are understood"),
        ({"apiVersion": None}, "are understood"),
        ({"interactiveMode": None}, "interactiveMode None: one of Never"),
        ({"interactiveMode": "Sometimes"}, "interactiveMode 'Sometimes': one of Never"),
        ({"interactiveMode": "Always"}, "Always, and there is no terminal here"),
    ],
)
def test_a_plugin_that_cannot_be_run(plugin: Plugin, spec: dict[str, Any], words: str) -> None:
    with pytest.raises(CredentialsError, match=words):
        plugin.load(**spec).headers()


def test_a_plugin_that_hangs_is_ended(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identities, "PLUGIN_SECONDS", 0.2)
    with pytest.raises(CredentialsError, match=r"did not finish within 0\.2 s"):
        plugin.load(command="sleep", args=["3600"]).headers()


def test_a_relative_command_is_beside_the_kubeconfig(plugin: Plugin, tmp_path: Path) -> None:
    script = tmp_path / "bin" / "login"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tmp_path}/plugin.py"\n')
    script.chmod(0o755)
    spec = {"apiVersion": V1, "command": "./bin/login", "interactiveMode": "IfAvailable"}
    (tmp_path / "config").write_text(json.dumps(kubeconfig(SERVER, {"exec": spec})))
    credentials = Credentials.load({"kubeconfig": str(tmp_path / "config")}, {"PATH": "/nonexistent"})
    assert credentials.headers() == [("Authorization", "Bearer t-1")]


# -- auth providers ---------------------------------------------------------------------------------------------------


def _jwt(expires: float) -> str:
    parts = ({"alg": "none"}, {"exp": int(expires), "sub": "ann"})
    return ".".join([*(base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts), "sig"])


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize("persist", [True, False])
def test_oidc_is_left_to_the_official_client(tmp_path: Path, as_file: bool, persist: bool) -> None:
    token = _jwt(time.time() + 3600)
    user = {"auth-provider": {"name": "oidc", "config": {"id-token": token}}, "as": "bob"}
    document: Any = kubeconfig(SERVER, user)
    if as_file:
        (tmp_path / "config").write_text(json.dumps(document))
        document = str(tmp_path / "config")
    credentials = Credentials.load({"kubeconfig": document, "persist_config": persist}, {})
    assert credentials.headers() == [("Authorization", f"Bearer {token}"), ("Impersonate-User", "bob")]
    assert not credentials.refused(f"Bearer {token}")  # it has no other one


def test_a_provider_that_the_official_client_does_not_know_is_named() -> None:
    user = {"auth-provider": {"name": "azure", "config": {"access-token": "very-secret"}}}
    with pytest.raises(CredentialsError, match="auth-provider of context 'c' gave no token: log in again") as caught:
        Credentials.load({"kubeconfig": kubeconfig(SERVER, user)}, {}).headers()
    assert "very-secret" not in str(caught.value)


def test_a_provider_that_fails_is_named_unseen() -> None:
    config = {"id-token": "very.secret", "refresh-token": "x"}
    user = {"auth-provider": {"name": "oidc", "config": config}}
    with pytest.raises(CredentialsError, match="auth-provider of context 'c'") as caught:
        Credentials.load({"kubeconfig": kubeconfig(SERVER, user)}, {}).headers()
    assert "very.secret" not in str(caught.value)


def test_the_official_client_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    user = {"auth-provider": {"name": "oidc", "config": {}}}
    with pytest.raises(MissingLibrary, match="pip install kubernetes"):
        Credentials.load({"kubeconfig": kubeconfig(SERVER, user)}, {}).headers()


def test_the_official_client_is_not_imported_for_what_we_can_do(plugin: Plugin) -> None:
    import subprocess

    program = (
        "import sys, json\n"
        "from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Credentials\n"
        "Api(Credentials.load({'kubeconfig': json.load(sys.stdin)}, {}))\n"
        "print([name for name in ('kubernetes', 'yaml', 'requests', 'ansible') if name in sys.modules])\n"
    )
    document = json.dumps(kubeconfig(SERVER, {"token": "t"}))
    done = subprocess.run(
        [sys.executable, "-c", program], input=document, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks: where the Authorization header, and perhaps a client certificate, comes from, and how it stays fresh.

What is not understood here (auth providers such as oidc) is left to the official `kubernetes` package, which is
imported only then: it costs a second and 49 MB.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Final, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.client.kubeconfig import (
    CredentialsError,
    Entry,
    MissingLibrary,
    file_text,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.tls import Pem, pem

REREAD_SECONDS: Final = 60.0  # a token file is read again after this time, and at once after a 401
PLUGIN_SECONDS: Final = 60.0  # an exec plugin that takes longer has failed


class Identity(Protocol):
    """Where the Authorization header (and perhaps a certificate) comes from."""

    def authorization(self) -> str | None:
        """The header's value now."""

    def pair(self) -> tuple[Pem, Pem] | None:
        """A client certificate and its key that belong to this identity."""

    def refused(self, authorization: str | None) -> bool:
        """The server refused this value: look again. True if there is something new to try."""


def header_value(text: str, what: str) -> str:
    # http.client would put the value itself into its error
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise CredentialsError(f"{what} contains a line break or another control character: write it in one line")
    return text.encode("utf-8").decode("latin-1")


def bearer(token: str, what: str) -> str:
    token = token.strip()
    if not token:
        raise CredentialsError(f"{what} is empty: a bearer token is expected")
    return "Bearer " + header_value(token, what)


class Fixed:
    """A header value that never changes, or none."""

    def __init__(self, authorization: str | None) -> None:
        self._authorization = authorization

    def authorization(self) -> str | None:
        return self._authorization

    def pair(self) -> tuple[Pem, Pem] | None:
        return None

    def refused(self, authorization: str | None) -> bool:
        return False


class TokenFile:
    """A token that somebody else (the kubelet, say) keeps fresh in a file."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._value: str | None = None
        self._read_at = 0.0

    def authorization(self) -> str | None:
        with self._lock:
            if self._value is None or time.monotonic() - self._read_at >= REREAD_SECONDS:
                self._read()
            return self._value

    def pair(self) -> tuple[Pem, Pem] | None:
        return None

    def refused(self, authorization: str | None) -> bool:
        with self._lock:
            self._read()
            return self._value != authorization

    def _read(self) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                self._value = bearer(file.read(65536), f"the token file {self._path}")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not text"
            raise CredentialsError(f"the token file {self._path} can't be read: {reason}") from None
        self._read_at = time.monotonic()


class ExecPlugin:
    """A credential plugin (client.authentication.k8s.io v1 and v1beta1); what it gives is kept until it expires."""

    def __init__(self, spec: Entry, cluster: Entry, source: str, environ: Mapping[str, str]) -> None:
        self._spec = spec
        self._cluster = cluster
        self._environ = environ
        self._lock = threading.Lock()
        self._given: Entry | None = None
        self._expires = 0.0
        self._what = f"the exec plugin {spec.get('command')!r} of {source}"
        if not isinstance(spec.get("command"), str) or not spec["command"]:
            raise CredentialsError(f"users[].user.exec.command is missing in {source}")
        group, _dummy, version = str(spec.get("apiVersion")).rpartition("/")
        if group != "client.authentication.k8s.io" or version not in ("v1", "v1beta1"):
            raise CredentialsError(
                f"{self._what} has apiVersion {spec.get('apiVersion')!r}: client.authentication.k8s.io/v1 and "
                "/v1beta1 are understood; update the plugin and the kubeconfig"
            )
        self._mode = spec.get("interactiveMode") or ("IfAvailable" if version == "v1beta1" else None)
        if self._mode not in ("Never", "IfAvailable", "Always"):
            raise CredentialsError(
                f"{self._what} has interactiveMode {self._mode!r}: one of Never, IfAvailable, Always is needed"
            )

    def authorization(self) -> str | None:
        token = self._current().get("token")
        return bearer(token, f"the token from {self._what}") if token else None

    def pair(self) -> tuple[Pem, Pem] | None:
        given = self._current()
        if not given.get("clientCertificateData"):
            return None
        return Pem(text=given["clientCertificateData"]), Pem(text=given["clientKeyData"])

    def refused(self, authorization: str | None) -> bool:
        with self._lock:
            token = (self._given or {}).get("token")
            if token is None or authorization == bearer(token, "the token"):
                self._given = None  # else another thread has run the plugin already
        return True

    def _current(self) -> Entry:
        with self._lock:
            if self._given is None or (self._expires and time.time() >= self._expires):
                self._given, self._expires = self._understand(self._run())
            return self._given

    def _run(self) -> str:
        import subprocess
        import sys

        terminal = self._mode != "Never" and sys.stdin is not None and sys.stdin.isatty()
        if self._mode == "Always" and not terminal:
            raise CredentialsError(f"{self._what} has interactiveMode Always, and there is no terminal here")
        extra = {str(item["name"]): str(item["value"]) for item in self._spec.get("env") or ()}
        environ = {**self._environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(self._info(terminal))}
        command = [self._spec["command"], *map(str, self._spec.get("args") or ())]
        try:
            done = subprocess.run(
                command,
                env=environ,
                stdin=None if terminal else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if terminal else subprocess.PIPE,
                timeout=PLUGIN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CredentialsError(f"{self._what} did not finish within {PLUGIN_SECONDS:g} s") from None
        except OSError as error:
            hint = self._spec.get("installHint") or "install it, or name its full path"
            raise CredentialsError(f"{self._what} can't be started: {error.strerror}. {hint}") from None
        if done.returncode:
            said = (done.stderr or b"").decode("utf-8", "replace").strip()[-500:]
            for secret in extra.values():
                said = said.replace(secret, "***") if len(secret) > 3 else said
            raise CredentialsError(f"{self._what} failed with exit code {done.returncode}: {said or '(no message)'}")
        return done.stdout.decode("utf-8", "replace")

    def _info(self, terminal: bool) -> Entry:
        spec: Entry = {"interactive": terminal}
        if self._spec.get("provideClusterInfo"):
            spec["cluster"] = plugin_cluster(self._cluster)
        return {"apiVersion": self._spec["apiVersion"], "kind": "ExecCredential", "spec": spec}

    def _understand(self, output: str) -> tuple[Entry, float]:
        try:
            answer = json.loads(output)
            version, status = answer.get("apiVersion"), answer["status"]
            token, cert, key = (status.get(n) for n in ("token", "clientCertificateData", "clientKeyData"))
        except (ValueError, AttributeError, KeyError, TypeError):
            raise CredentialsError(f"{self._what} did not print an ExecCredential with a status") from None
        if version != self._spec["apiVersion"]:
            raise CredentialsError(f"{self._what} answered in {version!r}, not in {self._spec['apiVersion']!r}")
        if not token and not (cert and key):
            raise CredentialsError(f"{self._what} gave neither a token nor a client certificate with its key")
        return status, _epoch(status.get("expirationTimestamp"), self._what)


def _epoch(timestamp: str | None, what: str) -> float:
    """Seconds since 1970 of an RFC 3339 time; 0 for none."""
    if not timestamp:
        return 0.0
    from datetime import datetime

    try:
        return datetime.fromisoformat(timestamp).timestamp()
    except (TypeError, ValueError):
        raise CredentialsError(f"{what} gave expirationTimestamp {timestamp!r}: RFC 3339 is expected") from None


class OfficialClient:
    """Whatever else a kubeconfig's user can be: the official package finds and refreshes the token."""

    def __init__(self, cluster: Entry, user: Entry, context: str, persist_in: list[str]) -> None:
        """`persist_in`: the kubeconfig files in which refreshed tokens are saved; none: they are not."""
        self._cluster, self._user, self._context, self._persist_in = cluster, user, context, persist_in
        self._lock = threading.Lock()
        self._configuration: Any = None

    def authorization(self) -> str | None:
        with self._lock:
            if self._configuration is None:
                self._configuration = self._load()
            value = self._configuration.get_api_key_with_prefix("BearerToken", "authorization")  # new and old name
        if not value:
            raise CredentialsError(
                f"the auth-provider of context {self._context!r} gave no token: log in again with its own tool, or "
                "use an exec plugin (the official kubernetes client has dropped some providers)"
            )
        return header_value(value, "the token of the auth-provider")

    def pair(self) -> tuple[Pem, Pem] | None:
        return None

    def refused(self, authorization: str | None) -> bool:
        with self._lock:
            self._configuration = None
        return self.authorization() != authorization

    def _load(self) -> Any:
        try:
            from kubernetes import client, config
        except ImportError:
            raise MissingLibrary("kubernetes", "for an auth-provider in a kubeconfig") from None
        configuration = client.Configuration()
        try:
            if self._persist_in:
                path = os.pathsep.join(self._persist_in)
                config.load_kube_config(path, self._context, configuration, persist_config=True)
            else:
                config.load_kube_config_from_dict(self._document(), self._context, configuration)
        except Exception as error:  # whatever a provider raises; its text may hold a token
            raise CredentialsError(
                f"the auth-provider of context {self._context!r} failed ({type(error).__name__}): log in again"
            ) from None
        return configuration

    def _document(self) -> Entry:
        """A kubeconfig of this login alone, its paths absolute."""
        name = self._context
        return {
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": self._cluster}],
            "users": [{"name": name, "user": self._user}],
        }


def plugin_cluster(cluster: Entry) -> Entry:
    """A cluster as ExecCredential.spec.cluster wants it."""
    info = {
        name: cluster[name]
        for name in ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
        if cluster.get(name)
    }
    ca = pem(cluster, "certificate-authority", "the cluster")
    if ca:
        text = ca.text or file_text(ca.path)
        info["certificate-authority-data"] = base64.b64encode(text.encode()).decode()
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return info

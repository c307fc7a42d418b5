# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who we are to a Kubernetes API server, and where it is.

Every source (options, K8S_AUTH_* variables, kubeconfig files, the Pod's service account) is first brought into the
vocabulary of a kubeconfig, one `cluster` and one `user` mapping; only then is it interpreted, once. What a kubeconfig
can say and is not understood here (auth providers such as oidc) is left to the official `kubernetes` package, which
is imported only then: it costs a second and 49 MB.

Secrets are in no message, repr or log. Files are read again when they change; see `Credentials`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, Protocol
from urllib.parse import quote, urlsplit

from ansible_collections.muster.coordination.plugins.module_utils.errors import (
    MusterError,
)

if TYPE_CHECKING:
    import ssl

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
REREAD_SECONDS: Final = 60.0  # a token file is read again after this time, and at once after a 401
PLUGIN_SECONDS: Final = 60.0  # an exec plugin that takes longer has failed

# option -> the names that kubernetes.core accepts after K8S_AUTH_, first one first
OPTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "kubeconfig": ("KUBECONFIG",),
    "context": ("CONTEXT",),
    "host": ("HOST",),
    "api_key": ("API_KEY",),
    "username": ("USERNAME",),
    "password": ("PASSWORD",),
    "validate_certs": ("VALIDATE_CERTS", "VERIFY_SSL"),
    "ca_cert": ("CA_CERT", "SSL_CA_CERT"),
    "client_cert": ("CLIENT_CERT", "CERT_FILE"),
    "client_key": ("CLIENT_KEY", "KEY_FILE"),
    "proxy": ("PROXY",),
    "no_proxy": ("NO_PROXY",),
    "persist_config": ("PERSIST_CONFIG",),
    "impersonate_user": ("IMPERSONATE_USER",),
    "impersonate_groups": ("IMPERSONATE_GROUPS",),
}
PROXY_HEADERS: Final = ("proxy_basic_auth", "basic_auth", "user_agent")

Entry = dict[str, Any]  # a cluster, user or context of a kubeconfig


class CredentialsError(MusterError):
    """The credentials can't be used as they are; says where they came from and what to do."""


class MissingLibrary(CredentialsError):
    """A Python library is needed and not installed."""

    def __init__(self, library: str, purpose: str) -> None:
        super().__init__(f"the Python library {library} is needed {purpose}: install it with `pip install {library}`")
        self.library = library
        self.purpose = purpose


class Pem(NamedTuple):
    """A certificate or key: a file (`stamp` changes when it is replaced) or its text."""

    path: str = ""
    text: str = ""
    stamp: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Pem({self.path or 'inline'})"

    def current(self) -> Pem:
        """The same, with the stamp of now."""
        if not self.path:
            return self
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise CredentialsError(f"{self.path} can't be read: {error.strerror}") from error
        return self._replace(stamp=(status.st_mtime_ns, status.st_size, status.st_ino))


class Tls(NamedTuple):
    """All that a TLS connection depends on; two equal ones may share connections."""

    verify: bool = True
    server_name: str | None = None
    ca: Pem | None = None
    cert: Pem | None = None
    key: Pem | None = None


class Identity(Protocol):
    """Where the Authorization header (and perhaps a certificate) comes from."""

    def authorization(self) -> str | None:
        """The header's value now."""

    def pair(self) -> tuple[Pem, Pem] | None:
        """A client certificate and its key that belong to this identity."""

    def refused(self, authorization: str | None) -> bool:
        """The server refused this value: look again. True if there is something new to try."""


class Credentials:
    """One way into one API server. Safe for several threads.

    `server` is the URL of the API server, `namespace` the one of the context or of the Pod (None: none is named),
    `source` says in words where the credentials came from, `proxy` the proxy's URL (None: direct). A token file is
    read again every 60 s and after a 401; an exec plugin runs again when what it gave has expired and after a 401;
    certificates in files are used anew as soon as the files change.
    """

    def __init__(
        self,
        server: str,
        *,
        source: str,
        identity: Identity | None = None,
        tls: Tls = Tls(),  # noqa: B008  (immutable)
        namespace: str | None = None,
        proxy: str | None = None,
        proxy_headers: Mapping[str, Any] | None = None,
        impersonate: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.server = server
        self.source = source
        self.namespace = namespace
        self.proxy = proxy
        self.proxy_headers = dict(proxy_headers or {})
        self._identity: Identity = identity or Fixed(None)
        self._tls = tls
        self._impersonate = tuple(impersonate)

    def __repr__(self) -> str:
        return f"Credentials({self.server}, from {self.source})"

    @classmethod
    def load(
        cls,
        options: Mapping[str, Any],
        environ: Mapping[str, str] = os.environ,
        *,
        service_account: str = SERVICE_ACCOUNT,
    ) -> Credentials:
        """Find the credentials exactly as kubernetes.core does.

        An option wins over its K8S_AUTH_* variable. `host` with `api_key`, `username` + `password` or `client_cert` +
        `client_key` needs nothing else. A `kubeconfig` or `context` that was asked for is read; else a Pod's
        service account is taken if there is one, else $KUBECONFIG, else ~/.kube/config. Single options then replace
        what was found there. Raises CredentialsError.
        """
        chosen = _chosen(options, environ)
        found = _found(chosen, environ, service_account)
        _override(found, chosen)
        return _credentials(found, chosen, environ)

    def headers(self) -> list[tuple[str, str]]:
        """The headers that say who asks; a name may occur more than once. May read a file or run a plugin."""
        authorization = self._identity.authorization()
        own = [("Authorization", authorization)] if authorization else []
        return [*own, *self._impersonate]

    def tls(self) -> Tls:
        """What a new connection has to use now."""
        tls = self._tls
        pair = self._identity.pair()
        if pair:
            tls = tls._replace(cert=pair[0], key=pair[1])
        return tls._replace(
            ca=tls.ca and tls.ca.current(),
            cert=tls.cert and tls.cert.current(),
            key=tls.key and tls.key.current(),
        )

    def refused(self, authorization: str | None) -> bool:
        """The server answered 401 to this header value. True if another try may go better."""
        return self._identity.refused(authorization)


# ---------------------------------------------------------------------------------------------------------------------
# Identities


def _header_value(text: str, what: str) -> str:
    # http.client would put the value itself into its error
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise CredentialsError(f"{what} contains a line break or another control character: write it in one line")
    return text.encode("utf-8").decode("latin-1")


def _bearer(token: str, what: str) -> str:
    token = token.strip()
    if not token:
        raise CredentialsError(f"{what} is empty: a bearer token is expected")
    return "Bearer " + _header_value(token, what)


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
                self._value = _bearer(file.read(65536), f"the token file {self._path}")
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
        group, _, version = str(spec.get("apiVersion")).rpartition("/")
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
        return _bearer(token, f"the token from {self._what}") if token else None

    def pair(self) -> tuple[Pem, Pem] | None:
        given = self._current()
        if not given.get("clientCertificateData"):
            return None
        return Pem(text=given["clientCertificateData"]), Pem(text=given["clientKeyData"])

    def refused(self, authorization: str | None) -> bool:
        with self._lock:
            token = (self._given or {}).get("token")
            if token is None or authorization == _bearer(token, "the token"):
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
            spec["cluster"] = _plugin_cluster(self._cluster)
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


def _plugin_cluster(cluster: Entry) -> Entry:
    """A cluster as ExecCredential.spec.cluster wants it."""
    info = {
        name: cluster[name]
        for name in ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
        if cluster.get(name)
    }
    ca = _pem(cluster, "certificate-authority", "the cluster")
    if ca:
        text = ca.text or _file_text(ca.path)
        info["certificate-authority-data"] = base64.b64encode(text.encode()).decode()
    for extension in cluster.get("extensions") or ():
        if extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return info


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

    def __init__(self, config: Entry, context: str, files: list[str], persist: bool) -> None:
        self._config, self._context, self._files, self._persist = config, context, files, persist
        self._lock = threading.Lock()
        self._configuration: Any = None

    def authorization(self) -> str | None:
        with self._lock:
            if self._configuration is None:
                self._configuration = self._load()
            value = self._configuration.get_api_key_with_prefix("authorization")
        if not value:
            raise CredentialsError(
                f"the auth-provider of context {self._context!r} gave no token: log in again with its own tool, or "
                "use an exec plugin (the official kubernetes client has dropped some providers)"
            )
        return _header_value(value, "the token of the auth-provider")

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
        common = {"context": self._context, "client_configuration": configuration}
        try:
            if self._files:
                path = os.pathsep.join(self._files)
                config.load_kube_config(config_file=path, persist_config=self._persist, **common)
            else:
                config.load_kube_config_from_dict(self._config, **common)
        except Exception as error:  # whatever a provider raises; its text may hold a token
            raise CredentialsError(
                f"the auth-provider of context {self._context!r} failed ({type(error).__name__}): log in again"
            ) from None
        return configuration


# ---------------------------------------------------------------------------------------------------------------------
# Finding


class _Found:
    """One cluster and one user in the kubeconfig's words, and where they were found."""

    def __init__(self, source: str, cluster: Entry | None = None, user: Entry | None = None) -> None:
        self.source = source
        self.cluster: Entry = dict(cluster or {})
        self.user: Entry = dict(user or {})
        self.namespace: str | None = None
        self.config: Entry = {}
        self.context = ""
        self.files: list[str] = []


def _chosen(options: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """The options that are set, by the caller or by K8S_AUTH_*."""
    chosen: dict[str, Any] = {}
    for option, names in OPTIONS.items():
        value = options.get(option)
        if value is None:
            text = next((environ[f"K8S_AUTH_{name}"] for name in names if environ.get(f"K8S_AUTH_{name}")), None)
            value = _from_environment(option, text) if text is not None else None
        if value not in (None, "", []):
            chosen[option] = value
    headers = dict(options.get("proxy_headers") or {})
    for name in PROXY_HEADERS:
        headers.setdefault(name, environ.get(f"K8S_AUTH_PROXY_HEADERS_{name.upper()}"))
    chosen["proxy_headers"] = {name: value for name, value in headers.items() if value}
    return chosen


def _from_environment(option: str, text: str) -> Any:
    if option in ("validate_certs", "persist_config"):
        return text.lower() not in ("0", "false", "no")  # kubernetes.core's rule
    if option == "impersonate_groups":
        return [group for group in text.split(",") if group]
    return text


def _found(chosen: Mapping[str, Any], environ: Mapping[str, str], service_account: str) -> _Found:
    def given(*names: str) -> bool:
        return all(name in chosen for name in names)

    if given("host", "api_key") or given("host", "username", "password") or given("host", "client_cert", "client_key"):
        return _Found("the connection options")
    if given("kubeconfig") or given("context"):
        return _from_kubeconfig(chosen.get("kubeconfig"), chosen.get("context"), environ)
    in_cluster = _in_cluster(environ, service_account)
    if in_cluster:
        return in_cluster
    if given("host") and not _default_files(environ):
        return _Found("the connection options")
    return _from_kubeconfig(None, None, environ)


def _in_cluster(environ: Mapping[str, str], directory: str) -> _Found | None:
    """The service account of the Pod in which we run, if we run in one that has one."""
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token, ca = os.path.join(directory, "token"), os.path.join(directory, "ca.crt")
    if not host or not port or not os.path.isfile(token) or not os.path.isfile(ca):
        return None
    address = f"[{host}]" if ":" in host else host
    found = _Found(
        "the service account of this Pod",
        {"server": f"https://{address}:{port}", "certificate-authority": ca},
        {"tokenFile": token},
    )
    try:
        found.namespace = _file_text(os.path.join(directory, "namespace")).strip() or None
    except CredentialsError:
        found.namespace = None  # optional: only a default
    return found


def _default_files(environ: Mapping[str, str]) -> list[str]:
    names = [name for name in environ.get("KUBECONFIG", "").split(os.pathsep) if name]
    home = environ.get("HOME") or os.path.expanduser("~")
    names = names or [os.path.join(home, ".kube", "config")]
    return [path for path in map(os.path.expanduser, names) if os.path.exists(path)]


def _from_kubeconfig(kubeconfig: Any, context: str | None, environ: Mapping[str, str]) -> _Found:
    files: list[str] = []
    if isinstance(kubeconfig, Mapping):
        source, documents = "the kubeconfig option", [_checked(dict(kubeconfig), "the kubeconfig option", os.getcwd())]
    else:
        files = _asked_files(kubeconfig) if kubeconfig else _default_files(environ)
        if not files:
            _nothing_found(environ)
        source, documents = "kubeconfig " + ", ".join(files), [_read_kubeconfig(path) for path in files]
    config = _merged(documents)
    name = context or config["current-context"]
    if not name:
        raise CredentialsError(f"{source} has no current-context: name one of {_names(config['contexts'])}")
    found = _Found(f"{source}, context {name}")
    found.config, found.context, found.files = config, name, files
    entry = _named(config, "contexts", name, "context", source)
    found.cluster = dict(_named(config, "clusters", entry.get("cluster") or "", f"contexts[{name}].cluster", source))
    if entry.get("user"):
        found.user = dict(_named(config, "users", entry["user"], f"contexts[{name}].user", source))
    found.namespace = entry.get("namespace") or None
    return found


def _asked_files(kubeconfig: Any) -> list[str]:
    names = [os.path.expanduser(name) for name in str(kubeconfig).split(os.pathsep) if name]
    files = [name for name in names if os.path.exists(name)]
    if not files:
        raise CredentialsError(f"kubeconfig {str(kubeconfig)!r} does not exist: name an existing file")
    return files


def _nothing_found(environ: Mapping[str, str]) -> NoReturn:
    looked = f"$KUBECONFIG ({environ['KUBECONFIG']})" if environ.get("KUBECONFIG") else "~/.kube/config"
    raise CredentialsError(
        f"no Kubernetes credentials were found: {looked} does not exist and this is not a Pod with a service account. "
        "Set the option kubeconfig (or K8S_AUTH_KUBECONFIG or KUBECONFIG), or host with api_key"
    )


def _read_kubeconfig(path: str) -> Entry:
    text = _file_text(path)
    what = f"kubeconfig {path}"
    try:
        document = json.loads(text)  # JSON is YAML, and needs no library
    except ValueError:
        document = _yaml(text, what)
    return _checked(document or {}, what, os.path.dirname(os.path.abspath(path)))


def _yaml(text: str, what: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise MissingLibrary("PyYAML", "to read a kubeconfig") from None
    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise CredentialsError(f"{what} is not valid YAML{where}") from None  # the parser quotes the line, with secrets


def _checked(document: Any, what: str, directory: str) -> Entry:
    """The document as {section: {name: entry}}, relative paths resolved against `directory`."""
    if not isinstance(document, dict):
        raise CredentialsError(f"{what} is not a kubeconfig: a mapping with clusters, contexts and users is expected")
    config: Entry = {"current-context": document.get("current-context") or ""}
    for section, key in (("clusters", "cluster"), ("contexts", "context"), ("users", "user")):
        config[section] = entries = {}
        for index, item in enumerate(document.get(section) or ()):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise CredentialsError(f"{section}[{index}] in {what} has no name")
            entry = item.get(key) or {}
            if not isinstance(entry, dict):
                raise CredentialsError(f"{section}[{item['name']}].{key} in {what} is not a mapping")
            entries.setdefault(item["name"], _resolved(entry, directory))
    return config


def _resolved(entry: Entry, directory: str) -> Entry:
    entry = dict(entry)
    for field in ("certificate-authority", "client-certificate", "client-key", "tokenFile"):
        if entry.get(field):
            entry[field] = os.path.join(directory, os.path.expanduser(entry[field]))
    plugin = entry.get("exec")
    if isinstance(plugin, dict) and os.sep in str(plugin.get("command")):
        entry["exec"] = {**plugin, "command": os.path.join(directory, plugin["command"])}
    return entry


def _merged(documents: list[Entry]) -> Entry:
    """Several files as one, kubectl's rule: who names an entry first, keeps it whole."""
    merged: Entry = {"current-context": ""}
    merged["current-context"] = next((d["current-context"] for d in documents if d["current-context"]), "")
    for section in ("clusters", "contexts", "users"):
        merged[section] = {}
        for document in reversed(documents):
            merged[section].update(document[section])
    return merged


def _named(config: Entry, section: str, name: str, field: str, source: str) -> Entry:
    try:
        return config[section][name]
    except KeyError:
        raise CredentialsError(
            f"{field} {name!r} is not in {source}: its {section} are {_names(config[section])}"
        ) from None


def _names(entries: Iterable[str]) -> str:
    return ", ".join(sorted(entries)) or "(none)"


# ---------------------------------------------------------------------------------------------------------------------
# Understanding


def _override(found: _Found, chosen: Mapping[str, Any]) -> None:
    """Put single options over what was found."""
    cluster, user = found.cluster, found.user
    if "host" in chosen:
        cluster["server"] = chosen["host"]
    if "validate_certs" in chosen:
        cluster["insecure-skip-tls-verify"] = not chosen["validate_certs"]
    if "proxy" in chosen:
        cluster["proxy-url"] = chosen["proxy"]
    for option, target, field in (
        ("ca_cert", cluster, "certificate-authority"),
        ("client_cert", user, "client-certificate"),
        ("client_key", user, "client-key"),
    ):
        if option in chosen:
            target.pop(f"{field}-data", None)
            target[field] = os.path.expanduser(chosen[option])
    if "api_key" in chosen or ("username" in chosen and "password" in chosen):
        for field in ("token", "tokenFile", "exec", "auth-provider", "username", "password"):
            user.pop(field, None)
    for option, field in (
        ("api_key", "token"),
        ("username", "username"),
        ("password", "password"),
        ("impersonate_user", "as"),
        ("impersonate_groups", "as-groups"),
    ):
        if option in chosen:
            user[field] = chosen[option]


def _credentials(found: _Found, chosen: Mapping[str, Any], environ: Mapping[str, str]) -> Credentials:
    cluster, user, source = found.cluster, found.user, found.source
    server = _server(cluster.get("server"), source)
    insecure = bool(cluster.get("insecure-skip-tls-verify"))
    tls = Tls(
        verify=not insecure,
        server_name=cluster.get("tls-server-name") or None,
        ca=None if insecure else _pem(cluster, "certificate-authority", source),
        cert=_pem(user, "client-certificate", source),
        key=_pem(user, "client-key", source),
    )
    if tls.key and not tls.cert:
        raise CredentialsError(f"{source} has a client key without a client certificate: name both")
    return Credentials(
        server,
        source=source,
        identity=_identity(found, bool(chosen.get("persist_config")), environ),
        tls=tls,
        namespace=found.namespace,
        proxy=_proxy(server, cluster.get("proxy-url"), chosen.get("no_proxy"), environ),
        proxy_headers=chosen["proxy_headers"],
        impersonate=_impersonation(user, source),
    )


def _server(server: Any, source: str) -> str:
    if not server or not isinstance(server, str):
        raise CredentialsError(f"{source} names no API server: set the option host, or server in the kubeconfig")
    parts = urlsplit(server)
    if "@" in parts.netloc:
        raise CredentialsError(f"the server's URL in {source} holds a password: use username and password instead")
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise CredentialsError(f"the server {server!r} in {source} is not a URL such as https://10.0.0.1:6443")
    return server.rstrip("/")


def _identity(found: _Found, persist: bool, environ: Mapping[str, str]) -> Identity:
    """The user's kind, in the official client's order."""
    user, source = found.user, found.source
    if user.get("auth-provider"):
        return OfficialClient(found.config, found.context, found.files, persist)
    if user.get("tokenFile"):
        return TokenFile(user["tokenFile"])
    if user.get("token"):
        return Fixed(_bearer(str(user["token"]), f"the token of {source}"))
    if user.get("exec"):
        return ExecPlugin(user["exec"], found.cluster, source, environ)
    if user.get("username") and user.get("password"):
        pair = f"{user['username']}:{user['password']}".encode()
        return Fixed("Basic " + base64.b64encode(pair).decode())
    return Fixed(None)


def _impersonation(user: Entry, source: str) -> list[tuple[str, str]]:
    headers = [("Impersonate-User", user["as"])] if user.get("as") else []
    headers += [("Impersonate-Uid", user["as-uid"])] if user.get("as-uid") else []
    groups = user.get("as-groups") or []
    headers += [("Impersonate-Group", group) for group in ([groups] if isinstance(groups, str) else groups)]
    for key, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(key, safe='')}", value) for value in values]
    if headers and not user.get("as"):
        raise CredentialsError(f"{source} impersonates groups without a user: set impersonate_user too")
    return [(name, _header_value(str(value), f"{name} of {source}")) for name, value in headers]


def _proxy(server: str, url: str | None, no_proxy: str | None, environ: Mapping[str, str]) -> str | None:
    """The proxy for this server: the one that was named, else that of the environment, as kubectl does."""
    parts = urlsplit(server)
    if not url:
        name = f"{parts.scheme}_proxy"
        url = environ.get(name) or environ.get(name.upper())
        if _is_loopback(parts.hostname or ""):
            return None  # Go's rule, and thereby kubectl's
    if not url or _bypassed(parts.hostname or "", parts.port, no_proxy or _no_proxy(environ)):
        return None
    if urlsplit(url).scheme not in ("http", "https", "socks5", "socks5h", "socks4", "socks4a"):
        raise CredentialsError("the proxy is not a URL such as http://proxy.example:3128 (or https, socks5)")
    return url


def _no_proxy(environ: Mapping[str, str]) -> str:
    return environ.get("no_proxy") or environ.get("NO_PROXY") or ""


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _bypassed(host: str, port: int | None, no_proxy: str) -> bool:
    """Does a comma-separated list of hosts, domains, addresses and networks (CIDR) name this host?"""
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for rule in (rule.strip().lower().lstrip(".") for rule in no_proxy.split(",")):
        if rule and (rule == "*" or rule in (host, f"{host}:{port}") or host.endswith("." + rule)):
            return True
        if address and rule:
            try:
                if address in ipaddress.ip_network(rule, strict=False):
                    return True
            except ValueError:
                continue
    return False


def _pem(entry: Entry, field: str, source: str) -> Pem | None:
    """The certificate or key under `field`; inline data wins over a file, as in kubectl."""
    data = entry.get(f"{field}-data")
    if data:
        try:
            return Pem(text=base64.b64decode(data, validate=False).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
            raise CredentialsError(f"{field}-data of {source} is not base64 of a PEM text") from None
    return Pem(path=entry[field]) if entry.get(field) else None


def _file_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise CredentialsError(f"{path} is not a text file") from None
    except OSError as error:
        raise CredentialsError(f"{path} can't be read: {error.strerror}") from error


# ---------------------------------------------------------------------------------------------------------------------
# TLS


def ssl_context(tls: Tls) -> ssl.SSLContext:
    """A client's SSLContext: TLS 1.2 or newer, the chain and the name verified unless the user said otherwise."""
    import ssl

    # Not VERIFY_X509_STRICT (Python 3.13's default elsewhere): many clusters' CAs lack what it asks for
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif tls.ca:
        _load_ca(context, tls.ca)
    else:
        context.load_default_certs()
    if tls.cert:
        _load_pair(context, tls.cert, tls.key)
    return context


def _load_ca(context: ssl.SSLContext, ca: Pem) -> None:
    try:
        if ca.path:
            context.load_verify_locations(cafile=ca.path)
        else:
            context.load_verify_locations(cadata=ca.text.encode("ascii", "ignore").decode())
    except (OSError, ValueError) as error:
        raise CredentialsError(f"the CA certificate ({ca.path or 'inline'}) can't be used: {error}") from error


def _load_pair(context: ssl.SSLContext, cert: Pem, key: Pem | None) -> None:
    """Load a certificate and its key; ssl takes files only, so inline ones exist as private files for a moment."""
    import tempfile

    def refuse_password() -> str:
        raise CredentialsError("the client key is encrypted: give one without a password, or use an exec plugin")

    with tempfile.TemporaryDirectory(prefix="muster-") as directory:  # mode 0700
        paths = [_as_file(pem, os.path.join(directory, name)) for pem, name in ((cert, "cert"), (key, "key")) if pem]
        try:
            context.load_cert_chain(*paths, password=refuse_password)
        except (OSError, ValueError) as error:
            names = " and ".join(pem.path or "inline" for pem in (cert, key) if pem)
            raise CredentialsError(f"the client certificate and key ({names}) can't be used: {error}") from error


def _as_file(pem: Pem, path: str) -> str:
    if pem.path:
        return pem.path
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(pem.text)
    return path

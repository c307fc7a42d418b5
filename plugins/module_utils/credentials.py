# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who we are to a Kubernetes API server, and where it is.

Every source (options, K8S_AUTH_* variables, kubeconfig files, the Pod's service account) is first brought into the
vocabulary of a kubeconfig, one `cluster` and one `user` mapping; only then is it interpreted, once. Secrets are in no
message, repr or log. Files are read again when they change; see `Credentials`.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import quote, urlsplit

from ansible_collections.muster.coordination.plugins.module_utils.client.identities import (
    ExecPlugin,
    Fixed,
    Identity,
    OfficialClient,
    TokenFile,
    bearer,
    header_value,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.kubeconfig import (
    CredentialsError,
    Entry,
    MissingLibrary,
    checked,
    entry_of,
    file_text,
    listed,
    merged,
    read_kubeconfig,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.tls import Pem, Tls, pem

__all__ = ["Credentials", "CredentialsError", "MissingLibrary", "Pem", "Tls"]

SERVICE_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"

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
        environ: Mapping[str, str] | None = None,
        *,
        service_account: str = SERVICE_ACCOUNT,
    ) -> Credentials:
        """Find the credentials exactly as kubernetes.core does.

        An option wins over its K8S_AUTH_* variable. `host` with `api_key`, `username` + `password` or `client_cert` +
        `client_key` needs nothing else. A `kubeconfig` or `context` that was asked for is read; else a Pod's
        service account is taken if there is one, else $KUBECONFIG, else ~/.kube/config. Single options then replace
        what was found there. `environ` is this process's own where it is not given. Raises CredentialsError.
        """
        environ = os.environ if environ is None else environ
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
# Finding


class _Found:
    """One cluster and one user in the kubeconfig's words, and where they were found."""

    def __init__(self, source: str, cluster: Entry | None = None, user: Entry | None = None) -> None:
        self.source = source
        self.cluster: Entry = dict(cluster or {})
        self.user: Entry = dict(user or {})
        self.namespace: str | None = None
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
        found.namespace = file_text(os.path.join(directory, "namespace")).strip() or None
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
        source, documents = "the kubeconfig option", [checked(dict(kubeconfig), "the kubeconfig option", os.getcwd())]
    else:
        files = _asked_files(kubeconfig) if kubeconfig else _default_files(environ)
        if not files:
            _nothing_found(environ)
        source, documents = "kubeconfig " + ", ".join(files), [read_kubeconfig(path) for path in files]
    config = merged(documents)
    name = context or config["current-context"]
    if not name:
        raise CredentialsError(f"{source} has no current-context: name one of {listed(config['contexts'])}")
    found = _Found(f"{source}, context {name}")
    found.context, found.files = name, files
    entry = entry_of(config, "contexts", name, "context", source)
    found.cluster = dict(entry_of(config, "clusters", entry.get("cluster") or "", f"contexts[{name}].cluster", source))
    if entry.get("user"):
        found.user = dict(entry_of(config, "users", entry["user"], f"contexts[{name}].user", source))
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
        ca=None if insecure else pem(cluster, "certificate-authority", source),
        cert=pem(user, "client-certificate", source),
        key=pem(user, "client-key", source),
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
        return OfficialClient(found.cluster, user, found.context, found.files if persist else [])
    if user.get("tokenFile"):
        return TokenFile(user["tokenFile"])
    if user.get("token"):
        return Fixed(bearer(str(user["token"]), f"the token of {source}"))
    if user.get("exec") is not None:
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
    return [(name, header_value(str(value), f"{name} of {source}")) for name, value in headers]


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

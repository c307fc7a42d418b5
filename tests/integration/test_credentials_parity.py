# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of credential through our client and through kubernetes.core's: the same identity, or the same refusal.

Both are asked "who am I?" (SelfSubjectReview). kubernetes.core's own code makes the official client's configuration
from the options, so what is compared is what its modules would do.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes
import pytest
import urllib3
import yaml

from ansible_collections.kubernetes.core.plugins.module_utils.k8s import client as kubernetes_core
from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    NAMESPACES,
    SELF_SUBJECT_REVIEWS,
    Api,
    ApiError,
    Forbidden,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.answers import Asked
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials, CredentialsError

pytestmark = pytest.mark.integration

REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}

# What an answer is reduced to: ("user", name, groups), ("refused", status) or ("error", what)
Answer = tuple[Any, ...]


def ours(options: Mapping[str, Any], environ: Mapping[str, str], service_account: str) -> Answer:
    try:
        api = Api(Credentials.load(options, environ, service_account=service_account))
        info = api.create(SELF_SUBJECT_REVIEWS, REVIEW)["status"]["userInfo"]
    except ApiError as error:
        if error.status:
            return ("refused", error.status)
        return ("error", "certificate" if "certificate" in str(error) else "connection")
    except CredentialsError:
        return ("error", "credentials")
    return ("user", info["username"], sorted(info.get("groups", [])))


def theirs(options: Mapping[str, Any], environ: Mapping[str, str], service_account: str) -> Answer:
    """The same by kubernetes.core: its options, its precedence, the official client."""
    try:
        auth = kubernetes_core._create_auth_spec(**options)
        configuration = kubernetes_core._create_configuration(auth)
        client = kubernetes.client.ApiClient(configuration)
        for name, value in kubernetes_core._create_headers(**options).items():
            kubernetes_core._set_header(client, name, value)
        review = kubernetes.client.AuthenticationV1Api(client).create_self_subject_review(REVIEW, _request_timeout=10)
    except kubernetes.client.ApiException as error:
        return ("refused", error.status)
    except urllib3.exceptions.HTTPError as error:
        return ("error", "certificate" if "certificate" in str(error).lower() else "connection")
    except (kubernetes.config.ConfigException, OSError):
        return ("error", "credentials")
    info = review.status.user_info
    return ("user", info.username, sorted(info.groups or []))


# -- the cluster's identities -----------------------------------------------------------------------------------------


class Cluster:
    """A cluster's address and CA, an administrator's certificate and a service account's token, as files and inline."""

    def __init__(self, kubeconfig: str, directory: Path, token: str, namespace: str) -> None:
        document = yaml.safe_load(Path(kubeconfig).read_text())
        (cluster,) = (entry["cluster"] for entry in document["clusters"])
        (user,) = (entry["user"] for entry in document["users"])
        self.server: str = cluster["server"]
        self.inline = {name: user[f"{name}-data"] for name in ("client-certificate", "client-key")}
        self.inline["certificate-authority"] = cluster["certificate-authority-data"]
        self.files = {}
        for name, data in self.inline.items():
            path = directory / f"{name}.pem"
            path.write_bytes(base64.b64decode(data))
            self.files[name] = str(path)
        self.token = token
        self.token_file = str(directory / "token")
        Path(self.token_file).write_text(token)  # the official client stumbles over a line break
        self.directory = directory
        self.namespace = namespace

    @property
    def ca(self) -> dict[str, str]:
        return {"certificate-authority-data": self.inline["certificate-authority"]}

    @property
    def admin(self) -> dict[str, str]:
        return {f"{name}-data": self.inline[name] for name in ("client-certificate", "client-key")}

    def config(self, user: dict[str, Any], cluster: dict[str, Any] | None = None, name: str = "c") -> dict[str, Any]:
        settings = self.ca if cluster is None else cluster
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": self.server, **settings}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }

    def write(self, document: dict[str, Any], name: str = "config") -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(document))
        return str(path)

    def plugin(self, **status: str) -> dict[str, Any]:
        """An exec plugin that gives these credentials."""
        version = "client.authentication.k8s.io/v1"
        answer = self.directory / "credential.json"
        answer.write_text(json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": status}))
        program = f"print(open({str(answer)!r}).read())"
        spec = {"apiVersion": version, "command": sys.executable, "args": ["-c", program], "interactiveMode": "Never"}
        return {"exec": spec}


@pytest.fixture(scope="module")
def account(api: Api) -> Iterator[tuple[str, str]]:
    """A service account's namespace and token; it may impersonate, and nothing else."""
    accounts = Resource("v1", "serviceaccounts", "ServiceAccount")
    bindings = Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", False)
    roles = Resource("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", False)
    namespace = api.create(NAMESPACES, {"metadata": {"generateName": "muster-test-"}})["metadata"]["name"]
    api.create(accounts, {"metadata": {"name": "sidecar", "namespace": namespace}})
    rules = [{"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]}]
    api.create(roles, {"metadata": {"name": namespace}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": namespace}
    subject = {"kind": "ServiceAccount", "name": "sidecar", "namespace": namespace}
    api.create(bindings, {"metadata": {"name": namespace}, "roleRef": role, "subjects": [subject]})
    yield namespace, _token(api, namespace)
    api.delete(bindings, namespace)
    api.delete(roles, namespace)
    api.delete(NAMESPACES, namespace)


def _token(api: Api, namespace: str) -> str:
    """A token of the service account, by its subresource `token`."""
    asked = Asked("create", Resource("v1", "serviceaccounts", "TokenRequest"), namespace, "sidecar", "token")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    token: str = api._write("POST", asked, request)["status"]["token"]
    return token


@pytest.fixture
def cluster(kubeconfig: str, tmp_path: Path, account: tuple[str, str]) -> Cluster:
    namespace, token = account
    return Cluster(kubeconfig, tmp_path, token, namespace)


Compare = Callable[..., Answer]


@pytest.fixture
def compare(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Compare:
    """Ask both clients, with these options and this environment; returns the one answer that they give."""

    def compare(environ: Mapping[str, str] | None = None, service_account: str = "", **options: Any) -> Answer:
        for name in list(os.environ):
            if name.startswith(("K8S_AUTH_", "KUBECONFIG", "KUBERNETES_")) or name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(cluster.directory / "nobody"))
        for name, value in (environ or {}).items():
            monkeypatch.setenv(name, value)
        # read when these modules are imported, and so before this environment was made
        default = os.environ.get("KUBECONFIG", "~/.kube/config")
        monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", default)
        _move_service_account(service_account, monkeypatch)
        one = ours(options, os.environ, service_account)
        other = theirs(options, os.environ, service_account)
        assert one == other, f"ours: {one}, kubernetes.core: {other}"
        return one

    return compare


def _move_service_account(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    incluster = kubernetes.config.incluster_config
    monkeypatch.setattr(incluster, "SERVICE_TOKEN_FILENAME", f"{directory}/token")
    monkeypatch.setattr(incluster, "SERVICE_CERT_FILENAME", f"{directory}/ca.crt")


def administrator(answer: Answer) -> bool:
    return answer[0] == "user" and "system:masters" in answer[2]


def sidecar(cluster: Cluster, answer: Answer) -> bool:
    return answer[:2] == ("user", f"system:serviceaccount:{cluster.namespace}:sidecar")


# -- certificates -----------------------------------------------------------------------------------------------------


def test_a_certificate_inline_and_in_files(cluster: Cluster, compare: Compare) -> None:
    assert administrator(compare(kubeconfig=cluster.write(cluster.config(cluster.admin))))
    files = {name: cluster.files[name] for name in ("client-certificate", "client-key")}
    ca = {"certificate-authority": cluster.files["certificate-authority"]}
    assert administrator(compare(kubeconfig=cluster.write(cluster.config(files, ca))))


def test_a_certificate_by_paths_relative_to_the_kubeconfig(cluster: Cluster, compare: Compare) -> None:
    relative = {name: os.path.basename(path) for name, path in cluster.files.items()}
    ca = {"certificate-authority": relative.pop("certificate-authority")}
    assert administrator(compare(kubeconfig=cluster.write(cluster.config(relative, ca))))


def test_a_certificate_by_options(cluster: Cluster, compare: Compare) -> None:
    options = {
        "host": cluster.server,
        "ca_cert": cluster.files["certificate-authority"],
        "client_cert": cluster.files["client-certificate"],
        "client_key": cluster.files["client-key"],
    }
    assert administrator(compare(**options))
    environ = {f"K8S_AUTH_{name.upper()}": value for name, value in options.items()}
    assert administrator(compare(environ))
    aliases = {"ca_cert": "SSL_CA_CERT", "client_cert": "CERT_FILE", "client_key": "KEY_FILE", "host": "HOST"}
    assert administrator(compare({f"K8S_AUTH_{aliases[name]}": value for name, value in options.items()}))


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_a_token_inline_in_a_file_and_by_option(cluster: Cluster, compare: Compare) -> None:
    ca = cluster.files["certificate-authority"]
    for answer in (
        compare(kubeconfig=cluster.write(cluster.config({"token": cluster.token}))),
        compare(kubeconfig=cluster.write(cluster.config({"tokenFile": cluster.token_file}))),
        compare(kubeconfig=cluster.config({"token": cluster.token})),
        compare(host=cluster.server, api_key=cluster.token, ca_cert=ca),
        compare({"K8S_AUTH_HOST": cluster.server, "K8S_AUTH_API_KEY": cluster.token, "K8S_AUTH_SSL_CA_CERT": ca}),
        compare(kubeconfig=cluster.write(cluster.config({})), api_key=cluster.token),
    ):
        assert sidecar(cluster, answer)


def test_a_wrong_token_is_refused(cluster: Cluster, compare: Compare) -> None:
    assert compare(kubeconfig=cluster.write(cluster.config({"token": "wrong"}))) == ("refused", 401)


def test_a_token_beside_a_certificate(cluster: Cluster, compare: Compare) -> None:
    """Both are sent; the API server takes the certificate."""
    config = cluster.write(cluster.config({**cluster.admin, "token": cluster.token}))
    assert administrator(compare(kubeconfig=config))
    assert administrator(compare(kubeconfig=cluster.write(cluster.config(cluster.admin)), api_key=cluster.token))


def test_nobody_in_particular(cluster: Cluster, compare: Compare) -> None:
    assert compare(kubeconfig=cluster.write(cluster.config({}))) in (
        ("refused", 403),
        ("refused", 401),
        ("user", "system:anonymous", ["system:unauthenticated"]),
    )


def test_a_password(cluster: Cluster, compare: Compare) -> None:
    """Kubernetes knows no passwords any more: it sees nobody, or refuses."""
    ca = cluster.files["certificate-authority"]
    user = {"username": "ann", "password": "very-secret"}
    by_file = compare(kubeconfig=cluster.write(cluster.config(user)))
    by_option = compare(host=cluster.server, ca_cert=ca, **user)
    assert by_file == by_option
    assert not administrator(by_file)


# -- exec plugins -----------------------------------------------------------------------------------------------------


def test_an_exec_plugin_with_a_token(cluster: Cluster, compare: Compare) -> None:
    assert sidecar(cluster, compare(kubeconfig=cluster.write(cluster.config(cluster.plugin(token=cluster.token)))))
    assert compare(kubeconfig=cluster.write(cluster.config(cluster.plugin(token="wrong")))) == ("refused", 401)


def test_an_exec_plugin_with_a_certificate(cluster: Cluster, compare: Compare) -> None:
    cert, key = (Path(cluster.files[name]).read_text() for name in ("client-certificate", "client-key"))
    plugin = cluster.plugin(clientCertificateData=cert, clientKeyData=key)
    assert administrator(compare(kubeconfig=cluster.write(cluster.config(plugin))))


# -- impersonation ----------------------------------------------------------------------------------------------------


def test_impersonation(cluster: Cluster, compare: Compare) -> None:
    config = cluster.write(cluster.config(cluster.admin))
    ann = ("user", "ann", ["system:authenticated"])
    assert compare(kubeconfig=config, impersonate_user="ann") == ann
    assert compare({"K8S_AUTH_IMPERSONATE_USER": "ann"}, kubeconfig=config) == ann
    member = ("user", "ann", ["dev", "ops", "system:authenticated"])
    assert compare(kubeconfig=config, impersonate_user="ann", impersonate_groups=["dev", "ops"]) == member
    environ = {"K8S_AUTH_IMPERSONATE_USER": "ann", "K8S_AUTH_IMPERSONATE_GROUPS": "dev,ops"}
    assert compare(environ, kubeconfig=config) == member


def test_impersonation_that_is_not_allowed(cluster: Cluster, compare: Compare) -> None:
    limited = cluster.write(cluster.config({"token": cluster.token}))
    answer = compare(kubeconfig=limited, impersonate_user="system:serviceaccount:kube-system:x")
    assert answer == ("refused", 403)


def test_impersonation_by_a_kubeconfig(cluster: Cluster) -> None:
    """The official client does not know `as` in a kubeconfig; kubectl does, and so do we."""
    config = cluster.write(cluster.config({**cluster.admin, "as": "ann", "as-groups": ["dev", "ops"]}))
    assert ours({"kubeconfig": config}, {}, "") == ("user", "ann", ["dev", "ops", "system:authenticated"])


# -- trust ------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_trusted(cluster: Cluster, compare: Compare) -> None:
    assert compare(kubeconfig=cluster.write(cluster.config(cluster.admin, {}))) == ("error", "certificate")
    insecure = cluster.config(cluster.admin, {"insecure-skip-tls-verify": True})
    assert administrator(compare(kubeconfig=cluster.write(insecure)))
    untrusted = cluster.write(cluster.config(cluster.admin, {}))
    assert administrator(compare(kubeconfig=untrusted, validate_certs=False))
    assert administrator(compare({"K8S_AUTH_VERIFY_SSL": "no"}, kubeconfig=untrusted))
    assert administrator(compare(kubeconfig=untrusted, ca_cert=cluster.files["certificate-authority"]))


def test_the_servers_other_names(cluster: Cluster, compare: Compare) -> None:
    named = cluster.config(cluster.admin, {**cluster.ca, "tls-server-name": "kubernetes.default.svc"})
    assert administrator(compare(kubeconfig=cluster.write(named)))
    wrong = cluster.config(cluster.admin, {**cluster.ca, "tls-server-name": "elsewhere.example.com"})
    assert compare(kubeconfig=cluster.write(wrong)) == ("error", "certificate")


def test_nobody_listens(cluster: Cluster, compare: Compare) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert compare(host=f"https://127.0.0.1:{port}", api_key="t") == ("error", "connection")


# -- kubeconfigs ------------------------------------------------------------------------------------------------------


def test_a_context_is_chosen(cluster: Cluster, compare: Compare) -> None:
    document = cluster.config(cluster.admin, name="admin")
    for section in ("clusters", "users", "contexts"):
        document[section] += cluster.config({"token": cluster.token}, name="limited")[section]
    path = cluster.write(document)
    assert administrator(compare(kubeconfig=path))
    assert sidecar(cluster, compare(kubeconfig=path, context="limited"))
    assert sidecar(cluster, compare({"KUBECONFIG": path}, context="limited"))
    assert sidecar(cluster, compare({"KUBECONFIG": path, "K8S_AUTH_CONTEXT": "limited"}))
    assert compare(kubeconfig=path, context="no-such-context") == ("error", "credentials")


def test_several_files_are_one(cluster: Cluster, compare: Compare) -> None:
    one = cluster.config(cluster.admin, name="c")
    two = cluster.config({"token": cluster.token}, name="other")
    two["users"].append({"name": "c", "user": {"token": "never"}})
    del two["current-context"]  # the official client takes the last one, kubectl (and we) the first
    paths = os.pathsep.join([cluster.write(one, "a/config"), cluster.write(two, "b/config")])
    assert administrator(compare({"KUBECONFIG": paths}))
    assert sidecar(cluster, compare({"KUBECONFIG": paths}, context="other"))
    assert administrator(compare(kubeconfig=paths))


def test_the_file_in_the_home_directory(cluster: Cluster, compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    path = cluster.write(cluster.config(cluster.admin), "nobody/.kube/config")
    assert path.endswith("nobody/.kube/config")
    assert administrator(compare())
    shutil.rmtree(cluster.directory / "nobody")
    assert compare() == ("error", "credentials")


def test_no_such_file(compare: Compare) -> None:
    assert compare(kubeconfig="/nonexistent/config") == ("error", "credentials")


def test_a_host_moves_a_kubeconfig(cluster: Cluster, compare: Compare) -> None:
    path = cluster.write({**cluster.config(cluster.admin)})
    document = yaml.safe_load(Path(path).read_text())
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    Path(path).write_text(yaml.safe_dump(document))
    assert administrator(compare(kubeconfig=path, host=cluster.server + "/"))


# -- in a Pod ---------------------------------------------------------------------------------------------------------


def test_in_a_pod(cluster: Cluster, compare: Compare) -> None:
    pod = cluster.directory / "serviceaccount"
    pod.mkdir()
    shutil.copy(cluster.token_file, pod / "token")
    shutil.copy(cluster.files["certificate-authority"], pod / "ca.crt")
    parts = urlsplit(cluster.server)
    environ = {"KUBERNETES_SERVICE_HOST": str(parts.hostname), "KUBERNETES_SERVICE_PORT": str(parts.port)}
    assert sidecar(cluster, compare(environ, str(pod)))
    admin = cluster.write(cluster.config(cluster.admin))
    assert sidecar(cluster, compare({**environ, "KUBECONFIG": admin}, str(pod)))  # the Pod wins over the default file
    assert administrator(compare(environ, str(pod), kubeconfig=admin))  # and not over one that was asked for
    assert administrator(compare({**environ, "K8S_AUTH_KUBECONFIG": admin}, str(pod)))
    (pod / "token").unlink()
    assert administrator(compare({**environ, "KUBECONFIG": admin}, str(pod)))
    assert compare(environ, str(pod)) == ("error", "credentials")


# -- proxies ----------------------------------------------------------------------------------------------------------


class _Connect(BaseHTTPRequestHandler):
    """CONNECT, with the password `user:proxy-secret` if the proxy asks for one."""

    server: ConnectProxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_CONNECT(self) -> None:
        self.server.asked.append(self.path)
        expected = "Basic " + base64.b64encode(b"user:proxy-secret").decode()
        if self.server.protected and self.headers.get("Proxy-Authorization") != expected:
            return self.send_error(407)
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            self.send_response(200)
            self.end_headers()
            self._pump(upstream)

    def _pump(self, upstream: socket.socket) -> None:
        pairs = {self.connection: upstream, upstream: self.connection}
        with suppress(OSError):
            while True:
                for readable in select.select(list(pairs), [], [])[0]:
                    data = readable.recv(65536)
                    if not data:
                        return
                    pairs[readable].sendall(data)


class ConnectProxy(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Connect)
        self.asked: list[str] = []
        self.protected = False
        self.address = f"127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy() as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        yield proxy
        proxy.shutdown()


def test_a_proxy(cluster: Cluster, compare: Compare, proxy: ConnectProxy) -> None:
    url = f"http://{proxy.address}"
    config = cluster.write(cluster.config(cluster.admin))
    by_file = cluster.write(cluster.config(cluster.admin, {**cluster.ca, "proxy-url": url}), "proxied")
    for count, (environ, options) in enumerate(
        [
            ({}, {"kubeconfig": config, "proxy": url}),
            ({"K8S_AUTH_PROXY": url}, {"kubeconfig": config}),
            ({}, {"kubeconfig": by_file}),
        ],
        start=1,
    ):
        assert administrator(compare(environ, **options))
        assert len(proxy.asked) == 2 * count  # both went that way
    assert set(proxy.asked) == {urlsplit(cluster.server).netloc}


def test_a_proxy_that_is_not_for_this_host(cluster: Cluster, compare: Compare, proxy: ConnectProxy) -> None:
    config = cluster.write(cluster.config(cluster.admin))
    host = str(urlsplit(cluster.server).hostname)
    for rule in (host, f"localhost,{host}", "127.0.0.0/8", "*"):
        assert administrator(compare(kubeconfig=config, proxy=f"http://{proxy.address}", no_proxy=rule)), rule
    assert proxy.asked == []


def test_a_proxy_with_a_password(cluster: Cluster, compare: Compare, proxy: ConnectProxy) -> None:
    proxy.protected = True
    options = {"kubeconfig": cluster.write(cluster.config(cluster.admin)), "proxy": f"http://{proxy.address}"}
    assert compare(**options) == ("error", "connection")
    assert administrator(compare(**options, proxy_headers={"proxy_basic_auth": "user:proxy-secret"}))
    assert administrator(compare({"K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH": "user:proxy-secret"}, **options))


def test_a_refused_proxy_is_named_without_its_password(cluster: Cluster, proxy: ConnectProxy) -> None:
    proxy.protected = True
    config = cluster.write(cluster.config(cluster.admin))
    api = Api(Credentials.load({"kubeconfig": config, "proxy": f"http://u:very-secret@{proxy.address}"}, {}))
    with pytest.raises(ApiError, match=rf"through the proxy http://{proxy.address}.*407") as caught:
        api.list(CONFIGMAPS, "default")
    assert "very-secret" not in str(caught.value)
    assert not isinstance(caught.value, Forbidden)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where credentials come from, which one wins, and what a mistake is called."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.client import identities, kubeconfig
from ansible_collections.muster.coordination.plugins.module_utils.client.tls import Pem, Tls, ssl_context
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials, CredentialsError

HOST = "https://10.0.0.1:6443"


def config(
    server: str = HOST,
    *,
    cluster: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
    name: str = "c",
    **context: Any,
) -> dict[str, Any]:
    """A kubeconfig with one context, whose cluster, user and context have this name."""
    return {
        "current-context": name,
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": user or {}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
    }


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document))
    return path


def load(document: dict[str, Any] | None = None, environ: dict[str, str] | None = None, **options: Any) -> Credentials:
    """From this kubeconfig and these options, with nothing else in the environment."""
    given_options = {"kubeconfig": document, **options} if document else options
    return Credentials.load(given_options, {"HOME": "/nonexistent", **(environ or {})}, service_account="/nonexistent")


def authorization(credentials: Credentials) -> str | None:
    return dict(credentials.headers()).get("Authorization")


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    """The directory of a Pod's service account."""
    directory = tmp_path / "serviceaccount"
    directory.mkdir()
    for name, text in (("token", "pod-token"), ("ca.crt", "CA"), ("namespace", "team\n")):
        (directory / name).write_text(text)
    return directory


IN_CLUSTER = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


# -- precedence -------------------------------------------------------------------------------------------------------


def test_an_option_wins_over_its_variable() -> None:
    environ = {"K8S_AUTH_API_KEY": "of-environment", "K8S_AUTH_HOST": "https://environment:1"}
    assert authorization(load(environ=environ, host=HOST, api_key="of-option")) == "Bearer of-option"
    assert load(environ=environ, host=HOST).server == HOST
    assert authorization(load(environ=environ, host=HOST)) == "Bearer of-environment"


@pytest.mark.parametrize(
    ("names", "value", "check"),
    [
        (["HOST"], HOST, lambda c: c.server == HOST),
        (["VALIDATE_CERTS", "VERIFY_SSL"], "no", lambda c: not c.tls().verify),
        (["VALIDATE_CERTS", "VERIFY_SSL"], "False", lambda c: not c.tls().verify),
        (["VALIDATE_CERTS", "VERIFY_SSL"], "true", lambda c: c.tls().verify),
        (["PROXY"], "http://p:3128", lambda c: c.proxy == "http://p:3128"),
        (["IMPERSONATE_USER"], "ann", lambda c: ("Impersonate-User", "ann") in c.headers()),
        (["PROXY_HEADERS_USER_AGENT"], "foo/1", lambda c: c.proxy_headers == {"user_agent": "foo/1"}),
        (["CA_CERT", "SSL_CA_CERT"], __file__, lambda c: c.tls().ca.path == __file__),
        (["CLIENT_CERT", "CERT_FILE"], __file__, lambda c: c.tls().cert.path == __file__),
    ],
)
def test_every_variable_of_kubernetes_core_counts(names: list[str], value: str, check: Any) -> None:
    for name in names:
        environ = {"K8S_AUTH_HOST": HOST, "K8S_AUTH_API_KEY": "t", f"K8S_AUTH_{name}": value}
        assert check(load(environ=environ)), name
        assert check(load(environ={**environ, f"K8S_AUTH_{names[0]}": value})), name


def test_enough_options_need_no_kubeconfig(tmp_path: Path) -> None:
    broken = write(tmp_path / "config", "not a kubeconfig")
    for login in (
        {"api_key": "t"},
        {"username": "u", "password": "p"},
        {"client_cert": __file__, "client_key": __file__},
    ):
        assert load(environ={"KUBECONFIG": str(broken)}, host=HOST, **login).server == HOST
    with pytest.raises(CredentialsError, match="not a kubeconfig"):
        load(environ={"KUBECONFIG": str(broken)}, host=HOST)


def test_a_kubeconfig_that_was_asked_for_wins_over_the_pod_and_the_pod_over_the_default(
    tmp_path: Path, pod: Path
) -> None:
    environ = {**IN_CLUSTER, "KUBECONFIG": str(write(tmp_path / "config", config("https://default:1")))}
    asked = Credentials.load({"kubeconfig": config("https://asked:1")}, environ, service_account=str(pod))
    assert asked.server == "https://asked:1"
    by_context = Credentials.load({"context": "c"}, environ, service_account=str(pod))
    assert by_context.server == "https://default:1"
    in_pod = Credentials.load({}, environ, service_account=str(pod))
    assert (in_pod.server, in_pod.namespace) == ("https://10.96.0.1:443", "team")
    assert authorization(in_pod) == "Bearer pod-token"
    assert in_pod.tls().ca == Pem(path=str(pod / "ca.crt")).current()
    elsewhere = Credentials.load({}, {"KUBECONFIG": environ["KUBECONFIG"]}, service_account=str(pod))
    assert elsewhere.server == "https://default:1"


def test_a_pod_without_a_service_account_is_no_place_for_credentials(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match=r"no Kubernetes credentials were found: ~/\.kube/config does"):
        load(environ=IN_CLUSTER)


def test_an_ipv6_service_address_is_bracketed(pod: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert Credentials.load({}, environ, service_account=str(pod)).server == "https://[fd00::1]:443"


def test_single_options_replace_what_the_kubeconfig_says(tmp_path: Path) -> None:
    ca = tmp_path / "ca"
    ca.write_text("CA")
    user = {"token": "old", "client-certificate-data": base64.b64encode(b"cert").decode()}
    cluster = {"insecure-skip-tls-verify": True, "certificate-authority-data": base64.b64encode(b"inline").decode()}
    document = config(user=user, cluster=cluster)
    new = load(document, api_key="new", validate_certs=True, ca_cert=str(ca))
    assert authorization(new) == "Bearer new"
    assert (new.tls().verify, new.tls().ca, new.tls().cert) == (True, Pem(str(ca)).current(), Pem(text="cert"))
    moved = load(document, host="https://other:1/")
    assert (moved.server, authorization(moved)) == ("https://other:1", "Bearer old")


# -- kubeconfig -------------------------------------------------------------------------------------------------------


def test_the_default_is_in_the_home_directory(tmp_path: Path) -> None:
    write(tmp_path / ".kube/config", config("https://home:1", namespace="team"))
    credentials = Credentials.load({}, {"HOME": str(tmp_path)}, service_account="/nonexistent")
    assert (credentials.server, credentials.namespace) == ("https://home:1", "team")
    assert credentials.source == f"kubeconfig {tmp_path}/.kube/config, context c"


def test_several_files_are_merged_and_the_first_wins(tmp_path: Path) -> None:
    first = config("https://first:1", name="both", user={"token": "first"})
    del first["current-context"]
    second = config("https://second:1", name="both", user={"token": "second", "as": "never"}, namespace="never")
    third = config("https://third:1", name="third")
    paths = [write(tmp_path / name, doc) for name, doc in (("1", first), ("2", second), ("3", third))]
    environ = {"KUBECONFIG": os.pathsep.join(["", str(tmp_path / "absent"), *map(str, paths), ""])}
    both = load(environ=environ)  # current-context of the second
    assert (both.server, both.namespace) == ("https://first:1", None)  # an entry is taken whole
    assert both.headers() == [("Authorization", "Bearer first")]
    assert load(environ=environ, context="third").server == "https://third:1"
    assert load(kubeconfig=environ["KUBECONFIG"]).server == "https://first:1"


names = st.sampled_from(["a", "b", "c"])
files = st.lists(st.dictionaries(names, st.integers(0, 99), max_size=3), min_size=1, max_size=4)


@given(files)
def test_merging_keeps_the_first_of_each_name(contents: list[dict[str, int]]) -> None:
    documents = [
        {"current-context": "", "clusters": {n: {"server": v} for n, v in entries.items()}, "contexts": {}, "users": {}}
        for entries in contents
    ]
    expected: dict[str, int] = {}
    for entries in contents:
        for name, value in entries.items():
            expected.setdefault(name, value)
    assert {name: entry["server"] for name, entry in kubeconfig.merged(documents)["clusters"].items()} == expected


def test_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    for directory, name in (("one", "a"), ("two", "b")):
        user = {"tokenFile": "secrets/token", "client-certificate": "cert", "client-key": "key"}
        document = config(name=name, user=user, cluster={"certificate-authority": "../ca"})
        write(tmp_path / directory / "config", document)
        (tmp_path / directory / "secrets").mkdir()
        (tmp_path / directory / "secrets/token").write_text(directory)
        (tmp_path / directory / "cert").write_text("")
        (tmp_path / directory / "key").write_text("")
    (tmp_path / "ca").write_text("")
    environ = {"KUBECONFIG": f"{tmp_path}/one/config{os.pathsep}{tmp_path}/two/config"}
    for directory, name in (("one", "a"), ("two", "b")):
        credentials = load(environ=environ, context=name)
        assert authorization(credentials) == f"Bearer {directory}"
        tls = credentials.tls()
        assert tls.cert and tls.key and tls.ca
        assert [tls.cert.path, tls.key.path] == [f"{tmp_path}/{directory}/cert", f"{tmp_path}/{directory}/key"]
        assert os.path.samefile(tls.ca.path, tmp_path / "ca")


def test_json_needs_no_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "config").write_text(json.dumps(config()))
    assert load(kubeconfig=str(tmp_path / "config")).server == HOST
    write(tmp_path / "yaml", config())
    with pytest.raises(CredentialsError, match="pip install PyYAML"):
        load(kubeconfig=str(tmp_path / "yaml"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"current-context": "nope"}, "context 'nope' is not in the kubeconfig option: its contexts are c"),
        ({"current-context": ""}, "has no current-context: name one of c"),
        ({"clusters": []}, r"contexts\[c\].cluster 'c' is not in .*: its clusters are \(none\)"),
        ({"users": []}, r"contexts\[c\].user 'c' is not in"),
        ({"clusters": [{"name": "c", "cluster": {}}]}, "names no API server"),
        ({"clusters": [{"cluster": {}}]}, r"clusters\[0\] in the kubeconfig option has no name"),
        ({"users": [{"name": "c", "user": "token"}]}, r"users\[c\].user .* is not a mapping"),
        ({"users": "all"}, "users in the kubeconfig option is not a list"),
        ({"clusters": [{"name": "c", "cluster": {"server": "10.0.0.1:6443"}}]}, "is not a URL such as https://"),
        ({"clusters": [{"name": "c", "cluster": {"server": "ftp://x"}}]}, "is not a URL such as https://"),
        ({"users": [{"name": "c", "user": {"client-certificate-data": "*"}}]}, "client-certificate-data of .* base64"),
        ({"users": [{"name": "c", "user": {"client-key": "/k"}}]}, "client key without a client certificate"),
        ({"users": [{"name": "c", "user": {"as-groups": ["g"]}}]}, "impersonates groups without a user"),
        (
            {"users": [{"name": "c", "user": {"tokenFile": "/nonexistent/t"}}]},
            "token file /nonexistent/t can't be read",
        ),
        ({"users": [{"name": "c", "user": {"token": 7}}]}, r"users\[c\].user.token .* is not a text"),
        ({"users": [{"name": "c", "user": {"exec": {}}}]}, r"exec\.command is missing"),
        ({"users": [{"name": "c", "user": {"exec": "aws"}}]}, r"users\[c\].user.exec .* is not a mapping"),
    ],
)
def test_a_mistake_in_a_kubeconfig_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(CredentialsError, match=words):
        load({**config(), **change}).headers()


def test_a_kubeconfig_that_does_not_exist_is_named() -> None:
    with pytest.raises(CredentialsError, match="kubeconfig '/nonexistent/config' does not exist"):
        load(kubeconfig="/nonexistent/config")
    with pytest.raises(CredentialsError, match=r"\$KUBECONFIG \(/nonexistent/c\) does not exist"):
        load(environ={"KUBECONFIG": "/nonexistent/c"})


def test_broken_yaml_is_named_by_its_line_and_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("users:\n- name: u\n  user: {token: very-secret, : [}\n")
    with pytest.raises(CredentialsError, match="is not valid YAML in line 3") as caught:
        load(kubeconfig=str(tmp_path / "config"))
    assert "very-secret" not in str(caught.value)
    assert caught.value.__suppress_context__


# -- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "header"),
    [
        ({"token": "t"}, "Bearer t"),
        ({"token": " t\n"}, "Bearer t"),
        ({"username": "u", "password": "p"}, "Basic dTpw"),
        ({"username": "u"}, None),
        ({"token": "t", "username": "u", "password": "p"}, "Bearer t"),
        ({"token": "t", "exec": {"command": "never-run"}}, "Bearer t"),
        ({}, None),
    ],
)
def test_the_authorization_header(user: dict[str, Any], header: str | None) -> None:
    assert authorization(load(config(user=user))) == header


def test_everything_that_can_be_impersonated() -> None:
    user = {"as": "änn", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"example.com/Scope": ["x", "y"]}}
    assert load(config(user=user)).headers() == [
        ("Impersonate-User", "änn".encode().decode("latin-1")),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-example.com%2FScope", "x"),
        ("Impersonate-Extra-example.com%2FScope", "y"),
    ]


@pytest.mark.parametrize("token", ["very-secret\nX-Evil: 1", "very-secret\r", "a\0very-secret", ""])
def test_a_token_that_is_no_header_is_refused_unseen(tmp_path: Path, token: str) -> None:
    (tmp_path / "token").write_text(f"x{token}x" if token else "\n")
    with pytest.raises(CredentialsError, match=r"token file .* (contains|is empty)") as caught:
        load(config(user={"tokenFile": str(tmp_path / "token")})).headers()
    assert "very-secret" not in str(caught.value)


def test_a_token_file_is_read_again_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(identities.time, "monotonic", lambda: now[0])
    (tmp_path / "token").write_text("one")
    credentials = load(config(user={"tokenFile": str(tmp_path / "token"), "token": "never"}))
    assert authorization(credentials) == "Bearer one"
    (tmp_path / "token").write_text("two")
    now[0] += 59.9
    assert authorization(credentials) == "Bearer one"
    now[0] += 0.2
    assert authorization(credentials) == "Bearer two"
    (tmp_path / "token").write_text("three")
    assert credentials.refused("Bearer two")  # there is something new to try
    assert authorization(credentials) == "Bearer three"
    assert not credentials.refused("Bearer three")


def test_a_certificate_file_that_was_replaced_is_another_one(tmp_path: Path) -> None:
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text("old")
    credentials = load(
        host=HOST, client_cert=str(tmp_path / "cert"), client_key=str(tmp_path / "key"), ca_cert=str(tmp_path / "ca")
    )
    before = credentials.tls()
    assert credentials.tls() == before
    for name in ("cert", "key", "ca"):
        (tmp_path / "new").write_text("newer")
        (tmp_path / "new").rename(tmp_path / name)
        after = credentials.tls()
        assert after != before
        before = after


@given(st.text(max_size=30).map(lambda text: f"≈{text}≈"))  # not a word of ours
def test_no_repr_shows_a_secret(secret: str) -> None:
    encoded = base64.b64encode(secret.encode()).decode()
    user = {"username": "u", "password": secret, "client-certificate-data": encoded, "client-key-data": encoded}
    credentials = load(config(user=user))
    assert secret not in repr(credentials) + repr(credentials.tls()) + str(credentials)


# -- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "options", "environ", "proxy"),
    [
        (HOST, {}, {}, None),
        (HOST, {"proxy": "http://p:1"}, {}, "http://p:1"),
        (HOST, {"proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, {}, None),
        (HOST, {"proxy": "http://p:1", "no_proxy": "10.0.0.2,11.0.0.0/8, ,x"}, {}, "http://p:1"),
        (HOST, {"proxy": "http://p:1", "no_proxy": "*"}, {}, None),
        (HOST, {"proxy": "http://p:1", "no_proxy": "10.0.0.1:6443"}, {}, None),
        (HOST, {"proxy": "http://p:1", "no_proxy": "10.0.0.1:6444"}, {}, "http://p:1"),
        ("https://api.example.com", {"proxy": "http://p:1", "no_proxy": ".example.com"}, {}, None),
        ("https://api.example.com", {"proxy": "http://p:1", "no_proxy": "example.com"}, {}, None),
        ("https://api.EXAMPLE.com", {"proxy": "http://p:1", "no_proxy": "Example.Com"}, {}, None),
        ("https://badexample.com", {"proxy": "http://p:1", "no_proxy": "example.com"}, {}, "http://p:1"),
        ("https://[fd00::1]:1", {"proxy": "http://p:1", "no_proxy": "fd00::/16"}, {}, None),
        (HOST, {}, {"HTTPS_PROXY": "http://e:1"}, "http://e:1"),
        (HOST, {}, {"https_proxy": "http://e:1"}, "http://e:1"),
        (HOST, {}, {"HTTP_PROXY": "http://e:1"}, None),
        (HOST, {}, {"HTTPS_PROXY": "http://e:1", "NO_PROXY": "10.0.0.1"}, None),
        (HOST, {"proxy": "http://p:1"}, {"HTTPS_PROXY": "http://e:1"}, "http://p:1"),
        (HOST, {"proxy": "http://p:1", "no_proxy": "x"}, {"NO_PROXY": "10.0.0.1"}, "http://p:1"),
        ("https://127.0.0.1:1", {}, {"HTTPS_PROXY": "http://e:1"}, None),
        ("https://127.0.0.1:1", {"proxy": "http://p:1"}, {}, "http://p:1"),
        (HOST, {"proxy": "socks5://p:1"}, {}, "socks5://p:1"),
    ],
)
def test_which_proxy(server: str, options: dict[str, str], environ: dict[str, str], proxy: str | None) -> None:
    assert load(config(server), environ, **options).proxy == proxy


def test_the_proxy_of_a_kubeconfig() -> None:
    document = config(cluster={"proxy-url": "http://k:1"})
    assert load(document).proxy == "http://k:1"
    assert load(document, proxy="http://p:1").proxy == "http://p:1"
    with pytest.raises(CredentialsError, match="the proxy is not a URL") as caught:
        load(document, proxy="user:very-secret@proxy:3128")
    assert "very-secret" not in str(caught.value)


def test_a_password_in_the_servers_url_is_refused_unseen() -> None:
    with pytest.raises(CredentialsError, match="use username and password instead") as caught:
        load(host="https://u:very-secret@10.0.0.1", api_key="t")
    assert "very-secret" not in str(caught.value)


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> tuple[str, str, str]:
    """A self-signed certificate, its key, and the key encrypted, all PEM."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ann")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )

    def pem(encryption: serialization.KeySerializationEncryption) -> str:
        form = serialization.PrivateFormat.PKCS8
        return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()

    return (
        certificate.public_bytes(serialization.Encoding.PEM).decode(),
        pem(serialization.NoEncryption()),
        pem(serialization.BestAvailableEncryption(b"very-secret")),
    )


def test_inline_keys_are_private_files_for_a_moment_only(
    tmp_path: Path, pair: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    cert, key, _ = pair
    modes: list[int] = []
    load_pair = ssl.SSLContext.load_cert_chain

    def watched(self: ssl.SSLContext, certfile: str, keyfile: str, password: Any) -> None:
        modes.extend(stat.S_IMODE(os.stat(path).st_mode) for path in (certfile, keyfile, os.path.dirname(keyfile)))
        load_pair(self, certfile, keyfile, password)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", watched)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    old = os.umask(0)
    try:
        ssl_context(Tls(cert=Pem(text=cert), key=Pem(text=key), ca=Pem(text="# ä comment\n" + cert)))
    finally:
        os.umask(old)
    assert modes == [0o600, 0o600, 0o700]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        (Tls(ca=Pem(text="rubbish")), r"CA certificate \(inline\) can't be used"),
        (Tls(ca=Pem(path=__file__)), "CA certificate .* can't be used"),
        (Tls(cert=Pem(text="rubbish"), key=Pem(text="rubbish")), r"client certificate and key \(inline and inline\)"),
    ],
)
def test_rubbish_certificates_are_named(tls: Tls, words: str) -> None:
    with pytest.raises(CredentialsError, match=words):
        ssl_context(tls)


def test_an_encrypted_key_asks_nobody(pair: tuple[str, str, str]) -> None:
    cert, _, encrypted = pair
    with pytest.raises(CredentialsError, match="the client key is encrypted"):
        ssl_context(Tls(cert=Pem(text=cert), key=Pem(text=encrypted)))


def test_a_certificate_with_its_key_in_one_file(tmp_path: Path, pair: tuple[str, str, str]) -> None:
    (tmp_path / "both").write_text(pair[0] + pair[1])
    ssl_context(load(config(user={"client-certificate": str(tmp_path / "both")})).tls())


def test_verification_is_on_unless_the_user_says_otherwise(pair: tuple[str, str, str]) -> None:
    import ssl

    safe, system, unsafe = (ssl_context(tls) for tls in (Tls(ca=Pem(text=pair[0])), Tls(), Tls(verify=False)))
    for context in (safe, system):
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert unsafe.verify_mode == ssl.CERT_NONE
    assert safe.minimum_version == ssl.TLSVersion.TLSv1_2
    assert safe.cert_store_stats()["x509"] == 1  # and not those of the system

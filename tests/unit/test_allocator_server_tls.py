# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's certificate is replaced on disk while it serves."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.allocator_server import Client, Service, until
from muster.allocator import server
from muster.allocator.server_tls import Certificate


def write(directory: Path, name: str, *, what: tuple[str, ...] = ("cert", "key")) -> tuple[Path, Path]:
    """A self-signed pair for 127.0.0.1, whose subject is `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    built = built.not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = {"cert": built.sign(key, hashes.SHA256()).public_bytes(pem), "key": private}
    for each in what:
        (directory / each).write_bytes(files[each])
    return directory / "cert", directory / "key"


def subject_at(port: int) -> str:
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string()


def test_it_serves_with_the_newest_certificate_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.05)
    service = Service(tls=write(tmp_path, "first"))
    port = service.server.port
    context = ssl.create_default_context(cafile=str(tmp_path / "cert"))
    context.check_hostname = False
    reply = Client(port, "ann", context)("GET", "/v1/offer")
    assert reply.status == 200 and "max-age" in reply.headers["strict-transport-security"]
    assert subject_at(port) == "CN=first"
    write(tmp_path, "second")
    until("the second is served", lambda: subject_at(port) == "CN=second")
    write(tmp_path, "third", what=("cert",))  # the key is still another's
    certificate = service.server._certificate
    assert certificate is not None
    certificate.refresh()
    assert subject_at(port) == "CN=second"
    (tmp_path / "key").unlink()
    certificate.refresh()
    assert subject_at(port) == "CN=second"
    write(tmp_path, "fourth")
    until("the fourth is served", lambda: subject_at(port) == "CN=fourth")
    service.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_who_speaks_no_tls_or_an_old_one_is_not_spoken_with(tmp_path: Path) -> None:
    service = Service(tls=write(tmp_path, "x"))
    with pytest.raises(OSError):
        service.ann("GET", "/healthz")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        Client(service.server.port, "ann", old)("GET", "/healthz")
    service.close()


def test_a_certificate_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b", what=("cert",))
    with pytest.raises(Malformed, match="cert"):
        Certificate(tmp_path / "cert", tmp_path / "key")
    with pytest.raises(Malformed, match="missing"):
        Certificate(tmp_path / "missing", tmp_path / "key")

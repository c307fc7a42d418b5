# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates of one cluster, made at `up` and never kept: three authorities (Kubernetes, etcd, aggregation)."""

from __future__ import annotations

import datetime
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.spec import Spec

LIFETIME = datetime.timedelta(days=365)
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True)
class Leaf:
    """One certificate: file name, subject (common name, organisation) and the names a server answers to."""

    file: str
    common_name: str
    organisation: str = ""
    names: tuple[str, ...] = ()


def leaves(spec: Spec) -> list[Leaf]:
    """Every certificate signed by the Kubernetes authority."""
    api_names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    found = [
        Leaf(
            "apiserver", "kube-apiserver", names=(*api_names, "localhost", "127.0.0.1", spec.address, spec.service_ip)
        ),
        Leaf("admin", "kubernetes-admin", "system:masters"),
        Leaf("controller-manager", "system:kube-controller-manager"),
        Leaf("scheduler", "system:kube-scheduler"),
    ]
    if spec.node:
        found += [
            Leaf("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
            Leaf("kubelet", f"system:node:{spec.name}", "system:nodes"),
            Leaf("kubelet-server", spec.name, names=(spec.name, "localhost", "127.0.0.1", spec.address)),
            Leaf("kube-proxy", "system:kube-proxy"),
        ]
    return found


def write(spec: Spec, directory: Path) -> None:
    """Make all keys and certificates of `spec` in `directory` (mode 0700)."""
    directory.mkdir(mode=0o700)
    authority = _Authority.make(directory, "ca", "muster-cluster")
    for leaf in leaves(spec):
        authority.issue(leaf)
    etcd = _Authority.make(directory, "etcd-ca", "muster-etcd")
    etcd.issue(Leaf("etcd", "etcd", names=("localhost", "127.0.0.1")))
    etcd.issue(Leaf("etcd-client", "kube-apiserver"))
    _Authority.make(directory, "front-proxy-ca", "muster-front-proxy").issue(
        Leaf("front-proxy-client", "front-proxy-client")
    )
    account = ec.generate_private_key(ec.SECP256R1())
    _write_key(directory / "service-account.key", account)
    public = account.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(directory / "service-account.pub", public)


@dataclass(frozen=True)
class _Authority:
    directory: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, directory: Path, file: str, common_name: str) -> _Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _subject(common_name, "")
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = (
            _builder(subject, subject, key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write_key(directory / f"{file}.key", key)
        _write(directory / f"{file}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        return cls(directory, key, certificate)

    def issue(self, leaf: Leaf) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_subject(leaf.common_name, leaf.organisation), self.certificate.subject, key)
        # etcd is its own peer and the API server's serving key is only that: servers get both usages, clients one.
        usages = [SERVER, CLIENT] if leaf.names else [CLIENT]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False).add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
        )
        if leaf.names:
            names = x509.SubjectAlternativeName([_general_name(n) for n in dict.fromkeys(leaf.names)])
            builder = builder.add_extension(names, critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        _write_key(self.directory / f"{leaf.file}.key", key)
        _write(self.directory / f"{leaf.file}.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _subject(common_name: str, organisation: str) -> x509.Name:
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation)] if organisation else []
    return x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    _write(path, key.private_bytes(encoding, form, serialization.NoEncryption()))


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and keys, and the TLS settings that they make."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.client.kubeconfig import CredentialsError, Entry

if TYPE_CHECKING:
    import ssl


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


def pem(entry: Entry, field: str, source: str) -> Pem | None:
    """The certificate or key under `field`; inline data wins over a file, as in kubectl."""
    data = entry.get(f"{field}-data")
    if data:
        try:
            return Pem(text=base64.b64decode("".join(data.split()), validate=True).decode("utf-8"))
        except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
            raise CredentialsError(f"{field}-data of {source} is not base64 of a PEM text") from None
    return Pem(path=entry[field]) if entry.get(field) else None


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
        cert_path = _as_file(cert, os.path.join(directory, "cert"))
        key_path = _as_file(key, os.path.join(directory, "key")) if key else None
        try:
            context.load_cert_chain(cert_path, key_path, refuse_password)
        except (OSError, ValueError) as error:
            names = " and ".join(pem.path or "inline" for pem in (cert, key) if pem)
            raise CredentialsError(f"the client certificate and key ({names}) can't be used: {error}") from error


def _as_file(pem: Pem, path: str) -> str:
    if pem.path:
        return pem.path
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(pem.text)
    return path

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's certificate, which may be replaced on disk while it serves."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Final

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.process import say

LOOK_SECONDS: Final = 5.0  # how often the files are looked at

_Stamp = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate's chain and its key, in PEM files. `context` is for a server, and has the newest pair that fits."""

    def __init__(self, certificate: str | Path, key: str | Path) -> None:
        """Raises Malformed where they can't be used."""
        self._files = (Path(certificate), Path(key))
        self._stamp = self._look()
        try:
            self._newest = self._load()
        except (OSError, ValueError) as error:
            raise Malformed("tls", str(certificate), f"give a certificate and its key, in PEM: {error}") from None
        self.context = self._load()
        self.context.sni_callback = self._choose
        self.reloads = 0

    def refresh(self) -> None:
        """Take what is on disk by now, if it has changed and fits; each connection from then on has it."""
        stamp = self._look()
        if stamp == self._stamp or not stamp:
            return
        try:
            newest = self._load()
        except (OSError, ValueError) as error:  # perhaps only one of both is replaced by now: looked at again
            say(
                logging.WARNING,
                "the certificate that is there now can't be used",
                file=str(self._files[0]),
                error=str(error),
            )
            return
        self._newest, self._stamp = newest, stamp
        self.reloads += 1
        say(logging.INFO, "the certificate was replaced", file=str(self._files[0]))

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files, password=_no_password)
        return context

    def _look(self) -> _Stamp:
        """Changes when a file does; empty where one is missing."""
        try:
            found = [os.stat(file) for file in self._files]
        except OSError:
            return ()
        return tuple((each.st_mtime_ns, each.st_size, each.st_ino) for each in found)

    def _choose(self, connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest


def _no_password() -> str:
    raise ValueError("the key is encrypted: give one without a password")

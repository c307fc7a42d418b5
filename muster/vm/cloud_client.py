# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A thin client of the private cloud: each call goes out once, and waits no longer than it is told to.

Raises a Refusal (cloud_wire.py) where the cloud said no, and Unsure where nobody knows what became of it.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import urllib3

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.vm.cloud_wire import REFUSALS, Refusal, Unsure, Writer

ANSWER_LIMIT: Final = 4 * 1024 * 1024  # bytes
FIELDS: Final = frozenset({"seen", "uid", "revision", "retry_after", "allow"})  # of refusals
Document = dict[str, Any]


class CloudClient:
    """Safe for several threads; `connections` are kept open. `token_file` is read for each call.

    `timeout` of a call: seconds for connecting and for each wait for a part of the answer, which are few and small.
    """

    def __init__(self, url: str, token_file: Path | None = None, *, connections: int = 8) -> None:
        try:
            parsed = urllib3.util.parse_url(url)
        except urllib3.exceptions.LocationParseError:
            parsed = urllib3.util.Url()
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise Malformed("cloud", url, "give a URL, for example http://127.0.0.1:8300")
        self._url, self._token_file = url.rstrip("/"), token_file
        self._pools = urllib3.PoolManager(maxsize=connections, retries=False)

    def find(self, writer: Writer, name: str, uid: str, *, close: bool = False, timeout: float) -> Document:
        """Register the writer's fence for the name, and see what is there (see Store.find); never out of date.

        `close`: no machine of that name is to be made any more.
        """
        body = {"uid": uid, "close": close}
        return self._call("PUT", f"/v1/fences/{quote(name, safe='')}", writer, body, timeout=timeout)

    def create(self, writer: Writer, asked: Document, key: str, *, timeout: float) -> Document:
        """Make the machine `asked` (name, uid, cores, memory, image); the one that is there where `key` made one."""
        return self._call("POST", "/v1/machines", writer, asked, timeout=timeout, **{"Idempotency-Key": key})

    def resize(self, writer: Writer, ident: str, cores: int, memory: str, *, revision: int, timeout: float) -> Document:
        """Change its size, if it is still at that revision; raises Changed."""
        body = {"cores": cores, "memory": memory}
        return self._call("PUT", _path(ident), writer, body, timeout=timeout, **{"If-Match": str(revision)})

    def delete(self, writer: Writer, ident: str, *, timeout: float) -> None:
        """Delete it. Raises NotThere where it is gone."""
        self._call("DELETE", _path(ident), writer, timeout=timeout)

    def get(self, ident: str, *, timeout: float) -> Document:
        return self._call("GET", _path(ident), timeout=timeout)

    def machines(self, *, timeout: float, **query: Any) -> Document:
        """A page of machines (name, uid, after, limit); what it shows may be out of date."""
        return self._call("GET", f"/v1/machines?{urlencode(query)}", timeout=timeout)

    def counters(self, *, timeout: float, **query: Any) -> Document:
        return self._call("GET", f"/v1/counters?{urlencode(query)}", timeout=timeout)

    def switch(self, *, timeout: float, **faults: Any) -> Document:
        """These faults (cloud_faults.py) from now on, and no others."""
        return self._call("PUT", "/v1/faults", body=faults, timeout=timeout)

    def close(self) -> None:
        self._pools.clear()

    def _call(
        self,
        method: str,
        path: str,
        writer: Writer | None = None,
        body: Document | None = None,
        *,
        timeout: float,
        **headers: str,
    ) -> Document:
        sent = {"Accept": "application/json", **headers}
        if body is not None:
            sent["Content-Type"] = "application/json"
        if writer is not None and writer.fence is not None:
            sent |= {"Fence": str(writer.fence), "Fence-Scope": writer.scope}
        if self._token_file is not None:
            sent["Authorization"] = f"Bearer {_token(self._token_file)}"
        content = None if body is None else json.dumps(body).encode()
        what, deadline = f"{method} {path.partition('?')[0]} of the cloud {self._url}", time.monotonic() + timeout
        try:
            answer = self._pools.request(
                method,
                self._url + path,
                body=content,
                headers=sent,
                timeout=urllib3.Timeout(total=timeout),
                retries=False,
                redirect=False,
                preload_content=False,
            )
            return _document(answer.status, _content(answer, deadline), what)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unsure(f"{what}: {error}") from error


def _content(answer: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    content = bytearray()
    for chunk in answer.stream(65536):
        content += chunk
        if len(content) > ANSWER_LIMIT or time.monotonic() > deadline:
            answer.close()
            raise urllib3.exceptions.HTTPError("the answer is too long, or did not end in time")
    answer.release_conn()
    return bytes(content)


def _document(status: int, content: bytes, what: str) -> Document:
    """What a complete answer says."""
    try:
        document = json.loads(content) if content else {}
    except ValueError:
        document = None
    if isinstance(document, dict) and status < 300:
        return document
    if not isinstance(document, dict) or status >= 500 or document.get("error") not in REFUSALS:
        raise Unsure(f"{what}: {status} {content[:200].decode(errors='replace').strip()}")
    refusal: type[Refusal] = REFUSALS[document.pop("error")]
    fields = {name: document[name] for name in FIELDS & document.keys()}
    raise refusal(f"{what}: {document.get('message', status)}", **fields)


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError) as error:
        raise Malformed("cloud-token-file", str(path), f"give a file that can be read ({error})") from error


def _path(ident: str) -> str:
    return f"/v1/machines/{quote(ident, safe='')}"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The web page's files, as they are in the package."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import Final, NamedTuple

PACKAGE: Final = "muster.allocator"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}


class File(NamedTuple):
    content: bytes
    content_type: str
    etag: str


def files() -> dict[str, File]:
    """What is served, by its path; index.html at /. Read once: the paths that exist are these, whatever is asked."""
    page = resources.files(PACKAGE).joinpath("page")
    if not page.is_dir():
        return {}
    found = {}
    for each in sorted(page.iterdir(), key=lambda each: each.name):
        content_type = TYPES.get(f".{each.name.rpartition('.')[2]}")
        if content_type and each.is_file():
            content = each.read_bytes()
            file = File(content, content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
            found["/" if each.name == "index.html" else f"/{each.name}"] = file
    return found

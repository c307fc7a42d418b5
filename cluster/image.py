# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one image of an embedded cluster: busybox alone, whose default command is the Pod sandbox ("pause")."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Waits for ever, and as process 1 of a shared pid namespace collects orphans: `wait` reaps any child.
PAUSE = "trap 'exit 0' TERM INT; while :; do sleep 2147483647 & wait $!; done"


def write(archive: Path, name: str, busybox: str) -> None:
    """Write a docker archive of image `name`: the static `busybox` with a link for each of its programs."""
    layer = _layer(Path(busybox).read_bytes(), _applets(busybox))
    config = json.dumps(
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": ["/bin/sh", "-c", PAUSE], "Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(archive, "w") as file:
        for member, content in (("layer.tar", layer), ("config.json", config), ("manifest.json", manifest)):
            _add(file, member, content)


def _applets(busybox: str) -> list[str]:
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return [name for name in names if name != "busybox"]


def _layer(binary: bytes, applets: list[str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for directory, mode in (("bin", 0o755), ("tmp", 0o1777), ("etc", 0o755)):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            file.addfile(entry)
        _add(file, "bin/busybox", binary, 0o755)
        _add(file, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
        _add(file, "etc/nsswitch.conf", b"hosts: files dns\n")
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, "busybox", 0o777
            file.addfile(link)
    return buffer.getvalue()


def _add(file: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)  # time, owner 0: the same input gives the same image
    entry.size, entry.mode = len(content), mode
    file.addfile(entry, io.BytesIO(content))

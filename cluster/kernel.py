# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The four libc calls which Python 3.11 does not have, and the guard of a recorded pid."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")


def unshare(flags: int) -> None:
    """Leave the caller's namespaces named by `flags` for new ones. Raises OSError (EPERM without root)."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError which names source and target."""
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode())
    _check(result, f"mount {source} on {target}")


def die_with_parent() -> None:
    """Have the kernel SIGKILL the caller when the thread that started it ends, however that ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def boot_id() -> str:
    """One random string for each boot of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def stat_fields(text: str) -> list[str]:
    """Fields of /proc/<pid>/stat from the third (state) on; the second may hold blanks and brackets."""
    return text[text.rindex(")") + 2 :].split()


@dataclass(frozen=True)
class Process:
    """One process for good: its pid, its start in clock ticks since boot, and the boot. A reused pid differs."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now. Raises FileNotFoundError when there is none."""
        return cls(pid, int(stat_fields(Path(f"/proc/{pid}/stat").read_text())[19]), boot_id())

    @classmethod
    def load(cls, path: Path) -> Process | None:
        """What `save` wrote, or None when it is missing or was cut short."""
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def save(self, path: Path) -> None:
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(asdict(self)))
        temporary.replace(path)

    def alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        try:
            fields = stat_fields(Path(f"/proc/{self.pid}/stat").read_text())
        except OSError:
            return False
        return fields[0] not in "ZX" and int(fields[19]) == self.started and boot_id() == self.boot

    def end(self, signals: tuple[tuple[signal.Signals, float], ...]) -> bool:
        """Send each signal in turn, wait up to its seconds, and say whether the process is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            for number, seconds in signals:
                if not self.alive():  # checked after the handle was taken: the handle is this process
                    return True
                signal.pidfd_send_signal(handle, number)
                if select.select([handle], [], [], seconds)[0]:
                    return True
            return not self.alive()
        finally:
            os.close(handle)


def children(pid: int) -> dict[int, int]:
    """Direct children of `pid`: the pid in their own innermost namespace to the pid as seen from here."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            status = dict(line.split(":", 1) for line in (entry / "status").read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if int(status["PPid"]) == pid:
            found[int(status["NSpid"].split()[-1])] = int(entry.name)
    return found


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

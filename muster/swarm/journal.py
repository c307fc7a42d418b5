# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a worker: when each job ran, so that it can be shown that no job ran on two workers.

A JSON object a line, each written by one write, appended and never buffered:

    {"at": 81234567890, "worker": "swarm-0", "uid": "…", "run": "3f9c…", "job": "stream:1", "event": "begin"}

`at` is in nanoseconds of CLOCK_MONOTONIC: one clock for all processes of a machine, which nobody sets. A begin is
written before the job is started, an end when nothing of it is left: what is written covers what was. In between there
are beats, so that the end of a process which was killed is known to about the time between two of them.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from pathlib import Path

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.process import say

BEAT_SECONDS = 0.2


class Journal:
    """Safe for several threads. Without a path nothing is written."""

    def __init__(self, path: Path | None, worker: str, uid: str, beat: float = BEAT_SECONDS) -> None:
        """`beat` is the time between two beats of a job, in seconds. Raises Malformed where `path` can't be written."""
        self.run = secrets.token_hex(8)
        self._beat = beat
        self._who = {"worker": worker, "uid": uid, "run": self.run}
        self._running: dict[str, str] = {}  # job to what is the same in all of its lines
        self._lock = threading.Lock()
        self._is_torn = self._is_failing = False
        self._closed = threading.Event()
        self._file: int | None = None
        if path is not None:
            self._open(path)
            threading.Thread(target=self._keep_beating, name="beats", daemon=True).start()

    def begin(self, job: str) -> None:
        with self._lock:
            self._running[job] = json.dumps({**self._who, "job": job})[1:-1]
            self._write(job, "begin")

    def end(self, job: str) -> None:
        with self._lock:
            self._write(job, "end")
            del self._running[job]

    def beat(self) -> None:
        """One beat of each job that runs."""
        for job in list(self._running):
            with self._lock:
                if job in self._running:  # it may have ended just now: nothing follows an end
                    self._write(job, "beat")

    def close(self) -> None:
        """No more is written."""
        self._closed.set()
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None

    # ------------------------------------------------------------------------------------------ private

    def _open(self, path: Path) -> None:
        """A line that an earlier run was killed in is ended first."""
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            with path.open("rb") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    self._is_torn = file.read(1) != b"\n"
        except OSError as error:
            remedy = f"name a file that can be written here ({error.strerror})"
            raise Malformed("--journal", str(path), remedy) from error

    def _keep_beating(self) -> None:
        due = time.monotonic() + self._beat
        while not self._closed.wait(max(0.0, due - time.monotonic())):
            self.beat()
            due = max(due + self._beat, time.monotonic())  # what a stopped process has missed is not made up for

    def _write(self, job: str, event: str) -> None:
        """A journal that can't be written, on a full disk, is no reason to let the jobs end."""
        if self._file is None:
            return
        line = f'{{"at": {time.monotonic_ns()}, {self._running[job]}, "event": "{event}"}}\n'.encode()
        line = b"\n" + line if self._is_torn else line
        why, count = "only a part of a line", 0
        try:
            count = os.write(self._file, line)
        except OSError as error:
            why = str(error)
        is_whole = count == len(line)
        if not is_whole and not self._is_failing:
            say(logging.ERROR, "the journal can't be written", why=why)
        self._is_failing = not is_whole
        if count:
            self._is_torn = not is_whole

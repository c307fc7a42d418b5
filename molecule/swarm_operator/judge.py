#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In the Pod that keeps the journals: compares what ran with what was to run, and sends signals.

judge.py settled DIRECTORY JSON
    Prints JSON: the time, and what is wrong; exit status 1 if anything is. It is given the workers' lists as they were
    judged last (`before`) and as they are now (`after`), when that was (`since`, ns), workers whose process has ended
    meanwhile, and has to have (`restarted`), how many jobs have moved from a worker that is still there (`moves`; -1:
    any number), and for how many seconds to look until all is so (`patience`).

judge.py strike UID SIGNAL [now|handover]
    Sends it to all processes of the Pod with this uid; with `handover` as soon as a job has ended somewhere, and then
    does not keep its caller waiting.

judge.py struck DIRECTORY
    Whether any job began after that: exit status 1 if none has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import swarm_journal  # it lies beside this file
from swarm_journal import Line

LATE_NS = 1_000_000_000  # the last beat of a job that runs is not older
LOOK_SECONDS = 0.2
HANDOVER_SECONDS = 60.0
JOURNALS = Path("/journal")
STRUCK = JOURNALS / "struck.json"

Lists = Mapping[str, Mapping[str, Any]]  # by worker: jobs and version


def settled(directory: Path, asked: Mapping[str, Any]) -> int:
    deadline = time.monotonic() + asked["patience"]
    while (wrong := faults(read(directory), asked)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    report = swarm_journal.judge([directory])
    if report["overlaps"]:
        wrong.append(f"jobs ran on two workers: {report['overlapping'][:5]}")
    shown = {key: report[key] for key in ("lines", "intervals", "unreadable", "workers")}
    print(json.dumps({"now": time.monotonic_ns(), "wrong": wrong, **shown}))
    return 1 if wrong else 0


def read(directory: Path) -> list[Line]:
    """The journals from their begin. What can't be read is a line that is being written, or whose writer was killed."""
    found = (line for path in swarm_journal.files([directory]) for line in swarm_journal.lines(path))
    return [line for line in found if isinstance(line, Line)]


def faults(told: list[Line], asked: Mapping[str, Any]) -> list[str]:
    before, after = asked["before"], asked["after"]
    wrong = wrong_owners(told, after)
    for worker in before.keys() & after.keys():
        wrong += [f"{worker}: {what}" for what in wrong_changes(worker, told, asked)]
    moved = [job for job, worker in owner(after).items() if owner(before).get(job, worker) in after.keys() - {worker}]
    if asked["moves"] not in (-1, len(moved)):
        wrong.append(f"{asked['moves']} jobs are said to have moved, and these did: {moved}")
    return wrong


def wrong_owners(told: list[Line], after: Lists) -> list[str]:
    """Where anybody else has a job than who is to have it, and he alone."""
    at = time.monotonic_ns() - LATE_NS
    have = swarm_journal.owners(swarm_journal.intervals(told), at)
    shall = {job: [worker] for job, worker in owner(after).items()}
    jobs = sorted(job for job in have.keys() | shall.keys() if have.get(job) != shall.get(job))
    return [f"{job} runs on {have.get(job, 'no worker')}, and is to run on {shall.get(job, 'none')}" for job in jobs]


def wrong_changes(worker: str, told: Iterable[Line], asked: Mapping[str, Any]) -> list[str]:
    """Of a worker that there was before: only what its list made necessary may have been done to it."""
    old, new = asked["before"][worker], asked["after"][worker]
    own = [line for line in told if line.worker == worker]
    known = {line.run for line in own if line.at <= asked["since"]}
    runs = {line.run for line in own if line.at > asked["since"]}
    touched = {line.job for line in own if line.at > asked["since"] and line.event != "beat"}
    wrong = []
    if (set(old["jobs"]) == set(new["jobs"])) != (old["version"] == new["version"]):
        wrong.append(f"version {old['version']} of its list has become {new['version']}: {old['jobs']}, {new['jobs']}")
    if worker in asked["restarted"]:
        return wrong if runs - known else [*wrong, "it was not started again"]
    if runs - known:
        wrong.append("it was started again")
    kept = touched.intersection(old["jobs"], new["jobs"])
    return [*wrong, f"it had to go on with {sorted(kept)}"] if kept else wrong


def owner(lists: Lists) -> dict[str, str]:
    return {job: worker for worker, entry in lists.items() for job in entry["jobs"]}


# ------------------------------------------------------------------------------------------ signals


def strike(uid: str, number: int, moment: str) -> int:
    if moment == "handover" and os.fork():
        return 0
    if moment == "handover":
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # who has asked is not kept waiting
            os.dup2(nowhere, stream)
        wait_for_an_end(time.monotonic() + HANDOVER_SECONDS)
    at = time.monotonic_ns()
    hit = [process for process in Path("/proc").iterdir() if process.name.isdigit() and is_of(process, uid)]
    for process in hit:
        with suppress(ProcessLookupError):
            os.kill(int(process.name), number)
    STRUCK.write_text(json.dumps({"at": at, "processes": len(hit)}))
    print(STRUCK.read_text())
    return 0 if hit else 1


def is_of(process: Path, uid: str) -> bool:
    try:
        return f"POD_UID={uid}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def wait_for_an_end(deadline: float) -> None:
    """Until any worker writes that a job has ended."""
    read_to = {path: path.stat().st_size for path in swarm_journal.files([JOURNALS / "streams"])}
    while time.monotonic() < deadline:
        for path in read_to:
            with path.open("rb") as file:
                file.seek(read_to[path])
                news = file.read()
            if b'"event": "end"' in news:
                return
            read_to[path] += max(0, news.rfind(b"\n") + 1)
        time.sleep(0.01)


def struck(directory: Path) -> int:
    if not STRUCK.exists():
        print("nobody was struck: no job ended")
        return 1
    at = json.loads(STRUCK.read_text())["at"]
    begun = [line.job for line in read(directory) if line.at > at and line.event == "begin"]
    print(json.dumps({"begun": begun}))
    return 0 if begun else 1


def main(arguments: list[str]) -> int:
    match arguments:
        case ["settled", directory, asked]:
            return settled(Path(directory), json.loads(asked))
        case ["strike", uid, name, *moment]:
            STRUCK.unlink(missing_ok=True)
            return strike(uid, signal.Signals[f"SIG{name}"], moment[0] if moment else "now")
        case ["struck", directory]:
            return struck(Path(directory))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In the Pod that keeps the journals: waits for a Swarm, compares what ran with what was to run, and sends signals.

judge.py settled JSON
    Waits until it has converged, and prints JSON: the workers' lists, the last rebalance, and what is wrong; exit
    status 1 if anything is. It is given an `Asked`; what was judged last it remembers.

judge.py strike POD SIGNAL [now|handover]
    Sends it to all processes of the Pod; with `handover` as soon as a job has ended somewhere, and then does not keep
    its caller waiting.

judge.py thaw
    Sends CONT to those that were struck last, also when their Pod is about to go.

judge.py struck SWARM
    Whether any job of it began after that: exit status 1 if none has.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import swarm_journal  # it lies beside this file
import yaml
from swarm_journal import Line

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import SWARMS

LATE_NS = 1_000_000_000  # the last beat of a job that runs is not older
LOOK_SECONDS = 0.2
CONVERGE_SECONDS = 120.0
HANDOVER_SECONDS = 60.0
JOURNALS = Path("/journal")
STRUCK = JOURNALS / "struck.json"
NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

Lists = Mapping[str, Mapping[str, Any]]  # by worker: jobs and version


@dataclass
class Asked:
    """`names`: the workers that there are to be (None: any, but not `gone`). `restarted`: workers whose process has
    ended since it was judged last, and has to have. `moves`: how many jobs have left a worker that is still there
    (None: as many as the status says, -1: any). `patience`: for how many seconds to look until the journals say so.
    `by_file`: the workers read a mounted file, at which the kubelet looks when their Pods change, and else seldom.
    """

    jobs: int
    names: list[str] | None = None
    gone: str = ""
    swarm: str = "streams"
    configmap: str = "swarm-worker-config"
    restarted: list[str] = field(default_factory=list)
    moves: int | None = None
    patience: float = 5.0
    by_file: bool = False


@dataclass
class Judged:
    """What is remembered of a judgement: the lists, and when it was (ns)."""

    lists: Lists = field(default_factory=dict)
    at: int = 0

    @classmethod
    def last(cls, swarm: str) -> Judged:
        path = JOURNALS / f"{swarm}.json"
        return cls(**json.loads(path.read_text())) if path.exists() else cls()

    def keep(self, swarm: str) -> None:
        (JOURNALS / f"{swarm}.json").write_text(json.dumps(asdict(self)))


def settled(asked: Asked) -> int:
    api, namespace = Api(Credentials.load({})), NAMESPACE.read_text()
    deadline = time.monotonic() + CONVERGE_SECONDS
    while why := not_converged(swarm := api.get(SWARMS, asked.swarm, namespace), asked):
        if time.monotonic() > deadline:
            print(json.dumps({"wrong": [why], "status": swarm.get("status")}))
            return 1
        time.sleep(LOOK_SECONDS)
    config = yaml.safe_load(api.get(CONFIGMAPS, asked.configmap, namespace)["data"]["config.yml"])
    before, after = Judged.last(asked.swarm), config["workloads"]
    asked.moves = swarm["status"]["rebalance"]["moves"] if asked.moves is None else asked.moves
    if asked.by_file:
        change_pods(api, namespace, after)
    directory, deadline = JOURNALS / asked.swarm, time.monotonic() + asked.patience
    while (wrong := faults(read(directory), before, after, asked)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    report = swarm_journal.judge([directory])
    if report["overlaps"]:
        wrong.append(f"jobs ran on two workers: {report['overlapping'][:5]}")
    Judged(after, time.monotonic_ns()).keep(asked.swarm)
    shown = {key: report[key] for key in ("lines", "intervals", "unreadable", "workers")}
    print(json.dumps({"wrong": wrong, "lists": after, "rebalance": swarm["status"]["rebalance"], **shown}))
    return 1 if wrong else 0


def not_converged(swarm: Mapping[str, Any], asked: Asked) -> str:
    """Why it is not as it is to be; empty when it is."""
    status = swarm.get("status") or {}
    if status.get("observedGeneration") != swarm["metadata"]["generation"]:
        return "the operator has not seen it"
    pool = sorted(each["name"] for each in status.get("pool", ()))
    if (asked.names is not None and pool != sorted(asked.names)) or asked.gone in pool:
        return f"the workers are {pool}"
    if status.get("placed") != asked.jobs or status.get("unplaced") != 0:
        return f"{status.get('placed')} jobs are placed, and {status.get('unplaced')} are not"
    return "" if status.get("converged") else "it has not converged"


def change_pods(api: Api, namespace: str, names: Iterable[str]) -> None:
    for name in names:
        metadata = api.get(PODS, name, namespace)["metadata"]
        kept = {key: metadata[key] for key in ("name", "namespace", "uid")}
        api.patch(PODS, {"metadata": {**kept, "annotations": {"changed-at": str(time.monotonic_ns())}}})


def read(directory: Path) -> list[Line]:
    """The journals from their begin. What can't be read is a line that is being written, or whose writer was killed."""
    found = (line for path in swarm_journal.files([directory]) for line in swarm_journal.lines(path))
    return [line for line in found if isinstance(line, Line)]


def faults(told: list[Line], before: Judged, after: Lists, asked: Asked) -> list[str]:
    wrong = wrong_owners(told, after)
    for worker in before.lists.keys() & after.keys():
        own = [line for line in told if line.worker == worker]
        is_restarted = worker in asked.restarted
        found = wrong_changes(own, before.lists[worker], after[worker], before.at, is_restarted=is_restarted)
        wrong += [f"{worker}: {what}" for what in found]
    had = owner(before.lists)
    moved = [job for job, worker in owner(after).items() if had.get(job, worker) in after.keys() - {worker}]
    if asked.moves not in (-1, len(moved)):
        wrong.append(f"{asked.moves} jobs are said to have moved, and these did: {moved}")
    return wrong


def wrong_owners(told: list[Line], after: Lists) -> list[str]:
    """Where anybody else has a job than who is to have it, and he alone."""
    at = time.monotonic_ns() - LATE_NS
    have = swarm_journal.owners(swarm_journal.intervals(told), at)
    shall = {job: [worker] for job, worker in owner(after).items()}
    jobs = sorted(job for job in have.keys() | shall.keys() if have.get(job) != shall.get(job))
    return [f"{job} runs on {have.get(job, 'no worker')}, and is to run on {shall.get(job, 'none')}" for job in jobs]


def wrong_changes(
    own: Iterable[Line], old: Mapping[str, Any], new: Mapping[str, Any], since: int, *, is_restarted: bool
) -> list[str]:
    """Of a worker that there was before: only what its list made necessary may have been done to it."""
    own = list(own)
    known = {line.run for line in own if line.at <= since}
    runs = {line.run for line in own if line.at > since}
    touched = {line.job for line in own if line.at > since and line.event != "beat"}
    wrong = []
    if (set(old["jobs"]) == set(new["jobs"])) != (old["version"] == new["version"]):
        wrong.append(f"version {old['version']} of its list has become {new['version']}: {old['jobs']}, {new['jobs']}")
    if is_restarted:
        return wrong if runs - known else [*wrong, "it was not started again"]
    if runs - known:
        wrong.append("it was started again")
    kept = touched.intersection(old["jobs"], new["jobs"])
    return [*wrong, f"it had to go on with {sorted(kept)}"] if kept else wrong


def owner(lists: Lists) -> dict[str, str]:
    return {job: worker for worker, entry in lists.items() for job in entry["jobs"]}


# ------------------------------------------------------------------------------------------ signals


def strike(pod: str, number: int, moment: str) -> int:
    uid = Api(Credentials.load({})).get(PODS, pod, NAMESPACE.read_text())["metadata"]["uid"]
    if moment == "handover" and os.fork():
        return 0
    if moment == "handover":
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):  # who has asked is not kept waiting
            os.dup2(nowhere, stream)
        wait_for_an_end(time.monotonic() + HANDOVER_SECONDS)
    return send(uid, number)


def send(uid: str, number: int) -> int:
    at = time.monotonic_ns()
    hit = [process for process in Path("/proc").iterdir() if process.name.isdigit() and is_of(process, uid)]
    for process in hit:
        with suppress(ProcessLookupError):
            os.kill(int(process.name), number)
    STRUCK.write_text(json.dumps({"at": at, "uid": uid, "processes": len(hit)}))
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
        case ["settled", asked]:
            return settled(Asked(**json.loads(asked)))
        case ["strike", pod, name, *moment]:
            STRUCK.unlink(missing_ok=True)
            return strike(pod, signal.Signals[f"SIG{name}"], moment[0] if moment else "now")
        case ["thaw"]:
            return send(json.loads(STRUCK.read_text())["uid"], signal.SIGCONT)
        case ["struck", swarm]:
            return struck(JOURNALS / swarm)
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's fourth part: 27 streams on a pool of workers, each read by one of them, and few of them moved."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    Api,
    Put,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    CONFIG_KEY,
    Entry,
    parse_entries,
)
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import SWARMS
from ansible_collections.muster.coordination.tests.support import swarm_journal
from demo.stage import Stage, heading
from muster.table import table

Object = dict[str, Any]
Lists = Mapping[str, Entry]  # by worker
NAMESPACE = "swarm-operator"  # the role's own
SWARM, WORKERS, CONFIG = "streams", "swarm-worker", "swarm-worker-config"
WANTED = Path(__file__).with_name("swarm-workers")
SHOWN = 4  # jobs of a list that are named


class Swarm(Stage):
    """The acts, in the namespace where playbooks/site.yml has put the operator."""

    def __init__(self, api: Api, timeout: float) -> None:
        super().__init__(NAMESPACE, timeout)
        self._api = api
        self._told: list[tuple[float, Lists]] = []  # the lists at each change, and when it was seen
        self._news = threading.Condition()

    def run(self) -> None:
        heading("27 streams, of which each has to be read by exactly one worker: an operator says which")
        where = ("-k", f"{WANTED.parent.name}/{WANTED.name}")
        threading.Thread(target=self._follow, daemon=True).start()
        try:
            self.kubectl("apply", *where)
            self._until_converged(2)
            print(f"\n{self._picture()}")
            self._scale()
            self._lose_a_worker()
            self._judge()
        finally:
            self.kubectl_quietly("delete", *where, "--ignore-not-found", f"--timeout={self.timeout:.0f}s")
            self.kubectl_quietly("delete", "configmap", CONFIG, "--ignore-not-found")

    # ------------------------------------------------------------------------------------------ the acts

    def _scale(self) -> None:
        heading("A third worker: it gets its share, and no job moves that need not")
        before, runs = self._lists(), self._pods()
        self.kubectl("scale", f"statefulset/{WORKERS}", "--replicas=3")
        swarm = self._until_converged(3)
        moved = swarm["status"]["rebalance"]
        print(f"\n{self._picture()}\n")
        for old, new, jobs in moves(before, self._lists()):
            print(f"  {old} → {new}   {len(jobs)} jobs: {some(jobs)}")
        print(f"  {moved['moves']} of {swarm['status']['jobs']} moved; fewer than {moved['leastMoves']} can't be.")
        if restarted(runs, self._pods()):
            raise MusterError("a worker was restarted that could have been told: this is a bug")

    def _lose_a_worker(self) -> None:
        heading("A worker is killed (kill -9): it comes back, and has its jobs; nobody else notices")
        before, runs = self._lists(), self._pods()
        victim = f"{WORKERS}-1"
        with self.killed(runs[victim]):
            self._until(f"{victim} was started again", lambda: self._is_back(victim, runs))
            print(f"  {time.monotonic() - self.acted:7.2f} s  {victim} was started again", flush=True)
            self._until("all run what they are to run", lambda: self._has_converged(3))
        print(f"\n{self._picture()}\n")
        if self._lists() != before:
            raise MusterError(f"the lists were {before}, and are {self._lists()}: this is a bug")
        print(f"  {victim} runs the {len(before[victim].jobs)} jobs of its list again; no list has changed.")

    def _judge(self) -> None:
        """Of what the workers have written down themselves."""
        with tempfile.TemporaryDirectory() as directory:
            for worker in self._pods():
                written = self.kubectl_quietly("exec", worker, "--", "cat", "/journal/jobs")
                (Path(directory) / worker).write_text(f"{written}\n")
            report = swarm_journal.judge([Path(directory)])
        if report["overlaps"]:
            raise MusterError(f"jobs ran on two workers: {report['overlapping'][:3]}: this is a bug")
        print(f"  The workers' own journals, {report['lines']:,} lines: no job was on two of them at any time.")

    # ------------------------------------------------------------------------------------------ what is seen

    def _picture(self) -> str:
        pods, lists = self._pods(), self._lists()
        standing = {each["name"]: each for each in self._swarm()["status"]["pool"]}
        rows = [
            (
                worker,
                pod["status"].get("phase"),
                sum(each["restartCount"] for each in pod["status"].get("containerStatuses", [])),
                "█" * len(lists[worker].jobs) + f" {len(lists[worker].jobs)}" if worker in lists else None,
                lists[worker].version if worker in lists else None,
                standing.get(worker, {}).get("state"),
            )
            for worker, pod in pods.items()
        ]
        return table(("WORKER", "STATUS", "RESTARTS", "JOBS", "VERSION", "STATE"), rows, indent="  ")

    def _swarm(self) -> Object:
        return self._api.get(SWARMS, SWARM, self.namespace)

    def _pods(self) -> dict[str, Object]:
        found = self._api.list(PODS, self.namespace, label_selector=f"{WORKERS}=true").items
        return {pod["metadata"]["name"]: pod for pod in sorted(found, key=lambda pod: str(pod["metadata"]["name"]))}

    def _lists(self) -> Lists:
        return lists_of(self._api.get(CONFIGMAPS, CONFIG, self.namespace))

    def _until_converged(self, workers: int) -> Object:
        """So many workers, each of which runs what it is to run; says what was written on the way."""
        self._until(f"{workers} workers run what they are to run", lambda: self._has_converged(workers))
        now = time.monotonic()
        with self._news:
            told, self._told = self._told, self._told[-1:]
        for (_at, before), (at, after) in pairwise(told):
            for line in changes(before, after):
                print(f"  {at - self.acted:7.2f} s  {line}", flush=True)
        print(f"  {now - self.acted:7.2f} s  {workers} workers run their lists, and nothing else", flush=True)
        return self._swarm()

    def _has_converged(self, workers: int) -> bool:
        status = self._swarm().get("status") or {}
        members = [each for each in status.get("pool", []) if each["state"] == "Converged"]
        return bool(status.get("converged")) and len(members) == status["workers"] == workers

    def _is_back(self, worker: str, before: Mapping[str, Object]) -> bool:
        now = self._pods()
        return worker in restarted(before, now) and ready(now[worker])

    def _until(self, what: str, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self.timeout
        while not true():
            if time.monotonic() > deadline:
                raise TimedOut(f"waited {self.timeout:g} s until {what}")
            time.sleep(0.1)

    def _follow(self) -> None:
        """Keep each state of the lists that the workers read."""
        self._told.append((time.monotonic(), {}))
        for change in self._api.follow(CONFIGMAPS, self.namespace, name=CONFIG):
            now = time.monotonic()
            found = change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put) else []
            with self._news:
                self._told += [(now, lists_of(each)) for each in found]


def lists_of(configmap: Object) -> Lists:
    text = (configmap.get("data") or {}).get(CONFIG_KEY, "")
    return parse_entries(parse_yaml(text, CONFIG))[0]


def changes(before: Lists, after: Lists) -> list[str]:
    """What one write took from workers and gave to others."""
    lines = []
    for worker in sorted({*before, *after}):
        old, new = (set(lists[worker].jobs) if worker in lists else set() for lists in (before, after))
        if old - new:
            lines.append(f"{worker} has to let go {len(old - new)} jobs, and keeps {len(old & new)}")
        if new - old:
            lines.append(f"{worker} gets {len(new - old)} jobs")
    return lines


def moves(before: Lists, after: Lists) -> list[tuple[str, str, list[str]]]:
    """From, to, and which."""
    owner = {job: worker for worker, entry in before.items() for job in entry.jobs}
    found: dict[tuple[str, str], list[str]] = {}
    for worker, entry in after.items():
        for job in entry.jobs:
            if owner.get(job, worker) != worker:
                found.setdefault((owner[job], worker), []).append(job)
    return [(old, new, jobs) for (old, new), jobs in sorted(found.items())]


def some(jobs: Sequence[str]) -> str:
    return ", ".join(jobs[:SHOWN]) + (", …" if len(jobs) > SHOWN else "")


def restarted(before: Mapping[str, Object], after: Mapping[str, Object]) -> set[str]:
    """Workers of before whose process is another one now."""
    return {name for name, pod in before.items() if name not in after or process(pod) != process(after[name])}


def process(pod: Object) -> tuple[str, int]:
    states = pod["status"].get("containerStatuses") or [{"restartCount": 0}]
    return pod["metadata"]["uid"], states[0]["restartCount"]


def ready(pod: Object) -> bool:
    return all(each["ready"] for each in pod["status"].get("containerStatuses", []))

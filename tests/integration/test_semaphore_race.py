# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everybody at once at one ConfigMap of a real API server; every revision is recorded and judged.

MUSTER_SOAK_SECONDS (8) is how long they race, MUSTER_SOAK_WRITERS (36) how many of our holders there are.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS, Api, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support import claimer, old_distributor
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab, Recorder, until

SECONDS = float(os.environ.get("MUSTER_SOAK_SECONDS", "8"))
WRITERS = int(os.environ.get("MUSTER_SOAK_WRITERS", "36"))
PROCESSES = 3

pytestmark = pytest.mark.integration


class Race:
    """All that run until the end, and what they tell."""

    def __init__(self, lab: Lab, kubeconfig: str) -> None:
        self.lab, self.kubeconfig = lab, kubeconfig
        self.told: dict[str, list] = {"granted": [], "lost": [], "timed out": [], "failed": []}
        self.end = time.monotonic() + SECONDS
        self.dead: set[tuple[str, str | None]] = set()
        self.counts: Counter[str] = Counter()
        self._threads: list[threading.Thread] = []
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, run, *args) -> None:
        def guarded() -> None:
            try:
                run(*args)
            except Exception as error:
                self.told["failed"].append(f"{run.__name__}{args}: {type(error).__name__}: {error}")

        self._threads.append(threading.Thread(target=guarded, daemon=True))
        self._threads[-1].start()

    def start_process(self, kind: str, names: list[str]) -> None:
        holders = [f"{name}={self.lab.pod(name)}" for name in names]
        seconds = str(self.end - time.monotonic())
        command = [sys.executable, claimer.__file__, self.kubeconfig, self.lab.namespace, seconds, kind, *holders]
        self._processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(SECONDS + 60)
            assert not thread.is_alive()
        for process in self._processes:
            out, _ = process.communicate(timeout=60)
            for key, values in json.loads(out).items():
                self.told[key] += values
        self.told["granted"] = [tuple(entry) for entry in self.told["granted"]]

    # ------------------------------------------------------------------------------------------ who races

    def claims(self, name: str, uid: str, wait: bool) -> None:
        claimer.claims(Api(self.lab.api.credentials), self.lab.namespace, name, uid, self.end, wait, self.told)

    def dies_with_what_it_has(self, name: str) -> None:
        """Claims, and then its Pod is deleted and made again under the same name."""
        lab = self.lab
        while time.monotonic() < self.end:
            uid = lab.pod(name)
            try:
                claim = verbs.claim(lab.api, name=lab.name, namespace=lab.namespace, holder=name)
                self.told["granted"].append((claim["fence"], name, claim["resource"]))
                time.sleep(random.uniform(0, 0.1))
                grant = lab.seen().grants.get(name)
                if grant is None or grant.fence != claim["fence"]:
                    self.told["lost"].append(f"{name} had fence {claim['fence']} while it lived, and then {grant}")
            except TimedOut as error:
                self.told["timed out"].append(str(error))
            except MusterError as error:
                if "give wait=true" not in str(error):
                    raise
                time.sleep(0.05)
            self.dead.add((name, uid))
            lab.kill(name)
            self.counts["deaths"] += 1

    def old_distributor(self, name: str) -> None:
        """Runs far more often than each minute, and its host is recycled now and then."""
        lab = self.lab
        lab.pod(name)
        while time.monotonic() < self.end:
            try:
                self.counts["old writes"] += old_distributor.run_once(
                    lab.api, CONFIGMAPS, PODS, lab.name, lab.namespace, name
                )
            except ApiError as error:
                assert error.status == 409, error
                continue
            time.sleep(random.uniform(0.05, 0.3))
            if random.random() < 0.3:
                self.dead.add((name, None))
                lab.kill(name)
                lab.pod(name)

    def person(self) -> None:
        while time.monotonic() < self.end:
            time.sleep(random.uniform(0.2, 0.6))
            capacity = {"gpu": random.randint(1, 4), "tpu": random.randint(0, 3)}
            self.lab.annotate(**{engine.CAPACITY: json.dumps(capacity, indent=1)})
            self.counts["edits"] += 1


def test_every_revision_of_a_race_is_legal_and_no_grant_is_lost(
    api: Api, namespace: str, kubeconfig: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(api, namespace)
    lab.semaphore({"gpu": 3, "tpu": 2}, foreign="kept")
    recorder = Recorder(api, lab.name, namespace)
    race = Race(lab, str(Path(kubeconfig).resolve()))
    recorder.history.dead = race.dead
    for number in range(2):
        race.start(race.old_distributor, f"old-{number}")
    until(lambda: race.counts["old writes"] or race.told["failed"], "the old Distributors to come first")
    each = WRITERS // 3
    for number in range(each):  # in this process, each with a watch
        name = f"waits-{number}"
        race.start(race.claims, name, lab.pod(name), True)
    for number in range(PROCESSES):
        kind = "wait" if number == 0 else "nowait"
        race.start_process(kind, [f"{kind}-{number}-{n}" for n in range(each // PROCESSES + 1)])
    for number in range(WRITERS - each - PROCESSES * (each // PROCESSES + 1)):
        race.start(race.dies_with_what_it_has, f"dies-{number}")
    race.start(race.person)
    race.finish()
    history = recorder.finish()

    with capsys.disabled():
        granted = Counter(holder.rstrip("0123456789-") for _fence, holder, _resource in race.told["granted"])
        print(
            f"\n{WRITERS} writers, {SECONDS:g} s: {history.revisions} revisions, {len(history.grants)} grants, "
            f"{dict(granted)}, {dict(race.counts)}, {len(race.told['timed out'])} timed out",
            end=" ",
        )
    assert recorder.illegal == []
    assert race.told["failed"] == []
    assert race.told["lost"] == []
    ours = {(fence, *what) for fence, what in history.grants.items() if not what[0].startswith("old")}
    assert len(race.told["granted"]) == len(set(race.told["granted"]))
    assert set(race.told["granted"]) == ours
    assert all(granted[kind] for kind in ("waits", "wait", "nowait", "dies")), "somebody never had a turn"
    assert race.counts["old writes"] and race.counts["deaths"] and race.counts["edits"]
    assert lab.annotations()["foreign"] == "kept"

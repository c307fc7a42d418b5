# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long evidence that no job runs on two workers of a Swarm: very many deaths of its operator, at every kind of write.

    python -m bench.swarm_storm                          both modes, 500 deaths each; writes docs/proof/swarm-storm.*
    python -m bench.swarm_storm --kills 30 --mode shard --out build     a short look
    python -m bench.swarm_storm --append --kills 500     what was seen is added to the report

Three replicas of `muster swarm-operator` look after three Swarms: workers that report, of a StatefulSet that people
scale; workers that don't, of one that the operator scales; and a Deployment whose Pods are deleted, some of them by
force. Jobs are edited all the time, ConfigMaps are deleted, workers crash. By turns a replica dies right before, or
right after, each kind of write to the API server; how the others learn of it goes by turns, too. Between the deaths
replicas are frozen beyond their Lease, one of them with a configuration about to be written; the API server is killed,
and its history compacted; a proxy loses answers, and gives wrong ones.

A round is so many deaths in a namespace of its own. After each few people rest until all has converged, and what is
said then is compared with what the workers do; at the end all that they ever did is judged (tests/support/swarm_lab.py,
tests/support/authority_oracle.py). At first bugs are planted in the operator, to see that the same storm finds them.
TERM or Ctrl-C ends the round early, and it is judged all the same.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES
from ansible_collections.muster.coordination.tests.support.control_plane import ControlPlane
from ansible_collections.muster.coordination.tests.support.nursery import insist
from ansible_collections.muster.coordination.tests.support.planted_controllers import (
    COMPACT,
    FREEZE,
    KILL_SERVER,
    MODES,
)
from ansible_collections.muster.coordination.tests.support.planted_swarms import BUGS
from ansible_collections.muster.coordination.tests.support.swarm_storm import LATE_WRITE, Storm, StormLab
from ansible_collections.muster.coordination.tests.support.vm_lab import make_namespace
from bench import swarm_storm_report as report
from bench.holders import api_of
from bench.machine import CHECKOUT, facts, say

OUT = CHECKOUT / "docs" / "proof"
ROUND = 60  # deaths
EVENT_EVERY, REST_EVERY = 7, 10  # deaths
EVENTS = (FREEZE, LATE_WRITE, KILL_SERVER, FREEZE, LATE_WRITE, COMPACT)
PLANTED_KILLS, PLANTED_ROUNDS = 12, 3  # deaths with a planted bug, and how often that is tried
PLANTED_PATIENCE = 20.0  # seconds in which what a bug prevents is waited for
PROGRESS_SECONDS = 15.0


class Bench:
    """A control plane of its own, and labs in it, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plane = ControlPlane(directory, "storm")
        self.plane("up")
        self.api = api_of(self.plane.kubeconfig)
        self.enough = threading.Event()
        self._numbers = itertools.count()

    def close(self) -> None:
        self.api.close()
        self.plane("down")

    def round(self, mode: str, kills: int, seed: int) -> dict[str, Any]:
        """So many deaths; what was seen, and all that is wrong."""
        lab = self._lab(mode, seed=seed)
        storm = Storm(lab, seed, plane=self.plane)
        storm.enough = self.enough
        self._run(storm, mode, kills, events=EVENTS, events_every=EVENT_EVERY, rest_every=REST_EVERY)
        self._end(lab)
        return {
            "mode": mode,
            "seed": seed,
            "kills": storm.kills,
            "seconds": round(storm.seconds, 1),
            "violations": storm.violations,
            "totals": storm.totals or {"jobs begun": 0},
            "points": dict(storm.points),
            "events": dict(storm.events),
        }

    def planted(self, name: str, seed: int) -> dict[str, Any]:
        """The same storm with this bug in the operator; whether, and by what, it was found."""
        bug, kills, told = BUGS[name], 0, ""
        for turn in range(PLANTED_ROUNDS):
            lab = self._lab("leader", seed=seed + turn, plant=name, patience=PLANTED_PATIENCE)
            storm = Storm(lab, seed + turn, never=PLANTED_PATIENCE)
            storm.enough = self.enough
            events = (FREEZE, LATE_WRITE)
            self._run(storm, name, PLANTED_KILLS, events=events, events_every=4, rest_every=PLANTED_KILLS // 2)
            self._end(lab)
            kills += storm.kills
            told = next((wrong for wrong in storm.violations if bug.found in wrong), "")
            if told or self.enough.is_set():
                break
        return {"name": name, "breaks": bug.breaks, "kills": kills, "found": told.partition("\n")[0]}

    def _run(self, storm: Storm, what: str, kills: int, **options: Any) -> None:
        watching = threading.Event()
        threading.Thread(target=_tell, args=(what, storm, watching), daemon=True).start()
        try:
            storm.run(kills, **options)
        except Exception:
            storm.violations.append(f"the round failed:\n{traceback.format_exc()}")
        finally:
            watching.set()

    def _lab(self, mode: str, **options: Any) -> StormLab:
        directory = self.directory / f"lab-{next(self._numbers)}"
        directory.mkdir()
        namespace = insist(lambda: make_namespace(self.api, f"storm-{mode}"))
        return StormLab(self.api, namespace, directory, mode, **options)

    def _end(self, lab: StormLab) -> None:
        lab.close()
        insist(lambda: self.api.delete(NAMESPACES, lab.namespace))


def _tell(what: str, storm: Storm, ended: threading.Event) -> None:
    began = time.monotonic()
    while not ended.wait(PROGRESS_SECONDS):
        minutes = (time.monotonic() - began) / 60
        say(f"{what}: {storm.kills} deaths in {minutes:.1f} min, {len(storm.violations)} violations")


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.swarm_storm", description=__doc__, formatter_class=form)
    parser.add_argument("--kills", type=int, default=500, help="of each mode (default: 500)")
    parser.add_argument("--minutes", type=float, default=60, help="at most so long for each mode (default: 60)")
    parser.add_argument("--mode", choices=(*MODES, "both"), default="both", help="(default: both)")
    parser.add_argument("--append", action="store_true", help="add to the report that is there, do not begin a new one")
    parser.add_argument("--plant", choices=("all", "none", *BUGS), default="all", help="which bugs (default: all)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIRECTORY", help="where to write (docs/proof)")
    parser.add_argument("--keep", action="store_true", help="leave what the processes wrote down")
    parser.add_argument("--seed", type=int, help="(default: another each time; it is in the report)")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    run: dict[str, Any] = {"machine": facts(), "rounds": [], "planted": []}
    before = report.read(args.out) if args.append else []
    directory = Path(tempfile.mkdtemp(prefix="muster-storm-"))
    say(f"seed {seed}; the processes' files are in {directory}")
    bench = Bench(directory)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: bench.enough.set())
    try:
        for name in {"all": BUGS, "none": ()}.get(args.plant, (args.plant,)):
            if not bench.enough.is_set():
                run["planted"].append(bench.planted(name, seed))
                say(f"planted: {name}: {run['planted'][-1]['found'] or 'NOT FOUND'}")
        for mode in MODES if args.mode == "both" else (args.mode,):
            deadline, killed = time.monotonic() + args.minutes * 60, 0
            for turn in itertools.count():
                if killed >= args.kills or time.monotonic() > deadline or bench.enough.is_set():
                    break
                found = bench.round(mode, min(ROUND, args.kills - killed), seed + turn)
                killed += found["kills"]
                run["rounds"].append(found)
                page = report.write(args.out, [*before, run])  # after each round: what there is stays
                say(f"{mode}: {killed} deaths, {len(found['violations'])} violations in this round; {page}")
                for violation in found["violations"]:
                    print(f"VIOLATION {mode}, seed {found['seed']}: {violation}", flush=True)
    finally:
        bench.close()
        if not args.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if report.failed(run) else 0


if __name__ == "__main__":
    sys.exit(main())

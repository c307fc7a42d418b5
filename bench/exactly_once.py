# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Long evidence that replicas of an operator make each machine once: very many deaths, at every kind of write by turns.

    python -m bench.exactly_once                      both modes, 1,000 kills each; writes docs/proof/exactly-once.*
    python -m bench.exactly_once --kills 60 --mode shard --out build    a short look
    python -m bench.exactly_once --append --kills 500                   what was seen is added to the report

Three replicas of `muster vm-operator` look after VirtualMachines that are created, resized, deleted and made again
under the same names all the time, at `muster private-cloud` with its faults switched on. By turns one of them dies
right before, or right after, each kind of write to the API server and to the cloud; how the others learn of it goes by
turns, too. Between the deaths replicas are frozen beyond their Lease, one of them with a create in flight; the cloud
and the API server are killed; the API server's history is compacted; a rival writes into the status all the time.

A round is so many kills in a namespace of its own; at its end all must settle, and everything is judged (see
tests/support/authority_oracle.py). TERM or Ctrl-C ends the round early, and it is judged all the same.
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
from ansible_collections.muster.coordination.tests.support.planted_controllers import EVERYBODY, MODES, UNGUARDED
from ansible_collections.muster.coordination.tests.support.storm import PODS
from ansible_collections.muster.coordination.tests.support.vm_lab import Lab, make_namespace
from ansible_collections.muster.coordination.tests.support.vm_storm import Storm
from bench import exactly_once_report as report
from bench.holders import api_of
from bench.machine import CHECKOUT, facts, say

OUT = CHECKOUT / "docs" / "proof"
ROUND = 100  # kills
EVENT_EVERY = 7  # kills
PROGRESS_SECONDS = 15.0
OBJECTS = 60  # that are made with the guard switched off


class Bench:
    """A control plane of its own, and labs in it, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.plane = ControlPlane(directory, "once")
        self.plane("up")
        self.api = api_of(self.plane.kubeconfig)
        self.enough = threading.Event()
        self._numbers = itertools.count()

    def close(self) -> None:
        self.api.close()
        self.plane("down")

    def round(self, mode: str, kills: int, seed: int) -> dict[str, Any]:
        """So many kills; what was seen, and all that is wrong."""
        lab = self._lab(mode)
        storm = Storm(lab, seed, plane=self.plane)
        storm.enough = self.enough
        watching = threading.Event()
        threading.Thread(target=_tell, args=(mode, storm, watching), daemon=True).start()
        try:
            storm.run(kills, events_every=EVENT_EVERY)
        except Exception:
            storm.violations.append(f"the round failed:\n{traceback.format_exc()}")
        finally:
            watching.set()
            self._end(lab)
        return {
            "mode": mode,
            "seed": seed,
            "kills": storm.kills,
            "seconds": round(storm.seconds, 1),
            "objects": len(storm.creates),
            "creates": sum(storm.creates.values()),
            "most": max(storm.creates.values(), default=0),
            "refused_stale": storm.totals.get("refused_stale", 0),
            "replays": storm.totals.get("replays", 0),
            "violations": storm.violations,
            "points": dict(storm.points),
            "events": dict(storm.events),
        }

    def unguarded(self, mode: str) -> dict[str, Any]:
        """The same replicas without election, shards, fences and keys: how many machines each object gets."""
        lab = self._lab(mode, EVERYBODY)
        try:
            lab.cloud.switch(**UNGUARDED)
            for pod in PODS:
                lab.nursery.start(pod)
            for number in range(OBJECTS):
                lab.create(f"vm-{number}")
            lab.settle()
            creates = lab.cloud.counters()["creates"]
            return {"mode": mode, "objects": len(creates), "creates": sum(creates.values())}
        finally:
            self._end(lab)

    def _lab(self, mode: str, plant: str = "") -> Lab:
        directory = self.directory / f"lab-{next(self._numbers)}"
        directory.mkdir()
        namespace = insist(lambda: make_namespace(self.api, f"once-{mode}"))
        return Lab(self.api, self.plane.kubeconfig, namespace, directory, mode, plant=plant)

    def _end(self, lab: Lab) -> None:
        lab.close()
        insist(lambda: self.api.delete(NAMESPACES, lab.namespace))


def _tell(mode: str, storm: Storm, ended: threading.Event) -> None:
    began = time.monotonic()
    while not ended.wait(PROGRESS_SECONDS):
        minutes = (time.monotonic() - began) / 60
        say(f"{mode}: {storm.kills} kills in {minutes:.1f} min, {len(storm.violations)} violations")


def main(argv: Sequence[str] | None = None) -> int:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m bench.exactly_once", description=__doc__, formatter_class=form)
    parser.add_argument("--kills", type=int, default=1000, help="of each mode (default: 1,000)")
    parser.add_argument("--minutes", type=float, default=120, help="at most so long for each mode (default: 120)")
    parser.add_argument("--mode", choices=(*MODES, "both"), default="both", help="(default: both)")
    parser.add_argument("--append", action="store_true", help="add to the report that is there, do not begin a new one")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIRECTORY", help="where to write (docs/proof)")
    parser.add_argument("--keep", action="store_true", help="leave what the processes wrote down")
    parser.add_argument("--seed", type=int, help="(default: another each time; it is in the report)")
    args = parser.parse_args(argv)
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    run: dict[str, Any] = {"machine": facts(), "rounds": [], "unguarded": []}
    before = report.read(args.out) if args.append else []
    directory = Path(tempfile.mkdtemp(prefix="muster-once-"))
    say(f"seed {seed}; the processes' files are in {directory}")
    bench = Bench(directory)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: bench.enough.set())
    try:
        for mode in MODES if args.mode == "both" else (args.mode,):
            run["unguarded"].append(bench.unguarded(mode))
            deadline, killed = time.monotonic() + args.minutes * 60, 0
            for turn in itertools.count():
                if killed >= args.kills or time.monotonic() > deadline or bench.enough.is_set():
                    break
                found = bench.round(mode, min(ROUND, args.kills - killed), seed + turn)
                killed += found["kills"]
                run["rounds"].append(found)
                page = report.write(args.out, [*before, run])  # after each round: what there is stays
                say(f"{mode}: {killed} kills, {len(found['violations'])} violations in this round; {page}")
                for violation in found["violations"]:
                    print(f"VIOLATION {mode}, seed {found['seed']}: {violation}", flush=True)
    finally:
        bench.close()
        if not args.keep:
            shutil.rmtree(directory, ignore_errors=True)
    return 1 if report.failed(run) else 0


if __name__ == "__main__":
    sys.exit(main())

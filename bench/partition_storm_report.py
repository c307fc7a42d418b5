# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of bench/partition_storm.py: `soak-partitions.json` has every run, `soak-partitions.md` their sum.

python -m bench.partition_storm_report [DIRECTORY]      writes the page anew from the JSON
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import CHECKOUT, sentence
from bench.report import table

NAME = "soak-partitions"
SHOWN = 50  # so many violations are listed
Found = Mapping[str, Any]
KINDS = ("New", "InWorkerSplit", "InWorkerMerge", "InterWorkerMove")
HOW = """\
Four workers, two reconcilers, two assigners and a router, real processes at a real API server. Nine clients read,
write, delete and scan by the library (which lists when it was wrong, or watches) and through the router, while
Partitions are split, merged and moved at random, several at a time; some operations are deleted in the middle.
Meanwhile processes are killed and started again, or frozen, some beyond their Lease.

At every API revision that two watches saw, the effective view had no gap and no overlap, no epoch went back (of a
Partition, or of a key in the view), no range changed, and phases only advanced (P1, P2, P4, P8, P9). What every client
saw, with a last read of all keys, fits some order for each key (P3, P5, P6, P7): a judge of linearizability with tests
of its own (tests/unit/test_linearizability.py). When the faults had ended, every operation came to its end (P11), and
no claim, fence, superseded Partition or unwanted copy was left (P12). How, in full: `python -m bench.partition_storm
--help`. The same storm finds bugs that are planted in the processes: `--plant`."""


def failed(run: Found) -> bool:
    """Whether anything that must not be was seen, or nothing was proven."""
    rounds = run["rounds"]
    return not rounds or any(found["violations"] or not found["completed"] for found in rounds)


def read(out: Path) -> list[Found]:
    """The runs of the report that is there."""
    path = out / f"{NAME}.json"
    runs: list[Found] = json.loads(path.read_text())["runs"] if path.exists() else []
    return runs


def write(out: Path, runs: Sequence[Found]) -> Path:
    """Both files; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{NAME}.json").write_text(json.dumps({"runs": runs}, indent=1) + "\n")
    path = out / f"{NAME}.md"
    path.write_text(page(runs))
    return path


def page(runs: Sequence[Found]) -> str:
    """The report for people."""
    rounds = [found for run in runs for found in run["rounds"]]
    done, bad = sum(found["completed"] for found in rounds), sum(len(found["violations"]) for found in rounds)
    minutes = sum(found["seconds"] for found in rounds) / 60
    judged = sum(found["ops_judged"] for found in rounds)
    parts = [
        "# Partitions that split, merge and move under load",
        f"**{done:,} splits, merges and moves in {minutes:.0f} minutes of kills and freezes, {judged:,} operations of "
        f"clients judged, {bad} violations.**",
        HOW,
        "## Operations",
        _operations(rounds),
        "## Clients",
        _clients(rounds),
        "## Faults",
        _counts("fault", "faults", rounds),
    ]
    listed = [f"- VIOLATION, seed {found['seed']}: {wrong}" for found in rounds for wrong in found["violations"]]
    if listed:
        parts += ["## Violations", "\n".join(listed[:SHOWN])]
    return "\n\n".join([*parts, "## Rounds", _rounds(runs)]) + "\n"


def _sum(rounds: Sequence[Found], key: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for found in rounds:
        total.update(found[key])
    return total


def _operations(rounds: Sequence[Found]) -> str:
    total = _sum(rounds, "operations")
    rows = []
    for kind in KINDS:
        taken = [found["operation_seconds"][kind] for found in rounds if kind in found["operation_seconds"]]
        times = (
            "-" if not taken else " / ".join(f"{max(each[share] for each in taken):.1f} s" for share in ("p50", "p99"))
        )
        others = sum(count for name, count in total.items() if name.startswith(f"{kind} "))
        done, undone = total[f"{kind} Completed"], total[f"{kind} Aborted"]
        rows.append([kind, f"{done:,}", f"{undone:,}", f"{others - done - undone}", times])
    head = ["type", "completed", "aborted", "neither", "from asked for to its end, p50 / p99 of the slowest round"]
    return table(head, rows)


def _clients(rounds: Sequence[Found]) -> str:
    total = _sum(rounds, "clients")
    rows = [
        [kind, *(f"{total[f'{kind} {outcome}']:,}" for outcome in ("ok", "unserved", "unknown"))]
        for kind in ("put", "delete", "get", "scan")
    ]
    longest = max(found["longest_seconds"] for found in rounds)
    head = ["", "done", "not served within the deadline", "outcome unknown"]
    return f"{table(head, rows)}\n\nThe longest operation of a client took {longest:.1f} s."


def _counts(what: str, key: str, rounds: Sequence[Found]) -> str:
    return table([what, "times"], [[name, f"{count:,}"] for name, count in sorted(_sum(rounds, key).items())])


def _rounds(runs: Sequence[Found]) -> str:
    rows = [
        [
            run["machine"]["at"],
            run["machine"]["commit"],
            f"{found['seconds'] / 60:.1f}",
            found["followers"],
            found["completed"],
            f"{found['revisions']:,}",
            f"{found['ops_judged']:,}",
            f"{found['calm_seconds']:.1f} s",
            len(found["violations"]),
            found["seed"],
        ]
        for run in runs
        for found in run["rounds"]
    ]
    head = ["begun", "commit", "minutes", "followers", "operations", "revisions judged", "of clients judged"]
    machine = runs[-1]["machine"]
    load = f"Load before {machine['load_1_min']}, at the end {machine.get('load_1_min_after', '-')}"
    text = table([*head, "calm after", "violations", "seed"], rows)
    return f"On {sentence(machine)}. {load}.\n\n{text}"


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "docs" / "proof"
    print(write(where, read(where)))

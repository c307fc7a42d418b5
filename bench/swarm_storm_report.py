# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of bench/swarm_storm.py: `swarm-storm.json` has every run, `swarm-storm.md` what they add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import sentence
from bench.report import table

NAME = "swarm-storm"
SHOWN = 50  # so many violations are listed
Found = Mapping[str, Any]
HOW = """\
Three replicas of the Swarm operator, real processes at a real API server, place jobs on the Pods of real StatefulSets
and Deployments, while jobs are edited, pools are scaled, Pods and ConfigMaps deleted, and workers crash. The Pods'
kubelet and their workers are the harness's: each worker keeps a journal of when it ran which job. By turns a replica
dies right before or right after each kind of write; between the deaths replicas are frozen beyond their Lease, one of
them with a configuration about to be written; answers of the API server are lost or wrong, it is killed, its history is
compacted.

Judges that share no code with the product compare, on one clock: no job ran on two workers (W1); no ConfigMap ever
shows a job to two, and a version grows when, and only when, its list changes (W2); nobody is restarted of whom it was
known that he had read the newest list (W3); while a Swarm is said to have converged, each job runs on the worker that
has it (W4); no two replicas had authority at one time, and a late write of a frozen one is refused (R2, R3); in the end
all converges (R7). How, in full: `python -m bench.swarm_storm --help`; again: `make soak`."""
PLANTED = """\
## What the same storm finds

Bugs that were planted in the operator's processes, and the first violation that told of each."""


def failed(run: Found) -> bool:
    """Whether anything that must not be was seen, or nothing was proven."""
    rounds = run["rounds"]
    clean = all(not found["violations"] and found["totals"]["jobs begun"] > 0 for found in rounds)
    return not (rounds and clean and all(found["found"] for found in run["planted"]))


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
    modes = sorted({found["mode"] for found in rounds})
    kills, bad = sum(found["kills"] for found in rounds), sum(len(found["violations"]) for found in rounds)
    begun = _total(rounds, "jobs begun")
    parts = [
        "# No job on two workers: an operator that dies at every kind of write",
        f"**{kills:,} deaths, {bad} violations; jobs were begun {begun:,} times, and none ran on two workers.**"
        if not any(violation.startswith("W1") for found in rounds for violation in found["violations"])
        else f"**{kills:,} deaths, {bad} violations: jobs ran on two workers.**",
        HOW,
        _figures(rounds, modes),
    ]
    planted = [found for run in runs for found in run["planted"]]
    if planted:
        parts += [PLANTED, _planted(planted)]
    parts += ["## Where they died", _counts("right before or after", "points", rounds, modes)]
    parts += ["## What else happened", _counts("what", "events", rounds, modes)]
    listed = [f"- VIOLATION {found['mode']}: {wrong}" for found in rounds for wrong in found["violations"]]
    if listed:
        parts.append("\n".join(listed[:SHOWN]))
    return "\n\n".join([*parts, "## Runs", _runs(runs)]) + "\n"


def _total(founds: Iterable[Found], key: str) -> int:
    return sum(found["totals"].get(key, 0) for found in founds)


def _figures(rounds: Sequence[Found], modes: Sequence[str]) -> str:
    keys = ("jobs run", "jobs begun", "workers' processes", "evictions", "configurations")
    rows = []
    for mode in modes:
        own = [found for found in rounds if found["mode"] == mode]
        row = [mode, f"{sum(found['kills'] for found in own):,}", *(f"{_total(own, key):,}" for key in keys)]
        row += [f"{sum(found['events'].get('rests', 0) for found in own):,}"]
        row += [f"{sum(len(found['violations']) for found in own)}"]
        rows.append([*row, f"{sum(found['seconds'] for found in own) / 60:.0f}"])
    head = [
        "mode",
        "deaths",
        "jobs",
        "begun, all together",
        "processes of workers",
        "evictions",
        "configurations written",
    ]
    return table([*head, "seen to converge", "violations", "minutes"], rows)


def _planted(founds: Sequence[Found]) -> str:
    rows = [[each["name"], each["breaks"], each["kills"], (each["found"] or "NOT FOUND")[:160]] for each in founds]
    return table(["bug", "breaks", "deaths", "told by"], rows)


def _counts(what: str, key: str, rounds: Sequence[Found], modes: Sequence[str]) -> str:
    counts: dict[str, Counter[str]] = {mode: Counter() for mode in modes}
    for found in rounds:
        counts[found["mode"]].update(found[key])
    names = sorted({name for counted in counts.values() for name in counted})
    return table([what, *modes], [[name, *(f"{counts[mode][name]:,}" for mode in modes)] for name in names])


def _runs(runs: Sequence[Found]) -> str:
    rows = [
        [
            run["machine"]["at"],
            run["machine"]["commit"],
            found["mode"],
            found["kills"],
            len(found["violations"]),
            f"{found['seconds'] / 60:.1f}",
            found["seed"],
        ]
        for run in runs
        for found in run["rounds"]
    ]
    head = ["begun", "commit", "mode", "deaths", "violations", "minutes", "seed"]
    return f"On {sentence(runs[-1]['machine'])}.\n\n{table(head, rows)}"

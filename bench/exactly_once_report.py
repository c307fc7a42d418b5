# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of bench/exactly_once.py: `exactly-once.json` has every run, `exactly-once.md` what they add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import sentence

NAME = "exactly-once"
SHOWN = 50  # so many violations of a mode are listed
Found = Mapping[str, Any]
HOW = """\
Three replicas of the example operator, real processes at a real API server, look after VirtualMachines that come,
change, go and come again under the same names; the private cloud's faults are all on. By turns a replica dies right
before or right after each kind of write. A judge that shares no code with the product compares, on one clock, who had
authority when (R2), and what the cloud made and has (R1, R5, R6); late creates of frozen replicas have to be refused
(R3), and in the end everything has to settle (R4, R7). How, in full: `python -m bench.exactly_once --help`; again:
`make soak`."""
UNGUARDED = """\
The same replicas with the guard switched off: all act on all, the cloud looks at no fence, key and name."""


def failed(run: Found) -> bool:
    """Whether anything that must not be was seen, or nothing was proven."""
    rounds, unguarded = run["rounds"], run["unguarded"]
    sees = all(found["creates"] > found["objects"] for found in unguarded)
    clean = all(found["creates"] == found["objects"] > 0 and not found["violations"] for found in rounds)
    return not (rounds and clean and sees)


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
    parts = [
        "# Each machine once: replicas of an operator that die at every kind of write",
        f"**{kills:,} deaths, {bad} violations, creates / objects = {_ratio(rounds)}.**",
        HOW,
        _figures(rounds, modes),
        UNGUARDED,
        _unguarded([found for run in runs for found in run["unguarded"]]),
        "## Where they died",
        _points(rounds, modes),
        "## What else happened",
        _events(rounds, modes),
    ]
    listed = [f"- VIOLATION {found['mode']}: {wrong}" for found in rounds for wrong in found["violations"]]
    if listed:
        parts.append("\n".join(listed[:SHOWN]))
    return "\n\n".join([*parts, "## Runs", _runs(runs)]) + "\n"


def _ratio(founds: Sequence[Found]) -> str:
    objects = sum(found["objects"] for found in founds)
    return f"{sum(found['creates'] for found in founds) / objects:.3f}" if objects else "none"


def _figures(rounds: Sequence[Found], modes: Sequence[str]) -> str:
    head = ["mode", "deaths", "objects that got a machine", "machines made", "creates / objects", "most for one object"]
    head += ["late writes refused", "repeated creates answered with the first", "violations", "minutes"]
    rows = []
    for mode in modes:
        own = [found for found in rounds if found["mode"] == mode]
        total = {
            key: sum(found[key] for found in own)
            for key in ("kills", "objects", "creates", "refused_stale", "replays", "seconds")
        }
        row = [mode, f"{total['kills']:,}", f"{total['objects']:,}", f"{total['creates']:,}", _ratio(own)]
        row += [max(found["most"] for found in own), total["refused_stale"], total["replays"]]
        rows.append([*row, sum(len(found["violations"]) for found in own), f"{total['seconds'] / 60:.0f}"])
    return _table(head, rows)


def _unguarded(founds: Sequence[Found]) -> str:
    rows = [[each["mode"], each["objects"], each["creates"], _ratio([each])] for each in founds]
    return _table(["mode", "objects", "machines made", "creates / objects"], rows)


def _points(rounds: Sequence[Found], modes: Sequence[str]) -> str:
    return _counts("right before or after", "points", rounds, modes)


def _events(rounds: Sequence[Found], modes: Sequence[str]) -> str:
    return _counts("what", "events", rounds, modes)


def _counts(what: str, key: str, rounds: Sequence[Found], modes: Sequence[str]) -> str:
    counts: dict[str, Counter[str]] = {mode: Counter() for mode in modes}
    for found in rounds:
        counts[found["mode"]].update(found[key])
    names = sorted({name for counted in counts.values() for name in counted})
    return _table([what, *modes], [[name, *(f"{counts[mode][name]:,}" for mode in modes)] for name in names])


def _runs(runs: Sequence[Found]) -> str:
    rows = [
        [*_begun(run), found["mode"], found["kills"], len(found["violations"]), _minutes(found), found["seed"]]
        for run in runs
        for found in run["rounds"]
    ]
    head = ["begun", "commit", "mode", "deaths", "violations", "minutes", "seed"]
    return f"On {sentence(runs[-1]['machine'])}.\n\n{_table(head, rows)}"


def _begun(run: Found) -> tuple[str, str]:
    return run["machine"]["at"], run["machine"]["commit"]


def _minutes(found: Found) -> str:
    return f"{found['seconds'] / 60:.1f}"


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

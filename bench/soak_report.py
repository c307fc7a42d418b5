# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of the soaks: `soak-semaphore.json` has every run, `soak-semaphore.md` what they add up to."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.machine import sentence

NAME = "soak-semaphore"
SHOWN = 50  # so many violations of an engine are listed
Found = Mapping[str, Any]
HOW = """\
Holders in real processes take turn after turn on small semaphores, each process through a network of its own that
fails; processes are killed and come back as new Pods of the same names, or are stopped for a while; the API server is
killed. Every revision is judged by an oracle that shares no code with the product; revisions which nobody could see
while the API server was away are read back from its history. What the holders themselves believed is compared on one
clock: at no moment more of them than permits, every grant one that the oracle saw, fences strictly growing. How, in
full: `python -m bench.soak --help`; again: `make soak`."""
JUDGED = """\
That the judges find what is wrong is seen by planting bugs in the holders (`--plant`): a grant without the capacity
check, a holder with an old fence, one that works on after its release. `make test` plants them all."""


def wrong(found: Found) -> list[str]:
    """All that must not be, in words."""
    unserved = [f"{holder} was not served after the faults" for holder in found["unserved_after_the_faults"]]
    return [*found["violations"], *unserved]


def failed(found: Found) -> bool:
    """Whether anything that must not be was seen, or nothing was proven."""
    return bool(wrong(found) or found["over_grants"] or not found["grants"])


def write(out: Path, run: Found, *, append: bool) -> Path:
    """Write the report with this run in it, or only with it; several soaks may append at one time. Returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    data, page_path = out / f"{NAME}.json", out / f"{NAME}.md"
    with data.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = json.loads(file.read() or '{"runs": []}') if append else {"runs": []}
        report = {"runs": [*before["runs"], run]}
        file.seek(0)
        file.truncate()
        file.write(json.dumps(report, indent=1) + "\n")
        page_path.write_text(page(report["runs"]))
    return page_path


def total(founds: Sequence[Found]) -> dict[str, Any]:
    """Several soaks of one engine as one."""
    faults: Counter[str] = Counter()
    for found in founds:
        faults.update(found["faults"])
    sums = ("grants", "grants_believed", "seconds", "revisions_judged", "revisions_read_back")
    lists = ("violations", "unserved_after_the_faults")
    return {
        **founds[-1],
        **{key: sum(found[key] for found in founds) for key in sums},
        **{key: [one for found in founds for one in found[key]] for key in lists},
        "over_grants": max(found["over_grants"] for found in founds),
        "faults": dict(faults),
    }


def page(runs: Sequence[Found]) -> str:
    """The report for people."""
    engines: dict[str, list[Found]] = {}
    for run in runs:
        for found in run["engines"]:
            engines.setdefault(found["engine"], []).append(found)
    totals = {engine: total(founds) for engine, founds in engines.items()}
    grants = sum(found["grants"] for found in totals.values())
    bad = sum(len(wrong(found)) for found in totals.values())
    parts = [
        "# Soak of the semaphore: every grant under faults",
        f"**{grants:,} grants, {bad} violations.**",
        HOW,
        _figures(totals),
        JUDGED,
    ]
    for engine, found in totals.items():
        parts += [f"## Faults that the engine {engine} met", _faults(found)]
        permits = ", ".join(map(str, found["permits"].values()))
        parts.append(
            f"{found['holders_at_a_time']} holders at a time, {len(found['permits'])} semaphores of {permits} permits."
        )
        if listed := wrong(found):
            parts.append("\n".join(f"- VIOLATION {violation}" for violation in listed[:SHOWN]))
    return "\n\n".join([*parts, "## Runs", _runs(runs)]) + "\n"


def _figures(totals: Mapping[str, Found]) -> str:
    head = ["engine", "grants", "over-grants", "fences twice or not growing", "other violations", "not served after it"]
    head += ["revisions judged (read back)", "minutes"]
    rows = []
    for engine, found in totals.items():
        fences = sum("S2" in violation for violation in found["violations"])
        over = sum("S1" in violation for violation in found["violations"])
        rows.append(
            (
                engine,
                f"{found['grants']:,}",
                max(over, found["over_grants"]),
                fences,
                len(found["violations"]) - fences - over,
                len(found["unserved_after_the_faults"]),
                f"{found['revisions_judged']:,} ({found['revisions_read_back']:,})",
                f"{found['seconds'] / 60:.0f}",
            )
        )
    return _table(head, rows)


def _faults(found: Found) -> str:
    return _table(
        ["what", "how often"],
        [(what, f"{count:,}") for what, count in sorted(found["faults"].items(), key=lambda item: -item[1])],
    )


def _runs(runs: Sequence[Found]) -> str:
    rows = [
        (
            run["machine"]["at"],
            run["machine"]["commit"],
            found["engine"],
            f"{found['grants']:,}",
            f"{found['seconds'] / 60:.1f}",
            len(wrong(found)),
            run["seed"],
        )
        for run in runs
        for found in run["engines"]
    ]
    where = f"On {sentence(runs[-1]['machine'])}; kube-apiserver {runs[-1]['kubernetes']}."
    head = ["begun", "commit", "engine", "grants", "minutes", "violations", "seed"]
    return f"{where}\n\n{_table(head, rows)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])

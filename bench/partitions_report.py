# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the figures of bench/partitions.py to the page: tables, the design's targets beside them, the plot.

python -m bench.partitions_report [DIRECTORY]      writes partitions.md and its plot anew from partitions.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.machine import CHECKOUT, say, sentence
from bench.report import Figures, Target, fill, table, targets_table, tell

PAGE = CHECKOUT / "docs" / "bench" / "partitions.md"
KINDS = {
    "nothing": "nothing is done, for a second",
    "InWorkerSplit": "split",
    "InWorkerMerge": "merge of two",
    "InterWorkerMove": "move",
}
COLOURS = {"nothing": "#9a9a9a", "InWorkerSplit": "#1b7f79", "InWorkerMerge": "#7048a8", "InterWorkerMove": "#b5651d"}
WANTED_MS = 250
MOVE = "InterWorkerMove"


def targets(found: Figures) -> list[Target]:
    """What the design wants, as far as it was measured."""
    return list(_targets(found))


def _targets(found: Figures) -> Iterator[Target]:
    if figures := found.get("large", {}).get(MOVE):
        p99 = figures["gap_ms"]["p99"]
        size = found["large"]["bytes"] / 2**20
        text = f"{p99:.0f} ms over {figures['count']} moves (p50 {figures['gap_ms']['p50']:.0f} ms)"
        yield Target(f"write unavailability of a move of {size:.0f} MiB", "p99 ≤ 250 ms", text, p99 <= WANTED_MS)
    if figures := found.get("operations", {}).get("InWorkerSplit"):
        writes = figures["writes"]
        text = f"{writes['mean']:g} (at most {writes['most']})"
        yield Target("API writes for one split", "≤ 8", text, writes["mean"] <= 8)


def faults(found: Figures) -> list[str]:
    """What must never be seen."""
    parts = ((part, found.get(part, {}).get("failures")) for part in ("operations", "large", "naive"))
    return [f"{part}: a write failed: {listed[0]}" for part, listed in parts if listed]


# ---------------------------------------------------------------------------------------------- tables


def blocks(found: Figures) -> dict[str, str]:
    """The text of every marked place of which something was measured."""
    texts = {"machine": _machine(found), "targets": targets_table(targets(found))}
    if "operations" in found:
        texts["operations"] = _operations(found)
    if "large" in found:
        texts["large"] = _large(found)
    if "batches" in found:
        texts["batches"] = _batches(found["batches"])
    return texts


def _machine(found: Figures) -> str:
    machine = found["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    changed = f" and {machine['changed_files']} changed files" if machine["changed_files"] else ""
    text = (
        f"Measured at {machine['at']} on {sentence(machine)}; kube-apiserver {found['kubernetes']}, {packages}; commit "
        f"{machine['commit']}{changed}. Load before the run {machine['load_1_min']}, at its end "
        f"{machine.get('load_1_min_after', '-')}; the run took {found.get('minutes', 0):.0f} minutes."
    )
    if machine["load_1_min"] > machine["cores"]:
        text += (
            "\n\n**The machine was busy with other work** when this run began: see what is lost while nothing is done."
        )
    return text


def _operations(found: Figures) -> str:
    rows = []
    for kind, label in KINDS.items():
        figures = found["operations"].get(kind)
        if not figures:
            continue
        row = [label, f"{figures['count']:,}", _gap(figures)]
        if "writes" in figures:
            writes = figures["writes"]
            row += [_times(figures["committed_ms"]), _times(figures["seconds_ms"]), f"{writes['mean']:g}"]
        rows.append([*row, *["-"] * (6 - len(row))])
    head = ["", "times", "no write acknowledged for, p50 / p99 / most", "until it is decided, p50 / p99"]
    return table([*head, "until it is over", "API writes"], rows)


def _large(found: Figures) -> str:
    size = found["large"]["bytes"] / 2**20
    rows = []
    ours = found["large"].get(MOVE)
    if ours:
        row = [f"**Muster**: move of {size:.0f} MiB", f"{ours['count']:,}", _gap(ours)]
        rows.append([*row, _times(ours["committed_ms"]), _ratio(ours, ours)])
    naive = found.get("naive", {}).get("move")
    if naive:
        size = found["naive"]["bytes"] / 2**20
        what = f"by hand: lock in etcd {found['naive']['etcd']}, copy {size:.0f} MiB, unlock"
        rows.append([what, f"{naive['count']:,}", _gap(naive), _times(naive["seconds_ms"]), _ratio(naive, ours)])
    head = ["", "times", "no write acknowledged for, p50 / p99 / most", "until the new owner has it, p50 / p99"]
    return table([*head, "to ours, p50"], rows)


def _batches(found: Figures) -> str:
    """The middle one of the rounds of each size."""
    machine, rows = found["machine"], []
    for size, rounds in found["sizes"].items():
        one = rounds[(len(rounds) - 1) // 2]
        row = [size, str(len(rounds)), f"{one['committed']:,.2f} s", f"{one['seconds']:,.2f} s"]
        row += [f"{1000 * one['seconds'] / int(size):,.0f} ms", f"{one['cpu']['reconciler']:.2f} s"]
        rows.append([*row, f"{one['cpu']['workers']:.2f} s", f"{one['writes']:,}", f"{one['reads']:,}"])
    head = ["partitions", "rounds", "until it is decided", "until it is over", "for each of them"]
    text = table([*head, "CPU time of the reconciler", "of the workers", "API writes", "API reads"], rows)
    where = f"Measured at {machine['at']} on {sentence(machine)}; load at the end {machine['load_1_min']}."
    return f"{text}\n\n{where}"


def _gap(figures: Figures) -> str:
    return " / ".join(f"{figures['gap_ms'][share]:,.0f} ms" for share in ("p50", "p99", "max"))


def _times(figures: Figures) -> str:
    return " / ".join(f"{figures[share]:,.0f} ms" for share in ("p50", "p99"))


def _ratio(figures: Figures, ours: Figures | None) -> str:
    return f"{figures['gap_ms']['p50'] / ours['gap_ms']['p50']:.1f}" if ours else "-"


# ---------------------------------------------------------------------------------------------- the page


def plot(found: Figures, path: Path) -> None:
    """The share of the operations in which no write was acknowledged for at most so long."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    lines = [(label, COLOURS[kind], "-", found["operations"].get(kind)) for kind, label in KINDS.items()]
    size = found.get("large", {}).get("bytes", 0) / 2**20
    lines.append((f"move of {size:.0f} MiB", COLOURS[MOVE], "--", found.get("large", {}).get(MOVE)))
    lines.append((f"by hand, {size:.0f} MiB", "black", ":", found.get("naive", {}).get("move")))
    figure, axis = pyplot.subplots(figsize=(7, 3.8))
    for label, colour, style, figures in lines:
        if figures:
            gaps = sorted(figures["gaps_ms"])
            shares = [(number + 1) / len(gaps) for number in range(len(gaps))]
            axis.step(gaps, shares, where="post", color=colour, linestyle=style, linewidth=2, label=label)
    axis.axvline(WANTED_MS, color="#9a9a9a", linewidth=1, linestyle=":")
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda x, _position: f"{x:g}")
    axis.set_xlabel("milliseconds without an acknowledged write (dotted: what the design wants of a move)")
    axis.set_ylabel("share of the operations")
    axis.grid(axis="both", color="#e5e5e5")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write(out: Path) -> None:
    """Write the page and the plot of `out/partitions.json`; the prose is that of the page in docs."""
    found = json.loads((out / "partitions.json").read_text())
    if "operations" in found:
        plot(found, out / "partitions.png")
    (out / "partitions.md").write_text(fill(PAGE, blocks(found)))
    say(f"written: {out / 'partitions.md'} and its plot")
    tell(targets(found), faults(found))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE.parent)

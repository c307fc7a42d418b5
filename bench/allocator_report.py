# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the figures of bench/allocator.py to the page: tables, the design's targets beside them, the plot.

python -m bench.allocator_report [DIRECTORY]      writes allocator.md and its plot anew from allocator.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.machine import CHECKOUT, say, sentence
from bench.report import Figures, Target, fill, table, targets_table, tell

PAGE = CHECKOUT / "docs" / "bench" / "allocator.md"
CLAIMS = {"warm": ("from the pool", "#1b7f79"), "cold": ("made when it is asked for", "#b5651d")}
LIMITS = {
    "muster": "**Muster**: a ledger, compare-and-swap, group commit",
    "original": "the original's check: list, then create",
    "quota": "Kubernetes' ResourceQuota, a namespace for each user",
}
BY_CLAIM = ("configmaps", "instances")  # what a claim writes; the rest is the controller's


def targets(found: Figures) -> list[Target]:
    """What the design wants, as far as it was measured."""
    return list(_targets(found))


def _targets(found: Figures) -> Iterator[Target]:
    if figures := found.get("create", {}).get("muster"):
        rate = figures["a_second"]
        yield Target("creates accepted", "≥ 50/s on two cores", f"{rate:.0f}/s", rate >= 50)
    if figures := found.get("claim", {}).get("warm"):
        p99 = figures["latency_ms"]["p99"]
        bound = f"p99 ≤ 500 ms in a burst of {found['scale']['burst']}"
        yield Target("claim from the pool", bound, f"{p99:.0f} ms", p99 <= 500)
        writes = sum(figures["writes"].get(each, 0) for each in BY_CLAIM)
        text = f"{writes:.2f}, with all that the controller writes to Instances and makes anew for the pool"
        yield Target("API writes a claim", "≤ 6", text, writes <= 6)
    if figures := found.get("limit", {}).get("muster"):
        text = f"{figures['over']} with more, {figures['under']} with none, of {figures['rounds']:,}"
        yield Target(f"{figures['crowd']} creates at limit 1", "exactly one, in each round", text, _is_exact(figures))


def _is_exact(figures: Figures) -> bool:
    return not (figures["over"] or figures["under"])


def faults(found: Figures) -> list[str]:
    """What must never be seen."""
    wrong = []
    if (figures := found.get("limit", {}).get("muster")) and not _is_exact(figures):
        wrong.append(f"limit: made in a round {figures['made_in_a_round']}")
    for part, name in (("create", "muster"), ("claim", "warm"), ("claim", "cold")):
        if figures := found.get(part, {}).get(name):
            if set(figures["statuses"]) - {"201", 201}:
                wrong.append(f"{part}, {name}: answered {figures['statuses']}")
            if figures["names"] != figures["answers"]:
                wrong.append(f"{part}, {name}: {figures['names']} instances for {figures['answers']} wishes")
    return wrong


# ---------------------------------------------------------------------------------------------- tables


def blocks(found: Figures) -> dict[str, str]:
    """The text of every marked place of which something was measured."""
    texts = {"machine": _machine(found), "targets": targets_table(targets(found))}
    if "create" in found or "claim" in found:
        texts["times"] = _times(found)
    if "limit" in found:
        texts["limits"] = _limits(found["limit"])
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
        text += "\n\n**The machine was busy with other work** when this run began."
    return text


def _times(found: Figures) -> str:
    rows = []
    if figures := found.get("create", {}).get("muster"):
        scale = found["scale"]
        rows.append((f"{scale['users'] * scale['connections']} connections, one create after the other", figures))
    for name, (label, _colour) in CLAIMS.items():
        if figures := found.get("claim", {}).get(name):
            rows.append((f"{found['scale']['burst']} users at one moment, {label}", figures))
    return table(
        ("", "creates", "a second", "p50 / p99 / longest", "writes for each"),
        [
            (
                label,
                f"{figures['answers']:,}",
                f"{figures['a_second']:.0f}",
                " / ".join(f"{figures['latency_ms'][share]:,.0f} ms" for share in ("p50", "p99", "max")),
                ", ".join(f"{count:g} {what}" for what, count in figures["writes"].items()),
            )
            for label, figures in rows
        ],
    )


def _limits(limits: Figures) -> str:
    rows = []
    for name, label in LIMITS.items():
        if figures := limits.get(name):
            made = ", ".join(f"{made} in {count:,}" for made, count in figures["made_in_a_round"].items())
            over = f"{figures['over']:,} of {figures['rounds']:,}"
            rows.append((label, over, f"{figures['under']:,}", made, f"{figures['answers_a_second']:,.0f}"))
    return table(("", "rounds with more than one", "with none", "made in a round", "answers a second"), rows)


# ---------------------------------------------------------------------------------------------- the page


def plot(found: Figures, path: Path) -> None:
    """The share of the users of a burst who had their instance after so long."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(7, 3.6))
    for name, (label, colour) in CLAIMS.items():
        if figures := found["claim"].get(name):
            times = figures["latencies_ms"]
            shares = [(number + 1) / len(times) for number in range(len(times))]
            axis.step(times, shares, where="post", color=colour, linewidth=2, label=label)
    axis.axvline(500, color="#9a9a9a", linewidth=1, linestyle=":")
    axis.set_xlabel(f"milliseconds, {found['scale']['burst']} users at one moment")
    axis.set_ylabel("share of the users")
    axis.set_xlim(left=0)
    axis.grid(axis="both", color="#e5e5e5")
    axis.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write(out: Path) -> None:
    """Write the page and the plot of `out/allocator.json`; the prose is that of the page in docs."""
    found = json.loads((out / "allocator.json").read_text())
    if "claim" in found:
        plot(found, out / "allocator.png")
    (out / "allocator.md").write_text(fill(PAGE, blocks(found)))
    say(f"written: {out / 'allocator.md'} and its plot")
    tell(targets(found), faults(found))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE.parent)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the figures of bench/failover.py to the page: tables, the design's targets beside them, the plot.

    python -m bench.failover_report [DIRECTORY]      writes failover.md and its plot anew from failover.json

The page keeps its prose; what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` is written here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.elections import CRASH, GRACEFUL, LOST
from bench.machine import CHECKOUT, say, sentence
from bench.replicas import SYSTEMS
from bench.report import Figures, Target, fill, table, targets_table, tell

PAGE = CHECKOUT / "docs" / "bench" / "failover.md"
OURS = "muster"
PODS = "pods"
COLOURS = {
    "muster": "#1b7f79",
    "client-go": "#4c6ef5",
    "client-go-tuned": "#7a5195",
    "python": "#b5651d",
    "python-tuned": "#c2a878",
}
BUSY = (
    "**The machine was busy with other work** when this run began: what takes milliseconds takes longer then, and what "
    "waits for a Lease to run out does not."
)
TITLES = {
    GRACEFUL: "graceful: the leader is told to end",
    CRASH: "crash: the leader's process is killed",
    LOST: "lost node: killed, and nobody says so",
}


def of(found: Figures, kind: str) -> dict[str, Figures]:
    """The contests of a kind by system. To a peer a lost node is what a crash is, so its crash is shown."""
    contests: dict[str, Figures] = found.get(kind, {})
    if kind == LOST and contests:
        peers = {name: each for name, each in found.get(CRASH, {}).items() if not SYSTEMS[name].ours}
        contests = {**contests, **peers}
    return {name: contests[name] for name in SYSTEMS if name in contests}


# ---------------------------------------------------------------------------------------------- targets


def targets(found: Figures) -> list[Target]:
    """What the design wants of our election, as far as it was measured."""
    return list(_targets(found))


def _targets(found: Figures) -> Iterator[Target]:
    def target(kind: str, what: str, measure: str, share: str, bound: float, of: str = OURS) -> Iterator[Target]:
        if figures := found.get(kind, {}).get(of):
            seconds = figures[measure][share]
            wanted = f"{share.replace('max', 'longest')} ≤ {bound:g} s"
            text = f"{seconds:.3f} s over {figures['rounds']} rounds"
            yield Target(what, wanted, text, seconds <= bound)

    yield from target(GRACEFUL, "graceful hand-over, between the two authorities", "gap_s", "p99", 0.2)
    yield from target(GRACEFUL, "graceful hand-over, no leader in the Lease", "watched_s", "p99", 0.2)
    yield from target(CRASH, "crash on a living node (kubelet simulated)", "gap_s", "p99", 2.0)
    yield from target(PODS, "graceful hand-over of real Pods", "gap_s", "p99", 0.2, GRACEFUL)
    yield from target(PODS, "crash on a living node (real Pods, real kubelet)", "gap_s", "p99", 2.0, CRASH)
    yield from target(LOST, "lost node, 6 s lease", "gap_s", "max", 7.0)


def faults(found: Figures) -> list[str]:
    """What must never be seen with our election: two leaders at one time, or a fence that did not grow."""
    kinds = ("overlaps", "fences_not_growing")
    contests = {kind: found.get(kind, {}).get(OURS, {}) for kind in (GRACEFUL, CRASH, LOST)}
    contests |= {f"{PODS}, {kind}": figures for kind, figures in found.get(PODS, {}).items()}
    return [f"{name}: {kind} {each[kind]}" for name, each in contests.items() for kind in kinds if each.get(kind)]


# ---------------------------------------------------------------------------------------------- tables


def blocks(found: Figures) -> dict[str, str]:
    """The text of every marked place of which something was measured."""
    texts = {"machine": _machine(found), "targets": targets_table(targets(found))}
    texts |= {kind: _contests(found, kind) for kind in (GRACEFUL, CRASH, LOST) if found.get(kind)}
    texts |= {name: make(found[name]) for name, make in ((PODS, _pods), ("idle", _idle)) if name in found}
    return texts


def _machine(found: Figures) -> str:
    machine = found["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    changed = f" and {machine['changed_files']} changed files" if machine["changed_files"] else ""
    labels = {name: system.label for name, system in SYSTEMS.items()} | {PODS: "Real Pods"}
    absent = [f"{labels[name]}: absent ({why})" for name, why in found.get("absent", {}).items()]
    resumed = "".join(
        f" Resumed at {each['at']}, commit {each['commit']}, load {each['load_1_min']}."
        for each in machine.get("resumed", ())
    )
    text = (
        f"Measured at {machine['at']} on {sentence(machine)}; kube-apiserver {found['kubernetes']}, client-go "
        f"{found['client_go']}, {packages}; commit {machine['commit']}{changed}. Load before the run "
        f"{machine['load_1_min']}, at its end {machine.get('load_1_min_after', '-')}; the run took "
        f"{found.get('minutes', 0):.0f} minutes.{resumed}"
    )
    busy = machine["load_1_min"] > machine["cores"]
    return "\n\n".join([text, *([BUSY] if busy else []), *absent])


def _contests(found: Figures, kind: str) -> str:
    contests = of(found, kind)
    ours = contests.get(OURS, {}).get("gap_s")
    rows = []
    for name, figures in contests.items():
        gap = figures["gap_s"]
        times = f"{gap['p50'] / ours['p50']:,.3g} / {gap['p99'] / ours['p99']:,.3g}" if ours else "-"
        rows.append((_bold(SYSTEMS[name].label, SYSTEMS[name].ours), times, *_cells(figures, SYSTEMS[name].ours)))
    return table(("", "times Muster's p50 / p99", *HEAD), rows)


HEAD = (
    "nobody leads: p50 / p99 / longest",
    "a watcher sees p50 / p99",
    "p99 from the signal on",
    "rounds",
    "two led at once",
    "busy cores",
)


def _cells(figures: Figures, bold: bool) -> tuple[str, ...]:
    gap, watched = figures["gap_s"], figures["watched_s"]
    return (
        _bold(" / ".join(_seconds(gap[share]) for share in ("p50", "p99", "max")), bold),
        f"{_seconds(watched['p50'])} / {_seconds(watched['p99'])}",
        _seconds(figures["after_signal_s"]["p99"]),
        str(figures["rounds"]),
        str(figures["overlaps"]),
        f"{figures['busy_cores']:.1f}",
    )


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _pods(pods: Figures) -> str:
    return table(("Muster", *HEAD), [(TITLES[kind].partition(":")[0], *_cells(pods[kind], True)) for kind in pods])


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _idle(idle: Figures) -> str:
    rows = []
    for name, figures in idle.items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(figures["requests"].items()))
        rows.append(
            (
                SYSTEMS[name].label,
                f"{figures['writes']:.1f}",
                f"{figures['reads']:.1f}",
                f"{figures['cpu_s']:.2f} s",
                f"{figures['resident_mib']:.0f} MiB",
                f"{kinds} in {figures['seconds']:.0f} s",
            )
        )
    return table(("", "writes", "reads and watches", "CPU", "resident, largest", "of all three replicas"), rows)


# ---------------------------------------------------------------------------------------------- plot


def plot(found: Figures, path: Path) -> None:
    """For each kind, the share of changes of leader that were over after so many seconds."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot, ticker

    kinds = [kind for kind in TITLES if of(found, kind)]
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(4.4 * len(kinds), 4), sharey=True, squeeze=False)
    for axis, kind in zip(axes[0], kinds, strict=True):
        for name, figures in of(found, kind).items():
            gaps = figures["gaps_s"]
            shares = [(number + 1) / len(gaps) for number in range(len(gaps))]
            width = 2.6 if SYSTEMS[name].ours else 1.4
            axis.step(gaps, shares, where="post", color=COLOURS[name], linewidth=width, label=SYSTEMS[name].label)
        axis.set_title(TITLES[kind], loc="left", fontsize=10)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda x, _position: f"{x:g}")
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
        axis.set_xlabel("seconds in which nobody leads")
        axis.grid(axis="both", color="#e5e5e5")
    axes[0][0].set_ylabel("share of the rounds")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.14, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


# ---------------------------------------------------------------------------------------------- the page


def write(out: Path) -> None:
    """Write the page and the plot of `out/failover.json`; the prose is that of the page in docs."""
    found = json.loads((out / "failover.json").read_text())
    if any(of(found, kind) for kind in TITLES):
        plot(found, out / "failover.png")
    (out / "failover.md").write_text(fill(PAGE, blocks(found)))
    say(f"written: {out / 'failover.md'} and its plot")
    tell(targets(found), faults(found))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE.parent)

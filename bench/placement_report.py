# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the figures of bench/placement.py to the page: tables, the design's targets beside them, the plot.

    python -m bench.placement_report [DIRECTORY]      writes placement.md and its plot anew from placement.json

The page keeps its prose; what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` is written here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from bench.machine import CHECKOUT, say, sentence
from bench.placement_peers import OURS, PEERS, SOLVER
from bench.report import Figures, Target, fill, table, targets_table, tell

PAGE = CHECKOUT / "docs" / "bench" / "placement.md"
BUSY = (
    "**The machine was busy with other work** when this run began: what is counted does not change by that, what is "
    "timed does. CPU time and the ratios between those that took turns can be trusted."
)
CASES: Final = {
    "quota-10k": ("10,000 jobs on 100 workers", None),
    "quota-100k": ("100,000 jobs on 1,000 workers", 0.15),
    "quota-1m": ("1,000,000 jobs on 2,000 workers", 3.0),
    "classes-100k": ("100,000 jobs on 1,000 workers, 20 classes", 0.5),
    "skewed-100k": ("100,000 jobs on 1,000 workers, 20 classes of unequal size", 0.5),
    "weighted-10k": ("10,000 weighted jobs on 100 workers", None),
}
CHANGED: Final = {
    "added": "a worker is added",
    "removed": "a worker is removed",
    "edited": "one job of a hundred is replaced",
    "nothing": "nothing has changed",
}
# colour and mark of each peer; ours is drawn last and largest
LOOKS: Final = {
    "blocks": ("#8d99ae", "s"),
    "round-robin": ("#c9cdd6", "s"),
    "jump": ("#b5651d", "v"),
    "ring": ("#4c6ef5", "o"),
    "ring-125": ("#8fa6f8", "o"),
    "ring-100": ("#c3cffb", "o"),
    "rendezvous": ("#7a5195", "D"),
    "sticky": ("#e07a5f", "^"),
    OURS: ("#1b7f79", "*"),
}


PLACES: Final = re.findall(r"<!-- begin (\S+) -->", PAGE.read_text())


def traces(found: Figures, *, plain: bool | None = None) -> dict[str, Figures]:
    """What was measured on each trace, by peer; on the plain ones, on the others, or on all."""
    about = found.get("about", {})
    every: dict[str, Figures] = found.get("traces", {})
    return {name: each for name, each in every.items() if plain is None or about[name]["plain"] == plain}


def ours_on_traces(found: Figures) -> dict[str, Figures]:
    return {name: each[OURS] for name, each in traces(found).items() if OURS in each}


def _pool(case: str) -> str:
    return CASES[case][0] if case in CASES else case


# ---------------------------------------------------------------------------------------------- targets


def targets(found: Figures) -> list[Target]:
    """What the design wants of our placement, as far as it was measured."""
    return [*_speed_targets(found), *_bound_targets(found), *_other_targets(found)]


def _speed_targets(found: Figures) -> Iterator[Target]:
    for case, (what, bound) in CASES.items():
        for change, each in found.get("speed", {}).get(case, {}).items():
            if bound is not None and change != "nothing":
                cpu, wall = each["cpu_seconds"], each["seconds"]
                measured = f"CPU {_seconds(cpu['median'])} ({_span(cpu)}); by the clock {_span(wall)}"
                yield Target(f"{what}, {CHANGED[change]}", f"≤ {_seconds(bound)}", measured, cpu["median"] <= bound)


def _late(found: Figures) -> Iterator[str]:
    """Says so where the clock tells otherwise than the CPU time."""
    timed = [
        each["seconds"]["median"] <= bound
        for case, (_what, bound) in CASES.items()
        for change, each in found.get("speed", {}).get(case, {}).items()
        if bound is not None and change != "nothing"
    ]
    if not all(timed):
        yield f"By the clock the median is within the bound in {timed.count(True)} of these {len(timed)} cases."


def _bound_targets(found: Figures) -> Iterator[Target]:
    if plain := found.get("random", {}).get("plain"):
        missed = plain["more_moves"] + plain["more_restarts"] + plain["less_level"] + plain["less_placed"]
        met = f"equal on {plain['changes'] - missed:,} of {plain['changes']:,}"
        enough = plain["changes"] >= 10_000
        what = "moves and restarts beside the lower bound, random changes of equal jobs and workers"
        yield Target(what, "equal on all of ≥ 10,000", met, not missed and enough)
    if plain := _summed(found, plain=True):
        text = f"{plain['changes'] - plain['more_restarts']:,} of {plain['changes']:,}"
        yield Target(
            "traces of equal jobs and workers: restarts as the optimum", "on all", text, not plain["more_restarts"]
        )
    for what, bounds in (
        ("traces of equal jobs and workers", _summed(found, plain=True)),
        ("traces with classes", _summed(found, plain=False)),
        ("random changes with classes, capacities, zones", found.get("random", {}).get("classes")),
    ):
        if bounds:
            missed = bounds["less_placed"] + bounds["less_level"] + bounds["more_moves"]
            text = f"{bounds['changes'] - missed:,} of {bounds['changes']:,}"
            yield Target(f"{what}: placed, level, and moved as the optimum", "on all", text, not missed)
    for name, each in _solved(found).items():
        same = all(each[key] == each["solver"][key] for key in ("squares", "moves"))
        text = f"{each['moves']:,} moves, optimum {each['solver']['moves']:,}"
        case, _, change = name.partition(", ")
        yield Target(f"{_pool(case)}, {CHANGED[change]}: level and moved as the optimum", "equal", text, same)


def _other_targets(found: Figures) -> Iterator[Target]:
    if plain := [each[OURS]["imbalance_worst"] for each in traces(found, plain=True).values() if OURS in each]:
        yield Target("max - min on the traces of equal jobs and workers", "≤ 1", f"{max(plain)}", max(plain) <= 1)
    if weighted := found.get("speed", {}).get("weighted-10k"):
        worst, least = (
            max(each["imbalance"] for each in weighted.values()),
            min(each["heaviest"] for each in weighted.values()),
        )
        yield Target(
            f"{_pool('weighted-10k')}: max - min", "≤ heaviest job", f"{worst}, heaviest {least}", worst <= least
        )
    for name, each in ours_on_traces(found).items():
        if not found["about"][name]["plain"] and name.startswith("weighted"):
            text = f"worst {each['imbalance_worst']}, above the heaviest job in {each['above_heaviest']} changes"
            yield Target(
                f"{found['about'][name]['title']}: max - min", "≤ heaviest job", text, not each["above_heaviest"]
            )
    for case, each in found.get("permutations", {}).items():
        text = f"{len(each['digests'])} outcome of {each['permutations']:,}, {each['hash_seeds']} hash seeds"
        met = len(each["digests"]) == 1 and each["permutations"] >= 1000
        yield Target(f"permutations of the input, {case}", "the same bytes for 1,000", text, met)


def _solved(found: Figures) -> dict[str, Figures]:
    """What HiGHS has solved in its time."""
    return {name: each for name, each in found.get("optimum_at_size", {}).items() if "over_s" not in each}


def _summed(found: Figures, *, plain: bool) -> dict[str, int]:
    """The bounds of all traces of a kind together."""
    total: dict[str, int] = {}
    for name in traces(found, plain=plain):
        for key, value in found.get("bounds", {}).get(name, {}).items():
            if isinstance(value, int):
                total[key] = total.get(key, 0) + value
    return total


def faults(found: Figures) -> list[str]:
    """What must never be seen with ours, at whatever scale it was measured."""
    seen = {
        f"trace {name}: {key}": each[key] for name, each in ours_on_traces(found).items() for key in ("broken_worst",)
    }
    parts = {f"trace {name}": each for name, each in found.get("bounds", {}).items()}
    parts |= {f"random, {name}": each for name, each in found.get("random", {}).items()}
    wrong = ("claims_wrong", "broken", "less_placed", "less_level", "more_moves")
    seen |= {f"{name}: {key}": each[key] for name, each in parts.items() for key in wrong if key in each}
    exact = [name for name, each in parts.items() if each.get("by") == "formula" or name == "random, plain"]
    seen |= {f"{name}: more_restarts": parts[name]["more_restarts"] for name in exact}
    permuted = found.get("permutations", {}).items()
    seen |= {f"permutations, {name}: outcomes": len(each["digests"]) - 1 for name, each in permuted}
    return [f"{name} {count}" for name, count in seen.items() if count]


# ---------------------------------------------------------------------------------------------- tables


def blocks(found: Figures) -> dict[str, str]:
    """The text of every marked place of which something was measured."""
    listed = "\n\n".join((targets_table(targets(found)), *_late(found)))
    texts = {"machine": _machine(found), "targets": listed, "traces": _about(found)}
    for kind, plain in (("plain", True), ("classes", False)):
        if shown := traces(found, plain=plain):
            made = {f"{kind}-{name}": make(found, shown) for name, make in MATRICES.items()}
            texts |= {name: text for name, text in made.items() if name != "plain-broken"}  # no rules to break there
    if found.get("speed"):
        texts["speed"] = _speed(found["speed"])
    if found.get("peers_at_size"):
        texts["peers"] = _peers(found["peers_at_size"])
    if _solved(found):
        texts["optimum"] = _optimum(_solved(found))
    if found.get("random"):
        texts["random"] = _random(found["random"])
    return texts


def _machine(found: Figures) -> str:
    machine = found["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    changed = f" and {machine['changed_files']} changed files" if machine["changed_files"] else ""
    resumed = "".join(
        f" Resumed at {each['at']}, commit {each['commit']}, load {each['load_1_min']}."
        for each in machine.get("resumed", ())
    )
    absent = [f"{_label(name)}: absent ({why})." for name, why in found.get("absent", {}).items()]
    text = (
        f"Measured at {machine['at']} on {sentence(machine)}; {packages or 'no package of a peer'}; commit "
        f"{machine['commit']}{changed}. Load before the run {machine['load_1_min']}, at its end "
        f"{machine.get('load_1_min_after', '-')}; the run took {found.get('minutes', 0):.0f} minutes.{resumed}"
    )
    busy = machine["load_1_min"] > machine["cores"]
    return "\n\n".join([text, *([BUSY] if busy else []), *absent])


def _label(name: str) -> str:
    return PEERS[name].label if name in PEERS else {SOLVER: "HiGHS"}[name]


def _bold(name: str) -> str:
    return f"**{_label(name)}**" if name == OURS else _label(name)


def _matrix(found: Figures, shown: Mapping[str, Figures], cell: Callable[[Figures], str], best: str = "") -> str:
    """A row for each peer, a column for each trace; above them the bound of that name, where there is one."""
    rows = []
    bounds = {name: found.get("bounds", {}).get(name, {}) for name in shown}
    if best and any(bounds.values()):
        rows.append(("*fewest possible*", *(f"*{each[best]:,}*" if each else "-" for each in bounds.values())))
    for peer in PEERS:
        if any(peer in each for each in shown.values()):
            rows.append((_bold(peer), *(cell(each[peer]) if peer in each else "-" for each in shown.values())))
    return table(("", *shown), rows)


def _moves(found: Figures, shown: Mapping[str, Figures]) -> str:
    return _matrix(found, shown, lambda each: f"{each['moves']:,}", "moves")


def _restarts(found: Figures, shown: Mapping[str, Figures]) -> str:
    return _matrix(found, shown, lambda each: f"{each['restarts']:,}", "restarts")


def _imbalance(found: Figures, shown: Mapping[str, Figures]) -> str:
    return _matrix(found, shown, lambda each: f"{each['imbalance_worst']:,} / {each['imbalance_mean']:.1f}")


def _broken(found: Figures, shown: Mapping[str, Figures]) -> str:
    return _matrix(found, shown, lambda each: f"{each['unplaced']:,} / {each['broken_worst']:,}")


def _times(found: Figures, shown: Mapping[str, Figures]) -> str:
    text = _matrix(found, shown, lambda each: f"{_short(each['ms'])} ms / {_short(each.get('times_ours', 0))}")
    solved = {name: found.get("bounds", {}).get(name, {}) for name in shown}
    if not any(each.get("by") == SOLVER for each in solved.values()):
        return text
    cells = [f"{each['ms']:,.0f} ms / {each['ms'] / shown[name][OURS]['ms']:,.0f}" if each else "-"
             for name, each in solved.items()]  # fmt: skip
    return f"{text}\n| HiGHS, bounds alone | {' | '.join(cells)} |"


MATRICES: Final[dict[str, Callable[[Figures, Mapping[str, Figures]], str]]] = {
    "moves": _moves,
    "restarts": _restarts,
    "imbalance": _imbalance,
    "broken": _broken,
    "times": _times,
}


def _about(found: Figures) -> str:
    rows = [
        (name, each["about"], each["made"], each["changes"], _range(each["jobs"]), _range(each["workers"]))
        for name, each in found.get("about", {}).items()
    ]
    return table(("trace", "what happens", "made", "changes", "jobs", "workers"), rows)


def _range(span: list[int]) -> str:
    return f"{span[0]:,}" if span[0] == span[1] else f"{span[0]:,} to {span[1]:,}"


def _speed(speed: Mapping[str, Figures]) -> str:
    rows = []
    for case, changes in speed.items():
        for change, each in changes.items():
            if "over_s" in each:
                rows.append((_pool(case), CHANGED[change], f"over {each['over_s']} s of CPU, ended", *["-"] * 6))
                continue
            rows.append(
                (
                    _pool(case),
                    CHANGED[change],
                    " / ".join(_seconds(each["seconds"][share]) for share in ("min", "median", "max")),
                    _seconds(each["cpu_seconds"]["median"]),
                    f"{each['mib_before']['median']:.0f} / {each['mib_peak']['max']:.0f} MiB",
                    f"{each['moves']:,}",
                    f"{each['restarts']:,} of {each['stayed']:,}",
                    each["imbalance"],
                    each["runs"],
                )
            )
    head = (
        "pool",
        "change",
        "least / median / most",
        "CPU",
        "resident: input / peak",
        "moves",
        "restarts",
        "max - min",
    )
    return table((*head, "runs"), rows)


def _peers(cases: Mapping[str, Figures]) -> str:
    rows = []
    for case, peer, each in ((case, peer, each) for case, peers in cases.items() for peer, each in peers.items()):
        pool, ours = _pool(case), cases[case].get(OURS)
        if "over_s" in each:
            rows.append((pool, _bold(peer), f"over {each['over_s']} s of CPU, ended", *["-"] * 6))
            continue
        base = ours["cpu_seconds"]["median"] if ours else 0.0  # 0: too short for the clock
        times = _short(each["cpu_seconds"]["median"] / base) if base else "-"
        rows.append(
            (
                pool,
                _bold(peer),
                " / ".join(_seconds(each["seconds"][share]) for share in ("min", "median", "max")),
                times,
                f"{each['mib_peak']['max'] - each['mib_before']['median']:.0f} MiB",
                f"{each['moves']:,}",
                f"{each['restarts']:,} of {each['stayed']:,}",
                f"{each['imbalance']:,}",
                each["runs"],
            )
        )
    head = ("pool", "", "least / median / most", "CPU, times ours", "memory above the input", "moves", "restarts")
    return table((*head, "max - min", "runs"), rows)


def _optimum(optimum: Mapping[str, Figures]) -> str:
    rows = []
    for name, each in optimum.items():
        case, _, change = name.partition(", ")
        both = [(each, each["cpu_seconds"]), (each["solver"], each["solver_cpu_seconds"])]
        for who, (figures, seconds) in zip(("**Muster**", "HiGHS"), both, strict=True):
            what = f"{_pool(case)}, {CHANGED[change]}"
            rows.append((what, who, f"{figures['squares']:,}", f"{figures['moves']:,}", _seconds(seconds)))
    return table(("change", "", "sum of squares of the loads", "moves", "CPU"), rows)


def _random(found: Mapping[str, Figures]) -> str:
    names = {
        "plain": "equal jobs and workers, beside the formula",
        "classes": "classes, capacities, zones, beside HiGHS",
    }
    rows = []
    for kind, each in found.items():
        more = each["ours_restarts"] / each["restarts"] - 1 if each["restarts"] else 0
        rows.append(
            (
                names[kind],
                f"{each['changes']:,}",
                each["less_placed"],
                each["less_level"],
                each["more_moves"],
                each["more_restarts"],
                f"{each['ours_restarts']:,}, fewest {each['restarts']:,} (+{more:.2%})",
                each["claims_wrong"],
            )
        )
    head = ("random changes", "number", "fewer placed", "less level", "more moves", "more restarts", "restarts in all")
    return table((*head, "own count is wrong"), rows)


def _short(value: float) -> str:
    """Two digits that count."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 0.9995 else f"{value:.2f} s"


def _span(figures: Figures) -> str:
    return f"{_seconds(figures['min'])} to {_seconds(figures['max'])}"


# ---------------------------------------------------------------------------------------------- plot


def plot(found: Figures, path: Path) -> None:
    """For each trace: moves a change, the share of workers restarted, and the worst balance, of every peer."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    shown = traces(found)
    rows = {name: place for place, name in enumerate(reversed(shown))}
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 1.6 + 0.62 * len(rows)), sharey=True, squeeze=False)
    bounds = found.get("bounds", {})
    for axis, (title, value, bound) in zip(axes[0], _panels(found), strict=True):
        for number, (peer, (colour, mark)) in enumerate(LOOKS.items()):
            lower = (
                0.34 if peer == OURS else 0.2 - 0.075 * number
            )  # each has its own height, so that none hides another
            points = [(value(name, each[peer]), rows[name] + lower) for name, each in shown.items() if peer in each]
            x, y = [point[0] for point in points], [point[1] for point in points]
            size = 110 if peer == OURS else 28
            axis.scatter(x, y, c=colour, marker=mark, s=size, label=PEERS[peer].label, zorder=3, linewidths=0)
        best = {rows[name]: value(name, bounds[name]) for name in shown if bound and name in bounds}
        low, high = [row - 0.45 for row in best], [row + 0.45 for row in best]
        axis.vlines(best.values(), low, high, colors="#111111", linewidth=1.1, zorder=2, label="fewest possible")
        for row in range(0, len(rows), 2):
            axis.axhspan(row - 0.5, row + 0.5, color="#f4f5f7", zorder=0, linewidth=0)
        axis.set_title(title, loc="left", fontsize=10)
        axis.grid(axis="x", color="#dddddd", zorder=1)
        axis.set_ylim(-0.5, len(rows) - 0.5)
        axis.tick_params(axis="y", length=0)
        if bound == "restarts":
            axis.set_xlim(0, 103)
            axis.xaxis.set_major_formatter(lambda x, _position: f"{x:g} %")
        else:
            axis.set_xscale("symlog", linthresh=1, linscale=0.5)
            axis.xaxis.set_major_formatter(lambda x, _position: f"{x:g}")
            axis.set_xlim(-0.25, 1.35 * axis.get_xlim()[1])
    axes[0][0].set_yticks(list(rows.values()), list(rows))
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=5, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.75 / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


Panel = tuple[str, Callable[[str, Figures], float], str]


def _panels(found: Figures) -> tuple[Panel, Panel, Panel]:
    """Title, value of a peer on a trace, and which bound belongs to it."""

    def moves(name: str, each: Figures) -> float:
        return float(each["moves"] / found["about"][name]["changes"])

    def restarts(name: str, each: Figures) -> float:
        return float(100 * each["restarts"] / _stayed(found, name))

    return (
        ("moves of live jobs, a change", moves, "moves"),
        ("restarted, of the workers that stay", restarts, "restarts"),
        ("largest load minus smallest, worst change", lambda _name, each: float(each["imbalance_worst"]), ""),
    )


def _stayed(found: Figures, name: str) -> int:
    """Workers that stay, all changes of the trace together: the same for each peer."""
    return next(iter(found["traces"][name].values()))["stayed"] or 1


# ---------------------------------------------------------------------------------------------- the page


def write(out: Path) -> None:
    """Write the page and the plot of `out/placement.json`; the prose is that of the page in docs."""
    found = json.loads((out / "placement.json").read_text())
    if traces(found):
        plot(found, out / "placement.png")
    (out / "placement.md").write_text(fill(PAGE, blocks(found)))
    say(f"written: {out / 'placement.md'} and its plot")
    tell(targets(found), faults(found))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE.parent)

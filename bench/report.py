# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the figures to the page: tables, the design's targets beside what was measured, plots.

    python -m bench.report [DIRECTORY]       writes semaphore.md and its plots anew from semaphore.json

The page keeps its prose; what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` is written here.
"""

from __future__ import annotations

import functools
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import CHECKOUT, say, sentence

PAGE = CHECKOUT / "docs" / "bench" / "semaphore.md"
NAMES = {
    "naive": "the seed's loop",
    "naive-tuned": "the seed's loop, tuned",
    "annotations": "Muster, annotations",
    "tickets": "Muster, tickets",
    "etcd": "etcd lock",
    "zookeeper": "ZooKeeper lock",
    "redis": "Redis lock",
}
OURS = ("annotations", "tickets")
COLOURS = {
    "naive": "#9a9a9a",
    "naive-tuned": "#c2a878",
    "annotations": "#1b7f79",
    "tickets": "#d1495b",
    "etcd": "#4c6ef5",
    "zookeeper": "#7a5195",
    "redis": "#b5651d",
}
RESYNC_SECONDS = 50  # a sidecar looks once without being asked in 50 to 70 s
Figures = dict[str, Any]


class Target(NamedTuple):
    """One figure that the design wants, what was measured, and whether that is met."""

    what: str
    wanted: str
    measured: str
    met: bool


# ---------------------------------------------------------------------------------------------- targets


def targets(found: Figures) -> list[Target]:
    """The design's figures of which something was measured, in the design's order."""
    listed: list[Target] = []
    if "contention" in found:
        listed += _contention_targets(found)
    for engine, figures in found.get("cold_start", {}).items():
        all_in, each = figures["seconds_until_all"], figures["requests_each"]
        what = f"cold start of {figures['holders']} holders, {engine}"
        whole = figures["claimed"] == figures["holders"]
        listed.append(Target(what, "within 10 s", f"{all_in:.1f} s", whole and all_in <= 10))
        text = f"p50 {each['p50']:.0f}, most {each['max']:.0f}"
        listed.append(Target(f"requests of each in it, {engine}", "4 at most", text, each["max"] <= 4))
    for engine, figures in found.get("take_over", {}).items():
        p99 = figures["seconds"]["p99"]
        listed.append(Target(f"take-over after death, {engine}", "p99 ≤ 1 s", f"{p99:.2f} s", p99 <= 1))
    for engine, by_others in found.get("sidecar", {}).items():
        for others, figures in by_others.items():
            size = max(role["resident"] for role in figures["memory_mib"].values())
            what = f"sidecar's memory beside {others} Pods, {engine}"
            listed.append(Target(what, "≤ 32 MiB resident", f"{size:.1f} MiB", size <= 32))
        cpu = max(cpu for figures in by_others.values() for cpu in figures["cpu_seconds_per_minute"].values())
        text = f"{cpu:.2f} s a minute ({cpu / 0.6:.2f} % of a core)"
        listed.append(Target(f"sidecar's CPU when idle, {engine}", "about 0 (≤ 0.1 s a minute)", text, cpu <= 0.1))
        polls = sum(_polls(figures) for figures in by_others.values())
        listed.append(
            Target(f"sidecar polls when idle, {engine}", "watches and a resync", f"{polls} other requests", not polls)
        )
    return listed


def _polls(figures: Figures) -> int:
    """Requests of an idle sidecar that are neither a watch nor the resync."""
    resyncs = math.ceil(figures["seconds"] / RESYNC_SECONDS)
    return sum(max(0, n - resyncs) for kind, n in figures["requests"].items() if not kind.startswith("WATCH"))


def _contention_targets(found: Figures) -> list[Target]:
    contention = found["contention"]
    tickets, annotations, naive = (contention[name] for name in ("tickets", "annotations", "naive"))
    at32, plain = tickets["32"], naive["32"]["cycles_per_s"]
    rate = at32["cycles_per_s"]
    listed = [_ratio("tickets, 32 contenders", rate, plain, "the seed's loop", 4)]
    if "ceiling" in found:
        listed.append(
            _ratio("tickets, 32 contenders", rate, found["ceiling"]["1"]["cycles_per_s"], "sequential pairs", 0.5)
        )
    handoff = at32["handoff_ms"] or {"p50": math.inf, "p99": math.inf}
    jain, writes = at32["jain"] or 0.0, at32["writes_per_cycle"] or 0.0
    listed += [
        Target("tickets, hand-off p50", "≤ 15 ms", f"{handoff['p50']:.1f} ms", handoff["p50"] <= 15),
        Target("tickets, hand-off p99", "≤ 50 ms", f"{handoff['p99']:.1f} ms", handoff["p99"] <= 50),
        Target("tickets, Jain's index", "≥ 0.99", f"{jain:.4f}", jain >= 0.99),
        Target("tickets, writes a cycle", "2.0", f"{writes:.2f}", abs(writes - 2) < 0.05),
    ]
    for size in ("128", "512"):
        if size in tickets:
            share = tickets[size]["cycles_per_s"] / rate
            text = f"{tickets[size]['cycles_per_s']:.0f} cycles/s, {share - 1:+.0%}"
            listed.append(Target(f"tickets, {size} contenders", "as at 32, ± 20 %", text, share >= 0.8))
    listed.append(_ratio("annotations, 32 contenders", annotations["32"]["cycles_per_s"], plain, "the seed's loop", 2))
    if "128" in annotations:
        share = annotations["128"]["cycles_per_s"] / annotations["32"]["cycles_per_s"]
        text = f"{annotations['128']['cycles_per_s']:.1f} cycles/s, {share:.0%} of 32"
        listed.append(Target("annotations, 128 contenders", "no collapse (≥ half of 32)", text, share >= 0.5))
    return listed


def _ratio(what: str, rate: float, base: float, base_name: str, least: float) -> Target:
    text = f"{rate:.1f} / {base:.1f} cycles/s = {rate / base:.2f} x"
    return Target(what, f"≥ {least:g} times {base_name}", text, rate >= least * base)


def faults(found: Figures) -> list[str]:
    """What must never be seen with our engines: two holders of one permit, or a fence that did not grow."""
    contests = [
        (f"{system}, {size} contenders", figures)
        for system, sizes in found.get("contention_runs", {}).items()
        for size, runs in sizes.items()
        for figures in runs.values()
        if system in OURS
    ]
    contests += [
        (f"{engine} with own watches, {size} contenders", figures)
        for engine, sizes in found.get("own_watches", {}).items()
        for size, figures in sizes.items()
    ]
    kinds = ("overlaps", "fences_not_growing")
    seen = [f"{what}: {kind} {figures[kind]}" for what, figures in contests for kind in kinds if figures[kind]]
    for engine, figures in found.get("take_over", {}).items():
        if figures["fences_not_growing"]:
            seen.append(f"take-over, {engine}: fences_not_growing {figures['fences_not_growing']}")
    return seen


# ---------------------------------------------------------------------------------------------- tables


def blocks(found: Figures) -> dict[str, str]:
    """The text of every marked place of the page."""
    made: dict[str, Callable[[Figures], str]] = {
        "machine": _machine,
        "targets": _targets_table,
        "contention": _contention_table,
        "own_watches": _own_watches_table,
        "cores": _cores_table,
        "cycle": _cycle_table,
        "ceiling": _ceiling_table,
        "holders": _holders_table,
        "sidecar": _sidecar_table,
    }
    needs = {
        "machine": "machine",
        "targets": "machine",
        "cores": "contention",
        "cycle": "contention",
        "holders": "take_over",
    }
    return {name: make(found) for name, make in made.items() if needs.get(name, name) in found}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)])


def _machine(found: Figures) -> str:
    machine = found["machine"]
    versions = [f"kube-apiserver {found['kubernetes']}"]
    peers = {name: peer["about"] for name, peer in found.get("peers", {}).items()}
    versions += [
        f"{NAMES[n].removesuffix(' lock')} {about['version']}" for n, about in peers.items() if "version" in about
    ]
    packages = [f"{name} {version}" for name, version in machine["packages"].items()]
    absent = [f"{NAMES[n]}: absent ({about['absent']})" for n, about in peers.items() if "absent" in about]
    lines = [
        f"Measured at {machine['at']} on {sentence(machine)}; {', '.join(versions)}; "
        f"{', '.join(packages)}; commit {machine['commit']}"
        + (f" and {machine['changed_files']} changed files" if machine["changed_files"] else "")
        + f". Load before the run {machine['load_1_min']}, at its end {machine.get('load_1_min_after', '-')}; "
        f"the run took {found.get('minutes', 0):.0f} minutes.",
        *absent,
    ]
    return "\n\n".join(lines)


def _targets_table(found: Figures) -> str:
    return targets_table(targets(found))


def targets_table(listed: Iterable[Target]) -> str:
    rows = [(t.what, t.wanted, t.measured, "yes" if t.met else "**no**") for t in listed]
    return table(("what", "wanted", "measured", "met"), rows)


def _contention_table(found: Figures) -> str:
    contention = found["contention"]
    naive = contention["naive"]
    ceiling = found.get("ceiling", {}).get("1", {}).get("cycles_per_s")
    parts = []
    for size in contention["tickets"]:
        rows = []
        for name, sizes in _series(found).items():
            if size in sizes:
                rows.append(_contention_row(name, sizes[size], naive[size]["cycles_per_s"], ceiling))
        head = (
            "",
            "cycles/s",
            "to the seed's loop",
            "to the ceiling",
            "hand-off p50 / p99",
            "writes a cycle",
            "worst wait",
            "Jain",
        )
        parts.append(f"**{size} contenders**\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _contention_row(name: str, f: Figures, naive: float, ceiling: float | None) -> tuple[str, ...]:
    handoff = f["handoff_ms"]
    rate = f["cycles_per_s"]
    runs = f" ({', '.join(f'{r:.0f}' for r in f['runs'])})" if len(f.get("runs", ())) > 1 else ""
    bold = "**" if name in OURS else ""
    return (
        f"{bold}{NAMES[name]}{bold}",
        f"{bold}{rate:,.1f}{bold}{runs}",
        f"{rate / naive:.2f}" if naive else "-",
        f"{rate / ceiling:.2f}" if ceiling and (name in OURS or name.startswith("naive")) else "-",
        f"{handoff['p50']:.1f} / {handoff['p99']:.1f} ms" if handoff else "no hand-off",
        f"{f['writes_per_cycle']:.2f}" if f["writes_per_cycle"] is not None else "-",
        f"{f['worst_wait_s']:.1f} s",
        f"{f['jain']:.3f}" if f["jain"] is not None else "-",
    )


def _own_watches_table(found: Figures) -> str:
    rows = []
    for engine, sizes in found["own_watches"].items():
        for size, f in sizes.items():
            handoff = f["handoff_ms"]
            rows.append(
                (
                    NAMES[engine],
                    size,
                    f"{f['cycles_per_s']:.1f}",
                    f"{handoff['p50']:.1f} / {handoff['p99']:.1f} ms" if handoff else "no hand-off",
                    f"{f['writes_per_cycle']:.2f}" if f["writes_per_cycle"] is not None else "-",
                    f"{f['worst_wait_s']:.1f} s",
                    f"{f['jain']:.3f}" if f["jain"] is not None else "-",
                    f"{f['cores'].get('contenders', 0):.2f}",
                    f"{f['cores'].get('kube-apiserver', 0):.2f}",
                )
            )
    head = ("", "contenders", "cycles/s", "hand-off p50 / p99", "writes a cycle", "worst wait", "Jain")
    return table((*head, "cores: contenders", "kube-apiserver"), rows)


def _cores_table(found: Figures) -> str:
    rows = []
    for name, sizes in found["contention"].items():
        for size, f in sizes.items():
            cores = [f"{f['cores'].get(who, 0):.2f}" for who in CORES]
            rows.append((NAMES[name], size, *cores))
    return table(("", "contenders", *CORES), rows)


CORES = ("contenders", "contenders, busiest", "kube-apiserver", "etcd", "kube-controller-manager", "others")


def _cycle_table(found: Figures) -> str:
    """What one cycle costs: requests, refused writes, milliseconds of CPU time by whose they are."""
    rows = []
    for name, sizes in found["contention"].items():
        for size, f in sizes.items():
            if not f["cycles"]:
                rows.append((NAMES[name], size, *["-"] * 6))
                continue
            ms = {who: cores * f["seconds"] * 1000 / f["cycles"] for who, cores in f["cores"].items()}
            reads = f["requests"].get("GET", 0) / f["cycles"]
            rows.append(
                (
                    NAMES[name],
                    size,
                    f"{f['writes_per_cycle']:.2f}",
                    f"{reads:.2f}",
                    f"{ms['contenders']:.1f} ms",
                    f"{ms['kube-apiserver']:.1f} ms",
                    f"{ms['etcd']:.1f} ms",
                    f"{1000 / f['cycles_per_s']:.1f} ms",
                )
            )
    head = ("", "contenders", "writes", "reads", "CPU: contenders", "kube-apiserver", "etcd", "time of a cycle")
    return table(head, rows)


def _ceiling_table(found: Figures) -> str:
    rows = []
    for clients in ("1", "16"):
        f = found["ceiling"][clients]
        create, delete = f["create_ms"], f["delete_ms"]
        rows.append(
            (
                clients,
                f"{f['cycles_per_s']:.0f}",
                f"{create['p50']:.1f} / {create['p99']:.1f} ms",
                f"{delete['p50']:.1f} / {delete['p99']:.1f} ms",
            )
        )
    lag = found["ceiling"]["watch_lag"]
    text = lag["after_delete_answered_ms"]
    note = (
        f"A watch shows a delete {text['p50']:.1f} ms (p50; p99 {text['p99']:.1f} ms) after its answer, "
        f"over {lag['rounds']} deletes by one client."
    )
    return table(("clients", "pairs/s", "create p50 / p99", "delete p50 / p99"), rows) + "\n\n" + note


def _holders_table(found: Figures) -> str:
    rows = []
    for engine in found["take_over"]:
        over = found["take_over"][engine]
        cold = found.get("cold_start", {}).get(engine)
        row = [NAMES[engine]]
        if cold:
            kinds = ", ".join(
                f"{count:g} {method}" for method, count in sorted(cold["requests_by_method_each"].items())
            )
            row += [f"{cold['seconds_until_all']:.1f} s for {cold['claimed']}", f"{kinds}"]
        else:
            row += ["-", "-"]
        seconds = over["seconds"]
        row.append(f"{seconds['p50'] * 1000:.0f} / {seconds['p99'] * 1000:.0f} ms over {over['rounds']} deaths")
        rows.append(row)
    return table(("", "cold start", "requests of each (mean)", "take-over p50 / p99"), rows)


def _sidecar_table(found: Figures) -> str:
    rows = []
    for engine, by_others in found["sidecar"].items():
        for others, f in by_others.items():
            memory, cpu = f["memory_mib"], f["cpu_seconds_per_minute"]
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(f["requests"].items())) or "none"
            rows.append(
                (
                    NAMES[engine],
                    others,
                    " / ".join(f"{role['resident']:.1f}" for role in memory.values()) + " MiB",
                    " / ".join(f"{role['own']:.1f}" for role in memory.values()) + " MiB",
                    " / ".join(f"{seconds:.2f}" for seconds in cpu.values()) + " s",
                    f"{f['requests_per_minute']:.1f} ({kinds} in {f['seconds']:.0f} s)",
                )
            )
    head = (
        "holder / waiter",
        "other Pods",
        "resident",
        "of that its own",
        "CPU a minute",
        "requests a minute (waiter)",
    )
    return table(head, rows)


# ---------------------------------------------------------------------------------------------- plots


def plots(found: Figures, out: Path) -> None:
    """Draw what the tables say: `semaphore-contention.png` and `semaphore-handoff.png`."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    if "contention" in found:
        _plot_contention(found, out / "semaphore-contention.png")
        _plot_handoff(found, out / "semaphore-handoff.png")


def _series(found: Figures) -> dict[str, dict[str, Figures]]:
    """Every system that contended, by size."""
    peers = {
        name: {size: figures for size, figures in peer.items() if size != "about"}
        for name, peer in found.get("peers", {}).items()
    }
    return {**found["contention"], **{name: sizes for name, sizes in peers.items() if sizes}}


def _plot_contention(found: Figures, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), sharex=True)
    panels = (
        (axes[0], "cycles per second, 1 permit", lambda f: f["cycles_per_s"] or None),
        (axes[1], "worst wait, seconds", lambda f: f["worst_wait_s"] or None),
    )
    for axis, title, value in panels:
        for name, sizes in _series(found).items():
            points = [(int(size), value(f)) for size, f in sizes.items() if value(f)]
            ours = name in OURS
            axis.plot(
                *zip(*points, strict=True),
                color=COLOURS[name],
                marker="o",
                markersize=5 if ours else 3.5,
                linewidth=2.4 if ours else 1.3,
                linestyle="-" if ours or name.startswith("naive") else "--",
                label=NAMES[name],
            )
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        sizes_shown = sorted({int(size) for sizes in _series(found).values() for size in sizes})
        axis.set_xticks(sizes_shown, [str(size) for size in sizes_shown])
        axis.minorticks_off()
        axis.yaxis.set_major_formatter(lambda y, _position: f"{y:g}")
        axis.grid(axis="y", color="#e5e5e5")
        axis.set_xlabel("contenders")
    if "ceiling" in found:
        rate = found["ceiling"]["1"]["cycles_per_s"]
        axes[0].axhline(rate, color="black", linewidth=0.8, linestyle=":")
        axes[0].annotate(
            "the API server's create + delete, one client",
            (0.02, rate / 1.08),
            xycoords=("axes fraction", "data"),
            va="top",
            fontsize=8,
        )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _plot_handoff(found: Figures, path: Path) -> None:
    from matplotlib import pyplot

    size = "32"
    rows = [
        (name, sizes[size]) for name, sizes in _series(found).items() if size in sizes and sizes[size]["handoff_ms"]
    ]
    figure, axis = pyplot.subplots(figsize=(8, 0.5 * len(rows) + 1.4))
    for y, (name, figures) in enumerate(reversed(rows)):
        handoff = figures["handoff_ms"]
        axis.plot([handoff["p50"], handoff["p99"]], [y, y], color=COLOURS[name], linewidth=6, alpha=0.45)
        axis.plot([handoff["p50"]], [y], "o", color=COLOURS[name], markersize=9)
        text = f"  {handoff['p50']:.1f} / {handoff['p99']:.0f} ms"
        axis.annotate(text, (handoff["p99"], y), va="center", fontsize=9)
    axis.set_yticks(range(len(rows)), [NAMES[name] for name, _figures in reversed(rows)])
    axis.set_xscale("log")
    axis.set_xlim(right=4 * max(figures["handoff_ms"]["p99"] for _name, figures in rows))
    axis.xaxis.set_major_formatter(lambda x, _position: f"{x:g}")
    axis.grid(axis="x", color="#e5e5e5")
    axis.set_title(f"from release to the next holder, ms: p50 (dot) to p99; {size} contenders", loc="left", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


# ---------------------------------------------------------------------------------------------- the page


def _filled(text: str, match: re.Match[str]) -> str:
    return f"{match[1]}{text}\n{match[2]}"


def fill(path: Path, texts: Mapping[str, str]) -> str:
    """The page with these texts in its marked places; the prose between them stays."""
    page = path.read_text()
    for name, text in texts.items():
        marked = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        page, count = marked.subn(functools.partial(_filled, text), page)
        if count != 1:
            raise SystemExit(f"error: {path} has no place marked {name!r}, or several")
    return page


def _by_size(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Sizes in their order, whatever the order in which they were measured."""
    return dict(sorted(pairs, key=lambda pair: int(pair[0]))) if all(key.isdigit() for key, _ in pairs) else dict(pairs)


def write(out: Path) -> None:
    """Write the page and the plots of `out/semaphore.json`; the prose is that of the page in docs."""
    found = json.loads((out / "semaphore.json").read_text(), object_pairs_hook=_by_size)
    plots(found, out)
    page = fill(PAGE, blocks(found))
    (out / "semaphore.md").write_text(page)
    say(f"written: {out / 'semaphore.md'} and its plots")
    tell(targets(found), faults(found))


def tell(listed: Iterable[Target], faults_seen: Iterable[str]) -> None:
    """What came out, on standard output."""
    for target in listed:
        print(f"{'met   ' if target.met else 'NOT MET'} {target.what}: {target.measured} (wanted {target.wanted})")
    for fault in faults_seen:
        print(f"FAULT {fault}")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE.parent)

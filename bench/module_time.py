# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What one task costs: an empty module, ours, and kubernetes.core's, reading the same ConfigMap.

    python -m bench.module_time [--rounds 10] [--items 6] [--kubeconfig FILE]

The tasks take turns in the same playbooks, so that whatever else the machine does is shared between them. Writes
docs/bench/module-time.json and .png, and the figures in docs/bench/module-time.md.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, NAMESPACES, Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from bench.machine import CHECKOUT, facts, say, sentence, wait_until_quiet

OUT = CHECKOUT / "docs" / "bench"
PACKAGES = ("ansible-core", "urllib3", "kubernetes", "PyYAML")
EMPTY, OURS, THEIRS = "an empty module", "muster.coordination.k8s_semaphore_info", "kubernetes.core.k8s_info"
QUIET = 1.5  # load average
BUSY = (
    "**The machine was busy with other work**: its share in the milliseconds is large. CPU time, memory and the order "
    "of the three can be trusted."
)
COLOURS = {EMPTY: "#9a9a9a", OURS: "#1b7f79", THEIRS: "#4c6ef5"}

# Runs Python and adds a line: largest resident size (KiB), CPU time (s); of the module's process alone.
MEASURED_PYTHON = """#!{python}
import resource, subprocess, sys
code = subprocess.call([{python!r}, *sys.argv[1:]])
with open({used!r}, "a") as file:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    file.write(f"{{used.ru_maxrss}} {{used.ru_utime + used.ru_stime}}\\n")
sys.exit(code)
"""


def playbook(kubeconfig: str, namespace: str, items: int) -> list[dict[str, Any]]:
    """One play with the three tasks, each a loop over `items` items."""
    common = {"kubeconfig": kubeconfig, "namespace": namespace, "name": "semaphore"}
    tasks: dict[str, dict[str, Any]] = {
        EMPTY: {"empty": {}},
        OURS: {OURS: common},
        THEIRS: {THEIRS: {**common, "api_version": "v1", "kind": "ConfigMap"}},
    }
    loop = list(range(items))
    listed = [{"name": name, **action, "loop": loop} for name, action in tasks.items()]
    return [{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": listed}]


def run(directory: Path, plays: list[dict[str, Any]], python: str) -> dict[str, list[float]]:
    """Run the play; returns milliseconds of each item of each task, the first of a loop (which builds it) left out."""
    times = directory / "times"
    times.unlink(missing_ok=True)
    (directory / "playbook.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    environ = {
        **os.environ,
        "ANSIBLE_LIBRARY": str(CHECKOUT / "bench" / "library"),
        "ANSIBLE_CALLBACK_PLUGINS": str(CHECKOUT / "bench" / "callback_plugins"),
        "ANSIBLE_CALLBACKS_ENABLED": "item_times",
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
        "BENCH_TIMES": str(times),
    }
    command = [str(Path(sys.executable).with_name("ansible-playbook")), str(directory / "playbook.yml")]
    command += ["--extra-vars", json.dumps({"ansible_python_interpreter": python})]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: {shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
    stamps: dict[str, list[float]] = {}
    for line in times.read_text().splitlines():
        stamp = json.loads(line)
        if stamp["what"] == "item":
            stamps.setdefault(stamp["task"], []).append(stamp["at"])
    return {task: [(later - earlier) * 1000 for earlier, later in pairwise(at)] for task, at in stamps.items()}


def processes(directory: Path, kubeconfig: str, namespace: str) -> dict[str, dict[str, float]]:
    """Of each module's process: the largest resident size (MiB) and the CPU time (ms), medians of ten runs."""
    wrapper, record = directory / "measured-python", directory / "used"
    wrapper.write_text(MEASURED_PYTHON.format(python=sys.executable, used=str(record)))
    wrapper.chmod(0o755)
    found = {}
    (play,) = playbook(kubeconfig, namespace, 10)
    for task in play["tasks"]:
        record.unlink(missing_ok=True)
        run(directory, [{**play, "tasks": [task]}], str(wrapper))
        lines = [line.split() for line in record.read_text().splitlines()]
        found[task["name"]] = {
            "resident_mib": round(statistics.median(int(size) / 1024 for size, _ in lines), 1),
            "cpu_ms": round(statistics.median(float(seconds) * 1000 for _, seconds in lines), 1),
        }
    return found


def measure(kubeconfig: str, rounds: int, items: int) -> dict[str, Any]:
    """All figures, from `rounds` playbooks of `items` + 1 items a task."""
    api = Api(Credentials.load({"kubeconfig": kubeconfig}))
    namespace = api.create(NAMESPACES, {"metadata": {"generateName": "muster-bench-"}})["metadata"]["name"]
    annotations = {"distributor_capacity": '{"licence": 1}', "distributor_assignment": "{}"}
    metadata = {"name": "semaphore", "namespace": namespace, "annotations": annotations}
    api.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    found: dict[str, list[float]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="muster-bench-") as name:
            directory = Path(name)
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}")
                for task, times in run(directory, playbook(kubeconfig, namespace, items + 1), sys.executable).items():
                    found.setdefault(task, []).extend(times)
            say("memory and CPU time")
            used = processes(directory, kubeconfig, namespace)
    finally:
        api.delete(NAMESPACES, namespace)
        api.close()
    return {
        "machine": facts(PACKAGES),
        "rounds": rounds,
        "items": items,
        "milliseconds": {task: summary(times) for task, times in found.items()},
        "processes": used,
    }


def summary(times: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and number of the times (ms)."""
    low, middle, high = statistics.quantiles(times, n=4)
    return {"p25": round(low, 1), "p50": round(middle, 1), "p75": round(high, 1), "count": len(times)}


# -- the page ---------------------------------------------------------------------------------------------------------


def table(found: dict[str, Any]) -> str:
    """The figures as a table, the empty module's cost taken off in its own column."""
    times, used = found["milliseconds"], found["processes"]
    empty = times[EMPTY]["p50"]
    lines = [
        "| task | ms, median (quartiles) | above an empty module | CPU time of the module | its resident size |",
        "|---|---|---|---|---|",
    ]
    for task in (EMPTY, OURS, THEIRS):
        time, name = times[task], task if task == EMPTY else f"`{task}`"
        above = "" if task == EMPTY else f"{time['p50'] - empty:.0f} ms"
        spread = f"{time['p50']:.0f} ({time['p25']:.0f} to {time['p75']:.0f})"
        own = f"{used[task]['cpu_ms']:.0f} ms | {used[task]['resident_mib']:.0f} MiB"
        lines.append(f"| {name} | {spread} | {above} | {own} |")
    ours, theirs = times[OURS]["p50"], times[THEIRS]["p50"]
    ratio = (theirs - empty) / (ours - empty)
    lines += [
        "",
        f"A task of `kubernetes.core.k8s_info` takes {theirs / ours:.1f} times as long as ours; "
        f"what it adds to an empty module is {ratio:.1f} times as much.",
        "",
        f"{found['rounds']} playbooks, {times[OURS]['count']} items a task. Measured on {sentence(found['machine'])}; "
        f"load before: {found['machine']['load_1_min']}. "
        + ", ".join(f"{name} {version}" for name, version in found["machine"]["packages"].items())
        + f". Commit {found['machine']['commit']}.",
    ]
    if found["machine"]["load_1_min"] > QUIET:
        lines += ["", BUSY]
    return "\n".join(lines)


def write(found: dict[str, Any]) -> None:
    """The figures, the plot, and the table in the page between its marks."""
    (OUT / "module-time.json").write_text(json.dumps(found, indent=2) + "\n")
    page = OUT / "module-time.md"
    marked = re.compile(r"(<!-- begin figures -->\n).*?(<!-- end figures -->)", re.DOTALL)
    text, count = marked.subn(lambda match: f"{match[1]}{table(found)}\n{match[2]}", page.read_text())
    if count != 1:
        raise SystemExit(f"error: {page} has no place marked 'figures', or several")
    page.write_text(text)
    plot(found, OUT / "module-time.png")
    say(f"written: {page}, with its figures and plot")


def plot(found: dict[str, Any], path: Path) -> None:
    """Bars: milliseconds and MiB of each task."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    from matplotlib import pyplot

    tasks = [THEIRS, OURS, EMPTY]
    colours = [COLOURS[task] for task in tasks]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 2.4), sharey=True, layout="constrained")
    times = [found["milliseconds"][task] for task in tasks]
    middle = [time["p50"] for time in times]
    spread = [[t["p50"] - t["p25"] for t in times], [t["p75"] - t["p50"] for t in times]]
    bars = left.barh(tasks, middle, color=colours, xerr=spread, error_kw={"ecolor": "#555555", "elinewidth": 1})
    left.bar_label(bars, fmt=" %.0f", padding=6)
    left.set_xlabel("milliseconds a task (median, quartiles)")
    bars = right.barh(tasks, [found["processes"][task]["resident_mib"] for task in tasks], color=colours)
    right.bar_label(bars, fmt=" %.0f")
    right.set_xlabel("largest resident size, MiB")
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time and memory of one task; writes docs/bench/module-time.*")
    parser.add_argument("--rounds", type=int, default=10, help="playbooks to run (10)")
    parser.add_argument("--items", type=int, default=6, help="measured items a task and playbook (6)")
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG"), help="the cluster (KUBECONFIG)")
    options = parser.parse_args(arguments)
    if not options.kubeconfig:
        parser.error("no cluster: name one by --kubeconfig or KUBECONFIG")
    if not wait_until_quiet(QUIET):
        say("the machine is still busy: the times will say more about that than about the modules")
    write(measure(options.kubeconfig, options.rounds, options.items))


if __name__ == "__main__":
    main()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that proves the project, in order: `make test`. Each part is a make target, and can be run alone.

A part that fails does not keep the others from running; those which need it are counted as failed, never left out.
The programs of the embedded cluster are built in the background meanwhile. Clusters that were not there are removed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
REPORTS = CHECKOUT / "build" / "junit"
INSTALL_LOG = CHECKOUT / "build" / "cluster-install.log"
CONTROL_PLANE, NODE = "control-plane", "node"
MESSAGE_LINES, LONGEST_LINE = 15, 300  # of the failure of one test, in the summary


class Part(NamedTuple):
    """One make target; `needs` are targets that must have passed.

    `is_patient`: it only computes, so it runs in the background, in the time that the parts after it leave idle.
    """

    target: str
    proves: str
    needs: tuple[str, ...] = ()
    is_patient: bool = False


PARTS = (
    Part("lint", "style, types, YAML, Ansible, shell, licences, changelog"),
    Part("build", "the tarball and the wheel"),
    Part("sanity", "ansible-test sanity on the tarball's content", ("build",)),
    Part("docs", "documentation of every module; the site", ("build",)),
    Part("galaxy", "what Galaxy and an execution environment check", ("build",)),
    Part("test-unit", "the code, without a cluster"),
    Part("test-packaging", "what is in the tarball, and that the wheel works alone", ("build",)),
    Part("cluster-install", "programs of the embedded cluster"),
    Part("test-model", "the decisions: random histories, and every state of small worlds", is_patient=True),
    Part("lint-charts", "the Helm charts", ("cluster-install",)),
    Part("test-cluster", "the embedded cluster: start, stop, crash, two side by side", ("cluster-install",)),
    Part("test-integration", "client, modules and sidecar on a real kube-apiserver", ("cluster-install",)),
    Part("test-mutants", "planted bugs, each of them caught", ("cluster-install",)),
    Part("test-browser", "the allocator's page in a real browser", ("cluster-install",)),
    Part("image", "the image, loaded into a real node", ("build", "cluster-install")),
    Part("test-molecule", "role, chart and sidecar on real Pods", ("image",)),
    Part("test-installed", "the playbook out of the installed tarball, from a terminal and as AWX does", ("image",)),
)


class Outcome(NamedTuple):
    part: Part
    passed: bool
    seconds: float
    remark: str = ""


def main() -> int:
    shutil.rmtree(REPORTS, ignore_errors=True)
    begun = time.monotonic()
    with clusters_as_they_were(), background_install() as install:
        outcomes = run_all(PARTS, install)
    return summary(outcomes, time.monotonic() - begun)


def run_all(parts: tuple[Part, ...], install: subprocess.Popen[bytes]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    patient: list[tuple[Part, float, subprocess.Popen[bytes]]] = []
    for number, part in enumerate(parts, start=1):
        failed = {outcome.part.target for outcome in outcomes if not outcome.passed}
        missing = [need for need in part.needs if need in failed]
        say(f"part {number} of {len(parts)}: make {part.target} - {part.proves}")
        if missing:
            outcomes.append(Outcome(part, False, 0.0, f"not run: {', '.join(missing)} failed"))
            say(outcomes[-1].remark)
            continue
        begun = time.monotonic()
        if part.is_patient:
            patient.append((part, time.time(), in_background(part)))
            say(f"make {part.target} goes on in the background")
            continue
        if part.target == "cluster-install":
            show_until_it_ends(install)
        passed = subprocess.run(["make", "--keep-going", part.target], cwd=CHECKOUT).returncode == 0
        outcomes.append(ended(part, time.monotonic() - begun, passed))
    for part, begun, process in patient:  # its log was written last when it ended
        passed = process.wait() == 0
        say(f"make {part.target}, which ran in the background:")
        print(background_log(part).read_text(), flush=True)
        outcomes.append(ended(part, background_log(part).stat().st_mtime - begun, passed))
    return outcomes


def ended(part: Part, seconds: float, passed: bool) -> Outcome:
    outcome = Outcome(part, passed, seconds)
    say(f"make {part.target}: {'passed' if passed else 'FAILED'} after {outcome.seconds:.0f} s")
    return outcome


def in_background(part: Part) -> subprocess.Popen[bytes]:
    with background_log(part).open("w") as log:
        command = ["nice", "-n", "19", "make", "--keep-going", part.target]
        return subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def background_log(part: Part) -> Path:
    return CHECKOUT / "build" / f"{part.target}.log"


@contextlib.contextmanager
def background_install() -> Iterator[subprocess.Popen[bytes]]:
    """Build the cluster's programs (16 minutes, once) beside the parts that need none."""
    INSTALL_LOG.parent.mkdir(exist_ok=True)
    with INSTALL_LOG.open("w") as log:
        command = ["nice", sys.executable, "-m", "cluster", "install", "--level", NODE]
        process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def show_until_it_ends(process: subprocess.Popen[bytes]) -> None:
    with INSTALL_LOG.open() as log:
        while process.poll() is None:
            print(log.read(), end="", flush=True)
            time.sleep(1)
        print(log.read(), end="", flush=True)


@contextlib.contextmanager
def clusters_as_they_were() -> Iterator[None]:
    """At the end remove the clusters that did not run at the start."""
    started = [level for level in (CONTROL_PLANE, NODE) if cluster("status", "--level", level, quiet=True) != 0]
    try:
        yield
    finally:
        for level in started:
            cluster("down", "--level", level)


def cluster(*arguments: str, quiet: bool = False) -> int:
    command = [sys.executable, "-m", "cluster", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=quiet).returncode


def summary(outcomes: list[Outcome], seconds: float) -> int:
    """Print a table of the parts and, last, the tests of all pytest runs and the other parts, added up."""
    say(f"summary, after {seconds / 60:.1f} minutes")
    for outcome in outcomes:
        word = "passed" if outcome.passed else "FAILED"
        print(f"  {word}  {outcome.seconds:6.0f} s  {outcome.part.target:<18} {outcome.remark}")
    for name, message in not_passed():
        print(f"  FAILED  {name}")
        print(indent(message, " " * 10), end="")
    passed, failed, skipped = reports()
    for outcome in outcomes:
        counted = (REPORTS / f"{outcome.part.target}.xml").exists()
        passed += outcome.passed and not counted
        failed += not outcome.passed and not counted
    broken = [outcome for outcome in outcomes if not outcome.passed]
    failed = max(failed, len(broken))  # a pytest run that died without a failed test counts, too
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if broken else 0


def not_passed() -> list[tuple[str, str]]:
    """The tests that failed, and how: the end of a long log is all that some people get to see."""
    return [
        (f"{path.stem}: {case.get('classname')}::{case.get('name')}", beginning_of(trouble))
        for path in sorted(REPORTS.glob("*.xml"))
        for case in ElementTree.parse(path).getroot().iter("testcase")
        if (trouble := next((each for each in case if each.tag in ("failure", "error")), None)) is not None
    ]


def beginning_of(trouble: ElementTree.Element) -> str:
    """The first lines of what pytest says of a failure: what was found, not where."""
    lines = [line[:LONGEST_LINE] for line in (trouble.get("message") or trouble.text or "").strip().splitlines()]
    more = [f"… and {len(lines) - MESSAGE_LINES} lines more"] if len(lines) > MESSAGE_LINES else []
    return "".join(f"{line}\n" for line in [*lines[:MESSAGE_LINES], *more])


def reports() -> tuple[int, int, int]:
    """(passed, failed, skipped) of all that pytest reported."""
    passed = failed = skipped = 0
    for path in sorted(REPORTS.glob("*.xml")):
        for suite in ElementTree.parse(path).getroot().iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            left_out = int(suite.get("skipped", 0))
            failed, skipped = failed + bad, skipped + left_out
            passed += int(suite.get("tests", 0)) - bad - left_out
    return passed, failed, skipped


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

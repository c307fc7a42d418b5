# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a bug is planted in a copy of the checkout, and how it is seen that a suite catches it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]  # of pytest, in a copy of the tree, with these arguments
SOME_FAILED = 1  # pytest's exit code; others are mistakes of the test itself


def copy_of_the_tree(where: Path) -> Path:
    """A collections tree with a copy of the code and its tests, which Python finds before the checkout."""
    there = where / "ansible_collections/muster/coordination"
    there.mkdir(parents=True)
    for name in ("plugins", "tests"):
        shutil.copytree(ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__", "output", "mutants"))
    shutil.copy(ROOT / "pyproject.toml", there)
    shutil.copytree(ROOT / "muster", where / "muster", ignore=shutil.ignore_patterns("__pycache__"))
    (there / "muster").symlink_to(where / "muster")
    return there


def run_pytest(there: Path, *arguments: str, patience: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
    """pytest in the copy, until the first test fails; `patience` in seconds."""
    own = {"PYTHONPATH": str(there.parents[2]), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    env = {**os.environ, **own, **environ}
    return subprocess.run(command, cwd=there, env=env, capture_output=True, text=True, timeout=patience)


def with_the_bug(mutant: Mutant, there: Path) -> str:
    """What the bug makes of its file in this tree."""
    source = (there / mutant.file).read_text()
    for old, new in mutant.edits:
        assert source.count(old) == 1, f"{mutant.name}: {old!r} stands {source.count(old)} times in {mutant.file}"
        source = source.replace(old, new)
    return source


def plant(mutant: Mutant, there: Path) -> None:
    source = with_the_bug(mutant, there)
    compile(source, mutant.file, "exec")
    (there / mutant.file).write_text(source)


def assert_what_runs_is_the_copy(mutant: Mutant, there: Path, run: Run, *arguments: str) -> None:
    """A mistake in the mutant's file is seen by those who run pytest with these arguments."""
    marker = there / mutant.file
    marker.write_text(marker.read_text() + "\nraise RuntimeError('the copy is what runs')\n")
    assert "the copy is what runs" in run(there, *arguments).stdout


def assert_caught(
    mutant: Mutant, suite: str, done: subprocess.CompletedProcess[str], record_property: Callable[[str, object], None]
) -> None:
    failure = next((line for line in done.stdout.splitlines() if line.startswith("FAILED")), "")
    assert done.returncode == SOME_FAILED and failure, (  # an error of the set-up catches nothing
        f"{mutant.name} ({mutant.breaks}) was not caught by {suite}:\n{done.stdout[-3000:]}"
    )
    record_property("caught by", failure)
    print(f"{mutant.breaks} | {mutant.name} | {failure}")


class PlantedBugs:
    """The tests of a table of bugs: MUTANTS, and SUITES with the pytest arguments of each."""

    table: ModuleType
    run: Run = staticmethod(run_pytest)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "mutant" in metafunc.fixturenames:
            each = [
                pytest.param(mutant, suite, id=f"{mutant.breaks}: {mutant.name}, by {suite}")
                for mutant in self.table.MUTANTS
                for suite in mutant.caught_by
            ]
            metafunc.parametrize(("mutant", "suite"), each)

    def test_without_a_planted_bug_the_copy_passes_and_is_what_runs(self, tmp_path: Path) -> None:
        there, mutant = copy_of_the_tree(tmp_path), self.table.MUTANTS[0]
        files = {part for suite in self.table.SUITES.values() for part in suite if part.endswith(".py")}
        done = self.run(there, *sorted(files))
        assert done.returncode == 0, done.stdout[-3000:]
        assert_what_runs_is_the_copy(mutant, there, self.run, *self.table.SUITES[mutant.caught_by[0]])

    def test_it_is_caught(self, mutant: Mutant, suite: str, tmp_path: Path, record_property) -> None:
        there = copy_of_the_tree(tmp_path)
        plant(mutant, there)
        assert_caught(mutant, suite, self.run(there, *self.table.SUITES[suite]), record_property)

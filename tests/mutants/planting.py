# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a bug is planted in a copy of the checkout, and how it is seen that a suite catches it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

ROOT = Path(__file__).parents[2]
SOME_FAILED = 1  # pytest's exit code; others are mistakes of the test itself


def copy_of_the_tree(where: Path, *, processes: bool = False) -> Path:
    """A collections tree with a copy of the code and its tests, which Python finds before the checkout.

    `processes`: of the package `muster`, too.
    """
    there = where / "ansible_collections/muster/coordination"
    there.mkdir(parents=True)
    for name in ("plugins", "tests"):
        shutil.copytree(ROOT / name, there / name, ignore=shutil.ignore_patterns("__pycache__", "output", "mutants"))
    shutil.copy(ROOT / "pyproject.toml", there)
    if processes:
        shutil.copytree(ROOT / "muster", where / "muster", ignore=shutil.ignore_patterns("__pycache__"))
        (there / "muster").symlink_to(where / "muster")
    return there


def run_pytest(there: Path, *arguments: str, patience: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
    """pytest in the copy, until the first test fails; `patience` in seconds."""
    own = {"PYTHONPATH": str(there.parents[2]), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    env = {**os.environ, **own, **environ}
    return subprocess.run(command, cwd=there, env=env, capture_output=True, text=True, timeout=patience)


def plant(mutant: Mutant, there: Path) -> None:
    path = there / mutant.file
    source = path.read_text()
    for old, new in mutant.edits:
        assert source.count(old) == 1, f"{mutant.name}: {old!r} stands {source.count(old)} times in {mutant.file}"
        source = source.replace(old, new)
    compile(source, mutant.file, "exec")
    path.write_text(source)


def each_with_its_suites(mutants: Iterable[Mutant]) -> list[Any]:
    """Parameters: a bug, and a suite that has to catch it."""
    return [
        pytest.param(mutant, suite, id=f"{mutant.breaks}: {mutant.name}, by {suite}")
        for mutant in mutants
        for suite in mutant.caught_by
    ]


def assert_caught(
    mutant: Mutant, suite: str, done: subprocess.CompletedProcess[str], record_property: Callable[[str, object], None]
) -> None:
    failure = next((line for line in done.stdout.splitlines() if line.startswith("FAILED")), "")
    assert done.returncode == SOME_FAILED and failure, (  # an error of the set-up catches nothing
        f"{mutant.name} ({mutant.breaks}) was not caught by {suite}:\n{done.stdout[-3000:]}"
    )
    record_property("caught by", failure)
    print(f"{mutant.breaks} | {mutant.name} | {failure}")

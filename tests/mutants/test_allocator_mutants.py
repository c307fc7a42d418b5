# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bug that is planted in what looks after Instances is caught, by each suite that is said to catch it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.mutants.allocator import MUTANTS, PROPERTIES, SUITES
from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant
from ansible_collections.muster.coordination.tests.mutants.test_semaphore_mutants import (
    ROOT,
    SOME_FAILED,
    first_failure,
    plant,
)
from ansible_collections.muster.coordination.tests.mutants.test_semaphore_mutants import (
    copy_of_the_tree as copy_of_the_collection,
)

pytestmark = pytest.mark.mutants
PATIENCE = 600  # seconds of a suite


def copy_of_the_tree(where: Path) -> Path:
    """Also of the processes, beside the collections, where Python finds them before the checkout's."""
    there = copy_of_the_collection(where)
    shutil.copytree(ROOT / "muster", where / "muster", ignore=shutil.ignore_patterns("__pycache__"))
    (there / "muster").symlink_to(where / "muster")
    return there


def run(there: Path, *suites: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(there.parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    environ |= {"HYPOTHESIS_PROFILE": "quick", "PYTEST_ADDOPTS": ""}
    environ |= {"MUSTER_TEST_PATIENCE": "5"}  # seconds in which what a bug prevents is waited for
    files = [file for suite in suites for file in SUITES[suite]]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
    return subprocess.run(command, cwd=there, env=environ, capture_output=True, text=True, timeout=PATIENCE)


def test_without_a_planted_bug_the_copy_passes(tmp_path: Path) -> None:
    done = run(copy_of_the_tree(tmp_path), *SUITES)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("prop", PROPERTIES)
def test_for_each_property_a_bug_is_planted(prop: str) -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.breaks == prop]


def test_each_bug_breaks_something_known_and_has_a_name() -> None:
    assert {mutant.breaks for mutant in MUTANTS} == PROPERTIES.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {suite for mutant in MUTANTS for suite in mutant.caught_by} == SUITES.keys()


@pytest.mark.parametrize(
    ("mutant", "suite"),
    [
        pytest.param(mutant, suite, id=f"{mutant.breaks}: {mutant.name}, by {suite}")
        for mutant in MUTANTS
        for suite in mutant.caught_by
    ],
)
def test_it_is_caught(mutant: Mutant, suite: str, tmp_path: Path, record_property) -> None:
    there = copy_of_the_tree(tmp_path)
    plant(mutant, there)
    done = run(there, suite)
    assert done.returncode == SOME_FAILED and first_failure(done.stdout), (  # an error of the set-up catches nothing
        f"{mutant.name} ({mutant.breaks}) was not caught by {suite}:\n{done.stdout[-3000:]}"
    )
    record_property("caught by", first_failure(done.stdout))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bug that is planted in how a Swarm hands jobs over is caught, by each suite that is said to catch it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant
from ansible_collections.muster.coordination.tests.mutants.swarm import MUTANTS, PROPERTIES, SUITES
from ansible_collections.muster.coordination.tests.mutants.test_semaphore_mutants import (
    SOME_FAILED,
    copy_of_the_tree,
    first_failure,
    plant,
)

pytestmark = pytest.mark.mutants


def run(there: Path, suite: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(there.parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
    environ |= {"HYPOTHESIS_PROFILE": "quick", "MUSTER_SEARCH": "", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *SUITES[suite]]
    return subprocess.run(command, cwd=there, env=environ, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("suite", SUITES)
def test_without_a_planted_bug_the_copy_passes(suite: str, tmp_path: Path) -> None:
    done = run(copy_of_the_tree(tmp_path), suite)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("prop", PROPERTIES)
def test_for_each_property_a_bug_is_planted(prop: str) -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.breaks == prop]


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
    print(f"{mutant.breaks} | {mutant.name} | {first_failure(done.stdout)}")

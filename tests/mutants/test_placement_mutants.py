# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bug that is planted in the placement of jobs is caught, by each suite that is said to catch it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.mutants.placement import MUTANTS, PROPERTIES, SUITES
from ansible_collections.muster.coordination.tests.mutants.planting import (
    assert_caught,
    copy_of_the_tree,
    each_with_its_suites,
    plant,
    run_pytest,
)
from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

pytestmark = pytest.mark.mutants


def run(there: Path, suite: str) -> subprocess.CompletedProcess[str]:
    return run_pytest(there, *SUITES[suite], HYPOTHESIS_PROFILE="quick", MUSTER_PLACEMENT_WORLDS="400")


@pytest.mark.parametrize("suite", SUITES)
def test_without_a_planted_bug_the_copy_passes(suite: str, tmp_path: Path) -> None:
    done = run(copy_of_the_tree(tmp_path), suite)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("prop", PROPERTIES)
def test_for_each_property_a_bug_is_planted(prop: str) -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.breaks == prop]


@pytest.mark.parametrize(("mutant", "suite"), each_with_its_suites(MUTANTS))
def test_it_is_caught(mutant: Mutant, suite: str, tmp_path: Path, record_property) -> None:
    there = copy_of_the_tree(tmp_path)
    plant(mutant, there)
    assert_caught(mutant, suite, run(there, suite), record_property)

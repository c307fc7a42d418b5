# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bug that is planted in the decisions about partitions is caught, by each suite that is said to catch it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.mutants.partitions import MUTANTS, PROPERTIES, SUITES
from ansible_collections.muster.coordination.tests.mutants.planting import (
    assert_caught,
    copy_of_the_tree,
    each_with_its_suites,
    plant,
    run_pytest,
)
from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

pytestmark = pytest.mark.mutants
PATIENCE = 900  # seconds of a suite


def run(there: Path, *suites: str) -> subprocess.CompletedProcess[str]:
    files = [file for suite in suites for file in SUITES[suite]]
    return run_pytest(there, *files, patience=PATIENCE, HYPOTHESIS_PROFILE="quick")


def test_without_a_planted_bug_the_copy_passes(tmp_path: Path) -> None:
    done = run(copy_of_the_tree(tmp_path), *SUITES)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("prop", PROPERTIES)
def test_for_each_property_a_bug_is_planted(prop: str) -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.breaks == prop]


def test_each_bug_breaks_something_known_and_has_a_name() -> None:
    assert {mutant.breaks for mutant in MUTANTS} == PROPERTIES.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {suite for mutant in MUTANTS for suite in mutant.caught_by} <= SUITES.keys()


@pytest.mark.parametrize(("mutant", "suite"), each_with_its_suites(MUTANTS))
def test_it_is_caught(mutant: Mutant, suite: str, tmp_path: Path, record_property) -> None:
    there = copy_of_the_tree(tmp_path)
    plant(mutant, there)
    assert_caught(mutant, suite, run(there, suite), record_property)

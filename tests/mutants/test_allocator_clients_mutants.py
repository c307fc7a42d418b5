# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bug that is planted in the clients of an allocator is caught, by each test that is said to catch it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.mutants.allocator_clients import FILES, MUTANTS, PROPERTIES, SUITES
from ansible_collections.muster.coordination.tests.mutants.planting import (
    assert_caught,
    copy_of_the_tree,
    each_with_its_suites,
    plant,
    run_pytest,
)
from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

pytestmark = pytest.mark.mutants
PATIENCE = 300  # seconds of a suite: who waits in vain does so for a minute, and what fails at random is made small


def test_without_a_planted_bug_the_copy_passes_and_is_what_runs(tmp_path: Path) -> None:
    there = copy_of_the_tree(tmp_path, processes=True)
    for file in FILES.values():
        done = run_pytest(there, file, patience=PATIENCE)
        assert done.returncode == 0, done.stdout[-3000:]
    marker = there / "muster/allocator/client_cli.py"
    marker.write_text(marker.read_text() + "\nraise RuntimeError('the copy is what runs')\n")
    assert "the copy is what runs" in run_pytest(there, FILES["cli"], patience=PATIENCE).stdout


@pytest.mark.parametrize("prop", PROPERTIES)
def test_for_each_property_a_bug_is_planted(prop: str) -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.breaks == prop]


def test_each_bug_breaks_something_known_and_has_a_name() -> None:
    assert {mutant.breaks for mutant in MUTANTS} == PROPERTIES.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(("mutant", "suite"), each_with_its_suites(MUTANTS))
def test_it_is_caught(mutant: Mutant, suite: str, tmp_path: Path, record_property) -> None:
    there = copy_of_the_tree(tmp_path, processes=True)
    plant(mutant, there)
    assert_caught(mutant, suite, run_pytest(there, *SUITES[suite], patience=PATIENCE), record_property)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every planted bug is caught, by each suite that is said to catch it. The checkout is copied, never changed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.mutants import controllers, faults, tickets
from ansible_collections.muster.coordination.tests.mutants.planting import (
    assert_caught,
    assert_what_runs_is_the_copy,
    copy_of_the_tree,
    plant,
    run_pytest,
)
from ansible_collections.muster.coordination.tests.mutants.semaphore import (
    CLUSTER,
    MODEL,
    MUTANTS,
    PROPERTY,
    UNIT,
    Mutant,
)

PLANTED = {  # by engine; those on tickets are caught by suites of their own
    "annotations": MUTANTS,
    "tickets": [
        mutant if mutant.caught_by != (UNIT,) else mutant._replace(caught_by=(tickets.UNIT,))
        for mutant in tickets.MUTANTS
    ],
}
SUITES = {
    UNIT: [
        "tests/unit/test_commit.py",
        *(f"tests/unit/test_semaphore{part}.py" for part in ("", "_wire", "_attendance", "_verbs")),
    ],
    PROPERTY: ["tests/property/test_semaphore.py"],
    MODEL: ["tests/model/test_semaphore.py"],
    CLUSTER: ["tests/integration/test_semaphore_race.py"],
    tickets.UNIT: ["tests/unit/test_tickets.py", "tests/unit/test_tickets_seat.py"],
    tickets.PROPERTY: ["tests/property/test_tickets_property.py"],
    tickets.MODEL: ["tests/model/test_tickets_model.py"],
    **controllers.SUITES,
    **faults.SUITES,
}
ON_A_CLUSTER = {CLUSTER, *faults.SUITES}


def run(there: Path, suite: str) -> subprocess.CompletedProcess[str]:
    waits = {"MUSTER_TEST_PATIENCE": "10"}  # seconds in which what a bug prevents is waited for
    return run_pytest(there, *SUITES[suite], HYPOTHESIS_PROFILE="quick", MUSTER_SOAK_SECONDS="15", **waits)


def test_without_a_planted_bug_the_copy_passes_and_is_what_runs(tmp_path: Path) -> None:
    there = copy_of_the_tree(tmp_path)
    done = run(there, UNIT)
    assert done.returncode == 0, done.stdout
    assert_what_runs_is_the_copy(MUTANTS[0], there, run, UNIT)


@pytest.mark.parametrize(
    ("mutant", "suite"),
    [
        pytest.param(
            mutant,
            suite,
            id=f"{engine}, {mutant.breaks}: {mutant.name}, by {suite}",
            marks=[pytest.mark.integration] if suite in ON_A_CLUSTER else [],
        )
        for engine, planted in {**PLANTED, "controllers": controllers.MUTANTS, "faults": faults.MUTANTS}.items()
        for mutant in planted
        for suite in mutant.caught_by
    ],
)
def test_it_is_caught(
    mutant: Mutant, suite: str, tmp_path: Path, record_property, request: pytest.FixtureRequest
) -> None:
    if suite in ON_A_CLUSTER:
        os.environ["MUSTER_TEST_KUBECONFIG"] = str(Path(request.getfixturevalue("kubeconfig")).resolve())
    there = copy_of_the_tree(tmp_path)
    plant(mutant, there)
    assert_caught(mutant, suite, run(there, suite), record_property)

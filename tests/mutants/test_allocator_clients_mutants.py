# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bug that is planted in the clients of an allocator is caught, by each test that is said to catch it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.mutants.allocator_clients import FILES, MUTANTS, PROPERTIES, SUITES
from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant
from ansible_collections.muster.coordination.tests.mutants.test_allocator_server_mutants import copied
from ansible_collections.muster.coordination.tests.mutants.test_semaphore_mutants import (
    SOME_FAILED,
    first_failure,
    plant,
)

pytestmark = pytest.mark.mutants
PATIENCE = 300  # seconds of a suite: who waits in vain does so for a minute, and what fails at random is made small


def run(there: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join((str(there), str(there.parents[2])))
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=there, env=environ, capture_output=True, text=True, timeout=PATIENCE)


def test_without_a_planted_bug_the_copy_passes_and_is_what_runs(tmp_path: Path) -> None:
    there = copied(tmp_path)
    for file in FILES.values():
        done = run(there, file)
        assert done.returncode == 0, done.stdout[-3000:]
    marker = there / "muster/allocator/client_cli.py"
    marker.write_text(marker.read_text() + "\nraise RuntimeError('the copy is what runs')\n")
    assert "the copy is what runs" in run(there, FILES["cli"]).stdout


@pytest.mark.parametrize("prop", PROPERTIES)
def test_for_each_property_a_bug_is_planted(prop: str) -> None:
    assert [mutant.name for mutant in MUTANTS if mutant.breaks == prop]


def test_each_bug_breaks_something_known_and_has_a_name() -> None:
    assert {mutant.breaks for mutant in MUTANTS} == PROPERTIES.keys()
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    ("mutant", "suite"),
    [
        pytest.param(mutant, suite, id=f"{mutant.breaks}: {mutant.name}, by {suite}")
        for mutant in MUTANTS
        for suite in mutant.caught_by
    ],
)
def test_it_is_caught(mutant: Mutant, suite: str, tmp_path: Path, record_property) -> None:
    there = copied(tmp_path)
    plant(mutant, there)
    done = run(there, *SUITES[suite])
    assert done.returncode == SOME_FAILED and first_failure(done.stdout), (  # an error of the set-up catches nothing
        f"{mutant.name} ({mutant.breaks}) was not caught by {suite}:\n{done.stdout[-3000:]}"
    )
    record_property("caught by", first_failure(done.stdout))

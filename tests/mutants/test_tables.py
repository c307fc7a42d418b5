# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of planted bugs agree with themselves and with the code. test_planted_bugs.py has these as unit tests."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from ansible_collections.muster.coordination.tests.mutants import semaphore, tickets
from ansible_collections.muster.coordination.tests.mutants.planting import ROOT, with_the_bug
from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant
from ansible_collections.muster.coordination.tests.support.planted_controllers import BUGS

HERE = "ansible_collections.muster.coordination.tests.mutants"
FILES = sorted({path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("test_")})
MODULES = {name: import_module(f"{HERE}.{name}") for name in FILES if name not in ("conftest", "planting")}
# Those of the semaphore are of two engines, and say what else than a property they spoil.
TABLES = {name: module for name, module in MODULES.items() if {"PROPERTIES", "SUITES"} <= vars(module).keys()}
ENGINES = {"annotations": semaphore, "tickets": tickets}
UNNAMED = {"histories"}  # suites that no bug names, and that are to pass without one


@pytest.mark.parametrize(
    "bug",
    [
        pytest.param(mutant, id=f"{name}: {mutant.name}")
        for name, module in MODULES.items()
        for mutant in module.MUTANTS
    ],
)
def test_each_bug_changes_what_stands_there_once(bug: Mutant) -> None:
    assert with_the_bug(bug, ROOT)


@pytest.mark.parametrize(
    ("table", "prop"),
    [pytest.param(table, prop, id=f"{name}: {prop}") for name, table in TABLES.items() for prop in table.PROPERTIES],
)
def test_for_each_property_a_bug_is_planted(table: ModuleType, prop: str) -> None:
    assert [mutant.name for mutant in table.MUTANTS if mutant.breaks == prop]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_each_bug_breaks_something_known(table: ModuleType) -> None:
    assert {mutant.breaks for mutant in table.MUTANTS} == table.PROPERTIES.keys()
    named = {suite for mutant in table.MUTANTS for suite in mutant.caught_by}
    assert table.SUITES.keys() - UNNAMED <= named <= table.SUITES.keys()


@pytest.mark.parametrize("table", MODULES.values(), ids=MODULES)
def test_each_bug_has_a_name(table: ModuleType) -> None:
    assert len({mutant.name for mutant in table.MUTANTS}) == len(table.MUTANTS)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prop", semaphore.PROPERTIES)
def test_for_each_property_and_engine_a_bug_is_planted_or_it_is_said_why_not(prop: str, engine: str) -> None:
    planted = [mutant.name for mutant in ENGINES[engine].MUTANTS if mutant.breaks == prop]
    assert bool(planted) != ((engine, prop) in semaphore.DOES_NOT_APPLY)


def test_for_each_property_of_replicas_a_bug_is_planted() -> None:
    assert {bug.breaks for bug in BUGS.values()} == {f"R{number}" for number in range(1, 8)}

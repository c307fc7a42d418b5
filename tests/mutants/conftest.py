# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Planted bugs; those that need a cluster take it from the integration tests.

MUSTER_MUTANTS says how many there are:
- nothing: all, each with all suites that are said to catch it
- first: all, each with the first of those suites
- sample: of those, the first for each property that is broken, and every fourth of the rest
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from ansible_collections.muster.coordination.tests.integration.conftest import control_plane, kubeconfig

__all__ = ["control_plane", "kubeconfig"]

EVERY = 4  # of a sample


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "integration: needs a kube-apiserver, as an administrator of it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which = os.environ.get("MUSTER_MUTANTS", "")
    if which not in ("", "first", "sample"):
        raise pytest.UsageError(f"MUSTER_MUTANTS is {which!r}: leave it out, or give first or sample")
    wanted = [item for item in items if not which or _is_first(_params(item))]
    if which == "sample":
        wanted = list(_sample(wanted))
    kept = set(wanted)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = wanted


def _sample(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """The same of the same; in each group something is left."""
    numbers: Counter[str] = Counter()
    groups: set[str] = set()
    for item in items:
        if "mutant" not in _params(item):
            yield item
            continue
        test, _bracket, ident = item.nodeid.partition("[")
        group = f"{test}[{ident.partition(':')[0]}"
        if group not in groups or numbers[test] % EVERY == 0:
            yield item
        groups.add(group)
        numbers[test] += 1


def _params(item: pytest.Item) -> dict[str, Any]:
    callspec = getattr(item, "callspec", None)
    return callspec.params if callspec else {}


def _is_first(params: dict[str, Any]) -> bool:
    return "mutant" not in params or params["suite"] == params["mutant"].caught_by[0]

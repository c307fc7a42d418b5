# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Markers of these tests; the package `cluster` is imported from the checkout that they lie in."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.tests.support import profiles  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2]))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: starts real embedded clusters; control-plane level, no root")
    config.addinivalue_line("markers", "node: (with cluster) the node level too; needs root")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The short form of bench/partition_storm.py, the same code: real processes, load, kills and freezes, all judged."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from bench.partition_storm import round_of

pytestmark = pytest.mark.integration
OPERATIONS = 20
MINUTES = 3.0  # at most; it ends with so many operations, far earlier


@pytest.mark.parametrize("followers", [0, 1])
def test_partitions_change_hands_under_load_while_processes_die(
    api: Api, kubeconfig: str, tmp_path: Path, followers: int
) -> None:
    what = {"seed": 20 + followers, "followers": followers, "operations": OPERATIONS}
    found = round_of(api, kubeconfig, tmp_path / "round", threading.Event(), MINUTES, **what)
    assert found["violations"] == [], "\n".join(found["violations"])
    assert found["completed"] >= OPERATIONS
    assert found["faults"] and found["clients"]["put ok"] > 0 and found["revisions"] > OPERATIONS

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every bug that is planted in what looks after Instances is caught, by each suite that is said to catch it."""

from __future__ import annotations

from functools import partial

from ansible_collections.muster.coordination.tests.mutants import allocator
from ansible_collections.muster.coordination.tests.mutants.planting import PlantedBugs, run_pytest


class TestAllocator(PlantedBugs):
    table = allocator
    run = staticmethod(partial(run_pytest, patience=600, HYPOTHESIS_PROFILE="quick", MUSTER_TEST_PATIENCE="5"))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hypothesis: the same examples on every run, so that red stays red; HYPOTHESIS_PROFILE=search looks further.

A conftest.py imports it.
"""

import os

from hypothesis import Phase, settings

settings.register_profile(
    "ci", max_examples=150, stateful_step_count=40, derandomize=True, deadline=None, database=None, print_blob=True
)
settings.register_profile("long", parent=settings.get_profile("ci"), max_examples=1500)  # make soak
settings.register_profile("search", deadline=None, max_examples=10000, stateful_step_count=80, print_blob=True)
# for planted bugs: that they are found, not the shortest way to them
settings.register_profile(
    "quick",
    parent=settings.get_profile("ci"),
    max_examples=300,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

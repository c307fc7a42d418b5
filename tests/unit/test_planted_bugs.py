# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of planted bugs, looked at in a minute, not in the hour in which the bugs are caught."""

from __future__ import annotations

from ansible_collections.muster.coordination.tests.mutants.test_tables import (
    test_each_bug_breaks_something_known,
    test_each_bug_changes_what_stands_there_once,
    test_each_bug_has_a_name,
    test_for_each_property_a_bug_is_planted,
    test_for_each_property_and_engine_a_bug_is_planted_or_it_is_said_why_not,
    test_for_each_property_of_replicas_a_bug_is_planted,
)

__all__ = [
    "test_each_bug_breaks_something_known",
    "test_each_bug_changes_what_stands_there_once",
    "test_each_bug_has_a_name",
    "test_for_each_property_a_bug_is_planted",
    "test_for_each_property_and_engine_a_bug_is_planted_or_it_is_said_why_not",
    "test_for_each_property_of_replicas_a_bug_is_planted",
]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What users are told of an Instance: its phase is never that of before their own wish."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import view


def instance(phase: str = "", *, resets: int = 0, going: bool = False, **spec: Any) -> dict[str, Any]:
    metadata = {"name": "a", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {})}
    return {"metadata": metadata, "spec": {"owner": "o", **spec}, "status": {"phase": phase, "resets": resets}}


@pytest.mark.parametrize(
    ("seen", "phase"),
    [
        (instance(), "Pending"),
        (instance("Creating"), "Creating"),
        (instance("Ready"), "Ready"),
        (instance("Failed"), "Failed"),
        (instance("Ready", suspended=True), "Suspending"),
        (instance("Creating", suspended=True), "Suspending"),
        (instance("Suspending", suspended=True), "Suspending"),
        (instance("Suspended", suspended=True), "Suspended"),
        (instance("Failed", suspended=True), "Failed"),
        (instance("Suspended", suspended=False), "Resuming"),
        (instance("Suspending"), "Resuming"),
        (instance("Ready", resets=0, **{"suspended": False}), "Ready"),
        (instance("Ready", going=True, suspended=True), "Destroying"),
    ],
)
def test_a_phase_is_never_that_of_before_the_wish(seen: dict[str, Any], phase: str) -> None:
    assert view(seen)["phase"] == phase


def test_a_reset_counts_from_when_it_is_asked_for() -> None:
    seen = instance("Ready", resets=1)
    seen["spec"]["resets"] = 2
    assert view(seen)["phase"] == "Resetting"
    seen["status"]["resets"] = 2
    assert view(seen)["phase"] == "Ready"


def test_its_owner_finds_it_by_its_key() -> None:
    assert view(instance(key="0123456789abcdef"))["key"] == "0123456789abcdef"

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tests that take long have a short form, the same code with the same checks: `make soak` runs the long one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, TypeVar

IS_LONG: Final = os.environ.get("MUSTER_FORM", "") == "long"
Case = TypeVar("Case")


def some(cases: Sequence[Case], turn: int = 0) -> list[Case]:
    """All in the long form; in the short one every second, from the first or (`turn` 1) from the next."""
    return list(cases if IS_LONG else cases[turn % 2 :: 2])


def one_of_each_pair(cases: Sequence[Case], turn: int) -> list[Case]:
    """All in the long form. In the short one the first of a pair, the second of the next, and so on; `turn` 1: the
    others."""
    return [case for number, case in enumerate(cases) if IS_LONG or (number // 2 + number + turn) % 2 == 0]

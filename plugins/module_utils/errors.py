# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors a user may see. Each message names the field, the value and the remedy."""

from __future__ import annotations


class MusterError(Exception):
    """Something the user can put right; the message says how."""


class Malformed(MusterError):
    """Content that we refuse to interpret, and therefore never overwrite."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        shown = repr(value)
        if len(shown) > 200:
            shown = f"{shown[:200]}… ({len(shown)} characters)"
        super().__init__(f"{field} is {shown}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class TimedOut(MusterError):
    """A deadline passed; `last_seen` says in words what stood in the way."""

    def __init__(self, message: str, last_seen: str = "") -> None:
        super().__init__(f"{message}; last seen: {last_seen}" if last_seen else message)
        self.last_seen = last_seen

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client is told, and what the log says, of what went wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Refused
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.allocator.auth import NotReviewed, Unauthenticated
from muster.allocator.server_pool import Full
from muster.http.wire import Problem, later

CHALLENGE: Final = 'Bearer realm="muster-allocator"'


def problem_of(error: Exception) -> Problem:
    """What the client is told of it."""
    match error:
        case Problem():
            return error
        case Refused():
            return Problem(error.word, str(error), members=error.members)
        case Malformed() if not error.field.startswith(ledger.KEY):
            return Problem("malformed", str(error), members={"field": error.field})
        case Unauthenticated():
            return Problem("unauthenticated", str(error), headers={"WWW-Authenticate": CHALLENGE})
        case Full():
            return later("overloaded", "too many requests wait already: ask again, with the same Idempotency-Key")
        case NotReviewed():
            return later("unavailable", str(error))
        case MusterError():
            seconds = max(1, round(getattr(error, "retry_after", None) or 1))
            detail = "the cluster can't be asked, or has not answered: ask again, with the same Idempotency-Key"
            return later("unavailable", detail, seconds)
    return Problem("internal", "the server failed; its log says why")


def words(error: Exception) -> str:
    """Of an error, for the log."""
    if isinstance(error, MusterError):
        return f"{type(error).__name__}: {error}"
    return type(error).__name__


def where(error: Exception) -> str:
    """The lines of code that it came through, without any value."""
    trace, lines = error.__traceback__, []
    while trace:
        lines.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} {' '.join(lines)}"

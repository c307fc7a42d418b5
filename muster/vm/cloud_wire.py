# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the private cloud and its clients both know: who writes, and what a refusal is.

A refusal goes over the wire as its HTTP `status` and {"error": its word here, "message": for people, and its fields}.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError


class Writer(NamedTuple):
    """On whose authority a write is made. No fence: a person's, who is not ordered among the operators."""

    fence: int | None = None
    scope: str = ""


class Refusal(MusterError):
    """The cloud said no, and nothing was changed. `fields` go over the wire beside the message."""

    status: ClassVar[int] = 400
    error: ClassVar[str] = "refused"

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.fields = fields


class NotUnderstood(Refusal):
    """The request makes no sense; sent again it makes no more."""

    status = 400
    error = "not understood"


class NotAllowed(Refusal):
    """The bearer token is missing or wrong."""

    status = 401
    error = "not allowed"


class NotThere(Refusal):
    """There is no such machine (any more), or no such page."""

    status = 404
    error = "not there"


class WrongMethod(Refusal):
    """The page is there for other methods (`allow`)."""

    status = 405
    error = "wrong method"


class StaleFence(Refusal):
    """The write carries a fence less than one that was seen (`seen`): somebody else acts for this machine now."""

    status = 409
    error = "stale fence"


class NameTaken(Refusal):
    """A machine of that name is there; `uid` says whose."""

    status = 409
    error = "name taken"


class Closed(Refusal):
    """The name was closed: no machine is made under it any more."""

    status = 410
    error = "closed"


class Spent(Refusal):
    """The machine of this Idempotency-Key was made, and deleted: the key makes no other."""

    status = 410
    error = "spent"


class Changed(Refusal):
    """The machine is not at the revision that If-Match names (`revision` is the one it is at)."""

    status = 412
    error = "changed"


class TooLarge(Refusal):
    """The request's body is too large."""

    status = 413
    error = "too large"


class KeyReused(Refusal):
    """The Idempotency-Key was used for a request that asked for something else."""

    status = 422
    error = "key reused"


class RateLimited(Refusal):
    """Too many requests; `retry_after` seconds from now there may be room."""

    status = 429
    error = "rate limited"

    @property
    def retry_after(self) -> float:
        """Seconds, 0.1 to 60, whatever the cloud said."""
        asked = self.fields.get("retry_after")
        return min(60.0, max(0.1, float(asked))) if isinstance(asked, int | float) else 1.0


REFUSALS: dict[str, type[Refusal]] = {each.error: each for each in Refusal.__subclasses__()}


class Unsure(MusterError):
    """No answer, or one that tells nothing: what was asked for may have been done, or not, or will be done later."""

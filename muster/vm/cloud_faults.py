# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults of the private cloud that can be switched on, and when they strike."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

LONGEST = 3600.0  # seconds that a fault may ask for


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. The first four are probabilities, 0 to 1, for each request about machines or fences."""

    timeout_after_success: float = 0.0  # done, but the connection is held, and then closed without an answer
    error_after_success: float = 0.0  # done, but the answer is 500
    error_before: float = 0.0  # the answer is 500, and nothing was done
    duplicate_delivery: float = 0.0  # the request arrives twice
    duplicate_delay_seconds: float = 0.0  # so long after the first; 0: at once, and the second is answered
    hold_seconds: float = 1.0  # how long timeout_after_success holds a connection
    list_delay_seconds: float = 0.0  # the list is as it was so long ago
    rate_limit_per_second: float = 0.0  # so many requests are let through; 0: all
    names_not_unique: bool = False  # several machines may have one name
    ignore_fences: bool = False
    ignore_idempotency_keys: bool = False
    seed: int = 0

    @classmethod
    def parse(cls, document: Any) -> Faults:
        """Of JSON; what it does not name is off. Raises Malformed."""
        known = {field.name: field.default for field in fields(cls)}
        if not isinstance(document, dict) or not document.keys() <= known.keys():
            raise Malformed("faults", document, f"give a JSON object with any of {', '.join(known)}")
        for name, value in document.items():
            default = known[name]
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if isinstance(default, bool):
                fine, remedy = isinstance(value, bool), "give true or false"
            elif name == "seed":
                fine, remedy = type(value) is int, "give an integer"
            elif name.endswith(("_seconds", "_second")):
                fine, remedy = is_number and 0 <= value <= LONGEST, f"give a number from 0 to {LONGEST:g}"
            else:
                fine, remedy = is_number and 0 <= value <= 1, "give a probability, 0 to 1"
            if not fine:
                raise Malformed(f"faults.{name}", value, remedy)
        return cls(**document)

    def document(self) -> dict[str, Any]:
        return asdict(self)


class Dice:
    """Chances that only depend on the seed and on how often the same was asked: not on the order of other requests."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._asked: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def falls(self, fault: str, what: str, probability: float) -> bool:
        """Whether `fault` strikes this time at `what`."""
        if probability <= 0:
            return False
        with self._lock:
            count = self._asked[fault, what] = self._asked.get((fault, what), 0) + 1
        digest = hashlib.sha256(f"{self._seed}/{fault}/{what}/{count}".encode()).digest()
        return int.from_bytes(digest[:8], "big") < probability * 2**64


class Bucket:
    """A token bucket: `rate` tokens a second, and as many at once (at least one)."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._tokens, self._at = max(1.0, rate), clock()
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take a token: 0.0, or the seconds until there is one."""
        if self._rate <= 0:
            return 0.0
        with self._lock:
            now = self._clock()
            self._tokens = min(max(1.0, self._rate), self._tokens + (now - self._at) * self._rate)
            self._at = now
            if self._tokens < 1.0:
                return (1.0 - self._tokens) / self._rate
            self._tokens -= 1.0
            return 0.0

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs for the processes of partitions, to see that a storm finds them.

python -m tests.support.planted_partitions BUG partition-worker run …     the command `muster`, with the bug in it
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple


class Bug(NamedTuple):
    """`found`: what the storm says of it."""

    breaks: str
    plant: Callable[[], None]
    found: tuple[str, ...]


def _position() -> None:
    """A copy that follows says that it has what it does not have yet, so a move leaves the last writes behind."""
    from muster.dstk.replication import Followers
    from muster.dstk.worker import Worker

    right, going = Worker.shown, Followers._go_on

    def shown(self: Any, copy: Any) -> dict[str, Any]:
        document = right(self, copy)
        return {**document, "position": document["position"] + 1_000_000} if copy.role == "following" else document

    async def go_on(self: Any, copy: Any) -> None:
        await asyncio.sleep(3.0)
        await going(self, copy)

    Worker.shown, Followers._go_on = shown, go_on  # type: ignore[method-assign]


def _acknowledged() -> None:
    """One write of a hundred is acknowledged, and never made."""
    from muster.dstk.worker import Owned, Worker

    right, count = Worker.put, [0]

    async def put(self: Any, key: str, value: bytes | None, seen: int | None) -> Any:
        count[0] += 1
        owned = await self.owner(key, seen) if count[0] % 100 == 0 else None
        return owned.copy if isinstance(owned, Owned) else await right(self, key, value, seen)

    Worker.put = put  # type: ignore[method-assign]


def _epoch() -> None:
    """What an operation commits has no higher epoch than what it supersedes."""
    from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations

    turn: Any = operations._Turn
    right = turn._results

    def results(self: Any, *args: Any) -> list[dict[str, Any]]:
        return [{**each, "epoch": max(1, each["epoch"] - 2)} for each in right(self, *args)]

    turn._results = results


def _gap() -> None:
    """A merge forgets the last of its Partitions."""
    from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations

    turn: Any = operations._Turn
    right = turn._results

    def results(self: Any, plan: Any, partitions: Any) -> list[dict[str, Any]]:
        return right(self, plan, partitions[:-1] if plan.kind == operations.MERGE else partitions)  # type: ignore[no-any-return]

    turn._results = results


BUGS: Final = {
    "position": Bug("P6: the new primary has all data", _position, ("fits no order",)),
    "acknowledged": Bug("P5: no acknowledged write is lost", _acknowledged, ("fits no order",)),
    "epoch": Bug("P4: epochs never go back", _epoch, ("P4: the epoch", "P11: ")),
    "gap": Bug("P1: no gap", _gap, ("P1: a gap",)),
}


def main(argv: list[str]) -> int:
    from muster import cli

    BUGS[argv[0]].plant()
    return cli.main(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

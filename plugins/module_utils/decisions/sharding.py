# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which replica owns which keys: shards of them in one table, handed over by revoke, acknowledge, assign.

Rules
1. A key belongs to a shard, a shard to one owner or nobody. All owners stand in one table, which changes by
   compare-and-swap only; who acts on a key has read in the table that its shard is theirs.
2. The plan says which member is wanted for which shard. It is made anew when the live members change, and keeps what it
   can: as few shards as possible move, and members differ by one shard at most.
3. Revoke, acknowledge, assign: an owner that is not wanted any more ends its work on the shard and then writes that it
   has let go; only a shard that nobody owns is taken.
4. A member lives by a Lease of its own, by the rules of `election`. When its term is over, which can't become untrue
   again, everybody may strike it from the table. Who does must have read the Lease after the table.
5. A fence of a shard is the resourceVersion of the table which its owner replaced to get it. So a table is made first,
   and owned afterwards. It is never deleted while replicas run: who does not hear of that acts on what it has read.
6. How keys become shards (the layout) is in the table, too, and everybody goes by that. It is replaced by the newest
   member's only while no shard has an owner.

Theory: the two-phase hand-over of cooperative rebalancing (Kafka, KIP-429), with one table in place of a coordinator;
ties are broken by rendezvous hashing (Thaler and Ravishankar, 1996).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

VERSION: Final = 1
STABLE: Final = "stable"
POD_NUM: Final = "pod-num"
STRATEGIES: Final = (STABLE, POD_NUM)
SHARDS: Final = range(1, 1025)  # so that a table with long names stays far below 1 MiB
NOBODY: Final = ""  # in the plan


class Layout(NamedTuple):
    """How keys become shards. `stable`: by SHA-256; `pod-num`: as the seed did, one shard for each replica."""

    strategy: str = STABLE
    shards: int = 64

    def shard_of(self, key: str) -> int:
        """The shard of a key.

        `pod-num` is the sum of the characters' codes modulo the number of replicas. It is kept for those who have
        built on it: anagrams collide, and another number of replicas moves nearly all keys.
        """
        if self.strategy == POD_NUM:
            return sum(map(ord, key)) % self.shards
        return _hash(key) % self.shards


class Owner(NamedTuple):
    """Who acts on a shard's keys: the identity of one process run, and its fence."""

    identity: str
    fence: int

    @property
    def member(self) -> str:
        return self.identity.partition("_")[0]


class Member(NamedTuple):
    """A live replica, as its Lease says. `ordinal` is the number of its Pod, None where it has none."""

    identity: str
    fence: int
    layout: Layout
    ordinal: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """`wanted` and `owners` by shard; the name of a member, or NOBODY; an Owner, or None."""

    layout: Layout
    wanted: tuple[str, ...]
    owners: tuple[Owner | None, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def owned_by(self, identity: str) -> dict[int, int]:
        """Its shards, and the fence of each."""
        return {shard: owner.fence for shard, owner in enumerate(self.owners) if owner and owner.identity == identity}

    def revoked_from(self, identity: str) -> frozenset[int]:
        """Shards that it owns and should let go."""
        member = identity.partition("_")[0]
        return frozenset(shard for shard in self.owned_by(identity) if self.wanted[shard] != member)

    @property
    def is_settled(self) -> bool:
        """Whether each shard is owned by the member that is wanted for it."""
        return all(
            (owner.member if owner else NOBODY) == who for who, owner in zip(self.wanted, self.owners, strict=True)
        )


def empty(layout: Layout) -> Table:
    return Table(layout, (NOBODY,) * layout.shards, (None,) * layout.shards)


def advance(
    table: Table | None,
    live: Mapping[str, Member],
    *,
    me: str,
    fence: int,
    over: Collection[str] = (),
    drained: Collection[int] = (),
) -> Table | None:
    """The table after all that `me` (an identity) may do to it now; the same object where that is nothing.

    `live` are the members by name, of which `me` is one, or none when it leaves; `over` are identities whose term is
    over, as `election.is_over` says; `drained` are shards on which `me` has ended its work; `fence` is the
    resourceVersion of what was read. Of None is made a table that nobody owns, and nothing while nobody lives.
    """
    if table is None:
        return _planned(empty(_newest(live)), live) if live else None
    before = table
    gone = {shard for shard, owner in enumerate(table.owners) if owner and owner.identity in over}
    gone |= table.owned_by(me).keys() & set(drained)
    kept = tuple(None if shard in gone else owner for shard, owner in enumerate(table.owners))
    table = replace(table, owners=kept)
    if live:
        table = _planned(_laid_out(table, _newest(live)), live)
    mine = me.partition("_")[0]
    if mine in live and live[mine].identity == me:
        pairs = zip(table.wanted, table.owners, strict=True)
        taken = tuple(Owner(me, fence) if owner is None and who == mine else owner for who, owner in pairs)
        table = replace(table, owners=taken)
    return before if table == before else table


def _planned(table: Table, live: Mapping[str, Member]) -> Table:
    """With another layout to come nobody is wanted, so that all let go."""
    same = table.layout == _newest(live)
    return replace(table, wanted=plan(table, live) if same else (NOBODY,) * table.layout.shards)


def plan(table: Table, live: Mapping[str, Member]) -> tuple[str, ...]:
    """Who is wanted for each shard: balanced, with as few changes to what was wanted as that allows."""
    if table.layout.strategy == POD_NUM:
        by_ordinal = {member.ordinal: name for name, member in sorted(live.items())}
        return tuple(by_ordinal.get(shard, NOBODY) for shard in range(table.layout.shards))
    return _balanced(table.wanted, sorted(live))


def _balanced(wanted: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """Each name gets the floor or the ceiling of its equal part; who has most keeps the extra ones.

    That is the least that can move: a member gives up only what it has above its part.
    """
    if not names:
        return (NOBODY,) * len(wanted)
    has = Counter(who for who in wanted if who in set(names))
    part, extra = divmod(len(wanted), len(names))
    ranked = sorted(names, key=lambda name: (-has[name], name))
    room = {name: part + (rank < extra) for rank, name in enumerate(ranked)}
    result = [NOBODY] * len(wanted)
    for name in names:
        own = [shard for shard, who in enumerate(wanted) if who == name]
        for shard in sorted(own, key=lambda shard: -_weight(name, shard))[: room[name]]:
            result[shard] = name
            room[name] -= 1
    for shard in (shard for shard, who in enumerate(result) if who == NOBODY):
        best = max((name for name in names if room[name]), key=lambda name: (_weight(name, shard), name))
        result[shard] = best
        room[best] -= 1
    return tuple(result)


def _laid_out(table: Table, layout: Layout) -> Table:
    if table.layout == layout or any(table.owners):
        return table
    return replace(empty(layout), extra=table.extra)


def _newest(live: Mapping[str, Member]) -> Layout:
    """The layout of the member that came last: who changes it rolls the new one out over the replicas."""
    return max(live.values(), key=lambda member: (member.fence, member.identity)).layout


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


def _weight(name: str, shard: int) -> int:
    return _hash(f"{name}/{shard}")


# ---------------------------------------------------------------------------------------------------------------------
# As it is written


def parse(text: str | None) -> Table | None:
    """A table from its JSON; None where there is none. Raises Malformed, which names the field."""
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # the latter: brackets without end
        raise Malformed("data.table", text, "delete the ConfigMap while no replica runs: it is made anew") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        found = document.get("version") if isinstance(document, dict) else document
        raise Malformed("data.table.version", found, f"this program knows version {VERSION}: update it")
    layout = parse_layout(document.get("layout"), "data.table.layout")
    wanted = _list(document, "wanted", layout.shards)
    owners = _list(document, "owners", layout.shards)
    known = ("version", "layout", "wanted", "owners")
    return Table(
        layout,
        tuple(_name(who, f"data.table.wanted[{shard}]") for shard, who in enumerate(wanted)),
        tuple(_owner(owner, f"data.table.owners[{shard}]") for shard, owner in enumerate(owners)),
        {key: value for key, value in document.items() if key not in known},
    )


def dump(table: Table) -> str:
    document = {"version": VERSION, "layout": table.layout._asdict(), "wanted": table.wanted, "owners": table.owners}
    return json.dumps({**document, **table.extra}, separators=(",", ":"), sort_keys=True)


def parse_layout(value: object, where: str) -> Layout:
    """`{"strategy": "stable", "shards": 64}`. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(where, value, 'give {"strategy": "stable", "shards": 64}')
    strategy, shards = value.get("strategy"), value.get("shards")
    if strategy not in STRATEGIES:
        raise Malformed(f"{where}.strategy", strategy, f"give one of {', '.join(STRATEGIES)}")
    if not isinstance(shards, int) or isinstance(shards, bool) or shards not in SHARDS:
        raise Malformed(f"{where}.shards", shards, f"give a whole number from {SHARDS.start} to {SHARDS.stop - 1}")
    return Layout(strategy, shards)


def ordinal_of(pod: str) -> int | None:
    """The number at the end of a StatefulSet's Pod's name; None where there is none."""
    found = re.search(r"-(\d{1,9})$", pod)
    return int(found[1]) if found else None


def _list(document: Mapping[str, Any], key: str, length: int) -> list[Any]:
    value = document.get(key)
    if not isinstance(value, list) or len(value) != length:
        raise Malformed(f"data.table.{key}", value, f"give a list of {length}, one for each shard")
    return value


def _name(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise Malformed(where, value, "give the name of a member, or an empty string")
    return value


def _owner(value: object, where: str) -> Owner | None:
    if value is None:
        return None
    match value:
        case [str(identity), int(fence)] if identity and not isinstance(fence, bool) and fence > 0:
            return Owner(identity, fence)
    raise Malformed(where, value, "give [identity, fence], or null")

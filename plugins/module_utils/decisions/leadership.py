# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Leases and tables of shards say, in plain words and values: who leads, who has which shards, what moves.

What can be known from one look: who holds a Lease, whether the kubelet says that the holder has ended, and that its
term is over, at the latest, when it stays unchanged for its whole time from now on. What can't: whether the holder
still renews it. Times in a Lease are the holder's; to compare them with another clock is to trust both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election, members, sharding
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Term
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import NOBODY, Owner, Table
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

# of a Lease
FREE: Final = "free"  # nobody has it
HELD: Final = "held"
LEAVING: Final = "leaving"  # held still; its holder ends what it has begun, and frees it then
ENDED: Final = "ended"  # its holder has ended for certain: it is anybody's

# of a shard
OWNED: Final = "owned"
REVOKED: Final = "revoked"  # its owner is not wanted any more, and has still to let go
ORPHANED: Final = "orphaned"  # its owner has ended, or has no Lease any more: it is to be struck from the table
UNOWNED: Final = "free"  # nobody has it, and who is wanted takes it next
UNSERVED: Final = "nobody"  # nobody has it, and nobody is wanted for it
SHARD_STATES: Final = (OWNED, REVOKED, ORPHANED, UNOWNED, UNSERVED)

Object = Mapping[str, Any]
Report = dict[str, Any]


class PodSight(NamedTuple):
    """The Pod of a holder as it was read; None where there is none of that name. `trouble`: why that is not known."""

    pod: Object | None = None
    trouble: str = ""


def has_pod(lease: Object) -> bool:
    """Whether the holder says that it runs in a Pod."""
    term, _error = _term(lease)
    return bool(term.holder and term.container)


def pod_of(lease: Object) -> str:
    """The name of the holder's Pod."""
    return _term(lease)[0].pod


def lease_report(lease: Object, sight: PodSight | None = None) -> Report:
    """One Lease; `sight` is the holder's Pod, where it has one, read after the Lease. Never raises."""
    term, error = _term(lease)
    sight = sight if term.container else None
    state = _state(term, sight)
    held = bool(term.holder)
    return {
        "name": lease["metadata"]["name"],
        "namespace": lease["metadata"]["namespace"],
        "state": state,
        "holder": term.holder or None,
        "pod": term.pod or None,
        "pod_uid": term.uid if held and term.container else None,
        "container": term.container or None,
        "container_id": term.container_id or None,
        "fence": term.fence or None,
        "since": (term.since or None) if held else None,
        "renewed": (term.renewed or None) if held else None,
        "seconds": term.seconds,
        "until": _until(term) if held else None,
        "ends_within": {FREE: None, ENDED: 0}.get(state, term.seconds),
        "transitions": term.transitions,
        "remark": _remark(term, state, sight),
        "error": error,
    }


def _term(lease: Object) -> tuple[Term, str | None]:
    """What can be read of it, and what is malformed."""
    try:
        return election.parse(lease), None
    except Malformed as malformed:
        notes = {**(lease["metadata"].get("annotations") or {}), election.FENCE: "0"}
        return election.parse({**lease, "metadata": {**lease["metadata"], "annotations": notes}}), str(malformed)


def _state(term: Term, sight: PodSight | None) -> str:
    if not term.holder:
        return FREE
    if sight and election.has_ended(term, sight.pod):
        return ENDED
    return LEAVING if term.is_leaving else HELD


def _remark(term: Term, state: str, sight: PodSight | None) -> str | None:
    """What somebody who wonders about the holder should know; None where there is nothing of the kind."""
    if state == ENDED:
        return f"{term.pod} has ended: whoever is next takes it at once"
    if term.is_doubtful and not term.since:
        return f"nobody is known to have had it: Muster's take it when it has stayed free for {term.seconds} s"
    if state == FREE or sight is None:
        return None
    silence = f"it ends when it was seen unchanged for {term.seconds} s"
    if sight.trouble:
        return f"whether {term.pod} has ended is not known: {sight.trouble}"
    if sight.pod is None:
        return f"Pod {term.pod} is not there, which is no proof that its process has ended: {silence}"
    if sight.pod["metadata"].get("uid") != term.uid:
        return f"the Pod {term.pod} that is there is another one: {silence}"
    return None


def _until(term: Term) -> str | None:
    """When the term ends by its holder's clock, if it is not renewed before."""
    try:
        end = datetime.fromisoformat(term.renewed) + timedelta(seconds=term.seconds)
    except (ValueError, OverflowError):  # the latter: after the year 9999
        return None
    return end.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


# ---------------------------------------------------------------------------------------------------------------------
# Shards


def shards_report(
    name: str,
    namespace: str,
    table: str | None,
    leases: Sequence[Object],
    sights: Mapping[str, PodSight],
    trouble: str | None = None,
) -> Report:
    """One sharded controller: its table (None: there is none) and the Leases of its members, read after the table.

    `sights` are the members' Pods by name. `trouble`: why the table could not be read. Never raises.
    """
    found, error = _table(table)
    terms = [lease_report(lease, sights.get(pod_of(lease))) for lease in leases]
    living = {one["holder"] for one in terms if one["state"] in (HELD, LEAVING)}
    shards = [] if found is None else _shards(found, living)
    counts = Counter(one["state"] for one in shards)
    members_of = [_member(lease, term, shards) for lease, term in zip(leases, terms, strict=True)]
    return {
        "name": name,
        "namespace": namespace,
        "layout": found.layout._asdict() if found else None,
        "settled": bool(shards) and counts[OWNED] == len(shards),
        "counts": {state: counts[state] for state in SHARD_STATES},
        "members": sorted(members_of, key=lambda member: _natural(member["name"])),
        "shards": shards,
        "handovers": [
            {"shard": one["shard"], "from": one["member"], "to": one["wanted"], "state": one["state"]}
            for one in shards
            if one["state"] not in (OWNED, UNSERVED)
        ],
        "error": trouble or error,
    }


def _table(text: str | None) -> tuple[Table | None, str | None]:
    try:
        return sharding.parse(text), None
    except Malformed as malformed:
        return None, str(malformed)


def _shards(table: Table, living: Collection[str | None]) -> list[Report]:
    return [
        {
            "shard": shard,
            "member": owner.member if owner else None,
            "owner": owner.identity if owner else None,
            "fence": owner.fence if owner else None,
            "wanted": wanted or None,
            "state": _shard_state(owner, wanted, living),
        }
        for shard, (owner, wanted) in enumerate(zip(table.owners, table.wanted, strict=True))
    ]


def _shard_state(owner: Owner | None, wanted: str, living: Collection[str | None]) -> str:
    """An owner that has no Lease any more will never have it again, so this stays true.

    Its term is over, too, unless its Lease was deleted: then it is when all the time of the Lease has passed.
    """
    if owner is None:
        return UNSERVED if wanted == NOBODY else UNOWNED
    if owner.identity not in living:
        return ORPHANED
    return OWNED if owner.member == wanted else REVOKED


def _member(lease: Object, term: Report, shards: Sequence[Report]) -> Report:
    """A member's Lease, with its shards: what it owns, and what the plan wants it to own."""
    layout, error = None, term["error"]
    try:
        layout = members.layout_of(lease)._asdict()
    except Malformed as malformed:
        error = error or str(malformed)
    return {
        **term,
        "ordinal": sharding.ordinal_of(term["pod"] or ""),
        "layout": layout,
        "owns": [one["shard"] for one in shards if one["owner"] and one["owner"] == term["holder"]],
        "wanted": [one["shard"] for one in shards if one["wanted"] and one["wanted"] == term["pod"]],
        "error": error,
    }


def _natural(name: str) -> tuple[str, int]:
    """So that vm-10 comes after vm-9."""
    ordinal = sharding.ordinal_of(name)
    return (name, -1) if ordinal is None else (name[: name.rindex("-")], ordinal)


# ---------------------------------------------------------------------------------------------------------------------


def ranges(numbers: Iterable[int]) -> str:
    """`0-3,7`"""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs to plant in election and sharding, each a mistake that a hurried change makes, and who has to catch it."""

from __future__ import annotations

from typing import NamedTuple

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

ELECTION = "plugins/module_utils/decisions/election.py"
SHARDING = "plugins/module_utils/decisions/sharding.py"
VERBS = "plugins/module_utils/verbs/leases.py"

# what must hold of replicated controllers
PROPERTIES = {
    "R2": "two replicas never act on one key at the same time",
    "R4": "every key is owned, for any numbers of shards and replicas",
    "fence": "who acts later has the greater fence",
    "foreign": "what is not ours is kept",
}


class Suites(NamedTuple):
    """Of one half."""

    unit: str
    model: str
    property: str = ""
    verbs: str = ""


E = Suites("election unit", "election model", verbs="leases unit")
S = Suites("sharding unit", "sharding model", "sharding property")
SUITES = {
    E.unit: ["tests/unit/test_election.py"],
    E.model: ["tests/model/test_election_model.py"],
    E.verbs: ["tests/unit/test_leases.py"],
    S.unit: ["tests/unit/test_sharding.py"],
    S.model: ["tests/model/test_sharding_model.py"],
    S.property: ["tests/property/test_sharding_property.py"],
}


def planted(name: str, breaks: str, file: str, old: str, new: str, *caught_by: str) -> Mutant:
    return Mutant(name, breaks, file, ((old, new),), caught_by)


MUTANTS = (
    # election
    planted(
        "a take does not look whether the holder has renewed",
        "R2",
        ELECTION,
        "is_known = over is not None and over.beat == term.beat",
        "is_known = over is not None",
        E.unit,
        E.model,
    ),
    planted(
        "an eviction does not look whether the holder has renewed",
        "R2",
        ELECTION,
        "if term.holder and term.beat == over.beat else None",
        "if term.holder else None",
        E.unit,
    ),
    planted(
        "a holder acts until its lease is over",
        "R2",
        ELECTION,
        "return self.lease * 2 / 3",
        "return self.lease * 1.0",
        E.unit,
        E.model,
    ),
    planted(
        "a renewal is not seen",
        "R2",
        ELECTION,
        "return (self.lease_uid, self.holder, self.transitions, self.renewed)",
        'return (self.lease_uid, self.holder, self.transitions, "")',
        E.unit,
        E.model,
    ),
    planted(
        "a lease expires by the time that its holder wrote",
        "R2",
        ELECTION,
        "    if seen.unchanged(now) >= term.seconds:\n",
        "    if now - _epoch(term.renewed, otherwise=math.inf) >= term.seconds:\n",
        E.unit,
    ),
    planted(
        "a Pod that has vanished is proof of death",
        "R2",
        ELECTION,
        "    if pod is None or not term.uid",
        "    if pod is None:\n        return True\n    if not term.uid",
        E.unit,
        E.model,
    ),
    planted(
        "a phase alone is proof of death",
        "R2",
        ELECTION,
        'return bool(own) and all((one.get("state") or {}).get("terminated") for one in own)',
        "return True",
        E.unit,
    ),
    planted(
        "the end of any container of its name is proof of death",
        "R2",
        ELECTION,
        'end.get("containerID") == term.container_id and _epoch(end.get("finishedAt"), otherwise=-math.inf) > taken',
        "bool(end)",
        E.unit,
    ),
    planted(
        "a container that ended before the take is taken for the holder's",
        "R2",
        ELECTION,
        ' and _epoch(end.get("finishedAt"), otherwise=-math.inf) > taken',
        "",
        E.unit,
        E.model,
    ),
    planted(
        "a Lease that was made anew is free at once",
        "R2",
        ELECTION,
        'is_doubtful=not spec.get("holderIdentity") and FENCE not in annotations',
        "is_doubtful=False",
        E.unit,
        E.model,
    ),
    planted(
        "a Pod of the same name is the successor",
        "R2",
        ELECTION,
        "same = (term.pod, term.uid, term.container) == (me.pod, me.uid, me.container)",
        "same = (term.pod, term.container) == (me.pod, me.container)",
        E.unit,
    ),
    planted(
        "one renews what another has",
        "R2",
        ELECTION,
        "    if not is_mine(parse(lease), me):\n        return None\n    notes",
        "    notes",
        E.unit,
    ),
    planted(
        "a run whose term may be over takes once more",
        "R2",
        VERBS,
        "or seconds < timing.usable",
        "or True",
        E.verbs,
    ),
    planted(
        "silence never ends",
        "R4",
        ELECTION,
        "    if seen.unchanged(now) >= term.seconds:\n",
        "    if False:\n",
        E.unit,
        E.model,
    ),
    planted(
        "a new holder has the fence of the last",
        "fence",
        ELECTION,
        'fence = max(term.fence + 1, int(lease["metadata"]["resourceVersion"]))',
        "fence = max(term.fence, 1)",
        E.unit,
        E.model,
    ),
    planted(
        "fences begin anew when the Lease is made again",
        "fence",
        ELECTION,
        'fence = max(term.fence + 1, int(lease["metadata"]["resourceVersion"]))',
        "fence = term.fence + 1",
        E.unit,
        E.model,
    ),
    planted(
        "annotations of others are dropped",
        "foreign",
        ELECTION,
        '{**(metadata.get("annotations") or {}), **annotations}',
        '{FENCE: (metadata.get("annotations") or {}).get(FENCE), **annotations}',
        E.unit,
    ),
    # sharding
    planted(
        "a member lets go before it has ended its work",
        "R2",
        SHARDING,
        "gone |= table.owned_by(me).keys() & set(drained)",
        "gone |= table.revoked_from(me)",
        S.unit,
        S.model,
    ),
    planted(
        "a member lets go what another owns",
        "R2",
        SHARDING,
        "gone |= table.owned_by(me).keys() & set(drained)",
        "gone |= set(drained)",
        S.property,
    ),
    planted(
        "a shard that is owned is taken",
        "R2",
        SHARDING,
        "Owner(me, fence) if owner is None and who == mine else owner",
        "Owner(me, fence) if who == mine and (owner is None or owner.identity != me) else owner",
        S.unit,
        S.model,
    ),
    planted(
        "who is not wanted any more is over",
        "R2",
        SHARDING,
        "if owner and owner.identity in over}",
        "if owner and (owner.identity in over or owner.member not in live)}",
        S.unit,
        S.model,
    ),
    planted(
        "silence ends a term before its Lease was taken from it",
        "R2",
        ELECTION,
        "if term.is_doubtful else term.holder != identity",
        "if term.is_doubtful else term.holder != identity or seen.unchanged(now) >= term.seconds",
        E.unit,
    ),
    planted(
        "a Lease that is missing ends a term at once",
        "R2",
        ELECTION,
        "return seen.unchanged(now) >= term.seconds if term.is_doubtful else term.holder != identity",
        "return term.holder != identity",
        E.unit,
    ),
    planted(
        "keys are laid out anew while shards are owned",
        "R2",
        SHARDING,
        "if table.layout == layout or any(table.owners):",
        "if table.layout == layout:",
        S.unit,
        S.model,
    ),
    planted(
        "who leaves is wanted still",
        "R4",
        SHARDING,
        "return _balanced(table.wanted, sorted(live))",
        "return _balanced(table.wanted, sorted({*live, *filter(None, table.wanted)}))",
        S.unit,
        S.model,
    ),
    planted(
        "whoever is over keeps its shards",
        "R4",
        SHARDING,
        "if owner and owner.identity in over}",
        "if False}",
        S.unit,
        S.model,
    ),
    planted(
        "some get more than their part",
        "R4",
        SHARDING,
        "room = {name: part + (rank < extra)",
        "room = {name: part + (rank < extra) + 1",
        S.unit,
    ),
    planted(
        "who has most does not keep the extra ones",
        "R4",
        SHARDING,
        "ranked = sorted(names, key=lambda name: (-has[name], name))",
        "ranked = sorted(names)",
        S.property,
    ),
    planted(
        "a shard's new owner has no fence of its own",
        "fence",
        SHARDING,
        "Owner(me, fence) if owner is None",
        "Owner(me, 1) if owner is None",
        S.unit,
        S.model,
    ),
    planted(
        "a table has owners before it was there",
        "fence",
        SHARDING,
        "        return _planned(empty(_newest(live)), live) if live else None\n",
        "        if not live:\n            return None\n        table = _planned(empty(_newest(live)), live)\n",
        S.unit,
    ),
    planted(
        "unknown keys of the table are dropped",
        "foreign",
        SHARDING,
        "json.dumps({**document, **table.extra}",
        "json.dumps(document",
        S.property,
    ),
)

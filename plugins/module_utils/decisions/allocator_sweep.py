# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What nobody will put right any more: places of instances that are not there, and objects of theirs.

Rules
1. A place belongs to the Instance of its name: to that uid, where it has one, and to that owner (the pool's: to none,
   the total's: to any). Where that Instance is, its controller sees to the place; here nothing is done.
2. A place without a uid is reserved by somebody who may still be at work. It is given back once it was seen unchanged
   for so long on one monotonic clock: its asker finds that out when it goes on, and begins anew.
3. A place with a uid was taken after its Instance was there. If that is gone, it is gone for good; its place is given
   back when nothing is left that was made for it.
4. The total's place is given back first, and only together with all others of that name: who finds one only in the
   total knows that nobody has it.
5. An object is removed if it has our labels and its owner, by uid, is an Instance that is gone. A disk that was kept
   has another label and no owner; nothing without our label, and nothing without such an owner, is touched.
6. What is read says more than what was read before it: the total, then the ledgers, then the objects, then the
   Instances. So what is new can't look as if its Instance was missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import (
    API_VERSION,
    INSTANCE,
    KIND,
    RETAINED,
    Key,
    key_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, Entry, Ledger

PATIENCE_SECONDS: Final = 60.0  # so long a reservation is left to its asker

Object = Mapping[str, Any]


class Known(NamedTuple):
    """An Instance that is there. `owner` is empty in the warm pool."""

    uid: str
    owner: str


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is, read in this order. `objects` are those that `is_made` says; `instances` by name."""

    total: Ledger | None = None
    ledgers: tuple[Ledger, ...] = ()
    objects: tuple[Object, ...] = ()
    instances: Mapping[str, Known] = field(default_factory=dict)


class Place(NamedTuple):
    """An entry, in the ledger of this owner; "" is the total."""

    owner: str
    entry: Entry

    def __hash__(self) -> int:
        return hash((self.owner, self.entry[:-1]))  # the rest is a mapping


class Free(NamedTuple):
    """Take this entry out, if it is still the same, and its Instance is still not there."""

    place: Place


class Delete(NamedTuple):
    """Delete this object, if its owner, the Instance with this name and uid, is still not there."""

    key: Key
    uid: str
    instance: str
    owner: str


Finding = Free | Delete  # pylint: disable=unsupported-binary-operation
Since = Mapping[Place, float]


def findings(sight: Sight, since: Since, now: float, pool: str) -> tuple[list[Finding], dict[Place, float]]:
    """What is to be done, in this order; and since when each reservation is seen to wait, for the next time.

    `now` is in seconds of a monotonic clock, `pool` the owner whose ledger holds the warm pool.
    """
    total = [Place("", entry) for entry in sight.total.entries.values()] if sight.total else []
    others = [Place(ledger.owner, entry) for ledger in sight.ledgers for entry in ledger.entries.values()]
    astray = [place for place in (*total, *others) if not belongs(place, sight.instances, pool)]
    waiting = {place: since.get(place, now) for place in astray if not place.entry.uid}
    made = {uid for obj in sight.objects for _name, uid in owners(obj)}
    dead = {place for place in astray if _is_dead(place, sight.instances, made, waiting.get(place, now), now)}

    wanted = {place.entry.handle for place in others if place.owner != pool and place not in dead}
    freed = [place for place in total if place in dead and place.entry.handle not in wanted]
    late = {place.entry.handle for place in total if place in astray and place not in freed}
    after = [place for place in others if place in dead and (place.owner == pool or place.entry.handle not in late)]
    there = {known.uid for known in sight.instances.values()}
    deletes = [found for obj in sight.objects if (found := _orphan(obj, there))]
    return [*deletes, *map(Free, (*freed, *after))], waiting


def belongs(place: Place, instances: Mapping[str, Known], pool: str) -> bool:
    """Whether its Instance is there."""
    known = instances.get(place.entry.handle)
    if known is None or place.entry.uid not in ("", known.uid):
        return False
    if place.owner == pool:
        return not known.owner
    return known.owner == place.owner if place.owner else bool(known.owner)


def _is_dead(place: Place, instances: Mapping[str, Known], made: Set[str], since: float, now: float) -> bool:
    """Of one that is astray: whether it is to be given back now. `made`: uids for which something is there."""
    if not place.entry.uid:
        return now - since >= PATIENCE_SECONDS
    known = instances.get(place.entry.handle)
    has_another_owner = known is not None and known.uid == place.entry.uid
    return has_another_owner or place.entry.uid not in made


def owners(obj: Object) -> Iterator[tuple[str, str]]:
    """Name and uid of the Instances that own it."""
    group = API_VERSION.partition("/")[0]
    for each in obj["metadata"].get("ownerReferences") or []:
        if each.get("kind") == KIND and str(each.get("apiVersion", "")).startswith(f"{group}/"):
            yield str(each.get("name", "")), str(each.get("uid", ""))


def is_made(obj: Object, allocator: str) -> bool:
    """Whether it has the labels of what this allocator makes for an Instance, and is no disk that was kept."""
    labels = obj["metadata"].get("labels") or {}
    return labels.get(MEMBER) == allocator and bool(labels.get(INSTANCE)) and RETAINED not in labels


def _orphan(obj: Object, there: Set[str]) -> Delete | None:
    found = list(owners(obj))
    if len(found) != 1 or found[0][1] in there or obj["metadata"].get("deletionTimestamp"):
        return None
    name, uid = found[0]
    return Delete(key_of(obj), obj["metadata"]["uid"], name, uid)

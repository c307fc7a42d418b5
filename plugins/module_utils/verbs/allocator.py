# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances of an allocator, in a cluster: `decisions/allocator.py` and `decisions/ledger.py` with an API server.

A creation is a chain of writes, each of which can be done twice: the owner's place, a place in the total, the Instance,
and the two places again, confirmed. Whoever asks again with the same key goes on where it stands. What stays behind of
one that nobody repeats, the sweeper takes out.
"""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    EVENTS,
    PODS,
    AlreadyExists,
    Api,
    ApiError,
    Conflict,
    Gone,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import UNREAD, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import allocator as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as ledgers_
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    OFFER_KEY,
    POOL,
    Busy,
    Caller,
    KeyBusy,
    KeyReused,
    NotAdministrator,
    NotOwner,
    NotThere,
    Offer,
    QuotaSpent,
    Refused,
    RefusedByCluster,
    Wish,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import (
    API_VERSION,
    DISK,
    FINALIZER,
    INSTANCE,
    KIND,
    RETAINED,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import (
    MEMBER,
    OWNER,
    Entry,
    Ledger,
    Request,
)
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.ledgers import TOTAL, Ledgers

Object = dict[str, Any]

INSTANCES: Final = Resource(API_VERSION, "instances", KIND)
DISKS: Final = Resource("v1", "persistentvolumeclaims", DISK)
RESOURCES: Final = {  # of the kinds that an instance may be made of
    (each.api_version, each.kind): each
    for each in (
        Resource("apps/v1", "deployments", "Deployment"),
        Resource("apps/v1", "statefulsets", "StatefulSet"),
        CONFIGMAPS,
        DISKS,
        Resource("v1", "services", "Service"),
        Resource("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
        Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    )
}
CLAIMS: Final = 8  # instances of the pool that are tried before one is made
MAX_EVENTS: Final = 100
LOOK_SECONDS: Final = 0.05  # between two looks at the whole pool, while it is empty
MAX_SPENT: Final = 10_000  # names that are remembered as claimed, until the watch says so
MAX_PROVEN: Final = 10_000  # sets of parameters that the cluster is remembered to have taken

_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?")
_GOING: Final = "the instance of this key is being destroyed: wait until it is gone, or give another key"


class Created(NamedTuple):
    """`is_new`: by this call, not found from an earlier one."""

    instance: Object
    is_new: bool


class Page(NamedTuple):
    """`next` says where the next page begins; empty where there is none."""

    items: list[Object]
    next: str


class _Taken(Exception):
    """Somebody else has got this instance of the pool."""


class Allocator:
    """What users can do. For several threads. All of it raises the refusals of decisions/allocator.py, Malformed, and
    what the API server says.
    """

    def __init__(
        self,
        api: Api,
        namespace: str,
        offer: Offer,
        ledgers: Ledgers | None = None,
        *,
        known: Callable[[], Iterable[Object]] | None = None,
    ) -> None:
        """`known` gives all Instances as a watch has them, a moment old; None: they are listed when needed."""
        self.api, self.namespace, self.offer = api, namespace, offer
        self.ledgers = ledgers or Ledgers(api, namespace, offer.name)
        self._known = known
        self._proven: set[str] = set()  # digests of what the cluster would take
        self._spent: OrderedDict[str, None] = OrderedDict()  # of the pool: claimed here, or taken by others
        self._waiting: list[str] = []  # of the pool: those to be tried next
        self._looked = self._claimed = -math.inf
        self._lock = threading.Lock()

    @property
    def _all(self) -> str:
        return f"{MEMBER}={self.offer.name}"

    def offer_for(self, caller: Caller) -> Object:
        """What this caller can have, and has."""
        offer = self.offer
        ledger = self.ledgers.read(caller.name)
        return {
            "name": offer.name,
            "template": {
                "digest": offer.template.digest,
                "version": offer.template.version,
                "kinds": sorted({obj["kind"] for obj in offer.template.documents}),
            },
            "parameters": {name: decisions.schema_of(each) for name, each in offer.template.parameters.items()},
            "limit": offer.max_instances_per_user,
            "used": len(ledger.entries) if ledger else 0,
            "global_limit": offer.max_instances,
            "has_disk": offer.disks > 0,
            "caller": {
                "name": caller.name,
                "groups": list(caller.groups),
                "is_administrator": offer.is_administrator(caller),
            },
        }

    # -- creation -----------------------------------------------------------------------------------------------------

    def create(self, caller: Caller, key: str, wish: Wish, *, dry_run: bool = False) -> Created:
        """An instance for this key: a new one, or the one that it has. `dry_run`: what would be made, if it could."""
        owner, hashed = caller.name, ledgers_.key_hash(decisions.check_key(key))
        handle = ledgers_.handle(self.offer.server_name, owner, key)
        request = Request(owner, hashed, wish.digest, handle, _now())
        made: Object | None = None
        try:
            made = self._check_wish(request, wish, anew=dry_run)
        except (Malformed, Refused):
            ledger = self.ledgers.read(owner)
            if ledger is None or ledger.of_key(hashed) is None:
                raise  # else it was sound when it was asked for first
        if dry_run:
            return self._would_create(self.ledgers.read(owner), request, wish, made)
        for name in chain(self._free(wish), (handle,)):
            try:
                return self._obtain(request._replace(handle=name), handle, wish, made)
            except _Taken:
                continue
            except BaseException:
                self._spent.pop(name, None)  # nobody has it
                raise
        raise Busy("others were faster with each instance that was free: ask again")

    def _obtain(self, request: Request, own: str, wish: Wish, made: Object | None) -> Created:
        """With this handle, or with the one that the request has already; `own` is the one that it may make, as `made`.

        Raises _Taken, and then nothing is reserved.
        """
        limit = self.offer.max_instances_per_user
        verdict = self.ledgers.change(request.owner, lambda ledger: ledgers_.reserve(ledger, request, limit))
        entry = _entry(verdict, "owner")
        if entry.handle != request.handle:
            self._spent.pop(request.handle, None)
            request = request._replace(handle=entry.handle)
        if not entry.uid:
            self._count(request)
        is_new = isinstance(verdict, ledgers_.Reserved)
        there = None
        if not (is_new and entry.handle == own):
            there = _found(lambda: self.api.get(INSTANCES, entry.handle, self.namespace))
        if entry.uid and there is None:
            raise KeyBusy(_GOING)
        if there is None and entry.handle == own:
            with suppress(AlreadyExists):
                there = self.api.create(INSTANCES, made or self._made(request, wish))
            there = there or _found(lambda: self.api.get(INSTANCES, entry.handle, self.namespace))
        elif there is None or not there["spec"].get("owner"):
            there = self._claim(request, there, wish)
        return Created(self._confirmed(request, entry, there), is_new)

    def _count(self, request: Request) -> None:
        """Take a place in the total, by which also an instance of the pool is one request's only."""
        total = _in_total(request)
        counted = self.ledgers.change(TOTAL, lambda ledger: ledgers_.reserve(ledger, total, self.offer.max_instances))
        if isinstance(counted, (ledgers_.Full, ledgers_.KeyReused)):
            self.ledgers.change(request.owner, lambda ledger: (ledgers_.release(ledger, request.handle), None))
        if isinstance(counted, ledgers_.KeyReused):
            raise _Taken
        _entry(counted, "global")

    def _claim(self, request: Request, free: Object | None, wish: Wish) -> Object:
        """Give an instance of the pool its owner. Raises _Taken where it has one, or is gone."""
        uid = free["metadata"]["uid"] if free else ""

        def decide(there: Object | None) -> tuple[Object, None]:
            if there is None or there["metadata"]["uid"] != uid or decisions.is_going(there):
                raise _Taken
            if decisions.is_of(there, request.owner, request.key, request.digest):
                return there, None
            if there["spec"].get("owner"):
                raise _Taken
            return decisions.claimed(self.offer, there, request.owner, request.key, wish), None

        try:
            there = commit(self.api, INSTANCES, request.handle, self.namespace, decide, seen=free or UNREAD).after
        except _Taken:
            for each in reversed(_places(request)):
                self.ledgers.change(each.owner, lambda ledger, each=each: (_without(ledger, each), None))  # type: ignore[misc]
            raise
        if there is None:
            raise _Taken
        self.ledgers.change(POOL, lambda ledger: (ledgers_.release(ledger, request.handle, uid), None))
        return there

    def _confirmed(self, request: Request, entry: Entry, there: Object | None) -> Object:
        """The Instance, once both ledgers hold it."""
        if there is None or decisions.is_going(there):
            raise KeyBusy(_GOING)
        if not decisions.is_of(there, request.owner, request.key, request.digest):
            raise Busy(f"{entry.handle} is left from an earlier request, and being removed: ask again")
        uid = there["metadata"]["uid"]
        if entry.uid != uid:
            for owner in (TOTAL, request.owner):
                if not self.ledgers.change(owner, lambda ledger: ledgers_.confirm(ledger, entry.handle, uid)):
                    raise Busy("the place of this request was given up, as it took too long: ask again")
        return there

    def _made(self, request: Request, wish: Wish) -> Object:
        return decisions.make(
            self.offer, self.namespace, request.owner, request.handle, request.key, wish, request.now or _now()
        )

    def _would_create(self, ledger: Ledger | None, request: Request, wish: Wish, made: Object | None) -> Created:
        entry = _entry(ledgers_.reserve(ledger, request, self.offer.max_instances_per_user)[1], "owner")
        if ledger and entry.handle in ledger.entries:
            there = _found(lambda: self.api.get(INSTANCES, entry.handle, self.namespace))
            return Created(there or self._made(request._replace(handle=entry.handle), wish), False)
        _entry(ledgers_.reserve(self.ledgers.read(TOTAL), _in_total(request), self.offer.max_instances)[1], "global")
        return Created(made or self._made(request, wish), True)

    def _check_wish(self, request: Request, wish: Wish, *, anew: bool) -> Object:
        """What would be made: the cluster would take its objects, and its disk is there to be attached.

        What the cluster has taken once with these parameters it is not asked again, unless `anew`.
        """
        made = self._made(request, wish)
        if wish.attach:
            disk = _found(lambda: self.api.get(DISKS, wish.attach, self.namespace))
            if disk is None or not decisions.is_kept_by(disk, request.owner):
                raise Malformed(
                    "attach", wish.attach, "give the name of a disk that you have kept, and have not attached"
                )
        digest = ledgers_.digest([self.offer.template.digest, made["spec"]["parameters"]])
        if anew or digest not in self._proven:
            self.check_with_cluster([obj for obj in made["spec"]["manifest"] if obj["metadata"]["name"] != wish.attach])
            if len(self._proven) < MAX_PROVEN:
                self._proven.add(digest)
        return made

    def check_with_cluster(self, objects: Sequence[Object]) -> None:
        """Have the API server decide on these objects as if they were created. Raises RefusedByCluster."""
        for obj in objects:
            try:
                self.api.create(resource_of(obj["apiVersion"], obj["kind"]), obj, dry_run=True)
            except ApiError as error:
                if error.status not in (400, 403, 404, 409, 422):
                    raise
                raise RefusedByCluster(f"{obj['kind']} {obj['metadata']['name']}: {error.message}") from error

    # -- the warm pool ------------------------------------------------------------------------------------------------

    def _free(self, wish: Wish) -> Iterator[str]:
        """Names of instances of the pool that would do, each for one request of this process only."""
        if not (self.offer.warm and decisions.takes_any(self.offer, wish)):
            return
        for _try in range(CLAIMS):
            name = self._next_free()
            if name is None:
                return
            yield name

    def _next_free(self) -> str | None:
        """All that there are are looked through once for many requests: a burst takes one after the other."""
        with self._lock:
            if not self._waiting and time.monotonic() - self._looked >= LOOK_SECONDS:
                self._looked = time.monotonic()
                free = [each["metadata"]["name"] for each in self._seen() if decisions.is_free(self.offer, each)]
                self._waiting = [name for name in free if name not in self._spent]
                random.shuffle(self._waiting)  # so that replicas try different ones
            if not self._waiting:
                return None
            self._claimed = time.monotonic()
            name = self._waiting.pop()
            self._spent[name] = None
            while len(self._spent) > MAX_SPENT:
                self._spent.popitem(last=False)
            return name

    def seconds_since_claim(self) -> float:
        """Since an instance of the pool was last given away here."""
        return time.monotonic() - self._claimed

    def make_warm(self) -> Object | None:
        """One more instance that waits for an owner; None where there are enough."""
        key = uuid.uuid4().hex
        handle = ledgers_.handle(self.offer.server_name, POOL, key)
        request = Request(POOL, ledgers_.key_hash(key), "", handle, _now())
        verdict = self.ledgers.change(POOL, lambda ledger: ledgers_.reserve(ledger, request, self.offer.warm))
        if not isinstance(verdict, ledgers_.Reserved):
            return None
        there = self.api.create(INSTANCES, self._made(request._replace(owner=""), Wish()))
        self.ledgers.change(POOL, lambda ledger: ledgers_.confirm(ledger, handle, there["metadata"]["uid"]))
        return there

    # -- what there is ------------------------------------------------------------------------------------------------

    def get(self, caller: Caller, name: str) -> Object:
        """One instance. Raises NotThere, also for one that this caller may not see."""
        there = _found(lambda: self.api.get(INSTANCES, name, self.namespace)) if _LABEL.fullmatch(name) else None
        if there is None or not self._is_ours(there) or not decisions.may_see(self.offer, caller, there):
            raise NotThere()
        return there

    def listed(self, caller: Caller, *, limit: int = 100, after: str = "", everything: bool = False) -> Page:
        """The caller's instances, by name, and those that others share with them; `everything` for administrators.

        One's own are as the API server has them now; those that are shared may be out of date by a moment.
        """
        if everything:
            if not self.offer.is_administrator(caller):
                raise NotAdministrator("leave it out: you see your instances, and those that are shared with you")
            try:
                return Page(
                    *self.api.page(INSTANCES, self.namespace, label_selector=self._all, limit=limit, after=after)
                )
            except Gone:
                raise Malformed("continue", after, "begin anew: that list is too old to go on with") from None
        selector = f"{self._all},{OWNER}={ledgers_.owner_hash(caller.name)}"
        own = self.api.list(INSTANCES, self.namespace, label_selector=selector).items
        mine = {each["metadata"]["name"]: each for each in own if each["spec"].get("owner") == caller.name}
        as_user = replace(self.offer, administrators=())
        shared = {
            each["metadata"]["name"]: each
            for each in self._seen()
            if each["spec"].get("owner") != caller.name and decisions.may_see(as_user, caller, each)
        }
        found = [each for name, each in sorted({**shared, **mine}.items()) if name > after]
        return Page(found[:limit], found[limit - 1]["metadata"]["name"] if len(found) > limit else "")

    def events(self, caller: Caller, name: str) -> list[Object]:
        """What the cluster has to say of an instance, its objects and its Pods: the newest first."""
        there = self.get(caller, name)
        pods = self.api.list(PODS, self.namespace, label_selector=f"{INSTANCE}={name}", metadata_only=True).items
        names = {name, *(obj["metadata"]["name"] for obj in [*there["spec"].get("manifest", []), *pods])}
        found = [
            event
            for each in sorted(names)
            for event in self.api.list(EVENTS, self.namespace, field_selector=f"involvedObject.name={each}").items
        ]
        return sorted(map(_event, found), key=lambda event: str(event["time"]), reverse=True)[:MAX_EVENTS]

    def disks(self, caller: Caller) -> list[Object]:
        """The disks that this caller has kept."""
        selector = f"{self._all},{RETAINED}={ledgers_.owner_hash(caller.name)}"
        found = self.api.list(DISKS, self.namespace, label_selector=selector).items
        return [decisions.disk_view(disk) for disk in found if decisions.is_kept_by(disk, caller.name)]

    def remove_disk(self, caller: Caller, name: str) -> None:
        """Delete a disk that this caller has kept. Raises NotThere."""
        disk = _found(lambda: self.api.get(DISKS, name, self.namespace)) if _LABEL.fullmatch(name) else None
        if disk is None or not self._is_ours(disk) or not decisions.is_kept_by(disk, caller.name):
            raise NotThere("disk")
        metadata = disk["metadata"]
        try:
            self.api.delete(
                DISKS, name, self.namespace, uid=metadata["uid"], resource_version=metadata["resourceVersion"]
            )
        except NotFound:
            raise NotThere("disk") from None
        except Conflict:
            raise Busy("the disk is being attached, or something else happens to it: look again") from None

    # -- what is done with it -----------------------------------------------------------------------------------------

    def destroy(self, caller: Caller, name: str, storage: str | None = None) -> Object:
        """Have it destroyed; `storage` says anew what becomes of its disks. It is gone some time later."""
        there = self._owned(caller, name)
        if storage is not None and storage != there["spec"].get("storage"):
            if storage not in decisions.STORAGE:
                raise Malformed("storage", storage, "give delete or retain")
            there = self._change(caller, name, lambda spec: {**spec, "storage": storage}, is_going=True)
        if decisions.is_going(there):
            return there
        try:
            self.api.delete(INSTANCES, name, self.namespace, uid=there["metadata"]["uid"])
        except (NotFound, Conflict):
            raise NotThere() from None
        return {**there, "metadata": {**there["metadata"], "deletionTimestamp": _now()}}

    def suspend(self, caller: Caller, name: str, suspended: bool) -> Object:
        """Have its Pods taken away, or given back; its disks stay."""
        self.get(caller, name)
        return self._change(caller, name, lambda spec: {**spec, "suspended": suspended})

    def reset(self, caller: Caller, name: str, seen: int | None = None) -> Object:
        """Have its disks emptied. `seen` is how often that was done before, as the caller knows it: so a repetition
        changes nothing.
        """
        there = self._owned(caller, name)
        before = int(there["spec"].get("resets") or 0) if seen is None else seen

        def change(spec: Object) -> Object:
            if int(spec.get("resets") or 0) not in (before, before + 1):
                raise Busy(f"it has been reset {spec.get('resets')} times, not {before}: look at it again")
            return {**spec, "resets": before + 1}

        return self._change(caller, name, change)

    def _owned(self, caller: Caller, name: str) -> Object:
        there = self.get(caller, name)
        if not decisions.may_destroy(self.offer, caller, there):
            raise NotOwner(f"{name} is shared with you: ask its owner, {there['spec'].get('owner')}")
        return there

    def _change(
        self, caller: Caller, name: str, change: Callable[[Object], Object], *, is_going: bool = False
    ) -> Object:
        def decide(there: Object | None) -> tuple[Object, None]:
            if there is None or not self._is_ours(there) or not decisions.may_see(self.offer, caller, there):
                raise NotThere()
            if decisions.is_going(there) and not is_going:
                raise Busy(f"{name} is being destroyed")
            return {**there, "spec": change(there["spec"])}, None

        there = commit(self.api, INSTANCES, name, self.namespace, decide).after
        if there is None:
            raise NotThere()
        return there

    def _is_ours(self, obj: Object) -> bool:
        return (obj["metadata"].get("labels") or {}).get(MEMBER) == self.offer.name

    def _seen(self) -> Iterable[Object]:
        if self._known is not None:
            return self._known()
        return self.api.list(INSTANCES, self.namespace, label_selector=self._all).items


# ---------------------------------------------------------------------------------------------------------------------
# For the controller


def held(ledgers: Ledgers, instance: Object) -> bool:
    """Whether something may be made for this Instance; a place that is only reserved for it is confirmed.

    One that was held before (it has our finalizer) and is in no ledger is entered anew: then a ledger was lost, and
    what it counted was not. Raises Conflict where the Instance is not what it was: look at it again.
    """
    metadata, request = instance["metadata"], _request_of(instance)
    uid, was_held = metadata["uid"], FINALIZER in (metadata.get("finalizers") or [])
    for each in reversed(_places(request)):
        if not was_held and ledgers_.is_held(ledgers.remembered(each.owner), each.handle, uid):
            continue  # what was held is held for as long as its Instance is there
        if ledgers_.is_held(ledgers.read(each.owner), each.handle, uid):
            continue
        now = ledgers.api.get(INSTANCES, metadata["name"], metadata["namespace"])
        if now["metadata"]["uid"] != uid or _request_of(now) != request or decisions.is_going(now):
            raise Conflict(409, "Conflict", f"{metadata['name']} has changed")
        if not ledgers.change(
            each.owner,
            lambda ledger, each=each: ledgers_.hold(ledger, each, uid, anew=was_held),  # type: ignore[misc]
        ):
            return False
    return True


def close(ledgers: Ledgers, instance: Object) -> bool:
    """Tell the ledgers that it is being destroyed; whether one of them has it still."""
    uid, handle = instance["metadata"]["uid"], instance["metadata"]["name"]
    has = False
    for owner in (each.owner for each in _places(_request_of(instance))):
        ledger = ledgers.read(owner)
        entry = ledger.entries.get(handle) if ledger else None
        if entry is None or entry.uid not in ("", uid):
            continue
        has = True
        if entry.state != ledgers_.CLOSING:
            ledgers.change(owner, lambda ledger: (ledgers_.closing(ledger, handle, uid), None))
    return has


def release(ledgers: Ledgers, instance: Object) -> None:
    """Give its places back: the total's first."""
    uid, handle = instance["metadata"]["uid"], instance["metadata"]["name"]
    for each in reversed(_places(_request_of(instance))):
        ledgers.change(each.owner, lambda ledger: (ledgers_.release(ledger, handle, uid), None))


def _request_of(instance: Object) -> Request:
    spec = instance["spec"]
    return Request(spec.get("owner", ""), spec.get("key", ""), spec.get("digest", ""), instance["metadata"]["name"])


def _places(request: Request) -> list[Request]:
    """As the ledgers that count it know it, the owner's first. What is in the pool counts there only."""
    if not request.owner:
        return [request._replace(owner=POOL)]
    return [request, _in_total(request)]


def read_offer(api: Api, namespace: str, name: str) -> Offer:
    """What an allocator has published. Raises NotFound, Malformed."""
    configmap = api.get(CONFIGMAPS, offer_name(name), namespace)
    where = f"ConfigMap {namespace}/{offer_name(name)}: {OFFER_KEY}"
    return decisions.parse_offer(parse_yaml((configmap.get("data") or {}).get(OFFER_KEY, ""), where), where)


def publish_offer(api: Api, namespace: str, offer: Offer) -> None:
    """Say what an allocator gives, for whoever works without its server."""
    text = json.dumps(decisions.offer_to_json(offer), separators=(",", ":"), sort_keys=True)

    def decide(there: Object | None) -> tuple[Object, None]:
        start: Object = there or {"apiVersion": "v1", "kind": "ConfigMap"}
        metadata: Object = (
            dict(there["metadata"]) if there else {"name": offer_name(offer.name), "namespace": namespace}
        )
        metadata["labels"] = {**(metadata.get("labels") or {}), MEMBER: offer.name}
        return {**start, "metadata": metadata, "data": {**(start.get("data") or {}), OFFER_KEY: text}}, None

    commit(api, CONFIGMAPS, offer_name(offer.name), namespace, decide)


def offer_name(allocator: str) -> str:
    """Of the ConfigMap."""
    return f"{allocator}-offer"


def resource_of(api_version: str, kind: str) -> Resource:
    """Of a kind that an instance may be made of; one that we don't know is named as most kinds are."""
    return RESOURCES.get((api_version, kind)) or Resource(api_version, f"{kind.lower()}s", kind)


def _entry(verdict: ledgers_.Verdict, scope: str) -> Entry:
    """The place that was got. Raises QuotaSpent, KeyReused, KeyBusy."""
    match verdict:
        case ledgers_.Full(limit, used):
            whose = "you have" if scope == "owner" else "there are"
            remedy = "destroy one" if scope == "owner" else "wait until somebody destroys one"
            raise QuotaSpent(
                f"{whose} {used} of at most {limit} instances: {remedy}, or ask an administrator for more",
                limit=limit,
                used=used,
                scope=scope,
            )
        case ledgers_.KeyReused():
            raise KeyReused("it was given with other values before: give another key, or the values of then")
        case ledgers_.KeyBusy():
            raise KeyBusy(_GOING)
    return verdict.entry


def _in_total(request: Request) -> Request:
    """The same for the total, where keys of different owners must differ."""
    return request._replace(owner=TOTAL, key=ledgers_.key_hash(f"{request.owner}{chr(0)}{request.key}"))


def _without(ledger: Ledger | None, request: Request) -> Ledger | None:
    """Without this request's reservation."""
    entry = ledger.entries.get(request.handle) if ledger else None
    return ledgers_.release(ledger, request.handle) if entry and entry.key == request.key else ledger


def _found(read: Callable[[], Object]) -> Object | None:
    try:
        return read()
    except NotFound:
        return None


def _event(event: Object) -> Object:
    about = event.get("involvedObject") or {}
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event.get("firstTimestamp"),
    )
    return {
        "time": next(filter(None, times), ""),
        "type": event.get("type", ""),
        "reason": event.get("reason", ""),
        "message": event.get("message", ""),
        "object": f"{about.get('kind', '')} {about.get('name', '')}".strip(),
        "count": series.get("count") or event.get("count") or 1,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user can ask of a semaphore: one function each, plain parameters in, a plain result out.

Results have `changed`, `before` and `after` (the fields that the call owns), and `reasons` in words.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.commit import DELETE, Committed, Delete, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    Claimant,
    Decision,
    Semaphore,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import (
    Attendant,
    NoSemaphore,
    dead_pods,
    pod_uid,
    read,
    utc_now,
    write,
)

Result = dict[str, Any]
NAMED = 8  # holders named in a message


def configure(
    api: Api,
    *,
    name: str,
    namespace: str,
    capacity: Mapping[str, int] | None = None,
    state: str = "present",
    force: bool = False,
    check_mode: bool = False,
) -> Result:
    """Create a semaphore, set its capacity (the whole of it), or remove it.

    `capacity` maps resource names to counts, 0 to 2^31 - 1; None keeps what is there. A lowered capacity revokes
    nobody: it drains. `absent` refuses while somebody holds or waits, or the ConfigMap has data, unless `force`.
    """
    wanted = None if capacity is None else engine.parse_capacity(_counts(capacity), "capacity")

    def present(obj: dict[str, Any] | None) -> tuple[dict[str, Any] | Delete | None, None]:
        if obj is None:
            metadata = {
                "name": name,
                "namespace": namespace,
                "annotations": {engine.CAPACITY: engine.dump(wanted or {})},
            }
            return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}, None
        before = read(obj)
        if wanted is None:
            return obj, None
        return engine.annotate(obj, before, engine.with_capacity(before, wanted, now=utc_now())), None

    def absent(obj: dict[str, Any] | None) -> tuple[dict[str, Any] | Delete | None, None]:
        if obj is not None and not force:
            _refuse_in_use(api, obj)
        return DELETE, None

    if state not in ("present", "absent"):
        raise Malformed("state", state, "give present or absent")
    done = commit(api, CONFIGMAPS, name, namespace, present if state == "present" else absent, check_mode=check_mode)
    before, after = _capacity(done.before), _capacity(done.after)
    result: Result = {"changed": done.changed, "before": before, "after": after, "reasons": _draining(done.after)}
    return {**result, "capacity": after.get("capacity")}


def ensure_claim(
    api: Api,
    *,
    state: str,
    name: str,
    namespace: str,
    holder: str,
    holder_uid: str | None = None,
    check_mode: bool = False,
    **wishes: Any,
) -> Result:
    """`claim` for state present, with its further `wishes`; `release` for state absent."""
    if state == "absent":
        return release(api, name=name, namespace=namespace, holder=holder, holder_uid=holder_uid, check_mode=check_mode)
    return claim(
        api, name=name, namespace=namespace, holder=holder, holder_uid=holder_uid, check_mode=check_mode, **wishes
    )


def claim(
    api: Api,
    *,
    name: str,
    namespace: str,
    holder: str,
    holder_uid: str | None = None,
    resource: str | None = None,
    priority: int = 0,
    lease: int | None = None,
    wait: bool = False,
    wait_timeout: float = 300.0,
    check_mode: bool = False,
) -> Result:
    """Claim one resource (None: any) for a holder; with `wait`, queue for it for up to `wait_timeout` seconds.

    The holder is a Pod of the namespace, and its claim ends with it; or, with `lease` (seconds, 3 to 604800), anybody
    who claims again within that time. Claiming what one holds changes nothing, returns the same fence and renews the
    lease. Raises MusterError when nothing is free (no wait), TimedOut when the wait was in vain: the place in the
    queue is given up then.
    """
    started = time.monotonic()
    uid = identify(api, namespace, holder, holder_uid, lease)
    claimant = Claimant(holder, uid, {resource or engine.ANY: 1}, priority, lease)

    done = attempt(api, name=name, namespace=namespace, claimant=claimant, enqueue=wait, check_mode=check_mode)
    decision = done.verdict
    before = _own(_semaphore(done.before), holder)
    if decision.outcome == "busy":
        raise MusterError(f"{decision.reasons[0]}; give wait=true to queue for it")
    if decision.outcome == "waiting" and not wait:  # an earlier claim with wait, whose process ended, left it a place
        place = decision.semaphore.place(holder)
        raise MusterError(f"{decision.reasons[0]}; {holder} has place {place} in the queue; give wait=true to wait on")
    if decision.outcome == "waiting" and not check_mode:
        decision = _wait(api, name, namespace, claimant, started + wait_timeout, wait_timeout)
    after = _own(decision.semaphore, holder)
    return {
        "changed": before != after,
        "before": before,
        "after": after,
        "reasons": list(decision.reasons),
        "outcome": decision.outcome,
        "uid": uid,
        "waited": round(time.monotonic() - started, 3),
        **after,
    }


def attempt(
    api: Api, *, name: str, namespace: str, claimant: Claimant, enqueue: bool = False, check_mode: bool = False
) -> Committed[Decision]:
    """One run of the seed's loop: take out the dead, then claim what is free; a lease in hand is renewed."""

    def ask(before: Semaphore) -> Decision:
        return engine.claim(engine.renew(before, *claimant.identity), claimant, now=utc_now(), enqueue=enqueue)

    return write(api, name, namespace, ask, dead=dead_pods(api, namespace), check_mode=check_mode)


def release(
    api: Api, *, name: str, namespace: str, holder: str, holder_uid: str | None = None, check_mode: bool = False
) -> Result:
    """Give back what the holder has, and its place in the queue; `holder_uid` None: whoever uses the name."""

    def leave(before: Semaphore) -> Decision:
        return engine.release(before, holder, holder_uid, now=utc_now())

    nothing = _own(Semaphore({}), holder)
    try:
        done = write(api, name, namespace, leave, check_mode=check_mode)
    except NoSemaphore:
        return {"changed": False, "before": nothing, "after": nothing, "reasons": [], "outcome": "absent", **nothing}
    before, after = (_own(_semaphore(done.before), holder), _own(done.verdict.semaphore, holder))
    result = {"changed": before != after, "before": before, "after": after, "reasons": list(done.verdict.reasons)}
    return {**result, "outcome": done.verdict.outcome, **after}


def info(api: Api, *, namespace: str, name: str | None = None, check_mode: bool = False) -> Result:
    """Capacity, holders with fences, and waiters, of one semaphore or of all in the namespace; only ever reads.

    A semaphore that is malformed is listed with its `error`, beside the healthy ones.
    """
    if name is None:
        objects = api.list(CONFIGMAPS, namespace).items
        objects = [obj for obj in objects if engine.CAPACITY in (obj["metadata"].get("annotations") or {})]
    else:
        try:
            objects = [api.get(CONFIGMAPS, name, namespace)]
        except NotFound:
            objects = []
    return {"changed": False, "semaphores": [describe(obj) for obj in objects]}


def describe(obj: Mapping[str, Any]) -> Result:
    """One ConfigMap as `info` shows it."""
    metadata = obj["metadata"]
    known = {"name": metadata["name"], "namespace": metadata["namespace"]}
    try:
        return {**known, **engine.view(read(obj)), "error": None}
    except Malformed as error:
        return {**known, "resources": [], "holders": [], "waiters": [], "error": str(error)}


def identify(api: Api, namespace: str, holder: str, uid: str | None, lease: int | None) -> str:
    """The identity behind a holder's name: the uid of its Pod, or an empty one for a holder with a lease."""
    if uid is not None or lease is not None:
        return uid or ""
    found = pod_uid(api, namespace, holder)
    if not found:
        remedy = "name a Pod that runs in this namespace, or give a lease (seconds) for a holder that is not a Pod"
        raise Malformed("holder", holder, remedy)
    return found


def _wait(api: Api, name: str, namespace: str, claimant: Claimant, deadline: float, wait_timeout: float) -> Decision:
    def withdraw(before: Semaphore) -> Decision:
        return engine.release(before, *claimant.identity, now=utc_now(), keep_grant=True)

    attendant = Attendant(api, name=name, namespace=namespace, claimant=claimant)
    last = None
    try:
        for sight in attendant.sights(deadline):
            if sight.grant is not None and sight.semaphore is not None:
                return Decision(sight.semaphore, "granted", (f"{claimant.holder} waited its turn",))
            last = sight
    except BaseException:  # also an interrupt: who does not wait must not be granted
        with suppress(MusterError):
            write(api, name, namespace, withdraw)
        raise
    final = write(api, name, namespace, withdraw).verdict.semaphore
    if claimant.holder in final.grants and final.grants[claimant.holder].uid == claimant.uid:
        return Decision(final, "granted", (f"{claimant.holder} was served in the last moment",))
    seen = (last and last.trouble) or engine.describe_holders(final, claimant.want)
    raise TimedOut(f"{claimant.holder} waited {wait_timeout:g} s for ConfigMap {namespace}/{name} in vain", seen)


def _refuse_in_use(api: Api, obj: Mapping[str, Any]) -> None:
    metadata, there = obj["metadata"], read(obj)
    there = engine.reap(there, dead_pods(api, metadata["namespace"])(there), now=utc_now()).semaphore
    busy = [*sorted(there.grants), *(waiter.holder for waiter in there.queue)]
    if busy:
        more = f" and {len(busy) - NAMED} more" if len(busy) > NAMED else ""
        why = f"is in use by {', '.join(busy[:NAMED])}{more}"
    elif obj.get("data") or obj.get("binaryData"):
        why = "has data of its own"
    else:
        return
    what = f"ConfigMap {metadata['namespace']}/{metadata['name']}"
    raise MusterError(f"{what} {why}: it was not removed; give force=true to remove it all the same")


def _counts(capacity: Mapping[str, Any]) -> dict[str, Any]:
    """Ansible hands a templated number on as a string, as its own type `int` allows."""
    return {name: int(n) if isinstance(n, str) and n.isdecimal() and n.isascii() else n for name, n in capacity.items()}


def _semaphore(obj: Mapping[str, Any] | None) -> Semaphore:
    return Semaphore({}) if obj is None else read(obj)


def _capacity(obj: Mapping[str, Any] | None) -> Result:
    if obj is None:
        return {}
    try:
        return {"capacity": dict(read(obj).capacity)}
    except Malformed as error:  # removed by force
        return {"error": str(error)}


def _draining(obj: Mapping[str, Any] | None) -> list[str]:
    """Which resources have more holders than permits after a capacity was lowered."""
    there = _semaphore(obj)
    over = {name: -free for name, free in sorted(there.free().items()) if free < 0}
    return [f"{name} drains: {count} more held than there are permits" for name, count in over.items()]


def _own(semaphore: Semaphore, holder: str) -> Result:
    """What a claim owns of the document, as its diff shows it."""
    grant = semaphore.grants.get(holder)
    resource = next(iter(grant.resources)) if grant else None
    fence = (grant.fence or None) if grant else None
    since = grant.since if grant else None
    return {"holder": holder, "resource": resource, "fence": fence, "since": since, "place": semaphore.place(holder)}

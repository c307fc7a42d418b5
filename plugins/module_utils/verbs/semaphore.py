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
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant, Semaphore
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.plugins.module_utils.verbs import pods
from ansible_collections.muster.coordination.plugins.module_utils.verbs import tickets as on_tickets
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import Attendant
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import Engine, Holding, Outcome

Result = dict[str, Any]
ENGINES: Final[Mapping[str, Engine]] = {"annotations": on_annotations, "tickets": on_tickets}
RELEASE_SECONDS: Final = 10.0  # how long a release is tried again


def engine_of(name: str | None) -> Engine:
    """The engine of this name; None is the first. Raises Malformed for any other."""
    name = name or next(iter(ENGINES))
    if name not in ENGINES:
        raise Malformed("engine", name, f"give one of {', '.join(ENGINES)}")
    return ENGINES[name]


def configure(
    api: Api,
    *,
    name: str,
    namespace: str,
    engine: str | None = None,
    capacity: Mapping[str, int] | None = None,
    mode: str | None = None,
    state: str = "present",
    force: bool = False,
    check_mode: bool = False,
) -> Result:
    """Create a semaphore, set its capacity (the whole of it) and its mode, or remove it.

    `capacity` maps resource names to counts, 0 to 2^31 - 1; None keeps what is there. A lowered capacity revokes
    nobody: it drains. `mode` (annotations only): v1, one permit of one resource a holder, readable by old
    Distributors, or v2, counts of several; v2 to v1 is refused while somebody has or wants more than v1 can say.
    `absent` refuses while somebody holds or waits, or the ConfigMap has data, unless `force`.
    """
    wanted = None if capacity is None else decisions.parse_capacity(_counts(capacity), "capacity")
    if mode not in (None, *decisions.MODES):
        raise Malformed("mode", mode, f"give one of {', '.join(decisions.MODES)}")
    if state not in ("present", "absent"):
        raise Malformed("state", state, "give present or absent")
    done = engine_of(engine).configure(
        api,
        name=name,
        namespace=namespace,
        capacity=wanted,
        mode=mode,
        present=state == "present",
        force=force,
        check_mode=check_mode,
    )
    before, after = dict(done.before), dict(done.after)
    reasons = _draining(done.semaphore)
    result = {"changed": done.changed, "before": before, "after": after, "reasons": reasons}
    now = {"capacity": after.get("capacity"), "mode": after.get("mode")}
    return {**result, **now, "warnings": list(done.warnings)}


def ensure_claim(
    api: Api,
    *,
    state: str,
    engine: str | None = None,
    name: str,
    namespace: str,
    holder: str,
    holder_uid: str | None = None,
    check_mode: bool = False,
    **wishes: Any,
) -> Result:
    """`claim` for state present, with its further `wishes`; `release` for state absent."""
    who: dict[str, Any] = {
        "engine": engine,
        "name": name,
        "namespace": namespace,
        "holder": holder,
        "holder_uid": holder_uid,
    }
    if state == "absent":
        return release(api, **who, check_mode=check_mode)
    return claim(api, **who, check_mode=check_mode, **wishes)


def claim(
    api: Api,
    *,
    name: str,
    namespace: str,
    holder: str,
    engine: str | None = None,
    holder_uid: str | None = None,
    resource: str | None = None,
    resources: Mapping[str, int] | None = None,
    priority: int = 0,
    lease: int | None = None,
    wait: bool = False,
    wait_timeout: float = 300.0,
    check_mode: bool = False,
) -> Result:
    """Claim resources for a holder; with `wait`, queue for them for up to `wait_timeout` seconds.

    Either one permit of one `resource`, or `resources`, 1 to 16 with their counts, all of them or none; with neither,
    any one resource. The holder is a Pod of the namespace, and its claim ends with it; or, with `lease` (seconds, 3 to
    604800), anybody who claims again within that time. Claiming what one holds changes nothing, returns the same fence
    and renews the lease. Raises MusterError when nothing is free (no wait), TimedOut when the wait was in vain: the
    place in the queue is given up then.
    """
    started = time.monotonic()
    chosen = engine_of(engine)
    uid = identify(api, namespace, holder, holder_uid, lease)
    claimant = Claimant(holder, uid, _want(resource, resources), priority, lease)

    done = chosen.attempt(api, name=name, namespace=namespace, claimant=claimant, enqueue=wait, check_mode=check_mode)
    before = done.before
    if done.outcome == "busy":
        raise MusterError(f"{done.reasons[0]}; give wait=true to queue for it")
    if done.outcome == "waiting" and not wait:  # an earlier claim with wait, whose process ended, left it a place
        place = done.after.place
        raise MusterError(f"{done.reasons[0]}; {holder} has place {place} in the queue; give wait=true to wait on")
    if done.outcome == "waiting" and not check_mode:
        done = _wait(api, chosen, name, namespace, claimant, started + wait_timeout, wait_timeout)
    return {
        **_shown(holder, done, before),
        "uid": uid,
        "waited": round(time.monotonic() - started, 3),
    }


def attempt(
    api: Api,
    *,
    name: str,
    namespace: str,
    claimant: Claimant,
    engine: str | None = None,
    enqueue: bool = False,
    check_mode: bool = False,
) -> Outcome:
    """One look: take out the dead, then claim what is free, or (`enqueue`) a place in the queue."""
    return engine_of(engine).attempt(
        api, name=name, namespace=namespace, claimant=claimant, enqueue=enqueue, check_mode=check_mode
    )


def release(
    api: Api,
    *,
    name: str,
    namespace: str,
    holder: str,
    engine: str | None = None,
    holder_uid: str | None = None,
    check_mode: bool = False,
    timeout: float = RELEASE_SECONDS,
) -> Result:
    """Give back what the holder has, and its place in the queue; `holder_uid` None: whoever uses the name.

    `timeout` bounds, in seconds, how long it is tried.
    """
    done = engine_of(engine).release(
        api, name=name, namespace=namespace, holder=holder, uid=holder_uid, check_mode=check_mode, timeout=timeout
    )
    return _shown(holder, done, done.before)


def leave(
    api: Api,
    *,
    name: str,
    namespace: str,
    claimant: Claimant,
    engine: str | None = None,
    timeout: float = RELEASE_SECONDS,
) -> bool:
    """`release` of a claimant that knows itself, in as few requests as there can be; whether it had anything."""
    return engine_of(engine).seat(api, name=name, namespace=namespace, claimant=claimant).leave(timeout)


def info(
    api: Api, *, namespace: str, name: str | None = None, engine: str | None = None, check_mode: bool = False
) -> Result:
    """Capacity, holders with fences, and waiters, of one semaphore or of all in the namespace; only ever reads.

    `engine` None: of both engines. A semaphore that is malformed is listed with its `error`, beside the healthy ones.
    """
    chosen = [engine_of(engine)] if engine else list(ENGINES.values())
    found = [one for each in chosen for one in each.describe(api, namespace=namespace, name=name)]
    return {"changed": False, "semaphores": sorted(found, key=lambda one: (one["name"], one["engine"]))}


def attendant(
    api: Api, *, name: str, namespace: str, claimant: Claimant, engine: str | None = None, **settings: Any
) -> Attendant:
    """One who attends the semaphore for the claimant; `settings` as `Attendant` takes them."""
    seat = engine_of(engine).seat(api, name=name, namespace=namespace, claimant=claimant)
    return Attendant(api, seat, namespace=namespace, **settings)


def identify(api: Api, namespace: str, holder: str, uid: str | None, lease: int | None) -> str:
    """The identity behind a holder's name: the uid of its Pod, or an empty one for a holder with a lease."""
    if uid is not None or lease is not None:
        return uid or ""
    found = pods.uid_of(api, namespace, holder)
    if not found:
        remedy = "name a Pod that runs in this namespace, or give a lease (seconds) for a holder that is not a Pod"
        raise Malformed("holder", holder, remedy)
    return found


def _wait(
    api: Api, engine: Engine, name: str, namespace: str, claimant: Claimant, deadline: float, wait_timeout: float
) -> Outcome:
    seat = engine.seat(api, name=name, namespace=namespace, claimant=claimant)
    last = None
    try:
        for sight in Attendant(api, seat, namespace=namespace).sights(deadline):
            if sight.grant is not None and sight.standing is not None:
                has = Holding(sight.grant.resources, sight.grant.fence, sight.grant.since)
                why = (f"{claimant.holder} waited its turn",)
                return Outcome("granted", Holding(), has, sight.standing.semaphore, why)
            last = sight
    except BaseException:  # also an interrupt: who does not wait must not be granted
        with suppress(MusterError):
            engine.withdraw(api, name=name, namespace=namespace, claimant=claimant)
        raise
    final = engine.withdraw(api, name=name, namespace=namespace, claimant=claimant)
    if final.after.resources:
        why = (f"{claimant.holder} was served in the last moment",)
        return Outcome("granted", final.before, final.after, final.semaphore, why)
    seen = (last and last.trouble) or decisions.describe_holders(final.semaphore, claimant.want)
    raise TimedOut(f"{claimant.holder} waited {wait_timeout:g} s for {engine.what(name, namespace)} in vain", seen)


def _want(resource: str | None, resources: Mapping[str, Any] | None) -> dict[str, int]:
    if resources is None:
        return {resource or ANY: 1}
    if resource:
        raise Malformed("resources", dict(resources), f"give either these or resource, which is {resource!r}")
    want = _counts(resources)
    decisions.check_want(want, "resources")
    return want


def _counts(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Ansible hands a templated number on as a string, as its own type `int` allows."""
    return {name: int(n) if isinstance(n, str) and n.isdecimal() and n.isascii() else n for name, n in counts.items()}


def _draining(semaphore: Semaphore) -> list[str]:
    """Which resources have more holders than permits after a capacity was lowered."""
    over = {name: -free for name, free in sorted(semaphore.free().items()) if free < 0}
    return [f"{name} drains: {count} more held than there are permits" for name, count in over.items()]


def _shown(holder: str, done: Outcome, before: Holding) -> Result:
    """A claim's or a release's part of the semaphore, as its diff shows it."""
    was, now = ({"holder": holder, **_has(holding)} for holding in (before, done.after))
    result = {"changed": before != done.after, "before": was, "after": now, "outcome": done.outcome}
    return {**result, "reasons": list(done.reasons), "warnings": list(done.warnings), **now}


def _has(holding: Holding) -> Result:
    """A holding in plain words; `resource` is set where it is one permit of one resource."""
    resources = dict(holding.resources)
    return {"resource": decisions.single(resources), **holding._asdict(), "resources": resources}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance of an allocator from a playbook, and a look at all of them: what the two modules do.

They come in by one of two doors: an allocator's HTTP interface, or straight to the cluster, where they make the same
decisions as the allocator's server. Behind either door an instance is what `decisions.allocator.view` makes of it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    SELF_SUBJECT_REVIEWS,
    Api,
    Credentials,
    LostAnswer,
    NotFound,
    Put,
    Removed,
    ServerError,
    Snapshot,
    Throttled,
    Unreachable,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.allocator import (
    AllocatorClient,
    KubernetesToken,
    tls_of,
    token_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    Busy,
    Caller,
    NotThere,
    check_key,
    parse_wish,
    view,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import (
    DESTROYING,
    FAILED,
    READY,
    SUSPENDED,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import key_hash
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import (
    check_value,
    from_text,
    parse_parameters,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import (
    INSTANCES,
    Allocator,
    read_offer,
)

PATIENCE: Final = 30.0  # seconds in which a creation is tried again
PRESENT, ABSENT = "present", "absent"
OF_THE_URL: Final = ("ca_cert", "validate_certs")  # options that are about the allocator's URL where there is one
Instance = dict[str, Any]
Result = dict[str, Any]


class Door(Protocol):
    """What one user can do at an allocator."""

    def offer(self) -> dict[str, Any]: ...
    def create(self, key: str, wish: Mapping[str, Any], *, dry_run: bool = False) -> tuple[Instance, bool]: ...
    def get(self, name: str) -> Instance: ...
    def listed(self, *, everything: bool = False) -> list[Instance]: ...
    def destroy(self, name: str, storage: str | None = None) -> Instance: ...
    def suspend(self, name: str, suspended: bool) -> Instance: ...
    def disks(self) -> list[dict[str, Any]]: ...
    def follow(self, name: str, deadline: float) -> Iterator[Instance | None]: ...
    def close(self) -> None: ...


class ClusterDoor:
    """The door without a server. Whoever has the rights that it needs could do anything; it does what is right."""

    def __init__(self, api: Api, namespace: str, allocator: str, owner: str | None = None) -> None:
        """`owner`: in whose name; None: in that of the credentials. Raises what reading the offer raises."""
        self._api, self._namespace = api, namespace
        try:
            self._allocator = Allocator(api, namespace, read_offer(api, namespace, allocator))
        except NotFound as error:
            remedy = f"give the name of an allocator that runs in namespace {namespace}, or has run there ({error})"
            raise Malformed("allocator", allocator, remedy) from None
        self._caller = Caller(owner) if owner else whoami(api)

    def offer(self) -> dict[str, Any]:
        return self._allocator.offer_for(self._caller)

    def create(self, key: str, wish: Mapping[str, Any], *, dry_run: bool = False) -> tuple[Instance, bool]:
        deadline, parsed = time.monotonic() + PATIENCE, parse_wish(dict(wish))
        while True:
            try:
                made = self._allocator.create(self._caller, key, parsed, dry_run=dry_run)
                return view(made.instance), made.is_new
            except (LostAnswer, ServerError, Throttled, Unreachable, Busy):
                pause = random.uniform(0.1, 1.0)
                if time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)

    def get(self, name: str) -> Instance:
        return view(self._allocator.get(self._caller, name))

    def listed(self, *, everything: bool = False) -> list[Instance]:
        found, after = [], ""
        while True:
            page = self._allocator.listed(self._caller, limit=500, after=after, everything=everything)
            found += list(map(view, page.items))
            after = page.next
            if not after:
                return found

    def destroy(self, name: str, storage: str | None = None) -> Instance:
        return view(self._allocator.destroy(self._caller, name, storage))

    def suspend(self, name: str, suspended: bool) -> Instance:
        return view(self._allocator.suspend(self._caller, name, suspended))

    def disks(self) -> list[dict[str, Any]]:
        return self._allocator.disks(self._caller)

    def follow(self, name: str, deadline: float) -> Iterator[Instance | None]:
        """As it changes, and None when it is gone; until `deadline` on the monotonic clock."""
        stop = threading.Event()
        timer = threading.Timer(max(0.0, deadline - time.monotonic()), stop.set)
        timer.daemon = True
        timer.start()
        try:
            for change in self._api.follow(INSTANCES, self._namespace, name=name, stop=stop):
                if isinstance(change, Snapshot):
                    yield view(change.items[0]) if change.items else None
                elif isinstance(change, Put):
                    yield view(change.obj)
                elif isinstance(change, Removed):
                    yield None
        finally:
            timer.cancel()
            stop.set()

    def close(self) -> None:
        self._api.close()


def whoami(api: Api) -> Caller:
    """Who we are to the API server. Raises ApiError."""
    review = {"apiVersion": SELF_SUBJECT_REVIEWS.api_version, "kind": SELF_SUBJECT_REVIEWS.kind, "metadata": {}}
    told = api.create(SELF_SUBJECT_REVIEWS, review)["status"]["userInfo"]
    return Caller(told["username"], tuple(told.get("groups") or ()))


def open_door(
    login: Mapping[str, Any],
    *,
    allocator_url: str | None,
    token: str | None,
    allocator: str | None,
    namespace: str | None,
    owner: str | None,
) -> Door:
    """`login`: the options of authentication; with `allocator_url` two of them are about that. Raises MusterError."""
    if not allocator_url:
        credentials = Credentials.load(login)
        at = namespace or credentials.namespace or "default"
        return ClusterDoor(Api(credentials), at, allocator or "", owner)
    tls = tls_of(login.get("ca_cert"), verify=login.get("validate_certs") is not False)
    if token:
        return AllocatorClient(allocator_url, token_of(token, "token"), tls=tls, patience=PATIENCE)
    theirs = {name: value for name, value in login.items() if name not in OF_THE_URL}
    return AllocatorClient(allocator_url, KubernetesToken(Credentials.load(theirs)), tls=tls, patience=PATIENCE)


# ---------------------------------------------------------------------------------------------------------------------
# The modules


class Wanted(NamedTuple):
    """An instance as a playbook wants it; None: that does not matter."""

    key: str | None = None
    name: str | None = None
    parameters: Mapping[str, Any] | None = None
    access: Mapping[str, Any] | None = None
    storage: str | None = None
    attach: str | None = None

    @property
    def which(self) -> str:
        return f"the key {self.key}" if self.key else f"the name {self.name}"


def instance(
    login: Mapping[str, Any],
    *,
    state: str = PRESENT,
    key: str | None = None,
    name: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    access: Mapping[str, Any] | None = None,
    storage: str | None = None,
    attach: str | None = None,
    wait: bool = False,
    wait_timeout: float = 300,
    check_mode: bool = False,
    **where: Any,
) -> Result:
    """Have an instance, have it suspended, or have none. `where` is for `open_door`.

    Raises the refusals of decisions/allocator.py, Malformed, and TimedOut when the wait was in vain.
    """
    door = open_door(login, **where)
    try:
        wanted = Wanted(key, name, parameters, access, storage, attach)
        return settle(door, state, wanted, wait_timeout if wait else None, check_mode=check_mode)
    finally:
        door.close()


def info(
    login: Mapping[str, Any],
    *,
    name: str | None = None,
    key: str | None = None,
    everything: bool = False,
    check_mode: bool = False,
    **where: Any,
) -> Result:
    """The instances of a user, or one of them; what there is to be had; and the disks that were kept."""
    door = open_door(login, **where)
    try:
        if name or key:
            found = find(door, Wanted(key, name))
            instances = [found] if found else []
        else:
            instances = door.listed(everything=everything)
        return {"changed": False, "instances": instances, "offer": door.offer(), "disks": door.disks()}
    finally:
        door.close()


def settle(door: Door, state: str, wanted: Wanted, seconds: float | None, *, check_mode: bool = False) -> Result:
    """Bring it about, and wait for it for `seconds` (None: do not wait)."""
    deadline = None if seconds is None else time.monotonic() + seconds
    before = find(door, wanted)
    if state == ABSENT:
        after, changed = _remove(door, before, wanted, check_mode)
    else:
        after, changed = _have(door, before, wanted, state == SUSPENDED.lower(), deadline, check_mode)
    if deadline is not None and after and not check_mode:
        goals = {PRESENT: READY, ABSENT: None}
        after = await_phase(door, after["name"], goals.get(state, SUSPENDED), deadline)
    return {
        "changed": changed,
        "instance": after or {},
        "before": _shown(before),
        "after": {} if state == ABSENT else _shown(after),
    }


def find(door: Door, wanted: Wanted) -> Instance | None:
    """By its name, or one's own by its key."""
    if wanted.name:
        with suppress(NotThere):
            return door.get(wanted.name)
        return None
    hashed = key_hash(check_key(wanted.key))
    whose = door.offer()["caller"]["name"]
    return next((each for each in door.listed() if each.get("key") == hashed and each["owner"] == whose), None)


def _remove(door: Door, before: Instance | None, wanted: Wanted, check_mode: bool) -> tuple[Instance | None, bool]:
    if before is None:
        return None, False
    is_other = wanted.storage not in (None, before["storage"])
    if before["phase"] == DESTROYING and not is_other:
        return before, False
    if check_mode:
        return before, True
    return door.destroy(before["name"], wanted.storage if is_other else None), True


def _have(
    door: Door, before: Instance | None, wanted: Wanted, suspended: bool, deadline: float | None, check_mode: bool
) -> tuple[Instance | None, bool]:
    after, changed = before, False
    if before is not None and before["phase"] == DESTROYING and wanted.key and deadline is not None:
        if check_mode:
            return None, True
        await_phase(door, before["name"], None, deadline)
        after = None
    if after is None or (after["phase"] == DESTROYING and wanted.key):
        if not wanted.key:
            raise Malformed(
                "name", wanted.name, "no instance of yours has it: give a key in its place to have one made"
            )
        after, _is_new = door.create(wanted.key, wish_of(door, wanted), dry_run=check_mode)
        changed = True  # it was looked for, and not there; an answer that was lost makes the next one no news
    elif after["phase"] == DESTROYING:
        raise Busy(f"{after['name']} is being destroyed: give a key in place of the name to have another one made")
    else:
        check_same(after, wanted, door)
    if after["suspended"] != suspended:
        changed = True
        after = {**after, "suspended": suspended} if check_mode else door.suspend(after["name"], suspended)
    return after, changed


def wish_of(door: Door, wanted: Wanted) -> dict[str, Any]:
    """What is sent to have it made."""
    wish: dict[str, Any] = {}
    if wanted.parameters:
        wish["parameters"] = typed(door.offer(), wanted.parameters)
    if wanted.access:
        wish["access"] = {each: list(names) for each, names in wanted.access.items() if names}
    if wanted.storage:
        wish["storage"] = wanted.storage
    if wanted.attach:
        wish["attach"] = wanted.attach
    return wish


def check_same(there: Instance, wanted: Wanted, door: Door) -> None:
    """What is there can't be made another. Raises Malformed, which names what differs."""
    differs: list[tuple[str, Any, Any]] = []
    given = typed(door.offer(), wanted.parameters) if wanted.parameters else {}
    differs += [(f"parameters.{name}", value, there["parameters"].get(name)) for name, value in given.items()]
    for group, names in (wanted.access or {}).items():
        if names is not None:
            differs.append((f"access.{group}", sorted(set(names)), sorted(there["access"][group])))
    for field in ("storage", "attach"):
        value = getattr(wanted, field)
        if value is not None:
            differs.append((field, value, there[field]))
    for field, value, now in differs:
        if value != now or type(value) is not type(now):
            remedy = f"{there['name']} has {now!r}, and keeps it: give that, or another key, or destroy it first"
            raise Malformed(field, value, remedy)


def typed(offer: Mapping[str, Any], given: Mapping[str, Any], where: str = "parameters") -> dict[str, Any]:
    """Values of parameters, where text may stand for numbers and booleans. Raises Malformed."""
    try:
        known = parse_parameters(offer.get("parameters"), "the offer's parameters")
    except Malformed:  # of a newer allocator, which will say itself what does not fit
        return dict(given)
    told: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            names = ", ".join(sorted(known)) or "none at all"
            raise Malformed(where, name, f"leave it out: the template has the parameters {names}")
        read = from_text if isinstance(value, str) else check_value
        told[name] = read(known[name], value, f"{where}.{name}")
    return told


def await_phase(
    door: Door,
    name: str,
    goal: str | None,
    deadline: float,
    tell: Callable[[Instance], None] = lambda _instance: None,
    *,
    resets: int = 0,
) -> Instance | None:
    """Wait until it has that phase (None: until it is gone). `tell` is told of each state on the way.

    `resets`: a state with fewer is one of before it was reset, which may be heard of late.

    Raises TimedOut; MusterError where it fails, or is destroyed in place of it.
    """
    began, last = time.monotonic(), "nothing was heard of it"
    for seen in door.follow(name, deadline):
        if seen is None:
            if goal is None:
                return None
            raise MusterError(f"{name} is gone: somebody destroyed it, or it is not shared with you any more")
        tell(seen)
        last = f"{seen['phase']}{seen['message'] and ': '}{seen['message']}"
        if seen["resets"] < resets:
            continue
        if seen["phase"] == goal:
            return seen
        if seen["phase"] == FAILED and goal is not None:
            raise MusterError(f"{name} has failed: {seen['message']}")
        if seen["phase"] == DESTROYING and goal is not None:
            raise MusterError(f"{name} is being destroyed, so it will not be {goal}")
    what = f"to be {goal}" if goal else "to be gone"
    raise TimedOut(f"waited {time.monotonic() - began:.0f} s for {name} {what} in vain", last)


def _shown(instance: Instance | None) -> Result:
    """What a playbook says of an instance, as it is."""
    if not instance or instance["phase"] == DESTROYING:
        return {}
    return {key: instance[key] for key in ("name", "parameters", "access", "storage", "attach", "suspended")}

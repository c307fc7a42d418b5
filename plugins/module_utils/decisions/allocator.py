# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an allocator offers, what is asked of it, who may do what, and how it refuses.

Rules
1. An instance is its owner's. Whom the owner shares it with may see, suspend and resume it; only the owner and the
   administrators may reset and destroy it.
2. Who may not see an instance is told what is told of one that is not there: the same words, nothing repeated.
3. A request is what was asked for, not what it came to: it is the same one again also after the template has changed.
4. A member of a request that we don't know is refused by its name: a misspelt option is no default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger
from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import (
    API_VERSION,
    CREATING,
    DELETE,
    DESTROYING,
    DISK,
    FINALIZER,
    KIND,
    PENDING,
    READY,
    RESETTING,
    RETAIN,
    RETAINED,
    SUSPENDED,
    SUSPENDING,
    labels_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import (
    DECLARATION,
    OWNERS,
    Access,
    Facts,
    Template,
    check_parameters,
    look,
    own,
    parse,
    parse_size,
    render,
    used,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import (
    Parameter,
    check_text,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import (
    LEVELS,
    Policy,
    check_objects,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

OFFER_KEY: Final = "offer.json"  # in the ConfigMap's data
POOL: Final = "system:muster:warm-pool"  # whose ledger holds the instances that have no owner yet
GROUP: Final = "group:"  # before a group's name among the administrators
MAX_KEY: Final = 128  # characters of an idempotency key
MAX_SHARED: Final = 64  # users, and groups, that an instance is shared with
MAX_NAME: Final = 1024  # bytes of a user's or a group's name
STORAGE: Final = (DELETE, RETAIN)
RESUMING: Final = "Resuming"  # which only `view` says

_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,126}[\x21-\x7e])?")

Object = Mapping[str, Any]
STANDARD: Final = Policy()


class Caller(NamedTuple):
    """Who asks, as the API server knows them."""

    name: str
    groups: tuple[str, ...] = ()


class Wish(NamedTuple):
    """What is asked for."""

    parameters: Mapping[str, Any] = {}
    access: Access = Access()
    storage: str = DELETE
    attach: str = ""

    @property
    def digest(self) -> str:
        """The same for the same wish, however it is written."""
        users, groups = (sorted(set(names)) for names in self.access)
        return ledger.digest([dict(self.parameters), users, groups, self.storage, self.attach])


@dataclass(frozen=True, slots=True)
class Offer:
    """What an allocator gives, to whom, and how many. `name` is its own, `server_name` begins its instances' names.

    `administrators` are users, and groups as group:NAME. `warm` instances wait without an owner.
    """

    name: str
    server_name: str
    template: Template
    policy: Policy = STANDARD
    max_instances: int = 10
    max_instances_per_user: int = 1
    disk_size: str = "50G"
    storage_class: str = ""
    administrators: tuple[str, ...] = ()
    warm: int = 0
    mount_prefix: str = ""

    def is_administrator(self, caller: Caller) -> bool:
        return caller.name in self.administrators or any(
            GROUP + group in self.administrators for group in caller.groups
        )

    @property
    def disks(self) -> int:
        """How many an instance has."""
        return sum(obj["kind"] == DISK for obj in self.template.documents)


# ---------------------------------------------------------------------------------------------------------------------
# Refusals


class Refused(MusterError):
    """What is asked for is not done; `word` says why to programs, the message to people.

    `members` are further ones of the problem document (RFC 9457).
    """

    word: ClassVar[str] = "refused"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "Refused"

    def __init__(self, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.members = members


class NotThere(Refused):
    word, status, title = "not-found", 404, "There is none that you may see"

    def __init__(self, what: str = "instance", **members: Any) -> None:
        super().__init__(
            f"you have no such {what}: look at the list of yours, and whether you are who you mean to be", **members
        )


class NotOwner(Refused):
    word, status, title = "not-owner", 403, "Only its owner may"


class NotAdministrator(Refused):
    word, status, title = "not-administrator", 403, "Only administrators may"


class QuotaSpent(Refused):
    """`limit`, `used` and `scope` (owner, or global) are members."""

    word, status, title = "quota", 403, "No place is free"


class KeyReused(Refused):
    word, status, title = "key-reused", 422, "This key belongs to another request"


class KeyBusy(Refused):
    word, status, title = "key-busy", 409, "The instance of this key is being destroyed"


class Busy(Refused):
    """It may be asked for again at once."""

    word, status, title = "conflict", 409, "Something else happens to it just now"


class RefusedByCluster(Refused):
    word, status, title = "refused-by-cluster", 422, "The cluster would not take its objects"


REFUSALS: Final[Mapping[str, type[Refused]]] = {
    each.word: each
    for each in (NotThere, NotOwner, NotAdministrator, QuotaSpent, KeyReused, KeyBusy, Busy, RefusedByCluster)
}


# ---------------------------------------------------------------------------------------------------------------------
# What is asked


def parse_wish(body: Any) -> Wish:
    """Of a request's body. Raises Malformed, which names the member."""
    document = _mapping(body, "body", ("parameters", "access", "storage", "attach"))
    parameters = _mapping(_given(document, "parameters", {}), "parameters")
    access = _mapping(_given(document, "access", {}), "access", ("users", "groups"))
    storage = _given(document, "storage", DELETE)
    if storage not in STORAGE:
        raise Malformed("storage", storage, "give delete or retain: what becomes of its disks when it is destroyed")
    attach = _given(document, "attach", "")
    if not isinstance(attach, str) or len(attach) > 253:
        raise Malformed("attach", attach, "give the name of a disk that you have kept")
    users, groups = (_names(_given(access, each, []), f"access.{each}") for each in ("users", "groups"))
    return Wish(parameters, Access(users, groups), storage, attach)


def check_key(key: Any) -> str:
    """An idempotency key. Raises Malformed."""
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        remedy = f"give 1 to {MAX_KEY} printable ASCII characters, the same ones with each repetition of a request"
        raise Malformed("Idempotency-Key", key, remedy)
    return key


def _mapping(value: Any, where: str, known: Sequence[str] = ()) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Malformed(where, value, "give an object")
    for name in value:
        if known and name not in known:
            raise Malformed(
                f"{where}.{name}" if where != "body" else str(name), value[name], f"it has {', '.join(known)}"
            )
    return value


def _given(document: Mapping[str, Any], name: str, default: Any) -> Any:
    """A member; null is as good as none."""
    value = document.get(name)
    return default if value is None else value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or len(value) > MAX_SHARED:
        raise Malformed(where, value, f"give a list of at most {MAX_SHARED} names")
    for number, name in enumerate(value):
        if not isinstance(name, str) or not name:
            raise Malformed(f"{where}[{number}]", name, "give a name as the API server knows it")
        check_text(name, f"{where}[{number}]", MAX_NAME)
    return tuple(sorted(set(value)))


# ---------------------------------------------------------------------------------------------------------------------
# Who may


def may_see(offer: Offer, caller: Caller, instance: Object) -> bool:
    """See, suspend and resume it. Nobody but administrators sees what waits in the pool."""
    owner, access = instance["spec"].get("owner"), instance["spec"].get("access") or {}
    if offer.is_administrator(caller) or (owner and owner == caller.name):
        return True
    return bool(owner) and (
        caller.name in (access.get("users") or []) or not set(caller.groups).isdisjoint(access.get("groups") or [])
    )


def may_destroy(offer: Offer, caller: Caller, instance: Object) -> bool:
    """Reset and destroy it."""
    owner = instance["spec"].get("owner")
    return offer.is_administrator(caller) or bool(owner and owner == caller.name)


# ---------------------------------------------------------------------------------------------------------------------
# Instances


def make(offer: Offer, namespace: str, owner: str, name: str, key: str, wish: Wish, now: str) -> dict[str, Any]:
    """The Instance of a wish, not yet there. `owner` empty: for the pool. Raises Malformed.

    `key` is the hash of the request's. It has no finalizer: that is put on when the ledgers are seen to hold it, so one
    that has it was held once.
    """
    parameters = check_parameters(offer.template, wish.parameters)
    mount = f"{offer.mount_prefix or f'{offer.name}/'}{name}"
    facts = Facts(name, owner, ledger.owner_hash(owner), wish.access, mount, owner, now)
    rendered = render(offer.template, facts, parameters)
    manifest = own(
        rendered,
        handle=name,
        namespace=namespace,
        allocator=offer.name,
        owner=owner,
        disk_size=offer.disk_size,
        storage_class=offer.storage_class,
        attach=wish.attach,
    )
    check_objects(manifest, offer.policy)
    spec = {
        "owner": owner,
        "access": {"users": list(wish.access.users), "groups": list(wish.access.groups)},
        "key": key,
        "digest": wish.digest if owner else "",
        "parameters": parameters,
        "template": offer.template.digest,
        "manifest": manifest,
        "suspended": False,
        "storage": wish.storage,
        "resets": 0,
        "attach": wish.attach,
    }
    labels = labels_of(offer.name, owner) if owner else {ledger.MEMBER: offer.name}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def claimed(offer: Offer, instance: Object, owner: str, key: str, wish: Wish) -> dict[str, Any]:
    """An Instance of the pool, with an owner from now on.

    It loses its finalizer, until the ledgers are seen to hold it for its owner: had their place been given up
    meanwhile, it would else be taken for one that was held.
    """
    spec = instance["spec"]
    finalizers = [each for each in instance["metadata"].get("finalizers") or [] if each != FINALIZER]
    metadata = {**instance["metadata"], "finalizers": finalizers}
    manifest = own(
        spec["manifest"],
        handle=metadata["name"],
        namespace=metadata["namespace"],
        allocator=offer.name,
        owner=owner,
    )
    labels = {**(metadata.get("labels") or {}), **labels_of(offer.name, owner)}
    access = {"users": list(wish.access.users), "groups": list(wish.access.groups)}
    named = {"owner": owner, "access": access, "key": key, "digest": wish.digest, "storage": wish.storage}
    return {**instance, "metadata": {**metadata, "labels": labels}, "spec": {**spec, **named, "manifest": manifest}}


def can_wait(template: Template) -> bool:
    """Whether its instances can be made before anybody asks for them."""
    has_defaults = all(parameter.default is not None for parameter in template.parameters.values())
    return has_defaults and used(template).isdisjoint(OWNERS)


def takes_any(offer: Offer, wish: Wish) -> bool:
    """Whether an instance of the pool is what is wished for."""
    plain = check_parameters(offer.template, wish.parameters) == check_parameters(offer.template, {})
    return plain and not wish.attach


def is_free(offer: Offer, instance: Object) -> bool:
    """Whether it waits in the pool, ready, and is what would be made today."""
    spec, status = instance["spec"], instance.get("status") or {}
    if spec.get("owner") or instance["metadata"].get("deletionTimestamp") or spec.get("suspended"):
        return False
    return status.get("phase") == "Ready" and spec.get("template") == offer.template.digest


def is_of(instance: Object, owner: str, key: str, digest: str) -> bool:
    """Whether it was made for this very request."""
    spec = instance["spec"]
    return (spec.get("owner"), spec.get("key"), spec.get("digest")) == (owner, key, digest)


def is_going(instance: Object) -> bool:
    return bool(instance["metadata"].get("deletionTimestamp"))


def view(instance: Object) -> dict[str, Any]:
    """An Instance as users see it."""
    metadata, spec, status = instance["metadata"], instance["spec"], instance.get("status") or {}
    manifest: Sequence[Object] = spec.get("manifest") or []
    access = spec.get("access") or {}
    return {
        "name": metadata["name"],
        "owner": spec.get("owner", ""),
        "access": {"users": list(access.get("users") or []), "groups": list(access.get("groups") or [])},
        "key": spec.get("key", ""),  # its hash, by which its owner finds it again
        "phase": _phase(instance),
        "message": status.get("message", ""),
        "created": metadata.get("creationTimestamp", ""),
        "parameters": dict(spec.get("parameters") or {}),
        "storage": spec.get("storage", DELETE),
        "suspended": bool(spec.get("suspended")),
        "resets": int(spec.get("resets") or 0),
        "attach": spec.get("attach", ""),
        "template": spec.get("template", ""),
        "objects": [{"kind": obj["kind"], "name": obj["metadata"]["name"]} for obj in manifest],
        "endpoints": _endpoints(manifest),
    }


def _phase(instance: Object) -> str:
    """What is wished for and not looked at yet counts as begun: who waits for it is not told of the time before."""
    spec, status = instance["spec"], instance.get("status") or {}
    phase = str(status.get("phase") or PENDING)
    if is_going(instance):
        return DESTROYING
    if int(status.get("resets") or 0) < int(spec.get("resets") or 0):
        return RESETTING
    if spec.get("suspended") and phase in (PENDING, CREATING, READY):
        return SUSPENDING
    if not spec.get("suspended") and phase in (SUSPENDING, SUSPENDED):
        return RESUMING
    return phase


def _endpoints(manifest: Sequence[Object]) -> list[dict[str, Any]]:
    """Each port of each Service."""
    ports = ((obj, look(obj, ("spec", "ports"))) for obj in manifest if obj["kind"] == "Service")
    return [
        {"service": obj["metadata"]["name"], "port": port.get("port"), "name": port.get("name") or ""}
        for obj, listed in ports
        for port in (listed if isinstance(listed, list) else [])
        if isinstance(port, Mapping)
    ]


def disk_view(disk: Object) -> dict[str, Any]:
    """A disk that was kept, as its owner sees it."""
    size = look(disk, ("spec", "resources", "requests", "storage"))
    metadata = disk["metadata"]
    return {"name": metadata["name"], "size": size or "", "created": metadata.get("creationTimestamp", "")}


def is_kept_by(disk: Object, owner: str) -> bool:
    """Whether it is a disk that this owner has kept, and that nothing has attached."""
    metadata = disk["metadata"]
    kept_by = (metadata.get("labels") or {}).get(RETAINED)
    return kept_by == ledger.owner_hash(owner) and not metadata.get("ownerReferences") and not is_going(disk)


# ---------------------------------------------------------------------------------------------------------------------
# The offer as it is written


def schema_of(parameter: Parameter) -> dict[str, Any]:
    """A parameter as JSON Schema."""
    told: dict[str, Any] = {
        "type": parameter.type,
        "default": parameter.default,
        "enum": list(parameter.enum) or None,
        "minimum": parameter.minimum,
        "maximum": parameter.maximum,
        "minLength": parameter.min_length or None,
        "maxLength": parameter.max_length,
        "pattern": parameter.pattern.text if parameter.pattern else None,
        "description": parameter.description or None,
    }
    return {key: value for key, value in told.items() if value is not None}


def offer_to_json(offer: Offer) -> dict[str, Any]:
    """All of it, such that `parse_offer` gives the same."""
    schemas = {name: schema_of(parameter) for name, parameter in offer.template.parameters.items()}
    declared = {"version": offer.template.version, "parameters": schemas}
    declaration = {"apiVersion": API_VERSION, "kind": DECLARATION, "spec": declared}
    policy = {
        key: sorted(map(list, value)) if key == "kinds" else sorted(value) if isinstance(value, frozenset) else value
        for key, value in offer.policy._asdict().items()
    }
    return {
        "version": 1,
        "name": offer.name,
        "serverName": offer.server_name,
        "template": [declaration, *offer.template.documents],
        "digest": offer.template.digest,  # of what the administrator wrote
        "policy": policy,
        "maxInstances": offer.max_instances,
        "maxInstancesPerUser": offer.max_instances_per_user,
        "diskSize": offer.disk_size,
        "storageClass": offer.storage_class,
        "administrators": list(offer.administrators),
        "warm": offer.warm,
        "mountPrefix": offer.mount_prefix,
    }


def parse_offer(document: Any, where: str) -> Offer:
    """What an allocator has published. Raises Malformed."""
    told = _mapping(document, where)
    if told.get("version") != 1:
        raise Malformed(f"{where}: version", told.get("version"), "this program knows version 1: update it")
    policy = dict(_mapping(told.get("policy") or {}, f"{where}: policy", Policy._fields))
    for key, value in policy.items():
        if isinstance(value, list):
            policy[key] = frozenset(tuple(each) if isinstance(each, list) else each for each in value)
    try:
        return make_offer(
            name=told["name"],
            server_name=told["serverName"],
            template=replace(parse(told["template"], f"{where}: template"), digest=told["digest"]),
            policy=Policy(**policy),
            max_instances=told["maxInstances"],
            max_instances_per_user=told["maxInstancesPerUser"],
            disk_size=told["diskSize"],
            storage_class=told["storageClass"],
            administrators=tuple(told["administrators"]),
            warm=told["warm"],
            mount_prefix=told["mountPrefix"],
        )
    except (KeyError, TypeError) as error:
        raise Malformed(where, sorted(told), f"let the allocator publish it again: {error}") from None


def make_offer(**said: Any) -> Offer:
    """An Offer whose values fit. Raises Malformed, which names the option."""
    offer = Offer(**said)
    ledger.handle(offer.server_name, "", "")
    for field, number, least in (
        ("max-instances", offer.max_instances, 0),
        ("max-instances-per-user", offer.max_instances_per_user, 0),
        ("warm", offer.warm, 0),
    ):
        if not isinstance(number, int) or not least <= number <= ledger.MAX_ENTRIES:
            raise Malformed(field, number, f"give a whole number from {least} to {ledger.MAX_ENTRIES}")
    if offer.policy.pod_security not in LEVELS:
        raise Malformed("pod-security", offer.policy.pod_security, f"give one of {', '.join(LEVELS)}")
    if offer.warm and not can_wait(offer.template):
        remedy = "give 0: the template names its owner, or has parameters without defaults, so none can be made before"
        raise Malformed("warm", offer.warm, remedy)
    parse_size(offer.disk_size, "server-disk-size")
    return offer

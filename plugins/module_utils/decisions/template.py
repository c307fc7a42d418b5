# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Templates of instances: an administrator's objects with placeholders, and what is made of them for one user.

Rules
1. A template is a tree of plain values. Placeholders, {{.Name}} or {{ Name }}, stand only inside its text values, never
   in keys, apiVersion or kind; so a value fills a scalar and can't become structure. {{"{{"}} stands for {{ itself.
2. A value that is nothing but the placeholder of an integer, number or boolean becomes that scalar; everything else
   becomes text, and so does what stands where Kubernetes has only text: labels, annotations, a container's command,
   arguments and variables, a ConfigMap's data.
3. Kubernetes replaces $(NAME) in a container's command, arguments and variables. There a value's $ is doubled, so that
   the program gets the value as it is.
4. AccessList and CreatorInfo are JSON, so text around them can be JSON, too: {"Admin":{{.AccessList}}}.
5. Whose the objects are is set after rendering (`own`). A template that says it itself is refused when it is read: what
   is put right in silence is a surprise later. `own` overrides it all the same, and narrows each selector to the
   instance, so that no Service leads to somebody else's Pods.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import (
    API_VERSION,
    DISK,
    INSTANCE,
    KIND,
    RETAINED,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, OWNER
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import (
    BUILT_IN,
    MAX_VALUE,
    Parameter,
    Scalar,
    check_text,
    check_values,
    check_whole,
    parse_parameters,
    spell_value,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

DECLARATION: Final = "InstanceTemplate"
MAX_DOCUMENTS: Final = 32
MAX_DEPTH: Final = 64  # values within values
MAX_NODES: Final = 20_000
MAX_BYTES: Final = 256 * 1024  # of the template as JSON
MAX_INSERTED: Final = 512 * 1024  # bytes of all values that are put into it, as JSON; an object in etcd has 1.5 MiB
OWNERS: Final = frozenset({"AccessList", "MountName", "CreatorInfo", "OwnerHash"})  # names that depend on the owner
OURS: Final = (MEMBER, INSTANCE, OWNER, RETAINED)  # labels and annotations that only the server sets
RESERVED: Final = (  # of metadata
    "namespace", "ownerReferences", "finalizers", "generateName", "uid", "resourceVersion", "managedFields",
    "deletionTimestamp", "deletionGracePeriodSeconds",
)  # fmt: skip
POD_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {  # where a kind has its Pod template
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"), ("spec", "template")
    ),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Pod": (),
}
SELECTORS: Final[Mapping[str, tuple[str, ...]]] = {  # where a kind says which Pods it is about
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "PodDisruptionBudget"),
        ("spec", "selector", "matchLabels"),
    ),
    "ReplicationController": ("spec", "selector"),
    "NetworkPolicy": ("spec", "podSelector", "matchLabels"),
    "Service": ("spec", "selector"),
}

_PLACEHOLDER: Final = re.compile(r'\{\{ *(?:\.?([A-Za-z_][A-Za-z0-9_]*)|"\{\{") *\}\}')
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_VERSION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")  # can be a label's value
_SIZE: Final = re.compile(r"([1-9][0-9]{0,14})(?:([kKMGTPE])(i?))?B?")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_TEXT_MAPPINGS: Final = frozenset({"labels", "annotations", "matchLabels", "nodeSelector"})
_CONTAINERS: Final = frozenset({"containers", "initContainers"})
_STATEFUL_NAME: Final = 52  # characters, so that its Pods' labels have room for a hash

Path = tuple[str | int, ...]  # pylint: disable=unsupported-binary-operation
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Template:
    """The objects, plain values without any that are shared. `digest`: 16 hexadecimal digits over all of it."""

    documents: tuple[Object, ...]
    parameters: Mapping[str, Parameter]
    version: str
    digest: str


class Access(NamedTuple):
    """Who may use an instance beside its owner."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class Facts(NamedTuple):
    """What the six names are made of. `created_by` empty: the owner; `created`: RFC 3339, or empty."""

    name: str
    owner: str
    owner_hash: str
    access: Access = Access()
    mount_name: str = ""
    created_by: str = ""
    created: str = ""


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def parse(documents: Sequence[Any], where: str) -> Template:
    """The template of documents that are plain values; None is an empty one. `where` names it in errors.

    Raises Malformed, with the field and the remedy.
    """
    found = [document for document in documents if document is not None]
    if not 0 < len(found) <= MAX_DOCUMENTS:
        raise Malformed(where, f"{len(found)} documents", f"give 1 to {MAX_DOCUMENTS}, each an object")
    copier = _Copier()
    copies = [copier.copied(document, f"{where}: document {number}") for number, document in enumerate(found, 1)]
    size = len(json.dumps(copies, separators=(",", ":"), ensure_ascii=False).encode())
    if size > MAX_BYTES:
        raise Malformed(where, f"{size} bytes", f"give at most {MAX_BYTES}")
    declared = [copy for copy in copies if copy.get("kind") == DECLARATION]
    objects = tuple(copy for copy in copies if copy.get("kind") != DECLARATION)
    if not objects or len(declared) > 1:
        counted = f"{len(objects)} objects, {len(declared)} {DECLARATION}s"
        raise Malformed(where, counted, f"give at least one object, and at most one {DECLARATION}")
    spec = _declaration(declared[0], f"{where}: {DECLARATION}") if declared else {}
    parameters = parse_parameters(spec.get("parameters"), f"{where}: {DECLARATION}: spec.parameters")
    for number, obj in enumerate(objects, 1):
        _check_object(obj, number, parameters, where)
    _check_twice(objects, where)
    canonical = json.dumps([spec, objects], sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    return Template(objects, parameters, spec.get("version", digest), digest)


class _Copier:
    """Copies plain values, and counts them: what was shared (an alias of YAML) counts each time."""

    def __init__(self) -> None:
        self._nodes = 0

    def copied(self, document: Any, where: str) -> dict[str, Any]:
        if not isinstance(document, Mapping):
            raise Malformed(where, document, "give an object: a mapping with apiVersion, kind and metadata")
        copy: dict[str, Any] = self._copy(document, (), where)
        return copy

    def _copy(self, value: Any, path: Path, where: str) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise Malformed(where, f"more than {MAX_NODES:,} values", "give fewer; each alias counts as what it is for")
        if len(path) > MAX_DEPTH:
            raise Malformed(f"{where}: {spell(path[:4])}…", "too deep", f"nest values at most {MAX_DEPTH} deep")
        match value:
            case Mapping():
                return {_key(key, path, where): self._copy(of, (*path, str(key)), where) for key, of in value.items()}
            case list() | tuple():
                return [self._copy(item, (*path, number), where) for number, item in enumerate(value)]
            case str():
                return _PLACEHOLDER.sub(_canonical, check_text(value, f"{where}: {spell(path)}", MAX_BYTES))
            case bool() | None:
                return value
            case int():
                return check_whole(value, f"{where}: {spell(path)}")
            case float() if math.isfinite(value):
                return value
        remedy = "give text, a number, true, false or null; quote what is to be text"
        raise Malformed(f"{where}: {spell(path)}", value, remedy)


def _key(key: Any, path: Path, where: str) -> str:
    if not isinstance(key, str):
        raise Malformed(f"{where}: {spell(path)}", key, "give text as the key: quote it")
    if "{{" in key:
        raise Malformed(f"{where}: {spell(path)}", key, "write the key out: placeholders are for values only")
    return check_text(key, f"{where}: {spell(path)}")


def _canonical(found: re.Match[str]) -> str:
    """One spelling for each placeholder, so that equal names are equal texts."""
    return f"{{{{.{found[1]}}}}}" if found[1] else found[0]


def _declaration(document: Object, where: str) -> Mapping[str, Any]:
    """The spec of an InstanceTemplate."""
    if document.get("apiVersion") != API_VERSION:
        raise Malformed(f"{where}: apiVersion", document.get("apiVersion"), f"give {API_VERSION}")
    for key in sorted(document.keys() - {"apiVersion", "kind", "metadata", "spec"}):
        raise Malformed(f"{where}: {key}", document[key], "leave it out: it has metadata and spec")
    spec = document.get("spec") or {}
    if not isinstance(spec, Mapping):
        raise Malformed(f"{where}: spec", spec, "give version and parameters, each of them optional")
    for key in sorted(spec.keys() - {"version", "parameters"}):
        raise Malformed(f"{where}: spec.{key}", spec[key], "leave it out: it has version and parameters")
    version = spec.get("version")
    if "version" in spec and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        raise Malformed(f"{where}: spec.version", version, "give text that can be a label, in quotes: '1.0'")
    return spec


def _check_object(obj: Object, number: int, parameters: Mapping[str, Parameter], where: str) -> None:
    at = f"{where}: document {number}"
    for key in ("apiVersion", "kind"):
        if not isinstance(obj.get(key), str) or not obj[key] or "{{" in obj[key]:
            raise Malformed(f"{at}: {key}", obj.get(key), "write it out")
    if obj["kind"].endswith("List") and "items" in obj:
        raise Malformed(f"{at}: kind", obj["kind"], "give each of its items as a document")
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str):
        raise Malformed(f"{at}: metadata.name", name, "give a name that begins with {{.Name}}")
    at = f"{where}: {title(obj)}"
    if not begins_with_name(name):
        remedy = "let it be {{.Name}}, or begin with {{.Name}}-: each instance has objects of its own"
        raise Malformed(f"{at}: metadata.name", name, remedy)
    _check_metadata(obj, at)
    for path, text in walk_text(obj):
        _check_placeholders(text, path, parameters, f"{at}: {spell(path)}")


def _check_metadata(obj: Object, at: str) -> None:
    """Nothing is said about whose it is."""
    for key in RESERVED:
        if obj["metadata"].get(key) is not None:
            remedy = "leave it out: the server sets namespace, owner and finalizers itself"
            raise Malformed(f"{at}: metadata.{key}", obj["metadata"][key], remedy)
    for path in dict.fromkeys(((), POD_TEMPLATES.get(obj["kind"], ()))):
        for group in ("labels", "annotations"):
            field = (*path, "metadata", group)
            metadata = look(obj, field[:-1])
            there = metadata.get(group) if isinstance(metadata, Mapping) else None  # else it is left to the policy
            if there is None:
                continue
            if not isinstance(there, Mapping):
                raise Malformed(f"{at}: {spell(field)}", there, "give a mapping")
            for key in OURS:
                if key in there:
                    raise Malformed(f"{at}: {spell((*field, key))}", there[key], "leave it out: the server sets it")


def _check_placeholders(text: str, path: Path, parameters: Mapping[str, Parameter], field: str) -> None:
    for name in placeholders(text):
        if name not in BUILT_IN and name not in parameters:
            known = ", ".join((*BUILT_IN, *sorted(parameters)))
            raise Malformed(field, text, f"name one of {known}, or declare the parameter {name}")
    if "{{" in _PLACEHOLDER.sub(" ", text):
        raise Malformed(field, text, 'write placeholders as {{.Name}} or {{ Name }}, and {{ itself as {{"{{"}}')
    literals = _PLACEHOLDER.split(text)[:-1:2]  # every other one is a name; the last stands before none
    if is_expanded(path) and any(map(_opens_variable, literals)):
        raise Malformed(field, text, "write the name of the variable out: no placeholder may be within $( )")


def _opens_variable(text: str) -> bool:
    """Whether it ends within $(…), as Kubernetes reads it: $$ is $ itself."""
    place = text.find("$")
    while place >= 0:
        following = text[place + 1 : place + 2]
        end = text.find(")", place) if following == "(" else place + (following == "$")
        if end < 0:
            return True
        place = text.find("$", end + 1)
    return False


def _check_twice(objects: Sequence[Object], where: str) -> None:
    seen = set()
    for obj in objects:
        group = obj["apiVersion"].rpartition("/")[0]
        which = (group, obj["kind"], obj["metadata"]["name"])
        if which in seen:
            raise Malformed(f"{where}: {title(obj)}: metadata.name", which[2], "give each object a name of its own")
        seen.add(which)


# ---------------------------------------------------------------------------------------------------------------------
# What stands where


def spell(path: Path) -> str:
    """A path as people write it: spec.containers[0].image, metadata.annotations["v.io/creator-info"]."""
    parts = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            parts.append(f".{step}" if _PLAIN.fullmatch(step) else f"[{json.dumps(step, ensure_ascii=False)[:100]}]")
    return "".join(parts).removeprefix(".")


def title(obj: Object) -> str:
    """Kind and name of an object."""
    return f"{obj['kind']} {obj['metadata']['name']}"


def look(value: Any, path: Path) -> Any:
    """What stands at a path of keys; None where nothing does, and what is no mapping is its own content."""
    for step in path:
        if not isinstance(value, Mapping):
            return value
        value = value.get(step)
    return value


def walk_text(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Each text value, and where it stands."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, of in value.items():
            yield from walk_text(of, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from walk_text(item, (*path, number))


def begins_with_name(text: str) -> bool:
    """Whether it is {{.Name}}, or begins with {{.Name}}-."""
    begin = _PLACEHOLDER.match(text)
    return begin is not None and begin[1] == "Name" and text[begin.end() : begin.end() + 1] in ("", "-")


def placeholders(text: str) -> list[str]:
    """The names in a text, in order."""
    return [found[1] for found in _PLACEHOLDER.finditer(text) if found[1]] if "{{" in text else []


def is_expanded(path: Path) -> bool:
    """Whether Kubernetes replaces $(NAME) in what stands there."""
    match path[-5:]:
        case (*_other, str(kind), int(), "command" | "args", int()) if kind in _CONTAINERS:
            return True
        case (str(kind), int(), "env", int(), "value") | (str(kind), int(), "volumeMounts", int(), "subPathExpr"):
            return kind in _CONTAINERS
    return False


def is_text(path: Path) -> bool:
    """Whether Kubernetes has only text there."""
    match path:
        case ("data" | "stringData", _other) | ("spec", "selector", _other):
            return True
        case (*_other, str(group), str()) if group in _TEXT_MAPPINGS:
            return True
        case (*_other, "httpHeaders", int(), "value") | (*_other, "exec", "command", int()):
            return True
    return is_expanded(path)


def used(template: Template) -> frozenset[str]:
    """The names that stand in its placeholders."""
    return frozenset(
        name for document in template.documents for _other, text in walk_text(document) for name in placeholders(text)
    )


def needs_owner(template: Template) -> bool:
    """Whether an instance can't be made before it is known for whom, and with which parameters."""
    return bool(template.parameters) or not used(template).isdisjoint(OWNERS)


# ---------------------------------------------------------------------------------------------------------------------
# Rendering


def check_parameters(template: Template, given: Any) -> dict[str, Scalar]:
    """The value of each parameter, defaults filled in. Raises Malformed, which names `parameters.NAME`."""
    return check_values(template.parameters, given)


def render(template: Template, facts: Facts, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects, in the template's order and of its shape. Raises Malformed.

    `parameters` are checked, and defaults filled in; what `check_parameters` gave passes once more.
    """
    values: dict[str, Scalar] = {**_names(template, facts), **check_parameters(template, parameters)}
    writer = _Writer(values)
    return [writer.written(document, ()) for document in template.documents]


def _names(template: Template, facts: Facts) -> dict[str, str]:
    if not _LABEL.fullmatch(facts.name):
        raise Malformed("name", facts.name, "give a DNS label")
    for field, text in (("owner", facts.owner), ("mountName", facts.mount_name), ("ownerHash", facts.owner_hash)):
        check_text(text, field)
    return {
        "Name": facts.name,
        "AccessList": access_list(facts.owner, facts.access),
        "MountName": facts.mount_name,
        "CreatorInfo": creator_info(facts),
        "OwnerHash": facts.owner_hash,
        "Version": template.version,
    }


def access_list(owner: str, access: Access) -> str:
    """{"In": [users, the owner first], "Groups": [...]} as JSON, ASCII only. Raises Malformed if it is too long."""
    for group, names in access._asdict().items():
        for number, name in enumerate(names):
            check_text(name, f"access.{group}[{number}]")
    users = [owner, *sorted(set(access.users) - {owner})]
    text = json.dumps({"In": users, "Groups": sorted(set(access.groups))}, separators=(",", ":"))
    if len(text) > MAX_VALUE:
        remedy = f"name fewer: the list has at most {MAX_VALUE} bytes; a group is one name for many users"
        raise Malformed("access", f"a list of {len(text)} bytes", remedy)
    return text


def creator_info(facts: Facts) -> str:
    """Who made it, for whom and when, as JSON, ASCII only."""
    said = {"owner": facts.owner, "createdBy": facts.created_by or facts.owner, "created": facts.created}
    for field, text in said.items():
        check_text(text, field)
    return json.dumps({key: text for key, text in said.items() if text}, separators=(",", ":"))


class _Writer:
    """Puts values into a tree, which keeps its shape."""

    def __init__(self, values: Mapping[str, Scalar]) -> None:
        self._values = values
        self._sizes = {name: len(json.dumps(value)) + str(value).count("$") for name, value in values.items()}
        self._left = MAX_INSERTED

    def written(self, value: Any, path: Path) -> Any:
        if isinstance(value, Mapping):
            return {key: self.written(of, (*path, key)) for key, of in value.items()}
        if isinstance(value, list):
            return [self.written(item, (*path, number)) for number, item in enumerate(value)]
        return self._filled(value, path) if isinstance(value, str) and "{{" in value else value

    def _filled(self, text: str, path: Path) -> Scalar:
        alone = _PLACEHOLDER.fullmatch(text)
        if alone and alone[1] and not isinstance(self._values[alone[1]], str) and not is_text(path):
            return self._value(alone[1])
        parts = _PLACEHOLDER.split(text)
        for number in range(1, len(parts), 2):
            parts[number] = spell_value(self._value(parts[number])) if parts[number] else "{{"
        return "".join(_escaped(parts) if is_expanded(path) else parts)

    def _value(self, name: str) -> Scalar:
        self._left -= self._sizes[name]
        if self._left < 0:
            raise Malformed("the rendered template", "too long", f"its values may have {MAX_INSERTED} bytes together")
        return self._values[name]


def _escaped(parts: Sequence[str]) -> Iterator[str]:
    """Text and values by turns, so that Kubernetes makes no $(NAME) of what is in a value, or begins before it."""
    for number, part in enumerate(parts):
        if number % 2:
            yield part.replace("$", "$$")
            continue
        dollars = len(part) - len(part.rstrip("$"))
        yield part + "$" if dollars % 2 and number < len(parts) - 1 else part


# ---------------------------------------------------------------------------------------------------------------------
# Whose they are


def own(
    objects: Sequence[Object],
    *,
    handle: str,
    namespace: str,
    allocator: str,
    owner: str = "",
    instance_uid: str | None = None,
    disk_size: str = "50G",
    storage_class: str = "",
    attach: str = "",
) -> list[dict[str, Any]]:
    """The objects with the server's own marks, whatever they said before. Raises Malformed where a name is not theirs.

    `owner` empty: nobody's yet; `instance_uid` None: the Instance is not there yet, and they have no owner reference.
    `disk_size` and `storage_class` are for disks that name none; `attach` is the name of a disk that is there already,
    and takes the place of the only one. Done twice, it comes to the same.
    """
    owned: list[dict[str, Any]] = [_copied(obj) for obj in objects]
    if attach:
        _attach(owned, attach)
    for obj in owned:
        _check_name(obj, handle, attach)
        metadata = {key: of for key, of in obj["metadata"].items() if key not in RESERVED}
        obj["metadata"] = {**metadata, "namespace": namespace}
        marks = {MEMBER: allocator, INSTANCE: handle}
        _mark(obj, ("metadata", "labels"), marks)
        if owner:
            _mark(obj, ("metadata", "annotations"), {OWNER: owner})
        if instance_uid:
            reference = {"apiVersion": API_VERSION, "kind": KIND, "name": handle, "uid": instance_uid}
            obj["metadata"]["ownerReferences"] = [{**reference, "controller": True, "blockOwnerDeletion": True}]
        if obj["kind"] in POD_TEMPLATES:
            _mark(obj, (*POD_TEMPLATES[obj["kind"]], "metadata", "labels"), marks)
        _narrow(obj, handle)
        if obj["kind"] == DISK:
            _size(obj, disk_size, storage_class)
    _check_twice(owned, handle)
    return owned


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(of) for key, of in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _attach(objects: list[dict[str, Any]], disk: str) -> None:
    """Give the only disk, and all that mounts it, the name of one that is there."""
    disks = [obj for obj in objects if obj["kind"] == DISK]
    if len(disks) != 1:
        raise Malformed("attach", disk, f"leave it out: the template has {len(disks)} disks, and it is for one")
    before = disks[0]["metadata"]["name"]
    disks[0]["metadata"]["name"] = disk
    for obj in objects:
        volumes = look(obj, (*POD_TEMPLATES[obj["kind"]], "spec", "volumes")) if obj["kind"] in POD_TEMPLATES else None
        for volume in volumes if isinstance(volumes, list) else []:
            claim = look(volume, ("persistentVolumeClaim",))
            if isinstance(claim, dict) and claim.get("claimName") == before:
                claim["claimName"] = disk


def _check_name(obj: Object, handle: str, attach: str) -> None:
    name, field = obj["metadata"]["name"], f"{obj['kind']}: metadata.name"
    if attach and obj["kind"] == DISK and name == attach:
        return
    if name != handle and not name.startswith(f"{handle}-"):
        raise Malformed(field, name, f"let it be {handle}, or begin with {handle}-")
    most = _STATEFUL_NAME if obj["kind"] == "StatefulSet" else 63
    if not _LABEL.fullmatch(name) or len(name) > most:
        raise Malformed(field, name, f"let it be a DNS label of at most {most} characters: a-z, 0-9 and -")


def _mark(obj: dict[str, Any], path: tuple[str, ...], marks: Mapping[str, str]) -> None:
    """Have these in the mapping at a path, which is made where there is none."""
    there = obj
    for number, step in enumerate(path):
        below = there.get(step)
        if below is None:
            below = there[step] = {}
        if not isinstance(below, dict):
            raise Malformed(f"{title(obj)}: {spell(path[: number + 1])}", below, "give a mapping")
        there = below
    there |= marks


def _narrow(obj: dict[str, Any], handle: str) -> None:
    """What selects Pods selects this instance's only. A Service without a selector has none."""
    path = SELECTORS.get(obj["kind"])
    if path and (obj["kind"] != "Service" or look(obj, path)):
        _mark(obj, path, {INSTANCE: handle})


def _size(disk: dict[str, Any], size: str, storage_class: str) -> None:
    requests = ("spec", "resources", "requests")
    _mark(disk, requests, {})
    if look(disk, (*requests, "storage")) is None:
        _mark(disk, requests, {"storage": size})
    if disk["spec"].get("accessModes") is None:
        disk["spec"]["accessModes"] = ["ReadWriteOnce"]
    if storage_class and disk["spec"].get("storageClassName") is None:
        disk["spec"]["storageClassName"] = storage_class


def parse_size(text: str, where: str) -> str:
    """A Kubernetes quantity of a size such as 50GB, 50G or 8Gi. Raises Malformed."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise Malformed(where, text, "give a size such as 50GB, 50G or 8Gi")
    number, prefix, binary = found.groups(default="")
    return f"{number}{prefix.upper() if binary else prefix.replace('K', 'k')}{binary}"

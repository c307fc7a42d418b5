# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old JSON templates as today's: text in, documents for `template.parse` out, and a note on all that was changed.

Rules
1. Nothing is guessed. A comma that is missing or too many is named by line and column; it is put right only if that is
   asked for (`repair`), and then each one is in the notes. All else that is no JSON is refused.
2. A placeholder outside quotes, which made JSON of a value, becomes text: {{.CreatorInfo}} is "{{.CreatorInfo}}".
3. What Kubernetes has no more is replaced: extensions/v1beta1 by apps/v1, whose selector is the Pod template's labels;
   the disk of a cloud, which somebody had to make, by a claim, which makes one.
4. What `restricted` Pod Security asks for is filled in where nothing is said (`harden`). What is said stays.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.instance import DISK
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    POD_TEMPLATES,
    SELECTORS,
    begins_with_name,
    look,
    spell,
    title,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

SUCCESSORS: Final[Mapping[tuple[str, str], str]] = {  # (apiVersion, kind) -> the apiVersion of today
    **{
        (version, kind): "apps/v1"
        for version in ("extensions/v1beta1", "apps/v1beta1", "apps/v1beta2")
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
    },
    ("extensions/v1beta1", "NetworkPolicy"): "networking.k8s.io/v1",
    ("policy/v1beta1", "PodDisruptionBudget"): "policy/v1",
}
CLOUD_DISKS: Final[Mapping[str, str]] = {"gcePersistentDisk": "pdName", "awsElasticBlockStore": "volumeID"}
HARDENED: Final = "filled in: nothing was said, and restricted Pod Security asks for it"

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_STRING: Final = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"')
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z.])")
_BARE: Final = re.compile(r"\{\{ *\.?[A-Za-z_][A-Za-z0-9_]* *\}\}")
_WORDS: Final = {"true": True, "false": False, "null": None}

Document = dict[str, Any]


class Note(NamedTuple):
    """Something that was changed, or is to be looked at."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def import_template(
    text: str, where: str, *, repair: bool = False, harden: bool = True
) -> tuple[list[Document], list[Note]]:
    """The documents of an old JSON template, and what was changed. Several may follow one another, or a line ---.

    `repair` puts commas right that are missing, or stand before a closing bracket. Raises Malformed, whose field is
    `where`, line and column.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise Malformed(where, f"{len(text)} characters", f"give at most {MAX_BYTES} bytes")
    reader = _Reader(text, where, repair=repair)
    documents = reader.documents()
    notes = reader.notes
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict) or not isinstance(look(document, ("metadata", "name")), str):
            raise Malformed(f"{where}: document {number}", document, "give an object with metadata.name")
        if not isinstance(document.get("kind"), str):
            raise Malformed(f"{where}: document {number}: kind", document.get("kind"), "give a kind")
        notes += _renew(document)
        if document["kind"] in POD_TEMPLATES:
            notes += _harden(document) if harden else ()
    claims, more = _claims(documents, where)
    return [*claims, *documents], [*notes, *more]


# ---------------------------------------------------------------------------------------------------------------------
# JSON, nearly


class _Comma(NamedTuple):
    """One that is missing at this place of the text, or too many there."""

    place: int
    remedy: str
    done: str


class _Reader:
    """Reads JSON from left to right, with placeholders, and past commas that are missing or too many."""

    def __init__(self, text: str, where: str, *, repair: bool) -> None:
        self._text, self._where, self._repair = text, where, repair
        self._place = self._nodes = 0
        self._commas: list[_Comma] = []
        self.notes: list[Note] = []

    def documents(self) -> list[Any]:
        found = []
        while self._next():
            found.append(self._value(1))
            if self._next().startswith("---"):
                self._place += 3
        if self._commas and not self._repair:
            first, *others = self._commas
            also = f" The same at {', '.join(self._spot(comma.place) for comma in others)}." if others else ""
            raise self._wrong(f"{first.remedy}, or have it repaired.{also}", first.place)
        self.notes[:0] = [Note(self._spot(comma.place), comma.done) for comma in self._commas]
        if not found:
            raise Malformed(self._where, self._text, "give a template: JSON objects, with placeholders")
        return found

    def _next(self) -> str:
        """Go past spaces; the three characters that follow."""
        found = _SPACE.match(self._text, self._place)
        self._place = found.end() if found else self._place
        return self._text[self._place : self._place + 3]

    def _spot(self, place: int) -> str:
        line = self._text.count("\n", 0, place) + 1
        return f"line {line}, column {place - self._text.rfind(chr(10), 0, place)}"

    def _wrong(self, remedy: str, place: int | None = None) -> Malformed:
        place = self._place if place is None else place
        begin, end = self._text.rfind("\n", 0, place) + 1, self._text.find("\n", place)
        line = self._text[begin : len(self._text) if end < 0 else end]
        return Malformed(f"{self._where}: {self._spot(place)}", line.strip(), remedy)

    def _value(self, depth: int) -> Any:
        ahead = self._next()
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise self._wrong(f"give at most {MAX_NODES:,} values, at most {MAX_DEPTH} deep")
        if ahead.startswith("{{"):
            return self._placeholder()
        match ahead[:1]:
            case "{":
                return self._object(depth)
            case "[":
                return self._list(depth)
            case '"':
                return self._string()
        for word, value in _WORDS.items():
            if self._text.startswith(word, self._place):
                self._place += len(word)
                return value
        number = _NUMBER.match(self._text, self._place)
        if not number or len(number[0]) > 400:
            raise self._wrong(_no_value(ahead))
        self._place = number.end()
        return json.loads(number[0])

    def _placeholder(self) -> str:
        found = _BARE.match(self._text, self._place)
        if not found:
            raise self._wrong("leave it out: of the template language there are only placeholders, such as {{.Name}}")
        self.notes.append(Note(self._spot(self._place), f"{found[0]} was outside quotes: it is text now"))
        self._place = found.end()
        return found[0]

    def _string(self) -> str:
        found = _STRING.match(self._text, self._place)
        if not found:
            raise self._wrong('close the text by ", and write a new line in it as \\n')
        try:
            text: str = json.loads(found[0])
        except ValueError as error:
            raise self._wrong(f"write the text as JSON has it ({error})") from None
        self._place = found.end()
        return text

    def _object(self, depth: int) -> Document:
        found: Document = {}
        begin, self._place = self._place, self._place + 1
        while not self._closes("}", begin):
            if not self._next().startswith('"'):
                is_placeholder = self._next().startswith("{{")
                raise self._wrong(
                    "write the key out: placeholders are for values only" if is_placeholder else 'give a key in "'
                )
            at = self._place
            key = self._string()
            if key in found:
                raise self._wrong("write each key once", at)
            if not self._next().startswith(":"):
                raise self._wrong(f"put a colon after {json.dumps(key)}")
            self._place += 1
            found[key] = self._value(depth + 1)
            self._separate("}", f"the value of {json.dumps(key)}", '"')
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        begin, self._place = self._place, self._place + 1
        while not self._closes("]", begin):
            found.append(self._value(depth + 1))
            self._separate("]", f"item {len(found)} of the list", '"{[-0123456789tfn')
        return found

    def _closes(self, bracket: str, begin: int) -> bool:
        """Whether the bracket that was opened at `begin` is closed here."""
        ahead = self._next()
        if not ahead:
            raise self._wrong(f"close it by {bracket}", begin)
        self._place += ahead.startswith(bracket)
        return ahead.startswith(bracket)

    def _separate(self, bracket: str, what: str, begins: str) -> None:
        """Go past the comma after a value, if more follows. `begins`: the characters by which something can begin."""
        end = self._place
        ahead = self._next()[:1]
        if ahead == ",":
            comma, self._place = self._place, self._place + 1
            if self._next().startswith(bracket):
                self._commas.append(_Comma(comma, f"leave out the comma after {what}", f"comma after {what} left out"))
        elif ahead and ahead in begins:
            self._commas.append(_Comma(end, f"put a comma after {what}", f"comma put after {what}"))
        elif ahead and ahead != bracket:
            raise self._wrong(f"put a comma or {bracket} after {what}")


def _no_value(ahead: str) -> str:
    match ahead[:1]:
        case "/" | "#":
            return "leave comments out: JSON has none"
        case ",":
            return "give a value before the comma, or leave the comma out"
        case "":
            return "give a value: the text ends here"
    return 'give a value; text stands in "'


# ---------------------------------------------------------------------------------------------------------------------
# Kubernetes, as it is today


def _renew(document: Document) -> Iterator[Note]:
    """Today's apiVersion, and what that one asks for."""
    at, version = title(document), document.get("apiVersion")
    successor = SUCCESSORS.get((str(version), document["kind"]))
    if successor:
        document["apiVersion"] = successor
        yield Note(f"{at}: apiVersion", f"{version} is no more: it is {successor}")
    spec = document.get("spec")
    if not successor or not isinstance(spec, dict):
        return
    if spec.pop("rollbackTo", None) is not None:
        yield Note(f"{at}: spec.rollbackTo", "left out: it is no more")
    template = spec.get("template")
    if document["kind"] in SELECTORS and spec.get("selector") is None and isinstance(template, dict):
        yield from _selected(spec, template, at)


def _selected(spec: Document, template: Document, at: str) -> Iterator[Note]:
    """Say which Pods a workload has: those with the labels of its own template."""
    if template.get("metadata") is None:
        template["metadata"] = {}
    if not isinstance(template["metadata"], dict):
        return
    if not template["metadata"].get("labels"):
        template["metadata"]["labels"] = {"app": "{{.Name}}"}
        yield Note(f"{at}: spec.template.metadata.labels", "app: {{.Name}}, for there were none to select by")
    spec["selector"] = {"matchLabels": copy.deepcopy(template["metadata"]["labels"])}
    yield Note(f"{at}: spec.selector", "the labels of the Pod template: it was the default, and has to be said now")


def _claims(documents: Sequence[Document], where: str) -> tuple[list[Document], list[Note]]:
    """A claim for each disk of a cloud, and the volumes changed so that they mount it."""
    notes = []
    there = {document["metadata"]["name"] for document in documents if document["kind"] == DISK}
    made: dict[str, Document] = {}
    for document, path, volume in _volumes(documents):
        for source in [each for each in CLOUD_DISKS if each in volume]:
            at = f"{title(document)}: {path}.{source}"
            disk = volume[source] if isinstance(volume[source], dict) else {}
            name = disk.get(CLOUD_DISKS[source])
            if not isinstance(name, str) or not begins_with_name(name):
                remedy = "let it begin with {{.Name}}: an instance has a disk of its own, not one that is there already"
                raise Malformed(f"{where}: {at}.{CLOUD_DISKS[source]}", name, remedy)
            del volume[source]
            read_only = {"readOnly": True} if disk.get("readOnly") is True else {}
            volume["persistentVolumeClaim"] = {"claimName": name, **read_only}
            if name not in there:
                made[name] = _claim(name)
            lost = sorted(disk.keys() - {CLOUD_DISKS[source], "readOnly"})
            said = f"; {' and '.join(lost)} left out: its StorageClass decides" if lost else ""
            notes.append(Note(at, f"mounts the {DISK} {name}, whose size is the server's default{said}"))
    return list(made.values()), notes


def _claim(name: str) -> Document:
    spec = {"accessModes": ["ReadWriteOnce"]}
    return {"apiVersion": "v1", "kind": DISK, "metadata": {"name": name}, "spec": spec}


def _volumes(documents: Sequence[Document]) -> Iterator[tuple[Document, str, Document]]:
    """Each volume of each Pod template, and where it stands."""
    for document in documents:
        if document["kind"] in POD_TEMPLATES:
            path = (*POD_TEMPLATES[document["kind"]], "spec", "volumes")
            volumes = look(document, path)
            for number, volume in enumerate(volumes if isinstance(volumes, list) else []):
                if isinstance(volume, dict):
                    yield document, spell((*path, number)), volume


def _harden(document: Document) -> Iterator[Note]:
    """Fill in what `restricted` asks for, where nothing is said."""
    path = (*POD_TEMPLATES[document["kind"]], "spec")
    pod = look(document, path)
    if not isinstance(pod, dict):
        return
    at = f"{title(document)}: {spell(path)}"
    if not (pod.get("serviceAccountName") or pod.get("serviceAccount")):
        yield from _default(pod, ("automountServiceAccountToken",), False, at)
    yield from _default(pod, ("securityContext", "seccompProfile"), {"type": "RuntimeDefault"}, at)
    root = list(_default(pod, ("securityContext", "runAsNonRoot"), True, at))
    yield from (
        note._replace(text=f"{note.text}. If its image runs as root, add runAsUser, and fsGroup for its disk")
        for note in root
    )
    for kind in ("initContainers", "containers"):
        listed = pod.get(kind)
        for number, container in enumerate(listed if isinstance(listed, list) else []):
            if isinstance(container, dict):
                spot = f"{at}.{kind}[{number}]"
                yield from _default(container, ("securityContext", "allowPrivilegeEscalation"), False, spot)
                yield from _default(container, ("securityContext", "capabilities", "drop"), ["ALL"], spot)


def _default(value: Document, path: tuple[str, ...], wanted: Any, at: str) -> Iterator[Note]:
    if look(value, path) is None:
        _deep(value, path[:-1])[path[-1]] = wanted
        yield Note(f"{at}.{spell(path)}", f"{json.dumps(wanted)} {HARDENED}")


def _deep(value: Document, path: tuple[str, ...]) -> Document:
    """The mapping at a path, made where there is none."""
    for step in path:
        below = value.get(step)
        if not isinstance(below, dict):
            below = value[step] = {}
        value = below
    return value

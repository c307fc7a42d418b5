# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a worker reads its list of jobs: mounted files, or the ConfigMaps themselves.

A mounted ConfigMap is as old as the kubelet's sight of it; at a Pod's begin, too. What is read of the API is a list
that a quorum answers, and then each change in order: it is never older than what was read before.
"""

from __future__ import annotations

import enum
import logging
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    Api,
    ApiError,
    Change,
    Object,
    Put,
    Recovered,
    Removed,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    CONFIG_KEY,
    PART_OF,
    Entry,
    entry_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.frame.following import follow
from muster.process import say

LOOK_SECONDS: Final = 1.0  # between two looks at mounted files
AGAIN_SECONDS: Final = 0.05  # until the next look, when they changed while they were read
REFUSED_SECONDS: Final = 60.0  # until it is tried again to list what we had no right to
LABEL_LENGTH: Final = 63  # of a label's value; no ConfigMap with a longer name has further ones


class Outcome(enum.Enum):
    """What a look at the documents was good for."""

    KNOWN = "known"  # the entry, or that there is none
    MISSING = "missing"  # there is no document
    MALFORMED = "malformed"
    AWAY = "away"  # nothing new can be read for now


class Reading(NamedTuple):
    """`entry` counts where the outcome is KNOWN. `why`: what is wrong, for a person; also where the entry is known."""

    outcome: Outcome
    entry: Entry | None = None
    why: str = ""


class Document(NamedTuple):
    """What one document says of the worker, or what is wrong with it."""

    entry: Entry | None = None
    fault: str = ""


Tell = Callable[[Reading], object]


class Source(Protocol):
    """Tells a Reading at first, and whenever there is another one, from threads of its own."""

    def start(self, tell: Tell) -> None: ...

    def stop(self) -> None: ...


def parse(text: str | None, worker: str, where: str) -> Document:
    """One document; None and an empty one name no worker."""
    try:
        return Document(entry_of(parse_yaml(text or "", where), worker, where))
    except Malformed as error:
        return Document(fault=str(error))


def combine(documents: Mapping[str, Document], head: str = "", missing: str = "", unseen: str = "") -> Reading:
    """What they say together: of several entries the one with the greatest version counts.

    That there is no entry is known only when all is there and can be read. `head` is the document that is always there,
    where that is known; `missing` says what to do when it is not; `unseen` says why others may be there, unseen.
    """
    faults = "; ".join(document.fault for document in documents.values() if document.fault)
    entries = [document.entry for _name, document in sorted(documents.items()) if document.entry is not None]
    if entries:
        return Reading(Outcome.KNOWN, max(entries, key=lambda entry: entry.version), faults)
    if faults:
        return Reading(Outcome.MALFORMED, None, faults)
    if not documents or (head and head not in documents):
        return Reading(Outcome.MISSING, None, missing)
    return Reading(Outcome.KNOWN, None, unseen)


# ---------------------------------------------------------------------------------------------- mounted files

Look = tuple[tuple[str, int, int, int, int], ...]  # path, device, inode, time of change in ns, length


class Files:
    """A file, or all YAML files of a directory and of the directories in it (several ConfigMaps, mounted side by side).

    A volume's files are links into a directory that is replaced as a whole: so what the links lead to is looked at.
    """

    def __init__(self, path: Path, worker: str) -> None:
        self._path, self._worker = path, worker
        self._stopped = threading.Event()

    def start(self, tell: Tell) -> None:
        threading.Thread(target=self._run, args=(tell,), name="files", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def read(self) -> Reading | None:
        """All that is there now; None where it changed in between: an entry that moves could be missed."""
        before = self._look()
        documents = {path: self._parse(path) for path, *_stat in before}
        missing = f"there is no file {self._path}"
        if self._path.is_dir():
            missing = f"there is no file *.yml or *.yaml in {self._path}"
        return combine(documents, missing=missing) if self._look() == before else None

    # ------------------------------------------------------------------------------------------ private

    def _run(self, tell: Tell) -> None:
        before: Look | None = None
        while not self._stopped.is_set():
            look, reading = self._look(), None
            if look != before:
                reading = self.read()
                if reading is not None:
                    before = look
                    tell(reading)
            self._stopped.wait(AGAIN_SECONDS if look != before else LOOK_SECONDS)

    def _look(self) -> Look:
        found = []
        for path in self._paths():
            try:
                stat = os.stat(path)
            except OSError:  # it is not there, or any more
                continue
            found.append((str(path), stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _paths(self) -> list[Path]:
        if not self._path.is_dir():
            return [self._path]
        inside = _inside(self._path)
        inside += [path for directory in inside if directory.is_dir() for path in _inside(directory)]
        return sorted(path for path in inside if path.suffix in (".yml", ".yaml") and not path.is_dir())

    def _parse(self, path: str) -> Document:
        try:
            return parse(Path(path).read_text("utf-8"), self._worker, path)
        except OSError as error:
            return Document(fault=f"{path} can't be read: {error.strerror}")
        except UnicodeDecodeError as error:
            return Document(fault=f"{path} is not UTF-8: {error.reason} at byte {error.start}")


def _inside(directory: Path) -> list[Path]:
    """What is in it, but for what is hidden, as a volume's own links are."""
    try:
        return [path for path in directory.iterdir() if not path.name.startswith(".")]
    except OSError:  # it was replaced, or is not for us
        return []


# ---------------------------------------------------------------------------------------------- the API


class ConfigMaps:
    """A ConfigMap by its name, and further ones that are labelled as parts of the same document."""

    def __init__(self, api: Api, namespace: str, name: str, worker: str) -> None:
        self._api, self._namespace, self._name, self._worker = api, namespace, name, worker
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._tell: Tell = print
        self._seen: dict[str, dict[str, Object] | None] = {"head": None, "parts": None}  # by where, then by name
        self._parsed: dict[str, Object] = {}  # by name, as it came last
        self._away: dict[str, str] = {}  # by where
        self._unseen = ""  # why further ones can't be seen

    def start(self, tell: Tell) -> None:
        self._tell = tell
        follow_by: dict[str, dict[str, Any]] = {"head": {"name": self._name}}
        if len(self._name) <= LABEL_LENGTH:
            follow_by["parts"] = {"label_selector": f"{PART_OF}={self._name}"}
        else:
            self._seen["parts"] = {}
        for where, what in follow_by.items():
            threading.Thread(target=self._follow, args=(where, what), name=f"follow-{where}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    # ------------------------------------------------------------------------------------------ private

    def _follow(self, where: str, what: dict[str, Any]) -> None:
        options = {"shrink": self._shrink, **what}
        while not self._stopped.is_set():
            for change in follow(self._api, CONFIGMAPS, self._namespace, self._stopped, **options):
                with self._lock:
                    self._take(where, change)
                    reading = self._reading()
                    if reading is not None:
                        self._tell(reading)
                if _is_refused(change) and where == "parts":
                    break
            self._stopped.wait(REFUSED_SECONDS)

    def _shrink(self, obj: Object) -> Object:
        """Only what it says of this worker is kept: it may have a megabyte. Both streams may bring the same one."""
        name, version = obj["metadata"]["name"], obj["metadata"]["resourceVersion"]
        before = self._parsed.get(name)
        if before and before["metadata"]["resourceVersion"] == version:
            return before
        where = f"ConfigMap {self._namespace}/{name}: {CONFIG_KEY}"
        document = parse((obj.get("data") or {}).get(CONFIG_KEY), self._worker, where)
        self._parsed[name] = {"metadata": {"name": name, "resourceVersion": version}, "document": document}
        return self._parsed[name]

    def _take(self, where: str, change: Change) -> None:
        seen = self._seen[where]
        if isinstance(change, Trouble):
            if _is_refused(change) and where == "parts":
                self._go_without_parts(str(change.error))
            else:
                self._away[where] = str(change.error)
            return
        self._away.pop(where, None)
        if isinstance(change, Snapshot):
            self._seen[where] = {obj["metadata"]["name"]: obj for obj in change.items}
            if where == "parts":
                self._unseen = ""
        elif isinstance(change, Put) and seen is not None:
            seen[change.obj["metadata"]["name"]] = change.obj
        elif isinstance(change, Removed) and seen is not None:
            seen.pop(change.obj["metadata"]["name"], None)
        else:
            assert isinstance(change, Recovered)

    def _go_without_parts(self, why: str) -> None:
        """Rights by name are enough for a pool whose jobs fit into one ConfigMap."""
        self._away.pop("parts", None)
        if not self._unseen:
            say(logging.WARNING, "only the ConfigMap itself is followed: others can't be listed", why=why)
        self._unseen = f"its list may be in a further ConfigMap, and those can't be listed: {why}"
        self._seen["parts"] = self._seen["parts"] or {}

    def _reading(self) -> Reading | None:
        """None until each has been read: an entry may be in either."""
        away = "; ".join(dict.fromkeys(self._away.values()))
        head, parts = self._seen["head"], self._seen["parts"]
        if head is None or parts is None:
            return Reading(Outcome.AWAY, None, away) if away else None
        newest = {**head, **parts}
        for name in head.keys() & parts.keys():
            newest[name] = max(parts[name], head[name], key=_version)
        documents = {name: obj["document"] for name, obj in newest.items()}
        missing = f"there is no ConfigMap {self._namespace}/{self._name}"
        reading = combine(documents, self._name, missing, self._unseen)
        if reading.entry is not None:  # the greatest version counts, whatever else there may be
            return reading._replace(why=reading.why or away)
        if away:
            return Reading(Outcome.AWAY, None, away)
        if self._name in parts and _version(parts[self._name]) < _version(newest[self._name]):
            return None  # the entry may have moved into a part of which we are still to hear
        return reading


def _is_refused(change: Change) -> bool:
    return isinstance(change, Trouble) and isinstance(change.error, ApiError) and change.error.status == 403


def _version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workers' configuration: who runs which jobs, as it stands in a ConfigMap, and beyond 1 MiB in several.

Rules
1. Key `config.yml` is the wire format: `workloads: {<worker>: {jobs: [...], version: <int>}}`. A worker's version grows
   when, and only when, its own list of jobs changes. Of two entries of one worker, the one with the greater version
   counts. Keys that we don't know are kept.
2. Key `handover.json` is ours: for each worker the jobs that it was told to let go and may still run (`leaving`), and
   what is known of the version that its Pod runs. It changes in the same write as the entries that it is about.
3. A version is never given twice to one name, also when its entry was removed meanwhile: `floor` is the greatest of
   those that were removed.
4. Several ConfigMaps are parts of one document. The first is the head. Each write of the whole is a turn: the head goes
   first and gets the next number, the other parts follow with the same. Whoever finds a part behind the head closes it
   (a write that changes only its number) before deciding on anything: then what its writer had still to write is
   refused. A part is made empty, before the turn that fills it: nothing but its being there refuses whoever would make
   it later. So one compare-and-swap, that of the head, decides who may decide.
5. An entry stays in its part while there is room. When it moves, what it was stays in the old part for one more turn,
   and is not removed altogether in that turn: else what it was could be found alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

CONFIG_KEY: Final = "config.yml"
RECORD_KEY: Final = "handover.json"
PART_OF: Final = "muster.dev/worker-config"  # label of each part: the name of the head
RECORD_VERSION: Final = 1
ANYTHING: Final = "*"  # in `leaving`: nobody knows what this worker runs
PART_BYTES: Final = 900_000  # of a part's two keys; an object may have 1,048,576, and its metadata and envelope count
HOLD_BYTES: Final = 300  # for two uids, two versions, a zone and a word
MAX_JOB_NAME: Final = 253  # characters

_PLAIN = re.compile(r"[A-Za-z](?:[A-Za-z0-9_./-]|:(?=[A-Za-z0-9_./-]))*")  # YAML takes it for a string as it stands
_NOT_PLAIN = frozenset({"y", "n", "yes", "no", "true", "false", "on", "off", "null"})
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


class Entry(NamedTuple):
    """What one worker is to run."""

    jobs: tuple[str, ...] = ()
    version: int = 0
    extra: Mapping[str, Any] = {}


class Known(NamedTuple):
    """A Pod, by its uid, and a version."""

    uid: str
    version: int


class Hold(NamedTuple):
    """What has to be remembered of one worker.

    `leaving`: a job that it may still run, and the version in which it is not to any more.
    `applied`: this Pod has read at least this version. `barrier`: any other Pod of this name has, for it was made later
    than that version was written. `zone`: where its Pod was seen last. `awaits`: more jobs are on their way to it.
    """

    leaving: Mapping[str, int] = {}
    applied: Known | None = None
    barrier: Known | None = None
    zone: str = ""
    extra: Mapping[str, Any] = {}
    awaits: bool = False

    @property
    def is_empty(self) -> bool:
        return self == Hold()


@dataclass(frozen=True, slots=True)
class Part:
    """What stands in one ConfigMap."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    turn: int = 0
    floor: int = -1
    rebalance: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)  # of config.yml
    record_extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole: all parts taken together. `rebalance`: what the last one was made for, and came to; in the head."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    floor: int = -1
    rebalance: Mapping[str, Any] = field(default_factory=dict)


def jobs_of(config: Config, worker: str) -> tuple[str, ...]:
    return config.entries.get(worker, Entry()).jobs


def part_name(head: str, number: int) -> str:
    """Of the ConfigMap of a part; 0 is the head."""
    return f"{head}-{number}" if number else head


def join(parts: Iterable[Part]) -> Config:
    """The parts as one. What was written twice, since a writer died while an entry moved, counts once."""
    entries: dict[str, Entry] = {}
    holds: dict[str, Hold] = {}
    floor = -1
    rebalance: Mapping[str, Any] = {}
    for part in parts:
        floor = max(floor, part.floor)
        rebalance = rebalance or part.rebalance
        for name, entry in part.entries.items():
            if name not in entries or entries[name].version < entry.version:
                entries[name] = entry
        for name, hold in part.holds.items():
            holds[name] = _both(holds[name], hold) if name in holds else hold
    return Config(entries, holds, floor, rebalance)


def _both(one: Hold, other: Hold) -> Hold:
    leaving = {**one.leaving, **other.leaving}
    leaving = {job: max(one.leaving.get(job, -1), other.leaving.get(job, -1)) for job in leaving}
    newer = other if (other.barrier or Known("", -1)).version >= (one.barrier or Known("", -1)).version else one
    return newer._replace(leaving=leaving)


def behind(parts: Iterable[Part]) -> list[int]:
    """Numbers of the parts whose writer has not finished its turn: close them (see `closed`) before deciding."""
    listed = list(parts)
    return [number for number, part in enumerate(listed) if part.turn != listed[0].turn]


def closed(part: Part, turn: int) -> Part:
    return replace(part, turn=turn)


def writes(wanted: Sequence[Part], before: Sequence[Part], made: int) -> tuple[list[tuple[int, Part]], str]:
    """What may be written now, by number of the part and in this order; and why that is not all of it ("": it is).

    `wanted` is `split` of `before`, of which the first `made` are there as ConfigMaps.
    """
    late = behind(before)
    if late:
        return [(number, closed(before[number], before[0].turn)) for number in late], "a turn had to be closed"
    missing = range(made, len(wanted))
    if made and missing:
        return [(number, Part(turn=before[0].turn)) for number in missing], "another part had to be made"
    if missing:
        return [(0, wanted[0])], "" if len(missing) == 1 else "the head has to be there first"
    return [(number, part) for number, part in enumerate(wanted) if part != before[number]], ""


def split(wanted: Config, before: Iterable[Part]) -> tuple[Part, ...]:
    """The whole divided into parts, each of which keeps what it has while there is room.

    The same parts where nothing changes. An entry moves only when it changes, and what it was stays in its old part for
    one more turn: the parts are not written at one moment, and a worker must never be without its entry.
    Raises Malformed where one worker's list alone is too long.
    """
    old = list(before) or [Part()]
    homes = _homes(old)
    wanted = _with_moved(wanted, old, homes)
    names = sorted(wanted.entries.keys() | wanted.holds.keys())
    sizes = {name: _size(name, wanted.entries.get(name), wanted.holds.get(name)) for name in names}
    room = [PART_BYTES - _size_of_extra(part) for part in old]
    inside: list[list[str]] = [[] for _part in old]
    stays = [name for name in names if _is_unchanged(name, wanted, old, homes)]
    for name in stays:
        inside[homes[name]].append(name)
        room[homes[name]] -= sizes[name]
    made = [_with(part, wanted, there) for part, there in zip(old, inside, strict=True)]
    for name in sorted(set(names).difference(stays), key=lambda name: (homes.get(name, len(old)), natural(name))):
        _check_size(name, sizes[name], wanted)
        home = homes.get(name)
        fitting = (number for number in range(len(room)) if room[number] >= sizes[name])
        number = home if home is not None and room[home] >= sizes[name] else next(fitting, len(room))
        if number == len(room):
            made.append(Part())
            room.append(PART_BYTES)
        made[number] = _with(made[number], wanted, [name], made[number])
        room[number] -= sizes[name]
        if home is not None and number != home:
            made[home] = _with(made[home], join([old[home]]), [name], made[home])
    made[0] = replace(made[0], floor=wanted.floor, rebalance=wanted.rebalance)
    if made == old:
        return tuple(old)
    return tuple(replace(part, turn=old[0].turn + 1) for part in made)


def _homes(parts: list[Part]) -> dict[str, int]:
    """In which part each worker is; of two, in that with the newer entry."""
    homes: dict[str, int] = {}
    for number, part in enumerate(parts):
        for name in part.entries.keys() | part.holds.keys():
            version = part.entries[name].version if name in part.entries else -1
            there = parts[homes[name]].entries.get(name) if name in homes else None
            if name not in homes or version > (there.version if there else -1):
                homes[name] = number
    return homes


def _with_moved(wanted: Config, parts: list[Part], homes: Mapping[str, int]) -> Config:
    """What is wanted, and of workers that are to be removed those whose old entry is still in another part."""
    twice = {name for number, part in enumerate(parts) for name in part.entries if homes[name] != number}
    twice -= wanted.entries.keys()
    if not twice:
        return wanted
    entries = {name: parts[homes[name]].entries[name] for name in twice if name in parts[homes[name]].entries}
    holds = {name: parts[homes[name]].holds[name] for name in twice if name in parts[homes[name]].holds}
    return replace(wanted, entries={**wanted.entries, **entries}, holds={**wanted.holds, **holds})


def _is_unchanged(name: str, wanted: Config, parts: list[Part], homes: Mapping[str, int]) -> bool:
    return name in homes and wanted.entries.get(name) == parts[homes[name]].entries.get(name)


def _with(part: Part, config: Config, names: Iterable[str], beside: Part | None = None) -> Part:
    """The part with what `config` says of these workers, and nothing of others but what is in `beside`."""
    entries = dict(beside.entries) if beside else {}
    holds = dict(beside.holds) if beside else {}
    for name in names:
        if name in config.entries:
            entries[name] = config.entries[name]
        if name in config.holds:
            holds[name] = config.holds[name]
    return replace(part, entries=entries, holds=holds)


def _check_size(name: str, size: int, config: Config) -> None:
    if size > PART_BYTES:
        count = len(config.entries[name].jobs) if name in config.entries else 0
        raise Malformed(
            f"workloads.{name}.jobs",
            f"a list of {count}",
            f"give the pool more workers: {count} jobs of one worker take {size:,} bytes, and a ConfigMap has room for "
            f"{PART_BYTES:,}",
        )


def _size(name: str, entry: Entry | None, hold: Hold | None) -> int:
    """An upper bound of the bytes that a worker takes in both keys, with room for what `hold` may come to know."""
    length = 6 * len(name.encode())
    if entry is not None:
        length += 64 + len(_flow(dict(entry.extra)).encode())
        length += sum(len(job.encode()) + job.count('"') + job.count("\\") + 11 for job in entry.jobs)
    return length + HOLD_BYTES + len(_flow(_hold_document(hold or Hold())).encode())


def _size_of_extra(part: Part) -> int:
    return 2 * len(_flow([dict(part.extra), dict(part.record_extra)]).encode()) + 1000


# ---------------------------------------------------------------------------------------------------------------------
# As it is written


def entry_of(document: Any, worker: str, where: str = CONFIG_KEY) -> Entry | None:
    """A worker's entry of the value of `config.yml`; None where it has none. Raises Malformed."""
    return parse_entries(document, where)[0].get(worker)


def parse_entries(document: Any, where: str = CONFIG_KEY) -> tuple[dict[str, Entry], dict[str, Any]]:
    """All entries, and the other keys, of the value of `config.yml` (None: it is empty). Raises Malformed."""
    if document is None:
        return {}, {}
    if not isinstance(document, dict):
        raise Malformed(where, document, "give a mapping with the key workloads")
    workloads = document.get("workloads")
    if workloads is None:
        workloads = {}
    if not isinstance(workloads, dict):
        raise Malformed(f"{where}: workloads", workloads, "give a mapping from Pod names to jobs and version")
    entries = {}
    for name, value in workloads.items():
        if not isinstance(name, str) or not name:
            raise Malformed(f"{where}: workloads", name, "give the names of Pods as strings: quote them")
        entries[name] = _entry(value, f"{where}: workloads.{name}")
    return entries, {key: value for key, value in document.items() if key != "workloads"}


def _entry(value: Any, where: str) -> Entry:
    if not isinstance(value, dict):
        raise Malformed(where, value, "give jobs and version")
    jobs, version = value.get("jobs"), value.get("version", 0)
    if jobs is None:
        jobs = []
    if not isinstance(jobs, list):
        raise Malformed(f"{where}.jobs", jobs, "give a list of names")
    for number, job in enumerate(jobs):
        check_job_name(job, f"{where}.jobs[{number}]")
    if len(set(jobs)) != len(jobs):
        double = next(job for number, job in enumerate(jobs) if job in jobs[:number])
        raise Malformed(f"{where}.jobs", double, "name each job once")
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise Malformed(f"{where}.version", version, "give a whole number from 0")
    return Entry(tuple(jobs), version, {key: of for key, of in value.items() if key not in ("jobs", "version")})


def check_job_name(name: Any, where: str) -> str:
    """1 to 253 printable characters. Raises Malformed."""
    if not isinstance(name, str):
        raise Malformed(where, name, "give a name as a string: quote it")
    if not 0 < len(name) <= MAX_JOB_NAME:
        raise Malformed(where, name, f"give a name of 1 to {MAX_JOB_NAME} characters")
    if name == ANYTHING or _UNPRINTABLE.search(name):
        raise Malformed(where, name, "give a name of printable characters, and not * alone")
    return name


def parse_record(text: str | None) -> Part:
    """A part without entries, from its `handover.json` (None: there is none). Raises Malformed."""
    if not text:
        return Part()
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # the latter: brackets without end
        document = text
    known = document.get("version") if isinstance(document, dict) else None
    if known != RECORD_VERSION:
        remedy = f"this program knows version {RECORD_VERSION}: update it; or stop all workers and remove the key"
        raise Malformed(RECORD_KEY, text, remedy)
    turn, floor = (_whole(document.get(key, least), key, least) for key, least in (("turn", 0), ("floor", -1)))
    workers = document.get("workers", {})
    if not isinstance(workers, dict):
        raise Malformed(f"{RECORD_KEY}: workers", workers, "give a mapping")
    holds = {name: _hold(value, f"workers.{name}") for name, value in workers.items()}
    rebalance = document.get("rebalance", {})
    if not isinstance(rebalance, dict):
        raise Malformed(f"{RECORD_KEY}: rebalance", rebalance, "give a mapping")
    known_keys = ("version", "turn", "floor", "rebalance", "workers")
    extra = {key: value for key, value in document.items() if key not in known_keys}
    return Part(holds=holds, turn=turn, floor=floor, rebalance=rebalance, record_extra=extra)


def _hold(value: Any, where: str) -> Hold:
    if not isinstance(value, dict):
        raise Malformed(f"{RECORD_KEY}: {where}", value, "give a mapping")
    leaving = value.get("leaving", {})
    if not isinstance(leaving, dict):
        raise Malformed(f"{RECORD_KEY}: {where}.leaving", leaving, "give a mapping from jobs to versions")
    known = ("leaving", "applied", "barrier", "zone", "awaits")
    return Hold(
        {job: _whole(version, f"{where}.leaving.{job}", 0) for job, version in leaving.items()},
        _known(value.get("applied"), f"{where}.applied"),
        _known(value.get("barrier"), f"{where}.barrier"),
        str(value.get("zone", "")),
        {key: of for key, of in value.items() if key not in known},
        bool(value.get("awaits", False)),
    )


def _known(value: Any, where: str) -> Known | None:
    if value is None:
        return None
    match value:
        case [str(uid), int(version)] if not isinstance(version, bool):
            return Known(uid, version)
    raise Malformed(f"{RECORD_KEY}: {where}", value, "give [uid, version]")


def _whole(value: Any, where: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise Malformed(f"{RECORD_KEY}: {where}", value, f"give a whole number from {least}")
    return value


def render(part: Part) -> dict[str, str]:
    """The two keys of a part, the same bytes for the same part."""
    return {CONFIG_KEY: "".join(_yaml(part)), RECORD_KEY: _record(part)}


def _yaml(part: Part) -> Iterator[str]:
    for key, value in sorted(part.extra.items()):
        yield f"{_scalar(key)}: {_flow(value)}\n"
    if not part.entries:
        yield "workloads: {}\n"
        return
    yield "workloads:\n"
    for name, entry in sorted(part.entries.items(), key=lambda item: natural(item[0])):
        yield f"  {_scalar(name)}:\n"
        if entry.jobs:
            yield "    jobs:\n"
            yield "".join([f"      - {_scalar(job)}\n" for job in entry.jobs])
        else:
            yield "    jobs: []\n"
        yield f"    version: {entry.version}\n"
        for key, value in sorted(entry.extra.items()):
            yield f"    {_scalar(key)}: {_flow(value)}\n"


def _scalar(text: Any) -> str:
    if isinstance(text, str) and _PLAIN.fullmatch(text) and text.lower() not in _NOT_PLAIN:
        return text
    return _flow(text)


def _flow(value: Any) -> str:
    """JSON is YAML, but for characters that YAML wants to be escaped: those of `_UNPRINTABLE`."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _record(part: Part) -> str:
    workers = {name: _hold_document(hold) for name, hold in part.holds.items()}
    document = {**part.record_extra, "version": RECORD_VERSION, "turn": part.turn, "floor": part.floor}
    if part.rebalance:
        document["rebalance"] = dict(part.rebalance)
    return json.dumps({**document, "workers": workers}, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _hold_document(hold: Hold) -> dict[str, Any]:
    said = {"leaving": dict(hold.leaving), "applied": hold.applied, "barrier": hold.barrier, "zone": hold.zone,
            "awaits": hold.awaits}  # fmt: skip
    return {**hold.extra, **{key: value for key, value in said.items() if value}}


def natural(name: str) -> tuple[Any, ...]:
    """A sort key by which worker-2 comes before worker-10."""
    return tuple(
        (int(part), part) if part.isascii() and part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)
    )

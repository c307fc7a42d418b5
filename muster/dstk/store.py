# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's memory: its copies of partitions, their data and their logs, in one sqlite file.

Rules
1. What is told as done is on the disk (write-ahead log, synchronous FULL), and survives being killed at any moment.
2. One thread writes. What waits for it when it comes round is one transaction: many writes, one wait for the disk.
3. Whether a change may happen is decided where it happens, in that thread and in the order of the queue: what is behind
   a fence in the queue finds the copy fenced.
4. Data is kept by key, whichever copy has it, and copies are records over ranges that do not overlap. So a split or a
   merge writes a few records. A copy that begins has its range cleared: what was left there is nobody's.
5. Each copy has a log of its changes, at positions that follow one another. The log is trimmed: what everybody has who
   follows, and what is too much. Who asks for what is not there any more loads anew.
6. `epochs` remembers at which position the log went on under another epoch. Whoever followed under an older one beyond
   that position has what never was, and loads anew.
"""

from __future__ import annotations

import bisect
import fcntl
import json
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range, contains, overlaps
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FOLLOWING,
    LOADING,
    PRIMARY,
    Copies,
    Copy,
    Outcome,
    from_json,
    to_json,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError

GROUP: Final = 512  # changes of one transaction
GROUP_BYTES: Final = 4 * 1024 * 1024
TRIM_EVERY: Final = 64  # changes of a copy, until its log is looked at
IDLE_LOG: Final = (256, 256 * 1024)  # changes and bytes that are kept though nobody follows
LONGEST_LOG: Final = (200_000, 64 * 1024 * 1024)  # and at most, whoever follows
EPOCHS: Final = 64  # of one copy that are remembered
COUNTED: Final = 50_000  # keys that are counted anew when ranges change; of more, the number is estimated

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS copies (
    id INTEGER PRIMARY KEY AUTOINCREMENT, partition TEXT NOT NULL UNIQUE, document TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS epochs (
    copy INTEGER NOT NULL, epoch INTEGER NOT NULL, began INTEGER NOT NULL, PRIMARY KEY (copy, epoch)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS log (
    copy INTEGER NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, value BLOB,
    PRIMARY KEY (copy, position)) WITHOUT ROWID;
"""


class StoreFailed(MusterError):
    """The disk refused. `is_known`: nothing of the change has happened; otherwise nobody knows."""

    def __init__(self, message: str, *, is_known: bool) -> None:
        super().__init__(message)
        self.is_known = is_known


class Trimmed(MusterError):
    """That part of the log is not there (any more): load anew."""


class Entry(NamedTuple):
    """One change; value None: the key is gone."""

    position: int
    key: str
    value: bytes | None


class Snapshot(NamedTuple):
    """A page of a copy's data, and the log position from which on the log makes it exact."""

    position: int
    epoch: int
    entries: list[tuple[str, bytes]]
    following: str | None


class Log(NamedTuple):
    """A part of the log, and the position and the epoch of the copy."""

    entries: list[Entry]
    position: int
    epoch: int
    role: str


class Got(NamedTuple):
    """What a key has, and the position of the copy at which it was read."""

    value: bytes | None
    position: int


# ---------------------------------------------------------------------------------------------- changes


@dataclass(slots=True)
class Put:
    """A write of a client. The result is its position; None: it was not done, as the copy is not served any more.

    `may` is asked in the writer's thread, before anything is written.
    """

    partition: str
    epoch: int
    key: str
    value: bytes | None
    may: Callable[[], bool]

    @property
    def size(self) -> int:
        return len(self.value or b"")


@dataclass(slots=True)
class Change:
    """Copies change as `decide` says of how they are then; the result is its Outcome. None: nothing changes."""

    decide: Callable[[Copies], Outcome | None]
    size: int = 0


@dataclass(slots=True)
class Load:
    """A page of a snapshot, for a copy that loads. The result is whether `copy` (but for its position) is still it."""

    copy: Copy
    entries: Sequence[tuple[str, bytes]]
    is_first: bool = False

    @property
    def size(self) -> int:
        return sum(len(value) for _key, value in self.entries)


@dataclass(slots=True)
class Replay:
    """Changes of another worker's log, which follow the position `after`, under `epoch`.

    `begins`: this is the log position of a snapshot that was just loaded. `role`: what the copy is from then on. The
    result is whether `copy` (but for its position) is still it, and stands at `after`.
    """

    copy: Copy
    after: int
    entries: Sequence[Entry]
    epoch: int
    begins: bool = False
    role: str = ""

    @property
    def size(self) -> int:
        return sum(len(entry.value or b"") for entry in self.entries)


Operation = Put | Change | Load | Replay


@dataclass(slots=True)
class Held:
    """What is known of a copy besides: of its log and its data. Counters are of this process."""

    ident: int
    first: int = 0  # the first position that the log has; 0: it has none
    log_bytes: int = 0
    untrimmed: int = 0
    keys: int = 0
    bytes: int = 0
    reads: int = 0
    writes: int = 0


@dataclass(slots=True)
class _Group:
    """What a transaction changes; it is taken over when that is on the disk."""

    copies: dict[str, Copy | None] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    deltas: dict[str, list[int]] = field(default_factory=dict)  # keys, bytes, log bytes, writes
    results: list[Any] = field(default_factory=list)


Table = tuple[tuple[str, ...], tuple[str, ...]]  # starts of ranges, and whose
Done = Callable[[Any], None]


class Store:
    """Safe for several threads; one process at a time has the directory."""

    def __init__(
        self,
        directory: Path,
        *,
        floor: Callable[[str], int | None] = lambda _partition: None,
        deliver: Callable[[Callable[[], None]], None] = lambda call: call(),
        committed: Callable[[Iterable[str]], None] = lambda _partitions: None,
    ) -> None:
        """`floor` says up to which position of a partition everybody who follows has the log; None: nobody follows.

        Results come by way of `deliver`, once for each transaction, before them `committed` with what it touched.
        Raises Malformed where the directory can't be used.
        """
        self._floor, self.deliver, self.committed = floor, deliver, committed
        self._path = directory / "worker.db"
        self.copies: dict[str, Copy] = {}
        self.held: dict[str, Held] = {}
        self.table: Table = ((), ())
        self.failure = ""  # why nothing is written any more
        self.groups = self.changes = 0
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = _lock(directory)
            self._db = self._connect()
            self._db.executescript(SCHEMA)
            self._load()
        except (OSError, sqlite3.Error, json.JSONDecodeError) as error:
            remedy = f"give a directory that can be written and that no other worker uses ({error})"
            raise Malformed("data directory", str(directory), remedy) from error
        self._local = threading.local()
        self._inbox: queue.SimpleQueue[tuple[Operation, Done] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Do what waits, then no more."""
        self._inbox.put(None)
        self._thread.join()
        self._db.close()
        os.close(self._lock)

    # ------------------------------------------------------------------------------------------ for its users

    def submit(self, operation: Operation, done: Done) -> None:
        """Have it done; `done` gets the result, a StoreFailed, or what `decide` of a Change raised."""
        self._inbox.put((operation, done))

    def call(self, operation: Operation) -> Any:
        """Have it done, and wait for it; not in the thread to which results are delivered. Raises as `done` gets it."""
        future: Future[Any] = Future()
        self.submit(operation, future.set_result)
        result = future.result()
        if isinstance(result, Exception):
            raise result
        return result

    def find(self, key: str) -> Copy | None:
        """The copy that has the key in its range."""
        starts, names = self.table
        at = bisect.bisect_right(starts, key) - 1
        copy = self.copies.get(names[at]) if at >= 0 else None
        return copy if copy is not None and contains(copy.range, key) else None

    def get(self, partition: str, key: str) -> Got:
        """What the key has; what is read is on the disk."""
        copy, held = self._there(partition)
        query = "SELECT (SELECT value FROM data WHERE key = ?), (SELECT MAX(position) FROM log WHERE copy = ?)"
        value, position = self._reader.execute(query, (key, held.ident)).fetchone()
        held.reads += 1
        return Got(value, copy.position if position is None else max(position, copy.position))

    def scan(self, partition: str, after: str, start: str, end: str, limit: int, most: int) -> Snapshot:
        """Keys of a copy from `start` (or behind `after`) up to `end`, in order, about `most` bytes; one moment."""
        copy, held = self._there(partition)
        low, high = max(start, copy.range.start), min(filter(None, (end, copy.range.end)), default="")
        reader = self._reader
        reader.execute("BEGIN")
        try:
            row = reader.execute("SELECT MAX(position) FROM log WHERE copy = ?", (held.ident,)).fetchone()
            position = copy.position if row[0] is None else max(row[0], copy.position)
            entries, following = _page(reader, after, low, high, limit, most)
        finally:
            reader.execute("COMMIT")
        held.reads += 1
        return Snapshot(position, copy.epoch, entries, following)

    def snapshot(self, partition: str, after: str, limit: int, most: int) -> Snapshot:
        """A page for who loads this copy. Raises KeyError where it is not here."""
        copy, _held = self._there(partition)  # the position before the data: the log tells what came since
        entries, following = _page(self._reader, after, copy.range.start, copy.range.end, limit, most)
        return Snapshot(copy.position, copy.epoch, entries, following)

    def log(self, partition: str, after: int, epoch: int, limit: int, most: int) -> Log:
        """The log behind `after`, for who followed under `epoch` so far. Raises Trimmed; KeyError: it is not here."""
        copy, held = self._there(partition)
        self._check_epoch(held, copy, after, epoch)
        if after > copy.position:
            raise Trimmed(f"{partition} is at position {copy.position} here")
        entries: list[Entry] = []
        size = 0
        query = "SELECT position, key, value FROM log WHERE copy = ? AND position > ? ORDER BY position LIMIT ?"
        for row in self._reader.execute(query, (held.ident, after, limit)):
            entries.append(Entry(*row))
            size += len(row[2] or b"")
            if size >= most:
                break
        if entries[0].position != after + 1 if entries else copy.position > after:
            raise Trimmed(f"the log of {partition} does not go back to {after}")
        return Log(entries, max(copy.position, entries[-1].position if entries else 0), copy.epoch, copy.role)

    def followed(self, partition: str) -> int:
        """Under which epoch a copy has followed up to now."""
        _copy, held = self._there(partition)
        row = self._reader.execute("SELECT MAX(epoch) FROM epochs WHERE copy = ?", (held.ident,)).fetchone()
        return row[0] or 0

    def meta(self, name: str) -> str:
        """What was kept under this name, or nothing."""
        row = self._reader.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else ""

    def keep(self, name: str, value: str) -> None:
        """Keep it; only before the first change is asked for."""
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _there(self, partition: str) -> tuple[Copy, Held]:
        return self.copies[partition], self.held[partition]

    def _check_epoch(self, held: Held, copy: Copy, after: int, epoch: int) -> None:
        if epoch >= copy.epoch:
            return
        rows = self._reader.execute("SELECT epoch, began FROM epochs WHERE copy = ? ORDER BY epoch", (held.ident,))
        known = rows.fetchall()
        later = [began for number, began in known if number > epoch]
        if not known or known[0][0] > epoch or (later and after > later[0]):
            raise Trimmed(f"{copy.partition} went on under epoch {copy.epoch} before position {after}")

    # ------------------------------------------------------------------------------------------ opening

    @property
    def _reader(self) -> sqlite3.Connection:
        """This thread's connection."""
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._connect()
        return reader

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=10.0, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "cache_size = -16384", "temp_store = MEMORY"):
            db.execute(f"PRAGMA {pragma}")
        return db

    def _load(self) -> None:
        for ident, text in self._db.execute("SELECT id, document FROM copies").fetchall():
            copy, held = from_json(json.loads(text)), Held(ident)
            query = "SELECT MIN(position), MAX(position), COUNT(*), SUM(LENGTH(value)) FROM log WHERE copy = ?"
            first, last, count, size = self._db.execute(query, (ident,)).fetchone()
            held.first, held.log_bytes, held.untrimmed = first or 0, size or 0, count
            held.keys, held.bytes = self._count(copy.range, -1)
            self.copies[copy.partition] = copy._replace(position=max(copy.position, last or 0))
            self.held[copy.partition] = held
        self._sort()

    def _count(self, whole: Range, limit: int) -> tuple[int, int]:
        """Keys and bytes; of `limit` keys at most."""
        where, values = _where(whole)
        query = f"SELECT LENGTH(key) + LENGTH(value) AS size FROM data WHERE {where} LIMIT ?"
        query = f"SELECT COUNT(*), COALESCE(SUM(size), 0) FROM ({query})"
        keys, size = self._db.execute(query, (*values, limit)).fetchone()
        return keys, size

    def _sort(self) -> None:
        ordered = sorted(self.copies.values(), key=lambda copy: copy.range.start)
        self.table = tuple(copy.range.start for copy in ordered), tuple(copy.partition for copy in ordered)

    # ------------------------------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        is_over = False
        while not is_over:
            asked = [self._inbox.get()]
            size = 0
            while asked[-1] is not None and len(asked) < GROUP and size < GROUP_BYTES:
                size += asked[-1][0].size
                try:
                    asked.append(self._inbox.get_nowait())
                except queue.Empty:
                    break
            is_over = asked[-1] is None
            self._commit([each for each in asked if each is not None])

    def _commit(self, asked: list[tuple[Operation, Done]]) -> None:
        """Do these in one transaction, and tell what came of them."""
        group, commits = _Group(), False
        try:
            if self.failure:
                raise StoreFailed(self.failure, is_known=True)
            self._db.execute("BEGIN IMMEDIATE")
            for operation, _done in asked:
                group.results.append(self._do(group, operation))
            self._trim(group)
            commits = True
            self._db.execute("COMMIT")
            self._take_over(group)
            results = group.results
        except Exception as error:  # whatever it is, this thread goes on
            if commits:  # it may be on the disk, or not: only who reads it anew will know
                self.failure = f"the disk did not take a transaction: {error}"
            elif self._db.in_transaction:
                self._db.execute("ROLLBACK")
            group.copies.clear()
            results = [StoreFailed(f"the store failed: {error}", is_known=not commits) for _each in asked]
        touched = tuple(group.copies)

        def tell() -> None:
            if touched:
                self.committed(touched)
            for (_operation, done), result in zip(asked, results, strict=True):
                done(result)

        if asked:
            self.deliver(tell)

    def _take_over(self, group: _Group) -> None:
        self.groups += 1
        self.changes += len(group.results)
        for name, held in group.held.items():
            self.held[name] = held
        for name, (keys, size, log_bytes, writes) in group.deltas.items():
            if name in self.held:
                held = self.held[name]
                held.keys, held.bytes = max(0, held.keys + keys), max(0, held.bytes + size)
                held.log_bytes, held.writes = held.log_bytes + log_bytes, held.writes + writes
                held.untrimmed += writes
        same = all(name in self.copies and copy is not None for name, copy in group.copies.items())
        if same and all(copy.range == self.copies[name].range for name, copy in group.copies.items() if copy):
            self.copies.update({name: copy for name, copy in group.copies.items() if copy})
            return
        changed = {**self.copies, **group.copies}
        self.copies = {name: copy for name, copy in changed.items() if copy is not None}
        for name in [name for name in self.held if name not in self.copies]:
            del self.held[name]
        self._sort()

    def _do(self, group: _Group, operation: Operation) -> Any:
        if isinstance(operation, Put):
            return self._put(group, operation)
        if isinstance(operation, Change):
            return self._change(group, operation)
        if isinstance(operation, Load):
            return self._load_page(group, operation)
        return self._replay(group, operation)

    def _now(self, group: _Group, partition: str) -> Copy | None:
        return group.copies[partition] if partition in group.copies else self.copies.get(partition)

    def _of(self, group: _Group, partition: str) -> Held:
        return group.held.get(partition) or self.held[partition]

    def _put(self, group: _Group, put: Put) -> int | None:
        copy = self._now(group, put.partition)
        if copy is None or copy.role != PRIMARY or copy.epoch != put.epoch or not contains(copy.range, put.key):
            return None
        if not put.may():
            return None
        if put.value is None and self._size(put.key) is None:
            return copy.position  # there is nothing to delete
        self._append(group, copy, [Entry(copy.position + 1, put.key, put.value)])
        return copy.position + 1

    def _append(self, group: _Group, copy: Copy, entries: Sequence[Entry]) -> None:
        """Write these to the data and to the log."""
        held, position = self._of(group, copy.partition), copy.position
        delta = group.deltas.setdefault(copy.partition, [0, 0, 0, 0])
        for position, key, value in entries:
            before = self._size(key)
            if value is None:
                self._db.execute("DELETE FROM data WHERE key = ?", (key,))
            else:
                self._db.execute("INSERT OR REPLACE INTO data VALUES (?, ?)", (key, value))
            self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (held.ident, position, key, value))
            after = None if value is None else len(value)
            delta[0] += (after is not None) - (before is not None)
            delta[1] += (0 if after is None else len(key) + after) - (0 if before is None else len(key) + before)
            delta[2] += after or 0
            delta[3] += 1
        group.copies[copy.partition] = copy._replace(position=position)

    def _size(self, key: str) -> int | None:
        row = self._db.execute("SELECT LENGTH(value) FROM data WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _load_page(self, group: _Group, page: Load) -> bool:
        copy = self._now(group, page.copy.partition)
        if copy is None or copy != page.copy._replace(position=copy.position) or copy.role != LOADING:
            return False
        delta = group.deltas.setdefault(copy.partition, [0, 0, 0, 0])
        if page.is_first:
            held = Held(self._of(group, copy.partition).ident)
            group.held[copy.partition] = held
            self._clear(copy.range)
            self._db.execute("DELETE FROM log WHERE copy = ?", (held.ident,))
            delta[:] = [0, 0, 0, 0]
        fitting = [(key, value) for key, value in page.entries if contains(copy.range, key)]
        self._db.executemany("INSERT OR REPLACE INTO data VALUES (?, ?)", fitting)
        delta[0] += len(fitting)
        delta[1] += sum(len(key) + len(value) for key, value in fitting)
        group.copies.setdefault(copy.partition, copy)
        return True

    def _replay(self, group: _Group, replay: Replay) -> bool:
        copy = self._now(group, replay.copy.partition)
        if copy is None or copy != replay.copy._replace(position=copy.position):
            return False
        if copy.role not in (LOADING, FOLLOWING) or not (replay.begins or copy.position == replay.after):
            return False
        for number, entry in enumerate(replay.entries, replay.after + 1):
            if entry.position != number or not contains(copy.range, entry.key):
                return False
        held = self._of(group, copy.partition)
        if replay.begins:
            self._db.execute("DELETE FROM epochs WHERE copy = ?", (held.ident,))
            copy = copy._replace(position=replay.after)
        self._append(group, copy, replay.entries)
        moved = group.copies[copy.partition]
        assert moved is not None
        self._goes_on(held.ident, replay.epoch, copy.position)
        if replay.begins or (replay.role and replay.role != copy.role):
            self._write(group, moved._replace(role=replay.role or copy.role))
        return True

    def _goes_on(self, ident: int, epoch: int, position: int) -> None:
        """From this position on the log is of this epoch, unless that is known already."""
        self._db.execute("INSERT OR IGNORE INTO epochs VALUES (?, ?, ?)", (ident, epoch, position))
        query = "DELETE FROM epochs WHERE copy = ? AND epoch <= (SELECT epoch FROM epochs WHERE copy = ?"
        self._db.execute(f"{query} ORDER BY epoch DESC LIMIT 1 OFFSET ?)", (ident, ident, EPOCHS))

    # ------------------------------------------------------------------------------------------ copies change

    def _change(self, group: _Group, change: Change) -> Outcome | Exception | None:
        merged = {**self.copies, **group.copies}
        before = {name: copy for name, copy in merged.items() if copy is not None}
        try:
            outcome = change.decide(before)
        except Exception as error:  # nothing was written for it yet
            return error
        if outcome is None or outcome.refusal:
            return outcome
        after = {name: copy for name, copy in before.items() if name not in outcome.remove}
        after.update({copy.partition: copy for copy in outcome.write})
        loose = [before[name].range for name in outcome.remove if name in before]
        loose += [before[copy.partition].range for copy in outcome.write if copy.partition in before]
        written = {copy.partition for copy in outcome.write}
        for whole in outcome.clear:
            self._clear(whole)
        for name in outcome.remove:
            if name in before and name not in written:
                self._end(group, name)
        for whole in loose:
            for part in _without(whole, [copy.range for copy in after.values()]):
                self._clear(part)
        for copy in outcome.write:
            self._write(group, copy, is_new=copy.partition not in before or copy.range in outcome.clear)
        self._estimate(group, outcome, before)
        return outcome

    def _end(self, group: _Group, name: str) -> None:
        ident = self._of(group, name).ident
        for table in ("log", "epochs"):
            self._db.execute(f"DELETE FROM {table} WHERE copy = ?", (ident,))
        self._db.execute("DELETE FROM copies WHERE id = ?", (ident,))
        group.copies[name] = None
        group.deltas.pop(name, None)

    def _write(self, group: _Group, copy: Copy, *, is_new: bool = False) -> None:
        before = self._now(group, copy.partition)
        text = json.dumps(to_json(copy), separators=(",", ":"))
        if is_new:
            if before is not None:
                self._end(group, copy.partition)
            made = self._db.execute("INSERT INTO copies (partition, document) VALUES (?, ?)", (copy.partition, text))
            group.held[copy.partition] = Held(made.lastrowid or 0)
        else:
            ident = self._of(group, copy.partition).ident
            self._db.execute("UPDATE copies SET document = ? WHERE id = ?", (text, ident))
        if copy.role == PRIMARY:
            self._goes_on(self._of(group, copy.partition).ident, copy.epoch, copy.position)
        group.copies[copy.partition] = copy

    def _estimate(self, group: _Group, outcome: Outcome, before: Copies) -> None:
        """How much is in copies that came out of others."""
        made = [copy for copy in outcome.write if copy.partition not in before and copy.range not in outcome.clear]
        sources = [self._of(group, name) for name in outcome.remove if name in self.held or name in group.held]
        for copy in made:
            held = group.held[copy.partition]
            held.keys, held.bytes = self._count(copy.range, COUNTED)
            if held.keys == COUNTED and sources:
                held.keys = max(COUNTED, sum(source.keys for source in sources) // len(made))
                held.bytes = max(held.bytes, sum(source.bytes for source in sources) // len(made))

    def _clear(self, whole: Range) -> None:
        where, values = _where(whole)
        self._db.execute(f"DELETE FROM data WHERE {where}", values)

    # ------------------------------------------------------------------------------------------ the log's end

    def _trim(self, group: _Group) -> None:
        for name, (_keys, _bytes, _log_bytes, writes) in list(group.deltas.items()):
            copy = group.copies.get(name)
            held = self._of(group, name) if copy is not None else None
            if copy is None or held is None:
                continue
            if not held.first and writes:
                held.first = copy.position - writes + 1
            if held.untrimmed + writes >= TRIM_EVERY:
                held.untrimmed = -writes
                self._trim_one(group, copy, held)

    def _trim_one(self, group: _Group, copy: Copy, held: Held) -> None:
        """Keep what somebody needs, but not too much, and always the last entry: it has the position."""
        floor = self._floor(copy.partition)
        delta = group.deltas[copy.partition]
        entries, size = IDLE_LOG if floor is None else LONGEST_LOG
        keep_from = max(copy.position - entries + 1, 0 if floor is None else floor - IDLE_LOG[0] + 1)
        if held.log_bytes + delta[2] > size:
            keep_from = max(keep_from, held.first + (copy.position - held.first) // 2)
        keep_from = min(keep_from, copy.position)
        if keep_from <= held.first:
            return
        query = "FROM log WHERE copy = ? AND position < ?"
        gone = self._db.execute(f"SELECT COALESCE(SUM(LENGTH(value)), 0) {query}", (held.ident, keep_from)).fetchone()
        self._db.execute(f"DELETE {query}", (held.ident, keep_from))
        held.first = keep_from
        delta[2] -= gone[0]


def _page(
    db: sqlite3.Connection, after: str, low: str, high: str, limit: int, most: int
) -> tuple[list[tuple[str, bytes]], str | None]:
    """Keys and values in order, and behind which the next page begins; None where there is none."""
    where, values = _where(Range(low, high))
    entries: list[tuple[str, bytes]] = []
    size = 0
    query = f"SELECT key, value FROM data WHERE {where} AND key > ? ORDER BY key LIMIT ?"
    for key, value in db.execute(query, (*values, after, limit + 1)):
        if len(entries) == limit or size >= most:
            return entries, entries[-1][0]
        entries.append((key, value))
        size += len(key) + len(value)
    return entries, None


def _where(whole: Range) -> tuple[str, tuple[str, ...]]:
    return ("key >= ? AND key < ?", (whole.start, whole.end)) if whole.end else ("key >= ?", (whole.start,))


def _without(whole: Range, others: Iterable[Range]) -> list[Range]:
    """What of the range is in none of the others."""
    left = [whole]
    for other in others:
        parts = []
        for part in left:
            if not overlaps(part, other):
                parts.append(part)
                continue
            if part.start < other.start:
                parts.append(Range(part.start, other.start))
            if other.end and (not part.end or other.end < part.end):
                parts.append(Range(other.end, part.end))
        left = parts
    return left


def _lock(directory: Path) -> int:
    """Held by this process until it ends, in whichever way. Raises OSError."""
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise OSError("another process has it") from None
    return lock


def unchanged(copies: Mapping[str, Copy], expected: Iterable[Copy]) -> bool:
    """Whether these are still there as they were, but for their positions."""
    for copy in expected:
        now = copies.get(copy.partition)
        if now is None or now._replace(position=0) != copy._replace(position=0):
            return False
    return True

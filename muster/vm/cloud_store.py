# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The private cloud's memory: one sqlite file. What it answered survives being killed at any moment.

Rules
1. Each change is one transaction that is on the disk before it is answered (write-ahead log, synchronous FULL).
2. A write that carries a fence less than the greatest that was seen for its machine's name, or for its scope, is
   refused. The greatest stay for ever, also when the machine is gone.
3. A name can be closed: no machine of that name is made after that, however late a request arrives.
4. A machine is made once for each Idempotency-Key. The machine stays as a tombstone when it is deleted, so its key is
   spent, too.
5. A name belongs to one living machine.
`Guards` switches 2 and 3, 4, and 5 off.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.vm.cloud_wire import Changed, Closed, KeyReused, NameTaken, NotThere, Spent, StaleFence, Writer

Machine = dict[str, Any]

SCHEMA = """
CREATE TABLE IF NOT EXISTS machines (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, uid TEXT NOT NULL, request TEXT, asked TEXT NOT NULL,
    cores INTEGER NOT NULL, memory TEXT NOT NULL, image TEXT NOT NULL, revision INTEGER NOT NULL DEFAULT 1,
    created REAL NOT NULL, deleted REAL);
CREATE INDEX IF NOT EXISTS machines_name ON machines (name);
CREATE INDEX IF NOT EXISTS machines_uid ON machines (uid);
CREATE INDEX IF NOT EXISTS machines_request ON machines (request);
CREATE TABLE IF NOT EXISTS fences (
    kind TEXT NOT NULL, what TEXT NOT NULL, fence INTEGER NOT NULL DEFAULT 0, closed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, what));
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
TOMBSTONES = 100  # newest of one uid that are told


class Guards(NamedTuple):
    """Which rules are kept (see above)."""

    fences: bool = True
    keys: bool = True
    names: bool = True


class Store:
    """Safe for several threads; one process at a time has the file. `clock` gives Unix seconds."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.guards = Guards()
        self._clock = clock
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(SCHEMA)
        except sqlite3.Error as error:
            remedy = f"give a file that can be written and that no other private cloud has open ({error})"
            raise Malformed("store", str(path), remedy) from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ------------------------------------------------------------------------------------------ machines

    def find(self, writer: Writer, name: str, uid: str, *, close: bool = False) -> dict[str, Any]:
        """Register the fence for the name (`close`: rule 3), and say what there is of that name or uid.

        `machines` live; `spent` are the idempotency keys of machines of the uid that are gone, the newest first.
        """
        with self._transaction():
            self._fence(writer, name)
            if close:
                self._db.execute(
                    "INSERT INTO fences (kind, what, closed) VALUES ('name', ?, 1)"
                    " ON CONFLICT DO UPDATE SET closed = 1",
                    (name,),
                )
            live = "SELECT * FROM machines WHERE deleted IS NULL AND (name = ? OR uid = ?) ORDER BY number LIMIT 500"
            gone = "SELECT request FROM machines WHERE deleted IS NOT NULL AND uid = ? ORDER BY number DESC LIMIT ?"
            return {
                "name": name,
                "fence": self._seen("name", name),
                "closed": self._is_closed(name),
                "machines": [_machine(row) for row in self._db.execute(live, (name, uid))],
                "spent": [row["request"] for row in self._db.execute(gone, (uid, TOMBSTONES)) if row["request"]],
            }

    def create(self, writer: Writer, asked: Machine, key: str | None) -> tuple[Machine, bool]:
        """Make the machine `asked` (name, uid, cores, memory, image), or find the one made for `key`; whether made."""
        with self._transaction():
            self._fence(writer, asked["name"])
            if self.guards.fences and self._is_closed(asked["name"]):
                raise Closed(f"the name {asked['name']} is closed: no machine is made under it any more")
            text = json.dumps(asked, sort_keys=True)
            if key and self.guards.keys:
                row = self._row("SELECT * FROM machines WHERE request = ? ORDER BY number LIMIT 1", key)
                if row is not None:
                    return self._replay(row, text, key), False
            row = self._row("SELECT uid FROM machines WHERE name = ? AND deleted IS NULL LIMIT 1", asked["name"])
            if row is not None and self.guards.names:
                raise NameTaken(f"there is a machine {asked['name']} of the uid {row['uid']}", uid=row["uid"])
            made = self._db.execute(
                "INSERT INTO machines (name, uid, request, asked, cores, memory, image, created)"
                " VALUES (:name, :uid, :request, :asked, :cores, :memory, :image, :created)",
                {**asked, "request": key, "asked": text, "created": self._clock()},
            )
            return _machine(self._there(_id(made.lastrowid or 0))), True

    def resize(self, writer: Writer, ident: str, cores: int, memory: str, revision: int | None = None) -> Machine:
        """Change the size of a machine, if it is at `revision` (None: at any)."""
        with self._transaction():
            row = self._there(ident)
            self._fence(writer, row["name"])
            if row["deleted"] is not None:
                raise _no_machine(ident)
            if revision not in (None, row["revision"]):
                at = row["revision"]
                raise Changed(f"machine {ident} is at revision {at}, not {revision}: look again", revision=at)
            self._db.execute(
                "UPDATE machines SET cores = ?, memory = ?, revision = revision + 1 WHERE number = ?",
                (cores, memory, row["number"]),
            )
            return _machine(self._there(ident))

    def delete(self, writer: Writer, ident: str) -> None:
        """Delete a machine; its tombstone stays."""
        with self._transaction():
            row = self._there(ident)
            self._fence(writer, row["name"])
            if row["deleted"] is not None:
                raise _no_machine(ident)
            self._db.execute("UPDATE machines SET deleted = ? WHERE number = ?", (self._clock(), row["number"]))

    def get(self, ident: str) -> Machine:
        with self._lock:
            row = self._there(ident)
        if row["deleted"] is not None:
            raise _no_machine(ident)
        return _machine(row)

    def page(
        self, *, name: str = "", uid: str = "", after: str = "", limit: int = 100, ago: float = 0.0
    ) -> list[Machine]:
        """Machines in the order of their making, after the one of the id `after`, as they were `ago` seconds ago."""
        then = self._clock() - ago
        with self._lock:
            rows = self._db.execute(
                "SELECT * FROM machines WHERE number > :after AND (:name = '' OR name = :name) AND"
                " (:uid = '' OR uid = :uid) AND created <= :then AND (deleted IS NULL OR deleted > :then)"
                " ORDER BY number LIMIT :limit",
                {"after": _number(after), "name": name, "uid": uid, "then": then, "limit": limit},
            )
            return [_machine(row) for row in rows]

    # ------------------------------------------------------------------------------------------ counters and settings

    def counters(self, *, after: str = "", limit: int = 10_000) -> dict[str, Any]:
        """`creates`: how many machines were ever made for each uid (a page of them, by uid); and totals."""
        query = "SELECT uid, COUNT(*) FROM machines WHERE uid > ? GROUP BY uid ORDER BY uid LIMIT ?"
        with self._lock:
            return {"creates": dict(map(tuple, self._db.execute(query, (after, limit)))), **self._totals()}

    def totals(self) -> dict[str, int]:
        """`made` and `live` machines, `refused_stale` writes and `replays`, since the store began."""
        with self._lock:
            return self._totals()

    def setting(self, name: str) -> Any:
        """JSON that was kept under this name, or None."""
        with self._lock:
            row = self._row("SELECT value FROM settings WHERE name = ?", name)
        return None if row is None else json.loads(row["value"])

    def keep(self, name: str, value: Any) -> None:
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, json.dumps(value)))

    # ------------------------------------------------------------------------------------------ private

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; on the disk when it is over. A refusal of a stale fence is counted."""
        with self._lock:
            try:
                with self._atomic():
                    yield
            except StaleFence:
                with self._atomic():
                    self._count("refused_stale")
                raise

    @contextmanager
    def _atomic(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _fence(self, writer: Writer, name: str) -> None:
        """Refuse who is too late, and remember who is not."""
        if writer.fence is None:
            return
        for kind, what in (("name", name), ("scope", writer.scope)):
            seen = self._seen(kind, what)
            if self.guards.fences and writer.fence < seen:
                raise StaleFence(
                    f"the fence {writer.fence} is less than {seen}, which was seen for the {kind} {what!r}", seen=seen
                )
            self._db.execute(
                "INSERT INTO fences (kind, what, fence) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET fence = MAX(fence, excluded.fence)",
                (kind, what, writer.fence),
            )

    def _seen(self, kind: str, what: str) -> int:
        row = self._row("SELECT fence FROM fences WHERE kind = ? AND what = ?", kind, what)
        return 0 if row is None else row["fence"]

    def _is_closed(self, name: str) -> bool:
        row = self._row("SELECT closed FROM fences WHERE kind = 'name' AND what = ?", name)
        return row is not None and bool(row["closed"])

    def _replay(self, row: sqlite3.Row, text: str, key: str) -> Machine:
        if row["asked"] != text:
            raise KeyReused(f"the Idempotency-Key {key} was used for another request: look at what there is")
        if row["deleted"] is not None:
            raise Spent(f"the machine of the Idempotency-Key {key} was made, and deleted: use another key")
        self._count("replays")
        return _machine(row)

    def _there(self, ident: str) -> sqlite3.Row:
        row = self._row("SELECT * FROM machines WHERE number = ?", _number(ident))
        if row is None:
            raise _no_machine(ident)
        return row

    def _row(self, query: str, *values: Any) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self._db.execute(query, values).fetchone()
        return found

    def _count(self, name: str) -> None:
        self._db.execute("INSERT INTO counters VALUES (?, 1) ON CONFLICT DO UPDATE SET count = count + 1", (name,))

    def _totals(self) -> dict[str, int]:
        counted = dict(map(tuple, self._db.execute("SELECT name, count FROM counters")))
        made, gone = self._db.execute("SELECT COUNT(*), COUNT(deleted) FROM machines").fetchone()
        others = {name: counted.get(name, 0) for name in ("refused_stale", "replays")}
        return {"made": made, "live": made - gone, **others}


def _machine(row: sqlite3.Row) -> Machine:
    number = row["number"]
    shown = ("name", "uid", "request", "cores", "memory", "image", "revision", "created")
    address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    return {"id": _id(number), **{field: row[field] for field in shown}, "address": address}


def _id(number: int) -> str:
    return f"m-{number}"


def _number(ident: str) -> int:
    """Of an id; one that can't be has no machine. Empty: before all."""
    if not ident:
        return 0
    digits = ident.removeprefix("m-")
    if not (ident.startswith("m-") and digits.isascii() and digits.isdecimal() and len(digits) <= 18):
        raise _no_machine(ident)
    return int(digits)


def _no_machine(ident: str) -> NotThere:
    return NotThere(f"there is no machine {ident!r}")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has which instances, counted exactly: a ledger for each owner, and one for all of them together.

Rules
1. A place is reserved before anything is made, and counts from then on. A ledger changes by compare-and-swap only, so
   of any number of creations at one moment no more succeed than there are places.
2. A reservation is found by its key: who asks again with the same key and the same request finds the same handle,
   whether the first answer was lost, or the first asker died, or both ask at one moment. The same key with another
   request is refused, and so is a key whose instance is being destroyed.
3. reserved -> held, when the Instance is there, with its uid; held -> closing, when it is to be destroyed. Nothing is
   made for an Instance that its owner's ledger and the total do not both hold under its uid. So a reservation that was
   given up can be taken out while its asker still sleeps: what that one makes when it wakes is held by nobody, and is
   removed.
4. A place is free again when all that was made for it is gone.
5. The total is a ledger of its own, by the same rules. The owner's goes first when a place is taken, the total when it
   is confirmed or given back: so what its owner's ledger holds the total holds, too, and who finds an entry only in the
   total knows that nobody has it.

Theory: reservation as the claim, idempotency keys (Helland, Life beyond Distributed Transactions, 2007).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

VERSION: Final = 1
KEY: Final = "ledger.json"  # in the ConfigMap's data
MEMBER: Final = "muster.dev/allocator"  # label of all that belongs to an allocator: its name
OWNER: Final = "muster.dev/owner"  # label: see `owner_hash`
RESERVED, HELD, CLOSING = "reserved", "held", "closing"
STATES: Final = (RESERVED, HELD, CLOSING)
MAX_ENTRIES: Final = 5000  # of one ledger: about 900 KB
MAX_SERVER_NAME: Final = 40  # characters, so that a handle is a DNS label


class Entry(NamedTuple):
    """A place that is taken. `key` and `digest` say by which request; `uid` is the Instance's, "" while there is none.

    `since` is for people.
    """

    handle: str
    key: str
    digest: str
    state: str = RESERVED
    uid: str = ""
    since: str = ""
    extra: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Ledger:
    """`owner` is a name as the API server knows it; empty in the total. `entries` by handle."""

    owner: str = ""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def of_key(self, key: str) -> Entry | None:
        return next((entry for entry in self.entries.values() if entry.key == key), None)


class Request(NamedTuple):
    """Who asks for an instance: the hashes of key and body, the handle that it would have, and the time for people."""

    owner: str
    key: str
    digest: str
    handle: str
    now: str = ""


class Reserved(NamedTuple):
    """A new place."""

    entry: Entry


class Replayed(NamedTuple):
    """The place that this very request has had before."""

    entry: Entry


class KeyReused(NamedTuple):
    """The key belongs to another request."""

    entry: Entry


class KeyBusy(NamedTuple):
    """The key's instance is being destroyed."""

    entry: Entry


class Full(NamedTuple):
    """No place is free."""

    limit: int
    used: int


Verdict = Reserved | Replayed | KeyReused | KeyBusy | Full  # pylint: disable=unsupported-binary-operation


def reserve(ledger: Ledger | None, request: Request, limit: int) -> tuple[Ledger, Verdict]:
    """Take a place, or find the one that this request has. The same ledger where that changes nothing.

    `limit` is the greatest number of entries, from 0.
    """
    before = ledger or Ledger(request.owner)
    known = before.of_key(request.key)
    if known:
        if known.digest != request.digest:
            return before, KeyReused(known)
        return before, KeyBusy(known) if known.state == CLOSING else Replayed(known)
    if len(before.entries) >= min(limit, MAX_ENTRIES):
        return before, Full(limit, len(before.entries))
    entry = Entry(request.handle, request.key, request.digest, since=request.now)
    taken = before.entries.get(request.handle)
    if taken:  # from the warm pool, or 40 bits of a hash that were met twice
        return before, KeyReused(taken)
    return replace(before, entries={**before.entries, request.handle: entry}), Reserved(entry)


def confirm(ledger: Ledger | None, handle: str, uid: str) -> tuple[Ledger | None, bool]:
    """Hold the place for the Instance with this uid; whether it is held then. The same ledger where nothing changes."""
    entry = ledger.entries.get(handle) if ledger else None
    if ledger is None or entry is None or entry.uid not in ("", uid):
        return ledger, False
    if entry.state != RESERVED:
        return ledger, entry.uid == uid
    return _with(ledger, entry._replace(state=HELD, uid=uid)), True


def hold(ledger: Ledger | None, request: Request, uid: str, *, anew: bool) -> tuple[Ledger | None, bool]:
    """Hold the place of this very request for the Instance with this uid; whether it is held then.

    `anew`: it was held before, so where there is no entry, it was lost, and is entered again, whatever the limit.
    """
    entry = ledger.entries.get(request.handle) if ledger else None
    if entry is None and anew:
        entry = Entry(request.handle, request.key, request.digest)
        ledger = _with(ledger or Ledger(request.owner), entry)
    if entry is None or (entry.key, entry.digest) != (request.key, request.digest):
        return ledger, False
    return confirm(ledger, request.handle, uid)


def closing(ledger: Ledger | None, handle: str, uid: str) -> Ledger | None:
    """The Instance is being destroyed: its key is not to be replayed any more."""
    entry = ledger.entries.get(handle) if ledger else None
    if ledger is None or entry is None or entry.uid not in ("", uid) or entry.state == CLOSING:
        return ledger
    return _with(ledger, entry._replace(state=CLOSING, uid=uid))


def release(ledger: Ledger | None, handle: str, uid: str | None = None) -> Ledger | None:
    """Give the place back. `uid`: only if it is held for that Instance, or for none yet; None: only while reserved."""
    entry = ledger.entries.get(handle) if ledger else None
    if ledger is None or entry is None:
        return ledger
    is_his = entry.state == RESERVED if uid is None else entry.uid in ("", uid)
    if not is_his:
        return ledger
    return replace(ledger, entries={name: each for name, each in ledger.entries.items() if name != handle})


def is_held(ledger: Ledger | None, handle: str, uid: str) -> bool:
    """Whether something may be made for this Instance."""
    entry = ledger.entries.get(handle) if ledger else None
    return entry is not None and entry.uid == uid and entry.state in (HELD, CLOSING)


def _with(ledger: Ledger, entry: Entry) -> Ledger:
    return replace(ledger, entries={**ledger.entries, entry.handle: entry})


# ---------------------------------------------------------------------------------------------------------------------
# Names


def owner_hash(owner: str) -> str:
    """16 hexadecimal digits for an owner's name, which may have characters that a label can't."""
    return _hash(owner)[:16]


def key_hash(key: str) -> str:
    return _hash(key)[:16]


def handle(server_name: str, owner: str, key: str) -> str:
    """The name of the instance that an owner gets for a key: the same for the same, a DNS label. Raises Malformed."""
    if not 0 < len(server_name) <= MAX_SERVER_NAME:
        raise Malformed("server-name", server_name, f"give a DNS label of 1 to {MAX_SERVER_NAME} characters")
    return f"{server_name}-{_hash(f'{owner}{chr(0)}{key}')[:10]}"


def ledger_name(allocator: str, owner: str) -> str:
    """Of the ConfigMap of an owner's ledger."""
    return f"{allocator}-ledger-{owner_hash(owner)}"


def total_name(allocator: str) -> str:
    """Of the ConfigMap of the total."""
    return f"{allocator}-total"


def digest(body: Any) -> str:
    """16 hexadecimal digits for a request; the same for the same values, in whatever order."""
    return _hash(json.dumps(body, sort_keys=True, separators=(",", ":"), default=str))[:16]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# As it is written


def parse(text: str | None) -> Ledger | None:
    """A ledger from its JSON; None where there is none. Raises Malformed, which names the field."""
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):  # the latter: brackets without end
        raise Malformed(KEY, text, "put the JSON right: it says who has which instances") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        found = document.get("version") if isinstance(document, dict) else document
        raise Malformed(f"{KEY}: version", found, f"this program knows version {VERSION}: update it")
    owner, entries = document.get("owner", ""), document.get("entries", {})
    if not isinstance(owner, str):
        raise Malformed(f"{KEY}: owner", owner, "give a name")
    if not isinstance(entries, dict):
        raise Malformed(f"{KEY}: entries", entries, "give a mapping from handles to entries")
    extra = {key: value for key, value in document.items() if key not in ("version", "owner", "entries")}
    return Ledger(owner, {name: _entry(name, value) for name, value in entries.items()}, extra)


def dump(ledger: Ledger) -> str:
    """The same bytes for the same ledger."""
    entries = {
        name: {
            **entry.extra,
            "key": entry.key,
            "digest": entry.digest,
            "state": entry.state,
            "uid": entry.uid,
            "since": entry.since,
        }
        for name, entry in ledger.entries.items()
    }
    document = {**ledger.extra, "version": VERSION, "owner": ledger.owner, "entries": entries}
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


def _entry(name: str, value: Any) -> Entry:
    where = f"{KEY}: entries.{name}"
    if not isinstance(value, dict):
        raise Malformed(where, value, "give key, digest, state and uid")
    texts = {key: value.get(key, "") for key in ("key", "digest", "state", "uid", "since")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise Malformed(f"{where}.{key}", text, "give a string")
    if texts["state"] not in STATES:
        raise Malformed(f"{where}.state", texts["state"], f"give one of {', '.join(STATES)}")
    return Entry(name, **texts, extra={key: of for key, of in value.items() if key not in texts})

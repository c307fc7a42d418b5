# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places in a ledger: reserved, held, closing, free again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import (
    CLOSING,
    HELD,
    RESERVED,
    Entry,
    Full,
    KeyBusy,
    KeyReused,
    Ledger,
    Replayed,
    Request,
    Reserved,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed


def request(number: int, digest: str = "d", owner: str = "ann") -> Request:
    return Request(owner, f"key-{number}", digest, f"kv-{number}", "2026-01-01T00:00:00Z")


def with_one() -> Ledger:
    return decisions.reserve(None, request(1), 1)[0]


def test_a_place_is_taken_before_anything_is_made() -> None:
    ledger, verdict = decisions.reserve(None, request(1), 1)
    assert verdict == Reserved(ledger.entries["kv-1"])
    assert ledger.owner == "ann" and ledger.entries["kv-1"].state == RESERVED


def test_no_more_than_there_are_places() -> None:
    ledger = with_one()
    assert decisions.reserve(ledger, request(2), 1) == (ledger, Full(1, 1))
    assert isinstance(decisions.reserve(ledger, request(2), 2)[1], Reserved)
    assert decisions.reserve(None, request(1), 0)[1] == Full(0, 0)


def test_the_same_request_finds_the_same_handle() -> None:
    ledger = with_one()
    for state in (RESERVED, HELD):
        there = Ledger("ann", {"kv-1": ledger.entries["kv-1"]._replace(state=state, uid="u" if state == HELD else "")})
        assert decisions.reserve(there, request(1), 1) == (there, Replayed(there.entries["kv-1"]))


def test_the_same_key_with_another_request_is_refused() -> None:
    ledger = with_one()
    assert decisions.reserve(ledger, request(1, "other"), 5) == (ledger, KeyReused(ledger.entries["kv-1"]))


def test_a_key_whose_instance_is_being_destroyed_is_refused() -> None:
    ledger = decisions.closing(decisions.confirm(with_one(), "kv-1", "u")[0], "kv-1", "u")
    assert ledger is not None and ledger.entries["kv-1"].state == CLOSING
    assert decisions.reserve(ledger, request(1), 5) == (ledger, KeyBusy(ledger.entries["kv-1"]))


def test_a_place_is_held_for_one_instance_only() -> None:
    held, is_held = decisions.confirm(with_one(), "kv-1", "u")
    assert is_held and held is not None and held.entries["kv-1"].uid == "u"
    assert decisions.confirm(held, "kv-1", "u") == (held, True), "twice is once"
    assert decisions.confirm(held, "kv-1", "another") == (held, False)
    assert decisions.is_held(held, "kv-1", "u") and not decisions.is_held(held, "kv-1", "another")


def test_who_is_in_no_ledger_is_not_held() -> None:
    assert decisions.confirm(None, "kv-1", "u") == (None, False)
    assert decisions.confirm(Ledger("ann"), "kv-1", "u") == (Ledger("ann"), False)
    assert not decisions.is_held(with_one(), "kv-1", "u"), "reserved is not held"


def test_a_reservation_that_was_given_up_is_taken_out_and_one_that_is_held_is_not() -> None:
    ledger = with_one()
    assert decisions.release(ledger, "kv-1") == Ledger("ann")
    held = decisions.confirm(ledger, "kv-1", "u")[0]
    assert decisions.release(held, "kv-1") is held
    assert decisions.release(held, "kv-1", "another") is held
    assert decisions.release(held, "kv-1", "u") == Ledger("ann")
    assert decisions.release(None, "kv-1", "u") is None


def test_who_wakes_late_is_held_by_nobody() -> None:
    """Its reservation was swept while it slept; what it makes then has no place."""
    swept = decisions.release(with_one(), "kv-1")
    assert decisions.confirm(swept, "kv-1", "late") == (swept, False)


def test_a_handle_is_the_same_for_the_same_and_a_dns_label() -> None:
    one = decisions.handle("syncbased", "system:serviceaccount:a:b", "key")
    assert one == decisions.handle("syncbased", "system:serviceaccount:a:b", "key")
    others = {
        decisions.handle("syncbased", "system:serviceaccount:a:c", "key"),
        decisions.handle("syncbased", "x", "k"),
    }
    assert one not in others and len(others) == 2
    assert len(decisions.handle("s" * 40, "o", "k")) <= 63
    with pytest.raises(Malformed, match="server-name"):
        decisions.handle("s" * 41, "o", "k")


def test_owner_and_key_can_not_be_shifted_against_each_other() -> None:
    assert decisions.handle("s", "ab", "c") != decisions.handle("s", "a", "bc")


def test_a_digest_does_not_depend_on_the_order() -> None:
    assert decisions.digest({"a": 1, "b": [1, 2]}) == decisions.digest({"b": [1, 2], "a": 1})
    assert decisions.digest({"a": 1}) != decisions.digest({"a": "1"})


TEXTS = some.text(max_size=8)
KNOWN = ("version", "owner", "entries", "key", "digest", "state", "uid", "since")
KEYS = TEXTS.filter(lambda key: key not in KNOWN)
EXTRA = some.dictionaries(KEYS, some.none() | some.integers() | TEXTS, max_size=2)
ENTRIES = some.builds(Entry, some.just(""), TEXTS, TEXTS, some.sampled_from(decisions.STATES), TEXTS, TEXTS, EXTRA)


def named(owner: str, entries: dict[str, Entry], extra: dict[str, object]) -> Ledger:
    return Ledger(owner, {name: each._replace(handle=name) for name, each in entries.items()}, extra)


LEDGERS = some.builds(named, TEXTS, some.dictionaries(TEXTS, ENTRIES, max_size=4), EXTRA)


@given(LEDGERS)
def test_what_is_written_is_read_again_with_what_we_do_not_know(ledger: Ledger) -> None:
    assert decisions.parse(decisions.dump(ledger)) == ledger


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "ledger.json"),
        ("[" * 100_000, "ledger.json"),
        ("[]", "ledger.json: version"),
        ('{"version": 2}', "ledger.json: version"),
        ('{"version": 1, "owner": 1}', "ledger.json: owner"),
        ('{"version": 1, "entries": []}', "ledger.json: entries"),
        ('{"version": 1, "entries": {"a": 1}}', "ledger.json: entries.a"),
        ('{"version": 1, "entries": {"a": {"state": "gone"}}}', "ledger.json: entries.a.state"),
        ('{"version": 1, "entries": {"a": {"state": "held", "uid": 5}}}', "ledger.json: entries.a.uid"),
    ],
)
def test_what_is_malformed_is_named(text: str, field: str) -> None:
    with pytest.raises(Malformed) as caught:
        decisions.parse(text)
    assert caught.value.field == field


WHAT = some.sampled_from(("reserve", "confirm", "close", "release", "sweep"))
STEPS = some.lists(some.tuples(WHAT, some.integers(0, 5), some.integers(0, 2)))


@given(STEPS, some.integers(0, 3))
def test_whatever_is_asked_there_are_never_more_than_the_limit_and_no_key_twice(
    steps: list[tuple[str, int, int]], limit: int
) -> None:
    ledger: Ledger | None = None
    for what, number, uid in steps:
        handle, name = f"kv-{number}", f"u{uid}"
        if what == "reserve":
            ledger, _verdict = decisions.reserve(ledger, request(number), limit)
        elif what == "confirm":
            before = ledger.entries.get(handle) if ledger else None
            ledger, is_held = decisions.confirm(ledger, handle, name)
            assert not is_held or before is not None
            assert is_held == decisions.is_held(ledger, handle, name) or (
                before is not None and before.state != RESERVED
            )
        elif what == "close":
            ledger = decisions.closing(ledger, handle, name)
        elif what == "release":
            ledger = decisions.release(ledger, handle, name)
        else:
            before = ledger.entries.get(handle) if ledger else None
            ledger = decisions.release(ledger, handle)
            assert before is None or before.state == RESERVED or (ledger is not None and handle in ledger.entries)
        entries = list(ledger.entries.values()) if ledger else []
        assert len(entries) <= limit
        assert len({entry.key for entry in entries}) == len(entries)

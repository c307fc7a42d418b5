# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A worker's store: what it told is there after a kill, and who follows it has exactly what it has."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FENCED,
    FOLLOWING,
    LOADING,
    PRIMARY,
    Copies,
    Copy,
    Outcome,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.dstk import store as store_module
from muster.dstk.store import Change, Load, Put, Replay, Store, StoreFailed, Trimmed, unchanged

ALL = Range("", "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path)
    yield made
    made.close()


def has(store: Store, *copies: Copy, clear: bool = True) -> None:
    store.call(Change(lambda _now: Outcome(copies, clear=tuple(copy.range for copy in copies) if clear else ())))


def serve(store: Store, name: str = "p", whole: Range = ALL, epoch: int = 1, **fields: Any) -> None:
    has(store, Copy(name, whole, PRIMARY, epoch, **fields))


def put(store: Store, key: str, value: bytes | None = b"x", name: str = "p", epoch: int = 1) -> int | None:
    done: int | None = store.call(Put(name, epoch, key, value, lambda: True))
    return done


def becomes(store: Store, name: str = "p", **fields: Any) -> None:
    store.call(Change(lambda now: Outcome((now[name]._replace(**fields),))))


def content(store: Store, name: str = "p") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    after: str | None = ""
    while after is not None:
        page = store.scan(name, after, "", "", 7, 1 << 20)
        found.update(page.entries)
        after = page.following
    return found


def follow(source: Store, target: Store, name: str = "p", *, epoch: int = 1) -> None:
    """Go on with the log to its end."""
    while True:
        copy = target.copies[name]
        log = source.log(name, copy.position, target.followed(name), 3, 1 << 20)
        assert target.call(Replay(copy, copy.position, log.entries, log.epoch))
        if target.copies[name].position == log.position:
            return


# ---------------------------------------------------------------------------------------------- writes


def test_what_was_written_is_read_and_listed(store: Store) -> None:
    serve(store)
    assert [put(store, key, key.encode()) for key in ("b", "a", "c")] == [1, 2, 3]
    assert store.get("p", "a") == (b"a", 3)
    assert put(store, "b", None) == 4
    assert put(store, "b", None) == 4  # it was gone already: nothing changed
    assert store.get("p", "b").value is None
    assert content(store) == {"a": b"a", "c": b"c"}
    assert store.scan("p", "", "b", "", 10, 1 << 20).entries == [("c", b"c")]
    assert store.scan("p", "", "", "b", 10, 1 << 20).entries == [("a", b"a")]
    held = store.held["p"]
    assert (held.keys, held.bytes, held.writes) == (2, 4, 4)


def test_a_page_of_a_listing_is_of_one_moment(store: Store) -> None:
    serve(store)
    for number in range(20):
        put(store, f"{number:02}")
    page = store.scan("p", "", "", "", 8, 1 << 20)
    assert [key for key, _value in page.entries] == [f"{number:02}" for number in range(8)] and page.following == "07"
    small = store.scan("p", "", "", "", 1000, 1)
    assert len(small.entries) == 1 and small.following == "00"
    assert store.scan("p", "19", "", "", 8, 1 << 20).following is None


@pytest.mark.parametrize("role", [LOADING, FOLLOWING, FENCED])
def test_nothing_is_written_to_what_is_not_served(store: Store, role: str) -> None:
    serve(store)
    becomes(store, role=role)
    assert put(store, "a") is None
    assert content(store) == {}


def test_nothing_is_written_at_another_epoch_or_place_or_without_leave(store: Store) -> None:
    serve(store, whole=Range("b", "d"), epoch=2)
    assert put(store, "c", epoch=1) is None and put(store, "c", epoch=3) is None
    assert put(store, "a", epoch=2) is None and put(store, "d", epoch=2) is None
    assert put(store, "c", name="q", epoch=2) is None
    assert store.call(Put("p", 2, "c", b"x", lambda: False)) is None
    assert content(store) == {}


def test_what_is_behind_a_fence_in_the_queue_finds_it_fenced(store: Store) -> None:
    """All of it is one transaction."""
    serve(store)
    entered, go_on = threading.Event(), threading.Event()

    def stalls() -> bool:
        entered.set()
        return go_on.wait(60)

    results: list[Any] = []
    all_done = threading.Event()
    store.submit(Put("p", 1, "first", b"x", stalls), results.append)
    assert entered.wait(60)
    before = store.groups
    store.submit(Put("p", 1, "a", b"x", lambda: True), results.append)
    fence = Change(lambda now: Outcome((now["p"]._replace(role=FENCED, fenced_epoch=2),)))
    store.submit(fence, results.append)
    store.submit(Put("p", 1, "b", b"x", lambda: True), lambda result: (results.append(result), all_done.set()))
    go_on.set()
    assert all_done.wait(60)
    assert results[0] == 1 and results[1] == 2 and results[2].write[0].position == 2 and results[3] is None
    assert store.copies["p"].position == 2
    assert store.groups <= before + 2


def test_a_change_that_refuses_or_fails_changes_nothing(store: Store) -> None:
    serve(store)
    refused = store.call(Change(lambda _now: Outcome((Copy("q", ALL, PRIMARY),), refusal="busy")))
    assert refused.refusal == "busy"
    assert store.call(Change(lambda _now: None)) is None

    def fails(_now: Copies) -> Outcome:
        raise Malformed("follower", "", "name one")

    with pytest.raises(Malformed, match="name one"):
        store.call(Change(fails))
    assert set(store.copies) == {"p"} and put(store, "a") == 1


def test_a_disk_that_refuses_is_told_and_nothing_of_it_is_there(store: Store) -> None:
    serve(store)
    put(store, "a")
    store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreFailed) as error:
        put(store, "b")
    assert error.value.is_known and not store.failure
    store._db.execute("PRAGMA query_only = 0")
    assert put(store, "b") == 2 and content(store) == {"a": b"x", "b": b"x"}


def test_a_commit_of_which_nobody_knows_ends_all_writing(store: Store) -> None:
    serve(store)
    real = store._db

    class Broken:
        in_transaction = True

        def execute(self, statement: str, *values: Any) -> Any:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(statement, *values)

    store._db = Broken()  # type: ignore[assignment]
    with pytest.raises(StoreFailed) as error:
        put(store, "a")
    assert not error.value.is_known and "disk I/O error" in store.failure
    store._db = real
    with pytest.raises(StoreFailed, match="disk I/O error"):
        put(store, "b")


# ---------------------------------------------------------------------------------------------- copies


def test_one_process_has_the_directory(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="no other worker uses"):
        Store(tmp_path)


def test_a_split_and_a_merge_keep_all_keys_and_no_log(store: Store) -> None:
    serve(store)
    for key in "aceg":
        put(store, key, key.encode())
    becomes(store, role=FENCED, fenced_epoch=2)
    position = store.copies["p"].position
    halves = [
        Copy("l", Range("", "d"), PRIMARY, 3, position=position),
        Copy("r", Range("d", ""), PRIMARY, 3, position=position),
    ]
    store.call(Change(lambda _now: Outcome(tuple(halves), remove=("p",))))
    assert content(store, "l") == {"a": b"a", "c": b"c"} and content(store, "r") == {"e": b"e", "g": b"g"}
    assert store.find("c") == halves[0] and store.find("d") == halves[1]
    assert [store.held[name].keys for name in "lr"] == [2, 2]
    assert put(store, "b", name="l", epoch=3) == position + 1
    with pytest.raises(Trimmed):
        store.log("l", 0, 0, 10, 1 << 20)
    whole = Copy("m", ALL, PRIMARY, 5, position=position + 1)
    store.call(Change(lambda _now: Outcome((whole,), remove=("l", "r"))))
    assert sorted(content(store, "m")) == list("abceg") and store.held["m"].keys == 5
    assert set(store.copies) == {"m"}


def test_what_no_copy_has_any_more_is_gone(store: Store) -> None:
    serve(store)
    for key in "aceg":
        put(store, key)
    left = Copy("l", Range("", "d"), PRIMARY, 3, position=4)
    store.call(Change(lambda _now: Outcome((left,), remove=("p",))))
    serve(store, "r", Range("d", ""))
    assert content(store, "r") == {} and sorted(content(store, "l")) == ["a", "c"]
    store.call(Change(lambda _now: Outcome(remove=("l",))))
    assert store.find("a") is None and store._db.execute("SELECT COUNT(*) FROM data").fetchone() == (0,)


def test_a_copy_that_begins_is_empty(store: Store) -> None:
    store._db.execute("INSERT INTO data VALUES ('a', 'left')")
    serve(store)
    assert content(store) == {} and store.held["p"].keys == 0


def test_a_verdict_counts_for_the_copy_that_was_read_only(store: Store) -> None:
    serve(store)
    before = store.copies["p"]
    put(store, "a")
    assert unchanged(store.copies, [before])
    becomes(store, role=FENCED)
    assert not unchanged(store.copies, [before]) and not unchanged({}, [before])


def test_it_is_all_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep("incarnation", "one")
    serve(store, followers=("f",), epoch=4)
    for number in range(300):
        put(store, f"{number:03}", b"x" * number, epoch=4)
    before, held, whole = store.copies["p"], store.held["p"], content(store)
    store.close()
    store = Store(tmp_path)
    again = store.held["p"]
    assert store.copies == {"p": before} and content(store) == whole and store.meta("incarnation") == "one"
    assert (again.keys, again.bytes, again.log_bytes, again.first) == (
        held.keys,
        held.bytes,
        held.log_bytes,
        held.first,
    )
    assert put(store, "a", epoch=4) == 301
    store.close()


# ---------------------------------------------------------------------------------------------- kills


CHILD = """
import sys
from pathlib import Path
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import Copy, Outcome, PRIMARY
from muster.dstk.store import Change, Put, Store

store = Store(Path(sys.argv[1]))
if not store.copies:
    store.call(Change(lambda now: Outcome((Copy("p0", Range("", ""), PRIMARY, 1),))))
number = int(sys.argv[2])
while True:
    copy = next(iter(store.copies.values()))
    number += 1
    key = f"{number % 200:03}"
    for each in range(4):  # several wait at a time
        put = Put(copy.partition, copy.epoch, key, f"{number}.{each}".encode(), lambda: True)
        store.submit(put, lambda done, word=f"{key} {number}.{each}\\n": done and sys.stdout.write(word))
    store.call(put)
    if number % 50 == 0:  # it is made anew under another name, with all that it has
        made = Copy(f"p{number}", copy.range, PRIMARY, copy.epoch + 1, position=store.copies[copy.partition].position)
        store.call(Change(lambda now: Outcome((made,), remove=(copy.partition,))))
    sys.stdout.flush()
"""


def test_killed_at_any_moment_it_has_all_that_it_told(tmp_path: Path) -> None:
    told: dict[str, str] = {}
    number = 0
    for turn in range(4):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), str(number)], stdout=subprocess.PIPE)
        assert child.stdout
        for count, line in enumerate(child.stdout):
            key, value = line.decode().split()
            told[key] = value
            if count == 400 + 137 * turn:
                child.send_signal(signal.SIGKILL)
        child.stdout.close()
        child.wait()
        store = Store(tmp_path)
        (name,) = store.copies
        found = content(store, name)
        for key, value in told.items():
            there, wanted = (tuple(map(int, text.split("."))) for text in (found[key].decode(), value))
            assert there >= wanted, "a write that was told is lost"
        assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        number = max(int(value.partition(".")[0]) for value in told.values()) + 1000
        store.close()


# ---------------------------------------------------------------------------------------------- who follows


KEYS = st.sampled_from([f"{number:02}" for number in range(12)])
WRITES = st.lists(st.tuples(KEYS, st.one_of(st.none(), st.binary(max_size=3))), max_size=12)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(before=WRITES, between=st.lists(WRITES, max_size=8), after=WRITES, page=st.integers(1, 5))
def test_a_fuzzy_snapshot_and_the_log_are_exact(
    before: list[Any], between: list[list[Any]], after: list[Any], page: int
) -> None:
    """Writes go on between its pages."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        source, target = Store(Path(one)), Store(Path(other))
        try:
            serve(source, whole=Range("02", "10"))
            write = [lambda each: put(source, *each)]
            for each in before:
                write[0](each)
            has(target, Copy("p", Range("02", "10"), LOADING, 1, origin="w", uid="u"))
            copy, began, following = target.copies["p"], -1, ""
            pages = iter(between)
            while following is not None:
                part = source.snapshot("p", following, page, 1 << 20)
                assert target.call(Load(copy, part.entries, is_first=began < 0))
                began, reached, following = (part.position if began < 0 else began), part.position, part.following
                for each in next(pages, ()):
                    write[0](each)
            log = source.log("p", began, part.epoch, 1000, 1 << 20)
            entries = [entry for entry in log.entries if entry.position <= reached]
            assert target.call(Replay(copy, began, entries, log.epoch, begins=True, role=FOLLOWING))
            assert target.copies["p"].role == FOLLOWING and target.copies["p"].position == reached
            for each in after:
                write[0](each)
            follow(source, target)
            assert target.copies["p"].position == source.copies["p"].position
            assert content(target) == content(source)
            assert (target.held["p"].keys, target.held["p"].bytes) == (source.held["p"].keys, source.held["p"].bytes)
            becomes(target, role=PRIMARY, epoch=3)
            assert put(target, "03", epoch=3) == source.copies["p"].position + 1
        finally:
            source.close()
            target.close()


def loaded(source: Store, target: Store) -> None:
    """Have the target follow from here on."""
    has(target, Copy("p", ALL, LOADING, 1, origin="w"))
    copy, page = target.copies["p"], source.snapshot("p", "", 1000, 1 << 20)
    assert page.following is None
    assert target.call(Load(copy, page.entries, is_first=True))
    assert target.call(Replay(copy, page.position, [], page.epoch, begins=True, role=FOLLOWING))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    source, target = Store(tmp_path / "one"), Store(tmp_path / "two")
    serve(source)
    put(source, "a")
    loaded(source, target)
    yield source, target
    source.close()
    target.close()


def test_a_page_or_a_part_of_the_log_that_comes_late_or_twice_changes_nothing(pair: tuple[Store, Store]) -> None:
    source, target = pair
    put(source, "a", b"new")
    copy = target.copies["p"]
    log = source.log("p", 1, 1, 10, 1 << 20)
    assert target.call(Replay(copy, 1, log.entries, 1))
    assert not target.call(Replay(copy, 1, log.entries, 1)), "twice"
    assert not target.call(Replay(copy, 7, log.entries, 1)), "with a gap"
    assert not target.call(Load(copy, [("z", b"z")])), "it has loaded"
    becomes(target, role=PRIMARY, epoch=3)
    assert not target.call(Replay(copy, 2, [], 1)), "it is served"
    assert content(target) == {"a": b"new"}


def test_entries_that_do_not_follow_one_another_are_not_taken(pair: tuple[Store, Store]) -> None:
    source, target = pair
    for key in "bcd":
        put(source, key)
    copy, entries = target.copies["p"], source.log("p", 1, 1, 10, 1 << 20).entries
    assert not target.call(Replay(copy, 1, [entries[0], entries[2]], 1))
    assert not target.call(Replay(copy, 1, entries[1:], 1))
    assert target.copies["p"].position == 1 and content(target) == {"a": b"x"}


def test_a_follower_goes_on_under_the_next_epoch_of_the_same_log(pair: tuple[Store, Store]) -> None:
    source, target = pair
    put(source, "b")
    becomes(source, epoch=3)
    put(source, "c", epoch=3)
    follow(source, target)
    assert target.followed("p") == 3 and content(target) == content(source)


def test_a_follower_of_what_never_was_loads_anew(pair: tuple[Store, Store], tmp_path: Path) -> None:
    """The primary was lost with changes that one follower has, and the one that is called up has not."""
    source, ahead = pair
    behind = Store(tmp_path / "three")
    loaded(source, behind)
    for key in "bcd":
        put(source, key)
    follow(source, ahead)
    becomes(behind, role=PRIMARY, epoch=3)
    assert behind.copies["p"].position == 1
    with pytest.raises(Trimmed):
        follow(behind, ahead)  # it is further than the log is
    for key in "efgh":
        put(behind, key, epoch=3)
    with pytest.raises(Trimmed, match="epoch 3"):
        follow(behind, ahead)  # the log is as far, by other changes
    behind.close()


def test_the_log_is_kept_for_who_follows_and_trimmed_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "IDLE_LOG", (10, 1 << 20))
    floors: dict[str, int | None] = {"p": 5}
    store = Store(tmp_path, floor=floors.get)
    serve(store)

    def writes(count: int) -> None:
        for number in range(count):
            put(store, f"{number:03}", b"x" * 10)

    def logged() -> int:
        rows: tuple[int, int] = store._db.execute("SELECT COUNT(*), SUM(LENGTH(value)) FROM log").fetchone()
        assert store.held["p"].log_bytes == rows[1]
        return rows[0]

    writes(500)
    assert len(store.log("p", 5, 1, 1000, 1 << 20).entries) == 495
    floors["p"] = 450
    writes(64)
    assert len(store.log("p", 450, 1, 1000, 1 << 20).entries) == 114 and logged() < 200
    floors["p"] = None
    writes(64)
    assert 1 <= logged() <= 10 + 64
    with pytest.raises(Trimmed):
        store.log("p", 450, 1, 1000, 1 << 20)
    monkeypatch.setattr(store_module, "LONGEST_LOG", (1000, 2000))
    floors["p"] = 0
    writes(640)
    assert logged() * 10 < 2000 + 64 * 10  # who follows too slowly loads anew
    store.close()


def test_a_reader_never_sees_half_of_a_transaction(store: Store) -> None:
    serve(store)
    is_over = threading.Event()

    def writes() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            for key in "ab":
                store.submit(Put("p", 1, key, str(number).encode(), lambda: True), lambda _done: None)
            put(store, "c", str(number).encode())

    writer = threading.Thread(target=writes)
    writer.start()
    for _turn in range(300):
        page = store.scan("p", "", "", "", 10, 1 << 20)
        values = [int(value) for _key, value in page.entries]
        assert values == sorted(values, reverse=True)
    is_over.set()
    writer.join()


def test_results_come_after_what_they_touched_was_told(tmp_path: Path) -> None:
    happened: list[Any] = []

    def deliver(call: Callable[[], None]) -> None:
        happened.append("begin")
        call()

    store = Store(tmp_path, deliver=deliver, committed=lambda names: happened.append(tuple(names)))
    serve(store)
    happened.clear()
    done = threading.Event()
    store.submit(Put("p", 1, "a", b"x", lambda: True), lambda result: (happened.append(result), done.set()))
    assert done.wait(60)
    assert happened == ["begin", ("p",), 1]
    store.close()
    assert os.listdir(tmp_path)

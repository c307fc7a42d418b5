# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judges of a Swarm's lab see what they are there for, and only that; its workers do what is said of them."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.tests.support import planted_swarms, swarm_journal
from ansible_collections.muster.coordination.tests.support.swarm_lab import Chronicle
from ansible_collections.muster.coordination.tests.support.swarm_pods import (
    PART_OF,
    Document,
    Entry,
    Record,
    Temper,
    Worker,
    newest,
    read,
)

ALL = "abcdefgh"


class Book:
    """A chronicle, and what is written into the ConfigMaps of the head `main`."""

    _books = itertools.count()

    def __init__(self) -> None:
        self.chronicle = Chronicle()
        self._uid = f"book-{next(self._books)}"
        self._revisions = itertools.count(1)

    def put(self, name: str = "main", **workers: tuple[int, str]) -> None:
        """Each worker's version, and its jobs as letters."""
        workloads = {worker: {"jobs": list(jobs), "version": version} for worker, (version, jobs) in workers.items()}
        self.text(yaml.safe_dump({"workloads": workloads}), name)

    def text(self, text: str, name: str = "main", handover: str = "{}") -> None:
        self.chronicle.put(self._obj(name, {"config.yml": text, "handover.json": handover}))

    def delete(self, name: str = "main") -> None:
        self.chronicle.removed(self._obj(name, {}))

    def _obj(self, name: str, data: Mapping[str, str]) -> dict[str, Any]:
        revision = str(next(self._revisions))
        metadata = {
            "name": name,
            "uid": f"{self._uid}/{name}",
            "resourceVersion": revision,
            "labels": {PART_OF: "main"},
        }
        return {"metadata": metadata, "data": dict(data)}

    @property
    def wrong(self) -> list[str]:
        return self.chronicle.wrong


# ------------------------------------------------------------------------------------------ W2


def test_a_hand_over_by_the_rules_is_right() -> None:
    book = Book()
    book.put(w0=(0, "abc"), w1=(0, "d"))
    book.put(w0=(1, "ab"), w1=(0, "d"))
    book.put(w0=(1, "ab"), w1=(1, "cd"))
    book.put(w0=(1, "ab"), w1=(1, "cd"), w2=(2, ""))
    assert book.wrong == []


@pytest.mark.parametrize(
    ("after", "words"),
    [
        ({"w0": (1, "ab"), "w1": (1, "ab")}, "shows a to w0 and w1"),
        ({"w0": (1, "abc"), "w1": (0, "d")}, "with the list of 0"),
        ({"w0": (0, "ab"), "w1": (0, "d")}, "gives w0 version 0 after"),
    ],
    ids=["to two", "a version for the same list", "the same version for another list"],
)
def test_what_is_not_by_the_rules_is_seen(after: dict[str, tuple[int, str]], words: str) -> None:
    book = Book()
    book.put(w0=(0, "abc"), w1=(0, "d"))
    book.put(**after)
    assert [wrong for wrong in book.wrong if words in wrong]


def test_a_worker_that_was_removed_gets_no_version_again() -> None:
    book = Book()
    book.put(w0=(3, "a"), w1=(0, "b"))
    book.put(w1=(0, "b"))
    book.put(w1=(0, "b"), w0=(4, "a"))
    assert book.wrong == [], "the same list, but it was gone in between"
    book.put(w1=(0, "b"))
    book.put(w1=(0, "b"), w0=(2, "a"))
    assert ["version 2 after" in wrong for wrong in book.wrong] == [True]


def test_what_was_deleted_begins_anew_but_for_its_versions() -> None:
    book = Book()
    book.put(w0=(3, "a"))
    book.delete()
    book.put(w0=(9, "a"))
    assert book.wrong == []
    book.delete()
    book.put(w0=(8, "a"))
    assert len(book.wrong) == 1


def test_an_older_entry_in_another_part_does_not_count() -> None:
    book = Book()
    book.put(w0=(0, "ab"), w1=(0, "c"))
    book.put("main-1", w0=(1, "a"))
    book.put("main", w1=(1, "bc"))
    assert book.wrong == []
    assert {name: entry.version for name, entry in book.chronicle.entries("main").items()} == {"w0": 1, "w1": 1}


def test_what_nobody_can_read_changes_nothing() -> None:
    book = Book()
    book.put(w0=(0, "a"))
    book.text("workloads: [")
    book.text("workloads: {w0: [a]}")
    book.put(w0=(1, "ab"))
    assert book.wrong == [] and book.chronicle.count == 2


def test_since_when_each_pod_has_read_a_version_is_known() -> None:
    book = Book()
    text = yaml.safe_dump({"workloads": {"w0": {"jobs": ["a"], "version": 4}}})
    book.text(text)
    book.text(text, handover=json.dumps({"workers": {"w0": {"barrier": ["u", 4]}, "w1": {}}}))
    book.text(text, handover=json.dumps({"workers": {"w0": {"barrier": ["u", 4]}}}))
    assert book.chronicle.barriers == {("main", "w0"): (4, 2)}


# ------------------------------------------------------------------------------------------ workers


def entry(version: int, jobs: str) -> Entry:
    return Entry(version, frozenset(jobs))


def test_a_worker_tells_a_version_when_all_else_has_ended() -> None:
    record, slow, told = Record(), threading.Event(), []

    def ends(most: float) -> float:
        told.append((worker.version, sorted(record.running()["w0"])))
        return 0.0

    worker = Worker("w0", "u", record, ends, Temper())
    worker.take(entry(1, "ab"))
    assert (worker.version, record.running()) == (1, {"w0": {"a", "b"}})
    worker.take(entry(2, "bc"))
    assert told == [(1, ["a", "b", "c"])], "what is new begins at once, what is gone has not ended yet"
    assert (worker.version, record.running()) == (2, {"w0": {"b", "c"}})
    worker.take(entry(1, "ab"))
    assert worker.version == 2, "an older one is never taken"
    worker.take(None)
    assert (worker.version, record.running()) == (None, {})
    assert not slow.is_set()


def test_who_was_killed_runs_nothing_more() -> None:
    record = Record()
    worker = Worker("w0", "u", record, lambda most: most, Temper(end=0.0))
    worker.take(entry(1, "ab"))
    worker.kill()
    worker.take(entry(2, "c"))
    assert record.running() == {}


def test_two_processes_with_one_job_are_seen_in_their_journals() -> None:
    record = Record()
    one, other = (Worker(name, name, record, lambda most: 0.0, Temper()) for name in ("w0", "w1"))
    one.take(entry(1, "a"))
    one.take(entry(2, ""))
    other.take(entry(1, "a"))
    assert list(swarm_journal.overlaps(swarm_journal.intervals(record.lines()))) == []
    one.take(entry(3, "a"))
    (overlap,) = swarm_journal.overlaps(swarm_journal.intervals(record.lines()))
    assert (overlap.job, overlap.first.worker, overlap.second.worker) == ("a", "w1", "w0")
    assert record.runners() == {"a": ["w0", "w1"]}


def test_of_several_entries_the_newest_counts() -> None:
    one, other = Document(1, {"w0": entry(1, "a")}), Document(2, {"w0": entry(2, "b"), "w1": entry(0, "c")})
    assert newest({"x": one, "y": other, "z": Document(3, None)}, "w0") == entry(2, "b")
    assert newest({"x": one}, "w1") is None


def test_it_reads_what_stands_in_a_configmap() -> None:
    obj = {"metadata": {"uid": "read", "resourceVersion": "7"}, "data": {"config.yml": "workloads: {}"}}
    assert read(obj) == Document(7, {})
    assert read({"metadata": {"uid": "read", "resourceVersion": "8"}}) == Document(8, {})
    obj = {"metadata": {"uid": "read", "resourceVersion": "9"}, "data": {"config.yml": "workloads: {w: {jobs: 1}}"}}
    assert read(obj).entries is None


def test_for_each_property_a_bug_can_be_planted() -> None:
    assert {bug.breaks for bug in planted_swarms.BUGS.values()} == {"W1", "W2", "W3", "W4"}

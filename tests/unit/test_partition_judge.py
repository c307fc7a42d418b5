# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The judge of every revision of Partitions and Assignments: a good history passes, and each bad one is told."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.tests.support.linearizability import GET, check
from ansible_collections.muster.coordination.tests.support.partition_judge import Event, Judge
from ansible_collections.muster.coordination.tests.support.partition_load import Load, longest_gap
from bench import partition_storm_report as report
from muster.dstk.client import NoSuchKey, Unknown, Unserved

Object = dict[str, Any]


def partition(revision: int, name: str, start: str, end: str, epoch: int, uid: str = "") -> Event:
    spec = {"range": {"start": start, "end": end}, "primary": "w-0", "epoch": epoch}
    return Event(revision, "Partition", name, {"metadata": {"name": name, "uid": uid or name}, "spec": spec})


def gone(revision: int, name: str) -> Event:
    return Event(revision, "Partition", name, None)


def split(revision: int, phase: str, *halves: Event) -> Event:
    status: Object = {"phase": phase}
    if phase in ("Committed", "Completed"):
        listed = [{"partition": half.name, **half.obj["spec"]} for half in halves if half.obj]
        status |= {"results": listed, "supersedes": ["p"]}
    spec = {"type": "InWorkerSplit"}
    return Event(revision, "Assignment", "a", {"metadata": {"name": "a", "uid": "a"}, "spec": spec, "status": status})


def good() -> list[Event]:
    one, two = partition(5, "p-1", "", "m", 6), partition(6, "p-2", "m", "", 6)
    return [
        partition(1, "p", "", "", 4),
        split(2, "Pending"),
        partition(3, "p", "", "", 5),
        split(4, "Committed", one, two),
        *(one, two, gone(7, "p")),
        split(8, "Completed", one, two),
    ]


def judged(events: list[Event]) -> Judge:
    judge = Judge(["aaaa", "zzzz"], since=1)
    judge.see(events)
    return judge


def test_a_good_history_passes() -> None:
    judge = judged(good())
    assert judge.violations == []
    assert judge.revisions == 8
    assert judge.operations == {"a": ("InWorkerSplit", "Completed")}


def test_what_a_list_shows_may_have_been_so_before() -> None:
    end = split(9, "Completed")._replace(name="b", listed=True)
    assert judged([*good(), end]).violations == []
    assert judged([*good(), end._replace(listed=False)]).violations


@pytest.mark.parametrize(
    ("found", "change"),
    [
        ("P1: a gap: [m, -)", lambda events: events.insert(7, gone(7, "p-2"))),
        ("P1: a gap", lambda events: events.insert(1, gone(2, "p"))),
        ("P2: p-1 is hidden", lambda events: events.insert(8, partition(9, "q", "", "m", 7))),
        ("P4: the epoch of p has gone back", lambda events: events.insert(3, partition(4, "p", "", "", 4))),
        ("P4: the epoch of aaaa in the view", lambda events: events.__setitem__(0, partition(1, "p", "", "", 9))),
        ("P8: the range of p has changed", lambda events: events.insert(3, partition(4, "p", "", "x", 5))),
        ("P9: a went from Completed to Pending", lambda events: events.append(split(9, "Pending"))),
        ("P9: a went from Pending to Completed", lambda events: events.pop(3)),
    ],
)
def test_a_bad_one_is_told(found: str, change: Any) -> None:
    events = good()
    change(events)
    assert any(found in violation for violation in judged(events).violations), judged(events).violations


class Register:
    """A client of a register in memory, which goes wrong by turns."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.calls = 0

    def _turn(self) -> None:
        self.calls += 1
        if self.calls % 7 == 0:
            raise Unserved("not now")

    def get(self, key: str) -> bytes:
        self._turn()
        if key not in self.values:
            raise NoSuchKey(key)
        return self.values[key]

    def put(self, key: str, value: bytes) -> None:
        self._turn()
        self.values[key] = value
        if self.calls % 5 == 0:
            raise Unknown("the answer was lost")

    def delete(self, key: str) -> None:
        self._turn()
        self.values.pop(key, None)

    def scan(self, start: str = "", end: str = "") -> Any:
        self._turn()
        yield from sorted((key, value) for key, value in self.values.items() if start <= key < end)


def loaded(client: Any) -> Load:
    load = Load([client], ["aaaa", "bbbb", "cccc"], 3)
    load.start()
    while sum(load.counts.values()) < 300:
        assert not load.failures
    load.stop()
    return load


def test_the_load_records_what_its_clients_saw() -> None:
    client = Register()
    load = loaded(client)
    ops = load.ops()
    assert check(ops) == []
    assert {"put ok", "put unknown", "put unserved", "get ok", "delete ok", "scan ok"} <= set(load.counts)
    assert len([op for op in ops if op.returned is None]) == load.counts["put unknown"] + load.counts["delete unknown"]
    assert len(load.acknowledged) == load.counts["put ok"] + load.counts["delete ok"]
    values = [op.value for op in ops if op.kind == "put"]
    assert len(set(values)) == len(values)


def test_a_client_that_reads_what_was_overwritten_is_found() -> None:
    class Forgetful(Register):
        def put(self, key: str, value: bytes) -> None:
            self.calls += 1
            if self.calls % 10:
                self.values[key] = value

    ops = loaded(Forgetful()).ops()
    assert any(op.kind == GET for op in ops)
    assert check(ops)


def test_the_longest_gap_counts_from_the_bounds() -> None:
    second = 10**9
    assert longest_gap([], 0, 3 * second) == 3
    assert longest_gap([1 * second, 5 * second, 6 * second], 0, 7 * second) == 4
    assert longest_gap([-5 * second, 9 * second], 0, 2 * second) == 2


def test_the_report_says_what_was_seen(tmp_path: Any) -> None:
    times = {"p50": 1.0, "p90": 1.5, "p99": 2.0, "max": 2.0}
    found = {
        "seed": 7,
        "followers": 1,
        "seconds": 60.0,
        "calm_seconds": 1.0,
        "operations": {"InWorkerSplit Completed": 3, "InWorkerSplit Aborted": 1},
        "completed": 3,
        "operation_seconds": {"InWorkerSplit": times},
        "clients": {"put ok": 10, "put unknown": 1},
        "longest_seconds": 2.5,
        "ops_judged": 11,
        "revisions": 40,
        "faults": {"worker killed": 2},
        "violations": [],
    }
    machine = {
        "at": "2026-01-31",
        "commit": "abc",
        "cores": 2,
        "cpu": "x",
        "memory_gib": 4,
        "system": "y",
        "kernel": "z",
        "python": "3.11",
        "load_1_min": 1.0,
    }
    run = {"machine": machine, "rounds": [found]}
    assert not report.failed(run)
    assert report.failed({**run, "rounds": []})
    page = report.write(tmp_path, [run]).read_text()
    assert (
        "**3 splits, merges and moves in 1 minutes of kills and freezes, 11 operations of clients judged, 0 viol"
        in page
    )
    assert "| InWorkerSplit | 3 | 1 | 0 | 1.0 s / 2.0 s |" in page
    assert report.read(tmp_path) == [run]
    bad = {**run, "rounds": [{**found, "violations": ["P5: lost"]}]}
    assert report.failed(bad)
    assert "VIOLATION, seed 7: P5: lost" in report.write(tmp_path, [run, bad]).read_text()

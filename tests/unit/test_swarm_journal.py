# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal of a worker, and its judge: what is written, and that a bad journal is found to be bad."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support import swarm_journal
from ansible_collections.muster.coordination.tests.support.swarm_journal import (
    Gap,
    Interval,
    Line,
    Unreadable,
    intervals,
    judge,
    overlaps,
    owners,
    unowned,
    workers,
)
from muster.swarm.journal import Journal

NEVER = 3600.0  # seconds between two beats, in a test that has its own


def line(at: int, event: str, job: str = "a", worker: str = "w-0", run: str = "r", uid: str = "u") -> Line:
    return Line(at, worker, uid, run, job, event)


def ran(begin: int, end: int, worker: str = "w-0", run: str = "r", *, is_ended: bool = True) -> Interval:
    return Interval(begin, end, worker, "u", run, is_ended)


def write(path: Path, told: Iterable[Line]) -> Path:
    path.write_text("".join(json.dumps(each._asdict()) + "\n" for each in told))
    return path


# ------------------------------------------------------------------------------------------ what is written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path, "w-0", "u", beat=NEVER)
    yield journal
    journal.close()


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text().splitlines()]


def test_a_line_for_each_event_in_order(path: Path, journal: Journal) -> None:
    for job in ("a", 'quoted "b"\n'):
        journal.begin(job)
    journal.beat()
    journal.end("a")
    journal.beat()
    found = read(path)
    told = [(each["job"], each["event"]) for each in found]
    assert told[:4] == [("a", "begin"), ('quoted "b"\n', "begin"), ("a", "beat"), ('quoted "b"\n', "beat")]
    assert told[4:] == [("a", "end"), ('quoted "b"\n', "beat")]
    assert [each["at"] for each in found] == sorted(each["at"] for each in found)
    assert {(each["worker"], each["uid"], each["run"]) for each in found} == {("w-0", "u", journal.run)}


def test_it_beats_by_itself_and_nothing_follows_an_end(path: Path) -> None:
    journal = Journal(path, "w-0", "u", beat=0.001)
    jobs = [f"job-{number}" for number in range(50)]
    for job in jobs:
        journal.begin(job)
    beats = threading.Event()
    while not beats.wait(0.01):
        if path.read_text().count('"beat"') > 100:
            beats.set()
    for job in jobs:
        journal.end(job)
    journal.close()
    last = {each["job"]: each["event"] for each in read(path)}
    assert last == dict.fromkeys(jobs, "end")


def test_a_job_that_ends_while_others_beat_does_not_beat(path: Path, journal: Journal) -> None:
    lock = journal._lock

    class EndsFirst:
        """In place of the lock, when it is taken first: somebody else is faster."""

        def __enter__(self) -> None:
            journal._lock = lock
            journal.end("a")
            lock.acquire()

        def __exit__(self, *_what: object) -> None:
            lock.release()

    for job in "ab":
        journal.begin(job)
    journal._lock = EndsFirst()  # type: ignore[assignment]
    journal.beat()
    assert [(each["job"], each["event"]) for each in read(path)[2:]] == [("a", "end"), ("b", "beat")]


def test_two_runs_append_to_one_file(path: Path, journal: Journal) -> None:
    journal.begin("a")
    second = Journal(path, "w-0", "u", beat=NEVER)
    second.begin("a")
    second.close()
    assert {each["run"] for each in read(path)} == {journal.run, second.run}


def test_a_line_that_was_torn_is_ended_first(path: Path) -> None:
    path.write_text('{"at": 1, "wor')
    journal = Journal(path, "w-0", "u", beat=NEVER)
    journal.begin("a")
    journal.close()
    torn, whole = swarm_journal.lines(path)
    assert torn == Unreadable(f"{path}:1", '{"at": 1, "wor')
    assert isinstance(whole, Line) and whole.event == "begin"


def test_a_full_disk_is_said_once_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    journal = Journal(Path("/dev/full"), "w-0", "u", beat=NEVER)
    with caplog.at_level("ERROR", "muster"):
        journal.begin("a")
        journal.end("a")
    journal.close()
    assert [record.getMessage() for record in caplog.records] == ["the journal can't be written"]


def test_where_it_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match=r"--journal is '.*/none/journal': name a file .*No such file"):
        Journal(tmp_path / "none/journal", "w-0", "u")


def test_without_a_path_nothing_is_written() -> None:
    journal = Journal(None, "w-0", "u")
    journal.begin("a")
    journal.beat()
    journal.end("a")
    journal.close()


# ------------------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([line(1, "begin"), line(5, "beat"), line(9, "end")], [ran(1, 9)]),
        ([line(1, "begin"), line(5, "beat")], [ran(1, 5, is_ended=False)]),  # killed: its last beat
        ([line(1, "begin")], [ran(1, 1, is_ended=False)]),  # or its begin
        ([line(1, "begin"), line(5, "beat"), line(500, "beat"), line(501, "end")], [ran(1, 501)]),  # it was stopped
        ([line(1, "begin"), line(4, "end"), line(6, "begin"), line(7, "end")], [ran(1, 4), ran(6, 7)]),
        (
            [line(1, "begin"), line(3, "beat"), line(6, "begin", run="s"), line(7, "end", run="s")],
            [ran(1, 3, is_ended=False), ran(6, 7, run="s")],
        ),
    ],
)
def test_intervals(told: list[Line], expected: list[Interval]) -> None:
    assert intervals(told) == {"a": expected}


# ------------------------------------------------------------------------------------------ overlaps

GOOD = {
    "one after the other": [ran(1, 5), ran(6, 9, "w-1", "s")],
    "in the same instant": [ran(1, 5), ran(5, 9, "w-1", "s")],
    "killed, and started again": [ran(1, 5, is_ended=False), ran(6, 9, run="s")],
    "the same worker again and again": [ran(1, 2), ran(3, 4), ran(5, 6)],
}
BAD = {
    "two workers": [ran(1, 5), ran(4, 9, "w-1", "s")],
    "one within the other": [ran(1, 9), ran(3, 4, "w-1", "s")],
    "the same moment": [ran(1, 9), ran(1, 9, "w-1", "s")],
    "two runs of one worker": [ran(1, 5), ran(4, 9, run="s")],
    "killed at once": [ran(1, 9), ran(5, 5, "w-1", "s", is_ended=False)],
    "far apart in the list": [ran(1, 100), ran(2, 3, run="s"), ran(50, 60, "w-1", "t")],
}


@pytest.mark.parametrize("found", GOOD.values(), ids=GOOD)
def test_a_good_journal_is_good(found: list[Interval]) -> None:
    assert list(overlaps({"a": found})) == []


@pytest.mark.parametrize("found", BAD.values(), ids=BAD)
def test_a_bad_journal_is_bad(found: list[Interval]) -> None:
    assert list(overlaps({"a": found}))


def test_an_overlap_names_both_and_its_time() -> None:
    (found,) = overlaps({"a": [ran(1, 5), ran(3, 9, "w-1", "s")], "b": [ran(1, 9, "w-2")]})
    assert (found.job, found.begin, found.end) == ("a", 3, 5)
    assert (found.first.worker, found.second.worker) == ("w-0", "w-1")


SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 6), st.sampled_from("rst")), max_size=8)


@given(SPANS)
def test_it_finds_each_pair_that_has_time_in_common(spans: list[tuple[int, int, str]]) -> None:
    """The oracle compares each with each, in time that is cut into halves; an instant shares none with another one."""
    had = sorted(ran(begin, begin + length, "w", run) for begin, length, run in spans)
    halves = [set(range(2 * each.begin + 1, 2 * each.end)) or {2 * each.begin} for each in had]
    pairs = [
        (one, two)
        for two in range(len(had))
        for one in range(two)
        if halves[one] & halves[two] and (had[one].begin < had[one].end or had[two].begin < had[two].end)
    ]
    found = [(each.first, each.second) for each in overlaps({"a": had})]
    assert sorted(found) == sorted((had[one], had[two]) for one, two in pairs)


# ------------------------------------------------------------------------------------------ who had what, and when


def test_who_had_it_at_a_moment() -> None:
    found = {"a": [ran(1, 5), ran(7, 9, "w-1")], "b": [ran(1, 9, "w-2")]}
    assert owners(found, 3) == {"a": ["w-0"], "b": ["w-2"]}
    assert owners(found, 6) == {"b": ["w-2"]}
    assert owners(found, 10) == {}


@pytest.mark.parametrize(
    ("since", "until", "grace", "expected"),
    [
        (1, 9, 0, [("a", 5, 7), ("never", 1, 9)]),
        (0, 20, 0, [("a", 0, 1), ("a", 5, 7), ("a", 9, 20), ("never", 0, 20)]),
        (0, 20, 2, [("a", 9, 20), ("never", 0, 20)]),
        (6, 6, 0, [("a", 6, 6), ("never", 6, 6)]),
        (8, 8, 0, [("never", 8, 8)]),
        (2, 4, 0, [("never", 2, 4)]),
    ],
)
def test_where_nobody_had_it(since: int, until: int, grace: int, expected: list[tuple[str, int, int]]) -> None:
    found = {"a": [ran(1, 5), ran(2, 3, "w-2"), ran(7, 9, "w-1")]}
    assert unowned(found, ["never", "a"], since, until, grace) == [Gap(*gap) for gap in expected]


def test_restarts() -> None:
    told = [
        *(line(1, "begin", job) for job in "ab"),
        line(2, "end"),
        line(3, "begin"),  # the job's own restart
        line(9, "begin", run="s"),  # the process was started again
        line(20, "begin", run="t", uid="v"),  # and here the Pod
        line(1, "begin", "c", "w-1"),
    ]
    found = workers(intervals(told))
    assert found == {
        "w-0": {"pods": 2, "restarts": 2, "jobs": 2, "job_restarts": 1},
        "w-1": {"pods": 1, "restarts": 0, "jobs": 1, "job_restarts": 0},
    }


# ------------------------------------------------------------------------------------------ as a program

SCRIPT = Path(swarm_journal.__file__)
ONE = [line(1_000, "begin"), line(2_000_001_000, "end")]
OTHER = [line(1_000_001_000, "begin", worker="w-1"), line(3_000_001_000, "end", worker="w-1")]


def run(*arguments: object) -> tuple[int, Any]:
    """Without our environment: a bare Python has to be enough."""
    command = [sys.executable, "-I", "-S", str(SCRIPT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def test_it_reads_directories_and_fails_by_an_overlap(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "w-0", ONE)
    status, report = run(tmp_path)
    assert (status, report["overlaps"], report["lines"], report["jobs"]) == (0, 0, 2, 1)

    write(tmp_path / "deep/w-1", OTHER)
    status, report = run(tmp_path)
    assert (status, report["files"], report["overlaps"]) == (1, 2, 1)
    (found,) = report["overlapping"]
    assert (found["job"], found["seconds"]) == ("a", 1.0)
    assert (found["first"]["worker"], found["second"]["worker"]) == ("w-0", "w-1")
    assert report["workers"]["w-1"]["restarts"] == 0


def test_it_tells_what_ran_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "w-0", ONE)
    (tmp_path / "jobs").write_text("a\nb\n")
    status, report = run(tmp_path / "w-0", "--jobs", tmp_path / "jobs", "--grace", "0.5")
    assert (status, report["gaps"], report["longest_gap_seconds"]) == (0, 1, 2.0)
    assert report["unowned"] == [{"job": "b", "begin": 1_000, "end": 2_000_001_000, "seconds": 2.0}]
    _status, report = run(tmp_path / "w-0", "--jobs", tmp_path / "jobs", "--since", 500, "--until", 500)
    assert [gap["job"] for gap in report["unowned"]] == ["a", "b"]


def test_nothing_to_judge_is_no_success(tmp_path: Path) -> None:
    assert run(tmp_path)[0] == 2
    status, said = run(tmp_path / "none")
    assert status == 2 and "there is no" in said


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "7",
        '{"at": 1}',
        json.dumps(line(1, "begun")._asdict()),
        json.dumps({**line(1, "begin")._asdict(), "at": "1"}),
        json.dumps({**line(1, "begin")._asdict(), "at": True}),
        json.dumps({**line(1, "begin")._asdict(), "job": None}),
    ],
)
def test_what_can_not_be_read_is_counted_and_shown(path: Path, text: str) -> None:
    path.write_text(f"{text}\n\n{json.dumps(line(1, 'begin')._asdict())}\n")
    report = judge([path])
    assert (report["lines"], report["unreadable"]) == (1, 1)
    assert report["unreadable_lines"] == [{"where": f"{path}:1", "text": text}]


def test_what_the_journal_writes_the_judge_reads(path: Path, journal: Journal) -> None:
    journal.begin("a")
    journal.beat()
    journal.end("a")
    report = judge([path])
    assert (report["lines"], report["unreadable"], report["overlaps"], report["intervals"]) == (3, 0, 0, 1)
    second = Journal(path, "w-1", "u", beat=NEVER)
    journal.begin("a")
    second.begin("a")
    journal.end("a")
    second.end("a")
    second.close()
    assert judge([path])["overlaps"] == 1

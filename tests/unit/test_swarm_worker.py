# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference worker of a Swarm: what it begins and ends, what it says and when, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    ApiError,
    Put,
    Recovered,
    Removed,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Entry
from muster import cli
from muster.swarm.journal import Journal
from muster.swarm.worker import Duty, State, Step, plan
from muster.swarm.worker_jobs import RESTART, Jobs
from muster.swarm.worker_process import Metrics, Settings, Signalled, Worker
from muster.swarm.worker_runners import Commands, Ended, Failed, Gone, Lost, Nothing, parse_command
from muster.swarm.worker_sources import ConfigMaps, Document, Files, Outcome, Reading, combine, parse

DOCUMENT = Path(__file__).parents[2] / "docs/swarm-worker.md"
PATIENCE = 30.0  # seconds: a deadline for what should take far less


def until(true: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


def known(jobs: str, version: int) -> Reading:
    return Reading(Outcome.KNOWN, Entry(tuple(jobs), version))


NO_ENTRY = Reading(Outcome.KNOWN)
AWAY = Reading(Outcome.AWAY, None, "the API server can't be reached")
MISSING = Reading(Outcome.MISSING, None, "there is no ConfigMap")
MALFORMED = Reading(Outcome.MALFORMED, None, "config.yml is wrong")


# ------------------------------------------------------------------------------------------ the plan


@pytest.mark.parametrize(
    ("wanted", "held", "expected"),
    [
        ("", {}, Step()),
        ("ba", {}, Step((), ("a", "b"))),
        ("b", {"a": State.RUNNING}, Step(("a",), ("b",))),
        ("", {"b": State.WAITING, "a": State.CLEARING}, Step(("a", "b"), ())),
        ("", {"a": State.ENDING}, Step()),  # once is enough
        ("a", {"a": State.ENDING}, Step()),  # begins anew when it has ended
        ("abc", {"a": State.RUNNING, "b": State.WAITING, "c": State.CLEARING}, Step()),
    ],
)
def test_what_is_to_be_done(wanted: str, held: dict[str, State], expected: Step) -> None:
    assert plan(set(wanted), held) == expected


# ------------------------------------------------------------------------------------------ what may be said


def test_a_version_is_said_when_all_that_is_not_in_it_has_ended() -> None:
    duty = Duty().take(Entry(("a", "b"), 3), ())
    assert duty.applied == 3
    duty = duty.take(Entry(("b", "c"), 4), {"a", "b"})
    assert (duty.version, duty.applied) == (4, 3)
    assert duty.settle({"a", "b", "c"}).applied == 3
    assert duty.settle({"b", "c"}).applied == 4


def test_versions_may_be_skipped_but_never_go_back() -> None:
    duty = Duty().take(Entry(("a",), 3), ()).take(Entry(("b",), 4), {"a"})
    duty = duty.take(Entry(("a", "b"), 6), {"a", "b"})
    assert duty.applied == 6
    assert duty.refuses(Entry(("a",), 5)) and not duty.refuses(Entry((), 6)) and not duty.refuses(None)
    assert duty.take(Entry(("a",), 5), {"a", "b"}) is duty


def test_what_an_earlier_container_of_the_pod_said_counts_as_seen() -> None:
    duty = Duty(seen=5).take(Entry(("a",), 4), ())
    assert (duty.jobs, duty.applied) == (frozenset(), None)
    assert duty.take(Entry(("a",), 5), ()).applied == 5


def test_without_an_entry_there_are_no_jobs_and_no_version() -> None:
    duty = Duty().take(Entry(("a",), 3), ()).take(None, {"a"})
    assert (duty.jobs, duty.version, duty.applied) == (frozenset(), None, 3)
    duty = duty.settle(())
    assert (duty.applied, duty.seen) == (None, 3)
    assert duty.take(Entry(("b",), 2), ()) is duty


def test_a_list_that_was_changed_by_hand_is_not_said_to_run_before_it_does() -> None:
    duty = Duty().take(Entry(("a",), 3), ()).take(Entry(("b",), 3), {"a"})
    assert duty.applied is None
    assert duty.settle({"b"}).applied == 3
    same = duty.settle({"b"})
    assert same.take(Entry(("b",), 3), {"b"}) == same


# ------------------------------------------------------------------------------------------ any history


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """Plays the processes. They end when a test says so, or by SIGKILL; what is told waits until it is taken."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.alive: set[str] = set()
        self.asked: dict[str, float] = {}  # those that were asked to end, and when
        self.orphaned: set[str] = set()  # those of which only the children of a command are left
        self.signals: list[tuple[str, int]] = []
        self.told: list[Any] = []

    def start(self, job: str) -> None:
        assert job not in self.alive, f"{job} runs twice"
        self.alive.add(job)

    def signal(self, job: str, number: int) -> None:
        self.signals.append((job, number))
        if job not in self.alive:
            return
        if number == signal.SIGTERM:
            self.asked.setdefault(job, self._clock())
        elif number == signal.SIGKILL:
            assert self._clock() - self.asked[job] >= STOP_SECONDS, f"{job} was killed too early"
            self.end(job, -signal.SIGKILL)

    def orphan(self, job: str) -> None:
        self.orphaned.add(job)
        self.told.append(Ended(job, 1))

    def end(self, job: str, code: int) -> None:
        self.alive.remove(job)
        self.orphaned.discard(job)
        self.asked.pop(job, None)
        self.told.append(Gone(job, code))

    def fail(self, job: str) -> None:
        self.alive.remove(job)
        self.asked.pop(job, None)
        self.told.append(Failed(job, 2))

    def close(self) -> None:
        """Nothing is left to do."""


class Book(Journal):
    """A journal in memory, which knows who is alive: what it says covers what was."""

    def __init__(self) -> None:
        super().__init__(None, "w", "u")
        self.running: set[str] = set()
        self.stage: Stage | None = None

    def begin(self, job: str) -> None:
        assert job not in self.running and self.stage and job not in self.stage.alive
        self.running.add(job)

    def end(self, job: str) -> None:
        assert self.stage and job not in self.stage.alive
        self.running.remove(job)


class Said:
    """Takes down what is told by annotation."""

    def __init__(self) -> None:
        self.texts: list[str | None] = []

    def tell(self, text: str | None) -> None:
        self.texts.append(text)

    def settle(self, timeout: float) -> bool:
        return True


class Silent:
    """A source that tells nothing by itself."""

    def start(self, tell: Any) -> None:
        """It has nothing to tell."""

    def stop(self) -> None:
        """It has not begun."""


STOP_SECONDS = 10.0
JOBS = "abcdef"
LISTS = st.lists(st.sets(st.sampled_from(JOBS), min_size=1), min_size=8, max_size=8)


class Scene:
    """A worker on a stage."""

    def __init__(self, **more: Any) -> None:
        self.clock, self.book, self.said = Clock(), Book(), Said()
        self.stage = self.book.stage = Stage(self.clock)
        made = Settings("w", "u", listen=None, stop_seconds=STOP_SECONDS, **more)
        self.worker = Worker(made, Silent(), lambda _tell: self.stage, self.book, self.said, clock=self.clock)

    def turn(self, *happenings: Any) -> dict[str, Any]:
        told, self.stage.told = self.stage.told, []
        self.worker.turn([*told, *happenings])
        return self.config

    def page(self, path: str) -> tuple[int, Any]:
        return self.worker.routes()["GET", path]()

    @property
    def config(self) -> dict[str, Any]:
        return self.page("/config")[1]


class AnyHistory(RuleBasedStateMachine):
    """Lists of versions 0 to 7 are read in any order, while jobs end, fail, hang and are killed."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.lists: list[set[str]] = []
        self.read: set[int] = set()
        self.wanted: set[str] = set()
        self.newest = -1
        self.largest_said = -1
        self.turns, self.is_leaving = 0, False

    @initialize(lists=LISTS)
    def begin(self, lists: list[set[str]]) -> None:
        self.lists = lists

    @rule(version=st.integers(0, 7))
    def read_some(self, version: int) -> None:
        if version >= self.newest and not self.is_leaving:
            self.newest, self.wanted = version, self.lists[version]
            self.read.add(version)
        self.turn(Reading(Outcome.KNOWN, Entry(tuple(sorted(self.lists[version])), version)))

    @rule(reading=st.sampled_from([AWAY, MISSING, MALFORMED]))
    def read_nothing(self, reading: Reading) -> None:
        self.turn(reading)

    @rule()
    def read_that_there_is_no_entry(self) -> None:
        if not self.is_leaving:
            self.wanted = set()
        self.turn(NO_ENTRY)

    @precondition(lambda self: self.scene.stage.alive)
    @rule(data=st.data(), how=st.sampled_from(["0", "1", "killed", "failed", "but its child"]), at_once=st.booleans())
    def a_job_ends(self, data: st.DataObject, how: str, at_once: bool) -> None:
        stage = self.scene.stage
        job = data.draw(st.sampled_from(sorted(stage.alive)))
        if how == "but its child" and job not in stage.orphaned:
            stage.orphan(job)
        elif how == "failed" and job not in stage.asked and job not in stage.orphaned:
            stage.fail(job)
        else:
            stage.end(job, {"0": 0, "1": 1}.get(how, -9))
        if at_once:
            self.turn()

    @rule(seconds=st.sampled_from([0.0, 0.5, 5.0, 10.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        self.scene.clock.now += seconds
        self.turn()

    @precondition(lambda self: self.turns > 30)
    @rule()
    def it_is_ended(self) -> None:
        self.is_leaving = True
        self.turn(Signalled(signal.SIGTERM))

    def turn(self, *happenings: Any) -> None:
        """What is said now can't be taken back, so it has to be true now."""
        self.turns += 1
        config = self.scene.turn(*happenings)
        version, alive = config["version"], self.scene.stage.alive
        assert version is None or version in self.read
        if version is not None and version > self.largest_said:
            assert alive <= self.lists[version], f"{alive} while version {version} is said"
        if version is not None:
            assert version >= self.largest_said
            self.largest_said = version
        wanted = set() if self.is_leaving else self.wanted
        asked = self.scene.stage.asked.keys()
        assert alive - wanted <= asked, "all that is not wanted is asked to end"
        assert self.scene.stage.orphaned <= asked, "and what a command left behind"

    @invariant()
    def nothing_runs_that_was_let_go(self) -> None:
        """After a version was said, only what is in its list or in a newer one may run."""
        if self.largest_said >= 0:
            newer = [self.lists[version] for version in self.read if version >= self.largest_said]
            assert self.scene.stage.alive <= set().union(*newer)

    @invariant()
    def the_journal_covers_what_runs(self) -> None:
        assert self.scene.stage.alive <= self.scene.book.running

    def teardown(self) -> None:
        """When nothing new is read and time passes, exactly what is wanted runs, and its version is said."""
        for _turn in range(4):
            self.scene.clock.now += 40.0
            self.turn()
        wanted = set() if self.is_leaving else self.wanted
        assert self.scene.stage.alive == wanted == self.scene.book.running
        assert self.scene.worker.is_over == self.is_leaving
        if not self.is_leaving:
            config = self.scene.config
            assert config["version"] == config["wanted"]
            assert config["jobs"] == sorted(wanted)


def test_any_history() -> None:
    chosen = settings(
        max_examples=300, stateful_step_count=40, derandomize=True, deadline=None, database=None, print_blob=True
    )
    run_state_machine_as_test(AnyHistory, settings=chosen)


# ------------------------------------------------------------------------------------------ what it shows


def test_a_job_that_hangs_holds_up_the_version_until_it_is_killed() -> None:
    scene = Scene()
    assert scene.turn(known("ab", 1))["version"] == 1
    assert scene.turn(known("bc", 2)) == {
        "worker": "w", "uid": "u", "version": 1, "jobs": ["a", "b", "c"], "wanted": 2, "trouble": None,
    }  # fmt: skip
    scene.clock.now = STOP_SECONDS - 0.1
    assert scene.turn()["version"] == 1 and scene.stage.alive == set("abc")
    scene.clock.now = STOP_SECONDS
    scene.turn()  # it is killed
    assert scene.stage.alive == set("bc")
    assert scene.turn()["version"] == 2
    assert scene.said.texts == ["u:1", "u:2"]


def test_a_job_that_is_wanted_again_while_it_ends_begins_anew() -> None:
    scene = Scene()
    for reading in (known("a", 1), known("", 2), known("a", 3)):
        scene.turn(reading)
    assert (scene.config["version"], scene.stage.asked.keys()) == (3, {"a"})
    scene.stage.end("a", 0)
    scene.turn()
    assert (scene.stage.alive, scene.stage.asked) == ({"a"}, {})
    assert not scene.worker._jobs.restarts, "it was let go, and has not failed"


def test_a_job_whose_kill_was_due_is_not_killed_when_it_has_begun_anew() -> None:
    scene = Scene()
    for reading in (known("a", 1), known("", 2), known("a", 3)):
        scene.turn(reading)
    scene.stage.end("a", 0)
    scene.turn()
    scene.clock.now += 2 * STOP_SECONDS
    scene.turn()
    assert scene.stage.alive == {"a"}


def test_a_stopped_job_is_continued_so_that_it_can_end() -> None:
    scene = Scene()
    scene.turn(known("a", 1))
    scene.turn(known("", 2))
    assert scene.stage.signals == [("a", signal.SIGTERM), ("a", signal.SIGCONT)]


def test_what_a_command_leaves_behind_is_ended_before_it_is_started_again() -> None:
    scene = Scene()
    scene.turn(known("a", 1))
    scene.stage.orphan("a")
    scene.turn()
    scene.clock.now = STOP_SECONDS
    scene.turn()  # it is killed
    scene.turn()
    assert (scene.stage.alive, scene.stage.told) == (set(), [])
    scene.clock.now += 2
    scene.turn()
    assert (scene.stage.alive, scene.config["version"]) == ({"a"}, 1)


def test_what_is_let_go_while_its_rest_is_being_ended_has_no_more_time_than_that() -> None:
    scene = Scene()
    scene.turn(known("a", 1))
    scene.stage.orphan("a")
    scene.turn()
    scene.clock.now = STOP_SECONDS / 2
    scene.turn(known("", 2))
    scene.clock.now = STOP_SECONDS
    scene.turn()  # it is killed
    assert scene.turn()["version"] == 2


@pytest.mark.parametrize("reading", [AWAY, MISSING, MALFORMED])
def test_what_can_not_be_read_changes_nothing(reading: Reading, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.turn(known("a", 1))
    with caplog.at_level("WARNING", "muster"):
        for _time in range(3):
            assert scene.turn(reading)["trouble"] == reading.why
    assert len(caplog.records) == 1, "it is said once"
    assert (scene.stage.alive, scene.config["version"]) == ({"a"}, 1)
    assert scene.page("/readyz")[0] == (200 if reading is AWAY else 503)
    assert scene.turn(known("a", 1))["trouble"] is None
    assert scene.page("/readyz") == (200, {"ready": True, "trouble": None})


def test_a_worker_is_ready_before_there_is_a_list_but_not_before_it_has_looked() -> None:
    scene = Scene()
    assert scene.page("/readyz")[0] == 503
    scene.turn(AWAY)
    assert scene.page("/readyz")[0] == 503
    scene.turn(MISSING)
    assert scene.page("/readyz") == (200, {"ready": True, "trouble": "there is no ConfigMap"})
    assert scene.config["version"] is None


def test_an_older_version_is_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(seen=5)
    with caplog.at_level("WARNING", "muster"):
        for _time in range(3):
            scene.turn(known("a", 4))
    assert [record.fields["why"] for record in caplog.records] == [  # type: ignore[attr-defined]
        "version 4 is older than 5, which was seen before: it is not taken"
    ]
    assert (scene.stage.alive, scene.config["version"]) == (set(), None)
    assert scene.turn(known("a", 5))["version"] == 5


def test_ended_by_a_signal_it_ends_its_jobs_first_and_takes_nothing_new() -> None:
    scene = Scene()
    scene.turn(known("ab", 1))
    scene.turn(Signalled(signal.SIGTERM))
    scene.turn(known("abc", 2), Signalled(signal.SIGTERM))
    assert (scene.stage.asked.keys(), scene.worker.is_over) == ({"a", "b"}, False)
    assert scene.page("/readyz")[0] == 503 and scene.config["version"] == 1
    for job in "ab":
        scene.stage.end(job, 0)
    scene.turn()
    assert scene.worker.is_over


def test_the_loss_of_the_warden_is_its_own_end() -> None:
    scene = Scene()
    with pytest.raises(Exception, match="the warden of the jobs was killed"):
        scene.turn(Lost())


def test_metrics() -> None:
    scene = Scene()
    registry = Metrics(lambda: scene.worker._picture).registry

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"muster_swarm_worker_{name}", labels)

    assert value("version_applied") is None and value("trouble") == 1
    scene.turn(known("ab", 1))
    scene.turn(known("bc", 2))
    assert (value("version_wanted"), value("version_applied"), value("trouble")) == (2, 1, 0)
    assert (value("jobs", state="running"), value("jobs", state="ending")) == (2, 1)
    scene.stage.end("a", 0)
    scene.stage.end("b", 7)
    scene.stage.fail("c")
    scene.turn()
    assert value("jobs", state="waiting") == 2
    assert value("restarts_total", result="7") == value(
        "restarts_total", result="not started: No such file or directory"
    )
    assert value("reload_seconds") is not None


# ------------------------------------------------------------------------------------------ started again


def test_a_job_that_ends_by_itself_is_started_again_later_and_later() -> None:
    clock, book = Clock(), Book()
    stage = book.stage = Stage(clock)
    jobs = Jobs(stage, book, STOP_SECONDS, clock=clock, dice=lambda: 1.0)
    jobs.act({"a"})
    waited = []
    for _time in range(7):
        stage.end("a", 3)
        jobs.take(stage.told.pop())
        waited.append(jobs.seconds())
        clock.now += waited[-1] or 0.0
        jobs.act({"a"})
    assert waited == [1, 2, 4, 8, 16, 30, 30] and RESTART == (1, 30)
    clock.now += 31
    stage.end("a", 3)
    jobs.take(stage.told.pop())
    assert jobs.seconds() == 1, "it ran for long enough"
    assert jobs.restarts == Counter({"3": 8})


def test_a_job_that_waits_to_be_started_again_is_let_go_at_once() -> None:
    scene = Scene()
    scene.turn(known("a", 1))
    scene.stage.end("a", 1)
    scene.turn()
    assert scene.config["jobs"] == ["a"]
    config = scene.turn(known("", 2))
    assert (config["version"], config["jobs"]) == (2, [])
    scene.clock.now += 60
    scene.turn()
    assert scene.stage.alive == set()


@pytest.mark.parametrize(
    ("told", "result"),
    [
        (Gone("a", 0), "0"),
        (Gone("a", 137), "137"),
        (Gone("a", -9), "SIGKILL"),
        (Gone("a", -40), "signal 40"),
        (Failed("a", 13), "not started: Permission denied"),
    ],
)
def test_how_it_ended_is_counted(told: Gone | Failed, result: str) -> None:
    jobs = Jobs(Nothing(lambda _told: None), Journal(None, "w", "u"), STOP_SECONDS)
    jobs.act({"a"})
    jobs.take(told)
    assert jobs.restarts == Counter({result: 1})


# ------------------------------------------------------------------------------------------ documents

TEXT = "workloads: {w: {jobs: [b, a], version: 4}, v: {jobs: [c], version: 9}}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TEXT, Document(Entry(("b", "a"), 4))),
        ("workloads: {v: {jobs: [a], version: 4}}", Document()),
        ("workloads: {}", Document()),
        ("", Document()),
        (None, Document()),
        ("workloads: [", "valid YAML"),
        ("workloads: {w: {jobs: [1], version: 4}}", r"where: workloads.w.jobs\[0\] is 1: give a name as a string"),
        ("workloads: {w: {jobs: a}}", "where: workloads.w.jobs is 'a': give a list"),
        ("just text", "where is 'just text': give a mapping"),
    ],
)
def test_one_document(text: str | None, expected: Any) -> None:
    found = parse(text, "w", "where")
    if isinstance(expected, str):
        assert found.entry is None and re.search(expected, found.fault)
    else:
        assert found == expected


def entry(version: int) -> Document:
    return Document(Entry(("a",), version))


NONE, BROKEN = Document(), Document(fault="broken")


@pytest.mark.parametrize(
    ("documents", "outcome", "version", "why"),
    [
        ({}, Outcome.MISSING, None, "missing"),
        ({"cm": NONE}, Outcome.KNOWN, None, ""),
        ({"cm": entry(1)}, Outcome.KNOWN, 1, ""),
        ({"cm": entry(2), "cm-1": entry(1)}, Outcome.KNOWN, 2, ""),
        ({"cm": entry(1), "cm-1": entry(2)}, Outcome.KNOWN, 2, ""),
        ({"cm": BROKEN}, Outcome.MALFORMED, None, "broken"),
        ({"cm": BROKEN, "cm-1": entry(1)}, Outcome.KNOWN, 1, "broken"),
        ({"cm": NONE, "cm-1": BROKEN}, Outcome.MALFORMED, None, "broken"),  # it may be in that
        ({"cm-1": NONE}, Outcome.MISSING, None, "missing"),  # the head is gone, and what stood in it
        ({"cm-1": entry(1)}, Outcome.KNOWN, 1, ""),
    ],
)
def test_several_documents(documents: dict[str, Document], outcome: Outcome, version: int | None, why: str) -> None:
    found = combine(documents, "cm", "missing")
    assert (found.outcome, found.entry and found.entry.version, found.why) == (outcome, version, why)


# ------------------------------------------------------------------------------------------ mounted files


class Volume:
    """A mounted ConfigMap as the kubelet keeps it: links to links into a directory which is replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self.path, self._count = path, 0
        path.mkdir()

    def write(self, **files: str) -> None:
        self._count += 1
        made = self.path / f"..2026_01_01.{self._count}"
        made.mkdir()
        for name, text in files.items():
            (made / f"{name}.yml").write_text(text)
        fresh = self.path / "..data_tmp"
        fresh.symlink_to(made.name)
        fresh.rename(self.path / "..data")
        for name in files:
            with suppress(FileExistsError):
                (self.path / f"{name}.yml").symlink_to(f"..data/{name}.yml")
        for link in self.path.glob("*.yml"):
            if not link.exists():
                link.unlink()


def of(version: int) -> str:
    return f"workloads: {{w: {{jobs: [a], version: {version}}}}}"


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "config")


def test_a_file_a_volume_and_volumes_side_by_side(volume: Volume, tmp_path: Path) -> None:
    volume.write(config=of(1))
    second = Volume(volume.path / "second")
    for path in (volume.path / "config.yml", volume.path):
        assert Files(path, "w").read() == Reading(Outcome.KNOWN, Entry(("a",), 1))
    second.write(config=of(3))
    assert Files(volume.path, "w").read() == Reading(Outcome.KNOWN, Entry(("a",), 3))
    volume.write(config=of(2), more=of(4))
    assert Files(volume.path, "w").read() == Reading(Outcome.KNOWN, Entry(("a",), 4))
    assert Files(volume.path / "config.yml", "w").read() == Reading(Outcome.KNOWN, Entry(("a",), 2))


def test_a_file_that_is_not_there_or_can_not_be_read(volume: Volume) -> None:
    assert Files(volume.path / "none.yml", "w").read() == Reading(
        Outcome.MISSING, None, f"there is no file {volume.path}/none.yml"
    )
    assert Files(volume.path, "w").read() == Reading(
        Outcome.MISSING, None, f"there is no file *.yml or *.yaml in {volume.path}"
    )
    (volume.path / "config.yml").write_bytes(b"\xff")
    found = Files(volume.path, "w").read()
    assert found and found.outcome is Outcome.MALFORMED and "config.yml is not UTF-8" in found.why


def test_what_changes_while_it_is_read_is_read_again(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry moves from the second file to the first: who reads the first before and the second after misses it."""
    volume.write(one="workloads: {}", two=of(1))
    files, parse_file = Files(volume.path, "w"), Files._parse

    def parse_and_move(self: Files, path: str) -> Document:
        found = parse_file(self, path)
        volume.write(one=of(2), two="workloads: {}")
        return found

    monkeypatch.setattr(Files, "_parse", parse_and_move)
    assert files.read() is None
    monkeypatch.undo()
    assert files.read() == Reading(Outcome.KNOWN, Entry(("a",), 2))


def test_a_change_of_a_volume_is_told(volume: Volume) -> None:
    told: list[Reading] = []
    files = Files(volume.path, "w")
    files.start(told.append)
    until(lambda: told, "the first reading")
    for text in (of(1), of(2), "nonsense: ["):
        count = len(told)
        volume.write(config=text)
        until(lambda: len(told) > count, "the next one")  # noqa: B023 it is asked for here and now
    files.stop()
    assert [reading.outcome.name for reading in told] == ["MISSING", "KNOWN", "KNOWN", "MALFORMED"]
    assert [reading.entry and reading.entry.version for reading in told] == [None, 1, 2, None]


# ------------------------------------------------------------------------------------------ several ConfigMaps


class Streams:
    """What follow tells of the head by its name, and of all parts by their label."""

    def __init__(self) -> None:
        self.source = ConfigMaps(None, "ns", "cm", "w")  # type: ignore[arg-type]

    def tell(self, where: str, change: Any) -> Reading | None:
        self.source._take(where, change)
        return self.source._reading()

    def of(self, name: str, revision: int, version: int | None) -> dict[str, Any]:
        metadata = {"name": name, "resourceVersion": str(revision)}
        data = {"config.yml": "workloads: {}" if version is None else of(version)}
        return self.source._shrink({"metadata": metadata, "data": data})

    def snapshots(self, *objects: dict[str, Any]) -> Reading | None:
        heads = [obj for obj in objects if obj["metadata"]["name"] == "cm"]
        self.tell("head", Snapshot(heads, "1"))
        return self.tell("parts", Snapshot(list(objects), "1"))


@pytest.fixture
def streams() -> Streams:
    return Streams()


def version_of(reading: Reading | None) -> int | None:
    assert reading is not None and reading.outcome is Outcome.KNOWN
    return reading.entry.version if reading.entry else None


def test_nothing_is_known_before_all_was_read(streams: Streams) -> None:
    assert streams.tell("head", Snapshot([streams.of("cm", 5, None)], "5")) is None
    assert version_of(streams.tell("parts", Snapshot([streams.of("cm-1", 6, 3)], "6"))) == 3


def test_an_entry_that_moves_is_never_missed(streams: Streams) -> None:
    """It is written to the new part first; but the two streams may bring that in any order."""
    assert version_of(streams.snapshots(streams.of("cm", 5, 3), streams.of("cm-1", 6, None))) == 3
    gone = Put(streams.of("cm", 8, None))
    assert streams.tell("head", gone) is None, "it may be in a part of which is still to be heard"
    assert version_of(streams.tell("parts", Put(streams.of("cm-1", 7, 4)))) == 4
    assert version_of(streams.tell("parts", gone)) == 4


def test_no_entry_is_told_when_both_have_seen_it(streams: Streams) -> None:
    assert version_of(streams.snapshots(streams.of("cm", 5, 3))) == 3
    gone = Put(streams.of("cm", 8, None))
    assert streams.tell("head", gone) is None
    assert version_of(streams.tell("parts", gone)) is None


def test_a_head_without_the_label_is_enough(streams: Streams) -> None:
    streams.tell("parts", Snapshot([], "5"))
    assert version_of(streams.tell("head", Snapshot([streams.of("cm", 5, 3)], "5"))) == 3
    assert version_of(streams.tell("head", Put(streams.of("cm", 6, None)))) is None
    removed = streams.tell("head", Removed(streams.of("cm", 7, None)))
    assert removed == Reading(Outcome.MISSING, None, "there is no ConfigMap ns/cm")


def test_what_is_known_goes_on_to_count_while_the_api_server_is_away(streams: Streams) -> None:
    streams.snapshots(streams.of("cm", 5, 3))
    away = streams.tell("parts", Trouble(ApiError(0, "Unreachable", "no answer")))
    assert version_of(away) == 3 and away and "no answer" in away.why
    assert version_of(streams.tell("head", Put(streams.of("cm", 6, 4)))) == 4
    missed = streams.tell("head", Put(streams.of("cm", 7, None)))
    assert missed and missed.outcome is Outcome.AWAY, "it may be in a part that can't be seen now"
    back = streams.tell("parts", Recovered())
    assert back is None
    assert version_of(streams.tell("parts", Put(streams.of("cm", 7, None)))) is None


def test_who_may_not_list_goes_by_the_name_alone(streams: Streams) -> None:
    refused = Trouble(ApiError(403, "Forbidden", "may not list configmaps"))
    assert streams.tell("parts", refused) is None
    assert version_of(streams.tell("head", Snapshot([streams.of("cm", 5, 3)], "5"))) == 3
    gone = streams.tell("head", Put(streams.of("cm", 6, None)))
    assert version_of(gone) is None and gone and "may not list configmaps" in gone.why


# ------------------------------------------------------------------------------------------ commands


class Cast:
    """Commands, and what they told."""

    def __init__(self, *command: str) -> None:
        self.told: list[Any] = []
        self.commands = Commands(command, self.told.append)

    def hears(self, expected: Any) -> None:
        until(lambda: expected in self.told, f"{expected} among {self.told}")

    def pid(self, job: str) -> int:
        return until(lambda: self.commands._pids.get(job), f"the start of {job}")


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _ends(pid: int) -> None:
    """Wait for the end of a process that is not our child."""
    with suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        ready, _, _ = select.select([handle], [], [], PATIENCE)
        os.close(handle)
        assert ready, f"process {pid} has not ended"


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal, time; " + os.environ["CHILD"] +
    "print('ready', flush=True); time.sleep(3600)"], stdout=subprocess.PIPE)
child.stdout.readline()
with open(os.environ["PIDS"] + ".tmp", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.rename(os.environ["PIDS"] + ".tmp", os.environ["PIDS"])
exec(os.environ["PARENT"])
"""
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); "


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cast]]:
    """A command with a child; PIDS names a file with both pids, once both are there."""
    made: list[Cast] = []

    def make(child: str = "", parent: str = "time.sleep(3600)") -> Cast:
        for name, value in (("PIDS", str(tmp_path / "pids")), ("CHILD", child), ("PARENT", parent)):
            monkeypatch.setenv(name, value)
        cast = Cast(sys.executable, "-I", "-S", "-c", FAMILY)
        made.append(cast)
        return cast

    yield make
    for cast in made:
        cast.commands.close()


def pids(tmp_path: Path) -> list[int]:
    path = tmp_path / "pids"
    until(path.exists, "both processes")
    return [int(text) for text in path.read_text().split()]


def test_a_command_gets_its_job_as_argument_and_variable(tmp_path: Path) -> None:
    script = f"import os, sys; open({str(tmp_path / 'told')!r}, 'a').write(repr((sys.argv[1:], os.environ['JOB'])))"
    cast = Cast(sys.executable, "-I", "-S", "-c", script, "--stream={job}", "{job}", "{other}", "")
    job = "a 'b' $HOME; {job}"
    cast.commands.start(job)
    cast.hears(Gone(job, 0))
    cast.commands.close()
    assert (tmp_path / "told").read_text() == repr(([f"--stream={job}", job, "{other}", ""], job))


def test_what_can_not_be_started_is_told() -> None:
    cast = Cast("/nowhere/{job}")
    cast.commands.start("a")
    cast.commands.start("b\0")
    cast.hears(Failed("a", 2))
    cast.hears(Failed("b\0", 22))
    cast.commands.close()


def test_a_job_is_gone_when_the_last_of_its_group_is(family: Callable[..., Cast], tmp_path: Path) -> None:
    cast = family(child=STUBBORN)
    cast.commands.start("a")
    parent, child = pids(tmp_path)
    cast.commands.signal("a", signal.SIGTERM)
    cast.hears(Ended("a", -signal.SIGTERM))
    assert _alive(child) and not _alive(parent)
    assert _parent(child) == cast.commands._warden.pid, "who reaps it; in a container nobody else may"
    assert cast.told == [Ended("a", -signal.SIGTERM)]
    cast.commands.signal("a", signal.SIGKILL)
    cast.hears(Gone("a", -signal.SIGTERM))
    assert not _alive(child)


def test_a_job_that_ends_by_itself_leaves_its_child_to_be_ended(family: Callable[..., Cast]) -> None:
    cast = family(parent="sys.exit(7)")
    cast.commands.start("a")
    cast.hears(Ended("a", 7))
    cast.commands.signal("a", signal.SIGTERM)
    cast.hears(Gone("a", 7))


def test_a_stopped_job_can_be_killed(family: Callable[..., Cast], tmp_path: Path) -> None:
    cast = family()
    cast.commands.start("a")
    pids(tmp_path)
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT):
        cast.commands.signal("a", number)
    cast.hears(Gone("a", -signal.SIGTERM))


def test_who_kills_the_warden_ends_all_jobs(family: Callable[..., Cast], tmp_path: Path) -> None:
    cast = family(child=STUBBORN)
    cast.commands.start("a")
    both = pids(tmp_path)
    cast.commands._warden.kill()
    cast.hears(Lost())
    for pid in both:
        _ends(pid)


WORKER = """
import sys
from muster.swarm.worker_runners import Commands
commands = Commands(sys.argv[1:], print)
commands.start("a")
print(commands._warden.pid, flush=True)
import time
time.sleep(3600)
"""


@pytest.fixture
def worker(family: Callable[..., Cast]) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A worker with a job that has a stubborn child, and the pid of its warden."""
    family(child=STUBBORN)
    command = [sys.executable, "-I", "-S", "-c", FAMILY]
    worker = subprocess.Popen([sys.executable, "-P", "-c", WORKER, *command], stdout=subprocess.PIPE, process_group=0)
    assert worker.stdout
    yield worker, int(worker.stdout.readline())
    worker.kill()
    worker.wait()
    worker.stdout.close()


@pytest.mark.parametrize("kill", [os.kill, os.killpg])
def test_who_kills_the_worker_ends_all_jobs(
    worker: tuple[subprocess.Popen[bytes], int], tmp_path: Path, kill: Callable[[int, int], None]
) -> None:
    both = pids(tmp_path)
    kill(worker[0].pid, signal.SIGKILL)
    for pid in (*both, worker[1]):
        _ends(pid)


def test_who_kills_worker_and_warden_in_one_moment_ends_the_commands(
    worker: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    command, child = pids(tmp_path)
    worker[0].send_signal(signal.SIGSTOP)
    os.kill(worker[1], signal.SIGKILL)
    worker[0].kill()
    _ends(command)
    os.kill(child, signal.SIGKILL)  # only who has a warden can have its children ended


ORPHAN = """
import os
from muster.swarm.worker_warden import Warden
control, orders = os.pipe()
os.write(orders, b'["start", "a", ["sleep", "0"]]\\n')
warden = Warden(control, print)
warden._worker = -1
warden.run()
"""


def test_the_warden_begins_nothing_for_a_worker_that_is_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", ORPHAN], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout == ""


# ------------------------------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("text", "words"),
    [("run {job}", ["run", "{job}"]), ("a 'b c' \"d $HOME\" *", ["a", "b c", "d $HOME", "*"]), ("a ''", ["a", ""])],
)
def test_a_command_is_split_once(text: str, words: list[str]) -> None:
    assert parse_command(text) == words


NAMED = {"POD_NAME": "w", "POD_UID": "u"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--uid", "u", "--config", "c"), 1, "--name is None: in a Pod set POD_NAME by valueFrom"),
        (("--name", "w", "--config", "c"), 1, "--uid is None: in a Pod set POD_UID by valueFrom"),
        (("--name", "w", "--uid", "u"), 2, "give one of them, not neither"),
        (("--name", "w", "--uid", "u", "--config", "c", "--configmap", "d"), 2, "give one of them, not both"),
        (("--name", "w", "--uid", "u", "--config", "c", "--beat", "0"), 1, "--beat is 0.0: give seconds from 0.01"),
        (("--name", "w", "--uid", "u", "--config", "c", "--stop-seconds", "-1"), 1, "--stop-seconds is -1.0: give"),
        (("--name", "w", "--uid", "u", "--config", "c", "--exec", ""), 1, "--exec is '': give a command"),
        (("--name", "w", "--uid", "u", "--config", "c", "--exec", "a 'b"), 1, "close the quotation"),
        (("--name", "w", "--uid", "u", "--config", "c", "--listen", "x"), 1, "listen is 'x': give ADDRESS:PORT"),
        (("--name", "w", "--uid", "u", "--config", "c", "--journal", "/no/j"), 1, "--journal is '/no/j'"),
    ],
)
def test_wrong_usage_is_explained(
    arguments: tuple[str, ...], status: int, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name in ("POD_NAME", "POD_UID", "MUSTER_CONFIG", "WORKERS_CONFIGMAP_NAME"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["swarm-worker", "run", *arguments]) == status
    assert said in capsys.readouterr().err


def test_variables_say_the_same() -> None:
    environ = {**NAMED, "WORKERS_CONFIGMAP_NAME": "cm", "MUSTER_EXEC": "x {job}", "MUSTER_ANNOTATE": "true"}
    environ |= {"MUSTER_BEAT": "1", "MUSTER_STOP_SECONDS": "3", "MUSTER_JOURNAL": "/j", "MUSTER_LISTEN": ""}
    args = cli.build_parser(environ, ["swarm-worker"]).parse_args(["swarm-worker", "run"])
    assert (args.name, args.uid, args.configmap, args.config, args.command) == ("w", "u", "cm", None, "x {job}")
    assert (args.annotate, args.beat, args.stop_seconds, args.journal) == (True, 1.0, 3.0, Path("/j"))


# ------------------------------------------------------------------------------------------ one of your own


def test_the_worker_of_the_documentation_keeps_the_contract(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    config, port = tmp_path / "config.yml", _free_port()

    def write(text: str) -> None:
        config.with_suffix(".new").write_text(text)
        config.with_suffix(".new").rename(config)

    def said() -> Any:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=10) as answer:
            return json.loads(answer.read())

    write("")
    environment = {**os.environ, "POD_NAME": "w", "POD_UID": "u", "CONFIG": str(config), "PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: said() == {"worker": "w", "uid": "u", "version": None, "jobs": []}, "its page")
        write(of(2))
        until(lambda: said() == {"worker": "w", "uid": "u", "version": 2, "jobs": ["a"]}, "version 2")
        write("workloads: {w: {jobs: [b], version: 1}}")
        assert process.stdout
        assert {process.stdout.readline() for _turn in range(3)} == {"a little work on a\n"}
        write("workloads: {w: {jobs: [c], version: 3}}")
        until(lambda: said()["version"] == 3, "version 3")
        write("workloads: {v: {jobs: [c], version: 9}}")
        until(lambda: said()["jobs"] == [], "the end of its jobs")
    finally:
        process.kill()
        process.communicate()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commit loop against an API server in memory that fails by script."""

from __future__ import annotations

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Forbidden, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.commit import DELETE, Backoff, Pace, commit
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi


class Time:
    """A clock that only sleeping moves, and dice which always fall to their bound."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.pace = Pace(clock=lambda: self.now, sleep=self.sleep, dice=lambda: 1.0)

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


@pytest.fixture
def time() -> Time:
    return Time()


def append(letter: str):
    """Add a letter to the data once, and see whether it is there already, as every decision has to."""

    def decide(obj):
        if obj is None:
            return {"apiVersion": "v1", "metadata": {"name": "o", "namespace": "ns"}, "data": {"x": letter}}, "made"
        if letter in obj["data"]["x"]:
            return obj, "there"
        return {**obj, "data": {"x": obj["data"]["x"] + letter}}, "appended"

    return decide


def run(api: MemoryApi, decide, time: Time, **options):
    return commit(api, CONFIGMAPS, "o", "ns", decide, pace=time.pace, **options)


def made(api: MemoryApi, letters: str = "a") -> dict:
    return api.create(
        CONFIGMAPS, {"apiVersion": "v1", "metadata": {"name": "o", "namespace": "ns"}, "data": {"x": letters}}
    )


def letters(api: MemoryApi) -> str:
    return api.get(CONFIGMAPS, "o", "ns")["data"]["x"]


# ------------------------------------------------------------------------------------------ the plain ways


def test_absent_is_made_present_is_changed_and_the_same_is_not_written(api, time):
    first = run(api, append("a"), time)
    assert (first.changed, first.before, first.after["data"], first.verdict) == (True, None, {"x": "a"}, "made")
    second = run(api, append("b"), time)
    assert (second.changed, second.before["data"], second.after["data"]) == (True, {"x": "a"}, {"x": "ab"})
    version = api.version
    third = run(api, append("b"), time)
    assert (third.changed, third.before, third.verdict, third.attempts) == (False, third.after, "there", 1)
    assert api.version == version


def test_what_is_written_carries_the_version_and_uid_of_what_was_read(api, time):
    there = made(api)
    written = []
    replace = api.replace
    api.replace = lambda resource, obj, sub: (written.append(obj["metadata"]), replace(resource, obj, sub))[1]
    run(api, append("b"), time)
    assert written == [there["metadata"]]


def test_a_subresource_is_written_alone_and_neither_made_nor_deleted(api, time):
    made(api)
    change = {"data": {"x": "b"}, "status": {"x": "b"}}
    told = run(api, lambda obj: ({**obj, **change} if "status" not in obj else obj, None), time, subresource="status")
    assert (told.after["status"], told.after["data"]) == ({"x": "b"}, {"x": "a"})
    for decision in (DELETE, None):
        with pytest.raises(ValueError, match="status can only be changed"):
            run(api, lambda obj, decision=decision: (decision, None), time, subresource="status")
    assert letters(api) == "a"


def test_delete_carries_both_as_preconditions_and_absent_stays_absent(api, time):
    there = made(api)
    asked = []
    delete = api.delete
    api.delete = lambda *args, **kwargs: (asked.append(kwargs), delete(*args, **kwargs))[1]
    assert run(api, lambda obj: (DELETE, None), time).after is None
    assert asked == [{"uid": there["metadata"]["uid"], "resource_version": there["metadata"]["resourceVersion"]}]
    again = run(api, lambda obj: (DELETE, None), time)
    assert (again.changed, again.before, again.after) == (False, None, None)


def test_check_mode_decides_on_the_same_read_and_writes_nothing(api, time):
    made(api)
    version = api.version
    told = run(api, append("b"), time, check_mode=True)
    assert (told.changed, told.before["data"], told.after["data"]) == (True, {"x": "a"}, {"x": "ab"})
    assert run(api, lambda obj: (DELETE, None), time, check_mode=True).after is None
    assert api.version == version


def test_an_error_of_the_decision_is_handed_on_and_nothing_is_written(api, time):
    made(api)

    def refuse(obj):
        raise MusterError("no")

    with pytest.raises(MusterError, match="no"):
        run(api, refuse, time)
    assert (letters(api), time.slept) == ("a", [])


# ------------------------------------------------------------------------------------------ somebody was faster


def test_a_conflict_is_decided_again_on_what_is_there_now(api, time):
    made(api)
    steal = iter(["b"])

    def racing(_request: str) -> None:
        for letter in steal:  # once, between the read and the write
            api.before_write = None
            run(api, append(letter), Time())

    api.before_write = racing
    done = run(api, append("c"), time)
    assert letters(api) == "abc"
    assert (done.before["data"]["x"], done.attempts) == ("ab", 2)


def test_conflicts_back_off_with_full_jitter_from_2_to_50_ms(api, time):
    made(api)
    api.faults = ["replace 409"] * 8
    assert run(api, append("b"), time).attempts == 9
    assert time.slept == [0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05, 0.05]
    time.pace = Pace(time.pace.clock, time.pace.sleep, dice=lambda: 0.5)
    api.faults, time.slept = ["replace 409"], []
    run(api, append("c"), time)
    assert time.slept == [0.001]


def test_a_name_that_somebody_else_took_is_read_and_decided_again(api, time):
    def racing(_request: str) -> None:
        api.before_write = None
        made(api, "z")

    api.before_write = racing
    done = run(api, append("a"), time)
    assert (letters(api), done.verdict, done.before["data"]["x"]) == ("za", "appended", "z")


def test_an_object_made_again_under_the_name_is_another_object(api, time):
    made(api)

    def racing(_request: str) -> None:
        api.before_write = None
        api.delete(CONFIGMAPS, "o", "ns")
        made(api, "new")

    api.before_write = racing
    done = run(api, append("b"), time)
    assert (letters(api), done.before["data"]["x"]) == ("newb", "new")


def test_an_object_removed_under_our_hands_is_decided_upon_again(api, time):
    made(api)

    def racing(_request: str) -> None:
        api.before_write = None
        api.delete(CONFIGMAPS, "o", "ns")

    api.before_write = racing
    assert run(api, append("b"), time).verdict == "made"
    assert letters(api) == "b"


# ------------------------------------------------------------------------------------------ nobody knows


@pytest.mark.parametrize("fault", ["lost", "lost-applied", "500", "500-applied", "503", "504-applied"])
def test_a_write_of_unknown_fate_is_read_again_and_done_once(api, time, fault):
    made(api)
    api.faults = [f"replace {fault}"]
    done = run(api, append("b"), time)
    assert letters(api) == "ab"
    assert (done.changed, done.before["data"]["x"], done.after["data"]["x"]) == (True, "a", "ab")
    assert time.slept == [0.05]


@pytest.mark.parametrize("fault", ["lost", "lost-applied", "500-applied"])
def test_a_create_of_unknown_fate_is_done_once(api, time, fault):
    api.faults = [f"create {fault}"]
    done = run(api, append("a"), time)
    assert (letters(api), done.changed, done.before) == ("a", True, None)


@pytest.mark.parametrize("fault", ["lost", "lost-applied"])
def test_a_delete_of_unknown_fate_is_done_once(api, time, fault):
    made(api)
    api.faults = [f"delete {fault}"]
    done = run(api, lambda obj: (DELETE, None), time)
    assert (done.changed, done.before["data"]["x"], done.after, api.objects) == (True, "a", None, {})


def test_a_write_that_is_applied_after_all_when_we_have_read_again_meets_our_next_one(api, time):
    """It still carries the old version: one of the two is refused, and either way it is done once."""
    there = made(api)
    api.faults = ["replace lost"]
    late = {**there, "data": {"x": "ab"}}

    def racing(_request: str) -> None:
        if not api.faults:
            api.before_write = None
            api.replace(CONFIGMAPS, late)

    api.before_write = racing
    done = run(api, append("b"), time)
    assert letters(api) == "ab"
    assert (done.changed, done.before["data"]["x"]) == (True, "a")


def test_a_lost_write_which_was_not_applied_and_is_no_longer_wanted_is_no_change(api, time):
    there = made(api)
    api.faults = ["replace lost"]
    wanted = iter([True, False])

    def decide(obj):
        return ({**obj, "data": {"x": "b"}}, None) if next(wanted) else (obj, None)

    done = run(api, decide, time)
    assert (done.changed, done.before, done.after) == (False, there, there)


# ------------------------------------------------------------------------------------------ trouble


def test_429_waits_as_long_as_the_server_asks(api, time):
    made(api)
    api.faults = ["get 429:3", "replace 429:4"]
    assert run(api, append("b"), time).attempts == 3
    assert time.slept == [3.0, 4.0]


def test_503_with_retry_after_waits_as_long_as_the_server_asks(api, time):
    made(api)
    api.faults = ["get 503:3", "replace 503:4"]
    run(api, append("b"), time)
    assert time.slept == [3.0, 4.0]


def test_an_unreachable_server_is_tried_again_with_growing_delays(api, time):
    made(api)
    api.faults = ["get unreachable"] * 7
    assert run(api, append("b"), time).attempts == 8
    assert time.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0]


def test_the_deadline_ends_it_with_the_last_obstacle(api, time):
    made(api)
    api.faults = ["replace 409"] * 10000
    with pytest.raises(TimedOut, match=r"ConfigMap ns/o could not be written within 1 s in \d+ attempts.*modified"):
        run(api, append("b"), time, timeout=1)
    assert 0.9 < time.now <= 1
    assert letters(api) == "a"


def test_a_server_that_asks_for_more_time_than_there_is_ends_it_at_once(api, time):
    made(api)
    api.faults = ["replace 429:60"]
    with pytest.raises(TimedOut, match="too many requests"):
        run(api, append("b"), time)
    assert time.slept == []


def test_a_missing_namespace_is_told_at_once(api, time):
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        commit(api, CONFIGMAPS, "o", "nowhere", lambda obj: ({"metadata": {"name": "o", "namespace": "nowhere"}}, None))
    assert time.slept == []


def test_what_another_try_cannot_mend_is_told_at_once(api, time):
    made(api)
    api.faults = ["replace 403"]
    with pytest.raises(Forbidden):
        run(api, append("b"), time)
    assert time.slept == []


def test_none_for_an_object_that_is_there_is_a_mistake_of_the_caller(api, time):
    made(api)
    with pytest.raises(ValueError, match="returns DELETE, not None"):
        run(api, lambda obj: (None, None), time)


# ---------------------------------------------------------------------------------------------- what was seen before


def test_what_was_seen_saves_the_read(api, time):
    seen = made(api)
    done = run(api, append("b"), time, seen=seen)
    assert [request for request in api.requests if request.startswith("get")] == []
    assert (done.changed, done.before, letters(api)) == (True, seen, "ab")


def test_what_was_seen_to_be_absent_is_created_without_a_read(api, time):
    assert run(api, append("a"), time, seen=None).verdict == "made"
    assert [request for request in api.requests if request.startswith("get")] == []


def test_what_was_seen_and_is_out_of_date_is_read_and_decided_anew(api, time):
    seen = made(api)
    run(api, append("b"), time)
    assert run(api, append("c"), time, seen=seen).after["data"]["x"] == "abc"


def test_what_was_seen_to_be_absent_and_is_there_is_read(api, time):
    made(api)
    assert run(api, append("b"), time, seen=None).after["data"]["x"] == "ab"


def test_after_a_conflict_what_a_watch_shows_meanwhile_saves_the_read(api, time):
    seen = made(api)
    now = api.replace(CONFIGMAPS, {**seen, "data": {"x": "ab"}})
    api.requests.clear()
    done = run(api, append("c"), time, seen=seen, latest=lambda: now)
    assert (done.before, done.after["data"]) == (now, {"x": "abc"})
    assert api.requests == ["replace configmaps/o"] * 2


def test_after_a_conflict_a_watch_that_shows_nothing_newer_is_not_believed(api, time):
    seen = made(api)
    api.replace(CONFIGMAPS, {**seen, "data": {"x": "ab"}})
    api.requests.clear()
    assert run(api, append("c"), time, seen=seen, latest=lambda: seen).after["data"] == {"x": "abc"}
    assert api.requests == ["replace configmaps/o", "get configmaps/o", "replace configmaps/o"]


def test_that_nothing_is_to_be_done_is_not_believed_of_what_was_seen(api, time):
    seen = made(api, "ab")
    now = api.replace(CONFIGMAPS, {**seen, "data": {"x": "a"}})
    done = run(api, append("b"), time, seen=seen)
    assert (done.changed, done.before["metadata"]["resourceVersion"]) == (True, now["metadata"]["resourceVersion"])


def test_that_nothing_can_be_done_is_not_believed_of_what_was_seen(api, time):
    made(api)

    def decide(obj):
        if obj is None:
            raise MusterError("it is not there")
        return append("b")(obj)

    assert run(api, decide, time, seen=None).changed


def test_a_delete_of_what_was_seen_spares_what_came_since(api, time):
    seen = made(api)
    now = api.replace(CONFIGMAPS, {**seen, "data": {"x": "b"}})
    done = run(api, lambda obj: (DELETE if obj["data"]["x"] == "a" else obj, None), time, seen=seen)
    assert (done.changed, done.after) == (False, now)


def test_check_mode_reads_what_there_is(api, time):
    seen = made(api)
    api.replace(CONFIGMAPS, {**seen, "data": {"x": "ab"}})
    assert not run(api, append("b"), time, seen=seen, check_mode=True).changed


def test_who_can_wait_gives_way_after_a_conflict(api, time):
    made(api)
    api.faults = ["replace 409"] * 4
    run(api, append("b"), time, backoff=Backoff(0.1, 0.5))
    assert time.slept == [0.1, 0.2, 0.4, 0.5]

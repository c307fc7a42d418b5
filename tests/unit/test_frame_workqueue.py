# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The queue of keys: examples on a held clock, and real threads for what only threads can show."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.commit import Backoff
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.frame.workqueue import RETRY, Agenda, WorkQueue


def taken(agenda: Agenda, now: float = 0.0) -> list[str]:
    """All that can be had now, each done at once."""
    keys = []
    while (key := agenda.take(now)) is not None:
        keys.append(key)
        agenda.done(key)
    return keys


def test_first_come_first_served_and_each_once() -> None:
    agenda = Agenda()
    for key in "baab":
        agenda.add(key)
    assert (len(agenda), agenda.ready) == (2, 2)
    assert taken(agenda) == ["b", "a"]
    assert len(agenda) == 0


def test_what_is_added_while_it_is_worked_on_comes_once_more_and_not_at_the_same_time() -> None:
    agenda = Agenda()
    agenda.add("a")
    assert agenda.take(0) == "a"
    agenda.add("a")
    agenda.add("a")
    assert agenda.take(0) is None and agenda.working == 1 and agenda.ready == 1
    agenda.done("a")
    assert taken(agenda) == ["a"]


def test_later_means_later_and_the_earliest_time_counts() -> None:
    agenda = Agenda()
    agenda.add_at("a", 10)
    agenda.add_at("a", 5)
    agenda.add_at("a", 20)
    agenda.add_at("b", 7)
    assert (taken(agenda, 4.9), agenda.next_at()) == ([], 5)
    assert taken(agenda, 8) == ["a", "b"]
    assert taken(agenda, 100) == [] and agenda.next_at() is None


def test_now_takes_the_place_of_later() -> None:
    agenda = Agenda()
    agenda.add_at("a", 10)
    agenda.add("a")
    assert taken(agenda, 1) == ["a"]
    assert taken(agenda, 100) == []


def test_a_time_that_comes_while_it_is_worked_on_is_kept() -> None:
    agenda = Agenda()
    agenda.add("a")
    agenda.take(0)
    agenda.add_at("a", 5)
    assert agenda.take(6) is None
    agenda.done("a")
    assert taken(agenda, 6) == ["a"]


def test_delays_grow_to_their_bound_and_begin_anew_after_a_success() -> None:
    agenda = Agenda()
    assert [agenda.retry("a", 0, 1.0) for _failure in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert agenda.failures("a") == 8
    agenda.forget("a")
    assert agenda.retry("a", 0, 0.5) == 0.5


def test_delays_of_a_key_that_never_works_stay_finite() -> None:
    agenda = Agenda()
    assert {agenda.retry("a", 0, 1.0) for _failure in range(3000)} <= {1, 2, 4, 8, 16, 32, RETRY.largest}


def test_times_that_are_overtaken_cost_no_memory() -> None:
    agenda = Agenda()
    for turn in range(10_000):
        agenda.add_at("a", 10_000 - turn)
    assert len(agenda._heap) < 100 and len(agenda) == 1


def test_threads_work_on_each_key_one_at_a_time_and_miss_none() -> None:
    work, seen, wrong = WorkQueue(), Counter[str](), []
    busy: set[str] = set()

    def run() -> None:
        while (key := work.get()) is not None:
            if key in busy:
                wrong.append(key)
            busy.add(key)
            time.sleep(0.0005)
            seen[key] += 1
            busy.discard(key)
            work.done(key)

    threads = [threading.Thread(target=run, daemon=True) for _worker in range(4)]
    for thread in threads:
        thread.start()
    for turn in range(300):
        work.add(f"{turn % 20}", f"{turn % 7}")
        work.add_after(f"late-{turn % 5}", 0.01)
    until(lambda: len(work) == 0 and work.working == 0, "all to be worked on")
    assert not wrong and len(seen) == 25
    work.shut_down()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_what_waits_for_its_time_wakes_a_worker() -> None:
    work = WorkQueue(Backoff(0.001, 0.002))
    got: list[str | None] = []
    thread = threading.Thread(target=lambda: got.append(work.get()), daemon=True)
    thread.start()
    assert 0 <= work.retry("a") <= 0.001
    thread.join(30)
    assert got == ["a"]


def test_shut_down_hands_out_nothing_and_lets_what_is_worked_on_end() -> None:
    work = WorkQueue()
    work.add("a", "b")
    assert work.get() == "a"
    work.shut_down()
    assert work.get() is None
    assert not work.drain(0.01)
    threading.Timer(0.05, work.done, ("a",)).start()
    assert work.drain(30)


@pytest.mark.parametrize("waiting", [0, 3])
def test_shut_down_wakes_all_who_wait(waiting: int) -> None:
    work = WorkQueue()
    work.add_after("a", 3600)
    threads = [threading.Thread(target=work.get, daemon=True) for _worker in range(waiting)]
    for thread in threads:
        thread.start()
    work.shut_down()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One process of a controller, on an API server in memory: what is looked at, when, by whom, and how it ends."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS
from ansible_collections.muster.coordination.plugins.module_utils.commit import Backoff
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.frame import workqueue
from muster.frame.authority import Superseded, Tenures, Term
from muster.frame.cache import key_of
from muster.frame.controller import Controller


class Hand:
    """An authority that has what a test says: keys are names of objects."""

    def __init__(self) -> None:
        self.tenures = Tenures()
        self.tenures.extend(float("inf"))
        self.trouble: str | None = None
        self.left: list[float] = []

    def start(self, changed: Callable[[], None]) -> None:
        self.changed = changed

    def give(self, *keys: str) -> None:
        for number, key in enumerate(keys):
            self.tenures.begin(key, "me", f"scope/{key}", 10 + number)
        self.changed()

    @contextmanager
    def work(self, key: str) -> Iterator[Term | None]:
        with self.tenures.work(key) as term:
            yield term

    def is_mine(self, key: str) -> bool:
        return self.tenures.has(key)

    def leave(self, timeout: float) -> bool:
        self.left.append(timeout)
        self.tenures.refuse()
        return self.tenures.drain(timeout)

    def describe(self) -> dict[str, Any]:
        names = self.tenures.names()
        return {"mode": "hand", "identity": "me", "active": bool(names), "shards": names, "trouble": self.trouble}


class Bench:
    """A controller that runs in a thread."""

    def __init__(self, reconcile: Callable[[dict[str, Any], Term], float | None], **options: Any) -> None:
        self.api, self.hand = MemoryApi(), Hand()
        self.seen: list[tuple[str, int]] = []

        def noted(obj: dict[str, Any], term: Term) -> float | None:
            self.seen.append((obj["metadata"]["name"], term.fence))
            return reconcile(obj, term)

        class Quiet(Controller):
            signals = ()  # they belong to the main thread

        self.controller = Quiet(
            self.api,  # type: ignore[arg-type]
            resource=CONFIGMAPS,
            namespace="ns",
            authority=self.hand,
            reconcile=noted,
            key_of=lambda obj: obj["metadata"]["name"],
            listen="127.0.0.1:0",
            **options,
        )
        self.status: list[int] = []
        self.thread = threading.Thread(target=lambda: self.status.append(self.controller.run()), daemon=True)
        self.thread.start()
        until(lambda: self.controller.port and self.controller.cache.synced.is_set(), "the controller to run")

    def ask(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.controller.port}{path}", timeout=30) as answer:
                text = answer.read().decode()
                return answer.status, json.loads(text) if path != "/metrics" else text
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def metric(self, name: str) -> float:
        found = [
            line.rpartition(" ")[2] for line in self.ask("/metrics")[1].splitlines() if line.startswith(f"{name} ")
        ]
        return float(found[0])

    def end(self) -> None:
        self.controller.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(
        reconcile: Callable[[dict[str, Any], Term], float | None] = lambda obj, term: None, **options: Any
    ) -> Bench:
        made.append(Bench(reconcile, **options))
        return made[-1]

    yield make
    for one in made:
        if one.thread.is_alive():
            one.end()


def test_only_what_is_ours_is_looked_at_and_what_is_gained_at_once(bench: Callable[..., Bench]) -> None:
    one = bench()
    one.api.configmap("a")
    one.api.configmap("b")
    until(
        lambda: len(one.controller.cache) == 2 and not one.metric('muster_controller_queue{state="ready"}'), "all seen"
    )
    assert one.seen == []
    one.hand.give("a")
    until(lambda: one.seen, "what was gained")
    one.api.configmap("b", note="x")
    one.api.configmap("a", note="x")
    until(lambda: len(one.seen) == 2, "the change")
    assert one.seen == [("a", 10), ("a", 10)]


def test_what_failed_is_tried_again_until_it_works(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workqueue.WorkQueue.__init__, "__defaults__", (Backoff(0.001, 0.01),))
    failures = [ValueError("no"), OSError("not yet")]

    def reconcile(_obj: dict[str, Any], _term: Term) -> None:
        if failures:
            raise failures.pop()

    one = bench(reconcile)
    one.api.configmap("a")
    one.hand.give("a")
    until(lambda: one.metric('muster_controller_reconciles_total{result="done"}') == 1, "it to work")
    assert one.metric('muster_controller_reconciles_total{result="failed"}') == 2
    assert len(one.seen) == 3


def test_a_term_that_is_over_is_no_failure(bench: Callable[..., Bench]) -> None:
    def reconcile(_obj: dict[str, Any], term: Term) -> None:
        one.hand.tenures.end("a")
        term.check()

    one = bench(reconcile)
    one.api.configmap("a")
    one.hand.give("a")
    until(lambda: one.metric('muster_controller_reconciles_total{result="superseded"}') == 1, "it to stop")
    assert one.metric('muster_controller_queue{state="later"}') == 0


def test_it_looks_again_when_it_was_asked_to_and_after_a_while_anyway(bench: Callable[..., Bench]) -> None:
    again = iter([0.001, None, None])
    one = bench(lambda obj, term: next(again, 3600.0), resync=(0.001, 0.01))
    one.api.configmap("a")
    one.hand.give("a")
    until(lambda: len(one.seen) == 4, "four looks")
    assert one.metric('muster_controller_queue{state="later"}') == 1


def test_what_is_gone_is_looked_at_no_more(bench: Callable[..., Bench]) -> None:
    one = bench(lambda obj, term: 0.05)
    one.api.configmap("a")
    one.hand.give("a")
    until(lambda: one.seen, "the first look")
    one.api.delete(CONFIGMAPS, "a", "ns")
    until(lambda: not len(one.controller.cache) and not one.metric('muster_controller_queue{state="later"}'), "its end")


def test_at_the_end_it_waits_for_what_is_in_flight_and_begins_nothing(bench: Callable[..., Bench]) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def reconcile(_obj: dict[str, Any], _term: Term) -> None:
        begun.set()
        assert may_end.wait(60)

    one = bench(reconcile, workers=1, leave_seconds=60.0)
    for name in ("a", "b"):
        one.api.configmap(name)
    one.hand.give("a", "b")
    assert begun.wait(60)
    one.controller.stop()
    until(lambda: one.hand.left, "it to leave")
    assert one.thread.is_alive()
    may_end.set()
    one.thread.join(60)
    assert (one.status, len(one.seen)) == ([0], 1)


def test_pages_say_how_it_stands(bench: Callable[..., Bench]) -> None:
    one = bench()
    assert one.ask("/healthz")[0] == 200
    assert one.ask("/readyz") == (200, {"ready": True, "objects": 0, "trouble": None})
    assert one.ask("/authority")[1]["active"] is False
    one.hand.trouble = "the Lease can't be read"
    status, page = one.ask("/readyz")
    assert (status, page["trouble"]) == (503, "the Lease can't be read")
    assert one.metric('muster_controller_trouble{source="authority"}') == 1


def test_keys_are_of_objects_where_nothing_else_is_said() -> None:
    assert key_of({"metadata": {"namespace": "ns", "name": "a"}}) == "ns/a"


def test_a_term_can_be_checked_only_while_it_is_in_force() -> None:
    now = [100.0]
    tenures = Tenures(clock=lambda: now[0])
    tenures.extend(104.0)
    tenures.begin("all", "me", "ns/lease", 7)
    with tenures.work("all") as term:
        assert term is not None and (term.scope, term.fence, term.check()) == ("ns/lease", 7, 4.0)
        now[0] = 104.0
        with pytest.raises(Superseded, match="ns/lease: the term with fence 7 is over"):
            term.check()
        tenures.extend(108.0)
        assert term.check() == 4.0
        tenures.end("all")
        with pytest.raises(Superseded):
            term.check()
        assert tenures.has_orphans()
    assert not tenures.has_orphans()


def test_who_renews_too_late_is_told_that_work_was_turned_away() -> None:
    """Also if nobody noticed before that the time was over: the renewal itself may have taken so long."""
    now = [100.0]
    tenures = Tenures(clock=lambda: now[0])
    assert not tenures.extend(104.0)
    tenures.begin("all", "me", "ns/lease", 7)
    now[0] = 103.9
    assert not tenures.extend(104.0)
    now[0] = 104.0
    with tenures.work("all") as term:
        assert term is None
    assert tenures.extend(108.0)
    assert not tenures.extend(108.0)
    now[0] = 108.0
    assert tenures.lapse() and not tenures.lapse()
    assert tenures.extend(112.0)


def test_what_is_opened_again_may_have_been_asked_for_meanwhile() -> None:
    tenures = Tenures()
    tenures.extend(float("inf"))
    tenures.begin("all", "me", "ns/lease", 7)
    assert not tenures.reopen("all")
    assert tenures.close("all")
    with tenures.work("all") as term:
        assert term is None
    assert tenures.reopen("all") and not tenures.reopen("all")

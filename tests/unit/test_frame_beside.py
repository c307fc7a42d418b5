# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a controller watches beside its own objects: what has it look again, and what it is told of those that go."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    PODS,
    Change,
    LostAnswer,
    Put,
    Recovered,
    Removed,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from ansible_collections.muster.coordination.tests.unit import test_frame_controller
from ansible_collections.muster.coordination.tests.unit.test_frame_controller import Bench
from muster.frame.beside import Beside
from muster.frame.controller import Controller
from muster.process import Query

Object = dict[str, Any]
LOST = LostAnswer(0, "LostAnswer", "the connection was lost")


class Feed:
    """An Api whose `follow` tells what a test gives."""

    def __init__(self) -> None:
        self.asked: Object = {}
        self._changes: queue.SimpleQueue[Change | None] = queue.SimpleQueue()

    def give(self, *changes: Change) -> None:
        for change in changes:
            self._changes.put(change)

    def follow(self, resource: Any, namespace: str | None, *, stop: threading.Event, **what: Any) -> Iterator[Change]:
        self.asked = {"resource": resource, "namespace": namespace, **what}
        while not stop.is_set():
            try:
                change = self._changes.get(timeout=0.02)
            except queue.Empty:
                continue
            if change is not None:
                yield change


def obj(namespace: str, name: str = "x") -> Object:
    return {"metadata": {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}"}}


@pytest.fixture
def feed() -> Feed:
    return Feed()


@pytest.fixture
def watch(feed: Feed) -> Iterator[Callable[..., tuple[Beside, list[str]]]]:
    started: list[Beside] = []

    def make(**options: Any) -> tuple[Beside, list[str]]:
        told: list[str] = []
        api: Any = feed
        watch = Beside(api, PODS, "ns", **options)
        watch.start(told.append)
        started.append(watch)
        return watch, told

    yield make
    for one in started:
        one.stop()


def test_each_change_tells_its_namespace_and_a_list_each_namespace_once(
    feed: Feed, watch: Callable[..., tuple[Beside, list[str]]]
) -> None:
    _watch, told = watch()
    feed.give(Snapshot([obj("a"), obj("b"), obj("a", "y")], "1"))
    until(lambda: len(told) == 2, "the list")
    assert sorted(told) == ["a", "b"]
    feed.give(Put(obj("c")), Removed(obj("d")), Recovered(), Put(obj("e")))
    until(lambda: len(told) == 5, "the changes")
    assert told[2:] == ["c", "d", "e"]
    assert feed.asked["namespace"] == "ns" and feed.asked["resource"] == PODS


def test_a_change_can_concern_one_object_or_none(feed: Feed, watch: Callable[..., tuple[Beside, list[str]]]) -> None:
    _watch, told = watch(
        concerns=lambda obj: None if obj["metadata"]["name"] == "other" else f"a/{obj['metadata']['name']}"
    )
    feed.give(Snapshot([obj("a"), obj("a", "other")], "1"), Put(obj("a", "other")), Removed(obj("a", "y")))
    until(lambda: len(told) == 2, "the two that concern something")
    assert told == ["a/x", "a/y"]


def test_what_is_gone_is_told_before_the_change(feed: Feed) -> None:
    seen: list[Object] = []
    found: list[int] = []
    api: Any = feed
    beside = Beside(api, PODS, removed=seen.append)
    beside.start(lambda _namespace: found.append(len(seen)))
    feed.give(Put(obj("a")), Removed(obj("a", "gone")))
    until(lambda: len(found) == 2, "both")
    assert found == [0, 1] and seen == [obj("a", "gone")]
    beside.stop()


def test_nothing_of_an_object_is_kept_but_what_was_asked_for(
    feed: Feed, watch: Callable[..., tuple[Beside, list[str]]]
) -> None:
    watch(label_selector="a=b")
    until(lambda: feed.asked, "the watch to begin")
    assert feed.asked["shrink"]({**obj("a"), "spec": {"long": "x"}}) == {"metadata": {"namespace": "a"}}
    assert feed.asked["label_selector"] == "a=b"


def test_trouble_is_shown_until_something_is_heard_again(
    feed: Feed, watch: Callable[..., tuple[Beside, list[str]]]
) -> None:
    beside, told = watch()
    feed.give(Trouble(LOST), Trouble(LOST))
    until(lambda: beside.trouble, "the trouble")
    assert "lost" in str(beside.trouble) and told == []
    feed.give(Recovered())
    until(lambda: beside.trouble is None, "it to be well")


# ------------------------------------------------------------------------------------------ in a controller


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """A controller of ConfigMaps in `ns`, of which all are its own, that watches Pods beside them."""
    made: list[Bench] = []

    def make() -> Bench:
        any_api: Any = MemoryApi()
        monkeypatch.setattr(test_frame_controller, "MemoryApi", lambda: any_api)
        made.append(Bench(lambda _obj, _term: None, beside=[Beside(any_api, PODS)]))
        return made[-1]

    yield make
    for one in made:
        one.end()


def test_a_change_beside_has_all_objects_of_its_namespace_looked_at(site: Callable[..., Bench]) -> None:
    bench = site()
    bench.api.configmap("a")
    bench.api.configmap("b")
    bench.hand.give("a", "b")

    def seen(times: int) -> bool:
        names = [name for name, _fence in bench.seen]
        return names.count("a") >= times <= names.count("b")

    until(lambda: seen(1), "both to be looked at")
    bench.api.pod("w-0", phase="Pending")
    until(lambda: seen(2), "both to be looked at once more")
    more = len(bench.seen) // 2 + 1
    bench.api.kill("w-0")
    until(lambda: seen(more), "both, as it is gone")


def test_a_change_beside_has_the_one_object_looked_at_that_it_concerns(monkeypatch: pytest.MonkeyPatch) -> None:
    any_api: Any = MemoryApi()
    monkeypatch.setattr(test_frame_controller, "MemoryApi", lambda: any_api)
    beside = Beside(any_api, PODS, concerns=lambda _pod: "ns/a", shrink=lambda pod: pod)
    bench = Bench(lambda _obj, _term: None, beside=[beside])
    told: list[str] = []
    bench.controller.told.append(told.append)
    for name in "ab":
        bench.api.configmap(name)
    until(lambda: set(told) == {"ns/a", "ns/b"}, "both to be told of")
    again: list[str] = []
    monkeypatch.setattr(bench.controller._queue, "add_after", lambda key, _seconds: again.append(key))
    bench.api.pod("w-0")
    until(lambda: again, "it to be put into the queue")
    assert again == ["ns/a"]
    bench.end()


def test_what_a_replica_may_act_on_is_its_own(site: Callable[..., Bench]) -> None:
    bench = site()
    for name in "abc":
        bench.api.configmap(name)
    until(lambda: len(bench.controller.cache) == 3, "all to be seen")
    assert bench.controller.mine() == []
    bench.hand.give("a", "c")
    assert sorted(bench.controller.mine()) == ["ns/a", "ns/c"]
    bench.hand.tenures.end("a")
    assert bench.controller.mine() == ["ns/c"]


def test_trouble_beside_is_shown_to_who_asks_whether_it_is_ready(site: Callable[..., Bench]) -> None:
    bench = site()
    assert bench.ask("/readyz")[0] == 200
    (beside,) = bench.controller._beside
    beside._take(Trouble(LOST))
    status, told = bench.ask("/readyz")
    assert status == 503 and "lost" in told["trouble"]
    beside._take(Put(obj("ns")))
    assert bench.ask("/readyz")[0] == 200


def test_pages_are_told_what_stands_after_the_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Query] = []
    begin = Controller.__init__

    def with_page(controller: Controller, *args: Any, **options: Any) -> None:
        begin(controller, *args, **options)
        controller.queries = {"/why": lambda query: (asked.append(query), (200, {"job": query.get("job")}))[1]}

    monkeypatch.setattr(Controller, "__init__", with_page)
    bench = Bench(lambda _obj, _term: None)
    assert bench.ask("/why?job=stream%3A1&x=1&x=2") == (200, {"job": "stream:1"})
    assert asked == [{"job": "stream:1", "x": "2"}]
    assert bench.ask("/why") == (200, {"job": None})
    assert "/why" in bench.ask("/nonsense?job=1")[1]["error"]
    bench.end()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache: what it holds and tells after any sequence of lists and changes."""

from __future__ import annotations

import json
import queue
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    Change,
    Forbidden,
    Put,
    Recovered,
    Removed,
    ServerError,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.frame import cache as module
from muster.frame import following
from muster.frame.cache import Cache, key_of


class Feed:
    """In place of an Api: what is put in is what `follow` tells; an error is raised by it."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[Change | Exception | None] = queue.SimpleQueue()
        self.asked: list[dict[str, Any]] = []

    def follow(self, resource: Any, namespace: Any, *, shrink: Any, stop: Any, **selectors: Any) -> Iterator[Change]:
        self.asked.append({"resource": resource, "namespace": namespace, **selectors})
        while True:
            change = self.inbox.get()
            if change is None:
                return
            if isinstance(change, Exception):
                raise change
            if isinstance(change, Snapshot):
                yield Snapshot([shrink(item) for item in change.items], change.resource_version)
            elif isinstance(change, (Put, Removed)):
                yield change._replace(obj=shrink(change.obj))
            else:
                yield change


def obj(name: str, version: int, namespace: str = "ns", **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), "managedFields": [{"a": 1}]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **more}


class Fed:
    """A cache of a feed, and the keys that it told."""

    def __init__(self, **options: Any) -> None:
        self.feed, self.told = Feed(), []
        self.cache = Cache(self.feed, CONFIGMAPS, on_change=self.told.append, **options)  # type: ignore[arg-type]
        self.cache.start()

    def take(self, *changes: Change | Exception) -> list[str]:
        """What it told of these."""
        self.told.clear()
        for change in changes:
            self.feed.inbox.put(change)
        self.feed.inbox.put(Trouble(ServerError(500, "Marker", "all before has been taken in")))
        until(lambda: "Marker" in (self.cache.trouble or ""), "the cache to take all in")
        self.feed.inbox.put(Recovered())
        until(lambda: self.cache.trouble is None, "the cache to recover")
        return list(self.told)


@pytest.fixture
def fed() -> Iterator[Fed]:
    made = Fed()
    yield made
    made.feed.inbox.put(None)
    until(lambda: not made.cache.is_alive, "the cache to end")


def test_a_list_then_changes(fed: Fed) -> None:
    assert not fed.cache.synced.is_set()
    assert fed.take(Snapshot([obj("a", 1), obj("b", 2)], "2")) == ["ns/a", "ns/b"]
    assert fed.cache.synced.is_set() and len(fed.cache) == 2 and fed.cache.lists == 1
    assert fed.take(Put(obj("b", 3, data={"x": "ü\ud800"})), Put(obj("c", 4)), Removed(obj("a", 5))) == [
        "ns/b", "ns/c", "ns/a",
    ]  # fmt: skip
    assert sorted(fed.cache.keys()) == ["ns/b", "ns/c"]
    assert fed.cache.get("ns", "a") is None
    assert fed.cache.get("ns", "b")["data"] == {"x": "ü\ud800"}  # type: ignore[index]


def test_a_new_list_tells_what_was_missed_and_nothing_else(fed: Fed) -> None:
    fed.take(Snapshot([obj("a", 1), obj("b", 2), obj("c", 3)], "3"))
    assert fed.take(Snapshot([obj("b", 2), obj("c", 7), obj("d", 6)], "7")) == ["ns/c", "ns/d", "ns/a"]
    assert sorted(fed.cache.keys()) == ["ns/b", "ns/c", "ns/d"] and fed.cache.lists == 2


def test_an_object_that_was_made_again_under_its_name_is_told(fed: Fed) -> None:
    fed.take(Snapshot([obj("a", 1)], "1"))
    assert fed.take(Snapshot([obj("a", 9)], "9")) == ["ns/a"]


def test_who_reads_may_change_what_it_got(fed: Fed) -> None:
    fed.take(Snapshot([obj("a", 1, data={"x": "1"})], "1"))
    for found in (fed.cache.get("ns", "a"), fed.cache.by_key("ns/a"), *fed.cache.items()):
        found["data"]["x"] = "2"  # type: ignore[index]
    assert [found["data"] for found in fed.cache.items()] == [{"x": "1"}]


def test_memory_is_what_the_objects_are_long_without_their_managers(fed: Fed) -> None:
    fed.take(Snapshot([obj("a", 1), obj("b", 2)], "2"))
    fed.take(Put(obj("a", 3, data={"x": "y" * 1000})), Removed(obj("b", 4)))
    kept = fed.cache.get("ns", "a")
    assert kept is not None and "managedFields" not in kept["metadata"]
    assert fed.cache.size == len(json.dumps(kept, separators=(",", ":")))
    fed.take(Removed(obj("a", 5)))
    assert fed.cache.size == 0


def test_kinds_without_namespaces_have_names_as_keys(fed: Fed) -> None:
    bare = obj("a", 1)
    del bare["metadata"]["namespace"]
    assert key_of(bare) == "a"
    fed.take(Snapshot([bare], "1"))
    assert fed.cache.get(None, "a") is not None


def test_what_a_person_must_mend_is_tried_again(fed: Fed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "RETRY", (0.0, 0.0))
    fed.take(Forbidden(403, "Forbidden", "configmaps is forbidden"))
    assert fed.take(Snapshot([obj("a", 1)], "1")) == ["ns/a"]
    assert len(fed.feed.asked) == 2


def test_it_asks_for_what_it_was_told_to() -> None:
    fed = Fed(namespace="ns", label_selector="a=b")
    fed.feed.inbox.put(None)
    until(lambda: not fed.cache.is_alive, "the cache to end")
    assert fed.feed.asked == [
        {"resource": CONFIGMAPS, "namespace": "ns", "label_selector": "a=b", "field_selector": ""}
    ]


NAMES = st.sampled_from("abcde")
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES),
        st.tuples(st.just("remove"), NAMES),
        st.tuples(st.just("list"), st.sets(NAMES), st.sets(NAMES)),  # removed and changed since the last event
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(changes=CHANGES)
def test_who_follows_the_keys_knows_all(changes: list[Any]) -> None:
    """A copy that is brought up to date only for keys that were told equals what the server has, after each change."""
    truth: dict[str, int] = {}
    copy: dict[str, str] = {}
    cache = Cache(Feed(), CONFIGMAPS)  # type: ignore[arg-type]

    def told(key: str) -> None:
        found = cache.by_key(key)
        copy.pop(key, None)
        if found is not None:
            copy[key] = found["metadata"]["resourceVersion"]

    cache._on_change = told
    for version, (kind, *what) in enumerate(changes, 1):
        if kind == "put":
            truth[what[0]] = version
            cache._take(Put(module._pack(obj(what[0], version))))
        elif kind == "remove":
            truth.pop(what[0], None)
            cache._take(Removed(module._pack(obj(what[0], version))))
        else:
            removed, changed = what
            truth = {name: at for name, at in truth.items() if name not in removed}
            truth.update(dict.fromkeys(changed, version))
            cache._take(Snapshot([module._pack(obj(name, at)) for name, at in truth.items()], str(version)))
        assert copy == {f"ns/{name}": str(at) for name, at in truth.items()}
        assert cache.size == sum(len(entry.packed) for entry in cache._entries.values())

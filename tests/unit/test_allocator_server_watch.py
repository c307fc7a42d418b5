# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches: who is told what, for how long, and what becomes of those who do not listen."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Caller
from ansible_collections.muster.coordination.tests.support.allocator_server import Client, Service, until
from muster.allocator import server_watch
from muster.allocator.auth import NotReviewed
from muster.allocator.server_watch import Hub, Watcher
from muster.http import connections

SOON = 0.05  # seconds between bookmarks, where a test waits for one
BOOKMARKS = 60  # and how many lines it waits


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def created(service: Service, client: Client, key: str = "k", **body: Any) -> str:
    name = client("POST", "/v1/instances", body, key=key).json()["name"]
    service.tell(name)
    return str(name)


def say(service: Service, name: str, words: str) -> None:
    service.change(name, lambda obj: {**obj, "spec": {**obj["spec"], "parameters": {"Words": words}}})


def heard(lines: Iterator[Any], number: int) -> list[tuple[str, str]]:
    """The next events, but for bookmarks, of which there come only so many: type and name."""
    found: list[tuple[str, str]] = []
    for line in islice(lines, BOOKMARKS):
        if line["type"] != "BOOKMARK":
            found.append((line["type"], line["instance"]["name"]))
            if len(found) == number:
                return found
    raise AssertionError(f"only these came: {found}")


def ending(lines: Iterator[Any]) -> list[Any]:
    """All that is left, but for bookmarks; it has to end."""
    found = list(islice(lines, BOOKMARKS))
    assert len(found) < BOOKMARKS, "it goes on"
    return [line for line in found if line["type"] != "BOOKMARK"]


def beginning(lines: Iterator[Any]) -> list[str]:
    """Names of what there was, up to the first bookmark."""
    found = []
    while (line := next(lines))["type"] == "ADDED":
        found.append(line["instance"]["name"])
    assert line == {"type": "BOOKMARK", "instance": None}
    return found


def test_first_what_there_is_then_what_changes(service: Service) -> None:
    mine, other = created(service, service.ann), created(service, service.bob)
    with service.ann.watching() as lines:
        assert beginning(lines) == [mine]
        service.ann("POST", f"/v1/instances/{mine}:suspend")
        service.tell(mine)
        service.change(other, lambda obj: {**obj, "spec": {**obj["spec"], "suspended": True}})
        new = created(service, service.ann, "second")
        service.remove(mine)
        assert heard(lines, 3) == [("MODIFIED", mine), ("ADDED", new), ("DELETED", mine)]


def test_what_is_shared_comes_and_what_is_taken_back_goes_with_nothing_new_in_it(service: Service) -> None:
    name = created(service, service.ann)
    with service.bob.watching() as lines:
        assert beginning(lines) == []
        service.share(name, "bob")
        assert heard(lines, 1) == [("ADDED", name)]
        secret = {"Words": "s3cret"}
        service.change(
            name, lambda obj: {**obj, "spec": {**obj["spec"], "access": {"users": ["eve"]}, "parameters": secret}}
        )
        line = next(lines)
        assert line["type"] == "DELETED" and "s3cret" not in json.dumps(line) and "eve" not in json.dumps(line)
        service.change(name, lambda obj: {**obj, "spec": {**obj["spec"], "suspended": True}})
        own = created(service, service.bob)
        assert heard(lines, 1) == [("ADDED", own)]


def test_what_is_shared_with_a_group_is_told_to_its_members(service: Service) -> None:
    name = created(service, service.ann, access={"groups": ["team"]})
    with service.bob.watching() as lines:
        assert beginning(lines) == [name]


def test_administrators_are_told_of_everything_if_they_ask(service: Service) -> None:
    name = created(service, service.ann)
    with service.eve.watching("watch=true&all=true") as everything, service.eve.watching() as own:
        assert beginning(everything) == [name]
        assert beginning(own) == []


def test_a_change_that_nobody_sees_is_not_told(service: Service) -> None:
    name = created(service, service.ann)
    with service.ann.watching() as lines:
        beginning(lines)
        for _number in range(3):
            service.change(name, lambda obj: {**obj, "spec": {**obj["spec"], "surprise": 4}})
        service.remove(name)
        assert heard(lines, 1) == [("DELETED", name)]


def test_another_of_the_same_name_is_another(service: Service) -> None:
    name = created(service, service.ann)
    with service.ann.watching() as lines:
        beginning(lines)
        there = service.instances()[0]
        service.server.changed(f"ns/{name}", {**there, "metadata": {**there["metadata"], "uid": "another"}})
        assert heard(lines, 2) == [("DELETED", name), ("ADDED", name)]


def test_bookmarks_come_while_nothing_happens() -> None:
    service = Service(bookmark_seconds=SOON)
    with service.ann.watching() as lines:
        assert [next(lines)["type"] for _number in range(3)] == ["BOOKMARK"] * 3
    until("it has left", lambda: service.metric("muster_allocator_watchers") == 0)
    service.close()


def test_a_client_that_goes_away_is_noticed_at_once(service: Service) -> None:
    with service.ann.watching() as lines:
        beginning(lines)
        assert service.metric("muster_allocator_watchers") == 1
    until("it has left", lambda: service.metric("muster_allocator_watchers") == 0, 5)


def test_a_slow_client_is_ended_with_a_problem_and_only_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_watch, "QUEUED", 5)
    service = Service()
    name = created(service, service.ann)
    with socket.socket() as slow, service.ann.watching() as lines:
        slow.connect(("127.0.0.1", service.server.port))
        slow.settimeout(30)
        slow.sendall(b"GET /v1/instances?watch=true HTTP/1.0\r\nAuthorization: Bearer ann\r\n\r\n")
        beginning(lines)
        until("both watch", lambda: service.metric("muster_allocator_watchers") == 2)
        number = 0
        while service.metric("muster_allocator_watchers") == 2:
            number += 1
            words = f"{number} {'x' * 100_000}"
            say(service, name, words)
            assert heard(lines, 1) == [("MODIFIED", name)]
            if any(each.end for each in service.server._hub._watchers):
                break
        last = b"".join(iter(lambda: slow.recv(65536), b"")).splitlines()[-1]
        assert json.loads(last)["type"] == "urn:muster:allocator:overloaded", last[:200]
        service.remove(name)
        assert heard(lines, 1) == [("DELETED", name)]
    until("it is counted", lambda: service.metric("muster_allocator_watches_ended_slow_total") == 1)
    service.close()


def test_a_client_that_reads_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_watch, "QUEUED", 5)
    monkeypatch.setattr(connections, "WRITE_SECONDS", 0.3)
    service = Service()
    name = created(service, service.ann)
    with socket.socket() as stuck:
        stuck.connect(("127.0.0.1", service.server.port))
        stuck.sendall(b"GET /v1/instances?watch=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\n")
        until("it watches", lambda: service.metric("muster_allocator_watchers") == 1)
        number = 0
        while service.metric("muster_allocator_watchers"):
            number += 1
            words = f"{number} {'x' * 100_000}"
            say(service, name, words)
    service.close()


# ------------------------------------------------------------------------------------------ while the token is good


def test_a_token_that_is_revoked_ends_its_watch() -> None:
    service = Service(bookmark_seconds=SOON)
    with service.ann.watching() as lines:
        beginning(lines)
        del service.tokens.callers["ann"]
        created(service, service.bob)
        assert [line["type"] for line in ending(lines)] == ["urn:muster:allocator:unauthenticated"]
    service.close()


def test_a_watch_of_whom_nobody_can_say_who_it_is_any_more_is_ended() -> None:
    service = Service(bookmark_seconds=SOON)
    with service.ann.watching() as lines:
        beginning(lines)
        service.tokens.error = NotReviewed("away")
        assert [line["type"] for line in ending(lines)] == ["urn:muster:allocator:unavailable"]
    service.close()


def test_who_leaves_a_group_is_not_told_of_what_is_the_groups() -> None:
    service = Service(bookmark_seconds=SOON)
    name = created(service, service.ann, access={"groups": ["team"]})
    with service.bob.watching() as lines:
        assert beginning(lines) == [name]
        service.tokens.callers["bob"] = Caller("bob")
        assert heard(lines, 1) == [("DELETED", name)]
        service.tokens.callers["bob"] = Caller("bob", ("team",))
        assert heard(lines, 1) == [("ADDED", name)]
    service.close()


def test_who_is_no_administrator_any_more_watches_everything_no_more() -> None:
    service = Service(bookmark_seconds=SOON)
    with service.eve.watching("watch=true&all=true") as lines:
        beginning(lines)
        service.tokens.callers["eve"] = Caller("eve")
        assert [line["status"] for line in ending(lines)] == [401]
    service.close()


def test_when_the_server_ends_its_watches_are_told(service: Service) -> None:
    with service.ann.watching() as lines:
        beginning(lines)
        closing = threading.Thread(target=service.close)
        closing.start()
        assert next(lines)["type"] == "urn:muster:allocator:unavailable"
        closing.join(20)
    service.close = lambda: None  # type: ignore[method-assign]


# ------------------------------------------------------------------------------------------ bounds


def test_nobody_watches_without_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_watch, "WATCHERS_PER_CALLER", 2)
    monkeypatch.setattr(server_watch, "WATCHERS", 3)
    with ExitStack() as stack:
        for _number in range(2):
            beginning(stack.enter_context(service.ann.watching()))
        refused = service.ann("GET", "/v1/instances?watch=true")
        assert (refused.status, refused.word, refused.headers["retry-after"]) == (429, "throttled", "15")
        beginning(stack.enter_context(service.bob.watching()))
        assert service.eve("GET", "/v1/instances?watch=true").word == "overloaded"


def test_what_changed_while_all_was_read_is_not_told_as_it_was_before(service: Service) -> None:
    """It was there when it was read, and gone when that was told: it is gone."""
    there = {"metadata": {"name": "a", "namespace": "ns", "uid": "1"}, "spec": {"owner": "ann"}}
    hub = Hub(service.offer, lambda call: None)
    hub.begin_fill()
    hub.changed("ns/a", None)
    hub.fill([("ns/a", there), ("ns/b", {**there, "metadata": {**there["metadata"], "name": "b"}})])
    assert [json.loads(line)["instance"]["name"] for line in hub.join(Watcher(Caller("ann"), False))] == ["b"]


def test_changes_that_nobody_has_taken_yet_are_one_for_each_instance(service: Service) -> None:
    calls: list[object] = []
    hub = Hub(service.offer, calls.append)
    for number in range(1000):
        hub.changed(f"ns/{number % 3}", None)
    assert len(calls) == 1 and len(hub._changes) == 3


def test_what_a_watcher_is_behind_is_bounded(service: Service) -> None:
    watcher = Watcher(Caller("ann"), False)
    for number in range(server_watch.QUEUED + 1):
        watcher.tell(b"%d" % number)
        assert len(watcher._lines) <= server_watch.QUEUED
    assert watcher.end is not None and watcher.take() == []

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tokens are reviewed, and remembered for a moment: whom they stand for, and that nothing keeps them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Forbidden,
    LostAnswer,
    Object,
    Resource,
    Unreachable,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import POOL, Caller
from ansible_collections.muster.coordination.tests.support.allocator_server import until
from muster.allocator import auth
from muster.allocator.auth import NotReviewed, Reviewer, Unauthenticated, bearer

GOOD = {"authenticated": True, "user": {"username": "ann", "groups": ["b", "a", "b"]}, "audiences": ["kv"]}


class Api:
    """An API server that says this of each token."""

    def __init__(self, status: Mapping[str, Any] | Exception = GOOD) -> None:
        self.status = status
        self.asked: list[Object] = []
        self.may = threading.Event()
        self.may.set()

    def create(self, resource: Resource, obj: Object) -> Object:
        assert resource.plural == "tokenreviews"
        self.asked.append(obj)
        assert self.may.wait(6)
        if isinstance(self.status, Exception):
            raise self.status
        return {**obj, "status": self.status}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def reviewer(api: Api, audience: str = "kv", seconds: float = 10.0, clock: Clock | None = None) -> Reviewer:
    return Reviewer(api, audience, seconds, clock=clock or Clock())  # type: ignore[arg-type]


def test_a_token_stands_for_whom_the_api_server_says() -> None:
    api = Api()
    assert reviewer(api).review("t") == Caller("ann", ("a", "b"))
    assert api.asked[0]["spec"] == {"token": "t", "audiences": ["kv"]}


def test_without_an_audience_it_is_the_api_servers_own() -> None:
    api = Api({**GOOD, "audiences": ["https://kubernetes.default.svc"]})
    assert reviewer(api, "").review("t").name == "ann"
    assert api.asked[0]["spec"] == {"token": "t"}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"authenticated": False},
        {"authenticated": "true", "user": {"username": "ann"}, "audiences": ["kv"]},
        {**GOOD, "authenticated": False},
        {**GOOD, "audiences": []},
        {**GOOD, "audiences": ["other"]},
        {key: value for key, value in GOOD.items() if key != "audiences"},
        {**GOOD, "user": {}},
        {**GOOD, "user": {"username": ""}},
        {**GOOD, "user": {"username": POOL}},
        {**GOOD, "error": "looked wrong", "authenticated": None},
    ],
)
def test_only_what_is_said_to_be_good_for_this_audience_is(status: Mapping[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        reviewer(Api(status)).review("t")


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "é", "a" * 9000, "\udcff", "=", 'x"y'])
def test_what_can_be_no_token_is_sent_to_nobody(token: str) -> None:
    api = Api()
    with pytest.raises(Unauthenticated):
        reviewer(api).review(token)
    assert not api.asked and reviewer(api).remembered(token) is None


def test_a_review_holds_for_its_seconds_and_no_longer() -> None:
    api, clock = Api(), Clock()
    reviews = reviewer(api, clock=clock)
    reviews.review("t")
    clock.now += 9.9
    assert reviews.remembered("t") == reviews.review("t") and len(api.asked) == 1
    api.status = {"authenticated": False}
    clock.now += 0.1
    assert reviews.remembered("t") is None
    with pytest.raises(Unauthenticated):
        reviews.review("t")


def test_seconds_count_from_when_it_was_asked() -> None:
    """The answer may have been long on its way: meanwhile the token may have been revoked."""
    clock = Clock()

    class Late(Api):
        def create(self, resource: Resource, obj: Object) -> Object:
            clock.now += 8
            return super().create(resource, obj)

    api = Late()
    reviews = reviewer(api, clock=clock)
    reviews.review("t")
    clock.now += 3
    reviews.review("t")
    assert len(api.asked) == 2


def test_a_refusal_holds_shorter() -> None:
    api, clock = Api({"authenticated": False}), Clock()
    reviews = reviewer(api, clock=clock)
    for _number in range(3):
        with pytest.raises(Unauthenticated):
            reviews.review("t")
    assert len(api.asked) == 1
    api.status = GOOD
    clock.now += auth.REFUSED_SECONDS
    assert reviews.review("t").name == "ann"


def test_one_token_is_not_another() -> None:
    api = Api()
    reviews = reviewer(api)
    reviews.review("t")
    api.status = {**GOOD, "user": {"username": "bob"}}
    assert (reviews.review("t").name, reviews.review("T").name) == ("ann", "bob")


@pytest.mark.parametrize("status", [GOOD, {"authenticated": False}, Unreachable(0, "Unreachable", "away")])
def test_who_asks_at_the_same_time_waits_for_one_review(status: Any) -> None:
    api = Api(status)
    api.may.clear()
    reviews = reviewer(api)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(reviews.review, "t") for _number in range(20)]
        until("one has asked", lambda: len(api.asked) == 1, 5)
        api.may.set()
        found = [each.exception() or each.result() for each in asked]
    assert len(api.asked) == 1 or isinstance(status, Exception)
    assert {type(each) for each in found} == {type(found[0])} and not reviews._asking


@pytest.mark.parametrize(
    "error", [Unreachable(0, "Unreachable", "away"), Forbidden(403, "Forbidden", "no"), ValueError("Bearer t0ken")]
)
def test_when_the_api_server_can_not_be_asked_nobody_is_let_in_and_it_is_asked_again(error: Exception) -> None:
    api = Api(error)
    reviews = reviewer(api)
    for _number in range(2):
        with pytest.raises(NotReviewed):
            reviews.review("t0ken")
    assert len(api.asked) == 2
    api.status = GOOD
    assert reviews.review("t0ken").name == "ann"


def test_where_an_answer_was_lost_it_is_asked_once_more() -> None:
    class Loses(Api):
        def create(self, resource: Resource, obj: Object) -> Object:
            if len(self.asked) < self.losses:
                self.asked.append(obj)
                raise LostAnswer(0, "LostAnswer", "the connection was lost")
            return super().create(resource, obj)

        losses = 1

    api = Loses()
    assert reviewer(api).review("t").name == "ann" and len(api.asked) == 2
    api.losses = 9
    with pytest.raises(NotReviewed):
        reviewer(api).review("t")
    assert len(api.asked) == 4


def test_what_is_remembered_is_bounded_and_refusals_drive_out_nothing_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "KEPT", 3)
    monkeypatch.setattr(auth, "REFUSED_KEPT", 2)
    api = Api()
    reviews = reviewer(api)
    for number in range(5):
        reviews.review(f"good{number}")
    api.status = {"authenticated": False}
    for number in range(50):
        with pytest.raises(Unauthenticated):
            reviews.review(f"bad{number}")
    assert (len(reviews._accepted), len(reviews._refused)) == (3, 2)
    assert reviews.review("good4").name == "ann"


def test_which_was_used_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "KEPT", 2)
    api = Api()
    reviews = reviewer(api)
    for token in ("a", "b", "a", "c"):
        reviews.review(token)
    assert reviews.remembered("a") and not reviews.remembered("b")


def test_no_token_is_kept_logged_or_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    api = Api()
    reviews = reviewer(api)
    reviews.review("s3cret.token")
    said = []
    for status in ({"authenticated": False}, ValueError("s3cret.token"), Unreachable(0, "x", "s3cret.token")):
        api.status = status
        with pytest.raises((Unauthenticated, NotReviewed)) as caught:
            reviews.review(f"s3cret.token.{len(said)}")
        said.append(f"{caught.value} {caught.value.__cause__}")
    kept = [value for key, value in vars(reviews).items() if key != "_api"]
    assert "s3cret" not in repr([kept, said, [record.__dict__ for record in caplog.records]])
    assert reviews.results == {"accepted": 1, "refused": 1, "failed": 2, "remembered": 0}


@pytest.mark.parametrize("headers", [["Bearer t"], ["bearer t"], ["BEARER  t "]])
def test_a_bearer_token_is_found(headers: list[str]) -> None:
    assert bearer(headers) == "t"


@pytest.mark.parametrize("headers", [[], [""], ["t"], ["Bearer"], ["Bearer  "], ["Basic t"], ["Bearer t", "Bearer t"]])
def test_no_bearer_token_is_found(headers: list[str]) -> None:
    with pytest.raises(Unauthenticated):
        bearer(headers)

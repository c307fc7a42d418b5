# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allocator's page in a real browser: against a stand-in for what is hard to reach."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from ansible_collections.muster.coordination.tests.browser.stand_in import BreakOff, StandIn, Wait, instance, refusal
from ansible_collections.muster.coordination.tests.browser.stand_in import Refusal as Answer
from ansible_collections.muster.coordination.tests.browser.tab import Tab

PAGE = Path(__file__).parents[2] / "muster" / "allocator" / "page"
MARKUP = "<img src=x onerror=alert(1)><b>bold</b>"
ONE, TWO, SHARED = "syncbased-1111111111", "syncbased-2222222222", "syncbased-5555555555"


def shared(**members: object) -> dict[str, object]:
    return instance(SHARED, "bob", access={"users": ["alice"], "groups": []}, **members)


def event(message: str, **members: object) -> dict[str, object]:
    about = {"time": "2026-03-01T12:00:00Z", "type": "Normal", "reason": "Pulled", "object": f"Pod {ONE}", "count": 1}
    return {**about, "message": message, **members}


def fill_form(tab: Tab) -> None:
    tab.click("#new")
    tab.fill(tab.parameter("title"), "my notes")


# ---------------------------------------------------------------------------------------------------------------------
# Signing in


def test_a_token_is_asked_for_and_kept_in_this_tab_only(tab: Tab, server: StandIn) -> None:
    assert tab.focused == "token"
    assert tab.find("#token").get_attribute("type") == "password"
    tab.press("Sign in")
    assert tab.fault_of("#token") == "Give a token."
    tab.fill("#token", "two words")
    tab.press("Sign in")
    assert "This is no token" in tab.fault_of("#token")
    assert server.seen == []
    tab.fill("#token", "stale")
    tab.press("Sign in")
    tab.until("it is refused", lambda: "The token has expired" in tab.fault_of("#token"))
    tab.sign_in("  alices-token ")
    assert tab.focused == "main"
    assert tab.run("return Object.values(sessionStorage)") == ["alices-token"]
    assert tab.run("return [localStorage.length, document.cookie, location.href]") == [0, "", server.url]
    assert "alices-token" not in tab.run(
        "return document.documentElement.outerHTML + document.getElementById('token').value"
    )
    assert all("token" not in each.path for each in server.seen)
    tab.driver.refresh()
    tab.until("the tab remembers", lambda: tab.text_of("#link-text") == "Live")
    tab.press("Sign out")
    assert tab.is_seen("#token")
    assert tab.run("return sessionStorage.length") == 0
    tab.driver.refresh()
    assert tab.until("there is a form", lambda: tab.is_seen("#token"))


def test_who_is_not_known_any_more_signs_in_again_and_reads_why(tab: Tab, server: StandIn) -> None:
    server.put(instance(ONE))
    tab.sign_in()
    tab.open(ONE)
    tab.press("Destroy")
    stale = refusal(401, "unauthenticated", "the token has expired, or is made for another audience")
    server.plan("DELETE", f"/v1/instances/{ONE}", stale)
    tab.press("Destroy")
    tab.until("there is a form", lambda: tab.is_seen("#token"))
    assert "You have been signed out. The token has expired" in tab.text_of("#sign-in-reason")
    assert not tab.is_seen("dialog")
    assert tab.focused == "token"
    assert tab.run("return sessionStorage.length") == 0
    assert ONE not in tab.run("return document.body.textContent")
    tab.sign_in("bobs-token")
    assert tab.text_of("#caller") == "bob"
    assert tab.names == []


def test_a_watch_that_is_refused_for_its_token_ends_the_session_too(tab: Tab, server: StandIn) -> None:
    tab.sign_in()
    del server.tokens["alices-token"]
    server.hang_up()
    tab.until("there is a form", lambda: tab.is_seen("#token"))
    assert "The token has expired" in tab.text_of("#sign-in-reason")


def test_a_service_that_is_away_is_said_and_tried_again(tab: Tab, server: StandIn) -> None:
    server.plan("GET", "/v1/offer", refusal(503, "unavailable", "no API server", {"Retry-After": "7"}))
    tab.fill("#token", "alices-token")
    tab.press("Sign in")
    tab.says("The service can't reach its cluster. Try again in 7 seconds.")
    tab.sign_in()
    away = refusal(503, "overloaded", "too much", {"Retry-After": "9"})
    server.plan("GET", "/v1/offer", away, BreakOff(False))
    tab.driver.refresh()
    tab.says("The service has too much to do just now.")
    assert re.search(r"tries again in \d seconds", tab.text)
    tab.press("Try again")
    tab.says("No answer came from the service.")
    tab.until("it has come back by itself", lambda: tab.is_seen("#view-content"))
    assert tab.run("return sessionStorage.length") == 1


# ---------------------------------------------------------------------------------------------------------------------
# What there is


def test_until_all_is_there_it_says_that_it_loads(tab: Tab, server: StandIn) -> None:
    held = threading.Event()
    server.put(instance(ONE))
    server.plan("GET", "/v1/disks", Wait(held))
    tab.fill("#token", "alices-token")
    tab.press("Sign in")
    tab.says("Loading…")
    tab.until("the list was told", lambda: ONE in tab.run("return document.getElementById('instances').textContent"))
    assert tab.is_seen("#view-loading") and not tab.is_seen("#instances")
    held.set()
    tab.until("it is there", lambda: tab.names == [ONE])
    assert "Loading" not in tab.text


def test_instances_are_listed_and_followed(tab: Tab, server: StandIn) -> None:
    tab.sign_in()
    assert "You have no instance yet." in tab.text
    assert "0 of 3 used by you" in tab.text
    server.put(instance("syncbased-9999999999", "bob"))  # not this user's to see
    server.put(shared())
    server.put(instance(ONE, phase="Creating", message=f"Deployment {ONE} has 0 of 1 Pods ready"))
    tab.until("it is there", lambda: tab.names == [ONE, SHARED])
    assert "0 of 1 Pods ready" in tab.row(ONE)
    assert "shared by bob" in tab.row(SHARED)
    tab.says("1 of 3 used by you")
    server.put(instance(TWO, created="2026-03-05T12:00:00Z"))
    tab.until("the newest is first", lambda: tab.names == [TWO, ONE, SHARED])
    tab.announces(f"{TWO} is new.")
    server.put(instance(ONE))
    tab.until("it is ready", lambda: "Ready" in tab.row(ONE))
    assert "Pods ready" not in tab.row(ONE)
    tab.announces(f"{ONE} is Ready.")
    server.drop(ONE)
    tab.until("it is gone", lambda: tab.names == [TWO, SHARED])
    tab.announces(f"{ONE} is gone.")
    tab.until("all of one's own are counted", lambda: "1 of 3" in tab.run("return document.title"))


def test_of_many_changes_only_the_number_is_announced(tab: Tab, server: StandIn) -> None:
    tab.sign_in()
    for number in range(7):
        server.put(instance(f"syncbased-{number}"))
    tab.announces("7 instances have changed.")


def test_text_from_elsewhere_is_never_markup(tab: Tab, server: StandIn) -> None:
    server.parameters = {"title": {"type": "string", "description": MARKUP, "pattern": MARKUP, "default": MARKUP}}
    server.events[ONE] = [event(MARKUP, reason=MARKUP, object=MARKUP, type=MARKUP)]
    server.disks = [{"name": MARKUP, "size": MARKUP, "created": MARKUP, "instance": MARKUP}]
    everywhere: dict[str, Any] = {
        "parameters": {MARKUP: MARKUP},
        "endpoints": [{"service": MARKUP, "port": 1, "name": MARKUP}],
        "objects": [{"kind": MARKUP, "name": MARKUP}],
        "access": {"users": ["alice", MARKUP], "groups": [MARKUP]},
    }
    server.put(
        instance(ONE, MARKUP, MARKUP, message=MARKUP, created=MARKUP, template=MARKUP, attach=MARKUP, **everywhere)
    )
    tab.sign_in()
    tab.open(ONE)
    tab.until("events are there", lambda: tab.is_seen(".events li"))
    assert tab.text.count(MARKUP) >= 15
    server.plan("POST", f"/v1/instances/{ONE}:suspend", refusal(409, "conflict", MARKUP))
    tab.press("Suspend")
    tab.until("the refusal is there", lambda: MARKUP in tab.text_of(".open .problem"))
    server.plan("POST", "/v1/instances", refusal(400, "malformed", MARKUP))
    tab.click("#new")
    assert MARKUP in tab.text
    tab.press("Create")
    tab.until("the refusal is there", lambda: MARKUP in tab.text_of("#create-problem"))
    assert tab.run("return document.querySelectorAll('img, b, iframe').length") == 0


def test_no_script_could_make_markup_out_of_text(tab: Tab) -> None:
    source = (PAGE / "app.js").read_text()
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|eval\(|new Function", source
    )
    # said by the page's policy too; in a world of the page's own, as a driver's scripts are not bound to it
    refused = "const s = document.createElement('script'); s.textContent = arguments[0]; document.head.append(s);"
    with pytest.raises(Exception, match=r"TrustedScript|Trusted"):
        tab.run(refused, "window.planted = true")
    assert tab.run("return window.planted") is None
    assert tab.run("return seen.violations").pop().startswith("require-trusted-types-for")
    tab.run("seen.violations = []")
    tab.driver.get_log("browser")
    html = (PAGE / "index.html").read_text()
    assert not re.search(
        r"<style|style=|<script(?! type=\"module\" src=\"app\.js\")|\son[a-z]+=|https?://(?!www\.gnu\.org)", html
    )


def test_details_show_all_that_is_known_of_one(tab: Tab, server: StandIn) -> None:
    server.put(instance(TWO))
    members: dict[str, Any] = {
        "parameters": {"size": "large", "tracing": True, "workers": 4},
        "attach": "old-disk",
        "resets": 2,
    }
    access = {"users": ["bob"], "groups": ["team"]}
    server.put(instance(ONE, storage="retain", template="sha256:" + "ab" * 32, access=access, **members))
    server.events[ONE] = [event("no room", type="Warning", reason="FailedScheduling", count=12)]
    tab.sign_in()
    tab.open(TWO)
    tab.says("The cluster has told none.")
    tab.open(ONE)
    assert not tab.is_seen(f"#details-{TWO}")
    tab.says("Warning: FailedScheduling")
    words = ["12 times", "no room", f"{ONE}:8149", "large", "true", "bob, group team", "old-disk", "2 times"]
    for text in [*words, "its disk is kept", "abababababab, an older one than today's", "PersistentVolumeClaim"]:
        assert text in tab.text, text
    tab.press("Copy")
    tab.announces("cop")
    tab.click(f"#instance-{ONE}")
    assert not tab.is_seen(".open")


def test_events_are_read_again_with_each_change_of_the_open_one(tab: Tab, server: StandIn) -> None:
    path = f"/v1/instances/{ONE}/events"
    server.put(instance(ONE, phase="Creating"))
    server.put(instance(TWO))
    server.plan("GET", path, refusal(503, "unavailable", "no API server"))
    tab.sign_in()
    tab.open(ONE)
    tab.says("The events can't be shown. The service can't reach its cluster.")
    server.events[ONE] = [event("pulled the image")]
    server.put(instance(ONE))
    tab.says("pulled the image")
    assert "can't be shown" not in tab.text
    server.events[ONE] = [event("stopped", reason="Killing"), *server.events[ONE]]
    server.put(instance(ONE, suspended=True, phase="Suspended"))
    tab.says("Killing")
    asked = len(server.asked("GET", path))
    server.put(instance(TWO, phase="Failed"))
    tab.until("the other has changed", lambda: "Failed" in tab.row(TWO))
    assert len(server.asked("GET", path)) == asked == 3
    assert server.asked("GET", f"/v1/instances/{TWO}/events") == []


def test_many_can_be_filtered(tab: Tab, server: StandIn) -> None:
    for number in range(300):
        server.put(instance(f"syncbased-{number:03}", phase="Failed" if number % 100 == 7 else "Ready"))
    tab.sign_in()
    assert len(tab.names) == 300
    tab.fill("#filter", "FAILED")
    assert tab.names == ["syncbased-007", "syncbased-107", "syncbased-207"]
    server.put(instance("syncbased-107"))
    tab.until("it has left", lambda: tab.names == ["syncbased-007", "syncbased-207"])
    tab.fill("#filter", "nothing")
    assert "None of them matches." in tab.text


# ---------------------------------------------------------------------------------------------------------------------
# Staying live


def test_a_lost_connection_is_said_and_made_again(tab: Tab, server: StandIn) -> None:
    server.put(instance(ONE))
    server.put(instance(TWO))
    tab.window(400, 400)  # there is more than can be seen at once
    tab.sign_in()
    away = refusal(503, "unavailable", "no API server", {"Retry-After": "20"})
    server.plan("GET", "/v1/instances", away)
    server.hang_up()
    server.drop(ONE, tell=False)
    server.put(instance(TWO, phase="Failed"))
    tab.until("it is said", lambda: tab.text_of("#link-text") == "Not live")
    tab.announces("The connection is lost")
    assert tab.names == [ONE, TWO]  # what was known
    assert tab.run("return document.getElementById('lost').getBoundingClientRect().bottom <= innerHeight")
    tab.until("it pauses for as long as it is told", lambda: re.search(r"in (20|19|18) seconds", tab.text_of("#lost")))
    assert tab.text_of("#lost-why") == "The service can't reach its cluster."
    tab.press("Try now")
    tab.until("it is live", lambda: tab.text_of("#link-text") == "Live")
    assert tab.names == [TWO]
    assert "Failed" in tab.row(TWO)
    assert not tab.is_seen("#lost")
    assert tab.focused == "main"
    tab.announces("Live again.")
    assert server.watches == 1


def test_an_orderly_end_of_the_watch_makes_no_noise(tab: Tab, server: StandIn) -> None:
    tab.sign_in()
    for _round in range(2):
        watched = len(server.asked("GET", "/v1/instances"))
        server.hang_up()
        tab.until("it watches", lambda before=watched: len(server.asked("GET", "/v1/instances")) > before)
        tab.until("it is live", lambda: tab.text_of("#link-text") == "Live")
    assert tab.announced == []
    server.put(instance(ONE))
    tab.until("it is there", lambda: tab.names == [ONE])


def test_a_watch_that_falls_silent_is_begun_anew(tab: Tab, server: StandIn) -> None:
    """40 seconds are 0.2 in this tab; the stand-in sends no bookmarks by itself."""
    hasty = "const real = setTimeout; window.setTimeout = (call, ms) => real(call, ms === 40000 ? 200 : ms);"
    with tab.before(hasty):
        tab.driver.refresh()
        tab.until("there is a form", lambda: tab.is_seen("#token"))
        tab.fill("#token", "alices-token")
        tab.press("Sign in")
        tab.until("it is said", lambda: tab.is_seen("#lost"))
        tab.until("it is live", lambda: len(server.asked("GET", "/v1/instances")) > 1 and not tab.is_seen("#lost"))
        for _bookmark in range(5):
            server.bookmark()


def test_a_tab_that_nobody_sees_lets_its_connection_go(tab: Tab, server: StandIn) -> None:
    """A minute is 0.05 seconds in this tab."""
    hide = "Object.defineProperty(document, 'hidden', {configurable: true, value: arguments[0]});"
    hide += "document.dispatchEvent(new Event('visibilitychange'))"
    hasty = "const real = setTimeout; window.setTimeout = (call, ms) => real(call, ms === 60000 ? 50 : ms);"
    with tab.before(hasty):
        tab.driver.refresh()
        server.put(instance(ONE))
        tab.sign_in()
        tab.run(hide, True)
        tab.until("it is said", lambda: tab.text_of("#link-text") == "Paused")
        server.drop(ONE)
        tab.until("the connection is gone", lambda: server.watches == 0)
        assert tab.names == [ONE]
        tab.run(hide, False)
        tab.until("it is live", lambda: tab.text_of("#link-text") == "Live")
        tab.until("it is gone", lambda: tab.names == [])
        assert not tab.is_seen("#lost")


def test_an_answer_that_is_newer_than_the_list_is_kept_until_the_list_has_had_its_time(
    tab: Tab, server: StandIn
) -> None:
    held = threading.Event()
    tab.sign_in()
    fill_form(tab)
    server.plan("GET", "/v1/instances", Wait(held))
    watched = len(server.asked("GET", "/v1/instances"))
    server.hang_up()
    tab.until("it watches", lambda: len(server.asked("GET", "/v1/instances")) > watched)
    tab.press("Create")
    tab.until("it is shown", lambda: len(tab.names) == 1)
    server.drop(tab.names[0], tell=False)  # the list that comes next does not know it yet
    held.set()
    tab.until("it is live", lambda: tab.text_of("#link-text") == "Live")
    assert len(tab.names) == 1
    server.bookmark()
    tab.until("it is gone", lambda: tab.names == [])


# ---------------------------------------------------------------------------------------------------------------------
# Creating


def test_the_form_is_what_the_template_asks_for(tab: Tab, server: StandIn) -> None:
    tab.sign_in()
    tab.click("#new")
    kinds = (
        "return [...document.querySelectorAll('[data-parameter]')]"
        ".map((e) => `${e.dataset.parameter} ${e.type} ${e.value}`)"
    )
    texts = [
        "size select-one 0",
        "workers number 2",
        "ratio number 0.5",
        "title text ",
        "notes textarea ",
        "tracing checkbox on",
    ]
    assert tab.run(kinds) == texts
    for text in (
        "How much it gets.",
        "A whole number from 1 to 16.",
        "2 to 20 characters, must match ^[a-z ]+$.",
        "title (required)",
    ):
        assert text in tab.text
    assert not tab.is_seen("#attach")  # there is no disk to attach
    assert tab.focused == "parameter-0"
    fine = {"title": "fine", "workers": "3", "ratio": "0.5"}
    for name, given, said in (
        ("title", "", "Give a value."),
        ("title", "a", "Give at least 2 characters: it has 1."),
        ("title", "a" * 21, "Give at most 20 characters: it has 21."),
        ("title", "A Title", "Give text that matches ^[a-z ]+$."),
        ("workers", "17", "Give at most 16."),
        ("workers", "0", "Give at least 1."),
        ("workers", "1.5", "Give a whole number."),
        ("workers", "1e", "This is no number."),
        ("ratio", "-0.1", "Give at least 0."),
    ):
        tab.fill(tab.parameter(name), given)
        tab.press("Create")
        assert tab.fault_of(tab.parameter(name)) == said
        assert tab.run("return document.activeElement.dataset.parameter") == name
        tab.fill(tab.parameter(name), fine[name])
    assert server.asked("POST", "/v1/instances") == []
    tab.fill(tab.parameter("ratio"), "")  # nothing: as the template has it
    tab.choose(tab.parameter("size"), "large")
    tab.click(tab.parameter("tracing"))
    tab.click("[name=storage][value=retain]")
    tab.press("Cancel")
    tab.click("#new")  # what was filled in is still there
    tab.click("#share summary")
    tab.fill("#share-users", "bob\n\n carol ")
    tab.fill("#share-groups", "cn=team,dc=example")
    tab.press("Create")
    tab.until("it is shown", lambda: len(tab.names) == 1)
    wish = {"size": "large", "workers": 3, "title": "fine", "tracing": True}
    access = {"users": ["bob", "carol"], "groups": ["cn=team,dc=example"]}
    (asked,) = server.asked("POST", "/v1/instances")
    assert asked.body == {"parameters": wish, "access": access, "storage": "retain"}
    assert re.fullmatch("[0-9a-f]{32}", asked.headers["Idempotency-Key"])
    tab.until("it is closed", lambda: not tab.is_seen("dialog"))
    assert tab.is_seen(".open")
    assert tab.focused == f"instance-{tab.names[0]}"
    tab.announces(f"{tab.names[0]} is new.")
    tab.click("#new")  # and now it is empty again
    assert tab.run("return document.querySelector(arguments[0]).value", tab.parameter("title")) == ""
    assert tab.run("return document.getElementById('share-users').value") == ""


def test_a_template_without_parameters_and_disks(tab: Tab, server: StandIn) -> None:
    server.parameters, server.has_disk = {}, False
    tab.sign_in()
    assert not tab.is_seen("#disks-part")
    tab.click("#new")
    assert not tab.is_seen("#storage-field")
    tab.press("Create")
    tab.until("it is shown", lambda: len(tab.names) == 1)
    assert server.asked("POST", "/v1/instances")[0].body == {"parameters": {}, "access": {"users": [], "groups": []}}
    assert server.asked("GET", "/v1/disks") == []


def test_a_double_click_makes_one(tab: Tab, server: StandIn) -> None:
    held = threading.Event()
    server.plan("POST", "/v1/instances", Wait(held))
    tab.sign_in()
    fill_form(tab)
    tab.run("for (let i = 0; i < 5; i += 1) document.getElementById('create-go').click()")
    tab.says("Creating…")
    tab.press("Creating…")
    tab.keys(Keys.ENTER)
    held.set()
    tab.until("it is shown", lambda: len(tab.names) == 1)
    assert len(server.asked("POST", "/v1/instances")) == 1
    assert len(server.instances) == 1


def test_a_request_whose_answer_was_lost_is_sent_again_under_its_key(tab: Tab, server: StandIn) -> None:
    server.plan(
        "POST", "/v1/instances", BreakOff(is_done=True), refusal(503, "overloaded", "too much", {"Retry-After": "1"})
    )
    tab.sign_in()
    fill_form(tab)
    tab.press("Create")
    tab.says("No answer came from the service. Perhaps it was made all the same.")
    tab.press("Create")
    tab.says("The service has too much to do just now. Try again in 1 second.")
    tab.driver.refresh()  # also a new page knows
    tab.until("it is live", lambda: tab.text_of("#link-text") == "Live")
    fill_form(tab)
    tab.press("Create")
    tab.until("it is closed", lambda: not tab.is_seen("dialog"))
    keys = [each.headers["Idempotency-Key"] for each in server.asked("POST", "/v1/instances")]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(server.instances) == len(tab.names) == 1
    fill_form(tab)  # an answer came: what is asked for now is another one
    tab.press("Create")
    tab.until("it is shown", lambda: len(tab.names) == 2)
    assert len(server.instances) == 2


def test_another_request_has_another_key(tab: Tab, server: StandIn) -> None:
    server.plan(
        "POST", "/v1/instances", BreakOff(is_done=False), refusal(403, "quota", "no", limit=3, used=3, scope="owner")
    )
    tab.sign_in()
    fill_form(tab)
    tab.press("Create")
    tab.says("No answer came")
    tab.fill(tab.parameter("title"), "other notes")
    tab.press("Create")
    tab.says("You have used 3 of 3. Destroy an instance to make room for another.")
    tab.press("Create")  # it was refused for good: this is a new request, though it is the same
    tab.until("it is shown", lambda: len(tab.names) == 1)
    keys = [each.headers["Idempotency-Key"] for each in server.asked("POST", "/v1/instances")]
    assert len(set(keys)) == 3


def test_refusals_are_shown_where_they_belong(tab: Tab, server: StandIn) -> None:
    server.disks = [{"name": "old-disk", "size": "50G", "created": "2026-03-01T12:00:00Z", "instance": TWO}]
    tab.sign_in()
    fill_form(tab)
    tab.choose("#attach", "old-disk, 50G")
    for detail, selector in (
        ("parameters.workers is 5: give at most 4", tab.parameter("workers")),
        ("attach is 'old-disk': give the name of a disk that you have kept", "#attach"),
        ("access.users[0] is '': give a name", "#share-users"),
    ):
        server.plan("POST", "/v1/instances", refusal(400, "malformed", detail))
        tab.press("Create")
        tab.until("it is said", lambda at=selector, said=detail: said[1:] in tab.fault_of(at))
        assert tab.run("return document.activeElement === document.querySelector(arguments[0])", selector)
    for planned, said in (
        (
            refusal(403, "quota", "x", limit=10, used=10, scope="global"),
            "All places of this service are taken (10 of 10).",
        ),
        (
            refusal(422, "refused-by-cluster", "Deployment: quota"),
            "The cluster would not take this instance: Deployment: quota",
        ),
        (refusal(409, "key-busy", "x"), "is being destroyed. Send it again for a new one."),
        (refusal(422, "key-reused", "x"), "could not be told from an earlier one"),
        (
            refusal(429, "throttled", "x", {"Retry-After": "3"}),
            "You ask for more than the service answers. Try again in 3 seconds.",
        ),
        (Answer(500, None), "The service answered with status 500."),
    ):
        server.plan("POST", "/v1/instances", planned)
        tab.press("Create")
        tab.until("it is said", lambda text=said: text in tab.text_of("#create-problem"))
        assert tab.fault_of("#share-users") == ""
        assert tab.is_seen("#create-problem[role=alert]")
    tab.press("Create")
    tab.until("it is shown", lambda: len(tab.names) == 1)
    assert server.asked("POST", "/v1/instances")[-1].body["attach"] == "old-disk"


def test_who_has_used_all_is_told_before(tab: Tab, server: StandIn) -> None:
    server.limit = 0
    tab.sign_in()
    assert "0 of 0 used by you" in tab.text
    assert "You may have none here." in tab.text
    server.limit = 1
    server.put(instance(ONE))
    tab.says("1 of 1 used by you")
    assert "All of yours are in use: destroy one to make room for another." in tab.text
    tab.click("#new")
    assert "All of yours are in use" in tab.text_of("#create-full")
    server.drop(ONE)
    tab.until("there is room", lambda: not tab.is_seen("#create-full"))


# ---------------------------------------------------------------------------------------------------------------------
# What is done with one


def test_suspend_and_resume(tab: Tab, server: StandIn) -> None:
    held = threading.Event()
    server.put(instance(ONE))
    server.plan("POST", f"/v1/instances/{ONE}:suspend", refusal(503, "unavailable", "no API server"), Wait(held))
    tab.sign_in()
    tab.open(ONE)
    tab.press("Suspend")
    tab.until(
        "it is said", lambda: "The service can't reach its cluster" in tab.text_of(f"#details-{ONE} [role=alert]")
    )
    tab.press("Suspend")
    tab.press("Suspending…")
    held.set()
    tab.until("it is under way", lambda: "Suspending" in tab.row(ONE) and "Resume" in tab.row(ONE))
    assert not tab.is_seen(f"#details-{ONE} [role=alert]")
    assert len(server.asked("POST", f"/v1/instances/{ONE}:suspend")) == 2
    server.put(instance(ONE, phase="Suspended", suspended=True))
    tab.until("it is suspended", lambda: "Suspended" in tab.row(ONE))
    assert tab.focused.startswith("Resume")
    tab.press("Resume")
    tab.until("it is under way", lambda: "Resuming" in tab.row(ONE) and "Suspend" in tab.row(ONE))


def test_reset_wants_the_name_and_says_what_was_seen(tab: Tab, server: StandIn) -> None:
    path = f"/v1/instances/{ONE}:reset"
    server.put(instance(ONE, resets=4))
    server.plan("POST", path, BreakOff(is_done=False))
    tab.sign_in()
    tab.open(ONE)
    tab.press("Reset…")
    assert tab.focused == "reset-name"
    tab.fill("#reset-name", "something")
    tab.press("Reset")
    assert tab.fault_of("#reset-name") == f"Type {ONE} to reset it."
    assert server.asked("POST", path) == []
    tab.fill("#reset-name", ONE)
    tab.press("Reset")
    tab.says("No answer came from the service.")
    server.put(instance(ONE, resets=5))  # it was done all the same
    tab.press("Reset")
    tab.until("it is closed", lambda: not tab.is_seen("dialog"))
    assert [each.body for each in server.asked("POST", path)] == [{"resets": 4}, {"resets": 4}]
    assert "Resetting" in tab.row(ONE)


@pytest.mark.parametrize("keeps", [False, True])
def test_destroy_asks_and_keeps_the_disk_if_that_is_wanted(tab: Tab, server: StandIn, keeps: bool) -> None:
    path = f"/v1/instances/{ONE}"
    server.put(instance(ONE, storage="delete" if keeps else "retain"))
    server.plan("DELETE", path, refusal(403, "not-owner", "only its owner may destroy it"))
    tab.sign_in()
    tab.open(ONE)
    tab.press("Destroy…")
    assert tab.focused == "Cancel"
    tab.keys(Keys.ESCAPE)
    assert not tab.is_seen("dialog")
    assert tab.focused.startswith("Destroy…")
    tab.keys(Keys.ENTER)
    assert tab.find(f"[name=keep][value={'delete' if keeps else 'retain'}]").is_selected()
    tab.click(f"[name=keep][value={'retain' if keeps else 'delete'}]")
    tab.press("Destroy")
    tab.until("it is said", lambda: "Only its owner may destroy it." in tab.text_of("#destroy-problem"))
    tab.press("Destroy")
    tab.until("it is closed", lambda: not tab.is_seen("dialog"))
    assert [each.path for each in server.asked("DELETE", path)] == [
        f"{path}?storage={'retain' if keeps else 'delete'}"
    ] * 2
    assert "It is being destroyed." in tab.row(ONE)
    assert not re.search("Suspend|Reset|Destroy…", tab.row(ONE))
    assert tab.focused == f"instance-{ONE}"
    server.disks = [{"name": ONE, "size": "50G", "created": "2026-03-01T12:00:00Z", "instance": ONE}] if keeps else []
    server.drop(ONE)
    tab.until("it is gone", lambda: tab.names == [])
    assert tab.focused == "new"
    tab.until(
        "disks are read again",
        lambda: (ONE in tab.text_of("#disks")) is keeps and len(server.asked("GET", "/v1/disks")) > 1,
    )


def test_destroying_what_is_gone_already(tab: Tab, server: StandIn) -> None:
    server.put(instance(ONE, objects=[{"kind": "Deployment", "name": ONE}]))
    tab.sign_in()
    tab.open(ONE)
    assert not re.search("Reset", tab.row(ONE))  # it has nothing that could be
    server.drop(ONE, tell=False)
    tab.press("Destroy…")
    assert not tab.is_seen("#destroy-disk")
    tab.press("Destroy")
    tab.until("it is gone", lambda: tab.names == [])
    assert not tab.is_seen("dialog")
    tab.announces(f"{ONE} is gone.")


def test_whom_it_is_shared_with_can_suspend_only(tab: Tab, server: StandIn) -> None:
    server.put(shared())
    tab.sign_in()
    tab.open(SHARED)
    assert "Only its owner can reset or destroy it." in tab.row(SHARED)
    assert not re.search("Reset…|Destroy…", tab.row(SHARED))
    tab.press("Suspend")
    tab.until("it is under way", lambda: "Suspending" in tab.row(SHARED))


def test_retained_disks_are_removed_when_that_is_confirmed(tab: Tab, server: StandIn) -> None:
    made = {"size": "50G", "created": "2026-03-01T12:00:00Z"}
    server.disks = [{"name": "disk-a", "instance": ONE, **made}, {"name": "disk-b", **made}]
    server.plan("DELETE", "/v1/disks/disk-a", refusal(409, "conflict", "the disk is being attached"))
    tab.sign_in()
    tab.until("they are there", lambda: "disk-b" in tab.text_of("#disks"))
    assert f"50G of {ONE}, made" in tab.text_of("#disks")
    tab.click("#disks li:first-child button")
    tab.press("Remove")
    tab.says("The disk is being attached.")
    tab.press("Remove")
    tab.until("it is gone", lambda: "disk-a" not in tab.text_of("#disks"))
    assert tab.focused.startswith("Remove…")
    tab.announces("Disk disk-a is removed.")
    tab.click("#disks button")
    tab.press("Remove")
    tab.until("there are none", lambda: tab.is_seen("#disks-empty"))
    server.plan("GET", "/v1/disks", refusal(503, "unavailable", "no API server"))
    tab.driver.refresh()
    tab.says("The disks can't be shown. The service can't reach its cluster.")


def test_administrators_see_all(tab: Tab, server: StandIn) -> None:
    server.put(instance(ONE, "bob"))
    server.put(instance(TWO, "", "Ready"))
    tab.sign_in("roots-token")
    assert tab.names == []
    assert not tab.is_seen("#everything:checked")
    tab.click("#everything")
    tab.until("all are there", lambda: tab.names == [ONE, TWO])
    assert "of bob" in tab.row(ONE)
    assert "of nobody yet" in tab.row(TWO)
    tab.open(ONE)
    assert "Destroy…" in tab.row(ONE)
    tab.click("#everything")
    tab.until("they are not", lambda: tab.names == [] and "You have no instance yet." in tab.text)
    server.plan("GET", "/v1/instances", refusal(403, "not-administrator", "leave all out"))
    tab.click("#everything")
    tab.until("it is said", lambda: "Leave all out." in tab.text_of("#list-problem"))
    assert not tab.is_seen("#everything:checked")
    tab.press("Sign out")
    tab.sign_in()
    assert not tab.is_seen("#everything")


# ---------------------------------------------------------------------------------------------------------------------
# For everybody


def test_all_can_be_done_by_the_keyboard(tab: Tab, server: StandIn) -> None:
    tab.keys("alices-token", Keys.ENTER)
    tab.until("all is shown", lambda: tab.is_seen("#view-content"))
    tab.tab_to("new")
    tab.keys(Keys.ENTER)
    tab.tab_to("parameter-3")
    tab.keys("by keys", Keys.ENTER)
    tab.until("it is shown", lambda: len(tab.names) == 1)
    tab.until("it is closed", lambda: not tab.is_seen("dialog"))
    name = tab.names[0]
    assert tab.focused == f"instance-{name}"
    tab.keys(Keys.SPACE)
    assert not tab.is_seen(".open")
    tab.keys(Keys.ENTER)
    tab.tab_to("Destroy…")
    tab.keys(Keys.ENTER)
    assert tab.focused == "Cancel"
    assert tab.run("return document.querySelector('dialog:modal') !== null")
    for _step in range(8):  # the focus stays within
        tab.keys(Keys.TAB)
        assert tab.run("return document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    tab.tab_to("destroy-go")
    tab.keys(Keys.ENTER)
    tab.until("it is under way", lambda: "Destroying" in tab.row(name))
    tab.run("document.activeElement.blur()")
    tab.driver.refresh()
    tab.until("all is shown", lambda: tab.is_seen("#view-content"))
    tab.keys(Keys.TAB)
    assert tab.run("return document.activeElement.getBoundingClientRect().top") >= 0  # "Skip to the content" is seen
    tab.keys(Keys.ENTER)
    assert tab.focused == "main"


def hard_world(server: StandIn) -> None:
    """Long names, long words, all moods."""
    long = "x" * 240
    server.put(instance(ONE, phase="Failed", message=f"Deployment {long} is there and is not its own"))
    server.put(
        instance(f"syncbased-{'n' * 53}", phase="Creating", parameters={"a" * 63: long, "text": f"{long}\n{long}"})
    )
    server.put(shared(phase="Suspended", suspended=True, message=long))
    server.disks = [{"name": long, "size": "50G", "created": "2026-03-01T12:00:00Z", "instance": long}]
    server.events[ONE] = [event(long, object=f"Pod {long}", reason="R" * 60, type="Warning", count=1000)]
    server.parameters["pattern_" + "p" * 55] = {
        "type": "string",
        "pattern": f"^{'[a-z]' * 40}$",
        "description": long,
        "default": "",
    }


@pytest.mark.parametrize(("width", "height"), [(320, 640), (640, 450), (1280, 900)], ids=["phone", "zoomed", "desktop"])
def test_nothing_goes_beyond_the_window(tab: Tab, server: StandIn, width: int, height: int) -> None:
    """640 x 450 is a window of 1280 x 900 at 200 %."""
    hard_world(server)
    tab.window(width, height)
    assert tab.overflow() == (0, [])
    tab.sign_in()
    assert tab.overflow() == (0, [])
    tab.open(ONE)
    tab.until("events are there", lambda: tab.is_seen(".events li"))
    assert tab.overflow() == (0, [])
    tab.press("Destroy…")
    assert tab.overflow() == (0, [])
    tab.press("Cancel")
    tab.press("Reset…")
    assert tab.overflow() == (0, [])
    tab.press("Cancel")
    tab.click("#new")
    tab.press("Create")
    assert tab.fault_of(tab.parameter("title"))
    assert tab.overflow() == (0, [])
    # what has the focus is not behind the buttons
    at = (
        "const e = document.activeElement, box = e.getBoundingClientRect();"
        "return document.elementFromPoint(box.x + 9, box.y + 9) === e"
    )
    assert tab.run(at)
    tab.run("document.querySelector('#share').open = true")
    tab.run("document.querySelector('#share-groups').focus()")
    assert tab.run(at)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_audit_finds_nothing(tab: Tab, server: StandIn, scheme: str) -> None:
    hard_world(server)
    tab.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    assert tab.run("return getComputedStyle(document.body).backgroundColor") == {
        "light": "rgb(244, 246, 248)",
        "dark": "rgb(17, 22, 29)",
    }[scheme]  # fmt: skip
    tab.press("Sign in")
    assert tab.audit() == []
    tab.sign_in()
    assert tab.run("return document.getAnimations().length") == 0
    assert tab.audit() == []
    tab.open(ONE)
    tab.until("events are there", lambda: tab.is_seen(".events li"))
    server.plan("POST", f"/v1/instances/{ONE}:suspend", refusal(409, "conflict", "something else happens to it"))
    tab.press("Suspend")
    tab.says("Something else happens to it.")
    assert tab.audit() == []
    for button in ("Reset…", "Destroy…", "Remove…"):
        tab.press(button)
        assert tab.audit() == []
        tab.press("Cancel")
    tab.click("#new")
    tab.click("#share summary")
    tab.press("Create")
    assert tab.audit() == []
    server.plan("GET", "/v1/offer", *[refusal(503, "unavailable", "no API server")] * 2)
    tab.driver.refresh()
    tab.says("The service can't be shown now")
    assert tab.audit() == []
    assert tab.run("return document.getAnimations().length") == 0


def test_an_audit_would_find_what_is_wrong(tab: Tab) -> None:
    tab.run(
        "document.querySelector('label[for=token]').remove();"
        "document.querySelector('#sign-in-title').style.color = '#999';"
        "document.querySelector('#main').append(document.createElement('h5'), document.createElement('button'));"
        "document.querySelector('#main').lastChild.id = 'token'; document.querySelector('h5').textContent = 'Deep';"
    )
    found = "\n".join(tab.audit())
    for what in ("no name: <input", "no name: <button", "the id token", "a heading of level 5", "2.8"):
        assert what in found, found
    tab.run("document.querySelector('#sign-in').append('w'.repeat(400)); document.body.style.overflowWrap = 'normal'")
    assert tab.overflow() != (0, [])


def test_nothing_moves_by_itself(tab: Tab, server: StandIn) -> None:
    for name in (ONE, TWO):
        server.put(instance(name))
    server.disks = [{"name": "disk-a", "size": "50G", "created": "2026-03-01T12:00:00Z", "instance": ONE}]
    tab.sign_in()
    tab.driver.refresh()
    tab.until("it is live", lambda: tab.text_of("#link-text") == "Live")
    server.put(instance(ONE, phase="Suspending", suspended=True))
    server.put(instance(TWO, phase="Failed"))
    tab.until("it is told", lambda: "Failed" in tab.row(TWO))
    server.plan("GET", "/v1/instances", Answer(502, None))
    server.hang_up()
    tab.until("it is said", lambda: tab.is_seen("#lost"))
    tab.until("it is live", lambda: tab.text_of("#link-text") == "Live")
    tab.run("return new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert tab.run("return seen.shift") < 0.01, tab.run("return seen.shifts")

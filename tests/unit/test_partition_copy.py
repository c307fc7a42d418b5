# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker makes of calls, and what it may do by its own reads, by example."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import partition_copy as rules
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range
from ansible_collections.muster.coordination.plugins.module_utils.decisions.partition_copy import (
    FENCED,
    FOLLOWING,
    LOADING,
    PRIMARY,
    PROXY,
    Copy,
    Drop,
    NeedsHeirs,
    Pass,
    Serve,
    Take,
    Wait,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

WHOLE = Range("", "")
OWN = Copy("p", WHOLE, PRIMARY, 5, 0, 7)
FENCED_AT_6 = OWN._replace(role=FENCED, fenced_epoch=6, assignment="a", uid="u")
TARGET = Copy("p", WHOLE, FOLLOWING, 5, 0, 7, "a", "u", origin="w1")
FOLLOWER = Copy("p", WHOLE, FOLLOWING, 5, 0, 7, origin="w1")


def order(**said: Any) -> dict[str, Any]:
    body = {"assignment": "a", "uid": "u", "partition": "p", "epoch": 6, "range": {"start": "", "end": ""}}
    return rules.order_of({**body, **said})


def call(verb: str, *copies: Copy, **said: Any) -> rules.Outcome:
    made: rules.Outcome = getattr(rules, verb)({copy.partition: copy for copy in copies}, order(**said))
    return made


def partition(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"range": {"start": "", "end": ""}, **spec}}


def assignment(phase: str, *results: dict[str, Any], uid: str = "u") -> dict[str, Any]:
    return {"metadata": {"name": "a", "uid": uid}, "status": {"phase": phase, "results": list(results)}}


def result(primary: str, epoch: int, name: str = "p", **more: Any) -> dict[str, Any]:
    return {"partition": name, "range": {"start": "", "end": ""}, "primary": primary, "epoch": epoch, **more}


def says(copy: Copy, seen: Any, other: Any = None, *more: Copy, **said: Any) -> rules.Verdict:
    copies = {each.partition: each for each in (copy, *more)}
    return rules.authority(copies, copy, seen, other, "w1", **said)


# ------------------------------------------------------------------------------------------ calls


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "the body"),
        ({"partition": ""}, "partition"),
        ({"partition": 7}, "partition"),
        ({"partition": "p", "epoch": -1}, "epoch"),
        ({"partition": "p", "epoch": True}, "epoch"),
        ({"partition": "p", "from": "w1"}, "from"),
        ({"partition": "p", "range": {"start": 1}}, "range"),
        ({"partition": "p", "uid": "u" * 254}, "uid"),
    ],
)
def test_a_body_that_makes_no_sense_is_refused_by_its_field(body: Any, field: str) -> None:
    with pytest.raises(Malformed) as refused:
        rules.order_of(body)
    assert field in str(refused.value)


def test_a_copy_is_the_same_after_a_report() -> None:
    copy = FENCED_AT_6._replace(followers=("w2",), prepared="v", proxy="w3")
    assert rules.from_json(rules.to_json(copy)) == copy
    with pytest.raises(Malformed):
        rules.from_json({**rules.to_json(copy), "role": "king"})
    with pytest.raises(Malformed):
        rules.from_json({**rules.to_json(copy), "position": -1})


def test_follow_makes_a_copy_that_loads_or_an_empty_one() -> None:
    loading = call("follow", **{"from": {"worker": "w1"}})
    assert loading.write == (Copy("p", WHOLE, LOADING, 6, 0, 0, "a", "u", origin="w1"),) and loading.clear == (WHOLE,)
    assert call("follow", epoch=0).write[0].role == FOLLOWING


def test_follow_twice_does_nothing_and_a_late_one_of_another_is_refused() -> None:
    again = {"from": {"worker": "w1"}, "epoch": 5}
    assert call("follow", TARGET, **again) == rules.Outcome()
    assert call("follow", TARGET, **again, uid="other").refusal == "stale"
    assert call("follow", FOLLOWER, **again).refusal == "stale"
    assert call("follow", TARGET, **{**again, "epoch": 6}, uid="other").write[0].role == LOADING


def test_follow_leaves_what_has_data_alone() -> None:
    for copy in (OWN, FENCED_AT_6, OWN._replace(role=PROXY)):
        assert call("follow", copy, epoch=9).refusal == "busy"
    assert call("follow", TARGET._replace(partition="q"), epoch=9).refusal == "busy"


def test_a_follower_begins_anew_at_a_higher_epoch() -> None:
    said = {"assignment": "", "uid": "", "from": {"worker": "w1"}}
    assert call("follow", FOLLOWER, **said, epoch=5) == rules.Outcome()
    assert call("follow", FOLLOWER, **said, epoch=6).write[0] == Copy("p", WHOLE, LOADING, 6, origin="w1")


def test_prepare() -> None:
    assert call("prepare", OWN).write == (OWN._replace(prepared="u"),)
    assert call("prepare", OWN._replace(prepared="u")) == rules.Outcome()
    assert call("prepare", OWN, epoch=4).refusal == "stale"
    assert call("prepare").refusal == call("prepare", FENCED_AT_6).refusal == "not-here"


def test_fence() -> None:
    assert call("fence", OWN).write == (FENCED_AT_6,)
    assert call("fence", FENCED_AT_6) == rules.Outcome()
    assert call("fence", OWN, epoch=5).refusal == call("fence", FENCED_AT_6, epoch=5).refusal == "stale"
    assert call("fence", FENCED_AT_6._replace(role=PRIMARY, epoch=7), epoch=7).refusal == "stale"
    assert call("fence").refusal == call("fence", TARGET).refusal == "not-here"


def test_proxy() -> None:
    said = {"to": {"worker": "w2"}, "epoch": 7}
    passing = FENCED_AT_6._replace(role=PROXY, proxy="w2")
    assert call("proxy", FENCED_AT_6, **said).write == (passing,)
    assert call("proxy", passing, **said) == rules.Outcome()
    assert call("proxy", FENCED_AT_6, **{**said, "epoch": 6}).refusal == "stale"
    assert call("proxy", OWN, **said).refusal == "not-here"


def test_drop() -> None:
    assert call("drop") == rules.Outcome()
    assert call("drop", TARGET).remove == call("drop", FENCED_AT_6, epoch=7).remove == ("p",)
    assert call("drop", TARGET, uid="other").refusal == "stale"
    assert call("drop", OWN, epoch=99).refusal == "busy"
    assert call("drop", FENCED_AT_6, epoch=6).refusal == "stale"
    assert call("drop", FOLLOWER, assignment="", uid="", epoch=5).refusal == "stale"
    assert call("drop", FOLLOWER, assignment="", uid="", epoch=6).remove == ("p",)


def test_promise() -> None:
    assert call("promise", OWN, epoch=5, follower="w2").write == (OWN._replace(followers=("w2",)),)
    assert call("promise", OWN._replace(followers=("w2",)), epoch=5, follower="w2") == rules.Outcome()
    assert (
        call("promise", OWN, epoch=4, follower="w2").refusal == call("promise", OWN, follower="w2").refusal == "stale"
    )
    assert call("promise", FENCED_AT_6, follower="w2").refusal == "not-here"
    with pytest.raises(Malformed):
        call("promise", OWN, epoch=5)


# ------------------------------------------------------------------------------------------ authority


def test_a_primary_serves_what_the_partition_gives_to_it() -> None:
    assert says(OWN, partition(primary="w1", epoch=5)) == Serve(OWN)
    later = says(OWN, partition(primary="w1", epoch=7, followers=["w2"]))
    assert later == Serve(OWN._replace(epoch=7, followers=("w2",)))


def test_a_promise_holds_for_its_epoch() -> None:
    promised = OWN._replace(followers=("w3",))
    assert says(promised, partition(primary="w1", epoch=5)) == Serve(promised)
    assert says(promised, partition(primary="w1", epoch=6)) == Serve(promised._replace(epoch=6, followers=()))


def test_nobody_serves_what_is_fenced_or_older_than_the_copy() -> None:
    assert isinstance(says(OWN, partition(primary="w1", epoch=6, fencedBy="a")), Wait)
    assert isinstance(says(OWN, partition(primary="w1", epoch=4)), Wait)
    assert isinstance(says(FENCED_AT_6, partition(primary="w1", epoch=6)), Wait)
    assert isinstance(says(FENCED_AT_6, partition(primary="w1", epoch=7)), Serve)


def test_what_another_has_is_passed_on_while_it_is_claimed_and_dropped_then() -> None:
    moved = assignment("Committed", result("w2", 7))
    claimed = partition(primary="w1", epoch=6, claimedBy="a", fencedBy="a")
    assert says(FENCED_AT_6, claimed, moved) == Pass("w2")
    assert says(FENCED_AT_6, partition(primary="w2", epoch=7, claimedBy="a"), assignment("Completed")) == Pass("w2")
    assert isinstance(says(FENCED_AT_6, partition(primary="w2", epoch=7)), Drop)
    assert isinstance(says(FENCED_AT_6, partition(primary="w2", epoch=5)), Wait)
    assert isinstance(says(OWN, partition()), Drop)
    new = partition(claimedBy="a")  # it was made anew, and a New of it waits for this copy to go
    assert isinstance(says(OWN, new, assignment("Loading")), Drop)
    assert isinstance(says(OWN, new, assignment("Completed")), Wait)


def test_a_target_serves_when_its_own_assignment_is_committed() -> None:
    moved = assignment("Committed", result("w1", 7))
    claimed = partition(primary="w2", epoch=6, claimedBy="a", fencedBy="a")
    served = says(TARGET, claimed, moved)
    assert isinstance(served, Serve) and (served.copy.role, served.copy.epoch, served.copy.uid) == (PRIMARY, 7, "")
    assert isinstance(says(TARGET._replace(role=LOADING), claimed, moved), Wait)
    assert isinstance(says(TARGET, claimed, assignment("Committed", result("w1", 7), uid="other")), Wait)
    assert isinstance(says(TARGET, claimed, assignment("Loading")), Wait)
    assert isinstance(says(FOLLOWER, claimed, moved), Wait)
    assert isinstance(says(FOLLOWER, claimed, assignment("Committed", result("w1", 7, follower=True))), Serve)


def test_a_target_goes_with_its_assignment_and_not_by_what_was_read_before() -> None:
    claimed = partition(primary="w2", epoch=5, claimedBy="a")
    assert isinstance(says(TARGET, claimed, assignment("Aborted")), Drop)
    assert isinstance(says(TARGET, partition(primary="w2", epoch=5), None), Drop)
    assert isinstance(says(TARGET, partition(primary="w2", epoch=5, claimedBy="b"), None), Drop)
    assert isinstance(says(TARGET, claimed, None), Wait), "the Partition may be its own by now"
    assert isinstance(says(TARGET, partition(primary="w1", epoch=7), None), Serve)
    assert isinstance(says(TARGET, None), Drop)
    assert isinstance(says(FOLLOWER, partition(primary="w2", epoch=5)), Wait)
    assert isinstance(says(FOLLOWER, partition(epoch=5)), Drop)


def test_what_comes_out_of_copies_is_taken_from_those_of_the_very_fence() -> None:
    sources = {"sources": [{"partition": "p", "epoch": 6}, {"partition": "q", "epoch": 3}]}
    merged = assignment("Committed", result("w1", 7, "r", **sources))
    claimed = partition(primary="w1", epoch=6, claimedBy="a", fencedBy="a")
    low, high = (
        FENCED_AT_6._replace(range=Range("", "b")),
        FENCED_AT_6._replace(partition="q", fenced_epoch=3, position=9),
    )
    taken = says(low, claimed, merged, high)
    assert taken == Take((Copy("r", WHOLE, PRIMARY, 7, 0, 9, "a"),), ("p", "q"))
    assert isinstance(says(low, claimed, merged), Wait)
    assert isinstance(says(low, claimed, merged, high._replace(fenced_epoch=2)), Wait)
    assert isinstance(says(low, claimed, merged, high._replace(role=PRIMARY)), Wait)
    other = assignment("Committed", result("w2", 7, "r", **sources))
    assert isinstance(says(low, claimed, other, high), Drop)


def test_what_was_taken_is_served_before_its_partition_is_made() -> None:
    child = Copy("c", WHOLE, PRIMARY, 7, assignment="a")
    made = assignment("Committed", result("w1", 7, "c", sources=[{"partition": "p", "epoch": 6}]))
    assert rules.assignment_to_read(child, None) == "a"
    assert says(child, None, made) == Serve(child)
    completed = assignment("Completed", result("w1", 7, "c", sources=[{"partition": "p", "epoch": 6}]))
    assert says(child, None, completed) == NeedsHeirs()
    itself = {"metadata": {"name": "c"}, "spec": {"range": {}, "primary": "w1", "epoch": 7}}
    assert isinstance(says(child, None, completed, heirs=[itself]), Wait)
    assert isinstance(says(child, None, completed, heirs=[]), Drop)


def test_heirs_say_what_became_of_a_copy_whose_operation_was_completed_without_it() -> None:
    heir = {"metadata": {"name": "c"}, "spec": {"range": {}, "primary": "w1", "epoch": 9, "sources": []}}
    heir["spec"]["sources"] = [{"partition": "p", "epoch": 6}]
    assert isinstance(says(FENCED_AT_6, None, assignment("Aborting")), Wait)
    assert says(FENCED_AT_6, None, None) == NeedsHeirs()
    assert says(FENCED_AT_6, None, None, heirs=[heir]) == Take((Copy("c", WHOLE, PRIMARY, 9, 0, 7),), ("p",))
    fenced = {**heir, "spec": {**heir["spec"], "fencedBy": "b"}}
    assert isinstance(says(FENCED_AT_6, None, None, heirs=[fenced]), Wait)
    assert isinstance(says(FENCED_AT_6, None, None, heirs=[]), Drop)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The three annotations: what is read, what is written, what is refused, and sharing them with an old Distributor."""

from __future__ import annotations

import json

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    ASSIGNMENT,
    CAPACITY,
    STATE,
    Claimant,
    Semaphore,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.tests.support import legality, old_distributor
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

NOW = "2026-01-31T12:00:00Z"


def claimant(name: str, want: str = "*", lease: int | None = None, priority: int = 0) -> Claimant:
    return Claimant(name, "" if lease else f"{name}-uid", {want: 1}, priority, lease)


def document(capacity: dict[str, int], *claimants: Claimant) -> dict[str, str]:
    """The annotations after these have claimed."""
    obj = {"metadata": {"name": "sem", "annotations": {CAPACITY: json.dumps(capacity)}}}
    for one in claimants:
        before = engine.parse(obj["metadata"]["annotations"])
        obj = engine.annotate(obj, before, engine.claim(before, one, now=NOW, enqueue=True).semaphore)
    return obj["metadata"]["annotations"]


FULL = document(
    {"gpu": 1, "tpu": 1},
    claimant("a", "gpu"),
    claimant("ci", "tpu", lease=60),
    claimant("b", "gpu", priority=3),
    claimant("c", lease=30),
)


# ------------------------------------------------------------------------------------------ the form


def test_the_form_is_this():
    assert json.loads(FULL[ASSIGNMENT]) == {"a": "gpu", "ci": "tpu"}
    assert json.loads(FULL[STATE]) == {
        "version": 1,
        "mode": "v1",
        "epoch": 6,
        "grants": {
            "a": {"uid": "a-uid", "resources": {"gpu": 1}, "fence": 2, "since": NOW},
            "ci": {
                "uid": "",
                "resources": {"tpu": 1},
                "fence": 4,
                "since": NOW,
                "expires": {"seconds": 60, "beat": 0},
            },
        },
        "queue": [
            {"holder": "b", "uid": "b-uid", "want": {"gpu": 1}, "priority": 3, "seq": 5},
            {
                "holder": "c",
                "uid": "",
                "want": {"*": 1},
                "priority": 0,
                "seq": 6,
                "expires": {"seconds": 30, "beat": 0},
            },
        ],
    }


def test_what_was_written_is_read_back():
    semaphore = engine.parse(FULL)
    assert engine.parse({**FULL, **engine.render(semaphore)}) == semaphore


def test_no_change_writes_nothing_and_keeps_the_spelling():
    obj = {"metadata": {"name": "sem", "annotations": {**FULL, CAPACITY: ' { "gpu" : 1, "tpu":1 } '}}}
    semaphore = engine.parse(obj["metadata"]["annotations"])
    assert engine.annotate(obj, semaphore, engine.parse(obj["metadata"]["annotations"])) == obj


def test_a_claim_keeps_the_spelling_of_the_capacity():
    obj = {"metadata": {"name": "sem", "annotations": {CAPACITY: ' { "gpu" : 1 } '}}}
    before = engine.parse(obj["metadata"]["annotations"])
    after = engine.annotate(obj, before, engine.claim(before, claimant("a"), now=NOW, enqueue=True).semaphore)
    assert after["metadata"]["annotations"][CAPACITY] == ' { "gpu" : 1 } '


# ------------------------------------------------------------------------------------------ what is not ours


def test_unknown_keys_survive_everywhere():
    state = json.loads(FULL[STATE])
    state["later"] = {"version": "will know"}
    state["grants"]["a"]["note"] = ["mine"]
    state["queue"][0]["note"] = 1.5
    state["grants"]["ci"]["expires"]["by"] = "x"
    obj = {
        "metadata": {"name": "sem", "labels": {"l": "1"}, "annotations": {**FULL, STATE: json.dumps(state), "x": "y"}},
        "data": {"their": "own"},
    }
    before = engine.parse(obj["metadata"]["annotations"])
    after = engine.annotate(obj, before, engine.release(engine.renew(before, "ci", ""), "a", None, now=NOW).semaphore)
    written = json.loads(after["metadata"]["annotations"][STATE])
    assert written["later"] == state["later"]
    assert written["grants"]["b"]["note"] == 1.5  # the waiter's, who holds now
    assert written["grants"]["ci"]["expires"] == {"by": "x", "seconds": 60, "beat": 1}
    assert after["metadata"]["annotations"]["x"] == "y"
    assert (after["data"], after["metadata"]["labels"]) == (obj["data"], obj["metadata"]["labels"])


def test_unknown_keys_of_a_waiter_survive_another_want():
    state = json.loads(FULL[STATE])
    state["queue"][0]["note"] = "kept"
    before = engine.parse({**FULL, STATE: json.dumps(state)})
    after = engine.claim(before, claimant("b", "tpu"), now=NOW, enqueue=True).semaphore
    assert json.loads(engine.render(after)[STATE])["queue"][-1]["note"] == "kept"


def _with_state(**changes):
    return {**FULL, STATE: json.dumps({**json.loads(FULL[STATE]), **changes})}


def _grant(**changes):
    return _with_state(grants={"a": {"uid": "u", "resources": {"gpu": 1}, "fence": 2, "since": "", **changes}})


def _waiter(**changes):
    return _with_state(queue=[{"holder": "b", "uid": "u", "want": {"gpu": 1}, "priority": 0, "seq": 3, **changes}])


MALFORMED = {
    "capacity: no JSON": ({**FULL, CAPACITY: "{gpu: 1}"}, "distributor_capacity]"),
    "capacity: empty": ({**FULL, CAPACITY: ""}, "distributor_capacity]"),
    "capacity: a list": ({**FULL, CAPACITY: "[1]"}, "distributor_capacity]"),
    "capacity: a string count": ({**FULL, CAPACITY: '{"gpu": "1"}'}, "distributor_capacity].gpu"),
    "capacity: a fraction": ({**FULL, CAPACITY: '{"gpu": 1.5}'}, "distributor_capacity].gpu"),
    "capacity: negative": ({**FULL, CAPACITY: '{"gpu": -1}'}, "distributor_capacity].gpu"),
    "capacity: too large": ({**FULL, CAPACITY: '{"gpu": 2147483648}'}, "distributor_capacity].gpu"),
    "capacity: infinite": ({**FULL, CAPACITY: '{"gpu": 1e999}'}, "distributor_capacity].gpu"),
    "capacity: NaN": ({**FULL, CAPACITY: '{"gpu": NaN}'}, "distributor_capacity]"),
    "capacity: true": ({**FULL, CAPACITY: '{"gpu": true}'}, "distributor_capacity].gpu"),
    "capacity: twice": ({**FULL, CAPACITY: '{"gpu": 1, "gpu": 2}'}, "distributor_capacity]"),
    "capacity: named *": ({**FULL, CAPACITY: '{"*": 1}'}, "distributor_capacity] resource"),
    "capacity: no name": ({**FULL, CAPACITY: '{"": 1}'}, "distributor_capacity] resource"),
    "capacity: deep": ({**FULL, CAPACITY: '{"a":' * 5000}, "distributor_capacity]"),
    "capacity: half a surrogate": ({**FULL, CAPACITY: '{"\\ud800": 1}'}, "distributor_capacity]"),
    "assignment: no JSON": ({**FULL, ASSIGNMENT: "a=gpu"}, "distributor_assignment]"),
    "assignment: a list value": ({**FULL, ASSIGNMENT: '{"a": ["gpu"]}'}, "distributor_assignment].a"),
    "assignment: a null value": ({**FULL, ASSIGNMENT: '{"a": null}'}, "distributor_assignment].a"),
    "assignment: half a surrogate": ({**FULL, ASSIGNMENT: '{"\\ud800": "gpu"}'}, "distributor_assignment]"),
    "state: no JSON": ({**FULL, STATE: "{"}, "distributor_state]"),
    "state: a list": ({**FULL, STATE: "[]"}, "distributor_state]"),
    "state: a later version": (_with_state(version=2), "distributor_state]"),
    "state: another mode": (_with_state(mode="v3"), "distributor_state]"),
    "state: no version": ({**FULL, STATE: '{"epoch": 1}'}, "distributor_state]"),
    "state: epoch": (_with_state(epoch="6"), "distributor_state].epoch"),
    "state: grants": (_with_state(grants=[]), "distributor_state].grants"),
    "state: a grant": (_with_state(grants={"a": 1}), "distributor_state].grants.a"),
    "state: two resources": (_grant(resources={"gpu": 1, "tpu": 1}), "distributor_state].grants.a.resources"),
    "state: count 2": (_grant(resources={"gpu": 2}), "distributor_state].grants.a.resources"),
    "state: fence": (_grant(fence=-1), "distributor_state].grants.a.fence"),
    "state: uid": (_grant(uid=5), "distributor_state].grants.a.uid"),
    "state: since": (_grant(since=5), "distributor_state].grants.a.since"),
    "state: lease": (_grant(expires={"seconds": 1}), "distributor_state].grants.a.expires.seconds"),
    "state: beat": (_grant(expires={"seconds": 9, "beat": "x"}), "distributor_state].grants.a.expires.beat"),
    "state: queue": (_with_state(queue={}), "distributor_state].queue"),
    "state: a waiter": (_with_state(queue=["b"]), "distributor_state].queue[0]"),
    "state: its name": (_waiter(holder=None), "distributor_state].queue[0].holder"),
    "state: its want": (_waiter(want={}), "distributor_state].queue[0].want"),
    "state: its priority": (_waiter(priority=5000), "distributor_state].queue[0].priority"),
    "state: its place": (_waiter(seq=None), "distributor_state].queue[0].seq"),
    "state: waits twice": (_with_state(queue=json.loads(FULL[STATE])["queue"] * 2), "distributor_state].queue"),
}


@pytest.mark.parametrize(("annotations", "field"), MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_refused_by_its_name_and_nothing_is_written(annotations, field):
    api = MemoryApi()
    before = api.configmap(**annotations)
    with pytest.raises(Malformed) as refused:
        on_annotations.write(api, "sem", "ns", lambda seen: engine.claim(seen, claimant("new"), now=NOW, enqueue=True))
    assert refused.value.field == f"ConfigMap ns/sem metadata.annotations[{field}"
    assert str(refused.value).endswith(refused.value.remedy)
    assert len(str(refused.value)) < 600
    assert api.get(on_annotations.CONFIGMAPS, "sem", "ns") == before


def test_null_and_missing_annotations_are_empty():
    assert engine.parse({}) == Semaphore({})
    assert engine.parse(dict.fromkeys((CAPACITY, ASSIGNMENT, STATE), "null")) == Semaphore({})


# ------------------------------------------------------------------------------------------ mode v2


def two(name: str, **want: int) -> Claimant:
    return Claimant(name, f"{name}-uid", want)


def claimed(annotations: dict[str, str], *claimants: Claimant) -> dict[str, str]:
    obj = {"metadata": {"name": "sem", "annotations": annotations}}
    for one in claimants:
        before = engine.parse(obj["metadata"]["annotations"])
        obj = engine.annotate(obj, before, engine.claim(before, one, now=NOW, enqueue=True).semaphore)
    return obj["metadata"]["annotations"]


EMPTY2 = {CAPACITY: '{"gpu":4,"tpu":1}', ASSIGNMENT: '{"":{"mode":"v2"}}'}
FULL2 = claimed(EMPTY2, two("a", gpu=3, tpu=1), two("b", gpu=2), claimant("c"))


def test_the_form_of_v2_is_this():
    assert engine.begin({"gpu": 4, "tpu": 1}, engine.V2) == EMPTY2
    assert json.loads(FULL2[ASSIGNMENT]) == {"": {"mode": "v2"}, "a": {"gpu": 3, "tpu": 1}}
    state = json.loads(FULL2[STATE])
    assert (state["version"], state["mode"]) == (1, "v2")
    assert state["grants"]["a"]["resources"] == {"gpu": 3, "tpu": 1}
    assert [waiter["want"] for waiter in state["queue"]] == [{"gpu": 2}, {"*": 1}]
    assert engine.begin({"gpu": 1}, engine.V1) == {CAPACITY: '{"gpu":1}'}


def test_what_was_written_in_v2_is_read_back():
    semaphore = engine.parse(FULL2)
    assert semaphore.mode == "v2"
    assert engine.parse({**FULL2, **engine.render(semaphore)}) == semaphore


def test_a_semaphore_of_v2_that_was_just_made_begins_above_its_predecessor():
    assert engine.parse(EMPTY2, 100).epoch == engine.NUMBERS * 100


@pytest.mark.parametrize("annotations", [EMPTY2, FULL2, claimed(EMPTY2, two("a", gpu=2), two("b", gpu=3))])
def test_an_old_distributor_can_not_read_v2_even_when_nobody_holds(annotations):
    released = engine.release(engine.parse(annotations), "a", None, now=NOW).semaphore
    for found in (annotations, {**annotations, **engine.render(released)}):
        with pytest.raises(old_distributor.GoError):
            old_distributor.run(found, "old", ["old"])


def test_v2_is_known_by_the_sentinel_when_the_state_was_lost_and_by_the_state_when_that_was():
    without_state = {key: text for key, text in FULL2.items() if key != STATE}
    lost = engine.parse(without_state, 7)
    assert (lost.mode, lost.epoch) == ("v2", engine.NUMBERS * 7)
    assert {name: (grant.uid, grant.resources) for name, grant in lost.grants.items()} == {
        "a": (None, {"gpu": 3, "tpu": 1})
    }
    for broken in ("{}", "null", '{"a":{"gpu":3,"tpu":1}}'):
        seen = engine.parse({**FULL2, ASSIGNMENT: broken})
        written = engine.render(engine.reap(seen, (), now=NOW).semaphore)
        assert seen.mode == "v2" and seen.behind
        assert json.loads(written[ASSIGNMENT])[""] == {"mode": "v2"}, "the next write keeps old readers off again"


def test_a_state_that_says_v1_beside_the_sentinel_is_written_anew():
    state = json.loads(FULL[STATE])
    assignment = {"": {"mode": "v2"}, "a": {"gpu": 1}, "ci": {"tpu": 1}}
    seen = engine.parse({**FULL, ASSIGNMENT: json.dumps(assignment), STATE: json.dumps(state)})
    assert seen.mode == "v2" and seen.behind and seen.grants["a"].fence == 2
    assert json.loads(engine.render(engine.reap(seen, (), now=NOW).semaphore)[STATE])["mode"] == "v2"


def test_unknown_keys_survive_in_v2_and_a_change_of_mode():
    state = json.loads(FULL2[STATE])
    state["later"] = {"version": "will know"}
    state["grants"]["a"]["note"] = ["mine"]
    obj = {
        "metadata": {"name": "sem", "annotations": {**FULL2, STATE: json.dumps(state), "x": "y"}},
        "data": {"k": "v"},
    }
    before = engine.parse(obj["metadata"]["annotations"])
    after = engine.annotate(obj, before, engine.release(before, "b", None, now=NOW).semaphore)
    written = json.loads(after["metadata"]["annotations"][STATE])
    assert (written["later"], written["grants"]["a"]["note"]) == (state["later"], ["mine"])
    assert (after["metadata"]["annotations"]["x"], after["data"]) == ("y", {"k": "v"})
    plain = {**FULL, STATE: json.dumps({**json.loads(FULL[STATE]), "later": 1})}
    switched = engine.render(engine.with_mode(engine.parse(plain), "v2"))
    assert json.loads(switched[STATE])["later"] == 1


def _v2(**changes):
    return {**FULL2, ASSIGNMENT: json.dumps({"": {"mode": "v2"}, "a": {"gpu": 3, "tpu": 1}, **changes})}


MALFORMED_V2 = {
    "a name where counts stand": (_v2(b="gpu"), "distributor_assignment].b", 'give {"gpu":1}: this is mode v2'),
    "a name for the sentinel": (_v2(**{"": "gpu"}), "distributor_assignment].", 'give {"gpu":1}'),
    "another sentinel": (_v2(**{"": {"mode": "v3"}}), "distributor_assignment].''", "use the newer one"),
    "more in the sentinel": (_v2(**{"": {"mode": "v2", "x": 1}}), "distributor_assignment].''", "use the newer one"),
    "nothing held": (_v2(b={}), "distributor_assignment].b", "each with its count from 1"),
    "none of it held": (_v2(b={"gpu": 0}), "distributor_assignment].b", "each with its count from 1"),
    "a count in text": (_v2(b={"gpu": "1"}), "distributor_assignment].b.gpu", "whole number"),
    "a list": (_v2(b=["gpu"]), "distributor_assignment].b", "JSON object"),
    "v2 in state over names": (_with_state(mode="v2"), "distributor_assignment].a", 'give {"gpu":1}'),
}


@pytest.mark.parametrize(("annotations", "field", "remedy"), MALFORMED_V2.values(), ids=MALFORMED_V2.keys())
def test_what_is_malformed_in_v2_is_refused_by_its_name_with_a_remedy(annotations, field, remedy):
    with pytest.raises(Malformed) as refused:
        engine.parse(annotations)
    assert refused.value.field == f"metadata.annotations[{field}"
    assert remedy in refused.value.remedy


# ------------------------------------------------------------------------------------------ numbers


def test_fences_go_on_growing_when_the_object_is_made_again():
    """One write hands out fewer than NUMBERS, and makes one revision at least."""
    annotations, revision = {CAPACITY: '{"gpu": 0}'}, 100
    for name in "abcdefgh":
        before = engine.parse(annotations, revision)
        annotations = {
            **annotations,
            **engine.render(engine.claim(before, claimant(name), now=NOW, enqueue=True).semaphore),
        }
        revision += 1
    last = engine.with_capacity(engine.parse(annotations, revision), {"gpu": 8}, now=NOW)
    made_again = engine.parse({CAPACITY: '{"gpu": 1}'}, revision + 2)
    fresh = engine.claim(made_again, claimant("new"), now=NOW, enqueue=True).semaphore.grants["new"].fence
    assert fresh > max(grant.fence for grant in last.grants.values())


def test_as_many_entries_as_numbers_in_a_write_do_not_fit_into_the_annotations():
    shortest = [
        engine.render(Semaphore({}, {"p": engine.Grant(None, {"g": 1}, 1)})),
        engine.render(Semaphore({}, queue=(engine.Waiter("p", "", {"g": 1}, 0, 1),))),
    ]
    empty = engine.annotation_bytes(engine.render(Semaphore({})))
    for entry in shortest:
        assert (engine.annotation_bytes(entry) - empty) * engine.NUMBERS > engine.MAX_ANNOTATIONS


def test_the_counter_is_never_behind_the_numbers_in_use():
    assert engine.parse(_with_state(epoch=0)).epoch == 6


# ------------------------------------------------------------------------------------------ size


def test_a_claim_beyond_the_limit_of_annotations_is_refused_with_the_arithmetic_and_releases_still_work():
    obj = {"metadata": {"name": "sem", "annotations": {CAPACITY: '{"gpu": 5000}', "filler": "x" * (255 * 1024)}}}
    with pytest.raises(MusterError, match=r"would need \d+ bytes for \d+ grants.*262144"):
        for number in range(100):
            before = engine.parse(obj["metadata"]["annotations"])
            after = engine.claim(before, claimant(f"pod-{number}"), now=NOW, enqueue=True).semaphore
            obj = engine.annotate(obj, before, after)
    before = engine.parse(obj["metadata"]["annotations"])
    size = engine.annotation_bytes(obj["metadata"]["annotations"])
    assert len(before.grants) > 3 and size <= 262144
    freed = engine.annotate(obj, before, engine.release(before, "pod-0", None, now=NOW).semaphore)
    assert engine.annotation_bytes(freed["metadata"]["annotations"]) < size


def test_the_size_is_counted_in_bytes():
    assert engine.annotation_bytes({"ä": "€"}) == 5


def test_more_than_half_of_what_kubernetes_allows_is_warned_of():
    obj = {"metadata": {"name": "sem", "annotations": {"x": "y" * (128 * 1024 - 1)}}}
    assert engine.crowded(obj) == []
    obj["metadata"]["annotations"]["x"] += "y"
    assert engine.crowded(obj) == [
        "the annotations of ConfigMap sem fill 131073 of the 262144 bytes that Kubernetes allows: "
        "spread the holders over several ConfigMaps, or use the engine tickets"
    ]


# ------------------------------------------------------------------------------------------ with an old Distributor


def test_an_old_distributor_reads_what_we_write_and_we_read_what_it_writes():
    annotations = document({"gpu": 2}, claimant("a"))
    by_old = old_distributor.run(annotations, "old", ["a", "old"])
    assert json.loads(by_old[ASSIGNMENT]) == {"a": "gpu", "old": "gpu"}
    assert by_old[STATE] == annotations[STATE]
    seen = engine.parse(by_old)
    assert seen.grants["a"] == engine.parse(annotations).grants["a"]
    assert (seen.grants["old"].uid, seen.grants["old"].fence) == (None, 0)
    assert old_distributor.run({**by_old, **engine.render(seen)}, "another", ["a", "old"]) is None  # full


def test_an_old_distributor_that_writes_null_or_escapes_is_understood():
    assert engine.parse({CAPACITY: '{"gpu": 1}', ASSIGNMENT: old_distributor.marshal(None)}).grants == {}
    assert set(engine.parse({ASSIGNMENT: old_distributor.marshal({"a<b": "g&u"})}).grants) == {"a<b"}


def test_it_takes_out_holders_that_are_no_pods_and_the_next_run_puts_that_right():
    annotations = document({"gpu": 1}, claimant("ci", lease=60))
    by_old = old_distributor.run(annotations, "old", ["old"])
    assert json.loads(by_old[ASSIGNMENT]) == {"old": "gpu"}
    after = engine.reap(engine.parse(by_old), set(), now=NOW).semaphore
    assert set(after.grants) == {"old"}
    assert legality.violations(by_old, {**by_old, **engine.render(after)}) == []
    assert after.grants["old"].fence > engine.parse(annotations).grants["ci"].fence


def test_it_refuses_a_list_value_so_we_never_write_one():
    with pytest.raises(old_distributor.GoError):
        old_distributor.run({ASSIGNMENT: '{"a": ["gpu"]}'}, "old", ["a"])
    for ours in (FULL, document({"gpu": 9}, *(claimant(name) for name in "abc"))):
        assert all(type(resource) is str for resource in json.loads(ours[ASSIGNMENT]).values())

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user asks for: plain parameters in, a plain result out, on an API server in memory."""

from __future__ import annotations

import threading

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Forbidden, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support import old_distributor
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi

HERE = {"name": "sem", "namespace": "ns"}


@pytest.fixture
def api() -> MemoryApi:
    return MemoryApi()


def claim(api: MemoryApi, holder: str = "ci", **wishes):
    return verbs.claim(api, **HERE, holder=holder, **{"lease": 60, **wishes})


def seen(api: MemoryApi) -> engine.Semaphore:
    return engine.parse(api.annotations())


# ------------------------------------------------------------------------------------------ configure


def test_create_again_change_remove_remove_again(api):
    def run(**wishes):
        return verbs.configure(api, **HERE, **wishes)

    made = run(capacity={"gpu": 1})
    assert (made["changed"], made["before"], made["after"]) == (True, {}, {"capacity": {"gpu": 1}, "mode": "v1"})
    assert run(capacity={"gpu": 1})["changed"] is False
    assert run()["changed"] is False
    changed = run(capacity={"gpu": 2, "tpu": 1})
    assert changed["before"] == {"capacity": {"gpu": 1}, "mode": "v1"}
    assert changed["capacity"] == {"gpu": 2, "tpu": 1}
    assert run(state="absent")["changed"] is True
    assert run(state="absent")["changed"] is False


def test_check_mode_says_the_same_and_writes_nothing(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    claim(api, "a")
    for verb, wishes in [
        (verbs.configure, {"capacity": {"gpu": 5}}),
        (verbs.configure, {"capacity": {"gpu": 5}, "name": "other"}),
        (verbs.configure, {"state": "absent", "force": True}),
        (verbs.release, {"holder": "a"}),
        (verbs.claim, {"holder": "b", "lease": 60, "wait": True}),
    ]:
        before = (dict(api.objects), api.version)
        told = verb(api, **{**HERE, **wishes}, check_mode=True)
        assert told["changed"] is True
        assert told["before"] != told["after"]
        assert (api.objects, api.version) == before


def test_a_number_from_a_template_is_a_number(api):
    assert verbs.configure(api, **HERE, capacity={"gpu": "3"})["capacity"] == {"gpu": 3}
    for wrong in ("three", "-1", "1.0", "", None, "٣"):
        with pytest.raises(Malformed, match=r"capacity\.gpu is"):
            verbs.configure(api, **HERE, capacity={"gpu": wrong})


def test_a_raise_is_handed_on_in_the_same_write(api):
    verbs.configure(api, **HERE, capacity={"gpu": 0})
    waiter = threading.Thread(target=claim, args=(api, "a"), kwargs={"wait": True, "wait_timeout": 30})
    waiter.start()
    _until(lambda: seen(api).queue)
    before = api.version
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    waiter.join(10)
    assert not waiter.is_alive()
    assert list(seen(api).grants) == ["a"]
    assert api.version <= before + 2  # the raise with the grant, and the waiter's renewal at the most


def test_a_semaphore_in_use_or_with_data_is_removed_by_force_only(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    claim(api, "a")
    with pytest.raises(MusterError, match=r"in use by a: it was not removed; give force=true"):
        verbs.configure(api, **HERE, state="absent")
    verbs.release(api, **HERE, holder="a")
    obj = api.get(CONFIGMAPS, "sem", "ns")
    api.replace(CONFIGMAPS, {**obj, "data": {"their": "own"}})
    with pytest.raises(MusterError, match="has data of its own"):
        verbs.configure(api, **HERE, state="absent")
    assert verbs.configure(api, **HERE, state="absent", force=True)["changed"] is True
    assert api.objects == {}


def test_the_dead_do_not_keep_a_semaphore_from_being_removed(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    api.pod("holds")
    claim(api, "holds", lease=None)
    verbs.attempt(api, **HERE, claimant=Claimant("waits", api.pod("waits"), {"gpu": 1}), enqueue=True)
    with pytest.raises(MusterError, match="in use by holds, waits"):
        verbs.configure(api, **HERE, state="absent")
    for name in ("holds", "waits"):
        api.kill(name)
    assert verbs.configure(api, **HERE, state="absent")["changed"] is True


def test_a_malformed_semaphore_is_removed_by_force_only(api):
    api.configmap(**{engine.CAPACITY: "{", engine.ASSIGNMENT: "{}"})
    for wishes in ({"capacity": {"gpu": 1}}, {"state": "absent"}):
        with pytest.raises(Malformed, match=r"ConfigMap ns/sem metadata\.annotations\[distributor_capacity\]"):
            verbs.configure(api, **HERE, **wishes)
    assert verbs.configure(api, **HERE, state="absent", force=True)["changed"] is True


def test_the_mode_is_made_kept_changed_and_refused(api):
    def run(**wishes):
        return verbs.configure(api, **HERE, **wishes)

    told = run(capacity={"gpu": 2}, mode="v2", check_mode=True)
    assert (told["changed"], told["after"]) == (True, {"capacity": {"gpu": 2}, "mode": "v2"}) and api.objects == {}
    assert run(capacity={"gpu": 2}, mode="v2")["mode"] == "v2"
    with pytest.raises(old_distributor.GoError):
        old_distributor.run(api.annotations(), "old", ["old"])
    assert run(capacity={"gpu": 2})["changed"] is False
    claim(api, "a", resources={"gpu": 2})
    with pytest.raises(MusterError, match=r"more for a \(2 of gpu\): let them leave first, or keep mode v2"):
        run(mode="v1")
    verbs.release(api, **HERE, holder="a")
    told, done = run(mode="v1", check_mode=True), run(mode="v1", capacity={"gpu": 1})
    assert told["after"] == {"capacity": {"gpu": 2}, "mode": "v1"}
    assert (done["before"], done["after"]) == (
        {"capacity": {"gpu": 2}, "mode": "v2"},
        {"capacity": {"gpu": 1}, "mode": "v1"},
    )
    old_distributor.run(api.annotations(), "old", ["old"])
    with pytest.raises(Malformed, match="mode is 'v3': give one of v1, v2"):
        run(mode="v3")


def test_the_dead_do_not_keep_a_semaphore_in_its_mode(api):
    verbs.configure(api, **HERE, capacity={"gpu": 2}, mode="v2")
    api.pod("web-0")
    claim(api, "web-0", lease=None, resources={"gpu": 2})
    with pytest.raises(MusterError, match="web-0"):
        verbs.configure(api, **HERE, mode="v1")
    api.kill("web-0")
    assert verbs.configure(api, **HERE, mode="v1")["after"]["mode"] == "v1"
    assert seen(api).grants == {}


def test_a_mode_kept_or_changed_loses_nobody(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    fence = claim(api, "a")["fence"]
    for mode in ("v2", "v1"):
        verbs.configure(api, **HERE, mode=mode)
        assert claim(api, "a")["fence"] == fence


def test_annotations_that_fill_up_are_warned_of(api):
    api.configmap(**{engine.CAPACITY: '{"gpu": 1}', "filler": "x" * 140_000})
    for told in (claim(api, "a"), verbs.configure(api, **HERE, capacity={"gpu": 2})):
        (warning,) = told["warnings"]
        assert "ConfigMap sem fill" in warning and "of the 262144 bytes" in warning


# ------------------------------------------------------------------------------------------ claim and release


def test_several_resources_are_claimed_shown_and_given_back(api):
    verbs.configure(api, **HERE, capacity={"gpu": 2, "tpu": 1}, mode="v2")
    wanted = {"gpu": 2, "tpu": 1}
    made = claim(api, resources={"gpu": "2", "tpu": 1})
    assert (made["resource"], made["resources"], made["before"]["resources"]) == (None, wanted, {})
    assert claim(api, resources=wanted)["changed"] is False
    (shown,) = verbs.info(api, namespace="ns")["semaphores"]
    assert shown["mode"] == "v2" and shown["error"] is None
    assert [(one["resource"], one["resources"]) for one in shown["holders"]] == [(None, wanted)]
    with pytest.raises(MusterError, match=r"2 of gpu is not free for b: in use: gpu 2 of 2; held by ci \(fence"):
        claim(api, "b", resources={"gpu": 2})
    verbs.attempt(api, **HERE, claimant=Claimant("b", "", {"gpu": 2}, lease_seconds=60), enqueue=True)
    verbs.attempt(api, **HERE, claimant=Claimant("c", "", {"tpu": 1}, lease_seconds=60), enqueue=True)
    (shown,) = verbs.info(api, namespace="ns")["semaphores"]
    assert [(one["want"], one["wants"]) for one in shown["waiters"]] == [(None, {"gpu": 2}), ("tpu", {"tpu": 1})]
    assert verbs.release(api, **HERE, holder="ci")["before"]["resources"] == wanted


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"resource": "gpu", "resources": {"gpu": 2}}, "give either these or resource, which is 'gpu'"),
        ({"resources": {}}, "resources is {}: name 1 to 16 resources"),
        ({"resources": {"gpu": "two"}}, "give each a whole number from 1"),
        ({"resources": {"gpu": 0}}, "give each a whole number from 1"),
        ({"resources": {"gpu": 3}}, "resource is 'gpu=3': ask for no more than the capacity, which is 2"),
        ({"resources": {"cpu": 1}}, r"resource is 'cpu': name one that distributor_capacity declares \(gpu\)"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_by_name(api, wish, message):
    verbs.configure(api, **HERE, capacity={"gpu": 2}, mode="v2")
    before = api.version
    with pytest.raises(Malformed, match=message):
        claim(api, **wish)
    assert api.version == before


def test_more_than_one_permit_in_mode_v1_says_what_to_do(api):
    verbs.configure(api, **HERE, capacity={"gpu": 2})
    with pytest.raises(MusterError, match=r"ci asks for 2 of gpu, .*set mode v2 with k8s_semaphore"):
        claim(api, resources={"gpu": 2})


def test_claim_again_release_release_again(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    first = claim(api)
    assert (first["changed"], first["outcome"], first["resource"]) == (True, "granted", "gpu")
    again = claim(api)
    assert (again["changed"], again["outcome"], again["fence"]) == (False, "held", first["fence"])
    gone = verbs.release(api, **HERE, holder="ci")
    assert (gone["changed"], gone["before"]["fence"], gone["fence"]) == (True, first["fence"], None)
    assert verbs.release(api, **HERE, holder="ci")["changed"] is False
    assert claim(api)["fence"] > first["fence"]


def test_a_claim_of_a_pod_takes_its_uid_and_needs_the_pod(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    uid = api.pod("web-0")
    assert verbs.claim(api, **HERE, holder="web-0")["uid"] == uid
    with pytest.raises(Malformed, match=r"holder is 'web-1'.*give a lease"):
        verbs.claim(api, **HERE, holder="web-1")
    api.pod("done", phase="Succeeded")
    with pytest.raises(Malformed, match="holder is 'done'"):
        verbs.claim(api, **HERE, holder="done")


def test_a_claim_takes_the_permit_of_a_dead_pod_at_once(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    api.pod("web-0")
    first = verbs.claim(api, **HERE, holder="web-0")
    api.kill("web-0")
    api.pod("web-0")
    second = verbs.claim(api, **HERE, holder="web-0")
    assert second["fence"] > first["fence"]
    assert second["uid"] != first["uid"]


def test_busy_and_missing_say_what_to_do(api):
    with pytest.raises(MusterError, match="ConfigMap ns/sem does not exist: create it with k8s_semaphore"):
        claim(api)
    assert verbs.release(api, **HERE, holder="ci")["outcome"] == "absent"
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    claim(api, "a")
    with pytest.raises(MusterError, match=r"gpu 1 of 1; held by a \(fence \d+\); give wait=true"):
        claim(api, "b")


def test_releasing_nothing_is_no_change_even_if_something_else_was_put_in_order(api):
    api.configmap(**{engine.CAPACITY: '{"gpu": 2}', engine.ASSIGNMENT: '{"old": "gpu"}'})
    assert verbs.release(api, **HERE, holder="ci")["changed"] is False


# ------------------------------------------------------------------------------------------ wait


def test_a_wait_ends_with_the_grant(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    first = claim(api, "a")
    results = []
    waiter = threading.Thread(target=lambda: results.append(claim(api, "b", wait=True, wait_timeout=30)))
    waiter.start()
    _until(lambda: seen(api).queue)
    verbs.release(api, **HERE, holder="a")
    waiter.join(10)
    assert results[0]["outcome"] == "granted"
    assert results[0]["fence"] > first["fence"]
    assert results[0]["changed"] is True


def test_a_wait_in_vain_gives_up_its_place_and_says_who_was_in_the_way(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    claim(api, "a")
    with pytest.raises(TimedOut, match=r"b waited 0\.2 s for ConfigMap ns/sem in vain.*held by a \(fence"):
        claim(api, "b", wait=True, wait_timeout=0.2)
    assert seen(api).queue == ()


def test_no_wait_is_none_even_for_one_who_has_a_place(api):
    """A process that was killed while it waited left the place behind."""
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    claim(api, "a")
    before = seen(api)
    claimant = engine.Claimant("b", "", {engine.ANY: 1}, lease_seconds=60)
    api.configmap(**engine.render(engine.claim(before, claimant, now="", enqueue=True).semaphore))
    with pytest.raises(MusterError, match=r"b has place 1 in the queue; give wait=true"):
        claim(api, "b", wait_timeout=3600)
    assert [waiter.holder for waiter in seen(api).queue] == ["b"]


def test_a_wait_that_is_not_allowed_to_watch_leaves_no_place_behind(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1})
    claim(api, "a")

    def follow(resource: Resource, namespace: str, **_rest):
        raise Forbidden(403, "Forbidden", "pods is forbidden")
        yield

    api.follow = follow
    with pytest.raises(Forbidden):
        claim(api, "b", wait=True)
    assert seen(api).queue == ()


# ------------------------------------------------------------------------------------------ info


def test_info_shows_what_there_is_and_what_is_malformed_beside_it(api):
    verbs.configure(api, **HERE, capacity={"gpu": 1, "tpu": 1})
    claim(api, "a", resource="gpu")
    api.configmap("broken", **{engine.CAPACITY: "{"})
    api.configmap("unrelated", other="x")
    broken, well = verbs.info(api, namespace="ns")["semaphores"]
    assert (broken["name"], broken["holders"]) == ("broken", [])
    assert "distributor_capacity" in broken["error"]
    assert well["resources"] == [
        {"name": "gpu", "capacity": 1, "held": 1, "free": 0},
        {"name": "tpu", "capacity": 1, "held": 0, "free": 1},
    ]
    assert [holder["holder"] for holder in well["holders"]] == ["a"]
    assert verbs.info(api, namespace="ns", name="sem")["semaphores"] == [well]
    assert verbs.info(api, namespace="ns", name="none")["semaphores"] == []


def _until(true, seconds: float = 10) -> None:
    done = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        done.wait(0.01)
    raise AssertionError("it did not happen")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-worker` as real processes, at a real API server: what it serves while partitions change hands."""

from __future__ import annotations

import base64
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import urllib3

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import PARTITIONS
from ansible_collections.muster.coordination.tests.support.partition_worker_lab import (
    Answer,
    Lab,
    WorkerProcess,
    Writer,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until

pytestmark = pytest.mark.integration


@pytest.fixture
def lab(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Lab]:
    made = Lab(api, namespace, kubeconfig, tmp_path)
    yield made
    made.close()


def test_a_new_partition_is_served_and_no_other(lab: Lab) -> None:
    one = lab.worker("w-0")
    lab.partition("p", "a", "n")
    assert one.put("aaaa", "x").word == "not-mine"
    lab.new(one, "p")
    done = one.put("aaaa", "x")
    assert (done.status, done.headers["Muster-Partition"], done.headers["Muster-Epoch"]) == (204, "p", "1")
    assert one.get("aaaa").body == b"x"
    assert one.get("aaab").word == "no-such-key"
    assert one.put("nnnn", "x").word == "not-mine"
    assert one.put("aaa", "x").word == "malformed"
    assert one.get("aaaa", Muster_Epoch="7").word == "stale"
    assert one.delete("aaaa").status == 204
    assert one.get("aaaa").word == "no-such-key"


def test_a_move_under_writes_loses_nothing_and_proxies(lab: Lab) -> None:
    one, two = lab.worker("w-0"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    writer = Writer([one, two], "aa")
    writer.writes()
    moved = lab.move("p", one, two, drop=False)
    writer.writes()
    writer.stop()
    assert one.put("aaaa", "by way of the old one").headers["Muster-Worker"] == "w-1"
    assert one.get("aaaa").body == b"by way of the old one"
    assert two.get("aaaa").body == b"by way of the old one"
    writer.check(one)
    lab.completes(moved, "p")
    one.lacks("p")  # nobody told it to drop its copy
    writer.check(two)
    refusal = one.put("aaaa", "x")
    assert (refusal.status, refusal.word) == (421, "not-mine")


def test_a_split_and_a_merge_under_writes_lose_nothing(lab: Lab) -> None:
    one = lab.worker("w-0")
    lab.partition("p")
    lab.new(one, "p")
    writer = Writer([one], "aa")
    writer.writes()
    split = lab.assignment("InWorkerSplit", partition="p", splitKey="aa25")
    lab.remake(one, split, ["p"], {"p-l": ("", "aa25"), "p-r": ("aa25", "")})
    writer.writes()
    merge = lab.assignment("InWorkerMerge", partitions=["p-l", "p-r"])
    lab.remake(one, merge, ["p-l", "p-r"], {"p-m": ("", "")})
    writer.writes()
    writer.stop()
    writer.check(one)
    copies = one.copies()
    listed = one.ask("GET", "/v1/keys").json()
    assert set(copies) == {"p-m"} and listed["partition"] == "p-m" and listed["next"] is None
    load = copies["p-m"]["load"]
    assert load["keys"] == len(listed["items"])
    sizes = [len(each["key"]) + len(base64.b64decode(each["value"])) for each in listed["items"]]
    assert load["bytes"] == sum(sizes)


def test_killed_in_the_middle_it_has_all_that_it_acknowledged_and_serves_on(lab: Lab) -> None:
    one = lab.worker("w-0")
    lab.partition("p")
    lab.new(one, "p")
    session = one.report()["incarnation"]
    writer = Writer([one], "aa")
    writer.writes(100)
    one.kill()
    writer.stop()
    again = lab.worker("w-0")
    again.has("p", role="primary")
    writer.check(again)
    assert again.put("zzzz", "x").status == 204
    assert again.report()["incarnation"] != session


def test_an_empty_directory_is_not_the_old_one(lab: Lab) -> None:
    one = lab.worker("w-0", "--lease-seconds", "1")
    lab.partition("p")
    lab.new(one, "p")
    assert one.put("aaaa", "x").status == 204
    one.kill()
    other = lab.worker("w-0", "--lease-seconds", "1", directory="another")
    assert other.copies() == {}
    assert other.get("aaaa").word == other.put("aaaa", "y").word == "not-mine"
    order = {"partition": "p", "epoch": 1, "keySpace": "default"}
    for verb in ("promote", "resume"):
        assert other.call(verb, order).json() == {"copy": None}
    assert other.call("fence", {**order, "epoch": 9}).word == "not-here"
    assert other.copies() == {}


def test_what_was_frozen_longer_than_its_lease_serves_nobody_after_the_thaw(lab: Lab) -> None:
    """Its partition has gone to a follower meanwhile, and the calls that would have told it are lost."""
    one, two = lab.worker("w-0", "--lease-seconds", "2"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    follows(lab, one, two)
    assert one.put("aaaa", "before").status == 204
    one.freeze()
    found: list[list[Answer]] = [[] for _each in range(8)]
    waiting = [threading.Thread(target=asks, args=(one, answers)) for answers in found]
    for thread in waiting:
        thread.start()
    called_up(lab, one, two)
    assert two.put("aaaa", "after").status == 204
    one.thaw()
    for thread in waiting:
        thread.join()
    for answers in found:
        for answer in answers:
            assert answer.status != 204 and (answer.status != 200 or answer.body == b"after"), answer.body
    one.lacks("p")
    assert two.get("aaaa").body == b"after"
    assert one.put("aaaa", "x").word == "not-mine"


def test_a_write_is_acknowledged_when_its_followers_have_it(lab: Lab) -> None:
    one, two = lab.worker("w-0"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    follows(lab, one, two)
    assert one.put("aaaa", "both").status == 204
    two.freeze()
    late = one.put("aaaa", "one only")
    assert (late.status, late.word) == (504, "unknown")
    assert one.get("aaaa").word == "unserved"  # what it has may yet be lost
    two.thaw()
    until(lambda: one.get("aaaa").body == b"one only", "the follower to have it, too", 60)
    assert one.put("aaaa", "again").status == 204
    two.kill()
    assert one.put("aaaa", "x").word == "unknown"
    epoch = lab.order({"metadata": {"name": "", "uid": ""}}, "p")["epoch"]
    lab.have("p", followers=[], epoch=epoch + 1)
    until(lambda: one.put("aaaa", "x").status == 204, "it to see, by its own look, that there is no follower", 60)
    one.has("p", followers=[], epoch=epoch + 1)
    assert one.put("aaaa", "alone").status == 204


def test_a_follower_that_is_called_up_has_all_that_was_acknowledged(lab: Lab) -> None:
    one, two = lab.worker("w-0", "--lease-seconds", "2"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    follows(lab, one, two)
    writer = Writer([one], "aa")
    writer.writes(100)
    one.kill()
    writer.stop()
    called_up(lab, one, two)
    writer.check(two)


def test_an_aborted_operation_gives_the_partition_back_whoever_is_told(lab: Lab) -> None:
    one, two = lab.worker("w-0"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    assert one.put("aaaa", "x").status == 204
    moving = lab.assignment("InterWorkerMove", partition="p", **{"from": "w-0", "to": "w-1"})
    lab.claim(moving, "p")
    order = lab.order(moving, "p", **{"from": {"worker": "w-0", "address": one.url}})
    assert two.call("follow", order).status == 200
    two.has("p", role="following")
    late = lab.order(moving, "p")
    fenced = lab.fence(moving, one, "p")
    refusal = one.put("aaaa", "y", timeout=30.0)
    assert (refusal.status, refusal.word) == (503, "unserved") and "Retry-After" in refusal.headers
    epoch = fenced["fencedEpoch"] + 1
    lab.says(moving, "Aborting")
    lab.have("p", claimedBy="", fencedBy="", epoch=epoch)
    one.has("p", role="primary", epoch=epoch)  # nobody has told it
    two.lacks("p")
    lab.says(moving, "Aborted")
    assert one.put("aaaa", "y").status == 204
    for verb, body in (("fence", late), ("fence", {**late, "epoch": fenced["fencedEpoch"]}), ("drop", late)):
        assert one.call(verb, body).word in ("stale", "busy")  # late calls change nothing
    assert two.call("proxy", {**late, "to": {"worker": "w-1"}}).word == "not-here"
    assert one.get("aaaa").body == b"y"


def test_a_call_that_comes_twice_changes_nothing(lab: Lab) -> None:
    one, two = lab.worker("w-0"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    assert one.put("aaaa", "x").status == 204
    moving = lab.assignment("InterWorkerMove", partition="p", **{"from": "w-0", "to": "w-1"})
    lab.claim(moving, "p")
    order = lab.order(moving, "p", **{"from": {"worker": "w-0", "address": one.url}})
    for _time in range(2):
        assert two.call("follow", order).status == 200
        two.has("p", role="following")
    fenced = lab.fence(moving, one, "p")
    assert one.call("fence", lab.order(moving, "p")).json()["copy"]["position"] == fenced["position"]
    epoch = fenced["fencedEpoch"] + 1
    lab.commits(moving, [lab.result("p", two, epoch)])
    assert two.put("aaaa", "y", Muster_Epoch=str(epoch - 1)).status == 204  # before anybody has told it
    lab.have("p", primary="w-1", epoch=epoch, proxy="w-0", fencedBy="", fencedAt="")
    assert two.call("follow", order).word in ("busy", "stale")  # late: it is served by now
    assert two.call("drop", order).word == "busy"
    assert two.get("aaaa").body == b"y"


def test_at_its_end_it_says_that_it_leaves_and_serves_until_nothing_is_left(lab: Lab) -> None:
    one, two = lab.worker("w-0", "--drain-seconds", "60"), lab.worker("w-1", "--drain-seconds", "0")
    lab.partition("p")
    lab.new(one, "p")
    one.signal(signal.SIGTERM)
    until(lambda: "muster.dev/leaving" in lab.lease("w-0")["metadata"]["annotations"], "it to say that it leaves", 60)
    assert one.ask("GET", "/readyz").status == 503 and one.report()["leaving"]
    assert one.put("aaaa", "x").status == 204
    lab.move("p", one, two)
    assert one.popen.wait(60) == 0
    assert lab.lease("w-0")["spec"].get("holderIdentity", "") == ""
    assert two.get("aaaa").body == b"x"
    assert two.end() == 0  # it does not wait
    again = lab.worker("w-1")
    again.has("p", role="primary")
    assert again.get("aaaa").body == b"x"


def test_a_restart_in_the_middle_of_a_split_ends_it(lab: Lab) -> None:
    """The worker is killed after the commit, before it has heard of it, and the operation is over before it is back."""
    one = lab.worker("w-0")
    lab.partition("p")
    lab.new(one, "p")
    for key in ("aaaa", "zzzz"):
        assert one.put(key, "x").status == 204
    split = lab.assignment("InWorkerSplit", partition="p", splitKey="m")
    lab.claim(split, "p")
    assert one.call("prepare", lab.order(split, "p")).json()["copy"]["prepared"] == split["metadata"]["uid"]
    fenced = lab.fence(split, one, "p")
    one.kill()
    sources = [{"partition": "p", "epoch": fenced["fencedEpoch"]}]
    halves = {"p-l": {"start": "", "end": "m"}, "p-r": {"start": "m", "end": ""}}
    listed = [lab.result(name, one, 3, range=whole, sources=sources) for name, whole in halves.items()]
    lab.commits(split, listed, ("p",))
    for each in listed:
        spec = {field: each[field] for field in ("range", "primary", "epoch", "sources")}
        lab.create(PARTITIONS, each["partition"], {**spec, "madeBy": split["metadata"]["name"]})
    lab.api.delete(PARTITIONS, "p", lab.namespace)
    lab.says(split, "Completed")
    again = lab.worker("w-0")
    for name in halves:
        again.has(name, role="primary", epoch=3)
    again.lacks("p")
    for key in ("aaaa", "zzzz"):
        assert again.get(key).body == b"x"


def test_what_a_completed_move_has_left_is_dropped_by_its_own_look(lab: Lab) -> None:
    one, two = lab.worker("w-0"), lab.worker("w-1")
    lab.partition("p")
    lab.new(one, "p")
    assert one.put("aaaa", "x").status == 204
    moved = lab.move("p", one, two, drop=False)
    one.kill()
    lab.completes(moved, "p")
    again = lab.worker("w-0")
    again.lacks("p")
    assert two.get("aaaa").body == b"x"


def test_two_of_one_name_never_both_serve(lab: Lab) -> None:
    one = lab.worker("w-0", "--lease-seconds", "2", "--drain-seconds", "0")
    lab.partition("p")
    lab.new(one, "p")
    with pytest.raises(AssertionError, match="no other worker uses"):
        lab.worker("w-0", "--lease-seconds", "2")
    two = WorkerProcess(lab, "w-0", "--lease-seconds", "2", directory="another")
    two.says("has it")
    assert two.report()["session"] == 0 and one.put("aaaa", "x").status == 204
    assert one.end() == 0
    two.says('"message": "has its Lease"')


# ---------------------------------------------------------------------------------------------- steps


def follows(lab: Lab, primary: WorkerProcess, follower: WorkerProcess) -> None:
    """Have a follower of p in sync."""
    body = {"keySpace": "default", "partition": "p", "range": {"start": "", "end": ""}}
    body["epoch"] = lab.order({"metadata": {"name": "", "uid": ""}}, "p")["epoch"]
    peer = {"worker": primary.name, "address": primary.url}
    assert follower.call("follow", {**body, "from": peer}).status == 200
    follower.has("p", role="following")
    promised = primary.call("promise", {**body, "follower": follower.name})
    assert promised.json()["copy"]["followers"] == [follower.name]
    position = promised.json()["copy"]["position"]
    until(lambda: follower.copies()["p"]["position"] >= position, "the follower to have all", 60)
    lab.have("p", followers=[follower.name])


def called_up(lab: Lab, lost: WorkerProcess, follower: WorkerProcess) -> None:
    """The primary's Lease has run out: the follower is to serve p."""
    moving = lab.assignment("InterWorkerMove", partition="p", **{"from": lost.name, "to": follower.name})
    lab.claim(moving, "p")
    epoch = lab.order(moving, "p")["epoch"] + 1
    lab.have("p", fencedBy=moving["metadata"]["name"], fencedAt="2026-01-31T12:00:00.000000Z", epoch=epoch)
    seen: list[tuple[str, float]] = [("", 0.0)]

    def is_lost() -> bool:
        renewed = lab.lease(lost.name)["spec"]["renewTime"]
        if renewed != seen[0][0]:
            seen[0] = (renewed, time.monotonic())
        return time.monotonic() - seen[0][1] > 3.0

    until(is_lost, "the Lease to run out", 60)
    lab.commits(moving, [lab.result("p", follower, epoch + 1) | {"follower": True}])
    lab.have("p", primary=follower.name, epoch=epoch + 1, followers=[], fencedBy="", fencedAt="", proxy=lost.name)
    assert follower.call("promote", lab.order(moving, "p")).status == 200
    follower.has("p", role="primary", epoch=epoch + 1)
    lab.completes(moving, "p")


def asks(worker: WorkerProcess, answers: list[Answer]) -> None:
    """Write, and read, on connections that stand while the worker is frozen."""
    with suppress(urllib3.exceptions.HTTPError):
        answers.append(worker.put("aaaa", "by the frozen one", timeout=60.0))
        answers.append(worker.get("aaaa", timeout=60.0))

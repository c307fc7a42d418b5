# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong around a semaphore, one test a fault, each for both engines, on a real API server.

Every revision of the semaphore and of the Pods is recorded (`docket`) and judged by oracles of their own; that is what
each test ends with. How long things took is printed, never asserted: only generous deadlines are.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    Api,
    ApiError,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as in_annotations
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets as in_tickets
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support.docket import Docket
from ansible_collections.muster.coordination.tests.support.fault_proxy import (
    Answer,
    AppliedButFailed,
    CutAnswer,
    DropAnswer,
    DropRequest,
    Expired,
    FaultProxy,
    Stale,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Attending, Lab, until
from ansible_collections.muster.coordination.tests.support.sidecar_process import SidecarProcess

pytestmark = pytest.mark.integration

WRITES = {"annotations": ("PUT", "PUT"), "tickets": ("POST", "DELETE")}  # by which a holder claims and gives back
QUICK = (1.0, 1.5)  # seconds between looks that no watch asked for, where a test can't wait for a minute


@pytest.fixture(params=["annotations", "tickets"])
def lab(request: pytest.FixtureRequest, api: Api, namespace: str) -> Iterator[Lab]:
    lab = Lab(api, namespace, engine_name=request.param)
    yield lab
    lab.close()


@pytest.fixture
def docket(lab: Lab) -> Iterator[Docket]:
    docket = Docket(lab.api, lab.namespace, lab.name, lab.engine)
    yield docket
    docket.close()


@pytest.fixture
def proxy(kubeconfig: str) -> Iterator[FaultProxy]:
    with FaultProxy(Credentials.load({"kubeconfig": kubeconfig})) as proxy:
        yield proxy


@pytest.fixture
def took(lab: Lab, record_property: Callable[[str, object], None]) -> Callable[[str, float], None]:
    """Reports a time."""

    def report(what: str, seconds: float) -> None:
        record_property(what, f"{seconds * 1000:.0f} ms")
        print(f"{lab.engine}: {what}: {seconds * 1000:.0f} ms")

    return report


@pytest.fixture
def processes(lab: Lab, kubeconfig: str, tmp_path: Path) -> Iterator[Callable[..., SidecarProcess]]:
    """Starts real sidecar processes, and ends them."""
    started: list[SidecarProcess] = []

    def start(name: str, uid: str = "", **options: Any) -> SidecarProcess:
        started.append(SidecarProcess(lab, str(Path(kubeconfig).resolve()), tmp_path, name, uid, **options))
        return started[-1]

    yield start
    for process in started:
        process.end()


def line_up(lab: Lab, names: str = "abc", capacity: int = 1, **options: Any) -> list[Attending]:
    """Sidecars which came in this order: with one permit the first holds it, the others wait."""
    lab.semaphore({"gpu": capacity})
    there: list[Attending] = []
    for number, name in enumerate(names):
        there.append(lab.sidecar(name, **options))
        if number < capacity:
            there[-1].holds()
        else:
            there[-1].waits(number - capacity + 1)
    return there


def served(lab: Lab) -> list[Attending]:
    return [attending for attending in lab.attending if attending.fence]


# ------------------------------------------------------------------------------------------ no fault


def test_a_permit_given_back_goes_to_the_next_and_then_nobody_writes(lab: Lab, docket: Docket, took) -> None:
    a, b, c = line_up(lab)
    first = a.fence
    a.leave()
    took("hand-off after release", b.holds())
    assert b.fence > first
    c.waits(1)
    revisions = lab.judge(docket).revisions
    time.sleep(1.5)  # longer than anybody's random delay
    assert lab.judge(docket).revisions == revisions


# ------------------------------------------------------------------------------------------ a bad network


def test_a_storm_of_conflicts_keeps_nobody_from_his_turn(lab: Lab, docket: Docket, proxy: FaultProxy, took) -> None:
    """409 to whoever writes: some from the proxy, and real ones, for a person edits the object, and edits it again."""
    lab.semaphore({"gpu": 1})
    stop = threading.Event()

    def edit() -> None:
        number = 0
        while not stop.wait(0.3):
            for _edit in range(10):
                lab.annotate(foreign=str(number := number + 1))

    hand = threading.Thread(target=edit, daemon=True)
    hand.start()
    claims, _gives_back = WRITES[lab.engine]
    proxy.plan(Answer(409, "Conflict"), method=claims, path=lab.resource.plural, times=8)
    proxy.plan(Answer(409, "Conflict"), method="PUT", path=lab.resource.plural, times=8)
    waiting = [lab.sidecar(f"s{number}", api=Api(proxy.credentials())) for number in range(4)]
    began = time.monotonic()
    while waiting:
        try:
            until(lambda: any(one.fence for one in waiting), f"one of {len(waiting)} to be served")
        except AssertionError as error:
            raise AssertionError(f"{error}: {[(one.sight.place, one.sight.trouble) for one in waiting]}") from None
        lab.ask_for({"gpu": 1, f"other-{len(waiting)}": 0})
        first = next(one for one in waiting if one.fence)
        waiting.remove(first)
        first.leave()
    took("four turns in a storm of conflicts", time.monotonic() - began)
    stop.set()
    hand.join()
    assert not proxy.pending, "not everybody met a conflict"
    verdict = lab.judge(docket)
    assert len(verdict.grants) == 4
    assert verdict.holding == {}


def test_watches_that_are_dropped_miss_nothing(lab: Lab, docket: Docket, proxy: FaultProxy, took) -> None:
    a, b, c = line_up(lab, api=Api(proxy.credentials()))
    for fault in (CutAnswer(20), DropAnswer(), DropRequest()):
        proxy.plan(fault, path="watch=true")
        proxy.cut()
    until(lambda: not proxy.pending, "three faults of watches")
    a.stop()
    proxy.cut()
    lab.kill("a")
    proxy.cut()
    took("hand-off while watches are dropped", b.holds())
    proxy.down()
    b.says("no connection")
    b.stop()
    lab.kill("b")
    proxy.up()
    took("hand-off after the way is back", c.holds())
    assert {name for name, _uid in lab.judge(docket).holding} == {"c"}


def test_a_watch_that_stalls_keeps_nobody_waiting_for_ever(lab: Lab, docket: Docket, proxy: FaultProxy, took) -> None:
    """No event comes, and nothing is closed: the look that no watch asks for finds what has changed."""
    a, b, c = line_up(lab, api=Api(proxy.credentials()), resync=QUICK)
    proxy.freeze("watch=true")
    a.leave()
    took("hand-off to one whose watches stall", b.holds())
    lab.ask_for({"gpu": 2})
    took("grant after a raise to one whose watches stall", c.holds())
    proxy.thaw()
    assert {name for name, _uid in lab.judge(docket).holding} == {"b", "c"}


def test_a_wire_that_is_silent_loses_nothing(lab: Lab, docket: Docket, proxy: FaultProxy, took) -> None:
    """Nothing at all comes, and nothing is closed: a blackholed network, which then is none any more."""
    _a, b, _c = line_up(lab, api=Api(proxy.credentials(), timeout=2), resync=QUICK)
    proxy.freeze()
    lab.kill("a")
    time.sleep(2 * QUICK[1])
    assert b.fence is None, "granted by what it can't have seen"
    proxy.thaw()
    took("hand-off after a silence", b.holds(90))
    assert {name for name, _uid in lab.judge(docket).holding} == {"b"}


def test_a_version_that_is_forgotten_is_listed_anew(lab: Lab, docket: Docket, proxy: FaultProxy, took) -> None:
    """410, as an answer to the watch and as its only event, while the permit is handed on."""
    a, b, c = line_up(lab, api=Api(proxy.credentials()))
    proxy.freeze("watch=true")
    a.leave()
    proxy.plan(Answer(410, "Expired"), path="watch=true", times=2)
    proxy.forget(int(lab.api.list(lab.resource, lab.namespace).resource_version))
    proxy.cut()
    proxy.thaw()
    took("hand-off through 410", b.holds())
    assert not proxy.pending
    proxy.plan(Expired(), path="watch=true", times=2)
    proxy.cut()
    lab.kill("b")
    b.stop()
    took("hand-off after a death through 410", c.holds())
    assert {name for name, _uid in lab.judge(docket).holding} == {"c"}


def test_a_cache_that_lags_is_not_believed(lab: Lab, docket: Docket, proxy: FaultProxy) -> None:
    """Lists and watches answer with the world of a while ago: everything free, and the Pod of the holder not born."""
    lab.semaphore({"gpu": 1})
    first = lab.sidecar("first")
    first.holds()
    first.leave()
    proxy.remember()
    early = lab.sidecar("early", api=Api(proxy.credentials()))
    early.holds()
    early.leave()
    lab.kill("early")
    a = lab.sidecar("a")
    a.holds()
    proxy.plan(Stale(), method="GET", path="limit=", times=1000)
    proxy.freeze("watch=true")
    b = lab.sidecar("b", api=Api(proxy.credentials()), resync=QUICK)
    until(lambda: sum(isinstance(seen.fault, Stale) for seen in proxy.seen) >= 2, "stale answers")
    with pytest.raises(MusterError, match=r"gpu is not free for ci"):
        verbs.claim(Api(proxy.credentials()), holder="ci", lease=60, resource="gpu", **lab.at)
    time.sleep(2 * QUICK[1])  # it looks again, and again in vain
    assert (b.fence, b.fences) == (None, [])
    proxy.clear()
    proxy.thaw()
    proxy.cut()
    b.waits(1)
    a.leave()
    b.holds()
    docket.may_go("ci")
    assert {name for name, _uid in lab.judge(docket).holding} == {"b"}


LOST = {
    "answer lost": DropAnswer(),
    "answer cut short": CutAnswer(10),
    "500 after it was applied": AppliedButFailed(500),
    "504 after it was applied": AppliedButFailed(504, "Timeout"),
    "request lost": DropRequest(),
    "500, not applied": Answer(500),
    "429": Answer(429, "TooManyRequests", retry_after=1),
}


def test_a_write_whose_answer_is_lost_is_made_once(lab: Lab, docket: Docket, proxy: FaultProxy) -> None:
    """The write of a claim, and that of giving back; and the next one is served as if nothing had been."""
    lab.semaphore({"gpu": 1})
    claims, gives_back = WRITES[lab.engine]
    waiting = lab.sidecar("first")
    waiting.holds()
    for number, fault in enumerate(LOST.values()):
        holder, waiting = waiting, lab.attend(name := f"s{number}", lab.pod(name), api=Api(proxy.credentials()))
        proxy.plan(fault, method=claims, path=lab.resource.plural)
        until(lambda: not proxy.pending, f"a claim to meet {fault}")
        waiting.waits(1)
        proxy.plan(fault, method=gives_back, path=lab.resource.plural)
        holder.leave()
        waiting.holds()
        proxy.clear()
    verdict = lab.judge(docket)
    assert sorted(verdict.grants) == sorted(fence for one in lab.attending for fence in one.fences)
    assert len(verdict.grants) == len(LOST) + 1
    assert {name for name, _uid in verdict.holding} == {waiting.claimant.holder}


# ------------------------------------------------------------------------------------------ the holder


def test_a_holder_that_is_stopped_keeps_what_it_has_until_its_pod_goes(
    lab: Lab, docket: Docket, processes: Callable[..., SidecarProcess], took
) -> None:
    """SIGSTOP of the sidecar: its Pod lives, so nobody else gets the permit; and then its Pod is deleted."""
    lab.semaphore({"gpu": 1})
    a = processes("a", lab.pod("a"))
    a.holds()
    fence = a.fence
    b = lab.sidecar("b", resync=QUICK)
    b.waits(1)
    a.send(signal.SIGSTOP)
    time.sleep(2 * QUICK[1])
    assert b.fence is None, "the permit of a Pod that lives was given away"
    lab.kill("a")
    took("hand-off after the Pod of a stopped sidecar is gone", b.holds())
    a.send(signal.SIGCONT)
    took("a sidecar that was stopped knows that it lost", a.loses(fence))
    assert b.fence > fence
    time.sleep(1)
    assert a.fence is None
    assert {name for name, _uid in lab.judge(docket).holding} == {"b"}


def test_a_sidecar_that_is_killed_finds_its_claim_again(
    lab: Lab, docket: Docket, processes: Callable[..., SidecarProcess], took
) -> None:
    """SIGKILL: the Pod lives on and so does its claim; killed again, and its Pod with it, it ends."""
    lab.semaphore({"gpu": 1})
    uid = lab.pod("a")
    a = processes("a", uid)
    a.holds()
    fence = a.fence
    b = lab.sidecar("b", resync=QUICK)
    b.waits(1)
    a.kill()
    time.sleep(QUICK[1])
    told = len(a.logged("granted"))  # the log is gone on with, and the claim file of the first is still there
    again = processes("a", uid)
    until(lambda: len(again.logged("granted")) > told, "the new process to find its claim")
    assert again.fence == fence
    again.kill()
    lab.kill("a")
    took("hand-off after sidecar and Pod were killed", b.holds())
    verdict = lab.judge(docket)
    assert {name for name, _uid in verdict.holding} == {"b"}
    took("the grant survived its holder", max(verdict.survived))


def test_a_name_that_comes_back_is_a_new_holder_behind_those_who_wait(
    lab: Lab, docket: Docket, proxy: FaultProxy, took
) -> None:
    """A StatefulSet's Pod is deleted and made again under its name, and those who wait see only that it is there."""
    a, b, c = line_up(lab, api=Api(proxy.credentials()))
    first = a.fence
    proxy.down()
    lab.kill("a")
    uid = lab.pod("a")
    proxy.plan(Expired(), path="watch=true", times=7 if lab.engine == "tickets" else 6)  # a list shows no deletion
    proxy.up()
    again = lab.attend("a", uid)
    took("hand-off past the one of the same name", b.holds())
    again.waits(2)
    lab.kill("b")
    c.holds()
    lab.kill("c")
    again.holds()
    assert again.fence > first
    assert a.fences == [first], "the process of the former Pod got something again"
    verdict = lab.judge(docket)
    assert set(verdict.holding) == {("a", again.claimant.uid)}


def test_a_pod_that_is_deleted_by_force_loses_its_permit_at_once_and_not_before(lab: Lab, docket: Docket, took) -> None:
    """Its node is lost: deleted as usual it stays, and may still run, so it keeps what it has; then by force."""
    lab.semaphore({"gpu": 1})
    a = lab.attend("a", lab.pod("a", on_lost_node=True))
    a.holds()
    b = lab.sidecar("b", resync=QUICK)
    b.waits(1)
    fence = a.fence
    lab.kill("a")
    time.sleep(2 * QUICK[1])
    assert (a.fence, b.fence) == (fence, None), "the permit of a Pod that may still run was given away"
    lab.kill_at_once("a")
    took("hand-off after a Pod was deleted by force", b.holds())
    a.says("does not exist any more")
    a.loses()
    assert b.fence > fence
    lab.kill("b")
    b.loses()
    time.sleep(2)
    assert (a.fence, b.fence) == (None, None), "a process that outlives its Pod got something again"
    verdict = lab.judge(docket)
    assert verdict.holding == {}
    took("the grant survived its holder", max(verdict.survived))


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_gives_up_what_it_has_and_its_place(lab: Lab, docket: Docket, phase: str, took) -> None:
    """Its object stays, as that of a Job does."""
    a, b, c = line_up(lab)
    b.stop()
    lab.finish("b", phase)
    a.stop()
    lab.finish("a", phase)
    took("hand-off after the end of holder and of who was next", c.holds())
    assert c.fence > a.fence
    verdict = lab.judge(docket)
    assert {name for name, _uid in verdict.holding} == {"c"}
    took("the grant survived its holder", max(verdict.survived))


def test_a_clock_that_steps_a_day_takes_nothing_away(
    lab: Lab, docket: Docket, processes: Callable[..., SidecarProcess], took
) -> None:
    """Of a holder with a lease, a day forward and a day back; of the observer, a day off for good, both its clocks.

    Then the holder is stopped (SIGSTOP) for longer than its lease: it loses, and knows it when it goes on.
    """
    lease = 3
    lab.semaphore({"gpu": 1})
    ci = processes("ci", lease=lease)
    ci.holds()
    fence = ci.fence
    other = processes("other", lease=lease, monotonic_days=3)
    other.waits()
    other.step(1)
    b = lab.sidecar("b")
    b.waits(2)
    for days in (1, -2):
        ci.step(days)
        time.sleep(lease + 0.5)
        assert (ci.fence, other.fence, b.fence) == (fence, None, None), f"{days:+} days on the holder's clock"
    assert [line["seconds"] for line in ci.logged("stepped")] == [86400.0, 0.0, -86400.0], "the clock did not step"
    assert lab.judge(docket).holding == {("ci", ""): fence}
    ci.send(signal.SIGSTOP)
    docket.may_go("ci", "other")
    took(f"lease of {lease} s of a stopped holder taken away", other.holds())
    ci.send(signal.SIGCONT)
    took("a holder that was stopped knows that it lost", ci.loses(fence))
    assert other.fence > fence
    lab.judge(docket)


# ------------------------------------------------------------------------------------------ the object


def test_a_semaphore_that_is_deleted_and_made_again_is_claimed_again(lab: Lab, docket: Docket, took) -> None:
    a, b, _c = line_up(lab)
    first = a.fence
    lab.remove()
    a.loses()
    a.says("does not exist")
    b.says("does not exist")
    lab.semaphore({"gpu": 2}, foreign="kept")
    took("grants after it was made again", until(lambda: len(served(lab)) == 2, "two of three to hold"))
    fences = {one.claimant.holder: one.fence for one in served(lab)}
    if lab.engine == "tickets":  # the claims were there all the time: a has its own again, and b is next
        assert fences == {"a": first, "b": fences["b"]} and fences["b"] > first
    else:
        assert min(fences.values()) > first
    lab.kill("a")
    until(lambda: len([one for one in served(lab) if one.claimant.holder != "a"]) == 2, "the third to hold")
    assert {name for name, _uid in lab.judge(docket).holding} == {"b", "c"}
    assert lab.annotations()["foreign"] == "kept"


NONSENSE = ['{"gpu": -1}', '{"gpu": "two"}', '{"gpu": 1.5}', "[]", "{", '{"gpu": 1, "gpu": 2}', '{"*": 1}']


def test_a_capacity_that_goes_up_and_down_and_mad_revokes_nobody(lab: Lab, docket: Docket, took) -> None:
    a, b, c = line_up(lab)
    lab.ask_for({"gpu": 3})
    took("grants after a raise", max(b.holds(), c.holds()))
    fences = [a.fence, b.fence, c.fence]
    lab.ask_for({"gpu": 0})
    d = lab.sidecar("d")
    d.waits(1)
    for text in NONSENSE:
        lab.ask_for(text)
        d.says(lab.capacity_key)
        assert lab.annotations()[lab.capacity_key] == text
    with pytest.raises(MusterError, match=lab.capacity_key):
        verbs.claim(lab.api, holder="ci", lease=60, **lab.at)
    assert [a.fence, b.fence, c.fence] == fences
    lab.ask_for({"gpu": 2})
    lab.kill("a")
    a.loses()
    time.sleep(1)
    assert d.fence is None, "granted while what is held still drains"
    lab.kill("b")
    took("grant when it has drained", d.holds())
    lab.ask_for({})  # nothing is declared any more
    e = lab.sidecar("e", want="tpu")
    e.says("tpu")
    lab.ask_for({"gpu": 2, "tpu": 1})
    took("grant of a resource that is declared at last", e.holds())
    assert {name for name, _uid in lab.judge(docket).holding} == {"c", "d", "e"}


OURS = {
    "annotations": (in_annotations.ASSIGNMENT, in_annotations.STATE),
    "tickets": (in_tickets.IN_FORCE, in_tickets.ENDED),
}


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_malformed_is_left_alone_and_all_goes_on_when_it_is_mended(
    lab: Lab, docket: Docket, which: int
) -> None:
    key = OURS[lab.engine][which]
    a, b, _c = line_up(lab)
    sound, fence = lab.annotations().get(key), a.fence
    for text in ("{", "[1]", '{"x": {}}' if key != in_tickets.IN_FORCE else '{"version": 99}'):
        lab.annotate(**{key: text})
        a.says(key)
        b.says(key)
        with pytest.raises(MusterError, match=key):
            verbs.claim(lab.api, holder="ci", lease=60, **lab.at)
        with pytest.raises(MusterError, match=key):
            verbs.configure(lab.api, capacity={"gpu": 2}, **lab.at)
        assert lab.annotations()[key] == text
        assert (a.fence, b.fence) == (fence, None)
    lab.annotate(**{key: sound})
    lab.kill("a")
    b.holds()
    assert {name for name, _uid in lab.judge(docket).holding} == {"b"}


def foreign_parts(obj: dict[str, Any]) -> dict[str, Any]:
    """All that is not ours, but for what the API server writes itself."""
    own = {"resourceVersion", "managedFields", "annotations"}
    metadata = {key: value for key, value in obj["metadata"].items() if key not in own}
    notes = {key: value for key, value in obj["metadata"]["annotations"].items() if "example.org" in key}
    rest = {key: value for key, value in obj.items() if key != "metadata"}
    return {"metadata": metadata, "annotations": notes, **rest}


def test_what_is_not_ours_is_kept(lab: Lab, docket: Docket) -> None:
    """Foreign annotations, labels, owners and content; and keys in our own JSON that a newer Muster may have put."""
    state = OURS[lab.engine][1 if lab.engine == "annotations" else 0]
    a, b, c = line_up(lab)
    owner = lab.api.create(CONFIGMAPS, {"metadata": {"name": "owner", "namespace": lab.namespace}})
    while True:  # as an operator of the user's would, between our writes
        obj = lab.api.get(lab.resource, lab.name, lab.namespace)
        metadata = obj["metadata"]
        metadata["labels"] = {**metadata.get("labels", {}), "example.org/team": "render"}
        metadata["annotations"]["example.org/note"] = ' {"spaced":  [1,\n2]} '
        metadata["annotations"][state] = json.dumps({**json.loads(metadata["annotations"][state]), "newer": {"x": [1]}})
        reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        metadata["ownerReferences"] = [reference]
        metadata["finalizers"] = ["example.org/keep"]
        if lab.resource == CONFIGMAPS:
            obj |= {"data": {"key": "value\n"}, "binaryData": {"b": "AAE="}}
        else:
            obj["spec"] = {"holderIdentity": "somebody else's", "leaseTransitions": 7}
        with contextlib.suppress(ApiError):
            written = lab.api.replace(lab.resource, obj)
            break
    before = foreign_parts(written)
    docket.by_hand.add(int(written["metadata"]["resourceVersion"]))
    a.leave()
    b.holds()
    lab.finish("b")
    c.holds()
    verbs.configure(lab.api, capacity={"gpu": 2}, **lab.at)
    lab.ask_for({"gpu": 3, "tpu": 0})
    d = lab.sidecar("d")
    d.holds()
    obj = lab.api.get(lab.resource, lab.name, lab.namespace)
    assert foreign_parts(obj) == before
    assert json.loads(obj["metadata"]["annotations"][state])["newer"] == {"x": [1]}
    obj["metadata"]["finalizers"] = []
    lab.judge(docket)
    with contextlib.suppress(ApiError):
        lab.api.replace(lab.resource, obj)


def test_an_object_that_is_full_loses_nothing_and_says_so(lab: Lab, docket: Docket) -> None:
    """Others have put so much on it that our own would pass Kubernetes' 256 KiB."""
    limit = in_annotations.MAX_ANNOTATIONS
    a, b, _c = line_up(lab)
    fence = a.fence
    used = in_annotations.annotation_bytes(lab.annotations())
    key = "example.org/big"
    lab.annotate(**{key: "x" * (limit - used - len(key) - 20)})
    big = lab.annotations()[key]
    if lab.engine == "tickets":  # a claim does not touch the full object; a capacity in force does
        d = lab.sidecar("d")
        d.waits(3)
        with pytest.raises(ApiError, match="annotations"):
            verbs.configure(lab.api, capacity={"gpu": 1, "a-resource-with-a-name-that-is-long": 1}, **lab.at)
    else:
        d = lab.attend("d", lab.pod("d"))
        d.says("Kubernetes allows")
        with pytest.raises(MusterError, match="Kubernetes allows 262144: spread the holders"):
            verbs.claim(lab.api, holder="ci", lease=60, wait=True, wait_timeout=2, **lab.at)
    assert (a.fence, b.fence, d.fence) == (fence, None, None)
    assert lab.annotations()[key] == big
    lab.kill("a")  # it gets smaller by that, or is not touched: handed on all the same
    b.holds()
    lab.annotate(**{key: None})
    d.waits()
    assert {name for name, _uid in lab.judge(docket).holding} == {"b"}


# ------------------------------------------------------------------------------------------ permission

ROLES = Resource("rbac.authorization.k8s.io/v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding")


class Permission:
    """A user, and the role that it has in the namespace, or has not."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self.user = lab, f"user-of-{lab.namespace}"
        rules = [
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "update"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "verbs": ["get", "list", "watch", "create", "update", "delete"],
            },
        ]
        lab.api.create(ROLES, {**self._meta(), "rules": rules})
        self.give()

    def _meta(self) -> dict[str, Any]:
        return {"metadata": {"name": "distributor", "namespace": self._lab.namespace}}

    def give(self) -> None:
        subject = {"kind": "User", "name": self.user, "apiGroup": "rbac.authorization.k8s.io"}
        role = {"kind": "Role", "name": "distributor", "apiGroup": "rbac.authorization.k8s.io"}
        self._lab.api.create(ROLE_BINDINGS, {**self._meta(), "subjects": [subject], "roleRef": role})

    def take(self) -> None:
        self._lab.api.delete(ROLE_BINDINGS, "distributor", self._lab.namespace)

    def api(self, proxy: FaultProxy) -> Api:
        api = Api(proxy.credentials(impersonate_user=self.user))
        until(lambda: self._is_allowed(api), "the role to take effect")
        return api

    def _is_allowed(self, api: Api) -> bool:
        try:
            api.get(self._lab.resource, self._lab.name, self._lab.namespace)
        except NotFound:
            return True
        except ApiError:
            return False
        return True


def test_a_permission_that_is_taken_and_given_back(lab: Lab, docket: Docket, proxy: FaultProxy, took) -> None:
    """The RoleBinding is removed while all run: nobody loses anything, each says what it lacks, and all goes on."""
    permission = Permission(lab)
    a, b, c = line_up(lab, api=permission.api(proxy), resync=QUICK)
    fence = a.fence
    watches = {"annotations": 6, "tickets": 7}[lab.engine]
    until(lambda: proxy.count("GET", "watch=true") >= watches, "all watches to stand")
    permission.take()
    time.sleep(1)  # the API server's own cache of roles
    proxy.cut()
    for one in (a, b, c):
        one.says("403")
        assert "Allow the verb" in one.sight.trouble
    d = lab.sidecar("d")  # it has the rights of an administrator
    d.waits(3)
    assert (a.fence, b.fence, c.fence) == (fence, None, None)
    permission.give()
    lab.kill("a")
    took("hand-off after the permission is back", b.holds())
    c.waits(1)
    until(lambda: b.sight.trouble is None, "b to be without trouble")
    assert {name for name, _uid in lab.judge(docket).holding} == {"b"}


def test_who_was_never_permitted_is_told_at_once(lab: Lab, docket: Docket, proxy: FaultProxy) -> None:
    lab.semaphore({"gpu": 1})
    nobody = Api(proxy.credentials(impersonate_user="nobody"))
    a = lab.sidecar("a", api=nobody)
    with pytest.raises(ApiError, match=r'403 .*"nobody" cannot list.*Allow the verb list on'):
        a.holds()
    with pytest.raises(ApiError, match=r"403 .*Allow the verb"):
        verbs.claim(nobody, holder="ci", lease=60, **lab.at)
    assert lab.judge(docket).grants == {}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster distributor` as real processes at a real API server: what an application, and who runs it, see of it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, EVENTS, LEASES, PODS, Api
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab, until

pytestmark = pytest.mark.integration
ENGINES = ("annotations", "tickets")


class Process:
    """A running `muster distributor …`, its log, and what it prints."""

    def __init__(self, bench: Bench, arguments: Sequence[str], **variables: str) -> None:
        own = ("MUSTER_", "POD_", "DISTRIBUTOR_", "KUBECONFIG")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.log_path = bench.directory / f"{len(bench.processes)}.log"
        with self.log_path.open("w") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "muster.cli", "distributor", *arguments],
                env={**environment, "KUBECONFIG": bench.kubeconfig, "MUSTER_NAMESPACE": bench.namespace, **variables},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def says(self, words: str) -> None:
        self._until(lambda: re.search(words, self.log), f"the log to say {words!r}")

    def url(self, path: str) -> str:
        found: list[re.Match[str]] = []
        self._until(lambda: found.extend(re.finditer(r'"port": (\d+)', self.log)) or found, "its port")
        return f"http://127.0.0.1:{found[0][1]}{path}"

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, Any]:
        status, body, _headers = self.exchange(path, method, **headers)
        return status, json.loads(body)

    def exchange(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, Any]:
        request = urllib.request.Request(self.url(path), method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(), error.headers

    def holds(self) -> dict[str, Any]:
        """Wait until it holds all that it wants; what it says of it."""
        self._until(lambda: self.ask("/claim")[0] == 200, "the claim")
        return self.ask("/claim")[1]

    def waits(self) -> dict[str, Any]:
        self._until(lambda: self.ask("/claim")[1].get("place"), "a place in a queue")
        return self.ask("/claim")[1]

    def ends(self, seconds: float = 30.0) -> int:
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended after {seconds:g} s; its log:\n{self.log}") from None

    def send(self, number: int) -> Process:
        self.popen.send_signal(number)
        return self

    def _until(self, true: Callable[[], Any], what: str) -> None:
        def look() -> Any:
            if self.popen.poll() is not None:
                raise AssertionError(f"it ended with {self.popen.returncode} before {what}; its log:\n{self.log}")
            return true()

        try:
            until(look, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; its log:\n{self.log}") from None


class Bench:
    """A namespace with semaphores and Pods that run nowhere, and the processes started at it."""

    def __init__(self, api: Api, namespace: str, kubeconfig: str, directory: Path) -> None:
        self.api, self.namespace, self.kubeconfig, self.directory = api, namespace, kubeconfig, directory
        self.lab = Lab(api, namespace)
        self.processes: list[Process] = []
        self.engine = "annotations"

    def semaphore(self, name: str, *, mode: str | None = None, **capacity: int) -> None:
        wish: dict[str, Any] = {"mode": mode} if mode and self.engine == "annotations" else {}
        verbs.configure(self.api, name=name, namespace=self.namespace, engine=self.engine, capacity=capacity, **wish)

    def start(self, *arguments: str, **variables: str) -> Process:
        process = Process(self, [*arguments, "--engine", self.engine], **variables)
        self.processes.append(process)
        return process

    def sidecar(self, pod: str, *arguments: str, uid: str | None = None, **variables: str) -> Process:
        uid = uid or self.lab.pod(pod)
        pages = ("--listen", "127.0.0.1:0")
        return self.start("run", "--holder", pod, "--holder-uid", uid, *pages, *arguments, **variables)

    def execute(self, *arguments: str, command: Sequence[str], **variables: str) -> Process:
        process = Process(self, ["exec", "--engine", self.engine, *arguments, "--", *command], **variables)
        self.processes.append(process)
        return process

    def holders(self, name: str) -> dict[str, int]:
        """Who holds of this semaphore, with which fence."""
        (found,) = verbs.info(self.api, namespace=self.namespace, name=name, engine=self.engine)["semaphores"]
        return {holder["holder"]: holder["fence"] for holder in found["holders"]}

    def waiters(self, name: str) -> list[str]:
        (found,) = verbs.info(self.api, namespace=self.namespace, name=name, engine=self.engine)["semaphores"]
        return [waiter["holder"] for waiter in found["waiters"]]

    def take_away(self, name: str, holder: str) -> None:
        """What a person may do who knows better: the grant is deleted."""
        verbs.release(self.api, name=name, namespace=self.namespace, holder=holder, engine=self.engine)

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
            process.popen.wait()
            process.popen.stdout.close()


@pytest.fixture
def bench(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(api, namespace, kubeconfig, tmp_path)
    yield bench
    bench.close()


@pytest.fixture(params=ENGINES)
def each(bench: Bench, request: pytest.FixtureRequest) -> Bench:
    """The bench, once with each engine."""
    bench.engine = request.param
    return bench


# ------------------------------------------------------------------------------------------ one semaphore


def test_a_sidecar_claims_tells_and_gives_back_at_sigterm(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    path = each.directory / "claim.json"
    process = each.sidecar("a", "--configmap", "sem", "--claim-file", str(path), "--release-on-term")
    told = process.holds()
    fence = each.holders("sem")["a"]
    expected = {
        "semaphore": f"{each.namespace}/sem",
        "resource": "gpu",
        "resources": {"gpu": 1},
        "fence": fence,
        "since": told["since"],
    }
    assert told == {"claimed": True, "released": False, **expected, "holder": "a", "claims": [expected]}
    assert json.loads(path.read_text()) == {**expected, "holder": "a", "claims": [expected]}
    assert process.send(signal.SIGTERM).ends() == 0
    assert not path.exists()
    assert each.holders("sem") == {}


def test_without_release_on_term_the_claim_stays_with_the_pod(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    process = each.sidecar("a", "--configmap", "sem")
    process.holds()
    process.send(signal.SIGTERM).ends()
    assert list(each.holders("sem")) == ["a"]


def test_several_resources_are_had_all_or_none(each: Bench) -> None:
    each.semaphore("sem", mode="v2", db=2, gpu=1)
    path = each.directory / "claim.env"
    a = each.sidecar("a", "--configmap", "sem:db=2,gpu", "--claim-file", str(path))
    told = a.holds()
    assert (told["resource"], told["resources"]) == (None, {"db": 2, "gpu": 1})
    script = f'. {path}; echo "$DISTRIBUTOR_RESOURCES/$DISTRIBUTOR_RESOURCE/$DISTRIBUTOR_CLAIMS/$DISTRIBUTOR_1_FENCE"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    assert shown == f"db=2,gpu=1//1/{told['fence']}"
    b = each.sidecar("b", "--configmap", "sem", MUSTER_RESOURCE="gpu,db")
    b.waits()
    each.lab.kill("a")
    if each.engine == "tickets":  # no garbage collector at this level
        each.take_away("sem", "a")
    assert b.holds()["resources"] == {"db": 1, "gpu": 1}


def test_a_sidecar_that_is_started_again_finds_its_claim_and_tells_no_event_twice(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    uid, path = each.lab.pod("a"), str(each.directory / "claim.json")
    first = each.sidecar("a", "--configmap", "sem", "--claim-file", path, uid=uid)
    told = first.holds()
    until(lambda: granted_events(each) == 1, "the Event")
    first.send(signal.SIGKILL).ends()
    again = each.sidecar("a", "--configmap", "sem", "--claim-file", path, uid=uid)
    assert again.holds() == told
    again.send(signal.SIGTERM).ends()
    other = each.sidecar("a", "--configmap", "sem", uid=uid)  # it has no file to know it from: it tells
    other.holds()
    until(lambda: granted_events(each) == 2, "the Event of the third")


def granted_events(bench: Bench) -> int:
    return sum(event["reason"] == "ResourceGranted" for event in bench.api.list(EVENTS, bench.namespace).items)


def test_what_is_released_by_post_is_not_claimed_again_until_asked(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    path = each.directory / "claim.json"
    a = each.sidecar("a", "--configmap", "sem", "--claim-file", str(path))
    first = a.holds()["fence"]
    assert a.ask("/readyz")[0] == 200 and a.ask("/healthz")[0] == 200
    status, state = a.ask("/release", "POST")
    assert (status, state["claimed"], state["released"]) == (200, False, True)
    assert not path.exists() and each.holders("sem") == {}
    assert a.ask("/claim")[0] == 503 and a.ask("/readyz")[0] == 200 and a.ask("/healthz")[0] == 200
    b = each.sidecar("b", "--configmap", "sem")
    b.holds()
    time.sleep(1)
    assert each.waiters("sem") == []
    status, state = a.ask("/claim", "POST")
    assert (status, state["claimed"], state["released"]) == (202, False, False)
    assert a.waits()["place"] == 1
    assert b.ask("/release", "POST")[0] == 200
    assert a.holds()["fence"] > first
    assert a.ask("/claim", "POST")[0] == 200  # it has it


def test_pages_say_what_they_are_for(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    a = bench.sidecar("a", "--configmap", "sem")
    a.holds()
    for path, method, allow in (
        ("/release", "GET", "POST"),
        ("/healthz", "POST", "GET"),
        ("/claim", "PUT", "GET, POST"),
    ):
        status, body, headers = a.exchange(path, method)
        assert (status, headers["Allow"]) == (405, allow)
        assert path in json.loads(body)["error"]
    status, state = a.ask("/nowhere")
    assert status == 404 and "POST /release" in state["error"]
    assert a.ask("/release", "POST", Origin="http://evil.example")[0] == 403
    assert list(bench.holders("sem")) == ["a"]
    text = a.exchange("/metrics")[1]
    of = f'{{resource="gpu",semaphore="{bench.namespace}/sem"}}'
    for line in ("muster_claim_held 1.0", f"muster_semaphore_capacity{of} 1.0"):
        assert line in text
    assert a.exchange("/claim", "HEAD")[:2] == (200, "")


# ------------------------------------------------------------------------------------------ several semaphores


def test_several_semaphores_are_taken_in_order_and_told_when_all_are_held(each: Bench) -> None:
    each.semaphore("one", gpu=1)
    each.semaphore("two", db=1)
    path = each.directory / "claim.env"
    other = each.sidecar("other", "--configmap", "two")
    other.holds()
    a = each.sidecar("a", "--configmap", "two:db", "--configmap", "one", "--claim-file", str(path))
    waiting = a.waits()
    assert waiting["waits_for"] == f"{each.namespace}/two"
    assert list(each.holders("one")) == ["a"] and not path.exists()
    other.send(signal.SIGTERM).ends()
    each.take_away("two", "other")
    told = a.holds()
    assert [(claim["semaphore"], claim["resources"]) for claim in told["claims"]] == [
        (f"{each.namespace}/one", {"gpu": 1}),
        (f"{each.namespace}/two", {"db": 1}),
    ]
    assert "fence" not in told
    lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
    assert lines["DISTRIBUTOR_CLAIMS"] == "2" and "DISTRIBUTOR_FENCE" not in lines
    assert lines["DISTRIBUTOR_2_SEMAPHORE"] == f"{each.namespace}/two"


def test_who_loses_one_gives_back_those_behind_it(each: Bench) -> None:
    for name in ("one", "three", "two"):
        each.semaphore(name, gpu=1)
    a = each.sidecar("a", MUSTER_CONFIGMAP="one two three")
    a.holds()
    rival = each.sidecar("rival", "--configmap", "one")
    rival.waits()
    each.take_away("one", "a")
    rival.holds()
    until(lambda: not each.holders("two") and not each.holders("three"), "the others to be given back")
    assert a.waits()["waits_for"] == f"{each.namespace}/one"
    given = re.findall(r'"given back", "semaphore": "[^/]*/(\w+)"', a.log)
    assert given == ["two", "three"], a.log  # the last first, by name: one, three, two
    rival.ask("/release", "POST")
    assert len(a.holds()["claims"]) == 3


def test_a_sidecar_that_starts_again_keeps_all_that_it_held(each: Bench) -> None:
    for name in ("one", "two"):
        each.semaphore(name, gpu=1)
    uid, path = each.lab.pod("a"), each.directory / "claim.json"
    options = ("--configmap", "one", "--configmap", "two", "--claim-file", str(path))
    first = each.sidecar("a", *options, uid=uid)
    told = first.holds()
    first.send(signal.SIGKILL).ends()
    modified = path.stat().st_mtime_ns
    again = each.sidecar("a", *options, uid=uid)
    assert again.holds() == told
    assert "given back" not in again.log and path.stat().st_mtime_ns >= modified


def test_a_sidecar_that_starts_again_without_the_first_gives_back_the_second(each: Bench) -> None:
    """Its former run held both, and then lost the first: to wait for that with the second in hand could deadlock."""
    for name in ("one", "two"):
        each.semaphore(name, gpu=1)
    uid = each.lab.pod("a")
    options = ("--configmap", "one", "--configmap", "two")
    first = each.sidecar("a", *options, uid=uid)
    first.holds()
    first.send(signal.SIGKILL).ends()
    each.take_away("one", "a")
    each.sidecar("b", "--configmap", "one").holds()
    again = each.sidecar("a", *options, uid=uid)
    again.waits()
    until(lambda: not each.holders("two"), "the second to be given back")


def test_claimants_with_overlapping_sets_all_get_their_turn(each: Bench) -> None:
    """A ring of three: each wants two of three, and each gives them back once it had them."""
    for name in ("one", "two", "three"):
        each.semaphore(name, gpu=1)
    pairs = {"a": ("one", "two"), "b": ("two", "three"), "c": ("three", "one")}
    there = [each.sidecar(pod, MUSTER_CONFIGMAP=" ".join(names)) for pod, names in pairs.items()]
    left = set(range(3))
    for _turn in range(3):
        until(lambda: any(there[i].ask("/claim")[0] == 200 for i in left), "somebody to hold both")
        first = next(i for i in left if there[i].ask("/claim")[0] == 200)
        assert there[first].ask("/release", "POST")[0] == 200
        left.remove(first)


# ------------------------------------------------------------------------------------------ the Pod's annotation


def annotation(bench: Bench, pod: str) -> Any:
    return (bench.api.get(PODS, pod, bench.namespace)["metadata"].get("annotations") or {}).get("muster.dev/claim")


def test_the_pod_says_what_it_holds(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    a = bench.sidecar("a", "--configmap", "sem", "--annotate-pod", "--release-on-term")
    told = a.holds()
    until(lambda: annotation(bench, "a"), "the annotation")
    assert json.loads(annotation(bench, "a"))["fence"] == told["fence"]
    a.ask("/release", "POST")
    until(lambda: annotation(bench, "a") is None, "the annotation to go")
    a.ask("/claim", "POST")
    until(lambda: annotation(bench, "a"), "the annotation")
    assert a.send(signal.SIGTERM).ends() == 0
    assert annotation(bench, "a") is None


def test_what_a_former_run_wrote_at_the_pod_goes_when_it_is_not_true_any_more(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    uid = bench.lab.pod("a")
    a = bench.sidecar("a", "--configmap", "sem", "--annotate-pod", uid=uid)
    a.holds()
    until(lambda: annotation(bench, "a"), "the annotation")
    a.send(signal.SIGKILL).ends()
    bench.take_away("sem", "a")
    bench.sidecar("b", "--configmap", "sem").holds()
    bench.sidecar("a", "--configmap", "sem", "--annotate-pod", uid=uid).waits()
    until(lambda: annotation(bench, "a") is None, "the annotation to go")


def test_a_pod_that_uses_the_name_now_is_not_annotated(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    uid = bench.lab.pod("a")
    a = bench.sidecar("a", "--configmap", "sem", "--annotate-pod", uid=uid)
    a.holds()
    until(lambda: annotation(bench, "a"), "the annotation")
    bench.lab.kill("a")
    again = bench.lab.pod("a")
    a.ask("/release", "POST")
    a.says("the Pod is gone: no more is said at it")
    assert again != uid and annotation(bench, "a") is None


# ------------------------------------------------------------------------------------------ exec


SHOW = 'echo "$DISTRIBUTOR_FENCE $DISTRIBUTOR_RESOURCE $DISTRIBUTOR_SEMAPHORE"'


def lines_of(process: Process) -> Iterator[str]:
    for line in process.popen.stdout:
        yield line.strip()


def test_exec_runs_the_command_with_the_claim_and_ends_as_it_does(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    process = each.execute("--configmap", "sem", "--lease", "30", command=["sh", "-c", f"{SHOW}; exit 7"])
    fence, *rest = next(lines_of(process)).split()
    assert int(fence) > 0 and rest == ["gpu", f"{each.namespace}/sem"]
    assert process.ends() == 7
    assert each.holders("sem") == {} and each.waiters("sem") == []


def test_exec_takes_turns_and_gives_back_at_once(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    wish = ("--configmap", "sem", "--lease", "600")
    first = each.execute(*wish, command=["sh", "-c", "echo begins; exec sleep 600"])
    assert next(lines_of(first)) == "begins"
    second = each.execute(*wish, command=["echo", "begins"])
    until(lambda: each.waiters("sem"), "the second to wait")
    assert first.send(signal.SIGTERM).ends() == 143
    assert second.ends() == 0  # at once, though the lease of the first would go on for ten minutes


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [(["./no-such-program"], 127, "No such file"), (["/etc/passwd"], 126, "Permission denied")],
)
def test_a_command_that_cannot_be_started_gives_back_at_once(bench: Bench, command, status: int, says: str) -> None:
    bench.semaphore("sem", gpu=1)
    process = bench.execute("--configmap", "sem", "--lease", "60", command=command)
    assert process.ends() == status
    assert says in process.log
    assert bench.holders("sem") == {}


def test_the_command_killed_is_the_status_of_exec(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    process = bench.execute("--configmap", "sem", "--lease", "60", command=["sh", "-c", "echo $$; sleep 600"])
    os.kill(int(next(lines_of(process))), signal.SIGKILL)
    assert process.ends() == 137
    assert bench.holders("sem") == {}


FAMILY = "sleep 600 & echo $$ $!; wait"  # a command, and a child of it


def family(process: Process) -> list[int]:
    return [int(pid) for pid in next(lines_of(process)).split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def guard_of(process: Process) -> int:
    (pid,) = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children").read_text().split()
    return int(pid)


@pytest.mark.parametrize("whom", ["exec", "the guard", "both"])
def test_kill_9_leaves_nothing_running(bench: Bench, whom: str) -> None:
    """Of exec and its guard; of both at once only the command itself is certain to go, and its child may stay."""
    bench.semaphore("sem", gpu=1)
    process = bench.execute("--configmap", "sem", "--lease", "60", command=["sh", "-c", FAMILY])
    command, child = family(process)
    assert lives(command) and lives(child)
    guard = guard_of(process)
    try:
        if whom != "the guard":
            process.send(signal.SIGKILL)
        if whom != "exec":
            os.kill(guard, signal.SIGKILL)
        until(lambda: not lives(command), "the command to be killed")
        if whom != "both":
            until(lambda: not lives(child), "its child to be killed")
        if whom == "the guard":
            assert process.ends() == 137
            assert bench.holders("sem") == {}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def test_a_lost_claim_ends_the_command_by_term(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    command = ["sh", "-c", 'trap "echo term; exit 0" TERM; echo begins; while :; do sleep 0.1; done']
    process = each.execute("--configmap", "sem", "--lease", "60", "--holder", "ci", command=command)
    lines = lines_of(process)
    assert next(lines) == "begins"
    each.take_away("sem", "ci")
    assert next(lines) == "term"
    assert process.ends() == 4
    assert each.holders("sem") == {}


def test_a_ticket_deleted_by_hand_is_a_lost_claim(bench: Bench) -> None:
    bench.engine = "tickets"
    bench.semaphore("sem", gpu=1)
    process = bench.execute("--configmap", "sem", "--lease", "60", "--holder", "ci", command=["sh", "-c", FAMILY])
    family(process)
    tickets = [lease for lease in bench.api.list(LEASES, bench.namespace).items if lease["metadata"]["name"] != "sem"]
    bench.api.delete(LEASES, tickets[0]["metadata"]["name"], bench.namespace)
    assert process.ends() == 4


def test_a_command_that_does_not_heed_term_is_killed_after_the_grace(bench: Bench) -> None:
    """Nothing is given back before all of its process group has ended."""
    bench.semaphore("one", gpu=1)
    bench.semaphore("two", gpu=1)
    stubborn = 'trap "" TERM; sleep 600 & echo $$ $!; while :; do sleep 0.1; done'
    wish = ("--configmap", "one", "--configmap", "two", "--lease", "60", "--holder", "ci", "--grace", "2")
    process = bench.execute(*wish, command=["sh", "-c", stubborn])
    command, child = family(process)
    bench.take_away("one", "ci")
    process.says("the claim was lost")
    assert lives(command) and list(bench.holders("two")) == ["ci"]
    assert process.ends() == 4
    assert not lives(command) and not lives(child)
    assert bench.holders("one") == {} and bench.holders("two") == {}


def test_what_the_command_leaves_behind_in_its_group_is_ended_before_the_release(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    process = bench.execute(
        "--configmap", "sem", "--lease", "60", "--grace", "1", command=["sh", "-c", 'trap "" TERM; sleep 600 & echo $!']
    )
    left = int(next(lines_of(process)))
    assert process.ends() == 0
    assert not lives(left)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_it_waits_ends_the_wait(each: Bench, number: signal.Signals) -> None:
    each.semaphore("sem", gpu=1)
    each.sidecar("a", "--configmap", "sem").holds()
    process = each.execute("--configmap", "sem", "--lease", "60", command=["echo", "began"])
    until(lambda: each.waiters("sem"), "it to wait")
    assert process.send(number).ends() == 128 + number
    assert process.popen.stdout.read() == ""
    assert each.waiters("sem") == [] and list(each.holders("sem")) == ["a"]


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2"])
def test_signals_are_handed_on(bench: Bench, name: str) -> None:
    bench.semaphore("sem", gpu=1)
    command = ["bash", "-c", f'trap "echo got {name}; exit 5" {name}; echo begins; while :; do sleep 0.1; done']
    process = bench.execute("--configmap", "sem", "--lease", "60", command=command)
    lines = lines_of(process)
    assert next(lines) == "begins"
    process.send(signal.Signals[f"SIG{name}"])
    assert next(lines) == f"got {name}"
    assert process.ends() == 5


def test_a_command_that_is_ended_by_a_signal_says_which(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    process = bench.execute("--configmap", "sem", "--lease", "60", command=["sh", "-c", "echo begins; exec sleep 600"])
    assert next(lines_of(process)) == "begins"
    assert process.send(signal.SIGTERM).ends() == 143


def test_a_wait_that_was_in_vain(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    each.sidecar("a", "--configmap", "sem").holds()
    process = each.execute("--configmap", "sem", "--lease", "60", "--wait-timeout", "2", command=["echo", "began"])
    assert process.ends() == 3
    assert "waited in vain" in process.log and process.popen.stdout.read() == ""
    assert each.waiters("sem") == []


def test_exec_in_a_pod_holds_as_its_pod(each: Bench) -> None:
    each.semaphore("sem", gpu=1)
    uid = each.lab.pod("a")
    process = each.execute(
        "--configmap", "sem", command=["sh", "-c", "echo $DISTRIBUTOR_HOLDER"], POD_NAME="a", POD_UID=uid
    )
    assert next(lines_of(process)) == "a"
    assert process.ends() == 0
    assert each.holders("sem") == {}


def test_two_runs_on_one_host_are_two_holders(bench: Bench) -> None:
    """With a lease a name is all the identity there is: the default must not be the host's."""
    bench.semaphore("sem", gpu=2)
    processes = [
        bench.execute("--configmap", "sem", "--lease", "60", command=["sh", "-c", f"{SHOW}; sleep 600"])
        for _run in range(2)
    ]
    fences = {next(lines_of(process)) for process in processes}
    assert len(fences) == 2 and len(bench.holders("sem")) == 2


def test_exec_without_a_command_says_how(bench: Bench) -> None:
    process = bench.execute("--lease", "60", command=[])
    assert process.ends() == 1
    assert "exec [OPTIONS] -- COMMAND" in process.log


def test_in_a_terminal_the_command_is_in_the_foreground_and_cannot_be_suspended(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    wish = ["--namespace", bench.namespace, "--configmap", "sem", "--lease", "60"]
    command = ["sh", "-c", "read line; echo got $line; exec sleep 600"]
    environment = {**os.environ, "KUBECONFIG": bench.kubeconfig}
    pid, terminal = pty.fork()
    if not pid:
        python = sys.executable
        os.execve(python, [python, "-m", "muster.cli", "distributor", "exec", *wish, "--", *command], environment)
    shown = b""

    def until_shown(words: bytes) -> None:
        nonlocal shown
        while words not in shown:
            shown += os.read(terminal, 65536)

    try:
        until_shown(b"starts")
        os.write(terminal, b"typed\n")
        until_shown(b"got typed")
        os.write(terminal, b"\x1a")  # Ctrl-Z
        until_shown(b"it goes on")
        os.write(terminal, b"\x03")  # Ctrl-C
        until_shown(b"status=130")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(terminal)
    assert bench.holders("sem") == {}


# ------------------------------------------------------------------------------------------ once


def test_once_takes_what_is_free_in_order(each: Bench) -> None:
    each.semaphore("one", gpu=1)
    each.semaphore("two", gpu=1)
    wish = ("--configmap", "two", "--configmap", "one", "--holder", "ci", "--lease", "60")
    first = each.start("once", *wish)
    assert first.ends() == 0, first.log
    assert list(each.holders("one")) == ["ci"] and list(each.holders("two")) == ["ci"]
    other = each.start("once", *wish[:4], "--holder", "other", "--lease", "60")
    assert other.ends() == 3
    each.take_away("one", "ci")
    each.start("once", "--configmap", "one", "--holder", "other", "--lease", "60").ends()
    again = each.start("once", *wish)
    assert again.ends() == 3
    assert "two: given back" in again.popen.stdout.read()
    assert each.holders("two") == {}


def test_an_engine_that_may_not_be_read_does_not_hide_the_other(bench: Bench) -> None:
    """As in a sidecar's container: its Role knows one engine."""
    bench.semaphore("sem", gpu=1)
    assert bench.api.get(CONFIGMAPS, "sem", bench.namespace)
    process = Process(bench, ["status", "--configmap", "sem"])
    assert process.popen.communicate(timeout=30)[0].startswith(f"Semaphore {bench.namespace}/sem")


# ------------------------------------------------------------------------------------------ status --watch


def test_status_watch_tells_each_change_as_it_comes(each: Bench) -> None:
    """Driven by watches: nothing is asked for again while nothing moves."""
    each.semaphore("sem", gpu=1)
    process = each.start("status", "--configmap", "sem", "--watch", "-o", "json")
    states = (json.loads(line)["semaphores"][0] for line in process.popen.stdout)
    assert next(states)["holders"] == []
    a = each.sidecar("a", "--configmap", "sem")
    assert next(state for state in states if state["holders"])["holders"][0]["holder"] == "a"
    a.ask("/release", "POST")
    assert next(state for state in states if not state["holders"])["resources"][0]["free"] == 1
    assert process.send(signal.SIGINT).ends() == 0


def test_status_watch_draws_in_a_terminal_and_leaves_it_as_it_was(bench: Bench) -> None:
    bench.semaphore("sem", gpu=1)
    ours, theirs = os.openpty()
    environment = {**os.environ, "KUBECONFIG": bench.kubeconfig, "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-m", "muster.cli", "distributor", "status", "--namespace", bench.namespace, "--watch"]
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while b"0 of 1" not in shown:
            shown += os.read(ours, 65536)
        bench.sidecar("render-0", "--configmap", "sem")
        while b"render-0" not in shown:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        with contextlib.suppress(OSError):  # the end of a terminal
            while more := os.read(ours, 65536):
                shown += more
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert shown.startswith(b"\x1b[?25l") and shown.endswith(b"\x1b[?25h")  # the cursor is there again
    assert b"Traceback" not in shown

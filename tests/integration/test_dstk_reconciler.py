# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-reconciler` as a real process with real workers, at a real API server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from ansible_collections.muster.coordination.tests.support.forms import IS_LONG
from ansible_collections.muster.coordination.tests.support.partition_memory import Killed, Reign
from ansible_collections.muster.coordination.tests.support.partition_site import Site
from ansible_collections.muster.coordination.tests.support.partition_worker_lab import (
    PATIENCE,
    TOKEN,
    WorkerProcess,
    Writer,
)
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from muster.dstk.reconciler import Assignments
from muster.dstk.workers import WorkerClient, Workers

pytestmark = pytest.mark.integration

Object = dict[str, Any]


@pytest.fixture
def site(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(api, namespace, kubeconfig, tmp_path, graceSeconds=0.5)
    yield made
    made.close()


def test_a_batch_a_split_a_merge_and_a_move_under_writes(site: Site) -> None:
    one, two = site.worker("w-0"), site.worker("w-1")
    site.reconciler()
    site.partition("p", "", "n")
    site.partition("q", "n", "")
    site.ends(site.new_batch([("p", "w-0"), ("q", "w-1")]))
    assert site.owners() == {"p": "w-0", "q": "w-1"}
    writer = Writer([one, two], "aa")
    writer.writes()
    split = site.ends(site.assignment("InWorkerSplit", partition="p", splitKey="aa25"))
    halves = [each["partition"] for each in split["status"]["results"]]
    writer.writes()
    site.is_exact()
    merge = site.ends(site.assignment("InWorkerMerge", partitions=halves))
    (merged,) = (each["partition"] for each in merge["status"]["results"])
    writer.writes()
    site.ends(site.assignment("InterWorkerMove", partition=merged, **{"from": "w-0", "to": "w-1"}))
    writer.writes()
    writer.stop()
    writer.check(two)
    assert {fact.primary for fact in site.is_exact().facts} == {"w-1"}
    assert site.is_quiet()
    assert one.copies() == {}


def test_a_dead_target_is_given_up_and_a_source_that_dies_in_fencing_is_undone(site: Site) -> None:
    one, two = site.worker("w-0", "--lease-seconds", "1"), site.worker("w-1", "--lease-seconds", "1")
    site.reconciler()
    site.partition("p")
    site.ends(site.new_batch([("p", "w-0")]))
    writer = Writer([one], "aa")
    writer.writes()
    two.kill()
    there = site.ends(site.assignment("InterWorkerMove", partition="p", **{"from": "w-0", "to": "w-1"}), "Aborted")
    assert "lost" in there["status"]["message"]
    writer.writes()
    two = site.worker("w-1", "--lease-seconds", "1")
    one.freeze()  # it holds its Lease for a second yet, and acknowledges nothing
    move = site.assignment("InterWorkerMove", partition="p", **{"from": "w-0", "to": "w-1"})
    site.ends(move, "Aborted")
    one.thaw()
    writer.writes()
    writer.stop()
    writer.check(one)
    assert {fact.primary for fact in site.is_exact().facts} == {"w-0"}
    two.lacks("p")


def test_processes_killed_at_any_time_leave_nothing_open(site: Site) -> None:
    """Each of two goes on from what the other has left, killed by SIGKILL at some step of each move."""
    one, two = site.worker("w-0"), site.worker("w-1")
    first, second = site.reconciler(), site.reconciler()
    site.partition("p")
    site.ends(site.new_batch([("p", "w-0")]))
    writer = Writer([one, two], "aa")
    ends = ["w-0", "w-1"]
    for when in ("claimedBy", "fencedBy", "proxy"):
        move = site.assignment("InterWorkerMove", partition="p", **{"from": ends[0], "to": ends[1]})

        def is_so(when: str = when, move: Object = move) -> bool:
            spec = site.api.get(PARTITIONS, "p", site.namespace)["spec"]
            return bool(spec.get(when)) or site.phase(move) in operations.FINAL

        until(is_so, f"{when} to be written", PATIENCE)
        for process in (first, second):
            process.kill()
        first, second = site.reconciler(), site.reconciler()
        if site.ends(move, "Completed", "Aborted")["status"]["phase"] == "Completed":
            ends.reverse()
    writer.writes()
    writer.stop()
    owner = {"w-0": one, "w-1": two}[site.owners()["p"]]
    writer.check(owner)
    site.is_exact()
    assert site.is_quiet()


# ---------------------------------------------------------------------------------------------- each point, in turn


class Deadly:
    """An API server and a client of workers as one reconciler has them; it ends after so many effects."""

    def __init__(self, site: Site, workers: Workers, client: WorkerClient, lives: int | None = None) -> None:
        self._site, self._client, self.left = site, client, lives
        self.effects: list[str] = []
        api: Any = self
        space = site.api.get(KEY_SPACES, "default", site.namespace)
        self.reconciler = Assignments(api, workers, api, lambda _namespace, _name: space, self._tell)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client if name in ("copies", "call") else self._site.api, name)
        if name not in ("create", "replace", "delete", "call"):
            return real

        def effect(*what: Any, **further: Any) -> Any:
            answer = real(*what, **further)
            self.effects.append(name)
            if self.left is not None and len(self.effects) > self.left:
                raise Killed
            return answer

        return effect

    def _tell(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None:
        """Nobody reads it."""

    def go(self, assignment: Object) -> None:
        """Until it is over."""
        metadata = assignment["metadata"]

        def is_over() -> bool:
            with suppress(NotFound):
                obj = self._site.api.get(ASSIGNMENTS, metadata["name"], metadata["namespace"])
                self.reconciler.reconcile(obj, Reign())
            return self._site.phase(assignment) in operations.FINAL

        until(is_over, f"{metadata['name']} to be over", PATIENCE)


class Points:
    """Operations that are carried out by one reconciler after the other, each killed one effect later."""

    def __init__(self, site: Site, client: WorkerClient, workers: Workers) -> None:
        self.site, self.client, self.workers = site, client, workers

    def one(self, lives: int | None = None) -> Deadly:
        return Deadly(self.site, self.workers, self.client, lives)

    def each(self, ask: Callable[[], Object]) -> int:
        """Ask for it, and kill who carries it out after its first effect; again, after its second (in the short form,
        its third); until it lives to its end. How many there were."""
        for lives in range(0, 200, 1 if IS_LONG else 2):
            assignment = ask()
            try:
                self.one(lives).go(assignment)
                return lives
            except Killed:
                self.one().go(assignment)
            self.site.is_exact()
        raise AssertionError("it has no end")


@pytest.fixture
def points(site: Site) -> Iterator[Points]:
    (site.directory / "token").write_text(TOKEN)
    client = WorkerClient(site.directory / "token")
    workers = Workers(site.api, site.namespace)
    workers.start(lambda key: None)
    yield Points(site, client, workers)
    workers.stop()
    client.close()


def start(site: Site, points: Points, *names: str) -> list[WorkerProcess]:
    workers = [site.worker(name) for name in names]
    for name in names:
        until(lambda name=name: points.workers.address(site.namespace, "default", name), f"{name} to be seen", PATIENCE)  # type: ignore[misc]
    return workers


def test_a_reconciler_is_killed_after_each_effect_of_a_move(site: Site, points: Points) -> None:
    one, two = start(site, points, "w-0", "w-1")
    site.change(KEY_SPACES, "default", lambda obj: obj["spec"].update(graceSeconds=0))
    site.partition("p")
    points.one().go(site.new_batch([("p", "w-0")]))
    writer = Writer([one, two], "aa")

    def move() -> Object:
        source = site.owners()["p"]
        target = "w-1" if source == "w-0" else "w-0"
        return site.assignment("InterWorkerMove", partition="p", **{"from": source, "to": target})

    assert points.each(move) >= 8
    writer.writes()
    writer.stop()
    writer.check({"w-0": one, "w-1": two}[site.owners()["p"]])
    assert site.is_quiet()


def test_a_reconciler_is_killed_after_each_effect_of_a_split_and_a_merge(site: Site, points: Points) -> None:
    (one,) = start(site, points, "w-0")
    site.partition("p")
    points.one().go(site.new_batch([("p", "w-0")]))
    writer = Writer([one], "aa")

    def whole() -> str:
        """The one Partition, after a merge where there are two."""
        names = [fact.partition for fact in site.view().facts]
        if len(names) > 1:
            merge = site.assignment("InWorkerMerge", partitions=names)
            points.one().go(merge)
            assert site.phase(merge) == "Completed"
        (name,) = (fact.partition for fact in site.view().facts)
        return name

    def halves() -> list[str]:
        names = [fact.partition for fact in site.view().facts]
        if len(names) < 2:
            points.one().go(site.assignment("InWorkerSplit", partition=names[0], splitKey="aa25"))
        return [fact.partition for fact in site.view().facts]

    splits = points.each(lambda: site.assignment("InWorkerSplit", partition=whole(), splitKey="aa25"))
    merges = points.each(lambda: site.assignment("InWorkerMerge", partitions=halves()))
    assert splits >= 8 and merges >= 8
    writer.writes()
    writer.stop()
    writer.check(one)
    assert site.is_quiet()

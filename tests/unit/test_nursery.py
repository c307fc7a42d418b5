# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The harness that kills replicas at chosen points: it knows the points, and the bombs go off there and only there."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions import election
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.tests.support import swarm_storm, vm_storm
from ansible_collections.muster.coordination.tests.support.authority_oracle import read_lines
from ansible_collections.muster.coordination.tests.support.bombs import (
    AFTER,
    BEFORE,
    KILL,
    STOP,
    Bomb,
    Explosives,
    kind_of_call,
    kind_of_write,
)

ME = election.Identity("operator-0", "uid", "run")
NOW = "2026-01-01T00:00:00.000000Z"
HEAD = {"name": "main", "labels": {"muster.dev/worker-config": "main"}}
LEAVING = '{"workers": {"w-0": {"leaving": {"a": 1}}, "w-1": {}}}'
READY = {"type": "Ready", "status": "False", "reason": "Converging"}


def lease(**spec: Any) -> dict[str, Any]:
    free = election.free("operator", "ns", election.Timing())
    metadata = {**free["metadata"], "resourceVersion": "5", "uid": "u"}
    return {**free, "metadata": metadata, "spec": {**free["spec"], **spec}}


def test_it_knows_what_is_written_to_leases() -> None:
    seen = election.see(None, election.parse(lease()), 0.0)
    taken = election.take(lease(), ME, election.Timing(), NOW, over=seen.term)
    assert taken
    renewed = election.renew(taken, ME, "2026-01-01T00:00:01.000000Z")
    released = election.release(taken, ME)
    assert renewed and released
    kinds = [kind_of_write("PUT", "leases", "", each) for each in (taken, renewed, released)]
    assert kinds == ["lease take", "lease renew", "lease free"]
    assert kind_of_write("POST", "leases", "", lease()) == "lease make"


@pytest.mark.parametrize(
    ("asked", "body", "kind"),
    [
        (("POST", "configmaps", ""), {}, "table make"),
        (("PUT", "configmaps", ""), {}, "table write"),
        (("PUT", "virtualmachines", ""), {"metadata": {"finalizers": ["ours"]}}, "finalizer add"),
        (("PUT", "virtualmachines", ""), {"metadata": {"finalizers": []}}, "finalizer remove"),
        (("PUT", "virtualmachines", "status"), {"status": {"phase": "Running"}}, "status Running"),
        (("POST", "configmaps", ""), {"metadata": HEAD}, "config make"),
        (("PUT", "configmaps", ""), {"metadata": HEAD}, "config assign"),
        (("PUT", "configmaps", ""), {"metadata": HEAD, "data": {"handover.json": '{"workers": {}}'}}, "config assign"),
        (("PUT", "configmaps", ""), {"metadata": HEAD, "data": {"handover.json": LEAVING}}, "config revoke"),
        (("POST", "configmaps", ""), {"metadata": {**HEAD, "name": "main-1"}}, "part make"),
        (("PUT", "configmaps", ""), {"metadata": {**HEAD, "name": "main-1"}}, "part write"),
        (("PUT", "swarms", "status"), {"status": {"conditions": [READY]}}, "status Converging"),
        (("PUT", "swarms", "status"), {"status": {"configMaps": 1}}, "status None"),
        (("PUT", "statefulsets", "scale"), {"spec": {"replicas": 2}}, "scale"),
        (("PUT", "deployments", "scale"), {"spec": {"replicas": 2}}, "scale"),
        (("POST", "pods", "eviction"), {}, "evict"),
        (("POST", "events", ""), {}, "event"),
        (("DELETE", "leases", ""), {}, "DELETE leases"),
    ],
)
def test_it_knows_what_is_written_to_the_api_server(
    asked: tuple[str, str, str], body: dict[str, Any], kind: str
) -> None:
    assert kind_of_write(*asked, body) == kind


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("PUT", "/v1/fences/name", "cloud find"),
        ("POST", "/v1/machines", "cloud create"),
        ("PUT", "/v1/machines/m-1", "cloud resize"),
        ("DELETE", "/v1/machines/m-1", "cloud delete"),
        ("GET", "/v1/machines", "cloud read"),
    ],
)
def test_it_knows_what_is_asked_of_the_cloud(method: str, path: str, kind: str) -> None:
    assert kind_of_call(method, path) == kind


def test_every_kind_is_a_kill_point_before_and_after() -> None:
    for storm in (vm_storm, swarm_storm):
        for mode, kinds in storm.WRITES.items():
            named = [str(point) for point in storm.kill_points(mode)]
            assert sorted(named) == sorted(f"{when} {kind}" for kind in kinds for when in (BEFORE, AFTER))
        assert {"table write"} == {*storm.WRITES["shard"]} - {*storm.WRITES["leader"]}


def child(record: Path, bomb: Bomb) -> None:
    """Three writes of one kind, and one of another."""
    explosives = Explosives(record)
    explosives.set(bomb)
    explosives.around("other", lambda: None)
    for number in range(3):
        explosives.around("kind", lambda number=number: record.with_suffix(f".{number}").touch(), scope="s", fence=1)
    sys.exit(0)


def begin(record: Path, bomb: Bomb) -> Any:
    process = multiprocessing.get_context("spawn").Process(target=child, args=(record, bomb), daemon=True)
    process.start()
    return process


def done(record: Path) -> list[int]:
    return [number for number in range(3) if record.with_suffix(f".{number}").exists()]


@pytest.mark.parametrize(("when", "written"), [(BEFORE, [0]), (AFTER, [0, 1])])
def test_a_bomb_kills_right_before_or_right_after_its_write(tmp_path: Path, when: str, written: list[int]) -> None:
    record = tmp_path / "record"
    process = begin(record, Bomb("kind", when, 2, KILL))
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert done(record) == written
    last = read_lines(record)[-1]
    assert (last["exploded"], last["how"], last["scope"]) == (f"{when} kind", KILL, "s")
    assert [line["kind"] for line in read_lines(record)[:-1]] == ["other"] + ["kind"] * len(written)


def test_a_process_that_was_stopped_goes_on_with_that_very_write(tmp_path: Path) -> None:
    record = tmp_path / "record"
    process = begin(record, Bomb("kind", BEFORE, 2, STOP))
    _pid, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status) and done(record) == [0]
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 0 and done(record) == [0, 1, 2]
    assert [line["kind"] for line in read_lines(record) if line.get("late")] == ["kind"]
    stopped = next(line["at"] for line in read_lines(record) if "exploded" in line)
    assert all(line["at"] > stopped for line in read_lines(record) if line.get("late"))


def test_what_was_refused_is_written_down(tmp_path: Path) -> None:
    def refuse() -> None:
        raise MusterError("no")

    explosives = Explosives(tmp_path / "record")
    with pytest.raises(MusterError):
        explosives.around("kind", refuse)
    assert [line["outcome"] for line in read_lines(tmp_path / "record")] == ["MusterError"]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the status of a Swarm tells a person."""

from __future__ import annotations

from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence, swarm_status
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Policy, Sight, Step
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config

NOW, LATER = "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"


def step(config: Config, workers: str, applied: dict[str, int | None], jobs: str = "abc") -> Step:
    names = workers.split()
    sights = {name: Sight(f"u-{name}", True, applied.get(name)) for name in names}
    return convergence.step(
        config, [Job(job) for job in jobs], [Worker(name) for name in names], sights, Policy(), now=NOW
    )


def at_rest(workers: str = "w-0 w-1", jobs: str = "abc") -> Step:
    config = step(Config(), workers, {}, jobs).config
    return step(config, workers, dict.fromkeys(workers.split(), 0), jobs)


def moving() -> Step:
    """w-1 is to let go for w-2 and has not answered."""
    revoked = step(at_rest(jobs="abcd").config, "w-0 w-1 w-2", {"w-0": 0, "w-1": 0}, "abcd")
    return step(revoked.config, "w-0 w-1 w-2", {"w-0": 0, "w-1": 0}, "abcd")


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: f"{each['status']} {each['reason']}" for each in status["conditions"]}


def test_a_swarm_at_rest_is_ready() -> None:
    said = swarm_status.status({}, 3, at_rest(), now=NOW)
    assert conditions(said) == {
        "Ready": "True Converged",
        "Progressing": "False Converged",
        "Degraded": "False AllPlaced",
    }
    assert {key: said[key] for key in ("observedGeneration", "jobs", "placed", "unplaced", "workers", "converged")} == {
        "observedGeneration": 3, "jobs": 3, "placed": 3, "unplaced": 0, "workers": 2, "converged": True,
    }  # fmt: skip
    assert said["pool"] == [
        {"name": "w-0", "jobs": 2, "load": 2, "wanted": 0, "applied": 0, "state": "Converged"},
        {"name": "w-1", "jobs": 1, "load": 1, "wanted": 0, "applied": 0, "state": "Converged"},
    ]
    assert "waitsFor" not in said


def test_who_holds_it_up_is_named_with_the_time_since_when() -> None:
    said = swarm_status.status({}, 1, moving(), now=NOW)
    assert conditions(said) == {
        "Ready": "False Converging",
        "Progressing": "True Converging",
        "Degraded": "False AllPlaced",
    }
    assert said["waitsFor"] == {"worker": "w-1", "since": NOW, "reason": "it has not shown that it let go 1 jobs"}
    ready = next(each for each in said["conditions"] if each["type"] == "Ready")
    assert ready["message"] == "w-1: it has not shown that it let go 1 jobs, and 1 more"
    assert {each["name"]: each["state"] for each in said["pool"]} == {
        "w-0": "Converged", "w-1": "Reloading", "w-2": "Converged",
    }  # fmt: skip
    later = swarm_status.status(said, 1, moving(), now=LATER)
    assert later["waitsFor"]["since"] == NOW, "it is still the same worker"
    other = swarm_status.status({**said, "waitsFor": {"worker": "w-0", "since": NOW}}, 1, moving(), now=LATER)
    assert other["waitsFor"]["since"] == LATER


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    said = swarm_status.status({}, 1, at_rest(), now=NOW)
    later = swarm_status.status(said, 2, moving(), now=LATER)
    times = {each["type"]: each["lastTransitionTime"] for each in later["conditions"]}
    assert times == {"Ready": LATER, "Progressing": LATER, "Degraded": NOW}
    assert {each["observedGeneration"] for each in later["conditions"]} == {2}


def test_jobs_that_have_no_worker_are_named_with_the_reason() -> None:
    said = swarm_status.status({}, 1, step(Config(), "", {}), now=NOW)
    assert said["unschedulable"][0] == {"job": "a", "reason": "there are no workers"}
    assert conditions(said) == {
        "Ready": "False Unschedulable", "Progressing": "False Converged", "Degraded": "True Unschedulable",
    }  # fmt: skip


def test_of_many_the_first_hundred_are_named() -> None:
    done = convergence.step(Config(), [Job(f"j{number:03}") for number in range(150)], [], {}, Policy())
    said = swarm_status.status({}, 1, done, now=NOW)
    assert said["unplaced"] == 150 and len(said["unschedulable"]) == 100
    assert said["unschedulable"][-1]["job"] == "j099"


def test_the_numbers_of_the_last_rebalance_are_kept_and_its_digest_is_not_told() -> None:
    said = swarm_status.status({}, 1, at_rest(), now=LATER)
    assert said["rebalance"] == {
        "time": NOW, "method": "quota", "moves": 0, "leastMoves": 0, "restarts": 0, "leastRestarts": 0, "imbalance": 1,
    }  # fmt: skip


def test_a_load_is_the_sum_of_the_weights() -> None:
    said = swarm_status.status({}, 1, at_rest(), now=NOW, loads={"a": 5, "b": 1})
    assert [each["load"] for each in said["pool"]] == [6, 1]


def test_what_is_not_ours_is_kept() -> None:
    theirs = {"type": "Blessed", "status": "True"}
    said = swarm_status.status({"note": "mine", "conditions": [theirs]}, 1, at_rest(), now=NOW)
    assert said["note"] == "mine" and theirs in said["conditions"]


def test_a_status_that_somebody_has_spoilt_is_written_anew() -> None:
    said = swarm_status.status({"conditions": "none", "waitsFor": 3}, 1, moving(), now=NOW)
    assert said == swarm_status.status({}, 1, moving(), now=NOW)
    said = swarm_status.status({"conditions": ["x", {"kind": 3}]}, 1, moving(), now=NOW)
    assert said == swarm_status.status({}, 1, moving(), now=NOW)


def test_a_swarm_that_is_refused_says_why_and_keeps_what_it_knew() -> None:
    before = swarm_status.status({}, 1, at_rest(), now=NOW)
    said = swarm_status.refused(before, 2, "spec.capacity is 0: give a whole number from 1", LATER)
    assert conditions(said) == {"Ready": "False Refused", "Progressing": "False Refused", "Degraded": "True Refused"}
    assert said["pool"] == before["pool"] and said["observedGeneration"] == 2
    assert all("give a whole number" in each["message"] for each in said["conditions"])


def test_a_swarm_that_is_paused_says_so() -> None:
    before = swarm_status.status({}, 1, moving(), now=NOW)
    said = swarm_status.paused(before, 2, LATER)
    assert conditions(said) == {
        "Ready": "False Converging",
        "Progressing": "False Paused",
        "Degraded": "False AllPlaced",
    }


def test_long_reasons_are_cut() -> None:
    said = swarm_status.refused({}, 1, "x" * 5000, NOW)
    assert {len(each["message"]) for each in said["conditions"]} == {1024}

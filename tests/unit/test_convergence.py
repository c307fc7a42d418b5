# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Revoke, confirm, assign: by example."""

from __future__ import annotations

from dataclasses import replace

from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import (
    EVICT,
    FAST,
    Eviction,
    Policy,
    Sight,
    Step,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import (
    ANYTHING,
    Config,
    Entry,
    Hold,
    Known,
)

JOBS = [Job(name) for name in "abcd"]
SAFE = Policy()


def reporter(version: int | None, uid: str = "u") -> Sight:
    return Sight(uid, True, version)


def silent(uid: str = "u") -> Sight:
    return Sight(uid)


def step(config: Config, names: str, sights: dict[str, Sight], policy: Policy = SAFE, **more: dict[str, str]) -> Step:
    return convergence.step(config, JOBS, [Worker(name) for name in names.split()], sights, policy, **more)


def lists(config: Config) -> dict[str, str]:
    return {name: "".join(entry.jobs) for name, entry in config.entries.items()}


def versions(config: Config) -> dict[str, int]:
    return {name: entry.version for name, entry in config.entries.items()}


def two() -> Config:
    """Two workers with two jobs each."""
    return step(Config(), "w0 w1", {"w0": reporter(None), "w1": reporter(None)}).config


def test_at_first_all_is_assigned_at_once_as_version_0() -> None:
    config = two()
    assert lists(config) == {"w0": "ab", "w1": "cd"}
    assert versions(config) == {"w0": 0, "w1": 0}


def test_nothing_new_is_the_very_same_configuration() -> None:
    config = two()
    again = step(config, "w0 w1", {"w0": reporter(0), "w1": reporter(0)})
    assert again.config is config
    assert again.is_converged
    assert again.evict == ()


def test_a_new_worker_gets_a_job_only_when_the_old_one_has_confirmed() -> None:
    config, sights = two(), {"w0": reporter(0), "w1": reporter(0), "w2": reporter(None)}
    revoked = step(config, "w0 w1 w2", sights)
    assert lists(revoked.config) == {"w0": "ab", "w1": "c"}
    assert revoked.config.holds["w1"].leaving == {"d": 1}
    assert not revoked.is_converged
    assert "w1" in revoked.waits
    assert step(revoked.config, "w0 w1 w2", sights).config is revoked.config
    confirmed = step(revoked.config, "w0 w1 w2", {**sights, "w1": reporter(1)})
    assert lists(confirmed.config) == {"w0": "ab", "w1": "c", "w2": "d"}
    assert versions(confirmed.config) == {"w0": 0, "w1": 1, "w2": 0}
    done = step(confirmed.config, "w0 w1 w2", {"w0": reporter(0), "w1": reporter(1), "w2": reporter(0)})
    assert done.is_converged and done.config is confirmed.config


def test_a_pod_that_is_gone_has_let_go_of_all() -> None:
    revoked = step(two(), "w0", {"w0": reporter(0), "w1": reporter(0)})
    assert lists(revoked.config) == {"w0": "ab", "w1": ""}
    assert [standing.state for standing in revoked.standings.values()] == ["Converged", "Leaving"]
    ending = replace_sight(reporter(0), is_ending=True)
    assert step(revoked.config, "w0", {"w0": reporter(0), "w1": ending}).config is revoked.config
    gone = step(revoked.config, "w0", {"w0": reporter(0), "w1": Sight()})
    assert lists(gone.config) == {"w0": "abcd"}
    assert gone.config.floor == 1


def test_a_pod_that_vanished_may_still_run() -> None:
    revoked = step(two(), "w0", {"w0": reporter(0), "w1": reporter(0)})
    vanished = step(revoked.config, "w0", {"w0": reporter(0), "w1": Sight(lingers=True)})
    assert vanished.config is revoked.config
    assert "may still run" in vanished.waits["w1"]


def test_a_version_is_never_given_twice() -> None:
    config = replace(two(), floor=7)
    revoked = step(config, "w0 w1 w2", {"w0": reporter(0), "w1": reporter(1), "w2": reporter(None)}).config
    assigned = step(revoked, "w0 w1 w2", {"w0": reporter(0), "w1": reporter(1), "w2": reporter(None)}).config
    assert versions(assigned) == {"w0": 0, "w1": 1, "w2": 8}


def test_who_does_not_report_is_evicted_after_its_pod_is_written_down() -> None:
    config, sights = two(), {name: silent(f"u{name}") for name in ("w0", "w1", "w2")}
    known = {name: Hold(applied=Known(f"u{name}", 0)) for name in ("w0", "w1")}
    revoked = step(replace(config, holds=known), "w0 w1 w2", sights)
    assert lists(revoked.config) == {"w0": "ab", "w1": "c"} and revoked.evict == ()
    written = step(revoked.config, "w0 w1 w2", sights)
    assert written.config.holds["w1"].barrier == Known("uw1", 1) and written.evict == ()
    evicting = step(written.config, "w0 w1 w2", sights)
    assert evicting.config is written.config
    assert evicting.evict == (Eviction("w1", "uw1"),)
    later = step(written.config, "w0 w1 w2", {**sights, "w1": silent("new")})
    assert lists(later.config) == {"w0": "ab", "w1": "c", "w2": "d"}
    assert later.evict == ()


def test_who_is_restarted_for_each_change_waits_for_all_of_its_new_jobs() -> None:
    config = two()
    sights = {"w0": reporter(0), "w1": reporter(0), "w2": silent("s")}
    jobs = [Job(name) for name in "abcdef"]
    members = [Worker(name) for name in ("w0", "w1", "w2")]
    start = Config({"w0": Entry(tuple("abc")), "w1": Entry(tuple("def"))}, config.holds)
    revoked = convergence.step(start, jobs, members, sights, SAFE)
    assert lists(revoked.config) == {"w0": "ab", "w1": "de"}
    half = convergence.step(revoked.config, jobs, members, {**sights, "w0": reporter(1)}, SAFE)
    assert "w2" not in half.config.entries
    whole = convergence.step(half.config, jobs, members, {**sights, "w0": reporter(1), "w1": reporter(1)}, SAFE)
    assert lists(whole.config)["w2"] == "cf"
    overdue = {**sights, "w0": reporter(1), "w1": replace_sight(reporter(0), is_overdue=True)}
    assert lists(convergence.step(half.config, jobs, members, overdue, SAFE).config)["w2"] == "c"


def test_who_was_to_stay_as_it_is_stays_though_others_get_their_jobs_one_by_one() -> None:
    """One of two new workers is to have two jobs. With the first it has as many as w1, and would come after it."""
    jobs = [Job(name) for name in "abcdef"]
    members = [Worker(name) for name in ("w0", "w1", "w4", "w7")]
    start = Config({"w0": Entry(("c", "e")), "w1": Entry(("f",)), "w2": Entry(("b", "d")), "w3": Entry(("a",))})
    gone = {"w2": reporter(0), "w3": reporter(0)}
    sights = {"w0": reporter(0), "w1": reporter(0), "w4": reporter(None), "w7": reporter(None), **gone}
    config = convergence.step(start, jobs, members, sights, SAFE).config
    assert config.rebalance["restarts"] == 0
    for confirmed in ({"w2": reporter(1)}, {"w3": reporter(1)}, {"w4": reporter(9), "w7": reporter(9)}):
        sights |= confirmed
        config = convergence.step(config, jobs, members, sights, SAFE).config
        again = convergence.step(config, jobs, members, sights, SAFE)
        assert again.config is config, "nothing is written twice"
    assert again.is_converged
    assert (config.entries["w0"], config.entries["w1"]) == (start.entries["w0"], start.entries["w1"])
    assert not any(hold.awaits for hold in config.holds.values())


def test_a_pod_that_would_come_back_under_another_name_is_evicted_only_to_let_go() -> None:
    """Of a Deployment: evicted for what is new to it, it would be another one, for which that is new again."""
    sights = {name: silent(f"u{name}")._replace(comes_back=False) for name in ("w0", "w1", "w2")}
    config = two()
    for names in ("w0 w1", "w0 w1 w2"):
        at_rest = step(config, "w0 w1", sights)
        assert at_rest.is_converged and at_rest.evict == (), "nobody is restarted to read its list"
        config = step(config, names, sights).config
    assert lists(config) == {"w0": "ab", "w1": "c"}
    config = step(config, "w0 w1 w2", sights).config
    assert step(config, "w0 w1 w2", sights).evict == (Eviction("w1", "uw1"),)
    gone = {**sights, "w1": Sight(comes_back=False)}
    given = step(config, "w0 w1 w2", gone)
    assert lists(given.config) == {"w0": "ab", "w1": "c", "w2": "d"} and given.evict == ()


def test_no_more_are_evicted_than_may_be_away() -> None:
    names = ["w0", "w1", "w2"]
    config = Config(
        {name: Entry((job,), 1) for name, job in zip(names, "abc", strict=True)},
        {name: Hold(barrier=Known(f"u{name}", 1)) for name in names},
    )
    jobs, members = [Job(name) for name in "abc"], [Worker(name) for name in names]
    sights = {name: silent(f"u{name}") for name in names}

    def evicted(policy: Policy, **changed: Sight) -> list[str]:
        config_now = convergence.step(config, jobs, members, {**sights, **changed}, policy).config
        done = convergence.step(config_now, jobs, members, {**sights, **changed}, policy)
        return [eviction.worker for eviction in done.evict]

    assert evicted(SAFE) == ["w0"]
    assert evicted(Policy(max_unavailable=2)) == ["w0", "w1"]
    assert evicted(SAFE, w1=replace_sight(silent("uw1"), is_ready=False)) == ["w1"], "it is away in any case"


def test_fast_hands_over_without_waiting() -> None:
    sights = {"w0": reporter(0), "w1": reporter(0), "w2": reporter(None)}
    moved = step(two(), "w0 w1 w2", sights, Policy(handover=FAST))
    assert lists(moved.config) == {"w0": "ab", "w1": "c", "w2": "d"}
    assert moved.config.holds["w1"].leaving == {"d": 1}


def test_a_job_may_come_back_to_the_worker_that_was_told_to_let_go() -> None:
    revoked = step(two(), "w0 w1 w2", {"w0": reporter(0), "w1": reporter(0), "w2": reporter(None)})
    back = step(revoked.config, "w0 w1", {"w0": reporter(0), "w1": reporter(0)})
    assert lists(back.config) == {"w0": "ab", "w1": "cd"}
    assert versions(back.config)["w1"] == 2
    assert "w1" not in back.config.holds


def test_a_successor_takes_over_the_whole_share() -> None:
    gone = {"w0": reporter(0), "w1": Sight(), "w9": reporter(None)}
    first = step(two(), "w0 w9", gone, successors={"w1": "w9"})
    then = step(first.config, "w0 w9", gone, successors={"w1": "w9"})
    assert lists(then.config) == {"w0": "ab", "w9": "cd"}


def test_a_lost_configuration_is_had_again_only_from_workers_that_run_nothing() -> None:
    lost = convergence.recovered(4, ["w0", "w1"])
    assert versions(lost) == {"w0": 5, "w1": 5}
    waiting = step(lost, "w0 w1", {"w0": reporter(5), "w1": reporter(3)})
    assert lists(waiting.config) == {"w0": "", "w1": "cd"}
    assert waiting.config.holds["w1"].leaving == {ANYTHING: 5}
    done = step(waiting.config, "w0 w1", {"w0": reporter(9), "w1": reporter(9)})
    assert lists(done.config) == {"w0": "ab", "w1": "cd"}


def test_an_overdue_worker_is_restarted_though_it_reports() -> None:
    revoked = step(two(), "w0 w1 w2", {"w0": reporter(0), "w1": reporter(0), "w2": reporter(None)}).config
    sights = {"w0": reporter(0), "w1": replace_sight(reporter(0), is_overdue=True), "w2": reporter(None)}
    written = step(revoked, "w0 w1 w2", sights).config
    assert written.holds["w1"].barrier == Known("u", 1)
    assert step(written, "w0 w1 w2", sights).evict == (Eviction("w1", "u"),)


def test_with_evict_also_reporters_are_restarted_and_believed_by_their_report() -> None:
    policy = Policy(refresh=EVICT)
    sights = {"w0": reporter(0), "w1": reporter(0)}
    revoked = step(two(), "w0 w1 w2", {**sights, "w2": Sight()}, policy).config
    written = step(revoked, "w0 w1 w2", {**sights, "w2": Sight()}, policy).config
    again = {**sights, "w1": reporter(None, "new"), "w2": Sight()}
    restarted = step(written, "w0 w1 w2", again, policy)
    assert restarted.evict == () and restarted.config.holds["w1"].leaving == {"d": 1}
    assert step(restarted.config, "w0 w1 w2", {**again, "w1": reporter(1, "new")}, policy).config.entries["w2"].jobs


def replace_sight(sight: Sight, **changes: bool) -> Sight:
    return sight._replace(**changes)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the failover benchmark reads from the lines of replicas, and that it sees what must never be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import failover_report as report
from bench import terms
from bench.elections import CRASH, GRACEFUL, LOST, Sight, Watcher
from bench.replicas import SYSTEMS, client_go_version, pod_object
from bench.terms import Line, Round, Term


def log(*entries: tuple[float, str, str]) -> list[Line]:
    return [Line(at, who, event, 0) for at, who, event in entries]


class TestLines:
    def test_a_line_that_is_not_finished_is_left_for_later(self) -> None:
        whole = json.dumps({"at": 2_500_000_000, "who": "a", "scope": "ns/x", "fence": 7, "event": "begin"})
        assert terms.lines(f'{whole}\n{{"at": 3') == [Line(2.5, "a", "begin", 7)]

    def test_a_line_without_a_fence_has_none(self) -> None:
        assert terms.lines('{"at": 1000000000, "who": "a", "event": "ready"}\n') == [Line(1.0, "a", "ready", 0)]

    @pytest.mark.parametrize(("who", "replica", "same"), [("a-1", "a-1", True), ("a-1_u_r", "a-1", True)])
    def test_an_identity_is_a_name_and_what_follows(self, who: str, replica: str, same: bool) -> None:
        assert terms.is_of(who, replica) is same

    def test_a_longer_name_is_another_one(self) -> None:
        assert not terms.is_of("a-12", "a-1")


class TestTerms:
    def test_a_term_lasts_from_begin_to_end(self) -> None:
        found = terms.terms(log((1, "a", "ready"), (2, "a", "begin"), (5, "a", "end"), (6, "b", "begin")), {}, 9)
        assert found == [Term("a", 2, 5, 0), Term("b", 6, 9, 0)]

    def test_who_was_killed_led_until_then(self) -> None:
        assert terms.terms(log((2, "a_u_r", "begin")), {"a": 4}, 9) == [Term("a_u_r", 2, 4, 0)]

    def test_who_ended_before_it_was_gone_led_until_it_ended(self) -> None:
        assert terms.terms(log((2, "a", "begin"), (3, "a", "end")), {"a": 4}, 9) == [Term("a", 2, 3, 0)]

    def test_the_same_one_leads_again(self) -> None:
        found = terms.terms(log((1, "a", "begin"), (2, "a", "end"), (3, "a", "begin"), (4, "a", "end")), {}, 9)
        assert found == [Term("a", 1, 2, 0), Term("a", 3, 4, 0)]

    def test_two_leaders_at_one_time_are_seen(self) -> None:
        assert terms.overlaps([Term("a", 1, 3, 0), Term("b", 2.9, 5, 0), Term("c", 5, 6, 0)]) == 1

    def test_one_that_leads_beside_a_long_one_is_seen_too(self) -> None:
        assert terms.overlaps([Term("a", 1, 9, 0), Term("b", 2, 3, 0), Term("c", 4, 5, 0)]) == 2

    def test_a_fence_that_does_not_grow_is_seen(self) -> None:
        assert terms.fences_not_growing([Term("a", 1, 2, 5), Term("b", 3, 4, 5), Term("c", 5, 6, 8)]) == 1

    def test_who_goes_on_under_its_fence_after_a_pause_is_right(self) -> None:
        assert terms.fences_not_growing([Term("a", 1, 2, 5), Term("a", 3, 4, 5), Term("b", 5, 6, 6)]) == 0

    def test_who_has_no_fences_has_none_to_grow(self) -> None:
        assert terms.fences_not_growing([Term("a", 1, 2, 0), Term("b", 3, 4, 0)]) == 0


class TestFigures:
    def test_a_gap_is_between_the_two_authorities(self) -> None:
        found = terms.figures([Round(asked=10, ended=10.5, begun=11.5, seen_free=10.6, seen_taken=11.4)])
        assert found["gap_s"]["p50"] == 1.0
        assert found["after_signal_s"]["p50"] == 1.5
        assert found["watched_s"]["p50"] == 0.8

    def test_where_nothing_was_given_back_a_watcher_counts_from_the_end(self) -> None:
        found = terms.figures([Round(asked=10, ended=10, begun=16, seen_free=None, seen_taken=16.2)])
        assert found["watched_s"]["p50"] == 6.2


class Events:
    """An Api whose watch has shown nothing yet, and never ends by itself."""

    def follow(self, *_args: Any, **_options: Any) -> list[Any]:
        return []


class TestWatcher:
    def change(self, *sights: Sight) -> tuple[float | None, float]:
        watcher = Watcher(Events(), "ns")  # type: ignore[arg-type]
        watcher._sights["x"] = list(sights)
        return watcher.change("x", "b", since=5)

    def test_a_lease_that_is_given_back_is_seen_free_and_then_taken(self) -> None:
        assert self.change(Sight(1, "a"), Sight(6, ""), Sight(7, "b")) == (6, 7)

    def test_a_lease_that_ran_out_is_never_seen_free(self) -> None:
        assert self.change(Sight(1, ""), Sight(2, "a"), Sight(12, "b")) == (None, 12)


class TestReport:
    def contest(self, gap: float, **more: Any) -> dict[str, Any]:
        rounds = [Round(0, 0, gap, None, gap)]
        measured = {"overlaps": 0, "fences_not_growing": 0, "resigned": 0, "busy_cores": 0.5}
        return {**terms.figures(rounds), **measured, **more}

    def test_a_figure_is_met_or_not(self) -> None:
        found = {kind: {"muster": self.contest(0.5)} for kind in (GRACEFUL, CRASH, LOST)}
        met = {target.what.partition(",")[0].partition(" (")[0]: target.met for target in report.targets(found)}
        assert met == {"graceful hand-over": False, "crash on a living node": True, "lost node": True}

    def test_what_was_not_measured_is_no_target(self) -> None:
        assert report.targets({}) == []

    def test_a_peer_that_knows_nothing_of_pods_is_shown_with_its_crash(self) -> None:
        found = {
            CRASH: {"muster": self.contest(1), "client-go": self.contest(17)},
            LOST: {"muster": self.contest(6.1)},
        }
        shown = {name: figures["gap_s"]["p50"] for name, figures in report.of(found, LOST).items()}
        assert shown == {"muster": 6.1, "client-go": 17}

    def test_two_leaders_of_ours_are_a_fault_and_those_of_a_peer_are_told_only(self) -> None:
        found = {GRACEFUL: {"muster": self.contest(0.1, overlaps=2), "client-go": self.contest(3, overlaps=7)}}
        assert report.faults(found) == ["graceful: overlaps 2"]
        assert "| 7 |" in report.blocks({**found, "machine": MACHINE, **VERSIONS})[GRACEFUL]

    def test_the_page_has_a_place_for_everything(self) -> None:
        contest = {"muster": self.contest(0.1)}
        idle = {"writes": 10, "reads": 1, "cpu_s": 0.1, "resident_mib": 30, "requests": {"PUT": 20}, "seconds": 60}
        pods = {CRASH: self.contest(1.5), GRACEFUL: self.contest(0.1)}
        kinds = {GRACEFUL: contest, CRASH: contest, LOST: contest, report.PODS: pods, "idle": {"muster": idle}}
        page = report.fill(report.PAGE, report.blocks({**kinds, "machine": MACHINE, **VERSIONS}))
        assert page.count("| crash | **1.50 s") == 1
        assert page.count("20 PUT in 60 s") == 1
        assert page.count("| **Muster** |") == 3

    def test_a_run_in_several_parts_says_when_each_began_and_how_busy_the_machine_was(self) -> None:
        parts = {"load_1_min": 4.5, "resumed": [{"at": "later", "commit": "def", "load_1_min": 3.1}]}
        text = report.blocks({"machine": {**MACHINE, **parts}, **VERSIONS})["machine"]
        assert "Resumed at later, commit def, load 3.1." in text
        assert report.BUSY in text
        assert report.BUSY not in report.blocks({"machine": MACHINE, **VERSIONS})["machine"]


MACHINE = {
    "cpu": "a CPU", "cores": 2, "memory_gib": 8, "kernel": "6", "system": "Debian", "python": "3.11", "packages": {},
    "commit": "abc", "changed_files": 0, "at": "now", "load_1_min": 0.1,
}  # fmt: skip
VERSIONS = {"kubernetes": "v1", "client_go": "v0"}


class TestSystems:
    def test_times_are_written_as_the_program_reads_them(self) -> None:
        assert "15s" in SYSTEMS["client-go"]._replace(program=lambda: ["x"]).command("k", "ns", "l", "i")
        assert "17" in SYSTEMS["python"].command("k", "ns", "l", "i")

    def test_ours_is_told_how_to_find_the_pods_of_its_own_election(self) -> None:
        command = SYSTEMS["muster"].command("k", "ns", "x-1", "x-1-3")
        labels = pod_object("ns", "x-1", "x-1-3")["metadata"]["labels"]
        assert command[command.index("--selector") + 1] in {f"{key}={value}" for key, value in labels.items()}

    def test_client_go_is_that_of_the_cluster(self) -> None:
        from cluster import toolchain

        assert client_go_version().split(".")[1] == toolchain.pinned("kubernetes", "k8s.io/kubernetes").split(".")[1]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster swarm`: plans without a cluster, and what people see of Swarms."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Worker, place
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config, Entry
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster import cli
from muster.live import Lines
from muster.swarm import local_cli
from muster.swarm.picture import Swarms, explanation_text, plan_text, swarms_text

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
NASTY = "\x1b[2J\x07gpu"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "jobs.yml").write_text("jobs: [a, b, c, d]\n")
    (tmp_path / "config.yml").write_text(
        "owner: video\nworkloads:\n  w-0: {jobs: [a, b], version: 3, note: mine}\n  w-1: {jobs: [c, d], version: 5}\n"
    )
    return tmp_path


def run(files: Path, capsys: Any, *arguments: str, status: int = 0) -> str:
    """`muster swarm plan` in a directory where there is no cluster; what it says."""
    settled = [str(files / one) if one.endswith((".yml", ".txt")) else one for one in arguments]
    assert cli.main(["swarm", "plan", *settled]) == status
    said = capsys.readouterr()
    return str(said.out + said.err)


# ------------------------------------------------------------------------------------------ plan


def test_a_plan_from_nothing_is_a_config_that_workers_can_read(files: Path, capsys: Any) -> None:
    text = run(files, capsys, "--jobs", "jobs.yml", "--workers", "w-0,w-1,w-2", "-o", "config")
    assert yaml.safe_load(text) == {
        "workloads": {
            "w-0": {"jobs": ["a", "b"], "version": 0},
            "w-1": {"jobs": ["c"], "version": 0},
            "w-2": {"jobs": ["d"], "version": 0},
        }
    }


def test_a_version_grows_once_if_the_list_changes_and_the_unknown_is_kept(files: Path, capsys: Any) -> None:
    asked = ("--jobs", "jobs.yml", "--workers", "w-0,w-1,w-2", "--previous", "config.yml")
    after = yaml.safe_load(run(files, capsys, *asked, "-o", "config"))
    assert after == {
        "owner": "video",
        "workloads": {
            "w-0": {"jobs": ["a", "b"], "version": 3, "note": "mine"},
            "w-1": {"jobs": ["c"], "version": 6},
            "w-2": {"jobs": ["d"], "version": 0},
        },
    }
    (files / "config.yml").write_text(run(files, capsys, *asked, "-o", "config"))
    assert yaml.safe_load(run(files, capsys, *asked, "-o", "config")) == after


def test_a_worker_that_comes_later_never_has_a_version_of_one_that_is_gone(files: Path, capsys: Any) -> None:
    asked = ("--jobs", "jobs.yml", "--workers", "w-0,w-2", "--previous", "config.yml", "-o", "config")
    after = yaml.safe_load(run(files, capsys, *asked))["workloads"]
    assert after.keys() == {"w-0", "w-2"} and after["w-0"]["version"] == 3
    assert sorted(after["w-0"]["jobs"] + after["w-2"]["jobs"]) == ["a", "b", "c", "d"]


def test_the_numbers_are_those_of_the_placement(files: Path, capsys: Any) -> None:
    asked = ("--jobs", "jobs.yml", "--workers", "w-0,w-1,w-2", "--previous", "config.yml")
    told = json.loads(run(files, capsys, *asked, "-o", "json", "--why", "d", "--why", "a"))
    made = place([Job(name) for name in "abcd"], map(Worker, ("w-0", "w-1", "w-2")), {"w-0": "ab", "w-1": "cd"})
    for name in ("moves", "least_moves", "restarts", "least_restarts", "imbalance", "method"):
        assert told[name] == getattr(made, name)
    assert told["assignment"] == {name: list(jobs) for name, jobs in made.assignment.items()}
    assert told["moved"] == [{"job": "d", "from": "w-1", "to": "w-2", "gone": False}]
    assert told["why"]["d"].startswith("d moves from w-1") and told["why"]["a"].startswith("a stays on w-0")
    text = run(files, capsys, *asked, "--why", "d")
    assert text.startswith(
        "4 jobs on 3 workers (quota): 1 move (fewest: 1), 1 worker that had a list before gets another"
    )
    assert ["d", "w-1", "w-2"] in [line.split() for line in text.splitlines()]
    assert "d moves from w-1" in text


@pytest.mark.parametrize("seed", range(20))
def test_what_it_comes_to_is_the_placement_whatever_changed(seed: int) -> None:
    """Carried out to the end: nothing is left of workers that are gone, and every list is that of the placement."""
    dice = random.Random(seed)
    names = [f"w-{number}" for number in range(6)]
    jobs = [Job(f"j{number}") for number in range(dice.randrange(40))]
    config = Config()
    for _change in range(5):
        workers = [Worker(name) for name in dice.sample(names, dice.randrange(1, 6))]
        kept = dice.sample(jobs, dice.randrange(len(jobs) + 1))
        plan = local_cli.plan_of(kept, workers, config)
        stands = {name: entry.jobs for name, entry in plan.after.entries.items() if entry.jobs}
        assert stands == {name: own for name, own in plan.placement.assignment.items() if own}
        assert not any(hold.leaving for hold in plan.after.holds.values())
        for name, entry in plan.after.entries.items():
            before = config.entries.get(name)
            if before is not None:
                assert entry.version - before.version == (set(entry.jobs) != set(before.jobs))
        config = plan.after


def test_jobs_come_and_go(files: Path, capsys: Any) -> None:
    (files / "jobs.yml").write_text("[a, b, d, x]")
    told = json.loads(
        run(files, capsys, "--jobs", "jobs.yml", "--workers", "w-1", "--previous", "config.yml", "-o", "json")
    )
    assert [(one["name"], one["gets"], one["loses"], one["gone"]) for one in told["workers"]] == [
        ("w-1", 3, 1, False),
        ("w-0", 0, 2, True),
    ]
    assert [(one["job"], one["from"], one["to"], one["gone"]) for one in told["moved"]] == [
        ("a", "w-0", "w-1", True),
        ("b", "w-0", "w-1", True),
    ]
    text = run(files, capsys, "--jobs", "jobs.yml", "--workers", "w-1", "--previous", "config.yml")
    assert ["w-0", "0", "0", "gone", "-"] in [line.split() for line in text.splitlines()]
    assert "w-0 (gone)" in text and "+3 -1" in text


def test_a_job_that_two_had_was_with_the_one_that_is_still_there(files: Path, capsys: Any) -> None:
    (files / "config.yml").write_text("workloads: {a-0: {jobs: [a], version: 0}, w-0: {jobs: [a, b], version: 0}}")
    asked = ("--jobs", "jobs.yml", "--workers", "w-0", "--previous", "config.yml", "-o", "json")
    assert json.loads(run(files, capsys, *asked))["moved"] == []


def test_workers_of_a_file(files: Path, capsys: Any) -> None:
    (files / "jobs.yml").write_text("[{name: a, class: gpu}, {name: b, class: gpu}, c]")
    (files / "pool.yml").write_text("workers: [{name: g-0, classes: [gpu], exclusive: true, capacity: 2}, w-0]")
    told = json.loads(run(files, capsys, "--jobs", "jobs.yml", "--workers-file", "pool.yml", "-o", "json"))
    assert told["assignment"] == {"g-0": ["a", "b"], "w-0": ["c"]}
    (files / "pool.yml").write_text("[{name: g-0, classes: [gpu], exclusive: true}, w-0]")
    asked = ("--jobs", "jobs.yml", "--workers-file", "pool.yml", "--capacity", "1")
    assert list(json.loads(run(files, capsys, *asked, "-o", "json"))["unplaced"]) == ["b"]
    text = run(files, capsys, *asked)
    assert "NO WORKER" in text and "room for 1 on g-0" in text


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (None, "give a list of workers"),
        ({"workers": "w-0"}, "give a list of workers"),
        ([7], r"f\[0\] is 7: give a name"),
        ([{"zone": "a"}], "mapping with the key name"),
        ([{"name": "w", "takes": []}], "'takes': a worker has name, classes"),
        ([{"name": "w", "classes": "gpu"}], "give a list of names"),
    ],
)
def test_workers_that_can_not_be_understood(document: Any, told: str) -> None:
    with pytest.raises(Malformed, match=told):
        local_cli.read_workers(document, "f")


def test_workers_in_full() -> None:
    found = local_cli.read_workers(["a", {"name": "b", "classes": ["x"], "zone": "z", "capacity": 3}], "f")
    assert found == [Worker("a"), Worker("b", frozenset({"", "x"}), 3, "z")]


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        (("--jobs", "jobs.yml"), 2, "give --workers or --workers-file"),
        (("--jobs", "jobs.yml", "--workers", "w", "--workers-file", "pool.yml"), 2, "give --workers or --workers-file"),
        (("--jobs", "none.yml", "--workers", "w"), 1, "can't be read"),
        (("--jobs", "jobs.yml", "--workers", "w", "--previous", "empty.yml"), 1, "did the shell empty it"),
        (("--jobs", "twice.yml", "--workers", "w"), 1, "name each job once"),
        (("--jobs", "jobs.yml", "--workers", "w,w"), 1, "workers is 'w': name it once"),
        (("--jobs", "jobs.yml", "--workers", "w", "--why", "z"), 1, "job is 'z'"),
        (("--jobs", "jobs.yml", "--workers", "w", "--previous", "odd.yml"), 1, "workloads.w-0"),
    ],
)
def test_what_is_refused(files: Path, capsys: Any, arguments: tuple[str, ...], status: int, told: str) -> None:
    (files / "empty.yml").write_text("")
    (files / "twice.yml").write_text("[a, a]")
    (files / "odd.yml").write_text("workloads: {w-0: 7}")
    (files / "pool.yml").write_text("[w]")
    assert told in run(files, capsys, *arguments, status=status)


@pytest.mark.parametrize("option", [("--capacity", "0"), ("--churn", "-1"), ("--capacity", "x"), ("-o", "yaml")])
def test_wrong_options(files: Path, option: tuple[str, str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["swarm", "plan", "--jobs", str(files / "jobs.yml"), "--workers", "w", *option])
    assert ended.value.code == 2


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_plan_fits_and_says_what_it_leaves_out(width: int) -> None:
    jobs = [Job(f"{NASTY}{number:03}") for number in range(200)]
    before = Config({"w-0": Entry(tuple(job.name for job in jobs))})
    plan = local_cli.plan_of(jobs, [Worker("w-0"), Worker("w-1")], before)
    text = plan_text({**local_cli.planned(plan), "why": {"x": NASTY}}, width)
    assert "\x1b" not in text and "… and 80 more" in text
    assert all(len(line) <= width for line in text.splitlines()[1:])


# ------------------------------------------------------------------------------------------ status


def told(workers: int = 2, **more: Any) -> dict[str, Any]:
    """A Swarm as `verbs.swarm_info.told` tells of it."""
    return {
        "name": "main",
        "namespace": "ns",
        "config_map": "swarm-worker-config",
        "manager": "Swarm/main",
        "jobs": 2 * workers,
        "unplaced": 0,
        "unschedulable": {},
        "converged": True,
        "paused": False,
        "waits_for": None,
        "rebalance": {
            "time": "2027-01-15T07:56:48Z",
            "method": "quota",
            "moves": 3,
            "least_moves": 3,
            "restarts": 2,
            "imbalance": 1,
        },
        "workers": [
            {"name": f"w-{number}", "jobs": 2, "load": 2, "version": 4, "applied": 4, "state": "Converged"}
            for number in range(workers)
        ],
        "error": None,
        **more,
    }


def picture(*found: dict[str, Any], width: int = 80, height: int = 24, **more: Any) -> list[str]:
    shown = Swarms("namespace ns")
    shown.take(list(found), NOW)
    return shown.lines(width, height, NOW, **more)


def test_a_swarm_that_has_converged() -> None:
    lines = swarms_text([told()]).splitlines()
    assert lines[0] == "Swarm ns/main  4 jobs on 2 workers, converged"
    assert lines[1].split() == ["WORKER", "JOBS", "LOAD", "WANTED", "RUNS", "STATE"]
    assert lines[2].split() == ["w-0", "2", "2", "■" * 20, "4", "4", "Converged"]
    shown = picture(told())
    assert shown[0].startswith("Swarm ns/main  4 jobs on 2 workers, converged  ")
    assert shown[-1] == "  placed 3m12s ago (quota): 3 moved (fewest: 3), 2 changed, imbalance 1"


def test_who_holds_it_up_and_what_has_no_worker() -> None:
    waits = {"worker": "w-1", "since": "2027-01-15T07:59:48Z", "reason": "it does not answer"}
    one = told(
        converged=False,
        paused=True,
        unplaced=1,
        waits_for=waits,
        unschedulable={"e": "there is no room"},
        error="spec.capacity is 0",
    )
    one["workers"][1] |= {"jobs": 1, "load": 1, "applied": None, "state": "Reloading"}
    text = "\n".join(picture(one))
    assert "4 jobs on 2 workers, 1 unplaced, paused, on its way" in text and "spec.capacity is 0" in text
    assert "held up by w-1 for 12s: it does not answer" in text
    assert ["w-1", "1", "1", "■" * 10, "4", "-", "Reloading"] in [line.split() for line in text.splitlines()]
    assert ["e", "there", "is", "no", "room"] in [line.split() for line in text.splitlines()]


def test_what_no_operator_has_told_of_yet_and_what_has_none() -> None:
    assert "its operator has not told anything yet" in swarms_text([told(0, jobs=None, rebalance={})])
    alone = told(name=None, manager=None)
    alone["workers"][0]["load"] = None
    text = swarms_text([alone])
    assert text.startswith("ConfigMap ns/swarm-worker-config  4 jobs on 2 workers, converged, kept by nobody")


@pytest.mark.parametrize("width", [1, 10, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 9, 23, 500])
def test_it_fits_any_terminal(width: int, height: int) -> None:
    many = told(200, unschedulable={f"{NASTY}{number}": NASTY * 20 for number in range(100)}, manager=NASTY)
    lines = picture(many, told(3, name=None), width=width, height=height, trouble=NASTY * 100)
    assert len(lines) <= height and all(len(line) <= width for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_before_anything_was_read_and_where_there_is_nothing() -> None:
    shown = Swarms("namespace ns")
    assert shown.lines(80, 24, NOW) == ["reading the Swarms of namespace ns …"]
    assert shown.lines(80, 24, NOW, "refused") == ["muster: refused"]
    assert picture() == ["there is no Swarm in namespace ns yet; Ctrl-C ends"]
    assert picture(trouble="lost")[0] == "seen 0s ago: lost"


def test_for_pipes_each_state_that_is_news() -> None:
    out = io.StringIO()
    lines = Lines(out, Swarms("namespace ns"), as_json=True)
    for state in (told(), told(), told(converged=False)):
        lines.found([state])
    assert [json.loads(line)["swarms"][0]["converged"] for line in out.getvalue().splitlines()] == [True, False]
    text = io.StringIO()
    Lines(text, Swarms("namespace ns"), as_json=False).found([])
    assert "there is no Swarm in namespace ns" in text.getvalue()


# ------------------------------------------------------------------------------------------ why


def test_an_explanation_says_what_is_and_who_holds_it_up() -> None:
    why = {"job": "d", "worker": None, "planned": "w-2", "leaving": ["w-1"], "state": "moving", "waits_for": {}}
    text = explanation_text({**why, "why": f"d moves{NASTY}.", "waits_for": {"w-1": "it hangs"}})
    assert text.splitlines()[1:] == ["It is on its way: w-1 may still run it.", "Held up by w-1: it hangs."]
    assert "\x1b" not in text
    assert "w-0 has it now" in explanation_text({**why, "worker": "w-0", "leaving": [], "why": ""})
    assert explanation_text({**why, "state": "placed", "why": "It stays."}) == "It stays."


def test_the_help_names_all_commands(capsys: Any) -> None:
    for arguments in ([], ["plan"], ["status"], ["explain"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["swarm", *arguments, "--help"])
        assert ended.value.code == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: muster swarm {' '.join(arguments)}".rstrip())
        assert all(len(line) <= 80 for line in said.splitlines())

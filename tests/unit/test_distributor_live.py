# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The live picture: what it shows, and that it fits any terminal."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from muster.live import Lines, age
from muster.semaphore_picture import Semaphores

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def semaphore(holders: int = 1, waiters: int = 0, **more: Any) -> dict[str, Any]:
    held = {"holder": "", "uid": "u", "resource": "gpu", "resources": {"gpu": 1}, "since": "2027-01-15T07:56:48Z"}
    wish = {"want": "gpu", "wants": {"gpu": 1}, "priority": 0, "uid": "u"}
    return {
        "name": "sem",
        "namespace": "ns",
        "engine": "annotations",
        "error": None,
        "resources": [{"name": "gpu", "capacity": holders, "held": holders, "free": 0}],
        "holders": [{**held, "holder": f"render-745bc4cf56-{n:05}", "fence": n + 1} for n in range(holders)],
        "waiters": [{**wish, "holder": f"waiter-745bc4cf56-{n:05}", "place": n + 1} for n in range(waiters)],
        **more,
    }


def picture(*found: dict[str, Any], width: int = 100, height: int = 50, **options: Any) -> list[str]:
    shown = Semaphores("ns")
    shown.take(list(found), NOW)
    return shown.lines(width, height, NOW, **options)


def test_it_says_who_holds_for_how_long_and_who_waits() -> None:
    text = "\n".join(picture(semaphore(2, 1)))
    assert "Semaphore ns/sem  2 hold, 1 wait" in text
    assert "gpu   2 of 2   ■■" in text
    assert "render-745bc4cf56-00000   gpu       1   held 3m12s" in text
    assert "1   waiter-745bc4cf56-00000   gpu" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m00s"), (192, "3m12s"), (3660, "1h01m"), (360000, "4d04h")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_how_long_somebody_waits_is_known_only_from_when_it_was_seen() -> None:
    shown = Semaphores("ns")
    shown.take([semaphore(1, 1)], NOW)
    shown.take([semaphore(1, 2)], NOW + 60)
    text = "\n".join(shown.lines(100, 50, NOW + 90))
    assert "waiter-745bc4cf56-00000   gpu     waits > 1m30s" in text
    assert "waiter-745bc4cf56-00001   gpu     waits 30s" in text
    shown.take([semaphore(1, 0)], NOW + 100)
    shown.take([semaphore(1, 1)], NOW + 110)
    assert "waits 5s" in "\n".join(shown.lines(100, 50, NOW + 115))


@pytest.mark.parametrize("width", [1, 10, 20, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 9, 23, 60, 500])
def test_it_fits_any_terminal(width: int, height: int) -> None:
    lines = picture(semaphore(200, 300), semaphore(0, 0, name="other"), width=width, height=height, trouble="x" * 300)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines)


def test_what_does_not_fit_is_counted() -> None:
    lines = picture(semaphore(200, 50), height=23)
    assert len(lines) in (22, 23)  # the lists are of one length
    (holders, waiters) = (int(line.split()[2]) for line in lines if line.startswith("  … and "))
    assert holders + sum("render-" in line for line in lines) == 200
    assert waiters + sum("waiter-" in line for line in lines) == 50
    assert not any("more" in line for line in picture(semaphore(200, 50), height=270))


def test_names_are_cut_in_the_middle_where_it_is_narrow() -> None:
    lines = picture(semaphore(1), width=40)
    (row,) = (line for line in lines if "held 3m12s" in line)
    assert row.split()[0].startswith("ren") and row.split()[0].endswith("00000") and "…" in row


def test_a_terminal_obeys_no_name() -> None:
    nasty = "\x1b[2J\x07gpu"
    found = semaphore(1, 0, error=f"bad {nasty}")
    found["resources"][0]["name"] = nasty
    found["holders"][0]["resources"] = {nasty: 1}
    text = "".join(picture(found, trouble=nasty))
    assert text.isprintable() and "?[2J?gpu" in text


def test_while_the_api_server_is_away_it_says_how_old_the_picture_is() -> None:
    shown = Semaphores("ns")
    assert shown.lines(100, 50, NOW) == ["reading the semaphores of ns …"]
    shown.take([semaphore()], NOW)
    lines = shown.lines(100, 50, NOW + 75, "no connection")
    assert lines[0] == "seen 1m15s ago: no connection" and lines[2].startswith("Semaphore")


def test_without_a_semaphore_it_waits_for_one() -> None:
    assert "no semaphore in namespace ns yet" in picture()[0]


def test_a_pipe_gets_each_state_once() -> None:
    out = io.StringIO()
    with Lines(out, Semaphores("ns"), as_json=True) as lines:
        for holders in (1, 1, 2):
            lines.found([semaphore(holders)])
            lines.draw("")
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [len(state["semaphores"][0]["holders"]) for state in told] == [1, 2]

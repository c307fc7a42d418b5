# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster leaders` and `muster shards`: what people see, and that it fits any terminal."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from muster import cli
from muster.leaders import Leaders, Shards, key_text, leaders_text, shards_text
from muster.live import Lines

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
NASTY = "\x1b[2J\x07gpu"


def lease(name: str = "op", pod: str | None = "vm-operator-0", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "ns",
        "state": "held" if pod else "free",
        "holder": pod and f"{pod}_u_1a2b3c4d",
        "pod": pod,
        "fence": 4211,
        "since": "2027-01-15T07:56:48.000000Z" if pod else None,
        "renewed": "2027-01-15T08:00:00.000000Z" if pod else None,
        "until": "2027-01-15T08:00:06.000000Z" if pod else None,
        "seconds": 6,
        "transitions": 3,
        "remark": None,
        "error": None,
        **more,
    }


def controller(members: int = 2, shards: int = 4, **more: Any) -> dict[str, Any]:
    names = [f"vm-operator-{n}" for n in range(members)]
    layout = {"strategy": "stable", "shards": shards}
    owned = [
        {"shard": n, "member": names[n % members], "owner": "i", "fence": n, "wanted": names[n % members]}
        for n in range(shards if members else 0)
    ]
    every = [list(range(n, shards, members)) for n in range(members)]
    told = [
        {**lease(f"vm-{name}", name), "owns": every[n], "wanted": every[n], "layout": layout, "ordinal": n}
        for n, name in enumerate(names)
    ]
    return {
        "name": "vm",
        "namespace": "ns",
        "layout": layout,
        "settled": True,
        "members": told,
        "shards": [{**one, "state": "owned"} for one in owned],
        "handovers": [],
        "error": None,
        **more,
    }


def move(shard: int, state: str = "revoked") -> dict[str, Any]:
    return {"shard": shard, "from": "vm-operator-0", "to": "vm-operator-1", "state": state}


def leaders_picture(*found: dict[str, Any], width: int = 80, height: int = 24, **more: Any) -> list[str]:
    shown = Leaders("namespace ns")
    shown.take(list(found), NOW)
    return shown.lines(width, height, NOW, **more)


# ------------------------------------------------------------------------------------------ once


def test_leaders_as_a_table() -> None:
    lines = leaders_text([lease(), lease("other", None, remark="odd")]).splitlines()
    assert lines[0].split() == ["LEASE", "HOLDER", "TERM", "FENCE", "FOR", "STATE"]
    assert lines[1].split()[:4] == ["op", "vm-operator-0", "3", "4211"] and lines[1].endswith("held")
    assert lines[2].split() == ["other", "-", "3", "4211", "-", "free"]
    assert lines[4:] == ["  other: odd"]


def test_namespaces_are_named_where_there_are_several() -> None:
    text = leaders_text([lease(), lease(namespace="other", remark="odd")])
    assert text.split()[0] == "NAMESPACE" and text.endswith("  other/op: odd")
    assert "NAMESPACE" not in leaders_text([lease(), lease("other")])


def test_shards_that_are_settled() -> None:
    lines = shards_text(controller()).splitlines()
    assert lines[0] == "Shards ns/vm  4 (stable), 2 members, settled"
    assert lines[1].split() == ["MEMBER", "FENCE", "FOR", "STATE", "OWNS", "SHARDS"]
    assert lines[2].split()[0] == "vm-operator-0" and lines[2].split()[-2:] == ["2", "0,2"]
    assert len(lines) == 4


def test_shards_on_their_way() -> None:
    moved = controller(settled=False, handovers=[move(2), move(3, "free"), move(4), move(5), move(1, "orphaned")])
    moved["members"][1]["wanted"] = [1, 2, 3]
    text = shards_text(moved)
    assert "5 moving" in text and "2 → 3" in text
    assert [line.split() for line in text.splitlines()[-3:]] == [
        ["vm-operator-0", "vm-operator-1", "revoked", "2,4-5"],
        ["vm-operator-0", "vm-operator-1", "free", "3"],
        ["vm-operator-0", "vm-operator-1", "orphaned", "1"],
    ]


def test_who_has_left_is_not_shown() -> None:
    left = controller()
    left["members"].append({**lease("vm-old", None), "owns": [], "wanted": [], "layout": None})
    assert shards_text(left) == shards_text(controller())


def test_what_keeps_it_from_being_settled_is_said() -> None:
    stuck = controller(settled=False)
    stuck["shards"][1]["state"] = stuck["shards"][2]["state"] = "nobody"
    stuck["members"][0]["layout"] = {"strategy": "pod-num", "shards": 3}
    text = shards_text(stuck)
    assert "nobody is there for 1-2" in text
    assert "another layout is asked for: 3 by pod-num (1 member)" in text


def test_no_table_or_a_malformed_one() -> None:
    assert "1 member, no table yet" in shards_text(controller(1, 0, layout=None, settled=False))
    text = shards_text(controller(1, 0, layout=None, settled=False, error="data.table is 'x': mend it"))
    assert "data.table is 'x': mend it" in text and "no table yet" not in text


def test_whose_a_key_is() -> None:
    assert key_text(controller(shards=1), "team-a").startswith("key team-a of ns/vm is of shard 0, owned by vm-op")
    moved = controller(shards=1)
    moved["shards"][0].update(state="free", member=None, owner=None, fence=None, wanted="vm-operator-1")
    assert key_text(moved, "a").endswith("owned by nobody, moving to vm-operator-1: is taken next")
    assert "no table yet" in key_text(controller(layout=None), "a")


# ------------------------------------------------------------------------------------------ live


def test_how_long_a_holder_is_silent_is_known_from_when_its_last_renewal_was_seen() -> None:
    shown = Leaders("namespace ns")
    shown.take([lease()], NOW)
    assert "0s of 6s" in shown.lines(80, 24, NOW)[2]
    shown.take([lease()], NOW + 4)  # read again for something else's sake
    assert "5s of 6s" in shown.lines(80, 24, NOW + 5)[2]
    shown.take([lease(renewed="2027-01-15T08:00:05.000000Z")], NOW + 5)
    assert "1s of 6s" in shown.lines(80, 24, NOW + 6)[2]
    assert "6s of 6s: over" in shown.lines(80, 24, NOW + 11)[2]
    shown.take([lease(state="leaving"), lease("b", None)], NOW + 12)
    assert shown.lines(80, 24, NOW + 12)[2].endswith("leaving, 0s of 6s")
    assert shown.lines(80, 24, NOW + 12)[3].endswith("free")


def test_nobody_is_called_silent_while_nothing_can_be_read() -> None:
    shown = Leaders("namespace ns")
    assert shown.lines(80, 24, NOW) == ["reading namespace ns …"]
    shown.take([lease()], NOW)
    lines = shown.lines(80, 24, NOW + 75, "no connection")
    assert lines[0] == "seen 1m15s ago: no connection"
    assert "0s of 6s" in "\n".join(lines)


def test_the_title_counts() -> None:
    title = leaders_picture(lease(), lease("b"), lease("c", None))[0]
    assert title.startswith("Leaders of namespace ns  1 free, 2 held  ")
    assert "there is no Lease yet" in leaders_picture()[0]


@pytest.mark.parametrize("width", [1, 10, 20, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 9, 23, 60, 500])
def test_it_fits_any_terminal(width: int, height: int) -> None:
    many = [lease(f"lease-{n}", remark="x" * 300) for n in range(100)]
    crowd = controller(40, 1024, handovers=[move(n) for n in range(100)])
    shown = Shards("sharded controller in namespace ns")
    shown.take([crowd, controller()], NOW)
    for lines in (leaders_picture(*many, width=width, height=height), shown.lines(width, height, NOW, "x" * 300)):
        assert len(lines) <= height
        assert all(len(line) <= width for line in lines)


def test_what_does_not_fit_is_counted() -> None:
    lines = leaders_picture(*(lease(f"lease-{n}") for n in range(100)), height=23)
    (left_out,) = (int(line.split()[2]) for line in lines if line.startswith("  … and "))
    assert left_out + sum("lease-" in line for line in lines) == 100


def test_a_terminal_obeys_no_name() -> None:
    bad = lease(NASTY, NASTY, remark=NASTY, error=NASTY, namespace=NASTY)
    member = {**bad, "owns": [0], "wanted": [0], "layout": None, "ordinal": None}
    odd = controller(members=1, error=NASTY, handovers=[{**move(0), "from": NASTY}])
    odd["members"].append(member)
    shown = Shards("sharded controller in namespace ns")
    shown.take([odd], NOW)
    pictures = [*leaders_picture(bad, lease(), trouble=NASTY), *shown.lines(200, 50, NOW, NASTY)]
    texts = [*leaders_text([bad]).splitlines(), *shards_text(odd).splitlines(), key_text(controller(), NASTY)]
    assert all(line.isprintable() for line in [*pictures, *texts])


def test_a_pipe_gets_no_line_for_a_renewal() -> None:
    out = io.StringIO()
    later = lease(renewed="2027-01-15T08:00:02.000000Z", until="2027-01-15T08:00:08.000000Z")
    with Lines(out, Leaders("namespace ns"), as_json=True) as lines:
        for found in (lease(), later, lease(pod="vm-operator-1")):
            lines.found([found])
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [state["leases"][0]["pod"] for state in told] == ["vm-operator-0", "vm-operator-1"]
    out = io.StringIO()
    with Lines(out, Shards("sharded controller in namespace ns"), as_json=False) as lines:
        for moves in ([], [], [move(1)]):
            lines.found([controller(handovers=moves)])
    assert out.getvalue().count("Shards ns/vm") == 2


# ------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize("command", ["leaders", "shards"])
def test_help_fits_a_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "exit status" in text and "examples" in text and "KUBECONFIG" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("leaders", "op", "--all-namespaces"), "NAME and --all-namespaces exclude each other"),
        (("leaders", "op", "-l", "a=b"), "NAME and --selector exclude each other"),
        (("shards", "--key", "a", "--watch"), "--key excludes --watch"),
        (("shards", "--key", "a", "-o", "json"), "--key excludes"),
    ],
)
def test_what_excludes_each_other_is_said(
    arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    assert says in capsys.readouterr().err

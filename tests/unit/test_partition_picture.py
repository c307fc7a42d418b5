# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see of a key space in the terminal, and what `muster partitions` makes of its arguments."""

from __future__ import annotations

import http.server
import itertools
import json
import re
import threading
import urllib.parse
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import PRINTABLE
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import ASSIGNMENTS, PARTITIONS
from ansible_collections.muster.coordination.tests.support.key_space_memory import Site
from muster import cli
from muster.dstk import partitions_cli
from muster.dstk.picture import Spaces, painted, shown, spaces_text, strip

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
FRESH, OLD = "2027-01-15T07:59:58.000000Z", "2027-01-15T07:58:00.000000Z"
NASTY = "\x1b[2J\x07name"
LOOK = {"fenced": False, "proxy": "", "followers": [], "operation": "", "phase": "Ready", "message": ""}


def part(name: str, start: str, end: str, primary: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "start": start, "end": end, "primary": primary, "epoch": 1, **LOOK, **more}


def worker(name: str, **more: Any) -> dict[str, Any]:
    told = {"name": name, "address": "http://10.0.0.1:8391", "leaving": False, "incarnation": "1", "renewed": FRESH}
    return {**told, "lease_seconds": 6, "partitions": 1, **more}


def space(*partitions: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {
        "name": "default",
        "namespace": "ns",
        "key_length": 4,
        "alphabet": "0123456789abcdef",
        "covered": True,
        "gaps": [],
        "unserved": sum(1 for each in partitions if not each["primary"]),
        "partitions": list(partitions),
        "void": [],
        "operations": [],
        "aborted": [],
        "workers": [worker("w-0"), worker("w-1")],
        "owner": None,
        "message": "",
        "error": None,
    }
    return {**told, **more}


HALVES = (part("p", "", "8", "w-0"), part("q", "8", "", "w-1"))


def lines(told: dict[str, Any], width: int = 80, height: int = 40) -> list[str]:
    picture = Spaces("namespace ns")
    picture.take([told], NOW)
    return picture.lines(width, height, NOW)


# ---------------------------------------------------------------------------------------------- the strip


def test_a_partition_is_as_wide_as_its_share() -> None:
    drawn = strip(space(*HALVES), {"w-0": "A", "w-1": "B"}, 40)
    assert drawn.cells == "A" * 20 + "B" * 20
    assert drawn.ticks == "╵-" + " " * 18 + "╵8"


def test_a_small_partition_is_seen_as_long_as_there_is_room() -> None:
    told = space(part("p", "", "0001", "w-0"), part("q", "0001", "", "w-1"))
    assert strip(told, {"w-0": "A", "w-1": "B"}, 40).cells == "A" + "B" * 39


def test_what_is_not_served_is_seen() -> None:
    told = space(
        part("p", "", "4", ""),
        part("q", "4", "8", "w-0", fenced=True, operation="a1"),
        part("r", "c", "", "w-1"),
        gaps=[{"start": "8", "end": "c"}],
        covered=False,
    )
    drawn = strip(told, {"w-0": "A", "w-1": "B"}, 40)
    assert drawn.cells == "·" * 10 + "!" * 10 + " " * 10 + "B" * 10


def test_of_more_partitions_than_columns_the_wrong_one_is_seen() -> None:
    bounds = ["", *(f"{number:03x}" for number in range(4, 4096, 4)), ""]
    parts = [part(f"p{n}", s, e, "w-0") for n, (s, e) in enumerate(itertools.pairwise(bounds))]
    parts[700]["primary"] = ""
    drawn = strip(space(*parts), {"w-0": "A"}, 60)
    assert len(drawn.cells) == 60 and drawn.cells.count("·") == 1 and drawn.cells.count("A") == 59
    assert abs(drawn.cells.index("·") - 700 / 1024 * 60) <= 1


@given(st.sets(st.text("0123456789abcdef", min_size=1, max_size=4), max_size=30), st.integers(20, 120))
def test_a_strip_fills_its_width(cuts: set[str], width: int) -> None:
    bounds = [*sorted({"", *(cut.rstrip("0") for cut in cuts)}), ""]
    parts = [part(f"p{n}", s, e, "w-0") for n, (s, e) in enumerate(itertools.pairwise(bounds))]
    drawn = strip(space(*parts), {"w-0": "A"}, width)
    assert len(drawn.cells) == width and len(drawn.ticks) <= width


# ---------------------------------------------------------------------------------------------- the whole


def test_the_picture_says_what_there_is() -> None:
    operation = {
        "name": "move-p-1",
        "type": "InterWorkerMove",
        "phase": "Loading",
        "message": "worker w-1 loads p",
        "partitions": ["p"],
        "split_key": "",
        "from": "w-0",
        "to": "w-1",
        "created": OLD,
    }
    told = space(part("p", "", "8", "w-0", operation="move-p-1"), HALVES[1], operations=[operation])
    text = "\n".join(lines(told, 120))
    assert "KeySpace ns/default  keys of 4 characters: 0123456789abcdef" in text
    assert "2 partitions, 2 workers, all keys covered, 1 operation" in text
    assert re.search(r"move-p-1 +Loading +move p: w-0 → w-1 +2m00s +worker w-1 loads p", text)
    assert re.search(r"\[-, 8\) +p +A w-0 +1 +served, move-p-1", text)


def test_workers_that_are_lost_are_seen_and_what_they_have() -> None:
    told = space(
        *HALVES, workers=[worker("w-0", renewed=OLD), worker("w-1", leaving=True), worker("w-2", incarnation="")]
    )
    text = "\n".join(lines(told))
    assert re.search(r"A w-0 +1 +lost, 2m00s", text) and re.search(r"B w-1 +1 +leaving", text)
    assert re.search(r"C w-2 +1 +ended", text) and re.search(r"A w-0 +1 +its worker is lost", text)


def test_an_owner_without_a_lease_has_a_letter() -> None:
    text = "\n".join(lines(space(*HALVES, workers=[])))
    assert re.search(r"A w-0 +1 +has no Lease", text)


def test_gaps_are_rows() -> None:
    told = space(HALVES[0], gaps=[{"start": "8", "end": ""}], covered=False)
    text = "\n".join(lines(told))
    assert "1 gap" in text and re.search(r"\[8, -\) +- +- +- +gap", text)


@pytest.mark.parametrize("width", [1, 20, 40, 62, 80, 200])
@pytest.mark.parametrize("height", [1, 5, 12, 50])
def test_it_fits_any_terminal(width: int, height: int) -> None:
    parts = [part(f"part-{n:03}", f"{n:02x}", f"{n + 1:02x}", f"w-{n % 3}") for n in range(100)]
    drawn = lines(space(*parts, message="m" * 100), width, height)
    assert len(drawn) <= height and all(len(line) <= width for line in drawn)


def test_lists_that_do_not_fit_say_so() -> None:
    parts = [part(f"part-{n:03}", f"{n:02x}", f"{n + 1:02x}", "w-0") for n in range(100)]
    assert re.search(r"… and \d+ more", "\n".join(lines(space(*parts), 80, 20)))


def test_what_a_terminal_would_obey_is_not_shown() -> None:
    told = space(part(NASTY, "", "", NASTY, message=NASTY), message=NASTY)
    assert "\x1b" not in "\n".join(lines(told)) and "\x1b" not in spaces_text([told])


def test_a_space_without_partitions_and_one_that_is_malformed() -> None:
    gap = {"gaps": [{"start": "", "end": ""}], "covered": False, "workers": []}
    assert "no partition yet" in spaces_text([space(**gap)])
    assert "spec.keyLength is 'x'" in spaces_text([space(error="spec.keyLength is 'x': give an integer", **gap)])


def test_colours_are_on_a_terminal_only_and_change_no_width() -> None:
    told = space(part("p", "", "8", ""), HALVES[1], alphabet=PRINTABLE)
    assert "\x1b" not in spaces_text([told], 80)
    coloured = spaces_text([told], 80, colours=True)
    assert "\x1b[31m·" in coloured and "\x1b[32mB" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == spaces_text([told], 80)
    for live in (Spaces("here", colours=True), Spaces("here")):
        live.take([told], NOW)
        drawn = live.lines(80, 40, NOW)
        assert any("\x1b" in live.paint(line) for line in drawn) == live.colours
        assert not any("\x1b" in line for line in drawn)


def test_a_name_that_looks_like_a_letter_is_not_painted() -> None:
    told = shown(space(part("A", "", "", "w-0")), 80, NOW)
    row = next(line for part_of in told.parts if isinstance(part_of, list) for line in part_of if "[-, -)" in line)
    assert painted(row, told) == row


def test_a_renewed_lease_is_no_news_for_a_pipe() -> None:
    live = Spaces("here")
    one, other = space(*HALVES), space(*HALVES, workers=[worker("w-0", renewed=OLD), worker("w-1")])
    assert live.gist([one]) == live.gist([other]) != live.gist([space(HALVES[0])])


# ---------------------------------------------------------------------------------------------- the commands


class Terminal:
    """`muster partitions …` at a Site in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.api, self._capsys = Site(), capsys
        monkeypatch.setattr(partitions_cli, "connect", lambda _args: (self.api, "ns"))

    def __call__(self, *arguments: str, status: int = 0) -> str:
        assert cli.main(["partitions", *arguments]) == status
        said = self._capsys.readouterr()
        return said.out + said.err

    def kinds(self) -> list[str]:
        return sorted(obj["spec"]["type"] for obj in self.api.listed(ASSIGNMENTS).values())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    made = Terminal(monkeypatch, capsys)
    made.api.part("p", "", "n", "w-0")
    made.api.part("q", "n", "", "w-0")
    return made


def test_list(terminal: Terminal) -> None:
    assert "2 partitions" in terminal("list")
    as_json, as_yaml = (
        json.loads(terminal("list", "-o", "json")),
        yaml.safe_load(terminal("list", "default", "-o", "yaml")),
    )
    assert as_json == as_yaml and [each["name"] for each in as_json[0]["partitions"]] == ["p", "q"]
    assert "there is no KeySpace other" in terminal("list", "other", status=1)
    assert "--watch shows a table" in terminal("list", "-w", "-o", "yaml", status=2)


def test_who(terminal: Terminal) -> None:
    assert terminal("who", "abcd") == "p [-, n) at w-0, epoch 1\n"
    assert json.loads(terminal("who", "zzzz", "-o", "json"))["name"] == "q"
    assert "KEY is 'z': give exactly 4 characters" in terminal("who", "z", status=1)
    assert "--key-space is 'other'" in terminal("who", "abcd", "--key-space", "other", status=1)
    terminal.api.delete(PARTITIONS, "q", "ns")
    assert "it is in a gap" in terminal("who", "zzzz", status=1)


def test_split(terminal: Terminal) -> None:
    assert terminal("split", "p", "--dry-run").splitlines() == [
        "it would be asked for:",
        "  [-, gn) at w-0",
        "  [gn, n) at w-0",
    ]
    assert terminal.kinds() == []
    said = terminal("split", "--at", "g", "--no-wait")
    assert "split p at g: asked for, Pending" in said and terminal.kinds() == ["InWorkerSplit"]
    assert "was asked for before" in terminal("split", "p", "--at", "g", "--no-wait")
    assert "it is so already" in terminal("split", "--at", "n")
    assert "name the partition, or give --at" in terminal("split", status=2)
    assert "--at is 'G'" in terminal("split", "p", "--at", "G", status=1)
    assert "PARTITION is 'gone'" in terminal("split", "gone", status=1)


def test_merge(terminal: Terminal) -> None:
    assert json.loads(terminal("merge", "p", "q", "--dry-run", "-o", "json"))["after"] == {"[-, -)": "w-0"}
    assert "merge p q: asked for" in terminal("merge", "--from", "", "--no-wait")
    for wrong in ((), ("p", "q", "--from", "")):
        assert "name the partitions, or give --from and --to" in terminal("merge", *wrong, status=2)
    assert "PARTITION ... is 'gone'" in terminal("merge", "p", "gone", status=1)


def test_move_and_new(terminal: Terminal) -> None:
    assert "move p: w-0 → w-1: asked for" in terminal("move", "p", "w-1", "--no-wait")
    assert "WORKER is 'w-9'" in terminal("move", "q", "w-9", status=1)
    assert "worker w-0 serves it: move it" in terminal("new", "q", "w-1", status=1)
    assert "it is so already" in terminal("new", "q", "w-0")
    terminal.api.delete(PARTITIONS, "q", "ns")
    terminal.api.part("q", "n", "")
    assert "give q to w-1: asked for" in terminal("new", "q", "w-1", "--no-wait")
    assert terminal.kinds() == ["InterWorkerMove", "New"]


def test_a_wait_in_vain_and_an_abort(terminal: Terminal) -> None:
    assert "in vain; last seen: Pending" in terminal("move", "p", "w-1", "--timeout", "0.2", status=1)
    (name,) = terminal.api.listed(ASSIGNMENTS)
    assert "it is being undone" in terminal("abort", name)
    assert "OPERATION is 'gone'" in terminal("abort", "gone", status=1)


def test_explain(terminal: Terminal) -> None:
    terminal("move", "p", "w-1", "--no-wait")
    (name,) = terminal.api.listed(ASSIGNMENTS)
    terminal.api.say(name, "Pending", message="Partition p is part of a0, which is not over")
    said = terminal("explain", "p")
    assert "p [-, n) at w-0, epoch 1" in said and "is Pending for" in said and "part of a0" in said
    terminal.api.say(name, "Aborted", message="worker w-1 is lost")
    assert "(move p: w-0 → w-1) was aborted: worker w-1 is lost" in terminal("explain", "p")
    assert json.loads(terminal("explain", "q", "-o", "json"))["worker"]["name"] == "w-0"
    assert "PARTITION is 'gone': there is no such Partition" in terminal("explain", "gone", status=1)


def test_explain_asks_the_assigner(terminal: Terminal) -> None:
    answers = {
        "p": (200, {"why": "worker w-0 has it since epoch 1", "waitsFor": "the budget", "plannedFor": "w-1"}),
        "q": (404, {"error": "no key space that this replica looks after"}),
    }

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            status, body = answers[query["partition"][0]] if query["keySpace"] == ["ns/default"] else (500, {})
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        said = terminal("explain", "p", "--assigner", f"{url}/")
        assert "the assigner: worker w-0 has it since epoch 1" in said
        assert "the assigner plans it for worker w-1" in said and "the assigner waits: the budget" in said
        assert "answers 404: no key space" in terminal("explain", "q", "--assigner", url, status=1)
        server.shutdown()
    assert "does not answer" in terminal("explain", "p", "--assigner", url, status=1)


def test_nothing_is_coloured_in_a_pipe(terminal: Terminal) -> None:
    assert "\x1b" not in terminal("list")

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an application is told of its claim."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Grant
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster import claim
from muster.claim import Claim

SINCE = "2026-11-21T08:00:00Z"
GPU = ("ns/a", Grant("u", {"gpu": 1}, 7, SINCE))
MANY = ("ns/b", Grant("u", {"gpu": 1, "db": 2}, 9, SINCE))
NASTY = ("ns/c", Grant("u", {"it's $(touch x)\n": 1}, 3, SINCE))


def test_one_semaphore_has_its_fields_at_the_top_too() -> None:
    fields = {"semaphore": "ns/a", "resource": "gpu", "resources": {"gpu": 1}, "fence": 7, "since": SINCE}
    assert Claim("pod", (GPU,)).fields() == {**fields, "holder": "pod", "claims": [fields]}


def test_of_several_each_stands_in_the_list_only() -> None:
    told = Claim("pod", (GPU, MANY)).fields()
    assert set(told) == {"holder", "claims"}
    assert [(entry["resource"], entry["resources"]) for entry in told["claims"]] == [
        ("gpu", {"gpu": 1}),
        (None, {"db": 2, "gpu": 1}),
    ]


def test_the_environment_of_one_and_of_several() -> None:
    one = Claim("pod", (MANY,)).environment()
    assert one["DISTRIBUTOR_RESOURCES"] == one["DISTRIBUTOR_1_RESOURCES"] == "db=2,gpu=1"
    assert (one["DISTRIBUTOR_RESOURCE"], one["DISTRIBUTOR_CLAIMS"], one["DISTRIBUTOR_FENCE"]) == ("", "1", "9")
    several = Claim("pod", (GPU, MANY)).environment()
    assert (several["DISTRIBUTOR_CLAIMS"], several["DISTRIBUTOR_2_FENCE"]) == ("2", "9")
    assert "DISTRIBUTOR_FENCE" not in several


@pytest.mark.parametrize("name", ["claim.json", "claim.env"])
@pytest.mark.parametrize("grants", [(GPU,), (GPU, MANY), (NASTY,)])
def test_what_is_written_is_read_back(tmp_path: Path, name: str, grants) -> None:
    told, path = Claim("pod", grants), tmp_path / name
    claim.write(path, told)
    assert claim.fences_in(path) == told.fences
    assert oct(path.stat().st_mode)[-3:] == "644"
    assert list(tmp_path.iterdir()) == [path]


def test_a_shell_reads_any_name_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "claim.env"
    claim.write(path, Claim("pod", (NASTY,)))
    script = f'. {path}; printf %s "$DISTRIBUTOR_RESOURCE"'
    shown = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert shown == "it's $(touch x)\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"claims": [{}]}', '{"claims": [{"semaphore": "a", "fence": "x"}]}', "\x00"]
)
@pytest.mark.parametrize("name", ["claim.json", "claim.env"])
def test_a_file_that_makes_no_sense_tells_nothing(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert claim.fences_in(tmp_path / name) == frozenset()
    assert claim.fences_in(tmp_path / "missing") == claim.fences_in(None) == frozenset()


def test_a_file_that_cannot_be_written_says_which_option(tmp_path: Path) -> None:
    with pytest.raises(MusterError, match=r"missing/claim.json can't be written .*--claim-file"):
        claim.write(tmp_path / "missing" / "claim.json", Claim("pod", (GPU,)))


def test_a_reader_never_sees_a_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "claim.json"
    claim.write(path, Claim("pod", (GPU,)))
    monkeypatch.setattr(os, "replace", lambda *_args: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(MusterError, match="No space left"):
        claim.write(path, Claim("pod", (MANY,)))
    assert json.loads(path.read_text())["fence"] == 7 and list(tmp_path.iterdir()) == [path]

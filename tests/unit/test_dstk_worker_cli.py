# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-worker` at the command line, and what of the worker needs no server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import NotFound
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster.cli import build_parser, main
from muster.dstk.replication import ACTIVE_SECONDS, Acks
from muster.dstk.worker import Settings, Worker
from muster.dstk.worker_cli import _address


def parsed(*arguments: str, **environ: str) -> Any:
    return build_parser(environ, ("partition-worker",)).parse_args(["partition-worker", "run", *arguments])


def test_each_option_has_its_variable() -> None:
    args = parsed(
        POD_NAME="w-3",
        POD_IP="10.1.2.3",
        MUSTER_KEY_SPACE="orders",
        MUSTER_DATA="/data",
        MUSTER_LISTEN="0.0.0.0:8391",
        MUSTER_LEASE_SECONDS="9",
        MUSTER_DRAIN_SECONDS="0",
        MUSTER_TOKEN_FILE="/token",
    )
    assert (args.name, args.key_space, args.data, args.listen) == ("w-3", "orders", Path("/data"), "0.0.0.0:8391")
    assert (args.lease_seconds, args.drain_seconds, args.token_file) == (9, 0.0, Path("/token"))
    assert _address(args.listen, 8391, args.pod_ip) == "http://10.1.2.3:8391"
    assert parsed("--name", "w").drain_seconds == 30.0


@pytest.mark.parametrize(
    ("listen", "pod_ip", "address"),
    [
        ("127.0.0.1:0", "", "http://127.0.0.1:7"),
        ("[::1]:0", "", "http://[::1]:7"),
        ("0.0.0.0:0", "fd00::1", "http://[fd00::1]:7"),
        ("localhost:0", "", "http://localhost:7"),
    ],
)
def test_where_others_reach_it(listen: str, pod_ip: str, address: str) -> None:
    assert _address(listen, 7, pod_ip) == address


@pytest.mark.parametrize(
    "wrong",
    [
        ("--name", ""),
        ("--name", "W"),
        ("--name", "a/b"),
        ("--name", "w", "--key-space", "-"),
        ("--name", "w", "--drain-seconds", "-1"),
        ("--name", "w", "--sweep-seconds", "0"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_option(
    wrong: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["partition-worker", "run", *wrong]) == 1
    assert wrong[-2] in capsys.readouterr().err


def test_its_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["partition-worker", "run", "--help"])
    assert "--drain-seconds" in capsys.readouterr().out


def test_acknowledged_is_what_all_followers_have_asked_beyond() -> None:
    now = [0.0]
    acks = Acks(lambda: now[0])
    assert acks.acknowledged("p", ()) is None and acks.floor("p") is None
    assert acks.acknowledged("p", ("f", "g")) == -1
    acks.polled("p", "f", 7)
    assert acks.acknowledged("p", ("f", "g")) == -1
    acks.loads("p", "g", 5)
    assert acks.acknowledged("p", ("f", "g")) == -1, "it loads: it has nothing yet"
    assert acks.floor("p") == 5, "but it will need the log from there on"
    acks.polled("p", "g", 6)
    assert acks.acknowledged("p", ("f", "g")) == 6 and acks.acknowledged("p", ("f",)) == 7
    acks.loads("p", "f", 9)
    assert acks.acknowledged("p", ("f", "g")) == -1, "what it had it has thrown away"
    now[0] += ACTIVE_SECONDS + 1
    acks.polled("p", "g", 8)
    assert acks.floor("p") == 8, "the other has not asked for long"
    acks.forget("p")
    assert acks.acknowledged("p", ("g",)) == -1


class Answers:
    """Says that it does not find something."""

    def __init__(self, **details: str) -> None:
        self._details = details

    def get(self, *_what: Any) -> Any:
        raise NotFound(404, "NotFound", "not found", details=self._details)


def test_only_the_word_about_this_very_object_has_a_copy_dropped() -> None:
    """A kind that is not served, or a proxy in between, answers 404, too."""
    worker = object.__new__(Worker)
    worker.settings = Settings("w", "default", "ns", "run")
    resource: Any = None
    for api, is_gone in ((Answers(name="p"), True), (Answers(), False), (Answers(name="ns"), False)):
        worker._api = api  # type: ignore[assignment]
        if is_gone:
            assert worker._get(resource, "p") is None
        else:
            with pytest.raises(NotFound):
                worker._get(resource, "p")


def test_a_token_is_read_anew_and_an_empty_one_lets_nobody_in(tmp_path: Path) -> None:
    worker = object.__new__(Worker)
    worker._token = (-1.0, "")
    worker.settings = Settings("w", "default", "ns", "run", tmp_path / "token")
    with pytest.raises(Malformed, match="token file"):
        worker.token()
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(Malformed, match="token file"):
        worker.token()

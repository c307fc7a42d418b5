# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line: what its options and variables mean, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from muster import cli, distributor_cli


def parsed(*arguments: str, **environ: str) -> Any:
    return cli.build_parser(environ).parse_args(["distributor", *arguments])


def wishes(*arguments: str, **environ: str) -> dict[str, Any]:
    args = parsed("run", *arguments, **environ)
    return distributor_cli.parse_wishes(args.configmap, args.resource)


# ------------------------------------------------------------------------------------------ what is wanted


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), {"distributor": {ANY: 1}}),
        (("--configmap", "a"), {"a": {ANY: 1}}),
        (("--configmap", "a:gpu"), {"a": {"gpu": 1}}),
        (("--configmap", "a:gpu=2,db"), {"a": {"gpu": 2, "db": 1}}),
        (("--configmap", "a", "--configmap", "b:db"), {"a": {ANY: 1}, "b": {"db": 1}}),
        (("--configmap", "a", "--configmap", "b:db", "--resource", "gpu=2"), {"a": {"gpu": 2}, "b": {"db": 1}}),
        (("--resource", "gpu", "--resource", "db=3"), {"distributor": {"gpu": 1, "db": 3}}),
    ],
)
def test_wants(arguments: tuple[str, ...], expected: dict[str, Any]) -> None:
    assert wishes(*arguments) == expected


def test_variables_say_the_same_and_options_come_first() -> None:
    environ = {"MUSTER_CONFIGMAP": "a:gpu=2,db\n b", "MUSTER_RESOURCE": "x,y=2"}
    assert wishes(**environ) == {"a": {"gpu": 2, "db": 1}, "b": {"x": 1, "y": 2}}
    assert wishes("--configmap", "c", **environ) == {"c": {"x": 1, "y": 2}}
    assert wishes("--configmap", "c", "--resource", "z", **environ) == {"c": {"z": 1}}
    assert wishes(MUSTER_CONFIGMAP="", MUSTER_RESOURCE="") == {"distributor": {ANY: 1}}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--configmap", "a:"), "--configmap is 'a:'.*NAME:WANT"),
        (("--configmap", ":gpu"), "--configmap is ':gpu'"),
        (("--configmap", "A b"), "--configmap is 'A b'"),
        (("--configmap", "a:gpu", "--configmap", "a:db"), "--configmap is 'a'.*a:WANT,WANT"),
        (("--configmap", "a:gpu,gpu"), "resource"),
        (("--configmap", "a:gpu=0"), "resource"),
        (("--configmap", "a:,"), "resource"),
        (("--resource", "gpu=99999999999"), "resource"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused_by_name(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(Malformed, match=says):
        wishes(*arguments)


# ------------------------------------------------------------------------------------------ variables


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("MUSTER_LEASE", "soon"),
        ("MUSTER_ANNOTATE_POD", "maybe"),
        ("MUSTER_ENGINE", "steam"),
        ("MUSTER_PRIORITY", "1.5"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(variable: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("run", **{variable: text})
    assert ended.value.code == 2
    assert variable in capsys.readouterr().err


def test_switches_by_variable_and_back() -> None:
    assert parsed("run").annotate_pod is False
    assert parsed("run", MUSTER_ANNOTATE_POD="true").annotate_pod is True
    assert parsed("run", "--no-annotate-pod", MUSTER_ANNOTATE_POD="yes").annotate_pod is False


# ------------------------------------------------------------------------------------------ exec


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (("--lease", "60", "--", "sh", "-c", "x", "--lease", "5"), ["--", "sh", "-c", "x", "--lease", "5"]),
        (("--lease", "60", "./deploy.sh", "-v", "--", "y"), ["./deploy.sh", "-v", "--", "y"]),
    ],
)
def test_all_behind_the_options_is_the_command(arguments: tuple[str, ...], command: list[str]) -> None:
    args = parsed("exec", *arguments)
    assert (args.command, args.lease) == (command, 60)


@pytest.mark.parametrize(
    ("arguments", "grace"),
    [((), 10.0), (("--lease", "600"), 10.0), (("--lease", "15"), 5.0), (("--lease", "15", "--grace", "3"), 3.0)],
)
def test_the_grace_fits_into_the_lease(arguments: tuple[str, ...], grace: float) -> None:
    assert distributor_cli._grace(parsed("exec", *arguments, "--", "true")) == grace


@pytest.mark.parametrize("arguments", [("--lease", "15", "--grace", "6"), ("--grace", "-1"), ("--grace", "nan")])
def test_a_grace_that_does_not_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(Malformed, match="--grace"):
        distributor_cli._grace(parsed("exec", *arguments, "--", "true"))


# ------------------------------------------------------------------------------------------ help


@pytest.mark.parametrize("command", ["run", "exec", "once", "status"])
def test_help_fits_a_terminal_and_names_each_variable(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        parsed(command, "--help")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "exit status" in text
    assert "MUSTER_CONFIGMAP" in text and "KUBECONFIG" in text

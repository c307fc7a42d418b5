# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `allocator`: what it asks, prints and refuses, how it ends, and what shells complete with its script."""

from __future__ import annotations

import argparse
import io
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.client import allocator as clients
from ansible_collections.muster.coordination.plugins.module_utils.client.allocator import (
    Put,
    Removed,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.tests.support.scripted_server import (
    Exchange,
    Line,
    ScriptedServer,
    hang,
    reset,
    say,
    stream,
)
from muster.allocator import client_cli, client_picture
from muster.allocator.client_completion import script
from muster.options import WrongUsage

LONG = 60  # seconds: a deadline for what takes a moment
ROOT = Path(__file__).parents[2]


def instance(name: str = "kv-1", **more: Any) -> dict[str, Any]:
    told = {"name": name, "owner": "alice", "access": {"users": [], "groups": []}, "phase": "Ready", "message": ""}
    told |= {"created": "2026-01-31T12:00:00Z", "parameters": {}, "storage": "delete", "suspended": False, "resets": 0}
    return {**told, "attach": "", "template": "t", "objects": [], "endpoints": [], "key": "k", **more}


OFFER = {
    "name": "alloc",
    "template": {"digest": "d", "version": "1", "kinds": ["Deployment", "Service"]},
    "parameters": {
        "colour": {"type": "string", "default": "red", "enum": ["red", "blue"], "description": "Of its hat."},
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "limit": 2,
    "used": 1,
    "global_limit": 10,
    "has_disk": True,
    "caller": {"name": "alice", "groups": [], "is_administrator": False},
}


def problem(word: str, status: int, detail: str = "as the script says", **more: Any) -> Line:
    document = {"type": f"urn:muster:allocator:{word}", "title": "t", "status": status, "detail": detail, **more}
    return say(status, document, Content_Type="application/problem+json", Retry_After="0")


def changes(*events: tuple[str, dict[str, Any] | None]) -> Line:
    return stream(*({"type": kind, "instance": each} for kind, each in events), hang)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(clients, "PAUSES", (0.001, 0.002))
    monkeypatch.setattr(clients, "LOOK_SECONDS", 0.01)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ALLOCATOR_TOKEN", "very-secret")
    for name in ("KUBECONFIG", "ALLOCATOR", "ALLOCATOR_TOKEN_FILE", "ALLOCATOR_CA_FILE", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(signal, "signal", lambda *_args: before)  # tests are run in threads of others


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command on a server; its exit status, and what it said on both outputs."""

    def run(server: ScriptedServer | None, *arguments: str) -> tuple[int, str, str]:
        where = ("--allocator", server.url) if server else ()
        try:
            status = client_cli.main([*where, *arguments])
        except SystemExit as ended:
            status = int(str(ended.code))
        out, err = capsys.readouterr()
        return status, out, err

    return run


# ------------------------------------------------------------------------------------------ create


def test_create_prints_the_name_and_nothing_else(run: Run) -> None:
    with ScriptedServer(say(201, instance())) as server:
        assert run(server, "create") == (0, "kv-1\n", "")
    assert server.requests[0].json() == {}
    assert len(server.requests[0].headers["Idempotency-Key"]) == 32
    assert server.requests[0].headers["Authorization"] == "Bearer very-secret"


def test_create_says_all_that_was_said(run: Run) -> None:
    options = ["--param", "size=3", "--param", "colour=blue", "--key", "ci 1", "--attach", "d", "--storage", "retain"]
    options += ["--share-with", "user:bob", "--share-with", "group:a:b", "--share-with", "user:carol", "-o", "json"]
    with ScriptedServer(say(200, OFFER), say(200, instance())) as server:
        status, out, err = run(server, "create", *options)
    assert (status, json.loads(out), err) == (0, instance(), "allocator: kv-1 was there already, by this key\n")
    assert server.requests[1].headers["Idempotency-Key"] == "ci 1"
    assert server.requests[1].json() == {
        "parameters": {"size": 3, "colour": "blue"},
        "access": {"users": ["bob", "carol"], "groups": ["a:b"]},
        "storage": "retain",
        "attach": "d",
    }


def test_a_dry_run_makes_nothing_and_says_so(run: Run) -> None:
    with ScriptedServer(say(201, instance())) as server:
        status, out, err = run(server, "create", "--dry-run", "--wait")
    assert (status, out, err) == (0, "kv-1\n", "allocator: nothing was made: kv-1 could be\n")
    assert server.requests[0].path == "/v1/instances?dryRun=true"


def test_create_waits_until_it_is_ready(run: Run) -> None:
    states = [("ADDED", instance(phase="Pending")), ("BOOKMARK", None)]
    states += [("MODIFIED", instance(phase="Creating", message="no Pod yet")), ("MODIFIED", instance())]
    with ScriptedServer(say(201, instance(phase="Pending")), changes(*states)) as server:
        status, out, err = run(server, "create", "--wait")
    assert (status, out) == (0, "kv-1\n")
    assert err.splitlines() == ["kv-1: Pending", "kv-1: Creating, no Pod yet", "kv-1: Ready"]


def test_a_wait_in_vain_has_a_status_of_its_own(run: Run) -> None:
    states = [("ADDED", instance(phase="Creating")), ("BOOKMARK", None)]
    with ScriptedServer(say(201, instance()), changes(*states)) as server:
        status, out, err = run(server, "create", "--wait", "--timeout", "2")
    assert (status, out) == (5, "kv-1\n")
    assert "to be Ready in vain; last seen: Creating" in err


def test_a_lost_answer_tells_the_key(run: Run) -> None:
    with ScriptedServer(reset) as server:
        status, out, err = run(server, "create", "--patience", "0", "--key", "it's")
    assert (status, out) == (1, "")
    assert "was lost" in err and """`allocator create --key 'it'"'"'s'` with the same options goes on with it""" in err
    with ScriptedServer(problem("overloaded", 503)) as server:
        err = run(server, "create", "--patience", "0")[2]
    assert server.requests[0].headers["Idempotency-Key"] in err


def test_what_is_tried_again_is_told_once(run: Run) -> None:
    with ScriptedServer(*[problem("overloaded", 503, "too much")] * 3, say(201, instance())) as server:
        assert run(server, "create") == (0, "kv-1\n", "allocator: too much; trying again\n")


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ctrl-C, and as a person does, once more where Python has lost it in somebody's destructor."""
    for _try in range(20):
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=LONG / 20)
    raise AssertionError("it goes on")


def test_ctrl_c_tells_the_key() -> None:
    arrived = threading.Event()

    def arrive(exchange: Exchange) -> None:
        arrived.set()
        hang(exchange)

    with ScriptedServer(arrive) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "muster.allocator.client_cli", "--allocator", server.url, "create", "--wait"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "ALLOCATOR_TOKEN": "very-secret"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        try:
            assert arrived.wait(LONG)
            out, err = interrupted(process)
        finally:
            process.kill()
        key = server.requests[0].headers["Idempotency-Key"]
    assert (process.returncode, out) == (130, "")
    assert f"perhaps it was made, perhaps not: `allocator create --key {key}`" in err
    assert "Traceback" not in err and "very-secret" not in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--param", "size"], "--param is 'size': give NAME=VALUE"),
        (["--param", "=3"], "--param is '=3': give NAME=VALUE"),
        (["--param", "a=1", "--param", "a=2"], "--param gives a twice"),
        (["--share-with", "bob"], "--share-with is 'bob': give user:NAME or group:NAME"),
        (["--share-with", "user:"], "--share-with is 'user:'"),
        (["--timeout", "-1"], "argument --timeout: invalid"),
        (["--timeout", "nan"], "argument --timeout: invalid"),
        (["--storage", "burn"], "argument --storage: invalid choice: 'burn'"),
    ],
)
def test_wrong_usage_is_named(run: Run, options: list[str], says: str) -> None:
    with ScriptedServer() as server:
        status, out, err = run(server, "create", *options)
    assert (status, out) == (2, "") and says in err


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("taste=1", "--param is 'taste': leave it out: the template has the parameters colour, size"),
        ("size=many", "--param.size is 'many': give a whole number"),
        ("size=10", "--param.size is 10: give at most 9"),
        ("colour=green", "--param.colour is 'green': give one of red, blue"),
    ],
)
def test_a_parameter_that_does_not_fit_is_named(run: Run, option: str, says: str) -> None:
    with ScriptedServer(say(200, OFFER)) as server:
        status, out, err = run(server, "create", "--param", option)
    assert (status, out) == (1, "") and says in err


def test_a_key_that_is_none_is_refused(run: Run) -> None:
    with ScriptedServer() as server:
        status, _out, err = run(server, "create", "--key", "")
    assert status == 1 and "Idempotency-Key is ''" in err


# ------------------------------------------------------------------------------------------ how it ends


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (problem("quota", 403, "2 of 2", limit=2, used=2, scope="owner"), 3),
        (problem("not-found", 404), 4),
        (problem("not-owner", 403), 1),
        (problem("malformed", 400), 1),
        (problem("unauthenticated", 401), 1),
        (say(404, b"<html>"), 1),
    ],
)
def test_exit_statuses(run: Run, line: Line, status: int) -> None:
    with ScriptedServer(line) as server:
        ended, out, err = run(server, "destroy", "kv-1")
    assert (ended, out) == (status, "") and err.startswith("allocator: ")


def test_no_allocator_and_no_token_are_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _out, err = run(None, "list")
    assert status == 2 and "--allocator is missing: give the allocator's URL" in err
    monkeypatch.delenv("ALLOCATOR_TOKEN")
    status, _out, err = run(None, "--allocator", "https://127.0.0.1:1", "list")
    assert status == 1 and "no token: give --token-file or the variable ALLOCATOR_TOKEN" in err


# ------------------------------------------------------------------------------------------ the other commands


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["destroy", "kv-1"], "DELETE /v1/instances/kv-1"),
        (["destroy", "kv-1", "--keep-disk"], "DELETE /v1/instances/kv-1?storage=retain"),
        (["suspend", "kv-1"], "POST /v1/instances/kv-1:suspend"),
        (["resume", "kv-1"], "POST /v1/instances/kv-1:resume"),
        (["disks", "remove", "d"], "DELETE /v1/disks/d"),
    ],
)
def test_what_is_done_says_nothing(run: Run, arguments: list[str], asked: str) -> None:
    with ScriptedServer(say(202, instance())) as server:
        assert run(server, *arguments) == (0, "", "")
    assert [f"{request.method} {request.path}" for request in server.requests] == [asked]


def test_a_reset_is_of_what_was_seen(run: Run) -> None:
    lines = [
        say(200, instance(resets=3)),
        say(202, instance(resets=4)),
        changes(("ADDED", instance(resets=3)), ("BOOKMARK", None), ("MODIFIED", instance(resets=4))),
    ]
    with ScriptedServer(*lines) as server:
        assert run(server, "reset", "kv-1", "--wait") == (0, "", "kv-1: Ready\n")
    assert server.requests[1].json() == {"resets": 3}


def test_who_waits_for_the_end_sees_it(run: Run) -> None:
    states = [("ADDED", instance(phase="Destroying")), ("BOOKMARK", None), ("DELETED", instance(phase="Destroying"))]
    with ScriptedServer(say(202, instance()), changes(*states)) as server:
        assert run(server, "destroy", "kv-1", "--wait") == (0, "", "kv-1: Destroying\n")


def test_lists(run: Run) -> None:
    both = [
        instance(),
        instance("kv-2", phase="Creating", message="no Pod yet", access={"users": ["b"], "groups": ["g"]}),
    ]
    both[1] |= {"parameters": {"size": 3}, "endpoints": [{"service": "kv-2", "port": 80, "name": ""}]}
    page = say(200, {"items": both, "continue": ""})
    with ScriptedServer(page, page, page, page, say(200, {"items": []})) as server:
        text = run(server, "list")[1].splitlines()
        assert text[0].split() == ["NAME", "PHASE", "AGE", "MESSAGE"]
        assert text[2].split()[:2] == ["kv-2", "Creating"] and text[2].endswith("no Pod yet")
        long = run(server, "list", "-l", "--all")[1].splitlines()
        assert long[0].split()[3:] == ["OWNER", "SHARED-WITH", "PARAMETERS", "ENDPOINTS", "DISK", "MESSAGE"]
        assert "user:b group:g   size=3       kv-2:80" in long[2]
        assert run(server, "list", "-o", "name") == (0, "kv-1\nkv-2\n", "")
        assert json.loads(run(server, "list", "-o", "json")[1]) == both
        assert run(server, "list") == (0, "no instances\n", "")
    assert server.requests[1].path.endswith("&all=true")


def test_one_instance(run: Run) -> None:
    told = instance(message="fine", attach="d", resets=2, parameters={"size": 3}, storage="retain")
    with ScriptedServer(say(200, told), say(200, told)) as server:
        text = run(server, "get", "kv-1")[1]
        assert json.loads(run(server, "get", "kv-1", "-o", "json")[1]) == told
    for part in (
        "name:        kv-1",
        "phase:       Ready: fine",
        "parameters:  size=3",
        "attached:    d",
        "resets:      2",
    ):
        assert part in text
    assert "shared with" not in text and "kept when it is destroyed" in text


def test_events_disks_and_the_offer(run: Run) -> None:
    event = {
        "time": "2026-01-31T12:00:00Z",
        "type": "Normal",
        "reason": "Pulled",
        "object": "Pod p",
        "message": "m\x1b",
    }
    disk = {"name": "d", "size": "50G", "created": "2026-01-31T12:00:00Z"}
    events, disks, none = (say(200, {"items": each}) for each in ([event], [disk], []))
    with ScriptedServer(events, none, disks, disks, none, say(200, OFFER), say(200, OFFER)) as server:
        text = run(server, "events", "kv-1")[1]
        assert text.splitlines()[1].split() == ["2026-01-31T12:00:00Z", "Normal", "Pulled", "Pod", "p", "m?"]
        assert run(server, "events", "kv-1") == (0, "no events\n", "")
        assert run(server, "disks")[1].splitlines()[1].split()[:2] == ["d", "50G"]
        assert run(server, "disks", "-o", "name") == (0, "d\n", "")
        assert run(server, "disks") == (0, "no disks that you have kept\n", "")
        text = run(server, "offer")[1]
        assert run(server, "offer", "-o", "name") == (0, "colour\nsize\n", "")
    assert "You are alice, and have 1 of at most 2 instances." in text
    assert [line.split() for line in text.splitlines()[3:6]] == [
        ["PARAMETER", "TYPE", "DEFAULT", "VALUES"],
        ["colour", "string", "red", "red,", "blue"],
        ["size", "integer", "needed", "1", "or", "more,", "9", "or", "less"],
    ]
    assert "colour: Of its hat." in text


def test_disks_remove_needs_a_name(run: Run) -> None:
    with ScriptedServer() as server:
        assert run(server, "disks", "remove")[0] == 2


# ------------------------------------------------------------------------------------------ which allocator, and who


@pytest.mark.parametrize(
    ("text", "namespace", "url"),
    [
        ("https://a.example.com/x/", None, "https://a.example.com/x"),
        ("syncbase-allocator", None, "http://syncbase-allocator:8400"),
        ("syncbase-allocator", "sync", "http://syncbase-allocator.sync.svc:8400"),
        ("syncbase-allocator.base", "sync", "http://syncbase-allocator.base.svc:8400"),
        ("syncbase-allocator.base.svc", None, "http://syncbase-allocator.base.svc:8400"),
    ],
)
def test_a_name_is_a_service_in_a_pod(text: str, namespace: str | None, url: str) -> None:
    assert client_cli.resolve(text, namespace, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == url


def test_a_name_is_nothing_elsewhere_and_the_remedy_is_said() -> None:
    with pytest.raises(Malformed, match=r"kubectl port-forward service/a 8400 -n b` and give http://127\.0\.0\.1:8400"):
        client_cli.resolve("a.b", None, {})
    for text in ("a b", "a/b", "-", "a.b.c", "ä"):
        with pytest.raises(Malformed, match="--allocator is "):
            client_cli.resolve(text, None, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    with pytest.raises(WrongUsage):
        client_cli.resolve("", None, {})


def test_options_stand_before_and_after_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").write_text("one")
    (tmp_path / "two").write_text("two")
    empty = say(200, {"items": []})
    with ScriptedServer(empty, empty, empty) as server:
        monkeypatch.setenv("ALLOCATOR", "http://127.0.0.1:1")
        monkeypatch.setenv("ALLOCATOR_TOKEN_FILE", str(tmp_path / "two"))
        assert run(server, "--token-file", str(tmp_path / "one"), "list")[0] == 0
        assert run(None, "list", "--allocator", server.url, f"--token-file={tmp_path / 'one'}")[0] == 0
        monkeypatch.setenv("ALLOCATOR", server.url)
        assert run(None, "list")[0] == 0
    assert [request.headers["Authorization"] for request in server.requests] == [
        "Bearer one",
        "Bearer one",
        "Bearer two",
    ]


def test_the_token_of_a_kubeconfig(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALLOCATOR_TOKEN")
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1"}}],
        "users": [{"name": "u", "user": {"token": "of-the-kubeconfig"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    with ScriptedServer(say(200, {"items": []})) as server:
        assert run(server, "list", "--kubeconfig", str(tmp_path / "config"))[0] == 0
    assert server.requests[0].headers["Authorization"] == "Bearer of-the-kubeconfig"
    status, _out, err = run(None, "--allocator", "http://10.0.0.9", "list", "--kubeconfig", str(tmp_path / "config"))
    assert status == 1 and "is not sent to http://10.0.0.9" in err and "of-the-kubeconfig" not in err


def test_it_is_also_a_system_of_muster() -> None:
    parser = argparse.ArgumentParser(prog="muster")
    client_cli.add(parser.add_subparsers(), {"ALLOCATOR": "http://a"})
    args = parser.parse_args(["allocator", "get", "kv-1", "--ca-file", "/ca"])
    assert (args.allocator, args.name, args.ca_file, args.token_file) == ("http://a", "kv-1", "/ca", None)


# ------------------------------------------------------------------------------------------ live


def test_a_watch_in_a_pipe_tells_each_change(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [
        Snapshot([instance()]),
        Put(instance(phase="Suspended")),
        Trouble(MusterError("lost\x1b")),
        Removed(instance()),
    ]
    real = client_cli._taken

    def one_by_one(_inbox: Any) -> list[Any]:
        if not told:
            raise KeyboardInterrupt
        inbox: Any = queue.SimpleQueue()
        inbox.put(told.pop(0))
        return real(inbox)

    monkeypatch.setattr(client_cli, "_taken", one_by_one)
    monkeypatch.setattr(clients.AllocatorClient, "watch", lambda *_args, **_more: iter(()))
    assert client_cli.main(["--allocator", "http://127.0.0.1:1", "list", "--watch", "-o", "json"]) == 0
    out, err = capsys.readouterr()
    states = [[each["phase"] for each in json.loads(line)["instances"]] for line in out.splitlines()]
    assert states == [["Ready"], ["Suspended"], []]
    assert "lost?" in err


def test_a_watch_that_is_refused_ends(run: Run) -> None:
    with ScriptedServer(problem("not-administrator", 403)) as server:
        status, _out, err = run(server, "list", "--watch", "--all")
    assert status == 1 and err == "allocator: as the script says\n"
    assert server.requests[0].path == "/v1/instances?watch=true&all=true"


def test_the_picture_fits() -> None:
    picture = client_picture.Picture()
    found = [instance(f"kv-{number}", message="x" * 100) for number in range(20)]
    picture.take(found, 0.0)
    lines = picture.lines(60, 10, 1_800_000_000.0, "trouble")
    assert len(lines) <= 10 and max(map(len, lines)) <= 60
    assert lines[0] == "Instances: 20, 20 ready" and any("more" in line for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_wait_on_a_terminal_is_one_line() -> None:
    out = Terminal()
    with client_picture.Waiting(out) as waiting:
        waiting.tell(instance(phase="Creating", message="no Pod yet\n" + "x" * 200))
        waiting.tell(instance())
    text = out.getvalue()
    assert "\n" not in text and text.count("\r") == 3 and text.endswith("\r\033[K")
    assert max(len(part) for part in text.split("\r")) <= 80 + len("\033[K")


# ------------------------------------------------------------------------------------------ help, completion


COMMANDS = ("create", "destroy", "list", "get", "suspend", "resume", "reset", "events", "disks", "offer", "completion")


@pytest.mark.parametrize("command", ("", *COMMANDS))
def test_help_fits_a_terminal_and_tells_the_exit_status(run: Run, command: str) -> None:
    status, text, _err = run(None, *filter(None, [command]), "--help")
    assert status == 0 and max(map(len, text.splitlines())) <= 80
    assert "exit status:" in text and "{prog}" not in text
    if command != "completion":
        assert "[ALLOCATOR]" in text and "[ALLOCATOR_TOKEN_FILE]" in text


FAKE = """#!/bin/sh
echo "$@" >> "$ASKED"
case "$*" in
    *"list -o name") echo kv-1; echo kv-2; echo other ;;
    *"disks -o name") echo disk-1 ;;
    *"offer -o name") echo colour; echo size ;;
esac
"""
DRIVER = """
source "$1"
COMP_LINE="$2" COMP_POINT=${#2} COMPREPLY=()
compopt() { echo "compopt $*" >&2; }
_allocator
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(tmp_path: Path, run: Run) -> Callable[[str], list[str]]:
    """What bash would offer for a line."""
    (tmp_path / "script").write_text(run(None, "completion", "bash")[1])
    (tmp_path / "allocator").write_text(FAKE)
    (tmp_path / "allocator").chmod(0o755)

    def complete(line: str) -> list[str]:
        done = subprocess.run(
            ["bash", "--norc", "-c", DRIVER, "bash", str(tmp_path / "script"), line],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "ASKED": str(tmp_path / "asked")},
            capture_output=True,
            text=True,
            timeout=LONG,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return complete


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("allocator ", list(COMMANDS)),
        ("allocator re", ["resume", "reset"]),
        ("allocator --allocator http://a:8400 re", ["resume", "reset"]),
        ("allocator --pa", ["--patience"]),
        ("allocator --allocator ", []),
        ("allocator get ", ["kv-1", "kv-2", "other"]),
        ("allocator get kv", ["kv-1", "kv-2"]),
        ("allocator suspend --wait kv", ["kv-1", "kv-2"]),
        ("allocator suspend --timeout 5 o", ["other"]),
        ("allocator disks ", ["remove", "disk-1"]),
        ("allocator disks remove d", ["disk-1"]),
        ("allocator create --param ", ["colour=", "size="]),
        ("allocator create --param=c", ["colour="]),
        ("allocator create --attach ", ["disk-1"]),
        ("allocator create --st", ["--storage"]),
        ("allocator create --storage ", ["delete", "retain"]),
        ("allocator create --storage=r", ["retain"]),
        ("allocator create --storage retain --sh", ["--share-with"]),
        ("allocator create ", []),
        ("allocator list -o ", ["table", "json", "name"]),
        ("allocator get -o ", ["text", "json"]),
        ("allocator offer --output=", ["text", "json", "name"]),
        ("allocator completion ", ["bash", "zsh", "fish"]),
        ("allocator completion z", ["zsh"]),
        ("allocator list ", []),
        ("allocator list *", []),
    ],
)
def test_bash_completes(complete: Callable[[str], list[str]], line: str, offered: list[str]) -> None:
    assert complete(line) == offered


def test_bash_asks_the_allocator_that_the_line_names(complete: Callable[[str], list[str]], tmp_path: Path) -> None:
    complete("allocator --allocator http://127.0.0.1:8400 get --token-file=/tmp/t ")
    asked = (tmp_path / "asked").read_text()
    assert asked == "--patience 0 --allocator http://127.0.0.1:8400 --token-file /tmp/t list -o name\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_knows_each_command_and_option(shell: str) -> None:
    parser = argparse.ArgumentParser(prog="allocator")
    client_cli._fill(parser, "allocator", {})
    text = script(shell, parser)
    for word in (*COMMANDS, "--keep-disk", "--param", "--token-file", "--share-with"):
        assert (f"-l {word[2:]}" if shell == "fish" and word.startswith("--") else word) in text
    assert "--delete-disk" not in text and "-l delete-disk" not in text

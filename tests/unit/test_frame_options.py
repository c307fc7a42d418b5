# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of an operator: what they mean, and what they refuse."""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.tests.support.memory_api import MemoryApi
from muster.frame import options
from muster.frame.leader import Leader
from muster.frame.options import FrameOptions
from muster.frame.shards import Shards
from muster.options import Help


def parser(**environ: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="muster thing run", formatter_class=Help)
    FrameOptions(made, environ).cluster().controller("things")
    return made


def parsed(*arguments: str, **environ: str) -> Any:
    return parser(**environ).parse_args(arguments)


def thing(name: str = "a", namespace: str | None = "ns", **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels, **({"namespace": namespace} if namespace else {})}}


@pytest.mark.parametrize(
    ("shard_by", "obj", "key"),
    [
        ("namespace", thing(), "ns"),
        ("namespace", thing(namespace=None), "a"),
        ("object", thing(), "ns/a"),
        ("label:team", thing(team="red"), "red"),
        ("label:team", thing(), "ns/a"),
    ],
)
def test_by_what_objects_are_sharded(shard_by: str, obj: dict[str, Any], key: str) -> None:
    assert options.key_of(shard_by)(obj) == key


@pytest.mark.parametrize("text", ["", "team", "label", "label:", "labels:x"])
def test_a_sharding_by_what_there_is_not_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="--shard-by"):
        options.key_of(text)


@pytest.mark.parametrize(
    ("arguments", "pod", "layout"),
    [
        ((), "vm-x", Layout("stable", 64)),
        (("--shards", "7"), "vm-x", Layout("stable", 7)),
        (("--shard-strategy", "pod-num", "--replicas", "3"), "vm-2", Layout("pod-num", 3)),
    ],
)
def test_layouts(arguments: tuple[str, ...], pod: str, layout: Layout) -> None:
    assert options.layout(parsed(*arguments), Identity(pod, "u", "r")) == layout


@pytest.mark.parametrize(
    ("arguments", "pod", "says"),
    [
        (("--shards", "0"), "vm-0", "--shards"),
        (("--shards", "1025"), "vm-0", "--shards"),
        (("--shard-strategy", "pod-num"), "vm-0", "--replicas"),
        (("--shard-strategy", "pod-num", "--replicas", "0"), "vm-0", "--replicas"),
        (("--shard-strategy", "pod-num", "--replicas", "3"), "vm-x7f2", "StatefulSet"),
    ],
)
def test_layouts_that_make_no_sense_are_refused(arguments: tuple[str, ...], pod: str, says: str) -> None:
    with pytest.raises(Malformed, match=says):
        options.layout(parsed(*arguments), Identity(pod, "u", "r"))


def test_in_a_pod_it_is_that_pod_and_its_container() -> None:
    api: Any = MemoryApi()
    uid = api.pod("vm-0")
    me = options.identity(parsed(POD_NAME="vm-0", CONTAINER_NAME="operator"), api, "ns")
    assert (me.pod, me.uid, me.container) == ("vm-0", uid, "operator")
    assert options.identity(parsed(POD_NAME="vm-0", POD_UID="u-1"), api, "ns").uid == "u-1"
    with pytest.raises(Malformed, match="POD_NAME is 'vm-9'"):
        options.identity(parsed(POD_NAME="vm-9"), api, "ns")


def test_outside_of_pods_each_process_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.socket, "gethostname", lambda: "My_Laptop.local")
    api: Any = MemoryApi()
    first, second = (options.identity(parsed(POD_NUM="2"), api, "ns") for _process in range(2))
    assert first.pod == second.pod == "my-laptop.local-2"
    assert first.uid != second.uid and first.container == ""


def test_the_kernel_says_when_the_process_was_started() -> None:
    started = options.process_started()
    assert started is not None and time.time() - 86400 < started <= time.time() + 1
    child = os.fork()
    if not child:
        later = options.process_started()
        os._exit(0 if later is not None and later >= started else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_leader_or_shards() -> None:
    class WithCredentials(MemoryApi):
        credentials: Any = None

    api: Any = WithCredentials()
    me = Identity("vm-0", "u", "r")
    assert isinstance(options.authority(parsed(), api, "ns", me), Leader)
    assert isinstance(options.authority(parsed(MUSTER_REPLICAS_MODE="shard"), api, "ns", me), Shards)
    with pytest.raises(Malformed, match="lease seconds"):
        options.authority(parsed("--lease-seconds", "0"), api, "ns", me)


def test_its_namespace_is_the_one_given_else_its_pods_else_that_of_the_credentials() -> None:
    assert options.own_namespace(parsed("--namespace", "a"), "c", {"POD_NAMESPACE": "b"}) == "a"
    assert options.own_namespace(parsed(), "c", {"POD_NAMESPACE": "b"}) == "b"
    assert options.own_namespace(parsed(), "c", {}) == "c"


def test_help_fits_a_terminal_and_names_each_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = parser().format_help()
    assert max(map(len, text.splitlines())) <= 80
    for variable in ("MUSTER_REPLICAS_MODE", "MUSTER_SHARD_BY", "POD_NAME", "CONTAINER_NAME", "MUSTER_LEASE_SECONDS"):
        assert variable in text

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents in which partitions were first described, as they stand there but for the group of their kinds.

Real workers and a real reconciler at a real API server take each to the state that was shown for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import operations
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import partitions as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import ASSIGNMENTS, PARTITIONS
from ansible_collections.muster.coordination.tests.support.partition_site import Site

pytestmark = pytest.mark.integration

Object = dict[str, Any]
RESOURCES = {"Partition": PARTITIONS, "Assignment": ASSIGNMENTS}

PART = """
kind: Partition
metadata: {name: part1}
spec:
  range:
    start: a
    end: o
"""

NEW = """
kind: Assignment
metadata: {name: a1}
spec:
  type: New
  newParams:
    partition: part1
    primary: pod1
"""

SPLIT = """
kind: Assignment
metadata: {name: s1}
spec:
  type: InWorkerSplit
  splitParams:
    partition: part1
    splitKey: e
"""

MERGE = """
kind: Assignment
metadata: {name: m1}
spec:
  type: InWorkerMerge
  mergeParams:
    partitions: [part1, part2]
"""

MOVE = """
kind: Assignment
metadata: {name: v1}
spec:
  type: InterWorkerMove
  moveParams:
    partition: part1
    from: pod1
    to: pod2
"""


@pytest.fixture
def site(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[Site]:
    made = Site(api, namespace, kubeconfig, tmp_path, graceSeconds=0.3)
    for name in ("pod1", "pod2"):
        made.worker(name)
    made.reconciler()
    yield made
    made.close()


def apply(site: Site, document: str, **names: list[str]) -> Object:
    """Create it as kubectl does."""
    obj = yaml.safe_load(document)
    resource = RESOURCES[obj["kind"]]
    obj = {"apiVersion": resource.api_version, **obj}
    obj["metadata"]["namespace"] = site.namespace
    if names:
        obj["spec"]["mergeParams"] = names
    return site.api.create(resource, obj)


def has_part(site: Site, name: str, start: str, end: str, worker: str = "pod1") -> None:
    """A Partition that a worker serves."""
    site.partition(name, start, end)
    site.ends(site.assignment("New", partition=name, primary=worker))


def told(site: Site, created: Object, word: str) -> list[Object]:
    """What the Assignment said of itself since it was created, each only once."""
    name, said = created["metadata"]["name"], []
    version = created["metadata"]["resourceVersion"]
    for kind, obj in site.api.watch(ASSIGNMENTS, site.namespace, resource_version=version, timeout=1):
        document = (obj.get("status") or {}).get(word)
        if kind != "BOOKMARK" and obj["metadata"]["name"] == name and document and document not in said:
            said.append(document)
    return said


def part(site: Site, name: str) -> Object:
    return site.api.get(PARTITIONS, name, site.namespace)


def test_a_new_partition_gets_the_worker_that_was_assigned(site: Site) -> None:
    apply(site, PART)
    assert part(site, "part1")["spec"]["primary"] == ""
    created = apply(site, NEW)
    ended = site.ends(created)
    assert ended["status"]["new"] == {"status": "completed"}
    ready = part(site, "part1")
    assert (ready["spec"]["primary"], ready["spec"]["range"]) == ("pod1", {"start": "a", "end": "o"})
    assert ready["status"]["phase"] == "Ready"


def test_a_split(site: Site) -> None:
    has_part(site, "part1", "a", "o")
    created = apply(site, SPLIT)
    ended = site.ends(created)
    first, second = (each["partition"] for each in ended["status"]["results"])
    said = told(site, created, "split")
    assert said[-1] == {
        "status": "completed",
        "fromPart": "disconnected",
        "splits": {first: "primary", second: "primary"},
    }
    order = ["loading", "following", "completed"]
    assert [each["status"] for each in said] == [each for each in order if each in {one["status"] for one in said}]
    for name, span in ((first, {"start": "a", "end": "e"}), (second, {"start": "e", "end": "o"})):
        obj = part(site, name)
        assert (obj["spec"]["range"], obj["spec"]["primary"], obj["status"]["phase"]) == (span, "pod1", "Ready")
    assert set(site.owners()) == {first, second}


def test_a_merge(site: Site) -> None:
    has_part(site, "part1", "a", "e")
    has_part(site, "part2", "e", "j")
    created = apply(site, MERGE)
    ended = site.ends(created)
    (merged,) = (each["partition"] for each in ended["status"]["results"])
    said = told(site, created, "merge")
    assert {
        "status": "proxying",
        "mergedPart": merged,
        "subParts": {"part1": "proxy", "part2": "proxy"},
    } in said
    assert said[-1] == {
        "status": "completed",
        "mergedPart": merged,
        "subParts": {"part1": "disconnected", "part2": "disconnected"},
    }
    obj = part(site, merged)
    assert (obj["spec"]["range"], obj["spec"]["primary"]) == ({"start": "a", "end": "j"}, "pod1")
    assert site.owners() == {merged: "pod1"}


def test_a_move(site: Site) -> None:
    has_part(site, "part1", "a", "o")
    created = apply(site, MOVE)
    site.ends(created)
    assert told(site, created, "move")[-2:] == [
        {"status": "proxying", "fromPod": "proxy", "toPod": "primary"},
        {"status": "completed", "fromPod": "disconnected", "toPod": "primary"},
    ]
    obj = part(site, "part1")
    assert (obj["spec"]["primary"], obj["spec"]["proxy"], obj["status"]["phase"]) == ("pod2", "", "Ready")


def test_partitions_that_are_not_adjacent_are_not_merged(site: Site) -> None:
    """As in the original's example: [a, e) and [j, o)."""
    for name, start, end in (("part1", "a", "e"), ("part2", "e", "j"), ("part3", "j", "o")):
        has_part(site, name, start, end)
    before = site.owners()
    created = apply(site, MERGE, partitions=["part1", "part3"])
    ended = site.ends(created, "Aborted")
    why = "[a, e) and [j, o) are not adjacent: [e, j) is between"
    assert why in ended["status"]["message"]
    assert site.owners() == before and site.is_quiet()
    count = len(site.api.list(ASSIGNMENTS, site.namespace).items)
    with pytest.raises(Malformed) as refused:
        verbs.partition(site.api, namespace=site.namespace, state="merged", partitions=["part1", "part3"])
    assert f"{why}; name part2, too" in str(refused.value) and refused.value.field == "partitions"
    assert len(site.api.list(ASSIGNMENTS, site.namespace).items) == count
    done = verbs.partition(
        site.api, namespace=site.namespace, state="merged", partitions=["part1", "part2", "part3"], wait=True
    )
    assert done["assignment"]["phase"] == operations.COMPLETED
    assert [(each["start"], each["end"]) for each in done["partitions"]] == [("a", "o")]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Instances at a real API server with Kubernetes' own controllers: their definition, their life, dying processes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    DEPLOYMENTS,
    PODS,
    Api,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import Wish
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import INSTANCES
from ansible_collections.muster.coordination.tests.support.allocator_lab import (
    ANN,
    ROOT,
    SCENARIOS,
    UNREACHED,
    Nature,
    Reign,
    Site,
    die,
    offer,
    writes_of,
)
from ansible_collections.muster.coordination.tests.support.forms import some
from ansible_collections.muster.coordination.tests.support.semaphore_lab import until
from ansible_collections.muster.coordination.tests.support.vm_lab import install

pytestmark = pytest.mark.integration

Object = dict[str, Any]
PATIENCE = 120.0


@pytest.fixture(scope="module", autouse=True)
def definition(api: Api) -> None:
    install(api, ROOT / "charts/allocator/crds/instances.yaml")


@pytest.fixture
def site(api: Api, namespace: str) -> Iterator[Site]:
    made = Site(api, namespace, Nature(api, namespace), offer())
    yield made
    forget(api, namespace)


def forget(api: Api, namespace: str) -> None:
    """Let go of all Instances, or the namespace would never go."""
    for obj in api.list(INSTANCES, namespace).items:
        while True:
            with suppress(Conflict):
                with suppress(NotFound):
                    there = api.get(INSTANCES, obj["metadata"]["name"], namespace)
                    api.replace(INSTANCES, {**there, "metadata": {**there["metadata"], "finalizers": []}})
                break


# ------------------------------------------------------------------------------------------ the definition


def instance(name: str, namespace: str, **spec: Any) -> Object:
    whole = {"owner": "ann", "key": "k", "digest": "d", "template": "t", "parameters": {"size": 1}, **spec}
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"a": "b"}},
        "data": {"a": "1", "none": None},
        "spec": {"deep": [{"x": [1, 2.5, None, True]}]},
    }
    metadata = {"name": name, "namespace": namespace}
    kind = {"apiVersion": INSTANCES.api_version, "kind": INSTANCES.kind}
    return {**kind, "metadata": metadata, "spec": {"manifest": [made], **whole}}


def changed(path: str, value: Any) -> Callable[[Object], None]:
    def change(spec: Object) -> None:
        *steps, last = path.split(".")
        for step in steps:
            spec = spec[int(step) if step.isdigit() else step]
        spec[last] = value

    return change


def renamed(path: str, name: str) -> Callable[[Object], None]:
    def change(spec: Object) -> None:
        *steps, last = path.split(".")
        for step in steps:
            spec = spec[int(step) if step.isdigit() else step]
        spec[name] = spec.pop(last)

    return change


REFUSED = {
    "another owner": changed("owner", "bob"),
    "no owner": changed("owner", ""),
    "another key": changed("key", "x"),
    "another digest": changed("digest", "x"),
    "another template": changed("template", "x"),
    "another disk": changed("attach", "x"),
    "another parameter": changed("parameters", {"size": 2}),
    "a value deep in the manifest": changed("manifest.0.spec.deep.0.x", [1, 2.5, None]),
    "a value of the manifest's data": changed("manifest.0.data.a", "2"),
    "a key of the manifest's data": renamed("manifest.0.data.a", "b"),
    "a part of the manifest by another name": renamed("manifest.0.data", "other"),
    "a label of the manifest": changed("manifest.0.metadata.labels.a", "c"),
    "labels that become annotations": renamed("manifest.0.metadata.labels", "annotations"),
    "an object more": lambda spec: spec["manifest"].append(spec["manifest"][0]),
    "no object": changed("manifest", []),
    "two resets at once": changed("resets", 2),
    "a reset less": changed("resets", -1),
    "another word for storage": changed("storage", "perhaps"),
}
TAKEN = {
    "a reset": changed("resets", 1),
    "to be suspended": changed("suspended", True),
    "to keep its disk": changed("storage", "retain"),
    "others who may use it": changed("access", {"users": ["bob"], "groups": ["dev"]}),
}


def test_what_can_be_changed_of_an_instance(api: Api, namespace: str) -> None:
    there = api.create(INSTANCES, instance("kv-1", namespace))
    assert there["spec"].items() >= {"suspended": False, "resets": 0, "storage": "delete", "attach": ""}.items()
    given = instance("kv-1", namespace)["spec"]["manifest"]
    assert there["spec"]["manifest"] == given, "nothing of it is lost, or put in"
    for what, change in REFUSED.items():
        wanted = copy.deepcopy(there)
        change(wanted["spec"])
        with pytest.raises(Invalid):
            api.replace(INSTANCES, wanted)
            pytest.fail(f"{what} was taken")
    for change in TAKEN.values():
        change(there["spec"])
        there = api.replace(INSTANCES, there)
    there["spec"]["resets"] = 0
    with pytest.raises(Invalid, match="never shrinks"):
        api.replace(INSTANCES, there)


def test_one_of_the_pool_can_be_claimed_once(api: Api, namespace: str) -> None:
    there = api.create(INSTANCES, instance("kv-1", namespace, owner="", digest=""))
    for field in ("key", "digest"):
        with pytest.raises(Invalid, match="can't be changed"):
            api.replace(INSTANCES, {**there, "spec": {**there["spec"], field: "x"}})
    manifest = copy.deepcopy(there["spec"]["manifest"])
    manifest[0]["metadata"]["annotations"] = {"muster.dev/owner": "ann"}
    claimed = {**there["spec"], "owner": "ann", "key": "x", "digest": "y", "manifest": manifest}
    there = api.replace(INSTANCES, {**there, "spec": claimed})
    with pytest.raises(Invalid, match="owner"):
        api.replace(INSTANCES, {**there, "spec": {**there["spec"], "owner": "bob"}})


def test_a_name_is_a_label_and_the_status_is_apart(api: Api, namespace: str) -> None:
    with pytest.raises(Invalid, match="63"):
        api.create(INSTANCES, instance("k" * 64, namespace))
    there = api.create(INSTANCES, {**instance("kv-1", namespace), "status": {"phase": "Ready"}})
    assert "status" not in there
    with pytest.raises(Invalid):
        api.replace(INSTANCES, {**there, "status": {"phase": "Happy"}}, "status")


# ------------------------------------------------------------------------------------------ its life


def test_a_life(site: Site, api: Api) -> None:
    process = site.process()
    made = process.allocator.create(ANN, "k", Wish(storage="retain"))
    name = made.instance["metadata"]["name"]
    site.settle(process, "Ready")
    site.note_disks()
    (pod,) = api.list(PODS, site.namespace).items
    assert pod["metadata"]["labels"]["muster.dev/instance"] == name

    process.allocator.suspend(ANN, name, True)
    site.settle(process, "Suspended")
    assert api.list(PODS, site.namespace).items == []
    process.allocator.suspend(ANN, name, False)
    site.settle(process, "Ready")

    process.allocator.destroy(ANN, name)
    site.gone(process)
    site.until(process, lambda: not site.made(), "all that was made to be gone")
    assert site.ledgers() == {} and site.judge() == []
    (disk,) = process.allocator.disks(ANN)

    again = process.allocator.create(ANN, "again", Wish(attach=disk["name"]))
    site.settle(process, "Ready")
    assert site.judge() == [] and again.instance["metadata"]["name"] != name
    deployment = api.get(DEPLOYMENTS, again.instance["metadata"]["name"], site.namespace)
    (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == disk["name"]

    process.allocator.reset(ANN, again.instance["metadata"]["name"])
    site.settle(process, "Ready")
    (disk_now,) = api.list(disks(), site.namespace).items
    assert disk_now["metadata"]["uid"] not in site.disks_seen
    process.allocator.destroy(ANN, again.instance["metadata"]["name"])
    site.gone(process)
    site.until(process, lambda: not api.list(disks(), site.namespace).items, "the disk to be gone")


def disks() -> Any:
    from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS

    return DISKS


def test_an_instance_that_no_ledger_holds_is_removed_and_makes_nothing(site: Site, api: Api) -> None:
    process = site.process()
    labels = {"muster.dev/allocator": "kv"}
    forged = instance("kv-forged", site.namespace)
    api.create(INSTANCES, {**forged, "metadata": {**forged["metadata"], "labels": labels}})
    site.gone(process)
    assert site.made() == [] and site.ledgers() == {}


def test_what_the_cluster_refuses_is_said_at_the_instance(site: Site, api: Api) -> None:
    """A quota of the namespace that is used up, and then is raised."""
    from ansible_collections.muster.coordination.plugins.module_utils.api import Resource

    quotas = Resource("v1", "resourcequotas", "ResourceQuota")
    process = site.process()
    name = process.allocator.create(ANN, "k", Wish()).instance["metadata"]["name"]
    metadata = {"name": "none", "namespace": site.namespace}
    api.create(
        quotas,
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": metadata,
            "spec": {"hard": {"count/deployments.apps": "0"}},
        },
    )

    def is_refusing() -> bool:
        with suppress(Forbidden):
            deployment = copy.deepcopy((site.instance(name) or {})["spec"]["manifest"][0])
            api.create(DEPLOYMENTS, deployment, dry_run=True)
            return False
        return True

    until(is_refusing, "the quota to be in force", PATIENCE)
    process.turn()
    there = site.instance(name) or {}
    assert there["status"]["phase"] == "Failed" and "quota" in there["status"]["message"]
    assert (name, "Failed") in process.events
    api.delete(quotas, "none", site.namespace)
    process.clock += 61
    site.settle(process, "Ready")


# ------------------------------------------------------------------------------------------ a process that dies


@pytest.mark.parametrize("name", SCENARIOS)
def test_after_any_write_another_process_puts_all_right(api: Api, namespace: str, name: str) -> None:
    """A2: no orphan, no lost disk, no place without its instance, no limit exceeded; and the same request goes on.

    In the short form after every second write, of one scenario the first, of the next the second.
    """
    scenario = SCENARIOS[name]()
    offered = offer(warm=scenario.warm, max_instances=5)

    def fresh() -> Site:
        return Site(api, namespace, Nature(api, namespace), offered)

    def clear(site: Site) -> None:
        site.offer = offer()
        process = site.process()
        process.warm.keep(Reign())
        for obj in site.instances():
            with suppress(NotFound):
                api.delete(INSTANCES, obj["metadata"]["name"], namespace)
        site.gone(process)
        for disk in api.list(disks(), namespace).items:
            with suppress(NotFound):
                api.delete(disks(), disk["metadata"]["name"], namespace)
        site.until(process, lambda: not api.list(disks(), namespace).items, "all disks to be gone")
        process.sweep(), process.sweep(61), process.sweep(1)
        assert site.ledgers() == {}

    site = fresh()
    try:
        writes = writes_of(site, scenario)
        clear(site)
        late = 0
        deaths = some(range(len(writes)), turn=list(SCENARIOS).index(name))
        for after in deaths:
            site = fresh()
            found = die(site, SCENARIOS[name](), after)
            wrong = [each for each in found if UNREACHED not in each]
            late += len(found) - len(wrong)
            assert not wrong, f"{name}, dead after {after} writes of {writes}: {wrong}"
            clear(site)
        assert late <= math.ceil(len(deaths) / 4), "of some phases the status is written only if they last"
    finally:
        forget(api, namespace)

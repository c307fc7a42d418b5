# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example that the allocator grew from, as it was written: old JSON with a comma missing, and its words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, DEPLOYMENTS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES
from ansible_collections.muster.coordination.tests.support.allocator_site import ROOT, AllocatorSite

pytestmark = pytest.mark.integration

EXAMPLE = ROOT / "charts/allocator/examples/syncbase.json-template"


@pytest.fixture
def site(api: Api, namespace: str, kubeconfig: str, tmp_path: Path) -> Iterator[AllocatorSite]:
    text = EXAMPLE.read_text()
    with pytest.raises(json.JSONDecodeError):
        json.loads(text.replace("{{.CreatorInfo}}", '"x"'))  # it is the broken one
    made = AllocatorSite(
        api, kubeconfig, namespace, text, tmp_path, "--import", "--repair", "--server-disk-size", "1GB"
    )
    try:
        yield made
    finally:
        for each in api.list(INSTANCES, namespace).items:  # or the namespace would wait for a controller for ever
            which = {key: each["metadata"][key] for key in ("name", "namespace", "uid")}
            api.patch(INSTANCES, {"metadata": {**which, "finalizers": None}})
        made.close()


def test_create_prints_the_name_list_shows_it_and_destroy_removes_it_with_its_disk(
    site: AllocatorSite, api: Api, namespace: str
) -> None:
    user = site.account("ann")
    token = site.token("ann")
    where = f"--allocator={site.url}"
    name = site.says(token, where, "create").strip()
    assert name.startswith("kv-") and "\n" not in name
    assert site.says(token, where, "create", "--key", "another", status=3).count("at most 1") == 1
    (listed,) = json.loads(site.says(token, where, "list", "-o", "json"))
    assert (listed["name"], listed["owner"]) == (name, user)

    (instance,) = api.list(INSTANCES, namespace).items
    for kind in (DISKS, DEPLOYMENTS):
        _until_there(api, kind, name, namespace)
    deployment = api.get(DEPLOYMENTS, name, namespace)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert f'--v23.permissions.literal={{"Admin":{{"In":["{user}"],"Groups":[]}}}}' in container["command"]
    assert json.loads(deployment["metadata"]["annotations"]["v.io/creator-info"])["owner"] == user
    (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
    assert volume["persistentVolumeClaim"] == {"claimName": name}
    assert api.get(DISKS, name, namespace)["spec"]["resources"]["requests"]["storage"] == "1G"

    disk = api.get(DISKS, name, namespace)
    api.replace(DISKS, {**disk, "metadata": {**disk["metadata"], "finalizers": []}})  # no kubelet: no Pod uses it
    site.says(token, where, "destroy", name, "--wait")
    for kind in (DEPLOYMENTS, DISKS, INSTANCES):
        with pytest.raises(NotFound):
            api.get(kind, name, namespace)
    assert json.loads(site.says(token, where, "list", "-o", "json")) == []
    ledgers = [each for each in api.list(CONFIGMAPS, namespace).items if "ledger.json" in (each.get("data") or {})]
    assert ledgers and all(json.loads(each["data"]["ledger.json"])["entries"] == {} for each in ledgers)
    assert instance["spec"]["manifest"]


def _until_there(api: Api, kind, name: str, namespace: str) -> None:
    for _change in api.follow(kind, namespace, name=name, watch_timeout=5):
        try:
            api.get(kind, name, namespace)
            return
        except NotFound:
            continue

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The allocator's page in a real browser, of a real allocator on a real API server. Only the kubelet is played."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES
from ansible_collections.muster.coordination.tests.browser.tab import Tab
from ansible_collections.muster.coordination.tests.support.allocator_lab import Nature
from ansible_collections.muster.coordination.tests.support.allocator_site import AllocatorSite

EXAMPLE = Path(__file__).parents[2] / "charts" / "allocator" / "examples" / "key-value.yaml"
LOSE_AN_ANSWER = """
const real = fetch;
window.fetch = async (path, options) => {
  const answer = await real(path, options);
  if (options.method !== "POST") return answer;
  window.fetch = real;
  throw new TypeError("lost");
};
"""
LONG = 60  # seconds: for what controllers do in a moment, where others keep the machine busy


@pytest.fixture(scope="module")
def site(
    api: Api, kubeconfig: str, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AllocatorSite]:
    """An allocator of the chart's example, and Pods that become ready. Each test has users of its own."""
    root = f"system:serviceaccount:{namespace}:root"
    options = ("--max-instances-per-user", "2", "--server-disk-size", "1Gi", "--global-admins", root)
    site = AllocatorSite(api, kubeconfig, namespace, EXAMPLE.read_text(), tmp_path_factory.mktemp("site"), *options)
    nature, ended = Nature(api, namespace), threading.Event()

    def play() -> None:
        while not ended.is_set():
            nature.turn()

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    try:
        for name in ("alice", "bob", "carol", "dave", "root"):
            site.account(name)
        yield site
    finally:
        ended.set()
        thread.join(LONG)
        site.close()


@pytest.fixture
def page(chromium: webdriver.Chrome, site: AllocatorSite) -> Iterator[Tab]:
    tab = Tab(chromium, f"{site.url}/")
    tab.seconds = LONG
    yield tab
    tab.check()
    tab.run("sessionStorage.clear()")  # the next page is at the same address


def becomes(page: Tab, name: str, phase: str) -> None:
    page.until(f"it is {phase}", lambda: page.text_of(f"li:has(#instance-{name}) .phase").strip() == phase)


def create(page: Tab, **chosen: str) -> str:
    """Its name."""
    before = set(page.names)
    page.click("#new")
    for parameter, value in chosen.items():
        page.choose(page.parameter(parameter), value)
    page.press("Create")
    page.until("it is there", lambda: set(page.names) - before and not page.is_seen("dialog"))
    (name,) = set(page.names) - before
    return name


def test_an_instance_from_its_creation_to_its_end(page: Tab, site: AllocatorSite, api: Api) -> None:
    page.fill("#token", site.token("alice", "another-audience"))
    page.press("Sign in")
    page.until("it is refused", lambda: page.fault_of("#token"))
    assert "audience" in page.fault_of("#token")
    page.sign_in(site.token("alice"))
    assert page.text_of("#caller") == f"system:serviceaccount:{site.namespace}:alice"
    assert "You have no instance yet." in page.text
    assert "0 of 2 used by you" in page.text

    one = create(page, memory="128Mi")
    spec = api.get(INSTANCES, one, site.namespace)["spec"]
    assert spec["parameters"] == {"memory": "128Mi", "logFormat": "json", "graceSeconds": 10}
    becomes(page, one, "Ready")
    page.says("Scaled up replica set")  # an event of Kubernetes' own
    assert f"{one}:80" in page.row(one)
    assert "128Mi" in page.row(one)
    page.says("1 of 2 used by you")

    page.press("Suspend")
    becomes(page, one, "Suspended")
    page.press("Resume")
    becomes(page, one, "Ready")

    disk = api.get(DISKS, one, site.namespace)["metadata"]["uid"]
    page.press("Reset…")
    page.fill("#reset-name", one)
    page.press("Reset")
    page.says("1 time")
    becomes(page, one, "Ready")
    kept = api.get(DISKS, one, site.namespace)["metadata"]["uid"]
    assert kept != disk

    page.run(LOSE_AN_ANSWER)
    page.click("#new")
    page.press("Create")
    page.says("Perhaps it was made all the same.")
    page.press("Create")
    page.until("there is an answer", lambda: not page.is_seen("dialog"))
    page.says("2 of 2 used by you")
    assert len(page.names) == len(api.list(INSTANCES, site.namespace).items) == 2
    page.click("#new")
    page.press("Create")
    page.says("You have used 2 of 2. Destroy an instance to make room for another.")
    page.press("Cancel")

    page.open(one)
    page.press("Destroy…")
    page.click("[name=keep][value=retain]")
    page.press("Destroy")
    page.until("it is gone", lambda: one not in page.names)
    page.says("1 of 2 used by you")
    page.until("its disk is there", lambda: one in page.text_of("#disks"))
    assert api.get(DISKS, one, site.namespace)["metadata"]["uid"] == kept
    assert [each["metadata"]["name"] for each in api.list(INSTANCES, site.namespace).items] == page.names
    page.click("#disks button")
    page.press("Remove")
    page.until("it is gone", lambda: page.is_seen("#disks-empty"))
    assert page.run(
        "return performance.getEntriesByType('resource').every((e) => new URL(e.name).origin === location.origin)"
    )


def test_others_see_what_is_shared_and_administrators_all(page: Tab, site: AllocatorSite) -> None:
    page.sign_in(site.token("carol"))
    own = create(page)
    becomes(page, own, "Ready")
    page.click("#new")
    page.click("#share summary")
    page.fill("#share-users", f"system:serviceaccount:{site.namespace}:bob")
    page.press("Create")
    page.until("it is there", lambda: len(page.names) == 2 and not page.is_seen("dialog"))
    (shared,) = set(page.names) - {own}
    page.press("Sign out")
    page.sign_in(site.token("bob"))
    assert page.names == [shared]
    page.open(shared)
    page.press("Suspend")
    becomes(page, shared, "Suspended")
    assert "Only its owner can reset or destroy it." in page.text
    page.press("Sign out")
    page.sign_in(site.token("root"))
    assert page.names == []
    page.click("#everything")
    page.until("all are there", lambda: {own, shared} <= set(page.names))
    page.open(own)
    page.press("Destroy…")
    page.press("Destroy")
    page.until("it is gone", lambda: own not in page.names)
    assert shared in page.names


def test_the_page_outlives_the_server(page: Tab, site: AllocatorSite, api: Api) -> None:
    page.sign_in(site.token("dave"))
    one = create(page)
    becomes(page, one, "Ready")
    site.kill()
    page.until("it is said", lambda: page.is_seen("#lost"))
    page.press("Suspend")
    page.says("No answer came from the service.")
    assert page.names == [one]
    api.delete(INSTANCES, one, site.namespace)
    site.start()
    page.press("Try now")
    page.until("it is live", lambda: page.text_of("#link-text") == "Live")
    page.until("it is gone", lambda: page.names == [])
    assert not page.is_seen("#lost")

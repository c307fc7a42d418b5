# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Chromium for these tests, without a window, and what each page in it must not have done."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from ansible_collections.muster.coordination.plugins.module_utils.api import NAMESPACES, Api
from ansible_collections.muster.coordination.tests.browser.stand_in import StandIn, stand_in
from ansible_collections.muster.coordination.tests.browser.tab import WATCHER, Tab
from ansible_collections.muster.coordination.tests.integration.conftest import api, kubeconfig

__all__ = ["api", "kubeconfig"]

REMEDY = "run scripts/browser.sh, which installs one or says what to install"
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--lang=en-GB",
)


def program(*names: str) -> str:
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(f"there is no {' and no '.join(names)} on PATH: {REMEDY}")
    return found


@contextmanager
def browser(profile: str) -> Iterator[webdriver.Chrome]:
    """A browser, with a profile of its own, that has never been used."""
    options = Options()
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(executable_path=program("chromedriver")))
    try:
        driver.set_page_load_timeout(20)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCHER})
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One for all tests."""
    with browser(str(tmp_path_factory.mktemp("profile"))) as driver:
        yield driver


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


@pytest.fixture
def tab(chromium: webdriver.Chrome, server: StandIn) -> Iterator[Tab]:
    """The page of the stand-in, not yet signed in. Afterwards: it has broken no policy, and failed nowhere."""
    tab = Tab(chromium, server.url)
    yield tab
    tab.check()


@pytest.fixture(scope="module")
def namespace(api: Api) -> Iterator[str]:
    """An empty namespace, removed afterwards."""
    name = api.create(NAMESPACES, {"metadata": {"generateName": "muster-test-"}})["metadata"]["name"]
    yield name
    api.delete(NAMESPACES, name)

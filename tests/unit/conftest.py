# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a test does to the process that all unit tests share, and what must not be left of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from ansible_collections.muster.coordination.tests.support import profiles  # noqa: F401

LOG = logging.getLogger("muster")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "peers: needs a package that comes with `make bench` only, which runs it")


@pytest.fixture(autouse=True)
def the_log_as_it_was() -> Iterator[None]:
    """A command that runs here sets up the log, and the next test counts what is logged."""
    before, handlers, propagates = LOG.level, list(LOG.handlers), LOG.propagate
    yield
    LOG.setLevel(before)
    LOG.handlers[:], LOG.propagate = handlers, propagates

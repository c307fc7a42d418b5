# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Api.follow for processes that outlive a person's mistake: a missing right, a kind that is not there yet."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Change, Resource, Trouble
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

RETRY: Final = (1.0, 3.0)  # seconds until the next try of what a person has to mend


def follow(api: Api, resource: Resource, namespace: str | None, stop: threading.Event, **what: Any) -> Iterator[Change]:
    """As `Api.follow` tells it. What that raises is told as Trouble, too, and tried again until it is mended."""
    while not stop.is_set():
        try:
            yield from api.follow(resource, namespace, stop=stop, **what)
            return
        except MusterError as error:
            yield Trouble(error)
            stop.wait(random.uniform(*RETRY))

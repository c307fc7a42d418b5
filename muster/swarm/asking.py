# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks workers by HTTP which version they run: many at a time, each for a second at most."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import urllib3

from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm_pool import Pod
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm
from muster.process import say

SECONDS: Final = 1.0  # for one answer
AT_A_TIME: Final = 16
LONGEST: Final = 8 * 1024 * 1024  # bytes of an answer: it names the worker's jobs


class Asker:
    """Asks by the addresses of Pods: for who is in the cluster's network."""

    def __init__(self) -> None:
        retries = urllib3.Retry(0, redirect=0)
        self._http = urllib3.PoolManager(num_pools=64, maxsize=AT_A_TIME, retries=retries, timeout=SECONDS)
        self._threads = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="ask")

    def __call__(self, pods: Sequence[Pod]) -> Mapping[str, int]:
        versions = self._threads.map(self._ask, pods)
        return {pod.uid: version for pod, version in zip(pods, versions, strict=True) if version is not None}

    def _ask(self, pod: Pod) -> int | None:
        try:
            with self._http.request("GET", f"http://{pod.address}/config", preload_content=False) as response:
                text = response.read(LONGEST)
                if response.status != 200 or response.read(1):
                    return None
            return swarm.read_report(json.loads(text), pod)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            say(logging.DEBUG, "a worker does not answer", worker=pod.name, error=str(error))
            return None

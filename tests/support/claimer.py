# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Claims and releases for some holders until its time is over, as one process; tells what it got as JSON.

claimer.py KUBECONFIG NAMESPACE SECONDS wait|nowait NAME=UID…
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs


def claims(api: Api, namespace: str, holder: str, uid: str, end: float, wait: bool, told: dict[str, list]) -> None:
    """Claim, hold for some milliseconds, see that it is still held, release; until `end` (monotonic seconds)."""
    semaphore = {"name": "sem", "namespace": namespace, "holder": holder, "holder_uid": uid}
    while time.monotonic() < end:
        try:
            # nobody queues for tpu, so that those who do not queue (an old Distributor too) have a chance
            wish = {"resource": "gpu" if wait else None, "wait": wait}
            claim = verbs.claim(api, **semaphore, **wish, wait_timeout=max(0.1, end - time.monotonic()))
        except TimedOut as error:
            told["timed out"].append(str(error))
            continue
        except MusterError as error:
            if "give wait=true" not in str(error):
                raise
            time.sleep(random.uniform(0.01, 0.1))
            continue
        told["granted"].append([claim["fence"], holder, claim["resource"]])
        time.sleep(random.uniform(0, 0.02))
        left = release(api, semaphore)
        if left["before"]["fence"] != claim["fence"]:
            told["lost"].append(f"{holder} had fence {claim['fence']}, and left {left['before']}")


def release(api: Api, semaphore: dict[str, str]) -> dict[str, Any]:
    """On a busy machine a write may lose the race for longer than its time-out: what is held has to be given back."""
    while True:
        try:
            return verbs.release(api, **semaphore)
        except TimedOut:
            continue


def main() -> None:
    kubeconfig, namespace, seconds, kind, *holders = sys.argv[1:]
    api = Api(Credentials.load({"kubeconfig": kubeconfig}))
    told: dict[str, list] = {"granted": [], "lost": [], "timed out": [], "failed": []}
    end = time.monotonic() + float(seconds)

    def run(holder: str, uid: str) -> None:
        try:
            claims(api, namespace, holder, uid, end, kind == "wait", told)
        except Exception as error:
            told["failed"].append(f"{holder}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=run, args=entry.split("=")) for entry in holders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(told))


if __name__ == "__main__":
    main()

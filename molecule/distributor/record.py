#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record every revision of one semaphore by a watch until SIGTERM, then have tests/support/legality judge each step.

The Pods are watched beside it: a write may take out only who was gone before it. Both are put in one order by their
resourceVersions, which are revisions of one etcd. Where a watch had to begin anew (the API server was killed) revisions
may be missing, so the step over that gap is not judged; how many there were is in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    PODS,
    Api,
    Put,
    Removed,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.tests.support.legality import History

Object = dict[str, Any]
ENDED = ("Succeeded", "Failed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--pid", type=Path, required=True, help="this file is there while it records")
    parser.add_argument("--seconds", type=float, required=True, help="end by itself after so long")
    args = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    timer = threading.Timer(args.seconds, stop.set)
    timer.daemon = True
    timer.start()
    args.report.unlink(missing_ok=True)
    api = Api(Credentials.load({}))
    deaths: list[Object] = []
    pods = threading.Thread(target=record_deaths, args=(api, args.namespace, stop, deaths))
    pods.start()
    args.pid.write_text(str(os.getpid()))
    try:
        revisions = record_revisions(api, args.namespace, args.name, stop)
        pods.join()
        args.report.write_text(json.dumps({**judge(revisions, deaths), "revisions": revisions, "deaths": deaths}))
    finally:
        stop.set()
        args.pid.unlink(missing_ok=True)
    return 0


def record_revisions(api: Api, namespace: str, name: str, stop: threading.Event) -> list[Object]:
    """What the object was at each revision that the watch showed; `gap` where revisions before it may be missing."""
    revisions: list[Object] = []
    for change in api.follow(CONFIGMAPS, namespace, name=name, stop=stop):
        anew = isinstance(change, Snapshot)
        objects = change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put) else []
        for obj in objects:
            metadata = obj["metadata"]
            revision = int(metadata["resourceVersion"])
            if not revisions or revisions[-1]["revision"] != revision:
                kept = {"uid": metadata["uid"], "annotations": metadata.get("annotations", {})}
                revisions.append({"revision": revision, "gap": anew, **kept})
    return revisions


def record_deaths(api: Api, namespace: str, stop: threading.Event, deaths: list[Object]) -> None:
    """When each Pod ended or was gone, as a revision; for one that vanished unseen, the last at which it was there."""
    living: dict[str, Object] = {}

    def died(pod: Object, revision: str) -> None:
        metadata = pod["metadata"]
        deaths.append({"holder": metadata["name"], "uid": metadata["uid"], "revision": int(revision)})

    for change in api.follow(PODS, namespace, stop=stop):
        if isinstance(change, Snapshot):
            there = {pod["metadata"]["uid"]: pod for pod in change.items}
            for uid in living.keys() - there.keys():
                died(living[uid], living[uid]["metadata"]["resourceVersion"])
            living = there
        elif isinstance(change, Put | Removed):
            pod = change.obj
            if isinstance(change, Removed) or pod["status"].get("phase") in ENDED:
                if living.pop(pod["metadata"]["uid"], None) is not None:
                    died(pod, pod["metadata"]["resourceVersion"])
            elif "phase" in pod["status"]:
                living[pod["metadata"]["uid"]] = pod


def judge(revisions: list[Object], deaths: list[Object]) -> Object:
    """The judge's violations, with the revision of each, and how many grants and gaps there were."""
    history, uid, violations = History(), None, []
    for entry in revisions:
        history.dead = {(d["holder"], d["uid"]) for d in deaths if d["revision"] <= entry["revision"]}
        if entry["gap"] or entry["uid"] != uid:
            history.last, uid = None, entry["uid"]
        violations += [f"revision {entry['revision']}: {found}" for found in history.step(entry["annotations"])]
    gaps = sum(entry["gap"] for entry in revisions)
    return {"violations": violations, "grants": len(history.grants), "gaps": gaps, "steps": history.revisions}


if __name__ == "__main__":
    sys.exit(main())

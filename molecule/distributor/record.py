#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record every revision of one semaphore by a watch until SIGTERM, then check each against the one before it.

Checked: nothing is granted beyond the capacity (S1), and fences only ever grow, each for one holder (S2). A watch that
had to begin anew (the API server was killed) may have missed revisions; how often that was is in the report.
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

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api, Put, Snapshot
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import read

EMPTY = engine.Semaphore({})


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
    args.pid.write_text(str(os.getpid()))
    try:
        revisions, gaps = record(args.namespace, args.name, stop)
        args.report.write_text(json.dumps({**check(revisions), "gaps": gaps, "seen": revisions}, indent=1))
    finally:
        args.pid.unlink(missing_ok=True)
    return 0


def record(namespace: str, name: str, stop: threading.Event) -> tuple[list[dict[str, Any]], int]:
    """What the object was at each revision that the watch showed, and how often the watch began anew."""
    revisions: list[dict[str, Any]] = []
    snapshots = 0
    for change in Api(Credentials.load({})).follow(CONFIGMAPS, namespace, name=name, stop=stop):
        if isinstance(change, Snapshot):
            snapshots += 1
            objects = change.items
        else:
            objects = [change.obj] if isinstance(change, Put) else []
        for obj in objects:
            metadata = obj["metadata"]
            if not revisions or revisions[-1]["revision"] != metadata["resourceVersion"]:
                kept = {key: metadata[key] for key in ("namespace", "name", "uid", "annotations") if key in metadata}
                revisions.append({"revision": metadata["resourceVersion"], **kept})
    return revisions, max(0, snapshots - 1)


def check(revisions: list[dict[str, Any]]) -> dict[str, Any]:
    """What S1 and S2 say of this history; revisions are in the order in which they were made."""
    violations: list[str] = []
    owners: dict[int, tuple[str, str | None]] = {}
    before, uid = EMPTY, None
    for entry in revisions:
        if entry["uid"] != uid:  # made anew: fences come from the resourceVersion, so they go on growing
            before, uid = EMPTY, entry["uid"]
        after = read({"metadata": {"resourceVersion": entry["revision"], **entry}})
        held_before, held = before.held(), after.held()
        for resource, count in held.items():
            most = max(after.capacity.get(resource, 0), held_before.get(resource, 0))
            if count > most:
                violations.append(f"revision {entry['revision']}: {count} of {resource} held, {most} allowed")
        new = {h: g for h, g in after.grants.items() if g.fence not in owners}
        newest = max(owners, default=0)
        for holder, grant in sorted(new.items(), key=lambda item: item[1].fence):
            if grant.fence <= newest:
                violations.append(f"revision {entry['revision']}: fence {grant.fence} of {holder} after {newest}")
            newest = grant.fence
            owners[grant.fence] = (holder, grant.uid)
        for holder, grant in after.grants.items():
            if owners[grant.fence] != (holder, grant.uid):
                violations.append(f"revision {entry['revision']}: fence {grant.fence} has two owners")
        before = after
    return {"revisions": len(revisions), "grants": len(owners), "violations": violations}


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Record every revision of one semaphore by a watch until SIGTERM, then have each step judged.

The judge of annotations is tests/support/legality. With tickets who holds is written nowhere: it is computed from the
Leases at each revision as every sidecar does, and tests/support/ticket_book judges that with code of its own.

The Pods are watched beside it: only who was gone before a write may be taken out by it. Both are put in one order by
their resourceVersions, which are revisions of one etcd. Where a watch had to begin anew (the API server was killed)
revisions may be missing, so the step over that gap is not judged; how many there were is in the report.
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
    LEASES,
    PODS,
    Api,
    Put,
    Removed,
    Snapshot,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets
from ansible_collections.muster.coordination.tests.support.legality import History
from ansible_collections.muster.coordination.tests.support.ticket_book import Judge

Object = dict[str, Any]
ENDED = ("Succeeded", "Failed")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--engine", choices=("annotations", "tickets"), required=True)
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
    deaths: list[Object] = []  # and, marked `leaving`, who is only about to end
    pods = threading.Thread(target=record_deaths, args=(api, args.namespace, stop, deaths))
    pods.start()
    args.pid.write_text(str(os.getpid()))
    record, judge = (record_leases, judge_leases) if args.engine == "tickets" else (record_revisions, judge_revisions)
    try:
        revisions = record(api, args.namespace, args.name, stop)
        pods.join()
        judged = judge(args.name, revisions, deaths)
        args.report.write_text(json.dumps({**judged, "revisions": revisions, "deaths": deaths}))
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


def record_leases(api: Api, namespace: str, name: str, stop: threading.Event) -> list[Object]:
    """Every change of one of the semaphore's Leases, in the order of their revisions; what a gap hides is guessed."""
    changes: list[Object] = []
    there: dict[str, Object] = {}

    def note(kind: str, lease: Object, *, gap: bool = False) -> None:
        changes.append(
            {"revision": int(lease["metadata"]["resourceVersion"]), "gap": gap, "kind": kind, "lease": lease}
        )

    for change in api.follow(LEASES, namespace, label_selector=f"{tickets.LABEL}={name}", stop=stop):
        if isinstance(change, Snapshot):
            now = {lease["metadata"]["name"]: lease for lease in change.items}
            for gone in there.keys() - now.keys():
                note("DELETED", there[gone], gap=True)
            for lease in sorted(now.values(), key=lambda lease: int(lease["metadata"]["resourceVersion"])):
                note("MODIFIED" if lease["metadata"]["name"] in there else "ADDED", lease, gap=True)
            there = now
        elif isinstance(change, Put):
            lease = change.obj
            note("MODIFIED" if lease["metadata"]["name"] in there else "ADDED", lease)
            there[lease["metadata"]["name"]] = lease
        elif isinstance(change, Removed):
            note("DELETED", change.obj)
            there.pop(change.obj["metadata"]["name"], None)
    return changes


def record_deaths(api: Api, namespace: str, stop: threading.Event, deaths: list[Object]) -> None:
    """When each Pod ended or was gone, as a revision; for one that vanished unseen, the last at which it was there.

    And since when it is being deleted: until it has ended, it keeps what it has.
    """
    living: dict[str, Object] = {}

    def died(pod: Object, revision: str, *, leaving: bool = False) -> None:
        metadata = pod["metadata"]
        told = {"holder": metadata["name"], "uid": metadata["uid"], "revision": int(revision), "leaving": leaving}
        deaths.append(told)

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
                before = living.get(pod["metadata"]["uid"], {"metadata": {}})
                living[pod["metadata"]["uid"]] = pod
                if pod["metadata"].get("deletionTimestamp") and not before["metadata"].get("deletionTimestamp"):
                    died(pod, pod["metadata"]["resourceVersion"], leaving=True)


def judge_revisions(_name: str, revisions: list[Object], deaths: list[Object]) -> Object:
    """The judge's violations, with the revision of each, and how many grants and gaps there were."""
    history, uid, violations = History(), None, []
    for entry in revisions:
        gone = [death for death in deaths if death["revision"] <= entry["revision"]]
        history.dead = {(d["holder"], d["uid"]) for d in gone if not d["leaving"]}
        history.leaving = {(d["holder"], d["uid"]) for d in gone if d["leaving"]}
        if entry["gap"] or entry["uid"] != uid:
            history.last, uid = None, entry["uid"]
        violations += [f"revision {entry['revision']}: {found}" for found in history.step(entry["annotations"])]
    gaps = sum(entry["gap"] for entry in revisions)
    return {"violations": violations, "grants": len(history.grants), "gaps": gaps, "steps": history.revisions}


def judge_leases(name: str, changes: list[Object], deaths: list[Object]) -> Object:
    """The same for tickets: who holds is computed after each change, on all Leases that there are then."""
    oracle, there, violations = Judge(name), dict[str, Object](), []
    for change in changes:
        revision, lease = change["revision"], change["lease"]
        there[lease["metadata"]["name"]] = lease
        if change["kind"] == "DELETED":
            del there[lease["metadata"]["name"]]
        oracle.event(change["kind"], lease)
        book = tickets.parse(name, there.values())
        answer = holders(book, oracle.held) if book else frozenset()
        found = oracle.violations(answer)
        if not change["gap"]:
            violations += [f"revision {revision}: {text}" for text in found]
        dead = {death["uid"] for death in deaths if death["revision"] <= revision}
        ended = {pod_of(there, place) for place in oracle.ended} - dead - {""}
        violations += [f"revision {revision}: S3: Pod {uid} lives, and its ticket was called ended" for uid in ended]
    gaps = sum(change["gap"] for change in changes)
    return {"violations": violations, "grants": oracle.granted, "gaps": gaps, "steps": oracle.revisions}


def holders(book: tickets.Book, before: set[int]) -> frozenset[int]:
    return tickets.holders(book) if book.terms.is_settled else tickets.still_held(book, before)


def pod_of(there: dict[str, Object], place: int) -> str:
    """The Pod of the ticket that was drawn at this revision."""
    for lease in there.values():
        ticket = tickets.read_ticket(lease)
        if isinstance(ticket, tickets.Ticket) and ticket.place == place:
            return ticket.uid
    return ""


if __name__ == "__main__":
    sys.exit(main())

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Watches one semaphore and its Pods, and says what moved between two revisions."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
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
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import said, view
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import tickets
from ansible_collections.muster.coordination.plugins.module_utils.verbs.annotations import describe_object
from ansible_collections.muster.coordination.plugins.module_utils.verbs.engine import NoSemaphore
from muster.table import table

Object = dict[str, Any]


@dataclass(frozen=True)
class View:
    """What there is at one moment: the workload's Pods, and its semaphore as `muster distributor status` has it."""

    pods: list[Object]
    semaphore: Object

    @property
    def permits(self) -> int:
        return sum(resource["capacity"] for resource in self.semaphore["resources"])

    def settled(self, pods: int, served: int) -> bool:
        """`pods` Pods run, each of them holds or waits, and as many hold as can be `served` at once."""
        running = {pod["metadata"]["uid"] for pod in self.pods if pod["status"].get("phase") == "Running"}
        known = {entry["uid"] for entry in self.semaphore["holders"] + self.semaphore["waiters"]}
        held = len(self.semaphore["holders"])
        return len(self.pods) == len(running) == pods and known == running and held == min(pods, served)

    def pod(self, uid: str) -> Object:
        for pod in self.pods:
            if pod["metadata"]["uid"] == uid:
                return pod
        raise MusterError(f"the Pod with uid {uid} is gone: somebody else works here too; run the demo again")

    def __str__(self) -> str:
        """One row a Pod: holders by fence, then waiters by place, then those the semaphore does not know."""
        rows: list[tuple[Any, ...]] = []
        for grant in sorted(self.semaphore["holders"], key=lambda grant: grant["fence"] or 0):
            rows.append((grant["holder"], self._status(grant["uid"]), said(grant["resources"]), grant["fence"], None))
        for waiter in self.semaphore["waiters"]:
            rows.append((waiter["holder"], self._status(waiter["uid"]), None, None, waiter["place"]))
        known = {row[0] for row in rows}
        for pod in self.pods:
            name = pod["metadata"]["name"]
            if name not in known:
                rows.append((name, self._status(pod["metadata"]["uid"]), None, None, None))
        return table(("POD", "STATUS", "HOLDS", "FENCE", "WAITS AT PLACE"), rows, indent="  ")

    def _status(self, uid: str) -> str:
        for pod in self.pods:
            if pod["metadata"]["uid"] == uid:
                return "Terminating" if "deletionTimestamp" in pod["metadata"] else str(pod["status"].get("phase"))
        return "gone"


class Watcher:
    """Follows the semaphore from a thread; `until` prints what moves while it waits."""

    def __init__(self, api: Api, namespace: str, name: str, engine: str) -> None:
        self._api, self._namespace, self._name = api, namespace, name
        self._seen: queue.Queue[tuple[float, Object]] = queue.Queue()
        self._semaphore: Object = {"resources": [], "holders": [], "waiters": []}
        follow = self._follow_leases if engine == "tickets" else self._follow_configmap
        threading.Thread(target=follow, daemon=True).start()

    def look(self) -> View:
        """The Pods now, with the newest revision that the watch has shown."""
        selector = f"app.kubernetes.io/instance={self._name}"
        return View(self._api.list(PODS, self._namespace, label_selector=selector).items, self._semaphore)

    def until(self, wanted: str, true: Callable[[View], bool], *, since: float, timeout: float) -> View:
        """Wait for `true`, printing each move with its seconds after `since` (monotonic). Raises TimedOut."""
        deadline = time.monotonic() + timeout
        while True:
            for at, before in self._news():
                for line in moves(before, self._semaphore):
                    print(f"  {at - since:7.2f} s  {line}", flush=True)
            view = self.look()
            if true(view):
                return view
            if time.monotonic() > deadline:
                raise TimedOut(f"waited {timeout:g} s until {wanted}", f"\n{view}")

    def _news(self) -> Iterator[tuple[float, Object]]:
        """Take in what the watch has shown: when, and what there was before; waits a little where there is nothing."""
        try:
            while True:
                at, after = self._seen.get(timeout=0.2)
                before, self._semaphore = self._semaphore, after
                yield at, before
        except queue.Empty:
            return

    def _follow_configmap(self) -> None:
        for change in self._api.follow(CONFIGMAPS, self._namespace, name=self._name):
            now = time.monotonic()
            objects = change.items if isinstance(change, Snapshot) else [change.obj] if isinstance(change, Put) else []
            for obj in objects:
                self._seen.put((now, describe_object(obj)))

    def _follow_leases(self) -> None:
        """With tickets who holds is computed, here as in every sidecar, from all Leases that there are at a time."""
        leases: dict[str, Object] = {}
        known = {"name": self._name, "namespace": self._namespace, "engine": "tickets", "error": None}
        for change in self._api.follow(LEASES, self._namespace, label_selector=tickets.selector(self._name)):
            now = time.monotonic()
            if isinstance(change, Snapshot):
                leases = {lease["metadata"]["name"]: lease for lease in change.items}
            elif isinstance(change, Put):
                leases[change.obj["metadata"]["name"]] = change.obj
            elif isinstance(change, Removed):
                leases.pop(change.obj["metadata"]["name"], None)
            with suppress(NoSemaphore):
                look = tickets.see(self._api, self._name, self._namespace, list(leases.values()))
                self._seen.put((now, {**known, **view(look.semaphore)}))


def moves(before: Object, after: Object) -> list[str]:
    """What became of each permit and each place between two revisions, in words."""
    had = {grant["uid"]: grant for grant in before["holders"]}
    has = {grant["uid"]: grant for grant in after["holders"]}
    lost = [grant for uid, grant in had.items() if uid not in has]
    lines = []
    for grant in (grant for uid, grant in has.items() if uid not in had):
        source = next((other for other in lost if other["resources"] == grant["resources"]), None)
        if source:
            lost.remove(source)
        origin = f"{source['holder']} → " if source else ""
        lines.append(f"{said(grant['resources']):6} {origin}{grant['holder']}  fence {grant['fence']}")
    lines += [f"{said(grant['resources']):6} {grant['holder']} → free" for grant in lost]
    waited = {waiter["uid"] for waiter in before["waiters"]}
    waits = {waiter["uid"] for waiter in after["waiters"]}
    lines += [f"       {w['holder']} waits at place {w['place']}" for w in after["waiters"] if w["uid"] not in waited]
    left = [w["holder"] for w in before["waiters"] if w["uid"] not in waits | set(has)]
    return [*lines, *(f"       {holder} has left the queue" for holder in left)]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Distributor sidecar: attends one semaphore for its Pod and tells the application what it holds.

The decisions are in `decisions/`, the loop in `verbs/attendance.py`; here is what surrounds them: the claim
file, the pages, the metrics, the Events, and what happens on SIGTERM.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import prometheus_client

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant, Grant
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import Sight
from muster.process import Answer, Events, Web, on_signals, say

RELEASE_SECONDS = 5.0  # how long a release at SIGTERM may take; the Pod's end releases all the same
SILENT_SECONDS = 60.0  # how long after the latest resync the loop may be silent before it is called dead


@dataclass(frozen=True)
class Settings:
    """How one sidecar runs; `resync` in seconds."""

    name: str
    namespace: str
    claimant: Claimant
    engine: str = "annotations"
    claim_file: Path | None = None
    release_on_term: bool = False
    listen: str | None = "127.0.0.1:8377"
    resync: tuple[float, float] = (50.0, 70.0)


class Distributor:
    """One run of the sidecar, from the first claim to SIGTERM."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api, self._settings = api, settings
        self._attendant = verbs.attendant(
            api,
            engine=settings.engine,
            name=settings.name,
            namespace=settings.namespace,
            claimant=settings.claimant,
            resync=settings.resync,
        )
        self._sight = Sight(trouble="the semaphore has not been read yet")
        self._metrics = Metrics()
        self._events: Events | None = None

    def run(self) -> int:
        """Attend until SIGTERM or SIGINT; the process's exit status."""
        settings, me = self._settings, self._settings.claimant
        on_signals(self._attendant.stop)
        web = Web(settings.listen, self.routes(), self._metrics.registry) if settings.listen else None
        if me.uid:
            self._events = Events(self._api, settings.namespace, me.holder, me.uid)
        where = f"{settings.namespace}/{settings.name}"
        say(logging.INFO, "attending", semaphore=where, holder=me.holder, port=web.port if web else None)
        try:
            for sight in self._attendant.sights():
                self.show(sight)
        finally:
            self._leave()
            if web:
                web.close()
        return 0

    def routes(self) -> dict[str, Any]:
        return {"/healthz": self._healthz, "/readyz": self._readyz, "/claim": self._claim}

    def show(self, sight: Sight) -> None:
        """Tell the application, the metrics, the log and the cluster what changed; the application first."""
        before, self._sight = self._sight, sight
        changed = _fence(sight.grant) != _fence(before.grant)
        first_look = before.semaphore is None and sight.semaphore is not None
        if changed or first_look:  # at the first look an earlier run may have left a file
            self._publish(sight.grant)
        if changed:
            self._report_grant(before.grant, sight.grant)
        elif sight.place is not None and before.place is None:
            say(logging.INFO, "waiting", place=sight.place)
            self._tell("ResourceWaiting", f"waits at place {sight.place} of {self._settings.name}")
        if sight.trouble and sight.trouble != before.trouble:
            say(logging.WARNING, "trouble", why=sight.trouble)
            self._tell("ResourceTrouble", sight.trouble, warning=True)
        self._metrics.show(sight)

    # ------------------------------------------------------------------------------------------ private

    def _publish(self, grant: Grant | None) -> None:
        path = self._settings.claim_file
        if path is None:
            return
        if grant is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, claim_text(self._settings, grant, shell=path.suffix == ".env"))

    def _report_grant(self, before: Grant | None, after: Grant | None) -> None:
        if before is not None:
            resource = next(iter(before.resources))
            say(logging.WARNING, "lost", resource=resource, fence=before.fence)
            self._tell("ResourceLost", f"lost {resource} (fence {before.fence}) of {self._settings.name}", warning=True)
        if after is not None:
            resource = next(iter(after.resources))
            say(logging.INFO, "granted", resource=resource, fence=after.fence)
            self._tell("ResourceGranted", f"holds {resource} (fence {after.fence}) of {self._settings.name}")

    def _tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        if self._events:
            self._events.tell(reason, message, warning=warning)

    def _leave(self) -> None:
        """A native sidecar ends after the application, so the resource is free; any other must assume it is in use."""
        settings, me = self._settings, self._settings.claimant
        if not settings.release_on_term:
            say(logging.INFO, "leaving; what is held goes with the end of the Pod")
            return
        self._publish(None)
        try:
            had = verbs.leave(
                self._api,
                engine=settings.engine,
                name=settings.name,
                namespace=settings.namespace,
                claimant=me,
                timeout=RELEASE_SECONDS,
            )
            say(logging.INFO, "left", outcome="released" if had else "absent")
        except (MusterError, ApiError) as error:
            say(logging.WARNING, "could not release; it goes with the end of the Pod", error=str(error))

    def _healthz(self) -> Answer:
        silent = time.monotonic() - self._attendant.turned
        well = silent < self._settings.resync[1] + SILENT_SECONDS
        return 200 if well else 503, {"alive": well, "silent_seconds": round(silent, 1)}

    def _readyz(self) -> Answer:
        sight = self._sight
        return 503 if sight.semaphore is None else 200, {"ready": sight.semaphore is not None, "trouble": sight.trouble}

    def _claim(self) -> Answer:
        sight = self._sight
        if sight.grant is None:
            return 503, {"claimed": False, "place": sight.place, "trouble": sight.trouble}
        return 200, {"claimed": True, **claim_fields(self._settings, sight.grant)}


class Metrics:
    """The Prometheus metrics of one sidecar."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        gauge = prometheus_client.Gauge
        by_resource = ["resource"]
        self._capacity = gauge("muster_semaphore_capacity", "Permits there are", by_resource, registry=self.registry)
        self._held = gauge("muster_semaphore_held", "Permits in use", by_resource, registry=self.registry)
        self._waiters = gauge("muster_semaphore_waiters", "Holders that wait", registry=self.registry)
        self._claimed = gauge("muster_claim_held", "1 while this holder has a resource", registry=self.registry)
        self._fence = gauge("muster_claim_fence", "Fence of what this holder has, else 0", registry=self.registry)
        self._trouble = gauge("muster_semaphore_trouble", "1 while something is wrong", registry=self.registry)
        self._grants = prometheus_client.Counter(
            "muster_claim_grants", "Grants that this holder had", registry=self.registry
        )
        self._last_fence = 0

    def show(self, sight: Sight) -> None:
        if sight.semaphore is not None:
            view = engine.view(sight.semaphore)
            self._capacity.clear()
            self._held.clear()
            for resource in view["resources"]:
                self._capacity.labels(resource["name"]).set(resource["capacity"])
                self._held.labels(resource["name"]).set(resource["held"])
            self._waiters.set(len(view["waiters"]))
        fence = _fence(sight.grant)
        if fence not in (0, self._last_fence):
            self._grants.inc()
            self._last_fence = fence
        self._claimed.set(1 if fence else 0)
        self._fence.set(fence)
        self._trouble.set(1 if sight.trouble else 0)


def _fence(grant: Grant | None) -> int:
    return grant.fence if grant else 0


def claim_fields(settings: Settings, grant: Grant) -> dict[str, Any]:
    """What the application may know of its claim."""
    return {
        "semaphore": f"{settings.namespace}/{settings.name}",
        "holder": settings.claimant.holder,
        "resource": next(iter(grant.resources)),
        "fence": grant.fence,
        "since": grant.since,
    }


def claim_text(settings: Settings, grant: Grant, *, shell: bool) -> str:
    """The content of the claim file: one JSON object, or `DISTRIBUTOR_…=…` lines for a shell to read."""
    fields = claim_fields(settings, grant)
    if shell:
        return "".join(f"DISTRIBUTOR_{key.upper()}={shlex.quote(str(value))}\n" for key, value in fields.items())
    return json.dumps(fields) + "\n"


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a half. Others may read it (mode 0644)."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

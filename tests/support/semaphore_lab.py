# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of the semaphore need around a real API server: Pods that run nowhere, attendants, and a recorder."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS, Api, ApiError, Gone
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import Sight
from ansible_collections.muster.coordination.tests.support import legality

PATIENCE = 30.0  # seconds: a deadline for what should take far less, on a machine that may be busy


def until(true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> float:
    """Wait for it, and return after how many seconds it came; on failure say what was waited for."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


class Lab:
    """One semaphore in one namespace."""

    def __init__(self, api: Api, namespace: str, name: str = "sem") -> None:
        self.api, self.namespace, self.name = api, namespace, name
        self.attending: list[Attending] = []

    def semaphore(self, capacity: dict[str, int], **annotations: str) -> None:
        metadata = {"name": self.name, "namespace": self.namespace}
        marks = {engine.CAPACITY: json.dumps(capacity), **annotations}
        self.api.create(CONFIGMAPS, {"metadata": {**metadata, "annotations": marks}})

    def annotate(self, **annotations: str) -> None:
        """As kubectl annotate --overwrite: again when somebody else was faster."""
        while True:
            obj = self.api.get(CONFIGMAPS, self.name, self.namespace)
            merged = {**(obj["metadata"].get("annotations") or {}), **annotations}
            try:
                self.api.replace(CONFIGMAPS, {**obj, "metadata": {**obj["metadata"], "annotations": merged}})
                return
            except ApiError as error:
                if error.status != 409:
                    raise

    def annotations(self) -> dict[str, str]:
        return self.api.get(CONFIGMAPS, self.name, self.namespace)["metadata"].get("annotations") or {}

    def seen(self) -> engine.Semaphore:
        return on_annotations.read(self.api.get(CONFIGMAPS, self.name, self.namespace))

    def pod(self, name: str) -> str:
        """A Pod that no node takes: it stays Pending. Returns its uid."""
        spec = {
            "schedulerName": "nobody",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "none"}],
        }
        obj = {"metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        return self.api.create(PODS, obj)["metadata"]["uid"]

    def kill(self, name: str) -> None:
        self.api.delete(PODS, name, self.namespace)

    def finish(self, name: str, phase: str = "Succeeded") -> None:
        pod = self.api.get(PODS, name, self.namespace)
        self.api.replace(PODS, {**pod, "status": {**pod.get("status", {}), "phase": phase}}, "status")

    def attend(self, name: str, uid: str = "", *, lease: int | None = None, api: Api | None = None, **wish: Any):
        claimant = Claimant(name, uid, {wish.pop("want", ANY): 1}, wish.pop("priority", 0), lease)
        attending = Attending(api or self.api, self.name, self.namespace, claimant)
        self.attending.append(attending)
        return attending

    def sidecar(self, name: str, **options: Any) -> Attending:
        """A Pod and who attends for it."""
        return self.attend(name, self.pod(name), **options)

    def release(self, name: str, uid: str | None = None) -> None:
        on_annotations.write(
            self.api,
            self.name,
            self.namespace,
            lambda before: engine.release(before, name, uid, now=on_annotations.utc_now()),
        )

    def close(self) -> None:
        for attending in self.attending:
            attending.stop()


class Attending:
    """An Attendant in a thread; `sight` is what it saw last."""

    def __init__(self, api: Api, name: str, namespace: str, claimant: Claimant) -> None:
        self.attendant = verbs.attendant(api, name=name, namespace=namespace, claimant=claimant)
        self.claimant = claimant
        self.sight = Sight(trouble="nothing yet")
        self.sights: list[Sight] = []
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"attend {claimant.holder}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for sight in self.attendant.sights():
                self.sight = sight
                self.sights.append(sight)
        except Exception as error:
            self.error = error

    @property
    def fence(self) -> int | None:
        return self.sight.grant.fence if self.sight.grant else None

    def holds(self, seconds: float = PATIENCE) -> float:
        return self._until(lambda: self.fence, "a grant", seconds)

    def waits(self, place: int | None = None, seconds: float = PATIENCE) -> float:
        what = f"place {place or 'in the queue'}"
        return self._until(lambda: self.sight.place and place in (None, self.sight.place), what, seconds)

    def says(self, words: str, seconds: float = PATIENCE) -> float:
        return self._until(lambda: words in (self.sight.trouble or ""), f"trouble with {words!r}", seconds)

    def _until(self, true: Callable[[], Any], what: str, seconds: float) -> float:
        try:
            return until(lambda: self.error or true(), f"{what} for {self.claimant.holder}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; its last sight: {self.sight}") from None
        finally:
            if self.error:
                raise self.error

    def stop(self) -> None:
        self.attendant.stop()
        self._thread.join(10)
        assert not self._thread.is_alive(), "an attendant that was stopped goes on"


class Recorder:
    """Records every revision of a ConfigMap by a watch, and has each judged as it comes."""

    def __init__(self, api: Api, name: str, namespace: str) -> None:
        self._api, self._name, self._namespace = api, name, namespace
        self.history = legality.History()
        self.illegal: list[str] = []
        self.last_version = 0
        self._stopped = threading.Event()
        first = api.get(CONFIGMAPS, name, namespace)
        self._judge(first)
        self._thread = threading.Thread(target=self._run, args=(first["metadata"]["resourceVersion"],), daemon=True)
        self._thread.start()

    def _run(self, version: str) -> None:
        selector = f"metadata.name={self._name}"
        while not self._stopped.is_set():
            try:
                for kind, obj in self._api.watch(
                    CONFIGMAPS, self._namespace, resource_version=version, field_selector=selector, timeout=5
                ):
                    version = obj["metadata"]["resourceVersion"]
                    if kind == "MODIFIED":
                        self._judge(obj)
                    elif kind != "BOOKMARK":
                        self.illegal.append(f"the ConfigMap was {kind}")
                    self.last_version = int(version)
            except Gone:  # a server that was started anew remembers no events; its store remembers all revisions
                version = self._read_back(int(version))
            except ApiError:
                time.sleep(0.05)

    def _read_back(self, version: int) -> str:
        """Judge what was written after `version`, revision by revision; returns the revision that was reached."""
        only = {"namespace": self._namespace, "field_selector": f"metadata.name={self._name}"}
        reached = version
        with contextlib.suppress(ApiError):  # still unwell: the watch is tried from where we came to
            newest = int(self._api.list(CONFIGMAPS, **only).resource_version)
            for revision in range(version + 1, newest + 1):
                for obj in self._api.list(CONFIGMAPS, **only, at=str(revision)).items:
                    if int(obj["metadata"]["resourceVersion"]) == revision:
                        self._judge(obj)
                reached = self.last_version = revision
        return str(reached)

    def _judge(self, obj: dict[str, Any]) -> None:
        version = int(obj["metadata"]["resourceVersion"])
        if version <= self.last_version:
            self.illegal.append(f"revision {version} came after {self.last_version}")
        self.last_version = version
        found = self.history.step(obj["metadata"].get("annotations") or {})
        self.illegal += [f"revision {version}: {violation}" for violation in found]

    def finish(self) -> legality.History:
        """Wait until the last revision was judged, and return the history."""
        last = int(self._api.get(CONFIGMAPS, self._name, self._namespace)["metadata"]["resourceVersion"])
        until(lambda: self.last_version >= last or self.illegal, f"the recorder to reach revision {last}")
        self._stopped.set()
        self._thread.join(10)
        return self.history

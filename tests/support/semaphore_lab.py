# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tests of the semaphore need around a real API server: Pods that run nowhere, attendants, and a recorder."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    Api,
    ApiError,
    Gone,
    NotFound,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.client.answers import Asked
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY, Claimant
from ansible_collections.muster.coordination.plugins.module_utils.verbs import annotations as on_annotations
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.attendance import Sight
from ansible_collections.muster.coordination.tests.support import legality
from ansible_collections.muster.coordination.tests.support.docket import Docket, Verdict

# seconds: a deadline for what should take far less, on a machine that may be busy
PATIENCE = float(os.environ.get("MUSTER_TEST_PATIENCE", "30"))


def until(true: Callable[[], Any], what: str, seconds: float = PATIENCE) -> float:
    """Wait for it, and return after how many seconds it came; on failure say what was waited for."""
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.01)
    return time.monotonic() - began


class Lab:
    """One semaphore of either engine in one namespace, and the hand of a person."""

    def __init__(self, api: Api, namespace: str, name: str = "sem", engine_name: str = "annotations") -> None:
        self.api, self.namespace, self.name, self.engine = api, namespace, name, engine_name
        self.attending: list[Attending] = []
        self.hand_edits: set[int] = set()  # revisions that the person wrote
        self.released: set[str] = set()  # holders who gave back

    @property
    def at(self) -> dict[str, str]:
        """Where the semaphore is, for the verbs."""
        return {"engine": self.engine, "name": self.name, "namespace": self.namespace}

    @property
    def resource(self) -> Resource:
        return LEASES if self.engine == "tickets" else CONFIGMAPS

    @property
    def capacity_key(self) -> str:
        return tickets.CAPACITY if self.engine == "tickets" else engine.CAPACITY

    def semaphore(self, capacity: dict[str, int], **annotations: str) -> None:
        """Made by hand: it has its capacity, and nothing of ours yet."""
        metadata: dict[str, Any] = {"name": self.name, "namespace": self.namespace}
        if self.engine == "tickets":
            metadata["labels"] = {tickets.LABEL: self.name}
        metadata["annotations"] = {self.capacity_key: json.dumps(capacity), **annotations}
        self._note(self.api.create(self.resource, {"metadata": metadata}))

    def annotate(self, **annotations: str | None) -> None:
        """As kubectl annotate --overwrite (None takes one away): again when somebody else was faster."""
        self.edit(lambda before: {**before, **annotations})

    def edit(self, change: Callable[[dict[str, str]], Mapping[str, str | None]]) -> None:
        """As kubectl edit of the annotations, begun again where somebody else was faster."""
        while True:
            obj = self.api.get(self.resource, self.name, self.namespace)
            merged = change(obj["metadata"].get("annotations") or {})
            merged = {key: value for key, value in merged.items() if value is not None}
            try:
                edited = {**obj, "metadata": {**obj["metadata"], "annotations": merged}}
                return self._note(self.api.replace(self.resource, edited))
            except ApiError as error:
                if error.status != 409:
                    raise

    def ask_for(self, capacity: dict[str, int] | str) -> None:
        """Edit the capacity by hand; a text is written as it is."""
        text = capacity if isinstance(capacity, str) else json.dumps(capacity)
        self.annotate(**{self.capacity_key: text})

    def remove(self) -> None:
        """Delete the object that is the semaphore, by hand."""
        self.api.delete(self.resource, self.name, self.namespace)

    def annotations(self) -> dict[str, str]:
        return self.api.get(self.resource, self.name, self.namespace)["metadata"].get("annotations") or {}

    def _note(self, written: dict[str, Any]) -> None:
        self.hand_edits.add(int(written["metadata"]["resourceVersion"]))

    def seen(self) -> engine.Semaphore:
        return on_annotations.read(self.api.get(CONFIGMAPS, self.name, self.namespace))

    def pod(self, name: str, *, on_lost_node: bool = False) -> str:
        """A Pod that no node takes: it stays Pending. Returns its uid.

        `on_lost_node`: it is bound to a node that is not there, so that who deletes it waits for that node in vain.
        """
        spec: dict[str, Any] = {
            "schedulerName": "nobody",
            "terminationGracePeriodSeconds": 30 if on_lost_node else 0,
            "automountServiceAccountToken": False,
            "containers": [{"name": "app", "image": "none"}],
        }
        if on_lost_node:
            spec["nodeName"] = "lost"
        obj = {"metadata": {"name": name, "namespace": self.namespace}, "spec": spec}
        return self.api.create(PODS, obj)["metadata"]["uid"]

    def kill(self, name: str) -> None:
        self.api.delete(PODS, name, self.namespace)

    def finish(self, name: str, phase: str = "Succeeded") -> None:
        pod = self.api.get(PODS, name, self.namespace)
        self.api.replace(PODS, {**pod, "status": {**pod.get("status", {}), "phase": phase}}, "status")

    def kill_at_once(self, name: str) -> None:
        """kubectl delete --force --grace-period=0, of a Pod whose node is lost."""
        asked = Asked("delete", PODS, self.namespace, name)
        self.api._write("DELETE", asked, {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})

    def gone(self, name: str) -> bool:
        try:
            self.api.get(PODS, name, self.namespace)
        except NotFound:
            return True
        return False

    def attend(
        self, name: str, uid: str = "", *, lease: int | None = None, api: Api | None = None, **wish: Any
    ) -> Attending:
        """`want` a resource (any one), `priority`; all else as `verbs.attendant` takes it."""
        claimant = Claimant(name, uid, {wish.pop("want", ANY): 1}, wish.pop("priority", 0), lease)
        attending = Attending(api or self.api, self, claimant, **wish)
        self.attending.append(attending)
        return attending

    def sidecar(self, name: str, **options: Any) -> Attending:
        """A Pod and who attends for it."""
        return self.attend(name, self.pod(name), **options)

    def release(self, name: str, uid: str | None = None) -> None:
        self.released.add(name)
        verbs.release(self.api, holder=name, holder_uid=uid, **self.at)

    def judge(self, docket: Docket) -> Verdict:
        """What the docket says of all that happened; raises AssertionError for whatever must not be.

        Whoever believed to hold something believed in a grant that was really its own.
        """
        docket.by_hand |= self.hand_edits
        docket.may_go(*self.released)
        verdict = docket.verdict()
        assert verdict.violations == [], "\n".join(verdict.violations)
        for attending in self.attending:
            for fence in attending.fences:
                assert verdict.grants.get(fence, ("nobody",))[0] == attending.claimant.holder, f"fence {fence}"
        return verdict

    def close(self) -> None:
        for attending in self.attending:
            attending.stop()


class Attending:
    """An Attendant in a thread; `sight` is what it saw last."""

    def __init__(self, api: Api, lab: Lab, claimant: Claimant, **settings: Any) -> None:
        self.attendant = verbs.attendant(api, claimant=claimant, **lab.at, **settings)
        self.claimant, self._api, self._lab = claimant, api, lab
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

    @property
    def fences(self) -> list[int]:
        """All that it ever had, in order."""
        had = [sight.grant.fence for sight in self.sights if sight.grant]
        return list(dict.fromkeys(had))

    def holds(self, seconds: float = PATIENCE) -> float:
        return self._until(lambda: self.fence, "a grant", seconds)

    def waits(self, place: int | None = None, seconds: float = PATIENCE) -> float:
        what = f"place {place or 'in the queue'}"
        return self._until(lambda: self.sight.place and place in (None, self.sight.place), what, seconds)

    def loses(self, seconds: float = PATIENCE) -> float:
        return self._until(lambda: not self.fence, "the end of its grant", seconds)

    def leave(self) -> bool:
        """End as a sidecar does at SIGTERM: attend no more, and give back what it has; whether it had anything."""
        self.stop()
        self._lab.released.add(self.claimant.holder)
        return verbs.leave(self._api, claimant=self.claimant, **self._lab.at)

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

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process tells of itself at its Pod: Events, and one annotation; from threads, so that nothing waits for it."""

from __future__ import annotations

import logging
import queue
import random
import threading
from datetime import UTC, datetime

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    EVENTS,
    PODS,
    Api,
    ApiError,
    Conflict,
    NotFound,
    Object,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.process import say


def pod_of(namespace: str, name: str, uid: str) -> Object:
    """As much of a Pod as an Event about it needs."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "uid": uid}}


class Events:
    """Writes Kubernetes Events about objects; what can't be written is logged and dropped."""

    def __init__(self, api: Api, component: str, backlog: int = 32) -> None:
        """`component` says who tells; `backlog` Events may wait while the API server is away."""
        self._api, self._component = api, component
        self._waiting: queue.Queue[Object] = queue.Queue(backlog)
        threading.Thread(target=self._run, name="events", daemon=True).start()

    def tell(self, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """`about` is an object with its kind and uid; `reason` is one CamelCase word for machines.

        `message` is for people (1,024 characters at most).
        """
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = about["metadata"]
        involved = {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata}
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "generateName": f"{metadata['name'][:200]}-",
                "namespace": metadata.get("namespace", "default"),
            },
            "involvedObject": {"apiVersion": about["apiVersion"], "kind": about["kind"], **involved},
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": self._component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            say(logging.WARNING, "event dropped: too many wait for the API server", reason=reason)

    def _run(self) -> None:
        while True:
            event = self._waiting.get()
            try:
                self._api.create(EVENTS, event)
            except MusterError as error:
                say(logging.WARNING, "event could not be written", reason=event["reason"], error=str(error))


class Annotation:
    """Keeps one annotation of one Pod as it was told last. What fails is tried again, or overtaken by what is newer."""

    RETRY = (1.0, 60.0)  # seconds: first and largest bound of the delay after a failure

    def __init__(self, api: Api, namespace: str, pod: str, uid: str, key: str) -> None:
        self._api, self._key = api, key
        self._pod = {"name": pod, "namespace": namespace, "uid": uid}
        self._news = threading.Condition()
        self._text: str | None = None
        self._is_due = self._is_over = False
        threading.Thread(target=self._run, name="annotation", daemon=True).start()

    def tell(self, text: str | None) -> None:
        """Have the annotation say this; None removes it."""
        with self._news:
            self._text, self._is_due = text, not self._is_over
            self._news.notify_all()

    def settle(self, timeout: float) -> bool:
        """Wait for up to `timeout` seconds until the Pod says what was told last; whether it does."""
        with self._news:
            return self._news.wait_for(lambda: not self._is_due, timeout)

    def _run(self) -> None:
        failures = 0
        while True:
            with self._news:
                self._news.wait_for(lambda: self._is_due)
                text = self._text
            try:
                self._api.patch(PODS, {"metadata": {**self._pod, "annotations": {self._key: text}}})
                failures = 0
            except (NotFound, Conflict) as error:  # it is not our Pod any more
                say(logging.INFO, "the Pod is gone: no more is said at it", error=str(error))
                self._done(text, for_ever=True)
                return
            except MusterError as error:
                failures += 1
                if failures == 1 or (isinstance(error, ApiError) and error.status == 403):
                    say(logging.WARNING, "the Pod could not be annotated", annotation=self._key, error=str(error))
                first, largest = self.RETRY
                with self._news:
                    self._news.wait_for(
                        lambda: self._text != text,  # noqa: B023 it is asked for here and now
                        random.uniform(0.5, 1.0) * min(largest, first * 2 ** min(failures, 16)),
                    )
                continue
            self._done(text)

    def _done(self, text: str | None, *, for_ever: bool = False) -> None:
        with self._news:
            self._is_over = for_ever
            if for_ever or self._text == text:
                self._is_due = False
            self._news.notify_all()

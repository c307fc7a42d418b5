# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator of VirtualMachines: does the steps of `decisions/machine.py`, one after the other.

Before each step the term is asked for how long it may still act, and the step is given no longer than that. What it
does at the cloud carries the term's fence and scope.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import machine as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import (
    Call,
    Create,
    Delete,
    Done,
    Find,
    Found,
    Resize,
    Step,
    Write,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs import machines
from muster.frame.authority import Term
from muster.process import say
from muster.vm.cloud_client import CloudClient
from muster.vm.cloud_wire import (
    Changed,
    Closed,
    KeyReused,
    NameTaken,
    NotThere,
    NotUnderstood,
    RateLimited,
    Spent,
    Writer,
)

CALL_SECONDS: Final = 3.0  # for one call of the cloud
WRITE_SECONDS: Final = 10.0  # for one write to the object
STEPS: Final = 24  # in one go; the longest sound way takes 9
AGAIN_SECONDS: Final = 1.0  # after so many steps

Object = dict[str, Any]


class Tell(Protocol):
    """Writes an Event about an object."""

    def __call__(self, about: Object, /, reason: str, message: str, *, warning: bool = False) -> None: ...


class VirtualMachines:
    """Reconciles one object at a time a thread; safe for several threads with different objects."""

    def __init__(self, api: Api, cloud: CloudClient, tell: Tell) -> None:
        self._api, self._cloud, self._tell = api, cloud, tell
        self._settled: dict[str, str] = {}  # uid to the version that we wrote last: its coming back is no news

    def reconcile(self, obj: Object, term: Term) -> float | None:
        """Do what is to be done with the object; seconds after which to do it again, None: when it changes.

        Raises what the term, the API server and the cloud raise; to do it again later is always right.
        """
        uid = obj["metadata"]["uid"]
        if self._settled.pop(uid, None) == obj["metadata"]["resourceVersion"]:
            return None
        found: Found | None = None
        refusal, is_own = "", False  # the second: whether the version is one that we wrote
        for _count in range(STEPS):
            step = _next(obj, found, refusal, term.fence)
            if isinstance(step, Done):
                if is_own and "deletionTimestamp" not in obj["metadata"]:  # what is gone never comes back
                    self._settled[uid] = obj["metadata"]["resourceVersion"]
                return None
            seconds = term.check()
            if isinstance(step, Write):
                written = machines.write(self._api, step, timeout=min(seconds, WRITE_SECONDS))
                if written is None:
                    return None
                if written.obj.get("status") == step.desired.get("status"):
                    self._tell_change(obj, written.obj)
                if not written.is_own:  # somebody may have put it right, or want it to be looked at
                    refusal, found = "", None
                obj, is_own = written
                continue
            try:
                found = self._call(step, found, Writer(term.fence, term.scope), min(seconds, CALL_SECONDS))
            except RateLimited as error:
                return error.retry_after
            except NotUnderstood as error:
                if not isinstance(step, Create | Resize):
                    raise
                refusal = str(error)
        return AGAIN_SECONDS

    def _call(self, step: Call, found: Found | None, writer: Writer, timeout: float) -> Found | None:
        """Make one call; what is known of the cloud after it. None: it has to be looked again."""
        cloud = self._cloud
        say(logging.DEBUG, "call", step=type(step).__name__, **step._asdict(), fence=writer.fence)
        try:
            match step:
                case Find():
                    return decisions.read_found(
                        cloud.find(writer, step.name, step.uid, close=step.close, timeout=timeout)
                    )
                case Create():
                    asked = {"name": step.name, "uid": step.uid, **_wanted(step.wanted)}
                    cloud.create(writer, asked, step.request, timeout=timeout)
                case Resize():
                    wanted = step.wanted
                    cloud.resize(
                        writer, step.ident, wanted.cores, wanted.memory, revision=step.revision, timeout=timeout
                    )
                case Delete():
                    cloud.delete(writer, step.ident, timeout=timeout)
        except (Changed, Closed, KeyReused, NameTaken, NotThere):
            pass
        except Spent:
            if found is not None and isinstance(step, Create):
                return found.has_spent(step.request)
        return None

    def _tell_change(self, before: Object, after: Object) -> None:
        """An Event where the phase has changed, to one that people wait for."""
        status, known = after.get("status") or {}, before.get("status") or {}
        phase, machine = status.get("phase"), (status.get("machine") or {}).get("id")
        if phase == known.get("phase"):
            return
        if phase == "Failed":
            self._tell(after, "Failed", status.get("message", ""), warning=True)
        elif phase == "Running":
            self._tell(after, "Running", f"machine {machine} is as the spec wants it")
        say(logging.INFO, "phase", name=after["metadata"]["name"], phase=phase, machine=machine)


def _next(obj: Object, found: Found | None, refusal: str, fence: int) -> Step:
    if refusal:
        return decisions.refused(obj, refusal, fence, _now())
    return decisions.next_step(obj, found, fence, _now())


def _wanted(wanted: decisions.Wanted) -> dict[str, Any]:
    return {"cores": wanted.cores, "memory": wanted.memory, "image": wanted.image}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

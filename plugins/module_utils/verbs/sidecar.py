# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar in a workload that is the user's own: put in or taken out by one compare-and-swap on the workload.

What the API server would make of a write is asked before it (a dry run): it refuses what it would refuse, it says
whether anything changes by it, and an old one is found out that would drop `restartPolicy` from an init container, so
that no Pod would ever start.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    Api,
    Put,
    Removed,
    Resource,
    Snapshot,
    Trouble,
)
from ansible_collections.muster.coordination.plugins.module_utils.commit import Committed, commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions import rollout
from ansible_collections.muster.coordination.plugins.module_utils.decisions import sidecar as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import ANY
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sidecar import Sidecar
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut

Object = dict[str, Any]
Result = dict[str, Any]

KINDS: Final[Mapping[str, Resource]] = {
    "Deployment": Resource("apps/v1", "deployments", "Deployment"),
    "StatefulSet": Resource("apps/v1", "statefulsets", "StatefulSet"),
    "DaemonSet": Resource("apps/v1", "daemonsets", "DaemonSet"),
}


def ensure(
    api: Api,
    *,
    kind: str,
    name: str,
    namespace: str,
    state: str = "present",
    wait: bool = False,
    wait_timeout: float = 120.0,
    check_mode: bool = False,
    **settings: Any,
) -> Result:
    """Attach the sidecar (state present; `settings` as `wanted` takes them), or take it out (absent).

    `wait`: until every Pod runs it, `wait_timeout` seconds at most; raises TimedOut, the workload is changed by then.
    Raises Malformed for a name that the user uses already; MusterError where the workload is not there.
    """
    if kind not in KINDS:
        raise Malformed("kind", kind, f"give one of {', '.join(KINDS)}")
    if state not in ("present", "absent"):
        raise Malformed("state", state, "give present or absent")
    sidecar = wanted(**settings) if state == "present" else None
    done = _commit(api, KINDS[kind], name, namespace, sidecar, check_mode)
    after = done.verdict if check_mode and done.verdict else done.after
    hindrance = rollout.held_up(after) if after else ""
    if wait and after and not hindrance and not check_mode:
        _wait(api, KINDS[kind], name, namespace, wait_timeout, sidecar)
    return {
        "changed": done.changed,
        "before": decisions.parts(done.before),
        "after": decisions.parts(after),
        "reasons": list(_reasons(done, after, sidecar)),
        "warnings": list(_warnings(after, sidecar, hindrance if done.changed or wait else "")),
        "containers": list(decisions.told(after)),
        "service_account": after["spec"]["template"]["spec"].get("serviceAccountName", "default") if after else None,
    }


def wanted(
    *,
    image: str | None = None,
    semaphore: str | None = None,
    resource: str | None = None,
    resources: Mapping[str, Any] | None = None,
    semaphores: Sequence[Mapping[str, Any]] | None = None,
    compute: Mapping[str, Any] | None = None,
    containers: Sequence[str] | None = None,
    env: Sequence[Mapping[str, Any]] | None = None,
    **more: Any,
) -> Sidecar:
    """The sidecar that these options describe; an option that is None has its default. Raises Malformed."""
    wants: dict[str, dict[str, Any]] = {}
    if semaphore:
        wants[semaphore] = _want(resources if resources is not None else {resource or ANY: 1})
    for one in semaphores or ():
        if one["name"] in wants:
            raise Malformed("semaphores", one["name"], "name each once, with all the resources that are wanted of it")
        wants[one["name"]] = _want(one.get("resources") or {ANY: 1})
    chosen = {"containers": tuple(containers or ()), "env": tuple(env or ()), "compute": compute or None, **more}
    given = {name: value for name, value in chosen.items() if value is not None}
    return Sidecar(image=image or "", semaphores=wants, **given)


def _commit(
    api: Api, resource: Resource, name: str, namespace: str, sidecar: Sidecar | None, check_mode: bool
) -> Committed[Object | None]:
    def decide(before: Object | None) -> tuple[Object | None, Object | None]:
        if before is None and sidecar is None:
            return None, None
        if before is None:
            what = f"{resource.kind} {namespace}/{name}"
            raise MusterError(f"{what} does not exist: deploy it first, the sidecar is added to one that is there")
        desired = decisions.attached(before, sidecar) if sidecar else decisions.detached(before)
        if desired == before:
            return before, before
        foreseen = api.replace(resource, desired, dry_run=True)
        _refuse_without_native_sidecars(foreseen, sidecar)
        return (before if _same(before, foreseen) else desired), foreseen

    return commit(api, resource, name, namespace, decide, check_mode=check_mode)


def _same(before: Object, foreseen: Object) -> bool:
    """Whether a write changes nothing that we write, by the word of the API server, which knows its own defaults."""

    def told(workload: Object) -> Any:
        return workload["spec"], (workload["metadata"].get("annotations") or {})

    return bool(told(before) == told(foreseen))


def _refuse_without_native_sidecars(foreseen: Object, sidecar: Sidecar | None) -> None:
    init = (decisions.parts(foreseen).get("initContainer") or {}) if sidecar else {"restartPolicy": "Always"}
    if init.get("restartPolicy") != "Always":
        raise MusterError(
            "this API server drops restartPolicy from init containers, for it has no native sidecars: "
            "nothing was changed. Use Kubernetes 1.29 or later"
        )


def _wait(api: Api, resource: Resource, name: str, namespace: str, timeout: float, sidecar: Sidecar | None) -> None:
    """Until every Pod runs what the spec says."""
    stop = threading.Event()
    timer = threading.Timer(timeout, stop.set)
    timer.daemon = True
    timer.start()
    what, seen = f"{resource.kind} {namespace}/{name}", "nothing of it"
    try:
        for change in api.follow(resource, namespace, name=name, stop=stop):
            if isinstance(change, Trouble):
                seen = str(change.error)
            elif isinstance(change, Removed) or (isinstance(change, Snapshot) and not change.items):
                raise MusterError(f"{what} was removed while its roll-out was waited for")
            elif isinstance(change, Snapshot | Put):
                done, seen = rollout.progress(change.items[0] if isinstance(change, Snapshot) else change.obj)
                if done:
                    return
    finally:
        timer.cancel()
    hint = "; with gate=true a Pod starts when it holds, so no more become ready than there are permits"
    seen += hint if sidecar and sidecar.gate else ""
    raise TimedOut(f"{what} is changed, but not all of its Pods after {timeout:g} s (wait_timeout)", seen)


def _reasons(done: Committed[Object | None], after: Object | None, sidecar: Sidecar | None) -> Iterator[str]:
    if done.before is None:
        yield "there is no such workload, so nothing of the sidecar either"
        return
    record = decisions.recorded(done.before)
    if not done.changed:
        return
    if sidecar is None:
        yield "the sidecar was taken out"
    elif record is None:
        yield f"the sidecar was added, and told to {', '.join(decisions.told(after))}"
    elif record.digest == decisions.digest(sidecar) and record.containers == decisions.told(after):
        yield "what somebody else changed in the sidecar was put right"
    else:
        yield "the sidecar was brought up to date"


def _warnings(after: Object | None, sidecar: Sidecar | None, hindrance: str) -> Iterator[str]:
    if after is None:
        return
    what = f"{after['kind']} {after['metadata']['name']}"
    if hindrance:
        yield f"{what} does not roll out by itself: {hindrance}"
    if sidecar and sidecar.gate and rollout.never_makes_room(after):
        yield (
            f"{what} keeps every old Pod until a new one is ready, but with gate=true a new one may wait for the "
            "permit of an old one, so that a roll-out gets stuck. Set its maxUnavailable to 1 and maxSurge to 0, or "
            "its strategy to Recreate"
        )


def _want(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Ansible hands a templated number on as a string, as its own type `int` allows."""
    return {r: int(n) if isinstance(n, str) and n.isdecimal() and n.isascii() else n for r, n in resources.items()}

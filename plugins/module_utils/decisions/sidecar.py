# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sidecar in somebody else's workload: put into its Pod template and taken out again, as pure functions.

Rules
1. Ours are one init container, two volumes, and in each chosen container one mount and one environment variable. All
   else is handed on as it is, in its order; so what attaches and then detaches has changed nothing.
2. The annotation RECORD of the workload (not of its Pods) says that these names are ours, and in which containers. A
   name that is used without it is somebody else's, and refused.
3. `attached` states the whole of ours each time, in the place where it is: what others changed in it is put right.
4. Ours is written with the defaults of the API server in full, so that what was written compares equal when it is read.

Theory: three-way merge with a fixed owner for each field (the idea of Kubernetes' server-side apply); the record is the
ancestor, and only names are kept in it, because what belongs to a name is stated anew each time.
"""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import (
    ANY,
    PRIORITIES,
    Resources,
    check_want,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

Object = dict[str, Any]

CONTAINER: Final = "muster-distributor"
CLAIM, TOKEN = "muster-claim", "muster-token"  # the volumes
CLAIM_FILE: Final = "MUSTER_CLAIM_FILE"  # the variable that tells the application where its claim is
RECORD: Final = "muster.dev/sidecar"
VERSION: Final = 1
PORT_NAME: Final = "muster"
USER: Final = 65532  # of the image
FOR_EVER: Final = 2**31 - 1  # waiting for a permit is no failure
TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
COMPUTE: Final[Mapping[str, Any]] = {"requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}}
PULL_POLICIES: Final = ("Always", "IfNotPresent", "Never")
OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What is asked for. `semaphores` maps names to what a Pod wants of each: resource to count, or `{ANY: 1}`.

    `containers` are those that are told of the claim; none: all but init containers. `claim_file` is an absolute path
    in them, ending in .json or .env (shell variables); its directory becomes a mount. `compute` are the container's
    requests and limits, `env` further variables, as Kubernetes writes them. Raises Malformed.
    """

    image: str
    semaphores: Mapping[str, Resources]
    engine: str = "annotations"
    priority: int = 0
    gate: bool = False
    containers: tuple[str, ...] = ()
    claim_file: str = "/run/muster/claim.json"
    release_on_term: bool = True
    annotate_pod: bool = False
    port: int = 8377
    image_pull_policy: str = "IfNotPresent"
    compute: Mapping[str, Any] = field(default_factory=lambda: COMPUTE)
    env: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.image or self.image != self.image.strip():
            raise Malformed("image", self.image, "give the image of Muster, such as registry.example.org/muster:1.0.0")
        if not self.semaphores:
            raise Malformed("semaphores", dict(self.semaphores), "name at least one semaphore")
        for name, want in self.semaphores.items():
            if not OBJECT_NAME.fullmatch(name):
                raise Malformed("semaphore", name, "give the name of its ConfigMap or Lease: a to z, 0 to 9, - and .")
            check_want(want, f"resources of {name}")
            for resource in want:
                if re.search(r"[\s,]", resource):
                    raise Malformed(f"resources of {name}", resource, "give names without commas and white space")
        if self.priority not in PRIORITIES:
            raise Malformed("priority", self.priority, f"give a whole number from {PRIORITIES[0]} to {PRIORITIES[-1]}")
        if self.priority and self.engine == "tickets":
            raise Malformed("priority", self.priority, "tickets are served as they were drawn; give engine=annotations")
        if not 1 <= self.port <= 65535:
            raise Malformed("port", self.port, "give a port from 1 to 65535")
        path = self.claim_file
        if posixpath.normpath(path) != path or not re.fullmatch(r"/[^/:][^:]*/[^:]+", path):
            raise Malformed("claim_file", path, "give an absolute path in a directory, as /run/muster/claim.json")
        if not path.endswith((".json", ".env")):
            raise Malformed("claim_file", path, "let it end in .json for JSON, or in .env for shell variables")
        ours = {variable["name"] for variable in _variables(self)}
        for variable in self.env:
            if not variable.get("name") or variable["name"] in ours:
                remedy = f"give each a name, and none of {', '.join(sorted(ours))}: these have options of their own"
                raise Malformed("env", dict(variable), remedy)

    @property
    def directory(self) -> str:
        """Where the claim is mounted."""
        return posixpath.dirname(self.claim_file)


class Record(NamedTuple):
    """What RECORD says: which containers were told of the claim, and a digest of what was asked for."""

    containers: tuple[str, ...]
    digest: str


# ---------------------------------------------------------------------------------------------- the two functions


def attached(workload: Object, sidecar: Sidecar) -> Object:
    """The workload with this sidecar and no other; itself where it has it.

    Raises Malformed where a name, path or port that the sidecar needs is the user's own, where `containers` names one
    that is not there, and where RECORD can't be read.
    """
    record = recorded(workload)
    theirs = detached(workload)
    chosen = _chosen(theirs, sidecar)
    _refuse_taken(theirs, sidecar, chosen)
    wanted = _Parts(
        container=[container(sidecar)],
        volumes=volumes(),
        mounts=[{"name": CLAIM, "mountPath": sidecar.directory, "readOnly": True}],
        env=[{"name": CLAIM_FILE, "value": sidecar.claim_file}],
        chosen=chosen,
        record=json.dumps({"version": VERSION, "containers": list(chosen), "digest": digest(sidecar)}),
    )
    return _with_parts(workload, record, wanted)


def detached(workload: Object) -> Object:
    """The workload without anything of ours, whatever the user changed meanwhile; itself where there is nothing."""
    record = recorded(workload)
    return workload if record is None else _with_parts(workload, record, _Parts())


def recorded(workload: Object) -> Record | None:
    """What RECORD says; None for a workload that has no sidecar of ours. Raises Malformed."""
    text = (workload["metadata"].get("annotations") or {}).get(RECORD)
    if text is None:
        return None
    try:
        document = json.loads(text)
        record = Record(tuple(document["containers"]), document["digest"])
        if document["version"] == VERSION and all(isinstance(one, str) for one in (*record.containers, record.digest)):
            return record
    except (ValueError, KeyError, TypeError):
        pass
    remedy = (
        f"it is no record of a sidecar of this version. Take out the init container {CONTAINER}, the volumes {CLAIM} "
        f"and {TOKEN}, the mounts of {CLAIM}, the variables {CLAIM_FILE}, and this annotation by hand"
    )
    raise Malformed(f"annotation {RECORD}", text, remedy)


def parts(workload: Object | None) -> Object:
    """What of the workload is ours, for people to compare; empty where nothing is."""
    record = recorded(workload) if workload else None
    if workload is None or record is None:
        return {}
    spec = _pod(workload)
    return {
        "annotations": {RECORD: workload["metadata"]["annotations"][RECORD]},
        "initContainer": next((c for c in spec.get("initContainers") or () if c["name"] == CONTAINER), None),
        "volumes": [v for v in spec.get("volumes") or () if _named(v, CLAIM, TOKEN)],
        "containers": {c["name"]: found for c in _containers(spec) if (found := _of_container(c, record))},
    }


def told(workload: Object | None) -> tuple[str, ...]:
    """The names of the containers that are told of the claim."""
    return tuple(parts(workload).get("containers", ()))


def digest(sidecar: Sidecar) -> str:
    """Tells two askings apart, so that a change of the user's can be told from a change of what is asked for."""
    asked = [container(sidecar), volumes()]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


# ---------------------------------------------------------------------------------------------- what is ours


def container(sidecar: Sidecar) -> Object:
    """The native sidecar: there before the user's containers, and until after them."""
    page, failures = ("/claim", FOR_EVER) if sidecar.gate else ("/readyz", 300)
    return {
        "name": CONTAINER,
        "image": sidecar.image,
        "imagePullPolicy": sidecar.image_pull_policy,
        "restartPolicy": "Always",
        "args": ["distributor", "run"],
        "env": [*_variables(sidecar), *(dict(variable) for variable in sidecar.env)],
        "ports": [{"name": PORT_NAME, "containerPort": sidecar.port, "protocol": "TCP"}],
        # the user's containers start when this has succeeded once
        "startupProbe": _probe(sidecar.port, page, period=1, failures=failures),
        # no readinessProbe: an app does not leave its Services because the API server is away for a while
        "livenessProbe": _probe(sidecar.port, "/healthz", period=10, failures=6),
        "resources": {kind: dict(amounts) for kind, amounts in sidecar.compute.items()},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": CLAIM, "mountPath": sidecar.directory},
            {"name": TOKEN, "mountPath": TOKEN_PATH, "readOnly": True},
        ],
    }


def volumes() -> list[Object]:
    """The claim, in memory, and a token which the sidecar alone mounts: the app has no business with the semaphore."""
    namespace = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources: list[Object] = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
    ]
    return [
        {"name": CLAIM, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": TOKEN, "projected": {"sources": sources, "defaultMode": 0o644}},
    ]


def _variables(sidecar: Sidecar) -> list[Object]:
    fields = {"POD_NAME": "metadata.name", "POD_UID": "metadata.uid", "MUSTER_NAMESPACE": "metadata.namespace"}
    values = {
        "MUSTER_CONFIGMAP": " ".join(_claim(name, want) for name, want in sorted(sidecar.semaphores.items())),
        "MUSTER_ENGINE": sidecar.engine,
        "MUSTER_PRIORITY": str(sidecar.priority),
        CLAIM_FILE: sidecar.claim_file,
        "MUSTER_RELEASE_ON_TERM": json.dumps(sidecar.release_on_term),
        "MUSTER_ANNOTATE_POD": json.dumps(sidecar.annotate_pod),
        "MUSTER_LISTEN": f"0.0.0.0:{sidecar.port}",
    }
    return [
        *({"name": n, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f}}} for n, f in fields.items()),
        *({"name": name, "value": value} for name, value in values.items()),
    ]


def _claim(name: str, want: Resources) -> str:
    """NAME, or NAME:RESOURCE=COUNT,…: as `muster distributor run --configmap` reads it."""
    told = ",".join(f"{resource}={count}" for resource, count in sorted(want.items()) if resource != ANY)
    return f"{name}:{told}" if told else name


def _probe(port: int, path: str, *, period: int, failures: int) -> Object:
    return {
        "httpGet": {"path": path, "port": port, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "successThreshold": 1,
        "failureThreshold": failures,
    }


# ---------------------------------------------------------------------------------------------- putting in, taking out


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is to be in the workload of ours; the defaults: nothing."""

    container: Sequence[Object] = ()
    volumes: Sequence[Object] = ()
    mounts: Sequence[Object] = ()
    env: Sequence[Object] = ()
    chosen: tuple[str, ...] = ()
    record: str | None = None


def _with_parts(workload: Object, record: Record | None, wanted: _Parts) -> Object:
    spec = _pod(workload)
    for kind in ("initContainers", "containers"):
        told = [one if one["name"] == CONTAINER else _told(one, record, wanted) for one in spec.get(kind) or ()]
        spec = _set(spec, kind, told)
    inits = _put(spec.get("initContainers"), lambda one: _named(one, CONTAINER), wanted.container)
    spec = _set(spec, "initContainers", inits)
    spec = _set(spec, "volumes", _put(spec.get("volumes"), lambda one: _named(one, CLAIM, TOKEN), wanted.volumes))
    metadata = workload["metadata"]
    notes = {**(metadata.get("annotations") or {}), RECORD: wanted.record}
    notes = {key: text for key, text in notes.items() if text is not None}
    outer = workload["spec"]
    return {
        **workload,
        "metadata": _set(metadata, "annotations", notes),
        "spec": {**outer, "template": {**outer["template"], "spec": spec}},
    }


def _told(one: Object, record: Record | None, wanted: _Parts) -> Object:
    """A container of the user's, told of the claim if it was chosen, and else not."""
    mounts, env = (wanted.mounts, wanted.env) if one["name"] in wanted.chosen else ((), ())
    ours = _is_told(one, record)
    # the token is for the sidecar alone, and a mount can't stay when its volume goes
    one = _set(one, "volumeMounts", _put(one.get("volumeMounts"), lambda mount: _named(mount, CLAIM, TOKEN), mounts))
    return _set(one, "env", _put(one.get("env"), lambda variable: ours and _named(variable, CLAIM_FILE), env))


def _is_told(one: Object, record: Record | None) -> bool:
    """Whether we told this container: by the record, or, where it was renamed since, by the mount that it has."""
    by_mount = any(_named(mount, CLAIM, TOKEN) for mount in one.get("volumeMounts") or ())
    return record is not None and (one["name"] in record.containers or by_mount)


def _of_container(one: Object, record: Record) -> Object:
    if one["name"] == CONTAINER or not _is_told(one, record):
        return {}
    found = {
        "volumeMounts": [mount for mount in one.get("volumeMounts") or () if _named(mount, CLAIM, TOKEN)],
        "env": [variable for variable in one.get("env") or () if _named(variable, CLAIM_FILE)],
    }
    return found if any(found.values()) else {}


def _put(items: Sequence[Object] | None, ours: Callable[[Object], bool], wanted: Sequence[Object]) -> list[Object]:
    """The list with `wanted` in the place of what is ours, else at its end."""
    items = items or ()
    kept = [item for item in items if not ours(item)]
    at = next((place for place, item in enumerate(items) if ours(item)), len(kept))
    return [*kept[:at], *wanted, *kept[at:]]


def _set(obj: Object, key: str, value: Any) -> Object:
    """The object with that value; without the key where the value is empty, as the API server writes it."""
    if value == obj.get(key) or (not value and not obj.get(key)):
        return obj
    return {**obj, key: value} if value else {k: v for k, v in obj.items() if k != key}


# ---------------------------------------------------------------------------------------------- what is the user's


def _chosen(theirs: Object, sidecar: Sidecar) -> tuple[str, ...]:
    spec = _pod(theirs)
    if not sidecar.containers:
        return tuple(one["name"] for one in spec["containers"])
    there = [one["name"] for one in _containers(spec)]
    for name in sidecar.containers:
        if name not in there:
            raise Malformed("containers", name, f"the Pods have no such container, but {', '.join(there)}")
    return tuple(dict.fromkeys(sidecar.containers))


def _refuse_taken(theirs: Object, sidecar: Sidecar, chosen: tuple[str, ...]) -> None:
    """Raise Malformed where the user's own Pods use a name, a path or a port that the sidecar needs."""
    spec = _pod(theirs)
    by_hand = "it is not the sidecar that this module adds; rename it, or take it out by hand"
    claims = [template["metadata"] for template in theirs["spec"].get("volumeClaimTemplates") or ()]
    for volume in (*(spec.get("volumes") or ()), *claims):
        if _named(volume, CLAIM, TOKEN):
            raise Malformed("volumes[].name", volume["name"], by_hand)
    for one in _containers(spec):
        where = f"containers[{one['name']}]"
        if one["name"] == CONTAINER:
            raise Malformed("containers[].name", CONTAINER, by_hand)
        for mount in one.get("volumeMounts") or ():
            if _named(mount, CLAIM, TOKEN):
                raise Malformed(f"{where}.volumeMounts[].name", mount["name"], by_hand)
        for port in one.get("ports") or ():
            if port.get("containerPort") == sidecar.port and port.get("protocol", "TCP") == "TCP":
                raise Malformed(f"{where}.ports[].containerPort", sidecar.port, "give the sidecar another `port`")
            if _named(port, PORT_NAME):
                raise Malformed(f"{where}.ports[].name", PORT_NAME, "it is the name of the sidecar's port; rename it")
        if one["name"] in chosen:
            _refuse_taken_in(one, where, sidecar)


def _refuse_taken_in(one: Object, where: str, sidecar: Sidecar) -> None:
    others = "name the `containers` that shall be told of the claim, without this one"
    for mount in one.get("volumeMounts") or ():
        path = posixpath.normpath(mount["mountPath"])
        if path == sidecar.directory or path.startswith(f"{sidecar.directory}/"):
            remedy = f"the claim would be mounted over it; give a `claim_file` in another directory, or {others}"
            raise Malformed(f"{where}.volumeMounts[].mountPath", mount["mountPath"], remedy)
    for variable in one.get("env") or ():
        if _named(variable, CLAIM_FILE):
            told = variable.get("value", variable.get("valueFrom"))
            remedy = f"it is where the claim is told; take it out, or {others}"
            raise Malformed(f"{where}.env[{CLAIM_FILE}]", told, remedy)


# ---------------------------------------------------------------------------------------------- small tools


def _pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def _containers(spec: Object) -> Iterator[Object]:
    yield from spec.get("initContainers") or ()
    yield from spec["containers"]


def _named(item: Object, *names: str) -> bool:
    return item.get("name") in names

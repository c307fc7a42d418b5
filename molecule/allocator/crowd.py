#!/usr/bin/env python3
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In a Pod of the scenario: many users at once, and what there is of theirs in the cluster.

crowd.py storm JSON
    Each of `users` asks for `each` instances at one moment, each with a key of its own, and asks again with the same
    key until there is an answer. With the first answer `signal` is sent to the Pod `leader`. Then it prints JSON: who
    got one, how many tries it took, and what is wrong; exit status 1 if anything is. It is given an `Asked`.

crowd.py judge JSON
    Waits until all is at rest, and judges: instances, what is made for them, and ledgers are exactly those that were
    `promised` (by default to these users, in the last storm), and the disks those and the `kept` ones.

crowd.py empty JSON
    Of all that an allocator has in its namespace nothing is left but the disks that are `kept`.

crowd.py write JSON, crowd.py read JSON
    Writes `value` into `instance`, or reads it until it is this: what is there is what a Pod has that has just come.

crowd.py clear JSON
    Each of the users destroys all that it has, and waits until it is gone.

crowd.py thaw JSON
    Sends CONT to the `leader`.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    Api,
    Object,
    Resource,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import ledger as ledgers
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import DISKS, INSTANCES, resource_of

AUDIENCE = "muster-allocator"
SERVER = urlsplit(os.environ["ALLOCATOR"])
ANSWER_SECONDS = 3.0  # then it is asked again
GIVE_UP_SECONDS = 60.0
REST_SECONDS = 90.0  # until all that was promised is there
LOOK_SECONDS = 0.2
FINAL = (200, 201, 400, 403, 422)  # of a creation; what else comes is asked again
SERVICES = resource_of("v1", "Service")
MADE = (DISKS, resource_of("apps/v1", "Deployment"), SERVICES, resource_of("networking.k8s.io/v1", "NetworkPolicy"))
DEPLOYED = (
    PODS,
    CONFIGMAPS,
    LEASES,
    INSTANCES,
    resource_of("apps/v1", "StatefulSet"),
    resource_of("policy/v1", "PodDisruptionBudget"),
    Resource("v1", "serviceaccounts", "ServiceAccount"),
)
PROMISED = Path("/tmp/promised.json")
OWN = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass
class Asked:
    """`wanted`: so many may be made, of all. `namespace`: the allocator's. `promised`: None is what was noted last."""

    users: list[str]
    namespace: str
    promised: list[str] | None = None
    kept: list[str] = field(default_factory=list)
    instance: str = ""
    value: str = ""
    each: int = 4
    wanted: int = 0
    leader: str = ""
    signal: str = ""


@dataclass
class Crowd:
    """The users with their tokens, and what each was told."""

    tokens: dict[str, str]
    answers: list[tuple[str, int, Any]] = field(default_factory=list)
    tries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    strike: Callable[[], object] | None = None  # to be done once, with the first answer

    def create(self, user: str, key: str) -> None:
        deadline = time.monotonic() + GIVE_UP_SECONDS
        status, body = 0, None
        while status not in FINAL and time.monotonic() < deadline:
            with self.lock:
                self.tries += 1
            status, body = self.call(user, "POST", "/v1/instances", {"Idempotency-Key": key}, {})
            if status not in FINAL:
                time.sleep(LOOK_SECONDS)
        with self.lock:
            self.answers.append((user, status, body))
            strike, self.strike = self.strike, None
            if strike:
                strike()

    def call(
        self, user: str, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, Any]:
        """Status and document; 0 when nothing came back."""
        connection = http.client.HTTPConnection(SERVER.hostname or "", SERVER.port, timeout=ANSWER_SECONDS)
        sent = {"Authorization": f"Bearer {self.tokens[user]}", "Content-Type": "application/json", **(headers or {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()


def people(users: list[str]) -> Crowd:
    return Crowd({user: token(user) for user in users})


def token(user: str) -> str:
    """As `kubectl create token` has it made."""
    api_server = (os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"]))
    trusted = ssl.create_default_context(cafile=str(OWN / "ca.crt"))
    connection = http.client.HTTPSConnection(*api_server, context=trusted, timeout=ANSWER_SECONDS)
    headers = {"Authorization": f"Bearer {(OWN / 'token').read_text()}", "Content-Type": "application/json"}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [AUDIENCE]}}
    path = f"/api/v1/namespaces/{(OWN / 'namespace').read_text()}/serviceaccounts/{user}/token"
    connection.request("POST", path, json.dumps(asked), headers)
    return str(json.loads(connection.getresponse().read())["status"]["token"])


def storm(api: Api, asked: Asked) -> int:
    crowd = people(asked.users)
    keys = [(user, f"{asked.signal}-{number}") for number in range(asked.each) for user in asked.users]
    victims, struck = processes(uid_of(api, asked)), list[int]()
    crowd.strike = lambda: struck.extend(send(victims, signal.Signals[f"SIG{asked.signal}"]))
    with ThreadPoolExecutor(len(keys)) as pool:
        for asking in [pool.submit(crowd.create, user, key) for user, key in keys]:
            asking.result()
    got: dict[str, list[str]] = {}
    for user, status, body in crowd.answers:
        if status in (200, 201):
            got.setdefault(user, []).append(body["name"])
    PROMISED.write_text(json.dumps(got))
    statuses = sorted(status for _user, status, _body in crowd.answers)
    wrong = [] if struck else [f"{asked.leader} has no process"]
    wrong += [f"{user} has {names}" for user, names in got.items() if len(set(names)) != 1]
    if len(got) != asked.wanted:
        wrong.append(f"{len(got)} have one, and {asked.wanted} were to have one: {statuses}")
    refusals = [body for _user, status, body in crowd.answers if status not in (200, 201)]
    wrong += [f"{refusal} is no refusal" for refusal in refusals if not is_of_quota(refusal)]
    return say(asked, wrong, promised=got, creations=len(keys), tries=crowd.tries)


def is_of_quota(refusal: Any) -> bool:
    """It says why, and how many there may be and are."""
    if not isinstance(refusal, dict) or refusal.get("type") != "urn:muster:allocator:quota":
        return False
    return refusal["limit"] <= refusal["used"] and refusal["scope"] in ("owner", "global")


def judge(api: Api, asked: Asked) -> int:
    """What there is is what was promised."""
    noted = (name for names in json.loads(PROMISED.read_text()).values() for name in names) if PROMISED.exists() else ()
    promised = set(noted) if asked.promised is None else set(asked.promised)
    return say(asked, at_rest(lambda: faults(api, asked, promised)), promised=sorted(promised))


def at_rest(look: Callable[[], list[str]]) -> list[str]:
    """What is wrong, once nothing is or the time has run out."""
    deadline = time.monotonic() + REST_SECONDS
    while (wrong := look()) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    return wrong


def faults(api: Api, asked: Asked, promised: set[str]) -> list[str]:
    instances = {each["metadata"]["name"]: each for each in api.list(INSTANCES, asked.namespace).items}
    wrong = [f"{name} is there, and was promised to nobody" for name in sorted(instances.keys() - promised)]
    wrong += [f"{name} was promised, and is not there" for name in sorted(promised - instances.keys())]
    for name, instance in instances.items():
        status = instance.get("status") or {}
        if status.get("phase") != "Ready":
            wrong.append(f"{name} is {status.get('phase')}: {status.get('message')}")
    for resource in MADE:
        there = [each["metadata"] for each in api.list(resource, asked.namespace, label_selector=ledgers.MEMBER).items]
        owners = sorted(
            each["ownerReferences"][0]["name"] if each.get("ownerReferences") else f"kept {each['name']}"
            for each in there
        )
        shall = sorted([*promised, *(f"kept {name}" for name in asked.kept if resource == DISKS)])
        if owners != shall:
            wrong.append(f"{resource.plural} are there for {owners}, and were to be for {shall}")
    return [*wrong, *wrong_ledgers(api, asked.namespace, instances)]


def wrong_ledgers(api: Api, namespace: str, instances: Mapping[str, Object]) -> list[str]:
    wrong = []
    configmaps = api.list(CONFIGMAPS, namespace, label_selector=ledgers.MEMBER).items
    uids = {name: instance["metadata"]["uid"] for name, instance in instances.items()}
    for owners in (True, False):
        held = {
            name: entry["uid"]
            for each in configmaps
            if (ledgers.OWNER in each["metadata"]["labels"]) == owners and ledgers.KEY in (each.get("data") or {})
            for name, entry in json.loads(each["data"][ledgers.KEY])["entries"].items()
        }
        if held != uids:
            wrong.append(f"{'the owners' if owners else 'the total'} hold {held}, and there are {uids}")
    return wrong


def empty(api: Api, asked: Asked) -> int:
    others = ("kube-root-ca.crt", "default")  # every namespace has them
    left = {
        f"{resource.kind} {each['metadata']['name']}"
        for resource in (*MADE, *DEPLOYED)
        for each in api.list(resource, asked.namespace).items
        if each["metadata"]["name"] not in others
    }
    wrong = sorted(left ^ {f"{DISKS.kind} {name}" for name in asked.kept})
    return say(asked, [f"{each}: it is left, or was to be" for each in wrong])


def write(api: Api, asked: Asked) -> int:
    status, body = value_at(api, asked, "PUT")
    return say(asked, [] if status in (200, 201) else [f"{status}: {body!r}"])


def read(api: Api, asked: Asked) -> int:
    wanted = (200, asked.value.encode()) if asked.value else (404, None)

    def look() -> list[str]:
        status, body = value_at(api, asked, "GET")
        return [] if wanted in ((status, body), (status, None)) else [f"{status}: {body!r}"]

    return say(asked, at_rest(look))


def value_at(api: Api, asked: Asked, method: str) -> tuple[int, bytes]:
    """By its Service; 0 when nothing came back."""
    service = api.get(SERVICES, asked.instance, asked.namespace)["spec"]
    connection = http.client.HTTPConnection(service["clusterIP"], service["ports"][0]["port"], timeout=ANSWER_SECONDS)
    try:
        connection.request(method, "/v1/colour", asked.value.encode() if method == "PUT" else None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


def clear(asked: Asked) -> int:
    crowd, deadline = people(asked.users), time.monotonic() + REST_SECONDS
    left: list[Object] = [{}]
    while left and time.monotonic() < deadline:
        left = []
        for user in asked.users:
            status, body = crowd.call(user, "GET", "/v1/instances")
            left += body["items"] if status == 200 else [{"name": "", "phase": f"status {status}"}]
            for each in body["items"] if status == 200 else []:
                if each["phase"] != "Destroying":
                    crowd.call(user, "DELETE", f"/v1/instances/{each['name']}")
        time.sleep(LOOK_SECONDS)
    return say(asked, [f"{each} is still there" for each in left])


def say(asked: Asked, wrong: list[str], **more: Any) -> int:
    print(json.dumps({"wrong": wrong, "users": len(asked.users), **more}))
    return 1 if wrong else 0


# ------------------------------------------------------------------------------------------ signals


def uid_of(api: Api, asked: Asked) -> str:
    return str(api.get(PODS, asked.leader, asked.namespace)["metadata"]["uid"])


def processes(uid: str) -> list[int]:
    """Of this Pod."""
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and is_of(each, uid)]


def send(victims: list[int], number: int) -> list[int]:
    """To these processes; those that there were."""
    hit = []
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, number)
            hit.append(victim)
    return hit


def is_of(process: Path, uid: str) -> bool:
    try:
        return f"POD_UID={uid}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    api, asked = Api(Credentials.load({})), Asked(**json.loads(arguments[1]))
    match arguments[0]:
        case "storm":
            return storm(api, asked)
        case "judge":
            return judge(api, asked)
        case "empty":
            return empty(api, asked)
        case "write":
            return write(api, asked)
        case "read":
            return read(api, asked)
        case "clear":
            return clear(asked)
        case "thaw":
            return 0 if send(processes(uid_of(api, asked)), signal.SIGCONT) else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many operations on one semaphore, chosen at random, as one process of several; tells as JSON what came of them.

mixer.py KUBECONFIG NAMESPACE ENGINE OPERATIONS SEED NUMBER

It claims and gives back for some holders, kills their Pods and makes them again, lets them end, edits by hand, writes
nonsense and mends it; beside annotations it runs old Distributors, and among tickets it is the hand that creates,
edits, copies and deletes them. One holder of each process, `stays`, claims once and never leaves.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    LEASES,
    PODS,
    AlreadyExists,
    Api,
    Conflict,
    NotFound,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as annotations
from ansible_collections.muster.coordination.plugins.module_utils.decisions import tickets
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support import old_distributor
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab

HOLDERS = 3  # of each process, that come and go
OLD_HOSTS = 2
STAY, STAYING = "zz-stay", 3  # the resource of those who stay, which an old Distributor tries last; its capacity
REFUSED = (  # what a claim may be told in such company, and is no mistake
    "give wait=true",
    "is used by another holder",
    "and asks for",
    "is being deleted",
    "is edited again and again",
    "name a Pod that runs",
    "does not exist any more",
)


class Mixer:
    """What one process does and tells."""

    def __init__(self, lab: Lab, number: int, seed: int) -> None:
        self.lab, self.number, self.dice = lab, number, random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.granted: list[tuple[int, str]] = []
        self.edits: list[int] = []  # revisions that were written by hand
        self.failed: list[str] = []
        self.holders = [f"pod-{number}-{n}" for n in range(HOLDERS)]
        self.old_hosts = [f"old-{number}-{n}" for n in range(OLD_HOSTS if lab.engine == "annotations" else 0)]
        for name in [*self.holders, *self.old_hosts]:
            lab.pod(name)
        common = {
            self.claim: 24,
            self.wait: 8,
            self.give_back: 20,
            self.die: 8,
            self.end: 3,
            self.lease: 6,
            self.edit_capacity: 4,
            self.edit_foreign: 3,
            self.look: 4,
            self.nonsense: 1,
        }
        by_engine = {
            "annotations": {self.old_run: 14, self.old_host_dies: 3, self.lose_state: 1},
            "tickets": {self.hand_deletes: 4, self.hand_creates: 4, self.hand_edits: 2, self.hand_spoils: 2},
        }
        self.operations = {**common, **by_engine[lab.engine]}

    def stay(self) -> dict[str, Any]:
        """Claim for good, at the start."""
        name = f"stays-{self.number}"
        self.lab.pod(name)
        done = verbs.claim(self.lab.api, holder=name, resource=STAY, wait=True, wait_timeout=60, **self.lab.at)
        return {"holder": name, "fence": done["fence"]}

    def run(self, operations: int) -> None:
        """So many, each counted by its name."""
        for _ in range(operations):
            (operation,) = self.dice.choices(list(self.operations), list(self.operations.values()))
            self.counts[operation.__name__] += 1
            try:
                operation()
            except (TimedOut, Malformed, Conflict, AlreadyExists, NotFound) as error:
                self.counts[type(error).__name__] += 1
            except MusterError as error:
                if not any(words in str(error) for words in REFUSED):
                    self.failed.append(f"{operation.__name__}: {type(error).__name__}: {error}")
                self.counts["refused"] += 1
            except Exception as error:
                self.failed.append(f"{operation.__name__}: {type(error).__name__}: {error}")

    # ------------------------------------------------------------------------------------------ with Muster

    def claim(self, holder: str | None = None, **wish: Any) -> None:
        name = holder or self.dice.choice(self.holders)
        resource = self.dice.choice(["gpu", "tpu", None, None])
        done = verbs.claim(self.lab.api, holder=name, resource=resource, **wish, **self.lab.at)
        self.granted.append((done["fence"], name))

    def wait(self) -> None:
        self.claim(wait=True, wait_timeout=0.3)

    def lease(self) -> None:
        name = f"ci-{self.number}"
        self.claim(name, lease=60)
        if self.dice.random() < 0.5:
            self.claim(name, lease=60)  # renewed
        verbs.release(self.lab.api, holder=name, **self.lab.at)

    def give_back(self) -> None:
        verbs.release(self.lab.api, holder=self.dice.choice(self.holders), **self.lab.at)

    def look(self) -> None:
        verbs.info(self.lab.api, namespace=self.lab.namespace, engine=self.lab.engine)

    # ------------------------------------------------------------------------------------------ Pods

    def die(self, names: list[str] | None = None) -> None:
        name = self.dice.choice(names or self.holders)
        self.lab.kill(name)
        self._pod(name)

    def end(self) -> None:
        name = self.dice.choice(self.holders)
        self.lab.finish(name, self.dice.choice(["Succeeded", "Failed"]))
        if self.dice.random() < 0.5:
            self.claim()
        self.lab.kill(name)
        self._pod(name)

    def old_host_dies(self) -> None:
        self.die(self.old_hosts)

    def _pod(self, name: str) -> None:
        while True:
            with suppress(AlreadyExists):
                self.lab.pod(name)
                return
            time.sleep(0.02)

    def old_run(self) -> None:
        host = self.dice.choice(self.old_hosts)
        with suppress(old_distributor.GoError):
            wrote = old_distributor.run_once(self.lab.api, CONFIGMAPS, PODS, self.lab.name, self.lab.namespace, host)
            self.counts["old writes"] += wrote

    # ------------------------------------------------------------------------------------------ by hand

    def edit_capacity(self) -> None:
        self.lab.ask_for({"gpu": self.dice.randint(0, 4), "tpu": self.dice.randint(0, 2), STAY: STAYING})

    def edit_foreign(self) -> None:
        self.lab.annotate(**{f"example.org/{self.number}": str(self.dice.random())})

    def nonsense(self) -> None:
        """Something of ours is malformed for a moment."""
        keys = {
            "annotations": (annotations.CAPACITY, annotations.STATE),
            "tickets": (tickets.CAPACITY, tickets.IN_FORCE),
        }
        key, sound = self.dice.choice(keys[self.lab.engine]), ""

        def spoil(before: dict[str, str]) -> dict[str, str]:
            nonlocal sound
            sound = before.get(key, "{")  # in the same write: an older one put back would take back what came since
            return {**before, key: "{"} if sound != "{" else before

        self.lab.edit(spoil)
        if sound != "{":
            with suppress(MusterError):
                self.claim()
            self.lab.annotate(**{key: sound})

    def lose_state(self) -> None:
        """Somebody removes what he does not know."""
        self.lab.annotate(**{annotations.STATE: None})

    def _some_ticket(self) -> dict[str, Any]:
        """Any but the semaphore's own Lease and the tickets of those who stay."""
        selector = f"{tickets.LABEL}={self.lab.name}"
        leases = self.lab.api.list(LEASES, self.lab.namespace, label_selector=selector).items
        mine = [
            lease
            for lease in leases
            if lease["metadata"]["name"] != self.lab.name
            and not str(lease["spec"].get("holderIdentity")).startswith("stays")
        ]
        return self.dice.choice(mine) if mine else {}

    def hand_deletes(self) -> None:
        if ticket := self._some_ticket():
            self.lab.api.delete(LEASES, ticket["metadata"]["name"], self.lab.namespace)

    def hand_creates(self) -> None:
        """kubectl create: of two resources at once, or a copy of another's with its place."""
        ticket = self._some_ticket() if self.dice.random() < 0.3 else {}
        notes = ticket["metadata"].get("annotations", {}) if ticket else {}
        want = {"gpu": self.dice.randint(1, 2), "tpu": 1} if self.dice.random() < 0.5 else {"gpu": 2}
        notes = {**notes, tickets.WANT: json.dumps(want)}
        name = f"{self.lab.name}.hand-{self.number}-{self.dice.randrange(3)}"
        metadata = {"name": name, "namespace": self.lab.namespace, "labels": {tickets.LABEL: self.lab.name}}
        spec = {"holderIdentity": name, "leaseDurationSeconds": 600}
        self.lab.api.create(LEASES, {"metadata": {**metadata, "annotations": notes}, "spec": spec})

    def hand_edits(self) -> None:
        """kubectl annotate: a ticket that was never renewed goes to the end by that."""
        if ticket := self._some_ticket():
            ticket["metadata"]["annotations"]["example.org/note"] = str(self.dice.random())
            self._replace(ticket)

    def hand_spoils(self) -> None:
        if ticket := self._some_ticket():
            texts = ["{", "[]", '{"gpu": 0}', '{"gpu": -1}', "{}"]
            ticket["metadata"]["annotations"][tickets.WANT] = self.dice.choice(texts)
            self._replace(ticket)
            self.lab.api.delete(LEASES, ticket["metadata"]["name"], self.lab.namespace)

    def _replace(self, ticket: dict[str, Any]) -> None:
        self.edits.append(int(self.lab.api.replace(LEASES, ticket)["metadata"]["resourceVersion"]))


def main() -> None:
    kubeconfig, namespace, engine_name, operations, seed, number = sys.argv[1:]
    lab = Lab(Api(Credentials.load({"kubeconfig": kubeconfig}), timeout=30.0), namespace, engine_name=engine_name)
    mixer = Mixer(lab, int(number), int(seed))
    stays = mixer.stay()
    mixer.run(int(operations))
    told = {"stays": stays, "granted": mixer.granted, "edits": [*mixer.edits, *lab.hand_edits]}
    print(json.dumps({**told, "counts": mixer.counts, "failed": mixer.failed}))


if __name__ == "__main__":
    main()

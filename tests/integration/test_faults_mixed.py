# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything mixed: thousands of operations of several processes, old Distributors and hands on one semaphore.

MUSTER_MIXED_OPERATIONS (1,000) is how many there are; `make soak` runs 10,000. MUSTER_MIXED_SEED chooses others.
Every revision is recorded and judged (tests/support/docket.py); what the operations were is in tests/support/mixer.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from ansible_collections.muster.coordination.tests.support import mixer
from ansible_collections.muster.coordination.tests.support.docket import Docket
from ansible_collections.muster.coordination.tests.support.semaphore_lab import Lab

OPERATIONS = int(os.environ.get("MUSTER_MIXED_OPERATIONS", "1000"))
SEED = int(os.environ.get("MUSTER_MIXED_SEED", "4"))
PROCESSES = mixer.STAYING
PATIENCE = 1.0  # seconds for one operation, on a machine that may be busy, until the whole is given up

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("engine_name", ["annotations", "tickets"])
def test_operations_of_all_kinds_at_once(
    api: Api, namespace: str, kubeconfig: str, engine_name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(api, namespace, engine_name=engine_name)
    docket = Docket(api, namespace, lab.name, engine_name)
    lab.semaphore({"gpu": 3, "tpu": 2, mixer.STAY: mixer.STAYING}, **{"example.org/kept": "as it is"})
    began = time.monotonic()
    each = [OPERATIONS // PROCESSES + (number < OPERATIONS % PROCESSES) for number in range(PROCESSES)]
    command = [sys.executable, mixer.__file__, str(Path(kubeconfig).resolve()), namespace, engine_name]
    running = [
        subprocess.Popen(
            [*command, str(count), str(SEED * 1000 + number), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, count in enumerate(each)
    ]
    told = []
    for process in running:
        out, errors = process.communicate(timeout=60 + PATIENCE * OPERATIONS)
        assert process.returncode == 0, errors
        told.append(json.loads(out))
    seconds = time.monotonic() - began
    docket.by_hand |= {revision for one in told for revision in one["edits"]} | lab.hand_edits
    for number in range(PROCESSES):  # all but those who stay
        docket.may_go(f"ci-{number}", *(f"pod-{number}-{n}" for n in range(mixer.HOLDERS)))
        docket.may_go(*(f"old-{number}-{n}" for n in range(mixer.OLD_HOSTS)))
        docket.may_go(*(f"{lab.name}.hand-{number}-{n}" for n in range(3)))
    verdict = docket.verdict(strict=False)
    docket.close()

    counts: Counter[str] = sum((Counter(one["counts"]) for one in told), Counter())
    with capsys.disabled():
        rate = f"{OPERATIONS} operations on {engine_name} in {seconds:.0f} s"
        print(f"\n{rate}: {verdict.revisions} revisions, {len(verdict.grants)} grants, {dict(counts)}", end=" ")
    assert verdict.violations == [], "\n".join(verdict.violations)
    assert [failure for one in told for failure in one["failed"]] == []
    believed = [tuple(grant) for one in told for grant in one["granted"]]
    assert all(verdict.grants[fence][0] == holder for fence, holder in believed), "somebody believed what never was"
    stays = {one["stays"]["holder"]: one["stays"]["fence"] for one in told}
    still = {name: fence for (name, _uid), fence in verdict.holding.items() if name in stays}
    assert still.keys() == stays.keys(), "somebody who stays was taken out"
    if engine_name == "tickets":  # by hand the state was removed from the annotations, and with it all fences
        assert still == stays
    assert lab.annotations()["example.org/kept"] == "as it is"
    wanted = {"claim", "wait", "give_back", "die", "end", "edit_capacity", "nonsense", "lease"}
    wanted |= {"old writes", "lose_state"} if engine_name == "annotations" else {"hand_deletes", "hand_creates"}
    assert wanted <= counts.keys(), "something was never done"
    _all_is_well(lab)


def test_who_lost_its_lease_with_the_state_goes_when_the_next_comes(api: Api, namespace: str) -> None:
    """By hand: without the state a holder has a name only, and no Pod has that of one with a lease."""
    lab = Lab(api, namespace)
    lab.semaphore({"gpu": 2})
    docket = Docket(api, namespace, lab.name, lab.engine)
    verbs.claim(api, holder="ci", resource="gpu", lease=60, **lab.at)
    lab.annotate(**{engine.STATE: None})
    docket.by_hand |= lab.hand_edits
    docket.may_go("ci")
    lab.pod("pod")
    assert verbs.claim(api, holder="pod", resource="gpu", **lab.at)["fence"]
    verdict = docket.verdict()
    docket.close()
    assert verdict.violations == []
    assert [name for name, _uid in verdict.holding] == ["pod"]


def _all_is_well(lab: Lab) -> None:
    """After it all a newcomer is served, when there is enough for everybody."""
    lab.ask_for({"gpu": 1000, "tpu": 1000, mixer.STAY: mixer.STAYING})
    lab.pod("newcomer")
    done = verbs.claim(lab.api, holder="newcomer", wait=True, wait_timeout=60, **lab.at)
    assert done["fence"]
    if lab.engine == "annotations":
        engine.parse(lab.annotations())  # raises where anything of ours is malformed

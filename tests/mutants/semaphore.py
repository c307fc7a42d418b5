# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501
"""Bugs to plant in the semaphore, each the kind of mistake that a hurried change makes, and who has to catch it."""

from __future__ import annotations

from typing import NamedTuple

ENGINE = "plugins/module_utils/decisions/semaphore.py"
COMMIT = "plugins/module_utils/commit.py"
ATTENDANCE = "plugins/module_utils/verbs/attendance.py"
ANNOTATIONS = "plugins/module_utils/verbs/annotations.py"
PODS = "plugins/module_utils/verbs/pods.py"
VERBS = "plugins/module_utils/verbs/semaphore.py"

UNIT, PROPERTY, MODEL, CLUSTER = "unit", "property", "model", "cluster"


class Mutant(NamedTuple):
    """`edits` are (what stands there exactly once, what the bug makes of it); `caught_by` names every suite that must fail."""

    name: str
    breaks: str
    file: str
    edits: tuple[tuple[str, str], ...]
    caught_by: tuple[str, ...] = (UNIT,)


MUTANTS = (
    Mutant(
        "a write without resourceVersion",
        "S3",
        COMMIT,
        (
            (
                "else api.replace(resource, desired)",
                'else api.replace(resource, {**desired, "metadata": '
                '{k: v for k, v in desired["metadata"].items() if k != "resourceVersion"}})',
            ),
        ),
        (UNIT, MODEL),
    ),
    Mutant(
        "a write with the resourceVersion of a moment later",
        "S3",
        COMMIT,
        (
            (
                "else api.replace(resource, desired)",
                'else api.replace(resource, {**desired, "metadata": {**desired["metadata"], "resourceVersion": '
                'api.get(resource, desired["metadata"]["name"], desired["metadata"]["namespace"])'
                '["metadata"]["resourceVersion"]}})',
            ),
        ),
        (MODEL, CLUSTER),
    ),
    Mutant(
        "a write without uid",
        "S3",
        COMMIT,
        (
            (
                "else api.replace(resource, desired)",
                'else api.replace(resource, {**desired, "metadata": '
                '{k: v for k, v in desired["metadata"].items() if k != "uid"}})',
            ),
        ),
    ),
    Mutant(
        "a delete without preconditions",
        "S3",
        COMMIT,
        (
            (
                '                uid=metadata["uid"],\n                resource_version=metadata["resourceVersion"],\n',
                "",
            ),
        ),
    ),
    Mutant(
        "a grant without the capacity check",
        "S1",
        ENGINE,
        (
            ("return {best: 1} if best is not None and free[best] > 0 else None", "return {best: 1} if best else None"),
            ("if all(free.get(resource, 0) >= count for resource, count in want.items()) else None", ""),
        ),
        (UNIT, PROPERTY, MODEL, CLUSTER),
    ),
    Mutant(
        "one permit too many",
        "S1",
        ENGINE,
        (
            (
                "resource: self.capacity.get(resource, 0) - used for",
                "resource: self.capacity.get(resource, 0) - used + 1 for",
            ),
        ),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "the state is believed where the assignment differs",
        "S6",
        ENGINE,
        (
            (
                "    names = [waiter.holder for waiter in queue]\n",
                "    grants = recorded or grants\n    names = [waiter.holder for waiter in queue]\n",
            ),
        ),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "a stale state is left standing",
        "S6",
        ENGINE,
        (("    behind = recorded != grants or waiting != queue\n", "    behind = False\n"),),
    ),
    Mutant(
        "a take-over from an old Distributor keeps the number",
        "S2",
        ENGINE,
        (("        mine = replace(mine, fence=0)", "        mine = replace(mine)"),),
    ),
    Mutant(
        "a reaper that goes by the name",
        "S4",
        ENGINE,
        (
            ("if (name, grant.uid) not in gone}", "if name not in {n for n, _ in gone}}"),
            ("if (w.holder, w.uid) not in gone)", "if w.holder not in {n for n, _ in gone})"),
            ("uid not in (None, living[name]))", "False)"),
        ),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "Pods are listed before the semaphore is read",
        "S4",
        ANNOTATIONS,
        (
            (
                "    alive = dict(seen or {})\n",
                '    early = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in api.list(PODS, namespace).items}\n    alive = dict(seen or {})\n',
            ),
            (
                "        doubtful = decisions.suspects(semaphore, alive)\n",
                "        return set(decisions.suspects(semaphore, early))\n        doubtful = []\n",
            ),
        ),
        (MODEL,),
    ),
    Mutant(
        "the cache is believed about who is dead",
        "S4",
        ANNOTATIONS,
        (
            (
                "        doubtful = decisions.suspects(semaphore, alive)\n",
                "        if alive:\n            return set(decisions.suspects(semaphore, alive))\n        doubtful = decisions.suspects(semaphore, alive)\n",
            ),
        ),
        (MODEL,),
    ),
    Mutant(
        "nobody looks after dead Pods between resyncs",
        "S4",
        ANNOTATIONS,
        (
            (
                "suspects = set(decisions.suspects(seen, self._pods)) | _still(seen, expired)",
                "suspects: set[Identity] = set()",
            ),
        ),
    ),
    Mutant(
        "an ended Pod counts as alive",
        "S4",
        PODS,
        (('in ("Succeeded", "Failed") else', "in () else"),),
    ),
    Mutant(
        "a host of an old Distributor is never dead",
        "S4",
        ENGINE,
        (("if lease is None and (name not in living", "if lease is None and uid is not None and (name not in living"),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "a fence that does not grow",
        "S2",
        ENGINE,
        (
            (
                "        epoch += 1\n        for resource, count in take.items():",
                "        for resource, count in take.items():",
            ),
        ),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "fences begin anew when the object is made again",
        "S2",
        ENGINE,
        (('state.get("epoch", NUMBERS * revision)', 'state.get("epoch", 0)'),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "last come, first served",
        "S5",
        ENGINE,
        (("// AGEING), w.seq))", "// AGEING), -w.seq))"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "priority without age",
        "S5",
        ENGINE,
        (("(w.priority + (self.epoch - w.seq) // AGEING)", "(w.priority)"),),
    ),
    Mutant(
        "whoever asks when something is free gets it, queue or not",
        "S5",
        ENGINE,
        (
            (
                "    after = settle(replace(before, queue=queue, epoch=epoch), now=now)\n",
                "    after = settle(replace(before, queue=(mine,), epoch=epoch), now=now)\n"
                "    after = settle(replace(after, queue=tuple(w for w in queue if w.holder not in after.grants)), now=now)\n",
            ),
        ),
        (UNIT,),
    ),
    Mutant(
        "a release hands nothing on",
        "S5",
        ENGINE,
        (
            (
                '    return Decision(settle(replace(before, grants=grants, queue=queue), now=now), "released", (reason,))\n',
                '    return Decision(replace(before, grants=grants, queue=queue), "released", (reason,))\n',
            ),
        ),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "asking again moves a waiter in the document",
        "idle writes",
        ENGINE,
        (
            (
                "        queue = tuple(mine if w.holder == name else w for w in before.queue)\n",
                "        queue = (*(w for w in before.queue if w.holder != name), mine)\n",
            ),
        ),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "malformed is empty",
        "S7",
        ENGINE,
        (
            (
                '        raise Malformed(where_in(key), text, "put right its JSON by hand (kubectl edit); nothing was changed") from None\n',
                "        return {}\n",
            ),
        ),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "unknown keys of the state are dropped",
        "S7",
        ENGINE,
        (("        **semaphore.extra,\n", ""),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "unknown keys of a grant are dropped",
        "S7",
        ENGINE,
        (("**grant.extra, ", ""),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "a lost answer is a success",
        "S3",
        COMMIT,
        (
            (
                "    except (LostAnswer, ServerError) as error:\n        raise _Uncertain(before, error) from error\n",
                "    except (LostAnswer, ServerError):\n        return desired\n",
            ),
        ),
        (UNIT, MODEL),
    ),
    Mutant(
        "a lost answer is a failure",
        "S3",
        COMMIT,
        (
            (
                "    except (LostAnswer, ServerError) as error:\n        raise _Uncertain(before, error) from error\n",
                "    except (LostAnswer, ServerError) as error:\n        raise ValueError(str(error)) from error\n",
            ),
        ),
        (UNIT, MODEL),
    ),
    Mutant(
        "after a conflict the old decision is written again",
        "S3",
        COMMIT,
        (
            (
                "                desired, verdict = decide(before)\n",
                "                if not conflicts:\n                    desired, verdict = decide(before)\n"
                '                desired = {**desired, "metadata": {**desired["metadata"], '
                '"resourceVersion": before["metadata"]["resourceVersion"]}} if before and isinstance(desired, dict) else desired\n',
            ),
        ),
        (UNIT, MODEL),
    ),
    Mutant(
        "check mode writes",
        "check mode",
        COMMIT,
        (("            if not check_mode:\n", "            if True:\n"),),
    ),
    Mutant(
        "any write of the holder counts as its renewal",
        "S4",
        ANNOTATIONS,
        (
            (
                "after.get(me) != before.get(me))",
                "me in after)",
            ),
        ),
    ),
    Mutant(
        "late news are news",
        "S3",
        ANNOTATIONS,
        (("int(version) < int(known))", "False)"),),
    ),
    Mutant(
        "what is overdue wakes the loop for ever",
        "idle CPU",
        ATTENDANCE,
        (("for at in times if at > self.turned)", "for at in times)"),),
    ),
    Mutant(
        "a wait that fails keeps its place",
        "S5",
        VERBS,
        (
            (
                "        with suppress(MusterError):\n            engine.withdraw(api, name=name, namespace=namespace, claimant=claimant)\n        raise\n",
                "        raise\n",
            ),
        ),
    ),
)

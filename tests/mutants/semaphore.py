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


# what must hold; each of MUTANTS, and of those on tickets, names the one that it breaks, or says what else it spoils
PROPERTIES = {
    "S1": "never more grants than the capacity, at any revision",
    "S2": "fences grow strictly",
    "S3": "no update is lost: every revision is a legal step from the one it names",
    "S4": "no grant outlives its holder, and nobody who lives is taken out",
    "S5": "first come, first served within a priority; all of a want or nothing; what is free is handed on",
    "S6": "with old Distributors beside us, or kept away by mode v2, S1 holds still",
    "S7": "what is malformed, unknown or foreign is never destroyed",
}
DOES_NOT_APPLY = {
    ("tickets", "S6"): "an old Distributor knows the ConfigMap only; it sees no Lease and writes none",
}

MUTANTS = (
    Mutant(
        "a write without resourceVersion",
        "S3",
        COMMIT,
        (
            (
                "else api.replace(resource, desired, subresource)",
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
                "else api.replace(resource, desired, subresource)",
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
                "else api.replace(resource, desired, subresource)",
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
        (("    behind = recorded != grants or waiting != queue or", "    behind ="),),
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
            ("if (w.holder, w.uid) not in gone and", "if w.holder not in {n for n, _ in gone} and"),
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
        "who holds several permits is counted as one",
        "S1",
        ENGINE,
        (("used[resource] = used.get(resource, 0) + count", "used[resource] = used.get(resource, 0) + 1"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "what one write grants is subtracted as one permit",
        "S1",
        ENGINE,
        (("            free[resource] -= count\n", "            free[resource] -= 1\n"),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "a claim is served when a part of it is free",
        "S1",
        ENGINE,
        (("return dict(want) if all(free.get", "return dict(want) if any(free.get"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "more than one permit is granted in mode v1",
        "S6",
        ENGINE,
        (("    if semaphore.mode == V1 and single(claimant.want) is None:\n", "    if False:\n"),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "v2 is left although somebody has more than v1 can say",
        "S6",
        ENGINE,
        (("    if mode == V1 and beyond:\n", "    if False:\n"),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "v2 is written without the sentinel",
        "S6",
        ENGINE,
        (('assignment = {SENTINEL: {"mode": V2}} | {', "assignment = {"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "v2 begins without the sentinel",
        "S6",
        ENGINE,
        (
            (
                '    marked = {ASSIGNMENT: dump({SENTINEL: {"mode": V2}})} if mode == V2 else {}\n',
                "    marked: dict[str, str] = {}\n",
            ),
        ),
        (UNIT,),
    ),
    Mutant(
        "a sentinel that was lost is not written again",
        "S6",
        ENGINE,
        ((" or (mode == V2) != marked or", " or"),),
    ),
    Mutant(
        "a name in v2 is read as one permit",
        "S7",
        ENGINE,
        (
            (
                '        raise Malformed(where, value, f"give {dump({value: 1})}: this is mode {V2}, which no old Distributor can share")\n',
                "        return {value: 1}\n",
            ),
        ),
    ),
    Mutant(
        "who waits for several resources does not keep them from those behind it",
        "S5",
        ENGINE,
        (("            held_back.update(waiter.want)\n", ""),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "who waits keeps back everything",
        "S5",
        ENGINE,
        (("            held_back.update(waiter.want)\n", "            held_back.update(free)\n"),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "more than there is may be asked for",
        "S5",
        ENGINE,
        (("    if short and any(capacity.get(resource) for resource in want):\n", "    if False:\n"),),
    ),
    Mutant(
        "one that waits is granted although its Pod is being deleted",
        "S5",
        ENGINE,
        ((" and (w.holder, w.uid) not in leaving)", ")"),),
        (UNIT, PROPERTY, MODEL),
    ),
    Mutant(
        "one that holds loses it when its Pod begins to be deleted",
        "S4",
        ENGINE,
        (("    gone = frozenset(dead)\n", "    gone = frozenset(dead) | frozenset(leaving)\n"),),
        (UNIT, PROPERTY),
    ),
    Mutant(
        "who leaves hands on to one whose Pod is being deleted",
        "S5",
        ANNOTATIONS,
        ((" leaving=self._leaving - {me},", ""),),
    ),
    Mutant(
        "one whose Pod is being deleted asks again",
        "S5",
        ANNOTATIONS,
        (("        if self.claimant.identity in self._leaving:", "        if False:"),),
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

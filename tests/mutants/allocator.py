# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E501
"""Bugs to plant in what looks after Instances, each a mistake that a hurried change makes, and who has to catch it."""

from __future__ import annotations

from ansible_collections.muster.coordination.tests.mutants.semaphore import Mutant

DECISIONS = "plugins/module_utils/decisions"
INSTANCE, SWEEP = f"{DECISIONS}/instance.py", f"{DECISIONS}/allocator_sweep.py"
LEDGER = f"{DECISIONS}/ledger.py"
CONTROLLER, SWEEPER, WARM = (f"muster/allocator/{each}.py" for each in ("controller", "sweeper", "warm"))

# what must hold of instances, whoever dies when
PROPERTIES = {
    "limits": "nobody has more than is allowed, at any moment",
    "orphans": "nothing that was made is left without its instance, and no place",
    "disks": "no disk is lost that is to be kept, and none of somebody else is touched",
    "progress": "what dies is gone on with, and what is asked for again is not done twice",
    "authority": "nothing is done without a term, nor on what has changed since",
}

UNIT, RULES, PROPERTY = "allocator controller", "instance unit", "allocator property"
SUITES = {
    UNIT: ["tests/unit/test_allocator_controller.py"],
    RULES: ["tests/unit/test_instance.py"],
    PROPERTY: ["tests/property/test_allocator_property.py"],
}


def planted(name: str, breaks: str, file: str, old: str, new: str, *caught_by: str) -> Mutant:
    return Mutant(name, breaks, file, ((old, new),), caught_by)


MUTANTS = (
    # limits
    planted(
        "objects are made without asking the ledgers",
        "limits",
        INSTANCE,
        "    if held is None:\n        return Ask()\n    if not held:\n        return Drop",
        "    if held is False:\n        return Drop",
        UNIT,
        RULES,
    ),
    planted(
        "what the ledgers say is not waited for",
        "limits",
        CONTROLLER,
        "            turn.held = verbs.held(self._ledgers, turn.obj)\n",
        "            verbs.held(self._ledgers, turn.obj)\n            turn.held = True\n",
        UNIT,
    ),
    planted(
        "its place is given back before its disks are gone",
        "limits",
        INSTANCE,
        "    for group in (_is_workload, _is_disk, _is_neither):\n",
        "    if held:\n        return Release()\n    for group in (_is_workload, _is_disk, _is_neither):\n",
        RULES,
        UNIT,
    ),
    planted(
        "a reservation is taken from its asker at once",
        "limits",
        SWEEP,
        "        return now - since >= PATIENCE_SECONDS\n",
        "        return True\n",
        UNIT,
        PROPERTY,
    ),
    planted(
        "a place is given back while something is left",
        "limits",
        SWEEP,
        "    return has_another_owner or place.entry.uid not in made\n",
        "    return True\n",
        UNIT,
        PROPERTY,
    ),
    planted(
        "the place of another request is given back, that has the same name",
        "limits",
        SWEEPER,
        "            if ledger is None or ledger.entries.get(entry.handle) != entry:\n                return ledger, False\n            return ledgers_.release(ledger, entry.handle, entry.uid), True\n",
        "            current = ledger.entries.get(entry.handle) if ledger else None\n            return ledgers_.release(ledger, entry.handle, current.uid if current else None), True\n",
        UNIT,
    ),
    planted(
        "the pool is filled by what is seen of it alone",
        "limits",
        WARM,
        "            if self._allocator.make_warm() is None:\n                return  # those that go have their places still\n",
        "            import dataclasses\n\n            offer = self._allocator.offer\n            self._allocator.offer = dataclasses.replace(offer, warm=offer.warm + 100)\n            self._allocator.make_warm()\n            self._allocator.offer = offer\n",
        UNIT,
    ),
    # orphans
    planted(
        "the finalizer goes first",
        "orphans",
        INSTANCE,
        "    if held is None:\n        return Close()\n    ours =",
        '    if True:\n        finalizers = [each for each in instance["metadata"].get("finalizers") or [] if each != FINALIZER]\n        return Write(_with_finalizers(instance, finalizers))\n    ours =',
        UNIT,
        RULES,
    ),
    planted(
        "no finalizer is put on",
        "orphans",
        INSTANCE,
        '        return Write(_with_finalizers(instance, [*(instance["metadata"].get("finalizers") or []), FINALIZER]))\n    return Look',
        "        pass\n    return Look",
        UNIT,
        RULES,
    ),
    planted(
        "the sweeper frees places only",
        "orphans",
        SWEEP,
        "    return [*deletes, *map(Free, (*freed, *after))], waiting\n",
        "    return [*map(Free, (*freed, *after))], waiting\n",
        UNIT,
    ),
    planted(
        "a place that only the total has stays for ever",
        "orphans",
        SWEEP,
        "    freed = [place for place in total if place in dead and place.entry.handle not in wanted]\n",
        "    names = {place.entry.handle for place in others}\n    freed = [place for place in total if place in dead and place.entry.handle in names]\n",
        PROPERTY,
    ),
    planted(
        "a place in the pool stays when its instance has an owner",
        "orphans",
        SWEEP,
        "    if place.owner == pool:\n        return not known.owner\n",
        "    if place.owner == pool:\n        return True\n",
        UNIT,
    ),
    # disks
    planted(
        "disks are deleted before workloads",
        "disks",
        INSTANCE,
        "    for group in (_is_workload, _is_disk, _is_neither):\n",
        "    for group in (_is_disk, _is_workload, _is_neither):\n",
        RULES,
    ),
    planted(
        "a disk is deleted whatever has become of it",
        "disks",
        CONTROLLER,
        '        version = there["metadata"]["resourceVersion"] if there and key.kind == DISK else None\n',
        "        version = None\n",
        UNIT,
    ),
    planted(
        "what is to be kept is deleted",
        "disks",
        INSTANCE,
        '            if _is_disk(key) and spec.get("storage") == RETAIN:\n',
        '            if _is_disk(key) and spec.get("storage") == DELETE + RETAIN:\n',
        UNIT,
        RULES,
    ),
    Mutant(
        "the sweeper deletes a disk as it was when it was listed",
        "disks",
        SWEEPER,
        (('                resource_version=there["metadata"]["resourceVersion"],\n', ""),),
        (UNIT,),
    ),
    planted(
        "what has our label is swept, whoever owns it",
        "disks",
        SWEEP,
        '        if each.get("kind") == KIND and str(each.get("apiVersion", "")).startswith(f"{group}/"):\n',
        "        if group:\n",
        UNIT,
    ),
    planted(
        "a disk that is kept has its owner still",
        "disks",
        INSTANCE,
        'owners = [each for each in metadata.get("ownerReferences") or [] if each.get("uid") != instance["metadata"]["uid"]]',
        'owners = list(metadata.get("ownerReferences") or [])',
        RULES,
        UNIT,
    ),
    # progress
    planted(
        "a reset is not written down as done",
        "progress",
        INSTANCE,
        '    return _says(instance, PENDING, "", now, resets=int(instance["spec"].get("resets", 0)))\n',
        '    return _says(instance, PENDING, "", now)\n',
        RULES,
    ),
    planted(
        "what is there already is a failure",
        "progress",
        CONTROLLER,
        "        except (AlreadyExists, Conflict, LostAnswer) as error:\n            turn.lose(error)\n",
        "        except (Conflict, LostAnswer) as error:\n            turn.lose(error)\n",
        UNIT,
    ),
    planted(
        "what was refused is tried again at once",
        "progress",
        CONTROLLER,
        "        return refusal.until - self._clock()\n",
        "        return 0.0\n",
        UNIT,
    ),
    planted(
        "what was refused is never tried again",
        "progress",
        CONTROLLER,
        "        return refusal.until - self._clock()\n",
        "        return REFUSED_SECONDS\n",
        UNIT,
    ),
    planted(
        "of an older template all stay in the pool",
        "progress",
        WARM,
        "        for obj in [*old, *current[wanted:]]:\n",
        "        for obj in current[wanted:]:\n",
        UNIT,
    ),
    planted(
        "what was written last is no news, whatever has changed since",
        "progress",
        CONTROLLER,
        "            has_news = key in self._news\n",
        "            has_news = False\n",
        UNIT,
    ),
    planted(
        "what the ledgers said of one of the pool holds for whoever claims it",
        "limits",
        CONTROLLER,
        '    return metadata["name"], spec.get("owner"), spec.get("key"), spec.get("digest")\n',
        '    return metadata["name"], spec.get("manifest") is None\n',
        UNIT,
    ),
    # authority
    planted(
        "the term is not asked",
        "authority",
        CONTROLLER,
        "            if not isinstance(step, Look):\n                term.check()\n",
        "",
        UNIT,
    ),
    planted(
        "one of the pool is removed though somebody has it now",
        "authority",
        WARM,
        '                resource_version=metadata["resourceVersion"],\n',
        "",
        UNIT,
    ),
    planted(
        "workloads are deleted by their name",
        "authority",
        CONTROLLER,
        "namespace, uid=uid, resource_version=version, propagation=propagation",
        "namespace, resource_version=version, propagation=propagation",
        UNIT,
    ),
    planted(
        "what the ledgers said before it was to go is believed afterwards",
        "authority",
        CONTROLLER,
        "        turn.obj, turn.held = there, None  #",
        "        turn.obj = there  #",
        UNIT,
    ),
)

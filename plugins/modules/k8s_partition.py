#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_partition
short_description: Have partitions of a key space, and have them split, merged and moved
version_added: 0.2.0
author: Muster contributors (@muster)
description:
  - A key space is cut into partitions, ranges of keys, each of which one worker serves. This module makes and removes
    partitions, and asks for them to be split, merged and moved while they are served.
  - It makes the key space itself, too, where O(space) is given.
  - Splits, merges and moves are asked for by an object C(Assignment), which the partitions' reconciler carries out. The
    name of that is made of what is asked for, so a task that is repeated asks for the same, and what is so already
    changes nothing.
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_attributes
options:
  state:
    description:
      - V(present) has a range covered by partitions. What nobody has yet is made; what is covered stays as it is, for
        it may have been split, merged or moved since.
      - V(absent) has a partition removed.
      - V(split) has a range begin at O(split_key).
      - V(merged) has one partition in place of several that lie side by side, at one worker.
      - V(moved) has the worker O(to) serve the partition. Where nobody has ever served it, it is given to that worker.
    type: str
    choices: [present, absent, split, merged, moved]
    default: present
  key_space:
    description: Name of the key space.
    type: str
    default: default
  namespace:
    description:
      - Namespace of the key space. When not given, that of the context or of the Pod, else V(default).
    type: str
  space:
    description:
      - With O(state=present), have the key space itself made, or changed in what can be changed. What is not given
        stays as it is, or has its default.
      - To remove a key space, remove its partitions, and delete the object C(KeySpace) with M(kubernetes.core.k8s).
    type: dict
    suboptions:
      key_length:
        description: Characters of a key, exactly, 1 to 64. Required to make it; it can't be changed.
        type: int
      alphabet:
        description:
          - The characters that a key may have, 2 to 94 of ASCII that can be seen; all of these when it is not given.
            Keys are ordered by the codes of their characters. It can't be changed.
        type: str
      fence_seconds:
        description: So long nobody may serve a partition during an operation; one that takes longer is aborted.
        type: float
      grace_seconds:
        description: So long the old worker passes requests on after a move.
        type: float
      loading_seconds:
        description: So long the new worker may load; an operation that takes longer is aborted.
        type: float
      lost_after_seconds:
        description: So long a lost worker is waited for before others are given what it had, where that can be.
        type: float
      followers:
        description: How many other workers have each change before it is acknowledged, 0 to 3.
        type: int
      reload:
        description: Whether a partition whose data is lost is given to another worker empty.
        type: bool
      operations:
        description: How many operations go on at once.
        type: int
  name:
    description:
      - Name of the partition.
      - With O(count), how the names of the partitions begin; they go on with a number. When not given, the name of the
        key space.
      - With O(state=split) it can be left out, for the key says which one it is.
    type: str
  start:
    description:
      - The first key of the range; an empty text is the lowest of all. It may be shorter than a key, and stands for the
        first key that begins with it.
      - With O(state=merged), where the range begins that is to be one.
    type: str
  end:
    description:
      - The first key that is not in the range any more; an empty text is above all keys.
      - With one of O(start) and O(end) the other one is empty when it is not given.
    type: str
  count:
    description:
      - Cut the range into so many partitions of the same number of possible keys. Without O(start) and O(end) the range
        is all keys.
      - It counts only for what nobody has yet. A key space that is covered is not cut anew.
    type: int
  split_key:
    description: Where the second part begins. It has to be strictly inside of the range.
    type: str
  partitions:
    description: Names of the partitions that are to be one, 2 to 16. They lie side by side, and one worker has them.
    type: list
    elements: str
  to:
    description: Name of the worker that is to serve the partition, which is the name of its Pod.
    type: str
  force:
    description: Remove a partition though a worker serves it. Its data is lost.
    type: bool
    default: false
  wait:
    description:
      - Wait until the operation is completed. The task fails if it is aborted, and tells why.
      - With O(state=present) wait until somebody serves all of the range.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait. The task fails then; what was asked for stays, and goes on.
    type: float
    default: 300
notes:
  - Needs the rights to C(get) and C(list) C(keyspaces), C(partitions) and C(assignments) (C(muster.dev)); to C(create)
    what it makes, to C(update) C(keyspaces) for O(space), to C(delete) C(partitions) for O(state=absent), and to
    C(watch) C(partitions) and C(assignments) for O(wait). With the right to C(list) Leases it refuses to move to a
    worker that is not there.
  - An operation that was asked for is aborted by deleting its C(Assignment), as long as it is not committed.
seealso:
  - module: muster.coordination.k8s_partition_info
"""

EXAMPLES = r"""
- name: A key space of eight hexadecimal digits, cut into 64
  muster.coordination.k8s_partition:
    namespace: partitions
    space:
      key_length: 8
      alphabet: 0123456789abcdef
      followers: 1
    count: 64
    wait: true

- name: One partition
  muster.coordination.k8s_partition:
    namespace: partitions
    name: part1
    start: a
    end: o

- name: Give it to a worker, or move it there
  muster.coordination.k8s_partition:
    namespace: partitions
    state: moved
    name: part1
    to: pod1
    wait: true

- name: Have a range begin at g, whoever has that now
  muster.coordination.k8s_partition:
    namespace: partitions
    state: split
    split_key: g
    wait: true
  register: halves

- name: Which are there now
  ansible.builtin.debug:
    msg: "{{ halves.partitions | map(attribute='name') }}"

- name: Have one partition from a to o again
  muster.coordination.k8s_partition:
    namespace: partitions
    state: merged
    start: a
    end: o
    wait: true

- name: Remove one that nobody serves
  muster.coordination.k8s_partition:
    namespace: partitions
    state: absent
    name: part1
"""

RETURN = r"""
assignment:
  description:
    - The operation that was asked for, now or before. Empty where none was needed.
  returned: success
  type: dict
  contains:
    name:
      description: Name of the object C(Assignment). In check mode, the name that it would have.
      type: str
      returned: if there is one
      sample: split-part1-3f786850
    type:
      description: V(New), V(InWorkerSplit), V(InWorkerMerge) or V(InterWorkerMove).
      type: str
      returned: if there is one
      sample: InWorkerSplit
    phase:
      description:
        - V(Pending), V(Loading), V(Committed), V(Completed), V(Aborting) or V(Aborted). From V(Committed) on it can't
          be undone.
      type: str
      returned: if there is one
      sample: Completed
    message:
      description: What it waits for, or why it was aborted.
      type: str
      returned: if there is one
      sample: ""
    partitions:
      description: The partitions that it is about.
      type: list
      elements: str
      returned: if there is one
      sample: [part1]
    split_key:
      description: Where it splits.
      type: str
      returned: if there is one
      sample: g
    from:
      description: The worker that it moves from.
      type: str
      returned: if there is one
      sample: ""
    to:
      description: The worker that it moves or gives to.
      type: str
      returned: if there is one
      sample: ""
    created:
      description: When it was asked for.
      type: str
      returned: if there is one
      sample: "2026-01-31T12:00:00Z"
    committed:
      description: When it was committed; empty before.
      type: str
      returned: if there is one
      sample: "2026-01-31T12:00:01.250000Z"
    results:
      description: What came of it, from V(Committed) on.
      type: list
      elements: dict
      returned: if there is one
      sample: [{end: g, epoch: 3, name: part1-0a4d55a8, primary: pod1, start: a}]
partitions:
  description:
    - The partitions that the range has now, in the order of their keys. In check mode, those that are there before.
  returned: success
  type: list
  elements: dict
  sample:
    - end: g
      epoch: 3
      fenced: false
      followers: []
      message: ""
      name: part1-0a4d55a8
      operation: ""
      phase: Ready
      primary: pod1
      proxy: ""
      start: a
before:
  description:
    - Ranges and the workers that had them. With O(state=present), the key space as it was, if O(space) was given.
  returned: success
  type: dict
  sample: {"[a, o)": pod1}
after:
  description:
    - Ranges and the workers that are to have them. With O(state=present), the partitions that were made, and the key
      space as it is, if O(space) was given.
  returned: success
  type: dict
  sample: {"[a, g)": pod1, "[g, o)": pod1}
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import partitions

SPACE = {
    "key_length": {"type": "int", "no_log": False},
    "alphabet": {"type": "str"},
    "fence_seconds": {"type": "float"},
    "grace_seconds": {"type": "float"},
    "loading_seconds": {"type": "float"},
    "lost_after_seconds": {"type": "float"},
    "followers": {"type": "int"},
    "reload": {"type": "bool"},
    "operations": {"type": "int"},
}
SPEC = {
    "state": {"type": "str", "choices": ["present", "absent", "split", "merged", "moved"], "default": "present"},
    "key_space": {"type": "str", "default": "default", "no_log": False},
    "namespace": {"type": "str"},
    "space": {"type": "dict", "options": SPACE},
    "name": {"type": "str"},
    "start": {"type": "str"},
    "end": {"type": "str"},
    "count": {"type": "int"},
    "split_key": {"type": "str", "no_log": False},
    "partitions": {"type": "list", "elements": "str"},
    "to": {"type": "str"},
    "force": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "float", "default": 300},
}


def main() -> None:
    ansible_face.run(
        SPEC,
        partitions.partition,
        required_if=[
            ("state", "absent", ("name",)),
            ("state", "split", ("split_key",)),
            ("state", "merged", ("partitions", "start", "end"), True),
            ("state", "moved", ("name", "to")),
        ],
        mutually_exclusive=[("partitions", "start"), ("partitions", "end"), ("partitions", "count")],
    )


if __name__ == "__main__":
    main()

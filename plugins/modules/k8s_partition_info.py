#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_partition_info
short_description: Show the partitions of a key space, who serves them, and what goes on
version_added: 0.2.0
author: Muster contributors (@muster)
description:
  - Returns the key spaces of a namespace as clients see them. Of an operation that is committed it is the results that
    count, whether or not they stand in the partitions yet.
  - It says whether every key is in a partition, which operations go on, and who has a key.
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_info_attributes
options:
  key_space:
    description: Name of a key space. When not given, all of the namespace are returned.
    type: str
  namespace:
    description:
      - Namespace of the key spaces. When not given, that of the context or of the Pod, else V(default).
    type: str
  key:
    description:
      - A key whose partition is to be found, in RV(key_spaces[].owner).
      - With O(key_space) the task fails where it is no key of that. Without it, key spaces of which it is no key are
        passed over.
    type: str
notes:
  - Needs the rights to C(list) C(keyspaces), C(partitions) and C(assignments) (C(muster.dev)). Workers are returned
    only with the right to C(list) Leases.
seealso:
  - module: muster.coordination.k8s_partition
"""

EXAMPLES = r"""
- name: Look at a key space
  muster.coordination.k8s_partition_info:
    namespace: partitions
    key_space: default
  register: found

- name: Every key is in a partition that somebody serves
  ansible.builtin.assert:
    that:
      - found.key_spaces[0].covered
      - found.key_spaces[0].unserved == 0

- name: Wait until no operation goes on
  muster.coordination.k8s_partition_info:
    namespace: partitions
    key_space: default
  register: found
  until: found.key_spaces[0].operations == []
  retries: 60
  delay: 5

- name: Who has this key
  muster.coordination.k8s_partition_info:
    namespace: partitions
    key_space: default
    key: 00c0ffee
  register: found

- name: Tell it
  ansible.builtin.debug:
    msg: "{{ found.key_spaces[0].owner.primary }}"
"""

RETURN = r"""
key_spaces:
  description: The key spaces found, by their names. An empty list when there is none.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the key space.
      type: str
      returned: always
      sample: default
    namespace:
      description: Its namespace.
      type: str
      returned: always
      sample: partitions
    key_length:
      description: Characters of a key.
      type: int
      returned: always
      sample: 8
    alphabet:
      description: The characters that a key may have.
      type: str
      returned: always
      sample: 0123456789abcdef
    covered:
      description: Whether every key is in a partition.
      type: bool
      returned: always
      sample: true
    gaps:
      description: The ranges that are in no partition.
      type: list
      elements: dict
      returned: always
      sample: []
    unserved:
      description: How many partitions nobody serves.
      type: int
      returned: always
      sample: 0
    partitions:
      description: The partitions that count, in the order of their keys.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: Its name. A split or a merge makes new ones.
          type: str
          returned: always
          sample: part1
        start:
          description: The first key; an empty text is the lowest of all.
          type: str
          returned: always
          sample: a
        end:
          description: The first key that is not in it any more; an empty text is above all.
          type: str
          returned: always
          sample: o
        primary:
          description: The worker that serves it. Empty where nobody does.
          type: str
          returned: always
          sample: pod1
        proxy:
          description: The worker that had it before, and passes requests on.
          type: str
          returned: always
          sample: ""
        epoch:
          description: Grows whenever another worker may serve it, or nobody.
          type: int
          returned: always
          sample: 1
        followers:
          description: Workers that have all that was acknowledged.
          type: list
          elements: str
          returned: always
          sample: []
        operation:
          description: The operation that is about it. Empty where there is none.
          type: str
          returned: always
          sample: ""
        fenced:
          description: Whether nobody may serve it just now, for an operation.
          type: bool
          returned: always
          sample: false
        phase:
          description: V(Ready), or what the partition says of itself; empty before it was ever served.
          type: str
          returned: always
          sample: Ready
        message:
          description: Why it is not served.
          type: str
          returned: always
          sample: ""
    void:
      description: Partitions that are there but do not count any more. They are removed by who made others of them.
      type: list
      elements: str
      returned: always
      sample: []
    operations:
      description: The operations that go on, as RV(muster.coordination.k8s_partition#module:assignment).
      type: list
      elements: dict
      returned: always
      sample: []
    aborted:
      description: Up to five operations that were aborted, each with the reason in C(message).
      type: list
      elements: dict
      returned: always
      sample: []
    workers:
      description: The workers, by their names.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: Name of the worker, which is the name of its Pod.
          type: str
          returned: always
          sample: pod1
        address:
          description: Where it listens.
          type: str
          returned: always
          sample: http://10.0.0.7:8480
        leaving:
          description: Whether it wants to be rid of its partitions.
          type: bool
          returned: always
          sample: false
        incarnation:
          description: Which process it is. Empty where it has ended in order.
          type: str
          returned: always
          sample: 5f2b
        renewed:
          description: When it last renewed its Lease.
          type: str
          returned: always
          sample: "2026-01-31T12:00:00.000000Z"
        lease_seconds:
          description: So long it may serve after that.
          type: int
          returned: always
          sample: 6
        partitions:
          description: How many partitions it serves.
          type: int
          returned: always
          sample: 1
    owner:
      description: The partition that has O(key), as in RV(key_spaces[].partitions). Not set where none has it.
      type: dict
      returned: always
      sample:
        end: o
        epoch: 1
        fenced: false
        followers: []
        message: ""
        name: part1
        operation: ""
        phase: Ready
        primary: pod1
        proxy: ""
        start: a
    message:
      description: What the assigner has to say of the key space.
      type: str
      returned: always
      sample: ""
    error:
      description: Why the key space can't be understood. Not set where it can.
      type: str
      returned: always
      sample:
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import partitions

SPEC = {
    "key_space": {"type": "str", "no_log": False},
    "namespace": {"type": "str"},
    "key": {"type": "str", "no_log": False},
}


def main() -> None:
    ansible_face.run(SPEC, partitions.info)


if __name__ == "__main__":
    main()

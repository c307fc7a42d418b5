#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_lease_info
short_description: Show who leads by a Lease, and which replica of a controller has which shards
version_added: 0.2.0
author: Muster contributors (@muster)
description:
  - Returns the Leases of leader elections with their holders, and sharded controllers with their members, their shards,
    and what is being handed over.
  - Reads the Leases of every election that uses them as client-go does, such as that of C(kube-controller-manager).
    Fence and container are known only of holders that use Muster.
  - Leases that are tickets of a semaphore are not listed; M(muster.coordination.k8s_semaphore_info) shows them.
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_info_attributes
options:
  name:
    description:
      - Name of a Lease or of a sharded controller. Both are returned where there are both.
      - When not given, all of the namespace are returned.
    type: str
  namespace:
    description: Namespace of the Leases.
    type: str
    required: true
  label_selector:
    description:
      - Return only Leases that have these labels, such as V(app=vm-operator,tier!=test), and the sharded controllers of
        which one of these Leases is a member's.
    type: str
notes:
  - A look at one moment can not tell whether a holder is alive. It can tell that a holder has ended, for the kubelet
    says so at its Pod (RV(leases[].state=ended)), and how long the term of a holder that has fallen silent can last at
    most (RV(leases[].ends_within)). C(muster leaders --watch) tells since when a holder has been silent.
  - The times are those that the holder wrote by its own clock. They are for people. To compare them with another clock
    is to trust that both are right.
  - Needs the rights to C(get) and C(list) Leases. Without the right to C(get) Pods it does not know of holders that
    have ended; without the rights to C(get) and C(list) ConfigMaps it does not know the shards, or does not find a
    controller that has no members left.
seealso:
  - module: muster.coordination.k8s_semaphore_info
"""

EXAMPLES = r"""
- name: Look at one operator
  muster.coordination.k8s_lease_info:
    name: vm-operator
    namespace: vm-system
  register: operator

- name: Somebody leads
  ansible.builtin.assert:
    that: operator.leases | selectattr('state', 'eq', 'held') | list | length == 1

- name: Look at the control plane
  muster.coordination.k8s_lease_info:
    namespace: kube-system
  register: control_plane

- name: Who leads there, and how often that has changed
  ansible.builtin.debug:
    msg: "{{ item.name }}: {{ item.pod }}, term {{ item.transitions }}"
  loop: "{{ control_plane.leases }}"
  loop_control:
    label: "{{ item.name }}"

- name: Wait until all shards are where they belong
  muster.coordination.k8s_lease_info:
    name: vm-operator
    namespace: vm-system
  register: sharded
  until: sharded.controllers | selectattr('settled') | list | length == 1
  retries: 30
  delay: 2
"""

RETURN = r"""
leases:
  description:
    - The Leases found, but for those of a sharded controller's members, unless such a one was asked for by its name. An
      empty list when there is none.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the Lease.
      type: str
      returned: always
      sample: vm-operator
    namespace:
      description: Namespace of the Lease.
      type: str
      returned: always
      sample: vm-system
    state:
      description:
        - V(free), nobody has it; V(held), somebody does, and it is not known to be over; V(leaving), the same, and the
          holder begins nothing more and will free it; V(ended), the holder has ended for certain, and whoever is next
          may take it at once.
      type: str
      returned: always
      sample: held
    holder:
      description: Identity of the holder. With Muster it is one run of one process. Not set where the Lease is free.
      type: str
      returned: always
      sample: vm-operator-5d9c7b9f4-x2x7q_8f0f7a4e-9a54-4f0c-8a0b-6a3f0f3a4c11_1a2b3c4d
    pod:
      description: The holder's Pod or, outside of one, its host; what stands in the identity before the first C(_).
      type: str
      returned: always
      sample: vm-operator-5d9c7b9f4-x2x7q
    pod_uid:
      description: The uid of that Pod. Not set where it is not known that the holder runs in one.
      type: str
      returned: always
      sample: 8f0f7a4e-9a54-4f0c-8a0b-6a3f0f3a4c11
    container:
      description: Name of the holder's container, where it has told it.
      type: str
      returned: always
      sample: vm-operator
    container_id:
      description: Id of that container, once the holder knows it. Its end is the proof of the holder's.
      type: str
      returned: always
      sample: containerd://6f1c2e
    fence:
      description:
        - The fencing number of this term or, of a free Lease, of the last one. A later term has a greater one. Not set
          where nobody has held it by Muster.
      type: int
      returned: always
      sample: 4211
    since:
      description: When the holder took it, by the holder's clock. Not set where it is free.
      type: str
      returned: always
      sample: "2026-01-31T12:00:00.000000Z"
    renewed:
      description: When the holder renewed it last, by the holder's clock. Not set where it is free.
      type: str
      returned: always
      sample: "2026-01-31T12:04:06.000000Z"
    seconds:
      description: How long it lasts without being renewed.
      type: int
      returned: always
      sample: 6
    until:
      description:
        - When the term ends by the holder's clock, if it is not renewed before. A time that is past by another clock
          does not prove that the term is over.
      type: str
      returned: always
      sample: "2026-01-31T12:04:12.000000Z"
    ends_within:
      description:
        - The term ends within so many seconds from this look on, unless the holder still lives and renews it. This
          needs no clocks to be compared; it is a bound, the term may be over already. Not set where it is free.
      type: int
      returned: always
      sample: 6
    transitions:
      description: How often it has changed hands, as its holders counted it.
      type: int
      returned: always
      sample: 3
    remark:
      description: What is to be known about the holder, such as that its Pod is not there. Not set where all is well.
      type: str
      returned: always
      sample: null
    error:
      description: What is wrong with the Lease, and the remedy. Not set when all is well.
      type: str
      returned: always
      sample: null
controllers:
  description: The sharded controllers found; an empty list when there is none.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the controller.
      type: str
      returned: always
      sample: vm-operator
    namespace:
      description: Namespace of its Leases and of its table.
      type: str
      returned: always
      sample: vm-system
    layout:
      description: How keys become shards, by the table. Not set where there is none.
      type: dict
      returned: always
      sample: {"shards": 2, "strategy": "stable"}
    settled:
      description: Whether each shard is owned by the member that is wanted for it.
      type: bool
      returned: always
      sample: false
    counts:
      description: How many shards are in each state; see RV(controllers[].shards).
      type: dict
      returned: always
      sample: {"free": 0, "nobody": 0, "orphaned": 0, "owned": 1, "revoked": 1}
    members:
      description:
        - The Leases of its members, with all that RV(leases) has of a Lease. A free one is of a replica that has left.
        - Of each also RV(controllers[].members[].layout), by which it would go, the C(ordinal) of its Pod if that has
          one, the numbers of the shards that it C(owns), and of those for which it is C(wanted).
      type: list
      elements: dict
      returned: always
      contains:
        layout:
          description: The layout that this replica was started with.
          type: dict
          returned: always
          sample: {"shards": 2, "strategy": "stable"}
        ordinal:
          description: The number at the end of its Pod's name, if there is one.
          type: int
          returned: always
          sample: 0
        owns:
          description: The shards that it acts on.
          type: list
          elements: int
          returned: always
          sample: [0, 1]
        wanted:
          description: The shards that it has by the plan.
          type: list
          elements: int
          returned: always
          sample: [0]
    shards:
      description:
        - All shards, by number, with the name of the member that owns it, its identity (C(owner)), its C(fence), and
          the member that is C(wanted) for it by the plan.
        - The C(state) is V(owned), as planned; V(revoked), the owner has still to end its work on it and let go;
          V(free), who is wanted takes it next; V(orphaned), the owner has ended or has no Lease any more, and any
          member strikes it out as soon as its term is over; V(nobody), there is no member for it.
      type: list
      elements: dict
      returned: always
      sample:
        - fence: 4301
          member: vm-operator-0
          owner: vm-operator-0_8f0f7a4e-9a54-4f0c-8a0b-6a3f0f3a4c11_1a2b3c4d
          shard: 0
          state: owned
          wanted: vm-operator-0
    handovers:
      description: The shards on their way from one member to another.
      type: list
      elements: dict
      returned: always
      sample: [{"from": "vm-operator-0", "shard": 1, "state": "revoked", "to": "vm-operator-1"}]
    error:
      description: What is wrong with the table, and the remedy. Not set when all is well.
      type: str
      returned: always
      sample: null
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import lease_info

SPEC = {
    "name": {"type": "str"},
    "namespace": {"type": "str", "required": True},
    "label_selector": {"type": "str"},
}


def main() -> None:
    ansible_face.run(SPEC, lease_info.info, mutually_exclusive=[("name", "label_selector")])


if __name__ == "__main__":
    main()

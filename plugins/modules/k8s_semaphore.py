#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_semaphore
short_description: Create a distributed semaphore on Kubernetes and set its capacity
version_added: 0.1.0
author: Muster contributors (@muster)
description:
  - Manages a ConfigMap whose annotation C(distributor_capacity) says how many permits there are of each resource; or,
    with the O(engine) V(tickets), a Lease whose annotation C(muster.dev/capacity) does.
  - Who holds and who waits is never touched by a change of capacity. What a raise sets free is handed to those who wait
    at once.
  - A lowered capacity revokes nobody. It drains, and the module says nothing is free until enough holders have left.
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_attributes
  - muster.coordination.semaphore_engine
options:
  name:
    description: Name of the ConfigMap, or of the Lease, that is the semaphore.
    type: str
    required: true
  namespace:
    description: Namespace of the semaphore.
    type: str
    required: true
  state:
    description:
      - With V(present) the semaphore exists and has this O(capacity).
      - With V(absent) it is removed.
    type: str
    choices: [present, absent]
    default: present
  capacity:
    description:
      - Resource names with their numbers of permits, each from 0 to 2147483647. This is the whole capacity; a resource
        that is not named is no longer handed out.
      - When not given, an existing semaphore keeps its capacity, and a new one has none.
    type: dict
  mode:
    description:
      - What a holder can have. With V(v1), which a new semaphore has, one permit of one resource; an old Distributor
        can share the ConfigMap. With V(v2), counts of several resources in one claim; no old Distributor can read the
        ConfigMap then, so none claims from it.
      - When not given, an existing semaphore keeps its mode. V(v1) is refused while somebody has, or waits for, more
        than it can say.
      - Only for the O(engine) V(annotations). With V(tickets) any claim may have several resources.
    type: str
    choices: [v1, v2]
  force:
    description: Remove it even while somebody holds or waits, or while the ConfigMap has data of its own.
    type: bool
    default: false
seealso:
  - module: muster.coordination.k8s_semaphore_claim
  - module: muster.coordination.k8s_semaphore_info
"""

EXAMPLES = r"""
- name: Three GPUs and one licence for the whole namespace
  muster.coordination.k8s_semaphore:
    name: hardware
    namespace: render
    capacity:
      gpu: 3
      licence: 1

- name: Let a holder have several resources, and several permits of each; no old Distributor may use it any more
  muster.coordination.k8s_semaphore:
    name: hardware
    namespace: render
    mode: v2

- name: A pool for hundreds of Pods, one small object for each claim
  muster.coordination.k8s_semaphore:
    name: slots
    namespace: render
    engine: tickets
    capacity:
      slot: 200

- name: Take a GPU out of service, as soon as somebody gives one back
  muster.coordination.k8s_semaphore:
    name: hardware
    namespace: render
    capacity:
      gpu: 2
      licence: 1

- name: Remove a semaphore that nobody uses
  muster.coordination.k8s_semaphore:
    name: hardware
    namespace: render
    state: absent
"""

RETURN = r"""
capacity:
  description: Number of permits of each resource, as it is now. Not set when the semaphore is absent.
  returned: success
  type: dict
  sample: {"gpu": 3, "licence": 1}
mode:
  description: What a holder can have, V(v1) or V(v2). Not set with tickets, and when the semaphore is absent.
  returned: success
  type: str
  sample: v1
before:
  description: Capacity and mode before, empty when there was no semaphore.
  returned: success
  type: dict
  sample: {"capacity": {"gpu": 2}, "mode": "v1"}
after:
  description: Capacity and mode after, empty when there is no semaphore any more.
  returned: success
  type: dict
  sample: {"capacity": {"gpu": 3, "licence": 1}, "mode": "v1"}
reasons:
  description: Why the module did what it did, in words.
  returned: success
  type: list
  elements: str
  sample: []
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore

SPEC = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "capacity": {"type": "dict"},
    "mode": {"type": "str", "choices": ["v1", "v2"]},
    "engine": {"type": "str", "choices": ["annotations", "tickets"]},
    "force": {"type": "bool", "default": False},
}


def main() -> None:
    ansible_face.run(SPEC, semaphore.configure)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_semaphore_info
short_description: Show who holds and who waits at distributed semaphores
version_added: 0.1.0
author: Muster contributors (@muster)
description:
  - Returns capacity, holders with their fences, and waiters in the order in which they will be served.
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_info_attributes
  - muster.coordination.semaphore_engine
options:
  name:
    description: Name of the semaphore. When not given, all semaphores of the namespace are returned.
    type: str
  namespace:
    description: Namespace of the semaphores.
    type: str
    required: true
seealso:
  - module: muster.coordination.k8s_semaphore
  - module: muster.coordination.k8s_semaphore_claim
"""

EXAMPLES = r"""
- name: Look at one semaphore
  muster.coordination.k8s_semaphore_info:
    name: hardware
    namespace: render
  register: hardware

- name: Nobody has waited since yesterday
  ansible.builtin.assert:
    that: hardware.semaphores[0].waiters | length == 0
"""

RETURN = r"""
semaphores:
  description: The semaphores found; an empty list when there is none.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the ConfigMap, or of the Lease.
      type: str
      returned: always
      sample: hardware
    namespace:
      description: Namespace of the semaphores.
      type: str
      returned: always
      sample: render
    engine:
      description: Which engine it is of, V(annotations) or V(tickets).
      type: str
      returned: always
      sample: annotations
    mode:
      description:
        - What a holder can have, V(v1), one permit of one resource, or V(v2), counts of several. Not set with tickets,
          which know no modes, and when the annotations are malformed.
      type: str
      returned: always
      sample: v1
    resources:
      description: Each resource with its capacity, and how many permits are held and free.
      type: list
      elements: dict
      returned: always
      sample: [{"capacity": 3, "free": 2, "held": 1, "name": "gpu"}]
    holders:
      description:
        - Who has what. The C(resource) is set where that is one permit of one resource.
        - A holder which an old Distributor served has no fence and no uid yet.
      type: list
      elements: dict
      returned: always
      sample:
        - fence: 4211
          holder: render-0
          lease: null
          resource: gpu
          resources: {"gpu": 1}
          since: "2026-01-31T12:00:00Z"
          uid: 8f0f7a4e-9a54-4f0c-8a0b-6a3f0f3a4c11
    waiters:
      description:
        - Who waits, in the order in which they will be served. The want V(*) is any one resource; it is set where one
          permit of one resource is wanted.
      type: list
      elements: dict
      returned: always
      sample:
        - holder: render-3
          lease: null
          place: 1
          priority: 0
          uid: 0d5c…
          want: null
          wants: {"gpu": 2, "licence": 1}
    error:
      description: What is wrong with its annotations or with tickets, and the remedy. Not set when all is well.
      type: str
      returned: always
      sample: null
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore

SPEC = {
    "name": {"type": "str"},
    "namespace": {"type": "str", "required": True},
    "engine": {"type": "str", "choices": ["annotations", "tickets"]},
}


def main() -> None:
    ansible_face.run(SPEC, semaphore.info)


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: allocator_instance_info
short_description: Show instances that an allocator has given, and what it offers
version_added: 0.2.0
author: Muster contributors (@muster)
description:
  - Returns the instances of a user and those that others share with it, what the allocator offers, and the disks that
    the user has kept.
  - It talks to the allocator by HTTP (O(allocator_url)), or reads the same straight from the cluster (O(allocator)).
extends_documentation_fragment:
  - muster.coordination.allocator_door
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_info_attributes
options:
  name:
    description: Name of an instance. When neither this nor O(key) is given, all are returned.
    type: str
  key:
    description: The key by which an instance was made.
    type: str
  everything:
    description: Return the instances of all users, for administrators.
    type: bool
    default: false
  allocator:
    description: Name of the allocator, to read it straight from the cluster in which it runs or has run.
    type: str
  owner:
    description:
      - Whose instances, with O(allocator) only. When not given, those of who the credentials are for.
    type: str
notes:
  - With O(allocator) it needs the rights to C(get) ConfigMaps, to C(get) and C(list) C(instances) (C(muster.dev)), and
    to C(list) PersistentVolumeClaims.
seealso:
  - module: muster.coordination.allocator_instance
"""

EXAMPLES = r"""
- name: What do I have, and what can I have
  muster.coordination.allocator_instance_info:
    allocator_url: https://allocator.example.com
  register: mine

- name: Tell it
  ansible.builtin.debug:
    msg: "{{ mine.offer.used }} of {{ mine.offer.limit }}: {{ mine.instances | map(attribute='name') | join(', ') }}"

- name: Find one by its key
  muster.coordination.allocator_instance_info:
    allocator_url: https://allocator.example.com
    key: ci-{{ ci_pipeline_id }}

- name: All instances that are not ready, straight from the cluster
  muster.coordination.allocator_instance_info:
    allocator: syncbase-allocator
    namespace: syncbase
    everything: true
  register: all_of_them
  failed_when: all_of_them is failed or all_of_them.instances | rejectattr('phase', 'equalto', 'Ready') | length > 0
"""

RETURN = r"""
instances:
  description:
    - The instances, by name; each as RV(muster.coordination.allocator_instance#module:instance). An empty list where
      there is none.
  returned: success
  type: list
  elements: dict
  sample:
    - access: {groups: [], users: []}
      attach: ""
      created: "2026-01-31T12:00:00Z"
      endpoints: [{name: http, port: 8149, service: syncbased-a1b2c3d4e5}]
      key: a7937b64b8caa58f
      message: ""
      name: syncbased-a1b2c3d4e5
      objects: [{kind: Deployment, name: syncbased-a1b2c3d4e5}]
      owner: alice@example.com
      parameters: {colour: blue}
      phase: Ready
      resets: 0
      storage: delete
      suspended: false
      template: 3f786850e387550f
offer:
  description: What this user can have, and how much of it is used.
  returned: success
  type: dict
  sample:
    caller: {groups: [developers], is_administrator: false, name: alice@example.com}
    global_limit: 10
    has_disk: true
    limit: 1
    name: syncbase-allocator
    parameters: {colour: {default: red, type: string}}
    template: {digest: 3f786850e387550f, kinds: [Deployment, PersistentVolumeClaim, Service], version: "1"}
    used: 1
disks:
  description: The disks that this user has kept, which a new instance can have.
  returned: success
  type: list
  elements: dict
  sample: [{created: "2026-01-30T12:00:00Z", name: syncbased-0f1e2d3c4b-data, size: 50G}]
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import allocator_modules

SPEC = {
    "name": {"type": "str"},
    "key": {"type": "str", "no_log": False},
    "everything": {"type": "bool", "default": False},
    "allocator_url": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "allocator": {"type": "str"},
    "namespace": {"type": "str"},
    "owner": {"type": "str"},
}


def main() -> None:
    ansible_face.run(
        SPEC,
        allocator_modules.info,
        lazily=True,
        required_one_of=[("allocator_url", "allocator")],
        mutually_exclusive=[
            ("name", "key", "everything"),
            ("allocator_url", "allocator"),
            ("allocator_url", "owner"),
        ],
    )


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: allocator_instance
short_description: Have an instance of a service from an allocator
version_added: 0.2.0
author: Muster contributors (@muster)
description:
  - An allocator gives each user instances of a service that an administrator has described by a template. This module
    has one made, suspended, resumed or destroyed.
  - It talks to the allocator by HTTP (O(allocator_url)), or does the same straight in the cluster (O(allocator)), for
    which it needs the rights of the allocator itself.
  - An instance is the playbook's own by O(key). The same key is always the same instance, so a task can be repeated,
    by anybody who logs in as the same user, and also after its answer was lost.
extends_documentation_fragment:
  - muster.coordination.allocator_door
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_attributes
options:
  state:
    description:
      - V(present) has the instance made, or resumed if it is suspended.
      - V(suspended) has it made, and its Pods taken away; its disks stay.
      - V(absent) has it destroyed. What becomes of its disks was said when it was made, or is said by O(storage).
    type: str
    choices: [present, absent, suspended]
    default: present
  key:
    description:
      - The playbook's word for this instance, of 1 to 128 printable ASCII characters, such as V(ci-database). It is
        what C(allocator create --key) calls the key.
      - It is of one owner; two users can have the same one.
      - One of this and O(name) is required.
    type: str
  name:
    description:
      - Name of an instance that is there, as RV(instance.name). With it none is ever made, and O(state=present) fails
        where there is none.
    type: str
  parameters:
    description:
      - Values of the template's parameters; those that are not given have the template's default. Text stands for a
        number or a boolean where the parameter is one.
      - An instance that is there keeps its own. The task fails if it has other values than those that are given here.
    type: dict
  access:
    description: Who may see, suspend and resume the instance beside its owner. It can't be changed later.
    type: dict
    suboptions:
      users:
        description: Names of users, as the API server knows them.
        type: list
        elements: str
      groups:
        description: Names of groups.
        type: list
        elements: str
  storage:
    description:
      - What becomes of its disks when it is destroyed. V(retain) keeps them for O(attach).
      - When it is made, V(delete) is the default; with O(state=absent) the default is what was said then.
    type: str
    choices: [delete, retain]
  attach:
    description: Name of a disk that the owner has kept, to be the disk of this instance.
    type: str
  wait:
    description:
      - Wait until the instance is ready, suspended, or gone.
      - With O(state=present) and O(key) also until an instance of that key which is being destroyed is gone. Without it
        the task fails then.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait. The task fails then; what was asked for stays, and goes on.
    type: float
    default: 300
  allocator:
    description: Name of the allocator, to do it straight in the cluster in which it runs or has run.
    type: str
  owner:
    description:
      - In whose name to do it, with O(allocator) only. When not given, in that of the credentials.
    type: str
notes:
  - With O(allocator) it needs the rights to C(get), C(list), C(create) and C(update) ConfigMaps and C(instances)
    (C(muster.dev)), to C(delete) and C(watch) C(instances), to C(get) and C(list) PersistentVolumeClaims, and to
    C(create) the kinds of the template, of which it only does a dry run. It is the allocator's controller that makes
    the objects.
seealso:
  - module: muster.coordination.allocator_instance_info
"""

EXAMPLES = r"""
- name: Have a database for this test run
  muster.coordination.allocator_instance:
    allocator_url: https://allocator.example.com
    token: "{{ lookup('ansible.builtin.file', '~/.config/allocator-token') }}"
    key: ci-{{ ci_pipeline_id }}
    parameters:
      colour: blue
      replicas: 1
    wait: true
  register: database

- name: Tell where it is
  ansible.builtin.debug:
    msg: "{{ database.instance.endpoints[0].service }}:{{ database.instance.endpoints[0].port }}"

- name: Have it sleep over the weekend
  muster.coordination.allocator_instance:
    allocator_url: https://allocator.example.com
    key: ci-{{ ci_pipeline_id }}
    state: suspended

- name: Destroy it, and keep its disk
  muster.coordination.allocator_instance:
    allocator_url: https://allocator.example.com
    key: ci-{{ ci_pipeline_id }}
    state: absent
    storage: retain
    wait: true

- name: Give somebody an instance, straight in the cluster
  muster.coordination.allocator_instance:
    allocator: syncbase-allocator
    namespace: syncbase
    owner: alice@example.com
    key: first
    access:
      groups: [developers]
"""

RETURN = r"""
instance:
  description:
    - The instance as it is, or would be in check mode. Empty where there is none.
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      type: str
      returned: if there is one
      sample: syncbased-a1b2c3d4e5
    owner:
      description: The user who has it.
      type: str
      returned: if there is one
      sample: alice@example.com
    access:
      description: Who else may see, suspend and resume it.
      type: dict
      returned: if there is one
      sample: {groups: [developers], users: []}
    key:
      description: The hash of its key.
      type: str
      returned: if there is one
      sample: a7937b64b8caa58f
    phase:
      description:
        - V(Pending), V(Creating), V(Ready), V(Suspending), V(Suspended), V(Resuming), V(Resetting), V(Destroying) or
          V(Failed).
      type: str
      returned: if there is one
      sample: Ready
    message:
      description: What it waits for, or why it has failed.
      type: str
      returned: if there is one
      sample: ""
    created:
      description: When it was made.
      type: str
      returned: if there is one
      sample: "2026-01-31T12:00:00Z"
    parameters:
      description: The values of the template's parameters.
      type: dict
      returned: if there is one
      sample: {colour: blue, replicas: 1}
    storage:
      description: What becomes of its disks when it is destroyed.
      type: str
      returned: if there is one
      sample: delete
    suspended:
      description: Whether it is to be suspended.
      type: bool
      returned: if there is one
      sample: false
    resets:
      description: How often it was to be reset.
      type: int
      returned: if there is one
      sample: 0
    attach:
      description: The disk that it was given.
      type: str
      returned: if there is one
      sample: ""
    template:
      description: The digest of the template that it was made from.
      type: str
      returned: if there is one
      sample: 3f786850e387550f
    objects:
      description: The objects that it is made of.
      type: list
      elements: dict
      returned: if there is one
      sample: [{kind: Deployment, name: syncbased-a1b2c3d4e5}]
    endpoints:
      description: The ports of its Services.
      type: list
      elements: dict
      returned: if there is one
      sample: [{name: http, port: 8149, service: syncbased-a1b2c3d4e5}]
before:
  description: What was said of it before. Empty where it was not there, or was being destroyed.
  returned: success
  type: dict
  sample: {}
after:
  description: What is said of it now. Empty where it is to be gone.
  returned: success
  type: dict
  sample:
    access: {groups: [], users: []}
    attach: ""
    name: syncbased-a1b2c3d4e5
    parameters: {colour: blue, replicas: 1}
    storage: delete
    suspended: false
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import allocator_modules

ACCESS = {
    "users": {"type": "list", "elements": "str"},
    "groups": {"type": "list", "elements": "str"},
}
SPEC = {
    "state": {"type": "str", "choices": ["present", "absent", "suspended"], "default": "present"},
    "key": {"type": "str", "no_log": False},
    "name": {"type": "str"},
    "parameters": {"type": "dict"},
    "access": {"type": "dict", "options": ACCESS},
    "storage": {"type": "str", "choices": ["delete", "retain"]},
    "attach": {"type": "str"},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "float", "default": 300},
    "allocator_url": {"type": "str"},
    "token": {"type": "str", "no_log": True},
    "allocator": {"type": "str"},
    "namespace": {"type": "str"},
    "owner": {"type": "str"},
}


def main() -> None:
    ansible_face.run(
        SPEC,
        allocator_modules.instance,
        lazily=True,
        required_one_of=[("key", "name"), ("allocator_url", "allocator")],
        mutually_exclusive=[("key", "name"), ("allocator_url", "allocator"), ("allocator_url", "owner")],
    )


if __name__ == "__main__":
    main()

#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_semaphore_claim
short_description: Claim a resource of a distributed semaphore, or give it back
version_added: 0.1.0
author: Muster contributors (@muster)
description:
  - Claims one permit for a holder, or several of several resources at once; safe under any number of concurrent
    writers.
  - The result has a fence, a number that grows with every grant of the resource. Send it along with what you do to the
    resource, and let the resource refuse a number that is lower than one it has seen.
  - Claiming what the holder has already changes nothing and returns the same fence.
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
    description: Namespace of the semaphore, and of the Pods that hold its resources.
    type: str
    required: true
  holder:
    description:
      - Who claims. Either the name of a Pod that runs in O(namespace), whose claim ends when the Pod ends.
      - Or, together with O(lease), any name that is not that of a Pod, such as that of a CI run.
    type: str
    required: true
  holder_uid:
    description:
      - The uid of the holder's Pod. When not given it is looked up for V(present), and does not matter for V(absent).
    type: str
  state:
    description:
      - With V(present) the holder has a resource, or the task fails.
      - With V(absent) the holder has none and does not wait for one.
    type: str
    choices: [present, absent]
    default: present
  resource:
    description:
      - Which resource to claim one permit of. When neither this nor O(resources) is given, the one with most permits
        left.
    type: str
  resources:
    description:
      - What to claim, 1 to 16 resource names with their numbers of permits, each from 1. The holder gets all of it or
        waits for all of it. While it waits, what it wants is kept from those behind it, so that it is not starved.
      - More than one permit needs V(mode=v2) of M(muster.coordination.k8s_semaphore), or the O(engine) V(tickets).
    type: dict
  priority:
    description:
      - Place in the queue, from -1000 to 1000. Higher numbers are served first; the same number, in order of arrival.
      - Those who wait gain one for each 64 grants and arrivals after theirs, so that nobody waits for ever.
      - Only the O(engine) V(annotations) knows priorities.
    type: int
    default: 0
  lease:
    description:
      - Seconds, from 3 to 604800, in which a holder that is not a Pod claims again to keep what it has. Whoever watches
        the semaphore takes it away when it was not renewed for so long.
    type: int
  wait:
    description: Queue for the resource instead of failing when none is free.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait. The place in the queue is given up then, and the task fails.
    type: float
    default: 300
notes:
  - An old Distributor which shares the ConfigMap knows Pods only, and takes the claim of any other holder away.
seealso:
  - module: muster.coordination.k8s_semaphore
  - module: muster.coordination.k8s_semaphore_info
"""

EXAMPLES = r"""
- name: Take the licence for this run, and give it back whatever happens
  block:
    - name: Wait for the licence
      muster.coordination.k8s_semaphore_claim:
        name: hardware
        namespace: render
        holder: "ci-{{ build_number }}"
        resource: licence
        lease: 3600
        wait: true
        wait_timeout: 900
      register: licence

    - name: Use it, with the fence
      ansible.builtin.command:
        argv: [render, "--fence={{ licence.fence }}", scene.blend]
      changed_when: true
  always:
    - name: Give the licence back
      muster.coordination.k8s_semaphore_claim:
        name: hardware
        namespace: render
        holder: "ci-{{ build_number }}"
        state: absent

- name: Two GPUs and a licence, or nothing
  muster.coordination.k8s_semaphore_claim:
    name: hardware
    namespace: render
    holder: render-0
    resources:
      gpu: 2
      licence: 1
    wait: true

- name: Claim any resource for a Pod that has no sidecar
  muster.coordination.k8s_semaphore_claim:
    name: hardware
    namespace: render
    holder: render-0
"""

RETURN = r"""
holder:
  description: Who claimed.
  returned: success
  type: str
  sample: ci-42
resource:
  description: The resource that the holder has one permit of. Not set when it has none, or more than that.
  returned: success
  type: str
  sample: licence
resources:
  description: All that the holder has, resource names with their numbers of permits; empty when it has nothing.
  returned: success
  type: dict
  sample: {"licence": 1}
fence:
  description: The fencing number of the grant, growing strictly with each grant of the resource.
  returned: success
  type: int
  sample: 4211
since:
  description: When it was granted (with tickets, when it was asked for), for people to read.
  returned: success
  type: str
  sample: "2026-01-31T12:00:00Z"
place:
  description: The place in the queue, the first is 1. Not set for one who does not wait.
  returned: success
  type: int
  sample: 2
uid:
  description: The uid of the holder's Pod, empty for a holder that is not a Pod.
  returned: when state is present
  type: str
  sample: 8f0f7a4e-9a54-4f0c-8a0b-6a3f0f3a4c11
outcome:
  description: What happened, one of V(granted), V(held), V(waiting) (in check mode only), V(released), V(absent).
  returned: success
  type: str
  sample: granted
waited:
  description: Seconds from the start of the claim to its end.
  returned: when state is present
  type: float
  sample: 1.284
before:
  description: What the holder had before.
  returned: success
  type: dict
  sample: {"fence": null, "holder": "ci-42", "place": null, "resource": null, "resources": {}, "since": null}
after:
  description: What the holder has now.
  returned: success
  type: dict
  sample:
    fence: 4211
    holder: ci-42
    place: null
    resource: licence
    resources: {"licence": 1}
    since: "2026-01-31T12:00:00Z"
reasons:
  description: Why the module did what it did, in words.
  returned: success
  type: list
  elements: str
  sample: ["licence was free"]
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore

SPEC = {
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "holder": {"type": "str", "required": True},
    "holder_uid": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "resource": {"type": "str"},
    "resources": {"type": "dict"},
    "engine": {"type": "str", "choices": ["annotations", "tickets"]},
    "priority": {"type": "int", "default": 0},
    "lease": {"type": "int"},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "float", "default": 300},
}


def main() -> None:
    ansible_face.run(SPEC, semaphore.ensure_claim, mutually_exclusive=[("resource", "resources")])


if __name__ == "__main__":
    main()

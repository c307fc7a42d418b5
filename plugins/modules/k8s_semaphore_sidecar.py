#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k8s_semaphore_sidecar
short_description: Have the Pods of a workload of your own claim what they need of a distributed semaphore
version_added: 0.1.0
author: Muster contributors (@muster)
description:
  - Adds Muster as a native sidecar to the Pod template of a Deployment, StatefulSet or DaemonSet that is there, and
    takes it out again. Each Pod then claims for itself, tells its containers what it holds, and gives it back when it
    ends.
  - What is added are an init container C(muster-distributor) with C(restartPolicy) C(Always), the volumes
    C(muster-claim) and C(muster-token), in the containers a read-only mount of the first and the variable
    E(MUSTER_CLAIM_FILE), and the annotation C(muster.dev/sidecar) of the workload, which says so. All else stays as it
    is, so that attaching and taking out again leaves the workload as it was. A change of the Pod template rolls the
    workload out.
  - What others changed in these parts is put right. A name, path or port that the workload uses itself is refused.
  - The sidecar comes last among the init containers, so a Pod claims when its own preparations are done. It alone is
    given a token here; whether the other containers have one stays as it is.
  - The ServiceAccount of the Pods, RV(service_account), has to be allowed to attend the semaphore. The role
    P(muster.coordination.distributor#role) does both, by its variable C(distributor_attach).
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_attributes
  - muster.coordination.semaphore_engine
options:
  kind:
    description: Kind of the workload.
    type: str
    choices: [Deployment, StatefulSet, DaemonSet]
    default: Deployment
  name:
    description: Name of the workload.
    type: str
    required: true
  namespace:
    description: Namespace of the workload, and of the semaphores.
    type: str
    required: true
  state:
    description:
      - With V(present) the workload, which has to be there, has this sidecar.
      - With V(absent) it has none. A workload that is not there is fine then.
    type: str
    choices: [present, absent]
    default: present
  image:
    description: Muster's image. Required with O(state=present).
    type: str
  image_pull_policy:
    description: When a node asks the registry for the image.
    type: str
    choices: [Always, IfNotPresent, Never]
    default: IfNotPresent
  semaphore:
    description: Name of the ConfigMap (V(tickets) of the Lease) that is the semaphore. It need not be there yet.
    type: str
  resource:
    description: The one resource that each Pod claims of O(semaphore). By default any one, whichever is free.
    type: str
  resources:
    description:
      - Resources that each Pod claims of O(semaphore), and how many of each; it gets all of them at once, or waits.
      - More than one needs a semaphore of O(engine=tickets), or one whose mode is V(v2).
    type: dict
  semaphores:
    description:
      - Several semaphores, in place of O(semaphore). They are claimed in the order of their names, and the containers
        are told when all are held.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the ConfigMap or Lease.
        type: str
        required: true
      resources:
        description: As O(resources). By default any one resource.
        type: dict
  priority:
    description: Pods of a higher priority are served first, from -1000 to 1000. Only with O(engine=annotations).
    type: int
    default: 0
  gate:
    description:
      - Start the containers of a Pod only when it holds its claim. Pods that wait then stay in C(Init), and a roll-out
        of more Pods than there are permits is never complete.
    type: bool
    default: false
  containers:
    description:
      - Names of the containers that are told of the claim; init containers may be among them.
      - By default all that are no init containers.
    type: list
    elements: str
  claim_file:
    description:
      - Where the containers find their claim, an absolute path. With an end in C(.json) it is JSON, with one in C(.env)
        variables for a shell. The directory is a volume of its own in memory.
      - E(MUSTER_CLAIM_FILE) in the containers says this path.
    type: str
    default: /run/muster/claim.json
  release_on_term:
    description: Give the claim back when the Pod ends, in place of leaving it to be found by others.
    type: bool
    default: true
  annotate_pod:
    description:
      - Write the claim also into the annotation C(muster.dev/claim) of the Pod, for the downward API and for people.
        The ServiceAccount then needs C(patch) on Pods.
    type: bool
    default: false
  port:
    description: Port of the sidecar's health, metrics and claim pages. No other container of the Pods may use it.
    type: int
    default: 8377
  compute:
    description:
      - What the sidecar's container requests, and its limits, as Kubernetes writes it.
      - By default it requests C(cpu) V(5m) and C(memory) V(32Mi), and its limit of C(memory) is V(64Mi).
    type: dict
  env:
    description: Further environment variables of the sidecar, as Kubernetes writes them.
    type: list
    elements: dict
  wait:
    description:
      - Wait until every Pod of the workload runs what was asked for and is available.
      - A workload that does not roll out by itself (paused, or with the update strategy C(OnDelete)) is not waited for,
        but warned of.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait at most. The module fails then, though the workload is changed.
    type: int
    default: 120
notes:
  - Check mode asks the API server for a dry run, so it needs the same rights, and finds what the server would refuse.
seealso:
  - module: muster.coordination.k8s_semaphore
  - module: muster.coordination.k8s_semaphore_info
"""

EXAMPLES = r"""
- name: Each Pod of the renderer needs a GPU, and does not start without
  muster.coordination.k8s_semaphore_sidecar:
    kind: StatefulSet
    name: renderer
    namespace: render
    image: registry.example.org/muster:0.1.0
    semaphore: hardware
    resource: gpu
    gate: true
    wait: true

- name: Two GPUs and a licence, told to one container in shell variables
  muster.coordination.k8s_semaphore_sidecar:
    name: batch
    namespace: render
    image: registry.example.org/muster:0.1.0
    engine: tickets
    semaphores:
      - name: hardware
        resources: {gpu: 2}
      - name: licences
        resources: {matlab: 1}
    containers: [worker]
    claim_file: /run/muster/claim.env

- name: Take it out again
  muster.coordination.k8s_semaphore_sidecar:
    name: batch
    namespace: render
    state: absent
"""

RETURN = r"""
before:
  description: What was there of the sidecar, empty when there was none.
  returned: success
  type: dict
  sample: {}
after:
  description:
    - What is there of the sidecar, as the API server completed it; empty when there is none.
    - C(initContainer), C(volumes), C(containers) with the C(volumeMounts) and C(env) of each, and C(annotations) of the
      workload.
  returned: success
  type: dict
  sample: {}
containers:
  description: The containers that are told of the claim.
  returned: success
  type: list
  elements: str
  sample: [app]
service_account:
  description: The ServiceAccount of the Pods, as which the sidecar acts. Not set when there is no workload.
  returned: success
  type: str
  sample: default
reasons:
  description: Why the module did what it did, in words.
  returned: success
  type: list
  elements: str
  sample: ["the sidecar was added, and told to app"]
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import sidecar

SPEC = {
    "kind": {"type": "str", "choices": ["Deployment", "StatefulSet", "DaemonSet"], "default": "Deployment"},
    "name": {"type": "str", "required": True},
    "namespace": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "image": {"type": "str"},
    "image_pull_policy": {"type": "str", "choices": ["Always", "IfNotPresent", "Never"], "default": "IfNotPresent"},
    "semaphore": {"type": "str"},
    "resource": {"type": "str"},
    "resources": {"type": "dict"},
    "semaphores": {
        "type": "list",
        "elements": "dict",
        "options": {"name": {"type": "str", "required": True}, "resources": {"type": "dict"}},
    },
    "engine": {"type": "str", "choices": ["annotations", "tickets"]},
    "priority": {"type": "int", "default": 0},
    "gate": {"type": "bool", "default": False},
    "containers": {"type": "list", "elements": "str"},
    "claim_file": {"type": "str", "default": "/run/muster/claim.json"},
    "release_on_term": {"type": "bool", "default": True},
    "annotate_pod": {"type": "bool", "default": False},
    "port": {"type": "int", "default": 8377},
    "compute": {"type": "dict"},
    "env": {"type": "list", "elements": "dict"},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "int", "default": 120},
}


def main() -> None:
    ansible_face.run(
        SPEC,
        sidecar.ensure,
        required_if=[("state", "present", ("image",)), ("state", "present", ("semaphore", "semaphores"), True)],
        mutually_exclusive=[("semaphore", "semaphores"), ("resource", "resources")],
        required_by={"resource": "semaphore", "resources": "semaphore"},
    )


if __name__ == "__main__":
    main()

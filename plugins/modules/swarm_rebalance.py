#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_rebalance
short_description: Place jobs on the workers of a pool, each on one of them
version_added: 0.2.0
author: Muster contributors (@muster)
description:
  - Gives each job to one worker, and writes that to the ConfigMap that the workers read. On equal workers the loads
    differ by one at most, and no placement that is as even moves fewer jobs or changes the lists of fewer workers.
  - Workers are the Pods of StatefulSets and Deployments that have a label. A worker whose list has changed is waited
    for or restarted, the others are left alone.
  - A job is given to its new worker only when the old one is known to have let go. So a placement may need several
    steps; without O(wait) the module does what can be done at once, and another run goes on with it.
  - It makes the same decisions as C(muster swarm-operator), for pools that have no operator. A ConfigMap that a Swarm's
    operator keeps is refused.
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_attributes
options:
  name:
    description:
      - Name of the ConfigMap that the workers read, under the key C(config.yml). What is too long for one goes into
        further ones, called like it with a number at the end.
      - What else stands in it is kept. It is made where it is not there.
    type: str
    default: swarm-worker-config
  namespace:
    description: Namespace of the ConfigMap, of the workers, and of O(jobs_from).
    type: str
    required: true
  jobs:
    description:
      - All jobs of the pool, together with those of O(jobs_from). A job that a worker has and that is not among them is
        taken away.
      - Each is a name of 1 to 253 characters, or a mapping with C(name), C(weight) (1 to 1000000, by default 1),
        C(class) (one of O(classes); it runs only there), C(dedicated) (if V(true), its worker has no other job), and
        C(spread) (of the jobs with the same word here no zone has more than its share).
      - One of this and O(jobs_from) is required; V([]) takes all jobs from all workers.
    type: list
    elements: raw
  jobs_from:
    description: ConfigMaps with jobs, as YAML; a list as O(jobs), or a mapping with the key C(jobs).
    type: list
    elements: dict
    suboptions:
      config_map:
        description: Name of the ConfigMap.
        type: str
        required: true
        aliases: [configMap]
      key:
        description: Under which key they stand.
        type: str
        default: jobs.yml
      optional:
        description: Whether the ConfigMap, or the key, may be missing.
        type: bool
        default: false
  selector:
    description:
      - Label selector of the StatefulSets and Deployments whose Pods are the workers, such as
        V(app in (a, b\),tier=one).
      - One that selects no StatefulSet or Deployment is refused while there are jobs.
    type: str
    default: swarm-worker=true
  classes:
    description: Kinds of jobs that run only on some of the workers.
    type: list
    elements: dict
    suboptions:
      name:
        description: What jobs name as their C(class).
        type: str
        required: true
      workers:
        description:
          - A label selector, with C(matchLabels) and C(matchExpressions) as Kubernetes has them, of the Pod templates
            of the workers that run jobs of this class.
        type: dict
        required: true
      exclusive:
        description: Whether these workers run no other jobs.
        type: bool
        default: false
  capacity:
    description:
      - The largest sum of weights of a worker, from 1; when not given, there is none. The annotation
        C(muster.dev/capacity) of a Pod template counts more than this.
    type: int
  zone_label:
    description: Label of Pods that says in which zone they are, for C(spread).
    type: str
    default: topology.kubernetes.io/zone
  handover:
    description:
      - With V(safe) no job is ever on two workers.
      - With V(fast) a job is given to its new worker in the same write in which it is taken from the old one, for jobs
        that may run twice for a moment.
    type: str
    choices: [safe, fast]
    default: safe
  refresh:
    description:
      - How a worker comes to run its new list. With V(auto) one that tells its version (Pod annotation
        C(muster.dev/config-port) or C(muster.dev/applied-version)) reads the list by itself, and the Pod of any other
        is evicted.
      - With V(reload) all are taken to read it by themselves, with V(evict) all are evicted.
      - With V(none) nobody is evicted. Who has to be restarted is told in RV(reasons), and is waited for.
    type: str
    choices: [auto, reload, evict, none]
    default: auto
  max_unavailable:
    description: How many workers may be away by eviction at a time, from 1. PodDisruptionBudgets hold besides.
    type: int
    default: 1
  churn:
    description:
      - Where weights differ, the most moves that only make the loads more even, from 0; when not given, there is no
        bound.
    type: int
  confirm_seconds:
    description:
      - With O(wait), a worker that tells its version and has not confirmed its list for so long is evicted. V(0) is
        never.
    type: int
    default: 60
  grace_seconds:
    description:
      - With O(wait), so long the share of a Deployment's Pod that is gone waits for its successor, and Pods that are
        ready wait for the rest of those that are new.
    type: int
    default: 30
  linger_seconds:
    description:
      - For so many seconds a Pod that is gone may still run its jobs, unless it was seen to end. A Pod that went before
        this task began was not seen. V(0) trusts that whoever is gone has ended, which is wrong where Pods are deleted
        by force or nodes are lost.
    type: float
    default: 30
  wait:
    description: Wait until every worker runs its jobs.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait. The task fails then; what was done stays, and another run goes on with it.
    type: float
    default: 300
notes:
  - Needs the rights to C(get), C(list), C(create) and C(update) ConfigMaps, to C(get) and C(list) Pods, to C(list)
    StatefulSets and Deployments, to C(create) C(pods/eviction) unless nobody is evicted, and to C(get) C(pods/proxy)
    where workers tell their version by HTTP. With the right to C(watch) all of these O(wait) learns of changes at once.
  - Without O(wait), a worker whose Pod is gone keeps its jobs until a run with O(wait), or with
    O(linger_seconds=0).
  - Pods that are not ready yet become workers in a later run, unless the pool has no jobs at all so far.
  - The ConfigMap is marked by the annotation C(muster.dev/swarm) as one of Ansible. To hand it over to an operator,
    remove the annotation.
seealso:
  - module: muster.coordination.swarm_info
"""

EXAMPLES = r"""
- name: Spread the nightly backups over the workers that are there
  muster.coordination.swarm_rebalance:
    namespace: backups
    jobs: "{{ databases }}"
    wait: true
  register: placed

- name: Tell what moved
  ansible.builtin.debug:
    msg: "{{ placed.moves }} jobs moved, {{ placed.restarts }} workers changed"

- name: Show what one more worker would change
  muster.coordination.swarm_rebalance:
    namespace: backups
    jobs: "{{ databases }}"
  check_mode: true
  diff: true

- name: Streams that need a graphics card, and one that has its worker for itself
  muster.coordination.swarm_rebalance:
    name: streams
    namespace: video
    selector: app=transcoder
    jobs_from:
      - config_map: streams
    jobs:
      - {name: "stream:sportnews0", class: gpu, weight: 4}
      - {name: "stream:history", dedicated: true}
    classes:
      - name: gpu
        workers: {matchLabels: {accelerator: nvidia}}
    max_unavailable: 2
    wait: true
    wait_timeout: 900

- name: Every stream has a worker
  muster.coordination.swarm_rebalance:
    namespace: video
    jobs_from:
      - config_map: streams
    capacity: 40
  register: streams
  failed_when: streams is failed or streams.unplaced | length > 0

- name: Take all jobs from all workers
  muster.coordination.swarm_rebalance:
    namespace: video
    jobs: []
"""

RETURN = r"""
before:
  description: What each worker was told before, with the version of its list; empty where there was no ConfigMap.
  returned: success
  type: dict
  sample:
    w-0: {jobs: [a, b], version: 0}
    w-1: {jobs: [c, d], version: 0}
after:
  description:
    - What each worker is told now.
    - In check mode, what each worker would be told in the end. How often a list is written until then is not known, so
      the version of one that changes is not set.
  returned: success
  type: dict
  sample:
    w-0: {jobs: [a, b], version: 0}
    w-1: {jobs: [c], version: 1}
    w-2: {jobs: [d], version: 0}
assignment:
  description: The placement, each worker with its jobs. Until RV(converged) it may differ from what workers are told.
  returned: success
  type: dict
  sample: {"w-0": ["a", "b"], "w-1": ["c"], "w-2": ["d"]}
moves:
  description:
    - How many jobs this run found to leave a worker that is still there. Where jobs or workers change while it waits,
      those of each placement are added up.
  returned: success
  type: int
  sample: 1
least_moves:
  description: The fewest moves with which a placement that is as even could be had. Not set where that is not known.
  returned: success
  type: int
  sample: 1
restarts:
  description: How many of the workers that had a list before get another one.
  returned: success
  type: int
  sample: 1
least_restarts:
  description: The fewest of these that there can be. Not set where that is not known.
  returned: success
  type: int
  sample: 1
imbalance:
  description: The largest load of a worker less the smallest, in the placement.
  returned: success
  type: int
  sample: 1
method:
  description:
    - How it was placed. V(quota), equal jobs on equal workers; V(flow), with classes, capacities, zones or dedicated
      jobs; V(weighted), where weights differ.
  returned: success
  type: str
  sample: quota
unplaced:
  description: The jobs that have no worker, each with the reason. There is a warning, too.
  returned: success
  type: dict
  sample: {}
evicted:
  description: The workers whose Pods were evicted, in this order.
  returned: success
  type: list
  elements: str
  sample: []
converged:
  description: Whether every worker is known to run its jobs, and nothing is to be done any more.
  returned: success
  type: bool
  sample: false
waits_for:
  description: Who has still to be waited for, and why.
  returned: success
  type: dict
  sample:
    w-1: it has not shown that it let go 1 jobs; it does not answer
    w-2: 1 jobs are on their way to it
reasons:
  description: What was done and what there is to know, in words.
  returned: success
  type: list
  elements: str
  sample: ["4 jobs on 3 workers: 1 move, 1 of the workers that were there change"]
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm_modules

SOURCE = {
    "config_map": {"type": "str", "required": True, "aliases": ["configMap"]},
    "key": {"type": "str", "default": "jobs.yml", "no_log": False},
    "optional": {"type": "bool", "default": False},
}
CLASS = {
    "name": {"type": "str", "required": True},
    "workers": {"type": "dict", "required": True},
    "exclusive": {"type": "bool", "default": False},
}
SPEC = {
    "name": {"type": "str", "default": "swarm-worker-config"},
    "namespace": {"type": "str", "required": True},
    "jobs": {"type": "list", "elements": "raw"},
    "jobs_from": {"type": "list", "elements": "dict", "options": SOURCE},
    "selector": {"type": "str", "default": "swarm-worker=true"},
    "classes": {"type": "list", "elements": "dict", "options": CLASS},
    "capacity": {"type": "int"},
    "zone_label": {"type": "str", "default": "topology.kubernetes.io/zone"},
    "handover": {"type": "str", "choices": ["safe", "fast"], "default": "safe"},
    "refresh": {"type": "str", "choices": ["auto", "reload", "evict", "none"], "default": "auto"},
    "max_unavailable": {"type": "int", "default": 1},
    "churn": {"type": "int"},
    "confirm_seconds": {"type": "int", "default": 60},
    "grace_seconds": {"type": "int", "default": 30},
    "linger_seconds": {"type": "float", "default": 30},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "float", "default": 300},
}


def main() -> None:
    ansible_face.run(SPEC, swarm_modules.rebalance, required_one_of=[("jobs", "jobs_from")])


if __name__ == "__main__":
    main()

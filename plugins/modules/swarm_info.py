#!/usr/bin/python
# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_info
short_description: Show which jobs the workers of a Swarm have, and why
version_added: 0.2.0
author: Muster contributors (@muster)
description:
  - Returns the Swarms of a namespace, their workers, and what is being handed over. It looks at the same as the Swarm's
    operator, and asks workers for the versions that they run.
  - Also the ConfigMaps of workers that no Swarm stands for, such as those of M(muster.coordination.swarm_rebalance),
    and of an operator that goes by labels. A cluster that does not know the kind Swarm has only those.
extends_documentation_fragment:
  - muster.coordination.k8s_auth_options
  - muster.coordination.k8s_info_attributes
options:
  name:
    description:
      - Name of a Swarm. When neither this nor O(config_map) is given, all of the namespace are returned.
    type: str
  config_map:
    description:
      - Name of a ConfigMap of workers, as RV(swarms[].config_map). It is returned as it stands, without what a Swarm
        may want of it.
    type: str
  namespace:
    description: Namespace of the Swarms and of their workers.
    type: str
    required: true
  job:
    description:
      - A job to explain, in RV(swarms[].explanation). Without O(name) and O(config_map) it is looked for everywhere in
        the namespace.
    type: str
notes:
  - Needs the rights to C(get) and C(list) Swarms, ConfigMaps and Pods, and to C(list) StatefulSets and Deployments; and
    to C(get) C(pods/proxy) where workers tell their version by HTTP. Without the latter it goes by what the operator
    was answered.
seealso:
  - module: muster.coordination.swarm_rebalance
"""

EXAMPLES = r"""
- name: Look at one Swarm
  muster.coordination.swarm_info:
    name: streams
    namespace: video
  register: streams

- name: Every job has a worker that runs it
  ansible.builtin.assert:
    that:
      - streams.swarms[0].converged
      - streams.swarms[0].unplaced == {}

- name: Why is it there
  muster.coordination.swarm_info:
    name: streams
    namespace: video
    job: stream:cctv0
  register: why

- name: Tell it
  ansible.builtin.debug:
    msg: "{{ why.swarms[0].explanation.why }}"

- name: Wait until all Swarms of the namespace are as they should be
  muster.coordination.swarm_info:
    namespace: video
  register: all_of_them
  until: all_of_them.swarms | rejectattr('converged') | length == 0
  retries: 60
  delay: 5

- name: What the workers of a pool without a Swarm were told
  muster.coordination.swarm_info:
    config_map: swarm-worker-config
    namespace: backups
"""

RETURN = r"""
swarms:
  description: The Swarms found, and after them the ConfigMaps that no Swarm stands for. An empty list when there is
    none.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the Swarm. Not set for a ConfigMap that no Swarm stands for.
      type: str
      returned: always
      sample: main
    namespace:
      description: Namespace of the Swarm and of its workers.
      type: str
      returned: always
      sample: video
    config_map:
      description: Name of the ConfigMap that the workers read; of several, of the first.
      type: str
      returned: always
      sample: swarm-worker-config
    config_maps:
      description: Over how many ConfigMaps it is spread, for one holds 1 MiB.
      type: int
      returned: always
      sample: 1
    manager:
      description:
        - Who keeps the ConfigMap. V(Swarm/NAME), the operator of this Swarm; V(ConfigMap/NAME), an operator that goes
          by labels, for the jobs of that ConfigMap; V(ansible), M(muster.coordination.swarm_rebalance). Not set where
          nobody has marked it.
      type: str
      returned: always
      sample: Swarm/main
    status:
      description: The Swarm's C(status), as its operator told it. Not set where there is no Swarm.
      type: dict
      returned: always
      sample:
        configMaps: 1
        converged: false
        jobs: 4
        observedGeneration: 1
        placed: 4
        unplaced: 0
        waitsFor:
          reason: it has not shown that it let go 1 jobs
          since: "2026-01-31T12:00:00Z"
          worker: w-1
        workers: 3
    jobs:
      description: How many jobs there are, with those that have no worker.
      type: int
      returned: always
      sample: 4
    unplaced:
      description:
        - The jobs that have no worker, each with the reason. Not set where there is no Swarm, for which jobs there are
          is known to who keeps the ConfigMap.
      type: dict
      returned: always
      sample: {}
    imbalance:
      description: The largest load of a worker less the smallest, in the placement that is being carried out.
      type: int
      returned: always
      sample: 1
    converged:
      description: Whether every worker is known to run its jobs, and nothing is to be done any more.
      type: bool
      returned: always
      sample: false
    waits_for:
      description: Who has to be waited for, and why.
      type: dict
      returned: always
      sample:
        w-1: it has not shown that it let go 1 jobs
        w-2: 1 jobs are on their way to it
    rebalance:
      description:
        - What the last placement came to, when it was made. C(time); C(method), see
          RV(muster.coordination.swarm_rebalance#module:method); and the numbers that are described there.
      type: dict
      returned: always
      sample:
        imbalance: 1
        least_moves: 1
        least_restarts: 1
        method: quota
        moves: 1
        restarts: 1
        time: "2026-01-31T12:00:00Z"
    workers:
      description: The workers, by name.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: Name of the worker, which is that of its Pod.
          type: str
          returned: always
          sample: w-1
        jobs:
          description: The jobs that it was told to run.
          type: list
          elements: str
          returned: always
          sample: [c]
        load:
          description: The sum of their weights. Not set where there is no Swarm, for the weights are not known then.
          type: int
          returned: always
          sample: 1
        version:
          description: Version of that list. Not set where it has none.
          type: int
          returned: always
          sample: 1
        applied:
          description: The version that it is known to run at least. Not set where none is known.
          type: int
          returned: always
          sample: 0
        state:
          description:
            - V(Converged), it runs its list; V(Reloading), it has still to tell that it does; V(Restarting), its Pod
              has to go for that; V(Missing), it has no Pod; V(Leaving), it is to have no jobs any more.
          type: str
          returned: always
          sample: Reloading
        leaving:
          description: Jobs that it was told to let go, and may still run. V(*) stands for any.
          type: list
          elements: str
          returned: always
          sample: [d]
      sample:
        - {applied: 0, jobs: [a, b], leaving: [], load: 2, name: w-0, state: Converged, version: 0}
        - {applied: 0, jobs: [c], leaving: [d], load: 1, name: w-1, state: Reloading, version: 1}
        - {applied: null, jobs: [], leaving: [], load: 0, name: w-2, state: Converged, version: null}
    explanation:
      description:
        - Where O(job) is and why. Not set where no job was asked for, or the Swarm has none of that name.
        - C(worker) has it in its list; C(leaving) had it, and may still run it; C(planned) is to have it. The C(state)
          is V(placed), V(moving) or V(unplaced). C(waits_for) tells who of those holds it up.
      type: dict
      returned: always
      sample:
        job: d
        leaving: [w-1]
        planned: w-2
        state: moving
        waits_for:
          w-1: it has not shown that it let go 1 jobs
          w-2: 1 jobs are on their way to it
        why: >-
          d moves from w-1, which has no room for it any more, to w-2. w-2 has 1 job, each of the others 1 to 2.
        worker: null
    error:
      description:
        - What can't be understood, or may not be read, and the remedy. Not set when all is well.
      type: str
      returned: always
      sample: null
"""

from ansible_collections.muster.coordination.plugins.module_utils import ansible_face
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm_info

SPEC = {
    "name": {"type": "str"},
    "config_map": {"type": "str"},
    "namespace": {"type": "str", "required": True},
    "job": {"type": "str"},
}


def main() -> None:
    ansible_face.run(SPEC, swarm_info.info, mutually_exclusive=[("name", "config_map")])


if __name__ == "__main__":
    main()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two engines of a semaphore, as each module of it offers them."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  engine:
    description:
      - What the semaphore is made of. One name can be used for one of each kind; they know nothing of each other.
      - V(annotations) keeps everything in the annotations of one ConfigMap. It is right for small pools, for people who
        edit it by hand, with priorities, and beside an old Distributor.
      - V(tickets) makes one small Lease for each claim, so that no object is written by all. It is right for many
        holders and a quick hand-over. Claims may have several resources. They are served strictly in the order of their
        arrival. The capacity is in the annotation C(muster.dev/capacity) of a Lease of the semaphore's own name,
        labelled C(muster.dev/semaphore) with that name.
      - When not given, V(annotations); M(muster.coordination.k8s_semaphore_info) then shows semaphores of both kinds.
    type: str
    choices: [annotations, tickets]
"""

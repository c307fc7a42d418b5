# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what `decisions/machine.py` decided to a VirtualMachine."""

from __future__ import annotations

from typing import Any, Final

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Resource
from ansible_collections.muster.coordination.plugins.module_utils.commit import commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import Write

VIRTUAL_MACHINES: Final = Resource("muster.dev/v1alpha1", "virtualmachines", "VirtualMachine")

Object = dict[str, Any]


def write(api: Api, step: Write, *, timeout: float) -> Object | None:
    """Write it, if the object is still at the version that it was decided on.

    Returns the object as it is then, written by us or by somebody else: decide on that. None where it is gone, also
    where another one has its name. Raises TimedOut after `timeout` seconds, and what another try can't mend.
    """
    metadata = step.desired["metadata"]
    uid, version = metadata["uid"], metadata["resourceVersion"]

    def decide(there: Object | None) -> tuple[Object | None, None]:
        is_same = there is not None and there["metadata"]["resourceVersion"] == version
        return (step.desired if is_same else there), None

    written = commit(
        api,
        VIRTUAL_MACHINES,
        metadata["name"],
        metadata["namespace"],
        decide,
        subresource=step.subresource,
        timeout=timeout,
        seen={"metadata": metadata},
    ).after
    return written if written is not None and written["metadata"]["uid"] == uid else None

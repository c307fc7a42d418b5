# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write what `decisions/machine.py` decided to a VirtualMachine."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Resource
from ansible_collections.muster.coordination.plugins.module_utils.commit import commit
from ansible_collections.muster.coordination.plugins.module_utils.decisions.machine import Write

VIRTUAL_MACHINES: Final = Resource("muster.dev/v1alpha1", "virtualmachines", "VirtualMachine")

Object = dict[str, Any]


class Written(NamedTuple):
    """The object as it is after a write.

    `is_own`: the version is the one that this write made of the one that it was decided on. If not, somebody else may
    have been there meanwhile: after a conflict, and also after an answer that was lost.
    """

    obj: Object
    is_own: bool


def write(api: Api, step: Write, *, timeout: float) -> Written | None:
    """Write it, if the object is still at the version that it was decided on.

    Decide on what is returned, whoever wrote it. None where the object is gone, also where another one has its name.
    Raises TimedOut after `timeout` seconds, and what another try can't mend.
    """
    metadata = step.desired["metadata"]
    uid, version = metadata["uid"], metadata["resourceVersion"]

    def decide(there: Object | None) -> tuple[Object | None, bool]:
        is_same = there is not None and there["metadata"]["resourceVersion"] == version
        return (step.desired if is_same else there), is_same

    done = commit(
        api,
        VIRTUAL_MACHINES,
        metadata["name"],
        metadata["namespace"],
        decide,
        subresource=step.subresource,
        timeout=timeout,
        seen={"metadata": metadata},
    )
    if done.after is None or done.after["metadata"]["uid"] != uid:
        return None
    return Written(done.after, is_own=done.verdict)

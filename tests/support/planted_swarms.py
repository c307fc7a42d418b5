# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bugs to plant in the processes of the Swarm operator, to see that the storm finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions import convergence, worker_config
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Known


class Bug(NamedTuple):
    """`breaks` is what must hold and then does not; `found` stands in the words of the violation that tells of it."""

    breaks: str
    found: str
    plant: Callable[[], None]


def plant(name: str) -> None:
    """In this process, for good."""
    BUGS[name].plant()


_step, _known, _evictions, _remember = (
    convergence.step,
    convergence.known,
    convergence._evictions,
    convergence._remember,
)


def _waits_for_nobody() -> None:
    """A job is given to its new worker while the old one still has to let it go."""

    def step(config: Any, jobs: Any, members: Any, sights: Any, policy: Any, **more: Any) -> Any:
        return _step(config, jobs, members, sights, policy._replace(handover=convergence.FAST), **more)

    convergence.step = step


def _ending_is_ended() -> None:
    """A Pod that is being deleted counts as gone."""

    def known(hold: Any, sight: Any) -> int:
        return convergence.EVERYTHING if sight.is_ending else _known(hold, sight)

    convergence.known = known


def _no_barrier() -> None:
    """Each Pod of a silent worker is believed to run what stands in its list now, whenever it was made."""

    def remember(before: Any, after: Any, sights: Any, policy: Any) -> Any:
        found = _remember(before, after, sights, policy)
        holds = {
            name: hold._replace(barrier=Known("nobody", found.entries[name].version)) if hold.barrier else hold
            for name, hold in found.holds.items()
            if name in found.entries
        }
        return replace(found, holds={**found.holds, **holds})

    convergence._remember = remember


def _forgets_what_leaves() -> None:
    """What is being let go is not written down: who comes after a crash knows nothing of it."""

    def document(hold: Any) -> dict[str, Any]:
        return {key: value for key, value in _document(hold).items() if key != "leaving"}

    worker_config._hold_document = document


_document, _write = worker_config._hold_document, Api._write


def _overwrites() -> None:
    """It writes the configuration that it has decided on, whatever somebody else wrote meanwhile."""

    def write(api: Api, method: str, asked: Any, body: Any, path: str = "") -> Any:
        if method == "PUT" and worker_config.PART_OF in (body.get("metadata", {}).get("labels") or {}):
            version = api.get(CONFIGMAPS, asked.name, asked.namespace)["metadata"]["resourceVersion"]
            body = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        return _write(api, method, asked, body, path)

    Api._write = write  # type: ignore[method-assign]


def _restarts_all() -> None:
    """It evicts silent workers by turns, whether their lists have changed or not."""

    def evictions(config: Any, members: Any, names: Any, sights: Any, policy: Any) -> Any:
        due = _evictions(config, members, names, sights, policy)
        silent = [
            convergence.Eviction(name, sight.uid)
            for name, sight in sorted(sights.items())
            if sight.uid and sight.is_ready and not (sight.reports or sight.is_ending)
        ]
        return due or tuple(silent[:1])

    convergence._evictions = evictions


def _leaves_out() -> None:
    """What moves is placed on nobody."""

    def carry_out(config: Any, plan: Any, *rest: Any) -> Any:
        thinned = {worker: jobs[:-1] for worker, jobs in plan.assignment.items()}
        return _carry_out(config, replace(plan, assignment=thinned), *rest)

    convergence._carry_out = carry_out


_carry_out = convergence._carry_out

BUGS: Final[Mapping[str, Bug]] = {
    "hands over without waiting": Bug("W1", "W1: ", _waits_for_nobody),
    "an ending Pod counts as gone": Bug("W1", "W1: ", _ending_is_ended),
    "any Pod has read the list": Bug("W4", "W4: ", _no_barrier),
    "forgets what leaves": Bug("W1", "W1: ", _forgets_what_leaves),
    "overwrites what others wrote": Bug("W2", "W2: ", _overwrites),
    "restarts who has not changed": Bug("W3", "W3: ", _restarts_all),
    "leaves jobs out": Bug("W4", "in vain", _leaves_out),
}

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a job is where it is, or nowhere, in words that name what to change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.muster.coordination.plugins.module_utils.decisions import placement_pool
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement_pool import (
    Job,
    Placement,
    Previous,
    Worker,
    some_names,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed

NO_WORKERS = "there are no workers"


def explain(
    job_name: str, jobs: Iterable[Job], workers: Iterable[Worker], previous: Previous, placement: Placement
) -> str:
    """Why the job is where it is, or nowhere, in a few sentences. Raises Malformed for a job that is not there."""
    job = next((job for job in jobs if job.name == job_name), None)
    if job is None:
        raise Malformed("job", job_name, "name one of the jobs")
    if job_name in placement.unplaced:
        return f"{job_name} has no worker: {placement.unplaced[job_name]}."
    here = next((worker for worker, own in placement.assignment.items() if job_name in own), None)
    if here is None:
        raise Malformed("job", job_name, "this placement was made without it: rebalance first")
    pool = placement_pool.in_natural_order(workers)
    return " ".join((_came(job_name, here, pool, previous), *_load(here, placement), *_bound(job, pool)))


def _came(job: str, here: str, pool: Sequence[Worker], previous: Previous) -> str:
    was = next((worker.name for worker in pool if job in previous.get(worker.name, ())), None)
    if was == here:
        return f"{job} stays on {here}, which had it before."
    if was is not None:
        return f"{job} moves from {was}, which has no room for it any more, to {here}."
    gone = min((worker for worker, own in previous.items() if job in own), default=None, key=placement_pool.natural_key)
    if gone is not None:
        return f"{job} goes to {here}, as {gone}, which had it, is gone."
    return f"{job} is new and goes to {here}."


def _load(here: str, placement: Placement) -> Iterable[str]:
    own = len(placement.assignment[here])
    others = [len(jobs) for worker, jobs in placement.assignment.items() if worker != here]
    has = f"{here} has {_jobs(own)}"
    yield f"{has}, each of the others {min(others)} to {max(others)}." if others else f"{has}; it is the only worker."


def _bound(job: Job, pool: Sequence[Worker]) -> Iterable[str]:
    """What of the job narrows the choice."""
    takers = [worker.name for worker in pool if job.group in worker.takes]
    if len(takers) < len(pool):
        what = f"Class {job.group}" if job.group else "A job without a class"
        yield f"{what} may run on {len(takers)} of {len(pool)} workers: {some_names(takers)}."
    if job.dedicated:
        yield "It is dedicated: no other job runs beside it."
    if job.spread:
        yield f"It is spread over the zones with the other jobs of {job.spread}."


def shortage(
    labels: Sequence[tuple[str, str]],
    jobs: int,
    room: int,
    workers: Sequence[str],
    *,
    elsewhere: int = 0,
    kept: Sequence[str] = (),
) -> str:
    """Why some of the jobs are nowhere: all of these (group, spread) together have room on these workers only.

    `elsewhere` of their jobs are in zones that take no more of them; `kept` are workers that take them, but have a
    dedicated job.
    """
    who = _labels(labels)
    besides = f" besides {elsewhere} in zones which take no more of them" if elsewhere else ""
    if workers:
        reserved = f"; kept for dedicated jobs: {some_names(kept)}" if kept else ""
        return f"{who}: {_jobs(jobs)}{besides}, and room for {room} on {some_names(workers)}{reserved}"
    if kept:
        return f"{who}: {_jobs(jobs)}{besides}, and dedicated jobs have all workers that take them: {some_names(kept)}"
    if elsewhere:
        return f"{who}: {_jobs(jobs)}{besides}"
    return f"{who}: no worker takes it"


def too_heavy(
    label: tuple[str, str], weight: int, room: int, workers: Sequence[str], *, full: Sequence[str], kept: Sequence[str]
) -> str:
    """Why a weighted job is nowhere; `full` are workers in zones that take no more of its spread."""
    who = _labels([label])
    if workers:
        return f"{who}: weight {weight}, and room for {max(0, room)} at most on {some_names(workers)}"
    if full:
        return f"{who}: the zones of {some_names(full)} take no more of this spread"
    return shortage([label], 1, 0, [], kept=kept)


def no_worker_left(labels: Sequence[tuple[str, str]], jobs: int, workers: Sequence[str], elsewhere: int) -> str:
    """Why some dedicated jobs are nowhere."""
    who = f"dedicated jobs, {_labels(labels)}"
    besides = f" besides {elsewhere} in zones which take no more of them" if elsewhere else ""
    if workers or elsewhere:
        on = f": {some_names(workers)}" if workers else ""
        return f"{who}: {_jobs(jobs)}{besides}, and {_workers(len(workers))} for them{on}"
    return f"{who}: no worker takes it"


def connected(reach: Mapping[int, Iterable[int]]) -> list[tuple[list[int], list[int]]]:
    """The kinds and the bins that they reach, as components: what has no bin in common stands apart."""
    owner: dict[int, int] = {}
    parts: dict[int, tuple[list[int], list[int]]] = {}
    for kind, bins in reach.items():
        own = list(dict.fromkeys(bins))
        merged: tuple[list[int], list[int]] = ([kind], [bin_ for bin_ in own if bin_ not in owner])
        for part in dict.fromkeys(owner[bin_] for bin_ in own if bin_ in owner):
            kinds, more = parts.pop(part)
            merged[0].extend(kinds)
            merged[1].extend(more)
        parts[kind] = merged
        owner.update(dict.fromkeys(merged[1], kind))
    return [(sorted(kinds), sorted(bins)) for kinds, bins in parts.values()]


def _labels(labels: Sequence[tuple[str, str]]) -> str:
    groups = sorted({group for group, _other in labels})
    named = [group for group in groups if group]
    said = ["without a class"] if "" in groups else []
    if named:
        said.append(f"{'class' if len(named) == 1 else 'classes'} {some_names(named)}")
    spreads = sorted({spread for _other, spread in labels})
    if spreads != [""]:
        said[-1] += f", spread {some_names([spread for spread in spreads if spread])}"
    return " or ".join(said)


def _jobs(number: int) -> str:
    return f"{number} job" if number == 1 else f"{number} jobs"


def _workers(number: int) -> str:
    return f"{number} worker" if number == 1 else f"{number} workers"

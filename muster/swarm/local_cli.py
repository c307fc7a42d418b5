# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster swarm`: for people. What a change would come to, without a cluster; how Swarms stand, and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, PODS, Api, NotFound
from ansible_collections.muster.coordination.plugins.module_utils.decisions import (
    convergence,
    placement,
    swarm,
    worker_config,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.convergence import Policy
from ansible_collections.muster.coordination.plugins.module_utils.decisions.placement import Job, Placement, Worker
from ansible_collections.muster.coordination.plugins.module_utils.decisions.worker_config import Config, Entry, Part
from ansible_collections.muster.coordination.plugins.module_utils.documents import parse_yaml
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import swarm_info
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import SWARMS
from muster.live import Found, Source
from muster.options import Options, WrongUsage, command, connect, system
from muster.table import terminal_width

BREATH: Final = 0.5  # seconds between two looks of --watch: every change of a Pod is a reason

SWARM = """\
Jobs placed on the workers of a pool, each on one of them.

  plan       place jobs on workers, without a cluster: what would come of it
  status     how the Swarms of a namespace stand, once or live
  explain    why a job is where it is

`muster swarm COMMAND --help` says more.
"""

PLAN = """\
Place jobs on workers without a cluster, exactly as the operator would: who does
what, what moves, and whose list changes. It writes nothing but its output.
"""

PLAN_EPILOG = """\
examples:
  muster swarm plan --jobs jobs.yml --workers w-0,w-1,w-2
  muster swarm plan --jobs jobs.yml --workers w-0,w-1 -o config > config.yml
  muster swarm plan --jobs jobs.yml --workers w-0,w-1,w-2 --previous config.yml
  muster swarm plan --jobs jobs.yml --workers-file pool.yml --why stream:cctv0

files:
  jobs       a list, or a mapping with the key jobs. A job is a name, or a
             mapping with name, weight, class, dedicated and spread
  workers    a list, or a mapping with the key workers. A worker is a name, or a
             mapping with name, classes, exclusive, capacity and zone
  previous   as the operator writes it; the versions go on from there

columns:
  CHANGE   jobs that it gets (+) and loses (-); = is none
  VERSION  of its list; it grows if the list changes

exit status:
  0  planned, also if there are jobs that have no worker
  1  a file is not there or can't be understood
  2  wrong usage
"""

STATUS = """\
How the Swarms of a namespace stand, as their operator tells; and the workers'
ConfigMaps that have no Swarm, as they are seen. It only reads.
"""

STATUS_EPILOG = """\
examples:
  muster swarm status --namespace video
  muster swarm status streams -n video --watch
  muster swarm status streams -n video -o json | jq '.[0].waits_for'

columns:
  WANTED  version of the list that the worker is to run
  RUNS    version that it is known to run

exit status:
  0  shown
  1  a Swarm that was named is not there or is malformed, or it failed
  2  wrong usage
"""

EXPLAIN = """\
Why a job of a Swarm is where it is, or nowhere, and who holds it up.
NAME may be a ConfigMap that no Swarm stands for.
"""

EXPLAIN_EPILOG = """\
example:
  muster swarm explain streams stream:cctv0 -n video

exit status:
  0  explained
  1  there is no such Swarm or job, or it failed
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the commands."""
    commands = system(systems, "swarm", SWARM)
    plan = command(commands, "muster swarm plan", _plan, PLAN, PLAN_EPILOG)
    _Options(plan, environ).plan()
    status = command(commands, "muster swarm status", _status, STATUS, STATUS_EPILOG, "[NAME]")
    _Options(status, environ).named("name", nargs="?").shown().cluster().short()
    explain = command(commands, "muster swarm explain", _explain, EXPLAIN, EXPLAIN_EPILOG, "NAME JOB")
    _Options(explain, environ).named("name").named("job").output("text", "json").cluster().short()


class _Options(Options):
    def plan(self) -> Self:
        self.begin("what is placed, and where")
        self.add_plain("--jobs", required=True, metavar="FILE", help="the jobs, in YAML")
        self.add_plain("--workers", metavar="NAME,...", help="names of workers that are all alike")
        self.add_plain("--workers-file", metavar="FILE", help="the workers, in YAML, where they are not")
        text = "who has what now: the config.yml of before (default: nobody has anything)"
        self.add_plain("--previous", metavar="FILE", help=text)
        text = "most load of a worker for which the file says none (default: no bound)"
        self.add_plain("--capacity", type=_from(1), metavar="N", help=text)
        text = "with weights: most moves that only make it more even (default: no bound)"
        self.add_plain("--churn", type=_from(0), metavar="N", help=text)
        self.begin("how to show it")
        text = "tell why this job is where it is; can be given several times"
        self.add_plain("--why", action="append", default=[], metavar="JOB", help=text)
        return self.output("table", "json", "config")

    def output(self, *choices: str) -> Self:
        text = "default: %(default)s" + ("; config is the new config.yml" if "config" in choices else "")
        self.add_plain("-o", "--output", choices=choices, default=choices[0], help=text)
        return self

    def named(self, name: str, **more: Any) -> Self:
        self.add_plain(name, metavar=name.upper(), help=argparse.SUPPRESS, **more)
        return self

    def short(self) -> Self:
        self.add_plain("-n", dest="namespace", metavar="NAME", default=argparse.SUPPRESS, help="short for --namespace")
        return self


# ---------------------------------------------------------------------------------------------- without a cluster


class Plan(NamedTuple):
    """What a placement comes to when it is carried out and nobody has to be waited for."""

    before: Config
    placement: Placement
    after: Config
    jobs: Sequence[Job]
    workers: Sequence[Worker]


def plan_of(jobs: Sequence[Job], workers: Sequence[Worker], before: Config, churn: int | None = None) -> Plan:
    """Place them as the operator does. Raises Malformed."""
    policy = Policy(convergence.FAST, convergence.RELOAD, churn=churn)
    first = convergence.step(before, jobs, workers, {}, policy)
    after = first.config
    while (then := convergence.step(after, jobs, workers, {}, policy).config) is not after:
        after = then
    return Plan(before, first.placement, after, jobs, workers)


def planned(plan: Plan, why: Sequence[str] = ()) -> dict[str, Any]:
    """A plan in plain values, with the explanation of the jobs `why`. Raises Malformed for one that is not there."""
    made, entries = plan.placement, plan.before.entries
    weights = {job.name: job.weight for job in plan.jobs}
    previous = convergence.held(plan.before, {})
    return {
        "assignment": {name: list(jobs) for name, jobs in made.assignment.items()},
        "unplaced": dict(sorted(made.unplaced.items())),
        "method": made.method,
        "moves": made.moves,
        "least_moves": made.least_moves,
        "restarts": made.restarts,
        "least_restarts": made.least_restarts,
        "imbalance": made.imbalance,
        "moved": _moved(plan),
        "workers": [
            _worker(name, entries.get(name), plan, weights)
            for name in [*made.assignment, *sorted(entries.keys() - made.assignment.keys(), key=worker_config.natural)]
        ],
        "why": {job: placement.explain(job, plan.jobs, plan.workers, previous, made) for job in why},
    }


def _worker(name: str, before: Entry | None, plan: Plan, weights: Mapping[str, int]) -> dict[str, Any]:
    had, has = set(before.jobs if before else ()), plan.placement.assignment.get(name, ())
    entry = plan.after.entries.get(name)
    return {
        "name": name,
        "jobs": list(has),
        "load": sum(weights[job] for job in has),
        "version": entry.version if entry else None,
        "gets": len(set(has) - had),
        "loses": len(had - set(has)),
        "new": before is None,
        "gone": name not in plan.placement.assignment,
    }


def _moved(plan: Plan) -> list[dict[str, Any]]:
    """The jobs that some worker had and another one has, in order of their names."""
    has = {job: name for name, jobs in plan.placement.assignment.items() for job in jobs}
    had: dict[str, str] = {}
    for name in sorted(plan.before.entries, key=lambda name: (name not in plan.placement.assignment, name)):
        for job in plan.before.entries[name].jobs:
            had.setdefault(job, name)
    return [
        {"job": job, "from": name, "to": has.get(job), "gone": name not in plan.placement.assignment}
        for job, name in sorted(had.items())
        if has.get(job) != name and job in {one.name for one in plan.jobs}
    ]


def read_workers(document: Any, where: str) -> list[Worker]:
    """Workers of a list, or of a mapping with the key workers; each a name, or a mapping. Raises Malformed."""
    if isinstance(document, Mapping):
        document = document.get("workers")
    if not isinstance(document, list):
        raise Malformed(where, document, "give a list of workers, or a mapping with the key workers")
    return [_read_worker(each, f"{where}[{number}]") for number, each in enumerate(document)]


def _read_worker(value: Any, where: str) -> Worker:
    if isinstance(value, str):
        return Worker(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise Malformed(where, value, "give a name, or a mapping with the key name")
    unknown = value.keys() - {"name", "classes", "exclusive", "capacity", "zone"}
    if unknown:
        known = "a worker has name, classes, exclusive, capacity and zone"
        raise Malformed(where, min(map(str, unknown)), known)
    classes = value.get("classes") or []
    if not isinstance(classes, list) or not all(isinstance(one, str) and one for one in classes):
        raise Malformed(f"{where}.classes", classes, "give a list of names")
    others = frozenset() if value.get("exclusive") and classes else frozenset({""})
    return Worker(value["name"], frozenset(classes) | others, value.get("capacity"), str(value.get("zone") or ""))


def _plan(args: argparse.Namespace) -> int:
    if (args.workers is None) == (args.workers_file is None):
        raise WrongUsage("give --workers or --workers-file")
    listed = swarm.parse_jobs(_yaml(args.jobs), args.jobs)
    jobs = swarm.collect([(args.jobs, listed)])
    if args.workers is not None:
        workers = [Worker(name.strip()) for name in args.workers.split(",") if name.strip()]
    else:
        workers = read_workers(_yaml(args.workers_file), args.workers_file)
    if args.capacity is not None:
        workers = [
            worker if worker.capacity is not None else worker._replace(capacity=args.capacity) for worker in workers
        ]
    entries, extra = _previous(args.previous)
    plan = plan_of(jobs, workers, Config(entries), args.churn)
    if args.output == "config":
        sys.stdout.write(worker_config.render(Part(plan.after.entries, extra=extra))[worker_config.CONFIG_KEY])
        return 0
    told = planned(plan, args.why)
    if args.output == "json":
        print(json.dumps(told, indent=2))
        return 0
    from muster.swarm.picture import plan_text

    print(plan_text(told, terminal_width(sys.stdout)))
    return 0


def _previous(path: str | None) -> tuple[dict[str, Entry], dict[str, Any]]:
    if path is None:
        return {}, {}
    document = _yaml(path)
    if document is None:
        remedy = (
            "leave it out where there is nothing yet; did the shell empty it, to write there? write to another file"
        )
        raise Malformed("--previous", path, f"the file is empty; {remedy}")
    return worker_config.parse_entries(document, path)


def _yaml(path: str) -> Any:
    try:
        return parse_yaml(Path(path).read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise MusterError(f"{path} can't be read: {error}") from error


def _from(least: int) -> Any:
    def number(text: str) -> int:
        if int(text) < least:
            raise ValueError(text)
        return int(text)

    number.__name__ = f"whole number from {least}"  # as argparse calls it in errors
    return number


# ---------------------------------------------------------------------------------------------- on a cluster


def _status(args: argparse.Namespace) -> int:
    api, namespace = connect(args)

    def look() -> Found:
        return swarm_info.told(api, namespace=namespace, name=args.name)

    if args.watch:
        from muster.live import watch
        from muster.swarm.picture import Swarms

        picture, told = Swarms(f"namespace {namespace}"), _sources(api, namespace)
        return watch(api, told, look, picture, as_json=args.output == "json", out=sys.stdout, breath=BREATH)
    found = look()
    if args.output == "json":
        print(json.dumps(found, indent=2))
        return 0
    if not found:
        raise MusterError(_missing(args.name, namespace))
    from muster.swarm.picture import swarms_text

    print(swarms_text(found, terminal_width(sys.stdout)))
    return 1 if any(one["error"] for one in found) else 0


def _sources(api: Api, namespace: str) -> list[Source]:
    """What to watch; Swarms only where the cluster knows them."""
    told: list[Source] = [
        {"resource": CONFIGMAPS, "namespace": namespace, "label_selector": worker_config.PART_OF},
        {"resource": PODS, "namespace": namespace},
    ]
    try:
        api.list(SWARMS, namespace, metadata_only=True)
    except NotFound:
        return told
    return [{"resource": SWARMS, "namespace": namespace}, *told]


def _explain(args: argparse.Namespace) -> int:
    api, namespace = connect(args)
    for place in ("name", "config_map"):
        found = swarm_info.info(api, namespace=namespace, job=args.job, **{place: args.name})["swarms"]
        if found:
            break
    else:
        raise MusterError(_missing(args.name, namespace))
    why = found[0]["explanation"]
    if found[0]["error"]:
        raise MusterError(found[0]["error"])
    if why is None or not (why["worker"] or why["planned"] or why["leaving"] or found[0]["name"]):
        raise MusterError(f"{args.name} has no job {args.job}: name one of its {found[0]['jobs']} jobs")
    if args.output == "json":
        print(json.dumps(why, indent=2))
        return 0
    from muster.swarm.picture import explanation_text

    print(explanation_text(why))
    return 0


def _missing(name: str | None, namespace: str) -> str:
    what = f"Swarm {name}, nor a workers' ConfigMap of that name," if name else "Swarm"
    return f"there is no {what} in namespace {namespace}: name another, or another --namespace"

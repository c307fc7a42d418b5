# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster swarm-operator`: jobs are placed on workers, and only the workers that changed are refreshed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any, Final, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import (
    CONFIGMAPS,
    DEPLOYMENTS,
    PODS,
    STATEFUL_SETS,
    Api,
    Object,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions import swarm
from ansible_collections.muster.coordination.plugins.module_utils.decisions.swarm import Source, Spec
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.swarm import LINGER_SECONDS, SWARMS
from muster import process
from muster.frame.beside import Beside
from muster.frame.controller import Controller, Reconcile
from muster.frame.options import FrameOptions, controller, own_namespace
from muster.options import command, connect, system
from muster.pod import Events
from muster.swarm.asking import Asker
from muster.swarm.operator import Ends, Read, Swarms, of_swarm, slim_pod
from muster.swarm.operator_metrics import SwarmMetrics

OPERATOR = """\
Places jobs on the workers of a pool, so that each job is run by one of them:
the same jobs and workers always give the same placement, and a change moves
as few jobs, and touches as few workers, as it can.

  run      work until SIGTERM

`muster swarm-operator run --help` says more.
"""

RUN = """\
Look after Swarms (muster.dev/v1alpha1); or, with --mode labels, after workloads
that carry a label, and a ConfigMap with jobs. Of several replicas one leads,
or each has a part of the Swarms (--replicas-mode).
"""

EPILOG = """\
examples:
  muster swarm-operator run
  muster swarm-operator run --mode labels --watch-namespace streams
  kubectl get swarms                                         how they stand
  curl 'localhost:8378/explain?swarm=streams/main&job=cctv0' why a job is there

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""

SWARM_MODE: Final = "swarms"
LABEL_MODE: Final = "labels"


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "swarm-operator", OPERATOR)
    parser = command(commands, "muster swarm-operator run", _run, RUN, EPILOG)
    _Options(parser, environ).swarms().controller("swarm-operator").cluster()


class _Options(FrameOptions):
    def swarms(self) -> Self:
        self.begin("what it places")
        text = "objects of the kind Swarm, or labelled workloads and a ConfigMap with jobs (default: swarms)"
        choices = (SWARM_MODE, LABEL_MODE)
        self.add("--mode", "MUSTER_SWARM_MODE", choices=choices, default=SWARM_MODE, help=text)
        text = "with labels: what the StatefulSets and Deployments of workers carry (default: swarm-worker)"
        self.add("--watched-label", "WATCHED_LABEL", default="swarm-worker", metavar="SELECTOR", help=text)
        text = f"with labels: the ConfigMap with the jobs, under the key {swarm.JOBS_KEY} (default: swarm-jobs)"
        self.add("--jobs-configmap", "MUSTER_JOBS_CONFIGMAP", default="swarm-jobs", metavar="NAME", help=text)
        text = f"with labels: the ConfigMap for the workers (default: {swarm.CONFIGMAP})"
        name = "WORKERS_CONFIGMAP_NAME"
        self.add("--workers-configmap", name, default=swarm.CONFIGMAP, metavar="NAME", help=text)
        text = "for so long the processes of a Pod may go on that was deleted by force, or whose end nobody has seen, "
        text += "0 to 86400 (default: 30); until then its jobs are given to nobody"
        name = "MUSTER_LINGER_SECONDS"
        self.add("--linger-seconds", name, type=float, default=LINGER_SECONDS, metavar="SECONDS", help=text)
        return self


def _run(args: argparse.Namespace) -> int:
    process.set_up_logs(args.log_format, args.verbose)
    api, connected = connect(args)
    return made(args, api, own_namespace(args, connected, os.environ)).run()


def made(args: argparse.Namespace, api: Api, namespace: str) -> Controller:
    """The operator as the options say; `namespace` is its own. Raises Malformed."""
    if not 0 <= args.linger_seconds <= 86400:
        raise Malformed("--linger-seconds", args.linger_seconds, "give seconds from 0 to 86400")
    ends = Ends()
    by_label = args.mode == LABEL_MODE
    looked_after: list[Swarms] = []
    watched = args.watch_namespace or None

    def reconcile(events: Events) -> Reconcile:
        read: Read = _labelled(args) if by_label else of_swarm
        settings = {"has_status": not by_label, "linger_seconds": args.linger_seconds}
        looked_after.append(Swarms(api, read, Asker(), ends, events.tell, **settings))
        return looked_after[0].reconcile

    beside = [
        Beside(api, PODS, watched, shrink=slim_pod, removed=ends.removed),
        Beside(api, STATEFUL_SETS, watched),
        Beside(api, DEPLOYMENTS, watched),
        Beside(api, CONFIGMAPS, watched),
    ]
    made = controller(
        args,
        api,
        namespace,
        CONFIGMAPS if by_label else SWARMS,
        reconcile,
        "muster-swarm-operator",
        field_selector=f"metadata.name={args.jobs_configmap}" if by_label else "",
        beside=beside,
    )
    swarms = looked_after[0]
    made.queries = swarms.pages()
    swarms.there, swarms.mine = made.cache.keys, made.mine
    made.registry.register(SwarmMetrics(swarms.known))
    return made


def _labelled(args: argparse.Namespace) -> Read:
    """In place of a Swarm: the ConfigMap with the jobs, and what the options say."""

    def read(obj: Object) -> Spec:
        source = Source(obj["metadata"]["name"])
        return Spec(sources=(source,), selector=args.watched_label, configmap=args.workers_configmap)

    return read

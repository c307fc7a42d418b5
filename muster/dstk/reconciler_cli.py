# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-reconciler`: what Assignments ask for is carried out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Object
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import ASSIGNMENTS, KEY_SPACES
from muster import process
from muster.dstk.reconciler import AT_ONCE, Assignments, PartitionsBeside
from muster.dstk.reconciler_metrics import OperationMetrics
from muster.dstk.workers import WorkerClient, Workers
from muster.frame.beside import Beside
from muster.frame.cache import Cache
from muster.frame.controller import Controller, Reconcile
from muster.frame.options import FrameOptions, controller, own_namespace
from muster.options import command, connect, system
from muster.pod import Events

RECONCILER = """\
Carries out Assignments (muster.dev/v1alpha1): gives partitions a worker, splits,
merges and moves them, and undoes what does not come off.

  run      work until SIGTERM

`muster partition-reconciler run --help` says more.
"""

RUN = """\
Carry out Assignments, several at a time. Of several replicas one leads, or each
has a part of them (--replicas-mode); beside each worker it is the second.
"""

EPILOG = """\
examples:
  muster partition-reconciler run
  muster partition-reconciler run --replicas-mode shard --shard-by object
  kubectl get assignments            what has become of them
  muster leaders partition-reconciler

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "partition-reconciler", RECONCILER)
    parser = command(commands, "muster partition-reconciler run", _run, RUN, EPILOG)
    WorkersOptions(parser, environ).token().keep().controller("partition-reconciler").cluster()


class WorkersOptions(FrameOptions):
    """The options of an operator that calls workers."""

    def token(self) -> Self:
        self.begin("how it calls workers")
        text = "the bearer token of the workers; it is read anew for each call"
        self.add("--token-file", "MUSTER_TOKEN_FILE", type=Path, metavar="PATH", help=text)
        return self

    def keep(self) -> Self:
        self.begin("what it keeps")
        text = "for so long an Assignment that is over can be looked at, 0 to 1000000 (default: 60)"
        self.add("--keep-minutes", "MUSTER_KEEP_MINUTES", type=float, default=60.0, metavar="MINUTES", help=text)
        return self


def _run(args: argparse.Namespace) -> int:
    process.set_up_logs(args.log_format, args.verbose)
    api, connected = connect(args, connections=max(4, args.workers) + AT_ONCE)
    return made(args, api, own_namespace(args, connected, os.environ)).run()


def made(args: argparse.Namespace, api: Api, namespace: str) -> Controller:
    """The reconciler as the options say; `namespace` is its own. Raises Malformed."""
    if not 0 <= args.keep_minutes <= 1_000_000:
        raise Malformed("--keep-minutes", args.keep_minutes, "give minutes from 0 to 1000000")
    watched = args.watch_namespace or None
    workers = Workers(api, watched)
    spaces = Cache(api, KEY_SPACES, watched)
    metrics = OperationMetrics()
    client = WorkerClient(args.token_file, connections=args.workers + AT_ONCE)
    looked_after: list[Assignments] = []
    beside: list[Beside] = [workers]

    def reconcile(events: Events) -> Reconcile:
        assignments = Assignments(
            api, workers, client, spaces.get, events.tell, keep_seconds=args.keep_minutes * 60, metrics=metrics
        )
        looked_after.append(assignments)
        beside.append(PartitionsBeside(api, watched, assignments))
        return assignments.reconcile

    made = controller(args, api, namespace, ASSIGNMENTS, reconcile, "muster-partition-reconciler", beside=beside)
    assignments = looked_after[0]

    def changed(key: str) -> None:
        obj: Object | None = made.cache.by_key(key)
        assignments.changed(key, obj)

    made.told.append(changed)
    metrics.show(made.registry)
    spaces.start()
    return made

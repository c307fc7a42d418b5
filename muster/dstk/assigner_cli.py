# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-assigner`: each partition is given a worker, and they are evened out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import (
    ASSIGNMENTS,
    KEY_SPACES,
    PARTITIONS,
)
from muster import process
from muster.dstk.assigner import Index, KeySpaces
from muster.dstk.reconciler_cli import WorkersOptions
from muster.dstk.workers import WorkerClient, Workers
from muster.frame.controller import Controller, Reconcile
from muster.frame.options import controller, own_namespace
from muster.options import command, connect, system
from muster.pod import Events

ASSIGNER = """\
Gives each partition a worker, as many to each; moves what a leaving worker has
to others, calls followers up for a lost one, and keeps as many followers as the
key space wants. It asks by Assignments, which the reconciler carries out.

  run      work until SIGTERM

`muster partition-assigner run --help` says more.
"""

RUN = """\
Look after KeySpaces (muster.dev/v1alpha1). Of several replicas one leads, or
each has a part of them (--replicas-mode).
"""

EPILOG = """\
examples:
  muster partition-assigner run
  kubectl get keyspaces                                  how they stand
  curl 'localhost:8378/explain?partition=part-1'         why it is where it is
  curl localhost:8378/state                              what is planned

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "partition-assigner", ASSIGNER)
    parser = command(commands, "muster partition-assigner run", _run, RUN, EPILOG)
    WorkersOptions(parser, environ).token().controller("partition-assigner").cluster()


def _run(args: argparse.Namespace) -> int:
    process.set_up_logs(args.log_format, args.verbose)
    api, connected = connect(args)
    return made(args, api, own_namespace(args, connected, os.environ)).run()


def made(args: argparse.Namespace, api: Api, namespace: str) -> Controller:
    """The assigner as the options say; `namespace` is its own. Raises Malformed."""
    watched = args.watch_namespace or None

    def concerned(namespace: str, space: str, _worker: str) -> list[str]:
        return [f"{namespace}/{space}"]

    workers = Workers(api, watched, concerned=concerned)
    partitions, assignments = Index(api, PARTITIONS, watched), Index(api, ASSIGNMENTS, watched)
    client = WorkerClient(args.token_file, connections=args.workers)
    looked_after: list[KeySpaces] = []

    def reconcile(events: Events) -> Reconcile:
        looked_after.append(KeySpaces(api, workers, client, partitions, assignments, events.tell))
        return looked_after[0].reconcile

    beside = [workers, partitions, assignments]
    made = controller(args, api, namespace, KEY_SPACES, reconcile, "muster-partition-assigner", beside=beside)
    spaces = looked_after[0]
    made.queries = spaces.pages()
    spaces.mine = made.mine
    return made

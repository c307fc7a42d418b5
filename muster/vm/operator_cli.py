# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster vm-operator`: VirtualMachines become machines of a private cloud."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.verbs.machines import VIRTUAL_MACHINES
from muster import process
from muster.frame.options import FrameOptions, controller, own_namespace
from muster.options import command, connect, system
from muster.vm.cloud_client import CloudClient
from muster.vm.operator import VirtualMachines

OPERATOR = """\
The example operator: for each VirtualMachine (muster.dev/v1alpha1) it has one
machine at a private cloud (`muster private-cloud`), and none when it is gone;
also when replicas crash, freeze and take over from one another.

  run      work until SIGTERM

`muster vm-operator run --help` says more.
"""

RUN = """\
Bring machines at the cloud to what VirtualMachines want. Of several replicas
one leads, or each has a part of the objects (--replicas-mode).
"""

EPILOG = """\
examples:
  muster vm-operator run --cloud http://127.0.0.1:8300
  muster leaders vm-operator     who of the replicas leads
  kubectl get vm                 what has become of the objects

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "vm-operator", OPERATOR)
    parser = command(commands, "muster vm-operator run", _run, RUN, EPILOG)
    _Options(parser, environ).cloud().controller("vm-operator").cluster()


class _Options(FrameOptions):
    def cloud(self) -> Self:
        self.begin("which cloud")
        text = "where the private cloud is (default: http://127.0.0.1:8300)"
        self.add("--cloud", "MUSTER_CLOUD", default="http://127.0.0.1:8300", metavar="URL", help=text)
        text = "the cloud's bearer token; it is read anew for each call"
        self.add("--cloud-token-file", "MUSTER_CLOUD_TOKEN_FILE", type=Path, metavar="PATH", help=text)
        return self


def _run(args: argparse.Namespace) -> int:
    process.set_up_logs(args.log_format, args.verbose)
    cloud = CloudClient(args.cloud, args.cloud_token_file, connections=args.workers)
    api, connected = connect(args)
    namespace = own_namespace(args, connected, os.environ)
    return controller(
        args,
        api,
        namespace,
        VIRTUAL_MACHINES,
        lambda events: VirtualMachines(api, cloud, events.tell).reconcile,
        "muster-vm-operator",
    ).run()

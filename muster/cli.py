# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `muster`: one subcommand a system, each option also by an environment variable, for use in Pods."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence

from ansible_collections.muster.coordination.plugins.module_utils.api import ApiError
from ansible_collections.muster.coordination.plugins.module_utils.credentials import CredentialsError
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from muster.options import Help, Version, WrongUsage

SYSTEMS = {  # a module that has `add`, imported only when it is asked for; and what it is
    "distributor": ("muster.distributor_cli", "the distributed semaphore: who may use what, who is next"),
    "leaders": ("muster.leaders_cli", "who leads by a Lease, since when, how often it changed"),
    "shards": ("muster.shards_cli", "which replica of a controller has which shards"),
    "vm-operator": ("muster.vm.operator_cli", "the example operator: machines of a cloud, each once"),
    "private-cloud": ("muster.vm.cloud_cli", "the cloud that it works on, with faults to switch on"),
    "swarm": ("muster.swarm.local_cli", "who has which jobs, and why; and plans without a cluster"),
    "swarm-operator": ("muster.swarm.operator_cli", "places each job on one worker, and moves few"),
    "swarm-worker": ("muster.swarm.worker_cli", "the reference worker: runs the jobs that it is given"),
    "allocator": ("muster.allocator.client_cli", "instances of a service: create, list, destroy yours"),
    "allocatord": ("muster.allocator.server_cli", "the service that gives them"),
    "key-value": ("muster.allocator.keyvalue_cli", "an example of what it gives: keys and values on a disk"),
    "partitions": ("muster.dstk.partitions_cli", "a key space in ranges: who has which, what goes on"),
    "partition-worker": ("muster.dstk.worker_cli", "the reference worker: keys and values, durable"),
    "partition-reconciler": ("muster.dstk.reconciler_cli", "carries out what was asked for: split, merge, move"),
    "partition-assigner": ("muster.dstk.assigner_cli", "gives each partition a worker, and evens them out"),
    "partition-router": ("muster.dstk.router_cli", "finds the worker that has a key, and passes requests on"),
}

MUSTER = """\
Coordination for teams on Kubernetes.

{systems}

Most options can also be given by the environment variable that their help
names in brackets.
""".format(systems="\n".join(f"  {name:<22}{what}" for name, (_module, what) in SYSTEMS.items()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did what was asked, 1 when it could not, 2 for wrong usage, 3 for nothing free."""
    arguments = sys.argv[1:] if argv is None else argv
    args = build_parser(os.environ, arguments[:1]).parse_args(arguments)
    try:
        status: int = args.call(args)
        return status
    except (MusterError, ApiError, CredentialsError) as error:
        print(f"muster: {error}", file=sys.stderr)
        return 2 if isinstance(error, WrongUsage) else 1
    except BrokenPipeError:
        return 1


def build_parser(environ: Mapping[str, str], wanted: Sequence[str] = ()) -> argparse.ArgumentParser:
    """The parser of the systems that are wanted; of all, where none of them is one."""
    usage = "muster SYSTEM COMMAND [options]"
    parser = argparse.ArgumentParser(prog="muster", usage=usage, description=MUSTER, formatter_class=Help)
    parser.add_argument("--version", action=Version)
    systems = parser.add_subparsers(required=True, prog="muster", metavar="SYSTEM", help=argparse.SUPPRESS)
    for name in [name for name in wanted if name in SYSTEMS] or SYSTEMS:
        importlib.import_module(SYSTEMS[name][0]).add(systems, environ)
    return parser


if __name__ == "__main__":
    sys.exit(main())

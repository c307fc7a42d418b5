# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster private-cloud`: a cloud to try operators on."""

from __future__ import annotations

import argparse
import logging
import queue
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from muster import process
from muster.options import Options, command
from muster.vm.cloud import CloudServer
from muster.vm.cloud_store import Store

CLOUD = """\
A private cloud to try operators on: it has machines in a file, over HTTP and
JSON, and faults that can be switched on. What it answered survives SIGKILL.
"""

EPILOG = """\
examples:
  muster private-cloud --store cloud.db
  curl 127.0.0.1:8300/v1/machines
  curl 127.0.0.1:8300/v1/counters         how many machines were ever made
  curl -X PUT 127.0.0.1:8300/v1/faults -d '{"timeout_after_success": 0.2}'

faults (all off at first; a PUT switches off what it does not name):
  timeout_after_success, error_after_success, error_before, duplicate_delivery
      probabilities, 0 to 1, for each request
  duplicate_delay_seconds, hold_seconds, list_delay_seconds
  rate_limit_per_second
  names_not_unique, ignore_fences, ignore_idempotency_keys
      true or false
  seed

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    _Options(command(systems, "muster private-cloud", _serve, CLOUD, EPILOG), environ).server()


class _Options(Options):
    def server(self) -> Self:
        self.begin("the cloud")
        text = "file of the machines; it is made where there is none (default: cloud.db)"
        self.add("--store", "MUSTER_CLOUD_STORE", type=Path, default=Path("cloud.db"), metavar="PATH", help=text)
        text = "where to serve it (default: 127.0.0.1:8300)"
        self.add("--listen", "MUSTER_CLOUD_LISTEN", default="127.0.0.1:8300", metavar="ADDRESS:PORT", help=text)
        text = "only who sends this bearer token is answered; it is read anew for each request (default: everybody is)"
        self.add("--token-file", "MUSTER_CLOUD_TOKEN_FILE", type=Path, metavar="PATH", help=text)
        return self.logs()


def _serve(args: argparse.Namespace) -> int:
    process.set_up_logs(args.log_format, args.verbose)
    ends: queue.SimpleQueue[int] = queue.SimpleQueue()
    process.on_signals((signal.SIGTERM, signal.SIGINT), ends.put)
    store = Store(args.store)
    server = CloudServer(args.listen, store, args.token_file)
    process.say(logging.INFO, "serves", port=server.port, store=str(args.store))
    number = ends.get()
    process.say(logging.INFO, "ends", signal=signal.Signals(number).name)
    server.close()
    store.close()
    return 0

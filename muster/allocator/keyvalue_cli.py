# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster key-value`: the example service that an allocator allocates."""

from __future__ import annotations

import argparse
import logging
import queue
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from muster import process
from muster.allocator.keyvalue import KeyValueServer, Store
from muster.options import Options, command, system

KEY_VALUE = """\
An example of a service with a disk, for allocators to allocate.

  run    serve keys and values over HTTP

`muster key-value run --help` says more.
"""

RUN = """\
Keys and values on a disk, over HTTP. What it answered survives SIGKILL. It asks
nobody who they are: who may reach it may do everything.
"""

EPILOG = """\
examples:
  muster key-value run --store data.db
  curl -X PUT 127.0.0.1:8500/v1/colour --data-binary blue
  curl 127.0.0.1:8500/v1/colour
  curl '127.0.0.1:8500/v1?prefix=col&limit=10'
  curl -X DELETE 127.0.0.1:8500/v1/colour

A key has at most 512 bytes, a value 1 MiB. SIGTERM lets the requests that were
begun end.

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "key-value", KEY_VALUE)
    _Options(command(commands, "muster key-value run", _run, RUN, EPILOG), environ).service()


class _Options(Options):
    def service(self) -> Self:
        self.begin("the service")
        text = "its file, in a directory that is there; it is made where there is none (default: key-value.db)"
        store = Path("key-value.db")
        self.add("--store", "MUSTER_KEY_VALUE_STORE", type=Path, default=store, metavar="PATH", help=text)
        text = "where to serve it (default: 127.0.0.1:8500)"
        self.add("--listen", "MUSTER_KEY_VALUE_LISTEN", default="127.0.0.1:8500", metavar="ADDRESS:PORT", help=text)
        return self.logs()


def _run(args: argparse.Namespace) -> int:
    process.set_up_logs(args.log_format, args.verbose)
    ends: queue.SimpleQueue[int] = queue.SimpleQueue()
    process.on_signals((signal.SIGTERM, signal.SIGINT), ends.put)
    store = Store(args.store)
    server = KeyValueServer(args.listen, store)
    process.say(logging.INFO, "serves", port=server.port, store=str(args.store))
    number = ends.get()
    process.say(logging.INFO, "ends", signal=signal.Signals(number).name)
    server.close()
    store.close()
    return 0

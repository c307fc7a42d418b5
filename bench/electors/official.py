# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One replica that stands for election with the official Python client's `kubernetes.leaderelection`, on a Lease.

The library gives nothing back when its process is asked to end: the Lease has to run out.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from typing import Any

from kubernetes import config
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kubeconfig", "namespace", "name", "identity"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("lease", "renew", "retry"):
        parser.add_argument(f"--{name}", required=True, type=int, help="seconds")
    args = parser.parse_args()
    config.load_kube_config(args.kubeconfig)
    log = os.open(os.environ["MUSTER_AUTHORITY_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    leads = threading.Event()

    def tell(event: str) -> None:
        line = {"at": time.monotonic_ns(), "who": args.identity, "scope": f"{args.namespace}/{args.name}"}
        os.write(log, json.dumps({**line, "event": event}).encode() + b"\n")  # one write: lines do not mix

    def begin() -> None:
        leads.set()
        tell("begin")
        threading.Event().wait()

    def end(*_signal: Any) -> None:
        if leads.is_set():
            tell("end")
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    lock = LeaseLock(args.name, args.namespace, args.identity)
    chosen = electionconfig.Config(lock, args.lease, args.renew, args.retry, begin, end)
    tell("ready")
    leaderelection.LeaderElection(chosen).run()


if __name__ == "__main__":
    main()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One replica that stands for election with the frame of Muster's operators; in a Pod too, where only the wheel is."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import time

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Credentials
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from muster.frame.authority import Recorder
from muster.frame.keeper import new_run
from muster.frame.leader import Leader
from muster.frame.office import Settings
from muster.frame.options import process_started

LEAVE_SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("kubeconfig", "namespace", "name", "selector"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--lease", required=True, type=int, help="seconds")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # before there are threads, which inherit it
    api = Api(Credentials.load({"kubeconfig": args.kubeconfig} if args.kubeconfig else {}))
    me = Identity(os.environ["POD_NAME"], os.environ["POD_UID"], new_run(), os.environ["CONTAINER_NAME"])
    settings = Settings(args.name, args.namespace, me, Timing(args.lease), args.selector, process_started())
    leader = Leader(api, settings)
    leader.start(lambda: None)
    Recorder().note("ready", str(me), f"{args.namespace}/{args.name}", 0, time.monotonic())
    signal.sigwait({signal.SIGTERM})
    leader.leave(LEAVE_SECONDS)


if __name__ == "__main__":
    main()

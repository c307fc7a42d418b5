# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-worker`: the reference worker of range partitions."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import re
import signal
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.options import Options, command, connect, system

WORKER = """\
The reference worker of a KeySpace: keys and values of the partitions that it is
given, durable, also while they are split, merged and moved.

  run      work until SIGTERM

`muster partition-worker run --help` says more.
"""

RUN = """\
Have copies of partitions in a directory, and serve those that the Partitions of
the API server give to this worker. At SIGTERM it tells that it leaves, and
serves on until its partitions are at other workers, but not longer than
--drain-seconds.
"""

EPILOG = """\
examples:
  muster partition-worker run --name w-0 --data /data
  curl -X PUT 127.0.0.1:8391/v1/keys/hello -d world
  curl 127.0.0.1:8391/v1/worker           what it has
  curl 127.0.0.1:8391/openapi.json        what any such worker does

The directory has to be this worker's own, and to be there again when the
worker is: what it has is nowhere else, unless the KeySpace has followers.

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,98}[a-z0-9])?")


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "partition-worker", WORKER)
    parser = command(commands, "muster partition-worker run", _run, RUN, EPILOG)
    _Options(parser, environ).itself().serving().cluster().how()


class _Options(Options):
    """The options of a worker."""

    def itself(self) -> Self:
        self.begin("who it is")
        self.add("--name", "POD_NAME", metavar="NAME", help="its name, the same each time it runs: its Pod's")
        text = "the KeySpace that it is of (default: default)"
        self.add("--key-space", "MUSTER_KEY_SPACE", default="default", metavar="NAME", help=text)
        text = "directory of what it has; it is made where there is none (default: data)"
        self.add("--data", "MUSTER_DATA", type=Path, default=Path("data"), metavar="PATH", help=text)
        text = "how long its Lease is, 1 to 3600 (default: 6); it serves nothing when it can't renew it for 5/6 of that"
        self.add("--lease-seconds", "MUSTER_LEASE_SECONDS", type=int, default=6, metavar="SECONDS", help=text)
        return self

    def serving(self) -> Self:
        self.begin("where it serves")
        text = "where to serve (default: 127.0.0.1:8391; in a Pod give 0.0.0.0:8391)"
        self.add("--listen", "MUSTER_LISTEN", default="127.0.0.1:8391", metavar="ADDRESS:PORT", help=text)
        text = "where others reach it: http://ADDRESS:PORT (default: POD_IP, or the address at which it listens)"
        self.add("--advertise", "MUSTER_ADVERTISE", metavar="URL", help=text)
        self.add_plain("--pod-ip", default=self._environ.get("POD_IP", ""), help=argparse.SUPPRESS)
        text = (
            "a bearer token that all workers, reconcilers and routers of the KeySpace have; read anew when it changes"
        )
        self.add("--token-file", "MUSTER_TOKEN_FILE", type=Path, metavar="PATH", help=f"{text} (default: none needed)")
        return self

    def how(self) -> Self:
        self.begin("how it works")
        text = "how long, after SIGTERM, to wait until its partitions are elsewhere, 0 to 86400 (default: 30)"
        self.add("--drain-seconds", "MUSTER_DRAIN_SECONDS", type=float, default=30.0, metavar="SECONDS", help=text)
        text = "how often what it serves is read anew, though nobody said that anything has changed, 1 to 3600 "
        text += "(default: 30)"
        self.add("--sweep-seconds", "MUSTER_SWEEP_SECONDS", type=float, default=30.0, metavar="SECONDS", help=text)
        return self.logs()


def _run(args: argparse.Namespace) -> int:
    from muster import process

    process.set_up_logs(args.log_format, args.verbose)
    _check(args)
    try:
        import aiohttp  # noqa: F401 it is asked for here, and only by those who run it
    except ImportError:
        raise MusterError("aiohttp is missing: install muster-coordination[allocator], or aiohttp>=3.14") from None
    api, namespace = connect(args, connections=8)
    lease_api = Api(api.credentials, timeout=max(0.5, args.lease_seconds / 3), connections=1)
    return asyncio.run(_serve(args, api, lease_api, namespace))


async def _serve(args: argparse.Namespace, api: Api, lease_api: Api, namespace: str) -> int:
    import prometheus_client

    from muster.dstk.worker import Settings, Worker
    from muster.dstk.worker_http import Pages
    from muster.dstk.worker_lease import WorkerLease
    from muster.process import on_signals, say

    loop, ends = asyncio.get_running_loop(), asyncio.Event()
    signals: list[int] = []

    def signalled(number: int) -> None:
        signals.append(number)
        loop.call_soon_threadsafe(ends.set)

    on_signals((signal.SIGTERM, signal.SIGINT), signalled)
    incarnation = uuid.uuid4().hex[:12]
    port = 0

    def lease(former: str) -> WorkerLease:
        where = (lease_api, namespace, args.key_space, args.name, incarnation)
        return WorkerLease(*where, "", duration=args.lease_seconds, former=former)

    settings = Settings(args.name, args.key_space, namespace, incarnation, args.token_file, args.sweep_seconds)
    worker = Worker(settings, api, args.data, lease)
    worker.headers()  # a token that can't be read is told at once
    pages = Pages(worker, prometheus_client.CollectorRegistry())
    port = await pages.start(args.listen)
    worker.lease.address = args.advertise or _address(args.listen, port, args.pod_ip)
    await worker.start()
    say(
        logging.INFO,
        "works",
        worker=args.name,
        port=port,
        address=worker.lease.address,
        copies=len(worker.store.copies),
    )
    failed = loop.create_task(worker.failed.wait())
    await asyncio.wait((failed, loop.create_task(ends.wait())), return_when=asyncio.FIRST_COMPLETED)
    status = 1 if failed.done() else 0
    if status:
        say(logging.ERROR, "ends: it can't keep what it is given", why=worker.store.failure)
    else:
        say(logging.INFO, "leaves", signal=signal.Signals(signals[0]).name, copies=len(worker.store.copies))
        await _drain(worker, args.drain_seconds, ends)
    await worker.stop()
    await pages.stop()
    say(logging.INFO, "has ended", copies=len(worker.store.copies))
    return status


async def _drain(worker: Any, seconds: float, ends: asyncio.Event) -> None:
    """Serve on until nothing is left, the time is over, or another signal comes."""
    loop = asyncio.get_running_loop()
    worker.lease.leave()
    ends.clear()
    until = loop.time() + seconds
    while not worker.is_empty and not ends.is_set() and not worker.failed.is_set() and loop.time() < until:
        await asyncio.wait((asyncio.ensure_future(ends.wait()),), timeout=min(0.1, max(0.0, until - loop.time())))


def _address(listen: str, port: int, pod_ip: str) -> str:
    """Where others reach it. Raises Malformed where that can't be told."""
    host = pod_ip or listen.rpartition(":")[0].strip("[]")
    try:
        if ipaddress.ip_address(host).is_unspecified:
            host = socket.gethostbyname(socket.gethostname())
    except (ValueError, OSError) as error:
        if not host or isinstance(error, OSError):
            raise Malformed("--advertise", "", "give http://ADDRESS:PORT, or set POD_IP") from error
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _check(args: argparse.Namespace) -> None:
    """Raise Malformed for what makes no sense."""
    for option, value in (("--name", args.name), ("--key-space", args.key_space)):
        if not value or not NAME.fullmatch(value):
            remedy = "give a name of at most 100 small letters, digits, dashes and dots"
            raise Malformed(option, value, f"{remedy} (in a Pod set POD_NAME by metadata.name)")
    for option, value, least, most in (
        ("--drain-seconds", args.drain_seconds, 0, 86400),
        ("--sweep-seconds", args.sweep_seconds, 1, 3600),
    ):
        if not least <= value <= most:
            raise Malformed(option, value, f"give seconds from {least:g} to {most:g}")

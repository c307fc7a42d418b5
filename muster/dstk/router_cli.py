# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partition-router`: one address for all keys of a KeySpace."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from muster.options import Options, command, connect, system

ROUTER = """\
One address for all keys of a KeySpace: finds the worker that has a key, and
passes requests on; also while partitions are split, merged and moved.

  run      work until SIGTERM

`muster partition-router run --help` says more.
"""

RUN = """\
Serve /v1/keys as a worker does, for all keys. It keeps nothing, so any number
of them can run beside each other.
"""

EPILOG = """\
examples:
  muster partition-router run
  curl -X PUT 127.0.0.1:8392/v1/keys/hello -d world
  curl '127.0.0.1:8392/v1/keys?start=a&end=b'
  curl 127.0.0.1:8392/openapi.json        what it serves

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    commands = system(systems, "partition-router", ROUTER)
    parser = command(commands, "muster partition-router run", _run, RUN, EPILOG)
    _Options(parser, environ).serving().cluster().how()


register = add


class _Options(Options):
    """The options of a router."""

    def serving(self) -> Self:
        self.begin("what it serves, and where")
        text = "the KeySpace whose keys these are (default: default)"
        self.add("--key-space", "MUSTER_KEY_SPACE", default="default", metavar="NAME", help=text)
        text = "where to serve (default: 127.0.0.1:8392; in a Pod give 0.0.0.0:8392)"
        self.add("--listen", "MUSTER_LISTEN", default="127.0.0.1:8392", metavar="ADDRESS:PORT", help=text)
        text = "the bearer token of the workers, which clients have to send, too; read anew when it changes"
        self.add("--token-file", "MUSTER_TOKEN_FILE", type=Path, metavar="PATH", help=f"{text} (default: none needed)")
        return self

    def how(self) -> Self:
        self.begin("how it works")
        return self.logs()


def _run(args: argparse.Namespace) -> int:
    from muster import process

    process.set_up_logs(args.log_format, args.verbose)
    try:
        import aiohttp  # noqa: F401 it is asked for here, and only by those who run it
    except ImportError:
        raise MusterError("aiohttp is missing: install muster-coordination[allocator], or aiohttp>=3.14") from None
    api, namespace = connect(args)
    return asyncio.run(_serve(args, api, namespace))


async def _serve(args: argparse.Namespace, api: Api, namespace: str) -> int:
    import prometheus_client

    from muster.dstk.directory import Watched
    from muster.dstk.router import Router
    from muster.process import on_signals, say

    loop, ends = asyncio.get_running_loop(), asyncio.Event()
    signals: list[int] = []

    def signalled(number: int) -> None:
        signals.append(number)
        loop.call_soon_threadsafe(ends.set)

    on_signals((signal.SIGTERM, signal.SIGINT), signalled)
    token = token_of(args.token_file)
    token()  # one that can't be read is told at once
    directory = Watched(api, namespace, args.key_space)
    router = Router(directory, token, prometheus_client.CollectorRegistry())
    directory.changed = router.changed
    port = await router.start(args.listen)
    directory.start()
    say(logging.INFO, "routes", space=args.key_space, port=port)
    await ends.wait()
    say(logging.INFO, "leaves", signal=signal.Signals(signals[0]).name)
    await router.stop()
    directory.stop()
    return 0


def token_of(path: Path | None) -> Callable[[], str]:
    """What reads the token, anew when the file has changed. It raises MusterError."""
    known = [(-1.0, "")]

    def token() -> str:
        if path is None:
            return ""
        try:
            changed = path.stat().st_mtime
            if changed != known[0][0]:
                known[0] = changed, path.read_text().strip()
        except OSError as error:
            raise Malformed("token file", str(path), f"make it readable ({error.strerror})") from error
        if not known[0][1]:
            raise Malformed("token file", str(path), "put a token into it")
        return known[0][1]

    return token

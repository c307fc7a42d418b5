# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster distributor`: what its commands are asked, and what they answer."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Forbidden
from ansible_collections.muster.coordination.plugins.module_utils.decisions import chain
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as decisions
from ansible_collections.muster.coordination.plugins.module_utils.decisions.chain import Stand
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant, Resources
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs
from muster.options import Call, Options, command, connect, system

NOTHING_FREE = 3  # exit status of `once` when it found nothing free
GRACE = 10.0  # seconds between SIGTERM and SIGKILL for a command that lost its claim

DISTRIBUTOR = """\
The distributed semaphore: it says how many permits there are of each resource,
who holds them and who waits.

  run      attend semaphores for one holder until SIGTERM: the sidecar
  exec     run a command while a claim is held, and only then
  once     one look: take out dead holders, claim what is free
  status   who holds what, since when, and who waits; with --watch, live

`muster distributor COMMAND --help` says more.
"""

RUN = """\
Attend one semaphore, or several, for one holder: claim, wait, keep, and tell
the application what it holds.

A holder is a Pod, and its claim ends with it; or, with --lease, anybody who
renews it. Several semaphores are taken in the order of their names, each when
all before it are held, so that holders can't deadlock each other; the
application is told that it holds when it holds all.
"""

RUN_EXAMPLES = """\
examples:
  muster distributor run --configmap render
      any one resource of one semaphore
  muster distributor run --configmap render:gpu=2,licence
      two gpus and a licence, all or nothing
  muster distributor run --configmap render:gpu --configmap db
      a gpu of one, anything of another
  curl -X POST http://127.0.0.1:8377/release
      give all back, until POST /claim

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""

EXEC = """\
Wait for a claim, run COMMAND while it is held, and give it back when COMMAND
and its process group have ended.

COMMAND finds its claim in DISTRIBUTOR_FENCE, DISTRIBUTOR_RESOURCE and so on.
Signals are handed on to it. If the claim is lost, COMMAND gets SIGTERM, and
SIGKILL after --grace. If exec itself is killed, so is COMMAND.
"""

EXEC_EXAMPLES = """\
examples:
  muster distributor exec --configmap deploy --lease 60 -- ./deploy.sh
      a CI job, anywhere: one at a time
  muster distributor exec --configmap db:migrate -- ./manage.py migrate
      in a Pod: the claim is the Pod's
  muster distributor exec --lease 60 --wait-timeout 5 -- ./nightly.sh
      a cron job: now, or not at all

exit status:
  COMMAND's, or 128 and the number of the signal which ended it
  126, 127  COMMAND can't be executed, or was not found
  4  the claim was lost
  3  nothing came free within --wait-timeout
  1  exec could not go on; the message says why
  2  wrong usage
"""

ONCE = """\
One look: take out dead holders, claim what is free, and say what happened.
It does not wait.
"""

ONCE_STATUS = """\
exit status:
  0  it holds all that it asked for
  3  something was not free
  1  it failed; the message says why
  2  wrong usage
"""

STATUS = """\
Who holds what, since when, and who waits. It only reads.
"""

STATUS_EXAMPLES = """\
examples:
  muster distributor status                      all of the namespace
  muster distributor status --configmap render --watch
  muster distributor status -o json | jq '.[].holders'

exit status: 0, or 1 where a semaphore is not there or is malformed
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the commands of Distributor."""
    commands = system(systems, "distributor", DISTRIBUTOR)

    def options(name: str, call: Call, description: str, epilog: str, arguments: str = "") -> _Options:
        return _Options(command(commands, f"muster distributor {name}", call, description, epilog, arguments), environ)

    run = options("run", _run, RUN, RUN_EXAMPLES)
    run.semaphores().holder().telling(pages="127.0.0.1:8377").sidecar().cluster().loop()
    executed = options("exec", _exec, EXEC, EXEC_EXAMPLES, "-- COMMAND ...")
    executed.command().semaphores().holder().telling(pages="").cluster().loop(log_format="text")
    options("once", _once, ONCE, ONCE_STATUS).semaphores().holder().cluster()
    options("status", _status, STATUS, STATUS_EXAMPLES).seen().shown().cluster()


class _Options(Options):
    """The options of Distributor."""

    def semaphores(self) -> Self:
        self.begin("which semaphores, and what of them")
        self.add(
            "--configmap",
            "MUSTER_CONFIGMAP",
            many=str.split,
            default=["distributor"],
            metavar="NAME[:WANT[,WANT...]]",
            help="the ConfigMap (of tickets, the Lease) that is the semaphore, and what is wanted of it; can be given "
            "several times, in the variable with blanks in between (default: distributor)",
        )
        self.add(
            "--resource",
            "MUSTER_RESOURCE",
            many=lambda text: [want for want in text.split(",") if want],
            default=[],
            metavar="WANT",
            help="what is wanted of each semaphore that --configmap names without a want: RESOURCE or RESOURCE=COUNT; "
            "can be given several times, in the variable with commas in between; all or nothing (default: any one)",
        )
        self._engine("annotations", "(default: annotations)")
        return self

    def seen(self) -> Self:
        self.begin("which semaphores")
        text = "only this one; can be given several times (default: all of the namespace)"
        self.add("--configmap", "MUSTER_CONFIGMAP", many=str.split, default=[], metavar="NAME", help=text)
        self._engine(None, "(default: both)")
        return self

    def holder(self) -> Self:
        self.begin("who claims")
        text = "a Pod of the namespace, or any name with --lease (default: this host's name)"
        self.add("--holder", "POD_NAME", metavar="NAME", help=text)
        self.add("--holder-uid", "POD_UID", metavar="UID", help="uid of the holder's Pod (default: looked up)")
        text = "for a holder that is not a Pod: it is taken out when it was not renewed for so long, 3 to 604800"
        self.add("--lease", "MUSTER_LEASE", type=int, metavar="SECONDS", help=text)
        text = "-1000 to 1000, higher is served first; of annotations only (default: 0)"
        self.add("--priority", "MUSTER_PRIORITY", type=int, default=0, metavar="N", help=text)
        return self

    def telling(self, *, pages: str) -> Self:
        self.begin("who is told of the claim")
        text = "write it here while it is held: JSON, or shell variables where the name ends in .env"
        self.add("--claim-file", "MUSTER_CLAIM_FILE", type=Path, metavar="PATH", help=text)
        text = "keep it in the annotation muster.dev/claim of the holder's Pod, too (needs `patch` on pods)"
        self.flag("--annotate-pod", "MUSTER_ANNOTATE_POD", text)
        text = "where to serve GET /claim /healthz /readyz /metrics and, to this host, POST /release /claim; empty for "
        text += f"nowhere (default: {pages or 'nowhere'})"
        self.add("--listen", "MUSTER_LISTEN", default=pages, metavar="ADDRESS:PORT", help=text)
        return self

    def sidecar(self) -> Self:
        self.begin("at the end")
        text = "give all back at SIGTERM: right for a native sidecar, which ends after the application"
        self.flag("--release-on-term", "MUSTER_RELEASE_ON_TERM", text)
        return self

    def command(self) -> Self:
        self.add_plain("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help=argparse.SUPPRESS)
        self.begin("the command")
        text = "time between SIGTERM and SIGKILL when the claim was lost, at most a third of --lease "
        text += f"(default: {GRACE:g}, or that third)"
        self.add("--grace", "MUSTER_GRACE", type=float, metavar="SECONDS", help=text)
        text = "wait so long for the claim, and then give up (default: for ever)"
        self.add("--wait-timeout", "MUSTER_WAIT_TIMEOUT", type=float, metavar="SECONDS", help=text)
        return self

    def loop(self, *, log_format: str = "json") -> Self:
        self.begin("how it works")
        text = "shortest time between two looks which no watch asked for (default: 50)"
        self.add("--resync-min", "MUSTER_RESYNC_MIN", type=float, default=50.0, metavar="SECONDS", help=text)
        text = "longest such time (default: 70)"
        self.add("--resync-max", "MUSTER_RESYNC_MAX", type=float, default=70.0, metavar="SECONDS", help=text)
        return self.logs(log_format)

    # ------------------------------------------------------------------------------------------ private

    def _engine(self, default: str | None, said: str) -> None:
        text = f"what a semaphore is made of: annotations of a ConfigMap, or tickets, one Lease a claim {said}"
        self.add("--engine", "MUSTER_ENGINE", choices=tuple(verbs.ENGINES), default=default, help=text)


# ---------------------------------------------------------------------------------------------- the commands


def _run(args: argparse.Namespace) -> int:
    from muster import distributor  # prometheus-client and the web server: only the sidecar pays for them

    api, namespace = _prepare(args)
    claimants = _claimants(args, api, namespace)
    settings = distributor.Settings(release_on_term=args.release_on_term, **_settings(args, namespace, claimants))
    return distributor.Distributor(api, settings).run()


def _exec(args: argparse.Namespace) -> int:
    from muster import distributor, execute

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise Malformed("COMMAND", "", "say what to run, after --: muster distributor exec [OPTIONS] -- COMMAND ...")
    grace = _grace(args)
    api, namespace = _prepare(args)
    if args.lease and not args.holder:  # two runs on one host would be one holder
        args.holder = f"{socket.gethostname()[:240]}-{os.urandom(3).hex()}"
    claimants = _claimants(args, api, namespace)
    settings = distributor.Settings(
        release_on_term=True,
        attendance={"notice": grace} if args.lease else {},
        **_settings(args, namespace, claimants),
    )
    return execute.Execution(api, settings, command, grace=grace, wait_timeout=args.wait_timeout).run()


def _once(args: argparse.Namespace) -> int:
    """Take them in order as far as they are free; what an earlier run has behind that is given back."""
    api, namespace = connect(args)
    claimants = _claimants(args, api, namespace)
    names = chain.in_order(claimants)
    stands = [Stand.UNKNOWN] * len(names)
    for index, name in enumerate(names):
        at: dict[str, Any] = {"engine": args.engine, "name": name, "namespace": namespace, "claimant": claimants[name]}
        done = verbs.attempt(api, **at)
        _warn(done.warnings)
        print("; ".join(f"{name}: {reason}" if len(names) > 1 else reason for reason in done.reasons))
        stands[index] = Stand.HELD if done.outcome in ("held", "granted") else Stand.WAITING
        if stands[index] is not Stand.HELD:
            break
    for index in chain.plan(stands).give_back:
        name = names[index]
        if verbs.leave(api, engine=args.engine, name=name, namespace=namespace, claimant=claimants[name]):
            print(f"{name}: given back")
    print()
    _print_semaphores(_found(api, namespace, names, args.engine), names, namespace)
    return 0 if set(stands) == {Stand.HELD} else NOTHING_FREE


def _status(args: argparse.Namespace) -> int:
    api, namespace = connect(args)
    names = list(dict.fromkeys(name.partition(":")[0] for name in args.configmap))
    if args.watch:
        from muster.live import watch
        from muster.semaphore_picture import Semaphores, sources

        def look() -> list[dict[str, Any]]:
            return _found(api, namespace, names, args.engine)

        told, picture = sources(namespace, names, args.engine), Semaphores(namespace)
        return watch(api, told, look, picture, as_json=args.output == "json", out=sys.stdout)
    found = _found(api, namespace, names, args.engine)
    if args.output == "json":
        print(json.dumps(found, indent=2))
        return 0
    return _print_semaphores(found, names, namespace)


def _print_semaphores(found: list[dict[str, Any]], names: Sequence[str], namespace: str) -> int:
    from muster.table import semaphore_text

    missing = [name for name in names if name not in {one["name"] for one in found}]
    if missing or not found:
        what = f"semaphore {namespace}/{missing[0]}" if missing else f"semaphore in namespace {namespace}"
        raise MusterError(f"there is no {what}; create one with k8s_semaphore, or name another --namespace")
    print("\n\n".join(semaphore_text(semaphore) for semaphore in found))
    return 1 if any(semaphore["error"] for semaphore in found) else 0


def _found(api: Api, namespace: str, names: Sequence[str], engine: str | None) -> list[dict[str, Any]]:
    """The semaphores of these names, or all. Who asks for both engines may be allowed to see only one (a sidecar)."""
    found: list[dict[str, Any]] = []
    refused = []
    for each in [engine] if engine else verbs.ENGINES:
        try:
            for name in names or (None,):
                found += verbs.info(api, namespace=namespace, name=name, engine=each)["semaphores"]
        except Forbidden as error:
            refused.append(error)
    if refused and not found:
        raise refused[0]
    return sorted(found, key=lambda one: (one["name"], one["engine"]))


# ---------------------------------------------------------------------------------------------- what options say


def _prepare(args: argparse.Namespace) -> tuple[Api, str]:
    from muster import process

    process.set_up_logs(args.log_format, args.verbose)
    if not 0 < args.resync_min <= args.resync_max:
        remedy = f"give more than 0 and at most --resync-max ({args.resync_max:g})"
        raise Malformed("--resync-min", args.resync_min, remedy)
    return connect(args)


def _settings(args: argparse.Namespace, namespace: str, claimants: Mapping[str, Claimant]) -> dict[str, Any]:
    return {
        "namespace": namespace,
        "claimants": claimants,
        "engine": args.engine,
        "claim_file": args.claim_file,
        "annotate_pod": args.annotate_pod,
        "listen": args.listen or None,
        "resync": (args.resync_min, args.resync_max),
    }


def _claimants(args: argparse.Namespace, api: Api, namespace: str) -> dict[str, Claimant]:
    """Who claims at each semaphore, by its name; the same holder with other wants."""
    wishes = parse_wishes(args.configmap, args.resource)
    holder = args.holder or socket.gethostname()
    uid = verbs.identify(api, namespace, holder, args.holder_uid, args.lease)
    if args.__dict__.get("annotate_pod") and not uid:
        raise Malformed("--annotate-pod", True, f"only a Pod can be annotated, and {holder} is none (it has --lease)")
    return {name: Claimant(holder, uid, want, args.priority, args.lease) for name, want in wishes.items()}


def parse_wishes(configmaps: Sequence[str], resources: Sequence[str]) -> dict[str, Resources]:
    """`NAME[:WANT,…]` and the wants of those that name none, as what is wanted of each semaphore. Raises Malformed."""
    wishes: dict[str, Resources] = {}
    for text in configmaps:
        name, colon, wants = text.partition(":")
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name) or (colon and not wants):
            raise Malformed(
                "--configmap", text, "give NAME or NAME:WANT,WANT, where WANT is RESOURCE or RESOURCE=COUNT"
            )
        if name in wishes:
            raise Malformed("--configmap", name, f"name each semaphore once, with all its wants: {name}:WANT,WANT")
        wishes[name] = decisions.parse_want(wants.split(",") if colon else resources)
    return wishes


def _grace(args: argparse.Namespace) -> float:
    """A lease that can't be renewed counts as lost so long before others may take it: the command has ended by then."""
    most = args.lease / 3 if args.lease else None
    if args.grace is None:
        return min(GRACE, most) if most else GRACE
    grace: float = args.grace
    if not 0 <= grace <= (most if most else 86400):
        allowed = f"a third of --lease ({most:g})" if most else "86400"
        raise Malformed("--grace", grace, f"give seconds from 0 to {allowed}")
    return grace


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"muster: warning: {warning}", file=sys.stderr)

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `muster`: one subcommand a system, each option also by an environment variable, for use in Pods."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, ApiError
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials, CredentialsError
from ansible_collections.muster.coordination.plugins.module_utils.decisions import semaphore as engine
from ansible_collections.muster.coordination.plugins.module_utils.decisions.semaphore import Claimant
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import semaphore as verbs

NOTHING_FREE = 3  # exit status of `once` when it found nothing free

DISTRIBUTOR = """\
The distributed semaphore: it says how many permits there are of each resource, who holds them and who waits.

  run      attend the semaphore for one holder until SIGTERM: the sidecar
  once     one look: take out dead holders, claim what is free, say what happened
  status   who holds what, since when, and who waits
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did what was asked, 1 when it could not, 2 for wrong usage, 3 for nothing free."""
    args = build_parser(os.environ).parse_args(argv)
    try:
        status: int = args.call(args)
        return status
    except (MusterError, ApiError, CredentialsError) as error:
        print(f"muster: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


def build_parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="muster", description="Coordination for teams on Kubernetes.")
    parser.add_argument("--version", action=_Version)
    systems = parser.add_subparsers(title="systems", required=True, metavar="SYSTEM")
    _add_distributor(systems, environ)
    return parser


def _add_distributor(systems: Any, environ: Mapping[str, str]) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    text = "the distributed semaphore"
    distributor = systems.add_parser("distributor", help=text, description=DISTRIBUTOR, formatter_class=raw)
    verbs_of = distributor.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = verbs_of.add_parser("run", help="attend the semaphore for one holder: the sidecar")
    once = verbs_of.add_parser("once", help="one look: take out the dead, claim what is free")
    status = verbs_of.add_parser("status", help="who holds what, and who waits")
    for command, call in ((run, _run), (once, _once), (status, _status)):
        _Options(command, environ).cluster().semaphore(needs_one=command is not status)
        command.set_defaults(call=call)
    for command in (run, once):
        _Options(command, environ).holder()
    _Options(run, environ).sidecar()
    status.add_argument("-o", "--output", choices=("table", "json"), default="table", help="(default: %(default)s)")


class _Options:
    """Adds groups of options, each with its environment variable in the help."""

    def __init__(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        self._parser, self._environ = parser, environ

    def cluster(self) -> _Options:
        self._add("--kubeconfig", "KUBECONFIG", metavar="PATH", help="credentials; in a Pod its own are used")
        self._add("--context", "K8S_AUTH_CONTEXT", metavar="NAME", help="context of the kubeconfig")
        self._add("--namespace", "MUSTER_NAMESPACE", metavar="NAME", help="(default: the Pod's, or the context's own)")
        return self

    def semaphore(self, *, needs_one: bool) -> _Options:
        default = "distributor" if needs_one else None
        text = "the ConfigMap (or, of tickets, the Lease) that is the semaphore"
        text += "" if needs_one else "; all of the namespace when not given"
        self._add("--configmap", "MUSTER_CONFIGMAP", default=default, metavar="NAME", help=text)
        text = "what the semaphore is made of: annotations of a ConfigMap, or tickets, one Lease a claim"
        text += " (default: annotations)" if needs_one else "; both when not given"
        engine = "annotations" if needs_one else None
        self._add("--engine", "MUSTER_ENGINE", choices=tuple(verbs.ENGINES), default=engine, help=text)
        return self

    def holder(self) -> _Options:
        text = "who claims (default: this host's name)"
        self._add("--holder", "POD_NAME", default=socket.gethostname(), metavar="NAME", help=text)
        self._add("--holder-uid", "POD_UID", metavar="UID", help="uid of the holder's Pod (default: looked up)")
        self._add("--resource", "MUSTER_RESOURCE", metavar="NAME", help="which resource (default: any one)")
        text = "-1000 to 1000, higher is served first (default: 0)"
        self._add("--priority", "MUSTER_PRIORITY", type=int, default=0, metavar="N", help=text)
        text = "for a holder that is not a Pod: it is taken out when it was not renewed for so long, 3 to 604800"
        self._add("--lease", "MUSTER_LEASE", type=int, metavar="SECONDS", help=text)
        return self

    def sidecar(self) -> _Options:
        text = "tell the application here what it holds: JSON, or shell variables where it ends in .env"
        self._add("--claim-file", "MUSTER_CLAIM_FILE", type=Path, metavar="PATH", help=text)
        text = "give the resource back at SIGTERM: right for a native sidecar, which ends after the application"
        self._add(
            "--release-on-term",
            "MUSTER_RELEASE_ON_TERM",
            action=argparse.BooleanOptionalAction,
            type=_boolean,
            default=False,
            help=text,
        )
        text = "where to serve /healthz /readyz /metrics /claim; empty for nowhere (default: 127.0.0.1:8377)"
        self._add("--listen", "MUSTER_LISTEN", default="127.0.0.1:8377", metavar="ADDRESS:PORT", help=text)
        text = "shortest time between two looks which no watch asked for (default: 50)"
        self._add("--resync-min", "MUSTER_RESYNC_MIN", type=float, default=50.0, metavar="SECONDS", help=text)
        text = "longest such time (default: 70)"
        self._add("--resync-max", "MUSTER_RESYNC_MAX", type=float, default=70.0, metavar="SECONDS", help=text)
        self._add("--log-format", "MUSTER_LOG_FORMAT", choices=("json", "text"), default="json", help="(default: json)")
        self._parser.add_argument("-v", "--verbose", action="store_true", help="log each request of a page, too")
        return self

    def _add(self, flag: str, variable: str, *, help: str, **settings: Any) -> None:
        convert = settings.pop("type", None) if settings.get("action") else settings.get("type")
        text = self._environ.get(variable)
        if text:
            try:
                settings["default"] = convert(text) if convert else text
            except ValueError:
                self._parser.error(f"the environment variable {variable} is {text!r}: give what {flag} takes")
        self._parser.add_argument(flag, help=f"{help} [{variable}]", **settings)


def _run(args: argparse.Namespace) -> int:
    from muster import distributor, process  # prometheus-client and the web server: only the sidecar pays for them

    process.set_up_logs(args.log_format, args.verbose)
    if not 0 < args.resync_min <= args.resync_max:
        raise Malformed(
            "--resync-min", args.resync_min, f"give more than 0 and at most --resync-max ({args.resync_max})"
        )
    api, namespace = _connect(args)
    settings = distributor.Settings(
        name=args.configmap,
        namespace=namespace,
        claimant=_claimant(args, api, namespace),
        engine=args.engine,
        claim_file=args.claim_file,
        release_on_term=args.release_on_term,
        listen=args.listen or None,
        resync=(args.resync_min, args.resync_max),
    )
    return distributor.Distributor(api, settings).run()


def _once(args: argparse.Namespace) -> int:
    api, namespace = _connect(args)
    claimant = _claimant(args, api, namespace)
    done = verbs.attempt(api, engine=args.engine, name=args.configmap, namespace=namespace, claimant=claimant)
    print("; ".join(done.reasons))
    print()
    found = verbs.info(api, namespace=namespace, name=args.configmap, engine=args.engine)
    _print_semaphores(found, args.configmap, namespace)
    return NOTHING_FREE if done.outcome == "busy" else 0


def _status(args: argparse.Namespace) -> int:
    api, namespace = _connect(args)
    found = verbs.info(api, namespace=namespace, name=args.configmap, engine=args.engine)
    if args.output == "json":
        print(json.dumps(found["semaphores"], indent=2))
        return 0
    return _print_semaphores(found, args.configmap, namespace)


def _print_semaphores(found: dict[str, Any], name: str | None, namespace: str) -> int:
    from muster.table import semaphore_text

    if not found["semaphores"]:
        what = f"semaphore {namespace}/{name}" if name else f"semaphore in namespace {namespace}"
        raise MusterError(f"there is no {what}; create one with k8s_semaphore, or name another --namespace")
    print("\n\n".join(semaphore_text(semaphore) for semaphore in found["semaphores"]))
    return 1 if any(semaphore["error"] for semaphore in found["semaphores"]) else 0


def _connect(args: argparse.Namespace) -> tuple[Api, str]:
    credentials = Credentials.load({"kubeconfig": args.kubeconfig, "context": args.context})
    return Api(credentials), args.namespace or credentials.namespace or "default"


def _claimant(args: argparse.Namespace, api: Api, namespace: str) -> Claimant:
    uid = verbs.identify(api, namespace, args.holder, args.holder_uid, args.lease)
    return Claimant(args.holder, uid, {args.resource or engine.ANY: 1}, args.priority, args.lease)


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]


class _Version(argparse.Action):
    """Reads the version only when asked: importing the metadata of packages costs memory in a sidecar."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_args: Any) -> None:
        from importlib.metadata import version

        print(f"muster {version('muster-coordination')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())

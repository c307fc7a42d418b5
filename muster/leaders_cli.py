# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster leaders`: who leads by a Lease."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import lease_info
from muster.live import Found, Source
from muster.options import Options, WrongUsage, command, connect
from muster.table import terminal_width

BREATH = 0.5  # seconds between two looks of --watch: all Leases are read, and each renewal is a reason

LEADERS = """\
Who leads: the Leases of leader elections, of Muster's operators and of all
others that use them as client-go does. It only reads.

One look can't tell whether a holder is alive; with --watch it is seen how long
each has been silent. `ended` is certain: the kubelet says so.
"""

EPILOG = """\
examples:
  muster leaders --namespace vm-system
  muster leaders vm-operator --namespace vm-system --watch
  muster leaders --all-namespaces -o json | jq '.[] | .name + " " + .pod'

columns:
  TERM    how often it has changed hands
  FENCE   fencing number of the holder's term, if it uses Muster
  FOR     how long it has been held, if the holder's clock and this one agree
  SILENT  how long --watch has not seen it renewed, of how long it may be silent

exit status:
  0  shown
  1  a Lease that was named is not there or is malformed, or it failed
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    parser = command(systems, "muster leaders", _leaders, LEADERS, EPILOG, "[NAME ...]")
    _Options(parser, environ).which().shown().cluster()


class _Options(Options):
    def which(self) -> Self:
        self.add_plain("names", nargs="*", metavar="NAME", help=argparse.SUPPRESS)
        self.begin("which Leases (default: all of the namespace)")
        self.add_plain("-A", "--all-namespaces", action="store_true", help="those of all namespaces")
        text = "only with these labels, such as app=vm-operator"
        self.add_plain("-l", "--selector", default="", metavar="LABELS", help=text)
        return self


def _leaders(args: argparse.Namespace) -> int:
    if args.all_namespaces and args.names:
        raise WrongUsage("NAME and --all-namespaces exclude each other: name a --namespace")
    if args.selector and args.names:
        raise WrongUsage("NAME and --selector exclude each other: give one of them")
    api, own = connect(args)
    namespace = None if args.all_namespaces else own

    def look() -> Found:
        if not args.names:
            found = lease_info.leaders(api, namespace=namespace, label_selector=args.selector)
            return [lease for lease in found if _is_election(lease)]
        return [one for name in args.names for one in lease_info.leaders(api, namespace=namespace, name=name)]

    where = f"namespace {namespace}" if namespace else "all namespaces"
    if args.watch:
        from muster.leaders import Leaders
        from muster.live import watch

        picture = Leaders(where, everywhere=namespace is None)
        told = _sources(namespace, args.names, args.selector)
        return watch(api, told, look, picture, as_json=args.output == "json", out=sys.stdout, breath=BREATH)
    found = look()
    if args.output == "json":
        print(json.dumps(found, indent=2))
        return 0
    return _print(found, args.names, where)


def _print(found: Found, names: list[str], where: str) -> int:
    from muster.leaders import leaders_text

    missing = [name for name in names if name not in {lease["name"] for lease in found}]
    if missing:
        raise MusterError(f"there is no Lease {missing[0]} in {where}: name another, or another --namespace")
    if not found:
        raise MusterError(f"there is no Lease of an election in {where}: name another --namespace, or wait for one")
    print(leaders_text(found, terminal_width(sys.stdout)))
    return 1 if any(lease["error"] for lease in found) else 0


def _is_election(lease: Mapping[str, Any]) -> bool:
    """Who is elected says since when; a Lease without that is a heartbeat, as each API server has one."""
    return lease["since"] is not None or lease["holder"] is None


def _sources(namespace: str | None, names: list[str], selector: str) -> list[Source]:
    """What to watch; nodes' heartbeats and tickets, the most numerous, are left out by the API server."""
    if names:
        return [{"resource": LEASES, "namespace": namespace, "name": name} for name in names]
    labels = ",".join(part for part in (selector, lease_info.ELECTIONS) if part)
    fields = lease_info.where(namespace)
    return [{"resource": LEASES, "namespace": namespace, "label_selector": labels, "field_selector": fields}]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster shards`: which replica of a controller has which shards."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import CONFIGMAPS, LEASES
from ansible_collections.muster.coordination.plugins.module_utils.decisions import members
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import lease_info
from muster.live import Found, Source
from muster.options import Options, WrongUsage, command, connect
from muster.table import terminal_width

BREATH = 0.2  # seconds between two looks of --watch: the members renew all the time

SHARDS = """\
Sharded controllers: their members, which shards each of them owns, and what is
moving from one to another. It only reads.
"""

EPILOG = """\
examples:
  muster shards --namespace vm-system
  muster shards vm-operator --namespace vm-system --watch
  muster shards vm-operator --key team-a         which replica has team-a?
  muster shards vm-operator -o json | jq '.[0].handovers'

columns:
  FENCE   of the member's own Lease; that of a shard is in the JSON
  FOR     how long it has been a member, if its clock and this one agree
  SILENT  how long --watch has not seen it renew its Lease, of how long it may
  OWNS    how many shards it acts on → how many it is to have

states of what is moving:
  revoked    the owner is not wanted any more, and ends its work on the shard
  free       it has let go; who is wanted takes it next
  orphaned   the owner has ended or has no Lease; any member strikes it out

exit status:
  0  shown
  1  a controller that was named is not there or is malformed, or it failed
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the command."""
    parser = command(systems, "muster shards", _shards, SHARDS, EPILOG, "[NAME ...]")
    _Options(parser, environ).which().shown().cluster()


class _Options(Options):
    def which(self) -> Self:
        self.add_plain("names", nargs="*", metavar="NAME", help=argparse.SUPPRESS)
        self.begin("which controllers (default: all of the namespace)")
        text = "say only whose this key is: a namespace, or whatever the controller is sharded by"
        self.add_plain("--key", metavar="KEY", help=text)
        return self


def _shards(args: argparse.Namespace) -> int:
    if args.key is not None and (args.watch or args.output == "json"):
        raise WrongUsage("--key excludes --watch and --output json: ask for one of them")
    api, namespace = connect(args)

    def look() -> Found:
        return [one for name in args.names or (None,) for one in lease_info.shards(api, namespace=namespace, name=name)]

    if args.watch:
        from muster.leaders import Shards
        from muster.live import watch

        picture = Shards(f"sharded controller in namespace {namespace}")
        told = _sources(namespace, args.names)
        return watch(api, told, look, picture, as_json=args.output == "json", out=sys.stdout, breath=BREATH)
    found = look()
    if args.output == "json":
        print(json.dumps(found, indent=2))
        return 0
    return _print(found, args.names, namespace, args.key)


def _print(found: Found, names: list[str], namespace: str, key: str | None) -> int:
    from muster.leaders import key_text, shards_text

    missing = [name for name in names if name not in {one["name"] for one in found}]
    if missing or not found:
        what = f"sharded controller {missing[0]}" if missing else "sharded controller"
        raise MusterError(f"there is no {what} in namespace {namespace}: name another, or another --namespace")
    width = terminal_width(sys.stdout)
    print("\n\n".join(shards_text(one, width) if key is None else key_text(one, key) for one in found))
    return 1 if any(one["error"] or (key is not None and not one["layout"]) for one in found) else 0


def _sources(namespace: str, names: list[str]) -> list[Source]:
    """What to watch: the members' Leases, and the tables."""
    labels = [f"{members.MEMBER_OF}={name}" for name in names] or [members.MEMBER_OF]
    tables = [{"name": members.table_name(name)} for name in names] or [{"label_selector": members.MEMBER_OF}]
    leases: list[Source] = [{"resource": LEASES, "namespace": namespace, "label_selector": label} for label in labels]
    return [*leases, *({"resource": CONFIGMAPS, "namespace": namespace, **table} for table in tables)]

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that all operators share, and what is made of them."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import Api, Object, Resource
from ansible_collections.muster.coordination.plugins.module_utils.decisions import sharding
from ansible_collections.muster.coordination.plugins.module_utils.decisions.election import Identity, Timing
from ansible_collections.muster.coordination.plugins.module_utils.decisions.sharding import Layout
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed
from ansible_collections.muster.coordination.plugins.module_utils.verbs import pods
from muster.frame import cache
from muster.frame.authority import Authority
from muster.frame.beside import Beside
from muster.frame.controller import Controller, Reconcile
from muster.frame.keeper import new_run
from muster.frame.leader import Leader
from muster.frame.office import Settings
from muster.frame.shards import Shards
from muster.options import Options
from muster.pod import Events, pod_of

BACKLOG: Final = 1000  # Events that may wait while the API server is away


class FrameOptions(Options):
    """The options of an operator whose objects are of one kind."""

    def controller(self, name: str) -> Self:
        """`name` is the controller's, where no other is given."""
        self.begin("what it watches")
        text = "objects of this namespace only (default: of all)"
        self.add("--watch-namespace", "MUSTER_WATCH_NAMESPACE", metavar="NAME", help=text)
        text = "how many objects are worked on at a time, 1 to 64 (default: 4)"
        self.add("--workers", "MUSTER_WORKERS", type=int, default=4, metavar="N", help=text)
        self._replicas(name)
        self._itself()
        self.begin("how it works")
        text = "where to serve GET /healthz /readyz /authority /metrics; empty for nowhere (default: 127.0.0.1:8378)"
        self.add("--listen", "MUSTER_LISTEN", default="127.0.0.1:8378", metavar="ADDRESS:PORT", help=text)
        return self.logs()

    def _replicas(self, name: str) -> None:
        self.begin("how its replicas share the work")
        text = "one of them does all, or each has a part (default: leader)"
        choices = ("leader", "shard")
        self.add("--replicas-mode", "MUSTER_REPLICAS_MODE", choices=choices, default="leader", help=text)
        text = f"name of the leader's Lease, and before the names of what shards need (default: {name})"
        self.add("--lease-name", "MUSTER_LEASE_NAME", default=name, metavar="NAME", help=text)
        text = "how long a Lease lasts after its last renewal, 1 to 3600 (default: 6)"
        self.add("--lease-seconds", "MUSTER_LEASE_SECONDS", type=int, default=6, metavar="SECONDS", help=text)
        text = "stable; or pod-num: the sum of a key's characters modulo --replicas is the number of the Pod "
        text += "(default: stable)"
        strategies = sharding.STRATEGIES
        default = sharding.STABLE
        self.add("--shard-strategy", "MUSTER_SHARD_STRATEGY", choices=strategies, default=default, help=text)
        text = "how many there are, of the strategy stable, 1 to 1024 (default: 64)"
        self.add("--shards", "MUSTER_SHARDS", type=int, default=64, metavar="N", help=text)
        text = "how many replicas there are: for the strategy pod-num"
        self.add("--replicas", "MUSTER_REPLICAS", type=int, metavar="N", help=text)
        text = "objects with the same one go to the same replica: namespace, object, or label:KEY (default: namespace)"
        self.add("--shard-by", "MUSTER_SHARD_BY", default="namespace", metavar="WHAT", help=text)
        text = (
            "label selector of the replicas' Pods, so that a crash of one is noticed at once (default: the Pods that "
        )
        text += "matter are watched one by one)"
        self.add("--pod-selector", "MUSTER_POD_SELECTOR", default="", metavar="SELECTOR", help=text)

    def _itself(self) -> None:
        self.begin("who it is itself")
        self.add("--pod", "POD_NAME", metavar="NAME", help="its Pod (default: it runs in none)")
        self.add("--pod-uid", "POD_UID", metavar="UID", help="the Pod's uid (default: looked up)")
        self.add("--container", "CONTAINER_NAME", metavar="NAME", help="its container in that Pod")
        text = "its number where it runs in no Pod: for the strategy pod-num"
        self.add("--pod-num", "POD_NUM", type=int, metavar="N", help=text)


def controller(
    args: argparse.Namespace,
    api: Api,
    namespace: str,
    resource: Resource,
    reconcile: Callable[[Events], Reconcile],
    component: str,
    *,
    label_selector: str = "",
    field_selector: str = "",
    beside: Sequence[Beside] = (),
) -> Controller:
    """A controller as the options say; `namespace` is its own. `component` is what its Events say who tells.

    The selectors say which objects of the kind it is for, `beside` what else concerns them. Raises Malformed for what
    makes no sense.
    """
    if not 1 <= args.workers <= 64:
        raise Malformed("--workers", args.workers, "give a whole number from 1 to 64")
    me = identity(args, api, namespace)
    events = Events(api, component, BACKLOG)
    return Controller(
        api,
        resource=resource,
        authority=authority(args, api, namespace, me),
        reconcile=reconcile(events),
        namespace=args.watch_namespace or None,
        label_selector=label_selector,
        field_selector=field_selector,
        beside=beside,
        key_of=key_of(args.shard_by),
        workers=args.workers,
        listen=args.listen or None,
        events=events,
        pod=pod_of(namespace, me.pod, me.uid) if args.pod else None,
    )


def authority(args: argparse.Namespace, api: Api, namespace: str, me: Identity) -> Authority:
    """Leader or shards, as the options say. Raises Malformed."""
    settings = Settings(
        name=args.lease_name,
        namespace=namespace,
        me=me,
        timing=Timing(args.lease_seconds),
        pod_selector=args.pod_selector,
        started=process_started(),
    )
    if args.replicas_mode == "leader":
        return Leader(api, settings)
    return Shards(api, settings, layout(args, me))


def layout(args: argparse.Namespace, me: Identity) -> Layout:
    """How keys become shards. Raises Malformed."""
    if args.shard_strategy == sharding.STABLE:
        return _checked(Layout(sharding.STABLE, args.shards), "--shards")
    if args.replicas is None:
        raise Malformed("--replicas", None, "say how many replicas there are: pod-num needs to know")
    if sharding.ordinal_of(me.pod) is None:
        raise Malformed("POD_NAME", me.pod, "pod-num needs Pods with a number: deploy it as a StatefulSet")
    return _checked(Layout(sharding.POD_NUM, args.replicas), "--replicas")


def key_of(shard_by: str) -> Callable[[Object], str]:
    """From an object to the key by which it is sharded. Raises Malformed."""
    if shard_by == "object":
        return cache.key_of
    if shard_by == "namespace":
        return lambda obj: str(obj["metadata"].get("namespace") or obj["metadata"]["name"])
    kind, _colon, label = shard_by.partition(":")
    if kind != "label" or not label:
        raise Malformed("--shard-by", shard_by, "give namespace, object, or label:KEY")
    return lambda obj: str((obj["metadata"].get("labels") or {}).get(label) or cache.key_of(obj))


def identity(args: argparse.Namespace, api: Api, namespace: str) -> Identity:
    """Who this process is: its Pod, or, outside of one, this host and a random word. Raises Malformed."""
    if args.pod:
        uid = args.pod_uid or pods.uid_of(api, namespace, args.pod)
        if not uid:
            raise Malformed("POD_NAME", args.pod, f"there is no such Pod in namespace {namespace}; set POD_NAMESPACE")
        return Identity(args.pod, uid, new_run(), args.container or "")
    host = re.sub(r"[^a-z0-9.-]", "-", socket.gethostname().lower())[:100].strip(".-") or "host"
    number = "" if args.pod_num is None else f"-{args.pod_num}"
    return Identity(f"{host}{number}", secrets.token_hex(8), new_run())


def process_started() -> float | None:
    """When the kernel started this process, in seconds since 1970; None where it does not say so (not Linux)."""
    if sys.platform != "linux":
        return None
    with suppress(OSError, ValueError, IndexError):
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        since_boot = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5)
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - since_boot)
    return None


def own_namespace(args: argparse.Namespace, connected: str, environ: Mapping[str, str]) -> str:
    """Where the operator's Leases are: --namespace, or its Pod's, or that of the credentials."""
    return args.namespace or environ.get("POD_NAMESPACE") or connected


def _checked(wanted: Layout, option: str) -> Layout:
    found: Any = {"strategy": wanted.strategy, "shards": wanted.shards}
    return sharding.parse_layout(found, option)

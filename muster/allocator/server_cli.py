# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster allocatord`: serves users their own instances of what a template describes, and looks after these."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    GROUP,
    Offer,
    make_offer,
)
from ansible_collections.muster.coordination.plugins.module_utils.decisions.ledger import MEMBER, total_name
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template import Template, parse_size
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_parameters import from_text
from ansible_collections.muster.coordination.plugins.module_utils.decisions.template_policy import (
    KINDS,
    LEVELS,
    MAX_REPLICAS,
    RESTRICTED,
    Policy,
    check_template,
    parse_kinds,
)
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator import (
    INSTANCES,
    Allocator,
    resource_of,
)
from muster import process
from muster.allocator.controller import Instances, beside
from muster.allocator.offering import SAMPLE, Make, Offering, read_file, read_template, sample
from muster.allocator.sweeper import SWEEP_SECONDS, Round, Sweeper
from muster.allocator.warm import WARM_SECONDS, Warm
from muster.frame.authority import Term
from muster.frame.controller import Controller, Reconcile
from muster.frame.options import FrameOptions, controller, own_namespace
from muster.options import WrongUsage, command, connect, system
from muster.pod import Events

ALLOCATORD = """\
Gives users instances of a service, each their own: what one is, a template
says. Nobody has more than is allowed, also if a thousand ask at one moment.

  run      serve users, and look after their instances, until SIGTERM
  check    read a template, and show what one user's objects would be

`muster allocatord run --help` says more.
"""

RUN = """\
Serve users over HTTP, and make, suspend and remove what belongs to their
instances. Every replica serves; of several, one leads and does the rest, or
each has a part of the instances (--replicas-mode).
"""

EPILOG = """\
examples:
  muster allocatord check template.yaml
  muster allocatord run --deployment-template template.yaml
  kubectl get instances                      what there is, and whose it is
  curl localhost:8400/openapi.json           what users can ask for

exit status:
  0  ended by SIGTERM or SIGINT
  1  it could not go on; the message says why
  2  wrong usage
"""

CHECK = """\
Read a template, check it against the policy, and write the objects that one
user would have to standard output, as JSON or YAML. What an import changes is
told on standard error. No cluster is asked.
"""

CHECK_EPILOG = """\
examples:
  muster allocatord check template.yaml
  muster allocatord check old.json-template --repair     with missing commas
  muster allocatord check template.yaml --param size=3

exit status:
  0  it is sound
  1  it is not; the message names the field
  2  wrong usage
"""

CONNECTIONS: Final = 64  # to the API server, for many users at one moment
LISTEN: Final = "0.0.0.0:8400"


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the commands."""
    commands = system(systems, "allocatord", ALLOCATORD)
    parser = command(commands, "muster allocatord run", _run, RUN, EPILOG)
    _Options(parser, environ).template(is_needed=True).limits().policy().users().controller("allocator").cluster()
    parser = command(commands, "muster allocatord check", _check, CHECK, CHECK_EPILOG, "TEMPLATE")
    _Options(parser, environ).template(is_needed=False).policy().shown_sample()


class _Options(FrameOptions):
    def template(self, *, is_needed: bool) -> Self:
        self.begin("what it offers")
        text = "the allocator's own name: ledgers, offer and labels carry it (default: allocator)"
        self.add("--name", "MUSTER_ALLOCATOR_NAME", default="allocator", metavar="NAME", help=text)
        text = "begin of the names of instances, at most 40 characters (default: the allocator's name)"
        self.add("--server-name", "MUSTER_ALLOCATOR_SERVER_NAME", default="", metavar="NAME", help=text)
        if is_needed:
            text = "the template's file: YAML or JSON, with placeholders; it is read again when it changes"
            name = "MUSTER_ALLOCATOR_DEPLOYMENT_TEMPLATE"
            self.add("--deployment-template", name, type=Path, metavar="PATH", help=text)
        text = "it is an old JSON template, whatever it looks like (default: known by its form)"
        self._flag("--import", "MUSTER_ALLOCATOR_IMPORT", text, dest="imports")
        text = "put commas right that are missing in an old JSON template, or too many"
        self._flag("--repair", "MUSTER_ALLOCATOR_REPAIR", text)
        text = "size of a disk for which the template names none (default: 50GB)"
        self.add("--server-disk-size", "MUSTER_ALLOCATOR_SERVER_DISK_SIZE", default="50GB", metavar="SIZE", help=text)
        text = "its storage class (default: the cluster's own)"
        self.add("--storage-class", "MUSTER_ALLOCATOR_STORAGE_CLASS", default="", metavar="NAME", help=text)
        text = "begin of what {{.MountName}} stands for (default: the allocator's name and a slash)"
        self.add("--mount-prefix", "MUSTER_ALLOCATOR_MOUNT_PREFIX", default="", metavar="TEXT", help=text)
        return self

    def limits(self) -> Self:
        self.begin("how many")
        text = "instances of all users together, 0 to 5000 (default: 10)"
        self.add("--max-instances", "MUSTER_ALLOCATOR_MAX_INSTANCES", type=int, default=10, metavar="N", help=text)
        text = "instances of one user, 0 to 5000 (default: 1)"
        name = "MUSTER_ALLOCATOR_MAX_INSTANCES_PER_USER"
        self.add("--max-instances-per-user", name, type=int, default=1, metavar="N", help=text)
        text = "instances that are kept ready for nobody yet: for templates that do not name the owner (default: 0)"
        self.add("--warm", "MUSTER_ALLOCATOR_WARM", type=int, default=0, metavar="N", help=text)
        return self

    def policy(self) -> Self:
        self.begin("what a template may have")
        text = "level of the Pod Security Standards that its Pods have to pass (default: restricted)"
        name = "MUSTER_ALLOCATOR_POD_SECURITY"
        self.add("--pod-security", name, choices=LEVELS, default=RESTRICTED, help=text)
        text = "kinds, as apps/v1/Deployment,v1/Service (default: workloads, Services, disks, ConfigMaps, policies)"
        self.add("--allowed-kinds", "MUSTER_ALLOCATOR_ALLOWED_KINDS", default="", metavar="KINDS", help=text)
        for what in ("service-accounts", "secrets", "config-maps", "disks"):
            text = (
                f"names of {what.replace('-', ' ')} that are there already, and that its Pods may use (default: none)"
            )
            name = f"MUSTER_ALLOCATOR_ALLOWED_{what.replace('-', '_').upper()}"
            self.add(f"--allowed-{what}", name, default="", metavar="NAMES", help=text)
        text = f"Pods of one workload (default: {MAX_REPLICAS})"
        name = "MUSTER_ALLOCATOR_MAX_REPLICAS"
        self.add("--max-replicas", name, type=int, default=MAX_REPLICAS, metavar="N", help=text)
        return self

    def users(self) -> Self:
        self.begin("its users")
        text = f"where to serve them (default: {LISTEN})"
        name = "MUSTER_ALLOCATOR_LISTEN"
        self.add("--listen", name, dest="users_listen", default=LISTEN, metavar="ADDRESS:PORT", help=text)
        text = "a certificate's chain, and its key, as PEM; they are read again when they change (default: plain HTTP)"
        self.add("--tls-cert", "MUSTER_ALLOCATOR_TLS_CERT", type=Path, metavar="PATH", help=text)
        self.add("--tls-key", "MUSTER_ALLOCATOR_TLS_KEY", type=Path, metavar="PATH", help="see --tls-cert")
        text = "whom a user's token has to be made for (default: the API server's own audience)"
        self.add("--audience", "MUSTER_ALLOCATOR_AUDIENCE", default="", metavar="NAME", help=text)
        text = f"users who may do everything to every instance; {GROUP}NAME for all of a group (default: nobody)"
        self.add("--global-admins", "MUSTER_ALLOCATOR_GLOBAL_ADMINS", default="", metavar="NAMES", help=text)
        return self

    def shown_sample(self) -> Self:
        self.begin("whose objects are shown")
        self.add_plain("--user", default=SAMPLE, metavar="NAME", help=f"default: {SAMPLE}")
        text = "a parameter's value; can be given several times (default: the template's, or one that fits)"
        self.add_plain("--param", action="append", default=[], metavar="NAME=VALUE", help=text)
        self.add_plain("--namespace", default="default", metavar="NAME", help="default: default")
        text = "yaml or json (default: yaml)"
        self.add_plain("-o", "--output", choices=("yaml", "json"), default="yaml", help=text)
        self.add_plain("template", type=Path, metavar="TEMPLATE", help="its file")
        return self

    def add(self, flag: str, variable: str, *, help: str, many: Any = None, **settings: Any) -> None:
        """Users are served where --listen says; the frame's own pages are where --health-listen says.

        All instances are of one namespace, so they are shared out one by one.
        """
        if flag == "--listen" and "dest" not in settings:
            flag, variable, settings["dest"] = "--health-listen", "MUSTER_HEALTH_LISTEN", "listen"
        elif flag == "--shard-by":
            settings["default"], help = "object", help.replace("(default: namespace)", "(default: object)")
        elif flag == "--watch-namespace":
            help = "where its instances are (default: its own namespace)"
        super().add(flag, variable, help=help, many=many, **settings)

    def _flag(self, flag: str, variable: str, help: str, **settings: Any) -> None:
        action = argparse.BooleanOptionalAction
        self.add(flag, variable, action=action, type=_is_true, default=False, help=help, **settings)


def _is_true(text: str) -> bool:
    if text.lower() not in ("true", "1", "yes", "false", "0", "no"):
        raise ValueError(text)
    return text.lower() in ("true", "1", "yes")


# ---------------------------------------------------------------------------------------------------------------------
# check


def _check(args: argparse.Namespace) -> int:
    text = read_file(args.template)
    template, notes = read_template(text, args.template.name, imports=args.imports, repair=args.repair)
    for note in notes:
        print(f"muster: imported: {note}", file=sys.stderr)
    offer = _maker(args)(template)
    check_template(template, offer.policy)
    made = sample(offer, args.namespace, args.user, _given(args.param, template))
    if made is None:
        raise WrongUsage("a parameter has no default, and no value could be guessed: give it by --param NAME=VALUE")
    objects = made["spec"]["manifest"]
    print(json.dumps(objects, indent=2) if args.output == "json" else _yaml(objects))
    return 0


def _given(listed: list[str], template: Template) -> dict[str, Any]:
    values = {}
    for each in listed:
        name, _equals, text = each.partition("=")
        if name not in template.parameters or not _equals:
            known = ", ".join(sorted(template.parameters)) or "none"
            raise WrongUsage(f"--param is {each!r}: give NAME=VALUE; the template's parameters are: {known}")
        values[name] = from_text(template.parameters[name], text, f"parameters.{name}")
    return values


def _yaml(objects: list[dict[str, Any]]) -> str:
    import yaml

    text: str = yaml.safe_dump_all(objects, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


# ---------------------------------------------------------------------------------------------------------------------
# run


def _maker(args: argparse.Namespace) -> Make:
    """An offer, as the options say. Raises Malformed."""
    policy = Policy(
        pod_security=args.pod_security,
        kinds=parse_kinds(args.allowed_kinds, "allowed-kinds") if args.allowed_kinds else KINDS,
        service_accounts=frozenset(_names(args.allowed_service_accounts)),
        secrets=frozenset(_names(args.allowed_secrets)),
        config_maps=frozenset(_names(args.allowed_config_maps)),
        disks=frozenset(_names(args.allowed_disks)),
        max_replicas=args.max_replicas,
    )

    def make(template: Template) -> Offer:
        return make_offer(
            name=args.name,
            server_name=args.server_name or args.name,
            template=template,
            policy=policy,
            max_instances=getattr(args, "max_instances", 10),
            max_instances_per_user=getattr(args, "max_instances_per_user", 1),
            disk_size=parse_size(args.server_disk_size, "server-disk-size"),
            storage_class=args.storage_class,
            administrators=tuple(_names(getattr(args, "global_admins", ""))),
            warm=getattr(args, "warm", 0),
            mount_prefix=args.mount_prefix,
        )

    return make


def _names(text: str) -> list[str]:
    return [name for each in text.split(",") if (name := each.strip())]


def _run(args: argparse.Namespace) -> int:
    process.set_up_logs(args.log_format, args.verbose)
    if args.deployment_template is None:
        raise WrongUsage("--deployment-template is missing: give the template's file")
    if bool(args.tls_cert) != bool(args.tls_key):
        raise WrongUsage("--tls-cert and --tls-key go together: give both, or none")
    api, connected = connect(args, connections=CONNECTIONS)
    return Service(args, api, own_namespace(args, connected, os.environ)).run()


class Service:
    """All parts of the process, as the options say. Raises Malformed, RefusedByCluster, ApiError."""

    def __init__(self, args: argparse.Namespace, api: Api, namespace: str) -> None:
        """`namespace` is its own, where its Lease is; instances may be in another one, --watch-namespace."""
        args.watch_namespace = args.watch_namespace or namespace
        self._args, self._api, self._where = args, api, args.watch_namespace
        settings = {"imports": args.imports, "repair": args.repair}
        self.offering = Offering(self._allocator, args.deployment_template, _maker(args), **settings)
        self.allocator = self.offering.allocator
        self.offering.begin()
        self.controller = self._controller(namespace)
        self.rounds = self._rounds()

    def run(self) -> int:
        """Until a signal ends it; the exit status."""
        from muster.allocator.auth import Reviewer
        from muster.allocator.server import Server

        args, cache = self._args, self.controller.cache
        server = Server(
            args.users_listen,
            self.allocator,
            Reviewer(self._api, args.audience),
            lambda: list(cache.items()),
            registry=self.controller.registry,
            tls=(args.tls_cert, args.tls_key) if args.tls_cert else None,
            is_ready=lambda: cache.synced.is_set() and not cache.trouble,
        )
        self.controller.vital.append(lambda: server.is_alive)
        self.controller.told.append(lambda key: server.changed(key, cache.by_key(key)))
        process.say(logging.INFO, "serves users", users_port=server.port)
        for each in self.rounds:
            each.start()
        self.offering.start(self._wake)
        try:
            return self.controller.run()
        finally:
            self.offering.stop()
            for each in self.rounds:
                each.stop()
            server.close()

    def _allocator(self, offer: Offer) -> Allocator:
        return Allocator(self._api, self._where, offer, known=lambda: self.controller.cache.items())

    def _controller(self, namespace: str) -> Controller:
        args, allocator = self._args, self.allocator
        looked_after: list[Instances] = []

        def reconcile(events: Events) -> Reconcile:
            looked_after.append(Instances(self._api, allocator.ledgers, events.tell))
            return looked_after[0].reconcile

        def noticed(key: str) -> None:
            looked_after[0].noticed(key)

        made = controller(
            args,
            self._api,
            namespace,
            INSTANCES,
            reconcile,
            "muster-allocator",
            label_selector=f"{MEMBER}={args.name}",
            beside=beside(self._api, self._where, args.name, allocator.offer.policy.kinds, noticed),
        )
        made.told.append(lambda _key: self._wake())
        return made

    def _rounds(self) -> list[Round]:
        """What the replica does that has the total's key."""
        allocator, cache = self.allocator, self.controller.cache
        kinds = [resource_of(*each) for each in sorted(allocator.offer.policy.kinds)]
        sweeper = Sweeper(self._api, allocator.ledgers, self._where, self._args.name, kinds)
        warm = Warm(allocator, lambda: list(cache.items()))
        authority, key = self.controller.authority, f"{self._where}/{total_name(self._args.name)}"

        def keep(term: Term) -> None:
            if cache.synced.is_set():  # else it would look as if there were none
                warm.keep(term)

        self._warm = Round("warm", authority, key, keep, WARM_SECONDS)
        return [Round("sweep", authority, key, sweeper.sweep, SWEEP_SECONDS), self._warm]

    def _wake(self) -> None:
        """Something is another way: perhaps one of the pool is missing."""
        if self.allocator.offer.warm:
            self._warm.wake()

# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`muster partitions`: for people. Who has which keys, once or live, and split, merge and move by hand."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import LEASES
from ansible_collections.muster.coordination.plugins.module_utils.decisions import keyspace
from ansible_collections.muster.coordination.plugins.module_utils.decisions.keyspace import Range
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError
from ansible_collections.muster.coordination.plugins.module_utils.verbs import partitions as verbs
from ansible_collections.muster.coordination.plugins.module_utils.verbs.partitions import Known, Request
from muster.live import Source
from muster.options import Call, Options, WrongUsage, command, connect, system
from muster.table import terminal_width

ARGUMENTS: Final = {  # what decisions call something, and how it is given here
    "splitKey": "--at",
    "to": "WORKER",
    "name": "PARTITION",
    "partition": "PARTITION",
    "partitions": "PARTITION ...",
    "range": "--from and --to",
    "start": "--from",
    "end": "--to",
    "key": "KEY",
    "assignment": "OPERATION",
    "key_space": "--key-space",
}
BREATH: Final = 0.25  # seconds between two looks of --watch: every renewal of a Lease is a reason

PARTITIONS = """\
A key space in ranges, each served by one worker.

  list     who has which keys, and what goes on: once, or live
  who      which partition has a key
  split    cut a partition in two, at its worker
  merge    make one of partitions that lie side by side, at one worker
  move     have another worker serve a partition
  new      have a worker serve a partition that nobody serves yet
  abort    have an operation undone that is not committed yet
  explain  why a partition is where it is, and what holds it up

`muster partitions COMMAND --help` says more.
"""

LIST = """\
The key spaces of a namespace, or one of them: a picture of all keys, and below
it the workers, the operations that go on, and the ranges. It only reads.
"""

LIST_EPILOG = """\
examples:
  muster partitions list -n partitions
  muster partitions list default -n partitions --watch
  muster partitions list -n partitions -o json | jq '.[0].partitions[].primary'

the picture:
  Each letter is a worker; a partition is as wide as its share of the keys.
  ·  nobody serves it        !  it is being handed over        blank  a gap

exit status:
  0  shown
  1  there is no such KeySpace, or it failed
  2  wrong usage
"""

WHO = """\
Which partition has a key, and which worker serves it.
"""

SPLIT = """\
Cut a partition in two, which its worker keeps. Clients need not know.
"""

SPLIT_EPILOG = """\
examples:
  muster partitions split part1 --at g
  muster partitions split --at g           in whichever partition g is
  muster partitions split part1            in the middle of its possible keys

"""

MERGE = """\
Make one partition of several that lie side by side, and that one worker has.
"""

MERGE_EPILOG = """\
examples:
  muster partitions merge part1 part2
  muster partitions merge --from a --to o  all that are in [a, o)

"""

MOVE = """\
Have another worker serve a partition, with all its data.
"""

NEW = """\
Have a worker serve a partition that nobody serves yet. It begins empty.
"""

ABORT = """\
Have an operation undone. What is committed can't be: ask for the way back.
"""

EXPLAIN = """\
Why a partition is where it is: what is seen of it and of its worker, which
operation is about it and what that waits for, and, with --assigner, what the
assigner thinks.
"""

EXPLAIN_EPILOG = """\
examples:
  muster partitions explain part1
  kubectl port-forward deployment/partition-assigner 8378 &
  muster partitions explain part1 --assigner http://127.0.0.1:8378

"""

STATUS = """\
exit status:
  0  done, or it is so already
  1  it was refused, was aborted, or failed; the message says why
  2  wrong usage
"""


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the commands."""
    commands = system(systems, "partitions", PARTITIONS)

    def add_command(name: str, call: Call, text: str, epilog: str, arguments: str) -> _Options:
        made = command(commands, f"muster partitions {name}", _by_argument(call), text, epilog, arguments)
        return _Options(made, environ)

    add_command("list", _list, LIST, LIST_EPILOG, "[KEY_SPACE]").positional("space", nargs="?").looking().where()
    add_command("who", _who, WHO, STATUS, "KEY").positional("key").output("text", "json").of_space().where()
    split = add_command("split", _split, SPLIT, SPLIT_EPILOG + STATUS, "[PARTITION]")
    split.positional("partition", nargs="?").splitting().asking().of_space().where()
    merge = add_command("merge", _merge, MERGE, MERGE_EPILOG + STATUS, "[PARTITION ...]")
    merge.positional("partition", nargs="*").merging().asking().of_space().where()
    move = add_command("move", _move, MOVE, STATUS, "PARTITION WORKER")
    move.positional("partition").positional("worker").asking().of_space().where()
    new = add_command("new", _new, NEW, STATUS, "PARTITION WORKER")
    new.positional("partition").positional("worker").asking().of_space().where()
    add_command("abort", _abort, ABORT, STATUS, "OPERATION").positional("operation").where()
    explain = add_command("explain", _explain, EXPLAIN, EXPLAIN_EPILOG + STATUS, "PARTITION")
    explain.positional("partition").assigner().of_space().where()


register = add


def _by_argument(call: Call) -> Call:
    """Name in errors what was given at the command line."""

    def run(args: argparse.Namespace) -> int:
        try:
            return call(args)
        except Malformed as error:
            raise Malformed(ARGUMENTS.get(error.field, error.field), error.value, error.remedy) from None

    return run


class _Options(Options):
    def positional(self, name: str, **more: Any) -> Self:
        self.add_plain(name, metavar=name.upper(), help=argparse.SUPPRESS, **more)
        return self

    def looking(self) -> Self:
        self.begin("how to show them")
        self.add_plain("-w", "--watch", action="store_true", help="live, until Ctrl-C: shows each change as it comes")
        return self.output("table", "json", "yaml")

    def output(self, *choices: str) -> Self:
        self.add_plain("-o", "--output", choices=choices, default=choices[0], help="default: %(default)s")
        return self

    def splitting(self) -> Self:
        self.begin("where")
        text = "where the second part begins (default: the middle of its possible keys)"
        self.add_plain("--at", metavar="KEY", help=text)
        return self

    def merging(self) -> Self:
        self.begin("in place of names")
        self.add_plain("--from", dest="start", metavar="BOUND", help='where the range begins; "" is the lowest key')
        self.add_plain("--to", dest="end", metavar="BOUND", help='where it ends; "" is above all keys')
        return self

    def asking(self) -> Self:
        self.begin("how")
        text = "only ask for it, and do not wait until it is completed"
        self.add_plain("--no-wait", dest="wait", action="store_false", help=text)
        text = "seconds to wait (default: 300); what was asked for goes on"
        self.add_plain("--timeout", type=_seconds, default=300.0, metavar="SECONDS", help=text)
        self.add_plain("--dry-run", action="store_true", help="only tell what would be asked for")
        return self.output("text", "json")

    def of_space(self) -> Self:
        self.begin("which key space")
        text = "its name (default: default)"
        self.add("--key-space", "MUSTER_KEY_SPACE", default=keyspace.DEFAULT_SPACE, metavar="NAME", help=text)
        return self

    def where(self) -> Self:
        self.cluster()
        self.add_plain("-n", dest="namespace", metavar="NAME", default=argparse.SUPPRESS, help="short for --namespace")
        return self

    def assigner(self) -> Self:
        self.begin("whom to ask")
        text = "where the assigner listens, such as http://127.0.0.1:8378"
        self.add("--assigner", "MUSTER_ASSIGNER", metavar="URL", help=text)
        return self.output("text", "json")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 86400:
        raise ValueError(text)
    return seconds


# ---------------------------------------------------------------------------------------------- looking


def _list(args: argparse.Namespace) -> int:
    from muster.dstk import picture

    api, namespace = connect(args)

    def look() -> list[dict[str, Any]]:
        return verbs.look(api, namespace, args.space)

    if args.watch:
        if args.output == "yaml":
            raise WrongUsage("--watch shows a table, or with -o json lines of JSON")
        from muster.live import watch

        live = picture.Spaces(f"namespace {namespace}", picture.has_colours(sys.stdout))
        return watch(api, _sources(namespace), look, live, as_json=args.output == "json", out=sys.stdout, breath=BREATH)
    found = look()
    if args.output != "table":
        print(_written(found, args.output))
        return 0
    if not found:
        which = f"KeySpace {args.space}" if args.space else "KeySpace"
        raise MusterError(f"there is no {which} in namespace {namespace}: name another, or another --namespace")
    print(picture.spaces_text(found, terminal_width(sys.stdout), colours=picture.has_colours(sys.stdout)))
    return 0


def _sources(namespace: str) -> list[Source]:
    kinds = (verbs.KEY_SPACES, verbs.PARTITIONS, verbs.ASSIGNMENTS)
    told: list[Source] = [{"resource": kind, "namespace": namespace} for kind in kinds]
    return [*told, {"resource": LEASES, "namespace": namespace, "label_selector": verbs.LABEL}]


def _written(found: Any, form: str) -> str:
    if form == "json":
        return json.dumps(found, indent=2)
    import yaml

    return str(yaml.safe_dump(found, sort_keys=False, allow_unicode=True)).rstrip("\n")


def _who(args: argparse.Namespace) -> int:
    from muster.dstk.picture import partition_text

    api, namespace = connect(args)
    found = verbs.look(api, namespace, args.key_space, args.key)
    if not found:
        verbs.read_space(api, namespace, args.key_space)  # says what is missing
    space = found[0]
    if space["error"]:
        raise MusterError(space["error"])
    owner = space["owner"]
    if owner is None:
        raise MusterError(f"no partition of KeySpace {args.key_space} has the key {args.key}: it is in a gap")
    print(_written(owner, "json") if args.output == "json" else partition_text(owner))
    return 0


# ---------------------------------------------------------------------------------------------- asking


def _split(args: argparse.Namespace) -> int:
    if args.partition is None and args.at is None:
        raise WrongUsage("name the partition, or give --at, or both")

    def want(known: Known) -> Request:
        return verbs.want_split(known, args.partition, _middle(known, args.partition) if args.at is None else args.at)

    return _ask(args, want)


def _middle(known: Known, name: str) -> str:
    fact = next((fact for fact in known.view.facts if fact.partition == name), None)
    if fact is None:
        raise Malformed("PARTITION", name, "there is no such Partition; it may have been split or merged")
    return keyspace.middle(known.space, fact.range)


def _merge(args: argparse.Namespace) -> int:
    has_range = args.start is not None or args.end is not None
    if bool(args.partition) == has_range:
        raise WrongUsage("name the partitions, or give --from and --to")
    whole = Range(args.start or "", args.end or "") if has_range else None
    return _ask(args, lambda known: verbs.want_merge(known, args.partition, whole))


def _move(args: argparse.Namespace) -> int:
    return _ask(args, lambda known: verbs.want_move(known, args.partition, args.worker))


def _new(args: argparse.Namespace) -> int:
    def want(known: Known) -> Request:
        request = verbs.want_move(known, args.partition, args.worker)
        served = request.before[0].primary
        if served and served != args.worker:
            raise Malformed("PARTITION", args.partition, f"worker {served} serves it: move it in place of that")
        return request

    return _ask(args, want)


def _ask(args: argparse.Namespace, want: Callable[[Known], Request]) -> int:
    from muster.allocator.client_picture import Waiting
    from muster.dstk.picture import done_text

    api, namespace = connect(args)
    deadline = time.monotonic() + args.timeout
    known = verbs.read(api, namespace, args.key_space)
    request = want(known)
    if request.target:
        verbs.check_worker(api, namespace, known, request.target)
    with Waiting(sys.stderr) as waiting:
        until = deadline if args.wait else None
        done = verbs.carry_out(api, namespace, known, request, until, args.dry_run, waiting.tell)
    if args.output == "json":
        print(_written(done, "json"))
    elif args.dry_run and done["changed"]:
        print("\n".join(["it would be asked for:", *(f"  {whole} at {who}" for whole, who in done["after"].items())]))
    else:
        print(done_text(done))
    return 0


def _abort(args: argparse.Namespace) -> int:
    from muster.dstk.picture import about

    api, namespace = connect(args)
    operation = verbs.abort(api, namespace, args.operation)
    print(f"{operation['name']}: {about(operation)}: it is being undone")
    return 0


# ---------------------------------------------------------------------------------------------- why


def _explain(args: argparse.Namespace) -> int:
    from muster.dstk.picture import explanation_text

    api, namespace = connect(args)
    found = verbs.look(api, namespace, args.key_space)
    if not found:
        verbs.read_space(api, namespace, args.key_space)  # says what is missing
    told = explained(found[0], args.partition)
    if args.assigner:
        query = {"partition": args.partition, "keySpace": f"{namespace}/{args.key_space}"}
        told["assigner"] = fetch(f"{args.assigner.rstrip('/')}/explain", query)
    print(_written(told, "json") if args.output == "json" else explanation_text(told, time.time()))
    return 0


def explained(space: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What is seen of a partition. Raises Malformed where there is none of that name in the view."""
    partition = next((each for each in space["partitions"] if each["name"] == name), None)
    if partition is None:
        remedy = "it counts no more: it was split or merged" if name in space["void"] else "there is no such Partition"
        raise Malformed("name", name, remedy)
    return {
        "partition": partition,
        "worker": next((each for each in space["workers"] if each["name"] == partition["primary"]), None),
        "operation": next((each for each in space["operations"] if each["name"] == partition["operation"]), None),
        "queued": [
            each
            for each in space["operations"]
            if name in each["partitions"] and each["name"] != partition["operation"]
        ],
        "aborted": [each for each in space["aborted"] if name in each["partitions"]],
        "assigner": None,
    }


def fetch(page: str, query: Mapping[str, str]) -> dict[str, Any]:
    """What a page of the assigner says. Raises MusterError."""
    import urllib3
    from urllib3.exceptions import HTTPError

    try:
        answer = urllib3.PoolManager(retries=False, timeout=10.0).request("GET", page, fields=dict(query))
        told = json.loads(answer.data)
    except (HTTPError, ValueError) as error:
        raise MusterError(f"{page} does not answer: {error}; is it an assigner's address?") from error
    if not isinstance(told, dict) or answer.status != 200:
        why = told.get("error") if isinstance(told, dict) else told
        raise MusterError(f"{page} answers {answer.status}: {why}")
    return told

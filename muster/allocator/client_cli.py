# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `allocator`, also `muster allocator`: for users of an allocator, at a terminal and in scripts.

Standard output has what was asked for and nothing else; what goes on meanwhile is told on standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from ansible_collections.muster.coordination.plugins.module_utils.client.allocator import (
    AllocatorClient,
    Change,
    KubernetesToken,
    Later,
    NoAnswer,
    Put,
    Removed,
    Snapshot,
    Token,
    Trouble,
    parse_url,
    tls_of,
    token_in,
    token_of,
)
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials, CredentialsError
from ansible_collections.muster.coordination.plugins.module_utils.decisions.allocator import (
    Busy,
    NotThere,
    QuotaSpent,
    check_key,
)
from ansible_collections.muster.coordination.plugins.module_utils.errors import Malformed, MusterError, TimedOut
from ansible_collections.muster.coordination.plugins.module_utils.verbs.allocator_modules import await_phase, typed
from muster.live import Lines, Screen
from muster.options import Help, Options, Version, WrongUsage, command
from muster.table import plain, terminal_width

ALLOCATOR = """\
Your own instances of a service, from an allocator.

  create                    have an instance made: prints its name
  destroy                   have it destroyed
  list, get                 what you have, and what others share with you
  suspend, resume, reset    take its Pods away, give them back, empty its disks
  events                    what the cluster has to say about it
  disks                     disks that you have kept
  offer                     what you can have, and with which parameters
  completion                for bash, zsh and fish

`{prog} COMMAND --help` says more.
"""

EPILOG = """\
Which allocator: a URL, or in a Pod also the name of its Service, or
NAME.NAMESPACE. Elsewhere: kubectl port-forward service/NAME 8400, and
http://127.0.0.1:8400.

Who you are: a bearer token, out of --token-file, or of the variable
ALLOCATOR_TOKEN, or the one of the kubeconfig, or of the Pod. The latter two are
made for the API server; an allocator may want one that is made for it:
kubectl create token SERVICEACCOUNT --audience AUDIENCE. The kubeconfig's token
is sent by https:// only, or to this host.

"""

STATUS = """\
exit status:
  0    done
  1    it was refused, or failed; the message says why
  2    wrong usage
  3    no place is free: you have as many instances as you may, or all have
  4    there is no such instance or disk that you may see
  5    --timeout passed; what was asked for stays, and goes on
  130  ended by Ctrl-C
"""

CREATE = """\
Have an instance made. Its name, and nothing else, goes to standard output.
"""

CREATE_EPILOG = """\
examples:
  {prog} create
  name=$({prog} create --param size=3 --wait)
  {prog} create --share-with group:developers --storage retain
  {prog} create --key ci-4711   the same one each time

A key is your word for the instance: with the same key and the same options you
get the same instance. Where you give none, one is made up; if the answer is
lost, it is told, so that you can go on with it.

"""

DESTROY = """\
Have an instance destroyed, with its disks or without them.
"""

LIST = """\
The instances that you have, and those that others share with you.
"""

GET = """\
One instance.
"""

SUSPEND = """\
Have the Pods of an instance taken away. Its disks stay.
"""

RESUME = """\
Have the Pods of a suspended instance made again.
"""

RESET = """\
Have an instance begin anew: its disks are deleted, and made again.
"""

EVENTS = """\
What the cluster has to say about an instance and its Pods. The newest is first.
"""

DISKS = """\
The disks that you have kept. `disks remove DISK` deletes one for good.
"""

OFFER = """\
What you can have, how much of it you have, and which parameters there are.
"""

COMPLETION = """\
A script for your shell, which completes commands, options, and the names of
instances, disks and parameters.
"""

COMPLETION_EPILOG = """\
examples:
  source <({prog} completion bash)             in ~/.bashrc
  source <({prog} completion zsh)              in ~/.zshrc, after compinit
  {prog} completion fish | source              in config.fish

"""

PORT: Final = 8400  # of an allocator's Service
QUOTA, NOT_THERE, IN_VAIN, INTERRUPTED = 3, 4, 5, 130
Call = Callable[[argparse.Namespace, AllocatorClient], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command `allocator`; its exit status."""
    parser = argparse.ArgumentParser(
        prog="allocator",
        usage="allocator [options] COMMAND [options]",
        description=ALLOCATOR.format(prog="allocator"),
        epilog=EPILOG + STATUS,
        formatter_class=Help,
    )
    parser.add_argument("--version", action=Version)
    _fill(parser, "allocator", os.environ)
    args = parser.parse_args(argv)
    status: int = args.call(args)
    return status


def add(systems: Any, environ: Mapping[str, str]) -> None:
    """Add the same as `muster allocator`."""
    whole = "muster allocator"
    parser = systems.add_parser(
        "allocator",
        usage=f"{whole} [options] COMMAND [options]",
        description=ALLOCATOR.format(prog=whole),
        epilog=EPILOG + STATUS,
        formatter_class=Help,
    )
    _fill(parser, whole, environ)


def _fill(parser: argparse.ArgumentParser, prog: str, environ: Mapping[str, str]) -> None:
    """Options may stand before the command and after it; the latter win."""
    _Options(parser, environ).where()
    commands = parser.add_subparsers(required=True, prog=prog, metavar="COMMAND", help=argparse.SUPPRESS)

    def add_command(name: str, call: Call, text: str, epilog: str = "", arguments: str = "") -> _Options:
        epilog = epilog.format(prog=prog) + STATUS
        made = command(commands, f"{prog} {name}", _guarded(call, prog, environ), text, epilog, arguments)
        return _Options(made, {}, is_inner=True)

    add_command("create", _create, CREATE, CREATE_EPILOG).wish().waiting().output("name", "json").where()
    add_command("destroy", _destroy, DESTROY, arguments="NAME").named().keeping().waiting().where()
    add_command("list", _list, LIST).listing().where()
    add_command("get", _get, GET, arguments="NAME").named().output("text", "json").where()
    add_command("suspend", _suspend, SUSPEND, arguments="NAME").named().waiting().where()
    add_command("resume", _resume, RESUME, arguments="NAME").named().waiting().where()
    add_command("reset", _reset, RESET, arguments="NAME").named().waiting().where()
    add_command("events", _events, EVENTS, arguments="NAME").named().output("table", "json").where()
    add_command("disks", _disks, DISKS, arguments="[remove DISK]").disks().output("table", "json", "name").where()
    add_command("offer", _offer, OFFER).output("text", "json", "name").where()
    script = command(
        commands,
        f"{prog} completion",
        lambda args: _completion(args, parser),
        COMPLETION,
        COMPLETION_EPILOG.format(prog=prog) + STATUS,
        "SHELL",
    )
    _Options(script, {}, is_inner=True).shells()


class _Options(Options):
    def __init__(self, parser: argparse.ArgumentParser, environ: Mapping[str, str], *, is_inner: bool = False) -> None:
        super().__init__(parser, environ)
        self._is_inner = is_inner  # behind a command: what is not given there is as it was before it

    def where(self) -> Self:
        self.begin("which allocator, and who you are")
        self._place("--allocator", "ALLOCATOR", "URL", "its URL; in a Pod also its Service's name")
        text = "a bearer token; it is read again when it is refused"
        self._place("--token-file", "ALLOCATOR_TOKEN_FILE", "PATH", text)
        self._place("--ca-file", "ALLOCATOR_CA_FILE", "PATH", "who issued its certificate (default: whom all trust)")
        self._place("--kubeconfig", "KUBECONFIG", "PATH", "whose token is used where no other is given")
        self._place("--context", "K8S_AUTH_CONTEXT", "NAME", "context of the kubeconfig")
        self._place("--namespace", "MUSTER_NAMESPACE", "NAME", "of an allocator's Service (default: the Pod's own)")
        text = "seconds in which what had no answer is tried again (default: 10; create: 60)"
        self._place("--patience", "ALLOCATOR_PATIENCE", "SECONDS", text, type=_seconds)
        return self

    def _place(self, flag: str, variable: str, metavar: str, help: str, **settings: Any) -> None:
        if self._is_inner:
            settings["default"] = argparse.SUPPRESS
        self.add(flag, variable, metavar=metavar, help=help, **settings)

    def wish(self) -> Self:
        self.begin("what you want")
        text = "a parameter's value; can be given several times"
        self.add_plain("--param", action="append", default=[], metavar="NAME=VALUE", help=text)
        text = "your word for it: the same again is the same instance (default: one is made up)"
        self.add_plain("--key", metavar="TEXT", help=text)
        self.add_plain("--attach", metavar="DISK", help="a disk that you have kept, to be its own")
        text = "what becomes of its disks when it is destroyed (default: delete)"
        self.add_plain("--storage", choices=("delete", "retain"), help=text)
        text = "user:NAME or group:NAME, who may see, suspend and resume it; can be given several times"
        self.add_plain("--share-with", action="append", default=[], metavar="WHO", help=text)
        self.add_plain("--dry-run", action="store_true", help="only look whether it could be made, and print the name")
        return self

    def waiting(self) -> Self:
        self.begin("waiting")
        self.add_plain("--wait", action="store_true", help="wait until it is done")
        text = "seconds to wait (default: 300)"
        self.add_plain("--timeout", type=_seconds, default=300.0, metavar="SECONDS", help=text)
        return self

    def keeping(self) -> Self:
        self.begin("its disks")
        text = "whatever was said when it was made: keep them, or delete them"
        group = self.parser.add_mutually_exclusive_group()
        group.add_argument("--keep-disk", dest="storage", action="store_const", const="retain", help=text)
        group.add_argument(
            "--delete-disk", dest="storage", action="store_const", const="delete", help=argparse.SUPPRESS
        )
        return self

    def listing(self) -> Self:
        self.begin("how to show them")
        self.add_plain("-l", "--long", action="store_true", help="with owner, parameters and endpoints")
        self.add_plain("-w", "--watch", action="store_true", help="live, until Ctrl-C: shows each change as it comes")
        self.add_plain("--all", dest="everything", action="store_true", help="those of all users, for administrators")
        return self.output("table", "json", "name")

    def output(self, *choices: str) -> Self:
        self.add_plain("-o", "--output", choices=choices, default=choices[0], help="default: %(default)s")
        return self

    def named(self) -> Self:
        self.add_plain("name", metavar="NAME", help=argparse.SUPPRESS)
        return self

    def disks(self) -> Self:
        self.add_plain("action", nargs="?", choices=("remove",), help=argparse.SUPPRESS)
        self.add_plain("disk", nargs="?", metavar="DISK", help=argparse.SUPPRESS)
        return self

    def shells(self) -> Self:
        from muster.allocator.client_completion import SHELLS

        self.add_plain("shell", choices=SHELLS, metavar="SHELL", help=argparse.SUPPRESS)
        return self


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 86400:
        raise ValueError(text)
    return seconds


# ---------------------------------------------------------------------------------------------------------------------
# Which allocator, and who we are


def _guarded(call: Call, prog: str, environ: Mapping[str, str]) -> Callable[[argparse.Namespace], int]:
    """The command with a client, and with an exit status for each way in which it may end."""

    def run(args: argparse.Namespace) -> int:
        args.prog = prog
        try:
            client = _connect(args, environ)
            try:
                return call(args, client)
            finally:
                client.close()
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            with suppress(OSError):  # nobody reads it: nor shall Python complain when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except MusterError as error:
            _say(plain(str(error)))
            return status_of(error)

    return run


def status_of(error: MusterError) -> int:
    """The exit status that stands for it."""
    kinds: dict[type[MusterError], int] = {QuotaSpent: QUOTA, NotThere: NOT_THERE, TimedOut: IN_VAIN, WrongUsage: 2}
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), 1)


def _connect(args: argparse.Namespace, environ: Mapping[str, str]) -> AllocatorClient:
    url = resolve(args.allocator, args.namespace, environ)
    patience = args.patience if args.patience is not None else 60.0 if hasattr(args, "share_with") else 10.0
    told: list[str] = []

    def tell(text: str) -> None:
        if text not in told:
            told.append(text)
            _say(f"{plain(text)}; trying again")

    token = token_from(args, environ)
    timeout = min(15.0, max(2.0, patience))
    return AllocatorClient(url, token, tls=tls_of(args.ca_file), timeout=timeout, patience=patience, tell=tell)


def resolve(text: str | None, namespace: str | None, environ: Mapping[str, str]) -> str:
    """The URL of an allocator: as it is given, or of the Service of that name. Raises MusterError."""
    if not text:
        raise WrongUsage("--allocator is missing: give the allocator's URL (or the variable ALLOCATOR)")
    if "://" in text:
        return parse_url(text, "--allocator")
    name, _dot, of = text.partition(".")
    of = of.removesuffix(".svc") or namespace or ""
    for part in (name, *([of] if of else [])):
        if not part.replace("-", "").isalnum() or not part.isascii() or len(part) > 63:
            raise Malformed("--allocator", text, "give a URL, or in a Pod the name of a Service, or NAME.NAMESPACE")
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return f"http://{name}.{of}.svc:{PORT}" if of else f"http://{name}:{PORT}"
    forward = f"kubectl port-forward service/{name} {PORT}{f' -n {of}' if of else ''}"
    raise Malformed(
        "--allocator", text, f"only Pods know Services by name; run `{forward}` and give http://127.0.0.1:{PORT}"
    )


def token_from(args: argparse.Namespace, environ: Mapping[str, str]) -> Token:
    """What says who we are: the first there is. Raises CredentialsError."""
    if args.token_file:
        return token_in(args.token_file)
    if environ.get("ALLOCATOR_TOKEN"):
        return token_of(environ["ALLOCATOR_TOKEN"], "the variable ALLOCATOR_TOKEN")
    try:
        login = {"kubeconfig": args.kubeconfig, "context": args.context}
        return KubernetesToken(Credentials.load(login, environ))
    except CredentialsError as error:
        if args.kubeconfig or args.context:
            raise
        raise CredentialsError(f"no token: give --token-file or the variable ALLOCATOR_TOKEN ({error})") from None


def _say(text: str) -> None:
    print(f"allocator: {text}", file=sys.stderr, flush=True)


# ---------------------------------------------------------------------------------------------------------------------
# Commands


def _create(args: argparse.Namespace, client: AllocatorClient) -> int:
    wish = _wish(args, client)
    key = check_key(args.key) if args.key is not None else uuid.uuid4().hex
    again = f"`{args.prog} create --key {_shell(key)}` with the same options goes on with it"
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        made = client.create(key, wish, dry_run=args.dry_run)
    except KeyboardInterrupt:
        if not args.dry_run:
            _say(f"interrupted; perhaps it was made, perhaps not: {again}")
        return INTERRUPTED
    except (NoAnswer, Later, Busy) as error:
        if args.dry_run:
            raise
        _say(f"{plain(str(error))}; {again}")
        return status_of(error)
    instance = made.instance
    if args.output == "name":
        print(instance["name"], flush=True)
    if args.dry_run:
        _say(f"nothing was made: {instance['name']} {'could be' if made.is_new else 'is there already'}")
    elif not made.is_new:
        _say(f"{instance['name']} was there already, by this key")
    if args.wait and not args.dry_run:
        instance = _wait(args, client, instance["name"], "Ready") or instance
    if args.output == "json":
        _print_json(instance)
    return 0


def _wish(args: argparse.Namespace, client: AllocatorClient) -> dict[str, Any]:
    """What the options say, as the allocator has it. Raises Malformed."""
    given: dict[str, str] = {}
    for each in args.param:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise WrongUsage(f"--param is {each!r}: give NAME=VALUE")
        if name in given:
            raise WrongUsage(f"--param gives {name} twice: give it once")
        given[name] = text
    access: dict[str, list[str]] = {}
    for each in args.share_with:
        kind, colon, name = each.partition(":")
        if kind not in ("user", "group") or not colon or not name:
            raise WrongUsage(f"--share-with is {each!r}: give user:NAME or group:NAME")
        access.setdefault(f"{kind}s", []).append(name)
    wish: dict[str, Any] = {
        "parameters": typed(client.offer(), given, "--param") if given else {},
        "access": access,
        "storage": args.storage,
        "attach": args.attach,
    }
    return {name: value for name, value in wish.items() if value}


def _destroy(args: argparse.Namespace, client: AllocatorClient) -> int:
    client.destroy(args.name, args.storage)
    if args.wait:
        _wait(args, client, args.name, None)
    return 0


def _suspend(args: argparse.Namespace, client: AllocatorClient) -> int:
    client.suspend(args.name, True)
    if args.wait:
        _wait(args, client, args.name, "Suspended")
    return 0


def _resume(args: argparse.Namespace, client: AllocatorClient) -> int:
    client.suspend(args.name, False)
    if args.wait:
        _wait(args, client, args.name, "Ready")
    return 0


def _reset(args: argparse.Namespace, client: AllocatorClient) -> int:
    before = client.get(args.name)
    after = client.reset(args.name, before["resets"])
    if args.wait:
        goal = "Suspended" if after["suspended"] else "Ready"
        _wait(args, client, args.name, goal, resets=after["resets"])
    return 0


def _wait(
    args: argparse.Namespace, client: AllocatorClient, name: str, goal: str | None, *, resets: int = 0
) -> dict[str, Any] | None:
    """Wait for a phase (None: until it is gone), and show how it gets there."""
    from muster.allocator.client_picture import Waiting

    try:
        with Waiting(sys.stderr) as shown:
            return await_phase(client, name, goal, time.monotonic() + args.timeout, shown.tell, resets=resets)
    except KeyboardInterrupt:
        _say(f"interrupted; what was asked for {name} goes on")
        raise


def _get(args: argparse.Namespace, client: AllocatorClient) -> int:
    from muster.allocator.client_picture import instance_text

    instance = client.get(args.name)
    if args.output == "json":
        _print_json(instance)
    else:
        print(instance_text(instance))
    return 0


def _events(args: argparse.Namespace, client: AllocatorClient) -> int:
    from muster.allocator.client_picture import events_text

    events = client.events(args.name)
    if args.output == "json":
        _print_json(events)
    else:
        print(events_text(events, terminal_width(sys.stdout)))
    return 0


def _disks(args: argparse.Namespace, client: AllocatorClient) -> int:
    from muster.allocator.client_picture import disks_text

    if args.action:
        if not args.disk:
            raise WrongUsage("disks remove: give the name of a disk")
        client.remove_disk(args.disk)
        return 0
    disks = client.disks()
    if args.output == "table":
        print(disks_text(disks, terminal_width(sys.stdout)))
    else:
        _print(disks, args.output)
    return 0


def _offer(args: argparse.Namespace, client: AllocatorClient) -> int:
    from muster.allocator.client_picture import offer_text

    offer = client.offer()
    if args.output == "text":
        print(offer_text(offer, terminal_width(sys.stdout)))
    elif args.output == "json":
        _print_json(offer)
    else:
        _print([{"name": name} for name in sorted(offer["parameters"])], "name")
    return 0


def _list(args: argparse.Namespace, client: AllocatorClient) -> int:
    from muster.allocator.client_picture import instances_text

    if args.watch:
        if args.output == "name":
            raise WrongUsage("--watch goes with -o table and -o json")
        return _watch(args, client)
    found = client.listed(everything=args.everything)
    if args.output == "table":
        print(instances_text(found, terminal_width(sys.stdout), details=args.long))
    else:
        _print(found, args.output)
    return 0


def _print(items: list[dict[str, Any]], output: str) -> None:
    if output == "json":
        _print_json(items)
    for item in items if output == "name" else ():
        print(item["name"])


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _completion(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from muster.allocator.client_completion import script

    sys.stdout.write(script(args.shell, parser))
    return 0


def _shell(text: str) -> str:
    import shlex

    return shlex.quote(text)


# ---------------------------------------------------------------------------------------------------------------------
# Live


def _watch(args: argparse.Namespace, client: AllocatorClient) -> int:
    """Until Ctrl-C or SIGTERM."""
    from muster.allocator.client_picture import Picture

    inbox: queue.SimpleQueue[Change | MusterError] = queue.SimpleQueue()

    def follow() -> None:
        try:
            for change in client.watch(everything=args.everything):
                inbox.put(change)
        except MusterError as error:
            inbox.put(error)

    out, picture, as_json = sys.stdout, Picture(args.long), args.output == "json"
    show: Screen | Lines = Screen(out, picture) if out.isatty() and not as_json else Lines(out, picture, as_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=follow, daemon=True).start()
    instances: dict[str, dict[str, Any]] = {}
    trouble = ""
    with suppress(KeyboardInterrupt), show:
        while True:
            changes = _taken(inbox)
            for change in changes:
                if isinstance(change, MusterError):
                    raise change
                trouble = str(change.error) if isinstance(change, Trouble) else ""
                apply(change, instances)
            if any(not isinstance(change, Trouble) for change in changes):
                show.found([instances[name] for name in sorted(instances)])
            show.draw(trouble)
    return 0


def apply(change: Change, instances: dict[str, dict[str, Any]]) -> None:
    """Have the instances be as they are after the change."""
    match change:
        case Snapshot(items):
            instances.clear()
            instances.update((each["name"], each) for each in items)
        case Put(instance):
            instances[instance["name"]] = instance
        case Removed(instance):
            instances.pop(instance["name"], None)
        case Trouble():
            pass


def _taken(inbox: queue.SimpleQueue[Change | MusterError]) -> list[Change | MusterError]:
    """What there is, as soon as there is something; nothing after a second, for the clock."""
    found: list[Change | MusterError] = []
    with suppress(queue.Empty):
        found.append(inbox.get(timeout=1.0))
        while True:
            found.append(inbox.get_nowait())
    return found


if __name__ == "__main__":
    sys.exit(main())

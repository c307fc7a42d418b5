# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options of all commands have in common: groups, an environment variable for each, and the cluster's own.

A system adds its commands by `command`, and derives from `Options` for the options that only it has.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from ansible_collections.muster.coordination.plugins.module_utils.api import Api
from ansible_collections.muster.coordination.plugins.module_utils.credentials import Credentials
from ansible_collections.muster.coordination.plugins.module_utils.errors import MusterError

Call = Callable[[argparse.Namespace], int]  # runs a command; its exit status


class Options:
    """Adds groups of options, each with its environment variable in the help."""

    def __init__(self, parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        self.parser, self._environ = parser, environ
        self._group: Any = parser

    def cluster(self) -> Self:
        self.begin("which cluster")
        self.add("--kubeconfig", "KUBECONFIG", metavar="PATH", help="credentials; in a Pod its own are used")
        self.add("--context", "K8S_AUTH_CONTEXT", metavar="NAME", help="context of the kubeconfig")
        self.add("--namespace", "MUSTER_NAMESPACE", metavar="NAME", help="default: the Pod's, or the context's own")
        return self

    def shown(self) -> Self:
        self.begin("how to show them")
        self.add_plain("-w", "--watch", action="store_true", help="live, until Ctrl-C: shows each change as it comes")
        text = "a table, or JSON; with --watch a line of JSON for each change (default: %(default)s)"
        self.add_plain("-o", "--output", choices=("table", "json"), default="table", help=text)
        return self

    def logs(self, default: str = "json") -> Self:
        """They stand in the group that was begun last."""
        text = f"of the log, which goes to standard error (default: {default})"
        self.add("--log-format", "MUSTER_LOG_FORMAT", choices=("json", "text"), default=default, help=text)
        self.add_plain("-v", "--verbose", action="store_true", help="log each request of a page, too")
        return self

    def begin(self, title: str) -> None:
        """What is added from now on stands below this title."""
        self._group = self.parser.add_argument_group(title)

    def flag(self, flag: str, variable: str, help: str) -> None:
        """A switch, --FLAG and --no-FLAG, which is off by default."""
        action = argparse.BooleanOptionalAction
        self.add(flag, variable, action=action, type=_boolean, default=False, help=help)

    def add(self, flag: str, variable: str, *, help: str, many: Any = None, **settings: Any) -> None:
        """An option; `many` splits the variable's text into values where the option can be given several times."""
        convert = settings.pop("type", None) if settings.get("action") else settings.get("type")
        text = self._environ.get(variable)
        if text:
            try:
                settings["default"] = (many or convert or str)(text)
            except ValueError:
                self.parser.error(f"the environment variable {variable} is {text!r}: give what {flag} takes")
            if settings["default"] not in settings.get("choices", (settings["default"],)):
                known = ", ".join(settings["choices"])
                self.parser.error(f"the environment variable {variable} is {text!r}: give one of {known}")
        if many:
            settings["action"] = _Several
        self.add_plain(flag, help=f"{help} [{variable}]", **settings)

    def add_plain(self, *flags: str, **settings: Any) -> None:
        """An option without a variable, or what argparse takes besides."""
        self._group.add_argument(*flags, **settings)


def system(systems: Any, name: str, description: str) -> Any:
    """Add a system to the command `muster`; returns what `command` adds its commands to."""
    whole = f"muster {name}"
    parser = systems.add_parser(name, usage=f"{whole} COMMAND [options]", description=description, formatter_class=Help)
    return parser.add_subparsers(required=True, prog=whole, metavar="COMMAND", help=argparse.SUPPRESS)


def command(
    commands: Any, whole: str, call: Call, description: str, epilog: str = "", arguments: str = ""
) -> argparse.ArgumentParser:
    """Add a command, `muster SYSTEM COMMAND`, to what `system` made; `arguments` are shown after its options."""
    usage = f"{whole} [options]{arguments and ' '}{arguments}"
    name = whole.rpartition(" ")[2]
    parser: argparse.ArgumentParser = commands.add_parser(
        name, usage=usage, description=description, epilog=epilog, formatter_class=Help
    )
    parser.set_defaults(call=call)
    return parser


def connect(args: argparse.Namespace, *, connections: int = 4) -> tuple[Api, str]:
    """A client as the options of `cluster` say, and the namespace."""
    credentials = Credentials.load({"kubeconfig": args.kubeconfig, "context": args.context})
    return Api(credentials, connections=connections), args.namespace or credentials.namespace or "default"


class WrongUsage(MusterError):
    """Arguments of which the parser alone can't tell that they don't go together."""


class Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they stand, and columns that suit options of this length."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class Version(argparse.Action):
    """Reads the version only when asked: importing the metadata of packages costs memory in a sidecar."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="show the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_args: Any) -> None:
        from importlib.metadata import version

        print(f"muster {version('muster-coordination')}")
        parser.exit()


class _Several(argparse.Action):
    """Collects the values of an option that can be given several times; the first replaces the default."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, [*([] if before is self.default else before), values])


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError(text)
    return known[text.lower()]

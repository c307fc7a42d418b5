# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Completion for shells, made of the parser itself, so that both know the same.

Commands and options stand in the script. Names of instances, disks and parameters are asked for as one types, with the
options that say which allocator; where it does not answer at once, there are none.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final, NamedTuple

SHELLS: Final = ("bash", "zsh", "fish")
ASKED: Final[Mapping[str, str]] = {  # what stands for a value: by which command its names are asked for
    "NAME": "list -o name",
    "DISK": "disks -o name",
    "PARAMETER": "offer -o name",
}
VALUES: Final[Mapping[str, str]] = {  # options whose values have names that can be asked for
    "--param": "PARAMETER",
    "--attach": "DISK",
}


class Option(NamedTuple):
    """`takes`: a word of ASKED, "FILE", words to choose from, or anything ("?"); empty: it has no value."""

    flags: tuple[str, ...]
    takes: str
    help: str


class Command(NamedTuple):
    """`names`: what its arguments are, as `Option.takes`."""

    options: tuple[Option, ...]
    names: str
    help: str


def commands_of(parser: argparse.ArgumentParser) -> tuple[tuple[Option, ...], dict[str, Command]]:
    """The options before a command, and the commands."""
    found: dict[str, Command] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, each in action.choices.items():
                arguments = [one for one in each._actions if not one.option_strings]
                described = (each.description or "").split(". ")[0].split(":")[0].replace("\n", " ").strip(" .")
                found[name] = Command(_options(each), " ".join(map(_takes, arguments)), described)
    return _options(parser), found


def _options(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    return tuple(
        Option(tuple(one.option_strings), "" if one.nargs == 0 else _takes(one), _help(one))
        for one in parser._actions
        if one.option_strings and one.help != argparse.SUPPRESS
    )


def _help(one: argparse.Action) -> str:
    """Its first part, without the variable."""
    return (one.help or "").replace("%(default)s", str(one.default)).split(";")[0].split(" [")[0]


def _takes(one: argparse.Action) -> str:
    for flag in one.option_strings:
        if flag in VALUES:
            return VALUES[flag]
    if one.choices:
        return " ".join(map(str, one.choices))
    if not one.option_strings and one.metavar in ASKED:
        return str(one.metavar)
    return "FILE" if one.metavar == "PATH" else "?"


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """What the shell has to evaluate."""
    options, commands = commands_of(parser)
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](options, commands)


# ---------------------------------------------------------------------------------------------- bash


def _bash(options: tuple[Option, ...], commands: dict[str, Command]) -> str:
    cases = "\n".join(
        f"        {name}) options='{' '.join(_long(each.options))}' names='{each.names}' ;;"
        for name, each in commands.items()
    )
    takers = _takers(options, commands)
    values = "\n".join(f"        {'|'.join(patterns)}) wanted='{takes}' ;;" for takes, patterns in takers.items())
    valued = "|".join(sorted(_valued(options, commands)))
    return f"""\
# completion of allocator for bash: put  source <(allocator completion bash)  into ~/.bashrc
_allocator_ask() {{
    "${{words[0]}}" "${{where[@]}}" $1 2>/dev/null </dev/null
}}

_allocator() {{
    local IFS=$' \\t\\n' line="${{COMP_LINE:0:$COMP_POINT}}"
    local word before='' command='' wanted names='' found='' flag value number last
    local options='{" ".join(_long(options))}'
    local -a words where
    where=(--patience 0)
    set -f
    words=($line)
    set +f
    case "$line" in *[[:space:]]) words+=('') ;; esac
    last=$((${{#words[@]}} - 1))
    word="${{words[$last]}}"
    for ((number = 1; number < last; number++)); do
        flag="${{words[$number]}}"
        before=''
        case "$flag" in
        --*=*) value="${{flag#*=}}" flag="${{flag%%=*}}" ;;
        {valued})
            before="$flag"
            ((++number))
            value="${{words[$number]}}"
            ;;
        -*) continue ;;
        *)
            [[ -n $command ]] || command="$flag"
            continue
            ;;
        esac
        case "$flag" in
        {"|".join(WHERE)}) ((number < last)) && where+=("$flag" "$value") ;;
        esac
    done
    ((number > last)) || before=''
    case "$word" in --*=*) before="${{word%%=*}}" word="${{word#*=}}" ;; esac
    case "$command" in
{cases}
        '') names='{" ".join(commands)}' ;;
    esac
    case "$command $before" in
{values}
        *) wanted="$names" ;;
    esac
    case "$before$word" in -*) [[ -n $before ]] || wanted="$options" ;; esac
    for flag in $wanted; do
        case "$flag" in
{_bash_asked()}
        FILE) compopt -o default 2>/dev/null ;;
        '?') ;;
        *) found="$found $flag" ;;
        esac
    done
    COMPREPLY=($(compgen -W "$found" -- "$word"))
}}
complete -F _allocator allocator
"""


def _valued(options: tuple[Option, ...], commands: dict[str, Command]) -> dict[str, dict[str, str]]:
    """Flags that have a value, and what it is behind each command ("": before any)."""
    found: dict[str, dict[str, str]] = {}
    for command, own in {"": options, **{name: each.options for name, each in commands.items()}}.items():
        for option in own:
            for flag in option.flags if option.takes else ():
                found.setdefault(flag, {})[command] = option.takes
    return found


def _takers(options: tuple[Option, ...], commands: dict[str, Command]) -> dict[str, list[str]]:
    """What is wanted after which "COMMAND FLAG", as patterns of bash."""
    found: dict[str, list[str]] = {}
    for flag, places in _valued(options, commands).items():
        if len(set(places.values())) == 1:
            found.setdefault(next(iter(places.values())), []).append(f'*" {flag}"')
        else:
            for command, takes in places.items():
                found.setdefault(takes, []).append(f'"{command} {flag}"')
    return found


def _bash_asked() -> str:
    told = {name: f"found=\"$found $(_allocator_ask '{how}')\"" for name, how in ASKED.items()}
    told["PARAMETER"] = (
        f"found=\"$(_allocator_ask '{ASKED['PARAMETER']}' | sed 's/$/=/')\" && compopt -o nospace 2>/dev/null"
    )
    return "\n".join(f"        {name}) {how} ;;" for name, how in told.items())


WHERE: Final = ("--allocator", "--token-file", "--ca-file", "--kubeconfig", "--context", "--namespace")


def _long(options: tuple[Option, ...]) -> list[str]:
    return [flag for option in options for flag in option.flags if flag.startswith("--")]


# ---------------------------------------------------------------------------------------------- zsh


def _zsh(options: tuple[Option, ...], commands: dict[str, Command]) -> str:
    """By bash's own, which zsh can evaluate."""
    return f"""\
# completion of allocator for zsh: put  source <(allocator completion zsh)  into ~/.zshrc, after compinit
autoload -U +X bashcompinit && bashcompinit
compopt() {{ :; }}
{_bash(options, commands)}"""


# ---------------------------------------------------------------------------------------------- fish


def _fish(options: tuple[Option, ...], commands: dict[str, Command]) -> str:
    lines = [
        "# completion of allocator for fish: put  allocator completion fish | source  into config.fish",
        "function __allocator_ask",
        "    set -l where --patience 0",
        "    set -l words (commandline -opc)",
        "    for number in (seq 2 (math (count $words) - 1))",
        f"        if contains -- $words[$number] {' '.join(WHERE)}",
        "            set -a where $words[$number] $words[(math $number + 1)]",
        "        end",
        "    end",
        "    allocator $where $argv 2>/dev/null </dev/null",
        "end",
        "complete -c allocator -f",
    ]
    for name, each in commands.items():
        lines.append(f"complete -c allocator -n __fish_use_subcommand -a {name} -d {_quoted(each.help)}")
    lines += [_fish_option("__fish_use_subcommand", option) for option in options]
    for name, each in commands.items():
        seen = f"'__fish_seen_subcommand_from {name}'"
        lines += [_fish_option(seen, option) for option in each.options]
        if each.names:
            lines.append(f"complete -c allocator -n {seen} -a {_quoted(_fish_values(each.names))}")
    return "\n".join(lines) + "\n"


def _fish_option(condition: str, option: Option) -> str:
    flags = " ".join(
        f"-l {flag.removeprefix('--')}" if flag.startswith("--") else f"-s {flag.removeprefix('-')}"
        for flag in option.flags
    )
    takes = ""
    if option.takes == "FILE":
        takes = " -r -F"
    elif option.takes:
        takes = f" -x -a {_quoted(_fish_values(option.takes))}" if option.takes != "?" else " -x"
    return f"complete -c allocator -n {condition} {flags}{takes} -d {_quoted(option.help)}"


def _fish_values(takes: str) -> str:
    told = []
    for word in takes.split():
        if word == "PARAMETER":
            told.append(f"(__allocator_ask {ASKED[word]} | string replace -r '$' '=')")
        else:
            told.append(f"(__allocator_ask {ASKED[word]})" if word in ASKED else word)
    return " ".join(told)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("%%", "%") + "'"

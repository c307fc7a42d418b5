# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The house rules of imports: they point one way, and only few files know of Kubernetes or of Ansible."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
UTILS = "ansible_collections.muster.coordination.plugins.module_utils."
OURS = ("muster", "cluster", "demo", "bench", "tests")


class Rule(NamedTuple):
    """What a room may import beside the standard library: our rooms, packages, and rooms for annotations only.

    A room with a dot is a single file of one.
    """

    rooms: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


# A room is the first part of a path below module_utils, or the name of another directory.
RULES = {
    "errors": Rule(),
    "decisions": Rule(rooms=("decisions", "errors")),
    "client": Rule(
        rooms=("client", "decisions.allocator", "errors"),
        packages=("urllib3", "kubernetes", "yaml"),
        types=("credentials",),
    ),
    "credentials": Rule(rooms=("client", "errors"), packages=("urllib3", "kubernetes", "yaml")),
    "documents": Rule(rooms=("credentials", "errors"), packages=("yaml",)),
    "api": Rule(rooms=("client", "credentials", "errors"), packages=("urllib3",)),
    "commit": Rule(rooms=("api", "errors")),
    "verbs": Rule(rooms=("verbs", "decisions", "commit", "api", "client.allocator", "documents", "errors")),
    "ansible_face": Rule(rooms=("api", "credentials", "errors"), packages=("ansible",)),
    "modules": Rule(rooms=("verbs", "ansible_face"), packages=("ansible",)),
    "doc_fragments": Rule(),
    "muster": Rule(
        rooms=(
            *("muster", "verbs", "decisions", "commit", "api", "client.allocator", "credentials", "documents"),
            "errors",
        ),
        packages=("aiohttp", "prometheus_client", "urllib3", "yaml", "yarl"),  # aiohttp takes a yarl.URL
    ),
}

# The core decides by what it is told: not by what time it is, and not by what it could find out itself.
IMPURE = {
    "asyncio", "concurrent", "http", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "shutil",
    "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip


def sources() -> list[Path]:
    found = [*CHECKOUT.glob("plugins/**/*.py"), *CHECKOUT.glob("muster/**/*.py")]
    assert len(found) > 10, "the glob does not find the sources any more"
    return sorted(path.relative_to(CHECKOUT) for path in found)


def room(path: Path) -> str:
    parts = path.with_suffix("").parts
    if parts[0] == "muster":
        return "muster"
    return parts[2] if parts[1] == "module_utils" else parts[1]


def imports(source: str) -> Iterator[tuple[str, bool]]:
    """Full dotted name of all that is imported anywhere in the source, and whether it is for annotations only."""
    tree = ast.parse(source)
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    for_types = {id(node) for guard in guards for statement in guard.body for node in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, id(node) in for_types) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; the house is named in full everywhere"
            yield from ((f"{node.module}.{name.name}", id(node) in for_types) for name in node.names)


def broken_rules(own_room: str, source: str) -> list[str]:
    rule = RULES[own_room]
    broken = []
    for name, for_types in imports(source):
        allowed = rule.rooms + (rule.types if for_types else ())
        top = name.split(".")[0]
        if name.startswith(UTILS):
            inner = name.removeprefix(UTILS).split(".")
            fine = inner[0] in allowed or ".".join(inner[:2]) in allowed
        elif top in OURS or top == "ansible_collections":
            fine = top in allowed
        elif top in sys.stdlib_module_names:
            fine = own_room != "decisions" or top not in IMPURE
        else:
            fine = top in rule.packages
        if not fine:
            broken.append(f"{own_room} imports {name}")
    return broken


@pytest.mark.parametrize("path", sources(), ids=str)
def test_imports_point_one_way(path: Path) -> None:
    assert room(path) in RULES, f"{path} stands in a room without a rule: add one to RULES"
    assert broken_rules(room(path), (CHECKOUT / path).read_text()) == []


@pytest.mark.parametrize(
    ("own_room", "line"),
    [
        ("decisions", "import time"),
        ("decisions", f"from {UTILS}commit import commit"),
        ("verbs", "import urllib3"),
        ("verbs", f"from {UTILS}client.wire import Wire"),
        ("commit", f"from {UTILS}verbs import semaphore"),
        ("api", "def f():\n    import kubernetes"),
        ("client", f"from {UTILS}credentials import Credentials"),
        ("modules", f"from {UTILS}api import Api"),
        ("verbs", "from muster.cli import main"),
        ("muster", "import kubernetes"),
    ],
)
def test_a_wrong_import_is_found(own_room: str, line: str) -> None:
    assert broken_rules(own_room, line)

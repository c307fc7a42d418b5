# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command `allocator` shows: instances, once or live, what there is besides, and what it waits for."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self, TextIO

from muster.live import Found, age, fitted, listed, since
from muster.table import cut, plain, table

Instance = Mapping[str, Any]
TICK: Final = 1.0  # seconds between two looks at the clock while one waits


class Picture:
    """The instances, live (see muster/live.py)."""

    key = "instances"
    title = "Instances"

    def __init__(self, details: bool = False) -> None:
        self._details = details
        self._found: Found = []

    def take(self, found: Found, now: float) -> None:
        self._found = found

    def lines(self, width: int, height: int, now: float, trouble: str = "") -> list[str]:
        ready = sum(each["phase"] == "Ready" for each in self._found)
        head = cut(f"{self.title}: {len(self._found)}, {ready} ready", width)
        parts: list[str | list[str]] = [head, *_rows(self._found, now, self._details, width)]
        if trouble:
            parts += ["", cut(f"  {plain(trouble)}", width)]
        return fitted([[*parts, ""]], height)

    def text(self, found: Found) -> str:
        return instances_text(found, details=self._details, ages=False)

    def gist(self, found: Found) -> Any:
        return found


def instances_text(found: Found, width: int = 0, *, details: bool = False, ages: bool = True) -> str:
    """A table, or a sentence where there is nothing to put into one."""
    if not found:
        return "no instances"
    return table(*_table(found, time.time() if ages else None, details), width=width)


def _rows(found: Found, now: float, details: bool, width: int) -> list[str | list[str]]:
    return listed(*_table(found, now, details), width) if found else ["  no instances"]


def _table(found: Found, now: float | None, details: bool) -> tuple[list[str], list[list[Any]]]:
    """Headings and rows; without ages where there is no `now`."""
    headings = ["NAME", "PHASE", *(["AGE"] if now is not None else ["CREATED"])]
    if details:
        headings += ["OWNER", "SHARED-WITH", "PARAMETERS", "ENDPOINTS", "DISK"]
    has_messages = any(each["message"] for each in found)
    rows = []
    for each in found:
        row = [each["name"], each["phase"], since(each["created"], now) if now is not None else each["created"]]
        if details:
            row += [
                each["owner"],
                _shared(each),
                " ".join(f"{name}={_spelled(value)}" for name, value in sorted(each["parameters"].items())),
                " ".join(_endpoints(each)),
                each["storage"],
            ]
        rows.append([*row, each["message"]] if has_messages else row)
    return [*headings, "MESSAGE"] if has_messages else headings, rows


def instance_text(instance: Instance) -> str:
    """One instance, a line for each of its properties."""
    told = {
        "name": instance["name"],
        "owner": instance["owner"],
        "shared with": _shared(instance),
        "phase": f"{instance['phase']}{instance['message'] and ': '}{instance['message']}",
        "created": instance["created"],
        "age": since(instance["created"], time.time()),
        "parameters": " ".join(f"{key}={_spelled(value)}" for key, value in sorted(instance["parameters"].items())),
        "disk": "deleted with it" if instance["storage"] == "delete" else "kept when it is destroyed",
        "attached": instance["attach"],
        "resets": instance["resets"] or "",
        "template": instance["template"],
        "endpoints": ", ".join(_endpoints(instance)),
        "objects": ", ".join(f"{each['kind']} {each['name']}" for each in instance["objects"]),
    }
    return "\n".join(f"{name + ':':13}{plain(str(text))}" for name, text in told.items() if text != "")


def events_text(events: list[dict[str, Any]], width: int = 0) -> str:
    if not events:
        return "no events"
    rows = [(each["time"], each["type"], each["reason"], each["object"], each["message"]) for each in events]
    return table(("TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"), rows, width=width)


def disks_text(disks: list[dict[str, Any]], width: int = 0) -> str:
    if not disks:
        return "no disks that you have kept"
    now = time.time()
    rows = [(each["name"], each["size"], since(each["created"], now)) for each in disks]
    return table(("NAME", "SIZE", "AGE"), rows, width=width)


def offer_text(offer: Mapping[str, Any], width: int = 0) -> str:
    """What there is to be had, and the parameters that one can give."""
    caller, template = offer["caller"], offer["template"]
    rank = ", an administrator" if caller["is_administrator"] else ""
    parts = [
        f"You are {plain(caller['name'])}{rank}, and have {offer['used']} of at most {offer['limit']} instances.",
        f"An instance of {offer['name']} is made of {', '.join(template['kinds'])} (template {template['version']}).",
    ]
    rows = [
        (name, schema["type"], _spelled(schema["default"]) if "default" in schema else "needed", _bounds(schema))
        for name, schema in sorted(offer["parameters"].items())
    ]
    if rows:
        parts += ["", table(("PARAMETER", "TYPE", "DEFAULT", "VALUES"), rows, width=width)]
    for name, schema in sorted(offer["parameters"].items()):
        if schema.get("description"):
            parts.append(f"{'' if parts[-1].startswith('  ') else chr(10)}  {name}: {plain(schema['description'])}")
    return "\n".join(parts)


def _bounds(schema: Mapping[str, Any]) -> str:
    if schema.get("enum"):
        return ", ".join(map(_spelled, schema["enum"]))
    told = [
        f"{least} or more" if (least := schema.get("minimum")) is not None else "",
        f"{most} or less" if (most := schema.get("maximum")) is not None else "",
        f"{least} characters or more" if (least := schema.get("minLength")) else "",
        f"{most} characters or less" if (most := schema.get("maxLength")) is not None else "",
        f"like {schema['pattern']}" if schema.get("pattern") else "",
    ]
    return ", ".join(filter(None, told)) or "any"


def _shared(instance: Instance) -> str:
    access = instance["access"]
    return " ".join([*(f"user:{name}" for name in access["users"]), *(f"group:{name}" for name in access["groups"])])


def _endpoints(instance: Instance) -> list[str]:
    return [f"{each['service']}:{each['port']}" for each in instance["endpoints"]]


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


class Waiting:
    """What is waited for: one live line on a terminal; a line for each change elsewhere."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._is_live = out, out.isatty()
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._said = ""
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        if self._is_live:
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._stop.set()
        with self._lock:
            if self._is_live and self._said:
                self._out.write("\r\033[K")
                self._out.flush()
            self._said = ""

    def tell(self, instance: Instance) -> None:
        said = f"{instance['name']}: {instance['phase']}{instance['message'] and ', '}{instance['message']}"
        with self._lock:
            if said != self._said:
                self._said = plain(said)
                self._draw()

    def _draw(self) -> None:
        """Needs the lock."""
        import shutil

        if not self._is_live:
            print(self._said, file=self._out, flush=True)
            return
        clock = f" ({age(time.monotonic() - self._began)})"
        width = shutil.get_terminal_size().columns - 1
        self._out.write(f"\r{cut(self._said, max(1, width - len(clock)))}{clock}\033[K")
        self._out.flush()

    def _tick(self) -> None:
        while not self._stop.wait(TICK):
            with self._lock:
                if self._said and not self._stop.is_set():
                    self._draw()
